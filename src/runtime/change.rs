//! What other unit files change: which units come, change and go, and what an update does about each. Pure.
//!
//! - A fault changes nothing: a unit whose new file is faulty, or does not fit, goes on by its old definition.
//! - Who stays keeps what it names: a unit that goes on by its old definition keeps the units that this one names.
//! - Who runs keeps its memory: new and changed units get what those that stay as they are leave over.

use crate::engine::budget::{self, Bytes, Refusal};
use crate::engine::policy::{Class, UnitId, UnitPolicy};
use crate::engine::snapshot::{BudgetView, Trouble};
use crate::unit::Unit;
use crate::wire::reply::{Difference, Effect};

/// A unit that is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present<'a> {
    /// Its newest definition, as its file had it.
    pub(super) unit: &'a Unit,
    /// Its `memory.max` now, where that is another than its file had.
    pub(super) limited_bytes: Option<u64>,
    /// That one holds from its next run on.
    pub(super) pending: bool,
    /// It was taken out and is on its way down.
    pub(super) leaving: bool,
}

/// What is to be done about one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Add(Box<Unit>),
    Adjust(Box<Unit>),
    Replace(Box<Unit>),
    Remove,
}

/// One unit that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) unit: UnitId,
    pub(super) name: String,
    pub(super) difference: Difference,
    pub(super) effect: Effect,
    /// `None` where nothing is done: its new definition has a fault.
    pub(super) step: Option<Step>,
}

/// All that differs, in the order of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) changes: Vec<Planned>,
    pub(super) budget: BudgetView,
    /// Why units do not fit.
    pub(super) faults: Vec<String>,
}

/// What the machine has for its units.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) budget: BudgetView,
    /// What the pool uses now: its bound is not lowered below that.
    pub(super) pool_used_bytes: u64,
}

/// What is to become of a place.
#[derive(Clone, Debug)]
enum Fate {
    /// It goes on by the definition that it has.
    Keep,
    /// Its new file is not taken.
    Refuse,
    Take(Box<Unit>),
    Go,
}

/// Decides. `loaded` numbers its units by their positions; `names` narrows to some units (none: all), and to what new
/// ones of them name.
pub(super) fn plan(
    present: &[Option<Present<'_>>],
    loaded: Vec<Unit>,
    names: &[String],
    places_for: impl FnOnce(&[&str]) -> Vec<Option<UnitId>>,
    (room, overhead): (Room, impl Fn(&[&Unit]) -> u64),
) -> Plan {
    let mut planner = Planner { present, fates: Vec::new(), faults: Vec::new() };
    planner.meet(loaded, names, places_for);
    let budget = loop {
        planner.keep_what_is_named();
        let units: Vec<&Unit> = planner.staying().map(|(_, unit, _)| unit).collect();
        let overhead_bytes = overhead(&units);
        let (budget, refusals) = planner.divide(room.budget, overhead_bytes);
        if !planner.give_way(&refusals) && !planner.spare_the_pool(&budget, room.pool_used_bytes) {
            planner.refuse(&refusals);
            break budget;
        }
    };
    let mut changes: Vec<Planned> = Vec::new();
    for new in planner.changes() {
        let place = changes.partition_point(|other| (&other.name, other.unit) < (&new.name, new.unit));
        changes.insert(place, new);
    }
    Plan { changes, budget, faults: planner.faults }
}

struct Planner<'a> {
    present: &'a [Option<Present<'a>>],
    /// By place.
    fates: Vec<Option<Fate>>,
    faults: Vec<String>,
}

