//! The real `lifeboatctl` against a small server that answers as each case says: texts, exit codes, requests.

#[path = "cli/incidents.rs"]
mod incidents;
#[path = "cli/limits.rs"]
mod limits;
#[path = "cli/replay.rs"]
mod replay;
#[path = "cli/transient.rs"]
mod transient;

use lifeboat::engine::action::{LimitAnswer, LimitOutcome, Reply};
use lifeboat::engine::event::{Below, ShutdownKind, Verb};
use lifeboat::engine::snapshot::Snapshot;
use lifeboat::wire::codec::{Inbox, REQUEST_BYTES_MAX, encode_error, encode_reply};
use lifeboat::wire::interface::info;
use lifeboat::wire::reply::{
    ChangeReply, ChangesReply, Difference, Effect, Empty, ErrorReply, StatusReply, TailReply, WhyReply,
    encode_outcome,
};
use lifeboat::wire::request::{ChangeVerb, Request, parse};
use serde::Serialize;
use std::borrow::Cow;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use tempfile::TempDir;

/// What the server does about a request.
enum Reaction {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes, then closes the connection.
    Close(Vec<u8>),
    /// Never answers.
    Hang,
}

type React = dyn Fn(&Request) -> Reaction + Send + Sync;

/// A server for one case. Its threads end with the test program.
struct Server {
    folder: TempDir,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn new(react: impl Fn(&Request) -> Reaction + Send + Sync + 'static) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let listener = UnixListener::bind(folder.path().join("control.sock")).expect("a socket");
        let asked = Arc::new(Mutex::new(vec![]));
        let (react, log): (Arc<React>, _) = (Arc::new(react), asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (react, log) = (react.clone(), log.clone());
                thread::spawn(move || serve(stream, &*react, &log));
            }
        });
        Self { folder, asked }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    fn asked(&self) -> Vec<Request> {
        self.asked.lock().expect("no thread panicked").clone()
    }

    fn ctl(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(program(&self.socket()).args(arguments).output().expect("lifeboatctl runs"))
    }
}

fn serve(mut stream: UnixStream, react: &React, log: &Mutex<Vec<Request>>) {
    let mut inbox = Inbox::new(REQUEST_BYTES_MAX);
    let mut buffer = [0; 4096];
    loop {
        while let Some(message) = inbox.next_message().expect("the client keeps to the limit") {
            let call = parse(message).expect("the client asks rightly");
            let reaction = react(&call.request);
            log.lock().expect("no thread panicked").push(call.request);
            // The client may be gone; that is its right.
            match reaction {
                Reaction::Send(bytes) => drop(stream.write_all(&bytes)),
                Reaction::Close(bytes) => {
                    let _ = stream.write_all(&bytes);
                    return;
                }
                Reaction::Hang => {}
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => assert_eq!(inbox.feed(&buffer[..count]), count),
        }
    }
}

fn program(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboatctl"));
    command.env_clear().env("LIFEBOAT_SOCKET", socket).stdin(Stdio::null());
    command
}

/// What a person sees.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    out: String,
    err: String,
    code: i32,
}

impl Outcome {
    fn of(output: Output) -> Self {
        Self {
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
            code: output.status.code().expect("it exits"),
        }
    }

    fn check(&self, out: &str, err: &str, code: i32) {
        assert_eq!((&*self.out, &*self.err, self.code), (out, err, code));
    }
}

fn reply(parameters: &impl Serialize) -> Reaction {
    let mut bytes = vec![];
    encode_reply(&mut bytes, parameters, false).expect("it serializes");
    Reaction::Send(bytes)
}

fn outcome(reply: Reply) -> Reaction {
    let mut bytes = vec![];
    encode_outcome(&mut bytes, reply).expect("it serializes");
    Reaction::Send(bytes)
}

fn error(error: &ErrorReply) -> Reaction {
    let mut bytes = vec![];
    encode_error(&mut bytes, error).expect("it serializes");
    Reaction::Send(bytes)
}

fn fixture(case: &str) -> Snapshot {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/cli/{case}.json"));
    serde_json::from_str(&fs::read_to_string(path).expect("the fixture is there")).expect("a snapshot")
}

