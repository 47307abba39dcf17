//! `cargo xtask size`: the sizes of the stripped static programs, and whether the promise is kept.

use crate::error::{AtPath, Error, Result};
use crate::programs;

/// The most that `lifeboat` may take on a device.
const LIFEBOAT_LIMIT_BYTES: u64 = 1024 * 1024;

/// Builds the shipped programs and prints their sizes.
///
/// # Errors
/// When a build fails, or `lifeboat` is larger than promised.
pub fn run() -> Result<()> {
    programs::build_shipped()?;
    let mut kept = true;
    for name in programs::SHIPPED {
        let file = programs::shipped(name);
        let bytes = std::fs::metadata(&file).at("look at", &file)?.len();
        let aim = if name == "lifeboat" {
            kept = bytes <= LIFEBOAT_LIMIT_BYTES;
            format!("; aim: at most {LIFEBOAT_LIMIT_BYTES} bytes: {}", if kept { "met" } else { "NOT met" })
        } else {
            String::new()
        };
        println!("size: {name}: {bytes} bytes ({} KiB){aim}", bytes.div_ceil(1024));
    }
    if kept { Ok(()) } else { Err(Error::new("size: lifeboat is larger than promised")) }
}
