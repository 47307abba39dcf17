//! The guard `Canary`: a ballast in the service's own cgroup, which the kernel takes before anything of the service.
//!
//! With `oom_score_adj = +1000` a process counts as larger than its whole cgroup (mm/oom_kill.c, `oom_badness`), and
//! while it dies nobody else is chosen (`oom_evaluate_task`). So the first kill for memory in a run is the ballast's,
//! as long as that stands, and a second one is the service's. An `oom` in `memory.events.local` announces the first
//! kill: it is counted before a victim is looked for. The service has the ballast's bytes to go on until it is frozen.

use super::action::Action;
use super::event::{Exit, MemorySample, SpawnStage};
use super::limits::{
    BALLAST_BYTES_MAX, BALLAST_BYTES_MIN, BALLAST_DIVISOR_MIN, BALLAST_REMAKES_MAX, BALLAST_WAIT_MS,
    START_DEADLINE_MS,
};
use super::policy::{Guard, MemoryPolicy, RunId, UnitId};
use super::record::Record;
use super::service::{ENOMEM, Service, State};
use super::snapshot::Verdict;
use super::starting::ESRCH;
use super::timer::TimerKind;
use super::{Engine, Plan};
use serde::{Deserialize, Serialize};

/// `SIGKILL` of signal(7).
const SIGKILL: i32 = 9;

/// What is known of a unit's ballast. What was learned outlives its runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Canary {
    /// The present one has so many bytes.
    bytes: u64,
    /// All of its pages are there.
    stands: bool,
    /// Kills for memory in this run that were a ballast's.
    kills: u64,
    /// So often it was lost in this run, and made anew but for the last time of all.
    remade: u8,
    /// The kernel has killed without an `oom`, and it is not known yet whom.
    doubt: bool,
    /// The kernel has killed another process of the unit, though this one stands.
    spared: bool,
    /// What the next one should have, by the last exhaustion; 0 where there was none.
    learned_bytes: u64,
}

impl Canary {
    /// A run begins.
    pub(super) fn begin(&mut self) {
        *self = Self { learned_bytes: self.learned_bytes, bytes: self.bytes, ..Self::default() };
    }

    /// An exhaustion is over. Where the kernel took the service too, the ballast was too small; where it took the
    /// service alone, it was no ballast's death that told of it.
    pub(super) fn judge(&mut self, verdict: Verdict, kernel_kills: u64) -> Verdict {
        if kernel_kills > 0 {
            self.learned_bytes = self.learned_bytes.max(self.bytes.saturating_mul(2));
        }
        if self.spared { Verdict::KernelKilled { oom_kill: kernel_kills } } else { verdict }
    }

    /// The size of the next one.
    fn next_bytes(&self, memory: MemoryPolicy) -> u64 {
        let most = memory.max_bytes / BALLAST_DIVISOR_MIN;
        let least = (memory.max_bytes / 16).clamp(BALLAST_BYTES_MIN, BALLAST_BYTES_MAX);
        // The bound may have been lowered since its file was read.
        let wished = memory.ballast_bytes.map(|bytes| bytes.min(memory.max_bytes / 2));
        wished.unwrap_or(self.learned_bytes.max(least).min(most))
    }
}

impl Service {
    fn has_canary(&self) -> Option<MemoryPolicy> {
        self.policy.memory.filter(|memory| memory.guard == Guard::Canary)
    }

    /// Its process is there, and goes first: it has its `oom_score_adj` before it has its pages.
    fn has_ballast(&self) -> bool {
        self.open.ballast && self.has_canary().is_some()
    }

    /// Processes of the service that the kernel has killed for memory in this run: the ballast is none, and what was
    /// killed in a cgroup below is its own affair.
    pub(super) fn kernel_kills(&self) -> u64 {
        let kills = self.counters_of_run().oom_kill.saturating_sub(self.told_below.oom_kill);
        let kills = kills.saturating_sub(self.canary.kills);
        kills.saturating_sub(u64::from(self.has_ballast() && !self.canary.spared))
    }

    /// An `oom` while the ballast stands.
    pub(super) fn ballast_alarm(&self, oom: u64) -> Option<Verdict> {
        let stands = self.canary.stands && self.has_canary().is_some() && self.kernel_kills() == 0;
        (stands && oom > 0).then_some(Verdict::CanaryDied { oom, ballast_bytes: self.canary.bytes })
    }

