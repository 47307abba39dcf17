//! The map of the house, in the order in which data flows.
//!
//! ```text
//! kernel ─ sys ─ translate ─▶ Event ─▶ Engine::handle ─▶ Plan ─▶ perform ─ sys, cgroup ─▶ kernel
//!                                ▲                                   │
//!                                └────── every outcome, as an Event ─┘
//! ```
//!
//! Uses run downward only: `engine` uses nothing else of this crate; `unit` uses the engine's policy types;
//! `cgroup` uses `sys`; `view` and `wire` use the engine's snapshot; `runtime` uses all of them.
//! `procedure` stands beside them, for programs that lifeboat starts; it uses `sys`.

pub mod sys;

pub mod cgroup;

pub mod unit;

pub mod engine;

pub mod runtime;

pub mod procedure;

pub mod wire;

pub mod view;
