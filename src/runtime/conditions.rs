//! Whether the conditions of a unit are met. What cannot change is looked at once, at the start.

use super::event_loop::Lifeboat;
use crate::engine::event::Event;
use crate::engine::policy::{RunId, UnitId};
use crate::unit::{BOOT_WORD, Condition, Test};
use std::path::Path;

/// The inode of the first pid namespace: `PROC_PID_INIT_INO` of include/linux/proc_ns.h.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The machine around lifeboat, as far as conditions ask for it.
#[derive(Debug)]
pub(super) struct Surroundings {
    command_line: String,
    container: bool,
    init: bool,
}

impl Surroundings {
    pub(super) fn look(init: bool) -> Self {
        // A machine without /proc has no words and is no container.
        let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        Self { command_line, container: in_container(), init }
    }

    /// lifeboat is the first process of the whole machine.
    pub(super) fn own_machine(&self) -> bool {
        self.init && !self.container
    }

    /// The unit to boot, where the kernel's command line names one. It is the init process that the kernel speaks to.
    pub(super) fn boot(&self) -> Option<String> {
        let words = self.command_line.split_ascii_whitespace().filter(|_| self.own_machine());
        let mut assignments = words.filter_map(|word| word.split_once('='));
        assignments.rfind(|(name, _)| *name == BOOT_WORD).map(|(_, value)| value.to_owned())
    }

    fn has_word(&self, wanted: &str) -> bool {
        let is_it =
            |word: &str| word == wanted || word.split_once('=').is_some_and(|(name, _)| name == wanted);
        self.command_line.split_ascii_whitespace().any(is_it)
    }

    fn meet(&self, condition: &Condition) -> bool {
        let holds = match &condition.test {
            Test::PathExists(path) => is_there(path),
            Test::KernelCommandLine(word) => self.has_word(word),
            Test::Container => self.container,
            Test::Init => self.init,
        };
        holds != condition.negated
    }
}

/// One stat(2), which is all that may be asked of an unknown file system.
fn is_there(path: &Path) -> bool {
    std::fs::metadata(path).is_ok()
}

/// A pid namespace of its own, or the word of who made the container (systemd's Container Interface).
fn in_container() -> bool {
    let other_namespace = std::fs::read_link("/proc/self/ns/pid")
        .is_ok_and(|namespace| namespace.as_os_str() != FIRST_PID_NAMESPACE);
    other_namespace || std::env::var_os("container").is_some_and(|word| !word.is_empty())
}

impl Lifeboat {
    pub(super) fn check_conditions(&mut self, unit: UnitId, run: RunId) {
        let Some(seat) = self.seats.get(usize::from(unit.0)) else { return };
        let unmet = seat.unit.conditions.iter().position(|condition| !self.surroundings.meet(condition));
        let unmet = unmet.and_then(|at| u8::try_from(at).ok());
        self.events.push_back(Event::ConditionsChecked { unit, run, unmet });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(command_line: &str, container: bool, init: bool) -> Surroundings {
        Surroundings { command_line: command_line.into(), container, init }
    }

    #[test]
    fn conditions_are_met_or_not() {
        let around = surroundings("console=ttyS0 quiet lifeboat.demo=auto\n", false, true);
        for (test, expected) in [
            (Test::PathExists("/".into()), true),
            (Test::PathExists("/no/such/path".into()), false),
            (Test::KernelCommandLine("quiet".into()), true),
            (Test::KernelCommandLine("console".into()), true),
            (Test::KernelCommandLine("console=ttyS0".into()), true),
            (Test::KernelCommandLine("console=ttyS1".into()), false),
            (Test::KernelCommandLine("qui".into()), false),
            (Test::Container, false),
            (Test::Init, true),
        ] {
            for negated in [false, true] {
                let condition = Condition { negated, test: test.clone() };
                assert_eq!(around.meet(&condition), expected != negated, "{condition}");
            }
        }
    }

    #[test]
    fn the_last_word_names_the_target() {
        for (line, container, init, expected) in [
            ("quiet lifeboat.target=rescue", false, true, Some("rescue")),
            ("lifeboat.target=a lifeboat.target=b", false, true, Some("b")),
            ("lifeboat.target", false, true, None),
            ("xlifeboat.target=a", false, true, None),
            ("lifeboat.target=a", true, true, None),
            ("lifeboat.target=a", false, false, None),
        ] {
            assert_eq!(surroundings(line, container, init).boot().as_deref(), expected, "{line}");
        }
    }
}
