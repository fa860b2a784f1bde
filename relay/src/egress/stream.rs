//! The stream of a message to an upstream: the [`Sink`](crate::ingress::sink::Sink) of a pure streaming relay.
//!
//! Theory of operation. Recipients go to the upstream as soon as they are known, MAIL in front of the first, in one
//! pipelined flight; each gets the upstream's own verdict. The body follows slice by slice. Until its first slice is
//! sent, the whole agreement can be had again from another connection: that heals a stale pooled connection, and lets a
//! silent client lose the connection without losing its transaction. After the first slice there is one connection and
//! one end: the upstream's verdict, or 451.
//!
//! What it must not do: send a final dot or a LAST chunk for a message that its client did not finish, or after the
//! upstream has spoken out of turn (invariants 2 and 3); say 250 by itself (only [`Custody`] can).

use std::rc::Rc;
use std::time::Duration;

use super::agreement::{Agreement, Verdicts};
use super::connection::{Broken, Connection};
use super::delivery::Hop;
use super::outcome::Stage;
use super::pace::Pace;
use super::{Egress, EightBit};
use crate::custody::Custody;
use crate::envelope::Envelope;
use crate::ingress::sink::{Answer, Content, Next, Sink};
use crate::io::{Flight, Io};
use crate::limits::{
    UPSTREAM_BLOCK_TIMEOUT, UPSTREAM_DATA_TIMEOUT, UPSTREAM_VERDICT_TIMEOUT, UPSTREAM_WAIT_MAX,
};
use crate::smtp::body::Form;
use crate::smtp::client::{Client, Last, UpstreamReply, Violation};
use crate::smtp::params::Rcpt;
use crate::smtp::reply::{self, Reply};

/// One session's way to its upstream; carries one transaction at a time.
pub struct UpstreamStream<I: Io> {
    pub(super) agreement: Agreement<I>,
    stage: Progress<I>,
    /// How long the upstream may take for one block of a message.
    block_timeout: Duration,
    payment: Payment,
}

/// Who takes the token of `UPSTREAM_RATE` for a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payment {
    /// Whoever has begun it.
    Elsewhere,
    /// The stream itself, which has not.
    Due,
    /// The stream itself, which has.
    Paid,
}

/// How far the transaction has come.
enum Progress<I: Io> {
    /// Nothing was said to an upstream.
    Nothing,
    /// MAIL and recipients were said, on the connection that is parked.
    Agreed,
    /// The upstream waits for the message, on the connection that is parked.
    Open(Form),
    /// The upstream has refused DATA; the client hears it when it asks for it.
    DataRefused(Reply),
    /// The message is on its way.
    Streaming(Form, Box<Connection<I::Stream>>),
    /// The connection was lost when it could no longer be replaced.
    Lost,
}

impl<I: Io> UpstreamStream<I> {
    /// The way of one session.
    #[must_use]
    pub fn new(egress: Rc<Egress<I>>) -> Self {
        Self {
            agreement: Agreement::new(egress),
            stage: Progress::Nothing,
            block_timeout: UPSTREAM_BLOCK_TIMEOUT,
            payment: Payment::Due,
        }
    }

    /// The same, for transactions whose token of `UPSTREAM_RATE` was taken before they began.
    #[must_use]
    pub fn paid(egress: Rc<Egress<I>>) -> Self {
        Self { payment: Payment::Elsewhere, ..Self::new(egress) }
    }

    /// An upstream that takes nothing of a message for so long loses it.
    #[must_use]
    pub fn impatient(self, block_timeout: Duration) -> Self {
        Self { block_timeout: block_timeout.min(UPSTREAM_BLOCK_TIMEOUT), ..self }
    }

