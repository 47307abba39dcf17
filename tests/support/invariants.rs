//! What must hold after every turn of the engine, whatever the kernel does. Each has a name; a violation tells it.

use crate::fake_kernel::FakeKernel;
use crate::random_units::RESERVE_BYTES;
use lifeboat::engine::Engine;
use lifeboat::engine::action::{Action, ProcedureOrder};
use lifeboat::engine::event::{ClientId, Event, Exit, MemoryEvents, Note, Role, Time, Verb};
use lifeboat::engine::limits::{FREEZE_DEADLINE_MS, KILL_RETRY_MS, KILL_TRIES_MAX, START_DEADLINE_MS};
use lifeboat::engine::policy::{Guard, Kind, Ready, RunId, UnitId, UnitPolicy};
use lifeboat::engine::record::Record;
use lifeboat::engine::snapshot::{Incident, Snapshot, StateName, SystemView, UnitView};
use std::collections::BTreeMap;

/// The list. `Violation` carries one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invariant {
    /// A run begins only when no process of an earlier run of the unit lives.
    OneRunAtOnce,
    /// Run numbers grow by one with each start.
    RunsCountUp,
    /// `Spawn` follows `Parked` of the same run where the unit has a procedure.
    ParkedBeforeSpawn,
    /// Nothing is done to a run that is not the present one.
    OnlyThePresentRun,
    /// A run begins only when what the unit requires is up.
    RequirementsAreUp,
    /// A service that is not ready by its `start_timeout`, or misses its watchdog, does not stay.
    NoSilence,
    /// A unit is shown as RUNNING only when it has shown that it is ready.
    RunningIsReady,
    /// The memory of released procedures that live stays within the reserve.
    ReserveHolds,
    /// A procedure is released at most once in a run, and never before it is parked.
    ReleasedOnce,
    /// A unit is not started more often than its limit within its window, unless a person asked.
    StartLimitHolds,
    /// While nothing is on its way and no deadline is set, nothing is half way.
    NothingHangs,
    /// Every request gets one answer, unless its client has gone.
    OneReply,
    /// A shielded unit's exhaustion starts its living procedure before the service is killed.
    SavedBeforeKilled,
    /// Nothing starts after a shutdown was asked.
    NothingStartsInShutdown,
    /// The shutdown finishes once, within its bound, and leaves no process that could be killed.
    FinishesOnce,
    /// The times of an incident stand in order, and the numbers of incidents too.
    IncidentsInOrder,
    /// The snapshot contradicts neither itself nor its generation.
    SnapshotHolds,
}

#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) detail: String,
}

fn hold(invariant: Invariant, holds: bool, detail: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { invariant, detail: detail() }) }
}

/// What was told and asked of a unit's present run.
#[derive(Clone, Debug, Default)]
struct Seen {
    run: RunId,
    parked: bool,
    spawned: bool,
    /// When `Spawn` was asked for and when it was told.
    spawn_asked: Time,
    spawn_told: Time,
    ready: Option<Time>,
    /// The last sign of life that counts, once it is ready.
    alive: Time,
    extended: bool,
    exit: Option<Exit>,
    procedure_over: bool,
    ending: bool,
    signalled: bool,
    /// Kills asked for, of the service and of the procedure.
    kills: [u32; 2],
    releases: u32,
    /// Its memory was exhausted while its procedure stood ready.
    must_save: bool,
    counters: MemoryEvents,
    starts: Vec<Time>,
}

pub(crate) struct Watch {
    policies: Vec<UnitPolicy>,
    seen: Vec<Seen>,
    open_requests: BTreeMap<u64, u32>,
    gone: Vec<ClientId>,
    shutdown_at: Option<Time>,
    finished: bool,
    turn: u64,
    last: Option<Snapshot>,
}

impl Watch {
    pub(crate) fn new(policies: &[UnitPolicy]) -> Self {
        Self {
            policies: policies.to_vec(),
            seen: vec![Seen::default(); policies.len()],
            open_requests: BTreeMap::new(),
            gone: Vec::new(),
            shutdown_at: None,
            finished: false,
            turn: 0,
            last: None,
        }
    }

    pub(crate) fn shutting_down(&self) -> bool {
        self.shutdown_at.is_some()
    }

    fn present(&mut self, unit: UnitId, run: RunId) -> Option<&mut Seen> {
        self.seen.get_mut(usize::from(unit.0)).filter(|seen| seen.run == run)
    }

