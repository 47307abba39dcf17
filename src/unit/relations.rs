//! What units say of each other: the fields of one file, and the graph of all of them.
//!
//! A unit that requires what does not exist, or that waits for itself by way of others, is refused; where the other
//! only should come first or come along, that it is missing is told and the unit starts without it.

use super::check::Draft;
use super::circle;
use super::diagnostic::{Diagnostic, Place, Wrong, did_you_mean, short};
use super::raw::RawUnit;
use super::reader::{Item, Reader};
use super::{Unit, conflicts, fallbacks, template};
use crate::engine::policy::UnitId;
use crate::engine::snapshot::Trouble;

/// So many units of a circle are shown; a longer one is shortened in its middle.
const SHOWN_MAX: usize = 16;

/// For so many names that nobody has, it is guessed what was meant.
const GUESSES_MAX: usize = 32;

/// How a unit stands to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Requires,
    Wants,
    After,
    Before,
    Conflicts,
}

impl Relation {
    /// The field's name.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Requires => "requires",
            Self::Wants => "wants",
            Self::After => "after",
            Self::Before => "before",
            Self::Conflicts => "conflicts",
        }
    }

    /// The unit starts after the other.
    fn waits(self) -> bool {
        matches!(self, Self::Requires | Self::Wants | Self::After)
    }

    /// The other is started with the unit.
    pub(super) fn pulls(self) -> bool {
        matches!(self, Self::Requires | Self::Wants)
    }
}

/// Another unit's name, and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub relation: Relation,
    pub name: String,
    pub place: Place,
}

/// Reads the lists of one file.
pub(super) fn read(reader: &mut Reader<'_>, raw: &mut RawUnit, own_name: &str) -> Vec<Reference> {
    let mut list: Vec<Reference> = Vec::new();
    let fields = [
        (Relation::Requires, raw.requires.take()),
        (Relation::Wants, raw.wants.take()),
        (Relation::After, raw.after.take()),
        (Relation::Before, raw.before.take()),
        (Relation::Conflicts, raw.conflicts.take()),
    ];
    for (relation, slot) in fields {
        for Item { value: name, at } in slot.given().map(|item| item.value).unwrap_or_default() {
            if let Some(wrong) = fault_of(&list, relation, &name, own_name) {
                reader.fault_in(relation.field(), &at, wrong);
            } else if !list.iter().any(|other| other.relation == relation && other.name == name) {
                list.push(Reference { relation, name, place: reader.place(&at) });
            }
        }
    }
    list
}

/// What contradicts the file's own name or what it said before.
fn fault_of(list: &[Reference], relation: Relation, name: &str, own_name: &str) -> Option<Wrong> {
    if name == own_name {
        let what = if relation == Relation::Conflicts { "conflict with" } else { "wait for" };
        return Some(Wrong::new(format!("a unit cannot {what} itself")).hint("take it out of the list"));
    }
    let clash = list.iter().find(|other| {
        other.name == name
            && match relation {
                Relation::Before => other.relation.waits(),
                Relation::Conflicts => other.relation.pulls(),
                Relation::Requires | Relation::Wants | Relation::After => false,
            }
    })?;
    let (name, field) = (short(name), clash.relation.field());
    let wrong = match relation {
        Relation::Conflicts => format!("`{name}` stands in `{field}` too: it would stop what it needs"),
        _ => format!("`{name}` stands in `{field}` too: each would wait for the other"),
    };
    Some(Wrong::new(wrong).hint("take it out of one of the two"))
}

/// Looks up the names, gives the ids, and refuses circles. Ids are positions: the drafts are sorted by name.
pub(super) fn join(drafts: &mut [Draft]) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    let names: Vec<String> = drafts.iter().map(|draft| draft.unit.policy.name.clone()).collect();
    for draft in drafts.iter_mut() {
        look_up(draft, &names, &mut faults);
    }
    let graph = Graph { names: &names };
    graph.refuse_circles(drafts, &mut faults);
    conflicts::refuse(drafts, &names, &mut faults);
    conflicts::refuse_torn(drafts, &names, &mut faults);
    fallbacks::join(drafts, &names, &mut faults);
    faults
}

/// Gives the draft its ids. A name that nobody has is told; where it is required the unit is refused.
fn look_up(draft: &mut Draft, names: &[String], faults: &mut Vec<Diagnostic>) {
    let mut lacks = false;
    let policy = &mut draft.unit.policy;
    draft.references.retain(|reference| {
        let Reference { relation, name, place } = reference;
        let found = names.binary_search(name).ok().and_then(|index| u16::try_from(index).ok());
        let list = match relation {
            Relation::Requires => &mut policy.requires,
            Relation::Wants => &mut policy.wants,
            Relation::After => &mut policy.after,
            Relation::Before => &mut policy.before,
            Relation::Conflicts => &mut policy.conflicts,
        };
        if let Some(index) = found {
            list.push(UnitId(index));
            return true;
        }
        let mut message = format!("there is no unit `{}`", short(name));
        match relation {
            Relation::Requires => lacks = true,
            Relation::Wants => message.push_str("; the unit starts without it"),
            Relation::After | Relation::Before | Relation::Conflicts => {
                message.push_str("; the unit starts all the same");
            }
        }
        // To compare a name with a thousand others takes a while: not for each of thousands.
        let names = if faults.len() < GUESSES_MAX { names } else { &[] };
        let hint = did_you_mean(name, names.iter().map(String::as_str));
        let hint = hint.unwrap_or_else(|| match template::split(name) {
            Some((template, _)) => format!("is {}.ron or {}.ron missing?", short(template), short(name)),
            None => format!("is {}.ron missing?", short(name)),
        });
        faults.push(Diagnostic::at(&draft.file, place, relation.field(), Wrong::new(message).hint(hint)));
        false
    });
    if lacks {
        draft.refuse();
    }
}

