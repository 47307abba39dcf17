//! The programs of others that guests of the group `real` run: Debian's, dynamically linked, with their libraries.

use crate::cpio::Archive;
use crate::debian;
use crate::error::{AtPath, Error, Result};
use crate::place;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's packages that hold the programs. `runit` is there to be compared with.
pub const PACKAGES: [&str; 10] = [
    "inetutils-syslogd",
    "dropbear-bin",
    "nginx",
    "lighttpd",
    "mosquitto",
    "mosquitto-clients",
    "redis-server",
    "redis-tools",
    "sqlite3",
    "runit",
];

/// The programs, at the places that they have in their packages and in the guest.
const PROGRAMS: [&str; 13] = [
    "usr/sbin/syslogd",
    "usr/sbin/dropbear",
    "usr/bin/dropbearkey",
    "usr/bin/dbclient",
    "usr/sbin/nginx",
    "usr/sbin/lighttpd",
    "usr/sbin/mosquitto",
    "usr/bin/mosquitto_pub",
    "usr/bin/mosquitto_sub",
    "usr/bin/redis-server",
    "usr/bin/redis-cli",
    "usr/bin/sqlite3",
    "usr/bin/runsv",
];

/// Where Debian has libraries: Debian 13 has no first folder.
const LIBRARIES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// The program that loads the others; they name this path.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

fn folder() -> PathBuf {
    place::target().join("debian")
}

/// Every program is unpacked.
pub(crate) fn are_there() -> bool {
    PROGRAMS.iter().all(|program| folder().join(program).is_file()) && loader().is_ok()
}

pub(crate) fn cure_by_hand() -> String {
    format!(
        "unpack Debian 12's packages {} and their libraries into {}",
        PACKAGES.join(", "),
        folder().display()
    )
}

/// Downloads and unpacks the packages and their libraries.
pub(crate) fn unpack() -> Result<()> {
    debian::unpack(&folder(), || debian::with_libraries(&PACKAGES))
}

/// Adds the programs, the libraries that they are linked with, and their loader.
pub(crate) fn add_to(archive: &mut Archive) -> Result<()> {
    let loader = loader()?;
    add(archive, LOADER, &loader)?;
    for program in PROGRAMS {
        let path = folder().join(program);
        add(archive, program, &path)?;
        for library in libraries_of(&path, &loader)? {
            let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // The loader looks here without a cache or a setting.
            add(archive, &format!("usr/lib/{name}"), &library)?;
        }
    }
    Ok(())
}

fn add(archive: &mut Archive, path: &str, from: &Path) -> Result<()> {
    archive.file(path, 0o755, std::fs::read(from).at("read", from)?);
    Ok(())
}

fn loader() -> Result<PathBuf> {
    let name = Path::new(LOADER).file_name().unwrap_or_default();
    LIBRARIES.iter().map(|library| folder().join(library).join(name)).find(|path| path.is_file()).ok_or_else(
        || {
            Error::new(format!("{} has no {}", folder().display(), name.to_string_lossy()))
                .cure("run `cargo xtask setup`")
        },
    )
}

/// What the program is linked with, by the loader's own word (ld.so(8), `--list`), from our folder only.
fn libraries_of(program: &Path, loader: &Path) -> Result<Vec<PathBuf>> {
    let search: Vec<String> =
        LIBRARIES.iter().map(|library| folder().join(library).display().to_string()).collect();
    let output = Command::new(loader)
        .args(["--inhibit-cache", "--list", "--library-path", &search.join(":")])
        .arg(program)
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .map_err(|error| Error::new(format!("cannot run {}", loader.display())).because(error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let places = places(&text);
    let foreign = places.iter().find(|path| !path.starts_with(folder()) && !path.ends_with(LOADER));
    if let Some(lacking) = foreign.map(|path| path.display().to_string()).or_else(|| {
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }) {
        return Err(Error::new(format!("{} lacks a library: {lacking}", program.display()))
            .cure(format!("remove {} and run `cargo xtask setup`", folder().display())));
    }
    Ok(places.into_iter().filter(|path| path.starts_with(folder()) && path != loader).collect())
}

/// The paths behind the arrows.
fn places(list: &str) -> Vec<PathBuf> {
    list.lines()
        .filter_map(|line| line.split_once("=> "))
        .filter_map(|(_, place)| place.split_whitespace().next())
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::places;
    use std::path::PathBuf;

    #[test]
    fn lists_of_libraries() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /x/lib/libz.so.1 (0x00007f)\n\
                    \tlibc.so.6 => not found\n\t/lib64/ld-linux-x86-64.so.2 => /y/ld.so (0x00)\n";
        let expected: Vec<PathBuf> = ["/x/lib/libz.so.1", "not", "/y/ld.so"].map(PathBuf::from).into();
        assert_eq!(places(list), expected, "what is not found is no path of ours, and so is told");
    }
}
