//! One connection to an upstream: the client machine, its stream, and what is on the way between them.
//!
//! It moves octets and replies; what to say and what the replies mean is `stream`'s business.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use secrecy::zeroize::Zeroize as _;

use super::permit::Permit;
use crate::io::buffer::{Buffer, Size};
use crate::io::{Flight, Stream, Waiting};
use crate::limits::AUTH_LINE_OCTETS_MAX;
use crate::smtp::client::{Client, ClientEvent, Expect, Unspeakable, UpstreamReply, Violation};
use crate::tls::rule::Rule;
use crate::tls::{Agreed, Fault, Link, Records};
use crate::units::Moment;

/// An open connection. Invariant: in the pool it is quiet: no reply is owed and no octet is unread (I6).
#[derive(Debug)]
pub struct Connection<S> {
    stream: Link<S>,
    /// The protocol's memory: what was offered, what is owed.
    pub machine: Client,
    commands: Vec<u8>,
    body: Flight,
    unread: Bytes,
    /// The replies of the last exchange, in order.
    pub replies: Vec<(Expect, UpstreamReply)>,
    /// Which address this is, for logs.
    pub address: SocketAddr,
    /// The name of the host at that address, for logs and TLS.
    pub host: Arc<str>,
    /// Transactions begun on it.
    pub messages: u32,
    /// How many may be begun: `UPSTREAM_MESSAGES_PER_CONNECTION`, or the upstream's MAILMAX where that is less.
    pub messages_max: u32,
    /// Recipients named in the last transaction, taken or not.
    pub recipients: u32,
    /// Since when it has been idle.
    pub idle_since: Moment,
    /// A transaction may be open: the next flight begins with RSET.
    pub needs_reset: bool,
    /// The TLS it is inside, for logs: version, cipher and verdict, or `none`.
    pub tls: Arc<str>,
    /// The settings that it was made under; under others it serves no more.
    pub generation: u32,
    permit: Permit,
}

/// Why a connection is of no use any more.
#[derive(Debug)]
pub enum Broken {
    /// The upstream closed or reset it.
    Closed,
    /// It was silent, or took nothing, for too long.
    TimedOut,
    /// It does not speak SMTP as it must.
    Violation(Violation),
    /// What was to be said cannot be said in a command.
    Unspeakable,
}

impl From<Unspeakable> for Broken {
    fn from(_: Unspeakable) -> Self {
        Self::Unspeakable
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut { Self::TimedOut } else { Self::Closed }
    }
}

impl<S: Stream> Connection<S> {
    /// A fresh connection, its greeting still to come.
    pub fn new(stream: S, address: SocketAddr, host: Arc<str>, permit: Permit) -> Self {
        Self {
            stream: Link::plain(stream),
            machine: Client::new(),
            commands: Vec::with_capacity(256),
            body: Flight::default(),
            unread: Bytes::new(),
            replies: Vec::new(),
            address,
            host,
            messages: 0,
            messages_max: u32::MAX,
            recipients: 0,
            idle_since: Moment::NEVER,
            needs_reset: false,
            tls: "none".into(),
            generation: 0,
            permit,
        }
    }

    /// Goes inside TLS, by a rule. What was read before does not count.
    ///
    /// # Errors
    /// Why there is no TLS; the connection is then only good for being closed.
    pub async fn secure(&mut self, records: Records, rule: &Rule, by: Moment) -> Result<Agreed, Fault> {
        self.unread = Bytes::new();
        let agreed = self.stream.secure(records, by).await?;
        let resumed = if agreed.is_resumed { " resumed" } else { "" };
        self.tls = format!("{agreed} {}{resumed}", rule.verdict()).into();
        Ok(agreed)
    }

