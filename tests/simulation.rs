//! The engine against a fake kernel, under seeded chance: thousands of short lives of a machine, and after every turn
//! the invariants of `support/invariants`.
//!
//! `LIFEBOAT_SEEDS=n` runs so many seeds; `LIFEBOAT_SEED=s` replays one and prints each turn.

#[path = "support/fake_kernel/mod.rs"]
mod fake_kernel;
#[path = "support/invariants/mod.rs"]
mod invariants;
#[path = "support/random_changes.rs"]
mod random_changes;
#[path = "support/random_units.rs"]
mod random_units;
#[path = "support/replays.rs"]
mod replays;
#[path = "support/rng.rs"]
mod rng;

use fake_kernel::FakeKernel;
use invariants::{Invariant, Violation, Watch};
use lifeboat::engine::action::Action;
use lifeboat::engine::change::Change;
use lifeboat::engine::event::{Below, ClientId, Event, ShutdownKind, Time, Verb};
use lifeboat::engine::policy::{UnitId, UnitPolicy};
use lifeboat::engine::setting::{Limit, Setting};
use lifeboat::engine::{Engine, Plan};
use random_changes::Table;
use random_units::{RESERVE_BYTES, random_rescue, random_units};
use replays::{Definitions, Replayed};
use rng::Rng;
use std::fmt::Write;

const SEEDS: u64 = 100_000;
/// After so many events the shutdown is asked for, if it was not yet.
const EVENTS_MAX: u64 = 300;
/// A machine that needs more events than this to shut down hangs.
const EVENTS_BOUND: u64 = 20_000;

/// What the engine is told.
#[derive(Clone, Debug)]
enum Told {
    Event(Event),
    Changes(Vec<(UnitId, Change)>),
}

/// One turn: when, what happened, and what the engine wanted done.
type Turn = (Time, Told, Vec<Action>);

struct World {
    engine: Engine,
    kernel: FakeKernel,
    watch: Watch,
    rescue: Option<UnitId>,
    plan: Plan,
    table: Table,
    /// How often the units change, of a thousand steps.
    restless: u64,
    now: Time,
    events: u64,
    log: Option<Vec<Turn>>,
    /// Of a world whose incidents are replayed.
    definitions: Option<Definitions>,
    prints: bool,
}

impl World {
    fn new(seed: u64, keeps: bool, prints: bool) -> (Self, Vec<UnitPolicy>) {
        let mut rng = Rng::new(seed);
        let (units, keys) = random_units(&mut rng);
        let restless = rng.pick(&[0, 0, 5, 40]);
        let rescue = random_rescue(&mut rng, &units);
        let mut kernel = FakeKernel::new(rng, &units);
        visits(&mut kernel, &units);
        let world = Self {
            engine: engine_of(units.clone(), rescue),
            kernel,
            watch: Watch::new(&units, rescue),
            rescue,
            plan: Plan::for_units(units.len()),
            table: Table::new((units.clone(), keys)),
            restless,
            now: Time(0),
            events: 0,
            log: keeps.then(Vec::new),
            definitions: keeps.then(|| Definitions::new(&units)),
            prints,
        };
        (world, units)
    }

    fn turn(&mut self, event: Event) -> Result<(), Violation> {
        self.events += 1;
        self.watch.event(self.now, event, &mut self.kernel);
        self.kernel.at(self.now);
        self.engine.handle(self.now, event, &mut self.plan);
        self.perform(Told::Event(event))
    }

    /// People bring other unit files.
    fn change(&mut self) -> Result<(), Violation> {
        let changes = self.table.change(&mut self.kernel.rng, &self.engine);
        self.watch.reconfigure(&changes);
        self.kernel.at(self.now);
        self.kernel.reconfigure(&changes);
        self.definitions.iter_mut().for_each(|definitions| definitions.change(&changes));
        self.engine.reconfigure(self.now, changes.clone(), &mut self.plan);
        self.perform(Told::Changes(changes))
    }

