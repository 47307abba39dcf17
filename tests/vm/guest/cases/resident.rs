//! Resident procedures: their program runs before it is needed.

use super::Case;
use crate::guest::{Guest, all_saved, expect, read, run, saved_path};
use crate::saved::beside;
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{Incident, ProcedureResult, StateName};
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "resident-saves-all", deadline_s: 120, run: saves_all },
    Case { name: "resident-shell", deadline_s: 120, run: shell },
    Case { name: "private-memory-is-saved", deadline_s: 120, run: |g| private(g, "private") },
    Case {
        name: "private-memory-is-saved-by-a-resident",
        deadline_s: 120,
        run: |g| private(g, "private-resident"),
    },
    Case { name: "resident-goes-with-its-run", deadline_s: 60, run: goes_with_its_run },
    Case { name: "resident-dies-while-it-waits", deadline_s: 120, run: dies },
];

const SHELL: &str = "resident-shell";

fn exhausted(guest: &Guest, unit: &str, before: u32) -> Result<Incident, String> {
    let incident = guest.wait_incident(unit, before, Duration::from_secs(40))?;
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    all_saved(unit, &incident)?;
    Ok(incident)
}

/// From the release to the procedure's first instruction, in microseconds, the median of some exhaustions.
fn median_us(guest: &Guest, unit: &str) -> Result<u64, String> {
    let mut times = Vec::new();
    for _ in 0..7 {
        let before = guest.last_incident()?;
        guest.start(unit)?;
        let incident = exhausted(guest, unit, before)?;
        let began = read(&beside(&saved_path(unit), ".stamp").display().to_string())?;
        let began_us: u64 = began.trim().parse().map_err(|_| format!("no number: {began}"))?;
        times.push(began_us.saturating_sub(incident.released.ok_or("not released")?.0));
        guest.stop(unit)?;
    }
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or(0))
}

fn saves_all(guest: &mut Guest) -> Result<(), String> {
    let (resident, parked) = (median_us(guest, "resident")?, median_us(guest, "leak-flat-out")?);
    guest.figure(&format!(
        "release to the first instruction: resident {resident} us, parked {parked} us (medians)"
    ));
    Ok(())
}

fn process(unit: &str) -> Result<String, String> {
    Ok(read(&format!("/sys/fs/cgroup/shutdown/{unit}/cgroup.procs"))?.trim().to_owned())
}

/// A drill ends it, and its exhaustion finds another in its place.
fn shell(guest: &mut Guest) -> Result<(), String> {
    let before = guest.last_incident()?;
    guest.start(SHELL)?;
    let first = process(SHELL)?;
    expect("its program", &read(&format!("/proc/{first}/comm"))?.trim(), &"sh")?;
    let (code, text) = run(&["/bin/sh", "-c", "/usr/bin/lifeboatctl drill resident-shell 2>&1"])?;
    guest.figure(text.trim());
    expect("exit code of the drill", &code, &0)?;
    expect("another process", &(process(SHELL)? == first), &false)?;
    exhausted(guest, SHELL, before)?;
    let told = read("/run/resident-shell/told")?;
    let line = |reason: &str| format!("{SHELL} {reason} 10000 recorder\n");
    expect("what it was told", &told, &(line("drill") + &line("exhaustion")))?;
    guest.stop(SHELL)
}

/// One that stood for longer than a healthy run is replaced; the service goes on.
fn dies(guest: &mut Guest) -> Result<(), String> {
    let before = guest.last_incident()?;
    guest.start(SHELL)?;
    let up = guest.unit(SHELL)?;
    let first = process(SHELL)?;
    std::thread::sleep(Duration::from_millis(1_500));
    run(&["/bin/sh", "-c", &format!("kill -9 {first}")])?;
    let other = || process(SHELL).ok().filter(|pid| !pid.is_empty() && *pid != first);
    guest.until("no other procedure", Duration::from_secs(20), other)?;
    let now = guest.unit(SHELL)?;
    expect("state", &now.state, &StateName::Running)?;
    expect("process and run", &(now.pid, now.run), &(up.pid, up.run))?;
    exhausted(guest, SHELL, before)?;
    guest.stop(SHELL)
}

/// A restart leaves nothing of it behind, and no more than one is charged to its memory.
fn goes_with_its_run(guest: &mut Guest) -> Result<(), String> {
    let unit = "resident-child";
    let both = || process(unit).ok().filter(|pids| pids.lines().count() == 2);
    let wait = || guest.until("not a shell and its child", Duration::from_secs(10), both);
    guest.start(unit)?;
    let first = wait()?;
    guest.ask("Restart", unit)?;
    let second = wait()?;
    let left = first.lines().filter(|pid| second.lines().any(|new| new == *pid)).count();
    expect(&format!("left of {first:?} in {second:?}"), &left, &0)?;
    guest.stop(unit)
}

/// What is read out of a service's own memory: all of its last records.
fn private(guest: &mut Guest, unit: &str) -> Result<(), String> {
    let before = guest.last_incident()?;
    guest.start(unit)?;
    let incident = guest.wait_incident(unit, before, Duration::from_secs(40))?;
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    let numbers = |path: String| -> Result<Vec<u64>, String> {
        let bytes = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok(bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
            .collect())
    };
    let witness = numbers(format!("/run/{unit}.witness"))?;
    let last = *witness.last().ok_or("no witness")?;
    let saved = numbers(format!("/run/{unit}.saved"))?;
    let known = (last.saturating_sub(999)..=last).filter(|number| saved.contains(number)).count();
    guest.figure(&format!("saved {known} of the 1000 records before {last} out of private memory"));
    expect("records saved", &known, &1_000)?;
    guest.stop(unit)
}
