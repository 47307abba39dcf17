//! What must hold after every turn of the engine, whatever the kernel does. Each has a name; a violation tells it. One
//! file for each kind of promise.

mod acts;
mod changes;
mod drills;
mod ends;
mod escalations;
mod rests;
mod shown;
mod silence;
mod starts;

use crate::fake_kernel::FakeKernel;
use escalations::Standing;
use lifeboat::engine::Engine;
use lifeboat::engine::event::{ClientId, Event, Exit, MemoryEvents, Note, Role, Time, Verb};
use lifeboat::engine::policy::{RunId, UnitId, UnitPolicy};
use lifeboat::engine::snapshot::Snapshot;
use std::collections::{BTreeMap, BTreeSet};

/// The list. `Violation` carries one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invariant {
    /// A run begins only when no process of an earlier run of the unit lives.
    OneRunAtOnce,
    /// Run numbers grow by one with each start.
    RunsCountUp,
    /// `Spawn` follows `Parked` of the same run where the unit has a procedure.
    ParkedBeforeSpawn,
    /// `Spawn` follows `BallastStands` of the same run where the unit has a canary.
    GuardedBeforeSpawn,
    /// Nothing is done to a run that is not the present one.
    OnlyThePresentRun,
    /// A command begins only when nothing of an earlier one of its unit lives, and its service is up and not ending.
    OneCommandAtOnce,
    /// A run begins only when what the unit requires is up.
    RequirementsAreUp,
    /// A run begins only when the unit's conditions are met.
    ConditionsAreMet,
    /// A run begins only when nothing lives of what the unit conflicts with, and two such units are never up.
    RivalsApart,
    /// While nothing is on its way, what a unit that is up requires is up.
    NothingOnADeadRequirement,
    /// A unit that restarts with its requirements is never up in a run that began before theirs.
    RestartsTogether,
    /// A unit is held for a new limit for a moment only, and then goes on or to its end.
    HeldForAMoment,
    /// A service that was told to stand still, and is to end by a signal, is told to go on, or killed, in that turn.
    SignalsAreHeard,
    /// A reload is answered in its time.
    ReloadsEnd,
    /// A drill that nobody asks for comes a whole interval after the run's beginning and the last drill; that one is
    /// put off is told once, and none is shown as under way of a unit that is down.
    DrillsInTime,
    /// A service that is not ready by its `start_timeout`, or misses its watchdog, does not stay.
    NoSilence,
    /// A unit is shown as RUNNING only when it has shown that it is ready.
    RunningIsReady,
    /// The memory of released procedures that live stays within the reserve.
    ReserveHolds,
    /// A procedure is released at most once in a run, and never before it is parked.
    ReleasedOnce,
    /// A unit is not started more often than its limit within its window, unless a person asked.
    StartLimitHolds,
    /// While nothing is on its way and no deadline is set, nothing is half way.
    NothingHangs,
    /// Every request gets one answer, unless its client has gone.
    OneReply,
    /// A shielded unit's exhaustion starts its living procedure before the service is killed.
    SavedBeforeKilled,
    /// What is open for a unit over its runs is closed only when no process of it lives, and when the machine ends.
    ClosedInTheEnd,
    /// Nothing starts after a shutdown was asked.
    NothingStartsInShutdown,
    /// The shutdown finishes once, within its bound, and leaves no process that could be killed.
    FinishesOnce,
    /// A fallback is wished up when its unit is given up.
    FallbackComes,
    /// It is wished down again when that unit is up, unless it is there for its own sake.
    FallbackGoes,
    /// The rescue begins when all else is down, and nothing else starts unasked.
    RescueIsAlone,
    /// A unit whose budget of exhaustions is used up is not started, unless a person asked or it stands in for another.
    BudgetHolds,
    /// With `Never` and `OnExhaustion` a unit is started again only for a reason that they allow.
    RestartsAsAllowed,
    /// A unit that is shown as down has no process.
    NoOrphan,
    /// A unit has no process that is not on its way down while what it requires is down for good.
    StandsOnWhatIsUp,
    /// Whatever is on its way down is down, or unkillable, by the sum of its deadlines.
    StopsEnd,
    /// The times of an incident stand in order, and the numbers of incidents too.
    IncidentsInOrder,
    /// The decisions of a closed incident are the same when they are made again from its file.
    IncidentsReplay,
    /// Every incident that is closed is handed over once to be kept.
    IncidentsKept,
    /// A unit changes, or goes, only when no process of it lives.
    NothingLeft,
    /// The snapshot contradicts neither itself nor its generation.
    SnapshotHolds,
}

#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) detail: String,
}

fn hold(invariant: Invariant, holds: bool, detail: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { invariant, detail: detail() }) }
}

