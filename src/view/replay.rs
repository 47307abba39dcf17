//! `replay`: the turns of an incident with what was decided in them, and where then and now part.

use super::record;
use super::status::OneLine;
use super::why::EvidenceWords;
use super::words::{self, Bytes, ExitWords, Millis, Percent, ProcedureWords, Tenths};
use crate::engine::action::Action;
use crate::engine::episode::Next;
use crate::engine::event::{Event, MemoryEvents, MemorySample, Note, Role, Time};
use crate::engine::replay::{Difference, End, Replay, Turn};
use crate::engine::setting::Limit;
use crate::engine::snapshot::Incident;
use serde::Serialize;
use serde_json::Value;
use std::fmt::{self, Display, Write};

/// A replay, and what it is of.
#[derive(Clone, Copy, Debug)]
pub struct Story<'a> {
    /// The unit's name.
    pub unit: &'a str,
    /// Which lifeboat decided then, and which does now.
    pub versions: (&'a str, &'a str),
    /// The record as it was written then.
    pub record: &'a Incident,
    /// The file is as lifeboat wrote it.
    pub is_as_written: bool,
    /// What came of it.
    pub replay: &'a Replay,
}

/// Writes all turns, what was decided in them, and whether it is the same.
///
/// # Errors
/// Only what `out` fails with.
pub fn write(out: &mut dyn Write, story: &Story<'_>) -> fmt::Result {
    let Story { unit, record: Incident { number, .. }, replay, .. } = story;
    let began = replay.turns.first().map_or(Time(0), |turn| turn.at);
    writeln!(out, "incident {number} of {}, decided again; times from its first event", OneLine(unit))?;
    for turn in &replay.turns {
        let ms = Tenths::of(turn.at.since_us(began), 1_000).to_string();
        writeln!(out, "{ms:>12} ms  {}", EventWords(&turn.event))?;
        if turn.elsewhere {
            writeln!(out, "                 (others had a say in this turn: taken as it was)")?;
        }
        let deeds = if turn.elsewhere { &turn.then } else { &turn.now };
        if !deeds.is_empty() {
            writeln!(out, "                 → {}", Deeds(deeds))?;
        }
        for words in &turn.words {
            write!(out, "                   ")?;
            record::write(out, words, &[OneLine(unit).to_string()])?;
            writeln!(out)?;
        }
    }
    match &replay.difference {
        None => same(out, story),
        Some(difference) => differs(out, story, difference),
    }
}

fn same(out: &mut dyn Write, story: &Story<'_>) -> fmt::Result {
    let replay = story.replay;
    let compared = replay.turns.iter().filter(|turn| !turn.elsewhere);
    let (turns, deeds) = compared.fold((0, 0), |(turns, deeds), turn| (turns + 1, deeds + turn.now.len()));
    if let Some(next) = replay.next {
        writeln!(out, "  then: {}", next_words(next))?;
    }
    let seen = format!("{turns} turns, {deeds} decisions");
    let what = match (replay.end, replay.next) {
        (End::Compared, Some(_)) => {
            format!("{seen}, the record of the incident, and what comes after it")
        }
        (End::Compared, None) => {
            format!("{seen} and the record of the incident; what comes after it is not compared")
        }
        (End::Cut, _) => {
            format!("{seen} are the same; there was no room to record what came then, up to the end")
        }
        (End::Elsewhere, _) => {
            format!("{seen} are the same; the incident's end was others' doing, and is not decided again")
        }
    };
    match (story.is_as_written, replay.end) {
        (false, _) => {
            writeln!(out, "CHANGED: the file is not as lifeboat wrote it. Of what it says now: {what}")
        }
        (true, End::Compared) => writeln!(out, "the same: {what}"),
        (true, End::Cut | End::Elsewhere) => writeln!(out, "NOT WHOLE: {what}"),
    }
}

fn differs(out: &mut dyn Write, story: &Story<'_>, difference: &Difference) -> fmt::Result {
    let (Some(last), Some(first)) = (story.replay.turns.last(), story.replay.turns.first()) else {
        return writeln!(out, "DIFFERENT: no turn");
    };
    let number = story.replay.turns.len();
    let ms = Tenths::of(last.at.since_us(first.at), 1_000);
    match difference {
        Difference::Deeds | Difference::Closing => {
            writeln!(out, "DIFFERENT in turn {number}, at {ms} ms: {}", EventWords(&last.event))?;
            parted(out, last, difference)?;
        }
        Difference::State => {
            writeln!(out, "DIFFERENT in turn {number}, at {ms} ms: {}", EventWords(&last.event))?;
            writeln!(
                out,
                "  the same decisions, but it does not stand as it stood then: what is decided later may differ"
            )?;
        }
        Difference::Record(now) => {
            writeln!(out, "DIFFERENT: the same decisions, but another record of the incident")?;
            fields(out, (story.record, now), first.at)?;
        }
        Difference::Next { then, now } => {
            writeln!(out, "DIFFERENT in what comes after the incident")?;
            writeln!(out, "  then: {}", next_words(*then))?;
            writeln!(out, "  now:  {}", now.map_or_else(|| "not known".into(), next_words))?;
        }
    }
    let (then, now) = story.versions;
    if !story.is_as_written {
        writeln!(out, "the file is not as lifeboat {} wrote it", OneLine(then))
    } else if then == now {
        let record = if let Difference::Record(_) = difference { "its record was changed, or " } else { "" };
        let words = "decided then and decides now, and the episode is as it was written";
        writeln!(out, "lifeboat {now} {words}: {record}a fault was found")
    } else {
        writeln!(out, "lifeboat {} decided then, and {now} decides now", OneLine(then))
    }
}

