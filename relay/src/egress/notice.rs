//! Notices: what the sender is told of a message that failed, is late, or left the world of delivery notices.
//!
//! Built as RFC 3461 §6 and RFC 3464 want them, for internationalized mail as RFC 6533 does: a `multipart/report` of a
//! text for people, fields for programs, and the message or its header section. Pure: what happened, the message and the
//! time go in, an [`Entry`] and its octets come out, to be committed like any other message **before** the failed one is
//! settled.
//!
//! **Who hears.** Nobody of a message with the null sender, of a notice of our own, or under `NOTIFY=NEVER`: a notice
//! never causes a notice (RFC 5321 §6.1, RFC 3461 §6.1). `BOUNCE_TO` decides where the rest goes. How many go is bounded by
//! [`Budget`]: past it a notice waits, and the failed message with it.
//!
//! MIME parts are put together by `lettre`; the fields of a report are none of its business and are written here. What it
//! must not do: read a clock, commit anything, or pass on what a peer said without making it fit for a header.

mod budget;
mod report;
mod text;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use lettre::message::header::{ContentTransferEncoding, ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Body as MimeBody, MultiPart, SinglePart};
use memchr::memmem;

pub use budget::Budget;

use crate::limits::NOTICE_ORIGINAL_OCTETS_MAX;
use crate::smtp::body::Form;
use crate::smtp::reply::Enhanced;
use crate::spool::config::BounceTo;
use crate::spool::entry::{Body, Client, Entry, Origin, Recipient, Ret};
use crate::trace::{HeaderScan, LocalTime};
use crate::units::QueueId;

/// What a notice tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Delivery has failed for good.
    Failed,
    /// Delivery is late and goes on until then, in milliseconds since the Unix epoch.
    Delayed {
        /// When it is given up.
        until_ms: u64,
    },
    /// A next hop that sends no notices has taken the message (RFC 3461 §5.2.2): nothing more will be heard.
    Relayed,
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which of [`Entry::recipients`].
    pub recipient: usize,
    /// The enhanced code: of the upstream's reply, or ours.
    pub status: Enhanced,
    /// What the upstream said, or what went wrong.
    pub diagnostic: Diagnostic,
    /// The host that said it.
    pub remote: Option<String>,
    /// When it was last tried, in milliseconds since the Unix epoch.
    pub tried_ms: Option<u64>,
}

/// In whose words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Diagnostic {
    /// The upstream's reply, code and text: `550 5.1.1 no such user`.
    Smtp(String),
    /// Ours, where no upstream said anything: `delivery timed out`.
    Local(String),
}

/// The message that a notice is about.
#[derive(Debug, Clone, Copy)]
pub struct Original<'a> {
    /// Its id.
    pub id: QueueId,
    /// Its envelope.
    pub entry: &'a Entry,
    /// Its first octets, without dot stuffing: all of them, or at least [`NOTICE_ORIGINAL_OCTETS_MAX`].
    pub octets: &'a [u8],
    /// Whether these are all.
    pub is_whole: bool,
}

/// Who tells, when and where to.
#[derive(Debug, Clone, Copy)]
pub struct Teller<'a> {
    /// `RELAY_HOST_NAME`.
    pub host_name: &'a str,
    /// `BOUNCE_TO`.
    pub bounce_to: &'a BounceTo,
    /// The id that the notice will have.
    pub id: QueueId,
    /// The time.
    pub now: LocalTime,
}

/// A notice, ready to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its envelope: from the null sender.
    pub entry: Entry,
    /// Its octets, without dot stuffing.
    pub octets: Vec<u8>,
}

/// The address that a notice of this event about this recipient goes to; `None`: none is to be sent.
#[must_use]
pub fn addressee<'a>(
    entry: &'a Entry,
    recipient: usize,
    event: Event,
    bounce_to: &'a BounceTo,
) -> Option<&'a str> {
    // RFC 3461 §6.1, RFC 5321 §4.5.5: never to the null sender, never about a notice.
    if entry.sender.is_empty() || entry.origin == Origin::Notice {
        return None;
    }
    let notify = entry.recipients.get(recipient)?.notify;
    let wanted = match event {
        Event::Failed => Recipient::FAILURE,
        Event::Delayed { .. } => Recipient::DELAY,
        Event::Relayed => Recipient::SUCCESS,
    };
    // RFC 3461 §4.1: without NOTIFY, failures are told, and a relay may tell delays.
    let is_wanted = match notify {
        0 => event != Event::Relayed,
        set => set & Recipient::NEVER == 0 && set & wanted != 0,
    };
    match bounce_to {
        BounceTo::Off => None,
        _ if !is_wanted => None,
        BounceTo::Sender => Some(&entry.sender),
        BounceTo::Address(address) => Some(address),
    }
}

