//! A kernel without what lifeboat needs: the device boots, and lifeboat says what is missing and what
//! helps.

use super::Case;
use crate::guest::{Guest, ensure, run};
use lifeboat::engine::snapshot::StateName;
use std::time::Duration;

pub(crate) const NO_MEMORY: &[Case] = &[
    Case { name: "no-memory-says-degraded", deadline_s: 30, run: |g| says(g, "memory", "cgroup_") },
    Case { name: "no-memory-units-run", deadline_s: 30, run: units_run },
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
