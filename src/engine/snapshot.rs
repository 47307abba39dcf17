//! What readers see: a picture of the engine with a generation number, never the engine's insides.
//!
//! These types are also what goes over the control socket, so their field names are an interface.

use super::event::{
    CommandKind, Exit, LeftBehind, MemoryEvents, MemorySample, ShutdownKind, SpawnStage, Time,
};
use super::policy::{Class, Guard, Kind, RunId, UnitId};
use serde::{Deserialize, Serialize};

pub use super::verdict::{Bound, Verdict};

/// A unit's actual state, in supervisorctl's words and a few more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StateName {
    /// Down, and asked to be.
    Stopped,
    /// At rest with its sockets open, until somebody needs it.
    Listening,
    /// On its way up.
    Starting,
    /// Up.
    Running,
    /// Waits for its next start.
    Backoff,
    /// On its way down.
    Stopping,
    /// Ended by itself and is not started again.
    Exited,
    /// Could not be started, or failed too often.
    Fatal,
    /// A task that ended well.
    Done,
    /// One of its conditions was not met: not started, and none the worse for it.
    Skipped,
    /// Its memory is exhausted and its shutdown procedure is at work.
    Rescuing,
}

/// What was asked of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Desired {
    /// It should be up.
    Up,
    /// It should be down.
    Down,
}

/// Why a shutdown procedure runs. `LIFEBOAT_REASON` holds the name in kebab case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The service's memory is exhausted.
    Exhaustion,
    /// The kernel's OOM killer struck in the service's cgroup.
    KernelOomKill,
    /// An ordinary stop, asked for or by a shutdown.
    Stop,
    /// The service lives, and is judged to have failed.
    Failure,
    /// On purpose, to prove the procedure.
    Drill,
}

impl Cause {
    /// The word that `LIFEBOAT_REASON` holds.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Exhaustion => "exhaustion",
            Self::KernelOomKill => "kernel-oom-kill",
            Self::Stop => "stop",
            Self::Failure => "failure",
            Self::Drill => "drill",
        }
    }
}

/// Why a service that lives is judged to have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// It was not ready by its `start_timeout`.
    NotReady,
    /// It did not say in time that it is alive.
    WatchdogMissed,
    /// It said itself that it has failed (`WATCHDOG=trigger`).
    WatchdogTriggered,
    /// It said that it stops (`STOPPING=1` of sd_notify(3)), and did not end within its `stop.timeout`.
    NotStopped,
    /// Its health checks failed too often, one after the other.
    Unhealthy,
    /// It has moved itself out of its cgroup, so that its limits hold nothing.
    LeftItsCgroup,
}

/// Why something was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillReason {
    /// A person asked for a stop.
    StopAsked,
    /// The stop signal was not obeyed in time.
    StopTimedOut,
    /// The machine is going down.
    Shutdown,
    /// Nobody has needed it for its `idle_stop`.
    Idle,
    /// A unit that this one requires is down.
    RequirementDown,
    /// A unit that this one requires begins a new run, and this one follows it.
    RequirementRestarts,
    /// A unit was started that it conflicts with.
    Conflict,
    /// The shutdown procedure has saved what it could.
    ProcedureEnded,
    /// The shutdown procedure did not end by its deadline.
    ProcedureTimedOut,
    /// Memory is exhausted and there is no procedure to run.
    NoProcedure,
    /// Its shutdown procedure cannot be parked again, or does not stay parked: it is started anew with one.
    ProcedureLost,
    /// It was lent memory to save itself, and has used that up too.
    LoanSpent,
    /// Its shutdown procedure wants it killed before.
    BeforeProcedure,
    /// Its memory is exhausted and more was lent, for it to save itself: no kill, but the unit's own signal.
    MemoryLent,
    /// The shutdown procedure could not be started.
    ProcedureFailed,
    /// The first process ended and left others behind.
    LeftBehind,
    /// The start failed half way.
    StartFailed,
    /// It was judged to have failed.
    Failed(Failure),
    /// The rescue does not need it.
    Rescue,
    /// The unit in whose stead it ran is up again.
    Replaced,
    /// The parked procedure, or the command, is of no use any more.
    NotNeeded,
    /// Its definition has changed.
    Changed,
    /// It was taken out.
    Removed,
    /// The command did not end by its deadline.
    CommandTimedOut,
    /// A person asked for a reload: no kill, but the unit's own signal.
    ReloadAsked,
    /// Its memory comes to an end: no kill, but the unit's own signal.
    Warned,
}

