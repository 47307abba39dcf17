//! Other unit files while lifeboat runs.

use crate::rig::{Cgroups, Place, Rig, both, is_alive, pid_of, wait_for_end};
use lifeboat::engine::snapshot::StateName;
use nix::sys::signal::{Signal, kill};
use std::fs;

const SLEEPER: &str = "(command: [\"/bin/sleep\", \"1000\"])";
const OTHER: &str = "(command: [\"/bin/sleep\", \"2000\"])";

fn write(rig: &Rig, name: &str, text: &str) {
    fs::write(rig.place.path(&format!("units/{name}.ron")), text).expect("a unit file");
}

fn remove(rig: &Rig, name: &str) {
    fs::remove_file(rig.place.path(&format!("units/{name}.ron"))).expect("the unit's file");
}

#[test]
fn an_update_starts_new_ones_stops_gone_ones_and_restarts_changed_ones_only() {
    for cgroups in both() {
        let rig =
            Place::new(cgroups).unit("kept", SLEEPER).unit("changed", SLEEPER).unit("gone", SLEEPER).start();
        let [kept, changed, gone] = ["kept", "changed", "gone"].map(|name| rig.running(name));
        rig.ctl(&["reread"]).check("No config updates to processes\n", 0);
        write(&rig, "new", SLEEPER);
        write(&rig, "changed", OTHER);
        remove(&rig, "gone");
        let lines = "changed: changed (an update restarts it)\ngone: disappeared\nnew: available\n";
        rig.ctl(&["reread"]).check(lines, 0);
        assert_eq!(rig.running("gone"), gone, "a look changes nothing");
        let lines = "changed: stopped\nchanged: updated process group\ngone: stopped\n\
                     gone: removed process group\nnew: added process group\n";
        rig.ctl(&["update"]).check(lines, 0);
        assert!(!is_alive(gone) && !is_alive(changed));
        assert_eq!(rig.running("kept"), kept);
        rig.running("new");
        assert_ne!(rig.running("changed"), changed);
        assert_eq!(rig.status().units.len(), 3);
        if cgroups == Cgroups::Own {
            assert!(!rig.place.cgroup().join("pool/gone").exists());
        }
        rig.ctl(&["update"]).check("", 0);
        rig.check_quiet("an update is over");
    }
}

#[test]
fn what_a_process_is_not_made_from_restarts_nothing() {
    let rig = Place::new(Cgroups::None).unit("a", SLEEPER).unit("b", SLEEPER).start();
    let (a, b) = (rig.running("a"), rig.running("b"));
    let text = "(command: [\"/bin/sleep\", \"1000\"], description: \"other words\", after: [\"b\"], utility: 3, \
                restart: (policy: Never), stop: (timeout: \"1s\"))";
    write(&rig, "a", text);
    rig.ctl(&["reread"]).check("a: changed (an update does not restart it)\n", 0);
    rig.ctl(&["update"]).check("a: updated process group\n", 0);
    assert_eq!((rig.running("a"), rig.running("b")), (a, b));
    assert_eq!(rig.wait_until("a", |_| true).description, "other words");
    // The new policy holds.
    kill(pid_of(a), Signal::SIGKILL).expect("a kill");
    rig.wait_until("a", |unit| unit.state == StateName::Exited);
}

