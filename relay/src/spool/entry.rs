//! What the spool keeps of a message besides its body: the envelope as it was accepted, and the state of its delivery.
//!
//! Plain values with a versioned form on disk. The envelope never changes; the state is written anew after each attempt and
//! whenever an operator interferes, and the last one counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::wire::{Sink, Source, put_optional, put_text};

/// The envelope of a message and what is known of its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who made it.
    pub origin: Origin,
    /// The reverse-path without brackets; empty for the null sender.
    pub sender: String,
    /// The accepted recipients, in order.
    pub recipients: Vec<Recipient>,
    /// `RET` (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// `ENVID`, in xtext (RFC 3461 §4.4).
    pub envid: Option<String>,
    /// `AUTH=` of MAIL, in xtext (RFC 4954 §5).
    pub auth: Option<String>,
    /// `BODY` (RFC 6152, RFC 3030).
    pub body: Body,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
    /// `REQUIRETLS` (RFC 8689).
    pub requiretls: bool,
    /// `TLS-Required: No` in the header section (RFC 8689 §3).
    pub waives_tls: bool,
    /// When it was accepted, in milliseconds since the Unix epoch.
    pub arrival_ms: u64,
    /// Who handed it in.
    pub client: Client,
}

/// One recipient as it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recipient {
    /// The forward-path without brackets.
    pub address: String,
    /// `NOTIFY` (RFC 3461 §4.1): a set of the bits below; 0 where the client gave none.
    pub notify: u8,
    /// `ORCPT`, as it was given (RFC 3461 §4.2).
    pub orcpt: Option<String>,
}

impl Recipient {
    /// `NOTIFY=NEVER`.
    pub const NEVER: u8 = 1;
    /// `NOTIFY=SUCCESS`.
    pub const SUCCESS: u8 = 2;
    /// `NOTIFY=FAILURE`.
    pub const FAILURE: u8 = 4;
    /// `NOTIFY=DELAY`.
    pub const DELAY: u8 = 8;
}

/// Who made a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client handed it in.
    Client,
    /// It is a notice of our own: it never causes another.
    Notice,
}

/// `RET` (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// The whole message is to be returned.
    Full,
    /// Only its headers are.
    Headers,
}

/// The declared kind of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// `7BIT`, or nothing was said.
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
    /// `BINARYMIME`.
    BinaryMime,
}

/// What is known of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// What it called itself.
    pub helo: String,
    /// Whom it authenticated as.
    pub login: Option<String>,
    /// The TLS version and cipher suite it used.
    pub tls: Option<String>,
    /// The listener it came through.
    pub listener: String,
}

/// How far delivery has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Attempts so far.
    pub attempts: u32,
    /// When the next attempt is due, in milliseconds since the Unix epoch.
    pub due_ms: u64,
    /// Whether an operator has stopped delivery.
    pub held: bool,
    /// Whether the sender was told of the delay.
    pub delay_told: bool,
    /// Where each recipient stands, in the order of [`Entry::recipients`]; one that is missing is pending.
    pub recipients: Vec<Standing>,
    /// The last attempts, oldest first; at most [`HISTORY_MAX`].
    pub history: Vec<Attempt>,
}

/// Where a recipient stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// To be delivered.
    #[default]
    Pending,
    /// An upstream has it.
    Delivered,
    /// Refused for good; the notice is not durable yet.
    Failed,
    /// Returned to the sender, or dropped where no notice is due.
    Returned,
    /// An upstream has it that sends no notices, and the sender asked for one; the notice is not durable yet.
    Relayed,
}

/// One attempt, as far as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempt {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Which recipient it is about; `None`: all that were pending.
    pub recipient: Option<u32>,
    /// The upstream.
    pub upstream: String,
    /// Its reply, or what went wrong; cut to [`REPLY_OCTETS_MAX`].
    pub reply: String,
}

/// Attempts that a state remembers.
pub const HISTORY_MAX: usize = 16;
/// Octets of a reply that a state remembers.
pub const REPLY_OCTETS_MAX: usize = 512;

impl State {
    /// Where one recipient stands.
    #[must_use]
    pub fn standing(&self, recipient: usize) -> Standing {
        self.recipients.get(recipient).copied().unwrap_or_default()
    }

    /// Says where one recipient stands from now on.
    pub fn set_standing(&mut self, recipient: usize, standing: Standing) {
        if self.recipients.len() <= recipient {
            self.recipients.resize(recipient + 1, Standing::Pending);
        }
        self.recipients[recipient] = standing;
    }

    /// Remembers an attempt, and forgets the oldest beyond [`HISTORY_MAX`].
    pub fn remember(&mut self, mut attempt: Attempt) {
        let mut end = attempt.reply.len().min(REPLY_OCTETS_MAX);
        while !attempt.reply.is_char_boundary(end) {
            end -= 1;
        }
        attempt.reply.truncate(end);
        if self.history.len() >= HISTORY_MAX {
            self.history.drain(..=self.history.len() - HISTORY_MAX);
        }
        self.history.push(attempt);
    }

