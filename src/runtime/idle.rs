//! Whether anybody needs a service that was started on demand.
//!
//! Idle is: nobody is connected to its sockets, nothing waits in them, and its processes have hardly run since the last
//! look. What the kernel shows of connections is in `/proc/net`: the accepted ones have the port or the path of the
//! socket that they came in by.

use super::event_loop::Lifeboat;
use super::seat::Seat;
use crate::cgroup::group::Group;
use crate::engine::event::{Event, Role};
use crate::engine::policy::{RunId, UnitId};
use crate::sys::socket;
use crate::unit::Address;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::Path;

/// A service whose processes have run for less since the last look has done nothing for anybody: one that only wakes up
/// to look at a clock needs some 50 µs each time.
const BUSY_US: u64 = 5_000;

impl Lifeboat {
    pub(super) fn look_idle(&mut self, unit: UnitId, run: RunId) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let idle = seat.is_idle();
        self.events.push_back(Event::LookedIdle { unit, run, idle });
    }

    pub(super) fn thaw(&mut self, unit: UnitId) {
        let group = self.seats.get(usize::from(unit.0)).and_then(|seat| seat.group(Role::Service));
        if let Some(Err(errno)) = group.map(Group::thaw) {
            let error = crate::sys::error::SysError::new("thaw", "a service's cgroup", errno);
            super::story::complain(&error);
        }
    }
}

impl Seat {
    /// What cannot be read counts as busy: a stop must never cost anybody anything.
    fn is_idle(&mut self) -> bool {
        let used_us = self.group(Role::Service).and_then(|group| group.cpu_usage_us().ok());
        let before_us = std::mem::replace(&mut self.cpu_usage_us, used_us);
        let at_rest = match (before_us, used_us) {
            (Some(before_us), Some(used_us)) => used_us.saturating_sub(before_us) < BUSY_US,
            (None, _) | (_, None) => false,
        };
        at_rest
            && !self.descriptors.sockets.iter().any(|opened| socket::has_something(opened.fd.as_fd()))
            && self.unit.sockets.iter().all(|socket| is_unconnected(&socket.address).unwrap_or(false))
    }
}

/// Nobody is connected by way of this address.
fn is_unconnected(address: &Address) -> std::io::Result<bool> {
    match address {
        Address::Tcp(address) => {
            let port = address.port();
            Ok(none_in("/proc/net/tcp", |line| is_connection_at(line, port))?
                && none_in("/proc/net/tcp6", |line| is_connection_at(line, port))?)
        }
        Address::Unix(path) | Address::UnixSeqpacket(path) => {
            none_in("/proc/net/unix", |line| is_connection_of(line, path))
        }
        Address::Udp(_)
        | Address::UnixDatagram(_)
        | Address::Fifo(_)
        | Address::NetlinkRoute(_)
        | Address::NetlinkAudit(_)
        | Address::NetlinkKobjectUevent(_) => Ok(true),
    }
}

/// No line of the file is such a one. A kernel without the family has no file.
fn none_in(file: &str, is_one: impl Fn(&str) -> bool) -> std::io::Result<bool> {
    let file = match File::open(file) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let mut lines = BufReader::with_capacity(4096, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(true);
        }
        if is_one(&String::from_utf8_lossy(&line)) {
            return Ok(false);
        }
    }
}

/// `  1: 0100007F:1F90 0100007F:CBE2 01 ...`: established, half open, or closed by the client only
/// (include/net/tcp_states.h).
fn is_connection_at(line: &str, port: u16) -> bool {
    let mut words = line.split_ascii_whitespace();
    let (_number, local, _remote, state) = (words.next(), words.next(), words.next(), words.next());
    let local_port = local.and_then(|local| local.rsplit_once(':')).map(|(_, port)| port);
    let is_here = local_port.and_then(|text| u16::from_str_radix(text, 16).ok()) == Some(port);
    is_here && matches!(state, Some("01" | "03" | "08"))
}

/// `ffff...: 00000003 00000000 00000000 0001 03 17236 /run/x`: `SS_CONNECTED` (include/uapi/linux/net.h).
fn is_connection_of(line: &str, path: &Path) -> bool {
    let mut words = line.trim_end_matches('\n').splitn(8, ' ').filter(|word| !word.is_empty());
    let state = words.nth(5);
    // The inode is padded, so what follows it may still have it before the path.
    let rest = words.last().unwrap_or_default().trim_start();
    let found = rest.split_once(' ').filter(|(inode, _)| inode.bytes().all(|byte| byte.is_ascii_digit()));
    let name = found.map_or(rest, |(_, name)| name);
    state == Some("03") && Path::new(name) == path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_found_in_what_the_kernel_shows() {
        let tcp = |line: &str, port: u16, expected: bool| {
            assert_eq!(is_connection_at(line, port), expected, "{line}");
        };
        let line = |local: &str, state: &str| {
            format!("   1: {local} 0100007F:CBE2 {state} 00000000:00000000 00:0\n")
        };
        tcp(&line("0100007F:1F90", "01"), 8_080, true);
        tcp(&line("00000000000000000000000001000000:1F90", "08"), 8_080, true);
        tcp(&line("0100007F:1F90", "03"), 8_080, true);
        tcp(&line("0100007F:1F90", "0A"), 8_080, false);
        tcp(&line("0100007F:1F90", "06"), 8_080, false);
        tcp(&line("0100007F:1F91", "01"), 8_080, false);
        tcp("  sl  local_address rem_address   st tx_queue rx_queue\n", 8_080, false);
        tcp("", 0, false);
        let unix = |line: &str, path: &str, expected: bool| {
            assert_eq!(is_connection_of(line, Path::new(path)), expected, "{line}");
        };
        let line = |state: &str, end: &str| {
            format!("0000000000000000: 00000003 00000000 00000000 0001 {state} {end}\n")
        };
        unix(&line("03", "17236 /run/x"), "/run/x", true);
        unix(&line("03", "   36 /run/x"), "/run/x", true);
        unix(&line("03", "17236 /run/a path"), "/run/a path", true);
        unix(&line("03", "17236 @x"), "@x", true);
        unix(&line("01", "17236 /run/x"), "/run/x", false);
        unix(&line("03", "17236 /run/xy"), "/run/x", false);
        unix(&line("03", "17236"), "/run/x", false);
        unix("Num       RefCount Protocol Flags    Type St Inode Path\n", "/run/x", false);
    }
}
