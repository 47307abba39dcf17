//! What a process becomes before its program: user, limits, mounts, capabilities.

use super::{How, alone, end_of, locked_kb, next_status, null, plain, procedure, run, shell, text_of};
use lifeboat::engine::event::{Exit, SpawnStage};
use lifeboat::sys::spawn::{MaybePath, Order, Parked, SpawnError, Status, Step, park, release};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::CpuSet;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::PathBuf;

fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("{test}: skipped: only root can take on other identities");
    }
    root
}

/// What a shell prints after these steps.
fn after(steps: &[Step], script: &str) -> (Status, String) {
    let (status, _, text) = run(&shell(script), How { steps, ..How::default() });
    (status, text)
}

#[test]
fn steps_change_the_child() {
    if !is_root("steps") {
        return;
    }
    let check = |steps: &[Step], script: &str, expected: &str| {
        let (status, text) = after(steps, script);
        assert_eq!((status, text.trim()), (Status::Running, expected), "{steps:?}");
    };
    let gids = |list: &[u32]| list.iter().map(|gid| Gid::from_raw(*gid)).collect::<Vec<_>>();
    let nobody = Step::User { uid: Uid::from_raw(65_534), keeps: false };
    let status = |key: &str| format!("awk '/^{key}:/ {{ $1 = \"\"; print }}' /proc/self/status");
    let somebody = [Step::Groups(gids(&[20, 44])), Step::Group(Gid::from_raw(7)), nobody.clone()];
    check(&somebody, "id -u; id -ru; id -g; id -rg", "65534\n65534\n7\n7");
    check(&somebody, &status("Groups"), "20 44");
    check(&somebody, &status("Uid"), "65534 65534 65534 65534");
    check(&somebody, &status("Gid"), "7 7 7 7");
    for set in ["CapPrm", "CapEff", "CapAmb"] {
        check(&somebody, &status(set), "0000000000000000");
    }
    check(&[Step::Groups(Vec::new())], &status("Groups"), "");
    check(&[Step::Umask(0o027)], "umask", "0027");
    check(&[Step::Nice(7)], "nice", "7");
    check(&[Step::Nice(-7)], "nice", "-7");
    check(&[Step::NoNewPrivs], &status("NoNewPrivs"), "1");
    let limit = |current, maximum| Rlimit { current, maximum };
    check(
        &[Step::ResourceLimit(Resource::Nofile, limit(Some(100), Some(200)))],
        "ulimit -Sn; ulimit -Hn",
        "100\n200",
    );
    check(&[Step::ResourceLimit(Resource::Core, limit(Some(0), Some(0)))], "ulimit -c", "0");
    check(
        &[Step::ResourceLimit(Resource::Stack, limit(Some(1 << 20), None))],
        "grep 'Max stack' /proc/self/limits | awk '{ print $4, $5 }'",
        "1048576 unlimited",
    );
    check(&[Step::Scheduler { policy: 3, priority: 0 }], "cut -d' ' -f41 /proc/self/stat", "3");
    let mut one = Box::new(CpuSet::new());
    one.set(0);
    check(&[Step::CpuAffinity(one)], &status("Cpus_allowed_list"), "0");
    check(&[Step::IoPriority(3 << 13)], "ionice", "idle");
    check(&[Step::IoPriority(2 << 13 | 6)], "ionice", "best-effort: prio 6");
}

#[test]
fn capabilities_are_as_asked() {
    if !is_root("capabilities") {
        return;
    }
    let sets = |steps: &[Step]| {
        let script = "awk '/^Cap/ { print $2 }' /proc/self/status";
        let (status, text) = after(steps, script);
        assert_eq!(status, Status::Running, "{steps:?}");
        let sets: Vec<u64> = text.lines().map(|set| u64::from_str_radix(set, 16).expect("a set")).collect();
        let [inheritable, permitted, effective, bounding, ambient] = sets[..] else { panic!("{text}") };
        assert_eq!(permitted, effective);
        (inheritable, permitted, bounding, ambient)
    };
    let all = sets(&[]).2;
    let (bind, chown) = (1 << 10, 1);
    let nobody = |keeps| Step::User { uid: Uid::from_raw(65_534), keeps };
    // Root: what is in the bounding set. An ordinary user: what is ambient.
    assert_eq!(sets(&[Step::Bounding(bind | chown)]).1, bind | chown);
    assert_eq!(sets(&[Step::Bounding(0)]), (0, 0, 0, 0));
    assert_eq!(sets(&[Step::Bounding(bind), nobody(false)]), (0, 0, bind, 0));
    assert_eq!(sets(&[nobody(true), Step::Ambient(bind)]), (bind, bind, all, bind));
    assert_eq!(
        sets(&[Step::Bounding(bind | chown), nobody(true), Step::Ambient(bind), Step::NoNewPrivs]),
        (bind, bind, bind | chown, bind)
    );
    assert_eq!(sets(&[Step::Bounding(bind), Step::Ambient(bind)]), (bind, bind, bind, bind));
}

