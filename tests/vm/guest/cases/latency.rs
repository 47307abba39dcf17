//! How long it takes from the kernel's event to the freeze and to the procedure's first instruction, and what the same
//! program takes when an ordinary parent starts it.

use super::Case;
use super::life::ms;
use crate::guest::{Guest, read, ring_path, saved_path};
use crate::ring::boottime_us;
use crate::saved::beside;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "latency", deadline_s: 600, run: latency },
    Case { name: "procedure-alone", deadline_s: 120, run: alone },
];

const UNIT: &str = "leak-flat-out";
const ROUNDS: usize = 20;

fn first_instruction(out: &Path) -> Result<u64, String> {
    let path = beside(out, ".stamp");
    let text = read(&path.display().to_string())?;
    text.trim().parse().map_err(|_| format!("{}: not a number", path.display()))
}

fn show(guest: &Guest, what: &str, mut us: Vec<u64>) {
    us.sort_unstable();
    let (median, worst) = (us.get(us.len() / 2).copied().unwrap_or(0), us.last().copied().unwrap_or(0));
    guest.figure(&format!(
        "latency {what}: median {:.1} ms, worst {:.1} ms ({} runs)",
        ms(median),
        ms(worst),
        us.len()
    ));
}

fn latency(guest: &mut Guest) -> Result<(), String> {
    let (mut frozen, mut first, mut took, mut total) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let before = guest.last_incident()?;
        guest.start(UNIT)?;
        let incident = guest.wait_incident(UNIT, before, Duration::from_secs(60))?;
        let since = |time: Option<lifeboat::engine::event::Time>| {
            time.map(|time| time.since_us(incident.began))
                .ok_or_else(|| format!("a time is missing: {incident:?}"))
        };
        frozen.push(since(incident.frozen)?);
        let began_us = first_instruction(&saved_path(UNIT))?;
        first.push(began_us.saturating_sub(incident.began.0));
        took.push(incident.procedure_ended.map_or(0, |end| end.0.saturating_sub(began_us)));
        total.push(since(incident.emptied)?);
    }
    show(guest, "oom event to frozen", frozen);
    show(guest, "oom event to the procedure's first instruction", first);
    show(guest, "procedure's first instruction to its end, under exhaustion", took);
    show(guest, "oom event to an empty cgroup", total);
    Ok(())
}

/// The same program on the same ring, spawned by this driver while nothing else happens.
fn alone(guest: &mut Guest) -> Result<(), String> {
    let out = Path::new("/run/alone.bin");
    let (mut first, mut took) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        let asked_us = boottime_us();
        let status = Command::new("/usr/bin/recorder-flush")
            .arg(ring_path(UNIT))
            .arg(out)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .map_err(|error| format!("/usr/bin/recorder-flush: {error}"))?;
        let ended_us = boottime_us();
        if !status.success() {
            return Err(format!("recorder-flush alone: {status}"));
        }
        let began_us = first_instruction(out)?;
        first.push(began_us.saturating_sub(asked_us));
        took.push(ended_us.saturating_sub(began_us));
    }
    show(guest, "ordinary spawn to the program's first instruction", first);
    show(guest, "program's first instruction to its end, alone", took);
    Ok(())
}
