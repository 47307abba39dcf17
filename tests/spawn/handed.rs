//! Descriptors that are handed over as sd_listen_fds(3) has it.

use super::{alone, end_of, next_status, null, plain, program, strings, text_of};
use lifeboat::engine::event::Exit;
use lifeboat::sys::children;
use lifeboat::sys::spawn::{HANDED_MAX, Handed, Order, Parked, Program, SD_LISTEN_FDS_START, Start, Status};
use lifeboat::sys::spawn::{park, release, start};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

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

/// What a procedure finds: its words, what it reads from 3 and 4, and what its other descriptors are.
const PROCEDURE: &str = "exec 2>/dev/null; test \"$LISTEN_PID\" = $$ && echo $LISTEN_FDS $LISTEN_FDNAMES; \
                         echo ${LIFEBOAT_PIDFD-no} ${LIFEBOAT_CGROUP_FD-no}; \
                         test 2 = \"$LISTEN_FDS\" && head -qn 1 <&3 && head -qn 1 <&4; \
                         grep -c ^Pid: /proc/$$/fdinfo/${LIFEBOAT_PIDFD-no}; \
                         readlink /proc/$$/fd/${LIFEBOAT_CGROUP_FD-no}; ls /proc/$$/fd";

/// A procedure that was parked before anything of this was there gets it with its order.
fn received(stored: &[OwnedFd], names: &str, with: [bool; 2]) -> String {
    let mut ends = alone();
    let argv = strings(&["/bin/sh", "-c", PROCEDURE]);
    let program = Program::procedure(&argv, &strings(&["PATH=/usr/bin:/bin"]), HANDED_MAX);
    let program = program.expect("a program");
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let input = null();
    let Parked { pid, status, go } = park(&plain(&program, &input, &write), 0).expect("a child");
    drop(write);
    assert_eq!(next_status(&status), Status::Parked);
    let (pidfd, folder) = (children::pidfd(std::process::id()), File::open("/usr/bin").expect("a folder"));
    let pidfd = pidfd.as_ref().filter(|_| with[0]).map(AsFd::as_fd);
    let given = [pidfd, with[1].then_some(folder.as_fd())];
    let order = Order::new("exhaustion", 1, 2).with((stored.iter().map(AsFd::as_fd), names), given);
    release(go.as_fd(), &order).expect("a release");
    assert_eq!(next_status(&status), Status::Running);
    assert_eq!(end_of(pid, &mut ends), Exit::Code(0));
    text_of(read).replace('\n', " ")
}

fn full_pipe(text: &str) -> OwnedFd {
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    File::from(write).write_all(text.as_bytes()).expect("room");
    read
}

#[test]
fn a_procedure_receives_what_came_after_it_was_parked() {
    let pipes = ["one", "two"].map(|text| full_pipe(&format!("{text}\n")));
    let found = received(&pipes, "first:second", [true, true]);
    assert_eq!(found, "2 first:second 5 6 one two 1 /usr/bin 0 1 2 3 4 5 6 ");
    // Without a first process, and without stored descriptors, there are no words of them.
    assert_eq!(received(&[], "", [false, true]), "no 3 /usr/bin 0 1 2 3 ");
    assert_eq!(received(&[], "", [false, false]), "no no 0 1 2 ");
    let many: Vec<OwnedFd> = (0..HANDED_MAX).map(|_| null()).collect();
    let name = "n".repeat(64);
    let names = vec![name; HANDED_MAX].join(":");
    let found = received(&many, &names, [true, true]);
    let (first, last) = (HANDED_MAX + 3, HANDED_MAX + 4);
    assert!(found.starts_with(&format!("{HANDED_MAX} {names} {first} {last} ")), "{found}");
}

/// A limit of open files that is lower than what an order brings: the program gets no word of descriptors, and runs.
#[test]
fn a_procedure_without_room_for_descriptors_runs_all_the_same() {
    use lifeboat::sys::spawn::Step;
    use rustix::process::{Resource, Rlimit};
    let mut ends = alone();
    let argv = strings(&["/bin/sh", "-c", "echo ${LISTEN_FDS-no} ${LIFEBOAT_PIDFD-no} $LIFEBOAT_REASON"]);
    let program = Program::procedure(&argv, &[], 8).expect("a program");
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let input = null();
    let files = Rlimit { current: Some(6), maximum: Some(6) };
    let steps = [Step::ResourceLimit(Resource::Nofile, files)];
    let start_it = Start { steps: &steps, ..plain(&program, &input, &write) };
    let Parked { pid, status, go } = park(&start_it, 0).expect("a child");
    drop(write);
    assert_eq!(next_status(&status), Status::Parked);
    let stored: Vec<OwnedFd> = (0..8).map(|_| null()).collect();
    let order = Order::new("stop", 1, 2);
    let order = order.with((stored.iter().map(AsFd::as_fd), "a:b:c:d:e:f:g:h"), [None, None]);
    release(go.as_fd(), &order).expect("a release");
    assert_eq!(next_status(&status), Status::Running);
    assert_eq!(end_of(pid, &mut ends), Exit::Code(0));
    assert_eq!(text_of(read), "no no stop\n");
}
