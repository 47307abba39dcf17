//! Units that cannot be up at the same time: what contradicts itself, and which of them are wished up at boot.

use super::check::Draft;
use super::diagnostic::{Diagnostic, Wrong};
use super::relations::{Reference, Relation, positions};

/// A conflict: who says so, with whom, and where.
struct Conflict {
    author: usize,
    other: usize,
    reference: Reference,
}

fn all(drafts: &[Draft], names: &[String]) -> Vec<Conflict> {
    let of = |(author, draft): (usize, &Draft)| {
        let stated = draft.references.iter().filter(|reference| reference.relation == Relation::Conflicts);
        let found = stated.filter_map(move |reference| {
            let other = names.binary_search(&reference.name).ok()?;
            Some(Conflict { author, other, reference: reference.clone() })
        });
        found.collect::<Vec<_>>()
    };
    drafts.iter().enumerate().flat_map(of).collect()
}

/// All that is started with these units, themselves included, by position.
fn started_with(drafts: &[Draft], first: impl Iterator<Item = usize>) -> Vec<bool> {
    let mut met = vec![false; drafts.len()];
    let mut open: Vec<usize> = first.collect();
    while let Some(unit) = open.pop() {
        let Some(seen) = met.get_mut(unit).filter(|seen| !**seen) else { continue };
        *seen = true;
        if let Some(draft) = drafts.get(unit) {
            let policy = &draft.unit.policy;
            open.extend(positions(&policy.requires).chain(positions(&policy.wants)));
        }
    }
    met
}

/// Refuses a unit that conflicts with what it is started with, or with what it is started for.
pub(super) fn refuse(drafts: &mut [Draft], names: &[String], faults: &mut Vec<Diagnostic>) {
    let name = |index: usize| names.get(index).map_or("", String::as_str);
    for Conflict { author, other, reference } in all(drafts, names) {
        let pulls = |one: usize, two: usize| {
            started_with(drafts, std::iter::once(one)).get(two).copied().unwrap_or(false)
        };
        let (puller, pulled) = match (pulls(author, other), pulls(other, author)) {
            (true, _) => (author, other),
            (false, true) => (other, author),
            (false, false) => continue,
        };
        let Some(draft) = drafts.get_mut(author) else { continue };
        let (puller, pulled) = (name(puller), name(pulled));
        let wrong = Wrong::new(format!("`{puller}` starts `{pulled}`, which would stop it"))
            .hint("units that conflict cannot require or want each other, not by way of others either");
        faults.push(Diagnostic::at(&draft.file, &reference.place, reference.relation.field(), wrong));
        draft.refuse();
    }
}

/// Refuses a unit that requires, by way of others too, two units that conflict: it could never be up.
pub(super) fn refuse_torn(drafts: &mut [Draft], names: &[String], faults: &mut Vec<Diagnostic>) {
    for Conflict { author, other, .. } in all(drafts, names) {
        let needs = [who_needs(drafts, author), who_needs(drafts, other)];
        let needs_both = |unit: usize| needs.iter().all(|needs| needs.get(unit).copied().unwrap_or(false));
        // What requires such a unit is not at fault itself.
        let torn: Vec<usize> = (0..drafts.len())
            .filter(|&unit| needs_both(unit))
            .filter(|&unit| {
                let requires = drafts.get(unit).map(|draft| draft.unit.policy.requires.as_slice());
                !positions(requires.unwrap_or_default()).any(needs_both)
            })
            .collect();
        let name = |index: usize| names.get(index).map_or("", String::as_str);
        for unit in torn {
            let Some(draft) = drafts.get_mut(unit) else { continue };
            let mut stated =
                draft.references.iter().filter(|reference| reference.relation == Relation::Requires);
            let way = |reference: &&Reference| {
                names
                    .binary_search(&reference.name)
                    .is_ok_and(|at| needs.iter().any(|needs| needs.get(at).copied().unwrap_or(false)))
            };
            // The later of the two.
            let Some(reference) = stated.rfind(way) else { continue };
            let wrong =
                format!("`{}` requires `{}` and `{}`, which conflict", name(unit), name(author), name(other));
            let wrong =
                Wrong::new(wrong).hint("take one of them out, or use `wants`: then the first one is started");
            faults.push(Diagnostic::at(&draft.file, &reference.place, "requires", wrong));
            draft.refuse();
        }
    }
}

/// Which units cannot be up without this one, itself included.
fn who_needs(drafts: &[Draft], unit: usize) -> Vec<bool> {
    let mut met = vec![false; drafts.len()];
    let mut open = vec![unit];
    while let Some(unit) = open.pop() {
        let Some(seen) = met.get_mut(unit).filter(|seen| !**seen) else { continue };
        *seen = true;
        let requires = |draft: &Draft| positions(&draft.unit.policy.requires).any(|other| other == unit);
        open.extend(drafts.iter().enumerate().filter(|(_, draft)| requires(draft)).map(|(at, _)| at));
    }
    met
}

/// Tells of units that conflict and are all to be started at boot.
pub(super) fn at_boot(drafts: &[Draft], names: &[String]) -> Vec<Diagnostic> {
    let wished =
        |(_, draft): &(usize, &Draft)| draft.unit.policy.autostart && draft.unit.policy.refused.is_none();
    let up = started_with(drafts, drafts.iter().enumerate().filter(wished).map(|(index, _)| index));
    let is_up = |index: usize| {
        up.get(index).copied().unwrap_or(false)
            && drafts.get(index).is_some_and(|draft| draft.unit.policy.refused.is_none())
    };
    let fault = |Conflict { author, other, reference }: Conflict| {
        let draft = drafts.get(author).filter(|_| is_up(author) && is_up(other))?;
        let other = names.get(other)?;
        let wrong =
            Wrong::new(format!("`{}` and `{other}` are both to be started at boot", draft.unit.policy.name))
                .hint(
                    "only one of them will be: give the other autostart: false, or take it out of the target",
                );
        Some(Diagnostic::at(&draft.file, &reference.place, "conflicts", wrong))
    };
    all(drafts, names).into_iter().filter_map(fault).collect()
}
