//! What a client hears: the answers of each method, the errors, and how a client reads them.

use super::codec;
use super::interface::SERVICE;
use crate::engine::action::Reply;
use crate::engine::event::Time;
use crate::engine::snapshot::{Incident, Snapshot, UnitView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// The answer to `Status` and `Watch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReply<'a> {
    /// Everything.
    pub snapshot: Cow<'a, Snapshot>,
}

/// The answer to `Start`, `Stop` and `Restart`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeReply {
    /// What became of the request.
    pub outcome: Reply,
}

/// The answer to `Why`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyReply<'a> {
    /// When the snapshot was taken.
    pub time: Time,
    /// The unit.
    pub unit: Cow<'a, UnitView>,
    /// Its incidents, oldest first.
    pub incidents: Vec<Incident>,
    /// Names by `UnitId`.
    pub names: Cow<'a, [String]>,
    /// Faults of all unit files.
    pub faults: Cow<'a, [String]>,
    /// The end of what its last run that has ended has said. Empty for those who may not see what units say.
    pub last_words: String,
    /// The end of what the last of its commands that failed has said. Empty as `last_words`.
    #[serde(default)]
    pub command_words: String,
}

impl<'a> WhyReply<'a> {
    /// The part of a snapshot that is about one unit; `None` where no unit has that name.
    #[must_use]
    pub fn of(snapshot: &'a Snapshot, name: &str) -> Option<Self> {
        let unit = snapshot.units.iter().find(|unit| unit.name == name)?;
        let is_its = |incident: &&Incident| {
            snapshot.names.get(usize::from(incident.unit.0)).is_some_and(|owner| owner == name)
        };
        Some(Self {
            time: snapshot.time,
            unit: Cow::Borrowed(unit),
            incidents: snapshot.incidents.iter().filter(is_its).copied().collect(),
            names: Cow::Borrowed(&snapshot.names),
            faults: Cow::Borrowed(&snapshot.system.faults),
            last_words: String::new(),
            command_words: String::new(),
        })
    }
}

/// The answer to `Tail`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailReply {
    /// What the unit has said, in base64 (`wire::base64`): it may be any bytes.
    pub data: String,
    /// How much the unit has said since lifeboat started, up to the end of `data`.
    pub position: u64,
    /// How much is kept at most; 0 where nothing is.
    pub kept_bytes: u64,
}

/// How the unit files differ from what lifeboat goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Difference {
    /// A new unit.
    Available,
    /// A unit with another definition.
    Changed,
    /// A unit without a file.
    Disappeared,
}

/// What an update does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// It is added and started.
    Start,
    /// It is added.
    Add,
    /// Its new definition holds at once, and what runs goes on.
    Adjust,
    /// Its new definition holds from its next run on; what runs is restarted.
    Restart,
    /// It is stopped and taken out.
    Remove,
    /// Nothing: its new definition has a fault or does not fit, and it goes on by the old one.
    Refused,
}

/// One unit that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReply {
    /// Its name.
    pub name: String,
    /// How it differs.
    pub difference: Difference,
    /// What an update does.
    pub effect: Effect,
    /// The number of its present life, where it has a process.
    pub run: Option<u32>,
}

/// The answer to `Reread`, `Update` and `Add`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesReply {
    /// In the order of names.
    pub changes: Vec<ChangeReply>,
    /// What is wrong with the unit files, one message for each fault.
    pub faults: Vec<String>,
}

/// An answer without parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The answer to `GetInterfaceDescription`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description<'a> {
    /// The interface's text.
    pub description: Cow<'a, str>,
}

/// Every error that lifeboat answers with. It serializes as its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ErrorReply {
    /// No unit has this name.
    NoSuchUnit {
        /// What was asked for.
        name: String,
    },
    /// The peer's user may look, but not change.
    NotPermitted {},
    /// Too many requests wait for an answer.
    Busy {},
    /// The machine is going down.
    ShuttingDown {},
    /// The unit is not at rest.
    StillRunning {
        /// Its name.
        name: String,
    },
    /// It was not done.
    NotDone {
        /// Why, and what to do about it.
        reason: String,
    },
    /// We do not have this interface.
    InterfaceNotFound {
        /// What was asked for.
        interface: String,
    },
    /// The interface does not have this method.
    MethodNotFound {
        /// What was asked for.
        method: String,
    },
    /// The interface has this method, this service does not.
    MethodNotImplemented {
        /// What was asked for.
        method: String,
    },
    /// A parameter is missing or wrong.
    InvalidParameter {
        /// Which.
        parameter: String,
    },
    /// The method has to be called with `more`.
    ExpectedMore {},
}

