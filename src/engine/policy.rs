//! What the engine knows of a unit's description: numbers and choices, no commands and no paths.
//!
//! `unit::check` makes these from RON. The engine never sees a file.

use super::event::Exit;
use super::limits::WARN_STAGES_MAX;
use super::snapshot::Trouble;
use serde::{Deserialize, Serialize};

/// A unit's place in the table. It does not change while the unit is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitId(pub u16);

/// One life of a unit. Only grows; an event with another number than the current one is about a dead run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub u32);

/// Long-running, runs once to an end, or runs nothing at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Expected to stay up; its exit is judged by the restart policy.
    #[default]
    Service,
    /// Runs once: DONE with exit code 0, else EXITED. May run again on request.
    Task,
    /// A name for a group: no process, and RUNNING once what it requires is up.
    Target,
}

/// What a unit does when one that it requires comes to the end of a run and begins another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnRequirementRestart {
    /// It goes on.
    #[default]
    Keep,
    /// It is stopped, and started again once the other is up.
    Restart,
}

/// Which branch of the tree a unit's cgroup stands in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// Its `memory.max` is counted in full against the machine's memory.
    Guaranteed,
    /// Shares the pool with the other units of this class.
    #[default]
    Pool,
}

/// How a unit's `memory.max` is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    /// `oom_score_adj = -1000` inside the bounded cgroup: the kernel finds no victim and the service is pinned at
    /// its limit until lifeboat has frozen it.
    #[default]
    Shield,
    /// A ballast of some MiB with `oom_score_adj = +1000` in the same cgroup: at `memory.max` the kernel takes that
    /// first, which is the alarm, and the room to freeze the service in.
    Canary,
    /// The kernel kills the whole cgroup (`memory.oom.group = 1`); the procedure runs after that.
    None,
}

/// A unit's memory bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// `memory.max` of the unit's cgroup.
    pub max_bytes: u64,
    /// The branch of the tree.
    pub class: Class,
    /// How the bound is held.
    pub guard: Guard,
    /// A `memory.high` of its own; never with a shield.
    #[serde(default)]
    pub high_bytes: Option<u64>,
    /// With a canary: the size of its ballast, where the unit says it; else the engine finds one.
    #[serde(default)]
    pub ballast_bytes: Option<u64>,
}

/// How far a service's memory has come when it is warned. Shares are hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WarnWhen {
    /// So much of `memory.max` cannot be reclaimed.
    Share(u16),
    /// Its memory grows, and will be exhausted within so many milliseconds if that goes on.
    WithinMs(u32),
    /// So much of the time some of its tasks wait for memory: `some avg10` of `memory.pressure`.
    Pressure(u16),
}

/// What a warning does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WarnDeed {
    /// It is only told.
    Log,
    /// A signal to the service's first process.
    Signal(i32),
    /// The unit's warn command.
    Run,
    /// A byte in the FIFO that the service finds by `MEMORY_PRESSURE_WATCH`.
    Notify,
    /// `memory.reclaim` is told to free so many bytes.
    Reclaim(u64),
}

/// One warn stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarnStage {
    /// When it is due.
    pub when: WarnWhen,
    /// What it does.
    pub deed: WarnDeed,
    /// It is not due again before so much time has passed.
    pub every_ms: u32,
}

/// The warn stages of a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarnPolicy {
    /// In the order of its file.
    pub stages: [Option<WarnStage>; WARN_STAGES_MAX],
    /// What the warn command may take.
    pub timeout_ms: u32,
    /// The unit has no `memory.high` of its own: lifeboat may use it as a doorbell.
    pub rings: bool,
}

/// What becomes of the service while its shutdown procedure is at work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceMode {
    /// It stands still, and is killed afterwards: the procedure may read its memory.
    #[default]
    Frozen,
    /// It is lent memory and gets its stop signal, so that it saves itself; the procedure, if there is one, works
    /// beside it.
    Running,
    /// It is killed before: what the procedure needs is outside of it.
    Killed,
}

