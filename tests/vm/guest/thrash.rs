//! A program whose code does not fit beside its memory.

#![expect(unsafe_code, reason = "a file is mapped as code")]

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap};
use std::fs::File;
use std::num::NonZeroUsize;

const PAGE_BYTES: usize = 4096;

/// Holds memory, and works with so many pages of a file that they do not fit beside it. They are mapped as code is:
/// such pages count as worked with when they were used once (mm/vmscan.c, `folio_check_references`).
pub(crate) fn thrash(kib: &str, file: &str, pages: &str) -> Result<(), String> {
    let number = |text: &str| text.parse::<NonZeroUsize>().map_err(|_| format!("{text} is no number"));
    let (kib, pages) = (number(kib)?.get(), number(pages)?);
    let held = std::hint::black_box(vec![1_u8; kib << 10]);
    let opened = File::open(file).map_err(|error| format!("{file}: {error}"))?;
    let code = map_code(&opened, pages).map_err(|error| format!("{file}: {error}"))?;
    let mut at = held.len() as u64;
    loop {
        // Numbers of Knuth's MMIX generator; its upper bits are the random ones.
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let page = usize::try_from(at >> 33).unwrap_or(0) % pages;
        std::hint::black_box(code.get(page * PAGE_BYTES).copied());
    }
}

fn map_code(file: &File, pages: NonZeroUsize) -> Result<&'static [u8], nix::Error> {
    let bytes = pages.saturating_mul(const { NonZeroUsize::new(PAGE_BYTES).unwrap() });
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_EXEC;
    // SAFETY: the kernel chooses the address, so no memory of this program is replaced.
    let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_PRIVATE, file, 0) }?;
    // SAFETY: the mapping made above; the advice changes no content.
    unsafe { madvise(start, bytes.get(), MmapAdvise::MADV_RANDOM) }?;
    // SAFETY: the mapping is that long, never unmapped, and shorter than the file, which nobody writes.
    Ok(unsafe { std::slice::from_raw_parts(start.as_ptr().cast(), bytes.get()) })
}
