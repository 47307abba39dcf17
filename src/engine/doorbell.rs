//! Doorbells and readings: from "something happens with this memory" to "it is exhausted" or "it is only cache".
//!
//! A service that reads files through a small cgroup meets `memory.max` a hundred times a second and is healthy
//! (Documentation/admin-guide/cgroup-v2.rst, `max`). So a doorbell is switched off once it has rung; readings follow at
//! their own pace, and a benign one leaves it off for `HUSH_MS`. What stays on meanwhile is the alarm, a PSI trigger
//! for tasks that do little but wait for memory: page cache does not ring it, a service held at its limit does.

use super::action::Action;
use super::event::{MemorySample, Time};
use super::exhaustion::may_be_rescued;
use super::limits::{CALM_SAMPLES_MAX, HUSH_MS, PREDICTION_MS, SAMPLE_MS_MAX, SAMPLE_MS_MIN};
use super::policy::{Guard, RunId, UnitId};
use super::service::{Loan, Service, State};
use super::snapshot::Verdict;
use super::timer::TimerKind;
use super::{Engine, Plan};
use serde::{Deserialize, Serialize};

/// How the engine hears of a service's memory. A run begins with `Listening`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Hearing {
    /// The doorbells ring.
    #[default]
    Listening,
    /// One has rung: they are off, and readings go on at the pace of the growth.
    Reading,
    /// What rang was benign: they are off for a while.
    Hushed,
}

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
    fn anew(self, hearing: Hearing) -> Self {
        Self { hearing, peaks: self.peaks, ..Self::default() }
    }
}

/// What a reading means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// Nothing grows, or there is much room: sleep until the next doorbell.
    Calm,
    /// Read again after so many milliseconds.
    ReadAgain(u64),
    /// The limit is reached before a further reading would be of use.
    Exhausted(Verdict),
}

/// Judges one reading. Page cache does not count: it can be reclaimed, and a service that fills its cgroup with cache
/// is healthy.
fn judge(now: Time, sample: MemorySample, limit_bytes: u64, trend: &mut Trend) -> Judgement {
    let unreclaimable_bytes = sample.unreclaimable_bytes;
    // A reading for a reader may come right after ours: a page more in an instant is no slope.
    if trend.last.is_some_and(|(before, _)| now.since_us(before) < SAMPLE_MS_MIN * 1_000 / 2) {
        return Judgement::ReadAgain(SAMPLE_MS_MIN);
    }
    trend.peaks.take(unreclaimable_bytes, limit_bytes);
    let last = trend.last.replace((now, unreclaimable_bytes));
    let Some((before, before_bytes)) = last else {
        return if unreclaimable_bytes < limit_bytes / 2 {
            Judgement::Calm
        } else {
            Judgement::ReadAgain(SAMPLE_MS_MIN)
        };
    };
    let elapsed_us = now.since_us(before).max(1);
    let growth_bytes = unreclaimable_bytes.saturating_sub(before_bytes);
    let began = trend.left.take().map_or(before, |(_, began)| began);
    if growth_bytes == 0 {
        trend.calm = trend.calm.saturating_add(1);
        return if trend.calm >= CALM_SAMPLES_MAX {
            Judgement::Calm
        } else {
            Judgement::ReadAgain((SAMPLE_MS_MAX / 8) << trend.calm)
        };
    }
    trend.calm = 0;
    let bytes_per_s = growth_bytes.saturating_mul(1_000_000) / elapsed_us;
    let left_bytes = limit_bytes.saturating_sub(unreclaimable_bytes);
    let left_ms = left_bytes.saturating_mul(1_000) / bytes_per_s.max(1);
    let is_new = trend.peaks.is_passed_by(unreclaimable_bytes, limit_bytes);
    trend.left = is_new.then_some((left_ms, began));
    if is_new && left_ms < PREDICTION_MS && unreclaimable_bytes >= limit_bytes / 16 * 15 {
        Judgement::Exhausted(Verdict::Predicted { unreclaimable_bytes, bytes_per_s, left_ms })
    } else {
        Judgement::ReadAgain((left_ms / 4).clamp(SAMPLE_MS_MIN, SAMPLE_MS_MAX))
    }
}

impl Engine {
    pub(super) fn pressure_rang(&mut self, unit: UnitId, run: RunId, plan: &mut Plan) {
        let Some(service) = self.live(unit, run).filter(|service| may_be_rescued(service.state)) else {
            return;
        };
        match service.trend.hearing {
            Hearing::Listening => self.doorbell(unit, plan),
            // The alarm: it comes before the next reading is due.
            Hearing::Reading | Hearing::Hushed => self.read_memory(unit, plan),
        }
    }

    /// Switches the doorbells off, and begins to read where something could be done about what is read.
    pub(super) fn doorbell(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        if service.trend.hearing != Hearing::Listening {
            return;
        }
        let run = service.run;
        plan.push(Action::Doorbells { unit, run, on: false });
        let has_high = service.policy.memory.is_some_and(|memory| memory.high_bytes.is_some());
        if has_high || growth_matters(service) {
            self.lift_ring(unit, plan);
            self.read_memory(unit, plan);
        } else {
            self.hush(unit);
        }
    }

