//! A unit that makes cgroups of its own, as a container engine does.

use super::cast::{own, pause};
use std::fs;
use std::path::PathBuf;

/// The cgroup of this process.
fn own_group() -> Result<PathBuf, String> {
    let text = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).ok_or("no cgroup2")?;
    Ok(PathBuf::from("/sys/fs/cgroup").join(path))
}

fn put(file: &PathBuf, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{text:?} to {}: {error}", file.display()))
}

/// Moves into a group below, so that controllers can be handed down, and makes others beside it.
pub(crate) fn nest(way: &str) -> Result<(), String> {
    let top = own_group()?;
    let make = |name: &str| {
        let folder = top.join(name);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok::<_, String>(folder)
    };
    put(&make("inner")?.join("cgroup.procs"), "0")?;
    put(&top.join("cgroup.subtree_control"), "+memory +pids")?;
    make("outer/one/two")?;
    match way {
        "stay" => pause(),
        "leak" => leak(),
        _ => {
            let small = make("small")?;
            put(&small.join("memory.max"), "2097152")?;
            let mut child = own("leak")?;
            // It waits for its move on standard input.
            let mut child =
                child.stdin(std::process::Stdio::piped()).spawn().map_err(|error| error.to_string())?;
            put(&small.join("cgroup.procs"), &child.id().to_string())?;
            drop(child.stdin.take());
            let status = child.wait().map_err(|error| error.to_string())?;
            println!("the child is gone: {status}");
            pause()
        }
    }
}

/// Uses memory without end, once standard input has come to its end.
pub(crate) fn leak() -> Result<(), String> {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    let mut leaked = Vec::new();
    loop {
        leaked.push(std::hint::black_box(vec![1_u8; 64 * 1024]));
    }
}