/// Why a unit is FATAL or not up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// The unit's file has faults; they are in the log and in `lifeboatctl status --json`.
    BadUnit,
    /// Its memory does not fit the budget.
    OverBudget,
    /// A process could not be made.
    SpawnFailed {
        /// Where.
        stage: SpawnStage,
        /// errno(3).
        errno: i32,
        /// It was the procedure's.
        procedure: bool,
    },
    /// It ended by itself.
    Ended {
        /// How.
        exit: Exit,
    },
    /// It was killed, and not by lifeboat.
    Killed {
        /// By whom.
        by: KilledBy,
    },
    /// It lived, and was judged to have failed.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// Its memory was exhausted.
    Exhausted {
        /// The incident's number.
        incident: u32,
    },
    /// Its memory was exhausted as often as its budget allows.
    ExhaustedTooOften {
        /// So many times.
        times: u32,
        /// The budget's window.
        within_ms: u32,
        /// The last incident's number.
        incident: u32,
    },
    /// It was started too often within its window.
    StartLimit {
        /// So many times.
        starts: u32,
    },
    /// A unit that it requires is down.
    RequirementDown {
        /// Which.
        unit: UnitId,
    },
    /// It, or a unit that it requires, conflicts with this one, which was started or was first.
    Conflict {
        /// Which.
        unit: UnitId,
    },
    /// One of its conditions was not met when it was to be started.
    ConditionNotMet {
        /// Its place in the unit's list, from 0.
        condition: u8,
    },
    /// It stands in a circle of units that wait for each other.
    OrderCycle,
    /// Its processes did not die within the deadline after `cgroup.kill`.
    Unkillable,
    /// Its shutdown procedure ended before it was needed.
    ProcedureLost {
        /// How.
        exit: Exit,
    },
}

/// How a shutdown procedure or a command went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcedureResult {
    /// The unit has none.
    None,
    /// It ended by itself.
    Ended(Exit),
    /// There is no program: the service got its stop signal, and ended so.
    SavedItself(Exit),
    /// It ended by a signal after its own memory was exhausted.
    OutOfMemory,
    /// It was killed at its deadline.
    TimedOut,
    /// It could not be started.
    SpawnFailed {
        /// Where.
        stage: SpawnStage,
        /// errno(3).
        errno: i32,
    },
    /// It ended before it was needed.
    Lost(Exit),
    /// There is no program: the service has used up what it was lent, and has not ended.
    LoanSpent,
}

/// Who ended the service's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Killer {
    /// lifeboat, by `cgroup.kill`, after the procedure.
    Lifeboat,
    /// The kernel, because this cgroup's own limit was reached.
    KernelCgroup,
    /// The kernel, because memory ran out above this cgroup.
    KernelOutside,
    /// Its first process has ended by itself, on its stop signal or without one; lifeboat killed what was left.
    Itself,
}

/// Who killed a service's first process by SIGKILL, where lifeboat did not, and no counter of its cgroup tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KilledBy {
    /// The kernel's OOM killer, because the machine's memory ran out. Its log says so.
    GlobalOom,
    /// The kernel's OOM killer, at the limit of a cgroup. Its log says so.
    CgroupOom,
    /// Somebody else; the kernel's log says nothing of it.
    Outside,
}

