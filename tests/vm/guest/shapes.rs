//! What the benchmarks measure: xtask makes a unit of each of these, the driver counts on it.

/// A way to use up memory.
pub(crate) struct Shape {
    /// The unit's name.
    pub(crate) name: &'static str,
    /// How the recorder leaks: its `--leak`.
    pub(crate) leak: &'static str,
    /// The unit's `memory.max`.
    pub(crate) max_mib: u32,
    /// How often it is exhausted, unless somebody says otherwise.
    pub(crate) rounds: u32,
}

const fn shape(name: &'static str, leak: &'static str, max_mib: u32, rounds: u32) -> Shape {
    Shape { name, leak, max_mib, rounds }
}

/// A thousand exhaustions and some. Those that take long are fewer.
pub(crate) const SHAPES: [Shape; 12] = [
    shape("rate-1", "rate:1MiB", 8, 12),
    shape("rate-16", "rate:16MiB", 12, 110),
    shape("rate-256", "rate:256MiB", 16, 110),
    shape("flat-out", "flat-out", 16, 110),
    shape("threads-4", "threads:4", 16, 110),
    shape("threads-16", "threads:16", 16, 110),
    shape("populate", "populate:small", 16, 110),
    shape("populate-huge", "populate", 16, 110),
    shape("tmpfs", "tmpfs", 16, 110),
    shape("fork", "fork", 8, 60),
    shape("sockets", "sockets", 12, 110),
    shape("drip", "drip", 8, 6),
];

/// The programs that run as a shutdown procedure and as an ordinary one.
pub(crate) const PAPERS: [&str; 6] = ["return", "write", "copy", "ask", "shm", "large"];

/// The program that runs one of them: small, as theirs are, but for `large`, which returns at once as the driver.
pub(crate) fn paper_program(paper: &str) -> &'static [&'static str] {
    if paper == "large" { &["/usr/bin/vm-guest", "paper"] } else { &["/usr/bin/paper"] }
}
