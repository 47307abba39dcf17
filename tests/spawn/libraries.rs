//! What a parked process has locked in memory: all that its execve(2) will need.

use super::{How, alone, end_of, next_status, null, plain, procedure, program, run};
use lifeboat::engine::event::Exit;
use lifeboat::sys::spawn::{Found, Parked, Status, files_of, park};
use proptest::prelude::*;
use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The files of which a mapping is locked and whole in memory. (`Locked` is the share of this process alone.)
fn locked_files(pid: u32) -> Vec<String> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("a live process");
    let (mut name, mut size, mut rss, mut files) = ("", "", "", Vec::new());
    for line in smaps.lines() {
        match line.split_once(':') {
            Some(("Size", value)) => size = value.trim(),
            Some(("Rss", value)) => rss = value.trim(),
            Some(("VmFlags", value)) if value.contains(" lo") && rss == size => files.push(name.to_owned()),
            Some((head, _)) if !head.contains('-') => {}
            _ => name = line.split_whitespace().nth(5).unwrap_or_default(),
        }
    }
    files
}

fn real(path: &str) -> String {
    Path::new(path).canonicalize().expect(path).display().to_string()
}

/// All files of this machine that are locked before the release, and what is told of others.
fn locked_by(argv: &[&str], lock_max_bytes: u64) -> (Vec<String>, Vec<Status>) {
    let mut ends = alone();
    let (program, input, output) = (procedure(argv), null(), null());
    let Parked { pid, status, go } =
        park(&plain(&program, &input, &output), lock_max_bytes).expect("a child");
    let mut told = Vec::new();
    loop {
        match next_status(&status) {
            Status::Parked => break,
            other => told.push(other),
        }
    }
    let locked = locked_files(pid);
    drop(go);
    assert_eq!(end_of(pid, &mut ends), Exit::Code(0));
    (locked, told)
}

/// What its loader says that a program loads, the loader included.
fn libraries_of(path: &str) -> Vec<String> {
    let (_, exit, text) = run(&program(&[path], &["LD_TRACE_LOADED_OBJECTS=1"]), How::default());
    assert_eq!(exit, Exit::Code(0), "{path}: {text}");
    text.split_whitespace().filter(|word| word.starts_with('/')).map(real).collect()
}

fn check_locked(path: &str, program: &str) {
    let libraries = libraries_of(program);
    assert!(libraries.len() > 1, "{program} is linked dynamically: {libraries:?}");
    let (locked, told) = locked_by(&[path], u64::MAX);
    assert_eq!(told, [], "{path}");
    for file in libraries.iter().chain(&[real(path), real(program)]) {
        assert!(locked.contains(file), "{path}: {file} is not among {locked:?}");
    }
}

#[test]
fn a_parked_process_has_its_libraries_locked() {
    for program in ["/bin/sh", "/usr/bin/id", "/usr/bin/git", "/usr/bin/python3"] {
        if Path::new(program).exists() {
            check_locked(program, program);
        }
    }
}

#[test]
fn a_parked_script_has_its_interpreter_locked() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("script").display().to_string();
    std::fs::write(&script, "#! /bin/sh -e\nexit 0\n").expect("a script");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("its mode");
    check_locked(&script, "/bin/sh");
}