#[test]
fn a_bad_file_changes_nothing_and_is_told() {
    let rig = Place::new(Cgroups::None)
        .unit("a", SLEEPER)
        .unit("base", SLEEPER)
        .unit("top", "(command: [\"/bin/sleep\", \"1000\"], requires: [\"base\"])")
        .start();
    let pids = ["a", "base", "top"].map(|name| rig.running(name));
    write(&rig, "a", "(\n    comand: [\"/bin/sleep\"],\n)");
    // Its file is gone, and another one that stays has a fault through that: both go on.
    remove(&rig, "base");
    let said = rig.ctl(&["update"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    for words in ["a.ron:2:5", "comand", "did you mean", "top.ron:1:", "there is no unit `base`"] {
        assert!(said.err.contains(words), "{words:?} is missing in:\n{}", said.err);
        assert!(rig.log().contains(words), "{words:?} is missing in:\n{}", rig.log());
    }
    assert_eq!(["a", "base", "top"].map(|name| rig.running(name)), pids);
    assert_eq!(rig.status().system.faults.len(), 2);
    kill(pid_of(pids[0]), Signal::SIGKILL).expect("a kill");
    rig.wait_until("a", |unit| unit.state == StateName::Running && unit.pid != Some(pids[0]));
    write(&rig, "a", SLEEPER);
    write(&rig, "base", SLEEPER);
    rig.ctl(&["update"]).check("", 0);
    assert_eq!(rig.status().system.faults.len(), 0);
    assert_eq!(rig.running("base"), pids[1]);
}

#[test]
fn only_the_named_units_change_and_what_new_ones_need() {
    let rig = Place::new(Cgroups::None).unit("a", SLEEPER).unit("b", SLEEPER).start();
    let b = rig.running("b");
    write(&rig, "a", OTHER);
    write(&rig, "b", OTHER);
    write(&rig, "top", "(command: [\"/bin/sleep\", \"1000\"], requires: [\"base\"])");
    write(&rig, "base", SLEEPER);
    write(&rig, "other", SLEEPER);
    let said = "a: stopped\na: updated process group\nbase: added process group\ntop: added process group\n";
    rig.ctl(&["update", "a", "top"]).check(said, 0);
    assert_eq!(rig.running("b"), b);
    rig.running("top");
    rig.running("base");
    assert_eq!(rig.ctl(&["update", "nobody"]).code, Some(1));
    assert!(rig.status().units.iter().all(|unit| unit.name != "other"));
    rig.ctl(&["add", "other"]).check("other: added process group\n", 0);
    rig.running("other");
    rig.ctl(&["remove", "other"]).check("ERROR: process/group still running: other\n", 1);
    rig.ctl(&["stop", "other", "base"]);
    rig.ctl(&["remove", "other"]).check("other: removed process group\n", 0);
    let said = rig.ctl(&["remove", "base"]);
    assert!(said.out.contains("top names it in its file"), "{said:?}");
    rig.ctl(&["add", "nobody"]).check("ERROR: no such process/group: nobody\n", 1);
    rig.ctl(&["reread"]).check("b: changed (an update restarts it)\nother: available\n", 0);
}

#[test]
fn a_hang_up_is_an_update() {
    let rig = Place::new(Cgroups::None).unit("a", SLEEPER).start();
    rig.running("a");
    write(&rig, "b", SLEEPER);
    rig.signal(Signal::SIGHUP);
    rig.wait_until("b", |unit| unit.state == StateName::Running);
}

#[test]
fn what_is_enabled_or_disabled_outlives_lifeboat() {
    let quiet = "(command: [\"/bin/sleep\", \"1000\"], autostart: false)";
    let mut rig = Place::new(Cgroups::None).unit("a", SLEEPER).unit("b", quiet).start();
    let a = rig.running("a");
    rig.ctl(&["disable", "a"]).check("a: disabled\n", 0);
    rig.ctl(&["enable", "--now", "b"]).check("b: enabled\nb: started\n", 0);
    assert_eq!(rig.running("a"), a, "without --now it goes on");
    rig.ctl(&["reread"]).check("No config updates to processes\n", 0);
    rig.ctl(&["enable", "nobody"]).check("nobody: ERROR (no such process)\n", 1);
    assert!(rig.place.path("state/disabled/a").exists() && rig.place.path("state/enabled/b").exists());
    rig.signal(Signal::SIGTERM);
    assert_eq!(rig.end().code(), Some(0));
    let mut command = rig.place.command();
    let child = command.arg("--degraded").stderr(std::process::Stdio::null()).spawn().expect("lifeboat runs");
    let rig = rig.followed_by(child);
    rig.running("b");
    rig.wait_until("a", |unit| unit.state == StateName::Stopped && unit.run.0 == 0);
    rig.ctl(&["enable", "a"]).check("a: enabled\n", 0);
    rig.ctl(&["disable", "--now", "b"]).check("b: disabled\nb: stopped\n", 0);
    assert!(!rig.place.path("state/disabled/a").exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_the_cure() {
    let rig = Place::new(Cgroups::None).unit("a", SLEEPER).start();
    fs::write(rig.place.path("state"), "").expect("a file in the folder's place");
    let said = rig.ctl(&["disable", "a"]);
    assert_eq!(said.code, Some(1));
    for words in ["a: ERROR", "state/disabled/a cannot be made", "--state"] {
        assert!(said.out.contains(words), "{words:?} is missing in {said:?}");
    }
}

#[test]
fn a_gone_unit_ends_its_followers_and_its_log() {
    let place = Place::new(Cgroups::None);
    let log = place.path("a.log");
    let unit = format!(
        "(command: [\"/bin/sh\", \"-c\", \"echo hello; exec sleep 1000\"], output: File((path: {:?})))",
        log.display().to_string()
    );
    let rig = place.unit("a", &unit).unit("b", SLEEPER).start();
    rig.running("a");
    rig.running("b");
    let before = descriptors(&rig);
    let mut follower = std::process::Command::new(env!("CARGO_BIN_EXE_lifeboatctl"));
    follower.arg("--socket").arg(rig.socket()).args(["tail", "-f", "a"]).stdout(std::process::Stdio::null());
    let mut follower = follower.stderr(std::process::Stdio::null()).spawn().expect("lifeboatctl runs");
    remove(&rig, "a");
    rig.ctl(&["update"]).check("a: stopped\na: removed process group\n", 0);
    assert!(wait_for_end(follower.id()), "it follows nobody");
    follower.wait().expect("its end");
    assert!(descriptors(&rig) < before, "{} of {before} descriptors are open", descriptors(&rig));
}

fn descriptors(rig: &Rig) -> usize {
    fs::read_dir(format!("/proc/{}/fd", rig.pid())).expect("its descriptors").count()
}

fn resident_kib(rig: &Rig) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", rig.pid())).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.expect("the figure").trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn many_updates_leave_nothing_behind() {
    const BLOCK: u32 = 80;
    /// Rings and tables fill at a pace that depends on the machine; what leaks never stops, though holes in the heap
    /// may hide it for two blocks.
    const BLOCKS_MAX: u32 = 20;
    let place = Place::new(Cgroups::None).unit("kept", SLEEPER);
    // The C library's heap grows by what is asked for, and not by 128 KiB in advance: mallopt(3).
    let mut command = place.command();
    command.arg("--degraded").env("MALLOC_TOP_PAD_", "0");
    let rig = place.start_as(command);
    let kept = rig.running("kept");
    let mut held = Vec::new();
    let has_stopped = (0..BLOCKS_MAX).any(|block| {
        held.push(least_of_updates(&rig, block * BLOCK..(block + 1) * BLOCK));
        matches!(held[..], [.., before, _, _, after] if after.0 <= before.0 && after.1 <= before.1)
    });
    println!("least descriptors and KiB of anonymous memory in each {BLOCK} updates: {held:?}");
    assert!(has_stopped, "it grows with each {BLOCK} updates: {held:?}");
    assert_eq!(rig.running("kept"), kept);
}

/// One unit comes and goes, one changes each time. The least descriptors and KiB meanwhile: what an update needs
/// while it goes on is not counted.
fn least_of_updates(rig: &Rig, cycles: std::ops::Range<u32>) -> (usize, u64) {
    let held = cycles.map(|cycle| {
        let text = format!(
            "(command: [\"/bin/sleep\", \"{}\"], output_ring: \"{}KiB\")",
            9_000 + cycle,
            1 + cycle % 4
        );
        write(rig, "changes", &text);
        if cycle % 2 == 0 {
            write(rig, &format!("comes{}", cycle % 8), SLEEPER);
        } else {
            remove(rig, &format!("comes{}", (cycle - 1) % 8));
        }
        let said = rig.ctl(&["update"]);
        assert_eq!(said.code, Some(0), "cycle {cycle}: {said:?}");
        rig.running("changes");
        (descriptors(rig), resident_kib(rig))
    });
    held.fold((usize::MAX, u64::MAX), |least, now| (least.0.min(now.0), least.1.min(now.1)))
}

#[test]
fn a_limit_that_was_changed_is_no_difference_to_the_file() {
    let text =
        |rest: &str| format!("(command: [\"/bin/sleep\", \"1000\"], memory: (max: \"32MiB\"), {rest})");
    let rig = Place::new(Cgroups::None).unit("a", &text("autostart: false")).start();
    let bytes = |rig: &Rig| rig.wait_until("a", |_| true).memory.expect("its bound").max_bytes;
    rig.ctl(&["limit", "a", "memory.max=16MiB", "pids.max=20"]).check(
        "a: memory.max is from its next start on 16 MiB\na: pids.max is from its next start on 20\n",
        0,
    );
    rig.ctl(&["reread"]).check("No config updates to processes\n", 0);
    rig.ctl(&["update"]).check("", 0);
    assert_eq!(bytes(&rig), 16 << 20);
    // What changes without a restart leaves the limit.
    write(&rig, "a", &text("autostart: false, description: \"other words\""));
    rig.ctl(&["update"]).check("a: updated process group\n", 0);
    assert_eq!(bytes(&rig), 16 << 20);
    assert_eq!(rig.wait_until("a", |_| true).description, "other words");
    rig.ctl(&["update"]).check("", 0);
    // Another bound in the file goes before.
    write(&rig, "a", &text("autostart: false").replace("32MiB", "24MiB"));
    rig.ctl(&["update"]);
    assert_eq!(bytes(&rig), 24 << 20);
    rig.ctl(&["reread"]).check("No config updates to processes\n", 0);
}

/// The far one wakes nobody, and the near one holds for the run that is there.
#[test]
fn a_service_is_drilled_as_often_as_its_file_says() {
    let text = |every: &str| {
        format!(
            "(command: [\"/bin/sleep\", \"1000\"], \
             shutdown: (procedure: [\"/bin/true\"], on: [Stop], drill_every: \"{every}\"))"
        )
    };
    for cgroups in both() {
        let rig = Place::new(cgroups).unit("a", &text("24h")).start();
        let pid = rig.running("a");
        rig.check_quiet("a drill is due in a day");
        write(&rig, "a", &text("1s"));
        rig.ctl(&["update"]).check("a: updated process group\n", 0);
        let drilled = rig.wait_until("a", |unit| unit.drill.is_some_and(|drill| drill.over.is_some()));
        assert_eq!((drilled.pid, drilled.run.0), (Some(pid), 1));
        let shown = rig.ctl(&["status", "a"]).out;
        assert!(shown.contains("procedure ended with exit code 0 after "), "{shown}");
    }
}
