//! Shapes of memory over time, run through the engine: when a service is warned, when it is judged to be exhausted, and
//! what was a false alarm. `cargo test --test shapes -- --nocapture` prints the table.
//!
//! The world of this test is one cgroup with a limit of 32 MiB, in steps of a millisecond. `memory.high` and
//! `memory.max` ring as the kernel's do. Some shapes are curves, the others were recorded of real programs; these are
//! scaled, so that their peak is three quarters of the limit, 97 % of it, or four thirds.

#![expect(clippy::cast_possible_truncation, reason = "minutes and MiB are small numbers")]

#[path = "support/script/mod.rs"]
#[expect(dead_code, reason = "only the units of scripts are used here")]
mod script;

use lifeboat::engine::action::Action;
use lifeboat::engine::event::{Event, MemoryEvents, MemorySample, Role, Time};
use lifeboat::engine::policy::{RunId, UnitId, WarnWhen};
use lifeboat::engine::record::Record;
use lifeboat::engine::snapshot::Verdict;
use lifeboat::engine::{Engine, Plan};
use std::f64::consts::TAU;

const LIMIT_KIB: f64 = 32.0 * 1024.0;
const MIB: f64 = 1024.0;
const A: UnitId = UnitId(0);
const RUN: RunId = RunId(1);

const UNIT: &str = r#"(
    about: "",
    units: [(name: "a", memory_mib: 32, procedure: (), warn: [
        (when: Share(8000), deed: Log, every_ms: 10000),
        (when: WithinMs(10000), deed: Log, every_ms: 10000),
    ])],
    steps: [],
    ends: [],
)"#;

/// What a shape is expected to do, and what it may not.
struct Shape {
    name: String,
    /// Unreclaimable KiB after so many seconds.
    used: Box<dyn Fn(f64) -> f64>,
    /// Page cache in KiB, as far as there is room for it.
    cache_kib: f64,
    seconds: f64,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Meets,
    /// It never meets the limit. So many warnings by time are false alarms all the same: what grows for the first time
    /// may go on. A verdict would be one too.
    Stays(u32),
    /// The same, and it comes so near and so fast that it is taken for an exhaustion: a false alarm too.
    Comes(u32),
}
use End::{Comes, Meets, Stays};

/// What the engine has said.
#[derive(Default)]
struct Seen {
    verdict: Option<(f64, Verdict)>,
    at_share: Option<f64>,
    within: Option<f64>,
    within_count: u32,
    readings: u32,
    met_limit: Option<f64>,
}

struct World {
    engine: Engine,
    plan: Plan,
    events: MemoryEvents,
    ring_kib: Option<f64>,
    hears: bool,
    sample_due: bool,
    seen: Seen,
}

impl World {
    fn new() -> Self {
        let script = script::parse(UNIT).expect("the unit");
        let mut engine = Engine::new(script::policies(&script), 8 << 20);
        let mut plan = Plan::for_units(1);
        for event in [
            Event::Boot,
            Event::Parked { unit: A, run: RUN, pid: 2 },
            Event::Spawned { unit: A, run: RUN, pid: 3 },
        ] {
            engine.handle(Time(0), event, &mut plan);
        }
        let events = MemoryEvents::default();
        let seen = Seen::default();
        let mut world = Self { engine, plan, events, ring_kib: None, hears: true, sample_due: false, seen };
        world.perform(0.0);
        world
    }

    fn tell(&mut self, at_s: f64, event: Event) {
        self.engine.handle(Time((at_s * 1e6).round() as u64), event, &mut self.plan);
        self.perform(at_s);
    }

    fn tell_counters(&mut self, at_s: f64) {
        let counters = self.events;
        self.tell(at_s, Event::MemoryEvents { unit: A, run: RUN, role: Role::Service, counters });
    }

    fn perform(&mut self, at_s: f64) {
        while let Some(action) = self.plan.take() {
            match action {
                Action::Ring { high_bytes, .. } => {
                    self.ring_kib = high_bytes.map(|bytes| bytes as f64 / 1024.0);
                }
                Action::Doorbells { on, .. } => self.hears = on,
                Action::Sample { .. } => self.sample_due = true,
                Action::Log(Record::Warned { stage, .. }) => match stage.when {
                    WarnWhen::WithinMs(_) => {
                        self.seen.within.get_or_insert(at_s);
                        self.seen.within_count += 1;
                    }
                    WarnWhen::Share(_) | WarnWhen::Pressure(_) => {
                        self.seen.at_share.get_or_insert(at_s);
                    }
                },
                Action::Log(Record::Exhausted { verdict, .. }) => self.seen.verdict = Some((at_s, verdict)),
                _ => {}
            }
        }
    }

