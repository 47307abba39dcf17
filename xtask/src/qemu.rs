//! Boots one guest under QEMU and reads what it says, line by line, until it ends or its time is over.
//!
//! The first serial port is the guest's console and comes out of QEMU's standard output; the second one carries the
//! report of the tests and comes out of its standard error, so no socket or file is left behind. Two threads
//! read them and send lines over a channel; the caller's thread waits on it with a deadline and never sleeps.

use crate::error::{Error, Result};
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// One guest: what it boots, and with how much memory.
#[derive(Debug, Clone)]
pub struct Machine<'a> {
    /// The emulator.
    pub qemu: &'a Path,
    /// The compressed kernel.
    pub kernel: &'a Path,
    /// The initramfs archive.
    pub initramfs: PathBuf,
    /// What is added to the kernel's command line.
    pub cmdline: String,
    /// The guest's memory in MiB.
    pub ram_mib: u32,
    /// The host's threads for its two processors.
    pub threads: Threads,
    /// The file of its only disk, if it has one: `/dev/nvme0n1`, for which both kernels need no module.
    pub disk: Option<PathBuf>,
}

/// QEMU's `thread=` of `-accel tcg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// One for all processors, which take turns: the same on every machine.
    Single,
    /// One for each processor. It loses a boot now and then to the kernel's text patching, and is no faster; but what
    /// one processor does takes no time from what runs on the other.
    Multi,
}

/// How long a guest may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The place and the text by which we know that PID 1 is up. A guest that never says it is a fault of the rig.
    pub marker: (Source, &'static str),
    /// The time until the marker.
    pub until_marker: Duration,
    /// The time until the guest's end, counted from QEMU's start.
    pub until_end: Duration,
}

/// The serial port that a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The first one: the kernel's and PID 1's console.
    Console,
    /// The second one: the report of the tests.
    Report,
}

/// How a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It switched itself off.
    PoweredOff,
    /// It asked for a restart, which QEMU turns into an exit.
    Rebooted,
    /// It halted; we ended QEMU.
    Halted,
    /// The kernel panicked.
    Panicked,
    /// It was still running at its deadline; we ended QEMU.
    Deadline,
    /// QEMU ended without a last word of the kernel.
    Vanished,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PoweredOff => "powered off",
            Self::Rebooted => "rebooted",
            Self::Halted => "halted",
            Self::Panicked => "ended by a kernel panic",
            Self::Deadline => "still running at its deadline",
            Self::Vanished => "gone without a last word of the kernel",
        })
    }
}

/// What became of a guest.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    /// How it ended.
    pub end: End,
    /// Whether PID 1 came up, by the marker of [`Patience`].
    pub came_up: bool,
    /// From QEMU's start to its end.
    pub took: Duration,
}

/// A guest that says more than we read has to wait: QEMU's pipe is full.
const LINES_WAITING: usize = 1024;
/// A longer line is cut in pieces.
const LINE_BYTES: u64 = 64 * 1024;

/// The kernel's last words, at a level that `quiet` lets through.
const LAST_WORDS: [(&str, End); 4] = [
    ("reboot: Power down", End::PoweredOff),
    ("reboot: Restarting system", End::Rebooted),
    ("reboot: System halted", End::Halted),
    ("Kernel panic - not syncing", End::Panicked),
];

impl Machine<'_> {
    /// Boots the guest; `on_line` sees each line as it comes.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn boot(&self, patience: &Patience, on_line: impl FnMut(Source, &str)) -> Result<Boot> {
        let mut command = self.command();
        command.args(["-serial", "stdio", "-chardev", "file,id=report,path=/dev/stderr"]);
        command.args(["-serial", "chardev:report"]);
        attend(&mut command, patience, on_line)
    }

    /// Boots the guest with its console on our own terminal, and QEMU's monitor behind Ctrl-a c.
    ///
    /// # Errors
    /// When QEMU cannot be started, or ends with an error.
    pub fn boot_on_terminal(&self) -> Result<()> {
        let status = self
            .command()
            .args(["-serial", "mon:stdio"])
            .status()
            .map_err(|error| Error::new(format!("cannot run {}", self.qemu.display())).because(error))?;
        if status.success() { Ok(()) } else { Err(Error::new(format!("QEMU failed ({status})"))) }
    }

    /// Software emulation: slower than KVM, and the same on every machine.
    fn command(&self) -> Command {
        let accelerator = match self.threads {
            Threads::Single => "tcg,thread=single",
            Threads::Multi => "tcg,thread=multi",
        };
        let mut command = Command::new(self.qemu);
        command.args(["-M", "q35", "-accel", accelerator, "-cpu", "max", "-smp", "2"]);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.arg("-m").arg(self.ram_mib.to_string());
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(&self.initramfs);
        if let Some(disk) = &self.disk {
            command.arg("-drive").arg(format!("file={},format=raw,if=none,id=disk", disk.display()));
            command.args(["-device", "nvme,drive=disk,serial=disk"]);
        }
        // A panic restarts at once, which ends QEMU; an oops is a panic, for nothing after it can be trusted.
        let cmdline = format!("console=ttyS0 quiet loglevel=4 panic=-1 oops=panic {}", self.cmdline);
        command.arg("-append").arg(cmdline.trim_end());
        command
    }
}

