//! What readings say of a filling cgroup: how far it is from its end, and whether its way must begin now.
//!
//! Two ends are looked at: the unit's own `memory.max`, and the machine's (`MemAvailable`), whichever comes first. What
//! must be left of the time is what the unit has needed before. In front of `memory.max` that is little: there a
//! shielded service waits, and a canary's ballast holds, until it is frozen; only a service that is to save itself must
//! get to its end with what is left, and with what it is lent. In front of the machine's end nothing waits for it.

use super::doorbell::Hearing;
use super::event::{MemorySample, Time};
use super::limits::{BUSY_MAX, CALM_SAMPLES_MAX, NEEDS_MS_MAX, PREDICTION_MS, SAMPLE_MS_MAX, SAMPLE_MS_MIN};
use super::policy::ServiceMode;
use super::service::Service;
use super::snapshot::{Bound, Verdict};
use super::warning::Ahead;
use serde::{Deserialize, Serialize};

/// What the last readings said of a filling cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trend {
    pub(super) hearing: Hearing,
    last: Option<(Time, u64)>,
    calm: u8,
    /// Time to exhaustion at the last reading, if it had grown, and since when it has grown in each.
    left: Option<(u64, Time)>,
    peaks: Peaks,
}

/// How far the unreclaimable bytes have been in this run, and have come down from again: a garbage collector's
/// saw-tooth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Peaks {
    present: u64,
    /// Growth below this is nothing new.
    known: u64,
}

impl Peaks {
    fn take(&mut self, bytes: u64, limit_bytes: u64) {
        self.present = self.present.max(bytes);
        if bytes < self.present.saturating_sub(limit_bytes / 32) {
            self.known = self.known.max(self.present);
            self.present = bytes;
        }
    }

    /// By a little at least: what swings about a level meets a new height now and then.
    fn is_passed_by(self, bytes: u64, limit_bytes: u64) -> bool {
        self.known == 0 || bytes > self.known.saturating_add(limit_bytes / 64)
    }
}

/// What the unit's ways to its procedure have taken, in this and earlier runs, drills among them. The longest counts,
/// and is forgotten by and by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Needs {
    /// From the decision to the moment at which it stood still.
    still_ms: u32,
    /// From the signal on which it saves itself, or its procedure's start, to the end of that.
    saves_ms: u32,
}

impl Needs {
    pub(super) fn stood_still(&mut self, after_us: u64) {
        learn(&mut self.still_ms, after_us);
    }

    pub(super) fn saved(&mut self, after_us: u64) {
        learn(&mut self.saves_ms, after_us);
    }
}

fn learn(longest_ms: &mut u32, took_us: u64) {
    let took_ms = u32::try_from(took_us.div_ceil(1_000)).unwrap_or(u32::MAX);
    *longest_ms = took_ms.max(*longest_ms - *longest_ms / 4);
}

/// What a reading is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) limit_bytes: u64,
    /// What the service will be lent on its way.
    lent_bytes: u64,
    /// What its way must have in front of `memory.max`, and in front of the machine's end.
    needs_ms: [u32; 2],
    /// Warn stages: as with the end, the next reading is to come before they do.
    ahead: Ahead,
}

impl Bounds {
    pub(super) fn of(service: &Service, sample: MemorySample) -> Self {
        let limit_bytes = service.policy.memory.map_or(u64::MAX, |memory| memory.max_bytes);
        let Needs { still_ms, saves_ms } = service.needs;
        let busy = sample.cpu_some_avg10;
        let (needs_ms, lent_bytes) = match service.policy.procedure {
            Some(procedure) if procedure.service == ServiceMode::Running => {
                ([stretched(saves_ms, busy); 2], procedure.lend_bytes)
            }
            Some(_) | None => ([PREDICTION_MS, stretched(still_ms, busy)], 0),
        };
        Self { limit_bytes, lent_bytes, needs_ms, ahead: service.stages_ahead() }
    }

