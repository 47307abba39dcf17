//! Every closed incident of a machine's life goes into a file and comes back: its decisions, made again, are the same.

use lifeboat::engine::Engine;
use lifeboat::engine::change::Change;
use lifeboat::engine::event::Event;
use lifeboat::engine::policy::{UnitId, UnitPolicy};
use lifeboat::engine::replay::{Replay, replay};
use lifeboat::engine::snapshot::{Incident, ProcedureResult};
use lifeboat::wire::episode::{NoEpisode, Recorded, read_episode};
use lifeboat::wire::incident::{Brief, Rest, file_of, read, write_letter};
use serde_json::Value;

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
        let (episode, _) = match read_episode(&file) {
            Ok(found) => found,
            Err(NoEpisode::Missing(_)) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let again = replay(&episode, &record).map_err(|error| error.to_string())?;
        if let Some(difference) = again.difference {
            let last = again.turns.last();
            return Err(format!("incident {number} of unit {}: {difference:?}\n{last:#?}", unit.0));
        }
        self.replayed.same += 1;
        self.replayed.whole += u64::from(again.is_whole);
        self.replayed.with_next += u64::from(again.next.is_some());
        self.replayed.with_others += u64::from(again.turns.iter().any(|turn| turn.elsewhere));
        self.replayed.turns += again.turns.len() as u64;
        let with_others = again.turns.iter().any(|turn| turn.elsewhere);
        if again.is_whole && !with_others { self.leave_out_turns(&file) } else { Ok(()) }
    }

    fn file(&self, engine: &Engine, unit: UnitId, number: u32) -> Vec<u8> {
        let incident = *engine.incident(number).expect("it is on record");
        let episode = engine.episode(unit, number);
        let policy = &self.present[usize::from(unit.0)];
        let recorded =
            Recorded(episode.as_ref().map(|episode| (policy, episode)).map_err(|missing| *missing));
        let brief = Brief { unit: &policy.name, boot_id: "b", began_unix_ms: 0, incident };
        let rest = Rest { limit_bytes: None, peak_bytes: None, words: "" };
        let none: [(_, Event); 0] = [];
        let mut letter = Vec::new();
        write_letter(&mut letter, &brief, &rest, &recorded, none.iter()).expect("JSON");
        file_of(number, &letter)
    }

    /// Leaves out one turn after the other: each is found, but for those that leave no trace.
    fn leave_out_turns(&mut self, file: &[u8]) -> Result<(), String> {
        let whole: Value = serde_json::from_slice(file).expect("JSON");
        let entries = whole["replay"]["Episode"]["entries"].as_array().expect("a list").clone();
        let record = read(file).expect("it was read before").incident;
        let is_head = |entry: &Value| entry.get("Event").is_some();
        for at in (0..entries.len()).filter(|at| is_head(&entries[*at])) {
            let deeds = entries[at + 1..].iter().take_while(|entry| entry.get("Deed").is_some()).count();
            if !leaves_a_trace(&entries[at], &entries[at + 1..at + 1 + deeds], &record) {
                continue;
            }
            let mut changed = whole.clone();
            let left = [&entries[..at], &entries[at + 1 + deeds..]].concat();
            changed["replay"]["Episode"]["entries"] = Value::Array(left);
            let (episode, _) = read_episode(&serde_json::to_vec(&changed).expect("JSON")).expect("a list");
            if let Ok(Replay { difference: None, .. }) = replay(&episode, &record) {
                return Err(format!(
                    "incident {}: nobody misses {}",
                    record.number,
                    Value::Array(entries[at..=at + deeds].to_vec())
                ));
            }
            self.replayed.missed += 1;
        }
        Ok(())
    }
}

/// What is only looked at, listened to or warned of, what is only killed once more, and a service that is frozen for
/// what it was lent and dies all the same, nobody misses; nor that a second procedure came which did not end by itself.
fn leaves_a_trace(head: &Value, deeds: &[Value], record: &Incident) -> bool {
    let is_late = record.first_procedure.is_some()
        && !matches!(record.procedure, ProcedureResult::Ended(_))
        && ["Parked", "Emptied", "Exited"].iter().any(|name| head["Event"][1].get(name).is_some());
    let is_deadline = head["Event"][1] == "Deadline";
    let is_reading = head["Event"][1].get("MemorySampled").is_some();
    let is_any = |deed: &Value, names: &[&str]| names.iter().any(|name| deed["Deed"].get(name).is_some());
    let warns = ["Signal", "RunCommand", "NotifyPressure", "Reclaim"];
    let decides = |deed: &Value| {
        let is_again = is_deadline && is_any(deed, &["KillCgroup", "KillCommand"]);
        let is_warning = is_reading && is_any(deed, &warns);
        let looks = is_any(deed, &["Sample", "Doorbells", "Ring", "LookForPath"]);
        let comes_late = is_late && is_any(deed, &["ParkOtherwise", "StartProcedure"]);
        !looks && !is_again && !is_warning && !comes_late
    };
    let spends_a_loan = is_reading && deeds.len() == 1 && is_any(&deeds[0], &["Freeze"]);
    !spends_a_loan && deeds.iter().any(decides)
}
