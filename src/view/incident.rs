//! `incidents`: those of this boot and of earlier ones, as a table, and one of them in full.

use super::status::OneLine;
use super::why::{account, said};
use super::words::{Bytes, Calendar, Dated, ProcedureWords, Tenths};
use crate::engine::snapshot::{Incident, Killer};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// One incident, and what is known of it beside its record.
#[derive(Clone, Copy, Debug)]
pub struct Story<'a> {
    /// The unit's name.
    pub unit: &'a str,
    /// When it began, in milliseconds since 1970 (UTC).
    pub began_unix_ms: u64,
    /// It is of the boot that runs now.
    pub this_boot: bool,
    /// It is on a disk.
    pub kept: bool,
    /// Its record.
    pub incident: &'a Incident,
    /// `memory.peak`.
    pub peak_bytes: Option<u64>,
    /// Parts of `memory.stat` when memory was exhausted.
    pub memory_stat: &'a BTreeMap<String, u64>,
    /// The end of what the run has said.
    pub words: &'a str,
}

impl Story<'_> {
    fn dated(&self) -> Dated {
        Dated(Calendar::of(i64::try_from(self.began_unix_ms / 1_000).unwrap_or(i64::MAX)))
    }

    fn boot(&self) -> &'static str {
        match (self.this_boot, self.kept) {
            (true, true) => "this",
            (true, false) => "this, not kept",
            (false, _) => "earlier",
        }
    }

    /// From its first event to its end.
    fn took(&self) -> String {
        let end = self.incident.emptied.or(self.incident.killed);
        end.map_or_else(String::new, |end| {
            format!("{} ms", Tenths::of(end.since_us(self.incident.began), 1_000))
        })
    }
}

/// Who ended the service, in one word.
fn killer(killer: Killer) -> &'static str {
    match killer {
        Killer::Lifeboat => "lifeboat",
        Killer::Itself => "itself",
        Killer::KernelCgroup => "kernel-cgroup",
        Killer::KernelOutside => "kernel-outside",
    }
}

/// Writes a line each, with a heading.
///
/// # Errors
/// Only what `out` fails with.
pub fn table(out: &mut dyn Write, stories: &[Story<'_>]) -> fmt::Result {
    let mut rows = vec![
        ["NUMBER", "WHEN (UTC)", "BOOT", "UNIT", "CAUSE", "ENDED BY", "TOOK", "PROCEDURE"].map(str::to_owned),
    ];
    rows.extend(stories.iter().map(|story| {
        [
            story.incident.number.to_string(),
            story.dated().to_string(),
            story.boot().to_owned(),
            OneLine(story.unit).to_string(),
            story.incident.cause.word().to_owned(),
            killer(story.incident.killer).to_owned(),
            story.took(),
            ProcedureWords(story.incident.procedure).to_string(),
        ]
    }));
    let mut widths = [0; 8];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            write!(line, "{cell:<width$}  ")?;
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// What memory was made of, and how the machine was. What was 0 is left out.
fn evidence(out: &mut dyn Write, story: &Story<'_>) -> fmt::Result {
    // Of `memory.stat` these are numbers of pages, or of times.
    let is_count = |name: &str| name.starts_with("pg") || name.starts_with("workingset");
    let parts = story.memory_stat.iter().filter(|(_, value)| **value > 0).map(|(name, value)| {
        let name = OneLine(name);
        if is_count(name.0) { format!("{name} {value}") } else { format!("{name} {}", Bytes(*value)) }
    });
    let parts: Vec<String> = parts.collect();
    if !parts.is_empty() {
        writeln!(out, "  memory.stat when it was exhausted: {}", parts.join(", "))?;
    }
    let Some(sample) = story.incident.sample else { return Ok(()) };
    let Some(available) = sample.available_bytes() else { return Ok(()) };
    let cpu = Tenths::of(sample.cpu_some_avg10.into(), 100);
    let available = Bytes(available);
    writeln!(out, "  the machine then: {available} available, tasks waited for a processor {cpu} % of 10 s")
}

/// Writes all that is known of one.
///
/// # Errors
/// Only what `out` fails with.
pub fn show(out: &mut dyn Write, story: &Story<'_>) -> fmt::Result {
    let Story { incident, unit, .. } = story;
    let boot = if story.this_boot { "this boot" } else { "an earlier boot" };
    let (number, run) = (incident.number, incident.run.0);
    writeln!(out, "incident {number}: {}, run {run}, {} UTC, {boot}", OneLine(unit), story.dated())?;
    account(out, incident)?;
    if let Some(peak) = story.peak_bytes {
        writeln!(out, "  memory.peak: {}, over all runs since its cgroup was made", Bytes(peak))?;
    }
    evidence(out, story)?;
    said(out, "last words", story.words)?;
    if !story.kept {
        writeln!(out, "  it is not on a disk: the next reboot takes it away")?;
    }
    Ok(())
}
