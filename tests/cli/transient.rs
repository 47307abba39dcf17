//! `lifeboatctl run` and `adopt`: what becomes of the file of a unit of this boot.

use super::{Outcome, Reaction, Server, error, fixture, outcome, program, reply};
use lifeboat::engine::action::Reply;
use lifeboat::engine::snapshot::UnitView;
use lifeboat::wire::reply::{ChangesReply, Empty, ErrorReply, StatusReply};
use lifeboat::wire::request::{ChangeVerb, Request};
use rustix::fs::{FlockOperation, flock};
use std::borrow::Cow;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Knows the fixture's units, takes one unit in and no second one, and does about the rest as the case says.
fn server(other: impl Fn(&Request) -> Reaction + Send + Sync + 'static) -> Server {
    let (snapshot, added) = (Mutex::new(fixture("saved")), AtomicUsize::new(0));
    Server::new(move |request| match request {
        Request::Status => {
            reply(&StatusReply { snapshot: Cow::Borrowed(&snapshot.lock().expect("no panic")) })
        }
        Request::Change { how: ChangeVerb::Add, name } if added.fetch_add(1, Ordering::Relaxed) == 0 => {
            thread::sleep(Duration::from_millis(300));
            let mut known = snapshot.lock().expect("no panic");
            let unit = UnitView { name: name.clone(), ..known.units[0].clone() };
            known.units.push(unit);
            reply(&ChangesReply { changes: vec![], faults: vec![] })
        }
        Request::Change { how: ChangeVerb::Add, .. } => {
            error(&ErrorReply::NotDone { reason: "it is there already".into() })
        }
        request => other(request),
    })
}

fn file_of(server: &Server, name: &str) -> PathBuf {
    server.folder.path().join("control.units").join(format!("{name}.ron"))
}

/// A process to adopt.
struct Sleep(Child);

impl Sleep {
    fn new() -> Self {
        Self(Command::new("/bin/sleep").arg("1000").spawn().expect("sleep"))
    }

