//! Real processes: started, parked, released and collected, in a real cgroup where this machine has one.

#[path = "spawn/handed.rs"]
mod handed;
#[path = "spawn/libraries.rs"]
mod libraries;
#[path = "spawn/optional.rs"]
mod optional;
#[path = "spawn/steps.rs"]
mod steps;

use lifeboat::cgroup::capabilities::Capabilities;
use lifeboat::cgroup::group::Group;
use lifeboat::cgroup::limits::GroupLimits;
use lifeboat::cgroup::place;
use lifeboat::cgroup::tree::Tree;
use lifeboat::engine::event::{Exit, SpawnStage};
use lifeboat::engine::policy::Class;
use lifeboat::engine::snapshot::BudgetView;
use lifeboat::sys::children::reap;
use lifeboat::sys::clock::now;
use lifeboat::sys::poll::{Interest, Poller, ReadyBuffer};
use lifeboat::sys::spawn::Step;
use lifeboat::sys::spawn::{Child, Order, Parked, Program, SpawnError, Start, Status, Way};
use lifeboat::sys::spawn::{
    ballast, notification_pipe, park, read_status, release, release_resident, reside, start,
};
use std::collections::HashMap;
use std::error::Error;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

const DEADLINE_MS: u64 = 20_000;

/// Waiting for children is a matter of the whole process: one test at a time. The ends that came by the way.
static ALONE: Mutex<Option<HashMap<u32, Exit>>> = Mutex::new(None);

type Ends = MutexGuard<'static, Option<HashMap<u32, Exit>>>;

fn alone() -> Ends {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn strings(words: &[&str]) -> Vec<CString> {
    words.iter().map(|word| CString::new(*word).expect("no NUL")).collect()
}

fn program(argv: &[&str], env: &[&str]) -> Program {
    Program::new(&strings(argv), &strings(env)).expect("a program")
}

fn shell(script: &str) -> Program {
    program(&["/bin/sh", "-c", script], &["PATH=/usr/bin:/bin"])
}

fn procedure(argv: &[&str]) -> Program {
    Program::procedure(&strings(argv), &strings(&["LIFEBOAT_UNIT=x"]), 0).expect("a program")
}

fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").expect("/dev/null").into()
}

/// A start with its output in `output`.
fn plain<'a>(program: &'a Program, input: &'a OwnedFd, output: &'a OwnedFd) -> Start<'a> {
    Start {
        program,
        cgroup: None,
        oom_score_adj: 0,
        stdio: [input.as_fd(), output.as_fd(), output.as_fd()],
        steps: &[],
        working_directory: None,
        handed: &[],
    }
}

/// Waits for readiness of `fd` until `done` says that this is it.
fn wait_for(fd: BorrowedFd<'_>, interest: Interest, mut done: impl FnMut() -> bool) {
    let poller = Poller::new().expect("epoll");
    poller.add(fd, 1, interest).expect("a watch");
    let mut buffer = ReadyBuffer::default();
    let until = now().plus_ms(DEADLINE_MS);
    while !done() {
        assert!(now() < until, "nothing came within {DEADLINE_MS} ms");
        poller.wait(now(), Some(until), &mut buffer).expect("a wait");
    }
}

fn next_status(status: &OwnedFd) -> Status {
    let mut told = Status::Pending;
    wait_for(status.as_fd(), Interest::Read, || {
        told = read_status(status.as_fd());
        told != Status::Pending
    });
    told
}

/// The end of one child; those of others are kept.
fn end_of(pid: u32, ends: &mut Ends) -> Exit {
    let ends = ends.get_or_insert_default();
    if !ends.contains_key(&pid) {
        let raw = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not 0");
        let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty());
        let pidfd = pidfd.expect("a pidfd of one's own child");
        wait_for(pidfd.as_fd(), Interest::Read, || {
            reap(&mut |pid, exit| {
                ends.insert(pid, exit);
            });
            ends.contains_key(&pid)
        });
    }
    ends.remove(&pid).expect("the child has ended")
}

