//! `lifeboatctl incidents`: from lifeboat and its folder, and from a folder alone.

use super::{Outcome, Server, fixture, program, reply};
use lifeboat::engine::episode::Missing;
use lifeboat::engine::event::{Event, Time};
use lifeboat::engine::policy::RunId;
use lifeboat::engine::snapshot::{Incident, IncidentStore, Snapshot};
use lifeboat::wire::episode::Recorded;
use lifeboat::wire::incident::{Brief, MemoryStat, Rest, file_name, file_of, write_letter};
use lifeboat::wire::reply::{StatusReply, WhyReply};
use lifeboat::wire::request::Request;
use std::borrow::Cow;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a kernel").trim().to_owned()
}

fn file(number: u32, unit: &str, boot_id: &str, incident: Incident) -> Vec<u8> {
    let brief = Brief { unit, boot_id, began_unix_ms: 1_724_928_420_000, incident };
    let words = "going down\nprocedure: saved 3 records\n";
    let memory_stat = [("anon", Some(31 << 20)), ("file", Some(0)), ("kernel", None), ("pgscan", Some(7))];
    let rest = Rest { peak_bytes: Some(32 << 20), memory_stat: MemoryStat(&memory_stat), words };
    let mut letter = Vec::new();
    write_letter(&mut letter, &brief, &rest, &Recorded(Err(Missing::Busy)), [(Time(0), Event::Boot)].iter())
        .expect("JSON");
    file_of(number, &letter)
}

/// A folder with two incidents of another boot and one of this one, all like the fixture's.
fn folder() -> (TempDir, Snapshot) {
    let folder = TempDir::new().expect("a folder");
    let mut snapshot = fixture("saved");
    let incident = snapshot.incidents[0];
    for (number, boot) in [(15, "other"), (16, "other"), (17, &*boot_id())] {
        fs::write(folder.path().join(file_name(number)), file(number, "recorder", boot, incident))
            .expect("a file");
    }
    snapshot.incidents[0].number = 17;
    let mut later = snapshot.incidents[0];
    later.number = 18;
    snapshot.incidents.push(later);
    let store = IncidentStore { folder: folder.path().display().to_string(), keep: 32 };
    snapshot.system.incidents = Some(store);
    (folder, snapshot)
}

fn served(snapshot: Snapshot) -> Server {
    Server::new(move |_| reply(&StatusReply { snapshot: Cow::Borrowed(&snapshot) }))
}

fn offline(folder: &Path, arguments: &[&str]) -> Outcome {
    let nobody = Path::new("/nonexistent/control.sock");
    let folder = folder.to_str().expect("text");
    let output = program(nobody).args(["incidents", "--folder", folder]).args(arguments).output();
    Outcome::of(output.expect("lifeboatctl runs"))
}

#[test]
fn incidents_of_all_boots() {
    let (folder, snapshot) = folder();
    let server = served(snapshot);
    let list = server.ctl(&["incidents"]);
    assert_eq!((list.code, &*list.err), (0, ""), "{}", list.out);
    let lines: Vec<&str> = list.out.lines().collect();
    let [head, first, _, third, fourth] = lines[..] else { panic!("{lines:?}") };
    assert!(head.starts_with("NUMBER  WHEN (UTC)        BOOT            UNIT      CAUSE"), "{head}");
    let of_file = "15      2024-08-29 10:47  earlier         recorder  exhaustion  lifeboat  ";
    assert!(first.starts_with(of_file) && first.ends_with("ms  ended with exit code 0"), "{first}");
    assert!(
        third.contains("  this            ") && fourth.contains("  this, not kept  "),
        "{third} {fourth}"
    );
    let json = server.ctl(&["--json", "incidents"]).out;
    let kept: Vec<bool> = json
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["kept"] == true)
        .collect();
    assert_eq!(kept, [true, true, true, false]);

    let one = server.ctl(&["incidents", "show", "16"]).out;
    for words in [
        "incident 16: recorder, run 1, 2024-08-29 10:47 UTC, an earlier boot",
        "14213  frozen",
        "memory.peak: 32 MiB",
        "memory.stat when it was exhausted: anon 31 MiB, pgscan 7\n",
        "the machine then: 200 MiB available, tasks waited for a processor 12.3 % of 10 s\n",
        "freed: 27.9 MiB; left behind: 4 MiB, of them 3 MiB shmem (tmpfs or memfd pages that outlive the kill), 512 KiB page cache",
        "    procedure: saved 3 records",
    ] {
        assert!(one.contains(words), "{words} in\n{one}");
    }
    assert!(server.ctl(&["incidents", "show", "18"]).out.contains("the next reboot takes it away"));
    let file = fs::read_to_string(folder.path().join("16.json")).expect("the file");
    server.ctl(&["--json", "incidents", "show", "16"]).check(&file, "", 0);
    let none = "lifeboatctl: there is no incident 3: those on record go from 15 to 18\n";
    server.ctl(&["incidents", "show", "3"]).check("", none, 1);
    assert_eq!(server.ctl(&["incidents", "show", "x"]).code, 2);
}

