//! Limits that are changed while a unit runs. No change may lead to a kill by the kernel.

use super::Case;
use crate::guest::{Guest, ensure, expect, read, run};
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{ProcedureResult, StateName, Verdict};
use std::path::Path;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "limit-lowered-above-use", deadline_s: 60, run: |g| each(g, lowered_above_use) },
    Case { name: "limit-below-use-is-refused", deadline_s: 60, run: |g| each(g, below_use_is_refused) },
    Case { name: "limit-below-use-is-rescued", deadline_s: 90, run: |g| each(g, below_use_is_rescued) },
    Case { name: "limits-change-at-once", deadline_s: 40, run: change_at_once },
    Case { name: "limit-over-budget", deadline_s: 30, run: over_budget },
];

/// With what a unit with 12 MiB of its own is measured.
const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(20);

fn each(guest: &mut Guest, case: fn(&Guest, &str) -> Result<(), String>) -> Result<(), String> {
    for unit in ["holds-shielded", "holds-open"] {
        let held = format!("/run/{unit}.held");
        let _ = std::fs::remove_file(&held);
        guest.start(unit)?;
        let there = || Path::new(&held).exists().then_some(());
        guest.until(&format!("{unit} does not hold its memory"), SOON, there)?;
        case(guest, unit).map_err(|error| format!("{unit}: {error}"))?;
        guest.stop(unit)?;
        // The next case begins with the limit of the file.
        limit(unit, &["memory.max=32MiB"], 0, "is from its next start on 32 MiB")?;
    }
    Ok(())
}

/// What `lifeboatctl limit` says, with this exit code.
pub(crate) fn limit(unit: &str, words: &[&str], code: i32, part: &str) -> Result<(), String> {
    let (found, text) = run(&[&["/usr/bin/lifeboatctl", "limit", unit], words].concat())?;
    ensure(found == code && text.contains(part), || {
        format!("exit code {found} instead of {code}, {text:?} instead of {part:?}")
    })
}

/// A number in a file of the unit's cgroup.
pub(crate) fn number(branch: &str, unit: &str, file: &str) -> Result<u64, String> {
    let path = format!("/sys/fs/cgroup/{branch}/{unit}/{file}");
    read(&path)?.trim().parse().map_err(|_| format!("{path} is no number"))
}

/// It runs as before, and is not held.
pub(crate) fn goes_on(
    guest: &Guest,
    (branch, unit): (&str, &str),
    pid: Option<u32>,
    kills: u64,
) -> Result<(), String> {
    let shown = guest.unit(unit)?;
    expect("state and pid", &(shown.state, shown.pid), &(StateName::Running, pid))?;
    expect("cgroup.freeze", &number(branch, unit, "cgroup.freeze")?, &0)?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)
}

fn lowered_above_use(guest: &Guest, unit: &str) -> Result<(), String> {
    let (pid, kills) = (guest.unit(unit)?.pid, guest.kernel_kills()?);
    limit(unit, &["memory.max=20MiB"], 0, "memory.max is 20 MiB")?;
    expect("memory.max", &number("pool", unit, "memory.max")?, &(20 * MIB))?;
    expect("shown", &guest.unit(unit)?.memory.map(|memory| memory.max_bytes), &Some(20 * MIB))?;
    goes_on(guest, ("pool", unit), pid, kills)?;
    // And back, and down again; and the next run has it too.
    limit(unit, &["memory.max=24MiB"], 0, "memory.max is 24 MiB")?;
    limit(unit, &["memory.max=18MiB"], 0, "memory.max is 18 MiB")?;
    goes_on(guest, ("pool", unit), pid, kills)?;
    guest.stop(unit)?;
    guest.start(unit)?;
    expect("memory.max of the next run", &number("pool", unit, "memory.max")?, &(18 * MIB))
}

