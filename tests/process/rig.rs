//! The real `lifeboat` below this test program: its folder, its words, its socket, its end.

use lifeboat::cgroup::place;
use lifeboat::engine::snapshot::{Snapshot, StateName, UnitView};
use lifeboat::wire::codec::{Inbox, REPLY_BYTES_MAX, encode_call};
use lifeboat::wire::reply::{Received, StatusReply, decode};
use lifeboat::wire::request::{Call, Request};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Generous: the machine may have other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long nothing must happen where nothing has to.
const QUIET_MS: u16 = 500;

/// What stands below the tree of one lifeboat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// A group of its own, made for the test.
    Own,
    /// A folder that is no cgroup at all.
    None,
}

/// Both ways to run, as far as this machine lets the test make cgroups.
pub(crate) fn both() -> Vec<Cgroups> {
    match own_cgroup() {
        Ok(folder) => {
            let _ = fs::remove_dir(folder);
            vec![Cgroups::None, Cgroups::Own]
        }
        Err(reason) => {
            println!("skipped with cgroups: {reason}");
            vec![Cgroups::None]
        }
    }
}

/// A new group below the mount of cgroup2.
pub(crate) fn own_cgroup() -> Result<PathBuf, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mount = place::mount_point().ok().flatten().ok_or("cgroup2 is not mounted")?;
    let name = format!("lifeboat-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = mount.join(name);
    fs::create_dir(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    Ok(folder)
}

/// Kills what is in a group and removes it with its branches.
pub(crate) fn remove_cgroup(folder: &Path) {
    let _ = fs::write(folder.join("cgroup.kill"), "1");
    let deadline = Instant::now() + PATIENCE;
    // The kernel's own work of emptying it has no file descriptor to wait on once all are gone.
    while remove_branches(folder).is_err() && Instant::now() < deadline {
        std::thread::yield_now();
    }
}

fn remove_branches(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_branches(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

/// A folder with units, before a lifeboat runs on it.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    cgroup: Option<PathBuf>,
}

impl Place {
    pub(crate) fn new(cgroups: Cgroups) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        fs::create_dir(folder.path().join("units")).expect("a folder of units");
        let cgroup = (cgroups == Cgroups::Own).then(|| own_cgroup().expect("a cgroup"));
        Self { folder, cgroup }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder under which the tree is made.
    pub(crate) fn cgroup(&self) -> PathBuf {
        self.cgroup.clone().unwrap_or_else(|| self.path("no-cgroup"))
    }

    /// Writes a unit file.
    pub(crate) fn unit(self, name: &str, text: &str) -> Self {
        fs::write(self.path(&format!("units/{name}.ron")), text).expect("a unit file");
        self
    }

    /// A unit that runs a shell script.
    pub(crate) fn shell(self, name: &str, script: &str, rest: &str) -> Self {
        self.unit(name, &format!("(command: [\"/bin/sh\", \"-c\", {script:?}], {rest})"))
    }

    /// lifeboat's command line, for this place.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.arg("--units").arg(self.path("units")).arg("--system").arg(self.path("system.ron"));
        command.arg("--socket").arg(self.path("socket")).arg("--cgroup").arg(self.cgroup());
        let system = fs::read_to_string(self.path("system.ron")).unwrap_or_default();
        if !system.contains("state_folder") {
            command.arg("--state").arg(self.path("state"));
        }
        command.stdin(Stdio::null());
        command
    }

    /// Starts lifeboat and waits until it answers.
    pub(crate) fn start(self) -> Rig {
        let mut command = self.command();
        command.arg("--degraded");
        self.start_as(command)
    }

    pub(crate) fn start_as(self, mut command: Command) -> Rig {
        let log = fs::File::create(self.path("log")).expect("a log");
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.start_silent(command)
    }

    /// The same with standard descriptors of the test's own choice.
    pub(crate) fn start_silent(self, mut command: Command) -> Rig {
        let child = command.spawn().expect("lifeboat runs");
        let rig = Rig { place: self, child };
        rig.wait_for_socket();
        rig
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            remove_cgroup(cgroup);
        }
    }
}

/// A lifeboat that runs.
pub(crate) struct Rig {
    pub(crate) place: Place,
    pub(crate) child: Child,
}

