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
    /// It could not be started, or ended at once; the unit's status says why.
    Failed,
    /// Another request, or the shutdown, took it elsewhere.
    Overruled,
    /// The machine is going down.
    ShuttingDown,
    /// Too many requests wait for an answer.
    TooManyWaiting,
}

/// Everything that the engine can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Look whether the unit's conditions are met, now that it would start: `ConditionsChecked`, at once. `run` is the
    /// one that would begin.
    CheckConditions { unit: UnitId, run: RunId },
    /// Make the procedure's cgroup and its process, held before `execve`: `Parked` or `SpawnFailed`.
    Park { unit: UnitId, run: RunId },
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
    /// Make the cgroup of the unit's commands, and a process there: `Exited` or `SpawnFailed`.
    RunCommand { unit: UnitId, run: RunId, order: CommandOrder },
    /// Write 1 to `cgroup.kill` of the unit's commands: `Emptied`, at once where it is empty already.
    KillCommand { unit: UnitId, run: RunId, reason: KillReason },
    /// Read the service's memory files: `MemoryEvents`, then `MemorySampled`.
    Sample { unit: UnitId, run: RunId },
    /// From the next run on the unit's new definition holds; nothing of an earlier run is left.
    Adopt { unit: UnitId },
    /// The unit is gone: give back everything that was kept for it.
    Dismiss { unit: UnitId },
    /// Tell the log.
    Log(Record),
    /// Answer a request.
    Reply { client: ClientId, reply: Reply },
    /// All units are down: end the machine (or, below another init, this process).
    Finish { how: ShutdownKind },
}
