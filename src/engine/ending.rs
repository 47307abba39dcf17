//! From the first reason to go to the last process gone, and what comes after that.

use super::action::{Action, Reply};
use super::drill::Rearm;
use super::event::{CommandKind, Effect, Exit, Role, SpawnStage};
use super::limits::{KILL_RETRY_MS, KILL_TRIES_MAX};
use super::otherwise::Otherwise;
use super::policy::{Escalation, Kind, RestartWhen, RunId, ServiceMode, UnitId};
use super::record::Record;
use super::requests::Until;
use super::restart::Next;
use super::service::{End, Loan, Rest, Service, State};
use super::snapshot::{Cause, Desired, Failure, KillReason, ProcedureResult, Trouble};
use super::timer::TimerKind;
use super::{Engine, Plan};

/// errno(3) values that a second try would not change: `ENOENT`, `ENOEXEC`, `EACCES`, `ENOTDIR`, `EISDIR`, `ELOOP`.
const HOPELESS_ERRNOS: [i32; 6] = [2, 8, 13, 20, 21, 40];

/// errno(3) values that pass, also where a setting was refused: `EAGAIN`, `ENOMEM`.
const MOMENTARY_ERRNOS: [i32; 2] = [11, 12];

impl Engine {
    /// Notes why the run ends, unless a graver reason is already there. Nothing runs beside a service that ends.
    pub(super) fn begin_end(&mut self, unit: UnitId, end: End, plan: &mut Plan) {
        let now = self.now;
        self.give_up_reload(unit, plan);
        self.break_off_probe(unit, plan);
        self.lift_ring(unit, plan);
        self.end_command(unit, KillReason::NotNeeded, plan);
        if let Some(service) = self.unit_mut(unit) {
            if service.end.is_none() {
                service.end_began = now;
            }
            if service.end.is_none() || end == End::Exhausted {
                service.end = Some(end);
            }
        }
    }

    /// An ordinary stop: the procedure where the unit wants it so, else the stop signal.
    pub(super) fn begin_stop(&mut self, unit: UnitId, reason: KillReason, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        let state = service.state;
        let asks = service.policy.stop_command && matches!(state, State::Running | State::Idling);
        let saving = service.policy.procedure.filter(|it| it.on_stop && service.can_save());
        let saves = saving.is_some_and(|it| it.service != ServiceMode::Killed);
        let target = service.policy.kind == Kind::Target;
        match state {
            State::Running if target => {
                plan.tell(Record::Stopping { unit, reason });
                self.after_run(unit, End::Asked(reason), plan);
            }
            State::Readying | State::Running | State::Idling => {
                plan.tell(Record::Stopping { unit, reason });
                self.begin_end(unit, End::Asked(reason), plan);
                if let Some(service) = self.unit_mut(unit) {
                    // After an ordinary end, which is the kill that it wants.
                    service.saves_after_kill = saving.is_some() && !saves;
                }
                if saves {
                    self.begin_saving(unit, plan);
                } else if asks {
                    self.stop_step(unit, State::Asking, plan);
                    self.run_command(unit, CommandKind::Stop, plan);
                } else {
                    self.signal_to_stop(unit, plan);
                }
                if state == State::Idling && !saves {
                    // The signal meets it before it can do anything else.
                    self.thaw(unit, plan);
                }
            }
            State::Parking | State::Spawning => {
                plan.tell(Record::Stopping { unit, reason });
                self.begin_end(unit, End::Asked(reason), plan);
                self.kill(unit, reason, plan);
            }
            State::Waiting | State::Backoff => self.enter(unit, State::Down(Rest::Stopped)),
            State::Down(_)
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => {}
        }
    }

    /// A step of an ordinary stop; each has `stop.timeout`.
    fn stop_step(&mut self, unit: UnitId, state: State, plan: &mut Plan) {
        self.overrule_limiting(unit, true, plan);
        let timeout_ms = self.unit(unit).map_or(0, |service| u64::from(service.policy.stop_timeout_ms));
        self.enter(unit, state);
        self.step_deadline(unit, timeout_ms);
    }

