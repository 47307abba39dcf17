//! What the kernel says of a unit's cgroup. Whoever measures waits for this: the snapshots that lifeboat would make
//! for a watcher cost it time in the midst of what is measured.

use super::guest::Guest;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The longest sleep between two looks: of some things the kernel tells nothing here.
const LOOK_MS: u16 = 200;

/// The events of a cgroup: `cgroup.events`.
pub(crate) struct Group {
    events: File,
    path: String,
}

impl Group {
    /// The group of a unit in the pool. It is there once the unit was started.
    pub(crate) fn of(unit: &str) -> Result<Self, String> {
        Self::at(&format!("/sys/fs/cgroup/pool/{unit}"))
    }

    /// The group at this path.
    pub(crate) fn at(folder: &str) -> Result<Self, String> {
        let path = format!("{folder}/cgroup.events");
        let events = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok(Self { events, path })
    }

    /// Whether a process is in it.
    pub(crate) fn is_populated(&mut self) -> Result<bool, String> {
        let mut text = String::new();
        let read = self.events.rewind().and_then(|()| self.events.read_to_string(&mut text));
        read.map_err(|error| format!("{}: {error}", self.path))?;
        Ok(text.contains("populated 1"))
    }

    /// Asks again with each event until the answer is there.
    pub(crate) fn until(
        &mut self,
        guest: &Guest,
        within: Duration,
        mut question: impl FnMut(&mut Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        let deadline = guest.deadline().min(Instant::now() + within);
        while !question(self)? {
            if Instant::now() >= deadline {
                return Err(format!("{}: not within {within:?}", self.path));
            }
            let mut waited = [PollFd::new(self.events.as_fd(), PollFlags::POLLPRI)];
            poll(&mut waited, PollTimeout::from(LOOK_MS))
                .map_err(|error| format!("{}: {error}", self.path))?;
        }
        Ok(())
    }
}
