#![expect(unsafe_code, reason = "clone3 and the code between it and execve have no safe form")]

//! The way from clone3(2) to execve(2).
//!
//! What runs in the child is straight-line code over the parent's preparations: no allocation, no lock, nothing of the
//! standard library that could take one, no panic. The child has a copy of lifeboat's memory, not the memory itself.

use super::ballast;
use super::lock::lock_files;
use super::order::{Slots, receive};
use super::pid_word::{PidSlot, write_pid};
use super::step::{Refused, Step};
use super::{HANDED_MAX, Handed, Place, SpawnError, Start, Way};
use crate::engine::event::SpawnStage;
use crate::engine::setting::Setting;
use crate::sys::few::sort_few;
use crate::sys::memory::{DescriptorLimit, descriptor_limit_of_children};
use linux_raw_sys::general::{CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, clone_args};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::ffi::{CStr, c_char, c_int};
use std::io::Write;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

/// The byte by which a parked child says that it stands ready. No [`SpawnStage`] has this number.
pub(super) const READY: u8 = 0xFF;

/// The byte before a setting that is left out. Neither has a [`SpawnStage`] this number.
pub(super) const SKIPPED: u8 = 0xFE;

/// The byte before the errno(3) for which a second program could not be executed. Neither has a [`SpawnStage`] this
/// number.
pub(super) const NO_SECOND: u8 = 0xFC;

/// The exit code of a child that could not execute its program, as in the shell.
const EXIT_NOT_EXECUTED: c_int = 127;

/// Kernel signal numbers go from 1 to this one.
const SIGNAL_MAX: c_int = 64;

/// Bytes in the kernel's set of signals.
const SIGNAL_SET_BYTES: usize = 8;

/// Where close_range(2) is missing (before Linux 5.9), descriptors up to here are closed one by one.
const DESCRIPTOR_MAX: c_int = 65_536;

/// What the kernel reads of a script for its interpreter (`BINPRM_BUF_SIZE`, include/uapi/linux/binfmts.h).
const SCRIPT_BYTES: usize = 256;

/// Where a child waits, and how much of the files that its program needs it may lock in memory.
pub(super) struct Hold<'a> {
    pub(super) wait: &'a OwnedFd,
    pub(super) lock_max_bytes: u64,
    /// It is a ballast of this size, and never goes on to a program; 0 for all others.
    pub(super) ballast_bytes: usize,
}

/// Everything that the child needs, as the kernel wants it.
pub(super) struct Plan<'a> {
    path: *const c_char,
    /// Null where there is none.
    second: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    slots: *mut Slots,
    /// Room for the words of an order.
    envp_tail: *mut *const c_char,
    steps_as_root: &'a [Step],
    steps_of_identity: &'a [Step],
    working_directory: *const c_char,
    stdio: [c_int; 3],
    /// What is handed over, each with its number in the program.
    handed: &'a [Handed<'a>],
    highest_given: c_int,
    /// Room for its pid in `LISTEN_PID` and `WATCHDOG_PID`.
    pid_slots: [PidSlot; 2],
    tell: c_int,
    /// -1 where the child does not wait.
    wait: c_int,
    lock_max_bytes: u64,
    ballast_bytes: usize,
    oom_score_adj: [u8; 8],
    oom_score_adj_len: usize,
    descriptor_limit: Option<DescriptorLimit>,
    /// `cgroup.procs`, where the child has to move itself; else -1.
    cgroup_procs: c_int,
    borrows: PhantomData<&'a ()>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(start: &Start<'a>, tell: &'a OwnedFd, hold: Option<Hold<'a>>) -> Self {
        let mut oom_score_adj = [0; 8];
        let room = oom_score_adj.len();
        let mut rest = &mut oom_score_adj[..];
        // A number that does not fit is none that the kernel takes: the cut one is refused there too.
        let _ = write!(rest, "{}", start.oom_score_adj);
        let oom_score_adj_len = room - rest.len();
        let as_root = start.steps.iter().position(Step::is_identity).unwrap_or(start.steps.len());
        let (steps_as_root, steps_of_identity) = start.steps.split_at(as_root);
        Self {
            path: start.program.path(),
            second: start.program.second(),
            argv: start.program.argv(),
            envp: start.program.envp(),
            slots: start.program.slots(),
            envp_tail: start.program.envp_tail(),
            steps_as_root,
            steps_of_identity,
            working_directory: start.working_directory.map_or(ptr::null(), CStr::as_ptr),
            stdio: start.stdio.map(|fd| fd.as_raw_fd()),
            handed: start.handed.get(..HANDED_MAX).unwrap_or(start.handed),
            highest_given: start.highest_given(),
            pid_slots: start.program.pid_slots(),
            tell: tell.as_raw_fd(),
            wait: hold.as_ref().map_or(-1, |hold| hold.wait.as_raw_fd()),
            lock_max_bytes: hold.as_ref().map_or(0, |hold| hold.lock_max_bytes),
            ballast_bytes: hold.map_or(0, |hold| hold.ballast_bytes),
            oom_score_adj,
            oom_score_adj_len,
            descriptor_limit: descriptor_limit_of_children(),
            cgroup_procs: -1,
            borrows: PhantomData,
        }
    }
}

