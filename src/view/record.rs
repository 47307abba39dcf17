//! One log record in words, on one line without its newline.
//!
//! The exhaustion path calls this with a fixed buffer: nothing here allocates.

use super::cure;
use super::drill;
use super::words::{
    self, Bytes, Exhaustions, ExitWords, LeftWords, Millis, Percent, ProcedureWords, StallWords, Took,
    TroubleWords,
};
use crate::engine::event::{Exit, Note, Role};
use crate::engine::policy::{Escalation, UnitId, WarnDeed, WarnStage, WarnWhen};
use crate::engine::record::Record;
use crate::engine::snapshot::{Cause, KillReason, ProcedureResult, Verdict};
use std::fmt::{self, Write};

/// Writes a record; `names` gives the unit's name by its `UnitId`.
///
/// # Errors
/// Only what `out` fails with, such as a fixed buffer that is full.
pub fn write<S: AsRef<str>>(out: &mut dyn Write, record: &Record, names: &[S]) -> fmt::Result {
    if let Some(unit) = unit_of(record) {
        write!(out, "{}: ", words::name_of(names, unit))?;
    }
    match *record {
        Record::Exhausted { .. }
        | Record::Frozen { .. }
        | Record::FreezeTimedOut { .. }
        | Record::WaitsForReserve { .. }
        | Record::Rescuing { .. }
        | Record::SavesItself { .. }
        | Record::LentExhausted { .. }
        | Record::Otherwise { .. }
        | Record::ProcedureOver { .. }
        | Record::Killing { .. }
        | Record::EffectFailed { .. }
        | Record::Emptied { .. }
        | Record::IncidentClosed { .. }
        | Record::StillPopulated { .. } => exhaustion(out, record),
        Record::Running { pid, after_us, .. } => {
            write!(out, "RUNNING: pid {pid}, after {}", Took(after_us))
        }
        Record::SpawnFailed { role, stage, errno, .. } => {
            write!(out, "{}: {}: {}", unmade(role), words::stage(stage), words::errno(errno))
        }
        Record::SettingRefused { .. }
        | Record::LimitChanged { .. }
        | Record::KilledBelow { .. }
        | Record::BallastLost { .. }
        | Record::StandsStill { .. }
        | Record::Warned { .. } => limits(out, record),
        Record::Ended { exit: Exit::Code(code), .. } => write!(out, "exited with code {code}"),
        Record::Ended { exit: Exit::Unseen {}, .. } => write!(out, "has ended; how, only its parent saw"),
        Record::Ended { exit: exit @ Exit::Signal(_), .. } => {
            write!(out, "was killed by {}", ExitWords(exit))
        }
        Record::Killed { by, .. } => write!(out, "was killed by {}", words::killed_by(by)),
        Record::Failed { failure, .. } => write!(out, "has failed: {}", words::failure(failure)),
        Record::Notified { note, .. } => notified(out, note),
        Record::CommandOver { .. }
        | Record::CommandStays { .. }
        | Record::Reloaded { .. }
        | Record::Drill { .. }
        | Record::Drilled { .. }
        | Record::DrillBrokenOff { .. }
        | Record::DrillPutOff { .. }
        | Record::ProcedureLost { .. }
        | Record::ReloadFailed { .. } => beside(out, record),
        Record::Reached { .. } => write!(out, "RUNNING: reached"),
        Record::Skipped { condition, .. } => {
            write!(out, "SKIPPED: condition {} of its list is not met", u16::from(condition) + 1)
        }
        Record::Done { .. } => write!(out, "DONE"),
        Record::Backoff { delay_ms, .. } => write!(out, "BACKOFF: starts again in {}", millis(delay_ms)),
        Record::Fatal { trouble, .. } => write!(out, "FATAL: {}", TroubleWords { trouble, names }),
        Record::ExhaustedAgain { times, within_ms, spent, .. } => {
            write!(out, "memory {}", Exhaustions { times, within_ms, spent })
        }
        Record::Escalating { escalation, .. } => escalating(out, escalation, names),
        Record::CannotEscalate { escalation, .. } => cannot_escalate(out, escalation, names),
        Record::RescueBegins { .. } => write!(out, "everything else is down, the rescue begins"),
        Record::Stopping { reason, .. } => write!(out, "STOPPING ({})", words::kill_reason(reason)),
        Record::Stopped { exited, .. } => write!(out, "{}", if exited { "EXITED" } else { "STOPPED" }),
        Record::Added { .. } => write!(out, "is new"),
        Record::Changed { .. } => write!(out, "has a new definition"),
        Record::Removed { .. } => write!(out, "is taken out"),
        Record::Listening { .. } => write!(out, "LISTENING: starts when it is needed"),
        Record::Demanded { .. } => write!(out, "is needed"),
        Record::ShuttingDown { how } => write!(out, "going down: {}", words::shutdown(how)),
        Record::AllDown { how } => write!(out, "all units are down: {}", words::shutdown(how)),
    }
}

