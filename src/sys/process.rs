//! Processes that lifeboat did not start: what `/proc/PID` says of them, and pidfds, which never mean another one.

#![expect(
    unsafe_code,
    reason = "pidfd_send_signal(2) with numbers that no crate's signal type has, process_mrelease(2)"
)]

use super::children::exit_of_wait;
use super::error::{IntoErrno, SysError};
use crate::engine::event::Exit;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, geteuid, pidfd_open, waitid};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// `PF_KTHREAD` of include/linux/sched.h.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What the scheduler's file says of a process (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its number.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// It has ended, and its parent has not asked how.
    pub over: bool,
    /// It is a part of the kernel.
    pub kernel: bool,
    /// When it began, in ticks since boot: with the number the name of one process alone.
    pub started: u64,
    /// How it ended, as wait(2) has it.
    end: i32,
}

impl Facts {
    /// Of one process; `None` where there is none.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Self::parse(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name, in parentheses, may hold anything, parentheses too.
    fn parse(pid: u32, text: &[u8]) -> Option<Self> {
        let after_name = text.iter().rposition(|byte| *byte == b')')? + 1;
        let fields = std::str::from_utf8(text.get(after_name..)?).ok()?;
        // The first one here is the third of the file.
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            pid,
            parent: field(4)?.parse().ok()?,
            over: matches!(field(3)?, "Z" | "X" | "x"),
            kernel: field(9)?.parse::<u64>().ok()? & KERNEL_THREAD != 0,
            started: field(22)?.parse().ok()?,
            end: field(52)?.parse().ok()?,
        })
    }

    /// The process and all that descend from it, parents before their children.
    #[must_use]
    pub fn family(self) -> Vec<Self> {
        let mut others: Vec<Self> = all().filter(|one| one.pid != self.pid).collect();
        let mut family = vec![self];
        let mut next = 0;
        while let Some(parent) = family.get(next).map(|one| one.pid) {
            family.extend(others.extract_if(.., |one| one.parent == parent));
            next += 1;
        }
        family
    }
}

fn all() -> impl Iterator<Item = Facts> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Facts::of(entry.file_name().to_str()?.parse().ok()?))
}

/// A pidfd of a process, for all of its threads (pidfd_open(2), Linux 5.3).
///
/// # Errors
/// errno(3): `ESRCH` where there is none of this number.
pub fn hold(pid: u32) -> Result<OwnedFd, i32> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(libc::ESRCH)?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(IntoErrno::into_errno)
}

/// Whether the process of a pidfd has ended.
#[must_use]
pub fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
}

/// How the process of a pidfd ended; `None` while it lives. One that is our child is reaped. Of another's child the end
/// can be seen only by root, and only until its parent has reaped it.
#[must_use]
pub fn end_of(pid: u32, pidfd: BorrowedFd<'_>) -> Option<Exit> {
    if !has_ended(pidfd) {
        return None;
    }
    if let Ok(Some(status)) = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        return Some(exit_of_wait(&status).unwrap_or(Exit::Unseen {}));
    }
    let zombie = Facts::of(pid).filter(|facts| facts.over && geteuid().is_root());
    Some(zombie.map_or(Exit::Unseen {}, |facts| match (facts.end & 0x7f, facts.end >> 8 & 0xff) {
        (0, code) => Exit::Code(code),
        (signal, _) => Exit::Signal(signal),
    }))
}

/// Sends a signal to the process of a pidfd.
///
/// # Errors
/// errno(3): `EINVAL` for a number that is no signal, `ESRCH` for a process that is gone.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), i32> {
    let (fd, none) = (pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: pidfd_send_signal(2) takes numbers and a pointer that may be null: it touches no memory of ours.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, none, 0) } {
        0 => Ok(()),
        _ => Err(nix::errno::Errno::last_raw()),
    }
}

/// Sets how gladly the OOM killer takes a process (proc_pid_oom_score_adj(5)); gives what it was.
///
/// # Errors
/// With the path and the cause; below the present value it needs `CAP_SYS_RESOURCE`.
pub fn set_oom_score_adj(pid: u32, value: i32) -> Result<i32, SysError> {
    let path = format!("/proc/{pid}/oom_score_adj");
    let failed =
        |op| move |cause: std::io::Error| SysError::new(op, format!("/proc/{pid}/oom_score_adj"), cause);
    let before = std::fs::read_to_string(&path).map_err(failed("read"))?;
    std::fs::write(&path, value.to_string()).map_err(failed("write"))?;
    Ok(before.trim().parse().unwrap_or(0))
}

/// Takes its memory from a process that was killed and does not die, such as one in an uninterruptible sleep
/// (process_mrelease(2), Linux 5.15). It may wait for a lock of that process, and takes the time of freeing.
///
/// # Errors
///
/// `EINVAL` for a process that was not killed, `ESRCH` for one that has no memory any more.
pub fn release_memory(pid: u32) -> Result<(), i32> {
    let pidfd = hold(pid)?;
    // SAFETY: the call takes two numbers and no pointer; the descriptor is open for as long as it lasts.
    let done = unsafe { libc::syscall(libc::SYS_process_mrelease, pidfd.as_raw_fd(), 0) };
    if done == 0 { Ok(()) } else { Err(nix::errno::Errno::last_raw()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_name_may_hold_anything() {
        let zeros = "0 ".repeat(50);
        let text = format!("7 (a) Z 9 (b)) S 3 1 1 0 -1 2097216 {zeros}");
        let facts = Facts::parse(7, text.as_bytes()).expect("facts");
        assert_eq!((facts.parent, facts.kernel, facts.over), (3, true, false));
        for text in ["", "7 (a", "7 (a) Z", "7 (a) Z x", "7 a Z 1 2 3"] {
            assert_eq!(Facts::parse(7, text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_child_is_of_the_family_and_its_end_is_seen_once() {
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().expect("a child");
        let own = Facts::of(std::process::id()).expect("this process");
        let family: Vec<u32> = own.family().iter().map(|one| one.pid).collect();
        assert!(family.first() == Some(&own.pid) && family.contains(&child.id()), "{family:?}");
        let pidfd = hold(child.id()).expect("a pidfd");
        assert_eq!(end_of(child.id(), pidfd.as_fd()), None);
        signal(pidfd.as_fd(), libc::SIGTERM).expect("a signal");
        let mut ready = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(30_000_u16)).expect("its end");
        assert_eq!(end_of(child.id(), pidfd.as_fd()), Some(Exit::Signal(libc::SIGTERM)));
        assert_eq!(end_of(child.id(), pidfd.as_fd()), Some(Exit::Unseen {}), "it is reaped");
        let _ = child.try_wait();
    }

    #[test]
    fn who_was_not_killed_keeps_its_memory() {
        assert_eq!(release_memory(std::process::id()), Err(libc::EINVAL));
    }
}
