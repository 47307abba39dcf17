//! The units of a script in short form.

use super::{MIB, id_in};
use lifeboat::engine::event::Exit;
use lifeboat::engine::policy::{
    Class, DescriptorPolicy, Escalation, ExhaustionBudget, Guard, HealthPolicy, Kind, MemoryPolicy,
    OnRequirementRestart, ProcedurePolicy, Ready, ReloadPolicy, RestartPolicy, RestartWhen, ServiceMode,
    Success, UnitId, UnitPolicy, WarnPolicy, WarnStage,
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
    wants: Vec<String>,
    after: Vec<String>,
    before: Vec<String>,
    conflicts: Vec<String>,
    on_requirement_restart: OnRequirementRestart,
    conditions: Vec<String>,
    memory_mib: u64,
    high_mib: u64,
    guard: Guard,
    ballast_mib: u64,
    warn: Vec<WarnStage>,
    utility: u8,
    ready: Ready,
    start_timeout_ms: u32,
    watchdog_ms: u32,
    /// Interval, timeout, failures.
    health: Option<(u32, u32, u32)>,
    /// The health check is a command.
    health_command: bool,
    stop_command: bool,
    reload: Option<Reload>,
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
            wants: Vec::new(),
            after: Vec::new(),
            before: Vec::new(),
            conflicts: Vec::new(),
            on_requirement_restart: OnRequirementRestart::Keep,
            conditions: Vec::new(),
            memory_mib: 0,
            high_mib: 0,
            guard: Guard::Shield,
            ballast_mib: 0,
            warn: Vec::new(),
            utility: 50,
            ready: Ready::Start,
            start_timeout_ms: 30_000,
            watchdog_ms: 0,
            health: None,
            health_command: false,
            stop_command: false,
            reload: None,
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
struct Reload {
    command: bool,
    notifies: bool,
    timeout_ms: u32,
}

impl Default for Reload {
    fn default() -> Self {
        Self { command: false, notifies: false, timeout_ms: 5_000 }
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
    service: ServiceMode,
    lend_mib: u64,
    has_program: bool,
    resident: bool,
    drill_every_ms: u32,
    has_otherwise: bool,
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
            service: ServiceMode::Frozen,
            lend_mib: 0,
            has_program: true,
            resident: false,
            drill_every_ms: 0,
            has_otherwise: false,
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

fn descriptors(unit: &Unit) -> DescriptorPolicy {
    DescriptorPolicy {
        sockets: unit.sockets.clone(),
        on_demand: unit.on_demand,
        idle_stop_ms: (unit.idle_stop_ms > 0).then_some(unit.idle_stop_ms),
        store_max: unit.store_max,
    }
}

fn warn(unit: &Unit) -> WarnPolicy {
    let mut policy = WarnPolicy { timeout_ms: 2_000, rings: true, ..WarnPolicy::default() };
    for (place, stage) in policy.stages.iter_mut().zip(&unit.warn) {
        *place = Some(*stage);
    }
    policy
}

fn health(unit: &Unit) -> Option<HealthPolicy> {
    let (interval_ms, timeout_ms, failures) = unit.health?;
    Some(HealthPolicy { interval_ms, timeout_ms, failures, command: unit.health_command })
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
        before: ids(&unit.before),
        requires: ids(&unit.requires),
        wants: ids(&unit.wants),
        conflicts: ids(&unit.conflicts),
        on_requirement_restart: unit.on_requirement_restart,
        conditions: unit.conditions.clone(),
        memory: (unit.memory_mib > 0).then_some(MemoryPolicy {
            max_bytes: unit.memory_mib * MIB,
            class: Class::Guaranteed,
            guard: unit.guard,
            high_bytes: (unit.high_mib > 0).then_some(unit.high_mib * MIB),
            ballast_bytes: (unit.ballast_mib > 0).then_some(unit.ballast_mib * MIB),
        }),
        warn: warn(unit),
        utility: unit.utility,
        ready: unit.ready,
        start_timeout_ms: unit.start_timeout_ms,
        health: health(unit),
        stop_command: unit.stop_command,
        reload: unit.reload.as_ref().map(|reload| ReloadPolicy {
            command: reload.command,
            signal: 1,
            notifies: reload.notifies,
            timeout_ms: reload.timeout_ms,
        }),
        watchdog_ms: (unit.watchdog_ms > 0).then_some(unit.watchdog_ms),
        descriptors: descriptors(unit),
        procedure: unit.procedure.as_ref().map(|it| procedure(it, names)),
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

fn procedure(procedure: &Procedure, names: &[String]) -> ProcedurePolicy {
    ProcedurePolicy {
        on_exhaustion: procedure.on_exhaustion,
        on_stop: procedure.on_stop,
        on_failure: procedure.on_failure,
        deadline_ms: procedure.deadline_ms,
        memory_bytes: if procedure.has_program { procedure.memory_mib * MIB } else { 0 },
        service: procedure.service,
        lend_bytes: procedure.lend_mib * MIB,
        has_program: procedure.has_program,
        resident: procedure.resident,
        drill_every_ms: (procedure.drill_every_ms > 0).then_some(procedure.drill_every_ms),
        has_otherwise: procedure.has_otherwise,
        then: procedure.then.escalation(names),
    }
}
