//! What to run, as execve(2) wants it: strings that end in NUL, and tables of pointers to them.

use super::SpawnError;
use super::listen::Listen;
use super::pid_word::{PidSlot, PidWord};
use crate::engine::event::SpawnStage;
use std::cell::UnsafeCell;
use std::ffi::{CString, c_char};
use std::io::Write;
use std::ptr;

const REASON: &[u8] = b"LIFEBOAT_REASON=";
const MAINPID: &[u8] = b"LIFEBOAT_MAINPID=";
const DEADLINE_MS: &[u8] = b"LIFEBOAT_DEADLINE_MS=";

/// Room for each value with its NUL.
const REASON_LEN: usize = 32;
const NUMBER_LEN: usize = 12;
const ORDER_LEN: usize = REASON_LEN + 2 * NUMBER_LEN;

/// A program with its arguments and its environment, ready for execve(2): starting it prepares nothing more.
#[derive(Debug)]
pub struct Program {
    /// Never read again, but pointed to.
    _strings: Vec<CString>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    slots: Option<Box<UnsafeCell<Slots>>>,
    listen: Option<Listen>,
    /// Its pid, where it has a watchdog.
    watchdog: Option<PidWord>,
}

impl Program {
    /// A program; `argv` starts with its path, `env` is its whole environment (`NAME=value`).
    ///
    /// An empty `argv` is refused as execve(2) would refuse an empty path, with `ENOENT`.
    pub fn new(argv: &[CString], env: &[CString]) -> Result<Self, SpawnError> {
        Self::build(argv, env, None, None)
    }

    /// A program that can be handed descriptors as sd_listen_fds(3) has it, at most so many: [`Program::listen`] says
    /// which before each start.
    pub fn listener(argv: &[CString], env: &[CString], descriptors_max: usize) -> Result<Self, SpawnError> {
        Self::build(argv, env, None, Some(Listen::new(descriptors_max)))
    }

    /// A shutdown procedure: as [`Program::new`], with `LIFEBOAT_REASON`, `LIFEBOAT_MAINPID` and
    /// `LIFEBOAT_DEADLINE_MS` added to its environment. Their values come with the [`Order`] that releases it.
    pub fn procedure(argv: &[CString], env: &[CString]) -> Result<Self, SpawnError> {
        Self::build(argv, env, Some(Box::new(UnsafeCell::new(Slots::new()))), None)
    }

    fn build(
        argv: &[CString],
        env: &[CString],
        slots: Option<Box<UnsafeCell<Slots>>>,
        listen: Option<Listen>,
    ) -> Result<Self, SpawnError> {
        if argv.is_empty() {
            return Err(SpawnError::new(SpawnStage::Exec, libc::ENOENT));
        }
        let table = |strings: &[CString]| strings.iter().map(|one| one.as_ptr()).collect::<Vec<_>>();
        let strings: Vec<CString> = argv.iter().chain(env).cloned().collect();
        let (own_argv, own_env) = strings.split_at(argv.len());
        let (mut argv, mut envp) = (table(own_argv), table(own_env));
        if let Some(slots) = &slots {
            // The strings are written by the child alone, in its own copy of this memory.
            let slots = slots.get().cast::<u8>().cast_const();
            for offset in Slots::OFFSETS {
                envp.push(slots.wrapping_add(offset).cast());
            }
        }
        argv.push(ptr::null());
        // With room for the words of `listen`.
        envp.extend([ptr::null(); 1 + Listen::WORDS]);
        Ok(Self { _strings: strings, argv, envp, slots, listen, watchdog: None })
    }

    /// The names of the descriptors that the next start hands over, from number 3 on. Their words come into the
    /// environment, or go out of it where there are none. Allocates nothing.
    pub fn listen<'a>(&mut self, names: impl Iterator<Item = &'a str> + Clone) {
        let Some(listen) = &mut self.listen else { return };
        let words = listen.fill(names);
        let at = self.envp.len().saturating_sub(1 + Listen::WORDS);
        for (place, word) in self.envp.iter_mut().skip(at).zip(words) {
            *place = word;
        }
    }

    /// The same program, which is told its pid as the one whose watchdog it is (sd_watchdog_enabled(3)).
    #[must_use]
    pub fn with_watchdog_pid(mut self) -> Self {
        let watchdog = PidWord::new(b"WATCHDOG_PID=");
        let at = self.envp.len().saturating_sub(1 + Listen::WORDS);
        self.envp.insert(at, watchdog.word());
        self.watchdog = Some(watchdog);
        self
    }

    /// Where the child writes its pid.
    pub(super) fn pid_slots(&self) -> [PidSlot; 2] {
        let watchdog = self.watchdog.as_ref().map_or(PidSlot::NOWHERE, PidWord::slot);
        [self.listen.as_ref().map_or(PidSlot::NOWHERE, Listen::pid), watchdog]
    }

    /// The path to execute.
    pub(super) fn path(&self) -> *const c_char {
        self.argv.first().copied().unwrap_or(ptr::null())
    }

    pub(super) fn argv(&self) -> *const *const c_char {
        self.argv.as_ptr()
    }

    pub(super) fn envp(&self) -> *const *const c_char {
        self.envp.as_ptr()
    }

    /// The strings that an order fills; null where the program takes none.
    pub(super) fn slots(&self) -> *mut Slots {
        self.slots.as_ref().map_or(ptr::null_mut(), |slots| slots.get())
    }
}

