//! Replay: the decisions of a kept incident, made again from its episode, on any machine and at any time.
//!
//! Pure, as all of the engine: an engine with this one unit is put where the unit stood, is told the same events at the
//! same times, and must come to the same deeds, to the same record of the incident, and to the same next step. Only
//! `lifeboatctl` calls this.
//!
//! What is compared are deeds about the unit. Where others had a say, the turn is taken as it was.
//! An episode comes out of a file, which anybody may have written: whatever it holds, this comes to an end.

use super::action::Action;
use super::episode::{Checkpoint, Entry, Next, print_of_turns, written};
use super::event::{Event, Time};
use super::policy::{UnitId, UnitPolicy};
use super::record::Record;
use super::snapshot::{Incident, Trouble};
use super::{Engine, Plan};
use serde::Serialize;
use std::fmt;

/// The only unit of the engine that replays.
const UNIT: UnitId = UnitId(0);

/// A place at which no unit is.
const NOBODY: UnitId = UnitId(u16::MAX);

/// Later times no machine has seen, and sums with a delay stay below the clock's end.
const TIME_MAX: Time = Time(1 << 62);

/// More starts are not remembered: a list of them is made, however long a policy has it.
const TIMES_MAX: u32 = 10_000;

/// An episode out of a file. Its fields are those of `Episode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEpisode {
    /// By which definition the unit ran.
    pub policy: UnitPolicy,
    /// Its place in the table of then.
    pub unit: UnitId,
    /// What procedures could use together.
    pub reserve_bytes: u64,
    /// What came after it.
    pub next: Option<Next>,
    /// There was no room for its end.
    pub is_cut: bool,
    /// How the unit stood at first, and behind each turn of others.
    pub checkpoints: Vec<Checkpoint>,
    /// Its turns.
    pub entries: Vec<Entry>,
}

/// Why there is nothing to replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It has no turns, or none that could be decided again.
    Empty,
    /// Its parts do not belong together.
    Inconsistent,
    /// It has numbers that no lifeboat has written.
    Numbers,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "its episode has no turn that could be decided again",
            Self::Inconsistent => {
                "the parts of its episode do not belong together: it was changed, or damaged"
            }
            Self::Numbers => "its episode has numbers that no lifeboat writes: it was changed, or damaged",
        })
    }
}

impl std::error::Error for Unfit {}

/// One turn, then and now.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    /// When.
    pub at: Time,
    /// What happened.
    pub event: Event,
    /// Others had a say: it was taken as it was.
    pub elsewhere: bool,
    /// What was decided then.
    pub then: Vec<Action>,
    /// And now.
    pub now: Vec<Action>,
    /// What there is to tell of it now.
    pub words: Vec<Record>,
}

/// Where then and now part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Difference {
    /// The last turn led to other deeds.
    Deeds,
    /// The incident was closed then, and is not now; or the other way round, in the last turn.
    Closing,
    /// The last turn led to the same deeds, but the unit stands otherwise behind it: what is decided later may differ.
    State,
    /// The deeds are the same, but the record of the incident is another one: now it is this.
    Record(Box<Incident>),
    /// What comes after the incident.
    Next {
        /// Then.
        then: Next,
        /// Now.
        now: Option<Next>,
    },
}

/// How far an episode goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum End {
    /// To the end of its incident: the record was compared.
    Compared,
    /// There was no room for the rest.
    Cut,
    /// The end was others' doing.
    Elsewhere,
}

/// What a replay came to.
#[derive(Clone, Debug, Serialize)]
pub struct Replay {
    /// All turns, up to the first that differs.
    pub turns: Vec<Turn>,
    /// `None`: all is the same.
    pub difference: Option<Difference>,
    /// Whether the end of the incident was decided again, and its record compared.
    pub end: End,
    /// What comes after the incident, where that was compared.
    pub next: Option<Next>,
}

