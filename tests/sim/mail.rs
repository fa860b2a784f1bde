//! Messages: what the client means, how it goes on the wire, and what must arrive.

use ringpost_tests::message;

use crate::dice::Dice;

/// One message of one client, sent once. Its key stands in every address but the null sender.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) key: u64,
    pub(crate) sender: String,
    pub(crate) recipients: Vec<String>,
    pub(crate) content: Vec<u8>,
    pub(crate) framing: Framing,
    pub(crate) flaw: Option<Flaw>,
    pub(crate) parameters: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Data,
    Chunks,
}

/// Why the relay itself must refuse a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    Nul,
    TooBig,
    Loops,
}

/// `MESSAGE_SIZE_MAX` of every scene.
pub(crate) const SIZE_MAX: usize = 60_000;
/// `HOPS_MAX` of every scene.
pub(crate) const HOPS_MAX: usize = 5;

impl Mail {
    pub(crate) fn roll(key: u64, dice: &Dice) -> Self {
        let flaw = dice.happens(40).then(|| dice.pick(&[Flaw::Nul, Flaw::TooBig, Flaw::Loops]));
        let content = content(key, flaw, dice);
        let words = ["ok", "ok", "ok", "ok", "r550", "r450", "r452", "r552", "r530", "r421"];
        let name = |number| {
            format!("{}.{key}.{number}@up.test", dice.pick(&words[..if dice.happens(300) { 10 } else { 4 }]))
        };
        let count = if dice.happens(30) { 130 } else { 1 + dice.below(4) };
        Self {
            key,
            sender: if dice.happens(100) { String::new() } else { format!("from.{key}@client.test") },
            recipients: (0..count).map(name).collect(),
            framing: dice.pick(&[Framing::Data, Framing::Data, Framing::Chunks]),
            parameters: match dice.below(4) {
                0 => format!(" SIZE={}", content.len()),
                1 => " BODY=8BITMIME".to_owned(),
                _ => String::new(),
            },
            content,
            flaw,
        }
    }

    /// The stretches that the client sends after 354 (or instead of it, for chunks). The last one ends the message.
    pub(crate) fn stretches(&self, dice: &Dice) -> Vec<Vec<u8>> {
        match self.framing {
            Framing::Data => {
                let mut wire = stuffed(&self.content);
                if !ends_line(&wire) {
                    wire.extend_from_slice(b"\r\n");
                }
                wire.extend_from_slice(b".\r\n");
                cut(&wire, dice)
            }
            Framing::Chunks => {
                let mut chunks = cut(&self.content, dice);
                if chunks.is_empty() || dice.happens(300) {
                    chunks.push(Vec::new());
                }
                let last = chunks.len() - 1;
                let chunk = |(at, octets): (usize, Vec<u8>)| {
                    let word = if at == last { " LAST" } else { "" };
                    [format!("BDAT {}{word}\r\n", octets.len()).into_bytes(), octets].concat()
                };
                chunks.into_iter().enumerate().map(chunk).collect()
            }
        }
    }

    /// Whether what arrived is this message behind the relay's own header fields, and nothing else.
    pub(crate) fn is_what_arrived(&self, arrived: &[u8]) -> bool {
        let mut wanted = self.content.clone();
        if self.framing == Framing::Data && !ends_line(&wanted) {
            wanted.extend_from_slice(b"\r\n");
        }
        let wanted = normalized(&wanted);
        let with_end = [&wanted[..], b"\r\n"].concat();
        let is_open = !wanted.ends_with(b"\r\n");
        is_behind_trace(arrived, &wanted) || is_open && is_behind_trace(arrived, &with_end)
    }

    pub(crate) fn has_8bit(&self) -> bool {
        !self.content.is_ascii()
    }
}

