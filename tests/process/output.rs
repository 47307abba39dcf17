//! What units say: it is kept, bounded, shown to those who may see it, and stops nobody.

use crate::rig::{Cgroups, Mailbox, PATIENCE, Peer, Place, Rig, pid_of};
use lifeboat::engine::event::Verb;
use lifeboat::engine::snapshot::StateName;
use lifeboat::wire::base64;
use lifeboat::wire::reply::{OutcomeReply, StatusReply, TailReply};
use lifeboat::wire::request::{Call, Request};
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

fn tail_of(rig: &Rig, name: &str) -> TailReply {
    let mut peer = rig.connect();
    peer.ask(&Request::Tail { name: name.into(), bytes: None }.into());
    peer.hear()
}

fn said(reply: &TailReply) -> Vec<u8> {
    base64::decode(&reply.data).expect("base64")
}

/// Follows a unit until it has said these words.
fn wait_for_words(rig: &Rig, name: &str, words: &str) -> Vec<u8> {
    let mut peer = rig.connect();
    peer.ask(&Call { more: true, ..Request::Tail { name: name.into(), bytes: None }.into() });
    let mut all = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while !all.windows(words.len()).any(|part| part == words.as_bytes()) {
        assert!(Instant::now() < deadline, "{words:?} is not in {:?}", String::from_utf8_lossy(&all));
        all.extend(said(&peer.hear::<TailReply>()));
    }
    all
}

fn down(rig: &Rig, name: &str) {
    rig.wait_until(name, |unit| matches!(unit.state, StateName::Exited | StateName::Done));
}

const NEVER: &str = "restart: (policy: Never)";

#[test]
fn words_are_kept_and_go_on_line_by_line() {
    let rig = Place::new(Cgroups::None)
        .shell("talks", "echo one; echo two >&2; printf 'half a line'; exec sleep 1000", "")
        .shell("mute", "echo unseen; exec sleep 1000", "output: Null")
        .start();
    assert_eq!(wait_for_words(&rig, "talks", "half"), b"one\ntwo\nhalf a line");
    assert_eq!(wait_for_words(&rig, "mute", "unseen"), b"unseen\n");
    rig.ctl(&["tail", "talks"]).check("one\ntwo\nhalf a line", 0);
    rig.ctl(&["tail", "-8", "talks"]).check("f a line", 0);
    rig.ctl(&["tail", "talks", "stderr"]).check("one\ntwo\nhalf a line", 0);
    rig.ctl(&["tail", "-0", "talks", "stdout"]).check("", 0);
    // Other lines may stand between them.
    for line in ["talks: one\n", "talks: two\n"] {
        assert!(rig.log().contains(line), "{}", rig.log());
    }
    assert!(!rig.log().contains("half a line"), "a line is shown before its end");
    rig.check_quiet("all is said");
    rig.ctl(&["stop", "talks"]).check("talks: stopped\n", 0);
    assert!(rig.log().contains("talks: half a line\n"), "{}", rig.log());
    assert!(!rig.log().contains("unseen"), "{}", rig.log());
    let why = rig.ctl(&["why", "talks"]);
    assert!(why.out.contains("  last words:\n    one\n    two\n    half a line\n"), "{why:?}");
}

#[test]
fn a_mistaken_tail_is_told() {
    let rig =
        Place::new(Cgroups::None).shell("direct", "echo straight; exec sleep 1000", "output_ring: 0").start();
    rig.running("direct");
    rig.ctl(&["tail", "nobody"]).check_refusal(&["no unit is named \"nobody\""], 1);
    rig.ctl(&["tail", "-x", "direct"]).check_refusal(&["-x"], 2);
    rig.ctl(&["tail", "direct", "stdin"]).check_refusal(&["neither stdout nor stderr"], 2);
    rig.ctl(&["tail"]).check_refusal(&["NAME"], 2);
    rig.ctl(&["tail", "direct"]).check_refusal(&["no output of direct is kept", "output_ring: 0"], 0);
    let deadline = Instant::now() + PATIENCE;
    while !rig.log().contains("straight\n") {
        assert!(Instant::now() < deadline, "{}", rig.log());
        std::thread::yield_now();
    }
    assert!(!rig.log().contains("direct: straight"), "{}", rig.log());
}