    /// Before the engine gets the event.
    pub(crate) fn event(&mut self, now: Time, event: Event, kernel: &mut FakeKernel) {
        match event {
            Event::Parked { unit, run, .. } => {
                if let Some(seen) = self.present(unit, run) {
                    seen.parked = true;
                }
            }
            Event::Spawned { unit, run, .. } => {
                let at_once = self.policies[usize::from(unit.0)].ready == Ready::Start;
                if let Some(seen) = self.present(unit, run) {
                    if !seen.spawned {
                        seen.spawn_told = now;
                    }
                    seen.spawned = true;
                    if at_once && seen.ready.is_none() {
                        (seen.ready, seen.alive) = (Some(now), now);
                    }
                }
            }
            Event::Exited { unit, run, role, exit } => {
                if let Some(seen) = self.present(unit, run) {
                    match role {
                        Role::Service => seen.exit = seen.exit.or(Some(exit)),
                        Role::Procedure => seen.procedure_over = true,
                    }
                }
            }
            Event::MemoryEvents { unit, run, role: Role::Service, counters } => {
                self.exhaustion(unit, run, counters, kernel);
            }
            Event::Asked { client, verb, .. } => {
                *self.open_requests.entry(client.0).or_default() += 1;
                if matches!(verb, Verb::Start | Verb::Restart) {
                    self.seen.iter_mut().for_each(|seen| seen.starts.clear());
                }
            }
            Event::ClientGone { client } => self.gone.push(client),
            Event::ShutdownAsked { .. } => {
                self.shutdown_at.get_or_insert(now);
            }
            Event::Ready { unit, run } => self.says_ready(now, unit, run, false),
            Event::Notified { unit, run, note: Note::Ready } => self.says_ready(now, unit, run, true),
            Event::Notified { unit, run, note } => {
                if let Some(seen) = self.present(unit, run) {
                    match note {
                        Note::Alive => seen.alive = now,
                        Note::ExtendMs(_) => seen.extended = true,
                        Note::Ready
                        | Note::Reloading
                        | Note::Stopping
                        | Note::Failing
                        | Note::MainPid(_)
                        | Note::Status => {}
                    }
                }
            }
            Event::Deadline => self.time_makes_ready(now),
            Event::Boot
            | Event::Probed { .. }
            | Event::SpawnFailed { .. }
            | Event::ProcedureRunning { .. }
            | Event::Emptied { .. }
            | Event::Frozen { .. }
            | Event::Failed { .. }
            | Event::MemoryEvents { .. }
            | Event::MemorySampled { .. }
            | Event::PressureRang { .. } => {}
        }
    }

    fn says_ready(&mut self, now: Time, unit: UnitId, run: RunId, by_note: bool) {
        let counts = match self.policies[usize::from(unit.0)].ready {
            Ready::Notify => by_note,
            Ready::NotificationFd | Ready::Path => !by_note,
            Ready::Start | Ready::AfterMs(_) => false,
        };
        if let Some(seen) = self.present(unit, run).filter(|seen| counts && seen.ready.is_none()) {
            (seen.ready, seen.alive) = (Some(now), now);
        }
    }

    fn time_makes_ready(&mut self, now: Time) {
        for (policy, seen) in self.policies.iter().zip(&mut self.seen) {
            if let Ready::AfterMs(ms) = policy.ready
                && seen.spawned
                && seen.ready.is_none()
                && seen.spawn_told.plus_ms(u64::from(ms)) <= now
            {
                (seen.ready, seen.alive) = (Some(now), now);
            }
        }
    }

    /// Nothing waits longer for a service than its times allow; a busy machine's timer may ring a little late.
    fn no_silence(&self, now: Time) -> Result<(), Violation> {
        const LATE_MS: u64 = 50;
        for (policy, seen) in self.policies.iter().zip(&self.seen) {
            if !seen.spawned || seen.ending || seen.signalled || seen.exit.is_some() {
                continue;
            }
            let since = |time: Time| now.since_us(time) / 1_000;
            let silent = match (seen.ready, policy.watchdog_ms) {
                (None, _) => {
                    let more_ms = if seen.extended { 30_000 } else { 0 };
                    since(seen.spawn_asked) > u64::from(policy.start_timeout_ms) + more_ms + LATE_MS
                }
                (Some(ready), Some(ms)) => since(ready.max(seen.alive)) > u64::from(ms) + LATE_MS,
                (Some(_), None) => false,
            };
            hold(Invariant::NoSilence, !silent, || format!("{}: {seen:?}", policy.name))?;
        }
        Ok(())
    }

