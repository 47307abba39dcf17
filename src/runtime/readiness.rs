//! How services show that they are ready and alive: a path that appears, a newline on a descriptor, sd_notify(3).

use super::control::identity;
use super::event_loop::Lifeboat;
use super::seat::{Process, Seat, Source};
use super::story;
use crate::cgroup::member::Members;
use crate::engine::event::{Event, Note, Role, Time};
use crate::engine::policy::{Class, Ready, RunId, UnitId};
use crate::sys::notify::{Datagram, NotifySocket};
use crate::sys::poll::{Interest, Poller};
use crate::sys::{children, clock};
use crate::wire::notify::{MESSAGE_BYTES_MAX, Message};
use nix::errno::Errno;
use std::ffi::{CStr, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Which file stands at a path: device, inode, and the time of its last change.
pub(super) type Stamp = (u64, u64, i64, i64);

fn stamp(path: &CStr) -> Option<Stamp> {
    let found = std::fs::metadata(OsStr::from_bytes(path.to_bytes())).ok()?;
    Some((found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
}

impl Seat {
    /// To be called before the service's process is made: what stands at its path now was left by an earlier life.
    pub(super) fn remember_path(&mut self) {
        self.old_path = self.unit.ready_path.as_deref().and_then(stamp);
    }
}

/// So many messages are taken in one turn: who floods the socket fills its queue, not our time.
const MESSAGES_MAX: usize = 32;

/// At most one line of complaint about messages in this time.
const COMPLAINT_MS: u64 = 10_000;

/// The socket of sd_notify(3), and how a message finds its unit.
#[derive(Debug)]
pub(super) struct Notify {
    socket: Option<NotifySocket>,
    /// Its place, and which file it is there.
    file: Option<(PathBuf, (u64, u64))>,
    pub(super) members: Members,
    /// Messages that were left out since the last complaint, and when the next one may be made.
    left_out: u32,
    complain_at: Time,
}

impl Notify {
    /// A socket that cannot be made is told, and nobody can say anything.
    pub(super) fn open(path: &Path, cgroup_root: &Path, poller: &Poller) -> Self {
        let open = || {
            let socket = NotifySocket::open(path)?;
            poller.add(socket.fd(), Source::Notify.token(), Interest::Read)?;
            Ok(socket)
        };
        let socket = open().map_err(|error: crate::sys::error::SysError| story::complain(&error)).ok();
        let file = socket.as_ref().and_then(|_| Some((path.to_owned(), identity(path)?)));
        Self { socket, file, members: Members::below(cgroup_root), left_out: 0, complain_at: Time(0) }
    }

    /// Removes the socket's file, unless another one has taken its place.
    pub(super) fn remove_socket(&self) {
        if let Some((path, own)) = &self.file
            && identity(path) == Some(*own)
        {
            // At the end there is nothing left to do about a failure.
            let _ = std::fs::remove_file(path);
        }
    }

    /// The socket's place, for the environment of services; `None` where there is none.
    pub(super) fn path(&self) -> Option<&Path> {
        self.socket.as_ref().and(self.file.as_ref()).map(|(path, _)| path.as_path())
    }

    /// A message was not taken; said now and then, since anybody may send any number.
    fn leave_out(&mut self, pid: Option<u32>, why: &str) {
        self.left_out = self.left_out.saturating_add(1);
        let now = clock::now();
        if now < self.complain_at {
            return;
        }
        self.complain_at = now.plus_ms(COMPLAINT_MS);
        let more = std::mem::take(&mut self.left_out) - 1;
        log::warn!("a message of process {} is left out: {why} ({more} more before it)", pid.unwrap_or(0));
    }
}

impl Lifeboat {
    /// A bounded number of messages; the rest comes with the next turn.
    pub(super) fn messages_came(&mut self) {
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        for _ in 0..MESSAGES_MAX {
            let Some(mut datagram) =
                self.notify.socket.as_mut().and_then(|socket| socket.receive(&mut bytes))
            else {
                return;
            };
            let length = datagram.length;
            self.message_came(&mut datagram, bytes.get(..length).unwrap_or_default());
            // Told before what came along is closed: a barrier's sender goes on at that moment.
            self.pump();
        }
    }

    fn message_came(&mut self, datagram: &mut Datagram, bytes: &[u8]) {
        let Some(unit) = datagram.pid.and_then(|pid| self.unit_of(pid)) else {
            self.notify.leave_out(datagram.pid, "its sender belongs to no service");
            return;
        };
        if datagram.cut {
            self.notify.leave_out(datagram.pid, "it is longer than 4096 bytes");
            return;
        }
        let message = Message::parse(bytes);
        if message.removes_fds {
            self.remove_stored(unit, message.fd_name());
        }
        if message.stores_fds {
            let polled = !message.keeps_hung_up;
            let stored = self.store(unit, &mut datagram.descriptors, message.fd_name(), polled);
            if let Err(why) = stored {
                self.notify.leave_out(datagram.pid, &why);
            }
        }
        // What it says comes after its `execve`.
        self.status_came(unit, Role::Service);
        if let Some(pid) = message.main_pid {
            self.name_first(unit, pid, datagram.pid);
        }
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let run = seat.run;
        self.events.extend(message.notes().map(|note| Event::Notified { unit, run, note }));
        if let Some(text) = message.status {
            seat.status = Some(text).filter(|text| !text.is_empty());
        }
    }

    /// Whose process this is: of a first process we know it, of every other its cgroup tells.
    fn unit_of(&self, pid: u32) -> Option<UnitId> {
        if let Some((unit, _, role)) = self.pids.get(&pid) {
            return Some(*unit).filter(|_| *role == Role::Service);
        }
        self.notify.members.of(pid, |member| {
            let unit = self.id_of(member.name)?;
            let memory = self.seats.get(usize::from(unit.0))?.unit.policy.memory;
            Some(unit).filter(|_| memory.map_or(Class::Pool, |memory| memory.class) == member.class)
        })
    }

    /// A service names its first process. It must be of its own cgroup, and its end must come to us: a process that
    /// still has another parent is taken when the present first process, and so that parent, has ended.
    fn name_first(&mut self, unit: UnitId, pid: u32, sender: Option<u32>) {
        let is_its = self.unit_of(pid) == Some(unit);
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let is_up = |process: &&Process| process.status.is_none() && process.pidfd.is_none();
        let started = seat.main.as_ref().filter(is_up);
        if started.is_none_or(|process| process.pid == pid) {
            return;
        }
        if !is_its {
            self.notify.leave_out(sender, "the process that it names is not of its service");
            return;
        }
        seat.heir = Some(pid);
        if children::is_child(pid) {
            self.heir_follows(unit);
        }
    }

    /// A service has ended: what it said before counts first, such as who is to follow it.
    pub(super) fn last_words(&mut self, unit: UnitId) {
        let seat = self.seats.get(usize::from(unit.0));
        if seat.is_some_and(|seat| seat.unit.policy.ready == Ready::Notify) {
            self.messages_came();
        }
    }

    /// Makes the heir, where there is one and it is our child by now, the first process.
    pub(super) fn heir_follows(&mut self, unit: UnitId) -> bool {
        let heir = self.seats.get_mut(usize::from(unit.0)).and_then(|seat| seat.heir.take());
        let Some(pid) = heir.filter(|pid| children::is_child(*pid) && self.unit_of(*pid) == Some(unit))
        else {
            return false;
        };
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return false };
        let Some(first) = &mut seat.main else { return false };
        self.pids.remove(&first.pid);
        first.pid = pid;
        self.pids.insert(pid, (unit, seat.run, Role::Service));
        self.events.push_back(Event::Notified { unit, run: seat.run, note: Note::MainPid(pid) });
        true
    }

    pub(super) fn watch_ready_pipe(&self, unit: UnitId) {
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        if let Some(pipe) = &seat.ready_pipe
            && let Err(error) = self.poller.add(pipe.as_fd(), Source::ReadyPipe(unit).token(), Interest::Read)
        {
            log::error!("{error}: it will not be seen to be ready");
        }
    }

    /// A newline: ready. The end without one: it will never say so, and its `start_timeout` decides.
    pub(super) fn ready_pipe_came(&mut self, unit: UnitId) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let Some(pipe) = &seat.ready_pipe else { return };
        let mut bytes = [0; 64];
        let (ready, over) = match nix::unistd::read(pipe, &mut bytes) {
            Ok(0) => (false, true),
            Ok(length) => {
                let ready = bytes.get(..length).unwrap_or_default().contains(&b'\n');
                (ready, ready)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => (false, false),
            Err(_) => (false, true),
        };
        let run = seat.run;
        if over {
            let _ = self.poller.remove(pipe.as_fd());
            seat.ready_pipe = None;
        }
        if ready {
            self.status_came(unit, Role::Service);
            self.events.push_back(Event::Ready { unit, run });
        }
    }

    pub(super) fn look_for_path(&mut self, unit: UnitId, run: RunId) {
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        let found = seat.unit.ready_path.as_deref().and_then(stamp);
        if found.is_some() && found != seat.old_path {
            self.events.push_back(Event::Ready { unit, run });
        }
    }
}
