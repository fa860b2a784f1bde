//! Messages that look like ordinary mail and that the receiver can check: each carries its own identifier and the length and
//! CRC32C of its body. They are built once a session and stamped anew for each message, so that making mail costs the
//! generator nothing. No dot-stuffing is needed in what is made here: no line begins with a dot.

use memchr::memmem;

/// The envelope's commands, one segment each in lockstep.
pub const MAIL_FROM: &[u8] = b"MAIL FROM:<sender@example.com>\r\n";
/// The one recipient.
pub const RCPT_TO: &[u8] = b"RCPT TO:<recipient@example.net>\r\n";
/// The command that asks for the message.
pub const DATA: &[u8] = b"DATA\r\n";

/// Octets of a body line with its CRLF.
const LINE_OCTETS: usize = 78;
/// `RRRRRRRR-SSSSSSSS-NNNNNNNN`: run, session, message.
const ID_OCTETS: usize = 26;
const BLANK_ID: &str = "00000000-00000000-00000000";
/// The header field that names a message and describes its body.
const FIELD: &[u8] = b"X-Bench: ";
const WORDS: [&str; 16] = [
    "invoice", "the", "meeting", "on", "Tuesday", "has", "moved", "report", "please", "find", "attached",
    "regards", "order", "number", "shipped", "today",
];

/// How a message goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Content, then the terminator (RFC 5321 §4.1.1.4).
    Data,
    /// MAIL, RCPT, `BDAT n LAST` and the content in one piece (RFC 3030 §2).
    Bdat,
}

/// A message ready to be sent: the wire octets, and where its identifier stands in them.
#[derive(Debug)]
pub struct Mail {
    wire: Vec<u8>,
    id_at: [usize; 2],
}

impl Mail {
    /// Builds a message of exactly `octets` (header section and body, without framing) for session `session` of run `run`.
    ///
    /// # Errors
    /// With the least size possible, where `octets` does not hold the header section and one line.
    pub fn new(octets: usize, run: u32, session: u32, framing: Framing) -> Result<Self, usize> {
        let header_octets = header(0, 0).len();
        let body_octets =
            octets.checked_sub(header_octets).filter(|left| *left >= 2).ok_or(header_octets + 2)?;
        let body = body(body_octets, u64::from(run) << 32 | u64::from(session));
        let mut wire = Vec::with_capacity(octets + 128);
        if framing == Framing::Bdat {
            wire.extend_from_slice(MAIL_FROM);
            wire.extend_from_slice(RCPT_TO);
            wire.extend_from_slice(format!("BDAT {octets} LAST\r\n").as_bytes());
        }
        wire.extend_from_slice(header(body.len(), crc32c::crc32c(&body)).as_bytes());
        let mut found = memmem::find_iter(&wire, BLANK_ID);
        let id_at = [found.next().unwrap_or(0), found.next().unwrap_or(0)];
        wire.extend_from_slice(&body);
        if framing == Framing::Data {
            wire.extend_from_slice(b".\r\n");
        }
        let mut mail = Mail { wire, id_at };
        mail.write_hex(0, run);
        mail.write_hex(9, session);
        Ok(mail)
    }

    /// Gives the message its number within the session.
    pub fn stamp(&mut self, number: u32) {
        self.write_hex(18, number);
    }

    /// Lends the octets out, as a completion-based write needs to own them; `put_back` returns them.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.wire)
    }

    /// Returns what `take` lent.
    pub fn put_back(&mut self, wire: Vec<u8>) {
        self.wire = wire;
    }

    fn write_hex(&mut self, offset: usize, value: u32) {
        let text = format!("{value:08x}");
        for at in self.id_at {
            self.wire[at + offset..at + offset + 8].copy_from_slice(text.as_bytes());
        }
    }
}

/// What is wrong with a message that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its header section lacks the field, or the field is not as it was written.
    Unmarked,
    /// The body is shorter or longer than it was.
    Length,
    /// The body has other octets than it had.
    Content,
}

