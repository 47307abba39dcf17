//! How soon a service is back after `kill -9`, when no delay is due: under lifeboat, and under runit beside it.

use super::Case;
use crate::guest::{Guest, ensure, expect};
use crate::stamp::Nest;
use crate::supervisor;
use lifeboat::engine::snapshot::StateName;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

pub(crate) const CASES: &[Case] =
    &[Case { name: "restart-after-kill-9", deadline_s: 600, run: restart_after_kill_9 }];

/// As many of each kind; each is killed once, for only a run of 10 s is answered without a delay.
const BIRDS: usize = 60;
const HEALTHY: Duration = Duration::from_secs(11);
const PATIENCE: Duration = Duration::from_secs(20);
const RUNSV: &str = "/usr/bin/runsv";

/// The kinds, by the beginnings of their names, and what each is.
const KINDS: [(&str, &str); 4] = [
    ("plain-", "lifeboat, no bound"),
    ("bound-", "lifeboat, memory and pids bounded"),
    ("saver-", "lifeboat, bounded, with a procedure"),
    ("runit-", "runit (runsv; no cgroup, no pipe)"),
];

fn restart_after_kill_9(guest: &mut Guest) -> Result<(), String> {
    let nest = Nest::listen(PATIENCE)?;
    let names: Vec<String> =
        (1..=BIRDS).flat_map(|number| KINDS.map(|(kind, _)| format!("{kind}{number:02}"))).collect();
    let (watched, foreign): (Vec<_>, Vec<_>) = names.iter().partition(|name| !name.starts_with("runit-"));
    let mut pids = BTreeMap::new();
    for name in &watched {
        guest.start(name)?;
        let (risen, pid, _) = nest.next()?;
        expect("who rose", &&risen, name)?;
        pids.insert(risen, pid);
    }
    let runit = if Path::new(RUNSV).exists() { start_runit(&foreign)? } else { Vec::new() };
    for _ in &runit {
        let (risen, pid, _) = nest.next()?;
        pids.insert(risen, pid);
    }
    // Time itself is what is needed here.
    std::thread::sleep(HEALTHY);
    let mut figures: BTreeMap<&str, Vec<(u64, Option<u64>)>> = BTreeMap::new();
    for name in names.iter().filter(|name| pids.contains_key(*name)) {
        let kind = KINDS.iter().find(|(kind, _)| name.starts_with(kind)).map(|(_, text)| *text);
        let figure = kill_once(guest, &nest, (name, pids.get(name).copied().unwrap_or_default()))?;
        figures.entry(kind.unwrap_or_default()).or_default().push(figure);
    }
    for (kind, figures) in &figures {
        report(guest, kind, figures);
    }
    ensure(figures.values().all(|figures| figures.len() == BIRDS), || "not all were killed".into())?;
    for mut child in runit {
        // Its service is in the driver's cgroup and goes with it.
        let _ = child.kill().and_then(|()| child.wait().map(drop));
    }
    Ok(())
}

/// From right before the kill to the new process's first instruction, and to RUNNING, in microseconds.
fn kill_once(guest: &Guest, nest: &Nest, (name, pid): (&str, i32)) -> Result<(u64, Option<u64>), String> {
    let killed_us = crate::ring::boottime_us();
    kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|error| format!("kill {name} ({pid}): {error}"))?;
    let (risen, _, began_us) = nest.next()?;
    expect("who rose", &risen.as_str(), &name)?;
    let first = began_us.saturating_sub(killed_us);
    if name.starts_with("runit-") {
        return Ok((first, None));
    }
    let since = guest.wait(name, PATIENCE, |snapshot| {
        let unit = supervisor::unit(snapshot, name)?;
        (unit.state == StateName::Running && unit.since.0 > killed_us).then_some(unit.since.0)
    })?;
    Ok((first, Some(since.saturating_sub(killed_us))))
}

/// A `runsv` for each. The kernel itself starts the program of such a script, as its interpreter: no shell is between.
fn start_runit(names: &[&String]) -> Result<Vec<Child>, String> {
    let start = |name: &&String| {
        let folder = format!("/run/runit/{name}");
        let run = format!("{folder}/run");
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&run, "#!/usr/bin/vm-guest phoenix\n"))
            .and_then(|()| std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755)))
            .map_err(|error| format!("{run}: {error}"))?;
        Command::new(RUNSV)
            .arg(&folder)
            .env(crate::stamp::PHOENIX, name)
            .spawn()
            .map_err(|error| format!("{RUNSV}: {error}"))
    };
    names.iter().map(start).collect()
}

fn report(guest: &Guest, kind: &str, figures: &[(u64, Option<u64>)]) {
    let (first, running): (Vec<u64>, Vec<Option<u64>>) = figures.iter().copied().unzip();
    guest.figure(&format!("restart, {kind}: kill -9 to first instruction: {}", spread(first)));
    let running: Vec<u64> = running.into_iter().flatten().collect();
    if !running.is_empty() {
        guest.figure(&format!("restart, {kind}: kill -9 to RUNNING: {}", spread(running)));
    }
}

/// "median 9.1 ms, p99 12.0 ms, worst 12.0 ms (60)".
fn spread(mut us: Vec<u64>) -> String {
    us.sort_unstable();
    let at =
        |share: usize| us.get((us.len() * share / 100).min(us.len().saturating_sub(1))).copied().unwrap_or(0);
    let ms = |us| super::life::ms(us);
    format!(
        "median {:.1} ms, p99 {:.1} ms, worst {:.1} ms ({})",
        ms(at(50)),
        ms(at(99)),
        ms(at(100)),
        us.len()
    )
}