fn text_of(output: OwnedFd) -> String {
    let mut text = String::new();
    File::from(output).read_to_string(&mut text).expect("text");
    text
}

/// What a start has beside its program.
#[derive(Clone, Copy, Default)]
struct How<'a> {
    oom_score_adj: i32,
    steps: &'a [Step],
    working_directory: Option<&'a CStr>,
}

/// Runs a program to its end: what its start told, its end, and its words.
fn run(program: &Program, how: How<'_>) -> (Status, Exit, String) {
    let mut ends = alone();
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let input = null();
    let How { oom_score_adj, steps, working_directory } = how;
    let start_of = Start { oom_score_adj, steps, working_directory, ..plain(program, &input, &write) };
    let Child { pid, status } = start(&start_of).expect("a child");
    drop(write);
    let told = next_status(&status);
    (told, end_of(pid, &mut ends), text_of(read))
}

#[test]
fn outcomes_of_a_start() {
    let check = |argv: &[&str], expected: (Status, Exit, &str)| {
        let (status, exit, text) = run(&program(argv, &["A=b"]), How::default());
        assert_eq!((status, exit, text.as_str()), expected, "{argv:?}");
    };
    let failed = |errno| Status::Failed(SpawnError::new(SpawnStage::Exec, errno));
    check(&["/bin/echo", "hello"], (Status::Running, Exit::Code(0), "hello\n"));
    check(&["/bin/sh", "-c", "exit 7"], (Status::Running, Exit::Code(7), ""));
    check(&["/usr/bin/env"], (Status::Running, Exit::Code(0), "A=b\n"));
    check(&["/bin/sh", "-c", "kill -9 $$"], (Status::Running, Exit::Signal(9), ""));
    // A real-time signal is not lost.
    check(&["/bin/sh", "-c", "kill -34 $$"], (Status::Running, Exit::Signal(34), ""));
    check(&["/nowhere/program"], (failed(libc::ENOENT), Exit::Code(127), ""));
    check(&["/etc/passwd"], (failed(libc::EACCES), Exit::Code(127), ""));
    check(&["/etc"], (failed(libc::EACCES), Exit::Code(127), ""));
}

#[test]
fn stages_that_fail_are_named() {
    let nowhere: &CStr = c"/nowhere";
    let (status, exit, _) =
        run(&shell("echo never"), How { working_directory: Some(nowhere), ..How::default() });
    let expected = SpawnError::new(SpawnStage::WorkingDirectory, libc::ENOENT);
    assert_eq!((status, exit), (Status::Failed(expected), Exit::Code(127)));
    let (status, exit, _) = run(&shell("echo never"), How { oom_score_adj: 4711, ..How::default() });
    let expected = SpawnError::new(SpawnStage::OomScoreAdj, libc::EINVAL);
    assert_eq!((status, exit), (Status::Failed(expected), Exit::Code(127)));
}

/// A child has a session of its own, nothing open but 0 to 2, and no signal ignored, held back or caught.
#[test]
fn children_start_clean() {
    let script = "cat /proc/self/oom_score_adj; pwd; ls /proc/$$/fd | tr '\\n' ' '; echo; \
                  cut -d' ' -f6 /proc/$$/stat; echo $$; cat /proc/self/status";
    let (_, exit, text) =
        run(&shell(script), How { oom_score_adj: 123, working_directory: Some(c"/usr"), ..How::default() });
    assert_eq!(exit, Exit::Code(0), "{text}");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let [adj, folder, fds, session, pid, status @ ..] = &lines[..] else { panic!("{text}") };
    assert_eq!((*adj, *folder, *fds, session), ("123", "/usr", "0 1 2", pid));
    for key in ["SigBlk:", "SigIgn:", "SigCgt:"] {
        let value = status.iter().find_map(|line| line.strip_prefix(key));
        assert_eq!(value.map(str::trim), Some("0000000000000000"), "{key}");
    }
}

