//! Replies of an upstream: reading them line by line, and what each means for the message.
//!
//! RFC 5321 §4.2: three digits, the same on every line; decisions are made on the code, never on the text. What
//! is kept of the text is bounded and fit to be shown: control characters and what is not UTF-8 are escaped. This
//! module does not know which command a reply belongs to; the machine above it matches them.

use super::{Expect, Violation};
use crate::limits::REPLY_LINES_MAX;
use crate::smtp::reply::{Enhanced, Reply};

/// One whole reply of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamReply {
    /// 200 to 599.
    pub code: u16,
    /// The enhanced code (RFC 2034), where the upstream gave one of the code's own class.
    pub enhanced: Option<Enhanced>,
    /// The text without codes, lines separated by `\n`, fit to be shown; at most [`TEXT_OCTETS_MAX`] octets.
    pub text: Box<str>,
}

impl UpstreamReply {
    /// 2xx.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3xx: 354 for DATA, 334 for AUTH.
    #[must_use]
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// 4xx.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5xx.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// 421: the upstream closes the connection after this (RFC 5321 §3.8).
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.code == 421
    }

    /// What follows from the reply to this command.
    #[must_use]
    pub fn disposition(&self, to: Expect) -> Disposition {
        match (self.code, to) {
            // RFC 4954 §6: it does not know us, or wants us to be known. Never the client's mistake.
            (530 | 534 | 535 | 538, _) | (500..600, Expect::Auth) => Disposition::Misconfigured,
            (..400, _) => Disposition::Done,
            (..500, _) => Disposition::Later,
            // RFC 5321 §4.5.3.1.10: 552 for too many recipients means 452. A full mailbox says so (5.2.2).
            (552, Expect::Rcpt) if self.enhanced.is_none_or(|code| code == TOO_MANY_RECIPIENTS) => {
                Disposition::Later
            }
            (_, Expect::Mail | Expect::Rcpt | Expect::Data) => Disposition::Refused,
            (_, Expect::Message | Expect::Chunk | Expect::LastChunk) => Disposition::Refused,
            _ => Disposition::Unusable,
        }
    }

    /// The reply as it is passed through to the client, the enhanced code kept or made `x.0.0`.
    #[must_use]
    pub fn to_reply(&self) -> Reply {
        let class = u8::try_from(self.code / 100).unwrap_or(4);
        Reply::new(self.code, Some(self.enhanced.unwrap_or(Enhanced(class, 0, 0))), String::from(&*self.text))
    }
}

/// What becomes of what a command was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The command did what it was for.
    Done,
    /// Not now: this sender, recipient or message may be tried again.
    Later,
    /// Never: this sender, recipient or message is refused for good.
    Refused,
    /// The upstream serves nobody here, or not us: another address, or later; says nothing about the message.
    Unusable,
    /// It wants a login, or another one: the operator's to repair. The client hears 451, never this code.
    Misconfigured,
}

/// Assembles one reply from its lines. Ready for the next one after [`Progress::Complete`].
#[derive(Debug, Default)]
pub(super) struct ReplyReader {
    lines: usize,
    code: u16,
    enhanced: Option<Enhanced>,
    text: String,
}

/// What one line did.
#[derive(Debug)]
pub(super) enum Progress {
    /// More lines follow.
    Partial,
    /// This was the last line.
    Complete(UpstreamReply),
}

impl ReplyReader {
    /// Whether no line of a reply was taken yet.
    pub(super) fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Number of lines taken so far.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Takes one parsed line.
    pub(super) fn take(&mut self, line: &ReplyLine<'_>) -> Result<Progress, Violation> {
        if self.lines == REPLY_LINES_MAX {
            return Err(Violation::TooLong);
        }
        // RFC 5321 §4.2.1: the code is the same on each line.
        if self.lines > 0 && line.code != self.code {
            return Err(Violation::MixedCodes);
        }
        self.code = line.code;
        let (enhanced, text) = split_enhanced(line.code, line.text);
        self.enhanced = self.enhanced.or(enhanced);
        if self.lines > 0 {
            push_bounded(&mut self.text, '\n');
        }
        push_shown(&mut self.text, text);
        self.lines += 1;
        if !line.is_last {
            return Ok(Progress::Partial);
        }
        // Nothing of this reply, its enhanced code above all, may live on in the next.
        let done = std::mem::take(self);
        Ok(Progress::Complete(UpstreamReply {
            code: done.code,
            enhanced: done.enhanced,
            text: done.text.into(),
        }))
    }
}