    /// The stop signal to the first process; where that is gone, to what it left behind.
    fn signal_to_stop(&mut self, unit: UnitId, plan: &mut Plan) {
        self.stop_step(unit, State::Signalled, plan);
        let Some(service) = self.unit(unit) else { return };
        let (run, signal) = (service.run, service.policy.stop_signal);
        if service.open.main {
            let reason = match service.end {
                Some(End::Asked(reason)) => reason,
                Some(
                    End::Exhausted
                    | End::Own(_)
                    | End::Failed(_)
                    | End::Drilled { .. }
                    | End::StartFailed { .. },
                )
                | None => KillReason::StopAsked,
            };
            plan.push(Action::Signal { unit, run, signal, reason });
        } else {
            plan.push(Action::SignalAll { unit, run, signal, reason: KillReason::LeftBehind });
        }
    }

    /// Whatever came of it: the service is asked by the signal, if it is still there.
    pub(super) fn stop_command_over(&mut self, unit: UnitId, plan: &mut Plan) {
        if self.unit(unit).is_some_and(|service| service.state == State::Asking) {
            self.signal_to_stop(unit, plan);
        }
    }

    pub(super) fn stop_command_timed_out(&mut self, unit: UnitId, plan: &mut Plan) {
        self.command_timed_out(unit, CommandKind::Stop, plan);
        self.signal_to_stop(unit, plan);
    }

    /// Kills both cgroups of the unit and waits until nothing of the run is left.
    pub(super) fn kill(&mut self, unit: UnitId, reason: KillReason, plan: &mut Plan) {
        self.overrule_limiting(unit, false, plan);
        self.drill_broken_off(unit, plan);
        let now = self.now;
        let keeps = self.keeps_parked(unit);
        let Some(service) = self.unit_mut(unit) else { return };
        service.keeps_parked = keeps;
        service.open.service_cgroup = true;
        service.open.procedure_cgroup = !service.saves_after_kill
            && !keeps
            && service.policy.procedure.is_some_and(|procedure| procedure.has_program);
        service.kill_tries = 1;
        let left = service.commands.is_leaving();
        if let Some(incident) = &mut service.incident {
            incident.killed.get_or_insert(now);
        }
        let run = service.run;
        let has_procedure = service.open.procedure_cgroup;
        if !service.saves_after_kill {
            service.rearm = Rearm::No;
            self.timers.clear(unit, TimerKind::Drill);
        }
        self.timers.clear(unit, TimerKind::NextDrill);
        self.enter(unit, State::Killing);
        self.step_deadline(unit, KILL_RETRY_MS);
        // An ordinary end needs no such line: most often nothing is left to kill.
        if reason != KillReason::LeftBehind {
            plan.tell(Record::Killing { unit, role: Role::Service, reason });
        }
        plan.push(Action::KillCgroup { unit, run, role: Role::Service, reason });
        if has_procedure {
            plan.push(Action::KillCgroup { unit, run, role: Role::Procedure, reason });
        }
        // One that is over may have been given up as unkillable: it is tried again.
        if left {
            self.kill_command(unit, reason, plan);
        } else {
            self.end_command(unit, reason, plan);
        }
    }

    pub(super) fn kill_again(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let (run, open, saves) = (service.run, service.open, service.saves_after_kill);
        if saves && service.kill_tries >= KILL_TRIES_MAX {
            self.save_after_kill(unit, plan);
            return;
        }
        if service.kill_tries >= KILL_TRIES_MAX {
            service.stuck = true;
            service.trouble = Some(Trouble::Unkillable);
            self.generation += 1;
            self.mark_around(unit);
            self.answer_down(unit, plan);
            plan.tell(Record::StillPopulated { unit });
            // The slice still bounds what it holds; who waits for room is worth the try.
            self.give_back_reserve(unit, plan);
            self.close_incident(unit, plan);
            return;
        }
        let first_retry = service.kill_tries == 1;
        service.kill_tries += 1;
        service.keeps_parked = false;
        self.step_deadline(unit, KILL_RETRY_MS);
        let reason = KillReason::LeftBehind;
        if open.service_cgroup || open.main {
            plan.push(Action::KillCgroup { unit, run, role: Role::Service, reason });
            if first_retry {
                plan.push(Action::ReleaseMemory { unit, run });
            }
        }
        if !saves && (open.procedure_cgroup || open.procedure) {
            plan.push(Action::KillCgroup { unit, run, role: Role::Procedure, reason });
        }
    }

