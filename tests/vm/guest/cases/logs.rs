//! Where the units' words end up: a real syslogd, the kernel log, files on disks that are full or read-only.

use super::Case;
use super::real::{kill_and_wait, pid_of, signal};
use crate::guest::{Guest, ensure, expect, read, run};
use lifeboat::engine::snapshot::StateName;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "syslog-tag-and-pid", deadline_s: 60, run: syslog_tag_and_pid },
    Case { name: "syslog-restart-loses-nothing", deadline_s: 90, run: syslog_restart_loses_nothing },
    Case { name: "syslog-down-waits", deadline_s: 90, run: syslog_down_waits },
    Case { name: "syslog-that-hangs", deadline_s: 120, run: syslog_that_hangs },
    Case { name: "syslog-of-busybox", deadline_s: 60, run: syslog_of_busybox },
    Case { name: "kernel-log-has-lines", deadline_s: 60, run: kernel_log_has_lines },
    Case { name: "tail-follows", deadline_s: 60, run: tail_follows },
    Case { name: "log-file-rotates", deadline_s: 60, run: log_file_rotates },
    Case { name: "log-file-on-a-full-disk", deadline_s: 60, run: log_file_on_a_full_disk },
    Case { name: "log-file-in-a-read-only-folder", deadline_s: 60, run: log_file_in_a_read_only_folder },
];

const SOON: Duration = Duration::from_secs(30);
const MESSAGES: &str = "/var/log/messages";
const SYSLOG: &str = "talks-syslog";
const FILE: &str = "talks-file";
const SMALL: &str = "/mnt/small";
const LOG: &str = "/mnt/small/talks.log";

/// Starts a unit that says what is written to its pipe.
fn start_talking(guest: &Guest, unit: &str) -> Result<(), String> {
    let outcome = guest.ask("Start", unit)?;
    ensure(matches!(outcome.as_str(), "Started" | "AlreadyStarted"), || format!("start {unit}: {outcome}"))?;
    let pipe = format!("/run/{unit}");
    let there = || std::fs::metadata(&pipe).is_ok_and(|it| it.file_type().is_fifo()).then_some(());
    guest.until(&format!("{pipe} is not there"), SOON, there)
}

/// Has the unit say this. It never closes its end of the pipe (`<>`): one that did between two talks would lose words.
fn talk(unit: &str, words: &str) -> Result<(), String> {
    let pipe = format!("/run/{unit}");
    let mut file = OpenOptions::new().write(true).open(&pipe).map_err(|error| format!("{pipe}: {error}"))?;
    file.write_all(words.as_bytes()).map_err(|error| format!("{pipe}: {error}"))
}

fn wait_for(guest: &Guest, path: &str, words: &str) -> Result<String, String> {
    let shown = || read(path).ok().filter(|text| text.contains(words));
    guest.until(&format!("{path} has no {words:?}"), SOON, shown)
}

fn syslog_tag_and_pid(guest: &mut Guest) -> Result<(), String> {
    guest.start("syslogd")?;
    start_talking(guest, SYSLOG)?;
    talk(SYSLOG, "the first of them\nand a second one\n")?;
    let pid = pid_of(&guest.unit(SYSLOG)?)?;
    let text = wait_for(guest, MESSAGES, "and a second one\n")?;
    for words in ["the first of them", "and a second one"] {
        let line = format!(" {SYSLOG}[{pid}]: {words}\n");
        ensure(text.contains(&line), || format!("no {line:?} in {text:?}"))?;
    }
    Ok(())
}

/// What is said while it is away comes when it is back.
fn syslog_restart_loses_nothing(guest: &mut Guest) -> Result<(), String> {
    start_talking(guest, SYSLOG)?;
    let bystander = guest.bystander()?;
    for round in 0..5 {
        let before = guest.unit("syslogd")?;
        signal(pid_of(&before)?, Signal::SIGKILL)?;
        (0..20).try_for_each(|line| talk(SYSLOG, &format!("round {round} line {line}.\n")))?;
        guest.wait("syslogd", SOON, |snapshot| {
            let unit = crate::supervisor::unit(snapshot, "syslogd")?;
            (unit.state == StateName::Running && unit.run > before.run).then_some(())
        })?;
    }
    let text = wait_for(guest, MESSAGES, "round 4 line 19.\n")?;
    let said = (0..5).flat_map(|round| (0..20).map(move |line| format!(": round {round} line {line}.\n")));
    // A daemon that is killed takes what is in its socket with it; whatever lifeboat still had is there, in order.
    let found: Vec<_> = said.filter_map(|line| text.find(&line)).collect();
    guest.figure(&format!("syslog: {} of 100 lines are in the log after 5 kills of syslogd", found.len()));
    ensure(found.is_sorted(), || "the lines are not in their order".into())?;
    ensure(found.len() >= 50, || format!("only {} of 100 lines", found.len()))?;
    bystander.is_unharmed(guest)
}

