//! The division of the machine's memory, checked before anything starts.
//!
//! ```text
//! total = margin + reserve + writeback + overhead + Σ memory.max of the guaranteed units + pool
//! ```
//!
//! The reserve is real only because everything else is capped, so a unit whose bound would break the sum is
//! refused, and with it the promise would be too. Two rules keep an exhausted branch from being stuck:
//! guaranteed units fit in full, and so do the *shielded* units of the pool, so that a pool that is exhausted
//! always holds something that the kernel or lifeboat can take. Unbounded units and those with `guard: None` may
//! overcommit the pool.
//!
//! The overhead is what units cost beside their bounds: the kernel charges a cgroup's own structures to its parent
//! (mm/memcontrol.c `mem_cgroup_css_alloc`), and parked procedures have pages. Without it the pool, or the shutdown
//! slice, would meet its limit before its last unit does. What is kept for writeback, see [`writeback_bytes`].

use super::policy::{Class, Guard, UnitId, UnitPolicy};
use super::snapshot::{BudgetView, Trouble};
use std::cmp::Reverse;
use std::fmt;

/// The smallest default margin: what a small kernel, its page tables and slabs, and lifeboat need.
const MARGIN_BYTES_MIN: u64 = 16 << 20;

/// The default margin is this share of the machine, because page tables, slabs and network buffers grow with it.
const MARGIN_DIVISOR: u64 = 8;

/// The default reserve on all but the smallest machines.
const RESERVE_BYTES: u64 = 8 << 20;

/// Kept for the kernel and for lifeboat where the user has not said: 16 MiB or an eighth of the machine, whichever
/// is more, but never more than half of a machine. The machine here is what the image leaves of it: `files_bytes` are
/// in files that live in memory, and are kept beside that.
#[must_use]
pub fn default_margin_bytes(total_bytes: u64, files_bytes: u64) -> u64 {
    let left_bytes = total_bytes.saturating_sub(files_bytes);
    total_bytes - left_bytes + MARGIN_BYTES_MIN.max(left_bytes / MARGIN_DIVISOR).min(left_bytes / 2)
}

/// What procedures may use together where the user has not said: 8 MiB, which holds two procedures of the default
/// size, but never more than an eighth of the machine.
#[must_use]
pub fn default_reserve_bytes(total_bytes: u64) -> u64 {
    RESERVE_BYTES.min(total_bytes / 8)
}

/// So much of what a procedure may use stands above that, for pages that it has written and that wait for their disk.
///
/// The kernel kills a process that dirties its memory cgroup full faster than the disk takes it: reclaim of a cgroup
/// does not wait for writeback (mm/vmscan.c `shrink_folio_list`), and a writer is held back by counters that are up to
/// 2 s old (mm/memcontrol.c `mem_cgroup_wb_stats`; since Linux 6.9). So what a procedure may use is its `memory.high`,
/// above which a task sleeps the longer the further it is above (`calculate_high_delay`): as far as an eighth the disk
/// may be slow, and with a quarter there may be several writers.
const WRITEBACK_DIVISOR: u64 = 4;

/// What stands above `memory.high` of processes that may use so much.
#[must_use]
pub fn writeback_bytes(memory_bytes: u64) -> u64 {
    memory_bytes / WRITEBACK_DIVISOR
}

/// A utility above all that can be asked for: of units that have their memory already, when others are added.
pub const SERVED_FIRST: u8 = u8::MAX;

/// Bytes, shown in binary units: `32 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let Some((unit, name)) = units.into_iter().find(|(unit, _)| self.0 >= *unit) else {
            return write!(f, "{} bytes", self.0);
        };
        let (whole, rest) = (self.0 / unit, self.0 % unit);
        if rest == 0 {
            return write!(f, "{whole} {name}");
        }
        // Down, never up: a message must not say that more is free than there is.
        let tenths = u128::from(rest) * 10 / u128::from(unit);
        write!(f, "{whole}.{tenths} {name}")
    }
}

/// Which rule a unit would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// All guaranteed units fit beside margin and reserve.
    Guaranteed,
    /// No unit's bound is larger than the whole pool.
    Pool,
    /// All shielded units of the pool fit into it together.
    ShieldedPool,
    /// A shutdown procedure fits into the reserve.
    Reserve,
}

