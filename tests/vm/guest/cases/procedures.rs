//! Shutdown procedures: what they are handed, and what the service does meanwhile.

use super::Case;
use crate::guest::{Guest, expect, read};
use crate::saver::found;
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{Incident, ProcedureResult};
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "memfd-is-handed-over", deadline_s: 60, run: |g| handed_over(g, &["memory: in the memfd"]) },
    Case {
        name: "stored-pipe-is-handed-over",
        deadline_s: 60,
        run: |g| handed_over(g, &["pipe: in the pipe"]),
    },
    Case { name: "pidfd-and-cgroup-are-handed-over", deadline_s: 60, run: pidfd_and_cgroup },
];

const EXHAUSTION: Duration = Duration::from_secs(40);

/// Starts a unit that leaks and waits until that is over.
fn exhaust(guest: &Guest, unit: &str) -> Result<Incident, String> {
    let before = guest.last_incident()?;
    guest.start(unit)?;
    guest.wait_incident(unit, before, EXHAUSTION)
}

fn saved(incident: &Incident) -> Result<(), String> {
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))
}

/// The procedure was parked before any of it was there.
fn handed_over(guest: &mut Guest, lines: &[&str]) -> Result<(), String> {
    let unit = "handed-over";
    let _ = std::fs::remove_file(found(unit));
    let incident = exhaust(guest, unit)?;
    saved(&incident)?;
    let text = read(&found(unit))?;
    for line in lines {
        expect(&format!("a line of {text:?}"), &text.lines().filter(|found| found == line).count(), &1)?;
    }
    guest.stop(unit)
}

fn pidfd_and_cgroup(guest: &mut Guest) -> Result<(), String> {
    let cgroup = "cgroup /sys/fs/cgroup/pool/handed-over: populated 1 frozen 1";
    handed_over(guest, &["pidfd is of the first process: true", cgroup])
}
