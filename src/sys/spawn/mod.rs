//! Processes, started straight into their cgroup.
//!
//! The standard library cannot do it: it knows no cgroups, it waits for the child's `execve` (a child that is frozen
//! or has no memory would hold up PID 1 for ever), and it leaves no place to stop in between. So the parent prepares
//! everything here, [`child`] runs straight-line code after clone3(2), and the outcome comes through a pipe that the
//! event loop watches.

mod ballast;
mod child;
mod elf;
mod files;
mod listen;
mod lock;
mod order;
mod pid_word;
mod program;
mod step;

pub use ballast::ballast;
pub use files::{Found, files_of};
pub use listen::{NAME_BYTES_MAX, SD_LISTEN_FDS_START};
pub use lock::Unlocked;
pub use order::{Order, release, release_resident};
pub use program::Program;
pub use step::{MaybePath, Step};

use crate::engine::event::SpawnStage;
use crate::engine::setting::Setting;
use child::{Hold, Plan};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::SockType;
use nix::unistd::pipe2;
use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// A cgroup to start in, and the way into it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The group's folder.
    pub folder: BorrowedFd<'a>,
    /// The way in.
    pub way: Way,
}

/// How a child gets into its cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is made there (`CLONE_INTO_CGROUP`, Linux 5.7; an older kernel gets the other way).
    Born,
    /// It is made beside lifeboat and moves itself, before anything else, by a write to `cgroup.procs`.
    ///
    /// For groups that `cgroup.kill` was ever used on: some kernels compare the kill counter of the *parent's* group
    /// with that of the new one, and so kill every child that is made there (`kill_seq` in kernel/cgroup/cgroup.c; seen
    /// on Linux 6.18, not on Debian's 6.1.192 and 6.12.117).
    Moved,
}

/// Everything about one start.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// What to run.
    pub program: &'a Program,
    /// The cgroup to start in; `None` starts in lifeboat's own.
    pub cgroup: Option<Place<'a>>,
    /// Written to `/proc/self/oom_score_adj`, -1000 to 1000. Below the present value it needs `CAP_SYS_RESOURCE`.
    pub oom_score_adj: i32,
    /// Standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// What the child does to itself, in this order, before it enters its working directory.
    pub steps: &'a [Step],
    /// Entered before `execve`; `None` stays in lifeboat's.
    pub working_directory: Option<&'a CStr>,
    /// More descriptors for the program, at most [`HANDED_MAX`], each with the number above 2 that it gets there.
    pub handed: &'a [Handed<'a>],
}

/// A descriptor for a program, and its number there.
pub type Handed<'a> = (BorrowedFd<'a>, RawFd);

/// A program can be handed so many descriptors beside the standard ones; what is above is left out.
pub const HANDED_MAX: usize = 192;

impl Start<'_> {
    /// lifeboat's own descriptors that the child still needs stand above this one.
    fn highest_given(&self) -> RawFd {
        let lowest = self.program.highest_received();
        self.handed.iter().map(|(_, number)| *number).fold(lowest, RawFd::max)
    }
}

/// A process on its way to `execve`.
#[derive(Debug)]
pub struct Child {
    /// Its pid.
    pub pid: u32,
    /// Tells by [`read_status`] how the start went; nonblocking.
    pub status: OwnedFd,
}

/// A process that has been set up and waits for [`release`], or for [`release_resident`].
#[derive(Debug)]
pub struct Parked {
    /// Its pid.
    pub pid: u32,
    /// Tells by [`read_status`] when it stands ready, and later how its `execve` went; nonblocking.
    pub status: OwnedFd,
    /// What [`release`] writes to. Closing it ends the process with exit code 0.
    pub go: OwnedFd,
}

/// Why a start failed. The cause is in `source()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnError {
    /// Where.
    pub stage: SpawnStage,
    cause: Errno,
}

impl SpawnError {
    /// A failure at `stage` with this errno(3).
    #[must_use]
    pub fn new(stage: SpawnStage, errno: i32) -> Self {
        Self { stage, cause: Errno::from_raw(errno) }
    }

