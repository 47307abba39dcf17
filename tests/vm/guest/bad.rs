//! Services that make their own end hard, each in one way; then they use memory without end.

use super::cast::{own, pause};
use super::listener::give;
use super::nest;
use super::speaker::say_and_wait;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;
use nix::sys::signal::SigSet;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;
use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

/// The port that `bad port` listens on.
pub(crate) const PORT: u16 = 9_191;
/// A cgroup that is no unit's.
pub(crate) const ELSEWHERE: &str = "/sys/fs/cgroup/elsewhere";
/// The socket that `bad lingers` stores would wait so long in its last close(2).
pub(crate) const LINGER_S: i32 = 40;
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
            record_lock(&file)?;
            let _lock = locked(file)?;
            nest::leak()
        }
        "port" => {
            let _listener = told("the port", TcpListener::bind(("127.0.0.1", PORT)))?;
            // Long enough to be seen.
            std::thread::sleep(Duration::from_secs(2));
            nest::leak()
        }
        "lingers" => {
            let stream = lingering()?;
            give("FDSTORE=1\nFDNAME=socket", stream.as_fd())?;
            say_and_wait("READY=1")?;
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

/// Moves to another cgroup, and uses memory there a little later.
pub(crate) fn leave(folder: &str) -> Result<(), String> {
    told("block signals", SigSet::all().thread_block())?;
    told(folder, std::fs::create_dir_all(folder))?;
    let path = format!("{folder}/cgroup.procs");
    told(&path, std::fs::write(&path, "0"))?;
    std::thread::sleep(Duration::from_secs(1));
    nest::leak()
}

/// Waits for what `bad locks` has locked, by one of its two locks: they know nothing of each other.
pub(crate) fn lock(by_record: bool) -> Result<(), String> {
    let file = told(LOCKED, File::options().read(true).write(true).open(LOCKED))?;
    if by_record { record_lock(&file) } else { locked(file).map(drop) }
}

/// Wants the port that `bad port` listens on.
pub(crate) fn bind() -> Result<(), String> {
    told("the port", TcpListener::bind(("127.0.0.1", PORT))).map(drop)
}

/// A connection that is full, since who listens at the port takes nothing, and that lingers.
pub(crate) fn lingering() -> Result<TcpStream, String> {
    let mut stream = told("the port", TcpStream::connect(("127.0.0.1", PORT)))?;
    told("nonblocking", stream.set_nonblocking(true))?;
    while stream.write(&[1; 1 << 16]).is_ok() {}
    let linger = libc::linger { l_onoff: 1, l_linger: LINGER_S };
    told("SO_LINGER", setsockopt(&stream, Linger, &linger))?;
    Ok(stream)
}

/// A lock of fcntl(2), which is its process's.
fn record_lock(file: &File) -> Result<(), String> {
    let short = |number: libc::c_int| libc::c_short::try_from(number).unwrap_or_default();
    let whole = libc::flock {
        l_type: short(libc::F_WRLCK),
        l_whence: short(libc::SEEK_SET),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    told(LOCKED, fcntl(file, FcntlArg::F_SETLKW(&whole))).map(drop)
}

fn locked(file: File) -> Result<Flock<File>, String> {
    told(LOCKED, Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno))
}
