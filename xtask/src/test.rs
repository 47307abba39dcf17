//! `cargo xtask test`, which is all of continuous integration: every check, one after the other, and one count.

use crate::error::{Error, Result};
use crate::place;
use crate::setup::{self, Kernel, Kit};
use crate::size;
use crate::vm::{self, Count, Options};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Set to `skip`, it makes `tests/vm.rs` leave its guests out.
pub const VM_VARIABLE: &str = "LIFEBOAT_VM";

/// Sets the machine up and runs every storey; the vm storey on both kernels.
///
/// # Errors
/// When the machine cannot be set up. A check that fails is in the count, and the next one runs all the same.
pub fn run() -> Result<Count> {
    let started = Instant::now();
    let mut count = Count::default();
    let kit: Kit = setup::ensure()?;
    step(&mut count, "format", || command_count(place::cargo().args(["fmt", "--all", "--check"])));
    step(&mut count, "clippy", || {
        let words = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        command_count(place::cargo().args(words))
    });
    step(&mut count, "tests", || {
        let mut tests = place::cargo();
        tests.args(["test", "--workspace", "--no-fail-fast"]).env(VM_VARIABLE, "skip");
        tests_count(&mut tests)
    });
    step(&mut count, "size", || size::run().map(|()| Count { passed: 1, ..Count::default() }));
    step(&mut count, "vm", || vm::run(&kit, &Options::unasked(&Kernel::ALL)));
    println!("test: everything took {:.0} s", started.elapsed().as_secs_f64());
    Ok(count)
}

/// Runs one check, says how long it took, and adds its count; an error counts as one failure.
fn step(count: &mut Count, name: &str, check: impl FnOnce() -> Result<Count>) {
    println!("test: {name}");
    let started = Instant::now();
    let of_step = check().unwrap_or_else(|error| {
        println!("error: {}", error.full_text());
        Count { failed: 1, ..Count::default() }
    });
    println!("test: {name}: {of_step} ({:.0} s)", started.elapsed().as_secs_f64());
    count.add(of_step);
}

/// A check that is one command: passed or failed.
fn command_count(command: &mut Command) -> Result<Count> {
    let status = command.status().map_err(|error| Error::new("cannot run cargo").because(error))?;
    let passed = usize::from(status.success());
    Ok(Count { passed, failed: 1 - passed, skipped: 0 })
}

/// Runs the tests, shows their output as it comes, and counts in it.
fn tests_count(command: &mut Command) -> Result<Count> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Error::new("cannot run cargo test").because(error))?;
    let mut count = Count::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(|error| Error::new("cannot read what cargo test says").because(error))?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            count.add(closing_count(&line).unwrap_or_default());
        }
    }
    let status = child.wait().map_err(|error| Error::new("cannot wait for cargo test").because(error))?;
    // A test that does not compile or a harness that dies closes without a count.
    count.failed += usize::from(!status.success() && count.failed == 0);
    Ok(count)
}

/// The count in the closing line of one test program: Rust's own harness's ("test result: ok. 3 passed; 0 failed;
/// 1 ignored; ...") or ours ("3 passed, 0 failed, 1 skipped").
fn closing_count(line: &str) -> Option<Count> {
    let (numbers, separator, left_out) = match line.strip_prefix("test result: ") {
        Some(rest) => (rest.split_once(". ")?.1, ';', "ignored"),
        None => (line, ',', "skipped"),
    };
    let mut parts = numbers.split(separator);
    let mut number = |word: &str| parts.next()?.trim().strip_suffix(word)?.trim_end().parse::<usize>().ok();
    Some(Count {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number(left_out).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::closing_count;

    #[test]
    fn closing_lines() {
        let cases = [
            (
                "test result: ok. 9 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
                Some("9 passed, 0 failed, 1 skipped"),
            ),
            ("test result: FAILED. 8 passed; 1 failed; 0 ignored; 0 measured", Some("8 passed, 1 failed")),
            ("12 passed, 0 failed", Some("12 passed, 0 failed")),
            ("12 passed, 3 failed, 4 skipped", Some("12 passed, 3 failed, 4 skipped")),
            ("6.12 main: 12 passed, 3 failed", None),
            ("running 3 tests", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(closing_count(line).map(|count| count.to_string()).as_deref(), expected, "{line}");
        }
    }
}
