//! The descriptors that lifeboat holds for a unit over its runs: its sockets, and what it has stored itself.

use super::control::identity;
use super::event_loop::Lifeboat;
use super::seat::{Seat, Source};
use crate::engine::event::{Event, SpawnStage};
use crate::engine::policy::UnitId;
use crate::sys::error::SysError;
use crate::sys::handed::Foreign;
use crate::sys::poll::Interest;
use crate::sys::socket::{self, Inet, Netlink, Owner, Unix};
use crate::sys::spawn::{Handed, SD_LISTEN_FDS_START, SpawnError};
use crate::unit::{Address, Socket};
use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a unit has open, in the order in which it is handed over.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    /// One for each of the unit's sockets, or none at all.
    pub(super) sockets: Vec<Opened>,
    /// They are watched: the unit rests.
    watched: bool,
    /// What the service has stored, oldest first.
    stored: Vec<Stored>,
    /// The names of these, joined by colons.
    stored_names: String,
}

/// A descriptor that a service gave to lifeboat to have it again in its next run.
#[derive(Debug)]
struct Stored {
    fd: Foreign,
    name: String,
}

/// A socket or fifo that is open.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    /// What it was opened for.
    socket: Socket,
    /// The file that was made for it, and which one that is.
    file: Option<(PathBuf, (u64, u64))>,
}

impl Drop for Opened {
    /// Removes its file, unless another one has taken its place.
    fn drop(&mut self) {
        if let Some((path, own)) = &self.file
            && identity(path) == Some(*own)
        {
            // Whoever comes next replaces what cannot be removed.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Descriptors {
    /// What the shutdown procedure is given from descriptor 3 on, and the names, joined by colons.
    pub(super) fn stored(&self) -> (impl Iterator<Item = BorrowedFd<'_>>, &str) {
        (self.stored.iter().map(|stored| stored.fd.as_fd()), &self.stored_names)
    }

    /// Joined when something is stored or removed: in an exhaustion there is no memory for it.
    fn join_names(&mut self) {
        self.stored_names.clear();
        for (at, stored) in self.stored.iter().enumerate() {
            self.stored_names.push_str(if at > 0 { ":" } else { "" });
            self.stored_names.push_str(&stored.name);
        }
    }

    /// What a run of the service is given, from descriptor 3 on.
    pub(super) fn handed(&self) -> impl Iterator<Item = Handed<'_>> {
        let sockets = self.sockets.iter().map(|opened| opened.fd.as_fd());
        sockets.chain(self.stored.iter().map(|stored| stored.fd.as_fd())).zip(SD_LISTEN_FDS_START..)
    }

    /// Their names, in the same order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        let sockets = self.sockets.iter().map(|opened| opened.socket.name.as_str());
        sockets.chain(self.stored.iter().map(|stored| stored.name.as_str()))
    }
}

impl Seat {
    /// Opens the unit's sockets where they are not open yet: all of them or none. One that its definition does not have
    /// any more is closed.
    pub(super) fn open_sockets(&mut self) -> Result<(), SpawnError> {
        let (wanted, open_ones) = (&self.unit.sockets, &mut self.descriptors.sockets);
        open_ones.retain(|opened| wanted.contains(&opened.socket));
        let new: Vec<&Socket> =
            wanted.iter().filter(|socket| open_ones.iter().all(|opened| opened.socket != **socket)).collect();
        let opened: Result<Vec<Opened>, (&Socket, SysError)> =
            new.iter().map(|socket| open(socket).map_err(|error| (*socket, error))).collect();
        match opened {
            Ok(opened) => {
                tell_of_short_queues(&new);
                open_ones.extend(opened);
                // In the order of the file. So few are not worth a sort.
                for (at, socket) in wanted.iter().enumerate() {
                    let behind = open_ones.iter().skip(at).position(|opened| opened.socket == *socket);
                    if let Some(behind) = behind {
                        open_ones.swap(at, at + behind);
                    }
                }
                Ok(())
            }
            Err((socket, error)) => {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                log::error!("{}: sockets: {error}: {cause}; {}", socket.place.0, cure(socket, error.errno()));
                Err(SpawnError::new(SpawnStage::Sockets, error.errno()))
            }
        }
    }
}

