//! A small message of the queue in one pipelined group: MAIL, its recipients and `BDAT LAST` with the content, where the
//! upstream offers PIPELINING and CHUNKING (RFC 3030 §4.2). One exchange instead of two: a round trip less to a distant
//! upstream, a send and a receive less here.
//!
//! The content is on its way before any recipient is taken, so that this is only for what costs little to send in vain, and
//! only on a connection that has just served or was just made: elsewhere a break would leave more outcomes unknown than it
//! must. What it must not do: carry a message that a client still has, whose recipients are to hear their answers first.
//! Why this is worth it, and what it costs: `docs/decisions/0005-one-group-for-a-queued-message.md`.

use bytes::Bytes;

use super::connection::{Broken, Connection};
use super::outcome::Stage;
use super::protection::Protection;
use super::stream::UpstreamStream;
use super::{EightBit, agreement};
use crate::custody::Custody;
use crate::envelope::Envelope;
use crate::ingress::sink::Answer;
use crate::io::{Flight, Io};
use crate::limits::{UPSTREAM_RSET_AFTER, UPSTREAM_VERDICT_TIMEOUT};
use crate::smtp::client::{Expect, Last, Violation};
use crate::smtp::params::Rcpt;
use crate::smtp::reply::{self, Reply};

/// What came of a flight: an answer for each recipient, and the verdict for those that were taken.
pub(super) type Outcome = (Vec<Answer>, Result<Custody, Reply>);

impl<I: Io> UpstreamStream<I> {
    /// Hands a message on in one flight. `None`: no connection is fit for that, or the one that was broke before it said
    /// anything; the usual way is open, and to be gone.
    pub(super) async fn pipelined(
        &mut self,
        envelope: &Envelope,
        rcpts: &[Rcpt],
        content: &[Bytes],
    ) -> Option<Outcome> {
        let protection = Protection::of(envelope);
        let refused = |refusal: Reply| Some((vec![Err(refusal.clone()); rcpts.len()], Err(refusal)));
        let hand = match self.agreement.hand(rcpts.first()?.clone(), protection).await {
            Ok(hand) => hand,
            Err(refusal) => return refused(refusal),
        };
        if let Err(refusal) = self.agreement.foresee(envelope, &hand.connection) {
            self.agreement.leave(hand);
            return refused(refusal);
        }
        if !self.is_fit(&hand.connection, rcpts.len(), content) {
            self.agreement.leave(hand);
            return None;
        }
        let agreement::Hand { mut connection, is_reused, .. } = hand;
        let flown = self.transmit_whole(&mut connection, envelope, rcpts, content).await;
        let stray = connection.has_unread().then_some(Broken::Violation(Violation::Stray));
        match flown.err().or(stray) {
            Some(broken) if is_reused && connection.replies.is_empty() => {
                // Most likely it was closed while it was idle; whether it was, nobody knows.
                self.agreement.log_unknown(&broken);
                self.agreement.discard(connection);
                None
            }
            broken => Some(self.hear(connection, rcpts.len(), broken.as_ref())),
        }
    }

    /// Whether the connection may carry the group: it offers all that this takes, and nothing must be said on it before.
    fn is_fit(&self, connection: &Connection<I::Stream>, rcpts: usize, content: &[Bytes]) -> bool {
        let offered = connection.machine.capabilities();
        let is_awake = self.agreement.now().since(connection.idle_since) < UPSTREAM_RSET_AFTER;
        let bounces_8bit =
            self.agreement.egress.config().eightbit == EightBit::Bounce && !offered.eight_bit_mime;
        connection.takes_whole()
            && (is_awake && !connection.needs_reset && !connection.has_unread())
            && rcpts <= connection.recipients_max().min(agreement::FLIGHT_RECIPIENTS_MAX)
            && !(bounces_8bit && content.iter().any(|slice| !slice.is_ascii()))
    }

