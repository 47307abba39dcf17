//! `why`: the story of a unit's last trouble and of its incidents, with what happened when.

use super::cure;
use super::status::{OneLine, WallOffset};
use super::words::{
    self, Bytes, Exhaustions, ExitWords, LeftWords, ProcedureWords, StallWords, Tenths, TroubleWords, Uptime,
};
use crate::engine::event::{LeftBehind, MemoryEvents, MemorySample, Time};
use crate::engine::setting::Setting;
use crate::engine::snapshot::{
    Desired, Incident, Killer, ProcedureResult, StateName, Trouble, UnitView, Verdict,
};
use std::fmt::{self, Display, Write};

/// What is known of one unit.
#[derive(Clone, Copy, Debug)]
pub struct Story<'a> {
    /// When the snapshot was taken.
    pub time: Time,
    /// The unit.
    pub unit: &'a UnitView,
    /// Its incidents, oldest first.
    pub incidents: &'a [Incident],
    /// Names by `UnitId`.
    pub names: &'a [String],
    /// Faults of all unit files.
    pub faults: &'a [String],
    /// The end of what its last run that has ended has said.
    pub last_words: &'a str,
    /// The end of what the last of its commands that failed has said.
    pub command_words: &'a str,
}

/// Writes the whole story; `all` incidents that are on record, or only the last.
///
/// # Errors
/// Only what `out` fails with.
pub fn write(out: &mut dyn Write, why: &Story<'_>, wall: WallOffset, all: bool) -> fmt::Result {
    let unit = why.unit;
    write!(out, "{}: {}", unit.name, words::state(unit.state))?;
    if let Some(pid) = unit.pid {
        write!(out, ", pid {pid}")?;
    }
    if unit.run.0 > 0 {
        let since = Uptime(why.time.since_us(unit.since));
        write!(out, ", run {}, for {since} (since {})", unit.run.0, wall.calendar(unit.since))?;
    }
    writeln!(out)?;
    if !unit.description.is_empty() {
        writeln!(out, "  {}", OneLine(&unit.description))?;
    }
    match unit.trouble {
        Some(trouble) => {
            writeln!(out, "  last trouble: {}", TroubleWords { trouble, names: why.names })?;
        }
        None => writeln!(out, "  no trouble is on record")?,
    }
    if let Some(condition) = &unit.condition {
        writeln!(out, "  not met: {}", OneLine(condition))?;
    }
    if let Some(exit) = unit.last_exit {
        writeln!(out, "  last end: {}", ExitWords(exit))?;
    }
    for refused in &unit.refused_settings {
        let name = OneLine(&refused.setting);
        write!(out, "  {name} is not taken: {}", cure::untaken(refused.errno))?;
        match Setting::of_name(&refused.setting) {
            Some(setting) => writeln!(out, "; {}", cure::of_setting(setting, refused.errno))?,
            None => writeln!(out)?,
        }
    }
    held(out, unit)?;
    let (times, within_ms) = (unit.exhaustions, unit.exhaustions_within_ms);
    let spent = matches!(unit.trouble, Some(Trouble::ExhaustedTooOften { .. }));
    if times > 0 {
        writeln!(out, "  its memory: {}", Exhaustions { times, within_ms, spent })?;
    }
    if let Some(to) = unit.fallback {
        writeln!(out, "  in its stead: {}", words::name_of(why.names, to))?;
    }
    if let Some(drill) = &unit.drill {
        super::drill::write(out, drill)?;
    }
    writeln!(out, "  next: {}", next(why))?;
    failed_command(out, why)?;
    said(out, "last words", why.last_words)?;
    faults(out, why)?;
    let shown = if all { usize::MAX } else { 1 };
    let skipped = why.incidents.len().saturating_sub(shown);
    for incident in why.incidents.iter().skip(skipped) {
        writeln!(out)?;
        story(out, incident, why, wall)?;
    }
    let known = u32::try_from(why.incidents.len().min(shown)).unwrap_or(u32::MAX);
    match unit.incidents.saturating_sub(known) {
        0 => Ok(()),
        _ if all => writeln!(out, "\n{} exhaustions since boot", unit.incidents),
        _ => writeln!(out, "\n{} exhaustions since boot (--all shows those on record)", unit.incidents),
    }
}

/// It stands still, and nothing ends that; or nothing guards it.
fn held(out: &mut dyn Write, unit: &UnitView) -> fmt::Result {
    let Some(memory) = &unit.memory else { return Ok(()) };
    if memory.unguarded {
        let cure = "`lifeboatctl restart` makes another";
        writeln!(out, "  its ballast was lost too often: the kernel would kill it at its limit; {cure}")?;
    }
    memory.stall.map_or(Ok(()), |verdict| writeln!(out, "  {}", StallWords(verdict)))
}

