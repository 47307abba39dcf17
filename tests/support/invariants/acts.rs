//! What the engine asks the kernel for: of the present run only, and procedures within the reserve.

use super::{Invariant, Seen, Violation, Watch, hold};
use crate::fake_kernel::FakeKernel;
use crate::random_units::RESERVE_BYTES;
use lifeboat::engine::action::{Action, CommandOrder, ProcedureOrder};
use lifeboat::engine::event::{ClientId, CommandKind, MemoryEvents, Note, Role, Time};
use lifeboat::engine::limits::KILL_TRIES_MAX;
use lifeboat::engine::policy::{Guard, Kind, RunId, ServiceMode, UnitId};
use lifeboat::engine::record::Record;
use lifeboat::engine::snapshot::KillReason;

impl Watch {
    pub(super) fn exhaustion(
        &mut self,
        unit: UnitId,
        run: RunId,
        counters: MemoryEvents,
        kernel: &mut FakeKernel,
    ) {
        let policy = &self.policies[usize::from(unit.0)];
        let shielded = policy.memory.is_some_and(|memory| memory.guard == Guard::Shield);
        // A kill may be its ballast's, and that the machine's affair.
        let canary = policy.memory.is_some_and(|memory| memory.guard == Guard::Canary);
        let saves = policy.procedure.is_some_and(|procedure| procedure.on_exhaustion);
        let ready = run.0 > 0 && kernel.truth(unit, run).procedure.main;
        let Some(seen) = self.present(unit, run) else { return };
        let killed = counters.oom_kill > seen.counters.oom_kill && !canary;
        let rose = killed || (counters.oom > seen.counters.oom && (shielded || canary));
        seen.counters = counters;
        let alive = seen.parked && seen.exit.is_none() && !seen.procedure_over;
        if rose && saves && ready && alive && !seen.ending {
            seen.must_save = true;
        }
    }

    /// A start limit may end the machine too: what the turn says of that, before its actions.
    pub(crate) fn actions(&mut self, now: Time, actions: &[Action]) {
        self.escalated = false;
        self.heard(now, actions);
        if actions.iter().any(|action| matches!(action, Action::Log(Record::ShuttingDown { .. }))) {
            self.shutdown_at.get_or_insert(now);
        }
        // Those who waited for somebody to go are started now, and call for what they require.
        let goes = |action: &Action| {
            matches!(action, Action::Dismiss { .. } | Action::Log(Record::StillPopulated { .. }))
        };
        if actions.iter().any(goes) {
            self.seen.iter_mut().for_each(|seen| seen.starts.clear());
        }
        for action in actions {
            match action {
                Action::Log(Record::Reached { unit }) => self.reached(now, *unit),
                // Another may take the place of one that is over, unless the unit goes.
                Action::Log(Record::ProcedureLost { unit, .. }) => {
                    let seen = &mut self.seen[usize::from(unit.0)];
                    (seen.rearms, seen.rearm_kills) = (seen.procedure_over, 0);
                }
                Action::Log(Record::Drill { unit, to_the_end: false }) => {
                    self.seen[usize::from(unit.0)].drills = true;
                }
                Action::Log(Record::Stopping { unit, reason }) => self.stopping(*unit, *reason),
                Action::Log(Record::Notified { unit, note: Note::Stopping }) => {
                    let stop_timeout_ms = self.policies[usize::from(unit.0)].stop_timeout_ms;
                    let gone_by = now.plus_ms(u64::from(stop_timeout_ms));
                    self.seen[usize::from(unit.0)].gone_by = Some(gone_by);
                }
                _ => {}
            }
        }
    }

    /// Of a target no more is seen than these words.
    fn reached(&mut self, now: Time, unit: UnitId) {
        let seen = &mut self.seen[usize::from(unit.0)];
        let Seen { born, counters, command, command_kills, .. } = *seen;
        let run = RunId(seen.run.0 + 1);
        *seen = Seen { run, born, ready: Some(now), counters, command, command_kills, ..Seen::default() };
    }

