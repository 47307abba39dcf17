#![expect(unsafe_code, reason = "nix refuses a backlog above its own idea of the kernel's bound")]

//! Sockets and fifos for others: opened here, handed over to services.
//!
//! They block, as programs expect it of what sd_listen_fds(3) gives them: lifeboat itself only waits for them with
//! epoll.

use super::error::SysError;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr, ReusePort};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, SockaddrLike,
    UnixAddr, bind, connect, setsockopt, socket,
};
use nix::sys::stat::{Mode, fchmod, mode_t, umask};
use nix::unistd::{Gid, Uid, fchownat, mkfifo, unlink};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// How an internet socket differs from the ordinary one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inet {
    /// TCP; else UDP.
    pub stream: bool,
    /// `SO_REUSEPORT` of socket(7).
    pub reuse_port: bool,
    /// `IPV6_V6ONLY` of ipv6(7).
    pub v6only: bool,
    /// Connections that wait to be accepted (listen(2)); the kernel takes no more than `net.core.somaxconn`.
    pub backlog: i32,
}

/// A socket at an address and a port.
///
/// # Errors
/// `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES` and others of bind(2).
pub fn inet(address: SocketAddr, how: Inet) -> Result<OwnedFd, SysError> {
    let kind = if how.stream { SockType::Stream } else { SockType::Datagram };
    let (family, place): (_, Box<dyn SockaddrLike>) = match address {
        SocketAddr::V4(address) => (AddressFamily::Inet, Box::new(SockaddrIn::from(address))),
        SocketAddr::V6(address) => (AddressFamily::Inet6, Box::new(SockaddrIn6::from(address))),
    };
    let open = || {
        let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
        if how.stream {
            // Connections of an earlier life may still be on their way out.
            setsockopt(&socket, ReuseAddr, &true)?;
        }
        if how.reuse_port {
            setsockopt(&socket, ReusePort, &true)?;
        }
        if address.is_ipv6() {
            setsockopt(&socket, Ipv6V6Only, &how.v6only)?;
        }
        bind(socket.as_raw_fd(), place.as_ref())?;
        if how.stream {
            listen(&socket, how.backlog)?;
        }
        Ok(socket)
    };
    let word = if how.stream { "tcp" } else { "udp" };
    open().map_err(|errno: Errno| SysError::new("open", format!("{word} {address}"), errno))
}

fn listen(socket: &OwnedFd, backlog: i32) -> Result<(), Errno> {
    // SAFETY: a plain call on a descriptor that is open.
    Errno::result(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)
}

/// Who may use what is made in the file system. What is `None` is lifeboat's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The permissions.
    pub mode: u32,
    /// The user.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

impl Owner {
    fn mode(self) -> Mode {
        Mode::from_bits_truncate(mode_t::try_from(self.mode).unwrap_or(0))
    }

    /// Never through a symbolic link: the folder may be another's.
    fn take(self, path: &Path) -> Result<(), Errno> {
        let (uid, gid) = (self.uid.map(Uid::from_raw), self.gid.map(Gid::from_raw));
        if uid.is_none() && gid.is_none() {
            return Ok(());
        }
        fchownat(AT_FDCWD, path, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
    }
}

/// Which kind of Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unix {
    /// A byte stream.
    Stream,
    /// Datagrams.
    Datagram,
    /// Datagrams over connections.
    Seqpacket,
}

/// A Unix socket at a path. One that a dead program left behind is replaced; one on which somebody listens is not.
///
/// # Errors
/// `EADDRINUSE` where somebody listens there, `EEXIST` where there is something else, `ENOENT` without its folder.
pub fn unix(path: &Path, kind: Unix, owner: Owner, backlog: i32) -> Result<OwnedFd, SysError> {
    let open = || {
        make_room(path, kind)?;
        let address = UnixAddr::new(path)?;
        let socket = unix_socket(kind)?;
        // bind(2) takes its permissions from the umask; nothing else of lifeboat runs meanwhile.
        let before = umask(Mode::from_bits_truncate(0o777).difference(owner.mode()));
        let bound = bind(socket.as_raw_fd(), &address);
        umask(before);
        bound?;
        // Nobody can connect before it listens.
        owner.take(path)?;
        if kind != Unix::Datagram {
            listen(&socket, backlog)?;
        }
        Ok(socket)
    };
    open().map_err(|errno: Errno| SysError::new("open", format!("the socket {}", path.display()), errno))
}

