//! The cgroup layer on folders of files: captured from real kernels (`tests/fixtures/cgroup`), strange, cut, hostile.

use lifeboat::cgroup::capabilities::{Capabilities, is_cgroup2};
use lifeboat::cgroup::group::Group;
use lifeboat::cgroup::limits::{self, Controllers, GroupLimits};
use lifeboat::cgroup::parse::{self, GroupState, ParseError, Pressure};
use lifeboat::cgroup::tree::Tree;
use lifeboat::engine::event::{MemoryEvents, MemorySample, SpawnStage};
use lifeboat::engine::policy::Class;
use lifeboat::engine::snapshot::BudgetView;
use procfs::{FromBufRead, MemoryPressure};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
const BOTH: Controllers = Controllers { memory: true, pids: true };

fn captured(kernel: &str, file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cgroup");
    fs::read(folder.join(kernel).join(file)).expect("a captured file")
}

#[test]
fn captured_files_are_understood() {
    let check = |kernel: &str, max, oom, unreclaimable_bytes| {
        let events = MemoryEvents { high: 0, max, oom, oom_kill: 0, oom_below: 0 };
        let pressure = Pressure { some_avg10: 0, full_avg10: 0 };
        let state = GroupState { populated: true, frozen: true };
        let file = |name| captured(kernel, name);
        assert_eq!(parse::memory_events(&file("memory.events.local")), Ok(events), "{kernel}");
        assert_eq!(parse::unreclaimable_bytes(&file("memory.stat"), 0), Ok(unreclaimable_bytes), "{kernel}");
        assert_eq!(parse::pressure(&file("memory.pressure")), Ok(pressure), "{kernel}");
        assert_eq!(parse::group_state(&file("cgroup.events")), Ok(state), "{kernel}");
        assert_eq!(parse::number(&file("memory.current")), Ok(32 * MIB), "{kernel}");
        assert_eq!(parse::limit(&file("memory.max")), Ok(Some(32 * MIB)), "{kernel}");
        assert_eq!(parse::limit(&file("memory.swap.max")), Ok(Some(0)), "{kernel}");
    };
    // anon + kernel - slab_reclaimable; on 6.1 the lists were a page behind `anon`.
    check("linux-6.12", 54, 3, 33_415_168 + 139_264 - 2_736);
    check("linux-6.1", 36, 2, 33_423_360 + 131_072 - 2_760);
}

#[test]
fn refaults_are_those_of_files_and_of_swap() {
    let check = |text: &str, expected| assert_eq!(parse::refaults(text.as_bytes()), expected, "{text:?}");
    check("workingset_refault_anon 3\nworkingset_refault_file 4\nworkingset_nodes 9\n", Ok(7));
    check("workingset_refault 5\n", Ok(5));
    check("workingset_refault_file 4294967298\n", Ok(2));
    check("anon 1\n", Ok(0));
    check("workingset_refault_file -1\n", Err(ParseError::NotANumber("workingset_refault_file")));
}

#[test]
fn what_the_disk_has_not_taken_is_dirty_or_being_written() {
    let check = |text: &str, expected| assert_eq!(parse::dirty_kib(text.as_bytes()), expected, "{text:?}");
    check("file_dirty 8192\nfile_mapped 7\nfile_writeback 4096\n", Ok(12));
    check("file 9\n", Ok(0));
    check("file_dirty 99999999999999\n", Ok(u32::MAX));
    check("file_dirty x\n", Err(ParseError::NotANumber("file_dirty")));
}

#[test]
fn what_is_available_is_never_nothing() {
    let check = |text: &str, kib| {
        assert_eq!(parse::available_kib(text.as_bytes()), std::num::NonZeroU32::new(kib), "{text:?}");
    };
    check("MemTotal:       1024 kB\nMemFree:  12 kB\nMemAvailable:     512 kB\nBuffers: 1 kB\n", 512);
    check("MemAvailable: 0 kB\n", 1);
    check("MemAvailable: 99999999999 kB\n", u32::MAX);
    check("MemAvailable: x kB\n", 0);
    check("MemTotal: 5 kB\n", 0);
}

