//! A worker's log, the committers' side: they append to the batch that fills, and wait until it is on the disk.
//!
//! **Natural group commit.** While one batch is in flight the next one fills; when the disk answers, the next goes. An idle disk
//! writes a lone message at once, a busy one writes hundreds together. Between the two a message waits a lull for others
//! where others come (`company`), and tombstones that nobody waits for ([`Spool::settle_soon`]) for a message to go with.
//!
//! What it must not do: answer a committer before its write has returned, decide anything about delivery, read a clock.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use hdrhistogram::Histogram;

use super::batch::{Batch, Effect, Next, Receipt, Refusal, Ticket, header};
use super::entry::{Entry, Origin, State};
use super::index::{Keys, Place, Slot, Summary};
use super::ledger::Ledger;
use super::payload;
use super::record::{Header, Kind};
use super::reserve::Purpose;
use super::segment::{Catalogue, Segment, UseId};
use super::shard::Shard;
use super::states::Word;
use crate::io::files::{Aligned, BLOCK_OCTETS, Files};
use crate::units::{Moment, QueueId, WorkerId};

/// The spool of one worker. Clones are the same spool; they stay on the worker's thread.
///
/// Two futures must be driven beside it for as long as it is used: [`Self::write`] and [`Self::keep`].
#[derive(Debug)]
pub struct Spool<F: Files> {
    pub(super) inner: Rc<Inner<F>>,
}

impl<F: Files> Clone for Spool<F> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

#[derive(Debug)]
pub(super) struct Inner<F: Files> {
    pub(super) files: F,
    pub(super) worker: WorkerId,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) clock: fn() -> Moment,
    pub(super) desk: RefCell<Desk<F>>,
}

/// What changes. Never borrowed across an await.
#[derive(Debug)]
pub(super) struct Desk<F: Files> {
    pub(super) ledger: Ledger,
    pub(super) filling: Batch,
    /// The other buffer, while nothing is in flight.
    pub(super) idle: Option<Aligned>,
    sequence: u64,
    pub(super) health: Health,
    /// The segment that is written.
    pub(super) active: Option<Active<F::File>>,
    /// Open files, for reading.
    pub(super) open: HashMap<UseId, Rc<F::File>>,
    pub(super) writer: Option<Waker>,
    pub(super) room: Vec<Waker>,
    /// The batch that fills is to be full before it is written: room is scarce, and it is not for mail.
    pub(super) gathering: bool,
    pub(super) closing: bool,
    pub(super) counters: Counters,
}

/// The segment that is written, and where its next batch goes.
#[derive(Debug)]
pub(super) struct Active<T> {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Rc<T>,
    pub(super) at: u64,
    /// What it was opened for: what needs less waits for another.
    pub(super) rank: Purpose,
}

impl<T> Clone for Active<T> {
    fn clone(&self) -> Self {
        Self { segment: Arc::clone(&self.segment), file: Rc::clone(&self.file), at: self.at, rank: self.rank }
    }
}

/// Whether the log takes mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Serving,
    /// The space has run out.
    Full,
    /// Writing has failed twice in a row.
    Broken,
}

/// What a log has done. Histograms have two significant digits.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Microseconds of each write: `ringpost_spool_sync_seconds`.
    pub sync_micros: Histogram<u64>,
    /// Messages of each write: `ringpost_spool_sync_batch_messages`.
    pub batch_messages: Histogram<u64>,
    /// Octets written, padding included.
    pub octets_written: u64,
    /// Writes that failed.
    pub write_failures: u64,
    /// Messages copied so that their segment could be used again.
    pub messages_moved: u64,
    /// Messages moved to a file of their own.
    pub messages_archived: u64,
}

impl Default for Counters {
    fn default() -> Self {
        let sync_micros =
            Histogram::new(2).unwrap_or_else(|_| unreachable!("two digits are always possible"));
        Self {
            batch_messages: sync_micros.clone(),
            sync_micros,
            octets_written: 0,
            write_failures: 0,
            messages_moved: 0,
            messages_archived: 0,
        }
    }
}

impl Counters {
    pub(super) fn count(&mut self, micros: u128, messages: u32, result: Result<(), Refusal>) {
        self.sync_micros.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
        self.batch_messages.saturating_record(u64::from(messages));
        self.write_failures += u64::from(result.is_err());
    }
}

