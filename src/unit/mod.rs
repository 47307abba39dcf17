//! What the user wrote, checked: RON files in, valid units out, and every fault with its place and its cure.
//!
//! `raw` mirrors the files for serde, `check` turns raw into valid and gathers all faults, `load` reads the folders.
//! Nothing here starts anything; one broken file never keeps the others from being used.

use crate::engine::policy::UnitPolicy;
use std::ffi::CString;

/// Where a unit's standard output and standard error go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// The console, as lifeboat's own words.
    #[default]
    Console,
    /// `/dev/null`.
    Null,
}

/// A valid unit: what the engine decides on, and what the runtime needs to start it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The part that decisions rest on.
    pub policy: UnitPolicy,
    /// Program (an absolute path) and arguments. Empty only where `policy.refused` is set.
    pub command: Vec<CString>,
    /// The shutdown procedure's program and arguments; empty where there is none.
    pub procedure: Vec<CString>,
    /// `NAME=value` strings added to lifeboat's own environment.
    pub environment: Vec<CString>,
    /// Entered before `execve`.
    pub working_directory: Option<CString>,
    /// `pids.max` of the service's cgroup.
    pub pids_max: Option<u32>,
    /// Where output goes.
    pub output: Output,
}