    /// In these states a ballast that is lost is made anew.
    pub(super) fn may_lose_its_ballast(&self) -> bool {
        match self.state {
            State::Spawning | State::Readying | State::Running | State::Idling => true,
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

    /// The present run goes on without one to its end.
    pub(super) fn has_no_ballast_any_more(&self) -> bool {
        let given_up = self.canary.remade > BALLAST_REMAKES_MAX && self.may_lose_its_ballast();
        given_up && self.has_canary().is_some()
    }

    /// The service stands still, and the ballast is gone: twice as much as it took meanwhile is enough the next time.
    pub(super) fn learn_ballast(&mut self, sample: MemorySample) {
        let (Some(memory), Some(incident)) = (self.has_canary(), &self.incident) else { return };
        let stood_still = incident.frozen.is_some() && incident.killed.is_none();
        if matches!(incident.verdict, Verdict::CanaryDied { .. }) && stood_still {
            let before = memory.max_bytes.saturating_sub(self.canary.bytes);
            self.canary.learned_bytes = sample.current_bytes.saturating_sub(before).saturating_mul(2);
        }
    }
}

impl Engine {
    /// The service is made when its ballast stands, where it has one.
    pub(super) fn guard_and_spawn(&mut self, unit: UnitId, run: RunId, plan: &mut Plan) {
        if self.unit(unit).is_none_or(|service| service.has_canary().is_none()) {
            self.spawn(unit, run, plan);
            return;
        }
        if self.unit(unit).is_some_and(|service| service.open.ballast) {
            return;
        }
        self.timers.clear(unit, TimerKind::Ballast);
        self.enter(unit, State::Parking);
        self.step_deadline(unit, START_DEADLINE_MS);
        self.make_ballast(unit, plan);
    }

    fn make_ballast(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let Some(memory) = service.has_canary() else { return };
        let (run, bytes) = (service.run, service.canary.next_bytes(memory));
        service.canary = Canary { bytes, stands: false, spared: false, ..service.canary };
        service.open.ballast = true;
        plan.push(Action::MakeBallast { unit, run, bytes });
    }

    pub(super) fn ballast_stands(&mut self, unit: UnitId, run: RunId, plan: &mut Plan) {
        let Some(service) = self.live(unit, run).filter(|service| service.open.ballast) else { return };
        service.canary.stands = true;
        if service.state == State::Parking {
            self.spawn(unit, run, plan);
        }
    }

    /// The kernel's counters have risen by so much (`oom`, `oom_kill`) while the unit was up. False where that is not
    /// the ballast's affair.
    pub(super) fn canary_hears(&mut self, unit: UnitId, rose: (u64, u64), plan: &mut Plan) -> bool {
        let Some(service) = self.unit_mut(unit) else { return false };
        let (oom, oom_kill) = rose;
        if !service.has_ballast() || service.kernel_kills() > 0 || oom + oom_kill == 0 {
            return false;
        }
        if let Some(verdict) = service.ballast_alarm(oom) {
            self.rescue(unit, verdict, plan);
        } else if oom > 0 {
            // It has not all of its pages yet: an exhaustion as without one.
            return false;
        } else {
            // Memory ran out above the unit. Most likely it was the ballast: its end tells.
            service.canary.doubt = true;
            self.timers.set(unit, TimerKind::Ballast, self.now.plus_ms(BALLAST_WAIT_MS));
        }
        true
    }

    /// The service has ended. Where the kernel has counted one kill, and the ballast stands, that was no ballast's:
    /// then the run may end for it. True where it does.
    pub(super) fn kill_was_no_ballast(&mut self, unit: UnitId, exit: Exit, plan: &mut Plan) -> bool {
        let Some(service) = self.unit_mut(unit) else { return false };
        let kills = service.counters_of_run().oom_kill.saturating_sub(service.canary.kills);
        let spared = service.has_ballast() && kills == 1 && exit == Exit::Signal(SIGKILL);
        if !spared || service.state == State::Killing {
            return false;
        }
        service.canary.spared = true;
        let is_news = service.may_lose_its_ballast();
        if is_news {
            self.kernel_spared_ballast(unit, plan);
        }
        is_news
    }

    fn kernel_spared_ballast(&mut self, unit: UnitId, plan: &mut Plan) {
        self.timers.clear(unit, TimerKind::Ballast);
        if let Some(service) = self.unit_mut(unit) {
            (service.canary.doubt, service.canary.spared) = (false, true);
            self.rescue(unit, Verdict::KernelKilled { oom_kill: 1 }, plan);
        }
    }

    pub(super) fn ballast_exited(&mut self, unit: UnitId, run: RunId, exit: Exit, plan: &mut Plan) {
        let Some(service) = self.live(unit, run) else { return };
        if !service.open.ballast {
            return;
        }
        service.open.ballast = false;
        let counted = service.counters_of_run().oom_kill > service.canary.kills && !service.canary.spared;
        let for_memory = counted && exit == Exit::Signal(SIGKILL);
        service.canary.kills += u64::from(for_memory);
        (service.canary.stands, service.canary.doubt) = (false, false);
        match service.state {
            State::Parking => {
                let errno = if for_memory { ENOMEM } else { ESRCH };
                self.start_failed(unit, (SpawnStage::Clone, errno, false), plan);
            }
            State::Spawning | State::Readying | State::Running | State::Idling => {
                self.ballast_lost(unit, Some((exit, for_memory)), plan);
            }
            State::Killing => self.finish_run_if_over(unit, plan),
            // It dies with the others, or has done its work.
            State::Down(_)
            | State::Waiting
            | State::Backoff
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled => {}
        }
    }

    /// Without it the service runs on as with `Guard::None` until the next one stands. `end` is `None` where it was not
    /// even made, which is told already.
    pub(super) fn ballast_lost(&mut self, unit: UnitId, end: Option<(Exit, bool)>, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let tries_left = BALLAST_REMAKES_MAX.saturating_sub(service.canary.remade);
        if let Some((exit, for_memory)) = end {
            plan.tell(Record::BallastLost { unit, exit, for_memory, tries_left });
        }
        service.canary.remade = BALLAST_REMAKES_MAX.saturating_sub(tries_left) + 1;
        if tries_left > 0 {
            self.timers.set(unit, TimerKind::Ballast, self.now.plus_ms(BALLAST_WAIT_MS));
        }
    }

    pub(super) fn ballast_due(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit).filter(|service| service.may_lose_its_ballast()) else {
            return;
        };
        if service.canary.doubt {
            self.kernel_spared_ballast(unit, plan);
        } else if !service.open.ballast {
            self.make_ballast(unit, plan);
        }
    }

    /// What was lost while the service stood still for a drill is made anew.
    pub(super) fn ballast_after_drill(&mut self, unit: UnitId) {
        let Some(service) = self.unit(unit).filter(|service| service.has_canary().is_some()) else { return };
        if !service.open.ballast && service.canary.remade <= BALLAST_REMAKES_MAX {
            self.timers.set(unit, TimerKind::Ballast, self.now.plus_ms(BALLAST_WAIT_MS));
        }
    }

    /// What the ballast was good for is read once its service stands still, and its procedure is on its way.
    pub(super) fn measure_ballast(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit).filter(|service| service.has_canary().is_some()) else { return };
        if service.incident.is_some() {
            plan.push(Action::Sample { unit, run: service.run });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::policy::Class;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_ballast_is_as_large_as_it_must_be() {
        let check = |max_mib, said: Option<u64>, learned_mib, expected_kib: u64| {
            let memory = MemoryPolicy {
                max_bytes: max_mib * MIB,
                class: Class::Pool,
                guard: Guard::Canary,
                high_bytes: None,
                ballast_bytes: said,
            };
            let canary = Canary { learned_bytes: learned_mib * MIB, ..Canary::default() };
            assert_eq!(canary.next_bytes(memory) >> 10, expected_kib, "{max_mib} {said:?} {learned_mib}");
        };
        check(2, None, 0, 512);
        check(8, None, 0, 1_024);
        check(32, None, 0, 2_048);
        check(1_024, None, 0, 8_192);
        check(32, None, 1, 2_048);
        check(32, None, 6, 6_144);
        check(32, None, 60, 8_192);
        check(32, Some(3 * MIB), 60, 3_072);
    }
}
