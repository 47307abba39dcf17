//! `lifeboatctl run`: a command as a unit of this boot.

use super::rig::{Cgroups, Place};
use lifeboat::engine::snapshot::StateName;

const UP: &str = "(command: [\"/bin/sleep\", \"1000\"])";

#[test]
fn a_command_is_run_as_a_unit() {
    let rig = Place::new(Cgroups::None).unit("other", UP).unit("faulty", "(command: 3)").start();
    rig.running("other");
    let said = rig.ctl(&["run", "--name", "job", "--wait", "--", "sh", "-c", "echo said it; pwd; exit 3"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    let here = std::env::current_dir().expect("a folder");
    for words in ["job: started", "said it", &here.display().to_string(), "exited with code 3"] {
        assert!(said.out.contains(words), "{words} in {said:?}");
    }
    assert_eq!(said.out.matches("said it").count(), 1, "it ran once: {said:?}");
    // Nothing of it is left.
    assert_eq!(rig.status().units.len(), 2, "{:?}", rig.status().units);
    assert_eq!(std::fs::read_dir(rig.place.path("socket.units")).expect("its folder").count(), 0);
}

#[test]
fn one_in_the_background_is_there_until_it_is_taken_out() {
    let rig = Place::new(Cgroups::None).unit("other", UP).start();
    rig.ctl(&["run", "--name", "job", "--set", "utility: 7", "--", "sleep", "1000"])
        .check("job: started\n", 0);
    rig.running("job");
    let unit = rig.wait_until("job", |unit| unit.state == StateName::Running);
    assert_eq!(unit.description, "sleep 1000");
    let again = rig.ctl(&["run", "--name", "job", "--", "sleep", "1"]);
    assert!(again.code == Some(1) && again.err.contains("there is a unit job already"), "{again:?}");
    rig.ctl(&["update"]).check("", 0);
    rig.ctl(&["stop", "job"]).check("job: stopped\n", 0);
    rig.wait_until("job", |unit| unit.state == StateName::Stopped);
    rig.ctl(&["remove", "job"]).check("job: removed process group\n", 0);
    rig.ctl(&["reread"]).check("No config updates to processes\n", 0);
    assert_eq!(rig.status().units.len(), 1, "{:?}", rig.status().units);
}

#[test]
fn what_cannot_be_a_unit_leaves_nothing() {
    let rig = Place::new(Cgroups::None).unit("other", UP).start();
    let check = |words: &[&str], expected: &str| {
        let said = rig.ctl(&[&["run", "--name", "job"], words].concat());
        assert!(said.code != Some(0) && said.err.contains(expected), "{words:?}: {said:?}");
        assert_eq!(rig.status().units.len(), 1, "{words:?}: {:?}", rig.status().units);
    };
    check(&["--set", "memry: (max: \"1MiB\")", "--", "sleep", "1"], "did you mean `memory`?");
    check(&["--memory-max", "lots", "--", "sleep", "1"], "`lots` is no size");
    check(&["--", "no-such-program-at-all"], "is in no folder of PATH");
    check(&["--procedure", "/bin/true", "--", "sleep", "1"], "--memory-max");
    rig.ctl(&["reread"]).check("No config updates to processes\n", 0);
}