/// Standard descriptors may be given in any order, also crosswise: no copy hides another.
#[test]
fn stdio_may_be_crossed() {
    let mut ends = alone();
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let (program, input, other) = (shell("echo out; echo err >&2"), null(), null());
    let mut plain = plain(&program, &input, &write);
    plain.stdio = [write.as_fd(), other.as_fd(), write.as_fd()];
    let child = start(&plain).expect("a child");
    drop(write);
    assert_eq!(next_status(&child.status), Status::Running);
    assert_eq!(end_of(child.pid, &mut ends), Exit::Code(0));
    assert_eq!(text_of(read), "err\n");
}

/// A descriptor that is handed over has its number in the program, also where lifeboat's own pipes had it, and is the
/// only one more.
#[test]
fn a_descriptor_is_handed_over_under_its_number() {
    let mut ends = alone();
    for number in (3..24).chain([255]) {
        let (read, write) = notification_pipe().expect("a pipe");
        let (words, output) = nix::unistd::pipe().expect("a pipe");
        let script = format!("ls /proc/$$/fd; echo ready > /proc/$$/fd/{number}");
        let (program, input) = (shell(&script), null());
        let handed = [(write.as_fd(), number)];
        let start_it = Start { handed: &handed, ..plain(&program, &input, &output) };
        let child = start(&start_it).expect("a child");
        drop((output, write));
        assert_eq!(next_status(&child.status), Status::Running, "{number}");
        assert_eq!(end_of(child.pid, &mut ends), Exit::Code(0), "{number}");
        let mut fds: Vec<i32> = text_of(words).lines().filter_map(|line| line.parse().ok()).collect();
        fds.sort_unstable();
        assert_eq!(fds, [0, 1, 2, number]);
        assert_eq!(text_of(read), "ready\n", "{number}");
    }
}

#[test]
fn a_parked_process_waits_for_its_order() {
    let mut ends = alone();
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let (program, input) = (procedure(&["/usr/bin/env"]), null());
    let Parked { pid, status, go } = park(&plain(&program, &input, &write), u64::MAX).expect("a child");
    drop(write);
    assert_eq!(next_status(&status), Status::Parked);
    assert_eq!(read_status(status.as_fd()), Status::Pending);
    assert_eq!(fds_of(pid).len(), 5, "0, 1, 2, status and go");
    assert!(locked_kb(pid) > 0, "its program is locked in memory");
    release(go.as_fd(), &Order::new("exhaustion", 4711, 2000)).expect("a release");
    assert_eq!(next_status(&status), Status::Running);
    assert_eq!(end_of(pid, &mut ends), Exit::Code(0));
    let expected =
        "LIFEBOAT_UNIT=x\nLIFEBOAT_REASON=exhaustion\nLIFEBOAT_MAINPID=4711\nLIFEBOAT_DEADLINE_MS=2000\n";
    assert_eq!(text_of(read), expected);
    assert_eq!(release(go.as_fd(), &Order::new("stop", 0, 0)), Err(libc::EPIPE));
}

fn fds_of(pid: u32) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a live process");
    folder.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect()
}

