//! The messages of sd_notify(3): lines of `NAME=value` in one datagram. Bytes in, what they say out; nothing fails.

use crate::engine::event::Note;

/// A datagram that is longer is not looked at.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// So much of a status text is kept.
pub const STATUS_BYTES_MAX: usize = 120;

/// A descriptor with a longer name is kept under the common one.
pub const FD_NAME_BYTES_MAX: usize = 64;

/// What one message says. Of a line that stands in it twice the last one counts; unknown lines and values are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    ready: bool,
    reloading: bool,
    stopping: bool,
    watchdog: Option<Note>,
    extend_ms: Option<u32>,
    /// A new status text on one line, without control characters; empty takes the old one away.
    pub status: Option<String>,
    /// The process that it names as its main one.
    pub main_pid: Option<u32>,
    /// The descriptors that came along are to be kept for the next run (`FDSTORE=1`).
    pub stores_fds: bool,
    /// What is kept under its name is to be given up (`FDSTOREREMOVE=1`).
    pub removes_fds: bool,
    /// What is kept is not to be given up when its other end is gone (`FDPOLL=0`).
    pub keeps_hung_up: bool,
    fd_name: Option<String>,
}

impl Message {
    /// Reads a message.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut message = Self::default();
        for line in bytes.split(|byte| *byte == b'\n' || *byte == 0) {
            let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
            let (name, value) = line.split_at(at);
            message.take(name, value.get(1..).unwrap_or_default());
        }
        message
    }

    fn take(&mut self, name: &[u8], value: &[u8]) {
        let on = value == b"1";
        match name {
            b"READY" => self.ready |= on,
            b"RELOADING" => self.reloading |= on,
            b"STOPPING" => self.stopping |= on,
            b"WATCHDOG" if on => self.watchdog = Some(Note::Alive),
            b"WATCHDOG" if value == b"trigger" => self.watchdog = Some(Note::Failing),
            b"EXTEND_TIMEOUT_USEC" => {
                // Rounded up: nobody is to be cut short by less than a millisecond.
                let ms = number(value).map(|us| us.div_ceil(1_000));
                self.extend_ms = ms.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX)).or(self.extend_ms);
            }
            b"STATUS" => self.status = Some(one_line(value)),
            b"MAINPID" => {
                let pid = number(value).and_then(|pid| u32::try_from(pid).ok());
                self.main_pid = pid.filter(|pid| *pid > 1).or(self.main_pid);
            }
            b"FDSTORE" => self.stores_fds |= on,
            b"FDSTOREREMOVE" => self.removes_fds |= on,
            b"FDPOLL" => self.keeps_hung_up |= value == b"0",
            b"FDNAME" => self.fd_name = fd_name(value).or(self.fd_name.take()),
            _ => {}
        }
    }

    /// The name of what is kept or given up.
    #[must_use]
    pub fn fd_name(&self) -> &str {
        self.fd_name.as_deref().unwrap_or("stored")
    }

    /// What decisions rest on, in the order in which it is to be told.
    pub fn notes(&self) -> impl Iterator<Item = Note> + use<> {
        let flag = |set: bool, note| set.then_some(note);
        [
            flag(self.status.is_some(), Note::Status),
            self.extend_ms.map(Note::ExtendMs),
            flag(self.reloading, Note::Reloading),
            flag(self.ready, Note::Ready),
            flag(self.stopping, Note::Stopping),
            self.watchdog,
        ]
        .into_iter()
        .flatten()
    }
}

/// A name for `LISTEN_FDNAMES`: visible ASCII without a colon.
fn fd_name(value: &[u8]) -> Option<String> {
    let fits = (1..=FD_NAME_BYTES_MAX).contains(&value.len());
    let allowed = value.iter().all(|byte| (b' '..=b'~').contains(byte) && *byte != b':');
    std::str::from_utf8(value).ok().filter(|_| fits && allowed).map(str::to_owned)
}

/// A number of decimal digits and nothing else.
fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

/// Text for one line of a terminal, of at most `STATUS_BYTES_MAX` bytes.
fn one_line(value: &[u8]) -> String {
    let mut text = String::new();
    for letter in String::from_utf8_lossy(value).chars() {
        let letter = if moves_the_cursor(letter) { ' ' } else { letter };
        if text.is_empty() && letter == ' ' {
            continue;
        }
        if text.len() + letter.len_utf8() > STATUS_BYTES_MAX {
            break;
        }
        text.push(letter);
    }
    text.truncate(text.trim_end().len());
    text
}

