//! A kernel in memory: it performs what the engine asks for, lets processes live and die with random delays and faults,
//! and keeps the truth of which processes live.
//!
//! A change of the truth (`Happening`) and the event that tells of it are two things at two times, as they are on a
//! real machine.

use crate::rng::Rng;
use lifeboat::engine::action::Action;
use lifeboat::engine::event::{
    Effect, Event, Exit, MemoryEvents, MemorySample, Note, Role, SpawnStage, Time,
};
use lifeboat::engine::policy::{Guard, Kind, Ready, RunId, UnitId, UnitPolicy};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;
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
}

impl Group {
    pub(crate) fn populated(self) -> bool {
        self.main || self.others
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
    MaxMet,
    PressureRises,
    Froze,
    ProcedureEnds(Exit),
    ProcedureOutgrows,
    Killed(Role),
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
    /// By unit, then by run (the first run is 1).
    runs: Vec<Vec<Truth>>,
    counters: Vec<(MemoryEvents, MemoryEvents)>,
    unreclaimable_bytes: Vec<u64>,
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
            runs: vec![Vec::new(); policies.len()],
            counters: vec![Default::default(); policies.len()],
            unreclaimable_bytes: vec![0; policies.len()],
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
            Action::Park { unit, run } => self.park(unit, run),
            Action::Spawn { unit, run } => self.spawn(unit, run),
            Action::Probe { unit, run } => self.probe(unit, run),
            Action::LookForPath { unit, run } => {
                if self.truth(unit, run).path {
                    self.tell(0, Event::Ready { unit, run });
                }
            }
            Action::Freeze { unit, run } => self.freeze(unit, run),
            Action::StartProcedure { unit, run, .. } => self.start_procedure(unit, run),
            Action::Signal { unit, run, signal, .. } => {
                if !self.goes_wrong() {
                    let after_us = self.rng.between(100, 300_000);
                    let exit = self.rng.pick(&[Exit::Signal(signal), Exit::Code(0)]);
                    self.later((unit, run), after_us, What::MainEnds(exit));
                }
            }
            Action::KillCgroup { unit, run, role, .. } => self.kill(unit, run, role),
            Action::Sample { unit, run } => self.sample(unit, run),
            Action::EndProbe { .. } | Action::Log(_) | Action::Reply { .. } | Action::Finish { .. } => {}
        }
    }

    fn pid(&mut self) -> u32 {
        self.pids += 1;
        self.pids
    }

    fn fault(&mut self) -> (SpawnStage, i32) {
        let stage = self.rng.pick(&[
            SpawnStage::Cgroup,
            SpawnStage::Limit,
            SpawnStage::Clone,
            SpawnStage::OomScoreAdj,
            SpawnStage::WorkingDirectory,
            SpawnStage::Exec,
            SpawnStage::User,
        ]);
        (stage, self.rng.pick(&[2, 11, 12, 13, 16]))
    }

    fn park(&mut self, unit: UnitId, run: RunId) {
        let delay_us = self.short();
        if self.goes_wrong() && self.rng.per_mille(500) {
            let (stage, errno) = self.fault();
            let event = Event::SpawnFailed { unit, run, role: Role::Procedure, stage, errno };
            self.tell(delay_us, event);
            return;
        }
        self.truth(unit, run).procedure.main = true;
        // Without this, it hangs on its way: the start's deadline is for that.
        if !(self.goes_wrong() && self.rng.per_mille(200)) {
            let pid = self.pid();
            self.tell(delay_us, Event::Parked { unit, run, pid });
        }
        if self.goes_wrong() && self.rng.per_mille(300) {
            let after_us = self.rng.between(0, self.life_ms * 1_000);
            self.later((unit, run), after_us, What::ProcedureEnds(Exit::Signal(SIGKILL)));
        }
    }

    fn spawn(&mut self, unit: UnitId, run: RunId) {
        let delay_us = self.short();
        if self.goes_wrong() && self.rng.per_mille(500) {
            let (stage, errno) = self.fault();
            self.tell(delay_us, Event::SpawnFailed { unit, run, role: Role::Service, stage, errno });
            return;
        }
        let unkillable = self.trouble > 0 && self.rng.per_mille(4);
        self.unreclaimable_bytes[usize::from(unit.0)] = 0;
        self.truth(unit, run).service = Group { main: true, unkillable, ..Group::default() };
        if self.goes_wrong() && self.rng.per_mille(100) {
            return;
        }
        self.later((unit, run), delay_us, What::Exec);
    }

    /// The service runs: what will become of it is thrown now.
    fn live(&mut self, unit: UnitId, run: RunId) {
        let id = (unit, run);
        let policy = &self.policies[usize::from(unit.0)];
        let (task, bounded) = (policy.kind == Kind::Task, policy.memory.is_some());
        let life_us = self.rng.between(0, 2 * self.life_ms * 1_000);
        if task {
            let exit = if self.goes_wrong() { Exit::Code(1) } else { Exit::Code(0) };
            let work_us = self.rng.between(100, 2_000_000);
            self.later(id, work_us, What::MainEnds(exit));
        } else if self.rng.per_mille(500) {
            let exit = self.rng.pick(&[Exit::Code(0), Exit::Code(1), Exit::Signal(SIGSEGV)]);
            self.later(id, life_us, What::MainEnds(exit));
        }
        self.speak(unit, run);
        if self.goes_wrong() {
            self.truth(unit, run).service.others = true;
            if self.rng.per_mille(500) {
                self.later(id, 2 * life_us, What::OthersEnd);
            }
        }
        if bounded {
            for _ in 0..self.rng.between(0, 3) {
                let after_us = self.rng.between(0, life_us + 1);
                let what = self.rng.pick(&[What::MaxMet, What::PressureRises]);
                self.later(id, after_us, what);
            }
            if self.rng.per_mille(500) {
                let after_us = self.rng.between(0, life_us + 1);
                self.later(id, after_us, What::Oom { again: 3 });
            }
        }
        if self.goes_wrong() && self.rng.per_mille(200) {
            self.later(id, life_us, What::OomOutside);
        }
    }

    /// What it will say: ready early, late, twice or never; alive for a while; and lies.
    fn speak(&mut self, unit: UnitId, run: RunId) {
        let id = (unit, run);
        if !self.goes_wrong() {
            let after_us = self.rng.pick(&[0, 1_000, 300_000, 2_900_000, 4_000_000]);
            self.later(id, after_us, What::Ready);
        }
        self.later(id, 0, What::Ping);
        if self.rng.per_mille(200) {
            let notes =
                [Note::Reloading, Note::Stopping, Note::Failing, Note::ExtendMs(2_000), Note::MainPid(9)];
            let (note, after_us) = (self.rng.pick(&notes), self.rng.between(0, 2_000_000));
            self.later(id, after_us, What::Says(note));
        }
    }

    /// By the unit's own way, and now and then by another, which must not count.
    fn becomes_ready(&mut self, unit: UnitId, run: RunId) {
        self.truth(unit, run).path = true;
        let by_note = match self.policies[usize::from(unit.0)].ready {
            Ready::Notify => true,
            Ready::NotificationFd => false,
            Ready::Start | Ready::Path | Ready::AfterMs(_) => return,
        };
        if by_note != self.rng.per_mille(50) {
            self.tell(0, Event::Notified { unit, run, note: Note::Ready });
        } else {
            self.tell(0, Event::Ready { unit, run });
        }
    }

    /// Most are answered well, some badly, some too late, and some never.
    fn probe(&mut self, unit: UnitId, run: RunId) {
        if self.rng.per_mille(30) {
            return;
        }
        let healthy = !self.rng.per_mille(100);
        let delay_us = self.rng.pick(&[0, 0, 500, 90_000, 1_000_000, 2_500_000]);
        self.tell(delay_us, Event::Probed { unit, run, healthy });
    }

    fn pings(&mut self, unit: UnitId, run: RunId) {
        let Some(ms) = self.policies[usize::from(unit.0)].watchdog_ms else { return };
        self.tell(0, Event::Notified { unit, run, note: Note::Alive });
        if !self.rng.per_mille(50) {
            self.later((unit, run), u64::from(ms) * 500, What::Ping);
        }
    }

    fn freeze(&mut self, unit: UnitId, run: RunId) {
        if self.goes_wrong() {
            match self.rng.between(0, 3) {
                0 => self.tell(0, Event::Failed { unit, run, effect: Effect::Freeze, errno: 16 }),
                1 => self.later((unit, run), 700_000, What::Froze),
                _ => {}
            }
            return;
        }
        let after_us = self.rng.between(10, 200_000);
        self.later((unit, run), after_us, What::Froze);
    }

    fn start_procedure(&mut self, unit: UnitId, run: RunId) {
        if !self.truth(unit, run).procedure.main {
            self.tell(0, Event::Failed { unit, run, effect: Effect::StartProcedure, errno: ESRCH });
            return;
        }
        self.truth(unit, run).released = true;
        if self.goes_wrong() && self.rng.per_mille(300) {
            self.truth(unit, run).procedure.main = false;
            let event = Event::SpawnFailed {
                unit,
                run,
                role: Role::Procedure,
                stage: SpawnStage::Exec,
                errno: self.rng.pick(&[2, 12]),
            };
            self.tell(50, event);
            self.tell(60, Event::Exited { unit, run, role: Role::Procedure, exit: Exit::Code(127) });
            self.tell(60, Event::Emptied { unit, run, role: Role::Procedure });
            return;
        }
        self.tell(100, Event::ProcedureRunning { unit, run });
        let after_us = self.rng.between(200, 3_000_000);
        if !self.goes_wrong() {
            self.later((unit, run), after_us, What::ProcedureEnds(Exit::Code(0)));
            return;
        }
        match self.rng.between(0, 3) {
            0 => self.later((unit, run), after_us, What::ProcedureEnds(Exit::Signal(SIGSEGV))),
            1 => self.later((unit, run), after_us, What::ProcedureOutgrows),
            2 => {
                self.truth(unit, run).procedure.others = true;
                self.later((unit, run), after_us, What::ProcedureEnds(Exit::Code(0)));
            }
            _ => self.truth(unit, run).procedure.unkillable = self.rng.per_mille(30),
        }
    }

    fn kill(&mut self, unit: UnitId, run: RunId, role: Role) {
        if self.goes_wrong() && self.rng.per_mille(200) {
            self.tell(0, Event::Failed { unit, run, effect: Effect::Kill, errno: 19 });
            return;
        }
        let slow = self.goes_wrong();
        let after_us = if slow { self.rng.between(1, 9_000_000) } else { self.rng.between(1, 30_000) };
        self.later((unit, run), after_us, What::Killed(role));
    }

    fn sample(&mut self, unit: UnitId, run: RunId) {
        let Some(memory) = self.policies[usize::from(unit.0)].memory else { return };
        let step = memory.max_bytes / self.rng.pick(&[4, 16, 64, 512]);
        let bytes = &mut self.unreclaimable_bytes[usize::from(unit.0)];
        *bytes = match self.rng.between(0, 3) {
            0 => bytes.saturating_sub(step),
            1 => *bytes,
            _ => (*bytes + step).min(memory.max_bytes),
        };
        let sample = MemorySample {
            current_bytes: memory.max_bytes,
            unreclaimable_bytes: *bytes,
            ..MemorySample::default()
        };
        let delay_us = self.rng.pick(&[0, 100, 2_000]);
        self.tell(delay_us, Event::MemorySampled { unit, run, sample });
    }

    fn happen(&mut self, unit: UnitId, run: RunId, what: What) {
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
            What::OthersEnd if !truth.service.frozen && truth.service.others => {
                self.truth(unit, run).service.others = false;
                self.tell_if_empty(unit, run, Role::Service);
            }
            What::Oom { again } if acts => self.out_of_memory(unit, run, again),
            What::OomOutside if acts && !truth.service.unkillable => self.kernel_kills(unit, run, false),
            What::MaxMet if acts => {
                self.counters[usize::from(unit.0)].0.max += 1;
                self.tell_counters(unit, run);
            }
            What::PressureRises if acts => self.tell(0, Event::PressureRang { unit, run }),
            What::Ready if acts => self.becomes_ready(unit, run),
            What::Ping if acts => self.pings(unit, run),
            What::Says(note) if acts => self.tell(0, Event::Notified { unit, run, note }),
            What::Froze => {
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
            | What::Oom { .. }
            | What::OomOutside
            | What::MaxMet
            | What::PressureRises
            | What::ProcedureEnds(_)
            | What::ProcedureOutgrows => {}
        }
    }

    fn out_of_memory(&mut self, unit: UnitId, run: RunId, again: u8) {
        let guard = self.policies[usize::from(unit.0)].memory.map(|memory| memory.guard);
        if guard == Some(Guard::None) {
            self.kernel_kills(unit, run, true);
            return;
        }
        self.counters[usize::from(unit.0)].0.oom += 1;
        self.counters[usize::from(unit.0)].0.max += 1;
        self.tell_counters(unit, run);
        if again > 0 {
            self.later((unit, run), 40_000, What::Oom { again: again - 1 });
        }
    }

    /// The counters are told before the end of the process, as the runtime promises it.
    fn kernel_kills(&mut self, unit: UnitId, run: RunId, own_limit: bool) {
        if self.truth(unit, run).service.unkillable {
            return;
        }
        let counters = &mut self.counters[usize::from(unit.0)].0;
        counters.oom += u64::from(own_limit);
        counters.oom_kill += 1;
        self.truth(unit, run).service = Group::default();
        let counters = self.counters[usize::from(unit.0)].0;
        self.schedule(0, Item::Event(Event::MemoryEvents { unit, run, role: Role::Service, counters }));
        self.ended(unit, run, Role::Service, Exit::Signal(SIGKILL));
    }

    fn tell_counters(&mut self, unit: UnitId, run: RunId) {
        let counters = self.counters[usize::from(unit.0)].0;
        self.schedule(0, Item::Event(Event::MemoryEvents { unit, run, role: Role::Service, counters }));
    }

    fn ended(&mut self, unit: UnitId, run: RunId, role: Role, exit: Exit) {
        let delay_us = self.rng.pick(&[0, 100, 5_000]);
        self.tell(delay_us, Event::Exited { unit, run, role, exit });
        self.tell_if_empty(unit, run, role);
    }

    fn group(&mut self, unit: UnitId, run: RunId, role: Role) -> &mut Group {
        match role {
            Role::Service => &mut self.truth(unit, run).service,
            Role::Procedure => &mut self.truth(unit, run).procedure,
        }
    }

    fn tell_if_empty(&mut self, unit: UnitId, run: RunId, role: Role) {
        if !self.group(unit, run, role).populated() {
            let delay_us = self.rng.pick(&[0, 100, 5_000]);
            self.tell(delay_us, Event::Emptied { unit, run, role });
        }
    }

    fn killed(&mut self, unit: UnitId, run: RunId, role: Role) {
        let group = self.group(unit, run, role);
        if group.unkillable && group.populated() {
            return;
        }
        let had_main = group.main;
        *group = Group { unkillable: group.unkillable, ..Group::default() };
        if had_main {
            self.ended(unit, run, role, Exit::Signal(SIGKILL));
        } else {
            self.tell_if_empty(unit, run, role);
        }
    }
}
