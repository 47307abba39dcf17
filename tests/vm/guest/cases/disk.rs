//! A disk: what page cache means to a bound, and the end of the machine. The host judges what is left on the disk; what
//! is written for that is never synced here.

use super::Case;
use super::cache::{Churn, compare};
use super::live::{goes_on, limit, number};
use crate::cast::field;
use crate::guest::{Guest, ensure, expect, read, run};
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{ProcedureResult, StateName};
use nix::mount::{MsFlags, mount};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// What looks at the disk's end comes last.
pub(crate) const CASES: &[Case] = &[
    Case { name: "has-a-disk", deadline_s: 60, run: |guest| make(guest, LARGE_BYTES) },
    Case { name: "page-cache-is-benign", deadline_s: 120, run: page_cache_is_benign },
    Case { name: "exhausted-behind-page-cache", deadline_s: 120, run: exhausted_behind_page_cache },
    Case { name: "limit-lowered-over-page-cache", deadline_s: 120, run: limit_lowered_over_page_cache },
    Case { name: "thrashing-is-named", deadline_s: 150, run: thrashing_is_named },
    Case { name: "room-in-swap-warns-nobody", deadline_s: 90, run: room_in_swap },
    Case { name: "io-max-of-a-disk", deadline_s: 60, run: io_max_of_a_disk },
    Case { name: "procedure-and-a-slow-disk", deadline_s: 150, run: procedure_and_a_slow_disk },
    Case { name: "stop-command-and-a-slow-disk", deadline_s: 60, run: stop_command_and_a_slow_disk },
    Case { name: "service-and-a-slow-disk", deadline_s: 150, run: service_and_a_slow_disk },
    Case { name: "memory-of-what-does-not-die", deadline_s: 90, run: memory_of_what_does_not_die },
    Case { name: "writes-to-a-disk", deadline_s: 60, run: writes_to_a_disk },
];

const DISK: &str = "/dev/nvme0n1";
const FOLDER: &str = "/mnt";
/// What is read through a bound that is smaller.
pub(super) const FILE: &str = "/mnt/large";
/// The host looks for these on the disk.
const LAST_WORDS: &str = "the last words before the end of this guest\n";
/// More than twice the memory of `churns`.
const LARGE_BYTES: u64 = 40 << 20;
const SWAP: &str = "/mnt/swap";
/// Enough for what `swaps` holds, but for a sixth.
const SWAP_BYTES: usize = 12 << 20;
const CHURNS: &str = "churns";
const LEAKS: &str = "churns-then-leaks";
/// At 250 pages a second the memory is full after some 4 s.
const THRASHES: Duration = Duration::from_secs(90);

/// Makes a file system on the disk, and [`FILE`] of this size in it.
pub(super) fn make(guest: &Guest, large_bytes: u64) -> Result<(), String> {
    let there = || Path::new(DISK).exists().then_some(());
    guest.until(&format!("there is no {DISK}"), Duration::from_secs(20), there)?;
    let (code, _) = run(&["/bin/busybox", "mke2fs", DISK])?;
    expect("exit code of mke2fs", &code, &0)?;
    // The kernels have ext4, which takes an ext2 as it is.
    mount(Some(DISK), FOLDER, Some("ext4"), MsFlags::empty(), None::<&str>)
        .map_err(|error| format!("mount {DISK}: {error}"))?;
    let filled =
        fs::File::create(FILE).and_then(|mut file| io::copy(&mut io::repeat(1).take(large_bytes), &mut file));
    expect("bytes written", &filled.map_err(|error| format!("{FILE}: {error}"))?, &large_bytes)?;
    // Its pages are the driver's until they are gone: who reads it then pays for them.
    nix::unistd::sync();
    drop_caches()
}

pub(super) fn drop_caches() -> Result<(), String> {
    let file = "/proc/sys/vm/drop_caches";
    fs::write(file, "3").map_err(|error| format!("{file}: {error}"))
}

