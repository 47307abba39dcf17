//! Which unit a process belongs to, by its `/proc/PID/cgroup`.

use super::place::mount_point;
use super::tree::{GUARANTEED, POOL};
use crate::engine::policy::Class;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path in cgroupfs is made of unit names, of which each has at most 64 letters, and of what a unit makes below.
const FILE_BYTES_MAX: usize = 1024;

/// Finds the units of processes in the tree below one root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The root's path as `/proc/PID/cgroup` has it, without a slash at its end.
    prefix: Vec<u8>,
}

/// What a process is a member of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// The branch.
    pub class: Class,
    /// The unit's name.
    pub name: &'a str,
}

impl Members {
    /// For the tree below `root`, a folder of the mount of cgroup2. Where that is not known, of a root that is
    /// mounted by convention.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        let mount = mount_point().ok().flatten().unwrap_or_else(|| super::place::MOUNT_POINT.into());
        let inside = root.strip_prefix(&mount).unwrap_or(Path::new(""));
        let mut prefix = Vec::new();
        for part in inside {
            prefix.push(b'/');
            prefix.extend_from_slice(part.as_bytes());
        }
        Self { prefix }
    }

    /// Reads the file of one process and gives what it is a member of to `then`; `None` where it is of no unit or gone.
    pub fn of<T>(&self, pid: u32, then: impl FnOnce(Member<'_>) -> Option<T>) -> Option<T> {
        let mut text = [0; FILE_BYTES_MAX];
        let mut file = std::fs::File::open(format!("/proc/{pid}/cgroup")).ok()?;
        let mut length = 0;
        loop {
            let room = text.get_mut(length..).unwrap_or_default();
            match file.read(room) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        then(self.find(text.get(..length)?)?)
    }

    fn find<'a>(&self, text: &'a [u8]) -> Option<Member<'a>> {
        // A line that was cut has no end, and may be another's beginning.
        let line = text.split_inclusive(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
        let path = line.strip_suffix(b"\n")?.strip_prefix(self.prefix.as_slice())?.strip_prefix(b"/")?;
        let mut parts = std::str::from_utf8(path).ok()?.split('/');
        let class = match parts.next()? {
            GUARANTEED => Class::Guaranteed,
            POOL => Class::Pool,
            _ => return None,
        };
        Some(Member { class, name: parts.next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_in_the_branches_is_a_unit() {
        let check = |prefix: &str, text: &str, expected: Option<(Class, &str)>| {
            let members = Members { prefix: prefix.as_bytes().to_vec() };
            let found = members.find(text.as_bytes()).map(|member| (member.class, member.name));
            assert_eq!(found, expected, "{prefix:?} {text:?}");
        };
        check("", "0::/pool/a\n", Some((Class::Pool, "a")));
        check("", "12:cpu:/x\n0::/guaranteed/b/inner/pool/a\n", Some((Class::Guaranteed, "b")));
        check("/lb", "0::/lb/pool/a\n", Some((Class::Pool, "a")));
        check("/lb", "0::/lbx/pool/a\n", None);
        check("/lb", "0::/pool/a\n", None);
        check("", "0::/lb/pool/a\n", None);
        check("", "0::/shutdown/a\n", None);
        check("", "0::/supervisor\n", None);
        check("", "0::/pool\n", None);
        check("", "0::/\n", None);
        check("", "0::/../pool/a\n", None);
        check("", "0::/pool/a", None);
        check("", "1:name=x:/pool/a\n", None);
        check("", "", None);
    }

    #[test]
    fn a_process_that_is_gone_is_of_no_unit() {
        assert_eq!(Members { prefix: Vec::new() }.of(u32::MAX, |_| Some(())), None);
    }
}
