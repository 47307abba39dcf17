//! Episodes: what happens to a unit from the end of its calm to the end of its exhaustion, with what was decided, and
//! how it stood before. From that the same decisions can be made again on another machine (`replay`).
//!
//! A few units at a time have a slot for that. It begins with a *checkpoint*, made before the first event changes
//! anything: a copy of all that decisions about the unit rest on. Then follow the turns that are about it: the event,
//! and the deeds. Before the rescue the record may begin anew at any turn; from the rescue on it is kept to the end.
//!
//! Other units and people have a say, too. Before the rescue the record begins anew behind their turns. After it such a
//! turn is recorded as what it is, with another checkpoint behind it. What others hold of the reserve is an input.
//!
//! Nothing is allocated in a turn. A slot's memory is not touched before its first use; of a unit that is calm again
//! nothing is kept.

use super::action::Action;
use super::doorbell::Hearing;
use super::event::{Event, Role, Time};
use super::exhaustion::may_be_rescued;
use super::limits::{EPISODE_CHECKPOINTS_MAX, EPISODE_ENTRIES_MAX, EPISODES_MAX};
use super::moment::Moment;
use super::numbers::{fingerprint, fold};
use super::policy::{MemoryPolicy, UnitId};
use super::restart::History;
use super::service::{Rest, State};
use super::timer::TimersOfUnit;
use super::{Engine, Plan};
use serde::{Deserialize, Serialize};

/// How a unit stands between two turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub(super) moment: Moment,
    pub(super) timers: TimersOfUnit,
    /// `None` where it is too long: then what comes after the incident is not decided again.
    pub(super) history: Option<History>,
    /// What may change of a definition while it holds.
    pub(super) memory: Option<MemoryPolicy>,
    pub(super) rings: bool,
}

impl Checkpoint {
    /// The same for units that stand alike, also where they and their incidents have other numbers.
    pub(super) fn print(&self) -> u64 {
        let Self { mut moment, timers, history: _, memory, rings } = *self;
        moment.forget_numbers();
        fingerprint(&(moment, timers, memory, rings))
    }

    /// The same, and the history's: a replay may have none, so it is no part of what is compared there.
    fn prints(&self) -> (u64, u64) {
        (self.print(), fingerprint(&self.history))
    }
}

/// The print of all turns so far, with one more. `stands` is 0 where others may have had a say in how the unit stands.
pub(super) fn print_of_turns(before: u64, at: Time, stands: u64) -> u64 {
    fold(fold(before, at.0), stands)
}

/// What of a print is written down.
pub(super) fn written(print: u64) -> u32 {
    u32::try_from(print >> 32).unwrap_or(0)
}

/// One line of an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// So much of the reserve is held by others from here on; at first 0.
    Others(u64),
    /// A turn: when, what happened, and the print of all turns so far, and of how the unit stood behind each.
    Event(Time, Event, u32),
    /// Others had a say in this turn. Behind it the unit stands as its next checkpoint says.
    Elsewhere,
    /// What was decided in this turn. Words are not recorded: they follow.
    Deed(Action),
}

/// What comes of a unit whose incident is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Next {
    /// It starts again at once, or as soon as others let it.
    Starts,
    /// It starts again after so many milliseconds.
    StartsAfterMs(u64),
    /// It rests with its sockets open.
    Rests,
    /// It stays down.
    StaysDown,
    /// It does not die.
    Stays,
}

/// Why an incident has no episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missing {
    /// The memory of too many units came to an end at once.
    Busy,
    /// Unit files were changed meanwhile.
    Reconfigured,
    /// A file has no room for it.
    TooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Free,
    /// Under way.
    Open,
    /// The incident of this number is closed; kept until somebody else needs the slot.
    Closed(u32),
}

#[derive(Debug)]
struct Slot {
    unit: UnitId,
    phase: Phase,
    /// Nothing more is recorded, for this reason.
    lost: Option<Missing>,
    /// There was no room for all of it.
    is_cut: bool,
    entries: usize,
    /// In the order in which they are needed; the first is of before the first turn.
    checkpoints: [Option<Checkpoint>; EPISODE_CHECKPOINTS_MAX],
    /// How the unit stood behind the last turn, its history too, and its incident.
    last: (u64, u64),
    /// The print of what is recorded.
    print: u64,
    incident: Option<u32>,
    /// What others held of the reserve by the last entry, and before this turn.
    others: (u64, u64),
    /// In this turn one of its timers is due.
    is_due: bool,
    next: Option<Next>,
}

