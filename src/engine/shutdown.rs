//! The end of the machine: all units down in reverse order, each with its own deadlines, then the last action.

use super::action::Action;
use super::event::ShutdownKind;
use super::record::Record;
use super::service::Service;
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
    ///
    /// Nobody comes up again in a shutdown. So whoever was found down is not looked at again, and an event costs the
    /// same whatever the number of units.
    pub(super) fn finish_if_all_down(&mut self, plan: &mut Plan) {
        let Some(shutdown) = self.shutdown.filter(|shutdown| !shutdown.finished) else { return };
        let is_over = |unit: &Service| unit.state.is_down() || unit.stuck;
        while self.units.get(self.found_down).is_some_and(is_over) {
            self.found_down += 1;
        }
        if self.found_down < self.units.len() {
            return;
        }
        self.shutdown = Some(ShutdownState { finished: true, ..shutdown });
        let how = shutdown.how;
        plan.tell(Record::AllDown { how });
        plan.push(Action::Finish { how });
    }
}
