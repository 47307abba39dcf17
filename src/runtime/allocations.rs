//! While memory is exhausted nothing is allocated: neither to decide, nor to act on a cgroup, nor to tell of it.

use super::story::Story;
use crate::cgroup::capabilities::Capabilities;
use crate::cgroup::limits::GroupLimits;
use crate::cgroup::tree::Tree;
use crate::engine::action::Action;
use crate::engine::event::{Event, Exit, LeftBehind, MemoryEvents, MemorySample, Role, Time};
use crate::engine::policy::{Class, RunId, UnitId, UnitPolicy};
use crate::engine::snapshot::BudgetView;
use crate::engine::{Engine, Plan};
use crate::sys::allocations::made_by;
use crate::sys::spawn::{Order, release};
use crate::sys::{children, clock, console};
use crate::unit::load;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

const MIB: u64 = 1 << 20;

/// A shielded unit with a procedure that takes half of the reserve.
const UNIT: &str = r#"(
    command: ["/bin/true"],
    memory: (max: "32MiB"),
    shutdown: (procedure: ["/bin/true"], memory: "4MiB"),
    restart: (max_delay: "1s", limit: (starts: 1000, within: "1s")),
)"#;

fn policies(names: &[String]) -> Vec<UnitPolicy> {
    let folder = tempfile::tempdir().expect("a folder");
    for name in names {
        fs::write(folder.path().join(format!("{name}.ron")), UNIT).expect("a unit's file");
    }
    load(&[folder.path().to_owned()], None).units.into_iter().map(|unit| unit.policy).collect()
}

/// One life of a unit, from its start to the end of its exhaustion.
fn life(unit: UnitId, run: RunId) -> [Event; 17] {
    let counted = |max, oom| Event::MemoryEvents {
        unit,
        run,
        role: Role::Service,
        counters: MemoryEvents { max, oom, ..MemoryEvents::default() },
    };
    let lives = u64::from(run.0);
    let sampled = |bytes| Event::MemorySampled {
        unit,
        run,
        sample: MemorySample { current_bytes: bytes, unreclaimable_bytes: bytes, ..MemorySample::default() },
    };
    [
        Event::Deadline,
        Event::Parked { unit, run, pid: 11 },
        Event::Spawned { unit, run, pid: 12 },
        Event::PressureRang { unit, run },
        counted(10 * lives, lives - 1),
        sampled(20 * MIB),
        sampled(25 * MIB),
        counted(11 * lives, lives),
        sampled(32 * MIB),
        Event::Frozen { unit, run },
        Event::ProcedureRunning { unit, run },
        Event::Exited { unit, run, role: Role::Procedure, exit: Exit::Code(0) },
        Event::Emptied { unit, run, role: Role::Procedure },
        Event::Exited { unit, run, role: Role::Service, exit: Exit::Signal(9) },
        Event::LeftBehind { unit, run, left: LeftBehind::default() },
        Event::Emptied { unit, run, role: Role::Service },
        Event::Deadline,
    ]
}

#[test]
fn deciding_and_telling_allocate_nothing() {
    let names: Vec<String> = ["bus", "recorder", "viewer"].map(String::from).into();
    let mut engine = Engine::new(policies(&names), 8 * MIB);
    let mut plan = Plan::for_units(names.len());
    let null = || console::open_null().expect("/dev/null");
    let story = Story::of(Some(null()), Some(null()), true);
    let (mut told, mut saves, mut episodes) = (0, 0, 0);
    let mut turn = |now: Time, event: Event| {
        engine.handle(now, event, &mut plan);
        while let Some(action) = plan.take() {
            if let Action::Log(record) = action {
                story.tell(&record, &names);
                told += 1;
            }
            saves += u32::from(matches!(action, Action::StartProcedure { .. }));
            if let Action::KeepIncident { unit, number } = action {
                let found = engine.episode(unit, number);
                episodes += u32::from(found.is_ok_and(|it| !it.is_cut && !it.entries.is_empty()));
            }
        }
    };
    let allocations = made_by(|| {
        turn(Time(0), Event::Boot);
        // The units live side by side, event by event. Two procedures fit the reserve; the third dies while it waits.
        // So many lives also fill the ring of events and the list of incidents.
        for run in 1..=40_u32 {
            let lives = [0, 1, 2].map(|unit| life(UnitId(unit), RunId(run)));
            for step in 0..17_u64 {
                for life in &lives {
                    let Some(event) = usize::try_from(step).ok().and_then(|step| life.get(step)) else {
                        return;
                    };
                    turn(Time((u64::from(run - 1) * 17 + step) * 2_000_000), *event);
                }
            }
        }
    });
    assert_eq!((allocations, saves), (0, 2 * 40));
    // Each way to an exhaustion is recorded meanwhile.
    assert_eq!(episodes, 3 * 40);
    assert!(told > 500, "{told} records");
}

/// A folder with the branches and one unit, all with captured files.
fn captured_tree(root: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cgroup/linux-6.12");
    for folder in ["shutdown", "guaranteed", "pool", "pool/recorder"] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).expect("a folder");
        for file in fs::read_dir(&source).expect("captured files") {
            let file = file.expect("a captured file");
            fs::copy(file.path(), folder.join(file.file_name())).expect("a copy");
        }
        for name in ["cgroup.freeze", "cgroup.kill", "cgroup.subtree_control"] {
            fs::write(folder.join(name), "").expect("a file");
        }
    }
    fs::write(root.join("cgroup.controllers"), "memory pids\n").expect("a file");
    fs::write(root.join("cgroup.subtree_control"), "").expect("a file");
}

#[test]
fn acting_on_a_cgroup_allocates_nothing() {
    let root = tempfile::tempdir().expect("a folder");
    captured_tree(root.path());
    let capabilities = Capabilities::in_folder(root.path()).expect("a folder");
    let budget = BudgetView { reserve_bytes: 8 * MIB, pool_bytes: 64 * MIB, ..BudgetView::default() };
    let tree = Tree::prepare(root.path(), &budget, &capabilities).expect("a tree");
    let limits = GroupLimits { memory_max_bytes: Some(32 * MIB), ..GroupLimits::default() };
    let mut group = tree.service("recorder", Class::Pool, &limits).expect("a group");
    group.equip().expect("its files");
    let (_wait, go) = std::os::unix::net::UnixDatagram::pair().expect("sockets");
    let (stored, _other_end) = nix::unistd::pipe().expect("a pipe");
    let mut good = false;
    let allocations = made_by(|| {
        good = group.memory_events().is_ok_and(|counters| counters.oom > 0)
            && group.freeze().is_ok()
            && group.state().is_ok()
            && group.sample().is_ok_and(|sample| sample.unreclaimable_bytes > 0)
            && children::pidfd(std::process::id()).is_some_and(|pidfd| {
                let order = Order::new("exhaustion", 4711, 2_000);
                let given = [Some(pidfd.as_fd()), Some(group.place().folder)];
                let stored = ([stored.as_fd()].into_iter(), "stored");
                release(go.as_fd(), &order.with(stored, given)).is_ok()
            })
            && group.kill().is_ok()
            && group.left_behind().is_ok_and(|left| left.current_bytes > 0)
            && clock::now() > Time(0);
    });
    assert!(good, "something of it failed");
    assert_eq!(allocations, 0);
}
