//! The memory path: the kernel's counters, and the way of an exhausted service to its shutdown procedure.
//!
//! The guarantee is the shield: with `oom_score_adj = -1000` on every process in a bounded cgroup the kernel finds no
//! victim at `memory.max`, raises `oom`, and the faulting task retries until the freeze takes it
//! (mm/memcontrol.c `mem_cgroup_oom`, mm/oom_kill.c `out_of_memory`). The prediction only comes earlier where it can.

use super::action::{Action, ProcedureOrder};
use super::drill::Rearm;
use super::ending::cause_of;
use super::event::{Exit, LeftBehind, MemoryEvents, Role};
use super::limits::{FREEZE_DEADLINE_MS, INCIDENTS_MAX};
use super::moment::ToldBelow;
use super::otherwise::Otherwise;
use super::policy::{Guard, RunId, ServiceMode, UnitId};
use super::record::Record;
use super::service::{End, Loan, Procedure, Service, State};
use super::snapshot::{Cause, Incident, KillReason, Killer, ProcedureResult, Trouble, Verdict};
use super::{Engine, Plan};

/// `SIGKILL` of signal(7).
const SIGKILL: i32 = 9;

/// The kernel counts all that one `oom` has killed within this time (with `memory.oom.group`, one after the other).
const ONE_KILL_US: u64 = 1_000_000;

impl Service {
    /// What its procedure is told.
    pub(super) fn order(&self, deadline_ms: u32) -> ProcedureOrder {
        let cause = cause_of(self.end, self.kernel_kills() > 0);
        // Of one that is being killed the number may be another's by then.
        let main_pid = self.pid.filter(|_| !self.is_killed_whole()).unwrap_or(0);
        ProcedureOrder { cause, main_pid, deadline_ms }
    }

    /// Without a guard the kernel kills the whole cgroup, and that is told before the end of its first process is. With
    /// one it takes another process, or none.
    fn is_killed_whole(&self) -> bool {
        self.kernel_kills() > 0 && self.policy.memory.is_some_and(|memory| memory.guard == Guard::None)
    }

    /// Its first process has ended, or is about to: it can save nothing itself.
    pub(super) fn is_gone(&self) -> bool {
        !self.open.main || self.is_killed_whole()
    }

    /// Nothing is left of its procedure: another one may be made.
    pub(super) fn makes_way_for_procedure(&mut self) -> bool {
        if self.open.procedure || self.open.procedure_cgroup {
            return false;
        }
        self.procedure = Procedure::Absent;
        self.open.procedure = true;
        self.procedure_oom_kill.0 = self.procedure_oom_kill.1;
        true
    }
}

