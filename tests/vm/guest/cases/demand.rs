//! Services that are started when somebody needs them, and what they keep over their runs.

use super::Case;
use super::sockets::{SOON, ask_tcp, loopback};
use crate::clients::{Clients, Figures};
use crate::guest::{Guest, ensure, expect, run};
use crate::listener::heard;
use crate::speaker::cue;
use crate::supervisor;
use lifeboat::engine::snapshot::{StateName, Trouble, UnitView};
use lifeboat::sys::clock;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::thread;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "demand-by-each-kind", deadline_s: 180, run: by_each_kind },
    Case { name: "idle-stop-spares-clients", deadline_s: 60, run: idle_spares_clients },
    Case { name: "demand-dies-at-once", deadline_s: 60, run: dies_at_once },
    Case { name: "clients-wait-in-backoff", deadline_s: 120, run: wait_in_backoff },
    Case { name: "fd-store", deadline_s: 60, run: fd_store },
];

const RESTS: &str = "rests-all";

/// Brings the unit to rest: it is idle for a second or two.
fn rest(guest: &Guest, unit: &str) -> Result<UnitView, String> {
    guest.wait_state(unit, StateName::Listening, SOON)
}

/// Something came in; the unit is up, in a new run.
fn is_up_after(guest: &Guest, unit: &str, before: &UnitView) -> Result<(), String> {
    guest.wait(unit, SOON, |snapshot| {
        supervisor::unit(snapshot, unit)
            .filter(|unit| unit.state == StateName::Running && unit.run > before.run)
            .map(drop)
    })
}

/// The service has heard this line; what was heard before is forgotten.
fn has_heard(guest: &Guest, unit: &str, start: &str) -> Result<(), String> {
    guest.until(start, SOON, || {
        std::fs::read_to_string(heard(unit)).ok()?.lines().any(|line| line.starts_with(start)).then_some(())
    })?;
    let _ = std::fs::remove_file(heard(unit));
    Ok(())
}

/// Sends something to the unit at rest by one kind of socket.
type Poke = fn(&Guest) -> Result<(), String>;

fn by_each_kind(guest: &mut Guest) -> Result<(), String> {
    loopback()?;
    let _ = std::fs::remove_file(heard(RESTS));
    guest.start(RESTS)?;
    let kinds: [(&str, Poke); 7] = [
        ("tcp", by_tcp),
        ("udp", by_udp),
        ("unix", by_unix),
        ("unix_dgram", by_unix_datagram),
        ("unix_seqpacket", by_seqpacket),
        ("fifo", by_fifo),
        ("netlink", by_netlink),
    ];
    for (kind, poke) in kinds {
        let resting = rest(guest, RESTS).map_err(|error| format!("before {kind}: {error}"))?;
        expect(&format!("pid before {kind}"), &resting.pid, &None)?;
        poke(guest).map_err(|error| format!("{kind}: {error}"))?;
        is_up_after(guest, RESTS, &resting).map_err(|error| format!("{kind}: {error}"))?;
    }
    rest(guest, RESTS)?;
    let (code, text) = run(&["/usr/bin/lifeboatctl", "status", RESTS])?;
    ensure(code == 0 && text.contains("LISTENING waits on web, dns,"), || format!("status {code}: {text}"))?;
    guest.stop(RESTS)?;
    expect("after the stop", &ask_tcp(8_082, b"hello\n"), &Err(ErrorKind::ConnectionRefused))
}

fn by_tcp(_: &Guest) -> Result<(), String> {
    let text = ask_tcp(8_082, b"hello\n").map_err(|kind| format!("{kind:?}"))?;
    ensure(text.ends_with(" web\n"), || format!("the answer is {text:?}"))
}

fn by_udp(_: &Guest) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
    socket.set_read_timeout(Some(SOON)).map_err(failed)?;
    socket.send_to(b"first", "127.0.0.1:8054").map_err(failed)?;
    let mut bytes = [0; 64];
    let length = socket.recv(&mut bytes).map_err(failed)?;
    let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned();
    ensure(text.ends_with(" dns\n"), || format!("the answer is {text:?}"))
}

fn by_unix(_: &Guest) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = UnixStream::connect("/run/rests-all.sock").map_err(failed)?;
    stream.write_all(b"hello\n").map_err(failed)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(failed)?;
    ensure(text.ends_with(" control\n"), || format!("the answer is {text:?}"))
}

fn by_unix_datagram(guest: &Guest) -> Result<(), String> {
    let socket = UnixDatagram::unbound().map_err(|error| error.to_string())?;
    socket.send_to(b"one line", "/run/rests-all.dgram").map_err(|error| error.to_string())?;
    has_heard(guest, RESTS, "log: one line")
}

fn by_seqpacket(_: &Guest) -> Result<(), String> {
    let failed = |errno: nix::errno::Errno| errno.to_string();
    let flags = SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(failed)?;
    let address = UnixAddr::new_abstract(b"rests-all").map_err(failed)?;
    connect(client.as_raw_fd(), &address).map_err(failed)?;
    send(client.as_raw_fd(), b"hello\n", MsgFlags::empty()).map_err(failed)?;
    let mut bytes = [0; 64];
    let length = nix::sys::socket::recv(client.as_raw_fd(), &mut bytes, MsgFlags::empty()).map_err(failed)?;
    let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned();
    ensure(text.ends_with(" packets\n"), || format!("the answer is {text:?}"))
}

