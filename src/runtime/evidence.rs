//! How the machine is at a reading, and what a service's memory was made of when it was exhausted: behind the kill
//! nobody can say any more. Read from open files, without allocation.

use super::event_loop::Lifeboat;
use crate::cgroup::parse::{STAT_KEYS, available_kib, pressure, stat_values};
use crate::engine::event::{MemorySample, Role};
use crate::engine::policy::UnitId;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// So many incidents at once; the oldest goes first.
const KEPT: usize = 8;

/// `MemAvailable` is the third line of proc_meminfo(5); `/proc/pressure/cpu` fits in whole.
const FILE_BYTES: usize = 256;

/// The values of `STAT_KEYS`.
pub(super) type StatValues = [Option<u64>; STAT_KEYS.len()];

/// The last exhaustions' memory, and the machine's files.
#[derive(Debug, Default)]
pub(super) struct Evidences {
    meminfo: Option<File>,
    cpu_pressure: Option<File>,
    kept: [Option<(UnitId, StatValues)>; KEPT],
    next: usize,
}

impl Evidences {
    /// A file that is not there leaves its part out.
    pub(super) fn open() -> Self {
        let open = |path| File::open(path).ok();
        let (meminfo, cpu_pressure) = (open("/proc/meminfo"), open("/proc/pressure/cpu"));
        Self { meminfo, cpu_pressure, ..Self::default() }
    }

    /// How the machine is.
    pub(super) fn add_machine(&self, sample: &mut MemorySample) {
        let mut buffer = [0; FILE_BYTES];
        sample.available_kib = read(self.meminfo.as_ref(), &mut buffer).and_then(available_kib);
        let cpu = read(self.cpu_pressure.as_ref(), &mut buffer).and_then(|text| pressure(text).ok());
        sample.cpu_some_avg10 = cpu.unwrap_or_default().some_avg10;
    }

    /// What is known of the unit's exhaustion, once.
    pub(super) fn take(&mut self, unit: UnitId) -> Option<StatValues> {
        self.place_of(unit)?.take().map(|(_, stat)| stat)
    }

    fn place_of(&mut self, unit: UnitId) -> Option<&mut Option<(UnitId, StatValues)>> {
        self.kept.iter_mut().find(|place| place.is_some_and(|(whose, _)| whose == unit))
    }

    /// Keeps the first reading of an exhaustion.
    fn note(&mut self, unit: UnitId, stat: StatValues) {
        if let Some(place) = self.kept.get_mut(self.next) {
            *place = Some((unit, stat));
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
        let stat = group.and_then(|group| group.stat(stat_values).ok()).unwrap_or_default();
        self.incidents.evidences.note(unit, stat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::allocations::made_by;

    #[test]
    fn the_last_incidents_are_known_once() {
        let mut evidences = Evidences::open();
        let mut sample = MemorySample::default();
        let stat = |bytes| {
            let mut stat = [None; STAT_KEYS.len()];
            stat[0] = Some(bytes);
            stat
        };
        let allocations = made_by(|| {
            evidences.add_machine(&mut sample);
            for unit in 0..=8 {
                evidences.note(UnitId(unit), stat(u64::from(unit)));
            }
        });
        assert_eq!(allocations, 0);
        assert_eq!(evidences.take(UnitId(0)), None, "too many came after it");
        assert_eq!(evidences.take(UnitId(8)), Some(stat(8)));
        assert!(sample.available_bytes() > Some(0));
        assert_eq!(evidences.take(UnitId(8)), None, "it was taken");
    }
}
