//! Descriptors that are handed over as sd_listen_fds(3) has it.

use super::{alone, end_of, next_status, null, plain, program, strings, text_of};
use lifeboat::engine::event::Exit;
use lifeboat::sys::spawn::{HANDED_MAX, Handed, Program, SD_LISTEN_FDS_START, Start, Status, start};
use std::os::fd::AsFd;

const SCRIPT: &str = "test \"$LISTEN_PID\" = $$ && echo $LISTEN_FDS $LISTEN_FDNAMES; ls /proc/$$/fd";

fn listener() -> Program {
    let argv = strings(&["/bin/sh", "-c", SCRIPT]);
    Program::listener(&argv, &strings(&["PATH=/usr/bin:/bin"]), HANDED_MAX).expect("a program")
}

/// So many descriptors are handed over, under names of their numbers; what the program prints.
fn check(program: &mut Program, count: usize, also: &[i32], expected: &str) {
    let mut ends = alone();
    let files: Vec<_> = (0..count + also.len()).map(|_| null()).collect();
    let names: Vec<String> = (0..count).map(|at| format!("n{at}")).collect();
    program.listen(names.iter().map(String::as_str));
    let numbers = (SD_LISTEN_FDS_START..).take(count).chain(also.iter().copied());
    // The other way round, so that some of them stand where another belongs.
    let handed: Vec<Handed<'_>> = files.iter().rev().map(|file| file.as_fd()).zip(numbers).collect();
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let input = null();
    let child = start(&Start { handed: &handed, ..plain(program, &input, &write) }).expect("a child");
    drop(write);
    assert_eq!(next_status(&child.status), Status::Running);
    assert_eq!(end_of(child.pid, &mut ends), Exit::Code(0));
    let text = text_of(read);
    // Words first, then numbers, which ls(1) sorts as text.
    let (words, numbers) = text.split_at(text.find("\n0\n").map_or(0, |at| at + 1));
    let mut numbers: Vec<i32> = numbers.lines().filter_map(|line| line.parse().ok()).collect();
    numbers.sort_unstable();
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    assert_eq!(format!("{words}{}", numbers.join(" ")), expected);
}

#[test]
fn sockets_have_their_numbers_names_and_pid() {
    let mut program = listener();
    check(&mut program, 0, &[], "0 1 2");
    check(&mut program, 1, &[], "1 n0\n0 1 2 3");
    check(&mut program, 3, &[9], "3 n0:n1:n2\n0 1 2 3 4 5 9");
    // The words of an earlier start are gone.
    check(&mut program, 0, &[], "0 1 2");
    let names: Vec<String> = (0..HANDED_MAX).map(|at| format!("n{at}")).collect();
    let numbers: Vec<String> = (0..HANDED_MAX + 3).map(|at| at.to_string()).collect();
    let all = format!("{HANDED_MAX} {}\n{}", names.join(":"), numbers.join(" "));
    check(&mut program, HANDED_MAX, &[], &all);
}

#[test]
fn a_program_that_listens_to_nothing_gets_no_words() {
    check(&mut program(&["/bin/sh", "-c", SCRIPT], &["PATH=/usr/bin:/bin"]), 2, &[], "0 1 2 3 4");
}