fn locked_kb(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a live process");
    let line = text.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("VmLck");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Each parked process ends with its own go pipe, whatever others are parked.
#[test]
fn a_parked_process_ends_when_nobody_can_release_it() {
    let mut ends = alone();
    let (program, input, output) = (procedure(&["/bin/true"]), null(), null());
    let parked: Vec<Parked> =
        (0..3).map(|_| park(&plain(&program, &input, &output), u64::MAX).expect("a child")).collect();
    for one in &parked {
        assert_eq!(next_status(&one.status), Status::Parked);
    }
    for Parked { pid, status, go } in parked {
        drop(go);
        assert_eq!(end_of(pid, &mut ends), Exit::Code(0));
        assert_eq!(read_status(status.as_fd()), Status::Running, "the end of the pipe");
    }
}

/// It says that it stands when all of it is there, is the first to go, and ends with its maker.
#[test]
fn a_ballast_stands_and_goes_first() {
    let mut ends = alone();
    let Parked { pid, status, go } = ballast(3 << 20, None, null().as_fd()).expect("a child");
    assert_eq!(next_status(&status), Status::Parked);
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a live process");
    assert_eq!(read("oom_score_adj").trim(), "1000");
    assert_eq!(read("comm").trim(), "ballast");
    assert_eq!(fds_of(pid).len(), 5, "0, 1, 2, status and go");
    let status_text = read("status");
    let kb = |name: &str| -> u64 {
        let line = status_text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    assert!(kb("RssAnon:") >= 3 << 10, "{status_text}");
    // Of its weight, in pages that are there anyway: a program of 1 MiB forty times.
    assert!(kb("RssFile:") + kb("RssShmem:") >= 20 << 10, "{status_text}");
    drop(go);
    assert_eq!(end_of(pid, &mut ends), Exit::Code(0));
}

/// Its program runs, reads the line that lets it go byte by byte, and ends by itself where nobody will write one.
#[test]
fn a_resident_process_waits_in_its_program() {
    let mut ends = alone();
    let script = "read -r order <&3 || exit 5; set -f; export ${order%% PIDFDS=*}; exit $LIFEBOAT_MAINPID";
    let (program, input, output) = (shell(script), null(), null());
    for (order, code) in [(Some(Order::new("stop", 77, 1)), 77), (None, 5)] {
        let resident = reside(&plain(&program, &input, &output)).expect("a child");
        assert_eq!(next_status(&resident.status), Status::Running);
        if let Some(order) = order {
            release_resident(resident.go.as_fd(), &order).expect("it is let go");
        }
        drop(resident.go);
        assert_eq!(end_of(resident.pid, &mut ends), Exit::Code(code));
    }
}

#[test]
fn a_program_that_cannot_run_is_not_parked() {
    let folder = tempfile::tempdir().expect("a folder");
    let make = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
        path.to_str().expect("a path of plain text").to_owned()
    };
    let script = make("script", "#!\t/usr/bin/gone -x\n");
    let (words, empty) = (make("words", "echo saved\n"), make("empty", ""));
    // Where the kernel knows further formats they cannot be told apart.
    let knows_more = std::path::Path::new("/proc/sys/fs/binfmt_misc/register").exists();
    let formless = [(&*words, libc::ENOEXEC), (&*empty, libc::ENOEXEC)];
    let bad = [
        ("/nowhere", libc::ENOENT),
        ("/etc/passwd", libc::EACCES),
        ("/etc", libc::EACCES),
        (&*script, libc::ENOENT),
    ];
    for (path, errno) in bad.into_iter().chain(formless.into_iter().filter(|_| !knows_more)) {
        let mut ends = alone();
        let (program, input, output) = (procedure(&[path]), null(), null());
        let parked = park(&plain(&program, &input, &output), u64::MAX).expect("a child");
        let told = next_status(&parked.status);
        assert_eq!(told, Status::Failed(SpawnError::new(SpawnStage::Exec, errno)), "{path}");
        assert_eq!(end_of(parked.pid, &mut ends), Exit::Code(127));
    }
}

/// A tree on this machine's cgroup2; it goes away at the end of its test.
struct RealTree {
    root: PathBuf,
    tree: Tree,
}

impl RealTree {
    /// `None`, with a word why, where this machine cannot have one.
    fn new(test: &str) -> Option<Self> {
        let skip = |why: String| {
            eprintln!("{test}: skipped: {why}");
            None
        };
        let Ok(Some(mount)) = place::mount_point() else { return skip("cgroup2 is not mounted".into()) };
        let root = mount.join(format!("lifeboat-{test}-{}", std::process::id()));
        if let Err(error) = std::fs::create_dir(&root) {
            return skip(format!("no group can be made in {}: {error}", mount.display()));
        }
        let capabilities = Capabilities::find(&root).expect("a cgroup2");
        match Tree::prepare(&root, &BudgetView::default(), &capabilities) {
            Ok(tree) => Some(Self { root, tree }),
            Err(error) => panic!("{error}: {:?}", error.source()),
        }
    }

    fn group(&self, name: &str) -> Group {
        self.tree.service(name, Class::Pool, &GroupLimits::default()).expect("a group")
    }
}

impl Drop for RealTree {
    fn drop(&mut self) {
        let branches = ["shutdown", "guaranteed", "pool"].map(|name| self.root.join(name));
        for branch in &branches {
            for group in std::fs::read_dir(branch).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(group.path());
            }
            let _ = std::fs::remove_dir(branch);
        }
        let _ = std::fs::remove_dir(&self.root);
    }
}

