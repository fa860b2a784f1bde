//! What becomes of messages that grow old in the queue: their senders are told of the delay, and in the end they are
//! returned, whether they have had an attempt of their own or stand behind a dead upstream.
//!
//! What it must not do: give up a message whose destination nobody has tried; look after so many at once that it shows in
//! memory, or in the way of mail.

use std::rc::Rc;
use std::time::Duration;

use super::fate::Fate;
use super::letter::Letter;
use super::{Delivery, Hop};
use crate::egress::notice::Event;
use crate::io::Io;
use crate::io::files::Files;
use crate::limits::{AGING_LOOK_MESSAGES, AGING_MAX, DELAY_WARNING_PAUSE};
use crate::smtp::reply;
use crate::spool::Message;
use crate::spool::schedule::{Look, Now, Outcome};
use crate::units::QueueId;

impl<I: Io, F: Files> Delivery<I, F> {
    /// Looks for messages that have grown old; to be called every tick.
    pub(super) fn look_after_the_old(self: &Rc<Self>, now: Now) {
        let may_warn = now.moment >= self.warn_at.get();
        let look = Look {
            messages: AGING_LOOK_MESSAGES,
            found_max: AGING_MAX.saturating_sub(self.aging.get()),
            warn_after: self.config.borrow().delay_warning.filter(|_| may_warn),
        };
        let aged = self.schedule.borrow_mut().aged(now, look);
        for id in aged.expired {
            self.look_after(|queue| async move { queue.expire(id).await });
        }
        for id in aged.late {
            self.look_after(|queue| async move { queue.warn(id).await });
        }
    }

    fn look_after<T: Future<Output = ()> + 'static>(self: &Rc<Self>, work: impl FnOnce(Rc<Self>) -> T) {
        self.aging.set(self.aging.get() + 1);
        let work = work(Rc::clone(self));
        let queue = Rc::clone(self);
        self.task(async move {
            work.await;
            queue.aging.set(queue.aging.get() - 1);
        });
    }

    /// The lifetime of a message is over while its destination is dead.
    async fn expire(self: &Rc<Self>, id: QueueId) {
        let (mut letter, _) = match self.open(id).await {
            Ok(opened) => opened,
            Err(fault) => return self.unreadable(id, &fault),
        };
        if letter.state.history.is_empty() {
            // The attempt that was in vain was another's, for the same destination.
            self.apply_to_all(&mut letter, "", &Fate::Later(reply::UPSTREAM_UNREACHABLE));
        }
        self.give_up(letter).await;
    }

    /// Nobody who still waits will be delivered to.
    pub(super) async fn give_up(self: &Rc<Self>, mut letter: Letter) {
        let last = letter.state.history.last().map(|attempt| attempt.upstream.clone()).unwrap_or_default();
        self.apply_to_all(&mut letter, &last, &Fate::Refused(reply::EXPIRED));
        if self.return_failed(&mut letter).await {
            self.settle(letter.id, Outcome::Dropped);
        } else {
            self.postpone(letter);
        }
    }

    /// The same for everybody who still waits.
    fn apply_to_all(&self, letter: &mut Letter, upstream: &str, fate: &Fate) {
        let fates: Vec<_> = letter.pending().into_iter().map(|place| (place, fate.clone())).collect();
        self.apply(letter, Hop { upstream, sends_notices: true }, &fates);
    }

    /// Tells the sender of a message that waits for its attempt, and writes down that he was told.
    async fn warn(self: &Rc<Self>, id: QueueId) {
        let Ok(message) = self.spool.read(id).await else {
            // Gone, or not to be read: its attempt will show.
            return;
        };
        let Message { entry, state, body_octets: octets, .. } = message;
        let mut letter = Letter { id, entry: Rc::new(entry), state, octets };
        if letter.state.delay_told {
            return;
        }
        if !self.tell_of_delay(&mut letter).await {
            self.schedule.borrow_mut().note_told(id, false);
            self.warn_at.set(self.io.now().after(DELAY_WARNING_PAUSE));
        } else {
            // Where that cannot be written a restart tells again.
            drop(self.spool.amend(id, |state| state.delay_told = true).await);
        }
    }

    /// After an attempt in vain: tells the sender of the delay, once, where `DELAY_WARNING` says so.
    pub(super) async fn warn_of_delay(self: &Rc<Self>, letter: &mut Letter) {
        let age = Duration::from_millis(self.io.unix_ms().saturating_sub(letter.entry.arrival_ms));
        let is_due = self.config.borrow().delay_warning.is_some_and(|after| age >= after);
        if !is_due || self.schedule.borrow().is_told(letter.id) {
            return;
        }
        self.schedule.borrow_mut().note_told(letter.id, true);
        if !self.tell_of_delay(letter).await {
            self.schedule.borrow_mut().note_told(letter.id, false);
        }
    }

    /// Makes the notice durable, where anybody wants one. False: it could not be.
    async fn tell_of_delay(self: &Rc<Self>, letter: &mut Letter) -> bool {
        let lifetime_ms = u64::try_from(self.config.borrow().lifetime.as_millis()).unwrap_or(u64::MAX);
        let until_ms = letter.entry.arrival_ms.saturating_add(lifetime_ms);
        let pending = letter.pending();
        letter.state.delay_told = self.tell(letter, &pending, Event::Delayed { until_ms }).await;
        letter.state.delay_told
    }
}
