//! Debian's packages, downloaded and taken apart into a folder of their own: nothing is installed on this machine.

use crate::error::{AtPath, Error, Result};
use crate::place::find_program;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Downloads the packages that `names` gives and takes them apart into `folder`.
pub(crate) fn unpack(folder: &Path, names: impl Fn() -> Result<Vec<String>>) -> Result<()> {
    let fetch = || download(&names()?, folder);
    // The first try fails when the package lists are absent or older than the mirror.
    let archives = fetch().or_else(|_| {
        update_lists()?;
        fetch()
    })?;
    // Taken apart beside its place and renamed: a step that was cut short is never taken for a finished one.
    let partial = beside(folder, "partial");
    remove_folder(&partial)?;
    std::fs::create_dir_all(&partial).at("make the folder", &partial)?;
    println!("  taking {} packages apart into {}", archives.len(), folder.display());
    for archive in &archives {
        quietly(Command::new("dpkg").arg("-x").arg(archive).arg(&partial))?;
    }
    remove_folder(folder)?;
    std::fs::rename(&partial, folder).at("rename", &partial)?;
    remove_folder(&beside(folder, "download"))
}

/// These packages and every library (`lib*`, zlib) that they need, by apt's lists. Programs that they depend on are
/// left out: in a guest nobody installs, configures or logs in.
pub(crate) fn with_libraries(packages: &[&str]) -> Result<Vec<String>> {
    let mut command = Command::new("apt-cache");
    command.args(["depends", "--recurse"]);
    command.args(
        ["suggests", "recommends", "conflicts", "breaks", "replaces", "enhances"]
            .map(|kind| format!("--no-{kind}")),
    );
    let output = command
        .args(packages)
        .stderr(Stdio::null())
        .output()
        .map_err(|error| Error::new("cannot run apt-cache").because(error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Packages begin their line, and what they depend on stands further in.
    let known: Vec<&str> =
        text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric())).collect();
    if let Some(lacking) = packages.iter().find(|name| !known.contains(name)) {
        return Err(Error::new(format!("apt knows no package {lacking}")).cure(
            "the programs are in Debian 12 (bookworm and bookworm-security): add them to apt's sources",
        ));
    }
    let library =
        |name: &str| (name.starts_with("lib") || name.starts_with("zlib")) && !name.ends_with("-perl");
    let mut names: Vec<String> = known
        .into_iter()
        .filter(|name| packages.contains(name) || library(name))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Downloads packages into a folder of its own beside `folder`; gives the files.
fn download(packages: &[String], folder: &Path) -> Result<Vec<PathBuf>> {
    let into = beside(folder, "download");
    remove_folder(&into)?;
    std::fs::create_dir_all(&into).at("make the folder", &into)?;
    println!("  downloading {}", packages.join(" "));
    // Root's apt would otherwise warn that its own user cannot write here.
    quietly(
        Command::new("apt-get")
            .args(["-q", "-o", "APT::Sandbox::User=root", "download"])
            .args(packages)
            .current_dir(&into),
    )?;
    let files = std::fs::read_dir(&into).at("read the folder", &into)?;
    let mut archives: Vec<PathBuf> = files
        .filter_map(std::result::Result::ok)
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    archives.sort_unstable();
    if archives.len() == packages.len() {
        return Ok(archives);
    }
    Err(Error::new(format!(
        "apt-get download left {} of {} packages in {}",
        archives.len(),
        packages.len(),
        into.display()
    )))
}

/// `FOLDER.SUFFIX`, in the same parent folder. (`with_extension` would take the 12 of 6.12 for an extension.)
fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(suffix);
    folder.with_file_name(name)
}

/// `apt-get update`.
pub(crate) fn update_lists() -> Result<()> {
    println!("  bringing the package lists up to date");
    run(&mut as_root(&["apt-get", "update"])?)
}

/// The command as root: by sudo when we are not.
pub(crate) fn as_root(words: &[&str]) -> Result<Command> {
    let (program, rest) = words.split_first().ok_or_else(|| Error::new("no command"))?;
    if is_root() {
        let mut command = Command::new(program);
        command.args(rest);
        return Ok(command);
    }
    if find_program("sudo").is_none() {
        return Err(Error::new(format!("`{}` needs root, and there is no sudo", words.join(" ")))
            .cure("run it once as root, then this command again"));
    }
    let mut command = Command::new("sudo");
    command.args(words);
    Ok(command)
}

/// Whether our effective user id is 0, from `/proc/self/status`.
fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    ids.split_whitespace().nth(1) == Some("0")
}

fn remove_folder(folder: &Path) -> Result<()> {
    if folder.exists() { std::fs::remove_dir_all(folder).at("remove", folder) } else { Ok(()) }
}

/// Runs a command with its output on our own, after saying which.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let line = words.join(" ");
    println!("  $ {line}");
    let status = command
        .stdin(Stdio::inherit())
        .status()
        .map_err(|error| Error::new(format!("cannot run `{line}`")).because(error))?;
    if status.success() { Ok(()) } else { Err(Error::new(format!("`{line}` failed ({status})"))) }
}

/// Runs a command whose many words nobody wants to see, unless it fails.
fn quietly(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::new(format!("cannot run {program}")).because(error))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::new(format!("`{program}` failed ({}): {complaint}", output.status)))
}
