//! `adopt`: a process that runs already becomes the service of a unit for this boot.
//!
//! What can be seen from here is refused here, in a sentence; the rest by lifeboat, which looks again.

use crate::cli::{Adopt, Context, Units};
use crate::client::{CallError, Client};
use crate::exit::{Exit, Failure};
use crate::run::{failed, found, introduce, take_away};
use crate::{control, status};
use lifeboat::engine::snapshot::{Snapshot, Trouble};
use lifeboat::sys::process::Facts;
use lifeboat::view::cure;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;

pub(crate) fn adopt(context: &Context, wish: &Adopt) -> Result<Exit, Failure> {
    let name = wish.name.clone().unwrap_or_else(|| format!("adopt-{}", wish.pid));
    let now = snapshot(context)?;
    let process = adoptable(wish.pid, &now)?;
    let added = introduce(context, &name, &text_of(wish, process)?)?;
    if added != Exit::Ok {
        return Ok(added);
    }
    let units = Units { names: vec![name.clone()], timeout: wish.timeout };
    let started = control::start(context, &units)?;
    if started == Exit::Ok {
        return Ok(started);
    }
    let unit = snapshot(context)?.units.into_iter().find(|unit| unit.name == name);
    if !take_away(context, &name) {
        let words =
            format!("process {} is not under guard yet, but may still be: the unit {name} stays", wish.pid);
        let cure =
            format!("look with `lifeboatctl status {name}`; `lifeboatctl stop {name}` would end the process");
        return Err(failed(format!("{words}; {cure}")));
    }
    match unit.and_then(|unit| unit.trouble) {
        Some(Trouble::SpawnFailed { stage, errno, .. }) => {
            let cure = cure::of_start(stage, errno);
            Err(failed(format!("process {} is not under guard: {cure}", wish.pid)))
        }
        _ => Ok(started),
    }
}

fn snapshot(context: &Context) -> Result<Snapshot, Failure> {
    let mut client = Client::connect(&context.socket()).map_err(CallError::into_failure)?;
    status::snapshot(&mut client).map_err(CallError::into_failure)
}

/// The process, where nothing speaks against it.
fn adoptable(pid: u32, now: &Snapshot) -> Result<Facts, Failure> {
    let told = |words: &str| Err(failed(format!("process {pid} cannot be put under guard: {words}")));
    let Some(process) = Facts::of(pid) else {
        return told("/proc has none of this number; look with `ps`, and adopt what runs");
    };
    if process.over {
        return told("it has ended, and only waits for its parent; look with `ps`, and adopt what runs");
    }
    if pid == 1 {
        return told("it is the init process, without which the machine ends; adopt the one that grows");
    }
    if process.kernel {
        return told("it is a thread of the kernel, without memory of its own; adopt a program's process");
    }
    if pid == now.system.pid {
        return told("it is lifeboat itself, which bounds its own memory; adopt the one that grows");
    }
    if let Some(unit) = now.units.iter().find(|unit| unit.pid == Some(pid)) {
        let name = &unit.name;
        let cure = if unit.memory.is_some() {
            format!("bound that by `lifeboatctl limit {name} memory.max=SIZE`")
        } else {
            "give that unit `memory: (max: \"SIZE\")` in its file, and `lifeboatctl update`".to_owned()
        };
        return told(&format!("it is the service of the unit {name}; {cure}"));
    }
    Ok(process)
}

/// The unit's file.
fn text_of(wish: &Adopt, process: Facts) -> Result<String, Failure> {
    let mut words: Vec<String> = wish.procedure.split_whitespace().map(str::to_owned).collect();
    let Some(program) = words.first_mut() else {
        return Err(Failure { message: "the procedure has no program".into(), exit: Exit::Usage });
    };
    *program = found(program)?;
    let mode =
        std::fs::metadata(&*program).map(|file| if file.is_file() { file.permissions().mode() } else { 0 });
    if mode.map_err(|error| failed(format!("the procedure {program}: {error}; write where it is")))? & 0o111
        == 0
    {
        return Err(failed(format!("the procedure {program} is not executable; chmod +x, or name another")));
    }
    let Facts { pid, started, .. } = process;
    let mut text = format!("(\n    adopt: (pid: {pid}, started: {started}),\n    autostart: false,\n");
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let comm: String = comm.chars().filter(|letter| !letter.is_control()).collect();
    let _ = writeln!(text, "    description: {:?},", format!("process {pid}, {comm}"));
    let folder = std::env::current_dir().ok().and_then(|folder| folder.to_str().map(str::to_owned));
    let _ = writeln!(text, "    working_directory: {:?},", folder.unwrap_or_else(|| "/".into()));
    // Without a bound there is no exhaustion; what it holds is saved when it is stopped.
    let on = match &wish.memory_max {
        Some(max) => {
            let _ = writeln!(text, "    memory: (max: {max:?}),");
            "Exhaustion"
        }
        None => "Stop",
    };
    let _ = write!(text, "    shutdown: (procedure: {words:?}, on: [{on}], deadline: {:?}", wish.deadline);
    let _ = writeln!(text, ", memory: {:?}),\n)", wish.procedure_memory);
    Ok(text)
}