fn wait_until(group: &Group, populated: bool, frozen: bool) {
    wait_for(group.events_fd(), Interest::Priority, || {
        let state = group.state().expect("its state");
        (state.populated, state.frozen) == (populated, frozen)
    });
}

/// In the group from the first instruction on, frozen, killed while frozen, and clean for the next run: see
/// `spawn::Way::Moved` for what would happen to the second run's child if it were born there.
#[test]
fn a_group_holds_freezes_and_kills_its_processes() {
    let Some(real) = RealTree::new("group") else { return };
    let mut ends = alone();
    let mut group = real.group("service");
    wait_until(&group, false, false);
    for way in [Way::Born, Way::Moved, Way::Moved] {
        assert_eq!(group.place().way, way);
        group.renew(&GroupLimits::default()).expect("a fresh group");
        let (program, input, output) = (shell("while :; do sleep 1000; done"), null(), null());
        let mut plain = plain(&program, &input, &output);
        plain.cgroup = Some(group.place());
        let Child { pid, status } = start(&plain).expect("a child");
        assert_eq!(next_status(&status), Status::Running);
        let place = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a live process");
        let name = real.root.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(place.contains(&format!("{name}/pool/service\n")), "{place}");
        wait_until(&group, true, false);
        group.freeze().expect("a freeze");
        wait_until(&group, true, true);
        group.kill().expect("a kill");
        wait_until(&group, false, true);
        assert_eq!(end_of(pid, &mut ends), Exit::Signal(9));
    }
    drop(group);
}

#[test]
fn a_procedure_is_parked_in_its_group() {
    let Some(real) = RealTree::new("parked") else { return };
    let mut ends = alone();
    let group = real.tree.procedure("service", 4 << 20).expect("a group");
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let (program, input) = (procedure(&["/bin/cat", "/proc/self/cgroup"]), null());
    let mut plain = plain(&program, &input, &write);
    plain.cgroup = Some(group.place());
    let Parked { pid, status, go } = park(&plain, u64::MAX).expect("a child");
    drop(write);
    assert_eq!(next_status(&status), Status::Parked);
    wait_until(&group, true, false);
    release(go.as_fd(), &Order::new("stop", 1, 1)).expect("a release");
    assert_eq!(end_of(pid, &mut ends), Exit::Code(0));
    wait_until(&group, false, false);
    let text = text_of(read);
    assert!(text.contains("/shutdown/service\n"), "{text}");
}

/// PSI works on this machine's groups without the memory controller, so a trigger must be taken.
#[test]
fn a_pressure_trigger_is_armed() {
    let Some(real) = RealTree::new("trigger") else { return };
    let mut group = real.group("service");
    if std::fs::read(group.path().join("memory.pressure")).is_err() {
        eprintln!("trigger: skipped: this kernel has no PSI");
        return;
    }
    assert!(group.trigger_fd().is_none());
    assert!(group.arm_triggers());
    assert!(group.trigger_fd().is_some());
}
