//! The kernel's cgroup files as numbers (Documentation/admin-guide/cgroup-v2.rst, Documentation/accounting/psi.rst).
//!
//! Pure, and without allocation: these run in the exhaustion path. A file that is cut, empty or strange is an error and
//! never a panic; keys that are not known here are passed over, because every kernel release adds some.

use crate::engine::event::MemoryEvents;
use std::fmt;
use std::num::NonZeroU32;

/// What is wrong with a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// It does not end with its line's end: it was cut, or is empty.
    Cut,
    /// This key is not there.
    Missing(&'static str),
    /// This key's value (or the whole file, for a file of one value) is not the number that belongs there.
    NotANumber(&'static str),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the text is cut or empty"),
            Self::Missing(key) => write!(f, "`{key}` is missing"),
            Self::NotANumber(key) => write!(f, "`{key}` has no valid value"),
        }
    }
}

impl std::error::Error for ParseError {}

/// `cgroup.events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The group or a descendant has a live process.
    pub populated: bool,
    /// Every process of it is frozen.
    pub frozen: bool,
}

/// `memory.pressure`, as far as lifeboat uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// `some avg10`, in hundredths of a percent.
    pub some_avg10: u16,
    /// `full avg10`, in hundredths of a percent.
    pub full_avg10: u16,
}

/// A file of one number, such as `memory.current`.
pub fn number(text: &[u8]) -> Result<u64, ParseError> {
    let [line] = whole_lines::<1>(text)?;
    digits(line).ok_or(ParseError::NotANumber("number"))
}

/// `usage_usec` of `cpu.stat`.
pub fn cpu_usage_us(text: &[u8]) -> Result<u64, ParseError> {
    let found = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"usage_usec "));
    found.and_then(digits).ok_or(ParseError::NotANumber("usage_usec"))
}

/// A file of one limit, such as `memory.max`; `None` is the kernel's `max`, no limit.
pub fn limit(text: &[u8]) -> Result<Option<u64>, ParseError> {
    let [line] = whole_lines::<1>(text)?;
    if line == b"max" {
        return Ok(None);
    }
    digits(line).map(Some).ok_or(ParseError::NotANumber("limit"))
}

/// `memory.events` and `memory.events.local`.
pub fn memory_events(text: &[u8]) -> Result<MemoryEvents, ParseError> {
    let [high, max, oom, oom_kill] = flat_keyed(text, ["high", "max", "oom", "oom_kill"])?;
    Ok(MemoryEvents {
        high: high.ok_or(ParseError::Missing("high"))?,
        max: max.ok_or(ParseError::Missing("max"))?,
        oom: oom.ok_or(ParseError::Missing("oom"))?,
        oom_kill: oom_kill.ok_or(ParseError::Missing("oom_kill"))?,
        oom_below: 0,
    })
}

/// `cgroup.events`. `frozen` is missing before Linux 5.2, where nothing can be frozen.
pub fn group_state(text: &[u8]) -> Result<GroupState, ParseError> {
    let [populated, frozen] = flat_keyed(text, ["populated", "frozen"])?;
    let yes = |value, key| match value {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        Some(_) => Err(ParseError::NotANumber(key)),
        None => Err(ParseError::Missing(key)),
    };
    Ok(GroupState { populated: yes(populated, "populated")?, frozen: yes(frozen.or(Some(0)), "frozen")? })
}

