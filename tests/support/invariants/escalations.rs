//! What comes when another start is no cure: fallbacks, the rescue, the budget of exhaustions.

use super::{Invariant, Violation, Watch, hold};
use crate::fake_kernel::FakeKernel;
use lifeboat::engine::action::Action;
use lifeboat::engine::event::{Event, Time, Verb};
use lifeboat::engine::limits::KILL_TRIES_MAX;
use lifeboat::engine::policy::{Escalation, RestartWhen, UnitId, UnitPolicy};
use lifeboat::engine::record::Record;
use lifeboat::engine::snapshot::{Desired, KillReason, Snapshot, StateName};

/// What is known of one unit over all its runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// Somebody wants it for its own sake: it is started at boot, a person asked, or something requires it.
    own: bool,
    /// So many more starts are allowed by something other than its restart policy.
    pub(super) called: u8,
    /// A person asked since the rescue was called for.
    asked_in_rescue: bool,
    exhaustions: Vec<Time>,
    /// Its last run was exhausted.
    exhausted: bool,
    /// The budget is used up, and that has consequences.
    spent: bool,
    /// A person wants another run after the one that is ending.
    again: bool,
}

impl Standing {
    /// Its past is forgotten, and one more start is allowed.
    pub(super) fn called_once_more(&mut self, in_rescue: bool) {
        self.spent = false;
        self.called = self.called.max(1);
        self.exhaustions.clear();
        self.asked_in_rescue |= in_rescue;
    }
}

/// The unit, and all that it requires.
fn with_requirements(policies: &[UnitPolicy], unit: UnitId) -> Vec<UnitId> {
    let mut found = vec![unit];
    let mut at = 0;
    while let Some(next) = found.get(at).and_then(|unit| policies.get(usize::from(unit.0))) {
        let more: Vec<UnitId> =
            next.requires.iter().chain(&next.wants).copied().filter(|it| !found.contains(it)).collect();
        found.extend(more);
        at += 1;
    }
    found
}

impl Watch {
    pub(super) fn wanted(&mut self, event: Event) {
        match event {
            Event::Boot => {
                for (unit, policy) in (0..).map(UnitId).zip(self.policies.clone()) {
                    if policy.autostart {
                        self.call(unit, true);
                    }
                }
            }
            Event::Asked { unit, verb: verb @ (Verb::Start | Verb::Restart), .. } => {
                self.call(unit, true);
                let at = usize::from(unit.0);
                if let (Some(standing), Some(seen)) = (self.standings.get_mut(at), self.seen.get(at)) {
                    standing.again |= seen.ending || seen.signalled || seen.stopping || verb == Verb::Restart;
                }
                for standing in &mut self.standings {
                    standing.called_once_more(false);
                }
            }
            _ => {}
        }
    }

    pub(super) fn call(&mut self, unit: UnitId, for_itself: bool) {
        for wanted in with_requirements(&self.policies, unit) {
            if let Some(standing) = self.standings.get_mut(usize::from(wanted.0)) {
                standing.own |= for_itself || wanted != unit;
                standing.called = standing.called.max(1);
                standing.asked_in_rescue |= self.rescue_called;
            }
            self.forget(wanted);
        }
    }

    /// What the turn says, before its actions are looked at.
    pub(super) fn heard(&mut self, now: Time, actions: &[Action]) {
        let mut makes_room = false;
        let changes = actions.iter().any(|action| {
            matches!(
                action,
                Action::Log(Record::Changed { .. } | Record::Added { .. } | Record::Removed { .. })
            )
        });
        for action in actions {
            let Action::Log(record) = action else { continue };
            match *record {
                Record::Escalating { escalation: Escalation::Fallback(to), .. } => {
                    self.escalated = true;
                    self.call(to, false);
                }
                Record::Escalating { escalation: Escalation::Rescue, .. } => {
                    self.escalated = true;
                    self.rescue_called = true;
                }
                Record::Escalating { .. } => self.escalated = true,
                Record::Removed { unit } => {
                    self.rescue = self.rescue.filter(|rescue| *rescue != unit);
                    makes_room = true;
                }
                // One that does not die is no longer waited for.
                Record::StillPopulated { .. } => makes_room |= self.changed,
                Record::RescueBegins { unit } => {
                    self.call(unit, true);
                }
                // Its end brings a new run; the way back fails now and then, and does so too.
                Record::Drill { unit, .. } => {
                    let standing = &mut self.standings[usize::from(unit.0)];
                    standing.called = standing.called.max(1);
                }
                Record::IncidentClosed { unit, .. } => self.exhausted(now, unit),
                // Stopped for a rival in a turn of many wishes: with the last of them it may be wanted again.
                Record::Stopping {
                    unit,
                    reason: KillReason::RequirementRestarts | KillReason::Conflict | KillReason::ProcedureLost,
                } => {
                    self.standings[usize::from(unit.0)].called += 1;
                }
                // By other files it was wished up, down, and up again, all in one turn.
                Record::Stopping { unit, reason: KillReason::StopAsked } if changes => {
                    self.standings[usize::from(unit.0)].called += 1;
                }
                Record::Stopping { unit, reason: KillReason::RequirementDown } => {
                    // It comes back with its requirement, however often it was started.
                    self.standings[usize::from(unit.0)].called = 1;
                    self.seen[usize::from(unit.0)].starts.clear();
                }
                _ => {}
            }
        }
        if makes_room {
            // What other files bring waits for what they take away.
            for (standing, seen) in self.standings.iter_mut().zip(&mut self.seen) {
                standing.called_once_more(self.rescue_called);
                // One that is on its way down meanwhile comes up after that, whatever its policy says.
                standing.again |= seen.ending || seen.signalled || seen.stopping;
                seen.starts.clear();
            }
        }
    }