impl<'a> Planner<'a> {
    fn present(&self, at: usize) -> Option<Present<'a>> {
        self.present.get(at).copied().flatten()
    }

    /// A unit that is there and stays, and was found fit.
    fn old(&self, at: usize) -> Option<&'a Unit> {
        self.present(at).filter(|it| !it.leaving && it.unit.policy.refused.is_none()).map(|it| it.unit)
    }

    fn place_of(&self, name: &str) -> Option<usize> {
        self.present.iter().position(|it| it.is_some_and(|it| it.unit.policy.name == name))
    }

    /// Gives each place its fate as far as the files tell it.
    fn meet(
        &mut self,
        loaded: Vec<Unit>,
        names: &[String],
        places_for: impl FnOnce(&[&str]) -> Vec<Option<UnitId>>,
    ) {
        let wanted = |name: &String| names.is_empty() || names.contains(name);
        self.fates = self
            .present
            .iter()
            .map(|it| {
                it.filter(|it| !it.leaving).map(|it| {
                    let name = &it.unit.policy.name;
                    let there = loaded.iter().any(|unit| unit.policy.name == *name);
                    if !there && wanted(name) { Fate::Go } else { Fate::Keep }
                })
            })
            .collect();
        let mut places: Vec<Option<usize>> =
            loaded.iter().map(|unit| self.place_of(&unit.policy.name)).collect();
        let taken = self.taken(&loaded, &places, wanted);
        let fresh: Vec<usize> = (0..loaded.len())
            .filter(|at| taken.get(*at) == Some(&true) && places.get(*at) == Some(&None))
            .collect();
        let fresh_names: Vec<&str> =
            fresh.iter().filter_map(|at| loaded.get(*at)).map(|unit| unit.policy.name.as_str()).collect();
        for (at, place) in fresh.iter().zip(places_for(&fresh_names)) {
            if let Some(known) = places.get_mut(*at) {
                *known = place.map(|unit| usize::from(unit.0));
            }
        }
        for (at, unit) in loaded.into_iter().enumerate() {
            let Some(place) = places.get(at).copied().flatten() else { continue };
            if taken.get(at) == Some(&true) {
                self.set(place, Fate::Take(Box::new(renumbered(unit, &places))));
            } else if wanted(&unit.policy.name) {
                self.set(place, Fate::Refuse);
            }
        }
    }

    fn set(&mut self, place: usize, fate: Fate) {
        if self.fates.len() <= place {
            self.fates.resize(place + 1, None);
        }
        if let Some(slot) = self.fates.get_mut(place) {
            *slot = Some(fate);
        }
    }

    /// Which of the definitions are taken: the wanted ones without a fault, those that stand for nothing better, and
    /// what new ones name.
    fn taken(
        &self,
        loaded: &[Unit],
        places: &[Option<usize>],
        wanted: impl Fn(&String) -> bool,
    ) -> Vec<bool> {
        let is_there = |at: usize| {
            let place = places.get(at).copied().flatten();
            place.and_then(|place| self.present(place)).is_some_and(|it| !it.leaving)
        };
        let mut taken: Vec<bool> = loaded
            .iter()
            .zip(places)
            .map(|(unit, place)| {
                let faulty = unit.policy.refused.is_some();
                let better = place.is_some_and(|place| self.old(place).is_some());
                wanted(&unit.policy.name) && !(faulty && better)
            })
            .collect();
        let mut open: Vec<usize> = (0..loaded.len()).filter(|at| taken.get(*at) == Some(&true)).collect();
        while let Some(unit) = open.pop().and_then(|at| loaded.get(at)) {
            for other in unit.policy.others().map(|other| usize::from(other.0)) {
                if let Some(named) = taken.get_mut(other).filter(|named| !**named && !is_there(other)) {
                    *named = true;
                    open.push(other);
                }
            }
        }
        taken
    }

    fn keep_what_is_named(&mut self) {
        let mut open: Vec<usize> = (0..self.fates.len())
            .filter(|at| matches!(self.fates.get(*at), Some(Some(Fate::Keep | Fate::Refuse))))
            .collect();
        while let Some(at) = open.pop() {
            let Some(it) = self.present(at) else { continue };
            for other in it.unit.policy.others().map(|other| usize::from(other.0)) {
                if let Some(fate @ Some(Fate::Go)) = self.fates.get_mut(other) {
                    *fate = Some(Fate::Keep);
                    open.push(other);
                }
            }
        }
    }

    /// Who is there in the end: its place, its definition, and whether it keeps its memory.
    fn staying(&self) -> impl Iterator<Item = (usize, &Unit, bool)> {
        self.fates.iter().enumerate().filter_map(|(at, fate)| match fate.as_ref()? {
            Fate::Keep | Fate::Refuse => Some((at, self.present(at)?.unit, true)),
            Fate::Take(unit) => {
                let stays = self.old(at).is_some_and(|old| !restarts(old, unit));
                Some((at, &**unit, stays))
            }
            Fate::Go => None,
        })
    }

    fn divide(&self, room: BudgetView, overhead_bytes: u64) -> (BudgetView, Vec<(usize, Refusal)>) {
        let (places, mut policies): (Vec<usize>, Vec<UnitPolicy>) = self
            .staying()
            .map(|(at, unit, stays)| {
                let mut policy = unit.policy.clone();
                if stays {
                    policy.utility = budget::SERVED_FIRST;
                    let limited_bytes = self.present(at).and_then(|it| it.limited_bytes);
                    if let (Some(memory), Some(bytes)) = (&mut policy.memory, limited_bytes) {
                        memory.max_bytes = bytes;
                    }
                }
                (at, policy)
            })
            .unzip();
        let BudgetView { total_bytes, reserve_bytes, margin_bytes, .. } = room;
        let (budget, refusals) =
            budget::divide(total_bytes, reserve_bytes, margin_bytes, overhead_bytes, &mut policies);
        let placed = refusals
            .into_iter()
            .filter_map(|refusal| Some((*places.get(usize::from(refusal.unit.0))?, refusal)));
        (budget, placed.collect())
    }

    /// Changed units that do not fit go on as they are. False where there is none.
    fn give_way(&mut self, refusals: &[(usize, Refusal)]) -> bool {
        let mut gave = false;
        for (at, refusal) in refusals {
            let changed = matches!(self.fates.get(*at), Some(Some(Fate::Take(_))));
            if changed && self.old(*at).is_some() {
                self.faults.push(format!("{refusal}; until then it goes on as it is"));
                self.set(*at, Fate::Refuse);
                gave = true;
            }
        }
        gave
    }

    /// The bound of the pool cannot be lowered below what it uses: who would need that has to wait. False where nobody
    /// does.
    fn spare_the_pool(&mut self, budget: &BudgetView, used_bytes: u64) -> bool {
        let bound_bytes = budget.pool_bytes.saturating_add(budget.overhead_bytes);
        if bound_bytes >= used_bytes {
            return false;
        }
        let grows = |(at, fate): (usize, &Option<Fate>)| {
            let Some(Fate::Take(unit)) = fate else { return None };
            let before = self.old(at).map_or(0, guaranteed_bytes);
            let grows = unit.policy.refused.is_none() && guaranteed_bytes(unit) > before;
            grows.then_some((unit.policy.utility, at))
        };
        let Some((_, at)) = self.fates.iter().enumerate().filter_map(grows).min() else { return false };
        let Some(Some(Fate::Take(unit))) = self.fates.get_mut(at) else { return false };
        self.faults.push(format!(
            "{}: memory.max {} does not fit now: it would leave {} to the pool, which uses {}; stop units of the pool \
             first, or lower memory.max",
            unit.policy.name,
            Bytes(guaranteed_bytes(unit)),
            Bytes(bound_bytes),
            Bytes(used_bytes)
        ));
        unit.policy.refused = Some(Trouble::OverBudget);
        if self.old(at).is_some() {
            self.set(at, Fate::Refuse);
        }
        true
    }

    /// New units that do not fit are there, refused.
    fn refuse(&mut self, refusals: &[(usize, Refusal)]) {
        for (at, refusal) in refusals {
            if let Some(Some(Fate::Take(unit))) = self.fates.get_mut(*at) {
                unit.policy.refused = Some(Trouble::OverBudget);
                self.faults.push(refusal.to_string());
            }
        }
    }

    fn changes(&self) -> impl Iterator<Item = Planned> {
        self.fates.iter().enumerate().filter_map(|(at, fate)| {
            let unit = u16::try_from(at).ok().map(UnitId)?;
            let (name, difference, effect, step) = self.change(at, fate.as_ref()?)?;
            Some(Planned { unit, name, difference, effect, step })
        })
    }

    fn change(&self, at: usize, fate: &Fate) -> Option<(String, Difference, Effect, Option<Step>)> {
        let present = self.present(at);
        let name = |unit: &Unit| unit.policy.name.clone();
        match (fate, present) {
            (Fate::Keep, _) | (Fate::Go | Fate::Refuse, None) => None,
            (Fate::Go, Some(it)) => {
                Some((name(it.unit), Difference::Disappeared, Effect::Remove, Some(Step::Remove)))
            }
            (Fate::Refuse, Some(it)) => Some((name(it.unit), Difference::Changed, Effect::Refused, None)),
            (Fate::Take(new), Some(it)) if !it.leaving => {
                if **new == *it.unit {
                    return None;
                }
                let adjusts = !it.pending && self.old(at).is_some_and(|old| !restarts(old, new));
                let (effect, step) = if adjusts {
                    (Effect::Adjust, Step::Adjust(new.clone()))
                } else {
                    (Effect::Restart, Step::Replace(new.clone()))
                };
                Some((name(new), Difference::Changed, effect, Some(step)))
            }
            (Fate::Take(new), back) => {
                let starts = new.policy.autostart && new.policy.refused.is_none();
                let effect = if starts { Effect::Start } else { Effect::Add };
                let step = if back.is_some() { Step::Replace(new.clone()) } else { Step::Add(new.clone()) };
                Some((name(new), Difference::Available, effect, Some(step)))
            }
        }
    }
}

