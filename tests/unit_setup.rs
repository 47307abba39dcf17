//! The fields of a unit file about who a process is, what it may and what it sees. The faults in them are among the
//! fixtures of `unit_files.rs`.

use lifeboat::unit::{self, Capabilities, Identity, Loaded, Setup, Unit};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;
use std::ffi::CStr;
use std::fs;
use tempfile::TempDir;

fn one(text: &str) -> Loaded {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.ron"), text).unwrap();
    unit::load(&[dir.path().to_owned()], None)
}

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

/// Root and its group have these numbers everywhere.
#[test]
fn a_setup_is_read_in_full() {
    let dir = folder(&[
        ("first", b"# words\n\nA=1\nB=\"two words\"\n"),
        ("second", b"A=2\n"),
        ("odd", b"A=1\nnot a line\n"),
    ]);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let text = format!(
        r#"(
            command: ["/bin/a"],
            user: "root", groups: ["root", "7", "20"], umask: "027", root_directory: "/srv",
            environment_files: ["{}", "{}", "-/nowhere"], environment: {{"C": "3"}},
            nice: -5, scheduler: RoundRobin( 10 ), cpus: "0,2-3", io_priority: BestEffort(6),
            rlimits: {{"nofile": "1024:4096", "core": 0, "memlock": "1MiB:unlimited"}},
            capabilities: (bounding: ["CAP_CHOWN", "net_bind_service"], ambient: ["CHOWN"]),
            no_new_privs: true, private_mounts: true, private_tmp: true, private_shm: true,
            read_only: ["/etc", "-/opt"], hidden: ["-/data", "/boot"],
            shutdown: (procedure: ["/bin/b"], on: [Stop], group: "9", capabilities: (ambient: ["SYS_PTRACE"])),
        )"#,
        file("first"),
        file("second")
    );
    let loaded = one(&text);
    assert_eq!(loaded.faults, []);
    let Unit { identity, procedure_identity, setup, environment, .. } = &loaded.units[0];
    let capabilities = |bounding, ambient| Capabilities { bounding, ambient };
    assert_eq!((identity.uid, identity.gid), (Some(0), Some(0)));
    assert_eq!(identity.groups, Some(vec![0, 7, 20]));
    assert_eq!(identity.capabilities, capabilities(Some(1 | 1 << 10), 1));
    assert_eq!(identity.environment[1..3], [c"USER=root".to_owned(), c"LOGNAME=root".to_owned()]);
    let expected = Identity { gid: Some(9), capabilities: capabilities(None, 1 << 19), ..identity.clone() };
    assert_eq!(procedure_identity, &expected);
    assert_eq!(environment, &[c"A=1", c"B=two words", c"A=2", c"C=3"].map(CStr::to_owned));
    let limit = |current, maximum| Rlimit { current, maximum };
    let path = |path: &CStr, may_be_missing| unit::Path { path: path.to_owned(), may_be_missing };
    let mut cpus = Box::new(CpuSet::new());
    [0, 2, 3].into_iter().for_each(|cpu| cpus.set(cpu));
    let expected = Setup {
        umask: Some(0o027),
        root_directory: Some(c"/srv".to_owned()),
        resource_limits: vec![
            (Resource::Nofile, limit(Some(1024), Some(4096))),
            (Resource::Core, limit(Some(0), Some(0))),
            (Resource::Memlock, limit(Some(1 << 20), None)),
        ],
        nice: Some(-5),
        scheduler: Some((2, 10)),
        cpus: Some(cpus),
        io_priority: Some(2 << 13 | 6),
        no_new_privs: true,
        private_mounts: true,
        private_tmp: true,
        private_shm: true,
        read_only: vec![path(c"/etc", false), path(c"/opt", true)],
        hidden: vec![path(c"/data", true), path(c"/boot", false)],
    };
    assert_eq!(setup, &expected);
    let loaded = one(&format!(r#"(command: ["/bin/a"], environment_files: ["{}"])"#, file("odd")));
    let told = loaded.faults.iter().map(ToString::to_string).collect::<String>();
    assert!(told.contains("odd`, line 2: this is not NAME=value"), "{told}");
}

/// A user of its own brings the procedure everything anew; without one it is who its unit is.
#[test]
fn a_procedure_is_who_its_unit_is_unless_it_says_otherwise() {
    let check = |own: &str, expected: (Option<u32>, Option<u32>, Option<Vec<u32>>, u64)| {
        let text = format!(
            r#"(command: ["/bin/a"], user: "4000000001", group: "7", groups: ["8"],
                capabilities: (ambient: ["CHOWN"]),
                shutdown: (procedure: ["/bin/b"], on: [Stop] {own}))"#
        );
        let loaded = one(&text);
        assert_eq!(loaded.faults, [], "{own}");
        let Identity { uid, gid, groups, capabilities, .. } = loaded.units[0].procedure_identity.clone();
        assert_eq!((uid, gid, groups, capabilities.ambient), expected, "{own}");
    };
    let number = Some(4_000_000_001);
    check("", (number, Some(7), Some(vec![8]), 1));
    check(r#", group: "9""#, (number, Some(9), Some(vec![8]), 1));
    check(r#", groups: []"#, (number, Some(7), Some(Vec::new()), 1));
    check(r#", user: "4000000002", group: "9""#, (Some(4_000_000_002), Some(9), Some(Vec::new()), 0));
    check(r#", capabilities: (ambient: [])"#, (number, Some(7), Some(vec![8]), 0));
}
