//! A guest's disk: an empty file before the boot, and what must be in it when the guest is off.
//!
//! The guest makes an ext2 on it and writes without a sync. Whether the file system was unmounted at the end stands in
//! its superblock (Documentation/filesystems/ext4/super.rst), which the kernel marks as not clean while it is mounted.

use crate::error::{AtPath, Result};
use crate::place;
use crate::report::{Case, Outcome};
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// What the guest writes last, in a file that it never syncs.
const LAST_WORDS: &[u8] = b"the last words before the end of this guest";
/// The smallest block. A file begins with a block, and the second one of this size is the superblock.
const BLOCK_BYTES: usize = 1024;
/// From the beginning of the superblock: `s_magic` and `s_state`.
const MAGIC_AT: usize = 0x38;
const STATE_AT: usize = 0x3a;
const MAGIC: [u8; 2] = [0x53, 0xef];
/// `s_state`: cleanly unmounted, and nothing else.
const CLEAN: [u8; 2] = [1, 0];

/// The disk of one guest.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// An empty disk of this size in a file of this name, which is sparse; an older one is overwritten.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn empty(name: &str, mib: u32) -> Result<Self> {
        let path = place::vm_folder()?.join(format!("disk-{name}.img"));
        let file = File::create(&path).at("create", &path)?;
        file.set_len(u64::from(mib) << 20).at("enlarge", &path)?;
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
        let found = File::open(&self.path).map_err(|error| error.to_string());
        let outcome = match found.and_then(judge) {
            Ok(()) => Outcome::Passed(0),
            Err(reason) => Outcome::Failed(reason),
        };
        Case { name: "disk-is-clean-and-whole".to_owned(), outcome }
    }
}

/// Block by block: a disk may be larger than what the host has to spare.
fn judge(disk: impl Read) -> std::result::Result<(), String> {
    let mut disk = BufReader::with_capacity(1 << 20, disk);
    let mut block = [0; BLOCK_BYTES];
    let (mut superblock, mut has_words) = (block, false);
    for number in 0_u64.. {
        match disk.read_exact(&mut block) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            read => read.map_err(|error| error.to_string())?,
        }
        if number == 1 {
            superblock = block;
        }
        has_words |= block.starts_with(LAST_WORDS);
    }
    let at = |place: usize| superblock.get(place..place + 2);
    if at(MAGIC_AT) != Some(&MAGIC) {
        return Err("no file system is on the disk".to_owned());
    }
    if !has_words {
        return Err("what was written last is not on the disk".to_owned());
    }
    match at(STATE_AT) {
        Some(state) if state == CLEAN => Ok(()),
        state => Err(format!("the file system was not unmounted: its state is {state:?}, not {CLEAN:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, CLEAN, LAST_WORDS, MAGIC, MAGIC_AT, STATE_AT, judge};

    #[test]
    fn disks() {
        let check = |magic: [u8; 2], state: [u8; 2], words: &[u8], expected: Option<&str>| {
            let mut bytes = vec![0; 4096];
            let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
            put(BLOCK_BYTES + MAGIC_AT, &magic);
            put(BLOCK_BYTES + STATE_AT, &state);
            put(3 * BLOCK_BYTES, words);
            let found = judge(bytes.as_slice());
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
        assert!(judge(&[][..]).is_err());
    }
}