    fn stopping(&mut self, unit: UnitId, reason: KillReason) {
        let seen = &mut self.seen[usize::from(unit.0)];
        seen.stopping = true;
        let for_others = [
            KillReason::RequirementRestarts,
            KillReason::RequirementDown,
            KillReason::StopAsked,
            KillReason::Conflict,
            KillReason::Idle,
        ];
        if for_others.contains(&reason) {
            // It ends for another unit's sake, or because nobody needs it: that start does not count. It may be one
            // of this turn.
            self.excused.push(unit);
        }
        if self.policies[usize::from(unit.0)].kind == Kind::Target {
            // What started in this turn may have done so before.
            self.targets_down.push((unit, seen.run));
        }
    }

    /// Before the kernel performs the action.
    pub(crate) fn action(
        &mut self,
        now: Time,
        action: Action,
        kernel: &mut FakeKernel,
    ) -> Result<(), Violation> {
        self.stands_still(action);
        match action {
            Action::CheckConditions { unit, .. } => self.seen[usize::from(unit.0)].conditions = None,
            Action::ReadPeak { unit, run } => self.of_the_present(action, unit, run)?,
            Action::Park { unit, run } if self.present(unit, run).is_some() => {
                self.parks_again(unit, run, kernel)?;
            }
            Action::Park { unit, run } => self.begins(now, (unit, run), kernel)?,
            Action::ParkOtherwise { unit, run } => self.parks_otherwise((unit, run), kernel)?,
            Action::MakeBallast { unit, run, .. } => self.makes_ballast(now, (unit, run), kernel)?,
            Action::Spawn { unit, run } => self.spawn(now, (unit, run), kernel)?,
            Action::RunCommand { unit, run, order } => {
                self.runs_command(action, (unit, run), order, kernel)?
            }
            Action::KillCommand { unit, run, .. } => self.kills_command(action, (unit, run))?,
            Action::Probe { unit, run }
            | Action::Signal { unit, run, reason: KillReason::ReloadAsked | KillReason::Warned, .. } => {
                self.of_the_present(action, unit, run)?;
                let ready = self.present(unit, run).is_some_and(|seen| seen.ready.is_some() && !seen.ending);
                hold(Invariant::OnlyThePresentRun, ready, || format!("{action:?} of what is not up"))?;
            }
            Action::Lend { .. } | Action::TakeBack { .. } => self.lends(action, kernel)?,
            // It is to save itself.
            Action::Thaw { unit, run } if self.saves_itself(unit, run) => {
                self.of_the_present(action, unit, run)?
            }
            Action::Thaw { unit, run } if self.drills(unit, run) => self.back_from_drill(now, unit, run),
            Action::Hold { unit, run } | Action::Thaw { unit, run } => {
                self.holds(now, action, (unit, run), kernel)?;
            }
            Action::Freeze { unit, run } | Action::Signal { unit, run, .. } => {
                self.goes(now, action, (unit, run))?;
            }
            Action::StartProcedure { unit, run, order } => {
                self.of_the_present(action, unit, run)?;
                self.releases((unit, run), order, kernel)?;
            }
            Action::SignalAll { unit, run, .. } => {
                self.of_the_present(action, unit, run)?;
                let over = self.present(unit, run).is_some_and(|seen| seen.exit.is_some());
                hold(Invariant::OnlyThePresentRun, over, || {
                    format!("{action:?} before its first process ended")
                })?;
            }
            Action::KillCgroup { unit, run, role, .. } => {
                self.of_the_present(action, unit, run)?;
                self.kills(now, (unit, run), role, kernel)?;
            }
            Action::Reply { client, .. } | Action::ReplyLimit { client, .. } => {
                self.replies(action, client)?
            }
            Action::Listen { .. } | Action::LookIdle { .. } | Action::CloseDescriptors { .. } => {
                self.rests(now, action, kernel)?
            }
            Action::Finish { .. } => self.finish(now, kernel)?,
            Action::KeepIncident { number, .. } => {
                hold(Invariant::IncidentsKept, self.kept.insert(number), || format!("{number} twice"))?;
            }
            Action::Adopt { unit } => self.adopts(unit, kernel)?,
            Action::Dismiss { unit } => self.nothing_left(unit, kernel)?,
            Action::Doorbells { unit, run, .. }
            | Action::Ring { unit, run, .. }
            | Action::Reclaim { unit, run, .. }
            | Action::ReleaseMemory { unit, run }
            | Action::NotifyPressure { unit, run } => self.of_the_present(action, unit, run)?,
            Action::TryLimit { .. } | Action::EndLimit { .. } | Action::EndProbe { .. } => {}
            Action::LookForPath { .. } | Action::Sample { .. } => {}
            Action::Log(record) => self.drills_in_time(now, record)?,
        }
        Ok(())
    }

