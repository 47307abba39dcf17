//! From the wish to a running service: park the procedure first, then make the service.
//!
//! A service never runs without its parked procedure: where that cannot be made, the service is not started.

use super::action::Action;
use super::drill::Rearm;
use super::event::{Exit, Role, SpawnStage};
use super::limits::START_DEADLINE_MS;
use super::moment::ToldBelow;
use super::otherwise::Otherwise;
use super::policy::{Kind, RunId, UnitId};
use super::record::Record;
use super::service::{End, Loan, Open, Procedure, Rest, Service, State};
use super::setting::Setting;
use super::snapshot::{Desired, KillReason, ProcedureResult};
use super::timer::TimerKind;
use super::warning::Warnings;
use super::{Engine, Plan};

/// `ETIMEDOUT` of errno(3), the same number on every Linux architecture but MIPS, PA-RISC and SPARC.
const ETIMEDOUT: i32 = 110;

/// `ESRCH` of errno(3): the process is gone.
pub(super) const ESRCH: i32 = 3;

/// A procedure that was not parked in time.
pub(super) const PARKED_TOO_LATE: ProcedureResult =
    ProcedureResult::SpawnFailed { stage: SpawnStage::Exec, errno: ETIMEDOUT };

impl Engine {
    pub(super) fn boot(&mut self) {
        if self.shutdown.is_some() {
            return;
        }
        self.booting = true;
        // The most useful first: it is served first where two conflict.
        for utility in (0..=u8::MAX).rev() {
            for unit in self.all() {
                let wished =
                    |service: &Service| service.policy.autostart && service.policy.utility == utility;
                if self.unit(unit).is_some_and(wished) {
                    self.want_up(unit);
                }
            }
        }
    }

    /// Wishes the unit up. What it requires is called for when `settle` looks at it.
    pub(super) fn want_up(&mut self, unit: UnitId) {
        let Some(service) = self.unit_mut(unit) else { return };
        if !service.may_start() || self.gives_way(unit) {
            return;
        }
        let turn = self.turn;
        let Some(service) = self.unit_mut(unit) else { return };
        service.desired = Desired::Up;
        service.wished_in_turn = turn;
        service.rival = None;
        service.calls_requirements = true;
        self.generation += 1;
        self.displace_rivals(unit);
        self.mark(unit);
        let Some(service) = self.unit_mut(unit) else { return };
        match service.state {
            // It is as good as up for who needs it.
            State::Down(Rest::Listening) if !service.demanded => {}
            State::Down(_) => {
                service.trouble = None;
                self.enter(unit, State::Waiting);
            }
            // What it lacks is called for too: until that is known to fail, it is on its way.
            State::Waiting => {
                if service.wants_its_requirement() {
                    service.trouble = None;
                    self.mark_around(unit);
                }
            }
            State::Backoff
            | State::Parking
            | State::Spawning
            | State::Readying
            | State::Running
            | State::Idling
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => {}
        }
    }

    /// Another unit needs this one: a task that is done has done its part, everything else is wished up.
    pub(super) fn call_up(&mut self, unit: UnitId) {
        let Some(service) = self.unit_mut(unit) else { return };
        if service.state == State::Down(Rest::Done) {
            service.desired = Desired::Up;
            self.generation += 1;
        } else {
            self.want_up(unit);
        }
    }

    pub(super) fn begin_run(&mut self, unit: UnitId, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        service.run = RunId(service.run.0 + 1);
        service.run_began = now;
        service.up_since = None;
        service.said_ready = false;
        service.end = None;
        (service.again, service.follows, service.demanded) = (false, false, false);
        service.said_stopping = None;
        service.killed_by = None;
        (service.stuck, service.still) = (false, false);
        service.told_below = ToldBelow { at: now, ..ToldBelow::default() };
        service.open = Open::default();
        service.pid = None;
        if service.wants_its_requirement() {
            service.trouble = None;
        }
        service.refused_settings = [0; Setting::COUNT];
        service.counters_at_start = service.counters;
        (service.procedure, service.keeps_parked) = (Procedure::Absent, false);
        (service.loan, service.saves_after_kill, service.rearm) = (Loan::None, false, Rearm::No);
        service.otherwise = Otherwise::No;
        service.procedure_oom_kill = (service.procedure_oom_kill.1, service.procedure_oom_kill.1);
        service.sample = None;
        service.waited_for_its_disk = None;
        service.warnings = Warnings::default();
        service.trend.begin();
        let counters = service.counters;
        service.standstill.begin(counters);
        service.canary.begin();
        service.restarts.started(now, &service.policy.restart);
        let (run, parks) = (service.run, service.policy.procedure.is_some_and(|it| it.has_program));
        if service.policy.kind == Kind::Target {
            self.reach(unit, plan);
        } else if parks {
            if let Some(service) = self.unit_mut(unit) {
                service.open.procedure = true;
            }
            self.enter(unit, State::Parking);
            self.step_deadline(unit, START_DEADLINE_MS);
            plan.push(Action::Park { unit, run });
        } else {
            self.guard_and_spawn(unit, run, plan);
        }
        self.listen(unit, plan);
    }

    /// A target is up at once: what it stands for is.
    fn reach(&mut self, unit: UnitId, plan: &mut Plan) {
        let now = self.now;
        if let Some(service) = self.unit_mut(unit) {
            service.up_since = Some(now);
        }
        self.enter(unit, State::Running);
        self.replace_fallback(unit, KillReason::Replaced);
        plan.tell(Record::Reached { unit });
        self.answer_started(unit, plan);
    }

