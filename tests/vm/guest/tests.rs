//! What can be held on the host: the units of the machines, and that the cases' units are there.

use super::report;
use lifeboat::engine::budget::{default_margin_bytes, default_reserve_bytes, divide};
use lifeboat::engine::policy::UnitPolicy;
use lifeboat::engine::snapshot::Trouble;
use lifeboat::unit::{Diagnostic, Loaded, load};
use std::path::{Path, PathBuf};

/// `MemTotal` of a guest with 1312 MiB, less than a kernel leaves of it.
const TOTAL_BYTES: u64 = 1248 << 20;
/// What the image itself may hold of it.
const IMAGE_BYTES: u64 = 16 << 20;
/// What the units of the image may cost beside their limits.
const OVERHEAD_BYTES: u64 = 50 << 20;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Loads a folder as a guest would; gives the units and those that its memory has no room for.
fn loaded(folders: &[&str]) -> (Loaded, Vec<String>) {
    let folders: Vec<_> = folders.iter().map(|name| folder(name)).collect();
    let loaded = load(&folders, None);
    let mut policies: Vec<UnitPolicy> = loaded.units.iter().map(|unit| unit.policy.clone()).collect();
    let reserve = default_reserve_bytes(TOTAL_BYTES);
    let margin = default_margin_bytes(TOTAL_BYTES, IMAGE_BYTES);
    let (_, refusals) = divide(TOTAL_BYTES, reserve, margin, OVERHEAD_BYTES, &mut policies);
    (loaded, refusals.into_iter().map(|refusal| refusal.name).collect())
}

/// Users are the image's own: this machine need not have them.
fn is_of_a_user(fault: &Diagnostic) -> bool {
    fault.field == "user"
}

#[test]
fn units_are_sound_and_fit() {
    let check = |name: &str, refused: &[&str]| {
        let (loaded, outgrown) = loaded(&[name]);
        let faults: Vec<_> = loaded.faults.iter().filter(|fault| !is_of_a_user(fault)).collect();
        assert!(loaded.units.len() >= 4 && faults.is_empty(), "{name}: {faults:?}");
        assert_eq!(outgrown, refused, "{name}");
    };
    check("units", &[]);
    check("tests/vm/units", &["over-budget"]);
}

#[test]
fn bad_units_are_refused_and_spoil_nothing() {
    let (loaded, _) = loaded(&["tests/vm/units", "tests/vm/units-bad"]);
    let bad: Vec<_> =
        loaded.units.iter().filter(|unit| unit.policy.refused == Some(Trouble::BadUnit)).collect();
    let by_user = |name: &str| {
        loaded.faults.iter().any(|fault| is_of_a_user(fault) && fault.file.ends_with(format!("{name}.ron")))
    };
    let names: Vec<_> =
        bad.iter().map(|unit| unit.policy.name.as_str()).filter(|name| !by_user(name)).collect();
    assert_eq!(names, ["bad-dangling", "bad-not-ron", "bad-not-utf8"]);
}

#[test]
fn only_the_driver_starts_at_boot() {
    let (loaded, _) = loaded(&["tests/vm/units"]);
    let names =
        loaded.units.iter().filter(|unit| unit.policy.autostart).map(|unit| unit.policy.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["driver"]);
}

#[test]
fn a_line_is_one_line() {
    assert_eq!(report::one_line("not ok a: b\nc\r\n"), "not ok a: b | c\n");
    assert_eq!(report::one_line("done"), "done\n");
}
