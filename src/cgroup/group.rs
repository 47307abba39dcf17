//! One group, with every file open that is needed while memory is exhausted.
//!
//! After [`Group::equip`] all methods but [`Group::renew`] and [`Group::arm_triggers`] allocate nothing, open nothing
//! (but for the old way to kill) and use fixed buffers on the stack. Their errors are plain errno(3) numbers; `EBADMSG`
//! is a file that says something strange, `ENODATA` a file that this kernel does not have.

use super::delegate;
use super::file::{open_folder, open_in, read_again, write_again};
use super::limits::{self, Controllers, GroupLimits};
use super::parse::{self, GroupState, ParseError};
use crate::engine::event::{LeftBehind, MemoryEvents, MemorySample};
use crate::sys::children;
use crate::sys::error::SysError;
use crate::sys::spawn::{Place, Way};
use nix::fcntl::OFlag;
use rustix::system::sysinfo;
use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Room for files of a few lines.
const SMALL: usize = 512;

/// Room for `memory.stat`: about 60 lines in Linux 6.18.
const STAT: usize = 8192;

/// PSI triggers, best first: since Linux 6.6 a short window is taken, before it 500 ms is the least, and without
/// `CAP_SYS_RESOURCE` it must be a multiple of 2 s.
const TRIGGERS: [&[u8]; 3] = [b"some 10000 50000\0", b"some 100000 500000\0", b"some 200000 2000000\0"];

/// The same windows for the alarm: four fifths of the time lost to waiting for memory. Reading files through a small
/// cgroup costs 5 to 8 %.
const ALARMS: [&[u8]; 3] = [b"some 40000 50000\0", b"some 400000 500000\0", b"some 1600000 2000000\0"];

/// A group of the tree. Its folder is made once and kept over all runs of its unit.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    controllers: Controllers,
    bounded: bool,
    swaps: bool,
    /// `cgroup.kill` was used on it, by this lifeboat or maybe by an earlier one.
    killed: Cell<bool>,
    /// `cgroup.freeze` may hold 1, from this lifeboat or an earlier one.
    frozen: Cell<bool>,
    folder: OwnedFd,
    events: OwnedFd,
    kill: Option<OwnedFd>,
    memory_events: Option<OwnedFd>,
    /// `memory.events`, which counts the groups below too, where a unit may make such.
    memory_events_below: Option<OwnedFd>,
    equipment: Option<Equipment>,
    /// The PSI triggers: the doorbell and the alarm.
    trigger: Option<OwnedFd>,
    alarm: Option<OwnedFd>,
}

/// What the exhaustion path needs open beside the rest. A unit without a procedure goes without: each descriptor costs
/// the kernel memory and the start time.
#[derive(Debug)]
struct Equipment {
    freeze: Option<OwnedFd>,
    current: Option<OwnedFd>,
    stat: Option<OwnedFd>,
    pressure: Option<OwnedFd>,
}

impl Group {
    /// Opens the group in a folder that is there; `is_new` where lifeboat has just made it.
    pub(super) fn open(path: PathBuf, is_new: bool, controllers: Controllers) -> Result<Self, SysError> {
        let folder = open_folder(&path)?;
        let read = |name| open_in(folder.as_fd(), &path, name, OFlag::O_RDONLY);
        let needed = |name: &str, file: Option<OwnedFd>| {
            file.ok_or_else(|| SysError::new("open", path.join(name).display().to_string(), libc::ENOENT))
        };
        let memory_events = if controllers.memory {
            Some(needed("memory.events.local", read("memory.events.local")?)?)
        } else {
            None
        };
        let events = needed("cgroup.events", read("cgroup.events")?)?;
        let kill = open_in(folder.as_fd(), &path, "cgroup.kill", OFlag::O_WRONLY)?;
        Ok(Self {
            controllers,
            bounded: false,
            swaps: false,
            killed: Cell::new(!is_new),
            frozen: Cell::new(!is_new),
            events,
            kill,
            memory_events,
            memory_events_below: None,
            equipment: None,
            trigger: None,
            alarm: None,
            folder,
            path,
        })
    }

