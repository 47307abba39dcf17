//! Bytes to messages and back. Both ends are bounded: a peer cannot make us hold more than we allow.

use super::reply::ErrorReply;
use super::request::Call;
use serde::Serialize;
use std::fmt;

/// The longest message that lifeboat accepts, without its NUL: a hundred times the longest honest request.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// The longest message that a client accepts: a snapshot of many thousand units stays below it.
pub const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An emptied inbox gives memory beyond this back.
const KEPT_BYTES: usize = 4 * 1024;

/// A message is longer than the inbox allows. The stream is of no more use: close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// What was allowed.
    pub limit_bytes: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message longer than {} bytes", self.limit_bytes)
    }
}

impl std::error::Error for TooLong {}

/// Collects bytes of one connection and gives out whole messages.
///
/// # Invariants
/// - It never holds more than its limit and one NUL.
/// - Each byte is looked at once, however small the pieces in which it comes.
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Where the next message begins.
    start: usize,
    /// No NUL between `start` and here.
    scanned: usize,
    limit_bytes: usize,
}

impl Inbox {
    /// An empty inbox that takes messages of at most so many bytes. It allocates when the first byte comes.
    #[must_use]
    pub const fn new(limit_bytes: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, scanned: 0, limit_bytes }
    }

    /// How many bytes `feed` would take now. 0 means: take messages out first.
    #[must_use]
    pub fn room(&self) -> usize {
        (self.limit_bytes + 1).saturating_sub(self.bytes.len() - self.start)
    }

    /// Takes bytes in, at most `room()` of them, and says how many it took.
    #[must_use]
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        self.bytes.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(bytes.get(..taken).unwrap_or(bytes));
        taken
    }

    /// `next_message` would have one to give.
    #[must_use]
    pub fn has_message(&mut self) -> bool {
        let unseen = self.bytes.get(self.scanned..).unwrap_or_default();
        let found = unseen.iter().position(|byte| *byte == 0);
        self.scanned += found.unwrap_or(unseen.len());
        found.is_some()
    }

    /// The next whole message without its NUL, or `None` until more bytes come.
    ///
    /// # Errors
    /// `TooLong` when the message that is coming in is longer than the limit; from then on always.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let unseen = self.bytes.get(self.scanned..).unwrap_or_default();
        let Some(offset) = unseen.iter().position(|byte| *byte == 0) else {
            self.scanned = self.bytes.len();
            if self.room() == 0 {
                return Err(TooLong { limit_bytes: self.limit_bytes });
            }
            if self.start == self.bytes.len() {
                self.bytes.clear();
                self.bytes.shrink_to(KEPT_BYTES);
                (self.start, self.scanned) = (0, 0);
            }
            return Ok(None);
        };
        let (start, end) = (self.start, self.scanned + offset);
        (self.start, self.scanned) = (end + 1, end + 1);
        Ok(self.bytes.get(start..end))
    }
}

/// What comes back, as it is written. `parameters` is always there: some clients insist on it.
#[derive(Serialize)]
struct Answer<'a, P> {
    parameters: &'a P,
    #[serde(skip_serializing_if = "is_false")]
    continues: bool,
}

#[derive(Serialize)]
struct Refused<'a, P> {
    error: &'a str,
    parameters: &'a P,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Appends one answer. `continues` says that more answers to the same call follow.
///
/// # Errors
/// What `parameters` itself fails with when it is serialized; types of this crate do not. Nothing is
/// appended then.
pub fn encode_reply(
    out: &mut Vec<u8>,
    parameters: &impl Serialize,
    continues: bool,
) -> Result<(), serde_json::Error> {
    append(out, &Answer { parameters, continues })
}

/// Appends one error.
///
/// # Errors
/// As `encode_reply`.
pub fn encode_error(out: &mut Vec<u8>, error: &ErrorReply) -> Result<(), serde_json::Error> {
    append(out, &Refused { error: error.name(), parameters: error })
}

/// Appends one call.
///
/// # Errors
/// As `encode_reply`.
pub fn encode_call(out: &mut Vec<u8>, call: &Call) -> Result<(), serde_json::Error> {
    append(out, call)
}

fn append(out: &mut Vec<u8>, message: &impl Serialize) -> Result<(), serde_json::Error> {
    let before = out.len();
    // serde_json escapes control characters, so that the only NUL is ours.
    match serde_json::to_writer(&mut *out, message) {
        Ok(()) => out.push(0),
        Err(error) => {
            out.truncate(before);
            return Err(error);
        }
    }
    Ok(())
}
