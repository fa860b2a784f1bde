//! What recovery is asked for and what it hands over: the messages of each worker, and a report of what was seen.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::index::{Index, Slot, Summary};
use super::ledger::Unlink;
use super::record::FORMAT;
use super::scan::{Damage, Newer};
use super::segment::{Catalogue, Geometry, Segment, UseId};
use crate::units::{QueueId, WorkerId};

/// What is to be taken over, and by how many.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The spool's directory.
    pub directory: PathBuf,
    /// The sizes of what is made from now on.
    pub geometry: Geometry,
    /// `QUEUE_BYTES_MAX` in octets.
    pub octets_max: u64,
    /// Workers that share the messages; at least 1.
    pub workers: u16,
    /// Whether the disk may be changed: directories made, rests of unfinished work removed, damage copied aside.
    pub touch: Touch,
}

/// Whether a scan changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// It may.
    Tidy,
    /// It looks only: `queue fsck`.
    Nothing,
}

/// What was found.
#[derive(Debug)]
pub struct Recovered {
    /// One for each worker, in order.
    pub shards: Vec<Shard>,
    /// What the scan saw.
    pub report: Report,
}

/// The messages of one worker, for [`Spool::open`](super::Spool::open).
#[derive(Debug)]
pub struct Shard {
    pub(super) index: Index,
    pub(super) adopted: Arc<Adopted>,
    pub(super) sequence: u64,
    pub(super) unlinks: Vec<Unlink>,
    /// Records of settled messages whose tombstones are to be written again.
    pub(super) settled: Vec<Slot>,
}

/// The messages of a spool that was taken over, until their workers fetch them: when they start, or when a reload has opened
/// the spool.
#[derive(Debug, Default)]
pub struct Berths {
    shards: Mutex<Vec<Option<Shard>>>,
    /// A spool is wanted, and the disk has no room to make it yet.
    is_awaited: AtomicBool,
}

impl Berths {
    /// What was recovered, one shard for each worker.
    pub fn fill(&self, shards: Vec<Shard>) {
        *self.shards.lock().unwrap_or_else(PoisonError::into_inner) = shards.into_iter().map(Some).collect();
        self.is_awaited.store(false, Relaxed);
    }

    /// Says whether there will be a spool as soon as the disk has room for it.
    pub fn note_awaited(&self, is_awaited: bool) {
        self.is_awaited.store(is_awaited, Relaxed);
    }

    /// Whether there will be a spool as soon as the disk has room for it.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.is_awaited.load(Relaxed)
    }

    /// Whether messages wait for a worker.
    #[must_use]
    pub fn has_for(&self, worker: WorkerId) -> bool {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.get(usize::from(worker.0)).is_some_and(Option::is_some)
    }

    /// The messages of one worker; `None`: there is no spool, or it has fetched them.
    #[must_use]
    pub fn take(&self, worker: WorkerId) -> Option<Shard> {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.get_mut(usize::from(worker.0))?.take()
    }
}

/// The segments that were found, held until every worker has taken its share.
#[derive(Debug)]
pub(super) struct Adopted {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) segments: BTreeMap<UseId, Arc<Segment>>,
}

impl Drop for Adopted {
    fn drop(&mut self) {
        self.segments.values().for_each(|segment| self.catalogue.let_go(segment));
    }
}

/// What a scan saw, for the log and for `queue fsck`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments with records.
    pub segments: usize,
    /// Segments without.
    pub spares: usize,
    /// Archive files.
    pub archived: usize,
    /// Records that are whole.
    pub records: u64,
    /// Messages to be delivered.
    pub messages: u64,
    /// Octets of their bodies.
    pub octets: u64,
    /// Octets that should be records and are not. A write that a crash has torn looks like this too.
    pub damage: Vec<Damage>,
    /// Messages whose record is whole but lacks chunks, or says what cannot be.
    pub incomplete: Vec<QueueId>,
    /// Files that are no part of a spool.
    pub strange: Vec<PathBuf>,
    /// Blocks that the disk could not read.
    pub unreadable_blocks: u64,
}

/// Why a spool is not taken over.
#[derive(Debug)]
pub enum RecoverFault {
    /// It was written by a newer version: this is its format.
    Newer(u16),
    /// The disk says no.
    Io(PathBuf, io::Error),
}

impl std::fmt::Display for RecoverFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Newer(format) => {
                write!(f, "the spool has format {format}, and this version knows up to {FORMAT}")
            }
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for RecoverFault {}

impl From<Newer> for RecoverFault {
    fn from(newer: Newer) -> Self {
        Self::Newer(newer.0)
    }
}

impl Shard {
    /// All messages of this worker, for the schedule.
    pub fn summaries(&self) -> impl Iterator<Item = Summary> {
        self.index.summaries()
    }
}