    pub(super) fn encode(&self, out: &mut impl Sink) {
        out.put(&[VERSION]);
        out.put(&self.attempts.to_le_bytes());
        out.put(&self.due_ms.to_le_bytes());
        out.put(&[u8::from(self.held) | u8::from(self.delay_told) << 1]);
        put_count(out, self.recipients.len());
        for &standing in &self.recipients {
            out.put(&[standing as u8]);
        }
        put_count(out, self.history.len());
        for attempt in &self.history {
            out.put(&attempt.at_ms.to_le_bytes());
            out.put(&attempt.recipient.unwrap_or(u32::MAX).to_le_bytes());
            put_text(out, &attempt.upstream);
            put_text(out, &attempt.reply);
        }
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub(super) fn decode(source: &mut Source<'_>) -> Option<Self> {
        if source.u8()? != VERSION {
            return None;
        }
        let (attempts, due_ms, flags) = (source.u32()?, source.u64()?, source.u8()?);
        let count = source.u32()? as usize;
        let recipients = source.take(count)?.iter().map(|&octet| standing(octet)).collect::<Option<_>>()?;
        let count = source.u32()? as usize;
        let history = (0..count).map(|_| attempt(source)).collect::<Option<_>>()?;
        (flags < 4).then_some(Self {
            attempts,
            due_ms,
            held: flags & 1 != 0,
            delay_told: flags & 2 != 0,
            recipients,
            history,
        })
    }
}

impl Entry {
    pub(super) fn encode(&self, out: &mut impl Sink) {
        out.put(&[VERSION, u8::from(self.origin == Origin::Notice), self.ret_octet(), self.body as u8]);
        let waives_tls = u8::from(self.waives_tls) << 2;
        out.put(&[u8::from(self.smtputf8) | u8::from(self.requiretls) << 1 | waives_tls]);
        out.put(&self.arrival_ms.to_le_bytes());
        put_text(out, &self.sender);
        put_optional(out, self.envid.as_deref());
        put_optional(out, self.auth.as_deref());
        self.client.encode(out);
        put_count(out, self.recipients.len());
        for recipient in &self.recipients {
            put_text(out, &recipient.address);
            out.put(&[recipient.notify]);
            put_optional(out, recipient.orcpt.as_deref());
        }
    }

    fn ret_octet(&self) -> u8 {
        match self.ret {
            None => 0,
            Some(Ret::Full) => 1,
            Some(Ret::Headers) => 2,
        }
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub(super) fn decode(source: &mut Source<'_>) -> Option<Self> {
        if source.u8()? != VERSION {
            return None;
        }
        let origin = if source.flag()? { Origin::Notice } else { Origin::Client };
        let ret = match source.u8()? {
            0 => None,
            1 => Some(Ret::Full),
            2 => Some(Ret::Headers),
            _ => return None,
        };
        let body = body(source.u8()?)?;
        let flags = source.u8().filter(|&flags| flags < 8)?;
        let arrival_ms = source.u64()?;
        let (sender, envid, auth) = (source.text()?, source.optional()?, source.optional()?);
        let client = Client::decode(source)?;
        let count = source.u32()? as usize;
        // A count that is not true ends at the first recipient that is not there: no room is reserved on its word.
        let recipients = (0..count).map(|_| recipient(source)).collect::<Option<_>>()?;
        let [smtputf8, requiretls, waives_tls] = [1, 2, 4].map(|flag| flags & flag != 0);
        Some(Self {
            origin,
            sender,
            recipients,
            ret,
            envid,
            auth,
            body,
            smtputf8,
            requiretls,
            waives_tls,
            arrival_ms,
            client,
        })
    }
}

impl Client {
    fn encode(&self, out: &mut impl Sink) {
        match self.address {
            IpAddr::V4(address) => {
                out.put(&[4]);
                out.put(&address.octets());
            }
            IpAddr::V6(address) => {
                out.put(&[6]);
                out.put(&address.octets());
            }
        }
        out.put(&self.port.to_le_bytes());
        put_text(out, &self.helo);
        put_optional(out, self.login.as_deref());
        put_optional(out, self.tls.as_deref());
        put_text(out, &self.listener);
    }

