//! The events of a script.

use super::Stage;
use super::changes::Changed;
use lifeboat::engine::event::{
    Below, ClientId, Effect, Event, Exit, LeftBehind, MemoryEvents, MemorySample, Note, Role, ShutdownKind,
    SpawnStage, Tried, Verb,
};
use lifeboat::engine::policy::{RunId, UnitId};
use lifeboat::engine::setting::{Limit, Setting};
use lifeboat::engine::snapshot::KilledBy;
use serde::Deserialize;
use std::num::NonZeroU32;

/// An event in short form.
#[derive(Clone, Debug, Deserialize)]
pub(crate) enum What {
    Boot,
    Deadline,
    /// The first condition that is not met, from 0.
    ConditionsChecked(String, Option<u8>),
    Parked(String),
    BallastStands(String),
    Spawned(String),
    SpawnFailed(String, Role, SpawnStage, i32),
    /// The setting, errno, and whether it is left out.
    SettingRefused(String, Setting, i32, bool),
    Ready(String),
    Notified(String, Note),
    Probed(String, bool),
    Demanded(String),
    Strayed(String),
    LookedIdle(String, bool),
    ProcedureRunning(String),
    Exited(String, Role, Exit),
    Emptied(String, Role),
    KilledOutside(String, KilledBy),
    Frozen(String),
    Failed(String, Effect, i32),
    /// `oom` of the service has this value now.
    Oom(String, u64),
    /// `oom` and `oom_kill`.
    OomKill(String, u64, u64),
    /// `oom` and `oom_kill`, all of it at limits below the unit's.
    OomKillBelow(String, u64, u64),
    Max(String, u64),
    HighMax(String, u64, u64),
    High(String, u64),
    ProcedureOomKill(String, u64),
    ProcedureHigh(String, u64),
    CommandOomKill(String, u64),
    /// Unreclaimable bytes in KiB.
    Sampled(String, u64),
    /// The same with `full avg10` of PSI, in percent.
    Stalled(String, u64, u16),
    /// The same with the pages that were read again so far.
    Thrashed(String, u64, u16, u32),
    /// Unreclaimable bytes, and what is available of the machine's memory, in KiB.
    MachineShort(String, u64, u32),
    /// U, and what the disk has not taken yet, both in KiB.
    Unwritten(String, u64, u32),
    /// What is still charged in KiB, and how much of it is on tmpfs.
    LeftBehind(String, u64, u64),
    PressureRang(String),
    Asked(u64, String, Verb),
    /// Client, unit, setting, value and what to do where more is used.
    LimitAsked(u64, String, Setting, u64, Below),
    LimitTried(String, Setting, u64, Tried),
    ClientGone(u64),
    ShutdownAsked(ShutdownKind),
    /// From which number on, and by how much.
    IncidentsAhead(u32, u32),
    /// Other units from now on.
    Reconfigure(Vec<Changed>),
    /// The event, but about this run.
    OfRun(u32, Box<What>),
}

