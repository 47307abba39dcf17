//! Warn stages: what a service hears, and what is done for it, before its memory is exhausted.
//!
//! While a service stays below its stages nothing is read. What rings is `memory.high`: it stands as far above what the
//! service uses as its unreclaimable part is below the next stage, and it is lifted as soon as it has rung. The kernel
//! counts the event before it reclaims anything (mm/memcontrol.c, `reclaim_high`), and holds the task that went too
//! far for some milliseconds; huge pages may go past it, then `max` and PSI ring as ever.

use super::action::Action;
use super::event::{CommandKind, MemorySample, Time};
use super::limits::{WARN_ROOM_DIVISOR, WARN_STAGES_MAX, WARNED_READ_MS, WARNED_READ_MS_MIN};
use super::policy::{UnitId, WarnDeed, WarnStage, WarnWhen};
use super::prediction::Trend;
use super::record::Record;
use super::service::{Service, State};
use super::snapshot::KillReason;
use super::timer::TimerKind;
use super::{Engine, Plan};
use serde::{Deserialize, Serialize};

/// Growth is trusted to go on when it has gone on for this part of a stage's time, or when so little is left of it.
const STEADY_DIVISOR: u64 = 16;

/// The nearest place above the present use for `memory.high`, as a part of `memory.max`: what a service takes between
/// the reading and the write must fit in, or the kernel would reclaim in lifeboat itself.
const RING_ROOM_DIVISOR: u64 = 32;

/// A stage in the present run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Standing {
    /// It was given, and the service has not come down from it.
    above: bool,
    last: Option<Time>,
}

/// The warn stages of a service in its present run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Warnings {
    stages: [Standing; WARN_STAGES_MAX],
    /// `memory.high` waits there to ring.
    ring: Option<u64>,
    /// How many were given.
    pub(super) given: u32,
}

impl Warnings {
    pub(super) fn rings(&self) -> bool {
        self.ring.is_some()
    }

    /// Somebody else has written `memory.high`.
    pub(super) fn forget_ring(&mut self) {
        self.ring = None;
    }
}

/// Whether a stage is due, and whether the service has left it behind.
fn judge(stage: WarnStage, sample: MemorySample, max_bytes: u64, trend: &Trend, now: Time) -> (bool, bool) {
    let used = sample.unreclaimable_bytes;
    match stage.when {
        WarnWhen::Share(share) => {
            let bytes = share_bytes(share, max_bytes);
            (used >= bytes, used < bytes.saturating_sub(max_bytes / WARN_ROOM_DIVISOR))
        }
        WarnWhen::WithinMs(ms) => {
            let Some((left_ms, steady_ms)) = trend.time_left(now) else { return (false, true) };
            let (within_ms, steady) = (u64::from(ms), u64::from(ms) / STEADY_DIVISOR);
            let soon = left_ms <= steady && used >= max_bytes / 4 * 3;
            (left_ms <= within_ms && (steady_ms >= steady || soon), left_ms > within_ms * 2)
        }
        WarnWhen::Pressure(share) => (sample.psi_some_avg10 >= share, sample.psi_some_avg10 < share / 2),
    }
}

fn share_bytes(share: u16, max_bytes: u64) -> u64 {
    u64::try_from(u128::from(max_bytes) * u128::from(share) / 10_000).unwrap_or(u64::MAX)
}

/// The stages that a service has not come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ahead {
    /// The nearest by its share.
    pub(super) bytes: Option<u64>,
    /// The longest by its time.
    pub(super) within_ms: Option<u32>,
}

impl Service {
    pub(super) fn stages_ahead(&self) -> Ahead {
        let max_bytes = self.policy.memory.map_or(0, |memory| memory.max_bytes);
        let stages = self.policy.warn.stages.iter().flatten().zip(&self.warnings.stages);
        let mut ahead = Ahead::default();
        for (stage, _) in stages.filter(|(_, standing)| !standing.above) {
            match stage.when {
                WarnWhen::Share(share) => {
                    let bytes = share_bytes(share, max_bytes);
                    ahead.bytes = Some(ahead.bytes.map_or(bytes, |nearest| nearest.min(bytes)));
                }
                WarnWhen::WithinMs(ms) => ahead.within_ms = ahead.within_ms.max(Some(ms)),
                WarnWhen::Pressure(_) => {}
            }
        }
        ahead
    }
}

/// Where `memory.high` rings next: when the unreclaimable part may have come to the next stage.
fn next_ring(service: &Service) -> Option<u64> {
    let (warn, memory) = (service.policy.warn, service.policy.memory?);
    let sample = service.sample.map(|(_, sample)| sample).unwrap_or_default();
    let used = sample.unreclaimable_bytes;
    let stages = warn.stages.iter().flatten().zip(&service.warnings.stages);
    let next = stages
        .filter(|(_, standing)| !standing.above)
        .filter_map(|(stage, _)| match stage.when {
            WarnWhen::Share(share) => Some(share_bytes(share, memory.max_bytes)).filter(|at| *at > used),
            // Growth shows in two readings: half of what is left is soon enough for the first.
            WarnWhen::WithinMs(_) => Some(used.saturating_add(memory.max_bytes.saturating_sub(used) / 2)),
            WarnWhen::Pressure(_) => None,
        })
        .min()?;
    let room = next.saturating_sub(used).max(memory.max_bytes / RING_ROOM_DIVISOR);
    let high = sample.current_bytes.saturating_add(room);
    // What comes closer to the limit than that rings by `max`.
    (warn.rings && high < memory.max_bytes - memory.max_bytes / RING_ROOM_DIVISOR).then_some(high)
}

