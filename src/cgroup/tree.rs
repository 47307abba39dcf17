//! The tree: three branches, and a group in one of them for each unit.
//!
//! ```text
//! ROOT/supervisor/         lifeboat itself, where the root is not the machine's real root group
//! ROOT/shutdown/NAME/      shutdown procedures; memory.max = reserve + writeback + overhead
//! ROOT/guaranteed/NAME/    units whose memory is counted in full; each has its own bound
//! ROOT/pool/NAME/          the rest; memory.max = what is left + overhead
//! ROOT/pool/+NAME/         the commands beside a unit's service, also of one in guaranteed/
//! ```

use super::capabilities::Capabilities;
use super::file::{make_folder, read_again, read_value, write_again, write_value};
use super::group::Group;
use super::limits::{self, Controllers, GroupLimits};
use super::parse;
use super::settings::{GroupSettings, Refused, controller_of, is_of_memory, set_limit};
use crate::engine::event::SpawnStage;
use crate::engine::policy::Class;
use crate::engine::setting::{Limit, Setting};
use crate::engine::snapshot::BudgetView;
use crate::sys::error::SysError;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The branch of the shutdown slice.
pub(super) const SHUTDOWN: &str = "shutdown";
pub(super) const GUARANTEED: &str = "guaranteed";
pub(super) const POOL: &str = "pool";
const SUPERVISOR: &str = "supervisor";

/// A service may make groups in its own; PID 1's stack does not follow it for ever.
const DEPTH_MAX: u8 = 16;

/// How far above its use a branch's bound stays when it is lowered: what a few processes may charge meanwhile.
const BRANCH_SLACK_BYTES: u64 = 1 << 20;

/// The prepared tree.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    controllers: Controllers,
    /// `memory.max` of the pool; `None` without the memory controller.
    pool_max: Option<OwnedFd>,
    /// `memory.current` of the pool.
    pool_current: Option<OwnedFd>,
    /// The pool's bound without what is lent.
    pool_bytes: Cell<u64>,
    /// By so much the pool's bound is larger at present than its budget.
    lent_bytes: Cell<u64>,
    /// The further controllers that the branches have: guaranteed/ and pool/.
    enabled: [RefCell<Vec<&'static str>>; 2],
}

/// What the units of a branch may have together, so that what each has counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The sum of their `memory.min`.
    pub min_bytes: u64,
    /// The sum of their `memory.low`.
    pub low_bytes: u64,
    /// The sum of their `memory.swap.max`.
    pub swap_max_bytes: u64,
}

/// A group that could not be made ready: at which stage, and why in `source()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupError {
    /// [`SpawnStage::Cgroup`] or [`SpawnStage::Limit`].
    pub stage: SpawnStage,
    cause: SysError,
}

impl GroupError {
    /// errno(3) of the cause.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.cause.errno()
    }

    fn cgroup(cause: SysError) -> Self {
        Self { stage: SpawnStage::Cgroup, cause }
    }

    fn limit(cause: SysError) -> Self {
        Self { stage: SpawnStage::Limit, cause }
    }
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.stage == SpawnStage::Limit { "set its limits" } else { "make its cgroup" })
    }
}

