//! A guest's disk: an empty file before the boot, and what must be in it when the guest is off.
//!
//! The guest makes an ext2 on it and writes without a sync. Whether the file system was unmounted at the end stands in
//! its superblock (Documentation/filesystems/ext4/super.rst), which the kernel marks as not clean while it is mounted.

use crate::error::{AtPath, Result};
use crate::place;
use crate::report::{Case, Outcome};
use std::path::{Path, PathBuf};

/// Enough for a file system with a file that is larger than some units' memory; the disk's own file is sparse.
const DISK_BYTES: u64 = 64 << 20;
/// What the guest writes last, in a file that it never syncs.
const LAST_WORDS: &[u8] = b"the last words before the end of this guest";
/// From the beginning of the disk: `s_magic` and `s_state` of the superblock.
const MAGIC_AT: usize = 1024 + 0x38;
const STATE_AT: usize = 1024 + 0x3a;
const MAGIC: [u8; 2] = [0x53, 0xef];
/// `s_state`: cleanly unmounted, and nothing else.
const CLEAN: [u8; 2] = [1, 0];

/// The disk of one guest.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// An empty disk in a file of this name; an older one is overwritten.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn empty(name: &str) -> Result<Self> {
        let path = place::vm_folder()?.join(format!("disk-{name}.img"));
        let file = std::fs::File::create(&path).at("create", &path)?;
        file.set_len(DISK_BYTES).at("enlarge", &path)?;
        Ok(Self { path })
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the guest left on it, as a case.
    #[must_use]
    pub fn judge(&self) -> Case {
        let found = std::fs::read(&self.path).map_err(|error| error.to_string());
        let outcome = match found.and_then(|bytes| judge(&bytes)) {
            Ok(()) => Outcome::Passed(0),
            Err(reason) => Outcome::Failed(reason),
        };
        Case { name: "disk-is-clean-and-whole".to_owned(), outcome }
    }
}

fn judge(bytes: &[u8]) -> std::result::Result<(), String> {
    let at = |place: usize| bytes.get(place..place + 2);
    if at(MAGIC_AT) != Some(&MAGIC) {
        return Err("no file system is on the disk".to_owned());
    }
    if !bytes.windows(LAST_WORDS.len()).any(|window| window == LAST_WORDS) {
        return Err("what was written last is not on the disk".to_owned());
    }
    match at(STATE_AT) {
        Some(state) if state == CLEAN => Ok(()),
        state => Err(format!("the file system was not unmounted: its state is {state:?}, not {CLEAN:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{CLEAN, LAST_WORDS, MAGIC, MAGIC_AT, STATE_AT, judge};

    #[test]
    fn disks() {
        let check = |magic: [u8; 2], state: [u8; 2], words: &[u8], expected: Option<&str>| {
            let mut bytes = vec![0; 4096];
            bytes[MAGIC_AT..MAGIC_AT + 2].copy_from_slice(&magic);
            bytes[STATE_AT..STATE_AT + 2].copy_from_slice(&state);
            bytes[3000..3000 + words.len()].copy_from_slice(words);
            let found = judge(&bytes);
            match expected {
                None => assert_eq!(found, Ok(())),
                Some(part) => assert!(found.is_err_and(|reason| reason.contains(part)), "{part}"),
            }
        };
        check(MAGIC, CLEAN, LAST_WORDS, None);
        check([0, 0], CLEAN, LAST_WORDS, Some("no file system"));
        check(MAGIC, [0, 0], LAST_WORDS, Some("not unmounted"));
        check(MAGIC, [3, 0], LAST_WORDS, Some("not unmounted"));
        check(MAGIC, CLEAN, b"the last words", Some("written last"));
        assert!(judge(&[]).is_err());
    }
}