    pub(super) fn exited(&mut self, (unit, run): (UnitId, RunId), role: Role, exit: Exit, plan: &mut Plan) {
        match role {
            Role::Service => self.service_exited(unit, run, exit, plan),
            Role::Procedure => self.procedure_exited(unit, run, exit, plan),
            Role::Command => self.command_exited(unit, run, exit, plan),
            Role::Ballast => self.ballast_exited(unit, run, exit, plan),
        }
    }

    fn service_exited(&mut self, unit: UnitId, run: RunId, exit: Exit, plan: &mut Plan) {
        let Some(service) = self.live(unit, run) else { return };
        if !service.open.main {
            return;
        }
        service.open.main = false;
        service.pid = None;
        service.last_exit = Some(exit);
        let (state, signal, killed_by) = (service.state, service.policy.stop_signal, service.killed_by);
        let saves_itself = service.policy.procedure.is_some_and(|it| it.service == ServiceMode::Running);
        self.generation += 1;
        if self.kill_was_no_ballast(unit, exit, plan) {
            return;
        }
        match state {
            State::Spawning | State::Readying | State::Running | State::Idling => {
                plan.tell(match killed_by {
                    Some(by) => Record::Killed { unit, by },
                    None => Record::Ended { unit, exit },
                });
                self.begin_end(unit, End::Own(exit), plan);
                self.kill(unit, KillReason::LeftBehind, plan);
            }
            // It obeyed the stop signal. What it left behind, such as the child of a wrapper, gets the signal too, and
            // what is left of the time.
            State::Signalled => {
                plan.push(Action::SignalAll { unit, run, signal, reason: KillReason::LeftBehind });
            }
            State::Killing => self.finish_run_if_over(unit, plan),
            // The stop command may wait for just that, and clean up afterwards.
            State::Asking => {}
            // It has saved itself.
            State::Saving if saves_itself => self.end_saving_if_over(unit, plan),
            // Its procedure goes on: what it reads is outside the process.
            State::Freezing | State::Queued | State::Saving => {}
            State::Down(_) | State::Waiting | State::Backoff | State::Parking => {}
        }
    }

    pub(super) fn emptied(&mut self, unit: UnitId, run: RunId, role: Role, plan: &mut Plan) {
        if role == Role::Command {
            self.command_emptied(unit, run, plan);
            return;
        }
        let Some(service) = self.live(unit, run) else { return };
        if role == Role::Procedure && service.is_rearming(Rearm::Emptying) {
            service.open.procedure_cgroup = false;
            self.rearm_if_clear(unit, plan);
            return;
        }
        if role == Role::Procedure
            && service.state == State::Saving
            && service.otherwise == Otherwise::Emptying
        {
            service.open.procedure_cgroup = false;
            self.make_otherwise_if_clear(unit, plan);
            return;
        }
        match service.state {
            State::Killing => {
                match role {
                    Role::Service => service.open.service_cgroup = false,
                    Role::Procedure => service.open.procedure_cgroup = false,
                    // It lies in the service's.
                    Role::Command | Role::Ballast => {}
                }
                self.process_gone(unit, plan);
            }
            State::Signalled if role == Role::Service && !service.open.main => {
                self.kill(unit, KillReason::LeftBehind, plan);
            }
            // An empty cgroup says nothing that the process's own end does not say.
            State::Down(_)
            | State::Waiting
            | State::Backoff
            | State::Parking
            | State::Spawning
            | State::Readying
            | State::Running
            | State::Idling
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled => {}
        }
    }