impl Lifeboat {
    /// Opens a unit's sockets and waits for the first thing that comes in.
    pub(super) fn listen(&mut self, unit: UnitId) -> Result<(), SpawnError> {
        self.unwatch_sockets(unit);
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return Ok(()) };
        seat.open_sockets()?;
        seat.descriptors.watched = true;
        for opened in &seat.descriptors.sockets {
            if let Err(error) =
                self.poller.add(opened.fd.as_fd(), Source::Socket(unit).token(), Interest::Read)
            {
                log::error!(
                    "{}: {error}: nothing on {} starts it",
                    seat.unit.policy.name,
                    opened.socket.name
                );
            }
        }
        Ok(())
    }

    /// Once is enough: while the service is on its way or up, what comes in is its own affair.
    pub(super) fn socket_came(&mut self, unit: UnitId) {
        self.unwatch_sockets(unit);
        if let Some(seat) = self.seats.get(usize::from(unit.0)) {
            self.events.push_back(Event::Demanded { unit, run: seat.run });
        }
    }

    pub(super) fn unwatch_sockets(&mut self, unit: UnitId) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        if std::mem::take(&mut seat.descriptors.watched) {
            for opened in &seat.descriptors.sockets {
                let _ = self.poller.remove(opened.fd.as_fd());
            }
        }
    }

    /// Keeps descriptors for the unit's next runs (`FDSTORE=1`); gives the reason where it is not to be.
    pub(super) fn store(
        &mut self,
        unit: UnitId,
        descriptors: &mut Vec<Foreign>,
        name: &str,
        polled: bool,
    ) -> Result<(), String> {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return Ok(()) };
        let most = usize::from(seat.unit.policy.descriptors.store_max);
        for fd in descriptors.drain(..) {
            let stored = &mut seat.descriptors.stored;
            let gone = polled && socket::has_hung_up(fd.as_fd());
            if gone || stored.iter().any(|other| socket::is_same(other.fd.as_fd(), fd.as_fd())) {
                continue;
            }
            if stored.len() >= most {
                let name = &seat.unit.policy.name;
                return Err(format!(
                    "{name} may store {most} descriptors (fd_store_max), the others are closed"
                ));
            }
            if polled {
                // Only what can hang up can be waited for.
                let _ = self.poller.add(fd.as_fd(), Source::Stored(unit).token(), Interest::Nothing);
            }
            stored.push(Stored { fd, name: name.to_owned() });
            seat.descriptors.join_names();
        }
        Ok(())
    }

    /// `FDSTOREREMOVE=1`: all of this name.
    pub(super) fn remove_stored(&mut self, unit: UnitId, name: &str) {
        self.drop_stored(unit, |stored| stored.name == name);
    }

    /// The other end of something stored is gone: it is of no use to anybody.
    pub(super) fn stored_came(&mut self, unit: UnitId) {
        self.drop_stored(unit, |stored| socket::has_hung_up(stored.fd.as_fd()));
    }

    /// What a new definition does not allow any more is given up, the newest first.
    pub(super) fn trim_stored(&mut self, unit: UnitId) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let most = usize::from(seat.unit.policy.descriptors.store_max);
        for stored in seat.descriptors.stored.drain(most.min(seat.descriptors.stored.len())..) {
            let _ = self.poller.remove(stored.fd.as_fd());
        }
        seat.descriptors.join_names();
    }

    fn drop_stored(&mut self, unit: UnitId, which: impl Fn(&Stored) -> bool) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let poller = &self.poller;
        seat.descriptors.stored.retain(|stored| {
            let goes = which(stored);
            if goes {
                // The service may have it open too, and then it would go on being watched.
                let _ = poller.remove(stored.fd.as_fd());
            }
            !goes
        });
        seat.descriptors.join_names();
    }

    /// The unit is down for good: its sockets are closed, and what it stored is given up.
    pub(super) fn close_descriptors(&mut self, unit: UnitId) {
        self.unwatch_sockets(unit);
        self.drop_stored(unit, |_| true);
        if let Some(seat) = self.seats.get_mut(usize::from(unit.0)) {
            seat.descriptors = Descriptors::default();
        }
    }
}