#[test]
fn mounts_are_the_child_s_own() {
    if !is_root("mounts") {
        return;
    }
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for name in ["ro/deep", "secret", "root/tmp"] {
        std::fs::create_dir_all(at(name)).expect("a folder");
    }
    std::fs::write(at("secret/file"), "secret").expect("a file");
    let path = |path: &PathBuf, may_be_missing| MaybePath {
        path: CString::new(path.to_str().expect("UTF-8")).expect("no NUL"),
        may_be_missing,
    };
    if after(&[Step::MountNamespace], "true").0 != Status::Running {
        eprintln!("mounts: skipped: this machine allows no mount namespace");
        return;
    }
    let (ro, secret, file) = (at("ro"), at("secret"), at("secret/file"));
    let check = |steps: &[Step], script: &str, expected: &str| {
        let steps = [&[Step::MountNamespace], steps].concat();
        let (status, text) = after(&steps, script);
        assert_eq!((status, text.trim()), (Status::Running, expected), "{steps:?}");
    };
    let script = format!("touch {0}/x {0}/deep/x 2>/dev/null || echo refused; touch {0}/../rw", ro.display());
    check(&[Step::ReadOnly(path(&ro, false))], &script, "refused");
    assert!(at("rw").exists() && !at("ro/x").exists() && !at("ro/deep/x").exists());
    // What is mounted below is read-only too.
    let dev = PathBuf::from("/dev");
    let mark = format!("lifeboat-{}", std::process::id());
    let script = format!("mountpoint -q /dev/shm && touch /dev/shm/{mark} 2>/dev/null || echo refused");
    check(&[Step::ReadOnly(path(&dev, false))], &script, "refused");
    check(&[Step::Hidden(path(&secret, false))], &format!("ls {}", secret.display()), "");
    check(&[Step::Hidden(path(&file, false))], &format!("cat {}", file.display()), "");
    let nowhere = PathBuf::from("/nowhere/at/all");
    check(&[Step::Hidden(path(&nowhere, true)), Step::ReadOnly(path(&nowhere, true))], "echo on", "on");
    for (step, folder) in [(Step::PrivateTmp, "/tmp"), (Step::PrivateShm, "/dev/shm")] {
        let script = format!("ls -A {folder}; echo x >{folder}/{mark}; stat -c %a {folder}; ls {folder}");
        check(&[step], &script, &format!("1777\n{mark}"));
        assert!(!PathBuf::from(folder).join(&mark).exists(), "{folder} is the machine's");
    }
    // Below a root directory, paths begin there: no shell is to be found in it.
    let root = path(&at("root"), false).path;
    let (status, _) =
        after(&[Step::MountNamespace, Step::RootDirectory(root.clone()), Step::PrivateTmp], "true");
    assert_eq!(status, Status::Failed(SpawnError::new(SpawnStage::Exec, libc::ENOENT)));
}

