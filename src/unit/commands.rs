//! The fields about what runs beside a service: how it is stopped, how it reads its configuration anew, and what its
//! commands may use.

use super::Unit;
use super::cgroup::bytes;
use super::check::{WAIT_MS, command, time};
use super::diagnostic::Wrong;
use super::raw::{RawCommands, RawReload, RawStop};
use super::reader::{Item, Reader, Slot};
use crate::engine::policy::{Kind, ReloadPolicy};
use std::ops::Range;

/// What the commands of a unit may use where the user has not said: a shell, or a client of the service.
pub(super) const COMMAND_BYTES: u64 = 8 << 20;

/// A reload may be a whole check of the new configuration.
const RELOAD_MS: u32 = 30_000;

/// Reads `stop`; gives where its command stands.
pub(super) fn stop_into(
    reader: &mut Reader<'_>,
    slot: Slot<RawStop>,
    unit: &mut Unit,
) -> Option<Range<usize>> {
    let Item { value: raw, .. } = slot.given()?;
    if let Some(signal) = raw.signal.given() {
        unit.policy.stop_signal = signal.value.0;
    }
    if let Some(timeout_ms) = time(reader, "stop.timeout", raw.timeout, WAIT_MS) {
        unit.policy.stop_timeout_ms = timeout_ms;
    }
    let at = match &raw.command {
        Slot::Given(item) => Some(item.at.clone()),
        _ => None,
    };
    unit.policy.stop_command = at.is_some();
    unit.stop_command = command(reader, "stop.command", raw.command);
    at
}

/// A stop is the procedure on the frozen service, or the command and the signal.
pub(super) fn no_procedure_instead(reader: &mut Reader<'_>, at: Option<Range<usize>>, unit: &Unit) {
    if let Some(at) = at
        && unit.policy.procedure.is_some_and(|procedure| procedure.on_stop)
    {
        let wrong = Wrong::new("`shutdown.on` has Stop: the procedure runs in place of this command");
        reader.fault_in("stop.command", &at, wrong.hint("take out this command, or Stop"));
    }
}

/// Reads `reload`.
pub(super) fn reload_into(reader: &mut Reader<'_>, slot: Slot<RawReload>, unit: &mut Unit) {
    let Some(Item { value: raw, at }) = slot.given() else { return };
    if unit.policy.kind == Kind::Task {
        let wrong = Wrong::new("a task reads its configuration when it runs");
        reader.fault_in("reload", &at, wrong.hint("take it out, or use kind: Service"));
    }
    match (raw.signal.is_absent(), raw.command.is_absent()) {
        (true, true) => {
            reader.missing(
                "reload.signal",
                &at,
                "write (signal: \"HUP\") or (command: [\"/usr/bin/program\"])",
            );
        }
        (false, false) => {
            let wrong = Wrong::new("a reload is a signal or a command").hint("take out one of them");
            reader.fault_in("reload", &at, wrong);
        }
        (true, false) | (false, true) => {}
    }
    let by_command = !raw.command.is_absent();
    unit.reload_command = command(reader, "reload.command", raw.command);
    unit.policy.reload = Some(ReloadPolicy {
        command: by_command,
        signal: raw.signal.given().map_or(libc::SIGHUP, |signal| signal.value.0),
        notifies: raw.notify.value_or(false),
        timeout_ms: time(reader, "reload.timeout", raw.timeout, WAIT_MS).unwrap_or(RELOAD_MS),
    });
}

/// Reads `commands`, after all that may be one.
pub(super) fn memory_into(reader: &mut Reader<'_>, slot: Slot<RawCommands>, unit: &mut Unit) {
    let Some(Item { value: raw, at }) = slot.given() else { return };
    if !unit.has_commands() {
        let wrong = Wrong::new("this unit has no commands beside its service");
        let hint =
            "take it out, or add stop.command, reload.command, health.command or a warn stage with Run";
        reader.fault_in("commands", &at, wrong.hint(hint));
    }
    unit.command_bytes = bytes(reader, "commands.memory", raw.memory).unwrap_or(COMMAND_BYTES);
}
