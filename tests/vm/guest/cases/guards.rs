//! The same leaks under five guards: lifeboat's two, and three that do without it.

use super::Case;
use super::exhaustions::{exhaust, rounds};
use crate::group::Group;
use crate::guest::{Guest, ring_path, run, saved_path};
use crate::ring::KEPT;
use crate::shapes::{SHAPES, Shape};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "guards-shield", deadline_s: 1_800, run: shield },
    Case { name: "guards-canary", deadline_s: 1_800, run: canary },
    Case { name: "guards-kernel", deadline_s: 1_800, run: |g| without(g, Guard::Kernel) },
    Case { name: "guards-sigterm", deadline_s: 1_800, run: |g| without(g, Guard::Term) },
    Case { name: "guards-high", deadline_s: 1_800, run: |g| without(g, Guard::High) },
];

const ROUNDS: u32 = 10;
/// Of what takes seconds each time.
const FEW: u32 = 3;
/// A service that is still up by then is given up, and killed. A drip needs a minute and more where nobody stops it.
const PATIENCE: Duration = Duration::from_secs(20);
const PATIENCE_WITH_DRIP: Duration = Duration::from_secs(120);
const GROUP: &str = "/sys/fs/cgroup/pool/guarded";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// `memory.max` alone.
    Kernel,
    /// `memory.high` at 90 % of `memory.max`.
    High,
    /// SIGTERM at 90 %, by a watcher that looks every 10 ms; the service's own handler saves.
    Term,
}

/// What came of one guard and one shape.
#[derive(Default)]
struct Tally {
    runs: u64,
    /// Records that were not saved when the service was dead.
    lost: u64,
    lossy: u64,
    saves: u64,
    killed: u64,
    given_up: u64,
    /// Records that a script does not find afterwards, in the ring that outlives its service.
    gone: u64,
}

fn header(guest: &Guest) {
    guest.figure(
        "guard     shape          runs | records lost at death   runs with loss   saves whole | killed by the kernel   \
         given up after 20 s | lost to a script afterwards, where the memory outlives the service",
    );
}

impl Tally {
    fn show(&self, guest: &Guest, guard: &str, shape: &Shape) {
        guest.figure(&format!(
            "{guard:<9} {:<13} {:>5} | {:>8} of {:>8}    {:>14}   {:>11} | {:>20}   {:>14} | {:>8}",
            shape.name,
            self.runs,
            self.lost,
            self.runs * KEPT,
            self.lossy,
            self.saves,
            self.killed,
            self.given_up,
            self.gone
        ));
    }
}

fn how_often(shape: &Shape, guard: Option<Guard>) -> u32 {
    let slow = shape.rounds < ROUNDS * 2 || guard == Some(Guard::High);
    rounds(if slow { FEW } else { ROUNDS })
}

fn shield(guest: &mut Guest) -> Result<(), String> {
    header(guest);
    for shape in &SHAPES {
        let outcome = exhaust(guest, (shape.name, shape), how_often(shape, None))?;
        let tally = Tally {
            runs: outcome.exhaustions,
            lost: outcome.lost,
            lossy: outcome.lossy,
            saves: outcome.saves,
            killed: outcome.kernel_kills,
            given_up: 0,
            // A script finds at least what was saved.
            gone: outcome.lost,
        };
        tally.show(guest, "Shield", shape);
    }
    Ok(())
}

/// As a user has it who says no more: the size of the ballast is found from one exhaustion to the next.
fn canary(guest: &mut Guest) -> Result<(), String> {
    header(guest);
    for shape in &SHAPES {
        let name = format!("with-canary-{}", shape.name);
        let outcome = exhaust(guest, (&name, shape), how_often(shape, None))?;
        let tally = Tally {
            runs: outcome.exhaustions,
            lost: outcome.lost,
            lossy: outcome.lossy,
            saves: outcome.saves,
            // The ballasts are not counted.
            killed: outcome.early,
            given_up: 0,
            gone: outcome.lost,
        };
        tally.show(guest, "Canary", shape);
    }
    Ok(())
}

fn without(guest: &mut Guest, guard: Guard) -> Result<(), String> {
    header(guest);
    crate::guest::allow_huge_pages()?;
    let name = match guard {
        Guard::Kernel => "kernel",
        Guard::High => "high",
        Guard::Term => "SIGTERM",
    };
    for shape in &SHAPES {
        let mut tally = Tally::default();
        for _ in 0..how_often(shape, Some(guard)) {
            once(guest, guard, shape, &mut tally)?;
        }
        tally.show(guest, name, shape);
    }
    Ok(())
}

