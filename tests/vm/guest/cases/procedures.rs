//! Shutdown procedures: what they are handed, and what the service does meanwhile.

use super::Case;
use crate::guest::{Guest, all_saved, ensure, expect, read, run};
use crate::keeper::{RECORDS, kept_path};
use crate::saver::found;
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{Incident, ProcedureResult, StateName, UnitView};
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "memfd-is-handed-over", deadline_s: 60, run: |g| handed_over(g, &["memory: in the memfd"]) },
    Case {
        name: "stored-pipe-is-handed-over",
        deadline_s: 60,
        run: |g| handed_over(g, &["pipe: in the pipe"]),
    },
    Case {
        name: "stored-socket-and-eventfd-are-handed-over",
        deadline_s: 60,
        run: |g| handed_over(g, &["socket: in the socket", "event: eventfd"]),
    },
    Case { name: "service-saves-itself", deadline_s: 60, run: saves_itself },
    Case { name: "service-uses-up-its-loan", deadline_s: 60, run: uses_up_its_loan },
    Case { name: "service-saves-beside-its-procedure", deadline_s: 60, run: saves_beside },
    Case { name: "service-killed-before-its-procedure", deadline_s: 60, run: killed_first },
    Case { name: "drill-to-the-procedure-and-back", deadline_s: 90, run: drill_and_back },
    Case { name: "drill-to-the-end", deadline_s: 60, run: drill_to_the_end },
    Case { name: "drills-by-itself", deadline_s: 90, run: drills_by_itself },
    Case { name: "second-procedure-saves", deadline_s: 90, run: second_saves },
    Case { name: "procedure-is-handed-on", deadline_s: 60, run: handed_on },
    Case { name: "drill-is-refused", deadline_s: 60, run: drill_is_refused },
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
    let (unit, bystander) = ("handed-over", guest.bystander()?);
    let _ = std::fs::remove_file(found(unit));
    let incident = exhaust(guest, unit)?;
    saved(&incident)?;
    let (_, why) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
    ensure(why.contains("procedure: ended with exit code 0"), || format!("why {unit}: {why}"))?;
    bystander.is_unharmed(guest)?;
    let text = read(&found(unit))?;
    for line in lines {
        expect(&format!("a line of {text:?}"), &text.lines().filter(|found| found == line).count(), &1)?;
    }
    guest.stop(unit)
}

const SAVED_ITSELF: ProcedureResult = ProcedureResult::SavedItself(Exit::Code(0));

/// Every record that it had is in its file.
fn kept(unit: &str) -> Result<(), String> {
    let text = read(&kept_path(unit))?;
    let records = text.lines().zip(0_u64..).filter(|(line, number)| line.parse() == Ok(*number)).count();
    expect("records saved", &u64::try_from(records).unwrap_or(0), &RECORDS)
}

/// It needs more memory for that than it had left; the next run, and the pool, have their own bounds again.
fn saves_itself(guest: &mut Guest) -> Result<(), String> {
    let unit = "saves-itself";
    let pool_bytes = read("/sys/fs/cgroup/pool/memory.max")?;
    for _ in 0..5 {
        let _ = std::fs::remove_file(kept_path(unit));
        let incident = exhaust(guest, unit)?;
        expect("procedure", &incident.procedure, &SAVED_ITSELF)?;
        expect("frozen", &incident.frozen, &None)?;
        kept(unit)?;
        guest.stop(unit)?;
    }
    expect("pool", &read("/sys/fs/cgroup/pool/memory.max")?, &pool_bytes)?;
    expect("its bound", &read("/sys/fs/cgroup/pool/saves-itself/memory.max")?.trim(), &"12582912")
}

fn uses_up_its_loan(guest: &mut Guest) -> Result<(), String> {
    let kills = guest.kernel_kills()?;
    let incident = exhaust(guest, "saves-itself-not")?;
    expect("procedure", &incident.procedure, &ProcedureResult::LoanSpent)?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)
}

fn saves_beside(guest: &mut Guest) -> Result<(), String> {
    let unit = "saves-beside";
    let incident = exhaust(guest, unit)?;
    saved(&incident)?;
    expect("reason", &read("/tmp/saves-beside.reason")?.trim(), &"exhaustion")?;
    kept(unit)
}

/// What it recorded last may be lost with it; what was in shared memory is saved.
fn killed_first(guest: &mut Guest) -> Result<(), String> {
    let unit = "killed-first";
    let incident = exhaust(guest, unit)?;
    saved(&incident)?;
    let order = [incident.killed, incident.released, incident.procedure_ended, incident.emptied];
    ensure(order.is_sorted() && order.iter().all(Option::is_some), || format!("{incident:?}"))?;
    all_saved(unit, &incident)
}

fn drill(words: &[&str]) -> Result<(i32, String), String> {
    run(&["/bin/sh", "-c", &format!("/usr/bin/lifeboatctl drill {} 2>&1", words.join(" "))])
}

