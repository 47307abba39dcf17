//! Where lines go: places that may take less than they are given, and never keep anybody waiting.

use nix::errno::Errno;
use std::fmt::{self, Write};
use std::os::fd::OwnedFd;

/// The kernel takes no longer record than 1,024 bytes from `/dev/kmsg`; its own head takes a part of them.
pub const LINE_MAX: usize = 960;

/// A place for lines, which may take less than it is given.
#[derive(Debug)]
pub struct Sink {
    /// None where nobody reads.
    pub fd: Option<OwnedFd>,
    /// Lines that it did not take since the last one that it did.
    dropped: u32,
    /// It took only the beginning of the last line.
    torn: bool,
}

impl Sink {
    /// A place that has taken everything up to now.
    #[must_use]
    pub fn new(fd: Option<OwnedFd>) -> Self {
        Self { fd, dropped: 0, torn: false }
    }

    /// Hands a line over. Those before it that found no room are told first, by their number behind `note`.
    pub fn say(&mut self, note: &[&[u8]], line: &Text) {
        if self.dropped > 0 {
            let mut told = Text::default();
            note.iter().for_each(|part| told.push(part));
            let _ = write!(told, "{}", self.dropped);
            if !self.put(&mut told) {
                self.dropped = self.dropped.saturating_add(1);
                return;
            }
            self.dropped = 0;
        }
        if !self.put(&mut line.clone()) {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// False where not all of it was taken.
    fn put(&mut self, text: &mut Text) -> bool {
        if self.torn && self.write(b"\n") == 0 {
            return false;
        }
        let line = text.ended();
        let taken = self.write(line);
        let all = taken >= line.len();
        self.torn = taken > 0 && !all;
        all
    }

    /// How much was taken. Where nobody reads any more, everything is.
    fn write(&mut self, bytes: &[u8]) -> usize {
        loop {
            let Some(fd) = &self.fd else { return bytes.len() };
            match nix::unistd::write(fd, bytes) {
                Ok(length) => return length,
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE) => self.fd = None,
                Err(_) => return 0,
            }
        }
    }
}

/// A line in fixed memory; what is too long is cut.
#[derive(Clone, Debug)]
pub struct Text {
    bytes: [u8; LINE_MAX],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; LINE_MAX], length: 0 }
    }
}

impl Text {
    /// Leaves room for the line's end.
    pub fn push(&mut self, bytes: &[u8]) {
        let free = self.bytes.get_mut(self.length..LINE_MAX - 1).unwrap_or_default();
        let length = free.len().min(bytes.len());
        for (to, from) in free.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.length += length;
    }

    /// Begins another.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Without its end.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The line as it is written.
    pub(super) fn ended(&mut self) -> &[u8] {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = b'\n';
        }
        self.bytes.get(..=self.length).unwrap_or_default()
    }
}

/// What does not fit is cut, and no error.
impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_and_always_ends() {
        let check = |text: &str, length: usize| {
            let mut line = Text::default();
            let _ = line.write_str(text);
            assert_eq!((line.ended().len(), line.ended().last()), (length, Some(&b'\n')));
        };
        check("", 1);
        check("abc", 4);
        check(&"x".repeat(LINE_MAX - 1), LINE_MAX);
        check(&"x".repeat(9_000), LINE_MAX);
    }
}
