//! Which unit the machine boots: the kernel's command line goes before `system.ron`, and where neither names one that
//! can be started, every unit with `autostart` is.

use super::check::Draft;
use super::diagnostic::{Diagnostic, Place, Wrong, did_you_mean, short};
use std::path::PathBuf;

/// The word of the kernel's command line that names the target to boot.
pub const BOOT_WORD: &str = "lifeboat.target";

/// Where the kernel shows its command line, proc_cmdline(5).
const COMMAND_LINE: &str = "/proc/cmdline";

/// Who names a unit to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootWish {
    /// The unit.
    pub name: String,
    /// Where it is named: `system.ron`, or the kernel's command line.
    pub file: PathBuf,
}

impl BootWish {
    /// What the kernel's command line names.
    #[must_use]
    pub fn of_the_kernel(name: String) -> Self {
        Self { name, file: COMMAND_LINE.into() }
    }
}

/// Leaves `autostart` to the unit of the first wish that can be fulfilled; gives that one, and tells of those before.
pub(super) fn choose(
    drafts: &mut [Draft],
    names: &[String],
    wishes: Vec<(BootWish, Option<Place>)>,
) -> (Option<BootWish>, Vec<Diagnostic>) {
    let mut faults = Vec::new();
    for (wish, place) in wishes {
        let name = short(&wish.name);
        let found = names.binary_search(&wish.name).ok();
        let wrong = match found.and_then(|index| drafts.get(index)).map(|draft| draft.unit.policy.refused) {
            Some(None) => {
                for (index, draft) in drafts.iter_mut().enumerate() {
                    draft.unit.policy.autostart = Some(index) == found;
                }
                return (Some(wish), faults);
            }
            Some(Some(_)) => Wrong::new(format!("`{name}` has faults and cannot be booted")),
            None => Wrong::new(format!("there is no unit `{name}` to boot"))
                .maybe_hint(did_you_mean(&wish.name, names.iter().map(String::as_str))),
        };
        let hint = wrong.hint.clone().unwrap_or_else(|| {
            "until that is cured the next choice holds: system.ron's, else every unit with autostart".into()
        });
        faults.push(match &place {
            Some(place) => Diagnostic::at(&wish.file, place, "boot", wrong.hint(hint)),
            None => {
                let word = if wish.file.as_os_str() == COMMAND_LINE { BOOT_WORD } else { "boot" };
                Diagnostic::of_file(&wish.file, format!("{word}: {}", wrong.message), hint)
            }
        });
    }
    (None, faults)
}
