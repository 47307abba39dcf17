//! What a client may ask: a closed list, read from bytes that nobody vouches for.
//!
//! The parser keeps only the parameters that it knows and skips the rest while reading, so that 64 KiB of hostile
//! JSON cost no memory beyond their own. serde_json bounds the depth.

use super::interface::{SERVICE, SUPERVISOR};
use super::reply::ErrorReply;
use crate::engine::event::{Below, ShutdownKind, Verb};
use crate::engine::setting::{Limit, Setting};
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// So much of a wrong name is sent back.
const ECHO_BYTES_MAX: usize = 255;

/// As many names as there can be units.
const NAMES_MAX: usize = crate::engine::limits::UNITS_MAX;

/// Everything that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `org.varlink.service.GetInfo`
    GetInfo,
    /// `org.varlink.service.GetInterfaceDescription`
    GetInterfaceDescription {
        /// Of which.
        interface: String,
    },
    /// `Status`
    Status,
    /// `Watch`: only with `more`.
    Watch,
    /// `Start`, `Stop`, `Restart`, `Reload`
    Ask {
        /// Which of them.
        verb: Verb,
        /// The unit's name.
        name: String,
    },
    /// `Why`
    Why {
        /// The unit's name.
        name: String,
    },
    /// `Tail`: with `more` what comes after it, too.
    Tail {
        /// The unit's name.
        name: String,
        /// How much of the end, where the client says so.
        bytes: Option<u64>,
    },
    /// `Reread`
    Reread,
    /// `Update`
    Update {
        /// Only these units; none is all.
        names: Vec<String>,
    },
    /// `Add`, `Remove`, `Enable`, `Disable`
    Change {
        /// Which of the four.
        how: ChangeVerb,
        /// The unit's name.
        name: String,
    },
    /// `Limit`
    Limit {
        /// The unit's name.
        name: String,
        /// Which limit, and its new value.
        limit: Limit,
        /// What happens where the unit uses more.
        below: Below,
    },
    /// `Shutdown`
    Shutdown {
        /// How the machine is to end.
        how: ShutdownKind,
    },
}

/// What is done about a unit's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeVerb {
    /// Take it in from its file.
    Add,
    /// Take it out.
    Remove,
    /// Start it at boot.
    Enable,
    /// Do not.
    Disable,
}

impl Request {
    /// Its method's full name.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Self::GetInfo => "org.varlink.service.GetInfo",
            Self::GetInterfaceDescription { .. } => "org.varlink.service.GetInterfaceDescription",
            Self::Status => "org.lifeboat.Supervisor.Status",
            Self::Watch => "org.lifeboat.Supervisor.Watch",
            Self::Ask { verb: Verb::Start, .. } => "org.lifeboat.Supervisor.Start",
            Self::Ask { verb: Verb::Stop, .. } => "org.lifeboat.Supervisor.Stop",
            Self::Ask { verb: Verb::Restart, .. } => "org.lifeboat.Supervisor.Restart",
            Self::Ask { verb: Verb::Reload, .. } => "org.lifeboat.Supervisor.Reload",
            Self::Ask { verb: Verb::Drill, .. } => "org.lifeboat.Supervisor.Drill",
            Self::Ask { verb: Verb::DrillToTheEnd, .. } => "org.lifeboat.Supervisor.DrillToTheEnd",
            Self::Why { .. } => "org.lifeboat.Supervisor.Why",
            Self::Tail { .. } => "org.lifeboat.Supervisor.Tail",
            Self::Reread => "org.lifeboat.Supervisor.Reread",
            Self::Update { .. } => "org.lifeboat.Supervisor.Update",
            Self::Change { how: ChangeVerb::Add, .. } => "org.lifeboat.Supervisor.Add",
            Self::Change { how: ChangeVerb::Remove, .. } => "org.lifeboat.Supervisor.Remove",
            Self::Change { how: ChangeVerb::Enable, .. } => "org.lifeboat.Supervisor.Enable",
            Self::Change { how: ChangeVerb::Disable, .. } => "org.lifeboat.Supervisor.Disable",
            Self::Limit { .. } => "org.lifeboat.Supervisor.Limit",
            Self::Shutdown { .. } => "org.lifeboat.Supervisor.Shutdown",
        }
    }

    /// It changes something: the peer's credentials must allow it.
    #[must_use]
    pub fn changes(&self) -> bool {
        match self {
            // Rereading is work, and tells what files say that not everybody may read.
            Self::Ask { .. }
            | Self::Reread
            | Self::Update { .. }
            | Self::Change { .. }
            | Self::Limit { .. }
            | Self::Shutdown { .. } => true,
            Self::GetInfo
            | Self::GetInterfaceDescription { .. }
            | Self::Status
            | Self::Watch
            | Self::Why { .. }
            | Self::Tail { .. } => false,
        }
    }

    /// It shows what units say, which may hold secrets: only for those who may change something.
    #[must_use]
    pub fn shows_output(&self) -> bool {
        matches!(self, Self::Tail { .. })
    }
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// The client takes more than one answer.
    pub more: bool,
    /// The client wants no answer.
    pub oneway: bool,
}

