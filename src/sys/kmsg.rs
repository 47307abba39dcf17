//! Words for people: lines to the kernel log and to the console, each in one write(2).

use super::error::SysError;
use super::sink::{Sink, Text};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::io;
use std::os::fd::OwnedFd;

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
    /// What stands before a line.
    fn head(self) -> &'static [u8] {
        match self {
            Self::Critical => b"<2>",
            Self::Error => b"<3>",
            Self::Warning => b"<4>",
            Self::Info => b"<6>",
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
/// Nothing is ever waited for and nothing fails: what a nonblocking descriptor does not take is dropped, and counted. A
/// line that is too long is cut.
#[derive(Debug)]
pub struct LineWriter {
    sink: Sink,
    priority: Option<Priority>,
    line: Text,
    at_start: bool,
}

impl LineWriter {
    /// Lines to a console or a file, as they are.
    #[must_use]
    pub fn plain(fd: OwnedFd) -> Self {
        Self { sink: Sink::new(Some(fd)), priority: None, line: Text::default(), at_start: true }
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
        if self.at_start
            && let Some(priority) = self.priority
        {
            self.line.push(priority.head());
            self.line.push(b"lifeboat: ");
        }
        self.at_start = false;
        self.line.push(bytes);
    }

    fn finish(&mut self) {
        let level = self.priority.map_or(&b""[..], Priority::head);
        self.sink.say(&[level, b"lifeboat: its lines that found no room here: "], &self.line);
        self.line.clear();
        self.at_start = true;
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
    use super::super::sink::LINE_MAX;
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

    /// As at boot, where all faults of the unit files come at once.
    #[test]
    fn lines_that_a_slow_console_does_not_take_are_counted_and_told() {
        let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK).expect("a pipe");
        let (mut read, mut writer) = (std::fs::File::from(read), LineWriter::plain(write));
        let mut all_of = || {
            let mut bytes = Vec::new();
            // It ends with `EAGAIN`, behind everything.
            let _ = read.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        for _ in 0..20_000 {
            assert!(writer.write(b"01234567\n89\n").is_ok());
        }
        let taken = all_of();
        let whole = taken.lines().filter(|line| matches!(*line, "01234567" | "89")).count();
        assert!(writer.write(b"afterwards\n").is_ok());
        let told = format!("lifeboat: its lines that found no room here: {}\nafterwards\n", 40_000 - whole);
        assert_eq!(all_of().trim_start_matches('\n'), told);
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
