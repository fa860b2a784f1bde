//! Taking over a spool at start: which messages are there, for any number of workers, whoever wrote them.
//!
//! The scan trusts checksums, epochs and sequences, nothing else: there is no index on the disk that could be out of date.
//! Segments are read in the order of their sequences, so that what a message went through is met in the order that it
//! happened: its record, its states, its end. A record that is damaged is put aside, and the rest is served.
//!
//! What it must not do: decide about delivery, or need to write: a full disk does not keep the relay from starting.

mod found;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use self::found::Used;
use super::entry::{Entry, State};
use super::index::{ARCHIVED, Index, Keys, Place, Slot, pack};
use super::ledger::Unlink;
use super::payload;
use super::read::archive_site;
use super::record::{FORMAT, Header, Kind, Site};
use super::scan::{Scanner, Step};
use super::segment::{ARCHIVE, Catalogue, QUARANTINE, SEGMENTS, Segment, Spare, UseId};
use super::shard::{Adopted, RecoverFault, Recovered, Report, Setup, Shard, Touch};
use super::wire::Source;
use crate::io::files::{Access, Aligned, BLOCK_OCTETS, File, Files, Found};
use crate::units::QueueId;

/// Damaged stretches that are copied aside at one start; the report has all of them.
const QUARANTINED_MAX: usize = 64;
/// Octets of a damaged stretch that are copied aside.
const QUARANTINED_OCTETS_MAX: u64 = 4 * 1024 * 1024;

/// Scans a spool. `classify` says whose a message is; it is asked once for each record of one.
///
/// # Errors
/// Where the spool is of a newer format, or its directories cannot be read.
pub async fn recover<F: Files>(
    files: &F,
    setup: &Setup,
    classify: impl FnMut(&Entry) -> Keys,
) -> Result<Recovered, RecoverFault> {
    let workers = setup.workers.max(1);
    let catalogue = Catalogue::new(&setup.directory, setup.geometry, workers, setup.octets_max);
    let mut recovery = Recovery {
        files,
        setup,
        catalogue: Arc::new(catalogue),
        classify,
        shards: (0..workers).map(|_| Pile::default()).collect(),
        chunks: HashMap::new(),
        lacking: BTreeMap::new(),
        settled: HashMap::new(),
        segments: BTreeMap::new(),
        sequence: 0,
        is_partial: false,
        report: Report::default(),
        window: Aligned::with_capacity(BLOCK_OCTETS),
    };
    recovery.check_format().await?;
    recovery.read_archive().await?;
    for found in recovery.find_segments().await? {
        recovery.read_segment(&found).await?;
    }
    if let Ok(space) = files.space(&setup.directory).await {
        recovery.catalogue.note_space(space);
    }
    Ok(recovery.finish())
}

