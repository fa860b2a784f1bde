//! What an operator does to the queue of one worker: looks at messages, holds, releases, deletes, requeues, returns them.
//!
//! Safe beside running deliveries. What is changed is durable before it is counted as done; a message that is being
//! attempted right now is told apart ([`Tally::under_way`]): it can be held or deleted all the same, but not returned, since
//! the attempt may be delivering it. To return a message is to mark its recipients as failed; the delivery then sends the
//! notice and settles it, as after any failure, and after a crash in between as well ([`Queue::returned`]).
//!
//! What it must not do: decide about delivery, speak to an upstream, build notices.

mod row;

#[cfg(test)]
mod tests;

use std::cell::RefCell;

pub use row::{Row, RowAttempt, RowRecipient};

use serde::{Deserialize, Serialize};

use crate::io::files::Files;
use crate::spool::entry::{Attempt, Standing, State};
use crate::spool::schedule::{Doing, Now, Schedule, Selector};
use crate::spool::{Message, ReadFault, Spool};
use crate::units::QueueId;

/// What is to be done, to which messages, and where the answer goes, line by line. Who reads slowly slows the
/// answer down, never the deliveries.
#[derive(Debug, Clone)]
pub struct QueueOrder {
    /// Which messages.
    pub selector: Selector,
    /// What to do with them.
    pub action: Action,
    /// The answer; its end is [`Line::End`].
    pub lines: flume::Sender<Line>,
}

/// What is to be done with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Tell of each.
    List,
    /// Tell of each with its header section.
    Show,
    /// Attempt them no more.
    Hold,
    /// Attempt those that are held again, now.
    Release,
    /// Drop them without a notice.
    Delete,
    /// Attempt them now, held or not, as if they were new.
    Requeue,
    /// Return them to their senders.
    Bounce,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A message.
    Row(Box<Row>),
    /// A message that cannot be read, and why.
    Unreadable(QueueId, String),
    /// The answer's end.
    End(Tally),
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Messages that were meant.
    pub matched: u64,
    /// Those that it was done to.
    pub done: u64,
    /// Those left alone because they are being attempted right now.
    pub under_way: u64,
    /// Those that could not be read or written.
    pub failed: u64,
}

/// The queue of one worker, as an operator reaches it.
#[derive(Clone, Copy)]
pub struct Queue<'a, F: Files> {
    /// Where the messages are.
    pub spool: &'a Spool<F>,
    /// When they are attempted.
    pub schedule: &'a RefCell<Schedule>,
    /// Both clocks.
    pub now: &'a dyn Fn() -> Now,
    /// Hears of a message before its state is changed: what is kept of it in memory is stale from then on.
    pub changes: &'a dyn Fn(QueueId),
    /// Hears of a message whose recipients have failed by an operator's word, durably: it tells the sender and settles it.
    pub returned: &'a dyn Fn(QueueId),
}

/// Does what an order says and answers it. Whoever calls this wakes the delivery afterwards: messages may be due.
pub async fn obey<F: Files>(queue: Queue<'_, F>, order: &QueueOrder) {
    let mut tally = Tally::default();
    for id in queue.candidates(&order.selector) {
        let outcome = queue.act(id, order).await;
        match outcome {
            Ok(Done::NotMeant) | Err(ReadFault::Gone) => continue,
            Ok(Done::Yes) => tally.done += 1,
            Ok(Done::UnderWay) => tally.under_way += 1,
            // Nobody reads the answer any more.
            Ok(Done::Deaf) => return,
            Err(fault) => {
                tally.failed += 1;
                if order.lines.send_async(Line::Unreadable(id, fault.to_string())).await.is_err() {
                    return;
                }
            }
        }
        tally.matched += 1;
    }
    let _ = order.lines.send_async(Line::End(tally)).await;
}

enum Done {
    Yes,
    UnderWay,
    NotMeant,
    Deaf,
}

