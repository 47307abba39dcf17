//! What an exhaustion is decided by: the evidence, as data.

use serde::{Deserialize, Serialize};

/// Which evidence decided that memory is exhausted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The kernel's own verdict: `oom` in `memory.events.local` rose.
    OomEvent {
        /// By how much.
        oom: u64,
    },
    /// Memory ends before the unit's way to its procedure would be at its end, or the next reading would come.
    Predicted {
        /// U at the last reading.
        unreclaimable_bytes: u64,
        /// Its slope between the last two readings.
        bytes_per_s: u64,
        /// Time to exhaustion at that slope.
        left_ms: u64,
        /// What the way there needs, by what it has taken before and by how busy the processors are.
        #[serde(default)]
        needs_ms: u32,
        /// Which end it is.
        #[serde(default)]
        bound: Bound,
    },
    /// A person wanted it below a new limit, and it does not fit.
    LimitLowered {
        /// `memory.current` then.
        current_bytes: u64,
    },
    /// At its `memory.high` it stands still, and nothing would end that.
    HeldAtHigh {
        /// U at the last reading.
        unreclaimable_bytes: u64,
        /// Its `memory.high`.
        high_bytes: u64,
        /// `full avg10` of `memory.pressure`, in hundredths of a percent.
        psi_full_avg10: u16,
    },
    /// At its bound too little is left for the pages of files that it works with: it reads them again and again, and by
    /// its pressure does nothing else.
    Thrashing {
        /// U at the last reading.
        unreclaimable_bytes: u64,
        /// Pages a second that were read again after they had been reclaimed.
        refaults_per_s: u32,
    },
    /// The kernel found nothing to reclaim, and took the unit's ballast before anything of the service.
    CanaryDied {
        /// By how much `oom` in `memory.events.local` rose.
        oom: u64,
        /// The ballast's size.
        ballast_bytes: u64,
    },
    /// The kernel killed: `oom_kill` in `memory.events.local` rose.
    KernelKilled {
        /// How many processes.
        oom_kill: u64,
    },
}

/// Which memory ends first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bound {
    /// The unit's own, at `memory.max`.
    #[default]
    MemoryMax,
    /// The machine's, by `MemAvailable` of proc_meminfo(5).
    MemAvailable,
}
