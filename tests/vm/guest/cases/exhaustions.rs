//! A thousand exhaustions of services that leak in twelve ways: what was lost, who decided, how long each step took.

use super::Case;
use super::life::ms;
use crate::group::Group;
use crate::guest::{Guest, allow_huge_pages, ensure, read, ring_path, run, saved_path};
use crate::ring::KEPT;
use crate::saved::beside;
use crate::shapes::{SHAPES, Shape};
use crate::stamp::word;
use crate::supervisor;
use lifeboat::engine::event::Time;
use lifeboat::engine::snapshot::{Incident, Killer, Snapshot, StateName, Verdict};
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "exhaustions-rate-1", deadline_s: 1_800, run: |g| measure(g, "rate-1") },
    Case { name: "exhaustions-rate-16", deadline_s: 1_800, run: |g| measure(g, "rate-16") },
    Case { name: "exhaustions-rate-256", deadline_s: 1_800, run: |g| measure(g, "rate-256") },
    Case { name: "exhaustions-flat-out", deadline_s: 1_800, run: |g| measure(g, "flat-out") },
    Case { name: "exhaustions-threads-4", deadline_s: 1_800, run: |g| measure(g, "threads-4") },
    Case { name: "exhaustions-threads-16", deadline_s: 1_800, run: |g| measure(g, "threads-16") },
    Case { name: "exhaustions-populate", deadline_s: 1_800, run: |g| measure(g, "populate") },
    Case { name: "exhaustions-populate-huge", deadline_s: 1_800, run: |g| measure(g, "populate-huge") },
    Case { name: "exhaustions-tmpfs", deadline_s: 1_800, run: |g| measure(g, "tmpfs") },
    Case { name: "exhaustions-fork", deadline_s: 1_800, run: |g| measure(g, "fork") },
    Case { name: "exhaustions-sockets", deadline_s: 1_800, run: |g| measure(g, "sockets") },
    Case { name: "exhaustions-drip", deadline_s: 1_800, run: |g| measure(g, "drip") },
    Case { name: "exhaustions-in-all", deadline_s: 60, run: in_all },
];

/// A drip may take its time.
const PATIENCE: Duration = Duration::from_secs(180);
/// As many beats as the bystander is looked at for, before anything leaks.
const CALM_BEATS: u64 = 200;
/// The steps of an exhaustion, each counted from the kernel's event.
const STEPS: [&str; 5] = ["frozen", "first instruction", "killed", "empty", "restarted"];

/// What came of one shape.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) exhaustions: u64,
    pub(super) lost: u64,
    pub(super) lossy: u64,
    pub(super) saves: u64,
    pub(super) kernel_kills: u64,
    pub(super) early: u64,
    predicted: u64,
    by_event: u64,
    steps: [Vec<u64>; 5],
    /// Why something was lost, or the like: the last word on it.
    pub(super) trouble: String,
}

