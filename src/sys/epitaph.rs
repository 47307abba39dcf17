//! The last words of a lifeboat that panics: where and why, to the kernel log and the console, then a reboot by a
//! deadline, because a machine without PID 1 is dead anyway.

use super::aside::aside;
use super::clock::now;
use super::power::{end_machine, sync};
use crate::engine::event::ShutdownKind;
use std::fmt::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

const LAST_WORDS_MAX: usize = 512;

/// What a panic does.
#[derive(Debug)]
pub struct Epitaph {
    /// `/dev/kmsg`, where there is one.
    pub kmsg: Option<OwnedFd>,
    /// The console, nonblocking, or any other place.
    pub console: Option<OwnedFd>,
    /// As PID 1: sync(2) with this deadline in milliseconds, then reboot(2) with the same one. `None` leaves it at the
    /// words, and the process is aborted.
    pub reboot_after_ms: Option<u64>,
}

static EPITAPH: OnceLock<Epitaph> = OnceLock::new();
static SPOKEN: AtomicBool = AtomicBool::new(false);

/// Takes over the panic hook. The first call counts.
///
/// The hook does everything itself, because after it the process is aborted.
pub fn install(epitaph: Epitaph) {
    if EPITAPH.set(epitaph).is_ok() {
        std::panic::set_hook(Box::new(speak));
    }
}

fn speak(info: &PanicHookInfo<'_>) {
    // A panic in here must not come here again.
    let Some(epitaph) = EPITAPH.get().filter(|_| !SPOKEN.swap(true, Ordering::SeqCst)) else { return };
    let words = last_words(info);
    if let Some(kmsg) = &epitaph.kmsg {
        tell(kmsg.as_fd(), b"<2>", &words);
    }
    if let Some(console) = &epitaph.console {
        tell(console.as_fd(), b"", &words);
    }
    let Some(step_ms) = epitaph.reboot_after_ms else { return };
    let _ = aside(now().plus_ms(step_ms), sync);
    end_machine(ShutdownKind::Reboot, step_ms, &mut |line| {
        let mut words = Words::default();
        let _ = writeln!(words, "lifeboat: {line}");
        if let Some(kmsg) = &epitaph.kmsg {
            tell(kmsg.as_fd(), b"<2>", &words);
        }
    });
}

fn last_words(info: &PanicHookInfo<'_>) -> Words {
    let mut words = Words::default();
    let _ = match info.location() {
        Some(place) => write!(words, "lifeboat: panic at {}:{}: ", place.file(), place.line()),
        None => write!(words, "lifeboat: panic: "),
    };
    for (index, line) in message(info).lines().enumerate() {
        let _ = write!(words, "{}{line}", if index == 0 { "" } else { " / " });
    }
    words.end();
    words
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    let fixed = payload.downcast_ref::<&str>().copied();
    fixed.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// One write, so that it is one record of the kernel log.
fn tell(fd: BorrowedFd<'_>, head: &[u8], words: &Words) {
    let mut line = [0; LAST_WORDS_MAX + 3];
    let mut length = 0;
    for (to, from) in line.iter_mut().zip(head.iter().chain(words.bytes())) {
        *to = *from;
        length += 1;
    }
    let _ = nix::unistd::write(fd, line.get(..length).unwrap_or_default());
}

/// Text in fixed memory; what does not fit is cut off.
struct Words {
    text: [u8; LAST_WORDS_MAX],
    length: usize,
}

impl Default for Words {
    fn default() -> Self {
        Self { text: [0; LAST_WORDS_MAX], length: 0 }
    }
}

impl Words {
    fn bytes(&self) -> &[u8] {
        self.text.get(..self.length).unwrap_or_default()
    }

    /// Ends the line; there is always room.
    fn end(&mut self) {
        self.length = self.length.min(LAST_WORDS_MAX - 1);
        let _ = self.write_str("\n");
    }
}

impl fmt::Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = self.text.get_mut(self.length..).unwrap_or_default();
        self.length += free.len().min(text.len());
        for (to, from) in free.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_and_always_end() {
        let check = |text: &str, length: usize| {
            let mut words = Words::default();
            let _ = words.write_str(text);
            words.end();
            assert_eq!((words.bytes().len(), words.bytes().last()), (length, Some(&b'\n')));
        };
        check("", 1);
        check("abc", 4);
        check(&"x".repeat(LAST_WORDS_MAX - 1), LAST_WORDS_MAX);
        check(&"x".repeat(9_000), LAST_WORDS_MAX);
    }
}
