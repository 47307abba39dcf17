//! The division of the machine's memory, checked before anything starts.
//!
//! ```text
//! total = margin + reserve + Σ memory.max of the guaranteed units + pool
//! ```
//!
//! The reserve is real only because everything else is capped, so a unit whose bound would break the sum is
//! refused, and with it the promise would be too. Two rules keep an exhausted branch from being stuck:
//! guaranteed units fit in full, and so do the *shielded* units of the pool, so that a pool that is exhausted
//! always holds something that the kernel or lifeboat can take. Unbounded units and those with `guard: None` may
//! overcommit the pool.

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
/// is more, but never more than half of a machine.
#[must_use]
pub fn default_margin_bytes(total_bytes: u64) -> u64 {
    MARGIN_BYTES_MIN.max(total_bytes / MARGIN_DIVISOR).min(total_bytes / 2)
}

/// `memory.max` of the shutdown slice where the user has not said: 8 MiB, which holds two procedures of the default
/// size, but never more than an eighth of the machine.
#[must_use]
pub fn default_reserve_bytes(total_bytes: u64) -> u64 {
    RESERVE_BYTES.min(total_bytes / 8)
}

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
        let BudgetView { total_bytes, margin_bytes, reserve_bytes, guaranteed_bytes, pool_bytes } =
            self.budget;
        let (needs, free, taken) = (Bytes(self.needs_bytes), Bytes(self.free_bytes), Bytes(self.taken_bytes));
        let (total, margin, reserve) = (Bytes(total_bytes), Bytes(margin_bytes), Bytes(reserve_bytes));
        write!(f, "{}: ", self.name)?;
        match self.rule {
            Rule::Guaranteed => write!(
                f,
                "memory.max {needs} does not fit: {total} of memory - {margin} margin - {reserve} reserve - \
                 {taken} for guaranteed units of more utility = {free} free; lower memory.max, raise its utility, \
                 or use class: Pool"
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
                "memory.max {needs} does not fit: {} of pool - {taken} for shielded units of more utility = {free} \
                 free; lower memory.max, raise its utility, or use guard: None",
                Bytes(pool_bytes)
            ),
            Rule::Reserve => write!(
                f,
                "shutdown.memory {needs} is more than the reserve of {reserve}; lower it, or raise reserve in \
                 system.ron"
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
    units: &mut [UnitPolicy],
) -> (BudgetView, Vec<Refusal>) {
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by_key(|&i| units.get(i).map(|unit| (Reverse(unit.utility), unit.name.clone())));

    let mut refusals = Vec::new();
    let is_outgrown = |unit: &UnitPolicy| unit.procedure.is_some_and(|p| p.memory_bytes > reserve_bytes);
    for &index in &order {
        let Some(unit) = admitted(units, index).filter(|unit| is_outgrown(unit)) else { continue };
        let needs_bytes = unit.procedure.map_or(0, |procedure| procedure.memory_bytes);
        refusals.push(refuse(unit, index, Rule::Reserve, (needs_bytes, reserve_bytes, 0)));
    }

    let room_bytes = total_bytes.saturating_sub(margin_bytes).saturating_sub(reserve_bytes);
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

    let budget = BudgetView { total_bytes, margin_bytes, reserve_bytes, guaranteed_bytes, pool_bytes };
    for refusal in &mut refusals {
        refusal.budget = budget;
    }
    (budget, refusals)
}

/// Whether no service can exhaust the machine: every unit is bounded, and margin, reserve and all bounds fit.
/// Refused units do not run and so do not count.
#[must_use]
pub fn is_oom_proof(budget: &BudgetView, units: &[UnitPolicy]) -> bool {
    let Some(fixed_bytes) = budget.margin_bytes.checked_add(budget.reserve_bytes) else { return false };
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