impl Stage {
    pub(super) fn event(&self, what: &What, of_run: Option<u32>) -> Event {
        let id = |name: &str| {
            let unit = self.id(name);
            let present = self.engine.run_of(unit).unwrap_or_default();
            (unit, of_run.map_or(present, RunId))
        };
        match what {
            What::Boot => Event::Boot,
            What::Deadline => Event::Deadline,
            What::ConditionsChecked(name, unmet) => Self::conditions_checked(id(name), *unmet),
            What::Parked(name) => {
                let (unit, run) = id(name);
                Event::Parked { unit, run, pid: 200 + u32::from(unit.0) }
            }
            What::Spawned(name) => {
                let (unit, run) = id(name);
                Event::Spawned { unit, run, pid: 100 + u32::from(unit.0) }
            }
            What::SpawnFailed(name, role, ..) | What::Exited(name, role, _) | What::Emptied(name, role) => {
                let (unit, run) = id(name);
                let number = of_run.map_or(self.commands[usize::from(unit.0)], RunId);
                Self::end_of_a_process(what, (unit, if *role == Role::Command { number } else { run }))
            }
            What::Ready(name)
            | What::Notified(name, _)
            | What::Probed(name, _)
            | What::Demanded(name)
            | What::Strayed(name)
            | What::LookedIdle(name, _)
            | What::PressureRang(name)
            | What::KilledOutside(name, _)
            | What::BallastStands(name)
            | What::Frozen(name)
            | What::ProcedureRunning(name) => Self::word_of_a_run(what, id(name)),
            What::Failed(name, effect, errno) => {
                let (unit, run) = id(name);
                Event::Failed { unit, run, effect: *effect, errno: *errno }
            }
            What::Oom(..)
            | What::OomKill(..)
            | What::OomKillBelow(..)
            | What::Max(..)
            | What::HighMax(..)
            | What::High(..)
            | What::ProcedureOomKill(..)
            | What::ProcedureHigh(..) => Self::memory_event(what, id),
            What::CommandOomKill(name, oom_kill) => {
                let unit = self.id(name);
                let run = self.commands[usize::from(unit.0)];
                let counters = MemoryEvents { oom_kill: *oom_kill, ..MemoryEvents::default() };
                Event::MemoryEvents { unit, run, role: Role::Command, counters }
            }
            What::Sampled(..)
            | What::Stalled(..)
            | What::Thrashed(..)
            | What::MachineShort(..)
            | What::Unwritten(..)
            | What::LeftBehind(..) => Self::reading(what, id),
            What::Asked(client, name, verb) => {
                Event::Asked { client: ClientId(*client), unit: self.id(name), verb: *verb }
            }
            What::SettingRefused(..) | What::LimitAsked(..) | What::LimitTried(..) => {
                self.limit_event(what, id)
            }
            What::ClientGone(client) => Event::ClientGone { client: ClientId(*client) },
            What::ShutdownAsked(how) => Event::ShutdownAsked { how: *how },
            What::IncidentsAhead(from, by) => Event::IncidentsAhead { from: *from, by: *by },
            What::Reconfigure(_) => panic!("it is no event"),
            What::OfRun(run, what) => self.event(what, Some(*run)),
        }
    }

    fn reading(what: &What, id: impl Fn(&str) -> (UnitId, RunId)) -> Event {
        match what {
            What::Sampled(name, kib) => {
                let (unit, run) = id(name);
                let bytes = kib << 10;
                let sample =
                    MemorySample { current_bytes: bytes, unreclaimable_bytes: bytes, ..Default::default() };
                Event::MemorySampled { unit, run, sample }
            }
            What::Stalled(name, kib, percent) => {
                let (unit, run) = id(name);
                let (bytes, psi_full_avg10) = (kib << 10, percent * 100);
                let (current_bytes, unreclaimable_bytes) = (bytes, bytes);
                let sample =
                    MemorySample { current_bytes, unreclaimable_bytes, psi_full_avg10, ..Default::default() };
                Event::MemorySampled { unit, run, sample }
            }
            What::Thrashed(name, kib, percent, refaults) => {
                let (unit, run) = id(name);
                let (bytes, psi_full_avg10, refaults) = (kib << 10, percent * 100, *refaults);
                let (current_bytes, unreclaimable_bytes) = (bytes, bytes);
                let stalled = MemorySample { psi_full_avg10, refaults, ..Default::default() };
                let sample = MemorySample { current_bytes, unreclaimable_bytes, ..stalled };
                Event::MemorySampled { unit, run, sample }
            }
            What::MachineShort(name, kib, available_kib) => {
                let (unit, run) = id(name);
                let (bytes, available_kib) = (kib << 10, NonZeroU32::new(*available_kib));
                let (current_bytes, unreclaimable_bytes) = (bytes, bytes);
                let sample =
                    MemorySample { current_bytes, unreclaimable_bytes, available_kib, ..Default::default() };
                Event::MemorySampled { unit, run, sample }
            }
            What::Unwritten(name, kib, dirty_kib) => {
                let (unit, run) = id(name);
                let (unreclaimable_bytes, dirty_kib) = (kib << 10, *dirty_kib);
                let current_bytes = unreclaimable_bytes + (u64::from(dirty_kib) << 10);
                let sample =
                    MemorySample { current_bytes, unreclaimable_bytes, dirty_kib, ..Default::default() };
                Event::MemorySampled { unit, run, sample }
            }
            What::LeftBehind(name, kib, shmem_kib) => {
                let (unit, run) = id(name);
                let (current_bytes, shmem_bytes) = (kib << 10, shmem_kib << 10);
                let left = LeftBehind { current_bytes, shmem_bytes, file_bytes: shmem_bytes };
                Event::LeftBehind { unit, run, left }
            }
            other => panic!("{other:?} is no reading"),
        }
    }

