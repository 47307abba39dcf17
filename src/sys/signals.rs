//! Signals, turned into readiness: a flag for each, and one pipe for all of them.

use super::error::SysError;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::pipe2;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The signals that lifeboat takes. The last four are systemd's numbers (`SIGRTMIN+3`, `+4`, `+5` and `+15` as glibc
/// counts them) for halt, power-off, reboot and kexec; they are plain numbers here because no crate names them.
pub const TAKEN: [i32; 11] = [
    libc::SIGCHLD,
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPWR,
    37,
    38,
    39,
    49,
];

/// Takes the handlers away with which the standard library tells a stack overflow.
///
/// A process with CAP_KILL could end PID 1 through them: what a handler takes is no longer ignored for init
/// (kernel/signal.c, `sig_task_ignored`). A fault of our own ends the process as before.
#[expect(unsafe_code, reason = "signal(2) has no safe form")]
pub fn leave_faults_to_the_kernel() {
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: no handler is installed that could break an invariant, and the calls cannot fail for these two.
        let _ = unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) };
    }
}

/// The handlers of this process, which live as long as it does.
#[derive(Debug)]
pub struct Signals {
    flags: [(i32, Arc<AtomicBool>); TAKEN.len()],
    pipe: OwnedFd,
}

impl Signals {
    /// Takes every signal of [`TAKEN`]. To be called once.
    ///
    /// A handler sets its flag and then writes a byte into the pipe, in this order, so that who reads the pipe finds
    /// the flag set.
    pub fn install() -> Result<Self, SysError> {
        let (pipe, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .map_err(|errno| SysError::new("create", "the pipe of signals", errno))?;
        let flags = TAKEN.map(|signal| (signal, Arc::new(AtomicBool::new(false))));
        for (signal, flag) in &flags {
            let failed = |cause| SysError::new("take", format!("signal {signal}"), cause);
            signal_hook::flag::register(*signal, Arc::clone(flag)).map_err(failed)?;
            let write = write.try_clone().map_err(failed)?;
            signal_hook::low_level::pipe::register(*signal, write).map_err(failed)?;
        }
        Ok(Self { flags, pipe })
    }

    /// Readable when a signal has come.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Hands over the number of every signal that has come since the last call. Signals of one number that come
    /// together are one. Never blocks, allocates nothing.
    pub fn drain(&self, each: &mut impl FnMut(i32)) {
        let mut bytes = [0_u8; 64];
        loop {
            match nix::unistd::read(&self.pipe, &mut bytes) {
                Ok(length) if length == bytes.len() => {}
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
        for (signal, flag) in &self.flags {
            if flag.swap(false, Ordering::SeqCst) {
                each(*signal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_become_numbers() {
        let signals = Signals::install().expect("handlers");
        for (raised, expected) in
            [(&[][..], &[][..]), (&[49][..], &[49][..]), (&[libc::SIGUSR2, 37, 37], &[libc::SIGUSR2, 37])]
        {
            for signal in raised {
                signal_hook::low_level::raise(*signal).expect("a signal to oneself");
            }
            let mut found = Vec::new();
            signals.drain(&mut |signal| found.push(signal));
            // Other tests of this process have children.
            found.retain(|signal| *signal != libc::SIGCHLD);
            assert_eq!(found, expected);
        }
    }
}
