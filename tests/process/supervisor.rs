//! lifeboat below another init: the life of services, and its own.

use crate::rig::{Cgroups, Mailbox, Place, Said, both, is_alive, pid_of, wait_for_end};
use lifeboat::engine::snapshot::StateName;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

const SLEEPER: &str = "(command: [\"/bin/sleep\", \"1000\"])";

#[test]
fn a_service_starts_dies_restarts_and_stops() {
    for cgroups in both() {
        let rig = Place::new(cgroups).unit("a", SLEEPER).start();
        let first = rig.running("a");
        assert!(rig.ctl(&["status"]).out.contains(&format!("RUNNING   pid {first}, uptime 0:00:0")));
        kill(pid_of(first), Signal::SIGKILL).expect("a kill");
        let second = rig.wait_until("a", |unit| unit.state == StateName::Running && unit.pid != Some(first));
        assert_eq!(second.run.0, 2, "{second:?}");
        rig.ctl(&["start", "a"]).check("a: ERROR (already started)\n", 0);
        rig.ctl(&["restart", "a"]).check("a: stopped\na: started\n", 0);
        let third = rig.running("a");
        assert!(!is_alive(second.pid.expect("a pid")));
        rig.ctl(&["stop", "a"]).check("a: stopped\n", 0);
        assert!(!is_alive(third));
        rig.ctl(&["stop", "a"]).check("a: ERROR (not running)\n", 0);
        assert_eq!(rig.ctl(&["status", "a"]).code, Some(3));
        rig.ctl(&["start", "a"]).check("a: started\n", 0);
        rig.check_quiet("a service runs");
    }
}

#[test]
fn a_term_ends_all_of_it() {
    for cgroups in both() {
        // One obeys, one does not, one leaves a daemon behind that has a session of its own.
        let place = Place::new(cgroups);
        let mut mailbox = Mailbox::new(place.path("fifo"));
        let daemon =
            format!("setsid sh -c 'echo $$ > {}; exec sleep 1000' & exec sleep 1000", mailbox.path.display());
        let mut rig = place
            .unit("a", SLEEPER)
            .shell("deaf", "trap '' TERM; while :; do sleep 1000; done", "stop: (timeout: \"50ms\")")
            .shell("daemon", &daemon, "")
            .start();
        let mut pids = vec![rig.running("a"), rig.running("deaf"), rig.running("daemon")];
        pids.push(mailbox.line().parse().expect("a pid"));
        rig.signal(Signal::SIGTERM);
        assert_eq!(rig.end().code(), Some(0), "{}", rig.log());
        assert!(!rig.socket().exists(), "the socket is still there");
        for pid in pids {
            assert!(!is_alive(pid), "{cgroups:?}: {pid} is still there; the log:\n{}", rig.log());
        }
    }
}

#[test]
fn what_a_dead_service_leaves_behind_dies_before_its_next_run() {
    for cgroups in both() {
        let place = Place::new(cgroups);
        let mut mailbox = Mailbox::new(place.path("fifo"));
        let script = format!("sleep 1000 & echo $! > {}; exec sleep 1000", mailbox.path.display());
        let rig = place.shell("a", &script, "").start();
        let left: u32 = mailbox.line().parse().expect("a pid");
        kill(pid_of(rig.running("a")), Signal::SIGKILL).expect("a kill");
        let next: u32 = mailbox.line().parse().expect("a pid");
        assert!(wait_for_end(left), "{cgroups:?}: it lives on");
        assert!(is_alive(next));
    }
}

#[test]
fn a_cgroup_removed_by_somebody_else_is_made_anew() {
    if !both().contains(&Cgroups::Own) {
        return;
    }
    let rig = Place::new(Cgroups::Own).unit("a", SLEEPER).start();
    rig.running("a");
    rig.ctl(&["stop", "a"]).check("a: stopped\n", 0);
    fs::remove_dir(rig.place.cgroup().join("pool/a")).expect("an empty cgroup");
    rig.check_quiet("the cgroup is gone");
    rig.ctl(&["start", "a"]).check("a: started\n", 0);
    rig.ctl(&["stop", "a"]).check("a: stopped\n", 0);
}

#[test]
fn an_orphan_is_reaped() {
    let place = Place::new(Cgroups::None);
    let mut mailbox = Mailbox::new(place.path("fifo"));
    let script =
        format!("(sh -c 'echo $$ > {}; exec sleep 1000' &); exec sleep 1000", mailbox.path.display());
    let rig = place.shell("a", &script, "").start();
    rig.running("a");
    let orphan: u32 = mailbox.line().parse().expect("a pid");
    kill(pid_of(orphan), Signal::SIGKILL).expect("a kill");
    assert!(wait_for_end(orphan));
    // SIGCHLD and the answer race; each answer is a turn of the loop.
    let reaped = (0..10_000).any(|_| {
        let _ = rig.status();
        fs::metadata(format!("/proc/{orphan}")).is_err()
    });
    assert!(reaped, "{orphan} is a zombie");
}

