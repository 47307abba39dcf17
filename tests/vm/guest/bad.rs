//! Services that make their own end hard, each in one way; then they use memory without end.

use super::cast::{own, pause};
use super::nest;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::SigSet;
use std::fs::File;
use std::net::TcpListener;
use std::time::Duration;

/// The port that `bad port` listens on.
pub(crate) const PORT: u16 = 9_191;
/// The cgroup that `bad leaves` moves to.
pub(crate) const ELSEWHERE: &str = "/sys/fs/cgroup/elsewhere";
/// What `bad locks` has locked.
const LOCKED: &str = "/run/locked";

fn told<T, E: std::fmt::Display>(what: &str, outcome: Result<T, E>) -> Result<T, String> {
    outcome.map_err(|error| format!("{what}: {error}"))
}

/// One bad way, by its name.
pub(crate) fn bad(way: &str) -> Result<(), String> {
    match way {
        "flees" => {
            // Every signal is blocked, and the blocking is inherited.
            told("block signals", SigSet::all().thread_block())?;
            told("spawn", own("flee")?.spawn())?;
            std::thread::sleep(Duration::from_millis(200));
            nest::leak()
        }
        "locks" => {
            let file = told(LOCKED, File::create(LOCKED))?;
            let _lock = locked(file)?;
            nest::leak()
        }
        "port" => {
            let _listener = told("the port", TcpListener::bind(("127.0.0.1", PORT)))?;
            // Long enough to be seen.
            std::thread::sleep(Duration::from_secs(2));
            nest::leak()
        }
        "leaves" => {
            told("block signals", SigSet::all().thread_block())?;
            told(ELSEWHERE, std::fs::create_dir_all(ELSEWHERE))?;
            let path = format!("{ELSEWHERE}/cgroup.procs");
            told(&path, std::fs::write(&path, "0"))?;
            pause()
        }
        _ => Err(format!("no bad way is named {way}")),
    }
}

/// Is somebody else at every moment: the child goes on, and who made it ends.
pub(crate) fn flee() -> Result<(), String> {
    std::thread::sleep(Duration::from_millis(1));
    told("spawn", own("flee")?.spawn()).map(drop)
}

/// Waits for what `bad locks` has locked.
pub(crate) fn lock() -> Result<(), String> {
    let file = told(LOCKED, File::open(LOCKED))?;
    locked(file).map(drop)
}

fn locked(file: File) -> Result<Flock<File>, String> {
    told(LOCKED, Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno))
}
