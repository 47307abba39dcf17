//! A kernel without what lifeboat needs: the device boots, and lifeboat says what is missing and what
//! helps.

use super::Case;
use super::shield::oom_score_adj;
use crate::guest::{Guest, ensure, expect, read, run, saved_path, wait_recording};
use lifeboat::engine::snapshot::{KilledBy, StateName, Trouble};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::time::Duration;

pub(crate) const NO_MEMORY: &[Case] = &[
    Case { name: "no-memory-says-degraded", deadline_s: 30, run: |g| says(g, "memory", "cgroup_") },
    Case { name: "no-memory-units-run", deadline_s: 30, run: units_run },
    Case { name: "no-memory-no-shield", deadline_s: 30, run: no_shield },
    Case { name: "no-memory-restarts-a-killed-one", deadline_s: 30, run: restarts_a_killed_one },
    Case { name: "no-memory-names-the-global-oom-killer", deadline_s: 30, run: names_the_oom_killer },
    Case { name: "no-memory-stops-by-force", deadline_s: 30, run: stops_by_force },
];

pub(crate) const NO_CGROUP2: &[Case] = &[
    Case { name: "no-cgroup2-is-not-there", deadline_s: 10, run: is_not_there },
    Case {
        name: "no-cgroup2-says-degraded",
        deadline_s: 30,
        run: |g| says(g, "cgroup v2", "cgroup_no_v1=all"),
    },
    Case { name: "no-cgroup2-units-run", deadline_s: 30, run: units_run },
    Case { name: "no-cgroup2-no-shield", deadline_s: 30, run: no_shield },
    Case { name: "no-cgroup2-restarts-a-killed-one", deadline_s: 30, run: restarts_a_killed_one },
    Case { name: "no-cgroup2-stops-by-force", deadline_s: 30, run: stops_by_force },
    Case { name: "no-cgroup2-saves-on-stop", deadline_s: 40, run: saves_on_stop },
];

pub(crate) const NO_PSI: &[Case] = &[
    Case { name: "no-psi-says-degraded", deadline_s: 30, run: |g| says(g, "psi", "psi=1") },
    Case { name: "no-psi-units-run", deadline_s: 30, run: units_run },
    Case { name: "no-psi-loses-nothing", deadline_s: 90, run: loses_nothing },
];

/// The status names what is missing and holds the word of the cure, and `lifeboatctl status` shows it.
fn says(guest: &mut Guest, what: &str, cure: &str) -> Result<(), String> {
    let degraded = guest.status()?.system.degraded;
    let told = degraded.iter().any(|line| line.to_lowercase().contains(what) && line.contains(cure));
    ensure(told, || format!("neither {what:?} with {cure:?} in {degraded:?}"))?;
    let (_, text) = run(&["/usr/bin/lifeboatctl", "status"])?;
    ensure(text.contains("DEGRADED"), || format!("lifeboatctl status does not say DEGRADED: {text}"))
}

fn units_run(guest: &mut Guest) -> Result<(), String> {
    guest.start("plain")?;
    guest.wait_state("plain", StateName::Running, Duration::from_secs(10))?;
    guest.stop("plain")
}

/// The shield needs the memory controller, not PSI.
fn loses_nothing(guest: &mut Guest) -> Result<(), String> {
    let unit = "leak-flat-out";
    guest.start(unit)?;
    let incident = guest.wait_incident(unit, 0, Duration::from_secs(60))?;
    crate::guest::all_saved(unit, &incident)
}

/// Or the group's other cases would show nothing.
fn is_not_there(_guest: &mut Guest) -> Result<(), String> {
    let table = read("/proc/mounts")?;
    let kinds = table.lines().filter_map(|line| line.split(' ').nth(2));
    let cgroups = kinds.filter(|kind| kind.starts_with("cgroup")).count();
    expect("mounts of cgroups", &cgroups, &0)
}

/// A bound that is not in force must not make a service unkillable for the kernel.
fn no_shield(guest: &mut Guest) -> Result<(), String> {
    guest.start("quiet")?;
    let pid = guest.unit("quiet")?.pid.ok_or("it has no pid")?;
    expect("oom_score_adj without a bound", &oom_score_adj(pid)?, &0)?;
    guest.stop("quiet")
}

fn restarts_a_killed_one(guest: &mut Guest) -> Result<(), String> {
    guest.start("quiet")?;
    let before = guest.unit("quiet")?;
    let pid = before.pid.and_then(|pid| i32::try_from(pid).ok()).ok_or("it has no pid")?;
    kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|error| format!("kill {pid}: {error}"))?;
    guest.wait("quiet", Duration::from_secs(10), |snapshot| {
        let unit = crate::supervisor::unit(snapshot, "quiet")?;
        (unit.state == StateName::Running && unit.run > before.run).then_some(())
    })?;
    guest.stop("quiet")
}

/// No cgroup counts the kill: only the kernel's log tells of it.
fn names_the_oom_killer(guest: &mut Guest) -> Result<(), String> {
    guest.start("dies-once")?;
    let pid = guest.unit("dies-once")?.pid.ok_or("it has no pid")?;
    let write =
        |path: &str, text: &str| std::fs::write(path, text).map_err(|error| format!("{path}: {error}"));
    write(&format!("/proc/{pid}/oom_score_adj"), "1000")?;
    // Documentation/admin-guide/sysrq.rst: calls the OOM killer.
    write("/proc/sysrq-trigger", "f")?;
    was_killed_by(guest, "dies-once", KilledBy::GlobalOom, "killed by the kernel's global OOM killer")
}

pub(super) fn was_killed_by(guest: &Guest, unit: &str, by: KilledBy, words: &str) -> Result<(), String> {
    guest.wait_state(unit, StateName::Exited, Duration::from_secs(20))?;
    expect("trouble", &guest.unit(unit)?.trouble, &Some(Trouble::Killed { by }))?;
    let (_, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
    ensure(text.contains(words), || text)
}

fn stops_by_force(guest: &mut Guest) -> Result<(), String> {
    guest.start("ignores-term")?;
    let pid = guest.unit("ignores-term")?.pid.ok_or("it has no pid")?;
    guest.stop("ignores-term")?;
    ensure(!Path::new(&format!("/proc/{pid}")).exists(), || format!("{pid} still lives"))
}

/// The procedure runs also here; but nothing holds the service still, so it may record on while it is saved.
fn saves_on_stop(guest: &mut Guest) -> Result<(), String> {
    let unit = "saves-on-stop";
    guest.start(unit)?;
    let ring = wait_recording(guest, unit)?;
    guest.stop(unit)?;
    let count = crate::saved::compare(&ring, &saved_path(unit))?;
    ensure(count.saved > count.of / 2, || format!("saved {} of {} records", count.saved, count.of))
}