    pub(super) fn spawn(&mut self, unit: UnitId, run: RunId, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.unit_mut(unit) else { return };
        service.open.main = true;
        service.ready_by = now.plus_ms(u64::from(service.policy.start_timeout_ms));
        let ready_by = service.ready_by;
        self.enter(unit, State::Spawning);
        self.timers.set(unit, TimerKind::Step, ready_by);
        plan.push(Action::Spawn { unit, run });
    }

    pub(super) fn parked(&mut self, unit: UnitId, run: RunId, plan: &mut Plan) {
        let now = self.now;
        let Some(service) = self.live(unit, run) else { return };
        if service.is_rearming(Rearm::Parking) {
            self.rearmed(unit, plan);
            return;
        }
        if service.otherwise == Otherwise::Making && service.state == State::Saving {
            self.let_otherwise_go(unit, plan);
            return;
        }
        match service.state {
            State::Parking => {
                service.procedure = Procedure::Parked;
                service.parked_at = now;
                self.guard_and_spawn(unit, run, plan);
            }
            // The start was given up meanwhile: `Killing` has killed, or will kill, the process.
            State::Down(_)
            | State::Killing
            | State::Waiting
            | State::Backoff
            | State::Spawning
            | State::Readying
            | State::Running
            | State::Idling
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled => {}
        }
    }

    pub(super) fn spawned(&mut self, unit: UnitId, run: RunId, pid: u32, plan: &mut Plan) {
        let Some(service) = self.live(unit, run) else { return };
        if service.open.main && service.pid != Some(pid) {
            service.pid = Some(pid);
            self.generation += 1;
        }
        let Some(service) = self.unit(unit) else { return };
        match service.state {
            State::Spawning => self.wait_until_ready(unit, plan),
            State::Down(_)
            | State::Waiting
            | State::Backoff
            | State::Parking
            | State::Readying
            | State::Running
            | State::Idling
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled
            | State::Killing => {}
        }
    }

    pub(super) fn spawn_failed(
        &mut self,
        (unit, run): (UnitId, RunId),
        role: Role,
        (stage, errno): (SpawnStage, i32),
        plan: &mut Plan,
    ) {
        let result = ProcedureResult::SpawnFailed { stage, errno };
        if role == Role::Command {
            self.command_ended(unit, run, result, plan);
            return;
        }
        let Some(service) = self.live(unit, run) else { return };
        let procedure = match role {
            // It was up: only its exit ends it.
            Role::Service if service.pid.is_some() => return,
            Role::Service => {
                service.open.main = false;
                false
            }
            Role::Ballast => {
                service.open.ballast = false;
                false
            }
            Role::Procedure | Role::Command => {
                service.open.procedure = false;
                service.procedure = service.procedure.gone(result);
                true
            }
        };
        plan.tell(Record::SpawnFailed { unit, role, stage, errno });
        if procedure && self.unit(unit).is_some_and(|it| it.is_rearming(Rearm::Parking)) {
            self.rearm_failed(unit, result, plan);
            return;
        }
        let Some(service) = self.unit(unit) else { return };
        if role == Role::Ballast && service.may_lose_its_ballast() {
            self.ballast_lost(unit, None, plan);
            return;
        }
        match service.state {
            State::Parking | State::Spawning => self.start_failed(unit, (stage, errno, procedure), plan),
            State::Saving if procedure => self.procedure_failed(unit, result, plan),
            // A procedure that died in its parking place while all was well: found out when it is needed.
            State::Readying
            | State::Running
            | State::Idling
            | State::Freezing
            | State::Queued
            | State::Saving
            | State::Asking
            | State::Signalled => {}
            State::Killing => self.finish_run_if_over(unit, plan),
            State::Down(Rest::Listening) if stage == SpawnStage::Sockets => {
                self.listen_failed(unit, (stage, errno), plan);
            }
            State::Down(_) | State::Waiting | State::Backoff => {}
        }
    }

    /// The kernel did not take a setting. Where the unit does not do without, `SpawnFailed` follows.
    pub(super) fn setting_refused(
        &mut self,
        (unit, run): (UnitId, RunId),
        setting: Setting,
        (errno, skipped): (i32, bool),
        plan: &mut Plan,
    ) {
        let Some(service) = self.live(unit, run) else { return };
        let Some(noted) = service.refused_settings.get_mut(setting as usize) else { return };
        // Once for the service and once for its procedure, or for each of several paths: told once.
        if *noted == 0 {
            *noted = u8::try_from(errno).unwrap_or(u8::MAX).max(1);
            self.generation += 1;
            plan.tell(Record::SettingRefused { unit, setting, errno, skipped });
        }
    }

    pub(super) fn start_timed_out(&mut self, unit: UnitId, plan: &mut Plan) {
        let Some(service) = self.unit(unit) else { return };
        let (ballast, parking) = (service.open.ballast, service.state == State::Parking);
        let stage = if parking && ballast { SpawnStage::Clone } else { SpawnStage::Exec };
        self.start_failed(unit, (stage, ETIMEDOUT, parking && !ballast), plan);
    }

    /// The procedure ended before the service was up: without it the service does not run.
    pub(super) fn start_lost_its_procedure(&mut self, unit: UnitId, exit: Exit, plan: &mut Plan) {
        plan.tell(Record::ProcedureLost { unit, exit });
        self.start_failed(unit, (SpawnStage::Exec, ESRCH, true), plan);
    }

    pub(super) fn start_failed(&mut self, unit: UnitId, what: (SpawnStage, i32, bool), plan: &mut Plan) {
        let (stage, errno, procedure) = what;
        self.begin_end(unit, End::StartFailed { stage, errno, procedure }, plan);
        self.kill(unit, KillReason::StartFailed, plan);
    }
}
