//! The fields about readiness and liveness.

use super::Unit;
use super::check::{WAIT_MS, c_string, time};
use super::diagnostic::{Wrong, short};
use super::raw::Readiness;
use super::reader::{Item, Reader, Slot};
use super::value::Millis;
use crate::engine::policy::{Kind, Ready};
use std::ops::{Range, RangeInclusive};

/// Descriptors that a service can be given: above the standard ones, and below every limit of open files.
const NOTIFICATION_FDS: RangeInclusive<u64> = 3..=255;

/// Reads `ready` and the two times, `start_timeout` and `watchdog`.
pub(super) fn read_into(
    reader: &mut Reader<'_>,
    ready: Slot<Readiness>,
    times: (Slot<Millis>, Slot<Millis>),
    unit: &mut Unit,
) {
    let task = unit.policy.kind == Kind::Task;
    let (start_timeout, watchdog) = times;
    if let Some(Item { value, at }) = ready.given() {
        if task && value != Readiness::Start {
            let wrong = Wrong::new("a task is done when it has ended; nobody waits for it to be ready");
            reader.fault_in("ready", &at, wrong.hint("take it out, or use kind: Service"));
        }
        ready_into(reader, value, &at, unit);
    }
    if let Some(timeout_ms) = time(reader, "start_timeout", start_timeout, WAIT_MS) {
        unit.policy.start_timeout_ms = timeout_ms;
    }
    if let Slot::Given(Item { at, .. }) = &watchdog
        && task
    {
        let wrong = Wrong::new("a task has no watchdog");
        reader.fault_in("watchdog", at, wrong.hint("take it out, or use kind: Service"));
    }
    unit.policy.watchdog_ms = time(reader, "watchdog", watchdog, WAIT_MS);
    if let Ready::AfterMs(ms) = unit.policy.ready
        && ms >= unit.policy.start_timeout_ms
    {
        unit.policy.start_timeout_ms = ms.saturating_add(1_000);
    }
}

fn ready_into(reader: &mut Reader<'_>, ready: Readiness, at: &Range<usize>, unit: &mut Unit) {
    let out_of = |value: u64, range: &RangeInclusive<u64>| {
        let hint = format!("it goes from {} to {}", range.start(), range.end());
        Wrong::new(format!("{value} is out of range")).hint(hint)
    };
    unit.policy.ready = match ready {
        Readiness::Start => Ready::Start,
        Readiness::Notify => Ready::Notify,
        Readiness::NotificationFd(fd) => {
            if !NOTIFICATION_FDS.contains(&fd) {
                reader.fault_in("ready", at, out_of(fd, &NOTIFICATION_FDS));
            }
            unit.notification_fd = i32::try_from(fd).ok();
            Ready::NotificationFd
        }
        Readiness::Path(path) => {
            if !path.starts_with('/') {
                let wrong = Wrong::new(format!("`{}` is not an absolute path", short(&path)));
                reader.fault_in("ready", at, wrong.hint("begin with /"));
            }
            unit.ready_path = c_string(reader, "ready", &path, at);
            Ready::Path
        }
        Readiness::AfterMs(ms) => {
            if !WAIT_MS.contains(&ms) {
                reader.fault_in("ready", at, out_of(ms, &WAIT_MS));
            }
            Ready::AfterMs(u32::try_from(ms).unwrap_or(u32::MAX))
        }
    };
}
