//! A unit's kernel side: its cgroups with their open files, its processes with their pipes.
//!
//! The engine's side of the same unit is `engine::service`. The two are tied by the run's number only.

use super::command::Commands;
use super::readiness::Stamp;
use super::sockets::Descriptors;
use crate::cgroup::group::Group;
use crate::engine::event::Role;
use crate::engine::policy::{RunId, UnitId};
use crate::engine::setting::Limit;
use crate::sys::spawn::{Program, Step};
use crate::sys::{children, process};
use crate::unit::Unit;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

/// A process of the present run that is not reaped yet.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// The pipe that tells how its start goes; closed once it has told everything.
    pub(super) status: Option<OwnedFd>,
    /// What lets it go, while it is parked.
    pub(super) go: Option<OwnedFd>,
    /// What tells its end, where it may be another's child: then the pid alone does not name it.
    pub(super) pidfd: Option<OwnedFd>,
}

impl Process {
    /// One that lifeboat has made.
    pub(super) fn made(pid: u32, status: OwnedFd, go: Option<OwnedFd>) -> Self {
        Self { pid, status: Some(status), go, pidfd: None }
    }

    /// Sends it a signal. A child is not reaped yet, so its pid is still its own.
    pub(super) fn signal(&self, signal: i32) -> Result<(), i32> {
        match &self.pidfd {
            Some(pidfd) => process::signal(pidfd.as_fd(), signal),
            None => children::signal(self.pid, signal),
        }
    }

    /// Without a cgroup: kills it with the session that its start has made; an adopted one alone.
    pub(super) fn kill_session(&self) -> Result<(), i32> {
        match &self.pidfd {
            Some(_) => self.signal(libc::SIGKILL),
            None => children::kill_group(self.pid),
        }
    }
}

/// One unit's kernel side.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) unit: Unit,
    /// The unit as its file has it, where limits were changed since that was read; and those limits.
    pub(super) written: Option<Box<Unit>>,
    pub(super) limited: Vec<Limit>,
    /// What takes this seat's place when nothing of the present run is left.
    pub(super) next: Option<Box<Seat>>,
    pub(super) program: Option<Program>,
    pub(super) procedure_program: Option<Box<Program>>,
    /// The second procedure.
    pub(super) otherwise_program: Option<Box<Program>>,
    /// What the service's process does to itself before it executes its program.
    pub(super) steps: Vec<Step>,
    /// What its procedure's process does.
    pub(super) procedure_steps: Vec<Step>,
    /// The run that the processes and the readiness of the files below belong to.
    pub(super) run: RunId,
    pub(super) service_group: Option<Group>,
    pub(super) procedure_group: Option<Group>,
    pub(super) main: Option<Process>,
    pub(super) saver: Option<Process>,
    /// That one is a resident one.
    pub(super) saver_resides: bool,
    /// Its bound and the pool's are raised by what it is lent.
    pub(super) is_lent: bool,
    /// What was last to be made in its place is the second procedure.
    pub(super) saver_is_second: bool,
    /// The run in which it was told what its parked procedure has not locked in memory.
    pub(super) told_unlocked: Option<RunId>,
    /// A canary's.
    pub(super) ballast: Option<Process>,
    /// What runs beside the service.
    pub(super) commands: Commands,
    /// What stood at `unit.ready_path` before the present run.
    pub(super) old_path: Option<Stamp>,
    /// Our end of the pipe on which it says that it is ready, until it has.
    pub(super) ready_pipe: Option<OwnedFd>,
    /// The end of its `MEMORY_PRESSURE_WATCH` that is written to, once that was: for a reader that stays, the close of
    /// the last one is a hang-up for ever.
    pub(super) pressure: Option<OwnedFd>,
    /// The connection of its present health check.
    pub(super) probe: Option<OwnedFd>,
    /// The process that it wants to have as its first one as soon as the present one has ended.
    pub(super) heir: Option<u32>,
    /// What it last said of itself in the present run.
    pub(super) status: Option<String>,
    /// What is open for it, over all of its runs.
    pub(super) descriptors: Descriptors,
    /// Processor time that its processes had used at the last look in this run.
    pub(super) cpu_usage_us: Option<u64>,
}

impl Seat {
    /// Nobody's.
    pub(super) fn vacant() -> Self {
        Self::of(Unit::vacant(), (None, None), (Vec::new(), Vec::new()), Commands::default())
    }

    /// A seat without a process, for a unit with its programs and steps, its procedure's second.
    pub(super) fn of(
        unit: Unit,
        (program, procedure_program): (Option<Program>, Option<Box<Program>>),
        (steps, procedure_steps): (Vec<Step>, Vec<Step>),
        commands: Commands,
    ) -> Self {
        Self {
            unit,
            written: None,
            limited: Vec::new(),
            next: None,
            program,
            procedure_program,
            otherwise_program: None,
            steps,
            procedure_steps,
            run: RunId::default(),
            service_group: None,
            procedure_group: None,
            main: None,
            saver: None,
            saver_resides: false,
            is_lent: false,
            saver_is_second: false,
            told_unlocked: None,
            ballast: None,
            commands,
            old_path: None,
            ready_pipe: None,
            pressure: None,
            probe: None,
            heir: None,
            status: None,
            descriptors: Descriptors::default(),
            cpu_usage_us: None,
        }
    }

    pub(super) fn process_mut(&mut self, role: Role) -> &mut Option<Process> {
        match role {
            Role::Service => &mut self.main,
            Role::Procedure => &mut self.saver,
            Role::Command => &mut self.commands.process,
            Role::Ballast => &mut self.ballast,
        }
    }

