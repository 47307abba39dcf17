//! The ways to leak. Each goes on for ever, also when the kernel refuses memory: a leaking program seldom notices.

use super::mapping::populate_huge;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How to leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leak {
    /// Not at all.
    None,
    /// So many bytes a second.
    Rate(u64),
    /// As fast as one thread can.
    FlatOut,
    /// In 64 MiB mappings of huge pages, each populated by one call.
    Populate,
    /// As fast as so many threads can.
    Threads(u8),
    /// By writes of 64 MiB to a file on tmpfs.
    Tmpfs,
    /// By children that never end.
    Fork,
}

/// One block of a leak by the allocator. Small enough that the whole of a small limit is used.
const BLOCK_BYTES: usize = 256 * 1024;
/// One call of the shapes that overrun a limit within one call.
const BIG_BYTES: usize = 64 * 1024 * 1024;
/// The pause after a refusal: a thread that only fails must not keep the recording thread from the processor.
const REFUSED: Duration = Duration::from_millis(1);

impl Leak {
    /// Reads `none`, `rate:16MiB`, `flat-out`, `populate`, `threads:8`, `tmpfs` or `fork`.
    ///
    /// # Errors
    /// A sentence that names the word and the choices.
    pub(crate) fn parse(word: &str) -> Result<Self, String> {
        let (name, value) = word.split_once(':').map_or((word, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("none", None) => Some(Self::None),
            ("rate", Some(size)) => parse_size::parse_size(size).ok().filter(|&n| n > 0).map(Self::Rate),
            ("flat-out", None) => Some(Self::FlatOut),
            ("populate", None) => Some(Self::Populate),
            ("threads", Some(count)) => count.parse().ok().filter(|&n| n > 0).map(Self::Threads),
            ("tmpfs", None) => Some(Self::Tmpfs),
            ("fork", None) => Some(Self::Fork),
            _ => None,
        }
        .ok_or_else(|| {
            format!("--leak {word}: not one of none, rate:16MiB, flat-out, populate, threads:8, tmpfs, fork")
        })
    }

    /// Starts the threads of this leak now, so that no thread is made when memory is gone; they begin after `calm`.
    ///
    /// # Errors
    /// A thread cannot be made.
    pub(crate) fn start(self, calm: Duration, file: PathBuf) -> std::io::Result<()> {
        let threads = if let Self::Threads(count) = self { count } else { u8::from(self != Self::None) };
        for number in 0..threads {
            let file = file.clone();
            thread::Builder::new().name(format!("leak-{number}")).spawn(move || {
                thread::sleep(calm);
                if number == 0 {
                    super::say(&format!("leaking: {self:?}"));
                }
                self.run(&file);
            })?;
        }
        Ok(())
    }

    fn run(self, file: &PathBuf) {
        match self {
            Self::None => {}
            Self::Rate(bytes_per_s) => leak_at(bytes_per_s),
            Self::FlatOut | Self::Threads(_) => loop {
                leak_block(BLOCK_BYTES);
            },
            Self::Populate => loop {
                if NonZeroUsize::new(BIG_BYTES).is_none_or(|bytes| populate_huge(bytes).is_err()) {
                    thread::sleep(REFUSED);
                }
            },
            Self::Tmpfs => fill_file(file),
            Self::Fork => fork_without_end(),
        }
    }
}

/// Allocates, touches and forgets.
fn leak_block(bytes: usize) {
    let mut block: Vec<u8> = Vec::new();
    if block.try_reserve_exact(bytes).is_err() {
        thread::sleep(REFUSED);
        return;
    }
    block.resize(bytes, 0xa5);
    std::hint::black_box(block.leak());
}

fn leak_at(bytes_per_s: u64) {
    let began = Instant::now();
    let mut leaked: u128 = 0;
    loop {
        let due = u128::from(bytes_per_s) * began.elapsed().as_micros() / 1_000_000;
        while leaked < due {
            let block = usize::try_from(due - leaked).unwrap_or(usize::MAX).min(BLOCK_BYTES);
            leak_block(block);
            leaked += block as u128;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The file loses its name at once: its pages then go with the process that holds it open. A file with a name would
/// outlive the kill and stay charged to the cgroup that the next life starts in.
fn fill_file(path: &PathBuf) {
    // Zeroed memory that is only read is the kernel's zero page: the buffer itself costs nothing.
    let buffer = vec![0_u8; BIG_BYTES];
    let opened = OpenOptions::new().create(true).append(true).open(path).and_then(|file| {
        fs::remove_file(path)?;
        Ok(file)
    });
    let mut file = match opened {
        Ok(file) => file,
        Err(error) => return super::say(&format!("cannot leak into {}: {error}", path.display())),
    };
    loop {
        if file.write(&buffer).is_err() {
            thread::sleep(REFUSED);
        }
    }
}

fn fork_without_end() {
    let Ok(program) = std::env::current_exe() else { return };
    loop {
        let child = Command::new(&program).arg("--pause").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        if child.is_err() {
            thread::sleep(REFUSED);
        }
    }
}
