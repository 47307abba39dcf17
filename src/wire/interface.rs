//! The interfaces of the service: their names, their texts, and what it says of itself.

use serde::{Deserialize, Serialize};

/// lifeboat's own interface.
pub const SUPERVISOR: &str = "org.lifeboat.Supervisor";
/// The interface that every Varlink service has.
pub const SERVICE: &str = "org.varlink.service";

/// The answer to `org.varlink.service.GetInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Who makes it.
    pub vendor: String,
    /// Its name.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Where to read about it.
    pub url: String,
    /// The names of its interfaces.
    pub interfaces: Vec<String>,
}

/// What this build says of itself.
#[must_use]
pub fn info() -> Info {
    Info {
        vendor: "The lifeboat developers".into(),
        product: "lifeboat".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        url: env!("CARGO_PKG_REPOSITORY").into(),
        interfaces: vec![SUPERVISOR.into(), SERVICE.into()],
    }
}

/// The text of an interface in Varlink's interface definition language; `None` for a name that is not ours.
#[must_use]
pub fn description(interface: &str) -> Option<&'static str> {
    match interface {
        SUPERVISOR => Some(include_str!("../../docs/org.lifeboat.Supervisor.varlink")),
        SERVICE => Some(include_str!("org.varlink.service.varlink")),
        _ => None,
    }
}
