//! Unit files as people write them, good and bad. Each bad case has its expected words next to it:
//! `tests/fixtures/units/bad/NAME.ron` and `NAME.expected`, or a folder `NAME/` for cases of several files.
//! `UPDATE=1 cargo test --test unit_files` writes what is said now; read the difference before keeping it.

use lifeboat::engine::policy::{Class, Escalation, Guard, Kind, RestartWhen, UnitId};
use lifeboat::engine::snapshot::{IncidentStore, Trouble};
use lifeboat::unit::{self, Amount, FILE_BYTES_MAX, Loaded, UNITS_MAX, Unit};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/units");

/// Loads a folder; beside one that is called `units` stands `system.ron`, as in /etc/lifeboat.
fn load(dir: &Path) -> Loaded {
    let system = dir.with_file_name("system.ron");
    unit::load(&[dir.to_owned()], dir.ends_with("units").then_some(system.as_path()))
}

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn one(text: &str) -> Loaded {
    load(folder(&[("a.ron", text.as_bytes())]).path())
}

/// Every fault, without the folder it was found in, and then what became of the units.
fn told(loaded: &Loaded, dir: &Path) -> String {
    let mut text = String::new();
    for fault in &loaded.faults {
        let shown = fault.to_string().replace(&format!("{}/", dir.display()), "");
        writeln!(text, "{shown}\n").unwrap();
    }
    for unit in &loaded.units {
        writeln!(text, "{}: {:?}", unit.policy.name, unit.policy.refused).unwrap();
    }
    text
}

fn cases(kind: &str) -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = fs::read_dir(Path::new(FIXTURES).join(kind))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "ron"))
        .collect();
    cases.sort();
    cases
}

/// A case in a folder of its own, so that its words do not hold the place of the checkout.
fn staged(case: &Path) -> TempDir {
    let dir = TempDir::new().unwrap();
    let units = dir.path().join("units");
    fs::create_dir(&units).unwrap();
    let files: Vec<PathBuf> = match case.is_dir() {
        true => fs::read_dir(case).unwrap().map(|entry| entry.unwrap().path()).collect(),
        false => vec![case.to_owned()],
    };
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let target = match name.as_str() {
            "system.ron" => units.with_file_name("system.ron"),
            _ => units.join(name),
        };
        fs::copy(&file, target).unwrap();
    }
    dir
}

