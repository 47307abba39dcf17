//! What is kept of an incident: one JSON object, in a file of its own. Pure: text in, text out.
//!
//! lifeboat writes it as a letter of two lines for a process aside: first what a line of the kernel log can hold, then
//! the rest. That process gives the incident its number, and makes a file, or a line, of the letter.

use super::episode::{Recorded, append_event, begin};
use crate::engine::event::{Event, LeftBehind, Time};
use crate::engine::snapshot::{Incident, ProcedureResult};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

/// The format's version. One that only gains fields keeps its number.
pub const FORMAT: u32 = 1;

/// A file has at most so many bytes: older events are left out. What is needed to replay it goes before them.
pub const FILE_BYTES_MAX: usize = 64 << 10;

/// A line of the kernel log has no more; the kernel takes 976 bytes at least (kernel/printk/printk.c, `LOG_LINE_MAX`).
pub const LINE_BYTES_MAX: usize = 900;

/// "incident 999999999, continued: ".
const HEAD_BYTES_MAX: usize = 40;

/// Numbers above are nobody's: a file of such a name is left alone.
const NUMBER_MAX: u32 = 999_999_999;

/// What stands before and between the parts of a file.
const FRAME_BYTES: usize = 96;

/// What has room in a line.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Brief<'a> {
    /// The unit's name.
    pub unit: &'a str,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: &'a str,
    /// The time of day when it began, in milliseconds since 1970 (UTC); wrong where the clock was.
    pub began_unix_ms: u64,
    /// The record.
    pub incident: Incident,
}

/// What else a file has.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Rest<'a> {
    /// `memory.peak`, over all runs of the unit since its cgroup was made.
    pub peak_bytes: Option<u64>,
    /// Parts of `memory.stat` when memory was exhausted.
    pub memory_stat: MemoryStat<'a>,
    /// The end of what the run has said, with its procedure's lines marked.
    pub words: &'a str,
}

/// Names and values, in JSON an object of those that there are.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStat<'a>(pub &'a [(&'static str, Option<u64>)]);

impl Serialize for MemoryStat<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().filter_map(|(name, value)| Some((name, (*value)?))))
    }
}

/// Writes the letter: two lines without an end of the second. It is never whole in our memory: of that PID 1 would keep
/// the room.
///
/// # Errors
/// What `out` fails with.
pub fn write_letter<'e>(
    out: &mut impl Write,
    brief: &Brief<'_>,
    rest: &Rest<'_>,
    recorded: &Recorded<'_>,
    events: impl Iterator<Item = &'e (Time, Event)> + Clone,
) -> io::Result<()> {
    let mut piece = Vec::new();
    // The line has no room for it.
    let Incident { left, first_procedure, procedure_high, limit_bytes, .. } = brief.incident;
    let beyond = Beyond { left, first_procedure, procedure_high, limit_bytes };
    let incident = Incident {
        left: None,
        first_procedure: None,
        procedure_high: 0,
        limit_bytes: None,
        ..brief.incident
    };
    append(&mut piece, &Brief { incident, ..*brief })?;
    piece.push(b'\n');
    append(&mut piece, &beyond)?;
    piece.push(b',');
    append(&mut piece, rest)?;
    out.write_all(&piece)?;
    let room = FILE_BYTES_MAX.saturating_sub(piece.len() + FRAME_BYTES);
    let room = room.saturating_sub(recorded.write(&mut |piece| out.write_all(piece), room)?);
    // Each is written twice: at first only to know how much room it takes.
    let mut lengths = Vec::new();
    for (time, event) in events.clone() {
        piece.clear();
        append_event(&mut piece, *time, event)?;
        lengths.push(piece.len() + 1);
    }
    let mut taken = 0;
    let fits = lengths.iter().rev().take_while(|length| {
        taken += **length;
        taken <= room
    });
    let left_out = lengths.len() - fits.count();
    piece.clear();
    write!(piece, ",\"events_left_out\":{left_out},\"events\":[")?;
    out.write_all(&piece)?;
    for (at, (time, event)) in events.skip(left_out).enumerate() {
        begin(&mut piece, at);
        append_event(&mut piece, *time, event)?;
        out.write_all(&piece)?;
    }
    out.write_all(b"]")
}

/// An object without its braces.
fn append(text: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    let start = text.len();
    serde_json::to_writer(&mut *text, value)?;
    text.pop();
    if start < text.len() {
        text.remove(start);
    }
    Ok(())
}

/// The file of a letter.
#[must_use]
pub fn file_of(number: u32, letter: &[u8]) -> Vec<u8> {
    let (brief, rest) = split(letter);
    let head = format!("{{\"format\":{FORMAT},\"number\":{number},");
    [head.as_bytes(), brief, b",", rest, b"}\n"].concat()
}