fn guaranteed_bytes(unit: &Unit) -> u64 {
    let memory = unit.policy.memory.filter(|memory| memory.class == Class::Guaranteed);
    memory.map_or(0, |memory| memory.max_bytes)
}

/// Positions become places. What has none leaves a unit that cannot be used.
fn renumbered(mut unit: Unit, places: &[Option<usize>]) -> Unit {
    let mut lost = false;
    for other in unit.policy.others_mut() {
        let place = places.get(usize::from(other.0)).copied().flatten();
        match place.and_then(|place| u16::try_from(place).ok()) {
            Some(place) => *other = UnitId(place),
            None => lost = true,
        }
    }
    if lost {
        unit.policy.forget_neighbours();
        unit.policy.refused = Some(Trouble::BadUnit);
    }
    unit
}

/// Whether a process made by the old definition would not be as the new one wants it. What is named here holds for a
/// process that is there already.
fn restarts(old: &Unit, new: &Unit) -> bool {
    let mut same = new.clone();
    let (policy, before) = (&mut same.policy, &old.policy);
    policy.take_neighbours(before);
    policy.description.clone_from(&before.description);
    policy.autostart = before.autostart;
    policy.utility = before.utility;
    policy.on_requirement_restart = before.on_requirement_restart;
    policy.conditions.clone_from(&before.conditions);
    policy.start_timeout_ms = before.start_timeout_ms;
    policy.stop_signal = before.stop_signal;
    policy.stop_timeout_ms = before.stop_timeout_ms;
    policy.success = before.success;
    policy.restart = before.restart;
    policy.health = before.health;
    if let (Some(procedure), Some(before)) = (&mut policy.procedure, before.procedure) {
        procedure.on_stop = before.on_stop;
        procedure.on_failure = before.on_failure;
        procedure.deadline_ms = before.deadline_ms;
        procedure.drill_every_ms = before.drill_every_ms;
        procedure.then = before.then;
    }
    same.health_address.clone_from(&old.health_address);
    same.conditions.clone_from(&old.conditions);
    same != *old
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::load;

    const MIB: u64 = 1 << 20;

    /// The units of these files.
    fn units(files: &[(&str, &str)]) -> Vec<Unit> {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, fields) in files {
            let text = format!("(command: [\"/bin/true\"], {fields})");
            std::fs::write(folder.path().join(format!("{name}.ron")), text).expect("a unit's file");
        }
        load(&[folder.path().to_owned()], None).units
    }

    /// 100 MiB for the units, and 8 MiB for their procedures, which have 2 beside them for writeback.
    fn room(pool_used_mib: u64) -> Room {
        let budget = BudgetView { total_bytes: 110 * MIB, reserve_bytes: 8 * MIB, ..BudgetView::default() };
        Room { budget, pool_used_bytes: pool_used_mib * MIB }
    }

    fn planned(before: &[(&str, &str)], after: &[(&str, &str)], room: Room) -> Plan {
        let old = units(before);
        let present: Vec<Option<Present<'_>>> = old
            .iter()
            .map(|unit| Some(Present { unit, limited_bytes: None, pending: false, leaving: false }))
            .collect();
        let count = u16::try_from(old.len()).expect("few units");
        let places = |names: &[&str]| (count..).map(UnitId).map(Some).take(names.len()).collect();
        plan(&present, units(after), &[], places, (room, |_: &[&Unit]| 0))
    }

    /// What becomes of each unit, as `name effect`, and how the faults begin.
    fn check(
        before: &[(&str, &str)],
        after: &[(&str, &str)],
        room: Room,
        (effects, faults): (&[&str], &[&str]),
    ) {
        let plan = planned(before, after, room);
        let found: Vec<String> =
            plan.changes.iter().map(|change| format!("{} {:?}", change.name, change.effect)).collect();
        assert_eq!(found, effects, "{after:?}");
        assert_eq!(plan.faults.len(), faults.len(), "{:?}", plan.faults);
        for (fault, start) in plan.faults.iter().zip(faults) {
            assert!(fault.starts_with(start), "{fault:?} does not start with {start:?}");
        }
    }

    #[test]
    fn what_differs_is_told_with_what_is_done() {
        let before = [("a", ""), ("b", "after: [\"a\"]"), ("c", "")];
        check(&before, &before, room(0), (&[], &[]));
        let after = [("a", "environment: {\"X\": \"1\"}"), ("b", ""), ("d", ""), ("e", "autostart: false")];
        check(&before, &after, room(0), (&["a Restart", "b Adjust", "c Remove", "d Start", "e Add"], &[]));
        for fields in [
            "description: \"x\"",
            "autostart: false",
            "utility: 1",
            "start_timeout: \"1s\"",
            "stop: (signal: \"INT\", timeout: \"1s\")",
            "success: (codes: [3])",
            "restart: (policy: Never)",
            "health: (tcp: \"127.0.0.1:1\", interval: \"1s\")",
        ] {
            check(&[("a", "")], &[("a", fields)], room(0), (&["a Adjust"], &[]));
        }
        let saves = "memory: (max: \"8MiB\"), shutdown: (procedure: [\"/bin/true\"]";
        let (never, daily) = (format!("{saves})"), format!("{saves}, drill_every: \"24h\")"));
        check(&[("a", &never)], &[("a", &daily)], room(0), (&["a Adjust"], &[]));
        for fields in [
            "kind: Task",
            "working_directory: \"/tmp\"",
            "memory: (max: \"8MiB\")",
            "nice: 3",
            "ready: Notify",
            "watchdog: \"3s\"",
            "output: Kmsg",
            "output_ring: \"8KiB\"",
            "memory: (max: \"8MiB\"), shutdown: (procedure: [\"/bin/true\"])",
        ] {
            check(&[("a", "")], &[("a", fields)], room(0), (&["a Restart"], &[]));
        }
    }

    /// The numbers of a new table are positions in it; the units' places are others.
    #[test]
    fn neighbours_are_found_by_their_places() {
        let plan =
            planned(&[("b", "")], &[("a", "requires: [\"b\"]"), ("b", ""), ("c", "after: [\"a\"]")], room(0));
        let named = |step: &Option<Step>| match step {
            Some(Step::Add(unit)) => unit.policy.others().map(|unit| unit.0).collect(),
            _ => Vec::new(),
        };
        let found: Vec<(u16, Vec<u16>)> =
            plan.changes.iter().map(|change| (change.unit.0, named(&change.step))).collect();
        assert_eq!(found, [(1, vec![0]), (2, vec![1])]);
    }

    #[test]
    fn faults_keep_what_is_there() {
        let before = [("a", ""), ("b", "requires: [\"a\"]"), ("c", "requires: [\"b\"]")];
        check(&before, &[("a", "nonsense: 1"), before[1], before[2]], room(0), (&["a Refused"], &[]));
        // The file of one that others name is gone: they have a fault now, and it stays for them, with what it names.
        check(&before, &[before[2]], room(0), (&["c Refused"], &[]));
        check(&before, &[before[0], before[2]], room(0), (&["c Refused"], &[]));
        // What had a fault before is there, and is started once it has none.
        check(&[("a", "nonsense: 1")], &[("a", "")], room(0), (&["a Restart"], &[]));
        check(&[("a", "")], &[("a", ""), ("b", "nonsense: 1")], room(0), (&["b Add"], &[]));
    }

    #[test]
    fn who_runs_keeps_its_memory() {
        let own = |mib: u32, utility: u32| {
            format!("memory: (max: \"{mib}MiB\", class: Guaranteed), utility: {utility}")
        };
        let (old, new) = (own(60, 1), own(50, 100));
        // More useful, but it comes too late.
        check(
            &[("a", &old)],
            &[("a", &old), ("b", &new)],
            room(0),
            (&["b Add"], &["b: memory.max 50 MiB does not fit: 110 MiB of memory"]),
        );
        check(&[("a", &old)], &[("b", &new)], room(0), (&["a Remove", "b Start"], &[]));
        // It grows beyond what there is, and goes on as it is; both may be needed by another that comes.
        let large = own(101, 100);
        let small = own(40, 1);
        check(
            &[("a", &old)],
            &[("a", &large), ("b", &small)],
            room(0),
            (&["a Refused", "b Start"], &["a: memory.max 101 MiB does not fit"]),
        );
    }

    #[test]
    fn the_pool_is_not_squeezed() {
        let own = |mib: u32| format!("memory: (max: \"{mib}MiB\", class: Guaranteed)");
        let (old, new) = (own(10), own(40));
        check(&[("a", "")], &[("a", ""), ("b", &new)], room(60), (&["b Start"], &[]));
        let told =
            "b: memory.max 40 MiB does not fit now: it would leave 60 MiB to the pool, which uses 61 MiB";
        check(&[("a", "")], &[("a", ""), ("b", &new)], room(61), (&["b Add"], &[told]));
        let told = "a: memory.max 40 MiB does not fit now";
        check(&[("a", &old)], &[("a", &new)], room(80), (&["a Refused"], &[told]));
        check(&[("a", &new)], &[("a", &old)], room(60), (&["a Restart"], &[]));
    }
}
