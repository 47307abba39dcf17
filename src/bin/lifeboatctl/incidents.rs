//! `incidents`: those of this boot and of earlier ones. What is on a disk is read here, so that PID 1 need not.

use crate::cli::{Context, Incidents, IncidentsVerb};
use crate::client::{ANSWER_TIMEOUT, CallError, Client};
use crate::exit::{Exit, Failure};
use crate::{output, status};
use lifeboat::engine::snapshot::{IncidentStore, Snapshot};
use lifeboat::view::incident::{Story, show, table};
use lifeboat::view::status::OneLine;
use lifeboat::wire::incident::{FILE_BYTES_MAX, Kept, number_of, read};
use lifeboat::wire::reply::{StatusReply, WhyReply};
use lifeboat::wire::request::Request;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// One incident, from a file or from lifeboat's own memory.
struct Found {
    kept: Kept,
    /// It is read again where all of it is asked for: many are not to be held in a small machine's memory.
    file: Option<PathBuf>,
}

/// All that are known, by number. Of two with one number, where a disk came late, the earlier boot's is first.
struct All {
    found: Vec<Found>,
    boot_id: String,
    exit: Exit,
}

pub(crate) fn incidents(context: &Context, what: &Incidents) -> Result<Exit, Failure> {
    let mut all = gather(context, what.folder.as_deref())?;
    match what.verb {
        None => list(context, &all),
        Some(IncidentsVerb::Show { number }) => show_one(context, &mut all, number),
    }
}

fn list(context: &Context, all: &All) -> Result<Exit, Failure> {
    let mut text = String::new();
    if context.json {
        for found in &all.found {
            let Kept { number, unit, boot_id, began_unix_ms, incident, .. } = &found.kept;
            let (this_boot, kept) = (*boot_id == all.boot_id, found.file.is_some());
            text += &output::json(&json!({
                "number": number, "unit": unit, "boot_id": boot_id, "this_boot": this_boot, "kept": kept,
                "began_unix_ms": began_unix_ms, "incident": incident,
            }))?;
        }
    } else if all.found.is_empty() {
        text += "no incidents\n";
    } else {
        let stories: Vec<Story<'_>> = all.found.iter().map(|found| all.story(found)).collect();
        // A String takes everything.
        let _ = table(&mut text, &stories);
    }
    output::finish(&text, all.exit)
}

fn show_one(context: &Context, all: &mut All, number: u32) -> Result<Exit, Failure> {
    let mut text = String::new();
    let only_here = |found: &&mut Found| found.kept.number == number && found.file.is_none();
    for found in all.found.iter_mut().filter(only_here) {
        found.kept.words = words_of(context, &found.kept).unwrap_or_default();
    }
    for found in all.found.iter().filter(|found| found.kept.number == number) {
        if !context.json && !text.is_empty() {
            text.push('\n');
        }
        text += &all.in_full(context, found)?;
    }
    if text.is_empty() {
        let known = match (all.found.first(), all.found.last()) {
            (Some(first), Some(last)) => {
                format!("those on record go from {} to {}", first.kept.number, last.kept.number)
            }
            _ => "none is on record".into(),
        };
        let exit = if all.exit == Exit::Ok { Exit::Failed } else { all.exit };
        return Err(Failure { message: format!("there is no incident {number}: {known}"), exit });
    }
    output::finish(&text, all.exit)
}

impl All {
    fn in_full(&self, context: &Context, found: &Found) -> Result<String, Failure> {
        match &found.file {
            Some(file) if context.json => match text_of(file) {
                Ok(text) => Ok(String::from_utf8_lossy(&text).trim_end().to_owned() + "\n"),
                Err(error) => {
                    let message = format!("cannot read {}: {error}", OneLine(&file.display().to_string()));
                    Err(Failure { message, exit: Exit::Failed })
                }
            },
            None if context.json => {
                let Kept { number, unit, boot_id, began_unix_ms, incident, words, .. } = &found.kept;
                output::json(&json!({
                    "number": number, "unit": unit, "boot_id": boot_id, "began_unix_ms": began_unix_ms,
                    "incident": incident, "words": words,
                }))
            }
            _ => {
                let mut text = String::new();
                let _ = show(&mut text, &self.story(found));
                Ok(text)
            }
        }
    }

