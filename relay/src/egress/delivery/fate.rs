//! What came of an attempt, recipient by recipient, and what follows for the message.

use crate::smtp::reply::{self, Reply};
use crate::spool::entry::{Attempt, Standing};
use crate::spool::schedule::Outcome;

use super::letter::Letter;

/// What came of an attempt for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The upstream has it, and said this.
    Delivered(Reply),
    /// Refused for good.
    Refused(Reply),
    /// To be tried again.
    Later(Reply),
}

impl Fate {
    /// By the reply of the upstream, or ours in its place.
    #[must_use]
    pub fn of(reply: Reply) -> Self {
        if reply.is_positive() {
            Self::Delivered(reply)
        } else if reply.is_permanent() {
            Self::Refused(reply)
        } else {
            Self::Later(reply)
        }
    }

    /// What was said.
    #[must_use]
    pub fn reply(&self) -> &Reply {
        match self {
            Self::Delivered(reply) | Self::Refused(reply) | Self::Later(reply) => reply,
        }
    }

    pub(super) fn standing(&self) -> Standing {
        match self {
            Self::Delivered(_) => Standing::Delivered,
            Self::Refused(_) => Standing::Failed,
            Self::Later(_) => Standing::Pending,
        }
    }

    /// The word of the log.
    pub(super) fn event(&self) -> &'static str {
        match self {
            Self::Delivered(_) => "delivered",
            Self::Refused(_) => "bounced",
            Self::Later(_) => "deferred",
        }
    }

    /// Whether the upstream itself has spoken.
    fn is_heard(&self) -> bool {
        let ours = [reply::UPSTREAM_UNREACHABLE, reply::UPSTREAM_LOST, reply::UPSTREAM_MISCONFIGURED];
        !ours.contains(self.reply())
    }
}

/// What an attempt says about its destination.
pub(super) fn outcome(fates: &[(usize, Fate)]) -> Outcome {
    if fates.iter().any(|(_, fate)| fate.is_heard()) { Outcome::Deferred } else { Outcome::Unreachable }
}

/// Writes fates into the state, and what was said into its history: each reply once.
pub(super) fn record(letter: &mut Letter, upstream: &str, at_ms: u64, fates: &[(usize, Fate)]) {
    let pending = letter.pending().len();
    let mut told: Vec<&Reply> = Vec::new();
    for (place, fate) in fates {
        letter.state.set_standing(*place, fate.standing());
        if told.contains(&fate.reply()) {
            continue;
        }
        told.push(fate.reply());
        let alike = fates.iter().filter(|(_, other)| other.reply() == fate.reply()).count();
        let recipient = if alike == pending { None } else { u32::try_from(*place).ok() };
        letter.state.remember(Attempt {
            at_ms,
            recipient,
            upstream: upstream.to_owned(),
            reply: fate.reply().to_string(),
        });
    }
}
