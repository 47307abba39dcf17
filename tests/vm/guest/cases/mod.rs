//! The table of all cases, and the loop that runs a group of them.
//!
//! Each case runs in a thread of its own: one that hangs is given up at its deadline, and the next one
//! runs.

mod adopt;
mod bad_input;
mod boot50;
mod cache;
mod canary;
mod changes;
mod commands;
mod confined;
mod control;
mod degraded;
mod delegate;
mod demand;
mod disk;
mod endings;
mod ends;
mod exhaustions;
mod graph;
mod growth;
mod guards;
mod held;
mod incidents;
mod latency;
mod left_behind;
mod life;
mod limits;
mod live;
mod logs;
mod loss;
mod output;
mod papers;
mod procedures;
mod readiness;
mod real;
mod rescue;
mod resident;
mod restart;
mod shield;
mod small;
mod sockets;
mod squeezed;
mod stopping;
mod units;
mod units1000;
mod warn;
mod why;

use super::guest::Guest;
use super::report;
use super::stamp::word;
use super::supervisor::Supervisor;
use std::io::Write;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// One case. `run` gives an error that says what was seen and what was expected.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// In kebab case, once in all groups.
    pub(crate) name: &'static str,
    /// A generous bound: software emulation on a busy host is slow.
    pub(crate) deadline_s: u64,
    /// The case itself.
    pub(crate) run: fn(&mut Guest) -> Result<(), String>,
}

/// How a driver that has run its group ends the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    PowerOff,
    /// The group's last case has asked for the end.
    Asked,
}

/// The groups: one boot of the machine each.
fn groups() -> Vec<(&'static str, End, Vec<Case>)> {
    vec![
        ("main", End::PowerOff, main_cases()),
        ("changes", End::PowerOff, changes::CASES.to_vec()),
        ("loss", End::PowerOff, loss::CASES.to_vec()),
        ("latency", End::PowerOff, latency::CASES.to_vec()),
        ("boot50", End::PowerOff, boot50::CASES.to_vec()),
        ("no-memory", End::PowerOff, degraded::NO_MEMORY.to_vec()),
        ("no-psi", End::PowerOff, degraded::NO_PSI.to_vec()),
        ("no-cgroup2", End::PowerOff, degraded::NO_CGROUP2.to_vec()),
        ("target", End::PowerOff, graph::TARGET.to_vec()),
        ("no-target", End::PowerOff, graph::NO_TARGET.to_vec()),
        ("squeezed", End::PowerOff, squeezed::CASES.to_vec()),
        ("small", End::PowerOff, small::CASES.to_vec()),
        ("disk", End::PowerOff, disk::CASES.to_vec()),
        ("incidents", End::PowerOff, incidents::FIRST.to_vec()),
        ("incidents-again", End::PowerOff, incidents::AGAIN.to_vec()),
        ("incidents-last", End::PowerOff, incidents::LAST.to_vec()),
        ("real", End::PowerOff, real_cases()),
        ("paper", End::PowerOff, papers::CASES.to_vec()),
        ("exhaustions", End::PowerOff, exhaustions::CASES.to_vec()),
        ("guards", End::PowerOff, guards::CASES.to_vec()),
        ("cache", End::PowerOff, cache::CASES.to_vec()),
        ("restart", End::PowerOff, restart::CASES.to_vec()),
        ("units1000", End::PowerOff, units1000::CASES.to_vec()),
        ("poweroff", End::Asked, ends::POWEROFF.to_vec()),
        ("reboot", End::Asked, ends::REBOOT.to_vec()),
        ("halt", End::Asked, ends::HALT.to_vec()),
        ("signal-int", End::Asked, ends::SIGNAL_INT.to_vec()),
        ("signal-37", End::Asked, ends::SIGNAL_37.to_vec()),
        ("signal-38", End::Asked, ends::SIGNAL_38.to_vec()),
        ("signal-39", End::Asked, ends::SIGNAL_39.to_vec()),
        ("ctl-halt", End::Asked, ends::CTL_HALT.to_vec()),
        ("telinit", End::Asked, ends::TELINIT.to_vec()),
        ("limit-poweroff", End::Asked, endings::LIMIT_POWER_OFF.to_vec()),
        ("then-reboot", End::Asked, endings::THEN_REBOOT.to_vec()),
        ("rescue", End::Asked, endings::RESCUE.to_vec()),
    ]
}