fn notified(out: &mut dyn Write, note: Note) -> fmt::Result {
    match note {
        Note::Reloading => write!(out, "says that it reloads"),
        Note::Stopping => write!(out, "says that it stops"),
        Note::MainPid(pid) => write!(out, "says that its main process is {pid}"),
        Note::Ready | Note::Alive | Note::Failing | Note::ExtendMs(_) | Note::Status => {
            write!(out, "has news")
        }
    }
}

/// The records of what runs beside a service.
fn beside(out: &mut dyn Write, record: &Record) -> fmt::Result {
    if let Record::CommandOver { kind, result, after_us, .. } = *record {
        return write!(out, "{} {} after {}", words::command(kind), ProcedureWords(result), Took(after_us));
    }
    if drilled(out, record)? {
        return Ok(());
    }
    if let Record::ProcedureLost { exit, .. } = *record {
        return write!(out, "its procedure ended before it was needed: {}", ExitWords(exit));
    }
    if let Record::Reloaded { after_us, .. } = *record {
        return write!(out, "reloaded after {}", Took(after_us));
    }
    let stays = matches!(record, Record::CommandStays { .. });
    write!(out, "{}", if stays { "what a command left does not die" } else { "not reloaded, it runs on" })
}

/// The records of drills. False where it is another one.
fn drilled(out: &mut dyn Write, record: &Record) -> Result<bool, fmt::Error> {
    match *record {
        Record::Drill { to_the_end: true, .. } => write!(out, "a drill begins, to the end")?,
        Record::Drill { .. } => write!(out, "a drill begins, to the procedure and back")?,
        Record::Drilled { needs, after_us, .. } => {
            let cure = drill::cure(&needs);
            write!(out, "RUNNING: {}", if cure.is_some() { "the drill failed: " } else { "drilled, " })?;
            drill::outcome(out, &needs)?;
            match cure {
                Some(cure) => write!(out, "; {cure}")?,
                None => write!(out, "; as before after {}", Took(after_us))?,
            }
        }
        Record::DrillBrokenOff { .. } => {
            write!(out, "the drill failed: {}; `lifeboatctl why` says more", drill::BROKEN_OFF)?;
        }
        Record::DrillPutOff { .. } => {
            write!(out, "a drill is due, but it is busy: it waits for the next time")?
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The records about settings and limits.
fn limits(out: &mut dyn Write, record: &Record) -> fmt::Result {
    match *record {
        Record::SettingRefused { setting, errno, skipped, .. } => {
            let goes_on = if skipped { "it goes on without" } else { "it is not started" };
            let (name, cure) = (setting.name(), cure::of_setting(setting, errno));
            write!(out, "{name} is not taken: {}; {goes_on}; {cure}", cure::untaken(errno))
        }
        Record::LimitChanged { limit, kept, .. } => {
            let since = if kept { "from its next run on" } else { "now" };
            write!(out, "{} is {} {since}", limit.setting.name(), words::LimitWords(limit))
        }
        Record::Warned { stage, unreclaimable_bytes, limit_bytes, .. } => {
            warned(out, stage, Bytes(unreclaimable_bytes), Bytes(limit_bytes))
        }
        Record::StandsStill { verdict, .. } => write!(out, "{}", StallWords(verdict)),
        Record::BallastLost { exit, for_memory, tries_left, .. } => {
            match for_memory {
                true => write!(out, "the kernel took its ballast, because memory ran out above the unit; ")?,
                false => write!(out, "its ballast has ended ({}), and not by lifeboat; ", ExitWords(exit))?,
            }
            match tries_left {
                0 => write!(out, "it goes on without a canary, until its next start"),
                _ => write!(out, "another is made"),
            }
        }
        Record::KilledBelow { oom_kill, .. } => {
            write!(out, "the kernel's OOM killer struck in a cgroup of its own making: oom_kill ({oom_kill})")
        }
        _ => Ok(()),
    }
}

fn warned(out: &mut dyn Write, stage: WarnStage, used: Bytes, limit: Bytes) -> fmt::Result {
    write!(out, "warned: {used} of {limit} in use")?;
    match stage.when {
        WarnWhen::Share(share) => write!(out, ", the stage is {}", Percent(share))?,
        WarnWhen::WithinMs(ms) => write!(out, ", exhausted within {} at this growth", millis(ms))?,
        WarnWhen::Pressure(share) => write!(out, ", it waits for memory {} of the time", Percent(share))?,
    }
    match stage.deed {
        WarnDeed::Log => Ok(()),
        WarnDeed::Signal(signal) => write!(out, "; {} sent", ExitWords(Exit::Signal(signal))),
        WarnDeed::Run => write!(out, "; the warn command begins"),
        WarnDeed::Notify => write!(out, "; told by MEMORY_PRESSURE_WATCH"),
        WarnDeed::Reclaim(bytes) => write!(out, "; {} are reclaimed", Bytes(bytes)),
    }
}

/// The records of the path from an exhaustion to its end.
fn exhaustion(out: &mut dyn Write, record: &Record) -> fmt::Result {
    match *record {
        Record::Exhausted { cause, verdict, limit_bytes, .. } => {
            exhausted(out, cause, verdict, Bytes(limit_bytes))
        }
        Record::Frozen { after_us, .. } => write!(out, "frozen after {}", Took(after_us)),
        Record::FreezeTimedOut { after_ms, .. } => {
            write!(out, "did not freeze within {}, going on", millis(after_ms))
        }
        Record::WaitsForReserve { needs_bytes, free_bytes, .. } => {
            let (needs, free) = (Bytes(needs_bytes), Bytes(free_bytes));
            write!(out, "procedure waits for room in the reserve: needs {needs}, {free} free")
        }
        Record::Rescuing { cause, deadline_ms, .. } => {
            let (state, before) = match cause {
                Cause::Exhaustion | Cause::KernelOomKill => ("RESCUING: ", ""),
                Cause::Stop => ("", " before the stop"),
                Cause::Failure => ("", " before the kill"),
                Cause::Drill => ("RESCUING: ", " for a drill"),
            };
            write!(out, "{state}procedure released{before}, deadline {}", millis(deadline_ms))
        }
        Record::SavesItself { lent_bytes: 0, deadline_ms, .. } => {
            write!(out, "gets its stop signal, to save itself, deadline {}", millis(deadline_ms))
        }
        Record::SavesItself { lent_bytes, deadline_ms, .. } => {
            let (lent, deadline) = (Bytes(lent_bytes), millis(deadline_ms));
            write!(
                out,
                "RESCUING: {lent} lent, and its stop signal sent, to save itself, deadline {deadline}"
            )
        }
        Record::LentExhausted { .. } => write!(out, "the memory that was lent is exhausted too"),
        Record::Otherwise { result, deadline_ms, .. } => write!(
            out,
            "procedure {}; the second one comes, deadline {}",
            ProcedureWords(result),
            millis(deadline_ms)
        ),
        Record::ProcedureOver { result: result @ ProcedureResult::None, .. } => {
            write!(out, "no procedure: {}", ProcedureWords(result))
        }
        Record::ProcedureOver { result, after_us, .. } => {
            write!(out, "procedure {} after {}", ProcedureWords(result), Took(after_us))
        }
        Record::Killing { role, reason, .. } => killing(out, role, reason),
        Record::EffectFailed { effect, errno, .. } => {
            write!(out, "{}: {}", words::undone(effect), words::errno(errno))
        }
        Record::Emptied { after_us, .. } => write!(out, "empty after {}", Took(after_us)),
        Record::IncidentClosed { number, total_us, .. } => {
            write!(out, "incident {number} closed after {}", Took(total_us))
        }
        Record::StillPopulated { .. } => write!(out, "processes are left after cgroup.kill"),
        // Not about an exhaustion; `write` has words for it.
        _ => Ok(()),
    }
}

fn unmade(role: Role) -> &'static str {
    match role {
        Role::Service => "cannot be started",
        Role::Procedure => "its procedure cannot be made ready",
        Role::Command => "its command cannot be started",
        Role::Ballast => "its ballast cannot be made",
    }
}

fn exhausted(out: &mut dyn Write, cause: Cause, verdict: Verdict, limit: Bytes) -> fmt::Result {
    match (cause, verdict) {
        (_, Verdict::OomEvent { oom }) => {
            write!(out, "memory is exhausted: oom event ({oom}), limit {limit}")
        }
        (_, Verdict::Predicted { unreclaimable_bytes, bytes_per_s, left_ms, needs_ms, bound }) => {
            let (used, slope) = (Bytes(unreclaimable_bytes), Bytes(bytes_per_s));
            let left = LeftWords { left_ms, needs_ms, bound };
            write!(out, "memory is exhausted soon: {used} and {slope}/s more, {left}, limit {limit}")
        }
        (_, Verdict::LimitLowered { current_bytes }) => {
            write!(out, "{} are in use, which do not fit below the new limit {limit}", Bytes(current_bytes))
        }
        (_, verdict @ (Verdict::HeldAtHigh { .. } | Verdict::Thrashing { .. })) => {
            write!(out, "memory is exhausted: {}", StallWords(verdict))
        }
        (_, Verdict::CanaryDied { oom, ballast_bytes }) => {
            let ballast = Bytes(ballast_bytes);
            write!(
                out,
                "memory is exhausted: oom event ({oom}), the ballast of {ballast} goes, limit {limit}"
            )
        }
        (_, Verdict::KernelKilled { oom_kill }) if limit.0 == 0 => {
            write!(out, "the kernel's OOM killer struck: oom_kill ({oom_kill})")
        }
        (_, Verdict::KernelKilled { oom_kill }) => {
            write!(out, "the kernel's OOM killer struck: oom_kill ({oom_kill}), limit {limit}")
        }
    }
}

fn escalating<S: AsRef<str>>(out: &mut dyn Write, escalation: Escalation, names: &[S]) -> fmt::Result {
    match escalation {
        Escalation::Stop => write!(out, "it stays down"),
        Escalation::Fallback(to) => write!(out, "{} takes its place", words::name_of(names, to)),
        Escalation::Reboot => write!(out, "calls for a reboot"),
        Escalation::PowerOff => write!(out, "calls for a power off"),
        Escalation::Rescue => write!(out, "calls for the rescue: everything else goes down"),
    }
}

fn cannot_escalate<S: AsRef<str>>(out: &mut dyn Write, escalation: Escalation, names: &[S]) -> fmt::Result {
    if escalation == Escalation::Rescue {
        return write!(out, "stays down: there is no rescue here");
    }
    write!(out, "stays down, this cannot be: ")?;
    escalating(out, escalation, names)
}

fn killing(out: &mut dyn Write, role: Role, reason: KillReason) -> fmt::Result {
    let what = match role {
        Role::Service => "killing what is left",
        Role::Procedure => "killing its procedure",
        Role::Command => "killing its command",
        Role::Ballast => "killing its ballast",
    };
    write!(out, "{what} ({})", words::kill_reason(reason))
}

fn millis(ms: u32) -> Millis {
    Millis(u64::from(ms))
}

fn unit_of(record: &Record) -> Option<UnitId> {
    match *record {
        Record::Running { unit, .. }
        | Record::SpawnFailed { unit, .. }
        | Record::SettingRefused { unit, .. }
        | Record::KilledBelow { unit, .. }
        | Record::BallastLost { unit, .. }
        | Record::LimitChanged { unit, .. }
        | Record::Ended { unit, .. }
        | Record::Killed { unit, .. }
        | Record::Failed { unit, .. }
        | Record::Notified { unit, .. }
        | Record::CommandOver { unit, .. }
        | Record::CommandStays { unit }
        | Record::Reloaded { unit, .. }
        | Record::Drill { unit, .. }
        | Record::Drilled { unit, .. }
        | Record::DrillBrokenOff { unit }
        | Record::DrillPutOff { unit }
        | Record::ProcedureLost { unit, .. }
        | Record::ReloadFailed { unit }
        | Record::Reached { unit }
        | Record::Skipped { unit, .. }
        | Record::Done { unit }
        | Record::Backoff { unit, .. }
        | Record::Fatal { unit, .. }
        | Record::ExhaustedAgain { unit, .. }
        | Record::Escalating { unit, .. }
        | Record::CannotEscalate { unit, .. }
        | Record::RescueBegins { unit }
        | Record::Stopping { unit, .. }
        | Record::Stopped { unit, .. }
        | Record::Added { unit }
        | Record::Changed { unit }
        | Record::Removed { unit }
        | Record::Listening { unit }
        | Record::Demanded { unit }
        | Record::Warned { unit, .. }
        | Record::StandsStill { unit, .. }
        | Record::Exhausted { unit, .. }
        | Record::Frozen { unit, .. }
        | Record::FreezeTimedOut { unit, .. }
        | Record::WaitsForReserve { unit, .. }
        | Record::Rescuing { unit, .. }
        | Record::SavesItself { unit, .. }
        | Record::LentExhausted { unit }
        | Record::Otherwise { unit, .. }
        | Record::ProcedureOver { unit, .. }
        | Record::Killing { unit, .. }
        | Record::EffectFailed { unit, .. }
        | Record::Emptied { unit, .. }
        | Record::IncidentClosed { unit, .. }
        | Record::StillPopulated { unit } => Some(unit),
        Record::ShuttingDown { .. } | Record::AllDown { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::{CommandKind, Effect, ShutdownKind, SpawnStage};
    use crate::engine::setting::Setting;
    use crate::engine::snapshot::{Bound, DrillNeeds, Failure, KilledBy, Trouble};

    const UNIT: UnitId = UnitId(1);

    fn check(record: &Record, expected: &str) {
        let mut line = String::new();
        write(&mut line, record, &["bus", "recorder"]).expect("a String takes everything");
        assert_eq!(line, expected);
        assert!(line.len() <= 200, "too long for a line of the kernel log: {line}");
    }

    #[test]
    fn a_ballast_that_goes() {
        let (unit, cause, limit_bytes) = (UNIT, Cause::Exhaustion, 32 << 20);
        let verdict = Verdict::CanaryDied { oom: 1, ballast_bytes: 2 << 20 };
        check(
            &Record::Exhausted { unit, cause, verdict, limit_bytes },
            "recorder: memory is exhausted: oom event (1), the ballast of 2 MiB goes, limit 32 MiB",
        );
        check(
            &Record::BallastLost { unit, exit: Exit::Signal(15), for_memory: false, tries_left: 1 },
            "recorder: its ballast has ended (SIGTERM), and not by lifeboat; another is made",
        );
        check(
            &Record::BallastLost { unit, exit: Exit::Signal(9), for_memory: true, tries_left: 0 },
            "recorder: the kernel took its ballast, because memory ran out above the unit; it goes on without a canary, \
             until its next start",
        );
    }

    #[test]
    fn drills() {
        let (unit, after_us) = (UNIT, 97_800);
        let needs = DrillNeeds {
            procedure: ProcedureResult::Ended(Exit::Code(0)),
            took_us: Some(63_400),
            deadline_ms: 2_000,
            peak_bytes: Some(492 << 10),
            memory_bytes: 4 << 20,
            high: 0,
        };
        check(
            &Record::Drilled { unit, needs, after_us },
            "recorder: RUNNING: drilled, procedure ended with exit code 0 after 63.4 ms of 2 s, with 492 KiB of 4 MiB; \
             as before after 97.8 ms",
        );
        let procedure = ProcedureResult::TimedOut;
        let needs = DrillNeeds { procedure, took_us: Some(2_000_000), ..needs };
        check(
            &Record::Drilled { unit, needs, after_us },
            "recorder: RUNNING: the drill failed: procedure was killed at its deadline after 2.0 s of 2 s, with 492 KiB \
             of 4 MiB; raise shutdown.deadline, or find out by its words what it waits for",
        );
        check(
            &Record::DrillBrokenOff { unit },
            "recorder: the drill failed: the unit's run ended meanwhile, or its procedure could not be parked again; \
             `lifeboatctl why` says more",
        );
        check(
            &Record::DrillPutOff { unit },
            "recorder: a drill is due, but it is busy: it waits for the next time",
        );
    }

    #[test]
    fn how_a_unit_stands_still() {
        let unit = UNIT;
        let (unreclaimable_bytes, psi_full_avg10) = (17 << 20, 9_730);
        let held = Verdict::HeldAtHigh { unreclaimable_bytes, high_bytes: 16 << 20, psi_full_avg10 };
        let thrashes = Verdict::Thrashing { unreclaimable_bytes, refaults_per_s: 350 };
        for (verdict, words) in [
            (
                held,
                "held at memory.high 16 MiB: 17 MiB cannot be reclaimed, 97.3 % of the time nothing runs; \
                 raise memory.high or drop it",
            ),
            (
                thrashes,
                "thrashing: 17 MiB cannot be reclaimed, and what is left is read again and again, 350 pages a \
                 second; raise memory.max",
            ),
        ] {
            let exhausted =
                Record::Exhausted { unit, cause: Cause::Exhaustion, verdict, limit_bytes: 32 << 20 };
            check(&exhausted, &format!("recorder: memory is exhausted: {words}"));
            check(&Record::StandsStill { unit, verdict }, &format!("recorder: {words}"));
        }
    }

    #[test]
    fn the_path_of_an_exhaustion() {
        let (unit, cause) = (UNIT, Cause::Exhaustion);
        let limit_bytes = 32 << 20;
        let verdict = Verdict::OomEvent { oom: 1 };
        check(
            &Record::Exhausted { unit, cause, verdict, limit_bytes },
            "recorder: memory is exhausted: oom event (1), limit 32 MiB",
        );
        let verdict = Verdict::Predicted {
            unreclaimable_bytes: 31 << 20,
            bytes_per_s: 4 << 20,
            left_ms: 250,
            needs_ms: 300,
            bound: Bound::MemoryMax,
        };
        check(
            &Record::Exhausted { unit, cause, verdict, limit_bytes },
            "recorder: memory is exhausted soon: 31 MiB and 4 MiB/s more, 250 ms left to memory.max, 300 ms are \
             needed, limit 32 MiB",
        );
        let (cause, verdict) = (Cause::KernelOomKill, Verdict::KernelKilled { oom_kill: 2 });
        check(
            &Record::Exhausted { unit, cause, verdict, limit_bytes },
            "recorder: the kernel's OOM killer struck: oom_kill (2), limit 32 MiB",
        );
        check(&Record::Frozen { unit, after_us: 14_213 }, "recorder: frozen after 14.2 ms");
        check(
            &Record::FreezeTimedOut { unit, after_ms: 500 },
            "recorder: did not freeze within 500 ms, going on",
        );
        check(
            &Record::WaitsForReserve { unit, needs_bytes: 4 << 20, free_bytes: 0 },
            "recorder: procedure waits for room in the reserve: needs 4 MiB, 0 B free",
        );
        check(
            &Record::Rescuing { unit, cause: Cause::Exhaustion, deadline_ms: 2_000 },
            "recorder: RESCUING: procedure released, deadline 2 s",
        );
        check(
            &Record::ProcedureOver { unit, result: ProcedureResult::Ended(Exit::Code(0)), after_us: 101_000 },
            "recorder: procedure ended with exit code 0 after 101.0 ms",
        );
        check(
            &Record::Killing { unit, role: Role::Service, reason: KillReason::ProcedureEnded },
            "recorder: killing what is left (procedure ended)",
        );
        check(&Record::Emptied { unit, after_us: 3_100 }, "recorder: empty after 3.1 ms");
        check(
            &Record::IncidentClosed { unit, number: 1, total_us: 140_000 },
            "recorder: incident 1 closed after 140.0 ms",
        );
        check(
            &Record::EffectFailed { unit, effect: Effect::Freeze, errno: 19 },
            "recorder: cgroup.freeze cannot be written: No such device",
        );
        check(&Record::StillPopulated { unit }, "recorder: processes are left after cgroup.kill");
    }

    #[test]
    fn ordinary_life() {
        let unit = UNIT;
        check(&Record::Running { unit, pid: 71, after_us: 8_000 }, "recorder: RUNNING: pid 71, after 8.0 ms");
        check(
            &Record::SpawnFailed { unit, role: Role::Service, stage: SpawnStage::Exec, errno: 2 },
            "recorder: cannot be started: execve: No such file or directory",
        );
        check(
            &Record::SpawnFailed { unit, role: Role::Procedure, stage: SpawnStage::Clone, errno: 12 },
            "recorder: its procedure cannot be made ready: clone3: Out of memory",
        );
        let (setting, errno, skipped) = (Setting::CpuMax, 2, true);
        check(
            &Record::SettingRefused { unit, setting, errno, skipped },
            "recorder: cpu.max is not taken: No such file or directory; it goes on without; \
             build the kernel with CONFIG_CFS_BANDWIDTH=y, or have the controller cpu delegated to lifeboat",
        );
        check(&Record::Ended { unit, exit: Exit::Code(1) }, "recorder: exited with code 1");
        check(&Record::Ended { unit, exit: Exit::Signal(11) }, "recorder: was killed by SIGSEGV");
        for (by, words) in [
            (KilledBy::GlobalOom, "the kernel's global OOM killer"),
            (KilledBy::CgroupOom, "the kernel's OOM killer, at the limit of a cgroup"),
            (KilledBy::Outside, "SIGKILL from outside lifeboat"),
        ] {
            check(&Record::Killed { unit, by }, &format!("recorder: was killed by {words}"));
        }
        check(
            &Record::Ended { unit, exit: Exit::Unseen {} },
            "recorder: has ended; how, only its parent saw",
        );
        check(
            &Record::Failed { unit, failure: Failure::NotReady },
            "recorder: has failed: it was not ready within its start_timeout",
        );
        check(&Record::Notified { unit, note: Note::Reloading }, "recorder: says that it reloads");
        let kind = CommandKind::Reload;
        let result = ProcedureResult::Ended(Exit::Code(3));
        check(
            &Record::CommandOver { unit, kind, result, after_us: 5_000 },
            "recorder: reload ended with exit code 3 after 5.0 ms",
        );
        check(
            &Record::CommandOver {
                unit,
                kind: CommandKind::Health,
                result: ProcedureResult::TimedOut,
                after_us: 2_000_000,
            },
            "recorder: health check was killed at its deadline after 2.0 s",
        );
        check(&Record::Reloaded { unit, after_us: 5_000 }, "recorder: reloaded after 5.0 ms");
        check(
            &Record::ProcedureLost { unit, exit: Exit::Signal(9) },
            "recorder: its procedure ended before it was needed: SIGKILL",
        );
        check(&Record::ReloadFailed { unit }, "recorder: not reloaded, it runs on");
        check(&Record::Done { unit }, "recorder: DONE");
        check(&Record::Backoff { unit, delay_ms: 100 }, "recorder: BACKOFF: starts again in 100 ms");
        check(
            &Record::Fatal { unit, trouble: Trouble::RequirementDown { unit: UnitId(0) } },
            "recorder: FATAL: bus is down, which it requires",
        );
        check(
            &Record::Stopping { unit, reason: KillReason::StopAsked },
            "recorder: STOPPING (asked to stop)",
        );
        check(&Record::Stopped { unit, exited: false }, "recorder: STOPPED");
        check(&Record::Stopped { unit, exited: true }, "recorder: EXITED");
        check(&Record::ShuttingDown { how: ShutdownKind::PowerOff }, "going down: power off");
        check(&Record::AllDown { how: ShutdownKind::Reboot }, "all units are down: reboot");
        check(&Record::Done { unit: UnitId(9) }, "?: DONE");
    }
}
