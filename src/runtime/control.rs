//! The control socket: connections, their bounds, and their bytes. What the calls mean is in `wire` and `event_loop`.
//!
//! # Invariants
//! - At most `CLIENTS_MAX` connections; a new one beyond that replaces the one that has been idle longest.
//! - A connection has one answer on its way at most: what it asks further is looked at when that one is taken. So what
//!   a client can make us hold is 64 KiB in and one answer out.
//! - A connection that has a turn to come is watched for something that will make it ready; one that has not is
//!   watched for nothing that could make it ready again and again. A hang-up cannot be unwatched, so that it always
//!   leads to the connection's end.
//! - No call here blocks.

use super::boot::StartError;
use super::seat::Source;
use super::story;
use crate::engine::action::{LimitAnswer, Reply};
use crate::engine::event::{ClientId, Time};
use crate::engine::policy::UnitId;
use crate::sys::clock;
use crate::sys::error::SysError;
use crate::sys::handed::Reader;
use crate::sys::poll::{Interest, Poller};
use crate::wire::codec::{self, Inbox, REQUEST_BYTES_MAX};
use crate::wire::reply::{ErrorReply, TailReply, encode_outcome};
use crate::wire::request::{Call, Refusal, parse};
use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect, getsockopt, shutdown, socket,
};
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// People and scripts at the same time. Each may hold a snapshot that it has not taken yet.
const CLIENTS_MAX: usize = 32;

/// Read from one connection in one turn: one noisy client cannot keep the loop.
const READ_BYTES_MAX: usize = 16 * 1024;

/// After accept(2) has failed for want of descriptors or memory, this long nothing is accepted.
const PAUSE_MS: u64 = 1_000;

/// The longest path that fits an address with its NUL (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// Nothing: its next call may be read.
    No,
    /// The engine's answer.
    Outcome,
    /// Snapshots from after this generation on.
    Watch { seen: u64 },
    /// What a unit says from this position on.
    Tail { unit: UnitId, seen: u64 },
}

impl Waiting {
    /// For as long as the connection lasts.
    fn is_for_ever(self) -> bool {
        matches!(self, Self::Watch { .. } | Self::Tail { .. })
    }
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    stream: UnixStream,
    inbox: Inbox,
    out: Vec<u8>,
    written: usize,
    waiting: Waiting,
    may_change: bool,
    active: Time,
    /// The other side sends no more; it still gets its answers.
    ended: bool,
    /// The other side is gone altogether: nobody hears an answer any more.
    left: bool,
    broken: bool,
    interest: Interest,
}

/// The control socket.
#[derive(Debug)]
pub(super) struct Control {
    listener: Option<UnixListener>,
    /// Where the listener is, and which file there is its own: its device and inode.
    socket: Option<(PathBuf, (u64, u64))>,
    clients: Vec<Client>,
    reader: Reader,
    next_id: u64,
    own_uid: u32,
    /// Clients pushed out by new ones, to be told to the engine.
    gone: Vec<ClientId>,
    /// Nothing is accepted until then.
    paused: Option<Time>,
    /// The failure of accept(2) has been told, and none has succeeded since.
    complained: bool,
}

impl Control {
    /// A control room without a socket: nobody can ask anything.
    pub(super) fn closed() -> Self {
        Self {
            listener: None,
            socket: None,
            clients: Vec::with_capacity(CLIENTS_MAX),
            reader: Reader::new(),
            next_id: 1,
            own_uid: nix::unistd::Uid::effective().as_raw(),
            gone: Vec::with_capacity(CLIENTS_MAX),
            paused: None,
            complained: false,
        }
    }

