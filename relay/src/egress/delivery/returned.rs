//! What senders are told of their messages: that delivery has failed, is late, or is out of our hands.
//!
//! A notice is a message like others: it is durable before the state says that its sender was told. A crash in between tells
//! him twice, never not at all.
//!
//! What it must not do: tell anybody about a notice, or more often than the budget allows: a message whose notice has to wait
//! stays in the queue with it.

use std::rc::Rc;

use bytes::Bytes;

use super::letter::Letter;
use super::{Delivery, letter};
use crate::egress::notice::{self, Diagnostic, Event, Original, Outcome, Teller};
use crate::io::Io;
use crate::io::files::Files;
use crate::limits::NOTICE_ORIGINAL_OCTETS_MAX;
use crate::smtp::reply::Enhanced;
use crate::spool::entry::{Attempt, Standing};
use crate::spool::{Next, ReadFault, Terms};
use crate::trace::LocalTime;
use crate::units::Moment;

impl<I: Io, F: Files> Delivery<I, F> {
    /// Sees to it that the sender hears of recipients that were refused for good; whether nothing of that is left to do.
    pub(super) async fn return_failed(self: &Rc<Self>, letter: &mut Letter) -> bool {
        let failed = letter.standing(Standing::Failed);
        if failed.is_empty() {
            return true;
        }
        let is_told = Box::pin(self.tell(letter, Event::Failed, &failed)).await;
        if is_told {
            failed.iter().for_each(|&place| letter.state.set_standing(place, Standing::Returned));
        }
        is_told
    }

    /// Tells the sender that his message is late, once.
    pub(super) async fn warn(self: &Rc<Self>, letter: &mut Letter) {
        let (warning, lifetime) = {
            let config = self.config.borrow();
            (config.delay_warning, config.lifetime)
        };
        let arrival_ms = letter.entry.arrival_ms;
        let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let is_late = |warning| self.io.unix_ms().saturating_sub(arrival_ms) >= millis(warning);
        if letter.state.delay_told || !warning.is_some_and(is_late) {
            return;
        }
        let event = Event::Delayed { until_ms: arrival_ms.saturating_add(millis(lifetime)) };
        let pending = letter.pending();
        letter.state.delay_told = Box::pin(self.tell(letter, event, &pending)).await;
    }

    /// Tells the sender of the recipients of these places; whether everybody who is to know will.
    async fn tell(&self, letter: &Letter, event: Event, places: &[usize]) -> bool {
        let config = self.config.borrow().clone();
        let addressee = |&place: &usize| notice::addressee(&letter.entry, place, event, &config.bounce_to);
        let Some(to) = places.iter().find_map(addressee) else { return true };
        if self.budget.borrow_mut().take(to, self.io.now().since(Moment::default())).is_err() {
            return false;
        }
        let (octets, is_whole) = match self.beginning(letter).await {
            Ok(read) => read,
            Err(fault) => {
                tracing::error!(event = "queue_unreadable", queue_id = %letter.id, reason = %fault);
                return false;
            }
        };
        let outcomes: Vec<Outcome> = places.iter().map(|&place| outcome(letter, place)).collect();
        let id = self.ids.borrow_mut().issue();
        let original = Original { id: letter.id, entry: &letter.entry, octets: &octets, is_whole };
        let host_name = self.egress.config().relay_host_name.clone();
        let teller = Teller {
            host_name: &host_name,
            bounce_to: &config.bounce_to,
            id,
            now: LocalTime { unix_ms: self.io.unix_ms(), offset_minutes: 0 },
        };
        let Some(notice) = notice::notice(event, &outcomes, &original, &teller) else { return true };
        let terms = Terms { keys: letter::keys(&notice.entry, self.egress.is_fixed()), next: Next::Schedule };
        let body = [Bytes::from(notice.octets)];
        let committed = self.spool.commit(id, &notice.entry, &body, terms).await;
        if committed.is_ok() {
            tracing::info!(event = "notice", queue_id = %id, about = %letter.id, to);
            self.bell.ring();
        }
        committed.is_ok()
    }

    /// The first octets of a message, and whether they are all.
    async fn beginning(&self, letter: &Letter) -> Result<(Vec<u8>, bool), ReadFault> {
        let mut body = self.spool.read(letter.id).await?.body;
        let mut octets = Vec::new();
        while octets.len() <= NOTICE_ORIGINAL_OCTETS_MAX {
            match body.next().await? {
                Some(chunk) => octets.extend_from_slice(&chunk),
                None => return Ok((octets, true)),
            }
        }
        Ok((octets, body.is_at_end()))
    }
}

/// What is known of the last attempt at a recipient.
fn outcome(letter: &Letter, place: usize) -> Outcome {
    let is_about = |attempt: &&Attempt| attempt.recipient.is_none_or(|about| about as usize == place);
    let last = letter.state.history.iter().rev().find(is_about);
    let reply = last.map_or("", |attempt| attempt.reply.as_str());
    let is_ours = last.is_none_or(|attempt| attempt.upstream.is_empty());
    let text = reply.to_owned();
    Outcome {
        recipient: place,
        status: status_of(reply),
        diagnostic: if is_ours { Diagnostic::Local(text) } else { Diagnostic::Smtp(text) },
        remote: last.map(|attempt| attempt.upstream.clone()).filter(|upstream| !upstream.is_empty()),
        tried_ms: last.map(|attempt| attempt.at_ms),
    }
}

/// The enhanced code of a reply's text, or the one that says as much as its first digit (RFC 3463 §3).
fn status_of(reply: &str) -> Enhanced {
    let class = match reply.bytes().next() {
        Some(b'4') => 4,
        _ => 5,
    };
    let mut words = reply.split([' ', '\n']);
    let enhanced = words.find_map(|word| {
        let mut numbers = word.splitn(3, '.').map(str::parse::<u16>);
        let (first, subject, detail) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Enhanced(u8::try_from(first).ok()?, subject, detail))
    });
    enhanced.filter(|enhanced| enhanced.0 == class).unwrap_or(Enhanced(class, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_from_what_was_said() {
        assert_eq!(status_of("550 5.1.1 no such user"), Enhanced(5, 1, 1));
        assert_eq!(status_of("554 rejected 5.7"), Enhanced(5, 0, 0));
        assert_eq!(status_of("451 4.3.0 later\nand so on"), Enhanced(4, 3, 0));
        assert_eq!(status_of(""), Enhanced(5, 0, 0));
    }
}