    fn adopt(&self, server: &Server, timeout: &str) -> Outcome {
        let pid = self.0.id().to_string();
        server.ctl(&["adopt", &pid, "--name", "stray", "--procedure", "/bin/true", "--timeout", timeout])
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Without its file the next update would stop it, and kill the process.
#[test]
fn an_adoption_that_is_merely_late_stays() {
    let late = server(|request| match request {
        Request::Change { how: ChangeVerb::Remove, name } => {
            error(&ErrorReply::StillRunning { name: name.clone() })
        }
        _ => Reaction::Hang,
    });
    let sleep = Sleep::new();
    let said = sleep.adopt(&late, "100ms");
    assert!(file_of(&late, "stray").exists(), "{said:?}");
    assert_eq!((said.code, &*said.out), (1, "stray: ERROR (no answer within 100ms)\n"));
    for words in ["is not under guard yet", "the unit stray stays", "lifeboatctl status stray"] {
        assert!(said.err.contains(words), "{words} in {said:?}");
    }
    let refused = server(|request| match request {
        Request::Change { how: ChangeVerb::Remove, .. } => reply(&Empty {}),
        _ => outcome(Reply::Failed),
    });
    let said = sleep.adopt(&refused, "5s");
    assert!(said.code != 0 && !said.err.contains("stays"), "{said:?}");
    assert!(!file_of(&refused, "stray").exists(), "{said:?}");
}

#[test]
fn who_has_not_made_a_file_leaves_it() {
    let busy = server(|_| outcome(Reply::Started));
    let run = |server: &Server| {
        let words = ["run", "--name", "job", "--", "/bin/sleep", "1"];
        program(&server.socket())
            .args(words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("lifeboatctl runs")
    };
    let ends: Vec<_> =
        [(); 4].map(|()| run(&busy)).into_iter().map(|mut it| it.wait().expect("its end")).collect();
    assert_eq!(ends.iter().filter(|end| end.success()).count(), 1, "{ends:?}");
    let folder = fs::read_dir(file_of(&busy, "job").parent().expect("its folder")).expect("its folder");
    let names: Vec<_> = folder.map(|entry| entry.expect("a file").file_name()).collect();
    assert_eq!(names, ["job.ron"], "nothing else is left");

    let idle = server(|_| outcome(Reply::Started));
    fs::create_dir(idle.folder.path().join("control.units")).expect("a folder");
    fs::write(file_of(&idle, "job"), "another's").expect("its file");
    let at_work = fs::File::open(file_of(&idle, "job")).expect("its file");
    flock(&at_work, FlockOperation::LockExclusive).expect("a lock");
    let said = idle.ctl(&["run", "--name", "job", "--", "/bin/sleep", "1"]);
    assert!(said.code == 1 && said.err.contains("job.ron is there already"), "{said:?}");
    assert!(said.err.contains("take another name with --name"), "{said:?}");
    assert_eq!(fs::read_to_string(file_of(&idle, "job")).expect("its file"), "another's");
    assert_eq!(idle.asked(), [Request::Status]);
}

/// Its lifeboatctl was killed before lifeboat knew the unit.
#[test]
fn a_file_that_was_left_behind_is_taken_over() {
    let idle = server(|_| outcome(Reply::Started));
    fs::create_dir(idle.folder.path().join("control.units")).expect("a folder");
    fs::write(file_of(&idle, "job"), "left behind").expect("its file");
    let said = idle.ctl(&["run", "--name", "job", "--", "/bin/sleep", "1"]);
    assert_eq!((said.code, &*said.err), (0, ""), "{said:?}");
    assert!(fs::read_to_string(file_of(&idle, "job")).expect("its file").contains("/bin/sleep"));
    // What lifeboat knows is nobody's any more.
    let said = idle.ctl(&["run", "--name", "job", "--", "/bin/sleep", "1"]);
    assert!(said.code == 1 && said.err.contains("there is a unit job already"), "{said:?}");
}

/// Of any length, with breaks and tabs, and with percent signs where the name has an argument; a file that cannot be
/// executed is not what a shell would run.
#[test]
fn any_command_becomes_a_unit() {
    let idle = server(|_| outcome(Reply::Started));
    let script = format!("date +%F\n\techo {}", "x".repeat(300));
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("sh"), "").expect("a file");
    let path = format!("{}:/bin", folder.path().display());
    let mut command = program(&idle.folder.path().join("control.sock"));
    command.env("PATH", path).args(["run", "--name", "job@1", "--", "sh", "-c", &script]);
    let said = command.output().expect("lifeboatctl");
    assert!(said.status.success(), "{said:?}");
    let loaded = lifeboat::unit::load(&[idle.folder.path().join("control.units")], None);
    assert_eq!(loaded.faults.iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
    let words: Vec<_> = loaded.units[0].command.iter().map(|word| word.to_string_lossy()).collect();
    assert_eq!(words, ["/bin/sh", "-c", &script]);
}

/// Nothing is written and nobody is asked.
#[test]
fn a_command_line_that_cannot_be_meant_is_refused() {
    let idle = server(|_| outcome(Reply::Started));
    let check = |words: &[&str], told: &str| {
        let said = idle.ctl(&[&["run"], words, &["--", "/bin/sleep", "1"]].concat());
        assert!(said.code == 2 && said.err.contains(told), "{words:?}: {said:?}");
    };
    let cure = "use letters, digits, _ . @ and -, beginning with a letter or a digit";
    check(&["--name", "a b"], &format!("`a b` cannot be a unit's name: a unit's name has no ` `; {cure}"));
    check(&["--name", "all"], &format!("`all` means every unit to lifeboatctl; {cure}"));
    check(&["--name", ".."], &format!("a unit's name begins with a letter or a digit; {cure}"));
    check(&["--name", "a/b"], &format!("a unit's name has no `/`; {cure}"));
    check(&["--name", "a@"], "a name that ends with @ is a template's");
    check(&["--deadline", "1s"], "--procedure <COMMAND>");
    check(&["--procedure-memory", "1MiB"], "--procedure <COMMAND>");
    check(&["--procedure", "/bin/true"], "--memory-max <SIZE>");
    assert_eq!(idle.asked(), []);
    assert!(!idle.folder.path().join("control.units").exists());
}

/// `limit` changes a bound that is there; it makes none.
#[test]
fn a_units_own_service_is_bounded_by_its_unit() {
    let sleep = Sleep::new();
    for (bounded, cure) in [
        ("recorder", "bound that by `lifeboatctl limit recorder memory.max=SIZE`"),
        ("bus", "give that unit `memory: (max: \"SIZE\")` in its file, and `lifeboatctl update`"),
    ] {
        let mut snapshot = fixture("saved");
        let unit = snapshot.units.iter_mut().find(|unit| unit.name == bounded).expect("the unit");
        unit.pid = Some(sleep.0.id());
        assert_eq!(unit.memory.is_some(), bounded == "recorder");
        let server = Server::new(move |_| reply(&StatusReply { snapshot: Cow::Borrowed(&snapshot) }));
        let said = sleep.adopt(&server, "1s");
        assert!(said.code == 1 && said.err.contains(cure), "{said:?}");
    }
}
