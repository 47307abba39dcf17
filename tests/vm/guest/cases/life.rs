//! PID 1 lives, and so do the units that nothing happens to.

use super::Case;
use crate::cast::field;
use crate::guest::{Guest, ensure, expect, read, run};
use lifeboat::engine::snapshot::{StateName, Trouble};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    Case { name: "boots-as-pid-1", deadline_s: 20, run: boots_as_pid_1 },
    Case { name: "own-place-in-memory", deadline_s: 10, run: own_place_in_memory },
    Case { name: "machine-is-as-system-ron-says", deadline_s: 10, run: machine_is_as_said },
    Case { name: "mounts-are-there", deadline_s: 10, run: mounts_are_there },
    Case { name: "reaps-orphans", deadline_s: 20, run: reaps_orphans },
    Case { name: "status-shows-memory-and-psi", deadline_s: 20, run: status_shows_memory_and_psi },
    Case { name: "start-stop-restart", deadline_s: 40, run: start_stop_restart },
    Case { name: "exit-codes-of-lifeboatctl", deadline_s: 40, run: exit_codes_of_lifeboatctl },
    Case { name: "restart-after-kill", deadline_s: 30, run: restart_after_kill },
    Case { name: "an-end-is-heard-in-its-turn", deadline_s: 60, run: an_end_is_heard_in_its_turn },
    Case { name: "start-limit-fatal", deadline_s: 30, run: start_limit_fatal },
    Case { name: "stop-ignoring-term-is-killed", deadline_s: 30, run: stop_ignoring_term_is_killed },
    Case { name: "stop-runs-procedure", deadline_s: 40, run: stop_runs_procedure },
];

const UP: Duration = Duration::from_secs(10);

fn boots_as_pid_1(guest: &mut Guest) -> Result<(), String> {
    let snapshot = guest.status()?;
    expect("pid of lifeboat", &snapshot.system.pid, &1)?;
    expect("degraded", &snapshot.system.degraded, &vec![])?;
    let program = std::fs::read_link("/proc/1/exe").map_err(|error| format!("/proc/1/exe: {error}"))?;
    ensure(program.ends_with("lifeboat"), || format!("PID 1 is {}", program.display()))
}

/// It is locked, the OOM killer passes it over, and what it needs for itself its children do not have.
fn own_place_in_memory(guest: &mut Guest) -> Result<(), String> {
    let status = read("/proc/1/status")?;
    let (locked, resident) = (field(&status, "VmLck:"), field(&status, "VmRSS:"));
    guest.figure(&format!("PID 1: {locked:?} KiB locked, {resident:?} KiB resident"));
    ensure(locked.is_some_and(|kib| kib > 0), || status.clone())?;
    expect("oom_score_adj", &read("/proc/1/oom_score_adj")?.trim(), &"-1000")?;
    let limits = read("/proc/1/limits")?;
    let own = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    expect("its limit of open files", &own, &Some("32768"))?;
    // This program is a service. So much the kernel gives the first process (include/uapi/linux/fs.h).
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_err(|errno| format!("getrlimit: {errno}"))?;
    expect("a service's limit of open files", &limit, &(1_024, 4_096))?;
    ensure(!read("/proc/self/oom_score_adj")?.contains("-1000"), || {
        "a service without a bound is shielded".into()
    })
}

/// What system.ron says of the machine has been done, the kernel's dumps are off, and a word on the kernel's command
/// line that nobody knows, which PID 1 gets as an argument, has done no harm.
fn machine_is_as_said(_guest: &mut Guest) -> Result<(), String> {
    for (path, expected) in [
        ("/proc/sys/kernel/hostname", "boat-7"),
        ("/proc/sys/vm/page-cluster", "2"),
        ("/proc/sys/vm/oom_dump_tasks", "0"),
        ("/proc/sys/kernel/printk", "4\t4\t1\t7"),
    ] {
        expect(path, &read(path)?.trim(), &expected)?;
    }
    let words = read("/proc/1/cmdline")?;
    ensure(words.split('\0').any(|word| word == "nobody-knows-this-word"), || format!("{words:?}"))
}