static TOTALS: Mutex<Vec<(&'static str, Outcome)>> = Mutex::new(Vec::new());

/// As often as the host says, or the shape.
pub(super) fn rounds(otherwise: u32) -> u32 {
    word("vm.rounds").and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn measure(guest: &mut Guest, name: &'static str) -> Result<(), String> {
    let shape = SHAPES.iter().find(|shape| shape.name == name).ok_or("no such shape")?;
    let bystander = guest.bystander()?;
    bystander.beats(guest, CALM_BEATS)?;
    let calm_us = bystander.take_worst_us();
    let outcome = exhaust(guest, (name, shape), rounds(shape.rounds).min(shape.rounds))?;
    let leak_us = bystander.take_worst_us();
    guest.figure(&format!(
        "{name}: {} exhaustions, {} of {} records lost, kernel OOM kills: {}, dead before the procedure's end: {}, \
         decided by prediction: {}, by the oom event: {}, bystander's worst gap {:.1} ms (calm: {:.1} ms)",
        outcome.exhaustions,
        outcome.lost,
        outcome.exhaustions * KEPT,
        outcome.kernel_kills,
        outcome.early,
        outcome.predicted,
        outcome.by_event,
        ms(leak_us),
        ms(calm_us)
    ));
    let failed = (outcome.lost > 0 || outcome.early > 0).then(|| outcome.trouble.clone());
    if let Ok(mut totals) = TOTALS.lock() {
        totals.push((name, outcome));
    }
    bystander.is_unharmed(guest)?;
    failed.map_or(Ok(()), Err)
}

/// Starts a unit of the shape once; lifeboat restarts it after each exhaustion.
pub(super) fn exhaust(guest: &Guest, (name, shape): (&str, &Shape), rounds: u32) -> Result<Outcome, String> {
    if shape.leak.starts_with("populate") {
        allow_huge_pages()?;
    }
    let (mut outcome, kills) = (Outcome::default(), guest.kernel_kills()?);
    let mut before = guest.last_incident()?;
    let mut ring = node(name);
    guest.start(name)?;
    let mut group = Group::of(name)?;
    let mut next_life = || {
        let old = std::mem::take(&mut ring);
        group.until(guest, PATIENCE, |_| {
            ring = node(name);
            Ok(ring != 0 && ring != old)
        })
    };
    next_life()?;
    for _ in 0..rounds {
        next_life()?;
        let (incident, restarted) =
            guest.wait(name, PATIENCE, |snapshot| back_again(snapshot, name, before))?;
        before = incident.number;
        outcome.add(name, &incident, restarted);
    }
    guest.stop(name)?;
    outcome.kernel_kills = guest.kernel_kills()? - kills;
    Ok(outcome)
}

/// Which file the unit's ring is: each life makes a new one.
fn node(name: &str) -> u64 {
    std::fs::metadata(ring_path(name)).map(|metadata| metadata.ino()).unwrap_or_default()
}

/// The next incident, and when the unit was up again after it.
fn back_again(snapshot: &Snapshot, name: &str, before: u32) -> Option<(Incident, Time)> {
    let incident = supervisor::incident(snapshot, name, before)?;
    let unit = supervisor::unit(snapshot, name)?;
    (unit.state == StateName::Running && unit.run > incident.run).then_some((incident, unit.since))
}

/// Another process compares. This one would keep every ring mapped, and each is charged to its service's cgroup.
fn count_saved(name: &str) -> Result<u64, String> {
    let (ring, out) = (ring_path(name), saved_path(name));
    let words =
        ["/usr/bin/recorder-flush", "--verify", &ring.display().to_string(), &out.display().to_string()];
    let (code, text) = run(&words)?;
    let saved = text.strip_prefix("saved ").and_then(|text| text.split(' ').next()?.parse().ok());
    saved.ok_or_else(|| format!("{name}: recorder-flush --verify: exit code {code}, {text:?}"))
}

fn first_instruction(name: &str) -> Option<Time> {
    let path = beside(&saved_path(name), ".stamp");
    read(&path.display().to_string()).ok()?.trim().parse().ok().map(Time)
}

impl Outcome {
    fn add(&mut self, name: &str, incident: &Incident, restarted: Time) {
        self.exhaustions += 1;
        // What cannot be compared counts as lost.
        let saved = count_saved(name).unwrap_or_else(|error| {
            self.trouble = error;
            0
        });
        self.lost += KEPT.saturating_sub(saved);
        self.lossy += u64::from(saved < KEPT);
        self.saves += u64::from(saved == KEPT);
        let early = incident.killer != Killer::Lifeboat || incident.killed < incident.procedure_ended;
        if early {
            self.early += 1;
            self.trouble = format!("{incident:?}");
        }
        match incident.verdict {
            Verdict::Predicted { .. } => self.predicted += 1,
            Verdict::OomEvent { .. } | Verdict::CanaryDied { .. } => self.by_event += 1,
            Verdict::LimitLowered { .. }
            | Verdict::KernelKilled { .. }
            | Verdict::HeldAtHigh { .. }
            | Verdict::Thrashing { .. } => {}
        }
        let first = first_instruction(name).filter(|time| *time >= incident.began);
        let times = [incident.frozen, first, incident.killed, incident.emptied, Some(restarted)];
        for (step, time) in self.steps.iter_mut().zip(times) {
            step.extend(time.map(|time| time.since_us(incident.began)));
        }
    }
}

/// The times as a table, and the sums.
fn in_all(guest: &mut Guest) -> Result<(), String> {
    let totals = TOTALS.lock().map_err(|_| "a case panicked")?;
    guest.figure(&format!(
        "event to ... (ms: p50, p99, worst) | {}",
        STEPS.map(|step| format!("{step:^26}")).join(" | ")
    ));
    for (name, outcome) in totals.iter() {
        let steps: Vec<String> = outcome.steps.iter().map(|step| spread(step.clone())).collect();
        guest.figure(&format!("{name:<34} | {}", steps.join(" | ")));
    }
    let sum = |part: fn(&Outcome) -> u64| totals.iter().map(|(_, outcome)| part(outcome)).sum::<u64>();
    let (exhaustions, lost) = (sum(|one| one.exhaustions), sum(|one| one.lost));
    guest.figure(&format!(
        "in all: {exhaustions} exhaustions, {lost} of {} records lost, kernel OOM kills: {}, dead before the \
         procedure's end: {}, decided by prediction: {}, by the oom event: {}",
        exhaustions * KEPT,
        sum(|one| one.kernel_kills),
        sum(|one| one.early),
        sum(|one| one.predicted),
        sum(|one| one.by_event),
    ));
    ensure(lost == 0, || format!("{lost} records lost"))
}

fn spread(mut us: Vec<u64>) -> String {
    us.sort_unstable();
    let at = |share: usize| {
        let place = (us.len() * share / 100).min(us.len().saturating_sub(1));
        ms(us.get(place).copied().unwrap_or_default())
    };
    format!("{:8.1} {:8.1} {:8.1}", at(50), at(99), at(100))
}

#[cfg(test)]
mod tests {
    use super::{CASES, SHAPES};

    #[test]
    fn each_shape_has_its_case() {
        for shape in &SHAPES {
            let name = format!("exhaustions-{}", shape.name);
            assert!(CASES.iter().any(|case| case.name == name), "{name}");
        }
    }
}
