//! Raw to valid: what each field may hold, and what the fields must be together. All faults are told at once.
//!
//! A unit file is checked alone first (`draft`), then all of them together (`join`): names that exist, no circles.
//! A file with any fault gives a refused unit: half of what a person wrote is not what they meant.

use super::accounts::Accounts;
use super::cgroup::{self, bytes};
use super::circle;
use super::diagnostic::{Diagnostic, Place, Wrong, did_you_mean, plain, short};
use super::raw::{Occasion, RawShutdown, RawStop, RawSystem, RawThen, RawUnit};
use super::reader::{Item, Map, Reader, Slot};
use super::restart::{self, Fallbacks};
use super::setup::{self, RawIdentity};
use super::value::{Millis, Word};
use super::{Identity, System, Unit, optional, output, readiness};
use crate::engine::policy::{Escalation, Kind, ProcedurePolicy, UnitId};
use crate::engine::snapshot::Trouble;
use std::ffi::CString;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

/// What a shutdown procedure gets where the user has not said.
const PROCEDURE_BYTES: u64 = 4 << 20;

/// Deadlines that lifeboat waits for: long enough to be met, short enough that a device still goes down.
pub(super) const WAIT_MS: RangeInclusive<u64> = 10..=600_000;

/// A unit's name becomes a directory in cgroupfs, a word on the command line and a column of `status`.
const NAME_BYTES_MAX: usize = 64;

/// A description goes into every snapshot and onto one line of a console.
const DESCRIPTION_CHARS_MAX: usize = 200;

/// The beginnings of the kernel's own files in a cgroup: a unit of such a name could stand in their place.
const CGROUP_FILES: [&str; 9] =
    ["cgroup.", "memory.", "cpu.", "cpuset.", "io.", "pids.", "hugetlb.", "rdma.", "misc."];

/// A unit that is good by itself; the names of other units are not looked up yet.
#[derive(Debug)]
pub(super) struct Draft {
    pub unit: Unit,
    file: PathBuf,
    after: Vec<Reference>,
    requires: Vec<Reference>,
    fallbacks: Vec<(restart::Place, Reference)>,
}

/// Another unit's name, and where it was written.
#[derive(Debug)]
struct Reference {
    name: String,
    place: Place,
}

impl Draft {
    /// What stands for a file that cannot be read.
    pub(super) fn refused(name: &str, file: &Path) -> Self {
        let unit = Unit::refused(name, Trouble::BadUnit);
        Self { unit, file: file.to_owned(), after: Vec::new(), requires: Vec::new(), fallbacks: Vec::new() }
    }

    /// Keeps what `status` shows and forgets what could be started.
    fn refuse(&mut self) {
        let policy = &mut self.unit.policy;
        let (name, description, kind) =
            (policy.name.clone(), std::mem::take(&mut policy.description), policy.kind);
        *self = Self::refused(&name, &self.file);
        (self.unit.policy.description, self.unit.policy.kind) = (description, kind);
    }
}

/// What is wrong with a unit's name.
pub(super) fn name_fault(name: &str) -> Option<Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.@-".contains(c);
    let hint = "use letters, digits, _ . @ and -, beginning with a letter or a digit";
    let wrong = if name.is_empty() || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        "a unit's name begins with a letter or a digit".to_owned()
    } else if let Some(bad) = name.chars().find(|&c| !allowed(c)) {
        format!("a unit's name has no `{}`", short(&bad.to_string()))
    } else if name.len() > NAME_BYTES_MAX {
        format!("a unit's name has at most {NAME_BYTES_MAX} letters; this one has {}", name.len())
    } else if let Some(prefix) = CGROUP_FILES.iter().find(|prefix| name.starts_with(**prefix)) {
        format!("names that begin with `{prefix}` belong to the kernel's files in a cgroup")
    } else if name == "all" {
        "`all` means every unit to lifeboatctl".to_owned()
    } else {
        return None;
    };
    Some(Wrong::new(wrong).hint(format!("rename the file: {hint}")))
}

