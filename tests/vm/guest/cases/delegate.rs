//! Units that make cgroups of their own.

use super::Case;
use crate::guest::{Guest, ensure, expect, read, run};
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{Cause, Killer, ProcedureResult, StateName, Verdict};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "delegate-belongs-to-the-user", deadline_s: 40, run: belongs_to_the_user },
    Case { name: "delegate-stops-below", deadline_s: 60, run: stops_below },
    Case { name: "delegate-leaks-at-the-top", deadline_s: 60, run: leaks_at_the_top },
    Case { name: "delegate-leaks-below", deadline_s: 60, run: leaks_below },
    Case { name: "delegate-killed-below", deadline_s: 60, run: killed_below },
    Case { name: "delegate-killed-at-the-top", deadline_s: 60, run: killed_at_the_top },
];

const POOL: &str = "/sys/fs/cgroup/pool";
const SOON: Duration = Duration::from_secs(30);

fn belongs_to_the_user(guest: &mut Guest) -> Result<(), String> {
    let unit = "delegate-stays";
    let folder = format!("{POOL}/{unit}");
    for _ in 1..=2 {
        guest.start(unit)?;
        let there = || Path::new(&format!("{folder}/outer/one/two")).exists().then_some(());
        guest.until("it makes no cgroups", SOON, there)?;
        for (file, owner) in [
            ("", 200),
            ("cgroup.procs", 200),
            ("cgroup.threads", 200),
            ("cgroup.subtree_control", 200),
            ("memory.max", 0),
            ("pids.max", 0),
            ("cgroup.kill", 0),
            ("cgroup.freeze", 0),
        ] {
            let path = format!("{folder}/{file}");
            let found = std::fs::metadata(&path).map_err(|error| format!("{path}: {error}"))?.uid();
            expect(&format!("owner of {path}"), &found, &owner)?;
        }
        expect("cgroup.procs", &read(&format!("{folder}/cgroup.procs"))?.as_str(), &"")?;
        expect("descendants", &read(&format!("{folder}/cgroup.max.descendants"))?.trim(), &"128")?;
        guest.stop(unit)?;
        for below in ["inner", "outer"] {
            ensure(!Path::new(&format!("{folder}/{below}")).exists(), || format!("{below} is left"))?;
        }
        expect("handed down", &read(&format!("{folder}/cgroup.subtree_control"))?.trim(), &"")?;
    }
    Ok(())
}

/// What is below gets the stop signal too, when the first process has obeyed it.
fn stops_below(guest: &mut Guest) -> Result<(), String> {
    let unit = "delegate-stops";
    guest.start(unit)?;
    let is_up = || Path::new("/run/delegate-stops.up").exists().then_some(());
    guest.until("its worker is not up", SOON, is_up)?;
    guest.stop(unit)?;
    expect("what the worker has written", &read("/run/delegate-stops.saved")?.trim(), &"saved")
}

/// The event is raised at the group whose limit is met, also when its own processes are all below.
fn leaks_at_the_top(guest: &mut Guest) -> Result<(), String> {
    let bystander = guest.bystander()?;
    let (unit, kills, before) = ("delegate-leaks", guest.kernel_kills()?, guest.last_incident()?);
    guest.start(unit)?;
    let incident = guest.wait_incident(unit, before, SOON)?;
    ensure(matches!(incident.verdict, Verdict::OomEvent { .. } | Verdict::Predicted { .. }), || {
        format!("{:?}", incident.verdict)
    })?;
    expect("oom below", &incident.counters.oom_below, &0)?;
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    ensure(Path::new("/run/delegate-leaks.saved").exists(), || "nothing was saved".into())?;
    ensure(!Path::new(&format!("{POOL}/{unit}/inner")).exists(), || "a cgroup is left".into())?;
    told(unit)?;
    bystander.is_unharmed(guest)
}

fn told(unit: &str) -> Result<(), String> {
    let (_, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
    ensure(text.contains("procedure: ended with exit code 0"), || format!("why {unit}: {text}"))
}

/// A shielded child cannot be killed by the kernel: at the limit that the unit has set itself it would hang for ever.
fn leaks_below(guest: &mut Guest) -> Result<(), String> {
    let bystander = guest.bystander()?;
    let (unit, kills, before) = ("delegate-leaks-below", guest.kernel_kills()?, guest.last_incident()?);
    guest.start(unit)?;
    let incident = guest.wait_incident(unit, before, SOON)?;
    ensure(matches!(incident.verdict, Verdict::OomEvent { .. }), || format!("{:?}", incident.verdict))?;
    ensure(incident.counters.oom_below > 0, || format!("{:?}", incident.counters))?;
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    told(unit)?;
    bystander.is_unharmed(guest)
}

/// Without a shield the kernel kills the child, at the unit's own wish: the unit goes on, and it is told.
fn killed_below(guest: &mut Guest) -> Result<(), String> {
    let (unit, kills, before) = ("delegate-killed-below", guest.kernel_kills()?, guest.last_incident()?);
    guest.start(unit)?;
    let pid = guest.unit(unit)?.pid;
    let counters = guest.wait("no kill below", SOON, |snapshot| {
        let unit = crate::supervisor::unit(snapshot, unit)?;
        Some(unit.memory?.counters).filter(|counters| counters.oom_kill > 0)
    })?;
    ensure(counters.oom_below == counters.oom && counters.oom > 0, || format!("{counters:?}"))?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &(kills + 1))?;
    let shown = guest.unit(unit)?;
    expect("state and pid", &(shown.state, shown.pid), &(StateName::Running, pid))?;
    expect("incidents", &guest.last_incident()?, &before)?;
    guest.stop(unit)
}

fn killed_at_the_top(guest: &mut Guest) -> Result<(), String> {
    let (unit, before) = ("delegate-killed", guest.last_incident()?);
    guest.start(unit)?;
    let incident = guest.wait_incident(unit, before, SOON)?;
    expect("cause", &incident.cause, &Cause::KernelOomKill)?;
    expect("killer", &incident.killer, &Killer::KernelCgroup)
}
