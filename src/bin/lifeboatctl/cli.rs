//! The command line. docs/lifeboatctl.md says the same in more words.

use crate::exit::{Exit, Failure};
use crate::output;
use clap::{Args, Parser, Subcommand};
use lifeboat::engine::event::{Below, ShutdownKind};
use lifeboat::engine::setting::Limit;
use lifeboat::unit::parse_limit;
use std::path::PathBuf;
use std::time::Duration;

/// Where lifeboat listens unless told otherwise.
const SOCKET: &str = "/run/lifeboat/control.sock";

/// Watches over services and their memory: ask lifeboat, or tell it what to do.
#[derive(Parser)]
#[command(name = "lifeboatctl", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) context: Context,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What all verbs share.
#[derive(Args)]
pub(crate) struct Context {
    /// The control socket [default: $LIFEBOAT_SOCKET, or /run/lifeboat/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON, one value a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Context {
    /// The option, else the environment, else the usual place.
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(default_socket)
    }
}

/// `$LIFEBOAT_SOCKET`, else the usual place.
pub(crate) fn default_socket() -> PathBuf {
    match std::env::var_os("LIFEBOAT_SOCKET") {
        Some(path) if !path.is_empty() => path.into(),
        _ => SOCKET.into(),
    }
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Show units, a line each; exit code 3 when one of them is STOPPED, EXITED or FATAL
    Status {
        /// Only these; without names all of them
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Exit with 0 although a unit is not up
        #[arg(long)]
        no_fail: bool,
    },
    /// Start units with what they require, and wait until they are up
    Start(Units),
    /// Stop units with what requires them, and wait until they are down
    Stop(Units),
    /// Stop and start units
    Restart(Units),
    /// Have units read their configuration anew, and wait until they have
    Reload(Units),
    /// Take a unit to its shutdown procedure and back, and tell what the procedure needs
    Drill(Drill),
    /// Tell what happened to a unit: its last trouble and its exhaustions of memory
    Why {
        /// The unit
        #[arg(value_name = "NAME")]
        name: String,
        /// All incidents on record, not only the last
        #[arg(long)]
        all: bool,
    },
    /// Show the exhaustions of memory of this boot and of earlier ones
    Incidents(Incidents),
    /// Decide a kept incident again, turn by turn: exit code 0 where all is the same, 1 where it differs, 2 where the
    /// file has nothing to replay
    Replay {
        /// Its file, of any machine
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show the end of what a unit has said: 1600 bytes, or as many as -BYTES says
    Tail(Tail),
    /// Read the unit files, and tell what an update would change
    Reread,
    /// Take in what has changed in the unit files: start what is new, stop what is gone, restart what has changed
    Update(UpdateUnits),
    /// Take new units in from their files
    Add(Change),
    /// Take units out that are at rest, until the next update or boot
    Remove(Change),
    /// Start units at boot from now on
    Enable(Enable),
    /// Start units at boot no more
    Disable(Enable),
    /// Change limits of a unit that runs, without a kill: memory.max, memory.high, cpu.max, cpu.weight, pids.max,
    /// io.weight
    Limit(NewLimits),
    /// Run a command as a unit of this boot, with a bound of its memory and a shutdown procedure
    Run(Run),
    /// Put a process that runs already under guard, with a bound of its memory and a shutdown procedure
    ///
    /// What it has allocated so far stays charged to its old cgroup: the bound counts what it allocates from now on.
    Adopt(Adopt),
    /// Stop everything and end the machine
    Shutdown(How),
    /// Show units, then each change as it happens
    Watch,
    /// Show the version of the lifeboat that runs
    Version,
}

#[derive(Args)]
pub(crate) struct Units {
    /// Units, or "all"
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    /// How long to wait for each answer: seconds, or a time such as "2m"
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = time)]
    pub(crate) timeout: Duration,
}

/// Which units to update.
#[derive(Args)]
pub(crate) struct UpdateUnits {
    /// Only these; without names, or with "all", all of them
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// How long to wait for those that stop: seconds, or a time such as "2m"
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = time)]
    pub(crate) timeout: Duration,
}

#[derive(Args)]
pub(crate) struct Change {
    /// Units
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Enable {
    /// Units
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
    /// Start or stop them now, too
    #[arg(long)]
    pub(crate) now: bool,
    /// How long to wait for units that start or stop now: seconds, or a time such as "2m"
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = time)]
    pub(crate) timeout: Duration,
}

/// Which limits.
#[derive(Args)]
pub(crate) struct NewLimits {
    /// The unit
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// New limits, as "memory.max=16MiB" or "cpu.max=50%"; "max" is none. They are changed one after the other, up to
    /// the first that is refused
    #[arg(value_name = "LIMIT=VALUE", required = true, value_parser = parse_limit)]
    pub(crate) limits: Vec<Limit>,
    /// Where the unit uses more than memory.max after a reclaim: leave the old limit, or run its shutdown procedure
    #[arg(long, value_name = "WAY", default_value = "refuse", value_parser = below)]
    pub(crate) below: Below,
}