/// Compares an unstuffed message as it arrived with what its field says; returns its identifier. Fields that relays put on
/// top do not matter.
///
/// # Errors
/// The first fault found.
pub fn check(content: &[u8]) -> Result<[u8; ID_OCTETS], Fault> {
    let header_end = memmem::find(content, b"\r\n\r\n").ok_or(Fault::Unmarked)?;
    let (head, body) = (&content[..header_end + 2], &content[header_end + 4..]);
    let field = memmem::find(head, FIELD).ok_or(Fault::Unmarked)?;
    let text = std::str::from_utf8(&head[field + FIELD.len()..]).map_err(|_| Fault::Unmarked)?;
    let mut parts = text.lines().next().unwrap_or_default().split(' ');
    let mut number = |name: &str, radix| {
        let digits = parts.next().and_then(|part| part.strip_prefix(name)).ok_or(Fault::Unmarked)?;
        u64::from_str_radix(digits, radix).map_err(|_| Fault::Unmarked)
    };
    let octets = number("octets=", 10)?;
    let sum = number("crc32c=", 16)?;
    let id = parts.next().and_then(|part| part.strip_prefix("id=")).ok_or(Fault::Unmarked)?;
    let id = id.as_bytes().try_into().map_err(|_| Fault::Unmarked)?;
    if octets != body.len() as u64 {
        return Err(Fault::Length);
    }
    if sum != u64::from(crc32c::crc32c(body)) {
        return Err(Fault::Content);
    }
    Ok(id)
}

/// The header section with its empty line. The date is a constant, so that two runs send the same octets.
fn header(body_octets: usize, body_sum: u32) -> String {
    format!(
        "Date: Thu, 01 Jan 2026 12:00:00 +0000\r\n\
         Message-ID: <{BLANK_ID}@bench.example.com>\r\n\
         From: \"A. Sender\" <sender@example.com>\r\n\
         To: recipient@example.net\r\n\
         Subject: Your order has been shipped\r\n\
         X-Bench: octets={body_octets:010} crc32c={body_sum:08x} id={BLANK_ID}\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         \r\n"
    )
}

/// `octets` of text in lines of 78 octets, the last one shorter; other text for another `seed`.
fn body(octets: usize, seed: u64) -> Vec<u8> {
    let mut text = Vec::with_capacity(octets);
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    while text.len() < octets {
        let left = octets - text.len();
        // One octet over a full line cannot hold a CRLF of its own: this line is shorter by one, the last is two.
        let line = if left == LINE_OCTETS + 1 { LINE_OCTETS - 1 } else { left.min(LINE_OCTETS) };
        let end = text.len() + line - 2;
        while text.len() < end {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let word = WORDS[(state >> 60) as usize];
            text.extend_from_slice(&word.as_bytes()[..word.len().min(end - text.len())]);
            if text.len() < end {
                text.push(b' ');
            }
        }
        text.extend_from_slice(b"\r\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(octets: usize, session: u32, number: u32) -> Vec<u8> {
        let mut mail = Mail::new(octets, 7, session, Framing::Data).unwrap();
        mail.stamp(number);
        let mut wire = mail.take();
        assert_eq!(wire.split_off(wire.len() - 3), b".\r\n");
        wire
    }

    #[test]
    fn is_exactly_as_large_as_asked() {
        let least = Mail::new(0, 7, 1, Framing::Data).unwrap_err();
        for octets in (least..least + 200).chain([1024, 102_400]) {
            assert_eq!(content(octets, 1, 1).len(), octets);
        }
    }

    #[test]
    fn looks_like_mail_to_a_strict_reader() {
        let text = content(10_000, 3, 9);
        for line in text.split_inclusive(|octet| *octet == b'\n') {
            assert!(line.ends_with(b"\r\n") && line.len() <= LINE_OCTETS && line[0] != b'.');
            assert!(!line[..line.len() - 2].contains(&b'\r'));
        }
    }

    #[test]
    fn tells_its_identifier_below_fields_that_a_relay_added() {
        let text = [b"Received: from a by b; today\r\n".to_vec(), content(1024, 0x2a, 0xbeef)].concat();
        assert_eq!(check(&text).unwrap(), *b"00000007-0000002a-0000beef");
    }

    #[test]
    fn two_sessions_have_different_bodies() {
        let (one, two) = (content(1024, 1, 1), content(1024, 2, 1));
        let at = memmem::find(&one, b"\r\n\r\n").unwrap() + 4;
        assert_ne!(one[at..], two[at..]);
    }

    #[test]
    fn notices_a_changed_octet_and_a_lost_line() {
        let mut text = content(1024, 1, 1);
        text[900] ^= 1;
        assert_eq!(check(&text), Err(Fault::Content));
        assert_eq!(check(&text[..1020]), Err(Fault::Length));
        assert_eq!(check(b"Subject: x\r\n\r\nbody\r\n"), Err(Fault::Unmarked));
    }

    #[test]
    fn a_chunk_announces_its_own_length() {
        let wire = Mail::new(2048, 1, 1, Framing::Bdat).unwrap().take();
        let at = memmem::find(&wire, b"BDAT 2048 LAST\r\n").unwrap() + b"BDAT 2048 LAST\r\n".len();
        assert_eq!(wire.len() - at, 2048);
        assert!(check(&wire[at..]).is_ok());
    }
}
