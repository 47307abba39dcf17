//! What this kernel can do for lifeboat, found before anything starts.

use super::file::{make_folder, read_value};
use super::limits::Controllers;
use crate::sys::error::SysError;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// The magic number of cgroup2 in statfs(2).
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// A real cgroup2 is mounted at this path.
#[must_use]
pub fn is_cgroup2(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(CGROUP2_MAGIC))
}

/// The same of an open folder.
pub(super) fn is_cgroup2_folder(folder: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(folder).is_ok_and(|found| u64::try_from(found.f_type) == Ok(CGROUP2_MAGIC))
}

/// What there is. The default is nothing at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// A cgroup2 that can be written to.
    pub cgroup2: bool,
    /// The controllers that may be used below the root.
    pub controllers: Controllers,
    /// `memory.pressure`.
    pub psi: bool,
    /// `cgroup.kill` (Linux 5.14).
    pub kill: bool,
    /// `cgroup.freeze` (Linux 5.2).
    pub freeze: bool,
}

/// One thing that is missing: what, what it means, and the cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What is not there.
    pub what: &'static str,
    /// What lifeboat cannot do for want of it.
    pub means: &'static str,
    /// What to change in the kernel's configuration or on its command line.
    pub cure: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.means, self.cure)
    }
}

impl Capabilities {
    /// Looks at `root`, the folder under which the tree is to stand. Where it is no cgroup2, there is nothing.
    pub fn find(root: &Path) -> Result<Self, SysError> {
        if is_cgroup2(root) { Self::in_folder(root) } else { Ok(Self::default()) }
    }

    /// The same for any folder with cgroup2's files in it.
    ///
    /// Makes the branch `shutdown`, because the root group itself lacks the files in question.
    pub fn in_folder(root: &Path) -> Result<Self, SysError> {
        let branch = root.join(super::tree::SHUTDOWN);
        make_folder(&branch)?;
        let text = read_value(&root.join("cgroup.controllers"))?.unwrap_or_default();
        let has = |name: &[u8]| text.split(u8::is_ascii_whitespace).any(|word| word == name);
        Ok(Self {
            cgroup2: true,
            controllers: Controllers { memory: has(b"memory"), pids: has(b"pids") },
            // With psi=0 some kernels show the file and answer EOPNOTSUPP.
            psi: read_value(&branch.join("memory.pressure")).is_ok_and(|text| text.is_some()),
            kill: branch.join("cgroup.kill").exists(),
            freeze: branch.join("cgroup.freeze").exists(),
        })
    }

    /// Everything that is missing, the gravest first. Empty means that lifeboat can keep all of its promises.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        if !self.cgroup2 {
            return vec![NO_CGROUP2];
        }
        [
            (self.controllers.memory, NO_MEMORY),
            (self.freeze, NO_FREEZE),
            (self.kill, NO_KILL),
            (self.controllers.pids, NO_PIDS),
            (self.psi, NO_PSI),
        ]
        .into_iter()
        .filter_map(|(there, missing)| (!there).then_some(missing))
        .collect()
    }
}

const NO_CGROUP2: Missing = Missing {
    what: "cgroup v2 is not available",
    means: "services run without limits, and nothing can be frozen, rescued or killed as a whole",
    cure: "build the kernel with CONFIG_CGROUPS=y and boot with cgroup_no_v1=all; below another init, mount cgroup2 at \
           /sys/fs/cgroup",
};

const NO_MEMORY: Missing = Missing {
    what: "the memory controller of cgroup v2 is not available",
    means: "memory limits are not in force, and no exhaustion is noticed before the kernel kills",
    cure: "build with CONFIG_MEMCG=y and take cgroup_disable=memory off the kernel command line (Raspberry Pi: add \
           cgroup_enable=memory); where cgroup v1 holds it, boot with cgroup_no_v1=memory; below another init, have \
           the controller delegated (systemd: Delegate=yes)",
};

const NO_PIDS: Missing = Missing {
    what: "the pids controller of cgroup v2 is not available",
    means: "a service that forks without end is not stopped by pids.max",
    cure: "build with CONFIG_CGROUP_PIDS=y and take cgroup_disable=pids off the kernel command line",
};

const NO_PSI: Missing = Missing {
    what: "pressure stall information (PSI) is not available",
    means: "memory pressure is neither shown nor a warning; exhaustion itself is still noticed",
    cure: "build with CONFIG_PSI=y, and boot with psi=1 where CONFIG_PSI_DEFAULT_DISABLED=y",
};

const NO_KILL: Missing = Missing {
    what: "cgroup.kill is not available",
    means: "processes are killed one by one, and those in a service's own sub-groups are missed",
    cure: "use Linux 5.14 or later",
};

const NO_FREEZE: Missing = Missing {
    what: "cgroup.freeze is not available",
    means: "a service cannot be held still while its shutdown procedure runs",
    cure: "use Linux 5.2 or later",
};