/// Makes what a spool's directory holds before any message: the directories, and last the file that tells the format.
pub(super) async fn lay_out<F: Files>(files: &F, directory: &Path) -> io::Result<()> {
    for name in [SEGMENTS, ARCHIVE, QUARANTINE] {
        files.make_dir(&directory.join(name)).await?;
    }
    let path = directory.join(format!("{FORMAT_NAME}{FORMAT}"));
    match files.make(&path, Aligned::with_capacity(0), 0).await {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The messages of a worker while the scan goes on, and the sequences that they were last written with.
#[derive(Debug, Default)]
struct Pile {
    index: Index,
    /// For each slot, the sequence of its record and of its state.
    sequences: Vec<(u64, u64)>,
    unlinks: Vec<Unlink>,
    /// Records of settled messages whose tombstones are to be written again.
    settled: Vec<Slot>,
}

struct Recovery<'s, F: Files, C> {
    files: &'s F,
    setup: &'s Setup,
    catalogue: Arc<Catalogue>,
    classify: C,
    shards: Vec<Pile>,
    /// Chunks that no message has claimed yet.
    chunks: HashMap<QueueId, BTreeMap<u16, Place>>,
    /// Messages whose record lacks chunks, and where that record stands. Only what is neither settled further on nor met
    /// whole is incomplete: the segment with the chunks may be used again before that with the record.
    lacking: BTreeMap<QueueId, UseId>,
    /// Whose tombstone was seen, and in which segment. A record may come after it: a batch that failed at its first place stands there
    /// in part, and whole in another segment, and which of the two is read first is left to chance.
    settled: HashMap<[u32; 3], UseId>,
    segments: BTreeMap<UseId, Arc<Segment>>,
    sequence: u64,
    /// Whether the disk did not give all of some segment or archive file.
    is_partial: bool,
    report: Report,
    window: Aligned,
}

impl<F: Files, C: FnMut(&Entry) -> Keys> Recovery<'_, F, C> {
    /// The name of a file says which format the spool has; the oldest there is.
    async fn check_format(&mut self) -> Result<(), RecoverFault> {
        let found = self.list(Path::new("")).await?;
        let formats =
            found.iter().filter_map(|found| found.name.to_str()?.strip_prefix(FORMAT_NAME)?.parse().ok());
        let newest: u16 = formats.max().unwrap_or(0);
        if newest > FORMAT {
            return Err(RecoverFault::Newer(newest));
        }
        if self.setup.touch == Touch::Tidy {
            // On a full disk it may be missing; it is made with the first segment.
            let _ = lay_out(self.files, &self.setup.directory).await;
        }
        Ok(())
    }

    /// The files of a directory of the spool; none if it is not there.
    async fn list(&self, name: &Path) -> Result<Vec<Found>, RecoverFault> {
        let path = self.setup.directory.join(name);
        match self.files.list(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RecoverFault::Io(path, error)),
            found => Ok(found.unwrap_or_default()),
        }
    }

    async fn read_archive(&mut self) -> Result<(), RecoverFault> {
        for found in self.list(Path::new(ARCHIVE)).await? {
            let path = self.setup.directory.join(ARCHIVE).join(&found.name);
            let name = found.name.to_str().unwrap_or_default();
            let id = name.strip_suffix(".msg").and_then(QueueId::parse);
            match id {
                Some(_) => self.read_archived(&path, &found).await?,
                None if name.ends_with(".tmp") && self.setup.touch == Touch::Tidy => {
                    // Its message still stands in the log.
                    let _ = self.files.remove(&path).await;
                }
                None => self.report.strange.push(path),
            }
        }
        Ok(())
    }

    async fn read_archived(&mut self, path: &Path, found: &Found) -> Result<(), RecoverFault> {
        let file = self.open(path).await?;
        let before = self.report.damage.len();
        self.is_partial |= !self.scan(&file, archive_site(0), found.octets, ARCHIVED).await?;
        self.report.archived += 1;
        self.catalogue.add_archive(found.octets);
        if self.report.damage.len() > before {
            self.report.strange.push(path.to_owned());
        }
        Ok(())
    }

    async fn open(&self, path: &Path) -> Result<F::File, RecoverFault> {
        let opened = self.files.open(path, Access::Read).await;
        opened.map_err(|error| RecoverFault::Io(path.to_owned(), error))
    }

    async fn read_segment(&mut self, used: &Used<F::File>) -> Result<(), RecoverFault> {
        let segment = self.catalogue.adopt(used.spare);
        let id = segment.id;
        self.segments.insert(id, Arc::clone(&segment));
        self.report.segments += 1;
        let before = self.report.damage.len();
        let is_readable = self.scan(&used.file, log_start(used.spare), used.spare.octets, id).await?;
        if !is_readable || !used.is_readable {
            keep(&segment);
            self.is_partial = true;
        }
        if self.setup.touch == Touch::Tidy {
            for at in before..self.report.damage.len() {
                self.quarantine(&used.file, at).await;
            }
        }
        Ok(())
    }

    /// Copies damaged octets aside before their segment is used again. Best effort.
    async fn quarantine(&self, file: &F::File, which: usize) {
        if which >= QUARANTINED_MAX {
            return;
        }
        let damage = &self.report.damage[which];
        let from = damage.from - damage.from % BLOCK_OCTETS as u64;
        let length = usize::try_from((damage.to - from).min(QUARANTINED_OCTETS_MAX)).unwrap_or(0);
        let mut octets = Aligned::with_capacity(length);
        octets.set_len(length.next_multiple_of(BLOCK_OCTETS));
        let (Ok(count), mut octets) = file.read_at(octets, from).await else { return };
        octets.set_len(count);
        let name = format!("{:08x}-{:08x}.bad", damage.segment, from);
        let path = self.setup.directory.join(QUARANTINE).join(name);
        let _ = self.files.make(&path, octets, count as u64).await;
    }

    /// Walks over one file; whether all of it could be read.
    async fn scan(&mut self, file: &F::File, base: Site, end: u64, id: UseId) -> Result<bool, RecoverFault> {
        let mut scanner = Scanner::new(file, base, end, take(&mut self.window));
        while let Some(step) = scanner.next().await? {
            match step {
                Step::Record { header, offset, payload } => {
                    let place = Place::new(id, offset, header.payload_octets);
                    self.see(&header, place, &scanner.octets()[payload]);
                }
                Step::Damage(damage) => self.report.damage.push(damage),
            }
        }
        self.report.unreadable_blocks += scanner.unreadable;
        let is_readable = scanner.unreadable == 0;
        self.window = scanner.into_window();
        Ok(is_readable)
    }

    /// What one record means.
    fn see(&mut self, header: &Header, place: Place, payload: &[u8]) {
        self.report.records += 1;
        self.sequence = self.sequence.max(header.sequence);
        let Some(id) = header.id else { return };
        match header.kind {
            Kind::Message => self.see_message(id, header, place, payload),
            Kind::Chunk => drop(self.chunks.entry(id).or_default().insert(header.part, place)),
            Kind::State => self.see_state(id, header.sequence, place, payload),
            Kind::Done => self.see_done(id, place),
            Kind::Segment | Kind::Probe => {}
        }
    }

    fn see_message(&mut self, id: QueueId, header: &Header, place: Place, payload: &[u8]) {
        let mut parts = self.claim_chunks(id, header.part);
        if let Some(&tombstone) = self.settled.get(&pack(id)) {
            if tombstone != place.segment {
                pile_of(&mut self.shards, id).resettle(id, place, tombstone);
            }
            return;
        }
        let Some((entry, state, body_octets, tail)) = payload::split(payload) else {
            return self.report.incomplete.push(id);
        };
        let pile = pile_of(&mut self.shards, id);
        let known = pile.known(id);
        if known.is_some_and(|(_, sequence, _)| sequence == header.sequence) {
            // The same record in another place. Who came first has claimed the chunks of both.
            parts = pile.index.parts(id).to_vec();
        }
        let chunked: u64 = parts.iter().map(|part| u64::from(part.payload_octets)).sum();
        if parts.len() != usize::from(header.part) || chunked + tail.len() as u64 != body_octets {
            return self.see_lacking(id, header.sequence, place);
        }
        let keys = (self.classify)(&entry);
        let mut slot = Slot::new(id, keys);
        slot.place = place;
        slot.arrival_s = u32::try_from(entry.arrival_ms / 1000).unwrap_or(u32::MAX);
        slot.octets = u32::try_from(body_octets).unwrap_or(u32::MAX);
        slot.take_state(&state);
        let Self { shards, segments, lacking, .. } = self;
        if let (Some(older), Some(segment)) = (lacking.remove(&id), segments.get(&place.segment)) {
            segment.wait_for(older);
        }
        let pile = pile_of(shards, id);
        let mut sequences = (header.sequence, header.sequence);
        if let Some((old, record, latest)) = known {
            if record > header.sequence {
                return pile.remember_older(id, &old, place.segment, segments);
            }
            if latest > header.sequence {
                slot.keep_state_of(&old);
                sequences.1 = latest;
            }
            if let Some(segment) = segments.get(&place.segment) {
                segment.wait_for(old.place.segment);
            }
        }
        pile.enter(slot, parts, sequences);
    }

    /// A record of a message lacks chunks: what has been moved or settled since, or else what is lost.
    fn see_lacking(&mut self, id: QueueId, sequence: u64, place: Place) {
        let pile = pile_of(&mut self.shards, id);
        match pile.known(id).filter(|(_, record, _)| *record > sequence) {
            Some((known, ..)) => pile.remember_older(id, &known, place.segment, &self.segments),
            None => drop(self.lacking.insert(id, place.segment)),
        }
    }

    /// The chunks that a message's record commits, in order; fewer if some are missing.
    fn claim_chunks(&mut self, id: QueueId, count: u16) -> Vec<Place> {
        if count == 0 {
            return Vec::new();
        }
        let chunks = self.chunks.remove(&id).unwrap_or_default();
        (0..count).map_while(|part| chunks.get(&part).copied()).collect()
    }

    fn see_state(&mut self, id: QueueId, sequence: u64, place: Place, payload: &[u8]) {
        let pile = pile_of(&mut self.shards, id);
        // A state without its message: that was settled, and its segment used again.
        let Some(at) = pile.index.find(id) else { return };
        let Some(state) = State::decode(&mut Source(payload)) else { return self.report.incomplete.push(id) };
        let latest = &mut pile.sequences[at as usize].1;
        if sequence > *latest {
            *latest = sequence;
            if let Some(slot) = pile.index.get_mut(id) {
                slot.state = place;
                slot.take_state(&state);
            }
        }
    }

    fn see_done(&mut self, id: QueueId, place: Place) {
        let pile = pile_of(&mut self.shards, id);
        let Some(segment) = self.segments.get(&place.segment) else { return };
        self.settled.insert(pack(id), segment.id);
        if let Some(record) = self.lacking.remove(&id) {
            segment.wait_for(record);
        }
        let Some((slot, _)) = pile.index.remove(id) else { return };
        if slot.place.segment == ARCHIVED {
            segment.wait_for(slot.shadow);
            let octets = archive_octets(&slot);
            pile.unlinks.push(Unlink { id, octets, tombstone: segment.id });
        } else {
            segment.wait_for(slot.place.segment);
        }
    }

    /// Where something could not be read, what seems to lack something, or to belong to nothing, may be whole next time.
    fn keep_fragments(&self) {
        let chunks = self.chunks.values().flat_map(BTreeMap::values).map(|place| &place.segment);
        let fragments = chunks.chain(self.lacking.values());
        fragments.filter_map(|segment| self.segments.get(segment)).for_each(|segment| keep(segment));
    }

    fn finish(mut self) -> Recovered {
        if self.is_partial {
            self.keep_fragments();
        }
        for id in self.lacking.into_keys() {
            if pile_of(&mut self.shards, id).index.find(id).is_none() {
                self.report.incomplete.push(id);
            }
        }
        let adopted = Arc::new(Adopted { catalogue: self.catalogue, segments: self.segments });
        let mut shards = Vec::with_capacity(self.shards.len());
        for pile in self.shards {
            for summary in pile.index.summaries() {
                self.report.messages += 1;
                self.report.octets += u64::from(summary.octets);
            }
            let Pile { index, unlinks, settled, .. } = pile;
            let (adopted, sequence) = (Arc::clone(&adopted), self.sequence);
            shards.push(Shard { index, adopted, sequence, unlinks, settled });
        }
        Recovered { shards, report: self.report }
    }
}

