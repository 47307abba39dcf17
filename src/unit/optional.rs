//! The field `optional`: what the unit may do without where the kernel does not take it.

use super::diagnostic::{Wrong, did_you_mean, short};
use super::raw::RawUnit;
use super::reader::{Item, Reader, Slot};
use crate::engine::setting::{Setting, Settings};

/// Reads `optional`, before the fields that it names are taken out. A name in it is one of a setting that the file has.
pub(super) fn read(reader: &mut Reader<'_>, raw: &mut RawUnit) -> Settings {
    let mut settings = Settings::default();
    let given = given(raw);
    for Item { value: name, at } in raw.optional.take().given().map(|list| list.value).unwrap_or_default() {
        let wrong = match Setting::of_name(&name) {
            None => {
                let names = &mut Setting::all().filter(|it| it.may_be_optional()).map(Setting::name);
                let hint = did_you_mean(&name, names)
                    .unwrap_or_else(|| "they are written as \"nice\" or \"cpu.max\"".to_owned());
                Wrong::new(format!("there is no setting `{}` that may be optional", short(&name))).hint(hint)
            }
            Some(setting) if !setting.may_be_optional() => Wrong::new(format!("`{name}` is never optional"))
                .hint("take it out of the list; a kernel that does not have it makes lifeboat DEGRADED"),
            Some(setting) if !given.contains(setting) => {
                Wrong::new(format!("the file has no `{name}`")).hint("take it out of the list")
            }
            Some(setting) => {
                settings.add(setting);
                continue;
            }
        };
        reader.fault_in("optional", &at, wrong);
    }
    settings
}

/// The settings that the file has.
fn given(raw: &RawUnit) -> Settings {
    let mut given = Settings::default();
    let mut note = |setting, is_absent: bool| {
        if !is_absent {
            given.add(setting);
        }
    };
    if let Slot::Given(Item { value: memory, .. }) = &raw.memory {
        note(Setting::MemoryHigh, memory.high.is_absent());
        note(Setting::MemoryLow, memory.low.is_absent());
        note(Setting::MemoryMin, memory.min.is_absent());
        note(Setting::MemorySwapMax, memory.swap_max.is_absent());
        note(Setting::MemoryZswapMax, memory.zswap_max.is_absent());
    }
    if let Slot::Given(Item { value: cpu, .. }) = &raw.cpu {
        note(Setting::CpuMax, cpu.max.is_absent());
        note(Setting::CpuWeight, cpu.weight.is_absent());
        note(Setting::CpuCpus, cpu.cpus.is_absent());
        note(Setting::CpuMems, cpu.mems.is_absent());
    }
    if let Slot::Given(Item { value: io, .. }) = &raw.io {
        note(Setting::IoMax, io.max.is_absent());
        note(Setting::IoWeight, io.weight.is_absent());
    }
    note(Setting::Delegate, raw.delegate.is_absent());
    note(Setting::Nice, raw.nice.is_absent());
    note(Setting::Scheduler, raw.scheduler.is_absent());
    note(Setting::Cpus, raw.cpus.is_absent());
    note(Setting::IoPriority, raw.io_priority.is_absent());
    note(Setting::Rlimits, raw.rlimits.is_absent());
    note(Setting::PrivateMounts, raw.private_mounts.is_absent());
    note(Setting::PrivateTmp, raw.private_tmp.is_absent());
    note(Setting::PrivateShm, raw.private_shm.is_absent());
    note(Setting::ReadOnly, raw.read_only.is_absent());
    note(Setting::Hidden, raw.hidden.is_absent());
    given
}
