//! Readiness to events: reads what the kernel has to say and tags it with the unit's run.

use super::event_loop::Lifeboat;
use super::seat::{Seat, Source};
use crate::cgroup::group::Group;
use crate::engine::event::{Effect, Event, Exit, Role, ShutdownKind};
use crate::engine::policy::{RunId, UnitId};
use crate::sys::poll::{Interest, Ready};
use crate::sys::process::Facts;
use crate::sys::spawn::{Status, read_status};
use crate::sys::{children, clock};
use std::os::fd::{AsFd, BorrowedFd};

/// What a signal asks of PID 1: BusyBox's meanings first, then systemd's numbers (`SIGRTMIN+3` to `+5` and `+15`, as
/// plain numbers, since C libraries count `SIGRTMIN` differently).
fn asked_by(signal: i32) -> Option<ShutdownKind> {
    match signal {
        libc::SIGTERM | libc::SIGINT | 39 | 49 => Some(ShutdownKind::Reboot),
        libc::SIGUSR1 | 37 => Some(ShutdownKind::Halt),
        libc::SIGUSR2 | libc::SIGPWR | 38 => Some(ShutdownKind::PowerOff),
        _ => None,
    }
}

impl Lifeboat {
    pub(super) fn signals_came(&mut self) {
        let mut children_died = false;
        let mut asked = None;
        let mut hung_up = false;
        let pids = &self.pids;
        let is_procedure = |pid| matches!(pids.get(&pid), Some((_, _, Role::Procedure)));
        let mut ignored = None;
        self.signals.drain(&mut |signal, sender| {
            // Whoever has sent it: the kernel drops its own while another one is pending.
            children_died |= signal == libc::SIGCHLD;
            match sender.filter(|pid| is_procedure(*pid)) {
                // A procedure that kills its parent costs nobody else anything.
                Some(pid) => ignored = ignored.or(Some((signal, pid))),
                None => {
                    hung_up |= signal == libc::SIGHUP;
                    asked = asked.or(asked_by(signal));
                }
            }
        });
        if let Some((signal, pid)) = ignored {
            self.tell_ignored(signal, pid);
        }
        if children_died {
            self.reap();
        }
        // As `init -q` of other inits asks for it.
        if hung_up {
            self.update_all();
        }
        if let Some(how) = asked {
            self.events.push_back(Event::ShutdownAsked { how });
        }
    }

    /// Once for each procedure, however many it sends.
    fn tell_ignored(&mut self, signal: i32, pid: u32) {
        if std::mem::replace(&mut self.ignored, pid) == pid {
            return;
        }
        let name = self.pids.get(&pid).and_then(|(unit, ..)| self.names.get(usize::from(unit.0)));
        log::warn!(
            "{}: its procedure has sent signal {signal} to its parent, which is lifeboat: ignored; a procedure that is to \
             end the machine has `then: Reboot` or `PowerOff`",
            name.map_or("", String::as_str)
        );
    }

    fn reap(&mut self) {
        while let Some((pid, exit)) = children::reap_one() {
            self.died(pid, exit);
            self.pump();
        }
    }

    /// A pid that belongs to no unit was an orphan: reaping it was all.
    fn died(&mut self, pid: u32, exit: Exit) {
        if self.errand_ended(pid, exit) || self.helper_ended(pid, exit) || self.keeper_ended(pid, exit) {
            return;
        }
        let Some(&(unit, _, role)) = self.pids.get(&pid) else { return };
        if role == Role::Service {
            self.last_words(unit);
        }
        // By its last words another may have taken its place.
        if let Some(owner) = self.pids.remove(&pid) {
            self.process_over(owner, pid, exit);
        }
    }