fn below(text: &str) -> Result<Below, String> {
    match text {
        "refuse" => Ok(Below::Refuse),
        "rescue" => Ok(Below::Rescue),
        _ => Err("refuse or rescue is needed".into()),
    }
}

/// A command that becomes a unit.
#[derive(Args)]
pub(crate) struct Run {
    /// The unit's name [default: run- and a number]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Its memory.max, as "32MiB"
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_max: Option<String>,
    /// Its shutdown procedure, a program and its words, which no shell reads; it needs --memory-max
    #[arg(long, value_name = "COMMAND", requires = "memory_max")]
    pub(crate) procedure: Option<String>,
    /// The procedure's deadline
    #[arg(long, value_name = "TIME", default_value = "2s", requires = "procedure")]
    pub(crate) deadline: String,
    /// The procedure's memory
    #[arg(long, value_name = "SIZE", default_value = "4MiB", requires = "procedure")]
    pub(crate) procedure_memory: String,
    /// Its user
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// A further field of its unit file, as "pids: (max: 20)"; may be given several times
    #[arg(long, value_name = "FIELD")]
    pub(crate) set: Vec<String>,
    /// Wait until it has ended, show what it said last, and exit as it did
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait until it is up: seconds, or a time such as "2m"
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = time)]
    pub(crate) timeout: Duration,
    /// The program and its arguments, after --
    #[arg(value_name = "COMMAND", required = true, last = true)]
    pub(crate) command: Vec<String>,
}

/// Which drill.
#[derive(Args)]
pub(crate) struct Drill {
    /// The unit
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The whole way: then the service is killed, as in an exhaustion, and started anew
    #[arg(long)]
    pub(crate) to_the_end: bool,
    /// How long to wait until it is over: seconds, or a time such as "2m"
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = time)]
    pub(crate) timeout: Duration,
}

/// A process that becomes the service of a unit.
#[derive(Args)]
pub(crate) struct Adopt {
    /// The process; its threads and all processes that descend from it come along
    #[arg(value_name = "PID")]
    pub(crate) pid: u32,
    /// Its shutdown procedure, a program and its words, which no shell reads
    #[arg(long, value_name = "COMMAND")]
    pub(crate) procedure: String,
    /// Its memory.max, as "32MiB"; without it the procedure runs when the unit is stopped
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_max: Option<String>,
    /// The unit's name [default: adopt- and the number of the process]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The procedure's deadline
    #[arg(long, value_name = "TIME", default_value = "2s")]
    pub(crate) deadline: String,
    /// The procedure's memory
    #[arg(long, value_name = "SIZE", default_value = "4MiB")]
    pub(crate) procedure_memory: String,
    /// How long to wait until it is under guard: seconds, or a time such as "2m"
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = time)]
    pub(crate) timeout: Duration,
}

/// Which incidents.
#[derive(Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Incidents {
    #[command(subcommand)]
    pub(crate) verb: Option<IncidentsVerb>,
    /// Only what is kept in this folder; lifeboat is not asked, and need not run
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}

#[derive(Clone, Copy, Subcommand)]
pub(crate) enum IncidentsVerb {
    /// Show one in full
    Show {
        /// Its number
        #[arg(value_name = "NUMBER")]
        number: u32,
    },
}

/// What of a unit's words.
#[derive(Args)]
pub(crate) struct Tail {
    /// Go on with what it says from now on
    #[arg(short = 'f')]
    pub(crate) follow: bool,
    /// How much, and of which unit. Both streams are kept as one, so "stdout" and "stderr" show the same
    #[arg(value_name = "[-BYTES] NAME [stdout|stderr]", required = true, allow_negative_numbers = true)]
    pub(crate) words: Vec<String>,
}

/// How the machine is to end.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct How {
    /// Switch the power off (this is the default)
    #[arg(long)]
    poweroff: bool,
    /// Reboot
    #[arg(long)]
    reboot: bool,
    /// Halt, and leave the power on
    #[arg(long)]
    halt: bool,
}

impl How {
    pub(crate) fn kind(&self) -> ShutdownKind {
        match (self.reboot, self.halt) {
            (true, _) => ShutdownKind::Reboot,
            (false, true) => ShutdownKind::Halt,
            (false, false) => ShutdownKind::PowerOff,
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let time = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write seconds, or a time such as \"2m\""))?,
    };
    // A deadline has to fit into the kernel's and the library's clocks.
    let longest = Duration::from_secs(365 * 86_400);
    if time.is_zero() || time > longest {
        return Err("a time between 1 ms and a year is needed".into());
    }
    Ok(time)
}

/// Reads the command line.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    Cli::try_parse()
}

/// Help and version go to standard output with exit code 0, mistakes to standard error with 2.
pub(crate) fn explain(usage: &clap::Error) -> Result<Exit, Failure> {
    let text = usage.render().to_string();
    if usage.use_stderr() {
        let message = text.trim_end().trim_start_matches("error: ").to_owned();
        return Err(Failure { message, exit: Exit::Usage });
    }
    output::finish(&text, Exit::Ok)
}
