//! `memory.warn`: the warn stages.

use super::Unit;
use super::check::{WAIT_MS, command, time};
use super::diagnostic::Wrong;
use super::raw::{RawWarn, RawWarnDeed};
use super::reader::{Item, Reader, Slot};
use super::value::Amount;
use crate::engine::budget::Bytes;
use crate::engine::limits::WARN_STAGES_MAX;
use crate::engine::policy::{WarnDeed, WarnStage, WarnWhen};
use crate::engine::setting::Setting;
use std::ops::Range;

/// From one warning of a stage to the next, where the user has not said.
const EVERY_MS: u32 = 10_000;

/// What the warn command may take, where the user has not said.
const TIMEOUT_MS: u32 = 10_000;

/// Reads `memory.warn` and `memory.warn_timeout`, after the rest of `memory`.
pub(super) fn stages_into(
    reader: &mut Reader<'_>,
    (stages, timeout): (Slot<Vec<Item<RawWarn>>>, Slot<super::value::Millis>),
    unit: &mut Unit,
) {
    let timeout_ms = time(reader, "memory.warn_timeout", timeout, WAIT_MS);
    unit.policy.warn.timeout_ms = timeout_ms.unwrap_or(TIMEOUT_MS);
    // A `memory.high` of the user's own stays as it is.
    unit.policy.warn.rings = unit.cgroup.limits.iter().all(|limit| limit.setting != Setting::MemoryHigh);
    let Some(Item { value: stages, at }) = stages.given() else { return };
    if stages.len() > WARN_STAGES_MAX {
        let wrong = Wrong::new(format!("{} warn stages are too many", stages.len()));
        reader.fault_in("memory.warn", &at, wrong.hint(format!("there are at most {WARN_STAGES_MAX}")));
    }
    let stages = stages.into_iter().map(|stage| stage_of(reader, stage, unit)).collect::<Vec<_>>();
    for (place, stage) in unit.policy.warn.stages.iter_mut().zip(stages) {
        *place = stage;
    }
}

fn stage_of(reader: &mut Reader<'_>, item: Item<RawWarn>, unit: &mut Unit) -> Option<WarnStage> {
    let Item { value: raw, at } = item;
    let ways = [raw.at.is_absent(), raw.within.is_absent(), raw.pressure.is_absent()];
    match ways.iter().filter(|absent| !**absent).count() {
        0 => reader.missing("memory.warn.at", &at, "write (at: \"80%\", do: Signal(\"USR1\"))"),
        1 => {}
        _ => {
            let wrong = Wrong::new("a warn stage is reached in one way: `at`, `within` or `pressure`");
            reader.fault_in("memory.warn", &at, wrong.hint("make two stages of it"));
        }
    }
    if raw.r#do.is_absent() {
        let hint =
            "write do: Log, Notify, Signal(\"USR1\"), Run([\"/usr/bin/program\"]) or Reclaim(\"4MiB\")";
        reader.missing("memory.warn.do", &at, hint);
    }
    let every_ms = time(reader, "memory.warn.every", raw.every, WAIT_MS).unwrap_or(EVERY_MS);
    let within = time(reader, "memory.warn.within", raw.within, WAIT_MS).map(WarnWhen::WithinMs);
    let share = share_of(reader, "memory.warn.at", raw.at, unit).map(WarnWhen::Share);
    let pressure = share_of(reader, "memory.warn.pressure", raw.pressure, unit).map(WarnWhen::Pressure);
    let deed = deed_of(reader, raw.r#do, unit);
    Some(WarnStage { when: within.or(share).or(pressure)?, deed: deed?, every_ms })
}

/// In hundredths of a percent; for `at` a size is a share of `memory.max`.
fn share_of(reader: &mut Reader<'_>, field: &str, slot: Slot<Amount>, unit: &Unit) -> Option<u16> {
    let Item { value, at } = slot.given()?;
    let max_bytes = max_bytes_of(unit);
    match value {
        Amount::Permyriad(share) => return Some(share),
        Amount::Bytes(bytes) if field.ends_with("at") && bytes <= max_bytes => {
            let share = u128::from(bytes) * 10_000 / u128::from(max_bytes.max(1));
            return u16::try_from(share).ok();
        }
        Amount::Bytes(_) => {}
    }
    let wrong = match value {
        Amount::Bytes(bytes) if field.ends_with("at") => {
            Wrong::new(format!("{} is more than memory.max", Bytes(bytes)))
        }
        _ => Wrong::new("a share of the time is needed"),
    };
    reader.fault_in(field, &at, wrong.hint("write a share such as \"80%\""));
    None
}

fn max_bytes_of(unit: &Unit) -> u64 {
    unit.policy.memory.map_or(u64::MAX, |memory| memory.max_bytes)
}

fn deed_of(reader: &mut Reader<'_>, slot: Slot<RawWarnDeed>, unit: &mut Unit) -> Option<WarnDeed> {
    let Item { value, at } = slot.given()?;
    Some(match value {
        RawWarnDeed::Log => WarnDeed::Log,
        RawWarnDeed::Notify => WarnDeed::Notify,
        RawWarnDeed::Signal(signal) if matches!(signal.0, libc::SIGKILL | libc::SIGSTOP) => {
            let wrong = Wrong::new("no service can handle this signal: it would be ended or stopped by it");
            reader.fault_in("memory.warn.do", &at, wrong.hint("Signal(\"USR1\"), and a handler for it"));
            return None;
        }
        RawWarnDeed::Signal(signal) => WarnDeed::Signal(signal.0),
        RawWarnDeed::Reclaim(size) if size.0 > max_bytes_of(unit) => {
            let wrong = Wrong::new(format!("{} is more than memory.max", Bytes(size.0)));
            reader.fault_in("memory.warn.do", &at, wrong.hint("reclaim a part of it"));
            return None;
        }
        RawWarnDeed::Reclaim(size) => WarnDeed::Reclaim(size.0),
        RawWarnDeed::Run(words) => {
            run_into(reader, words, &at, unit);
            WarnDeed::Run
        }
    })
}

/// A unit has one warn command, whichever of its stages run it.
fn run_into(reader: &mut Reader<'_>, words: Vec<Item<String>>, at: &Range<usize>, unit: &mut Unit) {
    let slot = Slot::Given(Item { value: words, at: at.clone() });
    let program = command(reader, "memory.warn.do", slot);
    if !unit.warn_command.is_empty() && unit.warn_command != program {
        let wrong = Wrong::new("the stages of a unit run one command, not several");
        reader.fault_in("memory.warn.do", at, wrong.hint("let one program do both"));
    }
    unit.warn_command = program;
}
