//! Other unit files while the machine runs.

use super::Case;
use super::growth::Held;
use crate::guest::{Guest, all_saved, ensure, expect, read, run};
use crate::supervisor;
use lifeboat::engine::snapshot::{StateName, Trouble};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    Case { name: "update-starts-new", deadline_s: 60, run: update_starts_new },
    Case { name: "update-stops-gone", deadline_s: 60, run: update_stops_gone },
    Case { name: "update-restarts-changed-only", deadline_s: 60, run: update_restarts_changed_only },
    Case { name: "update-applies-in-place", deadline_s: 60, run: update_applies_in_place },
    Case { name: "bad-file-changes-nothing", deadline_s: 60, run: bad_file_changes_nothing },
    Case { name: "enable-and-disable-are-kept", deadline_s: 60, run: enable_and_disable_are_kept },
    Case { name: "a-hang-up-updates", deadline_s: 60, run: a_hang_up_updates },
    Case { name: "budget-refuses-on-update", deadline_s: 90, run: budget_refuses_on_update },
    Case { name: "exhaustion-during-updates-saves", deadline_s: 180, run: exhaustion_during_updates },
    Case { name: "many-updates-leave-nothing", deadline_s: 900, run: many_updates },
    Case { name: "reading-a-thousand-units", deadline_s: 300, run: reading_a_thousand_units },
];

const UP: Duration = Duration::from_secs(20);
const PAUSE: &str = "command: [\"/usr/bin/vm-guest\", \"pause\"]";

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(format!("/etc/lifeboat/units/{name}.ron"))
}

fn write(name: &str, fields: &str) -> Result<(), String> {
    std::fs::write(path_of(name), format!("({fields})")).map_err(|error| format!("{name}: {error}"))
}

fn remove(name: &str) -> Result<(), String> {
    std::fs::remove_file(path_of(name)).map_err(|error| format!("{name}: {error}"))
}

/// What an update did: each unit's effect.
fn update(guest: &Guest) -> Result<BTreeMap<String, String>, String> {
    let answer = guest.call("Update", &json!({ "names": [] }))?;
    let text = |change: &Value, key: &str| change.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let changes = answer.get("changes").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(changes.iter().map(|change| (text(change, "name"), text(change, "effect"))).collect())
}

fn expect_update(guest: &Guest, expected: &[(&str, &str)]) -> Result<(), String> {
    let expected = expected.iter().map(|(name, effect)| ((*name).to_owned(), (*effect).to_owned())).collect();
    expect("the update", &update(guest)?, &expected)
}

fn gone(guest: &Guest, name: &str) -> Result<(), String> {
    guest.wait(&format!("{name} is still there"), UP, |snapshot| {
        supervisor::unit(snapshot, name).is_none().then_some(())
    })
}

fn update_starts_new(guest: &mut Guest) -> Result<(), String> {
    write("chg-new", PAUSE)?;
    write("chg-quiet", &format!("{PAUSE}, autostart: false"))?;
    expect_update(guest, &[("chg-new", "Start"), ("chg-quiet", "Add")])?;
    guest.wait_state("chg-new", StateName::Running, UP)?;
    expect("the quiet one", &guest.unit("chg-quiet")?.state, &StateName::Stopped)?;
    guest.start("chg-quiet")?;
    expect_update(guest, &[])
}

fn update_stops_gone(guest: &mut Guest) -> Result<(), String> {
    write("chg-goes", &format!("{PAUSE}, memory: (max: \"8MiB\")"))?;
    update(guest)?;
    let unit = guest.wait_state("chg-goes", StateName::Running, UP)?;
    let folder = "/sys/fs/cgroup/pool/chg-goes";
    ensure(std::path::Path::new(folder).exists(), || format!("no {folder}"))?;
    remove("chg-goes")?;
    let (code, text) = run(&["/usr/bin/lifeboatctl", "update"])?;
    // The units of this group with faults are told each time.
    ensure(code <= 1 && text == "chg-goes: stopped\nchg-goes: removed process group\n", || text)?;
    gone(guest, "chg-goes")?;
    let pid = unit.pid.unwrap_or(0);
    ensure(!std::path::Path::new(&format!("/proc/{pid}")).exists(), || format!("{pid} lives"))?;
    ensure(!std::path::Path::new(folder).exists(), || format!("{folder} is left"))
}

