//! What may come when: one command line and the state of the session make one decision. Nothing is changed here
//! but by `carry_out`, which does what was decided.

use super::{Asked, Body, Cost, Ending, Event, Fault, Hello, Question, Server, State};
use crate::limits;
use crate::smtp::auth::{Exchange, Mechanism, Progress};
use crate::smtp::body::Framing;
use crate::smtp::command::{self, Chunk, Command, CommandError};
use crate::smtp::extension::Role;
use crate::smtp::line::Line;
use crate::smtp::params::{self, Refusal};
use crate::smtp::reply::{self, Reply, ReplyBuf};

/// What becomes of one command.
pub(super) enum Decision {
    /// Say this.
    Say(Reply, Cost),
    /// Ask the driver.
    Ask(Asked, Question),
    /// EHLO or HELO.
    Hello(Hello),
    /// RSET.
    Reset,
    /// Another chunk of the body that is open.
    Chunk(Chunk),
    /// Read the octets of this chunk and say this.
    Swallow(Chunk, Reply, Cost),
    /// This chunk, or the one before, ends the transaction: read its octets and say this. A fault that the driver
    /// does not know of is told to it.
    GiveUp(Chunk, Reply, Option<Fault>),
    /// One recipient more than allowed.
    Overshoot,
    /// An AUTH exchange began.
    Auth(Progress),
    /// TLS may start.
    StartTls,
    /// Say this, if anything, and close.
    Close(Option<Reply>, Ending),
}

impl Decision {
    /// Whether it may be carried out while recipients are unanswered: it says nothing that would overtake them.
    pub(super) fn can_wait_for_recipients(&self) -> bool {
        matches!(self, Self::Ask(Asked::Rcpt | Asked::Open(_), _))
    }

    fn wrong(reply: Reply) -> Self {
        Self::Say(reply, Cost::Error)
    }

    fn idle(reply: Reply) -> Self {
        Self::Say(reply, Cost::Idle)
    }
}

impl Server {
    /// Longest line that is read now. Where AUTH may come, its initial response needs more (RFC 4954 §4).
    pub(super) fn line_octets_max(&self) -> usize {
        if self.profile.offers_auth() {
            limits::AUTH_LINE_OCTETS_MAX
        } else {
            limits::COMMAND_LINE_OCTETS_MAX
        }
    }

    /// The table of transitions.
    pub(super) fn judge(&self, line: &Line<'_>) -> Decision {
        let text = match line {
            Line::TlsRecord => return Decision::Close(None, Ending::Abuse),
            Line::Malformed | Line::Partial => return Decision::wrong(reply::MALFORMED_COMMAND),
            Line::TooLong => return Decision::wrong(reply::LINE_TOO_LONG),
            Line::Whole(text) if is_too_long(text) => return Decision::wrong(reply::LINE_TOO_LONG),
            Line::Whole(text) => *text,
        };
        let command = match command::parse(text) {
            Ok(command) => command,
            Err(error) => return judge_error(error),
        };
        if let Some(reply) = self.too_early(command) {
            return match command {
                Command::Bdat(chunk) => Decision::Swallow(chunk, reply, Cost::Error),
                _ => Decision::wrong(reply),
            };
        }
        match command {
            Command::Ehlo(name) => Decision::Hello(Hello { name: name.into(), is_esmtp: true }),
            Command::Helo(name) => Decision::Hello(Hello { name: name.into(), is_esmtp: false }),
            Command::Mail(arguments) => self.judge_mail(arguments),
            Command::Rcpt(arguments) => self.judge_rcpt(arguments),
            Command::Data => self.judge_data(),
            Command::Bdat(chunk) => self.judge_chunk(chunk),
            Command::Rset => Decision::Reset,
            Command::Noop => Decision::idle(reply::OK),
            Command::Vrfy => Decision::idle(reply::CANNOT_VERIFY),
            Command::Help => Decision::idle(reply::HELP),
            Command::Quit => Decision::Close(Some(reply::BYE), Ending::Quit),
            Command::StartTls => self.judge_starttls(),
            Command::Auth { mechanism, initial } => self.judge_auth(mechanism, initial),
        }
    }

    /// What a command hears that comes before TLS (RFC 6409 §3.3), EHLO or AUTH (RFC 6409 §4.3).
    fn too_early(&self, command: Command<'_>) -> Option<Reply> {
        let is_submission = self.profile.role == Role::Submission;
        match command {
            Command::Ehlo(_) | Command::Helo(_) | Command::Noop | Command::Rset | Command::Quit => None,
            Command::StartTls => None,
            _ if is_submission && !self.profile.tls => Some(reply::TLS_FIRST),
            Command::Vrfy | Command::Help => None,
            // RFC 5321 §4.1.4: a session begins with EHLO or HELO.
            _ if self.hello.is_none() => Some(reply::HELLO_FIRST),
            Command::Mail(_) if is_submission && !self.is_authenticated => Some(reply::AUTH_FIRST),
            _ => None,
        }
    }

