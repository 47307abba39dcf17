//! Units that come and change.

use super::FakeKernel;
use lifeboat::engine::change::Change;
use lifeboat::engine::policy::UnitId;

impl FakeKernel {
    /// Before the engine hears of the changes.
    pub(crate) fn reconfigure(&mut self, changes: &[(UnitId, Change)]) {
        for (unit, change) in changes {
            let at = usize::from(unit.0);
            match change {
                Change::Add(policy) if at == self.policies.len() => {
                    self.policies.push(policy.clone());
                    self.successors.push(None);
                    self.runs.push(Vec::new());
                    self.commands.push(Vec::new());
                    self.counters.push(Default::default());
                    self.unreclaimable_bytes.push(0);
                    self.hushed.push(false);
                }
                Change::Add(policy) => {
                    self.policies[at] = policy.clone();
                    self.counters[at] = Default::default();
                }
                Change::Adjust(policy) => self.policies[at] = policy.clone(),
                Change::Replace(policy) => self.successors[at] = Some(policy.clone()),
                Change::Autostart(_) | Change::Remove => {}
            }
        }
    }

    pub(super) fn adopt(&mut self, unit: UnitId) {
        let at = usize::from(unit.0);
        let policy = self.successors[at].take().expect("a successor");
        self.policies[at] = policy;
        // Its cgroups are made anew.
        self.counters[at] = Default::default();
    }
}
