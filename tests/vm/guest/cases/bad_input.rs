//! Bad procedures and bad services that no other case has: each exhaustion ends by its deadline, is told, and costs
//! nobody else anything.

use super::Case;
use super::units::processes_with;
use crate::bad::{ELSEWHERE, LINGER_S, PORT, lingering};
use crate::guest::{Guest, ensure, expect, run};
use crate::supervisor;
use crate::supervisor::SOCKET;
use lifeboat::engine::event::{Exit, SpawnStage};
use lifeboat::engine::snapshot::{Failure, Incident, Killer, ProcedureResult, Snapshot, StateName, Trouble};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::socket::{ControlMessage, MsgFlags as MessageFlags, sendmsg};
use std::fs;
use std::io::{IoSlice, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    Case { name: "procedure-without-its-interpreter", deadline_s: 40, run: without_interpreter },
    Case { name: "procedure-not-executable", deadline_s: 40, run: not_executable },
    Case { name: "procedure-kills-its-parent", deadline_s: 60, run: kills_its_parent },
    Case { name: "procedure-gone-when-needed", deadline_s: 90, run: gone_when_needed },
    Case { name: "procedure-on-a-full-disk", deadline_s: 60, run: on_a_full_disk },
    Case { name: "service-flees-from-signals", deadline_s: 60, run: flees },
    Case { name: "service-holds-the-lock", deadline_s: 60, run: holds_the_lock },
    Case { name: "service-holds-the-port", deadline_s: 90, run: holds_the_port },
    Case { name: "service-nests-without-asking", deadline_s: 60, run: nests_without_asking },
    Case { name: "service-leaves-its-cgroup", deadline_s: 60, run: |g| leaves_for(g, ELSEWHERE) },
    Case { name: "service-moves-in-with-another", deadline_s: 60, run: |g| leaves_for(g, NEXT_DOOR) },
    Case { name: "what-lingers-holds-nobody-up", deadline_s: 120, run: what_lingers },
];

const SOON: Duration = Duration::from_secs(30);
const CTL: &str = "/usr/bin/lifeboatctl";
/// The cgroup of the bystander, which has nothing to do with it.
const NEXT_DOOR: &str = "/sys/fs/cgroup/pool/bystander";
const LEAK: &[&str] = &["/usr/bin/vm-guest", "leak"];

/// Makes a unit for this boot and starts it; the outcome of `lifeboatctl run` and its words.
fn make(unit: &str, procedure: &str, way: &[&str]) -> Result<(i32, String), String> {
    let name = format!("--name={unit}");
    let procedure = format!("--procedure={procedure}");
    let fixed = ["--memory-max=8MiB", "--procedure-memory=4MiB", "--deadline=2s", "--"];
    let words = [&[CTL, "run", &name, &procedure][..], &fixed, way].concat();
    run(&words)
}

fn remove(unit: &str) -> Result<(), String> {
    let (code, text) = run(&[CTL, "remove", unit])?;
    expect(&format!("exit code of remove ({text:?})"), &code, &0)
}

/// A file that is a procedure.
fn script(path: &str, text: &str, mode: u32) -> Result<(), String> {
    let made =
        fs::write(path, text).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    made.map_err(|error| format!("{path}: {error}"))
}

fn why_has(unit: &str, words: &[&str]) -> Result<(), String> {
    let (_, text) = run(&[CTL, "why", unit])?;
    let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
    ensure(missing.is_empty(), || format!("why {unit} has no {missing:?}: {text}"))
}

/// Exhausts a bad pair, and looks that its end is in time, is told, and is nobody else's.
fn ends(
    guest: &Guest,
    pair: (&str, &str),
    way: &[&str],
    told: (ProcedureResult, &[&str]),
) -> Result<Incident, String> {
    ends_after(guest, pair, way, told, || Ok(()))
}

