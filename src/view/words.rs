//! The small words: sizes, times, exits, errors. Each is a `Display` that allocates nothing.

use crate::engine::event::{CommandKind, Effect, Exit, Role, ShutdownKind, SpawnStage, Verb};
use crate::engine::policy::UnitId;
use crate::engine::setting::{Limit, Setting};
use crate::engine::snapshot::{
    Bound, Cause, Failure, KillReason, KilledBy, Killer, ProcedureResult, StateName, Trouble, Verdict,
};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::fmt::{self, Display, Formatter};

/// The name of a unit by its id; `?` for an id that is not in the table.
#[must_use]
pub fn name_of<S: AsRef<str>>(names: &[S], unit: UnitId) -> &str {
    names.get(usize::from(unit.0)).map_or("?", AsRef::as_ref)
}

/// A state in supervisorctl's capitals.
#[must_use]
pub fn state(state: StateName) -> &'static str {
    match state {
        StateName::Stopped => "STOPPED",
        StateName::Listening => "LISTENING",
        StateName::Starting => "STARTING",
        StateName::Running => "RUNNING",
        StateName::Backoff => "BACKOFF",
        StateName::Stopping => "STOPPING",
        StateName::Exited => "EXITED",
        StateName::Fatal => "FATAL",
        StateName::Done => "DONE",
        StateName::Skipped => "SKIPPED",
        StateName::Rescuing => "RESCUING",
    }
}

/// An errno in words: "No such file or directory".
#[must_use]
pub fn errno(errno: i32) -> &'static str {
    Errno::from_raw(errno).desc()
}

/// What was being done when a start failed, with the kernel's word for it.
#[must_use]
pub fn stage(stage: SpawnStage) -> &'static str {
    match stage {
        SpawnStage::Cgroup => "making its cgroup",
        SpawnStage::Limit => "setting a limit of its cgroup",
        SpawnStage::Clone => "clone3",
        SpawnStage::JoinCgroup => "entering its cgroup",
        SpawnStage::OomScoreAdj => "writing oom_score_adj",
        SpawnStage::Stdio => "setting its standard input and output",
        SpawnStage::WorkingDirectory => "entering its working directory",
        SpawnStage::Exec => "execve",
        SpawnStage::ResourceLimit => "setrlimit",
        SpawnStage::Nice => "setpriority",
        SpawnStage::Scheduler => "sched_setscheduler",
        SpawnStage::CpuAffinity => "sched_setaffinity",
        SpawnStage::IoPriority => "ioprio_set",
        SpawnStage::MountNamespace => "making its mount namespace",
        SpawnStage::RootDirectory => "entering its root directory",
        SpawnStage::ReadOnly => "making a path read-only",
        SpawnStage::Hidden => "hiding a path",
        SpawnStage::PrivateTmp => "mounting its own /tmp",
        SpawnStage::PrivateShm => "mounting its own /dev/shm",
        SpawnStage::Groups => "setgroups",
        SpawnStage::Group => "setresgid",
        SpawnStage::User => "setresuid",
        SpawnStage::Capabilities => "setting its capabilities",
        SpawnStage::NoNewPrivs => "setting no_new_privs",
        SpawnStage::Sockets => "opening its sockets",
    }
}

/// Why something was killed or is stopped.
#[must_use]
pub fn kill_reason(reason: KillReason) -> &'static str {
    match reason {
        KillReason::StopAsked => "asked to stop",
        KillReason::StopTimedOut => "did not stop in time",
        KillReason::Shutdown => "the machine is going down",
        KillReason::Idle => "nobody needs it",
        KillReason::RequirementDown => "a unit that it requires is down",
        KillReason::RequirementRestarts => "a unit that it requires begins anew",
        KillReason::Conflict => "a unit was started that it conflicts with",
        KillReason::ProcedureEnded => "procedure ended",
        KillReason::ProcedureTimedOut => "procedure met its deadline",
        KillReason::NoProcedure => "memory exhausted, no procedure for that",
        KillReason::ProcedureLost => "it has no procedure parked any more",
        KillReason::LoanSpent => "what it was lent is exhausted too",
        KillReason::BeforeProcedure => "its shutdown procedure comes after it",
        KillReason::MemoryLent => "memory exhausted, it saves itself",
        KillReason::ProcedureFailed => "procedure could not be started",
        KillReason::LeftBehind => "left behind by the first process",
        KillReason::Failed(why) => failure(why),
        KillReason::StartFailed => "the start failed half way",
        KillReason::Replaced => "the unit in whose stead it ran is up again",
        KillReason::Rescue => "the rescue does not need it",
        KillReason::NotNeeded => "not needed any more",
        KillReason::Changed => "its definition has changed",
        KillReason::Removed => "it was taken out",
        KillReason::CommandTimedOut => "the command met its deadline",
        KillReason::ReloadAsked => "asked to reload",
        KillReason::Warned => "warned that its memory comes to an end",
    }
}

