//! A drill: the way to the shutdown procedure on purpose, to prove it and to measure what it needs; there and
//! back, or to the end.
//!
//! On the way back the service goes on at once, and its procedure is parked anew beside it. An exhaustion in between
//! waits, frozen, until it is. A timer may ask for that drill too, as often as the unit says.

use super::action::{Action, Reply};
use super::event::{ClientId, Exit, MemoryEvents, Role};
use super::limits::{DRILL_AGAIN_MS, KILL_RETRY_MS, KILL_TRIES_MAX, START_DEADLINE_MS};
use super::policy::{RunId, ServiceMode, UnitId};
use super::record::Record;
use super::requests::Until;
use super::service::{End, Procedure, Service, State};
use super::snapshot::{Desired, Drill, KillReason, ProcedureResult};
use super::starting::PARKED_TOO_LATE;
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
        if let Err(reply) = self.may_drill(unit, to_the_end) {
            return Some(reply);
        }
        if let Some(refused) = self.wait(client, unit, Until::Drilled) {
            return Some(refused);
        }
        self.begin_drill(unit, to_the_end, plan);
        None
    }

    fn may_drill(&self, unit: UnitId, to_the_end: bool) -> Result<(), Reply> {
        let Some(service) = self.unit(unit) else { return Err(Reply::Failed) };
        let Some(policy) = service.policy.procedure else { return Err(Reply::NoDrill) };
        if !to_the_end && policy.service != ServiceMode::Frozen {
            return Err(Reply::NoDrill);
        }
        if service.state != State::Running || service.said_stopping.is_some() {
            return Err(Reply::NotRunning);
        }
        let is_free = service.can_save()
            && service.rearm == Rearm::No
            && service.limiting.is_none()
            && service.commands.is_idle()
            && !service.reload.under_way
            && service.desired == Desired::Up
            && !service.again;
        if is_free { Ok(()) } else { Err(Reply::Failed) }
    }

    fn begin_drill(&mut self, unit: UnitId, to_the_end: bool, plan: &mut Plan) {
        let now = self.now;
        self.timers.clear(unit, TimerKind::NextDrill);
        self.begin_end(unit, End::Drilled { back: !to_the_end }, plan);
        let Some(service) = self.unit_mut(unit) else { return };
        let Some(policy) = service.policy.procedure else { return };
        service.drill_put_off = false;
        service.drill = Some(Drill {
            to_the_end,
            began: now,
            frozen: None,
            released: None,
            procedure_ended: None,
            over: None,
            broken_off: false,
            procedure: ProcedureResult::None,
            peak_bytes: None,
            high: 0,
            deadline_ms: policy.deadline_ms,
            memory_bytes: policy.memory_bytes,
        });
        plan.tell(Record::Drill { unit, to_the_end });
        if to_the_end {
            self.begin_saving(unit, plan);
        } else {
            self.freeze(unit, plan);
        }
        self.procedure_goes_to_work(unit, plan);
    }

    /// The next drill that nobody asks for, where the unit has such: a whole interval from now.
    pub(super) fn plan_drill(&mut self, unit: UnitId) {
        match self.unit(unit).and_then(Service::drill_every_ms) {
            Some(ms) => self.timers.set(unit, TimerKind::NextDrill, self.now.plus_ms(u64::from(ms))),
            None => self.timers.clear(unit, TimerKind::NextDrill),
        }
    }

    pub(super) fn next_drill_due(&mut self, unit: UnitId, plan: &mut Plan) {
        if self.shutdown.is_none() && self.may_drill(unit, false).is_ok() {
            if self.has_room_to_drill(unit) {
                self.begin_drill(unit, false, plan);
            } else {
                self.timers.set(unit, TimerKind::NextDrill, self.now.plus_ms(DRILL_AGAIN_MS));
            }
            return;
        }
        self.plan_drill(unit);
        let Some(service) = self.unit_mut(unit) else { return };
        let told = std::mem::replace(&mut service.drill_put_off, true);
        if !told {
            plan.tell(Record::DrillPutOff { unit });
        }
    }

    /// A drill that nobody asked for is due, and others on their way have a say in it.
    pub(super) fn drill_waits_for_others(&self, unit: UnitId) -> bool {
        self.timers.is_due(unit, TimerKind::NextDrill, self.now)
            && (self.is_rescuing() || self.is_one_on_its_way())
    }

    fn is_one_on_its_way(&self) -> bool {
        self.units.iter().any(|service| matches!(service.state, State::Freezing | State::Queued))
    }

    /// No unit stands still, or is saved late, for a drill that nobody asked for.
    fn has_room_to_drill(&self, unit: UnitId) -> bool {
        let free_bytes = self.reserve_bytes.saturating_sub(self.reserve_used_bytes);
        let procedure = self.unit(unit).and_then(|service| service.policy.procedure);
        let needs_bytes = procedure.map_or(0, |procedure| procedure.reserve_bytes());
        // What never fits fails, and is told.
        (needs_bytes <= free_bytes || needs_bytes > self.reserve_bytes)
            && !self.is_rescuing()
            && !self.is_one_on_its_way()
    }

    /// The present run's drill, while it is under way.
    pub(super) fn drill(&mut self, unit: UnitId) -> Option<&mut Drill> {
        let service = self.unit_mut(unit)?;
        let drills = matches!(service.end, Some(End::Drilled { .. })) || service.rearm != Rearm::No;
        service.drill.as_mut().filter(|drill| drills && drill.over.is_none() && !drill.broken_off)
    }

    /// What the procedure has used at most, over all of its runs.
    pub(super) fn procedure_peak(&mut self, unit: UnitId, run: RunId, peak_bytes: u64) {
        if self.live(unit, run).is_some()
            && let Some(drill) = self.drill(unit)
        {
            drill.peak_bytes = Some(peak_bytes);
        }
    }

    /// A resident one may have met its memory while it waited: what belongs to its work counts from here on.
    pub(super) fn procedure_goes_to_work(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        if service.policy.procedure.is_some_and(|procedure| procedure.resident) {
            service.procedure_high = None;
            plan.push(Action::ReadPeak { unit, run: service.run });
        }
    }

    /// Of the procedure's own cgroup: nothing is decided by it before the procedure ends.
    pub(super) fn procedure_memory(&mut self, unit: UnitId, run: RunId, counters: MemoryEvents) {
        let Some(service) = self.live(unit, run) else { return };
        service.procedure_oom_kill.1 = counters.oom_kill;
        let Some(before) = service.procedure_high.replace(counters.high) else { return };
        // Fewer: the cgroup was made anew.
        let more = counters.high.checked_sub(before).unwrap_or(counters.high);
        if let Some(incident) = &mut service.incident {
            incident.procedure_high = incident.procedure_high.saturating_add(more);
        }
        if let Some(drill) = self.drill(unit) {
            drill.high = drill.high.saturating_add(more);
        }
    }

    /// The saving is over: what is left is killed, or goes on where it was but a drill.
    pub(super) fn end_saving(&mut self, unit: UnitId, reason: KillReason, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        if service.end != Some(End::Drilled { back: true }) {
            self.kill(unit, reason, plan);
            return;
        }
        let last_exit = service.last_exit;
        if let Some(exit) = last_exit.filter(|_| !service.open.main) {
            service.end = Some(End::Own(exit));
            self.restart_dependents(unit);
            self.kill(unit, KillReason::LeftBehind, plan);
            return;
        }
        service.end = None;
        service.procedure = Procedure::Over;
        self.make_way(unit, KillReason::NotNeeded, plan);
        self.go_on(unit, plan);
        self.listen(unit, plan);
        self.ballast_after_drill(unit);
        self.read_for_stages(unit, plan);
    }

    /// Kills what a procedure has left, as often as at the end of a run, so that another can take its place.
    fn make_way(&mut self, unit: UnitId, reason: KillReason, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let run = service.run;
        (service.rearm, service.kill_tries) = (Rearm::Emptying, 1);
        service.open.procedure_cgroup = true;
        plan.push(Action::KillCgroup { unit, run, role: Role::Procedure, reason });
        self.timers.set(unit, TimerKind::Drill, self.now.plus_ms(KILL_RETRY_MS));
    }

    /// Both the process and all that it has left must be gone before another takes its place.
    pub(super) fn rearm_if_clear(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        if service.rearm != Rearm::Emptying || !service.makes_way_for_procedure() {
            return;
        }
        let run = service.run;
        service.rearm = Rearm::Parking;
        self.timers.set(unit, TimerKind::Drill, self.now.plus_ms(START_DEADLINE_MS));
        self.give_back_reserve(unit, plan);
        plan.push(Action::Park { unit, run });
    }

    /// It ended before it was needed, while the service is up. One that stood for as long as a healthy run is followed
    /// by another; for one that does not stay the unit is started anew, as often as its limit allows.
    pub(super) fn procedure_lost(&mut self, unit: UnitId, exit: Exit, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        let healthy_ms = service.policy.restart.healthy_ms;
        let stood = now.since_us(service.parked_at) >= u64::from(healthy_ms) * 1_000;
        plan.tell(Record::ProcedureLost { unit, exit });
        if stood {
            self.make_way(unit, KillReason::LeftBehind, plan);
        } else {
            self.rearm_failed(unit, ProcedureResult::Lost(exit), plan);
        }
    }

    pub(super) fn rearmed(&mut self, unit: UnitId, plan: &mut Plan) {
        let now = self.now;
        if let Some(drill) = self.drill(unit) {
            drill.over = Some(now);
            let (needs, after_us) = (drill.needs(), now.since_us(drill.began));
            plan.tell(Record::Drilled { unit, needs, after_us });
            self.plan_drill(unit);
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
    pub(super) fn rearm_failed(&mut self, unit: UnitId, result: ProcedureResult, plan: &mut Plan) {
        self.drill_broken_off(unit, plan);
        let Some(service) = self.unit_mut(unit) else { return };
        service.rearm = Rearm::No;
        service.procedure = Procedure::Lost(result);
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
                // What does not die is bounded by the slice: who waits for room may be whom this unit's end waits for.
                self.give_back_reserve(unit, plan);
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

    /// From a drill to the procedure and back there is no way back any more.
    pub(super) fn drill_broken_off(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let goes_on = matches!(service.end, Some(End::Drilled { .. }));
        let open = service.drill.as_mut().filter(|drill| drill.over.is_none() && !drill.broken_off);
        if let Some(drill) = open.filter(|_| !goes_on) {
            drill.broken_off = true;
            plan.tell(Record::DrillBrokenOff { unit });
        }
    }

    pub(super) fn drill_due(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        match service.rearm {
            Rearm::Emptying if service.kill_tries < KILL_TRIES_MAX => {
                service.kill_tries += 1;
                let (run, reason) = (service.run, KillReason::LeftBehind);
                plan.push(Action::KillCgroup { unit, run, role: Role::Procedure, reason });
                self.timers.set(unit, TimerKind::Drill, self.now.plus_ms(KILL_RETRY_MS));
            }
            Rearm::Emptying | Rearm::Parking => self.rearm_failed(unit, PARKED_TOO_LATE, plan),
            Rearm::No => {}
        }
    }
}

impl Service {
    /// How often it is drilled by itself.
    pub(super) fn drill_every_ms(&self) -> Option<u32> {
        self.policy.procedure.and_then(|procedure| procedure.drill_every_ms).filter(|ms| *ms > 0)
    }
}
