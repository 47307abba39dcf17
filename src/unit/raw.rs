//! What the files may hold, field by field. Whether the values make sense together is decided in `check`.
//!
//! There is no `Option` in these types, so nobody writes `Some(...)`; and `guard: None` means the guard `None`,
//! which RON's own `IMPLICIT_SOME` would read as "not given".

use super::condition::Condition;
use super::reader::{Item, Map, Reader, Slot, Value};
use super::value::{Amount, Millis, Size, Source, StopSignal, Word};
use crate::engine::policy::{Class, Guard, Kind, OnRequirementRestart, RestartWhen, ServiceMode};
use serde::Deserialize;
use std::ops::Range;

/// Which fields a section has been given, and where.
pub(super) trait Places {
    fn places(&self) -> Vec<(&'static str, Range<usize>)>;
}

/// A field's name as it is written: `do` is a word of Rust's.
const fn name_of(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// Defines a section: a struct of slots, the list of its field names, and how it is read.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident ($word:literal) { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name { $(pub $field: Slot<$type>,)* }

        impl $name {
            /// The names of all fields.
            pub(super) const FIELDS: &'static [&'static str] = &[$(name_of(stringify!($field))),*];
        }

        impl Places for $name {
            fn places(&self) -> Vec<(&'static str, Range<usize>)> {
                let places = [$((name_of(stringify!($field)), self.$field.place())),*];
                places.into_iter().filter_map(|(name, place)| Some((name, place?))).collect()
            }
        }

        impl Value for $name {
            fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
                let fields = reader.fields(at, $word, Self::FIELDS)?;
                Some(Self { $($field: reader.slot(&fields, name_of(stringify!($field))),)* })
            }
        }
    };
}

section! {
    /// A unit file.
    RawUnit ("Unit") {
        description: String,
        kind: Kind,
        autostart: bool,
        command: Vec<Item<String>>,
        adopt: RawAdopt,
        requires: Vec<Item<String>>,
        wants: Vec<Item<String>>,
        after: Vec<Item<String>>,
        before: Vec<Item<String>>,
        conflicts: Vec<Item<String>>,
        on_requirement_restart: OnRequirementRestart,
        conditions: Vec<Item<Condition>>,
        instances: Vec<Item<String>>,
        memory: RawMemory,
        utility: u64,
        ready: Readiness,
        start_timeout: Millis,
        watchdog: Millis,
        health: RawHealth,
        sockets: Vec<Item<RawSocket>>,
        on_demand: bool,
        idle_stop: Millis,
        fd_store_max: u64,
        pids: RawPids,
        cpu: RawCpu,
        io: RawIo,
        delegate: bool,
        optional: Vec<Item<String>>,
        environment: Map<String>,
        environment_files: Vec<Item<String>>,
        working_directory: String,
        root_directory: String,
        user: String,
        group: String,
        groups: Vec<Item<String>>,
        umask: String,
        nice: Source,
        scheduler: Source,
        cpus: String,
        io_priority: Source,
        rlimits: Map<Word>,
        capabilities: RawCapabilities,
        no_new_privs: bool,
        private_mounts: bool,
        private_tmp: bool,
        private_shm: bool,
        read_only: Vec<Item<String>>,
        hidden: Vec<Item<String>>,
        output: RawOutput,
        output_ring: Size,
        stop: RawStop,
        reload: RawReload,
        commands: RawCommands,
        shutdown: RawShutdown,
        success: RawSuccess,
        restart: RawRestart,
    }
}

section! {
    /// A process that runs already.
    RawAdopt ("Adopt") {
        pid: u64,
        started: u64,
    }
}

section! {
    /// The memory bound.
    RawMemory ("Memory") {
        max: Size,
        high: Size,
        low: Size,
        min: Size,
        swap_max: Size,
        zswap_max: Size,
        oom_group: bool,
        class: Class,
        guard: Guard,
        ballast: Size,
        warn: Vec<Item<RawWarn>>,
        warn_timeout: Millis,
    }
}

