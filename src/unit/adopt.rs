//! The field `adopt`: the service is a process that runs already, and no start can change what it is.

use super::check::number;
use super::diagnostic::Wrong;
use super::raw::{Places, RawAdopt, RawUnit};
use super::reader::{Item, Reader, Slot};
use super::{Adopted, Unit};
use crate::engine::policy::{Escalation, RestartWhen};
use std::ops::RangeInclusive;

/// `PID_MAX_LIMIT` of include/linux/threads.h; 1 is the init process.
const PIDS: RangeInclusive<u64> = 2..=4_194_304;

/// What a unit of such a process may have: what holds for its cgroup, its procedure and its end.
const FIELDS: [&str; 18] = [
    "description",
    "autostart",
    "adopt",
    "memory",
    "utility",
    "pids",
    "cpu",
    "io",
    "optional",
    "environment",
    "environment_files",
    "working_directory",
    "output",
    "output_ring",
    "stop",
    "commands",
    "shutdown",
    "success",
];

/// Tells of the fields that come too late.
pub(super) fn refuse_others(reader: &mut Reader<'_>, raw: &RawUnit) {
    if raw.adopt.is_absent() {
        return;
    }
    for (field, at) in raw.places() {
        if !FIELDS.contains(&field) {
            let wrong = Wrong::new("a process that runs already has no such field");
            reader.fault_in(field, &at, wrong.hint("take it out, or take out `adopt`"));
        }
    }
}

/// Reads the field, after all that says what comes after a run: there is no second one.
pub(super) fn read_into(reader: &mut Reader<'_>, slot: Slot<RawAdopt>, unit: &mut Unit) {
    let Some(Item { value: raw, at }) = slot.given() else { return };
    for (field, is_absent, hint) in [
        ("adopt.pid", raw.pid.is_absent(), "write the number that `ps` shows: pid: 4711"),
        ("adopt.started", raw.started.is_absent(), "write the 22nd field of /proc/PID/stat: started: 123456"),
    ] {
        if is_absent {
            reader.missing(field, &at, hint);
        }
    }
    let pid = number(reader, "adopt.pid", raw.pid, PIDS).and_then(|pid| u32::try_from(pid).ok());
    let started = number(reader, "adopt.started", raw.started, 0..=u64::MAX);
    unit.adopt = pid.zip(started).map(|(pid, started)| Adopted { pid, started });
    unit.policy.restart.when = RestartWhen::Never;
    if let Some(procedure) = &mut unit.policy.procedure {
        procedure.then = procedure.then.or(Some(Escalation::Stop));
    }
}
