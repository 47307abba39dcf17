//! Settings that a process may do without.

use super::{alone, end_of, next_status, null, plain, shell, text_of};
use lifeboat::engine::event::{Exit, SpawnStage};
use lifeboat::engine::setting::Setting;
use lifeboat::sys::spawn::{Child, MaybePath, SpawnError, Start, Status, Step, start};
use rustix::thread::CpuSet;

/// Everything that a start told, and what the program said.
fn told_by(steps: &[Step]) -> (Vec<Status>, String) {
    let mut ends = alone();
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    let (program, input) = (shell("echo on"), null());
    let start_of = Start { steps, ..plain(&program, &input, &write) };
    let Child { pid, status } = start(&start_of).expect("a child");
    drop(write);
    let mut told = Vec::new();
    while !matches!(told.last(), Some(Status::Running | Status::Failed(_))) {
        told.push(next_status(&status));
    }
    let exit = end_of(pid, &mut ends);
    assert_eq!(exit == Exit::Code(0), told.last() == Some(&Status::Running), "{told:?}");
    (told, text_of(read))
}

#[test]
fn an_optional_step_is_left_out_and_told() {
    let optional = |setting, step| Step::Optional(setting, Box::new(step));
    let mut far = Box::new(CpuSet::new());
    far.set(CpuSet::MAX_CPU - 1);
    let cpus = Step::CpuAffinity(far);
    let nowhere = Step::Hidden(MaybePath { path: c"/nowhere".to_owned(), may_be_missing: false });
    let steps =
        [optional(Setting::Cpus, cpus.clone()), optional(Setting::Hidden, nowhere), Step::Umask(0o022)];
    let (told, text) = told_by(&steps);
    let expected = [
        Status::Skipped(Setting::Cpus, libc::EINVAL),
        Status::Skipped(Setting::Hidden, libc::ENOENT),
        Status::Running,
    ];
    assert_eq!((told.as_slice(), text.as_str()), (expected.as_slice(), "on\n"));
    // Another one that fails is still an error, after what was left out.
    let (told, text) = told_by(&[optional(Setting::Cpus, cpus.clone()), cpus]);
    let failed = Status::Failed(SpawnError::new(SpawnStage::CpuAffinity, libc::EINVAL));
    let expected = [Status::Skipped(Setting::Cpus, libc::EINVAL), failed];
    assert_eq!((told.as_slice(), text.as_str()), (expected.as_slice(), ""));
}
