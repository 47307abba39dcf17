//! Limits that are changed while the unit runs, without a kill by the kernel.
//!
//! A write of `memory.max` below what is used reclaims in the writer, and then kills (mm/memcontrol.c,
//! `memory_max_write`). So it is lowered in steps, all of whose waiting is done by a process aside: reclaim while the
//! unit runs; hold the unit still, so that nothing grows any more; reclaim the rest, look whether it fits with some
//! room, and only then write; let the unit go on. What does not fit is refused, or the unit's procedure saves it and
//! its next run begins with the new limit, as asked.
//!
//! For a change of a unit's file that touches nothing but limits the same way serves: one `Event::LimitAsked` for each
//! limit, from a client that nobody is. The runtime keeps what was taken in the unit, so that later runs have it too.

use super::action::{Action, LimitAnswer, LimitOutcome, LimitStep, Reply};
use super::event::{Below, ClientId, Tried};
use super::limits::{FREEZE_DEADLINE_MS, LIMIT_RECLAIM_MS, LIMIT_SET_MS};
use super::policy::{Class, Guard, Kind, MemoryPolicy, RunId, UnitId};
use super::record::Record;
use super::service::{Service, State};
use super::setting::{Limit, Setting};
use super::snapshot::Verdict;
use super::timer::TimerKind;
use super::{Engine, Plan};
use serde::{Deserialize, Serialize};

/// What is being done about a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// It is written at once.
    AtOnce,
    /// Memory is reclaimed while the unit runs.
    Reclaiming,
    /// The unit is to stand still.
    Holding,
    /// It stands still; the limit is written where there is room.
    Setting,
}

/// A limit that is being changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limiting {
    client: Option<ClientId>,
    limit: Limit,
    below: Below,
    stage: Stage,
}

/// What all pool units and all guaranteed units may have together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) guaranteed_bytes: u64,
    pub(super) pool_bytes: u64,
}

impl Engine {
    /// The division of memory by which new bounds are judged: what is the pool's stays the pool's while it runs.
    pub fn set_room(&mut self, guaranteed_bytes: u64, pool_bytes: u64) {
        self.room = Room { guaranteed_bytes, pool_bytes };
    }

    pub(super) fn limit_asked(
        &mut self,
        (client, below): (ClientId, Below),
        unit: UnitId,
        limit: Limit,
        plan: &mut Plan,
    ) {
        if self.shutdown.is_some() {
            plan.push(Action::Reply { client, reply: Reply::ShuttingDown });
            return;
        }
        if let Some(answer) = self.refusal(unit, limit) {
            plan.push(Action::ReplyLimit { client, answer });
            return;
        }
        let Some(service) = self.unit_mut(unit) else { return };
        let run = service.run;
        let stage = if is_lowering(service.policy.memory, limit) { Stage::Reclaiming } else { Stage::AtOnce };
        match service.state {
            State::Running if service.limiting.is_none() && service.said_stopping.is_none() => {
                service.limiting = Some(Limiting { client: Some(client), limit, below, stage });
                let step = match stage {
                    Stage::Reclaiming => LimitStep::Reclaim,
                    Stage::AtOnce | Stage::Holding | Stage::Setting => LimitStep::AtOnce,
                };
                plan.push(Action::TryLimit { unit, run, limit, step });
                self.step_deadline(unit, LIMIT_RECLAIM_MS);
            }
            State::Down(_) | State::Waiting | State::Backoff => {
                self.keep_limit(unit, limit, plan);
                plan.push(Action::ReplyLimit { client, answer: LimitOutcome::Kept.into() });
            }
            State::Running
            | State::Parking
            | State::Spawning
            | State::Readying
            | State::Idling
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => {
                plan.push(Action::ReplyLimit { client, answer: LimitOutcome::NotNow.into() });
            }
        }
    }

    /// Why a limit is not even tried.
    fn refusal(&self, unit: UnitId, limit: Limit) -> Option<LimitAnswer> {
        let Some(service) = self.unit(unit).filter(|service| service.policy.refused.is_none()) else {
            return Some(LimitOutcome::Refused.into());
        };
        if service.policy.kind == Kind::Target {
            // It has no process to bound.
            return Some(LimitOutcome::NoBound.into());
        }
        let memory = service.policy.memory;
        match (limit.setting, memory, limit.value) {
            (Setting::MemoryMax, None, _) | (Setting::MemoryMax, Some(_), None) => {
                Some(LimitOutcome::NoBound.into())
            }
            (Setting::MemoryMax, Some(memory), Some(bytes)) => self.over_budget(unit, memory, bytes),
            (
                Setting::MemoryHigh,
                Some(MemoryPolicy { guard: Guard::Shield | Guard::Canary, .. }),
                Some(_),
            ) => Some(LimitOutcome::Shielded.into()),
            _ => None,
        }
    }

