//! The judge of the judges: what counts as saved, and what does not.

use super::ring::{KEPT, RECORD_WORDS, Ring};
use super::saved::{Count, compare, ring_at, save};
use std::fs;
use std::path::PathBuf;

/// A ring with so many records, and what was saved of it.
fn saved(committed: u64) -> (tempfile::TempDir, Ring, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let ring = Ring::create(&folder.path().join("ring")).unwrap();
    (0..committed).for_each(|_| ring.commit_next());
    let out = folder.path().join("data/saved.bin");
    let of = committed.min(KEPT);
    assert_eq!(save(&ring, &out).unwrap(), Count { saved: of, of });
    (folder, ring, out)
}

#[test]
fn what_counts_as_saved() {
    let record = |n: usize| 32 + n * RECORD_WORDS * 8..32 + (n + 1) * RECORD_WORDS * 8;
    let check = |what: &str, committed: u64, change: &dyn Fn(&mut Vec<u8>), expected: u64| {
        let (_folder, ring, out) = saved(committed);
        let mut bytes = fs::read(&out).unwrap();
        change(&mut bytes);
        fs::write(&out, bytes).unwrap();
        let count = compare(&ring, &out).unwrap();
        assert_eq!(count, Count { saved: expected, of: committed.min(KEPT) }, "{what}");
    };
    check("as it is", 2_500, &|_| {}, 1_000);
    check("as it is, short", 7, &|_| {}, 7);
    check("nothing", 0, &|_| {}, 0);
    check("a bit flipped in the data", 2_500, &|bytes| bytes[record(3).start + 40] ^= 1, 999);
    check("a bit flipped in a number", 2_500, &|bytes| bytes[record(3).start] ^= 1, 999);
    check("a bit flipped in a checksum", 2_500, &|bytes| bytes[record(3).end - 1] ^= 0x80, 999);
    check("the last record is cut", 2_500, &|bytes| bytes.truncate(bytes.len() - 1), 999);
    check("cut after the header", 2_500, &|bytes| bytes.truncate(32), 0);
    check("one record is missing", 2_500, &|bytes| drop(bytes.drain(record(10))), 999);
    check("one record is there twice", 2_500, &|bytes| bytes.copy_within(record(10), record(11).start), 999);
    check("more than there was", 7, &|bytes| bytes.extend_from_within(record(0)), 7);
}

#[test]
fn records_committed_after_the_save_are_lost() {
    let (_folder, ring, out) = saved(1_500);
    (0..100).for_each(|_| ring.commit_next());
    assert_eq!(compare(&ring, &out), Ok(Count { saved: 900, of: 1_000 }));
}

#[test]
fn the_ring_of_the_life_that_died() {
    let (folder, first, out) = saved(1_000);
    let path = folder.path().join("ring");
    let at = |time_us: u64| ring_at(&path, time_us).map(|ring| ring.life());
    assert_eq!(at(first.life()), Ok(first.life()), "still in its place");
    while super::ring::boottime_us() == first.life() {}
    let second = Ring::create(&path).unwrap();
    assert_eq!(at(second.life() - 1), Ok(first.life()), "kept beside the new one");
    assert_eq!(at(second.life()), Ok(second.life()));
    assert!(at(first.life() - 1).is_err());
    assert!(compare(&second, &out).is_err_and(|error| error.contains("life")), "a file of another life");
    fs::write(&out, [0; 64]).unwrap();
    assert!(compare(&first, &out).is_err(), "not a file of ours");
    assert!(compare(&first, &folder.path().join("none")).is_err());
}
