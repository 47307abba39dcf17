//! The small values of a unit file: sizes, times, shares, signals. Text in, numbers out, or what is wrong with it.

use super::diagnostic::{Wrong, did_you_mean, short};
use super::reader::{Reader, Value};
use nix::sys::signal::Signal;
use serde::de::{Deserialize, Deserializer, Visitor};
use std::fmt;
use std::ops::Range;

/// Bytes: `"32MiB"`, `"4M"`, or a plain number of bytes. All units are binary, as the kernel's are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub u64);

/// Milliseconds: `"2s"`, `"100ms"`, `"1m30s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Millis(pub u64);

/// A signal's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StopSignal(pub i32);

/// A word that may be written as a string or as a whole number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word(pub String);

/// A value as it stands in the file, for the few that are a word with a number: `Fifo(10)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source(pub String);

/// Memory, as bytes or as a share of the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of a percent of `MemTotal` (proc_meminfo(5)).
    Permyriad(u16),
}

impl Amount {
    /// In bytes, on a machine with so much memory.
    #[must_use]
    pub fn bytes(self, total_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Permyriad(share) => {
                let bytes = u128::from(total_bytes) * u128::from(share) / 10_000;
                u64::try_from(bytes).unwrap_or(u64::MAX)
            }
        }
    }
}

/// A string or a whole number, as the file has it.
enum Scalar {
    Text(String),
    Number(i64),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a whole number")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number))
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Scalar, E> {
                i64::try_from(number).map(Scalar::Number).map_err(E::custom)
            }
        }
        from.deserialize_any(Either)
    }
}

/// Reads a scalar and judges it; what is wrong is told at its place.
fn judge<T>(
    reader: &mut Reader<'_>,
    at: &Range<usize>,
    want: &str,
    parse: impl Fn(&Scalar) -> Result<T, Wrong>,
) -> Option<T> {
    let scalar: Scalar = reader.leaf(at, want)?;
    parse(&scalar).map_err(|wrong| reader.fault(at, wrong)).ok()
}

impl Value for Size {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
        judge(reader, at, "a size such as \"32MiB\"", size).map(Self)
    }
}

impl Value for Amount {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
        judge(reader, at, "a size such as \"32MiB\" or a share such as \"10%\"", amount)
    }
}

impl Value for Millis {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
        judge(reader, at, "a time such as \"2s\"", time).map(Self)
    }
}

impl Value for StopSignal {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
        judge(reader, at, "a signal such as \"TERM\"", signal).map(Self)
    }
}

impl Value for Word {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
        judge(reader, at, "a string in quotes", |scalar| match scalar {
            Scalar::Text(text) => Ok(Self(text.clone())),
            Scalar::Number(number) => Ok(Self(number.to_string())),
        })
    }
}

impl Value for Source {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
        Some(Self(reader.source(at).to_owned()))
    }
}

/// A number, or a size with its unit.
pub(super) fn size_of(text: &str) -> Result<u64, Wrong> {
    size(&Scalar::Text(text.to_owned()))
}

fn size(scalar: &Scalar) -> Result<u64, Wrong> {
    let text = match scalar {
        Scalar::Number(number) => {
            return u64::try_from(*number).map_err(|_| Wrong::new("a size is not negative"));
        }
        Scalar::Text(text) => text,
    };
    let lower = text.trim().to_ascii_lowercase();
    let digits_end = lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits_end);
    let number = short(number.trim());
    if let Some(prefix @ ("k" | "m" | "g" | "t" | "p" | "e")) = unit.strip_suffix('b') {
        let prefix = prefix.to_ascii_uppercase();
        return Err(Wrong::new(format!("`{}` has a decimal unit; memory is counted in binary", short(text)))
            .hint(format!(
                "write \"{number}{prefix}iB\", which is what the kernel means by {number}{prefix}"
            )));
    }
    parse_size::Config::new().with_binary().parse_size(text).map_err(|error| {
        let message = match error {
            parse_size::Error::Empty => "a size is missing".to_owned(),
            parse_size::Error::PosOverflow => format!("`{}` is more than 16 EiB", short(text)),
            _ => format!("`{}` is no size", short(text)),
        };
        Wrong::new(message).hint("sizes are written as \"32MiB\", \"512K\" or as a number of bytes")
    })
}