/// A line of a reply by its parts.
#[derive(Debug)]
pub(super) struct ReplyLine<'a> {
    pub(super) code: u16,
    pub(super) is_last: bool,
    pub(super) text: &'a [u8],
}

impl<'a> ReplyLine<'a> {
    /// Reads a line, its LF already cut off. Text may be missing, and so may the CR: a LF alone ends a line for
    /// certain, and replies are counted, so leniency cannot shift them. 1xx and 0xx do not exist in SMTP.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, Violation> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (digits, rest) = line.split_first_chunk::<3>().ok_or(Violation::Malformed)?;
        if !matches!(digits[0], b'2'..=b'5') || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Violation::Malformed);
        }
        let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        match rest.split_first() {
            None => Ok(Self { code, is_last: true, text: rest }),
            Some((b' ', text)) => Ok(Self { code, is_last: true, text }),
            Some((b'-', text)) => Ok(Self { code, is_last: false, text }),
            Some(_) => Err(Violation::Malformed),
        }
    }
}

/// Cuts an enhanced code (RFC 2034 §3) from the front of the text. One of another class is text like any other
/// for deciding, but is cut as well: it would contradict the code it stands behind.
fn split_enhanced(code: u16, text: &[u8]) -> (Option<Enhanced>, &[u8]) {
    let end = text.iter().position(|&octet| octet == b' ').unwrap_or(text.len());
    let Some(enhanced) = parse_enhanced(&text[..end]) else { return (None, text) };
    let rest = text[end..].trim_ascii_start();
    ((u16::from(enhanced.0) == code / 100).then_some(enhanced), rest)
}

fn parse_enhanced(word: &[u8]) -> Option<Enhanced> {
    let mut parts = word.split(|&octet| octet == b'.');
    let mut number = |digits_max: usize| {
        let part = parts.next()?;
        let fine = !part.is_empty() && part.len() <= digits_max && part.iter().all(u8::is_ascii_digit);
        fine.then(|| part.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
    };
    let (class, subject, detail) = (number(1)?, number(3)?, number(3)?);
    let class = u8::try_from(class).ok().filter(|class| matches!(class, 2 | 4 | 5))?;
    parts.next().is_none().then_some(Enhanced(class, subject, detail))
}

/// Appends text from a peer so that it can be shown: what is a control or not UTF-8 as `\xNN`, bidirectional
/// and other invisible format characters as `\u{N}`.
fn push_shown(shown: &mut String, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\0'..='\u{1f}' | '\u{7f}' => push_octet(shown, character as u8),
                '\u{80}'..='\u{9f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}' => {
                    character.escape_unicode().for_each(|c| push_bounded(shown, c));
                }
                _ => push_bounded(shown, character),
            }
        }
        chunk.invalid().iter().for_each(|&octet| push_octet(shown, octet));
    }
}

fn push_octet(shown: &mut String, octet: u8) {
    octet.escape_ascii().for_each(|c| push_bounded(shown, char::from(c)));
}

fn push_bounded(shown: &mut String, character: char) {
    if shown.len() + character.len_utf8() <= TEXT_OCTETS_MAX {
        shown.push(character);
    }
}

