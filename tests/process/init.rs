//! lifeboat as PID 1 in namespaces of its own.
//!
//! Nothing here can reach the machine, whatever lifeboat does: it runs as an unprivileged user who is root in a user
//! namespace only, in a mount namespace whose root is a tmpfs, and reboot(2) ends a PID namespace.

use crate::rig::{
    Cgroups, Mailbox, PATIENCE, Peer, Place, own_cgroup, pid_of, readable_within, remove_cgroup,
};
use lifeboat::wire::reply::StatusReply;
use lifeboat::wire::request::Request;
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Nobody.
const UID: u32 = 65_534;

/// Makes the root and becomes its init. `$1` is the place.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs -o mode=755 none "$1/root"
cd "$1/root"
mkdir -p proc dev sys/fs/cgroup etc/lifeboat usr sbin old
for folder in usr bin lib lib32 lib64; do
    if [ -L /$folder ]; then cp -P /$folder .
    elif [ -d /$folder ]; then mkdir -p $folder; mount --rbind /$folder $folder
    fi
done
mkdir -p opt
cp "$1/lifeboat" opt/init
cp -r "$1/units" "$1/system.ron" etc/lifeboat/
mount -t proc proc proc
touch dev/null dev/console
mount --bind /dev/null dev/null
mount --bind "$1/console" dev/console
pivot_root . old
umount -l old
exec /opt/init quiet --splash root=/dev/sda1
"#;

/// The first command that a machine may refuse.
const UNSHARE: [&str; 11] = [
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "--uts",
    "--ipc",
    "--net",
    "--cgroup",
    "--propagation=private",
];

/// Drops what this user may do, where there is something to drop.
fn as_nobody() -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    if nix::unistd::Uid::effective().is_root() {
        words.extend(["setpriv", "--clear-groups"].map(str::to_owned));
        words.extend([format!("--reuid={UID}"), format!("--regid={UID}")]);
    }
    words.extend(UNSHARE.map(str::to_owned));
    words
}

/// Why this machine does not let the test make its namespaces.
fn refusal() -> Option<String> {
    let words = as_nobody();
    let trial = "mount -t tmpfs none /tmp && mount -t proc proc /proc && command -v pivot_root";
    match Command::new(&words[0]).args(&words[1..]).args(["sh", "-c", trial]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("{}: {error}", words[0])),
    }
}

/// A machine of namespaces.
struct Machine {
    /// `unshare`, which ends as its PID 1 does.
    outside: Child,
    console: Mailbox,
    cgroup: Option<PathBuf>,
    said: Vec<String>,
    place: Place,
}

impl Machine {
    fn boot(place: Place) -> Self {
        let folder = place.folder.path().to_owned();
        let console = Mailbox::new(folder.join("console"));
        fs::create_dir(folder.join("root")).expect("a folder");
        fs::copy(env!("CARGO_BIN_EXE_lifeboat"), folder.join("lifeboat")).expect("a copy of lifeboat");
        for open in [&folder, &console.path] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o777)).expect("it is the test's own");
        }
        let cgroup = own_cgroup().ok().filter(|cgroup| give(cgroup));
        // Joins the group first, so that it becomes the root of the cgroup namespace.
        let join = cgroup.as_ref().map(|cgroup| format!("echo $$ > {}/cgroup.procs; ", cgroup.display()));
        let outer = format!("{}exec \"$@\"", join.unwrap_or_default());
        let outside = Command::new("sh")
            .args(["-c", &outer, "sh"])
            .args(as_nobody())
            .args(["sh", "-c", SCRIPT, "sh"])
            .arg(&folder)
            .stdin(Stdio::null())
            .stderr(fs::File::create(folder.join("stderr")).expect("a file"))
            .spawn()
            .expect("the namespaces");
        Self { outside, console, cgroup, said: Vec::new(), place }
    }

    /// The next line on the console with these words.
    fn hear(&mut self, words: &str) -> String {
        loop {
            let line = self.console.line();
            self.said.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    /// PID 1, as this machine counts.
    fn init(&self) -> u32 {
        let outside = i32::try_from(self.outside.id()).expect("a pid");
        let processes = procfs::process::all_processes().expect("/proc").filter_map(Result::ok);
        let mut inside = processes.filter(|process| process.stat().is_ok_and(|stat| stat.ppid == outside));
        u32::try_from(inside.next().expect("PID 1").pid).expect("a pid")
    }

    /// Its root, as seen from outside.
    fn root(&self) -> PathBuf {
        format!("/proc/{}/root", self.init()).into()
    }

    fn status(&self) -> StatusReply<'static> {
        let socket = self.root().join("run/lifeboat/control.sock");
        let mut peer = Peer::new(UnixStream::connect(socket).expect("the control socket"));
        peer.ask(&Request::Status.into());
        peer.hear()
    }

    /// Sends PID 1 a signal and gives the one by which the namespace ended.
    fn end_by(&mut self, signal: Signal) -> Option<i32> {
        kill(pid_of(self.init()), signal).expect("a signal to PID 1");
        let pidfd = crate::rig::pidfd(self.outside.id()).expect("a pidfd");
        let ms = u16::try_from(PATIENCE.as_millis()).expect("a short time");
        assert!(readable_within(std::os::fd::AsFd::as_fd(&pidfd), ms), "it does not end: {:#?}", self.said);
        self.outside.wait().expect("its status").signal()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(None) = self.outside.try_wait() {
            let _ = kill(pid_of(self.init()), Signal::SIGKILL);
            let _ = self.outside.wait();
        }
        if let Some(cgroup) = &self.cgroup {
            remove_cgroup(cgroup);
        }
    }
}