impl Engine {
    pub(super) fn memory_events(
        &mut self,
        (unit, run): (UnitId, RunId),
        role: Role,
        counters: MemoryEvents,
        plan: &mut Plan,
    ) {
        let now = self.now;
        if role == Role::Command {
            self.command_memory(unit, run, counters);
            return;
        }
        if role == Role::Procedure {
            self.procedure_memory(unit, run, counters);
            return;
        }
        let Some(service) = self.live(unit, run) else { return };
        let mut before = std::mem::replace(&mut service.counters, counters);
        if counters.max < before.max || counters.oom < before.oom || counters.oom_kill < before.oom_kill {
            // The cgroup was made anew.
            before = MemoryEvents::default();
            service.counters_at_start = before;
        }
        if let Some(incident) = &mut service.incident {
            incident.counters = counters;
        }
        let oom = counters.oom.saturating_sub(before.oom);
        let oom_kill = counters.oom_kill.saturating_sub(before.oom_kill);
        let max = counters.max.saturating_sub(before.max);
        let high = counters.high.saturating_sub(before.high);
        // With a `memory.high` of its own the unit is read once that rings, and left alone for a while, as with `max`.
        let has_high = service.policy.memory.is_some_and(|memory| memory.high_bytes.is_some());
        let rings = service.warnings.rings() || has_high;
        // An `oom` is counted a moment before its kill: what is of the same run belongs together.
        let of_run = service.counters_of_run();
        // A kill above the unit raises no `oom`, and those of one `oom` come together.
        let told = service.told_below;
        let is_of_below = of_run.oom_below > told.oom || now.since_us(told.at) < ONE_KILL_US;
        let only_below = of_run.oom_below > 0 && of_run.oom_below == of_run.oom && is_of_below;
        let guard = service.policy.memory.map(|memory| memory.guard);
        let may_be_rescued = may_be_rescued(service.state);
        let is_alive = oom_kill == 0 || service.incident.is_some();
        if service.state == State::Saving && oom > 0 && is_alive && service.saves_itself() {
            self.doubt_loan(unit, run, plan);
            return;
        }
        if !may_be_rescued {
            if !only_below {
                self.exhausted_on_its_way(unit, (oom, oom_kill), plan);
            }
            return;
        }
        // The ballast stands in the unit's own cgroup: what is below cannot have taken it.
        if !only_below && self.canary_hears(unit, (oom, oom_kill), plan) {
            return;
        }
        if oom_kill > 0 && only_below && guard != Some(Guard::Shield) {
            // In a cgroup of its own, at a limit that it has set itself: its own affair.
            if let Some(service) = self.unit_mut(unit) {
                let kills = service.told_below.oom_kill.saturating_add(oom_kill);
                service.told_below = ToldBelow { oom: of_run.oom_below, oom_kill: kills, at: now };
            }
            self.generation += 1;
            plan.tell(Record::KilledBelow { unit, oom_kill });
        } else if oom_kill > 0 {
            self.rescue(unit, Verdict::KernelKilled { oom_kill }, plan);
        } else if oom > 0 && guard == Some(Guard::Shield) {
            self.rescue(unit, Verdict::OomEvent { oom }, plan);
        } else if max > 0 || (high > 0 && rings) {
            self.doorbell(unit, plan);
        }
    }

    /// The kernel was quicker than a stop, a failure's end or a drill that is under way, or memory is exhausted while
    /// a drill begins: its procedure goes on as it is, and the run ends for that reason.
    fn exhausted_on_its_way(&mut self, unit: UnitId, (oom, oom_kill): (u64, u64), plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        let saves = matches!(service.state, State::Freezing | State::Queued | State::Saving);
        let kills = service.kernel_kills();
        let drills = matches!(service.end, Some(End::Drilled { .. }));
        let verdict = if oom_kill > 0 && kills > 0 {
            Some(Verdict::KernelKilled { oom_kill: kills })
        } else {
            service.ballast_alarm(oom).filter(|_| drills)
        };
        if let Some(verdict) = verdict.filter(|_| saves && service.incident.is_none()) {
            if service.end == Some(End::Drilled { back: true }) {
                self.restart_dependents(unit);
            }
            self.open_incident(unit, verdict, plan);
            self.generation += 1;
            self.drill_broken_off(unit, plan);
        }
    }

    /// The service's memory is exhausted: from here on it is saved and killed.
    pub(super) fn rescue(&mut self, unit: UnitId, verdict: Verdict, plan: &mut Plan) {
        self.open_incident(unit, verdict, plan);
        let Some(service) = self.unit(unit) else { return };
        let run = service.run;
        if service.policy.procedure.is_some_and(|procedure| procedure.on_exhaustion) {
            self.begin_saving(unit, plan);
        } else {
            self.kill(unit, KillReason::NoProcedure, plan);
        }
        self.listen(unit, plan);
        // Read once for the record, after the freeze is on its way: nothing is lost by the time that this takes.
        plan.push(Action::Sample { unit, run });
        self.procedure_goes_to_work(unit, plan);
    }

