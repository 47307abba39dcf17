#![expect(unsafe_code, reason = "mmap(2) in a fresh child, and raw writes to its pages")]

//! A process that does nothing but hold memory, so that the kernel's OOM killer takes it first.
//!
//! It is a child of lifeboat without an execve(2): its cgroup is charged for the ballast, its page tables and hardly
//! anything else. When lifeboat is gone it ends by itself.

use super::child::{self, Hold, Plan};
use super::order::order_sockets;
use super::step::Refused;
use super::{OurEnd, Parked, Place, Program, SpawnError, Start, pipe};
use crate::engine::event::SpawnStage;
use std::ffi::{CString, c_int};
use std::os::fd::BorrowedFd;
use std::ptr;

/// `OOM_SCORE_ADJ_MAX` of include/uapi/linux/oom.h: it counts as its cgroup's whole `memory.max`, and what it has
/// itself. To raise it needs no privilege.
const FIRST_TO_GO: i32 = 1_000;

/// What a service maps of files and shared memory that are charged to others counts for its own size too, and might
/// make it larger than all of its cgroup, and so than a small ballast (mm/oom_kill.c, `oom_badness`). So a ballast maps
/// more of the same kind: pages that are there anyway, again and again.
///
/// It has another use. A dying process is hidden from the OOM killer when all of its pages are unmapped, but some 9,700
/// of them are freed only after that (mm/mmap.c, `exit_mmap`; mm/mmu_gather.c): in between the kernel would choose the
/// service. With so many unmapped behind them the ballast's own pages are free by then.
const WEIGHT_BYTES: usize = 40 << 20;

/// Every page is touched by steps of the smallest that Linux has.
const STEP_BYTES: usize = 4_096;

/// Makes a ballast of so many bytes in the cgroup. [`read_status`](super::read_status) tells by
/// [`Status::Parked`](super::Status::Parked) when all of its pages are there; it is never released.
pub fn ballast(bytes: u64, cgroup: Option<Place<'_>>, null: BorrowedFd<'_>) -> Result<Parked, SpawnError> {
    let program = Program::new(&[CString::from(c"ballast")], &[])?;
    let start = Start {
        program: &program,
        cgroup,
        oom_score_adj: FIRST_TO_GO,
        stdio: [null; 3],
        steps: &[],
        working_directory: Some(c"/"),
        handed: &[],
    };
    let ballast_bytes =
        usize::try_from(bytes).map_err(|_| SpawnError::new(SpawnStage::Clone, libc::ENOMEM))?;
    let (status, tell) = pipe(OurEnd::Read, start.highest_given())?;
    let (wait, go) = order_sockets(start.highest_given())?;
    let plan = Plan::new(&start, &tell, Some(Hold { wait: &wait, lock_max_bytes: 0, ballast_bytes }));
    let pid = child::spawn(plan, cgroup)?;
    Ok(Parked { pid, status, go })
}

/// The rest of the child's life. It comes back only where there is no memory to map.
///
/// # Safety
///
/// To be called in a fresh child only, with its own ends of the pipe and the socket.
pub(super) unsafe fn stand(bytes: usize, tell: c_int, wait: c_int) -> Result<(), Refused> {
    // SAFETY: the new mapping is this process's own, and every address that is written to lies in it.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"ballast".as_ptr());
        put_on_weight();
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let pages = libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, kind, -1, 0);
        if pages == libc::MAP_FAILED {
            return Err(Refused);
        }
        // Page by page: what is charged is what was asked for. And no page is zero, so that none can be shared.
        libc::madvise(pages, bytes, libc::MADV_NOHUGEPAGE);
        for at in (0..bytes).step_by(STEP_BYTES) {
            pages.cast::<u8>().add(at).write_volatile(1);
        }
        let ready = [child::READY];
        libc::write(tell, ready.as_ptr().cast(), 1);
        let mut nothing = 0_u8;
        // Nobody writes: it is the end of lifeboat that ends this.
        libc::read(wait, (&raw mut nothing).cast(), 1);
        libc::_exit(0)
    }
}

/// Maps lifeboat's own program as often as it takes. The kernel unmaps in the order of addresses, and gives lower ones
/// to later mappings: so the ballast itself, which is mapped after this, is freed first.
unsafe fn put_on_weight() {
    // SAFETY: the mappings are never read; they live as long as the process.
    unsafe {
        let file = libc::open(c"/proc/self/exe".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let mut stat: libc::stat = std::mem::zeroed();
        if file < 0 || libc::fstat(file, &raw mut stat) != 0 {
            return;
        }
        let length = usize::try_from(stat.st_size).unwrap_or(0).max(STEP_BYTES);
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        for _ in 0..WEIGHT_BYTES / length {
            libc::mmap(ptr::null_mut(), length, libc::PROT_READ, flags, file, 0);
        }
        libc::close(file);
    }
}
