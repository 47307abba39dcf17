//! Where things are: the repository, its target folder, and the cargo that runs us.

use crate::error::{AtPath, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target triple of everything that goes into an image.
pub const TARGET: &str = "x86_64-unknown-linux-musl";

/// The root of the repository.
#[must_use]
pub fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Cargo's target folder: `$CARGO_TARGET_DIR`, or `target/` in the repository.
#[must_use]
pub fn target() -> PathBuf {
    // `join` keeps an absolute path as it is.
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The folder of initramfs archives and logs, made when it is absent.
///
/// # Errors
/// When the folder cannot be made.
pub fn vm_folder() -> Result<PathBuf> {
    let folder = target().join("vm");
    std::fs::create_dir_all(&folder).at("make the folder", &folder)?;
    Ok(folder)
}

/// The cargo that started us, run in the repository's root.
#[must_use]
pub fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The path of a program on `$PATH`, or in the folders of system programs that a user's `$PATH` may lack.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.into_iter().map(|folder| folder.join(name)).find(|file| file.is_file())
}
