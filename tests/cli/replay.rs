//! `lifeboatctl replay`: a file whose decisions are the same, files that were changed, and files of all kinds that have
//! nothing to replay.

use super::{Outcome, program};
use lifeboat::engine::action::Action;
use lifeboat::engine::event::{Event, Exit, LeftBehind, MemoryEvents, MemorySample, Note, Role, Time};
use lifeboat::engine::policy::{RunId, UnitId, UnitPolicy};
use lifeboat::engine::replay::replay;
use lifeboat::engine::{Engine, Plan};
use lifeboat::unit::load;
use lifeboat::wire::episode::{Found, Recorded, read_episode};
use lifeboat::wire::incident::{Brief, Rest, file_of, read, write_letter};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

const UNIT: &str = r#"(
    command: ["/bin/true"],
    memory: (max: "32MiB", warn: [(at: "90%", do: Signal("USR1"))]),
    shutdown: (procedure: ["/bin/true"], memory: "4MiB"),
    health: (command: ["/bin/true"], interval: "10s"),
)"#;

/// At so many milliseconds. The other unit fills the table before this one.
fn life() -> Vec<(u64, Event)> {
    let (unit, run) = (UnitId(1), RunId(1));
    let counted = |max, oom| Event::MemoryEvents {
        unit,
        run,
        role: Role::Service,
        counters: MemoryEvents { max, oom, ..MemoryEvents::default() },
    };
    let sampled = |bytes| Event::MemorySampled {
        unit,
        run,
        sample: MemorySample { current_bytes: bytes, unreclaimable_bytes: bytes, ..MemorySample::default() },
    };
    vec![
        (0, Event::Boot),
        (1, Event::Parked { unit, run, pid: 11 }),
        (2, Event::Spawned { unit, run, pid: 12 }),
        (5_000, Event::PressureRang { unit, run }),
        (5_001, sampled(20 * MIB)),
        (5_012, Event::Deadline),
        (5_013, sampled(21 * MIB)),
        (5_040, counted(11, 1)),
        (5_041, sampled(32 * MIB)),
        (5_060, Event::Frozen { unit, run }),
        (5_062, Event::ProcedureRunning { unit, run }),
        (5_300, Event::Exited { unit, run, role: Role::Procedure, exit: Exit::Code(0) }),
        (5_301, Event::Emptied { unit, run, role: Role::Procedure }),
        (5_302, Event::Exited { unit, run, role: Role::Service, exit: Exit::Signal(9) }),
        (5_303, Event::LeftBehind { unit, run, left: LeftBehind::default() }),
        (5_304, Event::Emptied { unit, run, role: Role::Service }),
    ]
}

fn policies() -> Vec<UnitPolicy> {
    let folder = TempDir::new().expect("a folder");
    for name in ["another", "logger"] {
        fs::write(folder.path().join(format!("{name}.ron")), UNIT).expect("a unit's file");
    }
    let loaded = load(&[folder.path().to_owned()], None);
    assert!(loaded.units.iter().all(|unit| unit.policy.refused.is_none()), "{:?}", loaded.faults);
    loaded.units.into_iter().map(|unit| unit.policy).collect()
}

/// The file of an incident of `logger`.
fn file() -> Vec<u8> {
    file_of_life(&life())
}

fn file_of_life(life: &[(u64, Event)]) -> Vec<u8> {
    let mut policies = policies();
    policies[1].autostart = true;
    assert_eq!(policies[1].name, "logger");
    let mut engine = Engine::new(policies.clone(), 8 * MIB);
    let mut plan = Plan::for_units(2);
    for (ms, event) in life {
        engine.handle(Time(ms * 1_000), *event, &mut plan);
        while let Some(action) = plan.take() {
            if let Action::KeepIncident { unit, number } = action {
                let episode = engine.episode(unit, number).expect("a slot was free");
                let incident = *engine.incident(number).expect("it is closed");
                let brief = Brief { unit: "logger", boot_id: "b", began_unix_ms: 0, incident };
                let rest = Rest::default();
                let recorded = Recorded(Ok((&policies[1], &episode)));
                let mut letter = Vec::new();
                write_letter(&mut letter, &brief, &rest, &recorded, [].iter()).expect("JSON");
                return file_of(17, &letter);
            }
        }
    }
    panic!("the incident is not closed");
}

