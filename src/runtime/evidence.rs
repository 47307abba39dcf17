//! What memory was made of, and how the machine was, when a service's memory was exhausted: behind the kill nobody can
//! say any more. Read from open files, without allocation.

use super::event_loop::Lifeboat;
use crate::cgroup::parse::{STAT_KEYS, available_bytes, pressure, stat_values};
use crate::engine::event::Role;
use crate::engine::policy::UnitId;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// So many incidents at once; the oldest goes first.
const KEPT: usize = 8;

/// `MemAvailable` is the third line of proc_meminfo(5).
const MEMINFO_BYTES: usize = 256;

/// `/proc/pressure/cpu`, whole.
const PRESSURE_BYTES: usize = 256;

/// Of one exhaustion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    /// The values of `STAT_KEYS`.
    pub(super) memory_stat: [Option<u64>; STAT_KEYS.len()],
    /// `MemAvailable` of the machine.
    pub(super) available_bytes: Option<u64>,
    /// `some avg10` of `/proc/pressure/cpu`, in hundredths of a percent.
    pub(super) cpu_some_avg10: Option<u16>,
}

/// The last ones, and the machine's files.
#[derive(Debug, Default)]
pub(super) struct Evidences {
    meminfo: Option<File>,
    cpu_pressure: Option<File>,
    kept: [Option<(UnitId, Evidence)>; KEPT],
    next: usize,
}

impl Evidences {
    /// A file that is not there leaves its part out.
    pub(super) fn open() -> Self {
        let open = |path| File::open(path).ok();
        let (meminfo, cpu_pressure) = (open("/proc/meminfo"), open("/proc/pressure/cpu"));
        Self { meminfo, cpu_pressure, ..Self::default() }
    }

    /// What is known of the unit's exhaustion, once.
    pub(super) fn take(&mut self, unit: UnitId) -> Option<Evidence> {
        self.place_of(unit)?.take().map(|(_, evidence)| evidence)
    }

    fn place_of(&mut self, unit: UnitId) -> Option<&mut Option<(UnitId, Evidence)>> {
        self.kept.iter_mut().find(|place| place.is_some_and(|(whose, _)| whose == unit))
    }

    /// Keeps the first reading of an exhaustion.
    fn note(&mut self, unit: UnitId, memory_stat: [Option<u64>; STAT_KEYS.len()]) {
        let mut buffer = [0; MEMINFO_BYTES];
        let available_bytes = read(self.meminfo.as_ref(), &mut buffer).and_then(available_bytes);
        let mut buffer = [0; PRESSURE_BYTES];
        let cpu = read(self.cpu_pressure.as_ref(), &mut buffer).and_then(|text| pressure(text).ok());
        let cpu_some_avg10 = cpu.map(|pressure| pressure.some_avg10);
        if let Some(place) = self.kept.get_mut(self.next) {
            *place = Some((unit, Evidence { memory_stat, available_bytes, cpu_some_avg10 }));
        }
        self.next = (self.next + 1) % KEPT;
    }
}

fn read<'a>(file: Option<&File>, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let length = file?.read_at(buffer, 0).ok()?;
    buffer.get(..length)
}

impl Lifeboat {
    /// With the first reading of an exhaustion.
    pub(super) fn note_evidence(&mut self, unit: UnitId) {
        if !self.engine.has_open_incident(unit) || self.incidents.evidences.place_of(unit).is_some() {
            return;
        }
        let group = self.seats.get(usize::from(unit.0)).and_then(|seat| seat.group(Role::Service));
        let memory_stat = group.and_then(|group| group.stat(stat_values).ok()).unwrap_or_default();
        self.incidents.evidences.note(unit, memory_stat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::allocations::made_by;

    #[test]
    fn the_last_incidents_are_known_once() {
        let mut evidences = Evidences::open();
        let stat = |bytes| {
            let mut stat = [None; STAT_KEYS.len()];
            stat[0] = Some(bytes);
            stat
        };
        let allocations = made_by(|| {
            for unit in 0..=8 {
                evidences.note(UnitId(unit), stat(u64::from(unit)));
            }
        });
        assert_eq!(allocations, 0);
        assert_eq!(evidences.take(UnitId(0)), None, "too many came after it");
        let found = evidences.take(UnitId(8)).expect("the last one");
        assert_eq!(found.memory_stat, stat(8));
        assert!(found.available_bytes.is_some_and(|bytes| bytes > 0));
        assert_eq!(evidences.take(UnitId(8)), None, "it was taken");
    }
}