    /// Opens what the exhaustion path needs, once, so that nothing has to be opened in it.
    pub fn equip(&mut self) -> Result<(), SysError> {
        if self.equipment.is_none() {
            self.equipment = Some(self.open_equipment()?);
        }
        Ok(())
    }

    fn open_equipment(&self) -> Result<Equipment, SysError> {
        let open = |name, flags| open_in(self.folder.as_fd(), &self.path, name, flags);
        let memory = |name| if self.controllers.memory { open(name, OFlag::O_RDONLY) } else { Ok(None) };
        Ok(Equipment {
            freeze: open("cgroup.freeze", OFlag::O_WRONLY)?,
            current: memory("memory.current")?,
            stat: memory("memory.stat")?,
            // A kernel that was booted with psi=0 may have the file and refuse to open or read it.
            pressure: memory("memory.pressure").ok().flatten(),
        })
    }

    /// The equipment that is kept open, or one that is opened for this call.
    fn with_equipment<T>(&self, use_it: impl FnOnce(&Equipment) -> Result<T, i32>) -> Result<T, i32> {
        match &self.equipment {
            Some(equipment) => use_it(equipment),
            None => use_it(&self.open_equipment().map_err(|error| error.errno())?),
        }
    }

    /// Lets the unit make groups of its own below this one, as this user and group.
    ///
    /// From now on what happens below counts as well ([`Group::memory_events`]).
    pub fn delegate(&mut self, owner: (Option<u32>, Option<u32>)) -> Result<(), SysError> {
        if self.controllers.memory && self.memory_events_below.is_none() {
            let file = open_in(self.folder.as_fd(), &self.path, "memory.events", OFlag::O_RDONLY)?;
            self.memory_events_below = file;
        }
        delegate::hand_over(self.folder.as_fd(), &self.path, owner)
    }

    /// Removes the groups that its unit has made below it, once none has a process.
    pub fn sweep(&self) -> Result<(), SysError> {
        delegate::sweep(self.folder.as_fd(), &self.path)
    }

    /// What was frozen to be killed goes on, so that the next process in it runs (before Linux 5.14; see
    /// [`Group::kill`]).
    ///
    /// # Errors
    /// Where the kernel does not take it.
    pub fn wake(&self) -> Result<(), SysError> {
        if self.frozen.get() {
            match self.thaw() {
                // No freezer: never frozen.
                Ok(()) | Err(libc::ENODATA) => self.frozen.set(false),
                Err(errno) => return Err(SysError::new("thaw", self.path.display().to_string(), errno)),
            }
        }
        Ok(())
    }

    /// Prepares the group for a further run: thaws it, empties it of groups and sees to its limits.
    pub fn renew(&mut self, limits: &GroupLimits) -> Result<(), SysError> {
        self.wake()?;
        self.sweep()?;
        self.set_limits(limits, false)
    }

    /// Sets the limits; `is_new` where the folder has just been made.
    pub(super) fn set_limits(&mut self, limits: &GroupLimits, is_new: bool) -> Result<(), SysError> {
        self.bounded = false;
        limits::apply(&self.path, limits, self.controllers, is_new)?;
        self.bounded = self.controllers.memory && limits.memory_max_bytes.is_some();
        Ok(())
    }

    /// Says whether what it holds may be swapped out: then [`Group::sample`] looks how much.
    pub fn set_swaps(&mut self, swaps: bool) {
        self.swaps = swaps;
    }

    /// Arms two PSI triggers. They make [`Group::trigger_fd`] and [`Group::alarm_fd`] ready (`Interest::Priority`) when
    /// tasks of the group wait for memory, and when they do little else. Where the kernel takes none the group goes
    /// without. Costs a kernel thread for each group.
    pub fn arm_triggers(&mut self) -> bool {
        // A folder of captured files must not be written to.
        if !super::capabilities::is_cgroup2_folder(self.folder.as_fd()) {
            return false;
        }
        if self.trigger.is_none() {
            self.trigger = self.arm(&TRIGGERS);
            self.alarm = self.arm(&ALARMS);
        }
        self.trigger.is_some()
    }

