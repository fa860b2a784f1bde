//! The log lines of inbound sessions: one for each recipient's outcome. Field names are a promise (INTERFACE §4).
//!
//! Peers' text is escaped by the writer of the log; no message content and no secret is ever given to it.

use std::time::Duration;

use super::session::Session;
use super::sink::Sink;
use crate::custody::Custody;
use crate::envelope::Envelope;
use crate::io::Io;
use crate::meter::{AuthOutcome, Label};
use crate::smtp::params::{Mail, Rcpt};
use crate::smtp::reply::Reply;
use crate::smtp::server::Proof;
use crate::tls::{Agreed, Fault};

/// A message was taken: one line for each recipient.
pub(super) fn relayed<I: Io, S: Sink>(
    session: &Session<I, S>,
    envelope: &Envelope,
    custody: &Custody,
    delay: Duration,
) {
    let reply = custody.reply();
    for (place, rcpt) in envelope.recipients.iter().enumerate() {
        tracing::info!(
            event = if session.sink().is_queued(place) { "queued" } else { "relayed" },
            session = %session.id,
            queue_id = %envelope.id,
            client = %session.peer.client.ip(),
            listener = session.peer.listener.text(),
            helo = session.machine().helo().unwrap_or_default(),
            user = session.user(),
            from = envelope.mail.reverse_path.as_str(),
            to = rcpt.forward_path.as_str(),
            nrcpt = envelope.recipients.len(),
            size = session.machine().body_octets(),
            upstream = session.sink().upstream().unwrap_or_default(),
            custody = custody.holder().text(),
            reply = reply.text(),
            code = reply.code(),
            enhanced = %Enhanced(&reply),
            delay = delay.as_secs_f64(),
            tls = session.sink().upstream_tls(),
            client_tls = %ClientTls(session.agreed()),
        );
    }
}

/// A client has tried to log in; the name only where it is one of ours.
pub(super) fn login<I: Io, S: Sink>(session: &Session<I, S>, user: Option<&str>, outcome: AuthOutcome) {
    let is_right = outcome == AuthOutcome::Ok;
    tracing::info!(
        event = if is_right { "authenticated" } else { "login_failed" },
        session = %session.id,
        client = %session.peer.client.ip(),
        listener = session.peer.listener.text(),
        user,
        client_tls = %ClientTls(session.agreed()),
    );
}

/// A client and we could not agree on TLS.
pub(super) fn handshake_failed<I: Io, S: Sink>(session: &Session<I, S>, fault: &Fault) {
    tracing::info!(
        event = "tls_failed",
        session = %session.id,
        client = %session.peer.client.ip(),
        listener = session.peer.listener.text(),
        reason = %fault,
    );
}

/// A message was not taken: one line for each recipient.
pub(super) fn message_refused<I: Io, S: Sink>(
    session: &Session<I, S>,
    envelope: &Envelope,
    reply: &Reply,
    delay: Duration,
) {
    for rcpt in &envelope.recipients {
        refused(session, envelope, Some(rcpt), reply, delay);
    }
}

/// A recipient was not taken.
pub(super) fn recipient_refused<I: Io, S: Sink>(
    session: &Session<I, S>,
    envelope: &Envelope,
    rcpt: Option<&Rcpt>,
    reply: &Reply,
) {
    refused(session, envelope, rcpt, reply, Duration::ZERO);
}

/// A sender was not taken.
pub(super) fn sender_refused<I: Io, S: Sink>(session: &Session<I, S>, mail: &Mail, reply: &Reply) {
    tracing::info!(
        event = outcome(reply),
        session = %session.id,
        client = %session.peer.client.ip(),
        listener = session.peer.listener.text(),
        helo = session.machine().helo().unwrap_or_default(),
        from = mail.reverse_path.as_str(),
        reply = reply.text(),
        code = reply.code(),
        enhanced = %Enhanced(reply),
    );
}

fn refused<I: Io, S: Sink>(
    session: &Session<I, S>,
    envelope: &Envelope,
    rcpt: Option<&Rcpt>,
    reply: &Reply,
    delay: Duration,
) {
    tracing::info!(
        event = outcome(reply),
        session = %session.id,
        queue_id = %envelope.id,
        client = %session.peer.client.ip(),
        listener = session.peer.listener.text(),
        helo = session.machine().helo().unwrap_or_default(),
        from = envelope.mail.reverse_path.as_str(),
        to = rcpt.map_or("", |rcpt| rcpt.forward_path.as_str()),
        size = session.machine().body_octets(),
        upstream = session.sink().upstream().unwrap_or_default(),
        reply = reply.text(),
        code = reply.code(),
        enhanced = %Enhanced(reply),
        delay = delay.as_secs_f64(),
    );
}

fn outcome(reply: &Reply) -> &'static str {
    if reply.is_permanent() { "rejected" } else { "deferred" }
}

/// The TLS of a session, or `none`.
struct ClientTls(Option<Agreed>);

impl std::fmt::Display for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(agreed) => agreed.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// An enhanced code, or nothing.
struct Enhanced<'a>(&'a Reply);

impl std::fmt::Display for Enhanced<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.enhanced().map_or(Ok(()), |enhanced| enhanced.fmt(f))
    }
}
