//! A unit that is held at its own `memory.high`: throttled to a standstill, and nothing ever ends it.
//!
//! Above `memory.high` the kernel reclaims, and where there is little to reclaim it lets each task sleep for up to two
//! seconds with every charge (mm/memcontrol.c, `mem_cgroup_handle_over_high`). `memory.max` is then never met, so there
//! is no `oom` and no kill: only the pressure tells. Page cache at `memory.high` costs 5 to 8 % of the time, and is
//! reclaimed; this costs nearly all of it.

use super::event::{MemoryEvents, MemorySample, Time};
use super::limits::{HELD_TOLD_AGAIN_MS, HELD_WINDOW_MS};
use super::policy::{MemoryPolicy, UnitId};
use super::record::Record;
use super::snapshot::Verdict;
use super::{Engine, Plan};
use serde::{Deserialize, Serialize};

/// `full avg10` from which it stands still, and below which it moves again, in hundredths of a percent. Standstills had
/// 77 to 99 %: what little runs between two sleeps counts, and a slow processor needs longer for it.
const STILL: u16 = 6_000;
const MOVES: u16 = 4_000;

/// What the readings of the present run say of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standstill {
    seen: MemoryEvents,
    /// The last readings at which `high`, and `max`, had risen.
    high_rose: Option<Time>,
    max_rose: Option<Time>,
    pub(super) held: bool,
    told: Option<Time>,
}

impl Standstill {
    /// A run begins.
    pub(super) fn begin(&mut self, counters: MemoryEvents) {
        *self = Self { seen: counters, told: self.told, ..Self::default() };
    }

    /// Whether the unit stands still. `high` must rise meanwhile, else the pressure is of another's making, and `max`
    /// must not: there the shield and the OOM killer decide.
    fn judge(&mut self, now: Time, counters: MemoryEvents, sample: MemorySample, high_bytes: u64) -> bool {
        if counters.high > self.seen.high {
            self.high_rose = Some(now);
        }
        if counters.max > self.seen.max {
            self.max_rose = Some(now);
        }
        self.seen = counters;
        let lately = |rose: Option<Time>| rose.is_some_and(|at| now <= at.plus_ms(HELD_WINDOW_MS));
        let full = sample.unreclaimable_bytes >= high_bytes - high_bytes / 16;
        let still = sample.psi_full_avg10 >= if self.held { MOVES } else { STILL };
        full && still && lately(self.high_rose) && !lately(self.max_rose)
    }
}

impl Engine {
    /// Judges a reading of a unit with a `memory.high` of its own; true where it is saved and killed for it.
    ///
    /// A shield and `memory.high` exclude each other, so its procedure decides: who has one for exhaustions wants that
    /// its data outlive one. Others are only named.
    pub(super) fn ends_standstill(&mut self, unit: UnitId, sample: MemorySample, plan: &mut Plan) -> bool {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return false };
        let Some(MemoryPolicy { high_bytes: Some(high_bytes), .. }) = service.policy.memory else {
            return false;
        };
        let saves = service.can_save() && service.saves_on_exhaustion();
        let counters = service.counters;
        let still = &mut service.standstill;
        let was_held = still.held;
        still.held = still.judge(now, counters, sample, high_bytes);
        if still.held == was_held {
            return false;
        }
        let (unreclaimable_bytes, psi_full_avg10) = (sample.unreclaimable_bytes, sample.psi_full_avg10);
        if still.held && saves {
            let verdict = Verdict::HeldAtHigh { unreclaimable_bytes, high_bytes, psi_full_avg10 };
            self.rescue(unit, verdict, plan);
            return true;
        }
        if still.held && still.told.is_none_or(|at| now >= at.plus_ms(HELD_TOLD_AGAIN_MS)) {
            still.told = Some(now);
            plan.tell(Record::HeldAtHigh { unit, unreclaimable_bytes, high_bytes, psi_full_avg10 });
        }
        self.generation += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIGH: u64 = 16 << 20;

    #[test]
    fn a_standstill_is_told_from_what_passes() {
        let mut still = Standstill::default();
        let mut at = |ms: u64, high: u64, max: u64, psi_full_avg10: u16, unreclaimable_bytes: u64| {
            let counters = MemoryEvents { high, max, ..MemoryEvents::default() };
            let sample = MemorySample { psi_full_avg10, unreclaimable_bytes, ..MemorySample::default() };
            still.held = still.judge(Time(ms * 1_000), counters, sample, HIGH);
            still.held
        };
        assert!(!at(0, 17, 0, 5_999, HIGH), "the pressure is not there yet");
        assert!(at(2_000, 34, 0, 6_000, HIGH - HIGH / 16));
        assert!(at(4_000, 34, 0, 4_000, HIGH), "it goes on where the pressure sways");
        assert!(at(12_000, 34, 0, 9_900, HIGH), "each task may sleep for a while");
        assert!(!at(12_001, 34, 0, 9_900, HIGH), "high has not risen for long");
        assert!(at(14_000, 35, 0, 9_900, HIGH));
        assert!(!at(15_000, 36, 0, 9_900, HIGH / 8), "what is there can be reclaimed");
        assert!(!at(16_000, 53, 1, 9_900, HIGH), "it comes to memory.max");
        assert!(!at(26_000, 70, 1, 9_900, HIGH));
        assert!(at(26_001, 71, 1, 9_900, HIGH));
        assert!(!at(28_000, 72, 1, 3_999, HIGH), "it moves again");
        still.begin(MemoryEvents { high: 72, max: 1, ..MemoryEvents::default() });
        assert!(!still.judge(Time(29_000_000), still.seen, MemorySample::default(), HIGH));
    }
}
