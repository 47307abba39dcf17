//! The cast: small programs that behave in one way, for the units of the cases.

use nix::sys::signal::{SigSet, Signal};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// Stays until it is killed.
pub(crate) fn pause() -> ! {
    loop {
        thread::park();
    }
}

/// Stays, and only SIGKILL ends it.
pub(crate) fn ignore_term() -> Result<(), String> {
    SigSet::all().thread_block().map_err(|error| format!("cannot block signals: {error}"))?;
    pause()
}

/// Makes a file, stays until it is asked to go, and uses up memory instead.
pub(crate) fn leak_on_term(file: &str) -> Result<(), String> {
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    term.thread_block().map_err(|error| format!("cannot block SIGTERM: {error}"))?;
    std::fs::write(file, "").map_err(|error| format!("{file}: {error}"))?;
    term.wait().map_err(|error| format!("cannot wait for SIGTERM: {error}"))?;
    leak()
}

fn leak() -> ! {
    let mut leaked = Vec::new();
    loop {
        leaked.push(std::hint::black_box(vec![1_u8; 64 * 1024]));
    }
}

/// Leaves three daemons behind, then stays or goes.
pub(crate) fn daemonise(stay: bool) -> Result<(), String> {
    if stay {
        let status =
            own("daemonise")?.arg("go").status().map_err(|error| format!("cannot spawn: {error}"))?;
        return if status.success() { pause() } else { Err(format!("daemonise go: {status}")) };
    }
    for _ in 0..3 {
        own("daemon")?.spawn().map_err(|error| format!("cannot spawn: {error}"))?;
    }
    Ok(())
}

/// Leaves the session of who started it, and stays.
pub(crate) fn daemon() -> Result<(), String> {
    nix::unistd::setsid().map_err(|error| format!("setsid: {error}"))?;
    pause()
}

/// Forks without end, and so does each child. A refusal is tried again: that is what makes it a storm.
pub(crate) fn fork_storm() -> Result<(), String> {
    loop {
        if own("fork-storm")?.spawn().is_err() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Writes lines without end.
pub(crate) fn flood() -> Result<(), String> {
    let lines = "nobody wants to hear this\n".repeat(100);
    loop {
        std::io::stdout().write_all(lines.as_bytes()).map_err(|error| error.to_string())?;
    }
}

/// Reads a file again and again, and notes in another, after each round, how many it has read. Beside that it uses no
/// memory, until so many rounds are over: then it uses up what there is.
pub(crate) fn churn(file: &str, rounds: &str, last: u64) -> Result<(), String> {
    let failed = |path: &str, error: std::io::Error| format!("{path}: {error}");
    let mut buffer = vec![0; 256 * 1024];
    for round in 1..=last {
        let mut opened = std::fs::File::open(file).map_err(|error| failed(file, error))?;
        while opened.read(&mut buffer).map_err(|error| failed(file, error))? > 0 {}
        std::fs::write(rounds, round.to_string()).map_err(|error| failed(rounds, error))?;
    }
    leak()
}

/// Maps a file whose pages are there, and are charged to whoever made it; then uses memory little by little.
pub(crate) fn map_and_leak(file: &str) -> Result<(), String> {
    let opened = std::fs::File::open(file).map_err(|error| format!("{file}: {error}"))?;
    let words = opened.metadata().map_or(0, |metadata| usize::try_from(metadata.len() / 8).unwrap_or(0));
    let mapped =
        super::mapping::map_words(&opened, words, false).map_err(|error| format!("{file}: {error}"))?;
    let sum: u64 = mapped.iter().step_by(512).map(|word| word.load(Ordering::Relaxed)).sum();
    println!("{file}: {sum}");
    let mut leaked = Vec::new();
    loop {
        leaked.push(std::hint::black_box(vec![1_u8; 64 * 1024]));
        thread::sleep(Duration::from_millis(200));
    }
}

/// Uses memory, makes a file, and stays.
pub(crate) fn hold(mib: &str, file: &str) -> Result<(), String> {
    let mib: usize = mib.parse().map_err(|_| format!("{mib} is no number"))?;
    let held = std::hint::black_box(vec![1_u8; mib << 20]);
    std::fs::write(file, held.len().to_string()).map_err(|error| format!("{file}: {error}"))?;
    pause()
}

/// Leaves an orphan behind and prints its pid.
pub(crate) fn double_fork() -> Result<(), String> {
    let child = own("orphan")?.spawn().map_err(|error| format!("cannot spawn: {error}"))?;
    writeln!(std::io::stdout(), "{}", child.id()).map_err(|error| error.to_string())
}

/// Ends once it belongs to PID 1. There is no event for that, so it looks.
pub(crate) fn orphan() -> Result<(), String> {
    while nix::unistd::getppid().as_raw() != 1 {
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Prints the proportional set size of PID 1 in KiB.
pub(crate) fn pss() -> Result<(), String> {
    writeln!(std::io::stdout(), "{}", pss_kib(1)?).map_err(|error| error.to_string())
}

/// `Pss` of /proc/PID/smaps_rollup.
pub(crate) fn pss_kib(pid: u32) -> Result<u64, String> {
    of_rollup(pid, "Pss:")
}

/// `Pss_Anon` of /proc/PID/smaps_rollup: the memory that is no file's.
pub(crate) fn anonymous_kib(pid: u32) -> Result<u64, String> {
    of_rollup(pid, "Pss_Anon:")
}

fn of_rollup(pid: u32, name: &str) -> Result<u64, String> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    field(&text, name).ok_or_else(|| format!("{path} has no {name}"))
}

/// The number behind a word at the beginning of a line: `Pss:   1200 kB`, `oom_kill 3`.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| if words.next()? == name { words.next()?.parse().ok() } else { None })
}

/// This program again, with another command.
pub(crate) fn own(command: &str) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| format!("/proc/self/exe: {error}"))?;
    let mut child = Command::new(program);
    child.arg(command).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(child)
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields() {
        let check = |text: &str, name: &str, expected: Option<u64>| {
            assert_eq!(field(text, name), expected, "{text:?}")
        };
        check("Rss: 9 kB\nPss:                 123 kB\nPss_Anon: 4 kB\n", "Pss:", Some(123));
        check("oom 1\noom_kill 3\noom_group_kill 4\n", "oom_kill", Some(3));
        check("oom_kill\n", "oom_kill", None);
        check("oom_kill x\n", "oom_kill", None);
        check("\n\n", "oom_kill", None);
    }
}
