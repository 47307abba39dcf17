//! A service with a cache that only grows, until a warning makes it let go of half of it.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// 4 MiB a second.
const BLOCK_BYTES: usize = 128 * 1024;
const PAUSE: Duration = Duration::from_millis(31);

static CACHE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Hears by `signal` (`SIGUSR1`) or by `watch` (`MEMORY_PRESSURE_WATCH`), and counts in /tmp/NAME.warned.
pub(crate) fn grow(name: &str, way: &str) -> Result<(), String> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGUSR1);
    signals.thread_block().map_err(|error| format!("cannot block SIGUSR1: {error}"))?;
    let (name, by_signal) = (name.to_owned(), way == "signal");
    let mut fifo = (!by_signal).then(watched).transpose()?;
    thread::spawn(move || {
        for count in 1_u32.. {
            let heard = match &mut fifo {
                Some(fifo) => watch(fifo),
                None => signals.wait().map(drop).map_err(|error| error.to_string()),
            };
            if let Err(error) = heard {
                eprintln!("{name}: {error}");
                std::process::exit(1);
            }
            if let Ok(mut cache) = CACHE.lock() {
                let half = cache.len() / 2;
                cache.truncate(half);
            }
            let _ = std::fs::write(format!("/tmp/{name}.warned"), count.to_string());
        }
    });
    loop {
        if let Ok(mut cache) = CACHE.lock() {
            cache.push(std::hint::black_box(vec![1; BLOCK_BYTES]));
        }
        thread::sleep(PAUSE);
    }
}

/// As <https://systemd.io/MEMORY_PRESSURE/> has it for a FIFO, by one that only reads.
fn watched() -> Result<File, String> {
    let path =
        std::env::var("MEMORY_PRESSURE_WATCH").map_err(|error| format!("MEMORY_PRESSURE_WATCH: {error}"))?;
    let fifo = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
    fifo.map_err(|error| format!("{path}: {error}"))
}

/// It stays open, so that a hang-up would be there at each later wait.
fn watch(fifo: &mut File) -> Result<(), String> {
    let mut waits = [PollFd::new(fifo.as_fd(), PollFlags::POLLIN)];
    poll(&mut waits, PollTimeout::NONE).map_err(|errno| errno.to_string())?;
    if waits[0].revents() != Some(PollFlags::POLLIN) {
        return Err(format!("{:?} at MEMORY_PRESSURE_WATCH", waits[0].revents()));
    }
    fifo.read(&mut [0; 64]).map(drop).map_err(|error| error.to_string())
}
