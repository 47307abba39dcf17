//! The fields about sockets, about the start on demand, and about descriptors that are kept for a service.

use super::Unit;
use super::accounts::{Accounts, id};
use super::check::{number, time};
use super::diagnostic::{Wrong, did_you_mean, short};
use super::raw::RawSocket;
use super::reader::{Item, Reader, Slot};
use super::value::Millis;
use crate::engine::policy::Kind;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

/// Beside these the program needs room for descriptors of its own.
const SOCKETS_MAX: usize = 32;

/// Each of them is one of lifeboat's own descriptors.
const FD_STORE: RangeInclusive<u64> = 0..=128;

/// `NAME_BYTES_MAX` of what is handed over.
const NAME_BYTES_MAX: usize = 64;

/// `sun_path` of unix(7) with its NUL.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// What listen(2) takes.
const BACKLOG: RangeInclusive<u64> = 1..=65_535;

/// Where the user has not said: as much as `net.core.somaxconn` allows by default.
const BACKLOG_DEFAULT: u32 = 4_096;

/// For how long nobody has needed it: a start costs more than a second's rest saves.
const IDLE_MS: RangeInclusive<u64> = 1_000..=86_400_000;

/// Where a socket listens, or what it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// UDP.
    Udp(SocketAddr),
    /// A Unix stream socket; a name that begins with `@` is abstract.
    Unix(PathBuf),
    /// A Unix datagram socket.
    UnixDatagram(PathBuf),
    /// A Unix socket of datagrams over connections.
    UnixSeqpacket(PathBuf),
    /// A fifo.
    Fifo(PathBuf),
    /// The kernel's routes and links, with the groups (a bit for each).
    NetlinkRoute(u32),
    /// The kernel's audit records.
    NetlinkAudit(u32),
    /// The kernel's devices that come and go.
    NetlinkKobjectUevent(u32),
}

impl Address {
    /// Where it is in the file system.
    #[must_use]
    pub fn path(&self) -> Option<&std::path::Path> {
        match self {
            Self::Unix(path) | Self::UnixDatagram(path) | Self::UnixSeqpacket(path) | Self::Fifo(path) => {
                Some(path).filter(|path| path.is_absolute()).map(PathBuf::as_path)
            }
            Self::Tcp(_)
            | Self::Udp(_)
            | Self::NetlinkRoute(_)
            | Self::NetlinkAudit(_)
            | Self::NetlinkKobjectUevent(_) => None,
        }
    }

    /// Clients connect, and may have to wait for that.
    #[must_use]
    pub fn has_connections(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_) | Self::UnixSeqpacket(_))
    }
}

/// A socket that lifeboat opens for a service and keeps open over its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its name in `LISTEN_FDNAMES`.
    pub name: String,
    /// Where.
    pub address: Address,
    /// listen(2).
    pub backlog: u32,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
    /// `IPV6_V6ONLY`.
    pub v6only: bool,
    /// Of its file.
    pub mode: u32,
    /// Of its file.
    pub uid: Option<u32>,
    /// Of its file.
    pub gid: Option<u32>,
    /// For what is found wrong with it later.
    pub place: Written,
}

/// File, line and column of something that a person wrote. It makes no difference: a socket that has moved to another
/// line is the same socket.
#[derive(Clone, Debug)]
pub struct Written(pub String);

