//! What failed at a start, told with the file, the line and the cure.

use super::event_loop::Lifeboat;
use crate::engine::event::{Role, SpawnStage};
use crate::engine::policy::UnitId;
use crate::engine::record::Record;
use crate::engine::setting::Setting;
use crate::engine::snapshot::{Trouble, UnitView};
use crate::unit::Unit;
use crate::view::cure;

/// The place in the unit's file, the path that stands there, and what helps.
fn words_of(unit: &Unit, role: Role, stage: SpawnStage, errno: i32) -> Option<String> {
    let (place, path) = unit.blamed(stage, role)?;
    let path = path.map(|path| format!(": {}", path.to_string_lossy())).unwrap_or_default();
    Some(format!("{place}{path}: {}", cure::of_start(stage, errno)))
}

impl Lifeboat {
    /// Goes after the words of a failed start.
    pub(super) fn blame(&self, record: &Record) {
        let words = match *record {
            Record::SpawnFailed { unit, role, stage, errno } => {
                self.unit_at(unit).and_then(|unit| words_of(unit, role, stage, errno))
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

    /// The same for `why`, where that is the unit's last trouble.
    pub(super) fn blamed(&self, unit: UnitId, view: &UnitView) -> Vec<String> {
        let Some(unit) = self.unit_at(unit) else { return Vec::new() };
        let settings = view.refused_settings.iter().filter_map(|refused| Setting::of_name(&refused.setting));
        let mut lines: Vec<String> = settings.map(|setting| unit.set_at(setting).to_string()).collect();
        if let Some(Trouble::SpawnFailed { stage, errno, procedure }) = view.trouble {
            let role = if procedure { Role::Procedure } else { Role::Service };
            lines.extend(words_of(unit, role, stage, errno));
        }
        lines
    }

    fn unit_at(&self, unit: UnitId) -> Option<&Unit> {
        self.seats.get(usize::from(unit.0)).map(|seat| &seat.unit)
    }
}