    /// Takes a token of `UPSTREAM_RATE`, waiting for it where that is not too long; whether there was one.
    async fn pay(&mut self) -> bool {
        let Some(bucket) = self.agreement.egress.bucket() else { return true };
        let io = &self.agreement.egress.io;
        let last = io.now().after(UPSTREAM_WAIT_MAX);
        while let Err(at) = bucket.take(io.now()) {
            if at > last {
                return false;
            }
            io.sleep(at.since(io.now())).await;
        }
        self.payment = Payment::Paid;
        true
    }

    /// How long its upstream takes; `None` before one is known.
    pub(super) fn pace(&self) -> Option<&Pace> {
        self.agreement.pace()
    }

    /// Whether it is worth the try to hand a whole message on in one flight.
    pub(super) fn may_take_whole(&self) -> bool {
        self.agreement.may_take_whole()
    }

    /// Whom the transaction goes to, or went to.
    pub(super) fn hop(&self) -> Hop<'_> {
        Hop { upstream: &self.agreement.upstream, sends_notices: self.agreement.sends_notices }
    }

    /// Whether the upstream has taken a recipient of this transaction.
    pub(super) fn has_recipients(&self) -> bool {
        !self.agreement.taken.is_empty()
    }

    /// Whether the message can be opened without a wait.
    pub(super) fn opens_at_once(&self) -> bool {
        match &self.stage {
            Progress::Open(_) | Progress::DataRefused(_) => true,
            Progress::Agreed => self.agreement.is_parked_with_chunking(),
            _ => false,
        }
    }

    /// The connection that the message streams on, without a wait; `None`: there is none (any more).
    pub(super) fn at_hand(&mut self) -> Option<(Form, Box<Connection<I::Stream>>)> {
        match std::mem::replace(&mut self.stage, Progress::Lost) {
            Progress::Streaming(form, connection) => Some((form, connection)),
            Progress::Open(form) => match self.agreement.unpark() {
                // Nobody owes a reply here: it would be taken for that of a chunk, and the last one's for the verdict.
                Some(connection) if form == Form::Plain && connection.has_spoken() => {
                    self.agreement.lose(*connection, &Broken::Violation(Violation::Stray));
                    None
                }
                other => other.map(|connection| (form, connection)),
            },
            _ => None,
        }
    }

    /// Opens the message on the parked connection, or on another after saying everything again.
    async fn open_stage(&mut self, envelope: &Envelope) -> Result<(Form, Box<Connection<I::Stream>>), Reply> {
        let mut connection = self.agreement.agreed(envelope).await?;
        if connection.machine.capabilities().chunking {
            return Ok((Form::Plain, connection));
        }
        connection.command(Client::data);
        connection.replies.clear();
        if let Err(broken) = connection.exchange(self.agreement.by(UPSTREAM_DATA_TIMEOUT)).await {
            return Err(self.agreement.lose(*connection, &broken));
        }
        let reply = connection.replies.pop().map(|(_, reply)| reply);
        self.opened(connection, reply).map(|connection| (Form::Stuffed, connection))
    }

    /// What the upstream's reply to DATA means.
    fn opened(
        &mut self,
        mut connection: Box<Connection<I::Stream>>,
        reply: Option<UpstreamReply>,
    ) -> Result<Box<Connection<I::Stream>>, Reply> {
        match reply {
            Some(reply) if reply.is_intermediate() => Ok(connection),
            Some(reply) => {
                let refusal = self.agreement.refusal(Stage::Data, &reply);
                connection.needs_reset = true;
                if reply.is_closing() {
                    self.agreement.discard(connection);
                } else {
                    self.agreement.give_back(connection);
                }
                Err(refusal)
            }
            None => Err(self.agreement.lose(*connection, &Broken::Closed)),
        }
    }

    /// The connection that the message streams on: the one it is on already, else the parked one, opened again where
    /// it was taken away meanwhile.
    async fn streaming(&mut self, envelope: &Envelope) -> Result<(Form, Box<Connection<I::Stream>>), Reply> {
        match std::mem::replace(&mut self.stage, Progress::Lost) {
            Progress::Streaming(form, connection) => Ok((form, connection)),
            Progress::Open(form) => {
                match self.agreement.unpark() {
                    // Nobody owes a reply here: it would be taken for that of a chunk, and the last one's for the verdict.
                    Some(connection) if form == Form::Plain && connection.has_spoken() => {
                        return Err(self.agreement.lose(*connection, &Broken::Violation(Violation::Stray)));
                    }
                    Some(connection) => return Ok((form, connection)),
                    None => {}
                }
                let (again, connection) = self.open_stage(envelope).await?;
                if again == form {
                    return Ok((form, connection));
                }
                // The slices at hand have the other form; the client keeps the message and comes again.
                self.agreement.abort(*connection);
                Err(reply::UPSTREAM_LOST)
            }
            _ => Err(reply::UPSTREAM_LOST),
        }
    }

    /// An upstream that speaks before the end of the message has refused it, or does not speak SMTP: no dot is sent.
    async fn early_verdict(&mut self, mut connection: Box<Connection<I::Stream>>) -> Reply {
        let verdict = connection.early_verdict(self.agreement.by(EARLY_VERDICT_TIMEOUT)).await;
        self.agreement.abort(*connection);
        match verdict {
            Ok(reply) => self.agreement.refusal(Stage::Message, &reply),
            Err(broken) => {
                self.agreement.log_broken(&broken);
                reply::UPSTREAM_LOST
            }
        }
    }

    /// RFC 3030 §4.2: without PIPELINING each chunk waits for the answer to the one before it.
    async fn after_chunk(&mut self, mut connection: Box<Connection<I::Stream>>) -> Result<(), Reply> {
        if let Err(broken) = connection.collect(self.agreement.by(self.block_timeout)).await {
            return Err(self.agreement.lose(*connection, &broken));
        }
        match connection.replies.pop() {
            Some((_, reply)) if !reply.is_positive() => {
                let refusal = self.agreement.refusal(Stage::Message, &reply);
                self.agreement.abort(*connection);
                Err(refusal)
            }
            _ => {
                self.stage = Progress::Streaming(Form::Plain, connection);
                Ok(())
            }
        }
    }

    /// Sends slices of the message on its connection.
    pub(super) async fn send(
        &mut self,
        form: Form,
        mut connection: Box<Connection<I::Stream>>,
        slices: &mut Flight,
    ) -> Result<(), Reply> {
        if form == Form::Plain {
            let octets = slices.octets() as u64;
            connection.command(|machine, out| machine.bdat(octets, Last::No, out));
        }
        connection.body(slices);
        match connection.transmit(self.agreement.by(self.block_timeout)).await {
            Ok(()) if form == Form::Stuffed && connection.has_spoken() => {
                Err(self.early_verdict(connection).await)
            }
            Ok(()) if form == Form::Plain && !connection.machine.capabilities().pipelining => {
                self.after_chunk(connection).await
            }
            Ok(()) => {
                self.stage = Progress::Streaming(form, connection);
                Ok(())
            }
            Err(_) if form == Form::Stuffed && connection.has_spoken() => {
                Err(self.early_verdict(connection).await)
            }
            Err(broken) => Err(self.agreement.lose(*connection, &broken)),
        }
    }

    /// Ends the message with these slices, unless something speaks against it.
    pub(super) async fn end(
        &mut self,
        form: Form,
        connection: Box<Connection<I::Stream>>,
        rest: &mut Flight,
        has_8bit: bool,
    ) -> Result<Custody, Reply> {
        if has_8bit
            && !connection.machine.capabilities().eight_bit_mime
            && self.agreement.egress.config().eightbit == EightBit::Bounce
        {
            self.agreement.abort(*connection);
            return Err(reply::EIGHTBIT_NOT_SUPPORTED);
        }
        if form == Form::Stuffed && connection.has_spoken() {
            return Err(self.early_verdict(connection).await);
        }
        self.conclude(form, connection, rest).await
    }

    /// Sends the last slices and reads the verdict.
    async fn conclude(
        &mut self,
        form: Form,
        mut connection: Box<Connection<I::Stream>>,
        rest: &mut Flight,
    ) -> Result<Custody, Reply> {
        connection.replies.clear();
        match form {
            Form::Plain => {
                let octets = rest.octets() as u64;
                connection.command(|machine, out| machine.bdat(octets, Last::Yes, out));
                connection.body(rest);
            }
            Form::Stuffed => {
                connection.body(rest);
                connection.command(Client::end_of_data);
            }
        }
        let by = self.agreement.by(UPSTREAM_VERDICT_TIMEOUT);
        let sent = connection.transmit(by).await;
        let heard = connection.collect(by).await;
        if let Err(broken) = sent.and(heard) {
            return Err(self.unknown(connection, &broken));
        }
        if connection.has_unread() {
            // One reply too many: which of them is the verdict, nobody knows.
            return Err(self.unknown(connection, &Broken::Violation(Violation::Stray)));
        }
        let mut refusal = None;
        let mut custody = None;
        for (to, reply) in connection.replies.drain(..) {
            connection.needs_reset |= !reply.is_positive();
            if !reply.is_positive() && refusal.is_none() {
                refusal = Some(self.agreement.refusal(Stage::Message, &reply));
            }
            custody = custody.or_else(|| Custody::of_upstream(to, &reply));
        }
        self.agreement.give_back(connection);
        match (refusal, custody) {
            (Some(refusal), _) => Err(refusal),
            (None, Some(custody)) => Ok(custody),
            (None, None) => Err(reply::UPSTREAM_LOST),
        }
    }

    /// The connection broke around the final dot: whether the upstream has the message is unknown. The client keeps
    /// it and may send it again: a duplicate is allowed, a loss is not (RFC 1047).
    fn unknown(&mut self, connection: Box<Connection<I::Stream>>, broken: &Broken) -> Reply {
        // What it said before it broke counts: a refusal is a refusal.
        let said = connection.replies.iter().find(|(_, reply)| !reply.is_positive());
        let refusal = said.map(|(_, reply)| self.agreement.refusal(Stage::Message, reply));
        if refusal.is_none() {
            self.agreement.log_unknown(broken);
        }
        self.agreement.discard(connection);
        refusal.unwrap_or(reply::UPSTREAM_LOST)
    }
}

