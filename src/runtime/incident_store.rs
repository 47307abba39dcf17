//! The process that keeps one incident on a disk, which may take its time: lifeboat's own program in another part
//! (`--keep-incident`).
//!
//! It reads the letter that lifeboat has left in a file in memory, its standard input, and leaves its answer there: the
//! number that the incident got, or what went wrong in words. A file is written beside its place and renamed, so there
//! is never half of one under an incident's name. What no disk takes goes to the log that outlives the machine.

use super::log_file::cure;
use crate::sys::kmsg::{LineWriter, Priority, open_kmsg};
use crate::wire::incident::{FILE_BYTES_MAX, file_name, file_of, lines_of, number_of};
use std::collections::BinaryHeap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Memory that outlives a reboot, where the machine has some (Documentation/admin-guide/ramoops.rst).
const PSTORE: &str = "/dev/pmsg0";

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of include/uapi/linux/magic.h.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// `OVERLAYFS_SUPER_MAGIC` of the same: where such a folder is written to is told by its mount.
const OVERLAY: u64 = 0x794c_7630;

/// How the name of a file begins that is being written.
const PARTIAL: &str = ".partial-";

/// The word for a store that does not answer.
pub(super) const NO_DISK: &str = "no-disk";

/// Why a folder keeps nothing.
#[derive(Debug)]
enum Fault {
    Failed(&'static str, io::Error),
    /// What is there is gone after a reboot.
    InMemory,
}

/// The process: its exit code is 0 where the answer is a number.
#[must_use]
pub fn keep_incident(words: &[OsString]) -> u8 {
    let [folder, keep, number, settled, way] = words else { return 2 };
    let numbers = [keep, number, settled];
    let numbers = numbers.map(|word| word.to_str().and_then(|text| text.parse().ok()).unwrap_or(0));
    let [keep, number, settled]: [u32; 3] = numbers;
    let Ok(mut letter) = io::stdin().as_fd().try_clone_to_owned().map(File::from) else { return 2 };
    let mut text = Vec::new();
    let read = letter.seek(SeekFrom::Start(0)).and_then(|_| {
        let most = u64::try_from(2 * FILE_BYTES_MAX).unwrap_or(u64::MAX);
        (&letter).take(most).read_to_end(&mut text)
    });
    if read.is_err() {
        return 2;
    }
    let store = Store { folder: folder.into(), keep };
    let kept = match (number, way == NO_DISK) {
        (0, _) => store.last().map_err(|error| Fault::Failed("read", error)),
        (_, true) => Err(Fault::Failed("write to", io::ErrorKind::TimedOut.into())),
        (_, false) => store.add(number, settled, &text),
    };
    let (code, answer) = match kept {
        Ok(number) => (0, number.to_string()),
        Err(fault) => (1, complaint(&store.folder, number, &text, fault)),
    };
    let answered = letter
        .set_len(0)
        .and_then(|()| letter.seek(SeekFrom::Start(0)))
        .and_then(|_| letter.write_all(answer.as_bytes()));
    if answered.is_ok() { code } else { 2 }
}

/// What, where, why and the cure; the incident itself goes where it can.
fn complaint(folder: &Path, number: u32, letter: &[u8], fault: Fault) -> String {
    let (why, cure) = match fault {
        Fault::Failed(what, error) => {
            (format!("cannot {what} {}: {error}", folder.display()), cure(error.kind()))
        }
        Fault::InMemory => {
            (format!("{} is in memory, which a reboot empties", folder.display()), "mount a disk there")
        }
    };
    let cure = format!("{cure}, or name another folder by `incidents` in system.ron");
    if number == 0 {
        return format!("incidents of earlier boots are not counted: {why}; {cure}");
    }
    let place = match log_that_stays(&lines_of(number, letter)) {
        Some(place) => format!("a part of it is in {place}"),
        None => "it is lost with the next reboot".into(),
    };
    format!("incident {number} is not kept: {why}; {cure}; {place}")
}

/// The lines to where they may outlive the machine: the name of that place.
fn log_that_stays(lines: &[u8]) -> Option<&'static str> {
    let pstore = OpenOptions::new().write(true).open(PSTORE);
    if pstore.and_then(|mut file| file.write_all(lines)).is_ok() {
        return Some(PSTORE);
    }
    let mut log = LineWriter::kmsg(open_kmsg().ok()?);
    log.set_priority(Priority::Warning);
    log.write_all(lines).ok()?;
    Some("the kernel log")
}

/// A folder of incidents.
struct Store {
    folder: PathBuf,
    keep: u32,
}

