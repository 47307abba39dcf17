//! A service that keeps its records in memory of its own, and leaks: only it can save them.

use nix::sys::signal::{SigSet, Signal};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What it has to save.
pub(crate) const RECORDS: u64 = 100_000;

/// 64 MiB a second.
const STEP_BYTES: usize = 64 * 1024;
const PAUSE: Duration = Duration::from_millis(1);

static STOPS: AtomicBool = AtomicBool::new(false);

/// Where it saves them.
pub(crate) fn kept_path(name: &str) -> String {
    format!("/tmp/{name}.kept")
}

/// Leaks until `SIGTERM`, and then writes its records, for which it needs memory: they are put into text first. One
/// that `goes on` leaks all the same.
pub(crate) fn keep(name: &str, goes_on: bool) -> Result<(), String> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.thread_block().map_err(|error| format!("cannot block SIGTERM: {error}"))?;
    let records: Vec<u64> = (0..RECORDS).collect();
    thread::spawn(move || {
        let mut leaked = Vec::new();
        while goes_on || !STOPS.load(Ordering::Relaxed) {
            leaked.push(std::hint::black_box(vec![1_u8; STEP_BYTES]));
            thread::sleep(PAUSE);
        }
    });
    signals.wait().map_err(|error| format!("cannot wait for SIGTERM: {error}"))?;
    STOPS.store(true, Ordering::Relaxed);
    if goes_on {
        crate::cast::pause();
    }
    let text: String = records.iter().map(|record| format!("{record}\n")).collect();
    let path = kept_path(name);
    let failed = |error: std::io::Error| format!("{path}: {error}");
    File::create(&path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
}