/// How long an upstream that has begun to speak out of turn may take to finish.
const EARLY_VERDICT_TIMEOUT: Duration = Duration::from_secs(5);

impl<I: Io> Sink for UpstreamStream<I> {
    async fn recipients(&mut self, envelope: &Envelope, rcpts: &[Rcpt], next: Next) -> Vec<Answer> {
        let Some(first) = self.agreement.taken.first().or(rcpts.first()).cloned() else { return Vec::new() };
        let mut answers = vec![Err(reply::TOO_MANY_RECIPIENTS); rcpts.len()];
        // Delivery to exchangers: one transaction has one destination, and the client comes again for the others
        // (RFC 5321 §4.5.3.1.10).
        let (places, asked): (Vec<usize>, Vec<Rcpt>) = rcpts
            .iter()
            .enumerate()
            .filter(|(_, rcpt)| self.agreement.egress.share_a_route(&first, rcpt))
            .map(|(place, rcpt)| (place, rcpt.clone()))
            .unzip();
        if asked.is_empty() {
            return answers;
        }
        if matches!(self.stage, Progress::Nothing) {
            self.agreement.upstream.clear();
        }
        if self.payment == Payment::Due && !self.pay().await {
            return vec![Err(reply::UPSTREAM_RATE_REACHED); rcpts.len()];
        }
        let heard = match self.agreement.agree(envelope, &asked, next).await {
            Ok((connection, verdicts)) => self.after_recipients(connection, verdicts, &asked).await,
            Err(refusal) => vec![Err(refusal); asked.len()],
        };
        places.into_iter().zip(heard).for_each(|(place, answer)| answers[place] = answer);
        answers
    }

