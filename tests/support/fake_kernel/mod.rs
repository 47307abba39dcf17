//! A kernel in memory: it performs what the engine asks for, lets processes live and die with random delays and faults,
//! and keeps the truth of which processes live.
//!
//! A change of the truth (`Happening`) and the event that tells of it are two things at two times, as they are on a
//! real machine. One file for each thing that processes do.

mod ballast;
mod changes;
mod commands;
mod endings;
mod limits;
mod memory;
mod starts;
mod words;

use crate::rng::Rng;
use commands::Deed;
use lifeboat::engine::action::Action;
use lifeboat::engine::event::{Event, Exit, MemoryEvents, Note, Role, Time};
use lifeboat::engine::policy::{RunId, UnitId, UnitPolicy};
use lifeboat::engine::setting::Limit;
use lifeboat::engine::snapshot::KillReason;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;
const SIGTERM: i32 = 15;
const ESRCH: i32 = 3;

/// Kernel truth about one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// The first process lives.
    pub(crate) main: bool,
    /// Others that it forked live.
    pub(crate) others: bool,
    pub(crate) frozen: bool,
    /// Sleeps uninterruptibly: no kill ends it.
    pub(crate) unkillable: bool,
    /// A canary's ballast lives.
    pub(crate) ballast: bool,
}

impl Group {
    pub(crate) fn populated(self) -> bool {
        self.main || self.others || self.ballast
    }
}

/// Kernel truth about one run of one unit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Truth {
    pub(crate) service: Group,
    pub(crate) procedure: Group,
    /// The procedure was let go.
    pub(crate) released: bool,
    /// The service's `execve` was reached.
    pub(crate) up: bool,
    /// The path by which it shows that it is ready is there.
    pub(crate) path: bool,
    /// 1 is written to `cgroup.freeze`.
    pub(crate) freezing: bool,
    /// So much was added to its bound.
    pub(crate) lent_bytes: u64,
    /// A loan has failed; whoever takes it back may not know.
    pub(crate) loan_failed: bool,
    /// So many writes to `cgroup.kill` failed.
    pub(crate) failed_kills: u8,
}

impl Truth {
    /// Nothing lives but a procedure that nobody has let go.
    pub(crate) fn spare(&self) -> Option<Group> {
        let parked = self.procedure.main && !self.procedure.others && !self.released;
        Some(self.procedure).filter(|_| parked && !self.service.populated())
    }
}

