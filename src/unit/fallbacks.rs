//! The units that run in another one's stead: their names, and that none of them leads back.

use super::Unit;
use super::check::Draft;
use super::circle;
use super::diagnostic::{Diagnostic, Place, Wrong, did_you_mean, short};
use super::reader::Reader;
use super::restart::{self, Fallbacks};
use crate::engine::policy::UnitId;
use std::path::Path;

/// Another unit's name, where it was written, and for which end.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub name: String,
    end: restart::Place,
    place: Place,
}

/// Notes the places of the names.
pub(super) fn read(reader: &mut Reader<'_>, fallbacks: Fallbacks, own_name: &str) -> Vec<Named> {
    let mut list = Vec::new();
    for (end, item) in fallbacks {
        if item.value == own_name {
            let wrong = Wrong::new("a unit cannot stand in for itself").hint("name another unit");
            reader.fault_in(end.field(), &item.at, wrong);
        } else {
            list.push(Named { name: item.value, end, place: reader.place(&item.at) });
        }
    }
    list
}

/// Looks up the fallbacks, and refuses circles of them: also where a fallback requires the unit in whose stead it is to
/// run.
pub(super) fn join(drafts: &mut [Draft], names: &[String], faults: &mut Vec<Diagnostic>) {
    for draft in &mut *drafts {
        for named in std::mem::take(&mut draft.fallbacks) {
            match look_up(names, &named, &draft.file, faults) {
                Some(to) => {
                    named.end.set(&mut draft.unit.policy, to);
                    draft.fallbacks.push(named);
                }
                None => draft.refuse(),
            }
        }
    }
    let edges: Vec<Vec<usize>> = drafts
        .iter()
        .map(|Draft { unit: Unit { policy, .. }, fallbacks, .. }| {
            let fallbacks = fallbacks.iter().filter_map(|named| named.end.get(policy));
            policy.requires.iter().copied().chain(fallbacks).map(|id| usize::from(id.0)).collect()
        })
        .collect();
    for group in circle::groups(&edges) {
        let way = circle::way_round(&edges, &group);
        faults.extend(circle_fault(drafts, names, &way));
        for &member in &group {
            drafts.get_mut(member).into_iter().for_each(Draft::refuse);
        }
    }
}

fn look_up(names: &[String], named: &Named, file: &Path, faults: &mut Vec<Diagnostic>) -> Option<UnitId> {
    let found = names.binary_search(&named.name).ok().and_then(|index| u16::try_from(index).ok());
    if found.is_none() {
        let wrong = Wrong::new(format!("there is no unit `{}`", short(&named.name)));
        let hint = did_you_mean(&named.name, names.iter().map(String::as_str));
        let hint = hint.unwrap_or_else(|| format!("is {}.ron missing?", short(&named.name)));
        faults.push(Diagnostic::at(file, &named.place, named.end.field(), wrong.hint(hint)));
    }
    found.map(UnitId)
}

/// The fault of a circle in which a unit's fallback leads back to it, at a place that names a fallback.
fn circle_fault(drafts: &[Draft], names: &[String], way: &[usize]) -> Option<Diagnostic> {
    let (draft, named) = way.windows(2).find_map(|step| {
        let (draft, next) = (drafts.get(*step.first()?)?, names.get(*step.last()?)?);
        Some((draft, draft.fallbacks.iter().find(|named| named.name == *next)?))
    })?;
    let words: Vec<&str> = way.iter().filter_map(|index| names.get(*index).map(String::as_str)).collect();
    let message = format!("these units stand in for each other: {}", words.join(" → "));
    let hint = "a fallback neither falls back to nor requires the unit in whose stead it runs";
    let wrong = Wrong::new(message).hint(hint);
    Some(Diagnostic::at(&draft.file, &named.place, named.end.field(), wrong))
}
