//! `lifeboatctl adopt`: a process that lifeboat did not start as the service of a unit.

use super::rig::{Cgroups, PATIENCE, Place, Rig, Said, both, is_alive, own_cgroup, remove_cgroup};
use lifeboat::engine::snapshot::StateName;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const UP: &str = "(command: [\"/bin/sleep\", \"1000\"])";

const NOBODY: u32 = 65_534;

/// A process of nobody's, in a group of its own, which is reaped by this test.
struct Stray {
    child: Child,
    group: PathBuf,
}

impl Stray {
    fn new(script: &str) -> Self {
        Self::new_in(own_cgroup().expect("a cgroup"), script)
    }

    fn new_in(group: PathBuf, script: &str) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("read go; {script}")]).stdin(Stdio::piped());
        let mut child = shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell");
        fs::write(group.join("cgroup.procs"), child.id().to_string()).expect("it is moved");
        writeln!(child.stdin.take().expect("its input"), "go").expect("it begins");
        Self { child, group }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its children, once there are so many.
    fn children(&self, count: usize) -> Vec<u32> {
        let file = self.group.join("cgroup.procs");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pids = numbers(&fs::read_to_string(&file).expect("its processes"));
            if pids.len() == count + 1 {
                return pids.into_iter().filter(|pid| *pid != self.pid()).collect();
            }
            assert!(Instant::now() < deadline, "{pids:?}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // One in lifeboat's tree has gone with it.
        if self.group.exists() {
            remove_cgroup(&self.group);
        }
    }
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_ascii_whitespace().map(|word| word.parse().expect("a pid")).collect()
}

fn adopt(rig: &Rig, pid: u32, words: &[&str]) -> Said {
    let pid = pid.to_string();
    rig.ctl(&[&["adopt", &pid, "--procedure", "/bin/true"], words].concat())
}

fn group_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()
}

/// Nothing of a refused unit is left.
fn is_as_before(rig: &Rig) {
    assert_eq!(rig.status().units.len(), 1, "{:?}", rig.status().units);
    let files = fs::read_dir(rig.place.path("socket.units")).into_iter().flatten().count();
    assert_eq!(files, 0, "files of units");
}

#[test]
fn a_process_and_its_descendants_are_adopted() {
    if !both().contains(&Cgroups::Own) {
        return;
    }
    let rig = Place::new(Cgroups::Own).unit("other", UP).start();
    rig.running("other");
    let mut stray = Stray::new("sleep 1000 & sh -c 'sleep 1000 & wait' & wait");
    let below = stray.children(3);
    let name = format!("adopt-{}", stray.pid());
    adopt(&rig, stray.pid(), &["--memory-max", "32MiB"]).check(&format!("{name}: started\n"), 0);
    assert_eq!(rig.running(&name), stray.pid());
    for pid in below.iter().copied().chain([stray.pid()]) {
        assert!(group_of(pid).contains(&name), "{pid} is in {}", group_of(pid));
    }
    rig.check_quiet("with an adopted process");
    let again = adopt(&rig, stray.pid(), &["--memory-max", "32MiB", "--name", "twice"]);
    again.check_refusal(&["is the service of the unit adopt-", "lifeboatctl limit"], 1);
    // A descendant is of the unit too.
    let again = adopt(&rig, below[0], &["--memory-max", "32MiB", "--name", "twice"]);
    again.check_refusal(&["is not under guard", "is of a unit of lifeboat already"], 1);
    rig.ctl(&["stop", &name]).check(&format!("{name}: stopped\n"), 0);
    assert_eq!(stray.child.wait().expect("its end").code(), None);
    assert!(below.iter().all(|pid| !is_alive(*pid)), "{below:?}");
    rig.ctl(&["remove", &name]).check(&format!("{name}: removed process group\n"), 0);
    is_as_before(&rig);
}