impl Rig {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.place.path("socket")
    }

    fn wait_for_socket(&self) {
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < deadline, "no socket; its log:\n{}", self.log());
            assert!(is_alive(self.pid()), "it ended; its log:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// The next lifeboat on the same place, once it answers.
    pub(crate) fn followed_by(mut self, child: Child) -> Self {
        self.child.wait().expect("the first one has ended");
        self.child = child;
        self.wait_for_socket();
        self
    }

    /// Everything that it and its services have said.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.place.path("log")).unwrap_or_default()).into_owned()
    }

    pub(crate) fn ctl(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboatctl"));
        command.arg("--socket").arg(self.socket()).args(arguments).stdin(Stdio::null());
        Said::of(&command.output().expect("lifeboatctl runs"))
    }

    pub(crate) fn connect(&self) -> Peer {
        Peer::new(UnixStream::connect(self.socket()).expect("a connection"))
    }

    pub(crate) fn status(&self) -> Snapshot {
        let mut peer = self.connect();
        peer.ask(&Request::Status.into());
        peer.hear::<StatusReply<'static>>().snapshot.into_owned()
    }

    /// Waits until the unit is as the test wants it, by a watch over the socket.
    pub(crate) fn wait_until(&self, name: &str, is_so: impl Fn(&UnitView) -> bool) -> UnitView {
        let mut peer = self.connect();
        peer.ask(&Request::Watch.into());
        loop {
            let snapshot = peer.hear::<StatusReply<'static>>().snapshot.into_owned();
            if let Some(unit) = snapshot.units.into_iter().find(|unit| unit.name == name && is_so(unit)) {
                return unit;
            }
        }
    }

    /// The pid of the unit once it runs.
    pub(crate) fn running(&self, name: &str) -> u32 {
        self.wait_until(name, |unit| unit.state == StateName::Running).pid.expect("a pid")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(pid_of(self.pid()), signal).expect("a signal to lifeboat");
    }

    /// Waits for lifeboat's own end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        assert!(wait_for_end(self.pid()), "it does not end; its log:\n{}", self.log());
        self.child.wait().expect("its status")
    }

    /// For a while nothing happens, and lifeboat neither runs nor wakes up.
    pub(crate) fn check_quiet(&self, when: &str) {
        // An answer proves that everything before it has been handled.
        let _ = self.status();
        self.settle();
        let (busy, woken) = (busy_ticks(self.pid()), wake_ups(self.pid()));
        assert!(!ended_within(self.pid(), QUIET_MS), "it ended; its log:\n{}", self.log());
        let (busy, woken) = (busy_ticks(self.pid()) - busy, wake_ups(self.pid()) - woken);
        assert!(
            busy <= 3 && woken == 0,
            "{when}: {busy} ticks of CPU time, {woken} wake-ups in {QUIET_MS} ms"
        );
    }

    /// How many files it has open, once it has nothing left to do.
    pub(crate) fn open_files(&self) -> usize {
        let _ = self.status();
        self.settle();
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("its files").count()
    }

    /// As `check_quiet` where it does not answer: it may look again now and then, but does not run all the time.
    pub(crate) fn check_calm(&self, when: &str) {
        let busy = busy_ticks(self.pid());
        assert!(!ended_within(self.pid(), QUIET_MS), "it ended; its log:\n{}", self.log());
        let busy = busy_ticks(self.pid()) - busy;
        assert!(busy <= 3, "{when}: {busy} ticks of CPU time in {QUIET_MS} ms");
    }

    /// The end of the test's own connection, and what the kernel has to tell, may still be on their way to lifeboat: a
    /// busy machine delivers them late.
    fn settle(&self) {
        const PAUSE_MS: u16 = 20;
        let (mut before, mut quiet_pauses) = (wake_ups(self.pid()), 0);
        for _ in 0..100 {
            let _ = ended_within(self.pid(), PAUSE_MS);
            let now = wake_ups(self.pid());
            quiet_pauses = if now == before { quiet_pauses + 1 } else { 0 };
            if quiet_pauses == 5 {
                return;
            }
            before = now;
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let below = descendants(self.pid());
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in below {
            let _ = kill(pid_of(pid), Signal::SIGKILL);
        }
    }
}

/// What a program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: Option<i32>,
}

impl Said {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }

    /// Its exact standard output and exit code, without a word on standard error.
    pub(crate) fn check(&self, out: &str, code: i32) {
        assert_eq!((&*self.out, &*self.err, self.code), (out, "", Some(code)));
    }

    /// All of these words are on standard error.
    pub(crate) fn check_refusal(&self, words: &[&str], code: i32) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing in {self:?}");
        }
    }
}

