//! What readers see.

use super::drills::drill_over;
use super::{Invariant, Violation, Watch, hold};
use crate::fake_kernel::FakeKernel;
use lifeboat::engine::Engine;
use lifeboat::engine::event::Time;
use lifeboat::engine::limits::{FREEZE_DEADLINE_MS, KILL_TRIES_MAX};
use lifeboat::engine::policy::{Kind, OnRequirementRestart, UnitId};
use lifeboat::engine::snapshot::{Incident, Snapshot, StateName, SystemView, UnitView};

impl Watch {
    pub(super) fn shown(
        &mut self,
        now: Time,
        engine: &Engine,
        kernel: &FakeKernel,
        quiet: bool,
    ) -> Result<(), Violation> {
        let snapshot = engine.snapshot(now, SystemView::default());
        if quiet {
            self.nothing_hangs(&snapshot, kernel)?;
        }
        if !self.shutting_down() {
            self.graph_holds(&snapshot, quiet)?;
        }
        snapshot.units.iter().try_for_each(unit_holds)?;
        snapshot.units.iter().try_for_each(drill_over)?;
        self.escalations_hold(&snapshot)?;
        self.processes_hold(now, &snapshot, kernel)?;
        for unit in snapshot.units.iter().filter(|unit| unit.state == StateName::Running) {
            let at = snapshot.names.iter().position(|name| *name == unit.name);
            let ready = at.is_some_and(|at| {
                self.seen[at].run.0 == self.seen[at].born.0 + unit.run.0 && self.seen[at].ready.is_some()
            });
            hold(Invariant::RunningIsReady, ready, || format!("{unit:?}"))?;
        }
        snapshot.incidents.iter().try_for_each(incident_in_order)?;
        let numbers_differ = snapshot.incidents.iter().enumerate().all(|(at, incident)| {
            snapshot.incidents.iter().skip(at + 1).all(|other| other.number != incident.number)
        });
        hold(Invariant::IncidentsInOrder, numbers_differ, || "a number twice".into())?;
        let lost = snapshot.incidents.iter().find(|incident| !self.kept.contains(&incident.number));
        hold(Invariant::IncidentsKept, lost.is_none(), || format!("{lost:?} is not kept"))?;
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

    /// What units say of each other holds for what is shown of them.
    fn graph_holds(&self, snapshot: &Snapshot, quiet: bool) -> Result<(), Violation> {
        let state = |unit: UnitId| {
            let name = snapshot.names.get(usize::from(unit.0))?;
            snapshot.units.iter().find(|unit| unit.name == *name).map(|unit| unit.state)
        };
        let ids: Vec<UnitId> = (0..u16::try_from(self.policies.len()).unwrap()).map(UnitId).collect();
        let up: Vec<UnitId> =
            ids.iter().copied().filter(|unit| state(*unit) == Some(StateName::Running)).collect();
        for &unit in &up {
            // Units that have come to conflict while they ran part as soon as one of them can be stopped.
            let apart = quiet || !self.changed;
            let rival = up.iter().find(|other| apart && self.are_rivals(unit, **other));
            hold(Invariant::RivalsApart, rival.is_none(), || format!("{unit:?} and {rival:?}"))?;
            let policy = &self.policies[usize::from(unit.0)];
            for &required in policy.requires.iter().filter(|_| quiet) {
                let state = state(required);
                // One that is needed may wait for a task that takes its time: its sockets are open as before.
                let rested = self.policies[usize::from(required.0)].descriptors.on_demand;
                let fine = rested && state == Some(StateName::Starting)
                    || matches!(
                        state,
                        Some(
                            StateName::Running | StateName::Listening | StateName::Done | StateName::Skipped
                        )
                    );
                hold(Invariant::NothingOnADeadRequirement, fine, || format!("{unit:?} on {required:?}"))?;
                let follows = policy.on_requirement_restart == OnRequirementRestart::Restart
                    && state == Some(StateName::Running)
                    // A unit that was given another requirement while it ran is older than that.
                    && !self.changed
                    // One that was skipped, or rested, was as good as up; its first run is no restart.
                    && !self.policies[usize::from(required.0)].descriptors.on_demand
                    && self.policies[usize::from(required.0)].conditions.is_empty()
                    && self.policies[usize::from(required.0)].kind != Kind::Task;
                let ready = |unit: UnitId| self.seen[usize::from(unit.0)].ready;
                let together = !follows || ready(required) <= ready(unit);
                hold(Invariant::RestartsTogether, together, || format!("{unit:?} and {required:?}"))?;
            }
        }
        Ok(())
    }

    pub(super) fn nothing_hangs(&self, snapshot: &Snapshot, kernel: &FakeKernel) -> Result<(), Violation> {
        let runs_on = |name: &str| {
            snapshot.units.iter().any(|unit| unit.name == name && unit.state == StateName::Running)
        };
        let long_task = self.policies.iter().any(|policy| policy.kind == Kind::Task && runs_on(&policy.name));
        for unit in &snapshot.units {
            let fine = match unit.state {
                StateName::Stopped
                | StateName::Listening
                | StateName::Running
                | StateName::Exited
                | StateName::Fatal
                | StateName::Done
                | StateName::Skipped => true,
                StateName::Starting => long_task,
                StateName::Backoff => false,
                StateName::Stopping | StateName::Rescuing => {
                    let id = snapshot.names.iter().position(|name| *name == unit.name);
                    id.is_some_and(|id| {
                        let (seen, most) = (&self.seen[id], u32::from(KILL_TRIES_MAX));
                        let unit = UnitId(u16::try_from(id).unwrap());
                        (seen.kills.iter().any(|kills| *kills >= most)
                            && kernel.living().any(|(other, ..)| other == unit))
                            || (seen.command_kills >= most && kernel.command_lives(unit))
                    })
                }
            };
            hold(Invariant::NothingHangs, fine, || format!("{unit:?}"))?;
        }
        Ok(())
    }
}

fn visible(unit: &UnitView) -> impl PartialEq + use<> {
    (
        (unit.desired, unit.state, unit.run, unit.pid, unit.last_exit, unit.trouble, unit.incidents),
        unit.failed_command,
    )
}

fn unit_holds(unit: &UnitView) -> Result<(), Violation> {
    let fine = match unit.state {
        StateName::Running => unit.pid.is_some() == (unit.kind != Kind::Target) && unit.run.0 > 0,
        StateName::Listening => unit.pid.is_none() && !unit.sockets.is_empty(),
        StateName::Stopped
        | StateName::Exited
        | StateName::Fatal
        | StateName::Done
        | StateName::Skipped
        | StateName::Backoff => unit.pid.is_none(),
        StateName::Starting => unit.pid.is_none() || unit.run.0 > 0,
        StateName::Stopping | StateName::Rescuing => unit.run.0 > 0,
    };
    hold(Invariant::SnapshotHolds, fine, || format!("{unit:?}"))
}

/// The kill comes at the end, or before the procedure where that wants it so.
fn incident_in_order(incident: &Incident) -> Result<(), Violation> {
    // A freeze that came after its deadline is noted too: it may stand behind what did not wait for it.
    let in_time = |at: &Time| {
        at.since_us(incident.began) < FREEZE_DEADLINE_MS * 1_000
            && incident.released.is_none_or(|released| *at <= released)
    };
    let times = |killed_first: bool| {
        [
            Some(incident.began),
            incident.killed.filter(|_| killed_first),
            incident.frozen.filter(in_time),
            incident.released,
            incident.procedure_running,
            incident.procedure_ended,
            incident.killed.filter(|_| !killed_first),
            incident.emptied,
        ]
    };
    let sorted = |killed_first| times(killed_first).into_iter().flatten().collect::<Vec<Time>>().is_sorted();
    let whole = incident.killed.is_some();
    hold(Invariant::IncidentsInOrder, whole && (sorted(false) || sorted(true)), || format!("{incident:?}"))
}
