//! A client of the control socket: every read has a deadline, so that a supervisor that hangs is a failure with a name.

use lifeboat::engine::snapshot::{Incident, Snapshot, UnitView};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Where lifeboat listens.
pub(crate) const SOCKET: &str = "/run/lifeboat/control.sock";
/// How long lifeboat may take for an answer that waits for nothing.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// One connection. Messages are Varlink's: JSON with a NUL byte behind it.
pub(crate) struct Supervisor {
    stream: UnixStream,
    inbox: Vec<u8>,
}

impl Supervisor {
    /// Connects.
    ///
    /// # Errors
    /// A sentence that names the socket.
    pub(crate) fn connect() -> Result<Self, String> {
        let stream = UnixStream::connect(SOCKET).map_err(|error| format!("{SOCKET}: {error}"))?;
        Ok(Self { stream, inbox: Vec::new() })
    }

    /// Calls one method of `org.lifeboat.Supervisor` and gives the `parameters` of its answer.
    ///
    /// # Errors
    /// No answer by the deadline, or lifeboat's error by name.
    pub(crate) fn call(
        &mut self,
        method: &str,
        parameters: &Value,
        deadline: Instant,
    ) -> Result<Value, String> {
        self.send(method, parameters, false)?;
        self.reply(deadline).map_err(|error| format!("{method}: {error}"))
    }

    /// Everything that lifeboat shows, now.
    ///
    /// # Errors
    /// As `call`, or the answer is not a snapshot.
    pub(crate) fn status(&mut self) -> Result<Snapshot, String> {
        snapshot_of(self.call("Status", &json!({}), Instant::now() + ANSWER)?)
    }

    /// Follows the snapshots until one of them answers the question. Uses the connection up.
    ///
    /// # Errors
    /// The deadline passed; says what lifeboat showed last of the unit that `about` names.
    pub(crate) fn watch<T>(
        mut self,
        about: &str,
        deadline: Instant,
        mut question: impl FnMut(&Snapshot) -> Option<T>,
    ) -> Result<T, String> {
        self.send("Watch", &json!({}), true)?;
        let mut last = None;
        loop {
            let shown = self.reply(deadline).and_then(snapshot_of).map_err(|error| match &last {
                Some(snapshot) => format!("{error}; {}", describe(snapshot, about)),
                None => format!("Watch: {error}"),
            })?;
            if let Some(answer) = question(&shown) {
                return Ok(answer);
            }
            last = Some(shown);
        }
    }

    /// Asks for the end of the machine: `PowerOff`, `Reboot` or `Halt`.
    ///
    /// # Errors
    /// As `call`.
    pub(crate) fn shut_down(&mut self, how: &str) -> Result<(), String> {
        self.call("Shutdown", &json!({ "how": how }), Instant::now() + ANSWER).map(drop)
    }

    fn send(&mut self, method: &str, parameters: &Value, more: bool) -> Result<(), String> {
        let mut call =
            json!({ "method": format!("org.lifeboat.Supervisor.{method}"), "parameters": parameters });
        if more {
            call["more"] = Value::Bool(true);
        }
        let mut bytes = call.to_string().into_bytes();
        bytes.push(0);
        let sent = self.stream.set_write_timeout(Some(ANSWER)).and_then(|()| self.stream.write_all(&bytes));
        sent.map_err(|error| format!("{method}: cannot send: {error}"))
    }

    fn reply(&mut self, deadline: Instant) -> Result<Value, String> {
        let message = self.message(deadline)?;
        let mut reply: Value =
            serde_json::from_slice(&message).map_err(|error| format!("not JSON: {error}"))?;
        match reply.get("error").and_then(Value::as_str) {
            Some(error) => Err(format!("{error} {}", reply.get("parameters").unwrap_or(&Value::Null))),
            None => Ok(reply.get_mut("parameters").map(Value::take).unwrap_or_default()),
        }
    }

    fn message(&mut self, deadline: Instant) -> Result<Vec<u8>, String> {
        let mut seen = 0;
        loop {
            if let Some(end) = self.inbox.iter().skip(seen).position(|&byte| byte == 0) {
                let mut message: Vec<u8> = self.inbox.drain(..=seen + end).collect();
                message.pop();
                return Ok(message);
            }
            seen = self.inbox.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("nothing by the deadline".into());
            }
            let mut bytes = [0; 16 * 1024];
            let read = self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut bytes));
            match read {
                Ok(0) => return Err("lifeboat closed the connection".into()),
                Ok(length) => self.inbox.extend(bytes.iter().take(length)),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

fn snapshot_of(mut parameters: Value) -> Result<Snapshot, String> {
    let snapshot = parameters.get_mut("snapshot").map(Value::take).ok_or("no snapshot in the answer")?;
    serde_json::from_value(snapshot).map_err(|error| format!("not a snapshot: {error}"))
}

/// The unit with this name.
pub(crate) fn unit<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a UnitView> {
    snapshot.units.iter().find(|unit| unit.name == name)
}

/// The latest finished incident of this unit with a number above `after`.
pub(crate) fn incident(snapshot: &Snapshot, name: &str, after: u32) -> Option<Incident> {
    let is_its = |incident: &&Incident| {
        snapshot.names.get(usize::from(incident.unit.0)).is_some_and(|owner| owner == name)
            && incident.number > after
            && incident.emptied.is_some()
    };
    snapshot.incidents.iter().filter(is_its).max_by_key(|incident| incident.number).copied()
}

fn describe(snapshot: &Snapshot, name: &str) -> String {
    match unit(snapshot, name) {
        Some(unit) => format!(
            "{name} was {:?}, run {}, trouble {:?}, {} incidents",
            unit.state, unit.run.0, unit.trouble, unit.incidents
        ),
        None => format!("no unit {name}"),
    }
}
