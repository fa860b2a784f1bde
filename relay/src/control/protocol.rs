//! What is said on the control socket: one line of JSON each way, and for `queue` a line a message.
//!
//! The client sends one [`Request`], the daemon one [`Answer`], each a JSON object on one line. Names on the wire
//! are for the same release on both ends: the binary talks to itself.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::explain::Explanation;
use super::queue::Which;
use super::status::Status;
use crate::egress::operator::{Action, Row};
use crate::limits;

/// What a verb asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How is it?
    Status,
    /// Drain and stop; the connection ends with the process.
    Stop,
    /// Read the configuration again.
    Reload {
        /// Roll back after this many milliseconds unless confirmed.
        confirm_ms: Option<u64>,
    },
    /// Keep what was reloaded.
    Confirm,
    /// Attempt every queued message now.
    Flush,
    /// What would happen to a client?
    Explain(Question),
    /// Look at messages of the queue, or change them.
    Queue {
        /// What is to be done.
        action: Action,
        /// With which messages.
        which: Which,
    },
    /// What of the gate?
    Gate {
        /// What.
        question: GateQuestion,
    },
}

/// What is asked of the gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateQuestion {
    /// Where is it, and what did it count?
    Status,
    /// Who was dropped lately?
    Drops,
    /// Who is banned?
    Bans,
    /// Ban a source.
    Ban {
        /// Whom.
        source: IpAddr,
        /// For how many milliseconds; null: until it is lifted.
        for_ms: Option<u64>,
    },
    /// Lift a ban.
    Unban {
        /// Whose.
        source: IpAddr,
    },
    /// What was refused after this one? The answer waits a while for something.
    Trace {
        /// The number of the last refusal that is known; null: the last few, at once.
        after: Option<u64>,
    },
}

/// Whom `explain` is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The client's address.
    pub address: IpAddr,
    /// The port that it connects to; 25's listener where it is not told.
    pub port: Option<u16>,
    /// The sender's address.
    pub from: Option<String>,
    /// The recipient's address.
    pub to: Option<String>,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To `status`.
    Status(Box<Status>),
    /// To `stop`, once all workers have ended.
    Stopped {
        /// Sessions cut in the middle of a transaction.
        sessions_cut: u64,
        /// Workers that did not end in time.
        workers_stuck: usize,
    },
    /// To `reload`: the new configuration is in force.
    Reloaded {
        /// What the operator should know.
        warnings: Vec<String>,
        /// It is taken back after this many milliseconds unless confirmed.
        confirm_ms: Option<u64>,
    },
    /// To `confirm`.
    Confirmed,
    /// To `flush`.
    Flushed {
        /// Messages that are attempted now.
        messages: u64,
    },
    /// To `explain`.
    Explained(Box<Explanation>),
    /// To `queue`: a message; more lines follow.
    QueueRow(Box<Row>),
    /// To `queue`: a message that cannot be read; more lines follow.
    QueueUnreadable {
        /// Its id.
        id: String,
        /// Why.
        reason: String,
    },
    /// To `queue`: the end of the answer.
    QueueEnd {
        /// Messages that were meant.
        matched: u64,
        /// Those that it was done to.
        done: u64,
        /// Those left alone because they are being delivered right now.
        under_way: u64,
        /// Those that could not be read or written.
        failed: u64,
        /// Workers that did not answer in time.
        workers_silent: usize,
    },
    /// To the gate's verbs.
    Told {
        /// The lines to print.
        text: String,
    },
    /// To `gate trace`.
    Traced {
        /// The lines to print.
        lines: Vec<String>,
        /// The number to go on from.
        last: u64,
    },
    /// To `reload`, `confirm` and the gate's verbs: nothing was changed.
    Refused {
        /// All reasons.
        mistakes: Vec<String>,
    },
    /// The request was not understood.
    Malformed {
        /// Why.
        reason: String,
    },
}

/// A duration on the wire.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads the one request of a connection.
///
/// # Errors
/// The socket's errors; [`io::ErrorKind::TimedOut`] where the line does not come in time; [`io::ErrorKind::InvalidData`]
/// with the reason where it is none of ours or too long.
pub(super) async fn read(stream: &mut UnixStream) -> io::Result<Request> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream).take(limits::CONTROL_LINE_OCTETS_MAX as u64);
    let octets = tokio::time::timeout(limits::CONTROL_REQUEST_TIMEOUT, reader.read_until(b'\n', &mut line));
    octets.await.map_err(|_elapsed| io::ErrorKind::TimedOut)??;
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the request is no complete line"));
    }
    serde_json::from_slice(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes an answer.
///
/// # Errors
/// The socket's errors; [`io::ErrorKind::TimedOut`] where the peer does not take it in time.
pub(super) async fn write(stream: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    write_within(stream, answer, limits::CONTROL_REQUEST_TIMEOUT).await
}

/// Writes an answer that its peer may take its time for.
///
/// # Errors
/// As [`write`] has them.
pub(super) async fn write_within(
    stream: &mut UnixStream,
    answer: &Answer,
    within: Duration,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let written = tokio::time::timeout(within, stream.write_all(&line));
    written.await.map_err(|_elapsed| io::ErrorKind::TimedOut)?
}
