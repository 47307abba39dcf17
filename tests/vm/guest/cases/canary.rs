//! A ballast in the service's cgroup dies first, and the service is saved while it has that memory to go on.

use super::Case;
use super::shield::oom_score_adj;
use crate::guest::{
    Guest, all_saved, count_saved, ensure, expect, read, ring_path, run, saved_path, wait_recording,
};
use crate::ring::KEPT;
use crate::supervisor;
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{Cause, Incident, Killer, ProcedureResult, StateName, Verdict};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "canary-stands-first", deadline_s: 60, run: stands_first },
    Case { name: "canary-saves-all", deadline_s: 180, run: saves_all },
    Case { name: "canary-flat-out", deadline_s: 180, run: flat_out },
    Case { name: "canary-lost", deadline_s: 60, run: lost },
    Case { name: "canary-unprivileged", deadline_s: 90, run: unprivileged },
    Case { name: "canary-light-ballast", deadline_s: 90, run: outweighs_what_is_mapped },
];

const POOL: &str = "/sys/fs/cgroup/pool";
const UP: Duration = Duration::from_secs(20);
const EXHAUSTION: Duration = Duration::from_secs(60);

fn number(unit: &str, file: &str) -> Result<u64, String> {
    let path = format!("{POOL}/{unit}/{file}");
    read(&path)?.trim().parse().map_err(|_| format!("{path} is no number"))
}

