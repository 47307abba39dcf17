//! When a run may begin.

use super::{Conditions, Invariant, Seen, Violation, Watch, hold};
use crate::fake_kernel::{FakeKernel, Truth};
use lifeboat::engine::event::Time;
use lifeboat::engine::policy::{Kind, Ready, RunId, UnitId};

impl Watch {
    pub(super) fn begins(
        &mut self,
        now: Time,
        (unit, run): (UnitId, RunId),
        kernel: &FakeKernel,
    ) -> Result<(), Violation> {
        let name = format!("{unit:?} {run:?}");
        hold(Invariant::NothingStartsInShutdown, !self.shutting_down(), || name.clone())?;
        // Its last run may have left its procedure to it, unless that is its own.
        let parks = self.policies[usize::from(unit.0)].procedure.is_some_and(|it| !it.resident);
        let is_of_the_past = |(other, last, truth): &(UnitId, RunId, Truth)| {
            *other == unit && !(parks && last.0 + 1 == run.0 && truth.spare().is_some())
        };
        let alive = kernel.living().find(is_of_the_past);
        hold(Invariant::OneRunAtOnce, alive.is_none(), || format!("{name} begins while {alive:?} lives"))?;
        self.may_begin(unit, kernel)?;
        let command = kernel.command_lives(unit);
        hold(Invariant::OneRunAtOnce, !command, || format!("{name} begins while a command lives"))?;
        let policy = &self.policies[usize::from(unit.0)];
        for &required in &policy.requires {
            let up = self.is_up(required);
            hold(Invariant::RequirementsAreUp, up, || format!("{name} needs {required:?}"))?;
        }
        let conditions = self.seen[usize::from(unit.0)].conditions;
        let met = policy.conditions.is_empty() || conditions == Some(Conditions::Met);
        hold(Invariant::ConditionsAreMet, met, || format!("{name}: {conditions:?}"))?;
        let rival = kernel.living().find(|(other, ..)| self.are_rivals(unit, *other));
        hold(Invariant::RivalsApart, rival.is_none(), || format!("{name} begins while {rival:?} lives"))?;
        let window_us = u64::from(policy.restart.limit_within_ms) * 1_000;
        let limit = policy.restart.limit_starts as usize;
        let seen = &mut self.seen[usize::from(unit.0)];
        hold(Invariant::RunsCountUp, run.0 == seen.run.0 + 1, || format!("{name} after {:?}", seen.run))?;
        let recent = seen.starts.iter().filter(|start| now.since_us(**start) <= window_us).count();
        hold(Invariant::StartLimitHolds, recent < limit.max(1), || format!("{name}: start {}", recent + 1))?;
        let (starts, counters, born) = (std::mem::take(&mut seen.starts), seen.counters, seen.born);
        let (command, command_kills, opened) = (seen.command, seen.command_kills, seen.opened);
        *seen = Seen { run, born, starts, counters, command, command_kills, opened, ..Seen::default() };
        seen.starts.push(now);
        Ok(())
    }

    /// Whichever of the two says so.
    pub(super) fn are_rivals(&self, one: UnitId, other: UnitId) -> bool {
        let says = |one: UnitId, other| self.policies[usize::from(one.0)].conflicts.contains(&other);
        says(one, other) || says(other, one)
    }

    pub(super) fn told_spawned(&mut self, now: Time, unit: UnitId, run: RunId) {
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

    pub(super) fn is_up(&self, unit: UnitId) -> bool {
        let seen = &self.seen[usize::from(unit.0)];
        if seen.conditions == Some(Conditions::NotMet) || seen.listens {
            return true;
        }
        match self.policies[usize::from(unit.0)].kind {
            Kind::Service | Kind::Target => seen.ready.is_some() && seen.exit.is_none() && !seen.ending,
            Kind::Task => {
                seen.exit.is_some_and(|exit| self.policies[usize::from(unit.0)].success.contains(exit))
            }
        }
    }
}
