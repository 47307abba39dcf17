//! What units say of each other: groups, templates, wishes, conflicts, conditions, circles, restarts in company.

use super::Case;
use crate::guest::{Guest, ensure, expect, run};
use crate::speaker::cue;
use crate::supervisor;
use lifeboat::engine::policy::Kind;
use lifeboat::engine::snapshot::{StateName, Trouble, UnitView};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "target-groups", deadline_s: 40, run: target_groups },
    Case { name: "template-instance", deadline_s: 40, run: template_instance },
    Case { name: "wanted-failure-is-no-matter", deadline_s: 40, run: wanted_failure },
    Case { name: "conflict-stops-the-other", deadline_s: 40, run: conflict_stops_the_other },
    Case { name: "condition-skips", deadline_s: 40, run: condition_skips },
    Case { name: "cycle-is-named-and-the-rest-starts", deadline_s: 20, run: cycle_is_named },
    Case { name: "requirement-restart-in-order", deadline_s: 40, run: requirement_restart },
    Case { name: "requirement-death-keeps-or-restarts", deadline_s: 40, run: requirement_death },
    Case { name: "starts-in-parallel", deadline_s: 60, run: starts_in_parallel },
    Case { name: "task-runs-again", deadline_s: 40, run: task_runs_again },
];

/// With `lifeboat.target=graph-boot` on the kernel's command line.
pub(crate) const TARGET: &[Case] =
    &[Case { name: "command-line-names-the-target", deadline_s: 30, run: command_line_target }];

/// With a target that is not there.
pub(crate) const NO_TARGET: &[Case] =
    &[Case { name: "unknown-target-boots-as-ever", deadline_s: 30, run: unknown_target }];

const UP: Duration = Duration::from_secs(20);

fn lifeboatctl(words: &[&str]) -> Result<(i32, String), String> {
    run(&[&["/usr/bin/lifeboatctl"], words].concat())
}

fn up(guest: &Guest, unit: &str) -> Result<UnitView, String> {
    guest.wait_state(unit, StateName::Running, UP)
}

fn same_life(one: &UnitView, two: &UnitView) -> bool {
    (one.run, one.pid) == (two.run, two.pid)
}

fn target_groups(guest: &mut Guest) -> Result<(), String> {
    guest.start("graph-target")?;
    let target = guest.unit("graph-target")?;
    expect(
        "kind, state, pid",
        &(target.kind, target.state, target.pid),
        &(Kind::Target, StateName::Running, None),
    )?;
    for unit in ["graph-one", "graph-two"] {
        expect(unit, &guest.unit(unit)?.state, &StateName::Running)?;
    }
    let (code, text) = lifeboatctl(&["status", "graph-target"])?;
    ensure(code == 0 && text.contains("RUNNING   uptime 0:"), || format!("status: {code} {text:?}"))?;
    guest.stop("graph-one")?;
    let target = guest.wait_state("graph-target", StateName::Stopped, UP)?;
    ensure(target.desired == lifeboat::engine::snapshot::Desired::Down, || format!("{target:?}"))?;
    expect("the other unit", &guest.unit("graph-two")?.state, &StateName::Running)?;
    guest.stop("graph-two")
}

fn template_instance(guest: &mut Guest) -> Result<(), String> {
    let made = |what: &str| Path::new(&format!("/run/made.{what}")).exists();
    guest.start("make@listed")?;
    ensure(made("listed"), || "the listed instance has made nothing".into())?;
    expect(
        "description",
        &guest.unit("make@listed")?.description.as_str(),
        &"Makes /run/made.listed, a hundred % of it",
    )?;
    guest.start("graph-makes")?;
    ensure(made("named"), || "the named instance has made nothing".into())?;
    ensure(made("by-own-file") && !made("own"), || "the own file does not replace the template".into())?;
    let names: Vec<String> = guest.status()?.units.into_iter().map(|unit| unit.name).collect();
    ensure(!names.iter().any(|name| name == "make@"), || "the template itself is a unit".into())?;
    guest.start("make@asked")?;
    ensure(made("asked"), || "the instance that was asked for has made nothing".into())?;
    expect("remove", &lifeboatctl(&["remove", "make@asked"])?.0, &0)?;
    guest.stop("graph-makes")
}

fn wanted_failure(guest: &mut Guest) -> Result<(), String> {
    guest.start("graph-wants")?;
    expect("the wanted unit", &guest.unit("command-missing")?.state, &StateName::Fatal)?;
    let faults = guest.status()?.system.faults;
    let told = |fault: &&String| fault.contains("/graph-wants.ron:5:") && fault.contains("`graph-nobody`");
    ensure(faults.iter().any(|fault| told(&fault)), || format!("nobody is missed: {faults:?}"))?;
    guest.stop("graph-wants")
}

