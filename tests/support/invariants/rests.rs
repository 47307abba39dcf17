//! What is open for units over their runs, and units that rest.

use super::{Invariant, Violation, Watch, hold};
use crate::fake_kernel::FakeKernel;
use lifeboat::engine::action::Action;
use lifeboat::engine::event::Time;
use lifeboat::engine::policy::{RunId, UnitId};

impl Watch {
    pub(super) fn spawns(&mut self, now: Time, unit: UnitId, run: RunId) {
        let opens = self.policies[usize::from(unit.0)].descriptors.any();
        if let Some(seen) = self.present(unit, run) {
            seen.spawn_asked = now;
            seen.opened |= opens;
        }
    }

    /// Who needs a unit at rest calls for it.
    pub(super) fn demanded(&mut self, unit: UnitId, run: RunId) {
        if self.present(unit, run).is_some_and(|seen| seen.listens) {
            self.standings[usize::from(unit.0)].called = 1;
        }
    }

    pub(super) fn looked_idle(&mut self, unit: UnitId, run: RunId, idle: bool) {
        if let Some(seen) = self.present(unit, run) {
            let up = seen.ready.is_some() && !seen.ending && !seen.signalled;
            seen.idle |= idle && up && !seen.stands_still;
        }
    }

    pub(super) fn rests(&mut self, now: Time, action: Action, kernel: &FakeKernel) -> Result<(), Violation> {
        let lives = |unit: UnitId| kernel.living().find(|(other, ..)| *other == unit);
        match action {
            Action::Listen { unit, run } => {
                self.of_the_present(action, unit, run)?;
                let alive = lives(unit);
                hold(Invariant::OneRunAtOnce, alive.is_none(), || format!("{action:?}: {alive:?} lives"))?;
                hold(Invariant::NothingStartsInShutdown, !self.shutting_down(), || format!("{action:?}"))?;
                let seen = &mut self.seen[usize::from(unit.0)];
                (seen.opened, seen.listens) = (true, true);
            }
            Action::Thaw { unit, run } => {
                self.of_the_present(action, unit, run)?;
                if let Some(seen) = self.present(unit, run) {
                    (seen.ending, seen.stands_still) = (seen.signalled, false);
                    seen.alive = now;
                }
            }
            Action::LookIdle { unit, run } => self.of_the_present(action, unit, run)?,
            Action::CloseDescriptors { unit } => {
                let alive = lives(unit);
                hold(Invariant::ClosedInTheEnd, alive.is_none(), || format!("{unit:?}: {alive:?} lives"))?;
                let seen = &mut self.seen[usize::from(unit.0)];
                (seen.opened, seen.listens) = (false, false);
            }
            other => panic!("{other:?} is not about what rests"),
        }
        Ok(())
    }
}
