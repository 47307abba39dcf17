//! `lifeboatctl adopt`: a process that the driver has made, outside of all units, is put under guard.

use super::Case;
use crate::guest::{Guest, all_saved, ensure, expect, read, run, wait_recording};
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{Cause, Killer, ProcedureResult, StateName};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "adopt-guards-a-process", deadline_s: 120, run: adopt_guards_a_process },
    Case { name: "adopt-sees-the-end", deadline_s: 90, run: adopt_sees_the_end },
    Case { name: "adopt-refuses", deadline_s: 90, run: adopt_refuses },
];

const EXHAUSTION: Duration = Duration::from_secs(60);
const UP: Duration = Duration::from_secs(20);

/// The cgroup in which nobody's processes are. The driver itself is of a unit.
const GROUP: &str = "/sys/fs/cgroup/strays";

/// A recorder that lifeboat does not know.
struct Stray {
    child: Child,
}

impl Stray {
    fn new(unit: &str, leak_after: &str) -> Result<Self, String> {
        fs::create_dir_all(GROUP).map_err(|error| format!("{GROUP}: {error}"))?;
        // The shell moves itself, so that all of the recorder is made there.
        let script = format!(
            "echo 0 > {GROUP}/cgroup.procs && exec recorder --ring=/run/{unit}/ring --leak=flat-out \
             --leak-after={leak_after}"
        );
        let child = Command::new("/bin/sh").args(["-c", &script]).spawn();
        Ok(Self { child: child.map_err(|error| format!("/bin/sh: {error}"))? })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn oom_score_adj(&self) -> Result<String, String> {
        Ok(read(&format!("/proc/{}/oom_score_adj", self.pid()))?.trim().into())
    }

    fn cgroup(&self) -> Result<String, String> {
        Ok(read(&format!("/proc/{}/cgroup", self.pid()))?.trim().into())
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir(GROUP);
    }
}

/// What `adopt` says on standard error, and its exit code.
fn adopt(pid: u32, words: &[&str]) -> Result<(Option<i32>, String), String> {
    let mut command = Command::new("/usr/bin/lifeboatctl");
    let output = command.arg("adopt").arg(pid.to_string()).args(words).output();
    let output = output.map_err(|error| format!("lifeboatctl: {error}"))?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn adopt_guards_a_process(guest: &mut Guest) -> Result<(), String> {
    let unit = "adopted";
    let (bystander, kills, before) = (guest.bystander()?, guest.kernel_kills()?, guest.last_incident()?);
    let mut stray = Stray::new(unit, "8s")?;
    wait_recording(guest, unit)?;
    let procedure = format!("--procedure=recorder-flush /run/{unit}/ring /run/{unit}/saved.bin");
    let words =
        ["--name=adopted", "--memory-max=16MiB", &procedure, "--procedure-memory=2MiB", "--deadline=10s"];
    let (code, said) = adopt(stray.pid(), &words)?;
    expect(&format!("exit code of adopt ({said:?})"), &code, &Some(0))?;
    let view = guest.wait_state(unit, StateName::Running, UP)?;
    expect("its service", &view.pid, &Some(stray.pid()))?;
    expect("its cgroup", &stray.cgroup()?.as_str(), &"0::/pool/adopted")?;
    expect("oom_score_adj", &stray.oom_score_adj()?.as_str(), &"-1000")?;
    let incident = guest.wait_incident(unit, before, EXHAUSTION)?;
    expect("cause", &incident.cause, &Cause::Exhaustion)?;
    expect("who ended the service", &incident.killer, &Killer::Lifeboat)?;
    expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    ensure(incident.frozen.is_some(), || "the service was not frozen".into())?;
    all_saved(unit, &incident)?;
    guest.wait_state(unit, StateName::Stopped, UP)?;
    let end = stray.child.wait().map_err(|error| format!("wait: {error}"))?;
    expect("the end of the process", &end.signal(), &Some(9))?;
    expect("starts", &guest.unit(unit)?.run.0, &1)?;
    let (code, text) = run(&["/usr/bin/lifeboatctl", "remove", unit])?;
    expect(&format!("exit code of remove ({text:?})"), &code, &0)?;
    bystander.is_unharmed(guest)
}

/// Of an orphan, which is PID 1's child, and of another's child that is not reaped.
fn adopt_sees_the_end(guest: &mut Guest) -> Result<(), String> {
    let fine = ["--memory-max=16MiB", "--procedure=/bin/true", "--procedure-memory=2MiB", "--name=ending"];
    let ends = |guest: &Guest, pid: u32, signal: i32| {
        let (code, said) = adopt(pid, &fine)?;
        expect(&format!("exit code of adopt ({said:?})"), &code, &Some(0))?;
        let killed = run(&["/bin/kill", &format!("-{signal}"), &pid.to_string()])?.0;
        expect("exit code of kill", &killed, &0)?;
        let unit = guest.wait_state("ending", StateName::Exited, UP)?;
        expect("its end", &unit.last_exit, &Some(Exit::Signal(signal)))?;
        let (code, text) = run(&["/usr/bin/lifeboatctl", "remove", "ending"])?;
        expect(&format!("exit code of remove ({text:?})"), &code, &0)
    };
    let stray = Stray::new("ending", "1000s")?;
    wait_recording(guest, "ending")?;
    ends(guest, stray.pid(), 9)?;
    drop(stray);
    fs::create_dir_all(GROUP).map_err(|error| format!("{GROUP}: {error}"))?;
    let script = format!("echo 0 > {GROUP}/cgroup.procs; sleep 1000 >/dev/null 2>&1 &");
    let (code, _) = run(&["/bin/sh", "-c", &script])?;
    expect("exit code of sh", &code, &0)?;
    let pids = read(&format!("{GROUP}/cgroup.procs"))?;
    let orphan = pids.trim().parse().map_err(|_| format!("one orphan is in {GROUP}: {pids:?}"))?;
    ends(guest, orphan, 15)?;
    fs::remove_dir(GROUP).map_err(|error| format!("{GROUP}: {error}"))
}

fn adopt_refuses(guest: &mut Guest) -> Result<(), String> {
    guest.bystander()?;
    let bystander = guest.unit("bystander")?.pid.ok_or("the bystander has no process")?;
    let units = guest.status()?.units.len();
    let stray = Stray::new("refused", "1000s")?;
    wait_recording(guest, "refused")?;
    let (pid, cgroup) = (stray.pid(), stray.cgroup()?);
    let fine = ["--memory-max=16MiB", "--procedure=/bin/true", "--procedure-memory=2MiB"];
    let with = |word: &'static str| [fine[0], fine[1], fine[2], word];
    let cases: [(u32, &[&str], &str); 8] = [
        (4_194_304, &fine, "/proc has none of this number"),
        (1, &fine, "it is the init process"),
        (2, &fine, "it is a thread of the kernel"),
        (bystander, &fine, "it is the service of the unit bystander"),
        (pid, &with("--name=bystander"), "there is a unit bystander already"),
        (pid, &["--memory-max=16MiB", "--procedure=no-such-program"], "is in no folder of PATH"),
        (pid, &["--memory-max=16MiB", "--procedure=/etc/passwd"], "is not executable"),
        (pid, &["--memory-max=16MiB", "--procedure=/bin/true", "--procedure-memory=900MiB"], "raise reserve"),
    ];
    for (pid, words, told) in cases {
        let (code, said) = adopt(pid, words)?;
        ensure(code != Some(0) && said.contains(told), || {
            format!("adopt {pid} {words:?}: {code:?} {said:?}")
        })?;
        expect(&format!("units after {told:?}"), &guest.status()?.units.len(), &units)?;
    }
    // What only the kernel refuses is found out when the procedure is parked, before anything is moved.
    let script = "mkdir -p /run/noexec && mount -t tmpfs -o noexec none /run/noexec && \
                  printf '#!/bin/sh\\n' > /run/noexec/save && chmod 755 /run/noexec/save";
    let (code, text) = run(&["/bin/sh", "-c", script])?;
    expect(&format!("exit code of mount ({text:?})"), &code, &0)?;
    let (code, said) = adopt(pid, &["--memory-max=16MiB", "--procedure=/run/noexec/save"])?;
    run(&["/bin/umount", "/run/noexec"])?;
    let told =
        "is not under guard: make it executable (chmod +x), on a file system that is not mounted noexec";
    ensure(code == Some(1) && said.contains(told), || format!("{code:?} {said:?}"))?;
    expect("units", &guest.status()?.units.len(), &units)?;
    expect("its cgroup", &stray.cgroup()?, &cgroup)?;
    expect("oom_score_adj", &stray.oom_score_adj()?.as_str(), &"0")
}
