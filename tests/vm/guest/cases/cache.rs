//! Page cache at a limit: the same program reads the same file in a unit and in a group that nobody watches.

use super::Case;
use super::disk::{self, FILE, drop_caches};
use super::exhaustions::rounds;
use crate::cast::{field, own};
use crate::guest::{Guest, ensure, expect, read};
use lifeboat::engine::snapshot::StateName;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::Child;
use std::thread;
use std::time::Duration;

/// The benchmark. Its disk and its unit are larger than those of [`disk::CASES`], and so is its time.
pub(crate) const CASES: &[Case] = &[
    Case { name: "has-a-large-disk", deadline_s: 300, run: |guest| disk::make(guest, 500 << 20) },
    Case { name: "page-cache-for-a-minute", deadline_s: 600, run: for_a_minute },
    Case { name: "writes-to-a-large-disk", deadline_s: 60, run: |_| disk::write_last_words() },
];

/// A unit that reads [`FILE`] again and again, and how long it is compared with one that nobody watches.
pub(super) struct Churn {
    /// It is guaranteed, and notes its rounds in `/run/NAME.rounds`.
    pub(super) unit: &'static str,
    /// Its `memory.max`, in bytes.
    pub(super) max_bytes: u64,
    /// So often and so long each of the two is looked at.
    pub(super) pairs: u32,
    pub(super) look: Duration,
}

/// A group that nobody watches. It lies where the unit's does: each level of the tree has its price.
const UNWATCHED: &str = "/sys/fs/cgroup/guaranteed/unwatched";
const UNWATCHED_ROUNDS: &str = "/run/unwatched.rounds";
const SETTLES: Duration = Duration::from_millis(200);
/// Of lifeboat while a unit churns, in each second.
const WAKE_UPS_MAX: u64 = 2;

/// Each of the two reads for a minute.
fn for_a_minute(guest: &mut Guest) -> Result<(), String> {
    let (max_bytes, look) = (32 << 20, Duration::from_secs(5));
    compare(guest, &Churn { unit: "reads-a-large-file", max_bytes, pairs: rounds(12), look })
}

/// What the turns have shown.
#[derive(Default)]
struct Seen {
    /// MiB a second, of the unit and of who is not watched.
    paces: [Vec<f64>; 2],
    /// What PID 1 has done in the turns of the unit.
    work: Work,
    /// How often the unit has met its limit in them.
    met: u64,
}

/// What a process has done so far.
#[derive(Clone, Copy, Default)]
struct Work {
    woken: u64,
    read_bytes: u64,
}

/// In turns, because a noisy host slows both alike. Counts are judged; how fast they read is printed.
pub(super) fn compare(guest: &Guest, churn: &Churn) -> Result<(), String> {
    let incidents = guest.last_incident()?;
    guest.start(churn.unit)?;
    let watched_pid = guest.unit(churn.unit)?.pid.ok_or("it has no pid")?;
    let mut child = unwatched(churn.max_bytes)?;
    let rounds = format!("/run/{}.rounds", churn.unit);
    let seen = in_turns(guest, churn, [(watched_pid, &rounds), (child.id(), UNWATCHED_ROUNDS)]);
    let _ = child.kill().and_then(|()| child.wait());
    let mut seen = seen?;
    let unit = guest.unit(churn.unit)?;
    let reading = bytes_of_a_reading(churn.unit)?;
    guest.stop(churn.unit)?;
    drop_caches()?;
    let (met, woken, readings) = (seen.met, seen.work.woken, seen.work.read_bytes / reading);
    let whole_s = churn.look.as_secs() * u64::from(churn.pairs);
    guest.figure(&format!(
        "page cache at the limit of {} MiB, {} times {} s: limit met {met} times, PID 1 woken {woken} times ({} a \
         second), and it read as much as in {readings} readings",
        churn.max_bytes >> 20,
        churn.pairs,
        churn.look.as_secs(),
        per_second(woken, whole_s)
    ));
    show_paces(guest, &mut seen.paces);
    expect("state", &unit.state, &StateName::Running)?;
    expect("its process", &unit.pid, &Some(watched_pid))?;
    expect("incidents", &guest.last_incident()?, &incidents)?;
    expect("warnings", &unit.warnings, &0)?;
    ensure(met > 100, || format!("the limit was met {met} times only"))?;
    let least = u64::from(churn.pairs);
    ensure(readings >= least, || format!("{readings} readings in {least} turns: nobody looked"))?;
    // At its edges a turn may have a part of one round more.
    let most = WAKE_UPS_MAX * (whole_s + least);
    ensure(woken <= most, || format!("PID 1 was woken {woken} times, more than {most}"))
}