/// Twice in one run, which then is exhausted: the procedure was parked anew each time, and all is saved.
fn drill_and_back(guest: &mut Guest) -> Result<(), String> {
    let unit = "drilled";
    let before = guest.last_incident()?;
    guest.start(unit)?;
    let up = guest.unit(unit)?;
    for _ in 0..2 {
        let (code, text) = drill(&[unit])?;
        guest.figure(text.trim());
        ensure(code == 0 && text.contains("as before after") && text.contains("to set: shutdown:"), || {
            format!("exit code {code}: {text}")
        })?;
        let now = guest.unit(unit)?;
        expect("state", &now.state, &StateName::Running)?;
        expect("process and run", &(now.pid, now.run), &(up.pid, up.run))?;
        let shown = now.drill.ok_or("no drill on record")?;
        expect("procedure", &shown.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
        ensure(shown.peak_bytes.is_some_and(|peak| peak < 2 << 20), || format!("{shown:?}"))?;
    }
    expect("incidents", &guest.last_incident()?, &before)?;
    let incident = guest.wait_incident(unit, before, EXHAUSTION)?;
    saved(&incident)?;
    all_saved(unit, &incident)?;
    guest.stop(unit)
}

/// Again and again in one run, whatever the procedure does.
fn drills_by_itself(guest: &mut Guest) -> Result<(), String> {
    let unit = "drills-by-itself";
    let fails = "/run/drills-by-itself/fails";
    let before = guest.last_incident()?;
    guest.start(unit)?;
    let up = guest.unit(unit)?;
    let shown = |expected: &str| {
        let (code, text) = run(&["/bin/sh", "-c", &format!("/usr/bin/lifeboatctl status {unit} 2>&1")])?;
        guest.figure(text.trim());
        ensure(code == 0 && text.contains(expected), || format!("exit code {code}: {text}"))
    };
    let mut last = up.since;
    for (exit, expected) in [(0, "to set: shutdown:"), (0, "of 10 s"), (1, "FAILED, procedure ended")] {
        if exit > 0 {
            std::fs::write(fails, "").map_err(|error| format!("{fails}: {error}"))?;
        }
        let ended = ProcedureResult::Ended(Exit::Code(exit));
        let next = |now: &UnitView| {
            let drill =
                now.drill.filter(|it| it.began > last && it.over.is_some() && it.procedure == ended)?;
            Some((drill, now.pid, now.run))
        };
        let look = || guest.unit(unit).ok().as_ref().and_then(next);
        let (drill, pid, run) = guest.until("it is not drilled", Duration::from_secs(20), look)?;
        ensure(drill.began.since_us(last) >= 1_000_000, || format!("{drill:?} after {last:?}"))?;
        expect("process and run", &(pid, run), &(up.pid, up.run))?;
        shown(expected)?;
        last = drill.began;
    }
    expect("incidents", &guest.last_incident()?, &before)?;
    guest.stop(unit)
}

/// Whatever the first one does: all is saved, and both are told.
fn second_saves(guest: &mut Guest) -> Result<(), String> {
    let kinds = [
        ("otherwise-fails", &[ProcedureResult::Ended(Exit::Code(1))][..], "exit code 1"),
        ("otherwise-hangs", &[ProcedureResult::TimedOut], "killed at its deadline"),
        // Whether the kernel kills it or lifeboat at the deadline, depends on how the share is held.
        ("otherwise-eats", &[ProcedureResult::OutOfMemory, ProcedureResult::TimedOut], "killed"),
    ];
    let bystander = guest.bystander()?;
    for (unit, first, words) in kinds {
        let incident = exhaust(guest, unit)?;
        saved(&incident)?;
        ensure(incident.first_procedure.is_some_and(|it| first.contains(&it)), || format!("{incident:?}"))?;
        all_saved(unit, &incident)?;
        let (_, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
        let told = text.lines().any(|line| line.contains("first procedure") && line.contains(words));
        ensure(told, || format!("why {unit}: {text}"))?;
        guest.stop(unit)?;
    }
    bystander.is_unharmed(guest)
}

/// A restart takes over the process that is parked, and that saves what the new run records.
fn handed_on(guest: &mut Guest) -> Result<(), String> {
    let unit = "drilled";
    let parked = || read("/sys/fs/cgroup/shutdown/drilled/cgroup.procs");
    let before = guest.last_incident()?;
    guest.start(unit)?;
    let (first, first_parked) = (guest.unit(unit)?, parked()?);
    guest.ask("Restart", unit)?;
    let second = guest.unit(unit)?;
    ensure(second.run.0 == first.run.0 + 1 && second.pid != first.pid, || format!("{second:?}"))?;
    expect("parked process", &parked()?, &first_parked)?;
    let incident = guest.wait_incident(unit, before, EXHAUSTION)?;
    saved(&incident)?;
    all_saved(unit, &incident)?;
    guest.stop(unit)?;
    expect("left after a stop", &parked()?.as_str(), &"")
}

/// The whole way, and no incident.
fn drill_to_the_end(guest: &mut Guest) -> Result<(), String> {
    let unit = "drilled";
    let before = guest.last_incident()?;
    guest.start(unit)?;
    let run_before = guest.unit(unit)?.run.0;
    let (code, text) = drill(&[unit, "--to-the-end"])?;
    ensure(code == 0 && text.contains("all gone after"), || format!("exit code {code}: {text}"))?;
    let now = guest.unit(unit)?;
    expect("run", &now.run.0, &(run_before + 1))?;
    expect("incidents", &guest.last_incident()?, &before)?;
    guest.stop(unit)
}

fn drill_is_refused(guest: &mut Guest) -> Result<(), String> {
    let check = |words: &[&str], expected: &str| {
        let (code, text) = drill(words)?;
        ensure(code != 0 && text.contains(expected), || format!("{words:?}: exit code {code}: {text}"))
    };
    check(&["drilled"], "it is not RUNNING")?;
    check(&["no-such-unit"], "no-such-unit")?;
    check(&["bystander"], "no way back")?;
    check(&["bystander", "--to-the-end"], "it has no shutdown procedure")?;
    guest.start("killed-first")?;
    check(&["killed-first"], "--to-the-end")?;
    guest.stop("killed-first")
}

fn pidfd_and_cgroup(guest: &mut Guest) -> Result<(), String> {
    let cgroup = "cgroup /sys/fs/cgroup/pool/handed-over: populated 1 frozen 1";
    handed_over(guest, &["pidfd is of the first process: true", cgroup])
}
