//! What is agreed with an upstream before a message: who it is from and for, on which connection.
//!
//! One transaction's connection, from the pool or new, and the flight of MAIL, RCPT and DATA on it. The same agreement
//! can be had again on another connection as long as no octet of the message has been sent. It sorts the upstream's
//! replies into verdicts; what follows from them is `stream`'s business.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::connection::{Broken, Connection};
use super::outcome::{self, Stage};
use super::pace::Pace;
use super::pool::{Lease, Pool};
use super::protection::Protection;
use super::{Claimed, Egress, EightBit};
use crate::envelope::Envelope;
use crate::ingress::sink::{Answer, Next};
use crate::io::{Io, Stream};
use crate::limits::{TRACE_OCTETS, UPSTREAM_ENVELOPE_TIMEOUT, UPSTREAM_RSET_AFTER};
use crate::smtp::client::{Client, Expect, MailOptions, RcptOptions, UpstreamReply};
use crate::smtp::params::{BodyType, Mail, Notify, Rcpt, Ret};
use crate::smtp::reply::{self, Reply};
use crate::units::Moment;

/// One session's agreements, one at a time.
pub(super) struct Agreement<I: Io> {
    pub(super) egress: Rc<Egress<I>>,
    held: Option<Held<I::Stream>>,
    /// Recipients that the upstream has accepted in this transaction.
    pub(super) taken: Vec<Rcpt>,
    /// Whom the transaction goes to, or went to.
    pub(super) upstream: String,
    /// Whether it offers DSN (RFC 3461).
    pub(super) sends_notices: bool,
    /// The TLS that it goes by, or went by.
    pub(super) tls: Arc<str>,
}

/// The pool of a transaction, and the place where its connection is left while the client is silent.
struct Held<S> {
    pool: Rc<Pool<S>>,
    lease: Rc<Lease<S>>,
}

/// A connection with the agreement on it, and whether it came from the pool.
pub(super) struct Hand<I: Io> {
    pub(super) connection: Box<Connection<I::Stream>>,
    pub(super) is_reused: bool,
    pub(super) is_agreed: bool,
}

/// What a flight of MAIL, RCPT and DATA came to.
#[derive(Default)]
pub(super) struct Verdicts {
    pub(super) answers: Vec<Answer>,
    pub(super) data: Option<UpstreamReply>,
    pub(super) says_goodbye: bool,
    /// The connection does not carry what was agreed: MAIL was refused, or a recipient that the client was promised.
    pub(super) is_void: bool,
}

impl<I: Io> Agreement<I> {
    pub(super) fn new(egress: Rc<Egress<I>>) -> Self {
        Self {
            egress,
            held: None,
            taken: Vec::new(),
            upstream: String::new(),
            sends_notices: false,
            tls: "none".into(),
        }
    }

    pub(super) fn now(&self) -> Moment {
        self.egress.io.tick()
    }

    pub(super) fn by(&self, wait: Duration) -> Moment {
        self.egress.io.tick().after(wait)
    }

    /// The parked connection, or another one for the same agreement: a connection on which the upstream has spoken
    /// unasked, or closed, carries it no more (I6).
    pub(super) async fn hand(&mut self, recipient: Rcpt, protection: Protection) -> Result<Hand<I>, Reply> {
        match self.unpark() {
            Some(connection) if connection.has_spoken() => self.discard(connection),
            Some(connection) => return Ok(Hand { connection, is_reused: false, is_agreed: true }),
            None => {}
        }
        let Claimed { pool, connection, is_reused } = self.egress.claim(&recipient, protection).await?;
        self.upstream.clear();
        outcome::name_upstream(&mut self.upstream, &connection.host, connection.address);
        self.sends_notices = connection.machine.capabilities().dsn;
        self.tls = Arc::clone(&connection.tls);
        if self.held.as_ref().is_none_or(|held| !Rc::ptr_eq(&held.pool, &pool)) {
            let lease = pool.lease();
            self.held = Some(Held { pool, lease });
        }
        Ok(Hand { connection, is_reused, is_agreed: false })
    }

