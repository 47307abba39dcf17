//! The last words of a lifeboat that panics: where and why, to the kernel log and the console, then a reboot by a
//! deadline, because a machine without PID 1 is dead anyway.

use super::aside::aside;
use super::clock::now;
use super::power::{end_machine, sync};
use super::sink::Text;
use crate::engine::event::ShutdownKind;
use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

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
    if let Some(kmsg) = &epitaph.kmsg {
        tell(kmsg.as_fd(), last_words("<2>", info));
    }
    if let Some(console) = &epitaph.console {
        tell(console.as_fd(), last_words("", info));
    }
    let Some(step_ms) = epitaph.reboot_after_ms else { return };
    let _ = aside(now().plus_ms(step_ms), sync);
    end_machine(ShutdownKind::Reboot, step_ms, &mut |line| {
        let mut words = Text::default();
        let _ = write!(words, "<2>lifeboat: {line}");
        if let Some(kmsg) = &epitaph.kmsg {
            tell(kmsg.as_fd(), words);
        }
    });
}

/// `head` is the priority that the kernel log takes off.
fn last_words(head: &str, info: &PanicHookInfo<'_>) -> Text {
    let mut words = Text::default();
    let _ = match info.location() {
        Some(place) => write!(words, "{head}lifeboat: panic at {}:{}: ", place.file(), place.line()),
        None => write!(words, "{head}lifeboat: panic: "),
    };
    for (index, line) in message(info).lines().enumerate() {
        let _ = write!(words, "{}{line}", if index == 0 { "" } else { " / " });
    }
    words
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    let fixed = payload.downcast_ref::<&str>().copied();
    fixed.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// One write, so that it is one record of the kernel log.
fn tell(fd: BorrowedFd<'_>, mut words: Text) {
    let _ = nix::unistd::write(fd, words.ended());
}
