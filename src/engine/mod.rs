//! Decides, and does nothing else: no IO, no clock, no logging, no randomness, no unsafe.
//!
//! [`Engine::handle`] gets the time and an event, and fills a [`Plan`]. What an action led to comes back as another
//! event only, so the log of events is the whole truth and can be replayed to the same decisions.
//!
//! Work inside one turn goes in two phases: the event changes the unit it is about, and marks the units that this may
//! concern; then the marked units are looked at one by one (`graph`) until none is left. Nothing recurses.

#![deny(
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

pub mod action;
pub mod budget;
mod canary;
pub mod change;
mod command;
mod demand;
mod doorbell;
mod drill;
mod ending;
pub mod episode;
mod escalation;
pub mod event;
mod exhaustion;
mod graph;
mod limiting;
pub mod limits;
mod loan;
mod moment;
pub mod numbers;
mod otherwise;
mod parking;
pub mod policy;
mod prediction;
mod readiness;
pub mod record;
pub mod recorder;
mod reload;
pub mod replay;
mod requests;
mod restart;
mod service;
pub mod setting;
mod shutdown;
pub mod snapshot;
mod standstill;
mod starting;
mod sudden;
mod timer;
mod verdict;
mod warning;

use action::Action;
use episode::Episodes;
use escalation::Rescue;
use event::{Event, Time};
use limiting::Room;
use policy::{RunId, UnitId, UnitPolicy};
use record::Record;
use recorder::Recorder;
use requests::Waits;
use service::{Rest, Service, State};
use snapshot::{Incident, ShutdownState, Snapshot, SystemView};
use std::collections::VecDeque;
use timer::{TimerKind, Timers};

/// The actions of one turn, in the order in which they are to be performed. Made once and reused.
///
/// Words come last: an action never waits for a line on a slow console. They may be left in the plan over several
/// events, as long as there is room.
#[derive(Debug, Default)]
pub struct Plan {
    actions: VecDeque<Action>,
    records: VecDeque<Record>,
}

impl Plan {
    /// A plan with room for what one event can lead to with so many units: it never grows.
    #[must_use]
    pub fn for_units(units: usize) -> Self {
        let mut plan = Self::default();
        plan.make_room(units);
        plan
    }

    /// The same for a plan that is there already.
    fn make_room(&mut self, units: usize) {
        let count = 4 * units + 64;
        self.actions.reserve(count.saturating_sub(self.actions.len()));
        self.records.reserve((2 * count).saturating_sub(self.records.len()));
    }

    pub(in crate::engine) fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(in crate::engine) fn tell(&mut self, record: Record) {
        self.records.push_back(record);
    }

    /// The next action to perform, words included.
    pub fn take(&mut self) -> Option<Action> {
        self.take_deed().or_else(|| self.take_words())
    }

    /// The next action but words.
    pub fn take_deed(&mut self) -> Option<Action> {
        next_of(&mut self.actions)
    }

    /// The next words, once all else is done.
    pub fn take_words(&mut self) -> Option<Action> {
        next_of(&mut self.records).map(Action::Log)
    }

    /// The words of one event more might not find room.
    #[must_use]
    pub fn is_full_of_words(&self) -> bool {
        self.records.len() > self.records.capacity() / 2
    }

    /// Nothing is left to perform.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.records.is_empty()
    }
}

/// The next in the queue. An empty one begins anew at its beginning: else it would wander through all of its memory,
/// and touch what it never needs.
fn next_of<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let next = queue.pop_front();
    if queue.is_empty() {
        queue.clear();
    }
    next
}