/// A unit's shutdown procedure, as far as the engine decides about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcedurePolicy {
    /// It runs when memory is exhausted.
    pub on_exhaustion: bool,
    /// It also runs on an ordinary stop.
    pub on_stop: bool,
    /// It also runs when a living service is judged to have failed: not ready in time, or not alive any more.
    pub on_failure: bool,
    /// From its start to the kill.
    pub deadline_ms: u32,
    /// `memory.high` of its own cgroup in the shutdown slice; 0 where there is no program.
    pub memory_bytes: u64,
    /// What becomes of the service meanwhile.
    pub service: ServiceMode,
    /// What `ServiceMode::Running` adds to the service's own bound, out of the reserve.
    pub lend_bytes: u64,
    /// There is a program. Without one a service that is `Running` saves itself alone.
    pub has_program: bool,
    /// That program runs from the start of the service on, and waits there for its work.
    pub resident: bool,
    /// While the service is up it is drilled to the procedure and back, so long after the last time.
    #[serde(default)]
    pub drill_every_ms: Option<u32>,
    /// There is a second program, for when that one fails.
    pub has_otherwise: bool,
    /// What comes after an exhaustion in place of the restart policy, if anything.
    pub then: Option<Escalation>,
}

impl ProcedurePolicy {
    /// What of the reserve it takes while it is at work.
    #[must_use]
    pub fn reserve_bytes(&self) -> u64 {
        self.memory_bytes.saturating_add(self.lend_bytes)
    }
}

/// How a service shows that it is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ready {
    /// By its `execve` alone.
    #[default]
    Start,
    /// By `READY=1` of sd_notify(3).
    Notify,
    /// By a newline on a file descriptor that it was given, as s6 has it.
    NotificationFd,
    /// By a path that appears.
    Path,
    /// So many milliseconds after its `execve`.
    AfterMs(u32),
}

/// How it is found out that a service does not answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthPolicy {
    /// From readiness to the first check, and from the end of one to the next.
    pub interval_ms: u32,
    /// A check that takes longer has failed.
    pub timeout_ms: u32,
    /// So many failed checks in a row and the service has failed.
    pub failures: u32,
    /// It is a command, not a connection.
    pub command: bool,
}

/// How a service is told to read its configuration anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadPolicy {
    /// By a command; else by the signal.
    pub command: bool,
    /// The signal.
    pub signal: i32,
    /// It says `RELOADING=1` and then `READY=1`.
    pub notifies: bool,
    /// One that takes longer has failed.
    pub timeout_ms: u32,
}

/// When a service that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartWhen {
    /// After every end that was not asked for.
    #[default]
    Always,
    /// After an exit code other than 0, a signal, or an exhaustion.
    OnFailure,
    /// After an exhaustion of its memory only.
    OnExhaustion,
    /// Never.
    Never,
}

/// What comes when another start of a unit is no cure any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Escalation {
    /// It stays down; everything else goes on.
    #[default]
    Stop,
    /// It stays down, and this unit is started in its stead until it is up again.
    Fallback(UnitId),
    /// The machine is stopped in order and restarted.
    Reboot,
    /// The machine is stopped in order and switched off.
    PowerOff,
    /// All that the rescue unit does not need is stopped in order, then the rescue unit is started.
    Rescue,
}

/// How many exhaustions are too many, whatever the runs between them were like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExhaustionBudget {
    /// So many within the window and the budget is used up.
    pub times: u32,
    /// The window.
    pub within_ms: u32,
    /// What comes then; `None`: it is said, and the unit goes on under its restart policy.
    pub then: Option<Escalation>,
}

impl Default for ExhaustionBudget {
    fn default() -> Self {
        Self { times: 3, within_ms: 600_000, then: None }
    }
}

/// The ends that count as a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// One bit for each exit code.
    codes: [u64; 4],
    /// One bit for each signal's number less one.
    signals: u64,
}

impl Default for Success {
    /// Exit code 0 alone.
    fn default() -> Self {
        Self { codes: [1, 0, 0, 0], signals: 0 }
    }
}

impl Success {
    /// Counts this end too. One that cannot be (an exit code above 255, a signal above 64) is left out.
    pub fn add(&mut self, exit: Exit) {
        match exit {
            Exit::Code(code) => {
                let word = usize::try_from(code / 64).ok().and_then(|at| self.codes.get_mut(at));
                if let (Some(word), 0..) = (word, code) {
                    *word |= 1 << (code % 64);
                }
            }
            Exit::Signal(signal @ 1..=64) => self.signals |= 1 << (signal - 1),
            Exit::Signal(_) | Exit::Unseen {} => {}
        }
    }

