//! What units say: from their pipes into their rings, and from there line by line to where the unit
//! wants them.
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

mod commands;
mod layout;

pub(super) use layout::ring_bytes;

use super::event_loop::Lifeboat;
use super::log_file::{Whose, start_writer};
use super::perform::PROCEDURE;
use super::ring::Ring;
use super::seat::Source;
use super::system_log::SystemLog;
use crate::engine::event::{Role, SpawnStage, Time};
use crate::engine::policy::UnitId;
use crate::sys::aside::wait_for_child;
use crate::sys::clock;
use crate::sys::poll::{Interest, Poller};
use crate::sys::sink::{Sink, Text};
use crate::sys::spawn::{SpawnError, output_pipe};
use crate::unit::{Output, Unit};
use crate::wire::base64;
use crate::wire::reply::TailReply;
use commands::CommandWords;
use nix::errno::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Read from one pipe at once.
const CHUNK_BYTES: usize = 4096;

/// Such reads in one turn.
const CHUNKS_A_TURN: usize = 4;

/// Reads that empty a pipe of the usual size, 64 KiB (pipe(7)).
const CHUNKS_OF_A_PIPE: usize = 16;

/// A longer line goes on in pieces. No more than half of the smallest ring.
pub(super) const LINE_BYTES_MAX: usize = 512;

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
    /// The present run's processes, as far as they have begun.
    pids: [u32; 2],
    /// The end of the last run that has ended.
    last_words: Ring,
    command: CommandWords,
    pipes: [Option<OwnedFd>; 4],
}

/// The output of all units.
#[derive(Debug)]
pub(super) struct Outputs {
    memory: Vec<u8>,
    feeds: Vec<Feed>,
    console: Sink,
    kernel_log: Sink,
    system_log: SystemLog,
}