fn mounts_are_there(_guest: &mut Guest) -> Result<(), String> {
    let table = read("/proc/mounts")?;
    let is_there = |kind: &str, place: &str| {
        let mut lines = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        lines.any(|words| words.get(1) == Some(&place) && words.get(2) == Some(&kind))
    };
    let expected = [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("devpts", "/dev/pts"),
        ("tmpfs", "/dev/shm"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("cgroup2", "/sys/fs/cgroup"),
    ];
    let missing: Vec<_> = expected.iter().filter(|(kind, place)| !is_there(kind, place)).collect();
    ensure(missing.is_empty(), || format!("not mounted: {missing:?}"))
}

fn reaps_orphans(guest: &mut Guest) -> Result<(), String> {
    for _ in 0..10 {
        let (code, output) = run(&["/proc/self/exe", "double-fork"])?;
        expect("exit code of double-fork", &code, &0)?;
        let orphan = format!("/proc/{}", output.trim());
        ensure(output.trim().parse::<u32>().is_ok(), || format!("no pid: {output:?}"))?;
        // A zombie is still in /proc: it is gone once PID 1 has reaped it.
        let look = || (!Path::new(&orphan).exists()).then_some(());
        guest.until(&format!("{orphan} is not reaped"), Duration::from_secs(5), look)?;
    }
    Ok(())
}

fn status_shows_memory_and_psi(guest: &mut Guest) -> Result<(), String> {
    guest.bystander()?;
    let read_once = |snapshot: &lifeboat::engine::snapshot::Snapshot| {
        crate::supervisor::unit(snapshot, "bystander").and_then(|unit| unit.memory)?.sample
    };
    // A reading may be made because somebody asks: ask until one is shown.
    let shown = guest.until("no memory reading in the status", UP, || read_once(&guest.status().ok()?))?;
    ensure(shown.1.current_bytes > 0, || format!("a running unit uses no memory: {shown:?}"))?;
    let (code, text) = run(&["/usr/bin/lifeboatctl", "status", "--json", "bystander"])?;
    expect("exit code of lifeboatctl status --json", &code, &0)?;
    for word in ["current_bytes", "psi_some_avg10", "psi_full_avg10"] {
        ensure(text.contains(word), || format!("lifeboatctl status --json has no {word}: {text}"))?;
    }
    Ok(())
}

fn start_stop_restart(guest: &mut Guest) -> Result<(), String> {
    guest.start("quiet")?;
    let first = guest.wait_state("quiet", StateName::Running, UP)?;
    expect("a second start", &guest.ask("Start", "quiet")?.as_str(), &"AlreadyStarted")?;
    guest.ask("Restart", "quiet")?;
    let second = guest.wait_state("quiet", StateName::Running, UP)?;
    ensure(second.run > first.run && second.pid != first.pid, || {
        format!(
            "not restarted: run {} pid {:?}, run {} pid {:?}",
            first.run.0, first.pid, second.run.0, second.pid
        )
    })?;
    guest.stop("quiet")?;
    guest.wait_state("quiet", StateName::Stopped, UP)?;
    expect("a second stop", &guest.ask("Stop", "quiet")?.as_str(), &"NotRunning")
}

fn exit_codes_of_lifeboatctl(guest: &mut Guest) -> Result<(), String> {
    guest.stop("quiet")?;
    // supervisorctl's: a start of what is up and a stop of what is down are no failures.
    let check = |words: &[&str], code: i32, part: &str| {
        let all = [&["/usr/bin/lifeboatctl"], words].concat();
        let (got, text) = run(&all)?;
        expect(&format!("exit code of lifeboatctl {words:?} ({text:?})"), &got, &code)?;
        ensure(text.contains(part), || format!("lifeboatctl {words:?} says {text:?}, not {part:?}"))
    };
    check(&["status", "quiet"], 3, "STOPPED")?;
    check(&["start", "quiet"], 0, "quiet: started")?;
    check(&["start", "quiet"], 0, "already started")?;
    check(&["status", "quiet"], 0, "RUNNING")?;
    check(&["restart", "quiet"], 0, "quiet: started")?;
    check(&["stop", "quiet"], 0, "quiet: stopped")?;
    check(&["stop", "quiet"], 0, "not running")?;
    check(&["status", "no-such-unit"], 4, "")?;
    check(&["start"], 2, "")?;
    check(&["why", "quiet"], 0, "")
}

fn restart_after_kill(guest: &mut Guest) -> Result<(), String> {
    guest.start("quiet")?;
    let mut took = Vec::new();
    for _ in 0..5 {
        let before = guest.wait_state("quiet", StateName::Running, UP)?;
        let pid = before.pid.and_then(|pid| i32::try_from(pid).ok()).ok_or("quiet has no pid")?;
        let killed_us = crate::ring::boottime_us();
        kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|error| format!("kill {pid}: {error}"))?;
        let again = guest.wait("quiet", UP, |snapshot| {
            let unit = crate::supervisor::unit(snapshot, "quiet")?;
            (unit.state == StateName::Running && unit.run > before.run).then(|| unit.clone())
        })?;
        took.push(format!("{:.1}", ms(again.since.0.saturating_sub(killed_us))));
    }
    guest.figure(&format!(
        "restart after kill -9, one after the other: {} ms (the unit's own delay is 10 ms, doubled each time)",
        took.join(", ")
    ));
    guest.stop("quiet")
}