/// Why a service that lives is judged to have failed.
#[must_use]
pub fn failure(failure: Failure) -> &'static str {
    match failure {
        Failure::NotReady => "it was not ready within its start_timeout",
        Failure::WatchdogMissed => "it did not say within its watchdog time that it is alive",
        Failure::LeftItsCgroup => "it has left its cgroup, so its limits hold nothing",
        Failure::Unhealthy => "its health checks failed too often",
        Failure::NotStopped => "it said that it stops, and did not within its stop.timeout",
        Failure::WatchdogTriggered => "it said itself that it has failed",
    }
}

/// What the kernel has not done.
#[must_use]
pub fn undone(effect: Effect) -> &'static str {
    match effect {
        Effect::Freeze => "cgroup.freeze cannot be written",
        Effect::Kill => "cgroup.kill cannot be written",
        Effect::Signal => "what is left cannot be sent the stop signal",
        Effect::StartProcedure => "the procedure cannot be released",
        Effect::Lend => "memory cannot be lent",
    }
}

/// What a person asks for.
#[must_use]
pub fn verb(verb: Verb) -> &'static str {
    match verb {
        Verb::Start => "start",
        Verb::Stop => "stop",
        Verb::Restart => "restart",
        Verb::Reload => "reload",
        Verb::Drill => "drill",
        Verb::DrillToTheEnd => "drill to the end",
    }
}

/// Why a procedure runs.
#[must_use]
pub fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Exhaustion => "memory is exhausted",
        Cause::KernelOomKill => "the kernel's OOM killer struck",
        Cause::Stop => "asked to stop",
        Cause::Failure => "the service has failed",
        Cause::Drill => "a drill",
    }
}

/// Who ended the service.
#[must_use]
pub fn killer(killer: Killer) -> &'static str {
    match killer {
        Killer::Lifeboat => "lifeboat, by cgroup.kill",
        Killer::Itself => "the service itself",
        Killer::KernelCgroup => "the kernel's OOM killer, at the unit's own limit",
        Killer::KernelOutside => "the kernel's OOM killer, because memory ran out above the unit",
    }
}

/// Who killed a service, where lifeboat did not.
#[must_use]
pub fn killed_by(by: KilledBy) -> &'static str {
    match by {
        KilledBy::GlobalOom => "the kernel's global OOM killer",
        KilledBy::CgroupOom => "the kernel's OOM killer, at the limit of a cgroup",
        KilledBy::Outside => "SIGKILL from outside lifeboat",
    }
}

/// A role as one word for what is killed.
#[must_use]
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Service => "service",
        Role::Procedure => "procedure",
        Role::Command => "command",
        Role::Ballast => "ballast",
    }
}

/// What a command beside a service is.
#[must_use]
pub fn command(kind: CommandKind) -> &'static str {
    match kind {
        CommandKind::Stop => "stop command",
        CommandKind::Reload => "reload",
        CommandKind::Health => "health check",
        CommandKind::Warn => "warn command",
    }
}

/// How the machine ends.
#[must_use]
pub fn shutdown(how: ShutdownKind) -> &'static str {
    match how {
        ShutdownKind::PowerOff => "power off",
        ShutdownKind::Reboot => "reboot",
        ShutdownKind::Halt => "halt",
    }
}

/// A limit's value: "32 MiB", "50 %", "max".
#[derive(Clone, Copy, Debug)]
pub struct LimitWords(pub Limit);