    pub(super) fn effect_failed(
        &mut self,
        (unit, run): (UnitId, RunId),
        effect: Effect,
        errno: i32,
        plan: &mut Plan,
    ) {
        let Some(service) = self.live(unit, run) else { return };
        let state = service.state;
        plan.tell(Record::EffectFailed { unit, effect, errno });
        match (effect, state) {
            // No freezer: the procedure runs beside a living service rather than not at all.
            (Effect::Freeze, State::Running) => self.limit_not_taken(unit, errno, plan),
            (Effect::Freeze, State::Freezing) => self.procedure_may_start(unit, plan),
            (Effect::Freeze, State::Idling) => self.go_on(unit, plan),
            (Effect::StartProcedure, State::Saving) => {
                let result = ProcedureResult::SpawnFailed { stage: SpawnStage::Exec, errno };
                self.procedure_failed(unit, result, plan);
            }
            // It saves itself with what it has; nothing is to be taken back.
            (Effect::Lend, _) => self.loan_failed(unit),
            // The retry's deadline runs.
            (Effect::Kill | Effect::Signal | Effect::Freeze | Effect::StartProcedure, _) => {}
        }
    }

    /// Something of a run that is being killed is gone. A procedure that is gone makes room for the next, also while
    /// its service is slow to die.
    pub(super) fn process_gone(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        let saves = service.saves_after_kill || service.loan != Loan::None;
        if !saves && !service.open.procedure && !service.open.procedure_cgroup {
            self.give_back_reserve(unit, plan);
        }
        self.finish_run_if_over(unit, plan);
    }

    pub(super) fn finish_run_if_over(&mut self, unit: UnitId, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        if service.state == State::Killing && service.saves_after_kill {
            if !service.open.main && !service.open.service_cgroup {
                self.save_after_kill(unit, plan);
            }
            return;
        }
        let is_over = service.open.nothing() || (service.keeps_parked && service.open.only_procedure());
        if service.state != State::Killing || !is_over || !service.commands.is_idle() {
            return;
        }
        if !self.hands_parked_on(unit, plan) {
            return;
        }
        let Some(service) = self.unit_mut(unit) else { return };
        let Some(end) = service.end.take() else { return };
        let began = service.end_began;
        service.pid = None;
        service.stuck = false;
        let (run, loan) = (service.run, std::mem::take(&mut service.loan));
        if let Some(memory) = service.policy.memory.filter(|_| loan != Loan::None) {
            let lend_bytes = service.policy.procedure.map_or(0, |procedure| procedure.lend_bytes);
            plan.push(Action::TakeBack { unit, run, max_bytes: memory.max_bytes, lend_bytes });
        }
        if let Some(drill) = service.drill.as_mut().filter(|_| matches!(end, End::Drilled { .. })) {
            drill.over = Some(now);
            // The end of a task's next run may be far.
            if service.policy.kind == Kind::Task {
                self.answer_waiting(unit, Until::Drilled, Reply::Drilled, plan);
            }
        }
        if end == End::Exhausted {
            plan.tell(Record::Emptied { unit, after_us: now.since_us(began) });
        }
        self.give_back_reserve(unit, plan);
        self.close_incident(unit, plan);
        self.after_run(unit, end, plan);
        if self.unit(unit).is_some_and(|service| service.keeps_parked) {
            self.start_if_its_turn(unit, plan);
        }
    }

