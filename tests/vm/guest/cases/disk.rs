//! A disk at the end of the machine. The host judges what is left on it; what is written here is never synced here.

use super::Case;
use crate::guest::{Guest, expect, run};
use nix::mount::{MsFlags, mount};
use std::path::Path;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[Case { name: "writes-to-a-disk", deadline_s: 60, run: writes_to_a_disk }];

const DISK: &str = "/dev/nvme0n1";
const FOLDER: &str = "/mnt";
/// The host looks for these on the disk.
const LAST_WORDS: &str = "the last words before the end of this guest\n";

fn writes_to_a_disk(guest: &mut Guest) -> Result<(), String> {
    let there = || Path::new(DISK).exists().then_some(());
    guest.until(&format!("there is no {DISK}"), Duration::from_secs(20), there)?;
    let (code, _) = run(&["/bin/busybox", "mke2fs", DISK])?;
    expect("exit code of mke2fs", &code, &0)?;
    // The kernels have ext4, which takes an ext2 as it is.
    mount(Some(DISK), FOLDER, Some("ext4"), MsFlags::empty(), None::<&str>)
        .map_err(|error| format!("mount {DISK}: {error}"))?;
    // A unit that keeps a file open there until it is killed.
    guest.start("holds-the-disk")?;
    let path = format!("{FOLDER}/last-words");
    std::fs::write(&path, LAST_WORDS).map_err(|error| format!("{path}: {error}"))
}
