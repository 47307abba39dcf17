//! A machine with little memory: it boots, and the promise holds.

use super::Case;
use crate::guest::{Guest, all_saved, ensure, expect};
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{Desired, Killer, ProcedureResult, StateName};
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "small-boots-whole", deadline_s: 30, run: boots_whole },
    Case { name: "small-boots-its-target", deadline_s: 30, run: boots_its_target },
    Case { name: "small-loses-nothing", deadline_s: 120, run: loses_nothing },
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
