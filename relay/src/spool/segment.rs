//! The segments of a spool, shared by its workers: which are in use, which are spare, which may be used again.
//!
//! A segment is a file of fixed length whose zeros were really written. It is used by one worker at a time, from front to
//! back; used again it gets the next epoch, which makes every older record in it invalid at once.
//!
//! **Retiring.** When nothing in a closed segment is needed any more, its first block is overwritten, durably, with a header
//! of the next epoch; then it is spare. A segment is needed as long as
//!
//! 1. somebody holds it: a live message has its record, a chunk or its latest state there, or a worker is writing it;
//! 2. it awaits another: it has a tombstone (a DONE record) or a copy of a message whose older record stands in a segment
//!    that is not retired yet. Without the tombstone a restart would bring the message back to life.
//!
//! A segment awaits only segments that were opened before it, so there is no circle.
//!
//! Locks are taken when a segment is opened, closed or retired, never per message.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::aim::Aim;
use super::record::{HEADER_OCTETS, Header, Kind, Site};
use super::reserve::Purpose;
use crate::io::files::{Aligned, BLOCK_OCTETS};
use crate::units::WorkerId;

/// The sizes that a spool is built of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Octets of a segment; a multiple of [`BLOCK_OCTETS`].
    pub segment_octets: u64,
    /// Octets of a batch, from which on committers wait for the next one.
    pub batch_octets: usize,
    /// Octets of a body that stand in its message's own record; a longer one is split into chunks of this size.
    pub chunk_octets: usize,
    /// Spare segments that are made ahead, for each worker.
    pub spares: usize,
}

impl Geometry {
    /// The sizes for a spool that may take this many octets of disk with so many workers.
    #[must_use]
    pub fn for_budget(octets_max: u64, workers: u16) -> Self {
        let share = octets_max / (8 * (u64::from(workers) + 1));
        let segment_octets = share.clamp(SEGMENT_OCTETS_MIN, SEGMENT_OCTETS_MAX);
        let segment_octets = segment_octets - segment_octets % BLOCK_OCTETS as u64;
        let part = usize::try_from(segment_octets / 4).unwrap_or(BATCH_OCTETS_MAX);
        let batch_octets = part.min(BATCH_OCTETS_MAX);
        Self {
            segment_octets,
            batch_octets,
            chunk_octets: (batch_octets / 2).min(CHUNK_OCTETS_MAX),
            spares: 1,
        }
    }

    /// Octets of the longest payload that fits a segment.
    #[must_use]
    pub(super) fn payload_octets_max(&self) -> usize {
        let room = self.segment_octets.saturating_sub((BLOCK_OCTETS + HEADER_OCTETS) as u64);
        usize::try_from(room).unwrap_or(usize::MAX).min(super::record::PAYLOAD_OCTETS_MAX)
    }
}

/// The smallest segment. A spool needs two of them for each worker, and one more, before it takes any mail.
const SEGMENT_OCTETS_MIN: u64 = 1024 * 1024;
/// The largest segment.
const SEGMENT_OCTETS_MAX: u64 = 64 * 1024 * 1024;
/// The largest batch that committers are let into.
const BATCH_OCTETS_MAX: usize = 1024 * 1024;
/// The largest chunk.
const CHUNK_OCTETS_MAX: usize = 256 * 1024;
/// Spare segments that are kept for each worker; more are given back to the file system.
const SPARES_KEPT: usize = 4;

/// How many times `QUEUE_BYTES_MAX` what is no mail may take at most.
const BOOKS_BUDGET_FACTOR: u64 = 2;

/// Names one use of one segment while this process lives; 0 names none.
pub(super) type UseId = u32;

/// One use of a segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: UseId,
    pub(super) number: u32,
    pub(super) epoch: u64,
    pub(super) octets: u64,
    /// Workers that have something live here, and the one that writes it.
    holders: AtomicU32,
    /// Octets of live records, over all workers.
    live: AtomicU64,
    /// Octets of those that are owed a tombstone.
    owed: AtomicU64,
    /// A write failed here: nothing more is written, and the file is removed rather than used again.
    bad: AtomicBool,
    /// It holds copies of what was moved: it is as dense as moving makes it.
    packed: AtomicBool,
    awaits: Mutex<BTreeSet<UseId>>,
}

