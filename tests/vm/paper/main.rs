//! The five programs of `paper.rs` as a program of their own: `paper WHAT OUT`. What it costs to lock a program's file,
//! and to let it go, depends on how large the program is, and those of a shutdown procedure are small.

#[expect(unsafe_code, reason = "mmap(2) has no safe form; this one file holds all of it")]
#[expect(dead_code, reason = "nothing leaks here")]
#[path = "../../../examples/recorder/mapping.rs"]
mod mapping;
#[path = "../guest/paper.rs"]
mod paper;
#[expect(dead_code, reason = "only its clock is read")]
#[path = "../../../examples/recorder/ring.rs"]
mod ring;

use std::process::ExitCode;

fn main() -> ExitCode {
    let began_us = ring::boottime_us();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [program, out] = &words[..] else { return ExitCode::from(2) };
    match paper::run(program, out, began_us) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