    async fn open(&mut self, envelope: &Envelope) -> Result<Form, Reply> {
        match &self.stage {
            Progress::Open(form) => return Ok(*form),
            Progress::DataRefused(refusal) => return Err(refusal.clone()),
            _ => {}
        }
        let (form, connection) = self.open_stage(envelope).await?;
        self.agreement.park(connection, form == Form::Stuffed);
        self.stage = Progress::Open(form);
        Ok(form)
    }

    async fn body(&mut self, envelope: &Envelope, slices: &mut Flight) -> Result<(), Reply> {
        let (form, connection) = self.streaming(envelope).await?;
        self.send(form, connection, slices).await
    }

    async fn finish(
        &mut self,
        envelope: &Envelope,
        rest: &mut Flight,
        content: Content<'_>,
    ) -> Result<Custody, Reply> {
        let (form, connection) = self.streaming(envelope).await?;
        self.end(form, connection, rest, content.has_8bit).await
    }

    fn reset(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Progress::Nothing);
        if self.payment == Payment::Paid {
            self.payment = Payment::Due;
        }
        self.agreement.taken.clear();
        match (stage, self.agreement.unpark()) {
            (Progress::Streaming(_, connection), _) | (Progress::Open(Form::Stuffed), Some(connection)) => {
                self.agreement.abort(*connection);
            }
            (_, Some(connection)) => self.agreement.leave_agreed(connection),
            (_, None) => {}
        }
    }

    fn upstream_tls(&self) -> &str {
        &self.agreement.tls
    }

    fn upstream(&self) -> Option<&str> {
        (!self.agreement.upstream.is_empty()).then_some(self.agreement.upstream.as_str())
    }
}