    fn exhaustion(&mut self, unit: UnitId, run: RunId, counters: MemoryEvents, kernel: &mut FakeKernel) {
        let policy = &self.policies[usize::from(unit.0)];
        let shielded = policy.memory.is_some_and(|memory| memory.guard == Guard::Shield);
        let saves = policy.procedure.is_some_and(|procedure| procedure.on_exhaustion);
        let ready = run.0 > 0 && kernel.truth(unit, run).procedure.main;
        let Some(seen) = self.present(unit, run) else { return };
        let rose =
            counters.oom_kill > seen.counters.oom_kill || (counters.oom > seen.counters.oom && shielded);
        seen.counters = counters;
        let alive = seen.parked && seen.exit.is_none() && !seen.procedure_over;
        if rose && saves && ready && alive && !seen.ending {
            seen.must_save = true;
        }
    }

    /// A start limit may end the machine too: what the turn says of that, before its actions.
    pub(crate) fn actions(&mut self, now: Time, actions: &[Action]) {
        if actions.iter().any(|action| matches!(action, Action::Log(Record::ShuttingDown { .. }))) {
            self.shutdown_at.get_or_insert(now);
        }
    }

    /// Before the kernel performs the action.
    pub(crate) fn action(
        &mut self,
        now: Time,
        action: Action,
        kernel: &mut FakeKernel,
    ) -> Result<(), Violation> {
        match action {
            Action::Park { unit, run } => {
                self.begins(now, (unit, run), kernel)?;
            }
            Action::Spawn { unit, run } => {
                let parks = self.policies[usize::from(unit.0)].procedure.is_some();
                if !parks {
                    self.begins(now, (unit, run), kernel)?;
                }
                hold(Invariant::NothingStartsInShutdown, !self.shutting_down(), || format!("{action:?}"))?;
                let parked = self.present(unit, run).is_some_and(|seen| seen.parked);
                if let Some(seen) = self.present(unit, run) {
                    seen.spawn_asked = now;
                }
                hold(Invariant::ParkedBeforeSpawn, !parks || parked, || format!("{action:?}"))?;
            }
            Action::Freeze { unit, run } | Action::Signal { unit, run, .. } => {
                self.of_the_present(action, unit, run)?;
                if let Some(seen) = self.present(unit, run) {
                    seen.ending = matches!(action, Action::Freeze { .. }) || seen.ending;
                    seen.signalled |= matches!(action, Action::Signal { .. });
                }
            }
            Action::StartProcedure { unit, run, order } => {
                self.of_the_present(action, unit, run)?;
                self.releases((unit, run), order, kernel)?;
            }
            Action::KillCgroup { unit, run, role, .. } => {
                self.of_the_present(action, unit, run)?;
                self.kills((unit, run), role, kernel)?;
            }
            Action::Reply { client, .. } => {
                let open = self.open_requests.entry(client.0).or_default();
                let fine = *open > 0 && !self.gone.contains(&client);
                *open = open.saturating_sub(1);
                hold(Invariant::OneReply, fine, || format!("{action:?} to nobody"))?;
            }
            Action::Finish { .. } => self.finish(now, kernel)?,
            Action::Probe { unit, run } => {
                self.of_the_present(action, unit, run)?;
                let ready = self.present(unit, run).is_some_and(|seen| seen.ready.is_some() && !seen.ending);
                hold(Invariant::OnlyThePresentRun, ready, || format!("{action:?} of what is not up"))?;
            }
            Action::EndProbe { .. } | Action::LookForPath { .. } | Action::Sample { .. } | Action::Log(_) => {
            }
        }
        Ok(())
    }

    fn of_the_present(&mut self, action: Action, unit: UnitId, run: RunId) -> Result<(), Violation> {
        hold(Invariant::OnlyThePresentRun, self.present(unit, run).is_some(), || format!("{action:?}"))
    }

    fn begins(
        &mut self,
        now: Time,
        (unit, run): (UnitId, RunId),
        kernel: &FakeKernel,
    ) -> Result<(), Violation> {
        let name = format!("{unit:?} {run:?}");
        hold(Invariant::NothingStartsInShutdown, !self.shutting_down(), || name.clone())?;
        let alive = kernel.living().find(|(other, ..)| *other == unit);
        hold(Invariant::OneRunAtOnce, alive.is_none(), || format!("{name} begins while {alive:?} lives"))?;
        let policy = &self.policies[usize::from(unit.0)];
        for &required in &policy.requires {
            let up = self.is_up(required);
            hold(Invariant::RequirementsAreUp, up, || format!("{name} needs {required:?}"))?;
        }
        let window_us = u64::from(policy.restart.limit_within_ms) * 1_000;
        let limit = policy.restart.limit_starts as usize;
        let seen = &mut self.seen[usize::from(unit.0)];
        hold(Invariant::RunsCountUp, run.0 == seen.run.0 + 1, || format!("{name} after {:?}", seen.run))?;
        let recent = seen.starts.iter().filter(|start| now.since_us(**start) <= window_us).count();
        hold(Invariant::StartLimitHolds, recent < limit.max(1), || format!("{name}: start {}", recent + 1))?;
        let (starts, counters) = (std::mem::take(&mut seen.starts), seen.counters);
        *seen = Seen { run, starts, counters, ..Seen::default() };
        seen.starts.push(now);
        Ok(())
    }