/// The first part of a letter for a log that outlives the machine, on as many lines as it needs.
#[must_use]
pub fn lines_of(number: u32, letter: &[u8]) -> Vec<u8> {
    let (brief, _) = split(letter);
    let text = [b"{", brief, b"}"].concat();
    let mut lines = Vec::new();
    for (at, piece) in text.chunks(LINE_BYTES_MAX - HEAD_BYTES_MAX).enumerate() {
        let head = if at == 0 { "" } else { ", continued" };
        lines.extend_from_slice(format!("incident {number}{head}: ").as_bytes());
        lines.extend_from_slice(piece);
        lines.push(b'\n');
    }
    lines
}

fn split(letter: &[u8]) -> (&[u8], &[u8]) {
    let at = letter.iter().position(|byte| *byte == b'\n').unwrap_or(letter.len());
    (letter.get(..at).unwrap_or_default(), letter.get(at + 1..).unwrap_or_default())
}

/// The name of an incident's file.
#[must_use]
pub fn file_name(number: u32) -> String {
    format!("{number}.json")
}

/// The number that a file's name tells; `None` for what is no incident's.
#[must_use]
pub fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".json")?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|number| plain && *number <= NUMBER_MAX)
}

/// A file, read back.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Kept {
    /// Its number in the folder, and in the record.
    pub number: u32,
    /// As in [`Brief`].
    pub unit: String,
    /// As in [`Brief`].
    pub boot_id: String,
    /// As in [`Brief`].
    pub began_unix_ms: u64,
    /// As in [`Brief`].
    pub incident: Incident,
    /// As in [`Rest`].
    #[serde(default)]
    pub peak_bytes: Option<u64>,
    /// As in [`Rest`].
    #[serde(default)]
    pub memory_stat: BTreeMap<String, u64>,
    /// As in [`Rest`].
    #[serde(default)]
    pub words: String,
}

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It has a later format.
    Newer(u32),
    /// It is longer than any incident's.
    TooLong,
    /// It is cut, or was changed, or never was one.
    Broken(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer(format) => write!(f, "a newer lifeboat wrote it (format {format}, this is {FORMAT})"),
            Self::TooLong => write!(f, "it is longer than {FILE_BYTES_MAX} bytes"),
            Self::Broken(why) => write!(f, "it is cut or damaged ({why})"),
        }
    }
}

impl std::error::Error for Unreadable {}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// What stands in the rest of a letter, and belongs to the record.
#[derive(Deserialize, Serialize)]
struct Beyond {
    #[serde(default)]
    left: Option<LeftBehind>,
    #[serde(default)]
    first_procedure: Option<ProcedureResult>,
    #[serde(default)]
    procedure_high: u64,
    #[serde(default)]
    limit_bytes: Option<u64>,
}