impl std::error::Error for GroupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl Tree {
    /// Makes the branches under `root`, hands them the controllers, and sets their `memory.max` from the budget.
    ///
    /// Where lifeboat itself is in `root`, and this is not the real root group, it first moves into `supervisor/`,
    /// because a group that has processes cannot hand down controllers. `EBUSY` means that it still has others: start
    /// lifeboat in a group of its own.
    pub fn prepare(root: &Path, budget: &BudgetView, capabilities: &Capabilities) -> Result<Self, SysError> {
        let controllers = capabilities.controllers;
        // Only the real root group has no type.
        if root.join("cgroup.type").exists() && is_in(root)? {
            let supervisor = root.join(SUPERVISOR);
            make_folder(&supervisor)?;
            write_value(&supervisor.join("cgroup.procs"), "0")?;
        }
        hand_down(root, controllers)?;
        // No bound on guaranteed/: each of its units has its own. With their sum as a bound the branch would be the
        // first to be exhausted, because the kernel charges the structures of its groups to it.
        let branches = [
            (SHUTDOWN, Some(budget.shutdown_bytes())),
            (GUARANTEED, None),
            (POOL, Some(budget.pool_bytes.saturating_add(budget.overhead_bytes))),
        ];
        for (name, memory_max_bytes) in branches {
            let branch = root.join(name);
            make_folder(&branch)?;
            hand_down(&branch, controllers)?;
            let limits = GroupLimits { memory_max_bytes, ..GroupLimits::default() };
            limits::apply(&branch, &limits, controllers, false)?;
            if controllers.memory {
                limits::forbid_swap(&branch)?;
            }
        }
        let of_pool = |name, flags| {
            let path = root.join(POOL).join(name);
            match open(&path, flags | OFlag::O_CLOEXEC, Mode::empty()) {
                Ok(file) => Ok(Some(file)),
                Err(Errno::ENOENT) => Ok(None),
                Err(errno) => Err(SysError::new("open", path.display().to_string(), errno)),
            }
        };
        Ok(Self {
            root: root.to_path_buf(),
            controllers,
            pool_max: of_pool("memory.max", OFlag::O_RDWR)?,
            pool_current: of_pool("memory.current", OFlag::O_RDONLY)?,
            pool_bytes: Cell::new(budget.pool_bytes.saturating_add(budget.overhead_bytes)),
            lent_bytes: Cell::new(0),
            enabled: Default::default(),
        })
    }

    /// Whether a folder is lifeboat's own, or of one of its units.
    #[must_use]
    pub fn holds(&self, folder: &Path) -> bool {
        [SUPERVISOR, SHUTDOWN, GUARANTEED, POOL].iter().any(|name| folder.starts_with(self.root.join(name)))
    }

    /// Gives the branches the bounds of another budget. Below what a branch uses its bound is not lowered, since the
    /// kernel would kill at once (`memory_max_write`, mm/memcontrol.c): it stays that high, and `false` is the answer.
    pub fn rebound(&self, budget: &BudgetView) -> Result<bool, SysError> {
        if !self.controllers.memory {
            return Ok(true);
        }
        let mut all = true;
        let pool_bytes = budget.pool_bytes.saturating_add(budget.overhead_bytes);
        self.pool_bytes.set(pool_bytes);
        let pool_bytes = pool_bytes.saturating_add(self.lent_bytes.get());
        for (name, wanted) in [(SHUTDOWN, budget.shutdown_bytes()), (POOL, pool_bytes)] {
            let least = self.branch_bytes(name)?.saturating_add(BRANCH_SLACK_BYTES);
            all &= least <= wanted;
            let limits = GroupLimits { memory_max_bytes: Some(wanted.max(least)), ..GroupLimits::default() };
            limits::apply(&self.root.join(name), &limits, self.controllers, false)?;
        }
        Ok(all)
    }

    /// Makes the pool's bound larger by what one of its units is lent, or smaller again; allocates nothing. Where
    /// others have grown into the loan the bound stays above what is used: below that the kernel would kill in this
    /// write.
    pub fn lend_to_pool(&self, bytes: u64, back: bool) -> Result<(), i32> {
        let Some(file) = &self.pool_max else { return Ok(()) };
        let lent_bytes = self.lent_bytes.get();
        let sum_bytes =
            if back { lent_bytes.saturating_sub(bytes) } else { lent_bytes.saturating_add(bytes) };
        let mut text = [0; 32];
        let max_bytes = str::from_utf8(read_again(file.as_fd(), &mut text)?).ok();
        // An unbounded pool has room as it is.
        let Some(max_bytes) = max_bytes.and_then(|text| text.trim().parse::<u64>().ok()) else {
            self.lent_bytes.set(sum_bytes);
            return Ok(());
        };
        let mut number = [0; 32];
        let used = self.pool_current.as_ref().map(|file| read_again(file.as_fd(), &mut number));
        let used_bytes = used.transpose()?.and_then(|text| parse::number(text).ok()).unwrap_or(0);
        let least = used_bytes.saturating_add(BRANCH_SLACK_BYTES).min(max_bytes);
        let wanted = self.pool_bytes.get().saturating_add(sum_bytes).max(least);
        let mut text = [0_u8; 20];
        let mut rest = &mut text[..];
        std::io::Write::write_fmt(&mut rest, format_args!("{wanted}")).map_err(|_| libc::EINVAL)?;
        let left = rest.len();
        write_again(file.as_fd(), text.get(..text.len() - left).ok_or(libc::EINVAL)?)?;
        self.lent_bytes.set(sum_bytes);
        Ok(())
    }

