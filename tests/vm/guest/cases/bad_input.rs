//! Bad procedures and bad services that no other case has: each exhaustion ends by its deadline, is told, and costs
//! nobody else anything.

use super::Case;
use super::units::processes_with;
use crate::bad::{ELSEWHERE, PORT};
use crate::guest::{Guest, ensure, expect, run};
use crate::supervisor;
use lifeboat::engine::event::{Exit, SpawnStage};
use lifeboat::engine::snapshot::{Failure, Incident, Killer, ProcedureResult, Snapshot, StateName, Trouble};
use nix::mount::{MsFlags, mount, umount};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "procedure-without-its-interpreter", deadline_s: 40, run: without_interpreter },
    Case { name: "procedure-not-executable", deadline_s: 40, run: not_executable },
    Case { name: "procedure-kills-its-parent", deadline_s: 60, run: kills_its_parent },
    Case { name: "procedure-on-a-full-disk", deadline_s: 60, run: on_a_full_disk },
    Case { name: "service-flees-from-signals", deadline_s: 60, run: flees },
    Case { name: "service-holds-the-lock", deadline_s: 60, run: holds_the_lock },
    Case { name: "service-holds-the-port", deadline_s: 90, run: holds_the_port },
    Case { name: "service-leaves-its-cgroup", deadline_s: 60, run: leaves_its_cgroup },
];

const SOON: Duration = Duration::from_secs(30);
const CTL: &str = "/usr/bin/lifeboatctl";

/// Makes a unit for this boot and starts it; the outcome of `lifeboatctl run` and its words.
fn make(unit: &str, procedure: &str, way: &[&str]) -> Result<(i32, String), String> {
    let name = format!("--name={unit}");
    let procedure = format!("--procedure={procedure}");
    let fixed = ["--memory-max=8MiB", "--procedure-memory=4MiB", "--deadline=2s", "--"];
    let words = [&[CTL, "run", &name, &procedure][..], &fixed, way].concat();
    run(&words)
}

fn remove(unit: &str) -> Result<(), String> {
    let (code, text) = run(&[CTL, "remove", unit])?;
    expect(&format!("exit code of remove ({text:?})"), &code, &0)
}

/// A file that is a procedure.
fn script(path: &str, text: &str, mode: u32) -> Result<(), String> {
    let made =
        fs::write(path, text).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    made.map_err(|error| format!("{path}: {error}"))
}

fn why_has(unit: &str, words: &[&str]) -> Result<(), String> {
    let (_, text) = run(&[CTL, "why", unit])?;
    let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
    ensure(missing.is_empty(), || format!("why {unit} has no {missing:?}: {text}"))
}

/// Exhausts a bad pair, and looks that its end is in time, is told, and is nobody else's.
fn ends(
    guest: &Guest,
    (unit, procedure): (&str, &str),
    way: &[&str],
    (result, words): (ProcedureResult, &[&str]),
) -> Result<Incident, String> {
    let (bystander, kills, before) = (guest.bystander()?, guest.kernel_kills()?, guest.last_incident()?);
    let (code, text) = make(unit, procedure, way)?;
    expect(&format!("exit code of run ({text:?})"), &code, &0)?;
    let incident = guest.wait_incident(unit, before, SOON)?;
    expect("procedure", &incident.procedure, &result)?;
    expect("who ended the service", &incident.killer, &Killer::Lifeboat)?;
    ensure(incident.emptied.is_some(), || format!("it is not empty: {incident:?}"))?;
    let took_us = incident.killed.zip(incident.released).map(|(killed, released)| killed.since_us(released));
    // Two seconds are the deadline; the rest is for a slow machine.
    ensure(took_us.is_some_and(|us| us < 5_000_000), || format!("killed {took_us:?} us after the release"))?;
    why_has(unit, words)?;
    guest.wait_state(unit, StateName::Stopped, SOON)?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    bystander.is_unharmed(guest)?;
    remove(unit)?;
    Ok(incident)
}

/// Found out before the service runs, and not when its data is at stake.
fn is_refused(guest: &Guest, unit: &str, procedure: &str, errno: i32) -> Result<(), String> {
    let bystander = guest.bystander()?;
    let (code, text) = make(unit, procedure, &["/usr/bin/vm-guest", "pause"])?;
    ensure(code != 0, || format!("it was started: {text}"))?;
    let shown = guest.wait_state(unit, StateName::Fatal, SOON)?;
    let expected = Trouble::SpawnFailed { stage: SpawnStage::Exec, errno, procedure: true };
    expect("trouble", &shown.trouble, &Some(expected))?;
    why_has(unit, &["procedure"])?;
    bystander.is_unharmed(guest)?;
    remove(unit)
}

fn without_interpreter(guest: &mut Guest) -> Result<(), String> {
    let path = "/run/no-interpreter";
    script(path, "#! /usr/bin/gone -x\nexit 0\n", 0o755)?;
    is_refused(guest, "bad-interpreter", path, 2)?;
    script("/run/interpreter", "#!/bin/sh\nexit 7\n", 0o755)?;
    let told = (ProcedureResult::Ended(Exit::Code(7)), &["exit code 7"][..]);
    ends(guest, ("good-interpreter", "/run/interpreter"), &["/usr/bin/vm-guest", "leak"], told).map(drop)
}

