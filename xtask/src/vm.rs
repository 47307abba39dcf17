//! Boots groups of cases and judges them: `cargo xtask vm`, `cargo xtask bench`, and `tests/vm.rs`.

use crate::disk::Disk;
use crate::error::{AtPath, Error, Result};
use crate::groups::{GROUPS, Group};
use crate::image::{self, Image, TRIVIAL_SERVICES};
use crate::place;
use crate::qemu::{Boot, Machine, Patience, Source};
use crate::report::{self, Case, Line, Outcome, Report};
use crate::setup::{Kernel, Kit};
use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A guest that dies before PID 1's first line is booted this many times at most.
pub(crate) const TRIES: u32 = 3;
/// A kernel under software emulation is up in 3 to 6 s; a loaded host may take ten times as long.
const UNTIL_UP: Duration = Duration::from_secs(90);
/// How much of a failed guest's console is shown.
const CONSOLE_LINES: usize = 200;

/// How many cases ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Cases that were left out.
    pub skipped: usize,
}

impl Count {
    /// Adds another count to this one.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Adds one case.
    pub fn add_case(&mut self, case: &Case) {
        match case.outcome {
            Outcome::Passed(_) => self.passed += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Skipped(_) => self.skipped += 1,
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 { write!(f, ", {} skipped", self.skipped) } else { Ok(()) }
    }
}

/// What to boot and what to show of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Each boot: a kernel and a group.
    pub boots: Vec<(Kernel, &'static Group)>,
    /// Show each console live.
    pub console: bool,
    /// Write the console of every boot, not only of a failed one, to a file below `target/vm/logs`.
    pub keep: bool,
    /// How many guests run at the same time.
    pub jobs: usize,
    /// Only these cases of each group; all when it is empty.
    pub cases: Vec<String>,
    /// How often a benchmark repeats each measurement, where that is not left to it.
    pub rounds: Option<u32>,
}

impl Options {
    /// All that runs unasked on these kernels, one guest at a time.
    #[must_use]
    pub fn unasked(kernels: &[Kernel]) -> Self {
        let boots = kernels
            .iter()
            .flat_map(|kernel| GROUPS.iter().map(move |group| (*kernel, group)))
            .filter(|(kernel, group)| group.runs_on(*kernel))
            .collect();
        Self { boots, console: false, keep: false, jobs: 1, cases: Vec::new(), rounds: None }
    }

    /// The groups of these names on these kernels, whether or not they run unasked.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn named(kernels: &[Kernel], names: &[String]) -> Result<Self> {
        let mut boots: Vec<(Kernel, &'static Group)> = Vec::new();
        for name in names {
            let mut group = Group::find(name).ok_or_else(|| {
                let all: Vec<_> = GROUPS.iter().map(|group| group.name).collect();
                Error::new(format!("--group {name}: there is no such group"))
                    .cure(format!("use one of {}", all.join(", ")))
            })?;
            // One that needs the disk of another comes with that one.
            while let Some(first) = GROUPS.iter().find(|first| first.then == Some(group.name)) {
                group = first;
            }
            if boots.iter().any(|(_, known)| known.name == group.name) {
                continue;
            }
            boots.extend(kernels.iter().map(|kernel| (*kernel, group)));
        }
        Ok(Self { boots, console: false, keep: false, jobs: 1, cases: Vec::new(), rounds: None })
    }

    /// The images that these boots need.
    fn images(&self) -> Vec<Image> {
        let mut images: Vec<Image> = Vec::new();
        for (_, group) in &self.boots {
            if !images.contains(&group.image) {
                images.push(group.image);
            }
        }
        images
    }
}

/// One group's boot, judged.
#[derive(Debug, Default, Clone)]
pub struct Judged {
    /// "6.12 main".
    pub title: String,
    /// The cases, the faults of the report as a whole among them.
    pub cases: Vec<Case>,
    /// What the guest reported.
    pub report: Report,
    /// How many guests died before PID 1's first line.
    pub rig_faults: u32,
}

impl Judged {
    /// How the cases ended.
    #[must_use]
    pub fn count(&self) -> Count {
        let mut count = Count::default();
        self.cases.iter().for_each(|case| count.add_case(case));
        count
    }
}

/// Makes the images, boots every group, prints each case as it ends, and closes with the failed ones.
///
/// # Errors
/// When an image cannot be made or QEMU cannot be started; a failed case is in the count.
pub fn run(kit: &Kit, options: &Options) -> Result<Count> {
    image::make(kit, &options.images())?;
    let next = AtomicUsize::new(0);
    let judged = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some((kernel, group)) = options.boots.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = boot_group(kit, *kernel, group, options);
                    if let Ok(mut all) = judged.lock() {
                        all.push(result);
                    }
                }
            });
        }
    });
    let judged = judged.into_inner().map_err(|_| Error::new("a thread that runs a guest panicked"))?;
    let judged = judged.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(conclude(&judged))
}

