//! `shutdown`: stop everything and end the machine.

use crate::cli::Context;
use crate::client::{ANSWER_TIMEOUT, CallError, Client};
use crate::exit::{Exit, Failure};
use crate::output;
use lifeboat::engine::event::ShutdownKind;
use lifeboat::wire::reply::Empty;
use lifeboat::wire::request::Request;
use serde_json::json;
use std::path::Path;

pub(crate) fn shutdown(context: &Context, how: ShutdownKind) -> Result<Exit, Failure> {
    ask(&context.socket(), how)?;
    let text = if context.json { output::json(&json!({ "shutdown": how }))? } else { "Shut down\n".into() };
    output::finish(&text, Exit::Ok)
}

/// Asks lifeboat for the end, and hears that it has begun.
pub(crate) fn ask(socket: &Path, how: ShutdownKind) -> Result<(), Failure> {
    let mut client = Client::connect(socket).map_err(CallError::into_failure)?;
    let _: Empty = client.call(Request::Shutdown { how }, ANSWER_TIMEOUT).map_err(CallError::into_failure)?;
    Ok(())
}
