//! Where a transaction goes: what a session asks of whoever takes its message.
//!
//! The session knows this trait and nothing of upstreams or spools; `worker` ties the ends.

use crate::custody::Custody;
use crate::envelope::{Envelope, Peer};
use crate::io::Flight;
use crate::smtp::body::Form;
use crate::smtp::params::{Mail, Rcpt};
use crate::smtp::reply::Reply;
use crate::tls::Agreed;

/// The answer to one recipient.
pub type Answer = Result<(), Reply>;

/// Whether the client goes on to its message in the same group of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// DATA follows: it may travel in the same flight.
    Data,
    /// Something else follows, or nothing that is known.
    Other,
}

/// Takes transactions, one at a time.
pub trait Sink {
    /// Whether a transaction may begin at all, as far as is known without asking anybody.
    ///
    /// # Errors
    /// The reply to MAIL.
    fn begin(&self, _mail: &Mail) -> Result<(), Reply> {
        Ok(())
    }

    /// Asks about recipients that the client named in one group; gives one answer for each, in order.
    fn recipients(
        &mut self,
        envelope: &Envelope,
        rcpts: &[Rcpt],
        next: Next,
    ) -> impl Future<Output = Vec<Answer>>;

    /// The message is about to come; says in which form it is wanted, or why not at all.
    fn open(&mut self, envelope: &Envelope) -> impl Future<Output = Result<Form, Reply>>;

    /// Takes slices of the message, in order; the flight comes back empty. An error ends the transaction: the rest of
    /// the message is not wanted.
    fn body(&mut self, envelope: &Envelope, slices: &mut Flight) -> impl Future<Output = Result<(), Reply>>;

    /// The message is complete with these slices. It has one fate: custody, or a reply that leaves it with the client.
    fn finish(
        &mut self,
        envelope: &Envelope,
        rest: &mut Flight,
        content: Content<'_>,
    ) -> impl Future<Output = Result<Custody, Reply>>;

    /// The transaction is over without a message, or in the middle of one: nothing of it may be delivered.
    fn reset(&mut self);

    /// Whom the last transaction went to, for the log: host, address and port.
    fn upstream(&self) -> Option<&str>;

    /// Whether a recipient of the last message, by its place in the envelope, still awaits delivery.
    fn is_queued(&self, _recipient: usize) -> bool {
        false
    }

    /// The TLS that it went by, likewise: version, cipher and verdict, or `none`.
    fn upstream_tls(&self) -> &str {
        "none"
    }
}

/// What is known of a message when it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content<'a> {
    /// Octets, trace headers included, unstuffed.
    pub octets: u64,
    /// Whether an octet above 127 is in it.
    pub has_8bit: bool,
    /// Who has handed it in.
    pub client: Introduction<'a>,
}

/// What is known of a client, for whoever keeps its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Introduction<'a> {
    /// Its addresses, and the listener.
    pub peer: &'a Peer,
    /// What it calls itself.
    pub helo: &'a str,
    /// Whom it has logged in as.
    pub user: Option<&'a str>,
    /// What was agreed on for TLS.
    pub tls: Option<Agreed>,
}
