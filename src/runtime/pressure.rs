//! What a warn stage does on the kernel's side: the doorbell, and the FIFO by which a service is told. Also the memory
//! that a service which saves itself is lent.
//!
//! `MEMORY_PRESSURE_WATCH` may name a FIFO (<https://systemd.io/MEMORY_PRESSURE/>): the service opens it, waits for
//! `POLLIN` and reads away what is there. Without `MEMORY_PRESSURE_WRITE` it has nothing to write.

use super::event_loop::Lifeboat;
use super::story;
use crate::engine::event::{Event, Role};
use crate::engine::policy::{Class, RunId, UnitId, WarnDeed};
use crate::sys::error::SysError;
use crate::unit::Unit;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchownat, mkdir, mkfifo};
use std::path::{Path, PathBuf};

/// The unit's FIFO, beside the socket of sd_notify(3); `None` where no stage of it writes there.
pub(super) fn fifo_of(notify_path: &Path, unit: &Unit) -> Option<PathBuf> {
    let tells = unit.policy.warn.stages.iter().flatten().any(|stage| stage.deed == WarnDeed::Notify);
    tells.then(|| notify_path.with_extension("pressure").join(&unit.policy.name))
}

/// Makes it where it is missing, for the unit's user alone.
fn make_fifo(path: &Path, unit: &Unit) -> Result<(), SysError> {
    let failed = |op| move |errno: Errno| SysError::new(op, path.display().to_string(), errno);
    let known = |result: Result<(), Errno>| if result == Err(Errno::EEXIST) { Ok(()) } else { result };
    if let Some(folder) = path.parent() {
        known(mkdir(folder, Mode::from_bits_truncate(0o755))).map_err(failed("make the folder of"))?;
    }
    known(mkfifo(path, Mode::from_bits_truncate(0o600))).map_err(failed("make"))?;
    let (user, group) = (unit.identity.uid.map(Uid::from_raw), unit.identity.gid.map(Gid::from_raw));
    fchownat(AT_FDCWD, path, user, group, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed("hand over"))
}

fn is_of_pool(unit: &Unit) -> bool {
    unit.policy.memory.is_some_and(|memory| memory.class == Class::Pool)
}

impl Lifeboat {
    pub(super) fn ring(&mut self, unit: UnitId, high_bytes: Option<u64>) {
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        let Some(group) = seat.group(Role::Service) else { return };
        // Without it the unit hears of its memory later, at its limit.
        if let Err(errno) = group.set_high(high_bytes)
            && errno != libc::ENODEV
        {
            story::complain(&SysError::new("set memory.high of", group.path().display().to_string(), errno));
        }
        // What it has taken since it was read may be past the doorbell: that rings only when it takes more.
        let is_past = |high: u64| group.current_bytes().is_ok_and(|bytes| bytes >= high);
        if high_bytes.is_some_and(is_past) {
            self.sample(unit);
        }
    }

    /// What the procedure has used at most, and how often it met that. Kernels before 5.19 do not count the first.
    pub(super) fn read_peak(&mut self, unit: UnitId, run: RunId) {
        // Where the file cannot be read nothing is counted.
        let _ = self.read_memory_events(unit, Role::Procedure);
        let group = self.seats.get(usize::from(unit.0)).and_then(|seat| seat.group(Role::Procedure));
        if let Some(Ok(peak_bytes)) = group.map(|group| group.peak_bytes()) {
            self.events.push_back(Event::ProcedurePeak { unit, run, peak_bytes });
        }
    }

    /// The pool's bound comes first: it is the unit's too.
    pub(super) fn lend(&mut self, unit: UnitId, max_bytes: u64, lend_bytes: u64) -> Result<(), i32> {
        let seat = self.seats.get_mut(usize::from(unit.0)).ok_or(libc::ESRCH)?;
        let tree = self.tree.as_ref().filter(|_| is_of_pool(&seat.unit));
        let group = seat.group(Role::Service).ok_or(libc::ENOENT)?;
        if let Some(tree) = tree {
            tree.lend_to_pool(lend_bytes, false)?;
        }
        group.raise_max(max_bytes).inspect_err(|_| {
            // Half a loan is none; where that fails too, the next update of the units sets the bound.
            let _ = tree.map(|tree| tree.lend_to_pool(lend_bytes, true));
        })?;
        seat.is_lent = true;
        Ok(())
    }

    /// A loan that failed may not be known to have, when it is taken back.
    pub(super) fn take_back(&mut self, unit: UnitId, max_bytes: u64, lend_bytes: u64) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)).filter(|seat| seat.is_lent) else { return };
        seat.is_lent = false;
        let of_group = seat.group(Role::Service).map_or(Ok(()), |group| group.set_max(max_bytes));
        let tree = self.tree.as_ref().filter(|_| is_of_pool(&seat.unit));
        let of_pool = tree.map_or(Ok(()), |tree| tree.lend_to_pool(lend_bytes, true));
        if let Err(errno) = of_group.and(of_pool)
            && errno != libc::ENODEV
        {
            let what = format!("what was lent to {}", seat.unit.policy.name);
            story::complain(&SysError::new("take back", what, errno));
        }
    }

    /// Before a service with such a stage starts.
    pub(super) fn see_to_pressure_fifo(&mut self, unit: UnitId) {
        if let Some(seat) = self.seats.get_mut(usize::from(unit.0)) {
            seat.pressure = None;
        }
        let Some((path, unit)) = self.pressure_fifo(unit) else { return };
        if let Err(error) = make_fifo(&path, unit) {
            story::complain(&error);
        }
    }

    fn pressure_fifo(&self, unit: UnitId) -> Option<(PathBuf, &Unit)> {
        let unit = &self.seats.get(usize::from(unit.0))?.unit;
        Some((fifo_of(self.notify.path()?, unit)?, unit))
    }

    /// A service that does not read it (`ENXIO`), or has not read what is there, misses nothing that it wanted.
    pub(super) fn notify_pressure(&mut self, unit: UnitId) {
        let Some((path, _)) = self.pressure_fifo(unit) else { return };
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let opened = match seat.pressure.take() {
            Some(fifo) => Ok(fifo),
            None => open(&path, flags, Mode::empty()),
        };
        match opened {
            Ok(fifo) => {
                let _ = nix::unistd::write(&fifo, b"\n");
                seat.pressure = Some(fifo);
            }
            Err(Errno::ENXIO) => {}
            Err(errno) => story::complain(&SysError::new("open", path.display().to_string(), errno)),
        }
    }
}
