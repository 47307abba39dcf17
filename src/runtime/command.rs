//! The commands beside a service: programs in a cgroup of the unit's own, which is none of the service's (that may be
//! full or frozen) and takes nothing of the procedures' reserve. It stands in the pool, whose bound always holds.

use super::event_loop::Lifeboat;
use super::groups::{refused, told};
use super::perform::{no_seat, stdout_of};
use super::seat::{Process, Source};
use crate::cgroup::group::Group;
use crate::engine::action::CommandOrder;
use crate::engine::event::{CommandKind, Effect, Event, Role, SpawnStage};
use crate::engine::policy::{RunId, UnitId};
use crate::sys::poll::Interest;
use crate::sys::spawn::{Order, Program, SpawnError, Start, Step, park, release};
use std::os::fd::AsFd;

/// `oom_score_adj` of a command: where memory is short in the pool or on the whole machine it goes first. It is
/// bounded, and what it does can be done again.
const EXPENDABLE: i32 = 1_000;

/// What a unit has of commands on the kernel's side.
#[derive(Debug, Default)]
pub(super) struct Commands {
    /// By kind; few units have any.
    programs: [Option<Box<Program>>; 4],
    /// What their processes do to themselves before they execute their programs.
    steps: Vec<Step>,
    /// The number of the present one, in place of a run.
    pub(super) run: RunId,
    pub(super) group: Option<Group>,
    pub(super) process: Option<Process>,
}

impl Commands {
    /// Those that a unit has, each made by `program`.
    pub(super) fn new(steps: Vec<Step>, program: impl Fn(CommandKind) -> Option<Program>) -> Self {
        Self { programs: CommandKind::ALL.map(|kind| program(kind).map(Box::new)), steps, ..Self::default() }
    }

    fn program(&self, kind: CommandKind) -> Option<&Program> {
        CommandKind::ALL.iter().zip(&self.programs).find(|(known, _)| **known == kind)?.1.as_deref()
    }
}

impl Lifeboat {
    pub(super) fn run_command(&mut self, unit: UnitId, run: RunId, order: CommandOrder) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        seat.commands.run = run;
        if let Err(error) = self.start_command(unit, run, order) {
            self.spawn_failed(unit, run, Role::Command, error);
            self.events.push_back(Event::Emptied { unit, run, role: Role::Command });
        }
    }

    fn start_command(&mut self, unit: UnitId, run: RunId, order: CommandOrder) -> Result<(), SpawnError> {
        self.leave_vanished(unit, Role::Command);
        self.make_command_group(unit)?;
        self.outputs.command_begins(unit, order.kind);
        let pipe = self.open_output(unit, Role::Command)?;
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return Err(no_seat()) };
        let Some(program) = seat.commands.program(order.kind) else { return Err(no_seat()) };
        let out = stdout_of(pipe.as_ref(), seat.unit.output, &self.null, &self.output);
        let started = park(
            &Start {
                program,
                cgroup: seat.commands.group.as_ref().map(Group::place),
                oom_score_adj: EXPENDABLE,
                stdio: [self.null.as_fd(), out, out],
                steps: &seat.commands.steps,
                working_directory: Some(seat.unit.working_directory.as_deref().unwrap_or(c"/")),
                handed: &[],
            },
            0,
        )?;
        // It waits for nothing: its order is there when it comes to read it.
        let order = Order::new(order.kind.word(), order.main_pid, order.deadline_ms);
        let released = release(started.go.as_fd(), &order);
        self.pids.insert(started.pid, (unit, run, Role::Command));
        seat.commands.process = Some(Process::made(started.pid, started.status, None));
        self.watch_start(unit, Role::Command);
        // One that is gone already has told why, or its end does (EPIPE).
        if let Err(errno) = released
            && errno != libc::EPIPE
        {
            self.events.push_back(Event::SpawnFailed {
                unit,
                run,
                role: Role::Command,
                stage: SpawnStage::Exec,
                errno,
            });
        }
        Ok(())
    }

    /// Made with the first command and kept.
    fn make_command_group(&mut self, unit: UnitId) -> Result<(), SpawnError> {
        let Some(tree) = &self.tree else { return Ok(()) };
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return Err(no_seat()) };
        if let Some(group) = &seat.commands.group {
            return group.wake().map_err(|error| told(SpawnStage::Cgroup, &error));
        }
        let bytes = seat.unit.command_bytes;
        let group = tree.commands(&seat.unit.policy.name, bytes).map_err(|error| refused(&error))?;
        let token = Source::CgroupEvents(unit, Role::Command).token();
        self.poller
            .add(group.events_fd(), token, Interest::Priority)
            .map_err(|error| told(SpawnStage::Cgroup, &error))?;
        seat.commands.group = Some(group);
        Ok(())
    }

    /// Most often nothing is left.
    pub(super) fn kill_command(&mut self, unit: UnitId, run: RunId) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let role = Role::Command;
        let state = seat.commands.group.as_ref().map(|group| match group.state() {
            Ok(state) if state.populated => group.kill().and_then(|()| group.state()),
            other => other,
        });
        match state {
            Some(Ok(state)) if state.populated => {}
            Some(Ok(_) | Err(libc::ENODEV)) => self.events.push_back(Event::Emptied { unit, run, role }),
            Some(Err(errno)) => {
                let effect = Effect::Kill;
                self.events.push_back(Event::Failed { unit, run: seat.run, effect, errno });
            }
            None => {
                // DEGRADED: only its session is known.
                if let Some(process) = &seat.commands.process {
                    let _ = process.kill_session();
                }
                self.events.push_back(Event::Emptied { unit, run, role });
            }
        }
    }
}
