//! The message on standard input, made fit for SMTP: CRLF at each line, the author named, blind copies' field gone.

use super::addresses;

/// Who sends.
#[derive(Debug, Clone)]
pub(super) struct Author {
    /// The sender's address; empty for the null sender.
    pub(super) address: String,
    /// The full name; may be empty.
    pub(super) name: String,
}

/// A message, ready to be sent but for the dots.
#[derive(Debug)]
pub(super) struct Message {
    /// Its octets, each line with its CRLF.
    pub(super) octets: Vec<u8>,
    /// The fields that name recipients: lower-case name and value, unfolded.
    named: Vec<(String, String)>,
}

impl Message {
    /// Reads a message. `dot_ends`: a line with a dot alone ends it.
    pub(super) fn read(input: &[u8], dot_ends: bool, author: &Author) -> Self {
        let mut lines = Lines { rest: input, dot_ends }.peekable();
        // What a mailbox file puts before each message.
        lines.next_if(|line| line.starts_with(b"From "));
        let mut message = Self { octets: Vec::with_capacity(input.len() + 256), named: Vec::new() };
        let mut has_from = false;
        while let Some(line) = lines.next_if(|line| name_of(line).is_some()) {
            let name = name_of(line).unwrap_or_default();
            let mut field = vec![line];
            while let Some(folded) = lines.next_if(|line| matches!(line.first(), Some(b' ' | b'\t'))) {
                field.push(folded);
            }
            has_from |= name == "from";
            message.field(&name, &field);
        }
        if !has_from {
            message.name_author(author);
        }
        // The empty line, also where a body begins without one.
        lines.next_if(|line| line.is_empty());
        message.line(b"");
        lines.for_each(|line| message.line(line));
        message
    }

    /// The recipients that the header names (RFC 5322 §3.6.3, §3.6.6); those of a resent message come alone.
    ///
    /// # Errors
    /// The name of the field that cannot be read.
    pub(super) fn recipients(&self) -> Result<Vec<String>, &str> {
        let is_resent = self.named.iter().any(|(name, _)| name.starts_with("resent-"));
        let mut found = Vec::new();
        for (name, value) in &self.named {
            if name.starts_with("resent-") == is_resent {
                found.extend(addresses::of_field(value).ok_or(name.as_str())?);
            }
        }
        Ok(found)
    }

    fn field(&mut self, name: &str, lines: &[&[u8]]) {
        if matches!(name, "to" | "cc" | "bcc" | "resent-to" | "resent-cc" | "resent-bcc") {
            let whole = lines.join(&b' ');
            let text = String::from_utf8_lossy(&whole);
            let value = text.split_once(':').map_or("", |(_, value)| value);
            self.named.push((name.to_owned(), value.to_owned()));
        }
        // Blind copies stay blind; the return path is the last host's to write (RFC 5321 §4.4).
        if !matches!(name, "bcc" | "resent-bcc" | "return-path") {
            lines.iter().for_each(|line| self.line(line));
        }
    }

    fn name_author(&mut self, author: &Author) {
        let address = if author.address.is_empty() { "MAILER-DAEMON" } else { &author.address };
        let field = match phrase(&author.name) {
            name if name.is_empty() => format!("From: {address}"),
            name => format!("From: {name} <{address}>"),
        };
        self.line(field.as_bytes());
    }

    fn line(&mut self, line: &[u8]) {
        self.octets.extend_from_slice(line);
        self.octets.extend_from_slice(b"\r\n");
    }
}

/// A display name as a header may hold it: quoted where it must be, an encoded word where it is not ASCII (RFC 2047).
fn phrase(name: &str) -> String {
    let name: String = name.chars().filter(|character| !character.is_control()).collect();
    let is_atoms =
        name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b" !#$%&'*+-/=?^_`{|}~".contains(&octet));
    if is_atoms {
        return name;
    }
    if name.is_ascii() {
        return format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    }
    let encoded: String = name.bytes().map(|octet| format!("={octet:02X}")).collect();
    format!("=?utf-8?Q?{encoded}?=")
}

/// The lower-case name of the field that a line begins; `None`: it begins none.
fn name_of(line: &[u8]) -> Option<String> {
    let colon = memchr::memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(|octet| (33..=126).contains(octet));
    is_name.then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

/// Lines that end with LF or CRLF, without their ends.
struct Lines<'a> {
    rest: &'a [u8],
    dot_ends: bool,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.rest);
        let (line, rest) = match end {
            Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
            None => (self.rest, &b""[..]),
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.dot_ends && line == b"." {
            self.rest = b"";
            return None;
        }
        self.rest = rest;
        Some(line)
    }
}
