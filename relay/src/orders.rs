//! What the control plane may ask of a worker: the seam between the two.
//!
//! A worker owns the receiving end of one bounded channel and looks at it in its loop; each order carries its own
//! channel for the answer, with room for one, so that answering never waits. The asking side, with its time
//! limits, is `control::Workers`. Stands below both, so that neither imports the other.
//!
//! Must not: be used on the way of a message. Orders are rare (a scrape, a reload, a stop).

use std::sync::Arc;
use std::time::Duration;

use crate::egress::operator::QueueOrder;
use crate::meter::Meter;
use crate::{egress, gate, ingress, limits, spool, tls};

/// One thing asked of a worker.
#[derive(Debug)]
pub enum Order {
    /// Give a copy of the meter.
    Snapshot(Reply<Box<Meter>>),
    /// Take these settings from the next session and the next transaction on; open sessions go on (invariant 10).
    /// `Err` says why the worker keeps its old settings.
    Reload(Settings, Reply<Result<(), String>>),
    /// Look at messages of the queue, or change them; answered line by line.
    Queue(QueueOrder),
    /// Attempt now what waits; the answer is how many messages that are.
    Flush(Reply<u64>),
    /// Stop listening, let open transactions end, end sessions with 421 and answer when all is done or the time
    /// is over, whichever is first. The worker's loop ends after the answer.
    Drain {
        /// How long open transactions may take.
        within: Duration,
        /// The answer.
        done: Reply<Drained>,
    },
}

/// What a worker runs by: shared, immutable, swapped as a whole.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For inbound sessions.
    pub ingress: Arc<ingress::Config>,
    /// For upstreams.
    pub egress: Arc<egress::Config>,
    /// TLS for both.
    pub tls: tls::Armour,
    /// For the gate, which the control plane has: lists and bans change together with the rest.
    pub gate: Arc<gate::Config>,
    /// For the queue.
    pub spool: Arc<spool::Config>,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Sessions that had to be cut in the middle of a transaction.
    pub sessions_cut: u64,
}

/// Where the answer to an order goes. Made by [`reply`]; one answer fits without waiting.
pub type Reply<T> = flume::Sender<T>;

/// The channel of one worker: the control plane keeps the first end, the worker the second.
#[must_use]
pub fn channel() -> (flume::Sender<Order>, flume::Receiver<Order>) {
    flume::bounded(limits::WORKER_ORDERS_MAX)
}

/// The channel of one answer.
#[must_use]
pub fn reply<T>() -> (Reply<T>, flume::Receiver<T>) {
    flume::bounded(1)
}
