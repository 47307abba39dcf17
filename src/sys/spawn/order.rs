#![expect(unsafe_code, reason = "sendmsg(2) and recvmsg(2) without an allocation, on both sides of a fork")]

//! The order that lets a parked process go: one message on a socket pair, with words for its environment and
//! descriptors for its program (`SCM_RIGHTS` of unix(7)).
//!
//! The child waits with nothing open from number 3 on, so the kernel gives the descriptors their numbers in the order
//! in which they come: what the service has stored first, as sd_listen_fds(3) has it, then the pidfd, then the cgroup.
//! Neither side allocates.
//!
//! A resident procedure is in its program already: its order is a line of text on a stream, because a shell reads byte
//! by byte, and of a packet everything behind the first byte would be lost. Who reads by recvmsg(2) gets the
//! descriptors with it, in the same order; who reads by read(2) loses them without harm.

use super::listen::{NAME_BYTES_MAX, SD_LISTEN_FDS_START};
use super::pid_word::write_pid;
use super::{HANDED_MAX, SpawnError, moved_above};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::ffi::{c_char, c_int};
use std::io::Write;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::{mem, ptr};

const REASON: &[u8] = b"LIFEBOAT_REASON=";
const MAINPID: &[u8] = b"LIFEBOAT_MAINPID=";
const DEADLINE_MS: &[u8] = b"LIFEBOAT_DEADLINE_MS=";
const PIDFD: &[u8] = b"LIFEBOAT_PIDFD=";
const CGROUP_FD: &[u8] = b"LIFEBOAT_CGROUP_FD=";
const LISTEN_FDS: &[u8] = b"LISTEN_FDS=";
const LISTEN_PID: &[u8] = b"LISTEN_PID=";
const NAMES: &[u8] = b"LISTEN_FDNAMES=";

/// Room for each value with its NUL.
const REASON_LEN: usize = 32;
const NUMBER_LEN: usize = 12;

/// Where each value stands in the message; the last byte is the number of descriptors.
const MAINPID_AT: usize = REASON_LEN;
const DEADLINE_AT: usize = MAINPID_AT + NUMBER_LEN;
const PIDFD_AT: usize = DEADLINE_AT + NUMBER_LEN;
const CGROUP_AT: usize = PIDFD_AT + NUMBER_LEN;
const LISTEN_AT: usize = CGROUP_AT + NUMBER_LEN;
const COUNT_AT: usize = LISTEN_AT + NUMBER_LEN;
const ORDER_LEN: usize = COUNT_AT + 1;

/// Room for the line of a resident procedure, but for the names.
const LINE_LEN: usize = 192;

/// What is stored, the pidfd and the cgroup. `SCM_MAX_FD` of include/net/scm.h is 253.
const GIVEN_MAX: usize = HANDED_MAX + 2;

/// Bytes of so many descriptors in a control message.
#[expect(clippy::cast_possible_truncation, reason = "there are at most GIVEN_MAX")]
const fn bytes_of(count: usize) -> u32 {
    (count * size_of::<RawFd>()) as u32
}

/// Bytes of their control message. The C library musl takes no more than 1024.
// SAFETY: a computation on numbers.
const CONTROL_LEN: usize = unsafe { libc::CMSG_SPACE(bytes_of(GIVEN_MAX)) } as usize;

/// Room for a control message, as aligned as its header.
#[repr(align(8))]
struct Control([u8; CONTROL_LEN]);

/// The fixed bytes of an order in the socket.
pub(super) type OrderBytes = [u8; ORDER_LEN];

/// What a parked process is told and given when it is let go. Making one allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    bytes: OrderBytes,
    fds: [RawFd; GIVEN_MAX],
    count: usize,
    names: &'a str,
    borrows: PhantomData<BorrowedFd<'a>>,
}