/// A Unix socket in the abstract namespace, which has no file and no permissions.
///
/// # Errors
/// `EADDRINUSE`.
pub fn unix_abstract(name: &[u8], kind: Unix, backlog: i32) -> Result<OwnedFd, SysError> {
    let open = || {
        let socket = unix_socket(kind)?;
        bind(socket.as_raw_fd(), &UnixAddr::new_abstract(name)?)?;
        if kind != Unix::Datagram {
            listen(&socket, backlog)?;
        }
        Ok(socket)
    };
    let shown = String::from_utf8_lossy(name);
    open().map_err(|errno: Errno| SysError::new("open", format!("the socket @{shown}"), errno))
}

fn unix_socket(kind: Unix) -> Result<OwnedFd, Errno> {
    let kind = match kind {
        Unix::Stream => SockType::Stream,
        Unix::Datagram => SockType::Datagram,
        Unix::Seqpacket => SockType::SeqPacket,
    };
    socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)
}

/// Removes a socket that nobody listens on; only trying to connect tells.
fn make_room(path: &Path, kind: Unix) -> Result<(), Errno> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(Errno::EEXIST);
    }
    let probe = socket(
        AddressFamily::Unix,
        match kind {
            Unix::Stream => SockType::Stream,
            Unix::Datagram => SockType::Datagram,
            Unix::Seqpacket => SockType::SeqPacket,
        },
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED) => unlink(path),
        // Another kind of socket, or one whose queue is full, has somebody behind it too.
        Ok(()) | Err(Errno::EPROTOTYPE | Errno::EAGAIN) => Err(Errno::EADDRINUSE),
        Err(errno) => Err(errno),
    }
}

/// A fifo at a path, open for both directions, so that it has no end when its last writer goes. One that is there is
/// used.
///
/// # Errors
/// `EEXIST` where there is something else, `ENOENT` without its folder.
pub fn fifo(path: &Path, owner: Owner) -> Result<OwnedFd, SysError> {
    let open = || {
        match mkfifo(path, Mode::from_bits_truncate(0o600)) {
            Ok(()) => {}
            Err(Errno::EEXIST) if is_fifo(path) => {}
            Err(errno) => return Err(errno),
        }
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fifo = open(path, flags, Mode::empty())?;
        fchmod(&fifo, owner.mode())?;
        owner.take(path)?;
        Ok(fifo)
    };
    open().map_err(|errno: Errno| SysError::new("open", format!("the fifo {}", path.display()), errno))
}

fn is_fifo(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

/// Messages of the kernel (netlink(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Netlink {
    /// Addresses, routes and links.
    Route,
    /// Audit records.
    Audit,
    /// Devices that come and go.
    KobjectUevent,
}

/// A netlink socket that takes part in these groups (a bit for each).
///
/// # Errors
/// `EPROTONOSUPPORT`, `EPERM`.
pub fn netlink(family: Netlink, groups: u32) -> Result<OwnedFd, SysError> {
    let protocol = match family {
        Netlink::Route => SockProtocol::NetlinkRoute,
        Netlink::Audit => SockProtocol::NetlinkAudit,
        Netlink::KobjectUevent => SockProtocol::NetlinkKObjectUEvent,
    };
    let open = || {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(socket)
    };
    open().map_err(|errno: Errno| SysError::new("open", format!("the netlink socket {family:?}"), errno))
}

/// Whether its other end is gone, or it has failed.
#[must_use]
pub fn has_hung_up(fd: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    poll(&mut [PollFd::new(fd, PollFlags::empty())], PollTimeout::ZERO) != Ok(0)
}

/// Whether two descriptors stand for the same open file (kcmp(2)); no where the kernel cannot tell.
#[must_use]
pub fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    /// include/uapi/linux/kcmp.h.
    const KCMP_FILE: libc::c_int = 0;
    let pid = std::process::id();
    // SAFETY: a plain call on numbers; it changes nothing.
    unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, KCMP_FILE, one.as_raw_fd(), other.as_raw_fd()) == 0 }
}