fn open(socket: &Socket) -> Result<Opened, SysError> {
    let Socket { address, backlog, reuse_port, v6only, mode, uid, gid, .. } = socket;
    let backlog = i32::try_from(*backlog).unwrap_or(i32::MAX);
    let owner = Owner { mode: *mode, uid: *uid, gid: *gid };
    let inet = |stream| Inet { stream, reuse_port: *reuse_port, v6only: *v6only, backlog };
    let unix = |path: &Path, kind| match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => socket::unix_abstract(name, kind, backlog),
        None => socket::unix(path, kind, owner, backlog),
    };
    let mut is_ours = true;
    let fd = match address {
        Address::Tcp(address) => socket::inet(*address, inet(true)),
        Address::Udp(address) => socket::inet(*address, inet(false)),
        Address::Unix(path) => unix(path, Unix::Stream),
        Address::UnixDatagram(path) => unix(path, Unix::Datagram),
        Address::UnixSeqpacket(path) => unix(path, Unix::Seqpacket),
        Address::Fifo(path) => {
            is_ours = identity(path).is_none();
            socket::fifo(path, owner)
        }
        Address::NetlinkRoute(groups) => socket::netlink(Netlink::Route, *groups),
        Address::NetlinkAudit(groups) => socket::netlink(Netlink::Audit, *groups),
        Address::NetlinkKobjectUevent(groups) => socket::netlink(Netlink::KobjectUevent, *groups),
    }?;
    let path = address.path().filter(|_| is_ours);
    let file = path.and_then(|path| Some((path.to_owned(), identity(path)?)));
    Ok(Opened { fd, socket: socket.clone(), file })
}

/// The kernel shortens a queue without a word.
fn tell_of_short_queues(sockets: &[&Socket]) {
    const FILE: &str = "/proc/sys/net/core/somaxconn";
    let Some(most) = std::fs::read_to_string(FILE).ok().and_then(|text| text.trim().parse::<u32>().ok())
    else {
        return;
    };
    for socket in sockets.iter().filter(|socket| socket.address.has_connections() && socket.backlog > most) {
        log::warn!(
            "{}: sockets: no more than {most} clients can wait in its queue, not {}; raise net.core.somaxconn in the \
             sysctls of system.ron",
            socket.place.0,
            socket.backlog
        );
    }
}

/// What to do about a socket that cannot be opened.
fn cure(socket: &Socket, errno: i32) -> String {
    let folder = || {
        let folder = socket.address.path().and_then(Path::parent).unwrap_or(Path::new("/"));
        folder.display().to_string()
    };
    match (errno, socket.address.path()) {
        (libc::EADDRINUSE, None) => "another program listens there: stop it, or use another port".into(),
        (libc::EADDRINUSE, Some(_)) => "a program listens there: stop it, or use another path".into(),
        (libc::EADDRNOTAVAIL, _) => {
            "no interface has this address: use 0.0.0.0 or [::], or let the unit require what sets it".into()
        }
        (libc::EEXIST, Some(_)) => "something else is there, which is not replaced: remove it".into(),
        (libc::ENOENT, Some(_)) => format!("make the folder {} first", folder()),
        (libc::ENOTDIR, Some(_)) => format!("{} is no folder", folder()),
        (libc::EROFS, Some(_)) => "use a path on a file system that can be written, such as /run".into(),
        (libc::EACCES | libc::EPERM, None) => {
            "ports below 1024 need root, or CAP_NET_BIND_SERVICE of lifeboat itself".into()
        }
        (libc::EACCES | libc::EPERM, Some(_)) => format!("lifeboat must be allowed to write in {}", folder()),
        (libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT, _) => "this kernel is built without it".into(),
        _ => "it is tried again as the unit's `restart` says".into(),
    }
}

/// As many numbers as one unit may need.
pub(super) fn room_for(unit: &crate::unit::Unit) -> usize {
    unit.sockets.len() + usize::from(unit.policy.descriptors.store_max)
}
