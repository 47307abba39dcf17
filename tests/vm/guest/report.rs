//! What the host hears: one line each, written in one call, so that two writers never mix within a line.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;

/// The serial port that belongs to the tests; the console has the first one.
const PORT: &str = "/dev/ttyS1";

static OUT: OnceLock<Option<File>> = OnceLock::new();

/// Writes one line to the port; to standard output where there is no such port.
pub(crate) fn line(text: &str) {
    let line = one_line(text);
    let port = OUT.get_or_init(|| {
        let flags = nix::fcntl::OFlag::O_NOCTTY.bits();
        OpenOptions::new().write(true).custom_flags(flags).open(PORT).ok()
    });
    // The host notices a lost line by its plan; there is nobody else to tell.
    let _ = match port {
        Some(port) => (&*port).write_all(line.as_bytes()),
        None => std::io::stdout().write_all(line.as_bytes()),
    };
}

/// Waits until the port has sent everything: what is still in the kernel when the machine goes off is lost, and a guest
/// with few units is off within milliseconds.
pub(crate) fn drain() {
    if let Some(Some(port)) = OUT.get() {
        let _ = nix::sys::termios::tcdrain(port);
    }
}

/// A line of the protocol is one line, whatever an error message holds.
pub(crate) fn one_line(text: &str) -> String {
    let parts: Vec<&str> = text.split(['\n', '\r']).filter(|part| !part.is_empty()).collect();
    format!("{}\n", parts.join(" | "))
}
