//! Fifty trivial services: what PID 1 weighs, and whether it sleeps. Runs under lifeboat and, to compare,
//! under any other PID 1: it reads /proc and leaves PID 1 alone until it has measured.

use super::Case;
use super::units::processes_with;
use crate::cast::{anonymous_kib, field, pss_kib};
use crate::guest::{Guest, expect, read};
use crate::supervisor::SOCKET;
use lifeboat::engine::snapshot::StateName;
use std::path::Path;
use std::thread;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "fifty-units-run", deadline_s: 60, run: fifty_units_run },
    Case { name: "idle-does-not-wake", deadline_s: 60, run: idle_does_not_wake },
    Case { name: "fifty-units-shown", deadline_s: 30, run: fifty_units_shown },
];

/// What is left to do after the last service was started: logs, caches.
const SETTLE: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(10);

fn is_lifeboat() -> bool {
    Path::new(SOCKET).exists()
}

fn fifty_units_run(guest: &mut Guest) -> Result<(), String> {
    let running = || (processes_with(&["vm-guest", "trivial"]).len() == 50).then_some(());
    guest.until("not all 50 services run", Duration::from_secs(50), running)
}

pub(super) fn switches() -> Result<u64, String> {
    field(&read("/proc/1/status")?, "voluntary_ctxt_switches:")
        .ok_or_else(|| "no voluntary_ctxt_switches".into())
}

fn idle_does_not_wake(guest: &mut Guest) -> Result<(), String> {
    // Time itself is what is measured here.
    thread::sleep(SETTLE);
    let before = switches()?;
    thread::sleep(IDLE);
    let woken = switches()? - before;
    let name = read("/proc/1/comm")?;
    let name = name.trim();
    let (pss, anonymous) = (pss_kib(1)?, anonymous_kib(1)?);
    guest.figure(&format!("boot50 PSS of PID 1 ({name}): {pss} KiB ({anonymous} KiB of it anonymous)"));
    guest.figure(&format!("boot50 voluntary context switches of PID 1 ({name}) in 10 s of idling: {woken}"));
    if is_lifeboat() { expect("wake-ups in 10 s of idling", &woken, &0) } else { Ok(()) }
}

fn fifty_units_shown(guest: &mut Guest) -> Result<(), String> {
    if !is_lifeboat() {
        return guest.skip("PID 1 is not lifeboat");
    }
    let snapshot = guest.status()?;
    let trivial = snapshot.units.iter().filter(|unit| unit.name.starts_with("trivial-"));
    let (running, limited): (Vec<_>, Vec<_>) =
        trivial.map(|unit| (unit.state == StateName::Running, unit.memory.is_some())).unzip();
    guest.figure(&format!("boot50 units RUNNING: {}", running.iter().filter(|is| **is).count()));
    // What it takes to answer is another part of the program.
    guest.figure(&format!("boot50 PSS of PID 1 once somebody has looked: {} KiB", pss_kib(1)?));
    expect("running", &running.iter().filter(|is| **is).count(), &50)?;
    expect("in a limited cgroup", &limited.iter().filter(|is| **is).count(), &50)
}
