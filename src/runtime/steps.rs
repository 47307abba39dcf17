//! A unit's settings as the steps that its processes take on their way to `execve`.
//!
//! The order matters: what needs root comes before the user changes; mounts come after the root directory is entered,
//! so that their paths mean what the service sees.

use crate::sys::spawn::{MaybePath, Step};
use crate::unit::{Identity, Path, Setup, Unit};
use rustix::process::{Gid, Uid};

/// Of the service's process.
pub(super) fn of_service(unit: &Unit) -> Vec<Step> {
    let setup = &unit.setup;
    let mut steps: Vec<Step> = setup
        .resource_limits
        .iter()
        .map(|(resource, limit)| Step::ResourceLimit(*resource, *limit))
        .collect();
    steps.extend(setup.nice.map(Step::Nice));
    steps.extend(
        setup
            .scheduler
            .map(|(policy, priority)| Step::Scheduler { policy: policy.into(), priority: priority.into() }),
    );
    steps.extend(setup.cpus.clone().map(Step::CpuAffinity));
    steps.extend(setup.io_priority.map(Step::IoPriority));
    view_of_files(setup, setup.private_tmp || setup.private_shm, &mut steps);
    if setup.private_tmp {
        steps.push(Step::PrivateTmp);
    }
    if setup.private_shm {
        steps.push(Step::PrivateShm);
    }
    become_somebody(&unit.identity, setup, &mut steps);
    steps
}

/// Of its procedure's: the same files, and an identity of its own where it has one. It works against a deadline, so no
/// limit or priority of the service holds for it; and it sees the machine's `/tmp` and `/dev/shm`.
pub(super) fn of_procedure(unit: &Unit) -> Vec<Step> {
    let mut steps = Vec::new();
    view_of_files(&unit.setup, false, &mut steps);
    become_somebody(&unit.procedure_identity, &unit.setup, &mut steps);
    steps
}

fn view_of_files(setup: &Setup, has_mounts: bool, steps: &mut Vec<Step>) {
    if has_mounts || !setup.read_only.is_empty() || !setup.hidden.is_empty() {
        steps.push(Step::MountNamespace);
    }
    steps.extend(setup.root_directory.clone().map(Step::RootDirectory));
    let path = |it: &Path| MaybePath { path: it.path.clone(), may_be_missing: it.may_be_missing };
    steps.extend(setup.read_only.iter().map(|it| Step::ReadOnly(path(it))));
    steps.extend(setup.hidden.iter().map(|it| Step::Hidden(path(it))));
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