    /// The same rules by which memory was divided before anything started (`budget`).
    fn over_budget(&self, unit: UnitId, memory: MemoryPolicy, bytes: u64) -> Option<LimitAnswer> {
        let others = |counts: &dyn Fn(MemoryPolicy) -> bool| {
            let others = self.units.iter().enumerate().filter(|(at, _)| *at != usize::from(unit.0));
            others
                .filter(|(_, service)| service.policy.refused.is_none())
                .filter_map(|(_, service)| service.policy.memory.filter(|memory| counts(*memory)))
                .fold(0_u64, |sum, memory| sum.saturating_add(memory.max_bytes))
        };
        let Room { guaranteed_bytes, pool_bytes } = self.room;
        let free_bytes = match (memory.class, memory.guard) {
            (Class::Guaranteed, _) => {
                guaranteed_bytes.saturating_sub(others(&|other| other.class == Class::Guaranteed))
            }
            (Class::Pool, Guard::Shield) => pool_bytes
                .saturating_sub(others(&|other| other.class == Class::Pool && other.guard == Guard::Shield)),
            (Class::Pool, Guard::Canary | Guard::None) => pool_bytes,
        };
        let is_more = bytes > memory.max_bytes;
        (is_more && bytes > free_bytes)
            .then_some(LimitAnswer { free_bytes: Some(free_bytes), ..LimitOutcome::OverBudget.into() })
    }

    /// What came of a step. What the kernel has taken holds, whoever still waits for it.
    pub(super) fn limit_tried(
        &mut self,
        (unit, run): (UnitId, RunId),
        limit: Limit,
        tried: Tried,
        plan: &mut Plan,
    ) {
        let Some(service) = self.live(unit, run) else { return };
        if tried == Tried::Taken {
            note_limit(service, limit);
            if matches!(limit.setting, Setting::MemoryHigh | Setting::MemoryMax) {
                // The next stage is elsewhere now.
                self.read_for_stages(unit, plan);
            }
            self.generation += 1;
            plan.tell(Record::LimitChanged { unit, limit, kept: false });
        }
        let Some(service) = self.live(unit, run) else { return };
        let Some(limiting) = service.limiting.filter(|limiting| limiting.limit == limit) else { return };
        match (limiting.stage, tried) {
            (Stage::AtOnce | Stage::Setting, Tried::Taken) => {
                self.finish_limiting(unit, LimitOutcome::Applied.into(), plan);
            }
            (Stage::Reclaiming, Tried::Fits) => {
                service.limiting = Some(Limiting { stage: Stage::Holding, ..limiting });
                service.still = true;
                self.step_deadline(unit, FREEZE_DEADLINE_MS);
                self.stop_clocks(unit, plan);
                plan.push(Action::Hold { unit, run });
            }
            (Stage::Reclaiming | Stage::Setting, Tried::TooFull { current_bytes }) => {
                self.too_full(unit, limiting, current_bytes, plan);
            }
            (_, Tried::Refused { errno }) => self.limit_not_taken(unit, errno, plan),
            // Of an earlier step.
            (_, Tried::Fits | Tried::Taken | Tried::TooFull { .. }) => {}
        }
    }

    /// The unit stands still: nothing can grow between the look and the write.
    pub(super) fn held(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let run = service.run;
        let Some(limiting) = service.limiting.as_mut().filter(|it| it.stage == Stage::Holding) else {
            return;
        };
        limiting.stage = Stage::Setting;
        let limit = limiting.limit;
        self.step_deadline(unit, LIMIT_SET_MS);
        plan.push(Action::TryLimit { unit, run, limit, step: LimitStep::Set });
    }

    pub(super) fn limit_not_taken(&mut self, unit: UnitId, errno: i32, plan: &mut Plan) {
        let answer = LimitAnswer { errno: Some(errno), ..LimitOutcome::NotTaken.into() };
        self.finish_limiting(unit, answer, plan);
    }

