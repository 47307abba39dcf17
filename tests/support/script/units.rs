//! The units of a script in short form.

use super::{MIB, id_in};
use lifeboat::engine::event::Exit;
use lifeboat::engine::policy::{
    Class, DescriptorPolicy, Escalation, ExhaustionBudget, Guard, HealthPolicy, Kind, MemoryPolicy,
    ProcedurePolicy, Ready, RestartPolicy, RestartWhen, Success, UnitId, UnitPolicy,
};
use lifeboat::engine::snapshot::Trouble;
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Unit {
    pub(super) name: String,
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
    sockets: Vec<String>,
    on_demand: bool,
    idle_stop_ms: u32,
    store_max: u16,
    stop_timeout_ms: u32,
    when: RestartWhen,
    limit_starts: u32,
    on_limit: After,
    /// Times, window in ms, and what comes then.
    exhaustion: Option<(u32, u32, After)>,
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
            sockets: Vec::new(),
            on_demand: false,
            idle_stop_ms: 0,
            store_max: 0,
            stop_timeout_ms: 5_000,
            when: RestartWhen::Always,
            limit_starts: 5,
            on_limit: After::Stop,
            exhaustion: None,
            success: Vec::new(),
            refused: false,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Procedure {
    on_exhaustion: bool,
    on_stop: bool,
    on_failure: bool,
    deadline_ms: u32,
    memory_mib: u64,
    then: After,
}

impl Default for Procedure {
    fn default() -> Self {
        Self {
            on_exhaustion: true,
            on_stop: false,
            on_failure: false,
            deadline_ms: 2_000,
            memory_mib: 4,
            then: After::Restart,
        }
    }
}

/// What comes after an end: as in unit files.
#[derive(Clone, Debug, Deserialize)]
enum After {
    Restart,
    Stop,
    Fallback(String),
    Reboot,
    PowerOff,
    Rescue,
}

impl After {
    fn escalation(&self, names: &[String]) -> Option<Escalation> {
        Some(match self {
            Self::Restart => return None,
            Self::Stop => Escalation::Stop,
            Self::Fallback(name) => Escalation::Fallback(id_in(names, name)),
            Self::Reboot => Escalation::Reboot,
            Self::PowerOff => Escalation::PowerOff,
            Self::Rescue => Escalation::Rescue,
        })
    }
}

pub(super) fn policy(unit: &Unit, names: &[String]) -> UnitPolicy {
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
        descriptors: DescriptorPolicy {
            sockets: unit.sockets.clone(),
            on_demand: unit.on_demand,
            idle_stop_ms: (unit.idle_stop_ms > 0).then_some(unit.idle_stop_ms),
            store_max: unit.store_max,
        },
        procedure: unit.procedure.as_ref().map(|procedure| ProcedurePolicy {
            on_exhaustion: procedure.on_exhaustion,
            on_stop: procedure.on_stop,
            on_failure: procedure.on_failure,
            deadline_ms: procedure.deadline_ms,
            memory_bytes: procedure.memory_mib * MIB,
            then: procedure.then.escalation(names),
        }),
        success: unit.success.iter().fold(Success::default(), |mut success, exit| {
            success.add(*exit);
            success
        }),
        stop_signal: 15,
        stop_timeout_ms: unit.stop_timeout_ms,
        restart: RestartPolicy {
            when: unit.when,
            limit_starts: unit.limit_starts,
            limit_within_ms: 60_000,
            on_limit: unit.on_limit.escalation(names).unwrap_or_default(),
            exhaustion: unit.exhaustion.as_ref().map_or_else(ExhaustionBudget::default, |budget| {
                let (times, within_ms, then) = budget;
                ExhaustionBudget { times: *times, within_ms: *within_ms, then: then.escalation(names) }
            }),
            ..RestartPolicy::default()
        },
        refused: unit.refused.then_some(Trouble::BadUnit),
    }
}