fn conflict_stops_the_other(guest: &mut Guest) -> Result<(), String> {
    guest.start("graph-client")?;
    let client = up(guest, "graph-client")?;
    let pid = client.pid.ok_or("the client has no pid")?;
    guest.start("graph-ap")?;
    // The client needs 200 ms to be killed: the start was answered after that.
    ensure(!Path::new(&format!("/proc/{pid}")).exists(), || {
        "the client lives beside the access point".into()
    })?;
    expect("the client", &guest.unit("graph-client")?.state, &StateName::Stopped)?;
    let (_, text) = lifeboatctl(&["status", "graph-client"])?;
    ensure(text.contains("gave way to graph-ap, with which it conflicts"), || format!("status: {text:?}"))?;
    // The other way round, although only one of the files says so.
    guest.start("graph-client")?;
    expect("the access point", &guest.unit("graph-ap")?.state, &StateName::Stopped)?;
    guest.stop("graph-client")
}

fn condition_skips(guest: &mut Guest) -> Result<(), String> {
    const FILE: &str = "/run/graph.condition";
    let unit = "graph-conditions";
    let _ = std::fs::remove_file(FILE);
    let (code, text) = lifeboatctl(&["start", unit])?;
    expect("exit code and words of start", &(code, text.trim()), &(0, "graph-conditions: skipped"))?;
    let words = "SKIPPED   not met: PathExists(\"/run/graph.condition\")";
    let (code, text) = lifeboatctl(&["status", unit])?;
    ensure(code == 0 && text.contains(words), || format!("status: {code} {text:?}"))?;
    let (_, text) = lifeboatctl(&["why", unit])?;
    ensure(text.contains("not met: PathExists(\"/run/graph.condition\")"), || format!("why: {text:?}"))?;
    guest.start("graph-on-conditions")?;
    expect("state", &guest.unit(unit)?.state, &StateName::Skipped)?;
    guest.stop("graph-on-conditions")?;
    File::create(FILE).map_err(|error| format!("{FILE}: {error}"))?;
    guest.start("graph-on-conditions")?;
    expect("state with the file", &guest.unit(unit)?.state, &StateName::Running)?;
    guest.stop(unit)?;
    expect("what requires it", &guest.unit("graph-on-conditions")?.state, &StateName::Stopped)
}

fn cycle_is_named(guest: &mut Guest) -> Result<(), String> {
    let snapshot = guest.status()?;
    for name in ["graph-circle-a", "graph-circle-b", "graph-circle-c"] {
        let unit = supervisor::unit(&snapshot, name).ok_or_else(|| format!("{name} is not listed"))?;
        expect(name, &(unit.state, unit.trouble), &(StateName::Fatal, Some(Trouble::OrderCycle)))?;
    }
    let way = "graph-circle-a → graph-circle-b → graph-circle-c → graph-circle-a";
    let faults = &snapshot.system.faults;
    let fault = faults.iter().find(|fault| fault.contains(way)).ok_or_else(|| format!("{faults:?}"))?;
    for step in [
        "graph-circle-a waits for graph-circle-b: /etc/lifeboat/units/graph-circle-a.ron:4:16: requires",
        "graph-circle-b waits for graph-circle-c: /etc/lifeboat/units/graph-circle-b.ron:4:13: after",
        "graph-circle-c waits for graph-circle-a: /etc/lifeboat/units/graph-circle-c.ron:4:13: wants",
    ] {
        ensure(fault.contains(step), || format!("no {step:?} in {fault}"))?;
    }
    // The driver itself is one of the others.
    let (_, text) = lifeboatctl(&["start", "graph-circle-a"])?;
    ensure(text.contains("ERROR (circular order)"), || format!("start: {text:?}"))
}

fn requirement_restart(guest: &mut Guest) -> Result<(), String> {
    guest.start("graph-keeps")?;
    guest.start("graph-follows")?;
    let (base, keeps, follows) =
        (up(guest, "graph-base")?, up(guest, "graph-keeps")?, up(guest, "graph-follows")?);
    // Its own start limit is one start: what it does for another unit's sake does not count.
    for _ in 0..3 {
        expect("restart", &guest.ask("Restart", "graph-base")?.as_str(), &"Started")?;
        up(guest, "graph-follows")?;
    }
    let (base_now, follows_now) = (up(guest, "graph-base")?, up(guest, "graph-follows")?);
    ensure(base_now.run.0 == base.run.0 + 3, || format!("the base is in run {}", base_now.run.0))?;
    ensure(follows_now.run.0 == follows.run.0 + 3, || {
        format!("the follower is in run {}", follows_now.run.0)
    })?;
    ensure(base_now.since < follows_now.since, || "the follower is up before what it requires".into())?;
    ensure(same_life(&keeps, &guest.unit("graph-keeps")?), || "the unit that keeps was restarted".into())?;
    guest.stop("graph-base")
}