/// Makes the child and lets it run its plan; the pid is the parent's answer.
///
/// Signals are held back over the call, so that none of lifeboat's handlers can run in the child.
pub(super) fn spawn(mut plan: Plan<'_>, cgroup: Option<Place<'_>>) -> Result<u32, SpawnError> {
    let held = hold_signals();
    let made = match cgroup {
        Some(Place { folder, way: Way::Moved }) => fork_and_join(&mut plan, folder),
        Some(Place { folder, way: Way::Born }) => {
            clone_into(&plan, folder).or_else(|errno| match errno {
                // An old kernel, or a filter that hides clone3.
                Errno::ENOSYS | Errno::EINVAL | Errno::E2BIG | Errno::EPERM => {
                    fork_and_join(&mut plan, folder)
                }
                other => Err(SpawnError::new(SpawnStage::Clone, other as i32)),
            })
        }
        None => fork(&plan),
    };
    restore_signals(&held);
    made
}

/// clone3(2) without shared memory, straight into the cgroup.
fn clone_into(plan: &Plan<'_>, cgroup: BorrowedFd<'_>) -> Result<u32, Errno> {
    let args = clone_args {
        flags: CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: u64::from(cgroup.as_raw_fd().unsigned_abs()),
    };
    // SAFETY: `args` is a whole clone_args of the size given, and lives over the call. Without CLONE_VM the child gets
    // its own copy of memory and stack, as by fork(2), and goes on right here with the result 0.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, ptr::from_ref(&args), std::mem::size_of::<clone_args>()) };
    answer(pid, plan)
}

/// The other way: fork(2), and the child moves itself before anything else.
fn fork_and_join(plan: &mut Plan<'_>, cgroup: BorrowedFd<'_>) -> Result<u32, SpawnError> {
    let procs = openat(cgroup, c"cgroup.procs", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| SpawnError::new(SpawnStage::JoinCgroup, errno as i32))?;
    plan.cgroup_procs = procs.as_raw_fd();
    fork(plan)
}

fn fork(plan: &Plan<'_>) -> Result<u32, SpawnError> {
    // SAFETY: the child only runs `run`, which is written for this place (see the head of this page).
    let pid = unsafe { libc::fork() };
    answer(pid.into(), plan).map_err(|errno| SpawnError::new(SpawnStage::Clone, errno as i32))
}

/// Parent: the pid or the error. Child: goes its way and never comes back.
fn answer(pid: libc::c_long, plan: &Plan<'_>) -> Result<u32, Errno> {
    if pid == 0 {
        // SAFETY: this is the child, alone in its copy of memory, with every signal held back.
        unsafe { run(plan) }
    }
    u32::try_from(pid).map_err(|_| Errno::last())
}

