//! Snapshot to text, pure: the same words on the serial console, in `lifeboatctl` and in the log.
//!
//! `status` prints supervisorctl's lines, `why` tells the story of a unit's exhaustions, `incident` those of all
//! boots, `replay` what was decided in one of them, `record` gives words to one log record without allocating, and
//! `words` holds what they share. Nothing here asks a clock: the snapshot carries its time, and the distance to the
//! wall clock is a parameter.

pub mod cure;
pub mod drill;
pub mod incident;
pub mod record;
pub mod replay;
pub mod status;
pub mod why;
pub mod words;