    fn open_incident(&mut self, unit: UnitId, verdict: Verdict, plan: &mut Plan) {
        let now = self.now;
        let number = self.incident_count + 1;
        self.begin_end(unit, End::Exhausted, plan);
        let Some(service) = self.unit_mut(unit) else { return };
        service.end_began = now;
        let kernel_killed = matches!(verdict, Verdict::KernelKilled { .. });
        let cause = if kernel_killed { Cause::KernelOomKill } else { Cause::Exhaustion };
        service.incident = Some(Incident {
            number,
            unit,
            run: service.shown_run(),
            cause,
            verdict,
            limit_bytes: service.policy.memory.map(|memory| memory.max_bytes),
            killer: Killer::Lifeboat,
            began: now,
            frozen: None,
            released: None,
            procedure_running: None,
            procedure_ended: None,
            killed: None,
            emptied: None,
            procedure: ProcedureResult::None,
            procedure_high: 0,
            first_procedure: None,
            counters_at_start: service.counters_at_start,
            counters: service.counters,
            sample: None,
            left: None,
        });
        service.last_incident = number;
        self.incident_count = number;
        let limit_bytes =
            self.unit(unit).and_then(|service| service.policy.memory).map_or(0, |memory| memory.max_bytes);
        plan.tell(Record::Exhausted { unit, cause, verdict, limit_bytes });
    }

    /// Brings the service into the condition in which its procedure wants it.
    pub(super) fn begin_saving(&mut self, unit: UnitId, plan: &mut Plan) {
        let free_bytes = self.reserve_bytes.saturating_sub(self.reserve_used_bytes);
        let Some(service) = self.unit_mut(unit) else { return };
        let Some(policy) = service.policy.procedure else { return };
        let waits_for_nothing = service.rearm == Rearm::No;
        let gone = service.is_gone();
        match policy.service {
            // Nothing is left that could save itself.
            ServiceMode::Running if gone && !policy.has_program => {
                self.kill(unit, KillReason::NoProcedure, plan);
            }
            // It stands still while it waits for either: pinned at its limit it could save nothing.
            ServiceMode::Running if waits_for_nothing && policy.reserve_bytes() <= free_bytes => {
                self.overrule_limiting(unit, false, plan);
                self.procedure_may_start(unit, plan);
            }
            ServiceMode::Running | ServiceMode::Frozen => self.freeze(unit, plan),
            ServiceMode::Killed => {
                service.saves_after_kill = true;
                self.kill(unit, KillReason::BeforeProcedure, plan);
            }
        }
    }

    /// `ServiceMode::Killed`: the service is gone, or cannot be made to go.
    pub(super) fn save_after_kill(&mut self, unit: UnitId, plan: &mut Plan) {
        if let Some(service) = self.unit_mut(unit) {
            service.saves_after_kill = false;
        }
        self.procedure_may_start(unit, plan);
    }

    pub(super) fn freeze(&mut self, unit: UnitId, plan: &mut Plan) {
        self.overrule_limiting(unit, false, plan);
        self.enter(unit, State::Freezing);
        self.step_deadline(unit, FREEZE_DEADLINE_MS);
        self.stand_still(unit, plan);
    }

    pub(super) fn stand_still(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        service.still = true;
        plan.push(Action::Freeze { unit, run: service.run });
    }

    /// It goes on, where it was told to stand still.
    pub(super) fn thaw(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        if std::mem::take(&mut service.still) {
            plan.push(Action::Thaw { unit, run: service.run });
        }
    }

    pub(super) fn frozen(&mut self, unit: UnitId, run: RunId, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.live(unit, run) else { return };
        if let Some(incident) = service.incident.as_mut().filter(|incident| incident.killed.is_none()) {
            incident.frozen.get_or_insert(now);
        }
        if let Some(drill) = self.drill(unit) {
            drill.frozen.get_or_insert(now);
        }
        let Some(service) = self.unit_mut(unit) else { return };
        match service.state {
            State::Idling => plan.push(Action::LookIdle { unit, run }),
            State::Freezing => {
                let after_us = now.since_us(service.end_began);
                service.needs.stood_still(after_us);
                plan.tell(Record::Frozen { unit, after_us });
                self.procedure_may_start(unit, plan);
                self.measure_ballast(unit, plan);
            }
            State::Running => self.held(unit, plan),
            // Late, after its deadline: noted in the incident.
            State::Down(_)
            | State::Waiting
            | State::Backoff
            | State::Parking
            | State::Spawning
            | State::Readying
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => {}
        }
    }

