//! How services show that they are ready: a path that appears.

use super::event_loop::Lifeboat;
use super::seat::Seat;
use crate::engine::event::Event;
use crate::engine::policy::{RunId, UnitId};
use std::ffi::CStr;

/// Which file stands at a path: device, inode, and the time of its last change.
pub(super) type Stamp = (u64, u64, i64, i64);

fn stamp(path: &CStr) -> Option<Stamp> {
    let found = nix::sys::stat::stat(path).ok()?;
    // Not all of these have this type on every architecture.
    Some((found.st_dev.into(), found.st_ino.into(), found.st_ctime.into(), found.st_ctime_nsec.into()))
}

impl Seat {
    /// To be called before the service's process is made: what stands at its path now was left by an earlier life.
    pub(super) fn remember_path(&mut self) {
        self.old_path = self.unit.ready_path.as_deref().and_then(stamp);
    }
}

impl Lifeboat {
    pub(super) fn look_for_path(&mut self, unit: UnitId, run: RunId) {
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        let found = seat.unit.ready_path.as_deref().and_then(stamp);
        if found.is_some() && found != seat.old_path {
            self.events.push_back(Event::Ready { unit, run });
        }
    }
}
