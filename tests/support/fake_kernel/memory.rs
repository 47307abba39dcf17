//! Memory: what a reading finds, and what happens at a limit.

use super::{FakeKernel, Group, Item, SIGKILL, What};
use lifeboat::engine::event::{Event, Exit, MemorySample, Role};
use lifeboat::engine::policy::{Guard, RunId, UnitId};

impl FakeKernel {
    pub(super) fn sample(&mut self, unit: UnitId, run: RunId) {
        let Some(memory) = self.policies[usize::from(unit.0)].memory else { return };
        let step = memory.max_bytes / self.rng.pick(&[4, 16, 64, 512]);
        let bytes = &mut self.unreclaimable_bytes[usize::from(unit.0)];
        *bytes = match self.rng.between(0, 3) {
            0 => bytes.saturating_sub(step),
            1 => *bytes,
            _ => (*bytes + step).min(memory.max_bytes),
        };
        // Of what is left all or little may wait for the disk.
        let dirty_bytes = memory.max_bytes.saturating_sub(*bytes) / self.rng.pick(&[1, 4, 64, 1 << 20]);
        let sample = MemorySample {
            current_bytes: memory.max_bytes,
            unreclaimable_bytes: *bytes,
            // Above a `memory.high` of its own little else is done than to wait.
            psi_full_avg10: if memory.high_bytes.is_some_and(|high| *bytes > high) { 9_700 } else { 0 },
            dirty_kib: u32::try_from(dirty_bytes >> 10).unwrap_or(u32::MAX),
            ..MemorySample::default()
        };
        let delay_us = self.rng.pick(&[0, 100, 2_000]);
        if self.truth(unit, run).service.populated() {
            self.tell_counters(unit, run);
        }
        self.tell(delay_us, Event::MemorySampled { unit, run, sample });
    }

    /// What was not heard rings as soon as it is heard again.
    pub(super) fn doorbells(&mut self, unit: UnitId, run: RunId, on: bool) {
        let rings = std::mem::replace(&mut self.hushed[usize::from(unit.0)], !on) && on;
        if rings && self.truth(unit, run).service.populated() {
            self.tell_counters(unit, run);
        }
    }

    pub(super) fn meets_high(&mut self, unit: UnitId, run: RunId) {
        self.counters[usize::from(unit.0)].0.high += 1;
        self.ring(unit, run);
    }

    /// `memory.events.local` has changed.
    pub(super) fn ring(&mut self, unit: UnitId, run: RunId) {
        if !self.hushed[usize::from(unit.0)] {
            self.tell_counters(unit, run);
        }
    }

    pub(super) fn out_of_memory(&mut self, unit: UnitId, run: RunId, again: u8) {
        let guard = self.policies[usize::from(unit.0)].memory.map(|memory| memory.guard);
        if guard == Some(Guard::Canary) && self.truth(unit, run).service.ballast {
            self.canary_dies(unit, run, true);
            return;
        }
        if guard != Some(Guard::Shield) {
            self.kernel_kills(unit, run, true);
            return;
        }
        self.counters[usize::from(unit.0)].0.oom += 1;
        self.counters[usize::from(unit.0)].0.max += 1;
        if self.hushed[usize::from(unit.0)] {
            // The alarm is heard all the same.
            self.tell(50_000, Event::PressureRang { unit, run });
        }
        self.ring(unit, run);
        if again > 0 {
            self.later((unit, run), 40_000, What::Oom { again: again - 1 });
        }
    }

    /// The counters are told before the end of the process, as the runtime promises it.
    pub(super) fn kernel_kills(&mut self, unit: UnitId, run: RunId, own_limit: bool) {
        if self.truth(unit, run).service.unkillable {
            return;
        }
        let counters = &mut self.counters[usize::from(unit.0)].0;
        counters.oom += u64::from(own_limit);
        counters.oom_kill += 1;
        let ballast = self.truth(unit, run).service.ballast;
        self.truth(unit, run).service = Group { ballast, ..Group::default() };
        self.tell_counters(unit, run);
        self.ended(unit, run, Role::Service, Exit::Signal(SIGKILL));
    }

    pub(super) fn tell_counters(&mut self, unit: UnitId, run: RunId) {
        let counters = self.counters[usize::from(unit.0)].0;
        self.schedule(0, Item::Event(Event::MemoryEvents { unit, run, role: Role::Service, counters }));
    }
}
