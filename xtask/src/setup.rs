//! Finds what the other commands need and installs what is missing: QEMU, BusyBox, the musl target, the kernels.
//!
//! Only QEMU is installed on the system. BusyBox and the kernels are taken apart into the target folder, so that
//! nothing else on the machine changes. Each step says what it does, and nothing is done twice.

use crate::error::{AtPath, Error, Result};
use crate::place::{self, TARGET, find_program};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const QEMU: &str = "qemu-system-x86_64";
const QEMU_PACKAGE: &str = "qemu-system-x86";

/// A kernel that guests boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Linux 6.12, which has `memory.peak` that can be reset and PSI for unprivileged users.
    V6_12,
    /// Linux 6.1, the kernel of Debian 12.
    V6_1,
}

impl Kernel {
    /// Both kernels, the newer one first.
    pub const ALL: [Self; 2] = [Self::V6_12, Self::V6_1];

    /// The version as it is written on the command line.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Self::V6_12 => "6.12",
            Self::V6_1 => "6.1",
        }
    }

    /// The kernel of this version.
    ///
    /// # Errors
    /// When there is no such kernel here.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kernel| kernel.version() == text).ok_or_else(|| {
            Error::new(format!("--kernel {text}: there is no such kernel here")).cure("use 6.12 or 6.1")
        })
    }

    /// Debian's packages that depend on the newest build of this kernel, the likeliest first.
    fn packages(self) -> &'static [&'static str] {
        match self {
            // Debian 12 has 6.12 under its own name, Debian 13 as the default kernel.
            Self::V6_12 => &["linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64"],
            Self::V6_1 => &["linux-image-cloud-amd64"],
        }
    }

    fn folder(self) -> PathBuf {
        place::target().join("kernel").join(self.version())
    }

    /// The compressed kernel, when it is there.
    fn image(self) -> Option<PathBuf> {
        let files = std::fs::read_dir(self.folder().join("boot")).ok()?;
        files
            .filter_map(std::result::Result::ok)
            .find(|file| file.file_name().to_string_lossy().starts_with("vmlinuz-"))
            .map(|file| file.path())
    }
}

/// Everything that it takes to make an image and to boot it.
#[derive(Debug, Clone)]
pub struct Kit {
    /// The emulator.
    pub qemu: PathBuf,
    /// A BusyBox that needs no libraries.
    pub busybox: PathBuf,
    kernels: [PathBuf; 2],
}

impl Kit {
    /// The file to boot for this kernel.
    #[must_use]
    pub fn kernel(&self, kernel: Kernel) -> &Path {
        let [newer, older] = &self.kernels;
        match kernel {
            Kernel::V6_12 => newer,
            Kernel::V6_1 => older,
        }
    }

    /// Finds everything without changing anything.
    ///
    /// # Errors
    /// When something is missing: the message names all of it, and the cure.
    pub fn find() -> Result<Self> {
        let missing = missing();
        match (find_program(QEMU), busybox(), Kernel::V6_12.image(), Kernel::V6_1.image()) {
            (Some(qemu), Some(busybox), Some(newer), Some(older)) if missing.is_empty() => {
                Ok(Self { qemu, busybox, kernels: [newer, older] })
            }
            _ => {
                let names: Vec<_> = missing.iter().map(|part| part.name()).collect();
                Err(Error::new(format!("missing: {}", names.join(", "))).cure("run `cargo xtask setup`"))
            }
        }
    }
}

/// Something that a fresh machine lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Qemu,
    Busybox,
    MuslTarget,
    Linux(Kernel),
}

impl Part {
    const ALL: [Self; 5] =
        [Self::MuslTarget, Self::Qemu, Self::Busybox, Self::Linux(Kernel::V6_12), Self::Linux(Kernel::V6_1)];

    fn name(self) -> String {
        match self {
            Self::Qemu => format!("QEMU ({QEMU})"),
            Self::Busybox => "BusyBox (static)".to_owned(),
            Self::MuslTarget => format!("Rust's target {TARGET}"),
            Self::Linux(kernel) => format!("Linux {}", kernel.version()),
        }
    }

    fn is_there(self) -> bool {
        match self {
            Self::Qemu => find_program(QEMU).is_some(),
            Self::Busybox => busybox().is_some(),
            Self::MuslTarget => has_musl_target(),
            Self::Linux(kernel) => kernel.image().is_some(),
        }
    }

    /// What a person does about it on a machine without apt.
    fn cure_by_hand(self) -> String {
        match self {
            Self::Qemu => format!("install QEMU's system emulator for x86_64, so that {QEMU} is on $PATH"),
            Self::Busybox => format!("put a static BusyBox for x86_64 at {}", busybox_path().display()),
            Self::MuslTarget => format!("rustup target add {TARGET}"),
            Self::Linux(kernel) => format!(
                "put an x86_64 Linux {} with cgroup v2, PSI and a serial console built in at {}/boot/vmlinuz-{}",
                kernel.version(),
                kernel.folder().display(),
                kernel.version()
            ),
        }
    }
}

fn missing() -> Vec<Part> {
    Part::ALL.into_iter().filter(|part| !part.is_there()).collect()
}

