//! Finds what the other commands need and installs what is missing: QEMU, BusyBox, the musl target, the kernels,
//! and the real programs that guests run.
//!
//! Only QEMU is installed on the system. Everything else of Debian's is taken apart into the target folder, so that
//! nothing else on the machine changes. Each step says what it does, and nothing is done twice.

use crate::debian::{self, as_root, run, update_lists};
use crate::error::{Error, Result};
use crate::place::{self, TARGET, find_program};
use crate::real;
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
    Checkers,
    Linux(Kernel),
    RealPrograms,
}

impl Part {
    const ALL: [Self; 7] = [
        Self::MuslTarget,
        Self::Checkers,
        Self::Qemu,
        Self::Busybox,
        Self::Linux(Kernel::V6_12),
        Self::Linux(Kernel::V6_1),
        Self::RealPrograms,
    ];

    fn name(self) -> String {
        match self {
            Self::Qemu => format!("QEMU ({QEMU})"),
            Self::Busybox => "BusyBox (static)".to_owned(),
            Self::MuslTarget => format!("Rust's target {TARGET}"),
            Self::Checkers => "rustfmt and clippy".to_owned(),
            Self::Linux(kernel) => format!("Linux {}", kernel.version()),
            Self::RealPrograms => format!("real programs for the guests ({})", real::PACKAGES.join(", ")),
        }
    }

    fn is_there(self) -> bool {
        match self {
            Self::Qemu => find_program(QEMU).is_some(),
            Self::Busybox => busybox().is_some(),
            Self::MuslTarget => has_musl_target(),
            Self::Checkers => has_checkers(),
            Self::Linux(kernel) => kernel.image().is_some(),
            Self::RealPrograms => real::are_there(),
        }
    }

    /// What a person does about it on a machine without apt.
    fn cure_by_hand(self) -> String {
        match self {
            Self::Qemu => format!("install QEMU's system emulator for x86_64, so that {QEMU} is on $PATH"),
            Self::Busybox => format!("put a static BusyBox for x86_64 at {}", busybox_path().display()),
            Self::MuslTarget => format!("rustup target add {TARGET}"),
            Self::Checkers => "rustup component add rustfmt clippy".to_owned(),
            Self::Linux(kernel) => format!(
                "put an x86_64 Linux {} with cgroup v2, PSI and a serial console built in at {}/boot/vmlinuz-{}",
                kernel.version(),
                kernel.folder().display(),
                kernel.version()
            ),
            Self::RealPrograms => real::cure_by_hand(),
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
    let by_apt = missing.iter().any(|part| !matches!(part, Part::MuslTarget | Part::Checkers));
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
            Part::MuslTarget => rustup(&["target", "add", TARGET])?,
            Part::Checkers => rustup(&["component", "add", "rustfmt", "clippy"])?,
            Part::Linux(kernel) => unpack_kernel(*kernel)?,
            Part::RealPrograms => real::unpack()?,
        }
        println!("setup: {} is there ({:.1} s)", part.name(), step.elapsed().as_secs_f64());
    }
    println!("setup: done in {:.1} s", started.elapsed().as_secs_f64());
    Kit::find()
}

fn has_musl_target() -> bool {
    rustc_folder(&["--print", "target-libdir", "--target", TARGET]).is_some()
}

/// rustup has a stand-in for each on `$PATH`, whether or not it is installed: only the toolchain's folder tells.
fn has_checkers() -> bool {
    rustc_folder(&["--print", "sysroot"]).is_some_and(|folder| {
        ["rustfmt", "cargo-clippy"].iter().all(|name| folder.join("bin").join(name).is_file())
    })
}

/// The folder that rustc prints, when it exists.
fn rustc_folder(words: &[&str]) -> Option<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output =
        Command::new(rustc).args(words).current_dir(place::root()).stderr(Stdio::null()).output().ok()?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    (output.status.success() && path.is_dir()).then_some(path)
}

fn rustup(words: &[&str]) -> Result<()> {
    if find_program("rustup").is_none() {
        return Err(Error::new(format!("there is no rustup to run `rustup {}`", words.join(" "))).cure(
            "install Rust by rustup (https://rustup.rs), or this part of it by your distribution's means",
        ));
    }
    run(Command::new("rustup").args(words).current_dir(place::root()))
}

fn install_qemu() -> Result<()> {
    let install = || {
        let quietly = ["env", "DEBIAN_FRONTEND=noninteractive"];
        let install = ["apt-get", "install", "--yes", "--no-install-recommends", QEMU_PACKAGE];
        run(&mut as_root(&[&quietly[..], &install].concat())?)
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
    debian::unpack(&place::target().join("busybox"), || Ok(vec!["busybox-static".to_owned()]))
}

fn unpack_kernel(kernel: Kernel) -> Result<()> {
    // The cloud packages hold nothing themselves: each depends on the newest build.
    let prefix = format!("linux-image-{}.", kernel.version());
    let newest = |package: &&str| {
        let output = Command::new("apt-cache").args(["depends", package]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let named = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        named.map(str::to_owned).find(|name| name.starts_with(&prefix))
    };
    debian::unpack(&kernel.folder(), || {
        let candidates = kernel.packages();
        candidates.iter().find_map(newest).map(|package| vec![package]).ok_or_else(|| {
            Error::new(format!("apt knows no package for {}", candidates.join(" or "))).cure(
                "the kernels are in Debian 12 (bookworm and bookworm-security): add them to apt's sources",
            )
        })
    })
}