/// It is another's child, so only the pidfd tells.
#[test]
fn the_end_of_an_adopted_process_is_noticed() {
    if !both().contains(&Cgroups::Own) {
        return;
    }
    let rig = Place::new(Cgroups::Own).unit("other", UP).start();
    let mut stray = Stray::new("sleep 1000 & wait");
    let below = stray.children(1);
    adopt(&rig, stray.pid(), &["--memory-max", "32MiB", "--name", "stray"]).check("stray: started\n", 0);
    stray.child.kill().expect("it is killed");
    stray.child.wait().expect("its end");
    let unit = rig.wait_until("stray", |unit| unit.state == StateName::Exited);
    assert_eq!((unit.run.0, unit.pid), (1, None));
    assert!(!is_alive(below[0]), "what it left behind is killed with its cgroup");
    // There is nothing to start again.
    let again = rig.ctl(&["start", "stray"]);
    assert!(again.code != Some(0) && again.err.contains("entering its cgroup"), "{again:?}");
    rig.ctl(&["remove", "stray"]).check("stray: removed process group\n", 0);
    is_as_before(&rig);
}

#[test]
fn what_cannot_be_adopted_stays_as_it_is() {
    let cgroups = if both().contains(&Cgroups::Own) { Cgroups::Own } else { Cgroups::None };
    let rig = Place::new(cgroups).unit("other", UP).start();
    let other = rig.running("other");
    let kernel = fs::read_dir("/proc").expect("/proc").find_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        lifeboat::sys::process::Facts::of(pid).filter(|facts| facts.kernel).map(|facts| facts.pid)
    });
    let max = ["--memory-max", "32MiB"];
    for (pid, words) in [
        (4_194_305, "/proc has none of this number; look with `ps`"),
        (1, "it is the init process"),
        (rig.pid(), "it is lifeboat itself"),
        (other, "it is the service of the unit other"),
        (std::process::id(), "lifeboat with all that it descends from"),
    ] {
        // Without cgroups nobody can be moved, which is told for each.
        if cgroups == Cgroups::Own || pid != std::process::id() {
            adopt(&rig, pid, &max).check_refusal(&[words], 1);
            is_as_before(&rig);
        }
    }
    if let Some(pid) = kernel {
        adopt(&rig, pid, &max).check_refusal(&["it is a thread of the kernel"], 1);
    }
    let Ok(group) = own_cgroup() else { return };
    let _ = fs::remove_dir(group);
    let stray = Stray::new("sleep 1000 & wait");
    let before = group_of(stray.pid());
    let plain = rig.place.path("plain");
    fs::write(&plain, "no program").expect("a file");
    let plain = plain.to_str().expect("its path").to_owned();
    let pid = stray.pid().to_string();
    for (words, told) in [
        (vec!["--procedure", "/no/such/program"], "write where it is"),
        (vec!["--procedure", &plain], "is not executable; chmod +x"),
        (vec!["--procedure", "/bin/true", "--name", "other"], "there is a unit other already"),
        (vec!["--procedure", "/bin/true", "--memory-max", "lots"], "`lots` is no size"),
        (vec!["--procedure", "/bin/true", "--memory-max", "9000GiB"], "lower memory.max"),
    ] {
        let said = rig.ctl(&[&["adopt", &pid], &words[..]].concat());
        assert!(said.code != Some(0) && said.err.contains(told), "{words:?}: {said:?}");
        is_as_before(&rig);
        assert_eq!(group_of(stray.pid()), before, "{words:?}");
    }
}

/// Whenever it dies on its way in, that is told, and no unit, no process and no group of a refused one is left.
#[test]
fn one_that_dies_meanwhile_is_told() {
    if !both().contains(&Cgroups::Own) {
        return;
    }
    let rig = Place::new(Cgroups::Own).unit("other", UP).start();
    rig.running("other");
    for round in 0..24 {
        let mut stray = Stray::new(&format!("sleep 1000 & exec sleep 0.0{round:02}"));
        let said = adopt(&rig, stray.pid(), &["--memory-max", "32MiB", "--name", "short"]);
        stray.child.wait().expect("its end");
        if said.code == Some(0) {
            rig.wait_until("short", |unit| unit.state == StateName::Exited);
            rig.ctl(&["remove", "short"]).check("short: removed process group\n", 0);
        } else {
            let told = ["has none of this number", "it has ended", "Exited too quickly"];
            assert!(told.iter().any(|words| said.err.contains(words)), "{round}: {said:?}");
        }
        is_as_before(&rig);
    }
}