impl Display for LimitWords {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.0.setting, self.0.value) {
            (_, None) => f.write_str("max"),
            (Setting::CpuMax, Some(share)) if share % 100 == 0 => write!(f, "{} %", share / 100),
            (Setting::CpuMax, Some(share)) => write!(f, "{}.{:02} %", share / 100, share % 100),
            (Setting::MemoryMax | Setting::MemoryHigh, Some(bytes)) => write!(f, "{}", Bytes(bytes)),
            (_, Some(value)) => write!(f, "{value}"),
        }
    }
}

/// How a unit stands still, with the cure.
#[derive(Clone, Copy, Debug)]
pub struct StallWords(pub Verdict);

impl Display for StallWords {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Verdict::HeldAtHigh { unreclaimable_bytes, high_bytes, psi_full_avg10 } => {
                let (high, hard) = (Bytes(high_bytes), Bytes(unreclaimable_bytes));
                let share = Tenths::of(u64::from(psi_full_avg10), 100);
                write!(
                    f,
                    "held at memory.high {high}: {hard} cannot be reclaimed, {share} % of the time nothing "
                )?;
                f.write_str("runs; raise memory.high or drop it")
            }
            Verdict::Thrashing { unreclaimable_bytes, refaults_per_s } => {
                let hard = Bytes(unreclaimable_bytes);
                write!(
                    f,
                    "thrashing: {hard} cannot be reclaimed, and what is left is read again and again, "
                )?;
                write!(f, "{refaults_per_s} pages a second; raise memory.max")
            }
            // These are told in other words.
            Verdict::OomEvent { .. }
            | Verdict::Predicted { .. }
            | Verdict::LimitLowered { .. }
            | Verdict::CanaryDied { .. }
            | Verdict::KernelKilled { .. } => Ok(()),
        }
    }
}

/// Of a prediction: what is left of the time, which end it is, and what was needed.
#[derive(Clone, Copy, Debug)]
pub struct LeftWords {
    /// Time to exhaustion.
    pub left_ms: u64,
    /// What the way needs.
    pub needs_ms: u32,
    /// Which end.
    pub bound: Bound,
}

impl Display for LeftWords {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (left, needs) = (Millis(self.left_ms), Millis(self.needs_ms.into()));
        let end = match self.bound {
            Bound::MemoryMax => "memory.max",
            Bound::MemAvailable => "the end of the machine's memory",
        };
        write!(f, "{left} left to {end}, {needs} are needed")
    }
}

/// A size: "32 MiB", "31.9 MiB", "512 KiB".
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const STEPS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        for (unit, word) in STEPS {
            if self.0 >= unit {
                return match self.0 % unit {
                    0 => write!(f, "{} {word}", self.0 / unit),
                    _ => write!(f, "{} {word}", Tenths::of(self.0, unit)),
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// A number with one decimal, rounded half up, without floating point.
#[derive(Clone, Copy, Debug)]
pub struct Tenths(u128);

impl Tenths {
    /// `value / unit`; a unit of 0 counts as 1.
    #[must_use]
    pub fn of(value: u64, unit: u64) -> Self {
        let unit = u128::from(unit.max(1));
        Self((u128::from(value) * 10 + unit / 2) / unit)
    }
}

impl Display for Tenths {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

/// A short time: "840 µs", "14.2 ms", "2.5 s".
#[derive(Clone, Copy, Debug)]
pub struct Took(pub u64);

impl Display for Took {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            us @ 0..1_000 => write!(f, "{us} µs"),
            us @ 1_000..1_000_000 => write!(f, "{} ms", Tenths::of(us, 1_000)),
            us => write!(f, "{} s", Tenths::of(us, 1_000_000)),
        }
    }
}

/// Hundredths of a percent: "80%", "12.5%".
#[derive(Clone, Copy, Debug)]
pub struct Percent(pub u16);

impl Display for Percent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, part) if part % 10 == 0 => write!(f, "{whole}.{}%", part / 10),
            (whole, part) => write!(f, "{whole}.{part:02}%"),
        }
    }
}

