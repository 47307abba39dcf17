//! The flight recorder: a ring of the last events with their times, never formatted, never allocating after `new`.

use super::event::{Event, Time};
use super::limits::RECORDED_EVENTS_MAX;

/// The last events, oldest overwritten first.
#[derive(Debug)]
pub struct Recorder {
    ring: Vec<(Time, Event)>,
    next: usize,
    total: u64,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { ring: Vec::with_capacity(RECORDED_EVENTS_MAX), next: 0, total: 0 }
    }

    pub(super) fn record(&mut self, time: Time, event: Event) {
        self.total += 1;
        if self.ring.len() < RECORDED_EVENTS_MAX {
            self.ring.push((time, event));
        } else if let Some(slot) = self.ring.get_mut(self.next) {
            *slot = (time, event);
        }
        self.next = (self.next + 1) % RECORDED_EVENTS_MAX;
    }

    /// How many events there have been since boot.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The kept events, oldest first.
    pub fn events(&self) -> impl Iterator<Item = &(Time, Event)> + Clone {
        let split = if self.ring.len() < RECORDED_EVENTS_MAX { 0 } else { self.next };
        let (newer, older) = self.ring.split_at(split);
        older.iter().chain(newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_in_order() {
        for count in [0, 1, RECORDED_EVENTS_MAX, RECORDED_EVENTS_MAX + 1, 3 * RECORDED_EVENTS_MAX - 7] {
            let mut recorder = Recorder::new();
            for i in 0..count {
                recorder.record(Time(i as u64), Event::Deadline);
            }
            let kept: Vec<u64> = recorder.events().map(|(time, _)| time.0).collect();
            let expected: Vec<u64> =
                (count.saturating_sub(RECORDED_EVENTS_MAX)..count).map(|i| i as u64).collect();
            assert_eq!(kept, expected, "{count} events");
            assert_eq!(recorder.total(), count as u64);
        }
    }
}
