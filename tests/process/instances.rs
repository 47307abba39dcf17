//! Templates while lifeboat runs: instances that somebody asks for by name, and the target to boot.

use crate::rig::{Cgroups, Place, Rig};
use lifeboat::engine::snapshot::StateName;
use nix::sys::signal::Signal;
use std::fs;

const TEMPLATE: &str = "(command: [\"/bin/sleep\", \"%i\"])";
const SLEEPER: &str = "(command: [\"/bin/sleep\", \"1000\"])";

fn next_life(mut rig: Rig) -> Rig {
    rig.signal(Signal::SIGTERM);
    assert_eq!(rig.end().code(), Some(0));
    let mut command = rig.place.command();
    let child = command.arg("--degraded").stderr(std::process::Stdio::null()).spawn().expect("lifeboat runs");
    rig.followed_by(child)
}

#[test]
fn an_instance_is_made_when_it_is_asked_for() {
    let rig = Place::new(Cgroups::None).unit("doze@", TEMPLATE).unit("a", SLEEPER).start();
    rig.running("a");
    for verb in ["start", "stop", "restart", "reload"] {
        rig.ctl(&[verb, "nobody@1000"]).check("nobody@1000: ERROR (no such process)\n", 1);
    }
    rig.ctl(&["stop", "doze@1000"]).check("doze@1000: ERROR (no such process)\n", 1);
    rig.ctl(&["start", "doze@1000", "doze@2000"]).check("doze@1000: started\ndoze@2000: started\n", 0);
    let pid = rig.running("doze@1000");
    let argv = fs::read(format!("/proc/{pid}/cmdline")).expect("its command line");
    assert_eq!(String::from_utf8_lossy(&argv), "/bin/sleep\x001000\0");
    rig.ctl(&["start", "doze@1000"]).check("doze@1000: ERROR (already started)\n", 0);
    // As many at once as somebody may name.
    let names: Vec<String> = (3_000..3_020).map(|seconds| format!("doze@{seconds}")).collect();
    let words = |verb: &'static str| -> Vec<&str> {
        std::iter::once(verb).chain(names.iter().map(String::as_str)).collect()
    };
    assert_eq!(rig.ctl(&words("start")).code, Some(0));
    assert_eq!(rig.ctl(&words("stop")).code, Some(0));
    assert_eq!(rig.ctl(&words("remove")).code, Some(0));
    // It is no surplus to whoever reads the files again.
    rig.ctl(&["reread"]).check("No config updates to processes\n", 0);
    rig.ctl(&["update"]).check("", 0);
    assert_eq!(rig.running("doze@1000"), pid);
    rig.ctl(&["stop", "doze@1000"]).check("doze@1000: stopped\n", 0);
    rig.ctl(&["remove", "doze@1000"]).check("doze@1000: removed process group\n", 0);
    rig.ctl(&["update"]).check("", 0);
    assert_eq!(rig.status().units.len(), 2);
    // A name that nothing fits says why on its own unit.
    rig.ctl(&["start", "doze@"]).check("doze@: ERROR (no such process)\n", 1);
    rig.ctl(&["start", "doze@../x"]).check("doze@../x: ERROR (no such process)\n", 1);
    rig.check_quiet("instances have come and gone");
}

#[test]
fn an_enabled_instance_comes_back_at_boot() {
    let rig = Place::new(Cgroups::None).unit("doze@", TEMPLATE).start();
    rig.ctl(&["add", "doze@1000"]).check("doze@1000: added process group\n", 0);
    rig.wait_until("doze@1000", |unit| unit.state == StateName::Stopped);
    rig.ctl(&["enable", "doze@1000"]).check("doze@1000: enabled\n", 0);
    rig.ctl(&["reread"]).check("No config updates to processes\n", 0);
    let rig = next_life(rig);
    rig.running("doze@1000");
    rig.ctl(&["disable", "--now", "doze@1000"]).check("doze@1000: disabled\ndoze@1000: stopped\n", 0);
    let rig = next_life(rig);
    assert!(rig.status().units.is_empty(), "{:?}", rig.status().units);
}

#[test]
fn system_ron_says_where_that_is_kept() {
    let place = Place::new(Cgroups::None).unit("doze@", TEMPLATE).unit("a", SLEEPER);
    let folder = place.path("data/lifeboat");
    fs::write(place.path("system.ron"), format!("(state_folder: {:?})", folder.display().to_string()))
        .expect("a system file");
    let rig = place.start();
    rig.ctl(&["disable", "a"]).check("a: disabled\n", 0);
    rig.ctl(&["add", "doze@1000"]).check("doze@1000: added process group\n", 0);
    rig.ctl(&["enable", "doze@1000"]).check("doze@1000: enabled\n", 0);
    assert!(folder.join("disabled/a").exists() && folder.join("enabled/doze@1000").exists());
    let rig = next_life(rig);
    rig.running("doze@1000");
    rig.wait_until("a", |unit| unit.state == StateName::Stopped && unit.run.0 == 0);
}

#[test]
fn the_target_to_boot_holds_for_updates_too() {
    let place = Place::new(Cgroups::None)
        .unit("most", "(kind: Target, requires: [\"a\"])")
        .unit("a", SLEEPER)
        .unit("b", SLEEPER);
    fs::write(place.path("system.ron"), "(boot: \"most\")").expect("a system file");
    let rig = place.start();
    rig.running("a");
    rig.ctl(&["reread"]).check("No config updates to processes\n", 0);
    fs::write(rig.place.path("units/c.ron"), SLEEPER).expect("a unit file");
    rig.ctl(&["update"]).check("c: added process group\n", 0);
    for name in ["b", "c"] {
        rig.wait_until(name, |unit| unit.state == StateName::Stopped && unit.run.0 == 0);
    }
}

#[test]
fn what_is_wrong_with_others_stays_known() {
    let rig = Place::new(Cgroups::None)
        .unit("doze@", TEMPLATE)
        .unit("vast", "(command: [\"/bin/sleep\", \"1000\"], memory: (max: \"100000GiB\"))")
        .start();
    let told = |rig: &Rig| rig.ctl(&["why", "vast"]).out.contains("lower memory.max");
    assert!(told(&rig));
    rig.ctl(&["start", "doze@1000"]).check("doze@1000: started\n", 0);
    assert!(told(&rig), "{}", rig.ctl(&["why", "vast"]).out);
    rig.ctl(&["update"]);
    assert!(told(&rig), "{}", rig.ctl(&["why", "vast"]).out);
}
