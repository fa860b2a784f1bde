//! A small message of the queue in one flight: MAIL, its recipients and `BDAT LAST` with the content, where the upstream takes
//! chunks (RFC 3030 §4.2) and pipelining. One exchange instead of two: a wait less on the way to a distant upstream, and a
//! send and a receive less here.
//!
//! The content is on its way before any recipient is taken, so that it is only for what costs little to send in vain, and
//! only on a connection that has just served or was just made: elsewhere a break would leave more outcomes unknown than it
//! must. What it must not do: carry a message that a client still has.

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

/// A message that is all in memory.
#[derive(Debug, Clone)]
pub(super) struct Whole {
    pub(super) slices: Vec<Bytes>,
    pub(super) has_8bit: bool,
}

impl<I: Io> UpstreamStream<I> {
    /// Hands a message on in one flight. `None`: no connection is fit for that, or the one that was broke before it said
    /// anything; the usual way is open, and to be gone.
    pub(super) async fn at_once(
        &mut self,
        envelope: &Envelope,
        rcpts: &[Rcpt],
        whole: &Whole,
    ) -> Option<Outcome> {
        let protection = Protection::of(envelope.mail.params.requiretls);
        let refused = |refusal: Reply| Some((vec![Err(refusal.clone()); rcpts.len()], Err(refusal)));
        let hand = match self.agreement.hand(rcpts.first()?.clone(), protection).await {
            Ok(hand) => hand,
            Err(refusal) => return refused(refusal),
        };
        if let Err(refusal) = self.agreement.foresee(envelope, &hand.connection) {
            self.agreement.leave(hand);
            return refused(refusal);
        }
        if !self.is_fit(&hand.connection, rcpts.len(), whole) {
            self.agreement.leave(hand);
            return None;
        }
        let agreement::Hand { mut connection, is_reused, .. } = hand;
        let flown = self.fly_at_once(&mut connection, envelope, rcpts, whole).await;
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

    fn is_fit(&self, connection: &Connection<I::Stream>, rcpts: usize, whole: &Whole) -> bool {
        let offered = connection.machine.capabilities();
        let is_awake = self.agreement.now().since(connection.idle_since) < UPSTREAM_RSET_AFTER;
        let bounces = self.agreement.egress.config().eightbit == EightBit::Bounce;
        connection.takes_at_once()
            && (is_awake && !connection.needs_reset && !connection.has_unread())
            && rcpts <= connection.recipients_max().min(agreement::FLIGHT_RECIPIENTS_MAX)
            && !(whole.has_8bit && bounces && !offered.eight_bit_mime)
    }

    async fn fly_at_once(
        &self,
        connection: &mut Connection<I::Stream>,
        envelope: &Envelope,
        rcpts: &[Rcpt],
        whole: &Whole,
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
        let mut flight = Flight::default();
        whole.slices.iter().for_each(|slice| flight.push(slice.clone()));
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
        let (mut answers, mut refusal, mut custody) = (Vec::with_capacity(rcpts), None, None);
        let (mut is_refused, mut says_goodbye) = (false, false);
        for (to, reply) in std::mem::take(&mut connection.replies) {
            says_goodbye |= reply.is_closing();
            let refuse = |stage| self.agreement.refusal(stage, &reply);
            match to {
                Expect::Mail if !reply.is_positive() => {
                    is_refused = true;
                    refusal = Some(refuse(Stage::Mail));
                }
                Expect::Rcpt if !reply.is_positive() => {
                    answers.push(Err(refusal.clone().unwrap_or_else(|| refuse(Stage::Rcpt))));
                }
                Expect::Rcpt => answers.push(refusal.clone().map_or(Ok(()), Err)),
                Expect::LastChunk | Expect::Message if !reply.is_positive() => {
                    connection.needs_reset = true;
                    refusal = refusal.or_else(|| Some(refuse(Stage::Message)));
                }
                to => custody = custody.or_else(|| Custody::of_upstream(to, &reply)),
            }
        }
        let nobody = is_refused || (answers.len() == rcpts && answers.iter().all(Result::is_err));
        match broken {
            None if says_goodbye => self.agreement.discard(connection),
            None => {
                connection.needs_reset |= is_refused;
                self.agreement.give_back(connection);
            }
            Some(broken) => {
                if nobody || refusal.is_some() {
                    self.agreement.log_broken(broken);
                } else {
                    self.agreement.log_unknown(broken);
                }
                self.agreement.discard(connection);
            }
        }
        // Whom nothing was said of has nothing promised.
        answers.resize(rcpts, Err(refusal.clone().unwrap_or(reply::UPSTREAM_LOST)));
        let custody = custody.filter(|_| broken.is_none());
        let verdict = match (refusal, custody) {
            (Some(refusal), _) => Err(refusal),
            (None, Some(custody)) => Ok(custody),
            (None, None) => Err(reply::UPSTREAM_LOST),
        };
        (answers, verdict)
    }
}