#[test]
fn u_counts_each_page_once() {
    let check = |text: &str, expected| {
        assert_eq!(parse::unreclaimable_bytes(text.as_bytes(), 0), expected, "{text:?}");
    };
    let base = "anon 100\nfile 900\nshmem 20\n";
    // Nothing locked: anon and shmem are on the anon lists.
    check(&format!("{base}kernel 7\ninactive_anon 50\nactive_anon 70\nunevictable 0\n"), Ok(127));
    // 30 anonymous bytes locked: they leave the list and stay in `anon`. Not counted twice.
    check(&format!("{base}kernel 7\ninactive_anon 50\nactive_anon 40\nunevictable 30\n"), Ok(127));
    // 30 bytes of a file locked: only the lists know.
    check(&format!("{base}kernel 7\ninactive_anon 50\nactive_anon 70\nunevictable 30\n"), Ok(157));
    // The lists lag behind by what the CPUs still collect.
    check(&format!("{base}kernel 7\ninactive_anon 0\nactive_anon 0\nunevictable 0\n"), Ok(127));
    // The kernel's own: without what it can shrink, with sockets.
    check(&format!("{base}kernel 50\nslab_reclaimable 40\nsock 3\nunevictable 0\n"), Ok(133));
    // Before Linux 5.18 there is no `kernel`.
    let old = "kernel_stack 1\npagetables 2\npercpu 3\nslab_unreclaimable 4\nslab_reclaimable 99\nsock 5\n";
    check(&format!("{base}{old}unevictable 0\n"), Ok(135));
    check("anon 18446744073709551615\nshmem 18446744073709551615\nunevictable 5\n", Ok(u64::MAX));
    check("anon 1\nunevictable 0\n", Err(ParseError::Missing("shmem")));
    check("anon 1\nshmem 1\n", Err(ParseError::Missing("unevictable")));
    check("anon 18446744073709551616\nshmem 0\nunevictable 0\n", Err(ParseError::NotANumber("anon")));
    check("anon -1\nshmem 0\nunevictable 0\n", Err(ParseError::NotANumber("anon")));
    check("anon 1\nshmem 0\nunevictable", Err(ParseError::Cut));
    check("", Err(ParseError::Cut));
}

/// What may be swapped out is on the anonymous lists; locked and the kernel's is not.
#[test]
fn u_is_less_where_there_is_room_in_swap() {
    let check = |room_bytes, in_swap_too: &str, expected| {
        let text = "anon 100\nshmem 20\nkernel 7\ninactive_anon 50\nactive_anon 40\nunevictable 30\n";
        let text = format!("{text}{in_swap_too}");
        assert_eq!(parse::unreclaimable_bytes(text.as_bytes(), room_bytes), Ok(expected), "{room_bytes}");
    };
    check(0, "", 127);
    check(10, "", 117);
    check(90, "", 37);
    check(u64::MAX, "", 37);
    check(0, "swapcached 25\n", 102);
    check(10, "swapcached 25\n", 92);
    check(u64::MAX, "swapcached 25\n", 37);
}

