//! Commands beside a service: to stop it, to have it read its configuration anew, to check its health. Each ends by its
//! deadline and leaves nothing behind, whatever it does.

use super::Case;
use super::units::processes_with;
use crate::guest::{Guest, ensure, expect, read, run};
use lifeboat::engine::event::{CommandKind, Exit};
use lifeboat::engine::snapshot::{Failure, ProcedureResult, StateName, Trouble, UnitView};
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    Case { name: "stop-command", deadline_s: 60, run: stop_command },
    Case { name: "stop-command-hangs", deadline_s: 60, run: stop_command_hangs },
    Case { name: "reload-by-signal", deadline_s: 60, run: reload_by_signal },
    Case { name: "reload-by-command", deadline_s: 60, run: reload_by_command },
    Case { name: "reload-fails", deadline_s: 60, run: reload_fails },
    Case { name: "reload-hangs", deadline_s: 60, run: reload_hangs },
    Case { name: "reload-told-by-the-service", deadline_s: 60, run: reload_told_by_the_service },
    Case { name: "reload-without-a-way", deadline_s: 60, run: reload_without_a_way },
    Case { name: "health-command", deadline_s: 60, run: health_command },
    Case { name: "health-command-hangs", deadline_s: 60, run: health_command_hangs },
    Case { name: "health-command-forks", deadline_s: 60, run: health_command_forks },
    Case { name: "command-eats-memory", deadline_s: 60, run: command_eats_memory },
    Case { name: "command-makes-room", deadline_s: 60, run: command_makes_room },
    Case { name: "health-by-tcp", deadline_s: 60, run: health_by_tcp },
];

const UP: Duration = Duration::from_secs(20);
const CTL: &str = "/usr/bin/lifeboatctl";
const UNHEALTHY: Trouble = Trouble::Failed { failure: Failure::Unhealthy };

fn sleepers(seconds: &str) -> usize {
    processes_with(&["busybox", "sleep", seconds]).len()
}

fn wait_for_file(guest: &Guest, path: &str) -> Result<(), String> {
    guest.until(&format!("there is no {path}"), UP, || Path::new(path).exists().then_some(()))
}

fn tail(unit: &str) -> Result<String, String> {
    Ok(run(&[CTL, "tail", unit])?.1)
}

fn failed(unit: &UnitView) -> Option<(CommandKind, ProcedureResult)> {
    unit.failed_command.map(|failed| (failed.kind, failed.result))
}

/// The service ignores TERM, and goes by what its command does. The command, as the service's user, lives on until the
/// service is gone, and a little longer: what it says then is heard.
fn stop_command(guest: &mut Guest) -> Result<(), String> {
    guest.start("stop-command")?;
    wait_for_file(guest, "/tmp/stop-command.ready")?;
    let began = Instant::now();
    guest.stop("stop-command")?;
    ensure(began.elapsed() < UP, || format!("the stop took {:?}", began.elapsed()))?;
    expect("the service", &read("/tmp/stop-command.asked")?.trim(), &"asked")?;
    let said = tail("stop-command")?;
    ensure(said.ends_with("stop: stop-command stop\nstop: recorder\n"), || format!("it said {said:?}"))?;
    expect("its commands' cgroup", &read("/sys/fs/cgroup/pool/+stop-command/cgroup.procs")?.as_str(), &"")
}

fn stop_command_hangs(guest: &mut Guest) -> Result<(), String> {
    let unit = "stop-command-hangs";
    guest.start(unit)?;
    wait_for_file(guest, "/run/stop-command-hangs.ready")?;
    let began = Instant::now();
    guest.stop(unit)?;
    ensure(began.elapsed() >= Duration::from_millis(700), || "not its whole time".into())?;
    expect("the end", &read("/run/stop-command-hangs.by")?.trim(), &"signal")?;
    expect("processes of the command", &sleepers("7001"), &0)?;
    let timed_out = Some((CommandKind::Stop, ProcedureResult::TimedOut));
    expect("the command", &failed(&guest.unit(unit)?), &timed_out)
}

fn reload_by_signal(guest: &mut Guest) -> Result<(), String> {
    guest.start("reload")?;
    wait_for_file(guest, "/run/reload.ready")?;
    let before = guest.unit("reload")?;
    let (code, text) = run(&[CTL, "reload", "reload"])?;
    expect("lifeboatctl reload", &(code, text.as_str()), &(0, "reload: reloaded\n"))?;
    wait_for_file(guest, "/run/reload.log")?;
    let after = guest.unit("reload")?;
    expect("its process", &(after.pid, after.run), &(before.pid, before.run))?;
    guest.stop("reload")
}

