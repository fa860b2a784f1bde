//! What an operator is shown of a message.
//!
//! Plain values that travel on the control socket as JSON. Addresses and replies are what peers said: whoever prints them
//! makes them fit for a terminal first.

use serde::{Deserialize, Serialize};

use crate::io::files::Files;
use crate::limits::HEADER_SECTION_OCTETS_MAX;
use crate::smtp::body::Form;
use crate::spool::entry::{Attempt, Ret, Standing, State};
use crate::spool::schedule::Doing;
use crate::spool::{Body, Message, ReadFault};
use crate::trace::{HeaderScan, HeaderState};
use crate::units::QueueId;

/// One message of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// `incoming`, `active`, `deferred` or `hold`, as Postfix calls its queues.
    pub queue: String,
    /// When it was accepted, in milliseconds since the Unix epoch.
    pub arrival_ms: u64,
    /// When its next attempt is due, in milliseconds since the Unix epoch.
    pub due_ms: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// Octets of the message.
    pub octets: u64,
    /// The reverse-path without brackets; empty for the null sender.
    pub sender: String,
    /// Its recipients, in order, settled ones too.
    pub recipients: Vec<RowRecipient>,
    /// `RET`, where it was given.
    pub ret: Option<String>,
    /// `ENVID`, where it was given.
    pub envid: Option<String>,
    /// Who handed it in: address, what it called itself, login, TLS, listener.
    pub client: String,
    /// What it called itself.
    pub helo: String,
    /// Whom it authenticated as.
    pub login: Option<String>,
    /// The TLS that it used.
    pub tls: Option<String>,
    /// The last attempts, oldest first.
    pub history: Vec<RowAttempt>,
    /// The header section, where it was asked for.
    pub header: Option<String>,
}

/// One recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowRecipient {
    /// The forward-path without brackets.
    pub address: String,
    /// `pending`, `delivered`, `failed` or `returned`.
    pub standing: String,
    /// The last thing that was said about it.
    pub reason: Option<String>,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowAttempt {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The recipient that it is about; `None`: all that were pending.
    pub recipient: Option<String>,
    /// The upstream; empty where there was none.
    pub upstream: String,
    /// Its reply, or what went wrong.
    pub reply: String,
}

impl Row {
    pub(super) fn of<F: Files>(
        id: QueueId,
        message: &Message<F>,
        doing: Option<Doing>,
        header: Option<String>,
    ) -> Self {
        let Message { entry, state, body_octets, .. } = message;
        let address = |recipient: u32| {
            let recipient = entry.recipients.get(usize::try_from(recipient).ok()?)?;
            Some(recipient.address.clone())
        };
        let history = state.history.iter().map(|attempt| RowAttempt {
            at_ms: attempt.at_ms,
            recipient: attempt.recipient.and_then(address),
            upstream: attempt.upstream.clone(),
            reply: attempt.reply.clone(),
        });
        let recipients = entry.recipients.iter().enumerate().map(|(number, recipient)| RowRecipient {
            address: recipient.address.clone(),
            standing: standing_name(state.standing(number)).to_owned(),
            reason: reason(state, number),
        });
        Self {
            id: id.to_string(),
            queue: queue_name(doing, state).to_owned(),
            arrival_ms: entry.arrival_ms,
            due_ms: state.due_ms,
            attempts: state.attempts,
            octets: *body_octets,
            sender: entry.sender.clone(),
            recipients: recipients.collect(),
            ret: entry.ret.map(|ret| if ret == Ret::Full { "FULL" } else { "HDRS" }.to_owned()),
            envid: entry.envid.clone(),
            client: format!(
                "{} port {} on {}",
                entry.client.address, entry.client.port, entry.client.listener
            ),
            helo: entry.client.helo.clone(),
            login: entry.client.login.clone(),
            tls: entry.client.tls.clone(),
            history: history.collect(),
            header,
        }
    }
}

fn queue_name(doing: Option<Doing>, state: &State) -> &'static str {
    match doing {
        Some(Doing::Held) => "hold",
        Some(Doing::Waiting) if state.attempts > 0 => "deferred",
        Some(Doing::Waiting) => "incoming",
        // Streamed to an upstream right now, in line for an attempt, or being attempted.
        None | Some(Doing::Ready | Doing::UnderWay) => "active",
    }
}

fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Pending => "pending",
        Standing::Delivered => "delivered",
        Standing::Failed => "failed",
        Standing::Returned => "returned",
        Standing::Relayed => "relayed",
    }
}

/// What was last said about a recipient.
fn reason(state: &State, recipient: usize) -> Option<String> {
    let is_about = |attempt: &&Attempt| {
        attempt.recipient.is_none_or(|about| usize::try_from(about).is_ok_and(|about| about == recipient))
    };
    let last = state.history.iter().rev().find(is_about)?;
    Some(match last.upstream.as_str() {
        "" => last.reply.clone(),
        upstream => format!("{upstream}: {}", last.reply),
    })
}

/// The header section of a body, as text; at most [`HEADER_SECTION_OCTETS_MAX`].
pub(super) async fn header<F: Files>(body: &mut Body<F>) -> Result<String, ReadFault> {
    let mut scan = HeaderScan::new(Form::Plain);
    let mut seen = Vec::new();
    while let Some(octets) = body.next().await? {
        let part = &octets[..octets.len().min(HEADER_SECTION_OCTETS_MAX - seen.len())];
        seen.extend_from_slice(part);
        if scan.scan(part) != HeaderState::More || seen.len() == HEADER_SECTION_OCTETS_MAX {
            break;
        }
    }
    scan.finish();
    seen.truncate(scan.octets());
    Ok(String::from_utf8_lossy(&seen).into_owned())
}
