//! The sink's protocol as a value machine: octets in, replies appended, events out. No socket, clock or counter.
//! Only as strict as a sink must be: commands in order, the one terminator; it accepts every address.

use memchr::memmem::Finder;

/// Octets of a command line with its CRLF; longer ones are answered 500.
const LINE_OCTETS_MAX: usize = 2048;
/// The end of a message (RFC 5321 §4.1.1.4), its first CRLF being the last line's.
const TERMINATOR: &[u8] = b"\r\n.\r\n";
/// The most of a message that is kept for checking; larger ones are counted but not checked.
const KEPT_OCTETS_MAX: usize = 64 << 20;

/// What EHLO offers beside 8BITMIME, SIZE and ENHANCEDSTATUSCODES.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offers {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
}

/// Whether a message's content is kept, to be checked when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Only its length.
    Length,
    /// All of it, as it came over the wire but for the terminator.
    Content,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All input is taken.
    NeedInput,
    /// A message has ended: answer it with [`Receiver::accept`].
    MessageEnd(Message),
    /// The peer said QUIT: write what there is and close.
    Close,
}

/// A message that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its octets on the wire, without terminator and chunk commands.
    pub octets: u64,
    /// Its unstuffed content, where it was kept.
    pub content: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Mail,
    Rcpt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Commands,
    Data,
    Chunk { left: u64, last: bool },
}

/// One connection's state.
#[derive(Debug)]
pub struct Receiver {
    offers: Offers,
    finder: Finder<'static>,
    stage: Stage,
    reading: Reading,
    /// The start of a command line whose end has not come.
    line: Vec<u8>,
    /// The last four octets of the message read so far; as good as CRLF at its start.
    tail: [u8; 4],
    octets: u64,
    keep: Keep,
    kept: Vec<u8>,
}

impl Receiver {
    /// A connection that has just opened; the banner goes to `out`.
    pub fn new(offers: Offers, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(b"220 sink.bench.example ESMTP\r\n");
        Receiver {
            offers,
            finder: Finder::new(TERMINATOR),
            stage: Stage::Idle,
            reading: Reading::Commands,
            line: Vec::new(),
            tail: *b"..\r\n",
            octets: 0,
            keep: Keep::Length,
            kept: Vec::new(),
        }
    }

    /// Says whether the next message's content is kept.
    pub fn keep(&mut self, keep: Keep) {
        self.keep = keep;
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub fn is_inside_message(&self) -> bool {
        self.reading != Reading::Commands || self.octets > 0
    }

    /// Takes octets of `input`, appends replies to `out`; returns how many it took. After an event other than
    /// `NeedInput` the rest is to be given again.
    pub fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Event) {
        let mut taken = 0;
        while taken < input.len() {
            let rest = &input[taken..];
            let (octets, event) = match self.reading {
                Reading::Commands => self.command(rest, out),
                Reading::Data => self.data(rest),
                Reading::Chunk { left, last } => self.chunk(rest, left, last, out),
            };
            taken += octets;
            if event != Event::NeedInput {
                return (taken, event);
            }
        }
        (taken, Event::NeedInput)
    }

