//! `UPSTREAM_RATE`: a token bucket that is exact across workers, in one atomic word (the generic cell rate algorithm).
//!
//! The word is the time at which the bucket would be full again. An event is allowed while that is not further ahead than
//! the burst. No lock, no refill task, and no drift: the long-run rate is exactly the configured one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::policy::rate::Rate;
use crate::units::Moment;

/// A bucket. Shared by the workers.
#[derive(Debug)]
pub struct Bucket {
    /// Nanoseconds of one event.
    interval: u64,
    /// Nanoseconds that the events of one burst take at the configured rate.
    burst: u64,
    /// When it will be full again, in nanoseconds of the monotonic clock.
    full_at: AtomicU64,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let events = u128::from(rate.events.max(1));
        let interval = u64::try_from(rate.period.as_nanos() / events).unwrap_or(u64::MAX / 2).max(1);
        let burst = interval.saturating_mul(u64::from(rate.burst.max(1)));
        Self { interval, burst, full_at: AtomicU64::new(0) }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// When the next one is there, if there is none now.
    pub fn take(&self, now: Moment) -> Result<(), Moment> {
        let now = now.0.saturating_mul(1000);
        let next = |full_at: u64| {
            let full_at = full_at.max(now).saturating_add(self.interval);
            (full_at - now <= self.burst).then_some(full_at)
        };
        match self.full_at.fetch_update(Relaxed, Relaxed, next) {
            Ok(_) => Ok(()),
            Err(full_at) => {
                let at = full_at.saturating_add(self.interval).saturating_sub(self.burst);
                Err(Moment(at.div_ceil(1000)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_its_burst(
            events in 1u32..200, burst in 1u32..50, steps in prop::collection::vec(0u64..300_000, 1..200),
        ) {
            let bucket = Bucket::new(Rate { events, period: Duration::from_secs(1), burst });
            let (mut now, mut taken) = (Moment(0), 0u64);
            for step in steps {
                now = Moment(now.0 + step);
                while bucket.take(now).is_ok() {
                    taken += 1;
                }
                let at = bucket.take(now).unwrap_err();
                prop_assert!(at > now);
                let allowed = u64::from(burst) + now.0 * u64::from(events) / 1_000_000 + 1;
                prop_assert!(taken <= allowed, "{} of {}", taken, allowed);
            }
        }
    }

    #[test]
    fn it_says_exactly_when_to_come_back() {
        let bucket = Bucket::new(Rate { events: 14, period: Duration::from_secs(1), burst: 2 });
        let mut now = Moment(0);
        for _ in 0..1400 {
            while let Err(at) = bucket.take(now) {
                now = at;
            }
        }
        let expected = 1398 * 1_000_000 / 14;
        assert!(now.0.abs_diff(expected) < 1000, "{} not {expected}", now.0);
    }
}
