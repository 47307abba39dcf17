//! Services that get their sockets from the supervisor, as sd_listen_fds(3) has it, and those who talk to them.

use super::cast::pause;
use super::speaker::{cue, say};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    ControlMessage, MsgFlags, SockaddrStorage, accept, recv, recvfrom, send, sendmsg, sendto,
};
use nix::unistd::close;
use std::fs::File;
use std::io::{IoSlice, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::thread;

const START: RawFd = 3;

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}"))
}

/// The descriptors that are for this very process, with their names.
pub(crate) fn handed() -> Result<Vec<(RawFd, String)>, String> {
    let (pid, count) = (variable("LISTEN_PID")?, variable("LISTEN_FDS")?);
    if pid != std::process::id().to_string() {
        return Err(format!("LISTEN_PID={pid} is not {}", std::process::id()));
    }
    let names = variable("LISTEN_FDNAMES")?;
    let list: Vec<_> = (START..).zip(names.split(':').map(str::to_owned)).collect();
    if list.len().to_string() == count { Ok(list) } else { Err(format!("LISTEN_FDS={count}, names {names}")) }
}

/// What a service of this name has heard, a line for each message.
pub(crate) fn heard(name: &str) -> PathBuf {
    format!("/run/{name}.heard").into()
}

fn note(unit: &str, socket: &str, text: &[u8]) {
    let file = File::options().create(true).append(true).open(heard(unit));
    let line = format!("{socket}: {}\n", String::from_utf8_lossy(text).trim_end().escape_debug());
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprintln!("{}: {error}", heard(unit).display());
    }
}

/// Answers everybody on every socket with its pid; one client after the other.
pub(crate) fn serve(unit: &str) -> Result<(), String> {
    let threads: Vec<_> = handed()?
        .into_iter()
        .map(|(fd, name)| {
            let unit = unit.to_owned();
            thread::spawn(move || serve_one(&unit, fd, &name))
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked".to_owned())??;
    }
    pause()
}

fn serve_one(unit: &str, fd: RawFd, name: &str) -> Result<(), String> {
    loop {
        match accept(fd) {
            Ok(client) => {
                answer(unit, client, name);
                // It was answered, or has gone.
                let _ = close(client);
            }
            Err(Errno::EOPNOTSUPP) => return hear(unit, fd, name),
            Err(Errno::ENOTSOCK) => return drink(unit, fd, name),
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(errno) => return Err(format!("accept on {name}: {errno}")),
        }
    }
}

fn answer(unit: &str, client: RawFd, name: &str) {
    let mut bytes = [0; 256];
    let Ok(length @ 1..) = recv(client, &mut bytes, MsgFlags::empty()) else { return };
    let text = bytes.get(..length).unwrap_or_default();
    match text {
        b"leak\n" => leak(),
        b"quit\n" => std::process::exit(0),
        b"note\n" => note(unit, name, text),
        b"hold\n" => {
            // Until the client goes.
            let _ = recv(client, &mut bytes, MsgFlags::empty());
        }
        _ => {}
    }
    let words = format!("{} {name}\n", std::process::id());
    let _ = send(client, words.as_bytes(), MsgFlags::MSG_NOSIGNAL);
}

/// Dies until there is a cue, then serves.
pub(crate) fn serve_late(unit: &str) -> Result<(), String> {
    if cue(unit).exists() { serve(unit) } else { Err("not yet".into()) }
}

/// The first run stores what its next runs find; each notes what it finds.
pub(crate) fn store(unit: &str) -> Result<(), String> {
    let found = std::env::var("LISTEN_FDS").map_or(Ok(Vec::new()), |_| handed())?;
    let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
    let text = match found.first() {
        Some((fd, _)) => std::fs::read_to_string(format!("/proc/self/fd/{fd}")).unwrap_or_default(),
        None => String::new(),
    };
    note(unit, &names.join(","), text.as_bytes());
    if found.is_empty() {
        let memory = memory("kept")?;
        give("FDSTORE=1\nFDNAME=memory", memory.as_fd())?;
        // The same open file is not kept twice.
        give("FDSTORE=1\nFDNAME=memory", memory.as_fd())?;
        let (hung_up, other_end) = std::io::pipe().map_err(|error| error.to_string())?;
        drop(other_end);
        give("FDSTORE=1\nFDNAME=pipe", hung_up.as_fd())?;
        for _ in 0..4 {
            give("FDSTORE=1\nFDNAME=more", self::memory("more")?.as_fd())?;
        }
    } else {
        say("FDSTOREREMOVE=1\nFDNAME=more")?;
    }
    say("READY=1")?;
    pause()
}

/// A memfd with a text in it.
pub(crate) fn memory(text: &str) -> Result<File, String> {
    let fd = memfd_create(c"stored", MFdFlags::MFD_CLOEXEC).map_err(|errno| format!("memfd: {errno}"))?;
    let mut file = File::from(fd);
    file.write_all(text.as_bytes())
        .and_then(|()| file.rewind())
        .map_err(|error| format!("memfd: {error}"))?;
    Ok(file)
}

/// A message with a descriptor.
pub(crate) fn give(text: &str, fd: BorrowedFd<'_>) -> Result<(), String> {
    let path = variable("NOTIFY_SOCKET")?;
    let socket = UnixDatagram::unbound().and_then(|socket| socket.connect(&path).map(|()| socket));
    let socket = socket.map_err(|error| format!("{path}: {error}"))?;
    let (numbers, bytes) = ([fd.as_raw_fd()], [IoSlice::new(text.as_bytes())]);
    let rights = [ControlMessage::ScmRights(&numbers)];
    sendmsg::<()>(socket.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None)
        .map(drop)
        .map_err(|errno| format!("{path}: {errno}"))
}

fn leak() {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(vec![1; 1 << 16]);
        std::hint::black_box(&kept);
    }
}

fn hear(unit: &str, fd: RawFd, name: &str) -> Result<(), String> {
    let mut bytes = [0; 4096];
    loop {
        match recvfrom::<SockaddrStorage>(fd, &mut bytes) {
            Ok((length, sender)) => {
                note(unit, name, bytes.get(..length.min(64)).unwrap_or_default());
                if let Some(sender) = sender {
                    let words = format!("{} {name}\n", std::process::id());
                    let _ = sendto(fd, words.as_bytes(), &sender, MsgFlags::empty());
                }
            }
            Err(Errno::EINTR | Errno::ENOBUFS) => {}
            Err(errno) => return Err(format!("receive on {name}: {errno}")),
        }
    }
}

fn drink(unit: &str, fd: RawFd, name: &str) -> Result<(), String> {
    let path = format!("/proc/self/fd/{fd}");
    let mut fifo = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
    let mut bytes = [0; 64];
    loop {
        let length = fifo.read(&mut bytes).map_err(|error| format!("{path}: {error}"))?;
        note(unit, name, bytes.get(..length).unwrap_or_default());
    }
}
