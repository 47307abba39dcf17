//! Programs that say when they ran: the two ends of the measurement of a boot.

use super::cast;
use super::report;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// One of many trivial services: `stamp started N MICROSECONDS`, then it stays.
pub(crate) fn trivial(number: &str, began_us: u64) -> Result<(), String> {
    report::line(&format!("stamp started {number} {began_us}"));
    cast::pause()
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
