#![expect(unsafe_code, reason = "descriptors that come with a message are plain numbers in nix")]

//! The socket of sd_notify(3): datagrams whose sender the kernel names.

use super::error::SysError;
use super::handed::{DESCRIPTORS_MAX, Foreign};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt::PassCred,
};
use std::io::{ErrorKind, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// A bound socket for the messages of all services.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    /// What comes beside the bytes; sized once.
    control: Vec<u8>,
}

/// One message.
#[derive(Debug)]
pub struct Datagram {
    /// So many bytes of the buffer hold it.
    pub length: usize,
    /// It was longer than the buffer.
    pub cut: bool,
    /// The sender, by the kernel's word (`SCM_CREDENTIALS` of unix(7)); `None` for one outside of our pid namespace. A
    /// process with `CAP_SYS_ADMIN` may give another's.
    pub pid: Option<u32>,
    /// Descriptors that came along. The sender of a barrier waits until they are closed.
    pub descriptors: Vec<Foreign>,
}

impl NotifySocket {
    /// Binds the socket for everybody to write to; one left behind by an earlier life is replaced.
    ///
    /// # Errors
    /// With the path and the cause.
    pub fn open(path: &Path) -> Result<Self, SysError> {
        let failed = |op, cause: std::io::Error| SysError::new(op, path.display().to_string(), cause);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|cause| failed("make the folder of", cause))?;
        }
        match std::fs::remove_file(path) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(failed("replace", cause)),
            Ok(()) | Err(_) => {}
        }
        let socket = UnixDatagram::bind(path).map_err(|cause| failed("listen on", cause))?;
        socket.set_nonblocking(true).map_err(|cause| failed("prepare", cause))?;
        setsockopt(&socket, PassCred, &true)
            .map_err(|errno| SysError::new("have senders named on", path.display().to_string(), errno))?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o666))
            .map_err(|cause| failed("open to everybody", cause))?;
        // Room for all that can come: of a list that was cut we would not learn what to close.
        Ok(Self { socket, control: cmsg_space!(UnixCredentials, [i32; DESCRIPTORS_MAX]) })
    }

    /// For the epoll set.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes the next message; `None` when there is none. Never blocks.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Option<Datagram> {
        let mut parts = [IoSliceMut::new(buffer)];
        let received = loop {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut self.control), flags) {
                Err(Errno::EINTR) => {}
                other => break other.ok()?,
            }
        };
        let mut datagram = Datagram {
            length: received.bytes,
            cut: received.flags.contains(MsgFlags::MSG_TRUNC),
            pid: None,
            descriptors: Vec::new(),
        };
        for message in received.cmsgs().ok()? {
            match message {
                ControlMessageOwned::ScmCredentials(sender) => {
                    datagram.pid = u32::try_from(sender.pid()).ok().filter(|pid| *pid > 0);
                }
                ControlMessageOwned::ScmRights(numbers) => {
                    // SAFETY: the kernel has just put these descriptors into our table for this message, and nothing
                    // else knows their numbers.
                    let owned = numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) });
                    datagram.descriptors.extend(owned.map(Foreign::new));
                }
                _ => {}
            }
        }
        Some(datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, sendmsg};
    use std::io::{IoSlice, Read};

    /// A socket in a folder of its own, and one that is connected to it.
    fn pair() -> (tempfile::TempDir, NotifySocket, UnixDatagram) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let ours = NotifySocket::open(&path).expect("a socket");
        let theirs = UnixDatagram::unbound().expect("a socket");
        theirs.connect(&path).expect("a connection");
        (folder, ours, theirs)
    }

    #[test]
    fn names_the_sender_and_tells_what_was_cut() {
        let (_folder, mut ours, theirs) = pair();
        let mut buffer = [0; 8];
        assert!(ours.receive(&mut buffer).is_none());
        theirs.send(b"READY=1").expect("room");
        theirs.send(b"READY=1\nSTATUS=x").expect("room");
        theirs.send(b"").expect("room");
        let mut next = || ours.receive(&mut buffer).map(|it| (it.length, it.cut, it.pid));
        let own = Some(std::process::id());
        assert_eq!(next(), Some((7, false, own)));
        assert_eq!(next(), Some((8, true, own)));
        assert_eq!(next(), Some((0, false, own)));
        assert_eq!(next(), None);
    }

    #[test]
    fn descriptors_come_as_our_own_and_are_closed() {
        let (_folder, mut ours, theirs) = pair();
        let (mut end, write) = std::io::pipe().expect("a pipe");
        let numbers = [write.as_raw_fd(); DESCRIPTORS_MAX];
        let rights = [ControlMessage::ScmRights(&numbers)];
        let text = [IoSlice::new(b"BARRIER=1")];
        sendmsg::<()>(theirs.as_raw_fd(), &text, &rights, MsgFlags::empty(), None).expect("a message");
        drop(write);
        let datagram = ours.receive(&mut [0; 64]).expect("a message");
        assert_eq!(datagram.pid, Some(std::process::id()));
        assert_eq!(datagram.descriptors.len(), DESCRIPTORS_MAX);
        drop(datagram);
        // The end comes only when no descriptor of the other end is open anywhere.
        assert_eq!(end.read(&mut [0; 1]).expect("the end"), 0);
    }
}
