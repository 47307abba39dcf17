//! What the engine can ask for: the closed list of everything that the runtime performs.
//!
//! An action answers only by events. Every kill carries its reason.

#![expect(
    missing_docs,
    reason = "the fields of the actions are named by their types and by the line above each action"
)]

use super::event::{ClientId, CommandKind, Role, ShutdownKind};
use super::policy::{RunId, UnitId};
use super::record::Record;
use super::setting::Limit;
use super::snapshot::{Cause, KillReason};
use serde::{Deserialize, Serialize};

/// What the runtime tells a parked procedure when it lets it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcedureOrder {
    /// Why it runs: `LIFEBOAT_REASON`.
    pub cause: Cause,
    /// The service's first process, 0 where there is none any more: `LIFEBOAT_MAINPID`.
    pub main_pid: u32,
    /// `LIFEBOAT_DEADLINE_MS`.
    pub deadline_ms: u32,
}

/// What the runtime tells a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandOrder {
    /// Which of the unit's: `LIFEBOAT_REASON`.
    pub kind: CommandKind,
    /// The service's first process, 0 where there is none any more: `LIFEBOAT_MAINPID`.
    pub main_pid: u32,
    /// `LIFEBOAT_DEADLINE_MS`.
    pub deadline_ms: u32,
}

/// The engine's answer to a request about one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is up (or, for a task, ended well).
    Started,
    /// It is down.
    Stopped,
    /// It was up before.
    AlreadyStarted,
    /// It was down before.
    NotRunning,
    /// It was not started, because a condition of its own was not met.
    Skipped,
    /// It has read its configuration anew.
    Reloaded,
    /// It has not, and runs on; the log and `why` say more.
    ReloadFailed,
    /// Its unit does not say how.
    NoReload,
    /// The drill is over; its unit's view says how it went.
    Drilled,
    /// There is no procedure, or no way back from it.
    NoDrill,
    /// It could not be started, or ended at once; the unit's status says why.
    Failed,
    /// Another request, or the shutdown, took it elsewhere.
    Overruled,
    /// The machine is going down.
    ShuttingDown,
    /// Too many requests wait for an answer.
    TooManyWaiting,
}

/// How a limit is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LimitStep {
    /// It is written now: that can neither wait nor kill.
    AtOnce,
    /// Aside, memory is reclaimed until what is left would fit below it, with some room; nothing is written.
    Reclaim,
    /// Aside, while the unit stands still: the same once more, and then it is written.
    Set,
    /// Nothing is written; it holds from the next run on.
    Keep,
}

/// What became of a change of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LimitOutcome {
    /// It holds.
    Applied,
    /// Nothing runs: it holds from the next run on.
    Kept,
    /// The unit uses more, and that cannot be reclaimed.
    BelowUse,
    /// The same: the shutdown procedure is at work, and the next run begins with the new limit.
    Rescued,
    /// The same: there is no shutdown procedure for an exhaustion.
    NoProcedure,
    /// It does not fit into the machine beside the others.
    OverBudget,
    /// The kernel did not take it.
    NotTaken,
    /// The unit's file has no `memory`, or it would be left without a bound.
    NoBound,
    /// Above `memory.high` no shield holds.
    Shielded,
    /// The unit is on its way up or down, or another limit is being changed.
    NotNow,
    /// The run came to its end meanwhile.
    Overruled,
    /// It took too long.
    TimedOut,
    /// The unit itself is refused.
    Refused,
}

/// The answer to a change of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitAnswer {
    /// What became of it.
    pub outcome: LimitOutcome,
    /// `memory.current`, where that is more than the limit.
    pub current_bytes: Option<u64>,
    /// What it could be at most, where it does not fit into the machine.
    pub free_bytes: Option<u64>,
    /// errno(3), where the kernel did not take it.
    pub errno: Option<i32>,
}

impl From<LimitOutcome> for LimitAnswer {
    fn from(outcome: LimitOutcome) -> Self {
        Self { outcome, current_bytes: None, free_bytes: None, errno: None }
    }
}

