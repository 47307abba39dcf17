//! Other people's programs, as Debian ships them, each with a real client.

use super::Case;
use crate::guest::{Guest, ensure, expect, read, run};
use lifeboat::engine::event::Exit;
use lifeboat::engine::snapshot::{ProcedureResult, StateName, UnitView};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "dropbear-lets-in-after-a-kill", deadline_s: 90, run: dropbear_lets_in_after_a_kill },
    Case { name: "nginx-reloads-without-a-refusal", deadline_s: 90, run: nginx_reloads_without_a_refusal },
    Case { name: "nginx-finishes-answers-at-a-stop", deadline_s: 60, run: nginx_finishes_answers_at_a_stop },
    Case { name: "lighttpd-is-handed-its-port", deadline_s: 60, run: lighttpd_handed },
    Case { name: "lighttpd-confined", deadline_s: 60, run: lighttpd_confined },
    Case { name: "mosquitto-keeps-a-message", deadline_s: 90, run: mosquitto_keeps_a_message },
    Case { name: "redis-saves-at-a-stop", deadline_s: 90, run: redis_saves_at_a_stop },
    Case { name: "redis-exhausted-loses-nothing", deadline_s: 180, run: redis_exhausted_loses_nothing },
    Case { name: "sqlite-whole-after-kills", deadline_s: 180, run: sqlite_whole_after_kills },
    Case { name: "procedure-libraries-are-locked", deadline_s: 90, run: libraries_are_locked },
    Case { name: "real-programs-leave-nothing", deadline_s: 60, run: leave_nothing },
    Case { name: "last-words-on-the-disk", deadline_s: 20, run: last_words_on_the_disk },
];

const UP: Duration = Duration::from_secs(40);
const ANSWER: Duration = Duration::from_secs(10);
const NGINX: ([u8; 4], u16) = ([127, 0, 0, 1], 80);
const LIGHTTPD: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
const HANDED: ([u8; 4], u16) = ([127, 0, 0, 1], 8081);
const REDIS: ([u8; 4], u16) = ([127, 0, 0, 1], 6379);
const PAGE: &str = "a page of the real server";

fn connect(address: ([u8; 4], u16)) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from(address), ANSWER)
        .map_err(|error| format!("connect to port {}: {error}", address.1))?;
    stream.set_read_timeout(Some(ANSWER)).map_err(|error| error.to_string())?;
    Ok(stream)
}

/// The whole answer to one request.
fn get(address: ([u8; 4], u16)) -> Result<String, String> {
    let mut stream = connect(address)?;
    ask_for_the_page(&mut stream)?;
    rest_of(&mut stream)
}

fn ask_for_the_page(stream: &mut TcpStream) -> Result<(), String> {
    let request = b"GET /index.html HTTP/1.0\r\nHost: here\r\n\r\n";
    stream.write_all(request).map_err(|error| format!("send a request: {error}"))
}

fn rest_of(stream: &mut TcpStream) -> Result<String, String> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| format!("read the answer: {error}"))?;
    Ok(answer)
}

fn has_the_page(answer: &str) -> Result<(), String> {
    ensure(answer.contains(" 200 ") && answer.contains(PAGE), || format!("not the page: {answer:?}"))
}

pub(super) fn pid_of(unit: &UnitView) -> Result<Pid, String> {
    let pid = unit.pid.and_then(|pid| i32::try_from(pid).ok());
    pid.map(Pid::from_raw).ok_or_else(|| format!("{} has no pid", unit.name))
}

pub(super) fn signal(pid: Pid, signal: Signal) -> Result<(), String> {
    kill(pid, signal).map_err(|error| format!("{signal} to {pid}: {error}"))
}

/// Kills the unit's first process, and waits for the next run.
pub(super) fn kill_and_wait(guest: &Guest, unit: &str) -> Result<UnitView, String> {
    let before = guest.wait_state(unit, StateName::Running, UP)?;
    signal(pid_of(&before)?, Signal::SIGKILL)?;
    guest.wait(unit, UP, |snapshot| {
        let now = crate::supervisor::unit(snapshot, unit)?;
        (now.state == StateName::Running && now.run > before.run).then(|| now.clone())
    })
}

/// The user id of a process, from /proc.
fn user_of(pid: Pid) -> Result<u32, String> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let id = line.and_then(|ids| ids.split_whitespace().next()).and_then(|id| id.parse().ok());
    id.ok_or_else(|| format!("/proc/{pid}/status has no Uid"))
}

