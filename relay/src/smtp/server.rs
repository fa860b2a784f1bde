//! The server's side of SMTP as a machine: octets in, replies and events out.
//!
//! Theory of operation. [`Server::step`] reads the input as far as it goes without a decision of the driver. A
//! [`Question`] pauses the machine until [`Server::answer`]; what the client pipelined behind it waits in the
//! driver's buffer. Replies are appended to the driver's [`ReplyBuf`], one for each command and in the order of the
//! commands (RFC 5321 §4.2, RFC 2920 §3.2). The result never depends on how the input is cut.
//!
//! A pipelined group of RCPT can be decided in one go: [`Server::postpone`] leaves the reply owed and the machine
//! goes on. It asks the next RCPT, or whether the body may come; before anything else, and where the input ends,
//! it says [`Event::Settle`] and stands still until every owed answer was given.
//!
//! `judge` is the table of what may come when, `intake` reads bodies, and this file holds them together. Every way
//! out of a transaction, good or bad, goes through one function, `end_transaction`, which forgets all of it at once.
//!
//! What it must not do: decide who may send or relay, wait, read a clock, count for metrics, log, or see the content
//! of a message beyond its scanner.

mod event;
mod intake;
mod judge;
mod login;

pub use self::event::{Answer, Ending, Event, Fault, Proof, Question, Step};
use super::auth::Exchange;
use super::body::{BodyScanner, Piece};
use super::command::Chunk;
pub use super::extension::{Profile, Role};
use super::line::{Line, Lines};

use super::reply::{self, Reply, ReplyBuf};
use crate::limits;

/// The machine of one session.
///
/// Invariants, checked in debug builds after each step: recipients are owed only within a transaction and before its
/// body; a body is read only within a transaction that has a recipient and a scanner.
#[derive(Debug)]
pub struct Server {
    profile: Profile,
    state: State,
    lines: Lines,
    hello: Option<Hello>,
    is_authenticated: bool,
    transaction: Option<Transaction>,
    /// A chunk that was not the last one failed: chunks are swallowed up to the last one or RSET (RFC 3030 §2).
    has_failed_chunk: bool,
    pieces: Vec<Piece>,
    /// Wrong commands since the last message that was taken.
    errors: u32,
    /// Useless commands since the last message.
    idle_commands: u32,
}

/// What the next octets of input are.
#[derive(Debug)]
enum State {
    /// Commands.
    Commands,
    /// Commands too, but not before all owed recipients are answered.
    Settling,
    /// Not to be looked at before the answer.
    Asked(Asked),
    /// A message after DATA, up to its dot.
    Data,
    /// Octets of a chunk.
    Chunk(Chunk),
    /// Octets of a chunk that nobody wants, and then this reply.
    Swallow { octets: u64, reply: Reply, cost: Cost },
    /// A response within AUTH.
    Auth(Exchange),
    /// Nothing: TLS is to start, and no octet before it counts.
    Tls,
    /// Nothing: the session is over.
    Closed(Ending),
}

/// The question that is open.
#[derive(Debug)]
enum Asked {
    Mail { smtputf8: bool },
    Rcpt,
    Open(Body),
    Message,
    Auth,
}

/// The body that may come: after DATA, or beginning with this chunk.
#[derive(Debug, Clone, Copy)]
enum Body {
    Data,
    Chunks(Chunk),
}

/// What a reply costs the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cost {
    Nothing,
    /// One of its useless commands.
    Idle,
    /// One of its errors.
    Error,
}

#[derive(Debug)]
struct Hello {
    name: Box<str>,
    is_esmtp: bool,
}

/// From MAIL to its end.
#[derive(Debug)]
struct Transaction {
    smtputf8: bool,
    /// Recipients taken.
    accepted: u32,
    /// Recipients refused, by the driver or for their number.
    refused: u32,
    /// Recipients whose answers are owed.
    owed: u32,
    scanner: Option<BodyScanner>,
    /// The message was given up, and this will be said about it.
    verdict: Option<Reply>,
}