    pub(super) fn freeze_timed_out(&mut self, unit: UnitId, plan: &mut Plan) {
        let after_ms = u32::try_from(FREEZE_DEADLINE_MS).unwrap_or(u32::MAX);
        plan.tell(Record::FreezeTimedOut { unit, after_ms });
        self.procedure_may_start(unit, plan);
    }

    /// The service stands still, or will not: the procedure starts as soon as the reserve has room for it.
    pub(super) fn procedure_may_start(&mut self, unit: UnitId, plan: &mut Plan) {
        let free_bytes = self.reserve_bytes.saturating_sub(self.reserve_used_bytes);
        let reserve_bytes = self.reserve_bytes;
        let Some(service) = self.unit_mut(unit) else { return };
        let Some(policy) = service.policy.procedure else { return };
        let needs_bytes = policy.reserve_bytes();
        if service.rearm != Rearm::No {
            self.enter(unit, State::Queued);
            return;
        }
        if !(service.can_save() || service.begins_otherwise()) || needs_bytes > reserve_bytes {
            let lack = service.procedure_lack();
            self.procedure_failed(unit, lack, plan);
            return;
        }
        if needs_bytes > free_bytes {
            plan.tell(Record::WaitsForReserve { unit, needs_bytes, free_bytes });
            self.enter(unit, State::Queued);
            return;
        }
        self.start_procedure(unit, plan);
    }

    fn start_procedure(&mut self, unit: UnitId, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        let Some(policy) = service.policy.procedure else { return };
        let (run, order) = (service.run, service.order(policy.deadline_ms));
        let cause = order.cause;
        let (is_lost, lack) = (!service.can_save(), service.procedure_lack());
        if policy.has_program && !is_lost {
            service.procedure = Procedure::Released;
        }
        service.holds_reserve = true;
        if let Some(incident) = &mut service.incident {
            incident.released = Some(now);
            incident.cause = cause;
        }
        if let Some(drill) = self.drill(unit) {
            drill.released = Some(now);
        }
        self.reserve_used_bytes = self.reserve_used_bytes.saturating_add(policy.reserve_bytes());
        self.enter(unit, State::Saving);
        self.step_deadline(unit, u64::from(policy.deadline_ms));
        if policy.service == ServiceMode::Running {
            self.let_it_save_itself(unit, plan);
        }
        if is_lost {
            // The second one comes.
            self.procedure_failed(unit, lack, plan);
        } else if policy.has_program {
            plan.push(Action::StartProcedure { unit, run, order });
            plan.tell(Record::Rescuing { unit, cause, deadline_ms: policy.deadline_ms });
        }
    }

    /// A service without a program saves itself: what became of that is the procedure's result. A program's own result
    /// stays.
    pub(super) fn no_procedure_left(&mut self, unit: UnitId, result: ProcedureResult, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        if service.policy.procedure.is_some_and(|procedure| !procedure.has_program) {
            self.procedure_over(unit, result, plan);
        }
    }

    /// While a service saves itself both it and its procedure come to an end before the kill.
    pub(super) fn end_saving_if_over(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        let saves_itself = service.policy.procedure.is_some_and(|it| it.service == ServiceMode::Running)
            && service.loan != Loan::Spent;
        let works = service.procedure == Procedure::Released || service.otherwise.is_coming();
        if works || (saves_itself && service.open.main) {
            return;
        }
        if let Some(exit) = service.last_exit.filter(|_| saves_itself) {
            self.no_procedure_left(unit, ProcedureResult::SavedItself(exit), plan);
        }
        self.end_saving(unit, KillReason::ProcedureEnded, plan);
    }

