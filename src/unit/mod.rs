//! What the user wrote, checked: RON files in, valid units out, and every fault with its place and its cure.
//!
//! `raw` mirrors the files for serde, `reader` fills it and goes on after a fault, `check` turns raw into valid,
//! `load` reads the folders.
//! Nothing here starts anything; one broken file never keeps the others from being used.

mod accounts;
mod adopt;
mod boot;
mod cgroup;
mod check;
mod circle;
mod commands;
mod condition;
mod conflicts;
mod diagnostic;
pub mod enabled;
mod fallbacks;
mod load;
mod optional;
mod origin;
mod output;
mod raw;
mod reader;
mod readiness;
mod relations;
mod restart;
mod setup;
mod sockets;
mod template;
mod value;
mod warn;

pub use boot::{BOOT_WORD, BootWish};
pub use cgroup::{has_quota, parse_limit};
pub use check::{DESCRIPTION_CHARS_MAX, fault_of_new_name};
pub use condition::{Condition, Test};
pub use diagnostic::Diagnostic;
pub use load::{FILE_BYTES_MAX, Loaded, UNITS_MAX, Wishes, load, load_with, state_folder};
pub use origin::{FieldPlace, Origin, Unstarted};
pub use raw::field_names;
pub use sockets::{Address, Socket, Written};
pub use template::is_instance;
pub use value::Amount;

use crate::engine::budget;
use crate::engine::event::CommandKind;
use crate::engine::policy::{
    DescriptorPolicy, Kind, OnRequirementRestart, Ready, RestartPolicy, Success, UnitPolicy, WarnPolicy,
};
use crate::engine::setting::{Limit, Setting, Settings};
use crate::engine::snapshot::{IncidentStore, Trouble};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;
use std::ffi::CString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What of a unit's output is kept where the user has not said.
const OUTPUT_RING_BYTES: u32 = 4 << 10;

/// Where a unit's standard output and standard error go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// The console, each line with the unit's name before it.
    #[default]
    Console,
    /// Nowhere.
    Null,
    /// The kernel log, each line with the unit's name before it.
    Kmsg,
    /// The system's log, by `/dev/log`.
    Syslog,
    /// The unit's own file, `Unit::log`.
    File,
}

/// A log file: bounded in size and number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// An absolute path.
    pub path: CString,
    /// A file that would become longer is renamed to `PATH.1` first.
    pub max_bytes: u64,
    /// How many of the renamed ones are kept.
    pub keep: u32,
}

/// Who a process is (credentials(7)). What is `None` stays lifeboat's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Supplementary groups.
    pub groups: Option<Vec<u32>>,
    /// `HOME`, `USER`, `LOGNAME` and `SHELL` as `NAME=value` strings, where a user is given.
    pub environment: Vec<CString>,
    /// What of root's powers it may have.
    pub capabilities: Capabilities,
}

/// Capabilities (capabilities(7)), a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// All that it may ever have; `None` is as much as lifeboat.
    pub bounding: Option<u64>,
    /// What it has from the start.
    pub ambient: u64,
}

/// How a process is set up beside its identity. What is `None` or empty stays lifeboat's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// umask(2).
    pub umask: Option<u32>,
    /// chroot(2).
    pub root_directory: Option<CString>,
    /// setrlimit(2).
    pub resource_limits: Vec<(Resource, Rlimit)>,
    /// setpriority(2).
    pub nice: Option<i32>,
    /// sched_setscheduler(2): policy and priority.
    pub scheduler: Option<(u16, u16)>,
    /// sched_setaffinity(2).
    pub cpus: Option<Box<CpuSet>>,
    /// ioprio_set(2).
    pub io_priority: Option<u16>,
    /// prctl(2), `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// Mounts of its own.
    pub private_mounts: bool,
    /// A tmpfs of its own on `/tmp`.
    pub private_tmp: bool,
    /// A tmpfs of its own on `/dev/shm`.
    pub private_shm: bool,
    /// Paths that it cannot change.
    pub read_only: Vec<Path>,
    /// Paths that it cannot see.
    pub hidden: Vec<Path>,
}

/// What a unit says of its cgroup, beside the bounds of memory and processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The limits that are numbers, but for `memory.max` and `pids.max`.
    pub limits: Vec<Limit>,
    /// `memory.oom.group`, where the user has said.
    pub oom_group: Option<bool>,
    /// The period of `cpu.max`.
    pub cpu_period_us: u32,
    /// `cpuset.cpus`, as cpuset(7) has it.
    pub cpus: Option<String>,
    /// `cpuset.mems`.
    pub mems: Option<String>,
    /// `io.max`.
    pub devices: Vec<DeviceMax>,
    /// The unit's user may make cgroups of its own below it.
    pub delegate: bool,
    /// What it may do without; also settings of its processes.
    pub optional: Settings,
}