#[test]
fn strange_files_are_errors() {
    let state = |text: &str, expected| assert_eq!(parse::group_state(text.as_bytes()), expected, "{text:?}");
    state("populated 1\nfrozen 0\n", Ok(GroupState { populated: true, frozen: false }));
    state("populated 0\n", Ok(GroupState::default()));
    state("populated 2\nfrozen 0\n", Err(ParseError::NotANumber("populated")));
    state("frozen 1\n", Err(ParseError::Missing("populated")));
    state("populated 1", Err(ParseError::Cut));
    state("\n\n\n", Err(ParseError::Missing("populated")));

    let events =
        |text: &str, expected| assert_eq!(parse::memory_events(text.as_bytes()), expected, "{text:?}");
    events(
        "high 1\nmax 2\noom 3\noom_kill 4\n",
        Ok(MemoryEvents { high: 1, max: 2, oom: 3, oom_kill: 4, oom_below: 0 }),
    );
    events(
        "new 9\noom_kill 4\noom 3\nmax 2\nhigh 1\n",
        Ok(MemoryEvents { high: 1, max: 2, oom: 3, oom_kill: 4, oom_below: 0 }),
    );
    events("high 1\nmax 2\noom 3\n", Err(ParseError::Missing("oom_kill")));
    events("high 1\nmax 2\noom x\noom_kill 4\n", Err(ParseError::NotANumber("oom")));
    events("high  1\nmax 2\noom 3\noom_kill 4\n", Err(ParseError::NotANumber("high")));

    let limit = |text: &str, expected| assert_eq!(parse::limit(text.as_bytes()), expected, "{text:?}");
    limit("max\n", Ok(None));
    limit("18446744073709551615\n", Ok(Some(u64::MAX)));
    limit("18446744073709551616\n", Err(ParseError::NotANumber("limit")));
    limit("max", Err(ParseError::Cut));
    limit("1\n2\n", Err(ParseError::NotANumber("number")));
    limit("\n", Err(ParseError::NotANumber("limit")));

    let pressure = |text: &str, expected| assert_eq!(parse::pressure(text.as_bytes()), expected, "{text:?}");
    let some = "some avg10=12.34 avg60=0.00 avg300=0.00 total=5\n";
    let full = "full avg10=100.00 avg60=0.00 avg300=0.00 total=77\n";
    let found = Pressure { some_avg10: 1_234, full_avg10: 10_000 };
    pressure(&format!("{some}{full}"), Ok(found));
    pressure(some, Err(ParseError::Missing("full")));
    pressure(full, Err(ParseError::Missing("some")));
    pressure("some avg10=1.2\n", Err(ParseError::NotANumber("some avg10")));
    pressure("some avg10=999.00\n", Err(ParseError::NotANumber("some avg10")));
    pressure("some \nfull \n", Err(ParseError::Missing("some avg10")));
    // The procfs crate panics on this cut.
    pressure("some\n", Err(ParseError::Missing("some")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The procfs crate reads the same numbers.
    #[test]
    fn pressure_is_read_as_procfs_reads_it(some in 0_u16..=10_000, full in 0_u16..=10_000, total in any::<u64>()) {
        let shown = |hundredths: u16| format!("{}.{:02}", hundredths / 100, hundredths % 100);
        let text = format!(
            "some avg10={} avg60=0.12 avg300=3.00 total=9\nfull avg10={} avg60=0.00 avg300=0.00 total={total}\n",
            shown(some), shown(full),
        );
        let oracle = MemoryPressure::from_buf_read(text.as_bytes()).expect("procfs reads it");
        let found = parse::pressure(text.as_bytes()).expect("lifeboat reads it");
        let hundredths = |percent: f32| format!("{:.0}", f64::from(percent) * 100.0);
        prop_assert_eq!(found.some_avg10.to_string(), hundredths(oracle.some.avg10));
        prop_assert_eq!(found.full_avg10.to_string(), hundredths(oracle.full.avg10));
    }

    /// Whatever the bytes: an answer, never a panic; and a cut file is never taken for a whole one.
    #[test]
    fn no_bytes_make_a_parser_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cut in any::<proptest::sample::Index>(),
    ) {
        let stat = captured("linux-6.12", "memory.stat");
        let cut = stat.get(..cut.index(stat.len())).unwrap_or_default();
        for text in [&bytes[..], cut, &[cut, &bytes[..]].concat()] {
            let _ = (parse::number(text), parse::limit(text), parse::memory_events(text));
            let _ = (parse::group_state(text), parse::pressure(text), parse::unreclaimable_bytes(text, 0));
        }
        if !cut.ends_with(b"\n") {
            prop_assert_eq!(parse::unreclaimable_bytes(cut, 0), Err(ParseError::Cut));
        }
    }
}

/// A folder with cgroup2's files, which goes away at the end of its test.
struct Fixture {
    _guard: tempfile::TempDir,
    root: PathBuf,
}

impl Fixture {
    /// The root with its branches and one unit `recorder` in each, all with the files captured from `kernel`.
    fn new(kernel: &str) -> Self {
        let guard = tempfile::tempdir().expect("a folder");
        let root = guard.path().join("cgroup");
        let fixture = Self { _guard: guard, root };
        let branches = ["shutdown", "guaranteed", "pool"];
        for folder in branches.iter().flat_map(|branch| [(*branch).to_owned(), format!("{branch}/recorder")])
        {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cgroup").join(kernel);
            for file in fs::read_dir(source).expect("captured files") {
                let file = file.expect("a captured file");
                let text = fs::read(file.path()).expect("its text");
                fixture.put(&format!("{folder}/{}", file.file_name().display()), &text);
            }
            for (file, text) in
                [("cgroup.freeze", "1\n"), ("cgroup.kill", ""), ("cgroup.subtree_control", "")]
            {
                fixture.put(&format!("{folder}/{file}"), text.as_bytes());
            }
        }
        fixture.put("cgroup.controllers", b"cpu io memory pids\n");
        fixture.put("cgroup.subtree_control", b"");
        fixture
    }

    fn put(&self, file: &str, text: &[u8]) {
        let path = self.root.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.root.join(file)).expect("a file to remove");
    }

    /// A file that takes every value and keeps none.
    fn make_forgetful(&self, file: &str) {
        self.remove(file);
        std::os::unix::fs::symlink("/dev/null", self.root.join(file)).expect("a link");
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.root.join(file)).expect("a file").trim_end().to_owned()
    }

    fn tree(&self) -> Tree {
        let budget = BudgetView {
            reserve_bytes: 16 * MIB,
            writeback_bytes: 4 * MIB,
            overhead_bytes: MIB,
            guaranteed_bytes: 64 * MIB,
            pool_bytes: 128 * MIB,
            ..BudgetView::default()
        };
        let capabilities = Capabilities::in_folder(&self.root).expect("a folder");
        Tree::prepare(&self.root, &budget, &capabilities).expect("a tree")
    }
}