    /// The step has taken too long: what is aside is given up.
    pub(super) fn limiting_timed_out(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit).filter(|service| service.limiting.is_some()) else { return };
        plan.push(Action::EndLimit { unit, run: service.run });
        self.finish_limiting(unit, LimitOutcome::TimedOut.into(), plan);
    }

    /// It uses more than the new limit, and that cannot be reclaimed.
    fn too_full(&mut self, unit: UnitId, limiting: Limiting, current_bytes: u64, plan: &mut Plan) {
        let answer =
            |outcome: LimitOutcome| LimitAnswer { current_bytes: Some(current_bytes), ..outcome.into() };
        let Some(service) = self.unit(unit) else { return };
        let saves =
            service.policy.procedure.is_some_and(|procedure| procedure.on_exhaustion) && service.can_save();
        let rescues = limiting.below == Below::Rescue && limiting.limit.setting == Setting::MemoryMax;
        match (rescues, saves) {
            (false, _) => self.finish_limiting(unit, answer(LimitOutcome::BelowUse), plan),
            (true, false) => self.finish_limiting(unit, answer(LimitOutcome::NoProcedure), plan),
            (true, true) => {
                self.answer_limiting(unit, answer(LimitOutcome::Rescued), plan);
                self.keep_limit(unit, limiting.limit, plan);
                self.rescue(unit, Verdict::LimitLowered { current_bytes }, plan);
            }
        }
    }

    /// It holds from the next run on.
    fn keep_limit(&mut self, unit: UnitId, limit: Limit, plan: &mut Plan) {
        let Some(service) = self.unit_mut(unit) else { return };
        let run = service.run;
        note_limit(service, limit);
        self.generation += 1;
        plan.push(Action::TryLimit { unit, run, limit, step: LimitStep::Keep });
        plan.tell(Record::LimitChanged { unit, limit, kept: true });
    }

    /// The change is over, and the unit goes on.
    fn finish_limiting(&mut self, unit: UnitId, answer: LimitAnswer, plan: &mut Plan) {
        let Some(limiting) = self.answer_limiting(unit, answer, plan) else { return };
        if matches!(limiting.stage, Stage::Holding | Stage::Setting) {
            self.thaw(unit, plan);
            self.start_clocks(unit);
        }
    }

    fn answer_limiting(&mut self, unit: UnitId, answer: LimitAnswer, plan: &mut Plan) -> Option<Limiting> {
        let limiting = self.unit_mut(unit)?.limiting.take()?;
        self.timers.clear(unit, TimerKind::Step);
        if let Some(client) = limiting.client {
            plan.push(Action::ReplyLimit { client, answer });
        }
        Some(limiting)
    }

    /// The run goes to its end. It stays held where its procedure or the kill comes next; a signal is to be obeyed.
    pub(super) fn overrule_limiting(&mut self, unit: UnitId, goes_on: bool, plan: &mut Plan) {
        if self.answer_limiting(unit, LimitOutcome::Overruled.into(), plan).is_none() {
            return;
        }
        let run = self.unit(unit).map_or(RunId(0), |service| service.run);
        plan.push(Action::EndLimit { unit, run });
        if goes_on {
            self.thaw(unit, plan);
        }
    }

    /// Nobody waits for the answer any more.
    pub(super) fn forget_limiting(&mut self, client: ClientId) {
        for limiting in self.units.iter_mut().filter_map(|service| service.limiting.as_mut()) {
            limiting.client = limiting.client.filter(|waiting| *waiting != client);
        }
    }
}

fn is_lowering(memory: Option<MemoryPolicy>, limit: Limit) -> bool {
    match (limit.setting, limit.value) {
        (Setting::MemoryMax, Some(bytes)) => memory.is_some_and(|memory| bytes < memory.max_bytes),
        // It kills nothing, but a unit that cannot get below it would be slowed down for good.
        (Setting::MemoryHigh, Some(_)) => true,
        _ => false,
    }
}

fn note_limit(service: &mut Service, limit: Limit) {
    if limit.setting == Setting::MemoryHigh {
        // A person's own bound is no doorbell.
        service.policy.warn.rings = limit.value.is_none();
        service.warnings.forget_ring();
    }
    match (limit.setting, limit.value, &mut service.policy.memory) {
        (Setting::MemoryMax, Some(bytes), Some(memory)) => memory.max_bytes = bytes,
        (Setting::MemoryHigh, value, Some(memory)) => memory.high_bytes = value,
        _ => {}
    }
}