#[test]
fn without_a_guard_it_refuses() {
    for cgroups in both() {
        let place = Place::new(cgroups).unit("a", SLEEPER);
        let said = Said::of(&place.command().output().expect("lifeboat runs"));
        let what = if cgroups == Cgroups::Own { "the memory controller of cgroup v2" } else { "cgroup v2" };
        said.check_refusal(
            &["memory cannot be guarded here", what, "boot with cgroup_no_v1", "--degraded"],
            1,
        );
        assert!(!place.path("socket").exists(), "a refused lifeboat leaves its socket behind");
    }
}

#[test]
fn a_faulty_unit_is_listed_and_the_others_run() {
    let rig = Place::new(Cgroups::None)
        .unit("bad", "(comand: [\"/bin/true\"])")
        .unit("good", SLEEPER)
        .unit("missing", "(command: [\"/no/such/program\"], restart: (policy: Never))")
        .start();
    rig.running("good");
    rig.wait_until("missing", |unit| unit.state == StateName::Fatal);
    let status = rig.ctl(&["status"]);
    for words in ["bad  ", "FATAL", "good  ", "RUNNING", "execve: No such file or directory"] {
        assert!(status.out.contains(words), "{words:?} is missing in:\n{}", status.out);
    }
    assert_eq!(status.code, Some(3));
    let why = rig.ctl(&["why", "bad"]);
    for words in ["bad.ron:1:2", "comand", "did you mean", "command"] {
        assert!(why.out.contains(words), "{words:?} is missing in:\n{}", why.out);
        assert!(rig.log().contains(words), "{words:?} is missing in:\n{}", rig.log());
    }
    assert_eq!(rig.ctl(&["start", "bad"]).code, Some(1));
}

#[test]
fn the_socket_of_a_living_lifeboat_is_not_taken() {
    let rig = Place::new(Cgroups::None).unit("a", SLEEPER).start();
    let pid = rig.running("a");
    let second = Said::of(&rig.place.command().arg("--degraded").output().expect("lifeboat runs"));
    second.check_refusal(&["another lifeboat listens on", "/socket", "--socket PATH"], 1);
    assert_eq!(rig.running("a"), pid);
    // A killed one leaves its socket behind; the next one replaces it.
    rig.signal(Signal::SIGKILL);
    assert!(wait_for_end(rig.pid()));
    kill(pid_of(pid), Signal::SIGKILL).expect("the service is an orphan now");
    let mut command = rig.place.command();
    let child = command.arg("--degraded").stderr(Stdio::null()).spawn().expect("lifeboat runs");
    let mut next = rig.followed_by(child);
    next.running("a");
    // Somebody else's file in its place is left alone.
    fs::remove_file(next.socket()).expect("the socket");
    fs::write(next.socket(), "precious").expect("a file");
    next.signal(Signal::SIGTERM);
    assert_eq!(next.end().code(), Some(0));
    assert_eq!(fs::read_to_string(next.socket()).expect("the file"), "precious");
}

#[test]
fn a_socket_that_cannot_be_made_is_named_with_the_cure() {
    let place = Place::new(Cgroups::None).unit("a", SLEEPER);
    fs::write(place.path("file"), "precious").expect("a file");
    let long = place.path(&"x".repeat(120));
    let cases = [
        (place.path("file"), &["is no socket", "--socket PATH"][..]),
        (place.path("file/socket"), &["make the folder of", "File exists", "--socket PATH"]),
        ("/proc/nowhere/socket".into(), &["make the folder of", "/proc/nowhere"]),
        ("/proc/socket".into(), &["listen on /proc/socket"]),
        (long, &["listen on", "File name too long"]),
        (place.folder.path().into(), &["is no socket"]),
    ];
    for (socket, words) in cases {
        let said = place.command().arg("--degraded").arg("--socket").arg(socket).output();
        Said::of(&said.expect("lifeboat runs")).check_refusal(words, 1);
    }
    assert_eq!(fs::read_to_string(place.path("file")).expect("the file"), "precious");
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let place = Place::new(Cgroups::None).unit("a", SLEEPER);
    let mut command = place.command();
    command.arg("--degraded").stdout(Stdio::null()).stderr(write.try_clone().expect("a copy"));
    // As full as a pipe can be.
    let own = nix::fcntl::open(
        format!("/proc/self/fd/{}", write.as_raw_fd()).as_str(),
        OFlag::O_WRONLY | OFlag::O_NONBLOCK,
        nix::sys::stat::Mode::empty(),
    );
    let own = own.expect("the pipe opens anew");
    while nix::unistd::write(&own, &[b'x'; 4096]).is_ok() {}
    let rig = place.start_silent(command);
    rig.running("a");
    rig.ctl(&["restart", "a"]).check("a: stopped\na: started\n", 0);
    drop(read);
    rig.ctl(&["restart", "a"]).check("a: stopped\na: started\n", 0);
}