impl Default for Cgroup {
    fn default() -> Self {
        Self {
            limits: Vec::new(),
            oom_group: None,
            cpu_period_us: 100_000,
            cpus: None,
            mems: None,
            devices: Vec::new(),
            delegate: false,
            optional: Settings::default(),
        }
    }
}

/// The bounds of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceMax {
    /// The device's file.
    pub path: PathBuf,
    /// `rbps`, `wbps`, `riops` and `wiops` of `io.max`; `None` is no limit.
    pub max: [Option<u64>; 4],
}

/// A path of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The path, absolute.
    pub path: CString,
    /// It was written with a `-`: where there is nothing, there is nothing to do.
    pub may_be_missing: bool,
}

/// Where a health check connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthAddress {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// A process that runs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Its number.
    pub pid: u32,
    /// When it began, in ticks since boot: the number may be another's by now.
    pub started: u64,
}

/// A valid unit: what the engine decides on, and what the runtime needs to start it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The part that decisions rest on.
    pub policy: UnitPolicy,
    /// Where it is written.
    pub origin: Origin,
    /// What `policy.conditions` stands for.
    pub conditions: Vec<Condition>,
    /// Program (an absolute path) and arguments. Empty only for a target, with `adopt`, and where `policy.refused` is
    /// set.
    pub command: Vec<CString>,
    /// The process that is its service, where that is not to be made.
    pub adopt: Option<Adopted>,
    /// The shutdown procedure's program and arguments; empty where there is none.
    pub procedure: Vec<CString>,
    /// The second procedure's; empty where there is none.
    pub otherwise: Vec<CString>,
    /// `NAME=value` strings added to lifeboat's own environment.
    pub environment: Vec<CString>,
    /// Entered before `execve`.
    pub working_directory: Option<CString>,
    /// Who the service's process is.
    pub identity: Identity,
    /// Who the procedure's process is.
    pub procedure_identity: Identity,
    /// How the service's process is set up; parts of it hold for the procedure too.
    pub setup: Setup,
    /// `pids.max` of the service's cgroup.
    pub pids_max: Option<u32>,
    /// The other settings of that cgroup.
    pub cgroup: Cgroup,
    /// Where output goes.
    pub output: Output,
    /// The file of `Output::File`.
    pub log: Option<LogFile>,
    /// How much of the output lifeboat keeps; 0 hands the console or `/dev/null` to the processes themselves.
    pub output_ring_bytes: u32,
    /// The file descriptor on which a service with `Ready::NotificationFd` says that it is ready.
    pub notification_fd: Option<i32>,
    /// The path by which a service with `Ready::Path` shows that it is ready.
    pub ready_path: Option<CString>,
    /// Where its health is checked, where `policy.health` is set and it is no command.
    pub health_address: Option<HealthAddress>,
    /// The health check's program and arguments; empty where there is none.
    pub health_command: Vec<CString>,
    /// What an ordinary stop begins with; empty where there is nothing.
    pub stop_command: Vec<CString>,
    /// What has the service read its configuration anew; empty where there is nothing.
    pub reload_command: Vec<CString>,
    /// The program of its warn stages, and its arguments.
    pub warn_command: Vec<CString>,
    /// `memory.max` of the cgroup in which these commands run.
    pub command_bytes: u64,
    /// What lifeboat opens for it; their names are in `policy.descriptors`.
    pub sockets: Vec<Socket>,
}

impl Unit {
    /// A unit of this name with every field at its default and nothing to run.
    fn empty(name: &str) -> Self {
        let policy = UnitPolicy {
            name: name.to_owned(),
            description: String::new(),
            kind: Kind::Service,
            autostart: true,
            after: Vec::new(),
            before: Vec::new(),
            requires: Vec::new(),
            wants: Vec::new(),
            conflicts: Vec::new(),
            on_requirement_restart: OnRequirementRestart::Keep,
            conditions: Vec::new(),
            memory: None,
            warn: WarnPolicy::default(),
            utility: 50,
            ready: Ready::Start,
            start_timeout_ms: 30_000,
            watchdog_ms: None,
            health: None,
            procedure: None,
            reload: None,
            descriptors: DescriptorPolicy::default(),
            success: Success::default(),
            stop_command: false,
            stop_signal: libc::SIGTERM,
            stop_timeout_ms: 5_000,
            restart: RestartPolicy::default(),
            refused: None,
        };
        Self {
            policy,
            origin: Origin::default(),
            conditions: Vec::new(),
            command: Vec::new(),
            adopt: None,
            procedure: Vec::new(),
            otherwise: Vec::new(),
            environment: Vec::new(),
            working_directory: None,
            identity: Identity::default(),
            procedure_identity: Identity::default(),
            setup: Setup::default(),
            pids_max: None,
            cgroup: Cgroup::default(),
            output: Output::default(),
            log: None,
            output_ring_bytes: OUTPUT_RING_BYTES,
            notification_fd: None,
            ready_path: None,
            health_address: None,
            sockets: Vec::new(),
            health_command: Vec::new(),
            stop_command: Vec::new(),
            reload_command: Vec::new(),
            warn_command: Vec::new(),
            command_bytes: commands::COMMAND_BYTES,
        }
    }

