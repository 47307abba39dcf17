//! What comes when another start of a unit is no cure any more: another unit in its stead, the end of the machine, or
//! the rescue unit alone.

use super::event::ShutdownKind;
use super::policy::{Escalation, UnitId};
use super::record::Record;
use super::service::Service;
use super::snapshot::{Desired, KillReason};
use super::{Engine, Plan};

/// What is to be done when a unit calls for a rescue, and how far that is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rescue {
    /// What is started then.
    pub(super) unit: Option<UnitId>,
    /// The unit that has called for it.
    pub(super) called_by: Option<UnitId>,
    /// Everything else is down, and it was started.
    begun: bool,
}

impl Engine {
    /// The unit is down, and what is to come of that comes.
    pub(super) fn escalate(&mut self, unit: UnitId, escalation: Escalation, plan: &mut Plan) {
        if self.shutdown.is_some() {
            return;
        }
        let can = match escalation {
            Escalation::Stop => return,
            Escalation::Reboot | Escalation::PowerOff => true,
            Escalation::Fallback(to) => self.can_start(to),
            Escalation::Rescue => self.rescue.unit.is_some_and(|to| to != unit && self.can_start(to)),
        };
        if !can {
            plan.tell(Record::CannotEscalate { unit, escalation });
            return;
        }
        plan.tell(Record::Escalating { unit, escalation });
        match escalation {
            Escalation::Stop => {}
            Escalation::Fallback(to) => self.fall_back(unit, to),
            Escalation::Reboot => self.shutdown_asked(ShutdownKind::Reboot, plan),
            Escalation::PowerOff => self.shutdown_asked(ShutdownKind::PowerOff, plan),
            Escalation::Rescue => self.call_rescue(unit),
        }
    }

    fn can_start(&self, unit: UnitId) -> bool {
        self.unit(unit).is_some_and(Service::may_start)
    }

    fn fall_back(&mut self, unit: UnitId, to: UnitId) {
        let Some(stand_in) = self.unit_mut(to) else { return };
        // What was up for its own sake stays up for it.
        stand_in.for_itself = stand_in.desired == Desired::Up && (stand_in.for_itself || !stand_in.stands_in);
        stand_in.stands_in = true;
        stand_in.restarts.forget();
        let before = self.unit_mut(unit).and_then(|service| service.fallback.replace(to));
        if let Some(before) = before.filter(|before| *before != to) {
            self.release_fallback(before, KillReason::Replaced);
        }
        self.want_up(to);
    }

    /// The unit is up, or is not wanted any more: what runs in its stead is not needed for that.
    pub(super) fn replace_fallback(&mut self, unit: UnitId, reason: KillReason) {
        if let Some(to) = self.unit_mut(unit).and_then(|service| service.fallback.take()) {
            self.generation += 1;
            self.release_fallback(to, reason);
        }
    }

    /// One unit less in whose stead it runs. After the last one it goes down, unless it is there for its own sake or
    /// something requires it.
    fn release_fallback(&mut self, to: UnitId, reason: KillReason) {
        if self.units.iter().any(|other| other.fallback == Some(to)) {
            return;
        }
        let needs = |other: &Service| other.desired == Desired::Up && other.policy.requires.contains(&to);
        let is_required = self.units.iter().any(needs);
        let Some(stand_in) = self.unit_mut(to) else { return };
        stand_in.stands_in = false;
        if !stand_in.for_itself && !is_required {
            self.want_down(to, reason);
        }
    }

    /// It is wished down: it runs in nobody's stead any more.
    pub(super) fn stands_in_no_more(&mut self, unit: UnitId) {
        let Some(service) = self.unit_mut(unit) else { return };
        if std::mem::take(&mut service.stands_in) {
            for other in self.units.iter_mut().filter(|other| other.fallback == Some(unit)) {
                other.fallback = None;
            }
        }
    }

    /// Everything goes down in order, except the rescue unit and what that requires, as far as they are up.
    fn call_rescue(&mut self, unit: UnitId) {
        if self.rescue.called_by.is_some() {
            return;
        }
        self.rescue.called_by = Some(unit);
        self.generation += 1;
        self.spare_rescue();
        for other in self.all() {
            if self.unit(other).is_some_and(|service| !service.spared || service.state.is_down()) {
                self.want_down(other, KillReason::Rescue);
            }
        }
    }

    /// Marks the rescue unit and what it requires, over however many steps.
    fn spare_rescue(&mut self) {
        let mut next = self.rescue.unit;
        while let Some(unit) = next {
            if let Some(service) = self.unit_mut(unit) {
                service.spared = true;
            }
            next = self.all().find(|&required| {
                let needs = |service: &Service| service.spared && service.policy.requires.contains(&required);
                self.unit(required).is_some_and(|service| !service.spared) && self.units.iter().any(needs)
            });
        }
    }

    /// What had to go down for the rescue is down: the rescue unit starts. Says whether it was this turn.
    pub(super) fn begin_rescue_if_clear(&mut self, plan: &mut Plan) -> bool {
        let Rescue { unit: Some(unit), called_by: Some(_), begun: false } = self.rescue else { return false };
        let is_gone = |service: &Service| {
            service.spared || service.desired == Desired::Up || service.state.is_down() || service.stuck
        };
        if self.shutdown.is_some() || !self.units.iter().all(is_gone) {
            return false;
        }
        self.rescue.begun = true;
        plan.tell(Record::RescueBegins { unit });
        if let Some(service) = self.unit_mut(unit) {
            service.restarts.forget();
        }
        self.want_up(unit);
        true
    }
}