/// A unit that does not fit, with the sum that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which unit.
    pub unit: UnitId,
    /// Its name.
    pub name: String,
    /// Which rule.
    pub rule: Rule,
    /// `memory.max` of the unit, or of its procedure.
    pub needs_bytes: u64,
    /// What was left when its turn came.
    pub free_bytes: u64,
    /// Taken by the units of the same rule that were served before it.
    pub taken_bytes: u64,
    /// The division as it stands.
    pub budget: BudgetView,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BudgetView {
            total_bytes,
            margin_bytes,
            reserve_bytes,
            writeback_bytes,
            overhead_bytes,
            guaranteed_bytes,
            pool_bytes,
        } = self.budget;
        let (needs, free, taken) = (Bytes(self.needs_bytes), Bytes(self.free_bytes), Bytes(self.taken_bytes));
        let margin = Bytes(margin_bytes.saturating_add(overhead_bytes).saturating_add(writeback_bytes));
        let (total, reserve) = (Bytes(total_bytes), Bytes(reserve_bytes));
        write!(f, "{}: ", self.name)?;
        match self.rule {
            Rule::Guaranteed => write!(
                f,
                "memory.max {needs} does not fit: {total} of memory - {margin} margin - {reserve} reserve - \
                 {taken} for guaranteed units that come first (by utility, then by name) = {free} free; lower \
                 memory.max, raise its utility, or use class: Pool"
            ),
            Rule::Pool => write!(
                f,
                "memory.max {needs} is more than the pool: {total} of memory - {margin} margin - {reserve} reserve \
                 - {} guaranteed = {}; lower memory.max",
                Bytes(guaranteed_bytes),
                Bytes(pool_bytes)
            ),
            Rule::ShieldedPool => write!(
                f,
                "memory.max {needs} does not fit: {} of pool - {taken} for shielded units that come first (by utility, \
                 then by name) = {free} free; lower memory.max, raise its utility, or use guard: None",
                Bytes(pool_bytes)
            ),
            Rule::Reserve => write!(
                f,
                "its shutdown procedure needs {needs}, more than the reserve of {reserve}; lower shutdown.memory (or \
                 lend), or raise reserve in system.ron"
            ),
        }
    }
}

/// Divides the machine among the units and refuses those that do not fit (`refused = OverBudget`).
///
/// Where not all fit, the highest utility is served first, then the order of names; a smaller unit may still fit
/// after a larger one was refused. A unit that is refused already counts for nothing. A unit that does not start
/// at boot counts in full: it may be started later.
///
/// `total_bytes` is `MemTotal` of proc_meminfo(5). Where margin and reserve alone exceed it the pool is 0 bytes:
/// every bounded unit is refused, and the caller must not write that 0 into `memory.max`.
pub fn divide(
    total_bytes: u64,
    reserve_bytes: u64,
    margin_bytes: u64,
    overhead_bytes: u64,
    units: &mut [UnitPolicy],
) -> (BudgetView, Vec<Refusal>) {
    let mut order: Vec<usize> = Vec::with_capacity(units.len());
    let rank = |i: usize| (units.get(i).map(|unit| (Reverse(unit.utility), unit.name.as_str())), i);
    for new in 0..units.len() {
        order.insert(order.partition_point(|at| rank(*at) < rank(new)), new);
    }

    let mut refusals = Vec::new();
    let is_outgrown = |unit: &UnitPolicy| unit.procedure.is_some_and(|p| p.reserve_bytes() > reserve_bytes);
    for &index in &order {
        let Some(unit) = admitted(units, index).filter(|unit| is_outgrown(unit)) else { continue };
        let needs_bytes = unit.procedure.map_or(0, |procedure| procedure.reserve_bytes());
        refusals.push(refuse(unit, index, Rule::Reserve, (needs_bytes, reserve_bytes, 0)));
    }

    let writeback_bytes = writeback_bytes(reserve_bytes);
    let fixed = [margin_bytes, reserve_bytes, writeback_bytes, overhead_bytes];
    let room_bytes = fixed.into_iter().fold(total_bytes, u64::saturating_sub);
    let guaranteed_bytes = admit(units, &order, (Rule::Guaranteed, room_bytes), &mut refusals, |unit| {
        unit.memory.filter(|memory| memory.class == Class::Guaranteed).map(|memory| memory.max_bytes)
    });

    let pool_bytes = room_bytes.saturating_sub(guaranteed_bytes);
    let pooled = |unit: &UnitPolicy| unit.memory.filter(|memory| memory.class == Class::Pool);
    for &index in &order {
        let Some(unit) = admitted(units, index) else { continue };
        let Some(memory) = pooled(unit).filter(|memory| memory.max_bytes > pool_bytes) else { continue };
        refusals.push(refuse(unit, index, Rule::Pool, (memory.max_bytes, pool_bytes, 0)));
    }
    admit(units, &order, (Rule::ShieldedPool, pool_bytes), &mut refusals, |unit| {
        pooled(unit).filter(|memory| memory.guard == Guard::Shield).map(|memory| memory.max_bytes)
    });

    let budget = BudgetView {
        total_bytes,
        margin_bytes,
        reserve_bytes,
        writeback_bytes,
        overhead_bytes,
        guaranteed_bytes,
        pool_bytes,
    };
    for refusal in &mut refusals {
        refusal.budget = budget;
    }
    (budget, refusals)
}