    /// Whether it is told where to say something by sd_notify(3).
    #[must_use]
    pub fn may_notify(&self) -> bool {
        let policy = &self.policy;
        let reloads = policy.reload.is_some_and(|reload| reload.notifies);
        let stores = policy.descriptors.store_max > 0;
        policy.ready == Ready::Notify || policy.watchdog_ms.is_some() || reloads || stores
    }

    /// Whether there is anything to run beside the service.
    #[must_use]
    pub fn has_commands(&self) -> bool {
        CommandKind::ALL.iter().any(|kind| !self.command_of(*kind).is_empty())
    }

    /// The program and arguments of a command; empty where there is none.
    #[must_use]
    pub fn command_of(&self, kind: CommandKind) -> &[CString] {
        match kind {
            CommandKind::Stop => &self.stop_command,
            CommandKind::Reload => &self.reload_command,
            CommandKind::Health => &self.health_command,
            CommandKind::Warn => &self.warn_command,
        }
    }

    /// Takes another limit than its file has.
    pub fn take_limit(&mut self, limit: Limit) {
        match (limit.setting, limit.value) {
            (Setting::MemoryMax, Some(bytes)) => {
                if let Some(memory) = &mut self.policy.memory {
                    memory.max_bytes = bytes;
                }
            }
            (Setting::PidsMax, value) => self.pids_max = value.and_then(|max| max.try_into().ok()),
            _ => {
                let limits = &mut self.cgroup.limits;
                limits.retain(|known| known.setting != limit.setting);
                limits.push(limit);
                if let (Setting::MemoryHigh, Some(memory)) = (limit.setting, &mut self.policy.memory) {
                    memory.high_bytes = limit.value;
                    self.policy.warn.rings = limit.value.is_none();
                }
            }
        }
    }

    /// Nobody's: what stands in a place that no unit has.
    #[must_use]
    pub fn vacant() -> Self {
        Self::refused("", Trouble::BadUnit)
    }

    /// What stands for a file that cannot be used: its name is shown, nothing of it is started.
    fn refused(name: &str, why: Trouble) -> Self {
        let mut unit = Self::empty(name);
        unit.policy.autostart = false;
        unit.policy.refused = Some(why);
        unit
    }
}

/// What `system.ron` says; its default is what holds without the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// The host name, if it is to be set.
    pub hostname: Option<String>,
    /// The unit that `Rescue` starts, where the user has said.
    pub rescue: Option<String>,
    /// The unit to boot, if it is not every one with `autostart`.
    pub boot: Option<String>,
    /// Where `enable` and `disable` are kept, where the user has said.
    pub state_folder: Option<PathBuf>,
    /// `memory.max` of the shutdown slice, where the user has said.
    pub reserve: Option<Amount>,
    /// Kept for the kernel and for lifeboat, where the user has said.
    pub margin: Option<Amount>,
    /// Names below `/proc/sys`, with dots, and what is to be written there, in the order of the file.
    pub sysctls: Vec<(String, String)>,
    /// Where incidents are kept, where the user has said.
    pub incidents: Option<IncidentStore>,
}

impl System {
    /// The unit that `Rescue` starts.
    #[must_use]
    pub fn rescue_name(&self) -> &str {
        self.rescue.as_deref().unwrap_or("rescue")
    }

    /// `memory.max` of the shutdown slice on a machine with so much memory.
    #[must_use]
    pub fn reserve_bytes(&self, total_bytes: u64) -> u64 {
        self.reserve.map_or_else(|| budget::default_reserve_bytes(total_bytes), |it| it.bytes(total_bytes))
    }

    /// What is kept for the kernel and for lifeboat on a machine with so much memory, of which so much is in files that
    /// live in memory.
    #[must_use]
    pub fn margin_bytes(&self, total_bytes: u64, files_bytes: u64) -> u64 {
        self.margin.map_or_else(
            || budget::default_margin_bytes(total_bytes, files_bytes),
            |it| it.bytes(total_bytes),
        )
    }
}
