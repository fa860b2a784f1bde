//! The one home of the clock in this package. A benchmark measures real time; it must not decide anything else by it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "measuring real time is what this package is for")]
pub fn now() -> Instant {
    Instant::now()
}

/// Whole seconds since 1970-01-01 UTC; 0 where the host's clock is before it.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "results carry the day they were measured on")]
pub fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
