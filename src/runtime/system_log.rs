//! The way to the system's log: `/dev/log`, where a syslogd of any kind reads (syslog(3)).
//!
//! Lines are datagrams in the form of RFC 3164 without a time: the daemon puts its own there, in its own time zone.
//! What it does not take now waits in the unit's ring. While lines wait, one of two things ends the wait: the socket is
//! writable again, or where nobody listens, the next look, each after twice the time of the one before.

use super::seat::Source;
use crate::engine::event::Time;
use crate::sys::clock;
use crate::sys::connect::{connect_datagram, send_datagram};
use crate::sys::poll::{Interest, Poller};
use crate::sys::sink::Text;
use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where every syslogd listens.
const PLACE: &str = "/dev/log";

/// `LOG_DAEMON | LOG_INFO` and `LOG_DAEMON | LOG_WARNING` (syslog(3)).
const INFORMATION: &[u8] = b"<30>";
const WARNING: &[u8] = b"<28>";

/// Between two looks for somebody who listens: at first, and at most.
const PAUSE_MS: u64 = 100;
const PAUSE_MS_MAX: u64 = 60_000;

/// Between two complaints.
const COMPLAINT_PAUSE_US: u64 = 60_000_000;

/// The connection, and what is known of the other end.
#[derive(Debug)]
pub(super) struct SystemLog {
    place: PathBuf,
    socket: Option<OwnedFd>,
    /// Its queue is full.
    full: bool,
    /// We are told when it is not.
    watched: bool,
    /// Nobody listened: not to be tried before.
    closed_until: Option<Time>,
    pause_ms: u64,
    /// Lines that were lost since the last one that it took.
    lost: u32,
    complained: Option<Time>,
}

impl Default for SystemLog {
    fn default() -> Self {
        Self::at(Path::new(PLACE))
    }
}

impl SystemLog {
    pub(super) fn at(place: &Path) -> Self {
        Self {
            place: place.to_path_buf(),
            socket: None,
            full: false,
            watched: false,
            closed_until: None,
            pause_ms: PAUSE_MS,
            lost: 0,
            complained: None,
        }
    }

    /// One line of this unit, of the process `pid` where that is not 0. False: not now.
    pub(super) fn send(&mut self, name: &str, pid: u32, words: &[u8]) -> bool {
        if self.full {
            return false;
        }
        if self.lost > 0 {
            let mut note = Text::default();
            note.push(WARNING);
            let _ = write!(
                note,
                "lifeboat[{}]: lines of units that were lost before they found room here: {}",
                std::process::id(),
                self.lost
            );
            if !self.put(&note) {
                return false;
            }
            self.lost = 0;
        }
        let mut line = Text::default();
        line.push(INFORMATION);
        line.push(name.as_bytes());
        if pid > 0 {
            let _ = write!(line, "[{pid}]");
        }
        line.push(b": ");
        line.push(words);
        self.put(&line)
    }

    fn put(&mut self, line: &Text) -> bool {
        // A daemon that was restarted listens at another socket of the same name: one more try.
        for _ in 0..2 {
            if self.socket.is_none() && !self.connect() {
                return false;
            }
            let Some(socket) = &self.socket else { return false };
            match send_datagram(socket.as_fd(), line.bytes()) {
                Ok(()) => {
                    self.pause_ms = PAUSE_MS;
                    return true;
                }
                Err(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => {
                    self.full = true;
                    return false;
                }
                // Closing it ends its watch.
                Err(_) => {
                    self.socket = None;
                    self.watched = false;
                }
            }
        }
        self.close_for_a_while(clock::now(), libc::ECONNREFUSED);
        false
    }

    fn connect(&mut self) -> bool {
        let now = clock::now();
        if self.closed_until.is_some_and(|until| now < until) {
            return false;
        }
        match connect_datagram(&self.place) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.closed_until = None;
                true
            }
            Err(errno) => {
                self.close_for_a_while(now, errno);
                false
            }
        }
    }

    fn close_for_a_while(&mut self, now: Time, errno: i32) {
        self.closed_until = Some(now.plus_ms(self.pause_ms));
        self.pause_ms = (self.pause_ms * 2).min(PAUSE_MS_MAX);
        // The first look may be too early: a daemon that is being restarted is back at the next one.
        if self.pause_ms > 2 * PAUSE_MS {
            self.complain(now, &nix::errno::Errno::from_raw(errno).to_string());
        }
    }

    /// A line that waited was overwritten.
    pub(super) fn lose_one(&mut self) {
        self.lost = self.lost.saturating_add(1);
        self.complain(clock::now(), "it takes nothing");
    }

    fn complain(&mut self, now: Time, why: &str) {
        if self.complained.is_none_or(|at| now.since_us(at) > COMPLAINT_PAUSE_US) {
            self.complained = Some(now);
            log::warn!("lines wait for the system log at {}: {why}", self.place.display());
        }
    }

    /// While lines wait for somebody who listens: when to look for him.
    pub(super) fn next_look(&self) -> Option<Time> {
        self.closed_until
    }

    /// It is time for that look.
    pub(super) fn is_to_be_tried(&self, now: Time) -> bool {
        self.closed_until.is_some_and(|until| until <= now)
    }

    /// Watches a full queue, so that its reader's progress is an event.
    pub(super) fn wait_for_room(&mut self, poller: &Poller) {
        if let Some(socket) = self.socket.as_ref().filter(|_| self.full && !self.watched) {
            // Where that fails the next line of any unit tries again.
            self.watched = poller.add(socket.as_fd(), Source::SystemLog.token(), Interest::Write).is_ok();
            self.full = self.watched;
        }
    }

    pub(super) fn full_no_more(&mut self) {
        self.full = false;
    }

    /// There is room again, or the reader is gone, which the next line finds out.
    pub(super) fn has_room(&mut self, poller: &Poller) {
        self.full_no_more();
        if let Some(socket) = self.socket.as_ref().filter(|_| self.watched) {
            let _ = poller.remove(socket.as_fd());
        }
        self.watched = false;
    }
}
