//! Reads RON without stopping at the first fault.
//!
//! serde's derive gives up at the first fault, so a section is read in two steps: RON splits it into field names
//! and untouched values (`RawValue`, which keeps its place in the text), then each value is read for itself. A
//! fault costs one field, and the others are still looked at.

use super::diagnostic::{Diagnostic, Faults, Place, Wrong, did_you_mean, nearest, short};
use super::template;
use ron::error::Error as RonError;
use ron::value::RawValue;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// A list may hold so many items: more than anybody needs, and a bound for what a broken file can cost.
const ITEMS_MAX: usize = 256;

/// A field as it was found.
#[derive(Debug)]
pub(super) enum Slot<T> {
    /// The file does not name it.
    Absent,
    /// It has a fault, which has been told.
    Faulty,
    /// Read well.
    Given(Item<T>),
}

/// A value and its place in the text.
#[derive(Debug)]
pub(super) struct Item<T> {
    pub value: T,
    pub at: Range<usize>,
}

impl<T> Slot<T> {
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub(super) fn given(self) -> Option<Item<T>> {
        match self {
            Self::Given(item) => Some(item),
            Self::Absent | Self::Faulty => None,
        }
    }

    /// Takes the field out, so that a section can be checked in parts.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Absent)
    }

    /// Where the value stands.
    pub(super) fn place(&self) -> Option<Range<usize>> {
        match self {
            Self::Given(item) => Some(item.at.clone()),
            Self::Absent | Self::Faulty => None,
        }
    }

    pub(super) fn value_or(self, default: T) -> T {
        self.given().map_or(default, |item| item.value)
    }
}

/// Something that can be read out of a place in the text. `None` means that its fault has been told.
pub(super) trait Value: Sized {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self>;
}

impl<T: Value> Value for Vec<Item<T>> {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
        let raw: Vec<&RawValue> = reader.leaf(at, "a list in [ ]")?;
        if raw.len() > ITEMS_MAX {
            let wrong = Wrong::new(format!("{} items are too many: {ITEMS_MAX} is the most", raw.len()));
            reader.fault(at, wrong);
            return None;
        }
        // All items are read before one of them can spoil the list, so that every fault is told.
        let items: Vec<Option<Item<T>>> = raw.iter().map(|raw| reader.item(raw)).collect();
        items.into_iter().collect()
    }
}

/// `{"name": value, ...}`, in the order of the file.
pub(super) type Map<T> = Vec<(Item<String>, Item<T>)>;

impl<T: Value> Value for Map<T> {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
        let Pairs(raw) = reader.leaf(at, "a map in { }")?;
        if raw.len() > ITEMS_MAX {
            reader.fault(
                at,
                Wrong::new(format!("{} entries are too many: {ITEMS_MAX} is the most", raw.len())),
            );
            return None;
        }
        let mut map = Self::new();
        for (key, value) in raw {
            let (key, value) = (reader.item::<String>(key), reader.item::<T>(value));
            // An entry with a fault is left out; the others are still looked at.
            let (Some(key), Some(value)) = (key, value) else { continue };
            if map.iter().any(|(other, _)| other.value == key.value) {
                let wrong = Wrong::new(format!("`{}` stands here twice", short(&key.value)));
                reader.fault(&key.at, wrong.hint("keep one of the two"));
            }
            map.push((key, value));
        }
        Some(map)
    }
}

/// The entries of a map, unread. RON itself would let the last of two equal keys win without a word.
struct Pairs<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        from.deserialize_map(All)
    }
}

/// A field of a section, unread.
#[derive(Debug)]
pub(super) struct Field<'a> {
    name: &'a str,
    value: &'a str,
}

/// Reads `(name: value, ...)` into a list that outlives a syntax error, so that the fields before it still count.
struct Collect<'l, 'a> {
    section: &'static str,
    into: &'l mut Vec<Field<'a>>,
}

impl<'de> DeserializeSeed<'de> for Collect<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_struct(self.section, &[], self)
    }
}

impl<'de> Visitor<'de> for Collect<'_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields in ( )")
    }
    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(name) = map.next_key::<&str>()? {
            let value: &RawValue = map.next_value()?;
            self.into.push(Field { name, value: value.get_ron() });
        }
        Ok(())
    }
}

