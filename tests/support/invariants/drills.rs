//! Drills that nobody asks for.

use super::{Invariant, Violation, Watch, hold};
use lifeboat::engine::event::{Event, Time, Verb};
use lifeboat::engine::record::Record;
use lifeboat::engine::snapshot::{StateName, UnitView};

/// Of a unit without a process.
pub(super) fn drill_over(unit: &UnitView) -> Result<(), Violation> {
    let under_way = unit.drill.is_some_and(|drill| drill.over.is_none() && !drill.broken_off);
    let up = unit.pid.is_some() || matches!(unit.state, StateName::Rescuing | StateName::Stopping);
    hold(Invariant::DrillsInTime, up || !under_way, || format!("{unit:?}"))
}

impl Watch {
    /// Before the engine gets the event.
    pub(super) fn drill_asked(&mut self, event: Event) {
        self.drill_asked = match event {
            Event::Asked { unit, verb: Verb::Drill | Verb::DrillToTheEnd, .. } => Some(unit),
            _ => None,
        };
    }

    /// What is told in this turn.
    pub(super) fn drills_in_time(&mut self, now: Time, record: Record) -> Result<(), Violation> {
        match record {
            Record::Drill { unit, .. } => {
                let at = usize::from(unit.0);
                let asked = self.drill_asked == Some(unit);
                let every_ms = self.policies[at].procedure.and_then(|it| it.drill_every_ms);
                let shutting_down = self.shutting_down();
                let seen = &mut self.seen[at];
                seen.put_off = false;
                let since = seen.ready.max(seen.drilled).map_or(0, |time| now.since_us(time) / 1_000);
                let in_time = every_ms.is_some_and(|ms| since >= u64::from(ms)) && !shutting_down;
                hold(Invariant::DrillsInTime, asked || in_time, || {
                    format!("{unit:?} after {since} of {every_ms:?} ms")
                })
            }
            Record::Drilled { unit, .. } => {
                self.seen[usize::from(unit.0)].drilled = Some(now);
                Ok(())
            }
            Record::DrillPutOff { unit } => {
                let again = std::mem::replace(&mut self.seen[usize::from(unit.0)].put_off, true);
                hold(Invariant::DrillsInTime, !again, || format!("{unit:?} is told twice that it is busy"))
            }
            _ => Ok(()),
        }
    }
}
