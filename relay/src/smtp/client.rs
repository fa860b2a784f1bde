//! The client's side of SMTP: writes commands, keeps the account of replies owed, and matches them.
//!
//! The one thing that must not go wrong here is the account. A reply taken for that of another command could turn
//! a refusal into a 250, and a message would be lost. So every command notes what it is owed; a reply that nobody
//! waits for, one that its command cannot have, and one that cannot be read break the connection for good
//! ([`Violation`]); and a connection is used again only when [`Client::is_quiet`].
//!
//! Theory of operation. The driver appends commands to its send buffer through the methods named after them, as a
//! pipelined group where [`Client::may_add`] allows it (RFC 2920 §3.1), sends, and gives what it receives to
//! [`Client::step`], one event at a time. Parameters of extensions are written only where the upstream offered
//! the extension on this connection. The machine keeps part of a line between two steps and nothing else.
//!
//! It must not decide what a reply means for a message (`disposition` gives the rules, the driver has the facts),
//! and it holds no secret: a login passes through it into the driver's buffer.

mod capabilities;
mod reply;

use std::collections::VecDeque;

pub use capabilities::Capabilities;
pub use reply::{Disposition, TEXT_OCTETS_MAX, UpstreamReply};
use reply::{Progress, ReplyLine, ReplyReader};

use crate::limits::{AUTH_LINE_OCTETS_MAX, COMMAND_LINE_OCTETS_MAX, REPLY_LINE_OCTETS_MAX};

/// What a reply belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expect {
    /// The banner, before any command.
    Greeting,
    /// EHLO.
    Ehlo,
    /// HELO.
    Helo,
    /// STARTTLS.
    StartTls,
    /// AUTH, or a response within it.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The message after DATA: the verdict.
    Message,
    /// A BDAT chunk that is not the last.
    Chunk,
    /// BDAT LAST: the verdict.
    LastChunk,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
}

/// Why a connection can no longer be trusted. It is closed; a message whose verdict was owed has an unknown fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// Octets that no command asked for.
    Stray,
    /// A line that is no reply.
    Malformed,
    /// A line or a reply over the bounds of `limits`.
    TooLong,
    /// Lines of one reply with different codes.
    MixedCodes,
    /// A code that this command cannot have, such as 250 for DATA or 354 for MAIL.
    Unexpected(Expect, u16),
    /// Plaintext behind the 220 for STARTTLS, which would have been read as if it came over TLS.
    PlaintextBehindStartTls,
}

/// Text that must not stand in a command: an octet that is a control, or too many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unspeakable;

/// The result of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientStep {
    /// Octets of the input that are done with; give the rest to the next step.
    pub consumed: usize,
    /// What happened.
    pub event: ClientEvent,
}

/// What happened in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// All input was used, and the next reply is not complete.
    NeedInput,
    /// The reply to the oldest command that had none.
    Reply {
        /// That command.
        to: Expect,
        /// The reply, of a class that the command can have.
        reply: UpstreamReply,
    },
    /// A refusal while the message is still being sent. Send no more, the end of data above all; take the
    /// verdict; close.
    EarlyVerdict(UpstreamReply),
    /// The connection is to be closed. Every further step says the same.
    Violation(Violation),
}

/// The MAIL parameters wanted. Each is sent only where its extension was offered. Texts are as received, still
/// encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MailOptions<'a> {
    /// Octets of the message as it will be sent, our own header lines included, stuffing not (RFC 1870 §6.1).
    pub size: Option<u64>,
    /// `BODY=8BITMIME` (RFC 6152).
    pub eight_bit_mime: bool,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
    /// `REQUIRETLS` (RFC 8689).
    pub require_tls: bool,
    /// `RET=`: `FULL` or `HDRS` (RFC 3461 §4.3).
    pub ret: Option<&'a str>,
    /// `ENVID=` in xtext (RFC 3461 §4.4).
    pub envid: Option<&'a str>,
    /// `AUTH=` in xtext, or `<>` (RFC 4954 §5).
    pub auth: Option<&'a str>,
}

