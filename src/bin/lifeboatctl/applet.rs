//! `reboot`, `poweroff`, `halt`, `shutdown` and `telinit`, for scripts and fingers that know them from BusyBox and
//! sysvinit. They ask lifeboat; with `-f` they call reboot(2) themselves, after sync(2).

use crate::cli::default_socket;
use crate::exit::{Exit, Failure};
use crate::{output, shutdown};
use lexopt::{Arg, Parser};
use lifeboat::engine::event::ShutdownKind;
use nix::sys::reboot::{RebootMode, reboot};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The name by which the program was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applet {
    /// `reboot [-f] [-n]`
    Reboot,
    /// `poweroff [-f] [-n]`
    PowerOff,
    /// `halt [-p] [-f] [-n]`
    Halt,
    /// `shutdown [-r|-h|-P|-H] [-f] [now]`
    Shutdown,
    /// `telinit 0|6`
    Telinit,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    how: ShutdownKind,
    force: bool,
    sync: bool,
    /// Only the record in wtmp was asked for, and lifeboat keeps none.
    nothing: bool,
}

impl Applet {
    /// From `argv[0]`, with or without folders.
    pub(crate) fn of(program: Option<&OsStr>) -> Option<Self> {
        match Path::new(program?).file_name()?.to_str()? {
            "reboot" => Some(Self::Reboot),
            "poweroff" => Some(Self::PowerOff),
            "halt" => Some(Self::Halt),
            "shutdown" => Some(Self::Shutdown),
            "telinit" => Some(Self::Telinit),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::PowerOff => "poweroff",
            Self::Halt => "halt",
            Self::Shutdown => "shutdown",
            Self::Telinit => "telinit",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Reboot | Self::PowerOff => {
                "[-f] [-n]\n  -f  call reboot(2) without stopping units\n  -n  no sync(2) before that"
            }
            Self::Halt => {
                "[-p] [-f] [-n]\n  -p  switch the power off\n  -f  call reboot(2) without stopping units\n  \
                 -n  no sync(2) before that"
            }
            Self::Shutdown => {
                "[-r|-h|-P|-H] [-f] [now]\n  -r  reboot\n  -h, -P  switch the power off (the default)\n  \
                 -H  halt\n  -f  call reboot(2) without stopping units"
            }
            Self::Telinit => "0|6\n  0  switch the power off\n  6  reboot",
        }
    }
}

pub(crate) fn run(applet: Applet, arguments: impl IntoIterator<Item = OsString>) -> Result<Exit, Failure> {
    let wrong = |what: String| Failure {
        message: format!("{what}\nusage: {} {}", applet.name(), applet.usage()),
        exit: Exit::Usage,
    };
    let Some(order) = parse(applet, arguments).map_err(wrong)? else {
        return output::finish(&format!("usage: {} {}\n", applet.name(), applet.usage()), Exit::Ok);
    };
    if order.nothing {
        return Ok(Exit::Ok);
    }
    if order.force {
        return Err(end_now(&order));
    }
    match shutdown::ask(&default_socket(), order.how) {
        Ok(()) => Ok(Exit::Ok),
        Err(Failure { message, exit }) => {
            Err(Failure { message: format!("{message}\n(-f does it without lifeboat)"), exit })
        }
    }
}