    fn end_of_a_process(what: &What, (unit, run): (UnitId, RunId)) -> Event {
        match what {
            What::SpawnFailed(_, role, stage, errno) => {
                Event::SpawnFailed { unit, run, role: *role, stage: *stage, errno: *errno }
            }
            What::Exited(_, role, exit) => Event::Exited { unit, run, role: *role, exit: *exit },
            What::Emptied(_, role) => Event::Emptied { unit, run, role: *role },
            other => panic!("{other:?} is no end of a process"),
        }
    }

    /// About the run that would begin.
    fn conditions_checked((unit, run): (UnitId, RunId), unmet: Option<u8>) -> Event {
        Event::ConditionsChecked { unit, run: RunId(run.0 + 1), unmet }
    }

    fn word_of_a_run(what: &What, (unit, run): (UnitId, RunId)) -> Event {
        match what {
            What::Frozen(_) => Event::Frozen { unit, run },
            What::Ready(_) => Event::Ready { unit, run },
            What::Notified(_, note) => Event::Notified { unit, run, note: *note },
            What::Probed(_, healthy) => Event::Probed { unit, run, healthy: *healthy },
            What::Strayed(_) => Event::Strayed { unit, run },
            What::Demanded(_) => Event::Demanded { unit, run },
            What::LookedIdle(_, idle) => Event::LookedIdle { unit, run, idle: *idle },
            What::BallastStands(_) => Event::BallastStands { unit, run },
            What::PressureRang(_) => Event::PressureRang { unit, run },
            What::KilledOutside(_, by) => Event::KilledOutside { unit, run, by: *by },
            What::ProcedureRunning(_) => Event::ProcedureRunning { unit, run },
            other => panic!("{other:?} says more than this"),
        }
    }

    fn limit_event(&self, what: &What, id: impl Fn(&str) -> (UnitId, RunId)) -> Event {
        match what {
            What::SettingRefused(name, setting, errno, skipped) => {
                let (unit, run) = id(name);
                Event::SettingRefused { unit, run, setting: *setting, errno: *errno, skipped: *skipped }
            }
            What::LimitAsked(client, name, setting, value, below) => {
                let limit = Limit { setting: *setting, value: Some(*value) };
                let (client, unit) = (ClientId(*client), self.id(name));
                Event::LimitAsked { client, unit, limit, below: *below }
            }
            What::LimitTried(name, setting, value, tried) => {
                let (unit, run) = id(name);
                let limit = Limit { setting: *setting, value: Some(*value) };
                Event::LimitTried { unit, run, limit, tried: *tried }
            }
            other => panic!("{other:?} is nothing about a limit"),
        }
    }

    fn memory_event(what: &What, id: impl Fn(&str) -> (UnitId, RunId)) -> Event {
        let zero = MemoryEvents::default();
        let (name, role, counters) = match what {
            What::Oom(name, oom) => (name, Role::Service, MemoryEvents { oom: *oom, max: *oom, ..zero }),
            What::OomKill(name, oom, oom_kill) => {
                (name, Role::Service, MemoryEvents { oom: *oom, oom_kill: *oom_kill, ..zero })
            }
            What::OomKillBelow(name, oom, oom_kill) => {
                let (oom, oom_kill) = (*oom, *oom_kill);
                (name, Role::Service, MemoryEvents { oom, oom_kill, oom_below: oom, ..zero })
            }
            What::High(name, high) => (name, Role::Service, MemoryEvents { high: *high, ..zero }),
            What::Max(name, max) => (name, Role::Service, MemoryEvents { max: *max, ..zero }),
            What::HighMax(name, high, max) => {
                (name, Role::Service, MemoryEvents { high: *high, max: *max, ..zero })
            }
            What::ProcedureOomKill(name, oom_kill) => {
                (name, Role::Procedure, MemoryEvents { oom_kill: *oom_kill, ..zero })
            }
            What::ProcedureHigh(name, high) => (name, Role::Procedure, MemoryEvents { high: *high, ..zero }),
            other => panic!("{other:?} is no memory event"),
        };
        let (unit, run) = id(name);
        Event::MemoryEvents { unit, run, role, counters }
    }
}
