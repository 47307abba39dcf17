//! One unit between two turns: what was asked, what is, and what is still open of its present run.
//!
//! ```text
//!            ┌──────────────── asked, or the restart policy ───────────────────────────┐
//!            ▼                                                                         │
//!  Waiting ─▶ Parking ─▶ Spawning ─▶ Readying ─▶ Running ─▶ Freezing ─▶ Queued ─▶ Saving ─▶ Killing ─▶ Stopped,
//!  (order)    (procedure) (execve)   (its word)     │    (exhaustion, a stop or a failure    ▲     │    Exited, Done,
//!                                                   │     with a procedure)                  │     │    Fatal, Backoff
//!                                                   └─▶ (Asking) ─▶ Signalled (an ordinary stop) ──┘     │
//!                                                                         both cgroups are empty and
//!                                                                         both processes are reaped
//! ```
//!
//! What can happen to a service in `Running` can happen in `Readying` too: it has a process.
//!
//! Every run ends through `Killing`, however it came to its end. So no run leaves a process behind, and none begins
//! while one of the last run lives.

use super::drill::Rearm;
use super::event::{Exit, MemoryEvents, SpawnStage, Time};
use super::exhaustion::may_be_rescued;
use super::graph::Links;
use super::moment::Moment;
use super::policy::{Kind, RunId, UnitPolicy};
use super::restart::Restarts;
use super::setting::Setting;
use super::snapshot::{
    Failure, KillReason, MemoryView, ProcedureResult, RefusedSetting, StateName, Trouble, UnitView,
};
use serde::{Deserialize, Serialize};
use std::ops::{Deref, DerefMut};

/// `ENOMEM` of errno(3).
pub(super) const ENOMEM: i32 = 12;

/// How a unit is at rest: no process, and none on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Rest {
    /// Down because it was asked to be, or never started.
    Stopped,
    /// Ended by itself; the policy says not to start it again.
    Exited,
    /// Given up.
    Fatal,
    /// A task that ended well.
    Done,
    /// A condition of its own was not met. What requires it goes on without it.
    Skipped,
    /// Taken out: nothing of it is left, and its place is free.
    Gone,
    /// Its sockets are open; it is started when something comes in.
    Listening,
}

/// Where a unit stands. In `Down`, `Waiting` and `Backoff` it has no process; in the others it has, or is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// At rest.
    Down(Rest),
    /// Wants to start; something before it in the order is not ready, or its conditions are being looked at.
    Waiting,
    /// Its next start comes when the step timer is due.
    Backoff,
    /// The procedure's process is being made.
    Parking,
    /// The service's process is being made.
    Spawning,
    /// Its `execve` succeeded; it has not shown yet that it is ready.
    Readying,
    /// Up and ready.
    Running,
    /// Up and ready, and made to stand still for a moment: it is looked whether it is needed.
    Idling,
    /// `cgroup.freeze` is written; we wait for `frozen 1`.
    Freezing,
    /// The procedure waits for room in the reserve.
    Queued,
    /// The procedure is at work.
    Saving,
    /// The stop command is at work.
    Asking,
    /// The stop signal is sent.
    Signalled,
    /// `cgroup.kill` is written; we wait for the end of all processes.
    Killing,
}

impl State {
    /// No process, and none on its way.
    pub(super) fn is_down(self) -> bool {
        match self {
            Self::Down(_) | Self::Waiting | Self::Backoff => true,
            Self::Parking
            | Self::Spawning
            | Self::Readying
            | Self::Running
            | Self::Idling
            | Self::Freezing
            | Self::Queued
            | Self::Saving
            | Self::Asking
            | Self::Signalled
            | Self::Killing => false,
        }
    }
}

/// Why the present run ends. Decided when the end begins; a graver reason may replace it (a stop that becomes an
/// exhaustion).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum End {
    /// It was told to.
    Asked(KillReason),
    /// Its memory is exhausted, or the kernel killed for memory.
    Exhausted,
    /// It ended by itself.
    Own(Exit),
    /// It lives, and is judged to have failed.
    Failed(Failure),
    /// A drill, from which it comes back, or not.
    Drilled { back: bool },
    /// It never came up.
    StartFailed { stage: SpawnStage, errno: i32, procedure: bool },
}

