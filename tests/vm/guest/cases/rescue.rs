//! The memory path: whatever the shape of the leak and whatever the procedure does, no record is lost,
//! nobody else is disturbed, and lifeboat can tell what happened.

use super::Case;
use crate::guest::{Guest, all_saved, ensure, expect, run};
use crate::supervisor;
use lifeboat::engine::event::{Exit, SpawnStage};
use lifeboat::engine::snapshot::{Cause, Incident, Killer, ProcedureResult, StateName, Trouble, Verdict};
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "leak-flat-out-loses-nothing", deadline_s: 90, run: |g| loses_nothing(g, "leak-flat-out") },
    Case { name: "leak-rate-loses-nothing", deadline_s: 90, run: |g| loses_nothing(g, "leak-rate") },
    Case { name: "leak-populate-loses-nothing", deadline_s: 90, run: populate_loses_nothing },
    Case { name: "leak-threads-loses-nothing", deadline_s: 90, run: |g| loses_nothing(g, "leak-threads") },
    Case { name: "leak-tmpfs-loses-nothing", deadline_s: 90, run: |g| loses_nothing(g, "leak-tmpfs") },
    Case { name: "leak-fork-loses-nothing", deadline_s: 120, run: |g| loses_nothing(g, "leak-fork") },
    Case { name: "bystander-lives", deadline_s: 120, run: bystander_lives },
    Case { name: "incident-tells-the-story", deadline_s: 60, run: incident_tells_the_story },
    Case { name: "restarts-after-exhaustion", deadline_s: 90, run: restarts_after_exhaustion },
    Case { name: "kernel-killed-still-runs-procedure", deadline_s: 90, run: kernel_killed },
    Case { name: "procedure-hangs", deadline_s: 90, run: procedure_hangs },
    Case { name: "procedure-crashes", deadline_s: 90, run: procedure_crashes },
    Case { name: "procedure-fails", deadline_s: 90, run: procedure_fails },
    Case { name: "procedure-forks-and-exits", deadline_s: 90, run: procedure_forks_and_exits },
    Case { name: "procedure-outgrows-its-share", deadline_s: 90, run: procedure_outgrows_its_share },
    Case { name: "procedure-missing", deadline_s: 90, run: procedure_missing },
    Case { name: "run-guards-a-command", deadline_s: 90, run: run_guards_a_command },
    Case { name: "two-exhaustions-at-once", deadline_s: 120, run: two_exhaustions_at_once },
];

const EXHAUSTION: Duration = Duration::from_secs(60);
const UP: Duration = Duration::from_secs(20);

/// Starts a unit that leaks and waits until that is over.
fn exhaust(guest: &Guest, unit: &str) -> Result<Incident, String> {
    let before = guest.last_incident()?;
    guest.start(unit)?;
    guest.wait_incident(unit, before, EXHAUSTION)
}

/// What must hold after every exhaustion of a shielded unit, however its procedure behaved.
fn held(guest: &Guest, incident: &Incident, kills_before: u64) -> Result<(), String> {
    expect("cause", &incident.cause, &Cause::Exhaustion)?;
    expect("who ended the service", &incident.killer, &Killer::Lifeboat)?;
    expect(
        "kernel OOM kills in the cgroup",
        &incident.counters.oom_kill,
        &incident.counters_at_start.oom_kill,
    )?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills_before)?;
    ensure(incident.frozen.is_some(), || "the service was not frozen".into())
}

fn loses_nothing(guest: &mut Guest, unit: &str) -> Result<(), String> {
    let (bystander, kills) = (guest.bystander()?, guest.kernel_kills()?);
    let incident = exhaust(guest, unit)?;
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    held(guest, &incident, kills)?;
    all_saved(unit, &incident)?;
    // `then: Stop`: it is down and stays down.
    guest.wait(unit, UP, |snapshot| {
        let state = supervisor::unit(snapshot, unit)?.state;
        matches!(state, StateName::Stopped | StateName::Exited | StateName::Fatal).then_some(())
    })?;
    bystander.is_unharmed(guest)
}

/// With huge pages, or the case would not show what its name says.
fn populate_loses_nothing(guest: &mut Guest) -> Result<(), String> {
    crate::guest::allow_huge_pages()?;
    let before = crate::guest::huge_page_faults()?;
    loses_nothing(guest, "leak-populate")?;
    ensure(crate::guest::huge_page_faults()? > before, || "the kernel gave no huge page".into())
}

fn bystander_lives(guest: &mut Guest) -> Result<(), String> {
    let bystander = guest.bystander()?;
    for unit in ["leak-threads", "leak-populate", "leak-tmpfs"] {
        exhaust(guest, unit)?;
        bystander.is_unharmed(guest).map_err(|error| format!("after {unit}: {error}"))?;
    }
    Ok(())
}

