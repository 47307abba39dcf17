//! Which unit the machine boots: the kernel's command line goes before `system.ron`, and where neither names one that
//! can be started, every unit with `autostart` is.

use super::check::Draft;
use super::diagnostic::{Diagnostic, Place, Wrong, did_you_mean, short};
use std::path::Path;

/// The word of the kernel's command line that names the target to boot.
pub const BOOT_WORD: &str = "lifeboat.target";

/// Who names a unit to boot.
pub(super) struct Wish<'a> {
    pub name: &'a str,
    /// The file, and the place in it.
    pub file: &'a Path,
    pub place: Option<&'a Place>,
}

/// Leaves `autostart` to the unit of the first wish that can be fulfilled; tells of the others.
pub(super) fn choose(drafts: &mut [Draft], names: &[String], wishes: &[Wish<'_>]) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    for wish in wishes {
        let name = short(wish.name);
        let found = names.binary_search_by(|known| known.as_str().cmp(wish.name)).ok();
        let wrong = match found.and_then(|index| drafts.get(index)).map(|draft| draft.unit.policy.refused) {
            Some(None) => {
                for (index, draft) in drafts.iter_mut().enumerate() {
                    draft.unit.policy.autostart = Some(index) == found;
                }
                return faults;
            }
            Some(Some(_)) => Wrong::new(format!("`{name}` has faults and cannot be booted")),
            None => Wrong::new(format!("there is no unit `{name}` to boot"))
                .maybe_hint(did_you_mean(wish.name, names.iter().map(String::as_str))),
        };
        let hint = wrong.hint.clone().unwrap_or_else(|| {
            "until that is cured the next choice holds: system.ron's, else every unit with autostart".into()
        });
        let wrong = wrong.hint(hint);
        faults.push(match wish.place {
            Some(place) => Diagnostic::at(wish.file, place, "boot", wrong),
            None => {
                let message = format!("{BOOT_WORD}: {}", wrong.message);
                Diagnostic::of_file(wish.file, message, wrong.hint.unwrap_or_default())
            }
        });
    }
    faults
}
