//! `status`: one line for each unit, in supervisorctl's format.

use super::words::{self, Bytes, Calendar, Exhaustions, Tenths, TroubleWords, Uptime};
use crate::engine::event::Time;
use crate::engine::snapshot::{Drill, Incident, MemoryView, Snapshot, StateName, Trouble, UnitView, Verdict};
use std::fmt::{self, Write};
use std::iter::repeat;

/// supervisorctl's name column is at least so wide, and three more.
const NAME_WIDTH_MIN: usize = 30;

/// From `CLOCK_BOOTTIME` to the calendar: microseconds since 1970 at boot, with the time zone if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallOffset(pub i64);

impl WallOffset {
    /// A moment on the calendar.
    #[must_use]
    pub fn calendar(self, time: Time) -> Calendar {
        let since_boot_us = i64::try_from(time.0).unwrap_or(i64::MAX);
        Calendar::of(self.0.saturating_add(since_boot_us) / 1_000_000)
    }
}

/// Writes what is wrong with the machine as a whole, a line each; nothing when all is well.
///
/// # Errors
/// Only what `out` fails with.
pub fn header(out: &mut dyn Write, snapshot: &Snapshot) -> fmt::Result {
    for reason in &snapshot.system.degraded {
        writeln!(out, "DEGRADED: {}", OneLine(reason))?;
    }
    if let Some(unit) = snapshot.system.rescue_called_by {
        writeln!(out, "RESCUE: called for by {}; a reboot ends it", words::name_of(&snapshot.names, unit))?;
    }
    if let Some(how) = snapshot.system.shutting_down {
        writeln!(out, "GOING DOWN: {}", words::shutdown(how))?;
    }
    Ok(())
}

