//! Nothing of a unit outlives it, and its end goes as asked whatever happens on the way.

use super::Case;
use super::degraded::was_killed_by;
use super::units::processes_with;
use crate::guest::{Guest, ensure, expect, read, run};
use lifeboat::engine::snapshot::{Cause, KilledBy, Killer, StateName};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    Case { name: "stop-takes-daemons-along", deadline_s: 40, run: stop_takes_daemons_along },
    Case { name: "end-takes-daemons-along", deadline_s: 40, run: end_takes_daemons_along },
    Case { name: "what-outlives-the-kill", deadline_s: 90, run: what_outlives_the_kill },
    Case { name: "killed-from-outside", deadline_s: 40, run: killed_from_outside },
    Case { name: "exhaustion-while-stopping", deadline_s: 60, run: exhaustion_while_stopping },
];

const UP: Duration = Duration::from_secs(20);
/// Made by the unit `leaks-when-stopped` once it waits for the stop signal.
const READY: &str = "/run/leaks-when-stopped.ready";
/// How many daemons `vm-guest daemonise` makes.
const DAEMONS: usize = 3;

fn daemons() -> usize {
    processes_with(&["vm-guest", "daemon"]).len()
}

/// They have left its process group, its session and its parent; its cgroup they cannot leave.
fn stop_takes_daemons_along(guest: &mut Guest) -> Result<(), String> {
    let unit = "daemonises";
    guest.start(unit)?;
    guest.until("the daemons do not run", UP, || (daemons() == DAEMONS).then_some(()))?;
    guest.stop(unit)?;
    expect("daemons after the stop", &daemons(), &0)?;
    expect("its cgroup", &read(&format!("/sys/fs/cgroup/pool/{unit}/cgroup.procs"))?.as_str(), &"")
}

/// Its first process ends well and leaves the daemons: the run is over, and they are gone with it.
fn end_takes_daemons_along(guest: &mut Guest) -> Result<(), String> {
    let unit = "leaves-daemons";
    guest.ask("Start", unit)?;
    guest.wait_state(unit, StateName::Exited, UP)?;
    expect("daemons after the end", &daemons(), &0)
}

/// Somebody sends SIGKILL, which is neither lifeboat nor the kernel.
fn killed_from_outside(guest: &mut Guest) -> Result<(), String> {
    guest.start("dies-once")?;
    let pid = guest.unit("dies-once")?.pid.and_then(|pid| i32::try_from(pid).ok()).ok_or("it has no pid")?;
    kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|error| format!("kill {pid}: {error}"))?;
    was_killed_by(guest, "dies-once", KilledBy::Outside, "killed by SIGKILL from outside lifeboat")
}

/// A file on the machine's tmpfs is there after the kill, and the incident counts it; one on a tmpfs of the unit's own
/// goes with it.
fn what_outlives_the_kill(guest: &mut Guest) -> Result<(), String> {
    const MIB: u64 = 1 << 20;
    // More than once: the write that fails at the limit may end the service before it is frozen.
    let leaves = ("leaves-a-file", 12 * MIB, 16 * MIB);
    for (unit, least, most) in [leaves, leaves, leaves, leaves, ("leaves-a-private-file", 0, MIB)] {
        let _ = std::fs::remove_file("/run/left-behind");
        let before = guest.last_incident()?;
        guest.start(unit)?;
        let incident = guest.wait_incident(unit, before, UP)?;
        guest.wait_state(unit, StateName::Stopped, UP)?;
        let left = incident.left.ok_or_else(|| format!("{unit}: nothing was read"))?;
        guest.figure(&format!("{unit}: {left:?}"));
        let stays = left.shmem_bytes;
        ensure((least..=most).contains(&stays), || format!("{unit}: {stays} bytes of shmem are left"))?;
        ensure(left.current_bytes < stays + 2 * MIB, || format!("{unit}: {left:?}"))?;
        let (_, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
        ensure(text.contains("freed: ") && text.contains("; left behind: "), || text.clone())?;
        let outlives = text.contains("(tmpfs or memfd pages that outlive the kill)");
        ensure(outlives == (least > 0), || text)?;
    }
    let _ = std::fs::remove_file("/run/left-behind");
    Ok(())
}

/// It takes the stop signal as a reason to leak: saved, ended long before its stop's deadline, and not restarted.
fn exhaustion_while_stopping(guest: &mut Guest) -> Result<(), String> {
    let unit = "leaks-when-stopped";
    let (bystander, kills, before) = (guest.bystander()?, guest.kernel_kills()?, guest.last_incident()?);
    guest.start(unit)?;
    let ready = || Path::new(READY).exists().then_some(());
    guest.until("it does not wait for the signal", UP, ready)?;
    let began = Instant::now();
    guest.stop(unit)?;
    let took = began.elapsed();
    ensure(took < Duration::from_secs(20), || format!("the stop took {took:?}"))?;
    let incident = guest.wait_incident(unit, before, UP)?;
    expect("cause", &incident.cause, &Cause::Exhaustion)?;
    expect("who ended the service", &incident.killer, &Killer::Lifeboat)?;
    expect("reason", &read("/run/leaks-when-stopped.reason")?.trim(), &"exhaustion")?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    expect("state", &guest.unit(unit)?.state, &StateName::Stopped)?;
    bystander.is_unharmed(guest)
}