    fn is_up(&self, unit: UnitId) -> bool {
        let seen = &self.seen[usize::from(unit.0)];
        match self.policies[usize::from(unit.0)].kind {
            Kind::Service => seen.ready.is_some() && seen.exit.is_none() && !seen.ending,
            Kind::Task => {
                seen.exit.is_some_and(|exit| self.policies[usize::from(unit.0)].success.contains(exit))
            }
        }
    }

    fn releases(
        &mut self,
        (unit, run): (UnitId, RunId),
        order: ProcedureOrder,
        kernel: &FakeKernel,
    ) -> Result<(), Violation> {
        let bytes = |unit: UnitId| {
            self.policies[usize::from(unit.0)].procedure.map_or(0, |procedure| procedure.memory_bytes)
        };
        let used: u64 = kernel
            .living()
            .filter(|(other, _, truth)| *other != unit && truth.released && truth.procedure.populated())
            .filter(|(_, _, truth)| !truth.procedure.unkillable && !truth.service.unkillable)
            .map(|(other, ..)| bytes(other))
            .sum();
        let needs = used + bytes(unit);
        hold(Invariant::ReserveHolds, needs <= RESERVE_BYTES, || format!("{unit:?} makes it {needs}"))?;
        let Some(seen) = self.present(unit, run) else { return Ok(()) };
        seen.releases += 1;
        let once = seen.releases == 1 && seen.parked;
        hold(Invariant::ReleasedOnce, once, || format!("{unit:?} {run:?} {order:?}"))
    }

    fn kills(&mut self, id: (UnitId, RunId), role: Role, kernel: &mut FakeKernel) -> Result<(), Violation> {
        let Some(seen) = self.present(id.0, id.1) else { return Ok(()) };
        seen.ending = true;
        seen.kills[usize::from(role == Role::Procedure)] += 1;
        let saved = !seen.must_save || seen.releases == 1 || seen.procedure_over;
        if role == Role::Service && !saved {
            let ready = kernel.truth(id.0, id.1).procedure.main;
            hold(Invariant::SavedBeforeKilled, !ready, || {
                format!("{id:?} was killed without its procedure")
            })?;
        }
        Ok(())
    }

    fn finish(&mut self, now: Time, kernel: &FakeKernel) -> Result<(), Violation> {
        let asked = self.shutdown_at.unwrap_or(now);
        hold(Invariant::FinishesOnce, !self.finished && self.shutting_down(), || "twice".into())?;
        self.finished = true;
        let kills_ms = KILL_RETRY_MS * (u64::from(KILL_TRIES_MAX) + 1);
        let bound_ms: u64 = self
            .policies
            .iter()
            .map(|policy| {
                let deadline_ms = policy.procedure.map_or(0, |procedure| u64::from(procedure.deadline_ms));
                // What a service may win by asking for more time.
                let extended_ms = 30_000;
                extended_ms + u64::from(policy.stop_timeout_ms) + deadline_ms + FREEZE_DEADLINE_MS + kills_ms
            })
            .sum::<u64>()
            + START_DEADLINE_MS;
        let took_us = now.since_us(asked);
        hold(Invariant::FinishesOnce, took_us <= bound_ms * 1_000, || format!("after {took_us} us"))?;
        // What did not die by all the kills is passed over.
        let left = kernel.living().find(|(unit, ..)| {
            self.seen[usize::from(unit.0)].kills.iter().all(|kills| *kills < u32::from(KILL_TRIES_MAX))
        });
        hold(Invariant::FinishesOnce, left.is_none(), || format!("{left:?} lives"))
    }