    /// Much room is left, to the end and to the next stage.
    fn are_far(&self, left_bytes: u64, unreclaimable_bytes: u64) -> bool {
        let to_stage = |bytes: u64| bytes.saturating_sub(unreclaimable_bytes);
        let is_near = self.ahead.bytes.is_some_and(|bytes| to_stage(bytes) <= self.limit_bytes / 8);
        left_bytes > self.limit_bytes / 2 && !is_near && self.ahead.within_ms.is_none()
    }

    /// When to read again, by the times to exhaustion and to the next stages.
    fn next_ms(&self, (left_ms, is_new): (u64, bool), stage_ms: Option<u64>) -> u64 {
        // Growth to where it has been before is no way to the end.
        let within_ms = self.ahead.within_ms.filter(|_| is_new);
        let within_ms = within_ms.map(|ms| left_ms.saturating_sub(u64::from(ms)));
        let soonest = [stage_ms, within_ms].into_iter().flatten().filter(|ms| *ms > 0).min();
        soonest.map_or(left_ms / 4, |ms| (left_ms / 4).min(ms / 2)).clamp(SAMPLE_MS_MIN, SAMPLE_MS_MAX)
    }

    /// What ends first: bytes until then, what the way there must have, and which end it is.
    fn nearest(&self, sample: MemorySample) -> (u64, u32, Bound) {
        let [own_ms, machine_ms] = self.needs_ms;
        let own_bytes = self.limit_bytes.saturating_sub(sample.unreclaimable_bytes);
        match sample.available_bytes() {
            Some(bytes) if bytes < own_bytes => (bytes, machine_ms, Bound::MemAvailable),
            Some(_) | None => (own_bytes, own_ms, Bound::MemoryMax),
        }
    }
}

/// Where tasks wait for a processor, everything takes longer.
fn stretched(ms: u32, cpu_some_avg10: u16) -> u32 {
    let free = 10_000 - u32::from(cpu_some_avg10.min(BUSY_MAX));
    (ms.max(PREDICTION_MS).saturating_mul(10_000) / free).min(NEEDS_MS_MAX)
}

/// What a reading means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nothing grows, or there is much room: sleep until the next doorbell.
    Calm,
    /// Read again after so many milliseconds.
    ReadAgain(u64),
    /// The end is reached before a further reading would be of use.
    Exhausted(Verdict),
}

impl Trend {
    /// Time to exhaustion in milliseconds, and for how long it has been growing; `None` where it does not grow, or only
    /// as far as it has been before.
    pub(super) fn time_left(&self, now: Time) -> Option<(u64, u64)> {
        self.left.map(|(left_ms, since)| (left_ms, now.since_us(since) / 1_000))
    }

    /// A run begins.
    pub(super) fn begin(&mut self) {
        *self = Self { hearing: self.hearing, ..Self::default() };
    }

    /// Nothing is known of a growth; of the peaks what there was.
    pub(super) fn anew(self, hearing: Hearing) -> Self {
        Self { hearing, peaks: self.peaks, ..Self::default() }
    }

    /// A reading that is not to be judged.
    pub(super) fn note(&mut self, sample: MemorySample, limit_bytes: u64) {
        self.peaks.take(sample.unreclaimable_bytes, limit_bytes);
    }

