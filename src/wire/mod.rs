//! The control socket's language: Varlink messages as types and bytes, pure. It opens no socket.
//!
//! A message is one JSON object with a NUL byte behind it (<https://varlink.org>). `codec` finds messages in a
//! stream of bytes and writes them, `request` is what a client may ask, `reply` what it hears, and `interface`
//! the texts by which the service describes itself. `runtime` serves with these, `lifeboatctl` asks.

pub mod base64;
pub mod codec;
pub mod episode;
pub mod incident;
pub mod interface;
pub mod notify;
mod numbers;
pub mod reply;
pub mod request;

#[cfg(test)]
mod idl_check;
#[cfg(test)]
mod tests;
