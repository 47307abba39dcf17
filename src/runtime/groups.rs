//! A unit's cgroups before a run: made once, kept over all runs, with every setting read back.

use super::event_loop::Lifeboat;
use super::perform::no_seat;
use super::seat::{Seat, Source};
use super::story;
use crate::cgroup::group::Group;
use crate::cgroup::limits::GroupLimits;
use crate::cgroup::settings::{GroupSettings, Refused};
use crate::cgroup::tree::{GroupError, Share, Tree};
use crate::engine::event::{Event, Role, SpawnStage};
use crate::engine::policy::{Class, Guard, UnitId};
use crate::engine::setting::{Limit, Setting};
use crate::sys::error::SysError;
use crate::sys::poll::{Interest, Poller};
use crate::sys::spawn::SpawnError;

impl Lifeboat {
    /// Somebody may have removed the cgroup while nothing ran in it: the next run gets a new one.
    pub(super) fn leave_vanished(&mut self, unit: UnitId, role: Role) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        if seat.group(role).is_some_and(|group| group.state() == Err(libc::ENODEV)) {
            // Closing its files ends their watches.
            *seat.group_mut(role) = None;
        }
    }

    /// The cgroup of a service is made once; later runs find it thawed, with its limits as they were.
    pub(super) fn make_service_group(&mut self, unit: UnitId) -> Result<(), SpawnError> {
        let share = self.share_of_branch(unit);
        let Some(tree) = &self.tree else { return Ok(()) };
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return Err(no_seat()) };
        let memory = seat.unit.policy.memory;
        let unshielded = memory.is_some_and(|memory| match memory.guard {
            Guard::Shield => !self.can_shield,
            Guard::Canary => false,
            Guard::None => true,
        });
        let limits = GroupLimits {
            memory_max_bytes: memory.map(|memory| memory.max_bytes),
            memory_high_bytes: None,
            // Without a shield the kernel kills, and then it shall kill all of it.
            oom_group: seat.unit.cgroup.oom_group.unwrap_or(unshielded),
            pids_max: seat.unit.pids_max,
        };
        let class = memory.map_or(Class::Pool, |memory| memory.class);
        let is_new = seat.service_group.is_none();
        let mut group = match seat.service_group.take() {
            Some(group) => group,
            None => new_group(tree, seat, class, &limits)?,
        };
        let renewed = if is_new { Ok(()) } else { group.renew(&limits) };
        let handed = hand_over(seat, &mut group);
        let watched = if is_new { watch(&self.poller, unit, &group) } else { Ok(()) };
        let settings = settings_of(seat, share);
        let swaps = |limit: &Limit| limit.setting == Setting::MemorySwapMax && limit.value != Some(0);
        group.set_swaps(settings.limits.iter().any(swaps));
        let group = seat.service_group.insert(group);
        renewed.map_err(|error| told(SpawnStage::Limit, &error))?;
        watched.map_err(|error| told(SpawnStage::Cgroup, &error))?;
        let (run, mut skipped) = (seat.run, Vec::new());
        let taken = tree.set(class, group, (&settings, share), &mut |refused| skipped.push(refused));
        let mut refused = taken.err();
        if let Err(handed) = handed {
            match settings.optional.contains(Setting::Delegate) {
                true => skipped.push(handed),
                false => refused = refused.or(Some(handed)),
            }
        }
        for (refused, skipped) in
            skipped.iter().map(|it| (it, true)).chain(refused.iter().map(|it| (it, false)))
        {
            let (setting, errno) = (refused.setting, refused.cause.errno());
            story::complain(&refused.cause);
            self.events.push_back(Event::SettingRefused { unit, run, setting, errno, skipped });
        }
        match refused {
            Some(refused) => Err(SpawnError::new(SpawnStage::Limit, refused.cause.errno())),
            None => Ok(()),
        }
    }

    /// What the units of this unit's branch may have together.
    fn share_of_branch(&self, unit: UnitId) -> Share {
        let class_of = |seat: &Seat| seat.unit.policy.memory.map_or(Class::Pool, |memory| memory.class);
        let class = self.seats.get(usize::from(unit.0)).map(class_of);
        let seats = self.seats.iter().filter(|seat| Some(class_of(seat)) == class);
        let limits = seats.flat_map(|seat| &seat.unit.cgroup.limits);
        limits.fold(Share::default(), |mut share, limit| {
            let sum = match limit.setting {
                Setting::MemoryMin => &mut share.min_bytes,
                Setting::MemoryLow => &mut share.low_bytes,
                Setting::MemorySwapMax => &mut share.swap_max_bytes,
                _ => return share,
            };
            *sum = sum.saturating_add(limit.value.unwrap_or(0));
            share
        })
    }

    pub(super) fn make_procedure_group(&mut self, unit: UnitId) -> Result<(), SpawnError> {
        let Some(tree) = &self.tree else { return Ok(()) };
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return Err(no_seat()) };
        if let Some(group) = &seat.procedure_group {
            return group.wake().map_err(|error| told(SpawnStage::Cgroup, &error));
        }
        let bytes = seat.unit.policy.procedure.map_or(0, |procedure| procedure.memory_bytes);
        let group = tree.procedure(&seat.unit.policy.name, bytes).map_err(|error| refused(&error))?;
        let token = Source::CgroupEvents(unit, Role::Procedure).token();
        self.poller
            .add(group.events_fd(), token, Interest::Priority)
            .map_err(|error| told(SpawnStage::Cgroup, &error))?;
        seat.procedure_group = Some(group);
        Ok(())
    }
}

