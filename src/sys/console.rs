//! The console, and the three standard descriptors of lifeboat itself.

use super::error::SysError;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};

/// Opens `/dev/console` for writing. It never blocks and never becomes lifeboat's controlling terminal.
pub fn open_console() -> Result<OwnedFd, SysError> {
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    open("/dev/console", flags, Mode::empty()).map_err(|errno| SysError::new("open", "/dev/console", errno))
}

/// Opens `/dev/null` for reading and writing.
pub fn open_null() -> Result<OwnedFd, SysError> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    open("/dev/null", flags, Mode::empty()).map_err(|errno| SysError::new("open", "/dev/null", errno))
}

/// Sees to it that descriptors 0, 1 and 2 are open, so that no file opened later gets one of these numbers: on
/// `/dev/console` where there is one, else on `/dev/null`, else on the root folder, which always is.
///
/// To be called first of all. An image without `/dev/console` starts PID 1 with none of them open.
pub fn ensure_standard_descriptors() -> Result<(), SysError> {
    loop {
        let fd = open("/dev/console", OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK, Mode::empty())
            .or_else(|_| open("/dev/null", OFlag::O_RDWR, Mode::empty()))
            .or_else(|_: Errno| open("/", OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()))
            .map_err(|errno| SysError::new("open", "/dev/console, /dev/null or /", errno))?;
        if fd.as_raw_fd() > libc::STDERR_FILENO {
            return Ok(());
        }
        // It has taken the lowest free number, one of the three, and keeps it for good.
        let _ = fd.into_raw_fd();
    }
}

/// Opens the console for services: an open file of its own, that blocks those who flood it and nobody else.
pub fn open_console_for_children() -> Result<OwnedFd, SysError> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    open("/dev/console", flags, Mode::empty()).map_err(|errno| SysError::new("open", "/dev/console", errno))
}

/// A duplicate of lifeboat's own standard output.
pub fn standard_output() -> Result<OwnedFd, SysError> {
    std::io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|cause| SysError::new("duplicate", "standard output", cause))
}

/// lifeboat's own standard error, for its own words.
///
/// A pipe or a terminal is opened anew, nonblocking: whoever stopped reading there must not stop lifeboat, and the open
/// file that others share stays as it is. Where that cannot be done it is a duplicate.
pub fn standard_error() -> Result<OwnedFd, SysError> {
    use std::os::unix::fs::FileTypeExt;
    let path = "/proc/self/fd/2";
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let can_block = |file: std::fs::Metadata| file.file_type().is_fifo() || file.file_type().is_char_device();
    if std::fs::metadata(path).is_ok_and(can_block)
        && let Ok(own) = open(path, flags, Mode::empty())
    {
        return Ok(own);
    }
    std::io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|cause| SysError::new("duplicate", "standard error", cause))
}