impl<'a> Order<'a> {
    /// An order without descriptors. A reason longer than 31 bytes is cut.
    #[must_use]
    pub fn new(reason: &str, main_pid: u32, deadline_ms: u32) -> Self {
        let mut order =
            Self { bytes: [0; ORDER_LEN], fds: [-1; GIVEN_MAX], count: 0, names: "", borrows: PhantomData };
        put(order.bytes.get_mut(..REASON_LEN - 1).unwrap_or_default(), 0, reason.as_bytes());
        // To kill(2) and /proc 0 is the caller itself.
        if main_pid > 0 {
            order.number(MAINPID_AT, u64::from(main_pid));
        }
        order.number(DEADLINE_AT, u64::from(deadline_ms));
        order
    }

    /// The same order with descriptors: what the service has stored, under names joined by colons, and a pidfd of its
    /// first process and the folder of its cgroup, as far as there are such.
    #[must_use]
    pub fn with(
        mut self,
        (stored, names): (impl Iterator<Item = BorrowedFd<'a>>, &'a str),
        [pidfd, cgroup]: [Option<BorrowedFd<'a>>; 2],
    ) -> Self {
        stored.take(HANDED_MAX).for_each(|fd| self.add(fd));
        if self.count > 0 {
            self.number(LISTEN_AT, self.count as u64);
            self.names = names;
        }
        for (at, fd) in [(PIDFD_AT, pidfd), (CGROUP_AT, cgroup)] {
            if let Some(fd) = fd {
                self.number(at, SD_LISTEN_FDS_START as u64 + self.count as u64);
                self.add(fd);
            }
        }
        if let Some(count) = self.bytes.get_mut(COUNT_AT) {
            *count = u8::try_from(self.count).unwrap_or(u8::MAX);
        }
        self
    }

    fn add(&mut self, fd: BorrowedFd<'a>) {
        if let Some(place) = self.fds.get_mut(self.count) {
            *place = fd.as_raw_fd();
            self.count += 1;
        }
    }

    fn number(&mut self, at: usize, number: u64) {
        // Ten digits and a NUL always fit.
        let _ = write!(self.bytes.get_mut(at..at + NUMBER_LEN - 1).unwrap_or_default(), "{number}");
    }
}

/// Lets a parked process go. Allocates nothing and never blocks.
///
/// `EPIPE` where the process is gone.
pub fn release(go: BorrowedFd<'_>, order: &Order<'_>) -> Result<(), i32> {
    send(go, order, &mut [part(&order.bytes), part(order.names.as_bytes())])
}

/// The same for a resident procedure, which gets its order as a line of text:
/// `LIFEBOAT_REASON=stop LIFEBOAT_MAINPID=7 LIFEBOAT_DEADLINE_MS=2000 PIDFDS=1 CGROUPS=1 STORED=2 NAMES=a:b`.
pub fn release_resident(go: BorrowedFd<'_>, order: &Order<'_>) -> Result<(), i32> {
    let text = |at: usize, length: usize| {
        let bytes = order.bytes.get(at..at + length).unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(bytes.get(..end).unwrap_or_default()).unwrap_or_default()
    };
    let main_pid = text(MAINPID_AT, NUMBER_LEN);
    let is_there = |at: usize| u8::from(!text(at, NUMBER_LEN).is_empty());
    let (pidfds, cgroups) = (is_there(PIDFD_AT), is_there(CGROUP_AT));
    let mut line = [0; LINE_LEN];
    let room = line.len();
    let mut rest = &mut line[..];
    // It always fits.
    let _ = write!(
        rest,
        "LIFEBOAT_REASON={}{}{} LIFEBOAT_DEADLINE_MS={} PIDFDS={pidfds} CGROUPS={cgroups} STORED={} NAMES=",
        text(0, REASON_LEN),
        if main_pid.is_empty() { "" } else { " LIFEBOAT_MAINPID=" },
        main_pid,
        text(DEADLINE_AT, NUMBER_LEN),
        order.count - usize::from(pidfds + cgroups),
    );
    let length = room - rest.len();
    send(
        go,
        order,
        &mut [part(line.get(..length).unwrap_or_default()), part(order.names.as_bytes()), part(b"\n")],
    )
}

fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn send(go: BorrowedFd<'_>, order: &Order<'_>, parts: &mut [libc::iovec]) -> Result<(), i32> {
    let mut control = Control([0; CONTROL_LEN]);
    let length = parts.iter().map(|part| part.iov_len).sum::<usize>();
    // SAFETY: all zeros are an empty message; the header and the numbers are written within `control`, which has room
    // for GIVEN_MAX of them; what the message points to is only read, and lives over the call.
    let sent = unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len() as _;
        if order.count > 0 {
            let bytes = bytes_of(order.count);
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(bytes) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(bytes) as _;
            ptr::copy_nonoverlapping(order.fds.as_ptr().cast(), libc::CMSG_DATA(header), bytes as usize);
        }
        libc::sendmsg(go.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    match usize::try_from(sent) {
        Ok(sent) if sent == length => Ok(()),
        Ok(_) => Err(libc::EIO),
        Err(_) => Err(Errno::last() as i32),
    }
}

/// The child's end and lifeboat's end, both with numbers above one.
pub(super) fn order_sockets(kind: SockType, above: RawFd) -> Result<(OwnedFd, OwnedFd), SpawnError> {
    let (wait, go) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|errno| SpawnError::new(crate::engine::event::SpawnStage::Clone, errno as i32))?;
    Ok((moved_above(wait, above)?, moved_above(go, above)?))
}

/// The strings of the environment that an order fills, with room for any values.
#[derive(Debug)]
pub(super) struct Slots {
    reason: [u8; REASON.len() + REASON_LEN],
    mainpid: [u8; MAINPID.len() + NUMBER_LEN],
    deadline_ms: [u8; DEADLINE_MS.len() + NUMBER_LEN],
    pidfd: [u8; PIDFD.len() + NUMBER_LEN],
    cgroup_fd: [u8; CGROUP_FD.len() + NUMBER_LEN],
    listen_fds: [u8; LISTEN_FDS.len() + NUMBER_LEN],
    listen_pid: [u8; LISTEN_PID.len() + NUMBER_LEN],
    names: Box<[u8]>,
}

impl Slots {
    /// So many words they are at most.
    pub(super) const WORDS: usize = 8;

