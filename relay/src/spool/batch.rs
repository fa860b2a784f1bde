//! One group commit: the records that go to the disk in one write, and those who wait for it.
//!
//! The octets of a message are copied once, from the buffers they arrived in to the batch. Where the batch will stand is
//! known only when it is written (it may have to be written a second time, elsewhere), so headers are filled in last.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::index::{Place, Slot};
use super::record::{HEADER_OCTETS, Header, Kind};
use super::reserve::{PURPOSES, Purpose};
use super::segment::{Segment, UseId};
use crate::io::files::{Aligned, BLOCK_OCTETS};
use crate::units::{QueueId, WorkerId};

/// Why the spool does not take something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No room, foreseen or met: `452 4.3.1`.
    Full,
    /// Writing failed, here and at a second place: `451 4.3.0`. Whether the message is on the disk is unknown; the client
    /// still has it.
    Failed,
    /// Longer than a segment holds: `552 5.3.4`.
    TooLarge,
}

impl Refusal {
    pub(super) fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::Full,
            _ => Self::Failed,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "the spool is full",
            Self::Failed => "the spool cannot be written",
            Self::TooLarge => "the message is larger than the spool takes",
        })
    }
}

impl std::error::Error for Refusal {}

/// The proof that a message is on stable storage. Only a completed write makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Receipt {
    id: QueueId,
}

impl Receipt {
    /// The message that is safe.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }
}

/// What happens to a message once it is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is to be scheduled: it shows up among the spool's arrivals.
    Schedule,
    /// It is on its way to an upstream already; whoever streams it settles it, or gives it a state and schedules it.
    Streaming,
}

/// What a batch changes in the index once it is on the disk, in this order.
#[derive(Debug)]
pub(super) enum Effect {
    /// A message is there. Its chunks were placed by earlier batches.
    Message { slot: Slot, parts: Vec<Place>, next: Next },
    /// A message has moved here, with its chunks and its latest state.
    Moved { id: QueueId, parts: Vec<Place> },
    /// A message has a new state: the books have it.
    State { id: QueueId },
    /// A chunk has its place.
    Chunk(Rc<Cell<Option<Place>>>),
    /// A message is settled: what it had on the disk is not needed any more. `file`: octets of a file of its own.
    /// `is_let_go`: its record is not kept any more, nor what else it has in that segment.
    Done { slot: Slot, parts: Vec<Place>, file: Option<u64>, is_let_go: bool },
    /// Nothing that the index knows of.
    Nothing,
}