/// Runs a client; anything but exit code 0 is an error.
fn client(words: &[&str]) -> Result<String, String> {
    let (code, text) = run(words)?;
    expect(&format!("exit code of {words:?} ({text:?})"), &code, &0)?;
    Ok(text)
}

fn log_in(words: &str) -> Result<String, String> {
    client(&["/usr/bin/dbclient", "-y", "-y", "-p", "22", "root@127.0.0.1", words])
}

fn dropbear_lets_in_after_a_kill(guest: &mut Guest) -> Result<(), String> {
    guest.start("dropbear")?;
    let look = || connect(([127, 0, 0, 1], 22)).ok();
    let stream = guest.until("nobody listens at port 22", UP, look)?;
    let mut banner = String::new();
    BufReader::new(stream).read_line(&mut banner).map_err(|error| format!("no banner: {error}"))?;
    ensure(banner.starts_with("SSH-2.0-dropbear"), || format!("the banner is {banner:?}"))?;
    for _ in 0..2 {
        guest.until("no login", UP, || {
            log_in("echo in $((40 + 2))").ok().filter(|text| text.contains("in 42"))
        })?;
        kill_and_wait(guest, "dropbear")?;
    }
    guest.stop("dropbear")?;
    ensure(connect(([127, 0, 0, 1], 22)).is_err(), || "somebody listens at port 22 after the stop".into())
}

/// A reload makes nginx read its settings again, with new workers; no request in that time is refused or cut.
fn nginx_reloads_without_a_refusal(guest: &mut Guest) -> Result<(), String> {
    guest.start("nginx")?;
    let unit = guest.unit("nginx")?;
    guest.until("no page", UP, || get(NGINX).ok().filter(|answer| has_the_page(answer).is_ok()))?;
    let workers = || children_of(unit.pid.unwrap_or_default());
    let before = workers();
    let done = AtomicBool::new(false);
    let (answered, reloads) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answered = 0_u32;
            while !done.load(Ordering::Relaxed) {
                get(NGINX).and_then(|answer| has_the_page(&answer))?;
                answered += 1;
            }
            Ok::<u32, String>(answered)
        });
        let reloads = (0..3).try_for_each(|_| {
            let old = workers();
            client(&["/usr/bin/lifeboatctl", "reload", "nginx"])?;
            let renewed =
                || (!workers().is_empty() && workers().iter().all(|pid| !old.contains(pid))).then_some(());
            guest.until("the workers are the old ones", UP, renewed)
        });
        done.store(true, Ordering::Relaxed);
        let answered = asking.join().map_err(|_| "the client panicked".to_owned()).and_then(|result| result);
        (answered, reloads)
    });
    reloads?;
    guest.figure(&format!("nginx: {} requests answered during 3 reloads, 0 refused", answered?));
    ensure(before.iter().all(|pid| !workers().contains(pid)), || "a worker of the beginning is left".into())?;
    expect("the run after the reloads", &guest.unit("nginx")?.run, &unit.run)?;
    let worker = workers().first().copied().ok_or("no worker")?;
    expect("the workers' user", &user_of(worker)?, &33)
}

fn children_of(pid: u32) -> Vec<Pid> {
    let text = read(&format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).map(Pid::from_raw).collect()
}

/// A connection that waits with its request is answered although the stop has begun.
fn nginx_finishes_answers_at_a_stop(guest: &mut Guest) -> Result<(), String> {
    let outcome = guest.ask("Start", "nginx")?;
    ensure(matches!(outcome.as_str(), "Started" | "AlreadyStarted"), || format!("start nginx: {outcome}"))?;
    let mut stream = guest.until("no connection", UP, || connect(NGINX).ok())?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n").map_err(|error| error.to_string())?;
    let answer = std::thread::scope(|scope| {
        let stopping = scope.spawn(|| guest.stop("nginx"));
        guest.wait_state("nginx", StateName::Stopping, UP)?;
        stream.write_all(b"\r\n").map_err(|error| error.to_string())?;
        let answer = rest_of(&mut stream)?;
        stopping.join().map_err(|_| "the thread that stops panicked".to_owned())??;
        Ok::<String, String>(answer)
    })?;
    has_the_page(&answer)?;
    guest.wait_state("nginx", StateName::Stopped, UP).map(drop)
}

