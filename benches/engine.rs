//! What one event costs the engine, with 10, 100 and 1,000 units. The budget is 50 µs, whatever their number.

use criterion::{BenchmarkId, Criterion};
use lifeboat::engine::event::{Event, Exit, MemoryEvents, MemorySample, Role, Time};
use lifeboat::engine::policy::{
    Class, DescriptorPolicy, Guard, Kind, MemoryPolicy, OnRequirementRestart, ProcedurePolicy, Ready,
    RestartPolicy, ServiceMode, Success, UnitId, UnitPolicy, WarnPolicy,
};
use lifeboat::engine::snapshot::{StateName, SystemView};
use lifeboat::engine::{Engine, Plan};

const MIB: u64 = 1 << 20;
/// More than a healthy run, so that each death is answered at once.
const RUN_MS: u64 = 11_000;
/// More than a doorbell is off for.
const HUSHED_MS: u64 = 1_100;

fn unit(id: u16) -> UnitPolicy {
    UnitPolicy {
        name: format!("unit-{id}"),
        description: String::new(),
        kind: Kind::Service,
        autostart: true,
        // A tree: each unit has one that it requires, and a few that require it.
        after: Vec::new(),
        before: Vec::new(),
        wants: Vec::new(),
        conflicts: Vec::new(),
        on_requirement_restart: OnRequirementRestart::Keep,
        conditions: Vec::new(),
        requires: if id == 0 { Vec::new() } else { vec![UnitId(id / 4)] },
        memory: Some(MemoryPolicy {
            max_bytes: 32 * MIB,
            class: Class::Pool,
            guard: Guard::Shield,
            high_bytes: None,
            ballast_bytes: None,
        }),
        warn: WarnPolicy::default(),
        utility: 50,
        ready: Ready::Start,
        start_timeout_ms: 30_000,
        watchdog_ms: None,
        health: None,
        reload: None,
        descriptors: DescriptorPolicy::default(),
        procedure: Some(ProcedurePolicy {
            service: ServiceMode::Frozen,
            lend_bytes: 0,
            has_program: true,
            resident: false,
            drill_every_ms: None,
            has_otherwise: false,
            on_exhaustion: true,
            on_stop: false,
            on_failure: false,
            deadline_ms: 2_000,
            memory_bytes: 4 * MIB,
            then: None,
        }),
        success: Success::default(),
        stop_command: false,
        stop_signal: 15,
        stop_timeout_ms: 5_000,
        restart: RestartPolicy { limit_starts: 5, limit_within_ms: 10_000, ..RestartPolicy::default() },
        refused: None,
    }
}

/// An engine under load, with the clock in our hands.
struct Bench {
    engine: Engine,
    plan: Plan,
    now: Time,
    counters: MemoryEvents,
}

impl Bench {
    /// All units are up.
    fn new(units: u16) -> Self {
        let engine = Engine::new((0..units).map(unit).collect(), 8 * MIB);
        let plan = Plan::for_units(usize::from(units));
        let mut bench = Self { engine, plan, now: Time(0), counters: MemoryEvents::default() };
        bench.tell(Event::Boot);
        for id in (0..units).map(UnitId) {
            // A round of the loop begins with the deadlines, and starts a few units at most.
            bench.tell(Event::Deadline);
            bench.come_up(id);
        }
        bench.expect_all_up();
        bench
    }

    fn tell(&mut self, event: Event) {
        self.engine.handle(self.now, event, &mut self.plan);
        while let Some(action) = self.plan.take() {
            std::hint::black_box(action);
        }
    }

    fn come_up(&mut self, unit: UnitId) {
        let run = self.engine.run_of(unit).unwrap_or_default();
        self.tell(Event::Parked { unit, run, pid: 1 });
        self.tell(Event::Spawned { unit, run, pid: 2 });
    }

    /// A benchmark of events that change nothing any more would be a fine one.
    fn expect_all_up(&self) {
        let snapshot = self.engine.snapshot(self.now, SystemView::default());
        let down = snapshot.units.iter().find(|unit| unit.state != StateName::Running);
        assert!(down.is_none(), "{down:?}");
    }

    /// A `max` doorbell, the reading that says: only cache, and the end of the silence that follows: 3 events.
    fn doorbell(&mut self, unit: UnitId) {
        let run = self.engine.run_of(unit).unwrap_or_default();
        self.counters.max += 1;
        self.tell(Event::MemoryEvents { unit, run, role: Role::Service, counters: self.counters });
        let sample = MemorySample { unreclaimable_bytes: MIB, ..MemorySample::default() };
        self.tell(Event::MemorySampled { unit, run, sample });
        self.now = self.now.plus_ms(HUSHED_MS);
        self.tell(Event::Deadline);
    }

    /// A death after a healthy run, with all that follows until the unit is up again; the procedure, which was not
    /// needed, is handed on to the next run: 5 events.
    fn exit_and_restart(&mut self, unit: UnitId) {
        self.now = self.now.plus_ms(RUN_MS);
        let run = self.engine.run_of(unit).unwrap_or_default();
        self.tell(Event::Exited { unit, run, role: Role::Service, exit: Exit::Signal(9) });
        self.tell(Event::Emptied { unit, run, role: Role::Service });
        self.tell(Event::Deadline);
        assert!(self.engine.run_of(unit) > Some(run), "{unit:?} was not restarted");
        self.come_up(unit);
    }
}

fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    for units in [10, 100, 1_000] {
        let mut bench = Bench::new(units);
        let last = UnitId(units - 1);
        group.bench_function(BenchmarkId::new("doorbell and reading (3 events)", units), |bencher| {
            bencher.iter(|| bench.doorbell(last));
        });
        group.bench_function(BenchmarkId::new("exit and restart (5 events)", units), |bencher| {
            bencher.iter(|| bench.exit_and_restart(last));
        });
        bench.expect_all_up();
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    events(&mut criterion);
    criterion.final_summary();
}