/// A message without a header section gets an empty line behind the relay's fields.
fn is_behind_trace(arrived: &[u8], wanted: &[u8]) -> bool {
    let is_trace = |added: &[u8]| {
        message::fields(added).is_some_and(|fields| {
            let names: Vec<_> = fields.iter().filter_map(|field| Some(field.split_once(':')?.0)).collect();
            names.first() == Some(&"Received")
                && names[1..].iter().all(|name| ["Date", "Message-ID"].contains(name))
        })
    };
    let Some(added) = arrived.strip_suffix(wanted) else { return false };
    is_trace(added) || added.strip_suffix(b"\r\n").is_some_and(is_trace)
}

/// RFC 5321 §2.3.8 as `BARE_NEWLINE=normalize` has it: a CR or LF alone becomes CRLF.
fn normalized(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    for (at, &octet) in content.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| content[before]);
        let after = content.get(at + 1).copied();
        match octet {
            b'\n' if before != Some(b'\r') => out.extend_from_slice(b"\r\n"),
            b'\r' if after != Some(b'\n') => out.extend_from_slice(b"\r\n"),
            _ => out.push(octet),
        }
    }
    out
}

/// RFC 5321 §4.5.2: a line begins after CRLF and after nothing else.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 16);
    for (at, &octet) in content.iter().enumerate() {
        if octet == b'.' && (at == 0 || content[..at].ends_with(b"\r\n")) {
            out.push(b'.');
        }
        out.push(octet);
    }
    out
}

fn ends_line(octets: &[u8]) -> bool {
    octets.is_empty() || octets.ends_with(b"\r\n")
}

/// One to eight stretches.
fn cut(octets: &[u8], dice: &Dice) -> Vec<Vec<u8>> {
    let most = octets.len().div_ceil(if dice.happens(500) { 1 } else { 8 }).max(1);
    octets.chunks(most).map(<[u8]>::to_vec).collect()
}

fn content(key: u64, flaw: Option<Flaw>, dice: &Dice) -> Vec<u8> {
    let mut content = Vec::new();
    if flaw == Some(Flaw::Loops) {
        content.extend_from_slice("Received: from a by b; now\r\n".repeat(HOPS_MAX + 1).as_bytes());
    }
    match dice.below(10) {
        0 if flaw.is_none() => {}
        1 if flaw.is_none() => return Vec::new(),
        2 => content.extend_from_slice(format!("Subject: {key}\r\n\r\n").as_bytes()),
        _ => content.extend_from_slice(
            format!("Date: Fri, 21 Nov 2025 10:00:00 +0000\r\nMessage-ID: <{key}@client.test>\r\nSubject: {key}\r\n\r\n")
                .as_bytes(),
        ),
    }
    let lines = if dice.happens(80) { 300 } else { dice.below(12) };
    for _ in 0..lines {
        content.extend_from_slice(dice.pick(LINES).as_bytes());
    }
    match flaw {
        Some(Flaw::Nul) => content.extend_from_slice(b"a NUL: \0\r\n"),
        Some(Flaw::TooBig) => content.extend_from_slice("big\r\n".repeat(SIZE_MAX / 5 + 1).as_bytes()),
        Some(Flaw::Loops) | None => {}
    }
    content.extend_from_slice(
        dice.pick(&["the end\r\n", "the end\r\n", "no end of line", "a CR\r", ".\r\n"]).as_bytes(),
    );
    content
}

const LINES: &[&str] = &[
    "an ordinary line of text\r\n",
    "another ordinary line, which is not quite as short as the one before it, but who counts\r\n",
    "\r\n",
    ".\r\n",
    "..\r\n",
    ".x\r\n",
    "a bare LF\nand on\r\n",
    "a bare CR\rand on\r\n",
    "x\n.\ny\r\n",
    "x\r.\ry\r\n",
    "x\n.\r\n",
    "x\r\r\n",
    "MAIL FROM:<evil@x>\r\n",
    "RCPT TO:<evil@x>\r\nDATA\r\n",
    "caf\u{e9}\r\n",
    concat!(
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\r\n"
    ),
];