    fn story<'a>(&self, found: &'a Found) -> Story<'a> {
        let kept = &found.kept;
        Story {
            unit: &kept.unit,
            began_unix_ms: kept.began_unix_ms,
            this_boot: kept.boot_id == self.boot_id,
            kept: found.file.is_some(),
            incident: &kept.incident,
            peak_bytes: kept.peak_bytes,
            memory_stat: &kept.memory_stat,
            words: &kept.words,
        }
    }

    /// What lifeboat has in memory and no file has.
    fn add_present(&mut self, snapshot: &Snapshot) {
        for incident in &snapshot.incidents {
            // The same number may be an earlier boot's, or another lifeboat's of this boot.
            let is_it = |kept: &Kept| {
                (kept.number, &kept.boot_id) == (incident.number, &self.boot_id)
                    && kept.incident.began == incident.began
            };
            if self.found.iter().any(|found| is_it(&found.kept)) {
                continue;
            }
            let began_us = status::wall_offset().0.saturating_add_unsigned(incident.began.0);
            let unit = snapshot.names.get(usize::from(incident.unit.0)).cloned().unwrap_or_default();
            let kept = Kept {
                number: incident.number,
                unit,
                boot_id: self.boot_id.clone(),
                began_unix_ms: u64::try_from(began_us / 1_000).unwrap_or(0),
                incident: *incident,
                peak_bytes: None,
                memory_stat: BTreeMap::new(),
                words: String::new(),
            };
            self.found.push(Found { kept, file: None });
        }
    }

    /// What is in a folder. A file that cannot be used is told, and the others are shown.
    fn add_files(&mut self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(number) = path.file_name().and_then(|name| number_of(name.to_str()?)) else { continue };
            let told = match text_of(&path) {
                Ok(text) => match read(&text) {
                    Ok(kept) if kept.number == number => {
                        self.found.push(Found { kept, file: Some(path) });
                        continue;
                    }
                    Ok(kept) => format!("it holds incident {}", kept.number),
                    Err(error) => error.to_string(),
                },
                // Removed meanwhile, as the oldest.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => error.to_string(),
            };
            let path = path.display().to_string();
            output::complain("lifeboatctl", &format!("{} is left out: {}", OneLine(&path), OneLine(&told)));
        }
        Ok(())
    }
}

/// What the incident's run has said at last, as long as lifeboat has it: until the next run has ended.
fn words_of(context: &Context, kept: &Kept) -> Option<String> {
    let mut client = Client::connect(&context.socket()).ok()?;
    let name = kept.unit.clone();
    let why: WhyReply<'static> = client.call(Request::Why { name }, ANSWER_TIMEOUT).ok()?;
    let (run, now, is_up) = (kept.incident.run.0, why.unit.run.0, why.unit.pid.is_some());
    let is_last_to_end = if is_up { now == run + 1 } else { now == run };
    is_last_to_end.then_some(why.last_words)
}

/// A file of the store. A fifo, where there should be a file, must not hold us up.
fn text_of(path: &Path) -> io::Result<Vec<u8>> {
    read_all(OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?)
}

/// A file's bytes, and one more than it may have.
pub(crate) fn read_all(file: File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let most = u64::try_from(FILE_BYTES_MAX + 1).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}

/// From a folder alone, or from lifeboat and its folder.
fn gather(context: &Context, folder: Option<&Path>) -> Result<All, Failure> {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut all = All { found: Vec::new(), boot_id: boot_id.trim().to_owned(), exit: Exit::Ok };
    let present = match folder {
        Some(_) => None,
        None => asked(context)?,
    };
    let folder = match (folder, &present) {
        (Some(folder), _) => Some(folder.to_owned()),
        (None, Some(snapshot)) => {
            snapshot.system.incidents.as_ref().map(|store| PathBuf::from(&store.folder))
        }
        (None, None) => Some(IncidentStore::default().folder.into()),
    };
    if let Some(folder) = folder
        && let Err(error) = all.add_files(&folder)
    {
        let name = folder.display().to_string();
        let (told, exit) = match error.kind() {
            // Nothing was kept there yet.
            ErrorKind::NotFound if present.is_some() => (String::new(), Exit::Ok),
            ErrorKind::NotFound => {
                (format!("there is no folder {name}: --folder DIR names another"), Exit::Failed)
            }
            ErrorKind::PermissionDenied => {
                (format!("your user may not read {name}: try as root"), Exit::Unknown)
            }
            _ => (format!("cannot read {name}: {error}"), Exit::Failed),
        };
        if present.is_none() {
            return Err(Failure { message: told, exit });
        }
        if exit != Exit::Ok {
            output::complain("lifeboatctl", &format!("{told}; what follows is of this boot only"));
        }
        all.exit = exit;
    }
    if let Some(snapshot) = &present {
        all.add_present(snapshot);
    }
    all.found
        .sort_by_key(|found| (found.kept.number, found.kept.boot_id == all.boot_id, found.file.is_none()));
    Ok(all)
}

/// What lifeboat says; nothing, and a word about it, where none runs.
fn asked(context: &Context) -> Result<Option<Snapshot>, Failure> {
    let answer = Client::connect(&context.socket())
        .and_then(|mut client| client.call::<StatusReply<'static>>(Request::Status, ANSWER_TIMEOUT));
    match answer {
        Ok(reply) => Ok(Some(reply.snapshot.into_owned())),
        Err(CallError::Unreachable { path, .. }) => {
            let folder = IncidentStore::default().folder;
            let socket = path.display();
            let message = format!("no lifeboat at {socket}: what is in {folder} is shown (--folder DIR)");
            output::complain("lifeboatctl", &message);
            Ok(None)
        }
        Err(error) => Err(status::unknown(error)),
    }
}
