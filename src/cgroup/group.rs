//! One group, with every file open that is needed while memory is exhausted.
//!
//! All methods but [`Group::renew`] and [`Group::arm_trigger`] allocate nothing, open nothing (but for the old way to
//! kill) and use fixed buffers on the stack. Their errors are plain errno(3) numbers; `EBADMSG` is a file that says
//! something strange, `ENODATA` a file that this kernel does not have.

use super::file::{open_folder, open_in, read_again, write_again};
use super::limits::{self, Controllers, GroupLimits};
use super::parse::{self, GroupState, ParseError};
use crate::engine::event::{MemoryEvents, MemorySample};
use crate::sys::error::SysError;
use crate::sys::spawn::{Place, Way};
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Room for files of a few lines.
const SMALL: usize = 512;

/// Room for `memory.stat`: about 60 lines in Linux 6.18.
const STAT: usize = 8192;

/// PSI triggers, best first: since Linux 6.6 a short window is taken, before it 500 ms is the least, and without
/// `CAP_SYS_RESOURCE` it must be a multiple of 2 s.
const TRIGGERS: [&[u8]; 3] = [b"some 10000 50000\0", b"some 100000 500000\0", b"some 200000 2000000\0"];

/// A group of the tree. Its folder is made once and kept over all runs of its unit.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    controllers: Controllers,
    bounded: bool,
    /// `cgroup.kill` was used on it, by this lifeboat or maybe by an earlier one.
    killed: Cell<bool>,
    folder: OwnedFd,
    events: OwnedFd,
    freeze: Option<OwnedFd>,
    kill: Option<OwnedFd>,
    memory: Option<MemoryFiles>,
    pressure: Option<OwnedFd>,
    trigger: Option<OwnedFd>,
}

#[derive(Debug)]
struct MemoryFiles {
    events: OwnedFd,
    current: OwnedFd,
    stat: OwnedFd,
}

impl Group {
    /// Opens the group in a folder that is there; `is_new` where lifeboat has just made it.
    pub(super) fn open(path: PathBuf, is_new: bool, controllers: Controllers) -> Result<Self, SysError> {
        let folder = open_folder(&path)?;
        let read = |name| open_in(folder.as_fd(), &path, name, OFlag::O_RDONLY);
        let write = |name| open_in(folder.as_fd(), &path, name, OFlag::O_WRONLY);
        let needed = |name: &str, file: Option<OwnedFd>| {
            file.ok_or_else(|| SysError::new("open", path.join(name).display().to_string(), libc::ENOENT))
        };
        let memory = if controllers.memory {
            Some(MemoryFiles {
                events: needed("memory.events.local", read("memory.events.local")?)?,
                current: needed("memory.current", read("memory.current")?)?,
                stat: needed("memory.stat", read("memory.stat")?)?,
            })
        } else {
            None
        };
        let events = needed("cgroup.events", read("cgroup.events")?)?;
        // A kernel that was booted with psi=0 may have the file and refuse to open or read it.
        let pressure = read("memory.pressure").ok().flatten();
        let (freeze, kill) = (write("cgroup.freeze")?, write("cgroup.kill")?);
        let (bounded, killed) = (false, Cell::new(!is_new));
        Ok(Self {
            path,
            controllers,
            bounded,
            killed,
            folder,
            events,
            freeze,
            kill,
            memory,
            pressure,
            trigger: None,
        })
    }

    /// Prepares the group for a run: thaws it and sets its limits, which are read back.
    pub fn renew(&mut self, limits: &GroupLimits) -> Result<(), SysError> {
        self.bounded = false;
        if self.freeze.is_some() {
            self.thaw().map_err(|errno| SysError::new("thaw", self.path.display().to_string(), errno))?;
        }
        limits::apply(&self.path, limits, self.controllers)?;
        self.bounded = self.controllers.memory && limits.memory_max_bytes.is_some();
        Ok(())
    }

    /// Arms a PSI trigger, which then makes [`Group::trigger_fd`] ready (`Interest::Priority`) when tasks of the group
    /// wait for memory. Where the kernel takes none the group goes without. Costs a kernel thread for each group.
    pub fn arm_trigger(&mut self) -> bool {
        if self.trigger.is_some() {
            return true;
        }
        // A folder of captured files must not be written to.
        if !super::capabilities::is_cgroup2_folder(self.folder.as_fd()) {
            return false;
        }
        for text in TRIGGERS {
            let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK;
            let Ok(Some(file)) = open_in(self.folder.as_fd(), &self.path, "memory.pressure", flags) else {
                return false;
            };
            if write_again(file.as_fd(), text).is_ok() {
                self.trigger = Some(file);
                return true;
            }
        }
        false
    }

