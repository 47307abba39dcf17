//! Where the tree stands: the mount of cgroup2, and lifeboat's own group in it.

use super::file::write_value;
use crate::sys::error::SysError;
use crate::sys::mount::first_of_kind;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where cgroup2 is mounted by convention, and where lifeboat as PID 1 mounts it.
pub const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// The first mount of cgroup2 in `/proc/self/mountinfo`; `None` where it is not mounted.
pub fn mount_point() -> Result<Option<PathBuf>, SysError> {
    let path = "/proc/self/mountinfo";
    let text = std::fs::read(path).map_err(|error| SysError::new("read", path, error))?;
    Ok(first_of_kind(&text, "cgroup2"))
}

/// lifeboat's own group, as a folder of the mount: the root where it was started in none.
pub fn own_group(mount_point: &Path) -> Result<PathBuf, SysError> {
    group_by("/proc/self/cgroup", mount_point)
}

/// A process's group, as a folder of the mount.
pub fn group_of(pid: u32, mount_point: &Path) -> Result<PathBuf, SysError> {
    group_by(&format!("/proc/{pid}/cgroup"), mount_point)
}

/// Moves a process into the group of this folder, with all of its threads.
pub fn move_to(folder: &Path, pid: u32) -> Result<(), SysError> {
    write_value(&folder.join("cgroup.procs"), &pid.to_string())
}

fn group_by(path: &str, mount_point: &Path) -> Result<PathBuf, SysError> {
    let text = std::fs::read(path).map_err(|error| SysError::new("read", path, error))?;
    group_in(&text, mount_point).ok_or_else(|| SysError::new("find a line `0::/` in", path, libc::ENODATA))
}

fn group_in(cgroup: &[u8], mount_point: &Path) -> Option<PathBuf> {
    let group = cgroup.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::/"))?;
    // Outside of this cgroup namespace: nothing there can be reached by this mount.
    if group.starts_with(b"..") {
        return None;
    }
    Some(if group.is_empty() {
        mount_point.to_path_buf()
    } else {
        mount_point.join(OsStr::from_bytes(group))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mount() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(first_of_kind(text.as_bytes(), "cgroup2"), expected.map(PathBuf::from), "{text}");
        };
        let v1 = "33 32 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n";
        check(v1, None);
        check(
            &format!("{v1}45 32 0:37 / /sys/fs/cgroup/unified rw shared:5 master:1 - cgroup2 cgroup2 rw\n"),
            Some("/sys/fs/cgroup/unified"),
        );
        check("45 32 0:37 / /mnt/a\\040b rw - cgroup2 none rw\n", Some("/mnt/a b"));
        check("45 32 0:37 / /mnt rw cgroup2\n", None);
        check("\n\n-", None);
        check("", None);
    }

    #[test]
    fn finds_its_own_group() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(group_in(text.as_bytes(), Path::new("/cg")), expected.map(PathBuf::from), "{text}");
        };
        check("0::/\n", Some("/cg"));
        check("12:cpu:/a\n0::/system.slice/lifeboat\n", Some("/cg/system.slice/lifeboat"));
        check("0::/../other\n", None);
        check("12:cpu:/\n", None);
        check("", None);
    }
}