    /// Answers a message that has ended with 250.
    pub fn accept(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"250 2.0.0 Ok: taken\r\n");
    }

    fn command(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Event) {
        let Some(end) = memchr::memchr(b'\n', input) else {
            let room = (LINE_OCTETS_MAX + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&input[..input.len().min(room)]);
            return (input.len(), Event::NeedInput);
        };
        let event = if self.line.is_empty() {
            self.obey(&input[..=end], out)
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&input[..=end]);
            let event = self.obey(&line, out);
            line.clear();
            self.line = line;
            event
        };
        (end + 1, event)
    }

    /// Obeys one whole command line.
    fn obey(&mut self, line: &[u8], out: &mut Vec<u8>) -> Event {
        let line = line.trim_ascii_end();
        let is = |verb: &[u8]| line.len() >= verb.len() && line[..verb.len()].eq_ignore_ascii_case(verb);
        let reply: &[u8] = match () {
            () if line.len() > LINE_OCTETS_MAX => b"500 5.5.6 Line too long\r\n",
            () if is(b"EHLO ") => return self.greet(out),
            () if is(b"HELO ") => b"250 sink.bench.example\r\n",
            () if is(b"MAIL FROM:") && self.stage == Stage::Idle => {
                self.stage = Stage::Mail;
                b"250 2.1.0 Ok\r\n"
            }
            () if is(b"RCPT TO:") && self.stage != Stage::Idle => {
                self.stage = Stage::Rcpt;
                b"250 2.1.5 Ok\r\n"
            }
            () if is(b"DATA") && line.len() == 4 && self.stage == Stage::Rcpt && self.octets == 0 => {
                self.reading = Reading::Data;
                self.tail = *b"..\r\n";
                b"354 End data with <CR><LF>.<CR><LF>\r\n"
            }
            () if is(b"BDAT ") && self.stage == Stage::Rcpt && self.offers.chunking => {
                return self.announce(&line[5..], out);
            }
            () if is(b"RSET") => {
                self.forget();
                b"250 2.0.0 Ok\r\n"
            }
            () if is(b"NOOP") => b"250 2.0.0 Ok\r\n",
            () if is(b"QUIT") => {
                out.extend_from_slice(b"221 2.0.0 Bye\r\n");
                return Event::Close;
            }
            () if is(b"MAIL") || is(b"RCPT") || is(b"DATA") || is(b"BDAT") => {
                b"503 5.5.1 Bad sequence of commands\r\n"
            }
            () => b"500 5.5.2 Command not known\r\n",
        };
        out.extend_from_slice(reply);
        Event::NeedInput
    }

    fn greet(&mut self, out: &mut Vec<u8>) -> Event {
        self.forget();
        out.extend_from_slice(b"250-sink.bench.example\r\n");
        if self.offers.pipelining {
            out.extend_from_slice(b"250-PIPELINING\r\n");
        }
        if self.offers.chunking {
            out.extend_from_slice(b"250-CHUNKING\r\n");
        }
        out.extend_from_slice(b"250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 0\r\n");
        Event::NeedInput
    }

    /// `BDAT octets [LAST]` (RFC 3030 §2).
    fn announce(&mut self, arguments: &[u8], out: &mut Vec<u8>) -> Event {
        let mut words = std::str::from_utf8(arguments).unwrap_or_default().split_ascii_whitespace();
        let octets = words.next().and_then(|word| word.parse::<u64>().ok());
        let last = words.next().map(|word| word.eq_ignore_ascii_case("LAST"));
        match (octets, last) {
            (Some(left), None | Some(true)) => {
                let last = last.is_some();
                self.reading = Reading::Chunk { left, last };
                if left == 0 { self.chunk_end(last, out) } else { Event::NeedInput }
            }
            _ => {
                out.extend_from_slice(b"501 5.5.4 BDAT takes a length and perhaps LAST\r\n");
                Event::NeedInput
            }
        }
    }

    fn data(&mut self, input: &[u8]) -> (usize, Event) {
        let end = self.terminator_end(input);
        let taken = end.unwrap_or(input.len());
        self.octets += taken as u64;
        self.store(&input[..taken]);
        if end.is_none() {
            self.remember(input);
            return (taken, Event::NeedInput);
        }
        // `.CRLF` is not content; the CRLF before it is the last line's own.
        self.octets -= 3;
        self.kept.truncate(self.kept.len().saturating_sub(3));
        let mut message = self.end();
        message.content = message.content.map(|stuffed| unstuff(&stuffed));
        (taken, Event::MessageEnd(message))
    }

    /// Where the terminator ends within `input`, which may hold only its last octets.
    fn terminator_end(&self, input: &[u8]) -> Option<usize> {
        let mut seam = [0; 8];
        let ahead = input.len().min(4);
        seam[..4].copy_from_slice(&self.tail);
        seam[4..4 + ahead].copy_from_slice(&input[..ahead]);
        let across = self.finder.find(&seam[..4 + ahead]).map(|at| at + TERMINATOR.len() - 4);
        across.or_else(|| self.finder.find(input).map(|at| at + TERMINATOR.len()))
    }

    fn remember(&mut self, input: &[u8]) {
        let new = input.len().min(4);
        self.tail.copy_within(new.., 0);
        self.tail[4 - new..].copy_from_slice(&input[input.len() - new..]);
    }

    fn chunk(&mut self, input: &[u8], left: u64, last: bool, out: &mut Vec<u8>) -> (usize, Event) {
        let taken = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        let left = left - taken as u64;
        self.octets += taken as u64;
        self.store(&input[..taken]);
        self.reading = Reading::Chunk { left, last };
        (taken, if left == 0 { self.chunk_end(last, out) } else { Event::NeedInput })
    }

    fn chunk_end(&mut self, last: bool, out: &mut Vec<u8>) -> Event {
        if last {
            return Event::MessageEnd(self.end());
        }
        self.reading = Reading::Commands;
        out.extend_from_slice(b"250 2.0.0 Ok: chunk taken\r\n");
        Event::NeedInput
    }

    fn store(&mut self, octets: &[u8]) {
        if self.keep == Keep::Content && self.kept.len() + octets.len() <= KEPT_OCTETS_MAX {
            self.kept.extend_from_slice(octets);
        }
    }

    fn end(&mut self) -> Message {
        let octets = self.octets;
        let whole = self.keep == Keep::Content && self.kept.len() as u64 == octets;
        let content = whole.then(|| std::mem::take(&mut self.kept));
        self.forget();
        Message { octets, content }
    }

    /// Every way out of a transaction goes through here.
    fn forget(&mut self) {
        self.stage = Stage::Idle;
        self.reading = Reading::Commands;
        self.octets = 0;
        self.kept.clear();
    }
}

