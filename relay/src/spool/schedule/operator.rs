//! The schedule under an operator's hand, and what others know of a destination. Pure.

use super::{NONE, Now, Schedule, Stage};
use crate::units::QueueId;

impl Schedule {
    /// Stops delivery of a message; an attempt that is under way goes on. False: no such message.
    pub fn hold(&mut self, id: QueueId) -> bool {
        let Some(at) = self.find(id) else { return false };
        if self.items[at as usize].stage == Stage::UnderWay {
            self.items[at as usize].hold_next = true;
        } else {
            self.stage(at, Stage::Held);
        }
        true
    }

    /// Lets a held message go on. False: no such message.
    pub fn release(&mut self, id: QueueId, now: Now) -> bool {
        let Some(at) = self.find(id) else { return false };
        self.items[at as usize].hold_next = false;
        if self.items[at as usize].stage == Stage::Held {
            self.wait_or_line_up(at, now.moment);
        }
        true
    }

    /// Makes a message due now, held or not. False: no such message.
    pub fn requeue(&mut self, id: QueueId, now: Now) -> bool {
        let Some(at) = self.find(id) else { return false };
        self.items[at as usize].hold_next = false;
        if self.items[at as usize].stage != Stage::UnderWay {
            self.items[at as usize].due = 0;
            self.wait_or_line_up(at, now.moment);
        }
        true
    }

    /// Makes everything due now that is not held, and probes dead destinations: `flush`.
    pub fn flush(&mut self, now: Now) {
        for at in 0..self.items.len() {
            if self.items[at].stage == Stage::Waiting {
                self.items[at].due = 0;
                self.wait_or_line_up(u32::try_from(at).unwrap_or(NONE), now.moment);
            }
        }
        self.timers.clear();
        self.pauses.clear();
        let keys: Vec<u32> = self.destinations.keys().copied().collect();
        keys.into_iter().for_each(|key| self.probe(key));
    }

    /// Whether an operator has stopped a message.
    #[must_use]
    pub fn is_held(&self, id: QueueId) -> bool {
        self.find(id).is_some_and(|at| {
            let item = &self.items[at as usize];
            item.stage == Stage::Held || item.hold_next
        })
    }

    /// Whether an attempt of a message is under way.
    #[must_use]
    pub fn is_under_way(&self, id: QueueId) -> bool {
        self.find(id).is_some_and(|at| self.items[at as usize].stage == Stage::UnderWay)
    }

    /// Whether nothing but a probe goes to a destination.
    #[must_use]
    pub fn is_dead(&self, destination: u32) -> bool {
        self.destinations.get(&destination).is_some_and(|destination| destination.breaker.is_open())
    }

    /// A destination has shown life elsewhere: it may be probed now.
    pub fn probe(&mut self, destination: u32) {
        if let Some(found) = self.destinations.get_mut(&destination) {
            found.breaker.probe_now();
            found.paused = false;
        }
        self.take_turn(destination);
    }
}
