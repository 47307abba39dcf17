//! What changes of one unit from turn to turn: everything that decisions about it rest on, but its definition, its
//! neighbours and the history of its starts.
//!
//! It is one small value that can be copied: so a checkpoint of a unit (`episode`) cannot forget a field.

use super::canary::Canary;
use super::command::Commands;
use super::drill::Rearm;
use super::event::{Exit, MemoryEvents, MemorySample, Time};
use super::limiting::Limiting;
use super::otherwise::Otherwise;
use super::policy::{RunId, UnitId};
use super::prediction::{Needs, Trend};
use super::reload::Reload;
use super::service::{End, Loan, Open, Procedure, State};
use super::setting::Setting;
use super::snapshot::{Desired, Drill, Incident, KillReason, KilledBy, Trouble};
use super::standstill::Standstill;
use super::warning::Warnings;
use serde::{Deserialize, Serialize};

/// What the kernel has killed for memory in cgroups below a unit's, in one run, and was told as their own affair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ToldBelow {
    /// The run's `oom_below` as the last one was told.
    pub(super) oom: u64,
    /// Processes.
    pub(super) oom_kill: u64,
    /// When the last one was told.
    pub(super) at: Time,
}

/// One unit between two turns. `Service` tells what always holds of it.
///
/// What is skipped says how it stands to other units, or is for readers: nothing between the end of a unit's calm and
/// what comes after its incident rests on it, and each field that is written down is code in PID 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moment {
    /// It was taken out: it goes when nothing of it is left.
    #[serde(skip)]
    pub(super) leaving: bool,
    /// It comes up when all that leave are gone.
    #[serde(skip)]
    pub(super) newcomer: bool,
    pub(super) desired: Desired,
    /// The turn in which it was last wished up.
    #[serde(skip)]
    pub(super) wished_in_turn: u64,
    pub(super) state: State,
    pub(super) since: Time,
    pub(super) run: RunId,
    /// The number of the last run that another unit had in this place.
    pub(super) inherited: RunId,
    pub(super) run_began: Time,
    /// It became ready in this run.
    pub(super) up_since: Option<Time>,
    /// It said in this run that it is ready, maybe before its `execve` was told.
    pub(super) said_ready: bool,
    /// A health check is open.
    pub(super) probing: bool,
    /// Health checks that failed, since the last good one.
    pub(super) misses: u32,
    /// By when it is to be ready.
    pub(super) ready_by: Time,
    pub(super) pid: Option<u32>,
    pub(super) open: Open,
    /// What runs beside it.
    pub(super) commands: Commands,
    pub(super) reload: Reload,
    pub(super) procedure: Procedure,
    /// It was not needed, and waits where it is for the run that follows at once.
    pub(super) keeps_parked: bool,
    /// When it last came to stand in its parking place.
    pub(super) parked_at: Time,
    pub(super) end: Option<End>,
    /// The time at which the end began.
    pub(super) end_began: Time,
    /// It was wished up: what it requires is to be wished up too, once.
    #[serde(skip)]
    pub(super) calls_requirements: bool,
    /// Why it was last wished down.
    pub(super) down_reason: KillReason,
    /// The unit that runs in its stead, since it was given up.
    #[serde(skip)]
    pub(super) fallback: Option<UnitId>,
    /// It runs in another one's stead.
    #[serde(skip)]
    pub(super) stands_in: bool,
    /// While it does: it would be up without that too.
    #[serde(skip)]
    pub(super) for_itself: bool,
    /// The rescue needs it.
    #[serde(skip)]
    pub(super) spared: bool,
    /// It was wished down: what requires it is to be wished down too, once.
    #[serde(skip)]
    pub(super) calls_dependents: bool,
    /// A restart was asked: after the stop comes a start.
    pub(super) again: bool,
    /// When it said that it is on its way out.
    pub(super) said_stopping: Option<Time>,
    /// That restart was not asked for by a person: a unit that it requires begins a new run.
    pub(super) follows: bool,
    /// Its conditions are being looked at.
    #[serde(skip)]
    pub(super) checking: bool,
    /// It went down, or did not come up at boot, because of this unit, with which it conflicts.
    #[serde(skip)]
    pub(super) rival: Option<UnitId>,
    /// A limit that is being changed while it runs.
    pub(super) limiting: Option<Limiting>,
    /// It was told to stand still, and not yet to go on: a signal would wait for that.
    pub(super) still: bool,
    /// Somebody needs it now: it does not rest before its next run.
    pub(super) demanded: bool,
    pub(super) kill_tries: u8,
    /// It did not die by any number of kills: nothing waits for it.
    pub(super) stuck: bool,
    pub(super) holds_reserve: bool,
    pub(super) loan: Loan,
    /// Whether its procedure is on its way back from a drill.
    pub(super) rearm: Rearm,
    /// Its second procedure.
    pub(super) otherwise: Otherwise,
    /// Its last drill.
    pub(super) drill: Option<Drill>,
    /// It was told, since that one, that it was busy when the next was due.
    pub(super) drill_put_off: bool,
    /// The procedure comes as soon as the service is killed and gone.
    pub(super) saves_after_kill: bool,
    /// It stands in the queue of units to be looked at in this turn.
    #[serde(skip)]
    pub(super) marked: bool,
    /// It waits for a round in which it may start.
    #[serde(skip)]
    pub(super) lined_up: bool,
    /// errno(3) of the settings that the kernel did not take in the present or last run; 0 of all others.
    #[serde(skip)]
    pub(super) refused_settings: [u8; Setting::COUNT],
    pub(super) last_exit: Option<Exit>,
    /// Who killed its first process in this run, where lifeboat did not.
    pub(super) killed_by: Option<KilledBy>,
    pub(super) trouble: Option<Trouble>,
    pub(super) counters: MemoryEvents,
    pub(super) counters_at_start: MemoryEvents,
    /// What the kernel has killed in cgroups below, at limits of their own.
    pub(super) told_below: ToldBelow,
    /// `oom_kill` of the procedure's own cgroup when the run began, and now.
    pub(super) procedure_oom_kill: (u64, u64),
    /// `high` of the procedure's own cgroup; `None` where the next reading is what its work begins with.
    pub(super) procedure_high: Option<u64>,
    pub(super) sample: Option<(Time, MemorySample)>,
    /// The last reading that found it so.
    pub(super) waited_for_its_disk: Option<Time>,
    pub(super) trend: Trend,
    pub(super) needs: Needs,
    pub(super) warnings: Warnings,
    pub(super) standstill: Standstill,
    pub(super) canary: Canary,
    pub(super) incident: Option<Incident>,
    #[serde(skip)]
    pub(super) incidents: u32,
    /// The number of its last incident.
    #[serde(skip)]
    pub(super) last_incident: u32,
}