/// What comes next, from what is and what was asked.
fn next(why: &Story<'_>) -> &'static str {
    match (why.unit.state, why.unit.desired) {
        (StateName::Running, Desired::Up) => "it goes on running",
        (StateName::Listening, _) => "it is started when something comes in on its sockets",
        (StateName::Starting, Desired::Up) => "it is on its way up",
        (StateName::Backoff, Desired::Up) => "it is started again after its delay",
        (StateName::Rescuing, Desired::Up) => "what is left is killed, then its `then` decides",
        (StateName::Stopping, Desired::Up) => "it goes down and comes up again",
        (StateName::Rescuing, Desired::Down) => "what is left is killed, and it stays down",
        (StateName::Running | StateName::Starting | StateName::Stopping, Desired::Down) => "it goes down",
        (StateName::Fatal, _) => "nothing, until the cause is removed and somebody starts it",
        (StateName::Skipped, _) => "nothing, until somebody or something that needs it starts it",
        (StateName::Done, _) => "nothing: the task is done",
        (StateName::Stopped | StateName::Exited, _) | (StateName::Backoff, Desired::Down) => {
            "it stays down until somebody starts it"
        }
    }
}

/// The last of its commands that failed: a health check, for instance.
fn failed_command(out: &mut dyn Write, why: &Story<'_>) -> fmt::Result {
    let Some(failed) = why.unit.failed_command else { return Ok(()) };
    let (what, how) = (words::command(failed.kind), ProcedureWords(failed.result));
    let ago = Uptime(why.time.since_us(failed.time));
    writeln!(out, "  last command that failed: {what} {how}, {ago} ago")?;
    said(out, "it said", why.command_words)
}

/// Line by line, without what a terminal would obey.
pub(super) fn said(out: &mut dyn Write, what: &str, words: &str) -> fmt::Result {
    if words.is_empty() {
        return Ok(());
    }
    writeln!(out, "  {what}:")?;
    for line in words.lines() {
        writeln!(out, "    {}", OneLine(line))?;
    }
    Ok(())
}

/// What was found wrong with this unit: a fault of its file, or of its template's, names the file; a refusal of the
/// budget begins with the unit's name.
fn faults(out: &mut dyn Write, why: &Story<'_>) -> fmt::Result {
    let (file, name) = (format!("/{}.ron", why.unit.name), format!("{}: ", why.unit.name));
    let template = why.unit.name.split_once('@').map(|(template, _)| format!("/{template}@.ron"));
    let is_its = |fault: &&String| {
        fault.contains(&file)
            || fault.starts_with(&name)
            || template.as_ref().is_some_and(|template| fault.contains(template))
    };
    for fault in why.faults.iter().filter(is_its) {
        for line in fault.lines() {
            writeln!(out, "  {}", OneLine(line))?;
        }
    }
    Ok(())
}

fn story(out: &mut dyn Write, incident: &Incident, why: &Story<'_>, wall: WallOffset) -> fmt::Result {
    let ago = Uptime(why.time.since_us(incident.began));
    let calendar = wall.calendar(incident.began);
    writeln!(out, "incident {}, run {}, {ago} ago ({calendar})", incident.number, incident.run.0)?;
    account(out, incident)?;
    writeln!(out, "  all of it: lifeboatctl incidents show {}", incident.number)
}

/// What an incident's record says, but for its heading.
///
/// # Errors
/// Only what `out` fails with.
pub fn account(out: &mut dyn Write, incident: &Incident) -> fmt::Result {
    writeln!(out, "  evidence: {}", EvidenceWords(incident.verdict))?;
    if let Some(sample) = incident.sample {
        memory(out, sample, incident.limit_bytes)?;
    }
    timeline(out, incident)?;
    let over = incident.emptied.is_some();
    if let Some(first) = incident.first_procedure {
        writeln!(out, "  first procedure: {}", ProcedureWords(first))?;
    }
    match incident.procedure {
        ProcedureResult::None if over => {
            writeln!(out, "  procedure: none ran; one for an exhaustion needs Exhaustion in shutdown.on")?
        }
        ProcedureResult::None => {}
        result @ (ProcedureResult::Ended(_)
        | ProcedureResult::SavedItself(_)
        | ProcedureResult::OutOfMemory
        | ProcedureResult::LoanSpent
        | ProcedureResult::Lost(_)
        | ProcedureResult::TimedOut
        | ProcedureResult::SpawnFailed { .. }) => writeln!(out, "  procedure: {}", ProcedureWords(result))?,
    }
    if incident.procedure_high > 0 {
        let times = incident.procedure_high;
        writeln!(
            out,
            "  its procedure met shutdown.memory {times} times: it writes faster than its disk, or needs more"
        )?;
    }
    if over {
        writeln!(out, "  ended by: {}", words::killer(incident.killer))?;
    }
    if let Some(left) = incident.left {
        outlives(out, left, incident.sample)?;
    }
    counters(out, incident.counters_at_start, incident.counters)
}

/// By what it was seen that memory is exhausted.
pub(super) struct EvidenceWords(pub(super) Verdict);

impl Display for EvidenceWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Verdict::OomEvent { oom } => {
                write!(f, "the kernel found nothing to reclaim (memory.events: oom +{oom})")
            }
            Verdict::Predicted { unreclaimable_bytes, bytes_per_s, left_ms, needs_ms, bound } => {
                let (used, slope) = (Bytes(unreclaimable_bytes), Bytes(bytes_per_s));
                let left = LeftWords { left_ms, needs_ms, bound };
                write!(f, "{used} unreclaimable, growing {slope}/s: {left}")
            }
            Verdict::LimitLowered { current_bytes } => {
                write!(f, "a person asked for a limit below the {} in use", Bytes(current_bytes))
            }
            verdict @ (Verdict::HeldAtHigh { .. } | Verdict::Thrashing { .. }) => {
                write!(f, "{}", StallWords(verdict))
            }
            Verdict::CanaryDied { oom, ballast_bytes } => {
                let ballast = Bytes(ballast_bytes);
                write!(
                    f,
                    "the kernel found nothing to reclaim and took the ballast of {ballast} (oom +{oom})"
                )
            }
            Verdict::KernelKilled { oom_kill } => {
                write!(f, "the kernel killed (memory.events: oom_kill +{oom_kill})")
            }
        }
    }
}