/// A recorded episode, to be written down.
#[derive(Clone, Debug)]
pub struct Episode<'a> {
    /// Whose.
    pub unit: UnitId,
    /// What procedures may use together.
    pub reserve_bytes: u64,
    /// What comes after it, where no change of unit files has a say in that.
    pub next: Option<Next>,
    /// There was no room for its end.
    pub is_cut: bool,
    /// As many as it has, first to last.
    pub checkpoints: &'a [Option<Checkpoint>],
    /// Its turns.
    pub entries: &'a [Entry],
}

/// All slots.
///
/// # Invariants
/// - At most one slot of a unit is `Open`.
/// - `entries` has a part of `EPISODE_ENTRIES_MAX` for each slot; both lists are as long as they ever had to be.
#[derive(Debug)]
pub(super) struct Episodes {
    slots: Vec<Slot>,
    entries: Vec<Entry>,
}

impl Episodes {
    pub(super) fn new() -> Self {
        let entries = Vec::with_capacity(EPISODES_MAX * EPISODE_ENTRIES_MAX);
        Self { slots: Vec::with_capacity(EPISODES_MAX), entries }
    }

    fn is_open(&self, unit: UnitId) -> bool {
        self.slots.iter().any(|slot| slot.unit == unit && slot.phase == Phase::Open)
    }

    fn begin(&mut self, unit: UnitId, stands: Checkpoint) {
        let new = Slot {
            unit,
            phase: Phase::Open,
            lost: None,
            is_cut: false,
            entries: 0,
            checkpoints: [Some(stands), None, None],
            last: stands.prints(),
            print: stands.print(),
            incident: stands.moment.incident.map(|incident| incident.number),
            others: (0, 0),
            is_due: false,
            next: None,
        };
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.phase != Phase::Open) {
            *slot = new;
        } else if self.slots.len() < EPISODES_MAX {
            self.slots.push(new);
        }
    }

    fn slot(&mut self, at: usize) -> Option<&mut Slot> {
        self.slots.get_mut(at).filter(|slot| slot.phase == Phase::Open)
    }

    /// What was recorded so far is of no use any more.
    fn begin_anew(&mut self, at: usize, stands: Checkpoint) {
        if let Some(slot) = self.slot(at) {
            slot.entries = 0;
            slot.print = stands.print();
            slot.others.0 = 0;
            slot.checkpoints = [Some(stands), None, None];
        }
    }

    fn put(&mut self, at: usize, entry: Entry) {
        let Some(slot) = self.slots.get_mut(at).filter(|slot| slot.entries < EPISODE_ENTRIES_MAX) else {
            return;
        };
        let place = at * EPISODE_ENTRIES_MAX + slot.entries;
        slot.entries += 1;
        while self.entries.len() <= place {
            self.entries.push(Entry::Others(0));
        }
        if let Some(old) = self.entries.get_mut(place) {
            *old = entry;
        }
    }

    /// Notes a whole turn; where it has no room, nothing is noted from here on.
    fn note(&mut self, at: usize, (head, is_own): (Entry, bool), plan: &Plan, first: usize) {
        let Some(slot) = self.slot(at) else { return };
        let unit = slot.unit;
        slot.is_cut |= slot.entries + 3 + deeds(plan, first, unit).count() > EPISODE_ENTRIES_MAX;
        if slot.is_cut {
            return;
        }
        let (noted, others) = slot.others;
        slot.others.0 = others;
        if noted != others {
            self.put(at, Entry::Others(others));
        }
        self.put(at, head);
        if !is_own {
            self.put(at, Entry::Elsewhere);
        }
        for deed in deeds(plan, first, unit) {
            self.put(at, Entry::Deed(*deed));
            // What follows belongs to the next run.
            if matches!(deed, Action::KeepIncident { .. }) {
                return;
            }
        }
    }
}

/// What was decided about the unit since the plan had so many deeds.
fn deeds(plan: &Plan, first: usize, unit: UnitId) -> impl Iterator<Item = &Action> {
    plan.actions.iter().skip(first).filter(move |deed| deed.unit() == Some(unit))
}