fn below_use_is_refused(guest: &Guest, unit: &str) -> Result<(), String> {
    let (pid, kills) = (guest.unit(unit)?.pid, guest.kernel_kills()?);
    let incidents = guest.unit(unit)?.incidents;
    for value in ["memory.max=8MiB", "memory.max=64KiB", "memory.max=12MiB"] {
        limit(unit, &[value], 1, "are in use and cannot be reclaimed")?;
        expect("memory.max", &number("pool", unit, "memory.max")?, &(32 * MIB))?;
        goes_on(guest, ("pool", unit), pid, kills)?;
    }
    expect("incidents", &guest.unit(unit)?.incidents, &incidents)
}

fn below_use_is_rescued(guest: &Guest, unit: &str) -> Result<(), String> {
    let (kills, before, run) = (guest.kernel_kills()?, guest.last_incident()?, guest.unit(unit)?.run);
    let saved = format!("/run/{unit}.saved");
    let _ = std::fs::remove_file(&saved);
    limit(unit, &["memory.max=12800KiB", "--below", "rescue"], 0, "its procedure is at work")?;
    let incident = guest.wait_incident(unit, before, SOON)?;
    ensure(matches!(incident.verdict, Verdict::LimitLowered { .. }), || format!("{:?}", incident.verdict))?;
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    ensure(Path::new(&saved).exists(), || "nothing was saved".into())?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    let again = guest.wait("its next run", SOON, |snapshot| {
        crate::supervisor::unit(snapshot, unit)
            .filter(|unit| unit.run > run && unit.state == StateName::Running)
            .cloned()
    })?;
    ensure(again.pid.is_some(), || "no pid".into())?;
    expect("memory.max of the next run", &number("pool", unit, "memory.max")?, &(12_800 << 10))
}

fn change_at_once(guest: &mut Guest) -> Result<(), String> {
    let unit = "holds-open";
    guest.start(unit)?;
    let (pid, kills) = (guest.unit(unit)?.pid, guest.kernel_kills()?);
    limit(unit, &["memory.max=64MiB", "cpu.max=25%", "cpu.weight=20", "pids.max=5"], 0, "pids.max is 5")?;
    let folder = format!("/sys/fs/cgroup/pool/{unit}");
    for (file, expected) in
        [("memory.max", "67108864"), ("cpu.max", "25000 100000"), ("cpu.weight", "20"), ("pids.max", "5")]
    {
        expect(file, &read(&format!("{folder}/{file}"))?.trim(), &expected)?;
    }
    // Below the number of its processes pids.max only refuses new ones.
    limit(unit, &["pids.max=1", "cpu.max=max", "memory.high=48MiB"], 0, "memory.high is 48 MiB")?;
    expect("cpu.max", &read(&format!("{folder}/cpu.max"))?.trim(), &"max 100000")?;
    expect("memory.high", &read(&format!("{folder}/memory.high"))?.trim(), &"50331648")?;
    limit(unit, &["memory.high=4MiB"], 1, "are in use and cannot be reclaimed")?;
    goes_on(guest, ("pool", unit), pid, kills)?;
    limit(unit, &["memory.max=max"], 1, "cannot be guarded")?;
    limit("holds-shielded", &["memory.high=4MiB"], 1, "no shield could hold it")?;
    limit(unit, &["memory.high=max", "pids.max=50", "memory.max=32MiB"], 0, "is 32 MiB")?;
    guest.stop(unit)
}

fn over_budget(guest: &mut Guest) -> Result<(), String> {
    let (unit, branch) = ("limits-guaranteed", "guaranteed");
    guest.start(unit)?;
    let (pid, kills) = (guest.unit(unit)?.pid, guest.kernel_kills()?);
    limit(unit, &["memory.max=9MiB"], 1, "at most 8 MiB is free for it")?;
    expect("memory.max", &number(branch, unit, "memory.max")?, &(8 * MIB))?;
    limit(unit, &["memory.max=6MiB"], 0, "is 6 MiB")?;
    // What it has given back is its to take again.
    limit(unit, &["memory.max=8MiB"], 0, "is 8 MiB")?;
    goes_on(guest, (branch, unit), pid, kills)?;
    limit("holds-open", &["memory.max=64GiB"], 1, "does not fit beside the others")?;
    guest.stop(unit)
}