fn parted(out: &mut dyn Write, turn: &Turn, difference: &Difference) -> fmt::Result {
    writeln!(out, "  then: {}", Deeds(&turn.then))?;
    write!(out, "  now:  {}", Deeds(&turn.now))?;
    if *difference == Difference::Closing {
        write!(out, "; the incident is not closed as it was then")?;
    }
    writeln!(out)
}

/// What of two records is not the same; times from the first event.
fn fields(out: &mut dyn Write, (then, now): (&Incident, &Incident), first: Time) -> fmt::Result {
    let mut told = |name: &str, (then, now): (String, String)| {
        if then == now { Ok(()) } else { writeln!(out, "  {name}\n    then: {then}\n    now:  {now}") }
    };
    told("run", (then.run.0.to_string(), now.run.0.to_string()))?;
    told("cause", (words::cause(then.cause).into(), words::cause(now.cause).into()))?;
    let evidence = |of: &Incident| EvidenceWords(of.verdict).to_string();
    told("evidence", (evidence(then), evidence(now)))?;
    told("ended by", (words::killer(then.killer).into(), words::killer(now.killer).into()))?;
    let at = |time: Option<Time>| match time {
        Some(time) if time >= first => format!("at {} ms", Tenths::of(time.since_us(first), 1_000)),
        Some(time) => format!("{} ms before its first event", Tenths::of(first.since_us(time), 1_000)),
        None => "not at all".into(),
    };
    told("began", (at(Some(then.began)), at(Some(now.began))))?;
    told("frozen", (at(then.frozen), at(now.frozen)))?;
    told("procedure released", (at(then.released), at(now.released)))?;
    told("procedure running", (at(then.procedure_running), at(now.procedure_running)))?;
    told("procedure over", (at(then.procedure_ended), at(now.procedure_ended)))?;
    told("cgroup.kill written", (at(then.killed), at(now.killed)))?;
    told("empty", (at(then.emptied), at(now.emptied)))?;
    let procedure = |result| ProcedureWords(result).to_string();
    told("procedure", (procedure(then.procedure), procedure(now.procedure)))?;
    let first_one = |of: &Incident| of.first_procedure.map_or("did not fail".into(), procedure);
    told("first procedure", (first_one(then), first_one(now)))?;
    let high = |of: &Incident| of.procedure_high.to_string();
    told("times that the procedure met its memory.high", (high(then), high(now)))?;
    let counters = |counters| Counters(counters).to_string();
    let name = "memory.events when the run began";
    told(name, (counters(then.counters_at_start), counters(now.counters_at_start)))?;
    told("memory.events", (counters(then.counters), counters(now.counters)))?;
    told("memory", (parts_of(&then.sample), parts_of(&now.sample)))?;
    told("left behind", (parts_of(&then.left), parts_of(&now.left)))
}

/// All numbers of a reading, by their names in the file: words would round.
fn parts_of(reading: &impl Serialize) -> String {
    match serde_json::to_value(reading) {
        Ok(Value::Object(parts)) => {
            let read = parts.iter().filter(|(_, number)| !number.is_null());
            let parts: Vec<String> = read.map(|(name, number)| format!("{name} {number}")).collect();
            parts.join(", ")
        }
        Ok(_) | Err(_) => "not read".into(),
    }
}

fn next_words(next: Next) -> String {
    match next {
        Next::Starts => "it starts again".into(),
        Next::StartsAfterMs(ms) => format!("it starts again after {}", Millis(ms)),
        Next::Rests => "it rests with its sockets open".into(),
        Next::StaysDown => "it stays down".into(),
        Next::Stays => "it does not die, and is left alone".into(),
    }
}

/// An event in a few words.
struct EventWords<'a>(&'a Event);