impl Segment {
    pub(super) fn site(&self, offset: u64) -> Site {
        Site { segment: self.number, epoch: self.epoch, offset }
    }

    pub(super) fn add_live(&self, octets: u64) {
        self.live.fetch_add(octets, Relaxed);
    }

    pub(super) fn sub_live(&self, octets: u64) {
        self.live.fetch_sub(octets, Relaxed);
    }

    pub(super) fn hold(&self) {
        self.holders.fetch_add(1, Relaxed);
    }

    pub(super) fn mark_bad(&self) {
        self.bad.store(true, Relaxed);
    }

    pub(super) fn is_bad(&self) -> bool {
        self.bad.load(Relaxed)
    }

    /// It must not be used again before that one is retired.
    pub(super) fn wait_for(&self, other: UseId) {
        if other != self.id && other != 0 {
            lock(&self.awaits).insert(other);
        }
    }

    pub(super) fn mark_packed(&self) {
        self.packed.store(true, Relaxed);
    }

    pub(super) fn add_owed(&self, octets: u64) {
        self.owed.fetch_add(octets, Relaxed);
    }

    pub(super) fn sub_owed(&self, octets: u64) {
        self.owed.fetch_sub(octets, Relaxed);
    }

    /// Octets that live in it, over all workers. What is owed a tombstone does not live.
    pub(super) fn live_octets(&self) -> u64 {
        self.live.load(Relaxed).saturating_sub(self.owed.load(Relaxed))
    }

    /// Whether so little of it is live that copying that away is worth the segment. Where room is wanted almost anything is
    /// worth it, once: what was copied lies dense.
    pub(super) fn is_sparse(&self, room: Room) -> bool {
        let live = self.live_octets();
        let eighths = match (room, self.packed.load(Relaxed)) {
            (Room::There, _) => 2,
            (Room::Wanted, true) => 4,
            (Room::Wanted, false) => 7,
        };
        self.is_bad() || live * 8 < self.octets * eighths
    }
}

/// Whether a spool has room for mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// It has.
    There,
    /// It has not: segments are emptied sooner.
    Wanted,
}

/// A segment that nothing is written to yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spare {
    pub(super) number: u32,
    pub(super) epoch: u64,
    pub(super) octets: u64,
}

/// All segments of a spool. Shared by its workers.
#[derive(Debug)]
pub struct Catalogue {
    directory: PathBuf,
    geometry: Geometry,
    pub(super) workers: u16,
    octets_max: AtomicU64,
    /// Octets that the file system has left for segments, as it was last asked.
    pub(super) disk_available: AtomicU64,
    /// The last segment could not be made, for another reason than want of space.
    pub(super) is_failing: AtomicBool,
    archive_octets: AtomicU64,
    /// Counts the occasions to look for work, so that a keeper that was busy at one does not miss it.
    occasions: AtomicU64,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) uses: HashMap<UseId, Arc<Segment>>,
    pub(super) spares: BTreeMap<u32, Spare>,
    /// Segments that nobody holds, to be retired as soon as they await nothing.
    idle: Vec<Arc<Segment>>,
    last_use: UseId,
    last_number: u32,
    /// Octets of the files that are used, spare or being made.
    pub(super) octets: u64,
    keepers: Vec<Option<Waker>>,
    pub(super) aim: Aim,
}

impl Catalogue {
    pub(super) fn new(directory: &Path, geometry: Geometry, workers: u16, octets_max: u64) -> Self {
        let keepers = vec![None; usize::from(workers)];
        Self {
            directory: directory.to_owned(),
            geometry,
            workers,
            octets_max: AtomicU64::new(octets_max),
            disk_available: AtomicU64::new(u64::MAX),
            is_failing: AtomicBool::new(false),
            archive_octets: AtomicU64::new(0),
            occasions: AtomicU64::new(0),
            books: Mutex::new(Books { keepers, ..Books::default() }),
        }
    }

