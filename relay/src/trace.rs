//! The header section as far as a relay must know it, and the trace it adds: `Received:`, `Date:`, `Message-ID:`.
//!
//! Loops are found by counting `Received:` (RFC 5321 §6.3), and what is put before a message must neither run
//! into its first line nor be continued by it. Nothing is ever changed or taken away here (RFC 5321 §4.4), and
//! nothing behind the header section is looked at.
//!
//! What peers said of themselves stands in `Received:` only if it is a domain or an address literal; anything
//! else is replaced, never escaped, because every quoting has a reader that gets it wrong.

mod tls_required;

use std::fmt;
use std::net::IpAddr;

use self::tls_required::TlsRequired;
use crate::limits::{DOMAIN_OCTETS_MAX, HEADER_SECTION_OCTETS_MAX, PATH_OCTETS_MAX};
use crate::smtp::body::Form;
use crate::units::QueueId;

/// How far the header section was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderState {
    /// It goes on.
    More,
    /// It is complete.
    End,
    /// It is longer than [`HEADER_SECTION_OCTETS_MAX`].
    TooLarge,
}

/// Reads the header section of one message, slice by slice, as the scanner of the body puts it out.
///
/// The section ends at an empty line, or where a line is no header line: those behind it are body, with or
/// without an empty line between. A field name may have spaces before its colon (RFC 5322 §4.5.8).
#[derive(Debug, Clone)]
pub struct HeaderScan {
    form: Form,
    at: At,
    state: HeaderState,
    /// Octets seen.
    position: usize,
    /// Octets before the line that is being read.
    octets: usize,
    name: FieldName,
    hops: u32,
    has_date: bool,
    has_message_id: bool,
    has_from: bool,
    has_8bit: bool,
    needs_separator: bool,
    tls_required: TlsRequired,
}

