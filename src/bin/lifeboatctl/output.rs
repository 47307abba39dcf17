//! Standard output and standard error. A reader that went away (`| head`) is no error.

use crate::exit::{Exit, Failure};
use serde::Serialize;
use std::io::{self, ErrorKind, Write};

/// Nobody reads any more.
pub(crate) struct Gone;

/// Writes to standard output. `Err(Gone)` inside `Ok` says that the reader went away.
pub(crate) fn print(text: &str) -> Result<Result<(), Gone>, Failure> {
    print_bytes(text.as_bytes())
}

/// As `print`, for what need not be text.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<Result<(), Gone>, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(Ok(())),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Err(Gone)),
        Err(error) => {
            Err(Failure { message: format!("cannot write to standard output: {error}"), exit: Exit::Failed })
        }
    }
}

/// Writes a text and ends with this exit code, whether or not somebody read it.
pub(crate) fn finish(text: &str, exit: Exit) -> Result<Exit, Failure> {
    print(text).map(|_| exit)
}

/// One JSON value on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map(|text| text + "\n").map_err(|error| Failure {
        message: format!("cannot write this as JSON: {error}"),
        exit: Exit::Failed,
    })
}

/// Writes to standard error; there is no one to tell when that fails.
pub(crate) fn complain(program: &str, message: &str) {
    let _ = writeln!(io::stderr(), "{program}: {message}");
}
