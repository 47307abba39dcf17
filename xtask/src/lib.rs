//! The developer's commands, as a library, so that `tests/vm.rs` boots guests by the same code as `cargo xtask vm`.
//!
//! In the order in which data flows: [`setup`] finds the tools, [`real`] the programs of others, [`programs`] builds
//! the static binaries, [`image`] packs them with [`cpio`], [`qemu`] boots the image, with a [`disk`] where it needs
//! one, [`report`] reads what the guest says, [`groups`] is the table of boots, [`vm`] runs it. [`demo`], [`bench`],
//! [`size`] and [`test`] are commands on top. Nothing here depends on lifeboat itself: a guest is judged from outside.

pub mod bench;
mod bench_units;
pub mod cpio;
mod debian;
pub mod demo;
pub mod disk;
pub mod error;
pub mod groups;
pub mod image;
pub mod place;
pub mod programs;
pub mod qemu;
pub mod real;
pub mod report;
pub mod setup;
pub mod size;
pub mod test;
pub mod vm;

pub use error::{Error, Result};