impl End {
    /// Who requires the unit need not notice: of one that is idle the sockets stay open, and from a drill it comes back
    /// in the same run.
    pub(super) fn is_unnoticed(self) -> bool {
        match self {
            Self::Asked(reason) => reason == KillReason::Idle,
            Self::Drilled { back } => back,
            Self::Exhausted | Self::Own(_) | Self::Failed(_) | Self::StartFailed { .. } => false,
        }
    }
}

/// The procedure's process in the present run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Procedure {
    /// The unit has none, or it is not made yet.
    Absent,
    /// It stands before `execve`.
    Parked,
    /// It was let go.
    Released,
    /// It has ended.
    Over,
    /// It is gone before it was needed, and so.
    Lost(ProcedureResult),
}

impl Procedure {
    /// Its process has ended, or could not be made.
    pub(super) fn gone(self, how: ProcedureResult) -> Self {
        match self {
            Self::Released | Self::Over => Self::Over,
            Self::Absent | Self::Parked | Self::Lost(_) => Self::Lost(how),
        }
    }
}

/// Memory beyond its bound, while the service saves itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Loan {
    /// None.
    #[default]
    None,
    /// Out of the reserve.
    Given,
    /// An `oom` event came since: of before it was given, or because it is used up.
    Doubted,
    /// That is used up too.
    Spent,
}

/// What must end before the run is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Open {
    pub(super) main: bool,
    pub(super) service_cgroup: bool,
    pub(super) procedure: bool,
    pub(super) procedure_cgroup: bool,
    pub(super) ballast: bool,
}

impl Open {
    pub(super) fn nothing(self) -> bool {
        self == Self::default()
    }

    pub(super) fn only_procedure(self) -> bool {
        self == Self { procedure: true, ..Self::default() }
    }
}

/// A unit's next definition.
#[derive(Debug)]
pub(super) struct Successor {
    pub(super) policy: UnitPolicy,
    /// Sized for it, so that its taking over allocates nothing.
    pub(super) restarts: Restarts,
}

/// What we know of one unit between two turns.
///
/// # Invariants
/// - `run` only grows. An event with another number is about a dead run: it is recorded, nothing else.
/// - A unit that is down has nothing open.
/// - `end` is `Some` in `Freezing`, `Queued`, `Saving`, `Asking`, `Signalled` and `Killing`, and only there.
/// - `incident` is `Some` only while `end` is `Exhausted`.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) policy: UnitPolicy,
    /// What takes the policy's place as soon as nothing of the present run is left.
    pub(super) successor: Option<Box<Successor>>,
    /// Its neighbours in the graph.
    pub(super) links: Links,
    pub(super) restarts: Restarts,
    /// Everything else.
    pub(super) moment: Moment,
}

/// What is said of a service below is said of its moment.
impl Deref for Service {
    type Target = Moment;

    fn deref(&self) -> &Moment {
        &self.moment
    }
}

impl DerefMut for Service {
    fn deref_mut(&mut self) -> &mut Moment {
        &mut self.moment
    }
}

impl Service {
    pub(super) fn new(policy: UnitPolicy) -> Self {
        let restarts = Restarts::new(&policy.restart);
        let (state, trouble) = match policy.refused {
            Some(trouble) => (State::Down(Rest::Fatal), Some(trouble)),
            None => (State::Down(Rest::Stopped), None),
        };
        let moment = Moment::new(state, trouble);
        Self { policy, successor: None, links: Links::default(), restarts, moment }
    }

    /// Its procedure waits for its work, or will in a moment, or the service saves itself without one.
    pub(super) fn can_save(&self) -> bool {
        self.procedure == Procedure::Parked
            || self.rearm != Rearm::No
            || self.policy.procedure.is_some_and(|procedure| !procedure.has_program)
    }