/// Whether something waits in it: a connection, a datagram, bytes.
#[must_use]
pub fn has_something(fd: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) != Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    const OWNER: Owner = Owner { mode: 0o640, uid: None, gid: None };

    fn errno_of(found: Result<OwnedFd, SysError>) -> Option<i32> {
        found.err().map(|error| error.errno())
    }

    /// A port that is free now.
    fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port")
    }

    #[test]
    fn what_is_opened_can_be_reached_and_is_not_there_twice() {
        let how = Inet { stream: true, backlog: 4_096, ..Inet::default() };
        let address = free();
        let listener = inet(address, how).expect("a socket");
        let mut client = TcpStream::connect(address).expect("a connection");
        client.write_all(b"x").expect("room");
        assert!(has_something(listener.as_fd()));
        assert_eq!(errno_of(inet(address, how)), Some(libc::EADDRINUSE));
        let shared = Inet { reuse_port: true, ..how };
        let address = free();
        let both = [inet(address, shared), inet(address, shared)];
        assert!(both.iter().all(Result::is_ok), "{both:?}");
        let address = free();
        let socket = inet(address, Inet::default()).expect("a udp socket");
        assert!(!has_something(socket.as_fd()));
        UdpSocket::bind("127.0.0.1:0").and_then(|it| it.send_to(b"x", address)).expect("a datagram");
        assert!(has_something(socket.as_fd()));
        let nowhere = "192.0.2.1:80".parse().expect("an address");
        assert_eq!(errno_of(inet(nowhere, how)), Some(libc::EADDRNOTAVAIL));
    }

    #[test]
    fn a_path_is_taken_only_from_the_dead() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        for kind in [Unix::Stream, Unix::Datagram, Unix::Seqpacket] {
            let open = || unix(&path, kind, OWNER, 8);
            let first = open().expect("a socket");
            let found = std::fs::metadata(&path).expect("its file");
            assert_eq!(found.permissions().mode() & 0o777, 0o640);
            assert_eq!(errno_of(open()), Some(libc::EADDRINUSE), "{kind:?}");
            // Another kind of socket lives, too.
            let other = if kind == Unix::Datagram { Unix::Stream } else { Unix::Datagram };
            assert_eq!(errno_of(unix(&path, other, OWNER, 8)), Some(libc::EADDRINUSE), "{kind:?}");
            assert_eq!(std::fs::metadata(&path).expect("its file").ino(), found.ino());
            drop(first);
            drop(open().expect("a socket in the place of a dead one"));
            std::fs::remove_file(&path).expect("its file");
        }
        std::fs::write(&path, "mine").expect("a file");
        assert_eq!(errno_of(unix(&path, Unix::Stream, OWNER, 8)), Some(libc::EEXIST));
        assert_eq!(errno_of(fifo(&path, OWNER)), Some(libc::EEXIST));
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "mine");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert_eq!(errno_of(unix(&link, Unix::Stream, OWNER, 8)), Some(libc::EEXIST));
        assert_eq!(errno_of(fifo(&link, OWNER)), Some(libc::EEXIST));
        let nowhere = folder.path().join("nowhere/x");
        assert_eq!(errno_of(unix(&nowhere, Unix::Stream, OWNER, 8)), Some(libc::ENOENT));
        assert_eq!(errno_of(fifo(&nowhere, OWNER)), Some(libc::ENOENT));
        let below_a_file = path.join("x");
        assert_eq!(errno_of(unix(&below_a_file, Unix::Stream, OWNER, 8)), Some(libc::ENOTDIR));
    }

    #[test]
    fn a_fifo_outlives_its_writers() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lines");
        let ours = fifo(&path, OWNER).expect("a fifo");
        assert_eq!(std::fs::metadata(&path).expect("it").permissions().mode() & 0o777, 0o640);
        for _ in 0..2 {
            std::fs::write(&path, "a line").expect("room");
            assert!(has_something(ours.as_fd()));
            let mut bytes = [0; 6];
            std::fs::File::from(ours.try_clone().expect("a copy")).read_exact(&mut bytes).expect("bytes");
            assert!(!has_something(ours.as_fd()) && !has_hung_up(ours.as_fd()));
        }
        drop(fifo(&path, OWNER).expect("the one that is there"));
    }

    #[test]
    fn the_abstract_namespace_has_no_files() {
        let name = format!("lifeboat-test-{}", std::process::id());
        let ours = unix_abstract(name.as_bytes(), Unix::Datagram, 0).expect("a socket");
        assert_eq!(errno_of(unix_abstract(name.as_bytes(), Unix::Datagram, 0)), Some(libc::EADDRINUSE));
        let client = UnixDatagram::unbound().expect("a socket");
        connect(client.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes()).expect("a name"))
            .expect("a way");
        client.send(b"x").expect("room");
        assert!(has_something(ours.as_fd()));
    }

    #[test]
    fn the_same_open_file_is_known_again_and_a_gone_end_is_seen() {
        let (one, other) = UnixStream::pair().expect("a pair");
        let copy = one.try_clone().expect("a copy");
        // Where the kernel has no kcmp(2) nothing is the same.
        let known = is_same(one.as_fd(), one.as_fd());
        assert_eq!(is_same(one.as_fd(), copy.as_fd()), known);
        assert!(!is_same(one.as_fd(), other.as_fd()));
        assert!(!has_hung_up(one.as_fd()));
        drop(other);
        assert!(has_hung_up(one.as_fd()));
    }
}
