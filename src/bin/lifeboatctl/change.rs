//! `reread`, `update`, `add`, `remove`, `enable` and `disable`: other unit files, in supervisorctl's words.

use crate::cli::{Change, Context, Enable, Units, UpdateUnits};
use crate::client::{ANSWER_TIMEOUT, CallError, Client};
use crate::exit::{Exit, Failure};
use crate::{control, output, run, status};
use lifeboat::engine::snapshot::{Snapshot, StateName};
use lifeboat::view::status::OneLine;
use lifeboat::wire::reply::{ChangeReply, ChangesReply, Difference, Effect, Empty, ErrorReply, StatusReply};
use lifeboat::wire::request::{ChangeVerb, Request};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// lifeboat gives the disk 30 s.
const READ_TIMEOUT: Duration = Duration::from_secs(40);

/// Shows what an update would do.
pub(crate) fn reread(context: &Context) -> Result<Exit, Failure> {
    let reply: ChangesReply = call(context, Request::Reread).map_err(CallError::into_failure)?;
    let exit = complain(&reply);
    if context.json {
        return output::finish(&output::json(&reply)?, exit);
    }
    let mut text = String::new();
    for change in &reply.changes {
        let word = match change.difference {
            Difference::Available => "available",
            Difference::Changed => "changed",
            Difference::Disappeared => "disappeared",
        };
        let note = match change.effect {
            Effect::Restart if change.run.is_some() => " (an update restarts it)",
            Effect::Adjust => " (an update does not restart it)",
            Effect::Refused => " (an update leaves it as it is: it has a fault or does not fit)",
            Effect::Start | Effect::Add | Effect::Restart | Effect::Remove => "",
        };
        let _ = writeln!(text, "{}: {word}{note}", OneLine(&change.name));
    }
    if reply.changes.is_empty() {
        text.push_str("No config updates to processes\n");
    }
    output::finish(&text, exit)
}

/// Applies what has changed, and waits until those that stop are down.
pub(crate) fn update(context: &Context, units: &UpdateUnits) -> Result<Exit, Failure> {
    let all = units.names.iter().any(|name| name == "all");
    let names = if all { Vec::new() } else { units.names.clone() };
    let reply: ChangesReply = call(context, Request::Update { names }).map_err(CallError::into_failure)?;
    let exit = complain(&reply);
    let settled = wait(context, &reply.changes, units.timeout)?;
    let exit = if settled { exit } else { exit.then(Exit::Failed) };
    if context.json {
        return output::finish(&output::json(&reply)?, exit);
    }
    let mut text = String::new();
    for change in &reply.changes {
        let name = OneLine(&change.name);
        let stopped = change.run.is_some() && matches!(change.effect, Effect::Restart | Effect::Remove);
        if stopped && settled {
            let _ = writeln!(text, "{name}: stopped");
        }
        let words = match change.effect {
            Effect::Start | Effect::Add => "added process group",
            Effect::Adjust | Effect::Restart => "updated process group",
            Effect::Remove => "removed process group",
            Effect::Refused => "ERROR (its new definition has a fault or does not fit: it is left as it is)",
        };
        let _ = writeln!(text, "{name}: {words}");
    }
    if !settled {
        let within = humantime::format_duration(units.timeout);
        output::complain("lifeboatctl", &format!("not all that is to stop has stopped within {within}"));
    }
    output::finish(&text, exit)
}

/// Takes in one new unit from its file, without a word where all is well with it.
pub(crate) fn take_in(context: &Context, name: &str) -> Result<Exit, Failure> {
    let request = Request::Change { how: ChangeVerb::Add, name: name.to_owned() };
    let mut reply: ChangesReply = call(context, request).map_err(CallError::into_failure)?;
    let (file, budget) = (format!("/{name}.ron"), format!("{name}: "));
    reply.faults.retain(|fault| fault.contains(&file) || fault.starts_with(&budget));
    Ok(complain(&reply))
}

/// Takes it out again. False where it is not at rest, or for another reason is still there.
pub(crate) fn take_out(context: &Context, name: &str) -> bool {
    let request = Request::Change { how: ChangeVerb::Remove, name: name.to_owned() };
    let answer = call::<Empty>(context, request);
    matches!(answer, Ok(Empty {}) | Err(CallError::Refused(ErrorReply::NoSuchUnit { .. })))
}

/// Takes units in or out, one after the other.
pub(crate) fn add_or_remove(context: &Context, change: &Change, how: ChangeVerb) -> Result<Exit, Failure> {
    each(context, &change.names, how, |name, answer| match answer {
        Ok(()) if how == ChangeVerb::Add => (format!("{name}: added process group"), Exit::Ok),
        Ok(()) => (format!("{name}: removed process group"), Exit::Ok),
        Err(ErrorReply::StillRunning { .. }) => {
            (format!("ERROR: process/group still running: {name}"), Exit::Failed)
        }
        Err(ErrorReply::NoSuchUnit { .. }) => (format!("ERROR: no such process/group: {name}"), Exit::Failed),
        Err(error) => refused(name, error),
    })
}

