//! The ring and the leak's words, without any process.

use super::leak::Leak;
use super::ring::{KEPT, Record, Ring, previous};
use std::fs;

#[test]
fn the_last_records_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/ring");
    let check = |more: u64, committed: u64, kept: std::ops::Range<u64>, ring: &Ring| {
        (0..more).for_each(|_| ring.commit_next());
        let reader = Ring::open(&path).unwrap();
        assert_eq!((reader.committed(), reader.kept()), (committed, kept.clone()));
        assert!(kept.into_iter().all(|n| reader.read(n).is_some_and(|r| r.is_sound(ring.life(), n))));
        assert_eq!(reader.read(committed), None);
    };
    let ring = Ring::create(&path).unwrap();
    check(0, 0, 0..0, &ring);
    check(1, 1, 0..1, &ring);
    check(999, KEPT, 0..KEPT, &ring);
    check(1_500, 2_500, 1_500..2_500, &ring);
    assert_eq!(Ring::open(&path).unwrap().read(2_500 - 1_025), None, "overwritten");
}

/// A reader beside a writer that does not rest: a record that is not intact is one whose slot is written anew, and
/// by then 1,000 later ones are.
#[test]
fn kept_records_are_intact_while_one_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    let ring = Ring::create(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..60_000).for_each(|_| ring.commit_next()));
        let reader = Ring::open(&path).unwrap();
        while reader.committed() < 60_000 {
            for sequence in reader.kept() {
                let intact = reader.read(sequence).is_some();
                let committed = reader.committed();
                assert!(intact || committed >= sequence + 1_024, "{sequence} of {committed}");
            }
        }
    });
}

#[test]
fn a_new_life_keeps_the_ring_of_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    let first = Ring::create(&path).unwrap();
    (0..7).for_each(|_| first.commit_next());
    let second = Ring::create(&path).unwrap();
    assert_eq!((second.committed(), Ring::open(&previous(&path)).unwrap().committed()), (0, 7));
}

#[test]
fn what_is_not_a_ring_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    for content in [vec![], vec![0; 8], vec![0; 1 << 20], vec![0xff; 1 << 20]] {
        fs::write(&path, &content).unwrap();
        assert!(Ring::open(&path).is_err(), "{} bytes", content.len());
    }
    assert!(Ring::open(&folder.path().join("none")).is_err());
}

#[test]
fn a_record_is_sound_only_as_it_was_made() {
    let made = Record::make(7, 3, 11);
    assert!(made.is_sound(7, 3) && !made.is_sound(8, 3) && !made.is_sound(7, 4));
    let words = made.to_words();
    assert_eq!(Record::from_words(words), made);
    for place in 0..words.len() {
        let mut torn = words;
        torn[place] ^= 1;
        assert!(!Record::from_words(torn).is_sound(7, 3), "word {place}");
    }
}

#[test]
fn leak_shapes() {
    let check = |word: &str, expected: Option<Leak>| assert_eq!(Leak::parse(word).ok(), expected, "{word}");
    check("none", Some(Leak::None));
    check("rate:16MiB", Some(Leak::Rate(16 << 20)));
    check("flat-out", Some(Leak::FlatOut));
    check("populate", Some(Leak::Populate { huge: true }));
    check("populate:small", Some(Leak::Populate { huge: false }));
    check("threads:8", Some(Leak::Threads(8)));
    check("tmpfs", Some(Leak::Tmpfs));
    check("fork", Some(Leak::Fork));
    check("sockets", Some(Leak::Sockets));
    check("drip", Some(Leak::Drip));
    for bad in ["", "rate", "rate:", "rate:0", "rate:-1", "threads:0", "threads:999", "flat-out:1", "drip:1"]
    {
        check(bad, None);
    }
}