/// Builds the notice about those of the outcomes that [`addressee`] knows somebody for; `None` where that is nobody.
#[must_use]
pub fn notice(
    event: Event,
    outcomes: &[Outcome],
    original: &Original<'_>,
    teller: &Teller<'_>,
) -> Option<Notice> {
    let entry = original.entry;
    let goes_to = |outcome: &&Outcome| addressee(entry, outcome.recipient, event, teller.bounce_to);
    let told: Vec<&Outcome> = outcomes.iter().filter(|outcome| goes_to(outcome).is_some()).collect();
    let to = told.first().and_then(goes_to)?;
    let returned = Returned::of(event, &told, original, !to.is_ascii());
    let text = text::text(event, &told, original, teller, &returned);
    let fields = report::fields(event, &told, original, teller, returned.script);
    let is_8bit = returned.encoding == ContentTransferEncoding::EightBit || returned.script == Script::Utf8;
    let octets = assemble(event, to, teller, Parts { text, fields, returned });
    Some(Notice { entry: envelope(to, is_8bit, teller), octets })
}

/// The envelope of a notice: RFC 3461 §6.1 wants the null sender, and no notice about it.
fn envelope(to: &str, is_8bit: bool, teller: &Teller<'_>) -> Entry {
    Entry {
        origin: Origin::Notice,
        sender: String::new(),
        recipients: vec![Recipient { address: to.to_owned(), notify: Recipient::NEVER, orcpt: None }],
        ret: None,
        envid: None,
        auth: None,
        body: if is_8bit { Body::EightBitMime } else { Body::SevenBit },
        smtputf8: !to.is_ascii(),
        requiretls: false,
        waives_tls: false,
        arrival_ms: teller.now.unix_ms,
        client: Client {
            address: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            helo: teller.host_name.to_owned(),
            login: None,
            tls: None,
            listener: "notice".to_owned(),
        },
    }
}

/// How addresses that are not ASCII are written in the report (RFC 6533 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    /// Escaped: who reads the notice may know nothing of internationalized mail.
    Ascii,
    /// As they are: the notice itself is internationalized.
    Utf8,
}

/// How much of the message is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All of it.
    Message,
    /// Its header section.
    Headers,
}

/// The third part of the report.
#[derive(Debug)]
struct Returned<'a> {
    part: Part,
    octets: &'a [u8],
    encoding: ContentTransferEncoding,
    media_type: &'static str,
    script: Script,
}

impl<'a> Returned<'a> {
    fn of(event: Event, told: &[&Outcome], original: &Original<'a>, reader_is_utf8: bool) -> Self {
        let headers = header_section(original.octets);
        let is_failure = event == Event::Failed;
        // The upstream has just refused 8-bit content: a notice that carries it would be refused as well.
        let is_7bit_way = told.iter().any(|outcome| outcome.status == EIGHT_BIT_REFUSED);
        let fits = original.is_whole && original.octets.len() <= NOTICE_ORIGINAL_OCTETS_MAX;
        // RFC 3461 §4.3: RET is about failures; of what is late or relayed the header section is enough.
        let is_message = is_failure
            && fits
            && original.entry.ret != Some(Ret::Headers)
            && (original.octets.is_ascii() || !is_7bit_way);
        let part = if is_message { Part::Message } else { Part::Headers };
        let octets = if is_message { original.octets } else { headers };
        let is_utf8_mail = original.entry.smtputf8 && !headers.is_ascii();
        let script = if reader_is_utf8 { Script::Utf8 } else { Script::Ascii };
        let encoding = match (octets.is_ascii(), script, part) {
            (true, ..) => ContentTransferEncoding::SevenBit,
            (false, Script::Utf8, _) => ContentTransferEncoding::EightBit,
            // RFC 6532 §3.7: only message/global may be encoded as a whole.
            (false, Script::Ascii, Part::Message) if is_utf8_mail => ContentTransferEncoding::Base64,
            (false, Script::Ascii, Part::Message) => ContentTransferEncoding::EightBit,
            // RFC 6522 §4: headers that are not 7-bit may be encoded.
            (false, Script::Ascii, Part::Headers) => ContentTransferEncoding::QuotedPrintable,
        };
        let media_type = match (part, is_utf8_mail) {
            (Part::Message, false) => "message/rfc822",
            (Part::Message, true) => "message/global",
            (Part::Headers, false) => "text/rfc822-headers",
            (Part::Headers, true) => "message/global-headers",
        };
        Self { part, octets, encoding, media_type, script }
    }
}

