//! `tail`: what a unit has said last, and what it says from now on.

use crate::cli::{Context, Tail};
use crate::client::{ANSWER_TIMEOUT, CallError, Client};
use crate::exit::{Exit, Failure};
use crate::output::{self, Gone};
use lifeboat::view::status::OneLine;
use lifeboat::wire::base64;
use lifeboat::wire::reply::{ErrorReply, TailReply};
use lifeboat::wire::request::Request;

/// As supervisorctl.
const BYTES: u64 = 1_600;

pub(crate) fn tail(context: &Context, tail: &Tail) -> Result<Exit, Failure> {
    let (bytes, name) = wanted(&tail.words)?;
    let mut client = Client::connect(&context.socket()).map_err(CallError::into_failure)?;
    let request = Request::Tail { name: name.to_owned(), bytes: Some(bytes) };
    client.ask(request, tail.follow).map_err(CallError::into_failure)?;
    if tail.follow && !context.json && output::print("==> Press Ctrl-C to exit <==\n")?.is_err() {
        return Ok(Exit::Ok);
    }
    // Only the first answer is due at once: later ones come when there is something to say.
    let mut timeout = Some(ANSWER_TIMEOUT);
    loop {
        let (reply, continues): (TailReply, bool) = client.hear(timeout).map_err(refused)?;
        if timeout.take().is_some() && reply.kept_bytes == 0 {
            let name = OneLine(name);
            output::complain(
                "lifeboatctl",
                &format!("no output of {name} is kept (output_ring: 0 in its file)"),
            );
        }
        let printed = if context.json {
            output::print(&output::json(&reply)?)?
        } else {
            let bytes = base64::decode(&reply.data)
                .ok_or_else(|| CallError::NotVarlink("data is no base64".into()).into_failure())?;
            output::print_bytes(&bytes)?
        };
        if let (Err(Gone), _) | (Ok(()), false) = (printed, continues) {
            return Ok(Exit::Ok);
        }
    }
}

fn refused(error: CallError) -> Failure {
    match error {
        CallError::Refused(ErrorReply::NotPermitted {}) => Failure {
            message: "what units say is shown to root and to lifeboat's own user alone: try as root".into(),
            exit: Exit::Unknown,
        },
        error => error.into_failure(),
    }
}

/// `[-BYTES] NAME [stdout|stderr]`. Both streams are one here.
fn wanted(words: &[String]) -> Result<(u64, &str), Failure> {
    let usage = |message: String| Failure { message, exit: Exit::Usage };
    let (bytes, rest) = match words {
        [first, rest @ ..] if first.starts_with('-') => {
            let bytes = first.strip_prefix('-').and_then(|digits| digits.parse().ok());
            (bytes.ok_or_else(|| usage(format!("{:?} is no number of bytes; write -1600", first)))?, rest)
        }
        rest => (BYTES, rest),
    };
    match rest {
        [name] => Ok((bytes, name)),
        [name, channel] if channel == "stdout" || channel == "stderr" => Ok((bytes, name)),
        [] => Err(usage("the name of a unit is missing".into())),
        [_, channel] => Err(usage(format!("{channel:?} is neither stdout nor stderr"))),
        [_, ..] => Err(usage("one unit at a time; write tail [-f] [-BYTES] NAME [stdout|stderr]".into())),
    }
}