/// Hands a group over to the user who becomes root in the namespace.
fn give(cgroup: &Path) -> bool {
    !nix::unistd::Uid::effective().is_root()
        || ["", "cgroup.procs", "cgroup.subtree_control"]
            .iter()
            .all(|name| chown(cgroup.join(name), Some(UID), Some(UID)).is_ok())
}

/// What of the machine lifeboat as PID 1 likes to change.
fn machine_facts() -> Vec<String> {
    [
        "/proc/self/mounts",
        "/proc/sys/vm/oom_dump_tasks",
        "/proc/sys/kernel/printk",
        "/proc/sys/kernel/hostname",
    ]
    .map(|path| fs::read_to_string(path).unwrap_or_default())
    .to_vec()
}

fn place() -> Place {
    let place = Place::new(Cgroups::None)
        .unit("a", "(command: [\"/bin/sleep\", \"1000\"])")
        .shell("mounts", "cat /proc/mounts; echo the end of mounts", "kind: Task")
        .shell("orphan", "(sh -c 'echo orphan $$' &); exec sleep 1000", "after: [\"mounts\"]");
    fs::write(place.path("system.ron"), "(hostname: \"namespace\")").expect("system.ron");
    place
}

fn check(signal: Signal, ended_by: Signal, words: &str) {
    let before = machine_facts();
    let mut machine = Machine::boot(place());
    machine.hear("as PID 1");
    machine.hear("the end of mounts");
    let mut mounts =
        vec!["tmpfs /run tmpfs", "tmpfs /tmp tmpfs", "tmpfs /dev/shm tmpfs", "devpts /dev/pts devpts"];
    if machine.cgroup.is_some() {
        mounts.push("cgroup2 /sys/fs/cgroup cgroup2");
    }
    for mount in mounts {
        assert!(machine.said.iter().any(|line| line.contains(mount)), "{mount}: {:#?}", machine.said);
    }
    let orphan = machine.hear("orphan ");
    let orphan = orphan.rsplit(' ').next().expect("a pid").to_owned();
    let gone = machine.root().join("proc").join(orphan);
    let deadline = Instant::now() + PATIENCE;
    // Each answer is a turn of the loop.
    while gone.exists() {
        let _ = machine.status();
        assert!(Instant::now() < deadline, "{} is a zombie", gone.display());
    }
    let status = machine.status();
    assert!(status.snapshot.units.iter().any(|unit| unit.name == "a" && unit.pid.is_some()), "{status:?}");
    assert_eq!(machine.end_by(signal), Some(ended_by as i32), "{:#?}", machine.said);
    machine.hear(words);
    // Below another kernel's first PID 1 there are the host's file systems: they stay as they are.
    let tried = fs::read_to_string(machine.place.path("stderr")).expect("the file");
    assert!(!tried.contains("read-only"), "{tried}");
    assert_eq!(machine_facts(), before, "the machine itself has changed");
}

#[test]
fn pid_1_in_namespaces() {
    if let Some(reason) = refusal() {
        println!("skipped: PID 1 in namespaces: {reason}");
        return;
    }
    // reboot(2): the namespace's parent sees SIGINT for power-off and halt, SIGHUP for reboot.
    check(Signal::SIGUSR2, Signal::SIGINT, "power");
    check(Signal::SIGUSR1, Signal::SIGINT, "halt");
    check(Signal::SIGTERM, Signal::SIGHUP, "reboot");
}