/// Lets it hold for the next boots, and with `--now` for this one.
pub(crate) fn enable_or_disable(
    context: &Context,
    enable: &Enable,
    how: ChangeVerb,
) -> Result<Exit, Failure> {
    let word = if how == ChangeVerb::Enable { "enabled" } else { "disabled" };
    let exit = each(context, &enable.names, how, |name, answer| match answer {
        Ok(()) => (format!("{name}: {word}"), Exit::Ok),
        Err(ErrorReply::NoSuchUnit { .. }) => (format!("{name}: ERROR (no such process)"), Exit::Failed),
        Err(error) => refused(name, error),
    })?;
    if !enable.now || exit != Exit::Ok {
        return Ok(exit);
    }
    let units = Units { names: enable.names.clone(), timeout: enable.timeout };
    if how == ChangeVerb::Enable { control::start(context, &units) } else { control::stop(context, &units) }
}

fn refused(name: &str, error: &ErrorReply) -> (String, Exit) {
    match error {
        ErrorReply::NotPermitted {} => (format!("{name}: ERROR (not permitted)"), Exit::Unknown),
        other => (format!("{name}: ERROR ({other})"), Exit::Failed),
    }
}

fn each(
    context: &Context,
    names: &[String],
    how: ChangeVerb,
    verdict: impl Fn(&str, Result<(), &ErrorReply>) -> (String, Exit),
) -> Result<Exit, Failure> {
    let (mut text, mut exit) = (String::new(), Exit::Ok);
    let mut values: Vec<Value> = Vec::new();
    for name in names {
        let request = Request::Change { how, name: name.clone() };
        let answer = if how == ChangeVerb::Add {
            call::<ChangesReply>(context, request).map(|reply| exit = exit.then(complain(&reply)))
        } else {
            call::<Empty>(context, request).map(|Empty {}| run::forget(context, name, how))
        };
        let answer = match answer {
            Err(CallError::Refused(error)) => Err(error),
            other => Ok(other.map_err(CallError::into_failure)?),
        };
        let (line, code) = verdict(&OneLine(name).to_string(), answer.as_ref().copied());
        exit = exit.then(code);
        let _ = writeln!(text, "{line}");
        values.push(match &answer {
            Ok(()) => json!({ "name": name }),
            Err(error) => json!({ "name": name, "error": error.name(), "reason": error.to_string() }),
        });
    }
    let text = if context.json { output::json(&values)? } else { text };
    output::finish(&text, exit)
}

fn call<P: serde::de::DeserializeOwned>(context: &Context, request: Request) -> Result<P, CallError> {
    Client::connect(&context.socket())?.call(request, READ_TIMEOUT)
}

/// Faults go to standard error, and make the verb fail.
fn complain(reply: &ChangesReply) -> Exit {
    for fault in &reply.faults {
        output::complain("lifeboatctl", fault);
    }
    if reply.faults.is_empty() { Exit::Ok } else { Exit::Failed }
}

/// Waits until all that was to stop has stopped. False where that takes too long.
fn wait(context: &Context, changes: &[ChangeReply], timeout: Duration) -> Result<bool, Failure> {
    let stops = |change: &&ChangeReply| {
        change.run.is_some() && matches!(change.effect, Effect::Restart | Effect::Remove)
    };
    let stopping: Vec<&ChangeReply> = changes.iter().filter(stops).collect();
    if stopping.is_empty() {
        return Ok(true);
    }
    let mut client = Client::connect(&context.socket()).map_err(CallError::into_failure)?;
    client.ask(Request::Watch, true).map_err(CallError::into_failure)?;
    let until = Instant::now() + timeout;
    let mut left = ANSWER_TIMEOUT;
    loop {
        let heard: Result<(StatusReply<'static>, bool), CallError> = client.hear(Some(left));
        let now = match heard {
            Ok((reply, _)) => reply.snapshot,
            Err(CallError::TimedOut(_)) => return Ok(false),
            Err(error) => return Err(error.into_failure()),
        };
        if stopping.iter().all(|change| is_over(&now, change)) {
            return Ok(true);
        }
        left = until.saturating_duration_since(Instant::now());
    }
}

/// The life that the unit had then is over.
fn is_over(now: &Snapshot, change: &ChangeReply) -> bool {
    let Some(unit) = now.units.iter().find(|unit| unit.name == change.name) else { return true };
    let later = change.run.is_some_and(|run| unit.run.0 != run);
    change.effect == Effect::Restart && (later || status::is_down(unit) || unit.state == StateName::Backoff)
}
