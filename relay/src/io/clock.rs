//! The one place that reads a clock.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::units::Moment;

/// Microseconds of the monotonic clock since this was first called.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the home of the clock")]
pub fn now() -> Moment {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    Moment(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// Milliseconds of the wall clock since the Unix epoch; 0 before it.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the home of the clock")]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
