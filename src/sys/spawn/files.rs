//! The files that an execve(2) will need: the program, the interpreter of a script, the loader of a program and the
//! libraries that it will load.
//!
//! Found as the loaders of glibc and musl find them, by a child that allocates nothing, and by PID 1 when it divides
//! the memory. Whatever the files say, their number, the number of folders that are looked into and the length of every
//! text are bounded.

use super::elf::{Elf, Kind, Reader, kind_of};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2, readlinkat_raw};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// More than any program that a procedure should be. The rest is not locked.
const FILES_MAX: usize = 32;

/// Room for their paths.
const PATHS_LEN: usize = 4096;

/// Folders that are looked into, for all of them together.
const LOOKS_MAX: u32 = 4096;

/// A longer path is not found; a longer list of folders is cut.
const PATH_MAX: usize = 512;
const LIST_MAX: u64 = 4096;

/// What the kernel reads of a script's first line (`BINPRM_BUF_SIZE`, include/uapi/linux/binfmts.h).
const SCRIPT_LINE: u64 = 256;

const BLANKS: &[u8] = b" \t";

/// Where glibc's loader has its list of libraries, which it maps too.
const LOADER_CACHE: &[u8] = b"/etc/ld.so.cache";

/// Where administrators add folders, a line each. Its `include` is not followed.
const LOADER_FOLDERS: &[u8] = b"/etc/ld.so.conf";

/// The folders of both C libraries. A library of another kind is passed over, so 32 and 64 bits are no matter.
const DEFAULT_FOLDERS: &[u8] = b"/lib64:/usr/lib64:/lib:/usr/lib:/usr/local/lib";

/// Names that musl's loader takes for itself.
const MUSL_ITSELF: [&[u8]; 7] = [b"c", b"pthread", b"rt", b"m", b"dl", b"util", b"xnet"];

/// What comes of the search.
#[derive(Debug)]
pub enum Found<'a> {
    /// A file that will be read.
    File {
        /// Its path.
        path: &'a CStr,
        /// Open for reading.
        file: BorrowedFd<'a>,
        /// Its length.
        bytes: u64,
        /// Its device and its number there.
        id: (u64, u64),
    },
    /// A file that is nowhere, by the name that another one has for it.
    Missing(&'a CStr),
    /// There are more than are looked for.
    TooMany,
}

/// A text that always ends in NUL.
#[derive(Clone, Copy)]
struct Text {
    bytes: [u8; PATH_MAX + 1],
    length: usize,
}

impl Text {
    const EMPTY: Self = Self { bytes: [0; PATH_MAX + 1], length: 0 };

    fn of(parts: &[&[u8]]) -> Self {
        let mut text = Self::EMPTY;
        parts.iter().for_each(|part| text.extend(part));
        text
    }

    /// Up to a byte that ends it.
    fn read(from: &mut dyn Iterator<Item = u8>, ends: &[u8]) -> Self {
        let mut text = Self::EMPTY;
        let mut is_too_long = false;
        for byte in from.take_while(|byte| !ends.contains(byte)) {
            is_too_long |= text.length == PATH_MAX;
            text.extend(&[byte]);
        }
        if is_too_long { Self::EMPTY } else { text }
    }

    /// One that grows too long is empty.
    fn extend(&mut self, bytes: &[u8]) {
        match self.bytes.get_mut(self.length..self.length + bytes.len()) {
            Some(room) if self.length + bytes.len() <= PATH_MAX => {
                for (to, from) in room.iter_mut().zip(bytes) {
                    *to = *from;
                }
                self.length += bytes.len();
            }
            _ => *self = Self::EMPTY,
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    fn folder(&self) -> &[u8] {
        folder_of(self.bytes())
    }
}

/// One file that was found.
#[derive(Clone, Copy)]
struct Entry {
    id: (u64, u64),
    /// Its path, in the room for all of them.
    path: (usize, usize),
    /// Which one needs it; a lower number than its own.
    by: Option<usize>,
    /// A list of folders in it, and whether that is DT_RUNPATH.
    folders: Option<u64>,
    is_runpath: bool,
}

struct Search<'a> {
    /// What is `/` for the program, where that is another folder than ours.
    root: Option<OwnedFd>,
    library_path: &'a [u8],
    entries: [Option<Entry>; FILES_MAX],
    count: usize,
    paths: [u8; PATHS_LEN],
    looks_left: u32,
    is_over: bool,
    kind: Option<Kind>,
    loader: Text,
    act: &'a mut dyn FnMut(Found<'_>),
}