    /// errno(3).
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.cause as i32
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.stage {
            SpawnStage::Cgroup => "make its cgroup",
            SpawnStage::Limit => "set its limits",
            SpawnStage::Clone => "make its process",
            SpawnStage::JoinCgroup => "move it into its cgroup",
            SpawnStage::OomScoreAdj => "set its oom_score_adj",
            SpawnStage::Stdio => "set its standard input and output",
            SpawnStage::WorkingDirectory => "enter its working directory",
            SpawnStage::Exec => "execute its program",
            SpawnStage::ResourceLimit => "set its resource limits",
            SpawnStage::Nice => "set its nice value",
            SpawnStage::Scheduler => "set its scheduling policy",
            SpawnStage::CpuAffinity => "bind it to its processors",
            SpawnStage::IoPriority => "set its io priority",
            SpawnStage::MountNamespace => "make its mount namespace",
            SpawnStage::RootDirectory => "enter its root directory",
            SpawnStage::ReadOnly => "make its paths read-only",
            SpawnStage::Hidden => "hide its hidden paths",
            SpawnStage::PrivateTmp => "mount its own /tmp",
            SpawnStage::PrivateShm => "mount its own /dev/shm",
            SpawnStage::Groups => "set its supplementary groups",
            SpawnStage::Group => "take its group",
            SpawnStage::User => "become its user",
            SpawnStage::Capabilities => "set its capabilities",
            SpawnStage::NoNewPrivs => "set no_new_privs",
            SpawnStage::Sockets => "open its sockets",
        })
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// What the status pipe told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing yet.
    Pending,
    /// The parked process stands ready. Told once, then [`Status::Pending`] until its release.
    Parked,
    /// A setting is left out, for this errno(3); the start goes on.
    Skipped(Setting, i32),
    /// A file that the program needs is not locked in memory; the start goes on.
    Unlocked(Unlocked),
    /// What runs where this program fails could not be executed, for this errno(3); the start goes on.
    NoSecond(i32),
    /// `execve` succeeded. (Or the process was killed before it: then its death is told by `reap`.)
    Running,
    /// The start failed; the process exits with code 127.
    Failed(SpawnError),
}

/// Starts a program and does not wait for its `execve`: see [`Child::status`].
///
/// The child is the leader of a new session, has default signal handling and an empty signal mask, lifeboat's old limit
/// of open files, and no descriptor but those that it was given.
pub fn start(start: &Start<'_>) -> Result<Child, SpawnError> {
    let (status, tell) = pipe(OurEnd::Read, start.highest_given())?;
    let plan = Plan::new(start, &tell, None);
    let pid = child::spawn(plan, start.cgroup)?;
    Ok(Child { pid, status })
}

/// Starts a process that does everything up to `execve`, says that it stands ready, and waits for [`release`].
///
/// A program that is missing or not executable is told now, not on the release. The process maps and locks the files
/// that its execve will need, as many as take no more than `lock_max_bytes` together, which charges their pages to its
/// own cgroup where they are in no other's yet. What is left out is told by [`Status::Unlocked`], without harm: then
/// the release is only slower. A program made by [`Program::procedure`] gets the order's values in its environment, and
/// its descriptors.
pub fn park(start: &Start<'_>, lock_max_bytes: u64) -> Result<Parked, SpawnError> {
    let (status, tell) = pipe(OurEnd::Read, start.highest_given())?;
    let (wait, go) = order::order_sockets(SockType::SeqPacket, start.highest_given())?;
    let plan = Plan::new(start, &tell, Some(Hold { wait: &wait, lock_max_bytes, ballast_bytes: 0 }));
    let pid = child::spawn(plan, start.cgroup)?;
    Ok(Parked { pid, status, go })
}

/// The descriptor from which a resident procedure reads its order (`LIFEBOAT_GO_FD`).
pub const GO_FD: RawFd = 3;

/// Starts a resident procedure: its program runs, and reads from [`GO_FD`] the line that [`release_resident`] writes,
/// or the end of the file where nobody will need it any more. Its status tells [`Status::Running`] where its execve(2)
/// succeeded.
pub fn reside(start: &Start<'_>) -> Result<Parked, SpawnError> {
    let (wait, go) = order::order_sockets(SockType::Stream, start.highest_given().max(GO_FD))?;
    let Child { pid, status } = self::start(&Start { handed: &[(wait.as_fd(), GO_FD)], ..*start })?;
    Ok(Parked { pid, status, go })
}