impl From<Request> for Call {
    /// A call that wants its answers: `more` for `Watch`, one for the others.
    fn from(request: Request) -> Self {
        let more = request == Request::Watch;
        Self { request, more, oneway: false }
    }
}

/// Why a message is not served, and what the client hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a Varlink call at all: close the connection without an answer.
    NotACall,
    /// Send this error; the connection goes on.
    Answer(ErrorReply),
    /// A faulty call that wants no answer: go on.
    Silent,
}

/// Reads one message (without its NUL). Never panics, whatever the bytes.
///
/// # Errors
/// `Refusal` says what to do.
pub fn parse(message: &[u8]) -> Result<Call, Refusal> {
    // serde would also read a struct from an array.
    if message.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Refusal::NotACall);
    }
    let raw: RawCall = serde_json::from_slice(message).map_err(|_| Refusal::NotACall)?;
    let oneway = raw.oneway.unwrap_or_default();
    let more = raw.more.unwrap_or_default();
    let request =
        request_of(&raw.method, raw.parameters.unwrap_or_default()).and_then(|request| match request {
            Request::Watch if !more => Err(ErrorReply::ExpectedMore {}),
            request => Ok(request),
        });
    match request {
        Ok(request) => Ok(Call { request, more, oneway }),
        Err(_) if oneway => Err(Refusal::Silent),
        Err(error) => Err(Refusal::Answer(error)),
    }
}

fn request_of(method: &str, parameters: Parameters) -> Result<Request, ErrorReply> {
    let (interface, word) = method.rsplit_once('.').unwrap_or((method, ""));
    let ask = |verb: Verb, name: Field| Ok(Request::Ask { verb, name: name.text("name")? });
    let change = |how, name: Field| Ok(Request::Change { how, name: name.text("name")? });
    match (interface, word) {
        (SERVICE, "GetInfo") => Ok(Request::GetInfo),
        (SERVICE, "GetInterfaceDescription") => {
            Ok(Request::GetInterfaceDescription { interface: parameters.interface.text("interface")? })
        }
        (SUPERVISOR, "Status") => Ok(Request::Status),
        (SUPERVISOR, "Watch") => Ok(Request::Watch),
        (SUPERVISOR, "Start") => ask(Verb::Start, parameters.name),
        (SUPERVISOR, "Stop") => ask(Verb::Stop, parameters.name),
        (SUPERVISOR, "Restart") => ask(Verb::Restart, parameters.name),
        (SUPERVISOR, "Reread") => Ok(Request::Reread),
        (SUPERVISOR, "Update") => Ok(Request::Update { names: parameters.names.list("names")? }),
        (SUPERVISOR, "Add") => change(ChangeVerb::Add, parameters.name),
        (SUPERVISOR, "Remove") => change(ChangeVerb::Remove, parameters.name),
        (SUPERVISOR, "Enable") => change(ChangeVerb::Enable, parameters.name),
        (SUPERVISOR, "Disable") => change(ChangeVerb::Disable, parameters.name),
        (SUPERVISOR, "Reload") => ask(Verb::Reload, parameters.name),
        (SUPERVISOR, "Drill") => ask(Verb::Drill, parameters.name),
        (SUPERVISOR, "DrillToTheEnd") => ask(Verb::DrillToTheEnd, parameters.name),
        (SUPERVISOR, "Why") => Ok(Request::Why { name: parameters.name.text("name")? }),
        (SUPERVISOR, "Tail") => Ok(Request::Tail {
            name: parameters.name.text("name")?,
            bytes: parameters.bytes.number("bytes")?,
        }),
        (SUPERVISOR, "Limit") => limit_request(parameters),
        (SUPERVISOR, "Shutdown") => match parameters.how.text("how")?.as_str() {
            "PowerOff" => Ok(Request::Shutdown { how: ShutdownKind::PowerOff }),
            "Reboot" => Ok(Request::Shutdown { how: ShutdownKind::Reboot }),
            "Halt" => Ok(Request::Shutdown { how: ShutdownKind::Halt }),
            _ => Err(ErrorReply::InvalidParameter { parameter: "how".into() }),
        },
        (SERVICE | SUPERVISOR, _) => Err(ErrorReply::MethodNotFound { method: echo(method) }),
        _ => Err(ErrorReply::InterfaceNotFound { interface: echo(interface) }),
    }
}

fn limit_request(parameters: Parameters) -> Result<Request, ErrorReply> {
    let wrong = |parameter: &str| ErrorReply::InvalidParameter { parameter: parameter.into() };
    let name = parameters.name.text("name")?;
    let setting = Setting::of_name(&parameters.limit.text("limit")?).ok_or_else(|| wrong("limit"))?;
    let limit = Limit { setting, value: parameters.value.number("value")? };
    if !setting.is_live() {
        return Err(wrong("limit"));
    }
    if !limit.is_sane() {
        return Err(wrong("value"));
    }
    let below = match parameters.below {
        Field::Missing => Below::Refuse,
        field => match field.text("below")?.as_str() {
            "Refuse" => Below::Refuse,
            "Rescue" => Below::Rescue,
            _ => return Err(wrong("below")),
        },
    };
    Ok(Request::Limit { name, limit, below })
}