/// One connection to the control socket.
pub(crate) struct Peer {
    pub(crate) stream: UnixStream,
    pub(crate) inbox: Inbox,
}

impl Peer {
    pub(crate) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        stream.set_write_timeout(Some(PATIENCE)).expect("a deadline");
        Self { stream, inbox: Inbox::new(REPLY_BYTES_MAX) }
    }

    pub(crate) fn ask(&mut self, call: &Call) {
        self.ask_all(std::slice::from_ref(call));
    }

    /// Several calls in one write.
    pub(crate) fn ask_all(&mut self, calls: &[Call]) {
        let mut bytes = Vec::new();
        for call in calls {
            encode_call(&mut bytes, call).expect("it serializes");
        }
        self.stream.write_all(&bytes).expect("lifeboat reads");
    }

    pub(crate) fn hear<P: DeserializeOwned>(&mut self) -> P {
        match self.hear_any() {
            Received::Answer { parameters, .. } => parameters,
            Received::Refused(error) => panic!("refused: {error}"),
            Received::Unknown(error) => panic!("refused: {error}"),
        }
    }

    pub(crate) fn hear_any<P: DeserializeOwned>(&mut self) -> Received<P> {
        loop {
            if let Some(message) = self.inbox.next_message().expect("a bounded answer") {
                return decode(message).expect("an answer");
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("lifeboat closed the connection"),
                Ok(length) => assert_eq!(self.inbox.feed(&buffer[..length]), length),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// lifeboat has closed the connection, or does so within the test's patience.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
                Err(_) => return false,
            }
        }
    }
}

pub(crate) fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("a pid"))
}

/// All processes below this one. Without cgroups they would outlive a lifeboat that is killed.
fn descendants(pid: u32) -> Vec<u32> {
    let stats = procfs::process::all_processes().into_iter().flatten().filter_map(Result::ok);
    let parents: Vec<(u32, u32)> = stats
        .filter_map(|process| process.stat().ok())
        .filter_map(|stat| Some((u32::try_from(stat.pid).ok()?, u32::try_from(stat.ppid).ok()?)))
        .collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, ppid)| *ppid == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

/// It is there and no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
}

pub(crate) fn pidfd(pid: u32) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

/// Waits for the end of any process; false where it does not come.
pub(crate) fn wait_for_end(pid: u32) -> bool {
    ended_within(pid, u16::try_from(PATIENCE.as_millis()).unwrap_or(u16::MAX))
}

fn ended_within(pid: u32, ms: u16) -> bool {
    let Some(pidfd) = pidfd(pid) else { return true };
    readable_within(pidfd.as_fd(), ms)
}

pub(crate) fn readable_within(fd: std::os::fd::BorrowedFd<'_>, ms: u16) -> bool {
    let deadline = Instant::now() + Duration::from_millis(ms.into());
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let timeout = PollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX));
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Ok(count) => return count > 0,
            Err(Errno::EINTR) => {}
            Err(errno) => panic!("poll: {errno}"),
        }
    }
}

/// CPU time of the process, in ticks of mostly 10 ms (proc_pid_stat(5)).
fn busy_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("its stat");
    let words: Vec<&str> = stat.rsplit(") ").next().expect("words").split(' ').collect();
    words[11..13].iter().map(|word| word.parse::<u64>().expect("a number")).sum()
}

/// How often it went to sleep (proc_pid_status(5)).
pub(crate) fn wake_ups(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.expect("the counter").trim().parse().expect("a number")
}

/// A FIFO by which a service tells something; a line is waited for with a deadline.
pub(crate) struct Mailbox {
    file: fs::File,
    pub(crate) path: PathBuf,
}

impl Mailbox {
    pub(crate) fn new(path: PathBuf) -> Self {
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("a FIFO");
        // For both, so that there is never an end of it.
        let fd = nix::fcntl::open(&path, OFlag::O_RDWR | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
            .expect("the FIFO opens");
        Self { file: fd.into(), path }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            assert!(readable_within(self.file.as_fd(), 30_000), "nothing came by {}", self.path.display());
            let mut byte = [0];
            self.file.read_exact(&mut byte).expect("a byte");
            match byte {
                [b'\n'] => return String::from_utf8(line).expect("text"),
                [byte] => line.push(byte),
            }
        }
    }
}
