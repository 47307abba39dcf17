//! Units that rest with their sockets open: started when somebody needs them, stopped when nobody has for long.
//!
//! Nobody loses anything by that: what comes in while no process is there waits in the sockets, which stay open. Before
//! an idle unit is stopped it stands still (`Idling`) and is looked at once more, so that it cannot take a connection
//! between the last look and the stop signal.

use super::action::Action;
use super::event::SpawnStage;
use super::limits::FREEZE_DEADLINE_MS;
use super::policy::{RunId, UnitId};
use super::record::Record;
use super::service::{End, Rest, Service, State};
use super::snapshot::{Desired, KillReason};
use super::timer::TimerKind;
use super::{Engine, Plan};

impl Service {
    /// Nothing else is done about it. What is to go down anyway waits for its turn: others may need it until then.
    fn may_idle(&self) -> bool {
        self.limiting.is_none()
            && self.commands.is_idle()
            && self.said_stopping.is_none()
            && self.desired == Desired::Up
    }
}

impl Engine {
    /// Opens its sockets and watches them: the unit is at rest until something comes in.
    pub(super) fn rest(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        let run = service.run;
        self.enter(unit, State::Down(Rest::Listening));
        plan.tell(Record::Listening { unit });
        plan.push(Action::Listen { unit, run });
        self.answer_down(unit, plan);
    }

    /// The sockets could not be opened: as a start that failed.
    pub(super) fn listen_failed(&mut self, unit: UnitId, (stage, errno): (SpawnStage, i32), plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        service.up_since = None;
        service.restarts.started(now, &service.policy.restart);
        self.after_run(unit, End::StartFailed { stage, errno, procedure: false }, plan);
    }

    /// Something waits in one of its sockets.
    pub(super) fn demanded(&mut self, unit: UnitId, run: RunId, plan: &mut Plan) {
        let Some(service) = self.live(unit, run) else { return };
        if service.state != State::Down(Rest::Listening) || service.desired == Desired::Down {
            return;
        }
        service.demanded = true;
        plan.tell(Record::Demanded { unit });
        self.enter(unit, State::Waiting);
    }

    pub(super) fn plan_idle_look(&mut self, unit: UnitId) {
        let ms = self.unit(unit).and_then(|service| service.policy.descriptors.idle_stop_ms);
        if let Some(ms) = ms {
            self.timers.set(unit, TimerKind::Idle, self.now.plus_ms(u64::from(ms)));
        }
    }

    pub(super) fn idle_due(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        // While something else is done about it, it is looked at later.
        if service.state == State::Running && !service.may_idle() {
            self.plan_idle_look(unit);
        } else if service.state == State::Running {
            plan.push(Action::LookIdle { unit, run: service.run });
            self.plan_idle_look(unit);
        }
    }

    /// The answer to a look, of a service that runs or that stands still for it.
    pub(super) fn looked_idle(&mut self, unit: UnitId, run: RunId, idle: bool, plan: &mut Plan) {
        let Some(service) = self.live(unit, run) else { return };
        match (service.state, idle) {
            (State::Running, true) if service.may_idle() => {
                self.enter(unit, State::Idling);
                self.step_deadline(unit, FREEZE_DEADLINE_MS);
                self.stand_still(unit, plan);
            }
            (State::Idling, true) => self.stop_idle(unit, plan),
            (State::Idling, false) => self.go_on(unit, plan),
            (
                State::Down(_)
                | State::Waiting
                | State::Backoff
                | State::Parking
                | State::Spawning
                | State::Readying
                | State::Running
                | State::Freezing
                | State::Queued
                | State::Saving
                | State::Asking
                | State::Signalled
                | State::Killing,
                _,
            ) => {}
        }
    }

    /// It stands still, so whatever comes in now stays in its sockets.
    fn stop_idle(&mut self, unit: UnitId, plan: &mut Plan) {
        if let Some(service) = self.unit_mut(unit) {
            // Often idle is not often failed; how often its memory was exhausted is not forgotten by that.
            service.restarts.excuse_last();
        }
        self.begin_stop(unit, KillReason::Idle, plan);
    }

    /// It is needed after all, or does not stand still: as if nothing had been.
    pub(super) fn go_on(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        let since = service.up_since.unwrap_or(service.since);
        self.thaw(unit, plan);
        self.run_on(unit);
        if let Some(service) = self.unit_mut(unit) {
            service.since = since;
        }
    }
}