impl Pile {
    /// A message that was met before, with the sequences of its record and of its state.
    fn known(&self, id: QueueId) -> Option<(Slot, u64, u64)> {
        let at = self.index.find(id)?;
        let (record, state) = self.sequences[at as usize];
        Some((*self.index.get(id)?, record, state))
    }

    fn enter(&mut self, slot: Slot, parts: Vec<Place>, sequences: (u64, u64)) {
        let at = self.index.put(slot, parts) as usize;
        if self.sequences.len() <= at {
            self.sequences.resize(at + 1, (0, 0));
        }
        self.sequences[at] = sequences;
    }

    /// A record that its tombstone was met before. The tombstone is written again, further on: were its segment to wait for
    /// that of the record, which waits for it for the sake of others, neither would ever be used again.
    fn resettle(&mut self, id: QueueId, place: Place, tombstone: UseId) {
        let mut slot = Slot::new(id, Keys::default());
        slot.place = place;
        // Keeps the first tombstone until the second one is there.
        slot.state = Place::new(tombstone, 0, 0);
        self.settled.push(slot);
    }

    /// An older record of an archived message: its tombstone must outlive that too. (What stands in the log is met in the
    /// order of its sequences.)
    fn remember_older(
        &mut self,
        id: QueueId,
        known: &Slot,
        older: UseId,
        segments: &BTreeMap<UseId, Arc<Segment>>,
    ) {
        if known.place.segment != ARCHIVED {
            return;
        }
        // A tombstone waits for one: for the last that is read, which waits for the others.
        if let Some(segment) = segments.get(&older) {
            segment.wait_for(known.shadow);
        }
        if let Some(slot) = self.index.get_mut(id) {
            slot.shadow = older;
        }
    }
}

/// Not used again in this life: it holds what may be read in the next.
fn keep(segment: &Segment) {
    segment.hold();
}

/// What the name of the file begins with that says the spool's format.
const FORMAT_NAME: &str = "format-";

/// Whose shard a message is in: spread evenly, and found again without a table.
fn pile_of(shards: &mut [Pile], id: QueueId) -> &mut Pile {
    let count = shards.len() as u128;
    let at = usize::try_from(id.to_bits() % count).unwrap_or(0);
    &mut shards[at]
}

fn archive_octets(slot: &Slot) -> u64 {
    (slot.place.offset() + slot.place.record_octets()).next_multiple_of(BLOCK_OCTETS as u64)
}

/// Where the records of a segment begin.
fn log_start(spare: Spare) -> Site {
    Site { segment: spare.number, epoch: spare.epoch, offset: BLOCK_OCTETS as u64 }
}

fn take(window: &mut Aligned) -> Aligned {
    std::mem::replace(window, Aligned::with_capacity(0))
}