/// Asked while it is dead it answers all the same, a moment later: the port is lifeboat's.
fn lighttpd_handed(guest: &mut Guest) -> Result<(), String> {
    let unit = "lighttpd-handed";
    guest.start(unit)?;
    has_the_page(&get(HANDED)?)?;
    let runs = guest.unit(unit)?.run.0;
    for _ in 0..10 {
        let pid = pid_of(&guest.wait_state(unit, StateName::Running, UP)?)?;
        kill(pid, Signal::SIGKILL).map_err(|errno| format!("kill: {errno}"))?;
        // Nobody is there to accept now.
        guest.wait_state(unit, StateName::Backoff, UP)?;
        has_the_page(&get(HANDED)?)?;
    }
    let (code, text) = run(&["/usr/bin/lifeboatctl", "restart", unit])?;
    expect(&format!("exit code of restart ({text:?})"), &code, &0)?;
    has_the_page(&get(HANDED)?)?;
    let more = guest.unit(unit)?.run.0 - runs;
    guest.figure(&format!(
        "lighttpd: 10 kills and a restart, {more} new runs, 12 of 12 requests answered, 0 refused"
    ));
    ensure(more >= 11, || format!("only {more} new runs"))?;
    guest.stop(unit)?;
    ensure(get(HANDED).is_err(), || "somebody listens after the stop".into())
}

/// An ordinary user without a capability, whose system is read-only: the page comes all the same.
fn lighttpd_confined(guest: &mut Guest) -> Result<(), String> {
    guest.start("lighttpd")?;
    for _ in 0..2 {
        guest.until("no page", UP, || get(LIGHTTPD).ok().filter(|answer| has_the_page(answer).is_ok()))?;
        kill_and_wait(guest, "lighttpd")?;
    }
    let pid = pid_of(&guest.unit("lighttpd")?)?;
    expect("its user", &user_of(pid)?, &33)?;
    let status = read(&format!("/proc/{pid}/status"))?;
    for line in ["NoNewPrivs:\t1", "CapBnd:\t0000000000000000"] {
        ensure(status.contains(line), || format!("its status in /proc has no {line:?}"))?;
    }
    let mounts = read(&format!("/proc/{pid}/mounts"))?;
    ensure(mounts.lines().any(|line| line.contains(" /srv ") && line.contains(" ro")), || {
        format!("/srv is not read-only: {mounts}")
    })?;
    guest.stop("lighttpd")
}

fn retained() -> Result<String, String> {
    client(&["/usr/bin/mosquitto_sub", "-h", "127.0.0.1", "-t", "buoy/7", "-C", "1", "-W", "10"])
}

/// Only what the broker itself writes when it is stopped is on the disk: its autosave is half an hour away.
fn mosquitto_keeps_a_message(guest: &mut Guest) -> Result<(), String> {
    guest.start("mosquitto")?;
    let words =
        ["/usr/bin/mosquitto_pub", "-h", "127.0.0.1", "-t", "buoy/7", "-r", "-q", "1", "-m", "wave 2.5 m"];
    client(&words)?;
    expect("the message", &retained()?.trim(), &"wave 2.5 m")?;
    guest.stop("mosquitto")?;
    ensure(Path::new("/data/mosquitto/mosquitto.db").exists(), || "nothing was saved at the stop".into())?;
    guest.start("mosquitto")?;
    expect("the message after a stop and a start", &retained()?.trim(), &"wave 2.5 m")?;
    expect("its user", &user_of(pid_of(&guest.unit("mosquitto")?)?)?, &201)?;
    guest.stop("mosquitto")
}

fn redis(words: &[&str]) -> Result<String, String> {
    client(&[&["/usr/bin/redis-cli", "-h", "127.0.0.1"], words].concat())
}

/// It says by sd_notify when it has read its data, and writes a dump when it is asked to go.
fn redis_saves_at_a_stop(guest: &mut Guest) -> Result<(), String> {
    guest.start("redis")?;
    expect("PING", &redis(&["PING"])?.trim(), &"PONG")?;
    redis(&["SET", "depth", "11.5"])?;
    expect("its user", &user_of(pid_of(&guest.unit("redis")?)?)?, &202)?;
    guest.stop("redis")?;
    ensure(Path::new("/data/redis/dump.rdb").exists(), || "no dump was written at the stop".into())?;
    guest.start("redis")?;
    expect("the value after a stop and a start", &redis(&["GET", "depth"])?.trim(), &"11.5")
}

