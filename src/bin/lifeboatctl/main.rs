//! `lifeboatctl`: everything that lifeboat offers to people, over its control socket.
//!
//! A file a verb group; `client` is the only one that touches the socket. Called by the name `reboot`, `poweroff`,
//! `halt`, `shutdown` or `telinit` it behaves as that program.

mod adopt;
mod applet;
mod change;
mod cli;
mod client;
mod control;
mod drill;
mod exit;
mod incidents;
mod limit;
mod output;
mod replay;
mod run;
mod shutdown;
mod status;
mod tail;
mod why;

use exit::{Exit, Failure};
use lifeboat::wire::request::ChangeVerb;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let (program, result) = match applet::Applet::of(arguments.first().map(std::ffi::OsString::as_os_str)) {
        Some(applet) => (applet.name(), applet::run(applet, arguments.into_iter().skip(1))),
        None => ("lifeboatctl", run()),
    };
    let exit = result.unwrap_or_else(|Failure { message, exit }| {
        output::complain(program, &message);
        exit
    });
    exit.into()
}

fn run() -> Result<Exit, Failure> {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(usage) => return cli::explain(&usage),
    };
    let context = &cli.context;
    match &cli.verb {
        cli::Verb::Status { names, no_fail } => status::status(context, names, *no_fail),
        cli::Verb::Watch => status::watch(context),
        cli::Verb::Start(units) => control::start(context, units),
        cli::Verb::Stop(units) => control::stop(context, units),
        cli::Verb::Restart(units) => control::restart(context, units),
        cli::Verb::Reload(units) => control::reload(context, units),
        cli::Verb::Drill(wish) => drill::drill(context, wish),
        cli::Verb::Why { name, all } => why::why(context, name, *all),
        cli::Verb::Incidents(what) => incidents::incidents(context, what),
        cli::Verb::Replay { file } => replay::replay(context, file),
        cli::Verb::Limit(change) => limit::limit(context, change),
        cli::Verb::Tail(tail) => tail::tail(context, tail),
        cli::Verb::Reread => change::reread(context),
        cli::Verb::Update(units) => change::update(context, units),
        cli::Verb::Add(units) => change::add_or_remove(context, units, ChangeVerb::Add),
        cli::Verb::Remove(units) => change::add_or_remove(context, units, ChangeVerb::Remove),
        cli::Verb::Enable(units) => change::enable_or_disable(context, units, ChangeVerb::Enable),
        cli::Verb::Disable(units) => change::enable_or_disable(context, units, ChangeVerb::Disable),
        cli::Verb::Adopt(wish) => adopt::adopt(context, wish),
        cli::Verb::Run(wish) => run::run(context, wish),
        cli::Verb::Shutdown(how) => shutdown::shutdown(context, how.kind()),
        cli::Verb::Version => status::version(context),
    }
}
