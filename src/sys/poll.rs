//! Readiness: one epoll(7) instance, level-triggered.

use super::error::SysError;
use crate::engine::event::Time;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::BorrowedFd;

/// What to wait for on a file descriptor. Errors and hang-ups are always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Data to read, or the end of it.
    Read,
    /// Room to write.
    Write,
    /// Both.
    ReadWrite,
    /// `EPOLLPRI`: a cgroup file has changed, or a PSI trigger fired.
    Priority,
    /// Only errors and hang-ups.
    Nothing,
}

impl Interest {
    fn flags(self) -> EpollFlags {
        match self {
            Self::Read => EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP,
            Self::Write => EpollFlags::EPOLLOUT,
            Self::ReadWrite => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP,
            Self::Priority => EpollFlags::EPOLLPRI,
            Self::Nothing => EpollFlags::empty(),
        }
    }
}

/// One file descriptor that is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// The token it was added with.
    pub token: u64,
    /// Data to read, or the end of it.
    pub readable: bool,
    /// Room to write.
    pub writable: bool,
    /// `EPOLLPRI`.
    pub priority: bool,
    /// `EPOLLERR`. Changed cgroup files set it together with `priority`; alone it means that the file is gone.
    pub error: bool,
    /// The other side is gone: it neither sends nor receives (`EPOLLHUP`). No interest can silence it.
    pub hangup: bool,
}

impl From<EpollEvent> for Ready {
    fn from(event: EpollEvent) -> Self {
        let has = |flags| event.events().intersects(flags);
        Self {
            token: event.data(),
            readable: has(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLRDHUP),
            writable: has(EpollFlags::EPOLLOUT),
            priority: has(EpollFlags::EPOLLPRI),
            error: has(EpollFlags::EPOLLERR),
            hangup: has(EpollFlags::EPOLLHUP),
        }
    }
}

/// How many ready descriptors one turn takes. The rest comes with the next turn: readiness is level-triggered.
const READY_MAX: usize = 64;

/// The fixed memory that [`Poller::wait`] fills.
#[derive(Debug)]
pub struct ReadyBuffer {
    events: [EpollEvent; READY_MAX],
    length: usize,
}

impl Default for ReadyBuffer {
    fn default() -> Self {
        Self { events: [EpollEvent::empty(); READY_MAX], length: 0 }
    }
}

impl ReadyBuffer {
    /// How many ready descriptors one wait can find.
    pub const CAPACITY: usize = READY_MAX;

    /// Nothing is ready.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// What the last wait found.
    pub fn iter(&self) -> impl Iterator<Item = Ready> + '_ {
        self.events.iter().take(self.length).map(|event| Ready::from(*event))
    }
}

/// An epoll(7) instance.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
}

impl Poller {
    /// Makes the instance (epoll_create1(2)).
    pub fn new() -> Result<Self, SysError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| SysError::new("create", "the epoll instance", errno))?;
        Ok(Self { epoll })
    }

    /// Watches a file descriptor; `token` comes back with its readiness.
    ///
    /// Regular files cannot be watched (`EPERM`). A descriptor that is closed is no longer watched, unless a
    /// duplicate of it is open somewhere.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), SysError> {
        self.epoll
            .add(fd, EpollEvent::new(interest.flags(), token))
            .map_err(|errno| SysError::new("watch", format!("{fd:?}"), errno))
    }

    /// Changes the token and the interest of a descriptor that is watched.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<(), SysError> {
        self.epoll
            .modify(fd, &mut EpollEvent::new(interest.flags(), token))
            .map_err(|errno| SysError::new("change the watch on", format!("{fd:?}"), errno))
    }

    /// Ends the watch on a descriptor.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> Result<(), SysError> {
        self.epoll.delete(fd).map_err(|errno| SysError::new("end the watch on", format!("{fd:?}"), errno))
    }

    /// Waits for readiness, or until `until` where one is given; the result is in `buffer`.
    ///
    /// `now` is the caller's reading of the clock. A signal ends the wait with nothing found. The deadline is rounded
    /// up to the millisecond, so that a wait for it is never over too early. Allocates nothing where it succeeds.
    pub fn wait(&self, now: Time, until: Option<Time>, buffer: &mut ReadyBuffer) -> Result<(), SysError> {
        buffer.clear();
        match self.epoll.wait(&mut buffer.events, timeout(now, until)) {
            Ok(length) => buffer.length = length,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::new("wait on", "the epoll instance", errno)),
        }
        Ok(())
    }
}

fn timeout(now: Time, until: Option<Time>) -> EpollTimeout {
    let Some(until) = until else { return EpollTimeout::NONE };
    let ms = until.since_us(now).div_ceil(1_000);
    EpollTimeout::try_from(i32::try_from(ms).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn timeouts_are_rounded_up() {
        let check = |now, until: Option<u64>, expected: i32| {
            assert_eq!(i32::from(timeout(Time(now), until.map(Time))), expected, "{now} to {until:?}");
        };
        check(5, None, -1);
        check(5_000, Some(5_000), 0);
        check(5_000, Some(4_000), 0);
        check(5_000, Some(5_001), 1);
        check(5_000, Some(6_000), 1);
        check(5_000, Some(6_001), 2);
        check(0, Some(u64::MAX), i32::MAX);
    }

    #[test]
    fn tells_who_is_ready_and_stops_on_request() {
        let (read, write) = nix::unistd::pipe().expect("a pipe");
        let poller = Poller::new().expect("an epoll instance");
        let mut buffer = ReadyBuffer::default();
        let mut look = || {
            poller.wait(Time(0), Some(Time(0)), &mut buffer).expect("a wait");
            buffer.iter().collect::<Vec<_>>()
        };
        poller.add(read.as_fd(), 7, Interest::Read).expect("a watch");
        assert_eq!(look(), []);
        nix::unistd::write(&write, b"x").expect("a write");
        assert_eq!(look(), [Ready { token: 7, readable: true, ..Ready::default() }]);
        poller.modify(read.as_fd(), 8, Interest::Nothing).expect("a change");
        assert_eq!(look(), []);
        drop(write);
        assert_eq!(look(), [Ready { token: 8, readable: true, hangup: true, ..Ready::default() }]);
        poller.remove(read.as_fd()).expect("the watch");
        assert_eq!(look(), []);
        assert_eq!(poller.remove(read.as_fd()).map_err(|error| error.errno()), Err(libc::ENOENT));
    }
}