impl Engine {
    /// Puts the doorbell where the next stage is; a run begins without one.
    fn set_ring(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let (run, high_bytes) = (service.run, next_ring(service));
        let stands = match (service.warnings.ring, high_bytes) {
            (Some(ring), Some(high)) => ring <= high,
            (None, None) => true,
            (None, Some(_)) | (Some(_), None) => false,
        };
        // One that rings early does no harm.
        if !stands {
            service.warnings.ring = high_bytes;
            plan.push(Action::Ring { unit, run, high_bytes });
        }
    }

    /// The doorbell goes above what is used now: by an older reading, or by none, it might stand below, and the kernel
    /// would reclaim in the call that puts it there (mm/memcontrol.c, `memory_high_write`).
    pub(super) fn read_for_stages(&self, unit: UnitId, plan: &mut Plan) {
        let warns = |service: &&Service| service.policy.warn.stages.iter().any(Option::is_some);
        if let Some(service) = self.unit(unit).filter(warns) {
            plan.push(Action::Sample { unit, run: service.run });
        }
    }

    /// It has rung, or nobody listens any more.
    pub(super) fn lift_ring(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let run = service.run;
        if service.warnings.ring.take().is_some() {
            plan.push(Action::Ring { unit, run, high_bytes: None });
        }
    }

    /// Gives the warnings that a reading calls for.
    pub(super) fn warn(&mut self, unit: UnitId, sample: MemorySample, plan: &mut Plan) {
        let now = self.now;
        for at in 0..WARN_STAGES_MAX {
            let Some(service) = self.unit_mut(unit) else { return };
            // Before it is ready it may not have its handlers yet: a signal would kill it.
            let is_up = service.state == State::Running && service.said_stopping.is_none();
            let (stage, memory) =
                (service.policy.warn.stages.get(at).copied().flatten(), service.policy.memory);
            let (Some(stage), Some(memory), true) = (stage, memory, is_up) else { continue };
            let (due, left) = judge(stage, sample, memory.max_bytes, &service.trend, now);
            let busy = stage.deed == WarnDeed::Run && service.commands.are_taken();
            let Some(standing) = service.warnings.stages.get_mut(at) else { continue };
            standing.above &= !left;
            let rests = standing.last.is_some_and(|last| now < last.plus_ms(u64::from(stage.every_ms)));
            if due && !standing.above && !rests && !busy {
                *standing = Standing { above: true, last: Some(now) };
                service.warnings.given = service.warnings.given.saturating_add(1);
                let limit_bytes = memory.max_bytes;
                let unreclaimable_bytes = sample.unreclaimable_bytes;
                plan.tell(Record::Warned { unit, stage, unreclaimable_bytes, limit_bytes });
                self.generation += 1;
                self.do_deed(unit, stage.deed, plan);
            }
        }
    }

    fn do_deed(&mut self, unit: UnitId, deed: WarnDeed, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        let (run, timeout_ms) = (service.run, u64::from(service.policy.warn.timeout_ms));
        match deed {
            WarnDeed::Log => {}
            WarnDeed::Signal(signal) if service.open.main => {
                plan.push(Action::Signal { unit, run, signal, reason: KillReason::Warned });
            }
            WarnDeed::Signal(_) => {}
            WarnDeed::Run => {
                self.run_command(unit, CommandKind::Warn, plan);
                self.timers.set(unit, TimerKind::Warn, self.now.plus_ms(timeout_ms));
            }
            WarnDeed::Notify => plan.push(Action::NotifyPressure { unit, run }),
            WarnDeed::Reclaim(bytes) => plan.push(Action::Reclaim { unit, run, bytes }),
        }
    }

    /// The warn command has taken too long.
    pub(super) fn warn_due(&mut self, unit: UnitId, plan: &mut Plan) {
        self.command_timed_out(unit, CommandKind::Warn, plan);
    }

    /// The doorbells are on again. Nothing rings when a service comes down from a stage: until then it is looked at.
    pub(super) fn watch_stages(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        let stages = service.policy.warn.stages.iter().flatten().zip(&service.warnings.stages);
        let above = stages.filter(|(_, standing)| standing.above);
        // As often as the next warning may be due, within bounds.
        if let Some(ms) = above.map(|(stage, _)| u64::from(stage.every_ms)).min() {
            let ms = ms.clamp(WARNED_READ_MS_MIN, WARNED_READ_MS);
            self.timers.set(unit, TimerKind::Sample, self.now.plus_ms(ms));
        }
        self.set_ring(unit, plan);
    }
}