/// Three strings of the environment with room for any value of an order.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Slots {
    reason: [u8; REASON.len() + REASON_LEN],
    mainpid: [u8; MAINPID.len() + NUMBER_LEN],
    deadline_ms: [u8; DEADLINE_MS.len() + NUMBER_LEN],
}

impl Slots {
    const OFFSETS: [usize; 3] = [
        std::mem::offset_of!(Self, reason),
        std::mem::offset_of!(Self, mainpid),
        std::mem::offset_of!(Self, deadline_ms),
    ];

    fn new() -> Self {
        let mut slots = Self {
            reason: [0; REASON.len() + REASON_LEN],
            mainpid: [0; MAINPID.len() + NUMBER_LEN],
            deadline_ms: [0; DEADLINE_MS.len() + NUMBER_LEN],
        };
        put(&mut slots.reason, 0, REASON);
        put(&mut slots.mainpid, 0, MAINPID);
        put(&mut slots.deadline_ms, 0, DEADLINE_MS);
        slots
    }

    /// Puts the order's values in. Straight-line and free of allocation: it runs in the child.
    pub(super) fn fill(&mut self, order: &Order) {
        put(&mut self.reason, REASON.len(), &order.reason);
        put(&mut self.mainpid, MAINPID.len(), &order.mainpid);
        put(&mut self.deadline_ms, DEADLINE_MS.len(), &order.deadline_ms);
    }
}

/// Copies as much as there is room for.
fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in into.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// What a parked procedure is told when it is let go. A fixed number of bytes; making one allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    reason: [u8; REASON_LEN],
    mainpid: [u8; NUMBER_LEN],
    deadline_ms: [u8; NUMBER_LEN],
}

impl Order {
    /// An order. A reason longer than 31 bytes is cut.
    #[must_use]
    pub fn new(reason: &str, main_pid: u32, deadline_ms: u32) -> Self {
        let mut order = Self::empty();
        put(&mut order.reason[..REASON_LEN - 1], 0, reason.as_bytes());
        // Ten digits and a NUL always fit.
        let _ = write!(&mut order.mainpid[..], "{main_pid}");
        let _ = write!(&mut order.deadline_ms[..], "{deadline_ms}");
        order
    }

    pub(super) fn empty() -> Self {
        Self { reason: [0; REASON_LEN], mainpid: [0; NUMBER_LEN], deadline_ms: [0; NUMBER_LEN] }
    }

    /// As it goes through the pipe.
    pub(super) fn to_bytes(self) -> [u8; ORDER_LEN] {
        let mut bytes = [0; ORDER_LEN];
        put(&mut bytes, 0, &self.reason);
        put(&mut bytes, REASON_LEN, &self.mainpid);
        put(&mut bytes, REASON_LEN + NUMBER_LEN, &self.deadline_ms);
        bytes
    }

    /// From the pipe.
    pub(super) fn from_bytes(bytes: &[u8; ORDER_LEN]) -> Self {
        let mut order = Self::empty();
        put(&mut order.reason, 0, &bytes[..REASON_LEN]);
        put(&mut order.mainpid, 0, &bytes[REASON_LEN..REASON_LEN + NUMBER_LEN]);
        put(&mut order.deadline_ms, 0, &bytes[REASON_LEN + NUMBER_LEN..]);
        order
    }
}

/// The bytes of an order in the pipe.
pub(super) type OrderBytes = [u8; ORDER_LEN];

#[cfg(test)]
mod tests {
    use super::*;

    fn text(slot: &[u8]) -> &str {
        slot.split(|byte| *byte == 0).next().and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("?")
    }

    #[test]
    fn an_order_fills_the_slots() {
        let check = |reason: &str, pid, deadline_ms, expected: [&str; 3]| {
            let mut slots = Slots::new();
            slots.fill(&Order::from_bytes(&Order::new(reason, pid, deadline_ms).to_bytes()));
            assert_eq!([text(&slots.reason), text(&slots.mainpid), text(&slots.deadline_ms)], expected);
        };
        check(
            "exhaustion",
            4_294_967_295,
            4_294_967_295,
            ["LIFEBOAT_REASON=exhaustion", "LIFEBOAT_MAINPID=4294967295", "LIFEBOAT_DEADLINE_MS=4294967295"],
        );
        check("", 0, 0, ["LIFEBOAT_REASON=", "LIFEBOAT_MAINPID=0", "LIFEBOAT_DEADLINE_MS=0"]);
        let long = "x".repeat(80);
        let cut = format!("LIFEBOAT_REASON={}", "x".repeat(31));
        check(&long, 1, 2, [&cut, "LIFEBOAT_MAINPID=1", "LIFEBOAT_DEADLINE_MS=2"]);
    }

    #[test]
    fn an_empty_command_is_refused() {
        assert_eq!(Program::new(&[], &[]).err(), Some(SpawnError::new(SpawnStage::Exec, libc::ENOENT)));
    }
}
