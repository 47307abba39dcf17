//! The fields about the unit's cgroup.

use super::check::{number, time};
use super::diagnostic::{Wrong, short};
use super::raw::{RawCpu, RawDevice, RawIo, RawMemory, RawPids, RawUnit};
use super::reader::{Item, Map, Reader, Slot};
use super::value::{Size, Word};
use super::{Cgroup, DeviceMax, Unit, warn};
use crate::engine::budget::Bytes;
use crate::engine::policy::{Class, Guard, MemoryPolicy};
use crate::engine::setting::{Limit, Setting};
use std::ops::{Range, RangeInclusive};

/// Below this no program gets as far as its first instruction.
const MEMORY_BYTES_MIN: u64 = 64 << 10;

/// The smallest page of the machines that Linux runs on.
const PAGE_BYTES_MIN: u64 = 4 << 10;

/// `PID_MAX_LIMIT` of include/linux/threads.h on 64-bit kernels.
const PIDS_MAX: u64 = 4_194_304;

/// `CGROUP_WEIGHT_MIN` and `CGROUP_WEIGHT_MAX` of include/linux/cgroup.h.
const WEIGHT: RangeInclusive<u64> = 1..=10_000;

/// What `cpu.max` takes as its period (kernel/sched/core.c, `min_cfs_quota_period` and `max_cfs_quota_period`).
const PERIOD_MS: RangeInclusive<u64> = 1..=1_000;

/// The least quota in a period, in microseconds (kernel/sched/core.c, `min_cfs_quota_period`).
const QUOTA_US_MIN: u64 = 1_000;

/// The longest list of processors: more than any device has.
const CPU_MAX: u32 = 1_024;

/// Reads `memory`, `cpu`, `pids`, `io` and `delegate`.
pub(super) fn read_into(reader: &mut Reader<'_>, raw: &mut RawUnit, unit: &mut Unit) {
    if let Some(Item { value: mut raw, at }) = raw.memory.take().given() {
        let warn = (raw.warn.take(), raw.warn_timeout.take());
        unit.policy.memory = memory(reader, raw, &at, &mut unit.cgroup);
        warn::stages_into(reader, warn, unit);
    }
    cpu(reader, raw.cpu.take(), unit);
    unit.pids_max = pids(reader, raw.pids.take());
    io(reader, raw.io.take(), unit);
    let delegate_at = raw.delegate.place();
    unit.cgroup.delegate = raw.delegate.take().value_or(false);
    let canary = unit.policy.memory.is_some_and(|memory| memory.guard == Guard::Canary);
    if let Some(at) = delegate_at.filter(|_| canary && unit.cgroup.delegate) {
        let wrong = Wrong::new(
            "the ballast stands in the unit's own cgroup, so none with controllers can be made below",
        );
        reader.fault_in("delegate", &at, wrong.hint("take it out, or use guard: Shield or None"));
    }
}

/// Memory that something can run in.
pub(super) fn bytes(reader: &mut Reader<'_>, field: &str, slot: Slot<Size>) -> Option<u64> {
    let Item { value: Size(value), at } = slot.given()?;
    runs_in(reader, field, value, &at).then_some(value)
}

/// Whether a program can run in so much; else that is told.
fn runs_in(reader: &mut Reader<'_>, field: &str, value: u64, at: &Range<usize>) -> bool {
    if value >= MEMORY_BYTES_MIN {
        return true;
    }
    let wrong = Wrong::new(format!("in {} no program can run", Bytes(value)));
    too_little(reader, field, (value, at), (wrong, MEMORY_BYTES_MIN));
    false
}

/// The kernel counts in pages, so that less than one is nothing; 0 is meant as it is.
fn see_to_pages(reader: &mut Reader<'_>, field: &str, value: u64, at: &Range<usize>) {
    if (1..PAGE_BYTES_MIN).contains(&value) {
        let wrong = Wrong::new(format!("{} is less than a page of memory", Bytes(value)));
        too_little(reader, field, (value, at), (wrong, PAGE_BYTES_MIN));
    }
}

