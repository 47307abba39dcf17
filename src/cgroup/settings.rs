//! The settings of a group beyond the bounds that every unit has: each is written, and then read back.
//!
//! A setting that was not taken is told with its name, so that a person learns which one and the unit may do without.

use super::file::{read_value, write_value};
use super::parse;
use crate::engine::setting::{Limit, Setting, Settings};
use crate::sys::error::SysError;
use crate::sys::memory::page_bytes;
use rustix::fs::{FileType, major, minor};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The settings of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSettings {
    /// Those that are numbers.
    pub limits: Vec<Limit>,
    /// The period of `cpu.max`.
    pub cpu_period_us: u32,
    /// `cpuset.cpus`, as cpuset(7) has it.
    pub cpus: Option<String>,
    /// `cpuset.mems`.
    pub mems: Option<String>,
    /// Block devices, and `rbps`, `wbps`, `riops`, `wiops` of each.
    pub devices: Vec<(PathBuf, [Option<u64>; 4])>,
    /// What may be left out.
    pub optional: Settings,
}

/// A setting that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub setting: Setting,
    /// The file, and the kernel's errno: `ENOENT` where the controller or the file is missing, `ERANGE` where the value
    /// that was read back is another one.
    pub cause: SysError,
}

/// The controller that a setting needs beside those that every branch has.
pub(super) fn controller_of(setting: Setting) -> Option<&'static str> {
    match setting {
        Setting::CpuMax | Setting::CpuWeight => Some("cpu"),
        Setting::CpuCpus | Setting::CpuMems => Some("cpuset"),
        Setting::IoMax | Setting::IoWeight => Some("io"),
        _ => None,
    }
}

/// It is of the memory controller.
pub(super) fn is_of_memory(setting: Setting) -> bool {
    file_of(setting).is_some_and(|file| file.starts_with("memory."))
}

impl GroupSettings {
    /// Every setting that is wished for.
    pub(super) fn wished(&self) -> impl Iterator<Item = Setting> {
        let numbers = self.limits.iter().map(|limit| limit.setting);
        let others = [
            (Setting::CpuCpus, self.cpus.is_some()),
            (Setting::CpuMems, self.mems.is_some()),
            (Setting::IoMax, !self.devices.is_empty()),
        ];
        numbers.chain(others.into_iter().filter(|(_, is_wished)| *is_wished).map(|(setting, _)| setting))
    }

    /// Sees to it that the group in `folder` has one of the settings.
    pub(super) fn set(&self, folder: &Path, setting: Setting) -> Result<(), SysError> {
        match setting {
            Setting::CpuCpus => set_list(&folder.join("cpuset.cpus"), self.cpus.as_deref().unwrap_or("")),
            Setting::CpuMems => set_list(&folder.join("cpuset.mems"), self.mems.as_deref().unwrap_or("")),
            Setting::IoMax => {
                self.devices.iter().try_for_each(|(device, max)| set_device(folder, device, *max))
            }
            _ => match self.limits.iter().find(|limit| limit.setting == setting) {
                Some(limit) => set_limit(folder, *limit, self.cpu_period_us),
                None => Ok(()),
            },
        }
    }
}

/// The file of a setting that is a number.
fn file_of(setting: Setting) -> Option<&'static str> {
    Some(match setting {
        Setting::MemoryMax => "memory.max",
        Setting::MemoryHigh => "memory.high",
        Setting::MemoryLow => "memory.low",
        Setting::MemoryMin => "memory.min",
        Setting::MemorySwapMax => "memory.swap.max",
        Setting::MemoryZswapMax => "memory.zswap.max",
        Setting::MemoryOomGroup => "memory.oom.group",
        Setting::CpuMax => "cpu.max",
        Setting::CpuWeight => "cpu.weight",
        Setting::PidsMax => "pids.max",
        Setting::IoWeight => "io.weight",
        _ => return None,
    })
}

/// Whether the group in `folder` has this limit of memory.
#[must_use]
pub fn has_memory_limit(folder: &Path, limit: Limit) -> bool {
    let text = file_of(limit.setting).and_then(|file| read_value(&folder.join(file)).ok().flatten());
    text.is_some_and(|text| is_page_limit(String::from_utf8_lossy(&text).trim_end(), limit.value))
}

