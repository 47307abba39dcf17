//! Five small programs, each of which runs as a shutdown procedure and as an ordinary program.

use super::mapping::map_words;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::Ordering;

/// What `copy` copies.
pub(crate) const LINES: &str = "/run/paper/lines";
/// What `shm` saves: the ring of the service.
pub(crate) const SHARED: &str = "/dev/shm/paper/ring";
/// Whom `ask` asks.
pub(crate) const SERVER: &str = "127.0.0.1:8070";
/// What `write` writes.
const MESSAGE: &[u8] =
    b"The memory of this service is exhausted. It was stopped and will be started again.\n";

/// Where a program notes its first instruction: eight bytes in a file that is there already, so that this costs
/// least, and both kinds the same.
pub(crate) fn stamp_path(out: &str) -> String {
    format!("{out}.stamp")
}

/// Runs one of the programs; `out` is what it writes, where it writes anything.
pub(crate) fn run(program: &str, out: &str, began_us: u64) -> Result<(), String> {
    let done = stamp(out, began_us).and_then(|()| match program {
        "return" | "large" => Ok(()),
        "write" => File::create(out)?.write_all(MESSAGE),
        "copy" => copy(out),
        "ask" => ask(),
        "shm" => save_shared(out),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    });
    done.map_err(|error| format!("paper {program} {out}: {error}"))
}

fn stamp(out: &str, began_us: u64) -> std::io::Result<()> {
    File::options().write(true).open(stamp_path(out))?.write_all(&began_us.to_ne_bytes())
}

fn copy(out: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(File::open(LINES)?);
    let mut copied = BufWriter::new(File::create(out)?);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        copied.write_all(line.as_bytes())?;
        line.clear();
    }
    copied.flush()
}

fn ask() -> std::io::Result<()> {
    let mut stream = TcpStream::connect(SERVER)?;
    stream.write_all(b"GET /exhausted HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let fine = answer.starts_with("HTTP/1.0 200 ");
    if fine { Ok(()) } else { Err(std::io::Error::other("no answer of a web server")) }
}

fn save_shared(out: &str) -> std::io::Result<()> {
    let shared = File::open(Path::new(SHARED))?;
    let words = usize::try_from(shared.metadata()?.len() / 8).unwrap_or(0);
    let mut saved = BufWriter::new(File::create(out)?);
    for word in map_words(&shared, words, false)? {
        saved.write_all(&word.load(Ordering::Relaxed).to_ne_bytes())?;
    }
    saved.flush()
}