section! {
    /// A warn stage.
    RawWarn ("Warn") {
        at: Amount,
        within: Millis,
        pressure: Amount,
        r#do: RawWarnDeed,
        every: Millis,
    }
}

/// What a warn stage does.
#[derive(Debug)]
pub(super) enum RawWarnDeed {
    Log,
    Notify,
    Signal(StopSignal),
    Run(Vec<Item<String>>),
    Reclaim(Size),
}

impl Value for RawWarnDeed {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
        const WANT: &str = "Log, Notify, Signal(\"USR1\"), Run([\"/usr/bin/program\"]) or Reclaim(\"4MiB\")";
        let source = reader.source(at);
        let (word, rest) = source.split_once('(').unwrap_or((source, ""));
        let inner = rest.trim_end().strip_suffix(')').unwrap_or("");
        let start = at.start + word.len() + 1;
        let inside = start..start + inner.len();
        match (word.trim(), inner.is_empty()) {
            ("Signal", false) => StopSignal::read(reader, &inside).map(Self::Signal),
            ("Run", false) => Vec::read(reader, &inside).map(Self::Run),
            ("Reclaim", false) => Size::read(reader, &inside).map(Self::Reclaim),
            _ => [Self::Log, Self::Notify].into_iter().nth(reader.word(at, WANT, &["Log", "Notify"])?),
        }
    }
}

section! {
    /// The bound of the number of processes.
    RawPids ("Pids") {
        max: u64,
    }
}

section! {
    /// The share of the processors.
    RawCpu ("Cpu") {
        max: Word,
        period: Millis,
        weight: u64,
        cpus: String,
        mems: String,
    }
}

section! {
    /// The share of the disks.
    RawIo ("Io") {
        max: Map<RawDevice>,
        weight: u64,
    }
}

section! {
    /// The bounds of one disk.
    RawDevice ("Device") {
        rbps: Size,
        wbps: Size,
        riops: u64,
        wiops: u64,
    }
}

section! {
    /// What of root's powers the process may have.
    RawCapabilities ("Capabilities") {
        bounding: Vec<Item<String>>,
        ambient: Vec<Item<String>>,
    }
}

section! {
    /// A log file.
    RawFile ("File") {
        path: String,
        max_bytes: Size,
        keep: u64,
    }
}

/// Where output goes: a word, or a log file.
#[derive(Debug)]
pub(super) enum RawOutput {
    Word(super::Output),
    File(RawFile),
}

impl Value for RawOutput {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
        let source = reader.source(at);
        let Some(fields) = source.strip_prefix("File").map(str::trim_start).filter(|it| it.starts_with('('))
        else {
            return super::Output::read(reader, at).map(Self::Word);
        };
        // Both `File((...))`, as RON has it, and `File(...)`.
        let inner = fields.strip_prefix('(').and_then(|it| it.strip_suffix(')')).map(str::trim);
        let inner = inner.filter(|it| it.starts_with('(')).unwrap_or(fields);
        let start = at.start + source.rfind(inner).unwrap_or(0);
        RawFile::read(reader, &(start..start + inner.len())).map(Self::File)
    }
}

section! {
    /// The health check.
    RawHealth ("Health") {
        tcp: String,
        unix: String,
        command: Vec<Item<String>>,
        interval: Millis,
        timeout: Millis,
        failures: u64,
    }
}

section! {
    /// A socket that is opened for the service.
    RawSocket ("Socket") {
        name: String,
        tcp: String,
        udp: String,
        unix: String,
        unix_dgram: String,
        unix_seqpacket: String,
        fifo: String,
        netlink: String,
        backlog: u64,
        reuse_port: bool,
        v6only: bool,
        mode: String,
        user: String,
        group: String,
    }
}

