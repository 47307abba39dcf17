//! The fields about output.

use super::check::{c_string, number};
use super::diagnostic::{Wrong, short};
use super::raw::{RawFile, RawOutput};
use super::reader::{Item, Reader, Slot};
use super::value::Size;
use super::{LogFile, Output, Unit};
use crate::engine::budget::Bytes;
use std::ops::{Range, RangeInclusive};

/// What may be kept of a unit's output: from two of the longest lines up.
const RING_BYTES: RangeInclusive<u64> = 1 << 10..=1 << 20;

/// A log file holds some lines at least, and is not meant to fill a disk by itself.
const FILE_BYTES: RangeInclusive<u64> = 4 << 10..=1 << 30;

/// Old log files.
const KEEP: RangeInclusive<u64> = 0..=99;

/// Reads `output` and `output_ring`.
pub(super) fn read_into(reader: &mut Reader<'_>, output: Slot<RawOutput>, ring: Slot<Size>, unit: &mut Unit) {
    if let Some(Item { value, at }) = output.given() {
        match value {
            RawOutput::Word(word) => unit.output = word,
            RawOutput::File(raw) => {
                unit.output = Output::File;
                unit.log = log_file(reader, raw, &at);
            }
        }
    }
    let at = match &ring {
        Slot::Given(Item { value: Size(0), at }) => at.clone(),
        _ => {
            let bytes =
                size(reader, "output_ring", ring, &RING_BYTES).and_then(|bytes| bytes.try_into().ok());
            unit.output_ring_bytes = bytes.unwrap_or(unit.output_ring_bytes);
            return;
        }
    };
    unit.output_ring_bytes = 0;
    if matches!(unit.output, Output::Kmsg | Output::Syslog | Output::File) {
        let wrong = Wrong::new("without a ring no line finds its way out of lifeboat");
        reader.fault_in("output_ring", &at, wrong.hint("take it out, or use output: Console or Null"));
    }
}

fn size(reader: &mut Reader<'_>, field: &str, slot: Slot<Size>, range: &RangeInclusive<u64>) -> Option<u64> {
    let Item { value: Size(bytes), at } = slot.given()?;
    if range.contains(&bytes) {
        return Some(bytes);
    }
    let wrong = Wrong::new(format!("{} is out of range", Bytes(bytes)));
    let hint = format!("it goes from {} to {}", Bytes(*range.start()), Bytes(*range.end()));
    reader.fault_in(field, &at, wrong.hint(hint));
    None
}

fn log_file(reader: &mut Reader<'_>, raw: RawFile, at: &Range<usize>) -> Option<LogFile> {
    if raw.path.is_absent() {
        reader.missing("output.path", at, "write File((path: \"/var/log/program.log\"))");
    }
    let max_bytes = size(reader, "output.max_bytes", raw.max_bytes, &FILE_BYTES).unwrap_or(64 << 10);
    let keep =
        number(reader, "output.keep", raw.keep, KEEP).and_then(|keep| keep.try_into().ok()).unwrap_or(3);
    let path = raw.path.given()?;
    if !path.value.starts_with('/') || path.value.ends_with('/') {
        let wrong = Wrong::new(format!("`{}` is not an absolute path of a file", short(&path.value)));
        reader.fault_in("output.path", &path.at, wrong.hint("write \"/var/log/program.log\""));
    }
    let path = c_string(reader, "output.path", &path.value, &path.at)?;
    Some(LogFile { path, max_bytes, keep })
}
