//! The only unsafe code of the recorder: memory that is shared through a file, and memory that is
//! populated in one call.
//!
//! A mapping of whole 64-bit atomics, so that a reader in another process never sees half a word and no
//! access is a data race. Mappings live as long as the program: nothing here unmaps.

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous};
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU64;

/// The file's first `words` 64-bit words as shared memory (mmap(2), `MAP_SHARED`), all pages present.
///
/// # Errors
/// The file is shorter than that (`InvalidInput`: touching it would raise `SIGBUS`), or mmap(2) fails.
/// The file must be open for reading and writing where `writable` is set. Nobody may truncate it
/// afterwards.
pub(crate) fn map_words(file: &File, words: usize, writable: bool) -> io::Result<&'static [AtomicU64]> {
    let bytes = words.checked_mul(8).and_then(NonZeroUsize::new).ok_or(io::ErrorKind::InvalidInput)?;
    if file.metadata()?.len() < bytes.get() as u64 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is shorter than a ring"));
    }
    // A reader may map read-only: an atomic load never writes. Readers of this module only load.
    let mut protection = ProtFlags::PROT_READ;
    protection.set(ProtFlags::PROT_WRITE, writable);
    let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
    // SAFETY: the kernel chooses the address, so no memory of this program is replaced; the length is not
    // zero.
    let start = unsafe { mmap(None, bytes, protection, flags, file, 0) }?;
    // SAFETY: the mapping is `bytes` long, aligned to a page, never unmapped, and as long as the file;
    // every bit pattern is an `AtomicU64`; whoever else maps the file also uses atomic accesses only.
    Ok(unsafe { std::slice::from_raw_parts(start.as_ptr().cast::<AtomicU64>(), words) })
}

/// Maps so much anonymous memory, asks for huge pages or for small ones, and has the kernel fill all of it in one
/// call (madvise(2) `MADV_POPULATE_WRITE`, Linux 5.14; mmap(2) `MAP_POPULATE` where that is unknown).
///
/// The kernel gives up quietly where memory runs out, so the pages are touched afterwards, as a program
/// would.
///
/// # Errors
/// mmap(2) fails, for want of address space or of kernel memory.
pub(crate) fn populate(bytes: NonZeroUsize, huge: bool) -> io::Result<()> {
    let (protection, private) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
    let advice = if huge { MmapAdvise::MADV_HUGEPAGE } else { MmapAdvise::MADV_NOHUGEPAGE };
    // SAFETY: anonymous memory at an address that the kernel chooses; nothing of this program is replaced.
    let mut start = unsafe { mmap_anonymous(None, bytes, protection, private) }?;
    // SAFETY: exactly the mapping made above; this advice changes no content. It is only advice: errors
    // do not matter.
    let _ = unsafe { madvise(start, bytes.get(), advice) };
    // SAFETY: as above; the pages are filled with zeros, which they read as already.
    let populated = unsafe { madvise(start, bytes.get(), MmapAdvise::MADV_POPULATE_WRITE) };
    if populated == Err(nix::errno::Errno::EINVAL) {
        // SAFETY: as for the first mapping.
        start = unsafe { mmap_anonymous(None, bytes, protection, private | MapFlags::MAP_POPULATE) }?;
    }
    // SAFETY: the mapping is `bytes` long, writable, initialised with zeros, and known to nobody else.
    let memory = unsafe { std::slice::from_raw_parts_mut(start.as_ptr().cast::<u8>(), bytes.get()) };
    for page in memory.chunks_mut(4096) {
        if let Some(byte) = page.first_mut() {
            *byte = 1;
        }
    }
    std::hint::black_box(memory);
    Ok(())
}
