//! A process that lifeboat did not start becomes the service of a unit: it is moved into the unit's cgroup with all
//! that descend from it, and watched by its pidfd. What fails on the way leaves everybody where they were.

use super::event_loop::Lifeboat;
use super::groups::told;
use super::perform::{SHIELDED, no_seat};
use super::seat::{Process, Source};
use super::story;
use crate::cgroup::group::Group;
use crate::cgroup::place;
use crate::engine::event::{Event, Role, SpawnStage};
use crate::engine::policy::{Guard, UnitId};
use crate::sys::error::SysError;
use crate::sys::poll::Interest;
use crate::sys::process::{self, Facts};
use crate::sys::spawn::SpawnError;
use crate::unit::Adopted;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Who forks faster than it is moved is in the cgroup by then: children are made in their parent's.
const ROUNDS_MAX: usize = 16;

/// A process that was moved, and what it was before.
struct Moved {
    pid: u32,
    started: u64,
    folder: PathBuf,
    oom_score_adj: Option<i32>,
}

impl Lifeboat {
    /// In place of a start. It takes a time of the loop's: a look at each process of the machine, and an RCU grace
    /// period for each that is moved, some 10 ms. A person asked for it, and once.
    pub(super) fn adopt_process(&mut self, unit: UnitId, wanted: Adopted) -> Result<(), SpawnError> {
        let (first, pidfd) = self.found(wanted)?;
        self.leave_vanished(unit, Role::Service);
        self.make_service_group(unit)?;
        let can_shield = self.can_shield;
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return Err(no_seat()) };
        let Some(group) = &seat.service_group else {
            return Err(SpawnError::new(SpawnStage::JoinCgroup, libc::ENOSYS));
        };
        let shielded = seat.unit.policy.memory.is_some_and(|memory| memory.guard == Guard::Shield);
        let shield = (shielded && group.is_bounded() && can_shield).then_some(SHIELDED);
        self.poller
            .add(pidfd.as_fd(), Source::Adopted(unit).token(), Interest::Read)
            .map_err(|error| told(SpawnStage::JoinCgroup, &error))?;
        if let Err(error) = bring_in(group, first, &pidfd, shield) {
            let _ = self.poller.remove(pidfd.as_fd());
            return Err(error);
        }
        self.pids.insert(wanted.pid, (unit, seat.run, Role::Service));
        self.events.push_back(Event::Spawned { unit, run: seat.run, pid: wanted.pid });
        seat.main = Some(Process { pid: wanted.pid, status: None, go: None, pidfd: Some(pidfd) });
        Ok(())
    }

    /// The process, held, where it is one that may be moved.
    fn found(&self, wanted: Adopted) -> Result<(Facts, OwnedFd), SpawnError> {
        let refused = |errno| SpawnError::new(SpawnStage::JoinCgroup, errno);
        let pidfd = process::hold(wanted.pid).map_err(refused)?;
        // Looked at while it is held, so it is the one that was meant.
        let first = Facts::of(wanted.pid).filter(|it| it.started == wanted.started && !it.over);
        let first = first.ok_or_else(|| refused(libc::ESRCH))?;
        let family = first.family();
        if first.pid == 1 || family.iter().any(|one| one.kernel || one.pid == std::process::id()) {
            return Err(refused(libc::EINVAL));
        }
        let (tree, mount) = (self.tree.as_ref(), mount_point());
        let is_placed = |pid| {
            tree.zip(place::group_of(pid, &mount).ok()).is_some_and(|(tree, folder)| tree.holds(&folder))
        };
        let taken = family.iter().find(|one| self.pids.contains_key(&one.pid) || is_placed(one.pid));
        match taken {
            Some(one) => {
                log::error!("process {} cannot be moved: it is of lifeboat or of a unit already", one.pid);
                Err(refused(libc::EBUSY))
            }
            None => Ok((first, pidfd)),
        }
    }

    /// The pidfd of an adopted process has rung.
    pub(super) fn adopted_came(&mut self, unit: UnitId) {
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        let Some(Process { pid, pidfd: Some(pidfd), .. }) = &seat.main else { return };
        let Some(exit) = process::end_of(*pid, pidfd.as_fd()) else { return };
        let (pid, owner) = (*pid, (unit, seat.run, Role::Service));
        // Its number may be that of a new child by now.
        if self.pids.get(&pid) == Some(&owner) {
            self.pids.remove(&pid);
        }
        self.process_over(owner, pid, exit);
    }
}

