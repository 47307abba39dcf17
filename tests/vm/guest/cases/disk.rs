//! A disk: what page cache means to a bound, and the end of the machine. The host judges what is left on the disk; what
//! is written for that is never synced here.

use super::Case;
use super::live::{goes_on, limit, number};
use crate::cast::{field, own};
use crate::guest::{Guest, ensure, expect, read, run};
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{ProcedureResult, StateName};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

/// What looks at the disk's end comes last.
pub(crate) const CASES: &[Case] = &[
    Case { name: "has-a-disk", deadline_s: 60, run: has_a_disk },
    Case { name: "page-cache-is-benign", deadline_s: 120, run: page_cache_is_benign },
    Case { name: "exhausted-behind-page-cache", deadline_s: 120, run: exhausted_behind_page_cache },
    Case { name: "limit-lowered-over-page-cache", deadline_s: 120, run: limit_lowered_over_page_cache },
    Case { name: "io-max-of-a-disk", deadline_s: 60, run: io_max_of_a_disk },
    Case { name: "memory-of-what-does-not-die", deadline_s: 90, run: memory_of_what_does_not_die },
    Case { name: "writes-to-a-disk", deadline_s: 60, run: writes_to_a_disk },
];

const DISK: &str = "/dev/nvme0n1";
const FOLDER: &str = "/mnt";
/// The host looks for these on the disk.
const LAST_WORDS: &str = "the last words before the end of this guest\n";
/// More than twice the memory of `churns`.
const LARGE_BYTES: usize = 40 << 20;
const CHURNS: &str = "churns";
const LEAKS: &str = "churns-then-leaks";
const ROUNDS: &str = "/run/churns.rounds";
/// A group that nobody watches, with the limit of `churns`.
const UNWATCHED: &str = "/sys/fs/cgroup/unwatched";
const UNWATCHED_ROUNDS: &str = "/run/unwatched.rounds";
/// So often and so long each of the two is looked at.
const PAIRS: usize = 7;
const LOOK: Duration = Duration::from_secs(3);
const SETTLES: Duration = Duration::from_millis(200);
/// Of lifeboat while a unit churns, in each second.
const WAKE_UPS_MAX: u64 = 2;

fn has_a_disk(guest: &mut Guest) -> Result<(), String> {
    let there = || Path::new(DISK).exists().then_some(());
    guest.until(&format!("there is no {DISK}"), Duration::from_secs(20), there)?;
    let (code, _) = run(&["/bin/busybox", "mke2fs", DISK])?;
    expect("exit code of mke2fs", &code, &0)?;
    // The kernels have ext4, which takes an ext2 as it is.
    mount(Some(DISK), FOLDER, Some("ext4"), MsFlags::empty(), None::<&str>)
        .map_err(|error| format!("mount {DISK}: {error}"))?;
    let large = format!("{FOLDER}/large");
    fs::write(&large, vec![1; LARGE_BYTES]).map_err(|error| format!("{large}: {error}"))?;
    // Its pages are the driver's until they are gone: who reads it then pays for them.
    nix::unistd::sync();
    drop_caches()
}

fn drop_caches() -> Result<(), String> {
    let file = "/proc/sys/vm/drop_caches";
    fs::write(file, "3").map_err(|error| format!("{file}: {error}"))
}

/// The same program in a unit and in a group that nobody watches, in turns: a noisy host slows both alike.
fn page_cache_is_benign(guest: &mut Guest) -> Result<(), String> {
    let incidents = guest.last_incident()?;
    guest.start(CHURNS)?;
    let watched_pid = guest.unit(CHURNS)?.pid.ok_or("it has no pid")?;
    let mut child = unwatched()?;
    let paces = in_turns(guest, [(watched_pid, ROUNDS), (child.id(), UNWATCHED_ROUNDS)]);
    let _ = child.kill().and_then(|()| child.wait());
    let (mut paces, woken) = paces?;
    let events = read("/sys/fs/cgroup/guaranteed/churns/memory.events.local")?;
    let unit = guest.unit(CHURNS)?;
    guest.stop(CHURNS)?;
    drop_caches()?;
    let met = field(&events, "max").unwrap_or(0);
    let [watched, unwatched] = paces.each_mut().map(|paces| median(paces));
    guest.figure(&format!(
        "page cache at the limit, {PAIRS} times {} s: limit met {met} times, PID 1 woken {woken} times, read at {watched:.1} \
         MiB/s, and at {unwatched:.1} MiB/s where nobody watches (medians, ratio {:.3})",
        LOOK.as_secs(),
        watched / unwatched
    ));
    expect("state", &unit.state, &StateName::Running)?;
    expect("incidents", &guest.last_incident()?, &incidents)?;
    expect("warnings", &unit.warnings, &0)?;
    ensure(met > 100, || format!("the limit was met {met} times only"))?;
    // At its edges a turn may have a part of one round more.
    let most = WAKE_UPS_MAX * (LOOK.as_secs() + 1) * PAIRS as u64;
    ensure(woken <= most, || format!("PID 1 was woken {woken} times, more than {most}"))
}