#[test]
fn a_procedure_runs_where_nothing_can_be_shielded() {
    // On a machine where lifeboat has the privilege this holds all the more.
    for cgroups in both() {
        let place = Place::new(cgroups);
        let mut mailbox = Mailbox::new(place.path("fifo"));
        let procedure = format!(
            "shutdown: (procedure: [\"/bin/sh\", \"-c\", \"echo $LIFEBOAT_UNIT $LIFEBOAT_REASON > {}\"], on: [Stop])",
            mailbox.path.display()
        );
        let rig = place.shell("a", "exec sleep 1000", &procedure).start();
        rig.running("a");
        rig.ctl(&["stop", "a"]).check("a: stopped\n", 0);
        assert_eq!(mailbox.line(), "a stop", "{}", rig.log());
    }
}

#[test]
fn folders_that_are_not_there_are_named_with_the_cure() {
    let place = Place::new(Cgroups::None);
    fs::remove_dir(place.path("units")).expect("an empty folder");
    let rig = place.start();
    let log = rig.log();
    for words in ["there is no folder of units", "/units does not exist", "--units", "no-cgroup", "--cgroup"]
    {
        assert!(log.contains(words), "{words:?} is missing in:\n{log}");
    }
    assert_eq!(rig.status().system.faults.len(), 1);
    // A file in its place is told, too.
    let place = Place::new(Cgroups::None);
    fs::remove_dir(place.path("units")).expect("an empty folder");
    fs::write(place.path("units"), "").expect("a file");
    assert!(place.start().log().contains("/units: this folder cannot be read: Not a directory"));
}

#[test]
fn nobody_may_look_but_not_change() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let rig = Place::new(Cgroups::None).unit("a", SLEEPER).start();
    let pid = rig.running("a");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(rig.place.folder.path(), open).expect("the test's own folder");
    // A copy, because the folder that it was built in may be closed to others. By another process, because a child of
    // a test next door would hold a copy of the test's own open for writing, and it could not be run.
    let program = rig.place.path("lifeboatctl");
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_lifeboatctl")).arg(&program).status();
    assert!(copied.expect("cp runs").success());
    let check = |arguments: &[&str], out: &str, err: &str, code| {
        let mut command = Command::new(&program);
        command.arg("--socket").arg(rig.socket()).args(arguments).uid(65_534).gid(65_534);
        let said = Said::of(&command.output().expect("lifeboatctl runs"));
        assert!(said.out.starts_with(out), "{said:?}");
        assert_eq!((&*said.err, said.code), (err, Some(code)), "{said:?}");
    };
    check(&["status", "a"], "a   ", "", 0);
    check(&["stop", "a"], "a: ERROR (not permitted)\n", "", 4);
    check(&["restart", "all"], "a: ERROR (not permitted)\n", "", 4);
    check(&["enable", "a"], "a: ERROR (not permitted)\n", "", 4);
    for verb in ["reread", "update"] {
        check(&[verb], "", "lifeboatctl: your user may look at lifeboat, but not change it\n", 4);
    }
    check(&["shutdown"], "", "lifeboatctl: your user may look at lifeboat, but not change it\n", 4);
    assert_eq!(rig.running("a"), pid);
}

/// What only the kernel can tell at the start, with the place in the unit's file and what helps.
#[test]
fn a_start_that_fails_names_file_line_and_cure() {
    let rig = Place::new(Cgroups::None)
        .unit("missing", "(\n    command: [\"/bin/no-such-program\"],\n)")
        .unit("locked", "(\n    command: [\"/etc/passwd\"],\n)")
        .unit("folder", "(\n    command: [\"/etc\"],\n)")
        .unit("away", "(\n    command: [\"/bin/true\"],\n    working_directory: \"/no-such-folder\",\n)")
        .unit("processors", "(\n    command: [\"/bin/true\"],\n\n    cpus: \"1000\",\n)")
        .unit("fine", SLEEPER)
        .start();
    for (name, words) in [
        ("missing", "missing.ron:2: command: /bin/no-such-program: put the program there"),
        ("locked", "locked.ron:2: command: /etc/passwd: make it executable (chmod +x)"),
        ("folder", "not mounted noexec, for the unit's user too; a folder cannot be executed"),
        ("away", "away.ron:3: working_directory: /no-such-folder: make the folder, or take the field out"),
        ("processors", "processors.ron:4: cpus"),
    ] {
        rig.wait_until(name, |unit| unit.state == StateName::Fatal);
        let why = rig.ctl(&["why", name]);
        assert!(why.out.contains(words), "{words:?} is missing in {why:?}");
        assert!(rig.log().contains(words), "{words:?} is missing in {}", rig.log());
    }
    rig.running("fine");
}