impl Moment {
    /// Leaves out what has other numbers, or is not there, where its events are decided again.
    pub(super) fn forget_numbers(&mut self) {
        if let Some(incident) = &mut self.incident {
            (incident.number, incident.unit) = (0, UnitId(0));
        }
        if let Some(Trouble::Exhausted { incident }) = &mut self.trouble {
            *incident = 0;
        }
        if let Some(Trouble::RequirementDown { .. } | Trouble::Conflict { .. }) = self.trouble {
            self.trouble = None;
        }
    }

    /// Before anything has happened.
    pub(super) fn new(state: State, trouble: Option<Trouble>) -> Self {
        Self {
            leaving: false,
            newcomer: false,
            desired: Desired::Down,
            wished_in_turn: 0,
            state,
            since: Time::default(),
            run: RunId(0),
            inherited: RunId(0),
            run_began: Time::default(),
            up_since: None,
            said_ready: false,
            probing: false,
            misses: 0,
            ready_by: Time::default(),
            pid: None,
            open: Open::default(),
            commands: Commands::default(),
            reload: Reload::default(),
            procedure: Procedure::Absent,
            keeps_parked: false,
            parked_at: Time::default(),
            end: None,
            end_began: Time::default(),
            calls_requirements: false,
            calls_dependents: false,
            down_reason: KillReason::StopAsked,
            fallback: None,
            stands_in: false,
            for_itself: false,
            spared: false,
            again: false,
            said_stopping: None,
            follows: false,
            checking: false,
            rival: None,
            limiting: None,
            still: false,
            demanded: false,
            kill_tries: 0,
            stuck: false,
            holds_reserve: false,
            loan: Loan::None,
            saves_after_kill: false,
            rearm: Rearm::No,
            otherwise: Otherwise::No,
            drill: None,
            drill_put_off: false,
            marked: false,
            lined_up: false,
            refused_settings: [0; Setting::COUNT],
            last_exit: None,
            killed_by: None,
            trouble,
            counters: MemoryEvents::default(),
            counters_at_start: MemoryEvents::default(),
            told_below: ToldBelow::default(),
            procedure_oom_kill: (0, 0),
            procedure_high: Some(0),
            sample: None,
            waited_for_its_disk: None,
            trend: Trend::default(),
            needs: Needs::default(),
            warnings: Warnings::default(),
            standstill: Standstill::default(),
            canary: Canary::default(),
            incident: None,
            incidents: 0,
            last_incident: 0,
        }
    }
}