/// What a process has read so far, from the page cache or not.
fn read_bytes(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/io");
    field(&read(&path)?, "rchar:").ok_or_else(|| format!("{path} has no rchar"))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// MiB that each of the two has read in each second of its turns, and how often PID 1 was woken in those of the first.
fn in_turns(guest: &Guest, readers: [(u32, &str); 2]) -> Result<([Vec<f64>; 2], u64), String> {
    let count = |rounds: &str| fs::read_to_string(rounds).ok().and_then(|text| text.parse::<u64>().ok());
    let switches = || -> Result<u64, String> {
        let status = read("/proc/1/status")?;
        field(&status, "voluntary_ctxt_switches:").ok_or_else(|| "no voluntary_ctxt_switches".into())
    };
    let say = |pid: u32, signal| {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
        kill(pid, signal).map_err(|error| format!("{signal} to {pid}: {error}"))
    };
    for (pid, rounds) in readers {
        guest.until("no round is read", Duration::from_secs(30), || count(rounds))?;
        say(pid, Signal::SIGSTOP)?;
    }
    let (mut paces, mut woken) = ([Vec::new(), Vec::new()], 0);
    for turn in 0..2 * PAIRS {
        let (pid, _) = readers[turn % 2];
        let before_bytes = read_bytes(pid)?;
        say(pid, Signal::SIGCONT)?;
        // PID 1 hears of that as a parent: no matter of the page cache.
        thread::sleep(SETTLES);
        let woken_before = switches()?;
        // Time itself is what is measured here.
        thread::sleep(LOOK);
        woken += if turn % 2 == 0 { switches()? - woken_before } else { 0 };
        say(pid, Signal::SIGSTOP)?;
        let kib = u32::try_from((read_bytes(pid)? - before_bytes) >> 10).unwrap_or(u32::MAX);
        paces[turn % 2].push(f64::from(kib) / 1024.0 / (SETTLES + LOOK).as_secs_f64());
    }
    say(readers[0].0, Signal::SIGCONT)?;
    Ok((paces, woken))
}

fn unwatched() -> Result<Child, String> {
    let write = |file: &str, text: &str| {
        let path = format!("{UNWATCHED}/{file}");
        fs::write(&path, text).map_err(|error| format!("{path}: {error}"))
    };
    fs::create_dir(UNWATCHED).map_err(|error| format!("{UNWATCHED}: {error}"))?;
    write("memory.max", "16777216")?;
    write("memory.swap.max", "0")?;
    let mut command = own("churn")?;
    let child = command.args([&format!("{FOLDER}/large"), UNWATCHED_ROUNDS]).spawn();
    let child = child.map_err(|error| format!("cannot spawn: {error}"))?;
    write("cgroup.procs", &child.id().to_string())?;
    Ok(child)
}

/// The doorbells are off because of the cache when the leak begins; the unit is rescued all the same, and soon: the
/// kernel does not go on for long in telling that it finds nobody to kill.
fn exhausted_behind_page_cache(guest: &mut Guest) -> Result<(), String> {
    let before = guest.last_incident()?;
    let kills = guest.kernel_kills()?;
    guest.start(LEAKS)?;
    let incident = guest.wait_incident(LEAKS, before, Duration::from_secs(90))?;
    let (oom, verdict) = (incident.counters.oom - incident.counters_at_start.oom, incident.verdict);
    guest
        .figure(&format!("exhausted behind page cache: {verdict:?}, {oom} oom events before it stood still"));
    expect("how the procedure went", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)
}

/// Page cache makes way for a lower limit, with a shield and without: no kill, and the reading goes on.
fn limit_lowered_over_page_cache(guest: &mut Guest) -> Result<(), String> {
    for (branch, unit) in [("guaranteed", CHURNS), ("pool", "churns-open")] {
        let rounds = format!("/run/{unit}.rounds");
        let _ = fs::remove_file(&rounds);
        guest.start(unit)?;
        let count = || fs::read_to_string(&rounds).ok()?.parse::<u64>().ok();
        guest.until("no round is read", Duration::from_secs(30), count)?;
        let (pid, kills) = (guest.unit(unit)?.pid, guest.kernel_kills()?);
        for mib in [8_u64, 4, 2] {
            ensure(number(branch, unit, "memory.current")? > mib << 20, || "there is no cache".into())?;
            limit(unit, &[&format!("memory.max={mib}MiB")], 0, &format!("is {mib} MiB"))?;
            expect("memory.max", &number(branch, unit, "memory.max")?, &(mib << 20))?;
            goes_on(guest, (branch, unit), pid, kills)?;
        }
        let before = count().unwrap_or(0);
        let more = || count().filter(|count| *count > before);
        guest.until("it does not read on", Duration::from_secs(30), more)?;
        goes_on(guest, (branch, unit), pid, kills)?;
        guest.stop(unit)?;
    }
    Ok(())
}

fn io_max_of_a_disk(guest: &mut Guest) -> Result<(), String> {
    let unit = "churns-slowly";
    drop_caches()?;
    guest.start(unit)?;
    let folder = format!("/sys/fs/cgroup/pool/{unit}");
    let line = read(&format!("{folder}/io.max"))?;
    let words = "rbps=4194304 wbps=max riops=max wiops=1000";
    ensure(line.trim_end().ends_with(words), || format!("{line:?} instead of {words:?}"))?;
    let read_bytes = || {
        let text = fs::read_to_string(format!("{folder}/io.stat")).ok()?;
        text.split_whitespace().find_map(|word| word.strip_prefix("rbytes=")?.parse::<u64>().ok())
    };
    guest.until("it reads nothing", Duration::from_secs(20), || read_bytes().filter(|bytes| *bytes > 0))?;
    let before = read_bytes().unwrap_or(0);
    // Time itself is what is measured here.
    thread::sleep(Duration::from_secs(3));
    let bytes = read_bytes().unwrap_or(0) - before;
    guest.figure(&format!("io.max of 4 MiB a second: {} KiB read in 3 s", bytes >> 10));
    guest.stop(unit)
}

/// It sleeps uninterruptibly in a file system that stands still: it stays, its memory does not.
fn memory_of_what_does_not_die(guest: &mut Guest) -> Result<(), String> {
    const UNIT: &str = "sleeps-on-a-disk";
    const HELD_BYTES: u64 = 32 << 20;
    let current = || number("pool", UNIT, "memory.current");
    let (code, said) = run(&["/bin/busybox", "fsfreeze", "--freeze", FOLDER])?;
    expect(&format!("exit code of fsfreeze: {said}"), &code, &0)?;
    guest.start(UNIT)?;
    let held = || current().ok().filter(|bytes| *bytes >= HELD_BYTES).map(drop);
    let held = guest.until("it does not hold its memory", Duration::from_secs(20), held);
    let stopping = Command::new("/usr/bin/lifeboatctl").args(["stop", UNIT]).spawn();
    let taken = || current().ok().filter(|bytes| *bytes < HELD_BYTES / 8);
    let taken = guest.until("its memory stays", Duration::from_secs(20), taken);
    let events = read(&format!("/sys/fs/cgroup/pool/{UNIT}/cgroup.events"));
    run(&["/bin/busybox", "fsfreeze", "--unfreeze", FOLDER])?;
    guest.wait_state(UNIT, StateName::Stopped, Duration::from_secs(30))?;
    held?;
    stopping.and_then(|mut child| child.wait()).map_err(|error| format!("lifeboatctl stop: {error}"))?;
    expect("populated meanwhile", &field(&events?, "populated"), &Some(1))?;
    guest.figure(&format!("{UNIT}: {} KiB once its memory was taken", taken? >> 10));
    let (_, log) = run(&["/bin/busybox", "dmesg"])?;
    let told = format!("{UNIT}: what was killed does not die, so its memory was taken: ");
    ensure(log.contains(&told), || log)
}

fn writes_to_a_disk(guest: &mut Guest) -> Result<(), String> {
    // A unit that keeps a file open there until it is killed.
    guest.start("holds-the-disk")?;
    let path = format!("{FOLDER}/last-words");
    fs::write(&path, LAST_WORDS).map_err(|error| format!("{path}: {error}"))
}
