//! Other unit files become other units: the table, the seats, the rings and the branches follow.

use super::boot::{load_units, seat_of};
use super::change::{Plan, Planned, Present, Room, Step, plan};
use super::event_loop::Lifeboat;
use super::output::ring_bytes;
use super::parked::overhead_bytes;
use super::seat::Seat;
use super::story;
use crate::cgroup::group::Group;
use crate::cgroup::tree;
use crate::engine::change::Change;
use crate::engine::event::{ClientId, Event, Role, Verb};
use crate::engine::policy::{Class, UnitId, UnitPolicy};
use crate::sys::clock;
use crate::sys::few::sort_few;
use crate::unit::{enabled, is_instance};
use crate::view::words;
use crate::wire::reply::{ChangeReply, ChangesReply, Effect, Empty, ErrorReply};

impl Lifeboat {
    /// What an update would do.
    pub(super) fn reread(&mut self, client: ClientId) {
        let (plan, faults) = self.plan_for(&[]);
        let changes = self.told(&plan);
        self.control.release(client);
        self.control.reply(client, &ChangesReply { changes, faults });
    }

    /// Brings the units to what their files say.
    pub(super) fn update(&mut self, client: ClientId, names: &[String]) {
        let (plan, faults) = self.plan_for(names);
        let known = |name: &&String| {
            self.id_of(name).is_some() || plan.changes.iter().any(|change| change.name == **name)
        };
        if let Some(name) = names.iter().find(|name| !known(name)) {
            self.control.release(client);
            return self.control.refuse(client, &ErrorReply::NoSuchUnit { name: name.clone() });
        }
        let changes = self.told(&plan);
        self.apply(plan);
        self.control.release(client);
        self.control.reply(client, &ChangesReply { changes, faults });
    }

    /// Takes one new unit in.
    pub(super) fn add(&mut self, client: ClientId, name: String) {
        if self.id_of(&name).is_some_and(|unit| !self.engine.is_leaving(unit)) {
            let reason = "it is there already; `update` takes a new definition".to_owned();
            self.control.release(client);
            return self.control.refuse(client, &ErrorReply::NotDone { reason });
        }
        self.wish(&name);
        self.update(client, &[name]);
        self.forget_wishes();
    }

    /// Makes an instance of a template that nothing has asked for yet, and starts it. False where there is no such
    /// template: that is answered then.
    pub(super) fn start_instance(&mut self, client: ClientId, name: String) -> bool {
        self.wish(&name);
        let (plan, _) = self.plan_for(std::slice::from_ref(&name));
        self.apply(plan);
        self.forget_wishes();
        let Some(unit) = self.id_of(&name) else {
            self.control.refuse(client, &ErrorReply::NoSuchUnit { name });
            return false;
        };
        self.events.push_back(Event::Asked { client, unit, verb: Verb::Start });
        self.pump();
        true
    }

    /// The instance exists from now on, where it can: it is no surplus to later updates.
    fn wish(&mut self, name: &str) {
        if is_instance(name) && !self.wishes.instances.iter().any(|known| known == name) {
            self.wishes.instances.push(name.to_owned());
        }
    }

    /// What is not there is not wished any more, so the list is no longer than the table.
    fn forget_wishes(&mut self) {
        let mut instances = std::mem::take(&mut self.wishes.instances);
        instances.retain(|name| self.id_of(name).is_some());
        self.wishes.instances = instances;
    }

    /// Takes a unit out that is at rest, until files are taken in again.
    pub(super) fn take_out(&mut self, client: ClientId, name: String) {
        let Some(unit) = self.id_of(&name) else {
            return self.control.refuse(client, &ErrorReply::NoSuchUnit { name });
        };
        if self.engine.is_shutting_down() {
            return self.control.refuse(client, &ErrorReply::ShuttingDown {});
        }
        if !self.engine.is_at_rest(unit) {
            return self.control.refuse(client, &ErrorReply::StillRunning { name });
        }
        let names_it = |seat: &Seat| {
            seat.unit
                .policy
                .others()
                .chain(seat.next.iter().flat_map(|next| next.unit.policy.others()))
                .any(|other| other == unit)
        };
        let other = self.seats.iter().find(|seat| names_it(seat)).map(|seat| &seat.unit.policy.name);
        if let Some(other) = other {
            let reason = format!("{other} names it in its file: take that out first");
            return self.control.refuse(client, &ErrorReply::NotDone { reason });
        }
        self.reconfigure(vec![(unit, Change::Remove)]);
        self.forget_wishes();
        self.control.reply(client, &Empty {});
    }

    /// It is on the disk now.
    pub(super) fn enabled(&mut self, client: ClientId, unit: UnitId, autostart: bool) {
        if let Some(seat) = self.seats.get_mut(usize::from(unit.0)) {
            seat.unit.policy.autostart = autostart;
            if let Some(written) = &mut seat.written {
                written.policy.autostart = autostart;
            }
            if let Some(next) = &mut seat.next {
                next.unit.policy.autostart = autostart;
            }
        }
        self.reconfigure(vec![(unit, Change::Autostart(autostart))]);
        self.control.release(client);
        self.control.reply(client, &Empty {});
    }

