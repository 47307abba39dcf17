//! An exhaustion while the machine itself has almost no memory left.

use super::Case;
use crate::cast::{anonymous_kib, field};
use crate::guest::{Guest, all_saved, ensure, expect, read};
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{Bound, Killer, ProcedureResult, Verdict};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, thread};

pub(crate) const CASES: &[Case] = &[
    Case { name: "saved-before-the-machines-end", deadline_s: 120, run: saved_before_the_machines_end },
    Case { name: "saved-with-no-memory-left", deadline_s: 180, run: saved_with_no_memory_left },
];

/// In the root cgroup, where no bound is; PID 1 and the kernel are there too.
const EATER: &str = "echo $$ >/sys/fs/cgroup/cgroup.procs; echo -1000 >/proc/self/oom_score_adj; exec \"$@\"";
const EATEN: &str = "/run/eaten";
/// The kernel keeps so much for itself: 44 MiB here, for huge pages; 4 MiB is what it would keep without them.
const MIN_FREE: &str = "/proc/sys/vm/min_free_kbytes";
const MIN_FREE_KIB: u64 = 4 << 10;
/// Free pages in the lists of each processor are not in `MemFree`: the lists are to be short.
const CPU_LISTS: &str = "/proc/sys/vm/percpu_pagelist_high_fraction";
/// Free pages of the lowest zone, 15 MiB, are kept from processes: they are to have these too.
const LOW_ZONES: &str = "/proc/sys/vm/lowmem_reserve_ratio";
/// Each unit's.
const LIMIT_KIB: u64 = 16 << 10;
/// Beside that and its procedure's: its processes' page tables and the like, and this driver.
const SPARE_KIB: u64 = 10 << 10;
const LEAKS: [&str; 6] =
    ["leak-flat-out", "leak-rate", "leak-threads", "leak-populate", "leak-fork", "leak-tmpfs"];
const OUTGROWS: &str = "outgrows-the-machine";
/// What it may take before the machine's reclaim begins.
const ROOM_KIB: u64 = 32 << 10;
/// Free at the worst moment of more than half of them: else this case has shown nothing.
const LEFT_KIB_MAX: u64 = 16 << 10;

fn meminfo_kib(name: &str) -> Result<u64, String> {
    field(&read("/proc/meminfo")?, name).ok_or_else(|| format!("/proc/meminfo has no {name}"))
}

/// A process that holds memory.
struct Eater(Child);

/// Takes the machine's free memory until so much is left. Meanwhile more becomes free, so it is repeated.
fn eat(guest: &Guest, left_kib: u64, eaters: &mut Vec<Eater>) -> Result<(), String> {
    loop {
        let mib = meminfo_kib("MemFree:")?.saturating_sub(left_kib) >> 10;
        if mib == 0 {
            return Ok(());
        }
        let _ = fs::remove_file(EATEN);
        let words = ["sh", "-c", EATER, "sh", "/usr/bin/vm-guest", "hold", &mib.to_string(), EATEN];
        let child = Command::new("/bin/busybox").args(words).spawn();
        eaters.push(Eater(child.map_err(|error| format!("no process that eats memory: {error}"))?));
        let eaten = || fs::metadata(EATEN).ok().filter(|file| file.len() > 0).map(drop);
        guest.until("the memory is not eaten", Duration::from_secs(60), eaten)?;
    }
}

impl Drop for Eater {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn saved_with_no_memory_left(guest: &mut Guest) -> Result<(), String> {
    // Once before, so that each unit's own tables and files are there.
    for unit in LEAKS {
        exhaust(guest, unit)?;
    }
    let kept = read(MIN_FREE)?;
    write(MIN_FREE, &MIN_FREE_KIB.to_string())?;
    write(CPU_LISTS, "100000")?;
    write(LOW_ZONES, "0 0 0 0")?;
    let mut eaters = Vec::new();
    let outcome: Result<Vec<u64>, String> = LEAKS
        .iter()
        .map(|unit| {
            eat(guest, MIN_FREE_KIB + LIMIT_KIB + SPARE_KIB, &mut eaters)?;
            saved_squeezed(guest, unit)
        })
        .collect();
    drop(eaters);
    write(MIN_FREE, kept.trim())?;
    let least_kib = outcome?;
    // Between the look and the leak some more may have become free.
    let squeezed = least_kib.iter().filter(|kib| **kib <= LEFT_KIB_MAX).count();
    ensure(squeezed > LEAKS.len() / 2, || format!("KiB that were free at the worst: {least_kib:?}"))
}

fn write(path: &str, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{path}: {error}"))
}

fn exhaust(guest: &Guest, unit: &str) -> Result<(), String> {
    let before = guest.last_incident()?;
    guest.start(unit)?;
    let incident = guest.wait_incident(unit, before, Duration::from_secs(60))?;
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    expect("who ended the service", &incident.killer, &Killer::Lifeboat)?;
    all_saved(unit, &incident)
}

/// The answer is what was free at the worst, in KiB.
fn saved_squeezed(guest: &Guest, unit: &str) -> Result<u64, String> {
    let (kills, held) = (guest.kernel_kills()?, anonymous_kib(1)?);
    let over = AtomicBool::new(false);
    let (outcome, least_kib) = thread::scope(|scope| {
        let least = scope.spawn(|| {
            let mut least_kib = u64::MAX;
            while !over.load(Ordering::Relaxed) {
                least_kib = least_kib.min(meminfo_kib("MemFree:").unwrap_or(u64::MAX));
                thread::sleep(Duration::from_millis(2));
            }
            least_kib
        });
        let outcome = exhaust(guest, unit);
        over.store(true, Ordering::Relaxed);
        (outcome, least.join().unwrap_or(u64::MAX))
    });
    let grown_kib = anonymous_kib(1)?.saturating_sub(held);
    guest.figure(&format!(
        "{unit}: at the worst {least_kib} KiB were free, of which the kernel keeps {MIN_FREE_KIB}; PID 1 grew by {grown_kib} KiB"
    ));
    outcome?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    Ok(least_kib)
}

/// The bound of a unit that grows is far away, and the machine's memory is not.
fn saved_before_the_machines_end(guest: &mut Guest) -> Result<(), String> {
    let mut eaters = Vec::new();
    let left_kib = read(MIN_FREE)?.trim().parse::<u64>().map_err(|error| format!("{MIN_FREE}: {error}"))?;
    eat(guest, 2 * left_kib + ROOM_KIB, &mut eaters)?;
    let (kills, before) = (guest.kernel_kills()?, guest.last_incident()?);
    guest.start(OUTGROWS)?;
    let incident = guest.wait_incident(OUTGROWS, before, Duration::from_secs(60))?;
    drop(eaters);
    guest.figure(&format!("{OUTGROWS}: {:?}", incident.verdict));
    let by_the_machine = matches!(incident.verdict, Verdict::Predicted { bound: Bound::MemAvailable, .. });
    ensure(by_the_machine, || format!("verdict: {:?}", incident.verdict))?;
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    expect("who ended the service", &incident.killer, &Killer::Lifeboat)?;
    all_saved(OUTGROWS, &incident)?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)
}