impl HeaderScan {
    /// At the first octet of a message that is put out in this form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            at: At::LineStart,
            state: HeaderState::More,
            position: 0,
            octets: 0,
            name: FieldName::default(),
            hops: 0,
            has_date: false,
            has_message_id: false,
            has_from: false,
            has_8bit: false,
            needs_separator: false,
            tls_required: TlsRequired::default(),
        }
    }

    /// Looks at the next octets of the message. Any cut will do; behind the end, octets are not looked at.
    pub fn scan(&mut self, octets: &[u8]) -> HeaderState {
        let mut rest = octets;
        while let Some(&octet) = rest.first()
            && self.state == HeaderState::More
        {
            let taken = match self.at {
                At::LineStart => self.begin_line(octet),
                At::Unstuffed => self.begin_content(octet),
                At::EmptyLine => self.end(Line::Empty),
                At::Name => self.read_name(rest),
                At::NameSpace => self.read_name_space(octet),
                At::Rest => self.read_rest(rest),
            };
            rest = &rest[taken..];
            self.position += taken;
            if self.position > HEADER_SECTION_OCTETS_MAX && self.state == HeaderState::More {
                self.state = HeaderState::TooLarge;
            }
        }
        self.state
    }

    /// The message is complete; it may be a header section and nothing else.
    pub fn finish(&mut self) -> HeaderState {
        if self.state == HeaderState::More {
            match self.at {
                At::Name | At::NameSpace => self.end(Line::Body),
                At::LineStart | At::Unstuffed | At::EmptyLine | At::Rest => {
                    self.octets = self.position;
                    self.end(Line::Empty)
                }
            };
        }
        self.state
    }

    /// Octets of the header section: its whole lines, without the empty line behind them. The stuffing counts.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Number of `Received:` fields.
    #[must_use]
    pub fn hops(&self) -> u32 {
        self.hops
    }

    /// Whether there is a `Date:`.
    #[must_use]
    pub fn has_date(&self) -> bool {
        self.has_date
    }

    /// Whether there is a `Message-ID:`.
    #[must_use]
    pub fn has_message_id(&self) -> bool {
        self.has_message_id
    }

    /// Whether there is a `From:`.
    #[must_use]
    pub fn has_from(&self) -> bool {
        self.has_from
    }

    /// Whether the sender asks that the TLS policies of the recipients' domains be ignored: `TLS-Required: No`, once
    /// (RFC 8689 §3). More than one such field, or another value, asks for nothing.
    #[must_use]
    pub fn waives_tls(&self) -> bool {
        self.tls_required.is_no()
    }

    /// Whether an octet above 127 stands in the header section: such a message needs SMTPUTF8 (RFC 6532 §3).
    #[must_use]
    pub fn has_8bit(&self) -> bool {
        self.has_8bit
    }

    /// Whether an empty line must stand between what is put before the message and the message: its first line
    /// is neither empty nor a header line, so that it would become one, or continue ours.
    #[must_use]
    pub fn needs_separator(&self) -> bool {
        self.needs_separator
    }

    /// The octet is taken, or left for the state that it leads to.
    fn begin_line(&mut self, octet: u8) -> usize {
        self.octets = self.position;
        match (octet, self.form) {
            (b'.', Form::Stuffed) => {
                self.at = At::Unstuffed;
                1
            }
            (b'\r', _) => {
                self.at = At::EmptyLine;
                1
            }
            _ => self.begin_content(octet),
        }
    }

    fn begin_content(&mut self, octet: u8) -> usize {
        match octet {
            // A folded line, of the field above it.
            b' ' | b'\t' if self.octets > 0 => self.at = At::Rest,
            _ if is_name_octet(octet) => {
                self.name = FieldName::default();
                self.at = At::Name;
            }
            _ => return self.end(Line::Body),
        }
        0
    }

    fn read_name(&mut self, octets: &[u8]) -> usize {
        let length = octets.iter().position(|&octet| !is_name_octet(octet)).unwrap_or(octets.len());
        self.name.extend(&octets[..length]);
        if length < octets.len() {
            self.at = At::NameSpace;
        }
        length
    }

    fn read_name_space(&mut self, octet: u8) -> usize {
        match octet {
            b' ' | b'\t' => {}
            b':' => {
                self.note_field();
                self.at = At::Rest;
            }
            _ => return self.end(Line::Body),
        }
        1
    }

    fn read_rest(&mut self, octets: &[u8]) -> usize {
        let end = memchr::memchr(b'\n', octets);
        let taken = end.map_or(octets.len(), |end| end + 1);
        self.has_8bit |= !octets[..taken].is_ascii();
        self.tls_required.read(&octets[..taken]);
        if end.is_some() {
            self.at = At::LineStart;
        }
        taken
    }

    fn note_field(&mut self) {
        self.tls_required.end();
        match self.name.known() {
            b"received" => self.hops += 1,
            b"date" => self.has_date = true,
            b"message-id" => self.has_message_id = true,
            b"from" => self.has_from = true,
            b"tls-required" => self.tls_required.begin(),
            _ => {}
        }
    }

    /// The section ends before this line.
    fn end(&mut self, line: Line) -> usize {
        self.needs_separator = self.octets == 0 && line == Line::Body;
        self.state = HeaderState::End;
        0
    }
}

/// What a session tells about itself in `Received:`.
#[derive(Debug, Clone, Copy)]
pub struct Trace<'a> {
    /// What the client called itself in EHLO or HELO.
    pub helo: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The client's name in DNS, where it was looked up and confirmed.
    pub client_name: Option<&'a str>,
    /// Our own name, `RELAY_HOST_NAME`.
    pub host_name: &'a str,
    /// How the message came.
    pub with: Protocol,
    /// TLS version and cipher suite, where there was TLS.
    pub tls: Option<(&'a str, &'a str)>,
    /// The message's id.
    pub queue_id: QueueId,
    /// The recipient, where there is exactly one: several would tell one of the others (RFC 5321 §7.2).
    pub only_recipient: Option<&'a str>,
    /// When the message came.
    pub at: LocalTime,
}

/// How a message came, for `with` (RFC 3848, RFC 6531 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protocol {
    /// The client said EHLO.
    pub extended: bool,
    /// It came over TLS.
    pub tls: bool,
    /// The client was authenticated.
    pub authenticated: bool,
    /// The transaction was one with SMTPUTF8.
    pub utf8: bool,
}

