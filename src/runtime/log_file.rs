//! Log files: a process for each, because a write to a file may wait for a disk, and PID 1 must not.
//!
//! lifeboat gives lines into a pipe, and drops and counts what that does not take. The process at its other end is
//! lifeboat's own program in another part (`--write-log`). It appends, renames what has become too long to `.1`, `.2`
//! and so on, and drops what cannot be written. It ends with the pipe.

use super::story;
use crate::sys::error::SysError;
use crate::sys::spawn::{Program, Start, input_pipe, start};
use crate::unit::LogFile;
use std::ffi::{CString, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two complaints about one file.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// A longer line is written in pieces.
const LINE_BYTES_MAX: u64 = 4_096;

/// Whose log it is, for complaints.
#[derive(Clone, Debug, Default)]
pub struct Whose {
    /// The unit's name.
    pub unit: String,
    /// Where its log is named, with the field.
    pub written: String,
}

/// Starts the process that writes a log; gives the pipe to it, nonblocking, and its pid. It complains to `complaints`.
/// A failure is told, and the unit runs without its log.
pub(super) fn start_writer(
    (log, whose): (&LogFile, &Whose),
    null: BorrowedFd<'_>,
    complaints: BorrowedFd<'_>,
    oom_score_adj: i32,
) -> Option<(OwnedFd, u32)> {
    let numbers =
        [log.max_bytes.to_string(), log.keep.to_string()].map(|text| CString::new(text).unwrap_or_default());
    let [max_bytes, keep] = numbers;
    let whose = [&whose.unit, &whose.written].map(|text| CString::new(text.as_str()).unwrap_or_default());
    let [unit, written] = whose;
    let part = c"--write-log".to_owned();
    let argv = [c"/proc/self/exe".to_owned(), part, log.path.clone(), max_bytes, keep, unit, written];
    let started = Program::new(&argv, &[]).and_then(|program| {
        let (read, write) = input_pipe()?;
        let child = start(&Start {
            program: &program,
            cgroup: None,
            oom_score_adj,
            stdio: [read.as_fd(), null, complaints],
            working_directory: Some(c"/"),
            steps: &[],
            handed: &[],
        })?;
        Ok((write, child.pid))
    });
    match started {
        Ok(writer) => Some(writer),
        Err(error) => {
            let path = log.path.to_string_lossy().into_owned();
            story::complain(&SysError::new("start the writer of", path, error.errno()));
            None
        }
    }
}

/// The other end: writes standard input to the file, until it ends.
pub fn write_log(path: PathBuf, max_bytes: u64, keep: u32, whose: Whose) {
    let mut log = Log { path, max_bytes, keep, whose, file: None, complained: None };
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        match io::Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => log.append(&line),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// What to do about a file that cannot be written.
pub(super) fn cure(error: io::ErrorKind) -> &'static str {
    match error {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room there",
        io::ErrorKind::ReadOnlyFilesystem => "mount it writable",
        io::ErrorKind::NotFound => "make its folder",
        _ => "see that it can be written",
    }
}

struct Log {
    path: PathBuf,
    max_bytes: u64,
    keep: u32,
    whose: Whose,
    /// The file and its length; `None` where it has to be opened.
    file: Option<(File, u64)>,
    complained: Option<Instant>,
}

impl Log {
    /// What cannot be written is lost here; the next line tries again.
    fn append(&mut self, line: &[u8]) {
        if let Err(error) = self.try_append(line) {
            self.file = None;
            if self.complained.is_none_or(|at| at.elapsed() > COMPLAINT_PAUSE) {
                self.complained = Some(Instant::now());
                // There is nobody else to tell.
                let Whose { unit, written } = &self.whose;
                let (path, cure) = (self.path.display(), cure(error.kind()));
                let _ = writeln!(
                    io::stderr(),
                    "lifeboat: {unit}: lines are lost: cannot write {path}: {error}; {cure}, or name another path in \
                     {written}"
                );
            }
        }
    }

    fn try_append(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.file.as_ref().is_some_and(|(_, size)| *size > 0 && size + length > self.max_bytes) {
            self.file = None;
            self.rotate()?;
        }
        let (file, size) = match &mut self.file {
            Some(open) => open,
            none => none.insert(open(&self.path)?),
        };
        file.write_all(line)?;
        *size += length;
        Ok(())
    }

    /// The oldest is overwritten; with none to keep it is the file itself.
    fn rotate(&self) -> io::Result<()> {
        for number in (1..self.keep).rev() {
            match std::fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        match self.keep {
            0 => std::fs::remove_file(&self.path),
            _ => std::fs::rename(&self.path, numbered(&self.path, 1)),
        }
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().as_bytes().to_vec();
    name.extend(format!(".{number}").bytes());
    OsString::from_vec(name).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_in_size_and_number() {
        let check = |keep, expected: &[&str]| {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("x.log");
            let mut log = Log {
                path: path.clone(),
                max_bytes: 8,
                keep,
                whose: Whose::default(),
                file: None,
                complained: None,
            };
            for line in ["one\n", "two\n", "three\n", "4\n", "a line that is too long\n", "six\n"] {
                log.append(line.as_bytes());
            }
            assert!(log.complained.is_none());
            let mut found: Vec<(String, String)> = std::fs::read_dir(folder.path())
                .expect("a folder")
                .map(|entry| entry.expect("a file"))
                .map(|entry| {
                    let text = std::fs::read_to_string(entry.path()).expect("text");
                    (entry.file_name().to_string_lossy().into_owned(), text)
                })
                .collect();
            found.sort();
            assert_eq!(found.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), expected, "{keep}");
        };
        let (long, third) = ("a line that is too long\n", "three\n4\n");
        check(0, &["six\n"]);
        check(1, &["six\n", long]);
        check(2, &["six\n", long, third]);
        check(9, &["six\n", long, third, "one\ntwo\n"]);
    }

    #[test]
    fn a_file_that_is_there_is_continued_and_a_failure_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.log");
        std::fs::write(&path, "12345\n").expect("a file");
        let mut log = Log {
            path: path.clone(),
            max_bytes: 8,
            keep: 1,
            whose: Whose::default(),
            file: None,
            complained: None,
        };
        log.append(b"\n");
        log.append(b"next\n");
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "next\n");
        log.path = folder.path().join("none/x.log");
        log.file = None;
        log.append(b"lost\n");
        let first = log.complained.expect("a complaint");
        log.append(b"lost\n");
        assert_eq!(log.complained, Some(first));
        log.path = path.clone();
        log.append(b"7\n");
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "next\n7\n");
    }
}
