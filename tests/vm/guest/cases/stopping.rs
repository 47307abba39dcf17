//! How a stop goes: who gets the signal, in which order, and that nothing waits longer than it must.

use super::Case;
use super::units::processes_with;
use crate::guest::{Guest, ensure, expect, read};
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] =
    &[Case { name: "stop-reaches-what-is-left", deadline_s: 60, run: stop_reaches_what_is_left }];

const UP: Duration = Duration::from_secs(20);

/// Far below the timeouts of the units here, far above what a stop takes.
const EARLY: Duration = Duration::from_secs(20);

fn stopped_early(guest: &Guest, unit: &str) -> Result<(), String> {
    let began = Instant::now();
    guest.stop(unit)?;
    let took = began.elapsed();
    ensure(took < EARLY, || format!("the stop of {unit} took {took:?}"))
}

/// The shell ends at once; its child gets the signal too, and the time that it needs.
fn stop_reaches_what_is_left(guest: &mut Guest) -> Result<(), String> {
    guest.start("wrapper")?;
    guest.until("it is not ready", UP, || Path::new("/run/wrapper.ready").exists().then_some(()))?;
    stopped_early(guest, "wrapper")?;
    expect("what it saved", &read("/run/wrapper.saved")?.trim(), &"saved")?;
    expect("processes left", &processes_with(&["busybox", "sleep"]).len(), &0)
}
