//! The writer of a worker's log: puts one batch after the other on the disk.
//!
//! **A write that fails** is never tried again on its segment: what the kernel says of a second try means nothing. The
//! batch, still whole in memory, goes to another segment; if that fails too, its committers are refused and the log stops
//! accepting until [`Spool::revive`] has written something.
//!
//! What it must not do: answer a committer before its write has returned, or wait for the housekeeping.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_lite::future::or;

use super::batch::{Batch, Effect, Refusal, Ticket};
use super::company::{COMPANY, COMPANY_OCTETS_MAX, Company};
use super::index::Place;
use super::log::{Active, BUFFER_SLACK_OCTETS, Desk, Health, Inner, Spool};
use super::record::{HEADER_OCTETS, Kind};
use super::recover::lay_out;
use super::reserve::Purpose;
use super::segment::{Segment, Spare, head};
use super::states::Word;
use crate::io::files::{Access, Aligned, BLOCK_OCTETS, File, Files};

/// Why the writer is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// For a message, for which a client waits as a rule.
    Mail,
    /// For what somebody waits for, but no message.
    Books,
    /// For what nobody waits for.
    Unhurried,
}

/// Places that a batch is tried at.
const WRITE_ATTEMPTS: usize = 2;

impl<F: Files> Spool<F> {
    /// Writes batch after batch, until the spool is closed. One task a spool; it must not be dropped while it runs.
    ///
    /// `lull`: how long tombstones that nobody waits for are kept for something to go with, and a message for others where
    /// others are expected ([`Company`]). That much later than else a crash finds a delivered message settled, and does not
    /// repeat it.
    pub async fn write(self, lull: impl AsyncFn()) {
        let mut company = Company::default();
        while let Some(call) = poll_fn(|cx| self.inner.poll_call(cx)).await {
            let is_expected = call == Call::Mail && company.is_expected();
            if is_expected {
                let come = async {
                    poll_fn(|cx| self.inner.poll_company(cx)).await;
                    true
                };
                let in_vain = async {
                    lull().await;
                    false
                };
                company.waited(or(come, in_vain).await);
            } else if call == Call::Unhurried {
                or(lull(), poll_fn(|cx| self.inner.poll_hurry(cx))).await;
            }
            let mut batch = self.inner.take_batch();
            if !is_expected {
                company.met(batch.messages);
            }
            let start = (self.inner.clock)();
            let result = self.inner.store(&mut batch).await;
            let micros = (self.inner.clock)().since(start).as_micros();
            self.inner.desk.borrow_mut().counters.count(micros, batch.messages, result);
            self.inner.finish(batch, result);
        }
    }
}

impl<F: Files> Inner<F> {
    /// Whether there is a batch to write; `None` once the spool is closed.
    fn poll_call(&self, cx: &mut Context<'_>) -> Poll<Option<Call>> {
        let mut desk = self.desk.borrow_mut();
        let is_early = desk.gathering && desk.room.is_empty() && !desk.closing;
        if desk.filling.is_empty() || is_early {
            if desk.closing {
                return Poll::Ready(None);
            }
            desk.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(match desk.filling.messages {
            0 if desk.may_lull() => Call::Unhurried,
            0 => Call::Books,
            _ => Call::Mail,
        }))
    }

