//! Changing the state of a message that somebody else may be changing too: an operator's word beside running deliveries.
//!
//! A delivery writes a whole state after its attempt; an operator changes one thing in it. What is read here is written
//! back only if nothing was written in between, so that no outcome is ever lost to an operator's word.

use super::batch::{Effect, Ticket};
use super::entry::State;
use super::log::Spool;
use super::read::ReadFault;
use super::record::Kind;
use super::reserve::Purpose;
use crate::io::files::Files;
use crate::units::QueueId;

impl<F: Files> Spool<F> {
    /// Changes the state of a message; the ticket resolves when the change is durable. `change` may be called more than
    /// once; only its last call counts.
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
                return self.update(id, &state).ok_or(ReadFault::Gone);
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
