//! Connections without waiting: TCP and Unix streams that are only tried, and a datagram socket for words.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, UnixAddr, getsockopt,
    socket, sockopt::SocketError,
};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A connection that was begun.
#[derive(Debug)]
pub enum Connecting {
    /// It was made at once, and is closed again.
    Done,
    /// The socket is writable once it is made or refused: see [`outcome`].
    Open(OwnedFd),
}

/// Begins a TCP connection (connect(2), nonblocking).
///
/// # Errors
/// errno(3): `ECONNREFUSED` where nobody listens, `ENETUNREACH` where there is no way.
pub fn connect_tcp(address: SocketAddr) -> Result<Connecting, i32> {
    match address {
        SocketAddr::V4(address) => begin(AddressFamily::Inet, &SockaddrIn::from(address)),
        SocketAddr::V6(address) => begin(AddressFamily::Inet6, &SockaddrIn6::from(address)),
    }
}

/// Begins a connection to a Unix stream socket.
///
/// # Errors
/// errno(3): `ECONNREFUSED` where nobody listens, `EAGAIN` where too many wait to be taken, `ENOENT` where there is no
/// such file.
pub fn connect_unix(path: &Path) -> Result<Connecting, i32> {
    begin(AddressFamily::Unix, &UnixAddr::new(path).map_err(|errno| errno as i32)?)
}

/// A Unix datagram socket whose words go to the one at this path.
///
/// # Errors
/// errno(3): `ECONNREFUSED` where nobody listens any more, `ENOENT` where there is no such file, `EPROTOTYPE` for a
/// socket of another type.
pub fn connect_datagram(path: &Path) -> Result<OwnedFd, i32> {
    let address = UnixAddr::new(path).map_err(|errno| errno as i32)?;
    let socket =
        socket(AddressFamily::Unix, SockType::Datagram, flags(), None).map_err(|errno| errno as i32)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &address).map_err(|errno| errno as i32)?;
    Ok(socket)
}

/// One message over it; never waits and never raises `SIGPIPE`.
///
/// # Errors
/// errno(3): `EAGAIN` where the reader's queue is full (`net.unix.max_dgram_qlen`), `ECONNREFUSED` where it is gone.
pub fn send_datagram(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), i32> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    nix::sys::socket::send(socket.as_raw_fd(), bytes, flags).map(drop).map_err(|errno| errno as i32)
}

fn flags() -> SockFlag {
    SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK
}

fn begin(family: AddressFamily, address: &dyn SockaddrLike) -> Result<Connecting, i32> {
    let socket = socket(family, SockType::Stream, flags(), None).map_err(|errno| errno as i32)?;
    match nix::sys::socket::connect(socket.as_raw_fd(), address) {
        Ok(()) => Ok(Connecting::Done),
        Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(Connecting::Open(socket)),
        Err(errno) => Err(errno as i32),
    }
}

/// What became of a connection whose socket is writable (`SO_ERROR` of socket(7)).
#[must_use]
pub fn outcome(socket: BorrowedFd<'_>) -> bool {
    getsockopt(&socket, SocketError) == Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::Time;
    use crate::sys::poll::{Interest, Poller, ReadyBuffer};
    use nix::sys::socket::{
        AddressFamily, Shutdown, SockFlag, SockType, SockaddrIn, bind, getsockname, shutdown, socket,
    };
    use std::net::TcpListener;
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::net::UnixListener;

    fn check(connecting: Result<Connecting, i32>, expected: Result<bool, i32>) {
        let found = connecting.map(|connecting| match connecting {
            Connecting::Done => true,
            Connecting::Open(socket) => {
                let poller = Poller::new().expect("epoll");
                poller.add(socket.as_fd(), 1, Interest::Write).expect("a watch");
                let mut buffer = ReadyBuffer::default();
                poller.wait(Time(0), Some(Time(20_000_000)), &mut buffer).expect("a wait");
                assert_eq!(buffer.iter().count(), 1, "nothing within 20 s");
                outcome(socket.as_fd())
            }
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn who_listens_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        check(connect_tcp(address), Ok(true));
        // Bound, and never listening: nobody else gets that port meanwhile, and no connection finds itself there.
        let deaf =
            socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
        bind(deaf.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a port");
        let port = getsockname::<SockaddrIn>(deaf.as_raw_fd()).expect("its address").port();
        check(connect_tcp(([127, 0, 0, 1], port).into()), Ok(false));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        check(connect_unix(&path), Err(libc::ENOENT));
        let listener = UnixListener::bind(&path).expect("a socket");
        check(connect_unix(&path), Ok(true));
        // A child of another test may have a copy for a moment, so dropping it is not enough.
        shutdown(listener.as_raw_fd(), Shutdown::Both).expect("a shutdown");
        check(connect_unix(&path), Err(libc::ECONNREFUSED));
        check(connect_unix(Path::new(&"/x".repeat(200))), Err(libc::ENAMETOOLONG));
    }
}