    /// A procedure is over and gone: the most useful one that waits, and fits, comes next.
    pub(super) fn give_back_reserve(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        if !std::mem::take(&mut service.holds_reserve) {
            return;
        }
        let bytes = service.policy.procedure.map_or(0, |procedure| procedure.reserve_bytes());
        self.reserve_used_bytes = self.reserve_used_bytes.saturating_sub(bytes);
        loop {
            let free_bytes = self.reserve_bytes.saturating_sub(self.reserve_used_bytes);
            let fits = |service: &Service| {
                service.policy.procedure.is_some_and(|procedure| procedure.reserve_bytes() <= free_bytes)
            };
            let next = self
                .all()
                .filter_map(|id| self.unit(id).map(|service| (id, service)))
                .filter(|(_, service)| service.state == State::Queued && service.rearm == Rearm::No)
                .filter(|(_, service)| fits(service))
                .max_by_key(|(id, service)| (service.policy.utility, std::cmp::Reverse(*id)))
                .map(|(id, _)| id);
            match next {
                Some(next) => self.start_procedure(next, plan),
                None => return,
            }
        }
    }

    pub(super) fn procedure_running(&mut self, unit: UnitId, run: RunId) {
        let now = self.now;
        if let Some(incident) = self.live(unit, run).and_then(|service| service.incident.as_mut()) {
            // A short procedure's end may be told before its beginning.
            incident.procedure_running.get_or_insert(incident.procedure_ended.unwrap_or(now));
        }
    }

    pub(super) fn procedure_failed(&mut self, unit: UnitId, result: ProcedureResult, plan: &mut Plan) {
        if self.comes_otherwise(unit, result, KillReason::ProcedureFailed, plan) {
            return;
        }
        self.procedure_over(unit, result, plan);
        self.end_saving(unit, KillReason::ProcedureFailed, plan);
    }

    pub(super) fn procedure_timed_out(&mut self, unit: UnitId, plan: &mut Plan) {
        // A program's own result stays: then it was the service that did not obey its signal.
        let is_late =
            |service: &Service| service.procedure != Procedure::Over || service.otherwise.is_coming();
        if self.unit(unit).is_some_and(is_late) {
            let (result, reason) = (ProcedureResult::TimedOut, KillReason::ProcedureTimedOut);
            if self.comes_otherwise(unit, result, reason, plan) {
                return;
            }
            self.procedure_over(unit, result, plan);
        }
        self.end_saving(unit, KillReason::ProcedureTimedOut, plan);
    }

    pub(super) fn procedure_exited(&mut self, unit: UnitId, run: RunId, exit: Exit, plan: &mut Plan) {
        let Some(service) = self.live(unit, run) else { return };
        if !service.open.procedure {
            return;
        }
        service.open.procedure = false;
        let lost = ProcedureResult::Lost(exit);
        service.procedure = service.procedure.gone(lost);
        match service.rearm {
            Rearm::Emptying => return self.rearm_if_clear(unit, plan),
            Rearm::Parking => return self.rearm_failed(unit, lost, plan),
            Rearm::No => {}
        }
        let Some(service) = self.unit(unit) else { return };
        if service.state == State::Saving && service.otherwise == Otherwise::Emptying {
            return self.make_otherwise_if_clear(unit, plan);
        }
        let (first, now) = service.procedure_oom_kill;
        let outgrew = now > first && exit == Exit::Signal(SIGKILL);
        match service.state {
            // The second one, before it stood.
            State::Saving if service.otherwise == Otherwise::Making => {
                let result = if outgrew { ProcedureResult::OutOfMemory } else { lost };
                self.procedure_failed(unit, result, plan);
            }
            State::Saving => {
                let result =
                    if outgrew { ProcedureResult::OutOfMemory } else { ProcedureResult::Ended(exit) };
                if self.comes_otherwise(unit, result, KillReason::ProcedureFailed, plan) {
                    return;
                }
                self.procedure_over(unit, result, plan);
                self.end_saving_if_over(unit, plan);
            }
            State::Killing => self.process_gone(unit, plan),
            State::Parking | State::Spawning | State::Readying => {
                self.start_lost_its_procedure(unit, exit, plan);
            }
            State::Running | State::Idling => self.procedure_lost(unit, exit, plan),
            // The second one needs the same room.
            State::Queued if service.begins_otherwise() => {}
            // There is nothing to wait for any more.
            State::Queued => self.procedure_failed(unit, lost, plan),
            // In this very moment it is needed, or the service goes without: said then.
            State::Down(_)
            | State::Freezing
            | State::Asking
            | State::Signalled
            | State::Waiting
            | State::Backoff => {}
        }
    }

