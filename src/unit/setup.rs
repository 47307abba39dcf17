//! Who a unit's process is, what it may and what it sees: the fields of it, checked.

use super::accounts::{Accounts, User, id};
use super::check::c_string;
use super::diagnostic::{Wrong, did_you_mean, short};
use super::raw::{RawCapabilities, RawUnit};
use super::reader::{Item, Map, Reader, Slot};
use super::value::{self, Word};
use super::{Capabilities, Identity, Path, Setup, load};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CpuSet};
use std::ffi::CString;
use std::ops::Range;

/// The names of getrlimit(2), as in prlimit(1).
const RESOURCES: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// `IOPRIO_CLASS_SHIFT` of include/uapi/linux/ioprio.h.
const IO_CLASS_SHIFT: u16 = 13;

/// The fields that say who a process is; a unit has them, and its procedure may have its own.
pub(super) struct RawIdentity {
    pub user: Slot<String>,
    pub group: Slot<String>,
    pub groups: Slot<Vec<Item<String>>>,
    pub capabilities: Slot<RawCapabilities>,
}

/// Everything but who it is.
pub(super) fn setup(reader: &mut Reader<'_>, raw: &mut RawUnit) -> Setup {
    Setup {
        umask: umask(reader, raw.umask.take()),
        root_directory: raw.root_directory.take().given().and_then(|path| {
            absolute(reader, "root_directory", &path.value, &path.at);
            c_string(reader, "root_directory", &path.value, &path.at)
        }),
        resource_limits: resource_limits(reader, raw.rlimits.take()),
        nice: nice(reader, raw.nice.take()),
        scheduler: ranked(reader, "scheduler", raw.scheduler.take(), SCHEDULERS),
        cpus: cpus(reader, raw.cpus.take()),
        io_priority: ranked(reader, "io_priority", raw.io_priority.take(), IO_CLASSES)
            .map(|(class, level)| class << IO_CLASS_SHIFT | level),
        no_new_privs: raw.no_new_privs.take().value_or(false),
        private_mounts: raw.private_mounts.take().value_or(false),
        private_tmp: raw.private_tmp.take().value_or(false),
        private_shm: raw.private_shm.take().value_or(false),
        read_only: paths(reader, "read_only", raw.read_only.take()),
        hidden: paths(reader, "hidden", raw.hidden.take()),
    }
}

/// Who the process is. What is not given is as in `base`, but a user brings its own group, groups and capabilities.
pub(super) fn identity(
    reader: &mut Reader<'_>,
    accounts: &Accounts,
    section: &str,
    raw: RawIdentity,
    base: &Identity,
) -> Identity {
    let mut identity = base.clone();
    if let Some(Item { value: word, at }) = raw.user.given() {
        identity = Identity::default();
        let field = format!("{section}user");
        match (accounts.user(&word), id(&word)) {
            (Some(user), _) => become_user(&mut identity, accounts, user),
            (None, Some(uid)) if !raw.group.is_absent() => {
                (identity.uid, identity.groups) = (Some(uid), Some(Vec::new()));
            }
            (None, Some(uid)) => {
                let wrong = Wrong::new(format!("/etc/passwd has no user {uid}, so its group is not known"));
                reader.fault_in(&field, &at, wrong.hint("add a group beside it"));
            }
            (None, None) => {
                let names = &mut accounts.user_names();
                unknown(reader, (&field, &at), ("user", "/etc/passwd"), &word, names);
            }
        }
    }
    if let Some(group) = raw.group.given() {
        identity.gid = gid(reader, accounts, &format!("{section}group"), &group);
        identity.groups.get_or_insert_default();
    }
    if let Some(Item { value: groups, .. }) = raw.groups.given() {
        let field = format!("{section}groups");
        identity.groups =
            Some(groups.iter().filter_map(|group| gid(reader, accounts, &field, group)).collect());
    }
    if let Some(given) = raw.capabilities.given() {
        identity.capabilities = capabilities(reader, section, given);
    }
    identity
}

