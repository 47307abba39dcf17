//! Sockets that lifeboat holds for services.

use super::Case;
use crate::clients::{Clients, Figures};
use crate::guest::{Guest, ensure, expect, run};
use crate::supervisor;
use lifeboat::engine::event::{SpawnStage, Time};
use lifeboat::engine::snapshot::{StateName, Trouble};
use lifeboat::sys::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "sockets-through-restarts", deadline_s: 240, run: through_restarts },
    Case { name: "sockets-are-handed-over", deadline_s: 40, run: handed_over },
    Case { name: "socket-path-in-use", deadline_s: 40, run: path_in_use },
    Case { name: "socket-left-behind", deadline_s: 40, run: left_behind },
    Case { name: "socket-port-in-use", deadline_s: 40, run: port_in_use },
];

pub(super) const SOON: Duration = Duration::from_secs(20);

/// One client: connects, says something, waits for the answer.
pub(super) fn ask_tcp(port: u16, words: &[u8]) -> Result<String, ErrorKind> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.kind())?;
    let set = stream.set_read_timeout(Some(Duration::from_secs(30)));
    set.map_err(|error| error.kind())?;
    stream.write_all(words).map_err(|error| error.kind())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.kind())?;
    if text.ends_with('\n') { Ok(text) } else { Err(ErrorKind::UnexpectedEof) }
}

/// The loopback interface, which nobody else brings up here.
pub(super) fn loopback() -> Result<(), String> {
    let (code, text) = run(&["/bin/busybox", "ifconfig", "lo", "127.0.0.1", "up"])?;
    expect(&format!("exit code of ifconfig ({text:?})"), &code, &0)
}

/// 200 requests a second while the service is killed, restarted and exhausted, 20 times in all.
fn through_restarts(guest: &mut Guest) -> Result<(), String> {
    const UNIT: &str = "serves-tcp";
    loopback()?;
    guest.start(UNIT)?;
    let over = Arc::new(AtomicBool::new(false));
    let client = thread::spawn({
        let over = Arc::clone(&over);
        move || send_evenly(&over)
    });
    let mut ended = Ok(());
    for round in 0..20 {
        ended = ended.and_then(|()| end_it(guest, UNIT, round));
    }
    over.store(true, Ordering::Relaxed);
    let (rate, figures) = client.join().map_err(|_| "the client panicked".to_owned())??;
    ended?;
    let Figures { sent, answered, refused, cut, lost } = figures;
    guest.figure(&format!(
        "sockets: 20 restarts and kills at {rate:.0} requests/s: {sent} sent, {answered} answered, {refused} refused, {lost} \
         without an answer, {cut} cut off in a service that was killed"
    ));
    expect("refused", &refused, &0)?;
    expect("without an answer", &lost, &0)?;
    // A service that is killed holds one connection at most; the request that makes it leak is not among these.
    ensure(cut <= 20, || format!("{cut} connections were cut"))?;
    expect("answered or cut", &(answered + cut), &sent)?;
    guest.stop(UNIT)?;
    expect("after the stop", &ask_tcp(8_080, b"hello\n"), &Err(ErrorKind::ConnectionRefused))
}

/// 200 requests a second until it is over, and the answers to all of them.
fn send_evenly(over: &AtomicBool) -> Result<(f64, Figures), String> {
    const PERIOD_US: u64 = 5_000;
    let mut clients = Clients::of(8_080)?;
    let began = clock::now();
    while !over.load(Ordering::Relaxed) {
        clients.send()?;
        let next = Time(began.0 + PERIOD_US * u64::from(clients.figures.sent));
        while clock::now() < next {
            clients.hear(next)?;
        }
    }
    let took_us = clock::now().since_us(began);
    let rate = f64::from(clients.figures.sent) * 1e6 / f64::from(u32::try_from(took_us).unwrap_or(u32::MAX));
    while clients.open() > 0 {
        clients.hear(clock::now().plus_ms(1_000))?;
        clients.give_up();
    }
    Ok((rate, clients.figures))
}

