//! A large body on its way into the spool: chunk records as it arrives, committed by its message's own record.
//!
//! A draft that is dropped leaves chunks that no message commits: nobody will ever look at them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;

use super::batch::{Effect, Receipt, Refusal, Ticket};
use super::entry::{Entry, Origin};
use super::index::Place;
use super::log::{Placed, Spool, Terms, purpose_of};
use super::record::Kind;
use super::reserve::Purpose;
use crate::io::files::Files;
use crate::units::QueueId;

/// A body that is being written.
#[derive(Debug)]
pub struct Draft<F: Files> {
    spool: Spool<F>,
    id: QueueId,
    chunks: Vec<Chunk>,
    /// What is not in a chunk yet, less than a chunk's size between calls.
    held: VecDeque<Bytes>,
    held_octets: usize,
    chunked: u64,
    purpose: Purpose,
}

#[derive(Debug)]
struct Chunk {
    place: Rc<Cell<Option<Place>>>,
    ticket: Ticket,
}

impl<F: Files> Spool<F> {
    /// Begins a body whose length is not known, or too long for one record.
    #[must_use]
    pub fn draft(&self, id: QueueId) -> Draft<F> {
        let (chunks, held) = (Vec::new(), VecDeque::new());
        let purpose = Purpose::Mail;
        Draft { spool: self.clone(), id, chunks, held, held_octets: 0, chunked: 0, purpose }
    }
}

impl<F: Files> Draft<F> {
    /// Whose message it will be; a client's, if nothing is said.
    pub(super) fn of(mut self, origin: Origin) -> Self {
        self.purpose = purpose_of(origin);
        self
    }

    /// Octets of the body so far.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.chunked + self.held_octets as u64
    }

    /// Appends to the body. Whole chunks go to the log, without waiting for the disk but for room in a batch.
    ///
    /// # Errors
    /// [`Refusal::Full`] where the space has run out; [`Refusal::TooLarge`] past 65,535 chunks.
    pub async fn write(&mut self, slices: &[Bytes]) -> Result<(), Refusal> {
        for slice in slices {
            self.held_octets += slice.len();
            self.held.push_back(slice.clone());
        }
        let chunk_octets = self.spool.inner.catalogue.geometry().chunk_octets;
        while self.held_octets >= chunk_octets {
            if self.purpose == Purpose::Mail {
                self.spool.room(chunk_octets as u64)?;
            }
            self.append(chunk_octets).await?;
        }
        Ok(())
    }

    /// Makes the message durable, whole.
    ///
    /// # Errors
    /// Why it is not on the disk, as far as is known.
    pub async fn commit(mut self, entry: &Entry, terms: Terms) -> Result<Receipt, Refusal> {
        if self.purpose == Purpose::Mail {
            self.spool.room(self.held_octets as u64)?;
        }
        let parts = self.settle_chunks().await?;
        let tail: Vec<Bytes> = self.held.drain(..).collect();
        let message = Placed { entry, parts, chunked: self.chunked, tail: &tail };
        let ticket = self.spool.append_message(self.id, message, terms).await?;
        // From here on the batch answers for the chunks.
        self.chunks.clear();
        ticket.receipt(self.id).await
    }

    /// Waits until every chunk is on the disk, and says where.
    pub(super) async fn settle_chunks(&mut self) -> Result<Vec<Place>, Refusal> {
        let mut parts = Vec::with_capacity(self.chunks.len());
        for chunk in &mut self.chunks {
            (&mut chunk.ticket).await?;
            parts.push(chunk.place.get().ok_or(Refusal::Failed)?);
        }
        Ok(parts)
    }

    /// The chunks belong to somebody else now.
    pub(super) fn release(&mut self) {
        self.chunks.clear();
    }

    /// Appends one chunk's record from what is held.
    async fn append(&mut self, octets: usize) -> Result<(), Refusal> {
        let part = u16::try_from(self.chunks.len()).map_err(|_too_many| Refusal::TooLarge)?;
        let inner = &self.spool.inner;
        inner.room_for(octets).await;
        let mut desk = inner.desk.borrow_mut();
        let mut header = inner.header(&mut desk, Kind::Chunk, Some(self.id));
        header.part = part;
        let place = Rc::new(Cell::new(None));
        let held = &mut self.held;
        let effect = Effect::Chunk(Rc::clone(&place));
        let ticket = desk.append(header, (effect, self.purpose), |out| {
            let mut missing = octets;
            while let Some(mut slice) = held.pop_front() {
                let taken = slice.split_to(missing.min(slice.len()));
                out.extend(&taken);
                missing -= taken.len();
                if !slice.is_empty() {
                    held.push_front(slice);
                }
                if missing == 0 {
                    return;
                }
            }
        });
        self.held_octets -= octets;
        self.chunked += octets as u64;
        self.chunks.push(Chunk { place, ticket });
        Ok(())
    }

    /// Appends a chunk of exactly these octets: a copy of one that stands elsewhere.
    pub(super) async fn copy(&mut self, octets: Bytes) -> Result<(), Refusal> {
        self.purpose = Purpose::Moves;
        let length = octets.len();
        self.held_octets += length;
        self.held.push_back(octets);
        self.append(length).await
    }
}

impl<F: Files> Drop for Draft<F> {
    fn drop(&mut self) {
        let mut desk = self.spool.inner.desk.borrow_mut();
        for place in self.chunks.drain(..).filter_map(|chunk| chunk.place.get()) {
            desk.ledger.unpin(place);
        }
    }
}
