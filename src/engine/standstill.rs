//! A unit that stands still though the kernel finds memory for it, and which nothing ever ends.
//!
//! At a `memory.high` of its own: above it the kernel reclaims, and where there is little to reclaim it lets each task
//! sleep for up to two seconds with every charge (mm/memcontrol.c, `mem_cgroup_handle_over_high`). `memory.max` is then
//! never met, so there is no `oom` and no kill.
//!
//! There only the pressure tells: page cache at the limit costs 5 to 8 % of the time, this costs nearly all of it.
//!
//! Or because it thrashes: at its bound most is unreclaimable, and the rest is too small for the pages of files that
//! it works with, its own code among them. Each reclaim finds some, so there is no `oom` either, and they are read
//! again at once (mm/workingset.c, `workingset_refault`). The pressure need not tell of it: the kernel counts the wait
//! for a page only where it took that page for a worked-with one before, which the multi-generational LRU hardly does
//! (6.12, 250 pages a second read again, and 73 % of the time spent in waiting for them: `full avg10` of memory is 0).
//! So it is named by its refaults, and saved only where the pressure says too that nothing runs any more.

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

/// It thrashes when all that can be reclaimed is read again in so many seconds. Larger pages than these are read the
/// sooner.
const TURNOVER_S: u64 = 10;
const PAGE_BYTES: u64 = 4_096;

/// The pace of refaults is taken over so long at least.
const REFAULT_WINDOW_US: u64 = 500_000;

/// What the readings of the present run say of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standstill {
    seen: MemoryEvents,
    /// The last readings at which `high`, and `max`, had risen.
    high_rose: Option<Time>,
    max_rose: Option<Time>,
    /// The last reading of refaults, and their pace then.
    refaults: Option<(Time, u32)>,
    refaults_per_s: u32,
    /// How it stands still.
    pub(super) stall: Option<Verdict>,
    told: Option<Time>,
}

impl Standstill {
    /// A run begins.
    pub(super) fn begin(&mut self, counters: MemoryEvents) {
        *self = Self { seen: counters, told: self.told, ..Self::default() };
    }

    /// Whether the unit stands still, and how. Its bound must be met meanwhile, else it is of another's making; where
    /// it is held at `memory.high`, `memory.max` must not be met: there the shield and the OOM killer decide.
    fn judge(
        &mut self,
        now: Time,
        counters: MemoryEvents,
        sample: MemorySample,
        memory: MemoryPolicy,
    ) -> Option<Verdict> {
        if counters.high > self.seen.high {
            self.high_rose = Some(now);
        }
        if counters.max > self.seen.max {
            self.max_rose = Some(now);
        }
        self.seen = counters;
        self.count_refaults(now, sample.refaults);
        let refaults_per_s = self.refaults_per_s;
        let lately = |rose: Option<Time>| rose.is_some_and(|at| now <= at.plus_ms(HELD_WINDOW_MS));
        let (high_rose, max_rose) = (lately(self.high_rose), lately(self.max_rose));
        let MemorySample { unreclaimable_bytes, psi_full_avg10, .. } = sample;
        let still = psi_full_avg10 >= if self.stall.is_some() { MOVES } else { STILL };
        let bound_bytes = memory.high_bytes.unwrap_or(memory.max_bytes);
        let fills = |part: u64| unreclaimable_bytes >= bound_bytes - bound_bytes / part;
        let rest_bytes = bound_bytes.saturating_sub(unreclaimable_bytes);
        let again_bytes = u64::from(refaults_per_s) * PAGE_BYTES * TURNOVER_S;
        match memory.high_bytes {
            Some(high_bytes) if still && fills(16) && high_rose && !max_rose => {
                Some(Verdict::HeldAtHigh { unreclaimable_bytes, high_bytes, psi_full_avg10 })
            }
            Some(_) | None if fills(4) && (high_rose || max_rose) && again_bytes >= rest_bytes.max(1) => {
                Some(Verdict::Thrashing { unreclaimable_bytes, refaults_per_s })
            }
            Some(_) | None => None,
        }
    }

