//! What units say: kept across an exhaustion, and bounded whatever they say.

use super::Case;
use crate::cast::field;
use crate::guest::{Guest, ensure, expect, read, run};
use serde_json::json;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    Case { name: "words-outlive-an-exhaustion", deadline_s: 90, run: words_outlive_an_exhaustion },
    Case { name: "flood-does-not-grow-pid-1", deadline_s: 120, run: flood_does_not_grow_pid_1 },
];

const LEAK: &str = "leak-flat-out";
const FLOOD: &str = "floods";
const FLOOD_BYTES: u64 = 32 << 20;
const FIRST_BYTES: u64 = 1 << 20;
/// It is counted by the page. Not the proportional share: a page that is written parts from a parked procedure's.
const GROWTH_KIB: u64 = 8;

fn ctl(words: &[&str]) -> Result<String, String> {
    let (code, text) = run(&[&["/usr/bin/lifeboatctl"], words].concat())?;
    expect(&format!("exit code of lifeboatctl {words:?}"), &code, &0)?;
    Ok(text)
}

/// The service's own words and those of its procedure, before anybody restarts it and afterwards.
fn words_outlive_an_exhaustion(guest: &mut Guest) -> Result<(), String> {
    let before = guest.last_incident()?;
    guest.start(LEAK)?;
    guest.wait_incident(LEAK, before, Duration::from_secs(60))?;
    guest.stop(LEAK)?;
    let (leaking, saved) = ("leaking: ", "procedure: saved 1000 of 1000 records");
    for text in [ctl(&["tail", LEAK])?, ctl(&["why", LEAK])?] {
        for words in [leaking, saved] {
            ensure(text.contains(words), || format!("no {words:?} in: {text}"))?;
        }
    }
    let story = ctl(&["why", LEAK])?;
    ensure(story.contains("last words:"), || format!("no last words in: {story}"))
}

fn position(until: Instant) -> Result<u64, String> {
    let mut supervisor = crate::supervisor::Supervisor::connect()?;
    let answer = supervisor.call("Tail", &json!({ "name": FLOOD, "bytes": 0 }), until)?;
    let position = answer.get("position").and_then(serde_json::Value::as_u64);
    position.ok_or_else(|| format!("no position in {answer}"))
}

/// Waits until the flood has come so far; what PID 1 weighs then, in KiB.
fn weighed_at(guest: &Guest, bytes: u64) -> Result<u64, String> {
    let until = Instant::now() + Duration::from_secs(50);
    let said = || position(until).ok().filter(|position| *position >= bytes);
    guest.until("the flood is too slow", Duration::from_secs(50), said)?;
    let path = "/proc/1/status";
    field(&read(path)?, "RssAnon:").ok_or_else(|| format!("{path} has no RssAnon"))
}

fn flood_does_not_grow_pid_1(guest: &mut Guest) -> Result<(), String> {
    let bystander = guest.bystander()?;
    guest.start(FLOOD)?;
    // From here on everything has been done once.
    let weights = weighed_at(guest, FIRST_BYTES)
        .and_then(|before_kib| Ok((before_kib, weighed_at(guest, FLOOD_BYTES)?)));
    guest.stop(FLOOD)?;
    let (before_kib, after_kib) = weights?;
    guest.figure(&format!(
        "anonymous memory of PID 1 in a flood of {} MiB: {before_kib} KiB, then {after_kib} KiB; worst gap next door: {} us",
        FLOOD_BYTES >> 20,
        bystander.take_worst_us()
    ));
    ensure(after_kib <= before_kib + GROWTH_KIB, || {
        format!("PID 1 grew from {before_kib} to {after_kib} KiB")
    })?;
    let kept = ctl(&["tail", "-1000000", FLOOD])?.len();
    ensure(kept <= 4096, || format!("{kept} bytes are kept"))?;
    bystander.is_unharmed(guest)
}
