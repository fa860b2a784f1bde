//! The label values of every metric, as closed enums, and arrays indexed by them.
//!
//! A value that is not listed here cannot be exposed: the number of time series is fixed when the relay is
//! compiled. Must not hold anything that a peer or the configuration names.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// The values of one label.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Label::position`].
    const ALL: &'static [Self];

    /// The place of this value in [`Label::ALL`].
    fn position(self) -> usize;

    /// The value as it stands in `/metrics`.
    fn text(self) -> &'static str;
}

/// One value for each value of a label: an array that is indexed by the label.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Per<L, T, const N: usize> {
    values: [T; N],
    label: PhantomData<L>,
}

impl<L: Label, T, const N: usize> Per<L, T, N> {
    /// The values with their labels, in the order of the label.
    pub fn iter(&self) -> impl Iterator<Item = (L, &T)> {
        L::ALL.iter().copied().zip(&self.values)
    }

    /// The values alone, in the order of the label.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }

    /// The values alone, to be changed, in the order of the label.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.iter_mut()
    }
}

impl<L: Label, const N: usize> Per<L, u64, N> {
    /// The values of all labels together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.values.iter().sum()
    }
}

impl<L: Label, T: Default, const N: usize> Default for Per<L, T, N> {
    fn default() -> Self {
        Self { values: std::array::from_fn(|_| T::default()), label: PhantomData }
    }
}

impl<L: Label, T, const N: usize> Index<L> for Per<L, T, N> {
    type Output = T;

    fn index(&self, label: L) -> &T {
        &self.values[label.position()]
    }
}

impl<L: Label, T, const N: usize> IndexMut<L> for Per<L, T, N> {
    fn index_mut(&mut self, label: L) -> &mut T {
        &mut self.values[label.position()]
    }
}

impl<L: Label, T: fmt::Debug, const N: usize> fmt::Debug for Per<L, T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(label, value)| (label.text(), value))).finish()
    }
}

/// Declares a label, its values with their text, and the array type that it indexes.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $per:ident, { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$value_doc])* $value,)+ }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$value,)+];

            fn position(self) -> usize {
                self as usize
            }

            fn text(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }

        #[doc = concat!("One value for each [`", stringify!($name), "`].")]
        pub type $per<T = u64> = Per<$name, T, { $name::ALL.len() }>;
    };
}

label! {
    /// The kind of listener that a session came in by.
    Listener, PerListener, {
        /// `LISTEN_SMTP`.
        Smtp = "smtp",
        /// `LISTEN_SUBMISSION`.
        Submission = "submission",
        /// `LISTEN_SUBMISSIONS`.
        Submissions = "submissions",
    }
}

label! {
    /// How a session ended.
    SessionOutcome, PerSessionOutcome, {
        /// The client said QUIT.
        Quit = "quit",
        /// The client went away without QUIT.
        Lost = "lost",
        /// A deadline or the minimum rate ended it.
        Timeout = "timeout",
        /// Too many errors, an early talker or another protocol on the port.
        Abuse = "abuse",
        /// Not served at all: outside the networks of the listener, or a limit of sessions was reached.
        Refused = "refused",
        /// Ended with 421 because the relay stops.
        Stopped = "stopped",
        /// A fault on our side ended it.
        Fault = "fault",
    }
}

label! {
    /// Who held a message when its client heard 250.
    Custody, PerCustody, {
        /// The upstream had said 250.
        Upstream = "upstream",
        /// It was synced to the spool.
        Spool = "spool",
    }
}

label! {
    /// What became of a recipient.
    RecipientOutcome, PerRecipientOutcome, {
        /// The upstream took the message for it.
        Delivered = "delivered",
        /// A temporary failure: tried again, by us or by the client.
        Deferred = "deferred",
        /// A lasting failure after we had taken the message: returned to the sender.
        Bounced = "bounced",
        /// A lasting failure that the client heard itself.
        Rejected = "rejected",
    }
}

