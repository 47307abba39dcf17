//! Five programs as a shutdown procedure under exhaustion and as ordinary programs, by turns in one run.

use super::Case;
use crate::group::Group;
use crate::guest::{Guest, ensure, run};
use crate::paper::{LINES, SERVER, stamp_path};
use crate::ring::boottime_us;
use crate::shapes::{PAPERS, paper_program};
use crate::stamp::word;
use lifeboat::engine::event::{Exit, Time};
use lifeboat::engine::snapshot::{Incident, ProcedureResult, StateName};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[Case { name: "papers", deadline_s: 1_700, run: papers }];

const ROUNDS: u32 = 120;
const PATIENCE: Duration = Duration::from_secs(60);

/// Two times of one run in microseconds: from the first instruction to the end, and from the go to the end.
#[derive(Clone, Copy)]
struct Took {
    instruction_us: u64,
    go_us: u64,
}

#[derive(Default)]
struct Runs {
    procedure: Vec<Took>,
    ordinary: Vec<Took>,
}

fn papers(guest: &mut Guest) -> Result<(), String> {
    let rounds = word("vm.rounds").and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    prepare()?;
    let mut all: Vec<Runs> = PAPERS.iter().map(|_| Runs::default()).collect();
    for _ in 0..rounds {
        for (program, runs) in PAPERS.iter().zip(&mut all) {
            runs.procedure.push(as_procedure(guest, program)?);
            runs.ordinary.push(as_ordinary(program)?);
        }
    }
    for (what, take) in [
        ("first instruction to exit", (|took| took.instruction_us) as fn(&Took) -> u64),
        ("go to exit, execve included", |took| took.go_us),
    ] {
        guest.figure(&format!(
            "papers, {what} (ms, {rounds} runs of each): program | procedure under exhaustion: mean, sd, median | \
             ordinary: mean, sd, median | ratio of means, of medians"
        ));
        for (program, runs) in PAPERS.iter().zip(&all) {
            let figures = |runs: &[Took]| Spread::of(runs.iter().map(take).collect());
            guest.figure(&row(program, &figures(&runs.procedure), &figures(&runs.ordinary)));
        }
    }
    Ok(())
}

/// The file to copy, the server to ask, and the files of the stamps.
fn prepare() -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("papers: {error}");
    std::fs::create_dir_all("/run/paper").map_err(wrong)?;
    let line = "A line of the file that is to be copied, line by line, as it has always been done\n";
    std::fs::write(LINES, line.repeat((1 << 20) / line.len())).map_err(wrong)?;
    for program in PAPERS {
        for kind in ["procedure", "ordinary"] {
            std::fs::write(stamp_path(&format!("/run/paper/{program}.{kind}")), [0; 8]).map_err(wrong)?;
        }
    }
    let (code, text) = run(&["/bin/busybox", "ifconfig", "lo", "127.0.0.1", "up"])?;
    ensure(code == 0, || format!("ifconfig: {code} {text}"))?;
    let listener = TcpListener::bind(SERVER).map_err(wrong)?;
    thread::Builder::new().name("server".into()).spawn(move || serve(&listener)).map_err(wrong).map(drop)
}

/// Answers each request with a small page. A client that goes away is no matter.
fn serve(listener: &TcpListener) {
    let page = "noted\n".repeat(100);
    let answer = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{page}", page.len());
    for mut stream in listener.incoming().flatten() {
        let mut request = [0; 512];
        let _ = stream.read(&mut request).and_then(|_| stream.write_all(answer.as_bytes()));
    }
}

fn first_instruction(out: &str, after_us: u64) -> Result<u64, String> {
    let path = stamp_path(out);
    let bytes = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
    let began_us = bytes.try_into().map(u64::from_ne_bytes).map_err(|_| format!("{path}: no stamp"))?;
    ensure(began_us >= after_us, || format!("{path}: {began_us} is before {after_us}"))?;
    Ok(began_us)
}

fn as_procedure(guest: &Guest, program: &str) -> Result<Took, String> {
    let unit = format!("paper-{program}");
    let before = guest.last_incident()?;
    guest.start(&unit)?;
    let mut group = Group::of(&unit)?;
    group.until(guest, PATIENCE, Group::is_populated)?;
    group.until(guest, PATIENCE, |group| Ok(!group.is_populated()?))?;
    let incident: Incident = guest.wait_incident(&unit, before, PATIENCE)?;
    guest.wait_state(&unit, StateName::Stopped, PATIENCE)?;
    ensure(incident.procedure == ProcedureResult::Ended(Exit::Code(0)), || {
        format!("{unit}: {:?}", incident.procedure)
    })?;
    let time = |time: Option<Time>| time.map(|time| time.0).ok_or_else(|| format!("no time: {incident:?}"));
    let (released, ended) = (time(incident.released)?, time(incident.procedure_ended)?);
    let began = first_instruction(&format!("/run/paper/{program}.procedure"), incident.began.0)?;
    Ok(Took { instruction_us: ended.saturating_sub(began), go_us: ended.saturating_sub(released) })
}

fn as_ordinary(program: &str) -> Result<Took, String> {
    let out = format!("/run/paper/{program}.ordinary");
    let words = [paper_program(program), &[program, &out]].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null());
    let asked_us = boottime_us();
    let status = command.status().map_err(|error| format!("paper {program}: {error}"))?;
    let ended_us = boottime_us();
    ensure(status.success(), || format!("paper {program}: {status}"))?;
    let began_us = first_instruction(&out, asked_us)?;
    Ok(Took { instruction_us: ended_us.saturating_sub(began_us), go_us: ended_us.saturating_sub(asked_us) })
}

/// In milliseconds.
struct Spread {
    mean: f64,
    deviation: f64,
    median: f64,
}

impl Spread {
    fn of(us: Vec<u64>) -> Self {
        let mut ms: Vec<f64> = us.into_iter().map(super::life::ms).collect();
        ms.sort_by(f64::total_cmp);
        let count = f64::from(u32::try_from(ms.len()).unwrap_or(u32::MAX)).max(1.0);
        let mean = ms.iter().sum::<f64>() / count;
        let squares: f64 = ms.iter().map(|one| (one - mean).powi(2)).sum();
        let middle = |at: usize| ms.get(at).copied().unwrap_or_default();
        let median = f64::midpoint(middle(ms.len() / 2), middle(ms.len().saturating_sub(1) / 2));
        Self { mean, deviation: (squares / (count - 1.0).max(1.0)).sqrt(), median }
    }
}

fn row(program: &str, procedure: &Spread, ordinary: &Spread) -> String {
    format!(
        "papers  {program:<7}| {:8.2} {:8.2} {:8.2} | {:8.2} {:8.2} {:8.2} | {:6.2} {:6.2}",
        procedure.mean,
        procedure.deviation,
        procedure.median,
        ordinary.mean,
        ordinary.deviation,
        ordinary.median,
        procedure.mean / ordinary.mean,
        procedure.median / ordinary.median
    )
}