    /// One millisecond.
    fn step(&mut self, at_s: f64, used: f64, cache_kib: f64) {
        let current = (used + cache_kib).min(LIMIT_KIB);
        let now = Time((at_s * 1e6).round() as u64);
        while self.engine.next_deadline().is_some_and(|due| due <= now) {
            self.tell(at_s, Event::Deadline);
        }
        if std::mem::take(&mut self.sample_due) {
            self.seen.readings += 1;
            let bytes = |kib: f64| (kib * 1024.0) as u64;
            let sample = MemorySample {
                current_bytes: bytes(current),
                unreclaimable_bytes: bytes(used.min(LIMIT_KIB)),
                ..MemorySample::default()
            };
            self.tell(at_s, Event::MemorySampled { unit: A, run: RUN, sample });
        }
        if self.ring_kib.is_some_and(|ring| current >= ring) && self.hears {
            self.events.high += 1;
            self.tell_counters(at_s);
        }
        if current >= LIMIT_KIB && self.hears {
            self.events.max += 1;
            self.tell_counters(at_s);
        }
        if used >= LIMIT_KIB {
            self.seen.met_limit.get_or_insert(at_s);
            self.events.oom += 1;
            self.tell_counters(at_s);
        }
    }
}

fn saw_tooth(at_s: f64, period_s: f64, low: f64, high: f64) -> f64 {
    low + (high - low) * (at_s / period_s).fract()
}

/// What was recorded of real programs: the name, KiB every 50 ms, and what is expected where its peak is three quarters
/// of the limit, and where it is 97 %.
const RECORDED: [(&str, &str, [End; 2]); 6] = [
    ("node", include_str!("fixtures/shapes/node.trace"), [Stays(1), Stays(1)]),
    ("java", include_str!("fixtures/shapes/java.trace"), [Stays(0), Stays(2)]),
    ("python", include_str!("fixtures/shapes/python.trace"), [Stays(1), Stays(1)]),
    ("sqlite", include_str!("fixtures/shapes/sqlite.trace"), [Stays(0), Comes(1)]),
    ("compiler", include_str!("fixtures/shapes/compiler.trace"), [Stays(1), Stays(2)]),
    ("redis", include_str!("fixtures/shapes/redis.trace"), [Stays(1), Stays(1)]),
];

/// A recorded program whose peak is so many times the limit.
fn recorded(name: &str, text: &str, peak: f64, end: End) -> Shape {
    let numbers = text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| line.split(' '));
    let kib: Vec<f64> = numbers.map(|number| number.parse().expect("a number")).collect();
    let highest = kib.iter().copied().fold(0.0, f64::max);
    let seconds = (kib.len() - 1) as f64 / 20.0;
    let used = move |at_s: f64| {
        let (place, part) = ((at_s * 20.0) as usize, (at_s * 20.0).fract());
        let of = |place: usize| kib[place.min(kib.len() - 1)];
        (of(place) + (of(place + 1) - of(place)) * part) / highest * peak * LIMIT_KIB
    };
    let name = format!("{name}, recorded, peak {:.0} %", peak * 100.0);
    Shape { name, used: Box::new(used), cache_kib: 0.0, seconds, end }
}

/// Runs a shape; gives its line of the table, and what is wrong.
fn run(shape: &Shape) -> (String, Option<String>) {
    let mut world = World::new();
    let steps = (shape.seconds * 1e3) as u64;
    for ms in 1..=steps {
        let at_s = ms as f64 / 1e3;
        let used = (shape.used)(at_s).min(LIMIT_KIB);
        world.step(at_s, used, shape.cache_kib);
        if world.seen.verdict.is_some() {
            break;
        }
    }
    let seen = world.seen;
    // Where it would have met the limit, had nobody done anything.
    let meets = || (1..=steps + 1_000).map(|ms| ms as f64 / 1e3).find(|at| (shape.used)(*at) >= LIMIT_KIB);
    let limit = (shape.end == Meets).then(meets).flatten();
    let lead = |at: Option<f64>| match (at, limit) {
        (Some(at), Some(limit)) => format!("{:.0}", (limit - at) * 1e3),
        (Some(_), None) => "early".into(),
        (None, _) => "-".into(),
    };
    let verdict = match seen.verdict {
        Some((_, Verdict::Predicted { .. })) => "predicted",
        Some((_, Verdict::OomEvent { .. })) => "oom event",
        Some(_) => "other",
        None => "none",
    };
    let false_alarms = if shape.end == Meets { 0 } else { seen.within_count };
    let line = format!(
        "{:34} {verdict:10} {:>8} {:>8} {:>8} {false_alarms:>6} {:>8}",
        shape.name,
        lead(seen.verdict.map(|(at, _)| at)),
        lead(seen.within.filter(|_| shape.end == Meets)),
        lead(seen.at_share.filter(|_| shape.end == Meets)),
        seen.readings
    );
    let as_expected = match shape.end {
        Meets => seen.verdict.is_some(),
        Stays(known) => seen.verdict.is_none() && false_alarms == known,
        Comes(known) => seen.verdict.is_some() && false_alarms == known,
    };
    (line.clone(), (!as_expected).then_some(line))
}

