//! Order: who waits for whom, on the way up and on the way down.
//!
//! Wishes go along `requires` and `wants` (up) and against `requires` (down); starts wait for what comes before, stops
//! for what comes after. A unit is looked at when it, or a neighbour of it, has changed.

use super::action::Action;
use super::limits::STARTS_AT_ONCE;
use super::policy::{Kind, OnRequirementRestart, RunId, UnitId, UnitPolicy};
use super::record::Record;
use super::requests::Until;
use super::service::{Rest, Service, State};
use super::snapshot::{Desired, KillReason, Trouble};
use super::{Engine, Plan};
use std::cmp::Reverse;

/// A unit's neighbours beside what its own file names. All that a turn looks at of other units is in these lists and in
/// `requires` and `wants`, so its cost grows with a unit's neighbours, not with the table.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// What it waits for on the way up: `requires`, `wants`, `after`, and what names it in `before`.
    preceding: Vec<UnitId>,
    /// The same from the other side.
    following: Vec<UnitId>,
    /// Units that require it.
    dependents: Vec<UnitId>,
    /// Units that conflict with it, whichever of the two says so.
    rivals: Vec<UnitId>,
}

/// Fills the links of all units from their policies. May be done again when the policies have changed.
pub(super) fn connect(units: &mut [Service]) {
    for service in &mut *units {
        service.links = Links::default();
    }
    for at in 0..units.len() {
        let Ok(id) = u16::try_from(at).map(UnitId) else { return };
        let Some(UnitPolicy { requires, wants, after, before, conflicts, .. }) =
            units.get(at).map(|service| service.policy.clone())
        else {
            return;
        };
        for &required in &requires {
            add(units, required, id, |links| &mut links.dependents);
        }
        let preceding = requires.into_iter().chain(wants).chain(after).map(|first| (first, id));
        for (first, then) in preceding.chain(before.into_iter().map(|then| (id, then))) {
            add(units, first, then, |links| &mut links.following);
            add(units, then, first, |links| &mut links.preceding);
        }
        for other in conflicts {
            add(units, id, other, |links| &mut links.rivals);
            add(units, other, id, |links| &mut links.rivals);
        }
    }
}

/// Adds a neighbour to one list of a unit, once. No unit is its own neighbour.
fn add(units: &mut [Service], of: UnitId, neighbour: UnitId, list: fn(&mut Links) -> &mut Vec<UnitId>) {
    if let Some(service) = units.get_mut(usize::from(of.0)).filter(|_| of != neighbour) {
        let list = list(&mut service.links);
        if !list.contains(&neighbour) {
            list.push(neighbour);
        }
    }
}

const SKIPPED: State = State::Down(Rest::Skipped);

/// The lists of a unit's neighbours.
#[derive(Clone, Copy)]
enum Neighbours {
    Requires,
    Wants,
    Preceding,
    Following,
    Dependents,
    Rivals,
}

/// Whether a unit that wants to start may do so.
pub(super) enum Turn {
    Now,
    NotYet,
    /// Not before something changes that will not change by itself.
    Never(Trouble),
}