/// What was told and asked of a unit's present run.
#[derive(Clone, Debug, Default)]
struct Seen {
    run: RunId,
    /// The run number at which this unit came to its place.
    born: RunId,
    parked: bool,
    /// Its ballast stood.
    guarded: bool,
    spawned: bool,
    /// When `Spawn` was asked for and when it was told.
    spawn_asked: Time,
    spawn_told: Time,
    ready: Option<Time>,
    /// The last sign of life that counts, once it is ready.
    alive: Time,
    extended: bool,
    /// It said that it is on its way out, and has to be gone by then.
    gone_by: Option<Time>,
    /// Since when it stands still for a new limit.
    held: Option<Time>,
    /// It was told to stand still, and got a signal since then.
    still: bool,
    unheard: bool,
    exit: Option<Exit>,
    procedure_over: bool,
    ending: bool,
    signalled: bool,
    /// Its stop has begun, maybe by a command.
    stopping: bool,
    /// Kills asked for, of the service and of the procedure.
    kills: [u32; 2],
    /// The same of what a drill's procedure has left, or a lost one.
    rearm_kills: u32,
    releases: u32,
    /// It is on its way to its procedure and back; then that its procedure is to be parked anew.
    drills: bool,
    rearms: bool,
    /// When it was back from its last drill, and whether it was told since then that the next one is put off.
    drilled: Option<Time>,
    put_off: bool,
    /// The second procedure came.
    otherwise: bool,
    /// The number of the last command, over all runs, and how often it was killed.
    command: RunId,
    command_kills: u32,
    /// Its memory was exhausted while its procedure stood ready.
    must_save: bool,
    counters: MemoryEvents,
    starts: Vec<Time>,
    /// When it began to go down.
    goes_since: Option<Time>,
    /// Its sockets are open.
    opened: bool,
    /// And it rests until something comes in.
    listens: bool,
    /// It was found idle, and is to stand still to be looked at once more; then that it does.
    idle: bool,
    stands_still: bool,
    /// What was last said of its conditions, for the run that would begin.
    conditions: Option<Conditions>,
}

/// Of a unit that would start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conditions {
    Met,
    NotMet,
}

pub(crate) struct Watch {
    policies: Vec<UnitPolicy>,
    successors: Vec<Option<UnitPolicy>>,
    seen: Vec<Seen>,
    open_requests: BTreeMap<u64, u32>,
    /// Who waits for a reload, and until when it may.
    reloads: Vec<(ClientId, Time)>,
    /// Who is asked to drill in this turn.
    drill_asked: Option<UnitId>,
    gone: Vec<ClientId>,
    shutdown_at: Option<Time>,
    /// Targets that have gone down in this turn.
    targets_down: Vec<(UnitId, RunId)>,
    /// Units that were stopped in this turn for others' sake.
    excused: Vec<UnitId>,
    finished: bool,
    turn: u64,
    last: Option<Snapshot>,
    rescue: Option<UnitId>,
    rescue_called: bool,
    standings: Vec<Standing>,
    /// The units were changed by other files.
    changed: bool,
    /// In this turn something was given up.
    escalated: bool,
    /// The numbers of the incidents that were handed over.
    kept: BTreeSet<u32>,
}

impl Watch {
    pub(crate) fn new(policies: &[UnitPolicy], rescue: Option<UnitId>) -> Self {
        Self {
            policies: policies.to_vec(),
            successors: vec![None; policies.len()],
            seen: vec![Seen::default(); policies.len()],
            open_requests: BTreeMap::new(),
            reloads: Vec::new(),
            drill_asked: None,
            gone: Vec::new(),
            shutdown_at: None,
            targets_down: Vec::new(),
            excused: Vec::new(),
            finished: false,
            turn: 0,
            last: None,
            rescue,
            rescue_called: false,
            standings: vec![Standing::default(); policies.len()],
            changed: false,
            escalated: false,
            kept: BTreeSet::new(),
        }
    }

    pub(crate) fn shutting_down(&self) -> bool {
        self.shutdown_at.is_some()
    }

    fn present(&mut self, unit: UnitId, run: RunId) -> Option<&mut Seen> {
        self.seen.get_mut(usize::from(unit.0)).filter(|seen| seen.run == run)
    }

    fn procedure_is_over(&mut self, unit: UnitId, run: RunId) {
        if let Some(seen) = self.present(unit, run) {
            seen.procedure_over = true;
        }
    }