impl Store {
    /// The highest number; 0 in a folder that is empty or not there.
    fn last(&self) -> io::Result<u32> {
        match self.lock().and_then(|_lock| self.numbers()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            numbers => Ok(numbers?.last().copied().unwrap_or(0)),
        }
    }

    /// Until it is closed nobody else counts, writes or tidies up here: a lifeboat below another one may have the same
    /// folder. This process may wait, as PID 1 does not wait for it. Where there are no such locks it goes on without.
    fn lock(&self) -> io::Result<File> {
        let folder = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&self.folder)?;
        let _ = rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive);
        Ok(folder)
    }

    /// In their order. What has another name is not looked at. Who calls it has the lock, so nobody is at a file that
    /// is half written.
    fn numbers(&self) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            numbers.extend(number_of(name));
            if name.starts_with(PARTIAL) {
                // Of a machine that went down, or of one that was too slow.
                let _ = fs::remove_file(self.folder.join(name));
            }
        }
        Ok(BinaryHeap::from(numbers).into_sorted_vec())
    }

    /// Writes an incident under its number, or under a higher one where others have taken those behind `settled`: that
    /// one. All that are not settled move by as much, so it leaves room for one that began earlier and ends later. Only
    /// then the oldest beyond `keep` are removed.
    fn add(&self, number: u32, settled: u32, letter: &[u8]) -> Result<u32, Fault> {
        self.make_folder().map_err(|error| Fault::Failed("make", error))?;
        if self.is_in_memory() {
            return Err(Fault::InMemory);
        }
        let lock = self.lock().map_err(|error| Fault::Failed("read", error))?;
        let numbers = self.numbers().map_err(|error| Fault::Failed("read", error))?;
        let last = numbers.last().copied().unwrap_or(0);
        let by = if number > settled { last.saturating_sub(settled) } else { 0 };
        let number = number.saturating_add(by);
        if numbers.binary_search(&number).is_ok() {
            // Only of a number that is settled: it is no longer ours to change.
            return Err(Fault::Failed("write to", io::ErrorKind::AlreadyExists.into()));
        }
        if number_of(&file_name(number)).is_none() {
            let error = io::Error::from_raw_os_error(libc::EOVERFLOW);
            return Err(Fault::Failed("find a number in", error));
        }
        let partial = self.folder.join(format!("{PARTIAL}{number}"));
        let written = write_whole(&partial, &file_of(number, letter))
            .and_then(|()| fs::rename(&partial, self.folder.join(file_name(number))))
            .and_then(|()| lock.sync_all());
        if let Err(error) = written {
            let _ = fs::remove_file(&partial);
            return Err(Fault::Failed("write to", error));
        }
        for old in numbers.iter().take((numbers.len() + 1).saturating_sub(self.keep as usize)) {
            // One that stays only takes up room.
            let _ = fs::remove_file(self.folder.join(file_name(*old)));
        }
        Ok(number)
    }

    /// The folder, and the one that it is in; not more: a disk that is not mounted yet shall not be taken for an empty
    /// one.
    fn make_folder(&self) -> io::Result<()> {
        let make = |folder: &Path| match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Err(_) => Ok(()),
            Ok(()) => folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all()),
        };
        match make(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.folder.parent().map_or(Ok(()), make)?;
                make(&self.folder)
            }
            made => made,
        }
    }

    fn is_in_memory(&self) -> bool {
        let magic = match magic_of(&self.folder) {
            Some(OVERLAY) => {
                let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
                let dev = fs::metadata(&self.folder).map_or(0, |found| found.dev());
                let device = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
                upper_folder(&mounts, &device).and_then(|upper| magic_of(Path::new(upper)))
            }
            magic => magic,
        };
        magic.is_some_and(|magic| IN_MEMORY.contains(&magic)) && !cfg!(test)
    }
}

/// Of the file system; `None` also where the folder cannot be reached.
fn magic_of(folder: &Path) -> Option<u64> {
    rustix::fs::statfs(folder).ok().and_then(|found| u64::try_from(found.f_type).ok())
}

