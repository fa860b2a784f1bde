//! What the sender hears, and what an operator does: notices of failure and delay, and the orders about the queue.
//!
//! **Order.** A recipient that has failed is written down as such; the notice is made durable; only then is the recipient
//! returned, and the message settled. A crash in between tells the sender twice; it never keeps silent.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::fate::{self, Fate};
use super::letter::Letter;
use super::{Delivery, Hop, Parcel};
use crate::egress::notice::{self, Diagnostic, Event, Original, Outcome, Teller};
use crate::egress::operator::{self, Action, Queue, QueueOrder};
use crate::io::Io;
use crate::io::files::Files;
use crate::limits::NOTICE_ORIGINAL_OCTETS_MAX;
use crate::smtp::reply::{self, Enhanced, Reply};
use crate::spool::entry::{Attempt, Entry, Standing, State};
use crate::spool::{Next, schedule};
use crate::trace::LocalTime;
use crate::units::QueueId;

impl<I: Io, F: Files> Delivery<I, F> {
    /// Does what an operator orders, beside everything else; the answer goes where the order says.
    pub fn obey(self: &Rc<Self>, order: QueueOrder) {
        let queue = Rc::clone(self);
        self.task(async move {
            let changes = |id| drop(queue.fresh.borrow_mut().take(id));
            let returned = |id| {
                let returning = Rc::clone(&queue);
                queue.task(async move { returning.return_now(id).await });
            };
            let reached = Queue {
                spool: &queue.spool,
                schedule: &queue.schedule,
                now: &|| queue.now(),
                changes: &changes,
                returned: &returned,
            };
            if matches!(order.action, Action::Release | Action::Requeue) {
                queue.egress.probe_now();
            }
            operator::obey(reached, &order).await;
            queue.bell.ring();
        });
    }

    /// An operator has returned a message: its sender hears of it without an attempt before.
    async fn return_now(self: &Rc<Self>, id: QueueId) {
        match self.open(id).await {
            Ok((mut letter, _)) => {
                if self.return_failed(&mut letter).await {
                    self.settle(id, schedule::Outcome::Dropped);
                } else {
                    self.postpone(letter);
                }
            }
            Err(fault) => self.unreadable(id, &fault),
        }
        self.bell.ring();
    }

    /// Sees to it that the sender hears of recipients that were refused for good; whether nothing of that is left to do.
    pub(super) async fn return_failed(self: &Rc<Self>, letter: &mut Letter) -> bool {
        let failed = letter.standing(Standing::Failed);
        let is_told = self.tell(letter, &failed, Event::Failed).await;
        if is_told {
            failed.into_iter().for_each(|place| letter.state.set_standing(place, Standing::Returned));
        }
        is_told
    }

    /// Sees to it that the sender hears of recipients whose upstream sends no notices; whether nothing of that is left to do.
    pub(super) async fn tell_relayed(self: &Rc<Self>, letter: &mut Letter) -> bool {
        let relayed = letter.standing(Standing::Relayed);
        let is_told = self.tell(letter, &relayed, Event::Relayed).await;
        if is_told {
            relayed.into_iter().for_each(|place| letter.state.set_standing(place, Standing::Delivered));
        }
        is_told
    }

    /// The same for a message that was never in the spool: all its recipients were relayed with this reply. Where the notice
    /// cannot be made durable now, it is lost: the message is not here to wait with it.
    pub async fn tell_of_stream(
        self: &Rc<Self>,
        id: QueueId,
        entry: Entry,
        hop: Hop<'_>,
        reply: &Reply,
        beginning: Beginning,
    ) {
        let fates: Vec<(usize, Fate)> =
            (0..entry.recipients.len()).map(|place| (place, Fate::of(reply.clone()))).collect();
        let mut letter = Letter { id, entry: Rc::new(entry), state: State::default(), octets: 0 };
        fate::record(&mut letter, hop, self.io.unix_ms(), &fates);
        let relayed = letter.standing(Standing::Relayed);
        if !self.tell_with(&letter, &relayed, Event::Relayed, Some(beginning)).await {
            tracing::error!(event = "notice_lost", queue_id = %id, to = letter.entry.sender.as_str());
        }
    }

