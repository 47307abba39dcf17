//! Whom the kernel's OOM killer has killed, as its log says it: for ends that no counter of a cgroup tells of.
//!
//! A line is there before its victim can be reaped: the kernel writes it with the victim's lock held, which the
//! victim's exit takes too (mm/oom_kill.c `__oom_kill_process`, kernel/exit.c `exit_mm`). The log is only read when
//! there is such an end, each record once, and never waited for.

use crate::engine::snapshot::KilledBy;
use crate::sys::{clock, kmsg};
use nix::errno::Errno;
use std::os::fd::OwnedFd;

/// No record that the kernel hands out is longer (`PRINTK_MESSAGE_MAX` of kernel/printk/printk.c).
const RECORD_BYTES: usize = 2_048;

/// Records that are read at once; more than the log of any kernel holds.
const RECORDS_MAX: usize = 100_000;

/// So many kills are remembered: of those that one turn of the loop hears of.
const KILLS_MAX: usize = 16;

/// From the kill to its reaping, at most: even where the machine hardly moves.
const LATE_US: u64 = 60_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kill {
    pid: u32,
    /// By the log's clock, which is close to `CLOCK_MONOTONIC_RAW`.
    at_us: u64,
    by: KilledBy,
}

/// The kernel's log, and the last kills in it.
#[derive(Debug, Default)]
pub(super) struct KillLog {
    file: Option<OwnedFd>,
    kills: [Option<Kill>; KILLS_MAX],
    next: usize,
}

impl KillLog {
    /// Opened once, and kept: where PID 1 has few files left it still finds out who killed whom. Who may not read it
    /// goes without.
    pub(super) fn open() -> Self {
        Self { file: kmsg::open_kmsg_to_read().ok(), ..Self::default() }
    }

    /// Who has killed the process, which has lived for so long. Its number may have been another's before.
    pub(super) fn killer_of(&mut self, pid: u32, lived_us: u64) -> KilledBy {
        self.read_on();
        let since_us = clock::since_boot_us().saturating_sub(lived_us.min(LATE_US));
        self.killer_since(pid, since_us)
    }

    fn killer_since(&self, pid: u32, since_us: u64) -> KilledBy {
        let its = self.kills.iter().flatten().filter(|kill| kill.pid == pid && kill.at_us >= since_us);
        its.max_by_key(|kill| kill.at_us).map_or(KilledBy::Outside, |kill| kill.by)
    }

    fn read_on(&mut self) {
        let Some(file) = self.file.take() else { return };
        let mut record = [0; RECORD_BYTES];
        for _ in 0..RECORDS_MAX {
            match nix::unistd::read(&file, &mut record) {
                Ok(0) => break,
                Ok(length) => self.note(record.get(..length).unwrap_or_default()),
                // Records were overwritten before we came; the next one that is there follows.
                Err(Errno::EPIPE | Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        self.file = Some(file);
    }

    fn note(&mut self, record: &[u8]) {
        let Some(kill) = kill_in(record) else { return };
        if let Some(place) = self.kills.get_mut(self.next) {
            *place = Some(kill);
        }
        self.next = (self.next + 1) % KILLS_MAX;
    }
}

/// The kill that a record of `/dev/kmsg` tells of: `PRIORITY,SEQUENCE,TIME,FLAGS;TEXT`
/// (Documentation/ABI/testing/dev-kmsg). What a process has written there has another facility than the kernel's 0.
fn kill_in(record: &[u8]) -> Option<Kill> {
    let text = std::str::from_utf8(record.split(|byte| *byte == b'\n').next()?).ok()?;
    let (head, text) = text.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let at_us = fields.nth(1)?.parse().ok()?;
    let (by, rest) = [
        (KilledBy::GlobalOom, "Out of memory: Killed process "),
        (KilledBy::CgroupOom, "Memory cgroup out of memory: Killed process "),
    ]
    .into_iter()
    .find_map(|(by, words)| text.strip_prefix(words).map(|rest| (by, rest)))?;
    let (pid, name) = rest.split_once(' ')?;
    (priority < 8 && name.starts_with('(')).then_some(Kill { pid: pid.parse().ok()?, at_us, by })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLOBAL: &str =
        "3,1234,5678901,-;Out of memory: Killed process 77 (recorder) total-vm:1kB, anon-rss:1kB";

    #[test]
    fn only_the_kernels_own_words_count() {
        let by = |record: &str| kill_in(record.as_bytes()).map(|kill| (kill.pid, kill.at_us, kill.by));
        assert_eq!(by(GLOBAL), Some((77, 5_678_901, KilledBy::GlobalOom)));
        let cgroup = GLOBAL.replace("Out", "Memory cgroup out");
        assert_eq!(by(&cgroup), Some((77, 5_678_901, KilledBy::CgroupOom)));
        assert_eq!(by(&format!("{GLOBAL}\n SUBSYSTEM=x\n")), Some((77, 5_678_901, KilledBy::GlobalOom)));
        for other in [
            // A process has written it.
            GLOBAL.replacen("3,", "11,", 1),
            GLOBAL.replacen(";", ";x: ", 1),
            GLOBAL.replace("77", "-7"),
            GLOBAL.replace(" (", " "),
            GLOBAL.replace("5678901", "x"),
            "3,1;Out of memory: Killed process 77 (x)".into(),
            String::new(),
        ] {
            assert_eq!(by(&other), None, "{other}");
        }
        assert_eq!(kill_in(b"3,1,2,-;\xff"), None);
    }

    #[test]
    fn a_number_that_was_anothers_is_no_evidence() {
        let mut log = KillLog::default();
        log.note(GLOBAL.as_bytes());
        assert_eq!(log.killer_since(77, 5_678_901), KilledBy::GlobalOom);
        assert_eq!(log.killer_since(77, 5_678_902), KilledBy::Outside);
        assert_eq!(log.killer_since(78, 0), KilledBy::Outside);
        for pid in 100..120 {
            log.note(GLOBAL.replace("77", &pid.to_string()).as_bytes());
        }
        assert_eq!(log.killer_since(119, 0), KilledBy::GlobalOom);
        assert_eq!(log.killer_since(77, 0), KilledBy::Outside);
    }
}