fn replayed(text: &[u8], options: &[&str]) -> Outcome {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("17.json");
    fs::write(&path, text).expect("a file");
    let output =
        program(Path::new("/nonexistent/control.sock")).arg("replay").arg(path).args(options).output();
    Outcome::of(output.expect("lifeboatctl runs"))
}

fn changed(from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(file()).expect("text");
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn a_kept_incident_is_decided_again() {
    let found = replayed(&file(), &[]);
    assert_eq!((found.code, &*found.err), (0, ""), "{}", found.out);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/replay/kept.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &found.out).expect("the fixture");
    }
    assert_eq!(found.out, fs::read_to_string(golden).expect("the fixture"));
    let json: Value = serde_json::from_str(&replayed(&file(), &["--json"]).out).expect("JSON");
    assert_eq!((&json["same"], &json["unit"]), (&Value::Bool(true), &"logger".into()));
    assert_eq!(json["replay"]["turns"].as_array().map(Vec::len), Some(13));
}

/// With something else in its episode; other members are in another order after that.
/// Also where the writer takes its time.
#[test]
fn a_pipe_is_replayed_like_a_file() {
    let mut command = program(Path::new("/nonexistent/control.sock"));
    command.args(["--json", "replay", "/dev/stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("lifeboatctl");
    let mut pipe = child.stdin.take().expect("a pipe");
    let (first, rest) = (&file()[..100], &file()[100..]);
    pipe.write_all(first).expect("it reads");
    thread::sleep(Duration::from_millis(300));
    pipe.write_all(rest).expect("it reads");
    drop(pipe);
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success() && output.stdout.starts_with(b"{"), "{output:?}");
}

fn with(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut whole: Value = serde_json::from_slice(&file()).expect("JSON");
    change(&mut whole["replay"]["Episode"]);
    serde_json::to_vec(&whole).expect("JSON")
}

/// A file of today's layout is decided again as long as that layout stands. Where this fails and no decision has
/// changed, rows of numbers have: then `wire::episode::LAYOUT` goes up, and `UPDATE_GOLDEN=1` writes the file anew.
#[test]
fn rows_are_of_their_layout() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/replay/kept.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&kept, file()).expect("the fixture");
    }
    let text = fs::read(kept).expect("the fixture");
    assert_eq!(String::from_utf8_lossy(&file()), String::from_utf8_lossy(&text));
    let found = replayed(&text, &[]);
    assert_eq!((found.code, &*found.err), (0, ""), "{}", found.out);
}

fn differs(text: &[u8], expected: &[&str]) {
    let found = replayed(text, &[]);
    assert_eq!((found.code, &*found.err), (1, ""), "{}", found.out);
    assert!(!found.out.contains("the same: "), "{}", found.out);
    let missing: Vec<_> = expected.iter().filter(|words| !found.out.contains(**words)).collect();
    assert!(missing.is_empty(), "{missing:?} in {}", found.out);
}

/// Where the entry of this event stands.
fn place_of(episode: &Value, event: &str) -> usize {
    let entries = episode["entries"].as_array().expect("a list");
    entries.iter().position(|entry| entry["Event"][1].get(event).is_some()).expect("it is there")
}

