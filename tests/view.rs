//! Golden texts: each `tests/fixtures/cli/CASE.json` is a snapshot, `CASE.status.txt` and `CASE.why.UNIT.txt` are
//! what `view` makes of it. `UPDATE_GOLDEN=1 cargo test --test view` writes them anew; read the difference then.

use lifeboat::engine::snapshot::{Incident, KillReason, ProcedureResult, Snapshot};
use lifeboat::view::status::{self, WallOffset};
use lifeboat::view::why::{self, Story};
use lifeboat::view::words::{ProcedureWords, kill_reason};
use lifeboat::wire::reply::WhyReply;
use std::fs;
use std::path::{Path, PathBuf};

/// Boot on 29 August 2024, 10:44:00 UTC.
const WALL: WallOffset = WallOffset(1_724_928_240_000_000);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cli")
}

fn snapshot(case: &str) -> Snapshot {
    let text = fs::read_to_string(folder().join(format!("{case}.json"))).expect("the fixture is there");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{case}.json: {error}"))
}

fn status_text(case: &str) -> String {
    let snapshot = snapshot(case);
    let mut text = String::new();
    status::header(&mut text, &snapshot).expect("a String takes everything");
    status::lines(&mut text, &snapshot, &snapshot.units, WALL).expect("a String takes everything");
    text
}

fn why_text(case: &str, unit: &str) -> String {
    let snapshot = snapshot(case);
    let why = WhyReply::of(&snapshot, unit).expect("the unit is in the fixture");
    let story = Story {
        time: why.time,
        unit: &why.unit,
        incidents: &why.incidents,
        names: &why.names,
        faults: &why.faults,
        last_words: &why.last_words,
        command_words: &why.command_words,
    };
    let mut text = String::new();
    why::write(&mut text, &story, WALL, true).expect("a String takes everything");
    text
}

#[test]
fn golden_texts() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let mut cases = 0;
    for entry in fs::read_dir(folder()).expect("the fixtures are there") {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("names are text").to_owned();
        let Some(stem) = name.strip_suffix(".txt") else { continue };
        let got = match stem.split('.').collect::<Vec<_>>()[..] {
            [case, "status"] => status_text(case),
            [case, "why", unit] => why_text(case, unit),
            _ => panic!("{name}: not CASE.status.txt or CASE.why.UNIT.txt"),
        };
        cases += 1;
        if update {
            fs::write(&path, &got).expect("the golden text can be written");
        }
        let expected = fs::read_to_string(&path).expect("a readable golden text");
        if got != expected {
            wrong.push(format!("{name}: expected\n{expected}got\n{got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases >= 14, "only {cases} golden texts were found");
}

#[test]
fn columns_stay_supervisorctls() {
    // A script that splits at blanks finds the name, the state and the pid where it always did.
    let text = status_text("saved");
    let line = text.lines().find(|line| line.starts_with("recorder")).expect("a line for each unit");
    let fields: Vec<_> = line.split_whitespace().take(6).collect();
    assert_eq!(fields, ["recorder", "RUNNING", "pid", "123,", "uptime", "0:00:05,"]);
    assert_eq!(line.find("RUNNING"), Some(33));
    assert_eq!(line.find("pid"), Some(43));
}

/// One that ends well may have met its memory too, where its disk is slow.
#[test]
fn a_procedure_that_met_its_memory() {
    let told = |procedure_high| {
        let mut text = String::new();
        let incident = Incident { procedure_high, ..snapshot("saved").incidents[0] };
        why::account(&mut text, &incident).expect("a String takes everything");
        text
    };
    let line =
        "\n  its procedure met shutdown.memory 41 times: it writes faster than its disk, or needs more\n";
    assert!(told(41).contains(line), "{}", told(41));
    assert!(!told(0).contains("shutdown.memory"), "{}", told(0));
}

/// Of a unit without a procedure as of one whose procedure is for stops alone.
#[test]
fn no_procedure_for_an_exhaustion() {
    let mut incident = snapshot("saved").incidents[0];
    (incident.procedure, incident.first_procedure) = (ProcedureResult::None, None);
    let mut text = String::new();
    why::account(&mut text, &incident).expect("a String takes everything");
    let line = "\n  procedure: none ran; one for an exhaustion needs Exhaustion in shutdown.on\n";
    assert!(text.contains(line), "{text}");
    assert_eq!(ProcedureWords(ProcedureResult::None).to_string(), "none ran");
    let spent = ProcedureWords(ProcedureResult::LoanSpent).to_string();
    assert_eq!(spent, "of its own: it got its stop signal, and used up what it was lent");
    assert_eq!(kill_reason(KillReason::NoProcedure), "memory exhausted, no procedure for that");
}