fn pids(guest: &Guest) -> Result<BTreeMap<String, Option<u32>>, String> {
    Ok(guest.status()?.units.into_iter().map(|unit| (unit.name, unit.pid)).collect())
}

fn update_restarts_changed_only(guest: &mut Guest) -> Result<(), String> {
    write("chg-a", PAUSE)?;
    write("chg-b", &format!("{PAUSE}, after: [\"chg-a\"]"))?;
    update(guest)?;
    guest.wait_state("chg-b", StateName::Running, UP)?;
    let mut before = pids(guest)?;
    write("chg-a", &format!("{PAUSE}, environment: {{\"X\": \"1\"}}"))?;
    expect_update(guest, &[("chg-a", "Restart")])?;
    let is_new = |snapshot: &_| {
        supervisor::unit(snapshot, "chg-a")
            .filter(|unit| unit.run.0 == 2 && unit.state == StateName::Running)
            .cloned()
    };
    let unit = guest.wait("chg-a comes again", UP, is_new)?;
    let environment = read(&format!("/proc/{}/environ", unit.pid.unwrap_or(0)))?;
    ensure(environment.split('\0').any(|pair| pair == "X=1"), || environment)?;
    before.insert("chg-a".into(), unit.pid);
    expect("who runs", &pids(guest)?, &before)
}

fn update_applies_in_place(guest: &mut Guest) -> Result<(), String> {
    write("chg-place", PAUSE)?;
    update(guest)?;
    let pid = guest.wait_state("chg-place", StateName::Running, UP)?.pid;
    write("chg-place", &format!("{PAUSE}, description: \"other\", restart: (policy: Never)"))?;
    expect_update(guest, &[("chg-place", "Adjust")])?;
    let unit = guest.unit("chg-place")?;
    expect("its process", &unit.pid, &pid)?;
    expect("its description", &unit.description.as_str(), &"other")?;
    run(&["/bin/busybox", "kill", "-9", &pid.unwrap_or(0).to_string()])?;
    guest.wait_state("chg-place", StateName::Exited, UP).map(drop)
}

fn bad_file_changes_nothing(guest: &mut Guest) -> Result<(), String> {
    write("chg-good", PAUSE)?;
    update(guest)?;
    guest.wait_state("chg-good", StateName::Running, UP)?;
    let before = pids(guest)?;
    write("chg-good", "\n    comand: [\"/usr/bin/vm-guest\", \"pause\"],\n")?;
    expect_update(guest, &[("chg-good", "Refused")])?;
    expect("who runs", &pids(guest)?, &before)?;
    let faults = guest.status()?.system.faults;
    let told = faults.iter().any(|fault| fault.contains("chg-good.ron:2:5") && fault.contains("comand"));
    ensure(told, || format!("{faults:?}"))?;
    let (_, text) = run(&["/usr/bin/lifeboatctl", "why", "chg-good"])?;
    ensure(text.contains("chg-good.ron:2:5"), || text)?;
    // It still restarts by its old definition.
    expect("restart", &guest.ask("Restart", "chg-good")?.as_str(), &"Started")?;
    remove("chg-good")?;
    update(guest)?;
    gone(guest, "chg-good")
}

