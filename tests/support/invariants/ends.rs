//! The end of the machine.

use super::{Invariant, Violation, Watch, hold};
use crate::fake_kernel::FakeKernel;
use lifeboat::engine::event::{ClientId, Time};
use lifeboat::engine::limits::{FREEZE_DEADLINE_MS, KILL_RETRY_MS, KILL_TRIES_MAX, START_DEADLINE_MS};

impl Watch {
    pub(super) fn finish(&mut self, now: Time, kernel: &FakeKernel) -> Result<(), Violation> {
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