const TRACING: &str = "/sys/kernel/tracing";

/// Whatever wakes the wait first: the child is collected before the next wait begins, as the kernel's own trace of
/// PID 1 tells. A signal that comes on the last steps into the wait ends it at once; that is seldom.
fn an_end_is_heard_in_its_turn(guest: &mut Guest) -> Result<(), String> {
    let set = |name: &str, text: &str| {
        let path = format!("{TRACING}/{name}");
        std::fs::write(&path, text).map_err(|error| format!("{path}: {error}"))
    };
    let (code, said) = run(&["/bin/busybox", "mount", "-t", "tracefs", "tracefs", TRACING])?;
    expect(&format!("exit code of mount: {said}"), &code, &0)?;
    set("trace_clock", "boot")?;
    set("events/raw_syscalls/sys_enter/filter", "common_pid == 1")?;
    set("events/raw_syscalls/sys_enter/enable", "1")?;
    set("events/signal/signal_generate/filter", "pid == 1 && sig == 17")?;
    set("events/signal/signal_generate/enable", "1")?;
    guest.start("quiet")?;
    for _ in 0..24 {
        let before = guest.wait_state("quiet", StateName::Running, UP)?;
        let pid = before.pid.and_then(|pid| i32::try_from(pid).ok()).ok_or("quiet has no pid")?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|error| format!("kill {pid}: {error}"))?;
        guest.wait("quiet", UP, |snapshot| {
            let unit = crate::supervisor::unit(snapshot, "quiet")?;
            (unit.state == StateName::Running && unit.run > before.run).then_some(())
        })?;
    }
    set("tracing_on", "0")?;
    let (ends, late) = ends_in(&read(&format!("{TRACING}/trace"))?);
    let (code, said) = run(&["/bin/busybox", "umount", TRACING])?;
    expect(&format!("exit code of umount: {said}"), &code, &0)?;
    guest.figure(&format!("ends: {ends}, of them heard only after another wait: {late}"));
    ensure(ends >= 24 && late <= 2, || format!("{late} of {ends} ends were heard late"))?;
    guest.stop("quiet")
}

/// How many children ended, and for how many of them another epoll_wait(2) came before the wait4(2).
fn ends_in(trace: &str) -> (u32, u32) {
    let waits = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait].map(|number| format!("NR {number} "));
    let collects = format!("NR {} ", libc::SYS_wait4);
    let (mut ends, mut late, mut open, mut waited) = (0, 0, false, false);
    for line in trace.lines() {
        if line.contains("signal_generate: sig=17") {
            (open, waited) = (true, false);
        } else if waits.iter().any(|wait| line.contains(wait)) {
            waited = open;
        } else if open && line.contains(&collects) {
            ends += 1;
            late += u32::from(waited);
            open = false;
        }
    }
    (ends, late)
}

fn start_limit_fatal(guest: &mut Guest) -> Result<(), String> {
    // It ends at once, so the first start may or may not be seen as one.
    guest.ask("Start", "fails-at-once")?;
    let unit = guest.wait_state("fails-at-once", StateName::Fatal, Duration::from_secs(20))?;
    ensure(matches!(unit.trouble, Some(Trouble::StartLimit { starts: 4..=5 })), || {
        format!("{:?}", unit.trouble)
    })
}

fn stop_ignoring_term_is_killed(guest: &mut Guest) -> Result<(), String> {
    guest.start("ignores-term")?;
    let unit = guest.wait_state("ignores-term", StateName::Running, UP)?;
    let began = Instant::now();
    guest.stop("ignores-term")?;
    let took = began.elapsed();
    ensure(took >= Duration::from_millis(300), || {
        format!("gone after {took:?}, before its 300 ms were over")
    })?;
    let pid = unit.pid.ok_or("it had no pid")?;
    ensure(!Path::new(&format!("/proc/{pid}")).exists(), || format!("{pid} still lives"))
}

fn stop_runs_procedure(guest: &mut Guest) -> Result<(), String> {
    use crate::guest::{saved_path, wait_recording};
    let unit = "saves-on-stop";
    let _ = std::fs::remove_file(saved_path(unit));
    guest.start(unit)?;
    let ring = wait_recording(guest, unit)?;
    guest.stop(unit)?;
    guest.wait_state(unit, StateName::Stopped, UP)?;
    let count = crate::saved::compare(&ring, &saved_path(unit))?;
    expect("saved of 1000", &(count.saved, count.of), &(1_000, 1_000))
}

/// For people.
#[expect(clippy::cast_precision_loss, reason = "a figure with one decimal")]
pub(crate) fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}