/// The record of one exhaustion. Times are `CLOCK_BOOTTIME` in microseconds; `None` means that it did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Counts from 1 since boot, or behind the incidents of earlier boots that are on record.
    pub number: u32,
    /// Whose.
    pub unit: UnitId,
    /// Which of its lives.
    pub run: RunId,
    /// Why.
    pub cause: Cause,
    /// By which evidence.
    pub verdict: Verdict,
    /// `memory.max` of then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Who ended the service.
    pub killer: Killer,
    /// The event was read.
    pub began: Time,
    /// `frozen 1` was read.
    pub frozen: Option<Time>,
    /// The parked procedure was let go.
    pub released: Option<Time>,
    /// Its `execve` was seen to succeed.
    pub procedure_running: Option<Time>,
    /// It ended or met its deadline.
    pub procedure_ended: Option<Time>,
    /// `cgroup.kill` was written.
    pub killed: Option<Time>,
    /// `populated 0` was read.
    pub emptied: Option<Time>,
    /// How the procedure went, the second one where there were two.
    pub procedure: ProcedureResult,
    /// Times that a procedure met its `memory.high`, `shutdown.memory`: it writes faster than its disk, or needs more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub procedure_high: u64,
    /// How the first of two went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_procedure: Option<ProcedureResult>,
    /// Counters when the run began.
    pub counters_at_start: MemoryEvents,
    /// The last counters.
    pub counters: MemoryEvents,
    /// The last reading before the freeze.
    pub sample: Option<MemorySample>,
    /// What outlives the kill: read when no process was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<LeftBehind>,
}

/// How far the end of the machine has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownState {
    /// What comes at the end.
    pub how: ShutdownKind,
    /// The last action was given out: nothing more happens in the engine.
    pub finished: bool,
}

/// The machine and the budget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemView {
    /// lifeboat's version.
    pub version: String,
    /// lifeboat's own pid.
    pub pid: u32,
    /// When lifeboat started, `CLOCK_BOOTTIME`.
    pub started: Time,
    /// Set while the machine goes down.
    pub shutting_down: Option<ShutdownKind>,
    /// The unit that has called for the rescue, and with that stopped the others.
    #[serde(default)]
    pub rescue_called_by: Option<UnitId>,
    /// What is missing, each with its cure. Not empty means DEGRADED.
    pub degraded: Vec<String>,
    /// The division of the machine's memory.
    pub budget: BudgetView,
    /// What was wrong with unit files, one rendered message for each fault.
    pub faults: Vec<String>,
    /// Where incidents are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incidents: Option<IncidentStore>,
}

/// Where incidents outlive the machine, a file for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentStore {
    /// The folder.
    pub folder: String,
    /// So many are kept; 0 keeps none.
    pub keep: u32,
}

impl Default for IncidentStore {
    fn default() -> Self {
        Self { folder: "/var/lib/lifeboat/incidents".into(), keep: 32 }
    }
}

/// The budget in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetView {
    /// `MemTotal` of `/proc/meminfo`.
    pub total_bytes: u64,
    /// Kept for the kernel and for lifeboat.
    pub margin_bytes: u64,
    /// What procedures may use together.
    pub reserve_bytes: u64,
    /// Beside it in the shutdown slice: for pages that procedures have written and that wait for their disk.
    #[serde(default)]
    pub writeback_bytes: u64,
    /// What units cost beside their limits: the kernel's structures for their cgroups, and parked procedures.
    pub overhead_bytes: u64,
    /// The sum of the guaranteed units' `memory.max`.
    pub guaranteed_bytes: u64,
    /// `memory.max` of the pool, without the overhead.
    pub pool_bytes: u64,
}

impl BudgetView {
    /// `memory.max` of the shutdown slice.
    #[must_use]
    pub fn shutdown_bytes(&self) -> u64 {
        self.reserve_bytes.saturating_add(self.writeback_bytes).saturating_add(self.overhead_bytes)
    }
}

/// A unit's memory as readers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryView {
    /// `memory.max`.
    pub max_bytes: u64,
    /// The branch of the tree.
    pub class: Class,
    /// How the bound is held.
    pub guard: Guard,
    /// The last reading, and when it was made.
    pub sample: Option<(Time, MemorySample)>,
    /// The counters since this run began.
    pub counters: MemoryEvents,
    /// How it stands still, where it does and is not saved: [`Verdict::HeldAtHigh`] or [`Verdict::Thrashing`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<Verdict>,
    /// Its ballast was lost as often as one is made anew: until its next start it is as with `guard: None`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unguarded: bool,
}

/// A setting that the kernel did not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedSetting {
    /// Its name in the unit's file.
    pub setting: String,
    /// errno(3).
    pub errno: i32,
}

/// A command that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandView {
    /// What it was for.
    pub kind: CommandKind,
    /// How it went.
    pub result: ProcedureResult,
    /// When it ended.
    pub time: Time,
}