    /// Makes a notice durable about those of the recipients whose sender wants one. False: there is one to be sent, and it
    /// could not be.
    pub(super) async fn tell(self: &Rc<Self>, letter: &Letter, places: &[usize], event: Event) -> bool {
        self.tell_with(letter, places, event, None).await
    }

    /// The same; `beginning`: of a message that is not in the spool.
    async fn tell_with(
        self: &Rc<Self>,
        letter: &Letter,
        places: &[usize],
        event: Event,
        beginning: Option<Beginning>,
    ) -> bool {
        let bounce_to = self.config.borrow().bounce_to.clone();
        let wanted = |&place: &usize| notice::addressee(&letter.entry, place, event, &bounce_to).is_some();
        let places: Vec<usize> = places.iter().copied().filter(wanted).collect();
        let Some(to) =
            places.first().and_then(|&place| notice::addressee(&letter.entry, place, event, &bounce_to))
        else {
            return true;
        };
        // Seldom, and large: an attempt is not to be as large as a notice is.
        Box::pin(self.tell_addressee(letter, (to, &places), event, beginning)).await
    }

    /// The same, to this address.
    async fn tell_addressee(
        self: &Rc<Self>,
        letter: &Letter,
        (to, places): (&str, &[usize]),
        event: Event,
        beginning: Option<Beginning>,
    ) -> bool {
        let bounce_to = self.config.borrow().bounce_to.clone();
        let uptime = Duration::from_micros(self.io.now().0);
        if let Err(wait) = self.notices.borrow_mut().take(to, uptime) {
            tracing::warn!(event = "notice_put_off", queue_id = %letter.id, to, wait = wait.as_secs());
            return false;
        }
        let beginning = match beginning {
            Some(beginning) => beginning,
            None => self.beginning(letter.id).await,
        };
        let Beginning { octets, is_whole } = &beginning;
        let original = Original { id: letter.id, entry: &letter.entry, octets, is_whole: *is_whole };
        let id = self.ids.borrow_mut().issue();
        let host_name = Arc::clone(&self.egress.config().relay_host_name);
        let now = LocalTime { unix_ms: self.io.unix_ms(), offset_minutes: 0 };
        let teller = Teller { host_name: &host_name, bounce_to: &bounce_to, id, now };
        let outcomes: Vec<Outcome> = places.iter().map(|&place| outcome(&letter.state, place)).collect();
        let Some(notice) = notice::notice(event, &outcomes, &original, &teller) else { return true };
        let parcel = Parcel { entry: notice.entry, body: vec![Bytes::from(notice.octets)], draft: None };
        match self.commit(id, parcel, Next::Schedule).await {
            Ok(_receipt) => {
                tracing::info!(event = "notice", queue_id = %id, about = %letter.id, to, nrcpt = places.len());
                true
            }
            Err(refusal) => {
                tracing::error!(event = "notice_put_off", queue_id = %letter.id, to, reason = %refusal);
                false
            }
        }
    }

    /// The first octets of a message. Best effort: a notice goes out also where the message cannot be read any more.
    async fn beginning(&self, id: QueueId) -> Beginning {
        let mut octets = Vec::new();
        let Ok(mut message) = self.spool.read(id).await else { return Beginning::default() };
        while octets.len() <= NOTICE_ORIGINAL_OCTETS_MAX {
            match message.body.next().await {
                Ok(Some(more)) => octets.extend_from_slice(&more),
                Ok(None) => return Beginning { octets, is_whole: true },
                Err(_unreadable) => break,
            }
        }
        Beginning { octets, is_whole: false }
    }
}

/// The first octets of a message in plain form, as many as a notice may return.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beginning {
    /// These octets.
    pub octets: Vec<u8>,
    /// Whether they are all.
    pub is_whole: bool,
}