impl Display for EventWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Event::Boot => f.write_str("the machine is ready"),
            Event::Deadline => f.write_str("a deadline is due"),
            Event::ConditionsChecked { unmet: None, .. } => f.write_str("its conditions are met"),
            Event::ConditionsChecked { unmet: Some(at), .. } => {
                write!(f, "its condition {} is not met", u32::from(*at) + 1)
            }
            Event::Parked { .. } => f.write_str("its procedure stands ready"),
            Event::BallastStands { .. } => f.write_str("its ballast stands"),
            Event::Spawned { .. } => f.write_str("the service runs"),
            Event::Ready { .. } => f.write_str("the service is ready"),
            Event::Probed { healthy: true, .. } => f.write_str("its health check is good"),
            Event::Probed { healthy: false, .. } => f.write_str("its health check is bad"),
            Event::Notified { note, .. } => write!(f, "it says: {}", note_words(*note)),
            Event::Demanded { .. } => f.write_str("a client waits in its socket"),
            Event::LookedIdle { idle, .. } => {
                f.write_str(if *idle { "nobody needs it" } else { "somebody needs it" })
            }
            Event::SpawnFailed { role, stage, errno, .. } => {
                let (role, stage) = (words::role(*role), words::stage(*stage));
                write!(f, "the {role} cannot be started: {stage}: {}", words::errno(*errno))
            }
            Event::SettingRefused { setting, errno, .. } => {
                write!(f, "{} is not taken: {}", setting.name(), words::errno(*errno))
            }
            Event::ProcedurePeak { peak_bytes, .. } => {
                write!(f, "its procedure has used {} at most", Bytes(*peak_bytes))
            }
            Event::ProcedureRunning { .. } => f.write_str("its procedure runs"),
            Event::Exited { role, exit, .. } => {
                write!(f, "the {}'s process has ended: {}", words::role(*role), ExitWords(*exit))
            }
            Event::KilledOutside { by, .. } => write!(f, "who killed it: {}", words::killed_by(*by)),
            Event::Emptied { role, .. } => write!(f, "no process is left of the {}", words::role(*role)),
            Event::Strayed { .. } => f.write_str("its first process has left its cgroup"),
            Event::Frozen { .. } => f.write_str("it is frozen"),
            Event::Failed { effect, errno, .. } => {
                write!(f, "{}: {}", words::undone(*effect), words::errno(*errno))
            }
            Event::MemoryEvents { role, counters, .. } => memory_events(f, *role, *counters),
            Event::MemorySampled { sample, .. } => memory(f, sample),
            Event::LeftBehind { left, .. } => {
                write!(f, "{} are charged to what is empty", Bytes(left.current_bytes))
            }
            Event::PressureRang { .. } => f.write_str("memory.pressure rings"),
            Event::LimitAsked { limit, .. } => write!(f, "a person asks for {}", limit_words(*limit)),
            Event::LimitTried { limit, .. } => write!(f, "{} was tried", limit_words(*limit)),
            Event::Asked { verb, .. } => write!(f, "a person asks: {}", words::verb(*verb)),
            Event::ClientGone { .. } => f.write_str("who asked is gone"),
            Event::ShutdownAsked { how } => write!(f, "the machine is to go down: {}", words::shutdown(*how)),
            Event::IncidentsAhead { from, by } => write!(
                f,
                "incidents from {from} on get numbers that are higher by {by}: others are on record"
            ),
            Event::Reconfigured { changes } => write!(f, "unit files were read; changes: {changes}"),
        }
    }
}

fn memory_events(f: &mut fmt::Formatter<'_>, role: Role, counters: MemoryEvents) -> fmt::Result {
    match role {
        Role::Service => {}
        Role::Procedure => f.write_str("its procedure's ")?,
        Role::Command => f.write_str("its command's ")?,
        Role::Ballast => f.write_str("its ballast's ")?,
    }
    write!(f, "memory.events: {}", Counters(counters))
}

fn memory(f: &mut fmt::Formatter<'_>, sample: &MemorySample) -> fmt::Result {
    write!(
        f,
        "memory: {}, of which {} cannot be reclaimed",
        Bytes(sample.current_bytes),
        Bytes(sample.unreclaimable_bytes),
    )?;
    if sample.waits_for_its_disk(sample.current_bytes) {
        write!(f, ", and {} are not on the disk yet", Bytes(sample.dirty_bytes()))?;
    }
    write!(f, "; psi full {}", Percent(sample.psi_full_avg10))
}

fn limit_words(limit: Limit) -> String {
    format!("{} {}", limit.setting.name(), words::LimitWords(limit))
}

/// As the service writes it (sd_notify(3)).
fn note_words(note: Note) -> &'static str {
    match note {
        Note::Ready => "READY=1",
        Note::Reloading => "RELOADING=1",
        Note::Stopping => "STOPPING=1",
        Note::Alive => "WATCHDOG=1",
        Note::Failing => "WATCHDOG=trigger",
        Note::ExtendMs(_) => "EXTEND_TIMEOUT_USEC",
        Note::MainPid(_) => "MAINPID",
        Note::Status => "STATUS",
    }
}