/// As su(1) and initgroups(3) do it.
fn become_user(identity: &mut Identity, accounts: &Accounts, user: User<'_>) {
    let mut groups = accounts.gids_of(user.name);
    groups.retain(|gid| *gid != user.gid);
    groups.insert(0, user.gid);
    (identity.uid, identity.gid, identity.groups) = (Some(user.uid), Some(user.gid), Some(groups));
    let pairs = [("HOME", user.home), ("USER", user.name), ("LOGNAME", user.name), ("SHELL", user.shell)];
    let strings = pairs.iter().filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok());
    identity.environment = strings.collect();
}

fn gid(reader: &mut Reader<'_>, accounts: &Accounts, field: &str, group: &Item<String>) -> Option<u32> {
    let Item { value: word, at } = group;
    let found = accounts.gid(word).or_else(|| id(word));
    if found.is_none() {
        unknown(reader, (field, at), ("group", "/etc/group"), word, &mut accounts.group_names());
    }
    found
}

/// Tells that there is nothing of this name in the book that has them all.
fn unknown(
    reader: &mut Reader<'_>,
    (field, at): (&str, &Range<usize>),
    (what, book): (&str, &str),
    word: &str,
    known: &mut dyn Iterator<Item = &str>,
) {
    let hint = did_you_mean(word, known).unwrap_or_else(|| match book.starts_with('/') {
        true => "add it to the image's file".to_owned(),
        false => format!("they are named as in {book}"),
    });
    let wrong = Wrong::new(format!("there is no {what} `{}` in {book}", short(word)));
    reader.fault_in(field, at, wrong.hint(hint));
}

fn capabilities(reader: &mut Reader<'_>, section: &str, given: Item<RawCapabilities>) -> Capabilities {
    let field = |name: &str| format!("{section}capabilities.{name}");
    let at = given.value.ambient.place();
    let bounding = capability_set(reader, &field("bounding"), given.value.bounding);
    let ambient = capability_set(reader, &field("ambient"), given.value.ambient).unwrap_or(0);
    if let (Some(bounding), Some(at)) = (bounding, at)
        && ambient & !bounding != 0
    {
        let wrong = Wrong::new("there is a capability here that `bounding` leaves out");
        reader.fault_in(&field("ambient"), &at, wrong.hint("add it there, or take it out here"));
    }
    Capabilities { bounding, ambient }
}

fn capability_set(reader: &mut Reader<'_>, field: &str, slot: Slot<Vec<Item<String>>>) -> Option<u64> {
    let items = slot.given()?.value;
    let mut set = 0;
    for Item { value, at } in items {
        let upper = value.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let mut all = CapabilitySet::all().iter_names();
        if let Some((_, found)) = all.find(|(known, _)| *known == name) {
            set |= found.bits();
        } else {
            let names = &mut CapabilitySet::all().iter_names().map(|(name, _)| name);
            unknown(reader, (field, &at), ("capability", "capabilities(7)"), name, names);
        }
    }
    Some(set)
}

fn umask(reader: &mut Reader<'_>, slot: Slot<String>) -> Option<u32> {
    let Item { value, at } = slot.given()?;
    let mask = u32::from_str_radix(&value, 8).ok().filter(|mask| *mask <= 0o777 && !value.starts_with('+'));
    if mask.is_none() {
        let wrong = Wrong::new(format!("`{}` is no umask", short(&value)));
        reader.fault_in("umask", &at, wrong.hint("write it in octal, \"000\" to \"777\""));
    }
    mask
}

fn nice(reader: &mut Reader<'_>, slot: Slot<value::Source>) -> Option<i32> {
    let Item { value: value::Source(text), at } = slot.given()?;
    let nice = text.parse().ok().filter(|nice| (-20..=19).contains(nice));
    if nice.is_none() {
        let wrong = Wrong::new(format!("`{}` is no nice value", short(&text)));
        reader.fault_in("nice", &at, wrong.hint("it goes from -20, which gets the most time, to 19"));
    }
    nice
}

