//! The end of the machine.

use super::{Invariant, Seen, Violation, Watch, hold};
use crate::fake_kernel::FakeKernel;
use lifeboat::engine::event::{ClientId, Time};
use lifeboat::engine::limits::{FREEZE_DEADLINE_MS, KILL_RETRY_MS, KILL_TRIES_MAX, START_DEADLINE_MS};
use lifeboat::engine::policy::{UnitId, UnitPolicy};
use lifeboat::engine::snapshot::{Desired, Snapshot, StateName};

fn is_down(state: StateName) -> bool {
    match state {
        StateName::Stopped
        | StateName::Listening
        | StateName::Exited
        | StateName::Fatal
        | StateName::Done
        | StateName::Skipped
        | StateName::Backoff => true,
        StateName::Starting | StateName::Running | StateName::Stopping | StateName::Rescuing => false,
    }
}

impl Watch {
    pub(super) fn finish(&mut self, now: Time, kernel: &FakeKernel) -> Result<(), Violation> {
        let asked = self.shutdown_at.unwrap_or(now);
        hold(Invariant::FinishesOnce, !self.finished && self.shutting_down(), || "twice".into())?;
        self.finished = true;
        let bound_ms = self.bound_ms() + START_DEADLINE_MS;
        let took_us = now.since_us(asked);
        hold(Invariant::FinishesOnce, took_us <= bound_ms * 1_000, || format!("after {took_us} us"))?;
        // What did not die by all the kills is passed over.
        let left = kernel.living().find(|(unit, ..)| {
            self.seen[usize::from(unit.0)].kills.iter().all(|kills| *kills < u32::from(KILL_TRIES_MAX))
        });
        hold(Invariant::FinishesOnce, left.is_none(), || format!("{left:?} lives"))?;
        let command = self.seen.iter().zip(0..).find(|(seen, unit)| {
            kernel.command_lives(UnitId(*unit)) && seen.command_kills < u32::from(KILL_TRIES_MAX)
        });
        hold(Invariant::FinishesOnce, command.is_none(), || format!("a command lives: {command:?}"))?;
        let stuck = |unit: usize| {
            kernel.living().any(|(other, ..)| usize::from(other.0) == unit)
                || u16::try_from(unit).is_ok_and(|unit| kernel.command_lives(UnitId(unit)))
        };
        // One whose every kill failed counts as living.
        let given_up = |seen: &Seen| seen.kills.iter().any(|kills| *kills >= u32::from(KILL_TRIES_MAX));
        let open = self.seen.iter().enumerate();
        let open = open.filter(|(_, seen)| !given_up(seen)).find(|(unit, seen)| seen.opened && !stuck(*unit));
        hold(Invariant::ClosedInTheEnd, open.is_none(), || format!("{open:?}"))
    }

    /// Processes and what is shown agree, and whatever goes down gets there in time.
    pub(super) fn processes_hold(
        &self,
        now: Time,
        snapshot: &Snapshot,
        kernel: &FakeKernel,
    ) -> Result<(), Violation> {
        let view = |at: usize| {
            let name = snapshot.names.get(at);
            snapshot.units.iter().find(|unit| Some(&unit.name) == name)
        };
        let state = |at: usize| view(at).map(|unit| unit.state);
        for (unit, run, truth) in kernel.living() {
            let at = usize::from(unit.0);
            let found = state(at);
            hold(Invariant::NoOrphan, found.is_some_and(|state| !is_down(state)), || {
                format!("{unit:?} {run:?} is {found:?}: {truth:?}")
            })?;
            let seen = &self.seen[at];
            let unkillable = seen.kills.iter().any(|kills| *kills >= u32::from(KILL_TRIES_MAX));
            let late = seen.goes_since.filter(|since| now.since_us(*since) / 1_000 > self.bound_ms());
            hold(Invariant::StopsEnd, late.is_none() || unkillable, || format!("{unit:?} since {late:?}"))?;
            // What is wished down may have to outlive another.
            let goes = matches!(found, Some(StateName::Stopping | StateName::Rescuing))
                || view(at).is_some_and(|unit| unit.desired == Desired::Down);
            let down = self.policies[at].requires.iter().find(|required| {
                let found = state(usize::from(required.0));
                found.is_some_and(|state| {
                    let waits = matches!(
                        state,
                        StateName::Done | StateName::Skipped | StateName::Backoff | StateName::Listening
                    );
                    is_down(state) && !waits
                })
            });
            hold(Invariant::StandsOnWhatIsUp, goes || down.is_none(), || {
                format!("{unit:?} is {found:?} above {down:?}")
            })?;
        }
        Ok(())
    }

    /// All steps of all units, one after the other: a procedure may have to wait for the others' room.
    fn bound_ms(&self) -> u64 {
        let kills_ms = KILL_RETRY_MS * (u64::from(KILL_TRIES_MAX) + 1);
        let of_unit = |policy: &UnitPolicy| {
            let deadline_ms = policy.procedure.map_or(0, |procedure| u64::from(procedure.deadline_ms));
            // What a service may win by asking for more time.
            let extended_ms = 30_000;
            extended_ms + 2 * u64::from(policy.stop_timeout_ms) + deadline_ms + FREEZE_DEADLINE_MS + kills_ms
        };
        self.policies.iter().map(of_unit).sum()
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