impl Server {
    /// The machine of a session that just began.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            state: State::Commands,
            lines: Lines::default(),
            hello: None,
            is_authenticated: false,
            transaction: None,
            has_failed_chunk: false,
            pieces: Vec::new(),
            errors: 0,
            idle_commands: 0,
        }
    }

    /// Says the banner.
    pub fn greet(&mut self, out: &mut ReplyBuf) {
        out.push(&reply::banner(&self.profile.host_name));
    }

    /// Reads on. Replies go to `out`. After each event but [`Event::NeedInput`], [`Event::StartTls`] and
    /// [`Event::Close`] it is to be called again with the rest of the input, even if that is empty.
    pub fn step(&mut self, input: &[u8], out: &mut ReplyBuf) -> Step {
        self.pieces.clear();
        let mut consumed = 0;
        let event = loop {
            // Ranges of pieces count from the start of the input, so a body is scanned from there only.
            if consumed > 0 && matches!(self.state, State::Data | State::Chunk(Chunk { octets: 1.., .. })) {
                break Event::NeedInput;
            }
            let (taken, event) = self.advance(&input[consumed..], out);
            consumed += taken;
            if let Some(event) = event {
                break event;
            }
            // Only between commands: everything else that is left to do may need no input at all.
            if out.is_full() && matches!(self.state, State::Commands) {
                break Event::NeedInput;
            }
        };
        if matches!(event, Event::StartTls | Event::Close) {
            consumed = input.len();
        }
        self.check_invariants();
        Step { consumed, event }
    }

    /// Answers the oldest postponed recipient or, if none is owed, the question just asked. A driver that postponed
    /// one recipient postpones the next ones too, until it has answered them in order.
    pub fn answer(&mut self, answer: Answer, out: &mut ReplyBuf) {
        if self.owed() > 0 {
            return self.answer_rcpt(answer, out);
        }
        match std::mem::replace(&mut self.state, State::Commands) {
            State::Asked(Asked::Mail { smtputf8 }) => self.answer_mail(answer, smtputf8, out),
            State::Asked(Asked::Rcpt) => {
                self.owe();
                self.answer_rcpt(answer, out);
            }
            State::Asked(Asked::Open(body)) => self.answer_open(answer, body, out),
            State::Asked(Asked::Auth) => self.answer_auth(answer, out),
            other => {
                debug_assert!(false, "no such question was asked");
                self.state = other;
            }
        }
    }

    /// Puts the answer to [`Question::Rcpt`] off; the machine goes on.
    pub fn postpone(&mut self) {
        debug_assert!(matches!(self.state, State::Asked(Asked::Rcpt)), "only a recipient can be postponed");
        self.state = State::Commands;
        self.owe();
    }

    /// The message is held: answers [`Question::Message`] with the 250 that only the proof can say.
    pub fn taken(&mut self, proof: &impl Proof, out: &mut ReplyBuf) {
        let reply = proof.reply();
        debug_assert!(reply.is_positive(), "a proof says 2xx");
        self.errors = 0;
        self.end_message(&reply, out);
    }

    /// The message is not held: answers [`Question::Message`].
    pub fn refused(&mut self, reply: &Reply, out: &mut ReplyBuf) {
        self.end_message(&event::refusal(reply.clone()), out);
    }

    /// The driver gives up on the message whose body is open: the rest of it is discarded in constant memory, and
    /// this 4xx or 5xx said at its end (for BDAT: of the current or next chunk). Once [`Question::Message`] is asked,
    /// [`Self::refused`] does it.
    pub fn refuse_body(&mut self, reply: Reply) {
        let reply = event::refusal(reply);
        match self.state {
            State::Chunk(chunk) => self.give_up_chunk(chunk, reply),
            _ => {
                debug_assert!(!matches!(self.state, State::Asked(_)), "the question is to be answered");
                let open = self.transaction.as_mut().filter(|t| t.scanner.is_some());
                debug_assert!(open.is_some(), "no body is open");
                if let Some(transaction) = open {
                    transaction.verdict.get_or_insert(reply);
                    transaction.scanner.iter_mut().for_each(BodyScanner::discard);
                }
            }
        }
    }

    /// The octets of the message found by the last step: ranges of the input given to it, or literals.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The handshake after [`Event::StartTls`] succeeded: everything but the error count is as after the greeting
    /// (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        self.end_transaction();
        self.state = State::Commands;
        self.lines = Lines::default();
        self.hello = None;
        self.is_authenticated = false;
        self.idle_commands = 0;
        self.profile.tls = true;
    }

    /// What the session offers.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The name that the client gave with EHLO or HELO: any printable text.
    #[must_use]
    pub fn helo(&self) -> Option<&str> {
        self.hello.as_ref().map(|hello| &*hello.name)
    }

    /// Whether the client said EHLO.
    #[must_use]
    pub fn is_esmtp(&self) -> bool {
        self.hello.as_ref().is_some_and(|hello| hello.is_esmtp)
    }

    /// Whether the client has logged in.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    /// Whether a login may come: octets of the client may be a secret.
    #[must_use]
    pub fn awaits_login(&self) -> bool {
        !self.profile.auth.is_empty() && !self.is_authenticated
    }

    /// Whether a transaction is open.
    #[must_use]
    pub fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Whether the session may be ended with 421 without taking anything from the client: no transaction, nothing
    /// asked, no line half read.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.transaction.is_none() && matches!(self.state, State::Commands) && self.lines.is_empty()
    }

    /// Whether the next octets belong to a message, wanted or not.
    #[must_use]
    pub fn is_in_body(&self) -> bool {
        matches!(self.state, State::Data | State::Chunk(_) | State::Swallow { .. })
    }

    /// Why the machine said [`Event::Close`]; `None` before that.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        match self.state {
            State::Closed(ending) => Some(ending),
            _ => None,
        }
    }

    /// Recipients taken in this transaction.
    #[must_use]
    pub fn recipients_accepted(&self) -> u32 {
        self.transaction.as_ref().map_or(0, |t| t.accepted)
    }

    /// Recipients whose answers are owed.
    #[must_use]
    pub fn owed(&self) -> u32 {
        self.transaction.as_ref().map_or(0, |t| t.owed)
    }

    /// Octets of the message so far, as RFC 1870 §5 counts them.
    #[must_use]
    pub fn body_octets(&self) -> u64 {
        self.scanner().map_or(0, BodyScanner::size)
    }

    /// Whether the message so far has an octet above 127.
    #[must_use]
    pub fn body_has_8bit(&self) -> bool {
        self.scanner().is_some_and(BodyScanner::has_8bit)
    }

    /// One move: how many octets it took, and what it means for the driver. `None`: go on.
    fn advance(&mut self, input: &[u8], out: &mut ReplyBuf) -> (usize, Option<Event>) {
        match self.state {
            State::Commands => self.read_command(input, out),
            State::Auth(_) => self.read_response(input, out),
            State::Data => self.read_data(input, out),
            State::Chunk(chunk) => self.read_chunk(chunk, input, out),
            State::Swallow { octets, .. } => self.swallow(octets, input, out),
            State::Settling => (0, Some(Event::Settle)),
            State::Asked(_) => {
                debug_assert!(false, "a question is open");
                (0, Some(Event::NeedInput))
            }
            State::Tls => (0, Some(Event::StartTls)),
            State::Closed(_) => (0, Some(Event::Close)),
        }
    }

    fn read_command(&mut self, input: &[u8], out: &mut ReplyBuf) -> (usize, Option<Event>) {
        // RFC 5321 §3.8: a server that closes on its own says 421 first.
        if self.errors >= limits::ERRORS_PER_SESSION_MAX || self.idle_commands > limits::IDLE_COMMANDS_MAX {
            return (0, Some(self.close(Some(&reply::TOO_MANY_ERRORS), Ending::Abuse, out)));
        }
        let mut lines = std::mem::take(&mut self.lines);
        let (consumed, line) = lines.read(input, self.line_octets_max());
        let outcome = if line == Line::Partial {
            (consumed, Some(if self.owed() > 0 { self.settle() } else { Event::NeedInput }))
        } else {
            let may_be_secret = self.profile.offers_auth();
            let decision = self.judge(&line);
            if self.owed() > 0 && !decision.can_wait_for_recipients() {
                lines.undo();
                (0, Some(self.settle()))
            } else {
                if may_be_secret {
                    lines.wipe();
                } else {
                    lines.done();
                }
                (consumed, self.carry_out(decision, out))
            }
        };
        self.lines = lines;
        outcome
    }

    fn settle(&mut self) -> Event {
        self.state = State::Settling;
        Event::Settle
    }

    fn ask(&mut self, asked: Asked, question: Question) -> Event {
        self.state = State::Asked(asked);
        Event::Question(question)
    }

    fn say(&mut self, reply: &Reply, cost: Cost, out: &mut ReplyBuf) -> Option<Event> {
        match cost {
            Cost::Nothing => {}
            Cost::Idle => self.idle_commands += 1,
            Cost::Error => self.errors += 1,
        }
        out.push(reply);
        None
    }

    fn close(&mut self, reply: Option<&Reply>, ending: Ending, out: &mut ReplyBuf) -> Event {
        if let Some(reply) = reply {
            out.push(reply);
        }
        self.end_transaction();
        self.state = State::Closed(ending);
        Event::Close
    }

    fn owe(&mut self) {
        if let Some(transaction) = self.transaction.as_mut() {
            transaction.owed += 1;
        }
    }

    fn answer_mail(&mut self, answer: Answer, smtputf8: bool, out: &mut ReplyBuf) {
        if let Some(reply) = answer.into_refusal() {
            return out.push(&reply);
        }
        self.end_transaction();
        self.transaction = Some(Transaction::new(smtputf8));
        out.push(&reply::SENDER_OK);
    }

    fn answer_rcpt(&mut self, answer: Answer, out: &mut ReplyBuf) {
        let Some(transaction) = self.transaction.as_mut() else { return };
        transaction.owed -= 1;
        match answer.into_refusal() {
            Some(reply) => {
                transaction.refused += 1;
                out.push(&reply);
            }
            None => {
                transaction.accepted += 1;
                out.push(&reply::RECIPIENT_OK);
            }
        }
        if transaction.owed == 0 && matches!(self.state, State::Settling) {
            self.state = State::Commands;
        }
    }

    /// The message ends with this reply.
    fn end_message(&mut self, reply: &Reply, out: &mut ReplyBuf) {
        debug_assert!(
            matches!(self.state, State::Asked(Asked::Message) | State::Data),
            "no message was complete"
        );
        self.end_transaction();
        self.idle_commands = 0;
        self.state = State::Commands;
        out.push(reply);
    }

    /// The one way out of a transaction: sender, recipients, body, chunks and what was decided about them go
    /// together. What remains is the session: its hello, its login, its counters.
    fn end_transaction(&mut self) {
        self.transaction = None;
        self.has_failed_chunk = false;
        self.pieces.clear();
        self.pieces.shrink_to(PIECES_KEPT_MAX);
    }

    fn scanner(&self) -> Option<&BodyScanner> {
        self.transaction.as_ref().and_then(|t| t.scanner.as_ref())
    }

    fn check_invariants(&self) {
        let scanner = self.scanner().is_some();
        let reads_body = matches!(self.state, State::Data | State::Chunk(_) | State::Asked(Asked::Message));
        debug_assert!(!reads_body || scanner && self.recipients_accepted() > 0);
        debug_assert!(self.owed() == 0 || !scanner);
        debug_assert!(!matches!(self.state, State::Settling) || self.owed() > 0);
    }
}

