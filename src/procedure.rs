//! For authors of shutdown procedures: the order that lets one go, and the frozen service that it saves.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use lifeboat::procedure::Order;
//! let Some(order) = Order::wait()? else { return Ok(()) };
//! let mut bytes = [0; 4096];
//! order.victim()?.read_memory(0x7f00_0000_0000, &mut bytes)?;
//! # Ok(())
//! # }
//! ```
//!
//! The same program may be parked or resident: [`Order::wait`] comes back at once in a parked one. To read a service's
//! memory and to copy its descriptors a procedure needs to be the same user, and the service one that can be dumped, or
//! `CAP_SYS_PTRACE` (ptrace(2), "Ptrace access mode checking"; with Yama's `ptrace_scope` above 0 always that).

use crate::sys::error::SysError;
use crate::sys::handed::{copy_of, read_line};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// An order is no longer: its words, and as many names as a service may store.
const LINE_BYTES_MAX: usize = 32 << 10;

/// Of a line of `/proc/PID/maps`: a path of 4096 bytes may have each of them written as four.
const MAPPING_BYTES_MAX: u64 = 20 << 10;

/// The first descriptor of sd_listen_fds(3).
const LISTEN_FDS_START: RawFd = 3;

/// What a procedure is told and given when it is let go.
#[derive(Debug)]
pub struct Order {
    reason: String,
    main_pid: u32,
    deadline: Option<Instant>,
    pidfd: Option<OwnedFd>,
    cgroup: Option<OwnedFd>,
    stored: Vec<(String, OwnedFd)>,
}

impl Order {
    /// In a resident procedure: waits for the order; `None` where nobody will need the procedure any more, and it
    /// should end. In a parked one: what is in its environment, at once.
    ///
    /// # Errors
    /// Where a variable of the environment, or a word of the order, is missing or makes no sense.
    pub fn wait() -> Result<Option<Self>, SysError> {
        let variable = |name: &str| std::env::var(name).ok();
        let Some(number) = variable("LIFEBOAT_GO_FD") else {
            return Self::of_environment(&variable).map(Some);
        };
        let failed = |cause: io::Error| SysError::new("read the order from", "LIFEBOAT_GO_FD", cause);
        let number = number.parse().map_err(|_| failed(ErrorKind::InvalidData.into()))?;
        let socket = copy_of(number).map_err(failed)?;
        let (line, descriptors) = read_line(socket.as_fd(), LINE_BYTES_MAX).map_err(failed)?;
        if line.is_empty() {
            return Ok(None);
        }
        let text = std::str::from_utf8(&line).map_err(|_| failed(ErrorKind::InvalidData.into()))?;
        Self::of_line(text, descriptors).map(Some)
    }

    /// The order of a parked procedure.
    fn of_environment(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, SysError> {
        let mut order = Self::told(variable)?;
        let copied = |name: &str| {
            let Some(number) = variable(name) else { return Ok(None) };
            let number = number.parse().map_err(|_| nonsense(name))?;
            copy_of(number).map(Some).map_err(|cause| SysError::new("copy the descriptor of", name, cause))
        };
        order.pidfd = copied("LIFEBOAT_PIDFD")?;
        order.cgroup = copied("LIFEBOAT_CGROUP_FD")?;
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        // Not only for the process of LISTEN_PID: a script may have its saving done by a program.
        let names = Some(names.as_str()).filter(|names| !names.is_empty()).into_iter();
        for (number, name) in (LISTEN_FDS_START..).zip(names.flat_map(|names| names.split(':'))) {
            let fd = copy_of(number).map_err(|cause| SysError::new("copy the stored", name, cause))?;
            order.stored.push((name.to_owned(), fd));
        }
        Ok(order)
    }

    /// The order of a resident one. What has not come, or not all of it, is left out: the rest is better than nothing.
    fn of_line(line: &str, descriptors: Vec<OwnedFd>) -> Result<Self, SysError> {
        let (words, names) =
            line.trim_end_matches('\n').split_once(" NAMES=").ok_or_else(|| nonsense("NAMES"))?;
        let word = |name: &str| {
            let mut values = words.split(' ').filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            values.next().map(str::to_owned)
        };
        let count =
            |name: &str| word(name).and_then(|it| it.parse::<usize>().ok()).ok_or_else(|| nonsense(name));
        let mut order = Self::told(&word)?;
        let (pidfds, cgroups, stored) = (count("PIDFDS")?, count("CGROUPS")?, count("STORED")?);
        if pidfds <= 1 && cgroups <= 1 && stored.checked_add(pidfds + cgroups) == Some(descriptors.len()) {
            let mut descriptors = descriptors.into_iter();
            let names = names.split(':').map(str::to_owned);
            order.stored = names.zip(descriptors.by_ref().take(stored)).collect();
            order.pidfd = descriptors.by_ref().take(pidfds).next();
            order.cgroup = descriptors.next();
        }
        Ok(order)
    }

    fn told(word: &dyn Fn(&str) -> Option<String>) -> Result<Self, SysError> {
        let reason = word("LIFEBOAT_REASON").ok_or_else(|| nonsense("LIFEBOAT_REASON"))?;
        let number =
            |name: &str| word(name).and_then(|it| it.parse::<u32>().ok()).ok_or_else(|| nonsense(name));
        // Not there where the service has no first process any more.
        let main_pid = word("LIFEBOAT_MAINPID").map_or(Ok(0), |_| number("LIFEBOAT_MAINPID"))?;
        let deadline_ms = number("LIFEBOAT_DEADLINE_MS")?;
        let deadline = Instant::now().checked_add(Duration::from_millis(deadline_ms.into()));
        Ok(Self { reason, main_pid, deadline, pidfd: None, cgroup: None, stored: Vec::new() })
    }

    /// Why: `exhaustion`, `kernel-oom-kill`, `stop`, `failure` or `drill`.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What is left of its time: then it is killed, and the service with it.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// What the service has stored under a name (`FDSTORE=1` of sd_notify(3)).
    #[must_use]
    pub fn stored(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.stored.iter().find(|(known, _)| known == name).map(|(_, fd)| fd.as_fd())
    }

    /// The folder of the service's cgroup.
    #[must_use]
    pub fn cgroup(&self) -> Option<BorrowedFd<'_>> {
        self.cgroup.as_ref().map(AsFd::as_fd)
    }