impl Returned<'_> {
    fn body(self) -> MimeBody {
        let plain = |encoding| MimeBody::dangerous_pre_encoded(self.octets.to_vec(), encoding);
        match self.encoding {
            ContentTransferEncoding::QuotedPrintable | ContentTransferEncoding::Base64 => {
                MimeBody::new_with_encoding(self.octets.to_vec(), self.encoding)
                    .unwrap_or_else(|_| plain(ContentTransferEncoding::EightBit))
            }
            encoding => plain(encoding),
        }
    }
}

/// 5.6.3: conversion required but not supported (RFC 3463 §3.7).
const EIGHT_BIT_REFUSED: Enhanced = Enhanced(5, 6, 3);

/// The header section: whole lines, at most [`NOTICE_ORIGINAL_OCTETS_MAX`].
fn header_section(octets: &[u8]) -> &[u8] {
    let seen = &octets[..octets.len().min(NOTICE_ORIGINAL_OCTETS_MAX)];
    let mut scan = HeaderScan::new(Form::Plain);
    scan.scan(seen);
    scan.finish();
    let section = &seen[..scan.octets().min(seen.len())];
    let whole_lines = memchr::memrchr(b'\n', section).map_or(0, |end| end + 1);
    &section[..whole_lines]
}

struct Parts<'a> {
    text: String,
    fields: String,
    returned: Returned<'a>,
}

fn assemble(event: Event, to: &str, teller: &Teller<'_>, parts: Parts<'_>) -> Vec<u8> {
    let Parts { text, fields, returned } = parts;
    let boundary = boundary(teller.id, &[text.as_bytes(), fields.as_bytes(), returned.octets]);
    let mut whole = MultiPart::builder().build();
    for (name, value) in head(event, to, teller) {
        whole.headers_mut().insert_raw(as_it_is(name, value));
    }
    whole
        .headers_mut()
        .set(media_type(&format!("multipart/report; report-type=delivery-status; boundary=\"{boundary}\"")));
    // RFC 6533 §5: internationalized reports have a type of their own.
    let (text_type, report_type, encoding) = match returned.script {
        Script::Ascii => {
            ("text/plain; charset=us-ascii", "message/delivery-status", ContentTransferEncoding::SevenBit)
        }
        Script::Utf8 => {
            ("text/plain; charset=utf-8", "message/global-delivery-status", ContentTransferEncoding::EightBit)
        }
    };
    let described = match returned.part {
        Part::Message => "Message",
        Part::Headers => "Header section of the message",
    };
    let returned_type = returned.media_type;
    whole
        .singlepart(part("Notice", text_type, MimeBody::dangerous_pre_encoded(text.into_bytes(), encoding)))
        .singlepart(part(
            "Delivery report",
            report_type,
            MimeBody::dangerous_pre_encoded(fields.into_bytes(), encoding),
        ))
        .singlepart(part(described, returned_type, returned.body()))
        .formatted()
}

fn head(event: Event, to: &str, teller: &Teller<'_>) -> [(HeaderName, String); 7] {
    let Teller { host_name, id, now, .. } = teller;
    [
        (HeaderName::new_from_ascii_str("Date"), now.to_string()),
        (HeaderName::new_from_ascii_str("From"), format!("Mail Delivery System <MAILER-DAEMON@{host_name}>")),
        (HeaderName::new_from_ascii_str("To"), format!("<{to}>")),
        (HeaderName::new_from_ascii_str("Subject"), text::subject(event).to_owned()),
        (HeaderName::new_from_ascii_str("Message-ID"), format!("<{id}.notice@{host_name}>")),
        // RFC 3834 §5: no program is to answer.
        (HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-replied".to_owned()),
        (HeaderName::new_from_ascii_str("MIME-Version"), "1.0".to_owned()),
    ]
}

/// A delimiter that none of the parts holds.
fn boundary(id: QueueId, parts: &[&[u8]]) -> String {
    let names = (0u32..).map(|number| format!("=_{id}.{number}"));
    let is_free = |name: &String| parts.iter().all(|part| memmem::find(part, name.as_bytes()).is_none());
    names.into_iter().find(is_free).unwrap_or_default()
}

fn part(description: &'static str, kind: &str, body: MimeBody) -> SinglePart {
    SinglePart::builder().header(Description(description)).content_type(media_type(kind)).body(body)
}

/// `Content-Description` (RFC 2045 §8).
#[derive(Clone)]
struct Description(&'static str);

impl Header for Description {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Content-Description")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Err("descriptions are only written".into())
    }

    fn display(&self) -> HeaderValue {
        as_it_is(Self::name(), self.0.to_owned())
    }
}

/// A header field that needs no encoding: it was made fit here.
fn as_it_is(name: HeaderName, value: String) -> HeaderValue {
    HeaderValue::dangerous_new_pre_encoded(name, value.clone(), value)
}

fn media_type(text: &str) -> ContentType {
    ContentType::parse(text).unwrap_or_else(|_| unreachable!("our own media types are well-formed"))
}
