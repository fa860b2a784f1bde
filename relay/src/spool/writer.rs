//! The writer of a worker's log: puts one batch after the other on the disk.
//!
//! **A write that fails** is never tried again on its segment: what the kernel says of a second try means nothing. The
//! batch, still whole in memory, goes to another segment; if that fails too, its committers are refused and the log stops
//! accepting until [`Spool::revive`] has written something.
//!
//! What it must not do: answer a committer before its write has returned, or wait for the housekeeping.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::batch::{Batch, Refusal};
use super::index::Place;
use super::log::{Active, BUFFER_SLACK_OCTETS, Health, Inner, Spool};
use super::record::Kind;
use super::segment::{Need, Segment, head};
use crate::io::files::{Access, Aligned, BLOCK_OCTETS, File, Files};

/// Places that a batch is tried at.
const WRITE_ATTEMPTS: usize = 2;

impl<F: Files> Spool<F> {
    /// Writes batch after batch, until the spool is closed. One task a spool; it must not be dropped while it runs.
    pub async fn write(self) {
        while let Some(mut batch) = poll_fn(|cx| self.inner.poll_batch(cx)).await {
            let start = (self.inner.clock)();
            let result = self.inner.store(&mut batch).await;
            let micros = (self.inner.clock)().since(start).as_micros();
            self.inner.desk.borrow_mut().counters.count(micros, batch.messages, result);
            self.inner.finish(batch, result);
        }
    }
}

impl<F: Files> Inner<F> {
    /// The batch that has filled while the last one was written; `None` once the spool is closed.
    fn poll_batch(&self, cx: &mut Context<'_>) -> Poll<Option<Batch>> {
        let mut desk = self.desk.borrow_mut();
        if desk.filling.is_empty() {
            if desk.closing {
                return Poll::Ready(None);
            }
            desk.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let octets = desk.idle.take().unwrap_or_else(|| Aligned::with_capacity(BUFFER_SLACK_OCTETS));
        let batch = std::mem::replace(&mut desk.filling, Batch::new(octets));
        acknowledge_early(&batch);
        let room = std::mem::take(&mut desk.room);
        drop(desk);
        room.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(batch))
    }

    /// Puts a batch on the disk, at a second place if the first one fails.
    async fn store(&self, batch: &mut Batch) -> Result<(), Refusal> {
        let mut refusal = Refusal::Failed;
        for _ in 0..WRITE_ATTEMPTS {
            let length = batch.octets.len().next_multiple_of(BLOCK_OCTETS);
            let active = self.active(length as u64).await?;
            batch.stamp(&active.segment, active.at);
            self.note_debts(batch, &active.segment);
            let octets = std::mem::replace(&mut batch.octets, Aligned::with_capacity(0));
            let (result, octets) = active.file.write_all(octets, active.at).await;
            batch.octets = octets;
            match result {
                Ok(()) if batch.octets.len() == length => {
                    self.settle_in(batch, &active);
                    return Ok(());
                }
                Ok(()) => {}
                Err(error) => refusal = Refusal::of(&error),
            }
            self.abandon(&active);
            if batch.octets.len() != length {
                break;
            }
        }
        Err(refusal)
    }

    /// The segment is not used again before those that its tombstones speak about.
    fn note_debts(&self, batch: &Batch, segment: &Segment) {
        let carry = std::mem::take(&mut self.desk.borrow_mut().ledger.carry);
        carry.iter().chain(&batch.tombstones).for_each(|&other| segment.wait_for(other));
    }

    /// The batch stands on the disk: the index learns of it.
    fn settle_in(&self, batch: &mut Batch, active: &Active<F::File>) {
        let mut desk = self.desk.borrow_mut();
        let length = batch.octets.len() as u64;
        desk.counters.octets_written += length;
        if let Some(active) = &mut desk.active {
            active.at += length;
        }
        for entry in batch.entries.drain(..) {
            let offset = active.at + entry.at as u64;
            let place = Place::new(active.segment.id, offset, entry.header.payload_octets);
            desk.ledger.apply(entry.effect, &active.segment, place);
        }
        desk.health = Health::Serving;
    }