    fn read_memory(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        if service.trend.hearing != Hearing::Reading {
            service.trend = service.trend.anew(Hearing::Reading);
        }
        let run = service.run;
        self.timers.clear(unit, TimerKind::Doorbell);
        plan.push(Action::Sample { unit, run });
    }

    fn hush(&mut self, unit: UnitId) {
        if let Some(service) = self.unit_mut(unit) {
            service.trend = service.trend.anew(Hearing::Hushed);
            self.timers.set(unit, TimerKind::Doorbell, self.now.plus_ms(HUSH_MS));
        }
    }

    /// All doorbells on, nothing known of a growth: as a run begins, and as its end does.
    pub(super) fn listen(&mut self, unit: UnitId, plan: &mut Plan) {
        self.timers.clear(unit, TimerKind::Sample);
        self.timers.clear(unit, TimerKind::Doorbell);
        let Some(service) = self.unit_mut(unit) else { return };
        let (run, before) = (service.run, service.trend);
        service.trend = before.anew(Hearing::Listening);
        if before.hearing != Hearing::Listening {
            plan.push(Action::Doorbells { unit, run, on: true });
        }
    }

    pub(super) fn doorbell_due(&mut self, unit: UnitId, plan: &mut Plan) {
        if self.unit(unit).is_some_and(|service| service.trend.hearing == Hearing::Hushed) {
            self.listen(unit, plan);
            self.watch_stages(unit, plan);
        }
    }

    pub(super) fn memory_sampled(&mut self, unit: UnitId, run: RunId, sample: MemorySample, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.live(unit, run) else { return };
        service.sample = Some((now, sample));
        if let Some(incident) = &mut service.incident {
            incident.sample.get_or_insert(sample);
        }
        service.learn_ballast(sample);
        let Some(memory) = service.policy.memory else { return };
        if service.loan == Loan::Doubted && service.state == State::Saving {
            self.judge_loan(unit, sample, plan);
            return;
        }
        let hearing = service.trend.hearing;
        if !may_be_rescued(service.state) {
            return;
        }
        if self.ends_standstill(unit, sample, plan) {
            return;
        }
        let Some(service) = self.live(unit, run) else { return };
        if service.trend.hearing != Hearing::Reading {
            service.trend.peaks.take(sample.unreclaimable_bytes, memory.max_bytes);
            self.warn(unit, sample, plan);
            if hearing == Hearing::Listening {
                self.watch_stages(unit, plan);
            }
            return;
        }
        let judgement = judge(now, sample, memory.max_bytes, &mut service.trend);
        let growth_matters = growth_matters(service);
        self.warn(unit, sample, plan);
        match judgement {
            Judgement::Calm => self.hush(unit),
            // It is read for its `memory.high` alone, which its next `high` is soon enough for.
            Judgement::ReadAgain(_) | Judgement::Exhausted(_) if !growth_matters => self.hush(unit),
            Judgement::ReadAgain(ms) => self.timers.set(unit, TimerKind::Sample, now.plus_ms(ms)),
            Judgement::Exhausted(verdict) => self.rescue(unit, verdict, plan),
        }
    }

    pub(super) fn sample_due(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        // While they listen, it stands above a warn stage.
        if service.trend.hearing != Hearing::Hushed && may_be_rescued(service.state) {
            plan.push(Action::Sample { unit, run: service.run });
        }
    }
}

/// To come before the limit is of use only where something can be saved then, or somebody is to be warned.
fn growth_matters(service: &Service) -> bool {
    let warns = service.policy.warn.stages.iter().any(Option::is_some);
    warns
        || service.saves_on_exhaustion()
            && service.policy.memory.is_some_and(|memory| memory.guard != Guard::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Readings as (milliseconds, MiB that cannot be reclaimed) of a cgroup of 32 MiB, and which of them, if any, is
    /// judged to be an exhaustion; `None` in the end means that the reading went on or calmed down.
    fn check(name: &str, readings: &[(u64, u64)], exhausted_at: Option<usize>) {
        let mut trend = Trend::default();
        let found = readings.iter().position(|&(ms, mib)| {
            let sample = MemorySample { unreclaimable_bytes: mib * MIB, ..MemorySample::default() };
            let judgement = judge(Time(ms * 1_000), sample, 32 * MIB, &mut trend);
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
            judge(Time(ms * 1_000), sample, 32 * MIB, &mut trend);
            trend.time_left(Time(ms * 1_000)).is_some()
        };
        // Up, down by more than a sixteenth, and up again to the same place: the second time it is known.
        let found = [(0, 8), (100, 16), (200, 24), (300, 8), (400, 16), (500, 24), (600, 26)]
            .map(|(ms, mib)| at(ms, mib));
        assert_eq!(found, [false, true, true, false, false, false, true]);
    }

    #[test]
    fn readings_stop_when_nothing_grows() {
        let mut trend = Trend::default();
        let sample = MemorySample { unreclaimable_bytes: 31 * MIB, ..MemorySample::default() };
        let calm = (0..20u64)
            .position(|i| judge(Time(i * 100_000), sample, 32 * MIB, &mut trend) == Judgement::Calm);
        assert_eq!(calm, Some(usize::from(CALM_SAMPLES_MAX)));
    }
}