    /// Whether a batch with a message need not wait for more.
    fn poll_company(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut desk = self.desk.borrow_mut();
        let is_worth_it = desk.filling.messages < COMPANY && desk.filling.octets.len() < COMPANY_OCTETS_MAX;
        if !is_worth_it || !desk.room.is_empty() || desk.closing {
            return Poll::Ready(());
        }
        desk.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether somebody has come for whom the batch is to be written now.
    fn poll_hurry(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut desk = self.desk.borrow_mut();
        if !desk.may_lull() {
            return Poll::Ready(());
        }
        desk.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The batch that has filled while the last one was written.
    fn take_batch(&self) -> Batch {
        let mut desk = self.desk.borrow_mut();
        let octets = desk.idle.take().unwrap_or_else(|| Aligned::with_capacity(BUFFER_SLACK_OCTETS));
        let batch = std::mem::replace(&mut desk.filling, Batch::new(octets));
        acknowledge_early(&batch);
        let room = std::mem::take(&mut desk.room);
        drop(desk);
        room.into_iter().for_each(Waker::wake);
        batch
    }

    /// Puts a batch on the disk, at a second place if the first one fails.
    async fn store(&self, batch: &mut Batch) -> Result<(), Refusal> {
        let mut refusal = Refusal::Failed;
        for _ in 0..WRITE_ATTEMPTS {
            let active = self.place_for(batch).await?;
            let length = batch.length();
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
        let mut desk = self.desk.borrow_mut();
        let carry = std::mem::take(&mut desk.ledger.carry);
        carry.iter().chain(&batch.tombstones).for_each(|&other| segment.wait_for(other));
        if desk.ledger.has_bad_in_use() {
            desk.ledger.bad.iter().for_each(|&other| segment.wait_for(other));
        }
    }

    /// The batch stands on the disk: the index learns of it.
    fn settle_in(&self, batch: &mut Batch, active: &Active<F::File>) {
        let mut desk = self.desk.borrow_mut();
        let length = batch.octets.len() as u64;
        let has_mail = batch.purpose() == Purpose::Mail;
        desk.counters.octets_written += length;
        if let Some(active) = &mut desk.active {
            active.at += length;
        }
        for entry in batch.entries.drain(..) {
            let offset = active.at + entry.at as u64;
            let place = Place::new(active.segment.id, offset, entry.header.payload_octets);
            desk.ledger.apply(entry.effect, entry.header.sequence, &active.segment, place);
            if entry.header.kind == Kind::Done {
                entry.header.id.into_iter().for_each(|id| desk.ledger.forget_late(id));
            }
        }
        // That something could be written says nothing of the room for mail where none was in it.
        if desk.health == Health::Broken || has_mail {
            desk.health = Health::Serving;
        }
    }

    /// Never writes to this segment again. What stands there may be read, and may come back at a restart: tombstones of
    /// the batch's messages must outlive it.
    fn abandon(&self, active: &Active<F::File>) {
        let mut desk = self.desk.borrow_mut();
        desk.active = None;
        desk.ledger.abandon(&active.segment);
        drop(desk);
        self.catalogue.wake();
    }

    /// Answers the committers, and keeps the buffer for the next batch.
    fn finish(&self, batch: Batch, result: Result<(), Refusal>) {
        let mut desk = self.desk.borrow_mut();
        if result.is_ok() {
            self.write_owed(&mut desk);
        }
        if let Err(refusal) = result {
            desk.health = if refusal == Refusal::Full { Health::Full } else { Health::Broken };
            let owed = desk.ledger.owed.len();
            for entry in batch.entries {
                match (entry.header.kind, entry.header.id) {
                    (Kind::Done, Some(id)) => desk.ledger.owe(id, entry.effect),
                    _ => desk.ledger.give_up(entry.effect, entry.header.sequence),
                }
            }
            desk.ledger.carry.extend(&batch.tombstones);
            if desk.ledger.owed.len() > owed {
                self.catalogue.wake();
            }
        }
        let mut octets = batch.octets;
        octets.clear();
        let usual = self.catalogue.geometry().batch_octets + BUFFER_SLACK_OCTETS;
        if octets.capacity() <= usual.next_multiple_of(BLOCK_OCTETS) * 2 {
            desk.idle = Some(octets);
        }
        drop(desk);
        for outcome in batch.outcomes {
            outcome.resolve(result);
        }
    }

    /// Writes what could not be written before, tombstones and then states, as much as a batch takes.
    pub(super) fn write_owed(&self, desk: &mut Desk<F>) {
        drop(self.settle_owed(desk, Purpose::Books, |_| true));
        while desk.filling.octets.len() < self.catalogue.geometry().batch_octets
            && let Some(id) = desk.ledger.states.owed()
            && let Some(state) = desk.ledger.states.latest(id).cloned()
        {
            drop(self.state(desk, id, &state, (Word::Outcome, Purpose::Books)));
        }
    }

    /// Writes tombstones that could not be written before, of those that are meant as many as a batch takes; `None`: none
    /// are.
    pub(super) fn settle_owed(
        &self,
        desk: &mut Desk<F>,
        purpose: Purpose,
        is_meant: impl Fn(&Effect) -> bool,
    ) -> Option<Ticket> {
        let room = self.catalogue.geometry().batch_octets.saturating_sub(desk.filling.octets.len());
        let mut last = None;
        for (id, effect) in desk.ledger.pay(room / HEADER_OCTETS, is_meant) {
            if let Effect::Done { slot, .. } = &effect {
                desk.filling.tombstones.insert(slot.holds_back());
            }
            let header = self.header(desk, Kind::Done, Some(id));
            last = Some(desk.append(header, (effect, purpose), |_| {}));
        }
        last
    }

    /// The segment for a batch: the one that is open, or the next. Where there is room only for what is needed most, the
    /// rest of the batch is refused at once.
    async fn place_for(&self, batch: &mut Batch) -> Result<Active<F::File>, Refusal> {
        loop {
            let purpose = batch.purpose();
            if let Some(active) = self.open_place(batch.length() as u64, purpose) {
                return Ok(active);
            }
            let refusal = match self.open_next(purpose).await {
                Ok(active) => return Ok(active),
                Err(refusal) => refusal,
            };
            let shed = batch.shed(purpose);
            if refusal != Refusal::Full || batch.is_empty() {
                batch.unshed(shed);
                return Err(refusal);
            }
            self.finish(shed, Err(refusal));
        }
    }

    /// The segment that is open, if so much fits and may be written there.
    fn open_place(&self, length: u64, purpose: Purpose) -> Option<Active<F::File>> {
        let desk = self.desk.borrow();
        let active = desk.active.as_ref()?;
        let fits = active.at + length <= active.segment.octets;
        (fits && self.is_open_to(active, purpose)).then(|| active.clone())
    }

    /// Whether the segment that is open may be written for this.
    pub(super) fn is_open_to(&self, active: &Active<F::File>, purpose: Purpose) -> bool {
        active.rank <= purpose || self.catalogue.may_share(purpose)
    }

    async fn open_next(&self, purpose: Purpose) -> Result<Active<F::File>, Refusal> {
        let (segment, rank) = loop {
            match self.catalogue.open_spare(purpose) {
                Some(opened) => break opened,
                None => self.make_spare(purpose).await?,
            }
        };
        self.catalogue.wake();
        let opened = self.files.open(&self.catalogue.path(segment.number), Access::Write).await;
        let file = match opened {
            Ok(file) => Rc::new(file),
            Err(error) => {
                self.not_opened(&segment, &error);
                return Err(Refusal::of(&error));
            }
        };
        let mut desk = self.desk.borrow_mut();
        desk.ledger.begin(&segment);
        desk.open.insert(segment.id, Rc::clone(&file));
        let active = Active { segment, file, at: BLOCK_OCTETS as u64, rank };
        if let Some(before) = desk.active.replace(active.clone()) {
            desk.ledger.close(before.segment.id);
        }
        Ok(active)
    }

    /// A spare segment that cannot be opened for writing: for a passing reason it stays a spare.
    fn not_opened(&self, segment: &Arc<Segment>, error: &io::Error) {
        let is_passing = matches!(error.raw_os_error(), Some(libc::EROFS | libc::EMFILE | libc::ENFILE));
        if is_passing {
            return self.catalogue.put_back(segment);
        }
        segment.mark_bad();
        self.catalogue.let_go(segment);
    }

    /// Makes the file of a segment, and the directories too where a full disk had no room for them.
    async fn make_segment(&self, spare: Spare) -> io::Result<()> {
        let path = self.catalogue.path(spare.number);
        match self.files.make(&path, head(spare, self.worker), spare.octets).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            made => return made,
        }
        lay_out(&self.files, self.catalogue.directory()).await?;
        self.files.make(&path, head(spare, self.worker), spare.octets).await
    }

    /// Makes one more spare segment, if the budget allows it.
    pub(super) async fn make_spare(&self, purpose: Purpose) -> Result<(), Refusal> {
        let spare = self.catalogue.plan(purpose).ok_or(Refusal::Full)?;
        if let Ok(space) = self.files.space(self.catalogue.directory()).await
            && (space.available < spare.octets || space.files == 0)
        {
            // Zeros would be written up to the last octet, in vain.
            self.catalogue.plan_failed(spare);
            self.catalogue.note_refused(Refusal::Full);
            return Err(Refusal::Full);
        }
        match self.make_segment(spare).await {
            Ok(()) => {
                self.catalogue.plan_made(spare);
                Ok(())
            }
            Err(error) => {
                self.catalogue.plan_failed(spare);
                // What it has may be of no use, such as within a quota.
                let refusal = Refusal::of(&error);
                self.catalogue.note_refused(refusal);
                Err(refusal)
            }
        }
    }
}

fn acknowledge_early(batch: &Batch) {
    #[cfg(test)]
    if super::record::switches::is_broken(super::record::switches::Broken::AckBeforeSync) {
        batch.outcomes.iter().for_each(|outcome| outcome.resolve(Ok(())));
    }
    #[cfg(not(test))]
    let _ = batch;
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bytes::Bytes;
    use futures_lite::future::yield_now;

    use super::super::drive::{finish, open};
    use super::super::entry::tests::entry;
    use super::super::*;
    use super::*;
    use crate::io::files::sim::{Faults, SimDisk};
    use crate::units::{QueueId, QueueIds, WorkerId};

    /// Commits one message beside the writer, or after trying whether writing works again.
    fn commit(disk: &SimDisk, spool: &Spool<SimDisk>, id: QueueId) -> Result<(), Refusal> {
        let (writer, committing) = (spool.clone().write(yield_now), spool.clone());
        finish(disk, async move {
            let work = async {
                if committing.health() != Health::Serving {
                    committing.revive().await?;
                }
                let entry = entry("sender@example.org", &["one@example.net"], 5000);
                let terms = Terms { keys: Keys::default(), next: Next::Schedule };
                committing.commit(id, &entry, &[Bytes::from_static(b"x")], terms).await.map(drop)
            };
            let writing = async {
                writer.await;
                std::future::pending().await
            };
            or(work, writing).await
        })
    }

    fn segments(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
        let paths = disk.paths().into_iter().filter(|path| path.starts_with("spool/segments"));
        paths.map(|path| (path.clone(), disk.octets(&path))).collect()
    }

    #[test]
    fn a_segment_that_failed_is_not_written_again() {
        let disk = SimDisk::new(5);
        let (spool, mut ids) = (open(&disk), QueueIds::new(9, WorkerId(0)));
        assert_eq!(commit(&disk, &spool, ids.issue()), Ok(()));
        disk.set_faults(Faults { write_eio: 1000, ..Faults::NONE });
        assert_eq!(commit(&disk, &spool, ids.issue()), Err(Refusal::Failed));
        // A sync that failed once may succeed the next time and mean nothing: what is written from here on goes elsewhere.
        disk.set_faults(Faults::NONE);
        let before = segments(&disk);
        let second: Vec<QueueId> = (0..20).map(|_| ids.issue()).collect();
        second.iter().for_each(|&id| assert_eq!(commit(&disk, &spool, id), Ok(())));
        let after = segments(&disk);
        let is_used = |octets: &[u8]| octets[BLOCK_OCTETS..].iter().any(|&octet| octet != 0);
        let used: Vec<_> = before.into_iter().filter(|(_, octets)| is_used(octets)).collect();
        assert!(!used.is_empty());
        used.iter().for_each(|was| assert!(after.contains(was), "{:?} was written again", was.0));
        let found = open(&disk.crash(6));
        assert!(second.iter().all(|&id| found.summary(id).is_some()));
    }
}