/// Finds everything, and installs what is missing.
///
/// # Errors
/// When a step fails, or when the machine has no apt: the message names all that is missing, and the cure.
pub fn ensure() -> Result<Kit> {
    let started = Instant::now();
    let missing = missing();
    if missing.is_empty() {
        println!("setup: everything is there");
        return Kit::find();
    }
    let by_apt = missing.iter().any(|part| *part != Part::MuslTarget);
    if by_apt && (find_program("apt-get").is_none() || find_program("dpkg").is_none()) {
        let cures: Vec<_> =
            missing.iter().map(|part| format!("\n    {}: {}", part.name(), part.cure_by_hand())).collect();
        return Err(Error::new("setup: this machine has no apt-get, so these must be put there by hand")
            .cure(cures.concat()));
    }
    for (part, number) in missing.iter().zip(1..) {
        println!("setup: {number} of {}: {}", missing.len(), part.name());
        let step = Instant::now();
        match part {
            Part::Qemu => install_qemu()?,
            Part::Busybox => unpack_busybox()?,
            Part::MuslTarget => add_musl_target()?,
            Part::Linux(kernel) => unpack_kernel(*kernel)?,
        }
        println!("setup: {} is there ({:.1} s)", part.name(), step.elapsed().as_secs_f64());
    }
    println!("setup: done in {:.1} s", started.elapsed().as_secs_f64());
    Kit::find()
}

fn has_musl_target() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let folder = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(place::root())
        .stderr(Stdio::null())
        .output();
    folder.is_ok_and(|output| {
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&path).is_dir()
    })
}

fn add_musl_target() -> Result<()> {
    if find_program("rustup").is_none() {
        return Err(Error::new(format!(
            "this Rust has no target {TARGET}, and there is no rustup to add it"
        ))
        .cure("install Rust by rustup (https://rustup.rs), or the target by your distribution's means"));
    }
    run(Command::new("rustup").args(["target", "add", TARGET]).current_dir(place::root()))
}

fn install_qemu() -> Result<()> {
    let install = || {
        run(as_root(&["apt-get", "install", "--yes", "--no-install-recommends", QEMU_PACKAGE])?
            .env("DEBIAN_FRONTEND", "noninteractive"))
    };
    // The first try fails when the package lists are absent or older than the mirror.
    install().or_else(|_| {
        update_lists()?;
        install()
    })
}

fn busybox_path() -> PathBuf {
    place::target().join("busybox/bin/busybox")
}

fn busybox() -> Option<PathBuf> {
    // Debian 13 has its programs below usr/.
    let unpacked = [busybox_path(), place::target().join("busybox/usr/bin/busybox")];
    unpacked.into_iter().find(|path| path.is_file())
}

fn unpack_busybox() -> Result<()> {
    unpack_package(&["busybox-static"], &place::target().join("busybox"), |_| {
        Some("busybox-static".to_owned())
    })
}

fn unpack_kernel(kernel: Kernel) -> Result<()> {
    // The cloud packages hold nothing themselves: each depends on the newest build.
    let prefix = format!("linux-image-{}.", kernel.version());
    unpack_package(kernel.packages(), &kernel.folder(), |package| {
        let output = Command::new("apt-cache").args(["depends", package]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let named = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        named.map(str::to_owned).find(|name| name.starts_with(&prefix))
    })
}

/// Downloads the package that `resolve` names for one of `candidates`, and takes it apart into `folder`.
fn unpack_package(
    candidates: &[&str],
    folder: &Path,
    resolve: impl Fn(&str) -> Option<String>,
) -> Result<()> {
    let fetch = || -> Result<PathBuf> {
        let package = candidates.iter().find_map(|name| resolve(name)).ok_or_else(|| {
            Error::new(format!("apt knows no package for {}", candidates.join(" or "))).cure(
                "the kernels are in Debian 12 (bookworm and bookworm-security): add them to apt's sources",
            )
        })?;
        download(&package, folder)
    };
    // The first try fails when the package lists are absent or older than the mirror.
    let archive = fetch().or_else(|_| {
        update_lists()?;
        fetch()
    })?;
    // Taken apart beside its place and renamed: a step that was cut short is never taken for a finished one.
    let partial = beside(folder, "partial");
    remove_folder(&partial)?;
    std::fs::create_dir_all(&partial).at("make the folder", &partial)?;
    println!("  taking {} apart into {}", archive.display(), folder.display());
    run(Command::new("dpkg").arg("-x").arg(&archive).arg(&partial))?;
    remove_folder(folder)?;
    std::fs::rename(&partial, folder).at("rename", &partial)?;
    archive.parent().map_or(Ok(()), remove_folder)
}

/// Downloads a package into a folder of its own beside `folder`; gives the file.
fn download(package: &str, folder: &Path) -> Result<PathBuf> {
    let into = beside(folder, "download");
    remove_folder(&into)?;
    std::fs::create_dir_all(&into).at("make the folder", &into)?;
    println!("  downloading {package}");
    // Root's apt would otherwise warn that its own user cannot write here.
    run(Command::new("apt-get")
        .args(["-o", "APT::Sandbox::User=root", "download", package])
        .current_dir(&into))?;
    let files = std::fs::read_dir(&into).at("read the folder", &into)?;
    files
        .filter_map(std::result::Result::ok)
        .map(|file| file.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| {
            Error::new(format!("apt-get download {package} left no package in {}", into.display()))
        })
}

/// `FOLDER.SUFFIX`, in the same parent folder. (`with_extension` would take the 12 of 6.12 for an extension.)
fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(suffix);
    folder.with_file_name(name)
}

fn update_lists() -> Result<()> {
    println!("  bringing the package lists up to date");
    run(&mut as_root(&["apt-get", "update"])?)
}

/// The command as root: by sudo when we are not.
fn as_root(words: &[&str]) -> Result<Command> {
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
    command.arg("--preserve-env=DEBIAN_FRONTEND").args(words);
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
fn run(command: &mut Command) -> Result<()> {
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
