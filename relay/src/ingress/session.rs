//! One inbound connection: drives the server machine, asks policy and sink, sends the replies.
//!
//! The loop of [`Session::serve`] owns the control flow: the helpers below it decide and return, only the loop and what
//! it calls directly wait. Replies of one batch of input are gathered and sent once.
//!
//! What it must not do: parse, judge a reply of an upstream, or say 250 to a message without [`Custody`].

mod notes;
mod security;

use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::body::Body;
use super::sink::{self, Next, Sink};
use super::{Ingress, log};
use crate::custody::Custody;
use crate::envelope::{Envelope, Peer};
use crate::io::buffer::{Buffer, Size};
use crate::io::{Io, Stream, Waiting};
use crate::limits::{
    FAREWELL_OCTETS_MAX, FAREWELL_TIMEOUT, RECORD_PLAINTEXT_OCTETS_MAX, REPLY_TIMEOUT, SLOW_START,
};
use crate::meter::{Listener, SessionOutcome};
use crate::smtp::body::Framing;
use crate::smtp::params::{Mail, Rcpt};
use crate::smtp::reply::{self, Reply, ReplyBuf};
use crate::smtp::server::{Answer, Ending, Event, Question, Server};
use crate::tls::{Agreed, Link};
use crate::units::{Moment, SessionId};

/// One session.
pub struct Session<I: Io, S: Sink> {
    ingress: Rc<Ingress<I>>,
    stream: Link<I::Stream>,
    sink: S,
    /// Who is at the other end.
    pub peer: Peer,
    /// Its number.
    pub id: SessionId,
    /// Who has logged in.
    user: Option<Arc<str>>,
    machine: Server,
    replies: ReplyBuf,
    input: Bytes,
    next_buffer: Size,
    envelope: Option<Envelope>,
    owed: Vec<Owed>,
    body: Body,
    /// When the wait for the next command, or for the message, began.
    waiting_since: Moment,
}

/// A postponed recipient: to be asked about, or refused already.
enum Owed {
    Ask(Rcpt),
    Refused(Reply),
}

/// How a step of the loop ends the session.
type Flow = ControlFlow<SessionOutcome>;

impl<I: Io, S: Sink> Session<I, S> {
    /// A session on an accepted connection; `input` is what was read before (behind a PROXY header).
    pub fn new(
        ingress: Rc<Ingress<I>>,
        stream: I::Stream,
        sink: S,
        peer: Peer,
        id: SessionId,
        input: Bytes,
    ) -> Self {
        let machine = Server::new(ingress.profile(peer.listener));
        Self {
            ingress,
            stream: Link::plain(stream),
            sink,
            peer,
            id,
            user: None,
            machine,
            replies: ReplyBuf::new(),
            input,
            next_buffer: Size::Command,
            envelope: None,
            owed: Vec::new(),
            body: Body::default(),
            waiting_since: Moment::default(),
        }
    }

    /// Serves the client until one of the two has had enough.
    pub async fn serve(&mut self) -> SessionOutcome {
        let outcome = match self.open().await {
            ControlFlow::Continue(()) => self.converse().await,
            ControlFlow::Break(outcome) => outcome,
        };
        self.sink.reset();
        self.farewell(outcome).await;
        outcome
    }

    /// RFC 5321 §3.1: the server speaks first; who does not wait for that is no mail client.
    async fn open(&mut self) -> Flow {
        if self.peer.listener == Listener::Submissions {
            self.secure().await?;
        }
        self.waiting_since = self.ingress.io.tick();
        if !self.input.is_empty() || self.stream.waiting() == Waiting::Octets {
            self.ingress.offence(&self.peer);
            self.replies.push(&reply::EARLY_TALKER);
            return ControlFlow::Break(SessionOutcome::Abuse);
        }
        self.machine.greet(&mut self.replies);
        ControlFlow::Continue(())
    }