    fn judge_mail(&self, arguments: &str) -> Decision {
        if self.transaction.is_some() {
            return Decision::wrong(reply::NESTED_MAIL);
        }
        match params::mail(arguments, self.profile.offer(self.is_esmtp())) {
            Err(refusal) => Decision::wrong(reply_to(refusal, reply::BAD_SENDER)),
            // RFC 1870 §6.1: a message declared too big is refused here.
            Ok(mail) if mail.params.size.is_some_and(|octets| self.profile.is_too_big(octets)) => {
                Decision::Say(reply::MESSAGE_TOO_BIG, Cost::Nothing)
            }
            Ok(mail) => Decision::Ask(Asked::Mail { smtputf8: mail.params.smtputf8 }, Question::Mail(mail)),
        }
    }

    fn judge_rcpt(&self, arguments: &str) -> Decision {
        let Some(transaction) = &self.transaction else {
            return Decision::wrong(reply::MAIL_FIRST);
        };
        if transaction.scanner.is_some() {
            return Decision::wrong(reply::CHUNKS_EXPECTED);
        }
        if transaction.accepted + transaction.owed >= self.profile.recipients_max
            || transaction.refused + transaction.owed >= limits::RECIPIENTS_OVERSHOOT_MAX
        {
            return Decision::Overshoot;
        }
        match params::rcpt(arguments, self.profile.offer(self.is_esmtp()), transaction.smtputf8) {
            Err(refusal) => Decision::wrong(reply_to(refusal, reply::BAD_RECIPIENT)),
            Ok(rcpt) => Decision::Ask(Asked::Rcpt, Question::Rcpt(rcpt)),
        }
    }

    fn judge_data(&self) -> Decision {
        let Some(transaction) = &self.transaction else {
            return Decision::wrong(reply::MAIL_FIRST);
        };
        // RFC 3030 §2: DATA and BDAT are not mixed.
        if transaction.scanner.is_some() {
            return Decision::wrong(reply::CHUNKS_EXPECTED);
        }
        if self.has_failed_chunk {
            return Decision::wrong(reply::CHUNKS_FAILED);
        }
        match (transaction.accepted + transaction.owed, transaction.refused) {
            (0, 0) => Decision::wrong(reply::NO_RECIPIENTS),
            // A client that pipelined the group could not know.
            (0, _) => Decision::Say(reply::NO_RECIPIENTS, Cost::Nothing),
            _ => Decision::Ask(
                Asked::Open(Body::Data),
                Question::OpenBody { framing: Framing::Data, chunk: None },
            ),
        }
    }

    fn judge_chunk(&self, chunk: Chunk) -> Decision {
        if !self.profile.chunking || !self.is_esmtp() {
            return Decision::Swallow(chunk, reply::NOT_IMPLEMENTED, Cost::Error);
        }
        if self.has_failed_chunk {
            return Decision::Swallow(chunk, reply::CHUNKS_FAILED, Cost::Nothing);
        }
        let Some(transaction) = &self.transaction else {
            return Decision::Swallow(chunk, reply::MAIL_FIRST, Cost::Error);
        };
        if let Some(verdict) = &transaction.verdict {
            return Decision::GiveUp(chunk, verdict.clone(), None);
        }
        if transaction.accepted + transaction.owed == 0 {
            let cost = if transaction.refused == 0 { Cost::Error } else { Cost::Nothing };
            return Decision::Swallow(chunk, reply::NO_RECIPIENTS, cost);
        }
        if chunk.octets == 0 && !chunk.is_last {
            return Decision::wrong(reply::EMPTY_CHUNK);
        }
        let octets = self.body_octets().saturating_add(chunk.octets);
        // Before a single octet of it is read.
        if self.profile.is_too_big(octets) {
            return Decision::GiveUp(chunk, reply::MESSAGE_TOO_BIG, Some(Fault::Size));
        }
        if transaction.scanner.is_some() {
            return Decision::Chunk(chunk);
        }
        Decision::Ask(
            Asked::Open(Body::Chunks(chunk)),
            Question::OpenBody { framing: Framing::Chunks, chunk: Some(chunk.octets) },
        )
    }

    fn judge_starttls(&self) -> Decision {
        if !self.profile.offers_starttls() {
            Decision::wrong(reply::TLS_NOT_OFFERED)
        } else if self.transaction.is_some() {
            Decision::wrong(reply::IN_TRANSACTION)
        } else {
            Decision::StartTls
        }
    }

