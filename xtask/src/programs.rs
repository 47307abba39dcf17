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

/// The example that the benchmark `paper` runs.
pub const PAPER: &str = "paper";

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
        .args(packed_relocations())
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

/// The musl that Rust 1.95 brings (1.2.5) reads packed relative relocations (`DT_RELR`); an older one would start a
/// program without any. What this is added to is in `.cargo/config.toml`.
fn packed_relocations() -> Vec<String> {
    let version = place::cargo().arg("--version").output().map(|said| said.stdout).unwrap_or_default();
    match minor_of(&String::from_utf8_lossy(&version)) {
        Some(minor) if minor >= 95 => {
            let flags = r#"["-C", "link-arg=--pack-dyn-relocs=relr"]"#;
            vec!["--config".to_owned(), format!("target.{TARGET}.rustflags={flags}")]
        }
        Some(_) | None => Vec::new(),
    }
}

/// 95 of "cargo 1.95.0 (f2d3ce0bd 2026-03-21)".
fn minor_of(version: &str) -> Option<u32> {
    version.strip_prefix("cargo 1.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::minor_of;

    #[test]
    fn a_version_is_read() {
        let check = |version, minor| assert_eq!(minor_of(version), minor, "{version}");
        check("cargo 1.95.0 (f2d3ce0bd 2026-03-21)\n", Some(95));
        check("cargo 1.88.0-nightly", Some(88));
        check("cargo 2.0.0", None);
        check("", None);
    }
}
