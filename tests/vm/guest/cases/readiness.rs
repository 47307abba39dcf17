//! Services that are ready when they say so, and alive as long as they say so.

use super::Case;
use crate::guest::{Guest, ensure, expect, read, run};
use crate::speaker::{cue, say_to};
use crate::supervisor;
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{Failure, StateName, Trouble, UnitView};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    Case { name: "ready-by-notify", deadline_s: 40, run: |g| becomes_ready(g, "ready-notify") },
    Case { name: "ready-by-s6-fd", deadline_s: 40, run: |g| becomes_ready(g, "ready-fd") },
    Case { name: "ready-by-path", deadline_s: 40, run: ready_by_path },
    Case { name: "ready-after-a-delay", deadline_s: 40, run: ready_after_a_delay },
    Case { name: "ready-by-a-child", deadline_s: 40, run: ready_by_a_child },
    Case { name: "ready-releases-what-waits", deadline_s: 40, run: ready_releases_what_waits },
    Case { name: "never-ready", deadline_s: 40, run: never_ready },
    Case { name: "ready-takes-more-time", deadline_s: 40, run: ready_takes_more_time },
    Case { name: "status-text", deadline_s: 40, run: status_text },
    Case { name: "notify-from-a-stranger", deadline_s: 40, run: notify_from_a_stranger },
    Case { name: "main-pid-in-the-background", deadline_s: 40, run: main_pid_in_the_background },
    Case { name: "watchdog-missed", deadline_s: 60, run: watchdog_missed },
    Case { name: "health-check", deadline_s: 60, run: health_check },
    Case { name: "watchdog-trigger", deadline_s: 40, run: watchdog_trigger },
    Case { name: "stopping-is-held-to", deadline_s: 40, run: stopping_is_held_to },
];

const SOON: Duration = Duration::from_secs(20);
const NOTIFY: &str = "/run/lifeboat/control.notify";

fn forget_cue(unit: &str) {
    let _ = std::fs::remove_file(cue(unit));
}

fn give_cue(unit: &str) -> Result<(), String> {
    File::create(cue(unit)).map(drop).map_err(|error| format!("{}: {error}", cue(unit).display()))
}

/// Asks for the start from another thread: the answer comes when it is ready.
fn start_aside(unit: &str) -> JoinHandle<Result<(i32, String), String>> {
    let unit = unit.to_owned();
    thread::spawn(move || run(&["/usr/bin/lifeboatctl", "start", &unit]))
}

fn joined(asked: JoinHandle<Result<(i32, String), String>>) -> Result<(i32, String), String> {
    asked.join().map_err(|_| "the thread that asked panicked".to_owned())?
}

/// It has a process, and is not shown as ready.
fn wait_half_up(guest: &Guest, unit: &str) -> Result<UnitView, String> {
    guest.wait(unit, SOON, |snapshot| {
        let unit = supervisor::unit(snapshot, unit)?;
        (unit.state == StateName::Starting && unit.pid.is_some()).then(|| unit.clone())
    })
}

fn becomes_ready(guest: &mut Guest, unit: &str) -> Result<(), String> {
    forget_cue(unit);
    let asked = start_aside(unit);
    let half = wait_half_up(guest, unit)?;
    ensure(!asked.is_finished(), || "the start was answered before it was ready".into())?;
    give_cue(unit)?;
    let (code, text) = joined(asked)?;
    expect(&format!("exit code of start ({text:?})"), &code, &0)?;
    let up = guest.unit(unit)?;
    expect("state, run and pid", &(up.state, up.run, up.pid), &(StateName::Running, half.run, half.pid))?;
    guest.stop(unit)
}

fn ready_by_path(guest: &mut Guest) -> Result<(), String> {
    // What an earlier life left behind does not make it ready.
    File::create("/run/ready-path").map_err(|error| format!("/run/ready-path: {error}"))?;
    becomes_ready(guest, "ready-path")
}

