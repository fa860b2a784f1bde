//! What a worker counts: plain numbers beside the code that counts them.
//!
//! Each worker owns one [`Meter`] and adds to its fields with `+= 1`: no lock, no atomic, no global. The control
//! plane asks for a copy by message, merges the copies of all workers ([`Meter::merge`]) and writes them as
//! Prometheus text ([`expose`]). Labels are closed enums ([`labels`]); the one open set, the names of
//! upstreams, is bounded by `limits::UPSTREAMS_METERED_MAX`.
//!
//! The table in [`catalogue`] holds every metric once: its name, its help and the function that writes its
//! samples. `/metrics` and `docs/METRICS.md` both come from it, so neither can forget one.
//!
//! Must not: read a clock (durations are arguments), allocate on the hot path (the name of an upstream is looked
//! up once, then used by its slot), hold anything a peer chose as a label.

pub mod catalogue;
pub mod distribution;
mod exposition;
pub mod labels;
pub mod upstreams;

pub use catalogue::reference;
pub use distribution::Distribution;
pub use exposition::{GateInterface, Process, Snapshot, expose};
pub use labels::{
    AuthOutcome, Custody, Direction, GateVerdict, HandshakeOutcome, IoDriver, Label, Listener, QueueState,
    RecipientOutcome, ReloadOutcome, SessionOutcome, TlsSide, TlsVersion,
};
pub use upstreams::{Health, Upstream, UpstreamSlot, Upstreams};

use labels::{
    Per, PerCustody, PerDirection, PerIoDriver, PerListener, PerQueueState, PerRecipientOutcome,
    PerSessionOutcome, PerTlsSide, PerTlsVersion,
};

/// The counters, gauges and latencies of one worker, or of several merged.
///
/// Counters only grow; gauges (`*_open`, `queue_*`, the upstreams' `idle` and `busy`) go both ways and their
/// owner takes back what it added.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// Sessions open now.
    pub sessions_open: PerListener,
    /// Sessions that have ended, by how. A connection that was refused counts too.
    pub sessions: PerListener<PerSessionOutcome>,
    /// Messages whose end of data has been reached, whatever became of them.
    pub messages_received: PerListener,
    /// Messages answered with 250, by who held them then.
    pub messages_relayed: PerCustody,
    /// Recipients by what became of them.
    pub recipients: PerRecipientOutcome,
    /// Octets of message content, as counted for SIZE.
    pub message_octets: PerDirection,
    /// Messages in the queue.
    pub queue_messages: PerQueueState,
    /// Octets of the messages in the queue.
    pub queue_octets: u64,
    /// Age of the oldest message in the queue, in seconds; merged as the greatest.
    pub queue_oldest_seconds: u64,
    /// Time of one sync of the spool, in microseconds.
    pub spool_sync: Distribution,
    /// Messages made durable by one sync of the spool.
    pub spool_sync_batch: Distribution,
    /// Spools that cannot be written: a worker sets 1 for its own.
    pub spools_broken: u64,
    /// Whether the spool has no room.
    pub spools_full: u64,
    /// Messages whose upstream broke between the final dot and its verdict.
    pub outcomes_unknown: u64,
    /// Time from the end of data to the reply, in microseconds.
    pub accept: Distribution,
    /// Time from the end of data to the upstream's 250, in microseconds.
    pub delivery: Distribution,
    /// Connections to upstreams and whether they are up.
    pub upstreams: Upstreams,
    /// Logins tried by clients.
    pub auth: labels::PerAuthOutcome,
    /// TLS handshakes done or failed.
    pub tls_handshakes: PerTlsSide<PerTlsVersion<labels::PerHandshakeOutcome>>,
    /// Workers by the driver they run on: a worker sets 1 in its own.
    pub io_driver: PerIoDriver,
}

impl Meter {
    /// Adds the numbers of another worker to these.
    pub fn merge(&mut self, other: &Self) {
        self.sessions_open.merge(&other.sessions_open);
        self.sessions.merge(&other.sessions);
        self.messages_received.merge(&other.messages_received);
        self.messages_relayed.merge(&other.messages_relayed);
        self.recipients.merge(&other.recipients);
        self.message_octets.merge(&other.message_octets);
        self.queue_messages.merge(&other.queue_messages);
        self.queue_octets.merge(&other.queue_octets);
        self.queue_oldest_seconds = self.queue_oldest_seconds.max(other.queue_oldest_seconds);
        self.spool_sync.merge(&other.spool_sync);
        self.spool_sync_batch.merge(&other.spool_sync_batch);
        self.spools_broken.merge(&other.spools_broken);
        self.spools_full.merge(&other.spools_full);
        self.outcomes_unknown.merge(&other.outcomes_unknown);
        self.accept.merge(&other.accept);
        self.delivery.merge(&other.delivery);
        self.upstreams.merge(&other.upstreams);
        self.auth.merge(&other.auth);
        self.tls_handshakes.merge(&other.tls_handshakes);
        self.io_driver.merge(&other.io_driver);
    }
}

/// Numbers of one worker that can be added to those of another.
pub trait Merge {
    /// Adds `other` to `self`.
    fn merge(&mut self, other: &Self);
}

impl Merge for u64 {
    fn merge(&mut self, other: &Self) {
        *self = self.saturating_add(*other);
    }
}

impl<L: Label, T: Merge, const N: usize> Merge for Per<L, T, N> {
    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.values_mut().zip(other.values()) {
            mine.merge(theirs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn busy_meter() -> Meter {
        let mut meter = Meter::default();
        meter.sessions_open[Listener::Smtp] += 2;
        meter.sessions[Listener::Smtp][SessionOutcome::Quit] += 7;
        meter.messages_relayed[Custody::Upstream] += 5;
        meter.queue_oldest_seconds = 40;
        meter.accept.record_duration(Duration::from_millis(3));
        meter.tls_handshakes[TlsSide::Outbound][TlsVersion::V1_3][HandshakeOutcome::Ok] += 1;
        meter
    }

    #[test]
    fn merging_adds_counters_and_keeps_the_oldest() {
        let mut sum = busy_meter();
        let mut other = busy_meter();
        other.queue_oldest_seconds = 9;
        sum.merge(&other);
        assert_eq!(sum.sessions_open[Listener::Smtp], 4);
        assert_eq!(sum.sessions[Listener::Smtp][SessionOutcome::Quit], 14);
        assert_eq!(sum.sessions[Listener::Submission][SessionOutcome::Quit], 0);
        assert_eq!(sum.messages_relayed[Custody::Upstream], 10);
        assert_eq!(sum.queue_oldest_seconds, 40);
        assert_eq!(sum.accept.count(), 2);
        assert_eq!(sum.tls_handshakes[TlsSide::Outbound][TlsVersion::V1_3][HandshakeOutcome::Ok], 2);
    }

    #[test]
    fn merging_an_idle_worker_changes_nothing() {
        let mut sum = busy_meter();
        sum.merge(&Meter::default());
        assert_eq!(sum.sessions[Listener::Smtp][SessionOutcome::Quit], 7);
        assert_eq!(sum.accept.count(), 1);
        assert_eq!(sum.queue_oldest_seconds, 40);
    }
}
