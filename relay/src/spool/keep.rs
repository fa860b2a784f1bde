//! Housekeeping beside the writer: segments are retired, made ahead and emptied; files of settled messages are removed.
//!
//! A segment that is mostly dead is emptied by copying what lives: a message that has been tried a few times goes to a
//! file of its own, where it stays however long it takes; a younger one goes to the end of the log.
//!
//! What it must not do: hold up the writer. The writer makes a segment by itself where none is ready.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;

use super::batch::{Effect, Refusal, Ticket};
use super::entry::State;
use super::index::{ARCHIVED, Place, Slot};
use super::ledger::Steady;
use super::log::{Health, Inner, Spool};
use super::payload;
use super::read::{Message, ReadFault, archive_site};
use super::record::{HEADER_OCTETS, Header, Kind};
use super::reserve::Purpose;
use super::segment::{Room, Segment, UseId, head};
use super::states::Word;
use crate::io::files::{Access, Aligned, BLOCK_OCTETS, File, Files};
use crate::units::QueueId;

/// Attempts after which a message leaves the log for a file of its own, when its segment is emptied.
const ARCHIVE_ATTEMPTS: u32 = 3;

impl<F: Files> Spool<F> {
    /// Does the housekeeping whenever there is an occasion, until the spool is closed. One task a spool; it must not be
    /// dropped while it runs.
    pub async fn keep(self) {
        self.inner.relieve();
        loop {
            let seen = self.inner.catalogue.occasions();
            if self.inner.desk.borrow().closing {
                return;
            }
            self.remove_archived().await;
            self.inner.let_go_of_settled();
            self.inner.retire_idle().await;
            self.inner.make_ahead().await;
            self.empty_sparse().await;
            poll_fn(|cx| {
                self.inner.catalogue.register(self.inner.worker, cx.waker());
                if self.inner.catalogue.occasions() == seen { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
        }
    }

    /// Removes the files of messages whose tombstones are durable.
    async fn remove_archived(&self) {
        let unlinks = std::mem::take(&mut self.inner.desk.borrow_mut().ledger.unlinks);
        for unlink in unlinks {
            let removed = self.inner.files.remove(&self.inner.catalogue.archive_path(unlink.id)).await;
            let mut desk = self.inner.desk.borrow_mut();
            if removed.is_ok() {
                self.inner.catalogue.sub_archive(unlink.octets);
                desk.ledger.unpin_octets(unlink.tombstone, 0);
            } else {
                // Until it is gone its tombstone is needed.
                desk.ledger.unlinks.push(unlink);
            }
        }
    }

    /// Empties the segments of which little is live. Where room is wanted one is enough: it is used again before the next.
    async fn empty_sparse(&self) {
        let room = if self.inner.catalogue.octets_free() > 0 { Room::There } else { Room::Wanted };
        let sparse = {
            let desk = self.inner.desk.borrow();
            let active = desk.active.as_ref().map_or(0, |active| active.segment.id);
            if desk.health == Health::Broken {
                return;
            }
            desk.ledger.sparse(active, room)
        };
        for segment in sparse {
            let residents = self.inner.desk.borrow().ledger.index.residents(segment);
            match (room, self.inner.errand(segment, &residents)) {
                (Room::There, _) if !residents.is_empty() => {}
                (Room::There, _) | (Room::Wanted, Errand::Nothing) => continue,
                (Room::Wanted, _) if !self.inner.catalogue.may_empty(segment) => continue,
                (Room::Wanted, Errand::TooMuch) => {
                    self.inner.catalogue.give_up_emptying(segment);
                    continue;
                }
                (Room::Wanted, Errand::Fits) => self.inner.gather(true),
            }
            let is_written = self.empty(segment, residents).await;
            let is_empty = self.inner.desk.borrow().ledger.index.residents(segment).is_empty();
            if room == Room::Wanted && !(is_written && is_empty) {
                self.inner.catalogue.give_up_emptying(segment);
            }
            if !is_written || (is_empty && room == Room::Wanted) {
                self.inner.let_go_of_settled();
                return;
            }
        }
    }

    /// Moves what lives in a segment, and settles what is owed a tombstone and keeps it; false where nothing can be written.
    async fn empty(&self, segment: UseId, residents: Vec<QueueId>) -> bool {
        let mut last = None;
        for id in residents {
            // What cannot be moved stays, and its segment with it.
            last = self.carry_over(id, segment).await.ok().flatten().or(last);
        }
        last = self.settle_within(segment).await.or(last);
        self.inner.gather(false);
        // Before it is settled where they are, they must not be moved again.
        match last {
            Some(ticket) => ticket.await.is_ok(),
            None => true,
        }
    }

    /// Writes the tombstones that messages with something in a segment are owed, where copies are written: a tombstone is less
    /// than any of them.
    async fn settle_within(&self, segment: UseId) -> Option<Ticket> {
        let mut last = None;
        loop {
            self.inner.room_for(HEADER_OCTETS).await;
            let mut desk = self.inner.desk.borrow_mut();
            let ticket =
                self.inner.settle_owed(&mut desk, Purpose::Moves, |effect| effect.is_within(segment));
            match ticket {
                Some(ticket) => last = Some(ticket),
                None => return last,
            }
        }
    }

    /// Moves what a message has in a segment to somewhere else.
    async fn carry_over(&self, id: QueueId, segment: UseId) -> Result<Option<Ticket>, Stays> {
        let (steady, parts) = {
            let desk = self.inner.desk.borrow();
            let steady = desk.ledger.steady(id).ok_or(Stays)?;
            (steady, desk.ledger.index.parts(id).to_vec())
        };
        let whole = steady.slot.place.segment == segment || parts.iter().any(|part| part.segment == segment);
        let message = self.read(id).await?;
        if !whole {
            return self.copy_state(id, &steady, message.state).map(Some);
        }
        if message.state.attempts >= ARCHIVE_ATTEMPTS && self.archive(id).await.is_ok() {
            return Ok(None);
        }
        self.copy(id, &steady, message).await.map(Some)
    }

    /// Writes a message's state again, at the end of the log.
    fn copy_state(&self, id: QueueId, read: &Steady, state: State) -> Result<Ticket, Stays> {
        let mut desk = self.inner.desk.borrow_mut();
        desk.ledger.steady(id).filter(|now| now.stands_as(read)).ok_or(Stays)?;
        let copied = self.inner.state(&mut desk, id, &Rc::new(state), (Word::Wish, Purpose::Moves));
        copied.ok_or(Stays)
    }

    /// Copies a whole message to the end of the log, with its latest state in it.
    async fn copy(&self, id: QueueId, read: &Steady, mut message: Message<F>) -> Result<Ticket, Stays> {
        let mut draft = self.draft(id);
        while !message.body.is_at_tail() {
            let chunk = message.body.next().await?.ok_or(Stays)?;
            draft.copy(chunk).await?;
        }
        let tail: Vec<Bytes> = message.body.next().await?.into_iter().collect();
        if draft.octets() > 0 {
            // They are waited for.
            self.inner.gather(false);
        }
        let parts = draft.settle_chunks().await?;
        self.inner
            .room_for(payload::octets_max(&message.entry) + tail.iter().map(Bytes::len).sum::<usize>())
            .await;
        let mut desk = self.inner.desk.borrow_mut();
        if !desk.ledger.steady(id).is_some_and(|now| now.stands_as(read)) {
            drop(desk);
            return Err(Stays);
        }
        draft.release();
        let mut header = self.inner.header(&mut desk, Kind::Message, Some(id));
        header.part = u16::try_from(parts.len()).unwrap_or(u16::MAX);
        let (entry, state, chunked) = (&message.entry, &message.state, draft.octets());
        let effect = Effect::Moved { id, parts };
        desk.counters.messages_moved += 1;
        Ok(desk
            .append(header, (effect, Purpose::Moves), |out| payload::put(out, entry, state, chunked, &tail)))
    }

    /// Puts a message into a file of its own, with its latest state in it.
    async fn archive(&self, id: QueueId) -> Result<(), Stays> {
        self.inner.desk.borrow_mut().ledger.archiving = Some(id);
        let archived = self.archive_file(id).await;
        self.inner.desk.borrow_mut().ledger.archiving = None;
        archived
    }

    async fn archive_file(&self, id: QueueId) -> Result<(), Stays> {
        let (read, header) = {
            let mut desk = self.inner.desk.borrow_mut();
            let slot = desk.ledger.steady(id).ok_or(Stays)?.slot;
            // Older than every state that comes from now on, newer than the one that is read.
            (slot, self.inner.header(&mut desk, Kind::Chunk, Some(id)))
        };
        let (message, stamp) = (self.read(id).await?, header.sequence);
        let (octets, place, parts) = gather(header, message).await?;
        let length = octets.len() as u64;
        let (draft, path) =
            (self.inner.catalogue.archive_draft_path(id), self.inner.catalogue.archive_path(id));
        let files = &self.inner.files;
        files.remove(&draft).await.map_err(|_error| Stays)?;
        files.make(&draft, octets, length).await.map_err(|_error| Stays)?;
        if files.rename(&draft, &path).await.is_err() {
            // Whether the name has changed is unknown.
            if files.remove(&path).await.is_err() {
                self.inner.desk.borrow_mut().ledger.stray.insert(id);
            }
            return Err(Stays);
        }
        let mut desk = self.inner.desk.borrow_mut();
        // Settled meanwhile: the tombstone sees to it that the file goes again.
        let Some(now) = desk.ledger.index.get(id).copied() else { return Ok(()) };
        self.inner.catalogue.add_archive(length);
        desk.ledger.archived(id, (place, stamp), parts, now.stands_as(&read));
        desk.counters.messages_archived += 1;
        Ok(())
    }
}

/// The file of a message: its chunks' records, then its own.
async fn gather<F: Files>(
    header: Header,
    message: Message<F>,
) -> Result<(Aligned, Place, Vec<Place>), Stays> {
    let Message { entry, state, mut body, .. } = message;
    let mut out = Aligned::with_capacity(BLOCK_OCTETS);
    let mut parts = Vec::new();
    let mut chunked = 0;
    for part in 0..=u16::MAX {
        if body.is_at_tail() {
            break;
        }
        let chunk = body.next().await?.ok_or(Stays)?;
        chunked += chunk.len() as u64;
        parts.push(put_record(&mut out, Header { part, ..header }, |out| out.extend(&chunk)));
    }
    let tail: Vec<Bytes> = body.next().await?.into_iter().collect();
    let part = u16::try_from(parts.len()).unwrap_or(u16::MAX);
    let header = Header { kind: Kind::Message, part, ..header };
    let place = put_record(&mut out, header, |out| payload::put(out, &entry, &state, chunked, &tail));
    out.pad(BLOCK_OCTETS);
    Ok((out, place, parts))
}

/// What a worker has to do to empty a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errand {
    /// Nothing: what keeps it is not this worker's, or waits for something else.
    Nothing,
    /// What is to be written finds room.
    Fits,
    /// It may not.
    TooMuch,
}

/// A message that could not be moved: it stays where it is.
#[derive(Debug)]
struct Stays;

impl From<ReadFault> for Stays {
    fn from(_fault: ReadFault) -> Self {
        Self
    }
}

impl From<Refusal> for Stays {
    fn from(_refusal: Refusal) -> Self {
        Self
    }
}

/// Appends a record of an archive file.
fn put_record(out: &mut Aligned, mut header: Header, fill: impl FnOnce(&mut Aligned)) -> Place {
    let at = out.len();
    out.extend(&[0; HEADER_OCTETS]);
    fill(out);
    let payload = &out[at + HEADER_OCTETS..];
    header.payload_octets = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    header.payload_crc = crc32c::crc32c(payload);
    out[at..at + HEADER_OCTETS].copy_from_slice(&header.encode(archive_site(at as u64)));
    out.pad(HEADER_OCTETS);
    Place::new(ARCHIVED, at as u64, header.payload_octets)
}

impl<F: Files> Inner<F> {
    /// Retires the segments that nobody needs any more.
    async fn retire_idle(&self) {
        let mut failed = Vec::new();
        while let Some(segment) = self.catalogue.take_retirable() {
            self.desk.borrow_mut().open.remove(&segment.id);
            match self.retire(&segment).await {
                Ok(()) => self.relieve(),
                Err(Stays) => failed.push(segment),
            }
        }
        failed.into_iter().for_each(|segment| self.catalogue.not_retired(segment));
    }

    /// Makes every record of this use of a segment void: by a new epoch, or by removing the file.
    async fn retire(&self, segment: &Arc<Segment>) -> Result<(), Stays> {
        let path = self.catalogue.path(segment.number);
        if let Some(next) = self.catalogue.next_use(segment) {
            let head = head(next, self.worker);
            if let Ok(file) = self.files.open(&path, Access::Write).await
                && file.write_all(head, 0).await.0.is_ok()
            {
                self.catalogue.retired(segment, Some(next));
                return Ok(());
            }
        }
        self.files.remove(&path).await.map_err(|_error| Stays)?;
        self.catalogue.retired(segment, None);
        Ok(())
    }

    /// Makes segments ahead of their use.
    async fn make_ahead(&self) {
        while self.catalogue.wants_spares() {
            let purpose = if self.catalogue.is_bare() { Purpose::Books } else { Purpose::Mail };
            if self.make_spare(purpose).await.is_err() {
                break;
            }
            self.relieve();
        }
        if self.catalogue.wants_spares() && self.catalogue.is_refused() {
            // Octets that are free are of no use where something else has run out, such as inodes.
            return;
        }
        if let Ok(space) = self.files.space(self.catalogue.directory()).await {
            self.catalogue.note_space(space);
        }
    }

    /// There may be room (again).
    pub(super) fn relieve(&self) {
        let mut desk = self.desk.borrow_mut();
        if desk.health == Health::Full && self.catalogue.octets_free() > 0 {
            desk.health = Health::Serving;
        }
        self.write_owed(&mut desk);
    }

    /// Whether batches are to be full before they are written.
    fn gather(&self, gathering: bool) {
        let mut desk = self.desk.borrow_mut();
        desk.gathering = gathering;
        desk.wake_writer();
    }

    /// What is to be done to empty a segment in which these live: what would be written must surely find room in one
    /// spare segment, or else in what is open.
    fn errand(&self, segment: UseId, residents: &[QueueId]) -> Errand {
        let desk = self.desk.borrow();
        let owed = desk.ledger.owed.iter().filter(|(_, effect)| effect.is_within(segment)).count() as u64;
        if residents.is_empty() && owed == 0 {
            return Errand::Nothing;
        }
        let slots = residents.iter().filter_map(|&id| desk.ledger.index.get(id));
        let needed = self.copies_octets_max(slots) + owed * HEADER_OCTETS as u64;
        let has_spare = self.catalogue.counts().1 > 0;
        let open = desk.active.as_ref().filter(|active| self.is_open_to(active, Purpose::Moves));
        let open = open.map_or(0, |active| active.segment.octets - active.at);
        let spare = self.catalogue.geometry().segment_octets - BLOCK_OCTETS as u64;
        if needed <= if has_spare { spare } else { open } { Errand::Fits } else { Errand::TooMuch }
    }

    /// Octets of segments that copies of these messages take at most. The last block of a batch is not full: each batch holds
    /// one record at least, and two in a row more than one batch could.
    fn copies_octets_max<'s>(&self, slots: impl Iterator<Item = &'s Slot>) -> u64 {
        let block = BLOCK_OCTETS as u64;
        let geometry = self.catalogue.geometry();
        let (mut octets, mut alone, mut any_chunked) = (0, 0, false);
        for slot in slots {
            let own = slot.octets_max();
            let chunks = u64::from(slot.octets) / geometry.chunk_octets as u64;
            octets += own;
            // A chunk is waited for: it may have a batch to itself.
            alone += own.next_multiple_of(block) + chunks * block;
            any_chunked |= chunks > 0;
        }
        let gathered = octets + block * (2 + 2 * octets / geometry.batch_octets as u64);
        // The last batch has tombstones too.
        block + if any_chunked { alone } else { alone.min(gathered) }
    }

    /// Segments in which everything is settled are let go of, though tombstones could not be written: the next use of a
    /// segment is as good as a tombstone for each message in it, and takes no room.
    fn let_go_of_settled(&self) {
        let mut desk = self.desk.borrow_mut();
        let active = desk.active.as_ref().map_or(0, |active| active.segment.id);
        desk.ledger.let_go_of_settled(active);
    }
}
