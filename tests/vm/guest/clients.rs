//! Many clients of one port in one thread, so that a slow machine can send as many requests as a fast one.

use lifeboat::engine::event::Time;
use lifeboat::sys::clock;
use lifeboat::sys::poll::{Interest, Poller, ReadyBuffer};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::sockopt::SocketError;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, getsockopt, socket};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

/// A request that has no answer after this time never gets one.
const LOST_US: u64 = 60_000_000;

/// What became of the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) sent: u32,
    pub(crate) answered: u32,
    /// connect(2) was refused.
    pub(crate) refused: u32,
    /// The service had taken the connection, and died with it.
    pub(crate) cut: u32,
    /// Nothing within 60 s.
    pub(crate) lost: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    Answered,
    Refused,
    Cut,
    Lost,
}

struct Request {
    stream: TcpStream,
    began: Time,
    written: bool,
    heard: usize,
}

/// The clients of one port.
pub(crate) struct Clients {
    address: SockaddrIn,
    poller: Poller,
    open: BTreeMap<u64, Request>,
    pub(crate) figures: Figures,
}

impl Clients {
    /// As many may wait for their answers as this process may have open files.
    pub(crate) fn of(port: u16) -> Result<Self, String> {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|errno| format!("getrlimit: {errno}"))?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(|errno| format!("setrlimit: {errno}"))?;
        let address = SockaddrIn::from(SocketAddrV4::new([127, 0, 0, 1].into(), port));
        let poller = Poller::new().map_err(|error| error.to_string())?;
        Ok(Self { address, poller, open: BTreeMap::new(), figures: Figures::default() })
    }

    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// Begins one more request.
    pub(crate) fn send(&mut self) -> Result<(), String> {
        let number = u64::from(self.figures.sent);
        self.figures.sent += 1;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)
            .map_err(|errno| format!("client {number}: {errno}"))?;
        match connect(socket.as_raw_fd(), &self.address) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(_) => {
                self.figures.refused += 1;
                return Ok(());
            }
        }
        let stream = TcpStream::from(socket);
        self.poller.add(stream.as_fd(), number, Interest::Write).map_err(|error| error.to_string())?;
        self.open.insert(number, Request { stream, began: clock::now(), written: false, heard: 0 });
        Ok(())
    }

    /// Takes what has come in, and waits for more until then.
    pub(crate) fn hear(&mut self, until: Time) -> Result<(), String> {
        let mut buffer = ReadyBuffer::default();
        self.poller.wait(clock::now(), Some(until), &mut buffer).map_err(|error| error.to_string())?;
        for ready in buffer.iter() {
            let Some(request) = self.open.get_mut(&ready.token) else { continue };
            let outcome = step(request, &self.poller, ready.token);
            self.note(ready.token, outcome);
        }
        Ok(())
    }

    /// Who has waited for too long has lost.
    pub(crate) fn give_up(&mut self) {
        let now = clock::now();
        let late: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, request)| now.since_us(request.began) > LOST_US)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            self.note(number, Outcome::Lost);
        }
    }

    fn note(&mut self, number: u64, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Open => return,
            Outcome::Answered => &mut self.figures.answered,
            Outcome::Refused => &mut self.figures.refused,
            Outcome::Cut => &mut self.figures.cut,
            Outcome::Lost => &mut self.figures.lost,
        };
        *counter += 1;
        self.open.remove(&number);
    }
}

fn step(request: &mut Request, poller: &Poller, number: u64) -> Outcome {
    if !request.written {
        match getsockopt(&request.stream, SocketError) {
            Ok(0) => {}
            // A reset before the connection stood is a refusal, too.
            Ok(_) | Err(_) => return Outcome::Refused,
        }
        request.written = true;
        let written = request.stream.write_all(b"hello\n");
        let watched = poller.modify(request.stream.as_fd(), number, Interest::Read);
        return if written.is_ok() && watched.is_ok() { Outcome::Open } else { Outcome::Cut };
    }
    let mut bytes = [0; 64];
    loop {
        match request.stream.read(&mut bytes) {
            Ok(0) if request.heard > 0 => return Outcome::Answered,
            Ok(0) => return Outcome::Cut,
            Ok(length) => request.heard += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Outcome::Open,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) if request.heard > 0 => return Outcome::Answered,
            Err(_) => return Outcome::Cut,
        }
    }
}