impl Protocol {
    /// The registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match (self.extended, self.utf8, self.tls, self.authenticated) {
            (false, ..) => "SMTP",
            (true, false, false, false) => "ESMTP",
            (true, false, false, true) => "ESMTPA",
            (true, false, true, false) => "ESMTPS",
            (true, false, true, true) => "ESMTPSA",
            (true, true, false, false) => "UTF8SMTP",
            (true, true, false, true) => "UTF8SMTPA",
            (true, true, true, false) => "UTF8SMTPS",
            (true, true, true, true) => "UTF8SMTPSA",
        }
    }
}

/// A moment, and the zone it is told in. Printed as RFC 5322 §3.3 wants a date: `Thu, 1 Jan 1970 00:00:00 +0000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// Minutes that the zone is ahead of UTC.
    pub offset_minutes: i16,
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = i64::from(self.offset_minutes);
        let seconds = i64::try_from(self.unix_ms / 1000).unwrap_or(i64::MAX / 2) + offset * 60;
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil_date(days);
        // The epoch was a Thursday.
        let weekday = WEEKDAYS[usize::try_from((days + 4).rem_euclid(7)).unwrap_or(0)];
        let month = MONTHS[usize::try_from(month).unwrap_or(0)];
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let sign = if offset < 0 { '-' } else { '+' };
        let (zone_hours, zone_minutes) = (offset.abs() / 60, offset.abs() % 60);
        write!(
            f,
            "{weekday}, {day} {month} {year:04} {hour:02}:{minute:02}:{second:02} {sign}{zone_hours:02}{zone_minutes:02}"
        )
    }
}

/// Appends our `Received:` (RFC 5321 §4.4), folded as Postfix folds it, with its last CRLF.
pub fn received(trace: &Trace<'_>, out: &mut Vec<u8>) {
    let literal = AddressLiteral(trace.client);
    push(out, "Received: from ");
    match trace.helo {
        helo if is_domain(helo) || is_address_literal(helo) => push(out, helo),
        _ => push_display(out, literal),
    }
    let name = trace.client_name.filter(|name| is_domain(name)).unwrap_or("unknown");
    push_display(out, format_args!(" ({name} {literal})\r\n\t"));
    if let Some((version, cipher)) =
        trace.tls.filter(|(version, cipher)| is_token(version) && is_token(cipher))
    {
        push_display(out, format_args!("(using {version} with cipher {cipher})\r\n\t"));
    }
    let (host, with, id) = (trace.host_name, trace.with.name(), trace.queue_id);
    push_display(out, format_args!("by {host} (ringpost) with {with} id {id}"));
    if let Some(recipient) = trace.only_recipient.filter(|recipient| is_path(recipient, trace.with)) {
        push_display(out, format_args!("\r\n\tfor <{recipient}>"));
    }
    push_display(out, format_args!("; {}\r\n", trace.at));
}

/// Appends `Date:` and `Message-ID:` where the message has none, as a submission server may (RFC 6409 §8.1, §8.2).
pub fn added_headers(
    scan: &HeaderScan,
    queue_id: QueueId,
    host_name: &str,
    at: LocalTime,
    out: &mut Vec<u8>,
) {
    if !scan.has_date() {
        push_display(out, format_args!("Date: {at}\r\n"));
    }
    if !scan.has_message_id() {
        push_display(out, format_args!("Message-ID: <{queue_id}.{}@{host_name}>\r\n", at.unix_ms));
    }
}

/// What the octets so far left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    LineStart,
    /// Behind the stuffing dot of a line.
    Unstuffed,
    /// Behind a CR at the start of a line.
    EmptyLine,
    /// In a field name.
    Name,
    /// Behind a field name, at its colon or at spaces before it.
    NameSpace,
    /// In the value of a field.
    Rest,
}

/// The line that ends a header section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// The empty one, or the end of the message.
    Empty,
    /// One that belongs to the body.
    Body,
}

/// A field name in lower case, as far as it can be one that is looked for.
#[derive(Debug, Clone, Copy, Default)]
struct FieldName {
    octets: [u8; KNOWN_NAME_OCTETS_MAX],
    length: usize,
}

impl FieldName {
    fn extend(&mut self, octets: &[u8]) {
        let known = &mut self.octets[self.length.min(KNOWN_NAME_OCTETS_MAX)..];
        for (slot, octet) in known.iter_mut().zip(octets) {
            *slot = octet.to_ascii_lowercase();
        }
        self.length += octets.len();
    }