    fn spawn(
        &mut self,
        now: Time,
        (unit, run): (UnitId, RunId),
        kernel: &FakeKernel,
    ) -> Result<(), Violation> {
        let parks = self.policies[usize::from(unit.0)].procedure.is_some_and(|it| it.has_program);
        let canary = self.has_canary(unit);
        if !parks && !canary {
            self.begins(now, (unit, run), kernel)?;
        }
        let guarded = !canary || self.present(unit, run).is_some_and(|seen| seen.guarded);
        hold(Invariant::GuardedBeforeSpawn, guarded, || format!("{unit:?} {run:?}"))?;
        let name = || format!("{unit:?} {run:?}");
        hold(Invariant::NothingStartsInShutdown, !self.shutting_down(), name)?;
        let parked = self.present(unit, run).is_some_and(|seen| seen.parked);
        self.spawns(now, unit, run);
        hold(Invariant::ParkedBeforeSpawn, !parks || parked, name)
    }

    fn has_canary(&self, unit: UnitId) -> bool {
        self.policies[usize::from(unit.0)].memory.is_some_and(|memory| memory.guard == Guard::Canary)
    }

    /// The first of a run, or one in the place of another that is gone.
    fn makes_ballast(
        &mut self,
        now: Time,
        (unit, run): (UnitId, RunId),
        kernel: &mut FakeKernel,
    ) -> Result<(), Violation> {
        if self.present(unit, run).is_none() {
            self.begins(now, (unit, run), kernel)?;
        }
        let alone = !kernel.truth(unit, run).service.ballast;
        hold(Invariant::OneRunAtOnce, alone, || format!("{unit:?} {run:?}: a ballast beside another"))
    }

    fn lends(&mut self, action: Action, kernel: &mut FakeKernel) -> Result<(), Violation> {
        match action {
            Action::Lend { unit, run, lend_bytes, .. } => {
                self.of_the_present(action, unit, run)?;
                self.reserve_holds(unit, lend_bytes, kernel)
            }
            Action::TakeBack { unit, run, .. } => {
                let truth = kernel.truth(unit, run);
                let (gone, lent_bytes) = (!truth.service.populated(), truth.lent_bytes);
                let failed = truth.loan_failed;
                hold(Invariant::ReserveHolds, gone && (lent_bytes > 0 || failed), || {
                    format!("{action:?}: gone {gone}, lent {lent_bytes}")
                })
            }
            _ => Ok(()),
        }
    }

    fn replies(&mut self, action: Action, client: ClientId) -> Result<(), Violation> {
        let open = self.open_requests.entry(client.0).or_default();
        let fine = *open > 0 && !self.gone.contains(&client);
        *open = open.saturating_sub(1);
        self.reloads.retain(|(asked_by, _)| *asked_by != client);
        hold(Invariant::OneReply, fine, || format!("{action:?} to nobody"))
    }

    fn kills_command(&mut self, action: Action, (unit, number): (UnitId, RunId)) -> Result<(), Violation> {
        let seen = &mut self.seen[usize::from(unit.0)];
        hold(Invariant::OneCommandAtOnce, seen.command == number, || format!("{action:?} of another"))?;
        seen.command_kills += 1;
        Ok(())
    }

    /// Numbers count up over all runs; nothing begins beside a service that ends, but the command that stops it.
    fn runs_command(
        &mut self,
        action: Action,
        (unit, number): (UnitId, RunId),
        order: CommandOrder,
        kernel: &FakeKernel,
    ) -> Result<(), Violation> {
        let free = !kernel.command_lives(unit);
        hold(Invariant::OneCommandAtOnce, free, || format!("{action:?} beside another"))?;
        let finished = self.finished;
        let seen = &mut self.seen[usize::from(unit.0)];
        let up = seen.ready.is_some() && seen.exit.is_none_or(|_| order.kind == CommandKind::Stop);
        let fine = number.0 == seen.command.0 + 1 && up && !seen.ending && !seen.signalled && !finished;
        (seen.command, seen.command_kills) = (number, 0);
        hold(Invariant::OneCommandAtOnce, fine, || format!("{action:?}: {seen:?}"))
    }

