//! Warn stages: who is told lives on, and who is not told anything is not slowed.

use super::Case;
use crate::cast::field;
use crate::guest::{Guest, all_saved, ensure, expect, read, run};
use lifeboat::engine::snapshot::StateName;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "warn-by-signal", deadline_s: 90, run: by_signal },
    Case { name: "warn-by-memory-pressure-watch", deadline_s: 90, run: by_watch },
    Case { name: "warn-by-command", deadline_s: 90, run: by_command },
    Case { name: "warn-command-hangs", deadline_s: 90, run: command_hangs },
    Case { name: "warned-and-saved-all-the-same", deadline_s: 90, run: saved_all_the_same },
    Case { name: "warned-with-huge-pages-and-saved", deadline_s: 90, run: saved_with_huge_pages },
];

const WARNED: Duration = Duration::from_secs(60);

/// It grows without end, and frees half of what it has with each warning: three warnings, and no exhaustion.
fn lives_on(guest: &Guest, unit: &str) -> Result<(), String> {
    let (before, kills) = (guest.last_incident()?, guest.kernel_kills()?);
    let warned = format!("/tmp/{unit}.warned");
    let _ = std::fs::remove_file(&warned);
    guest.start(unit)?;
    let count = || read(&warned).ok()?.parse::<u32>().ok().filter(|count| *count >= 3);
    guest.until(&format!("{unit} is not warned three times"), WARNED, count)?;
    let view = guest.unit(unit)?;
    expect("state", &view.state, &StateName::Running)?;
    expect("run", &view.run.0, &1)?;
    ensure(view.warnings >= 3, || format!("warnings told of: {}", view.warnings))?;
    expect("incidents", &guest.last_incident()?, &before)?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    let events = read(&format!("/sys/fs/cgroup/pool/{unit}/memory.events.local"))?;
    let (high, max) = (field(&events, "high").unwrap_or(0), field(&events, "max").unwrap_or(0));
    guest.figure(&format!("{unit}: {} warnings, high {high}, max {max}", view.warnings));
    expect("max in memory.events.local", &max, &0)?;
    guest.stop(unit)
}

fn by_signal(guest: &mut Guest) -> Result<(), String> {
    lives_on(guest, "warned-by-signal")
}

fn by_watch(guest: &mut Guest) -> Result<(), String> {
    lives_on(guest, "warned-by-watch")
}

fn by_command(guest: &mut Guest) -> Result<(), String> {
    let unit = "warned-by-command";
    lives_on(guest, unit)?;
    let told = read("/run/warned-by-command.told")?;
    ensure(told.starts_with("warn warned-by-command "), || format!("the command was told {told:?}"))
}

fn command_hangs(guest: &mut Guest) -> Result<(), String> {
    let (unit, before) = ("warn-command-hangs", guest.last_incident()?);
    guest.start(unit)?;
    guest.wait(unit, WARNED, |snapshot| {
        let view = snapshot.units.iter().find(|view| view.name == unit)?;
        view.failed_command.map(drop)
    })?;
    guest.wait_incident(unit, before, WARNED)?;
    let (code, text) = run(&["/usr/bin/lifeboatctl", "why", unit])?;
    expect("exit code of why", &code, &0)?;
    ensure(text.contains("warn command"), || format!("why says {text:?}"))
}

/// Flat out in eight threads: past the stages so fast that the doorbell is rung and the limit met at once.
fn saved_all_the_same(guest: &mut Guest) -> Result<(), String> {
    let (unit, bystander) = ("warned-threads", guest.bystander()?);
    let (kills, mut before) = (guest.kernel_kills()?, guest.last_incident()?);
    for _ in 0..5 {
        guest.start(unit)?;
        let incident = guest.wait_incident(unit, before, WARNED)?;
        before = incident.number;
        all_saved(unit, &incident)?;
        let after = |time: Option<lifeboat::engine::event::Time>| {
            time.map_or("never".to_owned(), |time| format!("{} us", time.since_us(incident.began)))
        };
        guest.figure(&format!(
            "{unit}: frozen after {}, emptied after {}",
            after(incident.frozen),
            after(incident.emptied)
        ));
    }
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)?;
    bystander.is_unharmed(guest)
}

fn saved_with_huge_pages(guest: &mut Guest) -> Result<(), String> {
    let (unit, kills, before) = ("warned-populate", guest.kernel_kills()?, guest.last_incident()?);
    crate::guest::allow_huge_pages()?;
    guest.start(unit)?;
    let incident = guest.wait_incident(unit, before, WARNED)?;
    all_saved(unit, &incident)?;
    expect("kernel OOM kills", &guest.kernel_kills()?, &kills)
}
