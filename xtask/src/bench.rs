//! `cargo xtask bench`: boots the guests that measure, and prints their figures.

use crate::error::{Error, Result};
use crate::groups::Group;
use crate::image::{self, Image, TRIVIAL_SERVICES};
use crate::report::Report;
use crate::setup::{Kernel, Kit};
use crate::vm::{self, Count, Judged, Options};
use std::process::Command;

/// How often each side of a comparison boots.
const ROUNDS: usize = 5;

/// The names of the benchmarks, and the group that each of them boots.
const BENCHES: [(&str, &str); 9] = [
    ("loss", "loss"),
    ("latency", "latency"),
    ("idle", "boot50"),
    ("restart", "restart"),
    ("units1000", "units1000"),
    ("paper", "paper"),
    ("exhaustions", "exhaustions"),
    ("guards", "guards"),
    ("cache", "cache"),
];

/// They take long, or are a part of another one: only when they are named.
const ONLY_NAMED: [&str; 5] = ["idle", "paper", "exhaustions", "guards", "cache"];

/// Runs the named benchmark, or all of them; those that count rounds take `rounds` instead of their own number.
///
/// # Errors
/// When there is no such benchmark, an image cannot be made, or QEMU cannot be started.
pub fn run(kit: &Kit, kernel: Kernel, name: Option<&str>, rounds: Option<u32>) -> Result<Count> {
    if name == Some("shapes") {
        return shapes();
    }
    let known = |wanted: &str| wanted == "boot" || BENCHES.iter().any(|(bench, _)| *bench == wanted);
    if let Some(name) = name.filter(|name| !known(name)) {
        return Err(Error::new(format!("bench {name}: there is no such benchmark")).cure(
            "use one of loss, latency, boot, idle, restart, units1000, shapes, paper, exhaustions, guards, \
             cache",
        ));
    }
    let mut count = Count::default();
    // The comparison of boots includes what `idle` measures.
    let wanted = |bench: &str| name.map_or(!ONLY_NAMED.contains(&bench), |name| name == bench);
    let groups: Vec<String> =
        BENCHES.iter().filter(|(bench, _)| wanted(bench)).map(|(_, group)| (*group).to_owned()).collect();
    if !groups.is_empty() {
        count.add(vm::run(kit, &Options { rounds, ..Options::named(&[kernel], &groups)? })?);
    }
    if wanted("boot") {
        count.add(compare_boots(kit, kernel)?);
    }
    Ok(count)
}

/// Shapes of memory through the engine, on this machine: the test prints its table.
fn shapes() -> Result<Count> {
    let mut cargo = Command::new("cargo");
    let status = cargo.args(["test", "--quiet", "--test", "shapes", "--", "--nocapture"]).status();
    let passed = status.map_err(|error| Error::new(format!("cargo test: {error}")))?.success();
    Ok(Count { passed: usize::from(passed), failed: usize::from(!passed), ..Count::default() })
}

/// The same fifty services under lifeboat and under BusyBox init, by turns.
fn compare_boots(kit: &Kit, kernel: Kernel) -> Result<Count> {
    image::make(kit, &[Image::Boot50Lifeboat, Image::Boot50Busybox])?;
    let sides = [("lifeboat", "boot50"), ("BusyBox init", "boot50-busybox")];
    let mut count = Count::default();
    let mut times: [Vec<u64>; 2] = Default::default();
    let mut figures: [Vec<String>; 2] = Default::default();
    for round in 1..=ROUNDS {
        println!("bench: round {round} of {ROUNDS}");
        for (((_, group), times), figures) in sides.iter().zip(&mut times).zip(&mut figures) {
            let judged = boot(kit, kernel, group)?;
            count.add(judged.count());
            times.extend(start_time_us(&judged.report));
            figures.extend(judged.report.figures);
        }
    }
    println!("\nexec of /sbin/init to the last of {TRIVIAL_SERVICES} services, Linux {}:", kernel.version());
    for ((name, _), times) in sides.iter().zip(&times) {
        println!("  {name:12} {}", spread(times));
    }
    for ((name, _), figures) in sides.iter().zip(&figures) {
        figures.iter().for_each(|figure| println!("  {name:12} {figure}"));
    }
    Ok(count)
}

fn boot(kit: &Kit, kernel: Kernel, group: &str) -> Result<Judged> {
    let group = Group::find(group).ok_or_else(|| Error::new(format!("there is no group {group}")))?;
    vm::boot_group(kit, kernel, group, &Options::unasked(&[]))
}

/// From PID 1's exec to the last first start, in microseconds; `None` unless every service has started.
fn start_time_us(report: &Report) -> Option<u64> {
    let enough = u32::try_from(report.started_us.len()).is_ok_and(|count| count == TRIVIAL_SERVICES);
    let last = report.started_us.values().max().filter(|_| enough)?;
    last.checked_sub(report.exec_us?)
}

/// "min 240 ms, median 300 ms, max 440 ms (5 boots)".
fn spread(times_us: &[u64]) -> String {
    let mut sorted = times_us.to_vec();
    sorted.sort_unstable();
    match (sorted.first(), sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(least), Some(median), Some(most)) => format!(
            "min {} ms, median {} ms, max {} ms ({} boots)",
            least / 1000,
            median / 1000,
            most / 1000,
            sorted.len()
        ),
        _ => "no boot in which every service started".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{TRIVIAL_SERVICES, spread, start_time_us};
    use crate::report::{Report, parse};

    #[test]
    fn spreads() {
        let cases: [(&[u64], &str); 3] = [
            (&[], "no boot in which every service started"),
            (&[3000], "min 3 ms, median 3 ms, max 3 ms (1 boots)"),
            (&[9000, 1000, 5999], "min 1 ms, median 5 ms, max 9 ms (3 boots)"),
        ];
        for (times, expected) in cases {
            assert_eq!(spread(times), expected);
        }
    }

    #[test]
    fn a_boot_counts_when_every_service_started() {
        for (services, expected) in [(TRIVIAL_SERVICES, Some(40)), (TRIVIAL_SERVICES - 1, None)] {
            let mut report = Report::default();
            report.feed(parse("stamp exec 10"));
            (1..=services).for_each(|number| report.feed(parse(&format!("stamp started {number} {number}"))));
            assert_eq!(start_time_us(&report), expected, "{services}");
        }
    }
}
