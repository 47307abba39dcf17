//! Random unit tables for the simulation: from 1 to 12 units, ordered without a circle.

use crate::rng::Rng;
use lifeboat::engine::event::Exit;
use lifeboat::engine::policy::{
    Class, DescriptorPolicy, Escalation, ExhaustionBudget, Guard, HealthPolicy, Kind, MemoryPolicy,
    OnRequirementRestart, ProcedurePolicy, Ready, ReloadPolicy, RestartPolicy, RestartWhen, ServiceMode,
    Success, UnitId, UnitPolicy, WarnDeed, WarnPolicy, WarnStage, WarnWhen,
};
use lifeboat::engine::snapshot::Trouble;

const MIB: u64 = 1 << 20;

/// The memory that procedures may use together.
pub(crate) const RESERVE_BYTES: u64 = 8 * MIB;

/// A unit only requires, and comes after, units with a smaller key; the keys are shuffled so that the order in the
/// table says nothing. Gives the keys too.
pub(crate) fn random_units(rng: &mut Rng) -> (Vec<UnitPolicy>, Vec<u64>) {
    let count = u16::try_from(rng.between(1, 12)).unwrap();
    let keys: Vec<u64> = (0..count).map(|_| rng.next()).collect();
    let share = rng.pick(&[0, 100, 250, 400]);
    let units = (0..count)
        .map(|id| {
            let before: Vec<UnitId> =
                (0..count).filter(|&o| keys[usize::from(o)] < keys[usize::from(id)]).map(UnitId).collect();
            let later: Vec<UnitId> =
                (0..count).filter(|&o| keys[usize::from(o)] > keys[usize::from(id)]).map(UnitId).collect();
            let others: Vec<UnitId> = (0..count).filter(|&o| o != id).map(UnitId).collect();
            let mut some =
                |of: &[UnitId], share| of.iter().copied().filter(|_| rng.per_mille(share)).collect();
            let requires = some(&before, share);
            let wants = some(&before, share / 2);
            let after = some(&before, share);
            let said_before = some(&later, share / 2);
            let conflicts = some(&others, share / 8);
            let unit = random_unit(rng, id, &before);
            UnitPolicy { requires, wants, after, before: said_before, conflicts, ..unit }
        })
        .collect();
    (units, keys)
}

fn random_descriptors(rng: &mut Rng, kind: Kind) -> DescriptorPolicy {
    let mut policy = DescriptorPolicy::default();
    if kind == Kind::Target {
        return policy;
    }
    policy.store_max = rng.pick(&[0, 0, 0, 3]);
    if rng.per_mille(400) {
        policy.sockets.push("http".into());
        policy.on_demand = kind == Kind::Service && rng.per_mille(700);
        policy.idle_stop_ms = (policy.on_demand && rng.per_mille(600)).then(|| rng.pick(&[1_000, 10_000]));
    }
    policy
}

/// What comes when it is given up. A fallback has a smaller key too, so that none leads back.
fn escalations(rng: &mut Rng, unit: &mut UnitPolicy, before: &[UnitId]) {
    let mut then = |often: &[Escalation]| {
        let fallback = Escalation::Fallback(if before.is_empty() { UnitId(0) } else { rng.pick(before) });
        match rng.between(0, 9) {
            0..=2 if !before.is_empty() => fallback,
            3 => rng.pick(&[Escalation::Rescue, Escalation::Reboot]),
            _ => rng.pick(often),
        }
    };
    unit.restart.on_limit = then(&[Escalation::Stop]);
    let budget = then(&[Escalation::Stop]);
    let procedure = then(&[Escalation::Stop]);
    if rng.per_mille(500) {
        unit.restart.exhaustion = ExhaustionBudget {
            times: u32::try_from(rng.between(1, 4)).unwrap(),
            within_ms: rng.pick(&[1_000, 60_000, 600_000]),
            then: rng.per_mille(700).then_some(budget),
        };
    }
    if rng.per_mille(400)
        && let Some(own) = &mut unit.procedure
    {
        own.then = Some(procedure);
    }
}

/// The unit for the rescue, in most worlds.
pub(crate) fn random_rescue(rng: &mut Rng, units: &[UnitPolicy]) -> Option<UnitId> {
    let unit = UnitId(u16::try_from(rng.between(0, units.len() as u64 - 1)).unwrap());
    rng.per_mille(700).then_some(unit)
}

fn random_memory(rng: &mut Rng) -> MemoryPolicy {
    let max_bytes = rng.between(4, 64) * MIB;
    let class = rng.pick(&[Class::Guaranteed, Class::Pool]);
    let guard = rng.pick(&[Guard::Shield, Guard::Shield, Guard::Shield, Guard::None, Guard::Canary]);
    let high_bytes = (guard == Guard::None).then_some(max_bytes / 2);
    MemoryPolicy { max_bytes, class, guard, high_bytes, ballast_bytes: None }
}