/// The pid of the process by this name in the unit's cgroup.
fn member(unit: &str, name: &str) -> Result<Option<u32>, String> {
    let pids = read(&format!("{POOL}/{unit}/cgroup.procs"))?;
    let is_it = |pid: &u32| read(&format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    Ok(pids.lines().filter_map(|line| line.parse().ok()).find(is_it))
}

/// The service stays eligible for the global OOM killer; the ballast goes before it, and with it.
fn stands_first(guest: &mut Guest) -> Result<(), String> {
    let unit = "canary-stays";
    guest.start(unit)?;
    wait_recording(guest, unit)?;
    let pid = guest.unit(unit)?.pid.ok_or("it has no pid")?;
    let ballast = member(unit, "ballast")?.ok_or("there is no ballast")?;
    expect("oom_score_adj of the service", &oom_score_adj(pid)?, &0)?;
    expect("oom_score_adj of the ballast", &oom_score_adj(ballast)?, &1_000)?;
    expect("memory.oom.group", &number(unit, "memory.oom.group")?, &0)?;
    let fds = std::fs::read_dir(format!("/proc/{ballast}/fd")).map_err(|error| error.to_string())?.count();
    ensure(fds <= 5, || format!("the ballast holds {fds} descriptors"))?;
    let anon = number_of(unit, "anon")?;
    let status = read(&format!("/proc/{ballast}/status"))?;
    let rss = |name: &str| crate::cast::field(&status, name).unwrap_or_default();
    guest.figure(&format!(
        "a ballast of 2048 KiB: RssAnon {} KiB, RssFile {} KiB, page tables {} KiB; the unit's anon with it {} KiB",
        rss("RssAnon:"),
        rss("RssFile:"),
        rss("VmPTE:"),
        anon >> 10
    ));
    guest.stop(unit)?;
    ensure(!Path::new(&format!("/proc/{ballast}")).exists(), || "the ballast outlives the stop".into())?;
    // Alone, to see what it costs.
    let before = number(unit, "memory.current")?;
    guest.start(unit)?;
    let after = guest.until("a ballast", UP, || member(unit, "ballast").ok().flatten())?;
    kill(Pid::from_raw(guest.unit(unit)?.pid.unwrap_or(0).cast_signed()), Signal::SIGSTOP).ok();
    let with = number(unit, "memory.current")?;
    kill(Pid::from_raw(after.cast_signed()), Signal::SIGKILL).map_err(|error| error.to_string())?;
    guest.until("its end", UP, || (!Path::new(&format!("/proc/{after}")).exists()).then_some(()))?;
    let freed = with.saturating_sub(number(unit, "memory.current")?);
    guest.figure(&format!(
        "its death frees {} KiB (left in the empty cgroup: {} KiB)",
        freed >> 10,
        before >> 10
    ));
    kill(Pid::from_raw(guest.unit(unit)?.pid.unwrap_or(0).cast_signed()), Signal::SIGCONT).ok();
    guest.stop(unit)
}

/// A number of `memory.stat`.
fn number_of(unit: &str, name: &str) -> Result<u64, String> {
    let path = format!("{POOL}/{unit}/memory.stat");
    crate::cast::field(&read(&path)?, name).ok_or_else(|| format!("{path} has no {name}"))
}

fn exhaust(guest: &Guest, unit: &str) -> Result<Incident, String> {
    let before = guest.last_incident()?;
    guest.start(unit)?;
    let incident = guest.wait_incident(unit, before, EXHAUSTION)?;
    guest.wait(unit, UP, |snapshot| {
        let state = supervisor::unit(snapshot, unit)?.state;
        matches!(state, StateName::Stopped | StateName::Exited | StateName::Fatal).then_some(())
    })?;
    Ok(incident)
}

fn told(unit: &str, incident: &Incident) -> String {
    let kills = incident.counters.oom_kill - incident.counters_at_start.oom_kill;
    let frozen = incident.frozen.map_or(0, |frozen| frozen.since_us(incident.began));
    format!(
        "{unit}: {:?}, frozen after {frozen} us, oom_kill +{kills}, {:?}",
        incident.verdict, incident.killer
    )
}

fn saves_all(guest: &mut Guest) -> Result<(), String> {
    let bystander = guest.bystander()?;
    for (unit, rounds) in [("canary-rate-1", 1), ("canary-rate-16", 5)] {
        for _ in 0..rounds {
            let incident = exhaust(guest, unit)?;
            guest.figure(&told(unit, &incident));
            ensure(
                matches!(incident.verdict, Verdict::CanaryDied { .. } | Verdict::Predicted { .. }),
                || format!("{unit}: {:?}", incident.verdict),
            )?;
            expect("who ended the service", &incident.killer, &Killer::Lifeboat)?;
            expect("cause", &incident.cause, &Cause::Exhaustion)?;
            expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
            ensure(incident.frozen.is_some(), || "the service was not frozen".into())?;
            all_saved(unit, &incident)?;
        }
    }
    bystander.is_unharmed(guest)
}

/// What comes of it without a bound on the growth is measured, not promised.
fn flat_out(guest: &mut Guest) -> Result<(), String> {
    let bystander = guest.bystander()?;
    let (mut saved, mut killed, rounds) = (0, 0, 10);
    for _ in 0..rounds {
        let incident = exhaust(guest, "canary-flat-out")?;
        guest.figure(&told("canary-flat-out", &incident));
        saved += count_saved("canary-flat-out", &incident).map_or(0, |count| count.saved);
        killed += u64::from(incident.killer != Killer::Lifeboat);
        expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    }
    guest.figure(&format!(
        "flat out: {} of {} records lost in {rounds} exhaustions, {killed} times the kernel took the service too",
        rounds * KEPT - saved,
        rounds * KEPT
    ));
    bystander.is_unharmed(guest)
}

/// Somebody kills the ballast: another one is made, and does its work. After the fourth one none comes.
fn lost(guest: &mut Guest) -> Result<(), String> {
    let unit = "canary-stays";
    guest.start(unit)?;
    wait_recording(guest, unit)?;
    let (first_run, first) = (guest.unit(unit)?.run, member(unit, "ballast")?.ok_or("there is no ballast")?);
    kill(Pid::from_raw(first.cast_signed()), Signal::SIGKILL).map_err(|error| error.to_string())?;
    let another = || member(unit, "ballast").ok().flatten().filter(|pid| *pid != first);
    let second = guest.until("no other ballast", UP, another)?;
    guest.until("it is not the first to go", UP, || (oom_score_adj(second) == Ok(1_000)).then_some(()))?;
    let mut last = second;
    for _ in 0..2 {
        kill(Pid::from_raw(last.cast_signed()), Signal::SIGKILL).map_err(|error| error.to_string())?;
        let another = || member(unit, "ballast").ok().flatten().filter(|pid| *pid != last);
        last = guest.until("no other ballast", UP, another)?;
    }
    kill(Pid::from_raw(last.cast_signed()), Signal::SIGKILL).map_err(|error| error.to_string())?;
    let shown = || guest.unit(unit).ok()?.memory.filter(|memory| memory.unguarded).map(drop);
    guest.until("it is not shown as unguarded", UP, shown)?;
    let (_, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
    ensure(text.contains("  its ballast was lost too often: "), || text)?;
    let (_, text) = run(&["/usr/bin/lifeboatctl", "status", unit])?;
    ensure(text.contains(", without its canary"), || text)?;
    let view = guest.unit(unit)?;
    ensure(view.run == first_run && view.state == StateName::Running, || format!("{view:?}"))?;
    guest.stop(unit)
}

/// The smallest ballast beside a service that maps more than its own bound of what is charged to others: without any
/// weight of its own the ballast would be the smaller one, and the kernel take the service.
fn outweighs_what_is_mapped(guest: &mut Guest) -> Result<(), String> {
    let unit = "canary-small-ballast";
    let others = vec![1_u8; 8 << 20];
    std::fs::write("/run/canary-mapped", others).map_err(|error| format!("/run/canary-mapped: {error}"))?;
    let taken = (0..ROUNDS).find_map(|_| ballast_goes(guest, unit).transpose());
    std::fs::remove_file("/run/canary-mapped").map_err(|error| format!("/run/canary-mapped: {error}"))?;
    taken.unwrap_or_else(|| Err(format!("in {ROUNDS} rounds the kernel was never asked for memory")))
}

/// A reading that falls on the last step foresees the end, and nothing need be killed: such a round says nothing of the
/// ballast.
const ROUNDS: usize = 5;

/// One exhaustion of the unit: `None` where it was foreseen.
fn ballast_goes(guest: &Guest, unit: &str) -> Result<Option<()>, String> {
    let incident = exhaust(guest, unit)?;
    guest.figure(&told(unit, &incident));
    let kills = incident.counters.oom_kill - incident.counters_at_start.oom_kill;
    expect("processes that ended before lifeboat's kill", &incident.killer, &Killer::Lifeboat)?;
    ensure(incident.frozen.is_some(), || "the service was not frozen".into())?;
    match incident.verdict {
        Verdict::Predicted { .. } if kills == 0 => Ok(None),
        Verdict::CanaryDied { ballast_bytes: 0x1_0000, .. } => {
            expect("kills of the kernel", &kills, &1).map(Some)
        }
        verdict => Err(format!("{verdict:?}, and the kernel killed {kills} times")),
    }
}

/// The sub-supervisor's unit, in the shape of the other units here.
const OF_THE_USER: &str = r#"(
    command: ["/usr/bin/recorder", "--ring", "/run/canary-sub/ring", "--leak", "rate:16MiB", "--leak-after", "200ms"],
    memory: (max: "16MiB", guard: Canary, ballast: "4MiB"),
    shutdown: (
        procedure: ["/usr/bin/recorder-flush", "/run/canary-sub/ring", "/run/canary-sub/saved.bin"],
        deadline: "10s",
        memory: "2MiB",
        then: Stop,
    ),
    restart: (policy: Never),
)"#;

/// lifeboat as an ordinary user below another init, here another lifeboat: there is no shield, and status names the
/// cure, which is a canary.
fn unprivileged(guest: &mut Guest) -> Result<(), String> {
    let unit = "canary-sub";
    let folder = format!("/run/{unit}");
    let prepared = std::fs::create_dir_all(format!("{folder}/units"))
        .and_then(|()| std::fs::write(format!("{folder}/units/leaks.ron"), OF_THE_USER))
        .and_then(|()| std::fs::write(format!("{folder}/system.ron"), "(incidents: (keep: 0))"))
        .and_then(|()| chown(&folder, Some(200), Some(200)));
    prepared.map_err(|error| format!("{folder}: {error}"))?;
    guest.start(unit)?;
    let socket = format!("{folder}/socket");
    let ctl = |words: &[&str]| {
        let (_, text) = run(&[&["/usr/bin/lifeboatctl", "--socket", &socket], words].concat())?;
        Ok::<_, String>(text)
    };
    let why = guest.until("no incident of the user's unit", EXHAUSTION, || {
        ctl(&["why", "leaks"]).ok().filter(|text| text.contains("ended by"))
    });
    let why = why.map_err(|error| format!("{error}: {:?} {:?}", ctl(&["why", "leaks"]), ctl(&["status"])))?;
    for words in ["ended by: lifeboat", "procedure: ended with exit code 0"] {
        ensure(why.contains(words), || format!("no {words:?} in {why}"))?;
    }
    let known = ["took the ballast of 4 MiB", " unreclaimable, growing "];
    ensure(known.iter().any(|words| why.contains(words)), || format!("none of {known:?} in {why}"))?;
    let status = ctl(&["status"])?;
    ensure(status.contains("or give its units guard: Canary"), || format!("status: {status}"))?;
    let paths = [ring_path(unit), saved_path(unit)].map(|path| path.display().to_string());
    let (code, text) = run(&["/usr/bin/recorder-flush", "--verify", &paths[0], &paths[1]])?;
    ensure(code == 0 && text.starts_with("saved 1000 "), || format!("{code}: {text}"))?;
    guest.stop(unit)
}