    /// What the pool uses (`memory.current`).
    pub fn pool_used_bytes(&self) -> Result<u64, SysError> {
        if self.controllers.memory { self.branch_bytes(POOL) } else { Ok(0) }
    }

    fn branch_bytes(&self, name: &str) -> Result<u64, SysError> {
        let path = self.root.join(name).join("memory.current");
        let text = read_value(&path)?.unwrap_or_default();
        let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        number.ok_or_else(|| SysError::new("read", path.display().to_string(), libc::EBADMSG))
    }

    /// The group of a service or task, ready for its first run.
    ///
    /// Where a controller is missing its limits are left out; [`Group::is_bounded`] tells.
    pub fn service(&self, name: &str, class: Class, limits: &GroupLimits) -> Result<Group, GroupError> {
        let branch = match class {
            Class::Guaranteed => GUARANTEED,
            Class::Pool => POOL,
        };
        self.group(branch, name, limits)
    }

    /// Sees to it that a service's group has its further settings, each read back. What is not taken and may be left
    /// out goes to `skipped`; the first one that may not is the error.
    ///
    /// Controllers are handed down to the branch with the first unit that needs them. A branch passes on no more
    /// protection and no more swap than it has itself: `share` is what its units have together.
    pub fn set(
        &self,
        class: Class,
        group: &Group,
        (settings, share): (&GroupSettings, Share),
        skipped: &mut dyn FnMut(Refused),
    ) -> Result<(), Refused> {
        for setting in settings.wished() {
            let taken =
                self.prepare_branch(class, setting, share).and_then(|()| settings.set(group.path(), setting));
            if let Err(cause) = taken {
                // As with `memory.max`: lifeboat is DEGRADED, and has said so loudly.
                if is_of_memory(setting) && !self.controllers.memory && !settings.optional.contains(setting) {
                    continue;
                }
                let refused = Refused { setting, cause };
                if !settings.optional.contains(setting) {
                    return Err(refused);
                }
                skipped(refused);
            }
        }
        Ok(())
    }

    fn prepare_branch(&self, class: Class, setting: Setting, share: Share) -> Result<(), SysError> {
        let branch = self.branch(class);
        if let Some(controller) = controller_of(setting) {
            let [guaranteed, pool] = &self.enabled;
            let enabled = if class == Class::Guaranteed { guaranteed } else { pool };
            if !enabled.borrow().contains(&controller) {
                hand_down_one(&self.root, controller)?;
                hand_down_one(&branch, controller)?;
                enabled.borrow_mut().push(controller);
            }
        }
        let value = match setting {
            Setting::MemoryMin => share.min_bytes,
            Setting::MemoryLow => share.low_bytes,
            Setting::MemorySwapMax => share.swap_max_bytes,
            _ => return Ok(()),
        };
        set_limit(&branch, Limit { setting, value: Some(value) }, 0)
    }

    fn branch(&self, class: Class) -> PathBuf {
        self.root.join(match class {
            Class::Guaranteed => GUARANTEED,
            Class::Pool => POOL,
        })
    }

    /// The group of a unit's shutdown procedure, which may use so much.
    pub fn procedure(&self, name: &str, memory_bytes: u64) -> Result<Group, GroupError> {
        self.group(SHUTDOWN, name, &GroupLimits::of_a_writer(memory_bytes))
    }

    /// The group of the commands beside a unit's service. Names of units begin with a letter or a digit.
    pub fn commands(&self, name: &str, memory_bytes: u64) -> Result<Group, GroupError> {
        let limits = GroupLimits { oom_group: true, ..GroupLimits::of_a_writer(memory_bytes) };
        self.group(POOL, &format!("+{name}"), &limits)
    }