fn resource_limits(reader: &mut Reader<'_>, slot: Slot<Map<Word>>) -> Vec<(Resource, Rlimit)> {
    let entries = slot.given().map(|item| item.value).unwrap_or_default();
    let mut limits = Vec::new();
    for (name, Item { value: Word(text), at }) in entries {
        let found = RESOURCES.iter().find(|(known, _)| *known == name.value);
        let Some((_, resource)) = found else {
            let names = &mut RESOURCES.iter().map(|(name, _)| *name);
            unknown(reader, ("rlimits", &name.at), ("limit", "prlimit(1)"), &name.value, names);
            continue;
        };
        let (soft, hard) = text.split_once(':').unwrap_or((&text, &text));
        match limit(soft).and_then(|current| Ok(Rlimit { current, maximum: limit(hard)? })) {
            Ok(Rlimit { current, maximum }) if current.unwrap_or(u64::MAX) > maximum.unwrap_or(u64::MAX) => {
                let wrong = Wrong::new(format!("`{}` has a soft limit above the hard one", short(&text)));
                reader.fault_in("rlimits", &at, wrong.hint("write \"SOFT:HARD\""));
            }
            Ok(limit) => limits.push((*resource, limit)),
            Err(wrong) => reader.fault_in("rlimits", &at, wrong),
        }
    }
    limits
}

fn limit(text: &str) -> Result<Option<u64>, Wrong> {
    match text.trim() {
        "unlimited" | "infinity" => Ok(None),
        number => value::size_of(number).map(Some).map_err(|wrong| {
            wrong.hint(
                "write a number, a size such as \"64MiB\", \"unlimited\", or two of them as \"SOFT:HARD\"",
            )
        }),
    }
}

/// A word, its number for the kernel, and the numbers that may stand behind it in parentheses.
type Rank = (&'static str, u16, Option<(u16, u16)>);

/// include/uapi/linux/sched.h.
const SCHEDULERS: (&str, &[Rank]) = (
    "Other, Batch, Idle, Fifo(1) to Fifo(99) and RoundRobin(1) to RoundRobin(99)",
    &[
        ("Other", 0, None),
        ("Fifo", 1, Some((1, 99))),
        ("RoundRobin", 2, Some((1, 99))),
        ("Batch", 3, None),
        ("Idle", 5, None),
    ],
);

/// include/uapi/linux/ioprio.h.
const IO_CLASSES: (&str, &[Rank]) = (
    "Idle, BestEffort(0) to BestEffort(7) and RealTime(0) to RealTime(7)",
    &[("RealTime", 1, Some((0, 7))), ("BestEffort", 2, Some((0, 7))), ("Idle", 3, None)],
);

/// `Word` or `Word(7)`: the kernel's number of the word, and the 7.
fn ranked(
    reader: &mut Reader<'_>,
    field: &str,
    slot: Slot<value::Source>,
    (list, known): (&str, &[Rank]),
) -> Option<(u16, u16)> {
    let Item { value: value::Source(text), at } = slot.given()?;
    let (word, rank) = match text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        Some((word, rank)) => (word.trim(), Some(rank.trim())),
        None => (text.as_str(), None),
    };
    let found =
        known.iter().find(|(name, ..)| *name == word).and_then(|(_, number, range)| match (rank, range) {
            (None, None) => Some((*number, 0)),
            (Some(rank), Some((least, most))) => {
                rank.parse().ok().filter(|rank| least <= rank && rank <= most).map(|rank| (*number, rank))
            }
            _ => None,
        });
    if found.is_none() {
        let wrong = Wrong::new(format!("`{}` is none of {list}", short(&text)));
        reader.fault_in(field, &at, wrong.hint("write one of them, without quotes"));
    }
    found
}

/// The kernel's list format of cpuset(7): `0-3,8`.
fn cpus(reader: &mut Reader<'_>, slot: Slot<String>) -> Option<Box<CpuSet>> {
    let Item { value: text, at } = slot.given()?;
    let mut set = Box::new(CpuSet::new());
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bounds = (first.trim().parse::<usize>(), last.trim().parse::<usize>());
        match bounds {
            (Ok(first), Ok(last)) if first <= last && last < CpuSet::MAX_CPU => {
                (first..=last).for_each(|cpu| set.set(cpu));
            }
            _ => {
                let wrong = Wrong::new(format!("`{}` is no list of processors", short(&text)));
                reader.fault_in("cpus", &at, wrong.hint("write \"0\", \"0-1\" or \"0,2-3\""));
                return None;
            }
        }
    }
    Some(set)
}