    /// Never writes to this segment again. What stands there may be read, and may come back at a restart: tombstones of
    /// the batch's messages must outlive it.
    fn abandon(&self, active: &Active<F::File>) {
        let mut desk = self.desk.borrow_mut();
        active.segment.mark_bad();
        desk.ledger.carry.insert(active.segment.id);
        desk.active = None;
        desk.ledger.close(active.segment.id);
        drop(desk);
        self.catalogue.wake();
    }

    /// Answers the committers, and keeps the buffer for the next batch.
    fn finish(&self, batch: Batch, result: Result<(), Refusal>) {
        let mut desk = self.desk.borrow_mut();
        if let Err(refusal) = result {
            desk.health = if refusal == Refusal::Full { Health::Full } else { Health::Broken };
            for entry in batch.entries {
                match (entry.header.kind, entry.header.id) {
                    (Kind::Done, Some(id)) => desk.owed.push((id, entry.effect)),
                    _ => desk.ledger.give_up(entry.effect),
                }
            }
            desk.ledger.carry.extend(&batch.tombstones);
        } else {
            desk.pay(self.worker);
        }
        let mut octets = batch.octets;
        octets.clear();
        let usual = self.catalogue.geometry().batch_octets + BUFFER_SLACK_OCTETS;
        if octets.capacity() <= usual.next_multiple_of(BLOCK_OCTETS) * 2 {
            desk.idle = Some(octets);
        }
        drop(desk);
        batch.outcome.resolve(result);
    }

    /// The segment for a batch of this length: the one that is open, or the next.
    async fn active(&self, length: u64) -> Result<Active<F::File>, Refusal> {
        let open = self.desk.borrow().active.clone();
        if let Some(active) = open {
            if active.at + length <= active.segment.octets {
                return Ok(active);
            }
            let mut desk = self.desk.borrow_mut();
            desk.active = None;
            desk.ledger.close(active.segment.id);
            drop(desk);
            self.catalogue.wake();
        }
        self.open_next().await
    }

    async fn open_next(&self) -> Result<Active<F::File>, Refusal> {
        let segment = match self.catalogue.open_spare() {
            Some(segment) => segment,
            None => {
                self.make_spare(Need::Now).await?;
                self.catalogue.open_spare().ok_or(Refusal::Full)?
            }
        };
        self.catalogue.wake();
        self.desk.borrow_mut().ledger.begin(&segment);
        let opened = self.files.open(&self.catalogue.path(segment.number), Access::Write).await;
        let mut desk = self.desk.borrow_mut();
        match opened {
            Ok(file) => {
                let file = Rc::new(file);
                desk.open.insert(segment.id, Rc::clone(&file));
                let active = Active { segment, file, at: BLOCK_OCTETS as u64 };
                desk.active = Some(active.clone());
                Ok(active)
            }
            Err(error) => {
                segment.mark_bad();
                desk.ledger.close(segment.id);
                Err(Refusal::of(&error))
            }
        }
    }

    /// Makes one more spare segment, if there is room for this need.
    pub(super) async fn make_spare(&self, need: Need) -> Result<(), Refusal> {
        let spare = self.catalogue.plan(need).ok_or(Refusal::Full)?;
        let path = self.catalogue.path(spare.number);
        match self.files.make(&path, head(spare, self.worker), spare.octets).await {
            Ok(()) => {
                self.catalogue.plan_made(spare);
                Ok(())
            }
            Err(error) => {
                self.catalogue.plan_failed(spare);
                // Octets may be free where something else has run out, such as inodes.
                self.catalogue.note_available(0);
                Err(Refusal::of(&error))
            }
        }
    }
}

fn acknowledge_early(batch: &Batch) {
    #[cfg(test)]
    if super::record::switches::is_broken(super::record::switches::Broken::AckBeforeSync) {
        batch.outcome.resolve(Ok(()));
    }
    #[cfg(not(test))]
    let _ = batch;
}
