//! Incidents that outlive the machine: what PID 1 does about them, which never waits for a disk.
//!
//! A closed incident becomes a letter in a file in memory. A process aside (`incident_store`) makes a file on a disk of
//! it, one at a time, and not while a unit is on its way from its exhaustion to its kill. The first such process of a
//! boot only looks how many incidents there are already, so that numbers go on.

use super::event_loop::Lifeboat;
use super::evidence::Evidences;
use super::incident_store::NO_DISK;
use super::perform::PROCEDURE;
use super::story;
use crate::cgroup::parse::STAT_KEYS;
use crate::engine::event::{Event, Exit, Role, Time};
use crate::engine::policy::UnitId;
use crate::engine::snapshot::IncidentStore;
use crate::sys::aside::wait_for_child;
use crate::sys::error::SysError;
use crate::sys::spawn::{Program, SpawnError, Start, start};
use crate::sys::{children, clock, memory};
use crate::wire::episode::Recorded;
use crate::wire::incident::{Brief, MemoryStat, Rest, write_letter};
use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a slow flash may need for one small file.
const KEEP_MS: u64 = 20_000;

/// What all that waits gets when the machine ends.
const LAST_MS: u64 = 3_000;

/// What the log that outlives the machine gets behind that.
const LAST_WORDS_MS: u64 = 1_000;

/// So many wait at most, each with up to 64 KiB of memory; the oldest goes first.
const PENDING_MAX: usize = 8;

/// Between two complaints.
const COMPLAINT_PAUSE_US: u64 = 60_000_000;

/// How much of the end of what a run has said goes into its incident.
const WORDS_BYTES: u64 = 2_048;

/// An answer in words is longer by far than a number, and shorter than this.
const ANSWER_BYTES: usize = 1_024;

/// An incident on its way. Number 0 is the look at the store.
#[derive(Debug)]
struct Letter {
    number: u32,
    text: File,
    /// The disk had its chance.
    gives_up: bool,
}

/// The process that is at work.
#[derive(Debug)]
struct Keeper {
    pid: u32,
    until: Time,
    letter: Letter,
}

/// All that is on its way.
#[derive(Debug, Default)]
pub(super) struct Incidents {
    store: Option<IncidentStore>,
    boot_id: String,
    pending: VecDeque<Letter>,
    keeper: Option<Keeper>,
    /// Numbers up to here stay: they are on files, those of earlier boots too, or have been lost. Incidents are kept in
    /// the order in which they end, so one with a lower number may still come.
    settled: u32,
    /// That were too many, since the last one that was told.
    dropped: u32,
    complained: Option<Time>,
    /// What was seen when memory was exhausted.
    pub(super) evidences: Evidences,
}

impl Incidents {
    /// Keeps them there; nowhere where there is no store.
    pub(super) fn new(store: Option<IncidentStore>) -> Self {
        let store = store.filter(|store| store.keep > 0);
        let mut incidents = Self { store, evidences: Evidences::open(), ..Self::default() };
        if incidents.store.is_some() {
            // The kernel's own text: no disk.
            let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
            id.trim().clone_into(&mut incidents.boot_id);
            incidents.send(0, |_| Ok(()));
        }
        incidents
    }

    fn send(&mut self, number: u32, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) {
        let written = memory::file_in_memory(c"incident").and_then(|text| {
            let mut out = BufWriter::with_capacity(4 << 10, &text);
            let written = write(&mut out).and_then(|()| out.flush());
            drop(out);
            written.map_err(|error| SysError::new("write", "a file in memory", error)).map(|()| text)
        });
        match written {
            Ok(text) => self.pending.push_back(Letter { number, text, gives_up: false }),
            Err(error) => story::complain(&error),
        }
        if self.pending.len() > PENDING_MAX {
            self.pending.pop_front();
            self.dropped += 1;
        }
    }

    /// The disk has given this letter that number (for the look: it is the last one there), or it is lost by its own.
    /// Where those that are not settled get higher ones for it, the engine must know that before the next is closed.
    fn settle(&mut self, number: u32, kept: u32) -> Option<Event> {
        let by = kept.saturating_sub(number);
        let from = self.settled.saturating_add(1);
        self.settled = self.settled.max(kept);
        if by == 0 {
            return None;
        }
        for waits in self.pending.iter_mut().filter(|waits| waits.number >= from) {
            waits.number = waits.number.saturating_add(by);
        }
        Some(Event::IncidentsAhead { from, by })
    }

    fn complain(&mut self, now: Time, words: &str) {
        if self.complained.is_none_or(|at| now.since_us(at) > COMPLAINT_PAUSE_US) {
            self.complained = Some(now);
            log::error!("{words}");
        }
    }
}