/// What a message is committed with besides its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Whose it is, for the schedule.
    pub keys: Keys,
    /// What happens next.
    pub next: Next,
}

/// Octets that a batch's buffer may keep beyond the usual, after a long record.
pub(super) const BUFFER_SLACK_OCTETS: usize = 256 * 1024;

impl<F: Files> Spool<F> {
    /// The spool of a worker that takes over a shard; see [`recover`](super::recover).
    #[must_use]
    pub fn open(files: F, worker: WorkerId, shard: Shard, clock: fn() -> Moment) -> Self {
        let Shard { index, adopted, sequence, unlinks, settled } = shard;
        let catalogue = Arc::clone(&adopted.catalogue);
        let mut ledger = Ledger::new(index, Arc::clone(&catalogue), &adopted.segments, &unlinks);
        let settled: Vec<_> = settled
            .into_iter()
            .filter_map(|slot| Some((slot.id()?, ledger.settle_again(slot, &adopted.segments))))
            .collect();
        let octets = catalogue.geometry().batch_octets + BUFFER_SLACK_OCTETS;
        let desk = Desk {
            ledger,
            filling: Batch::new(Aligned::with_capacity(octets)),
            idle: Some(Aligned::with_capacity(octets)),
            sequence,
            health: Health::Serving,
            active: None,
            open: HashMap::new(),
            writer: None,
            room: Vec::new(),
            gathering: false,
            closing: false,
            counters: Counters::default(),
        };
        let spool =
            Self { inner: Rc::new(Inner { files, worker, catalogue, clock, desk: RefCell::new(desk) }) };
        spool.write_again(settled);
        spool
    }

    /// Tombstones of a life before, for segments that a circle of waits would keep for ever.
    fn write_again(&self, settled: Vec<(QueueId, Effect)>) {
        let mut desk = self.inner.desk.borrow_mut();
        for (id, effect) in settled {
            desk.filling.tombstones.extend(effect.places().next().map(|place| place.segment));
            let header = self.inner.header(&mut desk, Kind::Done, Some(id));
            drop(desk.append(header, (effect, Purpose::Books), |_| {}));
        }
    }

    /// Whether a message of this size would be taken now: to be asked at MAIL, so that a full disk is foreseen rather than
    /// met (RFC 5321 §6.1: no loss by a predictable shortage).
    ///
    /// # Errors
    /// Why not.
    pub fn room(&self, octets: u64) -> Result<(), Refusal> {
        match self.health() {
            Health::Broken => return Err(Refusal::Failed),
            Health::Full => return Err(Refusal::Full),
            Health::Serving => {}
        }
        let desk = self.inner.desk.borrow();
        let active = desk.active.as_ref().filter(|active| self.inner.is_open_to(active, Purpose::Mail));
        let here = active.map_or(0, |active| active.segment.octets - active.at);
        let needed = octets + desk.filling.octets.len() as u64 + ROOM_RESERVE_OCTETS;
        // What fits into the segment that is open does not touch what is kept back.
        if needed <= here || needed <= self.inner.catalogue.octets_free() {
            Ok(())
        } else {
            Err(self.inner.catalogue.shortage())
        }
    }

    /// Makes a message durable. The body's octets are copied once, into the batch.
    ///
    /// # Errors
    /// Why it is not on the disk, as far as is known.
    pub async fn commit(
        &self,
        id: QueueId,
        entry: &Entry,
        body: &[Bytes],
        terms: Terms,
    ) -> Result<Receipt, Refusal> {
        let octets: usize = body.iter().map(Bytes::len).sum();
        if octets > self.inner.catalogue.geometry().chunk_octets {
            let mut draft = self.draft(id).of(entry.origin);
            draft.write(body).await?;
            return draft.commit(entry, terms).await;
        }
        if entry.origin == Origin::Client {
            self.room(octets as u64)?;
        }
        let placed = Placed { entry, parts: Vec::new(), chunked: 0, tail: body };
        self.append_message(id, placed, terms).await?.receipt(id).await
    }