impl Transaction {
    fn new(smtputf8: bool) -> Self {
        Self { smtputf8, accepted: 0, refused: 0, owed: 0, scanner: None, verdict: None }
    }
}

/// Pieces whose memory is kept between messages.
const PIECES_KEPT_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::body::{BareNewline, Form};
    use super::*;
    use proptest::prelude::*;

    struct Held;

    impl Proof for Held {
        fn reply(&self) -> Reply {
            reply::queued_as("X")
        }
    }

    fn profile() -> Profile {
        Profile { size_max: 60, recipients_max: 3, ..Profile::relay("mx.example".into()) }
    }

    /// A session whose driver takes everything but recipients that begin with `no`, and gives every second body up
    /// where it `wavers`. Returns the replies, and the messages that were taken.
    fn session(cuts: &[&[u8]], wavers: bool) -> (String, Vec<String>) {
        converse(profile(), cuts, wavers)
    }

    fn converse(profile: Profile, cuts: &[&[u8]], wavers: bool) -> (String, Vec<String>) {
        let mut server = Server::new(profile);
        let (mut out, mut body, mut taken) = (ReplyBuf::new(), Vec::new(), Vec::new());
        for cut in cuts {
            let mut rest = *cut;
            loop {
                let step = server.step(rest, &mut out);
                server.pieces().iter().for_each(|piece| body.extend_from_slice(piece.octets(rest)));
                rest = &rest[step.consumed..];
                match step.event {
                    Event::NeedInput if rest.is_empty() => break,
                    Event::Close | Event::StartTls => return (text(&out), taken),
                    Event::Question(Question::Message) => {
                        taken.push(String::from_utf8_lossy(&std::mem::take(&mut body)).into_owned());
                        server.taken(&Held, &mut out);
                    }
                    Event::Question(Question::OpenBody { .. }) => {
                        body.clear();
                        server.answer(Answer::Open(Form::Plain), &mut out);
                        if wavers && server.is_in_body() && taken.len() % 2 == 1 {
                            server.refuse_body(reply::UPSTREAM_LOST);
                        }
                    }
                    Event::Question(Question::Rcpt(rcpt)) if rcpt.forward_path.as_str().starts_with("no") => {
                        server.answer(Answer::Refuse(reply::RECIPIENT_DENIED), &mut out);
                    }
                    Event::Question(_) => server.answer(Answer::Accept, &mut out),
                    Event::BodyFault(_) | Event::Reset => body.clear(),
                    Event::NeedInput | Event::Body | Event::Settle => {}
                }
            }
        }
        (text(&out), taken)
    }

    fn text(out: &ReplyBuf) -> String {
        String::from_utf8(out.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn postponed_recipients_are_answered_in_order_before_the_body_opens() {
        let mut server = Server::new(profile());
        let mut out = ReplyBuf::new();
        let input = b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n";
        let mut at = 0;
        let mut next = |server: &mut Server, out: &mut ReplyBuf| {
            let step = server.step(&input[at..], out);
            at += step.consumed;
            step.event
        };
        assert!(matches!(next(&mut server, &mut out), Event::Question(Question::Mail(_))));
        server.answer(Answer::Accept, &mut out);
        for _ in 0..2 {
            assert!(matches!(next(&mut server, &mut out), Event::Question(Question::Rcpt(_))));
            server.postpone();
        }
        assert!(matches!(next(&mut server, &mut out), Event::Question(Question::OpenBody { .. })));
        out.clear();
        server.answer(Answer::Refuse(reply::RECIPIENT_DENIED), &mut out);
        server.answer(Answer::Accept, &mut out);
        assert_eq!(server.owed(), 0);
        server.answer(Answer::Open(Form::Stuffed), &mut out);
        assert!(server.is_in_body());
        let codes: Vec<_> = text(&out).lines().map(|line| line[..3].to_owned()).collect();
        assert_eq!(codes, ["550", "250", "354"]);
    }

    #[test]
    fn a_body_never_opens_when_all_postponed_recipients_are_refused() {
        for (end, codes) in
            [("DATA\r\n", ["550", "554", "250"]), ("BDAT 4 LAST\r\nRSET", ["550", "554", "250"])]
        {
            let mut server = Server::new(profile());
            let mut out = ReplyBuf::new();
            let input = format!("EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n{end}NOOP\r\n");
            let mut rest = input.as_bytes();
            let mut replies = ReplyBuf::new();
            loop {
                let step = server.step(rest, &mut out);
                rest = &rest[step.consumed..];
                match step.event {
                    Event::Question(Question::Rcpt(_)) => {
                        out.clear();
                        server.postpone();
                    }
                    Event::Question(Question::OpenBody { .. }) => {
                        server.answer(Answer::Refuse(reply::RECIPIENT_DENIED), &mut replies);
                        server.answer(Answer::Open(Form::Plain), &mut replies);
                    }
                    Event::Question(_) => server.answer(Answer::Accept, &mut out),
                    Event::NeedInput if rest.is_empty() => break,
                    other => assert!(matches!(other, Event::NeedInput), "{other:?}"),
                }
            }
            let said = text(&replies) + &text(&out);
            assert_eq!(said.lines().map(|line| &line[..3]).collect::<Vec<_>>(), codes);
        }
    }

    #[test]
    fn nothing_overtakes_a_postponed_recipient() {
        for next in [
            "NOOP\r\n",
            "RCPT TO:<>\r\n",
            "QUIT\r\n",
            "FOO\r\n",
            "RSET\r\n",
            "NOO",
            "",
            "DATA x\r\n",
            "BDAT 99\r\n",
        ] {
            let mut server = Server::new(profile());
            let mut out = ReplyBuf::new();
            let head = b"EHLO a\r\nMAIL FROM:<a@b>\r\n";
            let step = server.step(head, &mut out);
            assert_eq!(step.consumed, head.len());
            server.answer(Answer::Accept, &mut out);
            let group = format!("RCPT TO:<c@d>\r\n{next}");
            let mut consumed = server.step(group.as_bytes(), &mut out).consumed;
            server.postpone();
            out.clear();
            for _ in 0..2 {
                let step = server.step(&group.as_bytes()[consumed..], &mut out);
                consumed += step.consumed;
                assert!(matches!(step.event, Event::Settle), "{next:?}: {:?}", step.event);
                assert!(out.is_empty());
            }
            server.answer(Answer::Accept, &mut out);
            assert_eq!(text(&out), "250 2.1.5 Ok\r\n");
            let event = server.step(&group.as_bytes()[consumed..], &mut out).event;
            assert!(!matches!(event, Event::Settle), "{next:?}: {event:?}");
        }
    }

    #[test]
    fn replies_of_a_flood_are_bounded() {
        let mut server = Server::new(Profile { recipients_max: 1_000_000, ..profile() });
        let mut out = ReplyBuf::new();
        let flood = b"EHLO a\r\n".repeat(100_000);
        let mut rest = &flood[..];
        let mut rounds = 0;
        while !matches!(server.step(rest, &mut out), Step { event: Event::Close, .. }) {
            assert!(out.len() <= limits::REPLY_BUFFER_OCTETS_MAX + 1024);
            out.clear();
            rest = &flood[..];
            rounds += 1;
        }
        assert!(rounds <= 2, "a flood ends with 421");
    }

    #[test]
    fn every_end_of_a_transaction_is_told_to_the_driver() {
        for end in ["BDAT 61 LAST\r\n", "RSET\r\n", "EHLO a\r\n", "BDAT 5\r\nabcdeBDAT 60\r\n", "DATA\r\n\0"]
        {
            let mut server = Server::new(profile());
            let mut out = ReplyBuf::new();
            let input = format!("EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n{end}");
            let mut rest = input.as_bytes();
            let mut is_told = false;
            while !is_told {
                let step = server.step(rest, &mut out);
                rest = &rest[step.consumed..];
                match step.event {
                    Event::Reset | Event::BodyFault(_) => is_told = true,
                    Event::Question(Question::OpenBody { .. }) => {
                        server.answer(Answer::Open(Form::Plain), &mut out);
                    }
                    Event::Question(_) => server.answer(Answer::Accept, &mut out),
                    _ => assert!(!rest.is_empty(), "{end:?} ends in silence"),
                }
            }
        }
    }

    #[test]
    fn the_first_fault_decides_however_the_input_is_cut() {
        let long = "x".repeat(61);
        for (body, code) in [
            (format!("{long}\0"), "552"),
            (format!("\0{long}"), "550"),
            (format!("{long}\n"), "552"),
            (format!("a\n{long}"), "550"),
            (format!("{long}\n\0"), "552"),
        ] {
            let input = format!("EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n{body}\r\n.\r\n");
            let profile = Profile { bare_newline: BareNewline::Reject, ..profile() };
            let said = |cuts: &[&[u8]]| converse(profile.clone(), cuts, false).0;
            let whole = said(&[input.as_bytes()]);
            assert_eq!(whole.lines().last().map(|line| &line[..3]), Some(code), "{body:?}");
            let octets: Vec<_> = input.as_bytes().chunks(1).collect();
            assert_eq!(said(&octets), whole, "{body:?}");
        }
    }

    const FRAGMENTS: &[&str] = &[
        "EHLO me\r\n",
        "HELO me\r\n",
        "MAIL FROM:<a@b>\r\n",
        "MAIL FROM:<> SIZE=61\r\n",
        "RCPT TO:<c@d>\r\n",
        "RCPT TO:<no@d>\r\n",
        "RCPT TO:<>\r\n",
        "DATA\r\n",
        "hello\r\n",
        ".\r\n",
        "..\r\n",
        "x\n.\n",
        "\r\n.\r\n",
        "\0",
        "BDAT 5\r\nabcde",
        "BDAT 4 LAST\r\nQUIT",
        "BDAT 0\r\n",
        "BDAT 0 LAST\r\n",
        "BDAT 70\r\n",
        "BDAT x\r\n",
        "RSET\r\n",
        "NOOP\r\n",
        "VRFY x\r\n",
        "STARTTLS\r\n",
        "AUTH PLAIN\r\n",
        "FOO\r\n",
        "QUIT\r\n",
        "a long line to be too big, is it?",
        "\r",
        "\n",
        "GET / HTTP/1.1\r\n",
    ];

    proptest! {
        #[test]
        fn cuts_change_nothing(
            picks in prop::collection::vec(0..FRAGMENTS.len(), 0..24),
            cuts in prop::collection::vec(1usize..40, 1..40),
            wavers: bool,
        ) {
            let mut input = b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n".to_vec();
            picks.iter().for_each(|&pick| input.extend_from_slice(FRAGMENTS[pick].as_bytes()));
            let whole = session(&[&input], wavers);
            let octets: Vec<_> = input.chunks(1).collect();
            prop_assert_eq!(&session(&octets, wavers), &whole);
            let mut rest = &input[..];
            let mut stretches = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                stretches.push(head);
                rest = tail;
            }
            prop_assert_eq!(&session(&stretches, wavers), &whole);
        }

        #[test]
        fn no_octets_make_it_panic(input in prop::collection::vec(any::<u8>(), 0..400)) {
            session(&[&input], false);
        }
    }
}
