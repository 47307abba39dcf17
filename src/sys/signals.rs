//! Signals, turned into readiness: a note for each, and one pipe for all of them.

use super::error::SysError;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::pipe2;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// A signal has come; its sender's pid stands below, or 0.
const COME: u64 = 1 << 32;

/// The handlers of this process, which live as long as it does.
#[derive(Debug)]
pub struct Signals {
    notes: [(i32, Arc<AtomicU64>); TAKEN.len()],
    pipe: OwnedFd,
}

impl Signals {
    /// Takes every signal of [`TAKEN`]. To be called once.
    ///
    /// A handler makes its note and then writes a byte into the pipe, in this order, so that who reads the pipe finds
    /// the note.
    #[expect(unsafe_code, reason = "what runs in a handler is for its writer to answer for")]
    pub fn install() -> Result<Self, SysError> {
        let (pipe, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .map_err(|errno| SysError::new("create", "the pipe of signals", errno))?;
        let notes = TAKEN.map(|signal| (signal, Arc::new(AtomicU64::new(0))));
        let write = Arc::new(write);
        for (signal, note) in &notes {
            let (note, write) = (Arc::clone(note), Arc::clone(&write));
            let action = move |info: &libc::siginfo_t| take(info, &note, &write);
            let failed = |cause| SysError::new("take", format!("signal {signal}"), cause);
            // SAFETY: the action does what is async-signal-safe, and nothing else: loads and stores of an atomic, and
            // write(2), whose errno nobody sees. What it uses lives as long as the handler.
            unsafe { signal_hook_registry::register_sigaction(*signal, action) }.map_err(failed)?;
        }
        Ok(Self { notes, pipe })
    }

    /// Readable when a signal has come.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Whether one has come that was not handed over yet. It knows of what came while a wait was returning, which the
    /// readiness that this wait found does not.
    #[must_use]
    pub fn have_come(&self) -> bool {
        self.notes.iter().any(|(_, note)| note.load(Ordering::SeqCst) != 0)
    }

    /// Hands over the number of every signal that has come since the last call, with the pid of the process that sent
    /// it, where it was one. Signals of one number that come together are one. Never blocks, allocates nothing.
    pub fn drain(&self, each: &mut impl FnMut(i32, Option<u32>)) {
        let mut bytes = [0_u8; 64];
        loop {
            match nix::unistd::read(&self.pipe, &mut bytes) {
                Ok(length) if length == bytes.len() => {}
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
        for (signal, note) in &self.notes {
            let come = note.swap(0, Ordering::SeqCst);
            if come & COME != 0 {
                each(*signal, u32::try_from(come & !COME).ok().filter(|pid| *pid > 0));
            }
        }
    }
}

/// What a handler does.
fn take(info: &libc::siginfo_t, note: &AtomicU64, pipe: &OwnedFd) {
    let errno = Errno::last_raw();
    let come = COME | u64::from(sender(info));
    // One of several senders is nobody's: it may be the one whose word counts.
    let known = note.load(Ordering::SeqCst);
    note.store(if known == 0 || known == come { come } else { COME }, Ordering::SeqCst);
    // A full pipe is readable already.
    let _ = nix::unistd::write(pipe, &[0]);
    Errno::set_raw(errno);
}

/// The process that has sent it by kill(2), sigqueue(3) or tgkill(2) (sigaction(2), `si_code`); 0 where none has.
#[expect(unsafe_code, reason = "si_pid is a part of a union")]
fn sender(info: &libc::siginfo_t) -> u32 {
    match info.si_code {
        // SAFETY: for these codes the kernel has filled in `si_pid`.
        libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL => unsafe { info.si_pid() }.try_into().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "no safe form takes real-time signals")]
    fn signals_become_numbers() {
        let signals = Signals::install().expect("handlers");
        for (raised, expected) in
            [(&[][..], &[][..]), (&[49][..], &[49][..]), (&[libc::SIGUSR2, 37, 37], &[libc::SIGUSR2, 37])]
        {
            for signal in raised {
                // SAFETY: its handler is installed.
                assert_eq!(unsafe { libc::raise(*signal) }, 0);
            }
            assert!(raised.is_empty() || signals.have_come());
            let mut found = Vec::new();
            signals.drain(&mut |signal, sender| found.push((signal, sender)));
            // Other tests of this process have children.
            found.retain(|(signal, _)| *signal != libc::SIGCHLD);
            let own = Some(std::process::id());
            assert_eq!(found, expected.iter().map(|signal| (*signal, own)).collect::<Vec<_>>());
        }
    }
}