/// All decisions, and everything that they rest on.
///
/// # Invariants
/// - Every table is sized in `new` and `reconfigure`; a turn of `handle` allocates nothing.
/// - `reserve_used_bytes` is the sum of the procedures' memory of the units that hold some of the reserve.
#[derive(Debug)]
pub struct Engine {
    units: Vec<Service>,
    timers: Timers,
    recorder: Recorder,
    episodes: Episodes,
    marked: VecDeque<UnitId>,
    /// They start in the next rounds, in this order.
    lined_up: VecDeque<UnitId>,
    /// So many starts are left in this round.
    starts_left: usize,
    waits: Waits,
    incidents: VecDeque<Incident>,
    incident_count: u32,
    reserve_bytes: u64,
    reserve_used_bytes: u64,
    room: Room,
    shutdown: Option<ShutdownState>,
    rescue: Rescue,
    /// In a shutdown: so many units, from the first one on, are down for good.
    found_down: usize,
    /// Counts the turns.
    turn: u64,
    /// This turn is the one in which the first units are wished up.
    booting: bool,
    generation: u64,
    now: Time,
}

impl Engine {
    /// An engine for these units; nothing runs yet. A unit's place in the list is its `UnitId`. Units above
    /// `limits::UNITS_MAX` are left out. `reserve_bytes` is what procedures may use together.
    #[must_use]
    pub fn new(mut policies: Vec<UnitPolicy>, reserve_bytes: u64) -> Self {
        policies.truncate(limits::UNITS_MAX);
        let mut units: Vec<Service> = policies.into_iter().map(Service::new).collect();
        graph::connect(&mut units);
        let count = units.len();
        Self {
            units,
            timers: Timers::new(count),
            recorder: Recorder::new(),
            episodes: Episodes::new(),
            marked: VecDeque::with_capacity(count),
            lined_up: VecDeque::with_capacity(count),
            starts_left: limits::STARTS_AT_ONCE,
            waits: Waits::new(),
            incidents: VecDeque::with_capacity(limits::INCIDENTS_MAX),
            incident_count: 0,
            reserve_bytes,
            reserve_used_bytes: 0,
            room: Room { guaranteed_bytes: u64::MAX, pool_bytes: u64::MAX },
            shutdown: None,
            rescue: Rescue::default(),
            found_down: 0,
            turn: 0,
            booting: false,
            generation: 0,
            now: Time::default(),
        }
    }

    /// The unit that `Escalation::Rescue` starts. Without one it means `Stop`.
    pub fn set_rescue(&mut self, unit: Option<UnitId>) {
        self.rescue.unit = unit;
    }

    /// One event, and what is to be done about it. Total: there is no event, in no state, that it cannot take.
    pub fn handle(&mut self, now: Time, event: Event, plan: &mut Plan) {
        self.now = now;
        self.turn += 1;
        self.recorder.record(now, event);
        self.watch_episodes(&event);
        let first = plan.actions.len();
        self.decide(event, plan);
        self.settle(plan);
        self.booting = false;
        self.note_episodes(event, first, plan);
    }