fn syslog_down_waits(guest: &mut Guest) -> Result<(), String> {
    start_talking(guest, SYSLOG)?;
    guest.stop("syslogd")?;
    talk(SYSLOG, "said while nobody listened\n")?;
    ensure(!read(MESSAGES)?.contains("said while nobody listened"), || "who wrote that?".into())?;
    guest.start("syslogd")?;
    // Nothing more is said: lifeboat looks by itself.
    wait_for(guest, MESSAGES, "said while nobody listened\n").map(drop)
}

/// One that does not read holds nobody up: what finds no room is lost, counted and told.
fn syslog_that_hangs(guest: &mut Guest) -> Result<(), String> {
    start_talking(guest, SYSLOG)?;
    let bystander = guest.bystander()?;
    let daemon = pid_of(&guest.unit("syslogd")?)?;
    signal(daemon, Signal::SIGSTOP)?;
    let many = 2_000;
    let words: String = (0..many).map(|line| format!("flood {line:04}\n")).collect();
    let talked = talk(SYSLOG, &words).and_then(|()| talk(SYSLOG, "after the flood\n"));
    let heard = guest.until("the ring has no end of the flood", SOON, || {
        run(&["/usr/bin/lifeboatctl", "tail", SYSLOG])
            .ok()
            .filter(|(_, text)| text.contains("after the flood"))
    });
    signal(daemon, Signal::SIGCONT)?;
    talked.and(heard)?;
    let text = wait_for(guest, MESSAGES, ": after the flood\n")?;
    let arrived = text.lines().filter(|line| line.contains("]: flood ")).count();
    let told = text.lines().rev().find_map(|line| line.split_once("before they found room here: "));
    let lost: usize = told.and_then(|(_, number)| number.trim().parse().ok()).ok_or("no loss was told")?;
    guest.figure(&format!(
        "syslog: {many} lines to a syslogd that hangs: {arrived} arrived, {lost} told as lost"
    ));
    expect("lines that arrived or were told as lost", &(arrived + lost), &many)?;
    bystander.is_unharmed(guest)
}

fn syslog_of_busybox(guest: &mut Guest) -> Result<(), String> {
    guest.stop("syslogd")?;
    guest.start("busybox-syslogd")?;
    start_talking(guest, SYSLOG)?;
    talk(SYSLOG, "to BusyBox\n")?;
    let pid = pid_of(&guest.unit(SYSLOG)?)?;
    let line = format!(" daemon.info {SYSLOG}[{pid}]: to BusyBox\n");
    wait_for(guest, "/var/log/busybox", &line)?;
    kill_and_wait(guest, "busybox-syslogd")?;
    talk(SYSLOG, "to its second life\n")?;
    wait_for(guest, "/var/log/busybox", "]: to its second life\n")?;
    guest.stop("busybox-syslogd")?;
    guest.stop(SYSLOG)
}

fn kernel_log_has_lines(guest: &mut Guest) -> Result<(), String> {
    let unit = "talks-kmsg";
    start_talking(guest, unit)?;
    talk(unit, "words for the kernel's log\n")?;
    let shown = || kernel_log().ok().filter(|text| text.contains("talks-kmsg: words for the kernel's log"));
    let text = guest.until("the kernel log has no such line", SOON, shown)?;
    let line = text.lines().find(|line| line.contains("talks-kmsg: words")).unwrap_or_default();
    ensure(line.starts_with("14,") || line.starts_with("6,"), || {
        format!("not at the level of information: {line}")
    })?;
    guest.stop(unit)
}

fn kernel_log() -> Result<String, String> {
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let failed = |error: std::io::Error| format!("/dev/kmsg: {error}");
    let mut log = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg").map_err(failed)?;
    let (mut text, mut record) = (String::new(), [0; 8192]);
    // One record for each read; a record that was overwritten meanwhile is an error once, the end another.
    while let Ok(length) = log.read(&mut record) {
        text.push_str(&String::from_utf8_lossy(record.get(..length).unwrap_or_default()));
    }
    Ok(text)
}