    fn forget(&mut self, unit: UnitId) {
        let at = usize::from(unit.0);
        let (Some(seen), Some(standing)) = (self.seen.get_mut(at), self.standings.get_mut(at)) else {
            return;
        };
        seen.starts.clear();
        standing.exhaustions.clear();
        standing.spent = false;
    }

    fn exhausted(&mut self, now: Time, unit: UnitId) {
        let budget = self.policies[usize::from(unit.0)].restart.exhaustion;
        let standing = &mut self.standings[usize::from(unit.0)];
        standing.exhausted = true;
        if standing.again {
            // With the wish of a person the past is forgotten.
            standing.exhaustions.clear();
            return;
        }
        standing.exhaustions.push(now);
        let within = |time: &&Time| now.since_us(**time) <= u64::from(budget.within_ms) * 1_000;
        let recent = standing.exhaustions.iter().filter(within).count();
        standing.spent = budget.then.is_some() && recent >= budget.times as usize;
    }

    /// A run begins.
    pub(super) fn may_begin(&mut self, unit: UnitId, kernel: &FakeKernel) -> Result<(), Violation> {
        let when = self.policies[usize::from(unit.0)].restart.when;
        let rescue = self.rescue;
        let spared = rescue.is_some_and(|rescue| with_requirements(&self.policies, rescue).contains(&unit));
        let standing = &mut self.standings[usize::from(unit.0)];
        hold(Invariant::BudgetHolds, !standing.spent, || format!("{unit:?}: {standing:?}"))?;
        let allowed = match when {
            RestartWhen::Always | RestartWhen::OnFailure => true,
            RestartWhen::OnExhaustion => standing.called > 0 || standing.exhausted,
            RestartWhen::Never => standing.called > 0,
        };
        hold(Invariant::RestartsAsAllowed, allowed, || format!("{unit:?}: {when:?} {standing:?}"))?;
        standing.called = standing.called.saturating_sub(1);
        (standing.exhausted, standing.again) = (false, false);
        let fine = !self.rescue_called || spared || standing.asked_in_rescue;
        hold(Invariant::RescueIsAlone, fine, || format!("{unit:?} begins in the rescue"))?;
        if Some(unit) == rescue && self.rescue_called && self.seen[usize::from(unit.0)].run.0 == 0 {
            let needed = with_requirements(&self.policies, unit);
            let alive = kernel.living().find(|(other, ..)| {
                let at = usize::from(other.0);
                let unkillable = self.seen[at].kills.iter().any(|kills| *kills >= u32::from(KILL_TRIES_MAX));
                !needed.contains(other) && !self.standings[at].asked_in_rescue && !unkillable
            });
            let asked = self.standings[usize::from(unit.0)].asked_in_rescue;
            let fine = alive.is_none() || asked;
            hold(Invariant::RescueIsAlone, fine, || format!("{alive:?} lives beside the rescue"))?;
        }
        Ok(())
    }

    /// What readers see of it.
    pub(super) fn escalations_hold(&self, snapshot: &Snapshot) -> Result<(), Violation> {
        let named = |name: &str| snapshot.names.iter().position(|known| known == name);
        let stand_ins: Vec<UnitId> = snapshot.units.iter().filter_map(|unit| unit.fallback).collect();
        for unit in &snapshot.units {
            let up = matches!(unit.state, StateName::Running | StateName::Done) && unit.run.0 > 0;
            let task = unit.kind == lifeboat::engine::policy::Kind::Task && unit.state == StateName::Running;
            hold(Invariant::FallbackGoes, !up || task || unit.fallback.is_none(), || format!("{unit:?}"))?;
            let Some(at) = named(&unit.name) else { continue };
            let wanted = unit.desired == Desired::Down
                || self.standings[at].own
                || stand_ins.iter().any(|to| usize::from(to.0) == at);
            hold(Invariant::FallbackGoes, wanted, || format!("{unit:?} is up for nobody"))?;
        }
        for to in stand_ins.iter().filter(|_| self.escalated && !self.shutting_down()) {
            let name = snapshot.names.get(usize::from(to.0));
            let up = snapshot
                .units
                .iter()
                .any(|unit| Some(&unit.name) == name && (unit.desired == Desired::Up || self.rescue_called));
            hold(Invariant::FallbackComes, up, || format!("{name:?}"))?;
        }
        Ok(())
    }
}