/// The end of one run, each time by another way, and the next one that answers.
fn end_it(guest: &Guest, unit: &str, round: u32) -> Result<(), String> {
    let before = guest.wait_state(unit, StateName::Running, SOON)?;
    match round % 3 {
        0 => {
            let pid = before.pid.and_then(|pid| i32::try_from(pid).ok()).ok_or("no pid")?;
            kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|errno| format!("kill {pid}: {errno}"))?;
        }
        1 => {
            let (code, text) = run(&["/usr/bin/lifeboatctl", "restart", unit])?;
            expect(&format!("exit code of restart ({text:?})"), &code, &0)?;
        }
        _ => {
            // Its answer never comes; the next one's does.
            let _ = ask_tcp(8_080, b"leak\n");
        }
    }
    guest.wait(unit, SOON, |snapshot| {
        supervisor::unit(snapshot, unit)
            .filter(|unit| unit.state == StateName::Running && unit.run > before.run)
            .map(drop)
    })?;
    // Some requests go by.
    thread::sleep(Duration::from_millis(150));
    Ok(())
}

/// All kinds, with their names, modes and owners; what a client sees; nothing stays behind.
fn handed_over(guest: &mut Guest) -> Result<(), String> {
    const UNIT: &str = "serves-all";
    loopback()?;
    guest.start(UNIT)?;
    let text = ask_tcp(8_081, b"hello\n").map_err(|kind| format!("tcp: {kind:?}"))?;
    let pid = guest.unit(UNIT)?.pid.unwrap_or(0);
    expect("the answer by tcp", &text, &format!("{pid} web\n"))?;
    let mut stream = UnixStream::connect("/run/serves-all.sock").map_err(|error| format!("unix: {error}"))?;
    stream.write_all(b"hello\n").map_err(|error| format!("unix: {error}"))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| format!("unix: {error}"))?;
    expect("the answer by unix", &text, &format!("{pid} control\n"))?;
    let file = std::fs::metadata("/run/serves-all.sock").map_err(|error| format!("its file: {error}"))?;
    let seen = (file.permissions().mode() & 0o777, file.uid(), file.gid());
    expect("mode, user and group", &seen, &(0o640, 65_534, 100))?;
    guest.stop(UNIT)?;
    for path in ["/run/serves-all.sock", "/run/serves-all.fifo", "/run/serves-all.dgram"] {
        ensure(!Path::new(path).exists(), || format!("{path} is left behind"))?;
    }
    Ok(())
}

/// The unit cannot have its sockets: it says why, is tried again, and comes up once it can.
fn fails_until(guest: &Guest, unit: &str, errno: i32, make_room: impl FnOnce()) -> Result<(), String> {
    expect("start", &guest.ask("Start", unit)?.as_str(), &"Failed")?;
    let seen = guest.unit(unit)?;
    let wanted = Some(Trouble::SpawnFailed { stage: SpawnStage::Sockets, errno, procedure: false });
    expect("trouble", &seen.trouble, &wanted)?;
    expect("state", &seen.state, &StateName::Backoff)?;
    make_room();
    guest.wait_state(unit, StateName::Running, SOON)?;
    guest.stop(unit)
}

fn path_in_use(guest: &mut Guest) -> Result<(), String> {
    const PATH: &str = "/run/serves-unix.sock";
    let taken = UnixListener::bind(PATH).map_err(|error| format!("{PATH}: {error}"))?;
    let own = std::fs::metadata(PATH).map_err(|error| format!("{PATH}: {error}"))?.ino();
    expect("start", &guest.ask("Start", "serves-unix")?.as_str(), &"Failed")?;
    let now = std::fs::metadata(PATH).map_err(|error| format!("{PATH}: {error}"))?.ino();
    expect("the other's socket", &now, &own)?;
    UnixStream::connect(PATH).map_err(|error| format!("the other one: {error}"))?;
    fails_until(guest, "serves-unix", nix::libc::EADDRINUSE, || drop(taken))?;
    // What is no socket is not replaced.
    File::create(PATH).map_err(|error| format!("{PATH}: {error}"))?;
    let remove = || drop(std::fs::remove_file(PATH));
    fails_until(guest, "serves-unix", nix::libc::EEXIST, remove)
}

fn left_behind(guest: &mut Guest) -> Result<(), String> {
    const PATH: &str = "/run/serves-unix.sock";
    drop(UnixListener::bind(PATH).map_err(|error| format!("{PATH}: {error}"))?);
    guest.start("serves-unix")?;
    UnixStream::connect(PATH).map_err(|error| format!("{PATH}: {error}"))?;
    guest.stop("serves-unix")
}

fn port_in_use(guest: &mut Guest) -> Result<(), String> {
    loopback()?;
    let taken = TcpListener::bind("127.0.0.1:8080").map_err(|error| format!("the port: {error}"))?;
    fails_until(guest, "serves-tcp", nix::libc::EADDRINUSE, || drop(taken))
}