impl<F: Files> Queue<'_, F> {
    /// Those that may be meant, in the order of their ids, which is the order of their arrival.
    fn candidates(&self, selector: &Selector) -> Vec<QueueId> {
        let now_ms = (self.now)().unix_ms;
        let listed = match selector {
            Selector::Every(conditions) => conditions.iter().find_map(ids_of),
            selector => ids_of(selector),
        };
        let mut ids: Vec<QueueId> = match listed {
            Some(ids) => ids.iter().copied().filter(|&id| self.spool.summary(id).is_some()).collect(),
            _ if selector.wants_entry() => self.spool.summaries().iter().map(|summary| summary.id).collect(),
            _ => {
                let meant = self.spool.summaries().into_iter().filter(|summary| {
                    selector.matches(summary.id, u64::from(summary.arrival_s) * 1000, None, now_ms)
                });
                meant.map(|summary| summary.id).collect()
            }
        };
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    async fn act(&self, id: QueueId, order: &QueueOrder) -> Result<Done, ReadFault> {
        if matches!(order.action, Action::List | Action::Show) {
            return self.tell(id, order).await;
        }
        if order.selector.wants_entry() && !self.is_meant(&self.spool.read(id).await?, id, &order.selector) {
            return Ok(Done::NotMeant);
        }
        match order.action {
            Action::Hold => self.hold(id).await,
            Action::Release => self.release(id).await,
            Action::Requeue => self.requeue(id).await,
            Action::Delete => self.delete(id).await,
            Action::Bounce => self.bounce(id).await,
            Action::List | Action::Show => Ok(Done::NotMeant),
        }
    }

    fn is_meant(&self, message: &Message<F>, id: QueueId, selector: &Selector) -> bool {
        selector.matches(id, message.entry.arrival_ms, Some(&message.entry), (self.now)().unix_ms)
    }

    async fn tell(&self, id: QueueId, order: &QueueOrder) -> Result<Done, ReadFault> {
        let mut message = self.spool.read(id).await?;
        if !self.is_meant(&message, id, &order.selector) {
            return Ok(Done::NotMeant);
        }
        let header = match order.action {
            Action::Show => Some(row::header(&mut message.body).await?),
            _ => None,
        };
        let doing = self.schedule.borrow().doing(id);
        let row = Row::of(id, &message, doing, header);
        let sent = order.lines.send_async(Line::Row(Box::new(row))).await;
        Ok(if sent.is_ok() { Done::Yes } else { Done::Deaf })
    }

    /// Writes a change of the state and waits until it is durable.
    async fn amend(&self, id: QueueId, change: impl FnMut(&mut State)) -> Result<Done, ReadFault> {
        (self.changes)(id);
        let written = self.spool.amend(id, change).await?.await;
        written.map_err(|refusal| ReadFault::Io(std::io::Error::other(refusal)))?;
        Ok(Done::Yes)
    }

    async fn hold(&self, id: QueueId) -> Result<Done, ReadFault> {
        if !self.schedule.borrow_mut().hold(id) {
            return Ok(Done::UnderWay);
        }
        self.amend(id, |state| state.held = true).await
    }

    /// What is not held stays as it is.
    async fn release(&self, id: QueueId) -> Result<Done, ReadFault> {
        let is_held = self.schedule.borrow().is_held(id);
        if is_held { self.requeue(id).await } else { Ok(Done::Yes) }
    }

    async fn requeue(&self, id: QueueId) -> Result<Done, ReadFault> {
        let now = (self.now)();
        let change = |state: &mut State| {
            state.held = false;
            state.due_ms = now.unix_ms;
        };
        let done = self.amend(id, change).await?;
        let destination = self.spool.summary(id).map(|summary| summary.keys.destination);
        let mut schedule = self.schedule.borrow_mut();
        schedule.requeue(id, now);
        destination.into_iter().for_each(|destination| schedule.probe(destination));
        Ok(done)
    }

    /// An attempt that is under way goes on and finds nothing to settle.
    async fn delete(&self, id: QueueId) -> Result<Done, ReadFault> {
        let ticket = self.spool.settle(id).ok_or(ReadFault::Gone)?;
        self.schedule.borrow_mut().remove(id);
        ticket.await.map_err(|refusal| ReadFault::Io(std::io::Error::other(refusal)))?;
        Ok(Done::Yes)
    }

    async fn bounce(&self, id: QueueId) -> Result<Done, ReadFault> {
        match self.schedule.borrow().doing(id) {
            // Its stream or its attempt may be delivering it.
            None | Some(Doing::UnderWay) => return Ok(Done::UnderWay),
            Some(_) => {}
        }
        // Nobody begins an attempt with the old state meanwhile.
        self.schedule.borrow_mut().hold(id);
        let now = (self.now)();
        let recipients = self.spool.read(id).await?.entry.recipients.len();
        match self.amend(id, |state| return_all(state, recipients, now.unix_ms)).await {
            Ok(done) => {
                (self.returned)(id);
                Ok(done)
            }
            Err(fault) => {
                self.schedule.borrow_mut().requeue(id, now);
                Err(fault)
            }
        }
    }
}

fn ids_of(selector: &Selector) -> Option<&Vec<QueueId>> {
    if let Selector::Ids(ids) = selector { Some(ids) } else { None }
}

/// Everybody who was to be delivered to has failed, by an operator's word.
fn return_all(state: &mut State, recipients: usize, now_ms: u64) {
    state.held = false;
    state.due_ms = now_ms;
    for recipient in 0..recipients {
        if state.standing(recipient) == Standing::Pending {
            state.set_standing(recipient, Standing::Failed);
        }
    }
    state.remember(Attempt {
        at_ms: now_ms,
        recipient: None,
        upstream: String::new(),
        reply: RETURNED.to_owned(),
    });
}

/// What the sender reads of a message that an operator has returned.
const RETURNED: &str = "5.0.0 returned by the postmaster of the relay";
