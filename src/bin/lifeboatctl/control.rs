//! `start`, `stop`, `restart` and `reload`: verbs that change units and wait for the outcome.

use crate::cli::{Context, Units};
use crate::client::{ANSWER_TIMEOUT, CallError, Client};
use crate::exit::{Exit, Failure};
use crate::{output, status};
use lifeboat::engine::action::Reply;
use lifeboat::engine::event::{CommandKind, Verb};
use lifeboat::engine::snapshot::{Snapshot, StateName, Trouble, UnitView};
use lifeboat::view::status::OneLine;
use lifeboat::view::words::{ProcedureWords, TroubleWords, start_error};
use lifeboat::wire::reply::{ErrorReply, OutcomeReply, WhyReply};
use lifeboat::wire::request::Request;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// So many requests are under way at once, each on its own connection, so that units stop side by side.
const AT_ONCE: usize = 8;

/// What lifeboat answered about one name.
type Answer = Result<Reply, CallError>;

/// One verb at work.
struct Session<'a> {
    socket: PathBuf,
    verb: Verb,
    timeout: Duration,
    json: bool,
    /// As it was before; only where it was needed.
    before: Option<&'a Snapshot>,
    text: String,
    values: Vec<Value>,
    exit: Exit,
}

pub(crate) fn start(context: &Context, units: &Units) -> Result<Exit, Failure> {
    let up_next = |unit: &UnitView| status::is_down(unit) && unit.state != StateName::Done;
    run(context, units, Verb::Start, up_next)
}

pub(crate) fn stop(context: &Context, units: &Units) -> Result<Exit, Failure> {
    run(context, units, Verb::Stop, |unit| !status::is_down(unit))
}

pub(crate) fn restart(context: &Context, units: &Units) -> Result<Exit, Failure> {
    run(context, units, Verb::Restart, |unit| unit.state != StateName::Done)
}

pub(crate) fn reload(context: &Context, units: &Units) -> Result<Exit, Failure> {
    run(context, units, Verb::Reload, |unit| unit.state == StateName::Running)
}

/// Does a verb on the names, or on all units for which it makes sense.
fn run(
    context: &Context,
    units: &Units,
    verb: Verb,
    makes_sense: impl Fn(&UnitView) -> bool,
) -> Result<Exit, Failure> {
    let socket = context.socket();
    let all = units.names.iter().any(|name| name == "all");
    let before = if all || verb == Verb::Restart {
        let mut client = Client::connect(&socket).map_err(CallError::into_failure)?;
        Some(status::snapshot(&mut client).map_err(CallError::into_failure)?)
    } else {
        None
    };
    let names: Vec<&str> = match &before {
        Some(before) if all => {
            before.units.iter().filter(|unit| makes_sense(unit)).map(|unit| unit.name.as_str()).collect()
        }
        _ => units.names.iter().map(String::as_str).collect(),
    };
    let mut session = Session {
        socket,
        verb,
        timeout: units.timeout,
        json: context.json,
        before: before.as_ref(),
        text: String::new(),
        values: Vec::new(),
        exit: Exit::Ok,
    };
    // Restarts of units that require each other would overrule each other: one after the other.
    let at_once = if verb == Verb::Restart { 1 } else { AT_ONCE };
    for batch in names.chunks(at_once) {
        session.batch(batch)?;
    }
    if context.json {
        session.text = output::json(&session.values)?;
        output::print(&session.text)?.ok();
    }
    Ok(session.exit)
}