impl Engine {
    /// Before a turn changes anything: where it ends a unit's calm, an episode begins.
    pub(super) fn watch_episodes(&mut self, event: &Event) {
        if let Some(unit) = self.whose_calm_ends(event)
            && !self.episodes.is_open(unit)
            && let Some(stands) = self.checkpoint(unit)
        {
            self.episodes.begin(unit, stands);
        }
        let (now, mut at) = (self.now, 0);
        while let Some(&Slot { unit, phase, .. }) = self.episodes.slots.get(at) {
            let others = self.others_hold(unit);
            let is_due = self.timers.of(unit).iter().flatten().any(|due| *due <= now)
                && !self.drill_waits_for_others(unit);
            if let Some(slot) = self.episodes.slot(at).filter(|_| phase == Phase::Open) {
                (slot.others.1, slot.is_due) = (others, is_due);
            }
            at += 1;
        }
    }

    /// The unit that may be on its way to an exhaustion from here on.
    fn whose_calm_ends(&self, event: &Event) -> Option<UnitId> {
        let (Event::MemoryEvents { unit, run, role: Role::Service, .. }
        | Event::PressureRang { unit, run }
        | Event::LimitTried { unit, run, .. }
        | Event::MemorySampled { unit, run, .. }) = *event
        else {
            return None;
        };
        let service = self.unit(unit).filter(|service| service.run == run)?;
        // Without a doorbell a reading, which any reader can ask for, decides about a standstill alone.
        let is_read = !matches!(event, Event::MemorySampled { .. })
            || service.trend.hearing == Hearing::Reading
            || service.policy.memory.is_some_and(|memory| memory.high_bytes.is_some());
        (is_read && may_be_rescued(service.state)).then_some(unit)
    }

    pub(super) fn checkpoint(&self, unit: UnitId) -> Option<Checkpoint> {
        let service = self.unit(unit)?;
        Some(Checkpoint {
            moment: service.moment,
            timers: self.timers.of(unit),
            history: service.restarts.history(),
            memory: service.policy.memory,
            rings: service.policy.warn.rings,
        })
    }

    fn others_hold(&self, unit: UnitId) -> u64 {
        let own = self.unit(unit).filter(|service| service.holds_reserve);
        let own = own.and_then(|service| service.policy.procedure).map_or(0, |it| it.reserve_bytes());
        self.reserve_used_bytes.saturating_sub(own)
    }

    /// After a turn: what of it belongs to an episode is noted. The turn's deeds are those of the plan from `first` on.
    pub(super) fn note_episodes(&mut self, event: Event, first: usize, plan: &Plan) {
        let mut at = 0;
        while let Some(&Slot { unit, phase, .. }) = self.episodes.slots.get(at) {
            if phase == Phase::Open
                && let Some(stands) = self.checkpoint(unit)
            {
                self.note_turn(at, event, &stands, (plan, first));
            }
            at += 1;
        }
    }

    fn note_turn(&mut self, at: usize, event: Event, stands: &Checkpoint, (plan, first): (&Plan, usize)) {
        let (now, Some(slot)) = (self.now, self.episodes.slots.get(at)) else { return };
        let (unit, is_own) = (slot.unit, self.is_own(slot, event));
        let (print, history) = stands.prints();
        if !is_own && (print, history) == slot.last && deeds(plan, first, unit).next().is_none() {
            return;
        }
        let is_long = slot.entries > EPISODE_ENTRIES_MAX / 2;
        let (before, after) = (slot.incident, stands.moment.incident.map(|incident| incident.number));
        let is_adopted = deeds(plan, first, unit).any(|deed| matches!(deed, Action::Adopt { .. }));
        // A fallback or a rescue that needs it may call it up again at once.
        let is_called = stands.moment.wished_in_turn == self.turn;
        let next = self.next_of(stands).filter(|_| is_own && !is_adopted && !is_called);
        let Some(slot) = self.episodes.slot(at) else { return };
        (slot.last, slot.incident) = ((print, history), after);
        if before.is_none() && after.is_none() && !is_under_way(&stands.moment) {
            slot.phase = Phase::Free;
            return;
        }
        // Before the rescue: others had a say, or what is left is to have room for the rescue.
        if before.is_none() && after.is_none() && (!is_own || is_long) {
            self.episodes.begin_anew(at, *stands);
            return;
        }
        if !is_own {
            match slot.checkpoints.iter_mut().find(|place| place.is_none()) {
                Some(place) => *place = Some(*stands),
                None => slot.is_cut = true,
            }
        }
        let is_closed = before.is_some() && after.is_none();
        slot.print = print_of_turns(slot.print, now, if is_closed { 0 } else { print });
        let head = Entry::Event(now, event, written(slot.print));
        self.episodes.note(at, (head, is_own), plan, first);
        if let (Some(incident), None, Some(slot)) = (before, after, self.episodes.slot(at)) {
            (slot.next, slot.phase) = (next, Phase::Closed(incident));
        }
    }

