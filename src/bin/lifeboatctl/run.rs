//! `run`: a command becomes a unit for this boot, with a bound of its memory and a shutdown procedure.
//!
//! Its file is in a folder beside the control socket, which lifeboat reads before all others.

use crate::cli::{Context, Run, Tail, Units};
use crate::client::{CallError, Client};
use crate::exit::{Exit, Failure};
use crate::{change, control, status, tail};
use lifeboat::engine::event::Exit as End;
use lifeboat::engine::snapshot::{StateName, UnitView};
use lifeboat::unit::{DESCRIPTION_CHARS_MAX, fault_of_new_name, is_instance};
use lifeboat::wire::reply::StatusReply;
use lifeboat::wire::request::{ChangeVerb, Request};
use rustix::fs::{Access, FlockOperation, access, flock};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

pub(crate) fn run(context: &Context, wish: &Run) -> Result<Exit, Failure> {
    let name = wish.name.clone().unwrap_or_else(|| format!("run-{}", std::process::id()));
    let added = introduce(context, &name, &text_of(wish)?)?;
    if added != Exit::Ok {
        return Ok(added);
    }
    let units = Units { names: vec![name.clone()], timeout: wish.timeout };
    let started = control::start(context, &units)?;
    if !wish.wait {
        return Ok(started);
    }
    let mut client = Client::connect(&context.socket()).map_err(CallError::into_failure)?;
    let end = until_down(&mut client, &name)?;
    let words = vec![name.clone()];
    tail::tail(context, &Tail { follow: false, words: words.clone() })?;
    status::status(context, &words, true)?;
    take_away(context, &name);
    Ok(end)
}

/// Has lifeboat take a unit of this boot in; nothing is left of one that cannot be.
pub(crate) fn introduce(context: &Context, name: &str, text: &str) -> Result<Exit, Failure> {
    if let Some(message) = fault_of_new_name(name) {
        return Err(Failure { message, exit: Exit::Usage });
    }
    refuse_known(context, name)?;
    let file = file_of(context, name);
    // What was typed is meant as it is, also where the name is an instance's.
    let text = if is_instance(name) { Cow::Owned(text.replace('%', "%%")) } else { Cow::Borrowed(text) };
    // Held until lifeboat has answered: so another lifeboatctl knows that this one is at work.
    let _held = write(context, name, &text)?;
    let added = change::take_in(context, name);
    if !matches!(added, Ok(Exit::Ok)) && !take_away(context, name) {
        // Nobody has started it: nothing runs that needs it.
        let _ = fs::remove_file(file);
    }
    added
}

fn refuse_known(context: &Context, name: &str) -> Result<(), Failure> {
    let mut client = Client::connect(&context.socket()).map_err(CallError::into_failure)?;
    let known = status::snapshot(&mut client).map_err(CallError::into_failure)?;
    if known.units.iter().any(|unit| unit.name == name) {
        let cure = "take another name with --name, or take it out by `lifeboatctl remove`";
        return Err(failed(format!("there is a unit {name} already; {cure}")));
    }
    Ok(())
}

/// Takes a unit of this boot out, with its file. False where the unit is still there: then its file stays too, as
/// without it the next update would end what runs.
pub(crate) fn take_away(context: &Context, name: &str) -> bool {
    let is_out = change::take_out(context, name);
    if is_out {
        let _ = fs::remove_file(file_of(context, name));
    }
    is_out
}

fn file_of(context: &Context, name: &str) -> PathBuf {
    let socket = std::path::absolute(context.socket()).unwrap_or_else(|_| context.socket());
    socket.with_extension("units").join(format!("{name}.ron"))
}

pub(crate) fn failed(message: String) -> Failure {
    Failure { message, exit: Exit::Failed }
}

/// The unit's file: RON has Rust's strings.
fn text_of(wish: &Run) -> Result<String, Failure> {
    let [program, arguments @ ..] = wish.command.as_slice() else {
        return Err(Failure { message: "a command is missing".into(), exit: Exit::Usage });
    };
    let mut command = vec![found(program)?];
    command.extend(arguments.iter().cloned());
    let mut text = String::from("(\n");
    let _ = writeln!(text, "    description: {:?},", described(&wish.command));
    let _ = writeln!(text, "    command: {command:?},");
    // It is started once, by this verb.
    text.push_str("    autostart: false,\n");
    let folder = std::env::current_dir().ok().and_then(|folder| folder.to_str().map(str::to_owned));
    let _ = writeln!(text, "    working_directory: {:?},", folder.unwrap_or_else(|| "/".into()));
    if let Some(user) = &wish.user {
        let _ = writeln!(text, "    user: {user:?},");
    }
    if let Some(max) = &wish.memory_max {
        let _ = writeln!(text, "    memory: (max: {max:?}),");
    }
    if let Some(procedure) = &wish.procedure {
        let mut words: Vec<String> = procedure.split_whitespace().map(str::to_owned).collect();
        if let Some(program) = words.first_mut() {
            *program = found(program)?;
        }
        let _ = write!(text, "    shutdown: (procedure: {words:?}, deadline: {:?}", wish.deadline);
        let _ = writeln!(text, ", memory: {:?}, then: Stop),", wish.procedure_memory);
    }
    text.push_str("    restart: (policy: Never),\n");
    for field in &wish.set {
        let _ = writeln!(text, "    {},", field.trim_end_matches(','));
    }
    text.push_str(")\n");
    Ok(text)
}