#[test]
fn steps_that_fail_are_named() {
    if !is_root("steps") {
        return;
    }
    let check = |steps: &[Step], stage, errno| {
        let (status, text) = after(steps, "echo never");
        let expected = Status::Failed(SpawnError::new(stage, errno));
        assert_eq!((status, text.as_str()), (expected, ""), "{steps:?}");
    };
    let nowhere = || MaybePath { path: c"/nowhere".to_owned(), may_be_missing: false };
    let nobody = Step::User { uid: Uid::from_raw(65_534), keeps: false };
    let mut far = Box::new(CpuSet::new());
    far.set(CpuSet::MAX_CPU - 1);
    check(&[Step::CpuAffinity(far.clone())], SpawnStage::CpuAffinity, libc::EINVAL);
    far.set(0);
    check(&[Step::CpuAffinity(far)], SpawnStage::CpuAffinity, libc::EINVAL);
    check(&[Step::Scheduler { policy: 1, priority: 100 }], SpawnStage::Scheduler, libc::EINVAL);
    check(&[Step::IoPriority(7 << 13)], SpawnStage::IoPriority, libc::EINVAL);
    let limit = Rlimit { current: Some(2), maximum: Some(1) };
    check(&[Step::ResourceLimit(Resource::Core, limit)], SpawnStage::ResourceLimit, libc::EINVAL);
    check(&[Step::RootDirectory(c"/nowhere".to_owned())], SpawnStage::RootDirectory, libc::ENOENT);
    check(&[Step::MountNamespace, Step::ReadOnly(nowhere())], SpawnStage::ReadOnly, libc::ENOENT);
    check(&[Step::MountNamespace, Step::Hidden(nowhere())], SpawnStage::Hidden, libc::ENOENT);
    check(&[Step::Bounding(1 << 63)], SpawnStage::Capabilities, libc::EINVAL);
    // Who has become somebody cannot become somebody else, or get back what was given up.
    let second = |step: Step| [nobody.clone(), step];
    check(&second(Step::Groups(Vec::new())), SpawnStage::Groups, libc::EPERM);
    check(&second(Step::Group(Gid::from_raw(1))), SpawnStage::Group, libc::EPERM);
    check(&second(Step::User { uid: Uid::from_raw(1), keeps: false }), SpawnStage::User, libc::EPERM);
    check(&second(Step::Ambient(1)), SpawnStage::Capabilities, libc::EPERM);
    check(&second(Step::Bounding(0)), SpawnStage::Capabilities, libc::EPERM);
}

/// The shield is set while the child is root, and an ordinary user keeps it.
#[test]
fn a_user_keeps_the_oom_score_adj_and_enters_its_folder_itself() {
    if !is_root("oom") {
        return;
    }
    let nobody = [Step::User { uid: Uid::from_raw(65_534), keeps: false }];
    let (status, _, text) = run(
        &shell("cat /proc/self/oom_score_adj; id -u"),
        How { oom_score_adj: -1_000, steps: &nobody, ..How::default() },
    );
    if status == Status::Failed(SpawnError::new(SpawnStage::OomScoreAdj, libc::EACCES)) {
        eprintln!("oom: skipped: this machine's root may not lower oom_score_adj");
    } else {
        assert_eq!((status, text.as_str()), (Status::Running, "-1000\n65534\n"));
    }
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let alone = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(folder.path(), alone).expect("root's alone");
    let path = CString::new(folder.path().to_str().expect("UTF-8")).expect("no NUL");
    let (status, ..) =
        run(&shell("pwd"), How { steps: &nobody, working_directory: Some(&path), ..How::default() });
    assert_eq!(status, Status::Failed(SpawnError::new(SpawnStage::WorkingDirectory, libc::EACCES)));
}

/// The program of a parked procedure is locked before its user changes: an ordinary user could not lock it.
#[test]
fn a_parked_user_has_its_program_locked() {
    if !is_root("parked user") {
        return;
    }
    let mut ends = alone();
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let (program, input) = (procedure(&["/usr/bin/id", "-u"]), null());
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let steps = [
        Step::ResourceLimit(Resource::Memlock, none),
        Step::User { uid: Uid::from_raw(65_534), keeps: false },
    ];
    let mut plain = plain(&program, &input, &write);
    plain.steps = &steps;
    let Parked { pid, status, go } = park(&plain, u64::MAX).expect("a child");
    drop(write);
    assert_eq!(next_status(&status), Status::Parked);
    assert!(locked_kb(pid) > 0, "its program is locked in memory");
    release(go.as_fd(), &Order::new("stop", 0, 0)).expect("a release");
    assert_eq!(end_of(pid, &mut ends), Exit::Code(0));
    assert_eq!(text_of(read), "65534\n");
}