    /// Binds the socket; one left behind by an earlier life is replaced, one that somebody listens on is not. Everybody
    /// may connect: who may change anything is decided by the peer's user (unix(7), `SO_PEERCRED`).
    pub(super) fn open(path: &Path, poller: &Poller) -> Result<Self, StartError> {
        let failed = |op, cause: std::io::Error| {
            StartError::Socket(SysError::new(op, path.display().to_string(), cause))
        };
        if path.as_os_str().len() > PATH_BYTES_MAX {
            return Err(failed("listen on", std::io::Error::from_raw_os_error(libc::ENAMETOOLONG)));
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|cause| failed("make the folder of", cause))?;
        }
        clear_place(path)?;
        let listener = UnixListener::bind(path).map_err(|cause| failed("listen on", cause))?;
        listener.set_nonblocking(true).map_err(|cause| failed("prepare", cause))?;
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(path, everybody).map_err(|cause| failed("open to everybody", cause))?;
        let socket = identity(path).map(|own| (path.to_path_buf(), own));
        poller.add(listener.as_fd(), Source::Listener.token(), Interest::Read)?;
        Ok(Self { listener: Some(listener), socket, ..Self::closed() })
    }

    /// Removes the socket's file, unless another one has taken its place.
    pub(super) fn remove_socket(&self) {
        if let Some((path, own)) = &self.socket
            && identity(path) == Some(*own)
        {
            // At the end there is nothing left to do about a failure.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Takes the connections that wait, a bounded number in one turn.
    pub(super) fn accept(&mut self, poller: &Poller) {
        for _ in 0..CLIENTS_MAX {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, _)) => {
                    self.complained = false;
                    self.admit(stream, poller);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    self.pause(error, poller);
                    return;
                }
            }
        }
    }

    /// No descriptor or no memory: the connection stays in the queue, and the listener stays ready.
    fn pause(&mut self, cause: std::io::Error, poller: &Poller) {
        let Some(listener) = &self.listener else { return };
        if !self.complained {
            self.complained = true;
            story::complain(&SysError::new("accept", "a connection to the control socket", cause));
        }
        // Where even this fails the loop is busy, and still does its work.
        let _ = poller.modify(listener.as_fd(), Source::Listener.token(), Interest::Nothing);
        self.paused = Some(clock::now().plus_ms(PAUSE_MS));
    }

    /// When to call `look_again`.
    pub(super) fn paused_until(&self) -> Option<Time> {
        self.paused
    }

    /// Ends a pause that is over.
    pub(super) fn look_again(&mut self, poller: &Poller) {
        if self.paused.is_some_and(|until| until <= clock::now())
            && let Some(listener) = &self.listener
            && poller.modify(listener.as_fd(), Source::Listener.token(), Interest::Read).is_ok()
        {
            self.paused = None;
        }
    }

    fn admit(&mut self, stream: UnixStream, poller: &Poller) {
        let uid = getsockopt(&stream, PeerCredentials).map(|peer| peer.uid());
        let may_change = uid.is_ok_and(|uid| uid == 0 || uid == self.own_uid);
        let id = ClientId(self.next_id);
        self.next_id += 1;
        let ready = stream.set_nonblocking(true).is_ok()
            && self.make_room(may_change)
            && poller.add(stream.as_fd(), Source::Client(id.0).token(), Interest::Read).is_ok();
        if ready {
            self.clients.push(Client {
                id,
                stream,
                inbox: Inbox::new(REQUEST_BYTES_MAX),
                out: Vec::new(),
                written: 0,
                waiting: Waiting::No,
                may_change,
                active: clock::now(),
                ended: false,
                left: false,
                broken: false,
                interest: Interest::Read,
            });
        }
    }

    /// False where everybody who is there goes before the new one.
    fn make_room(&mut self, may_change: bool) -> bool {
        if self.clients.len() < CLIENTS_MAX {
            return true;
        }
        // A user who may only look cannot push out one who may change. Of the others, those who wait for an answer or
        // watch are kept as long as there is somebody who does neither.
        let rank = |client: &Client| (client.may_change, client.waiting != Waiting::No, client.active);
        let last = (0..self.clients.len()).min_by_key(|&at| self.clients.get(at).map(rank));
        let last =
            last.filter(|&at| may_change || self.clients.get(at).is_some_and(|client| !client.may_change));
        let Some(at) = last else { return false };
        let client = self.clients.swap_remove(at);
        self.gone.push(client.id);
        true
    }

    /// The clients that were pushed out since the last call.
    pub(super) fn take_gone(&mut self) -> Option<ClientId> {
        self.gone.pop()
    }

    fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.id == id)
    }

    pub(super) fn may_change(&mut self, id: ClientId) -> bool {
        self.client(id).is_some_and(|client| client.may_change)
    }

    /// The other side has hung up. What it has sent is still done, up to the first call that it would have to wait for.
    pub(super) fn hung_up(&mut self, id: ClientId) {
        if let Some(client) = self.client(id) {
            client.left = true;
            client.broken |= client.waiting != Waiting::No;
        }
    }

    /// Reads what has come, as far as there is room for it.
    pub(super) fn read(&mut self, id: ClientId) {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else { return };
        client.active = clock::now();
        let mut bytes = [0_u8; 4096];
        let mut total = 0;
        while total < READ_BYTES_MAX {
            let room = client.inbox.room().min(bytes.len());
            if room == 0 {
                // Calls have their turn first. A watcher's calls never have one.
                client.broken |= client.waiting.is_for_ever();
                return;
            }
            match self.reader.read(client.stream.as_fd(), bytes.get_mut(..room).unwrap_or_default()) {
                Ok(0) => {
                    client.ended = true;
                    return;
                }
                Ok(length) => {
                    total += length;
                    let _ = client.inbox.feed(bytes.get(..length).unwrap_or_default());
                }
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                Err(_) => {
                    client.broken = true;
                    return;
                }
            }
        }
    }

    /// The next call, unless the client's last answer is still on its way. What is not a call ends the connection.
    pub(super) fn next_call(&mut self, id: ClientId) -> Option<Call> {
        loop {
            let client = self.client(id)?;
            if client.waiting != Waiting::No || !client.out.is_empty() || client.broken {
                return None;
            }
            let message = match client.inbox.next_message() {
                Ok(Some(message)) => message,
                Ok(None) => return None,
                Err(_) => {
                    client.broken = true;
                    return None;
                }
            };
            match parse(message) {
                Ok(call) => return Some(call),
                Err(Refusal::NotACall) => client.broken = true,
                Err(Refusal::Answer(error)) => self.refuse(id, &error),
                Err(Refusal::Silent) => {}
            }
        }
    }

    pub(super) fn reply(&mut self, id: ClientId, parameters: &impl Serialize) {
        if let Some(client) = self.client(id) {
            client.broken |= codec::encode_reply(&mut client.out, parameters, false).is_err();
        }
    }

    pub(super) fn refuse(&mut self, id: ClientId, error: &ErrorReply) {
        if let Some(client) = self.client(id) {
            client.broken |= codec::encode_error(&mut client.out, error).is_err();
        }
    }

    pub(super) fn expect_outcome(&mut self, id: ClientId) {
        if let Some(client) = self.client(id) {
            client.waiting = Waiting::Outcome;
        }
    }

    /// Its outcome is about to come: further calls may be read after that.
    pub(super) fn release(&mut self, id: ClientId) {
        if let Some(client) = self.client(id).filter(|client| client.waiting == Waiting::Outcome) {
            client.waiting = Waiting::No;
        }
    }

    /// One who follows what a unit says that is gone: its connection ends.
    pub(super) fn take_follower(&mut self, unit: UnitId) -> Option<ClientId> {
        let follows =
            |client: &Client| matches!(client.waiting, Waiting::Tail { unit: other, .. } if other == unit);
        let at = self.clients.iter().position(follows)?;
        Some(self.clients.swap_remove(at).id)
    }

    pub(super) fn outcome(&mut self, id: ClientId, reply: Reply) {
        let Some(client) = self.client(id) else { return };
        client.waiting = Waiting::No;
        client.broken |= encode_outcome(&mut client.out, reply).is_err();
    }

    pub(super) fn limit_outcome(&mut self, id: ClientId, answer: &LimitAnswer) {
        let Some(client) = self.client(id) else { return };
        client.waiting = Waiting::No;
        client.broken |= codec::encode_reply(&mut client.out, answer, false).is_err();
    }

    pub(super) fn watch(&mut self, id: ClientId) {
        if let Some(client) = self.client(id) {
            client.waiting = Waiting::Watch { seen: 0 };
        }
    }

    /// The first answer to one who follows what a unit says; the others come by `feed_followers`.
    pub(super) fn follow(&mut self, id: ClientId, unit: UnitId, reply: &TailReply) {
        if let Some(client) = self.client(id) {
            client.waiting = Waiting::Tail { unit, seen: reply.position };
            client.broken |= codec::encode_reply(&mut client.out, reply, true).is_err();
        }
    }

    /// Gives new words to those who follow them, each as soon as it has taken the last.
    pub(super) fn feed_followers(
        &mut self,
        poller: &Poller,
        news: impl Fn(UnitId, u64) -> Option<TailReply>,
    ) {
        for client in &mut self.clients {
            if let Waiting::Tail { unit, seen } = client.waiting
                && client.out.is_empty()
                && let Some(reply) = news(unit, seen)
            {
                client.waiting = Waiting::Tail { unit, seen: reply.position };
                client.broken |= codec::encode_reply(&mut client.out, &reply, true).is_err();
                client.write();
                client.wish(poller);
            }
        }
    }

    fn is_behind(client: &Client, generation: u64) -> bool {
        matches!(client.waiting, Waiting::Watch { seen } if seen < generation) && client.out.is_empty()
    }

    pub(super) fn somebody_watches(&self, generation: u64) -> bool {
        self.clients.iter().any(|client| Self::is_behind(client, generation))
    }

    /// Gives an encoded snapshot to everybody who waits for it.
    pub(super) fn publish(&mut self, generation: u64, text: &[u8], poller: &Poller) {
        for client in &mut self.clients {
            if Self::is_behind(client, generation) {
                client.waiting = Waiting::Watch { seen: generation };
                client.out.extend_from_slice(text);
                client.write();
                client.wish(poller);
            }
        }
    }

    /// Writes what the client takes. False where the connection has come to its end: then `close` it.
    pub(super) fn flush(&mut self, id: ClientId, poller: &Poller) -> bool {
        let Some(client) = self.client(id) else { return true };
        client.write();
        client.wish(poller);
        let idle = client.out.is_empty() && client.waiting == Waiting::No && !client.inbox.has_message();
        let watcher_left = client.ended && client.waiting.is_for_ever();
        !(client.broken || watcher_left || (client.ended && idle))
    }

    /// Forgets the connection; dropping it closes it, which ends its watch in epoll too.
    pub(super) fn close(&mut self, id: ClientId) {
        self.clients.retain(|client| client.id != id);
    }
}

pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Makes place for the socket. Who listens there answers a connection at once, or has a full backlog (`EAGAIN`).
fn clear_place(path: &Path) -> Result<(), StartError> {
    let failed = |op, cause| StartError::Socket(SysError::new(op, path.display().to_string(), cause));
    match std::fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => return Err(StartError::NotASocket(path.to_path_buf())),
        Ok(_) => {}
        Err(_) => return Ok(()),
    }
    let address = UnixAddr::new(path).map_err(|errno| failed("look for a listener on", errno))?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)
        .map_err(|errno| failed("look for a listener on", errno))?;
    match connect(probe.as_raw_fd(), &address) {
        Ok(()) | Err(Errno::EAGAIN) => Err(StartError::SocketTaken(path.to_path_buf())),
        Err(_) => match nix::unistd::unlink(path) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(failed("replace", errno)),
        },
    }
}

impl Drop for Client {
    /// What nobody has read may hold descriptors, which the kernel would close with the connection, and might wait.
    fn drop(&mut self) {
        let mut reader = Reader::new();
        let mut bytes = [0_u8; 4096];
        // Nobody can send any more, so there is an end to it.
        let _ = shutdown(self.stream.as_raw_fd(), Shutdown::Read);
        while let Ok(1..) | Err(Errno::EINTR) = reader.read(self.stream.as_fd(), &mut bytes) {}
    }
}

impl Client {
    fn write(&mut self) {
        if self.left {
            self.written = self.out.len();
        }
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => self.broken = true,
                Ok(length) => {
                    self.written += length;
                    self.active = clock::now();
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => self.broken = true,
            }
            return;
        }
        // The memory of a large answer is given back at once.
        self.out = Vec::new();
        self.written = 0;
    }

    /// Waits for room while an answer is on its way, and for calls while there is none. A call that has come already
    /// is waited for by room too: there is some, so that its turn is the next one. One that waits for an outcome is not
    /// listened to: what it sends would make it ready for ever.
    fn wish(&mut self, poller: &Poller) {
        let interest = match self.waiting {
            _ if !self.out.is_empty() => Interest::Write,
            Waiting::Outcome => Interest::Nothing,
            Waiting::No if self.inbox.has_message() => Interest::Write,
            _ if self.ended => Interest::Nothing,
            Waiting::No | Waiting::Watch { .. } | Waiting::Tail { .. } => Interest::Read,
        };
        if interest != self.interest {
            self.interest = interest;
            self.broken |=
                poller.modify(self.stream.as_fd(), Source::Client(self.id.0).token(), interest).is_err();
        }
    }
}
