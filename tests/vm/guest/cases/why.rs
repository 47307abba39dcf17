//! `lifeboatctl why` after each kind of trouble: its words name what happened.

use super::Case;
use crate::guest::{Guest, ensure, expect, run};
use lifeboat::engine::snapshot::{Incident, StateName, UnitView};
use std::time::Duration;

pub(crate) const CASES: &[Case] =
    &[Case { name: "why-tells-every-kind", deadline_s: 180, run: why_tells_every_kind }];

/// How the trouble is brought about where no earlier case has done it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is there since boot.
    Boot,
    /// A start is enough.
    Start,
    /// A start, and then its memory runs out.
    Exhaust,
}

/// A unit, the way to its trouble, and words that `why` must have.
const KINDS: [(&str, Way, &[&str]); 13] = [
    (
        "leak-flat-out",
        Way::Exhaust,
        &["memory is exhausted", "frozen", "exit code 0", "by: lifeboat", "limit 16 MiB"],
    ),
    ("killed-by-kernel", Way::Exhaust, &["killed", "by: the kernel", "exit code 0", "oom_kill +"]),
    ("procedure-hangs", Way::Exhaust, &["memory is exhausted", "killed at its deadline", "by: lifeboat"]),
    ("procedure-crashes", Way::Exhaust, &["memory is exhausted", "SIGSEGV", "by: lifeboat"]),
    ("procedure-eats", Way::Exhaust, &["memory is exhausted", "procedure", "by: lifeboat"]),
    ("procedure-missing", Way::Start, &["FATAL", "procedure", "execve", "No such file or directory"]),
    ("command-missing", Way::Start, &["FATAL", "execve", "No such file or directory"]),
    ("command-not-executable", Way::Start, &["FATAL", "execve", "Permission denied"]),
    ("fails-at-once", Way::Start, &["FATAL", "started 4 times", "exit code 1"]),
    ("over-budget", Way::Boot, &["FATAL", "does not fit", "lower memory.max"]),
    ("bad-not-ron", Way::Boot, &["FATAL", "bad-not-ron.ron:1:1", "hint"]),
    ("bad-long", Way::Boot, &["FATAL", "bad-long.ron", "256 KiB", "hint"]),
    ("bad-dangling", Way::Boot, &["FATAL", "bad-dangling.ron", "leads nowhere", "hint"]),
];

fn why_tells_every_kind(guest: &mut Guest) -> Result<(), String> {
    let mut wrong = Vec::new();
    for (unit, way, words) in KINDS {
        bring_about(guest, unit, way)?;
        let (code, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
        expect(&format!("exit code of lifeboatctl why {unit}"), &code, &0)?;
        let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
        if !missing.is_empty() {
            wrong.push(format!("why {unit} has no {missing:?}: {text}"));
        }
    }
    ensure(wrong.is_empty(), || wrong.join("\n"))
}

fn bring_about(guest: &Guest, unit: &str, way: Way) -> Result<(), String> {
    let snapshot = guest.status()?;
    // Of the group's many incidents only the last ones are at hand.
    let at_hand = |incident: &Incident| {
        snapshot.names.get(usize::from(incident.unit.0)).is_some_and(|name| name == unit)
    };
    let is_there = |shown: &UnitView| match way {
        Way::Boot => true,
        Way::Start => shown.state == StateName::Fatal,
        Way::Exhaust => shown.incidents > 0 && snapshot.incidents.iter().any(at_hand),
    };
    let shown = guest.unit(unit)?;
    if is_there(&shown) {
        return Ok(());
    }
    let before = guest.last_incident()?;
    guest.ask("Start", unit)?;
    if way == Way::Exhaust {
        guest.wait_incident(unit, before, Duration::from_secs(60))?;
        return guest.stop(unit);
    }
    guest.wait_state(unit, StateName::Fatal, Duration::from_secs(20)).map(drop)
}