fn tail_follows(guest: &mut Guest) -> Result<(), String> {
    start_talking(guest, SYSLOG)?;
    talk(SYSLOG, "before it follows\n")?;
    let mut tail = Command::new("/usr/bin/lifeboatctl")
        .args(["tail", "-f", SYSLOG])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("lifeboatctl tail -f: {error}"))?;
    let mut lines =
        BufReader::new(tail.stdout.take().ok_or("it has no output")?).lines().map_while(Result::ok);
    let followed = lines
        .find(|line| line == "before it follows")
        .ok_or_else(|| "it does not show what was said before".to_owned())
        .and_then(|_| talk(SYSLOG, "while it follows\n"))
        .and_then(|()| {
            lines.find(|line| line == "while it follows").ok_or_else(|| "it does not follow".into())
        });
    let _ = tail.kill().and_then(|()| tail.wait().map(drop));
    followed?;
    guest.stop(SYSLOG)
}

/// A tmpfs of 64 KiB, so that a disk is full soon.
fn small_disk() -> Result<(), String> {
    let failed = |error| format!("mount a small tmpfs: {error}");
    let _ = std::fs::create_dir_all(SMALL);
    let _ = umount2(SMALL, MntFlags::MNT_DETACH);
    mount(Some("small"), SMALL, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).map_err(failed)
}

fn log_file_rotates(guest: &mut Guest) -> Result<(), String> {
    small_disk()?;
    start_talking(guest, FILE)?;
    // A burst is more than the way to the writer holds: in parts.
    for part in 0..10 {
        let words: String = (0..100).map(|line| format!("line {part}{line:02} of the log file\n")).collect();
        talk(FILE, &words)?;
        wait_for(guest, LOG, &format!("line {part}99 of the log file\n"))?;
    }
    let names = || ["", ".1", ".2", ".3"].map(|ending| format!("{LOG}{ending}"));
    let sizes = names().map(|name| std::fs::metadata(name).map_or(0, |it| it.len()));
    let [now, first, second, third] = sizes;
    let fit = |size: u64| size > 0 && size <= 8 << 10;
    ensure(fit(now) && fit(first) && fit(second) && third == 0, || format!("sizes {sizes:?}"))?;
    let all: Result<Vec<String>, String> = names().iter().take(3).rev().map(|name| read(name)).collect();
    let text = all?.concat();
    let last = |line: usize| format!("line {line:03} of the log file\n");
    let expected: String = (1_000 - text.lines().count()..1_000).map(last).collect();
    ensure(text == expected, || "the files do not go on from one to the next".into())
}

fn log_file_on_a_full_disk(guest: &mut Guest) -> Result<(), String> {
    start_talking(guest, FILE)?;
    let bystander = guest.bystander()?;
    let filler = format!("{SMALL}/filler");
    // Until it is full.
    let _ = std::fs::write(&filler, vec![b'x'; 128 << 10]);
    let words: String = (0..500).map(|line| format!("no room for {line}\n")).collect();
    talk(FILE, &words)?;
    bystander.is_unharmed(guest)?;
    expect("the unit", &guest.unit(FILE)?.state, &StateName::Running)?;
    std::fs::remove_file(&filler).map_err(|error| format!("{filler}: {error}"))?;
    let look = || {
        talk(FILE, "there is room again\n").ok()?;
        read(LOG).ok().filter(|text| text.contains("there is room again\n"))
    };
    guest.until("the file is not written again", SOON, look).map(drop)
}

fn log_file_in_a_read_only_folder(guest: &mut Guest) -> Result<(), String> {
    guest.stop(FILE)?;
    let remount = |flags| {
        mount(Some("small"), SMALL, Some("tmpfs"), MsFlags::MS_REMOUNT | flags, Some("size=64k"))
            .map_err(|error| format!("remount {SMALL}: {error}"))
    };
    // The writer lives as long as lifeboat, with its file open: a new file system is what a new boot would find.
    small_disk()?;
    remount(MsFlags::MS_RDONLY)?;
    start_talking(guest, FILE)?;
    let bystander = guest.bystander()?;
    let words: String = (0..3_000).map(|line| format!("nowhere to write {line}\n")).collect();
    talk(FILE, &words)?;
    bystander.is_unharmed(guest)?;
    remount(MsFlags::empty())?;
    let look = || {
        talk(FILE, "it may be written\n").ok()?;
        Path::new(LOG)
            .exists()
            .then(|| read(LOG).ok())
            .flatten()
            .filter(|text| text.contains("it may be written\n"))
    };
    let text = guest.until("the file is not written once it may be", SOON, look);
    guest.stop(FILE)?;
    umount2(SMALL, MntFlags::MNT_DETACH).map_err(|error| format!("umount {SMALL}: {error}"))?;
    text.map(drop)
}