impl Outputs {
    /// Rings for these units, in their order. Both places must be nonblocking.
    pub(super) fn new(units: &[Unit], console: Option<OwnedFd>, kernel_log: Option<OwnedFd>) -> Self {
        let feeds = units.iter().map(|unit| Feed { output: unit.output, ..Feed::silent() }).collect();
        let (console, kernel_log) = (Sink::new(console), Sink::new(kernel_log));
        let system_log = SystemLog::default();
        let mut outputs = Self { memory: Vec::new(), feeds, console, kernel_log, system_log };
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
        feed.named(role, 0);
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
                    self.hear(speaker, chunk.get(..length).unwrap_or_default());
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

    fn hear(&mut self, speaker: Speaker<'_>, bytes: &[u8]) {
        let Some(feed) = self.feeds.get_mut(usize::from(speaker.unit.0)) else { return };
        if speaker.role != Role::Command || feed.command.hear(&mut self.memory, bytes) {
            self.take(speaker, bytes);
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
            let mark = match role {
                Role::Service | Role::Ballast => b"",
                Role::Procedure => PROCEDURE_MARK,
                Role::Command => feed.command.mark(),
            };
            if feed.output == Output::Syslog {
                feed.make_room(&self.memory, piece.len() + mark.len(), &mut self.system_log);
            }
            if feed.speaker.is_none() {
                feed.ring.push(&mut self.memory, mark);
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
            Output::Syslog => return feed.pass_on_to(&mut self.system_log, &self.memory, name),
            Output::Console => (&mut self.console, b""),
            Output::Kmsg => (&mut self.kernel_log, INFORMATION),
            Output::File => (&mut feed.file, b""),
        };
        let mut line = [0_u8; LINE_BYTES_MAX];
        while let Some(length) = next_line((&feed.ring, feed.shown), &self.memory, &mut line) {
            feed.shown += length as u64;
            let line = line.get(..length).unwrap_or_default();
            let head: &[&[u8]] = match feed.output {
                Output::File => &[],
                Output::Console | Output::Null | Output::Kmsg | Output::Syslog => &[name.as_bytes(), b": "],
            };
            let mut text = Text::default();
            text.push(priority);
            head.iter().for_each(|part| text.push(part));
            text.push(line.trim_ascii_end());
            sink.say(&[priority, b"lifeboat: lines of units that found no room here: "], &text);
        }
    }

    /// The system log takes lines again, or it is time to look whether it does: what waits goes on.
    fn catch_up(&mut self, names: &[String]) {
        for (feed, name) in self.feeds.iter_mut().zip(names) {
            if feed.output == Output::Syslog {
                feed.pass_on_to(&mut self.system_log, &self.memory, name);
            }
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

    /// The end of what the present run has said, at most so many bytes of it.
    pub(super) fn words_of_run(&self, unit: UnitId, bytes: u64) -> Vec<u8> {
        let Some(feed) = self.feed(unit) else { return Vec::new() };
        let from = feed.run_began.max(feed.ring.written().saturating_sub(bytes));
        feed.ring.since(&self.memory, from).concat()
    }

    /// What a unit has said from a position on, as far as it is kept.
    pub(super) fn reply(&self, unit: UnitId, position: u64) -> TailReply {
        let (data, position, kept_bytes) = self.feed(unit).map_or_else(Default::default, |feed| {
            let bytes = feed.ring.since(&self.memory, position).concat();
            (base64::encode(&bytes), feed.ring.written(), feed.ring.capacity() as u64)
        });
        TailReply { data, position, kept_bytes }
    }

    /// When to look for the system log again; `None` where no line waits for it.
    pub(super) fn next_look(&self) -> Option<Time> {
        self.system_log.next_look()
    }

    /// The position behind everything that a unit has said.
    pub(super) fn written(&self, unit: UnitId) -> u64 {
        self.feed(unit).map_or(0, |feed| feed.ring.written())
    }
}

/// The next whole line from a position on, or a piece of one that is too long: its length.
fn next_line((ring, from): (&Ring, u64), memory: &[u8], line: &mut [u8; LINE_BYTES_MAX]) -> Option<usize> {
    let [first, second] = ring.since(memory, from);
    let mut length = 0;
    for (place, byte) in line.iter_mut().zip(first.iter().chain(second)) {
        length += 1;
        *place = *byte;
        if *byte == b'\n' {
            return Some(length);
        }
    }
    (length == LINE_BYTES_MAX).then_some(length)
}

impl Feed {
    /// To the system log, which may take none now: then they wait in the ring.
    fn pass_on_to(&mut self, log: &mut SystemLog, memory: &[u8], name: &str) {
        let mut line = [0_u8; LINE_BYTES_MAX];
        while let Some(length) = next_line((&self.ring, self.shown), memory, &mut line) {
            let words = line.get(..length).unwrap_or_default().trim_ascii_end();
            let [service, procedure] = self.pids;
            let pid = match words.starts_with(PROCEDURE_MARK) {
                true => procedure,
                // What has waited over a restart was said by a process whose number is not known any more.
                false if self.shown < self.run_began => 0,
                false => service,
            };
            if !log.send(name, pid, words) {
                return;
            }
            self.shown += length as u64;
        }
    }

    /// So many bytes are about to be written: lines that still wait and would be overwritten are lost, and counted.
    fn make_room(&mut self, memory: &[u8], bytes: usize, log: &mut SystemLog) {
        let mut line = [0_u8; LINE_BYTES_MAX];
        while self.shown + (self.ring.capacity() as u64) < self.ring.written() + bytes as u64
            && let Some(length) = next_line((&self.ring, self.shown), memory, &mut line)
        {
            self.shown += length as u64;
            log.lose_one();
        }
    }

    fn named(&mut self, role: Role, pid: u32) {
        let [service, procedure] = &mut self.pids;
        match role {
            Role::Service => *service = pid,
            Role::Procedure => *procedure = pid,
            // Its lines go under the service's number, and are marked. A ballast has none.
            Role::Command | Role::Ballast => {}
        }
    }

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
            pids: [0; 2],
            last_words: Ring::new(0, 0),
            command: CommandWords::silent(),
            pipes: [const { None }; 4],
        }
    }

    fn pipe_mut(&mut self, role: Role) -> &mut Option<OwnedFd> {
        let [service, procedure, command, ballast] = &mut self.pipes;
        match role {
            Role::Service => service,
            Role::Procedure => procedure,
            Role::Command => command,
            Role::Ballast => ballast,
        }
    }

    fn close(&mut self, role: Role, poller: &Poller) {
        if let Some(pipe) = self.pipe_mut(role).take() {
            let _ = poller.remove(pipe.as_fd());
        }
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
        let Some(owner) = self.seats.get(usize::from(unit.0)).map(|seat| &seat.unit) else { return };
        if let (Some(log), Some(feed)) = (&owner.log, self.outputs.feed_mut(unit))
            && feed.file.fd.is_none()
        {
            let written = owner.origin.of_field("output").to_string();
            let whose = Whose { unit: owner.policy.name.clone(), written };
            let oom_score_adj = if self.can_shield { PROCEDURE } else { 0 };
            let writer = start_writer((log, &whose), self.null.as_fd(), self.output.as_fd(), oom_score_adj);
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
        for pid in pids {
            // One that is overdue is left to itself.
            let _ = wait_for_child(pid, deadline);
        }
    }

    /// The process that has begun to speak.
    pub(super) fn output_of(&mut self, unit: UnitId, role: Role, pid: u32) {
        if let Some(feed) = self.outputs.feed_mut(unit) {
            feed.named(role, pid);
        }
    }

    /// The system log has room again.
    pub(super) fn system_log_came(&mut self) {
        self.outputs.system_log.has_room(&self.poller);
        self.outputs.catch_up(&self.names);
    }

    /// At the end of a turn: lines that wait for the system log wait for its room, or for the next look.
    pub(super) fn tend_system_log(&mut self) {
        if self.outputs.system_log.is_to_be_tried(clock::now()) {
            self.outputs.catch_up(&self.names);
        }
        self.outputs.system_log.wait_for_room(&self.poller);
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
    fn lines_wait_for_a_syslogd() {
        let (mut outputs, _console, _log) = outputs("output: Syslog, output_ring: \"1KiB\"");
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("log");
        outputs.system_log = SystemLog::at(&place);
        let say = |outputs: &mut Outputs, words: &str| {
            outputs.take(speaker(Role::Service), words.as_bytes());
        };
        let listen = || {
            let socket = std::os::unix::net::UnixDatagram::bind(&place).expect("a socket");
            socket.set_nonblocking(true).expect("a flag");
            socket
        };
        let heard = |socket: &std::os::unix::net::UnixDatagram| {
            let mut lines = Vec::new();
            let mut buffer = [0; 1_024];
            while let Ok(length) = socket.recv(&mut buffer) {
                lines.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
            lines
        };
        let names = ["a".to_owned()];
        say(&mut outputs, "nobody is there\n");
        let look = outputs.next_look().expect("a time of the next look");
        assert!(
            !outputs.system_log.is_to_be_tried(Time(look.0 - 1)) && outputs.system_log.is_to_be_tried(look)
        );
        // The lines are there from the time of the look on, and a line that is not whole waits for its end.
        let socket = listen();
        outputs.system_log = SystemLog::at(&place);
        outputs.feed_mut(UNIT).expect("the unit").named(Role::Service, 77);
        outputs.catch_up(&names);
        assert_eq!(heard(&socket), ["<30>a[77]: nobody is there"]);
        assert_eq!(outputs.next_look(), None);
        // The daemon is restarted: the old socket refuses, the new one takes.
        drop(socket);
        std::fs::remove_file(&place).expect("the socket's file");
        let socket = listen();
        say(&mut outputs, "again\nhalf");
        assert_eq!(heard(&socket), ["<30>a[77]: again"]);
        say(&mut outputs, " and half\n");
        outputs.take(speaker(Role::Procedure), b"saved\n");
        assert_eq!(heard(&socket), ["<30>a[77]: half and half", "<30>a: procedure: saved"]);
        // It does not read: what finds no room in its queue and then in the ring is counted.
        (0..1_000).for_each(|number| say(&mut outputs, &format!("line {number:04}\n")));
        let mut all = Vec::new();
        loop {
            outputs.system_log.full_no_more();
            outputs.catch_up(&names);
            let lines = heard(&socket);
            if lines.is_empty() {
                break;
            }
            all.extend(lines);
        }
        let told = all.iter().find_map(|line| line.split_once("found room here: "));
        let lost: usize = told.and_then(|(_, number)| number.parse().ok()).expect("what was lost");
        assert_eq!(all.len() - 1 + lost, 1_000);
        assert_eq!(all.last().map(String::as_str), Some("<30>a[77]: line 0999"));
        let allocations = made_by(|| {
            outputs.take(speaker(Role::Service), b"without a byte of memory\n");
        });
        assert_eq!(allocations, 0);
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