    /// It is on its way down, or is looked at once more before that.
    fn goes(&mut self, now: Time, action: Action, (unit, run): (UnitId, RunId)) -> Result<(), Violation> {
        self.of_the_present(action, unit, run)?;
        if let Some(seen) = self.present(unit, run) {
            seen.stands_still = std::mem::take(&mut seen.idle);
            if !seen.stands_still {
                seen.goes_since.get_or_insert(now);
            }
            seen.ending |= matches!(action, Action::Freeze { .. }) && !seen.stands_still;
            seen.signalled |= matches!(action, Action::Signal { .. });
        }
        Ok(())
    }

    /// A unit that is up stands still for a new limit, or goes on.
    fn holds(
        &mut self,
        now: Time,
        action: Action,
        (unit, run): (UnitId, RunId),
        kernel: &FakeKernel,
    ) -> Result<(), Violation> {
        self.of_the_present(action, unit, run)?;
        let idle = self.present(unit, run).is_some_and(|seen| seen.held.is_none());
        if idle && matches!(action, Action::Thaw { .. }) {
            return self.rests(now, action, kernel);
        }
        let still = matches!(action, Action::Hold { .. });
        let Some(seen) = self.present(unit, run) else { return Ok(()) };
        let up = seen.ready.is_some() && seen.exit.is_none() && !seen.ending;
        let fits = seen.held.is_none() == still && (up || !still);
        hold(Invariant::HeldForAMoment, fits, || format!("{unit:?}, still {still}: {seen:?}"))?;
        seen.held = still.then_some(now);
        seen.alive = now;
        Ok(())
    }

    pub(super) fn of_the_present(
        &mut self,
        action: Action,
        unit: UnitId,
        run: RunId,
    ) -> Result<(), Violation> {
        hold(Invariant::OnlyThePresentRun, self.present(unit, run).is_some(), || format!("{action:?}"))
    }

    pub(super) fn releases(
        &mut self,
        (unit, run): (UnitId, RunId),
        order: ProcedureOrder,
        kernel: &FakeKernel,
    ) -> Result<(), Violation> {
        let bytes =
            self.policies[usize::from(unit.0)].procedure.map_or(0, |procedure| procedure.memory_bytes);
        self.reserve_holds(unit, bytes, kernel)?;
        let Some(seen) = self.present(unit, run) else { return Ok(()) };
        (seen.releases, seen.ending) = (seen.releases + 1, true);
        let once = seen.releases == 1 && seen.parked;
        hold(Invariant::ReleasedOnce, once, || format!("{unit:?} {run:?} {order:?}"))
    }

    fn drills(&mut self, unit: UnitId, run: RunId) -> bool {
        self.present(unit, run).is_some_and(|seen| seen.drills)
    }

    /// It goes on as if nothing had been; its procedure is parked anew.
    fn back_from_drill(&mut self, now: Time, unit: UnitId, run: RunId) {
        if let Some(seen) = self.present(unit, run) {
            (seen.drills, seen.rearms, seen.rearm_kills) = (false, true, 1);
            (seen.ending, seen.goes_since, seen.kills, seen.alive) = (false, None, [0, 0], now);
        }
    }

    fn parks_again(&mut self, unit: UnitId, run: RunId, kernel: &mut FakeKernel) -> Result<(), Violation> {
        let left = kernel.truth(unit, run).procedure.populated();
        let Some(seen) = self.present(unit, run) else { return Ok(()) };
        let fits = std::mem::take(&mut seen.rearms) && !left;
        (seen.parked, seen.procedure_over, seen.releases, seen.rearm_kills) = (false, false, 0, 0);
        hold(Invariant::ReleasedOnce, fits, || format!("{unit:?} {run:?} parks again, left behind: {left}"))
    }

