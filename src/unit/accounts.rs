//! Users and groups, from `/etc/passwd` and `/etc/group` (passwd(5), group(5)).
//!
//! Own reading, because the C libraries' may load plug-ins or ask a daemon, and PID 1 must wait for neither.

use super::load;
use std::cell::OnceCell;
use std::path::Path;

/// The two files, read when the first unit names a user.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    passwd: OnceCell<String>,
    group: OnceCell<String>,
}

/// A line of `/etc/passwd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User<'a> {
    pub name: &'a str,
    pub uid: u32,
    pub gid: u32,
    pub home: &'a str,
    pub shell: &'a str,
}

impl Accounts {
    fn passwd(&self) -> &str {
        self.passwd.get_or_init(|| text("/etc/passwd"))
    }

    fn group(&self) -> &str {
        self.group.get_or_init(|| text("/etc/group"))
    }

    /// The user of this name or number.
    pub(super) fn user(&self, word: &str) -> Option<User<'_>> {
        let uid = id(word);
        self.passwd().lines().filter_map(user).find(|user| user.name == word || Some(user.uid) == uid)
    }

    /// The number of the group of this name.
    pub(super) fn gid(&self, name: &str) -> Option<u32> {
        self.group().lines().filter_map(group).find(|group| group.0 == name).map(|group| group.1)
    }

    /// The groups whose lines name this user.
    pub(super) fn gids_of(&self, user: &str) -> Vec<u32> {
        let groups = self.group().lines().filter_map(group);
        groups.filter(|group| group.2.split(',').any(|member| member == user)).map(|group| group.1).collect()
    }

    pub(super) fn user_names(&self) -> impl Iterator<Item = &str> {
        self.passwd().lines().filter_map(user).map(|user| user.name)
    }

    pub(super) fn group_names(&self) -> impl Iterator<Item = &str> {
        self.group().lines().filter_map(group).map(|group| group.0)
    }
}

/// A file that cannot be read names nobody.
fn text(file: &str) -> String {
    load::read(Path::new(file)).unwrap_or_default()
}

/// The number of a user or group. The highest means "as it is" to the kernel.
pub(super) fn id(word: &str) -> Option<u32> {
    word.parse().ok().filter(|id| *id != u32::MAX)
}

fn user(line: &str) -> Option<User<'_>> {
    let mut fields = line.split(':');
    let mut next = || fields.next();
    let (name, _password, uid, gid) = (next()?, next()?, id(next()?)?, id(next()?)?);
    let (_words, home, shell) = (next()?, next()?, next()?);
    let or = |text: &'_ str, otherwise: &'static str| if text.is_empty() { Some(otherwise) } else { None };
    let (home, shell) = (or(home, "/").unwrap_or(home), or(shell, "/bin/sh").unwrap_or(shell));
    Some(User { name, uid, gid, home, shell })
}

/// Name, number and members.
fn group(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let mut next = || fields.next();
    let (name, _password, gid) = (next()?, next()?, id(next()?)?);
    Some((name, gid, next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(passwd: &str, group: &str) -> Accounts {
        Accounts { passwd: OnceCell::from(passwd.to_owned()), group: OnceCell::from(group.to_owned()) }
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let text = "root:x:0:0:root:/root:/bin/bash\n# a word\n\nshort:x:7\nbad:x:one:1::/:\n\
                    log:x:200:300:Data logger,,,:/data:/bin/false\nbare:x:5:5:::\nall:x:4294967295:1::/:/x\n";
        let accounts = accounts(text, "");
        let log = User { name: "log", uid: 200, gid: 300, home: "/data", shell: "/bin/false" };
        let bare = User { name: "bare", uid: 5, gid: 5, home: "/", shell: "/bin/sh" };
        let cases = [
            ("log", Some(log)),
            ("200", Some(log)),
            ("bare", Some(bare)),
            ("lo", None),
            ("", None),
            ("7", None),
        ];
        for (word, expected) in cases {
            assert_eq!(accounts.user(word), expected, "{word}");
        }
        for word in ["short", "bad", "all", "4294967295", "# a word"] {
            assert_eq!(accounts.user(word), None, "{word}");
        }
    }

    #[test]
    fn groups_and_their_members() {
        let accounts =
            accounts("", "root:x:0:\ndialout:x:20:log,other\nvideo:x:44:log\nempty:x:9\nbad:x:y:log\n");
        assert_eq!(accounts.gids_of("log"), [20, 44]);
        assert_eq!(accounts.gids_of("lo"), [0; 0]);
        for (name, gid) in [("root", Some(0)), ("dialout", Some(20)), ("empty", Some(9)), ("bad", None)] {
            assert_eq!(accounts.gid(name), gid, "{name}");
        }
    }
}
