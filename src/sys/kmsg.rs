//! Words for people: lines to the kernel log and to the console, each in one write(2).

use super::error::SysError;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::io;
use std::os::fd::OwnedFd;

/// The kernel takes no longer record than 1,024 bytes from `/dev/kmsg`; its own head takes a part of them.
const LINE_MAX: usize = 960;

/// A syslog(2) level that has a use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// 2: the machine is in danger.
    Critical,
    /// 3.
    Error,
    /// 4.
    Warning,
    /// 6.
    Info,
}

impl Priority {
    fn digit(self) -> u8 {
        match self {
            Self::Critical => b'2',
            Self::Error => b'3',
            Self::Warning => b'4',
            Self::Info => b'6',
        }
    }
}

/// Opens `/dev/kmsg` for writing; never blocks.
pub fn open_kmsg() -> Result<OwnedFd, SysError> {
    open("/dev/kmsg", OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty())
        .map_err(|errno| SysError::new("open", "/dev/kmsg", errno))
}

/// Opens `/dev/kmsg` for reading, from its oldest record on; never blocks.
pub fn open_kmsg_to_read() -> Result<OwnedFd, SysError> {
    open("/dev/kmsg", OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty())
        .map_err(|errno| SysError::new("open", "/dev/kmsg", errno))
}

/// Joins the pieces of a line and hands it over whole: `/dev/kmsg` makes a record of each write, and loggers write in
/// pieces. Fixed memory, no allocation.
///
/// Nothing is ever waited for and nothing fails: what a nonblocking descriptor does not take is dropped. A line that is
/// too long is cut.
#[derive(Debug)]
pub struct LineWriter {
    fd: OwnedFd,
    priority: Option<Priority>,
    line: [u8; LINE_MAX],
    length: usize,
}

impl LineWriter {
    /// Lines to a console or a file, as they are.
    #[must_use]
    pub fn plain(fd: OwnedFd) -> Self {
        Self { fd, priority: None, line: [0; LINE_MAX], length: 0 }
    }

    /// Lines to `/dev/kmsg`, with their level and lifeboat's name at their head.
    #[must_use]
    pub fn kmsg(fd: OwnedFd) -> Self {
        Self { priority: Some(Priority::Info), ..Self::plain(fd) }
    }

    /// The level of the lines to come; without effect on a plain writer.
    pub fn set_priority(&mut self, priority: Priority) {
        if self.priority.is_some() {
            self.priority = Some(priority);
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.length == 0
            && let Some(priority) = self.priority
        {
            self.append(&[b'<', priority.digit(), b'>']);
            self.append(b"lifeboat: ");
        }
        self.append(bytes);
    }

    /// Leaves room for the line's end.
    fn append(&mut self, bytes: &[u8]) {
        let room = LINE_MAX - 1;
        let free = self.line.get_mut(self.length..room).unwrap_or_default();
        let length = free.len().min(bytes.len());
        for (to, from) in free.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.length += length;
    }

    fn finish(&mut self) {
        if let Some(place) = self.line.get_mut(self.length) {
            *place = b'\n';
            self.length += 1;
        }
        if let Some(line) = self.line.get(..self.length) {
            while nix::unistd::write(&self.fd, line) == Err(Errno::EINTR) {}
        }
        self.length = 0;
    }
}

impl io::Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pieces = bytes.split_inclusive(|byte| *byte == b'\n');
        for piece in &mut pieces {
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    self.push(end);
                    self.finish();
                }
                None => self.push(piece),
            }
        }
        Ok(bytes.len())
    }

    /// A line goes out when it ends, not before.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a kernel setting: `vm.oom_dump_tasks` is `/proc/sys/vm/oom_dump_tasks`. A name with a slash in it is taken as
/// a path below `/proc/sys`, for names that have points of their own.
pub fn write_sysctl(name: &str, value: &str) -> Result<(), SysError> {
    let below = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let path = format!("/proc/sys/{below}");
    if below.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(SysError::new("write", path, libc::EINVAL));
    }
    let failed = |errno| SysError::new("write", format!("{value:?} to {path}"), errno);
    let file = open(path.as_str(), OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(failed)?;
    // kernel.printk_devkmsg refuses a word without its line's end.
    let line = format!("{value}\n");
    nix::unistd::write(&file, line.as_bytes()).map(|_| ()).map_err(failed)
}

/// Keeps the kernel's OOM dumps, about 30 KB for each try, from filling the log and holding up a slow console: no task
/// lists, a console that shows only errors (level 4: what is below 4), and no rate limit on lifeboat's own lines.
///
/// Goes on over failures and hands them back; an old or a small kernel may lack some of these settings.
pub fn quieten_kernel() -> Vec<SysError> {
    let settings =
        [("vm.oom_dump_tasks", "0"), ("kernel.printk_devkmsg", "on"), ("kernel.printk", "4 4 1 7")];
    settings.into_iter().filter_map(|(name, value)| write_sysctl(name, value).err()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// What arrives of these pieces. A pipe with `O_DIRECT` keeps each write apart.
    fn records(make: fn(OwnedFd) -> LineWriter, pieces: &[&str]) -> Vec<String> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_DIRECT).expect("a pipe");
        let mut writer = make(write);
        for piece in pieces {
            assert_eq!(writer.write(piece.as_bytes()).ok(), Some(piece.len()));
        }
        drop(writer);
        let mut read = std::fs::File::from(read);
        let mut found = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = read.read(&mut buffer) {
            found.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        found
    }

    #[test]
    fn a_line_is_one_write() {
        let check = |make, pieces: &[&str], expected: &[&str]| assert_eq!(records(make, pieces), expected);
        check(LineWriter::plain, &["a", "b ", "c\n"], &["ab c\n"]);
        check(LineWriter::kmsg, &["a", "b\n"], &["<6>lifeboat: ab\n"]);
        check(LineWriter::plain, &["a\nb\n", "c"], &["a\n", "b\n"]);
        check(LineWriter::plain, &["\n"], &["\n"]);
        check(LineWriter::plain, &[""], &[]);
        let long = "x".repeat(5_000);
        let cut = format!("{}\n", "x".repeat(LINE_MAX - 1));
        check(LineWriter::plain, &[&long, "\nnext\n"], &[&cut, "next\n"]);
        let urgent = |fd| {
            let mut writer = LineWriter::kmsg(fd);
            writer.set_priority(Priority::Critical);
            writer
        };
        check(urgent, &["a\n"], &["<2>lifeboat: a\n"]);
    }

    #[test]
    fn a_full_pipe_blocks_nobody() {
        let (_read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK).expect("a pipe");
        let mut writer = LineWriter::plain(write);
        for _ in 0..1_000 {
            assert!(writeln!(writer, "{}", "x".repeat(900)).is_ok());
        }
    }

    #[test]
    fn settings_stay_below_proc_sys() {
        for name in ["../../etc/passwd", "", ".", "vm..x", "/etc"] {
            let error = write_sysctl(name, "0").expect_err("no setting");
            assert_eq!(error.errno(), libc::EINVAL, "{name}");
        }
        assert_eq!(write_sysctl("vm.no_such_setting", "0").map_err(|error| error.errno()), Err(libc::ENOENT));
    }
}