    /// The service's first process.
    ///
    /// # Errors
    /// `ESRCH` where it is gone, `EACCES` or `EPERM` where its memory may not be read.
    pub fn victim(&self) -> Result<Victim, SysError> {
        let path = format!("/proc/{}/mem", self.main_pid);
        let failed = |cause: io::Error| SysError::new("open", path.clone(), cause);
        let pidfd = match &self.pidfd {
            Some(pidfd) => pidfd.try_clone().map_err(failed)?,
            None => {
                let pid = i32::try_from(self.main_pid).ok().and_then(Pid::from_raw);
                let pid = pid.ok_or_else(|| failed(ErrorKind::NotFound.into()))?;
                pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| failed(errno.into()))?
            }
        };
        let memory = File::open(&path).map_err(failed)?;
        Ok(Victim { pid: self.main_pid, memory, pidfd })
    }
}

fn nonsense(name: &str) -> SysError {
    SysError::new("find a sound value of", name, io::Error::from(ErrorKind::InvalidData))
}

/// The first process of a service that stands still.
#[derive(Debug)]
pub struct Victim {
    pid: u32,
    memory: File,
    pidfd: OwnedFd,
}

/// A part of its address space: a line of proc_pid_maps(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its first address.
    pub start: u64,
    /// The first one behind it.
    pub end: u64,
    /// As the kernel shows it: `rw-p`.
    pub permissions: String,
    /// A path, `[heap]`, `[anon:NAME]`; empty where it has none.
    pub name: String,
}

impl Victim {
    /// Reads so many bytes of its memory, all or none.
    ///
    /// # Errors
    /// `EIO` where nothing is mapped there.
    pub fn read_memory(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.memory.read_exact_at(bytes, address)
    }

    /// What is mapped, in the order of the addresses, a line at a time.
    ///
    /// # Errors
    /// Of open(2).
    pub fn mappings(&self) -> io::Result<impl Iterator<Item = io::Result<Mapping>> + use<>> {
        let mut lines = BufReader::new(File::open(format!("/proc/{}/maps", self.pid))?);
        Ok(std::iter::from_fn(move || {
            let mut line = Vec::new();
            match lines.by_ref().take(MAPPING_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) => None,
                Ok(_) => Some(mapping(&line).ok_or_else(|| ErrorKind::InvalidData.into())),
                Err(error) => Some(Err(error)),
            }
        }))
    }

    /// A copy of one of its descriptors, which shares the open file with it: pidfd_getfd(2).
    ///
    /// # Errors
    /// `EBADF` where it has none of this number, `EPERM`, `ENOSYS` before Linux 5.6.
    pub fn duplicate_fd(&self, number: RawFd) -> io::Result<OwnedFd> {
        Ok(pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty())?)
    }
}