    pub(super) fn not_stored(&mut self, client: ClientId, unit: UnitId, autostart: bool, errno: i32) {
        let name = self.names.get(usize::from(unit.0)).map_or("", String::as_str);
        let path = enabled::file_of(self.config.state_folder(), name, autostart);
        let reason = format!(
            "{} cannot be made: {}; make its folder writable, or name another: state_folder in system.ron, or --state",
            path.display(),
            words::errno(errno)
        );
        log::error!("{reason}");
        self.control.release(client);
        self.control.refuse(client, &ErrorReply::NotDone { reason });
    }

    /// The client gets what was put together for it.
    pub(super) fn answered(&mut self, client: ClientId) {
        self.control.release(client);
        if !self.control.flush(client, &self.poller) {
            self.control.close(client);
            self.events.push_back(Event::ClientGone { client });
        }
        self.pump();
    }

    /// Reads the files, which are in the page cache by now; also gives all that is wrong with them.
    fn plan_for(&mut self, names: &[String]) -> (Plan, Vec<String>) {
        let loaded = load_units(&self.config, &self.wishes);
        let mut faults: Vec<String> = loaded.faults.iter().map(ToString::to_string).collect();
        let present: Vec<Option<Present<'_>>> = (0u16..)
            .map(UnitId)
            .zip(&self.seats)
            .map(|(unit, seat)| {
                self.engine.is_present(unit).then(|| Present {
                    unit: match (&seat.next, &seat.written) {
                        (Some(next), _) => &next.unit,
                        (None, Some(written)) => written,
                        (None, None) => &seat.unit,
                    },
                    limited_bytes: seat
                        .written
                        .as_ref()
                        .and(seat.unit.policy.memory)
                        .map(|memory| memory.max_bytes),
                    pending: seat.next.is_some(),
                    leaving: self.engine.is_leaving(unit),
                })
            })
            .collect();
        let mut room = Room {
            budget: self.system.budget,
            pool_used_bytes: self.tree.as_ref().map_or(Ok(0), tree::Tree::pool_used_bytes).unwrap_or(0),
        };
        if room.budget.total_bytes == 0 {
            // It is not known, and nobody was refused at the start.
            room.budget.total_bytes = u64::MAX;
        }
        let places = |names: &[&str]| self.engine.places_for(names);
        let plan = plan(&present, loaded.units, names, places, (room, overhead_bytes));
        faults.extend(plan.faults.iter().cloned());
        // What was found of units that are not looked at now still holds.
        let others = |fault: &&String| {
            let unit = fault.split_once(": ").map(|(name, _)| name);
            let known =
                unit.is_some_and(|unit| self.id_of(unit).is_some() && !names.iter().any(|it| it == unit));
            !names.is_empty() && known && !faults.contains(fault)
        };
        let others: Vec<String> = self.system.faults.iter().filter(others).cloned().collect();
        faults.extend(others);
        for fault in faults.iter().filter(|fault| !self.system.faults.contains(fault)) {
            log::error!("{fault}");
        }
        log::info!("unit files were read; changes: {}, faults: {}", plan.changes.len(), faults.len());
        self.system.faults.clone_from(&faults);
        (plan, faults)
    }

    fn told(&self, plan: &Plan) -> Vec<ChangeReply> {
        plan.changes
            .iter()
            .map(|Planned { unit, name, difference, effect, .. }| {
                let run = self.engine.shown_run(*unit).map(|run| run.0);
                ChangeReply { name: name.clone(), difference: *difference, effect: *effect, run }
            })
            .collect()
    }

    fn apply(&mut self, plan: Plan) {
        let notify = self.notify.path();
        let mut changes: Vec<(UnitId, Change)> = Vec::new();
        let mut new = Vec::new();
        for Planned { unit, name, effect, step, .. } in plan.changes {
            let at = usize::from(unit.0);
            if effect == Effect::Adjust {
                log::info!("{name}: has a new definition, which holds at once");
            }
            let (change, seat) = match step {
                None => continue,
                Some(Step::Remove) => (Change::Remove, None),
                Some(Step::Add(unit)) => (Change::Add(unit.policy.clone()), Some(seat_of(*unit, notify))),
                Some(Step::Replace(unit)) => {
                    (Change::Replace(unit.policy.clone()), Some(seat_of(*unit, notify)))
                }
                Some(Step::Adjust(unit)) => {
                    let mut limited = (*unit).clone();
                    if let Some(seat) = self.seats.get_mut(at) {
                        seat.limited.iter().for_each(|limit| limited.take_limit(*limit));
                        seat.written = seat.written.is_some().then_some(unit);
                        seat.unit = limited.clone();
                    }
                    (Change::Adjust(limited.policy), None)
                }
            };
            match (&change, seat) {
                (Change::Add(_), Some(seat)) if at == self.seats.len() => {
                    self.seats.push(seat);
                    self.names.push(name);
                    new.push(unit);
                }
                (Change::Add(_), Some(seat)) => {
                    if let (Some(old), Some(known)) = (self.seats.get_mut(at), self.names.get_mut(at)) {
                        (*old, *known) = (seat, name);
                        new.push(unit);
                    }
                }
                (_, Some(next)) => {
                    if let Some(seat) = self.seats.get_mut(at) {
                        seat.next = Some(Box::new(next));
                    }
                }
                (_, None) => {}
            }
            changes.push((unit, change));
        }
        if self.system.budget.total_bytes > 0 {
            self.system.budget = plan.budget;
            self.engine.set_room(plan.budget.guaranteed_bytes, plan.budget.pool_bytes);
        }
        self.make_room(&new);
        sort_few(&mut changes, |(unit, _)| *unit);
        self.reconfigure(changes);
        let rescue = self.rescue.as_deref().and_then(|name| self.id_of(name));
        self.engine.set_rescue(rescue.filter(|unit| !self.engine.is_leaving(*unit)));
    }