/// Writes the lines of these units, which must be from this snapshot.
///
/// # Errors
/// Only what `out` fails with.
pub fn lines<'a>(
    out: &mut dyn Write,
    snapshot: &Snapshot,
    units: impl IntoIterator<Item = &'a UnitView>,
    wall: WallOffset,
) -> fmt::Result {
    let longest = snapshot.units.iter().map(|unit| unit.name.chars().count()).max().unwrap_or(0);
    let width = longest.max(NAME_WIDTH_MIN) + 3;
    for unit in units {
        let mut description = String::new();
        describe(&mut description, snapshot, unit, wall)?;
        asides(&mut description, snapshot, unit)?;
        let line = format!("{:<width$}{:<10}{description}", unit.name, words::state(unit.state));
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// supervisorctl's third column, with the memory behind it where it is bounded.
fn describe(out: &mut dyn Write, snapshot: &Snapshot, unit: &UnitView, wall: WallOffset) -> fmt::Result {
    match unit.state {
        StateName::Running => {
            // A target has no process.
            unit.pid.map_or(Ok(()), |pid| write!(out, "pid {pid}, "))?;
            write!(out, "uptime {}", Uptime(snapshot.time.since_us(unit.since)))?;
        }
        StateName::Listening => {
            write!(out, "waits on ")?;
            for (at, name) in unit.sockets.iter().enumerate() {
                let lead = if at > 0 { ", " } else { "" };
                write!(out, "{lead}{}", OneLine(name))?;
            }
            return trouble(out, ", ", snapshot, unit);
        }
        StateName::Stopped | StateName::Exited => {
            if unit.run.0 == 0 {
                write!(out, "Not started")?;
            } else {
                write!(out, "{}", wall.calendar(unit.since))?;
            }
            return trouble(out, ", ", snapshot, unit);
        }
        StateName::Skipped => return skipped(out, unit),
        StateName::Done => return write!(out, "{}", wall.calendar(unit.since)),
        StateName::Fatal | StateName::Backoff => {
            return match unit.trouble {
                Some(_) => trouble(out, "", snapshot, unit),
                None => write!(out, "unknown error (try \"why {}\")", unit.name),
            };
        }
        StateName::Rescuing => write!(out, "{}", rescue_step(snapshot, unit))?,
        StateName::Starting | StateName::Stopping => return own_words(out, "", unit),
    }
    unit.memory.as_ref().map_or(Ok(()), |memory| memory_words(out, memory))?;
    write!(out, "{}", if unit.reloading { ", reloading" } else { "" })?;
    for (refused, lead) in unit.refused_settings.iter().zip([", without "].into_iter().chain(repeat(" and ")))
    {
        write!(out, "{lead}{}", OneLine(&refused.setting))?;
    }
    own_words(out, ", ", unit)
}

/// What is to be known of it in whichever state: a leak that comes back, and who runs in its stead.
fn asides(out: &mut String, snapshot: &Snapshot, unit: &UnitView) -> fmt::Result {
    let lead = if out.is_empty() { "" } else { ", " };
    let (times, within_ms) = (unit.exhaustions, unit.exhaustions_within_ms);
    let spent = matches!(unit.trouble, Some(Trouble::ExhaustedTooOften { .. }));
    // The state's words tell it of one that is down.
    if times > 1 && !(spent && unit.pid.is_none()) {
        write!(out, "{lead}{}", Exhaustions { times, within_ms, spent })?;
    }
    let lead = if out.is_empty() { "" } else { ", " };
    unit.fallback
        .map_or(Ok(()), |to| write!(out, "{lead}{} in its stead", words::name_of(&snapshot.names, to)))
}

/// The condition that was not met, as its file has it.
fn skipped(out: &mut dyn Write, unit: &UnitView) -> fmt::Result {
    let condition = unit.condition.as_deref().unwrap_or("a condition");
    write!(out, "not met: {}", OneLine(condition))
}

/// What the service says of itself.
fn own_words(out: &mut dyn Write, lead: &str, unit: &UnitView) -> fmt::Result {
    unit.status.as_ref().map_or(Ok(()), |text| write!(out, "{lead}\"{}\"", OneLine(text)))
}

fn trouble(out: &mut dyn Write, lead: &str, snapshot: &Snapshot, unit: &UnitView) -> fmt::Result {
    let Some(trouble) = unit.trouble else { return Ok(()) };
    write!(out, "{lead}{}", TroubleWords { trouble, names: &snapshot.names })
}

fn memory_words(out: &mut dyn Write, memory: &MemoryView) -> fmt::Result {
    const MIB: u64 = 1 << 20;
    let Some((_, sample)) = memory.sample else {
        return write!(out, ", memory limit {}", Bytes(memory.max_bytes));
    };
    let (used, max) = (Tenths::of(sample.current_bytes, MIB), Tenths::of(memory.max_bytes, MIB));
    let some = Tenths::of(u64::from(sample.psi_some_avg10), 100);
    let full = Tenths::of(u64::from(sample.psi_full_avg10), 100);
    write!(out, ", memory {used}/{max} MiB, psi {some}/{full}")?;
    if memory.unguarded {
        write!(out, ", without its canary")?;
    }
    match memory.stall {
        Some(Verdict::HeldAtHigh { high_bytes, .. }) => {
            write!(out, ", held at memory.high {}", Bytes(high_bytes))
        }
        Some(_) => write!(out, ", thrashing"),
        None => Ok(()),
    }
}

/// What is being done, as far as the open incident tells.
fn rescue_step(snapshot: &Snapshot, unit: &UnitView) -> &'static str {
    let is_open = |incident: &&Incident| {
        words::name_of(&snapshot.names, incident.unit) == unit.name && incident.emptied.is_none()
    };
    let drills = |drill: Drill| drill.over.is_none() && !drill.broken_off;
    match snapshot.incidents.iter().rev().find(is_open) {
        None if unit.drill.is_some_and(drills) => "a drill is under way",
        None => "memory exhausted, shutdown procedure at work",
        Some(Incident { killed: Some(_), .. }) => "memory exhausted, killing what is left",
        Some(Incident { procedure_ended: Some(_), .. }) => "memory exhausted, shutdown procedure is over",
        Some(Incident { released: Some(_), .. }) => "memory exhausted, shutdown procedure at work",
        Some(Incident { frozen: Some(_), .. }) => "memory exhausted, frozen, shutdown procedure waits",
        Some(_) => "memory exhausted, freezing",
    }
}

/// A text without what would break a line or move the cursor.
#[derive(Clone, Copy, Debug)]
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(if c.is_control() { ' ' } else { c }))
    }
}