    /// The event changes whom it is about, and marks whom that may concern.
    fn decide(&mut self, event: Event, plan: &mut Plan) {
        match event {
            Event::Boot => self.boot(),
            Event::Deadline => self.deadlines(plan),
            Event::ConditionsChecked { unit, run, unmet } => self.conditions_checked(unit, run, unmet, plan),
            Event::Parked { unit, run, pid: _ } => self.parked(unit, run, plan),
            Event::BallastStands { unit, run } => self.ballast_stands(unit, run, plan),
            Event::Spawned { unit, run, pid } => self.spawned(unit, run, pid, plan),
            Event::SpawnFailed { unit, run, role, stage, errno } => {
                self.spawn_failed((unit, run), role, (stage, errno), plan);
            }
            Event::SettingRefused { unit, run, setting, errno, skipped } => {
                self.setting_refused((unit, run), setting, (errno, skipped), plan);
            }
            Event::Ready { unit, run } => self.told_ready(unit, run, plan),
            Event::Probed { unit, run, healthy } => self.probed(unit, run, healthy, plan),
            Event::Notified { unit, run, note } => self.notified(unit, run, note, plan),
            Event::Demanded { unit, run } => self.demanded(unit, run, plan),
            Event::LookedIdle { unit, run, idle } => self.looked_idle(unit, run, idle, plan),
            Event::ProcedurePeak { unit, run, peak_bytes } => self.procedure_peak(unit, run, peak_bytes),
            Event::ProcedureRunning { unit, run } => self.procedure_running(unit, run),
            Event::Exited { unit, run, role, exit } => self.exited((unit, run), role, exit, plan),
            Event::KilledOutside { unit, run, by } => self.killed_outside(unit, run, by),
            Event::Emptied { unit, run, role } => self.emptied(unit, run, role, plan),
            Event::Strayed { unit, run } => self.strayed(unit, run, plan),
            Event::Frozen { unit, run } => self.frozen(unit, run, plan),
            Event::Failed { unit, run, effect, errno } => {
                self.effect_failed((unit, run), effect, errno, plan)
            }
            Event::MemoryEvents { unit, run, role, counters } => {
                self.memory_events((unit, run), role, counters, plan);
            }
            Event::MemorySampled { unit, run, sample } => self.memory_sampled(unit, run, sample, plan),
            Event::LeftBehind { unit, run, left } => self.left_behind(unit, run, left),
            Event::PressureRang { unit, run } => self.pressure_rang(unit, run, plan),
            Event::Asked { client, unit, verb } => self.asked(client, unit, verb, plan),
            Event::LimitAsked { client, unit, limit, below } => {
                self.limit_asked((client, below), unit, limit, plan)
            }
            Event::LimitTried { unit, run, limit, tried } => {
                self.limit_tried((unit, run), limit, tried, plan)
            }
            Event::ClientGone { client } => {
                self.waits.forget(client);
                self.forget_limiting(client);
            }
            Event::ShutdownAsked { how } => self.shutdown_asked(how, plan),
            Event::IncidentsAhead { from, by } => self.number_behind(from, by),
            // Recorded only: what it led to was done by `reconfigure`.
            Event::Reconfigured { changes: _ } => {}
        }
    }