    /// The sizes in force.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// `QUEUE_BYTES_MAX` in octets, from now on.
    pub fn set_octets_max(&self, octets: u64) {
        self.octets_max.store(octets, Relaxed);
        self.wake();
    }

    /// Octets of disk that the spool takes: its segments, spare ones included, and its archive.
    #[must_use]
    pub fn disk_octets(&self) -> u64 {
        self.books().octets + self.archive_octets.load(Relaxed)
    }

    /// Octets that segments may take.
    pub(super) fn budget(&self) -> u64 {
        self.octets_max.load(Relaxed).saturating_sub(self.archive_octets.load(Relaxed))
    }

    pub(super) fn add_archive(&self, octets: u64) {
        self.archive_octets.fetch_add(octets, Relaxed);
    }

    pub(super) fn sub_archive(&self, octets: u64) {
        self.archive_octets.fetch_sub(octets, Relaxed);
    }

    /// The file of a segment.
    pub(super) fn path(&self, number: u32) -> PathBuf {
        self.directory.join(SEGMENTS).join(format!("{number:08x}.seg"))
    }

    /// The file of an archived message.
    pub(super) fn archive_path(&self, id: crate::units::QueueId) -> PathBuf {
        self.directory.join(ARCHIVE).join(format!("{id}.msg"))
    }

    /// Where an archived message is gathered until it is whole.
    pub(super) fn archive_draft_path(&self, id: crate::units::QueueId) -> PathBuf {
        self.directory.join(ARCHIVE).join(format!("{id}.tmp"))
    }

    /// The directory itself, for asking how much room there is.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A segment that was found at start, held by the caller.
    pub(super) fn adopt(&self, spare: Spare) -> Arc<Segment> {
        let mut books = self.books();
        books.note(spare);
        books.enter(spare, 1)
    }

    /// Numbers a segment that is about to be made; `None` where the budget is used up. What must be written though there is
    /// no spare segment at all may go beyond: segments that went bad count too, and only what is written gives them back.
    pub(super) fn plan(&self, purpose: Purpose) -> Option<Spare> {
        let mut books = self.books();
        let octets = self.geometry.segment_octets;
        let is_bare = books.spares.is_empty() && purpose != Purpose::Mail;
        let most = if is_bare { self.budget().saturating_mul(BOOKS_BUDGET_FACTOR) } else { self.budget() };
        if books.octets + octets > most {
            return None;
        }
        books.octets += octets;
        books.last_number += 1;
        Some(Spare { number: books.last_number, epoch: first_epoch(books.last_number), octets })
    }

    /// The planned segment could not be made.
    pub(super) fn plan_failed(&self, spare: Spare) {
        self.books().octets -= spare.octets;
    }

    /// The planned segment is there.
    pub(super) fn plan_made(&self, spare: Spare) {
        self.is_failing.store(false, Relaxed);
        self.books().spares.insert(spare.number, spare);
    }

    /// A spare segment that was found at start.
    pub(super) fn adopt_spare(&self, spare: Spare) {
        let mut books = self.books();
        books.note(spare);
        books.spares.insert(spare.number, spare);
    }

    /// One holder lets go of a segment.
    pub(super) fn let_go(&self, segment: &Arc<Segment>) {
        if segment.holders.fetch_sub(1, Relaxed) == 1 {
            self.books().idle.push(Arc::clone(segment));
            self.wake();
        }
    }

    /// Takes out a segment that may be retired now.
    pub(super) fn take_retirable(&self) -> Option<Arc<Segment>> {
        let mut books = self.books();
        let found = books.idle.iter().position(|segment| !books.holds_back(segment))?;
        Some(books.idle.swap_remove(found))
    }

    /// Whether a segment must not be retired before others are.
    pub(super) fn holds_back(&self, segment: &Segment) -> bool {
        self.books().holds_back(segment)
    }

    /// What is to be done with a segment that is retired: its next use, or none if the file is to be removed.
    pub(super) fn next_use(&self, segment: &Segment) -> Option<Spare> {
        let kept = SPARES_KEPT * usize::from(self.workers);
        let enough = self.books().spares.len() >= kept || segment.octets != self.geometry.segment_octets;
        let epoch = if keeps_epoch() { segment.epoch } else { segment.epoch + 1 };
        let next = Spare { number: segment.number, epoch, octets: segment.octets };
        (!enough && !segment.is_bad()).then_some(next)
    }