/// Checks one file by itself.
pub(super) fn draft(name: &str, file: &Path, text: &str, accounts: &Accounts) -> (Draft, Vec<Diagnostic>) {
    let mut reader = Reader::new(file, text);
    let mut draft = Draft::refused(name, file);
    if let Some(raw) = reader.whole::<RawUnit>() {
        let whole = 0..text.len();
        draft = checked(&mut reader, raw, (name, &whole), accounts);
    }
    let faults = reader.faults.into_sorted(file);
    if !faults.is_empty() {
        draft.refuse();
    }
    (draft, faults)
}

fn checked(
    reader: &mut Reader<'_>,
    mut raw: RawUnit,
    (name, whole): (&str, &Range<usize>),
    accounts: &Accounts,
) -> Draft {
    let mut unit = Unit::empty(name);
    unit.cgroup.optional = optional::read(reader, &mut raw);
    unit.setup = setup::setup(reader, &mut raw);
    let memory_absent = raw.memory.is_absent();
    cgroup::read_into(reader, &mut raw, &mut unit);
    let policy = &mut unit.policy;
    policy.description = description(reader, raw.description);
    policy.kind = raw.kind.value_or(Kind::Service);
    policy.autostart = raw.autostart.value_or(true);
    policy.utility =
        number(reader, "utility", raw.utility, 0..=100).map_or(50, |it| it.try_into().unwrap_or(50));
    readiness::read_into(reader, raw.ready, (raw.start_timeout, raw.watchdog), &mut unit);
    readiness::health_into(reader, raw.health, &mut unit);
    if let Some(stop) = raw.stop.given() {
        stop_into(reader, stop.value, &mut unit);
    }
    unit.policy.success = restart::success(reader, raw.success);
    let mut fallbacks = Fallbacks::new();
    unit.policy.restart = restart::restart(reader, raw.restart, unit.policy.kind, &mut fallbacks);
    if raw.command.is_absent() {
        reader.missing("command", whole, "every unit needs one: command: [\"/usr/bin/program\", \"--flag\"]");
    }
    let RawUnit { user, group, groups, capabilities, .. } = raw;
    let identity = RawIdentity { user, group, groups, capabilities };
    unit.identity = setup::identity(reader, accounts, "", identity, &Identity::default());
    unit.command = command(reader, "command", raw.command);
    if let Some(shutdown) = raw.shutdown.given() {
        let then = procedure(reader, shutdown, memory_absent, &mut unit, accounts);
        let then = restart::then(then, restart::Place::Procedure, &mut fallbacks);
        if let (Some(procedure), Some(then)) = (&mut unit.policy.procedure, then) {
            procedure.then = then;
        }
    }
    unit.environment = setup::environment_files(reader, raw.environment_files);
    unit.environment.extend(environment(reader, raw.environment));
    unit.working_directory = directory(reader, raw.working_directory);
    output::read_into(reader, raw.output, raw.output_ring, &mut unit);
    let after = references(reader, "after", raw.after, name);
    let requires = references(reader, "requires", raw.requires, name);
    let fallbacks = fallbacks
        .into_iter()
        .filter_map(|(place, to)| Some((place, reference(reader, place.field(), to, name)?)))
        .collect();
    Draft { unit, file: reader.file.to_owned(), after, requires, fallbacks }
}

fn description(reader: &mut Reader<'_>, slot: Slot<String>) -> String {
    let Some(Item { value, at }) = slot.given() else { return String::new() };
    if value.chars().any(char::is_control) || value.chars().count() > DESCRIPTION_CHARS_MAX {
        let wrong = format!("a description is one line of text, of at most {DESCRIPTION_CHARS_MAX} letters");
        reader.fault_in("description", &at, Wrong::new(wrong));
    }
    plain(&value)
}

pub(super) fn number(
    reader: &mut Reader<'_>,
    field: &str,
    slot: Slot<u64>,
    range: RangeInclusive<u64>,
) -> Option<u64> {
    let Item { value, at } = slot.given()?;
    if range.contains(&value) {
        return Some(value);
    }
    let wrong = Wrong::new(format!("{value} is out of range"));
    let hint = format!("it goes from {} to {}", range.start(), range.end());
    reader.fault_in(field, &at, wrong.hint(hint));
    None
}

