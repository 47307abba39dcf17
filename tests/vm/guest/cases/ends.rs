//! The end of the machine, asked for in every way there is: BusyBox's programs, signals to PID 1, `lifeboatctl`. The
//! host sees whether the machine obeys, and in which order its units go down.

use super::Case;
use crate::guest::{Guest, expect, read, run, wait_recording};

pub(crate) const POWEROFF: &[Case] =
    &[Case { name: "busybox-poweroff", deadline_s: 20, run: |g| ask(g, "busybox poweroff") }];
pub(crate) const REBOOT: &[Case] =
    &[Case { name: "busybox-reboot", deadline_s: 20, run: |g| ask(g, "busybox reboot") }];
pub(crate) const HALT: &[Case] =
    &[Case { name: "busybox-halt", deadline_s: 20, run: |g| ask(g, "busybox halt") }];
pub(crate) const SIGNAL_INT: &[Case] =
    &[Case { name: "ctrl-alt-del-is-sigint", deadline_s: 20, run: ctrl_alt_del }];
pub(crate) const SIGNAL_37: &[Case] =
    &[Case { name: "signal-37-halts", deadline_s: 20, run: |g| ask(g, "kill -37 1") }];
pub(crate) const SIGNAL_38: &[Case] =
    &[Case { name: "signal-38-powers-off", deadline_s: 20, run: |g| ask(g, "kill -38 1") }];
pub(crate) const SIGNAL_39: &[Case] =
    &[Case { name: "signal-39-reboots", deadline_s: 20, run: |g| ask(g, "kill -39 1") }];
pub(crate) const CTL_HALT: &[Case] = &[Case {
    name: "lifeboatctl-shutdown-halts",
    deadline_s: 20,
    run: |g| ask(g, "/usr/bin/lifeboatctl shutdown --halt"),
}];
pub(crate) const TELINIT: &[Case] = &[Case {
    name: "lifeboatctl-as-telinit-reboots",
    deadline_s: 20,
    run: |g| ask(g, "ln -s /usr/bin/lifeboatctl /tmp/telinit; /tmp/telinit 6"),
}];

/// With a unit that does not want to go, one with a procedure, and one that another one requires.
fn ask(guest: &mut Guest, command: &str) -> Result<(), String> {
    guest.start("ignores-term")?;
    guest.start("above")?;
    guest.start("saves-on-stop")?;
    wait_recording(guest, "saves-on-stop")?;
    // The delay lets the report out before this driver is stopped, too.
    let (code, _) = run(&["/bin/busybox", "sh", "-c", &format!("(sleep 1; {command}) >/dev/null 2>&1 &")])?;
    expect(&format!("exit code of {command}"), &code, &0)
}

/// No key can be pressed here, but the kernel says what it would do: 0 is a SIGINT to PID 1
/// (Documentation/admin-guide/sysctl/kernel.rst, `ctrl-alt-del`).
fn ctrl_alt_del(guest: &mut Guest) -> Result<(), String> {
    expect("kernel.ctrl-alt-del", &read("/proc/sys/kernel/ctrl-alt-del")?.trim(), &"0")?;
    ask(guest, "kill -INT 1")
}