    /// After the turn.
    pub(crate) fn turn(&mut self, now: Time, engine: &Engine, kernel: &FakeKernel) -> Result<(), Violation> {
        self.turn += 1;
        self.no_silence(now)?;
        let quiet = engine.next_deadline().is_none() && kernel.pending == 0;
        if !quiet && !self.turn.is_multiple_of(8) {
            return Ok(());
        }
        let snapshot = engine.snapshot(now, SystemView::default());
        if quiet {
            self.nothing_hangs(&snapshot, kernel)?;
        }
        snapshot.units.iter().try_for_each(unit_holds)?;
        for unit in snapshot.units.iter().filter(|unit| unit.state == StateName::Running) {
            let at = snapshot.names.iter().position(|name| *name == unit.name);
            let ready = at.is_some_and(|at| self.seen[at].run == unit.run && self.seen[at].ready.is_some());
            hold(Invariant::RunningIsReady, ready, || format!("{unit:?}"))?;
        }
        snapshot.incidents.iter().try_for_each(incident_in_order)?;
        let numbers_differ = snapshot.incidents.iter().enumerate().all(|(at, incident)| {
            snapshot.incidents.iter().skip(at + 1).all(|other| other.number != incident.number)
        });
        hold(Invariant::IncidentsInOrder, numbers_differ, || "a number twice".into())?;
        if let Some(last) = self.last.replace(snapshot)
            && let Some(new) = &self.last
        {
            let fine = if new.generation == last.generation {
                new.units.iter().zip(&last.units).all(|(new, old)| visible(new) == visible(old))
            } else {
                new.generation > last.generation
            };
            hold(Invariant::SnapshotHolds, fine, || format!("generation {}: changed", new.generation))?;
        }
        Ok(())
    }

    fn nothing_hangs(&self, snapshot: &Snapshot, kernel: &FakeKernel) -> Result<(), Violation> {
        let runs_on = |name: &str| {
            snapshot.units.iter().any(|unit| unit.name == name && unit.state == StateName::Running)
        };
        let long_task = self.policies.iter().any(|policy| policy.kind == Kind::Task && runs_on(&policy.name));
        for unit in &snapshot.units {
            let fine = match unit.state {
                StateName::Stopped
                | StateName::Running
                | StateName::Exited
                | StateName::Fatal
                | StateName::Done => true,
                StateName::Starting => long_task,
                StateName::Backoff => false,
                StateName::Stopping | StateName::Rescuing => {
                    let id = snapshot.names.iter().position(|name| *name == unit.name);
                    id.is_some_and(|id| {
                        self.seen[id].kills.iter().any(|kills| *kills >= u32::from(KILL_TRIES_MAX))
                            && kernel.living().any(|(other, ..)| usize::from(other.0) == id)
                    })
                }
            };
            hold(Invariant::NothingHangs, fine, || format!("{unit:?}"))?;
        }
        Ok(())
    }

    /// After the last turn.
    pub(crate) fn end(&self) -> Result<(), Violation> {
        hold(Invariant::FinishesOnce, self.finished, || "never".into())?;
        let open = self
            .open_requests
            .iter()
            .find(|(client, open)| **open > 0 && !self.gone.contains(&ClientId(**client)));
        hold(Invariant::OneReply, open.is_none(), || format!("client {open:?} has no answer"))
    }
}

fn visible(unit: &UnitView) -> impl PartialEq + use<> {
    (unit.desired, unit.state, unit.run, unit.pid, unit.last_exit, unit.trouble, unit.incidents)
}

fn unit_holds(unit: &UnitView) -> Result<(), Violation> {
    let fine = match unit.state {
        StateName::Running => unit.pid.is_some() && unit.run.0 > 0,
        StateName::Stopped | StateName::Exited | StateName::Fatal | StateName::Done | StateName::Backoff => {
            unit.pid.is_none()
        }
        StateName::Starting => unit.pid.is_none() || unit.run.0 > 0,
        StateName::Stopping | StateName::Rescuing => unit.run.0 > 0,
    };
    hold(Invariant::SnapshotHolds, fine, || format!("{unit:?}"))
}

fn incident_in_order(incident: &Incident) -> Result<(), Violation> {
    // A freeze that came after its deadline is noted too: it may stand behind what did not wait for it.
    let in_time = |at: &Time| at.since_us(incident.began) < FREEZE_DEADLINE_MS * 1_000;
    let times = [
        Some(incident.began),
        incident.frozen.filter(in_time),
        incident.released,
        incident.procedure_running,
        incident.procedure_ended,
        incident.killed,
        incident.emptied,
    ];
    let known: Vec<Time> = times.into_iter().flatten().collect();
    let whole = incident.killed.is_some();
    hold(Invariant::IncidentsInOrder, whole && known.is_sorted(), || format!("{incident:?}"))
}