    /// With room for the names of so many stored descriptors.
    pub(super) fn new(stored_max: usize) -> Self {
        fn of<const N: usize>(name: &[u8]) -> [u8; N] {
            let mut slot = [0; N];
            put(&mut slot, 0, name);
            slot
        }
        let mut names = vec![0; NAMES.len() + stored_max * (NAME_BYTES_MAX + 1) + 1].into_boxed_slice();
        put(&mut names, 0, NAMES);
        Self {
            reason: of(REASON),
            mainpid: of(MAINPID),
            deadline_ms: of(DEADLINE_MS),
            pidfd: of(PIDFD),
            cgroup_fd: of(CGROUP_FD),
            listen_fds: of(LISTEN_FDS),
            listen_pid: of(LISTEN_PID),
            names,
        }
    }

    /// Puts the order's values in. Straight-line and free of allocation, as all that follows: it runs in the child.
    fn fill(&mut self, bytes: &OrderBytes) {
        let value = |at: usize, length: usize| bytes.get(at..at + length).unwrap_or_default();
        put(&mut self.reason, REASON.len(), value(0, REASON_LEN));
        put(&mut self.mainpid, MAINPID.len(), value(MAINPID_AT, NUMBER_LEN));
        put(&mut self.deadline_ms, DEADLINE_MS.len(), value(DEADLINE_AT, NUMBER_LEN));
        put(&mut self.pidfd, PIDFD.len(), value(PIDFD_AT, NUMBER_LEN));
        put(&mut self.cgroup_fd, CGROUP_FD.len(), value(CGROUP_AT, NUMBER_LEN));
        put(&mut self.listen_fds, LISTEN_FDS.len(), value(LISTEN_AT, NUMBER_LEN));
    }

