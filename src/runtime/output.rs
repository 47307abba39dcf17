//! What units say: from their pipes into their rings, and from there line by line to the console or the kernel log.
//!
//! # Invariants
//! - Nobody is waited for. A pipe that is empty has its turn later; what the console or the kernel log does not take is
//!   dropped there, and stays in the ring.
//! - One turn reads a bounded part of each pipe. A unit that floods finds its pipe full and waits for its own turn; the
//!   pages of a full pipe are charged to the unit.
//! - Nothing is allocated but when units are added or changed. The rings are zeroed memory that is not touched before
//!   it is needed: a unit that says nothing costs none of it.
//! - A pipe lives until its last writer has closed it or the next run of its role begins, whichever comes first. So
//!   what outlives a run is still heard until then, and no descriptor is left behind.

mod layout;

pub(super) use layout::ring_bytes;

use super::event_loop::Lifeboat;
use super::log_file::start_writer;
use super::perform::PROCEDURE;
use super::ring::Ring;
use super::seat::Source;
use crate::engine::event::{Role, SpawnStage};
use crate::engine::policy::UnitId;
use crate::sys::aside::wait_for_child;
use crate::sys::clock;
use crate::sys::poll::{Interest, Poller};
use crate::sys::spawn::{SpawnError, output_pipe};
use crate::unit::{Output, Unit};
use crate::wire::base64;
use crate::wire::reply::TailReply;
use nix::errno::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Read from one pipe at once.
const CHUNK_BYTES: usize = 4096;

/// Such reads in one turn.
const CHUNKS_A_TURN: usize = 4;

/// Reads that empty a pipe of the usual size, 64 KiB (pipe(7)).
const CHUNKS_OF_A_PIPE: usize = 16;

/// A longer line goes on in pieces. No more than half of the smallest ring.
const LINE_BYTES_MAX: usize = 512;

/// How much of a run's end is kept beside the ring, until the next run has ended.
const LAST_WORDS_BYTES: usize = 400;

/// What stands before each line of a procedure.
const PROCEDURE_MARK: &[u8] = b"procedure: ";

/// How `/dev/kmsg` is told the level `LOG_INFO`.
const INFORMATION: &[u8] = b"<6>";

/// What the writers of log files get at the end, all together.
const WRITERS_MS: u64 = 1_000;

/// Allocators take memory of this size straight from the kernel: zeroed, and not touched.
const UNTOUCHED_BYTES: usize = 256 << 10;

/// Who says something.
#[derive(Clone, Copy, Debug)]
struct Speaker<'a> {
    unit: UnitId,
    role: Role,
    name: &'a str,
}

/// The pipes, the ring, and the last words of one unit.
#[derive(Debug)]
struct Feed {
    output: Output,
    /// The way to the writer of its log file.
    file: Sink,
    writer_pid: u32,
    ring: Ring,
    /// Up to here lines have gone on.
    shown: u64,
    /// Whose line is not at its end yet.
    speaker: Option<Role>,
    /// Where in the stream the present run begins.
    run_began: u64,
    /// The end of the last run that has ended.
    last_words: Ring,
    pipes: [Option<OwnedFd>; 2],
}

/// The output of all units.
#[derive(Debug)]
pub(super) struct Outputs {
    memory: Vec<u8>,
    feeds: Vec<Feed>,
    console: Sink,
    kernel_log: Sink,
}

impl Outputs {
    /// Rings for these units, in their order. Both places must be nonblocking.
    pub(super) fn new(units: &[Unit], console: Option<OwnedFd>, kernel_log: Option<OwnedFd>) -> Self {
        let feeds = units.iter().map(|unit| Feed { output: unit.output, ..Feed::silent() }).collect();
        let (console, kernel_log) = (Sink::new(console), Sink::new(kernel_log));
        let mut outputs = Self { memory: Vec::new(), feeds, console, kernel_log };
        let rings_bytes: Vec<usize> = units.iter().map(layout::ring_bytes).collect();
        outputs.resize(&rings_bytes);
        outputs
    }

    fn feed(&self, unit: UnitId) -> Option<&Feed> {
        self.feeds.get(usize::from(unit.0))
    }

    fn feed_mut(&mut self, unit: UnitId) -> Option<&mut Feed> {
        self.feeds.get_mut(usize::from(unit.0))
    }

