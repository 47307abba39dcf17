//! The recorder's shutdown procedure: saves the last committed records of the ring to a file.
//!
//! It runs while the recorder stands still at its memory limit, in a small share of the reserve: it maps
//! the ring, streams the records, and needs no memory that grows. The bad ways to behave are for tests of
//! lifeboat.

#[expect(unsafe_code, reason = "mmap(2) has no safe form; this one file holds all of it")]
#[expect(dead_code, reason = "the flush does not leak")]
#[path = "../recorder/mapping.rs"]
mod mapping;
#[expect(dead_code, reason = "the flush only reads rings")]
#[path = "../recorder/ring.rs"]
mod ring;
#[path = "../recorder/saved.rs"]
mod saved;

use lexopt::{Arg, ValueExt};
use lifeboat::procedure::Order;
use ring::Ring;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

const USAGE: &str = "usage: recorder-flush [--verify] RING OUT
  RING OUT               save the last 1000 committed records of RING to OUT, and when this program began to OUT.stamp
  --verify               compare OUT with RING instead, and with RING.previous where RING is of a newer life
for tests:
  --exit CODE            save, then end with this code
  --hang                 save nothing and never end
  --crash                save nothing and die by SIGSEGV
  --eat SIZE             save nothing, use so much memory, then never end
  --fork-and-exit        save, leave a child behind, end well";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Save,
    Verify,
    Hang,
    Crash,
    Eat(usize),
    ForkAndExit,
}

struct Options {
    way: Way,
    code: u8,
    ring: PathBuf,
    out: PathBuf,
    /// Why it runs.
    reason: String,
}

fn parse(mut parser: lexopt::Parser) -> Result<Options, lexopt::Error> {
    let (mut way, mut code, mut paths) = (Way::Save, 0, Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("verify") => way = Way::Verify,
            Arg::Long("hang") => way = Way::Hang,
            Arg::Long("crash") => way = Way::Crash,
            Arg::Long("eat") => {
                let bytes = parser.value()?.parse_with(|size| parse_size::parse_size(size))?;
                way = Way::Eat(usize::try_from(bytes).unwrap_or(usize::MAX));
            }
            Arg::Long("fork-and-exit") => way = Way::ForkAndExit,
            Arg::Long("exit") => code = parser.value()?.parse()?,
            Arg::Value(path) => paths.push(PathBuf::from(path)),
            _ => return Err(argument.unexpected()),
        }
    }
    let [ring, out] = paths.try_into().map_err(|_| "RING and OUT are needed")?;
    let reason = std::env::var("LIFEBOAT_REASON").unwrap_or_else(|_| "run by hand".into());
    Ok(Options { way, code, ring, out, reason })
}

/// One line on standard output. A console that is gone must not cost the records.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn hang() -> ! {
    loop {
        thread::park();
    }
}

/// Touches memory until it has so much, then keeps it. Where the kernel refuses memory it asks again.
fn eat(bytes: usize) -> ! {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut left = bytes;
    while left > 0 {
        let (size, mut block) = (left.min(64 * 1024), Vec::new());
        if block.try_reserve_exact(size).is_err() {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        block.resize(size, 0xa5_u8);
        blocks.push(block);
        left -= size;
    }
    hang()
}

/// Writes when this program's first instruction ran, in microseconds of `CLOCK_BOOTTIME`.
fn stamp(out: &Path, began_us: u64) -> io::Result<()> {
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(saved::beside(out, ".stamp"), format!("{began_us}\n"))
}

fn save(options: &Options, began_us: u64) -> Result<(), String> {
    let ring = Ring::open(&options.ring).map_err(|error| format!("{}: {error}", options.ring.display()))?;
    let count =
        saved::save(&ring, &options.out).map_err(|error| format!("{}: {error}", options.out.display()))?;
    let reason = &options.reason;
    let took_us = ring::boottime_us().saturating_sub(began_us);
    let (ms, tenths) = (took_us / 1_000, took_us % 1_000 / 100);
    say(&format!("saved {} of {} records in {ms}.{tenths} ms (reason: {reason})", count.saved, count.of));
    if count.saved < count.of { Err("some records could not be read".into()) } else { Ok(()) }
}

/// The ring that the saved file is of is the one that was there when the file was written.
fn verify(options: &Options) -> Result<(), String> {
    let written = fs::read_to_string(saved::beside(&options.out, ".stamp"))
        .map_err(|error| format!("{}.stamp: {error}", options.out.display()))?;
    let written_us =
        written.trim().parse().map_err(|_| format!("{}.stamp: not a number", options.out.display()))?;
    let count = saved::compare(&saved::ring_at(&options.ring, written_us)?, &options.out)?;
    say(&format!("saved {} of {}", count.saved, count.of));
    if count.saved < count.of { Err("records are lost".into()) } else { Ok(()) }
}

fn run(options: &Options, began_us: u64) -> Result<(), String> {
    match options.way {
        Way::Save => save(options, began_us),
        Way::Verify => verify(options),
        Way::Hang => hang(),
        Way::Crash => {
            // The first one meets the handler of the standard library, which steps aside for the second.
            for _ in 0..2 {
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSEGV);
            }
            Err("SIGSEGV did not end this program".into())
        }
        Way::Eat(bytes) => eat(bytes),
        Way::ForkAndExit => {
            save(options, began_us)?;
            let child = std::env::current_exe()
                .and_then(|program| Command::new(program).args(["--hang", "-", "-"]).spawn())
                .map_err(|error| format!("no child: {error}"))?;
            say(&format!("left {} behind", child.id()));
            Ok(())
        }
    }
}

fn main() -> ExitCode {
    let mut began_us = ring::boottime_us();
    let mut options = match parse(lexopt::Parser::from_env()) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("recorder-flush: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // As a resident procedure it is here long before it is needed.
    if std::env::var_os("LIFEBOAT_GO_FD").is_some() {
        match Order::wait() {
            Ok(Some(order)) => (began_us, options.reason) = (ring::boottime_us(), order.reason().to_owned()),
            Ok(None) => return ExitCode::SUCCESS,
            Err(error) => say(&format!("saves at once: {error}")),
        }
    }
    if options.way != Way::Verify && options.out.as_os_str() != "-" {
        // For latency figures only: a stamp that cannot be written must not keep the records from being
        // saved.
        if let Err(error) = stamp(&options.out, began_us) {
            say(&format!("no stamp: {error}"));
        }
    }
    match run(&options, began_us) {
        Ok(()) => ExitCode::from(options.code),
        Err(error) => {
            eprintln!("recorder-flush: {error}");
            ExitCode::FAILURE
        }
    }
}