/// Everything that the engine can ask for. What is no deed is never written down (`serde(skip)`), and stands last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Look whether the unit's conditions are met, now that it would start: `ConditionsChecked`, at once. `run` is the
    /// one that would begin.
    CheckConditions { unit: UnitId, run: RunId },
    /// Make the procedure's cgroup and its process, held before `execve`, or a resident one in its program: `Parked` or
    /// `SpawnFailed`.
    Park { unit: UnitId, run: RunId },
    /// Make the process of the second procedure in the same cgroup, held before `execve`: `Parked` or `SpawnFailed`.
    ParkOtherwise { unit: UnitId, run: RunId },
    /// Make the service's cgroup with its limits, and a ballast of so many bytes there: `BallastStands` or
    /// `SpawnFailed`, later `Exited`.
    MakeBallast { unit: UnitId, run: RunId, bytes: u64 },
    /// Give the service's cgroup this `memory.max`, and its branch as much more: `Failed`, or nothing.
    Lend { unit: UnitId, run: RunId, max_bytes: u64, lend_bytes: u64 },
    /// The same backwards; nothing of the run is left.
    TakeBack { unit: UnitId, run: RunId, max_bytes: u64, lend_bytes: u64 },
    /// Read what the procedure's cgroup has used at most: `ProcedurePeak`, or nothing.
    ReadPeak { unit: UnitId, run: RunId },
    /// Make the service's cgroup with its limits and its process: `Spawned` or `SpawnFailed`.
    Spawn { unit: UnitId, run: RunId },
    /// Look whether the path is there by which the service shows that it is ready: `Ready`, or nothing.
    LookForPath { unit: UnitId, run: RunId },
    /// Begin a health check of the service: `Probed`, now or later. An earlier one that is still open is given up.
    Probe { unit: UnitId, run: RunId },
    /// Give up the health check that is open.
    EndProbe { unit: UnitId, run: RunId },
    /// Write 1 to `cgroup.freeze` of the service: `Frozen` or `Failed`.
    Freeze { unit: UnitId, run: RunId },
    /// Write 1 to `cgroup.freeze` of the service for a moment: `Frozen` or `Failed`.
    Hold { unit: UnitId, run: RunId },
    /// Write 0 to `cgroup.freeze` of the service.
    Thaw { unit: UnitId, run: RunId },
    /// Try a limit of the service's cgroup: `LimitTried`, but for `Keep`.
    TryLimit { unit: UnitId, run: RunId, limit: Limit, step: LimitStep },
    /// Give up what is being done aside about a limit.
    EndLimit { unit: UnitId, run: RunId },
    /// Open the unit's sockets and watch them until something comes in: `Demanded`, or `SpawnFailed` where they
    /// cannot be opened.
    Listen { unit: UnitId, run: RunId },
    /// Look whether anybody needs the service: `LookedIdle`.
    LookIdle { unit: UnitId, run: RunId },
    /// Let the parked procedure go: `ProcedureRunning` or `SpawnFailed`, later `Exited`.
    StartProcedure { unit: UnitId, run: RunId, order: ProcedureOrder },
    /// Send a signal to the service's first process.
    Signal { unit: UnitId, run: RunId, signal: i32, reason: KillReason },
    /// Send a signal to every process of the service's cgroup; `Emptied` at once where there is none.
    SignalAll { unit: UnitId, run: RunId, signal: i32, reason: KillReason },
    /// Write 1 to `cgroup.kill` of a role: `Emptied`, at once where it is empty already.
    KillCgroup { unit: UnitId, run: RunId, role: Role, reason: KillReason },
    /// Listen to `memory.events.local` and the first PSI trigger of the service, or do not. The alarm, the second
    /// trigger, is heard always. Every run begins with both heard.
    Doorbells { unit: UnitId, run: RunId, on: bool },
    /// Write `memory.high` of the service, which must be above what it uses: the doorbell of the warn stages, heard in
    /// `memory.events.local`. `None`: no bound. It holds no task for longer than until it is lifted.
    Ring { unit: UnitId, run: RunId, high_bytes: Option<u64> },
    /// Write to `memory.reclaim` of the service, aside.
    Reclaim { unit: UnitId, run: RunId, bytes: u64 },
    /// Take their memory from the service's processes, which were killed and do not die, in a process aside; no event
    /// answers it.
    ReleaseMemory { unit: UnitId, run: RunId },
    /// Write a byte to the FIFO that `MEMORY_PRESSURE_WATCH` names.
    NotifyPressure { unit: UnitId, run: RunId },
    /// Make the cgroup of the unit's commands, and a process there: `Exited` or `SpawnFailed`.
    RunCommand { unit: UnitId, run: RunId, order: CommandOrder },
    /// Write 1 to `cgroup.kill` of the unit's commands: `Emptied`, at once where it is empty already.
    KillCommand { unit: UnitId, run: RunId, reason: KillReason },
    /// Close the unit's sockets and what it has stored: it is down for good.
    CloseDescriptors { unit: UnitId },
    /// Read the service's memory files: `MemoryEvents`, then `MemorySampled`.
    Sample { unit: UnitId, run: RunId },
    /// From the next run on the unit's new definition holds; nothing of an earlier run is left.
    Adopt { unit: UnitId },
    /// The unit is gone: give back everything that was kept for it.
    Dismiss { unit: UnitId },
    /// Keep the record of the incident of this number, which is closed, beyond the end of the machine.
    KeepIncident { unit: UnitId, number: u32 },
    /// All units are down: end the machine (or, below another init, this process).
    Finish { how: ShutdownKind },
    /// Tell the log.
    #[serde(skip)]
    Log(Record),
    /// Answer a request.
    #[serde(skip)]
    Reply { client: ClientId, reply: Reply },
    /// Answer a request to change a limit.
    #[serde(skip)]
    ReplyLimit { client: ClientId, answer: LimitAnswer },
}