fn ready_after_a_delay(guest: &mut Guest) -> Result<(), String> {
    let began = Instant::now();
    guest.start("ready-after")?;
    let took = began.elapsed();
    ensure(took >= Duration::from_millis(300), || format!("ready after {took:?}, not after 300 ms"))?;
    guest.stop("ready-after")
}

fn ready_by_a_child(guest: &mut Guest) -> Result<(), String> {
    guest.start("ready-child")?;
    guest.stop("ready-child")
}

fn ready_releases_what_waits(guest: &mut Guest) -> Result<(), String> {
    forget_cue("ready-notify");
    let asked = start_aside("ready-dependent");
    wait_half_up(guest, "ready-notify")?;
    let waits = guest.unit("ready-dependent")?;
    expect("pid of what waits", &(waits.state, waits.pid), &(StateName::Starting, None))?;
    give_cue("ready-notify")?;
    expect("exit code", &joined(asked)?.0, &0)?;
    guest.wait_state("ready-dependent", StateName::Running, SOON)?;
    guest.stop("ready-notify")?;
    guest.wait_state("ready-dependent", StateName::Stopped, SOON).map(drop)
}

fn never_ready(guest: &mut Guest) -> Result<(), String> {
    expect("start", &guest.ask("Start", "ready-never")?.as_str(), &"Failed")?;
    let unit = guest.wait_state("ready-never", StateName::Fatal, SOON)?;
    expect("trouble", &unit.trouble, &Some(Trouble::Failed { failure: Failure::NotReady }))?;
    expect("pid", &unit.pid, &None)
}

fn ready_takes_more_time(guest: &mut Guest) -> Result<(), String> {
    let unit = "ready-slow";
    forget_cue(unit);
    let asked = start_aside(unit);
    let half = wait_half_up(guest, unit)?;
    // Its start_timeout is 1 s; time itself is what is tested.
    thread::sleep(Duration::from_millis(1_500));
    give_cue(unit)?;
    expect("exit code", &joined(asked)?.0, &0)?;
    expect("run", &guest.unit(unit)?.run, &half.run)?;
    guest.stop(unit)
}

fn status_text(guest: &mut Guest) -> Result<(), String> {
    forget_cue("ready-status");
    guest.start("ready-status")?;
    let text_is = |expected: &'static str| {
        move |snapshot: &lifeboat::engine::snapshot::Snapshot| {
            let unit = supervisor::unit(snapshot, "ready-status")?;
            (unit.status.as_deref() == Some(expected)).then_some(())
        }
    };
    guest.wait("ready-status", SOON, text_is("warming up  [31m"))?;
    give_cue("ready-status")?;
    guest.wait("ready-status", SOON, text_is("12 clients"))?;
    let (_, text) = run(&["/usr/bin/lifeboatctl", "status", "ready-status"])?;
    ensure(text.contains("\"12 clients\""), || format!("status says {text:?}"))?;
    guest.stop("ready-status")
}

/// Of each message the sender's cgroup decides: the driver is in another one.
fn notify_from_a_stranger(guest: &mut Guest) -> Result<(), String> {
    let unit = "ready-notify";
    forget_cue(unit);
    let asked = start_aside(unit);
    let half = wait_half_up(guest, unit)?;
    for text in ["READY=1\nSTATUS=forged", "RELOADING=1", "MAINPID=2", "", "\0\0=\n=="] {
        say_to(Path::new(NOTIFY), text)?;
    }
    let long = format!("READY=1\nSTATUS={}", "x".repeat(60_000));
    say_to(Path::new(NOTIFY), &long)?;
    // The driver's own text goes to the driver's own unit: then all messages before it have been read.
    say_to(Path::new(NOTIFY), "STATUS=seen")?;
    guest.wait("driver", SOON, |snapshot| {
        supervisor::unit(snapshot, "driver")?.status.as_deref().filter(|text| *text == "seen").map(drop)
    })?;
    let now = guest.unit(unit)?;
    expect("state, pid", &(now.state, now.pid), &(StateName::Starting, half.pid))?;
    expect("status", &now.status, &None)?;
    give_cue(unit)?;
    expect("exit code", &joined(asked)?.0, &0)?;
    guest.stop(unit)
}

