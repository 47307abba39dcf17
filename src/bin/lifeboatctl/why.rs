//! `why`: what happened to a unit.

use crate::cli::Context;
use crate::client::{ANSWER_TIMEOUT, Client};
use crate::exit::{Exit, Failure};
use crate::{output, status};
use lifeboat::view::why::{self, Story};
use lifeboat::wire::reply::WhyReply;
use lifeboat::wire::request::Request;

pub(crate) fn why(context: &Context, name: &str, all: bool) -> Result<Exit, Failure> {
    let mut client = Client::connect(&context.socket()).map_err(status::unknown)?;
    let reply: WhyReply<'static> =
        client.call(Request::Why { name: name.to_owned() }, ANSWER_TIMEOUT).map_err(status::unknown)?;
    if context.json {
        return output::finish(&output::json(&reply)?, Exit::Ok);
    }
    let story = Story {
        time: reply.time,
        unit: &reply.unit,
        incidents: &reply.incidents,
        names: &reply.names,
        faults: &reply.faults,
        last_words: &reply.last_words,
        command_words: &reply.command_words,
    };
    let mut text = String::new();
    // A String takes everything.
    let _ = why::write(&mut text, &story, status::wall_offset(), all);
    output::finish(&text, Exit::Ok)
}
