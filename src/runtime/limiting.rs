//! Limits that are changed while their unit runs. What may wait for memory is done by a process of its own: lifeboat's
//! program in another part (`--set-limit`). So is taking memory from what does not die (`--release-memory`).

use super::event_loop::Lifeboat;
use super::perform::PROCEDURE;
use super::story;
use crate::cgroup::lowering::{Outcome, lower, with_room};
use crate::cgroup::release::release_memory;
use crate::cgroup::settings::{GroupSettings, has_memory_limit};
use crate::cgroup::tree::Share;
use crate::engine::action::{LimitAnswer, LimitOutcome, LimitStep};
use crate::engine::event::{Below, ClientId, Event, Exit, Role, Tried};
use crate::engine::policy::{Class, RunId, UnitId};
use crate::engine::setting::{Limit, Setting};
use crate::sys::children;
use crate::sys::spawn::{Program, SpawnError, Start, start};
use crate::unit::has_quota;
use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A process that works on a unit's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Helper {
    pid: u32,
    unit: UnitId,
    work: Work,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Limit(RunId, Limit, LimitStep),
    /// For a warn stage: what it frees is seen in the next reading.
    Reclaim,
    /// Of so much memory that processes hold which were killed and do not die.
    Release {
        before_bytes: u64,
    },
}

impl Lifeboat {
    pub(super) fn try_limit(&mut self, (unit, run): (UnitId, RunId), limit: Limit, step: LimitStep) {
        let tried = match step {
            LimitStep::Keep => return self.keep_limit(unit, limit),
            LimitStep::AtOnce => self.set_limit_now(unit, limit),
            LimitStep::Reclaim | LimitStep::Set => match self.start_limit(unit, limit, step) {
                Ok(pid) => {
                    self.helpers.push(Helper { pid, unit, work: Work::Limit(run, limit, step) });
                    return;
                }
                Err(error) => Tried::Refused { errno: error.errno() },
            },
        };
        self.limit_tried((unit, run), limit, tried);
    }

    fn limit_tried(&mut self, (unit, run): (UnitId, RunId), limit: Limit, tried: Tried) {
        if tried == Tried::Taken {
            self.keep_limit(unit, limit);
        }
        self.events.push_back(Event::LimitTried { unit, run, limit, tried });
    }

    pub(super) fn limit_asked(&mut self, client: ClientId, unit: UnitId, (limit, below): (Limit, Below)) {
        self.control.expect_outcome(client);
        if self.has_quota(unit, limit) {
            self.events.push_back(Event::LimitAsked { client, unit, limit, below });
        } else {
            let answer = LimitAnswer { errno: Some(libc::ERANGE), ..LimitOutcome::NotTaken.into() };
            self.control.limit_outcome(client, &answer);
        }
    }

    /// Else the unit's next start would fail for it.
    pub(super) fn has_quota(&self, unit: UnitId, limit: Limit) -> bool {
        let period_us = self.seats.get(usize::from(unit.0)).map(|seat| seat.unit.cgroup.cpu_period_us);
        match (limit.setting, limit.value, period_us) {
            (Setting::CpuMax, Some(share), Some(period_us)) => has_quota(share, period_us),
            _ => true,
        }
    }

