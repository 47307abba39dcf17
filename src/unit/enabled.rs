//! What people have said about starting at boot, against what the unit's file says: an empty file for each unit.
//!
//! `enabled/NAME` starts it, `disabled/NAME` does not; where both are there, a change was cut off in the middle, and it
//! is not started. A name that no unit has any more is left alone.

use super::Unit;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

const ENABLED: &str = "enabled";
const DISABLED: &str = "disabled";

/// The file that says so.
#[must_use]
pub fn file_of(folder: &Path, name: &str, autostart: bool) -> PathBuf {
    folder.join(if autostart { ENABLED } else { DISABLED }).join(name)
}

/// The units that are to be started at boot.
#[must_use]
pub fn names(folder: &Path) -> BTreeSet<String> {
    let (mut enabled, disabled) = (listed(folder, ENABLED), listed(folder, DISABLED));
    enabled.retain(|name| !disabled.contains(name));
    enabled
}

fn listed(folder: &Path, list: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder.join(list)).into_iter().flatten().flatten();
    // One by one: `collect` would bring a sort of its own.
    let mut names = BTreeSet::new();
    names.extend(entries.filter_map(|entry| entry.file_name().into_string().ok()));
    names
}

/// Lets what was said hold for these units.
pub fn apply(folder: &Path, units: &mut [Unit]) {
    let (enabled, disabled) = (listed(folder, ENABLED), listed(folder, DISABLED));
    for unit in units.iter_mut().filter(|unit| unit.policy.refused.is_none()) {
        let said = match (enabled.contains(&unit.policy.name), disabled.contains(&unit.policy.name)) {
            (_, true) => Some(false),
            (true, false) => Some(true),
            (false, false) => None,
        };
        unit.policy.autostart = said.unwrap_or(unit.policy.autostart);
    }
}

/// Says it for one unit, durably: the new file first, then the old one goes.
pub fn store(folder: &Path, name: &str, autostart: bool) -> io::Result<()> {
    let (new, old) = (file_of(folder, name, autostart), file_of(folder, name, !autostart));
    let parent = new.parent().unwrap_or(folder);
    fs::create_dir_all(parent)?;
    OpenOptions::new().write(true).create(true).truncate(false).open(&new)?.sync_all()?;
    File::open(parent)?.sync_all()?;
    match fs::remove_file(&old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => return Ok(()),
        Ok(()) => {}
    }
    old.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::super::load;
    use super::*;

    #[test]
    fn what_was_said_last_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let units = folder.path().join("units");
        fs::create_dir(&units).expect("a folder");
        for name in ["a", "b"] {
            let text = format!("(command: [\"/bin/true\"], autostart: {})", name == "a");
            fs::write(units.join(format!("{name}.ron")), text).expect("a unit");
        }
        let check = |expected: [bool; 2]| {
            let mut loaded = load(std::slice::from_ref(&units), None).units;
            apply(folder.path(), &mut loaded);
            assert_eq!([0, 1].map(|at| loaded[at].policy.autostart), expected);
        };
        check([true, false]);
        store(folder.path(), "a", false).expect("a writable folder");
        store(folder.path(), "b", true).expect("a writable folder");
        check([false, true]);
        store(folder.path(), "a", true).expect("a writable folder");
        assert!(!folder.path().join("disabled/a").exists());
        check([true, true]);
        // Cut off between the two steps.
        fs::write(folder.path().join("disabled/b"), "").expect("a file");
        check([true, false]);
        // A name of no unit, and a folder that is none.
        store(folder.path(), "gone", false).expect("a writable folder");
        check([true, false]);
        assert!(store(&units.join("a.ron"), "a", true).is_err());
    }
}
