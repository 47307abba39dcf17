//! lifeboat's own place in memory: locked, never chosen by the OOM killer, with enough descriptors.

#![expect(
    unsafe_code,
    reason = "setrlimit in a child before execve, sysconf and madvise have no safe form in use here"
)]

use super::error::SysError;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::OnceLock;

/// The limit of open files that children get back, once lifeboat has raised its own.
static CHILDREN: OnceLock<DescriptorLimit> = OnceLock::new();

/// `RLIMIT_NOFILE` (getrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimit {
    soft: libc::rlim_t,
    hard: libc::rlim_t,
}

impl DescriptorLimit {
    /// Sets it in a child between fork and execve: one system call, no allocation. A failure leaves lifeboat's.
    pub(super) fn apply(self) {
        let limit = libc::rlimit { rlim_cur: self.soft, rlim_max: self.hard };
        // SAFETY: the structure lives over the call.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
}

/// Raises lifeboat's limit of open files to the hard limit, and remembers the old one for the children.
pub fn raise_descriptor_limit() -> Result<(), SysError> {
    let failed = |errno| SysError::new("raise", "the limit of open files (RLIMIT_NOFILE)", errno);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    CHILDREN.get_or_init(|| DescriptorLimit { soft, hard });
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed)
}

/// What children get back; `None` while lifeboat has not raised its own.
#[must_use]
pub fn descriptor_limit_of_children() -> Option<DescriptorLimit> {
    CHILDREN.get().copied()
}

/// Locks what lifeboat has in memory now, and all that it will touch later (mlockall(2) with `MCL_ONFAULT`, so that
/// memory that is never touched costs nothing). Children do not inherit it.
///
/// Needs `CAP_IPC_LOCK` or room in `RLIMIT_MEMLOCK`.
pub fn lock() -> Result<(), SysError> {
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    mlockall(MlockAllFlags::from_bits_retain(flags))
        .map_err(|errno| SysError::new("lock", "lifeboat's memory (mlockall)", errno))
}

unsafe extern "C" {
    /// The first byte of the program, and the end of its code: both linkers in use, rust-lld and GNU ld, make these
    /// symbols. Between them are the constants and the code; what relocations change comes after.
    static __executable_start: u8;
    static etext: u8;
}

/// Lets go of lifeboat's code and constants (madvise(2), `MADV_DONTNEED`): what is used again comes back from the page
/// cache, the rest, the reader of unit files above all, is not locked for ever. To be called before [`lock`].
pub fn drop_start_code() -> Result<(), SysError> {
    let page = usize::try_from(page_bytes()).unwrap_or(4096);
    let start = (&raw const __executable_start).addr() / page * page;
    let length = (&raw const etext).addr().saturating_sub(start) / page * page;
    // SAFETY: the range is file mappings of our executable that are never writable, so no page of it was ever changed,
    // and each comes back with the same bytes when it is touched.
    match unsafe { libc::madvise(std::ptr::without_provenance_mut(start), length, libc::MADV_DONTNEED) } {
        0 => Ok(()),
        _ => Err(SysError::new("let go of", "the code of the start (madvise)", nix::errno::Errno::last())),
    }
}

/// Takes lifeboat out of the OOM killer's sight (`/proc/self/oom_score_adj` = -1000). Needs `CAP_SYS_RESOURCE`.
/// Children set their own.
pub fn shield_self() -> Result<(), SysError> {
    let path = "/proc/self/oom_score_adj";
    std::fs::write(path, "-1000").map_err(|error| SysError::new("write -1000 to", path, error))
}

/// Makes lifeboat the parent of its descendants' orphans (prctl(2), `PR_SET_CHILD_SUBREAPER`). PID 1 is that anyway.
pub fn become_subreaper() -> Result<(), SysError> {
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|errno| SysError::new("become", "the reaper of orphans (PR_SET_CHILD_SUBREAPER)", errno))
}

/// Bytes in a page of memory.
#[must_use]
pub fn page_bytes() -> u64 {
    // SAFETY: sysconf(3) takes a number and gives one.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(4096)
}
