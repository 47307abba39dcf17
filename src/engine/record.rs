//! What the engine has to say: typed log records. `view::record` gives them words.

#![expect(
    missing_docs,
    reason = "the fields of the records are named by their types and by the line above each record"
)]

use super::event::{CommandKind, Exit, Note, Role, ShutdownKind, SpawnStage};
use super::policy::{Escalation, UnitId, WarnStage};
use super::setting::{Limit, Setting};
use super::snapshot::{Cause, DrillNeeds, Failure, KillReason, KilledBy, ProcedureResult, Trouble, Verdict};
use serde::{Deserialize, Serialize};

/// One line of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A unit is up and ready.
    Running { unit: UnitId, pid: u32, after_us: u64 },
    /// A process could not be made.
    SpawnFailed { unit: UnitId, role: Role, stage: SpawnStage, errno: i32 },
    /// The kernel did not take a setting; the start goes on without it, or not at all.
    SettingRefused { unit: UnitId, setting: Setting, errno: i32, skipped: bool },
    /// A service ended by itself.
    Ended { unit: UnitId, exit: Exit },
    /// A service was killed, and not by lifeboat.
    Killed { unit: UnitId, by: KilledBy },
    /// A service lives, and is judged to have failed.
    Failed { unit: UnitId, failure: Failure },
    /// A service said something that is worth a line.
    Notified { unit: UnitId, note: Note },
    /// A target is reached.
    Reached { unit: UnitId },
    /// A unit is not started, because a condition of its own is not met.
    Skipped { unit: UnitId, condition: u8 },
    /// A task ended well.
    Done { unit: UnitId },
    /// The next start comes after a delay.
    Backoff { unit: UnitId, delay_ms: u32 },
    /// A unit is given up.
    Fatal { unit: UnitId, trouble: Trouble },
    /// Its memory was exhausted so often within its budget's window; `spent` where the budget counts no more than that.
    ExhaustedAgain { unit: UnitId, times: u32, within_ms: u32, spent: bool },
    /// A unit is given up, and this comes of it.
    Escalating { unit: UnitId, escalation: Escalation },
    /// That cannot be: there is no such unit, or it is refused.
    CannotEscalate { unit: UnitId, escalation: Escalation },
    /// Everything else is down: the rescue unit starts.
    RescueBegins { unit: UnitId },
    /// A unit is being stopped.
    Stopping { unit: UnitId, reason: KillReason },
    /// A unit rests with its sockets open.
    Listening { unit: UnitId },
    /// Something came in for a unit that rests.
    Demanded { unit: UnitId },
    /// A unit is down.
    Stopped { unit: UnitId, exited: bool },
    /// A warn stage is reached, and its deed is done.
    Warned { unit: UnitId, stage: WarnStage, unreclaimable_bytes: u64, limit_bytes: u64 },
    /// A unit stands still, and has no procedure that could save it: so this is no verdict on it.
    StandsStill { unit: UnitId, verdict: Verdict },
    /// Memory is exhausted.
    Exhausted { unit: UnitId, cause: Cause, verdict: Verdict, limit_bytes: u64 },
    /// The kernel killed in a cgroup that the unit has made, at that one's own limit.
    KilledBelow { unit: UnitId, oom_kill: u64 },
    /// The ballast is gone, and the unit's memory is not exhausted: the kernel took it because memory ran out above the
    /// unit, or somebody killed it. It is made anew so many times more.
    BallastLost { unit: UnitId, exit: Exit, for_memory: bool, tries_left: u8 },
    /// A limit is another one from now on.
    LimitChanged { unit: UnitId, limit: Limit, kept: bool },
    /// The service stands still.
    Frozen { unit: UnitId, after_us: u64 },
    /// The service did not freeze in time; we go on.
    FreezeTimedOut { unit: UnitId, after_ms: u32 },
    /// The procedure waits for room in the reserve.
    WaitsForReserve { unit: UnitId, needs_bytes: u64, free_bytes: u64 },
    /// The procedure is let go.
    Rescuing { unit: UnitId, cause: Cause, deadline_ms: u32 },
    /// The service got its stop signal, to save itself, and so much memory beyond its bound.
    SavesItself { unit: UnitId, lent_bytes: u64, deadline_ms: u32 },
    /// What was lent is used up too.
    LentExhausted { unit: UnitId },
    /// The first procedure has failed, and the second one comes.
    Otherwise { unit: UnitId, result: ProcedureResult, deadline_ms: u32 },
    /// The procedure ended before it was needed.
    ProcedureLost { unit: UnitId, exit: Exit },
    /// The procedure is over.
    ProcedureOver { unit: UnitId, result: ProcedureResult, after_us: u64 },
    /// A drill begins.
    Drill { unit: UnitId, to_the_end: bool },
    /// The way back from a drill is done.
    Drilled { unit: UnitId, needs: DrillNeeds, after_us: u64 },
    /// There was none: the run ended meanwhile, or the procedure could not be parked again.
    DrillBrokenOff { unit: UnitId },
    /// A drill is due, and the unit is busy: it waits for the next time.
    DrillPutOff { unit: UnitId },
    /// A command is over; one that was good and only looked is not told.
    CommandOver { unit: UnitId, kind: CommandKind, result: ProcedureResult, after_us: u64 },
    /// What is left of a command does not die.
    CommandStays { unit: UnitId },
    /// A service has read its configuration anew.
    Reloaded { unit: UnitId, after_us: u64 },
    /// It has not.
    ReloadFailed { unit: UnitId },
    /// A cgroup is killed.
    Killing { unit: UnitId, role: Role, reason: KillReason },
    /// The kernel failed to do what was asked.
    EffectFailed { unit: UnitId, effect: super::event::Effect, errno: i32 },
    /// Nothing lives in the unit's cgroups any more.
    Emptied { unit: UnitId, after_us: u64 },
    /// An exhaustion is over and on record.
    IncidentClosed { unit: UnitId, number: u32, total_us: u64 },
    /// Processes are left after `cgroup.kill` and its deadline.
    StillPopulated { unit: UnitId },
    /// A unit was added.
    Added { unit: UnitId },
    /// A unit has a new definition, which holds from its next run on.
    Changed { unit: UnitId },
    /// A unit was taken out.
    Removed { unit: UnitId },
    /// The machine is going down.
    ShuttingDown { how: ShutdownKind },
    /// All units are down.
    AllDown { how: ShutdownKind },
}