/// Prints what is worth repeating at the end, and adds up.
fn conclude(judged: &[Judged]) -> Count {
    let mut count = Count::default();
    let rig_faults: u32 = judged.iter().map(|one| one.rig_faults).sum();
    if rig_faults > 0 {
        println!(
            "vm: {rig_faults} guests ended before PID 1's first line, which is a fault of the rig or of PID 1"
        );
    }
    for one in judged {
        count.add(one.count());
        for case in &one.cases {
            if let Outcome::Failed(reason) = &case.outcome {
                println!("failed: {}/{}: {reason}", one.title, case.name);
            }
        }
    }
    count
}

/// Boots one group, again if the rig failed, then those that follow it with the same disk, and judges them. Every
/// case is printed as it ends.
///
/// # Errors
/// When QEMU cannot be started, or a log cannot be written.
pub fn boot_group(kit: &Kit, kernel: Kernel, group: &Group, options: &Options) -> Result<Judged> {
    let (mut judged, mut disk) = boot_with(kit, (kernel, group), options, None)?;
    let mut next = group.then.and_then(Group::find);
    while let Some(group) = next.filter(|_| judged.count().failed == 0) {
        let (more, used) = boot_with(kit, (kernel, group), options, disk)?;
        judged.cases.extend(more.cases);
        judged.rig_faults += more.rig_faults;
        (disk, next) = (used, group.then.and_then(Group::find));
    }
    Ok(judged)
}

/// Boots one group with this disk, or with an empty one of its own where it gets one. Gives the disk back.
fn boot_with(
    kit: &Kit,
    (kernel, group): (Kernel, &Group),
    options: &Options,
    used: Option<Disk>,
) -> Result<(Judged, Option<Disk>)> {
    let title = format!("{} {}", kernel.version(), group.name);
    let mut judged = Judged { title: title.clone(), ..Judged::default() };
    let mut own = None;
    for attempt in 1..=TRIES {
        println!("{title}: booting (deadline {} s)", group.deadline_s);
        let mut watch = Watch::new(&title, options.console);
        let disk_name = format!("{}-{}", kernel.version(), group.name);
        if used.is_none() {
            own = group.disk_mib.map(|mib| Disk::empty(&disk_name, mib)).transpose()?;
        }
        let disk = used.as_ref().or(own.as_ref());
        let boot = watch.boot(kit, (kernel, group), options, disk.map(Disk::path))?;
        judged.cases.clear();
        if boot.came_up {
            judged.cases = judge(group, &boot, &watch);
            judged.cases.extend(disk.map(|disk| disk.judge()));
            judged.report = watch.report.clone();
        } else {
            judged.rig_faults += 1;
            println!(
                "{title}: a fault of the rig (boot {attempt} of {TRIES}): {} before PID 1's first line",
                boot.end
            );
            judged.cases = vec![Case::failed("boot", format!("PID 1 never spoke in {TRIES} boots"))];
        }
        // The cases of the report were printed as they came.
        let hosts = judged.cases.iter().skip(judged.report.cases.len());
        hosts.filter(|_| boot.came_up || attempt == TRIES).for_each(|case| print_case(&title, case));
        let failed = judged.count().failed > 0;
        if failed && !options.console {
            watch.show_console();
        }
        if failed || options.keep {
            watch.write_log()?;
        }
        if boot.came_up {
            println!("{title}: {}, {} after {:.1} s", judged.count(), boot.end, boot.took.as_secs_f64());
            break;
        }
    }
    Ok((judged, used.or(own)))
}

/// The reported cases, then whatever the host itself holds against the guest.
fn judge(group: &Group, boot: &Boot, watch: &Watch) -> Vec<Case> {
    let took_ms = u64::try_from(boot.took.as_millis()).unwrap_or(u64::MAX);
    let check = |name: &str, held: bool, reason: String| {
        let outcome = if held { Outcome::Passed(took_ms) } else { Outcome::Failed(reason) };
        Case { name: name.to_owned(), outcome }
    };
    let mut cases = watch.report.cases.clone();
    cases.extend(watch.report.faults(&boot.end.to_string()));
    let mut rest = watch.whole.iter();
    for text in group.shows {
        let from_here = rest.clone();
        let shown = rest.any(|line| line.contains(text));
        let reason = "the console does not show it, or not in this order".to_owned();
        cases.push(check(&format!("shows {text:?}"), shown, reason));
        if !shown {
            rest = from_here;
        }
    }
    if group.counts_starts() {
        let started = watch.report.started_us.len();
        let held = u32::try_from(started).is_ok_and(|started| started == TRIVIAL_SERVICES);
        cases.push(check("every-service-started", held, format!("{started} of {TRIVIAL_SERVICES} did")));
    }
    let name = format!("ends: {}", group.end);
    cases.push(check(&name, boot.end == group.end, format!("the guest was {}", boot.end)));
    cases
}

fn print_case(title: &str, case: &Case) {
    match &case.outcome {
        Outcome::Passed(milliseconds) => println!("{title}: ok {} ({milliseconds} ms)", case.name),
        Outcome::Failed(reason) => println!("{title}: FAILED {}: {reason}", case.name),
        Outcome::Skipped(reason) => println!("{title}: skipped {}: {reason}", case.name),
    }
}

/// What the host sees of one guest.
struct Watch {
    title: String,
    live: bool,
    report: Report,
    whole: VecDeque<String>,
}

