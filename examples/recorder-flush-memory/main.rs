//! A recorder that keeps its records in private memory, and the procedure that saves them out of it.
//!
//! `record OUT WITNESS` keeps its last 1000 records in memory that nobody shares, has stored a memfd that says where,
//! and leaks. `flush` is its shutdown procedure: it copies the records out of the frozen recorder's memory and writes
//! them through the recorder's own descriptor of OUT.

use lifeboat::procedure::Order;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many records are kept.
const SLOTS: u64 = 1_000;
/// From so many records on it leaks.
const LEAKS_FROM: u64 = 2_000;
/// Bytes of a number in memory.
const WORD: usize = size_of::<u64>();
/// What is no such table is not read.
const SLOTS_MAX: u64 = 1 << 16;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Says something by sd_notify(3), with descriptors.
fn notify(text: &str, descriptors: &[RawFd]) -> Outcome<()> {
    let to = UnixAddr::new(std::env::var("NOTIFY_SOCKET")?.as_str())?;
    let from = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let parts = [IoSlice::new(text.as_bytes())];
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
    sendmsg(from.as_raw_fd(), &parts, control, MsgFlags::empty(), Some(&to))?;
    Ok(())
}

/// The count of all records, and behind it the last ones, each in its slot. Leaks without end.
fn record(out: &str, witness: &str) -> Outcome<()> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(out)?;
    let witness = File::create(witness)?;
    let table: Vec<AtomicU64> = (0..=SLOTS).map(|_| AtomicU64::new(0)).collect();
    let told = memfd_create(c"ring", MFdFlags::MFD_CLOEXEC)?;
    let text = format!("{} {SLOTS} {}", table.as_ptr().addr(), file.as_raw_fd());
    File::from(told.try_clone()?).write_all(text.as_bytes())?;
    notify("FDSTORE=1\nFDNAME=ring", &[told.as_raw_fd()])?;
    notify("READY=1", &[])?;
    let (count, slots) = table.split_first().ok_or("no table")?;
    let mut leaked: Vec<Vec<u8>> = Vec::new();
    for number in 1.. {
        if let Some(slot) = slots.get(usize::try_from(number % SLOTS)?) {
            slot.store(number, Ordering::Release);
        }
        count.store(number, Ordering::Release);
        // For tests: what was committed is known without its memory.
        witness.write_all_at(&number.to_le_bytes(), 0)?;
        if number > LEAKS_FROM {
            leaked.push(vec![0xa5; 4_096]);
        }
    }
    Ok(())
}

/// Where the table is, how many slots it has, and the recorder's descriptor of its file.
fn told(ring: BorrowedFd<'_>) -> Outcome<(u64, u64, RawFd)> {
    let mut text = [0; 64];
    let length = File::from(ring.try_clone_to_owned()?).read_at(&mut text, 0)?;
    let text = std::str::from_utf8(text.get(..length).unwrap_or_default())?;
    let [address, slots, fd] = text.split(' ').collect::<Vec<_>>()[..] else {
        return Err(format!("no description of a ring: {text}").into());
    };
    let slots =
        slots.parse().ok().filter(|slots| (1..=SLOTS_MAX).contains(slots)).ok_or("no number of slots")?;
    Ok((address.parse()?, slots, fd.parse()?))
}

fn flush() -> Outcome<()> {
    let Some(order) = Order::wait()? else { return Ok(()) };
    let (address, slots, fd) = told(order.stored("ring").ok_or("the service has stored no ring")?)?;
    let victim = order.victim()?;
    let mut table = vec![0; (usize::try_from(slots)? + 1) * WORD];
    victim.read_memory(address, &mut table)?;
    let mut words =
        table.chunks_exact(WORD).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
    let count = words.next().unwrap_or(0);
    let words: Vec<u64> = words.collect();
    let mut saved = Vec::with_capacity(table.len());
    for number in count.saturating_sub(slots) + 1..=count {
        let kept = words.get(usize::try_from(number % slots)?).copied().unwrap_or(0);
        // The recorder may stand between a record and its count: the oldest slot is the newest record's then.
        saved.extend_from_slice(&kept.to_le_bytes());
    }
    let file = File::from(victim.duplicate_fd(fd)?);
    file.write_all_at(&saved, 0)?;
    file.sync_all()?;
    let (kept, left) = (saved.len() / WORD, order.remaining());
    let _ = writeln!(
        io::stdout(),
        "saved {kept} records out of private memory, {} ms were left",
        left.as_millis()
    );
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["record", out, witness] => record(out, witness),
        ["flush"] => flush(),
        _ => Err("usage: recorder-flush-memory record OUT WITNESS | flush".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recorder-flush-memory: {error}");
            ExitCode::FAILURE
        }
    }
}
