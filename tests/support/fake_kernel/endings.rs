//! The freezer, procedures, kills, and the ends of processes.

use super::{ESRCH, FakeKernel, Group, Item, SIGKILL, SIGSEGV, SIGTERM, What};
use lifeboat::engine::event::{Effect, Event, Exit, LeftBehind, Role, SpawnStage};
use lifeboat::engine::policy::{RunId, UnitId};
use lifeboat::engine::snapshot::KilledBy;

impl FakeKernel {
    pub(super) fn freeze(&mut self, unit: UnitId, run: RunId) {
        self.truth(unit, run).freezing = true;
        if self.goes_wrong() {
            match self.rng.between(0, 3) {
                0 => self.tell(0, Event::Failed { unit, run, effect: Effect::Freeze, errno: 16 }),
                1 => self.later((unit, run), 700_000, What::Froze),
                _ => {}
            }
            return;
        }
        let after_us = self.rng.between(10, 200_000);
        self.later((unit, run), after_us, What::Froze);
    }

    pub(super) fn start_procedure(&mut self, unit: UnitId, run: RunId) {
        if !self.truth(unit, run).procedure.main {
            self.tell(0, Event::Failed { unit, run, effect: Effect::StartProcedure, errno: ESRCH });
            return;
        }
        self.truth(unit, run).released = true;
        if self.goes_wrong() && self.rng.per_mille(300) {
            self.truth(unit, run).procedure.main = false;
            let event = Event::SpawnFailed {
                unit,
                run,
                role: Role::Procedure,
                stage: SpawnStage::Exec,
                errno: self.rng.pick(&[2, 12]),
            };
            self.tell(50, event);
            self.tell(60, Event::Exited { unit, run, role: Role::Procedure, exit: Exit::Code(127) });
            self.tell(60, Event::Emptied { unit, run, role: Role::Procedure });
            return;
        }
        self.tell(100, Event::ProcedureRunning { unit, run });
        let after_us = self.rng.between(200, 3_000_000);
        if !self.goes_wrong() {
            self.later((unit, run), after_us, What::ProcedureEnds(Exit::Code(0)));
            return;
        }
        match self.rng.between(0, 3) {
            0 => self.later((unit, run), after_us, What::ProcedureEnds(Exit::Signal(SIGSEGV))),
            1 => self.later((unit, run), after_us, What::ProcedureOutgrows),
            2 => {
                self.truth(unit, run).procedure.others = true;
                self.later((unit, run), after_us, What::ProcedureEnds(Exit::Code(0)));
            }
            _ => self.truth(unit, run).procedure.unkillable = self.rng.per_mille(30),
        }
    }

    pub(super) fn kill(&mut self, unit: UnitId, run: RunId, role: Role) {
        let failed = self.truth(unit, run).failed_kills;
        // A file that can never be written again is no case: nothing could be done then.
        if failed < 3 && self.goes_wrong() && self.rng.per_mille(200) {
            self.truth(unit, run).failed_kills += 1;
            self.tell(0, Event::Failed { unit, run, effect: Effect::Kill, errno: 19 });
            return;
        }
        let slow = self.goes_wrong();
        let after_us = if slow { self.rng.between(1, 9_000_000) } else { self.rng.between(1, 30_000) };
        self.later((unit, run), after_us, What::Killed(role));
    }

    /// Those that are left obey or do not.
    pub(super) fn signal_all(&mut self, unit: UnitId, run: RunId) {
        if !self.truth(unit, run).service.populated() {
            self.tell(0, Event::Emptied { unit, run, role: Role::Service });
        } else if !self.goes_wrong() {
            let after_us = self.rng.between(100, 300_000);
            self.later((unit, run), after_us, What::OthersEnd);
        } else if self.rng.per_mille(200) {
            self.tell(0, Event::Failed { unit, run, effect: Effect::Signal, errno: 19 });
        }
    }

    pub(super) fn ended(&mut self, unit: UnitId, run: RunId, role: Role, exit: Exit) {
        let delay_us = self.rng.pick(&[0, 100, 5_000]);
        if role == Role::Service && exit == Exit::Signal(SIGKILL) {
            let killed = Event::KilledOutside { unit, run, by: KilledBy::Outside };
            self.schedule(delay_us, Item::Event(killed));
        }
        self.tell(delay_us, Event::Exited { unit, run, role, exit });
        self.tell_if_empty(unit, run, role);
    }

    /// Those that are left, a ballast too, obey the signal for all.
    pub(super) fn others_end(&mut self, unit: UnitId, run: RunId) {
        if std::mem::take(&mut self.truth(unit, run).service.others) {
            self.tell_if_empty(unit, run, Role::Service);
        }
        self.ballast_ends(unit, run, Exit::Signal(SIGTERM));
    }

    pub(super) fn group(&mut self, unit: UnitId, run: RunId, role: Role) -> &mut Group {
        match role {
            Role::Service | Role::Ballast => &mut self.truth(unit, run).service,
            Role::Procedure => &mut self.truth(unit, run).procedure,
            Role::Command => panic!("a command has no run"),
        }
    }

    pub(super) fn tell_if_empty(&mut self, unit: UnitId, run: RunId, role: Role) {
        if !self.group(unit, run, role).populated() {
            let delay_us = self.rng.pick(&[0, 100, 5_000]);
            if role == Role::Service {
                let left = Event::LeftBehind { unit, run, left: LeftBehind::default() };
                self.schedule(delay_us, Item::Event(left));
            }
            self.tell(delay_us, Event::Emptied { unit, run, role });
        }
    }

    pub(super) fn killed(&mut self, unit: UnitId, run: RunId, role: Role) {
        let group = self.group(unit, run, role);
        if group.unkillable && group.populated() {
            return;
        }
        let (had_main, had_ballast) = (group.main, group.ballast);
        *group = Group { unkillable: group.unkillable, ..Group::default() };
        if had_ballast {
            let delay_us = self.rng.pick(&[0, 100, 5_000]);
            self.tell(
                delay_us,
                Event::Exited { unit, run, role: Role::Ballast, exit: Exit::Signal(SIGKILL) },
            );
        }
        if had_main {
            self.ended(unit, run, role, Exit::Signal(SIGKILL));
        } else {
            self.tell_if_empty(unit, run, role);
        }
    }
}