    /// Everything that is sized by the number of units.
    fn make_room(&mut self, new: &[UnitId]) {
        let count = self.seats.len();
        self.events.reserve((4 * count + 64).saturating_sub(self.events.len()));
        self.pids.reserve((2 * count).saturating_sub(self.pids.len()));
        self.resize_rings(new);
        for unit in new {
            if let Some(seat) = self.seats.get(usize::from(unit.0)) {
                self.outputs.admit(*unit, &seat.unit);
            }
        }
        self.rebound();
    }

    /// A ring has the size of the unit's next definition; one that is to have none is kept while its last run goes on.
    fn resize_rings(&mut self, new: &[UnitId]) {
        let sizes: Vec<usize> = (0u16..)
            .map(UnitId)
            .zip(&self.seats)
            .map(|(unit, seat)| match &seat.next {
                _ if !new.contains(&unit) && !self.engine.is_present(unit) => 0,
                None => ring_bytes(&seat.unit),
                Some(next) => match ring_bytes(&next.unit) {
                    0 => self.outputs.kept_bytes(unit),
                    bytes => bytes,
                },
            })
            .collect();
        self.outputs.resize(&sizes);
    }

    fn reconfigure(&mut self, changes: Vec<(UnitId, Change)>) {
        self.engine.reconfigure(clock::now(), changes, &mut self.plan);
        while let Some(action) = self.plan.take() {
            self.perform(action);
        }
        self.pump();
    }

    /// The branches' bounds: of a unit that changes both definitions count, until nothing of the old one is left.
    fn rebound(&mut self) {
        let Some(tree) = &self.tree else { return };
        let mut budget = self.system.budget;
        let guaranteed_bytes = |policy: &UnitPolicy| {
            let memory = policy.memory.filter(|memory| memory.class == Class::Guaranteed);
            memory.filter(|_| policy.refused.is_none()).map_or(0, |memory| memory.max_bytes)
        };
        let claims_bytes: u64 = self
            .seats
            .iter()
            .map(|seat| {
                let next_bytes = seat.next.as_ref().map_or(0, |next| guaranteed_bytes(&next.unit.policy));
                guaranteed_bytes(&seat.unit.policy).max(next_bytes)
            })
            .sum();
        let more_bytes = claims_bytes.saturating_sub(budget.guaranteed_bytes);
        budget.pool_bytes = budget.pool_bytes.saturating_sub(more_bytes);
        match tree.rebound(&budget) {
            Ok(true) => {}
            Ok(false) => log::warn!("a branch uses more than it shall have: its bound waits for that"),
            Err(error) => story::complain(&error),
        }
    }

    /// Nothing of the unit's last run is left, and its new definition holds.
    pub(super) fn adopt(&mut self, unit: UnitId) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let Some(next) = seat.next.take() else { return };
        let mut old = std::mem::replace(seat, *next);
        seat.run = old.run;
        seat.descriptors = std::mem::take(&mut old.descriptors);
        self.trim_stored(unit);
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let quiet = ring_bytes(&seat.unit) == 0;
        self.outputs.adopt(unit, &old.unit, &seat.unit);
        // Other cgroups: what the old definition has set in them is not for the new one.
        for role in [Role::Service, Role::Procedure, Role::Command] {
            if let Some(group) = old.group_mut(role).take() {
                give_back(group);
            }
        }
        if quiet {
            self.resize_rings(&[]);
        }
        self.rebound();
    }

    /// The unit is gone. Its name stays, for its incidents, until another unit takes the place.
    pub(super) fn dismiss(&mut self, unit: UnitId) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let mut old = std::mem::replace(seat, Seat::vacant());
        seat.run = old.run;
        for role in [Role::Service, Role::Procedure, Role::Command] {
            if let Some(group) = old.group_mut(role).take() {
                give_back(group);
            }
        }
        self.outputs.dismiss(unit, &self.poller);
        while let Some(client) = self.control.take_follower(unit) {
            self.events.push_back(Event::ClientGone { client });
        }
        self.rebound();
    }
}

/// Closing its files ends their watches; then the folder goes.
fn give_back(group: Group) {
    let path = group.path().to_path_buf();
    drop(group);
    if let Err(error) = tree::remove(&path) {
        story::complain(&error);
    }
}
