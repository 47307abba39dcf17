//! Conditions: what must be so for a unit to be started. Whether it is so is looked at by the runtime, when the unit
//! would start.

use super::diagnostic::{Wrong, short};
use super::reader::{Item, Reader, Slot, Value};
use serde::Deserialize;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Something that must be so, or must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// It must not be so.
    pub negated: bool,
    /// What is looked at.
    pub test: Test,
}

/// What can be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// Something is at this path; links are followed.
    PathExists(PathBuf),
    /// The kernel's command line has this word, or an assignment to it.
    KernelCommandLine(String),
    /// lifeboat runs in a container.
    Container,
    /// lifeboat is the init process.
    Init,
}

impl fmt::Display for Condition {
    /// As it stands in a file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negated {
            f.write_str("Not(")?;
        }
        match &self.test {
            Test::PathExists(path) => write!(f, "PathExists({:?})", path.to_string_lossy())?,
            Test::KernelCommandLine(word) => write!(f, "KernelCommandLine({word:?})")?,
            Test::Container => f.write_str("Container")?,
            Test::Init => f.write_str("Init")?,
        }
        if self.negated { f.write_str(")") } else { Ok(()) }
    }
}

/// As RON has it.
#[derive(Debug, Deserialize)]
enum Raw {
    PathExists(String),
    KernelCommandLine(String),
    Container,
    Init,
    Not(Box<Raw>),
}

impl Value for Condition {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
        const WANT: &str =
            "PathExists(\"/x\"), KernelCommandLine(\"word\"), Container, Init, or Not( ) around one of them";
        let mut raw: Raw = reader.leaf(at, WANT)?;
        let mut negated = false;
        while let Raw::Not(inner) = raw {
            raw = *inner;
            negated = !negated;
        }
        let test = match raw {
            Raw::PathExists(path) => {
                let path = reader.expanded(at, path)?;
                if !path.starts_with('/') || path.contains('\0') {
                    let wrong = Wrong::new(format!("`{}` is not an absolute path", short(&path)));
                    let hint = match path.strip_prefix('!') {
                        Some(path) => format!("write Not(PathExists(\"{}\"))", short(path)),
                        None => "begin with /".to_owned(),
                    };
                    reader.fault(at, wrong.hint(hint));
                    return None;
                }
                Test::PathExists(path.into())
            }
            Raw::KernelCommandLine(word) => {
                let word = reader.expanded(at, word)?;
                if word.is_empty() || word.contains(char::is_whitespace) {
                    let wrong = Wrong::new(format!("`{}` is not one word", short(&word)));
                    reader.fault(at, wrong.hint("write \"name\", or \"name=value\""));
                    return None;
                }
                Test::KernelCommandLine(word)
            }
            Raw::Container => Test::Container,
            Raw::Init => Test::Init,
            Raw::Not(_) => return None,
        };
        Some(Self { negated, test })
    }
}

/// The conditions of a unit.
pub(super) fn list(slot: Slot<Vec<Item<Condition>>>) -> Vec<Condition> {
    slot.given().map(|list| list.value).unwrap_or_default().into_iter().map(|item| item.value).collect()
}
