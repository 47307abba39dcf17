#![expect(
    unsafe_code,
    reason = "mount(2), sched_setscheduler(2) and their like have no safe form that is linked here"
)]

//! What a child does to itself on its way to execve(2): limits, priorities, mounts, and who it is.
//!
//! The parent prepares a list of steps; the child takes them one after the other. Taking one is straight-line code
//! without allocation, as all that runs there.

use crate::engine::event::SpawnStage;
use crate::engine::setting::Setting;
use linux_raw_sys::general::{AT_RECURSIVE, MOUNT_ATTR_RDONLY, mount_attr};
use nix::errno::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid, geteuid, setpriority_process, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, CpuSet, capabilities, set_capabilities};
use rustix::thread::{sched_getaffinity, sched_setaffinity, set_keep_capabilities, set_no_new_privs};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::ffi::{CStr, CString, c_int, c_ulong};
use std::ptr;

/// Linux has fewer, and no set of capabilities has room for more.
const CAPABILITIES_MAX: u32 = 64;

/// `IOPRIO_WHO_PROCESS` of include/uapi/linux/ioprio.h.
const IOPRIO_WHO_PROCESS: c_int = 1;

/// One thing that a child does to itself. The order of a list is the order in which they are done.
#[derive(Clone, Debug)]
pub enum Step {
    /// setrlimit(2).
    ResourceLimit(Resource, Rlimit),
    /// setpriority(2), -20 to 19.
    Nice(i32),
    /// sched_setscheduler(2).
    Scheduler {
        /// `SCHED_OTHER` and its like.
        policy: i32,
        /// 1 to 99 for `SCHED_FIFO` and `SCHED_RR`, else 0.
        priority: i32,
    },
    /// sched_setaffinity(2). A processor that the kernel leaves out of the set is an error, `EINVAL`.
    CpuAffinity(Box<CpuSet>),
    /// ioprio_set(2): the class in the bits from 13 on, the level below.
    IoPriority(u16),
    /// umask(2).
    Umask(u32),
    /// unshare(2): a copy of the mounts; what is mounted in it is seen nowhere else.
    MountNamespace,
    /// chroot(2).
    RootDirectory(CString),
    /// What is below this path, submounts included, cannot be changed any more.
    ReadOnly(MaybePath),
    /// A folder becomes an empty one that only root may look into, anything else becomes `/dev/null`.
    Hidden(MaybePath),
    /// An empty tmpfs on `/tmp`.
    PrivateTmp,
    /// An empty tmpfs on `/dev/shm`.
    PrivateShm,
    /// The capabilities that may ever be had again, a bit for each.
    Bounding(u64),
    /// setgroups(2). With this the child begins to be somebody else.
    Groups(Vec<Gid>),
    /// setresgid(2), all three.
    Group(Gid),
    /// setresuid(2), all three. What is permitted is kept until the next step where it keeps capabilities.
    User {
        /// Who.
        uid: Uid,
        /// An [`Step::Ambient`] follows.
        keeps: bool,
    },
    /// Permitted, effective, inheritable and ambient capabilities, a bit for each.
    Ambient(u64),
    /// prctl(2), `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivs,
    /// A step of this setting that may fail: then it is told, and left out.
    Optional(Setting, Box<Step>),
}

/// A path that may be allowed to be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaybePath {
    /// The path, absolute.
    pub path: CString,
    /// Where there is nothing, there is nothing to do.
    pub may_be_missing: bool,
}

/// The child's way of saying no; the cause is in errno(3).
pub(super) struct Refused;

impl Step {
    /// Whether the child gives up with this step what it is, root as a rule: everything that needs it comes before.
    pub(super) fn is_identity(&self) -> bool {
        matches!(
            self,
            Self::Bounding(_)
                | Self::Groups(_)
                | Self::Group(_)
                | Self::User { .. }
                | Self::Ambient(_)
                | Self::NoNewPrivs
        )
    }

    /// Whether it changes mounts, and so must not be taken where the child has none of its own.
    pub(super) fn is_mount(&self) -> bool {
        matches!(self, Self::ReadOnly(_) | Self::Hidden(_) | Self::PrivateTmp | Self::PrivateShm)
    }

