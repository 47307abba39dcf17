//! The clock of the whole program.

use crate::engine::event::Time;
use nix::time::{ClockId, clock_gettime};

/// Now, by `CLOCK_BOOTTIME` (clock_gettime(2)): it never steps and also runs while the machine sleeps.
///
/// 0 where the clock is missing, which no supported kernel (2.6.39 and later) does.
#[must_use]
pub fn now() -> Time {
    Time(microseconds(ClockId::CLOCK_BOOTTIME))
}

/// Microseconds by `CLOCK_MONOTONIC_RAW`, as the kernel log counts them: nobody slews it, and it rests while the
/// machine sleeps. The log's own begins some moments earlier.
#[must_use]
pub fn since_boot_us() -> u64 {
    microseconds(ClockId::CLOCK_MONOTONIC_RAW)
}

fn microseconds(clock: ClockId) -> u64 {
    let Ok(time) = clock_gettime(clock) else { return 0 };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1_000)
}
