//! What may wait for a disk is done aside: by lifeboat's own program in another part, with a deadline.
//!
//! Reading unit files (`--look`): the child reads everything that lifeboat is about to read and throws it away. Only
//! when it is through does lifeboat read, and finds all of it in the page cache. A disk that is dead, or slow, holds up
//! the child, and the errand fails by its deadline.
//!
//! Writing what `enable` and `disable` say (`--store`): the child's exit code is errno(3).

use super::event_loop::{Lifeboat, NOBODY};
use super::parked::overhead_bytes;
use super::{Config, boot};
use crate::engine::event::{ClientId, Exit, Time};
use crate::engine::policy::UnitId;
use crate::sys::spawn::{Program, SpawnError, Start, start};
use crate::sys::{children, clock};
use crate::unit::{Unit, Wishes, enabled};
use crate::wire::reply::ErrorReply;
use std::collections::VecDeque;
use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a slow flash may need for a thousand files, and a person will wait for.
const ERRAND_MS: u64 = 30_000;

/// What comes after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Tell what would change.
    Reread,
    /// Change it, for these units; without names for all.
    Update { names: Vec<String> },
    /// Take one new unit.
    Add { name: String },
    /// Make an instance of a template, and start it.
    Instance { name: String },
    /// Let it hold from now on that this unit is started at boot, or not.
    Enable { unit: UnitId, autostart: bool },
}

/// An errand on its way.
#[derive(Debug)]
struct Errand {
    pid: u32,
    client: ClientId,
    job: Job,
    until: Time,
}

/// All errands: one at a time.
#[derive(Debug, Default)]
pub(super) struct Errands {
    present: Option<Errand>,
    waiting: VecDeque<(ClientId, Job)>,
}

/// More than a person asks for at once; each may take `ERRAND_MS`.
const WAITING_MAX: usize = 32;

impl Lifeboat {
    /// Sends somebody when nobody else is on the way any more; the answer goes to the client later.
    pub(super) fn send_for(&mut self, client: ClientId, job: Job) {
        if self.engine.is_shutting_down() {
            return self.control.refuse(client, &ErrorReply::ShuttingDown {});
        }
        if self.errands.waiting.len() >= WAITING_MAX {
            return self.control.refuse(client, &ErrorReply::Busy {});
        }
        self.control.expect_outcome(client);
        self.errands.waiting.push_back((client, job));
        self.next_errand();
    }

    fn next_errand(&mut self) {
        while self.errands.present.is_none()
            && let Some((client, job)) = self.errands.waiting.pop_front()
        {
            if self.engine.is_shutting_down() {
                self.control.refuse(client, &ErrorReply::ShuttingDown {});
                self.answered(client);
                continue;
            }
            match self.start_errand(&job) {
                Ok(pid) => {
                    let until = clock::now().plus_ms(ERRAND_MS);
                    self.errands.present = Some(Errand { pid, client, job, until });
                }
                Err(error) => {
                    let errno = error.errno();
                    let reason = format!("no process can be made to read the disk: {error} (errno {errno})");
                    self.control.refuse(client, &ErrorReply::NotDone { reason });
                    self.answered(client);
                }
            }
        }
    }

    fn start_errand(&self, job: &Job) -> Result<u32, SpawnError> {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        let mut argv = vec![c"/proc/self/exe".to_owned()];
        if let Job::Enable { unit, autostart } = job {
            let name = self.names.get(usize::from(unit.0)).map_or("", String::as_str);
            argv.extend([c"--store".to_owned(), text(self.config.state_folder())]);
            argv.push(CString::new(name).unwrap_or_default());
            argv.push(if *autostart { c"yes" } else { c"no" }.to_owned());
        } else {
            argv.extend([c"--look".to_owned(), text(self.config.state_folder())]);
            argv.extend(self.config.unit_folders.iter().map(|folder| text(folder)));
        }
        let program = Program::new(&argv, &[])?;
        let child = start(&Start {
            program: &program,
            cgroup: None,
            oom_score_adj: 0,
            stdio: [self.null.as_fd(), self.null.as_fd(), self.output.as_fd()],
            steps: &[],
            working_directory: Some(c"/"),
            handed: &[],
        })?;
        Ok(child.pid)
    }

