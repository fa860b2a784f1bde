//! Messages that have grown old: whose lifetime is over, and whose sender is to hear of the delay. Pure.
//!
//! Whoever is attempted learns both after the attempt. This is for the others: while an upstream is dead, or slower than the
//! queue, most messages stand in line for hours without an attempt of their own. They are looked at in turn, some at each
//! call, so that a million of them cost no more at once than a thousand.

use std::time::Duration;

use super::{Item, NONE, Now, Schedule, Stage, unpack};
use crate::units::QueueId;

/// How far one call looks.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Messages that it looks at.
    pub messages: usize,
    /// Messages that it gives back at most.
    pub found_max: usize,
    /// `DELAY_WARNING`; `None`: nobody is told.
    pub warn_after: Option<Duration>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Aged {
    /// Their lifetime is over while their destination's breaker is open, and their destination was tried since they came:
    /// each is under way until it is reported as [`Outcome::Dropped`](super::Outcome::Dropped).
    pub expired: Vec<QueueId>,
    /// Their senders are to be told of the delay, and count as told until [`Schedule::note_told`] says otherwise. They stay
    /// where they are.
    pub late: Vec<QueueId>,
}

impl Schedule {
    /// Some messages that have grown old; to be called every tick.
    pub fn aged(&mut self, now: Now, look: Look) -> Aged {
        let mut aged = Aged::default();
        for _ in 0..look.messages.min(self.items.len()) {
            if aged.expired.len() + aged.late.len() >= look.found_max {
                break;
            }
            self.sweep = if self.sweep + 1 < self.items.len() { self.sweep + 1 } else { 0 };
            let item = self.items[self.sweep];
            if self.has_expired(&item, now) {
                self.stage(u32::try_from(self.sweep).unwrap_or(NONE), Stage::UnderWay);
                if let Some(destination) = self.destinations.get_mut(&item.keys.destination) {
                    destination.under_way += 1;
                }
                aged.expired.extend(unpack(item.id));
            } else if item.is_late(now, look.warn_after) {
                self.items[self.sweep].told = true;
                aged.late.extend(unpack(item.id));
            }
        }
        aged
    }

    fn has_expired(&self, item: &Item, now: Now) -> bool {
        let is_due = item.stage == Stage::Ready || (item.stage == Stage::Waiting && !item.postponed);
        if !is_due || !self.retry.is_expired(u64::from(item.arrival_s) * 1000, now.unix_ms) {
            return false;
        }
        let destination = self.destinations.get(&item.keys.destination);
        destination.is_some_and(|found| {
            found.breaker.is_open() && (item.attempts > 0 || found.failed_s > item.arrival_s)
        })
    }

    /// Says whether the sender of a message has been told of the delay.
    pub fn note_told(&mut self, id: QueueId, is_told: bool) {
        if let Some(at) = self.find(id) {
            self.items[at as usize].told = is_told;
        }
    }

    /// Whether the sender of a message has been told of the delay, or is just being told.
    #[must_use]
    pub fn is_told(&self, id: QueueId) -> bool {
        self.find(id).is_some_and(|at| self.items[at as usize].told)
    }
}

impl Item {
    fn is_late(&self, now: Now, warn_after: Option<Duration>) -> bool {
        let age = Duration::from_millis(now.unix_ms.saturating_sub(u64::from(self.arrival_s) * 1000));
        let is_idle = matches!(self.stage, Stage::Waiting | Stage::Ready);
        is_idle && !self.told && warn_after.is_some_and(|after| age >= after)
    }
}