    /// The words that the order has filled; null for those that have nothing to say.
    fn words(&self) -> [*const c_char; Self::WORDS] {
        let word = |slot: &[u8], has: bool| if has { slot.as_ptr().cast() } else { ptr::null() };
        let said = |slot: &[u8], name: &[u8]| slot.get(name.len()).is_some_and(|byte| *byte != 0);
        let listens = said(&self.listen_fds, LISTEN_FDS);
        [
            word(&self.reason, true),
            word(&self.mainpid, said(&self.mainpid, MAINPID)),
            word(&self.deadline_ms, true),
            word(&self.pidfd, said(&self.pidfd, PIDFD)),
            word(&self.cgroup_fd, said(&self.cgroup_fd, CGROUP_FD)),
            word(&self.listen_fds, listens),
            word(&self.listen_pid, listens),
            word(&self.names, listens),
        ]
    }

    /// Takes this process's own copy of all pages now, not under exhaustion, and notes whose it is.
    ///
    /// # Safety
    ///
    /// In the child; `tail` has room for the words and a null.
    pub(super) unsafe fn touch(&mut self, tail: *mut *const c_char) {
        self.fill(&[0; ORDER_LEN]);
        // SAFETY: a call that only asks.
        write_pid(&mut self.listen_pid, LISTEN_PID.len(), unsafe { libc::getpid() });
        for byte in self.names.iter_mut().skip(NAMES.len()) {
            // SAFETY: a byte of this slice; volatile, or the compiler might leave out a write that changes nothing.
            unsafe { ptr::write_volatile(byte, 0) };
        }
        // SAFETY: as of the caller.
        unsafe { self.write_words(tail) };
    }

    unsafe fn write_words(&self, tail: *mut *const c_char) {
        let mut at = tail;
        for word in self.words() {
            if !word.is_null() {
                // SAFETY: at most as many as there is room for.
                unsafe {
                    at.write(word);
                    at = at.add(1);
                }
            }
        }
        // SAFETY: the room for the null.
        unsafe { at.write(ptr::null()) };
    }
}

/// Waits for the order and completes the environment by it. False where nobody will send one any more.
///
/// Where not all descriptors have come, or not under their numbers, the program gets no word of any: what it can save
/// without them is better than nothing.
///
/// # Safety
///
/// In the child, where the slots and the environment belong to this copy of memory alone; `tail` has room for
/// [`Slots::WORDS`] and a null, or there are no slots.
pub(super) unsafe fn receive(wait: c_int, slots: *mut Slots, tail: *mut *const c_char) -> bool {
    let mut bytes: OrderBytes = [0; ORDER_LEN];
    let mut control = Control([0; CONTROL_LEN]);
    // SAFETY: all zeros are an empty message; everything that it points to lives over the call and has the length that
    // it says; the slots are as of the caller, and the last byte of the names stays the NUL that it was.
    unsafe {
        let slots = slots.as_mut();
        let names = match &slots {
            Some(slots) => {
                let room = slots.names.len().saturating_sub(NAMES.len() + 1);
                libc::iovec {
                    iov_base: slots.names.as_ptr().add(NAMES.len()).cast_mut().cast(),
                    iov_len: room,
                }
            }
            None => libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 },
        };
        let mut parts = [libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: ORDER_LEN }, names];
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len() as _;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_LEN as _;
        loop {
            let length = libc::recvmsg(wait, &raw mut message, 0);
            if length >= ORDER_LEN as isize {
                break;
            }
            if length >= 0 || Errno::last() != Errno::EINTR {
                return false;
            }
        }
        let count = bytes.get(COUNT_AT).map_or(0, |count| usize::from(*count));
        if !came_as_promised(&message, count) {
            for at in [PIDFD_AT, CGROUP_AT, LISTEN_AT] {
                put(&mut bytes, at, &[0]);
            }
        }
        if let Some(slots) = slots {
            slots.fill(&bytes);
            slots.write_words(tail);
        }
    }
    true
}

