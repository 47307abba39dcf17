//! What parked procedures lock in memory, and what that costs.

use super::event_loop::Lifeboat;
use crate::engine::policy::UnitId;
use crate::sys::spawn::{Found, Unlocked, files_of};
use crate::unit::Unit;

/// The kernel's structures for one unit's cgroups, per-CPU counters included; generous for eight CPUs.
const GROUP_BYTES: u64 = 128 << 10;

/// The page tables, stack and changed pages of one parked process.
const PARKED_BYTES: u64 = 192 << 10;

/// What the units cost beside their limits. Of parked procedures: the pages of lifeboat that each has changed, and the
/// files that are locked, each once, because a page is charged once; of a resident one all of its memory.
pub(super) fn overhead_bytes(units: &[&Unit]) -> u64 {
    let mut files = Vec::new();
    let mut bytes = 0_u64;
    for unit in units {
        bytes = bytes.saturating_add(GROUP_BYTES * (1 + u64::from(unit.has_commands())));
        if let Some(procedure) = unit.policy.procedure.filter(|it| it.has_program) {
            bytes = bytes.saturating_add(PARKED_BYTES);
            if procedure.resident {
                // It may use all of its memory before it is at work.
                bytes = bytes.saturating_add(procedure.memory_bytes);
            } else {
                note_files(unit, &mut files);
            }
        }
    }
    files.into_iter().fold(bytes, |bytes, (_, more)| bytes.saturating_add(more))
}

/// The files that this unit's parked procedure will lock, and their bytes.
fn note_files(unit: &Unit, files: &mut Vec<((u64, u64), u64)>) {
    let Some(path) = unit.procedure.first() else { return };
    let mut left_bytes = lockable_bytes(unit);
    let environment = unit.procedure_identity.environment.iter().chain(&unit.environment);
    let library_path =
        environment.filter_map(|pair| pair.as_bytes().strip_prefix(b"LD_LIBRARY_PATH=")).next_back();
    let root = unit.setup.root_directory.as_deref();
    files_of(root, path, library_path.unwrap_or_default(), &mut |found| {
        if let Found::File { bytes, id, .. } = found
            && bytes <= left_bytes
        {
            left_bytes -= bytes;
            if files.iter().all(|(known, _)| *known != id) {
                files.push((id, bytes));
            }
        }
    });
}

/// What a parked procedure needs is locked where all of it takes no more than half of the procedure's memory.
pub(super) fn lockable_bytes(unit: &Unit) -> u64 {
    unit.policy.procedure.map_or(0, |procedure| procedure.memory_bytes / 2)
}

impl Lifeboat {
    /// A file of a parked procedure is not locked: told in the first run that finds it so.
    pub(super) fn tell_unlocked(&mut self, unit: UnitId, file: &Unlocked) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        if *seat.told_unlocked.get_or_insert(seat.run) != seat.run {
            return;
        }
        let why = match file.errno {
            libc::ENOENT => {
                "is found nowhere; install it, or add its folder to LD_LIBRARY_PATH in the unit's environment"
            }
            libc::EFBIG => "and its libraries take more than half of shutdown.memory; raise that",
            libc::E2BIG => "needs more files than are looked for; use a simpler procedure, or a resident one",
            _ => "cannot be locked; lifeboat needs CAP_IPC_LOCK, or a larger RLIMIT_MEMLOCK",
        };
        let (of, number) = match file.errno {
            libc::EFBIG => ("needed KiB:", file.bytes.saturating_mul(2).div_ceil(1 << 10)),
            errno => ("errno", u64::try_from(errno).unwrap_or(0)),
        };
        let (unit, name) = (&seat.unit.policy.name, file.name());
        log::warn!(
            "{unit}: not all that its procedure needs is locked in memory: {name} {why} ({of} {number})"
        );
    }
}