/// The number alone does not name a process.
#[test]
fn a_number_of_another_process_is_refused() {
    if !both().contains(&Cgroups::Own) {
        return;
    }
    let stray = Stray::new("sleep 1000");
    let before = group_of(stray.pid());
    let text = format!("(adopt: (pid: {}, started: 1), autostart: false)", stray.pid());
    let rig = Place::new(Cgroups::Own).unit("old", &text).start();
    let said = rig.ctl(&["start", "old"]);
    said.check_refusal(&["old: spawn error: entering its cgroup: No such process"], 7);
    assert_eq!(group_of(stray.pid()), before);
    let why = rig.ctl(&["why", "old"]).out;
    assert!(why.contains("old.ron:1: adopt: it has ended, or its number is another's by now"), "{why}");
}

/// A program of its own, because the folder that it was built in may be closed to others.
fn copied(rig_folder: &Path, program: &str, name: &str) -> PathBuf {
    let to = rig_folder.join(name);
    assert!(Command::new("cp").arg(program).arg(&to).status().expect("cp runs").success());
    to
}

/// Lets everybody do what only root may.
fn give_to_nobody(paths: &[PathBuf]) {
    for path in paths {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("it is root's");
    }
}

/// The first process may be moved, a child in another's cgroup may not: both are where they were.
#[test]
fn what_cannot_be_moved_whole_goes_back() {
    let has_setpriv = Command::new("setpriv").arg("--version").output().is_ok();
    if !has_setpriv || !both().contains(&Cgroups::Own) {
        println!("skipped: it needs setpriv, root and cgroup2");
        return;
    }
    let place = Place::new(Cgroups::Own).unit("other", UP);
    let (root, folder) = (place.cgroup(), place.folder.path().to_owned());
    let group = root.join("strays");
    fs::create_dir(&group).expect("a group");
    give_to_nobody(&[
        folder.clone(),
        root.clone(),
        root.join("cgroup.procs"),
        root.join("cgroup.subtree_control"),
        group.join("cgroup.procs"),
    ]);
    let stray = Stray::new_in(group, "sleep 1000 & wait");
    let child = stray.children(1)[0];
    let away = own_cgroup().expect("a cgroup");
    fs::write(away.join("cgroup.procs"), child.to_string()).expect("it is moved");
    let before = (group_of(stray.pid()), group_of(child));
    let mut command = Command::new("sh");
    let script = "echo 0 > $0 && exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"";
    command.args(["-c", script]).arg(root.join("cgroup.procs"));
    command.arg(copied(&folder, env!("CARGO_BIN_EXE_lifeboat"), "lifeboat"));
    command.args(place.command().get_args()).arg("--degraded");
    let rig = place.start_as(command);
    rig.running("other");
    let said = adopt(&rig, stray.pid(), &["--memory-max", "8MiB"]);
    said.check_refusal(&["is not under guard: start lifeboat as root, or with write access"], 1);
    assert_eq!((group_of(stray.pid()), group_of(child)), before, "{}", rig.log());
    is_as_before(&rig);
    fs::write(stray.group.join("cgroup.procs"), child.to_string()).expect("it is moved");
    remove_cgroup(&away);
    // As a whole it may be moved.
    adopt(&rig, stray.pid(), &["--memory-max", "8MiB", "--name", "stray"]).check("stray: started\n", 0);
    assert!(group_of(child).contains("/pool/stray"), "{}", group_of(child));
}

#[test]
fn nobody_may_not_adopt() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let rig = Place::new(Cgroups::None).unit("other", UP).start();
    rig.running("other");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(rig.place.folder.path(), open).expect("the test's own folder");
    let mut command =
        Command::new(copied(rig.place.folder.path(), env!("CARGO_BIN_EXE_lifeboatctl"), "lifeboatctl"));
    command.arg("--socket").arg(rig.socket()).arg("adopt").arg(std::process::id().to_string());
    let output = command.args(["--procedure", "/bin/true"]).uid(NOBODY).gid(NOBODY).output();
    let said = Said::of(&output.expect("lifeboatctl runs"));
    said.check_refusal(&["cannot write", "Permission denied", "; try as root"], 1);
    is_as_before(&rig);
}