/// What looks back at the others comes last.
fn main_cases() -> Vec<Case> {
    [
        life::CASES,
        readiness::CASES,
        sockets::CASES,
        demand::CASES,
        left_behind::CASES,
        stopping::CASES,
        commands::CASES,
        shield::CASES,
        canary::CASES,
        rescue::CASES,
        adopt::CASES,
        incidents::NO_DISK,
        procedures::CASES,
        bad_input::CASES,
        resident::CASES,
        endings::CASES,
        units::CASES,
        graph::CASES,
        output::CASES,
        control::CASES,
        confined::CASES,
        limits::CASES,
        live::CASES,
        warn::CASES,
        held::CASES,
        delegate::CASES,
        why::CASES,
        growth::CASES,
    ]
    .concat()
}

/// The disk's last words are the last.
fn real_cases() -> Vec<Case> {
    [logs::CASES, real::CASES].concat()
}

/// Prints every group and its cases.
pub(crate) fn list() -> Result<(), String> {
    let text: String = groups()
        .iter()
        .flat_map(|(group, _, cases)| cases.iter().map(move |case| format!("{group} {}\n", case.name)))
        .collect();
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
}

/// Runs a group and ends the machine. `vm.cases=a,b` on the kernel's command line narrows it to some cases.
pub(crate) fn drive(group: Option<&str>) -> Result<(), String> {
    let name = group.map(str::to_owned).or_else(|| word("vm.group")).unwrap_or_else(|| "main".into());
    let found = groups().into_iter().find(|(group, _, _)| *group == name);
    let Some((_, end, mut cases)) = found else {
        report::line("plan 1");
        report::line("case group");
        report::line(&format!("not ok group: no group is named {name:?}"));
        report::line("done");
        return power_off();
    };
    if let Some(only) = word("vm.cases") {
        cases.retain(|case| only.split(',').any(|name| name == case.name));
    }
    report::line(&format!("plan {}", cases.len()));
    growth::note_first();
    // What PID 1 weighs is measured before anybody has asked it anything.
    let asks = !name.starts_with("boot50");
    for case in cases {
        run(case, asks);
    }
    report::line("done");
    report::drain();
    if end == End::PowerOff { power_off() } else { super::cast::pause() }
}

/// Runs a case in a thread of its own. Where it `asks` lifeboat, what a failed case leaves is stopped.
fn run(case: Case, asks: bool) {
    report::line(&format!("case {}", case.name));
    let began = Instant::now();
    let deadline = Duration::from_secs(case.deadline_s);
    let (sender, receiver) = mpsc::channel();
    let body = move || {
        let mut guest = Guest::new(began + deadline);
        let before = asks.then(|| guest.wished_up());
        let result = (case.run)(&mut guest);
        if let (Err(_), Some(before)) = (&result, &before) {
            guest.stop_what_is_left(before);
        }
        // Nobody listens where the case was given up.
        let _ = sender.send((result, guest.skipped().map(str::to_owned)));
    };
    if let Err(error) = thread::Builder::new().name(case.name.into()).spawn(body) {
        return report::line(&format!("not ok {}: no thread: {error}", case.name));
    }
    // The case's own waits end at its deadline and say what they waited for: they get a moment more.
    let verdict = match receiver.recv_timeout(deadline + Duration::from_secs(5)) {
        Ok((Err(error), _)) => format!("not ok {}: {error}", case.name),
        Ok((Ok(()), Some(reason))) => format!("skip {}: {reason}", case.name),
        Ok((Ok(()), None)) => format!("ok {} {}", case.name, began.elapsed().as_millis()),
        Err(_) => format!("not ok {}: hangs, given up after {} s", case.name, case.deadline_s),
    };
    report::line(&verdict);
}

/// By lifeboat where it answers; else as a person would under any other init.
fn power_off() -> Result<(), String> {
    if Supervisor::connect().and_then(|mut supervisor| supervisor.shut_down("PowerOff")).is_ok() {
        return Ok(());
    }
    let status = Command::new("/bin/busybox").arg("poweroff").status();
    status.map(drop).map_err(|error| format!("/bin/busybox poweroff: {error}"))
}

#[cfg(test)]
mod tests {
    use super::groups;
    use std::collections::HashSet;

    #[test]
    fn names_are_kebab_case_and_unique() {
        let mut seen = HashSet::new();
        for case in groups().into_iter().flat_map(|(_, _, cases)| cases) {
            assert!(seen.insert(case.name), "{} is there twice", case.name);
            assert!(case.name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-')), "{}", case.name);
            assert!((1..=1_800).contains(&case.deadline_s), "{}", case.name);
        }
    }
}
