//! What can happen: the closed list of everything that reaches the engine.
//!
//! Events are small and `Copy`, so that the recorder keeps them in a ring without allocating and an incident can
//! be replayed from them. Every event about a process or a cgroup carries its run.

#![expect(
    missing_docs,
    reason = "the fields of the events are named by their types and by the line above each event"
)]

use super::limits::DIRTY_DIVISOR;
use super::policy::{RunId, UnitId};
use super::setting::{Limit, Setting};
use super::snapshot::KilledBy;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

/// Microseconds of `CLOCK_BOOTTIME` (clock_gettime(2)): it also runs while the machine sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// This time and so many milliseconds.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000)))
    }

    /// Microseconds since an earlier time; 0 where it is not earlier.
    #[must_use]
    pub const fn since_us(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Whose process or cgroup an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// The service or task itself, in `guaranteed/NAME` or `pool/NAME`.
    Service,
    /// Its shutdown procedure, in `shutdown/NAME`.
    Procedure,
    /// One of its commands, in `pool/+NAME`. Where an event or an action is about a command, its run is the command's
    /// own number.
    Command,
    /// The ballast of a unit with `Guard::Canary`, in the service's cgroup.
    Ballast,
}

/// What a command beside the service is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandKind {
    /// To stop the service.
    Stop,
    /// To have it read its configuration anew.
    Reload,
    /// To check its health.
    Health,
    /// To make room, or to save something, while its memory comes to an end.
    Warn,
}

impl CommandKind {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::Stop, Self::Reload, Self::Health, Self::Warn];

    /// The word that `LIFEBOAT_REASON` holds.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Reload => "reload",
            Self::Health => "health",
            Self::Warn => "warn",
        }
    }
}

/// How a process ended, as waitid(2) tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it. Real-time signals are plain numbers here.
    Signal(i32),
    /// Only its parent knows, which is not lifeboat.
    Unseen {},
}

impl Exit {
    /// Exit code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

/// Where a start failed: in lifeboat before the process was made, or in the child before `execve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum SpawnStage {
    /// The cgroup could not be made.
    Cgroup = 1,
    /// A limit was not taken by the kernel.
    Limit = 2,
    /// clone3(2) failed.
    Clone = 3,
    /// The child could not move itself into the cgroup (kernels without `CLONE_INTO_CGROUP`).
    JoinCgroup = 4,
    /// `/proc/self/oom_score_adj` could not be written.
    OomScoreAdj = 5,
    /// Standard input and output could not be set.
    Stdio = 6,
    /// The working directory could not be entered.
    WorkingDirectory = 7,
    /// execve(2) failed.
    Exec = 8,
    /// A resource limit of the process was not taken (setrlimit(2)).
    ResourceLimit = 9,
    /// The nice value was not taken (setpriority(2)).
    Nice = 10,
    /// The scheduling policy was not taken (sched_setscheduler(2)).
    Scheduler = 11,
    /// The processors were not taken, or not all of them (sched_setaffinity(2)).
    CpuAffinity = 12,
    /// The io priority was not taken (ioprio_set(2)).
    IoPriority = 13,
    /// A mount namespace of its own could not be made (unshare(2)).
    MountNamespace = 14,
    /// The root directory could not be entered (chroot(2)).
    RootDirectory = 15,
    /// A path could not be made read-only (mount_setattr(2), Linux 5.12).
    ReadOnly = 16,
    /// A path could not be hidden (mount(2)).
    Hidden = 17,
    /// A `/tmp` of its own could not be mounted.
    PrivateTmp = 18,
    /// A `/dev/shm` of its own could not be mounted.
    PrivateShm = 19,
    /// The supplementary groups were not taken (setgroups(2)).
    Groups = 20,
    /// The group was not taken (setresgid(2)).
    Group = 21,
    /// The user was not taken (setresuid(2)).
    User = 22,
    /// Capabilities were not taken (capabilities(7)).
    Capabilities = 23,
    /// `no_new_privs` was not taken (prctl(2)).
    NoNewPrivs = 24,
    /// A socket could not be opened for it.
    Sockets = 25,
}