    /// Judges one reading. Page cache does not count: it can be reclaimed, and a service that fills its cgroup with
    /// cache is healthy.
    pub(super) fn judge(&mut self, now: Time, sample: MemorySample, bounds: Bounds) -> Judgement {
        let (unreclaimable_bytes, limit_bytes) = (sample.unreclaimable_bytes, bounds.limit_bytes);
        // A reading for a reader may come right after ours: a page more in an instant is no slope.
        if self.last.is_some_and(|(before, _)| now.since_us(before) < SAMPLE_MS_MIN * 1_000 / 2) {
            return Judgement::ReadAgain(SAMPLE_MS_MIN);
        }
        self.peaks.take(unreclaimable_bytes, limit_bytes);
        let (left_bytes, needs_ms, bound) = bounds.nearest(sample);
        let last = self.last.replace((now, unreclaimable_bytes));
        let Some((before, before_bytes)) = last else {
            return if bounds.are_far(left_bytes, unreclaimable_bytes) {
                Judgement::Calm
            } else {
                Judgement::ReadAgain(SAMPLE_MS_MIN)
            };
        };
        let growth_bytes = unreclaimable_bytes.saturating_sub(before_bytes);
        let began = self.left.take().map_or(before, |(_, began)| began);
        if growth_bytes == 0 {
            return self.does_not_grow();
        }
        self.calm = 0;
        let bytes_per_s = (growth_bytes.saturating_mul(1_000_000) / now.since_us(before).max(1)).max(1);
        let ms_of = |bytes: u64| bytes.saturating_mul(1_000) / bytes_per_s;
        let left_ms = ms_of(left_bytes);
        let is_new = self.peaks.is_passed_by(unreclaimable_bytes, limit_bytes);
        self.left = is_new.then_some((left_ms, began));
        let with_loan_ms = ms_of(left_bytes.saturating_add(bounds.lent_bytes));
        let is_due = left_ms < u64::from(PREDICTION_MS) || with_loan_ms < u64::from(needs_ms);
        if is_new && is_due && left_bytes <= limit_bytes / 16 {
            Judgement::Exhausted(Verdict::Predicted {
                unreclaimable_bytes,
                bytes_per_s,
                left_ms,
                needs_ms,
                bound,
            })
        } else {
            let stage_ms = bounds.ahead.bytes.map(|at| ms_of(at.saturating_sub(unreclaimable_bytes)));
            Judgement::ReadAgain(bounds.next_ms((left_ms, is_new), stage_ms))
        }
    }