/// Reads one text and gathers its faults.
pub(super) struct Reader<'a> {
    pub(super) file: &'a Path,
    text: &'a str,
    /// The sections and the field that are being read.
    path: Vec<&'static str>,
    pub(super) faults: Faults,
    /// The text is not RON from some place on: what was not found may stand behind it.
    cut: bool,
    /// Fields that an unknown name was probably meant to be.
    meant: Vec<String>,
    /// What `%i` stands for, in the file of a template or of an instance.
    argument: Option<&'a str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Self {
        let faults = Faults::default();
        Self { file, text, path: Vec::new(), faults, cut: false, meant: Vec::new(), argument: None }
    }

    /// The file of a unit: where its name has an argument, strings may hold it.
    pub(super) fn of_unit(file: &'a Path, text: &'a str, name: &'a str) -> Self {
        Self { argument: template::split(name).map(|(_, argument)| argument), ..Self::new(file, text) }
    }

    /// A string with the argument put in, where there is one. Every text that a user may write goes through this.
    pub(super) fn expanded(&mut self, at: &Range<usize>, text: String) -> Option<String> {
        let Some(argument) = self.argument.filter(|_| text.contains('%')) else { return Some(text) };
        template::expand(&text, argument).map_err(|wrong| self.fault(at, wrong)).ok()
    }

    /// The whole text as one section.
    pub(super) fn whole<T: Value>(&mut self) -> Option<T> {
        T::read(self, &(0..self.text.len()))
    }

    /// Tells a fault in the field that is being read.
    pub(super) fn fault(&mut self, at: &Range<usize>, wrong: Wrong) {
        let field = self.path.join(".");
        self.fault_in(&field, at, wrong);
    }

    /// Tells a fault in a field that has been read.
    pub(super) fn fault_in(&mut self, field: &str, at: &Range<usize>, wrong: Wrong) {
        let place = self.place(at);
        self.faults.push(Diagnostic::at(self.file, &place, field, wrong));
    }

    /// Tells that a field is missing, unless there is a better explanation: a slip in its name, a broken file.
    pub(super) fn missing(&mut self, field: &str, section: &Range<usize>, hint: &str) {
        if !self.cut && !self.meant.iter().any(|meant| meant == field) {
            let start = section.start + lead_len(self.source(section));
            self.fault_in(field, &(start..start + 1), Wrong::new("this field is missing").hint(hint));
        }
    }

    pub(super) fn place(&self, at: &Range<usize>) -> Place {
        Place::new(self.text, at)
    }

    pub(super) fn source(&self, at: &Range<usize>) -> &'a str {
        self.text.get(at.clone()).unwrap_or_default()
    }

    /// Where a part of the text begins. RON hands out parts of the text itself, so their addresses tell.
    fn offset(&self, part: &str) -> usize {
        (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize)
    }

    /// The place of a value without the space and the comments around it.
    fn range(&self, raw: &str) -> Range<usize> {
        let lead = lead_len(raw);
        let value = raw.get(lead..).unwrap_or_default();
        let rest = ron::Deserializer::from_str(value).ok().and_then(|mut ron| {
            IgnoredAny::deserialize(&mut ron).ok()?;
            Some(ron.remainder().len())
        });
        let len = value.get(..value.len() - rest.unwrap_or(0)).unwrap_or(value).trim_end().len();
        let start = self.offset(raw) + lead;
        start..start + len
    }

    fn item<T: Value>(&mut self, raw: &RawValue) -> Option<Item<T>> {
        let at = self.range(raw.get_ron());
        T::read(self, &at).map(|value| Item { value, at })
    }

    /// Splits a section into its fields, and tells the unknown ones and those that stand there twice.
    pub(super) fn fields(
        &mut self,
        at: &Range<usize>,
        section: &'static str,
        known: &'static [&'static str],
    ) -> Option<Vec<Field<'a>>> {
        let mut fields = Vec::new();
        let result =
            ron::Options::default().from_str_seed(self.source(at), Collect { section, into: &mut fields });
        if let Err(error) = result {
            self.split_fault(at, &error, known);
            self.cut = true;
            if fields.is_empty() {
                return None;
            }
        }
        if fields.len() > ITEMS_MAX {
            self.fault(at, Wrong::new(format!("{} fields are too many", fields.len())));
            return None;
        }
        for (index, field) in fields.iter().enumerate() {
            let before = fields.iter().take(index).any(|other| other.name == field.name);
            self.name_fault(field, before, known);
        }
        Some(fields)
    }

    /// Tells a field name that nobody knows, or that stood there before.
    fn name_fault(&mut self, field: &Field<'a>, before: bool, known: &[&str]) {
        let path_of = |path: &[&'static str], name: &str| [path, &[name]].concat().join(".");
        let wrong = if !known.contains(&field.name) {
            let list = format!("the fields here are {}", known.join(", "));
            let meant = nearest(field.name, known.iter().copied());
            self.meant.extend(meant.map(|name| path_of(&self.path, name)));
            let hint = meant.map_or(list, |name| format!("did you mean `{name}`?"));
            Wrong::new("there is no such field").hint(hint)
        } else if before {
            Wrong::new("this field stands here twice").hint("keep one of the two")
        } else {
            return;
        };
        let start = self.offset(field.name);
        self.fault_in(&path_of(&self.path, &short(field.name)), &(start..start + field.name.len()), wrong);
    }

    /// The place of a field, which is then the one that is being read. Apart from [`Reader::slot`], which is compiled
    /// for every type.
    #[inline(never)]
    fn enter(&mut self, fields: &[Field<'a>], name: &'static str) -> Option<Range<usize>> {
        let field = fields.iter().find(|field| field.name == name)?;
        self.path.push(name);
        Some(self.range(field.value))
    }

    pub(super) fn slot<T: Value>(&mut self, fields: &[Field<'a>], name: &'static str) -> Slot<T> {
        let Some(at) = self.enter(fields, name) else { return Slot::Absent };
        let value = T::read(self, &at);
        self.path.pop();
        value.map_or(Slot::Faulty, |value| Slot::Given(Item { value, at }))
    }

    /// A value that RON reads at once.
    pub(super) fn leaf<T: Deserialize<'a>>(&mut self, at: &Range<usize>, want: &str) -> Option<T> {
        match ron::Options::default().from_str(self.source(at)) {
            Ok(value) => Some(value),
            Err(error) => {
                self.leaf_fault(at, want, &error);
                None
            }
        }
    }

    /// The position of the value among these words.
    pub(super) fn word(&mut self, at: &Range<usize>, want: &str, words: &[&str]) -> Option<usize> {
        let source = self.source(at);
        let index = words.iter().position(|word| *word == source);
        if index.is_none() {
            let is_word = source.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let meant = did_you_mean(source, words.iter().copied()).filter(|_| is_word);
            let wrong = Wrong::new(format!("expected {want}, found {}", describe(source)));
            self.fault(at, wrong.maybe_hint(meant.or_else(|| cure(source, want))));
        }
        index
    }

    fn leaf_fault(&mut self, at: &Range<usize>, want: &str, error: &ron::error::SpannedError) {
        let source = self.source(at);
        let found = describe(source);
        let expected = format!("expected {want}, found {found}");
        let wrong = match &error.code {
            RonError::IntegerOutOfBounds => Wrong::new(format!("{found} is out of range")),
            RonError::InvalidEscape(_) | RonError::InvalidIntegerDigit { .. } => {
                let at = self.within(at, error);
                self.fault(&at, Wrong::new(lower_first(&error.code.to_string())));
                return;
            }
            _ => Wrong::new(expected).maybe_hint(cure(source, want)),
        };
        self.fault(at, wrong);
    }

    /// The fault of a section that could not be split: in the whole file RON's own words, else the wrong type.
    fn split_fault(&mut self, at: &Range<usize>, error: &ron::error::SpannedError, known: &[&str]) {
        if !self.path.is_empty() {
            let want = format!("({}: ...)", known.first().unwrap_or(&""));
            let source = self.source(at);
            let hint = known.first().filter(|_| describe(source).starts_with('`') && known.contains(&"max"));
            let hint = hint.map(|first| format!("write ({first}: {})", short(source)));
            let wrong = Wrong::new(format!("expected {want}, found {}", describe(source)));
            self.fault(at, wrong.maybe_hint(hint));
            return;
        }
        if self.source(at).trim().is_empty() {
            let hint =
                "a unit is at least (command: [\"/usr/bin/program\"]), and a system.ron is at least ()";
            self.faults.push(Diagnostic::of_file(self.file, "the file is empty", hint));
            return;
        }
        let message = lower_first(&error.code.to_string());
        let place = self.within(at, error);
        self.fault(&place, Wrong::new(short(&message)).maybe_hint(syntax_cure(&error.code)));
    }

    /// Where in the text RON stopped.
    fn within(&self, at: &Range<usize>, error: &ron::error::SpannedError) -> Range<usize> {
        let source = self.source(at);
        let offset = |place: ron::error::Position| {
            let line: usize =
                source.split_inclusive('\n').take(place.line.saturating_sub(1)).map(str::len).sum();
            let rest = source.get(line..).unwrap_or_default();
            let column = rest.char_indices().nth(place.col.saturating_sub(1)).map_or(rest.len(), |(i, _)| i);
            at.start + line + column
        };
        // A text that ends too early is shown by its last letter, not by the empty line behind it.
        let last = source.trim_end().char_indices().next_back().map_or(0, |(index, _)| index);
        let end = offset(error.span.end).min(at.start + last);
        end..end
    }
}

/// The length of the space and the comments before a value.
fn lead_len(raw: &str) -> usize {
    let mut rest = raw;
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.find('\n').and_then(|end| comment.get(end..)).unwrap_or_default();
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = after_block(comment);
        } else {
            return raw.len() - rest.len();
        }
    }
}

