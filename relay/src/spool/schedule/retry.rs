//! When a deferred message is tried again, and when it is given up. Pure: the times are arguments.
//!
//! Waits run on the monotonic clock. What is on the disk is wall-clock time, and wall clocks jump: a persisted time is
//! believed only as far as a wait can be long, so that a clock that was wrong neither floods an upstream nor hides mail.

use std::time::Duration;

use crate::units::Moment;

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub moment: Moment,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// `QUEUE_RETRY` and `QUEUE_LIFETIME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    waits: Vec<Duration>,
    lifetime: Duration,
}

/// A wait is up to this part of itself longer or shorter.
const JITTER_FRACTION: u64 = 10;

impl Retry {
    /// Waits between attempts, the last repeats (without any: an hour); after `lifetime` a message is returned.
    #[must_use]
    pub fn new(waits: Vec<Duration>, lifetime: Duration) -> Self {
        Self { waits: if waits.is_empty() { vec![Duration::from_secs(3600)] } else { waits }, lifetime }
    }

    /// The wait after so many attempts (1 at least), ±10 %.
    #[must_use]
    pub fn wait(&self, attempts: u32, random: u64) -> Duration {
        let at = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX).min(self.waits.len() - 1);
        let wait = u64::try_from(self.waits[at].as_micros()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
        let spread = wait / JITTER_FRACTION;
        Duration::from_micros(wait - spread + random % (2 * spread + 1))
    }

    /// The longest wait there is, jitter included.
    #[must_use]
    pub fn wait_max(&self) -> Duration {
        let longest = self.waits.iter().max().copied().unwrap_or_default();
        longest.saturating_add(longest / u32::try_from(JITTER_FRACTION).unwrap_or(1))
    }

    /// When a message is due that was persisted as due at this time: now at the earliest, one longest wait from now at the
    /// latest.
    #[must_use]
    pub fn due(&self, due_ms: u64, now: Now) -> Moment {
        let wait = Duration::from_millis(due_ms.saturating_sub(now.unix_ms));
        now.moment.after(wait.min(self.wait_max()))
    }

    /// Whether a message that was accepted at this time has outlived its time. One from the future has not.
    #[must_use]
    pub fn is_expired(&self, arrival_ms: u64, now_ms: u64) -> bool {
        Duration::from_millis(now_ms.saturating_sub(arrival_ms)) >= self.lifetime
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn retry() -> Retry {
        let waits = [1, 5, 10, 20, 40, 60].map(|minutes| Duration::from_secs(60 * minutes));
        Retry::new(waits.to_vec(), Duration::from_secs(5 * 24 * 3600))
    }

    proptest! {
        #[test]
        fn waits_are_as_configured_give_or_take_a_tenth(attempts in 1u32..1000, random: u64) {
            let base = [60, 300, 600, 1200, 2400, 3600][(attempts as usize - 1).min(5)] * 1000;
            let wait = retry().wait(attempts, random).as_millis();
            prop_assert!((base * 9 / 10..=base * 11 / 10).contains(&wait));
        }

        #[test]
        fn a_wrong_clock_neither_hides_mail_nor_wakes_it_before_now(due_ms: u64, unix_ms: u64, micros in 0u64..1 << 50) {
            let now = Now { moment: Moment(micros), unix_ms };
            let due = retry().due(due_ms, now);
            prop_assert!(due >= now.moment);
            prop_assert!(due <= now.moment.after(retry().wait_max()));
        }
    }

    #[test]
    fn a_message_from_the_future_is_not_expired() {
        assert!(!retry().is_expired(u64::MAX, 1000));
        assert!(retry().is_expired(0, 5 * 24 * 3_600_000));
        assert!(!retry().is_expired(1, 5 * 24 * 3_600_000));
    }
}
