//! A machine with little memory: it boots, and the promise holds.

use super::Case;
use crate::guest::{Guest, all_saved, ensure, expect};
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{Cause, Desired, Killer, ProcedureResult, StateName};
use std::fs;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "small-boots-whole", deadline_s: 30, run: boots_whole },
    Case { name: "small-boots-its-target", deadline_s: 30, run: boots_its_target },
    Case { name: "small-loses-nothing", deadline_s: 120, run: loses_nothing },
    Case { name: "pool-is-exhausted", deadline_s: 120, run: pool_is_exhausted },
];

fn boots_whole(guest: &mut Guest) -> Result<(), String> {
    let snapshot = guest.status()?;
    guest.figure(&format!("small: {:?}", snapshot.system.budget));
    expect("degraded", &snapshot.system.degraded, &vec![])?;
    expect("faults", &snapshot.system.faults, &vec![])?;
    guest.wait_state("neighbour", StateName::Running, Duration::from_secs(10)).map(drop)
}

/// As system.ron names it.
fn boots_its_target(guest: &mut Guest) -> Result<(), String> {
    let spare = guest.unit("spare")?;
    expect("what the target does not need", &(spare.state, spare.run.0), &(StateName::Stopped, 0))?;
    expect("the target", &guest.unit("small")?.desired, &Desired::Up)
}

fn loses_nothing(guest: &mut Guest) -> Result<(), String> {
    let (unit, kills, neighbour) = ("recorder", guest.kernel_kills()?, guest.unit("neighbour")?);
    for round in 1..=3 {
        let before = guest.last_incident()?;
        guest.start(unit)?;
        let incident = guest.wait_incident(unit, before, Duration::from_secs(60))?;
        expect("who ended the service", &incident.killer, &Killer::Lifeboat)?;
        expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
        all_saved(unit, &incident).map_err(|error| format!("round {round}: {error}"))?;
    }
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    let now = guest.unit("neighbour")?;
    ensure(now.run == neighbour.run && now.state == StateName::Running, || {
        format!("the neighbour is {:?}, run {}", now.state, now.run.0)
    })
}

/// No unit has met a bound of its own: the kernel takes ballasts, and who is not shielded, and lifeboat says whose
/// memory it was. Who has only lost its ballast goes on. What is killed is freed a while after the kernel's killer has
/// done with it, so that who asks the pool for memory meanwhile has it strike once more: the driver keeps out of it.
fn pool_is_exhausted(guest: &mut Guest) -> Result<(), String> {
    let move_to = |folder: &str| {
        let path = format!("/sys/fs/cgroup/{folder}cgroup.procs");
        fs::write(&path, "0").map_err(|error| format!("{path}: {error}"))
    };
    move_to("")?;
    let outcome = outgrow_the_pool(guest);
    move_to("pool/driver/")?;
    outcome
}

fn outgrow_the_pool(guest: &mut Guest) -> Result<(), String> {
    let (unit, bystanders) = ("outgrows-the-pool", ["neighbour", "canary"]);
    guest.start("canary")?;
    let holds = || fs::exists("/run/canary-holds").is_ok_and(|holds| holds).then_some(());
    guest.until("the canary does not hold its memory", Duration::from_secs(20), holds)?;
    // As much as the pool has; the others take more of it than its overhead.
    let pool_bytes = guest.status()?.system.budget.pool_bytes >> 12 << 12;
    let (code, told) =
        crate::guest::run(&["/usr/bin/lifeboatctl", "limit", unit, &format!("memory.max={pool_bytes}")])?;
    expect(&format!("exit code of limit ({told:?})"), &code, &0)?;
    let runs = bystanders.map(|name| guest.unit(name).map(|unit| unit.run));
    for round in 1..=3 {
        let before = guest.last_incident()?;
        guest.start(unit)?;
        let incident = guest.wait_incident(unit, before, Duration::from_secs(60))?;
        expect("cause", &incident.cause, &Cause::KernelOomKill)?;
        expect("who ended the service", &incident.killer, &Killer::KernelOutside)?;
        expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
        all_saved(unit, &incident).map_err(|error| format!("round {round}: {error}"))?;
        guest.wait_state(unit, StateName::Stopped, Duration::from_secs(10)).map(drop)?;
    }
    for (name, run) in bystanders.into_iter().zip(runs) {
        let now = guest.unit(name)?;
        ensure(Ok(now.run) == run && now.state == StateName::Running, || {
            format!("{name} is {:?}, run {}", now.state, now.run.0)
        })?;
    }
    let told = crate::guest::run(&["/usr/bin/lifeboatctl", "why", unit])?.1;
    ensure(told.contains("because memory ran out above the unit"), || told)?;
    guest.stop("canary")
}
