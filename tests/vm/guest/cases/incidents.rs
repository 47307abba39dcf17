//! Incidents that outlive the machine: on a disk, over a power cycle, and where the disk takes nothing.

use super::Case;
use crate::guest::{Guest, ensure, expect, read, run};
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{Incident, ProcedureResult, StateName};
use lifeboat::wire::incident::{self, FILE_BYTES_MAX, Kept};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// With an empty disk.
pub(crate) const FIRST: &[Case] = &[
    Case { name: "incident-is-on-the-disk", deadline_s: 90, run: incident_is_on_the_disk },
    Case { name: "an-incident-can-be-replayed", deadline_s: 60, run: an_incident_can_be_replayed },
    Case { name: "incident-tells-what-stays-charged", deadline_s: 60, run: incident_tells_what_stays },
    Case { name: "incident-on-a-full-disk", deadline_s: 90, run: incident_on_a_full_disk },
    Case { name: "incident-on-a-read-only-disk", deadline_s: 60, run: incident_on_a_read_only_disk },
    Case { name: "incident-after-the-disk-is-well", deadline_s: 60, run: incident_after_the_disk_is_well },
];

/// With the same disk, after the machine was off.
pub(crate) const AGAIN: &[Case] = &[
    Case { name: "incidents-of-the-last-boot", deadline_s: 60, run: incidents_of_the_last_boot },
    Case { name: "incident-numbers-go-on", deadline_s: 60, run: incident_numbers_go_on },
    Case { name: "incident-files-that-are-broken", deadline_s: 30, run: incident_files_that_are_broken },
    Case { name: "incident-on-a-dead-disk", deadline_s: 150, run: incident_on_a_dead_disk },
    Case { name: "incidents-as-the-machine-ends", deadline_s: 60, run: incidents_as_the_machine_ends },
];

/// With the same disk once more.
pub(crate) const LAST: &[Case] =
    &[Case { name: "incidents-of-the-machines-end", deadline_s: 60, run: incidents_of_the_machines_end }];

/// Where there is no disk.
pub(crate) const NO_DISK: &[Case] =
    &[Case { name: "incident-without-a-disk", deadline_s: 200, run: incident_without_a_disk }];

const DISK: &str = "/dev/nvme0n1";
const MOUNTED: &str = "/mnt";
/// As in tests/vm/system.ron.
const FOLDER: &str = "/mnt/incidents";
const KEEP: usize = 4;
const LEAKS: &str = "leak-flat-out";
const LEAVES: &str = "leaves-a-file";
/// The host looks for these on the disk.
const LAST_WORDS: &str = "the last words before the end of this guest\n";
/// The numbers that the machine's last moments had.
const NUMBERS: &str = "/mnt/numbers";
const SOON: Duration = Duration::from_secs(30);

fn mount_disk(guest: &Guest) -> Result<(), String> {
    let there = || Path::new(DISK).exists().then_some(());
    guest.until(&format!("there is no {DISK}"), Duration::from_secs(20), there)?;
    // The kernels have ext4, which takes an ext2 as it is.
    mount(Some(DISK), MOUNTED, Some("ext4"), MsFlags::empty(), None::<&str>)
        .map_err(|error| format!("mount {DISK}: {error}"))
}

fn exhaust(guest: &Guest, unit: &str) -> Result<Incident, String> {
    let before = guest.last_incident()?;
    guest.start(unit)?;
    let incident = guest.wait_incident(unit, before, Duration::from_secs(60))?;
    // `then: Stop`: it is down and stays down.
    let down = |state| matches!(state, StateName::Stopped | StateName::Exited | StateName::Fatal);
    guest
        .until("it is not down", SOON, || guest.unit(unit).ok().filter(|unit| down(unit.state)).map(drop))?;
    Ok(incident)
}

fn file(number: u32) -> PathBuf {
    Path::new(FOLDER).join(incident::file_name(number))
}

