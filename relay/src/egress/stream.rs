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
use std::sync::Arc;
use std::time::Duration;

use super::connection::{Broken, Connection};
use super::outcome::{self, Stage};
use super::pool::{Lease, Pool};
use super::{Claimed, Egress, EightBit};
use crate::custody::Custody;
use crate::envelope::Envelope;
use crate::ingress::sink::{Answer, Content, Next, Sink};
use crate::io::{Flight, Io};
use crate::limits::{
    TRACE_OCTETS, UPSTREAM_BLOCK_TIMEOUT, UPSTREAM_DATA_TIMEOUT, UPSTREAM_ENVELOPE_TIMEOUT,
    UPSTREAM_RSET_AFTER, UPSTREAM_VERDICT_TIMEOUT,
};
use crate::smtp::body::Form;
use crate::smtp::client::{Client, Expect, Last, MailOptions, RcptOptions, UpstreamReply};
use crate::smtp::params::{BodyType, Mail, Notify, Rcpt, Ret};
use crate::smtp::reply::{self, Reply};
use crate::units::Moment;

/// One session's way to its upstream; carries one transaction at a time.
pub struct UpstreamStream<I: Io> {
    egress: Rc<Egress<I>>,
    /// The pool of this transaction, and the place where its connection is left while the client is silent.
    held: Option<(Rc<Pool<I::Stream>>, Rc<Lease<I::Stream>>)>,
    stage: Progress<I>,
    /// Recipients that the upstream has accepted in this transaction.
    taken: Vec<Rcpt>,
    /// Whom the transaction went to.
    upstream: String,
    /// The TLS that it went by.
    tls: Arc<str>,
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

/// A connection with the agreement on it, and whether it came from the pool.
struct Hand<I: Io> {
    connection: Box<Connection<I::Stream>>,
    is_reused: bool,
    is_agreed: bool,
}

/// What a flight of MAIL, RCPT and DATA came to.
#[derive(Default)]
struct Verdicts {
    answers: Vec<Answer>,
    data: Option<UpstreamReply>,
    says_goodbye: bool,
}

impl<I: Io> UpstreamStream<I> {
    /// The way of one session.
    #[must_use]
    pub fn new(egress: Rc<Egress<I>>) -> Self {
        Self {
            egress,
            held: None,
            stage: Progress::Nothing,
            taken: Vec::new(),
            upstream: String::new(),
            tls: "none".into(),
        }
    }

    fn now(&self) -> Moment {
        self.egress.io.tick()
    }

    fn by(&self, wait: Duration) -> Moment {
        self.egress.io.tick().after(wait)
    }

    /// The parked connection, or another one for the same agreement.
    async fn hand(&mut self, recipient: Rcpt) -> Result<Hand<I>, Reply> {
        let is_begun = !matches!(self.stage, Progress::Nothing);
        if let Some((_, lease)) = &self.held
            && let Some(connection) = lease.unpark()
        {
            return Ok(Hand { connection, is_reused: false, is_agreed: is_begun });
        }
        let Claimed { pool, connection, is_reused } = self.egress.claim(&recipient).await?;
        self.upstream.clear();
        outcome::name_upstream(&mut self.upstream, &connection.host, connection.address);
        self.tls = Arc::clone(&connection.tls);
        if self.held.as_ref().is_none_or(|(held, _)| !Rc::ptr_eq(held, &pool)) {
            let lease = pool.lease();
            self.held = Some((pool, lease));
        }
        Ok(Hand { connection, is_reused, is_agreed: false })
    }

    fn park(&mut self, connection: Box<Connection<I::Stream>>, is_in_data: bool) {
        if let Some((_, lease)) = &self.held {
            lease.park(connection, self.now(), is_in_data);
        }
    }

    fn discard(&self, connection: Box<Connection<I::Stream>>) {
        match &self.held {
            Some((pool, _)) => pool.discard(connection),
            None => drop(connection),
        }
    }

    fn abort(&self, connection: Box<Connection<I::Stream>>) {
        match &self.held {
            Some((pool, _)) => pool.abort(connection),
            None => connection.abort(),
        }
    }