    /// A process of a run has ended.
    pub(super) fn process_over(&mut self, owner: (UnitId, RunId, Role), pid: u32, exit: Exit) {
        let (unit, run, role) = owner;
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        if role == Role::Procedure && seat.saver.as_ref().is_some_and(|saver| saver.pid != pid) {
            // Another one has taken its place: its start had failed.
            return;
        }
        let adopted = seat.process_mut(role).as_ref().is_some_and(|process| process.pidfd.is_some());
        if seat.group(role).is_none() && !adopted {
            // DEGRADED: what it leaves behind in its session is found only as long as its pid is not another's.
            let _ = children::kill_group(pid);
        }
        // Without cgroups nobody sees when a run is over, and the next one may have begun.
        if seat.process_mut(role).as_ref().is_some_and(|process| process.pid == pid) {
            if role == Role::Service && self.heir_follows(unit) {
                return;
            }
            // Told in the order in which it happened: how the start went, what memory did, the end.
            self.status_came(unit, role);
            if role == Role::Service && exit == Exit::Signal(libc::SIGKILL) {
                self.look_for_the_killer(unit, pid);
            }
            let _ = self.read_memory_events(unit, role);
            self.leave_seat(unit, role);
            if role == Role::Command {
                self.command_output_ended(unit, exit);
            }
            if role != Role::Ballast {
                let run_is_over = self.seats.get(usize::from(unit.0)).is_some_and(|it| it.main.is_none());
                self.output_ended(unit, role, run_is_over);
            }
        }
        self.events.push_back(Event::Exited { unit, run, role, exit });
    }

    /// Where neither lifeboat nor a counter of its cgroup tells why it was killed, the kernel's log may.
    fn look_for_the_killer(&mut self, unit: UnitId, pid: u32) {
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        let counters = seat.group(Role::Service).and_then(|group| group.memory_events().ok());
        let oom_kill = counters.map(|counters| counters.oom_kill);
        let Some(began) = self.engine.riddle_of_a_kill(unit, oom_kill) else { return };
        let by = self.kill_log.killer_of(pid, clock::now().since_us(began));
        self.events.push_back(Event::KilledOutside { unit, run: seat.run, by });
    }

