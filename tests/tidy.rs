//! What a reader may rely on in every file of this repository, and what the documents promise about its tests.

use std::collections::BTreeSet;
use std::path::Path;

const LINES_MAX: usize = 600;
/// rustfmt keeps code to 110; it leaves comments and texts alone, and those may be a little wider.
const WIDTH_MAX: usize = 120;

/// The one example that calls the kernel directly, and the guests' program that maps a file as its code.
const UNSAFE_ELSEWHERE: [&str; 2] = ["examples/recorder/", "tests/vm/guest/thrash.rs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below, with its path from the root; build products and git's own are left out.
fn files(below: &str, endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_symlink() || ["target", ".git", "corpus", "fixtures"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending))
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                found.push((from_root(&path), text));
            }
        }
    }
    found.sort();
    found
}

fn from_root(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

fn document(name: &str) -> String {
    std::fs::read_to_string(root().join(name))
        .unwrap_or_else(|error| panic!("{name} is missing ({error}); write it: this test reads it"))
}

/// Fails with all faults at once.
fn check(what: &str, faults: Vec<String>) {
    assert!(faults.is_empty(), "{what}:\n{}", faults.join("\n"));
}

/// The text before the file's tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text)
}

/// A line without its comment and without what stands in quotes.
fn code(line: &str) -> String {
    let mut quoted = false;
    let line: String = line
        .chars()
        .filter(|&letter| {
            quoted ^= letter == '"';
            !quoted
        })
        .collect();
    line.split("//").next().unwrap_or_default().to_owned()
}

#[test]
fn files_are_short_and_lines_fit() {
    let mut faults = Vec::new();
    for (path, text) in files("", &[".rs"]) {
        let lines = without_tests(&text).lines().count();
        if lines > LINES_MAX {
            faults.push(format!("{path}: {lines} lines before its tests, {LINES_MAX} are allowed"));
        }
        for (number, line) in text.lines().enumerate() {
            let width = line.chars().count();
            if width > WIDTH_MAX && !line.contains("https://") && !line.contains('"') {
                faults.push(format!("{path}:{}: {width} wide", number + 1));
            }
        }
    }
    check("files that are too long or too wide", faults);
}

#[test]
fn unsafe_stays_in_sys() {
    let holds_unsafe =
        |line: &str| code(line).split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe");
    let faults = files("", &[".rs"])
        .into_iter()
        .filter(|(path, _)| !path.starts_with("src/sys/"))
        .filter(|(path, _)| !UNSAFE_ELSEWHERE.iter().any(|place| path.starts_with(place)))
        .flat_map(|(path, text)| {
            let lines: Vec<usize> = text
                .lines()
                .enumerate()
                .filter(|(_, line)| holds_unsafe(line))
                .map(|(at, _)| at + 1)
                .collect();
            lines.into_iter().map(move |line| format!("{path}:{line}"))
        })
        .collect();
    check("unsafe outside src/sys", faults);
}

/// The rooms of the house, and which others each may use.
const LAYERS: [(&str, &[&str]); 6] = [
    ("engine", &[]),
    ("sys", &["engine"]),
    ("unit", &["engine"]),
    ("cgroup", &["sys", "engine"]),
    ("view", &["engine"]),
    ("wire", &["engine"]),
];

/// The rooms that a file's text names, by `crate::ROOM`.
fn rooms(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().map(code) {
        for after in line.split("crate::").skip(1) {
            let names = after.strip_prefix('{').map_or(after, |list| list.split('}').next().unwrap_or(list));
            let several = after.starts_with('{');
            for name in names.split(',').take(if several { usize::MAX } else { 1 }) {
                let name: String =
                    name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                found.insert(name);
            }
        }
    }
    found
}

#[test]
fn uses_run_downward_only() {
    let mut faults = Vec::new();
    for (room, allowed) in LAYERS {
        for (path, text) in files(&format!("src/{room}"), &[".rs"]) {
            for used in rooms(&text) {
                if used != room && !allowed.contains(&used.as_str()) {
                    faults.push(format!("{path} uses crate::{used}; {room} may use {allowed:?}"));
                }
            }
        }
    }
    check("uses that run upward", faults);
}

