//! What a case can do: ask lifeboat, wait for what it shows, look at the kernel. Every wait ends by the
//! case's deadline.

use super::beat::Pulse;
use super::cast::field;
use super::report;
use super::ring::{KEPT, Ring};
use super::saved::{Count, compare, ring_at};
use super::supervisor::{self, Supervisor};
use lifeboat::engine::snapshot::{Desired, Incident, Snapshot, StateName, UnitView};
use serde_json::json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The unit with the heartbeat, and its file.
const BYSTANDER: &str = "bystander";
const PULSE: &str = "/run/bystander.pulse";
/// Between two looks at something for which the kernel has no event.
const LOOK: Duration = Duration::from_millis(5);

/// A case's hold on the machine.
pub(crate) struct Guest {
    deadline: Instant,
    skipped: Option<String>,
}

impl Guest {
    /// A guest whose waits end at this time.
    pub(crate) fn new(deadline: Instant) -> Self {
        Self { deadline, skipped: None }
    }

    /// Says that this machine cannot run the case, and why.
    pub(crate) fn skip(&mut self, reason: &str) -> Result<(), String> {
        self.skipped = Some(reason.into());
        Ok(())
    }

    /// The reason given to `skip`.
    pub(crate) fn skipped(&self) -> Option<&str> {
        self.skipped.as_deref()
    }

    /// Tells the host a number.
    pub(crate) fn figure(&self, text: &str) {
        report::line(&format!("figure {text}"));
    }

    /// Everything that lifeboat shows, now.
    pub(crate) fn status(&self) -> Result<Snapshot, String> {
        Supervisor::connect()?.status()
    }

    /// What lifeboat shows of one unit.
    pub(crate) fn unit(&self, name: &str) -> Result<UnitView, String> {
        let snapshot = self.status()?;
        supervisor::unit(&snapshot, name).cloned().ok_or_else(|| format!("lifeboat shows no unit {name}"))
    }

    /// A call of any method of lifeboat's own interface.
    pub(crate) fn call(
        &self,
        method: &str,
        parameters: &serde_json::Value,
    ) -> Result<serde_json::Value, String> {
        Supervisor::connect()?.call(method, parameters, self.deadline)
    }

    /// When the case ends.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Asks `Start`, `Stop` or `Restart` of a unit; the outcome is the engine's word, such as `Started`.
    pub(crate) fn ask(&self, verb: &str, unit: &str) -> Result<String, String> {
        let answer = Supervisor::connect()?.call(verb, &json!({ "name": unit }), self.deadline)?;
        let outcome = answer.get("outcome").and_then(|outcome| outcome.as_str());
        outcome.map(str::to_owned).ok_or_else(|| format!("{verb} {unit}: no outcome in {answer}"))
    }

    /// Starts a unit; anything but `Started` is an error.
    pub(crate) fn start(&self, unit: &str) -> Result<(), String> {
        expect(&format!("start {unit}"), &self.ask("Start", unit)?.as_str(), &"Started")
    }

    /// Brings a unit down, whatever it does now.
    pub(crate) fn stop(&self, unit: &str) -> Result<(), String> {
        let outcome = self.ask("Stop", unit)?;
        ensure(matches!(outcome.as_str(), "Stopped" | "NotRunning"), || format!("stop {unit}: {outcome}"))
    }

    /// Who is wished up, so that what a failed case leaves is told from it. None where lifeboat does not answer.
    pub(crate) fn wished_up(&self) -> HashSet<String> {
        let wished = |unit: UnitView| (unit.desired == Desired::Up).then_some(unit.name);
        self.status().map(|all| all.units.into_iter().filter_map(wished).collect()).unwrap_or_default()
    }

    /// Stops what was not wished up before: one case that fails does not make others fail.
    pub(crate) fn stop_what_is_left(&self, before: &HashSet<String>) {
        for unit in self.wished_up().difference(before) {
            let _ = self.ask("Stop", unit);
        }
    }

    /// Waits until lifeboat shows something.
    pub(crate) fn wait<T>(
        &self,
        about: &str,
        within: Duration,
        question: impl FnMut(&Snapshot) -> Option<T>,
    ) -> Result<T, String> {
        Supervisor::connect()?.watch(about, self.deadline.min(Instant::now() + within), question)
    }

    /// Waits for a unit's state.
    pub(crate) fn wait_state(
        &self,
        name: &str,
        state: StateName,
        within: Duration,
    ) -> Result<UnitView, String> {
        let question = |snapshot: &Snapshot| {
            supervisor::unit(snapshot, name).filter(|unit| unit.state == state).cloned()
        };
        self.wait(name, within, question).map_err(|error| format!("{name} is not {state:?}: {error}"))
    }

    /// Waits for a finished incident of a unit with a number above `after`.
    pub(crate) fn wait_incident(&self, name: &str, after: u32, within: Duration) -> Result<Incident, String> {
        self.wait(name, within, |snapshot| supervisor::incident(snapshot, name, after))
            .map_err(|error| format!("no incident of {name} after number {after}: {error}"))
    }

    /// The highest number of an incident so far; 0 before the first.
    pub(crate) fn last_incident(&self) -> Result<u32, String> {
        Ok(self.status()?.incidents.iter().map(|incident| incident.number).max().unwrap_or(0))
    }

