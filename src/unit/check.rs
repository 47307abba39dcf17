//! Raw to valid: what each field may hold, and what the fields must be together. All faults are told at once.
//!
//! A unit file is checked alone here (`draft`), then all of them together (`relations::join`): names that exist, no
//! circles.
//! A file with any fault gives a refused unit: half of what a person wrote is not what they meant.

use super::accounts::Accounts;
use super::cgroup::{self, bytes};
use super::diagnostic::{Diagnostic, Place, Wrong, did_you_mean, plain, short};
use super::fallbacks::{self, Named};
use super::raw::{Occasion, Places, RawIncidents, RawShutdown, RawSystem, RawThen, RawUnit};
use super::reader::{Item, Map, Reader, Slot};
use super::relations::{self, Reference};
use super::restart::{self, Fallbacks};
use super::setup::{self, RawIdentity};
use super::value::{Millis, Word};
use super::{
    Identity, Origin, System, Unit, adopt, commands, condition, optional, output, readiness, sockets,
    template,
};
use crate::engine::policy::{Escalation, Guard, Kind, OnRequirementRestart, ProcedurePolicy, ServiceMode};
use crate::engine::snapshot::{IncidentStore, Trouble};
use std::ffi::CString;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

/// What a shutdown procedure gets where the user has not said.
const PROCEDURE_BYTES: u64 = 4 << 20;

/// What a service that saves itself is lent where the user has not said: a signal handler, its stack and some pages of
/// the file that it writes.
const LEND_BYTES: u64 = 2 << 20;

/// Deadlines that lifeboat waits for: long enough to be met, short enough that a device still goes down.
pub(super) const WAIT_MS: RangeInclusive<u64> = 10..=600_000;

/// Often enough for a test bench, and not so rare that nobody remembers it.
const DRILL_EVERY_MS: RangeInclusive<u64> = 1_000..=2_592_000_000;

/// Each incident has at most 64 KiB; a small disk should not be filled by them.
const INCIDENTS_KEPT: RangeInclusive<u64> = 0..=1_000;

/// A unit's name becomes a directory in cgroupfs, a word on the command line and a column of `status`.
const NAME_BYTES_MAX: usize = 64;

/// A description goes into every snapshot and onto one line of a console.
pub const DESCRIPTION_CHARS_MAX: usize = 200;

/// The beginnings of the kernel's own files in a cgroup: a unit of such a name could stand in their place.
const CGROUP_FILES: [&str; 9] =
    ["cgroup.", "memory.", "cpu.", "cpuset.", "io.", "pids.", "hugetlb.", "rdma.", "misc."];

/// A unit that is good by itself; the names of other units are not looked up yet.
#[derive(Debug)]
pub(super) struct Draft {
    pub unit: Unit,
    pub file: PathBuf,
    /// What it says of other units.
    pub references: Vec<Reference>,
    /// What runs in its stead.
    pub fallbacks: Vec<Named>,
    /// The units that it makes, where it is a template.
    pub instances: Vec<String>,
}

impl Draft {
    /// What stands for a file that cannot be read.
    pub(super) fn refused(name: &str, file: &Path) -> Self {
        let unit = Unit::refused(name, Trouble::BadUnit);
        Self {
            unit,
            file: file.to_owned(),
            references: Vec::new(),
            fallbacks: Vec::new(),
            instances: Vec::new(),
        }
    }

    /// Keeps what `status` shows and forgets what could be started.
    pub(super) fn refuse(&mut self) {
        let policy = &mut self.unit.policy;
        let (name, description, kind) =
            (policy.name.clone(), std::mem::take(&mut policy.description), policy.kind);
        let instances = std::mem::take(&mut self.instances);
        *self = Self { instances, ..Self::refused(&name, &self.file) };
        (self.unit.policy.description, self.unit.policy.kind) = (description, kind);
    }

    /// Takes it out of the graph, as far as its own file put it there.
    pub(super) fn forget_relations(&mut self) {
        self.references.clear();
        let policy = &mut self.unit.policy;
        for list in [
            &mut policy.requires,
            &mut policy.wants,
            &mut policy.after,
            &mut policy.before,
            &mut policy.conflicts,
        ] {
            list.clear();
        }
    }
}

/// What a unit's name may be.
const NAME_HINT: &str = "use letters, digits, _ . @ and -, beginning with a letter or a digit";

