//! The demo's judge: waits until the recorder was exhausted once and is up again, compares what was saved
//! with what had been committed when it died, counts the kernel's OOM kills, and powers the machine off.
//!
//! It acts only where the kernel's command line says `lifeboat.demo=auto`.

#[expect(unsafe_code, reason = "mmap(2) has no safe form; this one file holds all of it")]
#[expect(dead_code, reason = "the judge does not leak")]
#[path = "../recorder/mapping.rs"]
mod mapping;
#[expect(dead_code, reason = "the judge only reads rings")]
#[path = "../recorder/ring.rs"]
mod ring;
#[expect(dead_code, reason = "the judge saves nothing")]
#[path = "../recorder/saved.rs"]
mod saved;
#[expect(dead_code, reason = "the judge does not need every call")]
mod supervisor;

use lifeboat::engine::snapshot::{Incident, Snapshot, StateName};
use saved::Count;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use supervisor::Supervisor;

const UNIT: &str = "recorder";
const RING: &str = "/run/recorder/ring";
const SAVED: &str = "/data/recorder.bin";
/// Under software emulation the whole demo takes some seconds.
const DEADLINE: Duration = Duration::from_secs(120);

/// The incident, once the unit is up again in a later life.
fn over(snapshot: &Snapshot) -> Option<Incident> {
    let incident = supervisor::incident(snapshot, UNIT, 0)?;
    let unit = supervisor::unit(snapshot, UNIT)?;
    (unit.state == StateName::Running && unit.run > incident.run).then_some(incident)
}

/// The kernel's own count of processes killed by its OOM killer since boot: `oom_kill` of /proc/vmstat.
fn kernel_oom_kills() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/vmstat").map_err(|error| format!("/proc/vmstat: {error}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    value.and_then(|value| value.parse().ok()).ok_or_else(|| "/proc/vmstat has no oom_kill".into())
}

fn judge() -> Result<(Count, u64), String> {
    let incident = Supervisor::connect()?.watch(UNIT, Instant::now() + DEADLINE, over)?;
    let ring = saved::ring_at(Path::new(RING), incident.began.0)?;
    Ok((saved::compare(&ring, Path::new(SAVED))?, kernel_oom_kills()?))
}

fn main() -> ExitCode {
    let words = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if !words.split_whitespace().any(|word| word == "lifeboat.demo=auto") {
        return ExitCode::SUCCESS;
    }
    let (line, good) = match judge() {
        Ok((count, kills)) => (
            format!("saved {} of {} records, kernel OOM kills: {kills}", count.saved, count.of),
            count.saved == count.of && count.of == ring::KEPT && kills == 0,
        ),
        Err(error) => (format!("none: {error}"), false),
    };
    let _ = writeln!(std::io::stdout(), "{line}");
    let off = Supervisor::connect().and_then(|mut supervisor| supervisor.shut_down("PowerOff"));
    if let Err(error) = off {
        let _ = writeln!(std::io::stdout(), "cannot power off: {error}");
        return ExitCode::FAILURE;
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
