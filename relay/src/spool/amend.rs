//! Changing the state of a message that somebody else may be changing too: an operator's word beside running deliveries.
//!
//! A delivery writes a whole state after its attempt; an operator changes one thing in it. What is read here is written
//! back only if nothing was written in between, so that no outcome is ever lost to an operator's word. Outcomes that the disk
//! has refused are in what is read, and so in what is written; the operator's own word is taken back where it is refused.

use std::rc::Rc;

use super::batch::{Effect, Ticket};
use super::entry::State;
use super::log::Spool;
use super::read::ReadFault;
use super::record::Kind;
use super::reserve::Purpose;
use super::states::Word;
use crate::io::files::Files;
use crate::units::QueueId;

impl<F: Files> Spool<F> {
    /// Changes the state of a message; the ticket resolves when the change is durable, or refused and taken back. `change`
    /// may be called more than once; only its last call counts.
    ///
    /// # Errors
    /// Why the state cannot be read.
    pub async fn amend(&self, id: QueueId, mut change: impl FnMut(&mut State)) -> Result<Ticket, ReadFault> {
        loop {
            let before = self.inner.desk.borrow().ledger.steady(id);
            let Some(before) = before else {
                self.settled_down(id).await?;
                continue;
            };
            let mut state = self.read(id).await?.state;
            let now = self.inner.desk.borrow().ledger.steady(id);
            if now.is_some_and(|now| now.stands_as(&before)) {
                change(&mut state);
                let mut desk = self.inner.desk.borrow_mut();
                let ticket = self.inner.state(&mut desk, id, &Rc::new(state), (Word::Wish, Purpose::Books));
                return ticket.ok_or(ReadFault::Gone);
            }
        }
    }

    /// Waits until the states of a message that are on their way have arrived.
    async fn settled_down(&self, id: QueueId) -> Result<(), ReadFault> {
        let ticket = {
            let mut desk = self.inner.desk.borrow_mut();
            if !desk.ledger.is_known(id) {
                return Err(ReadFault::Gone);
            }
            let header = self.inner.header(&mut desk, Kind::Probe, None);
            desk.append(header, (Effect::Nothing, Purpose::Books), |_| {})
        };
        ticket.await.map_err(|refusal| ReadFault::Io(std::io::Error::other(refusal)))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_lite::future::yield_now;

    use super::super::drive::{finish, open};
    use super::super::entry::tests::entry;
    use super::super::*;
    use super::*;
    use crate::io::files::sim::{Faults, SimDisk};
    use crate::units::{QueueIds, WorkerId};

    /// Runs a future beside the spool's writer, which has nothing left to write then.
    fn run<T: 'static>(disk: &SimDisk, spool: &Spool<SimDisk>, work: impl Future<Output = T> + 'static) -> T {
        let writer = spool.clone().write(yield_now);
        finish(disk, async move {
            let writing = async {
                writer.await;
                std::future::pending().await
            };
            futures_lite::future::or(work, writing).await
        })
    }

    /// A spool with a message whose first attempt the disk has refused to write down.
    fn refused(disk: &SimDisk) -> (Spool<SimDisk>, QueueId) {
        let (spool, id) = (open(disk), QueueIds::new(7, WorkerId(0)).issue());
        let committing = spool.clone();
        let receipt = run(disk, &spool, async move {
            let entry = entry("sender@example.org", &["one@example.net"], 5000);
            let terms = Terms { keys: Keys::default(), next: Next::Schedule };
            committing.commit(id, &entry, &[Bytes::from_static(b"x")], terms).await
        });
        assert_eq!(receipt.unwrap().id(), id);
        disk.set_faults(Faults { write_eio: 1000, ..Faults::NONE });
        let state = State { attempts: 1, ..State::default() };
        let ticket = spool.update(id, &state).unwrap();
        assert_eq!(run(disk, &spool, ticket), Err(Refusal::Failed));
        (spool, id)
    }

    fn state(disk: &SimDisk, spool: &Spool<SimDisk>, id: QueueId) -> State {
        let reading = spool.clone();
        run(disk, spool, async move { reading.read(id).await.unwrap().state })
    }

    fn hold(disk: &SimDisk, spool: &Spool<SimDisk>, id: QueueId) -> Result<(), Refusal> {
        let amending = spool.clone();
        run(disk, spool, async move {
            let ticket = amending.amend(id, |state| state.held = true).await;
            ticket.map_err(|_fault| Refusal::Failed)?.await
        })
    }

    #[test]
    fn a_word_about_a_message_writes_the_outcome_that_was_refused_too() {
        let disk = SimDisk::new(1);
        let (spool, id) = refused(&disk);
        assert_eq!(state(&disk, &spool, id).attempts, 1, "it counts though it is not written");
        disk.set_faults(Faults::NONE);
        assert_eq!(hold(&disk, &spool, id), Ok(()));
        let disk = disk.crash(2);
        let found = state(&disk, &open(&disk), id);
        assert_eq!((found.attempts, found.held), (1, true));
    }

    #[test]
    fn a_word_that_is_refused_is_taken_back_and_the_outcome_is_not() {
        let disk = SimDisk::new(3);
        let (spool, id) = refused(&disk);
        assert!(hold(&disk, &spool, id).is_err());
        let known = state(&disk, &spool, id);
        assert_eq!((known.attempts, known.held), (1, false));
        // When writing works again the outcome is written without a word.
        disk.set_faults(Faults::NONE);
        let (writer, reviving) = (spool.clone().write(yield_now), spool.clone());
        let reviving = async move {
            reviving.revive().await.unwrap();
            reviving.close();
        };
        finish(&disk, async move { futures_lite::future::zip(writer, reviving).await });
        assert_eq!(spool.summary(id).unwrap().attempts, 1);
        let disk = disk.crash(4);
        let found = state(&disk, &open(&disk), id);
        assert_eq!((found.attempts, found.held), (1, false));
    }
}
