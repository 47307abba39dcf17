#![expect(unsafe_code, reason = "descriptors that a process is started with, or sent, are plain numbers")]

//! What a process is handed: descriptors that it was started with, and those that come with a message.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `SCM_MAX_FD` of include/net/scm.h.
const DESCRIPTORS_MAX: usize = 253;

/// A copy of a descriptor of this process by its number, closed on execve(2).
///
/// # Errors
/// `EBADF` where it is not open, `EMFILE`.
pub fn copy_of(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: it is borrowed for this one call, which only looks it up: a number that is not open gives `EBADF`, and
    // one that is another's is only copied.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fd.try_clone_to_owned()
}

/// Reads from a stream socket up to the end of a line, at most `bytes_max`, and takes the descriptors that come with
/// it. Empty at the end of the file. Blocks until somebody writes.
///
/// # Errors
/// Of recvmsg(2); `InvalidData` for a longer line, and for one that is cut off.
pub fn read_line(socket: BorrowedFd<'_>, bytes_max: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut line, mut descriptors) = (Vec::new(), Vec::new());
    // SAFETY: a computation on numbers.
    let room =
        unsafe { libc::CMSG_SPACE(u32::try_from(DESCRIPTORS_MAX * size_of::<RawFd>()).unwrap_or(u32::MAX)) }
            as usize;
    let mut control = vec![0_u8; room];
    let mut bytes = [0_u8; 4_096];
    while line.last() != Some(&b'\n') {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Err(nix::errno::Errno::EINTR) => continue,
            message => message?,
        };
        for part in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                // SAFETY: the kernel has put them into our table for this message, and nobody else knows them.
                descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        let length = message.bytes;
        if length == 0 && line.is_empty() {
            break;
        }
        line.extend_from_slice(bytes.get(..length).unwrap_or_default());
        if length == 0 || line.len() > bytes_max {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok((line, descriptors))
}
