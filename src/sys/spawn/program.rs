//! What to run, as execve(2) wants it: strings that end in NUL, and tables of pointers to them.

use super::SpawnError;
use super::listen::{Listen, SD_LISTEN_FDS_START};
use super::order::Slots;
use super::pid_word::{PidSlot, PidWord};
use crate::engine::event::SpawnStage;
use std::cell::UnsafeCell;
use std::ffi::{CString, c_char};
use std::os::fd::RawFd;
use std::ptr;

/// The words that are written last, and the null behind them.
const TAIL: usize = 1 + if Slots::WORDS > Listen::WORDS { Slots::WORDS } else { Listen::WORDS };

/// A program with its arguments and its environment, ready for execve(2): starting it prepares nothing more.
#[derive(Debug)]
pub struct Program {
    /// Never read again, but pointed to.
    _strings: Vec<CString>,
    argv: Vec<*const c_char>,
    /// A child completes its own copy.
    envp: Vec<UnsafeCell<*const c_char>>,
    slots: Option<Box<UnsafeCell<Slots>>>,
    /// So many stored descriptors an order may bring it.
    stored_max: usize,
    listen: Option<Listen>,
    /// Its pid, where it has a watchdog.
    watchdog: Option<PidWord>,
    /// What runs where this one fails.
    second: Option<CString>,
}

impl Program {
    /// A program; `argv` starts with its path, `env` is its whole environment (`NAME=value`).
    ///
    /// An empty `argv` is refused as execve(2) would refuse an empty path, with `ENOENT`.
    pub fn new(argv: &[CString], env: &[CString]) -> Result<Self, SpawnError> {
        Self::build(argv, env, (None, 0), None)
    }

    /// A program that can be handed descriptors as sd_listen_fds(3) has it, at most so many: [`Program::listen`] says
    /// which before each start.
    pub fn listener(argv: &[CString], env: &[CString], descriptors_max: usize) -> Result<Self, SpawnError> {
        Self::build(argv, env, (None, 0), Some(Listen::new(descriptors_max)))
    }

    /// A shutdown procedure: as [`Program::new`], with what the [`Order`](super::Order) that releases it brings: words
    /// for its environment, and descriptors, of which at most so many stored ones.
    pub fn procedure(argv: &[CString], env: &[CString], stored_max: usize) -> Result<Self, SpawnError> {
        let slots = Box::new(UnsafeCell::new(Slots::new(stored_max)));
        Self::build(argv, env, (Some(slots), stored_max), None)
    }

    fn build(
        argv: &[CString],
        env: &[CString],
        (slots, stored_max): (Option<Box<UnsafeCell<Slots>>>, usize),
        listen: Option<Listen>,
    ) -> Result<Self, SpawnError> {
        if argv.is_empty() {
            return Err(SpawnError::new(SpawnStage::Exec, libc::ENOENT));
        }
        let table = |strings: &[CString]| strings.iter().map(|one| one.as_ptr()).collect::<Vec<_>>();
        let strings: Vec<CString> = argv.iter().chain(env).cloned().collect();
        let (own_argv, own_env) = strings.split_at(argv.len());
        let mut argv = table(own_argv);
        argv.push(ptr::null());
        let mut envp: Vec<_> = table(own_env).into_iter().map(UnsafeCell::new).collect();
        envp.extend((0..TAIL).map(|_| UnsafeCell::new(ptr::null())));
        Ok(Self { _strings: strings, argv, envp, slots, stored_max, listen, watchdog: None, second: None })
    }

    /// The names of the descriptors that the next start hands over, from number 3 on. Their words come into the
    /// environment, or go out of it where there are none. Allocates nothing.
    pub fn listen<'a>(&mut self, names: impl Iterator<Item = &'a str> + Clone) {
        let Some(listen) = &mut self.listen else { return };
        let words = listen.fill(names);
        let at = self.tail();
        for (place, word) in self.envp.iter_mut().skip(at).zip(words) {
            *place.get_mut() = word;
        }
    }

    /// The same program, which is told its pid as the one whose watchdog it is (sd_watchdog_enabled(3)).
    #[must_use]
    pub fn with_watchdog_pid(mut self) -> Self {
        let watchdog = PidWord::new(b"WATCHDOG_PID=");
        let at = self.tail();
        self.envp.insert(at, UnsafeCell::new(watchdog.word()));
        self.watchdog = Some(watchdog);
        self
    }

    /// The path of what runs where this one fails. It is looked whether that could be executed too:
    /// [`Status::NoSecond`](super::Status::NoSecond) tells where it could not.
    #[must_use]
    pub fn with_second(self, second: Option<&CString>) -> Self {
        Self { second: second.cloned(), ..self }
    }

    pub(super) fn second(&self) -> *const c_char {
        self.second.as_ref().map_or(ptr::null(), |path| path.as_ptr())
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
        self.envp.as_ptr().cast()
    }

    /// What stands here is written last: the words of `listen`, or by a child those of its order.
    fn tail(&self) -> usize {
        self.envp.len().saturating_sub(TAIL)
    }

    /// Room in the environment for [`Slots::WORDS`] and a null.
    pub(super) fn envp_tail(&self) -> *mut *const c_char {
        self.envp.get(self.tail()).map_or(ptr::null_mut(), UnsafeCell::get)
    }

    /// An order brings descriptors up to this number.
    pub(super) fn highest_received(&self) -> RawFd {
        let count = self.slots.as_ref().map_or(0, |_| self.stored_max + 2);
        SD_LISTEN_FDS_START - 1 + RawFd::try_from(count).unwrap_or(RawFd::MAX / 2)
    }

    /// The strings that an order fills; null where the program takes none.
    pub(super) fn slots(&self) -> *mut Slots {
        self.slots.as_ref().map_or(ptr::null_mut(), |slots| slots.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_command_is_refused() {
        assert_eq!(Program::new(&[], &[]).err(), Some(SpawnError::new(SpawnStage::Exec, libc::ENOENT)));
    }
}
