//! One SMTP transaction with the local relay, blocking: all recipients or none.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::options::Dsn;
use super::{EX_DATAERR, EX_TEMPFAIL};
use crate::cli::EX_UNAVAILABLE;
use crate::limits::{REPLY_LINE_OCTETS_MAX, REPLY_LINES_MAX, UPSTREAM_VERDICT_TIMEOUT};

/// From whom, to whom.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    /// What this host calls itself.
    pub(super) host: &'a str,
    /// The reverse-path without brackets.
    pub(super) sender: &'a str,
    /// The forward-paths without brackets; never empty.
    pub(super) recipients: &'a [String],
    pub(super) dsn: &'a Dsn,
}

/// Why the relay does not have the message.
#[derive(Debug)]
pub(super) enum Failure {
    /// It cannot be reached, or breaks off.
    Io(SocketAddr, io::Error),
    /// What it said, and about what.
    Refused(About, Reply),
    /// An address that no SMTP command can hold.
    Address(String),
}

/// What a reply was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Service,
    Recipient,
    Content,
}

/// A whole reply.
#[derive(Debug)]
pub(super) struct Reply {
    code: u16,
    lines: Vec<String>,
}

impl Failure {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Io(..) => EX_TEMPFAIL,
            Self::Refused(_, reply) if reply.code < 500 => EX_TEMPFAIL,
            Self::Refused(About::Service, _) => EX_UNAVAILABLE,
            Self::Refused(About::Recipient, _) => EX_NOUSER,
            Self::Refused(About::Content, _) => EX_DATAERR,
            Self::Address(_) => EX_DATAERR,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(address, error) => write!(f, "the relay at {address}: {error}"),
            Self::Refused(_, reply) => {
                write!(f, "the relay says: {} {}", reply.code, reply.lines.join(" / "))
            }
            Self::Address(address) => write!(f, "{address:?} is no address"),
        }
    }
}

/// Hands a message to the relay; `Ok` is its 250.
pub(super) fn send(address: SocketAddr, envelope: &Envelope<'_>, octets: &[u8]) -> Result<(), Failure> {
    for path in envelope.recipients.iter().map(String::as_str).chain([envelope.sender]) {
        if path.chars().any(|character| character.is_control() || matches!(character, '<' | '>')) {
            return Err(Failure::Address(path.to_owned()));
        }
    }
    let mut dialog = Dialog::open(address)?;
    dialog.expect(2, About::Service)?;
    let offered = dialog.say(&format!("EHLO {}", helo(envelope.host)), 2, About::Service)?;
    let offers = |name: &str| {
        let mut words = offered.lines.iter().filter_map(|line| line.split(' ').next());
        words.any(|word| word.eq_ignore_ascii_case(name))
    };
    dialog.say(&mail(envelope, octets, &offers), 2, About::Service)?;
    let notify = envelope.dsn.notify.as_ref().filter(|_| offers("DSN"));
    let notify = notify.map_or(String::new(), |notify| format!(" NOTIFY={notify}"));
    for recipient in envelope.recipients {
        dialog.say(&format!("RCPT TO:<{recipient}>{notify}"), 2, About::Recipient)?;
    }
    dialog.say("DATA", 3, About::Content)?;
    dialog.write(&stuffed(octets))?;
    dialog.expect(2, About::Content)?;
    // It has the message: whatever comes of QUIT changes nothing.
    let _ = dialog.write(b"QUIT\r\n");
    Ok(())
}

fn mail(envelope: &Envelope<'_>, octets: &[u8], offers: &impl Fn(&str) -> bool) -> String {
    let mut line = format!("MAIL FROM:<{}>", envelope.sender);
    let is_utf8_path = !envelope.sender.is_ascii() || !envelope.recipients.iter().all(|one| one.is_ascii());
    if offers("SIZE") {
        line += &format!(" SIZE={}", octets.len());
    }
    if offers("8BITMIME") && !octets.is_ascii() {
        line += " BODY=8BITMIME";
    }
    if offers("SMTPUTF8") && is_utf8_path {
        line += " SMTPUTF8";
    }
    if offers("DSN") {
        if let Some(ret) = envelope.dsn.ret {
            line += &format!(" RET={ret}");
        }
        if let Some(envid) = &envelope.dsn.envid {
            line += &format!(" ENVID={}", xtext(envid));
        }
    }
    line
}

