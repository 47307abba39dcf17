//! Order: who waits for whom, on the way up and on the way down.
//!
//! Wishes go along `requires` (up) and against it (down); starts wait for what comes before, stops for what comes
//! after. A unit is looked at when it, or a neighbour of it, has changed.

use super::policy::UnitId;
use super::record::Record;
use super::requests::Until;
use super::service::{Rest, Service, State};
use super::snapshot::{Desired, KillReason, Trouble};
use super::{Engine, Plan};

/// Fills the lists that look backward along `requires` and `after`.
pub(super) fn connect(units: &mut [Service]) {
    for service in &mut *units {
        service.dependents.clear();
        service.followers.clear();
    }
    for at in 0..units.len() {
        let Ok(id) = u16::try_from(at).map(UnitId) else { return };
        let Some(service) = units.get(at) else { return };
        let (requires, after) = (service.policy.requires.clone(), service.policy.after.clone());
        for &before in &requires {
            if let Some(before) = units.get_mut(usize::from(before.0)) {
                before.dependents.push(id);
            }
        }
        for before in requires.into_iter().chain(after) {
            if let Some(before) = units.get_mut(usize::from(before.0))
                && !before.followers.contains(&id)
            {
                before.followers.push(id);
            }
        }
    }
}

/// The lists of a unit's neighbours.
#[derive(Clone, Copy)]
enum Neighbours {
    Requires,
    After,
    Dependents,
    Followers,
}

impl Engine {
    /// One neighbour by its place in the list; by number, so that the unit can be changed between two steps.
    fn neighbour(&self, unit: UnitId, which: Neighbours, at: usize) -> Option<UnitId> {
        let service = self.unit(unit)?;
        let list = match which {
            Neighbours::Requires => &service.policy.requires,
            Neighbours::After => &service.policy.after,
            Neighbours::Dependents => &service.dependents,
            Neighbours::Followers => &service.followers,
        };
        list.get(at).copied()
    }

    fn for_each(&mut self, unit: UnitId, which: Neighbours, mut act: impl FnMut(&mut Self, UnitId)) {
        let mut at = 0;
        while let Some(neighbour) = self.neighbour(unit, which, at) {
            act(self, neighbour);
            at += 1;
        }
    }

    fn any(&self, unit: UnitId, which: Neighbours, test: impl Fn(&Service) -> bool) -> Option<UnitId> {
        let mut at = 0;
        while let Some(neighbour) = self.neighbour(unit, which, at) {
            if self.unit(neighbour).is_some_and(&test) {
                return Some(neighbour);
            }
            at += 1;
        }
        None
    }

    pub(super) fn mark(&mut self, unit: UnitId) {
        if let Some(service) = self.unit_mut(unit)
            && !service.marked
        {
            service.marked = true;
            self.marked.push_back(unit);
        }
    }

    /// Marks the unit and everything whose next step may depend on it.
    pub(super) fn mark_around(&mut self, unit: UnitId) {
        self.mark(unit);
        for which in [Neighbours::Requires, Neighbours::After, Neighbours::Dependents, Neighbours::Followers]
        {
            self.for_each(unit, which, Self::mark);
        }
    }

    /// Looks at the marked units until none is left.
    pub(super) fn settle(&mut self, plan: &mut Plan) {
        loop {
            while let Some(unit) = self.marked.pop_front() {
                let Some(service) = self.unit_mut(unit) else { continue };
                service.marked = false;
                self.change_over(unit, plan);
                let Some(service) = self.unit(unit) else { continue };
                match service.desired {
                    Desired::Up => self.settle_up(unit, plan),
                    Desired::Down => self.settle_down(unit, plan),
                }
            }
            if !self.begin_rescue_if_clear(plan) {
                break;
            }
        }
        self.finish_if_all_down(plan);
    }

    fn settle_up(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let state = service.state;
        if std::mem::take(&mut service.calls_requirements) {
            self.for_each(unit, Neighbours::Requires, Self::call_up);
            self.overrule(unit, Until::Down, plan);
        }
        match state {
            State::Waiting if self.unit(unit).is_some_and(Service::rests) => self.rest(unit, plan),
            State::Waiting => self.start_if_its_turn(unit, plan),
            State::Parking | State::Spawning | State::Readying | State::Running | State::Idling => {
                if self.any(unit, Neighbours::Requires, Service::is_down_for_good).is_some() {
                    self.begin_stop(unit, KillReason::RequirementDown, plan);
                }
            }
            State::Down(_)
            | State::Backoff
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Signalled
            | State::Killing => {}
        }
    }

    fn start_if_its_turn(&mut self, unit: UnitId, plan: &mut Plan) {
        if let Some(down) = self.any(unit, Neighbours::Requires, Service::is_down_for_good) {
            let trouble = Some(Trouble::RequirementDown { unit: down });
            if self.unit(unit).is_some_and(|service| service.trouble != trouble) {
                if let Some(service) = self.unit_mut(unit) {
                    service.trouble = trouble;
                }
                if let Some(trouble) = trouble {
                    plan.tell(Record::Fatal { unit, trouble });
                }
                self.answer_down(unit, plan);
                self.generation += 1;
                self.mark_around(unit);
            }
            return;
        }
        let waits = self.any(unit, Neighbours::Requires, |other| !other.satisfies()).is_some()
            || self.any(unit, Neighbours::After, Service::is_coming).is_some();
        if !waits {
            self.begin_run(unit, plan);
        } else if let Some(service) = self.unit_mut(unit)
            && service.wants_its_requirement()
        {
            // The requirement is on its way again.
            service.trouble = None;
            self.generation += 1;
            self.mark_around(unit);
        }
    }

    /// Wishes the unit down. What requires it follows when `settle` looks at it.
    pub(super) fn want_down(&mut self, unit: UnitId, reason: KillReason) {
        self.stands_in_no_more(unit);
        if let Some(service) = self.unit_mut(unit) {
            service.desired = Desired::Down;
            service.down_reason = reason;
            service.calls_dependents = true;
            service.again = false;
            service.demanded = false;
            self.generation += 1;
            self.mark(unit);
        }
    }

    fn settle_down(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let (state, reason) = (service.state, service.down_reason);
        if std::mem::take(&mut service.calls_dependents) {
            self.for_each(unit, Neighbours::Dependents, |engine, other| engine.want_down(other, reason));
            self.replace_fallback(unit, reason);
        }
        match state {
            State::Down(Rest::Listening) | State::Waiting | State::Backoff => {
                self.come_down(unit, Rest::Stopped, None, plan);
            }
            // Nothing rests yet on a unit that is on its way up.
            State::Parking | State::Spawning | State::Readying => {
                self.begin_stop(unit, reason, plan);
            }
            State::Running | State::Idling => {
                if !self.must_outlive_another(unit) {
                    self.begin_stop(unit, reason, plan);
                }
            }
            State::Down(_)
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Signalled
            | State::Killing => {}
        }
    }

    /// Something that comes after it, and is to go down too, is still there.
    fn must_outlive_another(&self, unit: UnitId) -> bool {
        self.any(unit, Neighbours::Followers, |other| {
            other.desired == Desired::Down && !other.state.is_down() && !other.stuck
        })
        .is_some()
    }
}
