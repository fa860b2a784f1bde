//! Every reply the relay ever says: one table, from which `docs/REPLIES.md` is written.
//!
//! No reply text stands anywhere else in the tree. A fixed reply carries its octets ready to send; a reply made at
//! run time ([`Reply::new`]) is cleaned when it is made, so that nothing a peer said can break a line or reach a
//! terminal (RFC 5321 §4.2: text is printable ASCII). This module knows no state: *when* a reply is due is the
//! business of [`super::server`] and of its driver.

use std::borrow::Cow;
use std::fmt;

use crate::limits;

/// An enhanced status code (RFC 3463 §2): class, subject, detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Enhanced(pub u8, pub u16, pub u16);

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// One reply: a code, an enhanced code, and text of one or more lines. Text holds printable ASCII and `\n` only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    text: Cow<'static, str>,
    /// The octets on the wire, where they are known when the program is built; else empty.
    wire: &'static str,
}

impl Reply {
    /// A reply made at run time, for instance from an upstream's. The text is cleaned: what is neither printable
    /// ASCII nor `\n` becomes `?`, and text past [`TEXT_OCTETS_MAX`] is cut. An enhanced code whose class is not
    /// that of the code is dropped (RFC 2034 §4). A code outside 200..=599 becomes 451, the safe one.
    #[must_use]
    pub fn new(code: u16, enhanced: Option<Enhanced>, text: impl Into<Cow<'static, str>>) -> Self {
        let code = if (200..600).contains(&code) { code } else { 451 };
        let enhanced = enhanced.filter(|e| u16::from(e.0) == code / 100 && code / 100 != 3);
        Self { code, enhanced, text: cleaned(text.into()), wire: "" }
    }

    /// The three-digit code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced code, where there is one.
    #[must_use]
    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// The text, lines separated by `\n`.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// 2xx.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 4xx: the client may try again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5xx: the client must not try again.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, "{enhanced} ")?;
        }
        f.write_str(&self.text)
    }
}

/// Replies on their way to one client. The driver sends what is in it and clears it.
#[derive(Debug, Default)]
pub struct ReplyBuf {
    octets: Vec<u8>,
}

impl ReplyBuf {
    /// An empty buffer; nothing is allocated before the first reply.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a reply. It never fails: who writes many replies asks [`Self::is_full`] between them.
    pub fn push(&mut self, reply: &Reply) {
        if reply.wire.is_empty() {
            self.render(reply);
        } else {
            self.octets.extend_from_slice(reply.wire.as_bytes());
        }
    }

    /// What is to be sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets
    }

    /// Everything was sent.
    pub fn clear(&mut self) {
        self.octets.clear();
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Octets to be sent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// Whether it must be sent before the client may cause another reply (invariant 4).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.octets.len() >= limits::REPLY_BUFFER_OCTETS_MAX
    }

    /// Takes the octets out, for a driver whose write owns its buffer.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.octets)
    }

    /// Gives a buffer back after [`Self::take`], so that its memory is used again. Its content is dropped.
    pub fn give_back(&mut self, mut octets: Vec<u8>) {
        if self.octets.is_empty() {
            octets.clear();
            self.octets = octets;
        }
    }

    fn render(&mut self, reply: &Reply) {
        let mut lines = reply.text.split('\n').flat_map(pieces_of_line).peekable();
        while let Some(line) = lines.next() {
            push_digits(&mut self.octets, reply.code);
            // RFC 5321 §4.2.1: every line but the last has a hyphen after the code.
            self.octets.push(if lines.peek().is_some() { b'-' } else { b' ' });
            if let Some(Enhanced(class, subject, detail)) = reply.enhanced {
                push_digits(&mut self.octets, u16::from(class));
                self.octets.push(b'.');
                push_digits(&mut self.octets, subject);
                self.octets.push(b'.');
                push_digits(&mut self.octets, detail);
                self.octets.push(b' ');
            }
            self.octets.extend_from_slice(line.as_bytes());
            self.octets.extend_from_slice(b"\r\n");
        }
    }
}

/// `220` at the start of a session (RFC 5321 §4.2); banners carry no enhanced code (RFC 2034 §4).
#[must_use]
pub fn banner(host_name: &str) -> Reply {
    Reply::new(220, None, format!("{host_name} ESMTP ringpost"))
}

/// `250` that ends a message somebody holds safely; only a [`super::server::Proof`] may say it.
#[must_use]
pub fn queued_as(id: &str) -> Reply {
    Reply::new(250, Some(Enhanced(2, 0, 0)), format!("Ok: queued as {id}"))
}