/// Reads a file back.
///
/// # Errors
/// Where it is no whole incident of this format.
pub fn read(text: &[u8]) -> Result<Kept, Unreadable> {
    if text.len() > FILE_BYTES_MAX {
        return Err(Unreadable::TooLong);
    }
    let broken = |error: serde_json::Error| Unreadable::Broken(error.to_string());
    let Format { format } = serde_json::from_slice(text).map_err(broken)?;
    if format > FORMAT {
        return Err(Unreadable::Newer(format));
    }
    let mut kept: Kept = serde_json::from_slice(text).map_err(broken)?;
    let beyond: Beyond = serde_json::from_slice(text).map_err(broken)?;
    (kept.incident.left, kept.incident.first_procedure) = (beyond.left, beyond.first_procedure);
    (kept.incident.procedure_high, kept.incident.limit_bytes) = (beyond.procedure_high, beyond.limit_bytes);
    // The record was written before its number was certain.
    kept.incident.number = kept.number;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::episode::Missing;
    use crate::engine::event::{Exit, MemoryEvents, MemorySample, Role};
    use crate::engine::policy::{RunId, UnitId};
    use crate::engine::snapshot::{Bound, Cause, Killer, Verdict};
    use proptest::prelude::*;

    fn incident() -> Incident {
        let time = Some(Time(4_611_686_018_427));
        let counters = MemoryEvents {
            high: 0,
            max: 4_294_967_295,
            oom: 4_294_967_295,
            oom_kill: 4_294_967_295,
            oom_below: 0,
        };
        let bytes = 68_719_476_736;
        Incident {
            number: 4_000,
            unit: UnitId(1_023),
            run: RunId(100_000),
            cause: Cause::KernelOomKill,
            verdict: Verdict::Predicted {
                unreclaimable_bytes: bytes,
                bytes_per_s: bytes,
                left_ms: 20,
                needs_ms: 2_000,
                bound: Bound::MemAvailable,
            },
            limit_bytes: Some(1),
            killer: Killer::KernelOutside,
            began: Time(4_611_686_018_427),
            frozen: time,
            released: time,
            procedure_running: time,
            procedure_ended: time,
            killed: time,
            emptied: time,
            procedure: ProcedureResult::Ended(Exit::Signal(9)),
            procedure_high: 41,
            first_procedure: Some(ProcedureResult::OutOfMemory),
            counters_at_start: counters,
            counters,
            sample: Some(MemorySample {
                current_bytes: bytes,
                unreclaimable_bytes: bytes,
                psi_some_avg10: 9_999,
                psi_full_avg10: 9_999,
                cpu_some_avg10: 9_999,
                refaults: u32::MAX,
                available_kib: std::num::NonZeroU32::new(u32::MAX),
                dirty_kib: u32::MAX,
            }),
            left: Some(LeftBehind { current_bytes: bytes, shmem_bytes: bytes, file_bytes: bytes }),
        }
    }

    fn written(words: &str, events: &[(Time, Event)]) -> Vec<u8> {
        let boot_id = "3f2a6c3e-0b1d-4f6e-9a52-7f0c1b2d3e4f";
        let brief = Brief {
            unit: "a-name-of-some-length",
            boot_id,
            began_unix_ms: 1_790_000_000_000,
            incident: incident(),
        };
        let rest = Rest { words, ..Rest::default() };
        let recorded = Recorded(Err(Missing::Busy));
        let mut letter = Vec::new();
        write_letter(&mut letter, &brief, &rest, &recorded, events.iter()).expect("JSON");
        letter
    }

    fn exits(count: u64) -> Vec<(Time, Event)> {
        let event = |run| Event::Exited {
            unit: UnitId(7),
            run: RunId(run),
            role: Role::Service,
            exit: Exit::Code(1),
        };
        (0..count).map(|at| (Time(at), event(u32::try_from(at).expect("few")))).collect()
    }

    #[test]
    fn a_file_comes_back() {
        let file = file_of(17, &written("the \"end\"\nof it\u{1b}", &exits(3)));
        let kept = read(&file).expect("a whole file");
        assert_eq!((kept.number, kept.incident.number, kept.incident.limit_bytes), (17, 17, Some(1)));
        assert_eq!(
            (kept.unit.as_str(), kept.words.as_str()),
            ("a-name-of-some-length", "the \"end\"\nof it\u{1b}")
        );
        assert_eq!(Incident { number: 4_000, ..kept.incident }, incident());
        let whole: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
        assert_eq!(whole["events"][2][1]["Exited"]["run"], 2);
        assert_eq!(whole["events_left_out"], 0);
        assert_eq!(file.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert!(read(&file_of(1, &written("", &[]))).is_ok());
    }

    #[test]
    fn a_file_is_bounded_and_the_newest_events_stay() {
        let whole = |count| {
            let file = file_of(u32::MAX, &written(&"\u{1}".repeat(2_048), &exits(count)));
            assert!(file.len() <= FILE_BYTES_MAX, "{}", file.len());
            let found: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
            let events = found["events"].as_array().expect("a list").clone();
            assert_eq!(found["events_left_out"], count - events.len() as u64);
            assert_eq!(events.last().expect("events")[0], count - 1);
            events.len()
        };
        let most = whole(100_000);
        assert!(whole(512) > 400 && most > 400);
        for count in 1..=most as u64 + 3 {
            whole(count);
        }
    }

    #[test]
    fn lines_fit_the_kernel_log() {
        let lines = lines_of(999_999_999, &written("not this", &exits(3)));
        let text = String::from_utf8(lines).expect("text");
        assert!(text.lines().all(|line| line.len() <= LINE_BYTES_MAX), "{text}");
        let whole: String = text
            .lines()
            .enumerate()
            .map(|(at, line)| {
                let head = if at == 0 { "incident 999999999: " } else { "incident 999999999, continued: " };
                line.strip_prefix(head).expect("the head")
            })
            .collect();
        let found: serde_json::Value = serde_json::from_str(&whole).expect("JSON");
        assert_eq!(found["unit"], "a-name-of-some-length");
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn what_is_no_incident_is_told_apart() {
        let file = file_of(1, &written("", &exits(2)));
        for end in 0..file.len() - 1 {
            assert!(read(&file[..end]).is_err(), "cut at {end}");
        }
        let text = String::from_utf8(file).expect("text");
        let newer = text.replace("\"format\":1", "\"format\":2");
        assert_eq!(read(newer.as_bytes()), Err(Unreadable::Newer(2)));
        assert_eq!(read(&vec![b' '; FILE_BYTES_MAX + 1]), Err(Unreadable::TooLong));
        for (from, to) in
            [("\"unit\":\"a", "\"unit\":[\"a"), ("lifeboat", "x"), ("\"began\":4", "\"began\":-4")]
        {
            let changed = text.replacen(from, to, 1);
            assert_eq!(read(changed.as_bytes()).is_err(), changed != text, "{to}");
        }
        // A later lifeboat may say more.
        assert!(read(text.replace("\"format\"", "\"more\":{},\"format\"").as_bytes()).is_ok());
    }

    #[test]
    fn names_of_files() {
        assert_eq!(number_of(&file_name(17)), Some(17));
        for name in
            ["", ".json", "0.json", "017.json", "-1.json", "1.json.part", "1000000000.json", "x", "+1.json"]
        {
            assert_eq!(number_of(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..2_000_usize, byte: u8) {
            let _ = read(&bytes);
            let mut file = file_of(1, &written("x", &exits(2)));
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
            let _ = read(&file);
        }
    }
}