    fn group(&self, branch: &str, name: &str, limits: &GroupLimits) -> Result<Group, GroupError> {
        let path = self.root.join(branch).join(folder_name(name));
        let is_new = make_folder(&path).map_err(GroupError::cgroup)?;
        let mut group = Group::open(path, is_new, self.controllers).map_err(GroupError::cgroup)?;
        // One that is there already may be frozen and hold the limits of an earlier lifeboat.
        if is_new { group.set_limits(limits, true) } else { group.renew(limits) }
            .map_err(GroupError::limit)?;
        // Read once, so that the first change is news.
        let _ = group.state();
        let _ = group.memory_events();
        Ok(group)
    }
}

/// Removes a group's folder with the folders below it, as far as they are empty of processes. Gives the first failure.
pub fn remove(path: &Path) -> Result<(), SysError> {
    remove_below(path, DEPTH_MAX)
}

fn remove_below(path: &Path, depth: u8) -> Result<(), SysError> {
    // The kernel's files in it are no hindrance, and cannot be removed.
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path(), depth - 1)?;
        }
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SysError::new("remove", path.display().to_string(), error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// This process is in the group.
fn is_in(folder: &Path) -> Result<bool, SysError> {
    let own = std::process::id().to_string();
    let pids = read_value(&folder.join("cgroup.procs"))?.unwrap_or_default();
    Ok(pids.split(|byte| *byte == b'\n').any(|pid| pid == own.as_bytes()))
}

/// Lets a group's children use the controllers.
fn hand_down(folder: &Path, controllers: Controllers) -> Result<(), SysError> {
    let text = match (controllers.memory, controllers.pids) {
        (true, true) => "+memory +pids",
        (true, false) => "+memory",
        (false, true) => "+pids",
        (false, false) => return Ok(()),
    };
    write_value(&folder.join("cgroup.subtree_control"), text)
}

/// One more of them. `ENOENT` where the kernel, or who delegated `folder`, does not have it.
fn hand_down_one(folder: &Path, controller: &str) -> Result<(), SysError> {
    let path = folder.join("cgroup.controllers");
    let text = read_value(&path)?.unwrap_or_default();
    if !text.split(u8::is_ascii_whitespace).any(|word| word == controller.as_bytes()) {
        return Err(SysError::new(
            "find",
            format!("the controller {controller} in {}", path.display()),
            libc::ENOENT,
        ));
    }
    write_value(&folder.join("cgroup.subtree_control"), &format!("+{controller}"))
}

/// The kernel's own files in a group begin with one of these and a point.
const KERNEL_PREFIXES: [&str; 9] =
    ["cgroup", "cpu", "cpuset", "hugetlb", "io", "irq", "memory", "misc", "pids"];

/// A unit's name as one component of a path: letters, digits and `-_.:@+` stay, every other byte becomes `%XX`. A name
/// that is hidden, a way up, or could be one of the kernel's files loses its first point.
fn folder_name(name: &str) -> String {
    let first = name.split('.').next().unwrap_or(name);
    let own_point = first.is_empty() || KERNEL_PREFIXES.contains(&first) || ["rdma", "dmem"].contains(&first);
    let mut points = 0;
    let mut folder = String::with_capacity(name.len());
    for byte in name.bytes() {
        points += u32::from(byte == b'.');
        let plain = byte.is_ascii_alphanumeric() || b"-_:@+".contains(&byte);
        if plain || (byte == b'.' && !(own_point && points == 1)) {
            folder.push(byte.into());
        } else {
            // Writing to a string cannot fail.
            let _ = write!(folder, "%{byte:02X}");
        }
    }
    if folder.is_empty() { "%".to_owned() } else { folder }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_safe_components() {
        for (name, expected) in [
            ("recorder", "recorder"),
            ("getty@tty1", "getty@tty1"),
            ("a.b.c", "a.b.c"),
            ("", "%"),
            (".", "%2E"),
            ("..", "%2E."),
            (".hidden", "%2Ehidden"),
            ("../../etc", "%2E.%2F..%2Fetc"),
            ("memory.max", "memory%2Emax"),
            ("cgroup.procs.x", "cgroup%2Eprocs.x"),
            ("a b\n", "a%20b%0A"),
            ("100%", "100%25"),
            ("übung", "%C3%BCbung"),
        ] {
            assert_eq!(folder_name(name), expected, "{name:?}");
            assert!(!Path::new(expected).is_absolute() && Path::new(expected).components().count() == 1);
        }
    }
}
