//! `drill`: a unit's way to its shutdown procedure on purpose, and what that needed.

use crate::cli::{Context, Drill};
use crate::client::{ANSWER_TIMEOUT, CallError, Client};
use crate::exit::{Exit, Failure};
use crate::output;
use lifeboat::engine::action::Reply;
use lifeboat::engine::event::Verb;
use lifeboat::engine::snapshot::{ProcedureResult, UnitView};
use lifeboat::view::drill;
use lifeboat::view::status::OneLine;
use lifeboat::wire::reply::{OutcomeReply, WhyReply};
use lifeboat::wire::request::Request;

pub(crate) fn drill(context: &Context, wish: &Drill) -> Result<Exit, Failure> {
    let name = &wish.name;
    let verb = if wish.to_the_end { Verb::DrillToTheEnd } else { Verb::Drill };
    let mut client = Client::connect(&context.socket()).map_err(CallError::into_failure)?;
    client.ask(Request::Ask { verb, name: name.clone() }, false).map_err(CallError::into_failure)?;
    let (OutcomeReply { outcome }, _) = client.hear(Some(wish.timeout)).map_err(CallError::into_failure)?;
    match outcome {
        Reply::Drilled => {}
        other => {
            let message = format!("{name}: {}", refusal(other, wish.to_the_end));
            return Err(Failure { message, exit: Exit::Failed });
        }
    }
    let why: WhyReply<'static> =
        client.call(Request::Why { name: name.clone() }, ANSWER_TIMEOUT).map_err(CallError::into_failure)?;
    tell(context, &why.unit)
}

fn tell(context: &Context, unit: &UnitView) -> Result<Exit, Failure> {
    let Some(shown) = &unit.drill else {
        return Err(Failure {
            message: format!("{}: its drill is not on record", unit.name),
            exit: Exit::Failed,
        });
    };
    use lifeboat::engine::event::Exit as End;
    let good = match shown.procedure {
        ProcedureResult::Ended(exit) | ProcedureResult::SavedItself(exit) => exit == End::Code(0),
        ProcedureResult::None
        | ProcedureResult::OutOfMemory
        | ProcedureResult::LoanSpent
        | ProcedureResult::Lost(_)
        | ProcedureResult::TimedOut
        | ProcedureResult::SpawnFailed { .. } => false,
    };
    let exit = if good { Exit::Ok } else { Exit::Failed };
    if context.json {
        return output::finish(&output::json(shown)?, exit);
    }
    let mut text =
        format!("{}: {}\n", OneLine(&unit.name), if good { "drilled" } else { "the drill failed" });
    // A string takes everything.
    let _ = drill::write(&mut text, shown);
    output::finish(&text, exit)
}

/// Why there was no drill, and what helps.
fn refusal(outcome: Reply, to_the_end: bool) -> &'static str {
    match outcome {
        Reply::NoDrill if to_the_end => {
            "it has no shutdown procedure: add `shutdown: (procedure: [...])` to its file"
        }
        Reply::NoDrill => {
            "there is no way back from its shutdown procedure: it has none, or its service is not Frozen meanwhile; \
             where it has one, --to-the-end drills all of it"
        }
        Reply::NotRunning => "it is not RUNNING: start it first",
        Reply::Overruled => "another request took it elsewhere",
        Reply::Failed
        | Reply::Drilled
        | Reply::Started
        | Reply::Stopped
        | Reply::AlreadyStarted
        | Reply::Skipped
        | Reply::Reloaded
        | Reply::ReloadFailed
        | Reply::NoReload
        | Reply::ShuttingDown
        | Reply::TooManyWaiting => {
            "no drill now: its procedure is not ready, something else is done about it, or it ended meanwhile; \
             `lifeboatctl why` says more, and a second try may do"
        }
    }
}
