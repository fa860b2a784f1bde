//! The record pump: ciphertext in pool buffers on one side, plaintext on the other, rustls between them.
//!
//! Theory of operation. What was received is opened in place, one record at a time, as far as the caller has room; the
//! rest waits in the buffer it came in. What is to be sent is gathered into records of full size and sealed into pool
//! buffers, so that a flight leaves in one system call however many slices it has. A connection that is silent holds
//! no buffer: only rustls' own state is left.
//!
//! It must not touch a socket, wait, or look at what it carries. A peer's close_notify is the end for good: nothing
//! that comes behind it is looked at (the "Dead.Letter" class of faults), and an end without it is a fault.

mod sealed;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError};
use rustls::{CipherSuite, ClientConfig, CommonState, HandshakeKind, ProtocolVersion, ServerConfig};

use self::sealed::Sealed;
use crate::io::Flight;
use crate::io::buffer::{Buffer, Size};
use crate::limits::{RECORD_OVERHEAD_OCTETS_MAX, RECORD_PLAINTEXT_OCTETS_MAX};
use crate::meter::TlsVersion;

/// One end of a TLS connection.
///
/// Invariants: `start` is within `unread`, which is there only while it holds unopened octets; after `has_ended`
/// nothing is opened any more; after `has_failed` rustls is not asked for anything.
pub struct Records {
    connection: Connection,
    unread: Option<Buffer>,
    start: usize,
    /// Opened octets that found no room.
    plain: VecDeque<Bytes>,
    /// Records that the protocol itself owes the peer: handshake, alerts, key updates.
    owed: Vec<u8>,
    has_ended: bool,
    has_failed: bool,
}

enum Connection {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// What the two ends agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The version, as it stands in `Received:` and logs.
    pub version: &'static str,
    /// The cipher suite.
    pub cipher: &'static str,
    /// The group of the key exchange; none where an old session was resumed without one.
    pub group: Option<&'static str>,
    /// The version as a label.
    pub label: TlsVersion,
    /// Whether an earlier session was resumed.
    pub is_resumed: bool,
}

impl fmt::Display for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.cipher)?;
        self.group.map_or(Ok(()), |group| write!(f, " {group}"))
    }
}

/// Why TLS failed.
#[derive(Debug)]
pub enum Fault {
    /// The connection broke, ended or was silent for too long.
    Io(io::Error),
    /// The peer broke the protocol, or one of the two does not like the other.
    Tls(rustls::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the connection failed in the handshake: {error}"),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl From<rustls::Error> for Fault {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io(error) => error,
            Fault::Tls(error) => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// How far the pump has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It has moved; turn it again.
    Moved,
    /// It needs more octets from the peer.
    NeedsOctets,
    /// It is open for data in both directions, and nothing is left to be opened.
    Open,
    /// The peer has said that it is done.
    Ended,
}

/// What a turn has to do besides the protocol's own business.
#[derive(Default)]
struct Work<'a> {
    /// Where opened octets go.
    into: Option<&'a mut Buffer>,
    /// What is to be sealed, and where to.
    seal: Option<(Seal<'a>, &'a mut Buffer)>,
}

enum Seal<'a> {
    Data(&'a [u8]),
    Close,
}