/// The writable layer of the overlay that is this device (proc_pid_mountinfo(5);
/// Documentation/filesystems/overlayfs.rst, `upperdir`).
fn upper_folder<'a>(mounts: &'a str, device: &str) -> Option<&'a str> {
    let of_device = |line: &&str| line.split(' ').nth(2) == Some(device);
    let options = mounts.lines().find(of_device)?.rsplit(' ').next()?;
    options.split(',').find_map(|option| option.strip_prefix("upperdir="))
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn incidents_are_numbered_on_and_bounded() {
        let parent = tempfile::tempdir().expect("a folder");
        let store = Store { folder: parent.path().join("a/b"), keep: 3 };
        assert_eq!(store.last().expect("nothing yet"), 0);
        for number in 1..=4 {
            assert_eq!(store.add(number, number - 1, b"\"unit\":1\n\"x\":2").expect("room"), number);
        }
        assert_eq!(names(&store.folder), ["2.json", "3.json", "4.json"]);
        let file = fs::read_to_string(store.folder.join("2.json")).expect("the file");
        assert_eq!(file, "{\"format\":1,\"number\":2,\"unit\":1,\"x\":2}\n");
        // Another boot counts from 1 again, until it has heard of these.
        assert_eq!((store.last().expect("a folder"), store.add(1, 0, b"a\nb").expect("room")), (4, 5));
        for name in ["notes.txt", "12345678901.json", "07.json", ".partial-6"] {
            fs::write(store.folder.join(name), "").expect("a file");
        }
        fs::create_dir(store.folder.join("9.json")).expect("a folder");
        assert_eq!(store.add(6, 5, b"a\nb").expect("room"), 10);
        assert_eq!(
            names(&store.folder),
            ["07.json", "10.json", "12345678901.json", "5.json", "9.json", "notes.txt"]
        );
        let store = Store { keep: 1, ..store };
        assert_eq!(store.add(11, 10, b"a\nb").expect("room"), 11);
        assert_eq!(names(&store.folder), ["07.json", "11.json", "12345678901.json", "9.json", "notes.txt"]);
    }

    #[test]
    fn an_overlay_is_where_its_upper_layer_is() {
        let mounts = "22 1 0:21 / /proc rw - proc proc rw\n\
                      30 1 0:27 / /data ro,relatime shared:1 - overlay overlay ro,lowerdir=/a:/b\n\
                      31 1 0:28 / /var/lib rw - overlay overlay rw,lowerdir=/a,upperdir=/run/upper,workdir=/w\n";
        for (device, upper) in
            [("0:28", Some("/run/upper")), ("0:27", None), ("0:21", None), ("0:2", None), ("0:99", None)]
        {
            assert_eq!(upper_folder(mounts, device), upper, "{device}");
        }
    }

    #[test]
    fn one_that_ends_later_keeps_its_lower_number() {
        let parent = tempfile::tempdir().expect("a folder");
        let store = Store { folder: parent.path().join("a"), keep: 9 };
        let add = |number, settled| store.add(number, settled, b"a\nb").expect("room");
        assert_eq!((add(2, 0), add(1, 2), add(3, 2)), (2, 1, 3));
        fs::write(store.folder.join("7.json"), "").expect("another's file");
        assert_eq!((add(5, 3), add(4 + 4, 9), add(10, 9)), (9, 8, 10));
        assert!(store.add(8, 10, b"a\nb").is_err(), "no file is overwritten");
    }

    /// As those of a lifeboat and of one below it, with one folder.
    #[test]
    fn two_writers_leave_each_other_their_files() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("a");
        let write = |who: u32| {
            let store = Store { folder: folder.clone(), keep: 1_000 };
            let letter = format!("\"unit\":{who}\n\"x\":2");
            (0..100).map(|_| store.add(1, 0, letter.as_bytes()).expect("room")).collect::<Vec<_>>()
        };
        let mut all = std::thread::scope(|scope| {
            [1, 2]
                .map(|who| scope.spawn(move || write(who)))
                .map(|thread| thread.join().expect("its numbers"))
        })
        .concat();
        all.sort_unstable();
        assert_eq!(all, (1..=200).collect::<Vec<_>>());
        assert_eq!(names(&folder).len(), 200);
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_told() {
        let parent = tempfile::tempdir().expect("a folder");
        let file = parent.path().join("file");
        fs::write(&file, "").expect("a file");
        let check = |folder: PathBuf, expected: &str| {
            let store = Store { folder, keep: 3 };
            let fault = store.add(7, 0, b"a\nb").expect_err("no folder");
            let told = complaint(&store.folder, 0, b"", fault);
            assert!(told.contains(expected) && told.contains("`incidents` in system.ron"), "{told}");
        };
        check(file.join("below"), "Not a directory");
        check(parent.path().join("too/far/down"), "make its folder");
        check("/proc/incidents".into(), "cannot make /proc/incidents");
        check(file, "cannot read");
        fs::write(parent.path().join("999999999.json"), "").expect("a file");
        check(parent.path().into(), "cannot find a number");
    }
}
