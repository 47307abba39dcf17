//! Decides, and does nothing else: no IO, no clock, no logging, no randomness, no unsafe.

pub mod action;
pub mod budget;
pub mod event;
pub mod policy;
pub mod record;
pub mod snapshot;
