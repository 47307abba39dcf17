//! The one error of this module: what was tried, on what, and errno(3).

use nix::errno::Errno;
use std::fmt;

/// A call to the kernel that failed.
///
/// `Display` gives the operation and its object; the cause is in `source()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysError {
    op: &'static str,
    what: String,
    cause: Errno,
}

impl SysError {
    /// An error of the operation `op` (a verb: "open", "mount") on `what` (a path, or what it was about).
    #[must_use]
    pub fn new(op: &'static str, what: impl Into<String>, cause: impl IntoErrno) -> Self {
        Self { op, what: what.into(), cause: Errno::from_raw(cause.into_errno()) }
    }

    /// errno(3).
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.cause as i32
    }

    /// What was tried.
    #[must_use]
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// On what: mostly a path.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op, self.what)
    }
}

impl std::error::Error for SysError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// The error types of the crates in use, as errno(3).
pub trait IntoErrno {
    /// errno(3); `EIO` where the error has none.
    fn into_errno(self) -> i32;
}

impl IntoErrno for i32 {
    fn into_errno(self) -> i32 {
        self
    }
}

impl IntoErrno for Errno {
    fn into_errno(self) -> i32 {
        self as i32
    }
}

impl IntoErrno for rustix::io::Errno {
    fn into_errno(self) -> i32 {
        self.raw_os_error()
    }
}

impl IntoErrno for std::io::Error {
    fn into_errno(self) -> i32 {
        self.raw_os_error().unwrap_or(Errno::EIO as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn display_leaves_the_cause_to_source() {
        let error = SysError::new("open", "/dev/kmsg", Errno::EACCES);
        assert_eq!(error.to_string(), "open /dev/kmsg");
        assert_eq!(error.source().map(ToString::to_string), Some("EACCES: Permission denied".to_owned()));
        assert_eq!(SysError::new("read", "x", std::io::Error::other("no number")).errno(), libc::EIO);
    }
}
