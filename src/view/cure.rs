//! What helps where the kernel did not take what a unit's file says.

use super::words;
use crate::engine::event::{Exit, SpawnStage};
use crate::engine::setting::Setting;
use nix::errno::Errno;

/// Why the kernel did not take a setting.
#[must_use]
pub fn untaken(number: i32) -> &'static str {
    match Errno::from_raw(number) {
        Errno::ERANGE => "it is out of the kernel's range, or the kernel kept another value",
        Errno::ENOTBLK => "it is no disk",
        _ => words::errno(number),
    }
}

/// What helps where the kernel did not take a setting.
#[must_use]
pub fn of_setting(setting: Setting, errno: i32) -> &'static str {
    let is_missing = matches!(Errno::from_raw(errno), Errno::ENOENT | Errno::ENOSYS | Errno::EOPNOTSUPP);
    match setting {
        Setting::IoMax if is_missing => {
            "see that the disk is there, and build the kernel with CONFIG_BLK_DEV_THROTTLING=y"
        }
        Setting::IoMax => "name the device of a whole disk, no partition",
        Setting::CpuCpus | Setting::CpuMems if !is_missing => "name only what the machine has",
        Setting::ReadOnly | Setting::Hidden if errno == Errno::ENOENT as i32 => {
            "name what is there, or write it with a - in front"
        }
        Setting::Cpus => "name only processors that the machine has",
        _ if !is_missing => "see the kernel's log, or take it out of the unit's file",
        Setting::CpuMax => {
            "build the kernel with CONFIG_CFS_BANDWIDTH=y, or have the controller cpu delegated to lifeboat"
        }
        Setting::CpuWeight => {
            "build the kernel with CONFIG_FAIR_GROUP_SCHED=y, or have the controller cpu delegated to lifeboat"
        }
        Setting::CpuCpus | Setting::CpuMems => {
            "build the kernel with CONFIG_CPUSETS=y, or have the controller cpuset delegated to lifeboat"
        }
        Setting::IoWeight => {
            "build the kernel with CONFIG_BLK_CGROUP_IOCOST=y, or have the controller io delegated to lifeboat"
        }
        Setting::MemorySwapMax => "build the kernel with CONFIG_SWAP=y",
        Setting::MemoryZswapMax => "build the kernel with CONFIG_ZSWAP=y, Linux 5.19 or later",
        Setting::ReadOnly => "use Linux 5.12 or later",
        Setting::IoPriority => "build the kernel with CONFIG_BLOCK=y",
        Setting::Delegate => "use Linux 4.14 or later",
        _ => "see that the kernel and its configuration have it",
    }
}

/// What helps where a start failed for what the unit's file says.
#[must_use]
pub fn of_start(stage: SpawnStage, errno: i32) -> &'static str {
    match (stage, Errno::from_raw(errno)) {
        (SpawnStage::Exec, Errno::ENOENT) => {
            "put the program there, with the interpreter of a script and the loader and libraries of a program"
        }
        (SpawnStage::Exec, Errno::EACCES) => {
            "make it executable (chmod +x), on a file system that is not mounted noexec, for the unit's user too; a folder \
             cannot be executed"
        }
        (SpawnStage::Exec, Errno::ENOEXEC) => "begin a script with #!, and build a program for this machine",
        (SpawnStage::WorkingDirectory | SpawnStage::RootDirectory, Errno::ENOENT) => {
            "make the folder, or take the field out"
        }
        (SpawnStage::WorkingDirectory | SpawnStage::RootDirectory, Errno::EACCES) => {
            "let the unit's user enter the folder (chmod +x)"
        }
        (SpawnStage::JoinCgroup, number) => of_adoption(number),
        (_, Errno::EPERM) => "start lifeboat with the privilege for it, or take the field out",
        (_, Errno::ENOSYS | Errno::EINVAL | Errno::ENODEV) => {
            "see that the kernel and its configuration have it, or put the field into `optional`"
        }
        _ => "correct what the field says, or take it out",
    }
}

/// What helps where a shutdown procedure ended before it was needed.
#[must_use]
pub fn of_lost_procedure(exit: Exit) -> &'static str {
    match exit {
        Exit::Code(_) => {
            "let it wait until it is told to begin, as shutdown.resident asks; `lifeboatctl tail` shows what it said"
        }
        Exit::Signal(9) => "raise shutdown.memory, or see who kills it",
        Exit::Signal(_) | Exit::Unseen {} => "`lifeboatctl tail` shows what it said",
    }
}

/// What helps where a process that runs already cannot be moved into its unit's cgroup.
fn of_adoption(errno: Errno) -> &'static str {
    match errno {
        Errno::ESRCH => {
            "it has ended, or its number is another's by now: look with `ps`, and adopt what runs"
        }
        Errno::EBUSY => "it, or a process below it, is of a unit of lifeboat already: change that unit",
        Errno::EINVAL => {
            "PID 1, threads of the kernel and lifeboat with all that it descends from stay where they are"
        }
        Errno::EPERM | Errno::EACCES => {
            "start lifeboat as root, or with write access to the cgroup of the process too"
        }
        Errno::ENOSYS => "lifeboat has no cgroups here: mount cgroup2 on /sys/fs/cgroup",
        _ => "see lifeboat's log for the file that refused",
    }
}
