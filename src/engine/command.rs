//! A unit's commands: programs that lifeboat runs beside its service to stop it, to have it read its configuration
//! anew, and to check its health.
//!
//! A unit has one at a time. Each has a number of its own, which its events carry in place of the run's, so that a late
//! event of one cannot hit the next. However it ends, its cgroup is killed, and the next one begins only when nothing
//! of it is left. Who asks for a command holds its deadline.

use super::action::{Action, CommandOrder};
use super::event::{CommandKind, Exit, MemoryEvents, Time};
use super::limits::{KILL_RETRY_MS, KILL_TRIES_MAX};
use super::policy::{RunId, UnitId};
use super::record::Record;
use super::snapshot::{CommandView, KillReason, ProcedureResult};
use super::timer::TimerKind;
use super::{Engine, Plan};
use serde::{Deserialize, Serialize};

/// `SIGKILL` of signal(7).
const SIGKILL: i32 = 9;

/// How far the present command is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// There is none.
    #[default]
    Idle,
    /// It is at work.
    AtWork(CommandKind),
    /// It is over, and its cgroup is being killed.
    Leaving,
}

/// A unit's commands between two turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Commands {
    /// Counts them.
    number: RunId,
    stage: Stage,
    /// What begins when nothing of the present one is left.
    next: Option<CommandKind>,
    /// Its first process is not reaped yet.
    process: bool,
    /// Its cgroup may hold a process.
    cgroup: bool,
    kill_tries: u8,
    began: Time,
    /// `oom_kill` of its cgroup when it began, and now.
    oom_kill: (u64, u64),
    /// The last one that failed.
    pub(super) failed: Option<CommandView>,
}

impl Commands {
    /// Of another unit in the same place, which counts on: a late event of the last one's finds no number of its own.
    pub(super) fn counting_on(self) -> Self {
        Self { number: self.number, ..Self::default() }
    }

    /// Its cgroup is made anew.
    pub(super) fn forget_counters(&mut self) {
        self.oom_kill = (0, 0);
    }

    /// Nothing of any command is left.
    pub(super) fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// What is at work.
    pub(super) fn at_work(&self) -> Option<CommandKind> {
        match self.stage {
            Stage::AtWork(kind) => Some(kind),
            Stage::Idle | Stage::Leaving => None,
        }
    }

    /// One is at work, or waits for its turn.
    pub(super) fn are_taken(&self) -> bool {
        self.at_work().is_some() || self.next.is_some()
    }

    /// The last one is still being killed.
    pub(super) fn is_leaving(&self) -> bool {
        self.stage == Stage::Leaving
    }
}

impl Engine {
    /// Runs a command, as soon as nothing of another one is left. One that is at work makes room.
    pub(super) fn run_command(&mut self, unit: UnitId, kind: CommandKind, plan: &mut Plan) {
        let at_work = self.unit(unit).and_then(|service| service.commands.at_work());
        if at_work == Some(CommandKind::Health) && kind != CommandKind::Health {
            // Broken off, it says nothing of the service.
            self.plan_probe(unit);
        }
        self.end_command(unit, KillReason::NotNeeded, plan);
        let Some(service) = self.unit_mut(unit) else { return };
        if service.commands.is_idle() {
            self.begin_command(unit, kind, plan);
        } else {
            service.commands.next = Some(kind);
        }
    }

    fn begin_command(&mut self, unit: UnitId, kind: CommandKind, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        let deadline_ms = match kind {
            CommandKind::Stop => service.policy.stop_timeout_ms,
            CommandKind::Reload => service.policy.reload.map_or(0, |reload| reload.timeout_ms),
            CommandKind::Health => service.policy.health.map_or(0, |health| health.timeout_ms),
            CommandKind::Warn => service.policy.warn.timeout_ms,
        };
        let order = CommandOrder { kind, main_pid: service.pid.unwrap_or(0), deadline_ms };
        let commands = &mut service.commands;
        commands.number = RunId(commands.number.0.wrapping_add(1));
        commands.stage = Stage::AtWork(kind);
        (commands.process, commands.cgroup, commands.began) = (true, true, now);
        commands.oom_kill.0 = commands.oom_kill.1;
        let run = commands.number;
        plan.push(Action::RunCommand { unit, run, order });
    }

    /// Kills what is left of the command that is at work; its end is of no interest any more.
    pub(super) fn end_command(&mut self, unit: UnitId, reason: KillReason, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        service.commands.next = None;
        if service.commands.at_work().is_some() {
            self.kill_command(unit, reason, plan);
        }
    }

    /// The command did not end in time. Gives whether there was one of this kind.
    pub(super) fn command_timed_out(&mut self, unit: UnitId, kind: CommandKind, plan: &mut Plan) -> bool {
        let Some(commands) = self.unit(unit).map(|service| service.commands) else { return false };
        let at_work = commands.at_work() == Some(kind);
        if at_work || commands.next == Some(kind) {
            self.note_command(unit, kind, ProcedureResult::TimedOut, plan);
            self.end_command(unit, KillReason::CommandTimedOut, plan);
        }
        at_work
    }