fn amount(scalar: &Scalar) -> Result<Amount, Wrong> {
    let share = match scalar {
        Scalar::Text(text) => text.trim().strip_suffix('%'),
        Scalar::Number(_) => None,
    };
    share.map_or_else(|| size(scalar).map(Amount::Bytes), |share| permyriad(share).map(Amount::Permyriad))
}

/// The number before a percent sign, with up to two decimals, in hundredths of a percent.
fn permyriad(text: &str) -> Result<u16, Wrong> {
    let wrong = || {
        Wrong::new(format!("`{}%` is no share", short(text)))
            .hint("shares are written as \"80%\" or \"12.5%\"")
    };
    let (whole, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !are_digits(whole) || !are_digits(decimals) || decimals.len() > 2 {
        return Err(wrong());
    }
    let hundredths = format!("{decimals:0<2}").parse::<u32>().map_err(|_| wrong())?;
    let share = whole.parse::<u32>().ok().and_then(|whole| whole.checked_mul(100)?.checked_add(hundredths));
    match share.and_then(|share| u16::try_from(share).ok()) {
        Some(share @ 1..=10_000) => Ok(share),
        _ => Err(Wrong::new(format!("`{}%` is not a share", short(text)))
            .hint("a share is above 0% and up to 100%")),
    }
}

fn time(scalar: &Scalar) -> Result<u64, Wrong> {
    let text = match scalar {
        Scalar::Number(number) => {
            return Err(Wrong::new("a time needs its unit")
                .hint(format!("write \"{number}s\" for seconds or \"{number}ms\" for milliseconds")));
        }
        Scalar::Text(text) => text,
    };
    if let Some(unit) = text.split(|c: char| !c.is_ascii_alphabetic()).find(|unit| is_calendar(unit)) {
        return Err(Wrong::new(format!("`{unit}` in `{}` counts in months or years", short(text)))
            .hint("m is a minute, ms a millisecond, h an hour; nothing here lasts a month"));
    }
    let parsed = humantime::parse_duration(text).map_err(|error| {
        let message = format!("`{}` is no time: {}", short(text), short(&error.to_string()));
        Wrong::new(message).hint("times are written as \"2s\", \"100ms\" or \"1m30s\"")
    })?;
    if parsed.subsec_nanos() % 1_000_000 != 0 {
        return Err(Wrong::new(format!("`{}` is finer than a millisecond", short(text))));
    }
    Ok(u64::try_from(parsed.as_millis()).unwrap_or(u64::MAX))
}

/// humantime takes `M` for a month, which a person who means minutes would find out after 43,200 of them.
fn is_calendar(unit: &str) -> bool {
    matches!(unit, "M" | "month" | "months" | "y" | "yr" | "yrs" | "year" | "years")
}

fn signal(scalar: &Scalar) -> Result<i32, Wrong> {
    const NUMBERS: std::ops::RangeInclusive<i64> = 1..=64;
    let number = match scalar {
        Scalar::Number(number) => Some(*number),
        Scalar::Text(text) => text.trim().parse::<i64>().ok(),
    };
    if let Some(number) = number {
        return i32::try_from(number).ok().filter(|_| NUMBERS.contains(&number)).ok_or_else(|| {
            Wrong::new(format!("there is no signal {number}")).hint("signals are numbered 1 to 64")
        });
    }
    let Scalar::Text(text) = scalar else { return Err(Wrong::new("no signal")) };
    let upper = text.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let mut names = Signal::iterator().map(|signal| {
        let name = signal.as_str();
        (signal as i32, name.strip_prefix("SIG").unwrap_or(name))
    });
    names.clone().find(|(_, name)| *name == bare).map(|(number, _)| number).ok_or_else(|| {
        let list = "signals are named as in `kill -l`: TERM, INT, USR1, ...".to_owned();
        let hint = did_you_mean(bare, names.by_ref().map(|(_, name)| name)).unwrap_or(list);
        Wrong::new(format!("there is no signal `{}`", short(text))).hint(hint)
    })
}