/// `docs/REPLIES.md`: the whole table as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Replies\n\nEvery reply that ringpost itself says, written from the source. An upstream's own verdict is \
         passed through beside these.\n\n| reply | when |\n| --- | --- |\n",
    );
    let made = [
        (banner("NAME"), "Greeting, NAME being `RELAY_HOST_NAME`."),
        (queued_as("ID"), "The message is held safely, by the upstream or by the spool."),
    ];
    for (reply, when) in &made {
        page.push_str(&format!("| `{reply}` | {when} |\n"));
    }
    for row in TABLE {
        page.push_str(&format!("| `{}` | {} |\n", row.reply, row.when.trim()));
    }
    page.push_str("| `250 NAME` | HELO; the last lines of EHLO name the extensions offered. |\n");
    page
}

/// A fixed reply and when it is said.
struct Row {
    reply: &'static Reply,
    when: &'static str,
}

/// Octets of text kept in one reply. 20 lines of the longest kind; an upstream's longer sermon is cut.
pub const TEXT_OCTETS_MAX: usize = 4096;

/// Octets of text on one line: RFC 5321 §4.5.3.1.5 bounds the line, code and CRLF included, to 512.
const LINE_TEXT_OCTETS_MAX: usize = 480;

// A full buffer takes at least a few more replies, and the longest reply fits a buffer.
const _: () = assert!(TEXT_OCTETS_MAX * 2 <= limits::REPLY_BUFFER_OCTETS_MAX);