/// The RCPT parameters wanted, as received, still encoded; sent only where DSN was offered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RcptOptions<'a> {
    /// `NOTIFY=` (RFC 3461 §4.1).
    pub notify: Option<&'a str>,
    /// `ORCPT=` with its type (RFC 3461 §4.2).
    pub orcpt: Option<&'a str>,
}

/// One connection to an upstream. It begins by owing the banner.
#[derive(Debug)]
pub struct Client {
    owed: VecDeque<Expect>,
    /// Between 354 and the end of data: no reply is due.
    in_message: bool,
    capabilities: Capabilities,
    /// The capabilities in the EHLO reply that is being read.
    offered: Capabilities,
    reader: ReplyReader,
    /// A line that the input ended in.
    line: Vec<u8>,
    violation: Option<Violation>,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A connection that was just made.
    #[must_use]
    pub fn new() -> Self {
        Self {
            owed: VecDeque::from([Expect::Greeting]),
            in_message: false,
            capabilities: Capabilities::default(),
            offered: Capabilities::default(),
            reader: ReplyReader::default(),
            line: Vec::new(),
            violation: None,
        }
    }

    /// What the upstream offered on this connection.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Number of replies owed.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.owed.len()
    }

    /// The command whose reply comes next.
    #[must_use]
    pub fn awaiting(&self) -> Option<Expect> {
        self.owed.front().copied()
    }

    /// Whether the connection may carry another transaction: nothing is owed, nothing came unasked, and no
    /// message is open.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.owed.is_empty()
            && !self.in_message
            && self.violation.is_none()
            && self.line.is_empty()
            && self.reader.is_empty()
    }

    /// Whether one more command may be sent before the replies owed have come: with PIPELINING, and unless the
    /// last command ends its group (RFC 2920 §3.1). After DATA nothing but the message may follow its 354.
    #[must_use]
    pub fn may_add(&self) -> bool {
        let open = match self.owed.back() {
            None => true,
            Some(
                Expect::Mail
                | Expect::Rcpt
                | Expect::Rset
                | Expect::Message
                | Expect::Chunk
                | Expect::LastChunk,
            ) => self.capabilities.pipelining,
            Some(_) => false,
        };
        open && !self.in_message && self.violation.is_none()
    }

    /// `EHLO name`.
    pub fn ehlo(&mut self, name: &str, out: &mut Vec<u8>) -> Result<(), Unspeakable> {
        self.offered = Capabilities::default();
        self.command(Expect::Ehlo, &["EHLO ", name], out)
    }

    /// `HELO name`, where EHLO was not understood (RFC 5321 §3.2). Nothing is offered then.
    pub fn helo(&mut self, name: &str, out: &mut Vec<u8>) -> Result<(), Unspeakable> {
        self.command(Expect::Helo, &["HELO ", name], out)
    }

    /// `STARTTLS`. After its 220: the handshake, then [`Self::tls_started`], then EHLO again.
    pub fn starttls(&mut self, out: &mut Vec<u8>) {
        self.fixed(Expect::StartTls, b"STARTTLS\r\n", out);
    }

    /// TLS is up. What was offered in plaintext is void (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        debug_assert!(self.is_quiet(), "a handshake begins with nothing owed");
        self.capabilities = Capabilities::default();
    }

    /// `AUTH mechanism [initial]` (RFC 4954 §4); the initial response in base64, `=` for an empty one.
    pub fn auth(
        &mut self,
        mechanism: &str,
        initial: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unspeakable> {
        match initial {
            Some(initial) => self.command(Expect::Auth, &["AUTH ", mechanism, " ", initial], out),
            None => self.command(Expect::Auth, &["AUTH ", mechanism], out),
        }
    }

    /// A response within AUTH, in base64, or `*` to give up.
    pub fn auth_response(&mut self, base64: &str, out: &mut Vec<u8>) -> Result<(), Unspeakable> {
        self.command(Expect::Auth, &[base64], out)
    }

    /// `MAIL FROM:<sender>`; the sender without angle brackets, empty for the null sender.
    pub fn mail(
        &mut self,
        sender: &str,
        options: &MailOptions<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unspeakable> {
        let offered = &self.capabilities;
        let digits = options.size.filter(|_| offered.size.is_some()).map(|size| size.to_string());
        let flag = |wanted, word| if wanted { word } else { "" };
        let mut words = vec!["MAIL FROM:<", sender, ">"];
        words.extend(digits.as_deref().into_iter().flat_map(|digits| [" SIZE=", digits]));
        words.push(flag(options.eight_bit_mime && offered.eight_bit_mime, " BODY=8BITMIME"));
        words.push(flag(options.smtputf8 && offered.smtputf8, " SMTPUTF8"));
        words.push(flag(options.require_tls && offered.require_tls, " REQUIRETLS"));
        words.extend(options.ret.filter(|_| offered.dsn).into_iter().flat_map(|ret| [" RET=", ret]));
        words.extend(options.envid.filter(|_| offered.dsn).into_iter().flat_map(|id| [" ENVID=", id]));
        words.extend(
            options.auth.filter(|_| offered.offers_auth()).into_iter().flat_map(|who| [" AUTH=", who]),
        );
        self.command(Expect::Mail, &words, out)
    }

    /// `RCPT TO:<recipient>`; the recipient without angle brackets.
    pub fn rcpt(
        &mut self,
        recipient: &str,
        options: &RcptOptions<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unspeakable> {
        let dsn = self.capabilities.dsn;
        let mut words = vec!["RCPT TO:<", recipient, ">"];
        words.extend(options.notify.filter(|_| dsn).into_iter().flat_map(|notify| [" NOTIFY=", notify]));
        words.extend(options.orcpt.filter(|_| dsn).into_iter().flat_map(|orcpt| [" ORCPT=", orcpt]));
        self.command(Expect::Rcpt, &words, out)
    }

    /// `DATA`. The message may follow its 354, and only that.
    pub fn data(&mut self, out: &mut Vec<u8>) {
        self.fixed(Expect::Data, b"DATA\r\n", out);
    }

    /// The end of data: `.` CRLF, behind a message in `Form::Stuffed` that is empty or ends with CRLF.
    pub fn end_of_data(&mut self, out: &mut Vec<u8>) {
        debug_assert!(self.in_message, "the end of data follows a 354");
        self.in_message = false;
        out.extend_from_slice(b".\r\n");
        self.owed.push_back(Expect::Message);
    }

    /// `BDAT octets` or, as `last`, `BDAT octets LAST` (RFC 3030 §2). Exactly so many octets follow.
    pub fn bdat(&mut self, octets: u64, last: Last, out: &mut Vec<u8>) {
        self.debug_assert_may_add();
        out.extend_from_slice(b"BDAT ");
        out.extend_from_slice(octets.to_string().as_bytes());
        let (rest, expect): (&[u8], _) = match last {
            Last::No => (b"\r\n", Expect::Chunk),
            Last::Yes => (b" LAST\r\n", Expect::LastChunk),
        };
        out.extend_from_slice(rest);
        self.owed.push_back(expect);
    }

    /// `RSET`.
    pub fn rset(&mut self, out: &mut Vec<u8>) {
        self.fixed(Expect::Rset, b"RSET\r\n", out);
    }

    /// `NOOP`.
    pub fn noop(&mut self, out: &mut Vec<u8>) {
        self.fixed(Expect::Noop, b"NOOP\r\n", out);
    }

    /// `QUIT`.
    pub fn quit(&mut self, out: &mut Vec<u8>) {
        self.fixed(Expect::Quit, b"QUIT\r\n", out);
    }

    /// Looks at what was received. Any cut of it gives the same events in the same order.
    pub fn step(&mut self, input: &[u8]) -> ClientStep {
        let mut consumed = 0;
        loop {
            let event = match self.violation {
                Some(violation) => ClientEvent::Violation(violation),
                None if consumed == input.len() => ClientEvent::NeedInput,
                None => match self.line(input, &mut consumed) {
                    Ok(None) => continue,
                    Ok(Some(event)) => event,
                    Err(violation) => ClientEvent::Violation(*self.violation.insert(violation)),
                },
            };
            return ClientStep { consumed, event };
        }
    }

    /// Takes one line of the input, or what there is of it.
    fn line(&mut self, input: &[u8], consumed: &mut usize) -> Result<Option<ClientEvent>, Violation> {
        let to = self.awaiting().or(self.in_message.then_some(Expect::Message)).ok_or(Violation::Stray)?;
        let rest = &input[*consumed..];
        let end = memchr::memchr(b'\n', rest);
        let part = &rest[..end.unwrap_or(rest.len())];
        if self.line.len() + part.len() >= REPLY_LINE_OCTETS_MAX {
            return Err(Violation::TooLong);
        }
        *consumed += part.len() + usize::from(end.is_some());
        if end.is_none() || !self.line.is_empty() {
            self.line.extend_from_slice(part);
        }
        if end.is_none() {
            return Ok(None);
        }
        let mut kept = std::mem::take(&mut self.line);
        let line = ReplyLine::parse(if kept.is_empty() { part } else { &kept })?;
        if to == Expect::Ehlo {
            self.offered.read_line(self.reader.lines(), line.text);
        }
        let progress = self.reader.take(&line)?;
        kept.clear();
        self.line = kept;
        match progress {
            Progress::Partial => Ok(None),
            Progress::Complete(reply) => self.complete(to, reply, *consumed == input.len()).map(Some),
        }
    }

    /// Settles the account for a whole reply.
    fn complete(
        &mut self,
        to: Expect,
        reply: UpstreamReply,
        input_used: bool,
    ) -> Result<ClientEvent, Violation> {
        if !is_possible(to, reply.code) {
            return Err(Violation::Unexpected(to, reply.code));
        }
        if self.owed.pop_front().is_none() {
            // RFC 5321 knows no reply before the end of data; a refusal is understood, a 250 would be a lie.
            return match reply.code {
                400.. => Ok(ClientEvent::EarlyVerdict(reply)),
                code => Err(Violation::Unexpected(to, code)),
            };
        }
        match to {
            Expect::StartTls if reply.is_positive() && !input_used => {
                return Err(Violation::PlaintextBehindStartTls);
            }
            Expect::Ehlo if reply.is_positive() => self.capabilities = std::mem::take(&mut self.offered),
            Expect::Helo if reply.is_positive() => self.capabilities = Capabilities::default(),
            Expect::Data if reply.is_intermediate() => self.in_message = true,
            _ => {}
        }
        Ok(ClientEvent::Reply { to, reply })
    }

    /// Appends a command of several parts, or nothing where it could not be one line.
    fn command(&mut self, expect: Expect, words: &[&str], out: &mut Vec<u8>) -> Result<(), Unspeakable> {
        self.debug_assert_may_add();
        let octets_max = if expect == Expect::Auth { AUTH_LINE_OCTETS_MAX } else { COMMAND_LINE_OCTETS_MAX };
        let octets: usize = words.iter().map(|word| word.len()).sum();
        // What is not one line would be two commands: the last check before the wire (invariant 2).
        if octets + 2 > octets_max || words.iter().any(|word| word.bytes().any(|o| o.is_ascii_control())) {
            return Err(Unspeakable);
        }
        out.reserve(octets + 2);
        words.iter().for_each(|word| out.extend_from_slice(word.as_bytes()));
        out.extend_from_slice(b"\r\n");
        self.owed.push_back(expect);
        Ok(())
    }

    fn fixed(&mut self, expect: Expect, line: &[u8], out: &mut Vec<u8>) {
        self.debug_assert_may_add();
        out.extend_from_slice(line);
        self.owed.push_back(expect);
    }

    fn debug_assert_may_add(&self) {
        debug_assert!(
            self.may_add() || self.violation.is_some(),
            "a command out of turn behind {:?}",
            self.owed
        );
    }
}

/// Whether a chunk is the last of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// More chunks follow.
    No,
    /// It ends the message.
    Yes,
}

/// Whether a command can have this reply at all (RFC 5321 §4.3.2). A refusal is always possible.
fn is_possible(to: Expect, code: u16) -> bool {
    match (to, code) {
        (_, 400..) | (Expect::Data, 354) | (Expect::Auth, 334) => true,
        (Expect::StartTls, _) => code == 220,
        (Expect::Data, _) => false,
        (_, _) => code / 100 == 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A client that has had its EHLO answered with these keywords.
    fn ready(keywords: &[&str]) -> Client {
        let mut client = Client::new();
        let mut lines = vec![String::from("250-up.example")];
        lines.extend(keywords.iter().map(|keyword| format!("250-{keyword}")));
        let mut replies = format!("220 up.example ESMTP\r\n{}\r\n", lines.join("\r\n"));
        replies.push_str("250 X\r\n");
        let banner = client.step(replies.as_bytes());
        assert!(matches!(banner.event, ClientEvent::Reply { to: Expect::Greeting, .. }));
        client.ehlo("relay.example", &mut vec![]).unwrap();
        let ehlo = client.step(&replies.as_bytes()[banner.consumed..]);
        assert!(matches!(ehlo.event, ClientEvent::Reply { to: Expect::Ehlo, .. }));
        assert!(client.is_quiet());
        client
    }

    /// The events of the input, cut anywhere, as short text.
    fn events(client: &mut Client, parts: &[&[u8]]) -> Vec<String> {
        let mut events = vec![];
        for part in parts {
            let mut rest = *part;
            loop {
                let step = client.step(rest);
                rest = &rest[step.consumed..];
                match step.event {
                    ClientEvent::NeedInput => break,
                    ClientEvent::Reply { to, reply } => {
                        events.push(format!("{to:?} {} {}", reply.code, reply.text));
                    }
                    ClientEvent::EarlyVerdict(reply) => events.push(format!("early {}", reply.code)),
                    ClientEvent::Violation(violation) => {
                        events.push(format!("{violation:?}"));
                        return events;
                    }
                }
            }
        }
        events
    }

    #[test]
    fn a_pipelined_group_is_matched_in_order() {
        let mut client = ready(&["PIPELINING"]);
        let mut out = vec![];
        client.mail("a@x", &MailOptions::default(), &mut out).unwrap();
        client.rcpt("b@y", &RcptOptions::default(), &mut out).unwrap();
        client.rcpt("c@y", &RcptOptions::default(), &mut out).unwrap();
        client.data(&mut out);
        assert_eq!(out, b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nDATA\r\n");
        assert_eq!((client.owed(), client.may_add()), (4, false));
        let got = events(&mut client, &[b"250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n"]);
        assert_eq!(got, ["Mail 250 ok", "Rcpt 250 ok", "Rcpt 550 no", "Data 354 go"]);
        assert!(!client.is_quiet() && !client.may_add(), "the message is open");
        out.clear();
        client.end_of_data(&mut out);
        assert!(client.may_add());
        client.quit(&mut out);
        assert_eq!(out, b".\r\nQUIT\r\n");
        assert_eq!(
            events(&mut client, &[b"250 taken\r\n221 bye\r\n"]),
            ["Message 250 taken", "Quit 221 bye"]
        );
        assert!(client.is_quiet());
    }

    #[test]
    fn chunks_are_answered_one_by_one() {
        let mut client = ready(&["PIPELINING", "CHUNKING"]);
        let mut out = vec![];
        client.bdat(86, Last::No, &mut out);
        client.bdat(0, Last::Yes, &mut out);
        assert_eq!(out, b"BDAT 86\r\nBDAT 0 LAST\r\n");
        assert_eq!(events(&mut client, &[b"250 86\r\n552 big\r\n"]), ["Chunk 250 86", "LastChunk 552 big"]);
    }

    #[test]
    fn without_pipelining_one_command_at_a_time() {
        let mut client = ready(&[]);
        assert!(client.may_add());
        client.mail("", &MailOptions::default(), &mut vec![]).unwrap();
        assert!(!client.may_add());
        events(&mut client, &[b"250 ok\r\n"]);
        assert!(client.may_add());
    }

    #[test]
    fn parameters_are_sent_only_where_offered() {
        let options = MailOptions {
            size: Some(1234),
            eight_bit_mime: true,
            smtputf8: true,
            require_tls: true,
            ret: Some("HDRS"),
            envid: Some("QQ+20314159"),
            auth: Some("<>"),
        };
        let rcpt = RcptOptions { notify: Some("NEVER"), orcpt: Some("rfc822;b@y") };
        let table: &[(&[&str], &str)] = &[
            (&[], "MAIL FROM:<a@x>\r\n"),
            (&["SIZE"], "MAIL FROM:<a@x> SIZE=1234\r\n"),
            (&["8bitmime", "SMTPUTF8"], "MAIL FROM:<a@x> BODY=8BITMIME SMTPUTF8\r\n"),
            (&["REQUIRETLS", "AUTH PLAIN"], "MAIL FROM:<a@x> REQUIRETLS AUTH=<>\r\n"),
            (&["DSN"], "MAIL FROM:<a@x> RET=HDRS ENVID=QQ+20314159\r\n"),
        ];
        for (keywords, expected) in table {
            let mut out = vec![];
            ready(keywords).mail("a@x", &options, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), *expected);
            let mut out = vec![];
            ready(keywords).rcpt("b@y", &rcpt, &mut out).unwrap();
            let dsn = keywords.contains(&"DSN");
            let expected =
                if dsn { "RCPT TO:<b@y> NOTIFY=NEVER ORCPT=rfc822;b@y\r\n" } else { "RCPT TO:<b@y>\r\n" };
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn a_command_is_one_line_or_nothing() {
        let mut client = ready(&["PIPELINING"]);
        let mut out = vec![];
        for sender in
            ["a@x>\r\nRCPT TO:<evil@x", "a\n@x", "a\r@x", "a\0@x", &"a".repeat(COMMAND_LINE_OCTETS_MAX)]
        {
            assert_eq!(client.mail(sender, &MailOptions::default(), &mut out), Err(Unspeakable));
        }
        assert_eq!(client.ehlo("a\r\nb", &mut out), Err(Unspeakable));
        assert!(out.is_empty() && client.is_quiet());
    }

    #[test]
    fn what_nobody_asked_for_breaks_the_connection() {
        for stray in [&b"250 ok\r\n"[..], b"421 closing\r\n", b"2", b"\r\n"] {
            let mut client = ready(&[]);
            assert_eq!(events(&mut client, &[stray]), ["Stray"]);
            assert!(!client.is_quiet());
            assert_eq!(client.step(b"").event, ClientEvent::Violation(Violation::Stray));
        }
        let mut client = ready(&[]);
        client.mail("", &MailOptions::default(), &mut vec![]).unwrap();
        assert_eq!(events(&mut client, &[b"250 ok\r\n250 ok\r\n"]), ["Mail 250 ok", "Stray"]);
    }

    #[test]
    fn codes_that_a_command_cannot_have_break_the_connection() {
        let mut client = ready(&[]);
        client.data(&mut vec![]);
        assert_eq!(events(&mut client, &[b"250 ok\r\n"]), ["Unexpected(Data, 250)"]);
        let mut client = ready(&[]);
        client.mail("", &MailOptions::default(), &mut vec![]).unwrap();
        assert_eq!(events(&mut client, &[b"354 go\r\n"]), ["Unexpected(Mail, 354)"]);
        let mut client = ready(&["STARTTLS"]);
        client.starttls(&mut vec![]);
        assert_eq!(events(&mut client, &[b"250 ok\r\n"]), ["Unexpected(StartTls, 250)"]);
    }

    #[test]
    fn nothing_counts_that_came_before_tls() {
        let mut client = ready(&["STARTTLS", "AUTH PLAIN"]);
        client.starttls(&mut vec![]);
        let injected = b"220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n";
        assert_eq!(events(&mut client, &[injected]), ["PlaintextBehindStartTls"]);
        let mut client = ready(&["STARTTLS", "AUTH PLAIN"]);
        client.starttls(&mut vec![]);
        assert_eq!(events(&mut client, &[b"220 go\r\n"]), ["StartTls 220 go"]);
        client.tls_started();
        assert_eq!(client.capabilities(), &Capabilities::default());
    }

    #[test]
    fn an_early_verdict_is_told_and_only_a_refusal_is_one() {
        for (line, expected) in [("554 too much", "early 554"), ("250 ok", "Unexpected(Message, 250)")] {
            let mut client = ready(&[]);
            client.data(&mut vec![]);
            events(&mut client, &[b"354 go\r\n"]);
            assert_eq!(events(&mut client, &[format!("{line}\r\n").as_bytes()]), [expected]);
            assert!(!client.is_quiet());
        }
    }

    #[test]
    fn endless_lines_and_replies_are_cut_off() {
        let mut client = Client::new();
        assert_eq!(events(&mut client, &[&[b'2'; REPLY_LINE_OCTETS_MAX]]), ["TooLong"]);
        let mut client = Client::new();
        assert_eq!(events(&mut client, &[&b"220-x\r\n".repeat(1_000_000)]), ["TooLong"]);
    }

    #[test]
    fn helo_offers_nothing() {
        let mut client = ready(&["PIPELINING"]);
        client.helo("relay.example", &mut vec![]).unwrap();
        assert_eq!(events(&mut client, &[b"250 up.example\r\n"]), ["Helo 250 up.example"]);
        assert_eq!(client.capabilities(), &Capabilities::default());
    }

    #[test]
    fn auth_goes_in_turns() {
        let mut client = ready(&["AUTH LOGIN"]);
        let mut out = vec![];
        client.auth("LOGIN", None, &mut out).unwrap();
        assert_eq!(events(&mut client, &[b"334 VXNlcm5hbWU6\r\n"]), ["Auth 334 VXNlcm5hbWU6"]);
        client.auth_response("dQ==", &mut out).unwrap();
        assert_eq!(events(&mut client, &[b"235 2.7.0 ok\r\n"]), ["Auth 235 ok"]);
        assert_eq!(out, b"AUTH LOGIN\r\ndQ==\r\n");
    }

    fn replies() -> impl Strategy<Value = Vec<u8>> {
        let line = prop::sample::select(vec![
            "250 ok\r\n",
            "250-a\r\n",
            "250 2.0.0 b\r\n",
            "550 5.1.1 no\r\n",
            "354 go\r\n",
            "250\n",
            "421 4.3.2 x\r\n",
            "251 z\r\n",
            "x",
            "\r\n",
            "25",
            "220-\r\n",
        ]);
        prop::collection::vec(line, 0..8).prop_map(|lines| lines.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_events(input in replies(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let group = || {
                let mut client = ready(&["PIPELINING"]);
                client.mail("a@x", &MailOptions::default(), &mut vec![]).unwrap();
                client.rcpt("b@y", &RcptOptions::default(), &mut vec![]).unwrap();
                client.rcpt("c@y", &RcptOptions::default(), &mut vec![]).unwrap();
                client.data(&mut vec![]);
                client
            };
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
            cuts.sort_unstable();
            let mut start = 0;
            let mut parts: Vec<&[u8]> = vec![];
            for cut in cuts.into_iter().chain([input.len()]) {
                parts.push(&input[start..cut]);
                start = cut;
            }
            prop_assert_eq!(events(&mut group(), &[&input]), events(&mut group(), &parts));
        }
    }
}
