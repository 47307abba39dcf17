//! What commands beside a service say. A health check is heard only where it fails: a good one every few seconds would
//! push the service's own words out of the ring.

use super::{Feed, LAST_WORDS_BYTES, Outputs, Speaker};
use crate::engine::event::{CommandKind, Exit, Role};
use crate::engine::policy::UnitId;
use crate::runtime::event_loop::Lifeboat;
use crate::runtime::ring::Ring;

/// The words of a unit's commands.
#[derive(Debug)]
pub(super) struct CommandWords {
    /// What for the present one is.
    kind: CommandKind,
    /// The end of what it has said.
    present: Ring,
    /// The end of what the last one that failed has said.
    failed: Ring,
}

impl CommandWords {
    /// Of which nothing is kept, yet.
    pub(super) fn silent() -> Self {
        Self { kind: CommandKind::Stop, present: Ring::new(0, 0), failed: Ring::new(0, 0) }
    }

    /// To another memory, from `at` on; gives the place behind.
    pub(super) fn move_to(&mut self, (old, new): (&[u8], &mut [u8]), at: usize, bytes: usize) -> usize {
        self.present = self.present.moved(old, at, bytes, new);
        self.failed = self.failed.moved(old, at + bytes, bytes, new);
        at + 2 * bytes
    }

    /// What stands before each line.
    pub(super) fn mark(&self) -> &'static [u8] {
        match self.kind {
            CommandKind::Stop => b"stop: ",
            CommandKind::Reload => b"reload: ",
            CommandKind::Health => b"health: ",
            CommandKind::Warn => b"warn: ",
        }
    }

    /// Notes what the present command says. False where that is all that is to be done with it for now.
    pub(super) fn hear(&mut self, memory: &mut [u8], bytes: &[u8]) -> bool {
        self.present.push(memory, bytes);
        self.kind != CommandKind::Health
    }
}

impl Outputs {
    /// Before a command's pipe is opened.
    pub(in crate::runtime) fn command_begins(&mut self, unit: UnitId, kind: CommandKind) {
        if let Some(Feed { command, .. }) = self.feed_mut(unit) {
            command.kind = kind;
            command.present.clear();
        }
    }

    /// Its pipe is empty: what a failed one has said is kept, and what was held back goes on.
    fn command_ended(&mut self, speaker: Speaker<'_>, exit: Exit) {
        let Some(feed) = self.feeds.get_mut(usize::from(speaker.unit.0)) else { return };
        if exit.is_success() {
            return;
        }
        let mut words = [0_u8; LAST_WORDS_BYTES];
        let mut length = 0;
        let [first, second] = feed.command.present.since(&self.memory, 0);
        for (place, byte) in words.iter_mut().zip(first.iter().chain(second)) {
            length += 1;
            *place = *byte;
        }
        let words = words.get(..length).unwrap_or_default();
        feed.command.failed.clear();
        feed.command.failed.push(&mut self.memory, words);
        if feed.command.kind == CommandKind::Health {
            self.take(speaker, words);
        }
    }

    /// What the last command that failed has said in the end.
    pub(in crate::runtime) fn words_of_failed_command(&self, unit: UnitId) -> Vec<u8> {
        self.feed(unit).map_or_else(Vec::new, |feed| feed.command.failed.since(&self.memory, 0).concat())
    }
}

impl Lifeboat {
    /// Before its exit is handled.
    pub(in crate::runtime) fn command_output_ended(&mut self, unit: UnitId, exit: Exit) {
        self.output_ended(unit, Role::Command, false);
        self.outputs.command_ended(Self::speaker(&self.names, unit, Role::Command), exit);
        self.output_ended(unit, Role::Command, false);
    }
}
