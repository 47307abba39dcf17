//! Programs that say when they ran: the two ends of the measurement of a boot.

use super::cast;
use super::report;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// One of many trivial services: `stamp started N MICROSECONDS`, then it stays.
pub(crate) fn trivial(number: &str, began_us: u64) -> Result<(), String> {
    report::line(&format!("stamp started {number} {began_us}"));
    cast::pause()
}

/// Where the phoenixes report: an abstract name (unix(7)), so that nobody has to make a folder for it.
const NEST: &str = "vm-guest-nest";

/// Its name in the environment, where its words are not ours to choose.
pub(crate) const PHOENIX: &str = "PHOENIX";

/// A service that is to be killed: tells the driver, where it listens, when it has begun, and stays.
pub(crate) fn phoenix(name: &str, began_us: u64) -> Result<(), String> {
    use std::os::linux::net::SocketAddrExt;
    let failed = |error: std::io::Error| format!("{NEST}: {error}");
    let nest = SocketAddr::from_abstract_name(NEST).map_err(failed)?;
    let name = std::env::var(PHOENIX).unwrap_or_else(|_| name.into());
    let words = format!("{name} {} {began_us}", std::process::id());
    // Nobody listens before the case has begun.
    let _ = UnixDatagram::unbound().map_err(failed)?.send_to_addr(words.as_bytes(), &nest);
    cast::pause()
}

/// Where the driver hears of phoenixes.
pub(crate) struct Nest(UnixDatagram);

impl Nest {
    pub(crate) fn listen(patience: Duration) -> Result<Self, String> {
        use std::os::linux::net::SocketAddrExt;
        let failed = |error: std::io::Error| format!("{NEST}: {error}");
        let address = SocketAddr::from_abstract_name(NEST).map_err(failed)?;
        let socket = UnixDatagram::bind_addr(&address).map_err(failed)?;
        socket.set_read_timeout(Some(patience)).map_err(failed)?;
        Ok(Self(socket))
    }

    /// The next one: its name, pid and the time of its first instruction.
    pub(crate) fn next(&self) -> Result<(String, i32, u64), String> {
        let mut buffer = [0; 128];
        let length = self.0.recv(&mut buffer).map_err(|error| format!("nobody rose: {error}"))?;
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        let mut words = text.split(' ');
        let name = words.next().unwrap_or_default().to_owned();
        let pid = words.next().and_then(|word| word.parse().ok());
        let began_us = words.next().and_then(|word| word.parse().ok());
        pid.zip(began_us)
            .map(|(pid, began)| (name, pid, began))
            .ok_or_else(|| format!("a strange bird: {text:?}"))
    }
}

/// Stands in front of an init: `stamp exec MICROSECONDS`, then it is that init. What had to be mounted
/// for that is unmounted again, so that the init finds what the kernel left; but where `vm.mask=` names a folder
/// of sysfs, that is covered by an empty tmpfs, and an init that mounts only what is missing finds nothing in it.
pub(crate) fn exec() -> Result<(), String> {
    if std::process::id() != 1 {
        return Err("stamp-exec is for PID 1".into());
    }
    let no_port = !Path::new("/dev/ttyS1").exists();
    if no_port {
        mount_at("devtmpfs", "/dev")?;
    }
    mount_at("proc", "/proc")?;
    let init = word("vm.init").unwrap_or_else(|| "/sbin/init".into());
    if let Some(mask) = word("vm.mask") {
        mount_at("sysfs", "/sys")?;
        mount_at("tmpfs", &mask)?;
    }
    umount2("/proc", MntFlags::empty()).map_err(|error| format!("cannot unmount /proc: {error}"))?;
    report::line(&format!("stamp exec {}", super::ring::boottime_us()));
    if no_port {
        // The port is open, so only the mount can go.
        let _ = umount2("/dev", MntFlags::MNT_DETACH);
    }
    if init == "panic" {
        super::panic::panics();
    }
    // The port itself is closed by this exec.
    Err(format!("cannot exec {init}: {}", Command::new(&init).exec()))
}

fn mount_at(kind: &str, place: &str) -> Result<(), String> {
    let _ = std::fs::create_dir(place);
    mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
        .map_err(|error| format!("cannot mount {kind} on {place}: {error}"))
}

/// The value of `NAME=VALUE` on the kernel's command line.
pub(crate) fn word(name: &str) -> Option<String> {
    let line = std::fs::read_to_string("/proc/cmdline").ok()?;
    value_in(&line, name).map(str::to_owned)
}

fn value_in<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::value_in;

    #[test]
    fn words_of_the_command_line() {
        let check =
            |line: &str, expected: Option<&str>| assert_eq!(value_in(line, "vm.group"), expected, "{line}");
        check("", None);
        check("vm.group", None);
        check("vm.group=", Some(""));
        check("console=ttyS0 vm.group=main quiet\n", Some("main"));
        check("xvm.group=a vm.groups=b vm.group=c=d", Some("c=d"));
    }
}