impl PartialEq for Written {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Written {}

/// Reads `sockets`.
pub(super) fn sockets_into(
    reader: &mut Reader<'_>,
    slot: Slot<Vec<Item<RawSocket>>>,
    unit: &mut Unit,
    accounts: &Accounts,
) {
    let Some(Item { value: list, at }) = slot.given() else { return };
    if list.len() > SOCKETS_MAX {
        let wrong = Wrong::new(format!("{} sockets are too many: {SOCKETS_MAX} is the most", list.len()));
        reader.fault_in("sockets", &at, wrong);
        return;
    }
    for Item { value: raw, at } in list {
        let Some(socket) = socket(reader, raw, &at, &unit.policy.name, accounts) else { continue };
        if unit.sockets.iter().any(|other| other.address == socket.address) && !socket.reuse_port {
            let wrong = Wrong::new("the same address stands in this list twice").hint("keep one of the two");
            reader.fault_in("sockets", &at, wrong);
        }
        unit.policy.descriptors.sockets.push(socket.name.clone());
        unit.sockets.push(socket);
    }
}

fn socket(
    reader: &mut Reader<'_>,
    mut raw: RawSocket,
    at: &Range<usize>,
    unit: &str,
    accounts: &Accounts,
) -> Option<Socket> {
    let name = name(reader, raw.name.take(), unit);
    let has_file = !raw.mode.is_absent() || !raw.user.is_absent() || !raw.group.is_absent();
    let mode = mode(reader, raw.mode.take());
    let uid = raw.user.take().given().and_then(|user| {
        let found = accounts.user(&user.value).map(|user| user.uid).or_else(|| id(&user.value));
        found.or_else(|| nobody(reader, "sockets.user", &user, &mut accounts.user_names()))
    });
    let gid = raw.group.take().given().and_then(|group| {
        let found = accounts.gid(&group.value).or_else(|| id(&group.value));
        found.or_else(|| nobody(reader, "sockets.group", &group, &mut accounts.group_names()))
    });
    let (backlog, v6only) = (raw.backlog.take(), raw.v6only.take());
    let (backlog_at, v6only_at) = (backlog.place(), v6only.place());
    let backlog = number(reader, "sockets.backlog", backlog, BACKLOG);
    let reuse_port_at = raw.reuse_port.place();
    let reuse_port = raw.reuse_port.take().value_or(false);
    let address = address(reader, raw, at)?;
    let mut misplaced = |at: Option<Range<usize>>, field: &str, why: &str| {
        if let Some(at) = at {
            reader.fault_in(field, &at, Wrong::new(why).hint("take it out"));
        }
    };
    if !address.has_connections() {
        misplaced(backlog_at, "sockets.backlog", "nobody waits to be connected here");
    }
    if !matches!(address, Address::Tcp(_) | Address::Udp(_)) {
        misplaced(reuse_port_at, "sockets.reuse_port", "there is no port here");
    }
    if !matches!(address, Address::Tcp(SocketAddr::V6(_)) | Address::Udp(SocketAddr::V6(_))) {
        misplaced(v6only_at, "sockets.v6only", "this is no IPv6 address");
    }
    if has_file && address.path().is_none() {
        misplaced(Some(at.clone()), "sockets", "this has no file, so no mode, user or group");
    }
    Some(Socket {
        name,
        address,
        backlog: backlog.and_then(|it| u32::try_from(it).ok()).unwrap_or(BACKLOG_DEFAULT),
        reuse_port,
        v6only: v6only.value_or(false),
        mode,
        uid,
        gid,
        place: Written(reader.place(at).shown(reader.file)),
    })
}

fn name(reader: &mut Reader<'_>, slot: Slot<String>, unit: &str) -> String {
    let Some(Item { value, at }) = slot.given() else { return unit.to_owned() };
    let allowed = |c: char| c.is_ascii_graphic() && c != ':';
    if value.is_empty() || value.len() > NAME_BYTES_MAX || !value.chars().all(allowed) {
        let wrong = Wrong::new(format!("`{}` is no name of a socket", short(&value)));
        let hint = format!("use up to {NAME_BYTES_MAX} letters, digits and signs, without : and blanks");
        reader.fault_in("sockets.name", &at, wrong.hint(hint));
    }
    value
}

fn mode(reader: &mut Reader<'_>, slot: Slot<String>) -> u32 {
    const DEFAULT: u32 = 0o666;
    let Some(Item { value, at }) = slot.given() else { return DEFAULT };
    let mode = u32::from_str_radix(&value, 8).ok().filter(|mode| *mode <= 0o777 && !value.starts_with('+'));
    mode.unwrap_or_else(|| {
        let wrong = Wrong::new(format!("`{}` is no mode of a file", short(&value)));
        reader.fault_in("sockets.mode", &at, wrong.hint("write it in octal, such as \"660\""));
        DEFAULT
    })
}

fn nobody(
    reader: &mut Reader<'_>,
    field: &str,
    Item { value, at }: &Item<String>,
    known: &mut dyn Iterator<Item = &str>,
) -> Option<u32> {
    let hint = did_you_mean(value, known).unwrap_or_else(|| "add it to the image's file".to_owned());
    let wrong = Wrong::new(format!("nobody here is called `{}`", short(value)));
    reader.fault_in(field, at, wrong.hint(hint));
    None
}

/// The one address of a socket.
fn address(reader: &mut Reader<'_>, raw: RawSocket, at: &Range<usize>) -> Option<Address> {
    let mut found = Vec::new();
    let mut faulty = false;
    let mut take = |field: &'static str, slot: Slot<String>| match slot {
        Slot::Given(item) => found.push((field, item)),
        Slot::Faulty => faulty = true,
        Slot::Absent => {}
    };
    take("sockets.tcp", raw.tcp);
    take("sockets.udp", raw.udp);
    take("sockets.unix", raw.unix);
    take("sockets.unix_dgram", raw.unix_dgram);
    take("sockets.unix_seqpacket", raw.unix_seqpacket);
    take("sockets.fifo", raw.fifo);
    take("sockets.netlink", raw.netlink);
    if found.len() > 1 {
        let wrong = Wrong::new("a socket has one address").hint("write one ( ) for each of them");
        reader.fault_in("sockets", at, wrong);
        return None;
    }
    let Some((field, Item { value, at })) = found.pop() else {
        if !faulty {
            let hint = "write (tcp: \"0.0.0.0:80\"), (udp: ...), (unix: \"/run/x\"), unix_dgram, unix_seqpacket, fifo or \
                        netlink";
            reader.missing("sockets.tcp", at, hint);
        }
        return None;
    };
    match field {
        "sockets.tcp" => internet(reader, field, &value, &at).map(Address::Tcp),
        "sockets.udp" => internet(reader, field, &value, &at).map(Address::Udp),
        "sockets.unix" => path(reader, field, value, &at).map(Address::Unix),
        "sockets.unix_dgram" => path(reader, field, value, &at).map(Address::UnixDatagram),
        "sockets.unix_seqpacket" => path(reader, field, value, &at).map(Address::UnixSeqpacket),
        "sockets.fifo" => path(reader, field, value, &at).map(Address::Fifo),
        _ => netlink(reader, &value, &at),
    }
}

