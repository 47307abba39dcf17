//! Services that say how they are: by sd_notify(3), by s6's descriptor, by a path, and by nothing at all.

use super::cast::{own, pause};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The driver lets a speaker go on by making this file.
pub(crate) fn cue(name: &str) -> PathBuf {
    PathBuf::from(format!("/run/{name}.cue"))
}

/// Between two looks for the cue: there is nobody to tell.
const LOOK: Duration = Duration::from_millis(5);

fn wait_for_cue(name: &str) {
    while !cue(name).exists() {
        thread::sleep(LOOK);
    }
}

/// One message to the socket that the environment names.
pub(crate) fn say(text: &str) -> Result<(), String> {
    let path = std::env::var("NOTIFY_SOCKET").map_err(|error| format!("NOTIFY_SOCKET: {error}"))?;
    say_to(Path::new(&path), text)
}

/// One message to a socket.
pub(crate) fn say_to(path: &Path, text: &str) -> Result<(), String> {
    let socket = UnixDatagram::unbound().map_err(|error| format!("no socket: {error}"))?;
    let sent = socket.send_to(text.as_bytes(), path);
    sent.map(drop).map_err(|error| format!("{}: {error}", path.display()))
}

/// One message, and then a barrier: comes back when the supervisor has handled it (sd_notify_barrier(3)).
pub(crate) fn say_and_wait(text: &str) -> Result<(), String> {
    let path = std::env::var("NOTIFY_SOCKET").map_err(|error| format!("NOTIFY_SOCKET: {error}"))?;
    say(text)?;
    let socket = UnixDatagram::unbound().map_err(|error| format!("no socket: {error}"))?;
    let failed = |error: std::io::Error| format!("{path}: {error}");
    socket.connect(&path).map_err(failed)?;
    let (mut end, write) = std::io::pipe().map_err(failed)?;
    let numbers = [write.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&numbers)];
    let bytes = [IoSlice::new(b"BARRIER=1")];
    sendmsg::<()>(socket.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None)
        .map_err(|errno| failed(errno.into()))?;
    drop(write);
    let read = end.read(&mut [0; 1]).map_err(failed)?;
    if read == 0 { Ok(()) } else { Err("something came through the barrier".into()) }
}

/// Says these texts one after the other, each after a cue (`cue`), or not at all (`nothing`), then stays.
pub(crate) fn speak(name: &str, texts: &[&str]) -> Result<(), String> {
    for text in texts {
        match *text {
            "cue" => wait_for_cue(name),
            text => say(&text.replace("\\n", "\n"))?,
        }
    }
    pause()
}

/// Says from a child what it has to say: all processes of a service may.
pub(crate) fn speak_by_child(text: &str) -> Result<(), String> {
    let mut child = own("say")?.arg(text).spawn().map_err(|error| format!("no child: {error}"))?;
    child.wait().map_err(|error| format!("the child: {error}"))?;
    pause()
}

/// Puts itself into the background: names its child, and ends.
pub(crate) fn background() -> Result<(), String> {
    let child = own("background-child")?.spawn().map_err(|error| format!("no child: {error}"))?;
    say(&format!("MAINPID={}", child.id()))
}

/// The child of `background`.
pub(crate) fn background_child() -> Result<(), String> {
    say("READY=1")?;
    pause()
}

/// Is ready by a newline on a descriptor, after the cue.
pub(crate) fn s6(name: &str, number: &str) -> Result<(), String> {
    let path = format!("/proc/self/fd/{number}");
    let mut pipe = File::options().write(true).open(&path).map_err(|error| format!("{path}: {error}"))?;
    pipe.write_all(b"not yet").map_err(|error| format!("{path}: {error}"))?;
    wait_for_cue(name);
    pipe.write_all(b"\n").map_err(|error| format!("{path}: {error}"))?;
    pause()
}

/// Is ready by a path, after the cue.
pub(crate) fn path(name: &str, path: &str) -> Result<(), String> {
    wait_for_cue(name);
    File::create(path).map_err(|error| format!("{path}: {error}"))?;
    pause()
}

/// Listens at a path until the cue; then it lives on, and nobody listens any more.
pub(crate) fn listen(name: &str, path: &str) -> Result<(), String> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(|error| format!("{path}: {error}"))?;
    // Each check leaves a connection in the queue, which is longer than the case.
    wait_for_cue(name);
    drop(listener);
    pause()
}

/// Says that it is alive, in time, until the cue; then it says nothing any more.
pub(crate) fn alive(name: &str) -> Result<(), String> {
    let us = std::env::var("WATCHDOG_USEC").map_err(|error| format!("WATCHDOG_USEC: {error}"))?;
    let us: u64 = us.parse().map_err(|error| format!("WATCHDOG_USEC={us}: {error}"))?;
    let step = Duration::from_micros(us / 4);
    let mut next = Instant::now();
    while !cue(name).exists() {
        say("WATCHDOG=1")?;
        next += step;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    pause()
}
