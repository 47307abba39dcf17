//! A lower limit of memory for a group with living processes, without a kill: for a process that may wait.

use super::file::{read_value, write_value};
use super::parse;
use super::settings::set_limit;
use crate::engine::setting::{Limit, Setting};
use crate::sys::error::SysError;
use std::path::Path;

/// Room that must be left below a new limit, a part of it: what was reclaimed is wanted again at once, and each
/// processor keeps 256 KiB that are charged and not used (`MEMCG_CHARGE_BATCH` of include/linux/memcontrol.h).
const ROOM_DIVISOR: u64 = 16;

/// So many times reclaim may come back without any effect.
const FUTILE_MAX: u32 = 4;

/// What came of it, as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It fits, and where that was asked for it is written and read back.
    Done,
    /// More is used than would fit, and it cannot be reclaimed.
    TooFull,
    /// The kernel failed, with this errno(3).
    Refused(i32),
}

/// errno(3) values are below 134; as exit codes they stand above this.
const ERRNO_BASE: u8 = 100;

impl Outcome {
    /// Its exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::TooFull => 1,
            Self::Refused(errno) => {
                u8::try_from(errno).ok().and_then(|errno| errno.checked_add(ERRNO_BASE)).unwrap_or(u8::MAX)
            }
        }
    }

    /// The outcome of an exit code.
    #[must_use]
    pub fn of_code(code: i32) -> Self {
        match code {
            0 => Self::Done,
            1 => Self::TooFull,
            code if code > i32::from(ERRNO_BASE) => Self::Refused(code - i32::from(ERRNO_BASE)),
            _ => Self::Refused(libc::EIO),
        }
    }
}

/// The limit below which so much fits, with the room that is left.
#[must_use]
pub fn with_room(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / (ROOM_DIVISOR - 1))
}

/// Reclaims until what is used leaves some room below `bytes`; with `sets` the group has to stand still, and the limit
/// is written then.
#[must_use]
pub fn lower(folder: &Path, setting: Setting, bytes: u64, sets: bool) -> Outcome {
    match try_to_lower(folder, setting, bytes, sets) {
        Ok(true) => Outcome::Done,
        Ok(false) => Outcome::TooFull,
        Err(error) => Outcome::Refused(error.errno()),
    }
}

fn try_to_lower(folder: &Path, setting: Setting, bytes: u64, sets: bool) -> Result<bool, SysError> {
    let target_bytes = bytes - bytes / ROOM_DIVISOR;
    if !reclaim(folder, target_bytes)? {
        return Ok(false);
    }
    if sets {
        let path = folder.join("cgroup.events");
        let state = parse::group_state(&read_value(&path)?.unwrap_or_default());
        if !state.is_ok_and(|state| state.frozen) {
            return Err(SysError::new("see that nothing runs by", path.display().to_string(), libc::EAGAIN));
        }
        set_limit(folder, Limit { setting, value: Some(bytes) }, 0)?;
    }
    Ok(true)
}

/// By `memory.reclaim` (Linux 5.19); an older kernel reclaims nothing.
fn reclaim(folder: &Path, target_bytes: u64) -> Result<bool, SysError> {
    let file = folder.join("memory.current");
    let current_bytes = || {
        let text = read_value(&file)?.unwrap_or_default();
        parse::number(&text).map_err(|_| SysError::new("read", file.display().to_string(), libc::EBADMSG))
    };
    let mut futile = 0;
    let mut before_bytes = current_bytes()?;
    while before_bytes > target_bytes && futile < FUTILE_MAX {
        let more_bytes = before_bytes - target_bytes;
        match write_value(&folder.join("memory.reclaim"), &more_bytes.to_string()) {
            // Less than was asked for: what there is tells.
            Ok(()) => {}
            Err(error) if matches!(error.errno(), libc::EAGAIN | libc::EINTR) => {}
            Err(error) if error.errno() == libc::ENOENT => return Ok(false),
            Err(error) => return Err(error),
        }
        let now_bytes = current_bytes()?;
        futile = if now_bytes < before_bytes { 0 } else { futile + 1 };
        before_bytes = now_bytes;
    }
    Ok(before_bytes <= target_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_exit_codes() {
        for outcome in [Outcome::Done, Outcome::TooFull, Outcome::Refused(1), Outcome::Refused(133)] {
            assert_eq!(Outcome::of_code(outcome.code().into()), outcome);
        }
        assert_eq!(Outcome::of_code(2), Outcome::Refused(libc::EIO));
        assert_eq!(Outcome::of_code(101), Outcome::Refused(libc::EPERM));
    }

    /// A folder of plain files: what is written to `memory.reclaim` frees nothing.
    #[test]
    fn what_does_not_fit_is_not_written() {
        let check = |current: &str, frozen: u8, sets, expected, max: &str| {
            let folder = tempfile::tempdir().expect("a folder");
            let at = |name: &str| folder.path().join(name);
            for (name, text) in [("memory.current", current), ("memory.max", "max\n"), ("memory.reclaim", "")]
            {
                std::fs::write(at(name), text).expect("a file");
            }
            std::fs::write(at("cgroup.events"), format!("populated 1\nfrozen {frozen}\n")).expect("a file");
            assert_eq!(lower(folder.path(), Setting::MemoryMax, 16 << 20, sets), expected, "{current}");
            assert_eq!(std::fs::read_to_string(at("memory.max")).expect("a file").trim(), max);
        };
        check("15728640\n", 1, true, Outcome::Done, "16777216");
        check("15728641\n", 1, true, Outcome::TooFull, "max");
        check("15728640\n", 0, true, Outcome::Refused(libc::EAGAIN), "max");
        check("15728640\n", 0, false, Outcome::Done, "max");
        check("strange\n", 1, true, Outcome::Refused(libc::EBADMSG), "max");
    }
}
