//! Which driver a worker runs on: the best ring that this kernel gives, else epoll.
//!
//! monoio does not fall back by itself when ring flags are refused, so the rungs are tried here, from the cheapest per
//! operation (task work run only when we ask for completions, -23 % CPU an operation) to the one that always works.

use std::fmt;
use std::future::Future;
use std::io;
use std::thread;

use io_uring::Builder;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

/// The rungs, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// io_uring with `DEFER_TASKRUN | SINGLE_ISSUER | COOP_TASKRUN` (Linux 6.1).
    DeferTaskrun,
    /// io_uring with `COOP_TASKRUN` (Linux 5.19).
    CoopTaskrun,
    /// io_uring without flags (Linux 5.11).
    Plain,
    /// epoll: old kernels, and containers whose seccomp profile forbids io_uring.
    Epoll,
}

impl Rung {
    /// All of them, best first.
    pub const ALL: [Self; 4] = [Self::DeferTaskrun, Self::CoopTaskrun, Self::Plain, Self::Epoll];

    /// Its name in logs, metrics and `RINGPOST_IO_DRIVER`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeferTaskrun => "io_uring-defer-taskrun",
            Self::CoopTaskrun => "io_uring-coop-taskrun",
            Self::Plain => "io_uring",
            Self::Epoll => "epoll",
        }
    }

    /// The rung of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rung| rung.name() == name)
    }

    fn ring(self) -> Builder {
        let mut ring = io_uring::IoUring::builder();
        // Two completions for each of 8,192 operations that may be under way on a worker at once.
        ring.setup_cqsize(SUBMISSIONS * COMPLETIONS_PER_SUBMISSION);
        match self {
            Self::DeferTaskrun => {
                ring.setup_coop_taskrun().setup_single_issuer().setup_defer_taskrun();
            }
            Self::CoopTaskrun => {
                ring.setup_coop_taskrun();
            }
            Self::Plain | Self::Epoll => {}
        }
        ring
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Submission queue entries of a worker's ring.
const SUBMISSIONS: u32 = 1024;
/// Completion queue entries for each of them.
const COMPLETIONS_PER_SUBMISSION: u32 = 16;

/// A worker's runtime, on whichever driver was had.
pub enum Driver {
    /// A ring.
    Ring(Box<Runtime<TimeDriver<IoUringDriver>>>),
    /// epoll.
    Epoll(Box<Runtime<TimeDriver<LegacyDriver>>>),
}

impl Driver {
    /// Runs a future, and what it spawns, until it ends.
    pub fn block_on<F: Future<Output = ()>>(&mut self, future: F) {
        match self {
            Self::Ring(runtime) => runtime.block_on(future),
            Self::Epoll(runtime) => runtime.block_on(future),
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring(_) => "Driver::Ring",
            Self::Epoll(_) => "Driver::Epoll",
        })
    }
}

/// Climbs from `best` down; to be called on the thread that will run it (the ring has a single issuer).
///
/// # Errors
/// The last rung's error, where not even epoll can be had.
pub fn build(best: Rung) -> io::Result<(Driver, Rung)> {
    let first = Rung::ALL.iter().position(|&rung| rung == best).unwrap_or(0);
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for rung in Rung::ALL.into_iter().skip(first) {
        match build_rung(rung) {
            Ok(driver) => return Ok((driver, rung)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn build_rung(rung: Rung) -> io::Result<Driver> {
    if rung == Rung::Epoll {
        let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
        return Ok(Driver::Epoll(Box::new(runtime)));
    }
    if !monoio::utils::detect_uring() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(SUBMISSIONS);
    Ok(Driver::Ring(Box::new(builder.uring_builder(rung.ring()).enable_timer().build()?)))
}

/// What of the kernel's abilities was found, for `ringpost version`: name and whether it is there.
///
/// The rings are made on a thread of their own. A ring that ends leaves work to the thread that made it, and until
/// that is done the kernel takes the thread for one with a signal pending: the verifier then refuses a program with
/// EAGAIN, and `version` said that there is no XDP (seen in 4 of 100 loads right behind three rings).
#[must_use]
pub fn abilities() -> Vec<(&'static str, bool)> {
    let rungs = thread::spawn(|| Rung::ALL.map(|rung| (rung.name(), build_rung(rung).is_ok())));
    rungs.join().map_or_else(|_| Vec::new(), Vec::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_rung_always_holds() {
        let (mut driver, _) = build(Rung::DeferTaskrun).unwrap();
        let mut ran = false;
        driver.block_on(async { ran = true });
        assert!(ran);
    }

    #[test]
    fn epoll_can_be_asked_for() {
        assert_eq!(build(Rung::Epoll).unwrap().1, Rung::Epoll);
        assert_eq!(Rung::named("epoll"), Some(Rung::Epoll));
    }
}