#[test]
fn the_last_words_before_a_death_are_kept_with_it() {
    let place = Place::new(Cgroups::None);
    let mut mailbox = Mailbox::new(place.path("fifo"));
    let path = mailbox.path.display().to_string();
    // The next run says more than the ring holds.
    let script = format!(
        "if [ -e {0}.later ]; then yes again | head -c 20000; echo; echo up > {0}; exec sleep 1000; fi; \
         touch {0}.later; echo 'out of cheese'; printf 'redo from start'; exit 3",
        path
    );
    let rig = place.shell("a", &script, "output_ring: \"1KiB\"").start();
    assert_eq!(mailbox.line(), "up");
    let now = wait_for_words(&rig, "a", "again\nag\n");
    assert!(!String::from_utf8_lossy(&now).contains("cheese"), "the ring holds more than it should");
    assert_eq!(tail_of(&rig, "a").kept_bytes, 1_024);
    let why = rig.ctl(&["why", "a"]);
    assert!(why.out.contains("  last words:\n    out of cheese\n    redo from start\n"), "{why:?}");
}

#[test]
fn any_bytes_come_back_and_a_terminal_is_spared() {
    let rig = Place::new(Cgroups::None)
        .shell("odd", "printf 'a\\000b\\377\\033[2Jc\\r\\n\\200\\n'; exit 1", NEVER)
        .start();
    down(&rig, "odd");
    assert_eq!(said(&tail_of(&rig, "odd")), b"a\0b\xff\x1b[2Jc\r\n\x80\n");
    let why = rig.ctl(&["why", "odd"]);
    assert!(why.out.contains("    a b\u{fffd} [2Jc\n    \u{fffd}\n"), "{why:?}");
}

#[test]
fn a_procedures_words_are_marked() {
    let rest = "shutdown: (procedure: [\"/bin/sh\", \"-c\", \"echo saved; echo all\"], on: [Stop])";
    let rig = Place::new(Cgroups::None).shell("a", "printf working; exec sleep 1000", rest).start();
    wait_for_words(&rig, "a", "working");
    rig.ctl(&["stop", "a"]).check("a: stopped\n", 0);
    rig.ctl(&["tail", "a"]).check("working\nprocedure: saved\nprocedure: all\n", 0);
    assert!(rig.log().contains("a: working\na: procedure: saved\na: procedure: all\n"), "{}", rig.log());
    let why = rig.ctl(&["why", "a"]);
    assert!(why.out.contains("    working\n    procedure: saved\n    procedure: all\n"), "{why:?}");
}

#[test]
fn a_flood_slows_only_itself() {
    let rig = Place::new(Cgroups::None)
        .shell("flood", "yes | head -c 100000000; echo over; exec sleep 1000", "output: Null")
        .shell("calm", "exec sleep 1000", "")
        .start();
    rig.running("flood");
    rig.running("calm");
    // All of this is done in the turns between two parts of the flood.
    let mut peer = rig.connect();
    let (mut answered, mut before_the_end) = (0, 0);
    while tail_of(&rig, "flood").position < 100_000_000 || answered < 20 {
        answered += 1;
        before_the_end = tail_of(&rig, "flood").position;
        peer.ask(&Request::Status.into());
        let _: StatusReply<'static> = peer.hear();
        peer.ask(&Request::Ask { verb: Verb::Restart, name: "calm".into() }.into());
        let _: OutcomeReply = peer.hear();
    }
    assert!(answered >= 20, "{answered} restarts of another unit; {before_the_end} bytes at the last");
    let end = wait_for_words(&rig, "flood", "over\n");
    assert!(end.len() <= 4_096, "{} bytes are kept", end.len());
    rig.check_quiet("the flood is over");
}

#[test]
fn an_endless_flood_leaves_room_for_everybody() {
    let rig = Place::new(Cgroups::None)
        .shell("flood", "exec yes", "output: Null")
        .shell("calm", "exec sleep 1000", "")
        .start();
    rig.running("flood");
    rig.running("calm");
    let began = tail_of(&rig, "flood").position;
    // Of calls that are there at once each turn answers one. A turn hears 16 KiB, and so does the call itself.
    let mut peer = rig.connect();
    peer.ask_all(&vec![Call::from(Request::Tail { name: "flood".into(), bytes: Some(0) }); 200]);
    let positions: Vec<u64> = (0..200).map(|_| peer.hear::<TailReply>().position).collect();
    let most = positions.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(most <= Some(32 << 10), "{most:?} bytes of the flood between two answers");
    for _ in 0..20 {
        rig.ctl(&["restart", "calm"]).check("calm: stopped\ncalm: started\n", 0);
    }
    assert!(tail_of(&rig, "flood").position > began, "the flood stands still");
    rig.ctl(&["stop", "flood"]).check("flood: stopped\n", 0);
    rig.check_quiet("the flood is over");
}