    pub(super) fn group_mut(&mut self, role: Role) -> &mut Option<Group> {
        match role {
            Role::Service | Role::Ballast => &mut self.service_group,
            Role::Procedure => &mut self.procedure_group,
            Role::Command => &mut self.commands.group,
        }
    }

    pub(super) fn group(&self, role: Role) -> Option<&Group> {
        match role {
            Role::Service | Role::Ballast => self.service_group.as_ref(),
            Role::Procedure => self.procedure_group.as_ref(),
            Role::Command => self.commands.group.as_ref(),
        }
    }

    /// What events about this role carry.
    pub(super) fn run_of(&self, role: Role) -> RunId {
        match role {
            Role::Service | Role::Procedure | Role::Ballast => self.run,
            Role::Command => self.commands.run,
        }
    }
}

/// Which run of which unit a pid belongs to, while it is not reaped. So a pid here can not have been reused.
pub(super) type Pids = HashMap<u32, (UnitId, RunId, Role)>;

/// What a file descriptor in the epoll set stands for. The order is the order in which one turn looks at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// The pipe of signals, children included.
    Signals,
    /// The pidfd of an adopted process.
    Adopted(UnitId),
    /// A start's status pipe.
    Status(UnitId, Role),
    /// `memory.events.local` of a service.
    MemoryEvents(UnitId),
    /// The PSI trigger of a service.
    Pressure(UnitId),
    /// `cgroup.events`.
    CgroupEvents(UnitId, Role),
    /// What a unit, its procedure, or a command beside it says.
    Output(UnitId, Role),
    /// The socket of sd_notify(3).
    Notify,
    /// The descriptor on which a service says that it is ready.
    ReadyPipe(UnitId),
    /// The connection of a health check.
    Probe(UnitId),
    /// A socket of a unit that rests.
    Socket(UnitId),
    /// A descriptor that a service has stored.
    Stored(UnitId),
    /// The listening control socket.
    Listener,
    /// A connection of it.
    Client(u64),
    /// The system's log, whose queue was full.
    SystemLog,
}

impl Source {
    /// The token that stands for it in epoll.
    pub(super) fn token(self) -> u64 {
        let of = |kind: u64, unit: UnitId, role: Role| {
            let role = match role {
                Role::Service => 0_u64,
                Role::Procedure => 1,
                Role::Command => 2,
                Role::Ballast => 3,
            };
            kind << 56 | role << 32 | u64::from(unit.0)
        };
        match self {
            Self::Signals => 0,
            Self::Adopted(unit) => 1 << 48 | u64::from(unit.0),
            Self::Status(unit, role) => of(1, unit, role),
            Self::MemoryEvents(unit) => of(2, unit, Role::Service),
            Self::Pressure(unit) => of(3, unit, Role::Service),
            Self::CgroupEvents(unit, role) => of(4, unit, role),
            Self::Output(unit, role) => of(5, unit, role),
            Self::Notify => 6 << 56,
            Self::ReadyPipe(unit) => of(7, unit, Role::Service),
            Self::Probe(unit) => of(8, unit, Role::Service),
            Self::Socket(unit) => of(9, unit, Role::Service),
            Self::Stored(unit) => of(10, unit, Role::Service),
            Self::Listener => 11 << 56,
            Self::Client(id) => 12 << 56 | (id & 0x00ff_ffff_ffff_ffff),
            Self::SystemLog => 20 << 56,
        }
    }

    /// What a token stands for; `None` for one that `token` does not make.
    pub(super) fn of(token: u64) -> Option<Self> {
        let unit = UnitId(u16::try_from(token & 0xffff).ok()?);
        let role = match token >> 32 & 3 {
            0 => Role::Service,
            1 => Role::Procedure,
            2 => Role::Command,
            _ => Role::Ballast,
        };
        match token >> 56 {
            0 if token != 0 => Some(Self::Adopted(unit)),
            0 => Some(Self::Signals),
            1 => Some(Self::Status(unit, role)),
            2 => Some(Self::MemoryEvents(unit)),
            3 => Some(Self::Pressure(unit)),
            4 => Some(Self::CgroupEvents(unit, role)),
            5 => Some(Self::Output(unit, role)),
            6 => Some(Self::Notify),
            7 => Some(Self::ReadyPipe(unit)),
            8 => Some(Self::Probe(unit)),
            9 => Some(Self::Socket(unit)),
            10 => Some(Self::Stored(unit)),
            11 => Some(Self::Listener),
            12 => Some(Self::Client(token & 0x00ff_ffff_ffff_ffff)),
            20 => Some(Self::SystemLog),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_sort_in_the_order_of_a_turn() {
        let sources = [
            Source::Signals,
            Source::Adopted(UnitId(0)),
            Source::Status(UnitId(3), Role::Service),
            Source::Status(UnitId(3), Role::Procedure),
            Source::Status(UnitId(3), Role::Command),
            Source::Status(UnitId(3), Role::Ballast),
            Source::MemoryEvents(UnitId(1_023)),
            Source::Pressure(UnitId(0)),
            Source::CgroupEvents(UnitId(7), Role::Service),
            Source::CgroupEvents(UnitId(7), Role::Procedure),
            Source::CgroupEvents(UnitId(7), Role::Command),
            Source::Output(UnitId(7), Role::Service),
            Source::Output(UnitId(7), Role::Procedure),
            Source::Output(UnitId(7), Role::Command),
            Source::Notify,
            Source::ReadyPipe(UnitId(2)),
            Source::Probe(UnitId(2)),
            Source::Socket(UnitId(2)),
            Source::Stored(UnitId(2)),
            Source::Listener,
            Source::Client(77),
            Source::SystemLog,
        ];
        for source in sources {
            assert_eq!(Source::of(source.token()), Some(source));
        }
        assert!(sources.windows(2).all(|pair| pair[0].token() < pair[1].token()));
    }
}
