//! The proof that somebody holds a message safely: the only way to a 250 after end of data (invariant 1).
//!
//! [`Custody`] has private fields and two constructors, one for each holder; [`Proof`] is implemented here and nowhere
//! else. To review the invariant, look for the callers of the two.

use crate::meter::Custody as Holder;
use crate::smtp::client::{Expect, UpstreamReply};
use crate::smtp::reply::{self, Reply};
use crate::smtp::server::Proof;
use crate::spool::Receipt;

/// A message is held by somebody who has taken responsibility for it (RFC 5321 §6.1).
#[derive(Debug)]
pub struct Custody {
    holder: Holder,
    reply: Reply,
}

impl Custody {
    /// The upstream's own word: its positive reply to the end of the message, and to nothing else.
    #[must_use]
    pub fn of_upstream(to: Expect, reply: &UpstreamReply) -> Option<Self> {
        let is_verdict = matches!(to, Expect::Message | Expect::LastChunk);
        (is_verdict && reply.is_positive())
            .then(|| Self { holder: Holder::Upstream, reply: reply.to_reply() })
    }

    /// The spool's word: the message is on stable storage, and delivering it is our business from now on.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "a receipt is good for one reply")]
    pub fn of_spool(receipt: Receipt) -> Self {
        Self { holder: Holder::Spool, reply: reply::queued_as(&receipt.id().to_string()) }
    }

    /// Who holds the message.
    #[must_use]
    pub fn holder(&self) -> Holder {
        self.holder
    }
}

impl Proof for Custody {
    fn reply(&self) -> Reply {
        self.reply.clone()
    }
}
