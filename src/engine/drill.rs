//! A drill: the way to the shutdown procedure on purpose, to prove it and to measure what it needs; there and
//! back, or to the end.
//!
//! On the way back the service goes on at once, and its procedure is parked anew beside it. An exhaustion in between
//! waits, frozen, until it is.

use super::action::{Action, Reply};
use super::event::{ClientId, Exit, Role};
use super::limits::START_DEADLINE_MS;
use super::policy::{RunId, ServiceMode, UnitId};
use super::record::Record;
use super::requests::Until;
use super::service::{End, Procedure, State};
use super::snapshot::{Desired, Drill, KillReason, ProcedureResult};
use super::timer::TimerKind;
use super::{Engine, Plan};
use serde::{Deserialize, Serialize};

/// How far the procedure is from standing in its parking place again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Rearm {
    /// It need not.
    #[default]
    No,
    /// What is left of the drill's procedure is being killed.
    Emptying,
    /// The new process is being made.
    Parking,
}

impl Engine {
    pub(super) fn asked_drill(
        &mut self,
        client: ClientId,
        unit: UnitId,
        to_the_end: bool,
        plan: &mut Plan,
    ) -> Option<Reply> {
        let now = self.now;
        let Some(service) = self.unit(unit) else { return Some(Reply::Failed) };
        let Some(policy) = service.policy.procedure else { return Some(Reply::NoDrill) };
        if !to_the_end && policy.service != ServiceMode::Frozen {
            return Some(Reply::NoDrill);
        }
        if service.state != State::Running || service.said_stopping.is_some() {
            return Some(Reply::NotRunning);
        }
        let is_free = service.can_save()
            && service.rearm == Rearm::No
            && service.limiting.is_none()
            && service.commands.is_idle()
            && !service.reload.under_way
            && service.desired == Desired::Up
            && !service.again;
        if !is_free {
            return Some(Reply::Failed);
        }
        if let Some(refused) = self.wait(client, unit, Until::Drilled) {
            return Some(refused);
        }
        self.begin_end(unit, End::Drilled { back: !to_the_end }, plan);
        if let Some(service) = self.unit_mut(unit) {
            service.drill = Some(Drill {
                to_the_end,
                began: now,
                frozen: None,
                released: None,
                procedure_ended: None,
                over: None,
                procedure: ProcedureResult::None,
                peak_bytes: None,
                deadline_ms: policy.deadline_ms,
                memory_bytes: policy.memory_bytes,
            });
        }
        plan.tell(Record::Drill { unit, to_the_end });
        if to_the_end {
            self.begin_saving(unit, plan);
        } else {
            self.freeze(unit, plan);
        }
        None
    }

    /// The present run's drill, while it is under way.
    pub(super) fn drill(&mut self, unit: UnitId) -> Option<&mut Drill> {
        let service = self.unit_mut(unit)?;
        let drills = matches!(service.end, Some(End::Drilled { .. })) || service.rearm != Rearm::No;
        service.drill.as_mut().filter(|drill| drills && drill.over.is_none())
    }

    /// What the procedure has used at most, over all of its runs.
    pub(super) fn procedure_peak(&mut self, unit: UnitId, run: RunId, peak_bytes: u64) {
        if self.live(unit, run).is_some()
            && let Some(drill) = self.drill(unit)
        {
            drill.peak_bytes = Some(peak_bytes);
        }
    }

    /// The saving is over: what is left is killed, or goes on where it was but a drill.
    pub(super) fn end_saving(&mut self, unit: UnitId, reason: KillReason, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        if service.end != Some(End::Drilled { back: true }) {
            self.kill(unit, reason, plan);
            return;
        }
        let (run, last_exit) = (service.run, service.last_exit);
        if let Some(exit) = last_exit.filter(|_| !service.open.main) {
            service.end = Some(End::Own(exit));
            self.kill(unit, KillReason::LeftBehind, plan);
            return;
        }
        service.end = None;
        service.rearm = Rearm::Emptying;
        service.procedure = Procedure::Over;
        service.open.procedure_cgroup = true;
        plan.push(Action::KillCgroup { unit, run, role: Role::Procedure, reason: KillReason::NotNeeded });
        self.go_on(unit, plan);
        self.timers.set(unit, TimerKind::Drill, self.now.plus_ms(START_DEADLINE_MS));
        self.listen(unit, plan);
    }

    /// Both the process and all that it has left must be gone before another takes its place.
    pub(super) fn rearm_if_clear(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        if service.rearm != Rearm::Emptying || !service.makes_way_for_procedure() {
            return;
        }
        let run = service.run;
        service.rearm = Rearm::Parking;
        self.give_back_reserve(unit, plan);
        plan.push(Action::Park { unit, run });
    }

    /// It ended before it was needed, while the service is up. One that stood for as long as a healthy run is followed
    /// by another; for one that does not stay the unit is started anew, as often as its limit allows.
    pub(super) fn procedure_lost(&mut self, unit: UnitId, exit: Exit, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        let (run, healthy_ms) = (service.run, service.policy.restart.healthy_ms);
        let stood = now.since_us(service.parked_at) >= u64::from(healthy_ms) * 1_000;
        // A drill from which there was no way back is over by now.
        service.drill = service.drill.filter(|drill| drill.over.is_some());
        plan.tell(Record::ProcedureLost { unit, exit });
        if !stood {
            self.rearm_failed(unit, plan);
            return;
        }
        service.rearm = Rearm::Emptying;
        service.open.procedure_cgroup = true;
        plan.push(Action::KillCgroup { unit, run, role: Role::Procedure, reason: KillReason::LeftBehind });
        self.timers.set(unit, TimerKind::Drill, now.plus_ms(START_DEADLINE_MS));
    }

    pub(super) fn rearmed(&mut self, unit: UnitId, plan: &mut Plan) {
        let now = self.now;
        if let Some(drill) = self.drill(unit) {
            drill.over = Some(now);
            let drill = *drill;
            plan.tell(Record::Drilled { unit, result: drill.procedure, after_us: now.since_us(drill.began) });
        }
        let Some(service) = self.unit_mut(unit) else { return };
        service.procedure = Procedure::Parked;
        service.parked_at = now;
        service.rearm = Rearm::No;
        let waits = service.state == State::Queued;
        self.timers.clear(unit, TimerKind::Drill);
        self.generation += 1;
        self.answer_waiting(unit, Until::Drilled, Reply::Drilled, plan);
        if waits {
            self.procedure_may_start(unit, plan);
        }
    }

    /// A service does not run on without its parked procedure: it is started anew with one.
    pub(super) fn rearm_failed(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        service.rearm = Rearm::No;
        service.procedure = Procedure::Over;
        let state = service.state;
        self.timers.clear(unit, TimerKind::Drill);
        self.answer_waiting(unit, Until::Drilled, Reply::Failed, plan);
        match state {
            State::Queued => self.procedure_may_start(unit, plan),
            State::Running | State::Idling => {
                if let Some(service) = self.unit_mut(unit) {
                    // Nobody asked for it: its history counts on.
                    (service.again, service.follows) = (true, true);
                }
                self.mark(unit);
            }
            State::Down(_)
            | State::Waiting
            | State::Backoff
            | State::Parking
            | State::Spawning
            | State::Readying
            | State::Freezing
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => {}
        }
    }

    pub(super) fn drill_due(&mut self, unit: UnitId, plan: &mut Plan) {
        if self.unit(unit).is_some_and(|service| service.rearm != Rearm::No) {
            self.rearm_failed(unit, plan);
        }
    }
}