/// A time within bounds, in milliseconds. The bounds fit 32 bits.
pub(super) fn time(
    reader: &mut Reader<'_>,
    field: &str,
    slot: Slot<Millis>,
    range: RangeInclusive<u64>,
) -> Option<u32> {
    let Item { value: Millis(value), at } = slot.given()?;
    if range.contains(&value) {
        return u32::try_from(value).ok();
    }
    let side = if value < *range.start() { "short" } else { "long" };
    let shown = |ms: u64| humantime::format_duration(std::time::Duration::from_millis(ms)).to_string();
    let wrong = Wrong::new(format!("{} is too {side}", shown(value)));
    let hint = format!("it goes from {} to {}", shown(*range.start()), shown(*range.end()));
    reader.fault_in(field, &at, wrong.hint(hint));
    None
}

fn stop_into(reader: &mut Reader<'_>, raw: RawStop, unit: &mut Unit) {
    if let Some(signal) = raw.signal.given() {
        unit.policy.stop_signal = signal.value.0;
    }
    if let Some(timeout_ms) = time(reader, "stop.timeout", raw.timeout, WAIT_MS) {
        unit.policy.stop_timeout_ms = timeout_ms;
    }
}

fn procedure(
    reader: &mut Reader<'_>,
    shutdown: Item<RawShutdown>,
    memory_absent: bool,
    unit: &mut Unit,
    accounts: &Accounts,
) -> Slot<RawThen> {
    let Item { value: raw, at } = shutdown;
    let mut policy = ProcedurePolicy {
        on_exhaustion: true,
        on_stop: false,
        on_failure: false,
        deadline_ms: 2_000,
        memory_bytes: PROCEDURE_BYTES,
        then: (unit.policy.kind == Kind::Task).then_some(Escalation::Stop),
    };
    if raw.procedure.is_absent() {
        reader.missing("shutdown.procedure", &at, "write procedure: [\"/usr/bin/program-flush\"]");
    }
    unit.procedure = command(reader, "shutdown.procedure", raw.procedure);
    if let Some(on) = raw.on.given() {
        if on.value.is_empty() {
            let wrong = Wrong::new("a procedure that runs on no occasion never runs");
            reader.fault_in("shutdown.on", &on.at, wrong.hint("write [Exhaustion] or [Exhaustion, Stop]"));
        }
        policy.on_exhaustion = on.value.iter().any(|item| item.value == Occasion::Exhaustion);
        policy.on_stop = on.value.iter().any(|item| item.value == Occasion::Stop);
        policy.on_failure = on.value.iter().any(|item| item.value == Occasion::Failure);
    }
    if policy.on_exhaustion && memory_absent {
        let wrong = Wrong::new("without a bound of its own this unit's memory is never exhausted");
        reader.fault_in("shutdown", &at, wrong.hint("add memory: (max: \"32MiB\"), or use on: [Stop]"));
    }
    policy.deadline_ms =
        time(reader, "shutdown.deadline", raw.deadline, WAIT_MS).unwrap_or(policy.deadline_ms);
    policy.memory_bytes = bytes(reader, "shutdown.memory", raw.memory).unwrap_or(policy.memory_bytes);
    let RawShutdown { user, group, groups, capabilities, then, .. } = raw;
    let identity = RawIdentity { user, group, groups, capabilities };
    unit.procedure_identity = setup::identity(reader, accounts, "shutdown.", identity, &unit.identity);
    unit.policy.procedure = Some(policy);
    then
}

/// A string for the kernel, which has no NUL.
pub(super) fn c_string(
    reader: &mut Reader<'_>,
    field: &str,
    text: &str,
    at: &Range<usize>,
) -> Option<CString> {
    let string = CString::new(text);
    if string.is_err() {
        reader.fault_in(field, at, Wrong::new("there is a NUL character in this string"));
    }
    string.ok()
}

fn command(reader: &mut Reader<'_>, field: &str, slot: Slot<Vec<Item<String>>>) -> Vec<CString> {
    let Some(Item { value: words, at }) = slot.given() else { return Vec::new() };
    match words.first() {
        None => {
            let wrong = Wrong::new("there is no program here");
            reader.fault_in(field, &at, wrong.hint("write [\"/usr/bin/program\", \"--flag\"]"));
        }
        Some(program) => absolute(reader, field, program),
    }
    words.iter().filter_map(|word| c_string(reader, field, &word.value, &word.at)).collect()
}