    /// How long the upstream takes; `None` before one is known.
    pub(super) fn pace(&self) -> Option<&Pace> {
        self.held.as_ref().map(|held| &held.pool.pace)
    }

    /// Leaves the connection where it can be taken away if the client stays silent.
    pub(super) fn park(&self, connection: Box<Connection<I::Stream>>, is_in_data: bool) {
        if let Some(held) = &self.held {
            held.lease.park(connection, self.now(), is_in_data);
        }
    }

    /// Whether a connection is parked that takes chunks.
    pub(super) fn is_parked_with_chunking(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.lease.is_parked_with_chunking())
    }

    /// The parked connection; `None`: there is none, or it was taken away.
    pub(super) fn unpark(&self) -> Option<Box<Connection<I::Stream>>> {
        self.held.as_ref().and_then(|held| held.lease.unpark())
    }

    /// Whether its last upstream may take a whole message in one flight, as far as is known.
    pub(super) fn may_take_whole(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.pool.takes_whole.get())
    }

    pub(super) fn discard(&self, connection: Box<Connection<I::Stream>>) {
        match &self.held {
            Some(held) => held.pool.discard(connection),
            None => drop(connection),
        }
    }

    pub(super) fn abort(&self, connection: Connection<I::Stream>) {
        match &self.held {
            Some(held) => held.pool.abort(connection),
            None => connection.abort(),
        }
    }

    /// Says MAIL (where the connection has not heard it), the recipients, and DATA where it may travel along.
    ///
    /// A connection from the pool that breaks before it has answered anything was stale: the next one is tried.
    pub(super) async fn agree(
        &mut self,
        envelope: &Envelope,
        rcpts: &[Rcpt],
        next: Next,
    ) -> Result<(Box<Connection<I::Stream>>, Verdicts), Reply> {
        loop {
            let protection = Protection::of(envelope);
            let mut hand = self.hand(self.taken.first().unwrap_or(&rcpts[0]).clone(), protection).await?;
            if let Err(refusal) = self.foresee(envelope, &hand.connection) {
                self.leave(hand);
                return Err(refusal);
            }
            let replayed = if hand.is_agreed { Vec::new() } else { self.taken.clone() };
            match self.fly(&mut hand, envelope, &replayed, rcpts, next).await {
                Ok(verdicts) => return Ok((hand.connection, verdicts)),
                Err(broken) => {
                    let was_stale = hand.is_reused && hand.connection.replies.is_empty();
                    self.discard(hand.connection);
                    if !was_stale {
                        self.log_broken(&broken);
                        return Err(reply::UPSTREAM_LOST);
                    }
                }
            }
        }
    }

    /// What would be refused in any case, by what the upstream has offered (RFC 1870 §6.1, 6531 §3.5, 6152 §3).
    pub(super) fn foresee(
        &self,
        envelope: &Envelope,
        connection: &Connection<I::Stream>,
    ) -> Result<(), Reply> {
        let offered = connection.machine.capabilities();
        let params = &envelope.mail.params;
        if params.size.zip(offered.size_max()).is_some_and(|(size, size_max)| size > size_max) {
            return Err(reply::MESSAGE_TOO_BIG);
        }
        if params.smtputf8 && !offered.smtputf8 {
            return Err(reply::SMTPUTF8_NOT_SUPPORTED);
        }
        let bounces = self.egress.config().eightbit == EightBit::Bounce;
        if bounces && params.body == Some(BodyType::EightBitMime) && !offered.eight_bit_mime {
            return Err(reply::EIGHTBIT_NOT_SUPPORTED);
        }
        Ok(())
    }

    async fn fly(
        &self,
        hand: &mut Hand<I>,
        envelope: &Envelope,
        replayed: &[Rcpt],
        rcpts: &[Rcpt],
        next: Next,
    ) -> Result<Verdicts, Broken> {
        let connection = &mut hand.connection;
        let by = self.by(UPSTREAM_ENVELOPE_TIMEOUT);
        let pipelines = connection.machine.capabilities().pipelining;
        let mut replies = Vec::new();
        connection.replies.clear();
        if !hand.is_agreed {
            if connection.needs_reset || self.now().since(connection.idle_since) >= UPSTREAM_RSET_AFTER {
                connection.command(Client::rset);
                connection.needs_reset = false;
                settle(connection, pipelines, by, &mut replies).await?;
            }
            connection.messages += 1;
            connection.recipients = 0;
            let mail = &envelope.mail;
            connection
                .command(|machine, out| machine.mail(mail.reverse_path.as_str(), &options_of(mail), out))?;
            settle(connection, pipelines, by, &mut replies).await?;
        }
        // RFC 9422 §4.2: what the upstream will not take is not asked.
        let room = connection.recipients_left();
        for (count, rcpt) in replayed.iter().chain(rcpts).take(room).enumerate() {
            connection.recipients += 1;
            let path = rcpt.forward_path.as_str();
            connection.command(|machine, out| machine.rcpt(path, &rcpt_options_of(rcpt), out))?;
            // Never more on the way than the upstream takes without our reading its replies.
            settle(
                connection,
                pipelines && count % FLIGHT_RECIPIENTS_MAX != FLIGHT_RECIPIENTS_MAX - 1,
                by,
                &mut replies,
            )
            .await?;
        }
        if next == Next::Data && pipelines && !connection.machine.capabilities().chunking {
            connection.command(Client::data);
        }
        if connection.machine.owed() > 0 {
            connection.exchange(by).await?;
        }
        replies.append(&mut connection.replies);
        connection.replies = replies;
        Ok(self.judge(connection, replayed.len(), rcpts.len()))
    }

    /// Sorts the replies of a flight into verdicts.
    fn judge(&self, connection: &mut Connection<I::Stream>, replayed: usize, asked: usize) -> Verdicts {
        let mut verdicts = Verdicts::default();
        let mut refusal = None;
        let mut position = 0;
        for (to, reply) in connection.replies.drain(..) {
            verdicts.says_goodbye |= reply.is_closing();
            match to {
                Expect::Rset if !reply.is_positive() => refusal = Some(reply::UPSTREAM_LOST),
                Expect::Mail if !reply.is_positive() => {
                    refusal = Some(self.refusal(Stage::Mail, &reply));
                }
                Expect::Rcpt => {
                    let answer = match (&refusal, reply.is_positive()) {
                        (Some(refusal), _) => Err(refusal.clone()),
                        (None, true) => Ok(()),
                        (None, false) => Err(self.refusal(Stage::Rcpt, &reply)),
                    };
                    // A recipient that was taken on another connection and is refused on this one: the client has
                    // heard 250 for it, so that the whole transaction must wait.
                    if position < replayed && answer.is_err() {
                        refusal = Some(reply::UPSTREAM_LOST);
                    } else if position >= replayed {
                        verdicts.answers.push(answer);
                    }
                    position += 1;
                }
                Expect::Data => verdicts.data = Some(reply),
                _ => {}
            }
        }
        let missing = asked.saturating_sub(verdicts.answers.len());
        verdicts.answers.extend(std::iter::repeat_n(Err(reply::TOO_MANY_RECIPIENTS), missing));
        // All that was promised must be on this connection, also where it names fewer recipients than the last one.
        verdicts.is_void = refusal.is_some() || position < replayed;
        if verdicts.is_void {
            verdicts.answers.iter_mut().filter(|answer| answer.is_ok()).for_each(|answer| {
                *answer = Err(reply::UPSTREAM_LOST);
            });
        }
        verdicts
    }

    /// Gives back a connection on which no message was opened.
    pub(super) fn leave(&self, hand: Hand<I>) {
        let mut connection = hand.connection;
        connection.needs_reset |= hand.is_agreed;
        self.give_back(connection);
    }

    /// The reply for the client where the upstream's is not the one that was hoped for.
    pub(super) fn refusal(&self, stage: Stage, reply: &UpstreamReply) -> Reply {
        self.egress.refusal(stage, reply, &self.upstream)
    }

    pub(super) fn log_broken(&self, broken: &Broken) {
        self.egress.log_broken(&self.upstream, broken);
    }

    pub(super) fn log_unknown(&self, broken: &Broken) {
        self.egress.log_unknown(&self.upstream, broken);
    }

    /// Gives back a connection whose agreement comes to nothing.
    pub(super) fn leave_agreed(&self, connection: Box<Connection<I::Stream>>) {
        self.leave(Hand { connection, is_reused: true, is_agreed: true });
    }

    /// Gives back a connection after its transaction: to the pool, or for good where it is spent or not quiet.
    pub(super) fn give_back(&self, connection: Box<Connection<I::Stream>>) {
        let Some(Held { pool, .. }) = &self.held else { return };
        let is_spent = self.egress.is_outdated(&connection) || connection.is_spent();
        if connection.machine.is_quiet() && !is_spent {
            if let Some(leaving) = pool.give_back(connection, self.now()) {
                self.egress.take_leave(*leaving);
            }
        } else if connection.machine.is_quiet() {
            self.egress.take_leave(*connection);
            pool.permit_is_free();
        } else {
            pool.discard(connection);
        }
    }

    /// A connection on which all that was agreed with the client is agreed with the upstream.
    pub(super) async fn agreed(&mut self, envelope: &Envelope) -> Result<Box<Connection<I::Stream>>, Reply> {
        let Some(first) = self.taken.first().cloned() else { return Err(reply::NO_RECIPIENTS) };
        loop {
            let mut hand = self.hand(first.clone(), Protection::of(envelope)).await?;
            if hand.is_agreed {
                return Ok(hand.connection);
            }
            match self.fly(&mut hand, envelope, &[], &self.taken, Next::Other).await {
                Ok(verdicts) if verdicts.answers.iter().all(Answer::is_ok) => return Ok(hand.connection),
                // What was agreed once is refused now: the client keeps the message and asks anew.
                Ok(_) => {
                    hand.is_agreed = true;
                    self.leave(hand);
                    return Err(reply::UPSTREAM_LOST);
                }
                Err(_) if hand.is_reused && hand.connection.replies.is_empty() => {
                    self.discard(hand.connection);
                }
                Err(broken) => return Err(self.lose(*hand.connection, &broken)),
            }
        }
    }

    /// The connection broke when it could not be replaced: nothing of the message may be delivered.
    pub(super) fn lose(&self, connection: Connection<I::Stream>, broken: &Broken) -> Reply {
        self.log_broken(broken);
        self.abort(connection);
        reply::UPSTREAM_LOST
    }
}