    fn judge_auth(&self, mechanism: &str, initial: Option<&str>) -> Decision {
        if self.profile.auth.is_empty() {
            return Decision::wrong(reply::AUTH_NOT_OFFERED);
        }
        if !self.profile.tls {
            return Decision::wrong(reply::AUTH_NEEDS_TLS);
        }
        // RFC 4954 §4: once, and not within a transaction.
        if self.is_authenticated {
            return Decision::wrong(reply::AUTH_TWICE);
        }
        if self.transaction.is_some() {
            return Decision::wrong(reply::IN_TRANSACTION);
        }
        match Mechanism::find(self.profile.auth, mechanism) {
            None => Decision::wrong(reply::UNKNOWN_MECHANISM),
            Some(mechanism) => Decision::Auth(Exchange::begin(mechanism, initial)),
        }
    }

    /// Does what was decided.
    pub(super) fn carry_out(&mut self, decision: Decision, out: &mut ReplyBuf) -> Option<Event> {
        match decision {
            Decision::Say(reply, cost) => self.say(&reply, cost, out),
            Decision::Ask(asked, question) => Some(self.ask(asked, question)),
            Decision::Hello(hello) => self.begin_session(hello, out),
            Decision::Reset => {
                let event = self.reset();
                self.say(&reply::OK, Cost::Idle, out).or(event)
            }
            Decision::Chunk(chunk) => {
                self.state = State::Chunk(chunk);
                None
            }
            Decision::Swallow(chunk, reply, cost) => {
                self.begin_swallowing(chunk, reply, cost);
                None
            }
            Decision::GiveUp(chunk, reply, fault) => {
                self.give_up_chunk(chunk, reply);
                fault.map(Event::BodyFault)
            }
            Decision::Overshoot => self.overshoot(out),
            Decision::Auth(progress) => self.proceed(progress, out),
            Decision::StartTls => {
                out.push(&reply::READY_FOR_TLS);
                self.state = State::Tls;
                Some(Event::StartTls)
            }
            Decision::Close(reply, ending) => Some(self.close(reply.as_ref(), ending, out)),
        }
    }

    /// EHLO and HELO reset what was open (RFC 5321 §4.1.4); a login stays.
    fn begin_session(&mut self, hello: Hello, out: &mut ReplyBuf) -> Option<Event> {
        let event = self.reset();
        let reply = if hello.is_esmtp { self.profile.ehlo_reply() } else { self.profile.helo_reply() };
        self.hello = Some(hello);
        self.say(&reply, Cost::Idle, out).or(event)
    }

    fn reset(&mut self) -> Option<Event> {
        let was_open = self.transaction.is_some();
        self.end_transaction();
        was_open.then_some(Event::Reset)
    }

    /// RFC 5321 §4.5.3.1.10: 452, and the recipients before it stay. Who goes on all the same is sent away.
    fn overshoot(&mut self, out: &mut ReplyBuf) -> Option<Event> {
        let refused = self.transaction.as_mut().map_or(0, |t| {
            t.refused += 1;
            t.refused
        });
        if refused > limits::RECIPIENTS_OVERSHOOT_MAX {
            return Some(self.close(Some(&reply::TOO_MANY_ERRORS), Ending::Abuse, out));
        }
        self.say(&reply::TOO_MANY_RECIPIENTS, Cost::Nothing, out)
    }
}

/// Only AUTH may be as long as its own bound.
fn is_too_long(text: &[u8]) -> bool {
    text.len() + "\r\n".len() > limits::COMMAND_LINE_OCTETS_MAX && !command::is_auth(text)
}

fn judge_error(error: CommandError) -> Decision {
    match error {
        CommandError::Malformed => Decision::wrong(reply::MALFORMED_COMMAND),
        CommandError::Unknown => Decision::wrong(reply::UNKNOWN_COMMAND),
        CommandError::NotImplemented => Decision::wrong(reply::NOT_IMPLEMENTED),
        CommandError::Arguments => Decision::wrong(reply::SYNTAX_ERROR),
        CommandError::Http => Decision::Close(Some(reply::NOT_HTTP), Ending::Abuse),
        CommandError::ChunkSize => Decision::Close(Some(reply::BAD_CHUNK_SIZE), Ending::Abuse),
    }
}

fn reply_to(refusal: Refusal, bad_address: Reply) -> Reply {
    match refusal {
        Refusal::Syntax => reply::SYNTAX_ERROR,
        Refusal::Address => bad_address,
        Refusal::Utf8Address => reply::UTF8_ADDRESS,
        Refusal::Parameter => reply::BAD_PARAMETER,
        Refusal::UnknownParameter => reply::UNKNOWN_PARAMETER,
    }
}