/// A pipe on which a program can say that it is ready: our nonblocking end, and the one to hand over.
pub fn notification_pipe() -> Result<(OwnedFd, OwnedFd), SpawnError> {
    pipe(OurEnd::Read, libc::STDERR_FILENO)
}

/// Reads what a start's status pipe has to tell. Allocates nothing and never blocks.
#[must_use]
pub fn read_status(status: BorrowedFd<'_>) -> Status {
    let mut first = [0_u8; 1];
    match nix::unistd::read(status, &mut first) {
        Ok(0) => Status::Running,
        Ok(_) if first == [child::READY] => Status::Parked,
        Ok(_) if first == [child::SKIPPED] => read_skipped(status),
        Ok(_) if first == [lock::UNLOCKED] => Unlocked::read(status),
        Ok(_) if first == [child::NO_SECOND] => Status::NoSecond(read_errno(status)),
        Ok(_) => Status::Failed(read_failure(first, status)),
        Err(Errno::EAGAIN | Errno::EINTR) => Status::Pending,
        Err(errno) => Status::Failed(SpawnError { stage: SpawnStage::Exec, cause: errno }),
    }
}

/// The rest of the message of a setting that is left out, which the child writes in one piece.
fn read_skipped(status: BorrowedFd<'_>) -> Status {
    let mut rest = [0_u8; 5];
    match nix::unistd::read(status, &mut rest) {
        Ok(5) => {
            let [number, errno @ ..] = rest;
            match Setting::of_number(number) {
                Some(setting) => Status::Skipped(setting, i32::from_ne_bytes(errno)),
                None => Status::Pending,
            }
        }
        Ok(_) | Err(_) => Status::Pending,
    }
}

/// The rest of a failure's message, which the child writes in one piece.
fn read_failure([stage]: [u8; 1], status: BorrowedFd<'_>) -> SpawnError {
    let stage = SpawnStage::ALL.into_iter().find(|known| *known as u8 == stage).unwrap_or(SpawnStage::Exec);
    SpawnError::new(stage, read_errno(status))
}

fn read_errno(status: BorrowedFd<'_>) -> i32 {
    let mut errno = [0_u8; 4];
    match nix::unistd::read(status, &mut errno) {
        Ok(4) => i32::from_ne_bytes(errno),
        Ok(_) | Err(_) => libc::EIO,
    }
}

/// A pipe for a process's words: lifeboat's reading end, nonblocking, and the writing end, which blocks who floods it.
pub fn output_pipe() -> Result<(OwnedFd, OwnedFd), SpawnError> {
    pipe(OurEnd::Read, libc::STDERR_FILENO).map_err(|error| SpawnError { stage: SpawnStage::Stdio, ..error })
}

/// The other way round: a process's standard input, which blocks it, and lifeboat's nonblocking writing end.
pub fn input_pipe() -> Result<(OwnedFd, OwnedFd), SpawnError> {
    pipe(OurEnd::Write, libc::STDERR_FILENO).map_err(|error| SpawnError { stage: SpawnStage::Stdio, ..error })
}

/// Which end of a pipe lifeboat keeps, and therefore must never block on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OurEnd {
    Read,
    Write,
}

/// A pipe (read end, write end) with both numbers above one, so that what the child is given cannot cover them.
fn pipe(ours: OurEnd, above: RawFd) -> Result<(OwnedFd, OwnedFd), SpawnError> {
    let failed = |cause| SpawnError { stage: SpawnStage::Clone, cause };
    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let (read, write) = (moved_above(read, above)?, moved_above(write, above)?);
    let own = if ours == OurEnd::Read { &read } else { &write };
    fcntl(own, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
    Ok((read, write))
}

fn moved_above(fd: OwnedFd, above: RawFd) -> Result<OwnedFd, SpawnError> {
    if fd.as_raw_fd() > above {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(&fd, above + 1)
        .map_err(|errno| SpawnError::new(SpawnStage::Clone, errno.raw_os_error()))
}