const LIMITS: GroupLimits = GroupLimits {
    memory_max_bytes: Some(8 * MIB),
    memory_high_bytes: None,
    oom_group: true,
    pids_max: Some(32),
};

#[test]
fn a_tree_is_prepared() {
    let fixture = Fixture::new("linux-6.12");
    let tree = fixture.tree();
    for (file, expected) in [
        ("cgroup.subtree_control", "+memory +pids"),
        ("pool/cgroup.subtree_control", "+memory +pids"),
        ("shutdown/memory.max", "22020096"),
        ("guaranteed/memory.max", "max"),
        ("pool/memory.max", "135266304"),
        ("shutdown/memory.swap.max", "0"),
        ("guaranteed/memory.swap.max", "0"),
        ("pool/memory.swap.max", "0"),
    ] {
        assert_eq!(fixture.text(file), expected, "{file}");
    }
    let group = tree.service("recorder", Class::Pool, &LIMITS).expect("a group");
    for (file, expected) in
        [("memory.max", "8388608"), ("memory.oom.group", "1"), ("pids.max", "32"), ("cgroup.freeze", "0")]
    {
        assert_eq!(fixture.text(&format!("pool/recorder/{file}")), expected, "{file}");
    }
    assert!(group.is_bounded());
    assert!(group.trigger_fd().is_none(), "captured files are not written to");
    assert_eq!(group.state(), Ok(GroupState { populated: true, frozen: true }));
    assert_eq!(
        group.memory_events(),
        Ok(MemoryEvents { high: 0, max: 54, oom: 3, oom_kill: 0, oom_below: 0 })
    );
    let unreclaimable_bytes = 33_415_168 + 139_264 - 2_736;
    let sample = MemorySample { current_bytes: 32 * MIB, unreclaimable_bytes, ..MemorySample::default() };
    assert_eq!(group.sample(), Ok(sample));
    let left = group.left_behind().expect("a reading");
    assert_eq!((left.current_bytes, left.shmem_bytes, left.file_bytes), (32 * MIB, 0, 0));
    assert_eq!(parse::shmem_and_file_bytes(b"file 3\nshmem 2\nshmem_thp 9\n"), Ok((2, 3)));
    assert_eq!(parse::shmem_and_file_bytes(b"file 3\n"), Err(ParseError::Missing("shmem")));
    group.freeze().expect("a freeze");
    group.kill().expect("a kill");
    assert_eq!((fixture.text("pool/recorder/cgroup.freeze").as_str()), "1");
    assert_eq!((fixture.text("pool/recorder/cgroup.kill").as_str()), "1");
    tree.procedure("recorder", 4 * MIB).expect("a group");
    // Above what it may use there is room for what its disk has not taken.
    assert_eq!(fixture.text("shutdown/recorder/memory.high"), "4194304");
    assert_eq!(fixture.text("shutdown/recorder/memory.max"), "5242880");
}

