//! The parked procedure of a run that ends without it: it waits for the run that follows at once.
//!
//! To kill it and to park another is most of what a restart would take: two processes for one.

use super::action::Action;
use super::drill::Rearm;
use super::event::{Role, Time};
use super::graph::Turn;
use super::policy::UnitId;
use super::service::{End, Procedure, Service};
use super::snapshot::{Desired, KillReason};
use super::{Engine, Plan};

impl Engine {
    /// The run that ends now is followed by another at once, of the same definition, and its procedure was not needed.
    pub(super) fn keeps_parked(&self, unit: UnitId) -> bool {
        let Some(service) = self.unit(unit) else { return false };
        let is_there = service.open.procedure
            && service.procedure == Procedure::Parked
            && service.rearm == Rearm::No
            && !service.saves_after_kill
            // A resident one may hold what belongs to this run's service, and may have children.
            && service.policy.procedure.is_some_and(|procedure| !procedure.resident);
        let stays = service.desired == Desired::Up
            && service.successor.is_none()
            && !service.leaving
            && service.policy.conditions.is_empty()
            && !service.rests();
        is_there
            && stays
            && service.begins_again_at_once(self.now)
            && self.starts_left > 0
            && self.shutdown.is_none()
            && matches!(self.turn_of(unit), Turn::Now)
    }

    /// All else of the run is gone. False where the procedure has to go first: much may have happened since it was left
    /// where it is.
    pub(super) fn hands_parked_on(&mut self, unit: UnitId, plan: &mut Plan) -> bool {
        let keeps = self.keeps_parked(unit);
        let Some(service) = self.unit_mut(unit) else { return false };
        if !service.keeps_parked || keeps {
            return true;
        }
        service.keeps_parked = false;
        if !service.open.procedure {
            return true;
        }
        let run = service.run;
        service.open.procedure_cgroup = true;
        plan.push(Action::KillCgroup { unit, run, role: Role::Procedure, reason: KillReason::NotNeeded });
        false
    }
}

impl Service {
    /// Without a delay, and without a look at anything else.
    fn begins_again_at_once(&self, now: Time) -> bool {
        let due = self.restarts.is_due_at_once(now, self.up_since.unwrap_or(now), &self.policy.restart);
        match self.end {
            Some(End::StartFailed { .. } | End::Exhausted | End::Drilled { .. }) | None => false,
            // A person asked for the restart.
            Some(End::Asked(_)) => self.again && !self.follows,
            Some(end @ (End::Own(_) | End::Failed(_))) => {
                (self.again && !self.follows) || (due && self.wants_restart(end))
            }
        }
    }
}