/// A change of the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    MainEnds(Exit),
    OthersEnd,
    Exec,
    /// It says that it is ready, by whichever way; now and then it says it twice.
    Ready,
    /// It says that it is alive, and will again.
    Ping,
    /// It says something else.
    Says(Note),
    Oom {
        again: u8,
    },
    OomOutside,
    /// It moves itself to another cgroup.
    Strays,
    MaxMet,
    HighMet,
    PressureRises,
    Froze,
    /// A process aside writes a limit.
    Sets(Limit),
    ProcedureEnds(Exit),
    ProcedureOutgrows,
    Killed(Role),
    BallastEnds(Exit),
    /// To a command; what goes with it is its number, not a run.
    Command(Deed),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Happening(UnitId, RunId, What),
    Event(Event),
    /// Something from outside: a person, a signal.
    Outside(Event),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scheduled {
    at: u64,
    number: u64,
    item: Item,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

pub(crate) struct FakeKernel {
    pub(crate) rng: Rng,
    policies: Vec<UnitPolicy>,
    /// What a unit will be when its present run is over.
    successors: Vec<Option<UnitPolicy>>,
    /// By unit, then by run (the first run is 1).
    runs: Vec<Vec<Truth>>,
    /// The commands of each unit, by their numbers.
    commands: Vec<Vec<Group>>,
    command_kills: u64,
    counters: Vec<(MemoryEvents, MemoryEvents)>,
    unreclaimable_bytes: Vec<u64>,
    /// By unit: its doorbells are off.
    hushed: Vec<bool>,
    heap: BinaryHeap<Reverse<Scheduled>>,
    number: u64,
    /// Items that are not from outside.
    pub(crate) pending: usize,
    now: u64,
    /// How often a thing goes wrong in this world, of a thousand.
    trouble: u64,
    /// How long services live in this world.
    life_ms: u64,
    pids: u32,
}

impl FakeKernel {
    pub(crate) fn new(mut rng: Rng, policies: &[UnitPolicy]) -> Self {
        let trouble = rng.pick(&[0, 20, 100, 300]);
        let life_ms = rng.pick(&[200, 1_000, 5_000, 30_000]);
        Self {
            rng,
            policies: policies.to_vec(),
            successors: vec![None; policies.len()],
            runs: vec![Vec::new(); policies.len()],
            commands: vec![Vec::new(); policies.len()],
            command_kills: 0,
            counters: vec![Default::default(); policies.len()],
            unreclaimable_bytes: vec![0; policies.len()],
            hushed: vec![false; policies.len()],
            heap: BinaryHeap::new(),
            number: 0,
            pending: 0,
            now: 0,
            trouble,
            life_ms,
            pids: 100,
        }
    }

    fn goes_wrong(&mut self) -> bool {
        self.rng.per_mille(self.trouble)
    }

    fn schedule(&mut self, after_us: u64, item: Item) {
        self.number += 1;
        if !matches!(item, Item::Outside(_)) {
            self.pending += 1;
        }
        let at = self.now + after_us;
        self.heap.push(Reverse(Scheduled { at, number: self.number, item }));
    }

    pub(crate) fn outside(&mut self, at_ms: u64, event: Event) {
        self.schedule((at_ms * 1_000).saturating_sub(self.now), Item::Outside(event));
    }

    fn later(&mut self, (unit, run): (UnitId, RunId), after_us: u64, what: What) {
        self.schedule(after_us, Item::Happening(unit, run, what));
    }

    /// The event reaches the engine a little later; now and then once more, long after.
    fn tell(&mut self, delay_us: u64, event: Event) {
        self.schedule(delay_us, Item::Event(event));
        if self.rng.per_mille(20) {
            let late_us = delay_us + self.rng.pick(&[1, 5_000, 900_000, 20_000_000]);
            self.schedule(late_us, Item::Event(event));
        }
    }

    fn short(&mut self) -> u64 {
        self.rng.pick(&[0, 10, 300, 2_000, 15_000])
    }

    pub(crate) fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(next)| Time(next.at))
    }

    /// Takes what comes next: an event for the engine, or `None` where only the truth has changed.
    pub(crate) fn advance(&mut self, now: Time) -> Option<Event> {
        self.now = now.0;
        let Reverse(next) = self.heap.pop()?;
        match next.item {
            Item::Event(event) => {
                self.pending -= 1;
                Some(event)
            }
            Item::Outside(event) => Some(event),
            Item::Happening(unit, run, what) => {
                self.pending -= 1;
                self.happen(unit, run, what);
                None
            }
        }
    }

    pub(crate) fn at(&mut self, now: Time) {
        self.now = now.0;
    }

    pub(crate) fn truth(&mut self, unit: UnitId, run: RunId) -> &mut Truth {
        let runs = &mut self.runs[usize::from(unit.0)];
        let at = run.0 as usize - 1;
        if runs.len() <= at {
            runs.resize(at + 1, Truth::default());
        }
        &mut runs[at]
    }

    /// Every run with something alive.
    pub(crate) fn living(&self) -> impl Iterator<Item = (UnitId, RunId, Truth)> {
        self.runs.iter().zip(0u16..).flat_map(|(runs, unit)| {
            runs.iter().zip(1u32..).filter_map(move |(truth, run)| {
                (truth.service.populated() || truth.procedure.populated()).then_some((
                    UnitId(unit),
                    RunId(run),
                    *truth,
                ))
            })
        })
    }

    pub(crate) fn perform(&mut self, action: Action) {
        match action {
            Action::CheckConditions { unit, run } => {
                let unmet = self.rng.per_mille(300).then_some(0);
                self.tell(0, Event::ConditionsChecked { unit, run, unmet });
            }
            Action::Park { unit, run } => self.park(unit, run),
            Action::ParkOtherwise { unit, run } => {
                self.forget_first(unit, run);
                self.make(unit, run);
            }
            Action::MakeBallast { unit, run, .. } => self.make_ballast(unit, run),
            Action::Spawn { unit, run } => self.spawn(unit, run),
            Action::Probe { unit, run } => self.probe(unit, run),
            Action::LookForPath { unit, run } => self.look_for_path(unit, run),
            Action::Freeze { unit, run } | Action::Hold { unit, run } => self.freeze(unit, run),
            Action::Thaw { unit, run } => self.thaw(unit, run),
            Action::TryLimit { unit, run, limit, step } => {
                if run.0 > 0 {
                    self.try_limit((unit, run), limit, step);
                }
            }
            Action::ReadPeak { unit, run } => {
                if !self.goes_wrong() {
                    self.tell(0, Event::ProcedurePeak { unit, run, peak_bytes: 1 << 20 });
                }
            }
            Action::Lend { unit, run, lend_bytes, .. } => self.lend(unit, run, lend_bytes),
            Action::TakeBack { unit, run, .. } => self.truth(unit, run).lent_bytes = 0,
            Action::StartProcedure { unit, run, .. } => self.start_procedure(unit, run),
            Action::RunCommand { unit, run, order } => self.run_command(unit, run, order),
            Action::KillCommand { unit, run, .. } => self.kill_command(unit, run),
            Action::Signal { unit, run, reason: KillReason::ReloadAsked, .. } => self.reloads(unit, run),
            Action::Signal { reason: KillReason::Warned, .. } => {}
            Action::Signal { unit, run, signal, .. } => {
                if !self.goes_wrong() {
                    let after_us = self.rng.between(100, 300_000);
                    let exit = self.rng.pick(&[Exit::Signal(signal), Exit::Code(0)]);
                    self.later((unit, run), after_us, What::MainEnds(exit));
                }
            }
            Action::SignalAll { unit, run, .. } => self.signal_all(unit, run),
            Action::KillCgroup { unit, run, role, .. } => self.kill(unit, run, role),
            Action::Doorbells { unit, run, on } => self.doorbells(unit, run, on),
            Action::Ring { unit, run, high_bytes: Some(_) } => self.later((unit, run), 5_000, What::HighMet),
            Action::Sample { unit, run } => self.sample(unit, run),
            Action::Adopt { unit } => self.adopt(unit),
            Action::Listen { unit, run } => self.listen(unit, run),
            Action::LookIdle { unit, run } => {
                if !self.goes_wrong() {
                    let idle = self.rng.per_mille(600);
                    self.tell(0, Event::LookedIdle { unit, run, idle });
                }
            }
            Action::EndProbe { .. }
            | Action::Ring { .. }
            | Action::Reclaim { .. }
            | Action::ReleaseMemory { .. }
            | Action::NotifyPressure { .. }
            | Action::CloseDescriptors { .. }
            | Action::Dismiss { .. }
            | Action::KeepIncident { .. }
            | Action::Log(_)
            | Action::Reply { .. }
            | Action::ReplyLimit { .. }
            | Action::EndLimit { .. }
            | Action::Finish { .. } => {}
        }
    }

    fn look_for_path(&mut self, unit: UnitId, run: RunId) {
        if self.truth(unit, run).path {
            self.tell(0, Event::Ready { unit, run });
        }
    }

    fn happen(&mut self, unit: UnitId, run: RunId, what: What) {
        if let What::Command(deed) = what {
            self.command_happens(unit, run, deed);
            return;
        }
        let truth = *self.truth(unit, run);
        let acts = truth.service.main && !truth.service.frozen && truth.up;
        match what {
            What::Exec => {
                if truth.service.main {
                    self.truth(unit, run).up = true;
                    let pid = self.pid();
                    self.tell(10, Event::Spawned { unit, run, pid });
                    self.live(unit, run);
                }
            }
            What::MainEnds(exit) if acts && !truth.service.unkillable => {
                self.truth(unit, run).service.main = false;
                self.ended(unit, run, Role::Service, exit);
            }
            What::OthersEnd if !truth.service.frozen => self.others_end(unit, run),
            What::BallastEnds(exit) => self.ballast_ends(unit, run, exit),
            What::Oom { again } if acts => self.out_of_memory(unit, run, again),
            What::OomOutside if acts && truth.service.ballast => self.canary_dies(unit, run, false),
            What::OomOutside if acts && !truth.service.unkillable => self.kernel_kills(unit, run, false),
            What::Strays if acts => self.tell(0, Event::Strayed { unit, run }),
            What::MaxMet if acts => {
                self.counters[usize::from(unit.0)].0.max += 1;
                self.ring(unit, run);
            }
            What::HighMet if acts => self.meets_high(unit, run),
            What::PressureRises if acts && !self.hushed[usize::from(unit.0)] => {
                self.tell(0, Event::PressureRang { unit, run })
            }
            What::Ready if acts => self.becomes_ready(unit, run),
            What::Ping if acts => self.pings(unit, run),
            What::Says(note) if acts => self.tell(0, Event::Notified { unit, run, note }),
            What::Sets(limit) => self.sets(unit, run, limit),
            What::Froze if truth.freezing => {
                self.truth(unit, run).service.frozen = true;
                self.tell(10, Event::Frozen { unit, run });
            }
            What::ProcedureEnds(exit) if truth.procedure.main && !truth.procedure.unkillable => {
                self.truth(unit, run).procedure.main = false;
                self.ended(unit, run, Role::Procedure, exit);
            }
            What::ProcedureOutgrows if truth.procedure.main => {
                self.truth(unit, run).procedure = Group::default();
                self.counters[usize::from(unit.0)].1.oom_kill += 1;
                let counters = self.counters[usize::from(unit.0)].1;
                self.tell(0, Event::MemoryEvents { unit, run, role: Role::Procedure, counters });
                self.ended(unit, run, Role::Procedure, Exit::Signal(SIGKILL));
            }
            What::Killed(role) => self.killed(unit, run, role),
            What::MainEnds(_)
            | What::OthersEnd
            | What::Ready
            | What::Ping
            | What::Says(_)
            | What::Froze
            | What::Oom { .. }
            | What::OomOutside
            | What::Strays
            | What::MaxMet
            | What::HighMet
            | What::PressureRises
            | What::ProcedureEnds(_)
            | What::Command(_)
            | What::ProcedureOutgrows => {}
        }
    }
}
