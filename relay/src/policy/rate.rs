//! Token buckets over times that the caller gives.

use std::time::Duration;

/// So many events in a period, with a burst: `14/s burst 50`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Events in one period.
    pub events: u32,
    /// The period.
    pub period: Duration,
    /// Events that may come at once.
    pub burst: u32,
}