fn reload_by_command(guest: &mut Guest) -> Result<(), String> {
    let unit = "reload-command";
    std::fs::write("/run/reload-command.code", "0").map_err(|error| error.to_string())?;
    guest.start(unit)?;
    let (code, text) = run(&[CTL, "reload", unit])?;
    expect("lifeboatctl reload", &(code, text.as_str()), &(0, "reload-command: reloaded\n"))?;
    let said = tail(unit)?;
    let expected = "reload: recorder\nreload: 0027\nreload: reload of reload-command within 20000\n";
    expect("what it said", &said.as_str(), &expected)?;
    for (file, bytes) in [("memory.high", "8388608"), ("memory.max", "10485760")] {
        expect(file, &read(&format!("/sys/fs/cgroup/pool/+reload-command/{file}"))?.trim(), &bytes)?;
    }
    let peak = read("/sys/fs/cgroup/pool/+reload-command/memory.peak").unwrap_or_default();
    guest.figure(&format!("a shell as a command: memory.peak {}", peak.trim()));
    guest.stop(unit)
}

fn reload_fails(guest: &mut Guest) -> Result<(), String> {
    let unit = "reload-command";
    std::fs::write("/run/reload-command.code", "3").map_err(|error| error.to_string())?;
    guest.start(unit)?;
    let before = guest.unit(unit)?;
    let words = "/usr/bin/lifeboatctl reload reload-command 2>&1";
    let (code, text) = run(&["/bin/busybox", "sh", "-c", words])?;
    let expected = "lifeboatctl: reload-command: reload ended with exit code 3: reload of reload-command within 20000; \
                    it runs on\nreload-command: ERROR (not reloaded)\n";
    expect("lifeboatctl reload", &(code, text.as_str()), &(1, expected))?;
    let after = guest.unit(unit)?;
    expect("its state", &(after.state, after.pid), &(StateName::Running, before.pid))?;
    let why = run(&[CTL, "why", unit])?.1;
    ensure(why.contains("failed: reload ended with exit code 3") && why.contains("within 20000"), || why)?;
    guest.start("reload-missing")?;
    expect("a missing one", &guest.ask("Reload", "reload-missing")?.as_str(), &"ReloadFailed")?;
    let missing = guest.unit("reload-missing")?;
    ensure(
        matches!(
            failed(&missing),
            Some((CommandKind::Reload, ProcedureResult::SpawnFailed { errno: 2, .. }))
        ),
        || format!("{missing:?}"),
    )?;
    expect("its state", &missing.state, &StateName::Running)?;
    guest.stop("reload-missing")?;
    guest.stop(unit)
}

fn reload_hangs(guest: &mut Guest) -> Result<(), String> {
    guest.start("reload-hangs")?;
    expect("outcome", &guest.ask("Reload", "reload-hangs")?.as_str(), &"ReloadFailed")?;
    guest.until("its processes live on", UP, || (sleepers("7002") == 0).then_some(()))?;
    let unit = guest.unit("reload-hangs")?;
    let timed_out = Some((CommandKind::Reload, ProcedureResult::TimedOut));
    expect("the command", &(unit.state, failed(&unit)), &(StateName::Running, timed_out))?;
    guest.stop("reload-hangs")
}

/// The answer comes after `READY=1`: by then it has read everything.
fn reload_told_by_the_service(guest: &mut Guest) -> Result<(), String> {
    guest.start("reload-notify")?;
    expect("outcome", &guest.ask("Reload", "reload-notify")?.as_str(), &"Reloaded")?;
    expect("what it has done by then", &read("/run/reload-notify.log")?.trim(), &"read")?;
    guest.stop("reload-notify")
}

fn reload_without_a_way(guest: &mut Guest) -> Result<(), String> {
    guest.bystander()?;
    let (code, text) = run(&[CTL, "reload", "bystander"])?;
    let fine =
        code == 1 && text.contains("ERROR (its unit file has no reload; add reload: (signal: \"HUP\")");
    ensure(fine, || format!("{code}: {text}"))
}