fn absolute(reader: &mut Reader<'_>, field: &str, path: &Item<String>) {
    let Item { value, at } = path;
    if value.starts_with('/') {
        return;
    }
    let wrong = Wrong::new(format!("`{}` is not an absolute path", short(value)));
    let hint = match value.split_once(' ') {
        Some(_) => "begin with /, and write every argument as a string of its own".to_owned(),
        None => format!("there is no search path here; write \"/usr/bin/{}\" or where it is", short(value)),
    };
    reader.fault_in(field, at, wrong.hint(hint));
}

/// A folder, absolute.
fn state_folder(reader: &mut Reader<'_>, slot: Slot<String>) -> Option<PathBuf> {
    let path = slot.given()?;
    if path.value.starts_with('/') {
        return Some(path.value.into());
    }
    let wrong = Wrong::new(format!("`{}` is not an absolute path", short(&path.value)));
    reader.fault_in("state_folder", &path.at, wrong.hint("begin with /"));
    None
}

fn directory(reader: &mut Reader<'_>, slot: Slot<String>) -> Option<CString> {
    let path = slot.given()?;
    if !path.value.starts_with('/') {
        let wrong = Wrong::new(format!("`{}` is not an absolute path", short(&path.value)));
        reader.fault_in("working_directory", &path.at, wrong.hint("begin with /"));
    }
    c_string(reader, "working_directory", &path.value, &path.at)
}

fn environment(reader: &mut Reader<'_>, slot: Slot<Map<String>>) -> Vec<CString> {
    let entries = slot.given().map(|item| item.value).unwrap_or_default();
    let mut strings = Vec::new();
    for (key, value) in &entries {
        if key.value.is_empty() || key.value.contains('=') {
            let wrong = Wrong::new(format!("`{}` is no name of a variable", short(&key.value)));
            reader.fault_in("environment", &key.at, wrong.hint("write {\"NAME\": \"value\"}"));
        }
        let at = key.at.start..value.at.end;
        strings.extend(c_string(reader, "environment", &format!("{}={}", key.value, value.value), &at));
    }
    strings
}

fn references(
    reader: &mut Reader<'_>,
    field: &str,
    slot: Slot<Vec<Item<String>>>,
    own_name: &str,
) -> Vec<Reference> {
    let items = slot.given().map(|item| item.value).unwrap_or_default();
    let mut list: Vec<Reference> = Vec::new();
    for item in items {
        if let Some(reference) = reference(reader, field, item, own_name)
            && list.iter().all(|other| other.name != reference.name)
        {
            list.push(reference);
        }
    }
    list
}

fn reference(reader: &mut Reader<'_>, field: &str, item: Item<String>, own_name: &str) -> Option<Reference> {
    let Item { value: name, at } = item;
    if name != own_name {
        return Some(Reference { name, place: reader.place(&at) });
    }
    let is_list = matches!(field, "after" | "requires");
    let wrong = if is_list {
        Wrong::new("a unit cannot wait for itself").hint("take it out of the list")
    } else {
        Wrong::new("a unit cannot stand in for itself").hint("name another unit")
    };
    reader.fault_in(field, &at, wrong);
    None
}

/// Looks up the names, gives the ids, and refuses circles. Ids are positions: the drafts are sorted by name.
pub(super) fn join(mut drafts: Vec<Draft>) -> (Vec<Unit>, Vec<Diagnostic>) {
    let mut faults = Vec::new();
    let names: Vec<String> = drafts.iter().map(|draft| draft.unit.policy.name.clone()).collect();
    for draft in &mut drafts {
        let found = (
            lookup(&names, "after", &draft.after, &draft.file, &mut faults),
            lookup(&names, "requires", &draft.requires, &draft.file, &mut faults),
        );
        let policy = &mut draft.unit.policy;
        if let (Some(after), Some(requires)) = found {
            (policy.after, policy.requires) = (after, requires);
        } else {
            draft.refuse();
        }
    }
    refuse_circles(&mut drafts, &names, &mut faults);
    join_fallbacks(&mut drafts, &names, &mut faults);
    (drafts.into_iter().map(|draft| draft.unit).collect(), faults)
}

