//! The story on the console and in the kernel log: the engine's records in words, and the few words of the runtime.
//!
//! A record is put into words in fixed buffers and written with one write(2) to each place; nothing is allocated and
//! nothing blocks, so it may be told while memory is exhausted. Words of the runtime come through the `log` crate.

use crate::engine::record::Record;
use crate::sys::console;
use crate::sys::error::SysError;
use crate::sys::kmsg::{self, LineWriter};
use crate::view;
use log::LevelFilter;
use std::error::Error;
use std::fmt;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where lifeboat's own words go. There is one thread, so the lock is never waited for; it is there because the `log`
/// crate wants its writer to be shareable.
#[derive(Clone, Debug)]
pub(super) struct Story {
    places: Arc<Mutex<Places>>,
    init: bool,
}

#[derive(Debug)]
struct Places {
    console: Option<LineWriter>,
    kernel_log: Option<LineWriter>,
    /// The next piece begins a line.
    at_start: bool,
}

impl Places {
    /// A piece of a line. The kernel log's writer puts lifeboat's name in front by itself.
    fn push(&mut self, bytes: &[u8]) {
        // The writers drop what is not taken, and tell with a later line how much that was.
        if let Some(console) = &mut self.console {
            if self.at_start {
                let _ = console.write(b"lifeboat: ");
            }
            let _ = console.write(bytes);
        }
        if let Some(log) = &mut self.kernel_log {
            let _ = log.write(bytes);
        }
        self.at_start = bytes.ends_with(b"\n");
    }
}

impl fmt::Write for Places {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.split_inclusive('\n').for_each(|piece| self.push(piece.as_bytes()));
        Ok(())
    }
}

impl Story {
    pub(super) fn of(console: Option<OwnedFd>, kernel_log: Option<OwnedFd>, init: bool) -> Self {
        let places = Places {
            console: console.map(LineWriter::plain),
            kernel_log: kernel_log.map(LineWriter::kmsg),
            at_start: true,
        };
        Self { places: Arc::new(Mutex::new(places)), init }
    }

    /// Of PID 1: the console and the kernel log. A place that cannot be opened is left out and comes back as an error.
    pub(super) fn of_init() -> (Self, Vec<SysError>) {
        let (console, log) = (console::open_console(), kmsg::open_kmsg());
        let errors = [console.as_ref().err(), log.as_ref().err()].into_iter().flatten().cloned().collect();
        (Self::of(console.ok(), log.ok(), true), errors)
    }

    /// Below another init: standard error.
    pub(super) fn of_supervisor() -> Result<Self, SysError> {
        Ok(Self::of(Some(console::standard_error()?), None, false))
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the `log` crate's words part of the story. To be called once.
    pub(super) fn take_log(&self) {
        // Only a second call could fail.
        let _ = log::set_boxed_logger(Box::new(self.clone()));
        log::set_max_level(LevelFilter::Info);
    }

    /// One record of the engine.
    pub(super) fn tell(&self, record: &Record, names: &[String]) {
        let mut places = self.places();
        // The writers cut what is too long; nothing else can fail.
        let _ = view::record::write(&mut *places, record, names);
        places.push(b"\n");
    }

    /// One more line about what was told last.
    pub(super) fn add(&self, words: fmt::Arguments<'_>) {
        let mut places = self.places();
        let _ = fmt::write(&mut *places, words);
        places.push(b"\n");
    }

    /// Where the lines of units go that say so: as PID 1 the console, else lifeboat's standard output. Nonblocking.
    pub(super) fn output_for_lines(&self) -> Option<OwnedFd> {
        let opened = if self.init { console::open_console() } else { console::own_output() };
        // What cannot be opened was told when lifeboat opened it for its own words.
        opened.ok()
    }

    /// The kernel log, where units' lines may go. Nonblocking.
    pub(super) fn kernel_log_for_lines(&self) -> Option<OwnedFd> {
        kmsg::open_kmsg().ok()
    }

    /// What services write to whose output is not kept: as PID 1 the console, else what lifeboat itself was given.
    pub(super) fn output_for_children(&self) -> Result<OwnedFd, SysError> {
        if self.init { console::open_console_for_children() } else { console::standard_output() }
    }
}

/// No prefix at all: the kernel log has its own time. And nothing is allocated.
impl log::Log for Story {
    fn enabled(&self, about: &log::Metadata<'_>) -> bool {
        about.level() <= LevelFilter::Info
    }

    fn log(&self, words: &log::Record<'_>) {
        if self.enabled(words.metadata()) {
            self.add(*words.args());
        }
    }

    fn flush(&self) {}
}

/// Says an error with all its causes, once.
pub(super) fn complain(error: &dyn Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    log::error!("{text}");
}
