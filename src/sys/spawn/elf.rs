//! What execve(2) and a loader look for in a program's file: elf(5), without an allocation and without trust.
//!
//! A reader of our own: `object` and `goblin` want the whole file in memory, or a cache that allocates, which a child
//! before its execve(2) may not; and a file that is cut meanwhile would end who has mapped it by SIGBUS. Here nothing
//! that a file says decides how much of it is read.

use rustix::io::pread;
use std::os::fd::BorrowedFd;

/// So much of a file is read at once.
const PIECE: usize = 1024;

/// A program has some ten headers, and a dynamic section some thirty entries. What is behind these is not looked at.
const HEADERS_MAX: u64 = 64;
const ENTRIES_MAX: u64 = 1024;

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// A file, of which a piece is at hand.
pub(super) struct Reader<'a> {
    file: BorrowedFd<'a>,
    at: u64,
    length: usize,
    piece: [u8; PIECE],
    is_big_endian: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: BorrowedFd<'a>) -> Self {
        Self { file, at: 0, length: 0, piece: [0; PIECE], is_big_endian: false }
    }

    #[inline(never)]
    /// So many bytes from here on, where the file has them.
    fn bytes(&mut self, at: u64, count: usize) -> Option<&[u8]> {
        let within = |start: u64, length: usize| {
            let from = usize::try_from(at.checked_sub(start)?).ok()?;
            let end = from.checked_add(count)?;
            (end <= length).then_some(from..end)
        };
        let range = within(self.at, self.length);
        if range.is_none() {
            self.length = pread(self.file, &mut self.piece, at).unwrap_or(0);
            self.at = at;
        }
        self.piece.get(range.or_else(|| within(self.at, self.length))?)
    }

    #[inline(never)]
    pub(super) fn byte(&mut self, at: u64) -> Option<u8> {
        self.bytes(at, 1)?.first().copied()
    }

    #[inline(never)]
    fn number(&mut self, at: u64, count: u64) -> Option<u64> {
        let is_big_endian = self.is_big_endian;
        let bytes = self.bytes(at, usize::try_from(count).ok()?)?;
        let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match is_big_endian {
            true => bytes.iter().fold(0, join),
            false => bytes.iter().rev().fold(0, join),
        })
    }
}

/// What kind of machine code: class, byte order and machine. A loader takes libraries of the program's kind only.
pub(super) type Kind = [u8; 4];

/// The kind of an ELF file.
pub(super) fn kind_of(reader: &mut Reader<'_>) -> Option<Kind> {
    let &[0x7f, b'E', b'L', b'F', class @ 1..=2, order @ 1..=2, .., low, high] = reader.bytes(0, 20)? else {
        return None;
    };
    Some([class, order, low, high])
}

/// An ELF file's needs, as places in it.
pub(super) struct Elf {
    pub(super) kind: Kind,
    /// The path of its loader.
    pub(super) interpreter: Option<u64>,
    /// Lists of folders.
    pub(super) rpath: Option<u64>,
    pub(super) runpath: Option<u64>,
    /// Bytes of an address: 4 or 8. The layout of both classes follows from it.
    word: u64,
    dynamic: u64,
    entries: u64,
    strings: Option<u64>,
}

impl Elf {
    /// `None` for another file; of one that is cut what is there.
    pub(super) fn of(reader: &mut Reader<'_>) -> Option<Self> {
        let kind = kind_of(reader)?;
        let [class, order, ..] = kind;
        reader.is_big_endian = order == 2;
        let word = 4 * u64::from(class);
        let mut elf = Self {
            kind,
            interpreter: None,
            rpath: None,
            runpath: None,
            word,
            dynamic: 0,
            entries: 0,
            strings: None,
        };
        for [kind, offset, _, length] in headers(reader, word) {
            match kind {
                PT_INTERP => elf.interpreter = Some(offset),
                PT_DYNAMIC => {
                    elf.dynamic = offset;
                    elf.entries = (length / (2 * word)).min(ENTRIES_MAX);
                }
                _ => {}
            }
        }
        elf.read_dynamic(reader);
        Some(elf)
    }

    fn read_dynamic(&mut self, reader: &mut Reader<'_>) {
        let (mut strings, mut rpath, mut runpath) = (None, None, None);
        let mut number = 0;
        while number < self.entries {
            match self.entry(reader, number) {
                Some([DT_STRTAB, address]) => strings = Some(address),
                Some([DT_RPATH, at]) => rpath = Some(at),
                Some([DT_RUNPATH, at]) => runpath = Some(at),
                Some([0, _]) | None => self.entries = number,
                Some(_) => {}
            }
            number += 1;
        }
        // The table of strings has an address in memory, and lies in the file where its segment does.
        let Some(address) = strings else { return };
        self.strings = headers(reader, self.word).find_map(|[kind, offset, start, length]| {
            let within = address.checked_sub(start).filter(|within| kind == PT_LOAD && *within < length)?;
            offset.checked_add(within)
        });
        self.rpath = rpath.and_then(|at| self.string(at));
        self.runpath = runpath.and_then(|at| self.string(at));
    }

    #[inline(never)]
    fn entry(&self, reader: &mut Reader<'_>, number: u64) -> Option<[u64; 2]> {
        let at = self.dynamic.saturating_add(number * 2 * self.word);
        Some([reader.number(at, self.word)?, reader.number(at.saturating_add(self.word), self.word)?])
    }

    fn string(&self, at: u64) -> Option<u64> {
        self.strings?.checked_add(at)
    }

    /// How many entries there are to ask for.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Where the name of the library stands that this entry says it needs.
    pub(super) fn needed(&self, reader: &mut Reader<'_>, number: u64) -> Option<u64> {
        match self.entry(reader, number)? {
            [DT_NEEDED, at] => self.string(at),
            _ => None,
        }
    }
}

/// The program headers: kind, place in the file, address in memory, length.
fn headers(reader: &mut Reader<'_>, word: u64) -> impl Iterator<Item = [u64; 4]> {
    let table = reader.number(24 + word, word).unwrap_or(0);
    let each = reader.number(30 + 3 * word, 2).unwrap_or(0);
    let count = reader.number(32 + 3 * word, 2).unwrap_or(0).min(HEADERS_MAX);
    (0..count).map_while(move |number| {
        let header = table.saturating_add(number * each);
        let mut field = |at: u64, count| reader.number(header.saturating_add(at), count);
        Some([field(0, 4)?, field(word, word)?, field(2 * word, word)?, field(4 * word, word)?])
    })
}