/// It is heard where it fails, and only there.
fn health_command(guest: &mut Guest) -> Result<(), String> {
    let unit = "health-command";
    std::fs::write("/run/health-command.well", "well\n").map_err(|error| error.to_string())?;
    guest.start(unit)?;
    let checks = || Path::new("/sys/fs/cgroup/pool/+health-command").exists().then_some(());
    guest.until("there is no check", UP, checks)?;
    expect("words of good checks", &tail(unit)?.as_str(), &"")?;
    expect("its state", &guest.unit(unit)?.state, &StateName::Running)?;
    std::fs::remove_file("/run/health-command.well").map_err(|error| error.to_string())?;
    let down = guest.wait_state(unit, StateName::Exited, UP)?;
    expect("trouble", &down.trouble, &Some(UNHEALTHY))?;
    let bad = Some((CommandKind::Health, ProcedureResult::Ended(Exit::Code(1))));
    expect("the last check", &failed(&down), &bad)?;
    let why = run(&[CTL, "why", unit])?.1;
    ensure(why.contains("health check ended with exit code 1") && why.contains("No such file"), || why)
}

fn health_command_hangs(guest: &mut Guest) -> Result<(), String> {
    let unit = "health-command-hangs";
    guest.start(unit)?;
    let down = guest.wait_state(unit, StateName::Exited, UP)?;
    expect("trouble", &down.trouble, &Some(UNHEALTHY))?;
    let timed_out = Some((CommandKind::Health, ProcedureResult::TimedOut));
    expect("the last check", &failed(&down), &timed_out)?;
    expect("its procedure", &read("/run/health-command-hangs.saved")?.trim(), &"failure")?;
    expect("processes of the check", &sleepers("7003"), &0)
}

fn health_command_forks(guest: &mut Guest) -> Result<(), String> {
    let unit = "health-command-forks";
    guest.start(unit)?;
    let checks = || read("/run/health-command-forks.log").ok().filter(|log| log.len() >= 5).map(drop);
    guest.until("there were no five checks", UP, checks)?;
    ensure(sleepers("7004") <= 2, || format!("{} daemons of checks live", sleepers("7004")))?;
    expect("its state", &guest.unit(unit)?.state, &StateName::Running)?;
    guest.stop(unit)?;
    expect("daemons after the stop", &sleepers("7004"), &0)
}

/// The check dies in its own bound. The service's memory is not touched, and nobody else notices.
fn command_eats_memory(guest: &mut Guest) -> Result<(), String> {
    let unit = "health-command-eats";
    let bystander = guest.bystander()?;
    guest.start(unit)?;
    let down = guest.wait_state(unit, StateName::Exited, UP)?;
    expect("trouble", &down.trouble, &Some(UNHEALTHY))?;
    let outgrew = Some((CommandKind::Health, ProcedureResult::OutOfMemory));
    expect("the last check", &(failed(&down), down.incidents), &(outgrew, 0))?;
    let counters = down.memory.ok_or("it has no bound")?.counters;
    expect("oom events of the service", &(counters.oom, counters.oom_kill), &(0, 0))?;
    bystander.is_unharmed(guest)
}

/// A check that is at work makes room for a reload, and that for a stop: nobody waits for either.
fn command_makes_room(guest: &mut Guest) -> Result<(), String> {
    let unit = "health-command-slow";
    guest.start(unit)?;
    guest.until("there is no check", UP, || (sleepers("7005") == 1).then_some(()))?;
    let asked = std::thread::spawn(|| run(&[CTL, "reload", "health-command-slow"]));
    guest.until("there is no reload", UP, || (sleepers("7006") == 1).then_some(()))?;
    expect("checks beside it", &sleepers("7005"), &0)?;
    let began = Instant::now();
    guest.stop(unit)?;
    ensure(began.elapsed() < UP, || format!("the stop took {:?}", began.elapsed()))?;
    expect("commands after the stop", &(sleepers("7005"), sleepers("7006")), &(0, 0))?;
    let (code, text) = asked.join().map_err(|_| "the thread panicked")??;
    expect("the reload", &(code, text.as_str()), &(1, "health-command-slow: ERROR (not reloaded)\n"))
}

fn health_by_tcp(guest: &mut Guest) -> Result<(), String> {
    run(&["/bin/busybox", "ifconfig", "lo", "127.0.0.1", "up"])?;
    guest.start("health-tcp")?;
    let up = || std::net::TcpStream::connect("127.0.0.1:8099").is_ok().then_some(());
    guest.until("nobody listens", UP, up)?;
    expect("its state", &guest.unit("health-tcp")?.state, &StateName::Running)?;
    std::fs::write("/run/health-tcp.cue", "").map_err(|error| error.to_string())?;
    let down = guest.wait_state("health-tcp", StateName::Exited, UP)?;
    expect("trouble", &down.trouble, &Some(UNHEALTHY))
}