/// A command as a description may be: one line, and not too long.
fn described(command: &[String]) -> String {
    let line = command.join(" ").replace(char::is_control, " ");
    match line.char_indices().nth(DESCRIPTION_CHARS_MAX) {
        Some(_) => line.chars().take(DESCRIPTION_CHARS_MAX - 3).collect::<String>() + "...",
        None => line,
    }
}

/// The program as a shell would find it.
pub(crate) fn found(program: &str) -> Result<String, Failure> {
    let folders = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let can_run = |path: &PathBuf| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    let path = if program.contains('/') {
        std::path::absolute(program).ok()
    } else {
        // An empty word is the working folder.
        let paths = folders.split(':').map(|folder| Path::new(folder).join(program));
        paths.filter_map(|path| std::path::absolute(path).ok()).find(can_run)
    };
    let path = path.and_then(|path: PathBuf| path.to_str().map(str::to_owned));
    path.ok_or_else(|| failed(format!("{program} is in no folder of PATH; write its whole path")))
}

/// Whole or not at all, as lifeboat may be reading; and never in another's place, as each takes away what it has made.
fn write(context: &Context, name: &str, text: &str) -> Result<fs::File, Failure> {
    let file = &file_of(context, name);
    let told = |error: io::Error| {
        let cure = if error.kind() == ErrorKind::PermissionDenied { "; try as root" } else { "" };
        failed(format!("cannot write {}: {error}{cure}", file.display()))
    };
    let half = file.with_extension(format!("{}.new", std::process::id()));
    fs::create_dir_all(file.parent().unwrap_or(file)).map_err(told)?;
    let mut to = fs::File::create(&half).map_err(told)?;
    let placed = to.write_all(text.as_bytes()).map_err(told).and_then(|()| {
        flock(&to, FlockOperation::NonBlockingLockExclusive).map_err(|errno| told(errno.into()))?;
        match fs::hard_link(&half, file) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                clear(context, name)?;
                fs::hard_link(&half, file).map_err(told)
            }
            placed => placed.map_err(told),
        }
    });
    let _ = fs::remove_file(&half);
    placed.map(|()| to)
}

/// Removes the file of a lifeboatctl that was killed before lifeboat knew its unit: else its name would be taken for
/// ever.
fn clear(context: &Context, name: &str) -> Result<(), Failure> {
    let file = file_of(context, name);
    let taken = || {
        let cure = "take another name with --name, or try again when that has ended";
        failed(format!("{} is there already, made by another lifeboatctl; {cure}", file.display()))
    };
    let there = fs::File::open(&file).map_err(|_| taken())?;
    flock(&there, FlockOperation::NonBlockingLockExclusive).map_err(|_| taken())?;
    refuse_known(context, name)?;
    // Another may have cleared it, and made its own.
    match (fs::metadata(&file), there.metadata()) {
        (Ok(now), Ok(then)) if now.ino() == then.ino() => fs::remove_file(&file).map_err(|_| taken()),
        _ => Err(taken()),
    }
}

/// Waits until nothing of it runs or will run; how it ended, as a shell has it.
fn until_down(client: &mut Client, name: &str) -> Result<Exit, Failure> {
    client.ask(Request::Watch, true).map_err(CallError::into_failure)?;
    loop {
        let (reply, _): (StatusReply<'static>, bool) = client.hear(None).map_err(CallError::into_failure)?;
        let Some(unit) = reply.snapshot.units.iter().find(|unit| unit.name == name) else {
            return Ok(Exit::Failed);
        };
        if status::is_down(unit) {
            return Ok(end_of(unit));
        }
    }
}

fn end_of(unit: &UnitView) -> Exit {
    match unit.last_exit {
        _ if unit.state == StateName::Fatal => Exit::Failed,
        Some(End::Code(code)) => u8::try_from(code).map_or(Exit::Failed, Exit::Command),
        Some(End::Signal(signal)) => u8::try_from(128 + signal).map_or(Exit::Failed, Exit::Command),
        Some(End::Unseen {}) | None => Exit::Failed,
    }
}

/// Takes a transient unit's file away with it.
pub(crate) fn forget(context: &Context, name: &str, how: ChangeVerb) {
    if how == ChangeVerb::Remove && !name.contains('/') {
        let _ = fs::remove_file(context.socket().with_extension("units").join(format!("{name}.ron")));
    }
}