/// Takes the `-` away that says that the path may be missing.
fn optional(text: &str) -> (&str, bool) {
    text.strip_prefix('-').map_or((text, false), |path| (path, true))
}

fn absolute(reader: &mut Reader<'_>, field: &str, path: &str, at: &Range<usize>) {
    if !path.starts_with('/') {
        let wrong = Wrong::new(format!("`{}` is not an absolute path", short(path)));
        reader.fault_in(field, at, wrong.hint("begin with /"));
    }
}

fn paths(reader: &mut Reader<'_>, field: &str, slot: Slot<Vec<Item<String>>>) -> Vec<Path> {
    let items = slot.given().map(|item| item.value).unwrap_or_default();
    let mut paths = Vec::new();
    for Item { value, at } in items {
        let (path, may_be_missing) = optional(&value);
        absolute(reader, field, path, &at);
        if path.starts_with('/') && path.trim_matches('/').is_empty() {
            let wrong = Wrong::new("this is everything, `/proc` and `/dev` too");
            reader.fault_in(field, &at, wrong.hint("name the folders below it: [\"/etc\", \"/usr\"]"));
        }
        paths.extend(c_string(reader, field, path, &at).map(|path| Path { path, may_be_missing }));
    }
    paths
}

/// The lines of the files, in their order. They are read once, with the unit.
pub(super) fn environment_files(reader: &mut Reader<'_>, slot: Slot<Vec<Item<String>>>) -> Vec<CString> {
    const FIELD: &str = "environment_files";
    let items = slot.given().map(|item| item.value).unwrap_or_default();
    let mut strings = Vec::new();
    for Item { value, at } in items {
        let (path, may_be_missing) = optional(&value);
        absolute(reader, FIELD, path, &at);
        let file = std::path::Path::new(path);
        if !path.starts_with('/') {
            continue;
        }
        let text = match load::read(file) {
            Ok(text) => text,
            Err(_) if !file.exists() => {
                if !may_be_missing {
                    let wrong = Wrong::new(format!("there is no file `{}`", short(path)));
                    reader.fault_in(FIELD, &at, wrong.hint("write it as \"-/path\" where it may be missing"));
                }
                continue;
            }
            Err(fault) => {
                reader.fault_in(FIELD, &at, Wrong::new(format!("`{}`: {}", short(path), fault.message)));
                continue;
            }
        };
        for (index, line) in text.lines().enumerate() {
            match variable(line) {
                Ok(string) => strings.extend(string),
                Err(()) => {
                    let wrong = format!("`{}`, line {}: this is not NAME=value", short(path), index + 1);
                    let hint = "a value may stand in quotes; a line that begins with # is left out";
                    reader.fault_in(FIELD, &at, Wrong::new(wrong).hint(hint));
                }
            }
        }
    }
    strings
}

/// A line of such a file: `NAME=value`, or nothing.
fn variable(line: &str) -> Result<Option<CString>, ()> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return Ok(None);
    }
    let (name, value) = line.split_once('=').ok_or(())?;
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(is_letter) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(());
    }
    let value = value.trim();
    let bare = |quote| value.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    let value = bare('"').or_else(|| bare('\'')).unwrap_or(value);
    CString::new(format!("{name}={value}")).map(Some).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use super::variable;

    #[test]
    fn lines_of_environment_files() {
        for (line, expected) in [
            ("A=b", Ok(Some(c"A=b"))),
            ("  A_1 = b", Err(())),
            ("A=", Ok(Some(c"A="))),
            ("A=b=c", Ok(Some(c"A=b=c"))),
            ("A=\"b c\"", Ok(Some(c"A=b c"))),
            ("A='b\"c'", Ok(Some(c"A=b\"c"))),
            ("A=\"b", Ok(Some(c"A=\"b"))),
            ("A=\"", Ok(Some(c"A=\""))),
            ("# A=b", Ok(None)),
            ("; A=b", Ok(None)),
            ("", Ok(None)),
            ("export A=b", Err(())),
            ("1A=b", Err(())),
            ("=b", Err(())),
            ("A", Err(())),
            ("A=\0", Err(())),
        ] {
            let expected = expected.map(|found| found.map(std::ffi::CStr::to_owned));
            assert_eq!(variable(line), expected, "{line}");
        }
    }
}