    /// Sends the group and reads its replies, also those before a break.
    async fn transmit_whole(
        &self,
        connection: &mut Connection<I::Stream>,
        envelope: &Envelope,
        rcpts: &[Rcpt],
        content: &[Bytes],
    ) -> Result<(), Broken> {
        connection.replies.clear();
        connection.messages += 1;
        connection.recipients = u32::try_from(rcpts.len()).unwrap_or(u32::MAX);
        let mail = &envelope.mail;
        let options = agreement::options_of(mail);
        connection.command(|machine, out| machine.mail(mail.reverse_path.as_str(), &options, out))?;
        for rcpt in rcpts {
            let (path, options) = (rcpt.forward_path.as_str(), agreement::rcpt_options_of(rcpt));
            connection.command(|machine, out| machine.rcpt(path, &options, out))?;
        }
        let mut flight: Flight = content.iter().cloned().collect();
        let octets = flight.octets() as u64;
        connection.command(|machine, out| machine.bdat(octets, Last::Yes, out));
        connection.body(&mut flight);
        let by = self.agreement.by(UPSTREAM_VERDICT_TIMEOUT);
        let sent = connection.transmit(by).await;
        // What it said before it broke counts.
        let heard = connection.collect(by).await;
        sent.and(heard)
    }

    /// What the upstream's replies mean, as far as they came.
    fn hear(
        &self,
        mut connection: Box<Connection<I::Stream>>,
        rcpts: usize,
        broken: Option<&Broken>,
    ) -> Outcome {
        let Heard { mut answers, refusal, custody, needs_reset, is_closing } = self.judge(&mut connection);
        let nobody = refusal.is_some() || (answers.len() == rcpts && answers.iter().all(Result::is_err));
        connection.needs_reset |= needs_reset;
        match broken {
            None if !is_closing => self.agreement.give_back(connection),
            None => self.agreement.discard(connection),
            Some(broken) => {
                if nobody {
                    self.agreement.log_broken(broken);
                } else {
                    self.agreement.log_unknown(broken);
                }
                self.agreement.discard(connection);
            }
        }
        // Whom nothing was said of has nothing promised; and a verdict with something behind it may be another's.
        answers.resize(rcpts, Err(refusal.clone().unwrap_or(reply::UPSTREAM_LOST)));
        let custody = custody.filter(|_| broken.is_none());
        let verdict = custody.ok_or_else(|| refusal.unwrap_or(reply::UPSTREAM_LOST));
        (answers, verdict)
    }

    /// Sorts the replies of a group.
    fn judge(&self, connection: &mut Connection<I::Stream>) -> Heard {
        let mut heard = Heard::default();
        for (to, reply) in connection.replies.drain(..) {
            heard.is_closing |= reply.is_closing();
            match to {
                Expect::Rcpt => heard.answers.push(match &heard.refusal {
                    Some(refusal) => Err(refusal.clone()),
                    None if reply.is_positive() => Ok(()),
                    None => Err(self.agreement.refusal(Stage::Rcpt, &reply)),
                }),
                _ if reply.is_positive() => heard.custody = Custody::of_upstream(to, &reply),
                Expect::Mail => {
                    heard.refusal = Some(self.agreement.refusal(Stage::Mail, &reply));
                    heard.needs_reset = true;
                }
                // RFC 3030 §4.2: behind a chunk that was refused only RSET is certain.
                _ => {
                    heard.needs_reset = true;
                    if heard.answers.iter().any(Result::is_ok) {
                        heard.refusal = Some(self.agreement.refusal(Stage::Message, &reply));
                    }
                }
            }
        }
        heard
    }
}

/// What the replies of a group come to.
#[derive(Debug, Default)]
struct Heard {
    answers: Vec<Answer>,
    /// Of the message as a whole, at MAIL or at its end.
    refusal: Option<Reply>,
    custody: Option<Custody>,
    needs_reset: bool,
    is_closing: bool,
}