/// RFC 3461 §4.
fn xtext(text: &str) -> String {
    let mut out = String::new();
    for octet in text.bytes() {
        match octet {
            b'+' | b'=' | ..=32 | 127.. => out += &format!("+{octet:02X}"),
            octet => out.push(char::from(octet)),
        }
    }
    out
}

/// What is said in EHLO: the host's name where that can be one (RFC 5321 §4.1.1.1).
fn helo(host: &str) -> &str {
    let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b));
    if is_name { host } else { "[127.0.0.1]" }
}

/// RFC 5321 §4.5.2, with the end of data. The octets are whole lines.
fn stuffed(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 64 + 5);
    for line in octets.split_inclusive(|&octet| octet == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}

struct Dialog {
    address: SocketAddr,
    reader: BufReader<TcpStream>,
}

impl Dialog {
    fn open(address: SocketAddr) -> Result<Self, Failure> {
        let open = || {
            let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
            stream.set_read_timeout(Some(UPSTREAM_VERDICT_TIMEOUT))?;
            stream.set_write_timeout(Some(UPSTREAM_VERDICT_TIMEOUT))?;
            Ok(stream)
        };
        let stream = open().map_err(|error| Failure::Io(address, error))?;
        Ok(Self { address, reader: BufReader::new(stream) })
    }

    fn say(&mut self, line: &str, class: u16, about: About) -> Result<Reply, Failure> {
        self.write(format!("{line}\r\n").as_bytes())?;
        self.expect(class, about)
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), Failure> {
        self.reader.get_mut().write_all(octets).map_err(|error| Failure::Io(self.address, error))
    }

    fn expect(&mut self, class: u16, about: About) -> Result<Reply, Failure> {
        let reply = self.reply().map_err(|error| Failure::Io(self.address, error))?;
        if reply.code / 100 == class { Ok(reply) } else { Err(Failure::Refused(about, reply)) }
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "this is no SMTP reply");
        let mut lines = Vec::new();
        while lines.len() < REPLY_LINES_MAX {
            let mut line = Vec::new();
            let mut limited = io::Read::take(&mut self.reader, REPLY_LINE_OCTETS_MAX as u64);
            if limited.read_until(b'\n', &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            let code = line.get(..3).and_then(|code| code.parse().ok()).ok_or_else(wrong)?;
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, lines });
            }
        }
        Err(wrong())
    }
}

/// Carries a session between standard input and output and the relay, until the relay ends it.
pub(super) fn pump(address: SocketAddr) -> io::Result<()> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    let mut to_relay = stream.try_clone()?;
    // The thread ends with the process: standard input may never end.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut to_relay);
        let _ = to_relay.shutdown(Shutdown::Write);
    });
    let mut from_relay = stream;
    let mut out = io::stdout().lock();
    let mut buffer = [0; 4096];
    loop {
        match io::Read::read(&mut from_relay, &mut buffer)? {
            0 => return Ok(()),
            count => {
                out.write_all(&buffer[..count])?;
                out.flush()?;
            }
        }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const EX_NOUSER: u8 = 67;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_stuffed_and_data_ends() {
        assert_eq!(stuffed(b"a\r\n.\r\n..b\r\n"), b"a\r\n..\r\n...b\r\n.\r\n");
        assert_eq!(stuffed(b""), b".\r\n");
    }

    #[test]
    fn an_envelope_id_becomes_xtext() {
        assert_eq!(xtext("a+b=c d"), "a+2Bb+3Dc+20d");
    }
}
