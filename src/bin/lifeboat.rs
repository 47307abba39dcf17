//! lifeboat: PID 1 on an embedded image, or a supervisor below another init.

use lifeboat::runtime::{Config, boot, errand, incident_store, limiting, log_file};
use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

const HELP: &str = "\
lifeboat: a cgroup v2 supervisor and minimal init

As PID 1 it needs no arguments, and leaves the kernel's alone. Below another init:

usage: lifeboat [OPTIONS]
  --units FOLDER    take unit files from this folder; may be given several times, a later one overrides
                    (default: /usr/lib/lifeboat/units, then /etc/lifeboat/units)
  --system FILE     the machine's own file (default: /etc/lifeboat/system.ron)
  --state FOLDER    where enable and disable are kept (default: system.ron's, or /etc/lifeboat)
  --socket PATH     the control socket (default: /run/lifeboat/control.sock)
  --cgroup FOLDER   a cgroup that is lifeboat's own, to make the tree in (default: /sys/fs/cgroup)
  --degraded        supervise also where memory cannot be guarded
  --version, --help";

enum Wish {
    Run(Config),
    Print(String),
}

fn main() -> ExitCode {
    // PID 1 gets the kernel's left-over words as arguments. None of them may keep the machine from booting.
    if std::process::id() == 1 {
        boot::as_init(&Config::default());
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [first, path, max_bytes, keep, unit, written] = arguments.as_slice()
        && first == "--write-log"
        && let [Some(max_bytes), Some(keep)] = [max_bytes, keep].map(|word| word.to_str()?.parse().ok())
    {
        // lifeboat starts itself so, for a unit's log.
        let [unit, written] = [unit, written].map(|word| word.to_string_lossy().into_owned());
        let keep = u32::try_from(keep).unwrap_or(u32::MAX);
        log_file::write_log(path.into(), max_bytes, keep, log_file::Whose { unit, written });
        return ExitCode::SUCCESS;
    }
    match arguments.as_slice() {
        // So, for what may wait for a disk.
        [first, state, folders @ ..] if first == "--look" => {
            errand::look(state.into(), folders.iter().map(Into::into).collect());
            return ExitCode::SUCCESS;
        }
        [first, state, name, yes] if first == "--store" => {
            return ExitCode::from(errand::store(state.into(), name.clone(), yes == "yes"));
        }
        // And so, to change a limit of a unit that runs.
        [first, words @ ..] if first == "--set-limit" => {
            return ExitCode::from(limiting::set_limit_aside(words));
        }
        [first, words @ ..] if first == "--release-memory" => {
            return ExitCode::from(limiting::release_memory_aside(words));
        }
        // And so, to keep an incident.
        [first, words @ ..] if first == "--keep-incident" => {
            return ExitCode::from(incident_store::keep_incident(words));
        }
        _ => {}
    }
    match parse(arguments) {
        Ok(Wish::Print(text)) => {
            // A reader that has gone away is no error; there is nothing else to do about one.
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Ok(Wish::Run(config)) => match boot::as_supervisor(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Err(error) => {
            eprintln!("lifeboat: {error}\ntry: lifeboat --help");
            ExitCode::from(2)
        }
    }
}

fn fail(error: &dyn Error) -> ExitCode {
    eprint!("lifeboat: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    ExitCode::FAILURE
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Wish, lexopt::Error> {
    use lexopt::Arg::{Long, Short, Value};
    let mut config = Config::default();
    let mut own_folders = Vec::new();
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("units") => own_folders.push(parser.value()?.into()),
            Long("system") => config.system_file = parser.value()?.into(),
            Long("state") => config.state_folder = Some(parser.value()?.into()),
            Long("socket") => config.socket = parser.value()?.into(),
            Long("cgroup") => config.cgroup_root = parser.value()?.into(),
            Long("degraded") => config.degraded_is_fine = true,
            Long("version") | Short('V') => {
                return Ok(Wish::Print(format!("lifeboat {}", env!("CARGO_PKG_VERSION"))));
            }
            Long("help") | Short('h') => return Ok(Wish::Print(HELP.into())),
            Long(_) | Short(_) | Value(_) => return Err(argument.unexpected()),
        }
    }
    if !own_folders.is_empty() {
        config.unit_folders = own_folders;
    }
    Ok(Wish::Run(config))
}
