//! The fields about the unit's cgroup.

use super::Unit;
use super::check::number;
use super::diagnostic::Wrong;
use super::raw::{RawMemory, RawPids, RawUnit};
use super::reader::{Item, Reader, Slot};
use super::value::Size;
use crate::engine::budget::Bytes;
use crate::engine::policy::{Class, Guard, MemoryPolicy};

/// Below this no program gets as far as its first instruction.
const MEMORY_BYTES_MIN: u64 = 64 << 10;

/// `PID_MAX_LIMIT` of include/linux/threads.h on 64-bit kernels.
const PIDS_MAX: u64 = 4_194_304;

/// Reads `memory` and `pids`.
pub(super) fn read_into(reader: &mut Reader<'_>, raw: &mut RawUnit, unit: &mut Unit) {
    unit.policy.memory = memory(reader, raw.memory.take());
    unit.pids_max = pids(reader, raw.pids.take());
}

/// Memory that something can run in.
pub(super) fn bytes(reader: &mut Reader<'_>, field: &str, slot: Slot<Size>) -> Option<u64> {
    let Item { value: Size(value), at } = slot.given()?;
    if value >= MEMORY_BYTES_MIN {
        return Some(value);
    }
    let wrong = Wrong::new(format!("in {} no program can run", Bytes(value)));
    let hint = if value > 0 {
        format!("a number alone counts bytes; did you mean \"{value}MiB\"?")
    } else {
        format!("the least is {}", Bytes(MEMORY_BYTES_MIN))
    };
    reader.fault_in(field, &at, wrong.hint(hint));
    None
}

fn memory(reader: &mut Reader<'_>, slot: Slot<RawMemory>) -> Option<MemoryPolicy> {
    let Item { value: raw, at } = slot.given()?;
    if raw.max.is_absent() {
        reader.missing("memory.max", &at, "write (max: \"32MiB\")");
    }
    let max_bytes = bytes(reader, "memory.max", raw.max)?;
    let (class, guard) = (raw.class.value_or(Class::Pool), raw.guard.value_or(Guard::Shield));
    Some(MemoryPolicy { max_bytes, class, guard })
}

fn pids(reader: &mut Reader<'_>, slot: Slot<RawPids>) -> Option<u32> {
    let Item { value: raw, at } = slot.given()?;
    if raw.max.is_absent() {
        reader.missing("pids.max", &at, "write (max: 64)");
    }
    number(reader, "pids.max", raw.max, 1..=PIDS_MAX).and_then(|max| max.try_into().ok())
}