fn not_executable(guest: &mut Guest) -> Result<(), String> {
    let path = "/run/not-executable";
    script(path, "#!/bin/sh\nexit 0\n", 0o644)?;
    is_refused(guest, "bad-mode", path, 13)
}

/// Its parent is PID 1, to which the kernel delivers no signal that it does not handle (kernel/signal.c,
/// `sig_task_ignored`).
fn kills_its_parent(guest: &mut Guest) -> Result<(), String> {
    let text = "#!/bin/sh\nfor s in KILL STOP SEGV ABRT ILL BUS QUIT HUP ALRM TSTP; do kill -$s $PPID; done\nexit 6\n";
    script("/run/kills-its-parent", text, 0o755)?;
    let told = (ProcedureResult::Ended(Exit::Code(6)), &["exit code 6"][..]);
    let pair = ("bad-parricide", "/run/kills-its-parent");
    ends(guest, pair, &["/usr/bin/vm-guest", "leak"], told).map(drop)
}

fn on_a_full_disk(guest: &mut Guest) -> Result<(), String> {
    let tiny = "/run/tiny";
    fs::create_dir_all(tiny).map_err(|error| format!("{tiny}: {error}"))?;
    mount(Some("tmpfs"), tiny, Some("tmpfs"), MsFlags::empty(), Some("size=16k"))
        .map_err(|error| format!("mount {tiny}: {error}"))?;
    script("/run/fills", "#!/bin/sh\nexec dd if=/dev/zero of=/run/tiny/saved bs=4k count=64\n", 0o755)?;
    let told = (ProcedureResult::Ended(Exit::Code(1)), &["exit code 1", "No space left on device"][..]);
    let ended = ends(guest, ("bad-disk", "/run/fills"), &["/usr/bin/vm-guest", "leak"], told);
    umount(tiny).map_err(|error| format!("umount {tiny}: {error}"))?;
    ended.map(drop)
}

/// A chain of processes, each of which is gone before a signal could meet it.
fn flees(guest: &mut Guest) -> Result<(), String> {
    let told = (ProcedureResult::Ended(Exit::Code(0)), &["exit code 0"][..]);
    let pair = ("bad-flees", "/bin/busybox true");
    ends(guest, pair, &["/usr/bin/vm-guest", "bad", "flees"], told)?;
    expect("processes that have fled", &processes_with(&["vm-guest", "flee"]).len(), &0)
}

/// A frozen service keeps its locks: a procedure that wants one waits until its deadline.
fn holds_the_lock(guest: &mut Guest) -> Result<(), String> {
    let told = (ProcedureResult::TimedOut, &["deadline"][..]);
    let pair = ("bad-locks", "/usr/bin/vm-guest lock");
    ends(guest, pair, &["/usr/bin/vm-guest", "bad", "locks"], told).map(drop)
}

/// The port is free once the kill is over: the next run has it.
fn holds_the_port(guest: &mut Guest) -> Result<(), String> {
    super::sockets::loopback()?;
    for _ in 0..2 {
        let (unit, way) = ("bad-port", ["/usr/bin/vm-guest", "bad", "port"]);
        let (bystander, before) = (guest.bystander()?, guest.last_incident()?);
        let (code, text) = make(unit, "/bin/busybox true", &way)?;
        expect(&format!("exit code of run ({text:?})"), &code, &0)?;
        let there = || std::net::TcpStream::connect(("127.0.0.1", PORT)).ok();
        // It stays open over the kill.
        let _client = guest.until("nobody listens", SOON, there)?;
        guest.wait_incident(unit, before, SOON)?;
        guest.wait_state(unit, StateName::Stopped, SOON)?;
        bystander.is_unharmed(guest)?;
        remove(unit)?;
    }
    Ok(())
}

/// Root can. Nothing bounds it there, so it has failed; the end finds it.
fn leaves_its_cgroup(guest: &mut Guest) -> Result<(), String> {
    let (unit, bystander) = ("bad-leaves", guest.bystander()?);
    // It may have failed before `run` has seen it RUNNING.
    run(&[CTL, "run", "--name=bad-leaves", "--memory-max=8MiB", "--", "/usr/bin/vm-guest", "bad", "leaves"])?;
    let over = |snapshot: &Snapshot| {
        let shown = supervisor::unit(snapshot, unit)?;
        (shown.state == StateName::Exited).then_some(shown.trouble)
    };
    let trouble = guest.wait(unit, SOON, over)?;
    expect("trouble", &trouble, &Some(Trouble::Failed { failure: Failure::LeftItsCgroup }))?;
    let members = fs::read_to_string(format!("{ELSEWHERE}/cgroup.procs"));
    expect("who is elsewhere", &members.ok().as_deref(), &Some(""))?;
    let (_, text) = run(&[CTL, "why", unit])?;
    ensure(text.contains("it has left its cgroup, so its limits hold nothing"), || text)?;
    fs::remove_dir(ELSEWHERE).map_err(|error| format!("{ELSEWHERE}: {error}"))?;
    bystander.is_unharmed(guest)?;
    remove(unit)
}
