//! The spool as it is taken over: whose directory it is, how much it may hold, what is in it.
//!
//! Runs before any worker, or on a thread of the control plane's pool when a reload wants the first spool, with plain
//! blocking calls. What it must not do: make a full disk, or a damaged record, a reason not to start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use futures_lite::future::block_on;

use crate::egress::delivery::classify;
use crate::egress::{self, NextHop, Patience};
use crate::io::files::Files;
use crate::io::files::blocking::{BlockingFiles, make_state_dir};
use crate::io::files::lock::{Lock, LockFault};
use crate::limits::SPOOL_REVIVE_INTERVAL;
use crate::spool::config::SpaceMax;
use crate::spool::{self, Berths, Geometry, RecoverFault, Report, Setup, Touch, recover};

/// The spool of this process, taken over or not.
pub(super) struct Home {
    /// Where the workers fetch their messages.
    pub(super) berths: Arc<Berths>,
    workers: u16,
    state: Mutex<State>,
}

/// Whose the spool is.
enum State {
    /// Nobody has asked for it.
    Unasked,
    /// There is no room to make it; what it is to be, and whether all mail goes to the same upstreams.
    Awaited(spool::Config, bool),
    /// Ours as long as this lives.
    Ours { _lock: Lock },
}

/// Why the spool cannot be used.
#[derive(Debug)]
pub enum Fault {
    /// `STATE_DIR` is not there and cannot be made.
    StateDir(PathBuf, io::Error),
    /// The spool is somebody else's.
    Lock(LockFault),
    /// It cannot be taken over.
    Recover(RecoverFault),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StateDir(path, error) => write!(f, "STATE_DIR={}: {error}", path.display()),
            Self::Lock(fault) => write!(f, "the spool in STATE_DIR: {fault}"),
            Self::Recover(fault) => write!(f, "the spool in STATE_DIR: {fault}"),
        }
    }
}

impl Fault {
    /// Whether room on the disk is all that it takes.
    fn is_want_of_room(&self) -> bool {
        let (Self::StateDir(_, error) | Self::Lock(LockFault::Io(_, error))) = self else { return false };
        matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
    }
}

impl Home {
    /// A home for so many workers that nobody lives in yet.
    pub(super) fn new(workers: u16) -> Self {
        Self { berths: Arc::default(), workers, state: Mutex::new(State::Unasked) }
    }

    /// Takes the spool over, where there is one or is to be one: with `DELIVERY_PATIENCE=forever` only what is left of
    /// earlier mail is delivered. One that was taken over stays as it is.
    ///
    /// At the start a full disk is no fault: the spool is awaited then, see [`Self::await_room`]. A reload that wants the
    /// first spool of this process must have it.
    pub(super) fn take_over(
        &self,
        config: &spool::Config,
        egress: &egress::Config,
        when: When,
    ) -> Result<(), Fault> {
        let mut state = self.state();
        if matches!(*state, State::Ours { .. }) {
            return Ok(());
        }
        if egress.delivery_patience == Patience::Forever && !directory_of(config).exists() {
            *state = State::Unasked;
            self.berths.note_awaited(false);
            return Ok(());
        }
        let may_wait = when == When::Starting || matches!(*state, State::Awaited(..));
        let is_fixed = matches!(egress.next_hop, NextHop::Upstreams(_));
        match self.open(config, is_fixed) {
            Ok(lock) => *state = State::Ours { _lock: lock },
            Err(fault) if may_wait && fault.is_want_of_room() => {
                tracing::error!(event = "spool_awaits_room", reason = %fault);
                *state = State::Awaited(config.clone(), is_fixed);
                self.berths.note_awaited(true);
            }
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    /// Looks every few seconds for room, as long as the spool is awaited. The workers find it in their berths.
    pub(super) async fn await_room(self: Arc<Self>) {
        while self.berths.is_awaited() {
            tokio::time::sleep(SPOOL_REVIVE_INTERVAL).await;
            let home = Arc::clone(&self);
            // A thread that could not be had is had the next time.
            let _ = tokio::task::spawn_blocking(move || home.look_for_room()).await;
        }
    }

    fn look_for_room(&self) {
        let mut state = self.state();
        let State::Awaited(config, is_fixed) = &*state else { return };
        match self.open(config, *is_fixed) {
            Ok(lock) => *state = State::Ours { _lock: lock },
            Err(fault) if fault.is_want_of_room() => {}
            // Somebody has put another one there meanwhile.
            Err(fault) => tracing::error!(event = "spool_awaits_room", reason = %fault),
        }
    }

    /// Locks the spool, scans it and leaves its messages in the berths.
    fn open(&self, config: &spool::Config, is_fixed: bool) -> Result<Lock, Fault> {
        make_state_dir(&config.state_dir)
            .map_err(|error| Fault::StateDir(config.state_dir.clone(), error))?;
        let directory = directory_of(config);
        let lock = Lock::take(&directory).map_err(Fault::Lock)?;
        let octets_max = octets_max(config.space_max, &directory);
        let setup = Setup {
            geometry: Geometry::for_budget(octets_max, self.workers),
            octets_max,
            directory,
            workers: self.workers,
            touch: Touch::Tidy,
        };
        let recovered =
            block_on(recover(&BlockingFiles, &setup, classify(is_fixed))).map_err(Fault::Recover)?;
        tell(&recovered.report);
        self.berths.fill(recovered.shards);
        Ok(lock)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a spool is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Before anything is served.
    Starting,
    /// At a reload.
    Reloading,
}

fn directory_of(config: &spool::Config) -> PathBuf {
    config.state_dir.join(spool::DIRECTORY)
}

/// `QUEUE_BYTES_MAX` in octets.
fn octets_max(space: SpaceMax, directory: &Path) -> u64 {
    match space {
        SpaceMax::Size(octets) => octets.0,
        SpaceMax::Percent(percent) => {
            // A file system that does not tell its size is foreseen by what it refuses.
            let total = block_on(BlockingFiles.space(directory)).map_or(u64::MAX, |space| space.total);
            total / 100 * u64::from(percent)
        }
    }
}

fn tell(report: &Report) {
    tracing::info!(
        event = "spool_recovered",
        messages = report.messages,
        octets = report.octets,
        segments = report.segments,
        archived = report.archived,
        damaged = report.damage.len(),
        incomplete = report.incomplete.len(),
    );
    for id in &report.incomplete {
        tracing::error!(event = "spool_incomplete", queue_id = %id);
    }
    if report.unreadable_blocks > 0 {
        // What they hold stays as it is, for a start that can read it.
        tracing::error!(event = "spool_unreadable", blocks = report.unreadable_blocks);
    }
    for damage in &report.damage {
        tracing::warn!(event = "spool_damage", place = ?damage);
    }
    for path in &report.strange {
        tracing::warn!(event = "spool_strange", path = %path.display());
    }
}