fn page_cache_is_benign(guest: &mut Guest) -> Result<(), String> {
    let (max_bytes, look) = (16 << 20, Duration::from_secs(3));
    compare(guest, &Churn { unit: CHURNS, max_bytes, pairs: 7, look })
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

/// Each reclaim finds pages of the file, which are wanted again at once: there is never an `oom`. It is named, once,
/// and goes on.
fn thrashing_is_named(guest: &mut Guest) -> Result<(), String> {
    let (unit, before) = ("thrashes", guest.last_incident()?);
    drop_caches()?;
    guest.start(unit)?;
    let named = || {
        let (_, text) = run(&["/usr/bin/lifeboatctl", "status", unit]).ok()?;
        (text.contains("RUNNING") && text.contains(", thrashing")).then_some(())
    };
    guest.until("status does not say that it thrashes", THRASHES, named)?;
    let (_, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
    ensure(text.contains("  thrashing: ") && text.contains("raise memory.max"), || text.clone())?;
    guest.figure(text.lines().find(|line| line.contains("thrashing")).unwrap_or_default().trim());
    let events = read(&format!("/sys/fs/cgroup/pool/{unit}/memory.events.local"))?;
    expect("oom", &field(&events, "oom"), &Some(0))?;
    let (_, log) = run(&["/bin/busybox", "dmesg"])?;
    expect("lines", &log.matches(&format!("{unit}: thrashing: ")).count(), &1)?;
    expect("incidents", &guest.last_incident()?, &before)?;
    guest.stop(unit)
}

/// What can still be swapped out is no growth towards the limit, nor is what has its place in swap already: the same
/// bytes warn once the swap is gone.
fn room_in_swap(guest: &mut Guest) -> Result<(), String> {
    let unit = "swaps";
    fs::write(SWAP, vec![0; SWAP_BYTES]).map_err(|error| format!("{SWAP}: {error}"))?;
    for program in ["mkswap", "swapon"] {
        let (code, text) = run(&["/bin/busybox", program, SWAP])?;
        ensure(code == 0, || format!("{program}: {code} {text}"))?;
    }
    let holds = guest.start(unit).and_then(|()| {
        let holds = || fs::metadata("/run/swaps").ok().filter(|file| file.len() > 0).map(drop);
        guest.until("it holds nothing", Duration::from_secs(20), holds)?;
        out_and_in_again(guest, unit)?;
        // Asking reads it.
        let memory = guest.unit(unit)?.memory.and_then(|memory| memory.sample).ok_or("no reading")?.1;
        guest.figure(&format!("{unit}, with room in swap: {memory:?}"));
        ensure(memory.current_bytes > 10 << 20 && memory.unreclaimable_bytes < 6 << 20, || {
            format!("{memory:?}")
        })?;
        expect("warnings", &guest.unit(unit)?.warnings, &0)
    });
    let (code, text) = run(&["/bin/busybox", "swapoff", SWAP])?;
    holds?;
    ensure(code == 0, || format!("swapoff: {code} {text}"))?;
    let warned = || guest.unit(unit).ok().filter(|unit| unit.warnings == 1).map(drop);
    guest.until("it is not warned", Duration::from_secs(20), warned)?;
    guest.stop(unit)?;
    fs::remove_file(SWAP).map_err(|error| format!("{SWAP}: {error}"))
}

/// A part of its memory is swapped out and read again: it is in memory then, and its place in swap is taken. (A part of
/// less than half of the swap: else the kernel gives the places back, mm/memory.c `should_try_to_free_swap`.)
fn out_and_in_again(guest: &Guest, unit: &str) -> Result<(), String> {
    const BYTES: u64 = 4 << 20;
    let folder = format!("/sys/fs/cgroup/pool/{unit}");
    let out = || number("pool", unit, "memory.swap.current").is_ok_and(|bytes| bytes >= BYTES).then_some(());
    // The kernel says EAGAIN where it came to less, what is being written out among it.
    let _ = fs::write(format!("{folder}/memory.reclaim"), BYTES.to_string());
    guest.until("it is not swapped out", Duration::from_secs(20), out)?;
    let pid = read(&format!("{folder}/cgroup.procs"))?;
    read_memory(pid.trim())?;
    let stat = read(&format!("{folder}/memory.stat"))?;
    let cached = field(&stat, "swapcached").unwrap_or(0);
    ensure(cached >= BYTES / 2, || format!("{cached} bytes are in memory and in swap"))
}

/// Reads all that this process may write.
fn read_memory(pid: &str) -> Result<(), String> {
    let maps = read(&format!("/proc/{pid}/maps"))?;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).map_err(|error| format!("{pid}: {error}"))?;
    for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let ends = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let number = |text: &str| u64::from_str_radix(text, 16).map_err(|error| format!("{line}: {error}"));
        let (start, end) = ends.ok_or_else(|| line.to_owned())?;
        let mut bytes = vec![0; usize::try_from(number(end)? - number(start)?).unwrap_or(0)];
        memory.read_exact_at(&mut bytes, number(start)?).map_err(|error| format!("{line}: {error}"))?;
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

/// What is written below a branch of the tree goes to the disk so slowly.
fn slow_disk(branch: &str, kib_per_s: Option<u32>) -> Result<(), String> {
    let root = "/sys/fs/cgroup";
    let set = |path: String, text: String| fs::write(&path, text).map_err(|error| format!("{path}: {error}"));
    set(format!("{root}/cgroup.subtree_control"), "+io".into())?;
    let device = read("/sys/block/nvme0n1/dev")?;
    let wbps = kib_per_s.map_or("max".into(), |kib| (u64::from(kib) << 10).to_string());
    set(format!("{root}/{branch}/io.max"), format!("{} wbps={wbps}", device.trim()))
}

/// A procedure that writes three times what it may use, faster than its disk, is held up, and not killed by the kernel:
/// alone, by copying, and as several writers.
fn procedure_and_a_slow_disk(guest: &mut Guest) -> Result<(), String> {
    const UNIT: &str = "saves-to-a-slow-disk";
    const BYTES: u64 = 6 << 20;
    let source = "/run/much";
    let content = vec![1; usize::try_from(BYTES).unwrap_or(0)];
    fs::write(source, content).map_err(|error| format!("{source}: {error}"))?;
    let (bystander, kills) = (guest.bystander()?, guest.kernel_kills()?);
    let write = |file: u32, pieces: u32| {
        format!("/bin/busybox dd if=/dev/zero of=/mnt/saved/{file} bs=16k count={pieces} || exit 1")
    };
    let three = format!("for i in 1 2 3; do (i=$i; {}) & done; wait", write(9, 128).replace("/9 ", "/$i "));
    for (kib_per_s, procedure) in
        [(256, write(1, 384)), (1_024, format!("/bin/busybox cp {source} /mnt/saved/1")), (1_024, three)]
    {
        let folder = fs::remove_dir_all("/mnt/saved").and_then(|()| fs::create_dir("/mnt/saved"));
        folder.or_else(|_| fs::create_dir("/mnt/saved")).map_err(|error| format!("/mnt/saved: {error}"))?;
        let script = "/run/saves-to-a-slow-disk.sh";
        fs::write(script, &procedure).map_err(|error| format!("{script}: {error}"))?;
        nix::unistd::sync();
        slow_disk("shutdown", Some(kib_per_s))?;
        let before = guest.last_incident()?;
        guest.start(UNIT)?;
        let incident = guest.wait_incident(UNIT, before, Duration::from_secs(70))?;
        guest.wait_state(UNIT, StateName::Stopped, Duration::from_secs(70))?;
        let took_us =
            incident.procedure_ended.zip(incident.released).map_or(0, |(ended, began)| ended.since_us(began));
        guest.figure(&format!(
            "{procedure}: {:?}, at {kib_per_s} KiB a second, after {} ms; met its memory {} times",
            incident.procedure,
            took_us / 1_000,
            incident.procedure_high
        ));
        expect("how it went", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
        let files = fs::read_dir("/mnt/saved").map_err(|error| format!("/mnt/saved: {error}"))?;
        let saved = files.flatten().filter_map(|file| file.metadata().ok()).map(|it| it.len()).sum::<u64>();
        expect("bytes saved", &saved, &BYTES)?;
        ensure(incident.procedure_high > 0, || "it was not held up".into())?;
        let (_, text) = run(&["/usr/bin/lifeboatctl", "why", UNIT])?;
        ensure(text.contains("its procedure met shutdown.memory "), || text)?;
    }
    slow_disk("shutdown", None)?;
    fs::remove_dir_all("/mnt/saved").map_err(|error| format!("/mnt/saved: {error}"))?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    bystander.is_unharmed(guest)
}

/// The same of a command beside a service.
fn stop_command_and_a_slow_disk(guest: &mut Guest) -> Result<(), String> {
    let unit = "stops-onto-a-slow-disk";
    let kills = guest.kernel_kills()?;
    slow_disk("pool", Some(1_024))?;
    guest.start(unit)?;
    guest.stop(unit)?;
    let failed = guest.unit(unit)?.failed_command;
    slow_disk("pool", None)?;
    expect("the command that failed", &failed, &None)?;
    expect("bytes saved", &fs::metadata("/mnt/saved").map_or(0, |file| file.len()), &(6 << 20))?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    fs::remove_file("/mnt/saved").map_err(|error| format!("/mnt/saved: {error}"))
}

/// Services that write faster than their disk are held up by it, and not killed or rescued.
fn service_and_a_slow_disk(guest: &mut Guest) -> Result<(), String> {
    const UNITS: [&str; 3] = ["writes-faster-alone", "writes-faster-as-three", "writes-faster-with-a-canary"];
    const WRITTEN_BYTES: u64 = 44 << 20;
    let (kills, incident) = (guest.kernel_kills()?, guest.last_incident()?);
    for unit in UNITS {
        guest.start(unit)?;
    }
    let written = |unit: &str| {
        let text = fs::read_to_string(format!("/sys/fs/cgroup/pool/{unit}/io.stat")).ok()?;
        text.split_whitespace().find_map(|word| word.strip_prefix("wbytes=")?.parse::<u64>().ok())
    };
    let all =
        || UNITS.iter().all(|unit| written(unit).is_some_and(|bytes| bytes >= WRITTEN_BYTES)).then_some(());
    guest.until("a disk took too little", Duration::from_secs(100), all)?;
    for unit in UNITS {
        let (view, events) = (guest.unit(unit)?, read(&format!("/sys/fs/cgroup/pool/{unit}/memory.events"))?);
        let (mib, met) = (written(unit).unwrap_or(0) >> 20, field(&events, "max").unwrap_or(0));
        guest.figure(&format!("{unit}: {mib} MiB, met its limit {met} times"));
        expect(&format!("run of {unit}"), &(view.run.0, view.state), &(1, StateName::Running))?;
        guest.stop(unit)?;
    }
    expect("the last incident", &guest.last_incident()?, &incident)?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)
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
    write_last_words()
}

pub(super) fn write_last_words() -> Result<(), String> {
    let path = format!("{FOLDER}/last-words");
    fs::write(&path, LAST_WORDS).map_err(|error| format!("{path}: {error}"))
}