impl Lifeboat {
    /// An incident is closed: what is known of it goes into a letter, before the unit's next run changes it.
    pub(super) fn keep_incident(&mut self, unit: UnitId, number: u32) {
        let evidence = self.incidents.evidences.take(unit).unwrap_or_default();
        let Some(incident) = self.engine.incident(number).copied().filter(|_| self.incidents.store.is_some())
        else {
            return;
        };
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        let group = seat.group(Role::Service);
        let words = self.outputs.words_of_run(unit, WORDS_BYTES);
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
        let ago_ms = clock::now().since_us(incident.began) / 1_000;
        let boot_id = self.incidents.boot_id.clone();
        let brief = Brief {
            unit: &seat.unit.policy.name,
            boot_id: &boot_id,
            began_unix_ms: u64::try_from(unix_ms).unwrap_or(0).saturating_sub(ago_ms),
            incident,
        };
        let mut memory_stat = STAT_KEYS.map(|key| (key, None));
        for (place, value) in memory_stat.iter_mut().zip(evidence) {
            place.1 = value;
        }
        let rest = Rest {
            peak_bytes: group.and_then(|group| group.peak_bytes().ok()),
            memory_stat: MemoryStat(&memory_stat),
            words: &String::from_utf8_lossy(&words),
        };
        let events = self.engine.recorder().events().filter(|(_, event)| event.concerns(unit));
        let episode = self.engine.episode(unit, number);
        let episode = episode.as_ref().map(|episode| (&seat.unit.policy, episode));
        let recorded = Recorded(episode.map_err(|missing| *missing));
        self.incidents.send(number, |out| write_letter(out, &brief, &rest, &recorded, events));
    }

    /// At the end of a turn: the next letter goes out when nothing is more urgent.
    pub(super) fn tend_incidents(&mut self) {
        self.keeper_due();
        if self.incidents.keeper.is_none() && !self.incidents.pending.is_empty() && !self.engine.is_rescuing()
        {
            self.next_keeper();
        }
    }

    /// When to call `tend_incidents` at the latest.
    pub(super) fn incidents_until(&self) -> Option<Time> {
        self.incidents.keeper.as_ref().map(|keeper| keeper.until)
    }

    fn next_keeper(&mut self) {
        let Some(letter) = self.incidents.pending.pop_front() else { return };
        match self.start_keeper(&letter) {
            Ok(pid) => {
                let until = clock::now().plus_ms(KEEP_MS);
                self.incidents.keeper = Some(Keeper { pid, until, letter });
            }
            Err(error) => {
                let error = SysError::new("start", "the process that keeps an incident", error.errno());
                let number = letter.number;
                self.incidents.settle(number, number);
                self.incidents.complain(clock::now(), &format!("incident {number} is not kept: {error}"));
            }
        }
    }

    fn start_keeper(&self, letter: &Letter) -> Result<u32, SpawnError> {
        let store = self.incidents.store.clone().unwrap_or_default();
        let (keep, number) = (store.keep.to_string(), letter.number.to_string());
        let settled = self.incidents.settled.to_string();
        let way = if letter.gives_up { NO_DISK } else { "disk" };
        let words = ["/proc/self/exe", "--keep-incident", &store.folder, &keep, &number, &settled, way];
        let program = Program::new(&words.map(|word| CString::new(word).unwrap_or_default()), &[])?;
        let child = start(&Start {
            program: &program,
            cgroup: None,
            oom_score_adj: if self.can_shield { PROCEDURE } else { 0 },
            stdio: [letter.text.as_fd(), self.null.as_fd(), self.output.as_fd()],
            steps: &[],
            working_directory: Some(c"/"),
            handed: &[],
        })?;
        Ok(child.pid)
    }

    /// A disk that does not answer is left alone; the incident goes where it can. The process may be past killing: its
    /// end is reaped whenever it comes.
    fn keeper_due(&mut self) {
        let overdue = |keeper: &mut Keeper| keeper.until <= clock::now();
        let Some(keeper) = self.incidents.keeper.take_if(overdue) else { return };
        let _ = children::signal(keeper.pid, libc::SIGKILL);
        let Letter { number, gives_up, .. } = keeper.letter;
        if number > 0 && !gives_up {
            self.incidents.pending.push_front(Letter { gives_up: true, ..keeper.letter });
        } else {
            self.incidents.settle(number, number);
            let folder = self.incidents.store.as_ref().map_or("", |store| store.folder.as_str());
            let words = format!(
                "incidents are not kept: {folder} does not answer within {} s: is the disk dead?",
                KEEP_MS / 1_000
            );
            self.incidents.complain(clock::now(), &words);
        }
    }

    /// A child has died: true where it was the one that keeps an incident.
    pub(super) fn keeper_ended(&mut self, pid: u32, exit: Exit) -> bool {
        let Some(keeper) = self.incidents.keeper.take_if(|keeper| keeper.pid == pid) else { return false };
        self.keeper_answered(keeper.letter, exit);
        true
    }