/// Sees to it that the group in `folder` has this limit. A `memory.max` or `memory.high` below what is used makes the
/// kernel reclaim in this call, and at `memory.max` kill: not to be called so by who must not wait.
pub fn set_limit(folder: &Path, limit: Limit, cpu_period_us: u32) -> Result<(), SysError> {
    let Some(file) = file_of(limit.setting) else {
        return Err(SysError::new("set", limit.setting.name(), libc::EINVAL));
    };
    let number = limit.value.map_or_else(|| "max".to_owned(), |value| value.to_string());
    let path = folder.join(file);
    match limit.setting {
        Setting::CpuMax => {
            let quota_us = limit.value.map(|share| share.saturating_mul(u64::from(cpu_period_us)) / 10_000);
            let quota = quota_us.map_or_else(|| "max".to_owned(), |quota_us| quota_us.to_string());
            let text = format!("{quota} {cpu_period_us}");
            ensure(&path, &text, |found| found == text)
        }
        Setting::IoWeight => ensure(&path, &format!("default {number}"), |found| {
            found.lines().next().and_then(|line| line.strip_prefix("default ")) == Some(&number)
        }),
        Setting::CpuWeight | Setting::PidsMax | Setting::MemoryOomGroup => {
            ensure(&path, &number, |found| found == number)
        }
        _ => ensure(&path, &number, |found| is_page_limit(found, limit.value)),
    }
}

/// The kernel rounds memory down to whole pages, and shows what is too large for its counter as `max`.
fn is_page_limit(found: &str, wanted: Option<u64>) -> bool {
    let unit = page_bytes();
    let wanted = wanted.filter(|bytes| i64::try_from(*bytes).is_ok()).map(|bytes| bytes - bytes % unit);
    let found = parse::limit(format!("{found}\n").as_bytes());
    found.is_ok_and(|found| found.map(|bytes| bytes - bytes % unit) == wanted)
}

fn set_list(path: &Path, list: &str) -> Result<(), SysError> {
    ensure(path, list, |found| numbers(found).is_some_and(|found| Some(found) == numbers(list)))
}

/// The numbers in a list such as `0-3,8`.
fn numbers(list: &str) -> Option<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.trim().parse::<u32>().ok()?..=last.trim().parse::<u32>().ok()?.min(4_095));
    }
    Some(all)
}

/// One line of `io.max`.
fn set_device(folder: &Path, device: &Path, max: [Option<u64>; 4]) -> Result<(), SysError> {
    let failed = |errno: i32| SysError::new("find the disk", device.display().to_string(), errno);
    let stat = rustix::fs::stat(device).map_err(|errno| failed(errno.raw_os_error()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
        return Err(failed(libc::ENOTBLK));
    }
    let number = |value: Option<u64>| value.map_or_else(|| "max".to_owned(), |value| value.to_string());
    let [rbps, wbps, riops, wiops] = max.map(number);
    let disk = format!("{}:{}", major(stat.st_rdev), minor(stat.st_rdev));
    let line = format!("{disk} rbps={rbps} wbps={wbps} riops={riops} wiops={wiops}");
    ensure(&folder.join("io.max"), &line, |found| {
        // A disk without any limit has no line.
        let its = found.lines().find(|line| line.split(' ').next() == Some(&disk));
        its.is_some_and(|its| line.split(' ').all(|word| its.split(' ').any(|other| other == word)))
    })
}

/// The file is there and holds the value in the end; it is written only where it must be.
fn ensure(path: &Path, text: &str, is_it: impl Fn(&str) -> bool) -> Result<(), SysError> {
    let read = || {
        let missing = || SysError::new("find", path.display().to_string(), libc::ENOENT);
        let bytes = read_value(path)?.ok_or_else(missing)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    if is_it(&read()?) {
        return Ok(());
    }
    write_value(path, text)?;
    let found = read()?;
    if is_it(&found) {
        return Ok(());
    }
    let what = format!("the value of {}: wanted {text}, found {found}", path.display());
    Err(SysError::new("confirm", what, libc::ERANGE))
}