impl ErrorReply {
    /// The full name, as it stands in `error`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoSuchUnit { .. } => "org.lifeboat.Supervisor.NoSuchUnit",
            Self::NotPermitted {} => "org.lifeboat.Supervisor.NotPermitted",
            Self::Busy {} => "org.lifeboat.Supervisor.Busy",
            Self::ShuttingDown {} => "org.lifeboat.Supervisor.ShuttingDown",
            Self::StillRunning { .. } => "org.lifeboat.Supervisor.StillRunning",
            Self::NotDone { .. } => "org.lifeboat.Supervisor.NotDone",
            Self::InterfaceNotFound { .. } => "org.varlink.service.InterfaceNotFound",
            Self::MethodNotFound { .. } => "org.varlink.service.MethodNotFound",
            Self::MethodNotImplemented { .. } => "org.varlink.service.MethodNotImplemented",
            Self::InvalidParameter { .. } => "org.varlink.service.InvalidParameter",
            Self::ExpectedMore {} => "org.varlink.service.ExpectedMore",
        }
    }

    /// Reads an error back; `None` for one that is not ours.
    fn read(error: &str, parameters: &serde_json::Value) -> Option<Self> {
        let text = |key: &str| {
            parameters.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
        };
        let own = error.strip_prefix(super::interface::SUPERVISOR).and_then(|rest| rest.strip_prefix('.'));
        let common = error.strip_prefix(SERVICE).and_then(|rest| rest.strip_prefix('.'));
        match (own, common) {
            (Some("NoSuchUnit"), _) => Some(Self::NoSuchUnit { name: text("name") }),
            (Some("NotPermitted"), _) => Some(Self::NotPermitted {}),
            (Some("Busy"), _) => Some(Self::Busy {}),
            (Some("ShuttingDown"), _) => Some(Self::ShuttingDown {}),
            (Some("StillRunning"), _) => Some(Self::StillRunning { name: text("name") }),
            (Some("NotDone"), _) => Some(Self::NotDone { reason: text("reason") }),
            (_, Some("InterfaceNotFound")) => Some(Self::InterfaceNotFound { interface: text("interface") }),
            (_, Some("MethodNotFound")) => Some(Self::MethodNotFound { method: text("method") }),
            (_, Some("MethodNotImplemented")) => Some(Self::MethodNotImplemented { method: text("method") }),
            (_, Some("InvalidParameter")) => Some(Self::InvalidParameter { parameter: text("parameter") }),
            (_, Some("ExpectedMore")) => Some(Self::ExpectedMore {}),
            _ => None,
        }
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchUnit { name } => write!(f, "no unit is named {name:?}"),
            Self::NotPermitted {} => write!(f, "your user may look at lifeboat, but not change it"),
            Self::Busy {} => write!(f, "too many requests wait for lifeboat's answer: try again"),
            Self::ShuttingDown {} => write!(f, "the machine is going down"),
            Self::StillRunning { name } => write!(f, "{name} is not at rest: stop it first"),
            Self::NotDone { reason } => f.write_str(reason),
            Self::InterfaceNotFound { interface } => write!(f, "lifeboat has no interface {interface:?}"),
            Self::MethodNotFound { method } => write!(f, "lifeboat has no method {method:?}"),
            Self::MethodNotImplemented { method } => write!(f, "this lifeboat does not implement {method:?}"),
            Self::InvalidParameter { parameter } => write!(f, "parameter {parameter:?} is missing or wrong"),
            Self::ExpectedMore {} => write!(f, "this method has to be called with \"more\""),
        }
    }
}

impl std::error::Error for ErrorReply {}

/// Appends the engine's answer to a request about a unit: an outcome, or the error that it amounts to.
///
/// # Errors
/// As `codec::encode_reply`.
pub fn encode_outcome(out: &mut Vec<u8>, reply: Reply) -> Result<(), serde_json::Error> {
    match reply {
        Reply::Started
        | Reply::Stopped
        | Reply::AlreadyStarted
        | Reply::NotRunning
        | Reply::Skipped
        | Reply::Failed
        | Reply::Reloaded
        | Reply::ReloadFailed
        | Reply::NoReload
        | Reply::Drilled
        | Reply::NoDrill
        | Reply::Overruled => codec::encode_reply(out, &OutcomeReply { outcome: reply }, false),
        Reply::ShuttingDown => codec::encode_error(out, &ErrorReply::ShuttingDown {}),
        Reply::TooManyWaiting => codec::encode_error(out, &ErrorReply::Busy {}),
    }
}

/// An answer as a client reads it.
#[derive(Debug)]
pub enum Received<P> {
    /// The method's answer.
    Answer {
        /// What it says.
        parameters: P,
        /// More answers follow.
        continues: bool,
    },
    /// One of our errors.
    Refused(ErrorReply),
    /// An error that this client does not know, by its full name.
    Unknown(String),
}

#[derive(Deserialize)]
struct Envelope {
    error: Option<String>,
    #[serde(default)]
    parameters: serde_json::Value,
    #[serde(default)]
    continues: bool,
}

/// Reads one message as the answer to a call.
///
/// # Errors
/// When it is not a Varlink reply, or its parameters are not those of the method.
pub fn decode<P: DeserializeOwned>(message: &[u8]) -> Result<Received<P>, serde_json::Error> {
    let envelope: Envelope = serde_json::from_slice(message)?;
    if let Some(error) = envelope.error {
        return Ok(match ErrorReply::read(&error, &envelope.parameters) {
            Some(known) => Received::Refused(known),
            None => Received::Unknown(error),
        });
    }
    let parameters = serde_json::from_value(envelope.parameters)?;
    Ok(Received::Answer { parameters, continues: envelope.continues })
}
