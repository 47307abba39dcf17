//! The driver inside the machine of the vm tests, and the cast of its plays.
//!
//! lifeboat starts `vm-guest driver` as a unit. It runs the cases of the group that the kernel's command
//! line names (`vm.group=main`), tells the host about each on the second serial port, and powers the
//! machine off. The other sub-commands are the programs that the cases' units run.
//!
//! A new case is a function in a file of `cases/` and a line in that file's table.

mod bad;
mod beat;
mod cases;
mod cast;
#[cfg(test)]
mod client_tests;
mod clients;
mod group;
mod guest;
mod keeper;
mod listener;
#[expect(unsafe_code, reason = "mmap(2) has no safe form; this one file holds all of it")]
#[expect(dead_code, reason = "the driver does not leak")]
#[path = "../../../examples/recorder/mapping.rs"]
mod mapping;
mod nest;
mod panic;
mod paper;
mod report;
#[cfg_attr(not(test), expect(dead_code, reason = "the driver only reads rings"))]
#[path = "../../../examples/recorder/ring.rs"]
mod ring;
#[cfg_attr(not(test), expect(dead_code, reason = "the driver saves nothing"))]
#[path = "../../../examples/recorder/saved.rs"]
mod saved;
#[cfg(test)]
mod saved_tests;
mod saver;
mod shapes;
mod speaker;
mod stamp;
#[path = "../../../examples/demo-verdict/supervisor.rs"]
mod supervisor;
#[cfg(test)]
mod tests;
mod thrash;
mod warned;

use std::process::ExitCode;

const USAGE: &str = "usage: vm-guest [driver [GROUP]] | list | COMMAND
  driver            run the cases of GROUP, or of vm.group= on the kernel's command line, and power off
  list              print groups and cases
  trivial N         say on the second serial port when this ran, and stay
  phoenix NAME      tell the driver when this ran, and stay; $PHOENIX goes before NAME
  stamp-exec        as PID 1: say when, then become the program of vm.init= on the kernel's command line,
                    or panic where that is `panic`; first cover the folder of vm.mask=
  heartbeat FILE    beat every 10 ms and keep the worst gap in FILE
  pause             stay
  ignore-term       stay, whatever signals say
  leak-on-term FILE make FILE, stay until SIGTERM, then use memory without end
  daemonise stay|go leave three daemons behind, which nothing but their cgroup ties to this; then stay or go
  daemon            leave session and parent, and stay
  exit CODE         end at once
  flood             write lines without end
  churn FILE ROUNDS [N]
                    read FILE again and again, and note in ROUNDS how often; after N rounds use memory without end
  fork-storm        fork without end; each child does the same
  double-fork       leave an orphan behind and print its pid
  orphan            end once PID 1 is the parent
  speak NAME TEXT.. say each text by sd_notify; `cue` waits for /run/NAME.cue; then stay
  say TEXT          say it by sd_notify, and wait until it is handled
  speak-by-child T  have a child say it, and stay
  background        go into the background and say so
  s6 NAME FD        after the cue write a newline to FD, and stay
  path NAME PATH    after the cue make PATH, and stay
  listen NAME PATH  listen at PATH until the cue, and stay
  alive NAME        say WATCHDOG=1 until the cue, and stay
  hold MIB FILE     use so much memory, make FILE, and stay
  nest stay|leak|leak-below   make cgroups below its own; then stay, use memory there without end, or have a
                    child do so in one with a limit of its own, and stay
  leak              use memory without end
  bad WAY           make its own end hard: flees, locks, port or lingers
  leave FOLDER      move to the cgroup of this folder, and use memory without end there
  flee              end once a child does the same
  lock [record]     wait for what `bad locks` has locked
  bind              want the port of `bad port`
  map-and-leak FILE map FILE, whose pages are charged to others, and use memory without end, slowly
  grow NAME signal|watch
                    use ever more memory, and let go of half of it when told
  serve NAME        answer on the sockets that it is given
  serve-late NAME   die; with the cue, serve
  store NAME        store descriptors, or find them
  keep NAME         leak, and save what it knows on SIGTERM; with `and-go-on` it leaks on
  store-and-leak    store a memfd and a pipe, and use memory without end
  receive NAME      as a procedure: note what it is handed
  paper WHAT OUT    return, write, copy, ask or shm: a small program whose time is taken
  compare RING OUT  print how many of the ring's last records are in the file
  pss               print the PSS of PID 1 in KiB";

fn main() -> ExitCode {
    // Before anything else: some sub-commands say when their first instruction ran.
    let began_us = ring::boottime_us();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        // The kernel gives PID 1 all words of its command line that it does not know itself.
        _ if std::process::id() == 1 => stamp::exec(),
        ["stamp-exec"] => stamp::exec(),
        [] | ["driver"] => cases::drive(None),
        ["driver", group] => cases::drive(Some(group)),
        ["list"] => cases::list(),
        ["trivial", number] => stamp::trivial(number, began_us),
        ["phoenix", name] => stamp::phoenix(name, began_us),
        ["heartbeat", file] => beat::beat(file),
        ["pause"] => cast::pause(),
        ["ignore-term"] => cast::ignore_term(),
        ["leak-on-term", file] => cast::leak_on_term(file),
        ["daemonise", way @ ("stay" | "go")] => cast::daemonise(*way == "stay"),
        ["daemon"] => cast::daemon(),
        ["exit", code] => return code.parse::<u8>().map_or(ExitCode::from(2), ExitCode::from),
        ["flood"] => cast::flood(),
        ["churn", file, rounds] => cast::churn(file, rounds, u64::MAX),
        ["churn", file, rounds, last] => cast::churn(file, rounds, last.parse().unwrap_or(u64::MAX)),
        ["thrash", kib, file, pages] => thrash::thrash(kib, file, pages),
        ["fork-storm"] => cast::fork_storm(),
        ["double-fork"] => cast::double_fork(),
        ["orphan"] => cast::orphan(),
        ["speak", name, texts @ ..] => speaker::speak(name, texts),
        ["say", text] => speaker::say_and_wait(text),
        ["speak-by-child", text] => speaker::speak_by_child(text),
        ["background"] => speaker::background(),
        ["background-child"] => speaker::background_child(),
        ["s6", name, number] => speaker::s6(name, number),
        ["path", name, path] => speaker::path(name, path),
        ["listen", name, path] => speaker::listen(name, path),
        ["alive", name] => speaker::alive(name),
        ["serve-late", name] => listener::serve_late(name),
        ["store", name] => listener::store(name),
        ["serve", name] => listener::serve(name),
        ["compare", ring, out] => saver::compare(ring, out),
        ["paper", program, out] => paper::run(program, out, began_us),
        ["pss"] => cast::pss(),
        ["hold", mib, file] => cast::hold(mib, file),
        ["nest", way] => nest::nest(way),
        ["leak"] => nest::leak(),
        ["bad", way] => bad::bad(way),
        ["flee"] => bad::flee(),
        ["leave", folder] => bad::leave(folder),
        ["lock"] => bad::lock(false),
        ["lock", "record"] => bad::lock(true),
        ["bind"] => bad::bind(),
        ["map-and-leak", file] => cast::map_and_leak(file),
        ["grow", name, way @ ("signal" | "watch")] => warned::grow(name, way),
        ["keep", name] => keeper::keep(name, false),
        ["keep", name, "and-go-on"] => keeper::keep(name, true),
        ["store-and-leak"] => saver::store_and_leak(),
        ["receive", unit] => saver::receive(unit),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vm-guest: {error}");
            ExitCode::FAILURE
        }
    }
}