fn too_little(
    reader: &mut Reader<'_>,
    field: &str,
    (value, at): (u64, &Range<usize>),
    (wrong, least): (Wrong, u64),
) {
    let is_bare = reader.source(at).trim_matches('"').trim().bytes().all(|byte| byte.is_ascii_digit());
    let hint = if value > 0 && is_bare {
        format!("a number alone counts bytes; did you mean \"{value}MiB\"?")
    } else {
        format!("the least is {}", Bytes(least))
    };
    reader.fault_in(field, at, wrong.hint(hint));
}

fn memory(
    reader: &mut Reader<'_>,
    raw: RawMemory,
    at: &Range<usize>,
    cgroup: &mut Cgroup,
) -> Option<MemoryPolicy> {
    if raw.max.is_absent() {
        reader.missing("memory.max", at, "write (max: \"32MiB\")");
    }
    let (class, guard) = (raw.class.value_or(Class::Pool), raw.guard.value_or(Guard::Shield));
    let max_bytes = bytes(reader, "memory.max", raw.max);
    let below_max = [
        (Setting::MemoryHigh, "memory.high", raw.high),
        (Setting::MemoryLow, "memory.low", raw.low),
        (Setting::MemoryMin, "memory.min", raw.min),
    ];
    let mut high_bytes = None;
    for (setting, field, slot) in below_max {
        let Some(Item { value: Size(value), at }) = slot.given() else { continue };
        if max_bytes.is_some_and(|max_bytes| value > max_bytes) {
            let wrong = Wrong::new(format!("{} is more than memory.max", Bytes(value)));
            reader.fault_in(field, &at, wrong.hint("what is above memory.max is never reached"));
        }
        if setting == Setting::MemoryHigh && guard != Guard::None {
            let wrong = Wrong::new(
                "above memory.high its tasks sleep and cannot be frozen: neither shield nor canary is of use",
            );
            reader.fault_in(field, &at, wrong.hint("take it out, or use guard: None"));
        }
        if setting == Setting::MemoryHigh {
            high_bytes = runs_in(reader, field, value, &at).then_some(value);
        } else {
            see_to_pages(reader, field, value, &at);
        }
        cgroup.limits.push(Limit { setting, value: Some(value) });
    }
    swap(reader, (raw.swap_max, raw.zswap_max), guard, &mut cgroup.limits);
    let ballast_bytes = ballast(reader, raw.ballast, guard, max_bytes);
    if let Some(Item { value, at }) = raw.oom_group.given() {
        if value && guard != Guard::None {
            let wrong = Wrong::new(match guard {
                Guard::Canary => {
                    "the kernel's OOM killer is to take the ballast of such a unit, and nothing else of it"
                }
                Guard::Shield | Guard::None => {
                    "the kernel's OOM killer takes nothing of a shielded unit, so also not all of it"
                }
            });
            reader.fault_in("memory.oom_group", &at, wrong.hint("take it out, or use guard: None"));
        }
        cgroup.oom_group = Some(value);
    }
    Some(MemoryPolicy { max_bytes: max_bytes?, class, guard, high_bytes, ballast_bytes })
}

/// It lies in the unit's own bound, of which most is to be the service's.
fn ballast(reader: &mut Reader<'_>, slot: Slot<Size>, guard: Guard, max_bytes: Option<u64>) -> Option<u64> {
    let at = slot.place()?;
    if guard != Guard::Canary {
        let wrong = Wrong::new("only a canary has a ballast");
        reader.fault_in("memory.ballast", &at, wrong.hint("add guard: Canary, or take it out"));
    }
    let value = bytes(reader, "memory.ballast", slot)?;
    if max_bytes.is_some_and(|max_bytes| value > max_bytes / 2) {
        let wrong = Wrong::new(format!("{} is more than half of memory.max", Bytes(value)));
        let hint = "the ballast lies in memory.max: lower it, raise memory.max, or leave it to lifeboat";
        reader.fault_in("memory.ballast", &at, wrong.hint(hint));
    }
    Some(value)
}