impl SpawnStage {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 25] = [
        Self::Cgroup,
        Self::Limit,
        Self::Clone,
        Self::JoinCgroup,
        Self::OomScoreAdj,
        Self::Stdio,
        Self::WorkingDirectory,
        Self::Exec,
        Self::ResourceLimit,
        Self::Nice,
        Self::Scheduler,
        Self::CpuAffinity,
        Self::IoPriority,
        Self::MountNamespace,
        Self::RootDirectory,
        Self::ReadOnly,
        Self::Hidden,
        Self::PrivateTmp,
        Self::PrivateShm,
        Self::Groups,
        Self::Group,
        Self::User,
        Self::Capabilities,
        Self::NoNewPrivs,
        Self::Sockets,
    ];

    /// Whether what failed is a setting of the unit, which the kernel will not take later either.
    #[must_use]
    pub fn is_setting(self) -> bool {
        self == Self::Limit || (self as u8 >= Self::ResourceLimit as u8 && self != Self::Sockets)
    }
}

/// Counters of `memory.events.local`, with `delegate` of `memory.events` (Documentation/admin-guide/cgroup-v2.rst).
/// Absolute values; they only grow, also from one run to the next, since a unit keeps its cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryEvents {
    /// Times that usage went over `memory.high`.
    pub high: u64,
    /// Times that a charge met `memory.max`, also when cache was then reclaimed.
    pub max: u64,
    /// Times that nothing could be reclaimed and the OOM killer was called in this cgroup.
    pub oom: u64,
    /// Processes of this cgroup killed by any OOM killer.
    pub oom_kill: u64,
    /// Of `oom`, those at limits of cgroups that the unit has made below its own (`delegate`).
    #[serde(default)]
    pub oom_below: u64,
}

/// One reading of a cgroup's memory files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemorySample {
    /// `memory.current`.
    pub current_bytes: u64,
    /// U: bytes that reclaim cannot free: anonymous, shared memory, unevictable and kernel memory.
    pub unreclaimable_bytes: u64,
    /// `some avg10` of `memory.pressure`, in hundredths of a percent.
    pub psi_some_avg10: u16,
    /// `full avg10` of `memory.pressure`, in hundredths of a percent.
    pub psi_full_avg10: u16,
    /// `some avg10` of the machine's `/proc/pressure/cpu`, in hundredths of a percent.
    #[serde(default)]
    pub cpu_some_avg10: u16,
    /// Pages that were read again after they had been reclaimed, of files and of swap (`workingset_refault_*` of
    /// `memory.stat`), modulo 2^32.
    #[serde(default)]
    pub refaults: u32,
    /// `MemAvailable` of the machine, in KiB as in proc_meminfo(5); none where it cannot be read.
    #[serde(default)]
    pub available_kib: Option<NonZeroU32>,
    /// Pages of files that the disk has not taken yet (`file_dirty` and `file_writeback` of `memory.stat`), in KiB.
    #[serde(default)]
    pub dirty_kib: u32,
}

impl MemorySample {
    /// Pages of files that the disk has not taken yet.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        u64::from(self.dirty_kib) << 10
    }

    /// It writes faster than its disk: the kernel aims at less than that (`vm.dirty_ratio` is 20 by default, and it
    /// begins to write at half of that).
    #[must_use]
    pub fn waits_for_its_disk(&self, limit_bytes: u64) -> bool {
        self.dirty_bytes() >= (limit_bytes / DIRTY_DIVISOR).max(1)
    }

    /// `MemAvailable` of the machine.
    #[must_use]
    pub fn available_bytes(&self) -> Option<u64> {
        self.available_kib.map(|kib| u64::from(kib.get()) << 10)
    }
}

/// What is still charged to a service's cgroup when no process is left in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftBehind {
    /// `memory.current`.
    pub current_bytes: u64,
    /// `shmem` of `memory.stat`: files on tmpfs, and memfds that others hold.
    pub shmem_bytes: u64,
    /// `file` of `memory.stat`, in which the kernel counts `shmem` too; the rest of it is page cache.
    pub file_bytes: u64,
}

/// How the machine is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShutdownKind {
    /// reboot(2) with `RB_POWER_OFF`.
    PowerOff,
    /// reboot(2) with `RB_AUTOBOOT`.
    Reboot,
    /// reboot(2) with `RB_HALT_SYSTEM`.
    Halt,
}

