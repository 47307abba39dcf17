//! The ways to leak. Each goes on for ever, also when the kernel refuses memory: a leaking program seldom
//! notices.

use super::mapping::populate;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
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
    /// In 64 MiB mappings, of huge pages or of small ones, each populated by one call.
    Populate {
        /// The kernel is asked for huge pages.
        huge: bool,
    },
    /// As fast as so many threads can.
    Threads(u8),
    /// By writes of 64 MiB to a file on tmpfs.
    Tmpfs,
    /// By children that never end.
    Fork,
    /// By what is sent to sockets and never read.
    Sockets,
    /// At once up to 64 KiB below the limit of its cgroup, then by a page a second.
    Drip,
}

/// One block of a leak by the allocator. Small enough that the whole of a small limit is used.
const BLOCK_BYTES: usize = 64 * 1024;
/// What a drip leaves for its drops, and the size of one.
const DRIP_LEAVES: u64 = 64 * 1024;
const DROP_BYTES: usize = 4096;
/// One call of the shapes that overrun a limit within one call.
const BIG_BYTES: usize = 64 * 1024 * 1024;
/// The pause after a refusal: a thread that only fails must not keep the recording thread from the
/// processor.
const REFUSED: Duration = Duration::from_millis(1);

impl Leak {
    /// Reads `none`, `rate:16MiB`, `flat-out`, `populate`, `populate:small`, `threads:8`, `tmpfs`, `fork`,
    /// `sockets` or `drip`.
    ///
    /// # Errors
    /// A sentence that names the word and the choices.
    pub(crate) fn parse(word: &str) -> Result<Self, String> {
        let (name, value) = word.split_once(':').map_or((word, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("none", None) => Some(Self::None),
            ("rate", Some(size)) => parse_size::parse_size(size).ok().filter(|&n| n > 0).map(Self::Rate),
            ("flat-out", None) => Some(Self::FlatOut),
            ("populate", None) => Some(Self::Populate { huge: true }),
            ("populate", Some("small")) => Some(Self::Populate { huge: false }),
            ("threads", Some(count)) => count.parse().ok().filter(|&n| n > 0).map(Self::Threads),
            ("tmpfs", None) => Some(Self::Tmpfs),
            ("fork", None) => Some(Self::Fork),
            ("sockets", None) => Some(Self::Sockets),
            ("drip", None) => Some(Self::Drip),
            _ => None,
        }
        .ok_or_else(|| {
            format!(
                "--leak {word}: not one of none, rate:16MiB, flat-out, populate, populate:small, threads:8, tmpfs, \
                 fork, sockets, drip"
            )
        })
    }

    /// Starts the threads of this leak now, so that no thread is made when memory is gone; they begin
    /// after `calm`.
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
            Self::Populate { huge } => loop {
                if NonZeroUsize::new(BIG_BYTES).is_none_or(|bytes| populate(bytes, huge).is_err()) {
                    thread::sleep(REFUSED);
                }
            },
            Self::Tmpfs => fill_file(file),
            Self::Fork => fork_without_end(),
            Self::Sockets => fill_sockets(),
            Self::Drip => drip(),
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
        while leaked + BLOCK_BYTES as u128 <= due {
            leak_block(BLOCK_BYTES);
            leaked += BLOCK_BYTES as u128;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The file loses its name at once: its pages then go with the process that holds it open. A file with a
/// name would outlive the kill and stay charged to the cgroup that the next life starts in.
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

/// Pairs of Unix sockets: what waits in them is the kernel's memory, and charged to the sender.
fn fill_sockets() {
    let bytes = [0xa5; 16 * 1024];
    let mut pairs = Vec::with_capacity(512);
    loop {
        let pair =
            UnixStream::pair().and_then(|(near, far)| near.set_nonblocking(true).map(|()| (near, far)));
        let Ok((mut near, far)) = pair else {
            thread::sleep(REFUSED);
            continue;
        };
        loop {
            match near.write(&bytes) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => thread::sleep(REFUSED),
            }
        }
        pairs.push((near, far));
    }
}

/// What is left of the memory of this process's cgroup.
fn left_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let read = |file: &str| {
        fs::read_to_string(format!("/sys/fs/cgroup/{group}/{file}")).ok()?.trim().parse::<u64>().ok()
    };
    Some(read("memory.max")?.saturating_sub(read("memory.current")?))
}

fn drip() {
    while left_bytes().is_some_and(|left| left > DRIP_LEAVES) {
        leak_block(DROP_BYTES);
    }
    loop {
        thread::sleep(Duration::from_secs(1));
        leak_block(DROP_BYTES);
    }
}