    /// The run is over; what comes next rests on why it ended and on what is wished.
    pub(super) fn after_run(&mut self, unit: UnitId, end: End, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        let budget = service.policy.restart.exhaustion;
        if end == End::Exhausted {
            service.restarts.exhausted(now, &budget);
        }
        if service.desired == Desired::Down {
            if end == End::Exhausted {
                // Who stops it in the middle of that is to see it all the same.
                let trouble = trouble_of(end, service);
                self.come_down(unit, Rest::Stopped, trouble, plan);
            } else {
                self.come_down_as_wished(unit, plan);
            }
            return;
        }
        let (again, follows) = (std::mem::take(&mut service.again), std::mem::take(&mut service.follows));
        if again && !follows {
            service.restarts.forget();
            self.enter(unit, State::Waiting);
            return;
        }
        // It has done what it was needed for.
        let has_served = service.has_served(end);
        let wants_restart = match end {
            // It ran without its procedure: what keeps happening is bounded as every failing start.
            End::Asked(KillReason::ProcedureLost) => true,
            End::Asked(reason) => {
                // For another unit's sake, with which it comes back: often stopped is not often failed. One that
                // was idle is excused already.
                if reason != KillReason::Idle {
                    service.restarts.excuse_last();
                }
                self.enter(unit, State::Waiting);
                return;
            }
            End::Drilled { .. } => {
                service.restarts.excuse_last();
                self.enter(unit, State::Waiting);
                return;
            }
            End::Exhausted => {
                self.after_exhaustion(unit, plan);
                return;
            }
            End::Own(_) | End::Failed(_) | End::StartFailed { .. } => service.wants_restart(end),
        };
        let escalation = service.policy.restart.on_limit;
        let trouble = trouble_of(end, service);
        if !wants_restart {
            self.stay_down(unit, end, plan);
        } else if is_hopeless(end) {
            self.stay_down(unit, end, plan);
            self.escalate(unit, escalation, plan);
        } else {
            self.restart(unit, trouble.filter(|_| !has_served), plan);
        }
    }

    /// Its own budget comes first, then what the procedure's section says, then the restart policy.
    fn after_exhaustion(&mut self, unit: UnitId, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit(unit) else { return };
        let budget = service.policy.restart.exhaustion;
        let times = service.restarts.exhaustions(now, &budget);
        let (incident, within_ms) = (service.last_incident, budget.within_ms);
        let spent = times >= budget.times;
        let (mut rest, mut trouble) = (Rest::Stopped, Trouble::Exhausted { incident });
        if spent {
            trouble = Trouble::ExhaustedTooOften { times, within_ms, incident };
        }
        let then = match (budget.then, service.policy.procedure.and_then(|procedure| procedure.then)) {
            (Some(escalation), _) if spent => {
                rest = Rest::Fatal;
                Some(escalation)
            }
            (_, Some(escalation)) => Some(escalation),
            (_, None) => (service.policy.restart.when == RestartWhen::Never).then_some(Escalation::Stop),
        };
        if times > 1 || spent {
            plan.tell(Record::ExhaustedAgain { unit, times, within_ms, spent });
        }
        if let Some(escalation) = then {
            self.come_down(unit, rest, Some(trouble), plan);
            self.escalate(unit, escalation, plan);
        } else {
            self.restart(unit, Some(trouble), plan);
        }
    }

    fn stay_down(&mut self, unit: UnitId, end: End, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        let trouble = trouble_of(end, service);
        match end {
            End::Own(exit) if service.policy.success.contains(exit) => {
                let task = service.policy.kind == Kind::Task;
                self.come_down(unit, if task { Rest::Done } else { Rest::Exited }, None, plan);
                if task {
                    plan.tell(Record::Done { unit });
                }
            }
            End::Own(_) => self.come_down(unit, Rest::Exited, trouble, plan),
            End::Failed(Failure::NotReady) => self.come_down(unit, Rest::Fatal, trouble, plan),
            End::Failed(_) => self.come_down(unit, Rest::Exited, trouble, plan),
            End::Exhausted | End::Asked(_) | End::Drilled { .. } => {
                self.come_down(unit, Rest::Stopped, trouble, plan)
            }
            End::StartFailed { .. } => self.come_down(unit, Rest::Fatal, trouble, plan),
        }
    }