impl Action {
    /// Whom it is about: what is told, answers, and the end of the machine are about no unit.
    #[must_use]
    pub fn unit(&self) -> Option<UnitId> {
        let mut copy = *self;
        copy.unit_mut().copied()
    }

    /// The same, to be renumbered.
    pub(in crate::engine) fn unit_mut(&mut self) -> Option<&mut UnitId> {
        match self {
            Self::CheckConditions { unit, .. }
            | Self::Park { unit, .. }
            | Self::ParkOtherwise { unit, .. }
            | Self::MakeBallast { unit, .. }
            | Self::Lend { unit, .. }
            | Self::TakeBack { unit, .. }
            | Self::ReadPeak { unit, .. }
            | Self::Spawn { unit, .. }
            | Self::LookForPath { unit, .. }
            | Self::Probe { unit, .. }
            | Self::EndProbe { unit, .. }
            | Self::Freeze { unit, .. }
            | Self::Hold { unit, .. }
            | Self::Thaw { unit, .. }
            | Self::TryLimit { unit, .. }
            | Self::EndLimit { unit, .. }
            | Self::Listen { unit, .. }
            | Self::LookIdle { unit, .. }
            | Self::StartProcedure { unit, .. }
            | Self::Signal { unit, .. }
            | Self::SignalAll { unit, .. }
            | Self::KillCgroup { unit, .. }
            | Self::Doorbells { unit, .. }
            | Self::Ring { unit, .. }
            | Self::Reclaim { unit, .. }
            | Self::ReleaseMemory { unit, .. }
            | Self::NotifyPressure { unit, .. }
            | Self::RunCommand { unit, .. }
            | Self::KillCommand { unit, .. }
            | Self::CloseDescriptors { unit, .. }
            | Self::Sample { unit, .. }
            | Self::Adopt { unit, .. }
            | Self::Dismiss { unit, .. }
            | Self::KeepIncident { unit, .. } => Some(unit),
            Self::Log(_) | Self::Reply { .. } | Self::ReplyLimit { .. } | Self::Finish { .. } => None,
        }
    }
}
