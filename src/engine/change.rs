//! Units that come, change and go while the others run.
//!
//! What people asked for by other files is a list of changes, decided elsewhere. Here it becomes wishes: who goes is
//! wished down and leaves its place when nothing of it is left; whose process would be made otherwise now ends its run
//! and begins the next one with its new definition; who comes waits until all who go are gone: both need not fit
//! into the machine at the same time. Kept units keep their place, their run and their history.
//!
//! A change may allocate: the tables grow here, so that no later turn has to.

use super::action::Action;
use super::event::{Event, MemoryEvents, Time};
use super::limits::UNITS_MAX;
use super::policy::{Kind, RunId, UnitId, UnitPolicy};
use super::record::Record;
use super::restart::Restarts;
use super::service::{Rest, Service, State, Successor};
use super::snapshot::{Desired, KillReason};
use super::timer::TimerKind;
use super::{Engine, Plan, graph};

/// What becomes of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A unit for a place that is free, or for the one behind the last.
    Add(UnitPolicy),
    /// Its new definition holds at once, and what runs goes on.
    Adjust(UnitPolicy),
    /// Its new definition holds from its next run on, and its present run ends for that. Its neighbours are new
    /// at once.
    Replace(UnitPolicy),
    /// Whether it is started at boot; nothing else of it changes.
    Autostart(bool),
    /// It is stopped and goes.
    Remove,
}

impl Engine {
    /// Applies changes, each about another unit. Total as `handle`: a change that makes no sense is left out, and while
    /// the machine goes down all are.
    pub fn reconfigure(&mut self, now: Time, changes: Vec<(UnitId, Change)>, plan: &mut Plan) {
        self.now = now;
        self.turn += 1;
        let event = Event::Reconfigured { changes: u16::try_from(changes.len()).unwrap_or(u16::MAX) };
        self.recorder.record(now, event);
        if self.shutdown.is_some() {
            return;
        }
        self.lose_episodes();
        let mut replaced = Vec::new();
        let mut removed = Vec::new();
        let mut adjusted = Vec::new();
        for (unit, change) in changes {
            match change {
                Change::Add(policy) => self.seat(unit, policy, plan),
                Change::Adjust(policy) => adjusted.extend(self.adjust(unit, policy)),
                Change::Replace(policy) => replaced.extend(self.note_successor(unit, policy)),
                Change::Autostart(autostart) => self.set_autostart(unit, autostart),
                Change::Remove => removed.extend(self.note_departure(unit)),
            }
        }
        self.grow(plan);
        graph::connect(&mut self.units);
        for unit in adjusted {
            self.probe_anew(unit, plan);
        }
        for unit in replaced {
            plan.tell(Record::Changed { unit });
            self.take_over(unit, plan);
        }
        for unit in removed {
            self.want_down(unit, KillReason::Removed);
        }
        self.part_rivals();
        self.welcome();
        self.generation += 1;
        for unit in self.all() {
            self.mark(unit);
        }
        self.settle(plan);
        self.booting = false;
    }

    /// Somebody has this place: a unit that is there, or one that is not gone yet.
    #[must_use]
    pub fn is_present(&self, unit: UnitId) -> bool {
        self.unit(unit).is_some_and(|service| service.state != State::Down(Rest::Gone))
    }

    /// It was taken out and is on its way down.
    #[must_use]
    pub fn is_leaving(&self, unit: UnitId) -> bool {
        self.unit(unit).is_some_and(|service| service.leaving)
    }

    /// The number of the unit's present life, as readers count them, where it is not at rest.
    #[must_use]
    pub fn shown_run(&self, unit: UnitId) -> Option<RunId> {
        self.unit(unit).filter(|_| !self.is_at_rest(unit)).map(Service::shown_run)
    }

    /// It has no process, and none is on its way.
    #[must_use]
    pub fn is_at_rest(&self, unit: UnitId) -> bool {
        self.unit(unit).is_none_or(|service| matches!(service.state, State::Down(_)))
    }

