//! lifeboat's own place in memory: locked, never chosen by the OOM killer, with enough descriptors.

#![expect(
    unsafe_code,
    reason = "setrlimit in a child before execve, sysconf, madvise and the program's headers have no safe form in use here"
)]

use super::error::SysError;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::fs::{MemfdFlags, memfd_create};
use std::ffi::{CStr, c_int, c_void};
use std::fs::File;
use std::io;
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

/// What as many units as there may be need, each with its cgroups' files and its pipes. The kernel gives 4,096 to the
/// first process (`INR_OPEN_MAX` in include/uapi/linux/fs.h).
const DESCRIPTORS: libc::rlim_t = 32_768;

/// Raises lifeboat's limit of open files as far as it needs and may, and remembers the old one for the children.
///
/// Above the hard limit needs `CAP_SYS_RESOURCE`.
pub fn raise_descriptor_limit() -> Result<(), SysError> {
    let failed = |errno| SysError::new("raise", "the limit of open files (RLIMIT_NOFILE)", errno);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    CHILDREN.get_or_init(|| DescriptorLimit { soft, hard });
    let enough = hard.max(DESCRIPTORS);
    setrlimit(Resource::RLIMIT_NOFILE, enough, enough)
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
        .map_err(failed)
}

/// The machine's memory, from `/proc/meminfo` (proc_meminfo(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// `MemTotal`.
    pub total_bytes: u64,
    /// What files hold that live in memory and nowhere else, above all an initramfs that is the root: `Shmem` (tmpfs)
    /// and `Unevictable` without `Mlocked` (ramfs, whose pages are marked so: fs/ramfs/inode.c `ramfs_get_inode`).
    pub files_bytes: u64,
}

impl Machine {
    /// procfs reads every field of the file, in code that PID 1 would carry for these four.
    pub fn read() -> Result<Self, SysError> {
        const MEMINFO: &str = "/proc/meminfo";
        let text = std::fs::read_to_string(MEMINFO).map_err(|error| SysError::new("read", MEMINFO, error))?;
        Self::from_text(&text)
            .ok_or_else(|| SysError::new("find MemTotal in", MEMINFO, nix::errno::Errno::ENODATA))
    }

    fn from_text(meminfo: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
            kib.checked_mul(1024)
        };
        let or_none = |name| bytes(name).unwrap_or_default();
        Some(Self {
            total_bytes: bytes("MemTotal")?,
            files_bytes: or_none("Shmem") + or_none("Unevictable").saturating_sub(or_none("Mlocked")),
        })
    }
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

/// Lets go of lifeboat's code and constants (madvise(2), `MADV_DONTNEED`): what is used again comes back from the page
/// cache, the rest, the reader of unit files above all, is not locked for ever. To be called before [`lock`].
pub fn drop_start_code() -> Result<(), SysError> {
    let mut dropped = Ok(());
    for_each_constant_segment(&mut |start, length| {
        // SAFETY: the range is one file mapping of our executable that is never writable, so no page of it was ever
        // changed, and each comes back with the same bytes when it is touched.
        if unsafe { libc::madvise(std::ptr::without_provenance_mut(start), length, libc::MADV_DONTNEED) } != 0
        {
            let errno = nix::errno::Errno::last();
            dropped = Err(SysError::new("let go of", "the code of the start (madvise)", errno));
        }
    });
    dropped
}

/// Lets go of the stack that only the start has needed, below the frames of now (madvise(2), `MADV_DONTNEED`). Only for
/// the thread that the kernel has made; to be called before [`lock`].
// With a frame of its own: within a caller's, `frame` might stand above what the caller has there.
#[inline(never)]
pub fn drop_start_stack() -> Result<(), SysError> {
    /// The start goes no deeper. Above 1 MiB it might meet what is no stack: so much the kernel leaves free below it
    /// (`stack_guard_gap`).
    const START_BYTES: usize = 256 << 10;
    /// For this frame and the one of madvise(2).
    const KEPT_BYTES: usize = 8 << 10;
    let page = usize::try_from(page_bytes()).unwrap_or(4096);
    let frame = 0_u8;
    let end = ((&raw const frame).addr() - KEPT_BYTES) / page * page;
    let start = std::ptr::without_provenance_mut(end - START_BYTES);
    // SAFETY: the range is below all frames, this one included, which is not inlined and far smaller than what is
    // kept. So nobody has anything there, and whoever goes so deep again writes before it reads. A signal's frame is
    // there only while its handler runs, which is not now.
    if unsafe { libc::madvise(start, START_BYTES, libc::MADV_DONTNEED) } == 0 {
        return Ok(());
    }
    match nix::errno::Errno::last() {
        // The stack has not grown so far; what there is of it was let go of.
        nix::errno::Errno::ENOMEM => Ok(()),
        errno => Err(SysError::new("let go of", "the stack of the start (madvise)", errno)),
    }
}

