//! Every bound of the engine in one place, each with the reason for its number.

/// Units that the table can hold: a `u16` would allow more, but a small device with over a thousand services is a
/// mistake in a generator, and every table below is sized by this.
pub const UNITS_MAX: usize = 1_024;

/// Events that the recorder keeps. An exhaustion with its start and restart takes under 40, so some ten of them
/// are still there when somebody looks.
pub const RECORDED_EVENTS_MAX: usize = 512;

/// Incidents that are kept in memory; the oldest goes first.
pub const INCIDENTS_MAX: usize = 64;

/// Requests that wait for a unit to settle. A person has one or two; a script that starts everything has few.
pub const WAITS_MAX: usize = 64;

/// Starts in one round of the loop. A start took 1 to 46 ms under software emulation; so many of them are heard of,
/// and others answered, well before anybody's patience ends, and a round by itself costs one epoll_wait(2).
pub const STARTS_AT_ONCE: usize = 8;

/// From the start of a unit to its first `execve`. Generous: a slow flash and a cold cache take seconds.
pub const START_DEADLINE_MS: u64 = 30_000;

/// Between two looks for the path by which a service shows that it is ready; only while it starts.
pub const READY_LOOK_MS: u64 = 50;

/// However often a service asks for more time, a step takes no longer than this from its beginning.
pub const EXTENDED_MS_MAX: u64 = 600_000;

/// A drill that is due, and finds no room in the reserve, or another unit on its way there, comes so much later: a
/// procedure takes about that.
pub const DRILL_AGAIN_MS: u64 = 1_000;

/// From writing `cgroup.freeze` to going on without `frozen 1`.
///
/// Freezing took 13 to 44 ms (median) and 150 ms at worst under software emulation with the shield; a task in an
/// uninterruptible sleep does not freeze at all, and its procedure must not wait for it.
pub const FREEZE_DEADLINE_MS: u64 = 500;

/// Reclaiming before a lower limit while the unit runs, and before any change that is not held up by memory: dirty
/// pages go to a slow flash at some MiB a second.
pub const LIMIT_RECLAIM_MS: u64 = 10_000;

/// From the moment at which the unit stands still to going on without the lower limit: the process that writes it is
/// made and executed in it, and no service should miss more than a breath.
pub const LIMIT_SET_MS: u64 = 1_500;

/// From writing `cgroup.kill` to writing it again.
pub const KILL_RETRY_MS: u64 = 2_000;

/// So many tries, and the unit counts as unkillable (a process in an uninterruptible sleep, for instance on a dead
/// disk): it stays as it is, and nothing waits for it any more.
pub const KILL_TRIES_MAX: u8 = 5;

/// Bounds of the pace at which a filling cgroup is read, after a doorbell only.
pub const SAMPLE_MS_MIN: u64 = 10;
/// See `SAMPLE_MS_MIN`.
pub const SAMPLE_MS_MAX: u64 = 1_000;

/// After a benign doorbell: so long the doorbells are off. A service at its limit with nothing but cache then costs one
/// wake-up a second instead of a hundred. What happens meanwhile is told by the alarm, or held by the shield.
pub const HUSH_MS: u64 = 1_000;

/// A unit of whose limit at least one part of `DIRTY_DIVISOR` waits for the disk is read so often. From Linux 6.9 on
/// the kernel holds a writer back by counters of its cgroup that are up to 2 s old (mm/memcontrol.c,
/// `mem_cgroup_wb_stats`), and kills when its limit is full of what the disk has not taken. Each reading of
/// `memory.stat` brings the counters up to date.
pub const DIRTY_READ_MS: u64 = 200;
/// See `DIRTY_READ_MS`.
pub const DIRTY_DIVISOR: u64 = 8;
/// For so long behind the last such reading: where the disk has taken all of it the writer fills its limit again in
/// some hundred milliseconds.
pub const DIRTY_AFTER_MS: u64 = 10_000;

/// So many readings without growth, each after twice the time of the one before, and the reading stops.
pub const CALM_SAMPLES_MAX: u8 = 4;

/// Time to exhaustion below which the service's way begins at once, whatever it has needed before: the next reading
/// would come too late.
pub const PREDICTION_MS: u32 = 20;

/// What a unit has needed before counts up to this: who needs longer is helped by memory that is lent.
pub const NEEDS_MS_MAX: u32 = 2_000;

/// Processors that tasks wait for stretch what is needed, up to four times: `some avg10` in hundredths of a percent.
pub const BUSY_MAX: u16 = 7_500;

/// A loan counts as used up when less than this of it is free: a charge is made in batches of 64 pages for each CPU
/// (`MEMCG_CHARGE_BATCH`, include/linux/memcontrol.h). Of a small loan it is a quarter.
pub const LOAN_SLACK_BYTES: u64 = 256 << 10;

/// A canary's ballast where nobody has said or measured more: a sixteenth of `memory.max` within these bounds.
pub const BALLAST_BYTES_MIN: u64 = 1 << 20;
/// See `BALLAST_BYTES_MIN`.
pub const BALLAST_BYTES_MAX: u64 = 8 << 20;

/// What was measured may ask for more than that, but never for more than this part of `memory.max`: the rest is the
/// service's.
pub const BALLAST_DIVISOR_MIN: u64 = 4;

/// So often in a run a ballast that is lost without an exhaustion is made anew.
pub const BALLAST_REMAKES_MAX: u8 = 3;

/// From its loss to its making: where the machine's memory has run out, the kernel takes it again and again. So long it
/// may also take until it is known whether a kill for memory was the ballast's.
pub const BALLAST_WAIT_MS: u64 = 1_000;

/// A unit that is held at its `memory.high` takes so long at most from one `high` to the next: each of its tasks sleeps
/// for two seconds at a time. The same time `memory.max` must not have been met: `avg10` looks back over ten seconds.
pub const HELD_WINDOW_MS: u64 = 10_000;

/// From one line in the log about it to the next.
pub const HELD_TOLD_AGAIN_MS: u64 = 600_000;

/// Warn stages of a unit. With four, each has another deed.
pub const WARN_STAGES_MAX: usize = 4;

/// While a unit stands above a warn stage it is read so often, to see when it has come down again. Nothing rings then.
pub const WARNED_READ_MS: u64 = 5_000;

/// As often at most, where a stage may be due again sooner: a service that goes up and down costs one wake-up a second.
pub const WARNED_READ_MS_MIN: u64 = 1_000;

/// A warn stage is due again only when its unit has been below it by this part of `memory.max`.
pub const WARN_ROOM_DIVISOR: u64 = 16;

/// Units whose way to an exhaustion, and through it, is recorded at the same time. More than that are read closely at
/// once only where the whole machine is short; whose incident has no room then says so.
pub const EPISODES_MAX: usize = 4;

/// Events and decisions that are recorded of one of them: 30 to 50 from the first doorbell to the kill, and as many
/// again for readings that go on for long.
pub const EPISODE_ENTRIES_MAX: usize = 160;

/// How often others may have a say in one of them, and one for its beginning: a stop that is asked for meanwhile, room
/// in the reserve.
pub const EPISODE_CHECKPOINTS_MAX: usize = 3;

/// Starts, and exhaustions, of a unit that a checkpoint has room for. A start limit above is rare.
pub const HISTORY_TIMES_MAX: usize = 16;
