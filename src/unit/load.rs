//! Reads the folders. Whatever lies there, it neither waits nor gives up: a file that cannot be used costs that file.

use super::accounts::Accounts;
use super::boot::{self, BootWish};
use super::check::{self, Draft};
use super::diagnostic::Diagnostic;
use super::{System, Unit, conflicts, relations, template};
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
    /// The unit that is booted, where one is named.
    pub boots: Option<BootWish>,
}

/// What is wished beside the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The unit to boot, which goes before the one that `system.ron` names.
    pub boot: Option<BootWish>,
    /// Instances of templates that somebody asked for by name.
    pub instances: Vec<String>,
}

/// Reads every `*.ron` in the folders, and `system.ron`.
///
/// A file in a later folder replaces the file of the same name in an earlier one, also where it is broken. A folder
/// that does not exist holds nothing; hidden files are not looked at.
#[must_use]
pub fn load(dirs: &[PathBuf], system: Option<&Path>) -> Loaded {
    load_with(dirs, system, &Wishes::default())
}

/// [`load`], with something wished.
#[must_use]
pub fn load_with(dirs: &[PathBuf], system: Option<&Path>, wishes: &Wishes) -> Loaded {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut surplus = 0_usize;
    let mut shelf = Shelf::default();
    for dir in dirs {
        surplus += list(dir, &mut files, &mut shelf.faults);
    }
    shelf.fill(files, &wishes.instances);
    let surplus = surplus + shelf.surplus;
    if let (Some(dir), true) = (dirs.last(), surplus > 0) {
        let message = format!("{UNITS_MAX} units are the most; {surplus} more, last by name, are left out");
        shelf.faults.insert(0, Diagnostic::of_file(dir, message, ""));
    }
    let mut drafts: Vec<Draft> = shelf.drafts.into_values().collect();
    let mut faults = shelf.faults;
    faults.extend(relations::join(&mut drafts));
    let mut loaded = Loaded::default();
    let mut place = None;
    let names: Vec<String> = drafts.iter().map(|draft| draft.unit.policy.name.clone()).collect();
    if let Some(file) = system.filter(|file| fs::symlink_metadata(file).is_ok()) {
        let (system, boot_at, found) = match read(file) {
            Ok(text) => check::system(file, &text, &names),
            Err(fault) => (System::default(), None, vec![*fault]),
        };
        (loaded.system, place) = (system, boot_at);
        faults.extend(found);
    }
    let by_file = loaded.system.boot.clone().zip(system);
    let by_file = by_file.map(|(name, file)| (BootWish { name, file: file.to_owned() }, place));
    let wishes: Vec<_> = wishes.boot.clone().map(|wish| (wish, None)).into_iter().chain(by_file).collect();
    let (boots, found) = boot::choose(&mut drafts, &names, wishes);
    loaded.boots = boots;
    faults.extend(found);
    faults.extend(conflicts::at_boot(&drafts, &names));
    loaded.units = relations::units(drafts);
    loaded.faults = faults;
    loaded
}

/// Where `system.ron` says that `enable` and `disable` are kept. What is wrong with the file is told by [`load`].
#[must_use]
pub fn state_folder(system: &Path) -> Option<PathBuf> {
    let text = read(system).ok()?;
    check::system(system, &text, &[]).0.state_folder
}

/// The files as drafts, with the instances of templates.
#[derive(Default)]
struct Shelf {
    /// By name.
    drafts: BTreeMap<String, Draft>,
    templates: BTreeMap<String, Template>,
    faults: Vec<Diagnostic>,
    accounts: Accounts,
    surplus: usize,
}

struct Template {
    file: PathBuf,
    text: Result<String, ()>,
}

impl Shelf {
    fn fill(&mut self, files: BTreeMap<String, PathBuf>, wished: &[String]) {
        let (templates, units): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|(name, _)| template::is_template(name));
        let mut listed = Vec::new();
        for (name, file) in templates {
            let text = read(&file).map_err(|fault| self.faults.push(*fault));
            if let Ok(text) = &text {
                // Checked once for itself, with an argument that nobody is asked to know.
                let (draft, faults) = check::draft(&format!("{name}i"), &file, text, &self.accounts);
                listed.extend(draft.instances);
                let holds_for_all = |fault: &Diagnostic| !fault.source_line.contains("%i");
                self.tell(faults.into_iter().filter(holds_for_all).collect());
            }
            self.templates.insert(name, Template { file, text });
        }
        for (name, file) in units {
            let link = template::split(&name).and_then(|(template, _)| self.templates.get(template));
            // A link to the template is the template: its faults are told once, at its own place.
            match link.is_some_and(|template| is_same(&template.file, &file)) {
                true => self.add_instance(&name, true),
                false => self.add(&name, &file, read(&file)),
            }
        }
        for name in listed {
            self.add_instance(&name, true);
        }
        for name in wished {
            self.add_instance(name, false);
        }
        self.add_named_instances();
    }

    /// Instances that other units name, also those that such instances name.
    fn add_named_instances(&mut self) {
        let names_of = |draft: &Draft| -> Vec<String> {
            let named = draft.references.iter().map(|reference| &reference.name);
            named.chain(draft.fallbacks.iter().map(|fallback| &fallback.name)).cloned().collect()
        };
        let mut open: Vec<String> = self.drafts.values().flat_map(names_of).collect();
        while let Some(name) = open.pop().filter(|_| self.surplus == 0) {
            if check::name_fault(&name).is_none() && !self.drafts.contains_key(&name) {
                self.add_instance(&name, false);
                open.extend(self.drafts.get(&name).map(names_of).unwrap_or_default());
            }
        }
    }

    /// Makes an instance of a template, where there is one and nothing has the name yet. Where the instance only exists
    /// because it is named, who names it starts it.
    fn add_instance(&mut self, name: &str, by_itself: bool) {
        let template = template::split(name).and_then(|(template, _)| self.templates.get(template));
        let Some(Template { file, text }) = template.filter(|_| !self.drafts.contains_key(name)) else {
            return;
        };
        if self.drafts.len() >= UNITS_MAX {
            self.surplus += 1;
            return;
        }
        let file = file.clone();
        let (mut draft, faults) = match text {
            Ok(text) => check::draft(name, &file, text, &self.accounts),
            Err(()) => (Draft::refused(name, &file), Vec::new()),
        };
        draft.unit.policy.autostart &= by_itself;
        self.tell(faults);
        self.drafts.insert(name.to_owned(), draft);
    }

    fn add(&mut self, name: &str, file: &Path, text: Result<String, Box<Diagnostic>>) {
        let (draft, faults) = match text {
            Ok(text) => check::draft(name, file, &text, &self.accounts),
            Err(fault) => (Draft::refused(name, file), vec![*fault]),
        };
        self.tell(faults);
        self.drafts.insert(name.to_owned(), draft);
    }

    /// What is wrong with a template is wrong with each of its instances: told once.
    fn tell(&mut self, faults: Vec<Diagnostic>) {
        for fault in faults {
            if !self.faults.contains(&fault) {
                self.faults.push(fault);
            }
        }
    }
}

/// Whether a link leads to the file.
fn is_same(file: &Path, link: &Path) -> bool {
    let target = |path: &Path| fs::canonicalize(path).ok();
    target(link).is_some_and(|found| Some(found) == target(file))
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