/// U from `memory.stat`: the bytes that reclaim cannot free, where so much may still be swapped out.
///
/// Two ways lead to the user's part, and each alone would be wrong:
///
/// - `anon + shmem` misses what was locked in memory and belongs to a file (mlock(2), ramfs);
/// - `unevictable` counts locked pages of *every* kind, so that adding it to the above would count locked anonymous
///   pages twice.
///
/// The lists do partition the pages: `inactive_anon + active_anon + unevictable` counts each of them once, but
/// lags by the pages that each CPU still collects before it puts them on a list. So the larger of the two is taken.
/// Pages freed by `MADV_FREE` still count as `anon`: U errs to the side of caution there.
///
/// The kernel's part is `kernel + sock − slab_reclaimable`; where `kernel` is missing (before Linux 5.18) it is summed
/// up from its parts. Dirty and written-back file pages are slow to free, but they are not counted: see [`dirty_kib`].
///
/// What is on the anonymous lists is reclaimable as far as there is room in swap, or a place there is taken for it
/// already: a page that is being written out, or was read back, holds both (`swapcached`, Linux 5.13). zram is no
/// exception: what it takes for compressed pages is the machine's, and not charged to the group.
pub fn unreclaimable_bytes(text: &[u8], swap_room_bytes: u64) -> Result<u64, ParseError> {
    let user = ["anon", "shmem", "inactive_anon", "active_anon", "unevictable", "swapcached"];
    let [anon, shmem, inactive_anon, active_anon, unevictable, in_swap_too] = flat_keyed(text, user)?;
    let anon = anon.ok_or(ParseError::Missing("anon"))?;
    let shmem = shmem.ok_or(ParseError::Missing("shmem"))?;
    let unevictable = unevictable.ok_or(ParseError::Missing("unevictable"))?;
    let counted = anon.saturating_add(shmem);
    let listed = sum([inactive_anon, active_anon, Some(unevictable)]);
    let swappable = sum([inactive_anon, active_anon]).min(sum([Some(swap_room_bytes), in_swap_too]));

    let kernel = ["kernel", "sock", "slab_reclaimable"];
    let [kernel, sock, slab_reclaimable] = flat_keyed(text, kernel)?;
    let kernel = match kernel {
        Some(kernel) => kernel.saturating_sub(slab_reclaimable.unwrap_or(0)),
        None => sum(flat_keyed(text, ["slab_unreclaimable", "kernel_stack", "pagetables", "percpu"])?),
    };
    let user = counted.max(listed).saturating_sub(swappable);
    Ok(user.saturating_add(kernel).saturating_add(sock.unwrap_or(0)))
}

/// Pages that were read again after they had been reclaimed, by `memory.stat`, modulo 2^32. Before Linux 5.9 files and
/// swap were counted together.
pub fn refaults(text: &[u8]) -> Result<u32, ParseError> {
    let keys = ["workingset_refault_anon", "workingset_refault_file", "workingset_refault"];
    Ok((sum(flat_keyed(text, keys)?) & u64::from(u32::MAX)).try_into().unwrap_or(u32::MAX))
}

/// Pages of files that the disk has not taken yet, by `memory.stat`, in KiB. A page that is being written is not dirty.
pub fn dirty_kib(text: &[u8]) -> Result<u32, ParseError> {
    let bytes = sum(flat_keyed(text, ["file_dirty", "file_writeback"])?);
    Ok(u32::try_from(bytes >> 10).unwrap_or(u32::MAX))
}

/// `shmem` and `file` of `memory.stat`.
pub fn shmem_and_file_bytes(text: &[u8]) -> Result<(u64, u64), ParseError> {
    let [shmem, file] = flat_keyed(text, ["shmem", "file"])?;
    Ok((shmem.ok_or(ParseError::Missing("shmem"))?, file.ok_or(ParseError::Missing("file"))?))
}

/// What an incident tells of `memory.stat`. A count of pages or faults has no `_bytes` in the kernel either.
pub const STAT_KEYS: [&str; 13] = [
    "anon",
    "shmem",
    "file",
    "file_dirty",
    "file_writeback",
    "unevictable",
    "kernel",
    "sock",
    "slab_reclaimable",
    "pgscan",
    "pgsteal",
    "pgmajfault",
    "workingset_refault_file",
];

/// Their values; what a kernel does not have is left out.
pub fn stat_values(text: &[u8]) -> Result<[Option<u64>; STAT_KEYS.len()], ParseError> {
    flat_keyed(text, STAT_KEYS)
}