    /// Processes that the kernel's OOM killer killed since boot: `oom_kill` of /proc/vmstat.
    pub(crate) fn kernel_kills(&self) -> Result<u64, String> {
        field(&read("/proc/vmstat")?, "oom_kill").ok_or_else(|| "/proc/vmstat has no oom_kill".into())
    }

    /// Looks again and again, for what has no event.
    pub(crate) fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T, String> {
        let deadline = self.deadline.min(Instant::now() + within);
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                return Err(format!("{what}: not within {within:?}"));
            }
            thread::sleep(LOOK);
        }
    }

    /// The heartbeat next door; started where it is down.
    pub(crate) fn bystander(&self) -> Result<Bystander, String> {
        let outcome = self.ask("Start", BYSTANDER)?;
        ensure(matches!(outcome.as_str(), "Started" | "AlreadyStarted"), || {
            format!("{BYSTANDER}: {outcome}")
        })?;
        let unit = self.wait_state(BYSTANDER, StateName::Running, Duration::from_secs(10))?;
        let bystander = Bystander { pulse: Pulse::open(Path::new(PULSE))?, run: unit.run.0 };
        bystander.beats_on(self)?;
        bystander.pulse.take_worst_us();
        Ok(bystander)
    }
}

/// The heartbeat of a unit that has nothing to do with the case.
pub(crate) struct Bystander {
    pulse: Pulse,
    run: u32,
}

impl Bystander {
    /// The worst gap since this was asked last, in microseconds.
    pub(crate) fn take_worst_us(&self) -> u64 {
        self.pulse.take_worst_us()
    }

    /// Waits for two more beats.
    pub(crate) fn beats_on(&self, guest: &Guest) -> Result<(), String> {
        self.beats(guest, 2)
    }

    /// Waits for so many more beats.
    pub(crate) fn beats(&self, guest: &Guest, more: u64) -> Result<(), String> {
        let before = self.pulse.beats();
        let look = || (self.pulse.beats() >= before + more).then_some(());
        let patience = Duration::from_secs(5) + Duration::from_millis(100 * more);
        guest.until("the bystander's heart does not beat", patience, look)
    }

    /// It is in the same life as at the start of the case, and its heart beats.
    pub(crate) fn is_unharmed(&self, guest: &Guest) -> Result<(), String> {
        self.beats_on(guest)?;
        let unit = guest.unit(BYSTANDER)?;
        ensure(unit.state == StateName::Running && unit.run.0 == self.run, || {
            format!("the bystander is {:?}, run {} instead of {}", unit.state, unit.run.0, self.run)
        })
    }
}

/// The ring of a unit that runs the recorder.
pub(crate) fn ring_path(unit: &str) -> PathBuf {
    PathBuf::from(format!("/run/{unit}/ring"))
}

/// The file that its procedure writes.
pub(crate) fn saved_path(unit: &str) -> PathBuf {
    PathBuf::from(format!("/run/{unit}/saved.bin"))
}

/// What was saved of what had been committed when the unit died at this incident.
pub(crate) fn count_saved(unit: &str, incident: &Incident) -> Result<Count, String> {
    compare(&ring_at(&ring_path(unit), incident.began.0)?, &saved_path(unit))
}

/// Nothing of the last 1,000 records is lost.
pub(crate) fn all_saved(unit: &str, incident: &Incident) -> Result<(), String> {
    let count = count_saved(unit, incident)?;
    let all = Count { saved: KEPT, of: KEPT };
    ensure(count == all, || format!("{unit}: saved {} of {} records", count.saved, count.of))
}

/// Waits until the unit's recorder has committed its first 1,000 records.
pub(crate) fn wait_recording(guest: &Guest, unit: &str) -> Result<Ring, String> {
    let look = || Ring::open(&ring_path(unit)).ok().filter(|ring| ring.committed() >= KEPT);
    guest.until(&format!("{unit} has no full ring"), Duration::from_secs(20), look)
}

/// Lets programs that ask for huge pages have them; some kernels' default is `never`
/// (Documentation/admin-guide/mm/transhuge.rst).
pub(crate) fn allow_huge_pages() -> Result<(), String> {
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    std::fs::write(path, "madvise").map_err(|error| format!("{path}: {error}"))
}

/// Huge pages that the kernel has given to page faults since boot.
pub(crate) fn huge_page_faults() -> Result<u64, String> {
    field(&read("/proc/vmstat")?, "thp_fault_alloc")
        .ok_or_else(|| "/proc/vmstat has no thp_fault_alloc".into())
}

/// A file's text; the error names the file.
pub(crate) fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

/// Runs a program to its end: exit code (128 and the signal where one ended it) and standard output.
pub(crate) fn run(words: &[&str]) -> Result<(i32, String), String> {
    use std::os::unix::process::ExitStatusExt;
    let [program, arguments @ ..] = words else { return Err("no program".into()) };
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let code = output.status.code().or(output.status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
    Ok((code, String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// An error unless both are the same.
pub(crate) fn expect<T: PartialEq + std::fmt::Debug>(
    what: &str,
    got: &T,
    expected: &T,
) -> Result<(), String> {
    ensure(got == expected, || format!("{what}: {got:?} instead of {expected:?}"))
}

/// An error unless it holds.
pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