    fn procedure_over(&mut self, unit: UnitId, result: ProcedureResult, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        let released = service.incident.and_then(|incident| incident.released).unwrap_or(service.since);
        match result {
            ProcedureResult::Ended(_) | ProcedureResult::SavedItself(_) | ProcedureResult::TimedOut => {
                service.needs.saved(now.since_us(released));
            }
            ProcedureResult::None
            | ProcedureResult::OutOfMemory
            | ProcedureResult::LoanSpent
            | ProcedureResult::SpawnFailed { .. }
            | ProcedureResult::Lost(_) => {}
        }
        if let Some(incident) = &mut service.incident {
            incident.procedure_ended = Some(now);
            incident.procedure = result;
        }
        let run = service.run;
        if let Some(drill) = self.drill(unit) {
            (drill.procedure_ended, drill.procedure) = (Some(now), result);
            plan.push(Action::ReadPeak { unit, run });
        }
        plan.tell(Record::ProcedureOver { unit, result, after_us: now.since_us(released) });
    }

    /// For the record: nothing is decided by it.
    pub(super) fn left_behind(&mut self, unit: UnitId, run: RunId, left: LeftBehind) {
        if let Some(incident) = self.live(unit, run).and_then(|service| service.incident.as_mut()) {
            incident.left = Some(left);
        }
    }

    pub(super) fn close_incident(&mut self, unit: UnitId, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        let Some(mut incident) = service.incident.take() else { return };
        let kernel_kills = service.kernel_kills();
        let oom = service.counters_of_run().oom.saturating_sub(service.told_below.oom);
        incident.verdict = service.canary.judge(incident.verdict, kernel_kills);
        service.incidents += 1;
        incident.emptied = service.open.nothing().then_some(now);
        incident.counters = service.counters;
        let ended_itself = !service.open.main && service.last_exit != Some(Exit::Signal(SIGKILL));
        incident.killer = match (kernel_kills, oom) {
            (0, _) if ended_itself => Killer::Itself,
            (0, _) => Killer::Lifeboat,
            (_, 0) => Killer::KernelOutside,
            (_, _) => Killer::KernelCgroup,
        };
        if self.incidents.len() >= INCIDENTS_MAX {
            self.incidents.pop_front();
        }
        self.incidents.push_back(incident);
        self.generation += 1;
        plan.push(Action::KeepIncident { unit, number: incident.number });
        let total_us = now.since_us(incident.began);
        plan.tell(Record::IncidentClosed { unit, number: incident.number, total_us });
    }

    /// Other numbers for this boot's incidents, where those of others turned out to be on record. Those below `from`
    /// are on record themselves: a number that is on a file stays.
    pub(super) fn number_behind(&mut self, from: u32, by: u32) {
        let shift = |number: &mut u32| {
            if *number >= from {
                *number = number.saturating_add(by);
            }
        };
        self.incident_count = self.incident_count.saturating_add(by);
        self.incidents.iter_mut().for_each(|incident| shift(&mut incident.number));
        for service in &mut self.units {
            if let Some(incident) = &mut service.incident {
                shift(&mut incident.number);
            }
            if service.last_incident > 0 {
                shift(&mut service.last_incident);
            }
            if let Some(Trouble::Exhausted { incident } | Trouble::ExhaustedTooOften { incident, .. }) =
                &mut service.trouble
            {
                shift(incident);
            }
        }
        self.generation += 1;
    }
}

/// In these states an exhaustion is news. While a stop signal is being obeyed too: a service that runs out of memory
/// on its way down would hang there, and lose what it holds.
pub(super) fn may_be_rescued(state: State) -> bool {
    match state {
        State::Spawning
        | State::Readying
        | State::Running
        | State::Idling
        | State::Asking
        | State::Signalled => true,
        State::Down(_)
        | State::Waiting
        | State::Backoff
        | State::Parking
        | State::Freezing
        | State::Queued
        | State::Saving
        | State::Killing => false,
    }
}