    /// The turn's decisions about the unit rest on what is recorded of it alone.
    fn is_own(&self, slot: &Slot, event: Event) -> bool {
        match event {
            // Other units' timers may be due at the same time.
            Event::Deadline => slot.is_due && slot.others.1 == self.others_hold(slot.unit),
            Event::IncidentsAhead { .. } => true,
            Event::Boot
            | Event::ConditionsChecked { .. }
            | Event::Demanded { .. }
            | Event::Asked { .. }
            | Event::LimitAsked { .. }
            | Event::ClientGone { .. }
            | Event::ShutdownAsked { .. }
            | Event::Reconfigured { .. } => false,
            Event::Parked { .. }
            | Event::BallastStands { .. }
            | Event::Spawned { .. }
            | Event::Ready { .. }
            | Event::Probed { .. }
            | Event::Notified { .. }
            | Event::LookedIdle { .. }
            | Event::SpawnFailed { .. }
            | Event::SettingRefused { .. }
            | Event::ProcedurePeak { .. }
            | Event::ProcedureRunning { .. }
            | Event::Exited { .. }
            | Event::KilledOutside { .. }
            | Event::Emptied { .. }
            | Event::Strayed { .. }
            | Event::Frozen { .. }
            | Event::Failed { .. }
            | Event::MemoryEvents { .. }
            | Event::MemorySampled { .. }
            | Event::LeftBehind { .. }
            | Event::PressureRang { .. }
            | Event::LimitTried { .. } => event.unit() == Some(slot.unit),
        }
    }

    /// What comes after the incident. Whether a unit that starts has its turn already is others' affair.
    pub(super) fn next_of(&self, stands: &Checkpoint) -> Option<Next> {
        stands.history?;
        if stands.moment.leaving {
            return None;
        }
        Some(match stands.moment.state {
            State::Backoff => {
                let due = stands.timers.first().copied().flatten().unwrap_or(self.now);
                Next::StartsAfterMs(due.since_us(self.now) / 1_000)
            }
            State::Down(Rest::Listening) => Next::Rests,
            State::Down(
                Rest::Stopped | Rest::Exited | Rest::Fatal | Rest::Done | Rest::Skipped | Rest::Gone,
            ) => Next::StaysDown,
            State::Killing => Next::Stays,
            State::Waiting
            | State::Parking
            | State::Spawning
            | State::Readying
            | State::Running
            | State::Idling
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled => Next::Starts,
        })
    }

    /// Unit files have changed: what was recorded rests on definitions that may not hold any more.
    pub(super) fn lose_episodes(&mut self) {
        for slot in &mut self.episodes.slots {
            match (slot.phase, slot.incident) {
                (Phase::Open, None) => slot.phase = Phase::Free,
                (Phase::Open, Some(_)) => (slot.lost, slot.is_cut) = (Some(Missing::Reconfigured), true),
                (Phase::Free | Phase::Closed(_), _) => {}
            }
        }
    }

    /// The episode of an incident, from the turn in which it is closed on until another unit needs the room.
    ///
    /// # Errors
    /// Where nothing was recorded, why.
    pub fn episode(&self, unit: UnitId, number: u32) -> Result<Episode<'_>, Missing> {
        let mut slots = self.episodes.slots.iter().enumerate();
        let of_incident = |slot: &Slot| slot.unit == unit && slot.phase == Phase::Closed(number);
        let (at, slot) = slots.find(|(_, slot)| of_incident(slot)).ok_or(Missing::Busy)?;
        if let Some(lost) = slot.lost {
            return Err(lost);
        }
        let first = at * EPISODE_ENTRIES_MAX;
        Ok(Episode {
            unit,
            reserve_bytes: self.reserve_bytes,
            next: slot.next,
            is_cut: slot.is_cut,
            checkpoints: &slot.checkpoints,
            entries: self.episodes.entries.get(first..first + slot.entries).unwrap_or_default(),
        })
    }
}

/// Its memory is being read closely: it may come to an exhaustion.
fn is_under_way(moment: &Moment) -> bool {
    moment.trend.hearing == Hearing::Reading && may_be_rescued(moment.state)
}