/// Answers all that only look, from a fixture; and the verbs with one outcome.
fn server(case: &str, verbs: Reply) -> Server {
    let snapshot = fixture(case);
    Server::new(move |request| match request {
        Request::Status | Request::Watch => reply(&StatusReply { snapshot: Cow::Borrowed(&snapshot) }),
        Request::Why { name } => match WhyReply::of(&snapshot, name) {
            Some(why) => reply(&why),
            None => error(&ErrorReply::NoSuchUnit { name: name.clone() }),
        },
        Request::Ask { name, .. } if snapshot.units.iter().any(|unit| unit.name == *name) => outcome(verbs),
        Request::Ask { name, .. } => error(&ErrorReply::NoSuchUnit { name: name.clone() }),
        Request::Shutdown { .. } => reply(&Empty {}),
        Request::Limit { name, limit, below } => {
            let outcome = match (name.as_str(), below) {
                ("bus", _) => LimitOutcome::Applied,
                ("recorder", Below::Rescue) => LimitOutcome::Rescued,
                ("recorder", Below::Refuse) => LimitOutcome::BelowUse,
                ("setup", _) => LimitOutcome::OverBudget,
                ("viewer", _) => LimitOutcome::NoBound,
                _ => return error(&ErrorReply::NoSuchUnit { name: name.clone() }),
            };
            let bytes = limit.value.map(|value| 2 * value);
            reply(&LimitAnswer { current_bytes: bytes, free_bytes: Some(1 << 20), ..outcome.into() })
        }
        Request::Tail { name, .. } if name == "bus" => {
            reply(&TailReply { data: "aGkAG1s=".into(), position: 7, kept_bytes: 4_096 })
        }
        Request::Tail { name, .. } => error(&ErrorReply::NoSuchUnit { name: name.clone() }),
        Request::Reread | Request::Update { .. } => reply(&changes()),
        Request::Change { how: ChangeVerb::Add, name } if name == "new" => reply(&changes()),
        Request::Change { how: ChangeVerb::Remove, name } if name == "bus" => {
            error(&ErrorReply::StillRunning { name: name.clone() })
        }
        Request::Change { name, .. } if name == "nobody" => {
            error(&ErrorReply::NoSuchUnit { name: name.clone() })
        }
        Request::Change { how: ChangeVerb::Add, .. } => {
            error(&ErrorReply::NotDone { reason: "it is there already".into() })
        }
        Request::Change { .. } => reply(&Empty {}),
        Request::GetInfo | Request::GetInterfaceDescription { .. } => reply(&info()),
    })
}

/// One of each kind; none has a process, so that nothing is waited for.
fn changes() -> ChangesReply {
    use Difference::{Available, Changed, Disappeared};
    let change =
        |name: &str, difference, effect| ChangeReply { name: name.into(), difference, effect, run: None };
    ChangesReply {
        changes: vec![
            change("bad", Changed, Effect::Refused),
            change("bus", Changed, Effect::Adjust),
            change("gone", Disappeared, Effect::Remove),
            change("new", Available, Effect::Start),
            change("recorder", Changed, Effect::Restart),
        ],
        faults: vec!["bad.ron:1:2: comand: there is no such field".into()],
    }
}

