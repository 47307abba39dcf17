//! PID 1 keeps its size: nothing that happens to units leaves something behind in lifeboat.

use super::Case;
use crate::cast::anonymous_kib;
use crate::guest::{Guest, ensure, expect};
use lifeboat::engine::limits::INCIDENTS_MAX;
use std::sync::OnceLock;
use std::time::Duration;

/// Run last in their group.
pub(crate) const CASES: &[Case] = &[
    Case { name: "twenty-exhaustions-leave-nothing", deadline_s: 400, run: twenty_exhaustions },
    Case { name: "pid-1-has-not-grown", deadline_s: 30, run: has_not_grown },
];

const UNIT: &str = "leak-flat-out";
const ROUNDS: usize = 20;
/// Once the tables of incidents and events are full, and the letter of an incident has had its full size (some rounds
/// later: 100 rounds after that held the same 1520 KiB), only the output rings of the units that speak in these rounds
/// are touched for the first time, a page now and then until each has come round: 4 KiB and a page's edge for this
/// unit, its procedure and the bystander. A leak of 1 KiB for each round would be 20, in each block of rounds.
const ROUNDS_KIB: u64 = 16;
const BLOCKS_MAX: usize = 3;
/// The first start of a unit makes what it keeps: the paths of its cgroups and a page or so of tables for their files.
const KIB_PER_UNIT: u64 = 8;
/// The files of a unit's two cgroups that lifeboat keeps open.
const FILES_PER_UNIT: usize = 20;

/// What PID 1 holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    /// Its own memory. Code and constants are not counted: they come and go with the page cache.
    pub(super) anonymous_kib: u64,
    /// Open files outside of /sys/fs/cgroup.
    pub(super) files: usize,
    /// Open files of cgroups: these belong to the units that were started once.
    pub(super) cgroup_files: usize,
}

impl Held {
    pub(super) fn now() -> Result<Self, String> {
        let folder = std::fs::read_dir("/proc/1/fd").map_err(|error| format!("/proc/1/fd: {error}"))?;
        let targets: Vec<_> = folder.flatten().map(|entry| std::fs::read_link(entry.path())).collect();
        let is_cgroups = |target: &&std::io::Result<std::path::PathBuf>| {
            target.as_ref().is_ok_and(|path| path.starts_with("/sys/fs/cgroup"))
        };
        let cgroup_files = targets.iter().filter(is_cgroups).count();
        Ok(Self { anonymous_kib: anonymous_kib(1)?, files: targets.len() - cgroup_files, cgroup_files })
    }
}

/// Before the group's first case.
static FIRST: OnceLock<Result<Held, String>> = OnceLock::new();

/// Notes what PID 1 holds before anything has happened.
pub(crate) fn note_first() {
    FIRST.get_or_init(Held::now);
}

fn exhaust(guest: &Guest) -> Result<(), String> {
    let before = guest.last_incident()?;
    guest.start(UNIT)?;
    guest.wait_incident(UNIT, before, Duration::from_secs(60)).map(drop)
}

/// What PID 1 holds once nothing is under way any more: no procedure is parked, and the connections of this driver
/// are gone, which lifeboat notices a moment after they are closed.
fn settled(guest: &Guest, files_max: usize) -> Result<Held, String> {
    guest.stop("bystander")?;
    let slice = || std::fs::read_to_string("/sys/fs/cgroup/shutdown/cgroup.events").ok();
    let empty = || slice().filter(|text| text.contains("populated 0")).map(drop);
    guest.until("the shutdown slice is not empty", Duration::from_secs(10), empty)?;
    let quiet = || Held::now().ok().filter(|held| held.files <= files_max);
    guest
        .until(&format!("PID 1 keeps more than {files_max} files open"), Duration::from_secs(5), quiet)
        .map_err(|error| format!("{error}: {:?}: {}", Held::now(), open_files()))
}

/// What they are, but for those of cgroups.
fn open_files() -> String {
    let links = std::fs::read_dir("/proc/1/fd").into_iter().flatten().flatten();
    let mut links: Vec<String> = links
        .filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.display().to_string()))
        .filter(|link| !link.starts_with("/sys/fs/cgroup"))
        .collect();
    links.sort();
    links.join(" ")
}

fn first() -> Result<Held, String> {
    FIRST.get().cloned().unwrap_or_else(|| Err("nobody noted what PID 1 held at first".into()))
}

fn twenty_exhaustions(guest: &mut Guest) -> Result<(), String> {
    let files = first()?.files;
    // Its own rings too, whatever other cases have exhausted before.
    for _ in 0..ROUNDS {
        exhaust(guest)?;
    }
    while guest.last_incident()? < u32::try_from(INCIDENTS_MAX + ROUNDS).unwrap_or(u32::MAX) {
        exhaust(guest)?;
    }
    let mut before = settled(guest, files)?;
    for _ in 0..BLOCKS_MAX {
        for _ in 0..ROUNDS {
            exhaust(guest)?;
        }
        // A connection that lifeboat has not let go of yet has pages of its own.
        let after = settled(guest, before.files)?;
        guest.figure(&format!("{ROUNDS} exhaustions: PID 1 before {before:?}, after {after:?}"));
        expect("open files of cgroups", &after.cgroup_files, &before.cgroup_files)?;
        if after.anonymous_kib <= before.anonymous_kib + ROUNDS_KIB {
            return Ok(());
        }
        before = after;
    }
    Err(format!("memory: {ROUNDS_KIB} KiB more with each {ROUNDS} exhaustions"))
}

fn has_not_grown(guest: &mut Guest) -> Result<(), String> {
    let before = first()?;
    let after = settled(guest, before.files)?;
    let started = guest.status()?.units.iter().filter(|unit| unit.run.0 > 0).count();
    guest.figure(&format!("{started} units started: PID 1 before {before:?}, after {after:?}"));
    ensure(after.cgroup_files <= started * FILES_PER_UNIT, || {
        format!("{} open files of cgroups for {started} units", after.cgroup_files)
    })?;
    let growth_kib_max = KIB_PER_UNIT * started as u64;
    ensure(after.anonymous_kib <= before.anonymous_kib + growth_kib_max, || {
        format!("memory: {before:?}, then {after:?}")
    })
}
