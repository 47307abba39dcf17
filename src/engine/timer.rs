//! The timer table: one slot for each timer of each unit, ordered by a binary heap that knows its positions.
//!
//! Of two that are due at the same time the one of the earlier slot comes first, however the heap has grown: so a
//! unit's timers come in the same order when its events are replayed (`replay`).
//!
//! Setting, clearing and taking the next are O(log n); nothing is allocated but in `new` and `grow`, and a timer that
//! is set again replaces itself, so the table cannot grow by itself.

use super::event::Time;
use super::policy::UnitId;

/// Which timer of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerKind {
    /// The deadline of the step in which the unit is. There is just one, since a unit is in one step.
    Step,
    /// The next reading of its memory.
    Sample,
    /// The next look whether it is ready.
    Ready,
    /// The time by which it has to show that it is alive.
    Watchdog,
    /// The next health check, or the end of the present one.
    Health,
    /// The time at which its doorbells are switched on again.
    Doorbell,
    /// The next try to kill what is left of a command.
    Command,
    /// The time by which a reload has to be over.
    Reload,
    /// The next look whether it is needed.
    Idle,
    /// The time by which its warn command has to be over.
    Warn,
    /// The time by which its procedure has to be parked again.
    Drill,
    /// The next drill that nobody asks for.
    NextDrill,
    /// The time at which its ballast is made anew, or by which it has to be known what the kernel killed.
    Ballast,
}

/// In the order of their slots.
const KINDS: [TimerKind; 13] = [
    TimerKind::Step,
    TimerKind::Sample,
    TimerKind::Ready,
    TimerKind::Watchdog,
    TimerKind::Health,
    TimerKind::Doorbell,
    TimerKind::Command,
    TimerKind::Reload,
    TimerKind::Idle,
    TimerKind::Warn,
    TimerKind::Drill,
    TimerKind::NextDrill,
    TimerKind::Ballast,
];
const KIND_COUNT: u32 = 13;

/// When each timer of a unit is due, in the order of `KINDS`.
pub(super) type TimersOfUnit = [Option<Time>; KINDS.len()];
const ABSENT: u32 = u32::MAX;

/// # Invariants
/// - `heap[position[slot]] == slot` for every slot that is set; `position[slot] == ABSENT` for every other.
/// - No entry of the heap comes before its parent.
#[derive(Debug)]
pub(super) struct Timers {
    due: Vec<Time>,
    position: Vec<u32>,
    heap: Vec<u32>,
}

impl Timers {
    pub(super) fn new(units: usize) -> Self {
        let slots = units * KINDS.len();
        Self { due: vec![Time(0); slots], position: vec![ABSENT; slots], heap: Vec::with_capacity(slots) }
    }

    /// Room for so many units; what is set stays set.
    pub(super) fn grow(&mut self, units: usize) {
        let slots = (units * KINDS.len()).max(self.due.len());
        self.due.resize(slots, Time(0));
        self.position.resize(slots, ABSENT);
        self.heap.reserve(slots.saturating_sub(self.heap.len()));
    }

    fn slot(unit: UnitId, kind: TimerKind) -> u32 {
        let kind = match kind {
            TimerKind::Step => 0,
            TimerKind::Sample => 1,
            TimerKind::Ready => 2,
            TimerKind::Watchdog => 3,
            TimerKind::Health => 4,
            TimerKind::Doorbell => 5,
            TimerKind::Command => 6,
            TimerKind::Reload => 7,
            TimerKind::Idle => 8,
            TimerKind::Warn => 9,
            TimerKind::Drill => 10,
            TimerKind::NextDrill => 11,
            TimerKind::Ballast => 12,
        };
        u32::from(unit.0) * KIND_COUNT + kind
    }

    pub(super) fn set(&mut self, unit: UnitId, kind: TimerKind, due: Time) {
        self.clear(unit, kind);
        let slot = Self::slot(unit, kind);
        if let Some(entry) = self.due.get_mut(slot as usize) {
            *entry = due;
            self.heap.push(slot);
            self.rise(self.heap.len() - 1);
        }
    }