    /// What is told where the step fails.
    pub(super) fn stage(&self) -> SpawnStage {
        match self {
            Self::Optional(_, step) => step.stage(),
            // It cannot fail.
            Self::ResourceLimit(..) | Self::Umask(_) => SpawnStage::ResourceLimit,
            Self::Nice(_) => SpawnStage::Nice,
            Self::Scheduler { .. } => SpawnStage::Scheduler,
            Self::CpuAffinity(_) => SpawnStage::CpuAffinity,
            Self::IoPriority(_) => SpawnStage::IoPriority,
            Self::MountNamespace => SpawnStage::MountNamespace,
            Self::RootDirectory(_) => SpawnStage::RootDirectory,
            Self::ReadOnly(_) => SpawnStage::ReadOnly,
            Self::Hidden(_) => SpawnStage::Hidden,
            Self::PrivateTmp => SpawnStage::PrivateTmp,
            Self::PrivateShm => SpawnStage::PrivateShm,
            Self::Groups(_) => SpawnStage::Groups,
            Self::Group(_) => SpawnStage::Group,
            Self::User { .. } => SpawnStage::User,
            Self::Bounding(_) | Self::Ambient(_) => SpawnStage::Capabilities,
            Self::NoNewPrivs => SpawnStage::NoNewPrivs,
        }
    }

    /// Takes the step.
    ///
    /// # Safety
    ///
    /// To be called in a fresh child only: it changes the calling thread and not its process's others.
    pub(super) unsafe fn take(&self) -> Result<(), Refused> {
        // SAFETY: a child has one thread, and every pointer is to memory of the step.
        unsafe {
            match self {
                Self::ResourceLimit(resource, limit) => kept(setrlimit(*resource, *limit)),
                Self::Nice(value) => kept(setpriority_process(None, *value)),
                Self::Scheduler { policy, priority } => {
                    // The raw call: musl has none. The kernel's sched_param is this one number.
                    let param: c_int = *priority;
                    zero(libc::syscall(libc::SYS_sched_setscheduler, 0, *policy, &raw const param))
                }
                Self::CpuAffinity(cpus) => bind_to(cpus),
                Self::IoPriority(value) => {
                    zero(libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, c_int::from(*value)))
                }
                Self::Umask(mask) => {
                    libc::umask(*mask as libc::mode_t);
                    Ok(())
                }
                Self::MountNamespace => own_mounts(),
                Self::RootDirectory(path) => {
                    zero(libc::chroot(path.as_ptr()).into())?;
                    zero(libc::chdir(c"/".as_ptr()).into())
                }
                Self::ReadOnly(path) => path.missing_is_fine(make_read_only(&path.path)),
                Self::Hidden(path) => path.missing_is_fine(hide(&path.path)),
                Self::PrivateTmp => mount_tmpfs(c"/tmp", 0, c"mode=1777"),
                Self::PrivateShm => mount_tmpfs(c"/dev/shm", 0, c"mode=1777"),
                Self::Bounding(wanted) => keep_bounding(*wanted),
                Self::Groups(groups) => kept(set_thread_groups(groups)),
                Self::Group(gid) => kept(set_thread_res_gid(*gid, *gid, *gid)),
                Self::User { uid, keeps } => {
                    if *keeps {
                        kept(set_keep_capabilities(true))?;
                    }
                    kept(set_thread_res_uid(*uid, *uid, *uid))
                }
                Self::Ambient(wanted) => raise_ambient(*wanted),
                Self::NoNewPrivs => kept(set_no_new_privs(true)),
                Self::Optional(_, step) => step.take(),
            }
        }
    }
}

impl MaybePath {
    fn missing_is_fine(&self, outcome: Result<(), Refused>) -> Result<(), Refused> {
        let is_missing = matches!(Errno::last(), Errno::ENOENT | Errno::ENOTDIR);
        if outcome.is_err() && self.may_be_missing && is_missing { Ok(()) } else { outcome }
    }
}

/// The outcome of a call that leaves its errno in its answer.
fn kept(outcome: rustix::io::Result<()>) -> Result<(), Refused> {
    outcome.map_err(|errno| refused(errno.raw_os_error()))
}

/// The outcome of a call that leaves its errno in errno(3).
fn zero(outcome: libc::c_long) -> Result<(), Refused> {
    if outcome == 0 { Ok(()) } else { Err(Refused) }
}

fn refused(errno: i32) -> Refused {
    Errno::from_raw(errno).set();
    Refused
}

