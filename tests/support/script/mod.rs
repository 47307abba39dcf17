//! The scripts of `tests/scenarios/*.ron`: units in short form, then steps of (time, event, expected actions).
//!
//! An event without `OfRun` is about the unit's present run. Actions are written as short lines, log records are left
//! out. A `Deadline` must come exactly when the engine wants it, and nothing else may come later than that.

mod changes;
mod events;
mod lines;
mod units;

use events::What;
use lifeboat::engine::action::Action;
use lifeboat::engine::event::Time;
use lifeboat::engine::policy::{RunId, UnitId, UnitPolicy};
use lifeboat::engine::snapshot::{SystemView, Verdict};
use lifeboat::engine::{Engine, Plan};
use lines::incidents;
use serde::Deserialize;
use units::{Unit, policy};

const MIB: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    /// What this is about, for people.
    #[serde(rename = "about")]
    _about: String,
    #[serde(default = "reserve_mib")]
    reserve_mib: u64,
    /// The unit that `Rescue` starts.
    #[serde(default)]
    rescue: Option<String>,
    units: Vec<Unit>,
    pub(crate) steps: Vec<(u64, What, Vec<String>)>,
    /// One line for each unit: its state and, after a colon, what is the trouble.
    pub(crate) ends: Vec<String>,
    /// One line for each incident.
    #[serde(default)]
    pub(crate) incidents: Vec<String>,
}

fn reserve_mib() -> u64 {
    8
}

/// The engine in the hands of a script.
pub(crate) struct Stage {
    pub(crate) engine: Engine,
    plan: Plan,
    names: Vec<String>,
    /// The number of the last command of each unit.
    commands: Vec<RunId>,
    pub(crate) now: Time,
}

impl Stage {
    pub(crate) fn new(script: &Script) -> Self {
        let names: Vec<String> = script.units.iter().map(|unit| unit.name.clone()).collect();
        let mut engine = Engine::new(policies(script), script.reserve_mib * MIB);
        engine.set_rescue(script.rescue.as_ref().map(|name| id_in(&names, name)));
        let commands = vec![RunId(0); names.len()];
        Self { engine, plan: Plan::for_units(names.len()), names, commands, now: Time(0) }
    }

    /// Takes one step; gives the actions in short form, and what is wrong with the time, if anything.
    pub(crate) fn step(&mut self, at_ms: u64, what: &What) -> (Vec<String>, Option<String>) {
        self.now = Time(at_ms * 1_000);
        let due = self.engine.next_deadline();
        let wrong = match (what, due) {
            (What::Deadline, Some(due)) if due == self.now => None,
            (What::Deadline, _) => Some(format!("the deadline is due at {due:?}")),
            (_, Some(due)) if due < self.now => Some(format!("a deadline at {due:?} is passed over")),
            _ => None,
        };
        if let What::Reconfigure(changes) = what {
            self.reconfigure(changes);
        } else {
            let event = self.event(what, None);
            self.engine.handle(self.now, event, &mut self.plan);
        }
        let mut lines = Vec::new();
        while let Some(action) = self.plan.take() {
            if let Action::RunCommand { unit, run, .. } = action {
                self.commands[usize::from(unit.0)] = run;
            }
            lines.extend(self.line(action));
        }
        (lines, wrong)
    }

    /// The state that readers see.
    pub(crate) fn state_of(&self, name: &str) -> String {
        let snapshot = self.engine.snapshot(self.now, SystemView::default());
        let unit = snapshot.units.iter().find(|unit| unit.name == name);
        unit.map_or_else(String::new, |unit| format!("{:?}", unit.state).to_uppercase())
    }

    pub(crate) fn ends(&self) -> (Vec<String>, Vec<String>) {
        let snapshot = self.engine.snapshot(self.now, SystemView::default());
        let units = snapshot
            .units
            .iter()
            .map(|unit| {
                let mut state = format!("{} {}", unit.name, format!("{:?}", unit.state).to_uppercase());
                if !unit.refused_settings.is_empty() {
                    let names: Vec<&str> =
                        unit.refused_settings.iter().map(|refused| refused.setting.as_str()).collect();
                    state = format!("{state}, without {}", names.join(", "));
                }
                match unit.memory.as_ref().and_then(|memory| memory.stall) {
                    Some(Verdict::HeldAtHigh { .. }) => state += ", held at memory.high",
                    Some(_) => state += ", thrashing",
                    None => {}
                }
                if unit.memory.as_ref().is_some_and(|memory| memory.unguarded) {
                    state += ", unguarded";
                }
                if unit.reloading {
                    state += ", reloading";
                }
                unit.trouble.map_or(state.clone(), |trouble| format!("{state}: {trouble:?}"))
            })
            .collect();
        (units, incidents(&snapshot))
    }

    fn id(&self, name: &str) -> UnitId {
        id_in(&self.names, name)
    }
}

/// The place of the unit; a name that is not in the script stands for one that nobody has.
fn id_in(names: &[String], name: &str) -> UnitId {
    let at = names.iter().position(|known| known == name);
    UnitId(at.map_or(u16::MAX, |at| u16::try_from(at).unwrap()))
}

/// Its units, as the engine takes them.
pub(crate) fn policies(script: &Script) -> Vec<UnitPolicy> {
    let names: Vec<String> = script.units.iter().map(|unit| unit.name.clone()).collect();
    script.units.iter().map(|unit| policy(unit, &names)).collect()
}

/// Reads a script.
pub(crate) fn parse(text: &str) -> Result<Script, String> {
    ron::Options::default()
        .with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME)
        .from_str(text)
        .map_err(|error| error.to_string())
}
