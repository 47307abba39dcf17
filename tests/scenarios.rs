//! Every script in `tests/scenarios/` against the engine. The first digit is the theme: 1 start, 2 stop, 3 restart,
//! 4 exhaustion, 5 order, 6 requests, 7 shutdown, 8 changes of the units.
//!
//! `UPDATE=1` writes what the engine does into the scripts: read the difference before you keep it.

#[path = "support/script/mod.rs"]
mod script;
#[path = "support/state_table.rs"]
mod state_table;

use script::{Stage, parse};
use std::path::{Path, PathBuf};

/// What a script leads to: the actions of each step, and what is there at the end.
struct Played {
    actions: Vec<Vec<String>>,
    ends: Vec<String>,
    incidents: Vec<String>,
}

fn check(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let script = parse(&text)?;
    let mut stage = Stage::new(&script);
    let mut faults = Vec::new();
    let mut actions = Vec::new();
    for (number, (at_ms, what, expected)) in script.steps.iter().enumerate() {
        let (found, wrong) = stage.step(*at_ms, what);
        if let Some(wrong) = wrong {
            faults.push(format!("step {number} at {at_ms} ms, {what:?}: {wrong}"));
        }
        if found != *expected {
            faults.push(format!(
                "step {number} at {at_ms} ms, {what:?}:\n  expected {expected:?}\n  found    {found:?}"
            ));
        }
        actions.push(found);
    }
    let (ends, incidents) = stage.ends();
    if ends != script.ends {
        faults.push(format!("ends:\n  expected {:?}\n  found    {ends:?}", script.ends));
    }
    if incidents != script.incidents {
        faults.push(format!("incidents:\n  expected {:?}\n  found    {incidents:?}", script.incidents));
    }
    if std::env::var_os("UPDATE").is_some() {
        let text = updated(&text, &Played { actions, ends, incidents });
        std::fs::write(path, text).map_err(|error| error.to_string())?;
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// The script's text with other expectations. Each step, `ends` and `incidents` stand on one line each.
fn updated(text: &str, played: &Played) -> String {
    let mut actions = played.actions.iter();
    let mut lines = Vec::new();
    for line in text.lines() {
        let start = line.trim_start();
        let indent = " ".repeat(line.len() - start.len());
        let digit = start.chars().nth(1).is_some_and(|second| second.is_ascii_digit());
        let new = if start.starts_with('(') && digit {
            let head = start.split(", [").next().unwrap_or(start);
            format!("{indent}{head}, {:?}),", actions.next().unwrap_or(&Vec::new()))
        } else if start.starts_with("ends: [") {
            format!("{indent}ends: {:?},", played.ends)
        } else if start.starts_with("incidents: [") {
            format!("{indent}incidents: {:?},", played.incidents)
        } else {
            line.to_owned()
        };
        lines.push(new);
    }
    lines.join("\n") + "\n"
}

#[test]
fn every_script_is_followed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let faults: Vec<String> = paths
        .iter()
        .filter_map(|path| check(path).err().map(|fault| format!("{}:\n{fault}\n", path.display())))
        .collect();
    println!("{} scripts", paths.len());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