    /// Its procedure is being made anew, and that far. In a kill it matters only where the procedure comes behind it.
    pub(super) fn is_rearming(&self, how_far: Rearm) -> bool {
        self.rearm == how_far && (self.state != State::Killing || self.saves_after_kill)
    }

    /// Its procedure ended before it was needed, or the way back from its drill has failed.
    pub(super) fn lost_its_procedure(&self) -> bool {
        matches!(self.procedure, Procedure::Lost(_)) && self.rearm == Rearm::No
    }

    /// Why its procedure cannot be let go.
    pub(super) fn procedure_lack(&self) -> ProcedureResult {
        match self.procedure {
            Procedure::Lost(how) => how,
            // The reserve is smaller than it was.
            Procedure::Absent | Procedure::Parked | Procedure::Released | Procedure::Over => {
                ProcedureResult::SpawnFailed { stage: SpawnStage::Clone, errno: ENOMEM }
            }
        }
    }

    /// What is wrong with a unit that has lost its procedure.
    pub(super) fn procedure_trouble(&self) -> Option<Trouble> {
        match self.procedure {
            Procedure::Lost(ProcedureResult::Lost(exit)) => Some(Trouble::ProcedureLost { exit }),
            Procedure::Lost(ProcedureResult::SpawnFailed { stage, errno }) => {
                Some(Trouble::SpawnFailed { stage, errno, procedure: true })
            }
            Procedure::Absent
            | Procedure::Parked
            | Procedure::Released
            | Procedure::Over
            | Procedure::Lost(_) => None,
        }
    }

    /// Up, or for a task: has been up and ended well. What requires it may start.
    pub(super) fn satisfies(&self) -> bool {
        match self.state {
            // One that is to be restarted is as good as down.
            State::Running | State::Idling => self.policy.kind != Kind::Task && !self.again,
            // Who needs a resting one finds its sockets open.
            State::Down(Rest::Done | Rest::Skipped | Rest::Listening) => true,
            State::Down(Rest::Stopped | Rest::Exited | Rest::Fatal | Rest::Gone)
            | State::Waiting
            | State::Backoff
            | State::Parking
            | State::Spawning
            | State::Readying
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => false,
        }
    }

    /// On its way up, so that units ordered after it wait a little.
    pub(super) fn is_coming(&self) -> bool {
        match self.state {
            State::Parking | State::Spawning | State::Readying => true,
            State::Running => self.policy.kind == Kind::Task,
            State::Waiting => !self.is_down_for_good(),
            State::Down(_)
            | State::Idling
            | State::Backoff
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => false,
        }
    }

    /// Down for good: it will not come back by itself.
    pub(super) fn is_down_for_good(&self) -> bool {
        match self.state {
            State::Down(Rest::Stopped | Rest::Exited | Rest::Fatal | Rest::Gone) => true,
            State::Waiting => self.wants_its_requirement(),
            State::Killing => self.stuck,
            State::Down(Rest::Done | Rest::Skipped | Rest::Listening)
            | State::Backoff
            | State::Parking
            | State::Spawning
            | State::Readying
            | State::Running
            | State::Idling
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled => false,
        }
    }

    /// It can be wished up: it was found fit, and it is there.
    pub(super) fn may_start(&self) -> bool {
        self.policy.refused.is_none() && !self.leaving && self.state != State::Down(Rest::Gone)
    }

    /// It rests before it is needed.
    pub(super) fn rests(&self) -> bool {
        self.policy.descriptors.on_demand && !self.demanded
    }

    /// It would start, but something that it requires is down.
    pub(super) fn wants_its_requirement(&self) -> bool {
        matches!(self.trouble, Some(Trouble::RequirementDown { .. } | Trouble::Conflict { .. }))
    }

    /// On its way up or up, with a process that a stop would have to end.
    pub(super) fn is_started(&self) -> bool {
        match self.state {
            State::Parking | State::Spawning | State::Readying | State::Running | State::Idling => true,
            State::Down(_)
            | State::Waiting
            | State::Backoff
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => false,
        }
    }