/// The settings of a unit's cgroup. Where another unit of its branch may use swap it says for itself that it may not.
fn settings_of(seat: &Seat, share: Share) -> GroupSettings {
    let cgroup = &seat.unit.cgroup;
    let mut limits = cgroup.limits.clone();
    let setting = Setting::MemorySwapMax;
    if share.swap_max_bytes > 0 && limits.iter().all(|limit| limit.setting != setting) {
        limits.push(Limit { setting, value: Some(0) });
    }
    GroupSettings {
        limits,
        cpu_period_us: cgroup.cpu_period_us,
        cpus: cgroup.cpus.clone(),
        mems: cgroup.mems.clone(),
        devices: cgroup.devices.iter().map(|device| (device.path.clone(), device.max)).collect(),
        optional: cgroup.optional,
    }
}

fn new_group(tree: &Tree, seat: &Seat, class: Class, limits: &GroupLimits) -> Result<Group, SpawnError> {
    let policy = &seat.unit.policy;
    let mut group = tree.service(&policy.name, class, limits).map_err(|error| refused(&error))?;
    if policy.procedure.is_some() {
        group.equip().map_err(|error| told(SpawnStage::Cgroup, &error))?;
    }
    // A trigger costs a kernel thread: only where its ringing can lead to anything.
    let guarded = policy.memory.is_some_and(|memory| memory.guard != Guard::None);
    if guarded && policy.procedure.is_some_and(|procedure| procedure.on_exhaustion) {
        group.arm_triggers();
    }
    Ok(group)
}

fn hand_over(seat: &Seat, group: &mut Group) -> Result<(), Refused> {
    let identity = &seat.unit.identity;
    match seat.unit.cgroup.delegate {
        true => group
            .delegate((identity.uid, identity.gid))
            .map_err(|cause| Refused { setting: Setting::Delegate, cause }),
        false => Ok(()),
    }
}

fn watch(poller: &Poller, unit: UnitId, group: &Group) -> Result<(), SysError> {
    let watched = [
        (Some(group.events_fd()), Source::CgroupEvents(unit, Role::Service)),
        (group.memory_events_fd(), Source::MemoryEvents(unit)),
        (group.trigger_fd(), Source::Pressure(unit)),
        (group.alarm_fd(), Source::Pressure(unit)),
    ];
    for (fd, source) in watched {
        if let Some(fd) = fd {
            poller.add(fd, source.token(), Interest::Priority)?;
        }
    }
    Ok(())
}

/// The event carries only the stage and errno; which file refused which value goes to the log.
pub(super) fn told(stage: SpawnStage, error: &SysError) -> SpawnError {
    story::complain(error);
    SpawnError::new(stage, error.errno())
}

pub(super) fn refused(error: &GroupError) -> SpawnError {
    story::complain(error);
    SpawnError::new(error.stage, error.errno())
}
