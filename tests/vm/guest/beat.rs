//! The bystander's heartbeat: a beat every 10 ms, and the worst gap between two beats, in shared memory.

use super::mapping::map_words;
use super::ring::boottime_us;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(10);

/// The heartbeat as the driver sees it.
pub(crate) struct Pulse {
    words: &'static [AtomicU64],
}

impl Pulse {
    /// Opens the file of a heartbeat, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(wrong)?;
        file.set_len(16).map_err(wrong)?;
        Ok(Self { words: map_words(&file, 2, true).map_err(wrong)? })
    }

    /// How many beats there were.
    pub(crate) fn beats(&self) -> u64 {
        self.words[0].load(Ordering::Acquire)
    }

    /// The worst time between two beats since this was asked last, in microseconds. 10,000 would be perfect.
    pub(crate) fn take_worst_us(&self) -> u64 {
        self.words[1].swap(0, Ordering::AcqRel)
    }
}

/// Beats for ever.
pub(crate) fn beat(file: &str) -> Result<(), String> {
    let pulse = Pulse::open(Path::new(file))?;
    let mut last_us = boottime_us();
    loop {
        thread::sleep(INTERVAL);
        let now_us = boottime_us();
        pulse.words[1].fetch_max(now_us.saturating_sub(last_us), Ordering::AcqRel);
        pulse.words[0].fetch_add(1, Ordering::Release);
        last_us = now_us;
    }
}
