//! From the first sign of an exhaustion to the restart lifeboat allocates nothing: the engine decides, the plan is
//! carried out and every record is put into words under a global allocator that counts.
//!
//! The kernel is left out: the actions are answered here as it would, by events.

#![expect(unsafe_code, reason = "a global allocator has no safe form; this one only counts")]

use lifeboat::engine::action::Action;
use lifeboat::engine::event::{Event, Exit, MemoryEvents, MemorySample, Role, Time, Verb};
use lifeboat::engine::policy::{
    Class, Guard, Kind, MemoryPolicy, ProcedurePolicy, RestartPolicy, RestartWhen, RunId, Then, UnitId,
    UnitPolicy,
};
use lifeboat::engine::snapshot::{StateName, SystemView};
use lifeboat::engine::{Engine, Plan};
use lifeboat::sys::kmsg::LineWriter;
use lifeboat::view;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::OwnedFd;

const MIB: u64 = 1 << 20;
const UNITS: u16 = 50;
/// More than the tables of incidents and of events hold.
const ROUNDS: u64 = 200;

/// The system's allocator, and how often this thread has called it.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends has no counter any more, and is not the one that is looked at.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every call is handed on to `System` unchanged; the counter allocates nothing, because a `Cell<u64>` with a
// constant first value needs neither an initialiser nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `GlobalAlloc::alloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: `pointer` came from `System` with this layout, because `alloc` above is the only source.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`; the new size is the caller's promise.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn calls_of(work: impl FnOnce()) -> u64 {
    let before = CALLS.get();
    work();
    CALLS.get() - before
}

fn policy(number: u16, guard: Guard) -> UnitPolicy {
    UnitPolicy {
        name: format!("unit-{number}"),
        description: String::new(),
        kind: Kind::Service,
        autostart: true,
        after: Vec::new(),
        requires: if number > 0 && number.is_multiple_of(5) { vec![UnitId(number - 1)] } else { Vec::new() },
        memory: Some(MemoryPolicy { max_bytes: 32 * MIB, class: Class::Pool, guard }),
        utility: 50,
        procedure: Some(ProcedurePolicy {
            on_exhaustion: true,
            on_stop: true,
            deadline_ms: 2_000,
            memory_bytes: 6 * MIB,
            then: Then::Restart,
        }),
        stop_signal: 15,
        stop_timeout_ms: 5_000,
        restart: RestartPolicy {
            when: RestartWhen::Always,
            delay_ms: 10,
            max_delay_ms: 10,
            limit_starts: 1_000,
            limit_within_ms: 1,
        },
        refused: None,
    }
}

/// The engine with a kernel that does what it is told at once, and the story of both.
struct Machine {
    engine: Engine,
    plan: Plan,
    now: Time,
    names: Vec<String>,
    story: Lines,
    counters: MemoryEvents,
    /// The procedure never ends by itself.
    procedure_hangs: bool,
}

/// lifeboat's own writer, as a text.
struct Lines {
    writer: LineWriter,
    written: u64,
}

