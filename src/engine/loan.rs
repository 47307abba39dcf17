//! A service that saves itself: memory is lent to it out of the reserve, then it is asked to stop, and goes on.

use super::action::Action;
use super::event::MemorySample;
use super::limits::LOAN_SLACK_BYTES;
use super::policy::{RunId, ServiceMode, UnitId};
use super::record::Record;
use super::service::{End, Loan, Procedure, Service};
use super::snapshot::{KillReason, ProcedureResult, Verdict};
use super::{Engine, Plan};

impl Service {
    /// The bound that it is lent memory above: a lower one that was asked for holds from its next run on.
    fn bound_now(&self, max_bytes: u64) -> u64 {
        match self.incident.map(|incident| incident.verdict) {
            Some(Verdict::LimitLowered { current_bytes }) => max_bytes.max(current_bytes),
            Some(_) | None => max_bytes,
        }
    }

    pub(super) fn saves_itself(&self) -> bool {
        self.policy.procedure.is_some_and(|procedure| procedure.service == ServiceMode::Running)
    }
}

impl Engine {
    /// Memory is lent before the signal, so that its handler, and what that writes, succeeds.
    pub(super) fn let_it_save_itself(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let (run, signal) = (service.run, service.policy.stop_signal);
        let exhausted = matches!(service.end, Some(End::Exhausted | End::Drilled { .. }));
        if service.is_gone() {
            // The kernel, or itself, was quicker.
            if service.policy.procedure.is_some_and(|procedure| !procedure.has_program) {
                self.kill(unit, KillReason::NoProcedure, plan);
            }
            return;
        }
        let Some(policy) = service.policy.procedure else { return };
        let deadline_ms = policy.deadline_ms;
        let lent_bytes = if exhausted { self.lend(unit, plan) } else { 0 };
        let Some(service) = self.unit(unit) else { return };
        let reason = match service.end {
            Some(End::Asked(reason)) => reason,
            Some(End::Failed(failure)) => KillReason::Failed(failure),
            Some(End::Exhausted | End::Drilled { .. } | End::Own(_) | End::StartFailed { .. }) | None => {
                KillReason::MemoryLent
            }
        };
        plan.push(Action::Signal { unit, run, signal, reason });
        self.thaw(unit, plan);
        plan.tell(Record::SavesItself { unit, lent_bytes, deadline_ms });
    }

    /// How much it is lent.
    fn lend(&mut self, unit: UnitId, plan: &mut Plan) -> u64 {
        let Some(service) = self.unit_mut(unit) else { return 0 };
        let lend_bytes = service.policy.procedure.map_or(0, |procedure| procedure.lend_bytes);
        let Some(memory) = service.policy.memory.filter(|_| lend_bytes > 0) else { return 0 };
        service.loan = Loan::Given;
        let max_bytes = service.bound_now(memory.max_bytes).saturating_add(lend_bytes);
        plan.push(Action::Lend { unit, run: service.run, max_bytes, lend_bytes });
        lend_bytes
    }

    pub(super) fn loan_failed(&mut self, unit: UnitId) {
        if let Some(service) = self.unit_mut(unit) {
            service.loan = Loan::None;
        }
    }

    /// The `oom` event may be one of before the loan: only what is used tells.
    pub(super) fn doubt_loan(&mut self, unit: UnitId, run: RunId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        if matches!(service.loan, Loan::Given | Loan::Doubted) {
            service.loan = Loan::Doubted;
            plan.push(Action::Sample { unit, run });
        } else if service.loan == Loan::None && service.saves_itself() && service.open.main {
            // It was stopped, or has failed, and runs out of memory only now: what it may be lent is set aside for it.
            self.lend(unit, plan);
        }
    }

    pub(super) fn judge_loan(&mut self, unit: UnitId, sample: MemorySample, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        service.loan = Loan::Given;
        let lend_bytes = service.policy.procedure.map_or(0, |procedure| procedure.lend_bytes);
        let Some(memory) = service.policy.memory else { return };
        let slack_bytes = LOAN_SLACK_BYTES.min(lend_bytes / 4);
        if sample.current_bytes.saturating_add(slack_bytes)
            >= service.bound_now(memory.max_bytes).saturating_add(lend_bytes)
        {
            self.loan_spent(unit, plan);
        }
    }

    /// What was lent is used up too: it stands still, and its procedure, where there is one, goes on.
    fn loan_spent(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        service.loan = Loan::Spent;
        plan.tell(Record::LentExhausted { unit });
        if service.procedure == Procedure::Released || service.otherwise.is_coming() {
            self.stand_still(unit, plan);
        } else {
            self.no_procedure_left(unit, ProcedureResult::LoanSpent, plan);
            self.kill(unit, KillReason::LoanSpent, plan);
        }
    }
}
