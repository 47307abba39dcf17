//! The scripts of `tests/scenarios/*.ron`: units in short form, then steps of (time, event, expected actions).
//!
//! An event without `OfRun` is about the unit's present run. Actions are written as short lines, log records are left
//! out. A `Deadline` must come exactly when the engine wants it, and nothing else may come later than that.

use lifeboat::engine::action::{Action, Reply};
use lifeboat::engine::event::{
    ClientId, Effect, Event, Exit, MemoryEvents, MemorySample, Note, Role, ShutdownKind, SpawnStage, Time,
    Verb,
};
use lifeboat::engine::policy::{
    Class, Guard, HealthPolicy, Kind, MemoryPolicy, OnLimit, ProcedurePolicy, Ready, RestartPolicy,
    RestartWhen, RunId, Success, Then, UnitId, UnitPolicy,
};
use lifeboat::engine::snapshot::{Snapshot, SystemView, Trouble};
use lifeboat::engine::{Engine, Plan};
use serde::Deserialize;

const MIB: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    /// What this is about, for people.
    #[serde(rename = "about")]
    _about: String,
    #[serde(default = "reserve_mib")]
    reserve_mib: u64,
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Unit {
    name: String,
    kind: Kind,
    autostart: bool,
    requires: Vec<String>,
    after: Vec<String>,
    memory_mib: u64,
    guard: Guard,
    utility: u8,
    ready: Ready,
    start_timeout_ms: u32,
    watchdog_ms: u32,
    /// Interval, timeout, failures.
    health: Option<(u32, u32, u32)>,
    procedure: Option<Procedure>,
    stop_timeout_ms: u32,
    when: RestartWhen,
    limit_starts: u32,
    on_limit: OnLimit,
    success: Vec<Exit>,
    refused: bool,
}

impl Default for Unit {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: Kind::Service,
            autostart: true,
            requires: Vec::new(),
            after: Vec::new(),
            memory_mib: 0,
            guard: Guard::Shield,
            utility: 50,
            ready: Ready::Start,
            start_timeout_ms: 30_000,
            watchdog_ms: 0,
            health: None,
            procedure: None,
            stop_timeout_ms: 5_000,
            when: RestartWhen::Always,
            limit_starts: 5,
            on_limit: OnLimit::Stop,
            success: Vec::new(),
            refused: false,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Procedure {
    on_exhaustion: bool,
    on_stop: bool,
    on_failure: bool,
    deadline_ms: u32,
    memory_mib: u64,
    then: Then,
}

impl Default for Procedure {
    fn default() -> Self {
        Self {
            on_exhaustion: true,
            on_stop: false,
            on_failure: false,
            deadline_ms: 2_000,
            memory_mib: 4,
            then: Then::Restart,
        }
    }
}

/// An event in short form.
#[derive(Clone, Debug, Deserialize)]
pub(crate) enum What {
    Boot,
    Deadline,
    Parked(String),
    Spawned(String),
    SpawnFailed(String, Role, SpawnStage, i32),
    Ready(String),
    Notified(String, Note),
    Probed(String, bool),
    ProcedureRunning(String),
    Exited(String, Role, Exit),
    Emptied(String, Role),
    Frozen(String),
    Failed(String, Effect, i32),
    /// `oom` of the service has this value now.
    Oom(String, u64),
    /// `oom` and `oom_kill`.
    OomKill(String, u64, u64),
    Max(String, u64),
    ProcedureOomKill(String, u64),
    /// Unreclaimable bytes in KiB.
    Sampled(String, u64),
    PressureRang(String),
    Asked(u64, String, Verb),
    ClientGone(u64),
    ShutdownAsked(ShutdownKind),
    /// The event, but about this run.
    OfRun(u32, Box<What>),
}

/// The engine in the hands of a script.
pub(crate) struct Stage {
    pub(crate) engine: Engine,
    plan: Plan,
    names: Vec<String>,
    pub(crate) now: Time,
}

impl Stage {
    pub(crate) fn new(script: &Script) -> Self {
        let names: Vec<String> = script.units.iter().map(|unit| unit.name.clone()).collect();
        let policies = script.units.iter().map(|unit| policy(unit, &names)).collect();
        Self {
            engine: Engine::new(policies, script.reserve_mib * MIB),
            plan: Plan::for_units(names.len()),
            names,
            now: Time(0),
        }
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
        let event = self.event(what, None);
        self.engine.handle(self.now, event, &mut self.plan);
        let mut lines = Vec::new();
        while let Some(action) = self.plan.take() {
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
                let state = format!("{} {}", unit.name, format!("{:?}", unit.state).to_uppercase());
                unit.trouble.map_or(state.clone(), |trouble| format!("{state}: {trouble:?}"))
            })
            .collect();
        (units, incidents(&snapshot))
    }