    /// Whether this end is a success.
    #[must_use]
    pub fn contains(&self, exit: Exit) -> bool {
        match exit {
            Exit::Code(code @ 0..=255) => {
                let word = usize::try_from(code / 64).ok().and_then(|at| self.codes.get(at));
                word.is_some_and(|word| word >> (code % 64) & 1 == 1)
            }
            Exit::Signal(signal @ 1..=64) => self.signals >> (signal - 1) & 1 == 1,
            Exit::Code(_) | Exit::Signal(_) | Exit::Unseen {} => false,
        }
    }
}

/// The restart policy of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// After which ends.
    pub when: RestartWhen,
    /// Before the first restart; doubles with each start that did not last.
    pub delay_ms: u32,
    /// The cap of the doubling.
    pub max_delay_ms: u32,
    /// A run that was ready for so long is healthy: the next start comes at once, and the doubling begins anew.
    pub healthy_ms: u32,
    /// So many starts within `limit_within_ms` and the unit is given up.
    pub limit_starts: u32,
    /// The window of the start limit.
    pub limit_within_ms: u32,
    /// What comes when it is given up: by the limit, or because no further start can help.
    pub on_limit: Escalation,
    /// Its exhaustions are counted apart: a leak that takes its time passes for a row of healthy runs.
    pub exhaustion: ExhaustionBudget,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            when: RestartWhen::Always,
            delay_ms: 100,
            max_delay_ms: 30_000,
            healthy_ms: 10_000,
            limit_starts: 10,
            limit_within_ms: 60_000,
            on_limit: Escalation::Stop,
            exhaustion: ExhaustionBudget::default(),
        }
    }
}

/// The descriptors that the runtime holds for a unit over its runs, and what they may start and stop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorPolicy {
    /// The names of its sockets.
    pub sockets: Vec<String>,
    /// It rests with its sockets open until somebody needs it.
    pub on_demand: bool,
    /// It is stopped when nobody has needed it for so long; only with `on_demand`.
    pub idle_stop_ms: Option<u32>,
    /// So many descriptors it may store itself.
    pub store_max: u16,
}

impl DescriptorPolicy {
    /// There may be something to close when the unit goes down for good.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.sockets.is_empty() || self.store_max > 0
    }
}

/// Everything about a unit that decisions rest on.
///
/// It is written down with an incident, but for what says how it stands to other units, and what a checkpoint has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitPolicy {
    /// The unit's name: its file name without `.ron`.
    #[serde(skip)]
    pub name: String,
    /// One line for people.
    #[serde(skip)]
    pub description: String,
    /// Service, task or target.
    pub kind: Kind,
    /// Started at boot.
    #[serde(skip)]
    pub autostart: bool,
    /// Order only: where these are on their way up too, this unit waits until they are RUNNING (a task: DONE) or have
    /// failed, and it is stopped before them.
    #[serde(skip)]
    pub after: Vec<UnitId>,
    /// `after`, said by the other side.
    #[serde(skip)]
    pub before: Vec<UnitId>,
    /// Started with this unit and before it; where one of these is down, this unit is stopped or not started.
    #[serde(skip)]
    pub requires: Vec<UnitId>,
    /// Started with this unit and before it; whether they come up, and stay up, is no matter.
    #[serde(skip)]
    pub wants: Vec<UnitId>,
    /// Never up at the same time as this unit: the start of one stops the other, and waits for its end.
    #[serde(skip)]
    pub conflicts: Vec<UnitId>,
    /// What it does when one of `requires` begins a new run.
    #[serde(skip)]
    pub on_requirement_restart: OnRequirementRestart,
    /// What must be so for it to be started, as it was written; the runtime looks. One that is not so: SKIPPED.
    #[serde(skip)]
    pub conditions: Vec<String>,
    /// The memory bound, if any.
    #[serde(skip)]
    pub memory: Option<MemoryPolicy>,
    /// When it is warned that its memory comes to an end.
    pub warn: WarnPolicy,
    /// What its running is worth, 0 to 100: under shortage the highest is served first.
    #[serde(skip)]
    pub utility: u8,
    /// How it shows that it is ready.
    pub ready: Ready,
    /// From the making of its process to its readiness.
    pub start_timeout_ms: u32,
    /// At least so often it has to say that it is alive, once it is ready; `None`: never.
    pub watchdog_ms: Option<u32>,
    /// How its health is checked, once it is ready.
    pub health: Option<HealthPolicy>,
    /// The descriptors that outlive its runs.
    pub descriptors: DescriptorPolicy,
    /// The shutdown procedure, if any.
    pub procedure: Option<ProcedurePolicy>,
    /// An ordinary stop begins with a command.
    pub stop_command: bool,
    /// The first signal of an ordinary stop.
    pub stop_signal: i32,
    /// What the command may take, and from that signal to `cgroup.kill`.
    pub stop_timeout_ms: u32,
    /// How it is told to read its configuration anew.
    pub reload: Option<ReloadPolicy>,
    /// Which of its ends count as a success.
    pub success: Success,
    /// What happens when it ends by itself.
    pub restart: RestartPolicy,
    /// Found unfit before anything started: it stays FATAL with this reason, and everything else goes on.
    #[serde(skip)]
    pub refused: Option<Trouble>,
}

