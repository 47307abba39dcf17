//! Units that come, change and go: only where nothing of them lives.

use super::escalations::Standing;
use super::{Invariant, Seen, Violation, Watch, hold};
use crate::fake_kernel::FakeKernel;
use lifeboat::engine::change::Change;
use lifeboat::engine::policy::{RunId, UnitId};

impl Watch {
    /// Before the engine hears of the changes.
    pub(crate) fn reconfigure(&mut self, changes: &[(UnitId, Change)]) {
        for (unit, change) in changes {
            let at = usize::from(unit.0);
            match change {
                Change::Add(policy) if at == self.policies.len() => {
                    self.policies.push(policy.clone());
                    self.successors.push(None);
                    self.seen.push(Seen::default());
                    self.standings.push(Standing::default());
                }
                Change::Add(policy) => {
                    self.policies[at] = policy.clone();
                    self.standings[at] = Standing::default();
                    let (run, command) = (RunId(self.seen[at].run.0 + 1), self.seen[at].command);
                    self.seen[at] = Seen { run, born: run, command, ..Seen::default() };
                }
                Change::Adjust(policy) => {
                    if self.policies[at].restart != policy.restart {
                        self.seen[at].starts.clear();
                    }
                    self.policies[at] = policy.clone();
                }
                Change::Replace(policy) => {
                    self.policies[at].take_neighbours(policy);
                    self.successors[at] = Some(policy.clone());
                }
                Change::Autostart(_) | Change::Remove => {}
            }
        }
        // Whatever is taken over may start once more, however often it was started.
        self.seen.iter_mut().for_each(|seen| seen.starts.clear());
        for standing in &mut self.standings {
            standing.called_once_more(self.rescue_called);
        }
        self.changed = true;
        for (unit, change) in changes {
            if *change != Change::Remove {
                self.call(*unit, true);
            }
        }
    }

    pub(super) fn adopts(&mut self, unit: UnitId, kernel: &FakeKernel) -> Result<(), Violation> {
        self.nothing_left(unit, kernel)?;
        let at = usize::from(unit.0);
        let successor = self.successors[at].take();
        hold(Invariant::NothingLeft, successor.is_some(), || format!("{unit:?} has no successor"))?;
        let Some(successor) = successor else { return Ok(()) };
        self.seen[at].counters = Default::default();
        self.policies[at] = successor;
        self.seen[at].starts.clear();
        self.standings[at].called_once_more(self.rescue_called);
        // By its new file it may require others than before.
        self.call(unit, true);
        Ok(())
    }

    pub(super) fn nothing_left(&self, unit: UnitId, kernel: &FakeKernel) -> Result<(), Violation> {
        let alive = kernel.living().find(|(other, ..)| *other == unit);
        hold(Invariant::NothingLeft, alive.is_none(), || format!("{unit:?} leaves {alive:?}"))?;
        hold(Invariant::NothingLeft, !kernel.command_lives(unit), || format!("{unit:?} leaves a command"))
    }
}
