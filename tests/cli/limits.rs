//! `lifeboatctl limit`: its words and exit codes.

use super::server;
use lifeboat::engine::action::Reply;

#[test]
fn limits_are_told_in_words() {
    let server = server("saved", Reply::Started);
    let check = |words: &[&str], text: &str, exit| server.ctl(words).check(text, "", exit);
    let applied = "bus: memory.max is 16 MiB\nbus: cpu.max is 150.50 %\nbus: pids.max is max\n";
    check(&["limit", "bus", "memory.max=16MiB", "cpu.max=150.5%", "pids.max=max"], applied, 0);
    let below = "recorder: ERROR (memory.max: 32 MiB are in use and cannot be reclaimed; with --below rescue its \
                 procedure would save them)\n";
    // What follows a refusal is not tried.
    check(&["limit", "recorder", "memory.max=16MiB", "cpu.weight=50"], below, 1);
    let rescued = "recorder: memory.max is from its next start on, its procedure is at work: 16 MiB\n";
    check(&["limit", "recorder", "memory.max=16M", "--below", "rescue"], rescued, 0);
    let over = "setup: ERROR (memory.max: it does not fit beside the others, at most 1 MiB is free for it; lower \
                another unit first)\n";
    check(&["limit", "setup", "memory.max=1GiB"], over, 1);
    let none = "viewer: ERROR (memory.max: its file bounds no memory, so there is nothing to change; give it `memory: \
                (max: \"SIZE\")` there, and `lifeboatctl update`)\n";
    check(&["limit", "viewer", "memory.max=16MiB"], none, 1);
    let without =
        "viewer: ERROR (memory.max: without a bound its memory cannot be guarded; give it a size)\n";
    check(&["limit", "viewer", "memory.max=max"], without, 1);
    for (word, part) in [
        ("memory.max", "write NAME=VALUE"),
        ("memory.min=1MiB", "cannot be changed"),
        ("memory.max=1KiB", "is out of range; the least is 64 KiB"),
        ("memory.max=16MB", "decimal unit"),
        ("cpu.max=50", "no share of a processor"),
        ("cpu.weight=max", "is out of range; it goes from 1 to 10000"),
        ("pids.max=0", "is out of range; it goes from 1 to 4194304"),
    ] {
        let run = server.ctl(&["limit", "bus", word]);
        assert_eq!(run.code, 2, "{word}: {run:?}");
        assert!(run.err.contains(part), "{word}: {run:?}");
    }
    assert_eq!(server.ctl(&["limit", "bus", "cpu.weight=5", "--below", "kill"]).code, 2);
    assert_eq!(server.ctl(&["limit", "nobody", "cpu.weight=5"]).code, 1);
}
