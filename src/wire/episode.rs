//! What a kept incident has to be replayed from: the unit's definition, how it stood, and its turns. Pure: text in,
//! text out.

use super::incident::{FILE_BYTES_MAX, Unreadable};
use super::numbers::{Strange, whole};
use crate::engine::episode::{Entry, Episode, Missing};
use crate::engine::event::{Event, Time};
use crate::engine::numbers::{fold, numbers};
use crate::engine::policy::{UnitId, UnitPolicy};
use crate::engine::replay::KeptEpisode;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Write};

/// Who writes. Another version may decide otherwise, and that is then no fault of the file.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Of the rows of numbers. Another one wherever what is declared of a checkpoint, a policy, a deed or what comes next
/// is: a row of another layout is not understood.
pub const LAYOUT: u32 = 7;

/// What stands behind an episode: the print of its text.
const SEAL: &str = ",\"replay_seal\"";
const SEAL_BYTES: usize = SEAL.len() + 21;

/// Adds text to a print. White space does not count: a tool may have laid out the file anew.
fn seal(print: u64, text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte > b' ').fold(print, |print, byte| fold(print, u64::from(*byte)))
}

/// By which definition the unit ran, and its episode; or why there is none.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a>(pub Result<(&'a UnitPolicy, &'a Episode<'a>), Missing>);

impl Recorded<'_> {
    /// Writes it as the last but one field of a file, where it has no more than so many bytes, else why it is not
    /// there. Gives how many bytes that took.
    pub(super) fn write(
        &self,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
        room: usize,
    ) -> io::Result<usize> {
        let (mut bytes, mut print) = (0, 0);
        let fits = self.0.and_then(|recorded| {
            let counted = pieces(recorded, &mut |piece| {
                bytes += piece.len();
                print = seal(print, piece);
                Ok(())
            });
            if counted.is_ok() && bytes + SEAL_BYTES <= room { Ok(recorded) } else { Err(Missing::TooLong) }
        });
        let text = match fits {
            Ok(recorded) => {
                pieces(recorded, take)?;
                format!("{SEAL}:{print}")
            }
            Err(missing) => {
                bytes = 0;
                format!(",\"replay\":{{\"Missing\":\"{missing:?}\"}}")
            }
        };
        take(text.as_bytes())?;
        Ok(bytes + text.len())
    }
}

/// Its text piece by piece, none of which is long: of a long one PID 1 would keep the room.
fn pieces(
    (policy, episode): (&UnitPolicy, &Episode<'_>),
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = Vec::new();
    let Episode { unit, reserve_bytes, is_cut, .. } = episode;
    write!(piece, ",\"replay_by\":\"{VERSION}\",\"replay\":{{\"Episode\":{{\"unit\":{},", unit.0)?;
    write!(piece, "\"reserve_bytes\":{reserve_bytes},\"is_cut\":{is_cut},\"layout\":{LAYOUT},\"next\":[")?;
    append_row(&mut piece, &episode.next);
    piece.extend(b",\"policy\":[");
    append_row(&mut piece, policy);
    piece.extend(b",\"checkpoints\":[");
    take(&piece)?;
    for (at, checkpoint) in episode.checkpoints.iter().flatten().enumerate() {
        begin(&mut piece, at);
        piece.push(b'[');
        append_row(&mut piece, checkpoint);
        take(&piece)?;
    }
    take(b"],\"entries\":[")?;
    for (at, entry) in episode.entries.iter().enumerate() {
        begin(&mut piece, at);
        append(&mut piece, entry)?;
        take(&piece)?;
    }
    take(b"]}}")
}

/// What stands behind its bracket, and the other bracket.
fn append_row(piece: &mut Vec<u8>, value: &impl Serialize) {
    numbers(value, &mut |number| {
        if piece.last() != Some(&b'[') {
            piece.push(b',');
        }
        // A list of bytes takes everything.
        let _ = write!(piece, "{number}");
    });
    piece.push(b']');
}

/// The next of a list.
pub(super) fn begin(piece: &mut Vec<u8>, at: usize) {
    piece.clear();
    if at > 0 {
        piece.push(b',');
    }
}

fn append(piece: &mut Vec<u8>, entry: &Entry) -> io::Result<()> {
    match entry {
        Entry::Others(bytes) => return write!(piece, "{{\"Others\":{bytes}}}"),
        Entry::Elsewhere => return piece.write_all(b"\"Elsewhere\""),
        Entry::Event(time, event, print) => {
            piece.extend(b"{\"Event\":");
            append_event(piece, *time, event)?;
            piece.pop();
            write!(piece, ",{print}]")?;
        }
        Entry::Deed(deed) => {
            piece.extend(b"{\"Deed\":[");
            append_row(piece, deed);
        }
    }
    piece.push(b'}');
    Ok(())
}

/// Not inlined, nor written twice: an event of any kind is much code.
#[inline(never)]
pub(super) fn append_event(piece: &mut Vec<u8>, time: Time, event: &Event) -> io::Result<()> {
    write!(piece, "[{},", time.0)?;
    serde_json::to_writer(&mut *piece, event)?;
    piece.push(b']');
    Ok(())
}

/// Why a file has nothing to replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoEpisode {
    /// It is no incident's file at all.
    Unreadable(Unreadable),
    /// An earlier lifeboat wrote it.
    Absent,
    /// lifeboat has left it out.
    Missing(Missing),
    /// It is not understood.
    Strange {
        /// Who wrote it.
        by: String,
        /// What of it.
        why: String,
    },
}

