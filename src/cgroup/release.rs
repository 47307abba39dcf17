//! The memory of processes that were killed and do not die: for a process that may wait.

use crate::sys::process;
use std::fs;
use std::path::Path;

/// Takes their memory from the processes of a group and of all groups below it; how many had any to give. Those that
/// have not been killed keep theirs.
#[must_use]
pub fn release_memory(folder: &Path) -> u8 {
    let mut released: u8 = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let pids = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| line.parse().ok()) {
            if process::release_memory(pid).is_ok() {
                released = released.saturating_add(1);
            }
        }
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(below.map(|entry| entry.path()));
    }
    released
}
