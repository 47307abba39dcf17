//! What a drill has shown: what the procedure needed against what its unit grants, and the values to set.

use super::words::{Bytes, Millis, ProcedureWords, Took, Uptime};
use crate::engine::event::{Exit, Time};
use crate::engine::snapshot::{Drill, DrillNeeds, ProcedureResult};
use std::fmt::{self, Write};

/// On the day it counts the machine is busier, and there is more to save.
const TIMES_THE_TIME: u64 = 4;

/// No deadline below this is proposed.
const DEADLINE_MS_LEAST: u64 = 100;

/// Proposed memory is half as much again, in whole steps.
const MEMORY_STEP_BYTES: u64 = 256 << 10;

/// The procedure's result, and what it needed of what its unit grants: in the log and in `status`.
///
/// # Errors
/// Only what `out` fails with.
pub fn outcome(out: &mut dyn Write, needs: &DrillNeeds) -> fmt::Result {
    write!(out, "procedure {}", ProcedureWords(needs.procedure))?;
    if let Some(took_us) = needs.took_us {
        write!(out, " after {} of {}", Took(took_us), Millis(u64::from(needs.deadline_ms)))?;
    }
    match needs.peak_bytes {
        Some(peak_bytes) => write!(out, ", with {} of {}", Bytes(peak_bytes), Bytes(needs.memory_bytes)),
        None => Ok(()),
    }
}

/// What helps a procedure that does not end well; `None` for one that does.
#[must_use]
pub fn cure(needs: &DrillNeeds) -> Option<&'static str> {
    match needs.procedure {
        ProcedureResult::Ended(Exit::Code(0)) | ProcedureResult::SavedItself(Exit::Code(0)) => None,
        ProcedureResult::TimedOut if needs.high > 0 => {
            Some("raise shutdown.deadline if its disk is slow, or shutdown.memory")
        }
        ProcedureResult::TimedOut => {
            Some("raise shutdown.deadline, or find out by its words what it waits for")
        }
        ProcedureResult::OutOfMemory => Some("raise shutdown.memory"),
        ProcedureResult::LoanSpent => Some("raise shutdown.lend"),
        ProcedureResult::Ended(_)
        | ProcedureResult::SavedItself(_)
        | ProcedureResult::Lost(_)
        | ProcedureResult::None
        | ProcedureResult::SpawnFailed { .. } => Some("`lifeboatctl tail` shows what the procedure said"),
    }
}

/// How its way back was cut off.
pub const BROKEN_OFF: &str = "the unit's run ended meanwhile, or its procedure could not be parked again";

/// Writes one line about the last one, with the values to set.
///
/// # Errors
/// Only what `out` fails with.
pub fn line(out: &mut dyn Write, drill: &Drill, now: Time) -> fmt::Result {
    let needs = drill.needs();
    write!(out, "  drill, {} ago: ", Uptime(now.since_us(drill.began)))?;
    if drill.over.is_none() && !drill.broken_off {
        return writeln!(out, "not over yet");
    }
    let cure = cure(&needs);
    if cure.is_some() || drill.broken_off {
        write!(out, "FAILED, ")?;
    }
    outcome(out, &needs)?;
    if drill.broken_off {
        return writeln!(out, "; broken off: {BROKEN_OFF}");
    }
    match (cure, needs.took_us) {
        (Some(cure), _) => write!(out, "; cure: {cure}")?,
        (None, Some(took_us)) => {
            write!(out, "; ")?;
            to_set(out, took_us, &needs)?;
        }
        (None, None) => {}
    }
    writeln!(out)
}

/// Writes two or three lines about it.
///
/// # Errors
/// Only what `out` fails with.
pub fn write(out: &mut dyn Write, drill: &Drill) -> fmt::Result {
    let after = |time: Option<Time>| time.map(|time| time.since_us(drill.began));
    write!(out, "  drill: ")?;
    match after(drill.frozen) {
        Some(us) => write!(out, "frozen after {}, ", Took(us))?,
        None if drill.to_the_end => {}
        None => write!(out, "the service did not freeze in time, ")?,
    }
    write!(out, "procedure {}", ProcedureWords(drill.procedure))?;
    match (after(drill.over), drill.to_the_end) {
        (Some(us), true) => writeln!(out, ", all gone after {}", Took(us))?,
        (Some(us), false) => writeln!(out, ", as before after {}", Took(us))?,
        (None, _) if drill.broken_off => writeln!(out, ", broken off: {BROKEN_OFF}")?,
        (None, _) => writeln!(out, ", not over yet")?,
    }
    details(out, drill)
}

fn details(out: &mut dyn Write, drill: &Drill) -> fmt::Result {
    let needs = drill.needs();
    let DrillNeeds { took_us, deadline_ms, peak_bytes, memory_bytes, high, .. } = needs;
    let Some(took_us) = took_us else { return Ok(()) };
    let deadline = Millis(u64::from(deadline_ms));
    write!(out, "  it took {} of the {deadline} that its unit grants", Took(took_us))?;
    if let Some(peak_bytes) = peak_bytes {
        write!(out, ", and at most {} of {}", Bytes(peak_bytes), Bytes(memory_bytes))?;
    }
    if high > 0 {
        write!(out, ", which it met {high} times")?;
    }
    write!(out, "\n  ")?;
    match cure(&needs) {
        Some(cure) => writeln!(out, "cure: {cure}"),
        None => {
            to_set(out, took_us, &needs)?;
            let room = if high > 0 {
                "; what memory it would take is not known: more might make it quicker"
            } else {
                " and half as much memory again"
            };
            writeln!(out, " leaves room for four times the time{room}")
        }
    }
}