/// The ids of the names, or none of them where one is unknown.
fn lookup(
    names: &[String],
    field: &str,
    references: &[Reference],
    file: &Path,
    faults: &mut Vec<Diagnostic>,
) -> Option<Vec<UnitId>> {
    let mut ids = Some(Vec::new());
    for reference in references {
        let found = names.binary_search(&reference.name).ok().and_then(|index| u16::try_from(index).ok());
        if let (Some(index), Some(ids)) = (found, &mut ids) {
            ids.push(UnitId(index));
        }
        if found.is_none() {
            let wrong = Wrong::new(format!("there is no unit `{}`", short(&reference.name)));
            let hint = did_you_mean(&reference.name, names.iter().map(String::as_str));
            let hint = hint.unwrap_or_else(|| format!("is {}.ron missing?", short(&reference.name)));
            faults.push(Diagnostic::at(file, &reference.place, field, wrong.hint(hint)));
            ids = None;
        }
    }
    ids
}

/// Looks up the fallbacks, and refuses circles of them: also where a fallback requires the unit in whose stead it is to
/// run.
fn join_fallbacks(drafts: &mut [Draft], names: &[String], faults: &mut Vec<Diagnostic>) {
    for draft in &mut *drafts {
        for (place, reference) in std::mem::take(&mut draft.fallbacks) {
            match lookup(names, place.field(), std::slice::from_ref(&reference), &draft.file, faults) {
                Some(ids) => {
                    ids.first().into_iter().for_each(|&to| place.set(&mut draft.unit.policy, to));
                    draft.fallbacks.push((place, reference));
                }
                None => draft.refuse(),
            }
        }
    }
    let edges: Vec<Vec<usize>> = drafts
        .iter()
        .map(|Draft { unit: Unit { policy, .. }, fallbacks, .. }| {
            let fallbacks = fallbacks.iter().filter_map(|(place, _)| place.get(policy));
            policy.requires.iter().copied().chain(fallbacks).map(|id| usize::from(id.0)).collect()
        })
        .collect();
    for group in circle::groups(&edges) {
        let way = circle::way_round(&edges, &group);
        faults.extend(fallback_fault(drafts, names, &way));
        for &member in &group {
            drafts.get_mut(member).into_iter().for_each(Draft::refuse);
        }
    }
}

/// The fault of a circle in which a unit's fallback leads back to it, at a place that names a fallback.
fn fallback_fault(drafts: &[Draft], names: &[String], way: &[usize]) -> Option<Diagnostic> {
    let (draft, place, reference) = way.windows(2).find_map(|step| {
        let (draft, next) = (drafts.get(*step.first()?)?, names.get(*step.last()?)?);
        let (place, reference) = draft.fallbacks.iter().find(|(_, reference)| reference.name == *next)?;
        Some((draft, place, reference))
    })?;
    let words: Vec<&str> = way.iter().filter_map(|index| names.get(*index).map(String::as_str)).collect();
    let message = format!("these units stand in for each other: {}", words.join(" → "));
    let hint = "a fallback neither falls back to nor requires the unit in whose stead it runs";
    Some(Diagnostic::at(&draft.file, &reference.place, place.field(), Wrong::new(message).hint(hint)))
}

/// Refuses every unit that stands in a circle, tells each circle once, and takes the circle's edges away so that
/// what is left has an order.
fn refuse_circles(drafts: &mut [Draft], names: &[String], faults: &mut Vec<Diagnostic>) {
    let edges: Vec<Vec<usize>> = drafts
        .iter()
        .map(|Draft { unit: Unit { policy, .. }, .. }| {
            policy.after.iter().chain(&policy.requires).map(|id| usize::from(id.0)).collect()
        })
        .collect();
    for group in circle::groups(&edges) {
        let way = circle::way_round(&edges, &group);
        faults.extend(circle_fault(drafts, names, &group, &way));
        for &member in &group {
            let Some(draft) = drafts.get_mut(member) else { continue };
            let policy = &mut draft.unit.policy;
            let outside = |id: &UnitId| group.binary_search(&usize::from(id.0)).is_err();
            policy.after.retain(outside);
            policy.requires.retain(outside);
            policy.refused = Some(Trouble::OrderCycle);
        }
    }
}

