//! Changes of the table of units.

use super::Stage;
use super::units::{Unit, policy};
use lifeboat::engine::change::Change;
use lifeboat::engine::policy::{RunId, UnitId};
use serde::Deserialize;

/// What becomes of one unit.
#[derive(Clone, Debug, Deserialize)]
pub(crate) enum Changed {
    Add(Unit),
    Adjust(Unit),
    Replace(Unit),
    Remove(String),
}

impl Stage {
    pub(super) fn reconfigure(&mut self, changes: &[Changed]) {
        for changed in changes {
            if let Changed::Add(unit) = changed {
                let place = self.engine.places_for(&[&unit.name])[0].expect("a place");
                let at = usize::from(place.0);
                self.names.resize(self.names.len().max(at + 1), String::new());
                self.names[at].clone_from(&unit.name);
                self.commands.resize(self.names.len(), RunId(0));
            }
        }
        let names = self.names.clone();
        let changes: Vec<(UnitId, Change)> = changes
            .iter()
            .map(|changed| match changed {
                Changed::Add(unit) => (self.id(&unit.name), Change::Add(policy(unit, &names))),
                Changed::Adjust(unit) => (self.id(&unit.name), Change::Adjust(policy(unit, &names))),
                Changed::Replace(unit) => (self.id(&unit.name), Change::Replace(policy(unit, &names))),
                Changed::Remove(name) => (self.id(name), Change::Remove),
            })
            .collect();
        self.engine.reconfigure(self.now, changes, &mut self.plan);
    }
}
