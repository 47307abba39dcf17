//! Children: signals to them, and their ends.

#![expect(unsafe_code, reason = "kill(2) with numbers that no crate's signal type has")]

use crate::engine::event::Exit;
use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions, WaitStatus, pidfd_open, wait, waitid,
};
use std::os::fd::OwnedFd;

/// Collects one child that has ended (wait(2), `WNOHANG`): its pid and its end. `None` when there is none.
///
/// PID 1 and a subreaper also get orphans that they never started. Never blocks, allocates nothing. rustix and not
/// nix does the waiting: nix collects a child that a real-time signal killed, and then loses its pid in an error.
pub fn reap_one() -> Option<(u32, Exit)> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if let (Ok(pid), Some(exit)) = (u32::try_from(pid.as_raw_nonzero().get()), exit_of(status)) {
            return Some((pid, exit));
        }
    }
    None
}

/// Collects every child that has ended: see [`reap_one`].
pub fn reap(each: &mut impl FnMut(u32, Exit)) {
    while let Some((pid, exit)) = reap_one() {
        each(pid, exit);
    }
}

/// Whether a process is a child of ours that is not reaped yet (waitid(2), `WNOWAIT`).
#[must_use]
pub fn is_child(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    pid.is_some_and(|pid| waitid(WaitId::Pid(pid), options).is_ok())
}

/// A pidfd of a child that is not reaped yet, so that the pid is still its own (pidfd_open(2), Linux 5.3).
#[must_use]
pub fn pidfd(pid: u32) -> Option<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Sends a signal to a child that is not reaped yet, so that the pid is still its own (kill(2)).
///
/// # Errors
/// errno(3): `EINVAL` for a number that is no signal, `ESRCH` for a child that is gone.
pub fn signal(pid: u32, signal: i32) -> Result<(), i32> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 1).ok_or(libc::ESRCH)?;
    kill_process(pid, signal)
}

/// Kills the process group that a child leads, and so far as they have not left it, its children (kill(2)).
///
/// # Errors
/// errno(3), `ESRCH` where nothing is left of it.
pub fn kill_group(leader: u32) -> Result<(), i32> {
    let leader = i32::try_from(leader).ok().filter(|pid| *pid > 1).ok_or(libc::ESRCH)?;
    kill_process(-leader, libc::SIGKILL)
}

fn kill_process(pid: i32, signal: i32) -> Result<(), i32> {
    // SAFETY: kill(2) takes two numbers and touches no memory of ours. nix has no real-time signals.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(nix::errno::Errno::last_raw()),
    }
}

/// The end that waitid(2) tells; `None` for a child that is only stopped or continued.
pub(super) fn exit_of_wait(status: &WaitIdStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}

/// The end that a status tells; `None` for a child that is only stopped or continued.
pub(super) fn exit_of(status: WaitStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}
