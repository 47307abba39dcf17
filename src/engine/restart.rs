//! When a unit that ended is started again: at once after a healthy run, else after a delay that doubles, and not at
//! all once it was started too often.

use super::event::Time;
use super::limits::HEALTHY_MS;
use super::policy::RestartPolicy;
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
/// - `starts` holds at most `limit_starts` times, oldest first; it is sized once.
#[derive(Debug)]
pub(super) struct Restarts {
    starts: VecDeque<Time>,
    quick_deaths: u32,
}

impl Restarts {
    pub(super) fn new(policy: &RestartPolicy) -> Self {
        Self { starts: VecDeque::with_capacity(policy.limit_starts as usize), quick_deaths: 0 }
    }

    /// A person asked: the past does not count any more.
    pub(super) fn forget(&mut self) {
        self.starts.clear();
        self.quick_deaths = 0;
    }

    pub(super) fn started(&mut self, now: Time, policy: &RestartPolicy) {
        if self.starts.len() >= policy.limit_starts as usize {
            self.starts.pop_front();
        }
        self.starts.push_back(now);
    }

    pub(super) fn decide(&mut self, now: Time, began: Time, policy: &RestartPolicy) -> Next {
        let window_us = u64::from(policy.limit_within_ms) * 1_000;
        let recent = self.starts.iter().filter(|&&start| now.since_us(start) <= window_us).count();
        if recent >= policy.limit_starts as usize {
            return Next::GiveUp { starts: policy.limit_starts };
        }
        if now.since_us(began) >= HEALTHY_MS * 1_000 {
            self.quick_deaths = 0;
            return Next::After(0);
        }
        let doubled = u64::from(policy.delay_ms) << self.quick_deaths.min(20);
        self.quick_deaths = self.quick_deaths.saturating_add(1);
        Next::After(u32::try_from(doubled).unwrap_or(u32::MAX).min(policy.max_delay_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::policy::{OnLimit, RestartWhen};

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
        let policy = RestartPolicy {
            when: RestartWhen::Always,
            delay_ms: 100,
            max_delay_ms: 1_000,
            limit_starts: 5,
            limit_within_ms: 60_000,
            on_limit: OnLimit::Stop,
        };
        check(policy, &[1, 1, 1, 1], &[100, 200, 400, 800], false);
        check(policy, &[1, 1, 1, 1, 1], &[100, 200, 400, 800], true);
        check(policy, &[20_000, 1, 20_000, 1], &[0, 100, 0, 100], false);
        check(policy, &[20_000, 20_000, 20_000, 20_000, 20_000, 20_000], &[0; 6], false);
        let generous = RestartPolicy { limit_starts: 100, ..policy };
        check(generous, &[1, 1, 1, 1, 1, 1], &[100, 200, 400, 800, 1_000, 1_000], false);
    }
}
