//! The rings when units come, change and go: another memory, with what is kept of each stream in it.

use super::{Feed, LAST_WORDS_BYTES, Outputs, Sink, UNTOUCHED_BYTES};
use crate::engine::event::Role;
use crate::engine::policy::UnitId;
use crate::sys::poll::Poller;
use crate::unit::Unit;

/// How much of a unit's output is kept. A refused unit never says anything.
pub(in crate::runtime) fn ring_bytes(unit: &Unit) -> usize {
    if unit.policy.refused.is_some() { 0 } else { unit.output_ring_bytes as usize }
}

impl Outputs {
    /// Rings for these units by their places; of a stream that goes on as much stays as fits.
    pub(in crate::runtime) fn resize(&mut self, rings_bytes: &[usize]) {
        while self.feeds.len() < rings_bytes.len() {
            self.feeds.push(Feed::silent());
        }
        let same = self.feeds.iter().zip(rings_bytes).all(|(feed, bytes)| feed.ring.capacity() == *bytes);
        if same {
            return;
        }
        let words_bytes = |ring: usize| if ring > 0 { LAST_WORDS_BYTES } else { 0 };
        let end: usize = rings_bytes.iter().map(|ring| ring + 3 * words_bytes(*ring)).sum();
        let mut memory = if end > 0 { vec![0; end.max(UNTOUCHED_BYTES)] } else { Vec::new() };
        let mut at = 0;
        for (feed, &ring) in self.feeds.iter_mut().zip(rings_bytes) {
            feed.ring = feed.ring.moved(&self.memory, at, ring, &mut memory);
            at += ring;
            feed.last_words = feed.last_words.moved(&self.memory, at, words_bytes(ring), &mut memory);
            at += words_bytes(ring);
            at = feed.command.move_to((&self.memory, &mut memory), at, words_bytes(ring));
        }
        self.memory = memory;
    }

    /// Another definition of the unit holds from now on. A log file that is another one gets a writer of its own; the
    /// old one ends with its pipe.
    pub(in crate::runtime) fn adopt(&mut self, unit: UnitId, old: &Unit, new: &Unit) {
        if let Some(feed) = self.feed_mut(unit) {
            feed.output = new.output;
            if old.log != new.log {
                feed.file = Sink::new(None);
            }
        }
    }

    /// A new unit in this place.
    pub(in crate::runtime) fn admit(&mut self, unit: UnitId, new: &Unit) {
        if let Some(feed) = self.feed_mut(unit) {
            let ring = feed.ring;
            *feed = Feed { output: new.output, ring, last_words: feed.last_words, ..Feed::silent() };
            feed.ring.clear();
            feed.last_words.clear();
        }
    }

    /// The unit is gone, and with it its pipes and the writer of its log.
    pub(in crate::runtime) fn dismiss(&mut self, unit: UnitId, poller: &Poller) {
        if let Some(feed) = self.feed_mut(unit) {
            feed.close(Role::Service, poller);
            feed.close(Role::Procedure, poller);
            feed.close(Role::Command, poller);
            feed.file = Sink::new(None);
        }
    }

    /// How much of this unit's output is kept now.
    pub(in crate::runtime) fn kept_bytes(&self, unit: UnitId) -> usize {
        self.feed(unit).map_or(0, |feed| feed.ring.capacity())
    }
}