/// Takes the dot off each line that begins with one (RFC 5321 §4.5.2).
fn unstuff(stuffed: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(stuffed.len());
    for line in stuffed.split_inclusive(|octet| *octet == b'\n') {
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERS: Offers = Offers { pipelining: true, chunking: true };

    /// Feeds `wire` in pieces of `piece` octets; returns the replies' codes and the messages.
    fn converse(wire: &[u8], piece: usize) -> (Vec<String>, Vec<Message>) {
        let (mut out, mut messages) = (Vec::new(), Vec::new());
        let mut receiver = Receiver::new(OFFERS, &mut out);
        receiver.keep(Keep::Content);
        for part in wire.chunks(piece) {
            let mut rest = part;
            while !rest.is_empty() {
                let (taken, event) = receiver.step(rest, &mut out);
                rest = &rest[taken..];
                if let Event::MessageEnd(message) = event {
                    receiver.accept(&mut out);
                    messages.push(message);
                }
            }
        }
        let text = String::from_utf8(out).unwrap();
        let last_lines = text.lines().filter(|line| line.as_bytes()[3] == b' ');
        (last_lines.map(|line| line[..3].to_owned()).collect(), messages)
    }

    fn contents(wire: &[u8], piece: usize) -> Vec<Vec<u8>> {
        converse(wire, piece).1.into_iter().map(|message| message.content.unwrap()).collect()
    }

    #[test]
    fn takes_data_and_chunks_however_they_are_cut() {
        let wire =
            b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nA: b\r\n\r\n..dot\r\n.\n.x\r\n.\r\n\
            MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 5\r\nab\r\n.BDAT 2 LAST\r\n\r\nQUIT\r\n";
        for piece in 1..=wire.len() {
            assert_eq!(
                contents(wire, piece),
                [&b"A: b\r\n\r\n.dot\r\n\nx\r\n"[..], b"ab\r\n.\r\n"],
                "{piece}"
            );
            let codes = converse(wire, piece).0.join(" ");
            assert_eq!(codes, "220 250 250 250 354 250 250 250 250 250 221", "{piece}");
        }
    }

    #[test]
    fn an_empty_message_ends_at_once() {
        let wire =
            b"MAIL FROM:<>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<c@d>\r\nBDAT 0 LAST\r\n";
        for piece in 1..=wire.len() {
            let messages = converse(wire, piece).1;
            assert_eq!(messages.iter().map(|message| message.octets).collect::<Vec<_>>(), [0, 0], "{piece}");
        }
    }

    #[test]
    fn nothing_but_the_terminator_ends_data() {
        let wire = b"MAIL FROM:<>\r\nRCPT TO:<c@d>\r\nDATA\r\n\n.\n\r\n.\n\n.\r\n\r.\r\r\n..\r\n\r\n.\r\n";
        for piece in 1..=wire.len() {
            assert_eq!(converse(wire, piece).1.len(), 1, "{piece}");
        }
    }

    #[test]
    fn wants_commands_in_order() {
        let codes = converse(
            b"RCPT TO:<a@b>\r\nDATA\r\nBDAT 3 LAST\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\nHUH\r\n",
            7,
        )
        .0;
        assert_eq!(codes.join(" "), "220 503 503 503 250 503 500");
    }

    #[test]
    fn a_line_without_end_is_not_kept_whole() {
        let mut out = Vec::new();
        let mut receiver = Receiver::new(OFFERS, &mut out);
        receiver.step(&vec![b'a'; 1 << 20], &mut out);
        assert!(receiver.line.len() <= LINE_OCTETS_MAX + 1);
        receiver.step(b"\r\n", &mut out);
        assert!(out.ends_with(b"500 5.5.6 Line too long\r\n"));
    }
}
