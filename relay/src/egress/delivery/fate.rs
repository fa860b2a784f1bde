//! What came of an attempt, recipient by recipient, and what follows for the message.

use crate::smtp::reply::{self, Reply};
use crate::spool::entry::{Attempt, Recipient, Standing};
use crate::spool::schedule::Outcome;

use super::Hop;
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
        let ours = [
            reply::UPSTREAM_UNREACHABLE,
            reply::UPSTREAM_BUSY,
            reply::UPSTREAM_LOST,
            reply::UPSTREAM_MISCONFIGURED,
        ];
        !ours.contains(self.reply())
    }
}

/// What an attempt says about its destination.
pub(super) fn outcome(fates: &[(usize, Fate)]) -> Outcome {
    let mut unasked = fates.iter().filter(|(_, fate)| *fate.reply() == reply::UPSTREAM_BUSY);
    if fates.iter().any(|(_, fate)| fate.is_heard()) {
        Outcome::Deferred
    } else if unasked.next().is_some() {
        Outcome::Unasked
    } else {
        Outcome::Unreachable
    }
}

/// RFC 3461 §5.2.2: who asked to hear of success hears from us where the upstream cannot tell.
fn is_to_be_told(letter: &Letter, place: usize, hop: Hop<'_>, fate: &Fate) -> bool {
    let wants = |recipient: &Recipient| recipient.notify & Recipient::SUCCESS != 0;
    !hop.sends_notices
        && matches!(fate, Fate::Delivered(_))
        && letter.entry.recipients.get(place).is_some_and(wants)
}

/// Writes fates into the state, and what was said into its history: each reply once.
pub(super) fn record(letter: &mut Letter, hop: Hop<'_>, at_ms: u64, fates: &[(usize, Fate)]) {
    let pending = letter.pending().len();
    let mut told: Vec<&Reply> = Vec::new();
    for (place, fate) in fates {
        let standing =
            if is_to_be_told(letter, *place, hop, fate) { Standing::Relayed } else { fate.standing() };
        letter.state.set_standing(*place, standing);
        if told.contains(&fate.reply()) {
            continue;
        }
        told.push(fate.reply());
        let alike = fates.iter().filter(|(_, other)| other.reply() == fate.reply()).count();
        let recipient = if alike == pending { None } else { u32::try_from(*place).ok() };
        letter.state.remember(Attempt {
            at_ms,
            recipient,
            upstream: hop.upstream.to_owned(),
            reply: fate.reply().to_string(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_a_connection_is_told_from_want_of_an_upstream() {
        let fates = |replies: &[Reply]| -> Vec<(usize, Fate)> {
            replies.iter().cloned().map(Fate::of).enumerate().collect()
        };
        let (busy, dead) = (reply::UPSTREAM_BUSY, reply::UPSTREAM_UNREACHABLE);
        assert_eq!(outcome(&fates(&[busy.clone(), busy.clone()])), Outcome::Unasked);
        assert_eq!(outcome(&fates(std::slice::from_ref(&dead))), Outcome::Unreachable);
        let heard = Reply::new(450, None, "4.2.0 Busy".to_owned());
        assert_eq!(outcome(&fates(&[busy, dead, heard])), Outcome::Deferred);
    }
}
