//! The table of guests: each group of cases is one boot.
//!
//! A guest learns its group from `vm.group=NAME` on the kernel's command line. In most groups the driver (the
//! example `vm-guest`, started by the unit `driver`) runs the cases and reports them; the others are judged by their
//! console and by how they end.

use crate::image::Image;
use crate::qemu::{End, Source};
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

/// What a group must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A whole report, and then the power switched off.
    Report,
    /// These texts on the console, in any order, and this end.
    Console(&'static [&'static str], End),
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
    /// The time that the whole boot may take, in seconds.
    pub deadline_s: u64,
    /// What it must show.
    pub expect: Expect,
}

/// A group of ordinary cases; the others say how they differ.
const CASES: Group = Group {
    name: "main",
    when: When::EveryKernel,
    image: Image::Test,
    cmdline: "",
    ram_mib: 512,
    deadline_s: 300,
    expect: Expect::Report,
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

/// All groups, in the order in which they run.
pub const GROUPS: [Group; 10] = [
    CASES,
    Group { name: "no-memory", cmdline: "cgroup_disable=memory", ..CASES },
    Group { name: "no-psi", cmdline: "psi=0", ..CASES },
    ending("poweroff", &["reboot: Power down"], End::PoweredOff),
    ending("reboot", &["reboot: Restarting system"], End::Rebooted),
    ending("halt", &["reboot: System halted"], End::Halted),
    BOOT50,
    Group {
        name: "boot50-busybox",
        when: When::Named,
        image: Image::Boot50Busybox,
        cmdline: "rdinit=/usr/bin/vm-guest vm.init=/sbin/init",
        ..BOOT50
    },
    Group { name: "latency", when: When::NewestKernel, deadline_s: 300, ..CASES },
    Group { name: "loss", when: When::NewestKernel, deadline_s: 600, ..CASES },
];

/// A group in which the driver runs BusyBox's program of that name, and nothing else.
const fn ending(name: &'static str, shows: &'static [&'static str], end: End) -> Group {
    Group { name, expect: Expect::Console(shows, end), deadline_s: 120, ..CASES }
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

    /// Where and by which text PID 1 shows that it is up.
    #[must_use]
    pub fn marker(&self) -> (Source, &'static str) {
        match self.image {
            Image::Demo | Image::Test | Image::Boot50Lifeboat => (Source::Console, "lifeboat 0."),
            Image::Boot50Busybox => (Source::Report, "stamp exec"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{GROUPS, Group};

    #[test]
    fn each_name_finds_its_own_group() {
        for group in GROUPS {
            assert_eq!(
                Group::find(group.name).map(|found| found.expect),
                Some(group.expect),
                "{}",
                group.name
            );
            assert_eq!(GROUPS.iter().filter(|other| other.name == group.name).count(), 1, "{}", group.name);
        }
    }
}
