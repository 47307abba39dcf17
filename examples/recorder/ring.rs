//! The ring: the recorder's last records in shared memory, versioned, without locks.
//!
//! One writer, any number of readers in other processes. Every word is an `AtomicU64`.
//!
//! ```text
//! header   magic  layout  life  committed  0 ...                                        16 words
//! slot 0   version  sequence  time  payload (12)  checksum                              16 words
//! ...      1,024 slots; record N is in slot N % 1024
//! ```
//!
//! A slot's version is odd while it is being written and counts up by two for each record, so that a reader knows
//! a torn record and an overwritten one. A record is *committed* when its number is below the header's count, which is
//! raised after the record is whole.
//!
//! Invariant: the last `KEPT` committed records are intact at every moment. The slot being written is that of record
//! `committed - 1024`, and 1,024 is more than `KEPT`.

use super::mapping::map_words;
use nix::time::{ClockId, clock_gettime};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// How many of the last committed records are promised to be intact.
pub(crate) const KEPT: u64 = 1_000;
/// Slots of the ring.
const SLOTS: u64 = 1_024;
const PAYLOAD_WORDS: usize = 12;
/// Words of a record outside the ring: sequence, time, payload, checksum.
pub(crate) const RECORD_WORDS: usize = PAYLOAD_WORDS + 3;
const SLOT_WORDS: usize = RECORD_WORDS + 1;
const HEADER_WORDS: usize = SLOT_WORDS;
const RING_WORDS: usize = HEADER_WORDS + 1_024 * SLOT_WORDS;
/// "LBRING" and a number for the layout.
const MAGIC: u64 = 0x4c42_5249_4e47_0001;

/// Microseconds of `CLOCK_BOOTTIME` (clock_gettime(2)), the clock of lifeboat's incidents.
pub(crate) fn boottime_us() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| {
        let (seconds, nanoseconds) = (t.tv_sec().unsigned_abs(), t.tv_nsec().unsigned_abs());
        seconds * 1_000_000 + nanoseconds / 1_000
    })
}

/// One record: what a sensor said at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Counts from 0 in each life of the recorder.
    pub(crate) sequence: u64,
    /// When it was made, `CLOCK_BOOTTIME` in microseconds.
    pub(crate) time_us: u64,
    /// The samples. A pure function of life and sequence, so that a checker can make them again.
    pub(crate) payload: [u64; PAYLOAD_WORDS],
    /// FNV-1a over life and everything above.
    pub(crate) checksum: u64,
}

impl Record {
    /// Makes the record with this number.
    pub(crate) fn make(life: u64, sequence: u64, time_us: u64) -> Self {
        let payload = samples(life, sequence);
        Self { sequence, time_us, payload, checksum: checksum(life, sequence, time_us, &payload) }
    }

    /// Whether checksum and payload are those of record `sequence` of this life.
    pub(crate) fn is_sound(&self, life: u64, sequence: u64) -> bool {
        self.sequence == sequence
            && self.payload == samples(life, sequence)
            && self.checksum == checksum(life, sequence, self.time_us, &self.payload)
    }

    /// The record as plain words.
    pub(crate) fn to_words(self) -> [u64; RECORD_WORDS] {
        let mut words = [0; RECORD_WORDS];
        let values = [self.sequence, self.time_us].into_iter().chain(self.payload).chain([self.checksum]);
        for (word, value) in words.iter_mut().zip(values) {
            *word = value;
        }
        words
    }

    /// The record of these words; any words make a record, sound or not.
    pub(crate) fn from_words(words: [u64; RECORD_WORDS]) -> Self {
        let [sequence, time_us, payload @ .., checksum] = words;
        Self { sequence, time_us, payload, checksum }
    }
}

