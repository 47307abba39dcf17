//! A unit's settings as the steps that its processes take on their way to `execve`.
//!
//! The order matters: what needs root comes before the user changes; mounts come after the root directory is entered,
//! so that their paths mean what the service sees.

use crate::engine::setting::{Setting, Settings};
use crate::sys::spawn::{MaybePath, Step};
use crate::unit::{Identity, Path, Setup, Unit};
use rustix::process::{Gid, Uid};

/// A list of steps in the making; a step of an optional setting may fail.
struct Steps {
    list: Vec<Step>,
    optional: Settings,
}

impl Steps {
    fn push(&mut self, setting: Setting, step: Step) {
        self.list.push(match self.optional.contains(setting) {
            true => Step::Optional(setting, Box::new(step)),
            false => step,
        });
    }
}

/// Of the service's process.
pub(super) fn of_service(unit: &Unit) -> Vec<Step> {
    let setup = &unit.setup;
    let mut steps = Steps { list: Vec::new(), optional: unit.cgroup.optional };
    for (resource, limit) in &setup.resource_limits {
        steps.push(Setting::Rlimits, Step::ResourceLimit(*resource, *limit));
    }
    if let Some(nice) = setup.nice {
        steps.push(Setting::Nice, Step::Nice(nice));
    }
    if let Some((policy, priority)) = setup.scheduler {
        let step = Step::Scheduler { policy: policy.into(), priority: priority.into() };
        steps.push(Setting::Scheduler, step);
    }
    if let Some(cpus) = setup.cpus.clone() {
        steps.push(Setting::Cpus, Step::CpuAffinity(cpus));
    }
    if let Some(priority) = setup.io_priority {
        steps.push(Setting::IoPriority, Step::IoPriority(priority));
    }
    let own = [
        (Setting::PrivateMounts, setup.private_mounts),
        (Setting::PrivateTmp, setup.private_tmp),
        (Setting::PrivateShm, setup.private_shm),
    ];
    view_of_files(setup, &own, &mut steps);
    if setup.private_tmp {
        steps.push(Setting::PrivateTmp, Step::PrivateTmp);
    }
    if setup.private_shm {
        steps.push(Setting::PrivateShm, Step::PrivateShm);
    }
    become_somebody(&unit.identity, setup, &mut steps.list);
    steps.list
}

/// Of its procedure's: the same files, and an identity of its own where it has one. It works against a deadline, so no
/// limit or priority of the service holds for it; and it sees the machine's `/tmp` and `/dev/shm`.
pub(super) fn of_procedure(unit: &Unit) -> Vec<Step> {
    let mut steps = Steps { list: Vec::new(), optional: unit.cgroup.optional };
    view_of_files(&unit.setup, &[], &mut steps);
    become_somebody(&unit.procedure_identity, &unit.setup, &mut steps.list);
    steps.list
}

/// Of its commands': as its procedure's, but always the unit's own user.
pub(super) fn of_command(unit: &Unit) -> Vec<Step> {
    let mut steps = Steps { list: Vec::new(), optional: unit.cgroup.optional };
    view_of_files(&unit.setup, &[], &mut steps);
    become_somebody(&unit.identity, &unit.setup, &mut steps.list);
    steps.list
}

/// Mounts of its own come first: all that follows must not be seen by anybody else. They are optional only where
/// everything is that needs them.
fn view_of_files(setup: &Setup, own: &[(Setting, bool)], steps: &mut Steps) {
    let paths =
        [(Setting::ReadOnly, !setup.read_only.is_empty()), (Setting::Hidden, !setup.hidden.is_empty())];
    let mut needed = own.iter().chain(&paths).filter(|(_, is_needed)| *is_needed).map(|(it, _)| *it);
    if let Some(first) = needed.next() {
        let all_optional = [first].into_iter().chain(needed).all(|it| steps.optional.contains(it));
        steps.list.push(match all_optional {
            true => Step::Optional(Setting::PrivateMounts, Box::new(Step::MountNamespace)),
            false => Step::MountNamespace,
        });
    }
    steps.list.extend(setup.root_directory.clone().map(Step::RootDirectory));
    let path = |it: &Path| MaybePath { path: it.path.clone(), may_be_missing: it.may_be_missing };
    for it in &setup.read_only {
        steps.push(Setting::ReadOnly, Step::ReadOnly(path(it)));
    }
    for it in &setup.hidden {
        steps.push(Setting::Hidden, Step::Hidden(path(it)));
    }
}

fn become_somebody(identity: &Identity, setup: &Setup, steps: &mut Vec<Step>) {
    let ambient = identity.capabilities.ambient;
    steps.extend(setup.umask.map(Step::Umask));
    steps.extend(identity.capabilities.bounding.map(Step::Bounding));
    let gids = |list: &Vec<u32>| list.iter().map(|gid| Gid::from_raw(*gid)).collect();
    steps.extend(identity.groups.as_ref().map(|list| Step::Groups(gids(list))));
    steps.extend(identity.gid.map(|gid| Step::Group(Gid::from_raw(gid))));
    steps.extend(identity.uid.map(|uid| Step::User { uid: Uid::from_raw(uid), keeps: ambient != 0 }));
    if ambient != 0 {
        steps.push(Step::Ambient(ambient));
    }
    if setup.no_new_privs {
        steps.push(Step::NoNewPrivs);
    }
}