/// Holds back every signal; the answer is what was held back before.
fn hold_signals() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data for which all zeros is a valid value, and both sets live over the call.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

fn restore_signals(before: &libc::sigset_t) {
    // SAFETY: the set was filled in by the kernel.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, ptr::from_ref(before), ptr::null_mut()) };
}

/// The child's whole life before its program.
///
/// # Safety
///
/// To be called in a fresh child only, with the memory that the plan points to.
unsafe fn run(plan: &Plan<'_>) -> ! {
    // SAFETY: every pointer in the plan is valid in this copy of memory, and only calls that are safe after fork are
    // made.
    unsafe {
        if plan.cgroup_procs >= 0 && libc::write(plan.cgroup_procs, c"0".as_ptr().cast(), 1) != 1 {
            fail(plan, SpawnStage::JoinCgroup);
        }
        libc::setsid();
        reset_signals();
        if write_oom_score_adj(plan).is_err() {
            fail(plan, SpawnStage::OomScoreAdj);
        }
        if set_stdio(plan).is_err() || hand_over(plan).is_err() {
            fail(plan, SpawnStage::Stdio);
        }
        close_the_rest(plan);
        if let Some(limit) = plan.descriptor_limit {
            limit.apply();
        }
        if plan.ballast_bytes > 0 && ballast::stand(plan.ballast_bytes, plan.tell, plan.wait).is_err() {
            fail(plan, SpawnStage::Clone);
        }
        take_all(plan, plan.steps_as_root);
        // An ordinary user may lock little or nothing; what is locked stays so.
        if plan.wait >= 0 {
            lock_files(plan.path, plan.envp, plan.lock_max_bytes, plan.tell);
        }
        take_all(plan, plan.steps_of_identity);
        if !plan.working_directory.is_null() && libc::chdir(plan.working_directory) != 0 {
            fail(plan, SpawnStage::WorkingDirectory);
        }
        if !plan.second.is_null() && may_execute(plan.second).is_err() {
            tell_no_second(plan);
        }
        if plan.wait >= 0 {
            wait_for_order(plan);
        }
        for slot in plan.pid_slots {
            if !slot.text.is_null() {
                // The slots belong to this copy of memory alone.
                write_pid(&mut *slot.text, slot.name_len, libc::getpid());
            }
        }
        libc::execve(plan.path, plan.argv, plan.envp);
        fail(plan, SpawnStage::Exec)
    }
}

unsafe fn take_all(plan: &Plan<'_>, steps: &[Step]) {
    // errno(3) where mounts of its own were refused: a mount would then be one of the machine's.
    let mut no_mounts = None;
    for step in steps {
        let (setting, inner) = match step {
            Step::Optional(setting, inner) => (Some(*setting), &**inner),
            other => (None, other),
        };
        // SAFETY: this is the child.
        unsafe {
            let taken = match no_mounts {
                Some(errno) if inner.is_mount() => {
                    Errno::set(errno);
                    Err(Refused)
                }
                _ => inner.take(),
            };
            match (taken, setting) {
                (Ok(()), _) => {}
                (Err(Refused), Some(setting)) => {
                    if matches!(inner, Step::MountNamespace) {
                        no_mounts = Some(Errno::last());
                    }
                    tell_skipped(plan, setting);
                }
                (Err(Refused), None) => fail(plan, step.stage()),
            }
        }
    }
}

/// Tells the parent which setting is left out and its errno, in one write that the pipe keeps whole, and goes on.
unsafe fn tell_skipped(plan: &Plan<'_>, setting: Setting) {
    let [a, b, c, d] = (Errno::last() as i32).to_ne_bytes();
    let message = [SKIPPED, setting as u8, a, b, c, d];
    // SAFETY: the message lives over the call.
    unsafe { libc::write(plan.tell, message.as_ptr().cast(), message.len()) };
}