/// The kernel leaves out what it does not have or has switched off, without a word: so the set is read back.
fn bind_to(cpus: &CpuSet) -> Result<(), Refused> {
    kept(sched_setaffinity(None, cpus))?;
    match sched_getaffinity(None) {
        Ok(found) if found == *cpus => Ok(()),
        Ok(_) => Err(refused(libc::EINVAL)),
        Err(errno) => Err(refused(errno.raw_os_error())),
    }
}

/// Of the mounts of others, those that come and go are still followed; nothing goes the other way.
unsafe fn own_mounts() -> Result<(), Refused> {
    // SAFETY: plain calls; the strings end in NUL.
    unsafe {
        zero(libc::unshare(libc::CLONE_NEWNS).into())?;
        mount(None, c"/", None, libc::MS_REC | libc::MS_SLAVE, None)
    }
}

unsafe fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: c_ulong,
    data: Option<&CStr>,
) -> Result<(), Refused> {
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: the strings end in NUL or are null, which mount(2) takes for those that the flags do not need.
    let outcome =
        unsafe { libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(data).cast()) };
    zero(outcome.into())
}

unsafe fn mount_tmpfs(target: &CStr, flags: c_ulong, data: &CStr) -> Result<(), Refused> {
    let flags = flags | libc::MS_NOSUID | libc::MS_NODEV;
    // SAFETY: as of the caller.
    unsafe { mount(Some(c"tmpfs"), target, Some(c"tmpfs"), flags, Some(data)) }
}

/// By mount_setattr(2), because a remount would leave the submounts writable. An old kernel has none: `ENOSYS`.
unsafe fn make_read_only(path: &CStr) -> Result<(), Refused> {
    let attributes =
        mount_attr { attr_set: MOUNT_ATTR_RDONLY.into(), attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the structure has the size given and lives over the call.
    unsafe {
        mount(Some(path), path, None, libc::MS_BIND | libc::MS_REC, None)?;
        zero(libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            AT_RECURSIVE,
            &raw const attributes,
            size_of::<mount_attr>(),
        ))
    }
}

unsafe fn hide(path: &CStr) -> Result<(), Refused> {
    let flags = libc::MS_RDONLY | libc::MS_NOEXEC;
    // SAFETY: as of the caller.
    unsafe {
        match mount_tmpfs(path, flags, c"mode=0,size=4k,nr_inodes=2") {
            // Not a folder; where there is nothing at all the second call says so.
            Err(Refused) if Errno::last() == Errno::ENOTDIR => {
                mount(Some(c"/dev/null"), path, None, libc::MS_BIND, None)
            }
            outcome => outcome,
        }
    }
}

/// Drops all others. One that is wanted and that this kernel does not know is an error.
unsafe fn keep_bounding(wanted: u64) -> Result<(), Refused> {
    for number in 0..CAPABILITIES_MAX {
        let number = c_ulong::from(number);
        let is_wanted = wanted & (1 << number) != 0;
        // SAFETY: plain calls on numbers.
        unsafe {
            if libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) < 0 {
                // The first that this kernel does not know.
                let unknown = wanted >> number;
                return if unknown == 0 { Ok(()) } else { Err(refused(libc::EINVAL)) };
            }
            if !is_wanted {
                zero(libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0).into())?;
            }
        }
    }
    Ok(())
}

/// An ordinary user gets these and no others. Root has what the bounding set leaves it anyway.
unsafe fn raise_ambient(wanted: u64) -> Result<(), Refused> {
    let set = CapabilitySet::from_bits_retain(wanted);
    let sets = if geteuid().is_root() {
        match capabilities(None) {
            Ok(sets) => CapabilitySets { inheritable: sets.inheritable | set, ..sets },
            Err(errno) => return Err(refused(errno.raw_os_error())),
        }
    } else {
        CapabilitySets { effective: set, permitted: set, inheritable: set }
    };
    kept(set_capabilities(None, sets))?;
    for number in (0..CAPABILITIES_MAX).filter(|number| wanted & (1 << number) != 0) {
        let (raise, number) = (libc::PR_CAP_AMBIENT_RAISE as c_ulong, c_ulong::from(number));
        // SAFETY: a plain call on numbers.
        unsafe { zero(libc::prctl(libc::PR_CAP_AMBIENT, raise, number, 0, 0).into())? };
    }
    Ok(())
}
