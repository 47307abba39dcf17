//! From a process that runs to a service that is ready, and the proof that it stays alive.
//!
//! A service that lives but is judged to have failed is killed, after its shutdown procedure where that is wished.

use super::action::Action;
use super::event::{CommandKind, Note, Time};
use super::limits::{EXTENDED_MS_MAX, READY_LOOK_MS};
use super::policy::{Kind, Ready, RunId, UnitId};
use super::record::Record;
use super::service::{End, State};
use super::snapshot::{Failure, KillReason};
use super::timer::TimerKind;
use super::{Engine, Plan};

impl Engine {
    /// Its `execve` succeeded.
    pub(super) fn wait_until_ready(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        let (run, ready, ready_by) = (service.run, service.policy.ready, service.ready_by);
        self.read_for_stages(unit, plan);
        let Some(service) = self.unit(unit) else { return };
        if ready == Ready::Start || service.said_ready {
            self.become_ready(unit, plan);
            return;
        }
        self.enter(unit, State::Readying);
        self.timers.set(unit, TimerKind::Step, ready_by);
        match ready {
            Ready::AfterMs(ms) => self.timers.set(unit, TimerKind::Ready, self.now.plus_ms(u64::from(ms))),
            Ready::Path => {
                plan.push(Action::LookForPath { unit, run });
                self.timers.set(unit, TimerKind::Ready, self.now.plus_ms(READY_LOOK_MS));
            }
            Ready::Start | Ready::Notify | Ready::NotificationFd => {}
        }
    }

    fn become_ready(&mut self, unit: UnitId, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        service.up_since = Some(now);
        service.misses = 0;
        let (pid, after_us) = (service.pid.unwrap_or(0), now.since_us(service.run_began));
        let task = service.policy.kind == Kind::Task;
        self.run_on(unit);
        self.plan_drill(unit);
        if !task {
            self.replace_fallback(unit, KillReason::Replaced);
        }
        plan.tell(Record::Running { unit, pid, after_us });
        // Who asked for a task waits for its end.
        if !task {
            self.answer_started(unit, plan);
        }
    }

    /// It is up, and its proofs of life are due from now on.
    pub(super) fn run_on(&mut self, unit: UnitId) {
        self.enter(unit, State::Running);
        self.feed_watchdog(unit);
        self.plan_probe(unit);
        self.plan_idle_look(unit);
    }

    /// The notification descriptor or the path says so.
    pub(super) fn told_ready(&mut self, unit: UnitId, run: RunId, plan: &mut Plan) {
        let Some(service) = self.live(unit, run) else { return };
        match service.policy.ready {
            Ready::NotificationFd | Ready::Path => self.said_ready(unit, plan),
            Ready::Start | Ready::Notify | Ready::AfterMs(_) => {}
        }
    }

    fn said_ready(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        match service.state {
            State::Readying => self.become_ready(unit, plan),
            // Its `execve` is about to be told.
            State::Spawning => service.said_ready = true,
            // Said twice, or too late.
            State::Down(_)
            | State::Waiting
            | State::Backoff
            | State::Parking
            | State::Running
            | State::Idling
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => {}
        }
    }

    pub(super) fn notified(&mut self, unit: UnitId, run: RunId, note: Note, plan: &mut Plan) {
        let Some(service) = self.live(unit, run) else { return };
        let (state, by_note) = (service.state, service.policy.ready == Ready::Notify);
        self.reload_noted(unit, note, plan);
        match note {
            Note::Ready if by_note => self.said_ready(unit, plan),
            Note::Ready => {}
            Note::Reloading => {
                if state == State::Running {
                    plan.tell(Record::Notified { unit, note });
                }
            }
            Note::Stopping => self.said_stopping(unit, plan),
            Note::Alive => {
                if state == State::Running {
                    self.feed_watchdog(unit);
                }
            }
            Note::Failing => {
                if matches!(state, State::Readying | State::Running) {
                    self.fail(unit, Failure::WatchdogTriggered, plan);
                }
            }
            Note::ExtendMs(ms) => self.extend(unit, state, ms),
            Note::MainPid(pid) => {
                if let Some(service) = self.unit_mut(unit).filter(|service| service.pid.is_some()) {
                    service.pid = Some(pid);
                    self.generation += 1;
                }
            }
            Note::Status => self.generation += 1,
        }
    }