fn requirement_death(guest: &mut Guest) -> Result<(), String> {
    guest.start("graph-keeps")?;
    guest.start("graph-follows")?;
    let (base, keeps, follows) =
        (up(guest, "graph-base")?, up(guest, "graph-keeps")?, up(guest, "graph-follows")?);
    let pid = base.pid.and_then(|pid| i32::try_from(pid).ok()).ok_or("the base has no pid")?;
    kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|error| format!("kill {pid}: {error}"))?;
    // While the base waits for its restart (300 ms) the follower waits for the base, and the other goes on.
    let both = guest.wait("graph-base", UP, |snapshot| {
        let base =
            supervisor::unit(snapshot, "graph-base").filter(|unit| unit.state == StateName::Backoff)?;
        let follows = supervisor::unit(snapshot, "graph-follows").filter(|unit| unit.pid.is_none())?;
        Some((base.clone(), follows.clone()))
    })?;
    expect("the follower", &both.1.state, &StateName::Starting)?;
    let again = guest.wait("graph-follows", UP, |snapshot| {
        let unit = supervisor::unit(snapshot, "graph-follows")?;
        (unit.state == StateName::Running && unit.run > follows.run).then(|| unit.clone())
    })?;
    expect("the follower's run", &again.run.0, &(follows.run.0 + 1))?;
    ensure(up(guest, "graph-base")?.since < again.since, || "it is up before what it requires".into())?;
    ensure(same_life(&keeps, &guest.unit("graph-keeps")?), || "the unit that keeps was restarted".into())?;
    guest.stop("graph-base")
}

fn starts_in_parallel(guest: &mut Guest) -> Result<(), String> {
    let names: Vec<String> = (1..=8).map(|number| format!("wide@{number}")).collect();
    let _ = std::fs::remove_file(cue("graph-wide"));
    let asked = std::thread::spawn(|| lifeboatctl(&["start", "graph-wide"]));
    // None is ready before the cue, so all that have a process now are starting at the same time.
    let half_up = |unit: &&UnitView| unit.state == StateName::Starting && unit.pid.is_some();
    guest.wait("wide@8", UP, |snapshot| {
        let units = names.iter().filter_map(|name| supervisor::unit(snapshot, name));
        (units.filter(half_up).count() == names.len()).then_some(())
    })?;
    expect("the target", &guest.unit("graph-wide")?.state, &StateName::Starting)?;
    File::create(cue("graph-wide")).map_err(|error| format!("the cue: {error}"))?;
    let (code, text) = asked.join().map_err(|_| "the thread that asked panicked".to_owned())??;
    expect(&format!("exit code of start ({text:?})"), &code, &0)?;
    for name in &names {
        expect(name, &guest.unit(name)?.state, &StateName::Running)?;
    }
    names.iter().try_for_each(|name| guest.stop(name))
}

fn task_runs_again(guest: &mut Guest) -> Result<(), String> {
    for run in 1..=3 {
        guest.start("graph-task")?;
        let task = guest.unit("graph-task")?;
        expect("state and run", &(task.state, task.run.0), &(StateName::Done, run))?;
    }
    Ok(())
}

fn command_line_target(guest: &mut Guest) -> Result<(), String> {
    up(guest, "graph-one")?;
    // It requires the driver, which is a task that is not over.
    expect("the target", &guest.unit("graph-boot")?.state, &StateName::Starting)?;
    let snapshot = guest.status()?;
    let others: Vec<&str> = snapshot
        .units
        .iter()
        .filter(|unit| unit.run.0 > 0 && !["driver", "graph-one", "graph-boot"].contains(&unit.name.as_str()))
        .map(|unit| unit.name.as_str())
        .collect();
    expect("started besides", &others, &vec![])
}

fn unknown_target(guest: &mut Guest) -> Result<(), String> {
    let faults = guest.status()?.system.faults;
    let told = |fault: &String| fault.contains("lifeboat.target: there is no unit `no-such-target` to boot");
    // That the driver says so shows that the units with autostart run.
    ensure(faults.iter().any(told), || format!("nobody says so: {faults:?}"))
}