/// What is lent is part of the pool's bound until it is given back, also where the bound is set anew meanwhile.
#[test]
fn a_loan_outlives_another_budget() {
    let fixture = Fixture::new("linux-6.12");
    let tree = fixture.tree();
    fixture.put("shutdown/memory.current", b"0\n");
    fixture.put("pool/memory.current", b"1048576\n");
    let pool_max = |expected: u64, when: &str| {
        assert_eq!(fixture.text("pool/memory.max"), (expected * MIB).to_string(), "{when}");
    };
    pool_max(129, "at first");
    tree.lend_to_pool(4 * MIB, false).expect("a loan");
    pool_max(133, "with a loan");
    let budget = BudgetView {
        reserve_bytes: 16 * MIB,
        overhead_bytes: MIB,
        pool_bytes: 100 * MIB,
        ..BudgetView::default()
    };
    assert_eq!(tree.rebound(&budget), Ok(true));
    pool_max(105, "with a loan and a smaller budget");
    tree.lend_to_pool(4 * MIB, true).expect("given back");
    pool_max(101, "without it");
    tree.lend_to_pool(4 * MIB, true).expect("given back");
    pool_max(101, "what was not lent is not taken");
    tree.lend_to_pool(4 * MIB, false).expect("a loan");
    fixture.put("pool/memory.current", b"108003328\n");
    tree.lend_to_pool(4 * MIB, true).expect("given back");
    pool_max(104, "others have grown into it: 103 MiB and some room");
    fixture.put("pool/memory.current", b"1048576\n");
    tree.lend_to_pool(4 * MIB, false).expect("a loan");
    pool_max(105, "it does not add up");
}

/// Each process of the list gets the signal, and nobody else; so does the old way to kill, before Linux 5.14.
#[test]
fn signals_reach_every_process_of_a_group() {
    use std::os::unix::process::ExitStatusExt;
    let check = |act: fn(&Group) -> Result<(), i32>, signal: i32| {
        let fixture = Fixture::new("linux-6.12");
        fixture.remove("pool/recorder/cgroup.kill");
        let child = || std::process::Command::new("sleep").arg("600").spawn().expect("a process");
        let mut children = [child(), child()];
        let pids: Vec<String> = children.iter().map(|child| format!("{}\n", child.id())).collect();
        fixture.put("pool/recorder/cgroup.procs", pids.concat().as_bytes());
        let group = fixture.tree().service("recorder", Class::Pool, &LIMITS).expect("a group");
        act(&group).expect("a signal");
        for child in &mut children {
            assert_eq!(child.wait().expect("its end").signal(), Some(signal));
        }
    };
    check(|group| group.signal(libc::SIGTERM), libc::SIGTERM);
    check(Group::kill, libc::SIGKILL);
}

/// Every limit that the kernel does not take, or cannot take, stops the unit; and the message says which.
#[test]
fn limits_fail_closed() {
    let check = |spoil: fn(&Fixture), errno, words: &[&str]| {
        let fixture = Fixture::new("linux-6.12");
        let tree = fixture.tree();
        spoil(&fixture);
        let error = tree.service("recorder", Class::Pool, &LIMITS).expect_err("a refusal");
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        assert_eq!((error.stage, error.errno()), (SpawnStage::Limit, errno), "{cause}");
        for word in words {
            assert!(cause.contains(word), "{cause:?} lacks {word:?}");
        }
    };
    let untaken = |file: &'static str| -> [&'static str; 2] { [file, "wanted"] };
    check(|it| it.make_forgetful("pool/recorder/memory.max"), libc::ERANGE, &untaken("memory.max"));
    check(
        |it| it.make_forgetful("pool/recorder/memory.oom.group"),
        libc::ERANGE,
        &untaken("memory.oom.group"),
    );
    check(|it| it.make_forgetful("pool/recorder/pids.max"), libc::ERANGE, &["pids.max", "wanted 32"]);
    check(|it| it.remove("pool/recorder/memory.max"), libc::ENOENT, &["memory.max"]);
    check(|it| it.remove("pool/recorder/memory.oom.group"), libc::ENOENT, &["memory.oom.group"]);
    check(|it| it.remove("pool/recorder/pids.max"), libc::ENOENT, &["pids.max"]);
}

/// Swap is forbidden for a whole branch; where that is not taken there is no tree.
#[test]
fn a_kernel_without_swap_has_no_swap_limit() {
    let fixture = Fixture::new("linux-6.1");
    fixture.remove("pool/memory.swap.max");
    assert!(fixture.tree().service("recorder", Class::Pool, &LIMITS).is_ok());
    fixture.make_forgetful("guaranteed/memory.swap.max");
    let capabilities = Capabilities::in_folder(&fixture.root).expect("a folder");
    let error = Tree::prepare(&fixture.root, &BudgetView::default(), &capabilities).expect_err("a refusal");
    assert!(error.errno() == libc::ERANGE && error.what().contains("memory.swap.max"), "{error:?}");
}