fn mount_point() -> PathBuf {
    place::mount_point().ok().flatten().unwrap_or_else(|| place::MOUNT_POINT.into())
}

/// Moves the process and all that descend from it. The first one comes first, so that what it makes meanwhile is made
/// in the group, with its shield.
fn bring_in(group: &Group, first: Facts, pidfd: &OwnedFd, shield: Option<i32>) -> Result<(), SpawnError> {
    let mount = mount_point();
    let mut moved: Vec<Moved> = Vec::new();
    let mut all_in = || {
        for _ in 0..ROUNDS_MAX {
            let before = moved.len();
            for one in first.family() {
                let is_moved = moved.iter().any(|it| (it.pid, it.started) == (one.pid, one.started));
                if !is_moved && !one.over {
                    moved.extend(bring_one(group, one, shield, &mount)?);
                }
            }
            // A number that ended meanwhile may have been another's.
            if process::has_ended(pidfd.as_fd()) {
                return Err(SpawnError::new(SpawnStage::JoinCgroup, libc::ESRCH));
            }
            if moved.len() == before {
                break;
            }
        }
        Ok(())
    };
    all_in().inspect_err(|_| bring_back(group, &moved))
}

/// Moves one process; `None` where it has ended.
fn bring_one(
    group: &Group,
    one: Facts,
    shield: Option<i32>,
    mount: &Path,
) -> Result<Option<Moved>, SpawnError> {
    let Ok(_held) = process::hold(one.pid) else { return Ok(None) };
    if Facts::of(one.pid).is_none_or(|now| now.started != one.started) {
        return Ok(None);
    }
    let gone = |error: &SysError| matches!(error.errno(), libc::ESRCH | libc::ENOENT);
    let folder = match place::group_of(one.pid, mount) {
        Ok(folder) => folder,
        Err(error) if gone(&error) => return Ok(None),
        // Outside of this cgroup namespace: there would be no way back.
        Err(error) => return Err(told(SpawnStage::JoinCgroup, &error)),
    };
    let oom_score_adj = match shield.map(|value| process::set_oom_score_adj(one.pid, value)).transpose() {
        Ok(before) => before,
        Err(error) if gone(&error) => return Ok(None),
        Err(error) => return Err(told(SpawnStage::OomScoreAdj, &error)),
    };
    let moved = Moved { pid: one.pid, started: one.started, folder, oom_score_adj };
    match place::move_to(group.path(), one.pid) {
        Ok(()) => Ok(Some(moved)),
        Err(error) if gone(&error) => Ok(None),
        Err(error) => {
            bring_back_one(&moved);
            Err(told(SpawnStage::JoinCgroup, &error))
        }
    }
}

/// Everybody goes back; what was made meanwhile goes with the first one.
fn bring_back(group: &Group, moved: &[Moved]) {
    moved.iter().for_each(bring_back_one);
    let Some(first) = moved.first() else { return };
    let mut left = Vec::new();
    let _ = group.each_process(|pid| left.push(pid));
    for now in left.into_iter().filter_map(Facts::of) {
        let Facts { pid, started, .. } = now;
        bring_back_one(&Moved { pid, started, folder: first.folder.clone(), ..*first });
    }
}

fn bring_back_one(it: &Moved) {
    // Its number may be another's by now, which was never moved.
    if Facts::of(it.pid).is_none_or(|now| now.started != it.started) {
        return;
    }
    let shield = it.oom_score_adj.map_or(Ok(()), |value| process::set_oom_score_adj(it.pid, value).map(drop));
    for result in [shield, place::move_to(&it.folder, it.pid)] {
        if let Err(error) = result
            && !matches!(error.errno(), libc::ESRCH | libc::ENOENT)
        {
            story::complain(&error);
        }
    }
}