/// Decides an episode again. `record` is the incident as it was written then.
///
/// # Errors
/// Where there is nothing to decide.
pub fn replay(episode: &KeptEpisode, record: &Incident) -> Result<Replay, Unfit> {
    let mut checkpoints = episode.checkpoints.iter();
    let first = checkpoints.next().ok_or(Unfit::Empty)?;
    let mut engine = Engine::new(vec![fit_policy(&episode.policy)], episode.reserve_bytes);
    engine.stand_at(first)?;
    // It is told by its number of then.
    engine.incident_count = record.number.saturating_sub(1);
    let mut plan = Plan::for_units(1);
    let mut others = 0;
    let mut replay = Replay { turns: Vec::new(), difference: None, end: End::Cut, next: None };
    let mut print = first.print();
    let mut entries = episode.entries.iter().peekable();
    while let Some(entry) = entries.next() {
        let (at, event, print_then) = match *entry {
            Entry::Others(bytes) => {
                others = bytes;
                continue;
            }
            Entry::Event(at, event, print) => (at, event, print),
            // Each stands behind the head of its turn.
            Entry::Elsewhere | Entry::Deed(_) => return Err(Unfit::Inconsistent),
        };
        let elsewhere = entries.next_if_eq(&&Entry::Elsewhere).is_some();
        if at > TIME_MAX {
            return Err(Unfit::Numbers);
        }
        let mut turn = Turn { at, event, elsewhere, then: Vec::new(), now: Vec::new(), words: Vec::new() };
        while let Some(Entry::Deed(deed)) = entries.next_if(|entry| matches!(entry, Entry::Deed(_))) {
            turn.then.push(*deed);
        }
        if elsewhere {
            engine.stand_at(checkpoints.next().ok_or(Unfit::Inconsistent)?)?;
            replay.turns.push(turn);
            print = engine.print_behind(print, at, false);
            continue;
        }
        let had_incident = engine.has_open_incident(UNIT);
        engine.take_turn(episode.unit, others, (at, event), &mut plan);
        let is_closed = had_incident && !engine.has_open_incident(UNIT);
        replay.end = if is_closed { End::Compared } else { End::Cut };
        turn.take(&mut plan, episode.unit, is_closed);
        let closed_then = turn.then.iter().any(is_closing);
        let same = turn.is_same();
        replay.turns.push(turn);
        print = engine.print_behind(print, at, is_closed);
        let stands_alike = written(print) == print_then;
        replay.difference = match (same, closed_then == is_closed, stands_alike) {
            (false, _, _) => Some(Difference::Deeds),
            (true, false, _) => Some(Difference::Closing),
            (true, true, false) => Some(Difference::State),
            (true, true, true) => None,
        };
        if replay.difference.is_some() {
            return Ok(replay);
        }
    }
    if replay.turns.iter().all(|turn| turn.elsewhere) {
        return Err(Unfit::Empty);
    }
    replay.compare_the_end(&engine, episode, record);
    Ok(replay)
}

impl Replay {
    /// All is the same, from the first turn to the end.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.difference.is_none() && self.end == End::Compared
    }

    fn compare_the_end(&mut self, engine: &Engine, episode: &KeptEpisode, record: &Incident) {
        if self.turns.last().is_some_and(|turn| turn.elsewhere) && !episode.is_cut {
            self.end = End::Elsewhere;
        }
        match self.end {
            End::Compared => {}
            End::Cut if !episode.is_cut => {
                self.difference = Some(Difference::Closing);
                return;
            }
            End::Cut | End::Elsewhere => return,
        }
        let closed = engine.incidents.back().copied();
        let closed = closed.map(|now| Incident { number: record.number, unit: record.unit, ..now });
        self.difference = closed.filter(|now| now != record).map(|now| Difference::Record(Box::new(now)));
        self.next = episode.next;
        if let (None, Some(then)) = (&self.difference, episode.next) {
            let now = engine.checkpoint(UNIT).and_then(|stands| engine.next_of(&stands));
            self.difference = (now != Some(then)).then_some(Difference::Next { then, now });
        }
    }
}