fn internet(reader: &mut Reader<'_>, field: &str, value: &str, at: &Range<usize>) -> Option<SocketAddr> {
    let address = value.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
    if address.is_none() {
        let wrong = Wrong::new(format!("`{}` is no address with a port", short(value)));
        let hint = "write \"0.0.0.0:80\" (every IPv4 address), \"[::]:80\" (IPv6 and IPv4) or \"127.0.0.1:80\"; names are \
                    not looked up";
        reader.fault_in(field, at, wrong.hint(hint));
    }
    address
}

fn path(reader: &mut Reader<'_>, field: &str, value: String, at: &Range<usize>) -> Option<PathBuf> {
    let abstract_name = value.strip_prefix('@').filter(|_| field != "sockets.fifo");
    let is_path = value.starts_with('/') && !value.ends_with('/');
    let fits = value.len() <= UNIX_PATH_BYTES_MAX || field == "sockets.fifo";
    if !(is_path || abstract_name.is_some_and(|name| !name.is_empty())) || !fits || value.contains('\0') {
        let wrong = Wrong::new(format!("`{}` is no path for it", short(&value)));
        let hint = format!("begin with /, name a file, and use at most {UNIX_PATH_BYTES_MAX} bytes");
        reader.fault_in(field, at, wrong.hint(hint));
        return None;
    }
    Some(value.into())
}

fn netlink(reader: &mut Reader<'_>, value: &str, at: &Range<usize>) -> Option<Address> {
    let (family, groups) = value.split_once(' ').unwrap_or((value, "0"));
    let groups = groups.trim().parse();
    let address = match (family, groups) {
        ("route", Ok(groups)) => Address::NetlinkRoute(groups),
        ("audit", Ok(groups)) => Address::NetlinkAudit(groups),
        ("kobject-uevent", Ok(groups)) => Address::NetlinkKobjectUevent(groups),
        _ => {
            let wrong = Wrong::new(format!("`{}` is no netlink family with its groups", short(value)));
            let hint = "write \"kobject-uevent 1\": route, audit or kobject-uevent, and a number with a bit for each group";
            reader.fault_in("sockets.netlink", at, wrong.hint(hint));
            return None;
        }
    };
    Some(address)
}

/// Reads `on_demand`, `idle_stop` and `fd_store_max`; after `sockets` and `ready`.
pub(super) fn demand_into(
    reader: &mut Reader<'_>,
    (on_demand, idle_stop, fd_store_max): (Slot<bool>, Slot<Millis>, Slot<u64>),
    ready_at: Option<Range<usize>>,
    unit: &mut Unit,
) {
    let idle_at = idle_stop.place();
    if let Some(Item { value: true, at }) = on_demand.given() {
        unit.policy.descriptors.on_demand = true;
        if unit.sockets.is_empty() {
            let wrong = Wrong::new("without a socket nothing can demand it");
            reader.fault_in(
                "on_demand",
                &at,
                wrong.hint("add sockets: [(tcp: \"0.0.0.0:80\")], or take it out"),
            );
        }
        if unit.policy.kind == Kind::Task {
            let wrong =
                Wrong::new("a task is not started on demand").hint("use kind: Service, or take it out");
            reader.fault_in("on_demand", &at, wrong);
        }
    }
    unit.policy.descriptors.idle_stop_ms = time(reader, "idle_stop", idle_stop, IDLE_MS);
    if let Some(at) = idle_at
        && !unit.policy.descriptors.on_demand
    {
        let wrong = Wrong::new("nothing would start it again").hint("add on_demand: true, or take it out");
        reader.fault_in("idle_stop", &at, wrong);
    }
    let most = number(reader, "fd_store_max", fd_store_max, FD_STORE).unwrap_or(0);
    unit.policy.descriptors.store_max = u16::try_from(most).unwrap_or(0);
    handed_numbers(reader, ready_at, unit);
}

/// Sockets and stored descriptors take the numbers from 3 on.
fn handed_numbers(reader: &mut Reader<'_>, ready_at: Option<Range<usize>>, unit: &Unit) {
    let count = unit.sockets.len() + usize::from(unit.policy.descriptors.store_max);
    let first_free = i32::try_from(3 + count).unwrap_or(i32::MAX);
    if let (Some(fd), Some(at)) = (unit.notification_fd, ready_at)
        && count > 0
        && fd < first_free
    {
        let wrong = Wrong::new(format!("descriptor {fd} is taken: sockets and stored ones begin at 3"));
        let hint = format!("use ready: NotificationFd({first_free}) or higher");
        reader.fault_in("ready", &at, wrong.hint(hint));
    }
}
