//! What the rescue rests on, looked at in the kernel: who is shielded, who is parked, who stands still, and who
//! waits for the reserve.

use super::Case;
use crate::guest::{Guest, all_saved, ensure, expect, read, wait_recording};
use lifeboat::engine::snapshot::{ProcedureResult, StateName};
use std::path::Path;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "shield-is-up-and-procedure-is-parked", deadline_s: 30, run: shield_is_up },
    Case { name: "service-stands-still-while-it-is-saved", deadline_s: 60, run: stands_still },
    Case { name: "procedure-waits-for-the-reserve", deadline_s: 120, run: waits_for_the_reserve },
];

const UP: Duration = Duration::from_secs(20);
const EXHAUSTION: Duration = Duration::from_secs(60);

/// `oom_score_adj` of a process.
pub(crate) fn oom_score_adj(pid: u32) -> Result<i32, String> {
    let path = format!("/proc/{pid}/oom_score_adj");
    read(&path)?.trim().parse().map_err(|_| format!("{path} is no number"))
}

/// The pids of a cgroup below /sys/fs/cgroup.
fn members(cgroup: &str) -> Result<Vec<u32>, String> {
    let text = read(&format!("/sys/fs/cgroup/{cgroup}/cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

fn shield_is_up(guest: &mut Guest) -> Result<(), String> {
    let unit = "saves-on-stop";
    guest.start(unit)?;
    wait_recording(guest, unit)?;
    let pid = guest.unit(unit)?.pid.ok_or("it has no pid")?;
    expect("oom_score_adj of a shielded service", &oom_score_adj(pid)?, &-1_000)?;
    expect("its cgroup", &members(&format!("pool/{unit}"))?, &vec![pid])?;
    let parked = members(&format!("shutdown/{unit}"))?;
    let [parked] = parked.as_slice() else { return Err(format!("parked for {unit}: {parked:?}")) };
    // Before its execve it still is lifeboat.
    let program = std::fs::read_link(format!("/proc/{parked}/exe")).map_err(|error| error.to_string())?;
    ensure(program == Path::new("/sbin/lifeboat"), || format!("parked is {}", program.display()))?;
    expect("oom_score_adj of a parked procedure", &oom_score_adj(*parked)?, &-999)?;
    guest.stop(unit)?;
    ensure(!Path::new(&format!("/proc/{parked}")).exists(), || "the procedure outlives the stop".into())
}

/// The procedure itself looks at the service's cgroup.
fn stands_still(guest: &mut Guest) -> Result<(), String> {
    let (unit, before) = ("sees-frozen", guest.last_incident()?);
    guest.start(unit)?;
    guest.wait_incident(unit, before, EXHAUSTION)?;
    let seen = read("/run/sees-frozen.events")?;
    for line in ["populated 1", "frozen 1"] {
        ensure(seen.lines().any(|seen| seen == line), || {
            format!("the procedure saw {seen:?}, not {line:?}")
        })?;
    }
    Ok(())
}

/// Two procedures of 6 MiB do not fit into a reserve of 8 MiB at once: the second service stands frozen until the
/// first procedure, which hangs, has met its deadline; then it is saved.
fn waits_for_the_reserve(guest: &mut Guest) -> Result<(), String> {
    let (bystander, kills, before) = (guest.bystander()?, guest.kernel_kills()?, guest.last_incident()?);
    expect("the reserve", &guest.status()?.system.budget.reserve_bytes, &(8 << 20))?;
    guest.start("wide-a")?;
    guest.wait_state("wide-a", StateName::Rescuing, UP)?;
    guest.start("wide-b")?;
    let b = guest.wait_incident("wide-b", before, EXHAUSTION)?;
    let a = guest.wait_incident("wide-a", before, EXHAUSTION)?;
    expect("the first procedure", &a.procedure, &ProcedureResult::TimedOut)?;
    ensure(b.frozen < a.procedure_ended, || "the two were not exhausted at the same time".into())?;
    ensure(b.released >= a.procedure_ended, || {
        format!("the second was released at {:?}, before {:?}", b.released, a.procedure_ended)
    })?;
    all_saved("wide-b", &b)?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    bystander.is_unharmed(guest)
}
