//! A canary's ballast: made in the service's cgroup before the service, and anew where it was lost.

use super::event_loop::Lifeboat;
use super::perform::no_seat;
use super::seat::Process;
use crate::cgroup::group::Group;
use crate::engine::event::Role;
use crate::engine::policy::{RunId, UnitId};
use crate::sys::spawn::{SpawnError, ballast};
use std::os::fd::AsFd;

impl Lifeboat {
    pub(super) fn begin_ballast(&mut self, unit: UnitId, run: RunId, bytes: u64) {
        self.take_seat(unit, run);
        if let Err(error) = self.make_ballast(unit, bytes) {
            self.spawn_failed(unit, run, Role::Ballast, error);
        }
    }

    fn make_ballast(&mut self, unit: UnitId, bytes: u64) -> Result<(), SpawnError> {
        // While the service runs its cgroup stays as it is.
        if self.seats.get(usize::from(unit.0)).is_some_and(|seat| seat.main.is_none()) {
            self.leave_vanished(unit, Role::Service);
            self.make_service_group(unit)?;
        }
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return Err(no_seat()) };
        let made = ballast(bytes, seat.service_group.as_ref().map(Group::place), self.null.as_fd())?;
        self.pids.insert(made.pid, (unit, seat.run, Role::Ballast));
        seat.ballast = Some(Process::made(made.pid, made.status, Some(made.go)));
        self.watch_start(unit, Role::Ballast);
        Ok(())
    }
}