label! {
    /// The way of message content.
    Direction, PerDirection, {
        /// From clients.
        In = "in",
        /// To upstreams.
        Out = "out",
    }
}

label! {
    /// The state of a queued message, as `postqueue` names it.
    QueueState, PerQueueState, {
        /// Being delivered, or due.
        Active = "active",
        /// Waiting for its next attempt.
        Deferred = "deferred",
        /// Held by the operator.
        Hold = "hold",
    }
}

label! {
    /// The end of a login.
    AuthOutcome, PerAuthOutcome, {
        /// Right.
        Ok = "ok",
        /// Wrong, malformed or given up.
        Failed = "failed",
    }
}

label! {
    /// Which end of TLS we are.
    TlsSide, PerTlsSide, {
        /// With a client: we are the server.
        Inbound = "inbound",
        /// With an upstream: we are the client.
        Outbound = "outbound",
    }
}

label! {
    /// The TLS version agreed on.
    TlsVersion, PerTlsVersion, {
        /// TLS 1.2.
        V1_2 = "1.2",
        /// TLS 1.3.
        V1_3 = "1.3",
        /// The handshake ended before one was agreed on.
        None = "none",
    }
}

label! {
    /// The end of a TLS handshake.
    HandshakeOutcome, PerHandshakeOutcome, {
        /// Done.
        Ok = "ok",
        /// Failed, a certificate refused among the reasons.
        Failed = "failed",
    }
}

label! {
    /// The driver that a worker runs on: the rung of the ladder that this kernel allowed.
    IoDriver, PerIoDriver, {
        /// `io_uring` with DEFER_TASKRUN.
        DeferTaskrun = "io_uring-defer-taskrun",
        /// `io_uring` with COOP_TASKRUN.
        CoopTaskrun = "io_uring-coop-taskrun",
        /// `io_uring` without either.
        Plain = "io_uring",
        /// epoll: `io_uring` is refused here.
        Epoll = "epoll",
    }
}

impl IoDriver {
    /// The driver of that name, as the ladder calls its rungs.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|driver| driver.text() == name)
    }
}

label! {
    /// The end of a reload.
    ReloadOutcome, PerReloadOutcome, {
        /// The new configuration is in force.
        Ok = "ok",
        /// The old configuration stays.
        Refused = "refused",
        /// It was in force, was not confirmed in time, and was taken back.
        RolledBack = "rolled_back",
    }
}

label! {
    /// What the gate did with a packet.
    GateVerdict, PerGateVerdict, {
        /// To a listener of ours, from an accepted source.
        Accepted = "accepted",
        /// Dropped: the source is in no network of the port.
        DroppedNetwork = "dropped_network",
        /// Dropped: the source is banned.
        DroppedBan = "dropped_ban",
        /// Dropped: too many new connections from the source.
        DroppedRate = "dropped_rate",
        /// Answered with a TCP reset.
        Reset = "reset",
        /// Would have been dropped, but `XDP_ACTION=count`.
        Counted = "counted",
        /// Not for a listener of ours.
        Other = "other",
        /// Not understood, and passed.
        Unparsed = "unparsed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds_its_order<L: Label + PartialEq + fmt::Debug>() {
        for (place, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.position(), place, "{label:?}");
            assert!(label.text().bytes().all(|octet| octet.is_ascii_graphic() && octet != b'"'), "{label:?}");
        }
    }

    #[test]
    fn labels_stand_at_their_position_and_need_no_escaping() {
        holds_its_order::<Listener>();
        holds_its_order::<SessionOutcome>();
        holds_its_order::<IoDriver>();
        holds_its_order::<GateVerdict>();
        holds_its_order::<TlsVersion>();
    }

    #[test]
    fn an_array_is_read_where_it_was_written() {
        let mut counts = PerListener::<u64>::default();
        counts[Listener::Submissions] += 3;
        assert_eq!(counts[Listener::Submissions], 3);
        assert_eq!(counts[Listener::Smtp], 0);
        assert_eq!(counts.total(), 3);
    }
}