#[test]
fn what_is_not_locked_is_told() {
    let unlocked = |status: &Status| match status {
        Status::Unlocked(file) => (file.errno, file.bytes, file.name().to_owned()),
        other => panic!("{other:?}"),
    };
    let length = |path: &str| std::fs::metadata(path).map_or(0, |it| it.len());
    let (locked, told) = locked_by(&["/bin/sh"], length("/bin/sh"));
    assert_eq!(locked, [real("/bin/sh")], "what fits is locked");
    let of = |paths: &[String]| paths.iter().map(|path| length(path)).sum::<u64>();
    let all = of(&libraries_of("/bin/sh")) + length("/bin/sh") + length("/etc/ld.so.cache");
    assert_eq!(told.iter().map(unlocked).collect::<Vec<_>>(), [(libc::EFBIG, all, "/bin/sh".to_owned())]);

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("program").display().to_string();
    let names: Vec<String> = (0..12).map(|number| format!("libgone\n.so.{number}")).collect();
    let needed: Vec<&str> = names.iter().map(String::as_str).collect();
    std::fs::write(&path, Made { needed: &needed, ..Made::default() }.bytes()).expect("a program");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("its mode");
    let (locked, told) = locked_by(&[&path], u64::MAX);
    assert_eq!(locked, [real(&path)], "it is parked all the same");
    let expected = names.iter().take(8).map(|name| (libc::ENOENT, 0, name.replace('\n', "?")));
    assert_eq!(told.iter().map(unlocked).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

/// An ELF file made by hand.
#[derive(Clone, Copy)]
struct Made<'a> {
    word: usize,
    is_big_endian: bool,
    machine: u16,
    interpreter: &'a str,
    needed: &'a [&'a str],
    rpath: &'a str,
    runpath: &'a str,
}

impl Default for Made<'_> {
    fn default() -> Self {
        Self {
            word: 8,
            is_big_endian: false,
            machine: 62,
            interpreter: "",
            needed: &[],
            rpath: "",
            runpath: "",
        }
    }
}

/// Where its one segment is in memory.
const START: u64 = 0x10_0000;

impl Made<'_> {
    fn put(&self, bytes: &mut Vec<u8>, number: u64, count: usize) {
        match self.is_big_endian {
            true => bytes.extend(&number.to_be_bytes()[8 - count..]),
            false => bytes.extend(&number.to_le_bytes()[..count]),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let word = self.word;
        let (header, each) = if word == 8 { (64, 56) } else { (52, 32) };
        let mut strings = vec![0];
        let mut entries = Vec::new();
        let named = self.needed.iter().map(|name| (1, *name));
        let lists = [(15, self.rpath), (29, self.runpath)].into_iter().filter(|(_, list)| !list.is_empty());
        for (tag, text) in named.chain(lists) {
            entries.push((tag, strings.len() as u64));
            strings.extend(text.as_bytes());
            strings.push(0);
        }
        let interpreter_at = strings.len();
        strings.extend(self.interpreter.as_bytes());
        strings.push(0);
        let dynamic_at = header + 3 * each;
        let strings_at = dynamic_at + (entries.len() + 2) * 2 * word;
        entries.extend([(5, START + strings_at as u64), (0, 0)]);
        let mut bytes = b"\x7fELF".to_vec();
        bytes.extend([u8::try_from(word / 4).expect("4 or 8"), 1 + u8::from(self.is_big_endian), 1]);
        bytes.resize(16, 0);
        for (number, count) in
            [(3, 2), (self.machine.into(), 2), (1, 4), (0, word), (header as u64, word), (0, word)]
        {
            self.put(&mut bytes, number, count);
        }
        let headers = if self.interpreter.is_empty() { 2 } else { 3 };
        for (number, count) in [(0, 4), (header, 2), (each, 2), (headers, 2), (0, 2), (0, 2), (0, 2)] {
            self.put(&mut bytes, number as u64, count);
        }
        let total = strings_at + strings.len();
        let dynamic_len = strings_at - dynamic_at;
        let interpreter = (strings_at + interpreter_at, self.interpreter.len() + 1);
        for (kind, (at, length)) in [(1, (0, total)), (2, (dynamic_at, dynamic_len)), (3, interpreter)] {
            self.put(&mut bytes, kind, 4);
            if word == 8 {
                self.put(&mut bytes, 4, 4);
            }
            for number in [at as u64, START + at as u64, START + at as u64, length as u64, length as u64] {
                self.put(&mut bytes, number, word);
            }
            bytes.resize(bytes.len() + 8, 0);
        }
        for (tag, value) in entries {
            self.put(&mut bytes, tag, word);
            self.put(&mut bytes, value, word);
        }
        bytes.extend(strings);
        bytes
    }
}

