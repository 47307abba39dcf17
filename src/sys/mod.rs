//! The only door to the kernel, and the only room with `unsafe`.
//!
//! Everything here is a thin, exact wrapper: it decides nothing, it keeps no policy, and it never blocks unless its
//! page says for how long. Errors are [`error::SysError`]: what was tried, on what, and errno(3).

pub mod children;
pub mod clock;
pub mod connect;
pub mod console;
pub mod epitaph;
pub mod error;
pub mod few;
pub mod handed;
pub mod kmsg;
pub mod memory;
pub mod mount;
pub mod notify;
pub mod poll;
pub mod power;
pub mod process;
pub mod signals;
pub mod sink;
pub mod socket;
pub mod spawn;
#[cfg(all(target_env = "musl", panic = "abort"))]
mod unwind;

#[cfg(test)]
pub(crate) mod allocations;
pub mod aside;
