//! The process storey: the real `lifeboat` and `lifeboatctl` with real small services on this machine.
//!
//! Each case says what it needs; where the machine does not allow it, the case prints why it is skipped.

#[path = "process/adopt.rs"]
mod adopt;
#[path = "process/changes.rs"]
mod changes;
#[path = "process/control.rs"]
mod control;
#[path = "process/init.rs"]
mod init;
#[path = "process/instances.rs"]
mod instances;
#[path = "process/output.rs"]
mod output;
#[path = "process/rig.rs"]
mod rig;
#[path = "process/run.rs"]
mod run;
#[path = "process/supervisor.rs"]
mod supervisor;