    pub(super) fn clear(&mut self, unit: UnitId, kind: TimerKind) {
        let slot = Self::slot(unit, kind);
        let at = self.position.get(slot as usize).copied().unwrap_or(ABSENT);
        if at == ABSENT {
            return;
        }
        let at = at as usize;
        self.heap.swap_remove(at);
        if let Some(position) = self.position.get_mut(slot as usize) {
            *position = ABSENT;
        }
        if at < self.heap.len() {
            self.place(at);
            self.rise(at);
            self.sink(at);
        }
    }

    pub(super) fn is_due(&self, unit: UnitId, kind: TimerKind, now: Time) -> bool {
        let slot = Self::slot(unit, kind) as usize;
        self.position.get(slot).is_some_and(|at| *at != ABSENT)
            && self.due.get(slot).is_some_and(|due| *due <= now)
    }

    /// All of a unit.
    pub(super) fn of(&self, unit: UnitId) -> TimersOfUnit {
        KINDS.map(|kind| {
            let slot = Self::slot(unit, kind) as usize;
            let is_set = self.position.get(slot).is_some_and(|at| *at != ABSENT);
            self.due.get(slot).copied().filter(|_| is_set)
        })
    }

    /// The other way round.
    pub(super) fn set_all(&mut self, unit: UnitId, timers: &TimersOfUnit) {
        for (kind, due) in KINDS.into_iter().zip(timers) {
            match due {
                Some(due) => self.set(unit, kind, *due),
                None => self.clear(unit, kind),
            }
        }
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.heap.first().map(|&slot| self.due_of(slot))
    }

    /// Takes one timer that is due. Call until it gives `None`.
    pub(super) fn take_due(&mut self, now: Time) -> Option<(UnitId, TimerKind)> {
        let slot = *self.heap.first()?;
        if self.due_of(slot) > now {
            return None;
        }
        let kind = *KINDS.get((slot % KIND_COUNT) as usize)?;
        let unit = UnitId(u16::try_from(slot / KIND_COUNT).ok()?);
        self.clear(unit, kind);
        Some((unit, kind))
    }

    fn due_of(&self, slot: u32) -> Time {
        self.due.get(slot as usize).copied().unwrap_or(Time(u64::MAX))
    }

    fn rank_at(&self, at: usize) -> (Time, u32) {
        self.heap.get(at).map_or((Time(u64::MAX), ABSENT), |&slot| (self.due_of(slot), slot))
    }

    fn place(&mut self, at: usize) {
        if let Some(&slot) = self.heap.get(at)
            && let Some(position) = self.position.get_mut(slot as usize)
        {
            *position = u32::try_from(at).unwrap_or(ABSENT);
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.place(a);
        self.place(b);
    }

    fn rise(&mut self, mut at: usize) {
        self.place(at);
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.rank_at(parent) <= self.rank_at(at) {
                return;
            }
            self.swap(at, parent);
            at = parent;
        }
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let left = 2 * at + 1;
            let child = if self.rank_at(left + 1) < self.rank_at(left) { left + 1 } else { left };
            if child >= self.heap.len() || self.rank_at(at) <= self.rank_at(child) {
                return;
            }
            self.swap(at, child);
            at = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// The table behaves as a sorted map of (unit, kind) to time.
        #[test]
        fn agrees_with_a_sorted_map(
            steps in proptest::collection::vec((0u16..40, 0usize..KINDS.len(), 0u64..500, 0u8..4), 0..400),
        ) {
            let mut timers = Timers::new(40);
            let mut model: BTreeMap<(u16, usize), u64> = BTreeMap::new();
            for (unit, slot, due, what) in steps {
                let kind = KINDS.get(slot).copied().unwrap_or(TimerKind::Step);
                match what {
                    0 | 1 => { timers.set(UnitId(unit), kind, Time(due)); model.insert((unit, slot), due); }
                    2 => { timers.clear(UnitId(unit), kind); model.remove(&(unit, slot)); }
                    _ => {
                        while let Some((unit, kind)) = timers.take_due(Time(due)) {
                            let slot = KINDS.iter().position(|known| *known == kind).unwrap_or(0);
                            let was = model.remove(&(unit.0, slot));
                            prop_assert!(was.is_some_and(|was| was <= due));
                        }
                        prop_assert!(model.values().all(|&left| left > due));
                    }
                }
                prop_assert_eq!(timers.next(), model.values().min().map(|&due| Time(due)));
            }
        }
    }
}
