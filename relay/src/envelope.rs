//! Who asked for what to go where. Immutable once the header section is known.

use std::net::SocketAddr;

use crate::meter::Listener;
use crate::smtp::params::{Mail, Rcpt};
use crate::units::QueueId;

/// The transaction as it was agreed on with the client.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The id of the message: in `Received:`, in the logs, in `queued as`.
    pub id: QueueId,
    /// Reverse-path and what came with it.
    pub mail: Mail,
    /// The recipients that were accepted, in order; never empty once the data begins.
    pub recipients: Vec<Rcpt>,
    /// Whether its sender waives the TLS policies of the recipients' domains (RFC 8689 §3): known when the header section
    /// is, long after the recipients.
    pub waives_tls: bool,
}

/// Who is at the other end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The listener that took the connection.
    pub listener: Listener,
    /// The address of the TCP connection.
    pub socket: SocketAddr,
    /// The client: the address that a trusted PROXY header claims, else the socket's.
    pub client: SocketAddr,
}
