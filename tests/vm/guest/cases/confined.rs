//! Who a service is, what it may and what it sees.

use super::Case;
use crate::guest::{Guest, all_saved, ensure, expect, read};
use lifeboat::engine::event::{Exit, SpawnStage};
use lifeboat::engine::snapshot::{Cause, Incident, ProcedureResult, StateName, Trouble};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "unknown-user-is-fatal", deadline_s: 20, run: unknown_user_is_fatal },
    Case { name: "user-capabilities-limits", deadline_s: 30, run: user_capabilities_limits },
    Case { name: "private-folders-end-with-the-run", deadline_s: 60, run: private_folders_end_with_the_run },
    Case { name: "missing-path-is-named", deadline_s: 30, run: missing_path_is_named },
    Case { name: "user-is-shielded-and-saved", deadline_s: 90, run: user_is_shielded_and_saved },
    Case { name: "procedure-finds-private-shm", deadline_s: 90, run: procedure_finds_private_shm },
];

/// `recorder` in the image's `/etc/passwd`.
const RECORDER: u32 = 200;
const EXHAUSTION: Duration = Duration::from_secs(60);

fn unknown_user_is_fatal(guest: &mut Guest) -> Result<(), String> {
    let unit = guest.unit("bad-user")?;
    expect("state", &unit.state, &StateName::Fatal)?;
    expect("trouble", &unit.trouble, &Some(Trouble::BadUnit))?;
    let faults = guest.status()?.system.faults;
    let words = ["bad-user.ron:5:", "user: there is no user `recordr`", "did you mean `recorder`?"];
    let told = faults.iter().any(|fault| words.iter().all(|word| fault.contains(word)));
    ensure(told, || format!("no fault says so: {faults:?}"))
}

/// The pid of a unit that runs.
fn pid(guest: &Guest, unit: &str) -> Result<u32, String> {
    guest.unit(unit)?.pid.ok_or_else(|| format!("{unit} has no pid"))
}

/// A line of /proc/PID/status without its name.
fn field(status: &str, name: &str) -> Result<String, String> {
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    let words = line.ok_or_else(|| format!("no {name} in {status}"))?.split_whitespace();
    Ok(words.collect::<Vec<_>>().join(" "))
}

fn user_capabilities_limits(guest: &mut Guest) -> Result<(), String> {
    guest.start("confined")?;
    let pid = pid(guest, "confined")?;
    let status = read(&format!("/proc/{pid}/status"))?;
    for (name, expected) in [
        ("Uid", "200 200 200 200"),
        ("Gid", "200 200 200 200"),
        ("Groups", "1 5"),
        ("Umask", "0027"),
        ("CapInh", "0000000000000400"),
        ("CapPrm", "0000000000000400"),
        ("CapEff", "0000000000000400"),
        ("CapBnd", "0000000000000401"),
        ("CapAmb", "0000000000000400"),
        ("NoNewPrivs", "1"),
        ("Cpus_allowed_list", "0"),
    ] {
        expect(name, &field(&status, name)?.as_str(), &expected)?;
    }
    let stat = read(&format!("/proc/{pid}/stat"))?;
    let numbers: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // nice and policy are fields 19 and 41 of proc_pid_stat(5), of which two stand before these numbers.
    expect("nice and policy", &(numbers.get(16), numbers.get(38)), &(Some(&"5"), Some(&"3")))?;
    let limits = read(&format!("/proc/{pid}/limits"))?;
    for (name, expected) in [("Max open files", "100 200 files"), ("Max core file size", "0 0 bytes")] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        expect(name, &line.split_whitespace().collect::<Vec<_>>().join(" ").as_str(), &expected)?;
    }
    let environment = read(&format!("/proc/{pid}/environ"))?;
    for pair in ["HOME=/data", "USER=recorder", "LOGNAME=somebody", "SHELL=/bin/false"] {
        let is_there = environment.split('\0').any(|found| found == pair);
        ensure(is_there, || format!("no {pair} in {environment:?}"))?;
    }
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).map_err(|error| error.to_string())?;
    expect("working directory", &folder.as_path(), &Path::new("/data"))?;
    guest.stop("confined")
}

/// A number from a file of the cgroup of a unit in the pool.
fn group_bytes(unit: &str) -> Result<u64, String> {
    let path = format!("/sys/fs/cgroup/pool/{unit}/memory.current");
    read(&path)?.trim().parse().map_err(|_| format!("{path} is no number"))
}