/// What can be swapped out is reclaimable, also a ballast: a guarded unit would thrash before its `oom` event comes.
fn swap(
    reader: &mut Reader<'_>,
    (swap_max, zswap_max): (Slot<Size>, Slot<Size>),
    guard: Guard,
    limits: &mut Vec<Limit>,
) {
    let mut swap_bytes = 0;
    if let Some(Item { value: Size(value), at }) = swap_max.given() {
        if value > 0 && guard != Guard::None {
            let wrong = Wrong::new("with swap the exhaustion of a guarded unit comes late and slowly");
            reader.fault_in("memory.swap_max", &at, wrong.hint("take it out, or use guard: None"));
        }
        see_to_pages(reader, "memory.swap_max", value, &at);
        swap_bytes = value;
        limits.push(Limit { setting: Setting::MemorySwapMax, value: Some(value) });
    }
    if let Some(Item { value: Size(value), at }) = zswap_max.given() {
        if value > 0 && swap_bytes == 0 {
            let wrong = Wrong::new("without swap there is nothing to keep compressed");
            reader.fault_in("memory.zswap_max", &at, wrong.hint("add swap_max: \"32MiB\", or take it out"));
        }
        see_to_pages(reader, "memory.zswap_max", value, &at);
        limits.push(Limit { setting: Setting::MemoryZswapMax, value: Some(value) });
    }
}

fn cpu(reader: &mut Reader<'_>, slot: Slot<RawCpu>, unit: &mut Unit) {
    let Some(Item { value: raw, at }) = slot.given() else { return };
    let RawCpu { max, period, weight, cpus, mems } = raw;
    if max.is_absent() && !period.is_absent() {
        reader.missing("cpu.max", &at, "write (max: \"50%\", period: \"20ms\")");
    }
    if let Some(period_ms) = time(reader, "cpu.period", period, PERIOD_MS) {
        unit.cgroup.cpu_period_us = period_ms * 1_000;
    }
    if let Some(Item { value: Word(text), at }) = max.given() {
        match share_of_cpu(&text, unit.cgroup.cpu_period_us) {
            Ok(value) => unit.cgroup.limits.push(Limit { setting: Setting::CpuMax, value: Some(value) }),
            Err(wrong) => reader.fault_in("cpu.max", &at, wrong),
        }
    }
    if let Some(weight) = number(reader, "cpu.weight", weight, WEIGHT) {
        unit.cgroup.limits.push(Limit { setting: Setting::CpuWeight, value: Some(weight) });
    }
    unit.cgroup.cpus = list(reader, "cpu.cpus", ("processors", cpus));
    unit.cgroup.mems = list(reader, "cpu.mems", ("memory nodes", mems));
}

/// `"150%"` in hundredths of a percent of one processor.
pub(crate) fn share_of_cpu(text: &str, period_us: u32) -> Result<u64, Wrong> {
    let wrong = || {
        Wrong::new(format!("`{}` is no share of a processor", short(text)))
            .hint("write it as \"50%\" of one processor, or \"150%\" of two")
    };
    let number = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || !are_digits(decimals) || decimals.len() > 2 {
        return Err(wrong());
    }
    let hundredths = format!("{decimals:0<2}").parse::<u64>().map_err(|_| wrong())?;
    let whole = whole.parse::<u64>().ok().filter(|whole| *whole <= 100 * u64::from(CPU_MAX));
    let share = whole.ok_or_else(wrong)? * 100 + hundredths;
    if !has_quota(share, period_us) {
        let wrong = Wrong::new(format!("`{}` is less than 1 ms in each period", short(text)));
        return Err(wrong.hint("the kernel takes no less; raise it, or the period (at most 1 s)"));
    }
    Ok(share)
}

/// Whether the kernel takes such a share of a processor, in hundredths of a percent, in each period
/// (kernel/sched/core.c, `min_cfs_quota_period`).
#[must_use]
pub fn has_quota(share: u64, period_us: u32) -> bool {
    share.saturating_mul(u64::from(period_us)) / 10_000 >= QUOTA_US_MIN
}