/// Whether no service can exhaust the machine: every unit is bounded, and margin, reserve and all bounds fit.
/// Refused units do not run and so do not count.
#[must_use]
pub fn is_oom_proof(budget: &BudgetView, units: &[UnitPolicy]) -> bool {
    let fixed = [budget.margin_bytes, budget.reserve_bytes, budget.writeback_bytes, budget.overhead_bytes];
    let Some(fixed_bytes) = fixed.into_iter().try_fold(0_u64, u64::checked_add) else { return false };
    let sum_bytes = units
        .iter()
        .filter(|unit| unit.refused.is_none())
        .try_fold(fixed_bytes, |sum, unit| unit.memory.and_then(|memory| sum.checked_add(memory.max_bytes)));
    sum_bytes.is_some_and(|sum| sum <= budget.total_bytes)
}

/// The unit at an index, unless it is refused.
fn admitted(units: &mut [UnitPolicy], index: usize) -> Option<&mut UnitPolicy> {
    units.get_mut(index).filter(|unit| unit.refused.is_none())
}

/// Serves units out of a room in the given order, refuses what does not fit, and gives the sum of what does.
fn admit(
    units: &mut [UnitPolicy],
    order: &[usize],
    (rule, room_bytes): (Rule, u64),
    refusals: &mut Vec<Refusal>,
    needs: impl Fn(&UnitPolicy) -> Option<u64>,
) -> u64 {
    let mut taken_bytes = 0_u64;
    for &index in order {
        let Some(unit) = admitted(units, index) else { continue };
        let Some(needs_bytes) = needs(unit) else { continue };
        let free_bytes = room_bytes - taken_bytes;
        if needs_bytes <= free_bytes {
            taken_bytes += needs_bytes;
        } else {
            refusals.push(refuse(unit, index, rule, (needs_bytes, free_bytes, taken_bytes)));
        }
    }
    taken_bytes
}

fn refuse(
    unit: &mut UnitPolicy,
    index: usize,
    rule: Rule,
    (needs_bytes, free_bytes, taken_bytes): (u64, u64, u64),
) -> Refusal {
    unit.refused = Some(Trouble::OverBudget);
    // UnitId is 16 bits wide and given by position; a table that is larger cannot have been loaded.
    let unit_id = UnitId(u16::try_from(index).unwrap_or(u16::MAX));
    let budget = BudgetView::default();
    let name = unit.name.clone();
    Refusal { unit: unit_id, name, rule, needs_bytes, free_bytes, taken_bytes, budget }
}

#[cfg(test)]
mod tests {
    use super::super::policy::{
        DescriptorPolicy, Kind, MemoryPolicy, OnRequirementRestart, ProcedurePolicy, Ready, RestartPolicy,
        ServiceMode, Success, WarnPolicy,
    };
    use super::*;
    use proptest::prelude::*;

