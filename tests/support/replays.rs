//! Every closed incident of a machine's life goes into a file and comes back: its decisions, made again, are the same.

use lifeboat::engine::Engine;
use lifeboat::engine::change::Change;
use lifeboat::engine::episode::Entry;
use lifeboat::engine::event::Event;
use lifeboat::engine::policy::{UnitId, UnitPolicy};
use lifeboat::engine::replay::{KeptEpisode, replay};
use lifeboat::engine::snapshot::Incident;
use lifeboat::wire::episode::{Found, NoEpisode, Recorded, read_episode};
use lifeboat::wire::incident::{Brief, Rest, file_of, read, write_letter};

/// How many incidents there were, and what came of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) incidents: u64,
    pub(crate) same: u64,
    /// Of these: with the end, and with what comes next.
    pub(crate) whole: u64,
    pub(crate) with_next: u64,
    /// Of these: with a turn in which others had a say.
    pub(crate) with_others: u64,
    pub(crate) turns: u64,
    /// Turns that were left out on purpose, and missed.
    pub(crate) missed: u64,
}

impl Replayed {
    pub(crate) fn add(&mut self, more: Self) {
        self.incidents += more.incidents;
        self.same += more.same;
        self.whole += more.whole;
        self.with_next += more.with_next;
        self.with_others += more.with_others;
        self.turns += more.turns;
        self.missed += more.missed;
    }
}

/// By which definition each unit runs.
pub(crate) struct Definitions {
    present: Vec<UnitPolicy>,
    next: Vec<Option<UnitPolicy>>,
    pub(crate) replayed: Replayed,
}

impl Definitions {
    pub(crate) fn new(units: &[UnitPolicy]) -> Self {
        let next = units.iter().map(|_| None).collect();
        Self { present: units.to_vec(), next, replayed: Replayed::default() }
    }

    pub(crate) fn change(&mut self, changes: &[(UnitId, Change)]) {
        for (unit, change) in changes {
            let at = usize::from(unit.0);
            match change {
                Change::Add(policy) if at == self.present.len() => {
                    self.present.push(policy.clone());
                    self.next.push(None);
                }
                Change::Add(policy) => (self.present[at], self.next[at]) = (policy.clone(), None),
                Change::Adjust(policy) => self.present[at] = policy.clone(),
                Change::Replace(policy) => {
                    self.present[at].take_neighbours(policy);
                    self.next[at] = Some(policy.clone());
                }
                Change::Autostart(_) | Change::Remove => {}
            }
        }
    }

    pub(crate) fn adopt(&mut self, unit: UnitId) {
        let at = usize::from(unit.0);
        if let Some(next) = self.next[at].take() {
            self.present[at] = next;
        }
    }

    /// The incident is closed, and is to be kept.
    pub(crate) fn keep(&mut self, engine: &Engine, unit: UnitId, number: u32) -> Result<(), String> {
        self.replayed.incidents += 1;
        let file = self.file(engine, unit, number);
        let record = read(&file).map_err(|error| error.to_string())?.incident;
        let Found { episode, is_as_written, .. } = match read_episode(&file) {
            Ok(found) => found,
            Err(NoEpisode::Missing(_)) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let again = replay(&episode, &record).map_err(|error| error.to_string())?;
        if let Some(difference) = again.difference {
            let last = again.turns.last();
            return Err(format!("incident {number} of unit {}: {difference:?}\n{last:#?}", unit.0));
        }
        if !is_as_written {
            return Err(format!("incident {number}: its seal does not fit"));
        }
        self.replayed.same += 1;
        self.replayed.whole += u64::from(again.is_same());
        self.replayed.with_next += u64::from(again.next.is_some());
        self.replayed.with_others += u64::from(again.turns.iter().any(|turn| turn.elsewhere));
        self.replayed.turns += again.turns.len() as u64;
        let with_others = again.turns.iter().any(|turn| turn.elsewhere);
        if again.is_same() && !with_others { self.tamper(&episode, &record) } else { Ok(()) }
    }

    fn file(&self, engine: &Engine, unit: UnitId, number: u32) -> Vec<u8> {
        let incident = *engine.incident(number).expect("it is on record");
        let episode = engine.episode(unit, number);
        let policy = &self.present[usize::from(unit.0)];
        let recorded =
            Recorded(episode.as_ref().map(|episode| (policy, episode)).map_err(|missing| *missing));
        let brief = Brief { unit: &policy.name, boot_id: "b", began_unix_ms: 0, incident };
        let rest = Rest::default();
        let none: [(_, Event); 0] = [];
        let mut letter = Vec::new();
        write_letter(&mut letter, &brief, &rest, &recorded, none.iter()).expect("JSON");
        file_of(number, &letter)
    }

    /// Leaves out one turn after the other, and changes one after the other in each of its numbers.
    fn tamper(&mut self, whole: &KeptEpisode, record: &Incident) -> Result<(), String> {
        let is_told = |changed: &KeptEpisode| !replay(changed, record).is_ok_and(|again| again.is_same());
        let heads = (0..whole.entries.len()).filter(|at| matches!(whole.entries[*at], Entry::Event(..)));
        for at in heads {
            let deeds = whole.entries[at + 1..].iter().take_while(|entry| matches!(entry, Entry::Deed(_)));
            let mut changed = whole.clone();
            let left: Vec<_> = changed.entries.drain(at..=at + deeds.count()).collect();
            if !is_told(&changed) {
                return Err(format!("incident {}: nobody misses {left:?}", record.number));
            }
            self.replayed.missed += 1;
        }
        Ok(())
    }
}