/// What a service said by sd_notify(3), as far as decisions rest on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// `READY=1`.
    Ready,
    /// `RELOADING=1`: it reads its configuration anew, and says `READY=1` when it is done.
    Reloading,
    /// `STOPPING=1`: it is on its way out.
    Stopping,
    /// `WATCHDOG=1`: it is alive.
    Alive,
    /// `WATCHDOG=trigger`: it asks to be treated as if it were not.
    Failing,
    /// `EXTEND_TIMEOUT_USEC`: the present step may take so much longer from now on.
    ExtendMs(u32),
    /// `MAINPID`: another process of its own, whose end the runtime will see, is its first one from now on.
    MainPid(u32),
    /// `STATUS`: the runtime holds a new text for readers.
    Status,
}

/// What a person asked of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Bring it up, with what it requires.
    Start,
    /// Bring it down, with what requires it.
    Stop,
    /// Down, then up.
    Restart,
    /// Have it read its configuration anew.
    Reload,
    /// Its way to the shutdown procedure and back.
    Drill,
    /// Its way to the shutdown procedure and to the end, and a new start.
    DrillToTheEnd,
}

/// What is to happen where a new `memory.max` is below what the unit uses, and that cannot be reclaimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Below {
    /// Nothing: the old limit holds.
    Refuse,
    /// The unit's shutdown procedure saves it; its next run begins with the new limit.
    Rescue,
}

/// What came of a step on the way to a new limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tried {
    /// What the unit uses fits below it; nothing is written yet.
    Fits,
    /// It holds.
    Taken,
    /// More is used, and cannot be reclaimed.
    TooFull { current_bytes: u64 },
    /// The kernel did not take it.
    Refused { errno: i32 },
}

/// A connection of the control socket. Never reused while lifeboat runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientId(pub u64);

/// What the runtime could not do for the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Writing `cgroup.freeze`.
    Freeze,
    /// Writing `cgroup.kill`.
    Kill,
    /// Sending a signal to all processes of a cgroup.
    Signal,
    /// Releasing the parked procedure.
    StartProcedure,
    /// Raising `memory.max` by what is lent.
    Lend,
}

