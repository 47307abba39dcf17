//! Where a unit's fields are written, so that what fails at a start can be told with file and line.

use super::Unit;
use super::diagnostic::plain;
use super::raw::RawUnit;
use crate::engine::event::{CommandKind, SpawnStage};
use crate::engine::setting::Setting;
use std::ffi::{CStr, CString};
use std::fmt;
use std::path::{Path, PathBuf};

/// The file of a unit, and the lines of the fields that it has.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    file: PathBuf,
    /// The number of the field in `field_names()`, and its line. A thousand units are kept so.
    lines: Box<[(u8, u16)]>,
}

/// Where something is written is no part of what it says: an update sees no difference in it.
impl PartialEq for Origin {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Origin {}

impl Origin {
    /// Of the fields of a unit, each with its line.
    pub(super) fn new(file: &Path, fields: impl Iterator<Item = (&'static str, usize)>) -> Self {
        let number = |field: &str| RawUnit::FIELDS.iter().position(|known| *known == field);
        let lines = fields.filter_map(|(field, line)| {
            Some((u8::try_from(number(field)?).ok()?, u16::try_from(line).ok()?))
        });
        Self { file: file.to_owned(), lines: lines.collect() }
    }

    fn line_of(&self, field: &str) -> Option<u16> {
        let is_it =
            |number: u8| RawUnit::FIELDS.get(usize::from(number)).is_some_and(|known| *known == field);
        self.lines.iter().find(|(number, _)| is_it(*number)).map(|(_, line)| *line)
    }

    /// `FILE:LINE: FIELD`; without the line where the field has none of its own.
    #[must_use]
    pub fn of_field(&self, field: &'static str) -> FieldPlace<'_> {
        FieldPlace { origin: self, field }
    }
}

/// A field with its place, to be shown.
#[derive(Clone, Copy, Debug)]
pub struct FieldPlace<'a> {
    origin: &'a Origin,
    field: &'static str,
}

impl fmt::Display for FieldPlace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", plain(&self.origin.file.to_string_lossy()))?;
        if let Some(line) = self.origin.line_of(self.field) {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.field)
    }
}

/// What could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstarted {
    /// The service.
    Service,
    /// Its shutdown procedure.
    Procedure,
    /// The second one.
    Otherwise,
    /// What runs beside the service.
    Command(CommandKind),
    /// A canary's ballast.
    Ballast,
}

/// The field that a stage of a start comes from; `None` for what lifeboat does by itself.
fn field_of(stage: SpawnStage, what: Unstarted) -> Option<&'static str> {
    Some(match stage {
        SpawnStage::Exec => match what {
            Unstarted::Service => "command",
            Unstarted::Procedure | Unstarted::Otherwise => "shutdown",
            Unstarted::Command(CommandKind::Stop) => "stop",
            Unstarted::Command(CommandKind::Reload) => "reload",
            Unstarted::Command(CommandKind::Health) => "health",
            Unstarted::Command(CommandKind::Warn) => "memory",
            Unstarted::Ballast => return None,
        },
        SpawnStage::WorkingDirectory => "working_directory",
        SpawnStage::ResourceLimit => "rlimits",
        SpawnStage::Nice => "nice",
        SpawnStage::Scheduler => "scheduler",
        SpawnStage::CpuAffinity => "cpus",
        SpawnStage::IoPriority => "io_priority",
        SpawnStage::MountNamespace => "private_mounts",
        SpawnStage::RootDirectory => "root_directory",
        SpawnStage::ReadOnly => "read_only",
        SpawnStage::Hidden => "hidden",
        SpawnStage::PrivateTmp => "private_tmp",
        SpawnStage::PrivateShm => "private_shm",
        SpawnStage::Groups => "groups",
        SpawnStage::Group => "group",
        SpawnStage::User => "user",
        SpawnStage::Capabilities => "capabilities",
        SpawnStage::NoNewPrivs => "no_new_privs",
        SpawnStage::Cgroup
        | SpawnStage::Limit
        | SpawnStage::Clone
        | SpawnStage::JoinCgroup
        | SpawnStage::OomScoreAdj
        | SpawnStage::Stdio => return None,
        // Told by itself, with the place of the one that could not be opened.
        SpawnStage::Sockets => return None,
    })
}

impl Unit {
    /// Where the cause of a failed start is written, with the path that it names.
    #[must_use]
    pub fn blamed(&self, stage: SpawnStage, what: Unstarted) -> Option<(FieldPlace<'_>, Option<&CStr>)> {
        let words: &[CString] = match what {
            Unstarted::Service => &self.command,
            Unstarted::Procedure => &self.procedure,
            Unstarted::Otherwise => &self.otherwise,
            Unstarted::Command(kind) => self.command_of(kind),
            Unstarted::Ballast => &[],
        };
        let path = match stage {
            SpawnStage::Exec => words.first().map(|word| &**word),
            SpawnStage::WorkingDirectory => self.working_directory.as_deref(),
            _ => None,
        };
        let field = match stage {
            // Of a process that lifeboat makes it is nobody's word.
            SpawnStage::JoinCgroup | SpawnStage::OomScoreAdj
                if what == Unstarted::Service && self.adopt.is_some() =>
            {
                "adopt"
            }
            _ => field_of(stage, what)?,
        };
        Some((self.origin.of_field(field), path))
    }

    /// Where a setting is written that the kernel did not take: `memory.high` stands in `memory`.
    #[must_use]
    pub fn set_at(&self, setting: Setting) -> FieldPlace<'_> {
        let name = setting.name();
        self.origin.of_field(name.split_once('.').map_or(name, |(field, _)| field))
    }
}