impl Watch {
    fn new(title: &str, live: bool) -> Self {
        Self { title: title.to_owned(), live, report: Report::default(), whole: VecDeque::new() }
    }

    fn boot(
        &mut self,
        kit: &Kit,
        (kernel, group): (Kernel, &Group),
        options: &Options,
        disk: Option<&Path>,
    ) -> Result<Boot> {
        let mut words = vec![format!("vm.group={}", group.name), group.cmdline.to_owned()];
        words.extend((!options.cases.is_empty()).then(|| format!("vm.cases={}", options.cases.join(","))));
        words.extend(options.rounds.map(|rounds| format!("vm.rounds={rounds}")));
        let machine = Machine {
            qemu: &kit.qemu,
            kernel: kit.kernel(kernel),
            initramfs: group.image.path(),
            cmdline: words.join(" "),
            ram_mib: group.ram_mib,
            threads: group.threads,
            disk: disk.map(Path::to_path_buf),
        };
        let until_end = Duration::from_secs(group.deadline_s);
        let patience = Patience { marker: group.marker, until_marker: UNTIL_UP, until_end };
        machine.boot(&patience, |source, line| self.see(source, line))
    }

    fn see(&mut self, source: Source, line: &str) {
        // QEMU's own complaints come out beside the report.
        if source == Source::Report && !line.starts_with("qemu-system") {
            let line = report::parse(line);
            match &line {
                Line::Ended(case) => print_case(&self.title, case),
                Line::Figure(text) => println!("{}: {text}", self.title),
                _ => {}
            }
            self.report.feed(line);
            return;
        }
        if self.live {
            println!("{}| {line}", self.title);
        }
        self.whole.push_back(line.to_owned());
    }

    fn show_console(&self) {
        let left_out = self.whole.len().saturating_sub(CONSOLE_LINES);
        println!("{}: the last lines of the console ({left_out} earlier ones left out)", self.title);
        self.whole.iter().skip(left_out).for_each(|line| println!("{}| {line}", self.title));
    }

    fn write_log(&self) -> Result<()> {
        let folder = place::vm_folder()?.join("logs");
        std::fs::create_dir_all(&folder).at("make the folder", &folder)?;
        let file = folder.join(format!("{}.console", self.title.replace(' ', "-")));
        let mut text = self.whole.iter().cloned().collect::<Vec<_>>().join("\n");
        text.push('\n');
        std::fs::write(&file, text).at("write", &file)?;
        println!("{}: the console is in {}", self.title, file.display());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Boot, Count, Group, Watch, judge};
    use crate::qemu::{End, Source};
    use std::time::Duration;

    /// The count of a guest of this group that said these lines (report lines begin with '>') and ended so.
    fn count(group: &str, lines: &[&str], end: End) -> Option<String> {
        let mut watch = Watch::new("test", false);
        for line in lines {
            match line.strip_prefix('>') {
                Some(line) => watch.see(Source::Report, line),
                None => watch.see(Source::Console, line),
            }
        }
        let boot = Boot { end, came_up: true, took: Duration::ZERO };
        let mut count = Count::default();
        judge(Group::find(group)?, &boot, &watch).iter().for_each(|case| count.add_case(case));
        Some(count.to_string())
    }

    #[test]
    fn a_guest_is_judged_by_its_report_and_its_end() {
        let whole: &[&str] = &["lifeboat 0.1.0", ">plan 2", ">ok a 1", ">skip b: no", ">done"];
        let halt: &[&str] = &[
            "going down: halt",
            "ignores-term: killing what is left",
            "reboot: System halted",
            ">plan 0",
            ">done",
        ];
        let wrong_order: &[&str] = &[
            "ignores-term: killing what is left",
            "going down: halt",
            "reboot: System halted",
            ">plan 0",
            ">done",
        ];
        let cases: [(&str, &[&str], End, &str); 10] = [
            ("main", whole, End::PoweredOff, "2 passed, 0 failed, 1 skipped"),
            ("main", whole, End::Deadline, "1 passed, 1 failed, 1 skipped"),
            ("main", &["lifeboat 0.1.0"], End::Panicked, "0 passed, 3 failed"),
            ("main", &[">qemu-system-x86_64: x", ">plan 0", ">done"], End::PoweredOff, "1 passed, 0 failed"),
            ("main", &[">plan 1", ">not ok a: x", ">done"], End::PoweredOff, "1 passed, 1 failed"),
            ("halt", halt, End::Halted, "4 passed, 0 failed"),
            ("halt", halt, End::PoweredOff, "3 passed, 1 failed"),
            ("halt", &[">plan 0", ">done"], End::Halted, "1 passed, 3 failed"),
            ("halt", wrong_order, End::Halted, "3 passed, 1 failed"),
            ("boot50", &[">stamp started 1 5", ">plan 0", ">done"], End::PoweredOff, "1 passed, 1 failed"),
        ];
        for (group, lines, end, expected) in cases {
            assert_eq!(count(group, lines, end).as_deref(), Some(expected), "{group} {lines:?} {end}");
        }
    }
}