    /// What is only under way inside a transaction is boxed: an idle session is not to pay for it with its memory.
    async fn converse(&mut self) -> SessionOutcome {
        loop {
            let step = self.machine.step(&self.input, &mut self.replies);
            let seen = self.input.split_to(step.consumed);
            let flow = match step.event {
                Event::NeedInput => self.go_on().await,
                Event::Question(question) => {
                    self.body.take(self.machine.pieces(), &seen);
                    self.decide(question).await;
                    ControlFlow::Continue(())
                }
                Event::Settle => {
                    Box::pin(self.settle(Next::Other)).await;
                    ControlFlow::Continue(())
                }
                Event::Body => {
                    self.body.take(self.machine.pieces(), &seen);
                    self.judge_header();
                    ControlFlow::Continue(())
                }
                Event::BodyFault(fault) => {
                    self.log_refusal(&fault.reply());
                    self.end_transaction();
                    ControlFlow::Continue(())
                }
                Event::Reset => {
                    self.end_transaction();
                    ControlFlow::Continue(())
                }
                Event::StartTls => self.start_tls().await,
                Event::Close => ControlFlow::Break(self.machine_outcome()),
            };
            if let ControlFlow::Break(outcome) = flow {
                return outcome;
            }
        }
    }

    fn machine_outcome(&self) -> SessionOutcome {
        match self.machine.ending() {
            Some(Ending::Quit) => SessionOutcome::Quit,
            Some(Ending::Fault) => SessionOutcome::Fault,
            Some(Ending::Abuse) | None => {
                self.ingress.offence(&self.peer);
                SessionOutcome::Abuse
            }
        }
    }

    /// The machine has used what it can of the input: send what there is to send, then read more.
    async fn go_on(&mut self) -> Flow {
        if !self.input.is_empty() && !self.replies.is_full() {
            return ControlFlow::Continue(());
        }
        self.send_replies().await?;
        if !self.input.is_empty() {
            return ControlFlow::Continue(());
        }
        if self.envelope.is_some() && self.body.ready().is_some() {
            Box::pin(self.stream_body()).await;
        }
        if self.ingress.is_draining() && self.machine.is_idle() {
            self.replies.push(&reply::SHUTTING_DOWN);
            return ControlFlow::Break(SessionOutcome::Stopped);
        }
        self.receive().await
    }