    /// It has processes, or a wish to have some that nothing has overruled yet; one that does not die counts as down.
    pub(super) fn must_be_awaited(&self) -> bool {
        !self.state.is_down() && !self.stuck
    }

    /// The state's name for people.
    pub(super) fn state_name(&self) -> StateName {
        match self.state {
            State::Down(Rest::Stopped | Rest::Gone) => StateName::Stopped,
            State::Down(Rest::Exited) => StateName::Exited,
            State::Down(Rest::Fatal) => StateName::Fatal,
            State::Down(Rest::Done) => StateName::Done,
            State::Down(Rest::Skipped) => StateName::Skipped,
            State::Down(Rest::Listening) => StateName::Listening,
            State::Waiting if self.is_down_for_good() => StateName::Stopped,
            State::Waiting | State::Parking | State::Spawning | State::Readying => StateName::Starting,
            State::Backoff => StateName::Backoff,
            State::Running if self.said_stopping.is_some() => StateName::Stopping,
            State::Running | State::Idling => StateName::Running,
            State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => {
                if matches!(self.end, Some(End::Exhausted | End::Drilled { .. })) {
                    StateName::Rescuing
                } else {
                    StateName::Stopping
                }
            }
        }
    }

    /// The number of its present or last life, as readers count them.
    pub(super) fn shown_run(&self) -> RunId {
        RunId(self.run.0 - self.inherited.0)
    }

    /// The condition for which it was skipped.
    fn unmet_condition(&self) -> Option<&String> {
        match self.trouble {
            Some(Trouble::ConditionNotMet { condition }) => {
                self.policy.conditions.get(usize::from(condition))
            }
            Some(_) | None => None,
        }
    }

    /// Its procedure runs when its memory is exhausted.
    pub(super) fn saves_on_exhaustion(&self) -> bool {
        self.policy.procedure.is_some_and(|procedure| procedure.on_exhaustion)
    }

    /// The counters' growth since the run began.
    pub(super) fn counters_of_run(&self) -> MemoryEvents {
        let (now, then) = (self.counters, self.counters_at_start);
        MemoryEvents {
            high: now.high.saturating_sub(then.high),
            max: now.max.saturating_sub(then.max),
            oom: now.oom.saturating_sub(then.oom),
            oom_kill: now.oom_kill.saturating_sub(then.oom_kill),
            oom_below: now.oom_below.saturating_sub(then.oom_below),
        }
    }
}

impl Service {
    fn refused_settings(&self) -> Vec<RefusedSetting> {
        let refused = Setting::all().zip(self.refused_settings).filter(|(_, errno)| *errno != 0);
        refused
            .map(|(setting, errno)| RefusedSetting {
                setting: setting.name().to_owned(),
                errno: errno.into(),
            })
            .collect()
    }

    /// The unit as readers see it.
    pub(super) fn view(&self, now: Time) -> UnitView {
        let budget = self.policy.restart.exhaustion;
        let counters = self.counters_of_run();
        UnitView {
            drill: self.drill,
            name: self.policy.name.clone(),
            description: self.policy.description.clone(),
            kind: self.policy.kind,
            desired: self.desired,
            state: self.state_name(),
            since: self.since,
            run: self.shown_run(),
            pid: self.pid,
            memory: self.policy.memory.map(|memory| MemoryView {
                max_bytes: memory.max_bytes,
                class: memory.class,
                guard: memory.guard,
                sample: self.sample,
                counters,
                stall: self.standstill.stall.filter(|_| may_be_rescued(self.state)),
                unguarded: self.has_no_ballast_any_more(),
            }),
            last_exit: self.last_exit,
            trouble: self.trouble,
            condition: self.unmet_condition().cloned(),
            incidents: self.incidents,
            refused_settings: self.refused_settings(),
            exhaustions: self.restarts.exhaustions(now, &budget),
            exhaustions_within_ms: budget.within_ms,
            fallback: self.fallback,
            warnings: self.warnings.given,
            failed_command: self.commands.failed,
            status: None,
            reloading: self.reload.under_way,
            sockets: self.policy.descriptors.sockets.clone(),
        }
    }
}