    /// Writes that a message is settled: delivered, returned, deleted. It is out of the index at once; the ticket resolves
    /// when no restart can bring it back. `None`: there is no such message (any more). Order is the caller's duty: the
    /// upstream's 250, or the notice's receipt, comes before this.
    pub fn settle(&self, id: QueueId) -> Option<Ticket> {
        let mut desk = self.inner.desk.borrow_mut();
        let (effect, holds_back) = desk.ledger.settle(id)?;
        desk.filling.tombstones.insert(holds_back);
        let header = self.inner.header(&mut desk, Kind::Done, Some(id));
        Some(desk.append(header, (effect, Purpose::Books), |_| {}))
    }

    /// As [`Self::settle`], where nobody waits for it: it goes to the disk with whatever is written next, or by itself after a
    /// lull (see [`Self::write`]). A message delivered at once costs one write instead of two. False: there is no such
    /// message (any more).
    pub fn settle_soon(&self, id: QueueId) -> bool {
        let mut desk = self.inner.desk.borrow_mut();
        let Some((effect, holds_back)) = desk.ledger.settle(id) else { return false };
        desk.filling.tombstones.insert(holds_back);
        let header = self.inner.header(&mut desk, Kind::Done, Some(id));
        let is_first = desk.filling.is_empty();
        desk.filling.push(header, (effect, Purpose::Books), |_| {});
        if is_first || !desk.may_lull() {
            desk.wake_writer();
        }
        true
    }

    /// Writes the state of a message after an attempt. The last one given counts, for [`Self::read`] too, whether the disk
    /// has taken it or not: where it is refused it is owed, and written when writing works again. The ticket tells which.
    /// `None`: there is no such message (any more).
    pub fn update(&self, id: QueueId, state: &State) -> Option<Ticket> {
        let mut desk = self.inner.desk.borrow_mut();
        self.inner.state(&mut desk, id, &Rc::new(state.clone()), (Word::Outcome, Purpose::Books))
    }

    /// The messages that became durable since this was last asked and are to be scheduled.
    pub fn arrivals(&self) -> Vec<QueueId> {
        self.inner.desk.borrow_mut().ledger.arrivals.drain(..).collect()
    }

    /// What is known of a message without reading it.
    #[must_use]
    pub fn summary(&self, id: QueueId) -> Option<Summary> {
        self.inner.desk.borrow().ledger.index.get(id).and_then(Slot::summary)
    }

    /// All messages, without reading any. A copy: the index may change while it is used.
    #[must_use]
    pub fn summaries(&self) -> Vec<Summary> {
        self.inner.desk.borrow().ledger.index.summaries().collect()
    }

    /// Messages, and octets of their bodies: `ringpost_queue_octets`.
    #[must_use]
    pub fn totals(&self) -> (usize, u64) {
        let desk = self.inner.desk.borrow();
        (desk.ledger.index.len(), desk.ledger.body_octets)
    }

    /// Whether the log takes mail: `/readyz`.
    #[must_use]
    pub fn health(&self) -> Health {
        self.inner.desk.borrow().health
    }

