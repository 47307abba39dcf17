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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::policy::{ProcedurePolicy, ServiceMode};
    use std::ffi::CString;

    fn parked(path: &std::path::Path, memory_bytes: u64) -> Unit {
        let mut unit = Unit::vacant();
        unit.procedure = vec![CString::new(path.to_str().expect("text")).expect("no NUL")];
        unit.policy.procedure = Some(ProcedurePolicy {
            drill_every_ms: None,
            on_exhaustion: true,
            on_stop: false,
            on_failure: false,
            deadline_ms: 2_000,
            memory_bytes,
            service: ServiceMode::Frozen,
            lend_bytes: 0,
            has_program: true,
            resident: false,
            has_otherwise: false,
            then: None,
        });
        unit
    }

    #[test]
    fn a_file_that_several_lock_counts_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, bytes: usize| {
            let path = folder.path().join(name);
            std::fs::write(&path, vec![0; bytes]).expect("a file");
            path
        };
        let (one, other) = (file("one", 50_000), file("other", 7_000));
        let check = |units: &[Unit], files_bytes: u64| {
            let units: Vec<&Unit> = units.iter().collect();
            let each = (GROUP_BYTES + PARKED_BYTES) * units.len() as u64;
            assert_eq!(overhead_bytes(&units) - each, files_bytes);
        };
        check(&[parked(&one, 100_000), parked(&one, 100_000), parked(&other, 100_000)], 57_000);
        check(&[parked(&one, 99_999), parked(&folder.path().join("none"), 100_000)], 0);

        // Below a root, a link means what it means there.
        std::os::unix::fs::symlink("/one", folder.path().join("link")).expect("a link");
        let mut below = parked(std::path::Path::new("/link"), 100_000);
        let root = CString::new(folder.path().to_str().expect("text")).expect("no NUL");
        below.setup.root_directory = Some(root);
        check(&[below], 50_000);
    }
}