impl UnitPolicy {
    /// Takes the neighbours, and what comes of its ends, of another definition of the same unit.
    pub fn take_neighbours(&mut self, other: &Self) {
        self.after.clone_from(&other.after);
        self.before.clone_from(&other.before);
        self.requires.clone_from(&other.requires);
        self.wants.clone_from(&other.wants);
        self.conflicts.clone_from(&other.conflicts);
        self.restart.on_limit = other.restart.on_limit;
        self.restart.exhaustion.then = other.restart.exhaustion.then;
        if let Some(procedure) = &mut self.procedure {
            procedure.then = other.procedure.and_then(|procedure| procedure.then);
        }
    }

    /// Has no neighbours any more.
    pub fn forget_neighbours(&mut self) {
        self.after.clear();
        self.requires.clear();
    }

    /// Every other unit that it names, to be renumbered with the table: its neighbours and its fallbacks.
    pub fn others_mut(&mut self) -> impl Iterator<Item = &mut UnitId> {
        let procedure = self.procedure.as_mut().and_then(|procedure| procedure.then.as_mut());
        let restart = &mut self.restart;
        let fallbacks = [Some(&mut restart.on_limit), restart.exhaustion.then.as_mut(), procedure];
        let fallbacks = fallbacks.into_iter().flatten().filter_map(|then| match then {
            Escalation::Fallback(to) => Some(to),
            Escalation::Stop | Escalation::Reboot | Escalation::PowerOff | Escalation::Rescue => None,
        });
        let lists =
            [&mut self.after, &mut self.before, &mut self.requires, &mut self.wants, &mut self.conflicts];
        lists.into_iter().flatten().chain(fallbacks)
    }

    /// The same, to be read.
    pub fn others(&self) -> impl Iterator<Item = UnitId> {
        let procedure = self.procedure.and_then(|procedure| procedure.then);
        let fallbacks = [Some(self.restart.on_limit), self.restart.exhaustion.then, procedure];
        let fallbacks = fallbacks.into_iter().flatten().filter_map(|then| match then {
            Escalation::Fallback(to) => Some(to),
            Escalation::Stop | Escalation::Reboot | Escalation::PowerOff | Escalation::Rescue => None,
        });
        self.after.iter().chain(&self.requires).copied().chain(fallbacks)
    }

    /// Some end of it leads to the rescue.
    #[must_use]
    pub fn calls_rescue(&self) -> bool {
        let thens = [
            Some(self.restart.on_limit),
            self.restart.exhaustion.then,
            self.procedure.and_then(|procedure| procedure.then),
        ];
        thens.contains(&Some(Escalation::Rescue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_success_when_it_was_named() {
        let mut success = Success::default();
        assert!(success.contains(Exit::Code(0)) && !success.contains(Exit::Code(64)));
        for exit in [Exit::Code(1), Exit::Code(64), Exit::Code(255), Exit::Signal(1), Exit::Signal(64)] {
            assert!(!success.contains(exit), "{exit:?}");
            success.add(exit);
            assert!(success.contains(exit), "{exit:?}");
        }
        for exit in [-64, -1, 256, i32::MIN, i32::MAX].map(Exit::Code) {
            success.add(exit);
            assert!(!success.contains(exit), "{exit:?}");
        }
        for exit in [-1, 0, 65, i32::MIN, i32::MAX].map(Exit::Signal) {
            success.add(exit);
            assert!(!success.contains(exit), "{exit:?}");
        }
        assert!(!success.contains(Exit::Code(2)) && !success.contains(Exit::Signal(15)));
    }
}