/// Everything that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The machine is ready for its first unit. Comes once.
    Boot,
    /// No news but the time: something in the timer table is due.
    Deadline,
    /// The answer to `Action::CheckConditions`: the first condition that is not met, from 0. `run` is the one that
    /// would begin.
    ConditionsChecked { unit: UnitId, run: RunId, unmet: Option<u8> },
    /// The procedure's process stands ready before `execve`.
    Parked { unit: UnitId, run: RunId, pid: u32 },
    /// The ballast stands: all of its pages are there.
    BallastStands { unit: UnitId, run: RunId },
    /// The service's `execve` succeeded.
    Spawned { unit: UnitId, run: RunId, pid: u32 },
    /// The service is ready: by its notification descriptor, or because its path is there.
    Ready { unit: UnitId, run: RunId },
    /// A health check of the service is over, within its time.
    Probed { unit: UnitId, run: RunId, healthy: bool },
    /// A process of the service's cgroup said something.
    Notified { unit: UnitId, run: RunId, note: Note },
    /// Something waits in a socket of a unit that rests. The run is its last one.
    Demanded { unit: UnitId, run: RunId },
    /// The answer to a look whether the service is idle: nobody is connected, nothing waits, and it has done nothing
    /// since the look before.
    LookedIdle { unit: UnitId, run: RunId, idle: bool },
    /// The service could not be started or the procedure not be parked.
    SpawnFailed { unit: UnitId, run: RunId, role: Role, stage: SpawnStage, errno: i32 },
    /// The kernel did not take a setting; the start goes on without it where the unit may do without (`skipped`).
    SettingRefused { unit: UnitId, run: RunId, setting: Setting, errno: i32, skipped: bool },
    /// `memory.peak` of the procedure's cgroup.
    ProcedurePeak { unit: UnitId, run: RunId, peak_bytes: u64 },
    /// The procedure's `execve` succeeded after its release.
    ProcedureRunning { unit: UnitId, run: RunId },
    /// The first process of a role ended. Its cgroup's counters are read before this is told, and go first: a kill for
    /// memory must be known as such when its victim's end is judged.
    Exited { unit: UnitId, run: RunId, role: Role, exit: Exit },
    /// The service's first process was killed by SIGKILL, and no counter of its cgroup tells why: what the kernel's log
    /// says of it. Told before its `Exited`.
    KilledOutside { unit: UnitId, run: RunId, by: KilledBy },
    /// The cgroup of a role has no process any more (`populated 0`).
    Emptied { unit: UnitId, run: RunId, role: Role },
    /// The service's cgroup has no process any more, and its first process lives, in another one.
    Strayed { unit: UnitId, run: RunId },
    /// `cgroup.events` says `frozen 1` for the service's cgroup.
    Frozen { unit: UnitId, run: RunId },
    /// An action failed; the engine decides what that means.
    Failed { unit: UnitId, run: RunId, effect: Effect, errno: i32 },
    /// `memory.events.local` changed.
    MemoryEvents { unit: UnitId, run: RunId, role: Role, counters: MemoryEvents },
    /// The answer to `Action::Sample`, or a reading made because a reader asked.
    MemorySampled { unit: UnitId, run: RunId, sample: MemorySample },
    /// The service's cgroup has no process any more, and is the one of an incident: read before `Emptied` is told.
    LeftBehind { unit: UnitId, run: RunId, left: LeftBehind },
    /// A PSI trigger of the service's cgroup fired.
    PressureRang { unit: UnitId, run: RunId },
    /// A person asked for another limit.
    LimitAsked { client: ClientId, unit: UnitId, limit: Limit, below: Below },
    /// The answer to `Action::TryLimit`.
    LimitTried { unit: UnitId, run: RunId, limit: Limit, tried: Tried },
    /// A person asked something of a unit.
    Asked { client: ClientId, unit: UnitId, verb: Verb },
    /// The connection is gone: nobody waits for its answers.
    ClientGone { client: ClientId },
    /// A signal or a person asked for the end.
    ShutdownAsked { how: ShutdownKind },
    /// So many more incidents of others are on record: this boot's from this number on go behind them.
    IncidentsAhead {
        /// Those below it are on record by their numbers.
        #[serde(default)]
        from: u32,
        by: u32,
    },
    /// Here so many units were added, changed or taken out. Only recorded: the changes themselves do not fit.
    Reconfigured { changes: u16 },
}

impl Event {
    /// It is about this unit, or about the whole machine.
    #[must_use]
    pub fn concerns(&self, this: UnitId) -> bool {
        self.unit().is_none_or(|unit| unit == this)
    }

    /// Whom it is about; `None`: the whole machine, or nobody.
    #[must_use]
    pub fn unit(&self) -> Option<UnitId> {
        let mut copy = *self;
        copy.unit_mut().copied()
    }

    /// The same, to be renumbered.
    pub(in crate::engine) fn unit_mut(&mut self) -> Option<&mut UnitId> {
        match self {
            Self::ConditionsChecked { unit, .. }
            | Self::Parked { unit, .. }
            | Self::BallastStands { unit, .. }
            | Self::Spawned { unit, .. }
            | Self::Ready { unit, .. }
            | Self::Probed { unit, .. }
            | Self::Notified { unit, .. }
            | Self::Demanded { unit, .. }
            | Self::LookedIdle { unit, .. }
            | Self::SpawnFailed { unit, .. }
            | Self::SettingRefused { unit, .. }
            | Self::ProcedurePeak { unit, .. }
            | Self::ProcedureRunning { unit, .. }
            | Self::Exited { unit, .. }
            | Self::KilledOutside { unit, .. }
            | Self::Emptied { unit, .. }
            | Self::Strayed { unit, .. }
            | Self::Frozen { unit, .. }
            | Self::Failed { unit, .. }
            | Self::MemoryEvents { unit, .. }
            | Self::MemorySampled { unit, .. }
            | Self::LeftBehind { unit, .. }
            | Self::PressureRang { unit, .. }
            | Self::LimitAsked { unit, .. }
            | Self::LimitTried { unit, .. }
            | Self::Asked { unit, .. } => Some(unit),
            Self::Boot
            | Self::Deadline
            | Self::ClientGone { .. }
            | Self::ShutdownAsked { .. }
            | Self::IncidentsAhead { .. }
            | Self::Reconfigured { .. } => None,
        }
    }
}
