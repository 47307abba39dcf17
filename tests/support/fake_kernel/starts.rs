//! Processes that begin, and what will become of them.

use super::{FakeKernel, Group, Item, SIGKILL, SIGSEGV, What};
use lifeboat::engine::event::{Event, Exit, Role, SpawnStage};
use lifeboat::engine::policy::{Kind, RunId, UnitId};
use lifeboat::engine::setting::Setting;
use std::cmp::Reverse;

impl FakeKernel {
    pub(super) fn pid(&mut self) -> u32 {
        self.pids += 1;
        self.pids
    }

    pub(super) fn fault(&mut self) -> (SpawnStage, i32) {
        let stage = self.rng.pick(&[
            SpawnStage::Cgroup,
            SpawnStage::Limit,
            SpawnStage::Clone,
            SpawnStage::OomScoreAdj,
            SpawnStage::WorkingDirectory,
            SpawnStage::Exec,
            SpawnStage::User,
            SpawnStage::Sockets,
        ]);
        (stage, self.rng.pick(&[2, 11, 12, 13, 16]))
    }

    /// What the last run has left in its parking place is this run's.
    fn parks_already(&mut self, unit: UnitId, run: RunId) -> bool {
        if run.0 < 2 || self.truth(unit, RunId(run.0 - 1)).spare().is_none() {
            return false;
        }
        let spare = std::mem::take(&mut self.truth(unit, RunId(run.0 - 1)).procedure);
        let truth = self.truth(unit, run);
        (truth.procedure, truth.released) = (spare, false);
        let pid = self.pid();
        self.tell(0, Event::Parked { unit, run, pid });
        true
    }

    pub(super) fn park(&mut self, unit: UnitId, run: RunId) {
        if !self.parks_already(unit, run) {
            self.forget_first(unit, run);
            self.make(unit, run);
        }
    }

    /// The runtime tells an end once, and an empty cgroup as it is: no word of the first comes after the second. This
    /// is so after a drill too, when another takes its place.
    pub(super) fn forget_first(&mut self, unit: UnitId, run: RunId) {
        let id = (unit, run, Role::Procedure);
        let before = self.heap.len();
        self.heap.retain(|Reverse(next)| match next.item {
            Item::Event(
                Event::Exited { unit, run, role, .. }
                | Event::SpawnFailed { unit, run, role, .. }
                | Event::Emptied { unit, run, role },
            ) => (unit, run, role) != id,
            Item::Event(Event::ProcedureRunning { unit, run }) => (unit, run, Role::Procedure) != id,
            Item::Event(_) | Item::Happening(..) | Item::Outside(_) => true,
        });
        self.pending -= before - self.heap.len();
    }

    /// A procedure's process, or not.
    pub(super) fn make(&mut self, unit: UnitId, run: RunId) {
        let delay_us = self.short();
        if self.goes_wrong() && self.rng.per_mille(500) {
            let (stage, errno) = self.fault();
            let event = Event::SpawnFailed { unit, run, role: Role::Procedure, stage, errno };
            self.tell(delay_us, event);
            return;
        }
        let truth = self.truth(unit, run);
        (truth.procedure.main, truth.released) = (true, false);
        // Without this, it hangs on its way: the start's deadline is for that.
        if !(self.goes_wrong() && self.rng.per_mille(200)) {
            let pid = self.pid();
            self.tell(delay_us, Event::Parked { unit, run, pid });
        }
        if self.goes_wrong() && self.rng.per_mille(300) {
            let after_us = self.rng.between(0, self.life_ms * 1_000);
            self.later((unit, run), after_us, What::ProcedureEnds(Exit::Signal(SIGKILL)));
        }
    }

    /// Its sockets can be opened, or not; something comes in soon, late or never.
    pub(super) fn listen(&mut self, unit: UnitId, run: RunId) {
        if self.goes_wrong() && self.rng.per_mille(300) {
            let errno = self.rng.pick(&[2, 13, 98]);
            let (role, stage) = (Role::Service, SpawnStage::Sockets);
            self.tell(0, Event::SpawnFailed { unit, run, role, stage, errno });
        } else if self.rng.per_mille(800) {
            let after_us = self.rng.pick(&[0, 0, 20_000, 3_000_000, 40_000_000]);
            self.tell(after_us, Event::Demanded { unit, run });
        }
    }

    pub(super) fn spawn(&mut self, unit: UnitId, run: RunId) {
        let delay_us = self.short();
        if self.goes_wrong() {
            let setting = self.rng.pick(&[Setting::Nice, Setting::CpuMax, Setting::Hidden]);
            let skipped = self.rng.per_mille(500);
            self.tell(delay_us, Event::SettingRefused { unit, run, setting, errno: 22, skipped });
        }
        if self.goes_wrong() && self.rng.per_mille(500) {
            let (stage, errno) = self.fault();
            self.tell(delay_us, Event::SpawnFailed { unit, run, role: Role::Service, stage, errno });
            return;
        }
        let unkillable = self.trouble > 0 && self.rng.per_mille(4);
        self.unreclaimable_bytes[usize::from(unit.0)] = 0;
        let ballast = self.truth(unit, run).service.ballast;
        self.truth(unit, run).service = Group { main: true, unkillable, ballast, ..Group::default() };
        if self.goes_wrong() && self.rng.per_mille(100) {
            return;
        }
        self.later((unit, run), delay_us, What::Exec);
    }

    /// The service runs: what will become of it is thrown now.
    pub(super) fn live(&mut self, unit: UnitId, run: RunId) {
        let id = (unit, run);
        let policy = &self.policies[usize::from(unit.0)];
        let (task, bounded) = (policy.kind == Kind::Task, policy.memory.is_some());
        let life_us = self.rng.between(0, 2 * self.life_ms * 1_000);
        if task {
            let exit = if self.goes_wrong() { Exit::Code(1) } else { Exit::Code(0) };
            let work_us = self.rng.between(100, 2_000_000);
            self.later(id, work_us, What::MainEnds(exit));
        } else if self.rng.per_mille(500) {
            let exit = self.rng.pick(&[Exit::Code(0), Exit::Code(1), Exit::Signal(SIGSEGV)]);
            self.later(id, life_us, What::MainEnds(exit));
        }
        self.speak(unit, run);
        if self.goes_wrong() {
            self.truth(unit, run).service.others = true;
            if self.rng.per_mille(500) {
                self.later(id, 2 * life_us, What::OthersEnd);
            }
        }
        if bounded {
            for _ in 0..self.rng.between(0, 3) {
                let after_us = self.rng.between(0, life_us + 1);
                let what = self.rng.pick(&[What::MaxMet, What::PressureRises]);
                self.later(id, after_us, what);
            }
            if self.rng.per_mille(500) {
                let after_us = self.rng.between(0, life_us + 1);
                self.later(id, after_us, What::Oom { again: 3 });
            }
        }
        if self.goes_wrong() && self.rng.per_mille(100) {
            self.later(id, life_us, What::Strays);
        }
        if self.goes_wrong() && self.rng.per_mille(200) {
            self.later(id, life_us, What::OomOutside);
        }
    }
}
