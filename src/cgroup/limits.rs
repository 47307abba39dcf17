//! Limits, set and then read back: a limit that the kernel did not take is an error, never a hope.
//!
//! cgroups-rs writes the values, by its controllers on an explicit folder. It is not believed: it would make a regular
//! file where a controller is missing, and its `apply` passes over errors. So each file must exist before, and is read
//! again afterwards.

use super::file::{read_value, write_value};
use super::parse;
use crate::engine::budget::writeback_bytes;
use crate::sys::error::SysError;
use crate::sys::memory::page_bytes;
use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::memory::{MemController, SetMemory};
use cgroups_rs::fs::pid::PidController;
use std::error::Error;
use std::path::Path;

/// The limits of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupLimits {
    /// `memory.max`; `None` is no limit.
    pub memory_max_bytes: Option<u64>,
    /// `memory.high`; `None` leaves it as it is.
    pub memory_high_bytes: Option<u64>,
    /// `memory.oom.group`: the kernel's OOM killer takes the whole group or nothing of it.
    pub oom_group: bool,
    /// `pids.max`; `None` is no limit.
    pub pids_max: Option<u32>,
}

impl GroupLimits {
    /// Of processes that may use so much, and may write more than that to a slow disk without being killed for it.
    #[must_use]
    pub fn of_a_writer(memory_bytes: u64) -> Self {
        let max_bytes = memory_bytes.saturating_add(writeback_bytes(memory_bytes));
        Self { memory_max_bytes: Some(max_bytes), memory_high_bytes: Some(memory_bytes), ..Self::default() }
    }
}

/// The controllers that the kernel offers here. Limits of a missing one are left out: lifeboat has said so loudly, and
/// is DEGRADED.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controllers {
    /// `memory`.
    pub memory: bool,
    /// `pids`.
    pub pids: bool,
}

/// Sees to it that the group in `folder` has these limits. `is_new`: the folder has just been made, so every limit is
/// as the kernel makes it, none; then only what differs is touched. In an older group each limit is read first.
///
/// Fails with the kernel's errno, with `ENOENT` where the file of a present controller is missing, or with `ERANGE`
/// where the value read back is another one; the error's object then names the file, what was wanted and what was
/// found.
pub fn apply(
    folder: &Path,
    limits: &GroupLimits,
    controllers: Controllers,
    is_new: bool,
) -> Result<(), SysError> {
    if controllers.memory {
        apply_memory(folder, limits, is_new)?;
    }
    if controllers.pids {
        let max = limits.pids_max.map_or(MaxValue::Max, |max| MaxValue::Value(max.into()));
        let limit = Limit { wanted: limits.pids_max.map(u64::from), default: None, unit: 1 };
        limit.ensure(&folder.join("pids.max"), is_new, || {
            refused(PidController::new(folder.to_path_buf(), folder.to_path_buf(), true).set_pid_max(max))
        })?;
    }
    Ok(())
}

fn apply_memory(folder: &Path, limits: &GroupLimits, is_new: bool) -> Result<(), SysError> {
    let value = |bytes| i64::try_from(bytes).map_or(MaxValue::Max, MaxValue::Value);
    let max = limits.memory_max_bytes.map_or(MaxValue::Max, value);
    let limit = Limit { wanted: limits.memory_max_bytes, default: None, unit: page_bytes() };
    limit.ensure(&folder.join("memory.max"), is_new, || {
        let max = SetMemory { max: Some(max), low: None, high: None, min: None };
        refused(memory_of(folder).set_mem(max))
    })?;
    if limits.memory_high_bytes.is_some() {
        let limit = Limit { wanted: limits.memory_high_bytes, default: None, unit: page_bytes() };
        limit.ensure(&folder.join("memory.high"), is_new, || {
            let high = limits.memory_high_bytes.map(value);
            refused(memory_of(folder).set_mem(SetMemory { max: None, low: None, high, min: None }))
        })?;
    }
    // cgroups-rs does not know this one.
    let path = folder.join("memory.oom.group");
    let (value, text) = if limits.oom_group { (1, "1") } else { (0, "0") };
    let limit = Limit { wanted: Some(value), default: Some(0), unit: 1 };
    limit.ensure(&path, is_new, || write_value(&path, text).map_err(|error| error.errno()))
}