section! {
    /// The ordinary stop.
    RawStop ("Stop") {
        command: Vec<Item<String>>,
        signal: StopSignal,
        timeout: Millis,
    }
}

section! {
    /// How the service is told to read its configuration anew.
    RawReload ("Reload") {
        signal: StopSignal,
        command: Vec<Item<String>>,
        notify: bool,
        timeout: Millis,
    }
}

section! {
    /// What the commands beside the service may use.
    RawCommands ("Commands") {
        memory: Size,
    }
}

section! {
    /// The shutdown procedure.
    RawShutdown ("Shutdown") {
        procedure: Vec<Item<String>>,
        otherwise: Vec<Item<String>>,
        resident: bool,
        on: Vec<Item<Occasion>>,
        service: ServiceMode,
        lend: Size,
        deadline: Millis,
        drill_every: Millis,
        memory: Size,
        user: String,
        group: String,
        groups: Vec<Item<String>>,
        capabilities: RawCapabilities,
        then: RawThen,
    }
}

section! {
    /// What happens when the unit ends by itself.
    RawRestart ("Restart") {
        policy: RestartWhen,
        delay: Millis,
        max_delay: Millis,
        healthy_after: Millis,
        limit: RawLimit,
        on_limit: RawThen,
        exhaustion: RawExhaustion,
    }
}

section! {
    /// How many exhaustions are too many.
    RawExhaustion ("Exhaustion") {
        times: u64,
        within: Millis,
        then: RawThen,
    }
}

/// What comes after an end.
#[derive(Debug)]
pub(super) enum RawThen {
    Restart,
    Stop,
    /// This unit in its stead.
    Fallback(Item<String>),
    Reboot,
    PowerOff,
    Rescue,
}

impl Value for RawThen {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
        const WANT: &str = "Restart, Stop, Fallback(\"unit\"), Reboot, PowerOff or Rescue";
        const WORDS: [&str; 5] = ["Restart", "Stop", "Reboot", "PowerOff", "Rescue"];
        let source = reader.source(at);
        let name = source.strip_prefix("Fallback").map(str::trim_start);
        let name = name.and_then(|it| it.strip_prefix('(')?.strip_suffix(')')).map(str::trim);
        if let Some(name) = name {
            let start = at.start + source.rfind(name).unwrap_or(0);
            let at = start..start + name.len();
            let value = String::read(reader, &at)?;
            return Some(Self::Fallback(Item { value, at }));
        }
        let index = reader.word(at, WANT, &WORDS)?;
        [Self::Restart, Self::Stop, Self::Reboot, Self::PowerOff, Self::Rescue].into_iter().nth(index)
    }
}

section! {
    /// The ends that count as a success beside exit code 0.
    RawSuccess ("Success") {
        codes: Vec<Item<u64>>,
        signals: Vec<Item<StopSignal>>,
    }
}

section! {
    /// How many starts are too many.
    RawLimit ("Limit") {
        starts: u64,
        within: Millis,
    }
}

section! {
    /// `system.ron`.
    RawSystem ("System") {
        hostname: String,
        rescue: String,
        boot: String,
        state_folder: String,
        reserve: Amount,
        margin: Amount,
        sysctls: Map<Word>,
        incidents: RawIncidents,
    }
}

section! {
    /// Where incidents are kept.
    RawIncidents ("Incidents") {
        folder: String,
        keep: u64,
    }
}

/// When a shutdown procedure runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// The service's memory is exhausted.
    Exhaustion,
    /// An ordinary stop.
    Stop,
    /// A living service is judged to have failed.
    Failure,
}

/// How a service shows that it is ready.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Readiness {
    /// By its `execve` alone.
    Start,
    /// By sd_notify(3).
    Notify,
    /// By a newline on this file descriptor.
    NotificationFd(u64),
    /// By this path, once it appears.
    Path(String),
    /// After so many milliseconds.
    AfterMs(u64),
}

