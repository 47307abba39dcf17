//! The end of the machine: kill what is left, save what is in memory, unmount, reboot(2). Every step has a deadline.

use super::aside::{Aside, aside};
use super::children::reap;
use super::clock::now;
use super::error::SysError;
use super::mount::unmount_all;
use crate::engine::event::{ShutdownKind, Time};
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Processes that were killed get this long to be gone.
const KILL_MS: u64 = 2_000;

/// Makes Ctrl-Alt-Del a SIGINT to PID 1 instead of a reboot on the spot (reboot(2), `RB_DISABLE_CAD`).
pub fn take_ctrl_alt_del() -> Result<(), SysError> {
    set_cad_enabled(false).map_err(|errno| SysError::new("take over", "Ctrl-Alt-Del (reboot)", errno))
}

/// This process is PID 1 (of the machine, or of its PID namespace).
#[must_use]
pub fn is_pid_1() -> bool {
    std::process::id() == 1
}

/// This process lives in another PID namespace than the machine's first one, which has a fixed number
/// (`PROC_PID_INIT_INO`, include/linux/proc_ns.h). Where that cannot be read this is the machine itself.
fn is_container() -> bool {
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() != "pid:[4026531836]")
}

/// Ends the machine, for PID 1 when all units are down: SIGKILL to all that is left, sync(2), unmount, sync again,
/// reboot(2). In a container nothing is unmounted: the end of its mount namespace does that. `say` gets a line for
/// every step that did not go well. Each of the steps that could hang is done in a child and has `step_ms`; then the
/// next one begins.
///
/// Does not return: where reboot(2) itself fails, PID 1 waits for ever, and for its orphans. Another process than PID 1
/// exits at once without doing any of it.
pub fn final_sequence(kind: ShutdownKind, step_ms: u64, say: &mut dyn FnMut(&str)) -> ! {
    if !is_pid_1() {
        std::process::exit(0);
    }
    kill_the_rest(say);
    step("sync", step_ms, say, sync);
    // In a container the file systems are the host's: making one read-only would do it to the host too.
    if !is_container() {
        // Its own words go to the standard error of this process's copy.
        step("unmount", step_ms, say, || {
            let errors = unmount_all();
            errors.iter().for_each(report);
            errors.is_empty()
        });
        step("sync", step_ms, say, sync);
    }
    end_machine(kind, step_ms, say);
    loop {
        nix::unistd::pause();
        reap(&mut |_, _| {});
    }
}

/// reboot(2), first in a child: `RB_HALT_SYSTEM` ends the calling process, and the end of PID 1 would be a panic.
pub(super) fn end_machine(kind: ShutdownKind, step_ms: u64, say: &mut dyn FnMut(&str)) {
    let mode = match kind {
        ShutdownKind::PowerOff => RebootMode::RB_POWER_OFF,
        ShutdownKind::Reboot => RebootMode::RB_AUTOBOOT,
        ShutdownKind::Halt => RebootMode::RB_HALT_SYSTEM,
    };
    let ended = aside(now().plus_ms(step_ms), || {
        // Comes back only where it has failed.
        let Err(_) = reboot(mode);
        false
    });
    // Overdue: the kernel hangs in it, and would hold up PID 1 too.
    if !matches!(ended, Ok(Aside::Done | Aside::Overdue)) {
        let Err(errno) = reboot(mode);
        say(&format!("reboot(2) failed: {errno}"));
    }
}

/// sync(2), as a step.
pub(super) fn sync() -> bool {
    nix::unistd::sync();
    true
}

fn step(name: &str, step_ms: u64, say: &mut dyn FnMut(&str), work: impl FnOnce() -> bool) {
    match aside(now().plus_ms(step_ms), work) {
        Ok(Aside::Done) => {}
        Ok(Aside::Overdue) => say(&format!("{name}: not done within {step_ms} ms, going on")),
        Ok(Aside::Broken) => say(&format!("{name}: failed, going on")),
        Err(error) => say(&format!("{name}: {error}, going on without")),
    }
}

/// SIGKILL to every process but this one, and a moment to be gone. PID 1 gets them all as its children.
fn kill_the_rest(say: &mut dyn FnMut(&str)) {
    // ESRCH: there is none.
    if kill(Pid::from_raw(-1), Signal::SIGKILL).is_ok() {
        collect_all(&mut || {}, say);
    }
}

/// For a supervisor below another init, when all units are down: SIGKILL to every child, and to their orphans as they
/// become its children too. `say` gets a line where some do not die.
pub fn kill_children(say: &mut dyn FnMut(&str)) {
    if !no_child_left() {
        collect_all(&mut kill_each_child, say);
    }
}

/// One round of SIGKILL to the children. Where `/proc` cannot be read there is nothing to go by.
fn kill_each_child() {
    let own = std::process::id().to_string();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read(entry.path().join("stat")) else { continue };
        if parent_in(&stat) == Some(own.as_bytes()) {
            // It is not reaped yet, so its pid is its own.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The parent's pid in a line of `/proc/PID/stat` (proc_pid_stat(5)): the second word after the name, which stands in
/// brackets and may hold any byte. procfs parses all 52 fields of it, in 14 KB of code that PID 1 would carry.
fn parent_in(stat: &[u8]) -> Option<&[u8]> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(name_end + 1..)?.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).nth(1)
}

/// Reaps until no child is left, with a deadline; `again` is called before each look.
fn collect_all(again: &mut dyn FnMut(), say: &mut dyn FnMut(&str)) {
    let until = now().plus_ms(KILL_MS);
    loop {
        again();
        let mut collected = 0;
        reap(&mut |_, _| collected += 1);
        if no_child_left() {
            return;
        }
        if now() >= until {
            say("some processes did not die, going on");
            return;
        }
        if collected == 0 {
            wait_a_moment(until);
        }
    }
}

fn no_child_left() -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::All, options).is_err_and(|errno| errno == rustix::io::Errno::CHILD)
}

/// Until SIGCHLD interrupts, 20 ms at the most.
fn wait_a_moment(until: Time) {
    let ms = until.since_us(now()).div_ceil(1_000).clamp(1, 20);
    let timeout = nix::poll::PollTimeout::try_from(i32::try_from(ms).unwrap_or(20));
    let _ = nix::poll::poll(&mut [], timeout.unwrap_or(nix::poll::PollTimeout::ZERO));
}

fn report(error: &SysError) {
    use std::io::Write;
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "lifeboat: {error}: {cause}");
}

#[cfg(test)]
mod tests {
    use super::parent_in;

    #[test]
    fn a_name_cannot_hide_the_parent() {
        let check = |stat: &str, expected: Option<&str>| {
            assert_eq!(parent_in(stat.as_bytes()), expected.map(str::as_bytes), "{stat}");
        };
        check("12 (sleep) S 1 12 12 0", Some("1"));
        check("12 (a) R 7) S 345 12 12 0", Some("345"));
        check("12 (\n) S 9", Some("9"));
        check("12 (sleep", None);
        check("12 (sleep) S", None);
        check("", None);
    }
}
