//! The client's end of the control socket: connect, ask, hear, each with a deadline.

use crate::exit::{Exit, Failure};
use lifeboat::view::words;
use lifeboat::wire::codec::{self, Inbox};
use lifeboat::wire::reply::{self, ErrorReply, Received};
use lifeboat::wire::request::{Call, Request};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt::SendTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long lifeboat may take over an answer that it has at hand.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// No connection.
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What connect(2) said.
        errno: nix::Error,
    },
    /// No answer in time.
    TimedOut(Duration),
    /// lifeboat closed the connection, or broke off in the middle.
    Closed,
    /// The connection failed.
    Broken(io::Error),
    /// Not what lifeboat would say.
    NotVarlink(String),
    /// lifeboat says no.
    Refused(ErrorReply),
}

impl CallError {
    /// The message for people, and the exit code where nothing else decides it.
    pub(crate) fn into_failure(self) -> Failure {
        let (message, exit) = match self {
            Self::Unreachable { path, errno } => {
                let exit = match errno {
                    nix::Error::ENOENT => Exit::NotRunning,
                    _ => Exit::Unknown,
                };
                let (path, reason) = (path.display(), words::errno(errno as i32));
                let cure = match errno {
                    nix::Error::EACCES | nix::Error::EPERM => "try as root",
                    nix::Error::ENAMETOOLONG => "a socket's path has at most 107 bytes",
                    _ => "is it running? (--socket PATH)",
                };
                (format!("cannot reach lifeboat at {path}: {reason}; {cure}"), exit)
            }
            Self::TimedOut(time) => {
                let time = humantime::format_duration(time);
                (format!("lifeboat did not answer within {time}; its log may tell why"), Exit::Failed)
            }
            Self::Closed => ("lifeboat closed the connection without an answer".into(), Exit::Failed),
            Self::Broken(error) => (format!("the connection to lifeboat failed: {error}"), Exit::Failed),
            Self::NotVarlink(what) => (
                format!("this is not lifeboat's answer: {what}; does --socket name another service?"),
                Exit::Failed,
            ),
            Self::Refused(error) => {
                let exit = match error {
                    ErrorReply::NotPermitted {} => Exit::Unknown,
                    _ => Exit::Failed,
                };
                (error.to_string(), exit)
            }
        };
        Failure { message, exit }
    }
}

/// One connection. Its calls are answered in their order.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    inbox: Inbox,
}

impl Client {
    /// Connects within `ANSWER_TIMEOUT`, also where nobody accepts connections.
    pub(crate) fn connect(path: &Path) -> Result<Self, CallError> {
        let unreachable = |errno| CallError::Unreachable { path: path.to_owned(), errno };
        let address = UnixAddr::new(path).map_err(unreachable)?;
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
            .map_err(unreachable)?;
        // unix(7): SO_SNDTIMEO also bounds a connect(2) that waits for a full backlog.
        let seconds = i64::try_from(ANSWER_TIMEOUT.as_secs()).unwrap_or(i64::MAX);
        setsockopt(&fd, SendTimeout, &TimeVal::seconds(seconds)).map_err(unreachable)?;
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => Ok(Self { stream: fd.into(), inbox: Inbox::new(codec::REPLY_BYTES_MAX) }),
            Err(nix::Error::EAGAIN) => Err(CallError::TimedOut(ANSWER_TIMEOUT)),
            Err(errno) => Err(unreachable(errno)),
        }
    }

    /// Sends a call; the answer is heard by `hear`.
    pub(crate) fn ask(&mut self, request: Request) -> Result<(), CallError> {
        let mut bytes = Vec::new();
        codec::encode_call(&mut bytes, &Call::from(request))
            .map_err(|error| CallError::NotVarlink(error.to_string()))?;
        match self.stream.write_all(&bytes) {
            Ok(()) => Ok(()),
            // lifeboat turned the connection away: it may have said why before.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(CallError::TimedOut(ANSWER_TIMEOUT)),
            Err(error) => Err(CallError::Broken(error)),
        }
    }

    /// Waits for the next answer; without a timeout for as long as it takes. Says whether more follow.
    pub(crate) fn hear<P: DeserializeOwned>(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<(P, bool), CallError> {
        let deadline = timeout.map(|timeout| (timeout, Instant::now() + timeout));
        loop {
            match self.inbox.next_message() {
                Ok(Some(message)) => return understand(message),
                Ok(None) => {}
                Err(too_long) => return Err(CallError::NotVarlink(too_long.to_string())),
            }
            self.read_some(deadline)?;
        }
    }

    fn read_some(&mut self, deadline: Option<(Duration, Instant)>) -> Result<(), CallError> {
        let left = match deadline {
            None => None,
            Some((timeout, at)) => match at.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => Some(left),
                _ => return Err(CallError::TimedOut(timeout)),
            },
        };
        self.stream.set_read_timeout(left).map_err(CallError::Broken)?;
        let mut buffer = [0; 16 * 1024];
        let room = self.inbox.room().min(buffer.len());
        let place = buffer.get_mut(..room).unwrap_or_default();
        match self.stream.read(place) {
            Ok(0) => Err(CallError::Closed),
            Ok(count) => {
                // All of it fits: no more than the room was read.
                let _ = self.inbox.feed(place.get(..count).unwrap_or_default());
                Ok(())
            }
            // The loop looks at the deadline again.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(CallError::Closed),
            Err(error) => Err(CallError::Broken(error)),
        }
    }

    /// Asks, and waits for one answer.
    pub(crate) fn call<P: DeserializeOwned>(
        &mut self,
        request: Request,
        timeout: Duration,
    ) -> Result<P, CallError> {
        self.ask(request)?;
        self.hear(Some(timeout)).map(|(parameters, _)| parameters)
    }
}

fn understand<P: DeserializeOwned>(message: &[u8]) -> Result<(P, bool), CallError> {
    match reply::decode(message) {
        Ok(Received::Answer { parameters, continues }) => Ok((parameters, continues)),
        Ok(Received::Refused(error)) => Err(CallError::Refused(error)),
        Ok(Received::Unknown(error)) => Err(CallError::NotVarlink(format!("error {error:?}"))),
        Err(error) => Err(CallError::NotVarlink(error.to_string())),
    }
}