/// A time that was set by somebody: "2 s", "250 ms", "1.5 s".
#[derive(Clone, Copy, Debug)]
pub struct Millis(pub u64);

impl Display for Millis {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.0 / 1_000, self.0 % 1_000) {
            (0, ms) => write!(f, "{ms} ms"),
            (s, 0) => write!(f, "{s} s"),
            (_, _) => write!(f, "{} s", Tenths::of(self.0, 1_000)),
        }
    }
}

/// How often within which time: "exhausted 3 times in 10 min".
#[derive(Clone, Copy, Debug)]
pub struct Exhaustions {
    /// So often.
    pub times: u32,
    /// Within so many milliseconds.
    pub within_ms: u32,
    /// That is all that its budget counts; it may have been more often.
    pub spent: bool,
}

impl Display for Exhaustions {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.times {
            1 => write!(f, "exhausted once")?,
            times => write!(f, "exhausted {times} times")?,
        }
        write!(f, "{}", if self.spent { " or more in " } else { " in " })?;
        match self.within_ms / 1_000 {
            s if s > 0 && s % 3_600 == 0 => write!(f, "{} h", s / 3_600),
            s if s > 0 && s % 60 == 0 => write!(f, "{} min", s / 60),
            _ => write!(f, "{}", Millis(u64::from(self.within_ms))),
        }
    }
}

/// An uptime as supervisorctl writes it: "0:02:35", "1 day, 2:03:04".
#[derive(Clone, Copy, Debug)]
pub struct Uptime(pub u64);

impl Display for Uptime {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let s = self.0 / 1_000_000;
        match s / 86_400 {
            0 => {}
            1 => write!(f, "1 day, ")?,
            days => write!(f, "{days} days, ")?,
        }
        write!(f, "{}:{:02}:{:02}", s / 3_600 % 24, s / 60 % 60, s % 60)
    }
}

/// How a process ended: "exit code 3", "SIGSEGV".
#[derive(Clone, Copy, Debug)]
pub struct ExitWords(pub Exit);

impl Display for ExitWords {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => f.write_str(signal.as_str()),
                Err(_) => write!(f, "signal {number}"),
            },
            Exit::Unseen {} => f.write_str("an end that only its parent saw"),
        }
    }
}

/// How a procedure went: "ended with exit code 0".
#[derive(Clone, Copy, Debug)]
pub struct ProcedureWords(pub ProcedureResult);

impl Display for ProcedureWords {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            ProcedureResult::None => write!(f, "none ran"),
            ProcedureResult::Ended(exit @ (Exit::Code(_) | Exit::Unseen {})) => {
                write!(f, "ended with {}", ExitWords(exit))
            }
            ProcedureResult::Ended(exit @ Exit::Signal(_)) => write!(f, "was killed by {}", ExitWords(exit)),
            ProcedureResult::SavedItself(exit) => {
                write!(f, "of its own: it got its stop signal and ended with {}", ExitWords(exit))
            }
            ProcedureResult::OutOfMemory => write!(f, "ran out of its own memory and was killed"),
            ProcedureResult::LoanSpent => {
                write!(f, "of its own: it got its stop signal, and used up what it was lent")
            }
            ProcedureResult::TimedOut => write!(f, "was killed at its deadline"),
            ProcedureResult::Lost(exit) => write!(f, "ended before it was needed: {}", ExitWords(exit)),
            ProcedureResult::SpawnFailed { stage: at, errno: number } => {
                write!(f, "could not be started: {}: {}", stage(at), errno(number))
            }
        }
    }
}

/// Why a unit is not up. The reference's words where supervisorctl has some.
#[derive(Clone, Copy, Debug)]
pub struct TroubleWords<'a, S> {
    /// What.
    pub trouble: Trouble,
    /// The names of the units by `UnitId`.
    pub names: &'a [S],
}