#[test]
fn a_changed_incident_is_a_loud_difference() {
    // Another order then, no order then, another event, another limit.
    let cause = |episode: &mut Value| {
        let at = place_of(episode, "Frozen") + 1;
        let order = &mut episode["entries"][at]["Deed"];
        assert_eq!((&order[3], &order[5]), (&0.into(), &2_000.into()), "{order}");
        order[3] = 1.into();
    };
    let then = "  then: release its procedure (kernel-oom-kill, deadline 2 s)\n  now:  release its procedure (exhaustion, dead";
    differs(
        &with(cause),
        &["DIFFERENT in turn 7, at 60.0 ms: it is frozen", then, "not as lifeboat 0.1.0 wrote"],
    );
    let without = |episode: &mut Value| {
        let at = place_of(episode, "Frozen") + 1;
        episode["entries"].as_array_mut().expect("a list").remove(at);
    };
    differs(&with(without), &["DIFFERENT in turn 7", "  then: nothing\n", "  now:  release its procedure"]);
    let more = |episode: &mut Value| {
        let at = place_of(episode, "MemoryEvents");
        episode["entries"][at]["Event"][1]["MemoryEvents"]["counters"]["max"] = 12.into();
    };
    differs(
        &with(more),
        &["DIFFERENT in turn 5", "it does not stand as it stood then", "not as lifeboat 0.1.0 wrote"],
    );
    let of_evidence = changed("\"OomEvent\":{\"oom\":1}", "\"OomEvent\":{\"oom\":2}");
    let words = "  evidence\n    then: the kernel found nothing to reclaim (memory.events: oom +2)\n    now:  the kernel found nothing to reclaim (memory.events: oom +1)\n";
    differs(&of_evidence, &[words]);
    let of_time = changed("\"frozen\":5060000", "\"frozen\":null");
    differs(&of_time, &["  frozen\n    then: not at all\n    now:  at 60.0 ms\n"]);
    let of_end = changed("\"procedure\":{\"Ended\":{\"Code\":0}}", "\"procedure\":\"TimedOut\"");
    let words = "  procedure\n    then: was killed at its deadline\n    now:  ended with exit code 0\n";
    differs(&of_end, &[words]);
    let of_memory =
        changed("\"sample\":{\"current_bytes\":33554432", "\"sample\":{\"current_bytes\":33554431");
    differs(
        &of_memory,
        &["  memory\n    then: cpu_some_avg10 0, current_bytes 33554431, dirty_kib 0, psi_full_avg10 0, "],
    );
    let of_next = changed("\"next\":[1,1,100]", "\"next\":[1,3]");
    let words =
        "then: it stays down\n  now:  it starts again after 100 ms\nthe file is not as lifeboat 0.1.0";
    differs(&of_next, &["DIFFERENT in what comes", words]);
    // What no decision and no state rests on.
    let of_boot = changed("\"reserve_bytes\":8388608", "\"reserve_bytes\":8388609");
    differs(&of_boot, &["CHANGED: the file is not as lifeboat wrote it. Of what it says now: 13 turns"]);
}

/// Nothing but the seal knows every byte.
#[test]
fn no_number_of_an_episode_changes_unseen() {
    let text = file();
    let whole = String::from_utf8(text.clone()).expect("text");
    let sealed =
        whole.find("\"replay_by\"").expect("a seal")..whole.find("\"events_left_out\"").expect("events");
    let mut seen = 0;
    for at in sealed.filter(|at| text[*at].is_ascii_digit()) {
        let mut changed = text.clone();
        changed[at] = if changed[at] == b'9' { b'1' } else { changed[at] + 1 };
        let found = read_episode(&changed);
        assert!(!found.is_ok_and(|found| found.is_as_written), "byte {at}: {}", changed[at]);
        seen += 1;
    }
    assert!(seen > 500, "{seen} digits");
    let laid_out = whole.replace(",\"", ",\n  \"");
    assert!(read_episode(laid_out.as_bytes()).expect("the same").is_as_written);
}