    fn restart(&mut self, unit: UnitId, trouble: Option<Trouble>, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        let policy = service.policy.restart;
        // A start that hung for long was no healthy run.
        let up_since = service.up_since.unwrap_or(now);
        match service.restarts.decide(now, up_since, &policy) {
            Next::GiveUp { starts } => {
                self.come_down(unit, Rest::Fatal, Some(Trouble::StartLimit { starts }), plan);
                self.escalate(unit, policy.on_limit, plan);
            }
            Next::After(0) => {
                service.trouble = trouble;
                self.enter(unit, State::Waiting);
            }
            Next::After(delay_ms) => {
                service.trouble = trouble;
                self.enter(unit, State::Backoff);
                self.step_deadline(unit, u64::from(delay_ms));
                self.answer_down(unit, plan);
                plan.tell(Record::Backoff { unit, delay_ms });
            }
        }
    }

    /// Nothing of it lives, and that is what was asked.
    pub(super) fn come_down_as_wished(&mut self, unit: UnitId, plan: &mut Plan) {
        let rival = self.unit(unit).and_then(|service| service.rival);
        self.come_down(unit, Rest::Stopped, rival.map(|unit| Trouble::Conflict { unit }), plan);
    }

    pub(super) fn come_down(&mut self, unit: UnitId, rest: Rest, trouble: Option<Trouble>, plan: &mut Plan) {
        if let Some(service) = self.unit_mut(unit) {
            service.trouble = trouble;
            if service.policy.descriptors.any() {
                plan.push(Action::CloseDescriptors { unit });
            }
        }
        self.enter(unit, State::Down(rest));
        match (rest, trouble) {
            (Rest::Fatal, Some(trouble)) => plan.tell(Record::Fatal { unit, trouble }),
            (Rest::Skipped, Some(Trouble::ConditionNotMet { condition })) => {
                plan.tell(Record::Skipped { unit, condition });
            }
            (Rest::Done | Rest::Skipped, _) => {}
            (Rest::Stopped | Rest::Exited | Rest::Fatal | Rest::Gone | Rest::Listening, _) => {
                plan.tell(Record::Stopped { unit, exited: rest == Rest::Exited });
            }
        }
        if rest == Rest::Done {
            self.replace_fallback(unit, KillReason::Replaced);
            self.answer_started(unit, plan);
        } else {
            self.answer_down(unit, plan);
        }
    }
}

/// Another start would end as this one did: the program is not there, or the kernel does not take a setting.
fn is_hopeless(end: End) -> bool {
    match end {
        End::StartFailed { stage, errno, .. } => {
            let lasting = stage.is_setting() && !MOMENTARY_ERRNOS.contains(&errno);
            // Another program may leave an address, a folder may come.
            lasting || (stage != SpawnStage::Sockets && HOPELESS_ERRNOS.contains(&errno))
        }
        End::Asked(_) | End::Exhausted | End::Own(_) | End::Failed(_) | End::Drilled { .. } => false,
    }
}

fn trouble_of(end: End, service: &Service) -> Option<Trouble> {
    match end {
        End::Asked(KillReason::ProcedureLost) => service.procedure_trouble(),
        End::Asked(_) | End::Drilled { .. } => None,
        End::Exhausted => Some(Trouble::Exhausted { incident: service.last_incident }),
        End::Own(exit) => {
            Some(service.killed_by.map_or(Trouble::Ended { exit }, |by| Trouble::Killed { by }))
        }
        End::Failed(failure) => Some(Trouble::Failed { failure }),
        End::StartFailed { stage, errno, procedure } => {
            let lost = service.procedure_trouble().filter(|_| procedure);
            lost.or(Some(Trouble::SpawnFailed { stage, errno, procedure }))
        }
    }
}

/// The words of a cause for the procedure's order.
pub(super) fn cause_of(end: Option<End>, kernel_killed: bool) -> Cause {
    match end {
        Some(End::Exhausted) if kernel_killed => Cause::KernelOomKill,
        Some(End::Exhausted) => Cause::Exhaustion,
        Some(End::Failed(_)) => Cause::Failure,
        Some(End::Drilled { .. }) => Cause::Drill,
        Some(End::Asked(_) | End::Own(_) | End::StartFailed { .. }) | None => Cause::Stop,
    }
}
