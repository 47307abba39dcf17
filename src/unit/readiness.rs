//! The fields about readiness and liveness.

use super::check::{WAIT_MS, c_string, command, number, time};
use super::diagnostic::{Wrong, short};
use super::raw::{RawHealth, Readiness};
use super::reader::{Item, Reader, Slot};
use super::value::Millis;
use super::{HealthAddress, Unit};
use crate::engine::policy::{HealthPolicy, Kind, Ready};
use std::ops::{Range, RangeInclusive};

/// Descriptors that a service can be given: above the standard ones, and below every limit of open files.
const NOTIFICATION_FDS: RangeInclusive<u64> = 3..=255;

/// `sun_path` of unix(7) with its NUL.
const UNIX_PATH_BYTES_MAX: usize = 107;

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

/// Reads `health`.
pub(super) fn health_into(reader: &mut Reader<'_>, slot: Slot<RawHealth>, unit: &mut Unit) {
    let Some(Item { value: raw, at }) = slot.given() else { return };
    if unit.policy.kind == Kind::Task {
        let wrong = Wrong::new("a task has no health check");
        reader.fault_in("health", &at, wrong.hint("take it out, or use kind: Service"));
    }
    let ways = [raw.tcp.is_absent(), raw.unix.is_absent(), raw.command.is_absent()];
    match ways.iter().filter(|absent| !**absent).count() {
        0 => {
            let hint = "write (tcp: \"127.0.0.1:80\"), (unix: \"/run/x\") or (command: [\"/usr/bin/check\"])";
            reader.missing("health.tcp", &at, hint);
        }
        1 => {}
        _ => {
            let wrong = Wrong::new("a health check is one connection or one command");
            reader.fault_in("health", &at, wrong.hint("keep one of tcp, unix and command"));
        }
    }
    let by_command = !raw.command.is_absent();
    unit.health_command = command(reader, "health.command", raw.command);
    if let Some(Item { value, at }) = raw.tcp.given() {
        match value.parse() {
            Ok(address) => unit.health_address = Some(HealthAddress::Tcp(address)),
            Err(_) => {
                let wrong = Wrong::new(format!("`{}` is no address with a port", short(&value)));
                let hint = "write \"127.0.0.1:80\" or \"[::1]:80\"; names are not looked up";
                reader.fault_in("health.tcp", &at, wrong.hint(hint));
            }
        }
    }
    if let Some(Item { value, at }) = raw.unix.given() {
        if !value.starts_with('/') || value.len() > UNIX_PATH_BYTES_MAX {
            let wrong = Wrong::new(format!("`{}` is no path of a socket", short(&value)));
            let hint = format!("begin with /, and use at most {UNIX_PATH_BYTES_MAX} bytes");
            reader.fault_in("health.unix", &at, wrong.hint(hint));
        }
        if c_string(reader, "health.unix", &value, &at).is_some() {
            unit.health_address = Some(HealthAddress::Unix(value.into()));
        }
    }
    let interval_ms = time(reader, "health.interval", raw.interval, WAIT_MS).unwrap_or(10_000);
    let timeout_ms = time(reader, "health.timeout", raw.timeout, WAIT_MS).unwrap_or(2_000);
    let failures = number(reader, "health.failures", raw.failures, 1..=100).unwrap_or(3);
    let failures = u32::try_from(failures).unwrap_or(3);
    unit.policy.health = Some(HealthPolicy { interval_ms, timeout_ms, failures, command: by_command });
}
