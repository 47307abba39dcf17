//! Packs initramfs archives: the overlay, the units, our programs and BusyBox.
//!
//! `demo.cpio` is what `cargo xtask demo` boots; `test.cpio` has the units and the driver of the tests instead;
//! `small.cpio` holds a few units for a machine with little memory; `real.cpio` runs programs of others; `bench.cpio`
//! holds the services of the benchmarks; the `boot50` pair starts the same fifty trivial services under
//! lifeboat and under BusyBox init.

use crate::bench_units;
use crate::cpio::Archive;
use crate::error::{AtPath, Error, Result};
use crate::place;
use crate::programs;
use crate::real;
use crate::setup::Kit;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where units live in the image.
const UNITS: &str = "etc/lifeboat/units";
/// The unit of the tests that runs the driver.
const DRIVER_UNIT: &str = "driver.ron";
/// The unit that must not notice what happens to others.
const BYSTANDER_UNIT: &str = "bystander.ron";
/// Nobody types a password there: it says what it finds, and ends the machine.
const SULOGIN: &str = "#!/bin/sh
running=$(/usr/bin/lifeboatctl status | grep -c RUNNING)
echo \"sulogin on $1 beside units that run: $running\"
/bin/busybox poweroff
";
/// The length of the unit that is too long.
const BAD_UNIT_BYTES: usize = 10 * 1024 * 1024;
/// How many trivial services the `boot50` images start.
pub const TRIVIAL_SERVICES: u32 = 50;
/// How many services of each kind the `restart` image has, as in `tests/vm/guest/cases/restart.rs`.
const PHOENIXES: u32 = 60;

/// An archive that a guest boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// The demo: `units/`.
    Demo,
    /// The tests: `tests/vm/units/`, `tests/vm/units-bad/` and the driver.
    Test,
    /// A few units for a small machine, `tests/vm/units-small/`, and the driver.
    Small,
    /// Units that run other people's programs, `tests/vm/units-real/`, with their files, `tests/vm/overlay-real/`.
    Real,
    /// Services to be killed, and runit to compare.
    Restart,
    /// Services that are exhausted, or only read, while somebody measures.
    Bench,
    /// A thousand trivial units, each in its own limited cgroup.
    Units1000,
    /// Fifty trivial units, each in its own limited cgroup, and the driver.
    Boot50Lifeboat,
    /// The same fifty services and the driver under BusyBox init.
    Boot50Busybox,
}

impl Image {
    /// All images.
    pub const ALL: [Self; 9] = [
        Self::Demo,
        Self::Test,
        Self::Small,
        Self::Real,
        Self::Restart,
        Self::Bench,
        Self::Units1000,
        Self::Boot50Lifeboat,
        Self::Boot50Busybox,
    ];

    /// The archive's file.
    #[must_use]
    pub fn path(self) -> PathBuf {
        let name = match self {
            Self::Demo => "demo.cpio",
            Self::Test => "test.cpio",
            Self::Small => "small.cpio",
            Self::Real => "real.cpio",
            Self::Restart => "restart.cpio",
            Self::Bench => "bench.cpio",
            Self::Units1000 => "units1000.cpio",
            Self::Boot50Lifeboat => "boot50-lifeboat.cpio",
            Self::Boot50Busybox => "boot50-busybox.cpio",
        };
        place::target().join("vm").join(name)
    }
}

/// Builds the programs and writes these archives; gives nothing but the files.
///
/// # Errors
/// When a build fails, or a file cannot be read or written.
pub fn make(kit: &Kit, images: &[Image]) -> Result<()> {
    programs::build_shipped()?;
    let mut examples = programs::EXAMPLES.to_vec();
    if images.iter().any(|image| *image != Image::Demo) {
        examples.push(programs::GUEST);
    }
    if images.contains(&Image::Bench) {
        examples.push(programs::PAPER);
    }
    programs::build_examples(&examples)?;
    place::vm_folder()?;
    let base = base(kit)?;
    for image in images {
        let mut archive = base.clone();
        match image {
            Image::Demo => add_tree(&mut archive, &place::root().join("units"), UNITS)?,
            Image::Test => add_tests(&mut archive)?,
            Image::Small => add_small(&mut archive)?,
            Image::Real => add_real(&mut archive)?,
            Image::Restart => add_restart(&mut archive)?,
            Image::Bench => add_bench(&mut archive)?,
            Image::Units1000 => add_thousand_units(&mut archive)?,
            Image::Boot50Lifeboat => add_fifty_units(&mut archive)?,
            Image::Boot50Busybox => add_fifty_lines(&mut archive)?,
        }
        let bytes = archive.bytes()?;
        let path = image.path();
        // Renamed when whole: a guest that another command boots never sees half an archive.
        let partial = path.with_extension("partial");
        std::fs::write(&partial, &bytes).at("write", &partial)?;
        std::fs::rename(&partial, &path).at("rename", &partial)?;
        println!("image: {} ({} KiB)", path.display(), bytes.len() / 1024);
    }
    Ok(())
}

