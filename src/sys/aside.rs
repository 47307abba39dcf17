#![expect(unsafe_code, reason = "fork has no safe form")]

//! Work that may hang, done aside: in a child, with a deadline. PID 1 itself must never wait for a disk.

use super::children::exit_of;
use super::clock::now;
use super::error::SysError;
use crate::engine::event::{Exit, Time};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};
use std::os::fd::AsFd;

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aside {
    /// The work came to its end and answered `true`.
    Done,
    /// It did not by its deadline, and was left to itself.
    Overdue,
    /// It answered `false`, was killed, or crashed.
    Broken,
}

/// Does `work` in a forked child, and waits for its end until `deadline`. Where no child can be made, this is an error
/// and nothing was done.
///
/// The child is a copy of this process with this one thread: to be used by a process that has no others.
pub(super) fn aside(deadline: Time, work: impl FnOnce() -> bool) -> Result<Aside, SysError> {
    // SAFETY: lifeboat has one thread, so that no lock can be held by another one that the child lacks.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = if work() { 0 } else { 1 };
        // SAFETY: ends this copy without running what belongs to the original.
        unsafe { libc::_exit(code) }
    }
    let Some(pid) = Pid::from_raw(child).filter(|_| child > 0) else {
        return Err(SysError::new("make", "a child process", nix::errno::Errno::last()));
    };
    Ok(match wait_until(pid, deadline) {
        Wait::Over(Some(Exit::Code(0))) => Aside::Done,
        Wait::Over(_) => Aside::Broken,
        Wait::Overdue => Aside::Overdue,
    })
}

/// Waits for the end of a child, and reaps it. `None` where that lasts too long, or where it is no child any more.
pub fn wait_for_child(pid: u32, deadline: Time) -> Option<Exit> {
    match wait_until(i32::try_from(pid).ok().and_then(Pid::from_raw)?, deadline) {
        Wait::Over(exit) => exit,
        Wait::Overdue => None,
    }
}

/// What came of a wait.
enum Wait {
    /// `None` where it is no child any more.
    Over(Option<Exit>),
    Overdue,
}

fn wait_until(pid: Pid, deadline: Time) -> Wait {
    // Without a pidfd (before Linux 5.3) it is looked after ten times a second.
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
    loop {
        match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => return Wait::Over(exit_of(status)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Wait::Over(None),
        }
        let left_ms = deadline.since_us(now()).div_ceil(1_000);
        if left_ms == 0 {
            return Wait::Overdue;
        }
        let left_ms = i32::try_from(left_ms).unwrap_or(i32::MAX);
        // An interrupted or failed poll only means another look.
        let _ = match &pidfd {
            Some(pidfd) => {
                let timeout = PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX);
                poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout)
            }
            None => poll(&mut [], PollTimeout::try_from(left_ms.min(100)).unwrap_or(PollTimeout::MAX)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_ends_breaks_or_is_left() {
        let check = |deadline_ms, work: fn() -> bool, expected| {
            assert_eq!(aside(now().plus_ms(deadline_ms), work), Ok(expected));
        };
        check(20_000, || true, Aside::Done);
        check(20_000, || false, Aside::Broken);
        check(20_000, || nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).is_ok(), Aside::Broken);
        let hang = || {
            // Ends with the test's process at the latest.
            let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
            loop {
                nix::unistd::pause();
            }
        };
        check(20, hang, Aside::Overdue);
    }
}
