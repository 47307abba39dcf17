//! A service that reads its configuration anew, without an end of its run: by a signal or by a command. Where the unit
//! says so, it is over when the service has said `RELOADING=1` and then `READY=1`. So is one that nobody has asked for.
//!
//! A reload that fails leaves the service as it is.

use super::action::{Action, Reply};
use super::event::{ClientId, CommandKind, Note};
use super::policy::UnitId;
use super::record::Record;
use super::requests::Until;
use super::service::State;
use super::snapshot::KillReason;
use super::timer::TimerKind;
use super::{Engine, Plan};
use serde::{Deserialize, Serialize};

/// What the service has said since the reload began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Said {
    #[default]
    Nothing,
    Reloading,
    Ready,
}

/// The reload that is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reload {
    pub(super) under_way: bool,
    /// Its command is not over.
    command: bool,
    said: Said,
    /// Another was asked for meanwhile: the configuration may have changed after this one has read it.
    again: bool,
    began: super::event::Time,
}

impl Engine {
    pub(super) fn asked_reload(&mut self, client: ClientId, unit: UnitId, plan: &mut Plan) -> Option<Reply> {
        let Some(service) = self.unit_mut(unit) else { return Some(Reply::Failed) };
        if service.policy.reload.is_none() {
            return Some(Reply::NoReload);
        }
        if service.state != State::Running || service.said_stopping.is_some() {
            return Some(Reply::NotRunning);
        }
        if service.reload.under_way {
            let refused = self.wait(client, unit, Until::ReloadedAgain);
            if let Some(service) = self.unit_mut(unit).filter(|_| refused.is_none()) {
                service.reload.again = true;
            }
            return refused;
        }
        let refused = self.wait(client, unit, Until::Reloaded);
        if refused.is_none() {
            self.begin_reload(unit, plan);
        }
        refused
    }

    fn begin_reload(&mut self, unit: UnitId, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        let Some(policy) = service.policy.reload else { return };
        let run = service.run;
        service.reload = Reload { under_way: true, command: policy.command, began: now, ..Reload::default() };
        self.generation += 1;
        self.timers.set(unit, TimerKind::Reload, now.plus_ms(u64::from(policy.timeout_ms)));
        if policy.command {
            self.run_command(unit, CommandKind::Reload, plan);
        } else {
            let (signal, reason) = (policy.signal, KillReason::ReloadAsked);
            plan.push(Action::Signal { unit, run, signal, reason });
            self.reload_is_over_where_it_is(unit, plan);
        }
    }

    pub(super) fn reload_command_over(&mut self, unit: UnitId, well: bool, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit).filter(|service| service.reload.under_way) else { return };
        service.reload.command = false;
        if well {
            self.reload_is_over_where_it_is(unit, plan);
        } else {
            self.end_reload(unit, false, plan);
        }
    }

    /// The service said something that may be about its reload.
    pub(super) fn reload_noted(&mut self, unit: UnitId, note: Note, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let by_itself = note == Note::Reloading
            && !service.reload.under_way
            && service.state == State::Running
            && service.said_stopping.is_none();
        if by_itself {
            self.begins_reload_by_itself(unit);
            return;
        }
        let reload = &mut service.reload;
        if !reload.under_way {
            return;
        }
        match (note, reload.said) {
            (Note::Reloading, _) => reload.said = Said::Reloading,
            (Note::Ready, Said::Reloading) => {
                reload.said = Said::Ready;
                self.reload_is_over_where_it_is(unit, plan);
            }
            (Note::Ready, Said::Nothing | Said::Ready) => {}
            (
                Note::Stopping
                | Note::Alive
                | Note::Failing
                | Note::ExtendMs(_)
                | Note::MainPid(_)
                | Note::Status,
                _,
            ) => {}
        }
    }

    /// Nobody has asked for it. It has the time of a start, where the unit names none for a reload.
    fn begins_reload_by_itself(&mut self, unit: UnitId) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        service.reload = Reload { under_way: true, said: Said::Reloading, began: now, ..Reload::default() };
        let timeout_ms =
            service.policy.reload.map_or(service.policy.start_timeout_ms, |policy| policy.timeout_ms);
        self.generation += 1;
        self.timers.set(unit, TimerKind::Reload, now.plus_ms(u64::from(timeout_ms)));
    }

    fn reload_is_over_where_it_is(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        let notifies = service.policy.reload.is_some_and(|policy| policy.notifies);
        let said_it_all = match service.reload.said {
            Said::Nothing => !notifies,
            Said::Reloading => false,
            Said::Ready => true,
        };
        if said_it_all && !service.reload.command {
            self.end_reload(unit, true, plan);
        }
    }

    pub(super) fn reload_due(&mut self, unit: UnitId, plan: &mut Plan) {
        if self.unit(unit).is_some_and(|service| service.reload.under_way) {
            self.command_timed_out(unit, CommandKind::Reload, plan);
            self.end_reload(unit, false, plan);
        }
    }

    /// The run ends: there is nothing left that could read its configuration.
    pub(super) fn give_up_reload(&mut self, unit: UnitId, plan: &mut Plan) {
        if let Some(service) = self.unit_mut(unit).filter(|service| service.reload.under_way) {
            service.reload.again = false;
            self.end_reload(unit, false, plan);
            self.answer_waiting(unit, Until::ReloadedAgain, Reply::ReloadFailed, plan);
        }
    }

    fn end_reload(&mut self, unit: UnitId, well: bool, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        let Reload { began, again, .. } = std::mem::take(&mut service.reload);
        self.timers.clear(unit, TimerKind::Reload);
        self.generation += 1;
        let (reply, record) = if well {
            (Reply::Reloaded, Record::Reloaded { unit, after_us: now.since_us(began) })
        } else {
            (Reply::ReloadFailed, Record::ReloadFailed { unit })
        };
        plan.tell(record);
        self.answer_waiting(unit, Until::Reloaded, reply, plan);
        if again {
            self.next_reload(unit);
            self.begin_reload(unit, plan);
        }
    }
}