fn incident_tells_the_story(guest: &mut Guest) -> Result<(), String> {
    let unit = "leak-flat-out";
    let incident = exhaust(guest, unit)?;
    let times = [
        Some(incident.began),
        incident.frozen,
        incident.released,
        incident.procedure_running,
        incident.procedure_ended,
        incident.killed,
        incident.emptied,
    ];
    ensure(times.iter().all(Option::is_some), || format!("a time is missing: {incident:?}"))?;
    ensure(times.is_sorted(), || format!("not in order: {incident:?}"))?;
    let known = matches!(incident.verdict, Verdict::OomEvent { oom: 1.. } | Verdict::Predicted { .. });
    ensure(known, || format!("verdict {:?}", incident.verdict))?;
    let (code, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
    expect("exit code of lifeboatctl why", &code, &0)?;
    let lower = text.to_lowercase();
    for word in [unit, "memory", "frozen", "procedure", "kill"] {
        ensure(lower.contains(word), || format!("lifeboatctl why has no word of {word:?}: {text}"))?;
    }
    let (code, text) = run(&["/usr/bin/lifeboatctl", "why", unit, "--json"])?;
    expect("exit code of lifeboatctl why --json", &code, &0)?;
    serde_json::from_str::<serde_json::Value>(&text).map(drop).map_err(|error| format!("{error}: {text}"))
}

/// Waits until the unit is up in a later life than that of the incident, then stops it.
fn restarted(guest: &Guest, unit: &str, incident: &Incident) -> Result<(), String> {
    let up = guest.wait(unit, UP, |snapshot| {
        let unit = supervisor::unit(snapshot, unit)?;
        (unit.state == StateName::Running && unit.run > incident.run).then_some(())
    });
    let stopped = guest.stop(unit);
    up.and(stopped).map_err(|error| format!("{unit} is not restarted: {error}"))
}

fn restarts_after_exhaustion(guest: &mut Guest) -> Result<(), String> {
    let (unit, kills) = ("leak-restarts", guest.kernel_kills()?);
    let incident = exhaust(guest, unit)?;
    held(guest, &incident, kills)?;
    all_saved(unit, &incident)?;
    restarted(guest, unit, &incident)
}

fn kernel_killed(guest: &mut Guest) -> Result<(), String> {
    let unit = "killed-by-kernel";
    let (bystander, kills) = (guest.bystander()?, guest.kernel_kills()?);
    let incident = exhaust(guest, unit)?;
    expect("cause", &incident.cause, &Cause::KernelOomKill)?;
    expect("who ended the service", &incident.killer, &Killer::KernelCgroup)?;
    ensure(guest.kernel_kills()? > kills, || "the kernel says that it killed nothing".into())?;
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    all_saved(unit, &incident)?;
    bystander.is_unharmed(guest)
}

/// A procedure that does not save: the kill is not later than its deadline, the service comes back, and
/// nobody else notices.
fn misbehaves(guest: &Guest, unit: &str, judge: fn(&ProcedureResult) -> bool) -> Result<Incident, String> {
    let (bystander, kills) = (guest.bystander()?, guest.kernel_kills()?);
    let incident = exhaust(guest, unit)?;
    ensure(judge(&incident.procedure), || format!("the incident says {:?}", incident.procedure))?;
    expect("cause", &incident.cause, &Cause::Exhaustion)?;
    expect("who ended the service", &incident.killer, &Killer::Lifeboat)?;
    let after_ms =
        incident.killed.zip(incident.released).map(|(killed, released)| killed.since_us(released) / 1_000);
    // One second is the procedures' deadline in these units; the rest is for a slow machine.
    ensure(after_ms.is_none_or(|ms| ms < 3_000), || {
        format!("killed {after_ms:?} ms after the procedure's start")
    })?;
    // Its own OOM kill is in its own cgroup: the service's counters stay.
    expect(
        "kernel OOM kills in the service",
        &incident.counters.oom_kill,
        &incident.counters_at_start.oom_kill,
    )?;
    told(unit, incident.procedure)?;
    restarted(guest, unit, &incident)?;
    bystander.is_unharmed(guest)?;
    ensure(guest.kernel_kills()? <= kills + 1, || "the kernel killed more than the procedure".into())?;
    Ok(incident)
}

/// `why` has how the procedure went in words.
fn told(unit: &str, result: ProcedureResult) -> Result<(), String> {
    let words = match result {
        ProcedureResult::Ended(Exit::Code(code)) => format!("procedure: ended with exit code {code}"),
        ProcedureResult::Ended(Exit::Signal(11)) => "SIGSEGV".into(),
        ProcedureResult::TimedOut => "procedure: was killed at its deadline".into(),
        ProcedureResult::OutOfMemory => "procedure: ran out of its own memory and was killed".into(),
        other => format!("no words for {other:?}"),
    };
    let (_, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
    ensure(text.contains(&words), || format!("why {unit} has no {words:?}: {text}"))
}

fn procedure_hangs(guest: &mut Guest) -> Result<(), String> {
    let incident = misbehaves(guest, "procedure-hangs", |result| *result == ProcedureResult::TimedOut)?;
    let held_us =
        incident.killed.zip(incident.released).map_or(0, |(killed, released)| killed.since_us(released));
    ensure(held_us >= 990_000, || format!("killed after {held_us} us, before its deadline of 1 s"))
}

fn procedure_crashes(guest: &mut Guest) -> Result<(), String> {
    let crashed = |result: &ProcedureResult| *result == ProcedureResult::Ended(Exit::Signal(11));
    misbehaves(guest, "procedure-crashes", crashed).map(drop)
}

fn procedure_fails(guest: &mut Guest) -> Result<(), String> {
    let failed = |result: &ProcedureResult| *result == ProcedureResult::Ended(Exit::Code(3));
    let incident = misbehaves(guest, "procedure-fails", failed)?;
    all_saved("procedure-fails", &incident)
}

fn procedure_forks_and_exits(guest: &mut Guest) -> Result<(), String> {
    let ended = |result: &ProcedureResult| *result == ProcedureResult::Ended(Exit::Code(0));
    let incident = misbehaves(guest, "procedure-forks", ended)?;
    all_saved("procedure-forks", &incident)?;
    let left = || super::units::processes_with(&["recorder-flush", "--hang", "-"]).is_empty().then_some(());
    guest.until("the procedure's child still lives", UP, left)
}

fn procedure_outgrows_its_share(guest: &mut Guest) -> Result<(), String> {
    // Whether the kernel kills it or lifeboat at the deadline, depends on how the share is held.
    let outgrown =
        |result: &ProcedureResult| matches!(result, ProcedureResult::OutOfMemory | ProcedureResult::TimedOut);
    misbehaves(guest, "procedure-eats", outgrown).map(drop)
}

/// Found out before the service runs, and not when its data is at stake.
fn procedure_missing(guest: &mut Guest) -> Result<(), String> {
    let (unit, bystander) = ("procedure-missing", guest.bystander()?);
    expect("start", &guest.ask("Start", unit)?.as_str(), &"Failed")?;
    let shown = guest.wait_state(unit, StateName::Fatal, UP)?;
    let expected = Trouble::SpawnFailed { stage: SpawnStage::Exec, errno: 2, procedure: true };
    expect("trouble", &shown.trouble, &Some(expected))?;
    bystander.is_unharmed(guest)
}

/// A command that no unit file knows, by `lifeboatctl run`.
fn run_guards_a_command(guest: &mut Guest) -> Result<(), String> {
    let (unit, kills, before) = ("guarded", guest.kernel_kills()?, guest.last_incident()?);
    let (code, text) = run(&[
        "/usr/bin/lifeboatctl",
        "run",
        "--name=guarded",
        "--memory-max=16MiB",
        "--procedure=recorder-flush /run/guarded/ring /run/guarded/saved.bin",
        "--procedure-memory=2MiB",
        "--deadline=10s",
        "--",
        "recorder",
        "--ring=/run/guarded/ring",
        "--leak=flat-out",
        "--leak-after=200ms",
    ])?;
    expect(&format!("exit code of run ({text:?})"), &code, &0)?;
    let incident = guest.wait_incident(unit, before, EXHAUSTION)?;
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    held(guest, &incident, kills)?;
    all_saved(unit, &incident)?;
    guest.wait_state(unit, StateName::Stopped, UP)?;
    let (code, text) = run(&["/usr/bin/lifeboatctl", "remove", unit])?;
    expect(&format!("exit code of remove ({text:?})"), &code, &0)
}

fn two_exhaustions_at_once(guest: &mut Guest) -> Result<(), String> {
    let (bystander, kills, before) = (guest.bystander()?, guest.kernel_kills()?, guest.last_incident()?);
    let twins = ["twin-a", "twin-b"];
    for unit in twins {
        guest.start(unit)?;
    }
    for unit in twins {
        let incident = guest.wait_incident(unit, before, EXHAUSTION)?;
        held(guest, &incident, kills)?;
        all_saved(unit, &incident)?;
    }
    bystander.is_unharmed(guest)
}
