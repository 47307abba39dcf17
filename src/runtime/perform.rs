//! Actions to the kernel. What comes of them goes back as events, also when it fails at once.

use super::event_loop::Lifeboat;
use super::parked::lockable_bytes;
use super::seat::Process;
use crate::cgroup::group::Group;
use crate::cgroup::parse::GroupState;
use crate::engine::action::{Action, ProcedureOrder};
use crate::engine::event::{ClientId, Effect, Event, Role, SpawnStage};
use crate::engine::policy::{Guard, RunId, UnitId};
use crate::sys::children;
use crate::sys::spawn::{
    Handed, Order, SpawnError, Start, notification_pipe, park, release, release_resident, reside, start,
};
use crate::unit::Output;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// `oom_score_adj` of a shielded service: the kernel never chooses it (`OOM_SCORE_ADJ_MIN`, include/uapi/linux/oom.h).
pub(super) const SHIELDED: i32 = -1_000;

/// Of a procedure: chosen last when all of the machine's memory is gone, but still chosen in its own cgroup, so that
/// one that outgrows its share dies at once and does not hang until its deadline.
pub(super) const PROCEDURE: i32 = -999;

/// Of a service without a shield.
const ORDINARY: i32 = 0;

/// `ENOSYS` of errno(3).
const ENOSYS: i32 = libc::ENOSYS;

