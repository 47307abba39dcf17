//! `cargo xtask demo`: boots the demo image, shows the console, and believes nothing but the verdict on it.

use crate::error::{Error, Result};
use crate::image::{self, Image};
use crate::qemu::{End, Machine, Patience, Source, Threads};
use crate::setup::{Kernel, Kit};
use crate::vm::TRIES;
use std::time::Duration;

const RAM_MIB: u32 = 512;
const UNTIL_UP: Duration = Duration::from_secs(90);
/// The demo takes about half a minute under software emulation; a loaded host may take ten times as long.
const UNTIL_END: Duration = Duration::from_secs(300);

/// What the demo's guest says of itself at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Records that were saved.
    pub saved: u64,
    /// Records that were written.
    pub written: u64,
    /// How often the kernel's OOM killer struck.
    pub kernel_oom_kills: u64,
}

impl Verdict {
    /// Reads "... verdict: saved N of N records, kernel OOM kills: N".
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("verdict: saved ")?;
        let (saved, rest) = rest.split_once(" of ")?;
        let (written, rest) = rest.split_once(" records, kernel OOM kills: ")?;
        let kills: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(Self {
            saved: saved.parse().ok()?,
            written: written.parse().ok()?,
            kernel_oom_kills: kills.parse().ok()?,
        })
    }

    /// Whether something was there to be saved, all of it was, and the kernel killed nothing.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.written > 0 && self.saved == self.written && self.kernel_oom_kills == 0
    }
}

/// Runs the demo to its verdict; with `shell`, leaves a shell on the terminal instead.
///
/// # Errors
/// When the image cannot be made, QEMU cannot be started, there is no verdict, or it does not hold.
pub fn run(kit: &Kit, kernel: Kernel, shell: bool) -> Result<()> {
    image::make(kit, &[Image::Demo])?;
    let machine = Machine {
        qemu: &kit.qemu,
        kernel: kit.kernel(kernel),
        initramfs: Image::Demo.path(),
        cmdline: format!("lifeboat.demo={}", if shell { "shell" } else { "auto" }),
        ram_mib: RAM_MIB,
        threads: Threads::Single,
        disk: None,
    };
    if shell {
        println!("demo: Linux {} with a shell; `poweroff` ends it, and so does Ctrl-a x", kernel.version());
        return machine.boot_on_terminal();
    }
    println!("demo: booting Linux {}; its serial console follows", kernel.version());
    let mut verdict = None;
    let patience =
        Patience { marker: (Source::Console, "lifeboat 0."), until_marker: UNTIL_UP, until_end: UNTIL_END };
    let mut boot_once = || {
        machine.boot(&patience, |source, line| {
            println!("{line}");
            if source == Source::Console {
                verdict = Verdict::parse(line).or(verdict);
            }
        })
    };
    let mut boot = boot_once()?;
    for again in 2..=TRIES {
        if boot.came_up {
            break;
        }
        println!(
            "demo: the guest was {} before PID 1's first line, a fault of the rig; try {again}",
            boot.end
        );
        boot = boot_once()?;
    }
    let seconds = boot.took.as_secs_f64();
    let fault = match verdict {
        _ if boot.end != End::PoweredOff => format!("demo: the guest was {} after {seconds:.1} s", boot.end),
        None => "demo: the guest powered off without a verdict".to_owned(),
        Some(verdict) if !verdict.holds() => format!("demo: the verdict does not hold: {verdict:?}"),
        Some(_) => {
            println!("demo: the verdict holds, and the machine powered off after {seconds:.1} s");
            return Ok(());
        }
    };
    Err(Error::new(fault).cure("the console is above; `cargo xtask demo --shell` lets you look around"))
}

#[cfg(test)]
mod tests {
    use super::Verdict;

    #[test]
    fn verdicts() {
        let cases = [
            ("verdict: saved 1000 of 1000 records, kernel OOM kills: 0", Some(true)),
            ("[  12.3] demo: verdict: saved 7 of 7 records, kernel OOM kills: 0.", Some(true)),
            ("verdict: saved 999 of 1000 records, kernel OOM kills: 0", Some(false)),
            ("verdict: saved 1000 of 1000 records, kernel OOM kills: 1", Some(false)),
            ("verdict: saved 0 of 0 records, kernel OOM kills: 0", Some(false)),
            ("verdict: saved all of 1000 records, kernel OOM kills: 0", None),
            ("verdict: saved 1 of 1 records", None),
            ("saved 1 of 1 records, kernel OOM kills: 0", None),
        ];
        for (line, expected) in cases {
            assert_eq!(Verdict::parse(line).map(|verdict| verdict.holds()), expected, "{line}");
        }
    }
}