/// More happens during its rescue than has room.
#[test]
fn a_cut_incident_is_not_the_same() {
    let mut long = life();
    let at =
        long.iter().position(|(_, event)| matches!(event, Event::ProcedureRunning { .. })).expect("it runs");
    let alive = Event::Notified { unit: UnitId(1), run: RunId(1), note: Note::Alive };
    for ms in 0..200 {
        long.insert(at + 1 + ms, (5_063 + ms as u64, alive));
    }
    differs(&file_of_life(&long), &["NOT WHOLE: 15", "there was no room to record what came then"]);
    let json: Value = serde_json::from_str(&replayed(&file_of_life(&long), &["--json"]).out).expect("JSON");
    assert_eq!((&json["same"], &json["replay"]["end"]), (&Value::Bool(false), &"Cut".into()));
}

#[test]
fn a_file_that_has_nothing_to_replay_says_why() {
    let check = |text: &[u8], expected: &str| {
        let found = replayed(text, &[]);
        assert_eq!((found.code, &*found.out), (2, ""), "{}", found.err);
        assert!(
            found.err.contains("17.json: nothing to replay: ") && found.err.contains(expected),
            "{}",
            found.err
        );
        assert_eq!(found.err.lines().count(), 1, "{}", found.err);
    };
    check(b"", "it is cut or damaged");
    check(&file()[..2_000], "it is cut or damaged");
    check(&changed("\"replay\":{", "\"other\":{"), "kept nothing to replay");
    check(
        &changed("\"replay\":{\"Episode\":{", "\"replay\":{\"Missing\":\"Busy\"},\"x\":{\"E\":{"),
        "too many units",
    );
    check(&changed("\"layout\":7", "\"layout\":1"), "does not understand how (its layout is not 7)");
    check(&changed("\"checkpoints\":[[", "\"checkpoints\":[[7,"), "does not understand how (");
    check(&changed("\"entries\":[", "\"entries\":[],\"more\":["), "no turn that could be decided again");
    check(&changed("\"entries\":[", "\"entries\":[\"Elsewhere\","), "do not belong together");
    // `inherited` above `run`.
    check(&with(|episode| episode["checkpoints"][0][4] = 2.into()), "numbers that no lifeboat writes");
}

/// Every number, choice and list of a file is made something else, and each time the replay comes to its end.
#[test]
fn hostile_incidents_come_to_an_end() {
    let whole: Value = serde_json::from_slice(&file()).expect("JSON");
    let record = read(&file()).expect("a whole file").incident;
    let mut places = Vec::new();
    leaves(&whole["replay"], "/replay".into(), &mut places);
    let mut decided = 0;
    let others: Vec<Value> = [0, 1, 255, 65_535, u64::from(u32::MAX), 1 << 62, u64::MAX]
        .map(Value::from)
        .into_iter()
        .chain([Value::from(-1), Value::Null, Value::Bool(true), Value::Bool(false), "Killing".into()])
        .collect();
    for (place, other) in places.iter().flat_map(|place| others.iter().map(move |other| (place, other))) {
        let mut changed = whole.clone();
        *changed.pointer_mut(place).expect("it was there") = other.clone();
        let text = serde_json::to_vec(&changed).expect("JSON");
        if let Ok(Found { episode, .. }) = read_episode(&text) {
            decided += u32::from(replay(&episode, &record).is_ok());
        }
    }
    assert!(places.len() > 250 && decided > 1_000, "{} places, {decided} replays", places.len());
}

fn leaves(value: &Value, place: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| leaves(value, format!("{place}/{name}"), found));
        }
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(at, value)| leaves(value, format!("{place}/{at}"), found));
        }
        _ => found.push(place),
    }
}

/// What `--json incidents show` prints of an incident that only lifeboat's memory has is not damaged.
#[test]
fn a_record_that_was_not_kept_has_nothing_to_replay() {
    let whole: Value = serde_json::from_slice(&file()).expect("JSON");
    let bare = serde_json::json!({ "number": 17, "unit": "logger", "incident": whole["incident"] });
    let found = replayed(&serde_json::to_vec(&bare).expect("JSON"), &[]);
    let told = "nothing to replay: it is the record of an incident that was not kept, which has no events";
    assert!(found.code == 2 && found.err.contains(told), "{found:?}");
}