/// What a notice says of a recipient, out of the history of its message.
fn outcome(state: &State, place: usize) -> Outcome {
    let is_about = |attempt: &&Attempt| {
        attempt.recipient.is_none_or(|about| usize::try_from(about).is_ok_and(|about| about == place))
    };
    let mut heard = state.history.iter().rev().filter(is_about);
    let last = heard.next();
    let expired = reply::EXPIRED.to_string();
    // What went wrong all the time tells more than that it did so for too long.
    let is_expired = last.is_some_and(|attempt| attempt.reply == expired);
    let cause = if is_expired { heard.next().or(last) } else { last };
    let said = cause.map_or("", |attempt| attempt.reply.as_str());
    let upstream = cause.map_or("", |attempt| attempt.upstream.as_str());
    let (is_reply, status) = status_of(said);
    let host = upstream.split('[').next().filter(|host| !host.is_empty());
    Outcome {
        recipient: place,
        // RFC 3463 §3.5: 4.4.7, delivery time expired; in a report of failure its class is 5.
        status: if is_expired { Enhanced(5, 4, 7) } else { status },
        diagnostic: match (is_reply && !upstream.is_empty(), is_expired) {
            (true, _) => Diagnostic::Smtp(said.to_owned()),
            (false, true) => Diagnostic::Local(format!("delivery time expired; last: {said}")),
            (false, false) => Diagnostic::Local(said.to_owned()),
        },
        remote: host.map(str::to_owned),
        tried_ms: cause.map(|attempt| attempt.at_ms),
    }
}

/// Whether a text begins with a reply code, and the status that it means (RFC 3463).
fn status_of(said: &str) -> (bool, Enhanced) {
    let mut words = said.split(' ');
    let first = words.next().unwrap_or_default();
    let code = Some(first).filter(|word| word.len() == 3).and_then(|word| word.parse::<u16>().ok());
    let word = if code.is_some() { words.next().unwrap_or_default() } else { first };
    let mut digits = word.split('.');
    let mut digit = || digits.next()?.parse::<u16>().ok();
    let enhanced = (|| Some((u8::try_from(digit()?).ok()?, digit()?, digit()?)))();
    let class = code.and_then(|code| u8::try_from(code / 100).ok()).unwrap_or(5);
    let status =
        enhanced.map_or(Enhanced(class, 0, 0), |(class, subject, detail)| Enhanced(class, subject, detail));
    (code.is_some(), status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(attempts: &[(Option<u32>, &str, &str)]) -> State {
        let mut state = State::default();
        for &(recipient, upstream, reply) in attempts {
            let (upstream, reply) = (upstream.to_owned(), reply.to_owned());
            state.remember(Attempt { at_ms: 7, recipient, upstream, reply });
        }
        state
    }

    #[test]
    fn the_upstreams_own_words_are_told() {
        let upstream = "mx.example[198.18.0.1]:25";
        let state = state(&[
            (None, upstream, "450 4.2.0 later"),
            (Some(1), upstream, "550 5.1.1 no such user"),
            (Some(0), upstream, "550 no"),
        ]);
        let found = outcome(&state, 1);
        assert_eq!(found.status, Enhanced(5, 1, 1));
        assert_eq!(found.diagnostic, Diagnostic::Smtp("550 5.1.1 no such user".to_owned()));
        assert_eq!((found.remote.as_deref(), found.tried_ms), (Some("mx.example"), Some(7)));
        assert_eq!(outcome(&state, 0).status, Enhanced(5, 0, 0));
    }

    #[test]
    fn of_what_expired_the_cause_is_told() {
        let expired = reply::EXPIRED.to_string();
        let upstream = "mx.example[198.18.0.1]:25";
        let found = outcome(&state(&[(None, upstream, "450 4.2.0 busy"), (None, upstream, &expired)]), 0);
        assert_eq!(found.status, Enhanced(5, 4, 7));
        assert_eq!(found.diagnostic, Diagnostic::Smtp("450 4.2.0 busy".to_owned()));
        let found = outcome(&state(&[(None, "", "451 4.4.1 not reached"), (None, "", &expired)]), 0);
        let expected = "delivery time expired; last: 451 4.4.1 not reached";
        assert_eq!(found.diagnostic, Diagnostic::Local(expected.to_owned()));
    }

    #[test]
    fn an_operators_word_is_no_reply_of_an_upstream() {
        let found = outcome(&state(&[(None, "", "5.0.0 returned by the postmaster")]), 0);
        assert_eq!(found.status, Enhanced(5, 0, 0));
        assert!(matches!(found.diagnostic, Diagnostic::Local(_)) && found.remote.is_none());
        assert_eq!(outcome(&State::default(), 0).status, Enhanced(5, 0, 0));
    }
}
