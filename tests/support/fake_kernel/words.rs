//! What services say of themselves, in time, late, twice or never; and what probes of them find.

use super::{FakeKernel, What};
use lifeboat::engine::event::{Event, Note};
use lifeboat::engine::policy::{Ready, RunId, UnitId};

impl FakeKernel {
    /// What it will say: ready early, late, twice or never; alive for a while; and lies.
    pub(super) fn speak(&mut self, unit: UnitId, run: RunId) {
        let id = (unit, run);
        if !self.goes_wrong() {
            let after_us = self.rng.pick(&[0, 1_000, 300_000, 2_900_000, 4_000_000]);
            self.later(id, after_us, What::Ready);
        }
        self.later(id, 0, What::Ping);
        if self.rng.per_mille(200) {
            let notes =
                [Note::Reloading, Note::Stopping, Note::Failing, Note::ExtendMs(2_000), Note::MainPid(9)];
            let (note, after_us) = (self.rng.pick(&notes), self.rng.between(0, 2_000_000));
            self.later(id, after_us, What::Says(note));
        }
    }

    /// By the unit's own way, and now and then by another, which must not count.
    pub(super) fn becomes_ready(&mut self, unit: UnitId, run: RunId) {
        self.truth(unit, run).path = true;
        let by_note = match self.policies[usize::from(unit.0)].ready {
            Ready::Notify => true,
            Ready::NotificationFd => false,
            Ready::Start | Ready::Path | Ready::AfterMs(_) => return,
        };
        if by_note != self.rng.per_mille(50) {
            self.tell(0, Event::Notified { unit, run, note: Note::Ready });
        } else {
            self.tell(0, Event::Ready { unit, run });
        }
    }

    /// Most are answered well, some badly, some too late, and some never.
    pub(super) fn probe(&mut self, unit: UnitId, run: RunId) {
        if self.rng.per_mille(30) {
            return;
        }
        let healthy = !self.rng.per_mille(100);
        let delay_us = self.rng.pick(&[0, 0, 500, 90_000, 1_000_000, 2_500_000]);
        self.tell(delay_us, Event::Probed { unit, run, healthy });
    }

    pub(super) fn pings(&mut self, unit: UnitId, run: RunId) {
        let Some(ms) = self.policies[usize::from(unit.0)].watchdog_ms else { return };
        self.tell(0, Event::Notified { unit, run, note: Note::Alive });
        if !self.rng.per_mille(50) {
            self.later((unit, run), u64::from(ms) * 500, What::Ping);
        }
    }
}