    /// The machine goes down: nothing is changed any more.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.shutdown.is_some()
    }

    /// Places for new units of these names: one that a unit of the same name has left, else one of which no incident
    /// speaks, else one behind the last. `None` where there is no room.
    #[must_use]
    pub fn places_for(&self, names: &[&str]) -> Vec<Option<UnitId>> {
        let mut free: Vec<UnitId> = self.all().filter(|unit| !self.is_present(*unit)).collect();
        let mut next = self.units.len();
        let own = |name: &str, unit: &UnitId| self.unit(*unit).is_some_and(|old| old.policy.name == name);
        let mut places: Vec<Option<UnitId>> = names
            .iter()
            .map(|name| free.iter().position(|unit| own(name, unit)).map(|at| free.remove(at)))
            .collect();
        for place in places.iter_mut().filter(|place| place.is_none()) {
            let unsung = |unit: &UnitId| self.incidents.iter().all(|incident| incident.unit != *unit);
            let at = free.iter().position(unsung);
            *place = match at.or((next >= UNITS_MAX && !free.is_empty()).then_some(0)) {
                Some(at) => Some(free.remove(at)),
                None if next < UNITS_MAX => {
                    next += 1;
                    u16::try_from(next - 1).ok().map(UnitId)
                }
                None => None,
            };
        }
        places
    }

    fn seat(&mut self, unit: UnitId, policy: UnitPolicy, plan: &mut Plan) {
        let mut service = Service::new(policy);
        service.since = self.now;
        service.newcomer = service.policy.autostart;
        let at = usize::from(unit.0);
        if at == self.units.len() && at < UNITS_MAX {
            self.units.push(service);
        } else if let Some(old) = self.units.get_mut(at).filter(|old| old.state == State::Down(Rest::Gone)) {
            // An event of the last unit's last run, however late it comes, finds no run of its number.
            service.run = RunId(old.run.0 + 1);
            service.inherited = service.run;
            service.commands = old.commands.counting_on();
            if old.policy.name != service.policy.name {
                self.incidents.retain(|incident| incident.unit != unit);
            }
            *old = service;
        } else {
            return;
        }
        plan.tell(Record::Added { unit });
    }

    /// Gives the unit where its health is checked otherwise from now on.
    fn adjust(&mut self, unit: UnitId, policy: UnitPolicy) -> Option<UnitId> {
        let service =
            self.unit_mut(unit).filter(|service| !service.leaving && service.successor.is_none())?;
        if service.policy.restart != policy.restart {
            service.restarts = Restarts::new(&policy.restart);
        }
        let health_differs = service.policy.health != policy.health;
        let drill_every_ms = service.drill_every_ms();
        // What it requires now is to be up before anybody finds that it is not.
        service.calls_requirements |= service.desired == Desired::Up
            && (service.policy.requires != policy.requires || service.policy.wants != policy.wants);
        service.policy = policy;
        let is_up = matches!(service.state, State::Running | State::Idling);
        if is_up && service.drill_every_ms() != drill_every_ms {
            self.plan_drill(unit);
        }
        health_differs.then_some(unit)
    }

    fn set_autostart(&mut self, unit: UnitId, autostart: bool) {
        let Some(service) = self.unit_mut(unit).filter(|service| !service.leaving) else { return };
        service.policy.autostart = autostart;
        if let Some(next) = &mut service.successor {
            next.policy.autostart = autostart;
        }
    }

    fn probe_anew(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit).filter(|service| service.state == State::Running) else {
            return;
        };
        service.misses = 0;
        self.break_off_probe(unit, plan);
        self.timers.clear(unit, TimerKind::Health);
        self.plan_probe(unit);
    }

    fn note_successor(&mut self, unit: UnitId, policy: UnitPolicy) -> Option<UnitId> {
        let service = self.unit_mut(unit).filter(|service| service.state != State::Down(Rest::Gone))?;
        // Taken out and back again: it comes up as a new one would.
        service.newcomer |= std::mem::take(&mut service.leaving) && policy.autostart;
        service.policy.take_neighbours(&policy);
        let restarts = Restarts::new(&policy.restart);
        service.successor = Some(Box::new(Successor { policy, restarts }));
        Some(unit)
    }

    fn note_departure(&mut self, unit: UnitId) -> Option<UnitId> {
        let service = self.unit_mut(unit).filter(|service| service.state != State::Down(Rest::Gone))?;
        service.leaving = true;
        service.newcomer = false;
        service.successor = None;
        Some(unit)
    }

    /// What of the unit is up, or wants to be, comes up by its new definition; what was given up is tried again. A task
    /// that is done has done its part.
    fn take_over(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let wished = service.desired == Desired::Up;
        let successor = service.successor.as_ref().map(|next| &next.policy);
        let autostart = successor.is_some_and(|next| next.autostart);
        let stays_up = successor.is_some_and(|next| next.kind != Kind::Task);
        match service.state {
            // It may not rest any more, or wait on other sockets.
            State::Backoff | State::Down(Rest::Listening) => {
                self.change_over(unit, plan);
                self.enter(unit, State::Waiting);
            }
            State::Down(rest) => {
                let starts = match rest {
                    Rest::Fatal => wished || autostart,
                    Rest::Stopped | Rest::Exited | Rest::Skipped => wished,
                    Rest::Done => wished && stays_up,
                    Rest::Gone | Rest::Listening => false,
                };
                self.change_over(unit, plan);
                if starts {
                    self.want_up(unit);
                }
            }
            State::Waiting => self.change_over(unit, plan),
            State::Parking | State::Spawning | State::Readying | State::Running | State::Idling if wished => {
                // `settle` stops it, after what follows its restart.
                (service.again, service.follows) = (true, false);
                self.want_up(unit);
            }
            // Its run is at its end.
            State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing
                if wished =>
            {
                service.again = true;
                self.want_up(unit);
            }
            State::Parking
            | State::Spawning
            | State::Readying
            | State::Running
            | State::Idling
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => {}
        }
    }

    /// To be called for a unit whose state has changed: where nothing of its last run is left, its new definition takes
    /// the place of the old one, or it goes.
    pub(super) fn change_over(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        if service.state.is_down()
            && let Some(next) = service.successor.take()
        {
            let Successor { policy, restarts } = *next;
            let was_refused = service.policy.refused.is_some();
            let was_done = service.state == State::Down(Rest::Done) && policy.kind != Kind::Task;
            // Other cgroups, which count from nothing.
            service.counters = MemoryEvents::default();
            service.counters_at_start = service.counters;
            service.procedure_oom_kill = (0, 0);
            service.procedure_high = Some(0);
            service.commands.forget_counters();
            let closes = service.policy.descriptors.any() && !policy.descriptors.any();
            (service.policy, service.restarts) = (policy, restarts);
            if closes {
                plan.push(Action::CloseDescriptors { unit });
            }
            plan.push(Action::Adopt { unit });
            if was_refused || was_done {
                service.trouble = None;
                self.enter(unit, State::Down(Rest::Stopped));
            }
        }
        let Some(service) = self.unit(unit).filter(|service| service.leaving) else { return };
        match service.state {
            State::Down(Rest::Listening) => {}
            State::Down(_) => self.leave(unit, plan),
            State::Killing if service.stuck => self.welcome(),
            State::Waiting
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
            | State::Signalled
            | State::Killing => {}
        }
    }

    fn leave(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        service.leaving = false;
        service.policy.autostart = false;
        service.policy.forget_neighbours();
        self.enter(unit, State::Down(Rest::Gone));
        self.timers.clear(unit, TimerKind::Sample);
        self.timers.clear(unit, TimerKind::Doorbell);
        self.rescue.unit = self.rescue.unit.filter(|rescue| *rescue != unit);
        for other in &mut self.units {
            other.fallback = other.fallback.filter(|fallback| *fallback != unit);
        }
        plan.tell(Record::Removed { unit });
        plan.push(Action::Dismiss { unit });
        self.welcome();
    }

    /// Wishes the new ones up, once all who go are gone. Nobody waits for one that cannot be killed.
    fn welcome(&mut self) {
        if self.shutdown.is_some() || self.units.iter().any(|unit| unit.leaving && !unit.stuck) {
            return;
        }
        // What comes makes way for what is there, as at boot for what was first.
        self.booting = true;
        for unit in self.all() {
            let Some(service) = self.unit_mut(unit) else { continue };
            // One that somebody has called for already has begun.
            if std::mem::take(&mut service.newcomer) && service.desired == Desired::Down {
                service.again = !service.state.is_down();
                self.want_up(unit);
            }
        }
    }

    /// Room for every turn to come.
    fn grow(&mut self, plan: &mut Plan) {
        let count = self.units.len();
        self.timers.grow(count);
        self.marked.reserve(count.saturating_sub(self.marked.len()));
        self.lined_up.reserve(count.saturating_sub(self.lined_up.len()));
        plan.make_room(count);
    }
}
