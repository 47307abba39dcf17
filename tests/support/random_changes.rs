//! Random changes of a table of units, as the runtime makes them: nobody who stays names one who goes.

use crate::random_units::{random_drills, random_unit};
use crate::rng::Rng;
use lifeboat::engine::Engine;
use lifeboat::engine::action::Action;
use lifeboat::engine::change::Change;
use lifeboat::engine::policy::{Escalation, Kind, ProcedurePolicy, UnitId, UnitPolicy};

/// The newest definitions by place, and the order in which units may name each other.
pub(crate) struct Table {
    units: Vec<UnitPolicy>,
    keys: Vec<u64>,
    /// Its definition holds from its next run on.
    pending: Vec<bool>,
    born: u64,
}

/// Takes these out of all that the unit names.
fn forget(policy: &mut UnitPolicy, gone: &[UnitId]) {
    for list in [
        &mut policy.requires,
        &mut policy.wants,
        &mut policy.after,
        &mut policy.before,
        &mut policy.conflicts,
    ] {
        list.retain(|other| !gone.contains(other));
    }
    let is_gone = |then: &Escalation| matches!(then, Escalation::Fallback(to) if gone.contains(to));
    let restart = &mut policy.restart;
    let procedure = policy.procedure.as_mut().and_then(|procedure| procedure.then.as_mut());
    for then in
        [Some(&mut restart.on_limit), restart.exhaustion.then.as_mut(), procedure].into_iter().flatten()
    {
        if is_gone(then) {
            *then = Escalation::Stop;
        }
    }
}

impl Table {
    pub(crate) fn new((units, keys): (Vec<UnitPolicy>, Vec<u64>)) -> Self {
        let pending = vec![false; units.len()];
        Self { units, keys, pending, born: 0 }
    }

    pub(crate) fn performed(&mut self, action: Action) {
        if let Action::Adopt { unit } = action {
            self.pending[usize::from(unit.0)] = false;
        }
    }

    /// Gives a unit with this key its neighbours.
    fn relate(&self, rng: &mut Rng, (policy, key): (&mut UnitPolicy, u64), engine: &Engine, gone: &[UnitId]) {
        let mut some = |of: Vec<UnitId>, share| of.into_iter().filter(|_| rng.per_mille(share)).collect();
        policy.requires = some(self.that(engine, gone, |other| other < key), 200);
        policy.wants = some(self.that(engine, gone, |other| other < key), 100);
        policy.after = some(self.that(engine, gone, |other| other < key), 200);
        policy.before = some(self.that(engine, gone, |other| other > key), 100);
        policy.conflicts = some(self.that(engine, gone, |other| other != key), 30);
    }

    /// The units that stay, and whose keys are such.
    fn that(&self, engine: &Engine, gone: &[UnitId], fits: impl Fn(u64) -> bool) -> Vec<UnitId> {
        (0u16..)
            .map(UnitId)
            .zip(&self.keys)
            .filter(|(unit, other)| {
                fits(**other) && engine.is_present(*unit) && !engine.is_leaving(*unit) && !gone.contains(unit)
            })
            .map(|(unit, _)| unit)
            .collect()
    }

    /// A few changes at once.
    pub(crate) fn change(&mut self, rng: &mut Rng, engine: &Engine) -> Vec<(UnitId, Change)> {
        let share = rng.pick(&[100, 300, 600]);
        let present: Vec<UnitId> = (0u16..)
            .map(UnitId)
            .take(self.units.len())
            .filter(|unit| engine.is_present(*unit) && rng.per_mille(share))
            .collect();
        let (gone, kept): (Vec<_>, Vec<_>) = present.into_iter().partition(|_| rng.per_mille(400));
        let mut changes: Vec<(UnitId, Change)> = gone.iter().map(|unit| (*unit, Change::Remove)).collect();
        for unit in &gone {
            self.pending[usize::from(unit.0)] = false;
        }
        let widowed = |policy: &UnitPolicy| policy.clone().others_mut().any(|other| gone.contains(other));
        for at in 0..self.units.len() {
            let unit = UnitId(u16::try_from(at).unwrap());
            if !engine.is_present(unit) || gone.contains(&unit) {
                continue;
            }
            let drawn = kept.contains(&unit);
            if !drawn && (engine.is_leaving(unit) || !widowed(&self.units[at])) {
                continue;
            }
            changes.push((unit, self.changed(rng, engine, unit, (drawn, &gone))));
        }
        self.add(rng, engine, &gone, &mut changes);
        changes
    }

    fn changed(
        &mut self,
        rng: &mut Rng,
        engine: &Engine,
        unit: UnitId,
        (drawn, gone): (bool, &[UnitId]),
    ) -> Change {
        let at = usize::from(unit.0);
        let replaces = drawn && rng.per_mille(600);
        let old = self.units[at].clone();
        let mut new = old.clone();
        if drawn {
            let before = self.that(engine, gone, |other| other < self.keys[at]);
            new = random_unit(rng, unit.0, &before);
            self.relate(rng, (&mut new, self.keys[at]), engine, gone);
            new.name.clone_from(&old.name);
            // What is done was judged by what counted as a success then.
            new.success = old.success;
            new.refused = None;
        }
        forget(&mut new, gone);
        let replaces = replaces || self.pending[at] || engine.is_leaving(unit) || old.refused.is_some();
        if !replaces {
            let wanted = new;
            let drilled = |it: ProcedurePolicy| ProcedurePolicy {
                drill_every_ms: random_drills(rng, it.service),
                ..it
            };
            new = UnitPolicy {
                requires: wanted.requires,
                wants: wanted.wants,
                after: wanted.after,
                before: wanted.before,
                conflicts: wanted.conflicts,
                on_requirement_restart: wanted.on_requirement_restart,
                utility: wanted.utility,
                restart: wanted.restart,
                health: wanted.health.filter(|_| old.kind == Kind::Service),
                stop_timeout_ms: wanted.stop_timeout_ms,
                procedure: old.procedure.map(drilled),
                ..old
            };
        }
        forget(&mut new, gone);
        self.units[at] = new.clone();
        if replaces {
            self.pending[at] = true;
            Change::Replace(new)
        } else {
            Change::Adjust(new)
        }
    }

    fn add(&mut self, rng: &mut Rng, engine: &Engine, gone: &[UnitId], changes: &mut Vec<(UnitId, Change)>) {
        let names: Vec<String> = (0..rng.between(0, 3)).map(|at| format!("new{}", self.born + at)).collect();
        self.born += names.len() as u64;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for (name, place) in names.iter().zip(engine.places_for(&names)) {
            let Some(unit) = place else { continue };
            let key = rng.next();
            let before = self.that(engine, gone, |other| other < key);
            let mut policy = random_unit(rng, unit.0, &before);
            self.relate(rng, (&mut policy, key), engine, gone);
            policy.name = (*name).to_owned();
            let at = usize::from(unit.0);
            if at == self.units.len() {
                self.units.push(policy.clone());
                self.keys.push(key);
                self.pending.push(false);
            } else {
                self.units[at] = policy.clone();
                self.keys[at] = key;
                self.pending[at] = false;
            }
            changes.push((unit, Change::Add(policy)));
        }
    }
}