/// One life of the service in a cgroup of its own.
fn once(guest: &Guest, guard: Guard, shape: &Shape, tally: &mut Tally) -> Result<(), String> {
    make_group(guard, shape)?;
    let (ring, out) = (ring_path(shape.name), saved_path(shape.name));
    for old in [&ring, &out] {
        let _ = fs::remove_file(old);
    }
    let mut child = start(shape, &ring, &out)?;
    let watcher = (guard == Guard::Term).then(|| watch(&child, shape)).transpose()?;
    let mut group = Group::at(GROUP)?;
    let patience = if shape.leak == "drip" { PATIENCE_WITH_DRIP } else { PATIENCE };
    let died = match group.until(guest, patience, |_| Ok(child.try_wait().is_ok_and(|end| end.is_some()))) {
        Ok(()) => true,
        Err(error) if error.contains("not within") => false,
        Err(error) => return Err(error),
    };
    // The watcher ends with its sender.
    drop(watcher);
    put("cgroup.kill", "1")?;
    let status = child.wait().map_err(|error| error.to_string())?;
    group.until(guest, PATIENCE, |group| Ok(!group.is_populated()?))?;
    tally.runs += 1;
    tally.given_up += u64::from(!died);
    count(tally, status, died, (&ring, &out))?;
    fs::remove_dir(GROUP).map_err(|error| format!("{GROUP}: {error}"))
}

/// What is saved, and then what a script would find that runs before the next start.
fn count(
    tally: &mut Tally,
    status: ExitStatus,
    died: bool,
    (ring, out): (&Path, &Path),
) -> Result<(), String> {
    tally.killed += u64::from(died && status.signal() == Some(9));
    let saved = saved_in(ring, out)?;
    tally.saves += u64::from(saved == KEPT);
    tally.lossy += u64::from(saved < KEPT);
    tally.lost += KEPT - saved;
    let script = out.with_extension("script");
    run(&["/usr/bin/recorder-flush", &ring.display().to_string(), &script.display().to_string()])?;
    tally.gone += KEPT - saved_in(ring, &script)?;
    Ok(())
}

/// Another process compares: this one would keep every ring mapped, and with it its charge.
fn saved_in(ring: &Path, out: &Path) -> Result<u64, String> {
    let output = crate::cast::own("compare")?.args([ring, out]).stdout(Stdio::piped()).output();
    let output = output.map_err(|error| format!("compare: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim().parse().map_err(|_| format!("compare {}: {text:?}", ring.display()))
}

fn put(file: &str, text: &str) -> Result<(), String> {
    fs::write(format!("{GROUP}/{file}"), text).map_err(|error| format!("{text} to {GROUP}/{file}: {error}"))
}

/// Where the kernel kills, it kills all: else a storm of children would go on for ever.
fn make_group(guard: Guard, shape: &Shape) -> Result<(), String> {
    fs::create_dir_all(GROUP).map_err(|error| format!("{GROUP}: {error}"))?;
    let max = u64::from(shape.max_mib) << 20;
    put("memory.max", &max.to_string())?;
    put("memory.oom.group", "1")?;
    put("pids.max", "400")?;
    let high = if guard == Guard::High { (max * 9 / 10).to_string() } else { "max".into() };
    put("memory.high", &high)
}

fn start(shape: &Shape, ring: &Path, out: &Path) -> Result<Child, String> {
    let script = format!(
        "echo 0 > {GROUP}/cgroup.procs; exec /usr/bin/recorder --ring {} --leak {} --leak-after 250ms --save-on-term {}",
        ring.display(),
        shape.leak,
        out.display()
    );
    Command::new("/bin/busybox")
        .args(["sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("/bin/busybox: {error}"))
}

/// Sends SIGTERM once, when nine tenths of the limit are used; ends when the sender that it gives is dropped.
fn watch(child: &Child, shape: &Shape) -> Result<Sender<()>, String> {
    let (sender, ended) = channel::<()>();
    let threshold = (u64::from(shape.max_mib) << 20) * 9 / 10;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let look = move || {
        // The interval is the watcher's own: it is what is compared.
        while ended.recv_timeout(Duration::from_millis(10)) == Err(RecvTimeoutError::Timeout) {
            let text = fs::read_to_string(format!("{GROUP}/memory.current")).unwrap_or_default();
            if text.trim().parse().is_ok_and(|bytes: u64| bytes >= threshold) {
                let _ = kill(pid, Signal::SIGTERM);
                return;
            }
        }
    };
    thread::Builder::new().name("watcher".into()).spawn(look).map_err(|error| error.to_string())?;
    Ok(sender)
}
