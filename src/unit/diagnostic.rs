//! A fault in a file that a person wrote, with its place and its cure. It renders itself; it decides nothing.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// So many faults are told of one file; a file with more is not a unit with typing mistakes.
const FAULTS_MAX: usize = 20;

/// A source line is shown to so many characters, so that a line of 200 KiB does not flood a serial console.
const LINE_CHARS_MAX: usize = 120;

/// One fault in a unit file or in `system.ron`.
///
/// Its `Display` is what `lifeboatctl check` and the console show:
///
/// ```text
/// units/recorder.ron:4:19: memory.max: 0 bytes is no limit
///     memory: (max: 0),
///                   ^
/// hint: write a size such as "32MiB"
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file.
    pub file: PathBuf,
    /// Counts from 1; 0 where the fault is about the whole file.
    pub line: usize,
    /// In characters, counts from 1; 0 where the fault is about the whole file.
    pub column: usize,
    /// The field with its sections, as `memory.max`; empty where the fault is not in a field.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The line, or the part of a long line that holds the place. Control characters are replaced.
    pub source_line: String,
    /// Where in `source_line` the carets begin, in characters from 0, and how many there are.
    pub carets: (usize, usize),
    /// Other places that have a part in it, a line each.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// A fault of the whole file, without a place in it.
    #[must_use]
    pub fn of_file(file: &Path, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            field: String::new(),
            message: message.into(),
            hint: Some(hint.into()).filter(|hint| !hint.is_empty()),
            source_line: String::new(),
            carets: (0, 0),
            notes: Vec::new(),
        }
    }

    /// A fault in a field of a text.
    pub(super) fn at(file: &Path, place: &Place, field: &str, wrong: Wrong) -> Self {
        Self {
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            field: field.to_owned(),
            message: wrong.message,
            hint: wrong.hint,
            source_line: place.source_line.clone(),
            carets: place.carets,
            notes: Vec::new(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", plain(&self.file.to_string_lossy()))?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.field.is_empty() {
            write!(f, " {}:", self.field)?;
        }
        write!(f, " {}", self.message)?;
        if self.line > 0 {
            let (before, count) = self.carets;
            write!(f, "\n    {}\n    {:before$}{:^<count$}", self.source_line, "", "")?;
        }
        for note in &self.notes {
            write!(f, "\n  {note}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// What is wrong with a value, before it is known where the value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn maybe_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

/// A place in a text, ready to be shown after the text itself is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    line: usize,
    column: usize,
    source_line: String,
    carets: (usize, usize),
}

impl Place {
    /// Its line, from 1.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The place with its file, in one word.
    pub(super) fn shown(&self, file: &Path) -> String {
        format!("{}:{}:{}", plain(&file.to_string_lossy()), self.line, self.column)
    }

    /// The place of a byte range in `text`. A range outside of the text or inside a character is moved to the
    /// nearest place that exists.
    pub(super) fn new(text: &str, at: &Range<usize>) -> Self {
        let floor = |offset: usize| (0..=offset.min(text.len())).rev().find(|&i| text.is_char_boundary(i));
        let start = floor(at.start).unwrap_or(0);
        let end = floor(at.end).unwrap_or(0).max(start);
        let (before, rest) = text.split_at_checked(start).unwrap_or((text, ""));
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let column0 = before.chars().rev().take_while(|&c| c != '\n').count();
        let line = text.get(line_start..).and_then(|l| l.lines().next()).unwrap_or_default();
        let marked = rest.get(..end - start).unwrap_or_default().lines().next().unwrap_or_default();

        let skipped = column0.saturating_sub(LINE_CHARS_MAX / 2);
        let skipped = if line.chars().nth(LINE_CHARS_MAX).is_none() { 0 } else { skipped };
        let source_line = plain(&line.chars().skip(skipped).take(LINE_CHARS_MAX).collect::<String>());
        let width = marked.chars().count().min(LINE_CHARS_MAX.saturating_sub(column0 - skipped)).max(1);
        Self {
            line: before.bytes().filter(|&b| b == b'\n').count() + 1,
            column: column0 + 1,
            source_line,
            carets: (column0 - skipped, width),
        }
    }
}

/// The faults of one file; no more than a person would read.
#[derive(Debug, Default)]
pub(super) struct Faults {
    list: Vec<Diagnostic>,
    more: usize,
}

impl Faults {
    pub(super) fn push(&mut self, fault: Diagnostic) {
        if self.list.len() < FAULTS_MAX {
            self.list.push(fault);
        } else {
            self.more += 1;
        }
    }

    /// In the order of their places, as a person works through a file.
    pub(super) fn into_sorted(self, file: &Path) -> Vec<Diagnostic> {
        let place = |fault: &Diagnostic| (fault.line, fault.column);
        // They are few, and mostly in order already: inserting them takes a tenth of a sort's code.
        let mut sorted: Vec<Diagnostic> = Vec::with_capacity(self.list.len() + 1);
        for fault in self.list {
            sorted.insert(sorted.partition_point(|other| place(other) <= place(&fault)), fault);
        }
        if self.more > 0 {
            sorted.push(Diagnostic::of_file(file, format!("and {} more faults", self.more), ""));
        }
        sorted
    }
}

/// The text with every character replaced that could steer a terminal: a unit file must not be able to.
pub(super) fn plain(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if steers(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// What somebody wrote, fit for a message: plain, and cut where it is long.
pub(super) fn short(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(CHARS_MAX).collect();
    let rest = if chars.next().is_some() { "..." } else { "" };
    plain(&start) + rest
}

/// `did you mean ...?`, where one of the words is near enough to what was written.
pub(super) fn did_you_mean<'w>(written: &str, words: impl Iterator<Item = &'w str>) -> Option<String> {
    nearest(written, words).map(|word| format!("did you mean `{word}`?"))
}

/// The word that differs least, if it differs by no more than a third of its letters.
pub(super) fn nearest<'w>(written: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let allowed = |word: &str| word.chars().count().max(written.chars().count()).div_ceil(3).min(3);
    words
        .filter(|word| word.len().abs_diff(written.len()) <= 4)
        .map(|word| (edits(&written.to_ascii_lowercase(), &word.to_ascii_lowercase()), word))
        .filter(|(edits, word)| *edits <= allowed(word))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, word)| word)
}

/// The optimal string alignment distance: insertions, deletions, replacements and swaps of neighbours.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut older: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut before = None;
    for (i, x) in a.chars().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let get = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let replaced = get(&above, j) + usize::from(x != *y);
            let mut best = replaced.min(get(&above, j + 1) + 1).min(get(&row, j) + 1);
            if j > 0 && before == Some(*y) && b.get(j - 1) == Some(&x) {
                best = best.min(get(&older, j - 1) + 1);
            }
            row.push(best);
        }
        older = std::mem::replace(&mut above, row);
        before = Some(x);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("memory", "memroy", 1), ("TERM", "TREM", 1), ("max", "min", 2)]
        {
            assert_eq!(edits(a, b), expected, "{a} {b}");
            assert_eq!(edits(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn suggestions() {
        let words = ["command", "memory", "after"];
        for (written, expected) in [
            ("comand", Some("command")),
            ("Memory", Some("memory")),
            ("memroy", Some("memory")),
            ("aftr", Some("after")),
            ("cpu", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, words.into_iter()), expected, "{written}");
        }
    }

    #[test]
    fn places() {
        let text = "one\r\ntwö = 1\nthree";
        for (at, line, column, carets) in [
            (0..3, 1, 1, (0, 3)),
            (5..9, 2, 1, (0, 3)),
            (10..11, 2, 5, (4, 1)),
            (14..99, 3, 1, (0, 5)),
            (99..99, 3, 6, (5, 1)),
            (8..8, 2, 3, (2, 1)),
        ] {
            let place = Place::new(text, &at);
            assert_eq!((place.line, place.column, place.carets), (line, column, carets), "{at:?}");
        }
        let long = format!("{}x{}", " ".repeat(500), " ".repeat(500));
        let place = Place::new(&long, &(500..501));
        assert_eq!((place.column, place.carets), (501, (60, 1)));
        assert_eq!(place.source_line.chars().nth(60), Some('x'));
    }
}