    /// Its folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A memory limit is in force: only then may its processes be shielded from the OOM killer.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.bounded
    }

    /// Where to start a process in it, and the way in.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        let way = if self.killed.get() { Way::Moved } else { Way::Born };
        Place { folder: self.folder.as_fd(), way }
    }

    /// `cgroup.events`, to wait for (`Interest::Priority`); [`Group::state`] makes it quiet again.
    #[must_use]
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// `memory.events.local`, to wait for (`Interest::Priority`); [`Group::memory_events`] makes it quiet again.
    #[must_use]
    pub fn memory_events_fd(&self) -> Option<BorrowedFd<'_>> {
        self.memory.as_ref().map(|memory| memory.events.as_fd())
    }

    /// The PSI trigger, to wait for (`Interest::Priority`). It needs no reading.
    #[must_use]
    pub fn trigger_fd(&self) -> Option<BorrowedFd<'_>> {
        self.trigger.as_ref().map(AsFd::as_fd)
    }

    /// Asks the kernel to freeze all processes; [`Group::state`] tells when it has.
    pub fn freeze(&self) -> Result<(), i32> {
        write_again(self.freeze.as_ref().ok_or(libc::ENODATA)?.as_fd(), b"1")
    }

    /// Lets frozen processes go on.
    pub fn thaw(&self) -> Result<(), i32> {
        write_again(self.freeze.as_ref().ok_or(libc::ENODATA)?.as_fd(), b"0")
    }

    /// Kills every process of the group and of its descendants, frozen or not.
    ///
    /// A kernel without `cgroup.kill` (before 5.14) gets the old way: freeze, so that nothing forks any more, then a
    /// signal to each process of the group itself. Repeat it while the group stays populated.
    pub fn kill(&self) -> Result<(), i32> {
        match &self.kill {
            Some(file) => {
                self.killed.set(true);
                write_again(file.as_fd(), b"1")
            }
            None => self.kill_each(),
        }
    }

    fn kill_each(&self) -> Result<(), i32> {
        if self.freeze.is_some() {
            self.freeze()?;
        }
        let procs = nix::fcntl::openat(
            &self.folder,
            c"cgroup.procs",
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )
        .map_err(|errno| errno as i32)?;
        let mut buffer = [0_u8; SMALL];
        let mut pid: i32 = 0;
        loop {
            let length = nix::unistd::read(&procs, &mut buffer).map_err(|errno| errno as i32)?;
            let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            for byte in bytes {
                if byte.is_ascii_digit() {
                    pid = pid.saturating_mul(10).saturating_add(i32::from(byte - b'0'));
                } else if std::mem::take(&mut pid) > 0 {
                    // Gone already is as good.
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
    }

    /// Populated and frozen, from `cgroup.events`.
    pub fn state(&self) -> Result<GroupState, i32> {
        let mut buffer = [0; SMALL];
        parse::group_state(read_again(self.events.as_fd(), &mut buffer)?).map_err(strange)
    }

    /// The counters of `memory.events.local`.
    pub fn memory_events(&self) -> Result<MemoryEvents, i32> {
        let memory = self.memory.as_ref().ok_or(libc::ENODATA)?;
        let mut buffer = [0; SMALL];
        parse::memory_events(read_again(memory.events.as_fd(), &mut buffer)?).map_err(strange)
    }

    /// One reading of the memory files. Without PSI its part is 0.
    ///
    /// `memory.stat` is the dear one (the kernel sums up over all CPUs): not for every turn of the loop.
    pub fn sample(&self) -> Result<MemorySample, i32> {
        let memory = self.memory.as_ref().ok_or(libc::ENODATA)?;
        let mut small = [0; SMALL];
        let current_bytes =
            parse::number(read_again(memory.current.as_fd(), &mut small)?).map_err(strange)?;
        let mut stat = [0; STAT];
        let unreclaimable_bytes =
            parse::unreclaimable_bytes(read_again(memory.stat.as_fd(), &mut stat)?).map_err(strange)?;
        let pressure = self.pressure().unwrap_or_default();
        Ok(MemorySample {
            current_bytes,
            unreclaimable_bytes,
            psi_some_avg10: pressure.some_avg10,
            psi_full_avg10: pressure.full_avg10,
            psi_full_total_us: pressure.full_total_us,
        })
    }

    /// `memory.pressure`.
    pub fn pressure(&self) -> Result<parse::Pressure, i32> {
        let file = self.pressure.as_ref().ok_or(libc::ENODATA)?;
        let mut buffer = [0; SMALL];
        parse::pressure(read_again(file.as_fd(), &mut buffer)?).map_err(strange)
    }
}

fn strange(_: ParseError) -> i32 {
    libc::EBADMSG
}
