//! The control socket: whatever one client sends or leaves out, the next one gets its answer.

use super::Case;
use crate::guest::{Guest, ensure};
use crate::supervisor::SOCKET;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    Case { name: "control-garbage", deadline_s: 60, run: control_garbage },
    Case { name: "control-half-request", deadline_s: 30, run: control_half_request },
    Case { name: "control-1000-connections", deadline_s: 90, run: control_1000_connections },
];

fn connect() -> Result<UnixStream, String> {
    UnixStream::connect(SOCKET).map_err(|error| format!("{SOCKET}: {error}"))
}

/// A good client, next to whatever else is connected.
fn answers(guest: &Guest, beside: &str) -> Result<Duration, String> {
    let began = Instant::now();
    guest.status().map_err(|error| format!("beside {beside}, a good client gets: {error}"))?;
    Ok(began.elapsed())
}

fn control_garbage(guest: &mut Guest) -> Result<(), String> {
    let deep = [b"{\"method\":".as_slice(), &[b'['; 50_000], b"\0"].concat();
    let noise: Vec<u8> = (0..200_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let cases: [(&str, &[u8]); 8] = [
        ("one NUL", b"\0"),
        ("many NULs", &[0; 10_000]),
        ("not JSON", b"status\n\0"),
        ("JSON that is no call", b"[1,2,3]\0{}\0null\0\"x\"\0"),
        ("a call without a method", b"{\"parameters\":{\"name\":1e999}}\0"),
        ("a method with a wrong type", b"{\"method\":7}\0"),
        ("deep JSON", &deep),
        ("noise without end", &noise),
    ];
    for (name, bytes) in cases {
        let mut stream = connect()?;
        let limit = stream.set_write_timeout(Some(Duration::from_secs(5)));
        limit
            .and_then(|()| stream.set_read_timeout(Some(Duration::from_secs(5))))
            .map_err(|e| e.to_string())?;
        // lifeboat may close the connection at any byte: that is no fault.
        let _ = stream.write_all(bytes);
        answers(guest, name)?;
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // Whatever it says, it ends the connection now that we have.
        let mut rest = Vec::new();
        if let Err(error) = stream.take(1 << 20).read_to_end(&mut rest) {
            ensure(error.kind() != std::io::ErrorKind::WouldBlock, || {
                format!("{name}: the connection stays open")
            })?;
        }
    }
    Ok(())
}

fn control_half_request(guest: &mut Guest) -> Result<(), String> {
    let mut halves = Vec::new();
    for _ in 0..20 {
        let mut stream = connect()?;
        stream.write_all(b"{\"method\":\"org.lifeboat.Superv").map_err(|error| error.to_string())?;
        halves.push(stream);
    }
    answers(guest, "20 half requests")?;
    drop(halves);
    answers(guest, "20 clients that hung up").map(drop)
}

fn control_1000_connections(guest: &mut Guest) -> Result<(), String> {
    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_NOFILE, 4_096, 4_096).map_err(|error| format!("RLIMIT_NOFILE: {error}"))?;
    let mut open = Vec::new();
    for _ in 0..1_000 {
        open.push(connect()?);
    }
    // The clients above may be turned away; one that comes after them is served, at the latest once they are gone.
    let beside = answers(guest, "1,000 connections");
    drop(open);
    let after = answers(guest, "nobody, after 1,000 connections")?;
    let beside = beside?;
    guest.figure(&format!("status beside 1,000 connections: {beside:.1?}, after them: {after:.1?}"));
    Ok(())
}
