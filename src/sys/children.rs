//! Dead children, collected.

use crate::engine::event::Exit;
use rustix::process::{WaitOptions, WaitStatus, wait};

/// Collects every child that has ended (wait(2), `WNOHANG`) and hands each one's pid and end to `each`.
///
/// PID 1 and a subreaper also get orphans that they never started. Never blocks, allocates nothing. rustix and not
/// nix does the waiting: nix collects a child that a real-time signal killed, and then loses its pid in an error.
pub fn reap(each: &mut impl FnMut(u32, Exit)) {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if let (Ok(pid), Some(exit)) = (u32::try_from(pid.as_raw_nonzero().get()), exit_of(status)) {
            each(pid, exit);
        }
    }
}

/// The end that a status tells; `None` for a child that is only stopped or continued.
pub(super) fn exit_of(status: WaitStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}