/// splitmix64 over life, sequence and place.
fn samples(life: u64, sequence: u64) -> [u64; PAYLOAD_WORDS] {
    let mut state = life ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [(); PAYLOAD_WORDS].map(|()| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

fn checksum(life: u64, sequence: u64, time_us: u64, payload: &[u64; PAYLOAD_WORDS]) -> u64 {
    let words = [life, sequence, time_us].into_iter().chain(*payload);
    words.flat_map(u64::to_le_bytes).fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The ring, mapped.
pub(crate) struct Ring {
    words: &'static [AtomicU64],
    life: u64,
}

impl Ring {
    /// Makes a new, empty ring at this path. A ring that is there already is evidence of the life before: it is kept
    /// beside it under the name that [`previous`] gives, instead of the one kept there earlier.
    ///
    /// # Errors
    /// The folder or the file cannot be made or mapped.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        match fs::rename(path, previous(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.set_len(RING_WORDS as u64 * 8)?;
        let ring = Self { words: map_words(&file, RING_WORDS, true)?, life: boottime_us() };
        ring.word(2).store(ring.life, Ordering::Relaxed);
        // The magic comes last: a reader that sees it sees the rest of the header.
        ring.word(0).store(MAGIC, Ordering::Release);
        Ok(ring)
    }

    /// Maps an existing ring for reading.
    ///
    /// # Errors
    /// The file cannot be opened or mapped, or is not a ring (`InvalidData`).
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut ring = Self { words: map_words(&File::open(path)?, RING_WORDS, false)?, life: 0 };
        if ring.word(0).load(Ordering::Acquire) != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a ring of the recorder"));
        }
        ring.life = ring.word(2).load(Ordering::Relaxed);
        Ok(ring)
    }

    /// When this life of the recorder began, `CLOCK_BOOTTIME` in microseconds; also its number in every checksum.
    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    /// How many records were committed in this life.
    pub(crate) fn committed(&self) -> u64 {
        self.word(3).load(Ordering::Acquire)
    }

    /// The numbers of the last committed records, at most [`KEPT`].
    pub(crate) fn kept(&self) -> std::ops::Range<u64> {
        let committed = self.committed();
        committed.saturating_sub(KEPT)..committed
    }

    /// Makes and commits the next record. There is one writer: only the ring's creator calls this, from one thread.
    pub(crate) fn commit_next(&self) {
        let sequence = self.word(3).load(Ordering::Relaxed);
        let (version, data) = self.slot(sequence);
        let before = version.load(Ordering::Relaxed);
        version.store(before.wrapping_add(1), Ordering::Relaxed);
        // Readers that see a word of the new record also see the odd version.
        fence(Ordering::Release);
        let record = Record::make(self.life, sequence, boottime_us());
        for (word, value) in data.iter().zip(record.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
        version.store(before.wrapping_add(2), Ordering::Release);
        self.word(3).store(sequence + 1, Ordering::Release);
    }

    /// The committed record with this number; nothing where it is torn, overwritten, or was never committed.
    pub(crate) fn read(&self, sequence: u64) -> Option<Record> {
        if sequence >= self.committed() {
            return None;
        }
        let (version, data) = self.slot(sequence);
        let before = version.load(Ordering::Acquire);
        let mut words = [0; RECORD_WORDS];
        for (value, word) in words.iter_mut().zip(data) {
            *value = word.load(Ordering::Relaxed);
        }
        // Keeps the second look at the version behind the loads of the data.
        fence(Ordering::Acquire);
        let after = version.load(Ordering::Relaxed);
        let record = Record::from_words(words);
        (before == after && before % 2 == 0 && record.is_sound(self.life, sequence)).then_some(record)
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.words[index]
    }

    fn slot(&self, sequence: u64) -> (&AtomicU64, &[AtomicU64]) {
        let index = usize::try_from(sequence % SLOTS).unwrap_or(0);
        let start = HEADER_WORDS + index * SLOT_WORDS;
        (&self.words[start], &self.words[start + 1..start + SLOT_WORDS])
    }
}

/// Where the ring of the life before is kept.
pub(crate) fn previous(ring: &Path) -> PathBuf {
    let mut name = ring.as_os_str().to_owned();
    name.push(".previous");
    PathBuf::from(name)
}