    /// When `Event::Deadline` is wanted next; `None` while nothing waits for the time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        // A round that has no start left is over at once, so that the next one that is wanted need not line up.
        if self.lined_up.is_empty() && self.starts_left > 0 { self.timers.next() } else { Some(self.now) }
    }

    /// The last events, for an incident or for somebody who looks for the cause of a fault.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The incident of this number, while it is among the last ones that are closed.
    #[must_use]
    pub fn incident(&self, number: u32) -> Option<&Incident> {
        self.incidents.iter().rev().find(|incident| incident.number == number)
    }

    /// A unit is on its way from the exhaustion of its memory to its kill: nothing else should take time now.
    #[must_use]
    pub fn is_rescuing(&self) -> bool {
        let open = self.units.iter().filter_map(|service| service.incident.as_ref());
        open.into_iter().any(|incident| incident.killed.is_none())
    }

    /// An incident of the unit is open: what its memory does is of interest up to the end.
    #[must_use]
    pub fn has_open_incident(&self, unit: UnitId) -> bool {
        self.unit(unit).is_some_and(|service| service.incident.is_some())
    }

    /// Grows with every change that a reader could see.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The unit's present run, for the runtime to tag what it reads from the kernel.
    #[must_use]
    pub fn run_of(&self, unit: UnitId) -> Option<RunId> {
        self.units.get(usize::from(unit.0)).map(|service| service.run)
    }

    /// A picture for readers. It allocates, so it is made only when somebody asks.
    #[must_use]
    pub fn snapshot(&self, now: Time, mut system: SystemView) -> Snapshot {
        system.shutting_down = self.shutdown.map(|shutdown| shutdown.how);
        system.rescue_called_by = self.rescue.called_by;
        let mut present: Vec<&Service> = Vec::with_capacity(self.units.len());
        for unit in self.units.iter().filter(|unit| unit.state != State::Down(Rest::Gone)) {
            // Most are in order already.
            let at = present.partition_point(|other| other.policy.name <= unit.policy.name);
            present.insert(at, unit);
        }
        Snapshot {
            generation: self.generation,
            time: now,
            system,
            units: present.into_iter().map(|service| service.view(now)).collect(),
            names: self.units.iter().map(|service| service.policy.name.clone()).collect(),
            incidents: self.incidents.iter().copied().collect(),
        }
    }

    fn unit(&self, unit: UnitId) -> Option<&Service> {
        self.units.get(usize::from(unit.0))
    }

    fn unit_mut(&mut self, unit: UnitId) -> Option<&mut Service> {
        self.units.get_mut(usize::from(unit.0))
    }

    /// The unit, if the event is about its present run.
    fn live(&mut self, unit: UnitId, run: RunId) -> Option<&mut Service> {
        self.unit_mut(unit).filter(|service| service.run == run)
    }

    fn all(&self) -> impl Iterator<Item = UnitId> + use<> {
        (0..u16::try_from(self.units.len()).unwrap_or(u16::MAX)).map(UnitId)
    }

    /// The only way to another state: notes the time, clears the last one's deadlines, and marks who may be concerned.
    fn enter(&mut self, unit: UnitId, state: State) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        let is_up = |state| matches!(state, State::Running | State::Idling);
        let goes_down = is_up(service.state) && !is_up(state);
        let is_noticed = service.end.is_none_or(|end| !end.is_unnoticed());
        service.state = state;
        service.since = now;
        service.checking = false;
        if goes_down && is_noticed {
            self.restart_dependents(unit);
        }
        self.timers.clear(unit, TimerKind::Step);
        self.timers.clear(unit, TimerKind::Ready);
        self.timers.clear(unit, TimerKind::Watchdog);
        self.timers.clear(unit, TimerKind::Health);
        self.timers.clear(unit, TimerKind::Idle);
        self.generation += 1;
        self.mark_around(unit);
    }

    fn step_deadline(&mut self, unit: UnitId, ms: u64) {
        self.timers.set(unit, TimerKind::Step, self.now.plus_ms(ms));
    }

    fn deadlines(&mut self, plan: &mut Plan) {
        self.begin_round();
        while let Some((unit, kind)) = self.timers.take_due(self.now) {
            match kind {
                TimerKind::Step => self.step_due(unit, plan),
                TimerKind::Sample => self.sample_due(unit, plan),
                TimerKind::Ready => self.ready_due(unit, plan),
                TimerKind::Watchdog => self.watchdog_due(unit, plan),
                TimerKind::Health => self.health_due(unit, plan),
                TimerKind::Doorbell => self.doorbell_due(unit, plan),
                TimerKind::Command => self.command_due(unit, plan),
                TimerKind::Reload => self.reload_due(unit, plan),
                TimerKind::Idle => self.idle_due(unit, plan),
                TimerKind::Warn => self.warn_due(unit, plan),
                TimerKind::Drill => self.drill_due(unit, plan),
                TimerKind::NextDrill => self.next_drill_due(unit, plan),
                TimerKind::Ballast => self.ballast_due(unit, plan),
            }
        }
    }

    /// The step's deadline is over. Every state is named, so that a new one must say what its deadline means.
    fn step_due(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        match service.state {
            State::Parking | State::Spawning => self.start_timed_out(unit, plan),
            State::Readying => self.fail(unit, snapshot::Failure::NotReady, plan),
            State::Backoff => self.enter(unit, State::Waiting),
            State::Freezing => self.freeze_timed_out(unit, plan),
            State::Idling => self.go_on(unit, plan),
            State::Saving => self.procedure_timed_out(unit, plan),
            State::Asking => self.stop_command_timed_out(unit, plan),
            State::Signalled => self.kill(unit, snapshot::KillReason::StopTimedOut, plan),
            State::Killing => self.kill_again(unit, plan),
            State::Running => self.limiting_timed_out(unit, plan),
            State::Down(_) | State::Waiting | State::Queued => {}
        }
    }
}