/// Forbids swap in all groups below `folder`: memory that can be swapped out is reclaimable, and an exhaustion would
/// come late. A kernel without swap has no such file, and needs none.
pub fn forbid_swap(folder: &Path) -> Result<(), SysError> {
    let path = folder.join("memory.swap.max");
    if !path.exists() {
        return Ok(());
    }
    let limit = Limit { wanted: Some(0), default: None, unit: 1 };
    limit.ensure(&path, false, || refused(memory_of(folder).set_memswap_limit(0)))
}

fn memory_of(folder: &Path) -> MemController {
    MemController::new(folder.to_path_buf(), folder.to_path_buf(), true)
}

/// The errno in an error of cgroups-rs, which keeps it two levels down.
fn refused(result: cgroups_rs::fs::error::Result<()>) -> Result<(), i32> {
    result.map_err(|error| {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
        cause.and_then(std::io::Error::raw_os_error).unwrap_or(libc::EIO)
    })
}

/// One limit: `None` is none.
#[derive(Clone, Copy)]
struct Limit {
    wanted: Option<u64>,
    /// What the kernel gives to a new group.
    default: Option<u64>,
    /// The kernel rounds down to a multiple of it.
    unit: u64,
}

impl Limit {
    /// The file is there and holds the value in the end; it is written only where it must be.
    fn ensure(
        self,
        path: &Path,
        is_new: bool,
        write: impl FnOnce() -> Result<(), i32>,
    ) -> Result<(), SysError> {
        if !path.exists() {
            return Err(SysError::new("find", path.display().to_string(), libc::ENOENT));
        }
        let holds_already =
            if is_new { self.wanted == self.default } else { compare(path, self.wanted, self.unit).is_ok() };
        if holds_already {
            return Ok(());
        }
        write().map_err(|errno| {
            SysError::new("write", format!("{} to {}", Shown(self.wanted), path.display()), errno)
        })?;
        compare(path, self.wanted, self.unit)
    }
}

/// Reads a limit back; the kernel may have rounded it down to a multiple of `unit`.
fn compare(path: &Path, wanted: Option<u64>, unit: u64) -> Result<(), SysError> {
    let text = read_value(path)?.unwrap_or_default();
    let found = parse::limit(&with_line_end(text));
    let expected = wanted.filter(|bytes| i64::try_from(*bytes).is_ok()).map(|bytes| bytes - bytes % unit);
    match found {
        Ok(found) if found == expected || found == wanted => Ok(()),
        Ok(found) => Err(not_taken(path, wanted, &Shown(found).to_string())),
        Err(error) => Err(not_taken(path, wanted, &error.to_string())),
    }
}

/// What was just written to a folder of captured files has no line's end, the kernel's own answer has.
fn with_line_end(mut text: Vec<u8>) -> Vec<u8> {
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text
}

fn not_taken(path: &Path, wanted: Option<u64>, found: &str) -> SysError {
    let what = format!("the value of {}: wanted {}, found {found}", path.display(), Shown(wanted));
    SysError::new("confirm", what, libc::ERANGE)
}

/// A limit as the kernel writes it.
struct Shown(Option<u64>);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("max"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_back_is_compared() {
        let check = |text: &str, wanted, unit, expected: Result<(), &str>| {
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), text).expect("its text");
            let found = compare(file.path(), wanted, unit).map_err(|error| error.what().to_owned());
            let name = file.path().display();
            let expected = expected.map_err(|end| format!("the value of {name}: wanted {end}"));
            assert_eq!(found, expected, "{text:?}");
        };
        check("8192\n", Some(8192), 4096, Ok(()));
        check("8192\n", Some(8193), 4096, Ok(()));
        check("8192\n", Some(12_287), 4096, Ok(()));
        check("8192\n", Some(12_288), 4096, Err("12288, found 8192"));
        check("8192\n", Some(4096), 4096, Err("4096, found 8192"));
        check("max\n", Some(4096), 4096, Err("4096, found max"));
        check("max\n", None, 4096, Ok(()));
        check("0\n", None, 4096, Err("max, found 0"));
        check("31\n", Some(32), 1, Err("32, found 31"));
        // Too large for the kernel's counter is no limit.
        check("max\n", Some(u64::MAX), 4096, Ok(()));
        check("", Some(1), 1, Err("1, found the text is cut or empty"));
    }
}