    fn id(&self, name: &str) -> UnitId {
        let at = self.names.iter().position(|known| known == name);
        UnitId(at.map_or(u16::MAX, |at| u16::try_from(at).unwrap()))
    }

    fn event(&self, what: &What, of_run: Option<u32>) -> Event {
        let id = |name: &str| {
            let unit = self.id(name);
            let present = self.engine.run_of(unit).unwrap_or_default();
            (unit, of_run.map_or(present, RunId))
        };
        match what {
            What::Boot => Event::Boot,
            What::Deadline => Event::Deadline,
            What::Parked(name) => {
                let (unit, run) = id(name);
                Event::Parked { unit, run, pid: 200 + u32::from(unit.0) }
            }
            What::Spawned(name) => {
                let (unit, run) = id(name);
                Event::Spawned { unit, run, pid: 100 + u32::from(unit.0) }
            }
            What::SpawnFailed(name, role, stage, errno) => {
                let (unit, run) = id(name);
                Event::SpawnFailed { unit, run, role: *role, stage: *stage, errno: *errno }
            }
            What::Ready(name) | What::Notified(name, _) | What::Probed(name, _) => {
                Self::word_of_a_service(what, id(name))
            }
            What::ProcedureRunning(name) => {
                let (unit, run) = id(name);
                Event::ProcedureRunning { unit, run }
            }
            What::Exited(name, role, exit) => {
                let (unit, run) = id(name);
                Event::Exited { unit, run, role: *role, exit: *exit }
            }
            What::Emptied(name, role) => {
                let (unit, run) = id(name);
                Event::Emptied { unit, run, role: *role }
            }
            What::Frozen(name) => {
                let (unit, run) = id(name);
                Event::Frozen { unit, run }
            }
            What::Failed(name, effect, errno) => {
                let (unit, run) = id(name);
                Event::Failed { unit, run, effect: *effect, errno: *errno }
            }
            What::Oom(..) | What::OomKill(..) | What::Max(..) | What::ProcedureOomKill(..) => {
                Self::memory_event(what, id)
            }
            What::Sampled(name, kib) => {
                let (unit, run) = id(name);
                let sample = MemorySample { unreclaimable_bytes: kib << 10, ..Default::default() };
                Event::MemorySampled { unit, run, sample }
            }
            What::PressureRang(name) => {
                let (unit, run) = id(name);
                Event::PressureRang { unit, run }
            }
            What::Asked(client, name, verb) => {
                Event::Asked { client: ClientId(*client), unit: self.id(name), verb: *verb }
            }
            What::ClientGone(client) => Event::ClientGone { client: ClientId(*client) },
            What::ShutdownAsked(how) => Event::ShutdownAsked { how: *how },
            What::OfRun(run, what) => self.event(what, Some(*run)),
        }
    }

    fn word_of_a_service(what: &What, (unit, run): (UnitId, RunId)) -> Event {
        match what {
            What::Ready(_) => Event::Ready { unit, run },
            What::Notified(_, note) => Event::Notified { unit, run, note: *note },
            What::Probed(_, healthy) => Event::Probed { unit, run, healthy: *healthy },
            other => panic!("{other:?} is nothing that a service says"),
        }
    }

    fn memory_event(what: &What, id: impl Fn(&str) -> (UnitId, RunId)) -> Event {
        let zero = MemoryEvents::default();
        let (name, role, counters) = match what {
            What::Oom(name, oom) => (name, Role::Service, MemoryEvents { oom: *oom, max: *oom, ..zero }),
            What::OomKill(name, oom, oom_kill) => {
                (name, Role::Service, MemoryEvents { oom: *oom, oom_kill: *oom_kill, ..zero })
            }
            What::Max(name, max) => (name, Role::Service, MemoryEvents { max: *max, ..zero }),
            What::ProcedureOomKill(name, oom_kill) => {
                (name, Role::Procedure, MemoryEvents { oom_kill: *oom_kill, ..zero })
            }
            other => panic!("{other:?} is no memory event"),
        };
        let (unit, run) = id(name);
        Event::MemoryEvents { unit, run, role, counters }
    }