    /// What the unit's next runs begin with.
    fn keep_limit(&mut self, unit: UnitId, limit: Limit) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        seat.written.get_or_insert_with(|| Box::new(seat.unit.clone()));
        seat.limited.retain(|known| known.setting != limit.setting);
        seat.limited.push(limit);
        seat.unit.take_limit(limit);
    }

    fn set_limit_now(&self, unit: UnitId, limit: Limit) -> Tried {
        let refused = |errno| Tried::Refused { errno };
        let Some((tree, seat)) = self.tree.as_ref().zip(self.seats.get(usize::from(unit.0))) else {
            return refused(libc::ENOENT);
        };
        let Some(group) = seat.group(Role::Service) else { return refused(libc::ENOENT) };
        let class = seat.unit.policy.memory.map_or(Class::Pool, |memory| memory.class);
        let cpu_period_us = seat.unit.cgroup.cpu_period_us;
        let settings = GroupSettings { limits: vec![limit], cpu_period_us, ..GroupSettings::default() };
        match tree.set(class, group, (&settings, Share::default()), &mut |_| {}) {
            Ok(()) => Tried::Taken,
            Err(error) => {
                story::complain(&error.cause);
                refused(error.cause.errno())
            }
        }
    }

    fn start_limit(&self, unit: UnitId, limit: Limit, step: LimitStep) -> Result<u32, SpawnError> {
        let number = limit.value.unwrap_or(u64::MAX).to_string();
        let way: &[u8] = if step == LimitStep::Set { b"set" } else { b"reclaim" };
        self.start_helper(unit, b"--set-limit", &[limit.setting.name().as_bytes(), number.as_bytes(), way])
    }

    /// Starts lifeboat's program in another part, which is told the folder of the unit's group and some words.
    fn start_helper(&self, unit: UnitId, part: &[u8], words: &[&[u8]]) -> Result<u32, SpawnError> {
        let missing = || SpawnError::new(crate::engine::event::SpawnStage::Cgroup, libc::ENOENT);
        let seat = self.seats.get(usize::from(unit.0)).ok_or_else(missing)?;
        let group = seat.group(Role::Service).ok_or_else(missing)?;
        let words = words.iter().copied();
        let words = [b"/proc/self/exe", part, group.path().as_os_str().as_bytes()].into_iter().chain(words);
        let words: Vec<CString> = words.map(|word| CString::new(word).unwrap_or_default()).collect();
        let program = Program::new(&words, &[])?;
        let child = start(&Start {
            program: &program,
            cgroup: None,
            // Better that the old limit stays than that a service goes.
            oom_score_adj: if self.can_shield { PROCEDURE } else { 0 },
            stdio: [self.null.as_fd(), self.output.as_fd(), self.output.as_fd()],
            steps: &[],
            working_directory: Some(c"/"),
            handed: &[],
        })?;
        Ok(child.pid)
    }

    /// Frees so many bytes that can be reclaimed; one such process at a time for a unit.
    pub(super) fn reclaim(&mut self, unit: UnitId, bytes: u64) {
        if self.helpers.iter().any(|helper| helper.unit == unit) {
            return;
        }
        let left_bytes = self.current_bytes(unit).saturating_sub(bytes);
        let limit = Limit { setting: Setting::MemoryMax, value: Some(with_room(left_bytes)) };
        match self.start_limit(unit, limit, LimitStep::Reclaim) {
            Ok(pid) => self.helpers.push(Helper { pid, unit, work: Work::Reclaim }),
            Err(error) => log::error!("nothing is reclaimed for a warn stage: {error}"),
        }
    }

    /// Takes their memory from processes that were killed and do not die.
    pub(super) fn release_memory(&mut self, unit: UnitId) {
        let before_bytes = self.current_bytes(unit);
        match self.start_helper(unit, b"--release-memory", &[]) {
            Ok(pid) => self.helpers.push(Helper { pid, unit, work: Work::Release { before_bytes } }),
            Err(error) => log::error!("no memory is taken from what does not die: {error}"),
        }
    }

    fn memory_released(&self, unit: UnitId, before_bytes: u64, exit: Exit) {
        let name = self.names.get(usize::from(unit.0)).map_or("", String::as_str);
        let (before_kib, now_kib) = (before_bytes >> 10, self.current_bytes(unit) >> 10);
        match exit {
            Exit::Code(0) => {}
            Exit::Code(_) => log::warn!(
                "{name}: what was killed does not die, so its memory was taken: {before_kib} KiB, now {now_kib} KiB"
            ),
            Exit::Signal(_) | Exit::Unseen {} => {
                log::warn!(
                    "{name}: what was killed does not die, and its memory ({now_kib} KiB) cannot be taken"
                )
            }
        }
    }

    /// Whether the process was one that worked on a limit; what it came to is told.
    pub(super) fn helper_ended(&mut self, pid: u32, exit: Exit) -> bool {
        let Some(at) = self.helpers.iter().position(|helper| helper.pid == pid) else { return false };
        let Helper { unit, work, .. } = self.helpers.swap_remove(at);
        let (run, limit, step) = match work {
            Work::Limit(run, limit, step) => (run, limit, step),
            Work::Release { before_bytes } => {
                self.memory_released(unit, before_bytes, exit);
                return true;
            }
            Work::Reclaim => return true,
        };
        let tried = match exit {
            Exit::Code(code) => match (Outcome::of_code(code), step) {
                (Outcome::Done, LimitStep::Set) => Tried::Taken,
                (Outcome::Done, _) => Tried::Fits,
                (Outcome::TooFull, _) => Tried::TooFull { current_bytes: self.current_bytes(unit) },
                (Outcome::Refused(errno), _) => Tried::Refused { errno },
            },
            // Given up, or killed by somebody; maybe just after it has written.
            Exit::Signal(_) if step == LimitStep::Set && self.holds(unit, limit) => Tried::Taken,
            Exit::Signal(_) | Exit::Unseen {} => Tried::Refused { errno: libc::EINTR },
        };
        self.limit_tried((unit, run), limit, tried);
        true
    }

    fn holds(&self, unit: UnitId, limit: Limit) -> bool {
        let group = self.seats.get(usize::from(unit.0)).and_then(|seat| seat.group(Role::Service));
        group.is_some_and(|group| has_memory_limit(group.path(), limit))
    }

    fn current_bytes(&self, unit: UnitId) -> u64 {
        let group = self.seats.get(usize::from(unit.0)).and_then(|seat| seat.group(Role::Service));
        group.and_then(|group| group.sample().ok()).map_or(0, |sample| sample.current_bytes)
    }

    pub(super) fn end_limit(&mut self, unit: UnitId) {
        for helper in self.helpers.iter().filter(|helper| helper.unit == unit) {
            // It may have ended in this very moment; then its end is on its way.
            let _ = children::signal(helper.pid, libc::SIGKILL);
        }
    }
}

/// The process that takes memory: its exit code tells from how many processes.
pub fn release_memory_aside(words: &[OsString]) -> u8 {
    words.first().map_or(0, |folder| release_memory(Path::new(folder)))
}

/// The process: its exit code tells what it came to.
pub fn set_limit_aside(words: &[OsString]) -> u8 {
    let [folder, name, number, step] = words else { return Outcome::Refused(libc::EINVAL).code() };
    let limit = name.to_str().and_then(Setting::of_name).zip(number.to_str().and_then(|it| it.parse().ok()));
    let Some((setting, bytes)) = limit else { return Outcome::Refused(libc::EINVAL).code() };
    lower(Path::new(folder), setting, bytes, step == "set").code()
}