/// Starts the command and listens to it until it ends or its time is over.
fn attend(command: &mut Command, patience: &Patience, mut on_line: impl FnMut(Source, &str)) -> Result<Boot> {
    let started = Instant::now();
    let mut running = Running::start(command)?;
    let mut came_up = false;
    let mut end = None;
    loop {
        let limit = if came_up { patience.until_end } else { patience.until_marker.min(patience.until_end) };
        let left = limit.saturating_sub(started.elapsed());
        // Without the first arm a guest that floods its console would have no deadline.
        let next =
            if left.is_zero() { Err(RecvTimeoutError::Timeout) } else { running.lines.recv_timeout(left) };
        match next {
            Ok((source, line)) => {
                on_line(source, &line);
                came_up |= (source, true) == (patience.marker.0, line.contains(patience.marker.1));
                if source == Source::Console {
                    end = last_words(&line).or(end);
                }
                if end == Some(End::Halted) {
                    running.stop();
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                // A guest that says goodbye and then hangs has not ended either.
                end = Some(End::Deadline);
                running.stop();
                running.lines.iter().for_each(|(source, line)| on_line(source, &line));
                break;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    running.wait();
    Ok(Boot { end: end.unwrap_or(End::Vanished), came_up, took: started.elapsed() })
}

fn last_words(line: &str) -> Option<End> {
    LAST_WORDS.iter().find(|(words, _)| line.contains(words)).map(|&(_, end)| end)
}

/// A QEMU at work. It never outlives this value.
struct Running {
    child: Child,
    lines: Receiver<(Source, String)>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(
                |error| {
                    let program = command.get_program().to_string_lossy().into_owned();
                    Error::new(format!("cannot run {program}")).because(error).cure("run `cargo xtask setup`")
                },
            )?;
        let (sender, lines) = sync_channel(LINES_WAITING);
        if let Some(console) = child.stdout.take() {
            read_lines(console, Source::Console, sender.clone());
        }
        if let Some(report) = child.stderr.take() {
            read_lines(report, Source::Report, sender);
        }
        Ok(Self { child, lines })
    }

    /// Ends QEMU; an error only says that it has ended already.
    fn stop(&mut self) {
        drop(self.child.kill());
    }

    fn wait(&mut self) {
        drop(self.child.wait());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        self.wait();
    }
}

/// Sends each line of `from` until its end, in a thread of its own.
fn read_lines(from: impl Read + Send + 'static, source: Source, to: SyncSender<(Source, String)>) {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            if to.send((source, text)).is_err() {
                break;
            }
            line.clear();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{End, Patience, Source, attend, last_words};
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn last_words_tell_the_ends_apart() {
        let cases = [
            ("[    3.1] reboot: Power down", Some(End::PoweredOff)),
            ("[    3.1] reboot: Restarting system", Some(End::Rebooted)),
            ("[    3.1] reboot: System halted", Some(End::Halted)),
            ("[    3.1] Kernel panic - not syncing: Attempted to kill init!", Some(End::Panicked)),
            ("lifeboat: reboot asked for", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(last_words(line), expected, "{line}");
        }
    }

    /// How a shell script in QEMU's place ends, and whether it came up: by the marker within 2 s, then within 1 s more.
    fn attended(script: &str) -> Option<(End, bool)> {
        let patience = Patience {
            marker: (Source::Console, "up"),
            until_marker: Duration::from_secs(2),
            until_end: Duration::from_secs(3),
        };
        let boot = attend(Command::new("sh").args(["-c", script]), &patience, |_, _| {}).ok()?;
        Some((boot.end, boot.came_up))
    }

    #[test]
    fn every_guest_ends() {
        let cases = [
            ("echo up; echo 'reboot: Power down'", (End::PoweredOff, true)),
            ("echo up >&2; echo 'reboot: Restarting system'", (End::Rebooted, false)),
            ("echo up; echo 'Kernel panic - not syncing: x'; exit 1", (End::Panicked, true)),
            ("echo up; echo 'reboot: System halted'; exec cat /dev/zero", (End::Halted, true)),
            ("echo up; exit 3", (End::Vanished, true)),
            ("exec cat /dev/zero", (End::Deadline, false)),
            ("exec yes", (End::Deadline, false)),
            ("echo up; exec yes", (End::Deadline, true)),
            ("echo up; exec yes >&2", (End::Deadline, true)),
            ("echo up; echo 'reboot: Power down'; exec sleep 60", (End::Deadline, true)),
        ];
        std::thread::scope(|scope| {
            for (script, expected) in cases {
                scope.spawn(move || assert_eq!(attended(script), Some(expected), "{script}"));
            }
        });
    }
}
