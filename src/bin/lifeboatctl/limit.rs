//! `limit`: other limits for a unit that runs.

use crate::cli::{Context, NewLimits};
use crate::client::{CallError, Client};
use crate::exit::{Exit, Failure};
use crate::output;
use lifeboat::engine::action::{LimitAnswer, LimitOutcome};
use lifeboat::engine::setting::{Limit, Setting};
use lifeboat::view::cure::untaken;
use lifeboat::view::status::OneLine;
use lifeboat::view::words::{Bytes, LimitWords};
use lifeboat::wire::request::Request;
use serde_json::json;
use std::fmt::Write;
use std::time::Duration;

/// lifeboat's own bounds for a change are far below.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn limit(context: &Context, change: &NewLimits) -> Result<Exit, Failure> {
    let mut client = Client::connect(&context.socket()).map_err(CallError::into_failure)?;
    let (mut text, mut values, mut exit) = (String::new(), Vec::new(), Exit::Ok);
    for limit in &change.limits {
        let request = Request::Limit { name: change.name.clone(), limit: *limit, below: change.below };
        client.ask(request, false).map_err(CallError::into_failure)?;
        let (answer, _): (LimitAnswer, bool) = client.hear(Some(TIMEOUT)).map_err(CallError::into_failure)?;
        let (name, limit_name) = (OneLine(&change.name), limit.setting.name());
        let _ = match told(*limit, &answer) {
            Ok(words) => writeln!(text, "{name}: {limit_name} {words} {}", LimitWords(*limit)),
            Err(words) => {
                exit = Exit::Failed;
                writeln!(text, "{name}: ERROR ({limit_name}: {words})")
            }
        };
        values.push(
            json!({ "name": change.name, "limit": limit_name, "value": limit.value, "answer": answer }),
        );
        if exit != Exit::Ok {
            break;
        }
    }
    if context.json {
        text = output::json(&values)?;
    }
    output::finish(&text, exit)
}

/// What became of it; an error is that the limit does not hold.
fn told(limit: Limit, answer: &LimitAnswer) -> Result<&'static str, String> {
    let used = Bytes(answer.current_bytes.unwrap_or(0));
    Err(match answer.outcome {
        LimitOutcome::Applied => return Ok("is"),
        LimitOutcome::Kept => return Ok("is from its next start on"),
        LimitOutcome::Rescued => return Ok("is from its next start on, its procedure is at work:"),
        LimitOutcome::BelowUse => format!(
            "{used} are in use and cannot be reclaimed; with --below rescue its procedure would save them"
        ),
        LimitOutcome::NoProcedure => {
            format!("{used} are in use and cannot be reclaimed; it has no procedure for an exhaustion")
        }
        LimitOutcome::OverBudget => {
            let free = Bytes(answer.free_bytes.unwrap_or(0));
            format!(
                "it does not fit beside the others, at most {free} is free for it; lower another unit first"
            )
        }
        LimitOutcome::NotTaken => {
            format!("the kernel did not take it: {}", untaken(answer.errno.unwrap_or(0)))
        }
        LimitOutcome::NoBound if limit.setting != Setting::MemoryMax => {
            "a target has no process that it could bound".into()
        }
        LimitOutcome::NoBound if limit.value.is_some() => {
            "its file bounds no memory, so there is nothing to change; \
             give it `memory: (max: \"SIZE\")` there, and `lifeboatctl update`"
                .into()
        }
        LimitOutcome::NoBound => "without a bound its memory cannot be guarded; give it a size".into(),
        LimitOutcome::Shielded => "above memory.high no shield could hold it".into(),
        LimitOutcome::NotNow => {
            "not now: it is on its way up or down, or another limit is being changed".into()
        }
        LimitOutcome::Refused => {
            "its file is refused, and `lifeboatctl status` says why; correct it there, and `lifeboatctl update`".into()
        }
        LimitOutcome::Overruled => "its run came to its end meanwhile".into(),
        LimitOutcome::TimedOut => "it took too long; the old limit holds".into(),
    })
}
