//! When a unit that ended is started again: at once after a healthy run, else after a delay that doubles, and not at
//! all once it was started too often. Its exhaustions are counted beside that, also where each came after a healthy
//! run.

use super::event::Time;
use super::limits::HISTORY_TIMES_MAX;
use super::policy::{ExhaustionBudget, Kind, RestartPolicy, RestartWhen};
use super::service::{End, Service};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What comes after the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Start again after so many milliseconds; 0 is at once.
    After(u32),
    /// Too many starts within the window.
    GiveUp { starts: u32 },
}

/// The history that restart decisions rest on.
///
/// # Invariants
/// - `starts` holds at most `limit_starts` times and `exhaustions` at most the budget's, oldest first; they are sized
///   once.
#[derive(Debug)]
pub(super) struct Restarts {
    starts: VecDeque<Time>,
    exhaustions: VecDeque<Time>,
    quick_deaths: u32,
}

/// The same as a value that can be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct History {
    starts: [Option<Time>; HISTORY_TIMES_MAX],
    exhaustions: [Option<Time>; HISTORY_TIMES_MAX],
    quick_deaths: u32,
}

/// How many of these times lie within a window that ends now.
fn recent(times: &VecDeque<Time>, now: Time, within_ms: u32) -> u32 {
    let window_us = u64::from(within_ms) * 1_000;
    let count = times.iter().filter(|&&time| now.since_us(time) <= window_us).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Notes a time; of more than `most` the oldest goes.
fn note(times: &mut VecDeque<Time>, now: Time, most: u32) {
    if times.len() >= most as usize {
        times.pop_front();
    }
    times.push_back(now);
}

impl Restarts {
    pub(super) fn new(policy: &RestartPolicy) -> Self {
        Self {
            starts: VecDeque::with_capacity(policy.limit_starts as usize),
            exhaustions: VecDeque::with_capacity(policy.exhaustion.times as usize),
            quick_deaths: 0,
        }
    }

    /// `None` where it is too long.
    pub(super) fn history(&self) -> Option<History> {
        let mut history = History {
            starts: [None; HISTORY_TIMES_MAX],
            exhaustions: [None; HISTORY_TIMES_MAX],
            quick_deaths: self.quick_deaths,
        };
        if self.starts.len().max(self.exhaustions.len()) > HISTORY_TIMES_MAX {
            return None;
        }
        for (to, from) in history.starts.iter_mut().zip(&self.starts) {
            *to = Some(*from);
        }
        for (to, from) in history.exhaustions.iter_mut().zip(&self.exhaustions) {
            *to = Some(*from);
        }
        Some(history)
    }

    /// The other way round.
    pub(super) fn recall(&mut self, history: &History) {
        self.forget();
        self.starts.extend(history.starts.iter().flatten());
        self.exhaustions.extend(history.exhaustions.iter().flatten());
        self.quick_deaths = history.quick_deaths;
    }

    /// A person asked: the past does not count any more.
    pub(super) fn forget(&mut self) {
        self.starts.clear();
        self.exhaustions.clear();
        self.quick_deaths = 0;
    }

    /// The last start ended for another unit's sake: it does not count.
    pub(super) fn excuse_last(&mut self) {
        self.starts.pop_back();
    }

    pub(super) fn started(&mut self, now: Time, policy: &RestartPolicy) {
        note(&mut self.starts, now, policy.limit_starts);
    }

    /// Its memory was exhausted.
    pub(super) fn exhausted(&mut self, now: Time, budget: &ExhaustionBudget) {
        note(&mut self.exhaustions, now, budget.times);
    }

    /// How often its memory was exhausted within the budget's window, as far as the budget counts.
    pub(super) fn exhaustions(&self, now: Time, budget: &ExhaustionBudget) -> u32 {
        recent(&self.exhaustions, now, budget.within_ms)
    }

    /// What `decide` would say is `After(0)`.
    pub(super) fn is_due_at_once(&self, now: Time, began: Time, policy: &RestartPolicy) -> bool {
        recent(&self.starts, now, policy.limit_within_ms) < policy.limit_starts
            && now.since_us(began) >= u64::from(policy.healthy_ms) * 1_000
    }

    pub(super) fn decide(&mut self, now: Time, began: Time, policy: &RestartPolicy) -> Next {
        if recent(&self.starts, now, policy.limit_within_ms) >= policy.limit_starts {
            return Next::GiveUp { starts: policy.limit_starts };
        }
        if now.since_us(began) >= u64::from(policy.healthy_ms) * 1_000 {
            self.quick_deaths = 0;
            return Next::After(0);
        }
        let doubled = u64::from(policy.delay_ms) << self.quick_deaths.min(20);
        self.quick_deaths = self.quick_deaths.saturating_add(1);
        Next::After(u32::try_from(doubled).unwrap_or(u32::MAX).min(policy.max_delay_ms))
    }
}

impl Service {
    /// It rests with its sockets open after a good end: it has done what it was needed for.
    pub(super) fn has_served(&self, end: End) -> bool {
        self.policy.descriptors.on_demand
            && matches!(end, End::Own(exit) if self.policy.success.contains(exit))
    }

    /// What its restart policy says of an end that nobody asked for, and that no procedure's section decides.
    pub(super) fn wants_restart(&self, end: End) -> bool {
        let when = self.policy.restart.when;
        match end {
            End::Own(_) if self.has_served(end) => true,
            End::Own(exit) => match (self.policy.kind, when) {
                // A target has no process that could end.
                (_, RestartWhen::Never | RestartWhen::OnExhaustion) | (Kind::Target, _) => false,
                (Kind::Service, RestartWhen::Always) => true,
                (Kind::Task, RestartWhen::Always) | (_, RestartWhen::OnFailure) => {
                    !self.policy.success.contains(exit)
                }
            },
            End::Failed(_) | End::StartFailed { .. } => match when {
                RestartWhen::Always | RestartWhen::OnFailure => true,
                RestartWhen::OnExhaustion | RestartWhen::Never => false,
            },
            End::Asked(_) | End::Exhausted | End::Drilled { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs that last as long each, the delays between them, and whether it is given up at the end.
    fn check(policy: RestartPolicy, run_ms: &[u64], delays: &[u32], gives_up: bool) {
        let mut restarts = Restarts::new(&policy);
        let mut now = Time(1);
        let mut seen = Vec::new();
        let mut gave_up = false;
        for &run_ms in run_ms {
            restarts.started(now, &policy);
            let began = now;
            now = now.plus_ms(run_ms);
            match restarts.decide(now, began, &policy) {
                Next::After(delay) => {
                    seen.push(delay);
                    now = now.plus_ms(u64::from(delay));
                }
                Next::GiveUp { starts } => {
                    assert_eq!(starts, policy.limit_starts);
                    gave_up = true;
                    break;
                }
            }
        }
        assert_eq!((seen.as_slice(), gave_up), (delays, gives_up), "{run_ms:?}");
    }

    #[test]
    fn delays_double_up_to_the_cap_and_a_healthy_run_resets_them() {
        let policy = RestartPolicy { max_delay_ms: 1_000, limit_starts: 5, ..RestartPolicy::default() };
        check(policy, &[1, 1, 1, 1], &[100, 200, 400, 800], false);
        check(policy, &[1, 1, 1, 1, 1], &[100, 200, 400, 800], true);
        check(policy, &[20_000, 1, 20_000, 1], &[0, 100, 0, 100], false);
        check(policy, &[20_000, 20_000, 20_000, 20_000, 20_000, 20_000], &[0; 6], false);
        let generous = RestartPolicy { limit_starts: 100, ..policy };
        check(generous, &[1, 1, 1, 1, 1, 1], &[100, 200, 400, 800, 1_000, 1_000], false);
        let patient = RestartPolicy { healthy_ms: 30_000, ..generous };
        check(patient, &[20_000, 20_000, 30_000, 1], &[100, 200, 0, 100], false);
    }

    #[test]
    fn exhaustions_count_within_their_window_whatever_lies_between() {
        let policy = RestartPolicy::default();
        let budget = ExhaustionBudget { times: 3, within_ms: 600_000, then: None };
        let mut restarts = Restarts::new(&policy);
        let mut count_at = |minute: u64| {
            let now = Time(minute * 60_000_000);
            restarts.exhausted(now, &budget);
            restarts.exhaustions(now, &budget)
        };
        // One each minute; then a good quarter of an hour; then one each six minutes.
        assert_eq!([1, 2, 3, 4].map(&mut count_at), [1, 2, 3, 3]);
        assert_eq!([20, 26, 32, 38].map(&mut count_at), [1, 2, 2, 2]);
        restarts.forget();
        assert_eq!(restarts.exhaustions(Time(39 * 60_000_000), &budget), 0);
    }
}