    /// The name; nothing for one that is too long to be looked for.
    fn known(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }
}

/// An address as RFC 5321 §4.1.3 writes it.
#[derive(Clone, Copy)]
struct AddressLiteral(IpAddr);

impl fmt::Display for AddressLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_canonical() {
            IpAddr::V4(address) => write!(f, "[{address}]"),
            IpAddr::V6(address) => write!(f, "[IPv6:{address}]"),
        }
    }
}

/// RFC 5322 §2.2: printable ASCII but the colon.
fn is_name_octet(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b':'
}

/// Letters, digits, hyphens, dots; underscores, which many hosts have in their names.
fn is_domain(text: &str) -> bool {
    let fine = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_');
    !text.is_empty() && text.len() <= DOMAIN_OCTETS_MAX && text.bytes().all(fine)
}

fn is_address_literal(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) else { return false };
    match inner.split_at_checked(IPV6_TAG.len()) {
        Some((tag, address)) if tag.eq_ignore_ascii_case(IPV6_TAG) => {
            address.parse::<std::net::Ipv6Addr>().is_ok()
        }
        _ => inner.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

fn is_token(text: &str) -> bool {
    text.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_'))
}

/// Whether a path can stand in a header as it is: it was parsed before, this is the last look.
fn is_path(text: &str, with: Protocol) -> bool {
    let fine = |c: char| matches!(c, ' '..='~') || (with.utf8 && !c.is_ascii() && !c.is_control());
    text.len() <= PATH_OCTETS_MAX && text.chars().all(fine)
}

/// Year, month from 0, and day from 1 of the Gregorian calendar, `days` after the epoch.
///
/// Years are counted from March, so that the day that comes and goes is the last of its year; 400 of them are one
/// period of 146,097 days.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + DAYS_FROM_0000_03_01;
    let (era, day_of_era) = (shifted.div_euclid(DAYS_PER_ERA), shifted.rem_euclid(DAYS_PER_ERA));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + i64::from(month < 2);
    (year, month, day)
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn push_display(out: &mut Vec<u8>, text: impl fmt::Display) {
    use std::io::Write as _;
    // Writing to a vector cannot fail.
    let _ = write!(out, "{text}");
}

/// The longest name looked for, `tls-required`.
const KNOWN_NAME_OCTETS_MAX: usize = 12;
const IPV6_TAG: &str = "IPv6:";
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS_PER_ERA: i64 = 146_097;
const DAYS_FROM_0000_03_01: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{QueueIds, WorkerId};
    use proptest::prelude::*;

    const AT: LocalTime = LocalTime { unix_ms: 1_790_000_000_123, offset_minutes: 0 };

    fn scan(form: Form, parts: &[&[u8]]) -> HeaderScan {
        let mut scan = HeaderScan::new(form);
        parts.iter().for_each(|part| {
            scan.scan(part);
        });
        scan.finish();
        scan
    }

    fn plain(message: &str) -> HeaderScan {
        scan(Form::Plain, &[message.as_bytes()])
    }

    fn facts(scan: &HeaderScan) -> String {
        format!(
            "{:?} octets={} hops={} date={} id={} from={} 8bit={} separator={}",
            scan.state,
            scan.octets,
            scan.hops,
            scan.has_date,
            scan.has_message_id,
            scan.has_from,
            scan.has_8bit,
            scan.needs_separator
        )
    }

    #[test]
    fn counts_received_as_fields_not_as_lines() {
        let message = "Received: from a\r\n\tby b\r\nreceived: c\r\nRECEIVED :d\r\nReceived\t :\r\n Received: folded\r\n\
                       X-Received: no\r\nReceivedX: no\r\nReceive: no\r\n\r\nReceived: body\r\n";
        let scan = plain(message);
        assert_eq!(scan.hops(), 4);
        assert_eq!(scan.octets(), message.find("\r\n\r\n").unwrap() + 2);
    }

    #[test]
    fn notes_which_fields_are_there() {
        let scan = plain("DATE : x\r\nmessage-id:<a>\r\nFrom: b\r\n\r\n");
        assert!(scan.has_date() && scan.has_message_id() && scan.has_from() && !scan.has_8bit());
        let scan = plain("Resent-Date: x\r\nX-From: y\r\nMessage-Id-X: z\r\n\r\nDate: x\r\n");
        assert!(!scan.has_date() && !scan.has_message_id() && !scan.has_from());
    }

    #[test]
    fn tls_is_waived_by_one_field_that_says_no() {
        for header in [
            "TLS-Required: No\r\n",
            "a: b\r\ntls-required : \t nO \r\nc: d\r\n",
            "TLS-Required:\r\n No\r\n",
            "TLS-Required: No\r\n \r\n",
        ] {
            for cut in 0..header.len() {
                let (one, other) = header.as_bytes().split_at(cut);
                assert!(scan(Form::Plain, &[one, other, b"\r\nbody"]).waives_tls(), "{header:?} {cut}");
            }
        }
        for header in [
            "",
            "TLS-Required: \r\n",
            "TLS-Required: N\r\n",
            "TLS-Required: N o\r\n",
            "TLS-Required: No, really\r\n",
            "TLS-Required: No\r\n really\r\n",
            "TLS-Required: Yes\r\n",
            "TLS-Required: No\r\nTLS-Required: No\r\n",
            "TLS-Required: Yes\r\nTLS-Required: No\r\n",
            "X-TLS-Required: No\r\n",
            "TLS-Required-: No\r\n",
            "a: b\r\n\r\nTLS-Required: No\r\n",
        ] {
            assert!(!plain(&format!("{header}\r\nbody")).waives_tls(), "{header:?}");
        }
    }

    #[test]
    fn sees_8bit_octets_of_the_header_section_only() {
        assert!(plain("Subject: é\r\n\r\n").has_8bit());
        assert!(!plain("Subject: e\r\n\r\né\r\n").has_8bit());
        assert!(!plain("Subject: e\r\né: x\r\n").has_8bit());
    }

    #[test]
    fn our_trace_neither_continues_nor_becomes_theirs() {
        let table = [
            (" folded: x\r\n\r\nbody\r\n", true, 0),
            ("\tx\r\n", true, 0),
            ("Hello world\r\n", true, 0),
            ("Hello\r\n", true, 0),
            ("Hello", true, 0),
            (": x\r\n", true, 0),
            ("From x Mon Jan 1 10:00:00\r\nSubject: y\r\n\r\n", true, 0),
            ("é: x\r\n", true, 0),
            ("\r\nbody\r\n", false, 0),
            ("", false, 0),
            ("Subject: x\r\nHello world\r\n", false, 12),
            ("Subject: x\r\n", false, 12),
            ("Subject: x", false, 10),
            ("Subject: x\r\n y\r\n\r\n", false, 16),
        ];
        for (message, separator, octets) in table {
            let scan = plain(message);
            assert_eq!((scan.needs_separator(), scan.octets()), (separator, octets), "{message:?}");
        }
    }

    #[test]
    fn stuffing_does_not_hide_a_field() {
        let stuffed = scan(Form::Stuffed, &[b".Received: x\r\n..Received: y\r\n. folded\r\n\r\n"]);
        assert_eq!(stuffed.hops(), 1);
        assert_eq!(plain(".Received: x\r\n\r\n").hops(), 0);
        assert!(scan(Form::Stuffed, &[b". x: y\r\n"]).needs_separator());
    }

    #[test]
    fn a_header_section_without_end_is_too_large() {
        let line = b"X: y\r\n";
        let mut scan = HeaderScan::new(Form::Plain);
        let lines = HEADER_SECTION_OCTETS_MAX / line.len();
        (0..lines).for_each(|_| assert_eq!(scan.scan(line), HeaderState::More));
        assert_eq!(scan.scan(line), HeaderState::TooLarge);
        assert_eq!(scan.finish(), HeaderState::TooLarge);
        let mut scan = HeaderScan::new(Form::Plain);
        assert_eq!(scan.scan(&vec![b'a'; HEADER_SECTION_OCTETS_MAX + 1]), HeaderState::TooLarge);
    }

    fn trace(with: Protocol) -> Trace<'static> {
        Trace {
            helo: "app.example",
            client: "198.51.100.7".parse().unwrap(),
            client_name: Some("app.example"),
            host_name: "relay.example",
            with,
            tls: with.tls.then_some(("TLSv1.3", "TLS13_AES_256_GCM_SHA384")),
            queue_id: QueueIds::new(1_790_000_000_000, WorkerId(0)).issue(),
            only_recipient: Some("you@example.net"),
            at: AT,
        }
    }

    fn written(trace: &Trace<'_>) -> String {
        let mut out = vec![];
        received(trace, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn received_names_each_protocol() {
        let names = [
            ("SMTP", "-"),
            ("SMTP", "t"),
            ("ESMTP", "e"),
            ("ESMTPA", "ea"),
            ("ESMTPS", "et"),
            ("ESMTPSA", "eta"),
            ("UTF8SMTP", "eu"),
            ("UTF8SMTPA", "eua"),
            ("UTF8SMTPS", "eut"),
            ("UTF8SMTPSA", "euta"),
        ];
        for (name, flags) in names {
            let has = |flag| flags.contains(flag);
            let with =
                Protocol { extended: has('e'), tls: has('t'), authenticated: has('a'), utf8: has('u') };
            let trace = trace(with);
            let using =
                if with.tls { "(using TLSv1.3 with cipher TLS13_AES_256_GCM_SHA384)\r\n\t" } else { "" };
            let id = trace.queue_id;
            assert_eq!(
                written(&trace),
                format!(
                    "Received: from app.example (app.example [198.51.100.7])\r\n\t{using}by relay.example (ringpost) \
                     with {name} id {id}\r\n\tfor <you@example.net>; Mon, 21 Sep 2026 14:13:20 +0000\r\n"
                )
            );
        }
    }

    #[test]
    fn received_tells_no_recipient_of_several() {
        let trace = Trace {
            only_recipient: None,
            client_name: None,
            ..trace(Protocol { extended: true, ..Protocol::default() })
        };
        let id = trace.queue_id;
        assert_eq!(
            written(&trace),
            format!(
                "Received: from app.example (unknown [198.51.100.7])\r\n\tby relay.example (ringpost) with ESMTP id \
                 {id}; Mon, 21 Sep 2026 14:13:20 +0000\r\n"
            )
        );
    }

    #[test]
    fn what_peers_say_cannot_leave_its_place() {
        let long = "a".repeat(DOMAIN_OCTETS_MAX + 1);
        for helo in [
            "x\r\nBcc: y",
            "a(b",
            "a)b",
            "a;b",
            "a\"b",
            "",
            "[1.2.3.4",
            "[IPv6:zz]",
            "[x]",
            "é.example",
            &long,
        ] {
            let evil = Trace {
                helo,
                client_name: Some(helo),
                only_recipient: Some("a@b\r\nBcc: c"),
                ..trace(Protocol::default())
            };
            let text = written(&evil);
            assert!(
                text.starts_with("Received: from [198.51.100.7] (unknown [198.51.100.7])\r\n\tby "),
                "{text}"
            );
            assert!(!text.contains("Bcc") && !text.contains("for <"));
        }
        for helo in ["[192.0.2.1]", "[IPv6:2001:db8::1]", "[ipv6:::1]", "HOST_1", "a.b-c.example"] {
            let text = written(&Trace { helo, ..trace(Protocol::default()) });
            assert!(text.starts_with(&format!("Received: from {helo} (")), "{text}");
        }
        let v6 = Trace { client: "2001:db8::1".parse().unwrap(), helo: "é", ..trace(Protocol::default()) };
        assert!(
            written(&v6).starts_with("Received: from [IPv6:2001:db8::1] (app.example [IPv6:2001:db8::1])")
        );
    }

    #[test]
    fn received_may_hold_a_utf8_recipient_in_a_utf8_transaction_only() {
        let named = |utf8| {
            let with = Protocol { extended: true, utf8, ..Protocol::default() };
            written(&Trace { only_recipient: Some("jörg@bücher.example"), ..trace(with) })
        };
        assert!(named(true).contains("\r\n\tfor <jörg@bücher.example>;"));
        assert!(!named(false).contains("for"));
    }

    #[test]
    fn missing_headers_are_added_and_no_others() {
        let id = trace(Protocol::default()).queue_id;
        let added = |message: &str| {
            let mut out = vec![];
            added_headers(&plain(message), id, "relay.example", AT, &mut out);
            String::from_utf8(out).unwrap()
        };
        let (date, message_id) = (
            "Date: Mon, 21 Sep 2026 14:13:20 +0000\r\n",
            format!("Message-ID: <{id}.1790000000123@relay.example>\r\n"),
        );
        assert_eq!(added("Subject: x\r\n\r\n"), format!("{date}{message_id}"));
        assert_eq!(added("Date: x\r\n\r\n"), message_id);
        assert_eq!(added("Message-Id: x\r\n\r\n"), date);
        assert_eq!(added("message-id: x\r\ndate: y\r\n\r\n"), "");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let table = [
            (0, 0, "Thu, 1 Jan 1970 00:00:00 +0000"),
            (951_782_400, 0, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (951_868_799, 60, "Wed, 1 Mar 2000 00:59:59 +0100"),
            (1_709_164_800, 0, "Thu, 29 Feb 2024 00:00:00 +0000"),
            (4_107_542_400, 0, "Mon, 1 Mar 2100 00:00:00 +0000"),
            (4_107_542_399, 0, "Sun, 28 Feb 2100 23:59:59 +0000"),
            (1_790_000_000, -210, "Mon, 21 Sep 2026 10:43:20 -0330"),
            (1_798_761_599, 0, "Thu, 31 Dec 2026 23:59:59 +0000"),
            (0, -60, "Wed, 31 Dec 1969 23:00:00 -0100"),
            (253_402_300_799, 0, "Fri, 31 Dec 9999 23:59:59 +0000"),
        ];
        for (seconds, offset_minutes, expected) in table {
            assert_eq!(LocalTime { unix_ms: seconds * 1000, offset_minutes }.to_string(), expected);
        }
    }

    #[test]
    fn days_follow_each_other_for_five_centuries() {
        let is_leap = |year| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let (mut year, mut month, mut day) = (1970, 0, 1);
        for days in 0..500 * 366 {
            assert_eq!(civil_date(days), (year, month, day));
            let length = match month {
                1 => 28 + i64::from(is_leap(year)),
                3 | 5 | 8 | 10 => 30,
                _ => 31,
            };
            (day, month) = if day < length { (day + 1, month) } else { (1, month + 1) };
            (month, year) = if month < 12 { (month, year) } else { (0, year + 1) };
        }
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_facts(
            parts in prop::collection::vec(prop::sample::select(vec![
                "Received", "received", "Date", "From", "Message-ID", ":", ": x", " ", "\t", "\r\n", "\r\n", ".", "a", "é", "\r\n\r\n",
            ]), 0..30),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let message = parts.concat().into_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
            cuts.sort_unstable();
            let (mut start, mut slices) = (0, vec![]);
            for cut in cuts.into_iter().chain([message.len()]) {
                slices.push(&message[start..cut]);
                start = cut;
            }
            for form in [Form::Plain, Form::Stuffed] {
                prop_assert_eq!(facts(&scan(form, &[&message])), facts(&scan(form, &slices)));
            }
        }

        #[test]
        fn fields_are_those_of_a_naive_reading(
            lines in prop::collection::vec(prop::sample::select(vec![
                "Received: a", "received : b", " folded", "Date: c", "X: d", "FROM:", "no header", "", "a b: c", "\tReceived: x",
            ]), 0..12),
        ) {
            let message: String = lines.iter().flat_map(|line| [*line, "\r\n"]).collect();
            let is_header = |line: &str| line.split_once(':').is_some_and(|(name, _)| {
                let name = name.trim_end_matches([' ', '\t']);
                !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic())
            });
            let in_section = lines.iter().enumerate().take_while(|(at, line)| {
                is_header(line) || (*at > 0 && line.starts_with([' ', '\t']))
            });
            let section: Vec<_> = in_section.map(|(_, line)| line.to_ascii_lowercase()).collect();
            let scan = plain(&message);
            prop_assert_eq!(scan.octets(), section.iter().map(|line| line.len() + 2).sum::<usize>());
            prop_assert_eq!(scan.hops() as usize, section.iter().filter(|line| line.starts_with("received")).count());
            prop_assert_eq!(scan.has_date(), section.iter().any(|line| line.starts_with("date")));
            prop_assert_eq!(scan.has_from(), section.iter().any(|line| line.starts_with("from")));
        }
    }
}