/// Control characters, and those that turn the direction of writing or break lines.
fn moves_the_cursor(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], notes: &[Note], status: Option<&str>) {
        let message = Message::parse(bytes);
        let name = String::from_utf8_lossy(bytes);
        assert_eq!(message.notes().collect::<Vec<_>>(), notes, "{name:?}");
        assert_eq!(message.status.as_deref(), status, "{name:?}");
    }

    #[test]
    fn what_services_say() {
        check(b"READY=1", &[Note::Ready], None);
        check(b"READY=1\n", &[Note::Ready], None);
        check(b"READY=1\nSTATUS=12 clients", &[Note::Status, Note::Ready], Some("12 clients"));
        check(b"STATUS=", &[Note::Status], Some(""));
        check(b"STATUS=a=b", &[Note::Status], Some("a=b"));
        check(b"RELOADING=1\nMONOTONIC_USEC=17", &[Note::Reloading], None);
        check(b"STOPPING=1", &[Note::Stopping], None);
        check(b"WATCHDOG=1", &[Note::Alive], None);
        check(b"WATCHDOG=trigger", &[Note::Failing], None);
        check(b"WATCHDOG=trigger\nWATCHDOG=1", &[Note::Alive], None);
        check(b"EXTEND_TIMEOUT_USEC=1500001", &[Note::ExtendMs(1_501)], None);
        check(b"BARRIER=1", &[], None);
        assert_eq!(Message::parse(b"MAINPID=4711").main_pid, Some(4_711));
        assert!(Message::parse(b"FDSTORE=1\nFDNAME=a").stores_fds);
    }

    #[test]
    fn what_is_no_message_says_nothing() {
        for bytes in [
            &b""[..],
            b"\n\n\n",
            b"\0",
            b"=",
            b"=1",
            b"READY",
            b"READY=",
            b"READY=0",
            b"READY=11",
            b"READY= 1",
            b" READY=1",
            b"ready=1",
            b"READY=1\r\n",
            b"XREADY=1",
            b"WATCHDOG=0",
            b"WATCHDOG=Trigger",
            b"EXTEND_TIMEOUT_USEC=-1",
            b"EXTEND_TIMEOUT_USEC=+1",
            b"EXTEND_TIMEOUT_USEC=1e9",
            b"EXTEND_TIMEOUT_USEC=99999999999999999999999",
            b"\xff\xfe=1",
        ] {
            check(bytes, &[], None);
        }
        for bytes in [&b"MAINPID=0"[..], b"MAINPID=1", b"MAINPID=-7", b"MAINPID=4294967296", b"MAINPID=7 8"] {
            assert_eq!(Message::parse(bytes).main_pid, None);
        }
    }

    #[test]
    fn numbers_are_held_within_bounds() {
        check(b"EXTEND_TIMEOUT_USEC=0", &[Note::ExtendMs(0)], None);
        check(b"EXTEND_TIMEOUT_USEC=18446744073709551615", &[Note::ExtendMs(u32::MAX)], None);
    }

    #[test]
    fn a_status_is_one_clean_short_line() {
        check(b"STATUS=\x1b[31mred\x07", &[Note::Status], Some("[31mred"));
        check(b"STATUS=a\tb\rc", &[Note::Status], Some("a b c"));
        check("STATUS=a\u{202e}b\u{85}c".as_bytes(), &[Note::Status], Some("a b c"));
        check(b"STATUS=\xff\xfe", &[Note::Status], Some("\u{fffd}\u{fffd}"));
        let long = format!("STATUS={}", "ä".repeat(500));
        check(long.as_bytes(), &[Note::Status], Some("ä".repeat(60).as_str()));
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_grows(bytes in prop::collection::vec(any::<u8>(), 0..6_000)) {
            let message = Message::parse(&bytes);
            prop_assert!(message.notes().count() <= 6);
            prop_assert!(message.status.is_none_or(|text| text.len() <= STATUS_BYTES_MAX));
        }

        #[test]
        fn a_status_of_any_text_is_clean(text in any::<String>()) {
            let message = Message::parse(&[b"STATUS=", text.as_bytes()].concat());
            let status = message.status.unwrap_or_default();
            prop_assert!(status.len() <= STATUS_BYTES_MAX);
            prop_assert!(!status.chars().any(char::is_control));
        }
    }
}