/// A folder of files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn add(&self, name: &str, bytes: &[u8]) -> &Self {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
        self
    }

    /// What is found for a program here, by the names in this folder, and behind it what is missing.
    fn find(&self, program: &str, library_path: &str) -> (Vec<String>, Vec<String>) {
        let (mut files, mut missing) = (Vec::new(), Vec::new());
        let path = CString::new(self.path(program)).expect("no NUL");
        files_of(None, &path, library_path.as_bytes(), &mut |found| match found {
            Found::File { path, .. } => files.push(path.to_string_lossy().into_owned()),
            Found::Missing(name) => missing.push(name.to_string_lossy().into_owned()),
            Found::TooMany => missing.push("too many".to_owned()),
        });
        let start = self.path("");
        let files = files.into_iter().filter(|path| path != "/etc/ld.so.cache");
        (files.map(|path| path.replacen(&start, "", 1)).collect(), missing)
    }

    fn check(&self, reason: &str, program: &str, library_path: &str, expected: (&[&str], &[&str])) {
        let (files, missing) = self.find(program, library_path);
        assert_eq!((files, missing), (owned(expected.0), owned(expected.1)), "{reason}");
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn libraries_are_found_where_the_loaders_look() {
    for (word, is_big_endian) in [(8, false), (8, true), (4, false), (4, true)] {
        let kind = Made { word, is_big_endian, machine: 0xfefe, ..Made::default() };
        let folder = Folder::new();
        let loader = folder.path("ld-linux.so");
        let runpath = format!("relative::{}:$ORIGIN/lib", folder.path("empty"));
        let top = Made { interpreter: &loader, needed: &["liba.so", "libb.so"], runpath: &runpath, ..kind };
        let other = Made { machine: 0xfefd, ..kind };
        folder
            .add("top", &top.bytes())
            .add("ld-linux.so", &kind.bytes())
            .add("lib/liba.so", &Made { needed: &["libb.so", "libc.so", "ld-linux.so"], ..kind }.bytes())
            .add("lib/libb.so", &kind.bytes())
            .add("lib/libc.so", &other.bytes())
            .add("env/libc.so", &kind.bytes());
        // The list of the program alone is not that of its libraries, and one for another machine is passed over.
        let first = ["top", "ld-linux.so", "lib/liba.so", "lib/libb.so"];
        folder.check("DT_RUNPATH", "top", "", (&first, &["libc.so"]));
        let all = [&first[..], &["env/libc.so"]].concat();
        folder.check("LD_LIBRARY_PATH", "top", &folder.path("env"), (&all, &[]));

        let up = Made { rpath: "${ORIGIN}/lib:$ORIGIN/env", runpath: "", ..top };
        folder.add("up", &up.bytes());
        let of_up = ["up", "ld-linux.so", "lib/liba.so", "lib/libb.so", "env/libc.so"];
        folder.check("DT_RPATH", "up", "", (&of_up, &[]));
        let beside = Made { runpath: "$LIB", ..up };
        folder.add("beside", &beside.bytes());
        folder.check(
            "DT_RPATH beside DT_RUNPATH",
            "beside",
            "",
            (&["beside", "ld-linux.so"], &["liba.so", "libb.so"]),
        );
        let by_path = Made { needed: &["$ORIGIN/lib/libb.so", "/nowhere/libx.so"], ..kind };
        folder.add("by-path", &by_path.bytes());
        folder.check("a path", "by-path", "", (&["by-path", "lib/libb.so"], &["/nowhere/libx.so"]));
    }
}

/// musl has one order of its own, a list of folders in a file, and some names for itself.
#[test]
fn libraries_are_found_where_musl_looks() {
    let folder = Folder::new();
    let loader = folder.path("ld-musl-none.so.1");
    let kind = Made { machine: 0xfefe, ..Made::default() };
    let needed = ["libc.musl-none.so.1", "libpthread.so.0", "liba.so"];
    let top = Made { interpreter: &loader, needed: &needed, runpath: "$ORIGIN/lib", ..kind };
    folder
        .add("top", &top.bytes())
        .add("ld-musl-none.so.1", &kind.bytes())
        .add("lib/liba.so", &Made { needed: &["libb.so"], ..kind }.bytes())
        .add("lib/libb.so", &kind.bytes());
    folder.check(
        "DT_RUNPATH is handed down",
        "top",
        "",
        (&["top", "ld-musl-none.so.1", "lib/liba.so", "lib/libb.so"], &[]),
    );
    std::fs::remove_file(loader).expect("the loader goes");
    folder.check(
        "no loader",
        "top",
        "",
        (&["top", "lib/liba.so", "lib/libb.so"], &[&folder.path("ld-musl-none.so.1")]),
    );
}

/// So many files and complaints at most, whatever a file says.
fn is_bounded((files, missing): &(Vec<String>, Vec<String>)) -> bool {
    files.len() <= 32 && missing.len() <= 4_097
}

#[test]
fn hostile_files_are_bounded() {
    let folder = Folder::new();
    let many: Vec<String> = (0..100).map(|number| format!("lib{number}.so")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for name in &many {
        folder.add(name, &Made { needed: &many, runpath: "$ORIGIN", ..Made::default() }.bytes());
    }
    let (files, missing) = folder.find("lib0.so", "");
    assert_eq!((files.len(), missing.as_slice()), (32, &["too many".to_owned()][..]), "a thicket");

    let gone: Vec<String> = (0..1_000).map(|number| format!("gone{number}.so")).collect();
    let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
    let lists = ":".repeat(100_000);
    folder.add("looks", &Made { needed: &gone, runpath: &lists, ..Made::default() }.bytes());
    let (_, missing) = folder.find("looks", &lists);
    assert_eq!(missing.last().map(String::as_str), Some("too many"), "more folders than are looked into");

    let long = "x".repeat(10_000);
    folder.add("long", &Made { needed: &[&long], rpath: &long, ..Made::default() }.bytes());
    folder.check("long names", "long", "", (&["long"], &[]));
    folder.add("scripts", format!("#!{}", folder.path("scripts")).as_bytes());
    folder.check("a script that is its own interpreter", "scripts", "", (&["scripts"], &[]));
    folder.add("blank", b"#! ").check("no interpreter", "blank", "", (&["blank"], &[]));
    folder.check("no program", "nothing", "", (&[], &[]));
    folder.check("a folder", "", "", (&[], &[]));

    let fifo = folder.path("fifo.so");
    nix::unistd::mkfifo(fifo.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    folder.add("fifo", &Made { needed: &["fifo.so"], runpath: "$ORIGIN", ..Made::default() }.bytes());
    folder.check("no file to wait for", "fifo", "", (&["fifo"], &["fifo.so"]));

    let whole =
        Made { needed: &["lib1.so"], rpath: "$ORIGIN", interpreter: "/nowhere/ld", ..Made::default() };
    let whole = whole.bytes();
    for length in 0..whole.len() {
        let found = folder.add("cut", &whole[..length]).find("cut", "");
        assert!(is_bounded(&found), "cut at {length}: {found:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any bytes anywhere.
    #[test]
    fn garbage_in_a_program_is_bounded(
        changes in prop::collection::vec((0_usize..400, any::<u8>()), 1..40),
        word in prop::sample::select(vec![4_usize, 8]),
        is_big_endian: bool,
    ) {
        let folder = Folder::new();
        let made = Made { word, is_big_endian, needed: &["lib1.so", "lib2.so"], rpath: "$ORIGIN", ..Made::default() };
        let mut bytes = made.bytes();
        folder.add("lib1.so", &bytes);
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        let found = folder.add("program", &bytes).find("program", "");
        prop_assert!(is_bounded(&found), "{:?}", found);
    }
}