    fn does_not_grow(&mut self) -> Judgement {
        self.calm = self.calm.saturating_add(1);
        if self.calm >= CALM_SAMPLES_MAX {
            return Judgement::Calm;
        }
        Judgement::ReadAgain((SAMPLE_MS_MAX / 8) << self.calm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    const MIB: u64 = 1 << 20;
    const NO_STAGE: Ahead = Ahead { bytes: None, within_ms: None };
    const BOUNDS: Bounds =
        Bounds { limit_bytes: 32 * MIB, lent_bytes: 0, needs_ms: [PREDICTION_MS; 2], ahead: NO_STAGE };

    /// Readings as (milliseconds, MiB that cannot be reclaimed) of a cgroup of 32 MiB, and which of them, if any, is
    /// judged to be an exhaustion; `None` in the end means that the reading went on or calmed down.
    fn check(name: &str, readings: &[(u64, u64)], exhausted_at: Option<usize>) {
        let mut trend = Trend::default();
        let found = readings.iter().position(|&(ms, mib)| {
            let sample = MemorySample { unreclaimable_bytes: mib * MIB, ..MemorySample::default() };
            let judgement = trend.judge(Time(ms * 1_000), sample, BOUNDS);
            matches!(judgement, Judgement::Exhausted(_))
        });
        assert_eq!(found, exhausted_at, "{name}");
    }

    #[test]
    fn only_growth_that_meets_the_limit_is_an_exhaustion() {
        check("cache at the limit, little else", &[(0, 2), (10, 2), (20, 2)], None);
        check("full and still", &[(0, 31), (10, 31), (200, 31), (400, 31)], None);
        check("slow growth near the limit", &[(0, 30), (1_000, 31)], None);
        check("fast growth far from the limit", &[(0, 16), (10, 24)], None);
        check("fast growth at the limit", &[(0, 16), (10, 24), (20, 31)], Some(2));
        check("a saw-tooth", &[(0, 16), (10, 24), (20, 16), (30, 24), (40, 16)], None);
        check("shrinking from the limit", &[(0, 32), (10, 30), (20, 28)], None);
    }

    #[test]
    fn where_it_has_been_before_is_nothing_new() {
        let mut trend = Trend::default();
        let mut at = |ms: u64, mib: u64| {
            let sample = MemorySample { unreclaimable_bytes: mib * MIB, ..MemorySample::default() };
            trend.judge(Time(ms * 1_000), sample, BOUNDS);
            trend.time_left(Time(ms * 1_000)).is_some()
        };
        // Up, down by more than a sixteenth, and up again to the same place: the second time it is known.
        let found = [(0, 8), (100, 16), (200, 24), (300, 8), (400, 16), (500, 24), (600, 26)]
            .map(|(ms, mib)| at(ms, mib));
        assert_eq!(found, [false, true, true, false, false, false, true]);
    }

    /// The second of two readings of a cgroup of 32 MiB, 100 ms after the first, and so many KiB above it: which end is
    /// near, what was needed, and how many milliseconds are left.
    fn second(mib: u64, kib: u64, available_kib: u32, bounds: Bounds) -> Option<(Bound, u32, u64)> {
        let mut trend = Trend::default();
        let mut at = |ms: u64, unreclaimable_bytes| {
            let available_kib = NonZeroU32::new(available_kib);
            let sample = MemorySample { unreclaimable_bytes, available_kib, ..MemorySample::default() };
            trend.judge(Time(ms * 1_000), sample, bounds)
        };
        at(0, mib * MIB - (kib << 10));
        let judgement = at(100, mib * MIB);
        let Judgement::Exhausted(Verdict::Predicted { left_ms, needs_ms, bound, .. }) = judgement else {
            return None;
        };
        Some((bound, needs_ms, left_ms))
    }

    #[test]
    fn what_ends_first_is_held_against_what_is_needed() {
        use Bound::{MemAvailable, MemoryMax};
        let check = |(mib, kib), available_kib, (lent_mib, needs_ms), expected| {
            let bounds = Bounds { lent_bytes: lent_mib * MIB, needs_ms, ..BOUNDS };
            let line = format!("{mib} MiB, {kib} KiB more, {available_kib} available, {bounds:?}");
            assert_eq!(second(mib, kib, available_kib, bounds), expected, "{line}");
        };
        // 1 MiB is left for 1,024 ms.
        check((31, 100), 0, (0, [20, 20]), None);
        check((31, 100), 0, (0, [1_100, 20]), Some((MemoryMax, 1_100, 1_024)));
        check((31, 100), 0, (4, [1_100, 20]), None);
        check((31, 100), 0, (4, [5_300, 20]), Some((MemoryMax, 5_300, 1_024)));
        // However much is lent, it does not come too late to lend it.
        check((31, 10_240), 0, (16, [100, 20]), Some((MemoryMax, 100, 10)));
        // The machine has more than the unit, as much, or less.
        check((31, 100), 4_096, (0, [20, 1_100]), None);
        check((31, 100), 1_024, (0, [20, 1_100]), None);
        check((8, 100), 512, (0, [1_100, 20]), None);
        check((8, 100), 512, (0, [20, 600]), Some((MemAvailable, 600, 512)));
        check((8, 100), 4_096, (0, [20, 60_000]), None);
    }

    #[test]
    fn needs_are_learned_and_forgotten() {
        let mut needs = Needs::default();
        needs.stood_still(100_001);
        assert_eq!(needs.still_ms, 101);
        needs.stood_still(10_000);
        assert_eq!(needs.still_ms, 76);
        needs.stood_still(80_000);
        assert_eq!(needs.still_ms, 80);
        needs.saved(u64::MAX);
        needs.saved(u64::MAX);
        assert_eq!(needs.saves_ms, u32::MAX);
    }

    #[test]
    fn what_is_needed_is_stretched_by_load() {
        let check = |ms, busy, expected| assert_eq!(stretched(ms, busy), expected, "{ms} ms, {busy}");
        check(0, 0, PREDICTION_MS);
        check(100, 0, 100);
        check(100, 5_000, 200);
        check(100, 10_000, 400);
        check(u32::MAX, 0, NEEDS_MS_MAX);
    }

    #[test]
    fn readings_stop_when_nothing_grows() {
        let mut trend = Trend::default();
        let sample = MemorySample { unreclaimable_bytes: 31 * MIB, ..MemorySample::default() };
        let calm = (0..20u64).position(|i| trend.judge(Time(i * 100_000), sample, BOUNDS) == Judgement::Calm);
        assert_eq!(calm, Some(usize::from(CALM_SAMPLES_MAX)));
    }
}
