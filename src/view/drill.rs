//! What a drill has shown: what the procedure needed against what its unit grants, and the values to set.

use super::words::{Bytes, Millis, ProcedureWords, Took};
use crate::engine::event::{Exit, Time};
use crate::engine::snapshot::{Drill, ProcedureResult};
use std::fmt::{self, Write};

/// On the day it counts the machine is busier, and there is more to save.
const TIMES_THE_TIME: u64 = 4;

/// No deadline below this is proposed.
const DEADLINE_MS_LEAST: u64 = 100;

/// Proposed memory is half as much again, in whole steps.
const MEMORY_STEP_BYTES: u64 = 256 << 10;

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
        (None, _) => writeln!(out, ", not over yet")?,
    }
    needs(out, drill)
}

fn needs(out: &mut dyn Write, drill: &Drill) -> fmt::Result {
    let took_us = drill.procedure_ended.zip(drill.released).map(|(end, begin)| end.since_us(begin));
    let Some(took_us) = took_us else { return Ok(()) };
    let deadline = Millis(u64::from(drill.deadline_ms));
    write!(out, "  it took {} of the {deadline} that its unit grants", Took(took_us))?;
    if let Some(peak_bytes) = drill.peak_bytes.filter(|_| drill.memory_bytes > 0) {
        write!(out, ", and at most {} of {}", Bytes(peak_bytes), Bytes(drill.memory_bytes))?;
    }
    writeln!(out)?;
    match drill.procedure {
        ProcedureResult::Ended(Exit::Code(0)) | ProcedureResult::SavedItself(Exit::Code(0)) => {
            let least_ms = took_us.div_ceil(1_000).saturating_mul(TIMES_THE_TIME).max(DEADLINE_MS_LEAST);
            write!(out, "  to set: shutdown: (deadline: \"{}\"", rounded(least_ms))?;
            if let Some(peak_bytes) = drill.peak_bytes.filter(|_| drill.memory_bytes > 0) {
                let wanted = peak_bytes.saturating_add(peak_bytes / 2);
                write!(out, ", memory: \"{}KiB\"", wanted.next_multiple_of(MEMORY_STEP_BYTES) >> 10)?;
            }
            writeln!(out, ") leaves room for four times the time and half as much memory again")
        }
        ProcedureResult::TimedOut => {
            writeln!(out, "  cure: raise shutdown.deadline, or find out by its words what it waits for")
        }
        ProcedureResult::OutOfMemory => writeln!(out, "  cure: raise shutdown.memory"),
        ProcedureResult::Ended(_)
        | ProcedureResult::SavedItself(_)
        | ProcedureResult::None
        | ProcedureResult::SpawnFailed { .. } => {
            writeln!(out, "  cure: `lifeboatctl tail` shows what the procedure said")
        }
    }
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

    #[test]
    fn what_was_needed_and_what_to_set() {
        let check = |procedure, ended_us, peak_kib: Option<u64>, expected: &str| {
            let drill = Drill {
                to_the_end: false,
                began: Time(1_000),
                frozen: Some(Time(15_000)),
                released: Some(Time(16_000)),
                procedure_ended: Some(Time(ended_us)),
                over: Some(Time(80_000)),
                procedure,
                peak_bytes: peak_kib.map(|kib| kib << 10),
                deadline_ms: 2_000,
                memory_bytes: 4 << 20,
            };
            let mut text = String::new();
            write(&mut text, &drill).expect("it is a string");
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
    }
}