/// `why` points to it, and must not know more.
#[test]
fn an_incident_that_is_not_kept_has_its_last_words() {
    let (_folder, mut snapshot) = folder();
    let run = snapshot.incidents[1].run;
    let shown = |of_unit: (u32, Option<u32>)| {
        let unit = snapshot.units.iter_mut().find(|unit| unit.name == "recorder").expect("the unit");
        (unit.run, unit.pid) = (RunId(of_unit.0), of_unit.1);
        let snapshot = snapshot.clone();
        let server = Server::new(move |request| match request {
            Request::Why { name } => {
                let last_words = "going down\n".into();
                reply(&WhyReply { last_words, ..WhyReply::of(&snapshot, name).expect("the unit") })
            }
            _ => reply(&StatusReply { snapshot: Cow::Borrowed(&snapshot) }),
        });
        let json = server.ctl(&["--json", "incidents", "show", "18"]).out;
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let text = server.ctl(&["incidents", "show", "18"]).out;
        assert_eq!(json["words"] == "going down\n", text.contains("  last words:\n    going down\n"));
        json["words"] == "going down\n"
    };
    let of_units = [(run.0, None), (run.0 + 1, Some(7)), (run.0 + 1, None), (run.0 + 2, Some(7))];
    assert_eq!(of_units.map(shown), [true, true, false, false]);
}

/// This boot counted from 1 on, as its disk came later: its number is one of an earlier boot's too, or even of another
/// lifeboat's of this boot.
#[test]
fn a_number_of_two_incidents_shows_both() {
    let (_folder, mut snapshot) = folder();
    snapshot.incidents[0].number = 16;
    snapshot.incidents[1].number = 17;
    snapshot.incidents[1].began.0 += 1;
    let server = served(snapshot);
    let list = server.ctl(&["incidents"]);
    let lines: Vec<(&str, bool, bool)> = list
        .out
        .lines()
        .skip(1)
        .map(|line| (&line[..2], line.contains("  earlier  "), line.contains("  this, not kept  ")))
        .collect();
    let expected = [
        ("15", true, false),
        ("16", true, false),
        ("16", false, true),
        ("17", false, false),
        ("17", false, true),
    ];
    assert_eq!(lines, expected, "{}", list.out);
    let shown = server.ctl(&["incidents", "show", "16"]);
    let heads: Vec<&str> = shown.out.lines().filter(|line| line.starts_with("incident 16: ")).collect();
    let [earlier, this] = heads[..] else { panic!("{heads:?}") };
    assert!(earlier.ends_with(", an earlier boot") && this.ends_with(", this boot"), "{heads:?}");
    assert!(shown.out.contains("\n\nincident 16: "), "{}", shown.out);
    let json = server.ctl(&["--json", "incidents", "show", "16"]);
    let boots: Vec<serde_json::Value> = json
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["boot_id"].take())
        .collect();
    assert_eq!(boots, ["other", &*boot_id()]);
}

#[test]
fn incidents_without_lifeboat() {
    let (folder, mut snapshot) = folder();
    let list = offline(folder.path(), &[]);
    assert_eq!((list.code, &*list.err, list.out.lines().count()), (0, "", 4));
    assert_eq!(offline(folder.path(), &["show", "15"]).code, 0);
    let empty = TempDir::new().expect("a folder");
    offline(empty.path(), &[]).check("no incidents\n", "", 0);
    let none = "lifeboatctl: there is no incident 1: none is on record\n";
    offline(empty.path(), &["show", "1"]).check("", none, 1);
    let gone = empty.path().join("gone");
    let told = format!("lifeboatctl: there is no folder {}: --folder DIR names another\n", gone.display());
    offline(&gone, &[]).check("", &told, 1);
    // Nothing was kept yet, or nothing is: what lifeboat has in memory is shown.
    for store in [Some(IncidentStore { folder: gone.display().to_string(), keep: 1 }), None] {
        snapshot.system.incidents = store;
        let list = served(snapshot.clone()).ctl(&["incidents"]);
        assert_eq!((list.code, &*list.err, list.out.lines().count()), (0, "", 3));
    }
    let output = program(&gone).args(["incidents"]).output().expect("lifeboatctl runs");
    let told = Outcome::of(output).err;
    assert!(told.contains("what is in /var/lib/lifeboat/incidents is shown"), "{told}");
}

#[test]
fn files_that_cannot_be_used_are_told() {
    let (folder, _) = folder();
    let at = |name: &str| folder.path().join(name);
    let whole = fs::read(at("16.json")).expect("the file");
    fs::write(at("16.json"), &whole[..whole.len() / 2]).expect("a file");
    fs::copy(at("15.json"), at("20.json")).expect("a file");
    fs::write(at("21.json"), vec![b'['; 1 << 20]).expect("a file");
    fs::write(at("22.json"), String::from_utf8_lossy(&whole).replace("\"format\":1", "\"format\":9"))
        .expect("a file");
    fs::create_dir(at("23.json")).expect("a folder");
    for name in ["notes.txt", ".partial-24", "024.json"] {
        fs::write(at(name), "").expect("a file");
    }
    let list = offline(folder.path(), &[]);
    assert_eq!((list.code, list.out.lines().count(), list.err.lines().count()), (0, 3, 5), "{}", list.err);
    for words in [
        "16.json is left out: it is cut or damaged",
        "20.json is left out: it holds incident 15",
        "21.json is left out: it is longer than 65536 bytes",
        "22.json is left out: a newer lifeboat wrote it (format 9, this is 1)",
        "23.json is left out: ",
    ] {
        assert!(list.err.contains(words), "{words} in\n{}", list.err);
    }
}