    /// Also once more for what an unkillable command has left: its unit's run is over only without it.
    pub(super) fn kill_command(&mut self, unit: UnitId, reason: KillReason, plan: &mut Plan) {
        let due = self.now.plus_ms(KILL_RETRY_MS);
        let Some(commands) = self.unit_mut(unit).map(|service| &mut service.commands) else { return };
        if commands.is_idle() {
            return;
        }
        commands.stage = Stage::Leaving;
        commands.kill_tries = 1;
        let run = commands.number;
        self.timers.set(unit, TimerKind::Command, due);
        plan.push(Action::KillCommand { unit, run, reason });
    }

    /// It should be gone by now.
    pub(super) fn command_due(&mut self, unit: UnitId, plan: &mut Plan) {
        let due = self.now.plus_ms(KILL_RETRY_MS);
        let Some(commands) = self.unit_mut(unit).map(|service| &mut service.commands) else { return };
        if !commands.is_leaving() {
            return;
        }
        let run = commands.number;
        if commands.kill_tries >= KILL_TRIES_MAX {
            // Nothing waits for it but the end of its unit's run.
            let next = commands.next.take();
            plan.tell(Record::CommandStays { unit });
            if let Some(kind) = next {
                self.command_over(unit, kind, ProcedureResult::TimedOut, plan);
            }
            return;
        }
        commands.kill_tries += 1;
        self.timers.set(unit, TimerKind::Command, due);
        plan.push(Action::KillCommand { unit, run, reason: KillReason::LeftBehind });
    }

    /// The unit, if the event is about its present command.
    fn command_of(&mut self, unit: UnitId, number: RunId) -> Option<&mut Commands> {
        self.unit_mut(unit).map(|service| &mut service.commands).filter(|commands| commands.number == number)
    }

    pub(super) fn command_memory(&mut self, unit: UnitId, number: RunId, counters: MemoryEvents) {
        if let Some(commands) = self.command_of(unit, number) {
            commands.oom_kill.1 = counters.oom_kill;
        }
    }

    pub(super) fn command_exited(&mut self, unit: UnitId, number: RunId, exit: Exit, plan: &mut Plan) {
        let Some(commands) = self.command_of(unit, number) else { return };
        let (first, now) = commands.oom_kill;
        let outgrew = now > first && exit == Exit::Signal(SIGKILL);
        let result = if outgrew { ProcedureResult::OutOfMemory } else { ProcedureResult::Ended(exit) };
        self.command_ended(unit, number, result, plan);
    }

    /// Its first process has ended, or was never made.
    pub(super) fn command_ended(
        &mut self,
        unit: UnitId,
        number: RunId,
        result: ProcedureResult,
        plan: &mut Plan,
    ) {
        let Some(commands) = self.command_of(unit, number) else { return };
        if !std::mem::take(&mut commands.process) {
            return;
        }
        match commands.stage {
            Stage::AtWork(kind) => {
                self.kill_command(unit, KillReason::LeftBehind, plan);
                self.command_over(unit, kind, result, plan);
            }
            Stage::Leaving => self.command_gone(unit, plan),
            Stage::Idle => {}
        }
    }

    pub(super) fn command_emptied(&mut self, unit: UnitId, number: RunId, plan: &mut Plan) {
        let Some(commands) = self.command_of(unit, number) else { return };
        if commands.is_leaving() {
            commands.cgroup = false;
            self.command_gone(unit, plan);
        }
    }

    /// Something of it is gone; where it was the last, what waited for that goes on.
    fn command_gone(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(commands) = self.unit_mut(unit).map(|service| &mut service.commands) else { return };
        if commands.process || commands.cgroup {
            return;
        }
        commands.stage = Stage::Idle;
        let next = commands.next.take();
        self.timers.clear(unit, TimerKind::Command);
        match next {
            Some(kind) => self.begin_command(unit, kind, plan),
            None => self.finish_run_if_over(unit, plan),
        }
    }

    /// It has ended by itself, or could not be started: whoever asked for it goes on.
    fn command_over(&mut self, unit: UnitId, kind: CommandKind, result: ProcedureResult, plan: &mut Plan) {
        self.note_command(unit, kind, result, plan);
        let well = result == ProcedureResult::Ended(Exit::Code(0));
        match kind {
            CommandKind::Stop => self.stop_command_over(unit, plan),
            CommandKind::Reload => self.reload_command_over(unit, well, plan),
            CommandKind::Health => self.health_command_over(unit, well, plan),
            CommandKind::Warn => self.timers.clear(unit, TimerKind::Warn),
        }
    }

    /// A health check that is good is no news.
    fn note_command(&mut self, unit: UnitId, kind: CommandKind, result: ProcedureResult, plan: &mut Plan) {
        let now = self.now;
        let Some(commands) = self.unit_mut(unit).map(|service| &mut service.commands) else { return };
        let well = result == ProcedureResult::Ended(Exit::Code(0));
        if well && kind == CommandKind::Health {
            return;
        }
        let after_us = now.since_us(commands.began);
        if !well {
            commands.failed = Some(CommandView { kind, result, time: now });
            self.generation += 1;
        }
        plan.tell(Record::CommandOver { unit, kind, result, after_us });
    }
}
