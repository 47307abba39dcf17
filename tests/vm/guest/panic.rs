//! A PID 1 that panics, with lifeboat's own hook: the host sees whether it is told and whether the machine restarts.

use super::report;
use lifeboat::sys::console::open_console;
use lifeboat::sys::epitaph::{Epitaph, install};
use lifeboat::sys::kmsg::open_kmsg;

/// For the sync, and then for the reboot.
const STEP_MS: u64 = 2_000;

/// Reports whether there is a place to speak to, and panics.
pub(crate) fn panics() -> ! {
    let (kmsg, console) = (open_kmsg(), open_console());
    report::line("plan 1");
    report::line("case panic-has-where-to-speak");
    report::line(&match [kmsg.as_ref().err(), console.as_ref().err()].into_iter().flatten().next() {
        None => "ok panic-has-where-to-speak 0".to_owned(),
        Some(error) => format!("not ok panic-has-where-to-speak: {error}"),
    });
    report::line("done");
    install(Epitaph { kmsg: kmsg.ok(), console: console.ok(), reboot_after_ms: Some(STEP_MS) });
    panic!("last words for the vm tests");
}