    /// The upstream's certificates, leaf first; empty outside TLS and in a resumed session.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.stream.records().map_or(&[], Records::peer_certificates)
    }

    /// Whether it is inside TLS.
    pub fn is_secure(&self) -> bool {
        self.stream.agreed().is_some()
    }

    /// Notes a command: the machine writes it and remembers what is owed for it.
    pub fn command<R>(&mut self, write: impl FnOnce(&mut Client, &mut Vec<u8>) -> R) -> R {
        write(&mut self.machine, &mut self.commands)
    }

    /// Notes slices of a body, to go out behind the commands noted so far. The flight comes back empty.
    pub fn body(&mut self, slices: &mut Flight) {
        mem::swap(&mut self.body, slices);
        if !self.commands.is_empty() {
            self.body.prepend(Bytes::from(mem::take(&mut self.commands)));
        }
    }

    /// Room for commands with secrets: one that grows would leave a copy behind.
    pub fn reserve_for_secrets(&mut self) {
        self.commands = Vec::with_capacity(AUTH_LINE_OCTETS_MAX);
    }

    /// Wipes what is left of commands with secrets, and gives their room back.
    pub fn wipe_secrets(&mut self) {
        self.commands.zeroize();
        self.commands = Vec::new();
    }

    /// Sends what was noted: body slices first, since commands noted before them went in front of them already.
    pub async fn transmit(&mut self, by: Moment) -> Result<(), Broken> {
        if self.body.is_empty() {
            let commands = mem::take(&mut self.commands);
            let (result, commands) = self.stream.send_octets(commands, by).await;
            self.commands = commands;
            return Ok(result?);
        }
        if !self.commands.is_empty() {
            self.body.push(Bytes::from(mem::take(&mut self.commands)));
        }
        let (result, body) = self.stream.send(mem::take(&mut self.body), by).await;
        self.body = body;
        Ok(result?)
    }

    /// Reads until no reply is owed; the replies are in [`Self::replies`], also those before a failure.
    pub async fn collect(&mut self, by: Moment) -> Result<(), Broken> {
        self.replies.clear();
        while self.machine.owed() > 0 {
            let step = self.machine.step(&self.unread);
            let _read = self.unread.split_to(step.consumed);
            match step.event {
                ClientEvent::Reply { to, reply } => self.replies.push((to, reply)),
                ClientEvent::Violation(violation) => return Err(Broken::Violation(violation)),
                // A refusal out of turn answers the message all the same.
                ClientEvent::EarlyVerdict(reply) => self.replies.push((Expect::Message, reply)),
                ClientEvent::NeedInput => self.receive(by).await?,
            }
        }
        Ok(())
    }

    /// The refusal of an upstream that has spoken in the middle of the message.
    pub async fn early_verdict(&mut self, by: Moment) -> Result<UpstreamReply, Broken> {
        loop {
            let step = self.machine.step(&self.unread);
            let _read = self.unread.split_to(step.consumed);
            match step.event {
                ClientEvent::EarlyVerdict(reply) => return Ok(reply),
                ClientEvent::Violation(violation) => return Err(Broken::Violation(violation)),
                ClientEvent::Reply { .. } => {}
                ClientEvent::NeedInput => self.receive(by).await?,
            }
        }
    }

    /// Sends what was noted and reads every reply that is owed.
    ///
    /// What is unread when a new group begins would be taken for its replies, and a refusal for a 250 (I6).
    pub async fn exchange(&mut self, by: Moment) -> Result<(), Broken> {
        self.replies.clear();
        if self.has_unread() {
            return Err(Broken::Violation(Violation::Stray));
        }
        self.transmit(by).await?;
        self.collect(by).await
    }

    /// The machine keeps part of a line by itself, so that everything read before is used up here.
    async fn receive(&mut self, by: Moment) -> Result<(), Broken> {
        let (result, buffer) = self.stream.receive(Buffer::take(Size::Command), by).await;
        if result? == 0 {
            return Err(Broken::Closed);
        }
        self.unread = buffer.freeze();
        Ok(())
    }

    /// Whether the connection may serve another transaction: nothing owed, nothing unread, nothing waiting.
    pub fn is_quiet(&self) -> bool {
        self.machine.is_quiet() && self.unread.is_empty() && self.stream.waiting() == Waiting::Nothing
    }

    /// Whether no transaction may begin on it any more.
    pub fn is_spent(&self) -> bool {
        self.messages >= self.messages_max
    }

    /// How many more recipients the transaction may name: RCPTMAX counts those refused too (RFC 9422 §4.2).
    pub fn recipients_left(&self) -> usize {
        let max = self.machine.capabilities().recipients_max;
        max.map_or(usize::MAX, |max| max.saturating_sub(self.recipients) as usize)
    }

    /// Whether it may carry a whole message in one pipelined group.
    pub fn takes_whole(&self) -> bool {
        let offered = self.machine.capabilities();
        offered.chunking && offered.pipelining
    }

    /// How many recipients a transaction may name (RFC 9422 §4.2).
    pub fn recipients_max(&self) -> usize {
        self.machine.capabilities().recipients_max.map_or(usize::MAX, |max| max as usize)
    }

    /// Whether octets behind the last reply were read that nobody asked for.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Whether the upstream has said something that nobody asked for, or closed.
    pub fn has_spoken(&self) -> bool {
        !self.unread.is_empty() || self.stream.waiting() != Waiting::Nothing
    }

    /// Closes the connection and keeps the right to another.
    pub fn into_permit(self) -> Permit {
        self.permit
    }

    /// Gives the right to the connection back: it is about to take its leave.
    pub fn release(&self) {
        self.permit.release();
    }

    /// Makes sure that the upstream takes nothing of a message that was begun: the connection is reset.
    pub fn abort(self) {
        self.stream.reset_on_close();
    }

    /// Takes leave; whatever the upstream answers, the connection is closed by `by`.
    pub async fn quit(mut self, by: Moment) {
        self.command(Client::quit);
        self.stream.send_last();
        // RFC 5321 §4.1.1.10: wait for the reply before closing. Nothing depends on what it is.
        let _ = self.exchange(by).await;
    }
}