    /// Before the engine gets the event.
    pub(crate) fn event(&mut self, now: Time, event: Event, kernel: &mut FakeKernel) {
        self.wanted(event);
        self.drill_asked(event);
        match event {
            Event::ConditionsChecked { unit, run, unmet } => self.conditions_told(unit, run, unmet),
            Event::Parked { unit, run, .. } => {
                if let Some(seen) = self.present(unit, run) {
                    seen.parked = true;
                }
            }
            // There is none to be waited for.
            Event::SpawnFailed { unit, run, role: Role::Procedure, .. } => self.procedure_is_over(unit, run),
            Event::BallastStands { unit, run } => {
                if let Some(seen) = self.present(unit, run) {
                    seen.guarded = true;
                }
            }
            Event::Spawned { unit, run, .. } => self.told_spawned(now, unit, run),
            Event::Exited { unit, run, role, exit } => match (role, self.present(unit, run)) {
                (Role::Service, Some(seen)) => seen.exit = seen.exit.or(Some(exit)),
                (Role::Procedure, Some(_)) => self.procedure_is_over(unit, run),
                // The number of a command is no run.
                (Role::Command | Role::Ballast, _) | (_, None) => {}
            },
            Event::MemoryEvents { unit, run, role: Role::Service, counters } => {
                self.exhaustion(unit, run, counters, kernel);
            }
            Event::Asked { client, unit, verb } => {
                *self.open_requests.entry(client.0).or_default() += 1;
                if verb == Verb::Reload {
                    self.reload_asked(now, client, unit);
                }
                if matches!(verb, Verb::Start | Verb::Restart | Verb::Drill | Verb::DrillToTheEnd) {
                    self.seen.iter_mut().for_each(|seen| seen.starts.clear());
                }
            }
            Event::LimitAsked { client, .. } => *self.open_requests.entry(client.0).or_default() += 1,
            Event::IncidentsAhead { from, by } => {
                let shifted = |number: &u32| if *number >= from { number + by } else { *number };
                self.kept = self.kept.iter().map(shifted).collect();
            }
            Event::ClientGone { client } => {
                self.gone.push(client);
                self.reloads.retain(|(asked_by, _)| *asked_by != client);
            }
            Event::ShutdownAsked { .. } => {
                self.shutdown_at.get_or_insert(now);
            }
            Event::Ready { unit, run } => self.says_ready(now, unit, run, false),
            Event::Notified { unit, run, note: Note::Ready } => self.says_ready(now, unit, run, true),
            Event::Notified { unit, run, note } => self.says(now, (unit, run), note),
            Event::Demanded { unit, run } => self.demanded(unit, run),
            Event::LookedIdle { unit, run, idle } => self.looked_idle(unit, run, idle),
            Event::Deadline => self.time_makes_ready(now),
            Event::Boot
            | Event::Probed { .. }
            | Event::SpawnFailed { .. }
            | Event::SettingRefused { .. }
            | Event::LimitTried { .. }
            | Event::ProcedurePeak { .. }
            | Event::ProcedureRunning { .. }
            | Event::Emptied { .. }
            | Event::KilledOutside { .. }
            | Event::Strayed { .. }
            | Event::Frozen { .. }
            | Event::Failed { .. }
            | Event::MemoryEvents { .. }
            | Event::MemorySampled { .. }
            | Event::LeftBehind { .. }
            | Event::PressureRang { .. }
            | Event::Reconfigured { .. } => {}
        }
    }

    fn says(&mut self, now: Time, (unit, run): (UnitId, RunId), note: Note) {
        let Some(seen) = self.present(unit, run) else { return };
        match note {
            Note::Alive => seen.alive = now,
            Note::ExtendMs(_) => seen.extended = true,
            Note::Ready
            | Note::Reloading
            | Note::Stopping
            | Note::Failing
            | Note::MainPid(_)
            | Note::Status => {}
        }
    }

    /// The first answer counts.
    fn conditions_told(&mut self, unit: UnitId, run: RunId, unmet: Option<u8>) {
        if let Some(seen) = self.present(unit, RunId(run.0.saturating_sub(1))) {
            let answer = if unmet.is_none() { Conditions::Met } else { Conditions::NotMet };
            seen.conditions.get_or_insert(answer);
        }
    }

    /// After the turn.
    pub(crate) fn turn(&mut self, now: Time, engine: &Engine, kernel: &FakeKernel) -> Result<(), Violation> {
        self.turn += 1;
        for (unit, run) in std::mem::take(&mut self.targets_down) {
            self.present(unit, run).into_iter().for_each(|seen| seen.ending = true);
        }
        for unit in std::mem::take(&mut self.excused) {
            self.seen[usize::from(unit.0)].starts.pop();
        }
        self.no_silence(now)?;
        self.reloads_end(now)?;
        let quiet = engine.next_deadline().is_none() && kernel.pending == 0;
        if !quiet && !self.escalated && !self.turn.is_multiple_of(8) {
            return Ok(());
        }
        self.shown(now, engine, kernel, quiet)
    }
}
