//! What the files may hold, field by field. Whether the values make sense together is decided in `check`.
//!
//! There is no `Option` in these types, so nobody writes `Some(...)`; and `guard: None` means the guard `None`,
//! which RON's own `IMPLICIT_SOME` would read as "not given".

use super::reader::{Item, Map, Reader, Slot, Value};
use super::value::{Amount, Millis, Size, StopSignal, Word};
use crate::engine::policy::{Class, Guard, Kind, OnLimit, RestartWhen, Then};
use serde::Deserialize;
use std::ops::Range;

/// Defines a section: a struct of slots, the list of its field names, and how it is read.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident ($word:literal) { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name { $(pub $field: Slot<$type>,)* }

        impl $name {
            /// The names of all fields.
            pub(super) const FIELDS: &'static [&'static str] = &[$(stringify!($field)),*];
        }

        impl Value for $name {
            fn read(reader: &mut Reader<'_>, at: &Range<usize>) -> Option<Self> {
                let fields = reader.fields(at, $word, Self::FIELDS)?;
                Some(Self { $($field: reader.slot(&fields, stringify!($field)),)* })
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
        after: Vec<Item<String>>,
        requires: Vec<Item<String>>,
        memory: RawMemory,
        utility: u64,
        ready: Readiness,
        start_timeout: Millis,
        watchdog: Millis,
        health: RawHealth,
        pids: RawPids,
        environment: Map<String>,
        working_directory: String,
        output: super::Output,
        stop: RawStop,
        shutdown: RawShutdown,
        success: RawSuccess,
        restart: RawRestart,
    }
}

section! {
    /// The memory bound.
    RawMemory ("Memory") {
        max: Size,
        class: Class,
        guard: Guard,
    }
}

section! {
    /// The bound of the number of processes.
    RawPids ("Pids") {
        max: u64,
    }
}

section! {
    /// The health check.
    RawHealth ("Health") {
        tcp: String,
        unix: String,
        interval: Millis,
        timeout: Millis,
        failures: u64,
    }
}

section! {
    /// The ordinary stop.
    RawStop ("Stop") {
        signal: StopSignal,
        timeout: Millis,
    }
}

section! {
    /// The shutdown procedure.
    RawShutdown ("Shutdown") {
        procedure: Vec<Item<String>>,
        on: Vec<Item<Occasion>>,
        deadline: Millis,
        memory: Size,
        then: Then,
    }
}

section! {
    /// What happens when the unit ends by itself.
    RawRestart ("Restart") {
        policy: RestartWhen,
        delay: Millis,
        max_delay: Millis,
        limit: RawLimit,
        on_limit: OnLimit,
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
        reserve: Amount,
        margin: Amount,
        sysctls: Map<Word>,
    }
}

/// When a shutdown procedure runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
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
        ("memory", RawMemory::FIELDS),
        ("pids", RawPids::FIELDS),
        ("health", RawHealth::FIELDS),
        ("stop", RawStop::FIELDS),
        ("shutdown", RawShutdown::FIELDS),
        ("success", RawSuccess::FIELDS),
        ("restart", RawRestart::FIELDS),
        ("restart.limit", RawLimit::FIELDS),
        ("system.ron", RawSystem::FIELDS),
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
    String: "a string in quotes",
    bool: "true or false",
    u64: "a whole number",
    Kind: "Service or Task",
    Class: "Guaranteed or Pool",
    Guard: "Shield or None",
    RestartWhen: "Always, OnFailure or Never",
    OnLimit: "Stop, Reboot or PowerOff",
    Then: "Restart or Stop",
    Occasion: "Exhaustion, Stop or Failure",
    Readiness: "Start, Notify, NotificationFd(3), Path(\"/run/x\") or AfterMs(200)",
    super::Output: "Console or Null",
}