    /// When to call `errand_due`.
    pub(super) fn errand_until(&self) -> Option<Time> {
        self.errands.present.as_ref().map(|errand| errand.until)
    }

    /// Gives an errand up whose time is over. Its process may be past killing: its end is reaped whenever it comes.
    pub(super) fn errand_due(&mut self) {
        if self.errands.present.as_ref().is_some_and(|errand| errand.until <= clock::now())
            && let Some(errand) = self.errands.present.take()
        {
            let _ = children::signal(errand.pid, libc::SIGKILL);
            let seconds = ERRAND_MS / 1_000;
            let reason = match errand.job {
                Job::Enable { .. } => {
                    format!("nothing could be written within {seconds} s: is the disk dead?")
                }
                Job::Reread | Job::Update { .. } | Job::Add { .. } | Job::Instance { .. } => {
                    format!("the unit files could not be read within {seconds} s: is the disk dead?")
                }
            };
            log::error!("{reason}");
            self.control.refuse(errand.client, &ErrorReply::NotDone { reason });
            self.answered(errand.client);
            self.next_errand();
        }
    }

    /// A child has died: true where it was on an errand.
    pub(super) fn errand_ended(&mut self, pid: u32, exit: Exit) -> bool {
        let Some(errand) = self.errands.present.take_if(|errand| errand.pid == pid) else { return false };
        let client = errand.client;
        let mut waits = false;
        match (errand.job, exit) {
            (Job::Enable { unit, autostart }, Exit::Code(0)) => self.enabled(client, unit, autostart),
            (Job::Enable { unit, autostart }, Exit::Code(errno)) => {
                self.not_stored(client, unit, autostart, errno);
            }
            (Job::Reread, Exit::Code(0)) => self.reread(client),
            (Job::Update { names }, Exit::Code(0)) => self.update(client, &names),
            (Job::Add { name }, Exit::Code(0)) => self.add(client, name),
            // Its answer comes when it is up, or is not.
            (Job::Instance { name }, Exit::Code(0)) => waits = self.start_instance(client, name),
            (_, exit) => {
                let reason = format!("the process that reads the disk ended with {exit:?}");
                log::error!("{reason}");
                self.control.refuse(client, &ErrorReply::NotDone { reason });
            }
        }
        if !waits {
            self.answered(client);
        }
        self.next_errand();
        true
    }

    /// A signal asks for an update. One that comes while files are read already has its turn after that; it is never
    /// refused, and one that waits stands for all.
    pub(super) fn update_all(&mut self) {
        let update = (NOBODY, Job::Update { names: Vec::new() });
        if !self.engine.is_shutting_down() && !self.errands.waiting.contains(&update) {
            self.errands.waiting.push_back(update);
            self.next_errand();
        }
    }
}

/// The child's side: reads all that lifeboat will read.
pub fn look(state_folder: PathBuf, unit_folders: Vec<PathBuf>) {
    let config = Config { state_folder: Some(state_folder), unit_folders, ..Config::default() };
    let loaded = boot::load_units(&config, &Wishes::default());
    let units: Vec<&Unit> = loaded.units.iter().collect();
    let _ = overhead_bytes(&units);
}

/// The child's side: writes what was said. Gives errno(3), 0 where it is written.
#[must_use]
pub fn store(state_folder: PathBuf, name: OsString, autostart: bool) -> u8 {
    let stored = name.to_str().map(|name| enabled::store(&state_folder, name, autostart));
    let errno = match stored {
        Some(Ok(())) => 0,
        Some(Err(error)) => error.raw_os_error().unwrap_or(libc::EIO),
        None => libc::EINVAL,
    };
    u8::try_from(errno).unwrap_or(u8::MAX)
}
