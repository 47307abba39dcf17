//! Commands beside a service: they work, fail, hang, fork, outgrow their memory, or cannot be started at all.

use super::{FakeKernel, Group, SIGKILL, What};
use lifeboat::engine::action::CommandOrder;
use lifeboat::engine::event::{CommandKind, Effect, Event, Exit, MemoryEvents, Note, Role};
use lifeboat::engine::policy::{RunId, UnitId};

/// What can happen to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Ends(Exit),
    Outgrows,
    Killed,
}

impl FakeKernel {
    /// The truth about one command by its number, which counts from 1.
    fn command(&mut self, unit: UnitId, number: RunId) -> &mut Group {
        let commands = &mut self.commands[usize::from(unit.0)];
        let at = number.0 as usize - 1;
        if commands.len() <= at {
            commands.resize(at + 1, Group::default());
        }
        &mut commands[at]
    }

    /// Something of a command of this unit lives, and could be killed.
    pub(crate) fn command_lives(&self, unit: UnitId) -> bool {
        self.commands[usize::from(unit.0)].iter().any(|group| group.populated())
    }

    pub(super) fn run_command(&mut self, unit: UnitId, number: RunId, order: CommandOrder) {
        let id = (unit, number);
        if self.goes_wrong() && self.rng.per_mille(300) {
            let (stage, errno) = self.fault();
            self.tell(0, Event::SpawnFailed { unit, run: number, role: Role::Command, stage, errno });
            self.tell(0, Event::Emptied { unit, run: number, role: Role::Command });
            return;
        }
        let unkillable = self.trouble > 0 && self.rng.per_mille(4);
        *self.command(unit, number) = Group { main: true, unkillable, ..Group::default() };
        let after_us = self.rng.pick(&[50, 2_000, 90_000, 700_000]);
        if !self.goes_wrong() {
            self.later(id, after_us, What::Command(Deed::Ends(Exit::Code(0))));
            self.obeys(unit, order);
            return;
        }
        match self.rng.between(0, 3) {
            0 => self.later(id, after_us, What::Command(Deed::Ends(Exit::Code(1)))),
            1 => self.later(id, after_us, What::Command(Deed::Outgrows)),
            2 => {
                self.command(unit, number).others = true;
                self.later(id, after_us, What::Command(Deed::Ends(Exit::Code(0))));
            }
            // It hangs.
            _ => {}
        }
    }

    /// What the service does about it.
    fn obeys(&mut self, unit: UnitId, order: CommandOrder) {
        let run = RunId(u32::try_from(self.runs[usize::from(unit.0)].len()).unwrap());
        match order.kind {
            CommandKind::Stop if self.rng.per_mille(700) => {
                let after_us = self.rng.between(10, 800_000);
                self.later((unit, run), after_us, What::MainEnds(Exit::Code(0)));
            }
            CommandKind::Reload => self.reloads(unit, run),
            CommandKind::Stop | CommandKind::Health | CommandKind::Warn => {}
        }
    }

    /// It says so, mostly.
    pub(super) fn reloads(&mut self, unit: UnitId, run: RunId) {
        for note in [Note::Reloading, Note::Ready] {
            if !self.goes_wrong() {
                let after_us = if note == Note::Ready { self.rng.between(500, 900_000) } else { 400 };
                self.later((unit, run), after_us, What::Says(note));
            }
        }
    }

    pub(super) fn kill_command(&mut self, unit: UnitId, number: RunId) {
        if self.goes_wrong() && self.rng.per_mille(200) {
            self.tell(0, Event::Failed { unit, run: number, effect: Effect::Kill, errno: 19 });
            return;
        }
        let after_us =
            if self.goes_wrong() { self.rng.between(1, 9_000_000) } else { self.rng.between(1, 9_000) };
        self.later((unit, number), after_us, What::Command(Deed::Killed));
    }

    pub(super) fn command_happens(&mut self, unit: UnitId, number: RunId, deed: Deed) {
        let group = *self.command(unit, number);
        match deed {
            Deed::Ends(exit) if group.main && !group.unkillable => {
                self.command(unit, number).main = false;
                self.command_ended(unit, number, exit);
            }
            Deed::Outgrows if group.main && !group.unkillable => {
                *self.command(unit, number) = Group::default();
                self.command_kills += 1;
                let counters = MemoryEvents { oom_kill: self.command_kills, ..MemoryEvents::default() };
                self.tell(0, Event::MemoryEvents { unit, run: number, role: Role::Command, counters });
                self.command_ended(unit, number, Exit::Signal(SIGKILL));
            }
            Deed::Killed if group.unkillable && group.populated() => {}
            Deed::Killed => {
                *self.command(unit, number) = Group { unkillable: group.unkillable, ..Group::default() };
                if group.main {
                    self.command_ended(unit, number, Exit::Signal(SIGKILL));
                } else {
                    self.tell(0, Event::Emptied { unit, run: number, role: Role::Command });
                }
            }
            Deed::Ends(_) | Deed::Outgrows => {}
        }
    }

    fn command_ended(&mut self, unit: UnitId, number: RunId, exit: Exit) {
        let delay_us = self.rng.pick(&[0, 100, 5_000]);
        self.tell(delay_us, Event::Exited { unit, run: number, role: Role::Command, exit });
        if !self.command(unit, number).populated() {
            let delay_us = self.rng.pick(&[0, 100, 5_000]);
            self.tell(delay_us, Event::Emptied { unit, run: number, role: Role::Command });
        }
    }
}