    /// What the log has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.inner.desk.borrow().counters.clone()
    }

    /// All segments of the spool, shared by the workers.
    #[must_use]
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.inner.catalogue
    }

    /// Tries whether mail can be taken (again). To be called every few seconds while it is not.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn revive(&self) -> Result<(), Refusal> {
        self.inner.catalogue.forgive();
        if self.health() == Health::Broken {
            // Only a write shows whether writing works. A full spool has no room to waste on that.
            let probe = {
                let mut desk = self.inner.desk.borrow_mut();
                let header = self.inner.header(&mut desk, Kind::Probe, None);
                desk.append(header, (Effect::Nothing, Purpose::Books), |_| {})
            };
            probe.await?;
        }
        self.inner.relieve();
        self.room(0)
    }

    /// Ends [`Self::write`] and [`Self::keep`] once what was appended is written.
    pub fn close(&self) {
        let mut desk = self.inner.desk.borrow_mut();
        desk.closing = true;
        desk.wake_writer();
        drop(desk);
        self.inner.catalogue.wake();
    }

    /// Appends a message's own record as soon as there is room in a batch.
    pub(super) async fn append_message(
        &self,
        id: QueueId,
        message: Placed<'_>,
        terms: Terms,
    ) -> Result<Ticket, Refusal> {
        let tail: usize = message.tail.iter().map(Bytes::len).sum();
        let need = tail + payload::octets_max(message.entry);
        if need > self.inner.catalogue.geometry().payload_octets_max() {
            return Err(Refusal::TooLarge);
        }
        self.inner.room_for(need).await;
        let mut desk = self.inner.desk.borrow_mut();
        desk.ledger.expect(id);
        let mut slot = Slot::new(id, terms.keys);
        let arrival = message.entry.arrival_ms / 1000;
        slot.arrival_s = u32::try_from(arrival).unwrap_or(u32::MAX);
        slot.due_s = slot.arrival_s;
        slot.octets = u32::try_from(message.chunked + tail as u64).unwrap_or(u32::MAX);
        let mut header = self.inner.header(&mut desk, Kind::Message, Some(id));
        header.part = u16::try_from(message.parts.len()).unwrap_or(u16::MAX);
        let Placed { entry, parts, chunked, tail } = message;
        let effect = Effect::Message { slot, parts, next: terms.next };
        let state = State { due_ms: entry.arrival_ms, ..State::default() };
        Ok(desk.append(header, (effect, purpose_of(entry.origin)), |out| {
            payload::put(out, entry, &state, chunked, tail);
        }))
    }
}

/// Room that must be left for what comes with a message: its envelope, and the other messages of its batch.
const ROOM_RESERVE_OCTETS: u64 = 16 * 1024;

/// A message whose chunks have their places.
pub(super) struct Placed<'a> {
    pub(super) entry: &'a Entry,
    pub(super) parts: Vec<Place>,
    /// Octets of the body in these chunks.
    pub(super) chunked: u64,
    /// The rest of the body.
    pub(super) tail: &'a [Bytes],
}

/// A notice settles what it is about: it is written where mail is refused.
pub(super) fn purpose_of(origin: Origin) -> Purpose {
    match origin {
        Origin::Client => Purpose::Mail,
        Origin::Notice => Purpose::Books,
    }
}

impl<F: Files> Inner<F> {
    pub(super) fn header(&self, desk: &mut Desk<F>, kind: Kind, id: Option<QueueId>) -> Header {
        desk.sequence += 1;
        header(kind, id, desk.sequence, self.worker)
    }

    /// Appends a state of a message; `None` if there is no such message (any more).
    pub(super) fn state(
        &self,
        desk: &mut Desk<F>,
        id: QueueId,
        state: &Rc<State>,
        (word, purpose): (Word, Purpose),
    ) -> Option<Ticket> {
        let header = self.header(desk, Kind::State, Some(id));
        let is_known = desk.ledger.expect_state(id, header.sequence, Rc::clone(state), word);
        is_known.then(|| desk.append(header, (Effect::State { id }, purpose), |out| state.encode(out)))
    }

    /// Waits until a record of this payload fits the batch that fills. What follows without an await finds the room.
    pub(super) async fn room_for(&self, payload_octets: usize) {
        let batch_octets = self.catalogue.geometry().batch_octets;
        poll_fn(|cx| {
            let mut desk = self.desk.borrow_mut();
            if desk.filling.is_empty() || desk.filling.octets.len() + payload_octets <= batch_octets {
                return Poll::Ready(());
            }
            desk.room.push(cx.waker().clone());
            desk.wake_writer();
            Poll::Pending
        })
        .await;
    }
}

impl<F: Files> Desk<F> {
    /// Appends a record to the batch that fills.
    pub(super) fn append(
        &mut self,
        header: Header,
        (effect, purpose): (Effect, Purpose),
        fill: impl FnOnce(&mut Aligned),
    ) -> Ticket {
        self.filling.push(header, (effect, purpose), fill);
        self.filling.is_unhurried = false;
        self.wake_writer();
        Ticket::new(self.filling.outcome(purpose))
    }

    /// Whether what has filled may wait for what comes next: no more than a block, which is written whole anyway.
    pub(super) fn may_lull(&self) -> bool {
        let fits = self.filling.octets.len() < BLOCK_OCTETS;
        self.filling.is_unhurried && fits && self.room.is_empty() && !self.closing
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}