/// One unit as readers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitView {
    /// Its name.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Service, task or target.
    pub kind: Kind,
    /// What was asked.
    pub desired: Desired,
    /// What is.
    pub state: StateName,
    /// When this state began.
    pub since: Time,
    /// The number of its present or last life; 0 when it was never started.
    pub run: RunId,
    /// Its first process.
    pub pid: Option<u32>,
    /// Its memory, where it is bounded.
    pub memory: Option<MemoryView>,
    /// How its last life ended.
    pub last_exit: Option<Exit>,
    /// Why it is not up, or why it was last restarted.
    pub trouble: Option<Trouble>,
    /// The condition that was not met, as it was written, while it is SKIPPED.
    #[serde(default)]
    pub condition: Option<String>,
    /// Exhaustions since boot.
    pub incidents: u32,
    /// Settings that the kernel did not take in the present or last run. A unit that is up does without them.
    #[serde(default)]
    pub refused_settings: Vec<RefusedSetting>,
    /// Exhaustions within its budget's window, at most as many as the budget allows.
    #[serde(default)]
    pub exhaustions: u32,
    /// That window.
    #[serde(default)]
    pub exhaustions_within_ms: u32,
    /// The unit that runs in its stead, since it was given up.
    #[serde(default)]
    pub fallback: Option<UnitId>,
    /// How often it was warned in its present or last run that its memory comes to an end.
    pub warnings: u32,
    /// The last of its commands that failed.
    #[serde(default)]
    pub failed_command: Option<CommandView>,
    /// What it last said of itself in this run (`STATUS` of sd_notify(3)), on one line.
    #[serde(default)]
    pub status: Option<String>,
    /// It reads its configuration anew, because it was asked to or by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reloading: bool,
    /// Its last drill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<Drill>,
    /// The names of the sockets that are held for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<String>,
}

/// A way to the shutdown procedure on purpose, and what the procedure needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// The service was killed and started anew; else it went on.
    pub to_the_end: bool,
    /// When it began.
    pub began: Time,
    /// When the service stood still.
    pub frozen: Option<Time>,
    /// When the procedure was let go.
    pub released: Option<Time>,
    /// When it was over.
    pub procedure_ended: Option<Time>,
    /// When the service was as before, or gone.
    pub over: Option<Time>,
    /// It will never be over: its run ended meanwhile, or its procedure could not be parked again.
    #[serde(default)]
    pub broken_off: bool,
    /// How the procedure went.
    pub procedure: ProcedureResult,
    /// `memory.peak` of the procedure's cgroup, over all of its runs.
    pub peak_bytes: Option<u64>,
    /// Times that the procedure met its `memory.high`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub high: u64,
    /// What the unit grants the procedure.
    pub deadline_ms: u32,
    /// The same of memory.
    pub memory_bytes: u64,
}

/// A count that is left out.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Drill {
    /// What its procedure needed.
    #[must_use]
    pub fn needs(&self) -> DrillNeeds {
        let took_us = self.procedure_ended.zip(self.released).map(|(end, begin)| end.since_us(begin));
        DrillNeeds {
            procedure: self.procedure,
            took_us,
            deadline_ms: self.deadline_ms,
            peak_bytes: self.peak_bytes.filter(|_| self.memory_bytes > 0),
            memory_bytes: self.memory_bytes,
            high: self.high,
        }
    }
}

/// What a drill's procedure needed of what its unit grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillNeeds {
    /// How it went.
    pub procedure: ProcedureResult,
    /// From its start to its end, where it could be started.
    pub took_us: Option<u64>,
    /// What the unit grants.
    pub deadline_ms: u32,
    /// `memory.peak`, where the kernel has it.
    pub peak_bytes: Option<u64>,
    /// What the unit grants.
    pub memory_bytes: u64,
    /// Times that it met that.
    #[serde(default)]
    pub high: u64,
}

/// Everything that readers see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Grows with every change.
    pub generation: u64,
    /// When it was taken.
    pub time: Time,
    /// The machine.
    pub system: SystemView,
    /// All units, in the order of their names. `UnitId` is not an index into this: see `names`.
    pub units: Vec<UnitView>,
    /// The names of the units by `UnitId`.
    pub names: Vec<String>,
    /// The last incidents, oldest first.
    pub incidents: Vec<Incident>,
}
