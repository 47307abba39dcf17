//! Nothing waits longer for a service than its times allow.

use super::{Invariant, Violation, Watch, hold};
use lifeboat::engine::event::{ClientId, Time};
use lifeboat::engine::limits::{FREEZE_DEADLINE_MS, LIMIT_SET_MS};
use lifeboat::engine::policy::{Ready, RunId, UnitId};

impl Watch {
    /// Behind one that is under way, by itself perhaps, comes the one that was asked for.
    pub(super) fn reload_asked(&mut self, now: Time, client: ClientId, unit: UnitId) {
        let Some(policy) = self.policies.get(usize::from(unit.0)) else { return };
        let own_ms = policy.reload.map_or(0, |reload| u64::from(reload.timeout_ms));
        let most_ms = u64::from(policy.start_timeout_ms).max(own_ms) + own_ms + 1_000;
        self.reloads.push((client, now.plus_ms(most_ms)));
    }

    pub(super) fn reloads_end(&self, now: Time) -> Result<(), Violation> {
        let late = self.reloads.iter().find(|(_, until)| *until < now);
        hold(Invariant::ReloadsEnd, late.is_none(), || format!("{late:?}"))
    }

    pub(super) fn says_ready(&mut self, now: Time, unit: UnitId, run: RunId, by_note: bool) {
        let counts = match self.policies[usize::from(unit.0)].ready {
            Ready::Notify => by_note,
            Ready::NotificationFd | Ready::Path => !by_note,
            Ready::Start | Ready::AfterMs(_) => false,
        };
        if let Some(seen) = self.present(unit, run).filter(|seen| counts && seen.ready.is_none()) {
            (seen.ready, seen.alive) = (Some(now), now);
        }
    }

    pub(super) fn time_makes_ready(&mut self, now: Time) {
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
    pub(super) fn no_silence(&self, now: Time) -> Result<(), Violation> {
        const LATE_MS: u64 = 50;
        for (policy, seen) in self.policies.iter().zip(&self.seen) {
            let heard = !seen.unheard || seen.exit.is_some();
            hold(Invariant::SignalsAreHeard, heard, || format!("{}: {seen:?}", policy.name))?;
            let lives = seen.spawned && seen.exit.is_none() && !seen.stands_still;
            if !lives || seen.ending || seen.signalled || seen.stopping {
                continue;
            }
            let since = |time: Time| now.since_us(time) / 1_000;
            if let Some(held) = seen.held {
                let most_ms = FREEZE_DEADLINE_MS + LIMIT_SET_MS + LATE_MS;
                let detail = || format!("{}: {seen:?}", policy.name);
                hold(Invariant::HeldForAMoment, since(held) <= most_ms, detail)?;
                continue;
            }
            if let Some(gone_by) = seen.gone_by {
                let more_ms = if seen.extended { 30_000 } else { 0 };
                let stays = gone_by.plus_ms(more_ms + LATE_MS) < now;
                hold(Invariant::NoSilence, !stays, || format!("{} stays: {seen:?}", policy.name))?;
                continue;
            }
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
}
