//! The words of sd_listen_fds(3): `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`.
//!
//! The parent writes how many descriptors there are and their names; the child writes its pid.

use super::pid_word::{PidSlot, PidWord};
use std::ffi::c_char;
use std::io::Write;
use std::os::fd::RawFd;
use std::ptr;

/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
pub const SD_LISTEN_FDS_START: RawFd = 3;

/// A name in `LISTEN_FDNAMES` is at most so long.
pub const NAME_BYTES_MAX: usize = 64;

const PID: &[u8] = b"LISTEN_PID=";
const COUNT: &[u8] = b"LISTEN_FDS=";
const NAMES: &[u8] = b"LISTEN_FDNAMES=";

/// Ten digits and a NUL.
const NUMBER_LEN: usize = 11;

/// Three strings of the environment.
#[derive(Debug)]
pub(super) struct Listen {
    pid: PidWord,
    count: Box<[u8; COUNT.len() + NUMBER_LEN]>,
    names: Vec<u8>,
    descriptors_max: usize,
}

impl Listen {
    pub(super) const WORDS: usize = 3;

    pub(super) fn new(descriptors_max: usize) -> Self {
        Self {
            pid: PidWord::new(PID),
            count: Box::new([0; COUNT.len() + NUMBER_LEN]),
            names: Vec::with_capacity(NAMES.len() + descriptors_max * (NAME_BYTES_MAX + 1) + 1),
            descriptors_max,
        }
    }

    /// Puts the names in; gives what belongs into the environment, nulls where there are no names.
    pub(super) fn fill<'a>(
        &mut self,
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> [*const c_char; Self::WORDS] {
        let names = names.take(self.descriptors_max);
        let count = names.clone().count();
        if count == 0 {
            return [ptr::null(); Self::WORDS];
        }
        *self.count = [0; COUNT.len() + NUMBER_LEN];
        // It always fits.
        let _ = write!(&mut self.count[..], "LISTEN_FDS={count}");
        self.names.clear();
        self.names.extend_from_slice(NAMES);
        for (at, name) in names.enumerate() {
            if at > 0 {
                self.names.push(b':');
            }
            self.names.extend_from_slice(name.as_bytes().get(..NAME_BYTES_MAX).unwrap_or(name.as_bytes()));
        }
        self.names.push(0);
        [self.pid.word(), self.count.as_ptr().cast(), self.names.as_ptr().cast()]
    }

    pub(super) fn pid(&self) -> PidSlot {
        self.pid.slot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn names_stand_in_their_order_and_within_their_room() {
        let mut listen = Listen::new(3);
        let check = |listen: &mut Listen, names: &[&str], expected: &str| {
            let words = listen.fill(names.iter().copied());
            assert_eq!(words.iter().all(|word| word.is_null()), expected.is_empty());
            if !expected.is_empty() {
                let shown = [&listen.count[..], &listen.names[..]]
                    .map(|text| CStr::from_bytes_until_nul(text).expect("a NUL").to_str().expect("text"));
                assert_eq!(shown.join(" "), expected);
            }
        };
        check(&mut listen, &["http"], "LISTEN_FDS=1 LISTEN_FDNAMES=http");
        check(&mut listen, &[], "");
        check(&mut listen, &["a", "b", "c", "d"], "LISTEN_FDS=3 LISTEN_FDNAMES=a:b:c");
        let long = "x".repeat(200);
        let cut = format!("LISTEN_FDS=2 LISTEN_FDNAMES={}:y", "x".repeat(NAME_BYTES_MAX));
        let capacity = listen.names.capacity();
        check(&mut listen, &[&long, "y"], &cut);
        assert_eq!(listen.names.capacity(), capacity);
    }
}