    /// A new pipe for a process that is about to be made: its writing end. `None` where the unit's output is not kept.
    fn open(&mut self, speaker: Speaker<'_>, poller: &Poller) -> Result<Option<OwnedFd>, SpawnError> {
        self.read(speaker, CHUNKS_OF_A_PIPE, poller);
        let Speaker { unit, role, .. } = speaker;
        let Some(feed) = self.feed_mut(unit).filter(|feed| feed.ring.capacity() > 0) else {
            return Ok(None);
        };
        feed.close(role, poller);
        if role == Role::Service {
            feed.run_began = feed.ring.written();
        }
        let (read, write) = output_pipe()?;
        poller
            .add(read.as_fd(), Source::Output(unit, role).token(), Interest::Read)
            .map_err(|error| SpawnError::new(SpawnStage::Stdio, error.errno()))?;
        *feed.pipe_mut(role) = Some(read);
        Ok(Some(write))
    }

    /// Reads what is there, up to a bound; closes the pipe at its end.
    fn read(&mut self, speaker: Speaker<'_>, chunks: usize, poller: &Poller) {
        let Speaker { unit, role, .. } = speaker;
        let mut chunk = [0_u8; CHUNK_BYTES];
        for _ in 0..chunks {
            let Some(feed) = self.feed_mut(unit) else { return };
            let Some(pipe) = feed.pipe_mut(role) else { return };
            match nix::unistd::read(pipe.as_fd(), &mut chunk) {
                Ok(0) => {
                    feed.close(role, poller);
                    return;
                }
                Ok(length) => {
                    self.take(speaker, chunk.get(..length).unwrap_or_default());
                    if length < CHUNK_BYTES {
                        return;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => {
                    feed.close(role, poller);
                    return;
                }
            }
        }
    }

    /// Words of a unit. They go on line by line; a line is never longer than its limit, so that what waits for its end
    /// is still in the ring.
    fn take(&mut self, speaker: Speaker<'_>, bytes: &[u8]) {
        let Speaker { unit, role, name } = speaker;
        if self.feed(unit).is_some_and(|feed| feed.speaker.is_some_and(|other| other != role)) {
            self.finish_line(unit, name);
        }
        let pieces = bytes.split_inclusive(|byte| *byte == b'\n');
        for piece in pieces.flat_map(|line| line.chunks(LINE_BYTES_MAX / 2)) {
            let Some(feed) = self.feeds.get_mut(usize::from(unit.0)) else { return };
            if role == Role::Procedure && feed.speaker.is_none() {
                feed.ring.push(&mut self.memory, PROCEDURE_MARK);
            }
            feed.ring.push(&mut self.memory, piece);
            feed.speaker = (!piece.ends_with(b"\n")).then_some(role);
            self.pass_on(unit, name);
        }
    }

    fn finish_line(&mut self, unit: UnitId, name: &str) {
        let Some(feed) = self.feeds.get_mut(usize::from(unit.0)) else { return };
        if feed.speaker.take().is_some() {
            feed.ring.push(&mut self.memory, b"\n");
            self.pass_on(unit, name);
        }
    }

    /// Gives whole lines on, and pieces of lines that are too long.
    fn pass_on(&mut self, unit: UnitId, name: &str) {
        let Some(feed) = self.feeds.get_mut(usize::from(unit.0)) else { return };
        let (sink, priority): (_, &[u8]) = match feed.output {
            Output::Null => {
                feed.shown = feed.ring.written();
                return;
            }
            Output::Console => (&mut self.console, b""),
            Output::Kmsg => (&mut self.kernel_log, INFORMATION),
            Output::File => (&mut feed.file, b""),
        };
        loop {
            let [first, second] = feed.ring.since(&self.memory, feed.shown);
            let mut line = [0_u8; LINE_BYTES_MAX];
            let (mut length, mut whole) = (0, false);
            for (place, byte) in line.iter_mut().zip(first.iter().chain(second)) {
                length += 1;
                *place = *byte;
                if *byte == b'\n' {
                    whole = true;
                    break;
                }
            }
            if !whole && length < LINE_BYTES_MAX {
                return;
            }
            feed.shown += length as u64;
            let line = line.get(..length).unwrap_or_default();
            let head: &[&[u8]] = match feed.output {
                Output::File => &[],
                Output::Console | Output::Null | Output::Kmsg => &[name.as_bytes(), b": "],
            };
            sink.say(priority, head, line.trim_ascii_end());
        }
    }

    /// The end of a process: everything that it has said is read, its last line is finished, and where its run is over
    /// with it the last words are kept.
    fn ended(&mut self, speaker: Speaker<'_>, run_is_over: bool, poller: &Poller) {
        self.read(speaker, CHUNKS_OF_A_PIPE, poller);
        let Speaker { unit, role, name } = speaker;
        if self.feed(unit).is_some_and(|feed| feed.speaker == Some(role)) {
            self.finish_line(unit, name);
        }
        let Some(feed) = self.feeds.get_mut(usize::from(unit.0)) else { return };
        if !run_is_over || feed.ring.capacity() == 0 {
            return;
        }
        let from = feed.run_began.max(feed.ring.written().saturating_sub(LAST_WORDS_BYTES as u64));
        let mut words = [0_u8; LAST_WORDS_BYTES];
        let mut length = 0;
        let [first, second] = feed.ring.since(&self.memory, from);
        for (place, byte) in words.iter_mut().zip(first.iter().chain(second)) {
            length += 1;
            *place = *byte;
        }
        feed.last_words.clear();
        feed.last_words.push(&mut self.memory, words.get(..length).unwrap_or_default());
    }

    /// The last words of the last run that has ended.
    pub(super) fn last_words(&self, unit: UnitId) -> Vec<u8> {
        self.feed(unit).map_or_else(Vec::new, |feed| feed.last_words.since(&self.memory, 0).concat())
    }

    /// What a unit has said from a position on, as far as it is kept.
    pub(super) fn reply(&self, unit: UnitId, position: u64) -> TailReply {
        let (data, position, kept_bytes) = self.feed(unit).map_or_else(Default::default, |feed| {
            let bytes = feed.ring.since(&self.memory, position).concat();
            (base64::encode(&bytes), feed.ring.written(), feed.ring.capacity() as u64)
        });
        TailReply { data, position, kept_bytes }
    }

    /// The position behind everything that a unit has said.
    pub(super) fn written(&self, unit: UnitId) -> u64 {
        self.feed(unit).map_or(0, |feed| feed.ring.written())
    }
}

impl Feed {
    /// Of which nothing is kept, yet.
    fn silent() -> Self {
        Self {
            output: Output::default(),
            file: Sink::new(None),
            writer_pid: 0,
            ring: Ring::new(0, 0),
            shown: 0,
            speaker: None,
            run_began: 0,
            last_words: Ring::new(0, 0),
            pipes: [const { None }; 2],
        }
    }

    fn pipe_mut(&mut self, role: Role) -> &mut Option<OwnedFd> {
        let [service, procedure] = &mut self.pipes;
        match role {
            Role::Service => service,
            Role::Procedure => procedure,
        }
    }

    fn close(&mut self, role: Role, poller: &Poller) {
        if let Some(pipe) = self.pipe_mut(role).take() {
            let _ = poller.remove(pipe.as_fd());
        }
    }
}

/// A place for lines, which may take less than it is given.
#[derive(Debug)]
struct Sink {
    fd: Option<OwnedFd>,
    /// Lines that it did not take since the last one that it did.
    dropped: u32,
    /// It took only the beginning of the last line.
    torn: bool,
}

impl Sink {
    fn new(fd: Option<OwnedFd>) -> Self {
        Self { fd, dropped: 0, torn: false }
    }

    fn say(&mut self, priority: &[u8], head: &[&[u8]], words: &[u8]) {
        if self.dropped > 0 {
            let mut note = Text::default();
            note.push(priority);
            note.push(b"lifeboat: lines of units that found no room here: ");
            note.push_number(self.dropped);
            note.push(b"\n");
            if !self.put(&note) {
                self.dropped = self.dropped.saturating_add(1);
                return;
            }
            self.dropped = 0;
        }
        let mut line = Text::default();
        line.push(priority);
        head.iter().for_each(|part| line.push(part));
        line.push(words);
        line.push(b"\n");
        if !self.put(&line) {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// False where not all of it was taken.
    fn put(&mut self, text: &Text) -> bool {
        if self.torn && self.write(b"\n") == 0 {
            return false;
        }
        let taken = self.write(text.bytes());
        let all = taken >= text.bytes().len();
        self.torn = taken > 0 && !all;
        all
    }

    /// How much was taken. Where nobody reads any more, everything is.
    fn write(&mut self, bytes: &[u8]) -> usize {
        loop {
            let Some(fd) = &self.fd else { return bytes.len() };
            match nix::unistd::write(fd, bytes) {
                Ok(length) => return length,
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE) => self.fd = None,
                Err(_) => return 0,
            }
        }
    }
}

/// A line with its name, in fixed memory; what is too long is cut.
struct Text {
    bytes: [u8; LINE_BYTES_MAX + 96],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; LINE_BYTES_MAX + 96], length: 0 }
    }
}

