//! What people ask of units, and who waits for the answer.

use super::action::{Action, Reply};
use super::event::{ClientId, Verb};
use super::limits::WAITS_MAX;
use super::policy::UnitId;
use super::service::{End, Rest, State};
use super::snapshot::{Desired, KillReason};
use super::{Engine, Plan};

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    Up,
    Down,
    /// The reload that is under way is over.
    Reloaded,
    /// The one after it is.
    ReloadedAgain,
    /// The drill is over.
    Drilled,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    client: ClientId,
    unit: UnitId,
    until: Until,
}

/// The requests that wait for a unit to settle; at most `WAITS_MAX`.
#[derive(Debug)]
pub(super) struct Waits {
    waits: Vec<Wait>,
}

impl Waits {
    pub(super) fn new() -> Self {
        Self { waits: Vec::with_capacity(WAITS_MAX) }
    }

    pub(super) fn forget(&mut self, client: ClientId) {
        self.waits.retain(|wait| wait.client != client);
    }

    fn add(&mut self, wait: Wait) -> bool {
        let room = self.waits.len() < WAITS_MAX;
        if room {
            self.waits.push(wait);
        }
        room
    }

    /// Takes one request about the unit.
    fn take(&mut self, unit: UnitId) -> Option<Wait> {
        let at = self.waits.iter().position(|wait| wait.unit == unit)?;
        Some(self.waits.swap_remove(at))
    }
}

impl Engine {
    pub(super) fn asked(&mut self, client: ClientId, unit: UnitId, verb: Verb, plan: &mut Plan) {
        let reply = if self.shutdown.is_some() {
            Some(Reply::ShuttingDown)
        } else if self.unit(unit).is_some_and(|service| service.stuck) {
            // The wish is noted for the day on which its processes die; nobody is kept waiting for that.
            match verb {
                Verb::Start | Verb::Restart => self.want_up(unit),
                Verb::Stop => self.want_down(unit, KillReason::StopAsked),
                Verb::Reload | Verb::Drill | Verb::DrillToTheEnd => {}
            }
            Some(Reply::Failed)
        } else {
            match verb {
                Verb::Start => self.asked_start(client, unit),
                Verb::Stop => self.asked_stop(client, unit, plan),
                Verb::Restart => self.asked_restart(client, unit),
                Verb::Reload => self.asked_reload(client, unit, plan),
                Verb::Drill => self.asked_drill(client, unit, false, plan),
                Verb::DrillToTheEnd => self.asked_drill(client, unit, true, plan),
            }
        };
        if let Some(reply) = reply {
            plan.push(Action::Reply { client, reply });
        }
    }

    pub(super) fn wait(&mut self, client: ClientId, unit: UnitId, until: Until) -> Option<Reply> {
        if self.waits.add(Wait { client, unit, until }) { None } else { Some(Reply::TooManyWaiting) }
    }

    fn asked_start(&mut self, client: ClientId, unit: UnitId) -> Option<Reply> {
        let Some(service) = self.unit_mut(unit) else { return Some(Reply::Failed) };
        if !service.may_start() {
            return Some(Reply::Failed);
        }
        service.for_itself = true;
        match service.state {
            State::Parking | State::Spawning | State::Readying => {}
            // A drill ends in the run in which it began.
            State::Freezing | State::Queued | State::Saving
                if service.end == Some(End::Drilled { back: true }) && service.desired == Desired::Up =>
            {
                return Some(Reply::AlreadyStarted);
            }
            State::Running | State::Idling => {
                if service.desired == Desired::Down {
                    self.want_up(unit);
                }
                return Some(Reply::AlreadyStarted);
            }
            State::Down(_) | State::Waiting | State::Backoff => {
                service.restarts.forget();
                service.demanded = true;
            }
            // The present run goes to its end, and then another begins, whatever the policy says of such an end.
            State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => {
                service.again = true;
                service.demanded = true;
            }
        }
        if service.state == State::Backoff || service.state == State::Waiting {
            service.trouble = None;
            self.enter(unit, State::Waiting);
        }
        self.want_up(unit);
        self.wait(client, unit, Until::Up)
    }