/// What every image has.
fn base(kit: &Kit) -> Result<Archive> {
    let mut archive = Archive::default();
    add_busybox(&mut archive, &kit.busybox)?;
    add_tree(&mut archive, &place::root().join("rootfs-overlay"), "")?;
    archive.directory(UNITS);
    add_program(&mut archive, "sbin/lifeboat", &programs::shipped("lifeboat"))?;
    add_program(&mut archive, "usr/bin/lifeboatctl", &programs::shipped("lifeboatctl"))?;
    for name in programs::EXAMPLES {
        add_program(&mut archive, &format!("usr/bin/{name}"), &programs::example(name))?;
    }
    archive.link("init", "sbin/lifeboat");
    archive.link("sbin/init", "lifeboat");
    // PID 1 speaks before it mounts /dev, and a program that stands in front of it may never mount it.
    archive.character_device("dev/console", 0o600, (5, 1));
    archive.character_device("dev/null", 0o666, (1, 3));
    archive.character_device("dev/kmsg", 0o600, (1, 11));
    archive.character_device("dev/ttyS0", 0o600, (4, 64));
    archive.character_device("dev/ttyS1", 0o600, (4, 65));
    Ok(archive)
}

/// BusyBox and a link for each of its applets, at the places that it names itself.
fn add_busybox(archive: &mut Archive, busybox: &Path) -> Result<()> {
    add_program(archive, "bin/busybox", busybox)?;
    let output = Command::new(busybox)
        .arg("--list-full")
        .output()
        .map_err(|error| Error::new(format!("cannot run {}", busybox.display())).because(error))?;
    let list = String::from_utf8_lossy(&output.stdout).into_owned();
    for applet in list.lines().filter(|applet| *applet != "bin/busybox" && !applet.is_empty()) {
        archive.link(applet, "/bin/busybox");
    }
    for needed in ["bin/sh", "sbin/init", "sbin/reboot", "sbin/poweroff", "sbin/halt"] {
        if !archive.contains(needed) {
            return Err(Error::new(format!("{} has no {needed}", busybox.display()))
                .cure("remove that file and run `cargo xtask setup`"));
        }
    }
    Ok(())
}

fn add_tests(archive: &mut Archive) -> Result<()> {
    add_program(archive, "usr/bin/vm-guest", &programs::example(programs::GUEST))?;
    add_tree(archive, &test_units(), UNITS)?;
    add_tree(archive, &place::root().join("tests/vm/units-bad"), UNITS)?;
    let system = place::root().join("tests/vm/system.ron");
    archive.file("etc/lifeboat/system.ron", 0o644, std::fs::read(&system).at("read", &system)?);
    let rescue = place::root().join("units/rescue.ron");
    archive.file(&format!("{UNITS}/rescue.ron"), 0o644, std::fs::read(&rescue).at("read", &rescue)?);
    archive.file("sbin/sulogin", 0o755, SULOGIN.as_bytes().to_vec());
    // Too large for the repository, and too large for any unit.
    archive.file(&format!("{UNITS}/bad-long.ron"), 0o644, vec![b' '; BAD_UNIT_BYTES]);
    Ok(())
}

fn add_small(archive: &mut Archive) -> Result<()> {
    add_driver(archive)?;
    let system = place::root().join("tests/vm/system-small.ron");
    archive.file("etc/lifeboat/system.ron", 0o644, std::fs::read(&system).at("read", &system)?);
    add_tree(archive, &place::root().join("tests/vm/units-small"), UNITS)
}

fn add_real(archive: &mut Archive) -> Result<()> {
    add_driver(archive)?;
    add_unit(archive, BYSTANDER_UNIT)?;
    real::add_to(archive)?;
    add_tree(archive, &place::root().join("tests/vm/overlay-real"), "")?;
    add_tree(archive, &place::root().join("tests/vm/units-real"), UNITS)
}

/// The driver and its unit.
fn add_driver(archive: &mut Archive) -> Result<()> {
    add_program(archive, "usr/bin/vm-guest", &programs::example(programs::GUEST))?;
    add_unit(archive, DRIVER_UNIT)
}

/// One unit of the tests.
fn add_unit(archive: &mut Archive, name: &str) -> Result<()> {
    let unit = test_units().join(name);
    let content = std::fs::read(&unit).at("read", &unit)?;
    archive.file(&format!("{UNITS}/{name}"), 0o644, content);
    Ok(())
}