    fn decode(source: &mut Source<'_>) -> Option<Self> {
        let address = match source.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(source.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(source.array::<16>()?)),
            _ => return None,
        };
        let port = source.u16()?;
        let (helo, login, tls) = (source.text()?, source.optional()?, source.optional()?);
        Some(Self { address, port, helo, login, tls, listener: source.text()? })
    }
}

/// The version of these payloads. It changes together with [`FORMAT`](super::record::FORMAT).
const VERSION: u8 = 1;

fn put_count(out: &mut impl Sink, count: usize) {
    out.put(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn recipient(source: &mut Source<'_>) -> Option<Recipient> {
    Some(Recipient { address: source.text()?, notify: source.u8()?, orcpt: source.optional()? })
}

fn attempt(source: &mut Source<'_>) -> Option<Attempt> {
    let (at_ms, recipient) = (source.u64()?, source.u32()?);
    let recipient = (recipient != u32::MAX).then_some(recipient);
    Some(Attempt { at_ms, recipient, upstream: source.text()?, reply: source.text()? })
}

fn body(octet: u8) -> Option<Body> {
    [Body::SevenBit, Body::EightBitMime, Body::BinaryMime].into_iter().find(|&body| body as u8 == octet)
}

fn standing(octet: u8) -> Option<Standing> {
    use Standing::{Delivered, Failed, Pending, Relayed, Returned};
    [Pending, Delivered, Failed, Returned, Relayed].into_iter().find(|&standing| standing as u8 == octet)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn entry(sender: &str, recipients: &[&str], arrival_ms: u64) -> Entry {
        Entry {
            origin: Origin::Client,
            sender: sender.to_owned(),
            recipients: recipients
                .iter()
                .map(|&address| Recipient { address: address.to_owned(), ..Recipient::default() })
                .collect(),
            ret: None,
            envid: None,
            auth: None,
            body: Body::SevenBit,
            smtputf8: false,
            requiretls: false,
            waives_tls: false,
            arrival_ms,
            client: Client {
                address: Ipv4Addr::new(198, 18, 0, 1).into(),
                port: 4025,
                helo: "client.example".to_owned(),
                login: None,
                tls: None,
                listener: "smtp".to_owned(),
            },
        }
    }

    prop_compose! {
        fn recipients()(address in ".{0,40}", notify: u8, orcpt in prop::option::of(".{0,20}")) -> Recipient {
            Recipient { address, notify, orcpt }
        }
    }

    prop_compose! {
        fn clients()(v6: bool, bits: u128, port: u16, helo in ".{0,20}", login in prop::option::of(".{0,9}"),
                     tls in prop::option::of(".{0,9}"), listener in "[a-z]{0,9}") -> Client {
            let v4 = Ipv4Addr::from_bits(u32::try_from(bits >> 96).unwrap());
            let address = if v6 { Ipv6Addr::from_bits(bits).into() } else { v4.into() };
            Client { address, port, helo, login, tls, listener }
        }
    }

    prop_compose! {
        fn entries()(
            notice: bool, sender in ".{0,40}", recipients in prop::collection::vec(recipients(), 0..5),
            ret in prop::option::of(any::<bool>()), envid in prop::option::of(".{0,20}"),
            auth in prop::option::of(".{0,20}"), body in 0u8..3, flags in any::<[bool; 3]>(),
            arrival_ms: u64, client in clients(),
        ) -> Entry {
            Entry {
                origin: if notice { Origin::Notice } else { Origin::Client },
                sender, recipients, envid, auth, arrival_ms, client,
                ret: ret.map(|full| if full { Ret::Full } else { Ret::Headers }),
                body: super::body(body).unwrap(),
                smtputf8: flags[0],
                requiretls: flags[1],
                waives_tls: flags[2],
            }
        }
    }

    prop_compose! {
        fn states()(
            attempts: u32, due_ms: u64, held: bool, delay_told: bool,
            standings in prop::collection::vec(0u8..4, 0..6),
            history in prop::collection::vec((any::<u64>(), prop::option::of(0u32..9), ".{0,9}", ".{0,40}"), 0..4),
        ) -> State {
            State {
                attempts, due_ms, held, delay_told,
                recipients: standings.into_iter().map(|octet| standing(octet).unwrap()).collect(),
                history: history.into_iter()
                    .map(|(at_ms, recipient, upstream, reply)| Attempt { at_ms, recipient, upstream, reply })
                    .collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn an_entry_is_read_as_it_was_written(entry in entries()) {
            let mut octets = Vec::new();
            entry.encode(&mut octets);
            let mut source = Source(&octets);
            prop_assert_eq!(Entry::decode(&mut source), Some(entry));
            prop_assert!(source.0.is_empty());
            for end in 0..octets.len() {
                prop_assert_eq!(Entry::decode(&mut Source(&octets[..end])), None);
            }
        }

        #[test]
        fn a_state_is_read_as_it_was_written(state in states()) {
            let mut octets = Vec::new();
            state.encode(&mut octets);
            let mut source = Source(&octets);
            prop_assert_eq!(State::decode(&mut source), Some(state));
            prop_assert!(source.0.is_empty());
            for end in 0..octets.len() {
                prop_assert_eq!(State::decode(&mut Source(&octets[..end])), None);
            }
        }

        #[test]
        fn any_octets_are_read_without_a_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut octets = octets;
            octets.insert(0, VERSION);
            let _ = Entry::decode(&mut Source(&octets));
            let _ = State::decode(&mut Source(&octets));
        }
    }

    #[test]
    fn history_and_replies_are_bounded() {
        let mut state = State::default();
        for at_ms in 0..100 {
            state.remember(Attempt { at_ms, reply: "é".repeat(600), ..Attempt::default() });
        }
        assert_eq!(state.history.len(), HISTORY_MAX);
        assert_eq!(state.history[0].at_ms, 100 - HISTORY_MAX as u64);
        assert!(state.history.iter().all(|attempt| attempt.reply.len() <= REPLY_OCTETS_MAX));
    }
}