    async fn receive(&mut self) -> Flow {
        let is_of_records = self.machine.is_in_body() && self.stream.is_secure();
        let size = if is_of_records { self.next_buffer.of_records() } else { self.next_buffer };
        let buffer = Buffer::take(size);
        let buffer = if self.machine.awaits_login() { buffer.wiped() } else { buffer };
        self.stream.set_interruptible(self.machine.is_idle());
        let by = self.deadline();
        let (result, buffer) = self.stream.receive(buffer, by).await;
        match result {
            Ok(0) => ControlFlow::Break(SessionOutcome::Lost),
            Ok(_) => {
                self.adapt(&buffer);
                self.input = buffer.freeze();
                ControlFlow::Continue(())
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => self.time_out(),
            Err(_) => ControlFlow::Break(SessionOutcome::Lost),
        }
    }

    fn time_out(&mut self) -> Flow {
        let (reply, outcome) = if self.ingress.is_draining() {
            (reply::SHUTTING_DOWN, SessionOutcome::Stopped)
        } else {
            (reply::TIMEOUT, SessionOutcome::Timeout)
        };
        self.replies.push(&reply);
        ControlFlow::Break(outcome)
    }

    /// The wait for a command has one deadline, however slowly it trickles in; a message has one for the next octets
    /// and one for its rate (`SESSION_MIN_RATE`, after a grace of [`SLOW_START`]).
    fn deadline(&self) -> Moment {
        let config = self.ingress.config();
        let now = self.ingress.io.tick();
        if !self.machine.is_in_body() {
            return self.waiting_since.after(config.command_timeout);
        }
        let next = now.after(config.data_timeout);
        let rate = u64::from(config.session_min_rate);
        match self.machine.body_octets().checked_div(rate) {
            Some(seconds) => next.min(self.waiting_since.after(SLOW_START + Duration::from_secs(seconds))),
            None => next,
        }
    }

    /// A body that fills its buffers, or records, gets larger ones; everything else is served by small ones.
    fn adapt(&mut self, filled: &Buffer) {
        let is_in_body = self.machine.is_in_body();
        if !is_in_body {
            self.next_buffer = Size::Command;
            self.waiting_since = self.ingress.io.tick();
        } else if filled.spare() == 0 || filled.filled().len() >= RECORD_PLAINTEXT_OCTETS_MAX {
            self.next_buffer = self.next_buffer.larger();
        }
    }

    async fn send_replies(&mut self) -> Flow {
        if self.replies.is_empty() {
            return ControlFlow::Continue(());
        }
        let by = self.ingress.io.tick().after(REPLY_TIMEOUT);
        let (result, octets) = self.stream.send_octets(self.replies.take(), by).await;
        self.replies.give_back(octets);
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                ControlFlow::Break(SessionOutcome::Timeout)
            }
            Err(_) => ControlFlow::Break(SessionOutcome::Lost),
        }
    }

    async fn decide(&mut self, question: Question) {
        match question {
            Question::Mail(mail) => self.decide_mail(mail),
            Question::Rcpt(mut rcpt) => {
                self.ingress.qualify_recipient(&mut rcpt);
                let owed = match self.ingress.judge_recipient(&self.peer, self.user.as_deref(), &rcpt) {
                    Ok(()) => Owed::Ask(rcpt),
                    Err(reply) => Owed::Refused(reply),
                };
                self.owed.push(owed);
                self.machine.postpone();
            }
            Question::OpenBody { framing, .. } => Box::pin(self.decide_body(framing)).await,
            Question::Message => Box::pin(self.conclude()).await,
            Question::Auth(credentials) => self.decide_login(credentials).await,
        }
    }

    fn decide_mail(&mut self, mut mail: Mail) {
        // Whatever became of the last transaction: nothing of it may be in this one (I9).
        self.end_transaction();
        self.ingress.qualify_sender(&mut mail);
        let verdict = self.ingress.judge_sender(&self.peer, self.user.as_deref(), &mail);
        let verdict = verdict.and_then(|()| self.sink.begin(&mail));
        let answer = match verdict {
            Ok(()) => {
                let id = self.ingress.issue_queue_id();
                self.envelope = Some(Envelope { id, mail, recipients: Vec::new(), waives_tls: false });
                Answer::Accept
            }
            Err(reply) => {
                log::sender_refused(self, &mail, &reply);
                Answer::Refuse(reply)
            }
        };
        self.machine.answer(answer, &mut self.replies);
    }

    /// Answers the postponed recipients, in order.
    async fn settle(&mut self, next: Next) {
        let Some(mut envelope) = self.envelope.take() else { return };
        let owed = std::mem::take(&mut self.owed);
        let asked: Vec<Rcpt> = owed.iter().filter_map(Owed::asked).cloned().collect();
        let mut verdicts =
            if asked.is_empty() { Vec::new() } else { self.sink.recipients(&envelope, &asked, next).await }
                .into_iter();
        for owed in owed {
            let answer = match owed {
                Owed::Refused(reply) => Err((None, reply)),
                Owed::Ask(rcpt) => match verdicts.next().unwrap_or(Err(reply::LOCAL_ERROR)) {
                    Ok(()) => Ok(rcpt),
                    Err(reply) => Err((Some(rcpt), reply)),
                },
            };
            let answer = match answer {
                Ok(rcpt) => {
                    envelope.recipients.push(rcpt);
                    Answer::Accept
                }
                Err((rcpt, reply)) => {
                    self.count_refused(&reply, 1);
                    log::recipient_refused(self, &envelope, rcpt.as_ref(), &reply);
                    Answer::Refuse(reply)
                }
            };
            self.machine.answer(answer, &mut self.replies);
        }
        self.envelope = Some(envelope);
    }

    async fn decide_body(&mut self, framing: Framing) {
        let next = if framing == Framing::Data { Next::Data } else { Next::Other };
        self.settle(next).await;
        let Some(envelope) = &self.envelope else { return };
        let opened = if envelope.recipients.is_empty() {
            // The machine knows that nobody is left and says so itself.
            Err(reply::NO_RECIPIENTS)
        } else {
            self.sink.open(envelope).await
        };
        let answer = match opened {
            Ok(form) => {
                let fields = self.ingress.fields(&self.peer, &self.machine, self.stream.agreed(), envelope);
                self.body.begin(form, fields);
                self.waiting_since = self.ingress.io.tick();
                Answer::Open(form)
            }
            Err(reply) => {
                self.log_refusal(&reply);
                Answer::Refuse(reply)
            }
        };
        self.machine.answer(answer, &mut self.replies);
        // Where no recipient was taken the transaction stays open for more of them.
        if !self.machine.is_in_transaction() {
            self.end_transaction();
        }
    }

    /// The header section may be refused as soon as it is known.
    fn judge_header(&mut self) {
        let judged = self.body.judge(self.ingress.config().hops_max);
        match (judged, &mut self.envelope) {
            (Err(reply), _) => self.give_up(reply),
            (Ok(()), Some(envelope)) => envelope.waives_tls = self.body.waives_tls(),
            (Ok(()), None) => {}
        }
    }

    /// What of the message is ready goes on its way, while more of it is awaited.
    async fn stream_body(&mut self) {
        let Some(envelope) = &self.envelope else { return };
        let Some(slices) = self.body.ready() else { return };
        if let Err(reply) = self.sink.body(envelope, slices).await {
            self.give_up(reply);
        }
    }

    fn give_up(&mut self, reply: Reply) {
        self.log_refusal(&reply);
        self.machine.refuse_body(reply);
        self.end_transaction();
    }

    /// The message is complete: it has one fate, and the client hears it.
    async fn conclude(&mut self) {
        let ended = self.ingress.io.now();
        let verdict = self.verdict().await;
        let delay = self.ingress.io.now().since(ended);
        self.waiting_since = self.ingress.io.tick();
        if let Some(envelope) = self.envelope.take() {
            self.ingress.meter(|meter| {
                meter.messages_received[self.peer.listener] += 1;
                meter.accept.record_duration(delay);
            });
            match &verdict {
                Ok(custody) => self.note_taken(&envelope, custody, delay),
                Err(reply) => {
                    self.count_refused(reply, envelope.recipients.len());
                    log::message_refused(self, &envelope, reply, delay);
                }
            }
        }
        match verdict {
            Ok(custody) => self.machine.taken(&custody, &mut self.replies),
            Err(reply) => self.machine.refused(&reply, &mut self.replies),
        }
        self.end_transaction();
    }

    async fn verdict(&mut self) -> Result<Custody, Reply> {
        let Some(envelope) = &mut self.envelope else { return Err(reply::LOCAL_ERROR) };
        self.body.finish();
        self.body.judge(self.ingress.config().hops_max)?;
        envelope.waives_tls = self.body.waives_tls();
        let content = sink::Content {
            octets: self.machine.body_octets() + self.body.octets_added(),
            has_8bit: self.machine.body_has_8bit(),
            client: sink::Introduction {
                peer: &self.peer,
                helo: self.machine.helo().unwrap_or_default(),
                user: self.user.as_deref(),
                tls: self.stream.agreed(),
            },
        };
        self.sink.finish(envelope, self.body.rest(), content).await
    }

    /// The one way out of a transaction, on this side of the machine (I9).
    fn end_transaction(&mut self) {
        self.envelope = None;
        self.owed.clear();
        self.body.clear();
        self.sink.reset();
        self.next_buffer = Size::Command;
    }

    /// The last reply, with the end in the same segment, and a close that lets the client read it: unread octets would
    /// turn it into a reset, as would what the client sends meanwhile. After its QUIT a client has nothing to send but,
    /// inside TLS, its own farewell.
    async fn farewell(&mut self, outcome: SessionOutcome) {
        if self.stream.is_unfinished() {
            return;
        }
        if !self.replies.is_empty() {
            let by = self.ingress.io.tick().after(REPLY_TIMEOUT);
            if self.stream.send_final(self.replies.take(), by).await.is_err() {
                return;
            }
        }
        if outcome == SessionOutcome::Lost {
            return;
        }
        self.stream.finish_sending();
        if outcome == SessionOutcome::Quit && !self.stream.is_secure() {
            return;
        }
        let by = self.ingress.io.now().after(FAREWELL_TIMEOUT);
        let mut read = 0;
        while read < FAREWELL_OCTETS_MAX {
            match self.stream.receive(Buffer::take(Size::Command), by).await.0 {
                Ok(octets @ 1..) => read += octets,
                _ => return,
            }
        }
    }

    /// The machine, for what logs tell of a session.
    pub fn machine(&self) -> &Server {
        &self.machine
    }

    /// Who has logged in, likewise.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// What was agreed on for TLS, likewise; `None` outside it.
    pub fn agreed(&self) -> Option<Agreed> {
        self.stream.agreed()
    }

    /// The sink, likewise.
    pub fn sink(&self) -> &S {
        &self.sink
    }
}

impl Owed {
    fn asked(&self) -> Option<&Rcpt> {
        match self {
            Self::Ask(rcpt) => Some(rcpt),
            Self::Refused(_) => None,
        }
    }
}