/// The first process is gone; the one that it named is watched, signalled and stopped in its place.
fn main_pid_in_the_background(guest: &mut Guest) -> Result<(), String> {
    guest.start("background")?;
    let line_of = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_child = |unit: &UnitView| unit.pid.filter(|pid| line_of(*pid).ends_with(b"background-child\0"));
    let pid =
        guest.wait("background", SOON, |snapshot| is_child(supervisor::unit(snapshot, "background")?))?;
    expect("state", &guest.unit("background")?.state, &StateName::Running)?;
    let raw = i32::try_from(pid).map_err(|error| format!("pid {pid}: {error}"))?;
    kill(Pid::from_raw(raw), Signal::SIGKILL).map_err(|error| format!("kill {pid}: {error}"))?;
    let unit = guest.wait_state("background", StateName::Exited, SOON)?;
    expect("last exit", &unit.last_exit, &Some(Exit::Signal(9)))
}

fn watchdog_missed(guest: &mut Guest) -> Result<(), String> {
    let unit = "watchdog";
    forget_cue(unit);
    let _ = std::fs::remove_file("/run/watchdog.saved");
    guest.start(unit)?;
    let first = guest.wait_state(unit, StateName::Running, SOON)?;
    // Twice its watchdog's time: it lives as long as it says so.
    thread::sleep(Duration::from_secs(4));
    expect("run", &guest.unit(unit)?.run, &first.run)?;
    give_cue(unit)?;
    let gone = guest.wait(unit, SOON, |snapshot| {
        supervisor::unit(snapshot, unit).filter(|unit| unit.trouble.is_some()).cloned()
    })?;
    let missed = Trouble::Failed { failure: Failure::WatchdogMissed };
    expect("trouble", &gone.trouble, &Some(missed))?;
    let saved = read("/run/watchdog.saved")?;
    expect("reason that its procedure was told", &saved.trim(), &"failure")?;
    guest.stop(unit)
}

fn health_check(guest: &mut Guest) -> Result<(), String> {
    forget_cue("health");
    guest.start("health")?;
    let first = guest.wait_state("health", StateName::Running, SOON)?;
    // Some checks go by.
    thread::sleep(Duration::from_secs(1));
    let still = guest.unit("health")?;
    expect("run and state", &(still.run, still.state), &(first.run, StateName::Running))?;
    give_cue("health")?;
    let unit = guest.wait_state("health", StateName::Exited, SOON)?;
    expect("trouble", &unit.trouble, &Some(Trouble::Failed { failure: Failure::Unhealthy }))
}

fn watchdog_trigger(guest: &mut Guest) -> Result<(), String> {
    forget_cue("watchdog-trigger");
    guest.start("watchdog-trigger")?;
    give_cue("watchdog-trigger")?;
    let unit = guest.wait_state("watchdog-trigger", StateName::Exited, SOON)?;
    let triggered = Trouble::Failed { failure: Failure::WatchdogTriggered };
    expect("trouble", &unit.trouble, &Some(triggered))
}

/// It says so, and stays.
fn stopping_is_held_to(guest: &mut Guest) -> Result<(), String> {
    let unit = "says-stopping";
    guest.start(unit)?;
    guest.wait_state(unit, StateName::Stopping, SOON)?;
    let over = guest.wait_state(unit, StateName::Exited, SOON)?;
    expect("trouble", &over.trouble, &Some(Trouble::Failed { failure: Failure::NotStopped }))?;
    expect("last exit", &over.last_exit, &Some(Exit::Signal(9)))
}