/// What would make a decision depend on anything but the time and the events. Nothing lifts this ban.
const NOT_IN_THE_ENGINE: [&str; 12] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time",
    "log::",
    "libc::",
    "nix::",
    "rustix::",
];

#[test]
fn the_engine_is_pure() {
    let mut faults = Vec::new();
    for (path, text) in files("src/engine", &[".rs"]) {
        for line in without_tests(&text).lines().map(code) {
            let met = NOT_IN_THE_ENGINE.iter().filter(|banned| line.contains(**banned));
            faults.extend(met.map(|banned| format!("{path}: {banned} in: {}", line.trim())));
        }
    }
    check("IO, clocks or logging in the engine", faults);
}

#[test]
fn layers_are_seen_in_every_form() {
    let text =
        "use crate::engine::event;\nuse crate::{sys::poll, view};\nlet x = crate::wire::X; // crate::no\n";
    let found: Vec<String> = rooms(text).into_iter().collect();
    assert_eq!(found, ["engine", "sys", "view", "wire"]);
}

/// The words in backquotes in the last filled cell of a table row.
fn tests_of(row: &str) -> Vec<String> {
    let last = row.split('|').map(str::trim).rfind(|cell| !cell.is_empty()).unwrap_or_default();
    last.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn a_test_exists(name: &str) -> bool {
    if let Some(case) = name.strip_prefix("vm:") {
        let quoted = format!("\"{case}\"");
        return files("tests/vm", &[".rs", ".ron"]).iter().any(|(_, text)| text.contains(&quoted));
    }
    let scenario = format!("tests/scenarios/{}.ron", name.trim_end_matches(".ron"));
    if root().join(scenario).is_file() {
        return true;
    }
    let function = format!("fn {}(", name.rsplit("::").next().unwrap_or(name));
    ["src", "tests", "xtask", "examples"]
        .iter()
        .any(|below| files(below, &[".rs"]).iter().any(|(_, text)| text.contains(&function)))
}

#[test]
fn every_promise_names_a_test() {
    let specification = document("docs/SPECIFICATION.md");
    let mut numbers = BTreeSet::new();
    let mut faults = Vec::new();
    for row in specification.lines().filter(|line| line.starts_with("| P-")) {
        let number = row.split('|').nth(1).unwrap_or_default().trim().to_owned();
        let tests = tests_of(row);
        if tests.is_empty() {
            faults.push(format!("{number} names no test"));
        }
        for test in tests.iter().filter(|test| !a_test_exists(test)) {
            faults.push(format!("{number} names `{test}`, which does not exist"));
        }
        if !numbers.insert(number.clone()) {
            faults.push(format!("{number} stands there twice"));
        }
    }
    assert!(!numbers.is_empty(), "docs/SPECIFICATION.md holds no line that begins with `| P-`");
    check("docs/SPECIFICATION.md", faults);
}

#[test]
fn every_dependency_has_its_reason() {
    let contributing = document("CONTRIBUTING.md");
    let manifest = document("Cargo.toml");
    let mut faults = Vec::new();
    let mut section = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let depends = ["[dependencies]", "[dev-dependencies]", "[build-dependencies]"].contains(&section);
        if let Some((name, _)) = line.split_once('=')
            && depends
            && !name.starts_with('#')
            && !contributing.contains(&format!("`{}`", name.trim()))
        {
            faults.push(format!("`{}` has no line", name.trim()));
        }
    }
    check("CONTRIBUTING.md", faults);
}

#[test]
fn no_loose_ends_and_no_machine_paths() {
    // Written in pieces, so that this file does not find itself.
    let words = [["FIX", "ME"].concat(), ["TO", "DO"].concat(), ["X", "XX"].concat()];
    let paths = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/ho", "me/"].concat()];
    let mut faults = Vec::new();
    for (path, text) in files("", &[".rs", ".md", ".toml", ".ron", ".sh", ".yml", ".yaml"]) {
        for (number, line) in text.lines().enumerate() {
            let mut tokens = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let loose = tokens.any(|token| words.iter().any(|word| word == token));
            let path_of_a_machine = paths.iter().any(|path| line.contains(path.as_str()));
            if loose || path_of_a_machine {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    check("loose ends and paths of one machine", faults);
}