impl fmt::Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.written += text.len() as u64;
        self.writer.write_all(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

impl Machine {
    fn new(guard: Guard) -> Self {
        let policies: Vec<_> = (0..UNITS).map(|number| policy(number, guard)).collect();
        let names = policies.iter().map(|policy| policy.name.clone()).collect();
        let null = OpenOptions::new().write(true).open("/dev/null").expect("/dev/null");
        Self {
            // Room for one procedure at a time: the others wait for it.
            engine: Engine::new(policies, 8 * MIB),
            plan: Plan::for_units(usize::from(UNITS)),
            now: Time(1_000_000),
            names,
            story: Lines { writer: LineWriter::plain(OwnedFd::from(null)), written: 0 },
            counters: MemoryEvents::default(),
            procedure_hangs: false,
        }
    }

    /// One event, and whatever comes of it: a fixed stack of answers, no recursion.
    fn happen(&mut self, event: Event) {
        let mut answers = [None; 64];
        let mut waiting = 0;
        let mut next = Some(event);
        while let Some(event) = next {
            self.engine.handle(self.now, event, &mut self.plan);
            while let Some(action) = self.plan.take() {
                for answer in self.perform(action).into_iter().flatten() {
                    answers[waiting] = Some(answer);
                    waiting += 1;
                }
            }
            next = (waiting > 0).then(|| {
                waiting -= 1;
                answers[waiting].take().expect("an answer waits")
            });
        }
    }

    fn perform(&mut self, action: Action) -> [Option<Event>; 2] {
        let none = [None, None];
        match action {
            Action::Park { unit, run } => [Some(Event::Parked { unit, run, pid: 100 }), None],
            Action::Spawn { unit, run } => [Some(Event::Spawned { unit, run, pid: 101 }), None],
            Action::Freeze { unit, run } => [Some(Event::Frozen { unit, run }), None],
            Action::StartProcedure { unit, run, .. } => {
                let exited = Event::Exited { unit, run, role: Role::Procedure, exit: Exit::Code(0) };
                // The last one is taken first.
                [(!self.procedure_hangs).then_some(exited), Some(Event::ProcedureRunning { unit, run })]
            }
            Action::KillCgroup { unit, run, role, .. } => {
                let exited = Event::Exited { unit, run, role, exit: Exit::Signal(9) };
                [Some(Event::Emptied { unit, run, role }), Some(exited)]
            }
            Action::Sample { unit, run } => {
                let sample = MemorySample { current_bytes: 32 * MIB, ..MemorySample::default() };
                [Some(Event::MemorySampled { unit, run, sample }), None]
            }
            Action::Log(record) => {
                view::record::write(&mut self.story, &record, &self.names).expect("a line is written");
                self.story.writer.write_all(b"\n").expect("a line is ended");
                none
            }
            Action::Signal { .. } | Action::Reply { .. } | Action::Finish { .. } => none,
        }
    }

    /// Time goes on until nothing is due any more.
    fn settle(&mut self) {
        while let Some(due) = self.engine.next_deadline() {
            self.now = due.max(self.now);
            self.happen(Event::Deadline);
        }
    }

    fn run_of(&self, unit: UnitId) -> RunId {
        self.engine.run_of(unit).expect("a unit of the table")
    }

    /// One unit's memory runs out, in this way, and it comes back.
    fn exhaust(&mut self, unit: UnitId, how: fn(MemoryEvents) -> MemoryEvents) {
        self.counters = how(self.counters);
        let (run, counters) = (self.run_of(unit), self.counters);
        self.happen(Event::MemoryEvents { unit, run, role: Role::Service, counters });
    }

    fn running(&self) -> usize {
        let snapshot = self.engine.snapshot(self.now, SystemView::default());
        snapshot.units.iter().filter(|unit| unit.state == StateName::Running).count()
    }
}

fn oom(counters: MemoryEvents) -> MemoryEvents {
    MemoryEvents { max: counters.max + 10, oom: counters.oom + 1, ..counters }
}

fn oom_kill(counters: MemoryEvents) -> MemoryEvents {
    MemoryEvents { oom_kill: counters.oom_kill + 1, ..oom(counters) }
}

fn near(counters: MemoryEvents) -> MemoryEvents {
    MemoryEvents { max: counters.max + 1, ..counters }
}

/// Boots a machine and counts the calls of the allocator during `ROUNDS` of these turns, the first one included.
fn check(what: &str, guard: Guard, turn: fn(&mut Machine, UnitId)) {
    let mut machine = Machine::new(guard);
    machine.happen(Event::Boot);
    machine.settle();
    assert_eq!(machine.running(), usize::from(UNITS), "{what}: not all units came up");
    let told = machine.story.written;
    let calls = calls_of(|| {
        for round in 0..ROUNDS {
            machine.now = machine.now.plus_ms(60_000);
            turn(&mut machine, UnitId(u16::try_from(round % u64::from(UNITS)).expect("a small number")));
        }
    });
    assert_eq!(machine.running(), usize::from(UNITS), "{what}: not all units are up again");
    assert!(machine.story.written > told, "{what}: nothing was told");
    let incidents = machine.engine.snapshot(machine.now, SystemView::default()).incidents;
    assert!(what == "a false alarm" || incidents.last().is_some_and(|last| last.number >= 200), "{what}");
    assert_eq!(calls, 0, "{what}: calls of the allocator in {ROUNDS} rounds");
}

#[test]
fn an_exhaustion_allocates_nothing() {
    check("an oom event", Guard::Shield, |machine, unit| {
        machine.exhaust(unit, oom);
        machine.settle();
    });
    check("the kernel's own kill", Guard::None, |machine, unit| {
        machine.exhaust(unit, oom_kill);
        machine.settle();
    });
    check("a procedure that hangs", Guard::Shield, |machine, unit| {
        machine.procedure_hangs = true;
        machine.exhaust(unit, oom);
        machine.settle();
        machine.procedure_hangs = false;
    });
    check("many at once, who wait for the reserve", Guard::Shield, |machine, _| {
        machine.procedure_hangs = true;
        (0..UNITS).for_each(|unit| machine.exhaust(UnitId(unit), oom));
        machine.settle();
    });
    check("an exhaustion during a stop", Guard::Shield, |machine, unit| {
        let client = lifeboat::engine::event::ClientId(1);
        machine.exhaust(unit, oom);
        machine.happen(Event::Asked { client, unit, verb: Verb::Restart });
        machine.settle();
    });
    check("a false alarm", Guard::Shield, |machine, unit| {
        machine.exhaust(unit, near);
        machine.exhaust(unit, oom);
        machine.settle();
    });
}

#[test]
fn the_allocator_counts() {
    assert_eq!(calls_of(|| drop(std::hint::black_box(Box::new(7)))), 2);
    assert_eq!(calls_of(|| ()), 0);
}
