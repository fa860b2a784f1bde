//! The spool at start: whose directory it is, how much it may hold, what is in it.
//!
//! Runs before any worker, with plain blocking calls. What it must not do: make a full disk, or a damaged record, a reason
//! not to start.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use futures_lite::future::block_on;

use crate::egress::delivery::classify;
use crate::egress::{self, NextHop, Patience};
use crate::io::files::Files;
use crate::io::files::blocking::{BlockingFiles, make_state_dir};
use crate::io::files::lock::{Lock, LockFault};
use crate::spool::config::SpaceMax;
use crate::spool::{self, Geometry, RecoverFault, Report, Setup, Shard, Touch, recover};

/// The spool, taken over.
pub(super) struct Recovered {
    /// One for each worker; none where there is no spool.
    pub(super) shards: Vec<Option<Shard>>,
    /// Ours as long as this lives.
    pub(super) lock: Option<Lock>,
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

/// Takes the spool over, where there is one or is to be one: with `DELIVERY_PATIENCE=forever` only what is left of earlier
/// mail is delivered.
pub(super) fn take_over(
    config: &spool::Config,
    egress: &egress::Config,
    workers: u16,
) -> Result<Recovered, Fault> {
    let directory = config.state_dir.join(spool::DIRECTORY);
    if egress.delivery_patience == Patience::Forever && !directory.exists() {
        return Ok(Recovered { shards: (0..workers).map(|_| None).collect(), lock: None });
    }
    make_state_dir(&config.state_dir).map_err(|error| Fault::StateDir(config.state_dir.clone(), error))?;
    let lock = Lock::take(&directory).map_err(Fault::Lock)?;
    let octets_max = octets_max(config.space_max, &directory);
    let setup = Setup {
        geometry: Geometry::for_budget(octets_max, workers),
        octets_max,
        directory,
        workers,
        touch: Touch::Tidy,
    };
    let is_fixed = matches!(egress.next_hop, NextHop::Upstreams(_));
    let recovered = block_on(recover(&BlockingFiles, &setup, classify(is_fixed))).map_err(Fault::Recover)?;
    tell(&recovered.report);
    Ok(Recovered { shards: recovered.shards.into_iter().map(Some).collect(), lock: Some(lock) })
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