/// One that was held up at its memory has used what there was, however much that is.
fn to_set(out: &mut dyn Write, took_us: u64, needs: &DrillNeeds) -> fmt::Result {
    let least_ms = took_us.div_ceil(1_000).saturating_mul(TIMES_THE_TIME).max(DEADLINE_MS_LEAST);
    write!(out, "to set: shutdown: (deadline: \"{}\"", rounded(least_ms))?;
    if let Some(peak_bytes) = needs.peak_bytes.filter(|_| needs.high == 0) {
        let wanted = peak_bytes.saturating_add(peak_bytes / 2);
        write!(out, ", memory: \"{}KiB\"", wanted.next_multiple_of(MEMORY_STEP_BYTES) >> 10)?;
    }
    write!(out, ")")
}

/// Two digits, rounded up: nobody writes 1237 ms into a file.
fn rounded(ms: u64) -> String {
    let mut step = 1;
    while ms / step >= 100 {
        step *= 10;
    }
    let ms = ms.next_multiple_of(step);
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drill(procedure: ProcedureResult, ended_us: u64, peak_kib: Option<u64>) -> Drill {
        Drill {
            to_the_end: false,
            began: Time(1_000),
            frozen: Some(Time(15_000)),
            released: Some(Time(16_000)),
            procedure_ended: Some(Time(ended_us)),
            over: Some(Time(80_000)),
            broken_off: false,
            procedure,
            peak_bytes: peak_kib.map(|kib| kib << 10),
            high: 0,
            deadline_ms: 2_000,
            memory_bytes: 4 << 20,
        }
    }

    #[test]
    fn the_last_drill_on_one_line() {
        let check = |drill: Drill, expected: &str| {
            let mut text = String::new();
            line(&mut text, &drill, Time(3_661_001_000)).expect("it is a string");
            assert_eq!(text, format!("  drill, 1:01:01 ago: {expected}\n"));
        };
        let good = drill(ProcedureResult::Ended(Exit::Code(0)), 325_000, Some(900));
        let ended = "procedure ended with exit code 0 after 309.0 ms of 2 s, with 900 KiB of 4 MiB";
        check(good, &format!("{ended}; to set: shutdown: (deadline: \"1300ms\", memory: \"1536KiB\")"));
        check(Drill { over: None, ..good }, "not over yet");
        check(
            Drill { over: None, broken_off: true, ..good },
            &format!("FAILED, {ended}; broken off: {BROKEN_OFF}"),
        );
        check(
            drill(ProcedureResult::Ended(Exit::Code(3)), 26_000, None),
            "FAILED, procedure ended with exit code 3 after 10.0 ms of 2 s; cure: `lifeboatctl tail` shows what the \
             procedure said",
        );
    }

    #[test]
    fn what_was_needed_and_what_to_set() {
        let check = |procedure, ended_us, peak_kib: Option<u64>, expected: &str| {
            let mut text = String::new();
            write(&mut text, &drill(procedure, ended_us, peak_kib)).expect("it is a string");
            assert_eq!(text, expected);
        };
        let good = ProcedureResult::Ended(Exit::Code(0));
        check(
            good,
            325_000,
            Some(900),
            "  drill: frozen after 14.0 ms, procedure ended with exit code 0, as before after 79.0 ms\n  \
             it took 309.0 ms of the 2 s that its unit grants, and at most 900 KiB of 4 MiB\n  \
             to set: shutdown: (deadline: \"1300ms\", memory: \"1536KiB\") leaves room for four times the time and \
             half as much memory again\n",
        );
        check(
            ProcedureResult::TimedOut,
            2_016_000,
            None,
            "  drill: frozen after 14.0 ms, procedure was killed at its deadline, as before after 79.0 ms\n  \
             it took 2.0 s of the 2 s that its unit grants\n  \
             cure: raise shutdown.deadline, or find out by its words what it waits for\n",
        );
        let loan = drill(ProcedureResult::LoanSpent, 325_000, None).needs();
        assert_eq!(cure(&loan), Some("raise shutdown.lend"));
        let mut text = String::new();
        let held = Drill { high: 41, ..drill(ProcedureResult::TimedOut, 2_016_000, Some(4_300)) };
        write(&mut text, &held).expect("it is a string");
        let expected = "it took 2.0 s of the 2 s that its unit grants, and at most 4.2 MiB of 4 MiB, which it met 41 times\n  \
             cure: raise shutdown.deadline if its disk is slow, or shutdown.memory\n";
        assert!(text.ends_with(expected), "{text}");
        text.clear();
        let slow = Drill { high: 41, ..drill(good, 325_000, Some(4_300)) };
        write(&mut text, &slow).expect("it is a string");
        let expected = "to set: shutdown: (deadline: \"1300ms\") leaves room for four times the time; what memory it would \
             take is not known: more might make it quicker\n";
        assert!(text.ends_with(expected), "{text}");
    }
}
