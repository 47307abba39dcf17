//! The second, simpler procedure of a unit, where the first one has failed.
//!
//! It is made only then, in the same cgroup and in the same part of the reserve, once nothing of the first is left: a
//! second parked process for each unit would cost more than it is worth. Its deadline begins with the first one's
//! failure.

use super::action::Action;
use super::event::{Exit, Role};
use super::policy::UnitId;
use super::record::Record;
use super::service::{End, Procedure, Service, State};
use super::snapshot::{KillReason, ProcedureResult};
use super::{Engine, Plan};
use serde::{Deserialize, Serialize};

/// How far the second procedure of the present run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Otherwise {
    /// There is none, or the first has not failed.
    #[default]
    No,
    /// What is left of the first is being killed.
    Emptying,
    /// Its process is being made.
    Making,
    /// It was let go, or could not be.
    Over,
}

impl Otherwise {
    /// There is something to wait for.
    pub(super) fn is_coming(self) -> bool {
        matches!(self, Self::Emptying | Self::Making)
    }
}

impl ProcedureResult {
    /// It has not done what it is there for.
    fn is_failure(self) -> bool {
        match self {
            Self::None | Self::Ended(Exit::Code(0)) | Self::SavedItself(_) => false,
            Self::Ended(_)
            | Self::OutOfMemory
            | Self::LoanSpent
            | Self::TimedOut
            | Self::SpawnFailed { .. }
            | Self::Lost(_) => true,
        }
    }
}

impl Service {
    /// It has a second procedure, which has not had its turn.
    pub(super) fn may_come_otherwise(&self) -> bool {
        let drills = matches!(self.end, Some(End::Drilled { .. }));
        let has_one = self.policy.procedure.is_some_and(|procedure| procedure.has_otherwise);
        has_one && !drills && self.otherwise == Otherwise::No
    }

    /// The same where the first is gone before it was needed. One that does not die, after a drill, has its place.
    pub(super) fn begins_otherwise(&self) -> bool {
        self.may_come_otherwise() && !self.holds_reserve
    }
}

impl Engine {
    /// True where the second procedure comes now, after this result of the first. A drill proves the first alone.
    pub(super) fn comes_otherwise(
        &mut self,
        unit: UnitId,
        result: ProcedureResult,
        reason: KillReason,
        plan: &mut Plan,
    ) -> bool {
        let Some(service) = self.unit_mut(unit) else { return false };
        let Some(policy) = service.policy.procedure else { return false };
        let fails = service.state == State::Saving && result.is_failure();
        if !fails || !service.may_come_otherwise() {
            return false;
        }
        service.otherwise = Otherwise::Emptying;
        service.procedure = Procedure::Over;
        service.open.procedure_cgroup = true;
        if let Some(incident) = &mut service.incident {
            incident.first_procedure = Some(result);
        }
        let run = service.run;
        plan.tell(Record::Otherwise { unit, result, deadline_ms: policy.deadline_ms });
        plan.push(Action::KillCgroup { unit, run, role: Role::Procedure, reason });
        self.enter(unit, State::Saving);
        self.step_deadline(unit, u64::from(policy.deadline_ms));
        true
    }

    /// Both the first procedure's process and all that it has left must be gone before the second takes its place.
    pub(super) fn make_otherwise_if_clear(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        if !service.makes_way_for_procedure() {
            return;
        }
        let run = service.run;
        service.otherwise = Otherwise::Making;
        plan.push(Action::ParkOtherwise { unit, run });
    }

    /// It stands before its `execve`, and need not wait there.
    pub(super) fn let_otherwise_go(&mut self, unit: UnitId, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        let Some(policy) = service.policy.procedure else { return };
        service.otherwise = Otherwise::Over;
        service.procedure = Procedure::Released;
        let run = service.run;
        let gone_ms = u32::try_from(now.since_us(service.since) / 1_000).unwrap_or(u32::MAX);
        let order = service.order(policy.deadline_ms.saturating_sub(gone_ms));
        plan.push(Action::StartProcedure { unit, run, order });
    }
}