/// Written until memory is exhausted. Each value that redis has confirmed is in what the procedure put aside.
fn redis_exhausted_loses_nothing(guest: &mut Guest) -> Result<(), String> {
    let outcome = guest.ask("Start", "redis")?;
    ensure(matches!(outcome.as_str(), "Started" | "AlreadyStarted"), || format!("start redis: {outcome}"))?;
    let bystander = guest.bystander()?;
    let before = guest.last_incident()?;
    let confirmed = fill(REDIS)?;
    let incident = guest.wait_incident("redis", before, Duration::from_secs(60))?;
    guest.wait_state("redis", StateName::Stopped, UP)?;
    let saved = count_in("/data/redis/saved", b"\r\nfill:")?;
    guest.figure(&format!(
        "redis exhausted at 24 MiB: {confirmed} values of 16 KiB confirmed, {saved} put aside by its procedure; {:?}",
        incident.verdict
    ));
    ensure(confirmed > 100, || format!("only {confirmed} values before its memory was exhausted"))?;
    ensure(saved >= confirmed, || format!("{saved} of {confirmed} values were put aside"))?;
    bystander.is_unharmed(guest)
}

/// Sets one value after the other, until none is confirmed any more; how many were.
fn fill(address: ([u8; 4], u16)) -> Result<u64, String> {
    let mut stream = connect(address)?;
    let value = "v".repeat(16 * 1024);
    let mut confirmed = 0;
    let mut answer = [0; 5];
    loop {
        let key = format!("fill:{confirmed:06}");
        let command = format!("*3\r\n$3\r\nSET\r\n$11\r\n{key}\r\n$16384\r\n{value}\r\n");
        let answered = stream.write_all(command.as_bytes()).and_then(|()| stream.read_exact(&mut answer));
        if answered.is_err() || answer != *b"+OK\r\n" {
            return Ok(confirmed);
        }
        confirmed += 1;
    }
}

/// Its root on the disk, with a dynamic program, and a script for that. Gives the files that the script will need.
fn fill_the_jail() -> Result<Vec<String>, String> {
    let copy = |from: &str| -> Result<(), String> {
        let to = format!("/data/jail{from}");
        let folder = Path::new(&to).parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).map_err(|error| format!("{to}: {error}"))?;
        std::fs::copy(from, &to).map(|_| ()).map_err(|error| format!("{from} to {to}: {error}"))
    };
    copy("/bin/busybox")?;
    let (loader, program) = ("/lib64/ld-linux-x86-64.so.2", "/usr/bin/runsv");
    let libraries = client(&[loader, "--list", program])?;
    let mut files = vec!["/script".to_owned(), program.to_owned(), loader.to_owned()];
    files.extend(libraries.split_whitespace().filter(|it| it.starts_with("/usr/lib")).map(str::to_owned));
    ensure(files.len() > 3, || format!("too few libraries: {libraries}"))?;
    files.iter().skip(1).try_for_each(|file| copy(file))?;
    let script = "/data/jail/script";
    std::fs::write(script, "#!/usr/bin/runsv\n").map_err(|error| format!("{script}: {error}"))?;
    client(&["/bin/busybox", "chmod", "755", script])?;
    Ok(files)
}

fn is_locked(smaps: &str, file: &str) -> bool {
    let of_it = smaps.split_once(&format!("/data/jail{file}\n")).map(|(_, rest)| rest);
    let flags = of_it.and_then(|rest| rest.lines().find(|line| line.starts_with("VmFlags:")));
    flags.is_some_and(|flags| flags.contains(" lo"))
}