/// The fields of every section that a user may write, for the test that the man page names them all.
#[must_use]
pub fn field_names() -> Vec<(&'static str, &'static [&'static str])> {
    vec![
        ("", RawUnit::FIELDS),
        ("adopt", RawAdopt::FIELDS),
        ("memory", RawMemory::FIELDS),
        ("memory.warn", RawWarn::FIELDS),
        ("pids", RawPids::FIELDS),
        ("cpu", RawCpu::FIELDS),
        ("io", RawIo::FIELDS),
        ("io.max", RawDevice::FIELDS),
        ("capabilities", RawCapabilities::FIELDS),
        ("output", RawFile::FIELDS),
        ("health", RawHealth::FIELDS),
        ("sockets", RawSocket::FIELDS),
        ("stop", RawStop::FIELDS),
        ("reload", RawReload::FIELDS),
        ("commands", RawCommands::FIELDS),
        ("shutdown", RawShutdown::FIELDS),
        ("success", RawSuccess::FIELDS),
        ("restart", RawRestart::FIELDS),
        ("restart.limit", RawLimit::FIELDS),
        ("restart.exhaustion", RawExhaustion::FIELDS),
        ("system.ron", RawSystem::FIELDS),
        ("incidents", RawIncidents::FIELDS),
    ]
}

macro_rules! leaf {
    ($($type:ty: $want:literal,)*) => {$(
        impl Value for $type {
            fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
                reader.leaf(at, $want)
            }
        }
    )*};
}

leaf! {
    u64: "a whole number",
}

impl Value for String {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
        let text = reader.leaf(at, "a string in quotes")?;
        reader.expanded(at, text)
    }
}

impl Value for Readiness {
    fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
        match reader.leaf(at, "Start, Notify, NotificationFd(3), Path(\"/run/x\") or AfterMs(200)")? {
            Self::Path(path) => reader.expanded(at, path).map(Self::Path),
            other => Some(other),
        }
    }
}

/// Values that are one of a few words. By hand, because serde's code for each of them is a kilobyte.
macro_rules! words {
    ($($type:ty: $want:literal { $($word:literal => $value:expr,)* })*) => {$(
        impl Value for $type {
            fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
                let index = reader.word(at, $want, &[$($word),*])?;
                [$($value),*].get(index).copied()
            }
        }
    )*};
}

words! {
    bool: "true or false" { "true" => true, "false" => false, }
    Kind: "Service, Task or Target" {
        "Service" => Self::Service,
        "Task" => Self::Task,
        "Target" => Self::Target,
    }
    OnRequirementRestart: "Keep or Restart" { "Keep" => Self::Keep, "Restart" => Self::Restart, }
    Class: "Guaranteed or Pool" { "Guaranteed" => Self::Guaranteed, "Pool" => Self::Pool, }
    Guard: "Shield, Canary or None" {
        "Shield" => Self::Shield,
        "Canary" => Self::Canary,
        "None" => Self::None,
    }
    RestartWhen: "Always, OnFailure, OnExhaustion or Never" {
        "Always" => Self::Always,
        "OnFailure" => Self::OnFailure,
        "OnExhaustion" => Self::OnExhaustion,
        "Never" => Self::Never,
    }
    ServiceMode: "Frozen, Running or Killed" {
        "Frozen" => Self::Frozen,
        "Running" => Self::Running,
        "Killed" => Self::Killed,
    }
    Occasion: "Exhaustion, Stop or Failure" {
        "Exhaustion" => Self::Exhaustion,
        "Stop" => Self::Stop,
        "Failure" => Self::Failure,
    }
    super::Output: "Console, Null, Kmsg, Syslog or File((path: \"/var/log/x.log\"))" {
        "Console" => Self::Console,
        "Null" => Self::Null,
        "Kmsg" => Self::Kmsg,
        "Syslog" => Self::Syslog,
    }
}