/// What goes upstream with MAIL, as far as it is offered there.
pub(super) fn options_of(mail: &Mail) -> MailOptions<'_> {
    let params = &mail.params;
    MailOptions {
        // RFC 1870 §6.1: the size as it will be sent, our own header fields included.
        size: params.size.map(|size| size.saturating_add(TRACE_OCTETS)),
        eight_bit_mime: params.body == Some(BodyType::EightBitMime),
        smtputf8: params.smtputf8,
        require_tls: params.requiretls,
        ret: params.ret.map(|ret| match ret {
            Ret::Full => "FULL",
            Ret::Headers => "HDRS",
        }),
        envid: params.envid.as_deref(),
        // RFC 4954 §5: what an untrusted client claims is passed on as nobody's.
        auth: params.auth.as_ref().map(|_claimed| "<>"),
    }
}

pub(super) fn rcpt_options_of(rcpt: &Rcpt) -> RcptOptions<'_> {
    RcptOptions { notify: rcpt.params.notify.map(Notify::as_str), orcpt: rcpt.params.orcpt.as_deref() }
}

/// Flushes what was noted where the upstream does not take pipelined commands.
async fn settle<S: Stream>(
    connection: &mut Connection<S>,
    may_wait: bool,
    by: Moment,
    replies: &mut Vec<(Expect, UpstreamReply)>,
) -> Result<(), Broken> {
    if may_wait {
        return Ok(());
    }
    let result = connection.exchange(by).await;
    replies.append(&mut connection.replies);
    result
}

/// Recipients of one flight: their replies fit any socket buffer, so that neither side waits for the other (C5).
pub(super) const FLIGHT_RECIPIENTS_MAX: usize = 100;