    /// An action in short form; a log record has none.
    fn line(&self, action: Action) -> Option<String> {
        let of = |unit: UnitId, run: RunId| format!("{}/{}", self.names[usize::from(unit.0)], run.0);
        Some(match action {
            Action::Park { unit, run } => format!("park {}", of(unit, run)),
            Action::Spawn { unit, run } => format!("spawn {}", of(unit, run)),
            Action::Probe { unit, run } => format!("probe {}", of(unit, run)),
            Action::EndProbe { unit, run } => format!("end probe {}", of(unit, run)),
            Action::LookForPath { unit, run } => format!("look {}", of(unit, run)),
            Action::Freeze { unit, run } => format!("freeze {}", of(unit, run)),
            Action::StartProcedure { unit, run, order } => format!(
                "save {} for {} of pid {} in {} ms",
                of(unit, run),
                order.cause.word(),
                order.main_pid,
                order.deadline_ms
            ),
            Action::Signal { unit, run, signal, reason } => {
                format!("signal {} {signal} {reason:?}", of(unit, run))
            }
            Action::KillCgroup { unit, run, role, reason } => {
                format!("kill {} {role:?} {reason:?}", of(unit, run))
            }
            Action::Sample { unit, run } => format!("sample {}", of(unit, run)),
            Action::Reply { client, reply } => {
                let reply: Reply = reply;
                format!("reply {} {reply:?}", client.0)
            }
            Action::Finish { how } => format!("finish {how:?}"),
            Action::Log(_) => return None,
        })
    }
}

fn incidents(snapshot: &Snapshot) -> Vec<String> {
    snapshot
        .incidents
        .iter()
        .map(|incident| {
            let name = &snapshot.names[usize::from(incident.unit.0)];
            let verdict = format!("{:?}", incident.verdict);
            let verdict = verdict.split(' ').next().unwrap_or_default();
            format!(
                "{} {name}/{} {:?} by {verdict}, killer {:?}, procedure {:?}",
                incident.number, incident.run.0, incident.cause, incident.killer, incident.procedure
            )
        })
        .collect()
}

fn policy(unit: &Unit, names: &[String]) -> UnitPolicy {
    let ids = |wanted: &[String]| {
        wanted
            .iter()
            .map(|name| {
                let at = names.iter().position(|known| known == name);
                UnitId(u16::try_from(at.unwrap_or_else(|| panic!("no unit {name}"))).unwrap())
            })
            .collect()
    };
    UnitPolicy {
        name: unit.name.clone(),
        description: String::new(),
        kind: unit.kind,
        autostart: unit.autostart,
        after: ids(&unit.after),
        requires: ids(&unit.requires),
        memory: (unit.memory_mib > 0).then_some(MemoryPolicy {
            max_bytes: unit.memory_mib * MIB,
            class: Class::Guaranteed,
            guard: unit.guard,
        }),
        utility: unit.utility,
        ready: unit.ready,
        start_timeout_ms: unit.start_timeout_ms,
        health: unit.health.map(|(interval_ms, timeout_ms, failures)| HealthPolicy {
            interval_ms,
            timeout_ms,
            failures,
        }),
        watchdog_ms: (unit.watchdog_ms > 0).then_some(unit.watchdog_ms),
        procedure: unit.procedure.as_ref().map(|procedure| ProcedurePolicy {
            on_exhaustion: procedure.on_exhaustion,
            on_stop: procedure.on_stop,
            on_failure: procedure.on_failure,
            deadline_ms: procedure.deadline_ms,
            memory_bytes: procedure.memory_mib * MIB,
            then: procedure.then,
        }),
        success: unit.success.iter().fold(Success::default(), |mut success, exit| {
            success.add(*exit);
            success
        }),
        stop_signal: 15,
        stop_timeout_ms: unit.stop_timeout_ms,
        restart: RestartPolicy {
            when: unit.when,
            delay_ms: 100,
            max_delay_ms: 30_000,
            limit_starts: unit.limit_starts,
            limit_within_ms: 60_000,
            on_limit: unit.on_limit,
        },
        refused: unit.refused.then_some(Trouble::BadUnit),
    }
}

/// Reads a script.
pub(crate) fn parse(text: &str) -> Result<Script, String> {
    ron::Options::default()
        .with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME)
        .from_str(text)
        .map_err(|error| error.to_string())
}
