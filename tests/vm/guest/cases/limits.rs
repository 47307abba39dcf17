//! Limits of a unit's cgroup: what the kernel's files say of them, and what they do.

use super::Case;
use crate::cast::field;
use crate::guest::{Guest, ensure, expect, read, run};
use lifeboat::engine::event::SpawnStage;
use lifeboat::engine::snapshot::{StateName, Trouble};
use std::path::Path;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "limits-are-taken", deadline_s: 30, run: limits_are_taken },
    Case { name: "limits-of-a-guaranteed-unit", deadline_s: 30, run: limits_of_a_guaranteed_unit },
    Case { name: "limit-that-may-be-missing", deadline_s: 30, run: limit_that_may_be_missing },
    Case { name: "limit-that-is-not-taken", deadline_s: 30, run: limit_that_is_not_taken },
    Case { name: "no-mounts-of-its-own", deadline_s: 30, run: no_mounts_of_its_own },
    Case { name: "cpu-max-throttles", deadline_s: 60, run: cpu_max_throttles },
    Case { name: "real-time-and-own-mounts", deadline_s: 30, run: real_time_and_own_mounts },
];

const POOL: &str = "/sys/fs/cgroup/pool";

/// The kernel's own files say what was wished for.
fn expect_files(folder: &str, files: &[(&str, &str)]) -> Result<(), String> {
    for (file, expected) in files {
        expect(file, &read(&format!("{folder}/{file}"))?.trim_end(), expected)?;
    }
    Ok(())
}

fn limits_are_taken(guest: &mut Guest) -> Result<(), String> {
    let unit = "limits-all";
    for _ in 1..=2 {
        guest.start(unit)?;
        let folder = format!("{POOL}/{unit}");
        expect_files(
            &folder,
            &[
                ("memory.max", "16777216"),
                ("memory.high", "12582912"),
                ("memory.low", "3145728"),
                ("memory.min", "2097152"),
                ("memory.oom.group", "0"),
                ("cpu.max", "10000 20000"),
                ("cpu.weight", "200"),
                ("cpuset.cpus", "0-1"),
                ("cpuset.mems", "0"),
                ("pids.max", "20"),
            ],
        )?;
        // Of what these two need some kernels have nothing.
        for (file, expected) in [("memory.swap.max", "1048576"), ("io.weight", "default 300")] {
            let setting = if file == "io.weight" { file } else { "memory.swap_max" };
            let refused = guest.unit(unit)?.refused_settings.iter().any(|it| it.setting == setting);
            if refused {
                ensure(!Path::new(&format!("{folder}/{file}")).exists(), || format!("{file} was refused"))?;
            } else {
                expect_files(&folder, &[(file, expected)])?;
            }
        }
        // The branch passes on what its units have together.
        expect_files(POOL, &[("memory.low", "3145728"), ("memory.min", "2097152")])?;
        guest.stop(unit)?;
    }
    // Another unit of the branch has no part in the swap that this one may use.
    guest.start("quiet")?;
    if Path::new(&format!("{POOL}/quiet/memory.swap.max")).exists() {
        expect_files(&format!("{POOL}/quiet"), &[("memory.swap.max", "0")])?;
    }
    guest.stop("quiet")
}

fn limits_of_a_guaranteed_unit(guest: &mut Guest) -> Result<(), String> {
    let (unit, branch) = ("limits-guaranteed", "/sys/fs/cgroup/guaranteed");
    guest.start(unit)?;
    expect_files(&format!("{branch}/{unit}"), &[("cpu.max", "150000 100000"), ("cpuset.cpus", "1")])?;
    expect_files(branch, &[("memory.min", "1048576")])?;
    // Controllers are there only where a unit needs them.
    ensure(!Path::new(&format!("{branch}/{unit}/io.max")).exists(), || "io is handed down too".into())?;
    let pid = guest.unit(unit)?.pid.ok_or("no pid")?;
    let status = read(&format!("/proc/{pid}/status"))?;
    ensure(status.contains("Cpus_allowed_list:\t1\n"), || format!("it may run elsewhere: {status}"))?;
    guest.stop(unit)
}

