//! The spool as it is taken over: whose directory it is, how much it may hold, what is in it.
//!
//! Runs before any worker, or on a thread of the control plane's pool when a reload wants the first spool, with plain
//! blocking calls. What it must not do: make a full disk, or a damaged record, a reason not to start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, io};

use futures_lite::future::block_on;

use crate::egress::delivery::classify;
use crate::egress::{self, NextHop, Patience};
use crate::io::files::Files;
use crate::io::files::blocking::{BlockingFiles, make_state_dir};
use crate::io::files::lock::{Lock, LockFault};
use crate::spool::config::SpaceMax;
use crate::spool::{self, Berths, Geometry, RecoverFault, Report, Setup, Touch, recover};

/// The spool of this process, taken over or not.
pub(super) struct Home {
    /// Where the workers fetch their messages.
    pub(super) berths: Arc<Berths>,
    workers: u16,
    /// Ours as long as this lives.
    lock: Mutex<Option<Lock>>,
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

impl Home {
    /// A home for so many workers that nobody lives in yet.
    pub(super) fn new(workers: u16) -> Self {
        Self { berths: Arc::default(), workers, lock: Mutex::default() }
    }

    /// Takes the spool over, where there is one or is to be one: with `DELIVERY_PATIENCE=forever` only what is left of
    /// earlier mail is delivered. One that was taken over stays as it is.
    pub(super) fn take_over(&self, config: &spool::Config, egress: &egress::Config) -> Result<(), Fault> {
        let mut ours = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = config.state_dir.join(spool::DIRECTORY);
        let is_wanted = egress.delivery_patience != Patience::Forever || directory.exists();
        if ours.is_some() || !is_wanted {
            return Ok(());
        }
        make_state_dir(&config.state_dir)
            .map_err(|error| Fault::StateDir(config.state_dir.clone(), error))?;
        let lock = Lock::take(&directory).map_err(Fault::Lock)?;
        let octets_max = octets_max(config.space_max, &directory);
        let setup = Setup {
            geometry: Geometry::for_budget(octets_max, self.workers),
            octets_max,
            directory,
            workers: self.workers,
            touch: Touch::Tidy,
        };
        let is_fixed = matches!(egress.next_hop, NextHop::Upstreams(_));
        let recovered =
            block_on(recover(&BlockingFiles, &setup, classify(is_fixed))).map_err(Fault::Recover)?;
        tell(&recovered.report);
        self.berths.fill(recovered.shards);
        *ours = Some(lock);
        Ok(())
    }
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
    for damage in &report.damage {
        tracing::warn!(event = "spool_damage", place = ?damage);
    }
    for path in &report.strange {
        tracing::warn!(event = "spool_strange", path = %path.display());
    }
}
