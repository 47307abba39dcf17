//! Exit codes: supervisorctl's, which are those of LSB init scripts. docs/lifeboatctl.md lists them.

use std::process::ExitCode;

/// How `lifeboatctl` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done, or there was nothing to do.
    Ok = 0,
    /// Not done.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// `status`: at least one of the units is STOPPED, EXITED or FATAL.
    NotAllUp = 3,
    /// Not permitted, or connection refused; `status`, `watch` and `why`: unknown name, or lifeboat is out of
    /// reach.
    Unknown = 4,
    /// The unit did not come up, or lifeboat is not running.
    NotRunning = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
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