/// With the page cache dropped, the release of a procedure reads nothing from the disk.
fn libraries_are_locked(guest: &mut Guest) -> Result<(), String> {
    let (unit, group) = ("jailed", "/sys/fs/cgroup/shutdown/jailed");
    // A start of a task that is done would mount the disk once more.
    if guest.unit("data")?.state != StateName::Done {
        guest.start("data")?;
        guest.wait_state("data", StateName::Done, UP)?;
    }
    let files = fill_the_jail()?;
    let drop_cache = || {
        client(&["/bin/busybox", "sync"])?;
        std::fs::write("/proc/sys/vm/drop_caches", "3").map_err(|error| format!("drop_caches: {error}"))
    };
    // So its own cgroup is charged.
    drop_cache()?;
    guest.start(unit)?;
    let pid = read(&format!("{group}/cgroup.procs"))?;
    let smaps = read(&format!("/proc/{}/smaps", pid.trim()))?;
    for file in &files {
        ensure(is_locked(&smaps, file), || format!("{file} is not locked: {smaps}"))?;
    }
    drop_cache()?;
    let figure = |name: &str| -> Result<u64, String> {
        let stat = read(&format!("{group}/memory.stat"))?;
        let found = stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        found.ok_or_else(|| format!("no {name} in {stat}"))
    };
    let (faults, kept_bytes) = (figure("pgmajfault ")?, figure("file ")?);
    let before = guest.last_incident()?;
    std::fs::write("/data/jail/go", "").map_err(|error| format!("go: {error}"))?;
    let incident = guest.wait_incident(unit, before, Duration::from_secs(60))?;
    guest.figure(&format!(
        "a procedure of {} files, {} KiB of them charged to its cgroup; {} major faults in its run",
        files.len(),
        kept_bytes >> 10,
        figure("pgmajfault ")? - faults
    ));
    // What runsv says to a folder that is none: it has run.
    expect("its end", &incident.procedure, &ProcedureResult::Ended(Exit::Code(111)))?;
    expect("major faults", &figure("pgmajfault ")?, &faults)?;
    guest.wait_state(unit, StateName::Stopped, UP).map(|_| ())
}

/// How often these bytes stand in the files of a folder.
fn count_in(folder: &str, bytes: &[u8]) -> Result<u64, String> {
    let files = std::fs::read_dir(folder).map_err(|error| format!("{folder}: {error}"))?;
    let mut count = 0;
    for file in files.filter_map(Result::ok) {
        let content =
            std::fs::read(file.path()).map_err(|error| format!("{}: {error}", file.path().display()))?;
        count += content.windows(bytes.len()).filter(|window| *window == bytes).count() as u64;
    }
    Ok(count)
}

fn sqlite(words: &str) -> Result<String, String> {
    client(&["/usr/bin/sqlite3", "/data/keeper/rows.db", words])
}

/// The last row that the database has confirmed is in it, whole, after each of many kills.
fn sqlite_whole_after_kills(guest: &mut Guest) -> Result<(), String> {
    let unit = "database";
    guest.wait_state("data", StateName::Done, UP)?;
    sqlite("CREATE TABLE rows (id INTEGER PRIMARY KEY, word TEXT)")?;
    client(&["/bin/busybox", "chown", "keeper:keeper", "/data/keeper/rows.db"])?;
    guest.start(unit)?;
    let mut last = 0;
    for _ in 0..10 {
        let said =
            guest.until("no new row", UP, || last_row(unit).ok().flatten().filter(|row| *row > last))?;
        kill_and_wait(guest, unit)?;
        last = said;
    }
    guest.stop(unit)?;
    let said = last_row(unit)?.unwrap_or_default();
    expect("integrity check", &sqlite("PRAGMA integrity_check")?.trim(), &"ok")?;
    let kept: u64 = sqlite("SELECT count(*) FROM rows")?.trim().parse().map_err(|_| "no count".to_owned())?;
    guest.figure(&format!("sqlite: last row confirmed {said}, rows after 10 kills and a stop {kept}"));
    ensure(kept >= said, || format!("row {said} was confirmed, and only {kept} are there"))
}

/// The number in the last whole line that the unit has said.
fn last_row(unit: &str) -> Result<Option<u64>, String> {
    let text = client(&["/usr/bin/lifeboatctl", "tail", unit])?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    Ok(whole.lines().rev().find_map(|line| line.strip_prefix("row ")?.parse().ok()))
}

/// After their stops nothing of these programs runs, and none of the ends was a kill by a deadline.
fn leave_nothing(guest: &mut Guest) -> Result<(), String> {
    for unit in ["dropbear", "nginx", "lighttpd", "mosquitto", "redis", "database"] {
        guest.stop(unit)?;
        let path = format!("/sys/fs/cgroup/pool/{unit}/cgroup.procs");
        expect(&format!("processes in {path}"), &read(&path)?.as_str(), &"")?;
    }
    Ok(())
}

/// The host looks for these, and for a file system that was unmounted.
fn last_words_on_the_disk(_guest: &mut Guest) -> Result<(), String> {
    let path = "/data/last-words";
    std::fs::write(path, "the last words before the end of this guest\n")
        .map_err(|error| format!("{path}: {error}"))
}
