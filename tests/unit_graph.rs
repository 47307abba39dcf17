//! What unit files say of each other: instances of templates, and the unit to boot. The faults are among the fixtures
//! of `unit_files.rs`.

use lifeboat::engine::policy::{Kind, OnRequirementRestart};
use lifeboat::unit::{self, BootWish, Loaded, Unit, Wishes};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use tempfile::TempDir;

/// A folder with these units.
fn folder(units: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in units {
        fs::write(dir.path().join(format!("{name}.ron")), text).unwrap();
    }
    dir
}

fn load(dir: &Path, wishes: &Wishes) -> Loaded {
    let system = dir.join("../system.ron");
    unit::load_with(&[dir.to_owned()], fs::exists(&system).unwrap().then_some(system.as_path()), wishes)
}

fn named<'a>(loaded: &'a Loaded, name: &str) -> &'a Unit {
    loaded.units.iter().find(|unit| unit.policy.name == name).unwrap_or_else(|| panic!("no {name}"))
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.units.iter().map(|unit| unit.policy.name.as_str()).collect()
}

#[test]
fn relations_are_read_in_full() {
    let dir = folder(&[
        (
            "a",
            r#"(kind: Target, requires: ["b", "b"], wants: ["c"], after: ["c"], before: ["d"], conflicts: ["d"],
                on_requirement_restart: Restart, autostart: false)"#,
        ),
        ("b", r#"(command: ["/b"])"#),
        ("c", r#"(command: ["/b"], conditions: [Not(PathExists("/x")), Container])"#),
        ("d", r#"(command: ["/b"])"#),
    ]);
    let loaded = load(dir.path(), &Wishes::default());
    assert_eq!(loaded.faults, []);
    let policy = &named(&loaded, "a").policy;
    let ids = |list: &[lifeboat::engine::policy::UnitId]| list.iter().map(|id| id.0).collect::<Vec<_>>();
    assert_eq!((policy.kind, policy.on_requirement_restart), (Kind::Target, OnRequirementRestart::Restart));
    assert_eq!((ids(&policy.requires), ids(&policy.wants), ids(&policy.after)), (vec![1], vec![2], vec![2]));
    assert_eq!((ids(&policy.before), ids(&policy.conflicts)), (vec![3], vec![3]));
    assert_eq!(named(&loaded, "c").policy.conditions, ["Not(PathExists(\"/x\"))", "Container"]);
}

#[test]
fn instances_exist_where_they_are_listed_linked_named_or_wished() {
    let dir = folder(&[
        (
            "getty@",
            r#"(command: ["/bin/getty", "%i"], description: "100%% %i", instances: ["listed"], wants: ["dev@%i"])"#,
        ),
        (
            "dev@",
            r#"(command: ["/bin/dev"], environment: {"PORT_%i": "%i"}, ready: Path("/dev/%i"), working_directory: "/%i")"#,
        ),
        ("getty@own", r#"(command: ["/bin/own", "%i"])"#),
        ("user", r#"(command: ["/bin/user"], after: ["getty@named"])"#),
        ("plain", r#"(command: ["/bin/plain", "100%"])"#),
    ]);
    symlink("getty@.ron", dir.path().join("getty@linked.ron")).unwrap();
    let loaded =
        load(dir.path(), &Wishes { instances: vec!["getty@wished".into(), "nothing@x".into()], boot: None });
    assert_eq!(loaded.faults, []);
    let expected = [
        "dev@linked",
        "dev@listed",
        "dev@named",
        "dev@wished",
        "getty@linked",
        "getty@listed",
        "getty@named",
        "getty@own",
        "getty@wished",
        "plain",
        "user",
    ];
    assert_eq!(names(&loaded), expected);
    // Who exists only because it is named is started by who names it.
    let starts: Vec<&str> =
        names(&loaded).into_iter().filter(|name| named(&loaded, name).policy.autostart).collect();
    assert_eq!(starts, ["getty@linked", "getty@listed", "getty@own", "plain", "user"]);
    let words = |name: &str| -> Vec<String> {
        named(&loaded, name).command.iter().map(|word| word.to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(words("getty@linked"), ["/bin/getty", "linked"]);
    assert_eq!(words("getty@own"), ["/bin/own", "own"]);
    assert_eq!(words("plain"), ["/bin/plain", "100%"]);
    assert_eq!(named(&loaded, "getty@wished").policy.description, "100% wished");
    let dev = named(&loaded, "dev@named");
    assert_eq!(dev.environment, [c"PORT_named=named".to_owned()]);
    assert_eq!(dev.ready_path.as_deref(), Some(c"/dev/named"));
    assert_eq!(dev.working_directory.as_deref(), Some(c"/named"));
}

/// Each instance names a longer one; names end at 64 letters, and so does this.
#[test]
fn a_template_that_names_itself_comes_to_an_end() {
    let dir = folder(&[("a@", r#"(command: ["/bin/a"], wants: ["a@%ix"], instances: ["x"])"#)]);
    let loaded = load(dir.path(), &Wishes::default());
    assert_eq!(loaded.units.len(), 62);
    assert_eq!(loaded.faults.len(), 1, "{:?}", loaded.faults);
    // Twice as many with each letter: the table's end is the end.
    let dir = folder(&[("a@", r#"(command: ["/bin/a"], wants: ["a@%ix", "a@%iy"], instances: ["x"])"#)]);
    let loaded = load(dir.path(), &Wishes::default());
    assert_eq!(loaded.units.len(), unit::UNITS_MAX);
}

#[test]
fn the_unit_to_boot_is_chosen() {
    let units = [
        ("t", r#"(kind: Target, requires: ["a"], autostart: false)"#),
        ("a", r#"(command: ["/a"], autostart: false)"#),
        ("b", r#"(command: ["/a"])"#),
        ("broken", r#"(kind: Target, requires: ["nobody"])"#),
    ];
    let check = |by_file: Option<&str>, by_kernel: Option<&str>, starts: &[&str], told: &[&str]| {
        let root = TempDir::new().unwrap();
        let dir = root.path().join("units");
        fs::create_dir(&dir).unwrap();
        for (name, text) in units {
            fs::write(dir.join(format!("{name}.ron")), text).unwrap();
        }
        if let Some(name) = by_file {
            fs::write(root.path().join("system.ron"), format!("(boot: {name:?})")).unwrap();
        }
        let boot = by_kernel.map(|name| BootWish::of_the_kernel(name.to_owned()));
        let loaded = load(&dir, &Wishes { boot, instances: Vec::new() });
        let up: Vec<&str> =
            names(&loaded).into_iter().filter(|name| named(&loaded, name).policy.autostart).collect();
        assert_eq!(up, starts, "{by_file:?} {by_kernel:?}");
        let faults: Vec<String> = loaded.faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), told.len() + 1, "{faults:?}");
        for words in told {
            assert!(faults.iter().any(|fault| fault.contains(words)), "{words}: {faults:?}");
        }
    };
    check(None, None, &["b"], &[]);
    check(Some("t"), None, &["t"], &[]);
    check(Some("t"), Some("a"), &["a"], &[]);
    check(None, Some("t"), &["t"], &[]);
    check(
        Some("t"),
        Some("none"),
        &["t"],
        &["/proc/cmdline: lifeboat.target: there is no unit `none` to boot"],
    );
    check(Some("none"), None, &["b"], &["system.ron:1:8: boot: there is no unit `none` to boot"]);
    check(Some("broken"), None, &["b"], &["boot: `broken` has faults and cannot be booted"]);
    check(Some("none"), Some("broken"), &["b"], &["`broken` has faults", "no unit `none`"]);
}