    /// A unit in one line: its name is its utility's and bound's, in MiB.
    fn unit(name: &str, utility: u8, memory: Option<(u64, Class, Guard)>, procedure_mib: u64) -> UnitPolicy {
        let procedure = ProcedurePolicy {
            service: ServiceMode::Frozen,
            lend_bytes: 0,
            has_program: true,
            resident: false,
            drill_every_ms: None,
            has_otherwise: false,
            on_exhaustion: true,
            on_stop: false,
            on_failure: false,
            deadline_ms: 1_000,
            memory_bytes: procedure_mib << 20,
            then: None,
        };
        UnitPolicy {
            name: name.to_owned(),
            description: String::new(),
            kind: Kind::Service,
            autostart: true,
            after: Vec::new(),
            before: Vec::new(),
            requires: Vec::new(),
            wants: Vec::new(),
            conflicts: Vec::new(),
            on_requirement_restart: OnRequirementRestart::Keep,
            conditions: Vec::new(),
            memory: memory.map(|(mib, class, guard)| MemoryPolicy {
                max_bytes: mib << 20,
                class,
                guard,
                high_bytes: None,
                ballast_bytes: None,
            }),
            warn: WarnPolicy::default(),
            utility,
            ready: Ready::Start,
            start_timeout_ms: 30_000,
            watchdog_ms: None,
            health: None,
            descriptors: DescriptorPolicy::default(),
            procedure: (procedure_mib > 0).then_some(procedure),
            success: Success::default(),
            stop_command: false,
            reload: None,
            stop_signal: 15,
            stop_timeout_ms: 1_000,
            restart: RestartPolicy::default(),
            refused: None,
        }
    }

    fn guaranteed(name: &str, utility: u8, mib: u64) -> UnitPolicy {
        unit(name, utility, Some((mib, Class::Guaranteed, Guard::Shield)), 0)
    }

    fn shielded(name: &str, utility: u8, mib: u64) -> UnitPolicy {
        unit(name, utility, Some((mib, Class::Pool, Guard::Shield)), 0)
    }

    fn open(name: &str, utility: u8, mib: u64) -> UnitPolicy {
        unit(name, utility, Some((mib, Class::Pool, Guard::None)), 0)
    }

    fn unbounded(name: &str) -> UnitPolicy {
        unit(name, 50, None, 0)
    }

    /// Divides 64 MiB with a reserve of 8, which has 2 for writeback beside it, a margin of 13 and an overhead of 1:
    /// 40 are left. Compares the pool in MiB, the refused with their rule, and whether the result is OOM-proof.
    fn check(mut units: Vec<UnitPolicy>, pool_mib: u64, expected: &[(&str, Rule)], oom_proof: bool) {
        let (budget, refusals) = divide(64 << 20, 8 << 20, 13 << 20, 1 << 20, &mut units);
        let found: Vec<(&str, Rule)> = refusals.iter().map(|it| (it.name.as_str(), it.rule)).collect();
        assert_eq!(found, expected);
        assert_eq!(budget.pool_bytes, pool_mib << 20);
        assert_eq!(is_oom_proof(&budget, &units), oom_proof);
        for (index, unit) in units.iter().enumerate() {
            let refusal = refusals.iter().find(|it| usize::from(it.unit.0) == index);
            assert_eq!(unit.refused.is_some(), refusal.is_some(), "{}", unit.name);
            assert!(refusal.is_none_or(|it| it.name == unit.name && it.budget == budget));
        }
    }

    #[test]
    fn guaranteed_units() {
        use Rule::Guaranteed;
        check(vec![], 40, &[], true);
        check(vec![guaranteed("a", 50, 40)], 0, &[], true);
        check(vec![guaranteed("a", 50, 41)], 40, &[("a", Guaranteed)], true);
        // The highest utility is served first, then the order of names; what is smaller may still fit.
        check(vec![guaranteed("a", 10, 30), guaranteed("b", 20, 30)], 10, &[("a", Guaranteed)], true);
        check(vec![guaranteed("b", 10, 30), guaranteed("a", 10, 30)], 10, &[("b", Guaranteed)], true);
        check(
            vec![guaranteed("a", 30, 30), guaranteed("b", 20, 30), guaranteed("c", 10, 10)],
            0,
            &[("b", Guaranteed)],
            true,
        );
    }

