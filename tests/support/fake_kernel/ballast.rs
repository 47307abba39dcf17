//! A canary's ballast: made, lost, and taken by the kernel before anything of the service.

use super::{FakeKernel, Group, SIGKILL, SIGTERM, What};
use lifeboat::engine::event::{Event, Exit, Role};
use lifeboat::engine::policy::{RunId, UnitId};

impl FakeKernel {
    pub(super) fn make_ballast(&mut self, unit: UnitId, run: RunId) {
        let delay_us = self.short();
        if self.goes_wrong() && self.rng.per_mille(500) {
            let (stage, errno) = self.fault();
            self.tell(delay_us, Event::SpawnFailed { unit, run, role: Role::Ballast, stage, errno });
            return;
        }
        self.truth(unit, run).service.ballast = true;
        // Else it hangs on its way: the start's deadline is for that.
        if !(self.goes_wrong() && self.rng.per_mille(200)) {
            self.schedule(delay_us, super::Item::Event(Event::BallastStands { unit, run }));
        }
        if self.goes_wrong() && self.rng.per_mille(500) {
            let after_us = self.rng.between(0, self.life_ms * 1_000);
            let exit = self.rng.pick(&[Exit::Signal(SIGKILL), Exit::Signal(SIGTERM)]);
            self.later((unit, run), after_us, What::BallastEnds(exit));
        }
    }

    /// A frozen process dies of SIGKILL only.
    pub(super) fn ballast_ends(&mut self, unit: UnitId, run: RunId, exit: Exit) {
        let Group { ballast, frozen, .. } = self.truth(unit, run).service;
        if !ballast || (frozen && exit != Exit::Signal(SIGKILL)) {
            return;
        }
        self.truth(unit, run).service.ballast = false;
        let delay_us = self.rng.pick(&[0, 100, 5_000]);
        self.schedule(delay_us, super::Item::Event(Event::Exited { unit, run, role: Role::Ballast, exit }));
        self.tell_if_empty(unit, run, Role::Service);
    }

    /// Now and then its memory is not enough, and the service goes too.
    pub(super) fn canary_dies(&mut self, unit: UnitId, run: RunId, own_limit: bool) {
        let counters = &mut self.counters[usize::from(unit.0)].0;
        counters.oom += u64::from(own_limit);
        if own_limit && self.rng.per_mille(500) {
            self.ring(unit, run);
        }
        self.counters[usize::from(unit.0)].0.oom_kill += 1;
        self.tell_counters(unit, run);
        self.ballast_ends(unit, run, Exit::Signal(SIGKILL));
        if self.rng.per_mille(250) {
            let again = if own_limit { What::Oom { again: 0 } } else { What::OomOutside };
            let after_us = self.rng.pick(&[0, 3_000, 90_000]);
            self.later((unit, run), after_us, again);
        }
    }
}