/// What follows a block comment, whose opening is already read. They nest.
fn after_block(comment: &str) -> &str {
    let mut rest = comment;
    let mut depth = 1_usize;
    while depth > 0 {
        let Some(at) = rest.find(['/', '*']) else { return "" };
        let here = rest.get(at..).unwrap_or_default();
        let (change, len): (isize, usize) = match here.get(..2) {
            Some("/*") => (1, 2),
            Some("*/") => (-1, 2),
            _ => (0, 1),
        };
        depth = depth.saturating_add_signed(change);
        rest = here.get(len..).unwrap_or_default();
    }
    rest
}

/// A value in words, or itself where it is short.
fn describe(source: &str) -> String {
    if source.chars().count() <= 40 && !source.contains('\n') {
        return format!("`{}`", short(source));
    }
    match source.chars().next() {
        Some('"' | 'r') => "a string",
        Some('[') => "a list",
        Some('{') => "a map",
        Some('(') => "fields in ( )",
        Some('0'..='9' | '+' | '-') => "a number",
        _ => "something else",
    }
    .to_owned()
}

/// What helps with a value of the wrong type.
fn cure(source: &str, want: &str) -> Option<String> {
    let is_string = source.starts_with('"');
    let inner = source.trim_matches('"');
    if source.starts_with("Some(") {
        return Some("write the value itself, without Some( )".to_owned());
    }
    match want {
        "a list in [ ]" if is_string && (inner.contains(' ') || inner.starts_with('/')) => {
            Some("put it in brackets, every word for itself: [\"/usr/bin/program\", \"--flag\"]".to_owned())
        }
        "a list in [ ]" if !source.starts_with(['(', '{']) => Some("put it in brackets".to_owned()),
        "a string in quotes" => Some("put it in quotes".to_owned()),
        "a map in { }" => Some("write {\"NAME\": \"value\"}".to_owned()),
        _ if is_string && want.split([',', ' ']).any(|word| word == inner) => {
            Some("write it without quotes".to_owned())
        }
        _ => None,
    }
}

/// What helps where the text is not RON.
fn syntax_cure(error: &RonError) -> Option<String> {
    let text = match error {
        RonError::ExpectedComma => "fields and items are separated by commas",
        RonError::ExpectedMapColon => "a field is written as name: value",
        RonError::ExpectedStructLike | RonError::ExpectedNamedStructLike(_) => {
            "the file is one pair of parentheses: (name: value, ...)"
        }
        RonError::Eof
        | RonError::ExpectedStructLikeEnd
        | RonError::ExpectedArrayEnd
        | RonError::ExpectedMapEnd => "is a closing bracket or parenthesis missing?",
        RonError::ExpectedStringEnd => "is a closing quote missing?",
        RonError::ExpectedIdentifier => "a field name stands here, without quotes",
        RonError::UnexpectedChar(_) => "text and paths stand in quotes",
        RonError::TrailingCharacters => "nothing may follow the last closing parenthesis",
        RonError::ExceededRecursionLimit => "no file needs so many brackets inside each other",
        _ => return None,
    };
    Some(text.to_owned())
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| std::iter::once(c.to_ascii_lowercase()).chain(chars).collect()).unwrap_or_default()
}
