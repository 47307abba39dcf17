//! The end of the machine: all units down in reverse order, each with its own deadlines, then the last action.

use super::action::Action;
use super::event::ShutdownKind;
use super::record::Record;
use super::snapshot::{KillReason, ShutdownState};
use super::{Engine, Plan};

impl Engine {
    /// The first request decides how the machine ends; a later one changes nothing, so that two people at two consoles
    /// cannot turn a power-off into a reboot half way.
    pub(super) fn shutdown_asked(&mut self, how: ShutdownKind, plan: &mut Plan) {
        if self.shutdown.is_some() {
            return;
        }
        self.shutdown = Some(ShutdownState { how, finished: false });
        self.generation += 1;
        plan.tell(Record::ShuttingDown { how });
        for unit in self.all() {
            self.want_down(unit, KillReason::Shutdown);
        }
    }

    /// Every step of every unit has a deadline, and a unit that cannot be killed is passed over: this is reached.
    pub(super) fn finish_if_all_down(&mut self, plan: &mut Plan) {
        let Some(shutdown) = self.shutdown else { return };
        if shutdown.finished || self.units.iter().any(|unit| !unit.state.is_down() && !unit.stuck) {
            return;
        }
        self.shutdown = Some(ShutdownState { finished: true, ..shutdown });
        let how = shutdown.how;
        plan.tell(Record::AllDown { how });
        plan.push(Action::Finish { how });
    }
}