/// Tells `act` each file that an execve(2) of `path` will need, below `root` where there is one; `library_path` is
/// the value of `LD_LIBRARY_PATH`. A program that cannot be opened is nothing to be told.
pub fn files_of(root: Option<&CStr>, path: &CStr, library_path: &[u8], act: &mut dyn FnMut(Found<'_>)) {
    let folder =
        root.map(|root| open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()));
    let Ok(root) = folder.transpose() else { return };
    let mut search = Search {
        root,
        library_path,
        entries: [None; FILES_MAX],
        count: 0,
        paths: [0; PATHS_LEN],
        looks_left: LOOKS_MAX,
        is_over: false,
        kind: None,
        loader: Text::EMPTY,
        act,
    };
    search.take(&Text::of(&[path.to_bytes()]), None);
    let mut at = 0;
    while at < search.count {
        search.look_into(at);
        at += 1;
    }
    if search.is_over {
        (search.act)(Found::TooMany);
    }
}

impl Search<'_> {
    fn may_look(&mut self) -> bool {
        self.is_over |= self.looks_left == 0;
        self.looks_left = self.looks_left.saturating_sub(1);
        !self.is_over
    }

    /// Opens a regular file. Anything else is not even opened: a device might take that for an order.
    fn open(&mut self, path: &CStr) -> Option<(OwnedFd, rustix::fs::Stat)> {
        if !self.may_look() {
            return None;
        }
        let opened = |flags| self.opened(path, flags);
        let is_file = |file: &OwnedFd| {
            fstat(file).ok().filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
        };
        is_file(&opened(OFlags::PATH)?)?;
        let file = opened(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let stat = is_file(&file)?;
        Some((file, stat))
    }

    fn opened(&self, path: &CStr, flags: OFlags) -> Option<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        match &self.root {
            None => open(path, flags, Mode::empty()).ok(),
            Some(root) => openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok(),
        }
    }

    /// Takes a file in. False where there is none.
    fn take(&mut self, path: &Text, by: Option<usize>) -> bool {
        let Some((file, stat)) = self.open(path.as_c_str()) else { return false };
        self.keep(path, &file, &stat, by);
        true
    }

    /// The same for a library, which must be of the program's kind.
    fn take_library(&mut self, path: &Text, by: usize) -> bool {
        let Some((file, stat)) = self.open(path.as_c_str()) else { return false };
        let is_ours = kind_of(&mut Reader::new(file.as_fd())) == self.kind;
        if is_ours {
            self.keep(path, &file, &stat, Some(by));
        }
        is_ours
    }

    fn keep(&mut self, path: &Text, file: &OwnedFd, stat: &rustix::fs::Stat, by: Option<usize>) {
        let id = (stat.st_dev, stat.st_ino);
        if self.entries.iter().flatten().any(|entry| entry.id == id) {
            return;
        }
        let start = self.entries.iter().flatten().last().map_or(0, |entry| entry.path.1);
        let end = start + path.length;
        let (Some(room), Some(place)) = (self.paths.get_mut(start..end), self.entries.get_mut(self.count))
        else {
            self.is_over = true;
            return;
        };
        for (to, from) in room.iter_mut().zip(path.bytes()) {
            *to = *from;
        }
        *place = Some(Entry { id, path: (start, end), by, folders: None, is_runpath: false });
        self.count += 1;
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        (self.act)(Found::File { path: path.as_c_str(), file: file.as_fd(), bytes, id });
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        self.entries.get(at).copied().flatten()
    }

    fn path(&self, at: usize) -> Text {
        let path = self.entry(at).and_then(|entry| self.paths.get(entry.path.0..entry.path.1));
        Text::of(&[path.unwrap_or_default()])
    }

    fn look_into(&mut self, at: usize) {
        let Some((file, _)) = self.open(self.path(at).as_c_str()) else { return };
        let mut reader = Reader::new(file.as_fd());
        if (reader.byte(0), reader.byte(1)) == (Some(b'#'), Some(b'!')) {
            let mut line =
                (2..SCRIPT_LINE).map_while(|place| reader.byte(place)).skip_while(|it| BLANKS.contains(it));
            let path = Text::read(&mut line, b" \t\n\0");
            // One that is missing is an error of its own.
            self.take(&path, Some(at));
            return;
        }
        let Some(elf) = Elf::of(&mut reader) else { return };
        self.kind.get_or_insert(elf.kind);
        if let Some(Some(entry)) = self.entries.get_mut(at) {
            entry.is_runpath = elf.runpath.is_some();
            entry.folders = elf.runpath.or(elf.rpath);
        }
        if let Some(place) = elf.interpreter
            && self.loader.length == 0
        {
            self.loader = text_at(&mut reader, place);
            let loader = self.loader;
            if !self.take(&loader, Some(at)) && !self.is_over {
                (self.act)(Found::Missing(loader.as_c_str()));
            }
            if !self.is_musl() {
                self.take(&Text::of(&[LOADER_CACHE]), Some(at));
            }
        }
        for number in 0..elf.entries() {
            if let Some(place) = elf.needed(&mut reader, number) {
                let name = text_at(&mut reader, place);
                self.need_library(&name, at);
            }
        }
    }

    fn is_musl(&self) -> bool {
        let name = self.loader.bytes().get(self.loader.folder().len()..).unwrap_or_default();
        name.starts_with(b"/ld-musl")
    }

    fn need_library(&mut self, name: &Text, by: usize) {
        if !self.may_look() || name.length == 0 || self.is_there(name.bytes()) {
            return;
        }
        let is_found = if name.bytes().contains(&b'/') {
            let path = expanded(name, self.path(by).folder());
            self.take_library(&path, by)
        } else {
            self.find(name.bytes(), by)
        };
        if !is_found && !self.is_over {
            (self.act)(Found::Missing(name.as_c_str()));
        }
    }

    /// Whether one of that name was found before: a loader takes it too.
    fn is_there(&self, name: &[u8]) -> bool {
        let is_it = |entry: &Entry| {
            let path = self.paths.get(entry.path.0..entry.path.1).unwrap_or_default();
            path.strip_suffix(name).is_some_and(|folder| folder.ends_with(b"/"))
        };
        let stem = name.strip_prefix(b"lib").and_then(|rest| rest.split(|byte| *byte == b'.').next());
        self.entries.iter().flatten().any(is_it)
            || self.is_musl() && stem.is_some_and(|stem| MUSL_ITSELF.contains(&stem))
    }

    /// Both loaders' order: of glibc DT_RPATH of those that need it, `LD_LIBRARY_PATH`, its own DT_RUNPATH; of musl
    /// `LD_LIBRARY_PATH`, then either of those that need it.
    fn find(&mut self, name: &[u8], by: usize) -> bool {
        let library_path = self.library_path;
        let comes_last = self.is_musl() || self.entry(by).is_some_and(|entry| entry.is_runpath);
        !comes_last && self.find_by_lists_of(name, by)
            || self.find_in(&mut library_path.iter().copied(), b"", name, by)
            || comes_last && self.find_by_lists_of(name, by)
            || self.find_by_default(name, by)
    }

    fn find_by_lists_of(&mut self, name: &[u8], by: usize) -> bool {
        let goes_up = self.is_musl() || !self.entry(by).is_some_and(|entry| entry.is_runpath);
        let mut owner = Some(by);
        while let Some((at, entry)) = owner.and_then(|at| Some((at, self.entry(at)?))) {
            let counts = at == by || self.is_musl() || !entry.is_runpath;
            if let Some(place) = entry.folders.filter(|_| counts)
                && self.find_by_list_in(&self.path(at), place, name, by)
            {
                return true;
            }
            owner = entry.by.filter(|_| goes_up);
        }
        false
    }

    /// By a list of folders that stands in a file.
    fn find_by_list_in(&mut self, path: &Text, place: u64, name: &[u8], by: usize) -> bool {
        let Some((file, _)) = self.open(path.as_c_str()) else { return false };
        let mut reader = Reader::new(file.as_fd());
        let list = (0..LIST_MAX).map_while(|more| reader.byte(place.saturating_add(more)));
        self.find_in(&mut list.take_while(|byte| *byte != 0), path.folder(), name, by)
    }

    /// In the folders of a list; `$ORIGIN` is one of them.
    fn find_in(&mut self, list: &mut dyn Iterator<Item = u8>, origin: &[u8], name: &[u8], by: usize) -> bool {
        let mut list = list.peekable();
        while list.peek().is_some() && self.may_look() {
            let folder = expanded(&Text::read(&mut list, b":\n"), origin);
            if folder.bytes().starts_with(b"/")
                && self.take_library(&Text::of(&[folder.bytes(), b"/", name]), by)
            {
                return true;
            }
        }
        false
    }

    /// The loader's own folder (that of Debian's architecture is where its link points to), the folders of its plain
    /// list, and those that are built in.
    fn find_by_default(&mut self, name: &[u8], by: usize) -> bool {
        let folder = self.loader.folder();
        let mut link = [0; PATH_MAX];
        let target = self.opened(self.loader.as_c_str(), OFlags::PATH | OFlags::NOFOLLOW);
        let length = target.and_then(|target| readlinkat_raw(target, c"", &mut link[..]).ok()).unwrap_or(0);
        let link = folder_of(link.get(..length).unwrap_or_default());
        let path = match link.first() {
            Some(b'/') => Text::of(&[link, b"/", name]),
            _ => Text::of(&[folder, b"/", link, b"/", name]),
        };
        let list = match self.is_musl() {
            true => {
                let file = self.loader.bytes().get(folder.len()..).unwrap_or_default();
                let stem = file.split(|byte| *byte == b'.').next().unwrap_or_default();
                Text::of(&[b"/etc", stem, b".path"])
            }
            false => Text::of(&[LOADER_FOLDERS]),
        };
        self.take_library(&path, by)
            || self.find_by_list_in(&list, 0, name, by)
            || self.find_in(&mut DEFAULT_FOLDERS.iter().copied(), b"", name, by)
    }
}

/// The folder of a path, without the last slash.
fn folder_of(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    path.get(..end).unwrap_or_default()
}

fn text_at(reader: &mut Reader<'_>, place: u64) -> Text {
    let bytes = (0..=PATH_MAX as u64).map_while(|more| reader.byte(place.saturating_add(more)));
    Text::read(&mut { bytes }, b"\0")
}

/// A path whose `$ORIGIN` is the folder of the file that says so. One with another `$` is empty.
fn expanded(path: &Text, origin: &[u8]) -> Text {
    let rest = [&b"$ORIGIN"[..], b"${ORIGIN}"].into_iter().find_map(|it| path.bytes().strip_prefix(it));
    match rest {
        Some(rest) => Text::of(&[origin, rest]),
        None if path.bytes().contains(&b'$') => Text::EMPTY,
        None => *path,
    }
}
