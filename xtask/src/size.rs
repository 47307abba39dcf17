//! `cargo xtask size`: the sizes of the stripped static programs, and whether aim and limit are kept.

use crate::error::{AtPath, Error, Result};
use crate::programs;

/// What `lifeboat` should take on a device.
const LIFEBOAT_AIM_BYTES: u64 = 1024 * 1024;

/// What it may take: it met the aim before it could change units, stop and reload by commands, and took 1,122,288 bytes
/// with them.
const LIFEBOAT_LIMIT_BYTES: u64 = 1280 * 1024;

/// Builds the shipped programs and prints their sizes.
///
/// # Errors
/// When a build fails, or `lifeboat` is larger than its limit.
pub fn run() -> Result<()> {
    programs::build_shipped()?;
    let mut kept = true;
    for name in programs::SHIPPED {
        let file = programs::shipped(name);
        let bytes = std::fs::metadata(&file).at("look at", &file)?.len();
        let aim = if name == "lifeboat" {
            kept = bytes <= LIFEBOAT_LIMIT_BYTES;
            let met = if bytes <= LIFEBOAT_AIM_BYTES { "met" } else { "NOT met" };
            format!("; aim: at most {LIFEBOAT_AIM_BYTES} bytes: {met}; limit: {LIFEBOAT_LIMIT_BYTES} bytes")
        } else {
            String::new()
        };
        println!("size: {name}: {bytes} bytes ({} KiB){aim}", bytes.div_ceil(1024));
    }
    if kept { Ok(()) } else { Err(Error::new("size: lifeboat is larger than its limit")) }
}
