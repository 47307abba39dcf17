//! The vm storey: the real programs under real kernels with real memory limits.
//!
//! `cargo test --test vm` boots every group on the newer kernel; `cargo test --test vm main no-psi` only those.
//! `cargo xtask vm` has more options. On a machine without QEMU the storey is left out, and says so: `cargo xtask
//! test` sets the machine up first, so there it always runs.

use std::process::ExitCode;
use xtask::setup::{Kernel, Kit};
use xtask::test::VM_VARIABLE;
use xtask::vm::{self, Options};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(VM_VARIABLE).is_some_and(|value| value == "skip") {
        println!("vm: left out, because {VM_VARIABLE}=skip");
        return ExitCode::SUCCESS;
    }
    let mut options = Options::unasked(&[Kernel::V6_12]);
    // As in Rust's own harness, whose options mean nothing here, a bare word names what is to be run.
    let names: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    if !names.is_empty() {
        options.boots.retain(|(_, group)| names.iter().any(|name| *name == group.name));
    }
    if options.boots.is_empty() {
        println!("vm: no group has such a name");
        return ExitCode::SUCCESS;
    }
    match Kit::find() {
        Ok(kit) => run(&kit, &options),
        Err(error) => {
            println!("vm: left out: {}", error.full_text());
            ExitCode::SUCCESS
        }
    }
}

fn run(kit: &Kit, options: &Options) -> ExitCode {
    match vm::run(kit, options) {
        Ok(count) => {
            println!("{count}");
            if count.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {}", error.full_text());
            ExitCode::FAILURE
        }
    }
}