/// The same, with something that happens while the service is up.
fn ends_after(
    guest: &Guest,
    (unit, procedure): (&str, &str),
    way: &[&str],
    (result, words): (ProcedureResult, &[&str]),
    meanwhile: impl FnOnce() -> Result<(), String>,
) -> Result<Incident, String> {
    let (bystander, kills, before) = (guest.bystander()?, guest.kernel_kills()?, guest.last_incident()?);
    let (code, text) = make(unit, procedure, way)?;
    expect(&format!("exit code of run ({text:?})"), &code, &0)?;
    meanwhile()?;
    let incident = guest.wait_incident(unit, before, SOON)?;
    expect("procedure", &incident.procedure, &result)?;
    expect("who ended the service", &incident.killer, &Killer::Lifeboat)?;
    ensure(incident.emptied.is_some(), || format!("it is not empty: {incident:?}"))?;
    let took_us = incident.killed.zip(incident.released).map(|(killed, released)| killed.since_us(released));
    // Two seconds are the deadline; the rest is for a slow machine.
    ensure(took_us.is_some_and(|us| us < 5_000_000), || format!("killed {took_us:?} us after the release"))?;
    why_has(unit, words)?;
    let (_, story) = run(&[CTL, "incidents", "show", &incident.number.to_string()])?;
    let told = story.lines().find(|line| line.trim_start().starts_with("procedure:")).unwrap_or_default();
    ensure(words.first().is_some_and(|word| told.contains(word)), || format!("the incident: {story}"))?;
    guest.figure(&format!(
        "{unit}: {}, killed {} ms after the release",
        told.trim(),
        took_us.unwrap_or(0) / 1_000
    ));
    guest.wait_state(unit, StateName::Stopped, SOON)?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    bystander.is_unharmed(guest)?;
    remove(unit)?;
    Ok(incident)
}

/// Found out before the service runs, and not when its data is at stake.
fn is_refused(guest: &Guest, unit: &str, procedure: &str, errno: i32) -> Result<(), String> {
    let bystander = guest.bystander()?;
    let (code, text) = make(unit, procedure, &["/usr/bin/vm-guest", "pause"])?;
    ensure(code != 0, || format!("it was started: {text}"))?;
    let shown = guest.wait_state(unit, StateName::Fatal, SOON)?;
    let expected = Trouble::SpawnFailed { stage: SpawnStage::Exec, errno, procedure: true };
    expect("trouble", &shown.trouble, &Some(expected))?;
    why_has(unit, &["procedure"])?;
    bystander.is_unharmed(guest)?;
    remove(unit)
}

fn without_interpreter(guest: &mut Guest) -> Result<(), String> {
    let path = "/run/no-interpreter";
    script(path, "#! /usr/bin/gone -x\nexit 0\n", 0o755)?;
    is_refused(guest, "bad-interpreter", path, 2)?;
    script("/run/interpreter", "#!/bin/sh\nexit 7\n", 0o755)?;
    let told = (ProcedureResult::Ended(Exit::Code(7)), &["exit code 7"][..]);
    ends(guest, ("good-interpreter", "/run/interpreter"), LEAK, told).map(drop)
}

fn not_executable(guest: &mut Guest) -> Result<(), String> {
    let path = "/run/not-executable";
    script(path, "#!/bin/sh\nexit 0\n", 0o644)?;
    is_refused(guest, "bad-mode", path, 13)
}

/// Its parent is PID 1, to which the kernel delivers no signal that it does not handle (kernel/signal.c,
/// `sig_task_ignored`). What PID 1 does handle, to end the machine, it takes from no procedure.
fn kills_its_parent(guest: &mut Guest) -> Result<(), String> {
    let text = "#!/bin/sh\nfor s in KILL STOP SEGV ABRT ILL BUS QUIT HUP ALRM TSTP; do kill -$s $PPID; done\n\
                for s in TERM INT USR1 USR2 PWR 37 38 39 49 CHLD; do kill -$s $PPID; done\nexit 6\n";
    script("/run/kills-its-parent", text, 0o755)?;
    let told = (ProcedureResult::Ended(Exit::Code(6)), &["exit code 6"][..]);
    let pair = ("bad-parricide", "/run/kills-its-parent");
    ends(guest, pair, LEAK, told)?;
    let (_, log) = run(&["/bin/busybox", "dmesg"])?;
    expect("lines", &log.matches("bad-parricide: its procedure has sent signal").count(), &1)
}

fn on_a_full_disk(guest: &mut Guest) -> Result<(), String> {
    let tiny = "/run/tiny";
    fs::create_dir_all(tiny).map_err(|error| format!("{tiny}: {error}"))?;
    mount(Some("tmpfs"), tiny, Some("tmpfs"), MsFlags::empty(), Some("size=16k"))
        .map_err(|error| format!("mount {tiny}: {error}"))?;
    script("/run/fills", "#!/bin/sh\nexec dd if=/dev/zero of=/run/tiny/saved bs=4k count=64\n", 0o755)?;
    let told = (ProcedureResult::Ended(Exit::Code(1)), &["exit code 1", "No space left on device"][..]);
    let ended = ends(guest, ("bad-disk", "/run/fills"), LEAK, told);
    umount(tiny).map_err(|error| format!("umount {tiny}: {error}"))?;
    ended.map(drop)
}