/// Tells the parent the errno for which the second program could not be executed, in the same way, and goes on.
unsafe fn tell_no_second(plan: &Plan<'_>) {
    let [a, b, c, d] = (Errno::last() as i32).to_ne_bytes();
    let message = [NO_SECOND, a, b, c, d];
    // SAFETY: the message lives over the call.
    unsafe { libc::write(plan.tell, message.as_ptr().cast(), message.len()) };
}

/// Tells the parent the stage and errno, in one write that the pipe keeps whole, and ends.
unsafe fn fail(plan: &Plan<'_>, stage: SpawnStage) -> ! {
    let [a, b, c, d] = (Errno::last() as i32).to_ne_bytes();
    let message = [stage as u8, a, b, c, d];
    // SAFETY: the message lives over the call.
    unsafe {
        libc::write(plan.tell, message.as_ptr().cast(), message.len());
        libc::_exit(EXIT_NOT_EXECUTED)
    }
}

/// Default handling for every signal (also the ignored ones: Rust ignores SIGPIPE), and none held back.
///
/// The raw call, because the C libraries keep two or three signals to themselves and would leave those ignored.
unsafe fn reset_signals() {
    // SAFETY: zeros are SIG_DFL with no flags and an empty mask, in more room than any kernel's sigaction takes; the
    // set is plain data.
    unsafe {
        let default = [0_u64; 8];
        for signal in 1..=SIGNAL_MAX {
            let action = default.as_ptr();
            libc::syscall(libc::SYS_rt_sigaction, signal, action, ptr::null_mut::<u64>(), SIGNAL_SET_BYTES);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

unsafe fn write_oom_score_adj(plan: &Plan<'_>) -> Result<(), Refused> {
    // SAFETY: the path ends in NUL, the text lives in the plan.
    unsafe {
        let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file < 0 {
            return Err(Refused);
        }
        // The file is closed with all the others.
        let written = libc::write(file, plan.oom_score_adj.as_ptr().cast(), plan.oom_score_adj_len);
        if written < 0 { Err(Refused) } else { Ok(()) }
    }
}

/// Makes the three given descriptors 0, 1 and 2. First copies, so that they may be given in any order.
unsafe fn set_stdio(plan: &Plan<'_>) -> Result<(), Refused> {
    // SAFETY: plain calls on numbers.
    unsafe {
        let mut copies = [-1; 3];
        for (copy, fd) in copies.iter_mut().zip(plan.stdio) {
            *copy = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, libc::STDERR_FILENO + 1);
            if *copy < 0 {
                return Err(Refused);
            }
        }
        for (number, copy) in (0..).zip(copies) {
            if libc::dup2(copy, number) < 0 {
                return Err(Refused);
            }
        }
        Ok(())
    }
}

/// Gives its number in the program to each descriptor that is handed over. No pipe end of ours has such a number.
unsafe fn hand_over(plan: &Plan<'_>) -> Result<(), Refused> {
    // First copies, above all of these numbers: one may stand where another belongs, and a descriptor that already has
    // its number would keep its close-on-exec flag.
    let mut copies = [-1; HANDED_MAX];
    // SAFETY: plain calls on numbers.
    unsafe {
        for (copy, (fd, _)) in copies.iter_mut().zip(plan.handed) {
            *copy = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, plan.highest_given + 1);
            if *copy < 0 {
                return Err(Refused);
            }
        }
        for (copy, (_, number)) in copies.iter().zip(plan.handed) {
            if libc::dup2(*copy, *number) < 0 {
                return Err(Refused);
            }
        }
    }
    Ok(())
}

/// Really closes everything above 2 but the child's own pipe ends and what it is handed, so that no child holds
/// another's go pipe, a cgroup or a socket of lifeboat while it waits.
unsafe fn close_the_rest(plan: &Plan<'_>) {
    let mut kept = [c_int::MAX; HANDED_MAX + 3];
    let given = plan.handed.iter().map(|(_, number)| *number).chain([plan.tell, plan.wait]);
    for (place, fd) in kept.iter_mut().zip(given) {
        *place = fd;
    }
    sort_few(&mut kept, |fd| *fd);
    let mut first = libc::STDERR_FILENO + 1;
    for fd in kept {
        if first < fd {
            // SAFETY: only this process's own descriptors are closed, and nothing in this copy of lifeboat uses them.
            unsafe { close_range(first, fd - 1) };
        }
        first = first.max(fd.saturating_add(1));
    }
}

unsafe fn close_range(first: c_int, last: c_int) {
    // SAFETY: as of the caller.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) == 0 {
            return;
        }
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        let highest = c_int::try_from(limit.rlim_cur).unwrap_or(c_int::MAX).min(DESCRIPTOR_MAX);
        for fd in first..=last.min(highest) {
            libc::close(fd);
        }
    }
}