/// Octets of an upstream's text that are kept; the rest is cut.
pub const TEXT_OCTETS_MAX: usize = 4096;
const TOO_MANY_RECIPIENTS: Enhanced = Enhanced(5, 5, 3);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&[u8]]) -> Result<UpstreamReply, Violation> {
        let mut reader = ReplyReader::default();
        for line in lines {
            if let Progress::Complete(reply) = reader.take(&ReplyLine::parse(line)?)? {
                assert!(reader.is_empty());
                return Ok(reply);
            }
        }
        Err(Violation::Stray)
    }

    fn one(line: &str) -> UpstreamReply {
        read(&[line.as_bytes()]).unwrap()
    }

    #[test]
    fn reads_replies_as_upstreams_write_them() {
        type Row = (&'static [&'static [u8]], u16, Option<Enhanced>, &'static str);
        let table: &[Row] = &[
            (&[b"250 2.1.0 Sender OK\r"], 250, Some(Enhanced(2, 1, 0)), "Sender OK"),
            (&[b"250"], 250, None, ""),
            (&[b"250 \r"], 250, None, ""),
            (&[b"250-a\r", b"250-\r", b"250 b\r"], 250, None, "a\n\nb"),
            (
                &[b"550-5.7.26 no\r", b"550-5.7.26 DKIM\r", b"550 5.7.26 here\r"],
                550,
                Some(Enhanced(5, 7, 26)),
                "no\nDKIM\nhere",
            ),
            (&[b"354 go ahead"], 354, None, "go ahead"),
            (&[b"550 2.1.5 contradiction"], 550, None, "contradiction"),
            (
                &[b"451 4.7.650 The mail server [1.2.3.4]"],
                451,
                Some(Enhanced(4, 7, 650)),
                "The mail server [1.2.3.4]",
            ),
            (&[b"250 2.0.0.1 not a code"], 250, None, "2.0.0.1 not a code"),
            (&[b"250 2.0.1234 x"], 250, None, "2.0.1234 x"),
            (&[b"250 2.0.0"], 250, Some(Enhanced(2, 0, 0)), ""),
        ];
        for (lines, code, enhanced, text) in table {
            let reply = read(lines).unwrap();
            assert_eq!((reply.code, reply.enhanced, &*reply.text), (*code, *enhanced, *text));
        }
    }

    #[test]
    fn refuses_what_is_no_reply() {
        for line in [
            &b"150 x"[..],
            b"050 x",
            b"650 x",
            b"25",
            b"",
            b"2",
            b"2x0 a",
            b"hello",
            b"250x",
            b"250\t",
            b" 250 x",
            b"\xff50 x",
        ] {
            assert_eq!(read(&[line]), Err(Violation::Malformed), "{}", line.escape_ascii());
        }
        assert_eq!(read(&[b"250-a", b"251 b"]), Err(Violation::MixedCodes));
    }

    #[test]
    fn text_is_bounded_and_fit_to_be_shown() {
        let reply = read(&[b"550 \x1b[2J\xff\t\xe2\x80\xae\xc3\xbc\0"]).unwrap();
        assert_eq!(&*reply.text, "\\x1b[2J\\xff\\t\\u{202e}ü\\x00");
        let long = [b"250-".to_vec(), vec![b'a'; 2000]].concat();
        let lines = [&long[..], &long, &long, b"250 end"];
        assert_eq!(read(&lines).unwrap().text.len(), TEXT_OCTETS_MAX);
        let endless = vec![&b"250-x"[..]; REPLY_LINES_MAX + 1];
        assert_eq!(read(&endless), Err(Violation::TooLong));
    }

    #[test]
    fn passes_a_verdict_through_with_an_enhanced_code() {
        let reply = one("550 5.1.1 unknown").to_reply();
        assert_eq!((reply.code(), reply.enhanced(), reply.text()), (550, Some(Enhanced(5, 1, 1)), "unknown"));
        assert_eq!(one("451 busy").to_reply().enhanced(), Some(Enhanced(4, 0, 0)));
    }

    #[test]
    fn replies_are_judged_by_code_and_command() {
        use Disposition::*;
        let table = [
            ("250 ok", Expect::Message, Done),
            ("354 go", Expect::Data, Done),
            ("334 x", Expect::Auth, Done),
            ("450 4.2.1 busy", Expect::Rcpt, Later),
            ("421 closing", Expect::Mail, Later),
            ("550 5.1.1 unknown", Expect::Rcpt, Refused),
            ("552 too many recipients", Expect::Rcpt, Later),
            ("552 5.5.3 too many recipients", Expect::Rcpt, Later),
            ("552 5.2.2 mailbox full", Expect::Rcpt, Refused),
            ("552 too big", Expect::Message, Refused),
            ("530 5.7.0 login first", Expect::Mail, Misconfigured),
            ("535 5.7.8 wrong", Expect::Auth, Misconfigured),
            ("504 mechanism", Expect::Auth, Misconfigured),
            ("454 4.7.0 later", Expect::Auth, Later),
            ("538 5.7.11 encrypt", Expect::Rcpt, Misconfigured),
            ("554 go away", Expect::Greeting, Unusable),
            ("521 no mail here", Expect::Greeting, Unusable),
            ("502 what", Expect::Ehlo, Unusable),
            ("500 what", Expect::Rset, Unusable),
            ("550 sender", Expect::Mail, Refused),
            ("554 no", Expect::LastChunk, Refused),
        ];
        for (line, to, disposition) in table {
            assert_eq!(one(line).disposition(to), disposition, "{line} to {to:?}");
        }
    }
}