/// Its fallbacks are among these units; it names no others.
pub(crate) fn random_unit(rng: &mut Rng, id: u16, before: &[UnitId]) -> UnitPolicy {
    let kind = match rng.between(0, 9) {
        0..2 => Kind::Task,
        2 => Kind::Target,
        _ => Kind::Service,
    };
    let runs = kind != Kind::Target;
    let memory = (runs && rng.per_mille(750)).then(|| random_memory(rng));
    let procedure = (runs && rng.per_mille(650)).then(|| random_procedure(rng));
    let ready = random_ready(rng, kind);
    let mut success = Success::default();
    if rng.per_mille(200) {
        success.add(rng.pick(&[Exit::Code(1), Exit::Signal(15), Exit::Signal(11)]));
    }
    let mut unit = UnitPolicy {
        name: format!("u{id:02}"),
        description: String::new(),
        kind,
        autostart: rng.per_mille(800),
        after: Vec::new(),
        before: Vec::new(),
        requires: Vec::new(),
        wants: Vec::new(),
        conflicts: Vec::new(),
        on_requirement_restart: rng.pick(&[OnRequirementRestart::Keep, OnRequirementRestart::Restart]),
        conditions: if rng.per_mille(200) { vec!["Init".into()] } else { Vec::new() },
        memory,
        warn: random_warn(rng),
        utility: u8::try_from(rng.between(0, 100)).unwrap(),
        ready,
        start_timeout_ms: rng.pick(&[500, 3_000, 30_000]),
        watchdog_ms: (kind == Kind::Service && rng.per_mille(250)).then(|| rng.pick(&[500, 5_000])),
        health: (kind == Kind::Service).then(|| random_health(rng)).flatten(),
        reload: (kind == Kind::Service).then(|| random_reload(rng)).flatten(),
        stop_command: rng.per_mille(300) && runs && procedure.is_none_or(|procedure| !procedure.on_stop),
        descriptors: random_descriptors(rng, kind),
        procedure,
        success,
        stop_signal: 15,
        stop_timeout_ms: rng.pick(&[100, 1_000, 5_000]),
        restart: RestartPolicy {
            when: rng.pick(&[
                RestartWhen::Always,
                RestartWhen::Always,
                RestartWhen::OnFailure,
                RestartWhen::OnExhaustion,
                RestartWhen::Never,
            ]),
            delay_ms: rng.pick(&[0, 10, 100, 500]),
            max_delay_ms: rng.pick(&[1_000, 5_000, 30_000]),
            limit_starts: u32::try_from(rng.between(1, 12)).unwrap(),
            limit_within_ms: rng.pick(&[1_000, 10_000, 60_000]),
            healthy_ms: rng.pick(&[100, 1_000, 10_000]),
            ..RestartPolicy::default()
        },
        refused: rng.per_mille(60).then_some(Trouble::BadUnit),
    };
    escalations(rng, &mut unit, before);
    unit
}

fn random_warn(rng: &mut Rng) -> WarnPolicy {
    let mut policy =
        WarnPolicy { timeout_ms: rng.pick(&[50, 2_000]), rings: rng.per_mille(900), ..WarnPolicy::default() };
    if rng.per_mille(700) {
        return policy;
    }
    for place in &mut policy.stages {
        *place = rng.per_mille(400).then(|| WarnStage {
            when: rng.pick(&[WarnWhen::Share(5_000), WarnWhen::Share(9_000), WarnWhen::WithinMs(10_000)]),
            deed: rng.pick(&[
                WarnDeed::Log,
                WarnDeed::Signal(10),
                WarnDeed::Run,
                WarnDeed::Run,
                WarnDeed::Notify,
                WarnDeed::Reclaim(MIB),
            ]),
            every_ms: rng.pick(&[10, 1_000, 10_000]),
        });
    }
    policy
}

fn random_health(rng: &mut Rng) -> Option<HealthPolicy> {
    rng.per_mille(300).then(|| HealthPolicy {
        interval_ms: rng.pick(&[1_000, 5_000]),
        timeout_ms: rng.pick(&[100, 2_000]),
        failures: u32::try_from(rng.between(1, 3)).unwrap(),
        command: rng.per_mille(600),
    })
}

fn random_reload(rng: &mut Rng) -> Option<ReloadPolicy> {
    rng.per_mille(300).then(|| ReloadPolicy {
        command: rng.per_mille(600),
        signal: 1,
        notifies: rng.per_mille(300),
        timeout_ms: rng.pick(&[50, 2_000]),
    })
}

fn random_ready(rng: &mut Rng, kind: Kind) -> Ready {
    if kind != Kind::Service || rng.per_mille(400) {
        return Ready::Start;
    }
    let delay_ms = rng.pick(&[1, 200, 2_000]);
    rng.pick(&[Ready::Notify, Ready::Notify, Ready::NotificationFd, Ready::Path, Ready::AfterMs(delay_ms)])
}

/// Some come so often that they meet everything else.
pub(crate) fn random_drills(rng: &mut Rng, service: ServiceMode) -> Option<u32> {
    let drills = service == ServiceMode::Frozen && rng.per_mille(400);
    drills.then(|| rng.pick(&[1_000, 1_000, 5_000, 60_000]))
}

fn random_procedure(rng: &mut Rng) -> ProcedurePolicy {
    let service = match rng.per_mille(400) {
        true => rng.pick(&[ServiceMode::Running, ServiceMode::Killed]),
        false => ServiceMode::Frozen,
    };
    let saves_itself = service == ServiceMode::Running;
    let has_program = !saves_itself || rng.per_mille(500);
    ProcedurePolicy {
        on_exhaustion: rng.per_mille(900),
        on_stop: rng.per_mille(400),
        on_failure: rng.per_mille(500),
        deadline_ms: rng.pick(&[50, 500, 2_000, 5_000]),
        // What is lent comes on top, out of the same reserve.
        memory_bytes: if has_program { rng.between(1, if saves_itself { 5 } else { 8 }) * MIB } else { 0 },
        service,
        lend_bytes: if saves_itself { rng.between(0, 3) * MIB } else { 0 },
        has_program,
        resident: has_program && rng.per_mille(300),
        drill_every_ms: random_drills(rng, service),
        has_otherwise: has_program && rng.per_mille(300),
        then: None,
    }
}
