//! Writes a cpio archive in the `newc` form, which the Linux kernel unpacks as its initramfs.
//!
//! The form is described in the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`. We write it
//! ourselves because then device nodes need no root, and the archive is the same for the same content: entries
//! are sorted by name, owned by root, and dated 0.

use crate::error::{Error, Result};
use std::collections::BTreeMap;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// One file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Directory,
    File { mode: u32, content: Vec<u8> },
    Link { to: String },
    CharacterDevice { mode: u32, major: u32, minor: u32 },
}

/// An archive in the making: paths without a leading slash, and what is there.
///
/// # Invariants
/// - Whatever is added, its parent folders are there too: the kernel makes none by itself.
/// - A later entry at the same path replaces the earlier one, as an overlay does.
#[derive(Debug, Default, Clone)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Adds a folder (mode 0755).
    pub fn directory(&mut self, path: &str) {
        self.add(path, Entry::Directory);
    }

    /// Adds a regular file with the permission bits `mode`.
    pub fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        self.add(path, Entry::File { mode, content });
    }

    /// Adds a symbolic link; `to` may dangle.
    pub fn link(&mut self, path: &str, to: &str) {
        self.add(path, Entry::Link { to: to.to_owned() });
    }

    /// Adds a character device node with the permission bits `mode`.
    pub fn character_device(&mut self, path: &str, mode: u32, (major, minor): (u32, u32)) {
        self.add(path, Entry::CharacterDevice { mode, major, minor });
    }

    /// Whether something is at this path already.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path.trim_matches('/'))
    }

    fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        let parents = path.char_indices().filter(|&(_, c)| c == '/').filter_map(|(at, _)| path.get(..at));
        for parent in parents {
            self.entries.entry(parent.to_owned()).or_insert(Entry::Directory);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// When a file is 4 GiB or longer, which the form cannot say.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            let nothing: &[u8] = &[];
            let (mode, content, device) = match entry {
                Entry::Directory => (DIRECTORY | 0o755, nothing, (0, 0)),
                Entry::File { mode, content } => (REGULAR | mode, content.as_slice(), (0, 0)),
                Entry::Link { to } => (SYMLINK | 0o777, to.as_bytes(), (0, 0)),
                Entry::CharacterDevice { mode, major, minor } => {
                    (CHARACTER_DEVICE | mode, nothing, (*major, *minor))
                }
            };
            write_member(&mut out, path, (inode, mode, device), content)?;
        }
        write_member(&mut out, "TRAILER!!!", (0, 0, (0, 0)), &[])?;
        Ok(out)
    }
}

/// Writes the header, the name and the content of one member, each padded to four bytes.
fn write_member(
    out: &mut Vec<u8>,
    path: &str,
    (inode, mode, device): (u32, u32, (u32, u32)),
    content: &[u8],
) -> Result<()> {
    let size = u32::try_from(content.len())
        .map_err(|_| Error::new(format!("{path}: {} bytes are too many for an initramfs", content.len())))?;
    let name_size = u32::try_from(path.len() + 1)
        .map_err(|_| Error::new(format!("a path of {} bytes is too long for an initramfs", path.len())))?;
    let links = 1;
    let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0]
        .map(|n| format!("{n:08X}"));
    out.extend_from_slice(b"070701");
    out.extend_from_slice(fields.concat().as_bytes());
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
    Ok(())
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::Archive;

    fn text(archive: &Archive) -> String {
        archive.bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    #[test]
    fn an_empty_archive_is_its_trailer() {
        let zeros = "00000000".repeat(4);
        let expected =
            format!("070701{zeros}00000001{}0000000B00000000TRAILER!!!\0\0\0\0", "00000000".repeat(6));
        assert_eq!(text(&Archive::default()), expected);
    }

    #[test]
    fn members_are_sorted_padded_and_have_their_parents() {
        let mut archive = Archive::default();
        archive.file("/usr/bin/x", 0o755, b"12345".to_vec());
        archive.character_device("dev/null", 0o666, (1, 3));
        archive.link("init", "sbin/lifeboat");
        let text = text(&archive);
        let places: Vec<_> = ["dev\0", "dev/null\0", "init\0", "usr\0", "usr/bin\0", "usr/bin/x\0"]
            .map(|name| text.find(name))
            .into();
        assert!(places.iter().all(Option::is_some), "{text}");
        assert!(places.is_sorted(), "{places:?}");
        assert!(text.contains("12345\0\0\0"), "content is padded to four bytes: {text}");
        assert_eq!(text.len() % 4, 0);
    }

    #[test]
    fn a_later_entry_replaces_the_earlier_one() {
        let mut archive = Archive::default();
        archive.link("sbin/init", "/bin/busybox");
        archive.link("/sbin/init", "lifeboat");
        let text = text(&archive);
        assert!(text.contains("lifeboat") && !text.contains("busybox"), "{text}");
    }
}
