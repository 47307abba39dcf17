//! The fields about the end of a unit: which ends are a success, when it is started again, and what comes when that is
//! no cure any more.

use super::check::{number, time};
use super::diagnostic::Wrong;
use super::raw::{RawExhaustion, RawLimit, RawRestart, RawSuccess, RawThen};
use super::reader::{Item, Reader, Slot};
use crate::engine::event::Exit;
use crate::engine::policy::{Escalation, ExhaustionBudget, Kind, RestartPolicy, RestartWhen, Success};
use crate::engine::policy::{UnitId, UnitPolicy};
use std::ops::RangeInclusive;

/// Delays before a restart.
const DELAY_MS: RangeInclusive<u64> = 10..=3_600_000;

/// What counts as a healthy run.
const HEALTHY_MS: RangeInclusive<u64> = 100..=86_400_000;

/// The window of the start limit, and of the budget of exhaustions.
const WITHIN_MS: RangeInclusive<u64> = 1_000..=86_400_000;

/// Where a unit can name another one that is started in its stead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Limit,
    Exhaustions,
    Procedure,
}

impl Place {
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Limit => "restart.on_limit",
            Self::Exhaustions => "restart.exhaustion.then",
            Self::Procedure => "shutdown.then",
        }
    }

    /// Puts the unit there, once its name is looked up.
    pub(super) fn set(self, policy: &mut UnitPolicy, to: UnitId) {
        let then = Escalation::Fallback(to);
        match self {
            Self::Limit => policy.restart.on_limit = then,
            Self::Exhaustions => policy.restart.exhaustion.then = Some(then),
            Self::Procedure => {
                if let Some(procedure) = &mut policy.procedure {
                    procedure.then = Some(then);
                }
            }
        }
    }

    /// The unit that stands there.
    pub(super) fn get(self, policy: &UnitPolicy) -> Option<UnitId> {
        let then = match self {
            Self::Limit => Some(policy.restart.on_limit),
            Self::Exhaustions => policy.restart.exhaustion.then,
            Self::Procedure => policy.procedure.and_then(|procedure| procedure.then),
        };
        match then {
            Some(Escalation::Fallback(to)) => Some(to),
            Some(Escalation::Stop | Escalation::Reboot | Escalation::PowerOff | Escalation::Rescue)
            | None => None,
        }
    }
}

/// The names of fallbacks, to be looked up when all units are read.
pub(super) type Fallbacks = Vec<(Place, Item<String>)>;

/// Reads `success`.
pub(super) fn success(reader: &mut Reader<'_>, slot: Slot<RawSuccess>) -> Success {
    let mut success = Success::default();
    let Some(Item { value: raw, .. }) = slot.given() else { return success };
    for Item { value: code, at } in raw.codes.given().map(|list| list.value).unwrap_or_default() {
        match u8::try_from(code) {
            Ok(code) => success.add(Exit::Code(i32::from(code))),
            Err(_) => {
                let wrong = Wrong::new(format!("{code} is no exit code")).hint("they go from 0 to 255");
                reader.fault_in("success.codes", &at, wrong);
            }
        }
    }
    for signal in raw.signals.given().map(|list| list.value).unwrap_or_default() {
        success.add(Exit::Signal(signal.value.0));
    }
    success
}

/// Reads `restart`.
pub(super) fn restart(
    reader: &mut Reader<'_>,
    slot: Slot<RawRestart>,
    kind: Kind,
    fallbacks: &mut Fallbacks,
) -> RestartPolicy {
    let mut policy = RestartPolicy::default();
    if kind == Kind::Task {
        policy.when = RestartWhen::Never;
    }
    let Some(Item { value: raw, .. }) = slot.given() else { return policy };
    if let Some(when) = raw.policy.given() {
        if kind == Kind::Task && when.value == RestartWhen::Always {
            let wrong = Wrong::new("a task that is done would be started for ever");
            let hint = "use OnFailure, OnExhaustion or Never, or kind: Service";
            reader.fault_in("restart.policy", &when.at, wrong.hint(hint));
        }
        policy.when = when.value;
    }
    policy.delay_ms = time(reader, "restart.delay", raw.delay, DELAY_MS).unwrap_or(policy.delay_ms);
    let least_ms = u64::from(policy.delay_ms);
    policy.max_delay_ms = time(reader, "restart.max_delay", raw.max_delay, least_ms..=*DELAY_MS.end())
        .unwrap_or(policy.max_delay_ms.max(policy.delay_ms));
    policy.healthy_ms =
        time(reader, "restart.healthy_after", raw.healthy_after, HEALTHY_MS).unwrap_or(policy.healthy_ms);
    if let Slot::Given(Item { value: RawThen::Restart, at }) = &raw.on_limit {
        let wrong = Wrong::new("a unit that was started too often is not started again");
        let hint = "use Stop, Fallback(\"unit\"), Reboot, PowerOff or Rescue, or raise limit";
        reader.fault_in("restart.on_limit", at, wrong.hint(hint));
    }
    policy.on_limit = then(raw.on_limit, Place::Limit, fallbacks).flatten().unwrap_or_default();
    limit_into(reader, raw.limit, &mut policy);
    policy.exhaustion = exhaustion(reader, raw.exhaustion, fallbacks);
    policy
}

fn limit_into(reader: &mut Reader<'_>, slot: Slot<RawLimit>, policy: &mut RestartPolicy) {
    let Some(Item { value: limit, .. }) = slot.given() else { return };
    if let Some(starts) = number(reader, "restart.limit.starts", limit.starts, 1..=1_000) {
        policy.limit_starts = u32::try_from(starts).unwrap_or(policy.limit_starts);
    }
    policy.limit_within_ms =
        time(reader, "restart.limit.within", limit.within, WITHIN_MS).unwrap_or(policy.limit_within_ms);
}

fn exhaustion(
    reader: &mut Reader<'_>,
    slot: Slot<RawExhaustion>,
    fallbacks: &mut Fallbacks,
) -> ExhaustionBudget {
    let mut budget = ExhaustionBudget::default();
    let Some(Item { value: raw, .. }) = slot.given() else { return budget };
    if let Some(times) = number(reader, "restart.exhaustion.times", raw.times, 1..=100) {
        budget.times = u32::try_from(times).unwrap_or(budget.times);
    }
    budget.within_ms =
        time(reader, "restart.exhaustion.within", raw.within, WITHIN_MS).unwrap_or(budget.within_ms);
    budget.then = then(raw.then, Place::Exhaustions, fallbacks).flatten();
    budget
}

/// What was written there: `Some(None)` is to go on under the restart policy. A fallback is `Stop` until its name is
/// looked up.
pub(super) fn then(
    slot: Slot<RawThen>,
    place: Place,
    fallbacks: &mut Fallbacks,
) -> Option<Option<Escalation>> {
    Some(match slot.given()?.value {
        RawThen::Restart => None,
        RawThen::Stop => Some(Escalation::Stop),
        RawThen::Fallback(name) => {
            fallbacks.push((place, name));
            Some(Escalation::Stop)
        }
        RawThen::Reboot => Some(Escalation::Reboot),
        RawThen::PowerOff => Some(Escalation::PowerOff),
        RawThen::Rescue => Some(Escalation::Rescue),
    })
}
