//! The file that `recorder-flush` writes, and the check of it against the ring.
//!
//! ```text
//! magic  life  committed  count          four 64-bit words, little-endian
//! record  record  ...                    15 words each: sequence, time, payload (12), checksum
//! ```

use super::ring::{KEPT, RECORD_WORDS, Record, Ring, previous};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// "LBSAVE" and a number for the layout.
const MAGIC: u64 = 0x4c42_5341_5645_0001;

/// How many records of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// Intact and in the file.
    pub(crate) saved: u64,
    /// Committed, and among the last [`KEPT`].
    pub(crate) of: u64,
}

/// Writes the ring's last committed records to `out`: to a file beside it first, then fsync(2) and rename(2), so that `out`
/// is the old file or the whole new one. Records are streamed: the memory needed does not grow with their number.
///
/// # Errors
/// The file cannot be written, synced or renamed. A torn record is no error: it is left out and missing in the count.
pub(crate) fn save(ring: &Ring, out: &Path) -> io::Result<Count> {
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = beside(out, ".new");
    let kept = ring.kept();
    let of = kept.end - kept.start;
    let mut file = BufWriter::with_capacity(8 * 1024, File::create(&temporary)?);
    for word in [MAGIC, ring.life(), kept.end, of] {
        file.write_all(&word.to_le_bytes())?;
    }
    let mut saved = 0;
    for record in kept.filter_map(|sequence| ring.read(sequence)) {
        for word in record.to_words() {
            file.write_all(&word.to_le_bytes())?;
        }
        saved += 1;
    }
    file.into_inner()?.sync_all()?;
    fs::rename(&temporary, out)?;
    // The new name is durable once the folder is synced, too.
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(Count { saved, of })
}

/// `out` and an ending: `last.bin.new`, `last.bin.stamp`.
pub(crate) fn beside(out: &Path, ending: &str) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The ring of the life that was there at `time_us` (`CLOCK_BOOTTIME`): the file itself, or the previous one where the
/// recorder has begun a new life since.
///
/// # Errors
/// Neither file is a ring that began before that time; says which files were looked at.
pub(crate) fn ring_at(path: &Path, time_us: u64) -> Result<Ring, String> {
    let rings = [path.to_owned(), previous(path)].into_iter().filter_map(|path| Ring::open(&path).ok());
    rings.filter(|ring| ring.life() <= time_us).max_by_key(Ring::life).ok_or_else(|| {
        format!(
            "no ring of a life that began before {time_us} us at {} and {}",
            path.display(),
            previous(path).display()
        )
    })
}

/// Compares every record that the ring holds as committed with the saved file. The ring is the witness: a record
/// that was committed and is not in the file, bit for bit and with the right number, is lost.
///
/// # Errors
/// The file cannot be read, or is of another life than the ring.
pub(crate) fn compare(ring: &Ring, out: &Path) -> Result<Count, String> {
    let wrong = |what: String| format!("{}: {what}", out.display());
    let mut file = BufReader::new(File::open(out).map_err(|error| wrong(error.to_string()))?);
    let header = read_words::<4>(&mut file).map_err(|error| wrong(error.to_string()))?;
    let [magic, life, _committed, _count] = header.ok_or_else(|| wrong("is empty".into()))?;
    if magic != MAGIC {
        return Err(wrong("was not written by recorder-flush".into()));
    }
    if life != ring.life() {
        return Err(wrong(format!("is of life {life}, the ring is of life {}", ring.life())));
    }
    let kept = ring.kept();
    let mut count = Count { saved: 0, of: kept.end - kept.start };
    let mut next = kept.start;
    while let Some(words) = read_words::<RECORD_WORDS>(&mut file).map_err(|error| wrong(error.to_string()))? {
        let record = Record::from_words(words);
        // Ascending numbers only, so that no record is counted twice.
        if (next..kept.end).contains(&record.sequence) && ring.read(record.sequence) == Some(record) {
            count.saved += 1;
            next = record.sequence + 1;
        }
    }
    debug_assert!(count.of <= KEPT);
    Ok(count)
}

/// The next `N` words; `None` at the end of the file and at a cut record.
fn read_words<const N: usize>(file: &mut impl Read) -> io::Result<Option<[u64; N]>> {
    let mut words = [0; N];
    for word in &mut words {
        let mut bytes = [0; 8];
        match file.read_exact(&mut bytes) {
            Ok(()) => *word = u64::from_le_bytes(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(words))
}