impl Lifeboat {
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::CheckConditions { unit, run } => self.check_conditions(unit, run),
            Action::Park { unit, run } => self.begin_park(unit, run),
            Action::ParkOtherwise { unit, run } => self.begin_otherwise(unit, run),
            Action::MakeBallast { unit, run, bytes } => self.begin_ballast(unit, run, bytes),
            Action::Spawn { unit, run } => self.begin_spawn(unit, run),
            Action::Probe { unit, run } => self.probe(unit, run),
            Action::EndProbe { unit, run: _ } => self.end_probe(unit),
            Action::LookForPath { unit, run } => self.look_for_path(unit, run),
            Action::Freeze { unit, run } => self.freeze(unit, run),
            Action::Hold { unit, run } => self.freeze(unit, run),
            Action::Thaw { unit, run: _ } => self.thaw(unit),
            Action::TryLimit { unit, run, limit, step } => self.try_limit((unit, run), limit, step),
            Action::EndLimit { unit, run: _ } => self.end_limit(unit),
            Action::ReplyLimit { client, answer } => {
                self.control.limit_outcome(client, &answer);
                self.flush_answer(client);
            }
            Action::StartProcedure { unit, run, order } => self.start_procedure(unit, run, order),
            Action::ReadPeak { unit, run } => self.read_peak(unit, run),
            Action::Lend { unit, run, max_bytes, lend_bytes } => {
                if let Err(errno) = self.lend(unit, max_bytes, lend_bytes) {
                    self.events.push_back(Event::Failed { unit, run, effect: Effect::Lend, errno });
                }
            }
            Action::TakeBack { unit, run: _, max_bytes, lend_bytes } => {
                self.take_back(unit, max_bytes, lend_bytes);
            }
            Action::Signal { unit, run: _, signal, reason: _ } => self.signal(unit, signal),
            Action::SignalAll { unit, run, signal, reason: _ } => self.signal_all(unit, run, signal),
            Action::KillCgroup { unit, run, role, reason: _ } => self.kill_cgroup(unit, run, role),
            Action::Adopt { unit } => self.adopt(unit),
            Action::Dismiss { unit } => self.dismiss(unit),
            Action::Doorbells { unit, run: _, on } => self.hear_doorbells(unit, on),
            Action::Sample { unit, run: _ } => {
                // A file that cannot be read any more is dealt with where it rings.
                let _ = self.read_memory_events(unit, Role::Service);
                self.sample(unit);
                self.note_evidence(unit);
            }
            Action::Ring { unit, run: _, high_bytes } => self.ring(unit, high_bytes),
            Action::Reclaim { unit, run: _, bytes } => self.reclaim(unit, bytes),
            Action::ReleaseMemory { unit, run: _ } => self.release_memory(unit),
            Action::NotifyPressure { unit, run: _ } => self.notify_pressure(unit),
            Action::RunCommand { unit, run, order } => self.run_command(unit, run, order),
            Action::KillCommand { unit, run, reason: _ } => self.kill_command(unit, run),
            Action::LookIdle { unit, run } => self.look_idle(unit, run),
            Action::Listen { unit, run } => {
                if let Err(error) = self.listen(unit) {
                    self.spawn_failed(unit, run, Role::Service, error);
                }
            }
            Action::CloseDescriptors { unit } => self.close_descriptors(unit),
            Action::KeepIncident { unit, number } => self.keep_incident(unit, number),
            Action::Log(record) => {
                self.story.tell(&record, &self.names);
                self.blame(&record);
            }
            Action::Reply { client, reply } => {
                self.control.outcome(client, reply);
                self.flush_answer(client);
            }
            Action::Finish { how } => self.finished = Some(how),
        }
    }

    fn begin_park(&mut self, unit: UnitId, run: RunId) {
        self.take_seat(unit, run);
        if self.parks_already(unit, run) {
            return;
        }
        if let Err(error) = self.park(unit, false) {
            self.spawn_failed(unit, run, Role::Procedure, error);
        }
    }

    fn begin_otherwise(&mut self, unit: UnitId, run: RunId) {
        if let Err(error) = self.park(unit, true) {
            self.spawn_failed(unit, run, Role::Procedure, error);
        }
    }

    /// The process that the last run has left in its parking place is this run's.
    fn parks_already(&mut self, unit: UnitId, run: RunId) -> bool {
        let seat = self.seats.get(usize::from(unit.0));
        let parked = seat.and_then(|seat| seat.saver.as_ref()).filter(|process| process.go.is_some());
        let Some(pid) = parked.map(|process| process.pid) else { return false };
        self.pids.insert(pid, (unit, run, Role::Procedure));
        self.events.push_back(Event::Parked { unit, run, pid });
        true
    }

    fn begin_spawn(&mut self, unit: UnitId, run: RunId) {
        self.take_seat(unit, run);
        self.unwatch_sockets(unit);
        let adopt = self.seats.get(usize::from(unit.0)).and_then(|seat| seat.unit.adopt);
        let made = match adopt {
            Some(process) => self.adopt_process(unit, process),
            None => self.spawn(unit),
        };
        if let Err(error) = made {
            self.spawn_failed(unit, run, Role::Service, error);
        }
    }

    fn flush_answer(&mut self, client: ClientId) {
        if !self.control.flush(client, &self.poller) {
            self.control.close(client);
            self.events.push_back(Event::ClientGone { client });
        }
    }

    pub(super) fn take_seat(&mut self, unit: UnitId, run: RunId) {
        if let Some(seat) = self.seats.get_mut(usize::from(unit.0)) {
            if seat.run != run {
                if let Some(socket) = seat.probe.take() {
                    let _ = self.poller.remove(socket.as_fd());
                }
                seat.status = None;
                seat.heir = None;
                seat.cpu_usage_us = None;
                if let Some(pipe) = seat.ready_pipe.take() {
                    let _ = self.poller.remove(pipe.as_fd());
                }
            }
            seat.run = run;
        }
    }

    pub(super) fn spawn_failed(&mut self, unit: UnitId, run: RunId, role: Role, error: SpawnError) {
        self.events.push_back(Event::SpawnFailed {
            unit,
            run,
            role,
            stage: error.stage,
            errno: error.errno(),
        });
    }

    fn park(&mut self, unit: UnitId, otherwise: bool) -> Result<(), SpawnError> {
        if let Some(seat) = self.seats.get_mut(usize::from(unit.0)) {
            seat.saver_is_second = otherwise;
        }
        self.leave_vanished(unit, Role::Procedure);
        self.make_procedure_group(unit)?;
        let pipe = self.open_output(unit, Role::Procedure)?;
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return Err(no_seat()) };
        let program = if otherwise { &seat.otherwise_program } else { &seat.procedure_program };
        let Some(program) = program else { return Err(no_seat()) };
        let out = stdout_of(pipe.as_ref(), seat.unit.output, &self.null, &self.output);
        let start = Start {
            program,
            cgroup: seat.procedure_group.as_ref().map(Group::place),
            oom_score_adj: if self.can_shield { PROCEDURE } else { ORDINARY },
            stdio: [self.null.as_fd(), out, out],
            steps: &seat.procedure_steps,
            working_directory: Some(seat.unit.working_directory.as_deref().unwrap_or(c"/")),
            handed: &[],
        };
        let resides = !otherwise && seat.unit.policy.procedure.is_some_and(|it| it.resident);
        // A second procedure comes at once: what it needs is read when it runs.
        let lock_max_bytes = if otherwise { 0 } else { lockable_bytes(&seat.unit) };
        let parked = if resides { reside(&start)? } else { park(&start, lock_max_bytes)? };
        self.pids.insert(parked.pid, (unit, seat.run, Role::Procedure));
        seat.saver = Some(Process::made(parked.pid, parked.status, Some(parked.go)));
        seat.saver_resides = resides;
        let pid = parked.pid;
        self.output_of(unit, Role::Procedure, pid);
        self.watch_start(unit, Role::Procedure);
        Ok(())
    }

    fn spawn(&mut self, unit: UnitId) -> Result<(), SpawnError> {
        self.leave_vanished(unit, Role::Service);
        self.make_service_group(unit)?;
        let pipe = self.open_output(unit, Role::Service)?;
        self.see_to_pressure_fifo(unit);
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return Err(no_seat()) };
        seat.remember_path();
        seat.open_sockets()?;
        let Some(program) = &mut seat.program else { return Err(no_seat()) };
        program.listen(seat.descriptors.names());
        let shielded = seat.unit.policy.memory.is_some_and(|memory| memory.guard == Guard::Shield);
        // Without a bound there is no shield: an unkillable process would take the machine with it.
        let bounded = seat.service_group.as_ref().is_some_and(Group::is_bounded);
        let out = stdout_of(pipe.as_ref(), seat.unit.output, &self.null, &self.output);
        let ready = seat.unit.notification_fd.map(|_| notification_pipe()).transpose()?;
        let mut handed: Vec<Handed<'_>> = seat.descriptors.handed().collect();
        handed.extend(ready.as_ref().zip(seat.unit.notification_fd).map(|(pipe, fd)| (pipe.1.as_fd(), fd)));
        let child = start(&Start {
            program,
            cgroup: seat.service_group.as_ref().map(Group::place),
            oom_score_adj: if shielded && bounded && self.can_shield { SHIELDED } else { ORDINARY },
            stdio: [self.null.as_fd(), out, out],
            steps: &seat.steps,
            working_directory: Some(seat.unit.working_directory.as_deref().unwrap_or(c"/")),
            handed: &handed,
        })?;
        self.pids.insert(child.pid, (unit, seat.run, Role::Service));
        seat.main = Some(Process::made(child.pid, child.status, None));
        seat.ready_pipe = ready.map(|(read, _)| read);
        self.output_of(unit, Role::Service, child.pid);
        self.watch_start(unit, Role::Service);
        self.watch_ready_pipe(unit);
        Ok(())
    }

    pub(super) fn watch_start(&mut self, unit: UnitId, role: Role) {
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        let process = match role {
            Role::Service => &seat.main,
            Role::Procedure => &seat.saver,
            Role::Command => &seat.commands.process,
            Role::Ballast => &seat.ballast,
        };
        if let Some(status) = process.as_ref().and_then(|process| process.status.as_ref()) {
            self.watch_status(unit, role, status.as_fd());
        }
    }

    fn freeze(&mut self, unit: UnitId, run: RunId) {
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        let Some(group) = &seat.service_group else {
            self.events.push_back(Event::Failed { unit, run, effect: Effect::Freeze, errno: ENOSYS });
            return;
        };
        match group.freeze() {
            // An empty or quick cgroup is frozen already; else the file's notification tells.
            Ok(()) if group.state().is_ok_and(|state| state.frozen) => {
                self.events.push_back(Event::Frozen { unit, run });
            }
            Ok(()) => {}
            Err(errno) => {
                self.events.push_back(Event::Failed { unit, run, effect: Effect::Freeze, errno });
            }
        }
    }

    fn start_procedure(&mut self, unit: UnitId, run: RunId, order: ProcedureOrder) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let go = seat.saver.as_mut().and_then(|process| process.go.take());
        // Opened now: a service may have named another first process meanwhile.
        let made = seat.main.as_ref().filter(|process| process.pidfd.is_none());
        let opened = made.and_then(|process| children::pidfd(process.pid));
        let pidfd = opened.as_ref().or(seat.main.as_ref().and_then(|process| process.pidfd.as_ref()));
        let given = [pidfd.map(AsFd::as_fd), seat.service_group.as_ref().map(|it| it.place().folder)];
        let order = Order::new(order.cause.word(), order.main_pid, order.deadline_ms)
            .with(seat.descriptors.stored(), given);
        let resident = seat.saver_resides;
        let released = match &go {
            Some(go) if resident => release_resident(go.as_fd(), &order),
            Some(go) => release(go.as_fd(), &order),
            None => Err(libc::ESRCH),
        };
        match released {
            Ok(()) if resident => self.events.push_back(Event::ProcedureRunning { unit, run }),
            Ok(()) => {}
            Err(errno) => {
                self.events.push_back(Event::Failed { unit, run, effect: Effect::StartProcedure, errno });
            }
        }
    }

    /// To the first process only.
    fn signal(&mut self, unit: UnitId, signal: i32) {
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        if let Some(process) = &seat.main {
            // It may have ended in this very moment; then its exit is on its way.
            let _ = process.signal(signal);
        }
    }

    /// Without a cgroup nobody sees what is left: the end of the first process has killed its session.
    fn signal_all(&mut self, unit: UnitId, run: RunId, signal: i32) {
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        let Some(group) = &seat.service_group else {
            self.events.push_back(Event::Emptied { unit, run, role: Role::Service });
            return;
        };
        match group.state() {
            Ok(state) if state.populated => {
                if let Err(errno) = group.signal(signal) {
                    // Its deadline goes on, and ends with `cgroup.kill`.
                    self.events.push_back(Event::Failed { unit, run, effect: Effect::Signal, errno });
                }
            }
            Ok(_) | Err(libc::ENODEV) => {
                self.events.push_back(Event::Emptied { unit, run, role: Role::Service });
            }
            Err(errno) => self.events.push_back(Event::Failed { unit, run, effect: Effect::Signal, errno }),
        }
    }

    fn kill_cgroup(&mut self, unit: UnitId, run: RunId, role: Role) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        // A resident one may have children.
        let alone = !(role == Role::Procedure && seat.saver_resides);
        let parked = seat.process_mut(role).as_ref().filter(|process| alone && process.go.is_some());
        let parked = parked.map(|process| process.pid);
        let ended = seat.group(role).map(|group| end_all(group, parked));
        // Root can move a process out of its unit's cgroup, where `cgroup.kill` does not find it.
        if let (Some(Ok(_)), Some(process)) = (ended, seat.process_mut(role)) {
            let _ = process.signal(libc::SIGKILL);
        }
        match ended {
            Some(Ok(state)) if state.populated => {}
            // Removed by somebody else means that it was empty.
            Some(Ok(_)) => self.emptied(unit, role),
            Some(Err(libc::ENODEV)) => self.events.push_back(Event::Emptied { unit, run, role }),
            Some(Err(errno)) => {
                self.events.push_back(Event::Failed { unit, run, effect: Effect::Kill, errno });
            }
            None => self.kill_without_cgroup(unit, run, role),
        }
    }

    /// DEGRADED: without cgroups there is only the session that the start made, and no way to see that it is empty.
    fn kill_without_cgroup(&mut self, unit: UnitId, run: RunId, role: Role) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        if let Some(process) = seat.process_mut(role) {
            let _ = process.kill_session();
        }
        if let Some(ballast) = seat.ballast.as_ref().filter(|_| role == Role::Service) {
            let _ = ballast.kill_session();
        }
        self.events.push_back(Event::Emptied { unit, run, role });
    }
}

/// Ends every process of the group; what is left then. `cgroup.kill` comes last: once it was used, processes have to be
/// moved into the group (see `Way::Moved`), which waits for an RCU grace period. So an empty group is left alone, and
/// one that holds nothing but a parked process loses that one.
fn end_all(group: &Group, parked: Option<u32>) -> Result<GroupState, i32> {
    match (group.state(), parked) {
        (Ok(state), _) if !state.populated => Ok(state),
        (Ok(state), Some(pid)) => children::signal(pid, libc::SIGKILL).map(|()| state),
        (Ok(_) | Err(_), _) => group.kill().and_then(|()| group.state()),
    }
}

pub(super) fn stdout_of<'a>(
    pipe: Option<&'a OwnedFd>,
    output: Output,
    null: &'a OwnedFd,
    console: &'a OwnedFd,
) -> BorrowedFd<'a> {
    match (pipe, output) {
        (Some(pipe), _) => pipe.as_fd(),
        (None, Output::Console) => console.as_fd(),
        (None, Output::Null | Output::Kmsg | Output::Syslog | Output::File) => null.as_fd(),
    }
}

pub(super) fn no_seat() -> SpawnError {
    SpawnError::new(SpawnStage::Clone, libc::EINVAL)
}
