//! Drives: turns readiness into events, hands them to the engine, performs its plan, and shows its snapshot.
//!
//! One process, one thread, one epoll loop. It decides nothing: where a choice is to be made, there is an event for
//! it. It logs; the rooms below return errors instead.

mod adoption;
#[cfg(test)]
mod allocations;
mod ballast;
mod blame;
pub mod boot;
mod change;
mod command;
mod conditions;
mod control;
pub mod errand;
mod event_loop;
mod evidence;
mod groups;
mod health;
mod idle;
pub mod incident_store;
mod incidents;
mod kill_log;
pub mod limiting;
pub mod log_file;
mod output;
mod parked;
mod perform;
mod pressure;
mod readiness;
mod ring;
mod seat;
mod sockets;
mod steps;
mod story;
mod system_log;
mod translate;
mod update;

use std::path::{Path, PathBuf};

/// Where `enable` and `disable` are kept unless told otherwise.
pub const STATE_FOLDER: &str = "/etc/lifeboat";

/// How lifeboat was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The folders of unit files; a later one overrides an earlier one by file name.
    pub unit_folders: Vec<PathBuf>,
    /// `system.ron`.
    pub system_file: PathBuf,
    /// Where `enable` and `disable` are kept; `None` is where system.ron says, or `STATE_FOLDER`.
    pub state_folder: Option<PathBuf>,
    /// The control socket.
    pub socket: PathBuf,
    /// The cgroup below which the tree is made.
    pub cgroup_root: PathBuf,
    /// As a supervisor below another init: go on where the kernel lacks what guards memory.
    pub degraded_is_fine: bool,
}

impl Config {
    /// Units of this boot alone (`lifeboatctl run`) are beside the socket; every other folder goes before that one.
    fn with_units_of_this_boot(&self) -> Self {
        let mut config = self.clone();
        config.unit_folders.insert(0, self.socket.with_extension("units"));
        config
    }

    fn state_folder(&self) -> &Path {
        self.state_folder.as_deref().unwrap_or_else(|| Path::new(STATE_FOLDER))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            unit_folders: vec!["/usr/lib/lifeboat/units".into(), "/etc/lifeboat/units".into()],
            system_file: "/etc/lifeboat/system.ron".into(),
            state_folder: None,
            socket: "/run/lifeboat/control.sock".into(),
            cgroup_root: "/sys/fs/cgroup".into(),
            degraded_is_fine: false,
        }
    }
}