impl Records {
    /// Our end of a connection with a client.
    ///
    /// # Errors
    /// A configuration that cannot be used.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Fault> {
        Ok(Self::new(Connection::Server(Box::new(UnbufferedServerConnection::new(config)?))))
    }

    /// Our end of a connection with an upstream; `name` goes into SNI, if it is one, and keys resumption.
    ///
    /// # Errors
    /// A configuration that cannot be used.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Fault> {
        Ok(Self::new(Connection::Client(Box::new(UnbufferedClientConnection::new(config, name)?))))
    }

    /// With octets of the peer that were received before.
    #[must_use]
    pub fn with_received(mut self, octets: &[u8]) -> Self {
        let mut buffer = Buffer::take(Size::holding(octets.len()));
        // What is more than a buffer holds is cut, and the handshake fails.
        buffer.append(octets);
        self.received(buffer);
        self
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            unread: None,
            start: 0,
            plain: VecDeque::new(),
            owed: Vec::new(),
            has_ended: false,
            has_failed: false,
        }
    }

    /// Whether the handshake is still to be done.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.state().is_handshaking()
    }

    /// What was agreed on; `None` before the end of the handshake.
    #[must_use]
    pub fn agreed(&self) -> Option<Agreed> {
        let state = self.state();
        let (version, label) = match state.protocol_version()? {
            ProtocolVersion::TLSv1_3 => ("TLSv1.3", TlsVersion::V1_3),
            _ => ("TLSv1.2", TlsVersion::V1_2),
        };
        let cipher = name_of(state.negotiated_cipher_suite()?.suite());
        let is_resumed = state.handshake_kind() == Some(HandshakeKind::Resumed);
        let group = state.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
        Some(Agreed { version, cipher, group, label, is_resumed })
    }

    /// The peer's certificates, leaf first; empty where it showed none.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.state().peer_certificates().unwrap_or_default()
    }

    fn state(&self) -> &CommonState {
        match &self.connection {
            Connection::Server(connection) => connection,
            Connection::Client(connection) => connection,
        }
    }

    /// Whether octets of the peer wait here, opened or not.
    #[must_use]
    pub fn holds_octets(&self) -> bool {
        !self.plain.is_empty() || self.unread.is_some()
    }

    /// Whether the peer has said that it is done.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Records owed to the peer, to be sent before anything else.
    pub fn take_owed(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.owed)
    }

    /// A buffer to receive into: what is not yet opened stands in front. `plain` is used where nothing is left over.
    #[must_use]
    pub fn refill(&mut self, plain: Option<Buffer>) -> Buffer {
        let Some(unread) = self.unread.take() else {
            return plain.unwrap_or_else(|| Buffer::take(Size::Command));
        };
        let rest = &unread.filled()[std::mem::take(&mut self.start)..];
        // Room for the whole of the record that has begun, and not less than the octets came in before.
        let mut buffer = unread.kind().holding(record_octets(rest)).take();
        buffer.append(rest);
        buffer
    }

    /// Takes over a buffer from [`Self::refill`] with what was received behind its octets.
    pub fn received(&mut self, buffer: Buffer) {
        debug_assert!(self.unread.is_none(), "what was left over stands in front of it");
        if !buffer.filled().is_empty() {
            self.unread = Some(buffer);
        }
    }

    /// Does the next step of the handshake, or of what follows on it without data.
    ///
    /// # Errors
    /// A peer that breaks the protocol; what it is to hear about that is then owed.
    pub fn turn(&mut self) -> Result<Turn, Fault> {
        self.work(Work::default())
    }

    /// Opens records into the buffer, as long as it has room and there are whole ones.
    ///
    /// # Errors
    /// As [`Self::turn`].
    pub fn open(&mut self, into: &mut Buffer) -> Result<(), Fault> {
        while let Some(first) = self.plain.front_mut() {
            let fitted = into.append(first);
            drop(first.split_to(fitted));
            if !first.is_empty() {
                return Ok(());
            }
            self.plain.pop_front();
        }
        while self.unread.is_some() && !self.has_ended && into.spare() > 0 {
            let turn = self.work(Work { into: Some(into), seal: None })?;
            if turn != Turn::Moved {
                break;
            }
        }
        Ok(())
    }

    /// Seals slices into records, appended to `out`; with `close`, a close_notify behind them. `octets` are those of all
    /// slices together.
    ///
    /// # Errors
    /// As [`Self::turn`]; also after [`Self::take_owed`] was not heeded.
    pub fn seal<'a>(
        &mut self,
        slices: impl Iterator<Item = &'a [u8]>,
        octets: usize,
        close: bool,
        out: &mut Flight,
    ) -> Result<(), Fault> {
        let mut sealed = Sealed::new(octets, out);
        let mut left = octets;
        let mut staged: Option<Buffer> = None;
        for mut slice in slices {
            while !slice.is_empty() {
                // A slice that fills a record, or is all there is, goes as it is; others are gathered, at the price of
                // a copy.
                if staged.is_none() && slice.len() >= left.min(RECORD_PLAINTEXT_OCTETS_MAX) {
                    let (piece, rest) = slice.split_at(slice.len().min(RECORD_PLAINTEXT_OCTETS_MAX));
                    self.seal_one(Seal::Data(piece), &mut sealed)?;
                    (left, slice) = (left.saturating_sub(piece.len()), rest);
                    continue;
                }
                let gathered = staged.get_or_insert_with(|| Buffer::take(Size::BodyFirst));
                let fitted = gathered.append(slice);
                (left, slice) = (left.saturating_sub(fitted), &slice[fitted..]);
                if gathered.spare() == 0 {
                    self.seal_one(Seal::Data(gathered.filled()), &mut sealed)?;
                    staged = None;
                }
            }
        }
        if let Some(gathered) = staged {
            self.seal_one(Seal::Data(gathered.filled()), &mut sealed)?;
        }
        if close {
            self.seal_one(Seal::Close, &mut sealed)?;
        }
        sealed.finish();
        Ok(())
    }

    fn seal_one(&mut self, what: Seal<'_>, sealed: &mut Sealed<'_>) -> Result<(), Fault> {
        let octets = match &what {
            Seal::Data(data) => data.len(),
            Seal::Close => 0,
        };
        let buffer = sealed.room_for(octets);
        let mut seal = Some(what);
        while let Some(what) = seal.take() {
            // A turn may have other things to do first: octets of the peer to be opened, an alert to be owed.
            let before = buffer.filled().len();
            let again = match &what {
                Seal::Data(data) => Seal::Data(data),
                Seal::Close => Seal::Close,
            };
            match self.work(Work { into: None, seal: Some((what, buffer)) })? {
                _ if buffer.filled().len() > before => {}
                Turn::Moved => seal = Some(again),
                Turn::Open | Turn::Ended if matches!(again, Seal::Close) => {}
                _ => return Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
            }
        }
        Ok(())
    }

    fn work(&mut self, work: Work<'_>) -> Result<Turn, Fault> {
        if self.has_failed {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        }
        match self.turn_over(work) {
            Ok(Turn::Ended) => {
                self.has_ended = true;
                self.unread = None;
                self.start = 0;
                Ok(Turn::Ended)
            }
            Ok(Turn::Open) if self.is_handshaking() => Ok(Turn::NeedsOctets),
            Ok(turn) => Ok(turn),
            Err(error) => {
                self.has_failed = true;
                self.owe_alert();
                Err(error.into())
            }
        }
    }

    fn turn_over(&mut self, work: Work<'_>) -> Result<Turn, rustls::Error> {
        let octets = match &mut self.unread {
            Some(buffer) => &mut buffer.filled_mut()[self.start..],
            None => &mut [],
        };
        let mut side = Side { plain: &mut self.plain, owed: &mut self.owed };
        let (discard, turn) = match &mut self.connection {
            Connection::Server(connection) => {
                let status = connection.process_tls_records(octets);
                (status.discard, side.take_up(status.state, work))
            }
            Connection::Client(connection) => {
                let status = connection.process_tls_records(octets);
                (status.discard, side.take_up(status.state, work))
            }
        };
        self.start += discard;
        if self.unread.as_ref().is_some_and(|unread| self.start >= unread.filled().len()) {
            self.unread = None;
            self.start = 0;
        }
        turn
    }

    /// What the peer is to hear about its fault; rustls has it ready after an error, and must not be given anything
    /// to read any more: that it takes for a fault of ours, and panics.
    fn owe_alert(&mut self) {
        while self.state().wants_write() {
            // The error is known; a second one adds nothing.
            if self.turn_over(Work::default()).is_err() {
                return;
            }
        }
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("agreed", &self.agreed()).finish_non_exhaustive()
    }
}

