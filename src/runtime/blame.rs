//! What failed at a start, told with the file, the line and the cure.

use super::event_loop::Lifeboat;
use super::seat::Seat;
use crate::engine::event::{CommandKind, Exit, Role, SpawnStage};
use crate::engine::policy::UnitId;
use crate::engine::record::Record;
use crate::engine::setting::Setting;
use crate::engine::snapshot::{ProcedureResult, Trouble, UnitView};
use crate::unit::{Unit, Unstarted};
use crate::view::{cure, words};

/// The place in the unit's file, the path that stands there, and what helps.
fn words_of(unit: &Unit, what: Unstarted, stage: SpawnStage, errno: i32) -> Option<String> {
    let (place, path) = unit.blamed(stage, what)?;
    let path = path.map(|path| format!(": {}", path.to_string_lossy())).unwrap_or_default();
    Some(format!("{place}{path}: {}", cure::of_start(stage, errno)))
}

/// The same of a procedure that ended before it was needed.
fn words_of_lost(unit: &Unit, exit: Exit) -> Option<String> {
    let (place, path) = unit.blamed(SpawnStage::Exec, Unstarted::Procedure)?;
    let path = path.map(|path| format!(": {}", path.to_string_lossy())).unwrap_or_default();
    Some(format!("{place}{path}: {}", cure::of_lost_procedure(exit)))
}

/// The same of what runs beside the service.
fn words_of_command(unit: &Unit, kind: CommandKind, result: ProcedureResult) -> Option<String> {
    let ProcedureResult::SpawnFailed { stage, errno } = result else { return None };
    words_of(unit, Unstarted::Command(kind), stage, errno)
}

impl Seat {
    /// What was to be in this role last.
    fn unstarted(&self, role: Role) -> Option<Unstarted> {
        Some(match role {
            Role::Service => Unstarted::Service,
            Role::Procedure if self.saver_is_second => Unstarted::Otherwise,
            Role::Procedure => Unstarted::Procedure,
            Role::Ballast => Unstarted::Ballast,
            // Its own record tells which.
            Role::Command => return None,
        })
    }
}

impl Lifeboat {
    /// Goes after the words of a failed start.
    pub(super) fn blame(&self, record: &Record) {
        let words = match *record {
            Record::SpawnFailed { unit, role, stage, errno } => self
                .seats
                .get(usize::from(unit.0))
                .and_then(|seat| words_of(&seat.unit, seat.unstarted(role)?, stage, errno)),
            Record::CommandOver { unit, kind, result, .. } => {
                self.unit_at(unit).and_then(|unit| words_of_command(unit, kind, result))
            }
            Record::ProcedureLost { unit, exit } => {
                self.unit_at(unit).and_then(|unit| words_of_lost(unit, exit))
            }
            Record::SettingRefused { unit, setting, .. } => {
                self.unit_at(unit).map(|unit| unit.set_at(setting).to_string())
            }
            _ => None,
        };
        if let Some(words) = words {
            self.story.add(format_args!("  {words}"));
        }
    }

    /// The second procedure could not be executed if it were needed now; its service starts all the same.
    pub(super) fn tell_no_second(&self, unit: UnitId, errno: i32) {
        let Some(unit) = self.unit_at(unit) else { return };
        let (stage, name, why) = (SpawnStage::Exec, &unit.policy.name, words::errno(errno));
        self.story.add(format_args!(
            "{name}: its second procedure could not be started: {}: {why}",
            words::stage(stage)
        ));
        if let Some(words) = words_of(unit, Unstarted::Otherwise, stage, errno) {
            self.story.add(format_args!("  {words}"));
        }
    }

    /// The same for `why`, where that is the unit's last trouble, or of the last of its commands that failed.
    pub(super) fn blamed(&self, unit: UnitId, view: &UnitView) -> Vec<String> {
        let Some(unit) = self.unit_at(unit) else { return Vec::new() };
        let settings = view.refused_settings.iter().filter_map(|refused| Setting::of_name(&refused.setting));
        let mut lines: Vec<String> = settings.map(|setting| unit.set_at(setting).to_string()).collect();
        if let Some(Trouble::SpawnFailed { stage, errno, procedure }) = view.trouble {
            // A second procedure's is no trouble of its own: it comes in an incident or at a stop.
            let what = if procedure { Unstarted::Procedure } else { Unstarted::Service };
            lines.extend(words_of(unit, what, stage, errno));
        }
        if let Some(Trouble::ProcedureLost { exit }) = view.trouble {
            lines.extend(words_of_lost(unit, exit));
        }
        lines.extend(view.failed_command.and_then(|it| words_of_command(unit, it.kind, it.result)));
        lines
    }

    fn unit_at(&self, unit: UnitId) -> Option<&Unit> {
        self.seats.get(usize::from(unit.0)).map(|seat| &seat.unit)
    }
}
