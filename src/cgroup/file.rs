//! Small reads and writes on the kernel's files.

use crate::sys::error::SysError;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::sys::uio::{pread, pwrite};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// `cgroup.controllers` and `memory.pressure`, the longest that are read so, have some 200 bytes.
const VALUE_BYTES_MAX: usize = 1024;

/// A folder, to open other files by it and to start processes in it.
pub(super) fn open_folder(path: &Path) -> Result<OwnedFd, SysError> {
    open(path, OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| SysError::new("open", path.display().to_string(), errno))
}

/// A file of a folder; `None` where there is none.
pub(super) fn open_in(
    folder: BorrowedFd<'_>,
    path: &Path,
    name: &str,
    flags: OFlag,
) -> Result<Option<OwnedFd>, SysError> {
    match openat(folder, name, flags | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(SysError::new("open", path.join(name).display().to_string(), errno)),
    }
}

/// Makes a folder; one that is there already is fine. The answer is whether it is new.
pub(super) fn make_folder(path: &Path) -> Result<bool, SysError> {
    match nix::unistd::mkdir(path, Mode::from_bits_truncate(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EEXIST) => Ok(false),
        Err(errno) => Err(SysError::new("make the folder", path.display().to_string(), errno)),
    }
}

/// Writes a value to a file that must be there, in one write(2), as the kernel wants it.
pub(super) fn write_value(path: &Path, value: &str) -> Result<(), SysError> {
    let failed = |errno| SysError::new("write", format!("{value:?} to {}", path.display()), errno);
    let flags = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
    let file = open(path, flags, Mode::empty()).map_err(failed)?;
    nix::unistd::write(&file, value.as_bytes()).map(|_| ()).map_err(failed)
}

/// A small file, in one read(2); `None` where there is none.
pub(super) fn read_value(path: &Path) -> Result<Option<Vec<u8>>, SysError> {
    let failed = |errno| SysError::new("read", path.display().to_string(), errno);
    let mut bytes = [0; VALUE_BYTES_MAX];
    match open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(file) => {
            let length = nix::unistd::read(&file, &mut bytes).map_err(failed)?;
            Ok(bytes.get(..length).map(<[u8]>::to_vec))
        }
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(failed(errno)),
    }
}

/// Reads an open file of cgroupfs from its start into `buffer`; allocates nothing. `EFBIG` where it does not fit.
///
/// Not for files of several records (`cgroup.procs`): one record comes whole where there is room for it (fs/seq_file.c,
/// `seq_read_iter`), so a read that leaves room was the last one. Asking for the end would make all of the text anew.
pub(super) fn read_again<'b>(file: BorrowedFd<'_>, buffer: &'b mut [u8]) -> Result<&'b [u8], i32> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match pread(file, rest, libc::off_t::try_from(length).unwrap_or(libc::off_t::MAX)) {
            Ok(more) if more < rest.len() => return buffer.get(..length + more).ok_or(libc::EIO),
            Ok(more) => length += more,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno as i32),
        }
    }
    Err(libc::EFBIG)
}

/// Writes to an open file, from its start; allocates nothing.
pub(super) fn write_again(file: BorrowedFd<'_>, value: &[u8]) -> Result<(), i32> {
    loop {
        match pwrite(file, value, 0) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno as i32),
        }
    }
}
