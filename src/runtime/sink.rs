//! Where lines of units go: places that may take less than they are given, and never keep anybody waiting.

use super::output::LINE_BYTES_MAX;
use nix::errno::Errno;
use std::os::fd::OwnedFd;

/// A place for lines, which may take less than it is given.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) fd: Option<OwnedFd>,
    /// Lines that it did not take since the last one that it did.
    dropped: u32,
    /// It took only the beginning of the last line.
    torn: bool,
}

impl Sink {
    pub(super) fn new(fd: Option<OwnedFd>) -> Self {
        Self { fd, dropped: 0, torn: false }
    }

    pub(super) fn say(&mut self, priority: &[u8], head: &[&[u8]], words: &[u8]) {
        if self.dropped > 0 {
            let mut note = Text::default();
            note.push(priority);
            note.push(b"lifeboat: lines of units that found no room here: ");
            note.push_number(self.dropped);
            note.push(b"\n");
            if !self.put(&note) {
                self.dropped = self.dropped.saturating_add(1);
                return;
            }
            self.dropped = 0;
        }
        let mut line = Text::default();
        line.push(priority);
        head.iter().for_each(|part| line.push(part));
        line.push(words);
        line.push(b"\n");
        if !self.put(&line) {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// False where not all of it was taken.
    fn put(&mut self, text: &Text) -> bool {
        if self.torn && self.write(b"\n") == 0 {
            return false;
        }
        let taken = self.write(text.bytes());
        let all = taken >= text.bytes().len();
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

/// A line with its name, in fixed memory; what is too long is cut.
pub(super) struct Text {
    bytes: [u8; LINE_BYTES_MAX + 96],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; LINE_BYTES_MAX + 96], length: 0 }
    }
}

impl Text {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let free = self.bytes.get_mut(self.length..).unwrap_or_default();
        let length = free.len().min(bytes.len());
        for (to, from) in free.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.length += length;
    }

    pub(super) fn push_number(&mut self, number: u32) {
        use std::io::Write;
        let mut digits = [0_u8; 10];
        let mut rest = &mut digits[..];
        // Ten digits are room for every number.
        let _ = write!(rest, "{number}");
        let left = rest.len();
        self.push(digits.get(..digits.len() - left).unwrap_or_default());
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}
