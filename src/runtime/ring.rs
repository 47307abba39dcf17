//! A ring of bytes: the last of what was written, pure.

/// The last bytes of a stream, in a part of memory that somebody else holds. The oldest are overwritten.
///
/// Positions count the bytes of the stream since its beginning; they never go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    start: usize,
    capacity: usize,
    written: u64,
    /// Nothing before this position was ever in this memory.
    begins: u64,
}

impl Ring {
    /// An empty ring in `memory[start..start + capacity]`.
    pub(super) const fn new(start: usize, capacity: usize) -> Self {
        Self { start, capacity, written: 0, begins: 0 }
    }

    /// The same stream, as far as it fits, in another part of another memory, which nobody has used yet.
    pub(super) fn moved(&self, from: &[u8], start: usize, capacity: usize, to: &mut [u8]) -> Self {
        let bytes = self.since(from, self.written.saturating_sub(capacity as u64)).concat();
        let begins = self.written - bytes.len() as u64;
        let mut ring = Self { start, capacity, written: begins, begins };
        ring.push(to, &bytes);
        ring
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The position behind the last byte.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The position of the oldest byte that is still there.
    pub(super) fn oldest(&self) -> u64 {
        self.written.saturating_sub(self.capacity as u64).max(self.begins)
    }

    /// Forgets everything; positions begin anew.
    pub(super) fn clear(&mut self) {
        (self.written, self.begins) = (0, 0);
    }

    /// Where the byte of a position lies in the ring's own memory.
    fn index(&self, position: u64) -> usize {
        let index = position.checked_rem(self.capacity as u64).unwrap_or(0);
        usize::try_from(index).unwrap_or(0)
    }

    pub(super) fn push(&mut self, memory: &mut [u8], bytes: &[u8]) {
        let skipped = bytes.len().saturating_sub(self.capacity);
        let kept = bytes.get(skipped..).unwrap_or_default();
        let at = self.index(self.written + skipped as u64);
        self.written += bytes.len() as u64;
        let Some(place) = memory.get_mut(self.start..self.start + self.capacity) else { return };
        let (before, after) = place.split_at_mut(at);
        for (to, from) in after.iter_mut().chain(before).zip(kept) {
            *to = *from;
        }
    }

    /// What was written from this position on, as far as it is still there: two parts, since the end of the memory may
    /// lie between them.
    pub(super) fn since<'m>(&self, memory: &'m [u8], position: u64) -> [&'m [u8]; 2] {
        let position = position.clamp(self.oldest(), self.written);
        let length = usize::try_from(self.written - position).unwrap_or(0);
        let place = memory.get(self.start..self.start + self.capacity).unwrap_or_default();
        let at = self.index(position);
        let first = place.get(at..place.len().min(at + length)).unwrap_or_default();
        let second = place.get(..length - first.len()).unwrap_or_default();
        [first, second]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is written in whatever pieces, the ring holds the end of it, and touches no other memory.
        #[test]
        fn it_holds_the_end_of_what_was_written(
            capacity in 0..40_usize,
            start in 0..5_usize,
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..12),
            from in 0..300_u64,
            other_capacity in 0..40_usize,
        ) {
            let mut memory = vec![0x55; start + capacity + 3];
            let mut ring = Ring::new(start, capacity);
            let mut all = Vec::new();
            for piece in &pieces {
                ring.push(&mut memory, piece);
                all.extend_from_slice(piece);
                prop_assert_eq!(ring.written(), all.len() as u64);
                let kept = &all[all.len().saturating_sub(capacity)..];
                prop_assert_eq!(ring.since(&memory, 0).concat(), kept);
                let later = &all[all.len().min(usize::try_from(from.max(ring.oldest())).unwrap())..];
                prop_assert_eq!(ring.since(&memory, from).concat(), later);
                let mut other = vec![0; 2 + other_capacity];
                let moved = ring.moved(&memory, 2, other_capacity, &mut other);
                let kept = &kept[kept.len().saturating_sub(other_capacity)..];
                prop_assert_eq!((moved.written(), moved.since(&other, 0).concat()), (ring.written(), kept.to_vec()));
            }
            prop_assert!(memory[..start].iter().chain(&memory[start + capacity..]).all(|byte| *byte == 0x55));
        }
    }
}
