//! A connection that may or may not be inside TLS: what sessions and upstream connections talk through.
//!
//! Outside TLS every call goes straight to the socket: the price is one look at an `Option`. STARTTLS turns a link
//! over in place ([`Link::secure`]), so that nothing above it changes. What the peer sent before that in plaintext is
//! the caller's to throw away (invariant 5).
//!
//! It must not turn back: a link that is inside TLS, or has failed to get there, never carries plaintext again.

use std::cell::Cell;
use std::io;

use bytes::Bytes;

use super::records::{Agreed, Fault, Records, Turn};
use crate::io::buffer::Buffer;
use crate::io::{Flight, Stream, Waiting};
use crate::units::Moment;

/// A connection, plain or inside TLS.
#[derive(Debug)]
pub struct Link<S> {
    socket: S,
    tls: Option<Box<Records>>,
    /// What is sent next is the last: inside TLS a close_notify goes behind it.
    is_last: Cell<bool>,
}

impl<S: Stream> Link<S> {
    /// A plain connection.
    pub fn plain(socket: S) -> Self {
        Self { socket, tls: None, is_last: Cell::new(false) }
    }

    /// Does the handshake. The link is inside TLS from here on, even where the handshake fails.
    ///
    /// # Errors
    /// Why there is no TLS; the link is then only good for being closed.
    pub async fn secure(&mut self, records: Records, by: Moment) -> Result<Agreed, Fault> {
        let records = self.tls.insert(Box::new(records));
        let result = shake_hands(records, &mut self.socket, by).await;
        if result.is_err() {
            // What the peer is to hear about its fault. It may be gone already.
            let _ = send_owed(records, &mut self.socket, by).await;
        }
        result
    }

    /// What was agreed on; `None` outside TLS.
    #[must_use]
    pub fn agreed(&self) -> Option<Agreed> {
        self.tls.as_ref().and_then(|records| records.agreed())
    }

    /// Whether it is inside TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether a handshake was begun and not finished: nothing can be said to the peer any more.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.tls.as_ref().is_some_and(|records| records.is_handshaking())
    }

    /// The records, for what there is to be told of the peer; `None` outside TLS.
    #[must_use]
    pub fn records(&self) -> Option<&Records> {
        self.tls.as_deref()
    }

    /// What is sent next is the last: inside TLS the peer hears so in the same flight.
    pub fn send_last(&self) {
        self.is_last.set(true);
    }
}

impl<S: Stream> Stream for Link<S> {
    async fn receive(&mut self, into: Buffer, by: Moment) -> (io::Result<usize>, Buffer) {
        match &mut self.tls {
            None => self.socket.receive(into, by).await,
            Some(records) => receive(records, &mut self.socket, into, by).await,
        }
    }

    async fn send(&mut self, mut flight: Flight, by: Moment) -> (io::Result<()>, Flight) {
        let Some(records) = &mut self.tls else { return self.socket.send(flight, by).await };
        let close = self.is_last.get();
        let result = seal(records, flight.remaining(), flight.octets(), close);
        flight.clear();
        let result = match result {
            Ok(sealed) => self.socket.send(sealed, by).await.0,
            Err(fault) => Err(fault.into()),
        };
        (result, flight)
    }

    async fn send_octets(&mut self, mut octets: Vec<u8>, by: Moment) -> (io::Result<()>, Vec<u8>) {
        let Some(records) = &mut self.tls else { return self.socket.send_octets(octets, by).await };
        let close = self.is_last.get();
        let result = seal(records, std::iter::once(&octets[..]), octets.len(), close);
        octets.clear();
        let result = match result {
            Ok(sealed) => self.socket.send(sealed, by).await.0,
            Err(fault) => Err(fault.into()),
        };
        (result, octets)
    }

    fn waiting(&self) -> Waiting {
        match &self.tls {
            Some(records) if records.has_ended() => Waiting::Closed,
            Some(records) if records.holds_octets() => Waiting::Octets,
            _ => self.socket.waiting(),
        }
    }

    fn set_interruptible(&self, interruptible: bool) {
        self.socket.set_interruptible(interruptible);
    }

    async fn send_final(&mut self, octets: Vec<u8>, by: Moment) -> io::Result<()> {
        let Some(records) = &mut self.tls else { return self.socket.send_final(octets, by).await };
        let sealed = seal(records, std::iter::once(&octets[..]), octets.len(), true)?;
        let sealed = sealed.remaining().flatten().copied().collect();
        self.socket.send_final(sealed, by).await
    }

    fn finish_sending(&self) {
        self.socket.finish_sending();
    }

    fn reset_on_close(&self) {
        self.socket.reset_on_close();
    }
}

async fn shake_hands<S: Stream>(records: &mut Records, socket: &mut S, by: Moment) -> Result<Agreed, Fault> {
    loop {
        match records.turn()? {
            Turn::Moved => {}
            Turn::NeedsOctets => {
                send_owed(records, socket, by).await?;
                receive_more(records, socket, None, by).await?;
            }
            Turn::Open => {
                send_owed(records, socket, by).await?;
                return records.agreed().ok_or_else(|| rustls::Error::HandshakeNotComplete.into());
            }
            Turn::Ended => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

async fn receive<S: Stream>(
    records: &mut Records,
    socket: &mut S,
    mut into: Buffer,
    by: Moment,
) -> (io::Result<usize>, Buffer) {
    let before = into.filled().len();
    loop {
        let opened = records.open(&mut into);
        // An alert, or the answer to a key update: also after a fault.
        let sent = send_owed(records, socket, by).await;
        let octets = into.filled().len() - before;
        match (opened, sent) {
            (Err(fault), _) => return (Err(fault.into()), into),
            (Ok(()), _) if octets > 0 || records.has_ended() => return (Ok(octets), into),
            (Ok(()), Err(fault)) => return (Err(fault.into()), into),
            (Ok(()), Ok(())) => {}
        }
        // The caller's buffer serves for the ciphertext where it is empty; plaintext gets another one, once there is some.
        let kind = into.kind();
        let (lent, kept) = if before == 0 { (into, None) } else { (kind.take(), Some(into)) };
        let received = receive_more(records, socket, Some(lent), by).await;
        into = kept.unwrap_or_else(|| kind.take());
        if let Err(fault) = received {
            return (Err(fault.into()), into);
        }
    }
}

/// Receives ciphertext. The end of the connection without a close_notify is a fault: what came before may be cut
/// (RFC 8446 §6.1).
async fn receive_more<S: Stream>(
    records: &mut Records,
    socket: &mut S,
    lent: Option<Buffer>,
    by: Moment,
) -> Result<(), Fault> {
    let (result, buffer) = socket.receive(records.refill(lent), by).await;
    records.received(buffer);
    match result? {
        0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        _ => Ok(()),
    }
}

async fn send_owed<S: Stream>(records: &mut Records, socket: &mut S, by: Moment) -> Result<(), Fault> {
    let owed = records.take_owed();
    if owed.is_empty() {
        return Ok(());
    }
    Ok(socket.send_octets(owed, by).await.0?)
}

/// Seals a flight; what the protocol owes goes in front.
fn seal<'a>(
    records: &mut Records,
    slices: impl Iterator<Item = &'a [u8]>,
    octets: usize,
    close: bool,
) -> Result<Flight, Fault> {
    let mut sealed = Flight::default();
    records.seal(slices, octets, close, &mut sealed)?;
    sealed.prepend(Bytes::from(records.take_owed()));
    Ok(sealed)
}