/// So many descriptors have come, and stand from number 3 on. Else those that have come are closed again.
unsafe fn came_as_promised(message: &libc::msghdr, count: usize) -> bool {
    // SAFETY: the kernel has written the control message and its length, and put its descriptors into our table.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            return count == 0;
        }
        let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
        let numbers = libc::CMSG_DATA(header).cast::<RawFd>();
        let came = (0..bytes / size_of::<RawFd>()).map(|at| numbers.add(at).read_unaligned());
        let promised = came.len() == count && came.clone().eq((SD_LISTEN_FDS_START..).take(count));
        if !promised {
            for number in came {
                libc::close(number);
            }
        }
        promised
    }
}

/// Copies as much as there is room for.
fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in into.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn a_resident_procedure_reads_its_order_as_a_line() {
        let check = |reason: &str, given: [bool; 2], names: &str, expected: &str| {
            let (wait, go) = order_sockets(SockType::Stream, 2).expect("a socket pair");
            let null = std::fs::File::open("/dev/null").expect("the null device");
            let given = given.map(|given| given.then(|| null.as_fd()));
            let stored = names.split(':').filter(|name| !name.is_empty()).map(|_| null.as_fd());
            release_resident(
                go.as_fd(),
                &Order::new(reason, u32::MAX, u32::MAX).with((stored, names), given),
            )
            .expect("it is let go");
            drop(go);
            let mut text = String::new();
            std::fs::File::from(wait).read_to_string(&mut text).expect("its words");
            assert_eq!(text, expected);
        };
        let of = |reason: &str, rest: &str| {
            let number = u32::MAX;
            format!(
                "LIFEBOAT_REASON={reason} LIFEBOAT_MAINPID={number} LIFEBOAT_DEADLINE_MS={number} {rest}\n"
            )
        };
        check("stop", [false; 2], "", &of("stop", "PIDFDS=0 CGROUPS=0 STORED=0 NAMES="));
        check("drill", [true, false], "", &of("drill", "PIDFDS=1 CGROUPS=0 STORED=0 NAMES="));
        let cut = "x".repeat(31);
        check(&"x".repeat(80), [true; 2], "a:b c", &of(&cut, "PIDFDS=1 CGROUPS=1 STORED=2 NAMES=a:b c"));
    }

    #[test]
    fn an_order_fills_the_slots() {
        let check = |reason: &str, pid, deadline_ms, expected: [&str; 3]| {
            let mut slots = Slots::new(0);
            slots.fill(&Order::new(reason, pid, deadline_ms).bytes);
            let words = slots.words().map(|word| {
                // SAFETY: a string of the slots, with its NUL.
                (!word.is_null()).then(|| unsafe { CStr::from_ptr(word) }.to_str().expect("text"))
            });
            let expected = expected.map(|word| Some(word).filter(|word| !word.is_empty()));
            assert_eq!(words, [expected[0], expected[1], expected[2], None, None, None, None, None]);
        };
        check(
            "exhaustion",
            4_294_967_295,
            4_294_967_295,
            ["LIFEBOAT_REASON=exhaustion", "LIFEBOAT_MAINPID=4294967295", "LIFEBOAT_DEADLINE_MS=4294967295"],
        );
        check("", 0, 0, ["LIFEBOAT_REASON=", "", "LIFEBOAT_DEADLINE_MS=0"]);
        let long = "x".repeat(80);
        let cut = format!("LIFEBOAT_REASON={}", "x".repeat(31));
        check(&long, 1, 2, [&cut, "LIFEBOAT_MAINPID=1", "LIFEBOAT_DEADLINE_MS=2"]);
    }
}
