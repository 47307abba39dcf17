#![expect(unsafe_code, reason = "mmap(2) and mlock(2) between fork and execve, with what the plan points to")]

//! What a parked process locks in memory: the files that its execve(2) will need.
//!
//! A lock ends with the execve, and does its work until then: the pages stay where they are, whoever they are charged
//! to, and the program that begins finds them. (A page of a file is charged to the cgroup that first touches it.)

use super::Status;
use super::files::{Found, files_of};
use nix::errno::Errno;
use std::ffi::{CStr, c_char, c_int};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// The byte before a file that is not locked. No [`SpawnStage`](crate::engine::event::SpawnStage) has this number.
pub(super) const UNLOCKED: u8 = 0xFD;

/// The rest of that message: errno(3), a number of bytes, the name.
const NAME_LEN: usize = 118;
const MESSAGE_LEN: usize = 1 + size_of::<u64>() + NAME_LEN;

/// So many are told of each process.
const TOLD_MAX: u32 = 8;

/// A file that a parked process needs and has not locked in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unlocked {
    /// `ENOENT`: it was not found. `EFBIG`: it and all it needs are more than may be locked. `E2BIG`: there are more
    /// files than are looked for. Else mmap(2) or mlock(2) failed.
    pub errno: i32,
    /// What all files take together that were found, where that is too much.
    pub bytes: u64,
    name: [u8; NAME_LEN],
}

impl Unlocked {
    /// Its path, or the name by which another file needs it; cut where it is long.
    #[must_use]
    pub fn name(&self) -> &str {
        let name = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        match str::from_utf8(name) {
            Ok(name) => name,
            Err(error) => {
                str::from_utf8(name.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
            }
        }
    }

    /// The rest of the message, which the child writes in one piece.
    pub(super) fn read(status: BorrowedFd<'_>) -> Status {
        let mut rest = [0_u8; MESSAGE_LEN];
        match (nix::unistd::read(status, &mut rest), rest) {
            (Ok(MESSAGE_LEN), [errno, a, b, c, d, e, f, g, h, name @ ..]) => {
                let bytes = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
                Status::Unlocked(Self { errno: errno.into(), bytes, name })
            }
            _ => Status::Pending,
        }
    }
}

/// The child's words, in one write that the pipe keeps whole. What a file says must not look like a line of its own.
fn tell(to: c_int, errno: i32, bytes: u64, name: &CStr) {
    let mut message = [0_u8; 1 + MESSAGE_LEN];
    let head = [UNLOCKED, u8::try_from(errno).unwrap_or(u8::MAX)].into_iter().chain(bytes.to_ne_bytes());
    let plain = name.to_bytes().iter().map(|byte| if byte.is_ascii_control() { b'?' } else { *byte });
    for (place, byte) in message.iter_mut().zip(head.chain(plain)) {
        *place = byte;
    }
    // SAFETY: the message lives over the call.
    unsafe { libc::write(to, message.as_ptr().cast(), message.len()) };
}

/// Brings the files into memory that execve(2) will need, as many as fit, and locks them there until then. A program
/// that cannot be opened may still be executable: mode 0111.
///
/// # Safety
///
/// To be called in a fresh child only, with a path and an environment as execve(2) takes them.
pub(super) unsafe fn lock_files(path: *const c_char, envp: *const *const c_char, max_bytes: u64, to: c_int) {
    if max_bytes == 0 {
        return;
    }
    // SAFETY: as of the caller.
    let (path, library_path) = unsafe { (CStr::from_ptr(path), library_path_in(envp)) };
    let (mut locked_bytes, mut all_bytes, mut told) = (0, 0, 0);
    let mut all_fit = true;
    let mut tell = |errno, bytes, name: &CStr| {
        if told < TOLD_MAX {
            tell(to, errno, bytes, name);
        }
        told += 1;
    };
    files_of(None, path, library_path, &mut |found| match found {
        Found::File { path, file, bytes, .. } => {
            all_bytes = u64::saturating_add(all_bytes, bytes);
            if bytes > max_bytes - locked_bytes {
                all_fit = false;
            } else if let Err(errno) = lock(file, bytes) {
                tell(errno as i32, bytes, path);
            } else {
                locked_bytes += bytes;
            }
        }
        Found::Missing(name) => tell(libc::ENOENT, 0, name),
        Found::TooMany => tell(libc::E2BIG, 0, path),
    });
    if !all_fit {
        tell(libc::EFBIG, all_bytes, path);
    }
}

fn lock(file: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    let Ok(length @ 1..) = usize::try_from(bytes) else { return Ok(()) };
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    // SAFETY: a mapping of its own, that only the kernel reads, until execve or the process's end.
    unsafe {
        let pages = libc::mmap(ptr::null_mut(), length, libc::PROT_READ, flags, file.as_raw_fd(), 0);
        if pages == libc::MAP_FAILED || libc::mlock(pages, length) != 0 {
            return Err(Errno::last());
        }
    }
    Ok(())
}

/// The value of `LD_LIBRARY_PATH`.
unsafe fn library_path_in<'a>(mut envp: *const *const c_char) -> &'a [u8] {
    // SAFETY: a list of strings that ends with a null, as of the caller.
    unsafe {
        while !envp.is_null() && !(*envp).is_null() {
            if let Some(value) = CStr::from_ptr(*envp).to_bytes().strip_prefix(b"LD_LIBRARY_PATH=") {
                return value;
            }
            envp = envp.add(1);
        }
    }
    b""
}