impl Text {
    fn push(&mut self, bytes: &[u8]) {
        let free = self.bytes.get_mut(self.length..).unwrap_or_default();
        let length = free.len().min(bytes.len());
        for (to, from) in free.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.length += length;
    }

    fn push_number(&mut self, number: u32) {
        use std::io::Write;
        let mut digits = [0_u8; 10];
        let mut rest = &mut digits[..];
        // Ten digits are room for every number.
        let _ = write!(rest, "{number}");
        let left = rest.len();
        self.push(digits.get(..digits.len() - left).unwrap_or_default());
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Lifeboat {
    fn speaker(names: &[String], unit: UnitId, role: Role) -> Speaker<'_> {
        Speaker { unit, role, name: names.get(usize::from(unit.0)).map_or("", String::as_str) }
    }

    pub(super) fn open_output(&mut self, unit: UnitId, role: Role) -> Result<Option<OwnedFd>, SpawnError> {
        self.open_log(unit);
        self.outputs.open(Self::speaker(&self.names, unit, role), &self.poller)
    }

    /// The writer of a unit's log file lives as long as lifeboat. One that has ended is replaced at the unit's next
    /// start.
    fn open_log(&mut self, unit: UnitId) {
        let log = self.seats.get(usize::from(unit.0)).and_then(|seat| seat.unit.log.as_ref());
        if let (Some(log), Some(feed)) = (log, self.outputs.feed_mut(unit))
            && feed.file.fd.is_none()
        {
            let oom_score_adj = if self.can_shield { PROCEDURE } else { 0 };
            let writer = start_writer(log, self.null.as_fd(), self.output.as_fd(), oom_score_adj);
            if let Some((pipe, pid)) = writer {
                feed.file = Sink::new(Some(pipe));
                feed.writer_pid = pid;
            }
        }
    }

    /// The end of lifeboat: the writers of log files write what they have, for a second at most.
    pub(super) fn close_logs(&mut self) {
        let deadline = clock::now().plus_ms(WRITERS_MS);
        let feeds = self.outputs.feeds.iter_mut();
        let pids: Vec<u32> = feeds.filter_map(|feed| feed.file.fd.take().map(|_| feed.writer_pid)).collect();
        pids.into_iter().for_each(|pid| wait_for_child(pid, deadline));
    }

    pub(super) fn output_came(&mut self, unit: UnitId, role: Role) {
        self.outputs.read(Self::speaker(&self.names, unit, role), CHUNKS_A_TURN, &self.poller);
    }

    /// Before its exit is handled: what it has said belongs to this run.
    pub(super) fn output_ended(&mut self, unit: UnitId, role: Role, run_is_over: bool) {
        self.outputs.ended(Self::speaker(&self.names, unit, role), run_is_over, &self.poller);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::allocations::made_by;
    use crate::unit::load;
    use std::io::Read;

    const UNIT: UnitId = UnitId(0);

    /// Room for one unit, and the other end of its console and of the kernel log.
    fn outputs(output: &str) -> (Outputs, std::fs::File, std::fs::File) {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!("(command: [\"/bin/true\"], {output})");
        std::fs::write(folder.path().join("a.ron"), text).expect("a unit's file");
        let units = load(&[folder.path().to_owned()], None).units;
        let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).expect("a pipe");
        let ((console, to_console), (log, to_log)) = (pipe(), pipe());
        (Outputs::new(&units, Some(to_console), Some(to_log)), console.into(), log.into())
    }

    fn speaker(role: Role) -> Speaker<'static> {
        Speaker { unit: UNIT, role, name: "a" }
    }