impl Effect {
    /// The records that are kept until the tombstone is written.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        let (own, parts): (_, &[Place]) = match self {
            Self::Done { slot, parts, .. } => ([slot.place, slot.state], parts),
            _ => ([Place::default(); 2], &[]),
        };
        let let_go = self.home_let_go();
        let places = own.into_iter().chain(parts.iter().copied());
        places.filter(move |place| place.is_in_segment() && let_go != Some(place.segment))
    }

    /// Whether a tombstone speaks about a record in this segment.
    pub(super) fn is_within(&self, segment: UseId) -> bool {
        self.places().any(|place| place.segment == segment)
    }

    /// The segment that is kept for the sake of the message, and whose next use would do what the tombstone is to do.
    pub(super) fn home_held(&self) -> Option<UseId> {
        match self {
            Self::Done { slot, file: None, is_let_go: false, .. } => Some(slot.place.segment),
            _ => None,
        }
    }

    /// Likewise, where it is not kept any more.
    pub(super) fn home_let_go(&self) -> Option<UseId> {
        match self {
            Self::Done { slot, file: None, is_let_go: true, .. } => Some(slot.place.segment),
            _ => None,
        }
    }

    /// Does not keep that segment any more: says which records were kept there.
    pub(super) fn let_go(&mut self) -> impl Iterator<Item = Place> + use<> {
        let home = self.home_held();
        let kept: Vec<Place> = self.places().filter(|place| Some(place.segment) == home).collect();
        if let Self::Done { is_let_go, file: None, .. } = self {
            *is_let_go = true;
        }
        kept.into_iter()
    }

    /// The chunks that a tombstone speaks about, for once.
    pub(super) fn take_parts(&mut self) -> Vec<Place> {
        match self {
            Self::Done { parts, .. } => std::mem::take(parts),
            _ => Vec::new(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: usize,
    pub(super) header: Header,
    pub(super) effect: Effect,
    pub(super) purpose: Purpose,
}

/// Records for one write. Invariants: the octets are a multiple of [`HEADER_OCTETS`] long, and each entry's payload stands
/// [`HEADER_OCTETS`] behind its `at`.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) octets: Aligned,
    pub(super) entries: Vec<Entry>,
    /// Segments with records that the tombstones in here speak about.
    pub(super) tombstones: BTreeSet<UseId>,
    /// Messages in here that clients wait for.
    pub(super) messages: u32,
    /// Nobody waits for anything in here.
    pub(super) is_unhurried: bool,
    /// By purpose: what is refused for one may be written for another.
    pub(super) outcomes: [Rc<Outcome>; PURPOSES],
}

impl Batch {
    pub(super) fn new(octets: Aligned) -> Self {
        Self {
            octets,
            entries: Vec::new(),
            tombstones: BTreeSet::new(),
            messages: 0,
            is_unhurried: true,
            outcomes: Default::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends a record; `fill` appends its payload. The header's payload fields are set here.
    pub(super) fn push(
        &mut self,
        mut header: Header,
        (effect, purpose): (Effect, Purpose),
        fill: impl FnOnce(&mut Aligned),
    ) {
        let at = self.octets.len();
        self.octets.extend(&[0; HEADER_OCTETS]);
        fill(&mut self.octets);
        let payload = &self.octets[at + HEADER_OCTETS..];
        header.payload_octets = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        header.payload_crc = crc32c::crc32c(payload);
        self.octets.pad(HEADER_OCTETS);
        self.messages += u32::from(header.kind == Kind::Message);
        self.entries.push(Entry { at, header, effect, purpose });
    }

    /// What came of the records that are written for this.
    pub(super) fn outcome(&self, purpose: Purpose) -> &Rc<Outcome> {
        &self.outcomes[purpose as usize]
    }

    /// What the neediest record in here is written for.
    pub(super) fn purpose(&self) -> Purpose {
        self.entries.iter().map(|entry| entry.purpose).min().unwrap_or(Purpose::Moves)
    }

    /// Takes out the records that are written for this; they wait for an outcome of their own.
    pub(super) fn shed(&mut self, purpose: Purpose) -> Self {
        let octets = std::mem::replace(&mut self.octets, Aligned::with_capacity(0));
        let mut shed = Self::new(Aligned::with_capacity(0));
        shed.outcomes[purpose as usize] = Rc::clone(self.outcome(purpose));
        if purpose == Purpose::Books {
            shed.tombstones.clone_from(&self.tombstones);
        }
        self.octets.reserve(octets.len());
        for mut entry in std::mem::take(&mut self.entries) {
            if entry.purpose == purpose {
                shed.messages += u32::from(entry.header.kind == Kind::Message);
                shed.entries.push(entry);
                continue;
            }
            let end = entry.at + entry.header.record_octets();
            let at = self.octets.len();
            self.octets.extend(&octets[entry.at..end]);
            entry.at = at;
            self.entries.push(entry);
        }
        self.messages -= shed.messages;
        shed
    }

    /// Takes back what was taken out, for an outcome in common. The octets are of no use any more.
    pub(super) fn unshed(&mut self, shed: Self) {
        self.entries.extend(shed.entries);
        self.messages += shed.messages;
    }

    /// Octets that it takes on the disk.
    pub(super) fn length(&self) -> usize {
        self.octets.len().next_multiple_of(BLOCK_OCTETS)
    }

    /// Fills in the headers for the place where it will stand, and zeros up to a whole block.
    pub(super) fn stamp(&mut self, segment: &Segment, offset: u64) {
        for entry in &self.entries {
            let header = entry.header.encode(segment.site(offset + entry.at as u64));
            self.octets[entry.at..entry.at + HEADER_OCTETS].copy_from_slice(&header);
        }
        self.octets.pad(BLOCK_OCTETS);
    }
}

/// A header that only lacks its payload.
pub(super) fn header(kind: Kind, id: Option<QueueId>, sequence: u64, worker: WorkerId) -> Header {
    Header { kind, part: 0, payload_octets: 0, payload_crc: 0, sequence, id, worker }
}

/// What came of a batch, and who waits to hear it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    result: Cell<Option<Result<(), Refusal>>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Outcome {
    /// Says what came of it and wakes everybody. Only the first word counts.
    pub(super) fn resolve(&self, result: Result<(), Refusal>) {
        if self.result.get().is_none() {
            self.result.set(Some(result));
        }
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

/// Resolves when the batch that holds a record is on stable storage, or is not and will not be.
///
/// Dropping it takes nothing back.
#[derive(Debug)]
#[must_use = "what is to be durable must be waited for, or let go on purpose"]
pub struct Ticket {
    outcome: Rc<Outcome>,
    place: Option<usize>,
}

impl Ticket {
    pub(super) fn new(outcome: &Rc<Outcome>) -> Self {
        Self { outcome: Rc::clone(outcome), place: None }
    }

    /// Waits, for a message's receipt.
    pub(super) async fn receipt(self, id: QueueId) -> Result<Receipt, Refusal> {
        self.await?;
        Ok(Receipt { id })
    }
}

impl Future for Ticket {
    type Output = Result<(), Refusal>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(result) = this.outcome.result.get() {
            return Poll::Ready(result);
        }
        let mut waiting = this.outcome.waiting.borrow_mut();
        match this.place {
            Some(place) => waiting[place].clone_from(cx.waker()),
            None => {
                this.place = Some(waiting.len());
                waiting.push(cx.waker().clone());
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn everybody_hears_the_first_word_and_no_other() {
        let outcome = Rc::new(Outcome::default());
        let (early, mut late) = (Ticket::new(&outcome), Ticket::new(&outcome));
        assert_eq!(block_on(poll_once(&mut late)), None);
        outcome.resolve(Err(Refusal::Failed));
        outcome.resolve(Ok(()));
        assert_eq!(block_on(early), Err(Refusal::Failed));
        assert_eq!(block_on(late), Err(Refusal::Failed));
    }

    #[test]
    fn a_refusal_tells_a_full_disk_from_a_broken_one() {
        assert_eq!(Refusal::of(&io::Error::from_raw_os_error(libc::ENOSPC)), Refusal::Full);
        assert_eq!(Refusal::of(&io::Error::from_raw_os_error(libc::EIO)), Refusal::Failed);
    }
}
