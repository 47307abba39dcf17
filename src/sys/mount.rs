//! Mounts: what PID 1 needs before anything else, and the way back at the end.

use super::error::SysError;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One mount that every image needs.
struct Early {
    target: &'static str,
    kind: &'static str,
    flags: MsFlags,
    /// Options, the best first: the next one is tried where the kernel does not know the ones before (`EINVAL`).
    options: &'static [&'static str],
}

const NO_CODE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const NO_DEVICES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

const EARLY: [Early; 8] = [
    Early { target: "/proc", kind: "proc", flags: NO_CODE, options: &[""] },
    Early { target: "/sys", kind: "sysfs", flags: NO_CODE, options: &[""] },
    Early { target: "/dev", kind: "devtmpfs", flags: MsFlags::MS_NOSUID, options: &["mode=0755"] },
    Early {
        target: "/dev/pts",
        kind: "devpts",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        // Group 5, tty, may be unknown in a user namespace.
        options: &["gid=5,mode=620,ptmxmode=666", "mode=620,ptmxmode=666"],
    },
    Early { target: "/dev/shm", kind: "tmpfs", flags: NO_DEVICES, options: &["mode=1777"] },
    Early { target: "/run", kind: "tmpfs", flags: NO_DEVICES, options: &["mode=0755"] },
    Early { target: "/tmp", kind: "tmpfs", flags: NO_DEVICES, options: &["mode=1777"] },
    Early {
        target: "/sys/fs/cgroup",
        kind: "cgroup2",
        flags: NO_CODE,
        options: &["nsdelegate,memory_recursiveprot", "nsdelegate", ""],
    },
];

/// Links that programs expect in `/dev` and that devtmpfs does not make.
const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// Mounts proc, sys, dev, dev/pts, dev/shm, run, tmp and cgroup2, each where its folder is not a mount point yet.
///
/// Goes on over failures and hands them all back, so that PID 1 can tell of them once there is a console.
pub fn early_mounts() -> Vec<SysError> {
    let mut errors: Vec<SysError> = EARLY.iter().filter_map(|early| mount_one(early).err()).collect();
    for (link, target) in LINKS {
        match nix::unistd::symlinkat(target, nix::fcntl::AT_FDCWD, link) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => errors.push(SysError::new("make the link", link, errno)),
        }
    }
    errors
}

fn mount_one(early: &Early) -> Result<(), SysError> {
    let target = Path::new(early.target);
    if is_mount_point(target) {
        return Ok(());
    }
    let failed = |errno| SysError::new("mount", format!("{} on {}", early.kind, early.target), errno);
    match nix::unistd::mkdir(target, nix::sys::stat::Mode::from_bits_truncate(0o755)) {
        // A read-only root may have the folder all the same; if not, the mount will say so.
        Ok(()) | Err(Errno::EEXIST | Errno::EROFS) => {}
        Err(errno) => return Err(SysError::new("make the folder", early.target, errno)),
    }
    let mut result = Ok(());
    for options in early.options {
        result = mount(Some(early.kind), target, Some(early.kind), early.flags, Some(*options));
        if result != Err(Errno::EINVAL) {
            break;
        }
    }
    match result {
        // The kernel has mounted the same there already.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

/// Another file system than its parent folder's begins here. A folder that is not there is none.
fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev());
    match (device(path), path.parent().map(device)) {
        (Ok(own), Some(Ok(parent))) => own != parent,
        _ => false,
    }
}

/// File systems that hold nothing to save. They stay until the end, because the last steps need some of them.
const NOTHING_TO_SAVE: [&str; 19] = [
    "autofs",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "hugetlbfs",
    "mqueue",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "efivarfs",
];

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    target: PathBuf,
    kind: Vec<u8>,
}

/// Unmounts every file system that holds something to save, the last one first; what is busy becomes read-only
/// instead, and where that fails too it is detached. The root becomes read-only.
///
/// Goes on over failures and hands them all back. May block as long as a disk does: to be called aside, with a
/// deadline.
pub fn unmount_all() -> Vec<SysError> {
    let path = "/proc/self/mountinfo";
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) => return vec![SysError::new("read", path, error)],
    };
    let mut mounts = parse_mounts(&text);
    mounts.retain(|mount| !NOTHING_TO_SAVE.iter().any(|kind| kind.as_bytes() == mount.kind));
    mounts.iter().rev().filter_map(|mount| unmount_one(&mount.target).err()).collect()
}

fn unmount_one(target: &Path) -> Result<(), SysError> {
    let is_root = target == Path::new("/");
    if !is_root && umount2(target, MntFlags::UMOUNT_NOFOLLOW).is_ok() {
        return Ok(());
    }
    let none = None::<&str>;
    match mount(none, target, none, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none) {
        Ok(()) => Ok(()),
        Err(errno) => {
            if !is_root {
                let _ = umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
            }
            Err(SysError::new("unmount or make read-only", target.display().to_string(), errno))
        }
    }
}

fn parse_mounts(mountinfo: &[u8]) -> Vec<Mount> {
    let line = |line: &[u8]| {
        let mut words = line.split(|byte| *byte == b' ');
        let target = unescape(words.nth(4)?);
        words.find(|word| word == b"-")?;
        Some(Mount { target, kind: words.next()?.to_vec() })
    };
    mountinfo.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// The first mount of this kind in the text of `/proc/self/mountinfo`.
#[must_use]
pub fn first_of_kind(mountinfo: &[u8], kind: &str) -> Option<PathBuf> {
    parse_mounts(mountinfo).into_iter().find(|mount| mount.kind == kind.as_bytes()).map(|mount| mount.target)
}

/// A path as `/proc/self/mountinfo` writes it: space, tab, line's end and backslash are octal there.
fn unescape(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, more)) = rest.split_first() {
        match (first, more) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_becomes_mounts() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            let mounts =
                |(target, kind): &(&str, &str)| Mount { target: target.into(), kind: (*kind).into() };
            assert_eq!(
                parse_mounts(text.as_bytes()),
                expected.iter().map(mounts).collect::<Vec<_>>(),
                "{text}"
            );
        };
        check("36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw\n", &[("/mnt", "ext3")]);
        check(
            "1 1 0:1 / / rw - rootfs rootfs rw\n2 1 0:2 / /a rw - tmpfs x rw",
            &[("/", "rootfs"), ("/a", "tmpfs")],
        );
        check("1 1 0:1 / /a\\040b\\134c\\ rw - ext4 x rw", &[("/a b\\c\\", "ext4")]);
        check("1 1 0:1 / /cut rw", &[]);
        check("1 1 0:1 / /cut rw -", &[]);
        check("\n \n", &[]);
        check("", &[]);
    }

    #[test]
    fn mount_points_are_told_from_folders() {
        for (path, expected) in [("/proc", true), ("/etc", false), ("/nowhere/at/all", false), ("/", false)] {
            assert_eq!(is_mount_point(Path::new(path)), expected, "{path}");
        }
    }
}