fn by_fifo(guest: &Guest) -> Result<(), String> {
    let mut fifo =
        File::options().write(true).open("/run/rests-all.fifo").map_err(|error| error.to_string())?;
    fifo.write_all(b"a line\n").map_err(|error| error.to_string())?;
    has_heard(guest, RESTS, "lines: a line")
}

fn by_netlink(guest: &Guest) -> Result<(), String> {
    const FILE: &str = "/sys/class/net/lo/uevent";
    std::fs::write(FILE, "change").map_err(|error| format!("{FILE}: {error}"))?;
    has_heard(guest, RESTS, "devices: change@")
}

/// Who is connected is not idle, however long he says nothing.
fn idle_spares_clients(guest: &mut Guest) -> Result<(), String> {
    loopback()?;
    guest.start(RESTS)?;
    let before = rest(guest, RESTS)?;
    let mut tcp = TcpStream::connect("127.0.0.1:8082").map_err(|error| format!("tcp: {error}"))?;
    tcp.write_all(b"hold\n").map_err(|error| format!("tcp: {error}"))?;
    is_up_after(guest, RESTS, &before)?;
    let run_of = |guest: &Guest| guest.unit(RESTS).map(|unit| (unit.state, unit.run));
    let held = run_of(guest)?;
    // Four times its idle_stop; time itself is what is tested.
    thread::sleep(Duration::from_secs(4));
    expect("state and run with a tcp client", &run_of(guest)?, &held)?;
    let mut unix = UnixStream::connect("/run/rests-all.sock").map_err(|error| format!("unix: {error}"))?;
    unix.write_all(b"hold\n").map_err(|error| format!("unix: {error}"))?;
    drop(tcp);
    thread::sleep(Duration::from_secs(4));
    expect("state and run with a unix client", &run_of(guest)?, &held)?;
    drop(unix);
    rest(guest, RESTS)?;
    guest.stop(RESTS)
}

/// It is started for each client that waits, but not more often than its limit; then the client is told.
fn dies_at_once(guest: &mut Guest) -> Result<(), String> {
    const UNIT: &str = "dies-on-demand";
    loopback()?;
    expect("start", &guest.ask("Start", UNIT)?.as_str(), &"Started")?;
    // The start itself counts as one, and dies as all the others.
    rest(guest, UNIT)?;
    let mut client = TcpStream::connect("127.0.0.1:8083").map_err(|error| format!("tcp: {error}"))?;
    let fatal = guest.wait_state(UNIT, StateName::Fatal, SOON)?;
    expect("trouble", &fatal.trouble, &Some(Trouble::StartLimit { starts: 4 }))?;
    expect("runs", &fatal.run.0, &4)?;
    let told = client.read(&mut [0; 1]);
    ensure(matches!(told, Ok(0) | Err(_)), || format!("the client is told {told:?}"))?;
    expect("the next client", &ask_tcp(8_083, b"hello\n"), &Err(ErrorKind::ConnectionRefused))
}

/// 1,000 clients wait in the queue until the delay is over.
fn wait_in_backoff(guest: &mut Guest) -> Result<(), String> {
    const UNIT: &str = "serves-late";
    const CLIENTS: u32 = 1_000;
    loopback()?;
    let _ = std::fs::remove_file(cue(UNIT));
    guest.ask("Start", UNIT)?;
    let waiting = guest.wait_state(UNIT, StateName::Backoff, SOON)?;
    let mut clients = Clients::of(8_084)?;
    while clients.figures.sent < CLIENTS {
        clients.send()?;
        clients.hear(clock::now())?;
    }
    // All of them are connected while nobody is there.
    while clients.open() < CLIENTS as usize && clients.figures.refused == 0 {
        clients.hear(clock::now().plus_ms(10))?;
    }
    let still = guest.unit(UNIT)?;
    expect("state and run", &(still.state, still.run), &(StateName::Backoff, waiting.run))?;
    File::create(cue(UNIT)).map_err(|error| format!("the cue: {error}"))?;
    while clients.open() > 0 {
        clients.hear(clock::now().plus_ms(1_000))?;
        clients.give_up();
    }
    let figures = clients.figures;
    guest.figure(&format!(
        "sockets: {CLIENTS} clients while the service is in BACKOFF: {} answered, {} refused, {} without an answer",
        figures.answered, figures.refused, figures.lost
    ));
    expect("figures", &figures, &Figures { sent: CLIENTS, answered: CLIENTS, ..Figures::default() })?;
    guest.stop(UNIT)
}

fn fd_store(guest: &mut Guest) -> Result<(), String> {
    const UNIT: &str = "stores";
    let _ = std::fs::remove_file(heard(UNIT));
    let kill_it = |guest: &Guest| {
        let before = guest.wait_state(UNIT, StateName::Running, SOON)?;
        let pid = before.pid.and_then(|pid| i32::try_from(pid).ok()).ok_or("no pid")?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|errno| format!("kill {pid}: {errno}"))?;
        is_up_after(guest, UNIT, &before)
    };
    guest.start(UNIT)?;
    kill_it(guest)?;
    kill_it(guest)?;
    guest.stop(UNIT)?;
    guest.start(UNIT)?;
    let text = std::fs::read_to_string(heard(UNIT)).map_err(|error| error.to_string())?;
    // Of seven it may store three; the pipe without another end and the second of the same file are not among them.
    expect("what each run found", &text.as_str(), &": \nmemory,more,more: kept\nmemory: kept\n: \n")?;
    guest.stop(UNIT)
}
