//! The units of the benchmarks, which have as much in common as a table has.

#[expect(dead_code, reason = "how often a unit is exhausted is for the driver")]
#[path = "../../tests/vm/guest/shapes.rs"]
mod shapes;

use shapes::{PAPERS, SHAPES, paper_program};

/// Calm before each leak: the driver reads what was saved before the next life is exhausted.
const CALM: &str = "250ms";

/// What reads through page cache at its limit; whatever can listen to its memory does.
const READS: &str = r#"(
    description: "Reads a file of 500 MiB again and again: nothing but page cache",
    autostart: false,
    command: ["/usr/bin/vm-guest", "churn", "/mnt/large", "/run/reads-a-large-file.rounds"],
    memory: (max: "32MiB", class: Guaranteed, guard: Shield, warn: [(at: "50%", do: Log), (within: "10s", do: Log)]),
    shutdown: (
        procedure: ["/usr/bin/vm-guest", "exit", "0"],
        on: [Exhaustion],
        memory: "8MiB",
        then: Stop,
    ),
)
"#;

/// The names of the units and their texts.
pub(crate) fn all() -> Vec<(String, String)> {
    let papers = PAPERS.iter().map(|program| {
        let name = format!("paper-{program}");
        let words = paper_program(program).join("\", \"");
        let procedure = format!("\"{words}\", \"{program}\", \"/run/paper/{program}.procedure\"");
        let rest = "    restart: (policy: Never, limit: (starts: 1000, within: \"1s\")),\n";
        (
            name.clone(),
            unit(
                (&name, "/dev/shm/paper/ring", "flat-out"),
                (8, "Shield"),
                (&procedure, "8MiB", "Stop"),
                rest,
            ),
        )
    });
    let guarded = SHAPES.iter().flat_map(|shape| [(shape, "", "Shield"), (shape, "with-canary-", "Canary")]);
    let shapes = guarded.map(|(shape, prefix, guard)| {
        let name = format!("{prefix}{}", shape.name);
        let ring = format!("/run/{name}/ring");
        let procedure =
            format!("\"/usr/bin/recorder-flush\", \"{ring}\", \"/run/{name}/saved.bin\"");
        // The shortest delay, always: what is measured is lifeboat, not a policy.
        let rest = "    pids: (max: 400),\n    restart: (policy: Always, delay: \"10ms\", max_delay: \"10ms\", \
                    limit: (starts: 1000, within: \"1s\")),\n";
        let shutdown = (procedure.as_str(), "2MiB", "Restart");
        let text = unit((&name, &ring, shape.leak), (shape.max_mib, guard), shutdown, rest);
        (name, text)
    });
    papers.chain(shapes).chain([("reads-a-large-file".to_owned(), READS.to_owned())]).collect()
}

fn unit(
    (name, ring, leak): (&str, &str, &str),
    (max_mib, guard): (u32, &str),
    (procedure, memory, then): (&str, &str, &str),
    rest: &str,
) -> String {
    format!(
        "(\n    description: \"Measured: {name}\",\n    autostart: false,\n    command: [\n        \
         \"/usr/bin/recorder\", \"--ring\", \"{ring}\", \"--leak\", \"{leak}\", \"--leak-after\", \"{CALM}\",\n    \
         ],\n    memory: (max: \"{max_mib}MiB\", class: Pool, guard: {guard}),\n    shutdown: (\n        \
         procedure: [{procedure}],\n        on: [Exhaustion],\n        deadline: \"10s\",\n        \
         memory: \"{memory}\",\n        then: {then},\n    ),\n{rest})\n"
    )
}
