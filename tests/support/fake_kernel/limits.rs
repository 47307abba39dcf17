//! Limits that are changed while a unit runs.

use super::{FakeKernel, What};
use lifeboat::engine::action::LimitStep;
use lifeboat::engine::event::{Effect, Event, Tried};
use lifeboat::engine::policy::{RunId, UnitId};
use lifeboat::engine::setting::Limit;

impl FakeKernel {
    /// A unit that was held goes on, and so does what it was about to say.
    pub(super) fn thaw(&mut self, unit: UnitId, run: RunId) {
        let truth = self.truth(unit, run);
        truth.freezing = false;
        truth.service.frozen = false;
        self.later((unit, run), 0, What::Ping);
    }

    /// Now and then what is lent is not enough, or cannot be.
    pub(super) fn lend(&mut self, unit: UnitId, run: RunId, lend_bytes: u64) {
        self.truth(unit, run).lent_bytes = lend_bytes;
        if !self.goes_wrong() {
        } else if self.rng.per_mille(500) {
            let truth = self.truth(unit, run);
            (truth.lent_bytes, truth.loan_failed) = (0, true);
            self.tell(0, Event::Failed { unit, run, effect: Effect::Lend, errno: 16 });
        } else {
            let after_us = self.rng.between(10, 200_000);
            self.later((unit, run), after_us, What::Oom { again: 0 });
        }
    }

    /// Most work aside comes to its end, some fails, and some hangs until it is given up.
    pub(super) fn try_limit(&mut self, (unit, run): (UnitId, RunId), limit: Limit, step: LimitStep) {
        let current_bytes = limit.value.unwrap_or(0).saturating_add(1);
        let refused = Tried::Refused { errno: 22 };
        let fails = self.goes_wrong();
        let tried = match step {
            LimitStep::Keep => return,
            LimitStep::AtOnce if fails => refused,
            LimitStep::AtOnce => Tried::Taken,
            LimitStep::Reclaim | LimitStep::Set if fails && self.rng.per_mille(500) => return,
            LimitStep::Reclaim if fails => refused,
            LimitStep::Reclaim => {
                self.rng.pick(&[Tried::Fits, Tried::Fits, Tried::TooFull { current_bytes }])
            }
            LimitStep::Set => {
                let after_us = self.rng.pick(&[100, 20_000, 900_000]);
                return self.later((unit, run), after_us, What::Sets(limit));
            }
        };
        let delay_us = if step == LimitStep::AtOnce { 0 } else { self.rng.pick(&[100, 20_000, 2_000_000]) };
        self.tell(delay_us, Event::LimitTried { unit, run, limit, tried });
    }

    /// The process aside looks for itself that nothing runs by.
    pub(super) fn sets(&mut self, unit: UnitId, run: RunId, limit: Limit) {
        let frozen = self.truth(unit, run).service.frozen;
        let current_bytes = limit.value.unwrap_or(0).saturating_add(1);
        let tried = match frozen {
            true => self.rng.pick(&[Tried::Taken, Tried::Taken, Tried::TooFull { current_bytes }]),
            false => Tried::Refused { errno: 11 },
        };
        self.tell(0, Event::LimitTried { unit, run, limit, tried });
    }
}