/// Stands ready, and comes back only to execute the program.
unsafe fn wait_for_order(plan: &Plan<'_>) {
    // SAFETY: the pointers of the plan are valid; the slots and the environment belong to this copy of memory alone.
    unsafe {
        if may_execute(plan.path).is_err() {
            fail(plan, SpawnStage::Exec);
        }
        if let Some(slots) = plan.slots.as_mut() {
            slots.touch(plan.envp_tail);
        }
        let ready = [READY];
        libc::write(plan.tell, ready.as_ptr().cast(), 1);
        if !receive(plan.wait, plan.slots, plan.envp_tail) {
            // Nobody will let this process go any more.
            libc::_exit(0);
        }
        libc::close(plan.wait);
    }
}

/// What execve(2) would refuse is told now, and not when the data of the service is at stake.
unsafe fn may_execute(path: *const c_char) -> Result<(), Refused> {
    // SAFETY: the path ends in NUL.
    unsafe {
        if rustix::fs::stat(CStr::from_ptr(path)).is_ok_and(|it| it.st_mode & libc::S_IFMT == libc::S_IFDIR) {
            Errno::EACCES.set();
            return Err(Refused);
        }
        if libc::access(path, libc::X_OK) != 0 {
            return Err(Refused);
        }
        find_interpreter(path)
    }
}

/// The interpreter of a script. What cannot be read is not looked at.
unsafe fn find_interpreter(path: *const c_char) -> Result<(), Refused> {
    let mut line = [0_u8; SCRIPT_BYTES];
    // SAFETY: plain calls; the path and the line end in NUL, and no more is read than there is room for.
    unsafe {
        let file = libc::open(path, libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return Ok(());
        }
        let length = libc::read(file, line.as_mut_ptr().cast(), SCRIPT_BYTES - 1);
        libc::close(file);
        if length >= 0 && !may_be_executed(&line) {
            *libc::__errno_location() = libc::ENOEXEC;
            return Err(Refused);
        }
        match interpreter_in(&mut line) {
            Some(path) if libc::access(path.as_ptr(), libc::X_OK) != 0 => Err(Refused),
            Some(_) | None => Ok(()),
        }
    }
}

/// By how it begins: a script, ELF, the flat format of machines without an MMU, or anything where the kernel may know
/// further formats (Documentation/admin-guide/binfmt-misc.rst).
unsafe fn may_be_executed(begin: &[u8]) -> bool {
    [&b"#!"[..], b"\x7fELF", b"bFLT"].iter().any(|magic| begin.starts_with(magic))
        // SAFETY: a plain call with a constant path.
        || unsafe { libc::access(c"/proc/sys/fs/binfmt_misc/register".as_ptr(), libc::F_OK) } == 0
}

/// The path behind `#!`, up to a blank or the line's end.
fn interpreter_in(line: &mut [u8]) -> Option<&CStr> {
    if !line.starts_with(b"#!") {
        return None;
    }
    let rest = line.get_mut(2..)?;
    let from = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t'))?;
    let path = rest.get_mut(from..)?;
    let end = path.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\n' | 0))?;
    *path.get_mut(end)? = 0;
    CStr::from_bytes_until_nul(path).ok().filter(|path| !path.is_empty())
}