fn numbers() -> Vec<u32> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> =
        entries.filter_map(|entry| incident::number_of(entry.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    numbers
}

/// Waits for a file, and reads it.
fn kept(guest: &Guest, number: u32) -> Result<Kept, String> {
    let path = file(number);
    let text = guest.until(&format!("no {}", path.display()), SOON, || fs::read(&path).ok())?;
    ensure(text.len() <= FILE_BYTES_MAX, || format!("{} bytes", text.len()))?;
    guest.figure(&format!("incident {number}: {} bytes", text.len()));
    incident::read(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// What the kernel log has.
fn logged(guest: &Guest, words: &str) -> Result<(), String> {
    let look = || run(&["/bin/busybox", "dmesg"]).ok().filter(|(_, text)| text.contains(words)).map(drop);
    guest.until(&format!("the kernel log has no {words:?}"), SOON, look)
}

fn shows(arguments: &[&str], words: &[&str]) -> Result<String, String> {
    let command = [&["/usr/bin/lifeboatctl"], arguments].concat();
    let (code, text) = run(&command)?;
    expect(&format!("exit code of {command:?}"), &code, &0)?;
    let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
    ensure(missing.is_empty(), || format!("{arguments:?} has no {missing:?}: {text}"))?;
    Ok(text)
}

fn incident_is_on_the_disk(guest: &mut Guest) -> Result<(), String> {
    let (code, _) = run(&["/bin/busybox", "mke2fs", DISK])?;
    expect("exit code of mke2fs", &code, &0)?;
    mount_disk(guest)?;
    let bystander = guest.bystander()?;
    let incident = exhaust(guest, LEAKS)?;
    expect("number", &incident.number, &1)?;
    let kept = kept(guest, 1)?;
    expect("unit", &kept.unit.as_str(), &LEAKS)?;
    expect("record", &kept.incident, &incident)?;
    expect("boot", &kept.boot_id.as_str(), &read("/proc/sys/kernel/random/boot_id")?.trim())?;
    let held: u64 = ["anon", "shmem"].iter().filter_map(|name| kept.memory_stat.get(*name)).sum();
    ensure(Some(held) > kept.incident.limit_bytes.map(|limit| limit / 2), || {
        format!("{:?}", kept.memory_stat)
    })?;
    ensure(kept.incident.sample.and_then(|sample| sample.available_bytes()) > Some(0), || {
        "no MemAvailable".into()
    })?;
    expect("limit", &kept.incident.limit_bytes, &Some(16 << 20))?;
    let before = incident.sample.map_or(0, |sample| sample.current_bytes);
    let after = kept.incident.left.map_or(u64::MAX, |left| left.current_bytes);
    ensure(after < before / 2, || format!("{after} of {before} bytes are still charged"))?;
    ensure(kept.began_unix_ms > 0, || "no time of day".into())?;
    bystander.is_unharmed(guest)
}

/// From the file alone the same decisions are made again; in a copy that was changed the difference is told.
fn an_incident_can_be_replayed(guest: &mut Guest) -> Result<(), String> {
    let path = file(1).display().to_string();
    let text =
        shows(&["replay", &path], &["release its procedure (exhaustion", "(procedure ended)", "the same: "])?;
    guest.figure(&format!("replay:\n{text}"));
    ensure(text.contains(", the record of the incident, and what comes after it"), || text.clone())?;
    let whole = read(&path)?;
    for (name, text, expected, words) in [
        ("event", whole.replacen("\"Frozen\"", "\"Emptied\"", 1), 2, ""),
        ("later", whole.replacen("{\"Event\":[", "{\"Event\":[1", 1), 1, "DIFFERENT in turn 1"),
        ("limit", whole.replacen("\"reserve_bytes\":", "\"reserve_bytes\":1", 1), 1, "CHANGED: "),
        (
            "record",
            whole.replacen("\"killer\":\"lifeboat\"", "\"killer\":\"kernel-cgroup\"", 1),
            1,
            "then: the kernel's OOM killer, at the unit's own limit",
        ),
        ("without", whole.replacen("\"replay\"", "\"nothing\"", 1), 2, ""),
        ("cut", whole[..whole.len() / 2].to_owned(), 2, ""),
    ] {
        let copy = format!("/run/{name}.json");
        fs::write(&copy, text).map_err(|error| format!("{copy}: {error}"))?;
        let (code, said) = run(&["/usr/bin/lifeboatctl", "replay", &copy])?;
        expect(&format!("exit code for {name}: {said}"), &code, &expected)?;
        ensure(said.contains(words), || format!("{name}: {said}"))?;
    }
    Ok(())
}

/// Files on tmpfs are charged to the cgroup, and are there after the kill.
fn incident_tells_what_stays(guest: &mut Guest) -> Result<(), String> {
    let incident = exhaust(guest, LEAVES)?;
    let kept = kept(guest, incident.number)?;
    let stays = kept.incident.left.map_or(0, |left| left.shmem_bytes);
    ensure(stays > 8 << 20, || format!("{stays} bytes are told to stay"))?;
    expect("its words", &kept.words.contains("procedure: nothing to save"), &true)?;
    fs::remove_file("/run/left-behind").map_err(|error| format!("/run/left-behind: {error}"))
}

/// Nobody but the record suffers, and a line of it is in the kernel log.
fn incident_on_a_full_disk(guest: &mut Guest) -> Result<(), String> {
    let filler = format!("{MOUNTED}/filler");
    let mut large = fs::File::create(&filler).map_err(|error| format!("{filler}: {error}"))?;
    let block = vec![1; 64 << 10];
    while large.write_all(&block).and_then(|()| large.sync_data()).is_ok() {}
    // The last blocks too.
    while large.write_all(&[1; 512]).is_ok() {}
    drop(large);
    let bystander = guest.bystander()?;
    let incident = exhaust(guest, LEAKS)?;
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    logged(guest, &format!("incident {}: {{\"unit\":\"{LEAKS}\"", incident.number))?;
    logged(guest, &format!("incident {} is not kept: cannot write to {FOLDER}: No space", incident.number))?;
    ensure(!file(incident.number).exists(), || "there is a file".into())?;
    told_all_the_same(incident.number)?;
    bystander.is_unharmed(guest)?;
    fs::remove_file(&filler).map_err(|error| format!("{filler}: {error}"))
}

/// From lifeboat's own memory.
fn told_all_the_same(number: u32) -> Result<(), String> {
    shows(&["incidents", "show", &number.to_string()], &["procedure: ended with exit code 0"])?;
    shows(&["why", LEAKS], &[&format!("incident {number},"), "procedure: ended with exit code 0"]).map(drop)
}

fn remount(flags: MsFlags) -> Result<(), String> {
    mount(None::<&str>, MOUNTED, None::<&str>, flags | MsFlags::MS_REMOUNT, None::<&str>)
        .map_err(|error| format!("remount {MOUNTED}: {error}"))
}

/// Within a minute of the last complaint: none more, and the line is there all the same.
fn incident_on_a_read_only_disk(guest: &mut Guest) -> Result<(), String> {
    nix::unistd::sync();
    remount(MsFlags::MS_RDONLY)?;
    let bystander = guest.bystander()?;
    let incident = exhaust(guest, LEAKS)?;
    logged(guest, &format!("incident {}: {{\"unit\":\"{LEAKS}\"", incident.number))?;
    told_all_the_same(incident.number)?;
    bystander.is_unharmed(guest)?;
    remount(MsFlags::empty())
}

fn incident_after_the_disk_is_well(guest: &mut Guest) -> Result<(), String> {
    let incident = exhaust(guest, LEAKS)?;
    kept(guest, incident.number)?;
    let (_, log) = run(&["/bin/busybox", "dmesg"])?;
    expect("complaints", &log.matches("is not kept").count(), &1)?;
    let names: Vec<_> =
        fs::read_dir(FOLDER).into_iter().flatten().flatten().map(|it| it.file_name()).collect();
    expect("files", &names.len(), &numbers().len())?;
    let path = format!("{MOUNTED}/last-words");
    fs::write(&path, LAST_WORDS).map_err(|error| format!("{path}: {error}"))
}

fn incidents_of_the_last_boot(guest: &mut Guest) -> Result<(), String> {
    mount_disk(guest)?;
    expect("files", &numbers(), &vec![1, 2, 5])?;
    let text = shows(&["incidents"], &["NUMBER", "earlier", LEAKS, LEAVES, "ended with exit code 0"])?;
    expect("lines", &text.lines().count(), &4)?;
    shows(&["incidents", "show", "2"], &[LEAVES, "an earlier boot", "timeline", "left behind: "])?;
    shows(&["--json", "incidents", "show", "1"], &["\"format\":1", "\"events\":["])?;
    shows(&["--socket", "/nobody", "incidents", "--folder", FOLDER], &[LEAKS])?;
    let (code, _) = run(&["/usr/bin/lifeboatctl", "incidents", "show", "77"])?;
    expect("exit code for a number that is not there", &code, &1)?;
    expect("incidents of this boot", &guest.last_incident()?, &0)
}

/// This boot's first incident is taken for number 1, until the disk, which came late, tells better.
fn incident_numbers_go_on(guest: &mut Guest) -> Result<(), String> {
    let first = exhaust(guest, LEAKS)?;
    let kept = kept(guest, 6)?;
    expect("began", &kept.incident.began, &first.began)?;
    guest.until("its number stays", SOON, || guest.last_incident().ok().filter(|number| *number == 6))?;
    shows(&["why", LEAKS], &["incident 6,"])?;
    let second = exhaust(guest, LEAKS)?;
    expect("the next number", &second.number, &7)?;
    self::kept(guest, 7)?;
    let bounded = || (numbers().len() == KEEP).then(numbers);
    expect("files", &guest.until("too many are kept", SOON, bounded)?, &vec![2, 5, 6, 7])
}

/// Cut, a fifo that nobody writes to, a file without an end, and a folder that cannot be removed as the oldest.
fn incident_files_that_are_broken(guest: &mut Guest) -> Result<(), String> {
    let bystander = guest.bystander()?;
    mkfifo(&file(4), Mode::S_IRUSR).map_err(|errno| format!("a fifo: {errno}"))?;
    symlink("/dev/zero", file(3)).map_err(|error| format!("a link: {error}"))?;
    fs::create_dir_all(file(1).join("full")).map_err(|error| format!("a folder: {error}"))?;
    let text = fs::read(file(5)).map_err(|error| error.to_string())?;
    fs::write(file(5), text.get(..text.len() / 2).unwrap_or_default()).map_err(|error| error.to_string())?;
    let (code, text) = run(&["/bin/sh", "-c", "/usr/bin/lifeboatctl incidents 2>&1"])?;
    expect("exit code", &code, &0)?;
    for number in [1, 3, 4, 5] {
        let words = format!("{} is left out: ", file(number).display());
        expect(&format!("{words:?} in {text}"), &text.matches(&words).count(), &1)?;
    }
    let third = exhaust(guest, LEAKS)?;
    kept(guest, third.number)?;
    let text = shows(&["incidents"], &["6 ", "7 ", "8 ", "this"])?;
    ensure(!text.contains("\n5 "), || text)?;
    told_all_the_same(third.number)?;
    bystander.is_unharmed(guest)
}

/// Each write to the disk hangs, past killing: the units are saved and everybody gets an answer all the same, and a
/// part of the incident is where it outlives a reboot. These kernels have no pmsg: a file stands in for it.
fn incident_on_a_dead_disk(guest: &mut Guest) -> Result<(), String> {
    const PMSG: &str = "/dev/pmsg0";
    let bystander = guest.bystander()?;
    fs::write(PMSG, "").map_err(|error| format!("{PMSG}: {error}"))?;
    let (code, said) = run(&["/bin/busybox", "fsfreeze", "--freeze", MOUNTED])?;
    expect(&format!("exit code of fsfreeze: {said}"), &code, &0)?;
    let saved = while_the_disk_is_dead(guest);
    let (code, said) = run(&["/bin/busybox", "fsfreeze", "--unfreeze", MOUNTED])?;
    let number = saved?;
    expect(&format!("exit code of fsfreeze: {said}"), &code, &0)?;
    let lines = read(PMSG)?;
    let begins = format!("incident {number}: {{\"unit\":\"{LEAKS}\"");
    ensure(lines.starts_with(&begins), || format!("{PMSG} has {lines:?}"))?;
    fs::remove_file(PMSG).map_err(|error| format!("{PMSG}: {error}"))?;
    bystander.is_unharmed(guest)?;
    let next = exhaust(guest, LEAKS)?;
    kept(guest, next.number).map(drop)
}

/// The number of an incident that the disk did not take.
fn while_the_disk_is_dead(guest: &Guest) -> Result<u32, String> {
    let first = exhaust(guest, LEAKS)?;
    // Its keeper hangs meanwhile.
    let second = exhaust(guest, LEAKS)?;
    expect("procedure", &second.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    told_all_the_same(second.number)?;
    let number = first.number;
    logged(guest, &format!("incident {number} is not kept: cannot write to {FOLDER}: timed out"))?;
    ensure(!file(number).exists(), || "there is a file".into())?;
    told_all_the_same(second.number)?;
    Ok(number)
}

/// The machine goes down while three wait for a disk that takes its time.
fn incidents_as_the_machine_ends(guest: &mut Guest) -> Result<(), String> {
    // Out of this driver's cgroup, so that it lives on when that is stopped.
    const LATER: &str =
        "echo $$ >/sys/fs/cgroup/cgroup.procs; >/run/is-out; sleep 2; exec fsfreeze --unfreeze /mnt";
    fs::write(NUMBERS, guest.last_incident()?.to_string()).map_err(|error| format!("{NUMBERS}: {error}"))?;
    let (code, said) = run(&["/bin/busybox", "fsfreeze", "--freeze", MOUNTED])?;
    expect(&format!("exit code of fsfreeze: {said}"), &code, &0)?;
    for _ in 0..3 {
        exhaust(guest, LEAKS)?;
    }
    let later = Command::new("/bin/busybox").args(["sh", "-c", LATER]).spawn();
    later.map_err(|error| format!("nobody wakes the disk: {error}"))?;
    guest.until("who wakes the disk is not out", SOON, || Path::new("/run/is-out").exists().then_some(()))
}

fn incidents_of_the_machines_end(guest: &mut Guest) -> Result<(), String> {
    mount_disk(guest)?;
    let before: u32 = read(NUMBERS)?.trim().parse().map_err(|error| format!("{NUMBERS}: {error}"))?;
    let last: Vec<u32> = numbers().into_iter().filter(|number| *number > before).collect();
    expect("files", &last, &(before + 1..=before + 3).collect())
}

fn incident_without_a_disk(guest: &mut Guest) -> Result<(), String> {
    let incident = exhaust(guest, LEAKS)?;
    logged(guest, &format!("incident {}: {{\"unit\":\"{LEAKS}\"", incident.number))?;
    // That is told once a minute at most, and the kernel's log of earlier exhaustions may have covered the last time.
    let words = format!("is not kept: {FOLDER} is in memory, which a reboot empties");
    for _ in 0..3 {
        if logged(guest, &words).is_ok() {
            return Ok(());
        }
        exhaust(guest, LEAKS)?;
    }
    logged(guest, &words)
}