/// How much the two have read, and what each turn of the unit comes to beside the one that followed it: how far these
/// lie apart says what the host's noise is worth.
fn show_paces(guest: &Guest, paces: &mut [Vec<f64>; 2]) {
    let [watched, unwatched] = &*paces;
    let mut ratios: Vec<f64> = watched.iter().zip(unwatched).map(|(one, other)| one / other).collect();
    let [watched, unwatched] = paces.each_mut().map(|paces| median(paces));
    let pair = median(&mut ratios);
    let end = |ratio: Option<&f64>| ratio.copied().unwrap_or(f64::NAN);
    guest.figure(&format!(
        "read at {watched:.1} MiB/s, and at {unwatched:.1} MiB/s where nobody watches (medians, ratio {:.3}; pair by \
         pair {:.3} to {:.3}, median {pair:.3})",
        watched / unwatched,
        end(ratios.first()),
        end(ratios.last())
    ));
}

/// "1.3".
fn per_second(count: u64, seconds: u64) -> String {
    let tenths = count * 10 / seconds.max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The files of one reading. What PID 1 reads beside them while one unit churns is small.
fn bytes_of_a_reading(unit: &str) -> Result<u64, String> {
    // Of /proc/meminfo no more than its beginning.
    let mut bytes = 256 + read("/proc/pressure/cpu")?.len();
    for file in ["memory.current", "memory.stat", "memory.pressure"] {
        bytes += read(&group_file(unit, file))?.len();
    }
    Ok(u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn group_file(unit: &str, file: &str) -> String {
    format!("/sys/fs/cgroup/guaranteed/{unit}/{file}")
}

fn number_in(path: &str, name: &str) -> Result<u64, String> {
    field(&read(path)?, name).ok_or_else(|| format!("{path} has no {name}"))
}

/// What a process has read so far, from the page cache or not.
fn read_bytes(pid: u32) -> Result<u64, String> {
    number_in(&format!("/proc/{pid}/io"), "rchar:")
}

fn work_of_pid_1() -> Result<Work, String> {
    let woken = number_in("/proc/1/status", "voluntary_ctxt_switches:")?;
    Ok(Work { woken, read_bytes: read_bytes(1)? })
}

fn say(pid: u32, signal: Signal) -> Result<(), String> {
    let to = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
    kill(to, signal).map_err(|error| format!("{signal} to {pid}: {error}"))
}

/// Lets one of the two read while the other stands still; the first is the unit.
fn in_turns(guest: &Guest, churn: &Churn, readers: [(u32, &str); 2]) -> Result<Seen, String> {
    let count = |rounds: &str| fs::read_to_string(rounds).ok().and_then(|text| text.parse::<u64>().ok());
    let met = || number_in(&group_file(churn.unit, "memory.events.local"), "max");
    for (pid, rounds) in readers {
        guest.until("no round is read", Duration::from_secs(90), || count(rounds))?;
        say(pid, Signal::SIGSTOP)?;
    }
    let (mut seen, met_before) = (Seen::default(), met()?);
    for _ in 0..churn.pairs {
        for (at, (pid, _)) in readers.into_iter().enumerate() {
            let before_bytes = read_bytes(pid)?;
            say(pid, Signal::SIGCONT)?;
            // PID 1 hears of that as a parent: no matter of the page cache.
            thread::sleep(SETTLES);
            let before = work_of_pid_1()?;
            // Time itself is what is measured here.
            thread::sleep(churn.look);
            let after = work_of_pid_1()?;
            say(pid, Signal::SIGSTOP)?;
            if at == 0 {
                seen.work.woken += after.woken - before.woken;
                seen.work.read_bytes += after.read_bytes - before.read_bytes;
            }
            let kib = u32::try_from((read_bytes(pid)? - before_bytes) >> 10).unwrap_or(u32::MAX);
            seen.paces[at].push(f64::from(kib) / 1024.0 / (SETTLES + churn.look).as_secs_f64());
        }
    }
    seen.met = met()? - met_before;
    say(readers[0].0, Signal::SIGCONT)?;
    Ok(seen)
}

fn unwatched(max_bytes: u64) -> Result<Child, String> {
    let write = |file: &str, text: &str| {
        let path = format!("{UNWATCHED}/{file}");
        fs::write(&path, text).map_err(|error| format!("{path}: {error}"))
    };
    fs::create_dir(UNWATCHED).map_err(|error| format!("{UNWATCHED}: {error}"))?;
    write("memory.max", &max_bytes.to_string())?;
    write("memory.swap.max", "0")?;
    let child = own("churn")?.args([FILE, UNWATCHED_ROUNDS]).spawn();
    let child = child.map_err(|error| format!("cannot spawn: {error}"))?;
    write("cgroup.procs", &child.id().to_string())?;
    Ok(child)
}
