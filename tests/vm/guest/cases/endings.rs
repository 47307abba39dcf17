//! What comes after the end of a service: another start, another unit in its stead, or the end of the machine.

use super::Case;
use crate::guest::{Guest, all_saved, ensure, expect, run};
use crate::supervisor;
use lifeboat::engine::event::Exit;
use lifeboat::engine::policy::RunId;
use lifeboat::engine::snapshot::{KilledBy, ProcedureResult, StateName, Trouble, UnitView};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "backoff-doubles", deadline_s: 40, run: backoff_doubles },
    Case { name: "on-exhaustion-restarts-only-then", deadline_s: 90, run: on_exhaustion_restarts_only_then },
    Case { name: "exhaustion-budget-escalates", deadline_s: 120, run: exhaustion_budget_escalates },
    Case { name: "fallback-takes-over-and-goes", deadline_s: 60, run: fallback_takes_over_and_goes },
    Case { name: "then-fallback", deadline_s: 90, run: then_fallback },
];

pub(crate) const LIMIT_POWER_OFF: &[Case] =
    &[Case { name: "start-limit-power-off", deadline_s: 40, run: |g| ends_with(g, "limit-powers-off") }];

pub(crate) const THEN_REBOOT: &[Case] =
    &[Case { name: "exhausted-then-reboot", deadline_s: 40, run: |g| ends_with(g, "saves-and-reboots") }];

pub(crate) const RESCUE: &[Case] =
    &[Case { name: "rescue-is-called", deadline_s: 40, run: |g| ends_with(g, "calls-the-rescue") }];

const SOON: Duration = Duration::from_secs(20);
const EXHAUSTION: Duration = Duration::from_secs(60);

/// The unit, as soon as it is in this run and this holds of it.
fn wait_run(
    guest: &Guest,
    unit: &str,
    run: u32,
    holds: impl Fn(&UnitView) -> bool,
) -> Result<UnitView, String> {
    guest.wait(unit, EXHAUSTION, |snapshot| {
        supervisor::unit(snapshot, unit).filter(|unit| unit.run == RunId(run) && holds(unit)).cloned()
    })
}

fn lifeboatctl_says(words: &[&str], part: &str) -> Result<(), String> {
    let (_, text) = run(&[&["/usr/bin/lifeboatctl"], words].concat())?;
    ensure(text.contains(part), || format!("lifeboatctl {words:?} says {text:?}, not {part:?}"))
}

fn backoff_doubles(guest: &mut Guest) -> Result<(), String> {
    let unit = "backs-off";
    let first = guest.unit(unit)?.run.0 + 1;
    guest.ask("Start", unit)?;
    for (number, delay_ms) in (first..).zip([1_000, 2_000, 2_500]) {
        let rests = wait_run(guest, unit, number, |unit| unit.state == StateName::Backoff)?;
        if number == first {
            lifeboatctl_says(&["status", unit], "BACKOFF   exited with code 1")?;
        }
        let next = wait_run(guest, unit, number + 1, |_| true)?;
        let rested_ms = next.since.since_us(rests.since) / 1_000;
        ensure(rested_ms >= delay_ms, || format!("run {number}: {rested_ms} ms, not {delay_ms}"))?;
    }
    guest.stop(unit)
}

fn on_exhaustion_restarts_only_then(guest: &mut Guest) -> Result<(), String> {
    let unit = "on-exhaustion";
    guest.start(unit)?;
    let first = guest.unit(unit)?.run.0;
    let second = wait_run(guest, unit, first + 1, |unit| unit.state == StateName::Running)?;
    expect("exhaustions", &second.exhaustions, &1)?;
    let pid = second.pid.and_then(|pid| i32::try_from(pid).ok()).ok_or("no pid")?;
    kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|errno| format!("kill {pid}: {errno}"))?;
    let over = guest.wait_state(unit, StateName::Exited, SOON)?;
    expect("trouble", &over.trouble, &Some(Trouble::Killed { by: KilledBy::Outside }))?;
    expect("run", &over.run, &second.run)
}

/// Each run is a healthy one before it leaks, and the start limit is far away.
fn exhaustion_budget_escalates(guest: &mut Guest) -> Result<(), String> {
    let unit = "exhaustion-budget";
    guest.start(unit)?;
    let first = guest.unit(unit)?.run.0;
    wait_run(guest, unit, first + 1, |unit| unit.exhaustions == 1 && unit.state == StateName::Running)?;
    let third = wait_run(guest, unit, first + 2, |unit| unit.state == StateName::Running)?;
    expect("exhaustions", &third.exhaustions, &2)?;
    lifeboatctl_says(&["status", unit], "exhausted 2 times in 10 min")?;
    let over = guest.wait_state(unit, StateName::Fatal, EXHAUSTION)?;
    let is_spent = |trouble| matches!(trouble, Some(Trouble::ExhaustedTooOften { times: 3, .. }));
    ensure(is_spent(over.trouble), || format!("trouble {:?}", over.trouble))?;
    guest.wait_state("stand-in", StateName::Running, SOON)?;
    lifeboatctl_says(&["status", unit], "FATAL     memory exhausted 3 times or more in 10 min")?;
    lifeboatctl_says(&["status", unit], "stand-in in its stead")?;
    lifeboatctl_says(&["why", unit], "its memory: exhausted 3 times or more in 10 min")?;
    // The stand-in goes with the unit that it stands for.
    expect("stop", &guest.ask("Stop", unit)?.as_str(), &"NotRunning")?;
    guest.wait_state("stand-in", StateName::Stopped, SOON).map(drop)
}

fn fallback_takes_over_and_goes(guest: &mut Guest) -> Result<(), String> {
    let (unit, well) = ("gives-up", "/run/gives-up.well");
    let _ = std::fs::remove_file(well);
    guest.ask("Start", unit)?;
    guest.wait_state(unit, StateName::Fatal, SOON)?;
    guest.wait_state("stand-in", StateName::Running, SOON)?;
    lifeboatctl_says(&["why", unit], "in its stead: stand-in")?;
    std::fs::write(well, "").map_err(|error| format!("{well}: {error}"))?;
    guest.start(unit)?;
    guest.wait_state("stand-in", StateName::Stopped, SOON)?;
    let up = guest.unit(unit)?;
    expect("state and fallback", &(up.state, up.fallback), &(StateName::Running, None))?;
    guest.stop(unit)
}

fn then_fallback(guest: &mut Guest) -> Result<(), String> {
    let (unit, before) = ("then-fallback", guest.last_incident()?);
    guest.start(unit)?;
    let incident = guest.wait_incident(unit, before, EXHAUSTION)?;
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    all_saved(unit, &incident)?;
    let stand_in = guest.wait_state("stand-in", StateName::Running, SOON)?;
    let emptied = incident.emptied.ok_or("it is not empty")?;
    ensure(stand_in.since > emptied, || "the stand-in was there before the unit was gone".into())?;
    expect("state", &guest.unit(unit)?.state, &StateName::Stopped)?;
    guest.ask("Stop", unit)?;
    guest.wait_state("stand-in", StateName::Stopped, SOON).map(drop)
}

/// The host sees on the console what comes of it.
fn ends_with(guest: &mut Guest, unit: &str) -> Result<(), String> {
    guest.start("above")?;
    // After a second, so that the report is out before this driver is stopped, too.
    guest.start(unit)
}