fn private_folders_end_with_the_run(guest: &mut Guest) -> Result<(), String> {
    let unit = "private-folders";
    for run in 1..=2 {
        guest.start(unit)?;
        let root = format!("/proc/{}/root", pid(guest, unit)?);
        let done = || Path::new(&format!("{root}/tmp/done")).exists().then_some(());
        guest.until("its folders are not filled", Duration::from_secs(20), done)?;
        let size =
            std::fs::metadata(format!("{root}/dev/shm/mine")).map_err(|error| error.to_string())?.len();
        expect("bytes in its own /dev/shm", &size, &(4 << 20))?;
        ensure(group_bytes(unit)? > 4 << 20, || "they are not counted as its memory".into())?;
        for path in ["/tmp/mine", "/dev/shm/mine", "/etc/mine", "/data/mine"] {
            ensure(!Path::new(path).exists(), || format!("run {run}: {path} is on the machine"))?;
        }
        for (path, why) in [("etc/mine", "/etc is writable"), ("data/mine", "/data is not hidden")] {
            ensure(!Path::new(&format!("{root}/{path}")).exists(), || format!("run {run}: {why}"))?;
        }
        expect("a hidden file", &read(&format!("{root}/etc/shells"))?.as_str(), &"")?;
        ensure(!read("/etc/shells")?.is_empty(), || "the machine's file is hidden too".into())?;
        guest.stop(unit)?;
        // The kernel lets go of the pages with the last mount of the namespace, a moment after the last process.
        let freed = || group_bytes(unit).ok().filter(|bytes| *bytes < 2 << 20);
        guest.until("its pages stay", Duration::from_secs(20), freed)?;
    }
    Ok(())
}

fn missing_path_is_named(guest: &mut Guest) -> Result<(), String> {
    let unit = "hides-nothing";
    expect("start", &guest.ask("Start", unit)?.as_str(), &"Failed")?;
    let expected = Trouble::SpawnFailed { stage: SpawnStage::Hidden, errno: 2, procedure: false };
    let shown = guest.wait_state(unit, StateName::Fatal, Duration::from_secs(20))?;
    expect("trouble", &shown.trouble, &Some(expected))
}

fn saved(incident: &Incident, kills: u64, guest: &Guest) -> Result<(), String> {
    expect("cause", &incident.cause, &Cause::Exhaustion)?;
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)
}

fn user_is_shielded_and_saved(guest: &mut Guest) -> Result<(), String> {
    let unit = "leaks-as-user";
    let folder = Path::new("/run/leaks-as-user");
    std::fs::create_dir_all(folder)
        .and_then(|()| chown(folder, Some(RECORDER), Some(RECORDER)))
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    let (bystander, kills, before) = (guest.bystander()?, guest.kernel_kills()?, guest.last_incident()?);
    guest.start(unit)?;
    let pid = pid(guest, unit)?;
    expect("user", &field(&read(&format!("/proc/{pid}/status"))?, "Uid")?.as_str(), &"200 200 200 200")?;
    expect("shield", &read(&format!("/proc/{pid}/oom_score_adj"))?.trim(), &"-1000")?;
    let incident = guest.wait_incident(unit, before, EXHAUSTION)?;
    saved(&incident, kills, guest)?;
    all_saved(unit, &incident)?;
    let owner = std::fs::metadata(folder.join("saved.bin")).map_err(|error| error.to_string())?.uid();
    expect("who saved", &owner, &RECORDER)?;
    bystander.is_unharmed(guest)
}

fn procedure_finds_private_shm(guest: &mut Guest) -> Result<(), String> {
    let (unit, kills, before) = ("saves-private-shm", guest.kernel_kills()?, guest.last_incident()?);
    guest.start(unit)?;
    let incident = guest.wait_incident(unit, before, EXHAUSTION)?;
    // It ends with 0 only where it could read all records.
    saved(&incident, kills, guest)?;
    ensure(!Path::new("/dev/shm/ring").exists(), || "the ring is on the machine's /dev/shm".into())?;
    let size =
        std::fs::metadata("/tmp/saves-private-shm/saved.bin").map_err(|error| error.to_string())?.len();
    ensure(size > 0, || "nothing was saved".into())
}