    /// It ends by itself: nothing looks any more whether it is alive, but whether it is gone by its `stop.timeout`. Its
    /// end is judged as any other of its own.
    fn said_stopping(&mut self, unit: UnitId, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        if service.state != State::Running || service.said_stopping.is_some() {
            return;
        }
        service.said_stopping = Some(now);
        let due = now.plus_ms(u64::from(service.policy.stop_timeout_ms));
        self.overrule_limiting(unit, true, plan);
        self.give_up_reload(unit, plan);
        self.stop_clocks(unit, plan);
        self.timers.clear(unit, TimerKind::Idle);
        self.timers.set(unit, TimerKind::Watchdog, due);
        self.generation += 1;
        plan.tell(Record::Notified { unit, note: Note::Stopping });
    }

    /// Only the steps that wait for the service itself can be extended, and not for ever.
    fn extend(&mut self, unit: UnitId, state: State, ms: u32) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        let since = service.since;
        let until = |from: Time| now.plus_ms(u64::from(ms)).min(from.plus_ms(EXTENDED_MS_MAX));
        match state {
            State::Readying => {
                service.ready_by = service.ready_by.max(until(since));
                let ready_by = service.ready_by;
                self.timers.set(unit, TimerKind::Step, ready_by);
            }
            State::Asking | State::Signalled => {
                let stop_by = since.plus_ms(u64::from(service.policy.stop_timeout_ms)).max(until(since));
                self.timers.set(unit, TimerKind::Step, stop_by);
            }
            State::Running => {
                if let Some(said) = service.said_stopping {
                    let stop_by = said.plus_ms(u64::from(service.policy.stop_timeout_ms)).max(until(said));
                    self.timers.set(unit, TimerKind::Watchdog, stop_by);
                }
            }
            State::Down(_)
            | State::Waiting
            | State::Backoff
            | State::Parking
            | State::Spawning
            | State::Idling
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Killing => {}
        }
    }

    pub(super) fn ready_due(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        if service.state != State::Readying {
            return;
        }
        let run = service.run;
        match service.policy.ready {
            Ready::AfterMs(_) => self.become_ready(unit, plan),
            Ready::Path => {
                plan.push(Action::LookForPath { unit, run });
                self.timers.set(unit, TimerKind::Ready, self.now.plus_ms(READY_LOOK_MS));
            }
            Ready::Start | Ready::Notify | Ready::NotificationFd => {}
        }
    }

    fn feed_watchdog(&mut self, unit: UnitId) {
        let watched = self.unit(unit).filter(|service| service.said_stopping.is_none());
        if let Some(ms) = watched.and_then(|service| service.policy.watchdog_ms) {
            self.timers.set(unit, TimerKind::Watchdog, self.now.plus_ms(u64::from(ms)));
        }
    }

    pub(super) fn watchdog_due(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit).filter(|service| service.state == State::Running) else { return };
        let stays = service.said_stopping.is_some();
        self.fail(unit, if stays { Failure::NotStopped } else { Failure::WatchdogMissed }, plan);
    }

    pub(super) fn plan_probe(&mut self, unit: UnitId) {
        let Some(service) = self.unit_mut(unit) else { return };
        service.probing = false;
        if let Some(health) = service.policy.health.filter(|_| service.said_stopping.is_none()) {
            let due = self.now.plus_ms(u64::from(health.interval_ms));
            self.timers.set(unit, TimerKind::Health, due);
        }
    }

    /// While the unit is held still it cannot show that it is alive.
    pub(super) fn stop_clocks(&mut self, unit: UnitId, plan: &mut Plan) {
        self.timers.clear(unit, TimerKind::Watchdog);
        self.timers.clear(unit, TimerKind::Health);
        self.break_off_probe(unit, plan);
    }

    /// A health check that is open says nothing of the service any more.
    pub(super) fn break_off_probe(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let (run, at_work) = (service.run, service.commands.at_work());
        let open = std::mem::take(&mut service.probing);
        if at_work == Some(CommandKind::Health) {
            self.end_command(unit, KillReason::NotNeeded, plan);
        } else if open {
            plan.push(Action::EndProbe { unit, run });
        }
    }

    /// It goes on, with its whole time before it.
    pub(super) fn start_clocks(&mut self, unit: UnitId) {
        self.feed_watchdog(unit);
        self.plan_probe(unit);
    }

    /// The next check is due, or the present one has taken too long.
    pub(super) fn health_due(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let Some(health) = service.policy.health.filter(|_| service.state == State::Running) else { return };
        let run = service.run;
        let taken = service.commands.are_taken();
        if service.probing && health.command {
            self.command_timed_out(unit, CommandKind::Health, plan);
            self.judge_probe(unit, false, plan);
            return;
        }
        if service.probing {
            plan.push(Action::EndProbe { unit, run });
            self.judge_probe(unit, false, plan);
            return;
        }
        // A reload goes before: a later check will do.
        if health.command && taken {
            self.plan_probe(unit);
            return;
        }
        service.probing = true;
        let due = self.now.plus_ms(u64::from(health.timeout_ms));
        self.timers.set(unit, TimerKind::Health, due);
        // One that cannot begin in its time, because the last one does not die, has failed too.
        if health.command {
            self.run_command(unit, CommandKind::Health, plan);
        } else {
            plan.push(Action::Probe { unit, run });
        }
    }

    pub(super) fn health_command_over(&mut self, unit: UnitId, well: bool, plan: &mut Plan) {
        if self.unit(unit).is_some_and(|service| service.probing && service.state == State::Running) {
            self.judge_probe(unit, well, plan);
        }
    }

    pub(super) fn probed(&mut self, unit: UnitId, run: RunId, healthy: bool, plan: &mut Plan) {
        let open =
            self.live(unit, run).is_some_and(|service| service.probing && service.state == State::Running);
        if open {
            self.judge_probe(unit, healthy, plan);
        }
    }

    fn judge_probe(&mut self, unit: UnitId, healthy: bool, plan: &mut Plan) {
        self.plan_probe(unit);
        let Some(service) = self.unit_mut(unit) else { return };
        service.misses = if healthy { 0 } else { service.misses.saturating_add(1) };
        if service.policy.health.is_some_and(|health| service.misses >= health.failures) {
            self.fail(unit, Failure::Unhealthy, plan);
        }
    }

    /// Its first process is in another cgroup: bounds that hold nothing are no bounds, and who is shielded and not
    /// bounded could take the machine.
    pub(super) fn strayed(&mut self, unit: UnitId, run: RunId, plan: &mut Plan) {
        let Some(service) = self.live(unit, run) else { return };
        match service.state {
            State::Readying | State::Running | State::Idling if service.policy.memory.is_some() => {
                self.fail(unit, Failure::LeftItsCgroup, plan);
            }
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
            | State::Signalled
            | State::Killing => {}
        }
    }

    /// The service lives and is of no use: its procedure where that is wished, then the kill.
    pub(super) fn fail(&mut self, unit: UnitId, failure: Failure, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        let saves =
            service.can_save() && service.policy.procedure.is_some_and(|procedure| procedure.on_failure);
        plan.tell(Record::Failed { unit, failure });
        self.begin_end(unit, End::Failed(failure), plan);
        if saves {
            self.begin_saving(unit, plan);
        } else {
            self.kill(unit, KillReason::Failed(failure), plan);
        }
    }
}
