//! Doorbells and readings: from "something happens with this memory" to "it is exhausted" or "it is only cache".
//!
//! A service that reads files through a small cgroup meets `memory.max` a hundred times a second and is healthy
//! (Documentation/admin-guide/cgroup-v2.rst, `max`). So a doorbell is switched off once it has rung; readings follow at
//! their own pace, and a benign one leaves it off for `HUSH_MS`. What stays on meanwhile is the alarm, a PSI trigger
//! for tasks that do little but wait for memory: page cache does not ring it, a service held at its limit does.

use super::action::Action;
use super::event::{MemorySample, Time};
use super::exhaustion::may_be_rescued;
use super::limits::{DIRTY_AFTER_MS, DIRTY_READ_MS, HUSH_MS, SAMPLE_MS_MIN};
use super::policy::{Guard, RunId, UnitId};
use super::prediction::{Bounds, Judgement};
use super::service::{Loan, Service, State};
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

    /// Switches the doorbells off, and begins to read.
    pub(super) fn doorbell(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        if service.trend.hearing != Hearing::Listening {
            return;
        }
        let run = service.run;
        plan.push(Action::Doorbells { unit, run, on: false });
        self.lift_ring(unit, plan);
        self.read_memory(unit, plan);
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
        self.timers.clear(unit, TimerKind::Sample);
        if let Some(service) = self.unit_mut(unit) {
            service.trend = service.trend.anew(Hearing::Hushed);
            self.timers.set(unit, TimerKind::Doorbell, self.now.plus_ms(HUSH_MS));
            self.read_while_it_writes(unit);
        }
    }

    /// What writes faster than its disk is read all the time, whatever rings: each reading helps the kernel to hold it
    /// back (`DIRTY_READ_MS`).
    fn read_while_it_writes(&mut self, unit: UnitId) {
        let now = self.now;
        if self.unit(unit).is_some_and(|service| service.waits_for_its_disk(now)) {
            self.timers.set(unit, TimerKind::Sample, self.now.plus_ms(DIRTY_READ_MS));
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
            self.read_for_stages(unit, plan);
            self.read_while_it_writes(unit);
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
        if sample.waits_for_its_disk(memory.max_bytes) {
            service.waited_for_its_disk = Some(now);
        }
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
            service.trend.note(sample, memory.max_bytes);
            self.warn(unit, sample, plan);
            if hearing == Hearing::Listening {
                self.watch_stages(unit, plan);
            }
            self.read_while_it_writes(unit);
            return;
        }
        let bounds = Bounds::of(service, sample);
        let judgement = service.trend.judge(now, sample, bounds);
        let (saves, warns) = (saves_before_the_limit(service), service.warnings_are_wished());
        let ms_max = if service.waits_for_its_disk(now) { DIRTY_READ_MS } else { u64::MAX };
        self.warn(unit, sample, plan);
        match judgement {
            Judgement::Calm => self.hush(unit),
            // It is read to see whether it stands still, for which its next doorbell is soon enough.
            Judgement::ReadAgain(_) | Judgement::Exhausted(_) if !saves && !warns => self.hush(unit),
            Judgement::ReadAgain(ms) => {
                self.timers.set(unit, TimerKind::Sample, now.plus_ms(ms.min(ms_max)));
            }
            Judgement::Exhausted(verdict) if saves => self.rescue(unit, verdict, plan),
            // Only to be warned: the kernel decides.
            Judgement::Exhausted(_) => {
                self.timers.set(unit, TimerKind::Sample, now.plus_ms(SAMPLE_MS_MIN));
            }
        }
    }

    pub(super) fn sample_due(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        // While they listen, it stands above a warn stage, or writes faster than its disk.
        if may_be_rescued(service.state) {
            plan.push(Action::Sample { unit, run: service.run });
        }
    }
}

impl Service {
    fn warnings_are_wished(&self) -> bool {
        self.policy.warn.stages.iter().any(Option::is_some)
    }

    fn waits_for_its_disk(&self, now: Time) -> bool {
        self.waited_for_its_disk.is_some_and(|at| now.since_us(at) < DIRTY_AFTER_MS * 1_000)
    }
}

/// To come before the limit is of use only where something can be saved then; without a guard the kernel kills at it.
fn saves_before_the_limit(service: &Service) -> bool {
    service.saves_on_exhaustion() && service.policy.memory.is_some_and(|memory| memory.guard != Guard::None)
}