impl<S: AsRef<str>> Display for TroubleWords<'_, S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.trouble {
            Trouble::BadUnit => write!(f, "its unit file has faults"),
            Trouble::OverBudget => write!(f, "its memory does not fit the budget"),
            Trouble::SpawnFailed { stage: at, errno: number, procedure } => {
                let whose = if procedure { " of the procedure" } else { "" };
                write!(f, "spawn error{whose}: {}: {}", stage(at), errno(number))
            }
            Trouble::Ended { exit: Exit::Code(code) } => write!(f, "exited with code {code}"),
            Trouble::Ended { exit: Exit::Unseen {} } => write!(f, "ended; how, only its parent saw"),
            Trouble::Ended { exit: exit @ Exit::Signal(_) } => write!(f, "killed by {}", ExitWords(exit)),
            Trouble::Killed { by } => write!(f, "killed by {}", killed_by(by)),
            Trouble::Failed { failure: why } => write!(f, "{}", failure(why)),
            Trouble::Exhausted { incident } => write!(f, "memory exhausted, incident {incident}"),
            Trouble::ExhaustedTooOften { times, within_ms, incident } => {
                let often = Exhaustions { times, within_ms, spent: true };
                write!(f, "memory {often}, incident {incident}")
            }
            Trouble::StartLimit { starts } => write!(f, "Exited too quickly: started {starts} times"),
            Trouble::RequirementDown { unit } => {
                write!(f, "{} is down, which it requires", name_of(self.names, unit))
            }
            Trouble::Conflict { unit } => {
                write!(f, "gave way to {}, with which it conflicts", name_of(self.names, unit))
            }
            Trouble::ConditionNotMet { condition } => {
                write!(f, "condition {} of its list was not met", u16::from(condition) + 1)
            }
            Trouble::OrderCycle => write!(f, "it stands in a circle of units that wait for each other"),
            Trouble::ProcedureLost { exit } => {
                write!(f, "its procedure ended before it was needed: {}", ExitWords(exit))
            }
            Trouble::Unkillable => write!(f, "its processes did not die after cgroup.kill"),
        }
    }
}

/// What supervisorctl says in `NAME: ERROR (…)` when a start failed for this reason, and whether it counts the
/// program as dead (exit code 7) rather than the request as wrong (1).
#[must_use]
pub fn start_error(trouble: Option<Trouble>) -> (&'static str, bool) {
    match trouble {
        Some(Trouble::SpawnFailed { stage: SpawnStage::Exec, errno, procedure: false }) => {
            match Errno::from_raw(errno) {
                Errno::ENOENT => ("no such file", false),
                Errno::EACCES => ("file is not executable", false),
                _ => ("spawn error", true),
            }
        }
        Some(Trouble::SpawnFailed { .. }) => ("spawn error", true),
        Some(Trouble::ProcedureLost { .. }) => ("its procedure ended before it was needed", true),
        Some(Trouble::Failed { failure: Failure::NotReady }) => ("not ready in time", true),
        Some(Trouble::BadUnit) => ("unit file has faults", false),
        Some(Trouble::OverBudget) => ("does not fit the memory budget", false),
        Some(Trouble::RequirementDown { .. }) => ("a required unit is down", true),
        Some(Trouble::OrderCycle) => ("circular order", false),
        Some(Trouble::Conflict { .. }) => ("a conflicting unit is up", true),
        Some(Trouble::ConditionNotMet { .. }) => ("condition not met", false),
        Some(Trouble::Unkillable) => ("processes do not die", true),
        Some(
            Trouble::Ended { .. }
            | Trouble::Killed { .. }
            | Trouble::Failed { .. }
            | Trouble::Exhausted { .. }
            | Trouble::ExhaustedTooOften { .. }
            | Trouble::StartLimit { .. },
        )
        | None => ("abnormal termination", true),
    }
}

/// A moment on the calendar, in UTC unless its offset carries a time zone.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    /// From 1970 on.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
}

impl Calendar {
    /// From seconds since 1970; what lies before counts as 1970.
    #[must_use]
    pub fn of(unix_s: i64) -> Self {
        let unix_s = unix_s.max(0);
        let (mut days, seconds) = (unix_s / 86_400, unix_s % 86_400);
        // 400 years repeat exactly; the year begins in March so that the leap day comes last.
        let cycles = (days + 719_468) / 146_097;
        days = (days + 719_468) % 146_097;
        let year = (days - days / 1_460 + days / 36_524 - days / 146_096) / 365;
        let of_year = days - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let small = |value: i64| u8::try_from(value).unwrap_or(0);
        let whole_year = 400 * cycles + year + i64::from(month <= 2);
        Self {
            year: u16::try_from(whole_year).unwrap_or(u16::MAX),
            month: small(month),
            day: small(day),
            hour: small(seconds / 3_600),
            minute: small(seconds / 60 % 60),
        }
    }
}

