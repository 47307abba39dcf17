//! Services that have something to be saved, and the procedures that save it.

use super::listener::{give, handed, memory};
use super::nest;
use super::ring::Ring;
use super::saved;
use super::speaker::say_and_wait;
use lifeboat::sys::handed::copy_of;
use nix::sys::eventfd::EventFd;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What a procedure has found.
pub(crate) fn found(unit: &str) -> String {
    format!("/run/{unit}.found")
}

fn fails(path: &str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{path}: {error}")
}

/// What the eventfd has counted. Its eight bytes are a text in themselves.
const COUNTED: u64 = u64::from_ne_bytes(*b"eventfd\n");

/// Stores a memfd, a pipe, a socket and an eventfd with something in each, and uses memory without end.
pub(crate) fn store_and_leak() -> Result<(), String> {
    give("FDSTORE=1\nFDNAME=memory", memory("in the memfd")?.as_fd())?;
    let (read, mut write) = std::io::pipe().map_err(fails("a pipe"))?;
    write.write_all(b"in the pipe").map_err(fails("a pipe"))?;
    give("FDSTORE=1\nFDNAME=pipe", read.as_fd())?;
    let (socket, mut other) = UnixStream::pair().map_err(fails("a socket"))?;
    other.write_all(b"in the socket").map_err(fails("a socket"))?;
    give("FDSTORE=1\nFDNAME=socket", socket.as_fd())?;
    let event = EventFd::from_value(0).map_err(|errno| format!("an eventfd: {errno}"))?;
    event.write(COUNTED).map_err(|errno| format!("an eventfd: {errno}"))?;
    give("FDSTORE=1\nFDNAME=event", event.as_fd())?;
    say_and_wait("READY=1")?;
    nest::leak()
}

/// Prints how many of a ring's last records are in a file. What is no such file holds none.
pub(crate) fn compare(ring: &str, out: &str) -> Result<(), String> {
    let witness = Ring::open(Path::new(ring)).map_err(fails(ring))?;
    let saved = saved::compare(&witness, Path::new(out)).map_or(0, |count| count.saved);
    writeln!(std::io::stdout(), "{saved}").map_err(fails("standard output"))
}

/// The procedure: notes what it was handed, a line for each thing.
pub(crate) fn receive(unit: &str) -> Result<(), String> {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| "none".into());
    let mut text = String::new();
    for (fd, name) in handed().unwrap_or_default() {
        // A socket cannot be opened by its path below /proc.
        let file = copy_of(fd).map_err(fails(&name))?;
        let mut bytes = [0; 64];
        let length = nix::unistd::read(&file, &mut bytes).map_err(|errno| format!("{name}: {errno}"))?;
        let found = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
        text += &format!("{name}: {}\n", found.trim_end());
    }
    let pidfd = format!("/proc/self/fdinfo/{}", variable("LIFEBOAT_PIDFD"));
    let pidfd = std::fs::read_to_string(&pidfd).map_err(fails(&pidfd))?;
    let pid = pidfd.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap_or("none").trim();
    text += &format!("pidfd is of the first process: {}\n", pid == variable("LIFEBOAT_MAINPID"));
    let cgroup = format!("/proc/self/fd/{}", variable("LIFEBOAT_CGROUP_FD"));
    let events = std::fs::read_to_string(format!("{cgroup}/cgroup.events")).map_err(fails(&cgroup))?;
    let folder = std::fs::read_link(&cgroup).map_err(fails(&cgroup))?;
    text += &format!("cgroup {}: {}\n", folder.display(), events.replace('\n', " ").trim());
    let path = found(unit);
    std::fs::write(&path, text).map_err(fails(&path))
}
