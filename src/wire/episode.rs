//! What a kept incident has to be replayed from: the unit's definition, how it stood, and its turns. Pure: text in,
//! text out.

use super::incident::{FILE_BYTES_MAX, Unreadable};
use crate::engine::episode::{Entry, Episode, Missing};
use crate::engine::event::{Event, Time};
use crate::engine::policy::UnitPolicy;
use crate::engine::replay::{Kept, KeptEpisode};
use serde::Deserialize;
use std::fmt;
use std::io::{self, Write};

/// Who writes. Another version may decide otherwise, and that is then no fault of the file.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// By which definition the unit ran, and its episode; or why there is none.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a>(pub Result<(&'a UnitPolicy, &'a Episode<'a>), Missing>);

impl Recorded<'_> {
    /// Writes it as the last but one field of a file, where it has no more than so many bytes, else why it is not
    /// there. Gives how many bytes that took.
    pub(super) fn write(&self, out: &mut dyn Write, room: usize) -> io::Result<usize> {
        let mut bytes = 0;
        let fits = self.0.and_then(|recorded| {
            let counted = pieces(recorded, &mut |piece| {
                bytes += piece.len();
                Ok(())
            });
            if counted.is_ok() && bytes <= room { Ok(recorded) } else { Err(Missing::TooLong) }
        });
        match fits {
            Ok(recorded) => pieces(recorded, &mut |piece| out.write_all(piece))?,
            Err(missing) => {
                let text = format!(",\"replay\":{{\"Missing\":\"{missing:?}\"}}");
                bytes = text.len();
                out.write_all(text.as_bytes())?;
            }
        }
        Ok(bytes)
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
    write!(piece, "\"reserve_bytes\":{reserve_bytes},\"is_cut\":{is_cut},\"next\":")?;
    serde_json::to_writer(&mut piece, &episode.next)?;
    piece.extend(b",\"policy\":");
    serde_json::to_writer(&mut piece, policy)?;
    take(&piece)?;
    take(b",\"checkpoints\":[")?;
    for (at, checkpoint) in episode.checkpoints.iter().flatten().enumerate() {
        begin(&mut piece, at);
        serde_json::to_writer(&mut piece, checkpoint)?;
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
        Entry::Event(time, event) => {
            piece.extend(b"{\"Event\":");
            append_event(piece, *time, event)?;
        }
        Entry::Deed(deed) => {
            piece.extend(b"{\"Deed\":");
            serde_json::to_writer(&mut *piece, deed)?;
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
}

/// What a file has to replay, and which version of lifeboat wrote that.
///
/// # Errors
/// Where it has nothing, why.
pub fn read_episode(text: &[u8]) -> Result<(KeptEpisode, String), NoEpisode> {
    if text.len() > FILE_BYTES_MAX {
        return Err(NoEpisode::Unreadable(Unreadable::TooLong));
    }
    let broken = |error: serde_json::Error| NoEpisode::Unreadable(Unreadable::Broken(error.to_string()));
    let Parts { replay_by, replay } = serde_json::from_slice(text).map_err(broken)?;
    let replay = replay.ok_or(NoEpisode::Absent)?;
    match serde_json::from_value(replay) {
        Ok(Kept::Episode(episode)) => Ok((*episode, replay_by)),
        Ok(Kept::Missing(missing)) => Err(NoEpisode::Missing(missing)),
        Err(error) => Err(NoEpisode::Strange { by: replay_by, why: error.to_string() }),
    }
}