    fn asked_stop(&mut self, client: ClientId, unit: UnitId, plan: &mut Plan) -> Option<Reply> {
        let Some(service) = self.unit(unit) else { return Some(Reply::Failed) };
        let state = service.state;
        self.want_down(unit, KillReason::StopAsked);
        if let Some(service) = self.unit_mut(unit) {
            service.newcomer = false;
        }
        match state {
            State::Down(
                Rest::Stopped | Rest::Exited | Rest::Fatal | Rest::Done | Rest::Skipped | Rest::Gone,
            ) => Some(Reply::NotRunning),
            State::Down(Rest::Listening)
            | State::Waiting
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
            | State::Killing => {
                self.overrule(unit, Until::Up, plan);
                self.wait(client, unit, Until::Down)
            }
        }
    }

    fn asked_restart(&mut self, client: ClientId, unit: UnitId) -> Option<Reply> {
        let Some(service) = self.unit_mut(unit) else { return Some(Reply::Failed) };
        match service.state {
            State::Parking | State::Spawning | State::Readying | State::Running | State::Idling => {
                // What follows its restart goes down first; `settle` sees to that.
                (service.again, service.follows) = (true, false);
                service.demanded = true;
                self.want_up(unit);
                self.wait(client, unit, Until::Up)
            }
            State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => {
                service.again = true;
                service.demanded = true;
                self.want_up(unit);
                self.wait(client, unit, Until::Up)
            }
            State::Down(_) | State::Waiting | State::Backoff => self.asked_start(client, unit),
        }
    }

    /// The unit is up.
    pub(super) fn answer_started(&mut self, unit: UnitId, plan: &mut Plan) {
        let to_the_end =
            self.unit(unit).and_then(|service| service.drill).is_some_and(|drill| drill.to_the_end);
        while let Some(wait) = self.waits.take(unit) {
            let reply = match wait.until {
                Until::Drilled if to_the_end => Reply::Drilled,
                // It ended by itself meanwhile.
                Until::Drilled => Reply::Failed,
                Until::Up => Reply::Started,
                Until::Down => Reply::Overruled,
                Until::Reloaded | Until::ReloadedAgain => Reply::ReloadFailed,
            };
            plan.push(Action::Reply { client: wait.client, reply });
        }
    }

    /// The unit is down, or will not come up soon.
    pub(super) fn answer_down(&mut self, unit: UnitId, plan: &mut Plan) {
        let stuck = self.unit(unit).is_some_and(|service| service.stuck);
        let wished_down = self.unit(unit).is_some_and(|service| service.desired == Desired::Down);
        let skipped = self.unit(unit).is_some_and(|service| service.state == State::Down(Rest::Skipped));
        let drill = self.unit(unit).and_then(|service| service.drill);
        let drilled = drill.is_some_and(|drill| drill.to_the_end && drill.over.is_some());
        while let Some(wait) = self.waits.take(unit) {
            let reply = match wait.until {
                Until::Down if stuck => Reply::Failed,
                Until::Down => Reply::Stopped,
                Until::Up if wished_down => Reply::Overruled,
                Until::Up if skipped => Reply::Skipped,
                // It went to its end, and the unit rests.
                Until::Drilled if drilled => Reply::Drilled,
                Until::Up | Until::Drilled => Reply::Failed,
                Until::Reloaded | Until::ReloadedAgain => Reply::ReloadFailed,
            };
            plan.push(Action::Reply { client: wait.client, reply });
        }
    }

    /// Those who wait for the opposite are told so at once.
    pub(super) fn overrule(&mut self, unit: UnitId, until: Until, plan: &mut Plan) {
        for wait in self.waits.waits.iter().filter(|wait| wait.unit == unit && wait.until == until) {
            plan.push(Action::Reply { client: wait.client, reply: Reply::Overruled });
        }
        self.waits.waits.retain(|wait| wait.unit != unit || wait.until != until);
    }

    /// What they wait for is over, well or not.
    pub(super) fn answer_waiting(&mut self, unit: UnitId, until: Until, reply: Reply, plan: &mut Plan) {
        for wait in self.waits.waits.iter().filter(|wait| wait.unit == unit && wait.until == until) {
            plan.push(Action::Reply { client: wait.client, reply });
        }
        self.waits.waits.retain(|wait| wait.unit != unit || wait.until != until);
    }

    /// Those who asked while another reload was under way have their own now.
    pub(super) fn next_reload(&mut self, unit: UnitId) {
        for wait in self.waits.waits.iter_mut().filter(|wait| wait.unit == unit) {
            if wait.until == Until::ReloadedAgain {
                wait.until = Until::Reloaded;
            }
        }
    }
}