/// `MemAvailable` of proc_meminfo(5), from the beginning of the file. Of nothing, one KiB is left.
#[must_use]
pub fn available_kib(text: &[u8]) -> Option<NonZeroU32> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let rest = lines.find_map(|line| line.strip_prefix(b"MemAvailable:"))?.strip_suffix(b" kB")?;
    let kib = u32::try_from(digits(rest.trim_ascii_start())?).unwrap_or(u32::MAX);
    NonZeroU32::new(kib.max(1))
}

/// `memory.pressure`.
pub fn pressure(text: &[u8]) -> Result<Pressure, ParseError> {
    let mut found = Pressure::default();
    let (mut some, mut full) = (false, false);
    for line in lines(text)? {
        if let Some(rest) = line.strip_prefix(b"some ") {
            some = true;
            found.some_avg10 = hundredths(field(rest, b"avg10=").ok_or(ParseError::Missing("some avg10"))?)
                .ok_or(ParseError::NotANumber("some avg10"))?;
        } else if let Some(rest) = line.strip_prefix(b"full ") {
            full = true;
            found.full_avg10 = hundredths(field(rest, b"avg10=").ok_or(ParseError::Missing("full avg10"))?)
                .ok_or(ParseError::NotANumber("full avg10"))?;
        }
    }
    match (some, full) {
        (false, _) => Err(ParseError::Missing("some")),
        (_, false) => Err(ParseError::Missing("full")),
        (true, true) => Ok(found),
    }
}

/// The lines of a text that ends with a line's end.
fn lines(text: &[u8]) -> Result<impl Iterator<Item = &[u8]>, ParseError> {
    let text = text.strip_suffix(b"\n").ok_or(ParseError::Cut)?;
    Ok(text.split(|byte| *byte == b'\n'))
}

/// Exactly `N` lines.
fn whole_lines<const N: usize>(text: &[u8]) -> Result<[&[u8]; N], ParseError> {
    let mut found = [&b""[..]; N];
    let mut lines = lines(text)?;
    for place in &mut found {
        *place = lines.next().ok_or(ParseError::Cut)?;
    }
    if lines.next().is_some() { Err(ParseError::NotANumber("number")) } else { Ok(found) }
}

/// The values of the wanted keys of a file of `KEY VALUE` lines.
fn flat_keyed<const N: usize>(text: &[u8], keys: [&'static str; N]) -> Result<[Option<u64>; N], ParseError> {
    let mut found = [None; N];
    find_keyed(text, &keys, &mut found)?;
    Ok(found)
}

/// The same for any number of them, so that it is there once.
fn find_keyed(text: &[u8], keys: &[&'static str], found: &mut [Option<u64>]) -> Result<(), ParseError> {
    for line in lines(text)? {
        let mut words = line.splitn(2, |byte| *byte == b' ');
        let (Some(key), Some(value)) = (words.next(), words.next()) else { continue };
        for (place, wanted) in found.iter_mut().zip(keys) {
            if key == wanted.as_bytes() {
                *place = Some(digits(value).ok_or(ParseError::NotANumber(wanted))?);
            }
        }
    }
    Ok(())
}

/// The value behind `name` among words parted by a space.
fn field<'a>(words: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    words.split(|byte| *byte == b' ').find_map(|word| word.strip_prefix(name))
}

/// A decimal number of nothing but digits.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// `12.34` as 1234.
fn hundredths(text: &[u8]) -> Option<u16> {
    let (whole, [b'.', tens @ b'0'..=b'9', ones @ b'0'..=b'9']) = text.split_last_chunk::<3>()? else {
        return None;
    };
    let part = u64::from(tens - b'0') * 10 + u64::from(ones - b'0');
    u16::try_from(digits(whole)?.checked_mul(100)?.checked_add(part)?).ok()
}

fn sum<const N: usize>(parts: [Option<u64>; N]) -> u64 {
    parts.into_iter().flatten().fold(0, u64::saturating_add)
}