#[test]
fn shapes_are_told_apart() {
    let shape = |name: &str, used: fn(f64) -> f64, seconds, end| Shape {
        name: name.into(),
        used: Box::new(used),
        cache_kib: 0.0,
        seconds,
        end,
    };
    let leaky = |at: f64| saw_tooth(at, 2.0, 8.0 * MIB, 16.0 * MIB) + 0.25 * MIB * at;
    let burst = |at: f64| 8.0 * MIB + 18.0 * MIB * (at * 10.0 - 50.0).clamp(0.0, 1.0);
    let shapes = [
        shape("steady, 4 KiB/s", |at| 30.0 * MIB + 4.0 * at, 600.0, Meets),
        shape("steady, 1 MiB/s", |at| 4.0 * MIB + MIB * at, 60.0, Meets),
        shape("steady, 16 MiB/s", |at| 4.0 * MIB + 16.0 * MIB * at, 10.0, Meets),
        shape("steady, 256 MiB/s", |at| 4.0 * MIB + 256.0 * MIB * at, 5.0, Meets),
        shape("2 MiB a second, in steps", |at| 4.0 * MIB + 2.0 * MIB * at.floor(), 60.0, Meets),
        shape("twice as much every 2 s", |at| MIB * (at / 2.0).exp2(), 60.0, Meets),
        shape("garbage collector that leaks", leaky, 120.0, Meets),
        shape(
            "garbage collector, 8 to 24 MiB",
            |at| saw_tooth(at, 2.0, 8.0 * MIB, 24.0 * MIB),
            120.0,
            Stays(0),
        ),
        shape(
            "garbage collector, 8 to 31 MiB",
            |at| saw_tooth(at, 2.0, 8.0 * MIB, 31.0 * MIB),
            120.0,
            Stays(1),
        ),
        shape("one burst of 18 MiB in 100 ms", burst, 60.0, Stays(1)),
        shape("warms up to 20 MiB in 5 s", |at| (4.0 * at).min(20.0) * MIB, 60.0, Stays(1)),
        shape(
            "load of a day, 4 to 22 MiB",
            |at| (13.0 - 9.0 * (at / 120.0 * TAU).cos()) * MIB,
            240.0,
            Stays(0),
        ),
        shape("noise at 28 MiB", |at| (28.0 + (at * 7.3 * TAU).sin()) * MIB, 60.0, Stays(0)),
        Shape { cache_kib: LIMIT_KIB, ..shape("page cache at the limit", |_| 4.0 * MIB, 60.0, Stays(0)) },
        Shape {
            cache_kib: LIMIT_KIB,
            ..shape("leak of 2 MiB/s in page cache", |at| 4.0 * MIB + 2.0 * MIB * at, 60.0, Meets)
        },
    ];
    println!("lead before the limit of 32 MiB in ms: of the verdict, of `within: 10s`, of `at: 80%`");
    println!(
        "{:34} {:10} {:>8} {:>8} {:>8} {:>6} {:>8}",
        "shape", "verdict by", "verdict", "10 s", "80%", "false", "readings"
    );
    let mut wrong = Vec::new();
    let recordings = RECORDED.iter().flat_map(|&(name, text, [room, close])| {
        [(0.75, room), (0.97, close), (4.0 / 3.0, Meets)].map(|(peak, end)| recorded(name, text, peak, end))
    });
    for shape in shapes.into_iter().chain(recordings) {
        let (line, found) = run(&shape);
        println!("{line}");
        wrong.extend(found);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
