//! Reads the folders. Whatever lies there, it neither waits nor gives up: a file that cannot be used costs that file.

use super::accounts::Accounts;
use super::check::{self, Draft};
use super::diagnostic::Diagnostic;
use super::{System, Unit};
use crate::engine::budget::Bytes;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that is larger is not a unit; it is not read.
pub const FILE_BYTES_MAX: u64 = 256 << 10;

/// The table of units has so many places.
pub const UNITS_MAX: usize = 1_024;

/// What the folders hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// All units in the order of their names; `UnitId` is the position. Broken ones are there too, refused.
    pub units: Vec<Unit>,
    /// `system.ron`, or its defaults.
    pub system: System,
    /// Everything that is wrong with the files.
    pub faults: Vec<Diagnostic>,
}

/// Reads every `*.ron` in the folders, and `system.ron`.
///
/// A file in a later folder replaces the file of the same name in an earlier one, also where it is broken. A folder
/// that does not exist holds nothing; hidden files are not looked at.
#[must_use]
pub fn load(dirs: &[PathBuf], system: Option<&Path>) -> Loaded {
    let mut loaded = Loaded::default();
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut surplus = 0_usize;
    for dir in dirs {
        surplus += list(dir, &mut files, &mut loaded.faults);
    }
    if let (Some(dir), true) = (dirs.last(), surplus > 0) {
        let message = format!("{UNITS_MAX} units are the most; {surplus} more, last by name, are left out");
        loaded.faults.push(Diagnostic::of_file(dir, message, ""));
    }
    let accounts = Accounts::default();
    let mut drafts = Vec::new();
    for (name, file) in &files {
        let (draft, faults) = match read(file) {
            Ok(text) => check::draft(name, file, &text, &accounts),
            Err(fault) => (Draft::refused(name, file), vec![*fault]),
        };
        drafts.push(draft);
        loaded.faults.extend(faults);
    }
    let (units, faults) = check::join(drafts);
    loaded.units = units;
    loaded.faults.extend(faults);
    if let Some(file) = system.filter(|file| fs::symlink_metadata(file).is_ok()) {
        let (system, faults) = match read(file) {
            Ok(text) => check::system(file, &text, &loaded.units),
            Err(fault) => (System::default(), vec![*fault]),
        };
        loaded.system = system;
        loaded.faults.extend(faults);
    }
    loaded
}

/// Adds the files of a folder by unit name. Gives the number of those that have no place.
fn list(dir: &Path, files: &mut BTreeMap<String, PathBuf>, faults: &mut Vec<Diagnostic>) -> usize {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return 0,
        Err(error) => {
            faults.push(Diagnostic::of_file(dir, format!("this folder cannot be read: {error}"), ""));
            return 0;
        }
    };
    let mut surplus = 0;
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                faults.push(Diagnostic::of_file(dir, format!("this folder cannot be read on: {error}"), ""));
                break;
            }
        };
        let file_name = entry.file_name();
        let file_name = file_name.to_string_lossy();
        let Some(name) = file_name.strip_suffix(".ron").filter(|_| !file_name.starts_with('.')) else {
            continue;
        };
        if let Some(wrong) = check::name_fault(name) {
            let hint = wrong.hint.unwrap_or_default();
            faults.push(Diagnostic::of_file(&entry.path(), wrong.message, hint));
            continue;
        }
        files.insert(name.to_owned(), entry.path());
        if files.len() > UNITS_MAX {
            files.pop_last();
            surplus += 1;
        }
    }
    surplus
}

/// The text of a file, or why it is none.
pub(super) fn read(file: &Path) -> Result<String, Box<Diagnostic>> {
    let refuse = |message: String, hint: &str| Box::new(Diagnostic::of_file(file, message, hint));
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            refuse("this link leads nowhere".to_owned(), "remove it, or put the file where it points")
        }
        _ => refuse(format!("this file cannot be read: {error}"), ""),
    };
    let irregular = || refuse("this is not a regular file".to_owned(), "put a file here, or rename it");
    // Looked at before it is opened: opening a device can do something, as with /dev/watchdog.
    if !fs::metadata(file).map_err(failed)?.is_file() {
        return Err(irregular());
    }
    let opened = open(file).map_err(failed)?;
    let metadata = opened.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(irregular());
    }
    let too_long = || {
        let most = Bytes(FILE_BYTES_MAX);
        refuse(format!("this file is larger than {most} and was not read"), "is it a unit file at all?")
    };
    if metadata.len() > FILE_BYTES_MAX {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(too_long());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let message = format!("this file is not UTF-8: there is a stray byte in line {line}");
        refuse(message, "save it as UTF-8 in the editor")
    })?;
    // A byte order mark, as some editors write it, is no part of the text.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Opens without waiting: a FIFO that took the file's place in between must not hold PID 1.
fn open(file: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(file)
}