#[test]
fn other_files_in_supervisorctls_words() {
    let server = server("saved", Reply::Started);
    let fault = "lifeboatctl: bad.ron:1:2: comand: there is no such field\n";
    let reread = "bad: changed (an update leaves it as it is: it has a fault or does not fit)\n\
                  bus: changed (an update does not restart it)\ngone: disappeared\nnew: available\n\
                  recorder: changed\n";
    server.ctl(&["reread"]).check(reread, fault, 1);
    let update = "bad: ERROR (its new definition has a fault or does not fit: it is left as it is)\n\
                  bus: updated process group\ngone: removed process group\nnew: added process group\n\
                  recorder: updated process group\n";
    server.ctl(&["update"]).check(update, fault, 1);
    server.ctl(&["update", "bus", "new"]);
    let asked = server.asked();
    assert_eq!(asked.last(), Some(&Request::Update { names: vec!["bus".into(), "new".into()] }));
    server.ctl(&["add", "new"]).check("new: added process group\n", fault, 1);
    server.ctl(&["add", "bus"]).check("bus: ERROR (it is there already)\n", "", 1);
    server.ctl(&["remove", "recorder"]).check("recorder: removed process group\n", "", 0);
    server.ctl(&["remove", "bus"]).check("ERROR: process/group still running: bus\n", "", 1);
    server.ctl(&["remove", "nobody"]).check("ERROR: no such process/group: nobody\n", "", 1);
    server.ctl(&["enable", "bus"]).check("bus: enabled\n", "", 0);
    server.ctl(&["disable", "bus", "nobody"]).check(
        "bus: disabled\nnobody: ERROR (no such process)\n",
        "",
        1,
    );
    server.ctl(&["enable", "--now", "bus"]).check("bus: enabled\nbus: started\n", "", 0);
    let text = server.ctl(&["--json", "reread"]).out;
    assert!(
        text.contains(r#"{"name":"gone","difference":"Disappeared","effect":"Remove","run":null}"#),
        "{text}"
    );
    let text = server.ctl(&["--json", "remove", "bus"]).out;
    assert!(text.contains(r#""error":"org.lifeboat.Supervisor.StillRunning""#), "{text}");
}

fn ask(verb: Verb, name: &str) -> Request {
    Request::Ask { verb, name: name.into() }
}

const BUS: &str = "bus                              RUNNING   pid 71, uptime 0:02:35\n";
const RECORDER: &str =
    "recorder                         RUNNING   pid 123, uptime 0:00:05, memory 12.3/32.0 MiB, psi 0.0/0.0\n";

#[test]
fn status_lines_and_exit_codes() {
    let saved = server("saved", Reply::Started);
    saved.ctl(&["status", "bus", "recorder"]).check(&format!("{BUS}{RECORDER}"), "", 0);
    assert_eq!(saved.ctl(&["status"]).code, 0, "a task that is done is well");
    saved.ctl(&["status", "nobody", "bus"]).check(&format!("nobody: ERROR (no such process)\n{BUS}"), "", 4);
    let down = server("down", Reply::Started);
    assert_eq!(down.ctl(&["status"]).code, 3);
    assert_eq!(down.ctl(&["status", "all"]).code, 3);
    assert_eq!(down.ctl(&["status", "--no-fail"]).code, 0);
    let never = "never                                       STOPPED   Not started\n";
    down.ctl(&["status", "never"]).check(never, "", 3);
    down.ctl(&["status", "--no-fail", "never"]).check(never, "", 0);
    assert_eq!(down.ctl(&["status", "waiting", "leaver"]).code, 0, "BACKOFF and STOPPING are not down");
}

#[test]
fn the_tail_is_raw() {
    let server = server("saved", Reply::Started);
    server.ctl(&["tail", "-7", "bus"]).check("hi\0\u{1b}[", "", 0);
    server.ctl(&["tail", "-f", "bus", "stdout"]).check("==> Press Ctrl-C to exit <==\nhi\0\u{1b}[", "", 0);
    server.ctl(&["tail", "nobody"]).check("", "lifeboatctl: no unit is named \"nobody\"\n", 1);
    let asked = |bytes| Request::Tail { name: "bus".into(), bytes: Some(bytes) };
    assert_eq!(server.asked().get(..2), Some(&[asked(7), asked(1_600)][..]));
}

#[test]
fn a_degraded_machine_says_so_first() {
    let text = server("rescuing", Reply::Started).ctl(&["status"]).out;
    let starts: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(starts, ["DEGRADED:", "DEGRADED:", "bystander", "recorder"]);
}

#[test]
fn json_is_what_the_wire_said() {
    let saved = server("saved", Reply::Failed);
    let value = |arguments: &[&str]| -> serde_json::Value {
        let outcome = saved.ctl(arguments);
        assert_eq!(outcome.out.matches('\n').count(), 1, "one value, one line");
        serde_json::from_str(&outcome.out).expect("JSON")
    };
    let whole = serde_json::to_value(fixture("saved")).expect("it serializes");
    assert_eq!(value(&["status", "--json"]), whole);
    let one = value(&["--json", "status", "recorder"]);
    assert_eq!(one["units"].as_array().map(Vec::len), Some(1));
    assert_eq!(one["incidents"], whole["incidents"]);
    assert_eq!(value(&["why", "recorder", "--json"])["incidents"][0]["number"], 1);
    let starts = value(&["start", "recorder", "nobody", "--json"]);
    assert_eq!(starts[0]["outcome"], "Failed");
    assert_eq!(starts[0]["trouble"]["Exhausted"]["incident"], 1);
    assert_eq!(starts[1]["error"], "org.lifeboat.Supervisor.NoSuchUnit");
    assert_eq!(value(&["version", "--json"])["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&["shutdown", "--halt", "--json"])["shutdown"], "Halt");
}

#[test]
fn outcomes_of_start_and_stop() {
    let check = |verb: &str, reply: Reply, out: &str, code: i32| {
        let saved = server("saved", reply);
        saved.ctl(&[verb, "bus"]).check(out, "", code);
    };
    check("start", Reply::Started, "bus: started\n", 0);
    check("start", Reply::AlreadyStarted, "bus: ERROR (already started)\n", 0);
    check("start", Reply::Overruled, "bus: ERROR (overruled by another request)\n", 1);
    check("start", Reply::ShuttingDown, "bus: ERROR (the machine is going down)\n", 1);
    check("start", Reply::Failed, "bus: ERROR (abnormal termination)\n", 7);
    check("stop", Reply::Stopped, "bus: stopped\n", 0);
    check("stop", Reply::NotRunning, "bus: ERROR (not running)\n", 0);
    check("stop", Reply::Failed, "bus: ERROR (not stopped)\n", 1);
    check("restart", Reply::Started, "bus: stopped\nbus: started\n", 0);
}

#[test]
fn a_failed_start_says_why() {
    let down = server("down", Reply::Failed);
    let why = "lifeboatctl: lost: spawn error: execve: No such file or directory\n";
    down.ctl(&["start", "lost"]).check("lost: ERROR (no such file)\n", why, 1);
    let why = "lifeboatctl: finished: exited with code 3\n";
    down.ctl(&["start", "finished"]).check("finished: ERROR (abnormal termination)\n", why, 7);
    let why = "lifeboatctl: greedy: its memory does not fit the budget\n";
    down.ctl(&["start", "greedy"]).check("greedy: ERROR (does not fit the memory budget)\n", why, 1);
    let why = "lifeboatctl: hasty: Exited too quickly: started 5 times\n";
    down.ctl(&["restart", "hasty"]).check(
        "hasty: ERROR (not running)\nhasty: ERROR (abnormal termination)\n",
        why,
        7,
    );
}

#[test]
fn several_names_and_all() {
    let saved = server("saved", Reply::Started);
    saved.ctl(&["start", "bus", "nobody", "setup"]).check(
        "bus: started\nnobody: ERROR (no such process)\nsetup: started\n",
        "",
        1,
    );
    let down = server("down", Reply::Stopped);
    down.ctl(&["stop", "all"]).check(
        "a-name-that-is-longer-than-thirty-letters: stopped\nleaver: stopped\nwaiting: stopped\n",
        "",
        0,
    );
    let asked = down.asked();
    for name in ["a-name-that-is-longer-than-thirty-letters", "leaver", "waiting"] {
        assert!(asked.contains(&ask(Verb::Stop, name)), "{name}");
    }
    let saved = server("saved", Reply::Started);
    saved.ctl(&["start", "all"]).check("", "", 0);
    assert_eq!(saved.asked(), [Request::Status], "what is up or done is left alone");
    saved.ctl(&["restart", "all"]).check(
        "bus: stopped\nbus: started\nrecorder: stopped\nrecorder: started\n",
        "",
        0,
    );
    let verbs: Vec<_> = saved.asked().split_off(2);
    assert_eq!(verbs, [ask(Verb::Restart, "bus"), ask(Verb::Restart, "recorder")], "one after the other");
}

#[test]
fn refusals() {
    let refuse = |reason: ErrorReply| Server::new(move |_| error(&reason));
    let server = refuse(ErrorReply::NotPermitted {});
    server.ctl(&["stop", "bus"]).check("bus: ERROR (not permitted)\n", "", 4);
    server.ctl(&["shutdown"]).check(
        "",
        "lifeboatctl: your user may look at lifeboat, but not change it\n",
        4,
    );
    let server = refuse(ErrorReply::Busy {});
    server.ctl(&["start", "bus"]).check(
        "bus: ERROR (too many requests wait for lifeboat's answer: try again)\n",
        "",
        1,
    );
    server.ctl(&["status"]).check(
        "",
        "lifeboatctl: too many requests wait for lifeboat's answer: try again\n",
        4,
    );
}

#[test]
fn why_tells_the_story() {
    let saved = server("saved", Reply::Started);
    let outcome = saved.ctl(&["why", "recorder"]);
    assert_eq!((outcome.code, &*outcome.err), (0, ""));
    for words in ["incident 1, run 1", "14213  frozen", "ended by: lifeboat", "ended with exit code 0"] {
        assert!(outcome.out.contains(words), "{words} in\n{}", outcome.out);
    }
    saved.ctl(&["why", "nobody"]).check("", "lifeboatctl: no unit is named \"nobody\"\n", 4);
    let rescuing = server("rescuing", Reply::Started);
    assert_eq!(rescuing.ctl(&["why", "recorder"]).out.matches("\nincident ").count(), 1);
    assert_eq!(rescuing.ctl(&["why", "recorder", "--all"]).out.matches("\nincident ").count(), 2);
}

#[test]
fn watch_prints_what_changes() {
    let (first, mut second) = (fixture("saved"), fixture("saved"));
    second.generation += 1;
    second.units[0].pid = Some(99);
    let server = Server::new(move |request| {
        assert_eq!(*request, Request::Watch);
        let mut bytes = vec![];
        for (snapshot, continues) in [(&first, true), (&second, true), (&second, false)] {
            let reply = StatusReply { snapshot: Cow::Borrowed(snapshot) };
            encode_reply(&mut bytes, &reply, continues).expect("it serializes");
        }
        Reaction::Send(bytes)
    });
    let outcome = server.ctl(&["watch"]);
    let expected = BUS.replace("71", "99");
    let lines: Vec<_> = outcome.out.lines().collect();
    assert_eq!((lines.len(), lines.last().copied()), (4, Some(expected.trim_end())));
    assert_eq!(outcome.code, 0);
    assert_eq!(server.ctl(&["watch", "--json"]).out.lines().count(), 3);
}

#[test]
fn nobody_is_there() {
    let folder = TempDir::new().expect("a temporary folder");
    let missing = folder.path().join("no.sock");
    let message_with = |path: &Path, reason: &str, cure: &str| {
        format!("lifeboatctl: cannot reach lifeboat at {}: {reason}; {cure}\n", path.display())
    };
    let message = |path: &Path, reason: &str| message_with(path, reason, "is it running? (--socket PATH)");
    let run = |path: &Path, verb: &[&str]| {
        Outcome::of(program(path).args(verb).output().expect("lifeboatctl runs"))
    };
    let expected = message(&missing, "No such file or directory");
    run(&missing, &["status"]).check("", &expected, 4);
    run(&missing, &["why", "bus"]).check("", &expected, 4);
    run(&missing, &["start", "bus"]).check("", &expected, 7);
    run(&missing, &["stop", "all"]).check("", &expected, 7);
    run(&missing, &["version"]).check("", &expected, 7);
    run(Path::new("/x"), &["--socket", missing.to_str().expect("text"), "start", "a"])
        .check("", &expected, 7);
    let stale = folder.path().join("stale.sock");
    drop(UnixListener::bind(&stale).expect("a socket"));
    run(&stale, &["start", "bus"]).check("", &message(&stale, "Connection refused"), 4);
    let long = folder.path().join("x".repeat(200));
    let expected = message_with(&long, "File name too long", "a socket's path has at most 107 bytes");
    run(&long, &["status"]).check("", &expected, 4);
}

#[test]
fn a_server_that_is_not_lifeboat() {
    let check = |react: fn(&Request) -> Reaction, arguments: &[&str], words: &str, code: i32| {
        let outcome = Server::new(react).ctl(arguments);
        assert!(outcome.err.contains(words) || outcome.out.contains(words), "{outcome:?}");
        assert!(!outcome.err.contains("panicked"), "{outcome:?}");
        assert_eq!(outcome.code, code);
    };
    check(|_| Reaction::Close(vec![]), &["status"], "closed the connection", 4);
    check(|_| Reaction::Close(b"{\"para".to_vec()), &["start", "a"], "closed the connection", 1);
    check(|_| Reaction::Send(b"\0".to_vec()), &["status"], "not lifeboat's answer", 4);
    check(|_| Reaction::Send(b"HTTP/1.1 400\r\n\0".to_vec()), &["version"], "not lifeboat's answer", 1);
    check(|_| reply(&Empty {}), &["status"], "missing field `snapshot`", 4);
    check(
        |_| Reaction::Send(b"{\"error\":\"org.example.Odd\"}\0".to_vec()),
        &["shutdown"],
        "error \"org.example.Odd\"",
        1,
    );
    check(|_| Reaction::Hang, &["start", "--timeout", "50ms", "a"], "a: ERROR (no answer within 50ms)", 1);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let server = server("down", Reply::Started);
    for arguments in [&["status"][..], &["status", "--json"], &["why", "hasty"], &["--help"], &["watch"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = program(&server.socket());
        let outcome = Outcome::of(
            command.args(arguments).stdout(writer).stderr(Stdio::piped()).output().expect("it runs"),
        );
        assert_eq!(outcome.err, "", "{arguments:?}");
    }
}

#[test]
fn command_lines_that_are_wrong() {
    let server = server("saved", Reply::Started);
    for arguments in [
        &[][..],
        &["start"],
        &["why"],
        &["why", "a", "b"],
        &["frobnicate"],
        &["status", "--frob"],
        &["shutdown", "--reboot", "--halt"],
        &["start", "a", "--timeout", "soon"],
        &["start", "a", "--timeout", "0"],
        &["start", "a", "--timeout", "99999999999999999999"],
    ] {
        let outcome = server.ctl(arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}");
        assert!(outcome.err.starts_with("lifeboatctl: ") && outcome.out.is_empty(), "{outcome:?}");
    }
    assert!(server.asked().is_empty());
    assert_eq!(server.ctl(&["--help"]).code, 0);
    let version = concat!("lifeboatctl ", env!("CARGO_PKG_VERSION"), "\n");
    server.ctl(&["--version"]).check(version, "", 0);
    server.ctl(&["version"]).check(concat!(env!("CARGO_PKG_VERSION"), "\n"), "", 0);
}

#[test]
fn the_names_of_others() {
    let check = |name: &str, arguments: &[&str], how: ShutdownKind| {
        let server = server("saved", Reply::Started);
        let mut command = program(&server.socket());
        command.arg0(name).args(arguments);
        Outcome::of(command.output().expect("it runs")).check("", "", 0);
        assert_eq!(server.asked(), [Request::Shutdown { how }], "{name} {arguments:?}");
    };
    check("/sbin/reboot", &[], ShutdownKind::Reboot);
    check("poweroff", &[], ShutdownKind::PowerOff);
    check("halt", &[], ShutdownKind::Halt);
    check("shutdown", &["-r", "now"], ShutdownKind::Reboot);
    check("telinit", &["6"], ShutdownKind::Reboot);
    check("telinit", &["0"], ShutdownKind::PowerOff);
    for (verb, how) in [
        (&["shutdown"][..], ShutdownKind::PowerOff),
        (&["shutdown", "--reboot"], ShutdownKind::Reboot),
        (&["shutdown", "--halt"], ShutdownKind::Halt),
    ] {
        let server = server("saved", Reply::Started);
        server.ctl(verb).check("Shut down\n", "", 0);
        assert_eq!(server.asked(), [Request::Shutdown { how }]);
    }
    let missing = Path::new("/nonexistent/control.sock");
    let outcome = Outcome::of(program(missing).arg0("reboot").output().expect("it runs"));
    outcome.check(
        "",
        "reboot: cannot reach lifeboat at /nonexistent/control.sock: No such file or directory; is it running? \
         (--socket PATH)\n(-f does it without lifeboat)\n",
        7,
    );
    let outcome = Outcome::of(program(missing).arg0("telinit").arg("3").output().expect("it runs"));
    assert_eq!((outcome.code, outcome.err.contains("no runlevel 3")), (2, true));
}

#[test]
fn the_page_names_everything() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/lifeboatctl.md")).expect("the page is there");
    let help = server("empty", Reply::Started).ctl(&["--help"]).out;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs: Vec<_> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(verbs.len() >= 8, "{verbs:?}");
    let headings: String = page.lines().filter(|line| line.starts_with("### ")).collect();
    for verb in verbs {
        assert!(headings.contains(verb), "no section for {verb}");
        let help = server("empty", Reply::Started).ctl(&[verb, "--help"]).out;
        let options = help.split_whitespace().filter(|word| word.starts_with("--"));
        for option in options.map(|word| word.trim_end_matches([',', ']'])) {
            assert!(page.contains(&format!("`{option}")), "{verb} {option} is not on the page");
        }
    }
    for code in [0, 1, 2, 3, 4, 7] {
        assert!(page.contains(&format!("\n| {code} | ")), "exit code {code}");
    }
}