fn enable_and_disable_are_kept(guest: &mut Guest) -> Result<(), String> {
    write("chg-sleeper", &format!("{PAUSE}, autostart: false"))?;
    update(guest)?;
    let (code, text) = run(&["/usr/bin/lifeboatctl", "enable", "--now", "chg-sleeper"])?;
    expect("enable", &(code, text.as_str()), &(0, "chg-sleeper: enabled\nchg-sleeper: started\n"))?;
    read("/etc/lifeboat/enabled/chg-sleeper")?;
    // What is read now is as it is: the next boot will see it so.
    expect_update(guest, &[])?;
    let (code, text) = run(&["/usr/bin/lifeboatctl", "disable", "chg-sleeper"])?;
    expect("disable", &(code, text.as_str()), &(0, "chg-sleeper: disabled\n"))?;
    read("/etc/lifeboat/disabled/chg-sleeper")?;
    ensure(read("/etc/lifeboat/enabled/chg-sleeper").is_err(), || "it is enabled and disabled".into())?;
    // As on a read-only root.
    let folder = "/etc/lifeboat/enabled";
    run(&["/bin/busybox", "mount", "-t", "tmpfs", "-o", "ro", "none", folder])?;
    let refused = run(&["/usr/bin/lifeboatctl", "enable", "chg-sleeper"]);
    run(&["/bin/busybox", "umount", folder])?;
    let (code, text) = refused?;
    let told = text.contains("Read-only file system") && text.contains("enabled/chg-sleeper");
    ensure(code == 1 && told, || format!("{code}: {text}"))
}

fn a_hang_up_updates(guest: &mut Guest) -> Result<(), String> {
    write("chg-hup", PAUSE)?;
    run(&["/bin/busybox", "kill", "-HUP", "1"])?;
    guest.wait("chg-hup comes", UP, |snapshot| {
        supervisor::unit(snapshot, "chg-hup").filter(|unit| unit.state == StateName::Running).map(drop)
    })
}

fn pool_max() -> Result<u64, String> {
    let path = "/sys/fs/cgroup/pool/memory.max";
    read(path)?.trim().parse().map_err(|error| format!("{path}: {error}"))
}

fn budget_refuses_on_update(guest: &mut Guest) -> Result<(), String> {
    let before = pool_max()?;
    write("chg-huge", &format!("{PAUSE}, memory: (max: \"64GiB\", class: Guaranteed), utility: 100"))?;
    write("chg-share", &format!("{PAUSE}, memory: (max: \"16MiB\", class: Guaranteed)"))?;
    let all: Vec<_> = pids(guest)?.into_iter().collect();
    update(guest)?;
    let unit = guest.wait_state("chg-share", StateName::Running, UP)?;
    expect("the huge one", &guest.unit("chg-huge")?.trouble, &Some(Trouble::OverBudget))?;
    let with = pool_max()?;
    ensure(with + (16 << 20) <= before, || format!("the pool has {with} of {before} bytes"))?;
    // Grown beyond what there is, it goes on as it is.
    write("chg-share", &format!("{PAUSE}, memory: (max: \"64GiB\", class: Guaranteed), utility: 100"))?;
    expect_update(guest, &[("chg-share", "Refused")])?;
    expect("its process", &guest.unit("chg-share")?.pid, &unit.pid)?;
    let faults = guest.status()?.system.faults;
    let sum = |fault: &String| {
        fault.starts_with("chg-share: memory.max 64 GiB does not fit") && fault.contains("free")
    };
    ensure(faults.iter().any(sum), || format!("{faults:?}"))?;
    for (name, pid) in all {
        expect(&name, &guest.unit(&name)?.pid, &pid)?;
    }
    remove("chg-share")?;
    remove("chg-huge")?;
    update(guest)?;
    gone(guest, "chg-share")?;
    let look = || pool_max().ok().filter(|now| *now == before).map(drop);
    guest.until(&format!("the pool has {:?} of {before} bytes", pool_max()), UP, look)
}

