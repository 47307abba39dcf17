//! Builds the static programs that go into an image. Whether there is anything to do, cargo decides.

use crate::error::{Error, Result};
use crate::place::{self, TARGET};
use std::path::PathBuf;
use std::time::Instant;

/// The programs that a device gets.
pub const SHIPPED: [&str; 2] = ["lifeboat", "lifeboatctl"];
/// The examples that the demo runs.
pub const EXAMPLES: [&str; 4] = ["recorder", "recorder-flush", "recorder-flush-memory", "demo-verdict"];
/// The example that runs the cases inside a test guest.
pub const GUEST: &str = "vm-guest";

/// `quick` builds for the next boot of somebody who tries things: an increment takes seconds, and nothing is measured
/// with it. Everything else is built as it ships.
const PROFILE_VARIABLE: &str = "LIFEBOAT_PROFILE";

/// The profile of Cargo.toml, which is also the folder's name.
fn profile() -> &'static str {
    if std::env::var_os(PROFILE_VARIABLE).is_some_and(|name| name == "quick") { "quick" } else { "release" }
}

/// Where cargo puts a shipped program.
#[must_use]
pub fn shipped(name: &str) -> PathBuf {
    place::target().join(TARGET).join(profile()).join(name)
}

/// Where cargo puts an example.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    place::target().join(TARGET).join(profile()).join("examples").join(name)
}

/// Builds the shipped programs: as a user would, so that no example's needs change them.
///
/// # Errors
/// When cargo fails; its own words are on the console.
pub fn build_shipped() -> Result<()> {
    build(&SHIPPED.map(|name| format!("--bin={name}")))
}

/// Builds these examples.
///
/// # Errors
/// When cargo fails; its own words are on the console.
pub fn build_examples(names: &[&str]) -> Result<()> {
    let words: Vec<_> = names.iter().map(|name| format!("--example={name}")).collect();
    build(&words)
}

fn build(what: &[String]) -> Result<()> {
    let started = Instant::now();
    let names = what.join(" ").replace("--bin=", "").replace("--example=", "");
    println!("build: {names} ({}, static)", profile());
    let status = place::cargo()
        .args(["build", "--profile", profile(), "--package", "lifeboat", "--target", TARGET])
        .args(what)
        .status()
        .map_err(|error| Error::new("cannot run cargo").because(error))?;
    if !status.success() {
        return Err(Error::new(format!("cargo build {} failed ({status})", what.join(" ")))
            .cure("its own message is above; `cargo xtask setup` installs a missing target"));
    }
    println!("build: done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