#[test]
fn a_closed_output_and_many_runs_leave_no_descriptor() {
    let rig = Place::new(Cgroups::None)
        .shell("closes", "exec >&- 2>&-; exec sleep 1000", "")
        .shell("a", "echo up; exec sleep 1000", "restart: (limit: (starts: 1000))")
        .start();
    rig.running("closes");
    wait_for_words(&rig, "a", "up");
    rig.check_quiet("one has closed its output");
    let files = rig.open_files();
    for _ in 0..50 {
        rig.ctl(&["restart", "a"]).check("a: stopped\na: started\n", 0);
    }
    rig.check_quiet("50 restarts");
    assert_eq!(rig.open_files(), files);
}

#[test]
fn what_outlives_a_run_is_heard_until_the_next_one() {
    let place = Place::new(Cgroups::None);
    let mut mailbox = Mailbox::new(place.path("fifo"));
    let path = mailbox.path.display().to_string();
    // Without cgroups a session of its own hides from the end of the run.
    let script = format!(
        "n=1; [ -e {0}.ran ] && n=2; : > {0}.ran; setsid sh -c 'trap \"\" PIPE; echo up > {0}; read line < {0}.go'$n'; \
         echo late; echo $? > {0}; read line < {0}.go'$n'; echo later; echo $? > {0}' & exec sleep 1000",
        path
    );
    // One for each run.
    let go = ["fifo.go1", "fifo.go2"].map(|name| Mailbox::new(place.path(name)));
    let rig = place.shell("a", &script, "restart: (policy: Never)").start();
    assert_eq!(mailbox.line(), "up");
    let pid = rig.running("a");
    kill(pid_of(pid), Signal::SIGKILL).expect("a kill");
    rig.wait_until("a", |unit| unit.state == StateName::Exited);
    fs::write(&go[0].path, "go\n").expect("a line");
    assert_eq!(mailbox.line(), "0");
    assert_eq!(said(&tail_of(&rig, "a")), b"late\n");
    let files = rig.open_files();
    rig.ctl(&["start", "a"]).check("a: started\n", 0);
    assert_eq!(mailbox.line(), "up");
    for go in &go {
        fs::write(&go.path, "go\n").expect("a line");
    }
    let mut codes = [mailbox.line(), mailbox.line()];
    codes.sort();
    assert_eq!(codes, ["0", "1"], "only the new run has a pipe that is open");
    assert_eq!(rig.open_files(), files, "one pipe has taken the other's place");
}

#[test]
fn a_follower_hears_it_as_it_comes() {
    let place = Place::new(Cgroups::None);
    let go = Mailbox::new(place.path("fifo"));
    let script = format!("echo one; read line < {}; echo two; exec sleep 1000", go.path.display());
    let rig = place.shell("a", &script, "").start();
    wait_for_words(&rig, "a", "one");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboatctl"));
    command.arg("--socket").arg(rig.socket()).args(["tail", "-f", "a"]).stdout(Stdio::piped());
    let mut child = command.spawn().expect("lifeboatctl runs");
    let mut lines = BufReader::new(child.stdout.take().expect("its words")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("==> Press Ctrl-C to exit <=="));
    assert_eq!(lines.next().as_deref(), Some("one"));
    fs::write(&go.path, "go\n").expect("a line");
    assert_eq!(lines.next().as_deref(), Some("two"));
    rig.check_quiet("somebody follows");
    child.kill().expect("its end");
    child.wait().expect("its status");
    rig.check_quiet("nobody follows");
    // One who does not read costs nobody anything.
    let mut lazy = rig.connect();
    lazy.ask(&Call { more: true, ..Request::Tail { name: "a".into(), bytes: None }.into() });
    rig.ctl(&["restart", "a"]);
    let _: Peer = lazy;
}

#[test]
fn what_units_say_is_not_for_everybody() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let rig = Place::new(Cgroups::None).shell("a", "echo secret; exit 1", NEVER).start();
    down(&rig, "a");
    fs::set_permissions(rig.place.folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder");
    let program = rig.place.path("lifeboatctl");
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_lifeboatctl")).arg(&program).status();
    assert!(copied.expect("cp runs").success());
    for verb in ["tail", "why"] {
        let mut command = Command::new(&program);
        command.arg("--socket").arg(rig.socket()).args([verb, "a"]).uid(65_534).gid(65_534);
        let said = crate::rig::Said::of(&command.output().expect("lifeboatctl runs"));
        assert!(!said.out.contains("secret"), "{said:?}");
        assert_eq!(said.code, Some(if verb == "tail" { 4 } else { 0 }), "{said:?}");
        assert!(rig.ctl(&[verb, "a"]).out.contains("secret"), "{verb}");
    }
}