impl Turn {
    /// What was planned about the unit; where the incident is closed, up to that.
    fn take(&mut self, plan: &mut Plan, unit: UnitId, is_closing_turn: bool) {
        let mut is_over = false;
        while let Some(mut action) = plan.take_deed() {
            if let Some(of) = action.unit_mut()
                && !is_over
            {
                *of = unit;
                is_over = is_closing_turn && is_closing(&action);
                self.now.push(action);
            }
        }
        while let Some(Action::Log(words)) = plan.take_words() {
            self.words.push(words);
        }
    }

    fn is_same(&self) -> bool {
        // Numbers of incidents go on from boot to boot.
        let plain = |action: &Action| {
            let mut plain = *action;
            if let Action::KeepIncident { number, .. } = &mut plain {
                *number = 0;
            }
            plain
        };
        self.then.iter().map(plain).eq(self.now.iter().map(plain))
    }
}

fn is_closing(action: &Action) -> bool {
    matches!(action, Action::KeepIncident { .. })
}

impl Engine {
    fn take_turn(&mut self, unit: UnitId, others: u64, (at, mut event): (Time, Event), plan: &mut Plan) {
        if let Some(of) = event.unit_mut() {
            // What is about another unit finds none.
            *of = if *of == unit { UNIT } else { NOBODY };
        }
        let own = self.unit(UNIT).filter(|service| service.holds_reserve);
        let own = own.and_then(|service| service.policy.procedure).map_or(0, |it| it.reserve_bytes());
        self.reserve_used_bytes = others.saturating_add(own);
        self.handle(at, event, plan);
    }

    fn print_behind(&self, before: u64, at: Time, is_closed: bool) -> u64 {
        let stands = self.checkpoint(UNIT).filter(|_| !is_closed);
        print_of_turns(before, at, stands.map_or(0, |stands| stands.print()))
    }

    /// Puts the unit where it stood.
    fn stand_at(&mut self, checkpoint: &Checkpoint) -> Result<(), Unfit> {
        let Checkpoint { mut moment, timers, history, memory, rings } = *checkpoint;
        if moment.run.0 > u32::MAX / 2 || moment.inherited > moment.run {
            return Err(Unfit::Numbers);
        }
        if timers.iter().flatten().any(|due| *due > TIME_MAX) {
            return Err(Unfit::Numbers);
        }
        // Other units are not there.
        if let Some(incident) = &mut moment.incident {
            incident.unit = UNIT;
        }
        if let Some(Trouble::RequirementDown { .. } | Trouble::Conflict { .. }) = moment.trouble {
            moment.trouble = None;
        }
        self.timers.set_all(UNIT, &timers);
        let Some(service) = self.unit_mut(UNIT) else { return Err(Unfit::Empty) };
        service.moment = moment;
        service.policy.memory = memory;
        service.policy.warn.rings = rings;
        if let Some(history) = history {
            service.restarts.recall(&history);
        }
        Ok(())
    }
}

/// A policy without other units, and without what would never come to an end.
fn fit_policy(policy: &UnitPolicy) -> UnitPolicy {
    let mut fit = policy.clone();
    for list in [&mut fit.after, &mut fit.before, &mut fit.requires, &mut fit.wants, &mut fit.conflicts] {
        list.clear();
    }
    fit.others_mut().for_each(|fallback| *fallback = NOBODY);
    fit.refused = None;
    fit.restart.limit_starts = fit.restart.limit_starts.min(TIMES_MAX);
    fit.restart.exhaustion.times = fit.restart.exhaustion.times.min(TIMES_MAX);
    // A timer that is due at once, again and again, would never let a turn end.
    if let Some(health) = &mut fit.health {
        health.interval_ms = health.interval_ms.max(1);
        health.timeout_ms = health.timeout_ms.max(1);
    }
    fit.descriptors.idle_stop_ms = fit.descriptors.idle_stop_ms.map(|ms| ms.max(1));
    fit
}