    /// What is read soon after another reading, for a reader, adds nothing to the pace.
    fn count_refaults(&mut self, now: Time, refaults: u32) {
        let Some((before, known)) = self.refaults else {
            self.refaults = Some((now, refaults));
            return;
        };
        let elapsed_us = now.since_us(before);
        if elapsed_us >= REFAULT_WINDOW_US {
            self.refaults = Some((now, refaults));
            let per_s = u64::from(refaults.wrapping_sub(known)) * 1_000_000 / elapsed_us;
            self.refaults_per_s = u32::try_from(per_s).unwrap_or(u32::MAX);
        }
    }
}

impl Engine {
    /// Judges a reading; true where the unit is saved and killed for it.
    ///
    /// Its procedure decides: who has one for exhaustions wants that its data outlive one. Others are only named.
    pub(super) fn ends_standstill(&mut self, unit: UnitId, sample: MemorySample, plan: &mut Plan) -> bool {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return false };
        let Some(memory) = service.policy.memory else { return false };
        let saves = service.can_save() && service.saves_on_exhaustion();
        let counters = service.counters;
        let still = &mut service.standstill;
        let stood_still = still.stall.is_some();
        still.stall = still.judge(now, counters, sample, memory);
        if let Some(verdict) = still.stall.filter(|_| saves && sample.psi_full_avg10 >= STILL) {
            self.rescue(unit, verdict, plan);
            return true;
        }
        if still.stall.is_some() == stood_still {
            return false;
        }
        let is_news = still.told.is_none_or(|at| now >= at.plus_ms(HELD_TOLD_AGAIN_MS));
        if let Some(verdict) = still.stall.filter(|_| is_news) {
            still.told = Some(now);
            plan.tell(Record::StandsStill { unit, verdict });
        }
        self.generation += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::policy::{Class, Guard};

    const HIGH: u64 = 16 << 20;
    const MEMORY: MemoryPolicy = MemoryPolicy {
        max_bytes: 4 * HIGH,
        class: Class::Pool,
        guard: Guard::None,
        high_bytes: Some(HIGH),
        ballast_bytes: None,
    };

    #[test]
    fn a_standstill_is_told_from_what_passes() {
        let mut still = Standstill::default();
        let mut at = |ms: u64, high: u64, max: u64, psi_full_avg10: u16, unreclaimable_bytes: u64| {
            let counters = MemoryEvents { high, max, ..MemoryEvents::default() };
            let sample = MemorySample { psi_full_avg10, unreclaimable_bytes, ..MemorySample::default() };
            still.stall = still.judge(Time(ms * 1_000), counters, sample, MEMORY);
            still.stall.is_some()
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
        assert!(still.judge(Time(29_000_000), still.seen, MemorySample::default(), MEMORY).is_none());
    }

    #[test]
    fn thrashing_is_told_from_what_reads_much() {
        let bound = 4 * HIGH;
        let mut still = Standstill::default();
        let mut at = |ms: u64, max: u64, refaults: u32, psi_full_avg10: u16, unreclaimable_bytes: u64| {
            let counters = MemoryEvents { max, ..MemoryEvents::default() };
            let sample =
                MemorySample { refaults, psi_full_avg10, unreclaimable_bytes, ..MemorySample::default() };
            let memory = MemoryPolicy { high_bytes: None, ..MEMORY };
            still.stall = still.judge(Time(ms * 1_000), counters, sample, memory);
            let Some(Verdict::Thrashing { refaults_per_s, .. }) = still.stall else {
                assert_eq!(still.stall, None);
                return None;
            };
            Some(refaults_per_s)
        };
        // A quarter of the bound is 4,096 pages.
        assert_eq!(at(0, 1, u32::MAX - 99, 0, bound / 4 * 3), None, "nothing is known of its refaults");
        assert_eq!(at(1_000, 2, 309, 0, bound / 4 * 3), None, "a tenth of them is 410 a second");
        assert_eq!(at(2_000, 3, 719, 0, bound / 4 * 3), Some(410));
        assert_eq!(at(2_100, 3, 720, 0, bound / 4 * 3), Some(410), "a reader's reading");
        assert_eq!(at(4_000, 4, 719, 9_000, bound), None, "nothing is read again");
        assert_eq!(at(5_000, 5, 1_719, 9_000, bound / 2), None, "there is much cache");
        assert_eq!(at(6_000, 6, 2_719, 0, bound), Some(1_000));
        assert_eq!(at(16_001, 6, 99_000, 9_000, bound), None, "its limit has not been met for long");
        assert_eq!(at(17_001, 7, 99_001, 9_000, bound), Some(1));
    }
}