impl Engine {
    /// One neighbour by its place in the list; by number, so that the unit can be changed between two steps.
    fn neighbour(&self, unit: UnitId, which: Neighbours, at: usize) -> Option<UnitId> {
        let service = self.unit(unit)?;
        let list = match which {
            Neighbours::Requires => &service.policy.requires,
            Neighbours::Wants => &service.policy.wants,
            Neighbours::Preceding => &service.links.preceding,
            Neighbours::Following => &service.links.following,
            Neighbours::Dependents => &service.links.dependents,
            Neighbours::Rivals => &service.links.rivals,
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
        for which in [Neighbours::Preceding, Neighbours::Following, Neighbours::Rivals] {
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
            // One that is up has done without what was skipped: that is looked at again with its next start.
            let does_without = |other: &Service| state == State::Running && other.state == SKIPPED;
            for which in [Neighbours::Requires, Neighbours::Wants] {
                self.for_each(unit, which, |engine, other| {
                    if !engine.unit(other).is_some_and(does_without) {
                        engine.call_up(other);
                    }
                });
            }
            self.overrule(unit, Until::Down, plan);
        }
        match state {
            State::Waiting if self.unit(unit).is_some_and(Service::rests) => self.rest(unit, plan),
            State::Waiting => self.start_if_its_turn(unit, plan),
            State::Parking | State::Spawning | State::Readying | State::Running | State::Idling => {
                if self.any(unit, Neighbours::Requires, Service::is_down_for_good).is_some() {
                    self.begin_stop(unit, KillReason::RequirementDown, plan);
                } else if self.unit(unit).is_some_and(|service| service.again) {
                    self.stop_to_restart(unit, plan);
                }
            }
            State::Down(_)
            | State::Backoff
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => {}
        }
    }

    pub(super) fn turn_of(&self, unit: UnitId) -> Turn {
        if let Some(down) = self.any(unit, Neighbours::Requires, Service::is_down_for_good) {
            return Turn::Never(Trouble::RequirementDown { unit: down });
        }
        if let Some(rival) = self.any(unit, Neighbours::Rivals, |other| other.stuck) {
            return Turn::Never(Trouble::Conflict { unit: rival });
        }
        let waits = self.any(unit, Neighbours::Requires, |other| !other.satisfies()).is_some()
            || self.any(unit, Neighbours::Preceding, Service::is_coming).is_some()
            || self.any(unit, Neighbours::Rivals, |other| !other.state.is_down()).is_some();
        if waits { Turn::NotYet } else { Turn::Now }
    }

    pub(super) fn start_if_its_turn(&mut self, unit: UnitId, plan: &mut Plan) {
        let turn = self.turn_of(unit);
        let Some(service) = self.unit_mut(unit) else { return };
        match turn {
            Turn::Never(trouble) if service.trouble == Some(trouble) => {}
            Turn::Never(trouble) => {
                service.trouble = Some(trouble);
                plan.tell(Record::Fatal { unit, trouble });
                self.answer_down(unit, plan);
                self.generation += 1;
                self.mark_around(unit);
            }
            Turn::NotYet => {
                if service.wants_its_requirement() {
                    // The requirement is on its way again.
                    service.trouble = None;
                    self.generation += 1;
                    self.mark_around(unit);
                }
            }
            Turn::Now => self.start_in_this_round(unit, plan),
        }
    }

    /// A round of the loop starts a few units at most: the others wait in a queue for the next rounds, so that what
    /// happens meanwhile, first of all the outcome of the starts before, is heard in between.
    fn start_in_this_round(&mut self, unit: UnitId, plan: &mut Plan) {
        let none_left = self.starts_left == 0;
        let Some(service) = self.unit_mut(unit) else { return };
        if service.checking {
            return;
        }
        if none_left && service.policy.kind != Kind::Target {
            if !std::mem::replace(&mut service.lined_up, true) {
                self.lined_up.push_back(unit);
            }
            return;
        }
        let run = RunId(service.run.0 + 1);
        service.checking = !service.policy.conditions.is_empty();
        let checking = service.checking;
        self.starts_left = self.starts_left.saturating_sub(1);
        if checking {
            plan.push(Action::CheckConditions { unit, run });
        } else {
            self.begin_run(unit, plan);
        }
    }

    /// The next round: as many starts again, those first that wait for one.
    pub(super) fn begin_round(&mut self) {
        self.starts_left = STARTS_AT_ONCE;
        for _ in 0..STARTS_AT_ONCE {
            let Some(unit) = self.lined_up.pop_front() else { return };
            if let Some(service) = self.unit_mut(unit) {
                service.lined_up = false;
            }
            self.mark(unit);
        }
    }

    /// Its conditions were looked at. Much may have happened since they were asked for in this turn's plan.
    pub(super) fn conditions_checked(
        &mut self,
        unit: UnitId,
        run: RunId,
        unmet: Option<u8>,
        plan: &mut Plan,
    ) {
        let Some(service) = self.unit_mut(unit) else { return };
        if !service.checking || run.0 != service.run.0 + 1 {
            return;
        }
        service.checking = false;
        match (unmet, self.turn_of(unit)) {
            (Some(condition), _) => {
                self.come_down(unit, Rest::Skipped, Some(Trouble::ConditionNotMet { condition }), plan);
            }
            (None, Turn::Now) => self.begin_run(unit, plan),
            // They are looked at again when its turn comes.
            (None, Turn::NotYet | Turn::Never(_)) => self.mark(unit),
        }
    }

    /// A unit ends a run to begin another. What requires it and wants to begin anew with it goes down first.
    fn stop_to_restart(&mut self, unit: UnitId, plan: &mut Plan) {
        self.restart_dependents(unit);
        let follows = |other: &Service| {
            other.policy.on_requirement_restart == OnRequirementRestart::Restart && other.must_be_awaited()
        };
        if self.any(unit, Neighbours::Dependents, follows).is_none() {
            let reason = match self.unit(unit) {
                Some(service) if service.follows && service.lost_its_procedure() => KillReason::ProcedureLost,
                Some(service) if service.follows => KillReason::RequirementRestarts,
                Some(service) if service.successor.is_some() => KillReason::Changed,
                Some(_) | None => KillReason::StopAsked,
            };
            self.begin_stop(unit, reason, plan);
        }
    }

    /// The unit's run has ended, or is about to, and it is not wished down: what requires it and is up begins anew
    /// too, where it says so.
    pub(super) fn restart_dependents(&mut self, unit: UnitId) {
        if self.unit(unit).is_some_and(|service| service.desired == Desired::Up) {
            self.for_each(unit, Neighbours::Dependents, Self::follow_restart);
        }
    }

    fn follow_restart(&mut self, unit: UnitId) {
        let Some(service) = self.unit_mut(unit) else { return };
        let follows = service.policy.on_requirement_restart == OnRequirementRestart::Restart
            && service.desired == Desired::Up
            && service.is_started();
        if follows && !service.again {
            (service.again, service.follows) = (true, true);
            self.generation += 1;
            self.mark(unit);
        }
    }

    /// Of two units that conflict and are wished up in one turn, the one that is wished up later stays down; what comes
    /// at boot, or with new unit files, makes way for all that is wished up already.
    pub(super) fn gives_way(&mut self, unit: UnitId) -> bool {
        let (booting, turn) = (self.booting, self.turn);
        let was_first =
            |other: &Service| other.desired == Desired::Up && (booting || other.wished_in_turn == turn);
        let Some(rival) = self.any(unit, Neighbours::Rivals, was_first) else { return false };
        if let Some(service) = self.unit_mut(unit) {
            service.trouble = Some(Trouble::Conflict { unit: rival });
            self.generation += 1;
            self.mark_around(unit);
        }
        true
    }

    /// Of units that are wished up and have come to conflict, the less useful goes down; of two alike, the later one.
    pub(super) fn part_rivals(&mut self) {
        for unit in self.all() {
            self.for_each(unit, Neighbours::Rivals, |engine, rival| {
                let wished = |unit| engine.unit(unit).filter(|service| service.desired == Desired::Up);
                let (Some(one), Some(other)) = (wished(unit), wished(rival)) else { return };
                let rank = |service: &Service, unit| (service.policy.utility, Reverse(unit));
                let stays = rank(one, unit) > rank(other, rival);
                let (loser, winner) = if stays { (rival, unit) } else { (unit, rival) };
                engine.wish_down(loser, KillReason::Conflict, Some(winner));
            });
        }
    }

    /// Wishes everything down that the unit conflicts with.
    pub(super) fn displace_rivals(&mut self, unit: UnitId) {
        self.for_each(unit, Neighbours::Rivals, |engine, rival| {
            let is_or_will_be_up =
                |service: &Service| service.desired == Desired::Up || !service.state.is_down();
            if engine.unit(rival).is_some_and(is_or_will_be_up) {
                engine.wish_down(rival, KillReason::Conflict, Some(unit));
            }
        });
    }

    /// Wishes the unit down. What requires it follows when `settle` looks at it.
    pub(super) fn want_down(&mut self, unit: UnitId, reason: KillReason) {
        self.wish_down(unit, reason, None);
    }

    /// Wishes the unit down, where it makes way: for this one.
    fn wish_down(&mut self, unit: UnitId, reason: KillReason, rival: Option<UnitId>) {
        self.stands_in_no_more(unit);
        if let Some(service) = self.unit_mut(unit) {
            service.desired = Desired::Down;
            service.down_reason = reason;
            service.calls_dependents = true;
            (service.again, service.follows, service.demanded) = (false, false, false);
            service.rival = rival;
            self.generation += 1;
            self.mark(unit);
        }
    }

    fn settle_down(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let (state, reason, rival) = (service.state, service.down_reason, service.rival);
        if std::mem::take(&mut service.calls_dependents) {
            self.for_each(unit, Neighbours::Dependents, |engine, other| {
                engine.wish_down(other, reason, rival);
            });
            self.replace_fallback(unit, reason);
        }
        match state {
            State::Down(Rest::Listening) | State::Waiting | State::Backoff => {
                self.come_down_as_wished(unit, plan);
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
            | State::Asking
            | State::Signalled
            | State::Killing => {}
        }
    }

    /// Something that comes after it, and is to go down too, is still there.
    fn must_outlive_another(&self, unit: UnitId) -> bool {
        let goes_down = |other: &Service| other.desired == Desired::Down && other.must_be_awaited();
        self.any(unit, Neighbours::Following, goes_down).is_some()
    }
}