    #[test]
    fn the_pool() {
        use Rule::{Pool, ShieldedPool};
        check(vec![shielded("a", 50, 40)], 40, &[], true);
        check(vec![shielded("a", 50, 41)], 40, &[("a", Pool)], true);
        check(vec![open("a", 50, 41)], 40, &[("a", Pool)], true);
        check(vec![guaranteed("g", 50, 30), shielded("a", 50, 11)], 10, &[("a", Pool)], true);
        check(vec![shielded("a", 10, 30), shielded("b", 20, 30)], 40, &[("a", ShieldedPool)], true);
        check(
            vec![guaranteed("g", 0, 20), shielded("a", 90, 20), shielded("b", 80, 1)],
            20,
            &[("b", ShieldedPool)],
            true,
        );
        // Those that the kernel may kill overcommit the pool, and so do unbounded ones.
        check(vec![open("a", 50, 40), open("b", 50, 40)], 40, &[], false);
        check(vec![open("a", 50, 40), shielded("b", 50, 40)], 40, &[], false);
        check(vec![unbounded("a"), shielded("b", 50, 40)], 40, &[], false);
        check(vec![open("a", 50, 20), shielded("b", 50, 20)], 40, &[], true);
    }

    #[test]
    fn procedures() {
        let with = |mib| unit("a", 50, Some((10, Class::Guaranteed, Guard::Shield)), mib);
        check(vec![with(8)], 30, &[], true);
        // A refused unit counts for nothing: its share goes to the pool.
        check(vec![with(9)], 40, &[("a", Rule::Reserve)], true);
        check(vec![with(8), shielded("b", 1, 30)], 30, &[], true);
    }

    #[test]
    fn units_refused_before_count_for_nothing() {
        let mut broken = guaranteed("a", 99, 40);
        broken.refused = Some(Trouble::BadUnit);
        let mut units = vec![broken, guaranteed("b", 1, 40)];
        let (budget, refusals) = divide(64 << 20, 8 << 20, 13 << 20, 1 << 20, &mut units);
        assert_eq!((budget.guaranteed_bytes, refusals), (40 << 20, vec![]));
        assert_eq!(units.iter().map(|unit| unit.refused).collect::<Vec<_>>(), [Some(Trouble::BadUnit), None]);
    }

    #[test]
    fn a_machine_that_is_too_small() {
        let mut units = vec![guaranteed("a", 50, 1), shielded("b", 50, 1), unbounded("c")];
        let (budget, refusals) = divide(20 << 20, 8 << 20, 16 << 20, 0, &mut units);
        assert_eq!((budget.pool_bytes, refusals.len()), (0, 2));
        assert!(units.last().is_some_and(|unit| unit.refused.is_none()));
        assert!(!is_oom_proof(&budget, &[]));
    }

    #[test]
    fn refusals_show_the_sum() {
        let mut units = vec![
            guaranteed("a", 90, 20),
            guaranteed("b", 50, 21),
            shielded("c", 90, 12),
            shielded("d", 50, 9),
            open("e", 50, 21),
            unit("f", 50, Some((1, Class::Pool, Guard::None)), 9),
        ];
        let (_, refusals) = divide(64 << 20, 8 << 20, 13 << 20, 1 << 20, &mut units);
        let mut shown: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        shown.sort();
        assert_eq!(
            shown,
            [
                "b: memory.max 21 MiB does not fit: 64 MiB of memory - 16 MiB margin - 8 MiB reserve - 20 MiB for \
             guaranteed units that come first (by utility, then by name) = 20 MiB free; lower memory.max, raise its \
             utility, or use class: Pool",
                "d: memory.max 9 MiB does not fit: 20 MiB of pool - 12 MiB for shielded units that come first \
             (by utility, then by name) = 8 MiB free; lower memory.max, raise its utility, or use guard: None",
                "e: memory.max 21 MiB is more than the pool: 64 MiB of memory - 16 MiB margin - 8 MiB reserve - 20 MiB \
             guaranteed = 20 MiB; lower memory.max",
                "f: its shutdown procedure needs 9 MiB, more than the reserve of 8 MiB; lower shutdown.memory (or lend), \
                 or raise reserve in system.ron",
            ]
        );
    }

