//! The settings of a unit that a kernel may not take, by their names in unit files.

use serde::{Deserialize, Serialize};

/// A setting of a unit's cgroup or of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Setting {
    /// `memory.max` of the cgroup.
    MemoryMax,
    /// `memory.high`.
    MemoryHigh,
    /// `memory.low`.
    MemoryLow,
    /// `memory.min`.
    MemoryMin,
    /// `memory.swap.max`.
    MemorySwapMax,
    /// `memory.zswap.max`.
    MemoryZswapMax,
    /// `memory.oom.group`.
    MemoryOomGroup,
    /// `cpu.max`.
    CpuMax,
    /// `cpu.weight`.
    CpuWeight,
    /// `cpuset.cpus`.
    CpuCpus,
    /// `cpuset.mems`.
    CpuMems,
    /// `pids.max`.
    PidsMax,
    /// `io.max`.
    IoMax,
    /// `io.weight`.
    IoWeight,
    /// The cgroup is handed over to the unit's user.
    Delegate,
    /// setpriority(2).
    Nice,
    /// sched_setscheduler(2).
    Scheduler,
    /// sched_setaffinity(2).
    Cpus,
    /// ioprio_set(2).
    IoPriority,
    /// setrlimit(2).
    Rlimits,
    /// unshare(2), `CLONE_NEWNS`.
    PrivateMounts,
    /// A tmpfs on `/tmp`.
    PrivateTmp,
    /// A tmpfs on `/dev/shm`.
    PrivateShm,
    /// mount_setattr(2).
    ReadOnly,
    /// mount(2).
    Hidden,
}

/// Every setting with its name, in the order of their numbers.
const NAMES: [(Setting, &str); Setting::COUNT] = [
    (Setting::MemoryMax, "memory.max"),
    (Setting::MemoryHigh, "memory.high"),
    (Setting::MemoryLow, "memory.low"),
    (Setting::MemoryMin, "memory.min"),
    (Setting::MemorySwapMax, "memory.swap_max"),
    (Setting::MemoryZswapMax, "memory.zswap_max"),
    (Setting::MemoryOomGroup, "memory.oom_group"),
    (Setting::CpuMax, "cpu.max"),
    (Setting::CpuWeight, "cpu.weight"),
    (Setting::CpuCpus, "cpu.cpus"),
    (Setting::CpuMems, "cpu.mems"),
    (Setting::PidsMax, "pids.max"),
    (Setting::IoMax, "io.max"),
    (Setting::IoWeight, "io.weight"),
    (Setting::Delegate, "delegate"),
    (Setting::Nice, "nice"),
    (Setting::Scheduler, "scheduler"),
    (Setting::Cpus, "cpus"),
    (Setting::IoPriority, "io_priority"),
    (Setting::Rlimits, "rlimits"),
    (Setting::PrivateMounts, "private_mounts"),
    (Setting::PrivateTmp, "private_tmp"),
    (Setting::PrivateShm, "private_shm"),
    (Setting::ReadOnly, "read_only"),
    (Setting::Hidden, "hidden"),
];

impl Setting {
    /// How many there are.
    pub const COUNT: usize = 25;

    /// All of them, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(setting, _)| *setting)
    }

    /// Its name in a unit file.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.get(self as usize).map_or("", |(_, name)| name)
    }

    /// The setting of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(setting, _)| *setting)
    }

    /// The setting of this number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        NAMES.get(usize::from(number)).map(|(setting, _)| *setting)
    }

    /// Whether a unit may do without it, where it says so. The others every kernel takes on which lifeboat is not
    /// DEGRADED, and the budget rests on `memory.max`.
    #[must_use]
    pub fn may_be_optional(self) -> bool {
        !matches!(self, Self::MemoryMax | Self::MemoryOomGroup | Self::PidsMax)
    }

    /// Whether it can be changed while the unit runs.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(
            self,
            Self::MemoryMax
                | Self::MemoryHigh
                | Self::CpuMax
                | Self::CpuWeight
                | Self::PidsMax
                | Self::IoWeight
        )
    }
}

/// A set of settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings(u32);

impl Settings {
    /// Takes one in.
    pub fn add(&mut self, setting: Setting) {
        self.0 |= 1 << (setting as u8);
    }

    /// Whether it is in.
    #[must_use]
    pub fn contains(self, setting: Setting) -> bool {
        self.0 >> (setting as u8) & 1 == 1
    }
}

/// One limit that is a number: bytes, a count, a weight, 0 or 1, and for `cpu.max` hundredths of a percent of one
/// processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Which.
    pub setting: Setting,
    /// Its value; `None` is `max`, no limit.
    pub value: Option<u64>,
}

impl Limit {
    /// Whether the kernel could take it: the bounds of the fields in unit files.
    #[must_use]
    pub fn is_sane(self) -> bool {
        match (self.setting, self.value) {
            (Setting::MemoryMax | Setting::MemoryHigh, Some(bytes)) => bytes >= 64 << 10,
            (Setting::CpuWeight | Setting::IoWeight, value) => {
                value.is_some_and(|weight| (1..=10_000).contains(&weight))
            }
            (Setting::PidsMax, Some(max)) => (1..=4_194_304).contains(&max),
            (Setting::CpuMax, Some(share)) => (1..=10_240_000).contains(&share),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_belong_together() {
        let mut set = Settings::default();
        for (at, (setting, name)) in NAMES.into_iter().enumerate() {
            assert_eq!(setting as usize, at, "{name}");
            assert_eq!(Setting::of_name(name), Some(setting));
            assert_eq!(u8::try_from(at).ok().and_then(Setting::of_number), Some(setting));
            assert_eq!(setting.name(), name);
            assert!(!set.contains(setting));
            set.add(setting);
            assert!(set.contains(setting));
        }
        assert_eq!(Setting::of_number(25), None);
        assert_eq!(Setting::of_name("max"), None);
    }
}