/// `None` means that help was asked for.
fn parse(applet: Applet, arguments: impl IntoIterator<Item = OsString>) -> Result<Option<Order>, String> {
    let how = match applet {
        Applet::Reboot => ShutdownKind::Reboot,
        Applet::Halt => ShutdownKind::Halt,
        Applet::PowerOff | Applet::Shutdown | Applet::Telinit => ShutdownKind::PowerOff,
    };
    let mut order = Order { how, force: false, sync: true, nothing: false };
    let mut level = false;
    let mut parser = Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match (applet, argument) {
            (_, Arg::Long("help")) => return Ok(None),
            (Applet::Telinit, Arg::Value(value)) if value == "0" => {
                (order.how, level) = (ShutdownKind::PowerOff, true);
            }
            (Applet::Telinit, Arg::Value(value)) if value == "6" => {
                (order.how, level) = (ShutdownKind::Reboot, true);
            }
            (Applet::Telinit, Arg::Value(value)) => {
                return Err(format!("lifeboat has no runlevel {}", value.display()));
            }
            (Applet::Telinit, argument) => return Err(argument.unexpected().to_string()),
            (_, Arg::Short('f')) => order.force = true,
            (Applet::Shutdown, Arg::Short('r')) => order.how = ShutdownKind::Reboot,
            (Applet::Shutdown, Arg::Short('h' | 'P')) => order.how = ShutdownKind::PowerOff,
            (Applet::Shutdown, Arg::Short('H')) => order.how = ShutdownKind::Halt,
            (Applet::Shutdown, Arg::Value(when)) if when == "now" || when == "+0" => {}
            (Applet::Shutdown, Arg::Value(when)) => {
                return Err(format!("cannot wait until {}: only \"now\" is known", when.display()));
            }
            (Applet::Halt, Arg::Short('p')) => order.how = ShutdownKind::PowerOff,
            (Applet::Reboot | Applet::PowerOff | Applet::Halt, Arg::Short('n')) => order.sync = false,
            (Applet::Reboot | Applet::PowerOff | Applet::Halt, Arg::Short('w')) => order.nothing = true,
            (_, argument) => return Err(argument.unexpected().to_string()),
        }
    }
    if applet == Applet::Telinit && !level {
        return Err("a runlevel is needed".into());
    }
    Ok(Some(order))
}

/// reboot(2) without lifeboat. It comes back only when it failed.
fn end_now(order: &Order) -> Failure {
    if order.sync {
        nix::unistd::sync();
    }
    let mode = match order.how {
        ShutdownKind::PowerOff => RebootMode::RB_POWER_OFF,
        ShutdownKind::Reboot => RebootMode::RB_AUTOBOOT,
        ShutdownKind::Halt => RebootMode::RB_HALT_SYSTEM,
    };
    match reboot(mode) {
        Ok(never) => match never {},
        Err(errno) => Failure { message: format!("reboot(2): {}", errno.desc()), exit: Exit::Unknown },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(program: &str, arguments: &[&str], expected: Option<(ShutdownKind, bool)>) {
        let applet = Applet::of(Some(OsStr::new(program))).expect("a known name");
        let order = parse(applet, arguments.iter().map(OsString::from));
        let got = order.ok().flatten().map(|order| (order.how, order.force));
        assert_eq!(got, expected, "{program} {arguments:?}");
    }

    #[test]
    fn command_lines() {
        check("reboot", &[], Some((ShutdownKind::Reboot, false)));
        check("/sbin/reboot", &["-f"], Some((ShutdownKind::Reboot, true)));
        check("poweroff", &["-nf"], Some((ShutdownKind::PowerOff, true)));
        check("halt", &[], Some((ShutdownKind::Halt, false)));
        check("halt", &["-p"], Some((ShutdownKind::PowerOff, false)));
        check("shutdown", &[], Some((ShutdownKind::PowerOff, false)));
        check("shutdown", &["-h", "now"], Some((ShutdownKind::PowerOff, false)));
        check("shutdown", &["-rf", "now"], Some((ShutdownKind::Reboot, true)));
        check("shutdown", &["-H", "+0"], Some((ShutdownKind::Halt, false)));
        check("shutdown", &["-r", "23:00"], None);
        check("shutdown", &["-c"], None);
        check("telinit", &["0"], Some((ShutdownKind::PowerOff, false)));
        check("telinit", &["6"], Some((ShutdownKind::Reboot, false)));
        check("telinit", &["3"], None);
        check("telinit", &["-f", "6"], None);
        check("telinit", &[], None);
        check("reboot", &["now"], None);
        check("reboot", &["--help"], None);
    }

    #[test]
    fn other_names_are_no_applets() {
        for name in ["lifeboatctl", "", "/", "rebooting"] {
            assert_eq!(Applet::of(Some(OsStr::new(name))), None, "{name}");
        }
        assert_eq!(Applet::of(None), None);
    }
}
