//! A string of the environment that holds the pid of the process that gets it: `LISTEN_PID` of sd_listen_fds(3),
//! `WATCHDOG_PID` of sd_watchdog_enabled(3). Only the child knows it, and writes it into room that was made before.

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int};
use std::ptr;

/// Ten digits and a NUL.
const NUMBER_LEN: usize = 11;

/// The longest of the two names, with its `=`.
const NAME_LEN: usize = b"WATCHDOG_PID=".len();

/// The name, and room for any pid.
pub(super) type Text = [u8; NAME_LEN + NUMBER_LEN];

/// The string.
#[derive(Debug)]
pub(super) struct PidWord {
    text: Box<UnsafeCell<Text>>,
    name_len: usize,
}

/// Where the child writes; null, if it is told no pid.
#[derive(Clone, Copy, Debug)]
pub(super) struct PidSlot {
    pub(super) text: *mut Text,
    pub(super) name_len: usize,
}

impl PidWord {
    /// `name` ends with `=`.
    pub(super) fn new(name: &[u8]) -> Self {
        let mut text = [0; NAME_LEN + NUMBER_LEN];
        for (to, from) in text.iter_mut().zip(name.iter().take(NAME_LEN)) {
            *to = *from;
        }
        Self { text: Box::new(UnsafeCell::new(text)), name_len: name.len().min(NAME_LEN) }
    }

    /// For the environment.
    pub(super) fn word(&self) -> *const c_char {
        self.text.get().cast::<c_char>().cast_const()
    }

    pub(super) fn slot(&self) -> PidSlot {
        PidSlot { text: self.text.get(), name_len: self.name_len }
    }
}

impl PidSlot {
    pub(super) const NOWHERE: Self = Self { text: ptr::null_mut(), name_len: 0 };
}

/// Writes the pid behind the name. Straight-line and free of allocation: it runs in the child.
pub(super) fn write_pid(text: &mut [u8], name_len: usize, pid: c_int) {
    let mut pid = pid.unsigned_abs();
    let mut digits = [0_u8; NUMBER_LEN];
    let mut count = 0;
    for digit in digits.iter_mut().take(NUMBER_LEN - 1) {
        if pid == 0 && count > 0 {
            break;
        }
        *digit = b'0' + u8::try_from(pid % 10).unwrap_or(0);
        pid /= 10;
        count += 1;
    }
    let digits = digits.iter().take(count).rev();
    for (to, from) in text.iter_mut().skip(name_len).zip(digits.chain([&0])) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn a_pid_is_written_in_its_room() {
        for name in ["LISTEN_PID=", "WATCHDOG_PID="] {
            let mut text = *PidWord::new(name.as_bytes()).text.get_mut();
            // From long to short: nothing of an earlier pid stays.
            for pid in [c_int::MAX, 4_194_304, 4_711, 10, 9, 1] {
                write_pid(&mut text, name.len(), pid);
                let text = CStr::from_bytes_until_nul(&text).expect("a NUL");
                assert_eq!(text.to_str(), Ok(format!("{name}{pid}").as_str()));
            }
        }
    }
}