    /// The segment is retired: no record of this use will be believed again.
    pub(super) fn retired(&self, segment: &Segment, next: Option<Spare>) {
        let mut books = self.books();
        books.uses.remove(&segment.id);
        books.aim.forgive();
        match next {
            Some(spare) => drop(books.spares.insert(spare.number, spare)),
            None => books.octets -= segment.octets,
        }
        drop(books);
        self.wake();
    }

    /// Nothing was written to it: it is a spare again.
    pub(super) fn put_back(&self, segment: &Segment) {
        let mut books = self.books();
        books.uses.remove(&segment.id);
        let Segment { number, epoch, octets, .. } = *segment;
        books.spares.insert(number, Spare { number, epoch, octets });
    }

    /// Whether this use of a segment is not over.
    pub(super) fn is_in_use(&self, id: UseId) -> bool {
        self.books().uses.contains_key(&id)
    }

    /// Retiring failed: the segment stays as it is, and is tried again when a keeper next looks.
    pub(super) fn not_retired(&self, segment: Arc<Segment>) {
        segment.mark_bad();
        self.books().idle.push(segment);
    }

    /// Segments by what they are: in use, spare.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let books = self.books();
        (books.uses.len(), books.spares.len())
    }

    /// How many occasions there were to look for something to retire, to make or to move.
    pub(super) fn occasions(&self) -> u64 {
        self.occasions.load(Relaxed)
    }

    /// Whom to wake at the next occasion.
    pub(super) fn register(&self, worker: WorkerId, waker: &Waker) {
        let mut books = self.books();
        let slot = usize::from(worker.0);
        if books.keepers.len() <= slot {
            books.keepers.resize(slot + 1, None);
        }
        books.keepers[slot] = Some(waker.clone());
    }

    /// There is an occasion: wakes the keepers.
    pub(super) fn wake(&self) {
        self.occasions.fetch_add(1, Relaxed);
        let keepers: Vec<Waker> = self.books().keepers.iter_mut().filter_map(Option::take).collect();
        keepers.into_iter().for_each(Waker::wake);
    }

    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }
}

impl Books {
    pub(super) fn enter(&mut self, spare: Spare, holders: u32) -> Arc<Segment> {
        self.last_use += 1;
        let segment = Arc::new(Segment {
            id: self.last_use,
            number: spare.number,
            epoch: spare.epoch,
            octets: spare.octets,
            holders: AtomicU32::new(holders),
            live: AtomicU64::new(0),
            owed: AtomicU64::new(0),
            bad: AtomicBool::new(false),
            packed: AtomicBool::new(false),
            awaits: Mutex::default(),
        });
        self.uses.insert(segment.id, Arc::clone(&segment));
        segment
    }

    fn holds_back(&self, segment: &Segment) -> bool {
        !forgets_tombstones() && lock(&segment.awaits).iter().any(|other| self.uses.contains_key(other))
    }

    fn note(&mut self, spare: Spare) {
        self.last_number = self.last_number.max(spare.number);
        self.octets += spare.octets;
    }
}

/// The first block of a segment: its epoch, and zeros.
pub(super) fn head(spare: Spare, worker: WorkerId) -> Aligned {
    let header = Header {
        kind: Kind::Segment,
        part: 0,
        payload_octets: 0,
        payload_crc: 0,
        sequence: 0,
        id: None,
        worker,
    };
    let mut block = Aligned::with_capacity(BLOCK_OCTETS);
    block.extend(&header.encode(Site { segment: spare.number, epoch: spare.epoch, offset: 0 }));
    block.pad(BLOCK_OCTETS);
    block
}

/// The epoch of a new segment. Nobody outside can know it, so that no body of a message can pass for a record, even where
/// damage makes a scan start within one.
fn first_epoch(number: u32) -> u64 {
    RandomState::new().hash_one(number) >> 1
}

