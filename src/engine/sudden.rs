//! Who ended a service that ended by SIGKILL, where lifeboat did not. Nothing is decided by it: it is told.

use super::Engine;
use super::event::Time;
use super::policy::{RunId, UnitId};
use super::service::State;
use super::snapshot::KilledBy;

impl Engine {
    /// The service's first process was killed by SIGKILL. When its run began, where that is a riddle: lifeboat has
    /// killed nothing of it, and the kernel has counted no kill for memory (`oom_kill`, where there is such a counter).
    #[must_use]
    pub fn riddle_of_a_kill(&self, unit: UnitId, oom_kill: Option<u64>) -> Option<Time> {
        let service = self.unit(unit).filter(|service| service.is_let_live())?;
        let counted = oom_kill.is_some_and(|count| count != service.counters.oom_kill);
        (!counted).then_some(service.run_began)
    }

    pub(super) fn killed_outside(&mut self, unit: UnitId, run: RunId, by: KilledBy) {
        if let Some(service) = self.live(unit, run).filter(|service| service.is_let_live()) {
            service.killed_by = Some(by);
        }
    }
}

impl super::service::Service {
    /// Its first process lives, as far as is known, and nobody was asked to end it.
    fn is_let_live(&self) -> bool {
        match self.state {
            State::Spawning | State::Readying | State::Running | State::Idling => self.open.main,
            State::Down(_)
            | State::Waiting
            | State::Backoff
            | State::Parking
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => false,
        }
    }
}