/// The pages of each segment of the program that is not writable: start and length. Not all from the first to the last:
/// the linker leaves holes of a page between segments, and the kernel puts other memory there, the heap's too.
fn for_each_constant_segment(act: &mut dyn FnMut(usize, usize)) {
    /// Looks at the first object only, which is the program (dl_iterate_phdr(3)).
    unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _size: usize, act: *mut c_void) -> c_int {
        // SAFETY: the C library gives a valid description, whose headers are those of a program in memory; `act` is
        // what was given to it below, and nobody else uses it meanwhile.
        let (info, headers, act) = unsafe {
            let info = &*info;
            let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
            (info, headers, &mut *act.cast::<&mut dyn FnMut(usize, usize)>())
        };
        let page = usize::try_from(page_bytes()).unwrap_or(4096);
        let base = usize::try_from(info.dlpi_addr).unwrap_or(0);
        for header in headers {
            if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
                let start = base + usize::try_from(header.p_vaddr).unwrap_or(0);
                let end = (start + usize::try_from(header.p_memsz).unwrap_or(0)).next_multiple_of(page);
                let start = start / page * page;
                act(start, end - start);
            }
        }
        1
    }
    let mut act = act;
    // SAFETY: `look` is a callback of the right kind, and `act` lives over the call.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut act).cast()) };
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

/// An empty file that is nowhere but in memory (memfd_create(2)): read and written without a wait.
pub fn file_in_memory(name: &CStr) -> Result<File, SysError> {
    // Before Linux 6.3 nobody knows the second flag; since then the kernel complains where it is missing.
    memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create(name, MemfdFlags::CLOEXEC))
        .map(File::from)
        .map_err(|error| SysError::new("make", "a file in memory (memfd_create)", io::Error::from(error)))
}

/// Bytes in a page of memory.
#[must_use]
pub fn page_bytes() -> u64 {
    // SAFETY: sysconf(3) takes a number and gives one.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::{Machine, for_each_constant_segment};
    use procfs::{Current, Meminfo};

    #[test]
    fn the_memory_is_what_procfs_reads() {
        let facts = Meminfo::current().expect("/proc/meminfo");
        assert_eq!(Machine::read().map(|it| it.total_bytes), Ok(facts.mem_total));
        let check = |text: &str, expected: Option<(u64, u64)>| {
            let machine = Machine::from_text(text).map(|it| (it.total_bytes, it.files_bytes));
            assert_eq!(machine, expected, "{text}");
        };
        check("MemTotal:        8 kB\nMemFree:         1 kB\n", Some((8192, 0)));
        check("MemFree:         1 kB\nMemTotal:    12345678 kB\n", Some((12_641_974_272, 0)));
        check("MemFree:         1 kB\n", None);
        check("MemTotal:\n", None);
        check("MemTotal:        8 MB\n", None);
        check("MemTotal:       -8 kB\n", None);
        check("MemTotal: 18446744073709551615 kB\n", None);
        check("", None);
        let image = "Unevictable: 6 kB\nMlocked: 1 kB\nMemTotal: 64 kB\nShmem: 2 kB\nShmemHugePages: 32 kB\n";
        check(image, Some((65_536, 7_168)));
        check("MemTotal: 64 kB\nUnevictable: 1 kB\nMlocked: 2 kB\n", Some((65_536, 0)));
    }

    #[test]
    fn only_our_own_code_and_constants_are_let_go_of() {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("our mappings");
        let program = std::env::current_exe().expect("our program").display().to_string();
        let mut kept_bytes: usize =
            maps.lines().filter(|line| line.ends_with(&program)).filter_map(length_of).sum();
        let mut segments = 0;
        for_each_constant_segment(&mut |start, length| {
            segments += 1;
            let mut at = start;
            // Page by page: the kernel may have several mappings for one segment.
            while at < start + length {
                let line =
                    maps.lines().find(|line| range(line).is_some_and(|(from, to)| (from..to).contains(&at)));
                let line = line.unwrap_or_else(|| panic!("{at:x} is no memory of ours: {maps}"));
                assert!(line.ends_with(&program), "{at:x}: {line}");
                assert!(!line.contains(" rw"), "{at:x}: {line}");
                at += 4096;
            }
            kept_bytes -= length;
        });
        assert!(segments >= 2, "{segments} segments");
        assert!(kept_bytes > 0, "what is writable stays");
    }

    fn range(line: &str) -> Option<(usize, usize)> {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
    }

    fn length_of(line: &str) -> Option<usize> {
        range(line).map(|(from, to)| to - from)
    }
}