    fn stands_still(&mut self, action: Action) {
        let (unit, still, signalled) = match action {
            Action::Freeze { unit, .. } | Action::Hold { unit, .. } => (unit, true, false),
            Action::Thaw { unit, .. } | Action::KillCgroup { unit, role: Role::Service, .. } => {
                (unit, false, false)
            }
            // These do not end it, and are heard when it goes on.
            Action::Signal { reason: KillReason::ReloadAsked | KillReason::Warned, .. } => return,
            Action::Signal { unit, .. } => (unit, self.seen[usize::from(unit.0)].still, true),
            _ => return,
        };
        let seen = &mut self.seen[usize::from(unit.0)];
        (seen.still, seen.unheard) = (still, still && (signalled || seen.unheard));
    }

    /// The second procedure comes once, after the first has failed or was lost, and when nothing of that is left.
    fn parks_otherwise(&mut self, id: (UnitId, RunId), kernel: &mut FakeKernel) -> Result<(), Violation> {
        let (unit, run) = id;
        let has_one = self.policies[usize::from(unit.0)].procedure.is_some_and(|it| it.has_otherwise);
        let left = kernel.truth(unit, run).procedure.populated();
        let Some(seen) = self.present(unit, run) else {
            return hold(Invariant::OnlyThePresentRun, false, || format!("{unit:?} {run:?}"));
        };
        let had_its_turn = seen.releases == 1 || seen.procedure_over;
        let fits = has_one && had_its_turn && !seen.otherwise && !left;
        (seen.otherwise, seen.parked, seen.procedure_over, seen.releases) = (true, false, false, 0);
        hold(Invariant::ReleasedOnce, fits, || format!("{unit:?} {run:?} second, left behind: {left}"))
    }

    fn saves_itself(&mut self, unit: UnitId, run: RunId) -> bool {
        let running = self.policies[usize::from(unit.0)].procedure.map(|it| it.service);
        running == Some(ServiceMode::Running) && self.present(unit, run).is_some_and(|seen| seen.signalled)
    }

    /// What procedures may use and services are lent, together.
    fn reserve_holds(&self, unit: UnitId, more_bytes: u64, kernel: &FakeKernel) -> Result<(), Violation> {
        let bytes = |unit: UnitId| {
            self.policies[usize::from(unit.0)].procedure.map_or(0, |procedure| procedure.memory_bytes)
        };
        let used: u64 = kernel
            .living()
            .filter(|(other, ..)| *other != unit)
            // What outlives all kills, or most of them, does not keep its share for ever.
            .filter(|(other, ..)| {
                let seen = &self.seen[usize::from(other.0)];
                let most = u32::from(KILL_TRIES_MAX);
                seen.kills.iter().all(|kills| *kills < most) && seen.rearm_kills < most
            })
            .map(|(other, _, truth)| {
                let works = truth.released && truth.procedure.populated();
                truth.lent_bytes + if works { bytes(other) } else { 0 }
            })
            .sum();
        let needs = used + more_bytes;
        hold(Invariant::ReserveHolds, needs <= RESERVE_BYTES, || format!("{unit:?} makes it {needs}"))
    }

    pub(super) fn kills(
        &mut self,
        now: Time,
        id: (UnitId, RunId),
        role: Role,
        kernel: &mut FakeKernel,
    ) -> Result<(), Violation> {
        let mode = self.policies[usize::from(id.0.0)].procedure.map(|procedure| procedure.service);
        // One that is to be killed before its procedure is saved before that is killed.
        let last = if mode == Some(ServiceMode::Killed) { Role::Procedure } else { Role::Service };
        let Some(seen) = self.present(id.0, id.1) else { return Ok(()) };
        if role == Role::Procedure && seen.rearms && !seen.ending {
            // Room for the procedure that takes the place of a lost one, beside the service.
            seen.rearm_kills += 1;
            let most = u32::from(KILL_TRIES_MAX);
            return hold(Invariant::NothingHangs, seen.rearm_kills <= most, || {
                format!("{id:?} is killed for ever")
            });
        }
        seen.goes_since.get_or_insert(now);
        seen.ending = true;
        seen.kills[usize::from(role == Role::Procedure)] += 1;
        let saved = !seen.must_save || seen.releases == 1 || seen.procedure_over || seen.otherwise;
        if role == last && !saved {
            // One that never came to stand in its parking place cannot be let go.
            let ready = seen.parked && kernel.truth(id.0, id.1).procedure.main;
            hold(Invariant::SavedBeforeKilled, !ready, || {
                format!("{id:?} was killed without its procedure")
            })?;
        }
        Ok(())
    }
}
