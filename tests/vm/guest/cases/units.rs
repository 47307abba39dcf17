//! Units that are wrong, or do wrong: each is told about, and nothing else is kept from running.

use super::Case;
use crate::guest::{Guest, ensure, expect, read, run};
use lifeboat::engine::event::SpawnStage;
use lifeboat::engine::snapshot::{StateName, Trouble};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::Path;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "bad-units", deadline_s: 20, run: bad_units },
    Case { name: "over-budget-unit-refused", deadline_s: 20, run: over_budget_unit_refused },
    Case { name: "command-missing", deadline_s: 30, run: |g| does_not_exec(g, "command-missing", 2) },
    Case {
        name: "command-not-executable",
        deadline_s: 30,
        run: |g| does_not_exec(g, "command-not-executable", 13),
    },
    Case { name: "limit-refused-by-the-kernel", deadline_s: 30, run: limit_refused },
    Case { name: "service-forks-without-end", deadline_s: 60, run: service_forks_without_end },
];

/// What the image has beside the good units: `tests/vm/units-bad` and what its builder makes.
const BAD: [&str; 4] = ["bad-not-ron", "bad-not-utf8", "bad-dangling", "bad-long"];

fn bad_units(guest: &mut Guest) -> Result<(), String> {
    let snapshot = guest.status()?;
    for name in BAD {
        let file = format!("/etc/lifeboat/units/{name}.ron");
        ensure(Path::new(&file).symlink_metadata().is_ok(), || format!("the image has no {file}"))?;
        let unit = crate::supervisor::unit(&snapshot, name).ok_or_else(|| format!("{name} is not listed"))?;
        expect(&format!("state of {name}"), &unit.state, &StateName::Fatal)?;
        expect(&format!("trouble of {name}"), &unit.trouble, &Some(Trouble::BadUnit))?;
        let told = snapshot.system.faults.iter().any(|fault| fault.contains(name));
        ensure(told, || format!("no fault names {name}: {:?}", snapshot.system.faults))?;
        let outcome = guest.ask("Start", name)?;
        expect(&format!("start of {name}"), &outcome.as_str(), &"Failed")?;
    }
    let longest = snapshot.system.faults.iter().map(String::len).max().unwrap_or(0);
    ensure(longest < 8 * 1024, || format!("a fault of {longest} bytes"))?;
    let (code, _) = run(&["/usr/bin/lifeboatctl", "why", "bad-not-ron"])?;
    expect("exit code of lifeboatctl why", &code, &0)
}

fn over_budget_unit_refused(guest: &mut Guest) -> Result<(), String> {
    let unit = guest.unit("over-budget")?;
    expect("state", &unit.state, &StateName::Fatal)?;
    expect("trouble", &unit.trouble, &Some(Trouble::OverBudget))?;
    expect("start", &guest.ask("Start", "over-budget")?.as_str(), &"Failed")
}

fn does_not_exec(guest: &mut Guest, name: &str, expected_errno: i32) -> Result<(), String> {
    expect("start", &guest.ask("Start", name)?.as_str(), &"Failed")?;
    let unit = guest.wait(name, Duration::from_secs(20), |snapshot| {
        crate::supervisor::unit(snapshot, name).filter(|unit| unit.trouble.is_some()).cloned()
    })?;
    let expected = Trouble::SpawnFailed { stage: SpawnStage::Exec, errno: expected_errno, procedure: false };
    expect("trouble", &unit.trouble, &Some(expected))?;
    expect("pid", &unit.pid, &None)
}

/// A limit that cannot be written, and one that is written and not kept: the service does not start without it. Once
/// the cause is gone it does.
fn limit_refused(guest: &mut Guest) -> Result<(), String> {
    let unit = "limit-refused";
    let folder = format!("/sys/fs/cgroup/pool/{unit}");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{folder}: {error}"))?;
    let limit = format!("{folder}/memory.max");
    // Anything but the kernel's own file at this place stands for a kernel that does not want the value.
    for (stand_in, errno) in
        [("/proc/version", nix::errno::Errno::EIO), ("/dev/null", nix::errno::Errno::ERANGE)]
    {
        let none = None::<&str>;
        mount(Some(stand_in), limit.as_str(), none, MsFlags::MS_BIND, none)
            .map_err(|error| format!("{stand_in} over {limit}: {error}"))?;
        let outcome = guest.ask("Start", unit);
        umount2(limit.as_str(), MntFlags::empty()).map_err(|error| format!("umount {limit}: {error}"))?;
        expect("start", &outcome?.as_str(), &"Failed")?;
        let shown = guest.unit(unit)?;
        let expected =
            Trouble::SpawnFailed { stage: SpawnStage::Limit, errno: errno as i32, procedure: false };
        expect(&format!("trouble with {stand_in}"), &shown.trouble, &Some(expected))?;
        expect("pid", &shown.pid, &None)?;
    }
    let (_, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
    ensure(text.contains("limit"), || format!("why says nothing of a limit: {text}"))?;
    guest.start(unit)?;
    expect("memory.max", &read(&limit)?.trim(), &"8388608")?;
    guest.stop(unit)
}

fn service_forks_without_end(guest: &mut Guest) -> Result<(), String> {
    let unit = "forks-without-end";
    let bystander = guest.bystander()?;
    guest.start(unit)?;
    let refused =
        || read(&format!("/sys/fs/cgroup/pool/{unit}/pids.events")).ok().filter(|text| *text != "max 0\n");
    guest.until("pids.max was never met", Duration::from_secs(30), refused)?;
    bystander.is_unharmed(guest)?;
    guest.start("quiet")?;
    guest.stop("quiet")?;
    guest.stop(unit)?;
    let left = processes_with(&["vm-guest", "fork-storm"]);
    ensure(left.is_empty(), || format!("left after the stop: {left:?}"))
}

/// Pids of processes whose command line begins with these words; the first is a program's name.
pub(crate) fn processes_with(words: &[&str]) -> Vec<u32> {
    let Ok(folder) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let matches = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let mut got = line.split('\0');
        let program = got.next().and_then(|path| path.rsplit('/').next());
        program == words.first().copied() && words.iter().skip(1).all(|word| got.next() == Some(word))
    };
    pids.filter(matches).collect()
}