fn cleaned(text: Cow<'static, str>) -> Cow<'static, str> {
    let fine = |c: char| matches!(c, ' '..='~' | '\n');
    if text.len() <= TEXT_OCTETS_MAX && text.chars().all(fine) {
        return text;
    }
    let clean = text.chars().take(TEXT_OCTETS_MAX).map(|c| if fine(c) { c } else { '?' });
    Cow::Owned(clean.collect())
}

/// A line of text as stretches that fit one line on the wire. Text is ASCII, so that any cut is legal.
fn pieces_of_line(line: &str) -> impl Iterator<Item = &str> {
    let count = line.len().div_ceil(LINE_TEXT_OCTETS_MAX).max(1);
    (0..count).map(move |n| {
        let start = n * LINE_TEXT_OCTETS_MAX;
        &line[start..line.len().min(start + LINE_TEXT_OCTETS_MAX)]
    })
}

/// Decimal digits, without the formatting machinery: this is on the way of every reply made at run time.
fn push_digits(octets: &mut Vec<u8>, number: u16) {
    let mut divisor = 10_000;
    while divisor > 1 && number / divisor == 0 {
        divisor /= 10;
    }
    while divisor > 0 {
        octets.push(b'0' + u8::try_from(number / divisor % 10).unwrap_or(0));
        divisor /= 10;
    }
}

macro_rules! enhanced {
    () => {
        None
    };
    ($class:literal, $subject:literal, $detail:literal) => {
        Some(Enhanced($class, $subject, $detail))
    };
}

/// The table. Each row becomes a public constant with its octets, and a line of the reference.
macro_rules! replies {
    ($($(#[doc = $when:literal])+ $name:ident = $code:literal ($($c:literal, $s:literal, $d:literal)?) $text:literal;)+) => {
        $(
            $(#[doc = $when])+
            pub const $name: Reply = Reply {
                code: $code,
                enhanced: enhanced!($($c, $s, $d)?),
                text: Cow::Borrowed($text),
                wire: concat!($code, " ", $($c, ".", $s, ".", $d, " ",)? $text, "\r\n"),
            };
        )+

        static TABLE: &[Row] = &[$(Row { reply: &$name, when: concat!($($when),+) }),+];
    };
}

replies! {
    /// NOOP, RSET and each BDAT chunk but the last.
    OK = 250 (2, 0, 0) "Ok";
    /// MAIL: the sender is taken.
    SENDER_OK = 250 (2, 1, 0) "Ok";
    /// RCPT: the recipient is taken.
    RECIPIENT_OK = 250 (2, 1, 5) "Ok";
    /// DATA: the message may come.
    START_MAIL_INPUT = 354 () "End data with <CR><LF>.<CR><LF>";
    /// QUIT.
    BYE = 221 (2, 0, 0) "Bye";
    /// VRFY: nothing is told about users (RFC 5321 §3.5.3).
    CANNOT_VERIFY = 252 (2, 5, 0) "Cannot verify, but will take mail for relaying";
    /// HELP.
    HELP = 214 (2, 0, 0) "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS AUTH QUIT";
    /// STARTTLS: the handshake may begin.
    READY_FOR_TLS = 220 (2, 0, 0) "Ready to start TLS";
    /// AUTH: the client is to send its next (or only) response; also asks AUTH PLAIN for its one.
    AUTH_CONTINUE = 334 () "";
    /// AUTH LOGIN asks for the user name (`Username:` in base64).
    AUTH_USERNAME = 334 () "VXNlcm5hbWU6";
    /// AUTH LOGIN asks for the password (`Password:` in base64).
    AUTH_PASSWORD = 334 () "UGFzc3dvcmQ6";
    /// AUTH: the login is right.
    AUTHENTICATED = 235 (2, 7, 0) "Authentication successful";

    /// The daemon stops; nothing was lost, the client may come again.
    SHUTTING_DOWN = 421 (4, 3, 2) "Service shutting down, try again later";
    /// `COMMAND_TIMEOUT`, `DATA_TIMEOUT` or `SESSION_MIN_RATE` was missed.
    TIMEOUT = 421 (4, 4, 2) "Timeout, closing connection";
    /// `SESSIONS_MAX` sessions are open.
    TOO_MANY_SESSIONS = 421 (4, 7, 0) "Too many sessions, try again later";
    /// `SESSIONS_PER_CLIENT_MAX` sessions of this address are open.
    TOO_MANY_SESSIONS_FROM_CLIENT = 421 (4, 7, 0) "Too many sessions from your address, try again later";
    /// Too many wrong or useless commands in one session.
    TOO_MANY_ERRORS = 421 (4, 7, 0) "Too many errors, closing connection";

    /// A message would not fit `QUEUE_BYTES_MAX` or the disk.
    STORAGE_FULL = 452 (4, 3, 1) "Insufficient system storage";
    /// A write to the spool failed, or something else went wrong on this side.
    LOCAL_ERROR = 451 (4, 3, 0) "Local error in processing, try again later";
    /// The upstream refuses our login (its 530, 535 or 538): our misconfiguration, not the client's.
    UPSTREAM_MISCONFIGURED = 451 (4, 3, 5) "Upstream refuses this relay's configuration, try again later";
    /// No upstream can be reached.
    UPSTREAM_UNREACHABLE = 451 (4, 4, 1) "Upstream not reachable, try again later";
    /// Every connection to the upstream was busy for too long (`UPSTREAM_CONNECTIONS`).
    UPSTREAM_BUSY = 451 (4, 3, 2) "Upstream busy, try again later";
    /// `UPSTREAM_RATE` is used up, and nothing is queued (`DELIVERY_PATIENCE=forever`).
    UPSTREAM_RATE_REACHED = 451 (4, 3, 2) "Upstream rate reached, try again later";
    /// `QUEUE_LIFETIME` is over: said in logs and notices, never to a client.
    EXPIRED = 554 (5, 4, 7) "Delivery time expired";
    /// The recipient's domain takes no mail: its MX is null (RFC 7505 §4).
    NULL_MX = 556 (5, 1, 10) "Recipient's domain takes no mail";
    /// The message needs SMTPUTF8, and the upstream does not offer it (RFC 6531 §3.5).
    SMTPUTF8_NOT_SUPPORTED = 550 (5, 6, 7) "Message needs SMTPUTF8, which the upstream does not offer";
    /// The upstream was lost, or spoke nonsense, before its verdict on the message.
    UPSTREAM_LOST = 451 (4, 4, 2) "Upstream connection lost, try again later";
    /// More than `RECIPIENTS_MAX` recipients; those before it stay (RFC 5321 §4.5.3.1.10).
    TOO_MANY_RECIPIENTS = 452 (4, 5, 3) "Too many recipients";
    /// The client sends faster than `CLIENT_RATE`.
    CLIENT_TOO_FAST = 450 (4, 7, 1) "Too many messages from your address, try again later";
    /// RCPT from an address outside `ACCEPTED_NETWORKS`.
    RELAY_DENIED = 454 (4, 7, 1) "Relay access denied";
    /// STARTTLS: TLS is not to be had now.
    TLS_UNAVAILABLE = 454 (4, 7, 0) "TLS not available, try again later";
    /// AUTH: the password could not be checked.
    AUTH_UNAVAILABLE = 454 (4, 7, 0) "Temporary authentication failure";

    /// A command that nobody knows.
    UNKNOWN_COMMAND = 500 (5, 5, 2) "Command not recognized";
    /// A command that is empty or not UTF-8, or holds a control character, a bare CR or a bare LF.
    MALFORMED_COMMAND = 500 (5, 5, 2) "Malformed command line";
    /// A command or AUTH line past its bound.
    LINE_TOO_LONG = 500 (5, 5, 6) "Line too long";
    /// A command whose arguments do not fit its syntax.
    SYNTAX_ERROR = 501 (5, 5, 4) "Syntax error in arguments";
    /// A parameter of MAIL or RCPT that is given twice or has a bad value.
    BAD_PARAMETER = 501 (5, 5, 4) "Bad or repeated parameter";
    /// RCPT: not an address.
    BAD_RECIPIENT = 501 (5, 1, 3) "Bad recipient address syntax";
    /// MAIL: not an address.
    BAD_SENDER = 501 (5, 1, 7) "Bad sender address syntax";
    /// BDAT whose size cannot be read: the connection is closed, since what follows cannot be told from commands.
    BAD_CHUNK_SIZE = 501 (5, 5, 4) "Bad chunk size, closing connection";
    /// `BDAT 0` without LAST.
    EMPTY_CHUNK = 501 (5, 5, 4) "Empty chunk";
    /// AUTH: not base64, or not what the mechanism prescribes.
    AUTH_MALFORMED = 501 (5, 5, 2) "Cannot decode authentication response";
    /// AUTH: the client cancelled with `*`.
    AUTH_CANCELLED = 501 (5, 7, 0) "Authentication cancelled";
    /// EXPN, ETRN, TURN, XCLIENT and their like.
    NOT_IMPLEMENTED = 502 (5, 5, 1) "Command not implemented";
    /// A verb of HTTP: the connection is closed.
    NOT_HTTP = 502 (5, 5, 2) "This is a mail server, closing connection";
    /// A command before EHLO or HELO.
    HELLO_FIRST = 503 (5, 5, 1) "Send EHLO first";
    /// MAIL within a transaction.
    NESTED_MAIL = 503 (5, 5, 1) "Nested MAIL command";
    /// RCPT, DATA or BDAT without MAIL.
    MAIL_FIRST = 503 (5, 5, 1) "Need MAIL command";
    /// A command that may not come between the chunks of a message, DATA above all (RFC 3030 §2).
    CHUNKS_EXPECTED = 503 (5, 5, 1) "BDAT expected";
    /// BDAT that follows a failed one.
    CHUNKS_FAILED = 503 (5, 5, 1) "An earlier chunk failed, send RSET";
    /// STARTTLS where it is not offered, for instance under TLS.
    TLS_NOT_OFFERED = 503 (5, 5, 1) "STARTTLS not available";
    /// STARTTLS or AUTH within a transaction.
    IN_TRANSACTION = 503 (5, 5, 1) "Not allowed during a mail transaction";
    /// AUTH where it is not offered.
    AUTH_NOT_OFFERED = 503 (5, 5, 1) "Authentication not enabled";
    /// AUTH by who is logged in already.
    AUTH_TWICE = 503 (5, 5, 1) "Already authenticated";
    /// AUTH with a mechanism that is not offered.
    UNKNOWN_MECHANISM = 504 (5, 5, 4) "Authentication mechanism not supported";
    /// Submission: everything but EHLO, HELO, NOOP, RSET, QUIT and STARTTLS, before TLS.
    TLS_FIRST = 530 (5, 7, 0) "Must issue a STARTTLS command first";
    /// Submission: MAIL before AUTH.
    AUTH_FIRST = 530 (5, 7, 0) "Authentication required";
    /// AUTH: the mechanism is too weak for this login.
    MECHANISM_TOO_WEAK = 534 (5, 7, 9) "Authentication mechanism is too weak";
    /// AUTH: wrong login or wrong password; which of them is not told.
    AUTH_FAILED = 535 (5, 7, 8) "Authentication credentials invalid";
    /// AUTH outside TLS.
    AUTH_NEEDS_TLS = 538 (5, 7, 11) "Encryption required for authentication";
    /// `DENIED_SENDERS`, or not in `ALLOWED_SENDERS`.
    SENDER_DENIED = 550 (5, 7, 1) "Sender address rejected";
    /// A sender that is none of those of the user who has logged in, by `INCOMING_SMTP_SENDERS`.
    SENDER_OF_OTHERS = 553 (5, 7, 1) "Sender address not allowed for this user";
    /// `DENIED_RECIPIENTS`, or not in `ALLOWED_RECIPIENTS`.
    RECIPIENT_DENIED = 550 (5, 7, 1) "Recipient address rejected";
    /// A bare CR or LF in a message under `BARE_NEWLINE=reject`.
    BARE_NEWLINE = 550 (5, 6, 11) "Message holds a bare CR or LF";
    /// A NUL in a message.
    NUL_IN_MESSAGE = 550 (5, 6, 0) "Message holds a NUL";
    /// 8-bit content to an upstream without 8BITMIME, under `EIGHTBIT=bounce`.
    EIGHTBIT_NOT_SUPPORTED = 550 (5, 6, 3) "Message needs 8BITMIME, which the upstream does not offer";
    /// The message, or its declared SIZE, is over `MESSAGE_SIZE_MAX`.
    MESSAGE_TOO_BIG = 552 (5, 3, 4) "Message size exceeds the limit";
    /// The header section does not end within its bound.
    HEADER_TOO_BIG = 552 (5, 3, 4) "Message header section too large";
    /// An address with UTF-8 where the transaction, or the upstream, has no SMTPUTF8.
    UTF8_ADDRESS = 553 (5, 6, 7) "Address needs SMTPUTF8";
    /// The client spoke before the greeting.
    EARLY_TALKER = 554 (5, 5, 0) "SMTP protocol synchronization error";
    /// More than `HOPS_MAX` `Received:` lines.
    TOO_MANY_HOPS = 554 (5, 4, 6) "Too many hops";
    /// DATA or BDAT after every recipient was refused.
    NO_RECIPIENTS = 554 (5, 5, 1) "No valid recipients";
    /// A parameter of MAIL or RCPT that was not offered.
    UNKNOWN_PARAMETER = 555 (5, 5, 4) "Unsupported parameter";
    /// REQUIRETLS, and the upstream cannot give it (RFC 8689 §5).
    REQUIRETLS_NOT_SUPPORTED = 550 (5, 7, 30) "REQUIRETLS support required";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = ReplyBuf::new();
        out.push(reply);
        String::from_utf8(out.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn fixed_octets_are_what_rendering_would_make() {
        for row in TABLE {
            let made = Reply::new(row.reply.code, row.reply.enhanced, row.reply.text.clone());
            assert_eq!(wire(row.reply), wire(&made));
        }
    }

    #[test]
    fn every_reply_has_the_enhanced_code_of_its_class() {
        for Row { reply, .. } in TABLE {
            let bare = matches!(reply.code / 100, 3);
            assert_eq!(reply.enhanced.is_none(), bare, "{reply}");
            if let Some(enhanced) = reply.enhanced {
                assert_eq!(u16::from(enhanced.0), reply.code / 100, "{reply}");
            }
        }
    }

    #[test]
    fn the_contract_replies_are_to_the_letter() {
        assert_eq!(wire(&RELAY_DENIED), "454 4.7.1 Relay access denied\r\n");
        assert_eq!(wire(&TLS_FIRST), "530 5.7.0 Must issue a STARTTLS command first\r\n");
        assert_eq!(wire(&AUTH_FIRST), "530 5.7.0 Authentication required\r\n");
        assert_eq!(wire(&queued_as("4Bx")), "250 2.0.0 Ok: queued as 4Bx\r\n");
        assert_eq!(wire(&banner("mx.example")), "220 mx.example ESMTP ringpost\r\n");
    }

    #[test]
    fn a_foreign_text_cannot_break_a_line() {
        let reply = Reply::new(550, Some(Enhanced(5, 1, 1)), "no\r\n250 yes\x1b[2J\u{202e}");
        assert_eq!(wire(&reply), "550-5.1.1 no?\r\n550 5.1.1 250 yes?[2J?\r\n");
    }

    #[test]
    fn long_text_is_wrapped_and_cut() {
        let rendered = wire(&Reply::new(451, Some(Enhanced(4, 0, 0)), "x".repeat(10_000)));
        assert!(rendered.split_inclusive("\r\n").all(|line| line.len() <= 512));
        assert_eq!(rendered.matches('x').count(), TEXT_OCTETS_MAX);
        assert_eq!(rendered.lines().filter(|line| line.starts_with("451 ")).count(), 1);
    }

    #[test]
    fn a_foreign_class_or_code_is_not_believed() {
        assert_eq!(Reply::new(550, Some(Enhanced(4, 1, 1)), "no").enhanced(), None);
        assert_eq!(Reply::new(99, None, "no").code(), 451);
    }

    #[test]
    fn the_reference_lists_every_row_once() {
        let page = reference();
        for row in TABLE {
            assert!(page.contains(&format!("| `{}` | ", row.reply)));
        }
    }
}