impl<I: Io> UpstreamStream<I> {
    async fn after_recipients(
        &mut self,
        connection: Box<Connection<I::Stream>>,
        verdicts: Verdicts,
        asked: &[Rcpt],
    ) -> Vec<Answer> {
        let accepted = asked.iter().zip(&verdicts.answers).filter(|(_, answer)| answer.is_ok());
        self.agreement.taken.extend(accepted.map(|(rcpt, _)| rcpt.clone()));
        self.stage = Progress::Agreed;
        match verdicts.data {
            _ if verdicts.says_goodbye => self.agreement.discard(connection),
            Some(reply) if verdicts.is_void && reply.is_intermediate() => self.agreement.abort(*connection),
            // After a void agreement the next recipient, or the message, begins anew.
            _ if verdicts.is_void => self.agreement.leave_agreed(connection),
            None => self.agreement.park(connection, false),
            Some(reply) if reply.is_intermediate() && self.agreement.taken.is_empty() => {
                self.lone_dot(connection).await;
            }
            Some(reply) if reply.is_intermediate() => {
                self.agreement.park(connection, true);
                self.stage = Progress::Open(Form::Stuffed);
            }
            Some(reply) => {
                let refusal = self.agreement.refusal(Stage::Data, &reply);
                self.stage = Progress::DataRefused(refusal);
                self.agreement.leave_agreed(connection);
            }
        }
        verdicts.answers
    }

    /// RFC 2920 §3.1: all recipients were refused, yet the upstream waits for a message: a lone dot ends it, and whatever
    /// is answered, nothing was delivered.
    async fn lone_dot(&mut self, mut connection: Box<Connection<I::Stream>>) {
        connection.replies.clear();
        connection.command(Client::end_of_data);
        let ended = connection.exchange(self.agreement.by(UPSTREAM_DATA_TIMEOUT)).await;
        connection.replies.clear();
        match ended {
            Ok(()) => self.agreement.leave_agreed(connection),
            Err(_) => self.agreement.discard(connection),
        }
    }
}