/// Three kinds of services, which differ in what a restart has to do.
fn add_restart(archive: &mut Archive) -> Result<()> {
    add_driver(archive)?;
    real::add_to(archive)?;
    let kinds = [
        ("plain", ""),
        ("bound", "memory: (max: \"2MiB\"), pids: (max: 16),"),
        (
            "saver",
            "memory: (max: \"2MiB\"), shutdown: (procedure: [\"/bin/busybox\", \"true\"], memory: \"1MiB\"),",
        ),
    ];
    for (kind, fields) in kinds {
        for number in 1..=PHOENIXES {
            let name = format!("{kind}-{number:02}");
            let unit = format!(
                "(\n    command: [\"/usr/bin/vm-guest\", \"phoenix\", \"{name}\"],\n    autostart: false,\n    {fields}\n)\n"
            );
            archive.file(&format!("{UNITS}/{name}.ron"), 0o644, unit.into_bytes());
        }
    }
    Ok(())
}

/// The units of the benchmarks, and no folder for incidents: nothing is to be written beside a measurement.
fn add_bench(archive: &mut Archive) -> Result<()> {
    add_driver(archive)?;
    add_program(archive, "usr/bin/paper", &programs::example(programs::PAPER))?;
    add_unit(archive, BYSTANDER_UNIT)?;
    archive.file("etc/lifeboat/system.ron", 0o644, b"(incidents: (keep: 0))\n".to_vec());
    for (name, text) in bench_units::all() {
        archive.file(&format!("{UNITS}/{name}.ron"), 0o644, text.into_bytes());
    }
    Ok(())
}

fn add_thousand_units(archive: &mut Archive) -> Result<()> {
    add_driver(archive)?;
    let unit = "(\n    command: [\"/usr/bin/vm-guest\", \"pause\"],\n    \
                memory: (max: \"2MiB\", guard: None),\n    output: Null,\n)\n";
    for number in 1..=1_000 {
        archive.file(&format!("{UNITS}/unit-{number:04}.ron"), 0o644, unit.as_bytes().to_vec());
    }
    Ok(())
}

fn add_fifty_units(archive: &mut Archive) -> Result<()> {
    add_driver(archive)?;
    for number in 1..=TRIVIAL_SERVICES {
        let unit = format!(
            "(\n    command: [\"/usr/bin/vm-guest\", \"trivial\", \"{number}\"],\n    \
             memory: (max: \"8MiB\", guard: None),\n)\n"
        );
        archive.file(&format!("{UNITS}/trivial-{number:02}.ron"), 0o644, unit.into_bytes());
    }
    Ok(())
}

fn add_fifty_lines(archive: &mut Archive) -> Result<()> {
    add_program(archive, "usr/bin/vm-guest", &programs::example(programs::GUEST))?;
    // The driver reads /proc, and that is all that it needs.
    let mut table = String::from("::sysinit:/bin/mount -t proc proc /proc\n");
    for number in 1..=TRIVIAL_SERVICES {
        table.push_str(&format!("::respawn:/usr/bin/vm-guest trivial {number}\n"));
    }
    table.push_str("::once:/usr/bin/vm-guest driver boot50\n");
    archive.file("etc/inittab", 0o644, table.into_bytes());
    archive.link("sbin/init", "/bin/busybox");
    Ok(())
}

fn test_units() -> PathBuf {
    place::root().join("tests/vm/units")
}

fn add_program(archive: &mut Archive, path: &str, from: &Path) -> Result<()> {
    let content = std::fs::read(from).at("read", from)?;
    archive.file(path, 0o755, content);
    Ok(())
}

/// Adds all that is below `from`, with symbolic links as they are. As in Buildroot's overlays, a file named `.empty`
/// only makes git keep its folder.
fn add_tree(archive: &mut Archive, from: &Path, to: &str) -> Result<()> {
    for file in std::fs::read_dir(from).at("read the folder", from)? {
        let file = file.at("read the folder", from)?;
        let name = file.file_name().to_string_lossy().into_owned();
        let (source, path) = (file.path(), format!("{to}/{name}"));
        let kind = file.file_type().at("look at", &source)?;
        if kind.is_symlink() {
            let target = std::fs::read_link(&source).at("read the link", &source)?;
            archive.link(&path, &target.to_string_lossy());
        } else if kind.is_dir() {
            archive.directory(&path);
            add_tree(archive, &source, &path)?;
        } else if name != ".empty" {
            let executable = file.metadata().at("look at", &source)?.permissions().mode() & 0o111 != 0;
            let content = std::fs::read(&source).at("read", &source)?;
            archive.file(&path, if executable { 0o755 } else { 0o644 }, content);
        }
    }
    Ok(())
}