/// The number in a segment file's name.
pub(super) fn number_of(name: &Path) -> Option<u32> {
    let digits = name.to_str()?.strip_suffix(".seg")?;
    if digits.len() == 8 { u32::from_str_radix(digits, 16).ok() } else { None }
}

/// The directory of the segments, within the spool's.
pub(super) const SEGMENTS: &str = "segments";
/// The directory of long-deferred messages, within the spool's.
pub(super) const ARCHIVE: &str = "archive";
/// The directory of what could not be read, within the spool's.
pub(super) const QUARANTINE: &str = "quarantine";

/// A panic elsewhere does not make these books wrong: each change is whole before the guard goes.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keeps_epoch() -> bool {
    #[cfg(test)]
    return super::record::switches::is_broken(super::record::switches::Broken::SameEpoch);
    #[cfg(not(test))]
    false
}

fn forgets_tombstones() -> bool {
    #[cfg(test)]
    return super::record::switches::is_broken(super::record::switches::Broken::ForgottenTombstones);
    #[cfg(not(test))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Catalogue {
        let geometry = Geometry { segment_octets: 65536, batch_octets: 8192, chunk_octets: 2048, spares: 1 };
        Catalogue::new(Path::new("spool"), geometry, 1, 10 * 65536)
    }

    #[test]
    fn a_segment_waits_until_what_its_tombstones_speak_of_is_retired() {
        let catalogue = catalogue();
        let spares = [1, 2].map(|number| Spare { number, epoch: 1, octets: 65536 });
        let [old, new] = spares.map(|spare| catalogue.adopt(spare));
        new.wait_for(old.id);
        catalogue.let_go(&new);
        assert!(catalogue.take_retirable().is_none());
        catalogue.let_go(&old);
        let first = catalogue.take_retirable().unwrap();
        assert_eq!(first.id, old.id);
        assert!(catalogue.take_retirable().is_none(), "the old one is not retired before it is said");
        let next = catalogue.next_use(&first).unwrap();
        assert_eq!(next.epoch, 2);
        catalogue.retired(&first, Some(next));
        assert_eq!(catalogue.take_retirable().unwrap().id, new.id);
    }

    #[test]
    fn the_budget_bounds_what_is_made_and_keeps_a_reserve() {
        let catalogue = catalogue();
        assert_eq!(catalogue.octets_free(), 8 * 65536);
        let planned: Vec<Spare> = std::iter::from_fn(|| catalogue.plan(Purpose::Mail)).collect();
        assert_eq!(planned.len(), 10);
        assert_eq!(catalogue.octets_free(), 0);
        planned.iter().for_each(|&spare| catalogue.plan_made(spare));
        assert_eq!(catalogue.octets_free(), 8 * 65536);
        let open = |purpose| std::iter::from_fn(|| catalogue.open_spare(purpose)).collect::<Vec<_>>();
        let mail = open(Purpose::Mail);
        assert!(mail.len() == 8 && mail.iter().all(|(_, rank)| *rank == Purpose::Mail));
        assert!(catalogue.may_share(Purpose::Mail));
        let books = open(Purpose::Books);
        assert!(books.len() == 1 && books[0].1 == Purpose::Books && !catalogue.may_share(Purpose::Mail));
        assert_eq!(open(Purpose::Moves).len(), 1);
        assert!(catalogue.plan(Purpose::Mail).is_none());
        assert!(catalogue.plan(Purpose::Books).is_some(), "one beyond, where there is no spare at all");
    }

    #[test]
    fn names_are_read_back() {
        let catalogue = catalogue();
        let path = catalogue.path(0x00ab_cdef);
        assert_eq!(number_of(Path::new(path.file_name().unwrap())), Some(0x00ab_cdef));
        assert_eq!(number_of(Path::new("abc.seg")), None);
        assert_eq!(number_of(Path::new("00000001.tmp")), None);
    }

    #[test]
    fn sizes_follow_the_budget() {
        assert_eq!(Geometry::for_budget(u64::MAX, 16).segment_octets, SEGMENT_OCTETS_MAX);
        assert_eq!(Geometry::for_budget(0, 16).segment_octets, SEGMENT_OCTETS_MIN);
    }
}