    fn perform(&mut self, told: Told) -> Result<(), Violation> {
        let mut actions = Vec::new();
        while let Some(action) = self.plan.take() {
            actions.push(action);
        }
        if self.prints {
            println!("{:>12} us  {told:?}", self.now.0);
            actions.iter().for_each(|action| println!("                 -> {action:?}"));
        }
        self.watch.actions(self.now, &actions);
        for &action in &actions {
            self.watch.action(self.now, action, &mut self.kernel)?;
            self.kernel.perform(action);
            self.table.performed(action);
            self.keep(action)?;
        }
        if let Some(log) = &mut self.log {
            log.push((self.now, told, actions));
        }
        self.watch.turn(self.now, &self.engine, &self.kernel)
    }

    fn keep(&mut self, action: Action) -> Result<(), Violation> {
        match (&mut self.definitions, action) {
            (Some(definitions), Action::Adopt { unit }) => definitions.adopt(unit),
            (Some(definitions), Action::KeepIncident { unit, number }) => {
                let violation = |detail| Violation { invariant: Invariant::IncidentsReplay, detail };
                definitions.keep(&self.engine, unit, number).map_err(violation)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Goes to what comes next: a deadline of the engine or something in the kernel.
    fn step(&mut self) -> Result<bool, Violation> {
        let (kernel_at, deadline) = (self.kernel.next_at(), self.engine.next_deadline());
        match (kernel_at, deadline) {
            (None, None) => return Ok(false),
            (at, Some(due)) if at.is_none_or(|at| due <= at) => {
                // The timer of a busy machine rings late.
                let late_us = self.kernel.rng.pick(&[0, 0, 1, 1_000]);
                self.now = self.now.max(Time(due.0 + late_us));
                self.turn(Event::Deadline)?;
            }
            (at, _) => {
                self.now = self.now.max(at.unwrap_or_default());
                if let Some(event) = self.kernel.advance(self.now) {
                    self.turn(event)?;
                }
            }
        }
        Ok(true)
    }

    fn live(&mut self) -> Result<(), Violation> {
        self.turn(Event::Boot)?;
        while self.step()? {
            if self.events == EVENTS_MAX && !self.watch.shutting_down() {
                self.turn(Event::ShutdownAsked { how: ShutdownKind::PowerOff })?;
            }
            let restless = self.events < EVENTS_MAX && !self.watch.shutting_down();
            if restless && self.kernel.rng.per_mille(self.restless) {
                self.change()?;
            }
            if self.events > EVENTS_BOUND {
                let detail = format!("after {EVENTS_BOUND} events");
                return Err(Violation { invariant: Invariant::NothingHangs, detail });
            }
        }
        self.watch.end()
    }
}

fn engine_of(units: Vec<UnitPolicy>, rescue: Option<UnitId>) -> Engine {
    let mut engine = Engine::new(units, RESERVE_BYTES);
    engine.set_rescue(rescue);
    engine
}

/// The people of this world, and the end of it.
fn visits(kernel: &mut FakeKernel, units: &[UnitPolicy]) {
    let span_ms = kernel.rng.pick(&[500, 10_000, 60_000, 200_000]);
    for client in 0..kernel.rng.between(0, 40) {
        let client = ClientId(client);
        let at_ms = kernel.rng.between(0, span_ms);
        let verb = kernel.rng.pick(&[
            Verb::Start,
            Verb::Stop,
            Verb::Restart,
            Verb::Reload,
            Verb::Drill,
            Verb::DrillToTheEnd,
        ]);
        // The place behind the last unit is there too: nobody's.
        let unit = UnitId(u16::try_from(kernel.rng.between(0, units.len() as u64 * 10) / 10).unwrap());
        if kernel.rng.per_mille(250) {
            let setting = kernel.rng.pick(&[
                Setting::MemoryMax,
                Setting::MemoryMax,
                Setting::MemoryHigh,
                Setting::CpuMax,
            ]);
            let limit = Limit { setting, value: Some(kernel.rng.between(1, 80) << 20) };
            let below = kernel.rng.pick(&[Below::Refuse, Below::Rescue]);
            kernel.outside(at_ms, Event::LimitAsked { client, unit, limit, below });
        } else {
            kernel.outside(at_ms, Event::Asked { client, unit, verb });
        }
        if kernel.rng.per_mille(200) {
            let gone_ms = at_ms + kernel.rng.between(0, 2_000);
            kernel.outside(gone_ms, Event::ClientGone { client });
        }
    }
    // The store is read, at first or at last.
    for _ in 0..kernel.rng.pick(&[0, 1, 1, 2]) {
        let (at_ms, by) = (kernel.rng.between(0, span_ms), kernel.rng.pick(&[1, 7, 300]));
        let from = kernel.rng.pick(&[1, 2, 9]);
        kernel.outside(at_ms, Event::IncidentsAhead { from, by });
    }
    let end_ms = kernel.rng.between(0, 2 * span_ms);
    let how = kernel.rng.pick(&[ShutdownKind::PowerOff, ShutdownKind::Reboot, ShutdownKind::Halt]);
    kernel.outside(end_ms, Event::ShutdownAsked { how });
    if kernel.rng.per_mille(100) {
        kernel.outside(end_ms + 100, Event::ShutdownAsked { how: ShutdownKind::Halt });
    }
}

/// A fresh engine, fed with the recorded events, must plan the same turn by turn.
fn replays(units: Vec<UnitPolicy>, rescue: Option<UnitId>, log: &[Turn]) -> bool {
    let mut plan = Plan::for_units(units.len());
    let mut engine = engine_of(units, rescue);
    log.iter().all(|(now, told, actions)| {
        match told {
            Told::Event(event) => engine.handle(*now, *event, &mut plan),
            Told::Changes(changes) => engine.reconfigure(*now, changes.clone(), &mut plan),
        }
        let same = actions.iter().all(|action| plan.take() == Some(*action));
        same && plan.is_empty()
    })
}

fn story(world: &World, seed: u64, violation: &Violation) -> String {
    let mut text = format!("seed {seed}: {:?}: {}\n", violation.invariant, violation.detail);
    let last: Vec<_> = world.engine.recorder().events().collect();
    for (time, event) in last.iter().skip(last.len().saturating_sub(20)) {
        let _ = writeln!(text, "{:>12} us  {event:?}", time.0);
    }
    let _ = writeln!(text, "replay: LIFEBOAT_SEED={seed} cargo test --test simulation -- --nocapture");
    text
}

/// Lives one seed; `Err` tells the story of what went wrong.
fn run(seed: u64, prints: bool) -> Result<(u64, Replayed), String> {
    let keeps = seed.is_multiple_of(8);
    let (mut world, units) = World::new(seed, keeps, prints);
    if prints {
        units.iter().enumerate().for_each(|(id, unit)| println!("{id}: {unit:?}"));
    }
    world.live().map_err(|violation| story(&world, seed, &violation))?;
    if let Some(log) = &world.log
        && !replays(units, world.rescue, log)
    {
        return Err(format!("seed {seed}: the replay of its events leads to other actions\n"));
    }
    Ok((world.events, world.definitions.map_or_else(Replayed::default, |definitions| definitions.replayed)))
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} holds {text:?}, which is not a number")))
}

/// Runs every `threads`-th seed.
fn share(first: u64, count: u64, threads: u64) -> (u64, Replayed, Vec<String>) {
    let (mut events, mut replayed) = (0, Replayed::default());
    let mut failures = Vec::new();
    for seed in (first..count).step_by(usize::try_from(threads).unwrap()) {
        match run(seed, false) {
            Ok((count, more)) => {
                events += count;
                replayed.add(more);
            }
            Err(story) => failures.push(story),
        }
    }
    (events, replayed, failures)
}

#[test]
fn no_seed_breaks_an_invariant() {
    if let Some(seed) = number_from("LIFEBOAT_SEED") {
        let (_, replayed) = run(seed, true).unwrap_or_else(|story| panic!("{story}"));
        println!("{replayed:?}");
        return;
    }
    let count = number_from("LIFEBOAT_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let shares: Vec<_> =
        (0..threads).map(|first| std::thread::spawn(move || share(first, count, threads))).collect();
    let (mut events, mut replayed) = (0, Replayed::default());
    let mut failures = Vec::new();
    for share in shares {
        let (count, more, failed) = share.join().unwrap();
        events += count;
        replayed.add(more);
        failures.extend(failed);
    }
    println!("{count} seeds, {events} events, {} failures", failures.len());
    println!("{replayed:?}");
    let shown: String = failures.iter().take(3000).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} of {count} seeds fail\n{shown}", failures.len());
}