    /// One trigger for each open file (Documentation/accounting/psi.rst).
    fn arm(&self, texts: &[&[u8]]) -> Option<OwnedFd> {
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK;
        texts.iter().find_map(|text| {
            let file = open_in(self.folder.as_fd(), &self.path, "memory.pressure", flags).ok()??;
            write_again(file.as_fd(), text).is_ok().then_some(file)
        })
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

    /// `memory.events.local`, or `memory.events` where there may be groups below, to wait for (`Interest::Priority`);
    /// [`Group::memory_events`] makes it quiet again.
    #[must_use]
    pub fn memory_events_fd(&self) -> Option<BorrowedFd<'_>> {
        self.memory_events_below.as_ref().or(self.memory_events.as_ref()).map(AsFd::as_fd)
    }

    /// The PSI trigger, to wait for (`Interest::Priority`). It needs no reading.
    #[must_use]
    pub fn trigger_fd(&self) -> Option<BorrowedFd<'_>> {
        self.trigger.as_ref().map(AsFd::as_fd)
    }

    /// The PSI trigger of the alarm, to wait for as for [`Group::trigger_fd`].
    #[must_use]
    pub fn alarm_fd(&self) -> Option<BorrowedFd<'_>> {
        self.alarm.as_ref().map(AsFd::as_fd)
    }

    /// Sets `memory.high`, above what is used: below that the kernel would reclaim in this call. From Linux 6.18 on a
    /// nonblocking file prevents that.
    pub fn set_high(&self, bytes: Option<u64>) -> Result<(), i32> {
        self.set_bytes("memory.high", bytes)
    }

    /// Sets `memory.max`, above what is used or with nothing in the group: else the kernel would reclaim, and kill,
    /// in this call.
    pub fn set_max(&self, bytes: u64) -> Result<(), i32> {
        self.set_bytes("memory.max", Some(bytes))
    }

    /// As [`Group::set_max`], and never lowers it: a bound that is to be lowered may still stand above what is lent.
    pub fn raise_max(&self, bytes: u64) -> Result<(), i32> {
        let file = open_in(self.folder.as_fd(), &self.path, "memory.max", OFlag::O_RDONLY);
        let file = file.map_err(|error| error.errno())?.ok_or(libc::ENODATA)?;
        let mut buffer = [0; SMALL];
        let present = parse::limit(read_again(file.as_fd(), &mut buffer)?).map_err(strange)?;
        if present.is_some_and(|present| present < bytes) { self.set_max(bytes) } else { Ok(()) }
    }

    fn set_bytes(&self, name: &str, bytes: Option<u64>) -> Result<(), i32> {
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
        let file = open_in(self.folder.as_fd(), &self.path, name, flags);
        let file = file.map_err(|error| error.errno())?.ok_or(libc::ENODATA)?;
        let mut text = [0_u8; 20];
        let mut rest = &mut text[..];
        match bytes {
            Some(bytes) => write!(rest, "{bytes}").map_err(|_| libc::EINVAL)?,
            None => rest.write_all(b"max").map_err(|_| libc::EINVAL)?,
        }
        let left = rest.len();
        write_again(file.as_fd(), text.get(..text.len() - left).ok_or(libc::EINVAL)?)
    }

    /// Asks the kernel to freeze all processes; [`Group::state`] tells when it has.
    pub fn freeze(&self) -> Result<(), i32> {
        self.frozen.set(true);
        self.write_freeze(b"1")
    }

    /// Lets frozen processes go on.
    pub fn thaw(&self) -> Result<(), i32> {
        self.write_freeze(b"0")
    }

    fn write_freeze(&self, value: &[u8]) -> Result<(), i32> {
        self.with_equipment(|equipment| {
            write_again(equipment.freeze.as_ref().ok_or(libc::ENODATA)?.as_fd(), value)
        })
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
        match self.freeze() {
            Ok(()) | Err(libc::ENODATA) => {}
            Err(errno) => return Err(errno),
        }
        self.signal(libc::SIGKILL)
    }

    /// Sends a signal to each process of the group and of those below. One that is made meanwhile may miss it.
    pub fn signal(&self, signal: i32) -> Result<(), i32> {
        // Gone already is as good.
        let mut each = |pid| {
            let _ = children::signal(pid, signal);
        };
        self.each_process(&mut each)?;
        delegate::each_below(self.folder.as_fd(), &self.path, &mut |path| {
            // A group that has gone meanwhile has no process.
            let _ = File::open(path.join("cgroup.procs")).map(|procs| each_pid(&procs, &mut each));
        });
        Ok(())
    }

    /// Gives each process of the group itself. One that is made meanwhile may be missed.
    pub fn each_process(&self, mut each: impl FnMut(u32)) -> Result<(), i32> {
        let procs = nix::fcntl::openat(
            &self.folder,
            c"cgroup.procs",
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )
        .map_err(|errno| errno as i32)?;
        each_pid(&procs, &mut each)
    }

    /// Populated and frozen, from `cgroup.events`.
    pub fn state(&self) -> Result<GroupState, i32> {
        let mut buffer = [0; SMALL];
        parse::group_state(read_again(self.events.as_fd(), &mut buffer)?).map_err(strange)
    }

    /// Processor time that its processes have used since it was made: `usage_usec` of `cpu.stat`, which is there
    /// without the cpu controller too. Opens the file for each call.
    pub fn cpu_usage_us(&self) -> Result<u64, i32> {
        let file = open_in(self.folder.as_fd(), &self.path, "cpu.stat", OFlag::O_RDONLY);
        let file = file.map_err(|error| error.errno())?.ok_or(libc::ENODATA)?;
        let mut buffer = [0; SMALL];
        parse::cpu_usage_us(read_again(file.as_fd(), &mut buffer)?).map_err(strange)
    }

    /// `memory.peak` (Linux 5.19), over all runs since the folder was made. Opens the file for each call.
    pub fn peak_bytes(&self) -> Result<u64, i32> {
        let file = open_in(self.folder.as_fd(), &self.path, "memory.peak", OFlag::O_RDONLY);
        let file = file.map_err(|error| error.errno())?.ok_or(libc::ENODATA)?;
        let mut buffer = [0; SMALL];
        parse::number(read_again(file.as_fd(), &mut buffer)?).map_err(strange)
    }

    /// The counters of `memory.events.local`; where there may be groups below, of `memory.events`, and of `oom` those
    /// that these met at limits of their own.
    pub fn memory_events(&self) -> Result<MemoryEvents, i32> {
        let mut buffer = [0; SMALL];
        let mut read =
            |file: &OwnedFd| parse::memory_events(read_again(file.as_fd(), &mut buffer)?).map_err(strange);
        let own = read(self.memory_events.as_ref().ok_or(libc::ENODATA)?)?;
        let Some(below) = &self.memory_events_below else { return Ok(own) };
        // Read later, so that it counts no less.
        let all = read(below)?;
        Ok(MemoryEvents { oom_below: all.oom.saturating_sub(own.oom), ..all })
    }

    /// One reading of the memory files; what is the machine's is left out. Without PSI its part is 0.
    ///
    /// `memory.stat` is the dear one (the kernel sums up over all CPUs): not for every turn of the loop.
    pub fn sample(&self) -> Result<MemorySample, i32> {
        self.with_equipment(|equipment| {
            let current_bytes = equipment.current_bytes()?;
            let room_bytes = self.swap_room_bytes().unwrap_or(0);
            let stat = |text: &[u8]| {
                let unreclaimable_bytes = parse::unreclaimable_bytes(text, room_bytes)?;
                Ok((unreclaimable_bytes, parse::refaults(text)?, parse::dirty_kib(text)?))
            };
            let (unreclaimable_bytes, refaults, dirty_kib) = equipment.stat(stat)?;
            let pressure = equipment.pressure().unwrap_or_default();
            Ok(MemorySample {
                current_bytes,
                unreclaimable_bytes,
                psi_some_avg10: pressure.some_avg10,
                psi_full_avg10: pressure.full_avg10,
                refaults,
                dirty_kib,
                ..MemorySample::default()
            })
        })
    }

    /// So much more of it may be swapped out, by its limit and by the machine's swap (sysinfo(2)). Opens its files for
    /// each call: a guarded unit has no swap.
    fn swap_room_bytes(&self) -> Result<u64, i32> {
        if !self.swaps {
            return Ok(0);
        }
        let mut buffer = [0; SMALL];
        let mut read = |name| {
            let file = open_in(self.folder.as_fd(), &self.path, name, OFlag::O_RDONLY);
            let file = file.map_err(|error| error.errno())?.ok_or(libc::ENODATA)?;
            parse::limit(read_again(file.as_fd(), &mut buffer)?).map_err(strange)
        };
        let max_bytes = read("memory.swap.max")?.unwrap_or(u64::MAX);
        let used_bytes = read("memory.swap.current")?.unwrap_or(0);
        let machine = sysinfo();
        let free_bytes = machine.freeswap.saturating_mul(machine.mem_unit.into());
        Ok(max_bytes.saturating_sub(used_bytes).min(free_bytes))
    }

    /// `memory.current`.
    pub fn current_bytes(&self) -> Result<u64, i32> {
        self.with_equipment(Equipment::current_bytes)
    }

    /// Of `memory.stat` what `parse` finds.
    pub fn stat<T>(&self, parse: impl FnOnce(&[u8]) -> Result<T, ParseError>) -> Result<T, i32> {
        self.with_equipment(|equipment| equipment.stat(parse))
    }

    /// What is charged to a group in which no process is left.
    pub fn left_behind(&self) -> Result<LeftBehind, i32> {
        self.with_equipment(|equipment| {
            let current_bytes = equipment.current_bytes()?;
            let (shmem_bytes, file_bytes) = equipment.stat(parse::shmem_and_file_bytes)?;
            Ok(LeftBehind { current_bytes, shmem_bytes, file_bytes })
        })
    }
}