/// The positions of the units in a list of ids.
pub(super) fn positions(ids: &[UnitId]) -> impl Iterator<Item = usize> + '_ {
    ids.iter().map(|id| usize::from(id.0))
}

struct Graph<'n> {
    names: &'n [String],
}

impl Graph<'_> {
    fn name(&self, index: usize) -> &str {
        self.names.get(index).map_or("", String::as_str)
    }

    /// Who waits for whom, in whichever file that is written.
    fn edges(drafts: &[Draft]) -> Vec<Vec<usize>> {
        let mut edges = vec![Vec::new(); drafts.len()];
        for (index, draft) in drafts.iter().enumerate() {
            let policy = &draft.unit.policy;
            for first in
                positions(&policy.requires).chain(positions(&policy.wants)).chain(positions(&policy.after))
            {
                edges.get_mut(index).into_iter().for_each(|list: &mut Vec<usize>| list.push(first));
            }
            for then in positions(&policy.before) {
                edges.get_mut(then).into_iter().for_each(|list: &mut Vec<usize>| list.push(index));
            }
        }
        edges
    }

    /// Refuses every unit whose file has a part in a circle, and tells each circle once. A unit that others drew into
    /// one by `before` is spared: without their files there is no circle.
    fn refuse_circles(&self, drafts: &mut [Draft], faults: &mut Vec<Diagnostic>) {
        let edges = Self::edges(drafts);
        for group in circle::groups(&edges) {
            let within = |index: usize| group.binary_search(&index).is_ok();
            let guilty: Vec<usize> = group
                .iter()
                .copied()
                .filter(|&member| {
                    drafts.get(member).is_some_and(|draft| {
                        draft.references.iter().any(|reference| {
                            reference.relation != Relation::Conflicts
                                && self.names.binary_search(&reference.name).is_ok_and(within)
                        })
                    })
                })
                .collect();
            faults.extend(self.circle_fault(drafts, &group, &guilty, &circle::way_round(&edges, &group)));
            for member in guilty {
                if let Some(draft) = drafts.get_mut(member) {
                    draft.forget_relations();
                    draft.unit.policy.refused = Some(Trouble::OrderCycle);
                }
            }
        }
    }

    /// Where it is written that a unit waits for another.
    fn origin<'d>(
        &self,
        drafts: &'d [Draft],
        waits: usize,
        first: usize,
    ) -> Option<(&'d Draft, &'d Reference)> {
        let find = |author: usize, other: usize, fits: fn(Relation) -> bool| {
            let draft = drafts.get(author)?;
            let named = |it: &&Reference| fits(it.relation) && it.name == self.name(other);
            Some((draft, draft.references.iter().find(named)?))
        };
        find(waits, first, Relation::waits).or_else(|| find(first, waits, |it| it == Relation::Before))
    }

    /// The fault of a circle, at the place of its first step, with the places of all its steps.
    fn circle_fault(
        &self,
        drafts: &[Draft],
        group: &[usize],
        guilty: &[usize],
        way: &[usize],
    ) -> Option<Diagnostic> {
        let step = |pair: &[usize]| {
            let [waits, first] = *pair else { return None };
            let (draft, Reference { relation, place, .. }) = self.origin(drafts, waits, first)?;
            let (waits, first, place) = (self.name(waits), self.name(first), place.shown(&draft.file));
            Some(format!("{waits} waits for {first}: {place}: {}", relation.field()))
        };
        let (draft, Reference { relation, place, .. }) = self.origin(drafts, *way.first()?, *way.get(1)?)?;
        let words = shortened(way.iter().map(|&index| self.name(index).to_owned()).collect());
        let mut message = format!("these units wait for each other: {}", words.join(" → "));
        let list = |indexes: &mut dyn Iterator<Item = usize>| -> String {
            shortened(indexes.map(|index| self.name(index).to_owned()).collect()).join(", ")
        };
        let others = list(&mut group.iter().copied().filter(|member| !way.contains(member)));
        if !others.is_empty() {
            message = format!("{message}; {others} in other circles with them");
        }
        let hint = format!("take one of these out; until then none of {} is started", {
            list(&mut guilty.iter().copied())
        });
        let mut fault = Diagnostic::at(&draft.file, place, relation.field(), Wrong::new(message).hint(hint));
        fault.notes = shortened(way.windows(2).filter_map(step).collect());
        Some(fault)
    }
}

/// A list without its middle where it is long.
fn shortened(mut list: Vec<String>) -> Vec<String> {
    if list.len() > SHOWN_MAX {
        list.splice(SHOWN_MAX / 2..list.len() - SHOWN_MAX / 2, ["...".to_owned()]);
    }
    list
}

/// The units, once nothing of their drafts is needed any more.
pub(super) fn units(drafts: Vec<Draft>) -> Vec<Unit> {
    drafts.into_iter().map(|draft| draft.unit).collect()
}
