//! Groups that a unit makes below its own: how it gets the right to, and what becomes of them.
//!
//! A user gets a group by owning its folder and three of its files (Documentation/admin-guide/cgroup-v2.rst, "Model of
//! Delegation"). The limits of the group itself stay root's.

use super::file::{read_value, write_value};
use crate::sys::error::SysError;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{Gid, Uid, fchown, fchownat};
use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What the user of a group may write to (/sys/kernel/cgroup/delegate has more on newer kernels: what would weaken
/// lifeboat's own hold on the group is left out).
const FILES: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];

/// `cgroup.max.descendants`: each group costs the kernel memory, and PID 1 the time to remove it.
const DESCENDANTS_MAX: u32 = 128;

/// `cgroup.max.depth`.
const DEPTH_MAX: u32 = 8;

/// Hands a group over to a user. Where the user is lifeboat's own, it only gets its bounds.
pub(super) fn hand_over(
    folder: BorrowedFd<'_>,
    path: &Path,
    (uid, gid): (Option<u32>, Option<u32>),
) -> Result<(), SysError> {
    write_value(&path.join("cgroup.max.descendants"), &DESCENDANTS_MAX.to_string())?;
    write_value(&path.join("cgroup.max.depth"), &DEPTH_MAX.to_string())?;
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    if uid.is_none() {
        return Ok(());
    }
    let failed = |path: &Path, errno| SysError::new("hand over", path.display().to_string(), errno);
    fchown(folder, uid, gid).map_err(|errno| failed(path, errno))?;
    for file in FILES {
        match fchownat(folder, file, uid, gid, AtFlags::empty()) {
            // `cgroup.threads` came with Linux 4.14.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed(&path.join(file), errno)),
        }
    }
    Ok(())
}

/// Removes every group below `path`, and takes back what was handed down to them, so that processes can be started in
/// the group itself again. To be called when no process is left in any of them.
pub(super) fn sweep(folder: BorrowedFd<'_>, path: &Path) -> Result<(), SysError> {
    if has_groups(folder) {
        remove_below(path, DEPTH_MAX)?;
    }
    let control = path.join("cgroup.subtree_control");
    let text = read_value(&control)?.unwrap_or_default();
    for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        write_value(&control, &format!("-{}", String::from_utf8_lossy(word)))?;
    }
    Ok(())
}

/// A folder has a link more for each folder in it.
fn has_groups(folder: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(folder).map_or(true, |stat| stat.st_nlink > 2)
}

/// Gives the path of each group below `path`, no more and no deeper than a unit with `delegate` can make them.
pub(super) fn each_below(folder: BorrowedFd<'_>, path: &Path, each: &mut impl FnMut(&Path)) {
    if has_groups(folder) {
        let mut left = DESCENDANTS_MAX;
        walk(path, (DEPTH_MAX, &mut left), each);
    }
}

fn walk(path: &Path, (depth, left): (u32, &mut u32), each: &mut impl FnMut(&Path)) {
    // One that cannot be read has gone.
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if *left == 0 || depth == 0 || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        *left -= 1;
        each(&entry.path());
        walk(&entry.path(), (depth - 1, left), each);
    }
}

fn remove_below(path: &Path, depth: u32) -> Result<(), SysError> {
    let failed = |error: std::io::Error| SysError::new("look into", path.display().to_string(), error);
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let below = entry.path();
        if depth > 0 {
            remove_below(&below, depth - 1)?;
        }
        let name = CString::new(below.as_os_str().as_bytes()).unwrap_or_default();
        rustix::fs::rmdir(&name)
            .map_err(|errno| SysError::new("remove", below.display().to_string(), errno.raw_os_error()))?;
    }
    Ok(())
}