#[test]
fn bad_files_are_told_in_these_words() {
    let mut wrong = Vec::new();
    for case in cases("bad") {
        let dir = staged(&case);
        let now = told(&load(&dir.path().join("units")), dir.path());
        let expected = case.with_extension("expected");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &now).unwrap();
        }
        let before = fs::read_to_string(&expected).unwrap_or_default();
        if now != before {
            wrong.push(format!("{}\nexpected:\n{before}\nfound:\n{now}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn good_files_have_no_faults() {
    for case in cases("good") {
        let dir = staged(&case);
        let loaded = load(&dir.path().join("units"));
        assert_eq!(loaded.faults, [], "{}", case.display());
        assert!(!loaded.units.is_empty(), "{}", case.display());
        assert!(loaded.units.iter().all(|unit| unit.policy.refused.is_none()), "{}", case.display());
    }
}

#[test]
fn the_shipped_units_have_no_faults() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("units");
    let loaded = unit::load(&[units], None);
    let faults: Vec<String> = loaded.faults.iter().map(ToString::to_string).collect();
    assert!(faults.is_empty() && !loaded.units.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn a_canary_is_read_with_its_ballast() {
    let loaded = one(&fs::read_to_string(Path::new(FIXTURES).join("good/canary.ron")).unwrap());
    let memory = loaded.units[0].policy.memory.unwrap();
    assert_eq!((memory.guard, memory.ballast_bytes), (Guard::Canary, Some(2 << 20)));
    let loaded = one("(command: [\"/a\"], memory: (max: \"8MiB\", guard: Canary))");
    assert_eq!(loaded.units[0].policy.memory.unwrap().ballast_bytes, None);
}

#[test]
fn a_full_unit_is_read_in_full() {
    let dir = staged(&Path::new(FIXTURES).join("good/full"));
    let loaded = load(&dir.path().join("units"));
    let [bus, recorder] = loaded.units.as_slice() else { panic!("{:?}", loaded.units) };
    assert_eq!(bus.policy.kind, Kind::Task);
    let policy = &recorder.policy;
    assert_eq!((policy.name.as_str(), policy.kind, policy.autostart), ("recorder", Kind::Service, false));
    assert_eq!(policy.description, "Keeps the last minute in memory");
    assert_eq!((&policy.after, &policy.requires), (&vec![UnitId(0)], &vec![UnitId(0)]));
    let memory = policy.memory.unwrap();
    assert_eq!((memory.max_bytes, memory.class, memory.guard), (32 << 20, Class::Guaranteed, Guard::None));
    assert_eq!(policy.utility, 80);
    let procedure = policy.procedure.unwrap();
    assert_eq!((procedure.on_exhaustion, procedure.on_stop), (true, true));
    assert_eq!(
        (procedure.deadline_ms, procedure.memory_bytes, procedure.then),
        (90_000, 2 << 20, Some(Escalation::Stop))
    );
    assert_eq!((policy.stop_signal, policy.stop_timeout_ms), (10, 1_500));
    let restart = policy.restart;
    assert_eq!((restart.when, restart.delay_ms, restart.max_delay_ms), (RestartWhen::OnFailure, 200, 20_000));
    assert_eq!((restart.limit_starts, restart.limit_within_ms), (5, 120_000));
    let strings =
        |list: &[std::ffi::CString]| list.iter().map(|s| s.to_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(strings(&recorder.command), ["/usr/bin/recorder", "--ring", "/run/ring"]);
    assert_eq!(strings(&recorder.procedure), ["/usr/bin/recorder-flush", "/run/ring"]);
    assert_eq!(strings(&recorder.environment), ["LANG=C", "RATE=100"]);
    assert_eq!(recorder.working_directory.as_deref(), Some(c"/var"));
    assert_eq!((recorder.pids_max, recorder.output), (Some(64), unit::Output::Null));
    let system = loaded.system;
    assert_eq!(system.hostname.as_deref(), Some("buoy-7"));
    assert_eq!(
        (system.reserve, system.margin),
        (Some(Amount::Bytes(12 << 20)), Some(Amount::Permyriad(1250)))
    );
    assert_eq!((system.reserve_bytes(64 << 20), system.margin_bytes(64 << 20, 9 << 20)), (12 << 20, 8 << 20));
    let sysctls = [("vm.overcommit_memory", "2"), ("kernel.panic", "10")];
    assert_eq!(system.sysctls, sysctls.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let store = IncidentStore { folder: "/data/incidents".into(), keep: 16 };
    assert_eq!(system.incidents, Some(store));
}

#[test]
fn defaults() {
    let loaded = one(r#"(command: ["/bin/a"])"#);
    let [Unit { policy, .. }] = loaded.units.as_slice() else { panic!("{loaded:?}") };
    assert_eq!((policy.autostart, policy.utility, policy.memory), (true, 50, None));
    assert_eq!((policy.stop_signal, policy.stop_timeout_ms), (15, 5_000));
    let restart = policy.restart;
    assert_eq!((restart.when, restart.delay_ms, restart.max_delay_ms), (RestartWhen::Always, 100, 30_000));
    assert_eq!((restart.limit_starts, restart.limit_within_ms), (10, 60_000));
    let loaded = one(r#"(command: ["/bin/a"], kind: Task)"#);
    assert_eq!(loaded.units[0].policy.restart.when, RestartWhen::Never);
    let loaded = one(r#"(command: ["/bin/a"], memory: (max: "1MiB"), shutdown: (procedure: ["/bin/b"]))"#);
    let (memory, procedure) =
        (loaded.units[0].policy.memory.unwrap(), loaded.units[0].policy.procedure.unwrap());
    assert_eq!((memory.class, memory.guard), (Class::Pool, Guard::Shield));
    assert_eq!((procedure.on_exhaustion, procedure.on_stop, procedure.then), (true, false, None));
    assert_eq!((procedure.deadline_ms, procedure.memory_bytes), (2_000, 4 << 20));
    assert_eq!(procedure.drill_every_ms, None);
}

#[test]
fn sizes() {
    let size = |text: &str| {
        let loaded = one(&format!("(command: [\"/bin/a\"], memory: (max: {text}))"));
        loaded.units[0].policy.memory.map(|memory| memory.max_bytes)
    };
    for (text, expected) in [
        ("\"32MiB\"", Some(32 << 20)),
        ("\"32 MiB\"", Some(32 << 20)),
        ("\"4M\"", Some(4 << 20)),
        ("\"4m\"", Some(4 << 20)),
        ("\"512K\"", Some(512 << 10)),
        ("\"1.5G\"", Some(3 << 29)),
        ("\"65536B\"", Some(65_536)),
        ("1048576", Some(1 << 20)),
        ("0x100000", Some(1 << 20)),
        ("1_048_576", Some(1 << 20)),
        ("\"4MB\"", None),
        ("\"4mb\"", None),
        ("\"4 KB\"", None),
        ("\"\"", None),
        ("\"MiB\"", None),
        ("\"-4M\"", None),
        ("-4", None),
        ("4.5", None),
        ("\"0\"", None),
        ("0", None),
        ("32", None),
        ("\"99999999999999TiB\"", None),
        ("999999999999999999999999", None),
        ("Some(\"4M\")", None),
        ("true", None),
        ("[]", None),
    ] {
        assert_eq!(size(text), expected, "{text}");
    }
}

#[test]
fn times_and_signals() {
    let time = |text: &str| {
        let loaded = one(&format!("(command: [\"/bin/a\"], stop: (timeout: {text}))"));
        loaded.faults.is_empty().then(|| loaded.units[0].policy.stop_timeout_ms)
    };
    for (text, expected) in [
        ("\"2s\"", Some(2_000)),
        ("\"100ms\"", Some(100)),
        ("\"1m30s\"", Some(90_000)),
        ("\"1m 30s\"", Some(90_000)),
        ("\"10m\"", Some(600_000)),
        ("\"10ms\"", Some(10)),
        ("\"9ms\"", None),
        ("\"601s\"", None),
        ("\"1M\"", None),
        ("\"1 month\"", None),
        ("\"1us\"", None),
        ("\"2\"", None),
        ("2", None),
        ("\"\"", None),
        ("\"999999999999999999999h\"", None),
    ] {
        assert_eq!(time(text), expected, "{text}");
    }
    let signal = |text: &str| {
        let loaded = one(&format!("(command: [\"/bin/a\"], stop: (signal: {text}))"));
        loaded.faults.is_empty().then(|| loaded.units[0].policy.stop_signal)
    };
    for (text, expected) in [
        ("\"TERM\"", Some(15)),
        ("\"SIGTERM\"", Some(15)),
        ("\"int\"", Some(2)),
        ("\"USR1\"", Some(10)),
        ("9", Some(9)),
        ("\"34\"", Some(34)),
        ("64", Some(64)),
        ("0", None),
        ("65", None),
        ("-1", None),
        ("\"TREM\"", None),
        ("\"SIG\"", None),
        ("TERM", None),
    ] {
        assert_eq!(signal(text), expected, "{text}");
    }
}

#[test]
fn names_of_units() {
    for (name, good) in [
        ("a", true),
        ("a_b.c@d-1", true),
        ("9", true),
        (&"n".repeat(64), true),
        (&"n".repeat(65), false),
        ("a b", false),
        ("ä", false),
        ("-a", false),
        ("a\u{1b}[2J", false),
        ("memory.max", false),
        ("cgroup.kill", false),
        ("all", false),
    ] {
        let loaded = load(folder(&[(&format!("{name}.ron"), br#"(command: ["/bin/a"])"#)]).path());
        assert_eq!(
            (loaded.units.len(), loaded.faults.len()),
            (usize::from(good), usize::from(!good)),
            "{name}"
        );
        assert!(!loaded.faults.iter().any(|fault| fault.to_string().contains('\u{1b}')));
    }
    for name in ["..ron", ".ron", ".a.ron", "a.ron~", "a.txt", "a.RON"] {
        assert_eq!(load(folder(&[(name, b"")]).path()), Loaded::default(), "{name}");
    }
}

/// What stands in for a unit's file, and what is said about it. The good unit beside it always loads.
#[test]
fn what_is_no_file_costs_itself_alone() {
    let check = |words: &str, make: &dyn Fn(&Path)| {
        let dir = folder(&[("good.ron", br#"(command: ["/bin/a"])"#)]);
        make(&dir.path().join("bad.ron"));
        let (send, receive) = mpsc::channel();
        let path = dir.path().to_owned();
        std::thread::spawn(move || drop(send.send(load(&path))));
        let loaded = receive.recv_timeout(Duration::from_secs(60)).expect("the loader waits for something");
        let states: Vec<_> = loaded.units.iter().map(|unit| unit.policy.refused).collect();
        assert_eq!(states, [Some(Trouble::BadUnit), None], "{words}");
        assert!(loaded.faults.iter().all(|fault| fault.to_string().len() < 2_048), "{words}: too long");
        let told = told(&loaded, dir.path());
        assert!(told.contains(words) && told.starts_with("bad.ron:"), "{words}: {told}");
    };
    check("the file is empty", &|path| fs::write(path, "").unwrap());
    check("the file is empty", &|path| fs::write(path, " \n\n").unwrap());
    check("there is a stray byte in line 2", &|path| fs::write(path, b"(\n\xff").unwrap());
    check("this file is larger than 256 KiB", &|path| fs::write(path, vec![b' '; 10 << 20]).unwrap());
    check("this file is larger than 256 KiB", &|path| fs::write(path, vec![b' '; 262_145]).unwrap());
    check("this link leads nowhere", &|path| symlink("/no/such/file", path).unwrap());
    check("cannot be read: ", &|path| symlink("bad.ron", path).unwrap());
    check("not a regular file", &|path| fs::create_dir(path).unwrap());
    check("not a regular file", &|path| symlink("/dev/zero", path).unwrap());
    check("not a regular file", &|path| {
        nix::sys::stat::mknod(path, nix::sys::stat::SFlag::S_IFIFO, nix::sys::stat::Mode::S_IRUSR, 0)
            .unwrap();
    });
    check("many brackets", &|path| fs::write(path, "(command: ".to_owned() + &"[".repeat(200_000)).unwrap());
    check("expected identifier", &|path| fs::write(path, "(".repeat(200_000)).unwrap());
    check("unclosed", &|path| fs::write(path, "/*".repeat(100_000)).unwrap());
    check("fields are too many", &|path| {
        fs::write(path, format!("({})", "a:1,".repeat(50_000))).unwrap();
    });
    check("there is no such field", &|path| fs::write(path, format!("({}:1)", "a".repeat(100_000))).unwrap());
    check("is no size", &|path| {
        fs::write(path, format!("(command: [\"/b\"], memory: (max: \"{}\"))", "x".repeat(100_000))).unwrap();
    });
    check("is no time", &|path| {
        fs::write(path, format!("(command: [\"/b\"], stop: (timeout: \"1{}\"))", "x".repeat(100_000)))
            .unwrap();
    });
    check("there is no unit", &|path| {
        fs::write(path, format!("(command: [\"/b\"], requires: [\"{}\"])", "x".repeat(100_000))).unwrap();
    });
    check("expected Service, Task or Target", &|path| {
        fs::write(path, format!("(command: [\"/b\"], kind: {})", "x".repeat(100_000))).unwrap();
    });
    check("struct", &|path| fs::write(path, format!("{}()", "x".repeat(100_000))).unwrap());
    check("items are too many", &|path| {
        fs::write(path, format!("(command: [{}])", "\"/b\",".repeat(40_000))).unwrap();
    });
    check("entries are too many", &|path| {
        fs::write(path, format!("(environment: {{{}}})", "\"a\":\"\",".repeat(30_000))).unwrap();
    });
    check("and 50 more faults", &|path| {
        fs::write(path, format!("(command: [{}])", "7,".repeat(70))).unwrap();
    });
}

#[test]
fn a_file_of_the_greatest_size_is_read() {
    let mut text = br#"(command: ["/bin/a"])"#.to_vec();
    text.resize(usize::try_from(FILE_BYTES_MAX).unwrap(), b'\n');
    assert_eq!(load(folder(&[("a.ron", &text)]).path()).faults, []);
    assert_eq!(one("\u{feff}(command: [\"/bin/a\"])\r\n").faults, []);
}

#[test]
fn later_folders_replace_files_of_earlier_ones() {
    let shipped = folder(&[("a.ron", br#"(command: ["/bin/1"])"#), ("b.ron", br#"(command: ["/bin/1"])"#)]);
    let local = folder(&[("b.ron", br#"(command: ["/bin/2"])"#), ("c.ron", br#"(command: ["/bin/2"])"#)]);
    let dirs = [shipped.path().to_owned(), local.path().to_owned(), PathBuf::from("/no/such/folder")];
    let loaded = unit::load(&dirs, None);
    let found: Vec<_> = loaded
        .units
        .iter()
        .map(|unit| (unit.policy.name.as_str(), unit.command[0].to_str().unwrap()))
        .collect();
    assert_eq!(found, [("a", "/bin/1"), ("b", "/bin/2"), ("c", "/bin/2")]);
    assert_eq!(loaded.faults, []);
    // A broken replacement is not passed over in silence.
    fs::remove_file(local.path().join("b.ron")).unwrap();
    symlink("/no/such/file", local.path().join("b.ron")).unwrap();
    let loaded = unit::load(&dirs, None);
    assert_eq!(loaded.units[1].policy.refused, Some(Trouble::BadUnit));
}

#[test]
fn a_folder_that_is_none_is_told() {
    let dir = folder(&[("file", b"")]);
    let loaded = load(&dir.path().join("file"));
    assert!(told(&loaded, dir.path()).contains("this folder cannot be read: "), "{loaded:?}");
    // Root reads every folder, so this half says something only to other users.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o000)).unwrap();
    let loaded = load(dir.path());
    assert!(nix::unistd::geteuid().is_root() || !loaded.faults.is_empty());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn units_beyond_the_table_are_left_out_and_told() {
    let dir = TempDir::new().unwrap();
    for number in 0..UNITS_MAX + 3 {
        fs::write(dir.path().join(format!("u{number:05}.ron")), r#"(command: ["/bin/a"])"#).unwrap();
    }
    let loaded = load(dir.path());
    assert_eq!(loaded.units.len(), UNITS_MAX);
    assert_eq!(loaded.units[UNITS_MAX - 1].policy.name, format!("u{:05}", UNITS_MAX - 1));
    assert!(told(&loaded, dir.path()).contains("1024 units are the most; 3 more"), "{:?}", loaded.faults);
}

#[test]
fn units_that_need_a_broken_one_are_loaded() {
    let dir = folder(&[("a.ron", br#"(command: ["/bin/a"], requires: ["b"])"#), ("b.ron", b"(")]);
    let loaded = load(dir.path());
    let states: Vec<_> = loaded.units.iter().map(|unit| unit.policy.refused).collect();
    assert_eq!(states, [None, Some(Trouble::BadUnit)]);
    assert_eq!(loaded.units[0].policy.requires, [UnitId(1)]);
}

#[test]
fn a_broken_system_file_leaves_its_defaults() {
    let dir = TempDir::new().unwrap();
    let units = dir.path().join("units");
    let file = units.with_file_name("system.ron");
    for (text, hostname, faults) in [
        (r#"(hostname: "a", reserve: "8MB", margin: "0%")"#, Some("a"), 2),
        (r#"(hostname: "a b", reserve: "4MiB")"#, None, 1),
        (r#"(hostname: "a", reserve "8M")"#, Some("a"), 1),
        ("\u{0}", None, 1),
        ("()", None, 0),
    ] {
        fs::write(&file, text).unwrap();
        let loaded = load(&units);
        assert_eq!((loaded.system.hostname.as_deref(), loaded.faults.len()), (hostname, faults), "{text}");
        assert!(loaded.system.margin.is_none());
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(load(&units), Loaded::default());
    symlink("/no/such/file", &file).unwrap();
    assert_eq!(load(&units).faults.len(), 1);
}

#[test]
fn the_man_page_names_every_field() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/lifeboat-unit.md")).unwrap();
    for (section, fields) in unit::field_names() {
        for field in fields {
            let path = match section {
                "" | "system.ron" => (*field).to_owned(),
                section => format!("{section}.{field}"),
            };
            assert!(page.contains(&format!("**{path}**")), "docs/lifeboat-unit.md does not name **{path}**");
        }
    }
}

/// Pieces that a mutilated unit file is made of.
fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"",
        "command",
        "memory",
        "max",
        "\"32MiB\"",
        "shutdown",
        "procedure",
        "on",
        "Exhaustion",
        "Some",
        "None",
        "//",
        "/*",
        "*/",
        "\n",
        "r#\"",
        "-1",
        "1e9",
        "0x",
        "'a'",
        "#![enable(implicit_some)]",
        "\\u{1b}",
        "ä",
        "\u{0}",
        "environment",
        "restart",
        "limit",
        "[\"/bin/a\"]",
        "stop: (signal: \"TERM\")",
        "requires: [\"a\"]",
        "b\"\\xff\"",
        "..=",
        "true",
        "Unit",
        "\r\n",
        "\u{feff}",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..40).prop_map(|list| list.concat())
}

/// Loads these bytes as a unit and as `system.ron`, and shows every fault.
fn survives(bytes: &[u8]) {
    let dir = TempDir::new().unwrap();
    let units = dir.path().join("units");
    fs::create_dir(&units).unwrap();
    fs::write(units.join("a.ron"), bytes).unwrap();
    fs::write(units.with_file_name("system.ron"), bytes).unwrap();
    let loaded = load(&units);
    assert_eq!(loaded.units.len(), 1);
    for fault in &loaded.faults {
        let shown = fault.to_string();
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        assert!(shown.len() < 8_192, "{shown}");
    }
    let unit = &loaded.units[0];
    assert!(unit.policy.refused.is_some() || !unit.command.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(&bytes);
    }

    #[test]
    fn any_text_is_survived(text in "\\PC{0,200}") {
        survives(text.as_bytes());
    }

    #[test]
    fn any_mutilated_unit_is_survived(text in pieces()) {
        survives(text.as_bytes());
        survives(format!("({text})").as_bytes());
    }

    #[test]
    fn any_values_are_survived(size in ".{0,20}", time in ".{0,20}", name in ".{0,20}") {
        let text = format!(
            "(command: [{name:?}], memory: (max: {size:?}), stop: (timeout: {time:?}, signal: {name:?}), \
             after: [{name:?}], environment: {{{name:?}: {size:?}}})"
        );
        survives(text.as_bytes());
        survives(format!("(hostname: {name:?}, reserve: {size:?}, sysctls: {{{name:?}: {time:?}}})").as_bytes());
    }
}