/// A limit as `lifeboatctl limit` takes it: `memory.max=16MiB`.
///
/// # Errors
/// What is wrong, with a hint.
pub fn parse_limit(text: &str) -> Result<Limit, String> {
    let told = |wrong: Wrong| match wrong.hint {
        Some(hint) => format!("{}; {hint}", wrong.message),
        None => wrong.message,
    };
    let live = || {
        let names: Vec<&str> = Setting::all().filter(|it| it.is_live()).map(Setting::name).collect();
        format!("limits that can be changed are {}", names.join(", "))
    };
    let (name, value) = text.split_once('=').ok_or_else(|| format!("write NAME=VALUE; {}", live()))?;
    let setting = Setting::of_name(name).filter(|setting| setting.is_live());
    let setting = setting.ok_or_else(|| format!("`{}` cannot be changed; {}", short(name), live()))?;
    let value = match (setting, value) {
        (_, "max") => None,
        (Setting::CpuMax, share) => Some(share_of_cpu(share, 1_000_000).map_err(told)?),
        (_, size) => Some(super::value::size_of(size).map_err(told)?),
    };
    let limit = Limit { setting, value };
    if limit.is_sane() {
        return Ok(limit);
    }
    let cure = match setting {
        Setting::MemoryMax | Setting::MemoryHigh => format!("the least is {}", Bytes(MEMORY_BYTES_MIN)),
        Setting::PidsMax => format!("it goes from 1 to {PIDS_MAX}"),
        _ => format!("it goes from {} to {}", WEIGHT.start(), WEIGHT.end()),
    };
    Err(format!("`{}` is out of range; {cure}", short(text)))
}

/// A list as cpuset(7) has it, such as `0-3,8`.
fn list(reader: &mut Reader<'_>, field: &str, (what, slot): (&str, Slot<String>)) -> Option<String> {
    let Item { value: text, at } = slot.given()?;
    let is_range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        matches!((first.trim().parse::<u32>(), last.trim().parse::<u32>()),
            (Ok(first), Ok(last)) if first <= last && last < CPU_MAX)
    };
    if text.split(',').all(is_range) {
        return Some(text.split_whitespace().collect());
    }
    let wrong = Wrong::new(format!("`{}` is no list of {what}", short(&text)));
    reader.fault_in(field, &at, wrong.hint("write \"0\", \"0-1\" or \"0,2-3\""));
    None
}

fn pids(reader: &mut Reader<'_>, slot: Slot<RawPids>) -> Option<u32> {
    let Item { value: raw, at } = slot.given()?;
    if raw.max.is_absent() {
        reader.missing("pids.max", &at, "write (max: 64)");
    }
    number(reader, "pids.max", raw.max, 1..=PIDS_MAX).and_then(|max| max.try_into().ok())
}

fn io(reader: &mut Reader<'_>, slot: Slot<RawIo>, unit: &mut Unit) {
    let Some(Item { value: raw, .. }) = slot.given() else { return };
    if let Some(weight) = number(reader, "io.weight", raw.weight, WEIGHT) {
        unit.cgroup.limits.push(Limit { setting: Setting::IoWeight, value: Some(weight) });
    }
    let devices: Map<RawDevice> = raw.max.given().map(|item| item.value).unwrap_or_default();
    for (path, Item { value: device, at }) in devices {
        if !path.value.starts_with("/dev/") {
            let wrong = Wrong::new(format!("`{}` is no disk", short(&path.value)));
            reader.fault_in("io.max", &path.at, wrong.hint("write the device of a whole disk: \"/dev/sda\""));
        }
        let max = device_max(reader, device, &at);
        unit.cgroup.devices.push(DeviceMax { path: path.value.into(), max });
    }
}

fn device_max(reader: &mut Reader<'_>, raw: RawDevice, at: &Range<usize>) -> [Option<u64>; 4] {
    let mut rate = |field: &str, slot: Slot<Size>| {
        let Item { value: Size(value), at } = slot.given()?;
        if value == 0 {
            let wrong = Wrong::new("at 0 bytes a second nothing is ever read or written");
            reader.fault_in(field, &at, wrong.hint("write \"1MiB\", or take it out"));
        }
        Some(value)
    };
    let (rbps, wbps) = (rate("io.max.rbps", raw.rbps), rate("io.max.wbps", raw.wbps));
    let riops = number(reader, "io.max.riops", raw.riops, 1..=u64::from(u32::MAX));
    let wiops = number(reader, "io.max.wiops", raw.wiops, 1..=u64::from(u32::MAX));
    let max = [rbps, wbps, riops, wiops];
    if max == [None; 4] {
        reader.fault_in("io.max", at, Wrong::new("there is no limit here").hint("write (wbps: \"1MiB\")"));
    }
    max
}
