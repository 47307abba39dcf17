#![expect(unsafe_code, reason = "descriptors that a process is started with, or sent, are plain numbers")]

//! What a process is handed: descriptors that it was started with, and those that come with a message.

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::sockopt::Linger;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, getsockopt, recvmsg, setsockopt};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `SCM_MAX_FD` of include/net/scm.h.
pub const DESCRIPTORS_MAX: usize = 253;

/// A descriptor that another process has opened, and whose close(2) does not wait.
///
/// A socket with `SO_LINGER` waits in its last close(2) for what the other side does not take, nonblocking or not
/// (net/ipv4/af_inet.c, `inet_release`): anybody could hold PID 1 up with one. So it loses that before it is closed.
#[derive(Debug)]
pub struct Foreign(OwnedFd);

impl Foreign {
    /// Takes a descriptor over.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // With 0 seconds it does not wait: that is how a connection is cut on purpose.
        if getsockopt(&self.0, Linger).is_ok_and(|linger| linger.l_onoff != 0 && linger.l_linger != 0) {
            // It has just told what it is, so that this cannot fail.
            let _ = setsockopt(&self.0, Linger, &libc::linger { l_onoff: 0, l_linger: 0 });
        }
    }
}

/// Reads from a stream socket of anybody, who may send descriptors: these are closed. What a plain read(2) leaves out
/// the kernel would close in our name, and might wait.
#[derive(Debug)]
pub struct Reader {
    /// What comes beside the bytes; sized once.
    control: Vec<u8>,
}

impl Reader {
    /// With room for all that can come at once.
    #[must_use]
    pub fn new() -> Self {
        Self { control: cmsg_space!([RawFd; DESCRIPTORS_MAX]) }
    }

    /// As recv(2) with `MSG_DONTWAIT`.
    ///
    /// # Errors
    /// Of recvmsg(2), `EAGAIN` where nothing is there.
    pub fn read(&mut self, socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<usize, Errno> {
        let mut parts = [IoSliceMut::new(bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut self.control), flags)?;
        for part in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                for number in numbers {
                    // SAFETY: the kernel has put it into our table for this message, and nobody else knows it.
                    drop(Foreign::new(unsafe { OwnedFd::from_raw_fd(number) }));
                }
            }
        }
        Ok(message.bytes)
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::notify::NotifySocket;
    use nix::sys::socket::{ControlMessage, sendmsg};
    use std::io::{IoSlice, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::time::{Duration, Instant};

    /// A full connection whose last close(2) waits for three seconds, and its other side, which reads nothing.
    fn lingering() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let mut stream =
            TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
        let (other, _) = listener.accept().expect("a connection");
        stream.set_nonblocking(true).expect("nonblocking");
        while stream.write(&[1; 1 << 16]).is_ok() {}
        setsockopt(&stream, Linger, &libc::linger { l_onoff: 1, l_linger: 3 }).expect("a linger");
        (stream, other)
    }

    fn send(socket: &impl AsRawFd, fd: &impl AsRawFd) {
        let (numbers, text) = ([fd.as_raw_fd()], [IoSlice::new(b"STATUS=x")]);
        let rights = [ControlMessage::ScmRights(&numbers)];
        sendmsg::<()>(socket.as_raw_fd(), &text, &rights, MsgFlags::empty(), None).expect("room");
    }

    /// Whoever may send a message may send such a socket: its last close(2) must not hold PID 1 up.
    #[test]
    fn what_lingers_is_closed_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let mut notify = NotifySocket::open(&path).expect("a socket");
        let (theirs, ours) = UnixStream::pair().expect("a pair");
        let message = UnixDatagram::unbound().expect("a socket");
        message.connect(&path).expect("a connection");
        for by_message in [true, false] {
            let (stream, _other) = lingering();
            if by_message {
                send(&message, &stream)
            } else {
                send(&theirs, &stream)
            }
            // It is on its way, so this is not the last one.
            drop(stream);
            let began = Instant::now();
            if by_message {
                assert_eq!(notify.receive(&mut [0; 64]).map(|it| it.descriptors.len()), Some(1));
            } else {
                assert_eq!(Reader::new().read(ours.as_fd(), &mut [0; 64]), Ok(8));
            }
            assert!(began.elapsed() < Duration::from_secs(1), "{by_message}: {:?}", began.elapsed());
        }
        // What cuts a connection on purpose still does.
        let (stream, other) = lingering();
        setsockopt(&stream, Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).expect("a linger");
        drop(Foreign::new(stream.into()));
        assert!(other.take_error().is_ok_and(|error| error.is_some()));
    }
}