    /// Says MAIL (where the connection has not heard it), the recipients, and DATA where it may travel along.
    ///
    /// A connection from the pool that breaks before it has answered anything was stale: the next one is tried.
    async fn agree(
        &mut self,
        envelope: &Envelope,
        rcpts: &[Rcpt],
        next: Next,
    ) -> Result<(Box<Connection<I::Stream>>, Verdicts), Reply> {
        loop {
            let mut hand = self.hand(self.taken.first().unwrap_or(&rcpts[0]).clone()).await?;
            if let Err(refusal) = self.foresee(envelope, &hand.connection) {
                self.leave(hand);
                return Err(refusal);
            }
            let replayed = if hand.is_agreed { Vec::new() } else { self.taken.clone() };
            match self.fly(&mut hand, envelope, &replayed, rcpts, next).await {
                Ok(verdicts) => return Ok((hand.connection, verdicts)),
                Err(broken) => {
                    let was_stale = hand.is_reused && hand.connection.replies.is_empty();
                    self.egress.log_broken(&self.upstream, &broken, was_stale);
                    self.discard(hand.connection);
                    if !was_stale {
                        return Err(reply::UPSTREAM_LOST);
                    }
                }
            }
        }
    }

    /// What would be refused in any case, by what the upstream has offered (RFC 1870 §6.1, 6531 §3.5, 6152 §3).
    fn foresee(&self, envelope: &Envelope, connection: &Box<Connection<I::Stream>>) -> Result<(), Reply> {
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
            let mail = &envelope.mail;
            connection
                .command(|machine, out| machine.mail(mail.reverse_path.as_str(), &options_of(mail), out))?;
            settle(connection, pipelines, by, &mut replies).await?;
        }
        for (count, rcpt) in replayed.iter().chain(rcpts).enumerate() {
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
    fn judge(&self, connection: &mut Box<Connection<I::Stream>>, replayed: usize, asked: usize) -> Verdicts {
        let mut verdicts = Verdicts::default();
        let mut refusal = None;
        let mut position = 0;
        for (to, reply) in connection.replies.drain(..) {
            verdicts.says_goodbye |= reply.is_closing();
            match to {
                Expect::Rset if !reply.is_positive() => refusal = Some(reply::UPSTREAM_LOST),
                Expect::Mail if !reply.is_positive() => {
                    refusal = Some(self.egress.refusal(Stage::Mail, &reply, &self.upstream));
                }
                Expect::Rcpt => {
                    let answer = match (&refusal, reply.is_positive()) {
                        (Some(refusal), _) => Err(refusal.clone()),
                        (None, true) => Ok(()),
                        (None, false) => Err(self.egress.refusal(Stage::Rcpt, &reply, &self.upstream)),
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
        verdicts.answers.extend(std::iter::repeat_n(Err(reply::UPSTREAM_LOST), missing));
        if refusal.is_some() {
            verdicts.answers.iter_mut().filter(|answer| answer.is_ok()).for_each(|answer| {
                *answer = Err(reply::UPSTREAM_LOST);
            });
        }
        verdicts
    }

    /// Gives back a connection on which no message was opened.
    fn leave(&self, hand: Hand<I>) {
        let Some((pool, _)) = &self.held else { return };
        let mut connection = hand.connection;
        connection.needs_reset |= hand.is_agreed;
        self.return_to(pool, connection);
    }

    fn return_to(&self, pool: &Pool<I::Stream>, connection: Box<Connection<I::Stream>>) {
        let config = self.egress.config();
        let is_spent = self.egress.is_outdated(&connection)
            || connection.messages >= config.upstream_messages_per_connection
            || connection.machine.capabilities().messages_max.is_some_and(|max| connection.messages >= max);
        if connection.machine.is_quiet() && !is_spent {
            pool.give_back(connection, self.now());
        } else if connection.machine.is_quiet() {
            self.egress.take_leave(connection);
            pool.permit_is_free();
        } else {
            pool.discard(connection);
        }
    }

    /// Opens the message on the parked connection, or on another after saying everything again.
    async fn open_stage(&mut self, envelope: &Envelope) -> Result<(Form, Box<Connection<I::Stream>>), Reply> {
        let mut connection = self.agreed(envelope).await?;
        if connection.machine.capabilities().chunking {
            return Ok((Form::Plain, connection));
        }
        connection.command(Client::data);
        connection.replies.clear();
        if let Err(broken) = connection.exchange(self.by(UPSTREAM_DATA_TIMEOUT)).await {
            return Err(self.lose(connection, &broken));
        }
        let reply = connection.replies.pop().map(|(_, reply)| reply);
        self.opened(connection, reply).map(|connection| (Form::Stuffed, connection))
    }

    /// A connection on which all that was agreed with the client is agreed with the upstream.
    async fn agreed(&mut self, envelope: &Envelope) -> Result<Box<Connection<I::Stream>>, Reply> {
        let Some(first) = self.taken.first().cloned() else { return Err(reply::NO_RECIPIENTS) };
        loop {
            let mut hand = self.hand(first.clone()).await?;
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
                    self.discard(hand.connection)
                }
                Err(broken) => return Err(self.lose(hand.connection, &broken)),
            }
        }
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
                let refusal = self.egress.refusal(Stage::Data, &reply, &self.upstream);
                connection.needs_reset = true;
                if reply.is_closing() {
                    self.discard(connection);
                } else if let Some((pool, _)) = &self.held {
                    self.return_to(pool, connection);
                }
                Err(refusal)
            }
            None => Err(self.lose(connection, &Broken::Closed)),
        }
    }

    fn lose(&mut self, connection: Box<Connection<I::Stream>>, broken: &Broken) -> Reply {
        self.egress.log_broken(&self.upstream, broken, false);
        self.abort(connection);
        self.stage = Progress::Lost;
        reply::UPSTREAM_LOST
    }

    /// The connection that the message streams on: the one it is on already, else the parked one, opened again where
    /// it was taken away meanwhile.
    async fn streaming(&mut self, envelope: &Envelope) -> Result<(Form, Box<Connection<I::Stream>>), Reply> {
        match std::mem::replace(&mut self.stage, Progress::Lost) {
            Progress::Streaming(form, connection) => Ok((form, connection)),
            Progress::Open(form) => {
                let parked = self.held.as_ref().and_then(|(_, lease)| lease.unpark());
                if let Some(connection) = parked {
                    return Ok((form, connection));
                }
                self.stage = Progress::Nothing;
                let (again, connection) = self.open_stage(envelope).await?;
                if again == form {
                    return Ok((form, connection));
                }
                // The slices at hand have the other form; the client keeps the message and comes again.
                self.abort(connection);
                self.stage = Progress::Lost;
                Err(reply::UPSTREAM_LOST)
            }
            _ => Err(reply::UPSTREAM_LOST),
        }
    }

    /// An upstream that speaks before the end of the message has refused it, or does not speak SMTP: no dot is sent.
    async fn early_verdict(&mut self, mut connection: Box<Connection<I::Stream>>) -> Reply {
        let verdict = connection.early_verdict(self.by(EARLY_VERDICT_TIMEOUT)).await;
        self.abort(connection);
        match verdict {
            Ok(reply) => self.egress.refusal(Stage::Message, &reply, &self.upstream),
            Err(broken) => {
                self.egress.log_broken(&self.upstream, &broken, false);
                reply::UPSTREAM_LOST
            }
        }
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
        let by = self.by(UPSTREAM_VERDICT_TIMEOUT);
        let sent = connection.transmit(by).await;
        let heard = connection.collect(by).await;
        if let Err(broken) = sent.and(heard) {
            return Err(self.unknown(connection, &broken));
        }
        let mut refusal = None;
        let mut custody = None;
        for (to, reply) in connection.replies.drain(..) {
            connection.needs_reset |= !reply.is_positive();
            if !reply.is_positive() && refusal.is_none() {
                refusal = Some(self.egress.refusal(Stage::Message, &reply, &self.upstream));
            }
            custody = custody.or_else(|| Custody::of_upstream(to, &reply));
        }
        if let Some((pool, _)) = &self.held {
            self.return_to(pool, connection);
        }
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
        let refusal = said.map(|(_, reply)| self.egress.refusal(Stage::Message, reply, &self.upstream));
        if refusal.is_none() {
            self.egress.log_unknown(&self.upstream, broken);
        }
        self.discard(connection);
        refusal.unwrap_or(reply::UPSTREAM_LOST)
    }
}

/// What goes upstream with MAIL, as far as it is offered there.
fn options_of(mail: &Mail) -> MailOptions<'_> {
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

fn rcpt_options_of(rcpt: &Rcpt) -> RcptOptions<'_> {
    RcptOptions { notify: rcpt.params.notify.map(Notify::as_str), orcpt: rcpt.params.orcpt.as_deref() }
}

/// Flushes what was noted where the upstream does not take pipelined commands.
async fn settle<S: crate::io::Stream>(
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
const FLIGHT_RECIPIENTS_MAX: usize = 100;
/// How long an upstream that has begun to speak out of turn may take to finish.
const EARLY_VERDICT_TIMEOUT: Duration = Duration::from_secs(5);

impl<I: Io> Sink for UpstreamStream<I> {
    async fn recipients(&mut self, envelope: &Envelope, rcpts: &[Rcpt], next: Next) -> Vec<Answer> {
        let Some(first) = self.taken.first().or(rcpts.first()).cloned() else { return Vec::new() };
        let mut answers = vec![Err(reply::TOO_MANY_RECIPIENTS); rcpts.len()];
        // Delivery to exchangers: one transaction has one destination, and the client comes again for the others
        // (RFC 5321 §4.5.3.1.10).
        let (places, asked): (Vec<usize>, Vec<Rcpt>) = rcpts
            .iter()
            .enumerate()
            .filter(|(_, rcpt)| self.egress.share_a_route(&first, rcpt))
            .map(|(place, rcpt)| (place, rcpt.clone()))
            .unzip();
        if asked.is_empty() {
            return answers;
        }
        let heard = match self.agree(envelope, &asked, next).await {
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
        self.park(connection, form == Form::Stuffed);
        self.stage = Progress::Open(form);
        Ok(form)
    }

    async fn body(&mut self, envelope: &Envelope, slices: &mut Flight) -> Result<(), Reply> {
        let (form, mut connection) = self.streaming(envelope).await?;
        if form == Form::Plain {
            let octets = slices.octets() as u64;
            connection.command(|machine, out| machine.bdat(octets, Last::No, out));
        }
        connection.body(slices);
        match connection.transmit(self.by(UPSTREAM_BLOCK_TIMEOUT)).await {
            Ok(()) if form == Form::Stuffed && connection.has_spoken() => {
                Err(self.early_verdict(connection).await)
            }
            Ok(()) => {
                self.stage = Progress::Streaming(form, connection);
                Ok(())
            }
            Err(_) if form == Form::Stuffed && connection.has_spoken() => {
                Err(self.early_verdict(connection).await)
            }
            Err(broken) => Err(self.lose(connection, &broken)),
        }
    }

    async fn finish(
        &mut self,
        envelope: &Envelope,
        rest: &mut Flight,
        content: Content,
    ) -> Result<Custody, Reply> {
        let was_streaming = matches!(self.stage, Progress::Streaming(..));
        let (form, connection) = self.streaming(envelope).await?;
        if content.has_8bit
            && !connection.machine.capabilities().eight_bit_mime
            && self.egress.config().eightbit == EightBit::Bounce
        {
            self.abort(connection);
            return Err(reply::EIGHTBIT_NOT_SUPPORTED);
        }
        if was_streaming && form == Form::Stuffed && connection.has_spoken() {
            return Err(self.early_verdict(connection).await);
        }
        self.conclude(form, connection, rest).await
    }

    fn reset(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Progress::Nothing);
        self.taken.clear();
        let parked = self.held.as_ref().and_then(|(_, lease)| lease.unpark());
        match (stage, parked) {
            (Progress::Streaming(_, connection), _) | (Progress::Open(Form::Stuffed), Some(connection)) => {
                self.abort(connection);
            }
            (_, Some(connection)) => self.leave(Hand { connection, is_reused: true, is_agreed: true }),
            (_, None) => {}
        }
    }

    fn upstream(&self) -> Option<&str> {
        (!self.upstream.is_empty()).then_some(self.upstream.as_str())
    }

    fn upstream_tls(&self) -> &str {
        &self.tls
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
        self.taken.extend(accepted.map(|(rcpt, _)| rcpt.clone()));
        self.stage = Progress::Agreed;
        match verdicts.data {
            _ if verdicts.says_goodbye => self.discard(connection),
            None => self.park(connection, false),
            Some(reply) if reply.is_intermediate() && self.taken.is_empty() => {
                self.lone_dot(connection).await
            }
            Some(reply) if reply.is_intermediate() => {
                self.park(connection, true);
                self.stage = Progress::Open(Form::Stuffed);
            }
            Some(reply) => {
                let refusal = self.egress.refusal(Stage::Data, &reply, &self.upstream);
                self.stage = Progress::DataRefused(refusal);
                self.leave(Hand { connection, is_reused: true, is_agreed: true });
            }
        }
        verdicts.answers
    }

    /// RFC 2920 §3.1: all recipients were refused, yet the upstream waits for a message: a lone dot ends it, and whatever
    /// is answered, nothing was delivered.
    async fn lone_dot(&mut self, mut connection: Box<Connection<I::Stream>>) {
        connection.replies.clear();
        connection.command(Client::end_of_data);
        let ended = connection.exchange(self.by(UPSTREAM_DATA_TIMEOUT)).await;
        connection.replies.clear();
        match ended {
            Ok(()) => self.leave(Hand { connection, is_reused: true, is_agreed: true }),
            Err(_) => self.discard(connection),
        }
    }
}