/// Where a turn puts what nobody asked for.
struct Side<'a> {
    plain: &'a mut VecDeque<Bytes>,
    owed: &'a mut Vec<u8>,
}

impl Side<'_> {
    fn take_up<Data>(
        &mut self,
        state: Result<ConnectionState<'_, '_, Data>, rustls::Error>,
        work: Work<'_>,
    ) -> Result<Turn, rustls::Error> {
        match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                let mut into = work.into;
                while let Some(record) = traffic.next_record() {
                    let payload = record?.payload;
                    let fitted = into.as_mut().map_or(0, |into| into.append(payload));
                    if fitted < payload.len() {
                        self.plain.push_back(Bytes::copy_from_slice(&payload[fitted..]));
                    }
                }
                Ok(Turn::Moved)
            }
            ConnectionState::EncodeTlsData(mut data) => {
                let sent = self.owed.len();
                if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
                    self.owed.resize(sent + size.required_size, 0);
                    // It fits now, and was not encoded before.
                    let _ = data.encode(&mut self.owed[sent..]);
                }
                Ok(Turn::Moved)
            }
            ConnectionState::TransmitTlsData(transmit) => {
                transmit.done();
                Ok(Turn::Moved)
            }
            ConnectionState::WriteTraffic(mut traffic) => {
                let Some((what, out)) = work.seal else { return Ok(Turn::Open) };
                let written = out.write_with(|spare| match what {
                    Seal::Data(data) => traffic.encrypt(data, spare),
                    Seal::Close => traffic.queue_close_notify(spare),
                });
                written.map_err(|error| match error {
                    EncryptError::EncryptExhausted => rustls::Error::EncryptError,
                    EncryptError::InsufficientSize(_) => {
                        rustls::Error::General("no room for a record".to_owned())
                    }
                })?;
                Ok(Turn::Open)
            }
            ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Turn::Ended),
            // Early data is never offered, and states that rustls may add are none that data can go by.
            _ => Ok(Turn::NeedsOctets),
        }
    }
}

/// The suite's name in the registry of IANA; rustls marks those of TLS 1.3 in its own way.
fn name_of(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}

/// Octets of the record that these octets begin, header included; a header where not even that is whole.
fn record_octets(octets: &[u8]) -> usize {
    match octets {
        [_, _, _, high, low, ..] => (usize::from(u16::from_be_bytes([*high, *low])) + HEADER_OCTETS)
            .min(RECORD_PLAINTEXT_OCTETS_MAX + RECORD_OVERHEAD_OCTETS_MAX),
        _ => HEADER_OCTETS,
    }
}

/// Octets of a record's header (RFC 8446 §5.1).
const HEADER_OCTETS: usize = 5;

#[cfg(test)]
mod tests;