fn limit_that_may_be_missing(guest: &mut Guest) -> Result<(), String> {
    let unit = "limits-optional";
    guest.start(unit)?;
    let shown = guest.unit(unit)?;
    let refused: Vec<(&str, i32)> =
        shown.refused_settings.iter().map(|it| (it.setting.as_str(), it.errno)).collect();
    let expected = [("cpu.cpus", 34), ("io.max", 2), ("cpus", 22), ("hidden", 2)];
    expect("refused", &refused.as_slice(), &expected.as_slice())?;
    expect_files(&format!("{POOL}/{unit}"), &[("cpu.weight", "50")])?;
    let (_, text) = run(&["/usr/bin/lifeboatctl", "status", unit])?;
    let words = "without cpu.cpus and io.max and cpus and hidden";
    ensure(text.contains(words), || format!("status does not say so: {text}"))?;
    let (_, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
    let words = "io.max is not taken: No such file or directory; see that the disk is there";
    ensure(text.contains(words), || format!("why does not say so: {text}"))?;
    guest.stop(unit)
}

fn limit_that_is_not_taken(guest: &mut Guest) -> Result<(), String> {
    for (unit, setting, errno, cure) in [
        ("limits-untaken", "cpu.cpus", 34, "name only what the machine has"),
        ("limits-no-disk", "io.max", 2, "CONFIG_BLK_DEV_THROTTLING"),
    ] {
        expect("start", &guest.ask("Start", unit)?.as_str(), &"Failed")?;
        let shown = guest.wait_state(unit, StateName::Fatal, Duration::from_secs(20))?;
        let expected = Trouble::SpawnFailed { stage: SpawnStage::Limit, errno, procedure: false };
        expect("trouble", &shown.trouble, &Some(expected))?;
        let refused: Vec<&str> = shown.refused_settings.iter().map(|it| it.setting.as_str()).collect();
        expect("refused", &refused.as_slice(), &[setting].as_slice())?;
        let (_, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
        ensure(text.contains(setting) && text.contains(cure), || format!("why has no cure: {text}"))?;
    }
    Ok(())
}

/// Where a mount namespace is refused, a mount would be one of the machine's: none is made.
fn no_mounts_of_its_own(guest: &mut Guest) -> Result<(), String> {
    let (unit, sysctl) = ("private-tmp-optional", "/proc/sys/user/max_mnt_namespaces");
    let before = read(sysctl)?;
    let put = |text: &str| std::fs::write(sysctl, text).map_err(|error| format!("{sysctl}: {error}"));
    let mounts = read("/proc/1/mounts")?;
    put("0")?;
    let started = guest.start(unit);
    put(before.trim())?;
    started?;
    let refused: Vec<(String, i32)> =
        guest.unit(unit)?.refused_settings.into_iter().map(|it| (it.setting, it.errno)).collect();
    let expected = ["private_mounts", "private_tmp", "hidden"].map(|name| (name.to_owned(), 28));
    expect("refused", &refused.as_slice(), &expected.as_slice())?;
    let seen = || Path::new("/tmp/seen-by-all").exists().then_some(());
    guest.until("its /tmp is not the machine's", Duration::from_secs(10), seen)?;
    expect("mounts of the machine", &read("/proc/1/mounts")?, &mounts)?;
    ensure(!read("/etc/shells")?.is_empty(), || "the machine's file is hidden".into())?;
    guest.stop(unit)
}

fn cpu_max_throttles(guest: &mut Guest) -> Result<(), String> {
    let unit = "cpu-throttled";
    let bystander = guest.bystander()?;
    guest.start(unit)?;
    let file = format!("{POOL}/{unit}/cpu.stat");
    let number = |name: &str| field(&read(&file).ok()?, name);
    let throttled = || number("nr_throttled").filter(|count| *count >= 20);
    guest.until("it is not throttled", Duration::from_secs(30), throttled)?;
    let (periods, usage_us) = (number("nr_periods").unwrap_or(0), number("usage_usec").unwrap_or(0));
    guest.figure(&format!("cpu.max of 2 ms in 20 ms: {usage_us} us in {periods} periods"));
    guest.stop(unit)?;
    bystander.is_unharmed(guest)
}

fn real_time_and_own_mounts(guest: &mut Guest) -> Result<(), String> {
    for (unit, policy, priority) in [("real-time", "1", "10"), ("round-robin", "2", "7")] {
        guest.start(unit)?;
        let pid = guest.unit(unit)?.pid.ok_or("no pid")?;
        let stat = read(&format!("/proc/{pid}/stat"))?;
        let words: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // rt_priority and policy are fields 40 and 41 of proc_pid_stat(5), of which two stand before these words.
        expect("priority, policy", &(words.get(37), words.get(38)), &(Some(&priority), Some(&policy)))?;
        let namespace =
            |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).map_err(|error| error.to_string());
        let own = namespace(&pid.to_string())? != namespace("1")?;
        expect("mounts of its own", &own, &(unit == "real-time"))?;
        guest.stop(unit)?;
    }
    Ok(())
}