/// Updates without a pause while memory is exhausted.
fn exhaustion_during_updates(guest: &mut Guest) -> Result<(), String> {
    let (bystander, kills) = (guest.bystander()?, guest.kernel_kills()?);
    let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (over, count, deadline) = (Arc::clone(&stop), Arc::clone(&rounds), guest.deadline());
    let updater = std::thread::spawn(move || -> Result<(), String> {
        let mut result = Ok(());
        while !over.load(Ordering::SeqCst) && result.is_ok() {
            let round = count.fetch_add(1, Ordering::SeqCst);
            result = write("chg-churns", &format!("{PAUSE}, environment: {{\"ROUND\": \"{round}\"}}"))
                .and_then(|()| {
                    supervisor::Supervisor::connect()?
                        .call("Update", &json!({ "names": [] }), deadline)
                        .map(drop)
                });
        }
        result
    });
    let saved = (0..3).try_for_each(|_| {
        let before = guest.last_incident()?;
        guest.start("leak-flat-out")?;
        let incident = guest.wait_incident("leak-flat-out", before, Duration::from_secs(60))?;
        all_saved("leak-flat-out", &incident)
    });
    stop.store(true, Ordering::SeqCst);
    let updated = updater.join().map_err(|_| "the updater panicked".to_owned())?;
    saved.and(updated)?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    guest.figure(&format!("{} updates beside 3 exhaustions", rounds.load(Ordering::SeqCst)));
    remove("chg-churns")?;
    update(guest)?;
    bystander.is_unharmed(guest)
}

fn many_updates(guest: &mut Guest) -> Result<(), String> {
    const CYCLES: u32 = 300;
    guest.stop("bystander")?;
    let began = Instant::now();
    let mut settled: Option<Held> = None;
    for cycle in 0..CYCLES {
        let text = format!(
            "{PAUSE}, environment: {{\"CYCLE\": \"{cycle}\"}}, output_ring: \"{}KiB\"",
            1 + cycle % 4
        );
        write("chg-each-time", &text)?;
        let comes = format!("chg-comes{}", cycle / 2 % 8);
        if cycle % 2 == 0 {
            write(&comes, &format!("{PAUSE}, memory: (max: \"4MiB\", class: Guaranteed)"))?;
        } else {
            remove(&comes)?;
        }
        update(guest)?;
        if cycle == 99 || cycle == CYCLES - 1 {
            gone(guest, &comes)?;
            guest.wait_state("chg-each-time", StateName::Running, UP)?;
            let now = Held::now()?;
            guest.figure(&format!("after {} updates: PID 1 {now:?}", cycle + 1));
            let then = *settled.get_or_insert(now);
            expect("open files of cgroups", &now.cgroup_files, &then.cgroup_files)?;
            ensure(now.files <= then.files + 1, || format!("{then:?}, then {now:?}"))?;
            ensure(now.anonymous_kib <= then.anonymous_kib + 64, || format!("{then:?}, then {now:?}"))?;
        }
    }
    guest.figure(&format!("{CYCLES} updates took {:.1?}", began.elapsed()));
    remove("chg-each-time")?;
    update(guest).map(drop)
}

/// What reading costs PID 1: it blocks for no disk, and for so much work.
fn reading_a_thousand_units(guest: &mut Guest) -> Result<(), String> {
    let present = guest.status()?.units.len();
    for target in [50_usize.max(present), 1_000] {
        for at in present..target {
            write(
                &format!("chg-many{at:04}"),
                &format!("{PAUSE}, autostart: false, memory: (max: \"8MiB\", guard: None)"),
            )?;
        }
        let ticks = busy_ticks()?;
        let began = Instant::now();
        let answer = guest.call("Reread", &json!({}))?;
        let whole = began.elapsed();
        let changes = answer.get("changes").and_then(Value::as_array).map_or(0, Vec::len);
        guest.figure(&format!(
            "reread of {target} unit files: {whole:.1?}, of which PID 1 worked {} ms; {changes} changes",
            (busy_ticks()? - ticks) * 10
        ));
    }
    let began = Instant::now();
    update(guest)?;
    guest.figure(&format!("update that adds them: {:.1?}", began.elapsed()));
    for at in present..1_000 {
        remove(&format!("chg-many{at:04}"))?;
    }
    update(guest)?;
    gone(guest, "chg-many0999")
}

/// CPU time of PID 1 in ticks of 10 ms (proc_pid_stat(5)).
fn busy_ticks() -> Result<u64, String> {
    let stat = read("/proc/1/stat")?;
    let words: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    ticks(11)
        .zip(ticks(12))
        .map(|(user, system)| user + system)
        .ok_or_else(|| format!("/proc/1/stat: {stat}"))
}