impl Session<'_> {
    fn batch(&mut self, names: &[&str]) -> Result<(), Failure> {
        let mut asked = Vec::new();
        for name in names {
            let mut client = Client::connect(&self.socket).map_err(CallError::into_failure)?;
            let request = Request::Ask { verb: self.verb, name: (*name).to_owned() };
            client.ask(request, false).map_err(CallError::into_failure)?;
            asked.push((*name, client));
        }
        for (name, mut client) in asked {
            let answer: Answer = client.hear(Some(self.timeout)).map(|(OutcomeReply { outcome }, _)| outcome);
            let trouble = match answer {
                Ok(Reply::Failed | Reply::Skipped) => self.trouble(name),
                Ok(Reply::ReloadFailed) => {
                    self.failed_reload(name);
                    None
                }
                _ => None,
            };
            self.tell(name, &answer, trouble);
            if !self.json {
                // The verb goes on although nobody reads.
                output::print(&self.text)?.ok();
                self.text.clear();
            }
        }
        Ok(())
    }

    /// Why a start failed, as the unit's status says now; nothing where that cannot be had.
    fn trouble(&self, name: &str) -> Option<Trouble> {
        let mut client = Client::connect(&self.socket).ok()?;
        let now = status::snapshot(&mut client).ok()?;
        let unit = now.units.iter().find(|unit| unit.name == name)?;
        let trouble = unit.trouble?;
        let words = match &unit.condition {
            Some(condition) => format!("not met: {}", OneLine(condition)),
            None => TroubleWords { trouble, names: &now.names }.to_string(),
        };
        output::complain("lifeboatctl", &format!("{name}: {words}"));
        Some(trouble)
    }

    /// What its reload command said in the end, on standard error.
    fn failed_reload(&self, name: &str) {
        let ask = || {
            let mut client = Client::connect(&self.socket).ok()?;
            client.call(Request::Why { name: name.to_owned() }, ANSWER_TIMEOUT).ok()
        };
        let Some(why): Option<WhyReply<'static>> = ask() else { return };
        let Some(failed) = why.unit.failed_command.filter(|failed| failed.kind == CommandKind::Reload) else {
            return;
        };
        let said = why.command_words.lines().rfind(|line| !line.trim().is_empty());
        let said = said.map(|line| format!(": {}", OneLine(line))).unwrap_or_default();
        let how = ProcedureWords(failed.result);
        output::complain("lifeboatctl", &format!("{name}: reload {how}{said}; it runs on"));
    }

    fn tell(&mut self, name: &str, answer: &Answer, trouble: Option<Trouble>) {
        let (words, exit) = verdict(self.verb, answer, trouble);
        self.exit = self.exit.then(exit);
        self.values.push(match answer {
            Ok(outcome) => json!({ "name": name, "outcome": outcome, "trouble": trouble }),
            Err(CallError::Refused(error)) => json!({ "name": name, "error": error.name() }),
            Err(_) => json!({ "name": name, "error": words }),
        });
        if self.verb == Verb::Restart && answer.is_ok() {
            let unit = self.before.and_then(|before| before.units.iter().find(|unit| unit.name == name));
            let was_down = unit.is_some_and(status::is_down);
            let first = if was_down { "ERROR (not running)" } else { "stopped" };
            let _ = writeln!(self.text, "{name}: {first}");
        }
        let _ = writeln!(self.text, "{}: {words}", OneLine(name));
    }
}

/// supervisorctl's words and exit code for an answer.
fn verdict(verb: Verb, answer: &Answer, trouble: Option<Trouble>) -> (String, Exit) {
    let error = |words: &str, exit| (format!("ERROR ({words})"), exit);
    match answer {
        Ok(Reply::Started) => ("started".into(), Exit::Ok),
        Ok(Reply::Stopped) => ("stopped".into(), Exit::Ok),
        Ok(Reply::NotRunning) if verb == Verb::Reload => error("not running", Exit::Failed),
        // What was asked for is so: not a failure.
        Ok(Reply::AlreadyStarted) => error("already started", Exit::Ok),
        Ok(Reply::NotRunning) => error("not running", Exit::Ok),
        // Its own file wants it so: not a failure.
        Ok(Reply::Skipped) => ("skipped".into(), Exit::Ok),
        Ok(Reply::Failed) => match (verb, start_error(trouble)) {
            (Verb::Stop, _) => error("not stopped", Exit::Failed),
            (Verb::Reload, _) => error("not reloaded", Exit::Failed),
            (Verb::Drill | Verb::DrillToTheEnd, _) => error("not drilled", Exit::Failed),
            (Verb::Start | Verb::Restart, (words, true)) => error(words, Exit::NotRunning),
            (Verb::Start | Verb::Restart, (words, false)) => error(words, Exit::Failed),
        },
        Ok(Reply::Reloaded) => ("reloaded".into(), Exit::Ok),
        Ok(Reply::Drilled) => ("drilled".into(), Exit::Ok),
        Ok(Reply::NoDrill) => error("no way back from its procedure", Exit::Failed),
        Ok(Reply::ReloadFailed) => error("not reloaded", Exit::Failed),
        Ok(Reply::NoReload) => error(
            "its unit file has no reload; add reload: (signal: \"HUP\") or (command: [...])",
            Exit::Failed,
        ),
        Ok(Reply::Overruled) => error("overruled by another request", Exit::Failed),
        Ok(Reply::ShuttingDown) => error("the machine is going down", Exit::Failed),
        Ok(Reply::TooManyWaiting) => error("too many requests wait, try again", Exit::Failed),
        Err(CallError::Refused(ErrorReply::NoSuchUnit { .. })) => error("no such process", Exit::Failed),
        Err(CallError::Refused(ErrorReply::NotPermitted {})) => error("not permitted", Exit::Unknown),
        Err(CallError::Refused(other)) => error(&other.to_string(), Exit::Failed),
        Err(CallError::TimedOut(time)) => {
            error(&format!("no answer within {}", humantime::format_duration(*time)), Exit::Failed)
        }
        Err(CallError::Closed) => error("lifeboat closed the connection", Exit::Failed),
        Err(CallError::Unreachable { .. } | CallError::Broken(_) | CallError::NotVarlink(_)) => {
            error("no answer", Exit::Failed)
        }
    }
}