/// A limit is rounded down to whole pages by the kernel; that is taken, a smaller one is not.
#[test]
fn limits_are_compared_by_pages() {
    let fixture = Fixture::new("linux-6.12");
    let folder = fixture.root.join("pool/recorder");
    let wanted = GroupLimits { memory_max_bytes: Some(8 * MIB + 1), ..LIMITS };
    assert_eq!(limits::apply(&folder, &wanted, BOTH, false), Ok(()));
    let none = GroupLimits::default();
    assert_eq!(limits::apply(&folder, &none, BOTH, false), Ok(()));
    assert_eq!((fixture.text("pool/recorder/memory.max").as_str()), "max");
    assert_eq!((fixture.text("pool/recorder/pids.max").as_str()), "max");
}

/// Where the memory controller is known to be missing, units start without limits, and are not called bounded.
#[test]
fn without_controllers_nothing_is_bounded() {
    let fixture = Fixture::new("linux-6.12");
    fixture.put("cgroup.controllers", b"cpu io\n");
    let group = fixture.tree().service("recorder", Class::Pool, &LIMITS).expect("a group");
    assert!(!group.is_bounded());
    assert_eq!(group.sample(), Err(libc::ENODATA));
    assert_eq!(group.memory_events(), Err(libc::ENODATA));
    assert_eq!(fixture.text("pool/recorder/memory.max"), (32 * MIB).to_string(), "left alone");
    assert_eq!(fixture.text("cgroup.subtree_control"), "");
}

#[test]
fn what_is_missing_is_named() {
    let check = |spoil: fn(&Fixture), expected: &[&str]| {
        let fixture = Fixture::new("linux-6.12");
        spoil(&fixture);
        let missing = Capabilities::in_folder(&fixture.root).expect("a folder").missing();
        assert_eq!(missing.len(), expected.len(), "{missing:?}");
        for (found, word) in missing.iter().zip(expected) {
            assert!(found.what.contains(word), "{found} lacks {word}");
            assert!(!found.means.is_empty() && !found.cure.is_empty());
        }
    };
    check(|_| {}, &[]);
    check(|it| it.put("cgroup.controllers", b"cpu pids\n"), &["memory"]);
    check(|it| it.put("cgroup.controllers", b"memory\n"), &["pids"]);
    check(|it| it.put("cgroup.controllers", b""), &["memory", "pids"]);
    check(|it| it.put("cgroup.controllers", b"memory.x pidsy\xFF\n"), &["memory", "pids"]);
    check(|it| it.remove("cgroup.controllers"), &["memory", "pids"]);
    check(|it| it.remove("shutdown/memory.pressure"), &["PSI"]);
    check(|it| it.remove("shutdown/cgroup.kill"), &["cgroup.kill"]);
    check(|it| it.remove("shutdown/cgroup.freeze"), &["cgroup.freeze"]);
    assert_eq!(Capabilities::default().missing().len(), 1, "without cgroup2 nothing else is worth a word");
}

/// A folder that only looks like one is not taken for a cgroup2 (other libraries succeed there, and do nothing).
#[test]
fn a_plain_folder_is_no_cgroup2() {
    let fixture = Fixture::new("linux-6.12");
    assert!(!is_cgroup2(&fixture.root));
    assert_eq!(Capabilities::find(&fixture.root), Ok(Capabilities::default()));
    assert_eq!(Capabilities::find(Path::new("/nowhere")), Ok(Capabilities::default()));
}

/// A file that says something strange is an error of that reading alone.
#[test]
fn hostile_files_are_errors_of_a_reading() {
    let fixture = Fixture::new("linux-6.12");
    let group = fixture.tree().service("recorder", Class::Pool, &LIMITS).expect("a group");
    let long = "x 1\n".repeat(10_000);
    for (text, errno) in [("", libc::EBADMSG), ("anon", libc::EBADMSG), (long.as_str(), libc::EFBIG)] {
        fixture.put("pool/recorder/memory.stat", text.as_bytes());
        assert_eq!(group.sample(), Err(errno));
        fixture.put("pool/recorder/cgroup.events", text.as_bytes());
        assert_eq!(group.state(), Err(errno));
    }
    // Without PSI a reading is still good for the rest.
    fixture.put("pool/recorder/memory.stat", &captured("linux-6.12", "memory.stat"));
    fixture.put("pool/recorder/memory.pressure", b"");
    assert_eq!(group.sample().map(|sample| sample.psi_full_avg10), Ok(0));
}
