//! Whether a destination is worth an attempt: a breaker with probes, and a window that opens slowly.
//!
//! After a few failures in a row nothing is sent but one probe at a time, at growing intervals: a dead upstream costs one
//! attempt now and then, whatever the backlog. When it answers again, the window opens by one with each success.

use std::time::Duration;

use crate::units::Moment;

/// The state of one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Breaker {
    failures: u32,
    /// Closed: [`Moment`] 0. Open: until then nothing is tried.
    until: Moment,
    /// Attempts that may be under way at once.
    window: u32,
}

/// Failures in a row that open the breaker.
const FAILURES_MAX: u32 = 3;
/// The first pause; each further failure doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause: so long an upstream that is up again may wait for its first message.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Attempts at once at a destination that nothing is known of.
const WINDOW_FIRST: u32 = 2;

impl Breaker {
    pub(super) fn new() -> Self {
        Self { failures: 0, until: Moment(0), window: WINDOW_FIRST }
    }

    pub(super) fn is_open(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// Whether another attempt may begin beside those that are under way.
    pub(super) fn allows(&self, under_way: u32, limit: u32, now: Moment) -> bool {
        if self.is_open() { under_way == 0 && now >= self.until } else { under_way < self.window.min(limit) }
    }

    /// Until when nothing is tried; [`Moment`] 0 where that is not a question of time.
    pub(super) fn until(&self) -> Moment {
        if self.is_open() { self.until } else { Moment(0) }
    }

    pub(super) fn succeeded(&mut self, limit: u32) {
        self.window = if self.is_open() { WINDOW_FIRST } else { (self.window + 1).min(limit.max(1)) };
        self.failures = 0;
    }

    pub(super) fn failed(&mut self, now: Moment, random: u64) {
        self.failures = self.failures.saturating_add(1);
        self.window = (self.window / 2).max(1);
        if self.is_open() {
            let doublings = (self.failures - FAILURES_MAX).min(16);
            let pause = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX);
            // Up to a fifth more, so that workers do not probe in step.
            let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX / 8);
            self.until = now.after(Duration::from_micros(micros + random % (micros / 5 + 1)));
        }
    }

    /// The operator wants it tried now.
    pub(super) fn probe_now(&mut self) {
        self.until = Moment(0);
    }

    /// Whether nothing is known that is worth remembering.
    pub(super) fn is_fresh(&self) -> bool {
        self.failures == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(now: Moment, seconds: u64) -> Moment {
        now.after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_dead_destination_is_probed_ever_less_and_one_at_a_time() {
        let mut breaker = Breaker::new();
        let mut now = Moment(1);
        for _ in 0..FAILURES_MAX {
            assert!(breaker.allows(0, 20, now));
            breaker.failed(now, 0);
        }
        assert!(!breaker.allows(0, 20, now));
        let mut pauses = Vec::new();
        for _ in 0..10 {
            pauses.push(breaker.until().since(now).as_secs());
            now = breaker.until();
            assert!(breaker.allows(0, 20, now));
            assert!(!breaker.allows(1, 20, now), "one probe at a time");
            breaker.failed(now, 0);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]);
    }

    #[test]
    fn after_an_outage_the_window_opens_by_one_with_each_success() {
        let mut breaker = Breaker::new();
        (0..5).for_each(|_| breaker.failed(Moment(0), 0));
        breaker.succeeded(20);
        let now = after(Moment(0), 1);
        for under_way in 1..19 {
            assert!(breaker.allows(under_way, 20, now));
            assert!(!breaker.allows(under_way + 1, 20, now));
            breaker.succeeded(20);
        }
        (0..50).for_each(|_| breaker.succeeded(20));
        assert!(breaker.allows(19, 20, now) && !breaker.allows(20, 20, now));
    }
}
