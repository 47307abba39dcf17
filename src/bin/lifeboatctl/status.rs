//! `status`, `watch` and `version`: verbs that only look.

use crate::cli::Context;
use crate::client::{ANSWER_TIMEOUT, CallError, Client};
use crate::exit::{Exit, Failure};
use crate::output::{self, Gone};
use lifeboat::engine::snapshot::{Snapshot, StateName, UnitView};
use lifeboat::view::drill;
use lifeboat::view::status::{self, WallOffset};
use lifeboat::wire::interface::Info;
use lifeboat::wire::reply::StatusReply;
use lifeboat::wire::request::Request;
use nix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::fmt::Write;
use std::time::Duration;

/// Asks for a snapshot.
pub(crate) fn snapshot(client: &mut Client) -> Result<Snapshot, CallError> {
    let reply: StatusReply<'static> = client.call(Request::Status, ANSWER_TIMEOUT)?;
    Ok(reply.snapshot.into_owned())
}

/// Where boot lies on the calendar, in UTC; 1970 where a clock cannot be read.
pub(crate) fn wall_offset() -> WallOffset {
    let us = |clock| {
        // By way of Duration: time_t has 32 bits on some targets.
        let time = clock_gettime(clock).map(Duration::from).unwrap_or_default();
        i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
    };
    WallOffset(us(ClockId::CLOCK_REALTIME) - us(ClockId::CLOCK_BOOTTIME))
}

/// For `status` and `why` every failure means: nothing is known.
pub(crate) fn unknown(error: CallError) -> Failure {
    Failure { exit: Exit::Unknown, ..error.into_failure() }
}

pub(crate) fn status(context: &Context, names: &[String], no_fail: bool) -> Result<Exit, Failure> {
    let mut client = Client::connect(&context.socket()).map_err(unknown)?;
    let mut snapshot = snapshot(&mut client).map_err(unknown)?;
    let everything = names.is_empty() || names.iter().any(|name| name == "all");
    let mut exit = Exit::Ok;
    let mut text = String::new();
    if everything {
        let _ = status::header(&mut text, &snapshot);
        for unit in &snapshot.units {
            show(&mut text, &snapshot, unit);
            exit = exit.then(verdict(unit, no_fail));
        }
    } else {
        for name in names {
            match snapshot.units.iter().find(|unit| unit.name == *name) {
                Some(unit) => {
                    show(&mut text, &snapshot, unit);
                    if let Some(drill) = &unit.drill {
                        let _ = drill::line(&mut text, drill, snapshot.time);
                    }
                    exit = exit.then(verdict(unit, no_fail));
                }
                None => {
                    let _ = writeln!(text, "{}: ERROR (no such process)", status::OneLine(name));
                    exit = Exit::Unknown;
                }
            }
        }
    }
    if context.json {
        if !everything {
            snapshot.units.retain(|unit| names.contains(&unit.name));
        }
        text = output::json(&snapshot)?;
    }
    output::finish(&text, exit)
}

fn show(text: &mut String, snapshot: &Snapshot, unit: &UnitView) {
    // A String takes everything.
    let _ = status::lines(text, snapshot, [unit], wall_offset());
}

/// supervisorctl's exit code for a unit in this state.
fn verdict(unit: &UnitView, no_fail: bool) -> Exit {
    match unit.state {
        StateName::Stopped | StateName::Exited | StateName::Fatal if !no_fail => Exit::NotAllUp,
        StateName::Stopped
        | StateName::Exited
        | StateName::Fatal
        | StateName::Listening
        | StateName::Starting
        | StateName::Running
        | StateName::Backoff
        | StateName::Stopping
        | StateName::Done
        | StateName::Skipped
        | StateName::Rescuing => Exit::Ok,
    }
}

pub(crate) fn watch(context: &Context) -> Result<Exit, Failure> {
    let mut client = Client::connect(&context.socket()).map_err(unknown)?;
    client.ask(Request::Watch, true).map_err(unknown)?;
    let mut before: Option<Snapshot> = None;
    // Only the first answer is due at once: later ones come when something changes.
    let mut timeout = Some(ANSWER_TIMEOUT);
    loop {
        let (reply, continues): (StatusReply<'static>, bool) = client.hear(timeout).map_err(unknown)?;
        timeout = None;
        let now = reply.snapshot.into_owned();
        let text = if context.json { output::json(&now)? } else { changes(before.as_ref(), &now) };
        if let Err(Gone) = output::print(&text)? {
            return Ok(Exit::Ok);
        }
        if !continues {
            return Ok(Exit::Ok);
        }
        before = Some(now);
    }
}

/// All lines at first, then those of the units that changed.
fn changes(before: Option<&Snapshot>, now: &Snapshot) -> String {
    let mut text = String::new();
    if before.is_none_or(|before| {
        before.system.degraded != now.system.degraded
            || before.system.shutting_down != now.system.shutting_down
    }) {
        let _ = status::header(&mut text, now);
    }
    for unit in &now.units {
        let same = |old: &&UnitView| {
            old.name == unit.name
                && (old.state, old.run, old.pid, old.trouble)
                    == (unit.state, unit.run, unit.pid, unit.trouble)
        };
        if before.is_none_or(|before| !before.units.iter().any(|old| same(&old))) {
            show(&mut text, now, unit);
        }
    }
    text
}

pub(crate) fn version(context: &Context) -> Result<Exit, Failure> {
    let mut client = Client::connect(&context.socket()).map_err(CallError::into_failure)?;
    let info: Info = client.call(Request::GetInfo, ANSWER_TIMEOUT).map_err(CallError::into_failure)?;
    let text = if context.json {
        output::json(&json!({ "version": info.version, "lifeboatctl": env!("CARGO_PKG_VERSION") }))?
    } else {
        format!("{}\n", status::OneLine(&info.version))
    };
    output::finish(&text, Exit::Ok)
}

/// Nothing of the unit runs, and nothing is about to.
pub(crate) fn is_down(unit: &UnitView) -> bool {
    match unit.state {
        StateName::Stopped
        | StateName::Exited
        | StateName::Fatal
        | StateName::Done
        | StateName::Skipped
        | StateName::Listening => true,
        StateName::Starting
        | StateName::Running
        | StateName::Backoff
        | StateName::Stopping
        | StateName::Rescuing => false,
    }
}