fn memory(out: &mut dyn Write, sample: MemorySample, limit: Option<u64>) -> fmt::Result {
    let (used, hard) = (Bytes(sample.current_bytes), Bytes(sample.unreclaimable_bytes));
    write!(out, "  memory: {used}, of which {hard} unreclaimable")?;
    if sample.waits_for_its_disk(sample.current_bytes) {
        write!(out, ", and {} not on the disk yet", Bytes(sample.dirty_bytes()))?;
    }
    if let Some(limit) = limit {
        write!(out, ", limit {}", Bytes(limit))?;
    }
    let some = Tenths::of(u64::from(sample.psi_some_avg10), 100);
    let full = Tenths::of(u64::from(sample.psi_full_avg10), 100);
    writeln!(out, "; psi some {some} %, full {full} %")
}

/// What the kill has freed, and what is still charged to the cgroup.
fn outlives(out: &mut dyn Write, left: LeftBehind, before: Option<MemorySample>) -> fmt::Result {
    write!(out, "  ")?;
    if let Some(before) = before {
        write!(out, "freed: {}; ", Bytes(before.current_bytes.saturating_sub(left.current_bytes)))?;
    }
    let (stays, shmem) = (Bytes(left.current_bytes), Bytes(left.shmem_bytes));
    write!(out, "left behind: {stays}, of them {shmem} shmem")?;
    if left.shmem_bytes > 0 {
        write!(out, " (tmpfs or memfd pages that outlive the kill)")?;
    }
    match left.file_bytes.saturating_sub(left.shmem_bytes) {
        0 => writeln!(out),
        cache => writeln!(out, ", {} page cache", Bytes(cache)),
    }
}

/// Microseconds from the beginning, in the order of the steps.
fn timeline(out: &mut dyn Write, incident: &Incident) -> fmt::Result {
    let killed = match incident.killer {
        Killer::Lifeboat => "cgroup.kill written",
        Killer::KernelCgroup | Killer::KernelOutside => "cgroup.kill written for what the kernel left",
        Killer::Itself => "cgroup.kill written for what was left",
    };
    let began = words::cause(incident.cause);
    let mut steps: [(Option<Time>, &str); 7] = [
        (Some(incident.began), began),
        (incident.frozen, "frozen: the service stands still"),
        (incident.released, "procedure released"),
        (incident.procedure_running, "procedure running"),
        (incident.procedure_ended, "procedure over"),
        (incident.killed, killed),
        (incident.emptied, "empty: no process is left"),
    ];
    // A stable sort: steps of one reading of the clock keep their order.
    steps.sort_by_key(|(time, _)| *time);
    writeln!(out, "  timeline in µs:")?;
    for (time, words) in steps.iter().filter_map(|(time, words)| time.map(|time| (time, words))) {
        writeln!(out, "  {:>12}  {words}", time.since_us(incident.began))?;
    }
    match incident.emptied {
        Some(_) => Ok(()),
        None => writeln!(out, "             …  not over yet"),
    }
}

fn counters(out: &mut dyn Write, start: MemoryEvents, end: MemoryEvents) -> fmt::Result {
    let pairs = [
        ("max", start.max, end.max),
        ("oom", start.oom, end.oom),
        ("oom_kill", start.oom_kill, end.oom_kill),
        ("high", start.high, end.high),
        ("oom below", start.oom_below, end.oom_below),
    ];
    let below = usize::from(end.oom_below == start.oom_below);
    let pairs = pairs.into_iter().take(pairs.len() - below);
    write!(out, "  memory.events in this run:")?;
    for (name, start, end) in pairs {
        write!(out, " {name} +{}", end.saturating_sub(start))?;
    }
    writeln!(out)
}
