//! A thousand trivial services: they start, idle and stop; nothing wakes PID 1 meanwhile.

use super::Case;
use super::boot50::switches;
use super::life::ms;
use crate::cast::{anonymous_kib, pss_kib};
use crate::guest::{Guest, ensure, expect, read};
use crate::supervisor::{SOCKET, Supervisor};
use lifeboat::engine::snapshot::{Snapshot, StateName};
use serde_json::json;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    Case { name: "thousand-units-start", deadline_s: 300, run: start },
    Case { name: "thousand-units-idle", deadline_s: 120, run: idle },
    Case { name: "thousand-units-stop", deadline_s: 300, run: stop },
];

const UNITS: usize = 1_000;
const SETTLE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(10);

/// Processes below `pool/`, the threads of the driver among them: one number to read, where a look at each unit would
/// be what is measured.
fn in_pool() -> Result<usize, String> {
    let path = "/sys/fs/cgroup/pool/pids.current";
    read(path)?.trim().parse().map_err(|_| format!("{path} holds no number"))
}

/// A picture of so many units is long, and software emulation slow.
fn status(guest: &Guest) -> Result<Snapshot, String> {
    let began = Instant::now();
    let mut answer = Supervisor::connect()?.call("Status", &json!({}), began + Duration::from_secs(60))?;
    guest.figure(&format!("units1000 status: {:.0} ms", ms_since(began)));
    let snapshot = answer.get_mut("snapshot").map(serde_json::Value::take).unwrap_or_default();
    serde_json::from_value(snapshot).map_err(|error| format!("not a snapshot: {error}"))
}

fn start(guest: &mut Guest) -> Result<(), String> {
    let all = || in_pool().ok().filter(|count| *count > UNITS);
    guest.until("not all units have a process", Duration::from_secs(280), all)?;
    // It takes part in the run queue: what is left of the starts comes first.
    thread::sleep(SETTLE);
    let snapshot = status(guest)?;
    let units = || snapshot.units.iter().filter(|unit| unit.name.starts_with("unit-"));
    expect("RUNNING", &units().filter(|unit| unit.state == StateName::Running).count(), &UNITS)?;
    let last = units().map(|unit| unit.since.0).max().unwrap_or_default();
    let began = snapshot.system.started.0;
    guest.figure(&format!(
        "units1000 start: {:.0} ms from lifeboat's first line to the last RUNNING",
        ms(last - began)
    ));
    Ok(())
}

fn idle(guest: &mut Guest) -> Result<(), String> {
    thread::sleep(SETTLE);
    let before = switches()?;
    thread::sleep(IDLE);
    let woken = switches()? - before;
    let fds = std::fs::read_dir("/proc/1/fd").map_err(|error| format!("/proc/1/fd: {error}"))?.count();
    guest.figure(&format!(
        "units1000 idle: PSS of PID 1 {} KiB ({} KiB of it anonymous), {fds} descriptors, {woken} wake-ups in 10 s",
        pss_kib(1)?,
        anonymous_kib(1)?
    ));
    expect("wake-ups in 10 s of idling", &woken, &0)
}

/// Asks for each stop without waiting for the one before.
fn stop(guest: &mut Guest) -> Result<(), String> {
    let mut stream = UnixStream::connect(SOCKET).map_err(|error| format!("{SOCKET}: {error}"))?;
    let began = Instant::now();
    let names = (1..=UNITS).map(|number| format!("unit-{number:04}"));
    names.clone().try_for_each(|name| {
        let method = "org.lifeboat.Supervisor.Stop";
        let call = json!({ "method": method, "parameters": { "name": name }, "oneway": true });
        stream.write_all(format!("{call}\0").as_bytes()).map_err(|error| format!("{SOCKET}: {error}"))
    })?;
    let none = || in_pool().ok().filter(|count| *count < UNITS / 10);
    let left = guest.until("not all units have stopped", Duration::from_secs(280), none)?;
    let gone = || {
        let empty = |name: String| {
            read(&format!("/sys/fs/cgroup/pool/{name}/cgroup.procs")).is_ok_and(|it| it.is_empty())
        };
        names.clone().all(empty).then_some(())
    };
    guest.until("processes are left", Duration::from_secs(60), gone)?;
    guest.figure(&format!(
        "units1000 stop: {:.0} ms from the first request until nothing runs",
        ms_since(began)
    ));
    let snapshot = status(guest)?;
    let stopped = snapshot.units.iter().filter(|unit| unit.state == StateName::Stopped).count();
    ensure(stopped >= UNITS, || format!("{stopped} units are STOPPED ({left} processes were left)"))
}

fn ms_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1_000.0
}
