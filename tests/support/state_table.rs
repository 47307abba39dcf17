//! The table of states and events in `docs/state-table.md`, held to what the engine does. `UPDATE=1` writes it anew.

use crate::script::{Script, Stage, parse};
use std::fmt::Write;
use std::path::Path;

/// The unit of the table: it has a bound, a procedure that also runs on a stop where the state needs that, and a
/// neighbour that can hold the reserve or be missing.
const UNITS: &str = r#"units: [
    (name: "a", kind: KIND, requires: ["r"], memory_mib: 32, procedure: (memory_mib: 6), when: WHEN),
    (name: "r"),
    (name: "q", memory_mib: 32, procedure: (memory_mib: 6)),
]"#;

/// How to come into each state: kind, restart policy, and steps at time 0.
const STATES: [(&str, &str, &str, &str); 21] = [
    ("Stopped", "Service", "Always", ""),
    ("Listening", r#"Service, sockets: ["x"], on_demand: true"#, "Always", r#"Boot; Spawned("r")"#),
    ("Waiting", "Service", "Always", "Boot"),
    ("Parking", "Service", "Always", r#"Boot; Spawned("r")"#),
    ("Spawning", "Service", "Always", r#"Boot; Spawned("r"); Parked("a")"#),
    ("Readying", "Service, ready: Notify", "Always", r#"Boot; Spawned("r"); Parked("a"); Spawned("a")"#),
    (
        "Running",
        "Service, watchdog_ms: 5000, reload: (command: true)",
        "Always",
        r#"Boot; Spawned("r"); Parked("a"); Spawned("a")"#,
    ),
    (
        "Running, a limit is being lowered",
        "Service",
        "Always",
        r#"Boot; Spawned("r"); Parked("a"); Spawned("a"); LimitAsked(1, "a", MemoryMax, 16777216, Rescue)"#,
    ),
    (
        "Running, held for a limit",
        "Service",
        "Always",
        r#"Boot; Spawned("r"); Parked("a"); Spawned("a"); LimitAsked(1, "a", MemoryMax, 16777216, Rescue); LimitTried("a", MemoryMax, 16777216, Fits); Frozen("a")"#,
    ),
    (
        "Idling",
        r#"Service, sockets: ["x"], on_demand: true, idle_stop_ms: 1000"#,
        "Always",
        r#"Boot; Spawned("r"); Demanded("a"); Parked("a"); Spawned("a"); LookedIdle("a", true)"#,
    ),
    ("Freezing", "Service", "Always", r#"Boot; Spawned("r"); Parked("a"); Spawned("a"); Oom("a", 1)"#),
    (
        "Queued",
        "Service",
        "Always",
        r#"Boot; Spawned("r"); Parked("q"); Spawned("q"); Oom("q", 1); Frozen("q"); Parked("a"); Spawned("a"); Oom("a", 1); Frozen("a")"#,
    ),
    (
        "Saving",
        "Service",
        "Always",
        r#"Boot; Spawned("r"); Parked("a"); Spawned("a"); Oom("a", 1); Frozen("a")"#,
    ),
    (
        "Asking",
        "Service, stop_command: true",
        "Always",
        r#"Boot; Spawned("r"); Parked("a"); Spawned("a"); Asked(1, "a", Stop)"#,
    ),
    (
        "Signalled",
        "Service",
        "Always",
        r#"Boot; Spawned("r"); Parked("a"); Spawned("a"); Asked(1, "a", Stop)"#,
    ),
    (
        "Killing",
        "Service",
        "Always",
        r#"Boot; Spawned("r"); Parked("a"); Spawned("a"); Exited("a", Service, Code(1))"#,
    ),
    ("Backoff", "Service", "Always", r#"Boot; Spawned("r"); Parked("a"); Spawned("a"); ENDS"#),
    ("Exited", "Service", "Never", r#"Boot; Spawned("r"); Parked("a"); Spawned("a"); ENDS"#),
    (
        "Fatal",
        "Service",
        "Always",
        r#"Boot; Spawned("r"); SpawnFailed("a", Procedure, Exec, 2); Emptied("a", Service); Emptied("a", Procedure)"#,
    ),
    ("Done", "Task", "Always", r#"Boot; Spawned("r"); Parked("a"); Spawned("a"); ENDS_WELL"#),
    (
        "Skipped",
        r#"Service, conditions: ["Init"]"#,
        "Always",
        r#"Boot; Spawned("r"); ConditionsChecked("a", 0)"#,
    ),
];

const ENDS: &str = r#"Exited("a", Service, CODE); Emptied("a", Service); Exited("a", Procedure, Signal(9)); Emptied("a", Procedure)"#;

/// The events, each about the unit's present run. `Deadline` comes when the engine wants it.
const EVENTS: [(&str, &str); 41] = [
    ("Deadline", "Deadline"),
    ("ConditionsChecked, not met", r#"ConditionsChecked("a", 0)"#),
    ("Parked", r#"Parked("a")"#),
    ("Spawned", r#"Spawned("a")"#),
    ("SpawnFailed, service", r#"SpawnFailed("a", Service, Clone, 11)"#),
    ("SpawnFailed, procedure", r#"SpawnFailed("a", Procedure, Clone, 11)"#),
    ("Ready", r#"Ready("a")"#),
    ("Notified, Ready", r#"Notified("a", Ready)"#),
    ("Notified, Stopping", r#"Notified("a", Stopping)"#),
    ("Notified, Alive", r#"Notified("a", Alive)"#),
    ("Notified, Failing", r#"Notified("a", Failing)"#),
    ("Notified, ExtendMs", r#"Notified("a", ExtendMs(60000))"#),
    ("Probed, not healthy", r#"Probed("a", false)"#),
    ("Strayed", r#"Strayed("a")"#),
    ("Demanded", r#"Demanded("a")"#),
    ("LookedIdle, idle", r#"LookedIdle("a", true)"#),
    ("LookedIdle, needed", r#"LookedIdle("a", false)"#),
    ("ProcedureRunning", r#"ProcedureRunning("a")"#),
    ("Exited, service", r#"Exited("a", Service, Code(1))"#),
    ("Exited, procedure", r#"Exited("a", Procedure, Code(0))"#),
    ("Emptied, service", r#"Emptied("a", Service)"#),
    ("Exited, command", r#"Exited("a", Command, Code(0))"#),
    ("Emptied, command", r#"Emptied("a", Command)"#),
    ("Frozen", r#"Frozen("a")"#),
    ("Failed, freeze", r#"Failed("a", Freeze, 16)"#),
    ("Failed, procedure", r#"Failed("a", StartProcedure, 3)"#),
    ("MemoryEvents, oom", r#"Oom("a", 9)"#),
    ("MemoryEvents, oom_kill", r#"OomKill("a", 9, 9)"#),
    ("MemoryEvents, max", r#"Max("a", 99)"#),
    ("PressureRang", r#"PressureRang("a")"#),
    ("Asked, start", r#"Asked(7, "a", Start)"#),
    ("Asked, stop", r#"Asked(7, "a", Stop)"#),
    ("Asked, restart", r#"Asked(7, "a", Restart)"#),
    ("Asked, reload", r#"Asked(7, "a", Reload)"#),
    ("LimitAsked, memory.max lower", r#"LimitAsked(7, "a", MemoryMax, 16777215, Refuse)"#),
    ("LimitAsked, cpu.weight", r#"LimitAsked(7, "a", CpuWeight, 5, Refuse)"#),
    ("LimitTried, fits", r#"LimitTried("a", MemoryMax, 16777216, Fits)"#),
    ("LimitTried, taken", r#"LimitTried("a", MemoryMax, 16777216, Taken)"#),
    ("LimitTried, too full", r#"LimitTried("a", MemoryMax, 16777216, TooFull(current_bytes: 20000000))"#),
    ("LimitTried, refused", r#"LimitTried("a", MemoryMax, 16777216, Refused(errno: 22))"#),
    ("ShutdownAsked", "ShutdownAsked(PowerOff)"),
];

/// A script with these steps, all at time 0.
fn script(kind: &str, when: &str, steps: &str) -> Script {
    let steps = steps
        .replace("ENDS_WELL", &ENDS.replace("CODE", "Code(0)"))
        .replace("ENDS", &ENDS.replace("CODE", "Code(1)"));
    let units = UNITS.replace("KIND", kind).replace("WHEN", when);
    let mut text = format!("(about: \"\", {units}, ends: [], steps: [");
    for step in steps.split("; ").filter(|step| !step.is_empty()) {
        let _ = write!(text, "(0, {step}, []),");
    }
    parse(&(text + "])")).unwrap()
}

/// The state by its own name, and what the unit wants done.
fn fire(state: (&str, &str, &str, &str), event: &str) -> (String, String, Vec<String>) {
    let (name, kind, when, steps) = state;
    let stage_script = script(kind, when, steps);
    let mut stage = Stage::new(&stage_script);
    for (at_ms, what, _) in &stage_script.steps {
        stage.step(*at_ms, what);
    }
    let before = stage.state_of("a");
    let fired = script(kind, when, event);
    let due = stage.engine.next_deadline().map_or(0, |due| due.0.div_ceil(1_000));
    let at_ms = if event == "Deadline" { due } else { 0 };
    let (lines, _) = stage.step(at_ms, &fired.steps[0].1);
    let about_it = lines.into_iter().filter(|line| line.contains(" a/") || line.contains("reply")).collect();
    assert!(stage.now.0 == at_ms * 1_000, "{name}");
    (before, stage.state_of("a"), about_it)
}

fn table() -> String {
    let mut text = String::from(
        "# States and events of a unit\n\n\
         What each event does in each state: the state that readers see afterwards, and the actions about the unit.\n\
         A dot is: nothing changes, nothing is done. `tests/support/state_table.rs` holds this page to the engine;\n\
         `UPDATE=1 cargo test --test scenarios` writes it anew.\n\n\
         The unit has a memory bound, a shutdown procedure for exhaustion and a requirement `r`; in `Queued` a\n\
         neighbour's procedure takes up the reserve, and `Deadline` there is that neighbour's.\n",
    );
    for state in STATES {
        let mut quiet = Vec::new();
        let (before, ..) = fire(state, "PressureRang(\"r\")");
        let _ = write!(text, "\n## {} ({before})\n\n| event | then | actions |\n|---|---|---|\n", state.0);
        for (name, event) in EVENTS {
            let (before, after, lines) = fire(state, event);
            if before == after && lines.is_empty() {
                quiet.push(name);
                continue;
            }
            let after = if before == after { "·".to_owned() } else { after };
            let _ = writeln!(text, "| {name} | {after} | {} |", lines.join("; "));
        }
        let _ = writeln!(text, "\nNothing: {}.", quiet.join("; "));
    }
    text
}

#[test]
fn the_state_table_is_what_the_engine_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/state-table.md");
    let found = table();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &found).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = written.lines().zip(found.lines()).find(|(written, found)| written != found);
    assert!(written == found, "docs/state-table.md is not what the engine does: {differs:?}; see UPDATE=1");
}