    fn all_of(file: &mut std::fs::File) -> String {
        let mut bytes = Vec::new();
        // It ends with `EAGAIN`, behind everything.
        let _ = file.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn kept(outputs: &Outputs) -> String {
        let feed = outputs.feed(UNIT).expect("the unit");
        String::from_utf8_lossy(&feed.ring.since(&outputs.memory, 0).concat()).into_owned()
    }

    #[test]
    fn pieces_become_lines() {
        use Role::{Procedure, Service};
        let check = |unit: &str, pieces: &[(Role, &str)], ring: &str, shown: [&str; 2]| {
            let (mut outputs, mut console, mut log) = outputs(unit);
            for (role, piece) in pieces {
                outputs.take(speaker(*role), piece.as_bytes());
            }
            assert_eq!(kept(&outputs), ring);
            assert_eq!([&*all_of(&mut console), &*all_of(&mut log)], shown, "{pieces:?}");
        };
        check(
            "",
            &[(Service, "one\ntw"), (Service, "o\n\nhalf")],
            "one\ntwo\n\nhalf",
            ["a: one\na: two\na: \n", ""],
        );
        check("output: Kmsg", &[(Service, "x\r\ny \n")], "x\r\ny \n", ["", "<6>a: x\n<6>a: y\n"]);
        check("output: Null", &[(Service, "x\n")], "x\n", ["", ""]);
        check(
            "",
            &[(Service, "half"), (Procedure, "saved\nal"), (Procedure, "l\n"), (Service, "on\n")],
            "half\nprocedure: saved\nprocedure: all\non\n",
            ["a: half\na: procedure: saved\na: procedure: all\na: on\n", ""],
        );
        // A long line goes on in pieces, out of the smallest ring too.
        let long = "x".repeat(1_300);
        let pieces = format!("a: {0}\na: {0}\na: {1}\n", "x".repeat(512), "x".repeat(276));
        let end = format!("{}\n", "x".repeat(1_023));
        check("output_ring: \"1KiB\"", &[(Service, &long), (Service, "\n")], &end, [&pieces, ""]);
        let many = "y\n".repeat(2_000);
        check(
            "output_ring: \"1KiB\"",
            &[(Service, &many)],
            &"y\n".repeat(512),
            [&"a: y\n".repeat(2_000), ""],
        );
    }

    #[test]
    fn what_a_console_does_not_take_is_counted_and_told() {
        let (mut outputs, mut console, _log) = outputs("");
        for _ in 0..20_000 {
            outputs.take(speaker(Role::Service), b"0123456789\n");
        }
        let taken = all_of(&mut console);
        let whole = taken.lines().filter(|line| *line == "a: 0123456789").count();
        outputs.take(speaker(Role::Service), b"afterwards\n");
        let rest = all_of(&mut console);
        let dropped = 20_000 - whole;
        assert!(dropped > 10_000, "{dropped}");
        let told = format!("lifeboat: lines of units that found no room here: {dropped}\na: afterwards\n");
        assert_eq!(rest.trim_start_matches('\n'), told);
    }

    #[test]
    fn hearing_a_unit_allocates_nothing() {
        let (mut outputs, _console, _log) = outputs("");
        let poller = Poller::new().expect("an epoll instance");
        let write = outputs.open(speaker(Role::Service), &poller).expect("a pipe").expect("a ring");
        nix::unistd::write(&write, &[b'x'; 3_000]).expect("words");
        nix::unistd::write(&write, b"\nlast\n").expect("words");
        let allocations = made_by(|| {
            outputs.read(speaker(Role::Service), CHUNKS_A_TURN, &poller);
            outputs.ended(speaker(Role::Service), true, &poller);
        });
        assert_eq!(allocations, 0);
        assert!(outputs.last_words(UNIT).ends_with(b"x\nlast\n"));
        assert_eq!(outputs.last_words(UNIT).len(), LAST_WORDS_BYTES);
        drop(write);
        outputs.read(speaker(Role::Service), CHUNKS_A_TURN, &poller);
        assert!(outputs.feed(UNIT).is_some_and(|feed| feed.pipes.iter().all(Option::is_none)));
    }
}