    fn keeper_answered(&mut self, letter: Letter, exit: Exit) {
        let mut answer = [0; ANSWER_BYTES];
        let length = letter.text.read_at(&mut answer, 0).unwrap_or(0);
        let answer = String::from_utf8_lossy(answer.get(..length).unwrap_or_default());
        let number = letter.number;
        let kept = answer.parse::<u32>().ok().filter(|_| exit == Exit::Code(0));
        if let Some(ahead) = self.incidents.settle(number, kept.unwrap_or(number)) {
            // What waits in front of it may close another incident.
            self.events.push_front(ahead);
        }
        match (exit, kept) {
            (Exit::Code(0), Some(kept)) => {
                if kept > number && number > 0 {
                    log::info!("incident {number} is {kept} from now on: there are others");
                }
            }
            (Exit::Code(1), _) => self.incidents.complain(clock::now(), &answer),
            (exit, _) => {
                let words =
                    format!("incident {number} is not kept: the process for that ended with {exit:?}");
                self.incidents.complain(clock::now(), &words);
            }
        }
        let dropped = std::mem::take(&mut self.incidents.dropped);
        if dropped > 0 {
            log::error!("{dropped} incidents are not kept: more came than the disk has taken in time");
        }
    }

    /// The end of lifeboat: what waits is written, for a few seconds at most. What the disk has not taken by then goes
    /// where it can.
    pub(super) fn close_incidents(&mut self) {
        self.send_what_waits(clock::now().plus_ms(LAST_MS));
        self.incidents.pending.retain(|letter| letter.number > 0);
        self.incidents.pending.iter_mut().for_each(|letter| letter.gives_up = true);
        self.send_what_waits(clock::now().plus_ms(LAST_WORDS_MS));
    }

    fn send_what_waits(&mut self, deadline: Time) {
        while deadline > clock::now() {
            // No more than wait: each is told.
            self.incidents.complained = None;
            if self.incidents.keeper.is_none() {
                self.next_keeper();
            }
            let Some(keeper) = self.incidents.keeper.take() else {
                if self.incidents.pending.is_empty() {
                    return;
                }
                continue;
            };
            let Some(exit) = wait_for_child(keeper.pid, deadline) else {
                let _ = children::signal(keeper.pid, libc::SIGKILL);
                self.incidents.pending.push_front(keeper.letter);
                return;
            };
            self.keeper_answered(keeper.letter, exit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_disk_is_bounded() {
        let mut incidents = Incidents { store: Some(IncidentStore::default()), ..Incidents::default() };
        for number in 1..=20 {
            incidents.send(number, |out| out.write_all(b"text"));
        }
        let waiting: Vec<u32> = incidents.pending.iter().map(|letter| letter.number).collect();
        assert_eq!((waiting, incidents.dropped), ((13..=20).collect(), 12));
        assert!(Incidents::new(None).pending.is_empty());
        let off = IncidentStore { keep: 0, ..IncidentStore::default() };
        assert!(Incidents::new(Some(off)).pending.is_empty());
    }

    #[test]
    fn a_number_that_is_on_a_file_stays() {
        let mut incidents = Incidents::default();
        let waiting = |incidents: &Incidents| -> Vec<u32> {
            incidents.pending.iter().map(|letter| letter.number).collect()
        };
        let ahead = |from, by| Some(Event::IncidentsAhead { from, by });
        // The look: earlier boots have 16.
        incidents.send(1, |_| Ok(()));
        assert_eq!((incidents.settle(0, 16), waiting(&incidents)), (ahead(1, 16), vec![17]));
        // Incident 17 lasts: 18 is on a file before it.
        incidents.pending.clear();
        assert_eq!(incidents.settle(18, 18), None);
        assert_eq!((incidents.settle(17, 17), incidents.settled), (None, 18));
        // Somebody else has taken 19 to 22.
        incidents.send(20, |_| Ok(()));
        assert_eq!((incidents.settle(19, 23), waiting(&incidents)), (ahead(19, 4), vec![24]));
        assert_eq!((incidents.settle(24, 24), incidents.settled), (None, 24));
        // What is lost keeps its number too.
        assert_eq!((incidents.settle(25, 25), incidents.settle(26, 30)), (None, ahead(26, 4)));
    }

    #[test]
    fn complaints_come_once_a_minute() {
        let mut incidents = Incidents::default();
        for (at_s, told_at_s) in [(5, 5), (6, 5), (65, 5), (66, 66)] {
            incidents.complain(Time(at_s * 1_000_000), "x");
            assert_eq!(incidents.complained, Some(Time(told_at_s * 1_000_000)));
        }
    }
}