    fn leave_seat(&mut self, unit: UnitId, role: Role) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let Some(process) = seat.process_mut(role).take() else { return };
        // A status pipe that has not told how the start went never will.
        for fd in [&process.status, &process.pidfd].into_iter().flatten() {
            let _ = self.poller.remove(fd.as_fd());
        }
    }

    pub(super) fn status_came(&mut self, unit: UnitId, role: Role) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let (run, resident) = (seat.run_of(role), seat.saver_resides);
        let Some(process) = seat.process_mut(role).as_mut() else { return };
        let (pid, parked) = (process.pid, process.go.is_some());
        let Some(status) = &process.status else { return };
        let event = match (read_status(status.as_fd()), role) {
            (Status::Pending, _) => return,
            // It has its order already, and what its service goes without is told of that.
            (Status::Skipped(..) | Status::Parked, Role::Command) => return self.status_came(unit, role),
            (Status::Skipped(setting, errno), Role::Service | Role::Procedure) => {
                let skipped = true;
                self.events.push_back(Event::SettingRefused { unit, run, setting, errno, skipped });
                // The rest of what the pipe tells, because its process may be about to leave its seat.
                return self.status_came(unit, role);
            }
            (Status::Unlocked(file), _) => {
                self.tell_unlocked(unit, &file);
                return self.status_came(unit, role);
            }
            (Status::NoSecond(errno), _) => {
                self.tell_no_second(unit, errno);
                return self.status_came(unit, role);
            }
            (Status::Parked, Role::Service | Role::Procedure) => {
                self.events.push_back(Event::Parked { unit, run, pid });
                return;
            }
            (Status::Parked, Role::Ballast) => {
                self.events.push_back(Event::BallastStands { unit, run });
                return;
            }
            (Status::Skipped(..) | Status::Running, Role::Ballast) => None,
            // It waits in its program, or has ended there, which its exit tells.
            (Status::Running, Role::Procedure) if parked && resident => {
                Some(Event::Parked { unit, run, pid })
            }
            (Status::Running, Role::Procedure) if resident => None,
            // The pipe's end without a word while it is parked: it was killed there, and its exit tells so.
            (Status::Running, Role::Procedure) if parked => None,
            (Status::Running, Role::Procedure) => Some(Event::ProcedureRunning { unit, run }),
            (Status::Running, Role::Command) => None,
            (Status::Running, Role::Service) => Some(Event::Spawned { unit, run, pid }),
            (Status::Failed(error), role) => {
                Some(Event::SpawnFailed { unit, run, role, stage: error.stage, errno: error.errno() })
            }
        };
        let _ = self.poller.remove(status.as_fd());
        process.status = None;
        self.events.extend(event);
    }

    pub(super) fn memory_events_came(&mut self, unit: UnitId) {
        if self.read_memory_events(unit, Role::Service).is_err()
            && let Some(fd) = self.group(unit, Role::Service).and_then(Group::memory_events_fd)
        {
            // A file that cannot be read any more would ring for ever.
            let _ = self.poller.remove(fd);
        }
    }

    pub(super) fn read_memory_events(&mut self, unit: UnitId, role: Role) -> Result<(), i32> {
        // A ballast lies in the service's cgroup.
        let role = if role == Role::Ballast { Role::Service } else { role };
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return Ok(()) };
        let Some(group) = seat.group(role) else { return Ok(()) };
        let counters = group.memory_events()?;
        self.events.push_back(Event::MemoryEvents { unit, run: seat.run_of(role), role, counters });
        Ok(())
    }

    pub(super) fn pressure_came(&mut self, unit: UnitId, ready: &Ready) {
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        if ready.error {
            // A trigger that rings is no error: its cgroup is gone, and it would ring for ever.
            let group = seat.group(Role::Service);
            for fd in
                [group.and_then(Group::trigger_fd), group.and_then(Group::alarm_fd)].into_iter().flatten()
            {
                let _ = self.poller.remove(fd);
            }
            return;
        }
        self.events.push_back(Event::PressureRang { unit, run: seat.run });
    }

    /// Takes the doorbells out of the epoll set, or back in. They cannot be left in without interest: a changed file of
    /// cgroupfs sets `EPOLLERR` too, which is always told.
    pub(super) fn hear_doorbells(&mut self, unit: UnitId, on: bool) {
        let Some(group) = self.group(unit, Role::Service) else { return };
        let doorbells = [
            (group.memory_events_fd(), Source::MemoryEvents(unit)),
            (group.trigger_fd(), Source::Pressure(unit)),
        ];
        for (fd, source) in doorbells {
            // One that is out, or in, as it should be is as good: the cgroup may have been made anew meanwhile.
            let _ = match (fd, on) {
                (Some(fd), true) => self.poller.add(fd, source.token(), Interest::Priority),
                (Some(fd), false) => self.poller.remove(fd),
                (None, _) => Ok(()),
            };
        }
    }

    pub(super) fn cgroup_events_came(&mut self, unit: UnitId, role: Role) {
        let state_of = |seats: &[Seat]| {
            let seat = seats.get(usize::from(unit.0))?;
            Some((seat.run, seat.group(role)?.state()))
        };
        let mut found = state_of(&self.seats);
        // The last one's signal comes a moment after its group is empty, and is what others wait for.
        if matches!(found, Some((_, Ok(state))) if !state.populated) && self.signals.have_come() {
            self.signals_came();
            self.pump();
            found = state_of(&self.seats);
        }
        let Some((run, state)) = found else { return };
        match state {
            Ok(state) => {
                if state.frozen && role == Role::Service {
                    self.events.push_back(Event::Frozen { unit, run });
                }
                if !state.populated {
                    self.emptied(unit, role);
                }
            }
            Err(libc::ENODEV) => self.cgroup_vanished(unit, role),
            Err(errno) => {
                self.events.push_back(Event::Failed { unit, run, effect: Effect::Kill, errno });
                // A cgroup that cannot be read any more would ring for ever.
                if let Some(fd) = self.group(unit, role).map(Group::events_fd) {
                    let _ = self.poller.remove(fd);
                }
            }
        }
    }

    /// No process is left in the cgroup of a role: the groups that its unit has made there go too.
    pub(super) fn emptied(&mut self, unit: UnitId, role: Role) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        if role == Role::Service {
            seat.pressure = None;
        }
        // What cannot be removed now is tried again before the next run, which does not begin without.
        if let Some(Err(error)) = seat.group(role).map(Group::sweep) {
            log::warn!("{error}: errno {}", error.errno());
        }
        if role == Role::Service {
            // The kernel tells of the last events late: read in the next run they would count as that one's.
            let _ = self.read_memory_events(unit, role);
        }
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        if role == Role::Service
            && self.engine.has_open_incident(unit)
            && let Some(Ok(left)) = seat.group(role).map(Group::left_behind)
        {
            self.events.push_back(Event::LeftBehind { unit, run: seat.run, left });
        }
        let run = seat.run;
        self.events.push_back(Event::Emptied { unit, run, role });
        // The way of an exhaustion allocates nothing, and does not ask: it ends wherever its process is.
        if role == Role::Service && !self.engine.has_open_incident(unit) && self.has_strayed(seat) {
            self.events.push_back(Event::Strayed { unit, run });
        }
    }

    /// Its first process lives, and is a member of another group than its own.
    fn has_strayed(&self, seat: &Seat) -> bool {
        let Some(pid) = seat.main.as_ref().map(|main| main.pid) else { return false };
        let own = seat.unit.policy.name.as_str();
        self.notify.members.of(pid, |member| (member.name == own).then_some(())).is_none()
            && Facts::of(pid).is_some_and(|facts| !facts.over)
    }

    /// Somebody has removed the cgroup under us, so it was empty. The next run makes a new one.
    fn cgroup_vanished(&mut self, unit: UnitId, role: Role) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        // Closing its files ends their watches.
        if let Some(group) = seat.group_mut(role).take() {
            log::warn!("{} was removed by somebody else", group.path().display());
        }
        self.events.push_back(Event::Emptied { unit, run: seat.run_of(role), role });
    }

    /// Reads a unit's memory files; nothing where it has none. Its first process may be gone already: at its limit a
    /// write to tmpfs fails, and ends what makes it.
    pub(super) fn sample(&mut self, unit: UnitId) {
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        if let Some(Ok(mut sample)) = seat.group(Role::Service).map(Group::sample) {
            self.incidents.evidences.add_machine(&mut sample);
            self.events.push_back(Event::MemorySampled { unit, run: seat.run, sample });
        }
    }

    fn group(&self, unit: UnitId, role: Role) -> Option<&Group> {
        self.seats.get(usize::from(unit.0))?.group(role)
    }

    pub(super) fn watch_status(&self, unit: UnitId, role: Role, fd: BorrowedFd<'_>) {
        if let Err(error) = self.poller.add(fd, Source::Status(unit, role).token(), Interest::Read) {
            log::error!("{error}: a start will only be seen to fail by its deadline");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_mean_what_busybox_and_systemd_mean() {
        use ShutdownKind::{Halt, PowerOff, Reboot};
        for (signal, expected) in [
            (libc::SIGTERM, Some(Reboot)),
            (libc::SIGINT, Some(Reboot)),
            (libc::SIGUSR1, Some(Halt)),
            (libc::SIGUSR2, Some(PowerOff)),
            (libc::SIGPWR, Some(PowerOff)),
            (37, Some(Halt)),
            (38, Some(PowerOff)),
            (39, Some(Reboot)),
            (49, Some(Reboot)),
            (libc::SIGHUP, None),
            (libc::SIGCHLD, None),
            (36, None),
        ] {
            assert_eq!(asked_by(signal), expected, "{signal}");
        }
    }
}