/// What is wrong with a unit's name.
pub(super) fn name_fault(name: &str) -> Option<Wrong> {
    wrong_of_name(name).map(|wrong| Wrong::new(wrong).hint(format!("rename the file: {NAME_HINT}")))
}

/// What is wrong with a name for a new unit, with the cure.
#[must_use]
pub fn fault_of_new_name(name: &str) -> Option<String> {
    let is_template = name.ends_with('@');
    let template = || is_template.then(|| "a name that ends with @ is a template's, which no unit is".into());
    let wrong = wrong_of_name(name).or_else(template)?;
    Some(format!("`{}` cannot be a unit's name: {wrong}; {NAME_HINT}", short(name)))
}

fn wrong_of_name(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.@-".contains(c);
    Some(if name.is_empty() || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
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
    })
}

/// Checks one file by itself.
pub(super) fn draft(name: &str, file: &Path, text: &str, accounts: &Accounts) -> (Draft, Vec<Diagnostic>) {
    let mut reader = Reader::of_unit(file, text, name);
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

/// What a target may have: no more than a place among the other units.
const FIELDS_OF_TARGETS: [&str; 12] = [
    "description",
    "kind",
    "autostart",
    "requires",
    "wants",
    "after",
    "before",
    "conflicts",
    "on_requirement_restart",
    "conditions",
    "instances",
    "utility",
];

fn checked(
    reader: &mut Reader<'_>,
    mut raw: RawUnit,
    (name, whole): (&str, &Range<usize>),
    accounts: &Accounts,
) -> Draft {
    let mut unit = Unit::empty(name);
    let lines = raw.places().into_iter().map(|(field, at)| (field, reader.place(&at).line()));
    unit.origin = Origin::new(reader.file, lines);
    let is_target = matches!(raw.kind, Slot::Given(Item { value: Kind::Target, .. }));
    if is_target {
        for (field, at) in raw.places() {
            if !FIELDS_OF_TARGETS.contains(&field) {
                let wrong = Wrong::new("a target runs nothing, so it has no such field");
                reader.fault_in(field, &at, wrong.hint("take it out, or use kind: Service or Task"));
            }
        }
    }
    adopt::refuse_others(reader, &raw);
    let references = relations::read(reader, &mut raw, name);
    let instances = template::instances(reader, raw.instances.take(), name);
    unit.conditions = condition::list(raw.conditions.take());
    let policy = &mut unit.policy;
    policy.conditions = unit.conditions.iter().map(ToString::to_string).collect();
    policy.on_requirement_restart = raw.on_requirement_restart.take().value_or(OnRequirementRestart::Keep);
    policy.description = description(reader, raw.description.take());
    policy.kind = raw.kind.take().value_or(Kind::Service);
    policy.autostart = raw.autostart.take().value_or(true);
    policy.utility =
        number(reader, "utility", raw.utility.take(), 0..=100).map_or(50, |it| it.try_into().unwrap_or(50));
    let mut fallbacks = Fallbacks::new();
    if !is_target {
        fallbacks = program_into(reader, raw, whole, (&mut unit, accounts));
    }
    let fallbacks = fallbacks::read(reader, fallbacks, name);
    Draft { unit, file: reader.file.to_owned(), references, fallbacks, instances }
}

/// Everything about a unit that runs something. Gives the names of what may run in its stead.
fn program_into(
    reader: &mut Reader<'_>,
    mut raw: RawUnit,
    whole: &Range<usize>,
    (unit, accounts): (&mut Unit, &Accounts),
) -> Fallbacks {
    unit.cgroup.optional = optional::read(reader, &mut raw);
    unit.setup = setup::setup(reader, &mut raw);
    let memory_absent = raw.memory.is_absent();
    cgroup::read_into(reader, &mut raw, unit);
    let ready_at = raw.ready.place();
    readiness::read_into(reader, raw.ready, (raw.start_timeout, raw.watchdog), unit);
    readiness::health_into(reader, raw.health, unit);
    sockets::sockets_into(reader, raw.sockets, unit, accounts);
    sockets::demand_into(reader, (raw.on_demand, raw.idle_stop, raw.fd_store_max), ready_at, unit);
    let stop_command_at = commands::stop_into(reader, raw.stop, unit);
    commands::reload_into(reader, raw.reload, unit);
    commands::memory_into(reader, raw.commands, unit);
    unit.policy.success = restart::success(reader, raw.success);
    let mut fallbacks = Fallbacks::new();
    unit.policy.restart = restart::restart(reader, raw.restart, unit.policy.kind, &mut fallbacks);
    if raw.command.is_absent() && raw.adopt.is_absent() {
        let hint = "every unit but a target needs one: command: [\"/usr/bin/program\", \"--flag\"]";
        reader.missing("command", whole, hint);
    }
    let RawUnit { user, group, groups, capabilities, .. } = raw;
    let identity = RawIdentity { user, group, groups, capabilities };
    unit.identity = setup::identity(reader, accounts, "", identity, &Identity::default());
    unit.command = command(reader, "command", raw.command);
    if let Some(mut shutdown) = raw.shutdown.given() {
        let drill_every = shutdown.value.drill_every.take();
        let then = procedure(reader, shutdown, memory_absent, unit, accounts);
        let then = restart::then(then, restart::Place::Procedure, &mut fallbacks);
        if let (Some(procedure), Some(then)) = (&mut unit.policy.procedure, then) {
            procedure.then = then;
        }
        drill_every_into(reader, drill_every, unit);
    }
    adopt::read_into(reader, raw.adopt, unit);
    commands::no_procedure_instead(reader, stop_command_at, unit);
    unit.environment = setup::environment_files(reader, raw.environment_files);
    unit.environment.extend(environment(reader, raw.environment));
    unit.working_directory = directory(reader, raw.working_directory);
    output::read_into(reader, raw.output, raw.output_ring, unit);
    fallbacks
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

fn procedure(
    reader: &mut Reader<'_>,
    shutdown: Item<RawShutdown>,
    memory_absent: bool,
    unit: &mut Unit,
    accounts: &Accounts,
) -> Slot<RawThen> {
    let Item { value: raw, at } = shutdown;
    let deadline_ms = time(reader, "shutdown.deadline", raw.deadline, WAIT_MS).unwrap_or(2_000);
    let mut policy = ProcedurePolicy {
        on_exhaustion: true,
        on_stop: false,
        on_failure: false,
        deadline_ms,
        memory_bytes: PROCEDURE_BYTES,
        service: ServiceMode::Frozen,
        lend_bytes: 0,
        has_program: true,
        resident: false,
        drill_every_ms: None,
        has_otherwise: !raw.otherwise.is_absent(),
        then: (unit.policy.kind == Kind::Task).then_some(Escalation::Stop),
    };
    let service_known = raw.service.is_absent() || raw.service.place().is_some();
    policy.service = raw.service.value_or(ServiceMode::Frozen);
    let saves_itself = policy.service == ServiceMode::Running;
    policy.has_program = !(saves_itself && raw.procedure.is_absent());
    if raw.procedure.is_absent() && !saves_itself {
        reader.missing("shutdown.procedure", &at, "write procedure: [\"/usr/bin/program-flush\"]");
    }
    if let Some(wrong_at) = raw.otherwise.place().filter(|_| !policy.has_program) {
        let wrong = Wrong::new("there is no first procedure that could fail");
        reader.fault_in("shutdown.otherwise", &wrong_at, wrong.hint("call it procedure"));
    }
    if let Some(wrong_at) = raw.resident.place().filter(|_| !policy.has_program && service_known) {
        let wrong = Wrong::new("there is no program that could be resident");
        reader.fault_in("shutdown.resident", &wrong_at, wrong.hint("add a procedure, or take resident out"));
    }
    policy.resident = raw.resident.value_or(false);
    unit.procedure = command(reader, "shutdown.procedure", raw.procedure);
    unit.otherwise = command(reader, "shutdown.otherwise", raw.otherwise);
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
    if let Some(wrong_at) = raw.lend.place().filter(|_| !saves_itself && service_known) {
        let wrong = Wrong::new("nothing is lent to a service that does not run meanwhile");
        reader.fault_in("shutdown.lend", &wrong_at, wrong.hint("add service: Running, or take lend out"));
    }
    if saves_itself {
        policy.lend_bytes = bytes(reader, "shutdown.lend", raw.lend).unwrap_or(LEND_BYTES);
    }
    let guard = unit.policy.memory.map(|memory| memory.guard);
    if !policy.has_program && policy.on_exhaustion && guard == Some(Guard::None) {
        let wrong = Wrong::new("with guard: None the kernel kills the service before it could save itself");
        reader.fault_in(
            "shutdown",
            &at,
            wrong.hint("use guard: Shield, or add a procedure, which comes after that"),
        );
    }
    let memory_bytes = if policy.has_program { PROCEDURE_BYTES } else { 0 };
    policy.memory_bytes = bytes(reader, "shutdown.memory", raw.memory).unwrap_or(memory_bytes);
    let RawShutdown { user, group, groups, capabilities, then, .. } = raw;
    let identity = RawIdentity { user, group, groups, capabilities };
    unit.procedure_identity = setup::identity(reader, accounts, "shutdown.", identity, &unit.identity);
    unit.policy.procedure = Some(policy);
    then
}

/// From a drill on its clocks begin anew, so it must be rarer than what they are for.
fn drill_every_into(reader: &mut Reader<'_>, slot: Slot<Millis>, unit: &mut Unit) {
    const FIELD: &str = "shutdown.drill_every";
    let Some(at) = slot.place() else { return };
    let every_ms = time(reader, FIELD, slot, DRILL_EVERY_MS);
    let policy = &mut unit.policy;
    let health_ms = policy.health.map(|it| it.interval_ms.saturating_add(it.timeout_ms));
    let clocks = [
        (policy.watchdog_ms, "watchdog"),
        (health_ms, "health.interval and health.timeout together"),
        (policy.descriptors.idle_stop_ms, "idle_stop"),
    ];
    let late = |(ms, name): (Option<u32>, _)| (ms? >= every_ms?).then_some(name);
    if let Some(name) = clocks.into_iter().find_map(late) {
        let wrong =
            Wrong::new("each drill begins the service's clocks anew, so this one would never run out");
        reader.fault_in(FIELD, &at, wrong.hint(format!("make it longer than {name}")));
    }
    let Some(procedure) = &mut policy.procedure else { return };
    procedure.drill_every_ms = every_ms;
    if procedure.service != ServiceMode::Frozen {
        let wrong = Wrong::new("there is no way back from a procedure whose service is not Frozen meanwhile");
        let hint = "use service: Frozen, or take it out and use `lifeboatctl drill NAME --to-the-end`";
        reader.fault_in(FIELD, &at, wrong.hint(hint));
    }
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

pub(super) fn command(reader: &mut Reader<'_>, field: &str, slot: Slot<Vec<Item<String>>>) -> Vec<CString> {
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

/// Checks `system.ron`. Where a field has a fault its default holds: the device still boots.
/// Also gives the place of `boot`.
pub(super) fn system(file: &Path, text: &str, names: &[String]) -> (System, Option<Place>, Vec<Diagnostic>) {
    let mut reader = Reader::new(file, text);
    let mut system = System::default();
    let mut boot_at = None;
    if let Some(raw) = reader.whole::<RawSystem>() {
        system.hostname = hostname(&mut reader, raw.hostname);
        boot_at = raw.boot.place().map(|at| reader.place(&at));
        system.boot = raw.boot.given().map(|item| item.value);
        system.rescue = rescue(&mut reader, raw.rescue, names);
        system.state_folder = state_folder(&mut reader, raw.state_folder);
        system.reserve = raw.reserve.given().map(|item| item.value);
        system.margin = raw.margin.given().map(|item| item.value);
        system.sysctls = sysctls(&mut reader, raw.sysctls);
        system.incidents = raw.incidents.given().map(|item| incidents(&mut reader, item.value));
    }
    (system, boot_at, reader.faults.into_sorted(file))
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

fn rescue(reader: &mut Reader<'_>, slot: Slot<String>, names: &[String]) -> Option<String> {
    let Item { value, at } = slot.given()?;
    if names.contains(&value) {
        return Some(value);
    }
    let hint = did_you_mean(&value, names.iter().map(String::as_str));
    let hint = hint.unwrap_or_else(|| format!("is {}.ron missing?", short(&value)));
    let wrong = Wrong::new(format!("there is no unit `{}`", short(&value)));
    reader.fault_in("rescue", &at, wrong.hint(hint));
    None
}

fn incidents(reader: &mut Reader<'_>, raw: RawIncidents) -> IncidentStore {
    let mut store = IncidentStore::default();
    if let Some(Item { value, at }) = raw.folder.given() {
        if value.starts_with('/') && c_string(reader, "incidents.folder", &value, &at).is_some() {
            store.folder = value;
        } else {
            let wrong = Wrong::new(format!("`{}` is not an absolute path of a folder", short(&value)));
            reader.fault_in("incidents.folder", &at, wrong.hint("write \"/data/incidents\""));
        }
    }
    let keep = number(reader, "incidents.keep", raw.keep, INCIDENTS_KEPT);
    store.keep = keep.and_then(|keep| keep.try_into().ok()).unwrap_or(store.keep);
    store
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
