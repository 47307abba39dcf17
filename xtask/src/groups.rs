//! The table of guests: each group of cases is one boot.
//!
//! A guest learns its group from `vm.group=NAME` on the kernel's command line. The driver (the example `vm-guest`,
//! started by the unit `driver`) runs the cases, reports them, and ends the machine; how it ended is judged here.

use crate::image::Image;
use crate::qemu::{End, Source, Threads};
use crate::setup::Kernel;

/// When a group runs unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// In every test run, on both kernels.
    EveryKernel,
    /// In every test run, on the newer kernel: figures, or a long run.
    NewestKernel,
    /// Only when it is named: a part of a comparison.
    Named,
}

/// One boot: its conditions and what it must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// The name, for `--group` and `vm.group=`.
    pub name: &'static str,
    /// When it runs unasked.
    pub when: When,
    /// What it boots.
    pub image: Image,
    /// What is added to the kernel's command line.
    pub cmdline: &'static str,
    /// The guest's memory in MiB.
    pub ram_mib: u32,
    /// How its processors are emulated.
    pub threads: Threads,
    /// The time that the whole boot may take, in seconds.
    pub deadline_s: u64,
    /// Where and by which text PID 1 shows that it is up.
    pub marker: (Source, &'static str),
    /// The size in MiB of an empty disk that it gets, which must hold a clean file system with the guest's last words
    /// afterwards.
    pub disk_mib: Option<u32>,
    /// The group that is booted after it with the same disk.
    pub then: Option<&'static str>,
    /// Texts that its console must show, in this order.
    pub shows: &'static [&'static str],
    /// How it must end, after a whole report.
    pub end: End,
}

/// Enough for a file system with a file that is larger than some units' memory.
const DISK_MIB: Option<u32> = Some(64);

/// A group of ordinary cases; the others say how they differ.
const CASES: Group = Group {
    name: "main",
    when: When::EveryKernel,
    image: Image::Test,
    cmdline: "",
    ram_mib: 1312,
    threads: Threads::Single,
    deadline_s: 1_800,
    marker: (Source::Console, "lifeboat 0."),
    disk_mib: None,
    then: None,
    shows: &[],
    end: End::PoweredOff,
};

/// PID 1 is the driver's stamp, which notes the time and executes the real one.
const BOOT50: Group = Group {
    name: "boot50",
    when: When::NewestKernel,
    image: Image::Boot50Lifeboat,
    cmdline: "rdinit=/usr/bin/vm-guest vm.init=/sbin/lifeboat",
    deadline_s: 180,
    ..CASES
};

/// Said by the driver's stamp, where PID 1 is not lifeboat.
const STAMP: (Source, &str) = (Source::Report, "stamp exec");

/// All groups, in the order in which they run.
pub const GROUPS: [Group; 37] = [
    // Of words that nobody knows the kernel makes arguments of PID 1.
    Group { cmdline: "nobody-knows-this-word", ..CASES },
    Group { name: "changes", when: When::NewestKernel, deadline_s: 3_000, ..CASES },
    Group { name: "no-memory", cmdline: "cgroup_disable=memory", deadline_s: 300, ..CASES },
    Group { name: "no-psi", cmdline: "psi=0", deadline_s: 300, ..CASES },
    Group {
        name: "no-cgroup2",
        cmdline: "rdinit=/usr/bin/vm-guest vm.init=/sbin/lifeboat vm.mask=/sys/fs/cgroup",
        deadline_s: 300,
        shows: &["DEGRADED: cgroup v2 is not available", "going down: power off"],
        ..CASES
    },
    Group {
        name: "target",
        when: When::NewestKernel,
        cmdline: "lifeboat.target=graph-boot",
        deadline_s: 120,
        ..CASES
    },
    Group {
        name: "no-target",
        when: When::NewestKernel,
        cmdline: "lifeboat.target=no-such-target",
        deadline_s: 120,
        ..CASES
    },
    Group { name: "squeezed", deadline_s: 300, ..CASES },
    Group { name: "small", image: Image::Small, ram_mib: SMALL_MIB, deadline_s: 300, ..CASES },
    Group {
        name: "panic",
        cmdline: "rdinit=/usr/bin/vm-guest vm.init=panic",
        deadline_s: 60,
        marker: STAMP,
        // Once from the kernel log and once from the console.
        shows: &["panic at ", ": last words for the vm tests", "reboot: Restarting system"],
        end: End::Rebooted,
        ..CASES
    },
    ending("poweroff", &POWERS_OFF, End::PoweredOff),
    ending("reboot", &REBOOTS, End::Rebooted),
    ending("halt", &HALTS, End::Halted),
    ending("signal-int", &REBOOTS, End::Rebooted),
    asked("signal-37", &HALTS, End::Halted),
    asked("signal-38", &["going down: power off", "reboot: Power down"], End::PoweredOff),
    asked("signal-39", &REBOOTS, End::Rebooted),
    asked("ctl-halt", &HALTS, End::Halted),
    asked("telinit", &REBOOTS, End::Rebooted),
    asked("limit-poweroff", &LIMIT_POWERS_OFF, End::PoweredOff),
    asked("then-reboot", &THEN_REBOOTS, End::Rebooted),
    asked("rescue", &RESCUES, End::PoweredOff),
    Group { name: "disk", deadline_s: 400, disk_mib: Some(192), ..CASES },
    Group { name: "incidents", deadline_s: 240, disk_mib: DISK_MIB, then: Some("incidents-again"), ..CASES },
    Group {
        name: "incidents-again",
        when: When::Named,
        deadline_s: 180,
        disk_mib: DISK_MIB,
        then: Some("incidents-last"),
        ..CASES
    },
    Group { name: "incidents-last", when: When::Named, deadline_s: 60, disk_mib: DISK_MIB, ..CASES },
    // What other people's programs do is no matter of the kernel's version.
    Group { name: "real", when: When::NewestKernel, image: Image::Real, disk_mib: DISK_MIB, ..CASES },
    BOOT50,
    Group {
        name: "boot50-busybox",
        when: When::Named,
        image: Image::Boot50Busybox,
        cmdline: "rdinit=/usr/bin/vm-guest vm.init=/sbin/init",
        marker: STAMP,
        ..BOOT50
    },
    Group { name: "restart", when: When::Named, image: Image::Restart, ram_mib: 1280, ..CASES },
    Group {
        name: "units1000",
        when: When::NewestKernel,
        image: Image::Units1000,
        cmdline: "rdinit=/usr/bin/vm-guest vm.init=/sbin/lifeboat",
        ram_mib: 2048,
        ..CASES
    },
    Group { name: "latency", when: When::NewestKernel, ..CASES },
    Group { name: "loss", when: When::NewestKernel, deadline_s: 1800, ..CASES },
    Group { name: "exhaustions", when: When::Named, image: Image::Bench, deadline_s: 3_600, ..CASES },
    Group { name: "guards", when: When::Named, image: Image::Bench, deadline_s: 3_600, ..CASES },
    Group { name: "cache", when: When::Named, image: Image::Bench, disk_mib: Some(640), ..CASES },
    // A procedure of some milliseconds is compared with itself: what lifeboat does meanwhile on the other processor
    // is not to count as the procedure's time, which is what processors in turns would do.
    Group {
        name: "paper",
        when: When::Named,
        image: Image::Bench,
        threads: Threads::Multi,
        deadline_s: 1800,
        ..CASES
    },
];

