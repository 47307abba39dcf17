//! The end of the machine as BusyBox asks for it: a signal to PID 1. The host sees whether the machine obeys.

use super::Case;
use crate::guest::{Guest, expect, run};

pub(crate) const POWEROFF: &[Case] =
    &[Case { name: "busybox-poweroff", deadline_s: 10, run: |g| ask(g, "poweroff") }];
pub(crate) const REBOOT: &[Case] =
    &[Case { name: "busybox-reboot", deadline_s: 10, run: |g| ask(g, "reboot") }];
pub(crate) const HALT: &[Case] = &[Case { name: "busybox-halt", deadline_s: 10, run: |g| ask(g, "halt") }];

/// With a unit that does not want to go, and one with a procedure.
fn ask(guest: &mut Guest, applet: &str) -> Result<(), String> {
    guest.start("ignores-term")?;
    guest.start("saves-on-stop")?;
    crate::guest::wait_recording(guest, "saves-on-stop")?;
    // The delay lets the report out before this driver is stopped, too.
    let (code, _) =
        run(&["/bin/busybox", "sh", "-c", &format!("(sleep 1; busybox {applet}) >/dev/null 2>&1 &")])?;
    expect(&format!("exit code of busybox {applet}"), &code, &0)
}