/// A chain of processes, each of which is gone before a signal could meet it.
fn flees(guest: &mut Guest) -> Result<(), String> {
    let told = (ProcedureResult::Ended(Exit::Code(0)), &["exit code 0"][..]);
    let pair = ("bad-flees", "/bin/busybox true");
    ends(guest, pair, &["/usr/bin/vm-guest", "bad", "flees"], told)?;
    expect("processes that have fled", &processes_with(&["vm-guest", "flee"]).len(), &0)
}

/// A frozen service keeps its locks: a procedure that wants one waits until its deadline. The second service needs what
/// the first one had locked, so that they went with it.
fn holds_the_lock(guest: &mut Guest) -> Result<(), String> {
    for procedure in ["/usr/bin/vm-guest lock", "/usr/bin/vm-guest lock record"] {
        let told = (ProcedureResult::TimedOut, &["killed at its deadline"][..]);
        ends(guest, ("bad-locks", procedure), &["/usr/bin/vm-guest", "bad", "locks"], told)?;
    }
    Ok(())
}

/// A frozen service keeps its port, and the procedure hears so. It is free once the kill is over: the next run has it.
fn holds_the_port(guest: &mut Guest) -> Result<(), String> {
    super::sockets::loopback()?;
    for _ in 0..2 {
        let told = (ProcedureResult::Ended(Exit::Code(1)), &["exit code 1", "Address in use"][..]);
        let mut client = None;
        // It stays open over the kill.
        let connect = || {
            let there = || std::net::TcpStream::connect(("127.0.0.1", PORT)).ok();
            client = Some(guest.until("nobody listens", SOON, there)?);
            Ok(())
        };
        let way = ["/usr/bin/vm-guest", "bad", "port"];
        ends_after(guest, ("bad-port", "/usr/bin/vm-guest bind"), &way, told, connect)?;
        drop(client);
    }
    Ok(())
}

/// Its file, or its interpreter, was there when the service started.
fn gone_when_needed(guest: &mut Guest) -> Result<(), String> {
    let (program, interpreter) = ("/run/goes", "/run/shell-that-goes");
    let leaks_soon = ["/bin/busybox", "sh", "-c", "sleep 2; exec vm-guest leak"];
    for gone in [program, interpreter] {
        fs::copy("/bin/busybox", interpreter).map_err(|error| format!("{interpreter}: {error}"))?;
        script(program, &format!("#!{interpreter} true\nexit 5\n"), 0o755)?;
        let remove = || fs::remove_file(gone).map_err(|error| format!("{gone}: {error}"));
        let result = ProcedureResult::SpawnFailed { stage: SpawnStage::Exec, errno: 2 };
        let told = (result, &["execve", "No such file or directory"][..]);
        ends_after(guest, ("bad-gone", program), &leaks_soon, told, remove)?;
    }
    fs::remove_file(program).map_err(|error| format!("{program}: {error}"))
}

/// Root can make cgroups also where the unit's file does not say `delegate`. The second run begins where those of the
/// first one were.
fn nests_without_asking(guest: &mut Guest) -> Result<(), String> {
    let (unit, kills, bystander) = ("bad-nests", guest.kernel_kills()?, guest.bystander()?);
    for is_first in [true, false] {
        let before = guest.last_incident()?;
        if is_first {
            let (code, text) = make(unit, "/bin/busybox true", &["/usr/bin/vm-guest", "nest", "leak"])?;
            expect(&format!("exit code of run ({text:?})"), &code, &0)?;
        } else {
            guest.start(unit)?;
        }
        let incident = guest.wait_incident(unit, before, SOON)?;
        expect("procedure", &incident.procedure, &ProcedureResult::Ended(Exit::Code(0)))?;
        expect("who ended the service", &incident.killer, &Killer::Lifeboat)?;
        why_has(unit, &[&format!("incident {},", incident.number), "procedure: ended with exit code 0"])?;
        guest.wait_state(unit, StateName::Stopped, SOON)?;
    }
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    bystander.is_unharmed(guest)?;
    remove(unit)?;
    let left = fs::exists("/sys/fs/cgroup/pool/bad-nests");
    ensure(!left.is_ok_and(|left| left), || "a cgroup is left".into())
}