/// The fault of a circle, at the place where its first unit names the next.
fn circle_fault(drafts: &[Draft], names: &[String], group: &[usize], way: &[usize]) -> Option<Diagnostic> {
    const SHOWN_MAX: usize = 16;
    let name = |index: &usize| names.get(*index).map_or("", String::as_str);
    let draft = drafts.get(*way.first()?)?;
    let next = name(way.get(1)?);
    let named = |list: &'static str, references: &'_ [Reference]| {
        references.iter().find(|reference| reference.name == next).map(|found| (list, found.place.clone()))
    };
    let (field, place) = named("requires", &draft.requires).or_else(|| named("after", &draft.after))?;
    let mut words: Vec<&str> = way.iter().map(name).collect();
    if words.len() > SHOWN_MAX {
        words.splice(SHOWN_MAX / 2..words.len() - SHOWN_MAX / 2, ["..."]);
    }
    let mut message = format!("these units wait for each other: {}", words.join(" → "));
    let others: Vec<&str> = group.iter().filter(|member| !way.contains(member)).map(name).collect();
    if !others.is_empty() {
        let shown = others.iter().take(SHOWN_MAX).copied().collect::<Vec<_>>().join(", ");
        let more = others.len().saturating_sub(SHOWN_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        message = format!("{message}; {shown}{more} in other circles with them");
    }
    let hint = "take one of these out of `after` or `requires`; none of them is started until then";
    Some(Diagnostic::at(&draft.file, &place, field, Wrong::new(message).hint(hint)))
}

/// Checks `system.ron`. Where a field has a fault its default holds: the device still boots.
pub(super) fn system(file: &Path, text: &str, units: &[Unit]) -> (System, Vec<Diagnostic>) {
    let mut reader = Reader::new(file, text);
    let mut system = System::default();
    if let Some(raw) = reader.whole::<RawSystem>() {
        system.hostname = hostname(&mut reader, raw.hostname);
        system.rescue = rescue(&mut reader, raw.rescue, units);
        system.state_folder = state_folder(&mut reader, raw.state_folder);
        system.reserve = raw.reserve.given().map(|item| item.value);
        system.margin = raw.margin.given().map(|item| item.value);
        system.sysctls = sysctls(&mut reader, raw.sysctls);
    }
    (system, reader.faults.into_sorted(file))
}

fn hostname(reader: &mut Reader<'_>, slot: Slot<String>) -> Option<String> {
    let Item { value, at } = slot.given()?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    // The kernel takes 64 bytes (sethostname(2)).
    if value.is_empty() || value.len() > 64 || !value.chars().all(allowed) {
        let wrong = Wrong::new(format!("`{}` is no host name", short(&value)));
        reader.fault_in("hostname", &at, wrong.hint("up to 64 letters, digits, - and ."));
        return None;
    }
    Some(value)
}

fn rescue(reader: &mut Reader<'_>, slot: Slot<String>, units: &[Unit]) -> Option<String> {
    let Item { value, at } = slot.given()?;
    let names = || units.iter().map(|unit| unit.policy.name.as_str());
    if names().any(|name| name == value) {
        return Some(value);
    }
    let hint = did_you_mean(&value, names());
    let hint = hint.unwrap_or_else(|| format!("is {}.ron missing?", short(&value)));
    let wrong = Wrong::new(format!("there is no unit `{}`", short(&value)));
    reader.fault_in("rescue", &at, wrong.hint(hint));
    None
}

fn sysctls(reader: &mut Reader<'_>, slot: Slot<Map<Word>>) -> Vec<(String, String)> {
    let entries = slot.given().map(|item| item.value).unwrap_or_default();
    let mut list = Vec::new();
    for (key, Item { value: Word(value), at }) in entries {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let is_path = key.value.split('.').all(|part| !part.is_empty() && part.chars().all(allowed));
        if !is_path || !key.value.contains('.') {
            let wrong = Wrong::new(format!("`{}` is no sysctl", short(&key.value)));
            reader.fault_in("sysctls", &key.at, wrong.hint("write it with dots: \"vm.overcommit_memory\""));
        } else if value.chars().any(char::is_control) {
            reader.fault_in("sysctls", &at, Wrong::new("the value is one line of plain text"));
        } else {
            list.push((key.value, value));
        }
    }
    list
}
