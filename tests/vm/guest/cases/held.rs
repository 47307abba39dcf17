//! Units that their own `memory.high` throttles to a standstill.

use super::Case;
use crate::cast::field;
use crate::guest::{Guest, all_saved, ensure, expect, read, run};
use lifeboat::engine::snapshot::{Killer, Verdict};
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "held-at-memory-high", deadline_s: 150, run: held_at_memory_high },
    Case { name: "held-without-a-procedure", deadline_s: 150, run: held_without_a_procedure },
];

/// The average of ten seconds is above 80 % after some 16 s of a whole standstill.
const HELD: Duration = Duration::from_secs(90);

/// memory.max is far away, so the kernel never says that anything is wrong: the procedure runs all the same.
fn held_at_memory_high(guest: &mut Guest) -> Result<(), String> {
    let unit = "held-at-high";
    let (bystander, kills, before) = (guest.bystander()?, guest.kernel_kills()?, guest.last_incident()?);
    guest.start(unit)?;
    let incident = guest.wait_incident(unit, before, HELD)?;
    ensure(matches!(incident.verdict, Verdict::HeldAtHigh { high_bytes: 0x80_0000, .. }), || {
        format!("{:?}", incident.verdict)
    })?;
    guest.figure(&format!("{unit}: {:?}", incident.verdict));
    expect("max and oom", &(incident.counters.max, incident.counters.oom), &(0, 0))?;
    expect("who ended the service", &incident.killer, &Killer::Lifeboat)?;
    all_saved(unit, &incident)?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    let (_, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
    ensure(text.contains("evidence: held at memory.high 8 MiB"), || text.clone())?;
    ensure(text.contains("raise memory.high or drop it"), || text)?;
    bystander.is_unharmed(guest)
}

/// Nothing could be saved, so it is named, once, and left alone.
fn held_without_a_procedure(guest: &mut Guest) -> Result<(), String> {
    let (unit, before) = ("held-for-good", guest.last_incident()?);
    guest.start(unit)?;
    let told = || {
        let (_, log) = run(&["/bin/busybox", "dmesg"]).ok()?;
        log.contains(&format!("{unit}: held at memory.high 8 MiB")).then_some(())
    };
    guest.until("the log does not say that it is held", HELD, told).map_err(|error| {
        let memory = guest.unit(unit).ok().and_then(|unit| unit.memory);
        format!("{error}: {memory:?}")
    })?;
    // It goes on, and is not told again.
    std::thread::sleep(Duration::from_secs(5));
    let (_, text) = run(&["/usr/bin/lifeboatctl", "status", unit])?;
    ensure(text.contains("RUNNING") && text.contains(", held at memory.high 8 MiB"), || text)?;
    let (_, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
    ensure(text.contains("  held at memory.high 8 MiB: "), || text.clone())?;
    ensure(text.contains("raise memory.high or drop it"), || text)?;
    let (_, log) = run(&["/bin/busybox", "dmesg"])?;
    expect("lines", &log.matches(&format!("{unit}: held at")).count(), &1)?;
    expect("incidents", &guest.last_incident()?, &before)?;
    let events = read(&format!("/sys/fs/cgroup/pool/{unit}/memory.events.local"))?;
    let (high, max) = (field(&events, "high").unwrap_or(0), field(&events, "max").unwrap_or(1));
    guest.figure(&format!("{unit}: high {high}, max {max}"));
    expect("max in memory.events.local", &max, &0)?;
    guest.stop(unit)
}