/// The same with the year: "2024-08-29 10:47".
#[derive(Clone, Copy, Debug)]
pub struct Dated(pub Calendar);

impl Display for Dated {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Calendar { year, month, day, hour, minute } = self.0;
        write!(f, "{year}-{month:02}-{day:02} {hour:02}:{minute:02}")
    }
}

impl Display for Calendar {
    /// supervisorctl's `%b %d %I:%M %p`: "Aug 29 10:47 AM".
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = MONTHS.get(usize::from(self.month.saturating_sub(1))).unwrap_or(&"?");
        let half = if self.hour < 12 { "AM" } else { "PM" };
        let hour = match self.hour % 12 {
            0 => 12,
            hour => hour,
        };
        write!(f, "{month} {:02} {hour:02}:{:02} {half}", self.day, self.minute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: impl Display, expected: &str) {
        assert_eq!(value.to_string(), expected);
    }

    #[test]
    fn sizes() {
        check(Bytes(0), "0 B");
        check(Bytes(1023), "1023 B");
        check(Bytes(512 << 10), "512 KiB");
        check(Bytes(32 << 20), "32 MiB");
        check(Bytes((32 << 20) - 1), "32.0 MiB");
        check(Bytes(12_897_485), "12.3 MiB");
        check(Bytes(u64::MAX), "17179869184.0 GiB");
    }

    #[test]
    fn times() {
        check(Took(0), "0 µs");
        check(Took(999), "999 µs");
        check(Took(14_249), "14.2 ms");
        check(Took(2_500_000), "2.5 s");
        check(Millis(2_000), "2 s");
        check(Millis(250), "250 ms");
        check(Millis(1_500), "1.5 s");
        check(Uptime(155_999_999), "0:02:35");
        check(Uptime(93_784_000_000), "1 day, 2:03:04");
        check(Uptime(2 * 86_400_000_000), "2 days, 0:00:00");
    }

    #[test]
    fn how_often() {
        let check_often = |times, within_ms, spent, expected| {
            check(Exhaustions { times, within_ms, spent }, expected);
        };
        check_often(1, 600_000, false, "exhausted once in 10 min");
        check_often(2, 7_200_000, false, "exhausted 2 times in 2 h");
        check_often(3, 1_500, true, "exhausted 3 times or more in 1.5 s");
    }

    #[test]
    fn calendar() {
        check(Calendar::of(0), "Jan 01 12:00 AM");
        check(Calendar::of(-5), "Jan 01 12:00 AM");
        check(Calendar::of(1_724_928_420), "Aug 29 10:47 AM");
        check(Calendar::of(1_709_208_000), "Feb 29 12:00 PM");
        check(Calendar::of(4_107_542_399), "Feb 28 11:59 PM");
        check(Calendar::of(4_107_542_400), "Mar 01 12:00 AM");
        check(Dated(Calendar::of(0)), "1970-01-01 00:00");
        check(Dated(Calendar::of(951_782_399)), "2000-02-28 23:59");
        check(Dated(Calendar::of(951_868_799)), "2000-02-29 23:59");
        check(Dated(Calendar::of(1_735_689_599)), "2024-12-31 23:59");
        check(Dated(Calendar::of(4_107_542_400)), "2100-03-01 00:00");
    }

    #[test]
    fn exits() {
        check(ExitWords(Exit::Code(3)), "exit code 3");
        check(ExitWords(Exit::Signal(9)), "SIGKILL");
        check(ExitWords(Exit::Signal(37)), "signal 37");
        check(ExitWords(Exit::Unseen {}), "an end that only its parent saw");
        check(ExitWords(Exit::Signal(-1)), "signal -1");
        assert_eq!(errno(2), "No such file or directory");
        assert_eq!(errno(-7), "Unknown errno");
    }
}