/// Looks again and again, for what has no event.
fn until(what: &str, rig: &Rig, look: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < deadline, "{what}; the log:\n{}", rig.log());
        std::thread::yield_now();
    }
}

#[test]
fn a_log_file_is_bounded_and_outlives_the_runs() {
    let place = Place::new(Cgroups::None);
    let path = place.path("a.log");
    let file = format!("output: File((path: {path:?}, max_bytes: \"4KiB\", keep: 2))");
    // 300 lines of 31 bytes: two files and a part of a third.
    let script =
        "i=0; while [ $i -lt 300 ]; do printf '%030d\\n' $i; i=$((i+1)); done; echo end; exec sleep 1000";
    let rig = place.shell("a", script, &file).start();
    let text = |name: &str| fs::read_to_string(rig.place.path(name)).unwrap_or_default();
    until("the log has no end", &rig, || text("a.log").ends_with("end\n"));
    let all = [text("a.log.2"), text("a.log.1"), text("a.log")];
    assert!(all.iter().all(|part| part.len() <= 4_096), "{:?}", all.each_ref().map(String::len));
    let all = all.concat();
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!((lines.len(), lines.first().copied()), (301, Some("000000000000000000000000000000")));
    assert!(!rig.place.path("a.log.3").exists());
    assert!(!rig.log().contains("a: end"), "it is on the console too");
    rig.check_quiet("a log is written");
    let files = rig.open_files();
    for _ in 0..5 {
        rig.ctl(&["restart", "a"]).check("a: stopped\na: started\n", 0);
        wait_for_words(&rig, "a", "end\n");
    }
    rig.check_quiet("five restarts");
    assert_eq!(rig.open_files(), files);
    let mut rig = rig;
    rig.signal(Signal::SIGTERM);
    assert_eq!(rig.end().code(), Some(0));
    let last = fs::read_to_string(rig.place.path("a.log")).expect("the log");
    assert!(last.ends_with("end\n"), "{last}");
}

#[test]
fn a_log_that_cannot_be_written_stops_nobody() {
    let place = Place::new(Cgroups::None);
    let (missing, path) = (place.path("none/a.log"), place.path("b.log"));
    let rig = place
        .shell("a", "echo one; echo two; exec sleep 1000", &format!("output: File(path: {missing:?})"))
        .shell("b", "echo one; exec sleep 1000", &format!("output: File((path: {path:?}))"))
        .shell("full", "echo one; echo two; exec sleep 1000", "output: File((path: \"/dev/full\"))")
        .start();
    for words in [
        "a: lines are lost: cannot write",
        "/none/a.log: No such file or directory (os error 2); make its folder, or name another path in ",
        "/units/a.ron:1: output",
        "full: lines are lost: cannot write /dev/full: No space left on device (os error 28); make room there",
    ] {
        until(words, &rig, || rig.log().contains(words));
    }
    assert_eq!(wait_for_words(&rig, "a", "two"), b"one\ntwo\n");
    assert_eq!(wait_for_words(&rig, "full", "two"), b"one\ntwo\n");
    assert_eq!(rig.log().matches("lines are lost: cannot write").count(), 2, "{}", rig.log());
    rig.running("a");
    until("no log", &rig, || fs::read_to_string(&path).is_ok_and(|text| text == "one\n"));
    // Somebody kills the writers; the next start makes new ones.
    let is_writer = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let place = rig.place.folder.path().to_string_lossy().into_owned();
        let words = String::from_utf8_lossy(&words).into_owned();
        words.contains("--write-log") && words.contains(&place)
    };
    let writers = || -> Vec<i32> {
        let all = procfs::process::all_processes().expect("/proc").flatten().map(|process| process.pid);
        all.filter(is_writer).collect()
    };
    assert_eq!(writers().len(), 3, "one for each unit in the folder");
    for pid in writers() {
        kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("a kill");
    }
    until("the old writers live", &rig, || writers().is_empty());
    rig.ctl(&["restart", "b"]).check("b: stopped\nb: started\n", 0);
    wait_for_words(&rig, "b", "one\none\n");
    rig.ctl(&["restart", "b"]).check("b: stopped\nb: started\n", 0);
    until("no new writer", &rig, || fs::read_to_string(&path).is_ok_and(|text| text.ends_with("one\none\n")));
    rig.check_quiet("a writer was killed");
}