/// Root can move itself. Nothing bounds it there, so it has failed; the end finds it.
fn leaves_for(guest: &Guest, folder: &str) -> Result<(), String> {
    let (unit, bystander) = ("bad-leaves", guest.bystander()?);
    let members = || fs::read_to_string(format!("{folder}/cgroup.procs")).unwrap_or_default();
    let (before, kills) = (members(), guest.kernel_kills()?);
    // It may have failed before `run` has seen it RUNNING.
    run(&[CTL, "run", "--name=bad-leaves", "--memory-max=8MiB", "--", "/usr/bin/vm-guest", "leave", folder])?;
    let over = |snapshot: &Snapshot| {
        let shown = supervisor::unit(snapshot, unit)?;
        (shown.state == StateName::Exited).then_some(shown.trouble)
    };
    let trouble = guest.wait(unit, SOON, over)?;
    expect("trouble", &trouble, &Some(Trouble::Failed { failure: Failure::LeftItsCgroup }))?;
    expect("who is elsewhere", &members(), &before)?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    let (_, text) = run(&[CTL, "why", unit])?;
    ensure(text.contains("it has left its cgroup, so its limits hold nothing"), || text)?;
    if folder == ELSEWHERE {
        fs::remove_dir(folder).map_err(|error| format!("{folder}: {error}"))?;
    }
    bystander.is_unharmed(guest)?;
    remove(unit)
}

/// A connection whose other side takes nothing, with `SO_LINGER`: who closes it last waits. PID 1 may be that, whether
/// a service has stored it or anybody at all has sent it.
fn what_lingers(guest: &mut Guest) -> Result<(), String> {
    super::sockets::loopback()?;
    let listener = TcpListener::bind(("127.0.0.1", PORT)).map_err(|error| format!("the port: {error}"))?;
    let bystander = guest.bystander()?;
    let notify = SOCKET.replace(".sock", ".notify");
    for way in ["stored", "message", "call", "call that is not read"] {
        let began = Instant::now();
        match way {
            "stored" => {
                guest.start("lingers")?;
                guest.stop("lingers")?;
            }
            "message" => {
                let socket = UnixDatagram::unbound().and_then(|it| it.connect(&notify).map(|()| it));
                send(&socket.map_err(|error| format!("{notify}: {error}"))?, b"STATUS=x")?;
            }
            "call" => {
                send(&UnixStream::connect(SOCKET).map_err(|error| error.to_string())?, b"{")?;
            }
            _ => send_to_nobody(guest)?,
        }
        guest.status()?;
        let took = began.elapsed();
        guest.figure(&format!(
            "{way}: a socket that lingers for {LINGER_S} s, lifeboat answers after {took:?}"
        ));
        ensure(took < Duration::from_secs(LINGER_S.unsigned_abs().into()) / 2, || {
            format!("{way}: {took:?}")
        })?;
        bystander.is_unharmed(guest)?;
    }
    drop(listener);
    Ok(())
}

/// Who waits for an answer is not read meanwhile: what it sends then is closed with its connection.
fn send_to_nobody(guest: &Guest) -> Result<(), String> {
    const STOP: &[u8] =
        b"{\"method\":\"org.lifeboat.Supervisor.Stop\",\"parameters\":{\"name\":\"bad-stays\"}}\0";
    let unit = "bad-stays";
    let ignores = ["/usr/bin/vm-guest", "ignore-term"];
    let (code, text) =
        run(&[&[CTL, "run", "--name=bad-stays", "--memory-max=8MiB", "--"][..], &ignores].concat())?;
    expect(&format!("exit code of run ({text:?})"), &code, &0)?;
    let status = format!("/proc/{}/status", guest.unit(unit)?.pid.unwrap_or(0));
    let blocks =
        || fs::read_to_string(&status).ok().filter(|text| !text.contains("SigBlk:\t0000000000000000"));
    guest.until("it blocks no signals", SOON, blocks)?;
    let mut stream = UnixStream::connect(SOCKET).map_err(|error| error.to_string())?;
    stream.write_all(STOP).map_err(|error| format!("a call: {error}"))?;
    guest.wait_state(unit, StateName::Stopping, SOON)?;
    // More than lifeboat reads in one turn, and less than the socket holds.
    stream.write_all(&[b' '; 70 << 10]).map_err(|error| format!("a call: {error}"))?;
    send(&stream, b"{")?;
    drop(stream);
    guest.status()?;
    expect("its state", &guest.unit(unit)?.state, &StateName::Stopping)?;
    guest.wait_state(unit, StateName::Stopped, SOON)?;
    remove(unit)
}

/// Sends a lingering connection; nobody else has it open then.
fn send(socket: &impl AsRawFd, text: &[u8]) -> Result<(), String> {
    let stream = lingering()?;
    let (numbers, text) = ([stream.as_raw_fd()], [IoSlice::new(text)]);
    let sent = sendmsg::<()>(
        socket.as_raw_fd(),
        &text,
        &[ControlMessage::ScmRights(&numbers)],
        MessageFlags::MSG_NOSIGNAL,
        None,
    );
    sent.map(drop).map_err(|errno| format!("a descriptor: {errno:?}"))
}