    #[test]
    fn bytes_are_shown_in_binary_units() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (1_024, "1 KiB"),
            (4_097, "4.0 KiB"),
            (32 << 20, "32 MiB"),
            ((32 << 20) - 1, "31.9 MiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), expected);
        }
    }

    #[test]
    fn defaults_leave_room_on_small_machines() {
        for (total_mib, margin_mib, reserve_mib) in [(16, 8, 2), (32, 16, 4), (64, 16, 8), (1_024, 128, 8)] {
            assert_eq!(default_margin_bytes(total_mib << 20, 0), margin_mib << 20, "{total_mib}");
            assert_eq!(default_reserve_bytes(total_mib << 20), reserve_mib << 20, "{total_mib}");
        }
    }

    #[test]
    fn an_image_in_memory_is_kept_beside_the_margin() {
        for (total_mib, image_mib, margin_mib) in
            [(64, 6, 22), (16, 4, 10), (1_024, 512, 576), (64, 64, 64), (64, 65, 64), (0, 1, 0)]
        {
            let margin_bytes = default_margin_bytes(total_mib << 20, image_mib << 20);
            assert_eq!(margin_bytes, margin_mib << 20, "{image_mib} of {total_mib}");
        }
    }

    prop_compose! {
        fn any_unit()(
            utility in 0..=3_u8,
            memory in prop::option::of((prop_oneof![0..=100_u64, Just(u64::MAX)], any::<bool>(), any::<bool>())),
            procedure in prop::option::of(0..=40_u64),
            is_refused in prop::bool::weighted(0.1),
        ) -> UnitPolicy {
            let mut policy = unit("a", utility, None, 1);
            policy.memory = memory.map(|(max_bytes, is_pool, is_open)| MemoryPolicy {
                max_bytes,
                class: if is_pool { Class::Pool } else { Class::Guaranteed },
                guard: if is_open { Guard::None } else { Guard::Shield },
                high_bytes: None,
                ballast_bytes: None,
            });
            policy.procedure = policy.procedure.and_then(|p| Some(ProcedurePolicy { memory_bytes: procedure?, ..p }));
            policy.refused = is_refused.then_some(Trouble::BadUnit);
            policy
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// What is admitted always keeps the promise, whatever was asked.
        #[test]
        fn the_division_holds(
            total in prop_oneof![0..=300_u64, Just(u64::MAX)],
            reserve in prop_oneof![0..=100_u64, Just(u64::MAX)],
            margin in prop_oneof![0..=100_u64, Just(u64::MAX)],
            mut units in prop::collection::vec(any_unit(), 0..12),
        ) {
            let before = units.clone();
            let (budget, refusals) = divide(total, reserve, margin, 0, &mut units);
            let sum = |class, only_shielded: bool| -> u128 {
                let memory = units.iter().filter(|unit| unit.refused.is_none()).filter_map(|unit| unit.memory);
                let counted = memory.filter(|it| it.class == class && (!only_shielded || it.guard == Guard::Shield));
                counted.map(|it| u128::from(it.max_bytes)).sum()
            };
            prop_assert_eq!(u128::from(budget.guaranteed_bytes), sum(Class::Guaranteed, false));
            prop_assert!(sum(Class::Pool, true) <= u128::from(budget.pool_bytes));
            let fixed = u128::from(margin) + u128::from(reserve) + u128::from(reserve / 4);
            let parts = fixed + u128::from(budget.guaranteed_bytes) + u128::from(budget.pool_bytes);
            prop_assert!(parts == u128::from(total) || (fixed > u128::from(total) && parts == fixed));
            for (unit, old) in units.iter().zip(&before).filter(|(unit, _)| unit.refused.is_none()) {
                prop_assert_eq!(unit, old);
                prop_assert!(unit.procedure.is_none_or(|it| it.memory_bytes <= reserve));
            }
            let newly = units.iter().zip(&before).filter(|(unit, old)| unit.refused != old.refused).count();
            prop_assert_eq!(newly, refusals.len());
            for refusal in &refusals {
                prop_assert!(refusal.needs_bytes > refusal.free_bytes, "{}", refusal);
            }
            if is_oom_proof(&budget, &units) {
                prop_assert!(fixed + sum(Class::Guaranteed, false) + sum(Class::Pool, false) <= u128::from(total));
            }
        }
    }
}
