//! The real `lifeboat` below another init, on a folder that is no cgroup2: its arguments, its refusal, its life.

use lifeboat::sys::children;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);

/// A user who is neither root nor lifeboat's own.
const NOBODY: u32 = 65_534;

const SLEEPER: (&str, &str) = ("sleeper", r#"(command: ["/bin/sleep", "100000"], output: Null)"#);

fn lifeboat() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// A lifeboat at work, with a folder of its own. It is killed where its test fails.
struct Running {
    folder: TempDir,
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Started, and told so far that the unit `sleeper` is up.
    fn new(units: &[(&str, &str)]) -> Self {
        let folder = folder_with(units);
        let (read, write) = std::io::pipe().expect("a pipe");
        let (sender, lines) = channel();
        let mut command = command_in(&folder);
        command.arg("--degraded").stdout(write.try_clone().expect("a copy")).stderr(write);
        let child = command.spawn().expect("lifeboat runs");
        drop(command);
        // Ends with the last process that holds the pipe, or with the test.
        thread::spawn(move || {
            BufReader::new(read).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let running = Self { folder, child, lines };
        running.wait_for("sleeper: RUNNING");
        running
    }

    /// Waits for a line, of lifeboat or of a unit, that holds these words.
    fn wait_for(&self, words: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) if line.contains(words) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("no line {words:?} ({error}) in {seen:#?}"),
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    fn ctl(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboatctl"));
        command.env_clear().env("LIFEBOAT_SOCKET", self.socket()).stdin(Stdio::null());
        command
    }

    /// Runs `lifeboatctl`: its exit code, and what it said.
    fn tell(&self, arguments: &[&str]) -> (i32, String) {
        told(self.ctl().args(arguments).output().expect("lifeboatctl runs"))
    }

    fn pid_of_sleeper(&self) -> i32 {
        let (_, text) = self.tell(&["status", "sleeper"]);
        let mut words = text.split([' ', ',']).skip_while(|word| *word != "pid");
        words.nth(1).and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no pid in {text}"))
    }

    /// It ends well, leaves no socket, and no process of a unit.
    fn ends(mut self, sleeper: i32) {
        self.wait_for("all units are down");
        let status = self.child.wait().expect("its end");
        assert_eq!(status.code(), Some(0));
        assert!(!self.socket().exists(), "the socket is left");
        let alive = nix::sys::signal::kill(nix::unistd::Pid::from_raw(sleeper), None);
        assert!(alive.is_err(), "the unit's process is left");
    }
}

impl Drop for Running {
    /// Asked to end, so that no unit outlives a test that failed. lifeboat's own deadlines bound the wait.
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

fn folder_with(units: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    for name in ["units", "no-cgroup"] {
        fs::create_dir(folder.path().join(name)).expect("a folder in it");
    }
    for (name, text) in units {
        fs::write(folder.path().join(format!("units/{name}.ron")), text).expect("a unit");
    }
    // Other users must be able to reach the socket.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    folder
}

fn command_in(folder: &TempDir) -> Command {
    let mut command = lifeboat();
    for (option, name) in [
        ("--units", "units"),
        ("--system", "system.ron"),
        ("--socket", "control.sock"),
        ("--cgroup", "no-cgroup"),
    ] {
        command.arg(option).arg(folder.path().join(name));
    }
    command
}

fn told(output: Output) -> (i32, String) {
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_arguments_of_lifeboat() {
    let check = |arguments: &[&str], code: i32, words: &str| {
        let (got, text) = told(lifeboat().args(arguments).output().expect("lifeboat runs"));
        assert!(got == code && text.contains(words), "{arguments:?}: {got}, {text}");
    };
    check(&["--version"], 0, concat!("lifeboat ", env!("CARGO_PKG_VERSION")));
    check(&["--help"], 0, "usage: lifeboat");
    check(&["--frobnicate"], 2, "try: lifeboat --help");
    check(&["quiet"], 2, "try: lifeboat --help");
    check(&["--socket"], 2, "try: lifeboat --help");
}

/// Below another init a missing guard is a reason not to start, unless it is asked for.
#[test]
fn memory_that_cannot_be_guarded_is_refused() {
    let folder = folder_with(&[SLEEPER]);
    let (code, text) = told(command_in(&folder).output().expect("lifeboat runs"));
    assert_eq!(code, 1, "{text}");
    for words in ["cgroup v2 is not available", "cgroup_no_v1=all", "start with --degraded"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert!(!text.contains("sleeper: RUNNING"), "{text}");
}

#[test]
fn units_live_below_another_init() {
    let talker = r#"(
        kind: Task,
        after: ["sleeper"],
        command: ["/bin/sh", "-c", "echo \"task in $(pwd) at $RATE in $HOME\""],
        working_directory: "/usr",
        environment: {"RATE": "10"},
    )"#;
    let running = Running::new(&[SLEEPER, ("talker", talker), ("broken", "(")]);
    let check = |arguments: &[&str], code: i32, words: &str| {
        let (got, text) = running.tell(arguments);
        assert!(got == code && text.contains(words), "{arguments:?}: {got}, {text}");
    };
    running.wait_for("task in /usr at 10 in");
    running.wait_for("talker: DONE");
    check(&["status"], 3, "DEGRADED: cgroup v2 is not available");
    check(&["status", "broken"], 3, "FATAL");
    check(&["why", "broken"], 0, "broken.ron:1:");
    check(&["stop", "sleeper"], 0, "sleeper: stopped");
    check(&["start", "sleeper"], 0, "sleeper: started");
    let before = running.pid_of_sleeper();
    check(&["restart", "sleeper"], 0, "sleeper: started");
    let sleeper = running.pid_of_sleeper();
    assert_ne!(before, sleeper);
    check(&["shutdown"], 0, "Shut down");
    running.ends(sleeper);
}

#[test]
fn a_signal_ends_it_and_its_units() {
    for signal in [libc::SIGTERM, libc::SIGUSR1, 38] {
        let running = Running::new(&[SLEEPER]);
        let sleeper = running.pid_of_sleeper();
        // SIGHUP is taken and means nothing.
        for signal in [libc::SIGHUP, signal] {
            assert_eq!(running.pid_of_sleeper(), sleeper);
            children::signal(running.child.id(), signal).expect("a signal");
        }
        running.ends(sleeper);
    }
}

/// Everybody may look; who is neither root nor lifeboat's own user may not change anything.
#[test]
fn strangers_may_look_and_not_change() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("strangers_may_look_and_not_change: skipped: only root can become somebody else");
        return;
    }
    let running = Running::new(&[SLEEPER]);
    // Beside the socket, because the folders of a checkout may be closed to others. By another process, because a
    // child of a test next door would hold the copy open for writing, and it could not be run.
    let program = running.folder.path().join("lifeboatctl");
    let copied = Command::new("/bin/cp").arg(env!("CARGO_BIN_EXE_lifeboatctl")).arg(&program).status();
    assert!(copied.expect("cp runs").success());
    let stranger = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.env_clear().env("LIFEBOAT_SOCKET", running.socket()).args(arguments).uid(NOBODY).gid(NOBODY);
        told(command.output().expect("lifeboatctl runs"))
    };
    let (code, text) = stranger(&["status", "sleeper"]);
    assert!(code == 0 && text.contains("RUNNING"), "{text}");
    for arguments in [&["stop", "sleeper"][..], &["restart", "sleeper"], &["shutdown"]] {
        let (code, text) = stranger(arguments);
        assert_eq!(code, 4, "{arguments:?}: {text}");
    }
    assert_eq!(running.tell(&["status", "sleeper"]).0, 0, "it still runs");
}

/// More connections than are held: the one that has been idle longest goes, the new one is served.
#[test]
fn the_longest_idle_connection_makes_room() {
    let running = Running::new(&[SLEEPER]);
    let mut idle: Vec<UnixStream> = (0..32)
        .map(|_| {
            let mut stream = UnixStream::connect(running.socket()).expect("a connection");
            stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
            assert!(ask(&mut stream, "org.varlink.service.GetInfo").contains("lifeboat"));
            stream
        })
        .collect();
    assert_eq!(running.tell(&["status"]).0, 0);
    let mut byte = [0];
    assert_eq!(idle[0].read(&mut byte).expect("the end of the connection"), 0);
    assert!(ask(&mut idle[31], "org.lifeboat.Supervisor.Status").contains("sleeper"));
}

/// One call without parameters, and its answer.
fn ask(stream: &mut UnixStream, method: &str) -> String {
    stream.write_all(format!("{{\"method\":\"{method}\"}}\0").as_bytes()).expect("a call");
    let mut answer = Vec::new();
    let mut reader = BufReader::new(stream);
    reader.read_until(0, &mut answer).expect("an answer");
    String::from_utf8(answer).expect("text")
}

/// Any Varlink client can ask what the interface is.
#[test]
fn the_socket_describes_itself() {
    let running = Running::new(&[SLEEPER]);
    let mut stream = UnixStream::connect(running.socket()).expect("a connection");
    let call = "{\"method\":\"org.varlink.service.GetInterfaceDescription\",\
                \"parameters\":{\"interface\":\"org.lifeboat.Supervisor\"}}\0";
    stream.write_all(call.as_bytes()).expect("a call");
    let mut answer = Vec::new();
    BufReader::new(stream).read_until(0, &mut answer).expect("an answer");
    answer.pop();
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/org.lifeboat.Supervisor.varlink"));
    assert_eq!(answer["parameters"]["description"].as_str(), page.ok().as_deref());
}