/// `7f00-7f10 rw-p 00000000 08:01 1234   /a path`.
fn mapping(line: &[u8]) -> Option<Mapping> {
    let line = String::from_utf8_lossy(line.strip_suffix(b"\n")?).into_owned();
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let address = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    let permissions = words.next()?.to_owned();
    let name = words.nth(3).unwrap_or_default().trim_start().to_owned();
    Some(Mapping { start, end, permissions, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "LIFEBOAT_REASON=stop LIFEBOAT_MAINPID=7 LIFEBOAT_DEADLINE_MS=2000";

    fn null() -> OwnedFd {
        File::open("/dev/null").expect("the null device").into()
    }

    #[test]
    fn a_line_is_an_order() {
        let line = format!("{WORDS} PIDFDS=1 CGROUPS=1 STORED=2 NAMES=a:b c\n");
        let order = Order::of_line(&line, (0..4).map(|_| null()).collect()).expect("an order");
        assert_eq!((order.reason(), order.main_pid), ("stop", 7));
        assert!(order.remaining() <= Duration::from_secs(2));
        assert!(order.stored("a").is_some() && order.stored("b c").is_some() && order.stored("c").is_none());
        assert!(order.pidfd.is_some() && order.cgroup().is_some());
        // Not all has come: nobody can tell what is what.
        let order = Order::of_line(&line, vec![null()]).expect("an order");
        assert!(order.stored("a").is_none() && order.pidfd.is_none() && order.cgroup().is_none());
    }

    #[test]
    fn what_is_no_order_says_what_is_missing() {
        let check = |line: &str, missing: &str| {
            let error = Order::of_line(line, Vec::new()).expect_err(line).to_string();
            assert!(error.contains(missing), "{line}: {error}");
        };
        let most = u64::MAX;
        check("", "NAMES");
        check("x NAMES=", "LIFEBOAT_REASON");
        check("LIFEBOAT_REASON=stop NAMES=", "LIFEBOAT_DEADLINE_MS");
        check("LIFEBOAT_REASON=stop LIFEBOAT_MAINPID=-1 NAMES=", "LIFEBOAT_MAINPID");
        check(&format!("{WORDS} NAMES="), "PIDFDS");
        check(&format!("{WORDS} PIDFDS=1 CGROUPS=0 STORED={most}0 NAMES="), "STORED");
        assert!(
            Order::of_line(&format!("{WORDS} PIDFDS={most} CGROUPS={most} STORED={most} NAMES="), Vec::new())
                .is_ok()
        );
        let parked = Order::of_environment(&|name| (name != "LIFEBOAT_DEADLINE_MS").then(|| "1".to_owned()));
        assert!(parked.expect_err("no deadline").to_string().contains("LIFEBOAT_DEADLINE_MS"));
    }

    #[test]
    fn a_process_reads_itself() {
        let text = format!(
            "LIFEBOAT_REASON=stop LIFEBOAT_MAINPID={} LIFEBOAT_DEADLINE_MS=1 \
                            PIDFDS=0 CGROUPS=0 STORED=0 NAMES=",
            std::process::id()
        );
        let victim =
            Order::of_line(&text, Vec::new()).and_then(|order| order.victim()).expect("this process");
        let (known, mut bytes) = (*b"private bytes", [0; 13]);
        let address = std::ptr::from_ref(&known) as u64;
        victim.read_memory(address, &mut bytes).expect("its own stack");
        assert_eq!(bytes, known);
        let stack = victim
            .mappings()
            .expect("maps")
            .filter_map(Result::ok)
            .find(|it| it.start <= address && address < it.end);
        assert_eq!(stack.expect("its stack").permissions, "rw-p");
        assert!(victim.read_memory(16, &mut bytes).is_err());
        assert!(victim.duplicate_fd(1).is_ok() && victim.duplicate_fd(100_000).is_err());
    }

    #[test]
    fn lines_of_maps() {
        let of = |line: &str| mapping(line.as_bytes()).map(|it| (it.start, it.end, it.permissions, it.name));
        let expected = |name: &str| Some((0x1000, 0x2000, "rw-p".to_owned(), name.to_owned()));
        assert_eq!(of("1000-2000 rw-p 00000000 08:01 12      /a b\n"), expected("/a b"));
        assert_eq!(of("1000-2000 rw-p 00000000 00:00 0 \n"), expected(""));
        assert_eq!(of("1000-2000 rw-p 00000000 00:00 0 [anon:ring]\n"), expected("[anon:ring]"));
        for hostile in
            ["", "\n", "1000-2000 rw-p", "-", "x-y rw-p\n", "1000 rw-p\n", "1000-fffffffffffffffff rw-p\n"]
        {
            assert_eq!(of(hostile), None, "{hostile:?}");
        }
    }
}
