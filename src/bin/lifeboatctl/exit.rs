//! Exit codes: supervisorctl's, which are those of LSB init scripts. docs/lifeboatctl.md lists them.

use std::process::ExitCode;

/// How `lifeboatctl` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or there was nothing to do.
    Ok,
    /// Not done.
    Failed,
    /// The command line is wrong; `replay`: the file has nothing to replay.
    Usage,
    /// `status`: at least one of the units is STOPPED, EXITED or FATAL.
    NotAllUp,
    /// Not permitted, or connection refused; `status`, `watch` and `why`: unknown name, or lifeboat is out of
    /// reach.
    Unknown,
    /// The unit did not come up, or lifeboat is not running.
    NotRunning,
    /// `run --wait`: as the command.
    Command(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotAllUp => 3,
            Exit::Unknown => 4,
            Exit::NotRunning => 7,
            Exit::Command(code) => code,
        })
    }
}

impl Exit {
    /// Of several results the last bad one counts, as with supervisorctl.
    pub(crate) fn then(self, later: Self) -> Self {
        if later == Self::Ok { self } else { later }
    }
}

/// Why a verb could not be done at all.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For people, without the program's name.
    pub(crate) message: String,
    /// The exit code.
    pub(crate) exit: Exit,
}
