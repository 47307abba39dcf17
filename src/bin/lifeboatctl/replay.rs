//! `replay`: the decisions of a kept incident, made again here. lifeboat is not asked.

use crate::cli::Context;
use crate::exit::{Exit, Failure};
use crate::incidents::read_all;
use crate::output;
use lifeboat::engine::replay::replay as decide_again;
use lifeboat::view::replay::{Story, write};
use lifeboat::view::status::OneLine;
use lifeboat::wire::episode::{Found, NoEpisode, VERSION, read_episode};
use lifeboat::wire::incident::{Unreadable, read};
use serde_json::json;
use std::fs::File;
use std::path::Path;

/// What `incidents show` prints of an incident that only lifeboat's memory has.
const UNKEPT: &str = "it is the record of an incident that was not kept, which has no events; only files in \
                      the folder of incidents have them";

fn is_bare_record(text: &[u8]) -> bool {
    let value: Option<serde_json::Value> = serde_json::from_slice(text).ok();
    value.is_some_and(|it| it.get("incident").is_some() && it.get("format").is_none())
}

pub(crate) fn replay(context: &Context, file: &Path) -> Result<Exit, Failure> {
    let name = file.display().to_string();
    let nothing = |why: &dyn std::fmt::Display| Failure {
        message: format!("{}: nothing to replay: {}", OneLine(&name), OneLine(&why.to_string())),
        exit: Exit::Usage,
    };
    // A pipe is as good as a file.
    let text = File::open(file).and_then(read_all).map_err(|error| nothing(&error))?;
    let kept = read(&text).map_err(|error| match error {
        Unreadable::Broken(_) if is_bare_record(&text) => nothing(&UNKEPT),
        error => nothing(&NoEpisode::Unreadable(error)),
    })?;
    let Found { episode, by, is_as_written } = read_episode(&text).map_err(|error| nothing(&error))?;
    let found = decide_again(&episode, &kept.incident).map_err(|error| nothing(&error))?;
    let is_same = found.is_same() && is_as_written;
    let exit = if is_same { Exit::Ok } else { Exit::Failed };
    if context.json {
        let text = output::json(&json!({
            "number": kept.number, "unit": kept.unit, "same": is_same,
            "as_written": is_as_written,
            "decided_by": by, "decided_again_by": VERSION, "replay": found,
        }))?;
        return output::finish(&text, exit);
    }
    let versions = (by.as_str(), VERSION);
    let story = Story { unit: &kept.unit, versions, record: &kept.incident, replay: &found, is_as_written };
    let mut text = String::new();
    // A String takes everything.
    let _ = write(&mut text, &story);
    output::finish(&text, exit)
}