struct Counters(MemoryEvents);

impl Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MemoryEvents { high, max, oom, oom_kill, oom_below } = self.0;
        let counters =
            [("high", high), ("max", max), ("oom", oom), ("oom_kill", oom_kill), ("oom below", oom_below)];
        let mut before = "";
        for (name, count) in counters.into_iter().filter(|(_, count)| *count > 0) {
            write!(f, "{before}{name} {count}")?;
            before = ", ";
        }
        if before.is_empty() { f.write_str("all 0") } else { Ok(()) }
    }
}

struct Deeds<'a>(&'a [Action]);

impl Display for Deeds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (at, deed) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            deed_words(f, deed)?;
        }
        Ok(())
    }
}

fn deed_words(f: &mut fmt::Formatter<'_>, deed: &Action) -> fmt::Result {
    match deed {
        Action::CheckConditions { .. } => f.write_str("look at its conditions"),
        Action::Park { .. } => f.write_str("make its procedure"),
        Action::ParkOtherwise { .. } => f.write_str("make its second procedure"),
        Action::MakeBallast { bytes, .. } => write!(f, "make a ballast of {}", Bytes(*bytes)),
        Action::Lend { lend_bytes, .. } => write!(f, "lend it {}", Bytes(*lend_bytes)),
        Action::TakeBack { lend_bytes, .. } => write!(f, "take {} back", Bytes(*lend_bytes)),
        Action::ReadPeak { .. } => f.write_str("read what its procedure has used"),
        Action::Spawn { .. } => f.write_str("start it"),
        Action::LookForPath { .. } => f.write_str("look whether it is ready"),
        Action::Probe { .. } => f.write_str("check its health"),
        Action::EndProbe { .. } => f.write_str("give its health check up"),
        Action::Freeze { .. } => f.write_str("freeze it"),
        Action::Hold { .. } => f.write_str("freeze it for a moment"),
        Action::Thaw { .. } => f.write_str("thaw it"),
        Action::TryLimit { limit, .. } => write!(f, "try {}", limit_words(*limit)),
        Action::EndLimit { .. } => f.write_str("give the new limit up"),
        Action::Listen { .. } => f.write_str("listen at its sockets"),
        Action::LookIdle { .. } => f.write_str("look whether it is needed"),
        Action::StartProcedure { order, .. } => {
            let (cause, ms) = (order.cause.word(), Millis(u64::from(order.deadline_ms)));
            write!(f, "release its procedure ({cause}, deadline {ms})")
        }
        Action::Signal { signal, reason, .. } => {
            write!(f, "signal {signal} ({})", words::kill_reason(*reason))
        }
        Action::SignalAll { signal, reason, .. } => {
            write!(f, "signal {signal} to all ({})", words::kill_reason(*reason))
        }
        Action::KillCgroup { role, reason, .. } => {
            write!(f, "kill the {} ({})", words::role(*role), words::kill_reason(*reason))
        }
        Action::Doorbells { on: true, .. } => f.write_str("doorbells on"),
        Action::Doorbells { on: false, .. } => f.write_str("doorbells off"),
        Action::Ring { high_bytes: Some(bytes), .. } => write!(f, "memory.high rings at {}", Bytes(*bytes)),
        Action::Ring { high_bytes: None, .. } => f.write_str("memory.high lifted"),
        Action::Reclaim { bytes, .. } => write!(f, "reclaim {}", Bytes(*bytes)),
        Action::ReleaseMemory { .. } => {
            f.write_str("take the memory of what does not die (process_mrelease)")
        }
        Action::NotifyPressure { .. } => f.write_str("write to its MEMORY_PRESSURE_WATCH"),
        Action::RunCommand { order, .. } => write!(f, "run its {}", words::command(order.kind)),
        Action::KillCommand { reason, .. } => write!(f, "kill its command ({})", words::kill_reason(*reason)),
        Action::CloseDescriptors { .. } => f.write_str("close its sockets and what it has stored"),
        Action::Sample { .. } => f.write_str("read its memory"),
        Action::Adopt { .. } => f.write_str("take its new definition"),
        Action::Dismiss { .. } => f.write_str("let go of the unit"),
        Action::KeepIncident { .. } => f.write_str("keep the incident"),
        Action::Finish { how } => write!(f, "end the machine: {}", words::shutdown(*how)),
        // Told below the deeds, or to somebody who is not there any more.
        Action::Log(_) | Action::Reply { .. } | Action::ReplyLimit { .. } => f.write_str("tell"),
    }
}
