//! A data logger that leaks: keeps its last records in shared memory and uses up its memory in a chosen
//! way.
//!
//! It knows nothing of lifeboat. Its shutdown procedure is `recorder-flush`.

mod leak;
#[expect(unsafe_code, reason = "mmap(2) has no safe form; this one file holds all of it")]
mod mapping;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the recorder never reads its ring; the programs that share this file do")
)]
mod ring;
#[cfg(test)]
mod tests;

use leak::Leak;
use lexopt::{Arg, ValueExt};
use ring::{KEPT, Ring};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

const USAGE: &str =
    "usage: recorder [--ring PATH] [--every DURATION] [--leak SHAPE] [--leak-after DURATION] \
[--leak-file PATH]
  --ring PATH            the ring file, on tmpfs        (/run/recorder/ring)
  --every DURATION       one record in this time, after the first 1000 at once   (5ms)
  --leak SHAPE           none, rate:16MiB (a second), flat-out, populate, threads:8, tmpfs, fork   (none)
  --leak-after DURATION  calm before the leak           (500ms)
  --leak-file PATH       where `tmpfs` writes           (the ring's path and `.leak`)";

struct Options {
    ring: PathBuf,
    every: Duration,
    leak: Leak,
    leak_after: Duration,
    leak_file: Option<PathBuf>,
}

/// One line on standard output. A console that is gone must not end the recording.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn parse(mut parser: lexopt::Parser) -> Result<Options, lexopt::Error> {
    let mut options = Options {
        ring: PathBuf::from("/run/recorder/ring"),
        every: Duration::from_millis(5),
        leak: Leak::None,
        leak_after: Duration::from_millis(500),
        leak_file: None,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("ring") => options.ring = PathBuf::from(parser.value()?),
            Arg::Long("every") => options.every = parser.value()?.parse_with(humantime::parse_duration)?,
            Arg::Long("leak") => options.leak = parser.value()?.parse_with(Leak::parse)?,
            Arg::Long("leak-after") => {
                options.leak_after = parser.value()?.parse_with(humantime::parse_duration)?;
            }
            Arg::Long("leak-file") => options.leak_file = Some(PathBuf::from(parser.value()?)),
            // One of the children of `--leak fork`: it lives until it is killed.
            Arg::Long("pause") => loop {
                thread::park();
            },
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match parse(lexopt::Parser::from_env()) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("recorder: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let ring = match Ring::create(&options.ring) {
        Ok(ring) => ring,
        Err(error) => {
            eprintln!("recorder: cannot make the ring {}: {error}", options.ring.display());
            return ExitCode::FAILURE;
        }
    };
    for _ in 0..KEPT {
        ring.commit_next();
    }
    say(&format!("{} records in {}", ring.committed(), options.ring.display()));
    let leak_file = options.leak_file.unwrap_or_else(|| {
        let mut name = options.ring.clone().into_os_string();
        name.push(".leak");
        PathBuf::from(name)
    });
    if let Err(error) = options.leak.start(options.leak_after, leak_file) {
        eprintln!("recorder: cannot make the leaking threads: {error}");
        return ExitCode::FAILURE;
    }
    // Nothing below allocates: the recording goes on until the process stands still.
    loop {
        thread::sleep(options.every);
        ring.commit_next();
    }
}