impl Equipment {
    fn current_bytes(&self) -> Result<u64, i32> {
        let file = self.current.as_ref().ok_or(libc::ENODATA)?;
        let mut buffer = [0; SMALL];
        parse::number(read_again(file.as_fd(), &mut buffer)?).map_err(strange)
    }

    fn stat<T>(&self, parse: impl FnOnce(&[u8]) -> Result<T, ParseError>) -> Result<T, i32> {
        let file = self.stat.as_ref().ok_or(libc::ENODATA)?;
        let mut buffer = [0; STAT];
        parse(read_again(file.as_fd(), &mut buffer)?).map_err(strange)
    }

    fn pressure(&self) -> Result<parse::Pressure, i32> {
        let file = self.pressure.as_ref().ok_or(libc::ENODATA)?;
        let mut buffer = [0; SMALL];
        parse::pressure(read_again(file.as_fd(), &mut buffer)?).map_err(strange)
    }
}

fn strange(_: ParseError) -> i32 {
    libc::EBADMSG
}

/// Each number of a file of `cgroup.procs`.
fn each_pid(procs: &impl AsFd, each: &mut impl FnMut(u32)) -> Result<(), i32> {
    let mut buffer = [0_u8; SMALL];
    let mut pid: u32 = 0;
    loop {
        let length = nix::unistd::read(procs, &mut buffer).map_err(|errno| errno as i32)?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        for byte in bytes {
            if byte.is_ascii_digit() {
                pid = pid.saturating_mul(10).saturating_add(u32::from(byte - b'0'));
                continue;
            }
            each(std::mem::take(&mut pid));
        }
    }
}
