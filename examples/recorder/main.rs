//! A data logger that leaks: keeps its last records in shared memory and uses up its memory in a chosen
//! way.
//!
//! It knows nothing of lifeboat. Its shutdown procedure is `recorder-flush`.

mod leak;
#[expect(unsafe_code, reason = "mmap(2) has no safe form; this one file holds all of it")]
mod mapping;
mod ring;
#[expect(dead_code, reason = "the recorder only saves; others compare")]
mod saved;
#[cfg(test)]
mod tests;

use leak::Leak;
use lexopt::{Arg, ValueExt};
use nix::sys::signal::{SigSet, Signal};
use ring::{KEPT, Ring};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

const USAGE: &str =
    "usage: recorder [--ring PATH] [--every DURATION] [--leak SHAPE] [--leak-after DURATION] \
[--leak-file PATH] [--save-on-term PATH]
  --ring PATH            the ring file, on tmpfs        (/run/recorder/ring)
  --every DURATION       one record in this time, after the first 1000 at once   (5ms)
  --leak SHAPE           none, rate:16MiB (a second), flat-out, populate, populate:small, threads:8, tmpfs,
                         fork, sockets, drip   (none)
  --leak-after DURATION  calm before the leak           (500ms)
  --leak-file PATH       where `tmpfs` writes           (the ring's path and `.leak`)
  --save-on-term PATH    at SIGTERM stop recording, save the last 1000 records there, and end";

struct Options {
    ring: PathBuf,
    every: Duration,
    leak: Leak,
    leak_after: Duration,
    leak_file: Option<PathBuf>,
    save_on_term: Option<PathBuf>,
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
        save_on_term: None,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("ring") => options.ring = PathBuf::from(parser.value()?),
            Arg::Long("every") => options.every = parser.value()?.parse_with(humantime::parse_duration)?,
            Arg::Long("leak") => options.leak = parser.value()?.parse_with(Leak::parse)?,
            Arg::Long("leak-after") => {
                options.leak_after = parser.value()?.parse_with(humantime::parse_duration)?;
            }
            Arg::Long("save-on-term") => options.save_on_term = Some(PathBuf::from(parser.value()?)),
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

/// Held while a record is made; for ever, once the last one was made.
static RECORDING: Mutex<()> = Mutex::new(());

/// What a service can do that has only its own handler: all its other threads go on.
fn save_on_term(ring: &Path, out: PathBuf) -> std::io::Result<()> {
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    term.thread_block()?;
    let ring = Ring::open(ring)?;
    let wait = move || {
        let _ = term.wait();
        let _last = RECORDING.lock();
        let saved = saved::save(&ring, &out).is_ok();
        std::process::exit(i32::from(!saved));
    };
    thread::Builder::new().name("save-on-term".into()).spawn(wait).map(drop)
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
    if let Some(Err(error)) = options.save_on_term.map(|out| save_on_term(&options.ring, out)) {
        eprintln!("recorder: cannot wait for SIGTERM: {error}");
        return ExitCode::FAILURE;
    }
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
        let _recording = RECORDING.lock();
        ring.commit_next();
    }
}