/// The head of what the client sent, cut at a character.
fn echo(text: &str) -> String {
    let cut = (0..=ECHO_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..cut.unwrap_or(0)).unwrap_or_default().to_owned()
}

#[derive(Deserialize)]
struct RawCall {
    method: String,
    parameters: Option<Parameters>,
    more: Option<bool>,
    oneway: Option<bool>,
}

/// The parameters of all methods together.
#[derive(Debug, Default)]
struct Parameters {
    name: Field,
    interface: Field,
    how: Field,
    bytes: Field,
    names: Field,
    limit: Field,
    value: Field,
    below: Field,
}

/// A parameter as it came in.
#[derive(Debug, Default)]
enum Field {
    #[default]
    Missing,
    Text(String),
    Number(u64),
    /// All of them texts.
    List(Vec<String>),
    NotText,
}

impl Field {
    fn text(self, name: &str) -> Result<String, ErrorReply> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Missing | Self::Number(_) | Self::List(_) | Self::NotText => {
                Err(ErrorReply::InvalidParameter { parameter: name.into() })
            }
        }
    }

    fn number(self, name: &str) -> Result<Option<u64>, ErrorReply> {
        match self {
            Self::Missing => Ok(None),
            Self::Number(number) => Ok(Some(number)),
            Self::Text(_) | Self::List(_) | Self::NotText => {
                Err(ErrorReply::InvalidParameter { parameter: name.into() })
            }
        }
    }

    fn list(self, name: &str) -> Result<Vec<String>, ErrorReply> {
        match self {
            Self::Missing => Ok(Vec::new()),
            Self::List(list) => Ok(list),
            Self::Text(_) | Self::Number(_) | Self::NotText => {
                Err(ErrorReply::InvalidParameter { parameter: name.into() })
            }
        }
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(ParametersVisitor)
    }
}

struct ParametersVisitor;

impl<'de> Visitor<'de> for ParametersVisitor {
    type Value = Parameters;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of parameters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
        let mut parameters = Parameters::default();
        while let Some(key) = map.next_key::<String>()? {
            let place = match key.as_str() {
                "name" => &mut parameters.name,
                "interface" => &mut parameters.interface,
                "how" => &mut parameters.how,
                "bytes" => &mut parameters.bytes,
                "names" => &mut parameters.names,
                "limit" => &mut parameters.limit,
                "value" => &mut parameters.value,
                "below" => &mut parameters.below,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *place = map.next_value()?;
        }
        Ok(parameters)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
        Ok(Field::NotText)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Field, E> {
        Ok(Field::NotText)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Field, E> {
        Ok(Field::Number(number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
        Ok(Field::NotText)
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Missing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Field, A::Error> {
        let (mut list, mut all) = (Vec::new(), true);
        while let Some(item) = items.next_element::<Item>()? {
            match item.0 {
                Some(text) if list.len() < NAMES_MAX => list.push(text),
                Some(_) | None => all = false,
            }
        }
        Ok(if all { Field::List(list) } else { Field::NotText })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::NotText)
    }
}

/// An element of a list: its text, where it is one.
struct Item(Option<String>);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = match Field::deserialize(from)? {
            Field::Text(text) => Some(text),
            Field::Missing | Field::Number(_) | Field::List(_) | Field::NotText => None,
        };
        Ok(Self(text))
    }
}

impl Serialize for Call {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("method", self.request.method())?;
        map.serialize_entry("parameters", &Sent(&self.request))?;
        if self.more {
            map.serialize_entry("more", &true)?;
        }
        if self.oneway {
            map.serialize_entry("oneway", &true)?;
        }
        map.end()
    }
}

/// The parameters of a request.
struct Sent<'a>(&'a Request);

impl Serialize for Sent<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        match self.0 {
            Request::GetInfo | Request::Status | Request::Watch | Request::Reread => {}
            Request::Update { names } => map.serialize_entry("names", names)?,
            Request::GetInterfaceDescription { interface } => map.serialize_entry("interface", interface)?,
            Request::Ask { name, .. } | Request::Why { name } | Request::Change { name, .. } => {
                map.serialize_entry("name", name)?
            }
            Request::Tail { name, bytes } => {
                map.serialize_entry("name", name)?;
                map.serialize_entry("bytes", bytes)?;
            }
            Request::Limit { name, limit, below } => {
                map.serialize_entry("name", name)?;
                map.serialize_entry("limit", limit.setting.name())?;
                map.serialize_entry("value", &limit.value)?;
                map.serialize_entry("below", below)?;
            }
            Request::Shutdown { how } => map.serialize_entry("how", how)?,
        }
        map.end()
    }
}
