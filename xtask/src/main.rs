//! `cargo xtask COMMAND`: everything that a developer runs.

use std::process::ExitCode;
use xtask::setup::{self, Kernel, Kit};
use xtask::vm::{Count, Options};
use xtask::{Error, Result, bench, demo, image, size, test, vm};

const USAGE: &str = "\
cargo xtask COMMAND

  setup                        find what is needed and install what is missing
  demo [--shell] [--kernel V]  boot the demo image and show its console; --shell leaves a shell on it
  test, ci                     every check and every test, on both kernels
  vm [--kernel V] [--group G]... [--case C]... [--console] [--keep] [--jobs N] [--rounds N]
                               boot the guests of the vm tests (both kernels and all groups unless named);
                               --console shows each console live, --keep writes it to target/vm/logs
  bench [loss|latency|boot|idle|restart|units1000|shapes|paper|exhaustions|guards|cache] [--kernel V] [--rounds N]
                               boot the guests that measure, and print their figures; the last four take long,
                               run only when they are named, and repeat each measurement N times (exhaustions: at
                               most so often)
  image                        build the programs and pack the images
  size                         build the programs and print their sizes

V is 6.12 or 6.1. With LIFEBOAT_PROFILE=quick in the environment, vm and image build in seconds after a change, with
hardly any optimization: to try things, not to measure.
";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", error.full_text());
            ExitCode::FAILURE
        }
    }
}

/// What the words after the command say.
#[derive(Default)]
struct Words {
    command: Option<String>,
    bench: Option<String>,
    kernel: Option<Kernel>,
    groups: Vec<String>,
    cases: Vec<String>,
    shell: bool,
    console: bool,
    keep: bool,
    jobs: Option<usize>,
    rounds: Option<u32>,
}

impl Words {
    fn set(&mut self, option: &str, value: String) -> Result<()> {
        match option {
            "kernel" => self.kernel = Some(Kernel::parse(&value)?),
            "group" => self.groups.push(value),
            "case" => self.cases.push(value),
            "rounds" => {
                let rounds = value.parse().map_err(|_| usage(&format!("--rounds {value}: not a number")))?;
                self.rounds = Some(rounds);
            }
            _ => {
                let jobs = value.parse().map_err(|_| usage(&format!("--jobs {value}: not a number")))?;
                self.jobs = Some(jobs);
            }
        }
        Ok(())
    }
}

fn run() -> Result<ExitCode> {
    let words = read_words()?;
    let Some(command) = words.command.as_deref() else {
        print!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    };
    let newest = words.kernel.unwrap_or(Kernel::V6_12);
    match command {
        "setup" => drop(setup::ensure()?),
        "image" => image::make(&setup::ensure()?, &image::Image::ALL)?,
        "demo" => demo::run(&setup::ensure()?, newest, words.shell)?,
        "size" => size::run()?,
        "vm" => return run_vm(&setup::ensure()?, &words),
        "bench" => {
            let name = words.bench.as_deref();
            return Ok(close(bench::run(&setup::ensure()?, newest, name, words.rounds)?));
        }
        "test" | "ci" => return Ok(close(test::run()?)),
        other => return Err(usage(&format!("there is no command {other}"))),
    }
    Ok(ExitCode::SUCCESS)
}

fn run_vm(kit: &Kit, words: &Words) -> Result<ExitCode> {
    let kernels = words.kernel.map_or(Kernel::ALL.to_vec(), |kernel| vec![kernel]);
    let mut options = if words.groups.is_empty() {
        Options::unasked(&kernels)
    } else {
        Options::named(&kernels, &words.groups)?
    };
    options.console = words.console;
    options.keep = words.keep;
    options.cases.clone_from(&words.cases);
    options.jobs = words.jobs.unwrap_or(1);
    options.rounds = words.rounds;
    Ok(close(vm::run(kit, &options)?))
}

/// The closing line, and the exit code that goes with it.
fn close(count: Count) -> ExitCode {
    println!("{count}");
    if count.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read_words() -> Result<Words> {
    use lexopt::prelude::{Long, Short, Value, ValueExt as _};
    let mut words = Words::default();
    let mut parser = lexopt::Parser::from_env();
    let wrong = |error: lexopt::Error| usage(&error.to_string());
    while let Some(argument) = parser.next().map_err(wrong)? {
        let option = match argument {
            Short('h') => "help".to_owned(),
            Long(name) => name.to_owned(),
            Value(word) if words.command.is_none() => {
                words.command = Some(word.string().map_err(wrong)?);
                continue;
            }
            Value(word) if words.command.as_deref() == Some("bench") && words.bench.is_none() => {
                words.bench = Some(word.string().map_err(wrong)?);
                continue;
            }
            other => return Err(wrong(other.unexpected())),
        };
        match option.as_str() {
            "help" => return Ok(Words::default()),
            "shell" => words.shell = true,
            "console" => words.console = true,
            "keep" => words.keep = true,
            "kernel" | "group" | "case" | "jobs" | "rounds" => {
                let value = parser.value().and_then(|value| value.string()).map_err(wrong)?;
                words.set(&option, value)?;
            }
            _ => return Err(usage(&format!("there is no option --{option}"))),
        }
    }
    Ok(words)
}

fn usage(what: &str) -> Error {
    Error::new(what).cure("`cargo xtask --help` lists the commands and their options")
}