impl fmt::Display for NoEpisode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = match self {
            Self::Unreadable(why) => return write!(f, "it cannot be read: {why}"),
            Self::Strange { by, why } => {
                return write!(
                    f,
                    "lifeboat {by} wrote it, and this lifeboatctl {VERSION} does not understand how ({why}): try \
                     the lifeboatctl of that version"
                );
            }
            Self::Absent => "it has the record alone: the lifeboat that wrote it kept nothing to replay",
            Self::Missing(Missing::Busy) => {
                "it has the record alone: the memory of too many units came to an end at the same time"
            }
            Self::Missing(Missing::Reconfigured) => {
                "it has the record alone: unit files were changed during the incident"
            }
            Self::Missing(Missing::TooLong) => {
                "it has the record alone: what is needed to replay it had no room in a file"
            }
        };
        f.write_str(said)
    }
}

impl std::error::Error for NoEpisode {}

#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    replay_by: String,
    replay: Option<serde_json::Value>,
    replay_seal: Option<u64>,
}

/// What a file has, before its rows are understood.
#[derive(Deserialize)]
enum Kept {
    Episode(Written),
    Missing(Missing),
}

#[derive(Deserialize)]
struct Written {
    unit: UnitId,
    reserve_bytes: u64,
    is_cut: bool,
    next: Vec<u64>,
    policy: Vec<u64>,
    checkpoints: Vec<Vec<u64>>,
    entries: Vec<Line>,
}

#[derive(Deserialize)]
enum Line {
    Others(u64),
    Event(Time, Event, u32),
    Elsewhere,
    Deed(Vec<u64>),
}

/// What a file has to replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// That.
    pub episode: KeptEpisode,
    /// Which version of lifeboat wrote it.
    pub by: String,
    /// It is as lifeboat wrote it.
    pub is_as_written: bool,
}

/// Finds what a file has to replay.
///
/// # Errors
/// Where it has nothing, why.
pub fn read_episode(text: &[u8]) -> Result<Found, NoEpisode> {
    if text.len() > FILE_BYTES_MAX {
        return Err(NoEpisode::Unreadable(Unreadable::TooLong));
    }
    let broken = |error: serde_json::Error| NoEpisode::Unreadable(Unreadable::Broken(error.to_string()));
    let Parts { replay_by, replay, replay_seal } = serde_json::from_slice(text).map_err(broken)?;
    let replay = replay.ok_or(NoEpisode::Absent)?;
    let strange = |why: &dyn fmt::Display| NoEpisode::Strange { by: replay_by.clone(), why: why.to_string() };
    // Of another layout nothing else is looked at.
    match replay.pointer("/Episode/layout").map(serde_json::Value::as_u64) {
        Some(layout) if layout != Some(u64::from(LAYOUT)) => {
            return Err(strange(&format_args!("its layout is not {LAYOUT}")));
        }
        Some(_) | None => {}
    }
    let kept = match serde_json::from_value(replay).map_err(|error| strange(&error))? {
        Kept::Episode(kept) => kept,
        Kept::Missing(missing) => return Err(NoEpisode::Missing(missing)),
    };
    let episode = kept.understood().map_err(|error| strange(&error))?;
    let is_as_written = replay_seal.is_some() && replay_seal == print_of(text);
    Ok(Found { episode, by: replay_by, is_as_written })
}

/// The print of what stands from its first field to its seal. What stands behind has no texts of others.
fn print_of(file: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(file).ok()?;
    let sealed = text.get(text.rfind("\"replay_by\"")?..text.rfind(&SEAL[1..])?)?;
    let sealed = sealed.trim_end().strip_suffix(',')?;
    Some(seal(seal(0, b","), sealed.as_bytes()))
}

impl Written {
    fn understood(self) -> Result<KeptEpisode, Strange> {
        let entry = |line| {
            Ok(match line {
                Line::Others(bytes) => Entry::Others(bytes),
                Line::Event(time, event, print) => Entry::Event(time, event, print),
                Line::Elsewhere => Entry::Elsewhere,
                Line::Deed(row) => Entry::Deed(whole(&row)?),
            })
        };
        Ok(KeptEpisode {
            policy: whole(&self.policy)?,
            unit: self.unit,
            reserve_bytes: self.reserve_bytes,
            next: whole(&self.next)?,
            is_cut: self.is_cut,
            checkpoints: self.checkpoints.iter().map(|row| whole(row)).collect::<Result<_, _>>()?,
            entries: self.entries.into_iter().map(entry).collect::<Result<_, _>>()?,
        })
    }
}