/// What is above goes down before what is below, each unit by its own way, and then the machine.
const POWERS_OFF: [&str; 5] =
    ["going down: power off", "above: STOPPED", "below: STOPPED", "all units are down", "reboot: Power down"];

const REBOOTS: [&str; 3] =
    ["going down: reboot", "saves-on-stop: procedure ended with exit code 0", "reboot: Restarting system"];
const HALTS: [&str; 3] = ["going down: halt", "ignores-term: killing what is left", "reboot: System halted"];

const LIMIT_POWERS_OFF: [&str; 4] = [
    "limit-powers-off: calls for a power off",
    "going down: power off",
    "above: STOPPED",
    "reboot: Power down",
];

const THEN_REBOOTS: [&str; 5] = [
    "saves-and-reboots: procedure ended with exit code 0",
    "saves-and-reboots: calls for a reboot",
    "going down: reboot",
    "above: STOPPED",
    "reboot: Restarting system",
];

/// The last words are those of the image's sulogin.
const RESCUES: [&str; 6] = [
    "calls-the-rescue: calls for the rescue",
    "above: STOPPED",
    "rescue: everything else is down, the rescue begins",
    "This is the rescue",
    "sulogin on /dev/ttyS0 beside units that run: 1",
    "reboot: Power down",
];

/// The least memory in which both kernels unpack the small image: these kernels take half of it for themselves, so
/// `MemTotal` is below 45 MiB.
const SMALL_MIB: u32 = 82;

/// A group in which the driver asks for the end: by BusyBox's program of that name, by `lifeboatctl`, by a signal.
const fn ending(name: &'static str, shows: &'static [&'static str], end: End) -> Group {
    Group { name, shows, end, deadline_s: 180, ..CASES }
}

/// The same on the newer kernel only: the kernel has no part in how the end is asked for.
const fn asked(name: &'static str, shows: &'static [&'static str], end: End) -> Group {
    Group { when: When::NewestKernel, ..ending(name, shows, end) }
}

impl Group {
    /// The group of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        GROUPS.iter().find(|group| group.name == name)
    }

    /// Whether this group runs unasked on this kernel.
    #[must_use]
    pub fn runs_on(&self, kernel: Kernel) -> bool {
        match self.when {
            When::EveryKernel => true,
            When::NewestKernel => kernel == Kernel::V6_12,
            When::Named => false,
        }
    }

    /// Whether it starts the trivial services, all of which must say so.
    #[must_use]
    pub fn counts_starts(&self) -> bool {
        matches!(self.image, Image::Boot50Lifeboat | Image::Boot50Busybox)
    }
}

#[cfg(test)]
mod tests {
    use super::{GROUPS, Group};

    #[test]
    fn each_name_finds_its_own_group() {
        for group in GROUPS {
            assert_eq!(Group::find(group.name), Some(&group), "{}", group.name);
            assert_eq!(GROUPS.iter().filter(|other| other.name == group.name).count(), 1, "{}", group.name);
        }
    }
}