/// Of two procedures and the commands beside the service the one is named that is missing.
#[test]
fn a_missing_program_beside_the_service_is_named() {
    let shutdown =
        "shutdown: (\n    procedure: [\"/bin/false\"], otherwise: [\"/no/second\"], on: [Stop],\n)";
    let health = "health: (command: [\"/no/check\"], interval: \"50ms\", failures: 100)";
    let stop = "\nstop: (command: [\"/no/stop\"])";
    let resident = "shutdown: (procedure: [\"/bin/sleep\", \"1000\"], resident: true, otherwise: [\"/etc\"], on: [Stop])";
    let rig = Place::new(Cgroups::None)
        .unit("saved", &format!("(command: [\"/bin/sleep\", \"1000\"],\n{shutdown})"))
        .unit("resident", &format!("(command: [\"/bin/sleep\", \"1000\"],\n{resident})"))
        .unit("checked", &format!("(command: [\"/bin/sleep\", \"1000\"],\n\n{health},{stop})"))
        .start();
    for name in ["saved", "checked", "resident"] {
        rig.running(name);
    }
    let cure = "put the program there, with the interpreter";
    // What is needed last is looked at first.
    for words in [
        "saved: its second procedure could not be started: execve: No such file or directory",
        &format!("saved.ron:2: shutdown: /no/second: {cure}"),
        "resident: its second procedure could not be started: execve: Permission denied",
        "resident.ron:2: shutdown: /etc: make it executable",
    ] {
        assert!(rig.log().contains(words), "{words:?} is missing in {}", rig.log());
    }
    rig.wait_until("checked", |unit| unit.failed_command.is_some());
    let words = format!("checked.ron:3: health: /no/check: {cure}");
    let why = rig.ctl(&["why", "checked"]);
    assert!(why.out.contains(&words), "{words:?} is missing in {why:?}");
    rig.ctl(&["stop", "saved", "checked"]);
    let told = [words, format!("saved.ron:2: shutdown: /no/second: {cure}")];
    for words in [&told[..], &[format!("checked.ron:4: stop: /no/stop: {cure}")]].concat() {
        assert!(rig.log().contains(&words), "{words:?} is missing in {}", rig.log());
    }
    assert!(!rig.log().contains("/bin/false: put"), "{}", rig.log());
}

/// It is not said that its program is missing.
#[test]
fn a_procedure_that_ends_too_early_is_told() {
    let shutdown = "shutdown: (procedure: [\"/bin/sh\", \"-c\", \"exit 3\"], resident: true, on: [Stop])";
    let rest = format!("restart: (delay: \"1h\"),\n{shutdown}");
    let rig = Place::new(Cgroups::None).shell("a", "exec sleep 1000", &rest).start();
    rig.wait_until("a", |unit| unit.state == StateName::Backoff);
    let why = rig.ctl(&["why", "a"]);
    let told = "its procedure ended before it was needed: exit code 3";
    for words in [told, "a.ron:2: shutdown: /bin/sh: let it wait until it is told to begin"] {
        assert!(why.out.contains(words), "{words:?} is missing in {why:?}");
        assert!(rig.log().contains(words), "{words:?} is missing in {}", rig.log());
    }
    assert!(!rig.log().contains("No such process"), "{}", rig.log());
}

/// sd_watchdog_enabled(3) and sd_listen_fds(3) look whether they are meant.
#[test]
fn a_service_is_told_its_own_pid() {
    let place = Place::new(Cgroups::None);
    let (told, socket) = (place.path("told"), place.path("socket.told"));
    let script = format!(
        "echo $WATCHDOG_USEC $WATCHDOG_PID $LISTEN_PID $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
        told.display()
    );
    let rest = format!(
        "watchdog: \"100s\", ready: Path({told:?}), sockets: [(name: \"a\", unix: {:?})]",
        socket.display().to_string()
    );
    let rig = place.shell("a", &script, &rest).start();
    let pid = rig.running("a");
    let words = fs::read_to_string(&told).expect("what it was told");
    assert_eq!(words, format!("100000000 {pid} {pid} {pid}\n"));
}
