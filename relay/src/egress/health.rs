//! Whether an upstream is worth trying: a breaker with one probe at a time.
//!
//! Pure: time is an argument. The wait doubles with each failure in a row; while it lasts nobody tries, after it one
//! transaction probes and the others are told at once.

use std::time::Duration;

use crate::limits::{UPSTREAM_LOGIN_WAIT_MAX, UPSTREAM_LOGIN_WAIT_MIN};
use crate::units::Moment;

/// What is known of an upstream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Health {
    failures: u32,
    down_until: Moment,
    is_probed: bool,
}

/// First wait after a failure.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two probes.
const WAIT_MAX: Duration = Duration::from_secs(15);

impl Health {
    /// Whether a connection may be tried now. A `true` after a failure makes the caller the probe: it must report
    /// [`Self::succeeded`] or [`Self::failed`].
    pub fn may_try(&mut self, now: Moment) -> bool {
        if self.failures == 0 {
            return true;
        }
        let may = now >= self.down_until && !self.is_probed;
        self.is_probed |= may;
        may
    }

    /// Whether [`Self::may_try`] would say yes, without being the probe.
    #[must_use]
    pub fn is_worth_trying(&self, now: Moment) -> bool {
        self.failures == 0 || (now >= self.down_until && !self.is_probed)
    }

    /// A connection was made.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// No connection was made.
    pub fn failed(&mut self, now: Moment) {
        let wait = WAIT_MIN.saturating_mul(1 << self.failures.min(16)).min(WAIT_MAX);
        self.failures = self.failures.saturating_add(1);
        self.down_until = now.after(wait);
        self.is_probed = false;
    }

    /// The upstream refused our login: trying again soon could lock the account.
    pub fn login_refused(&mut self, now: Moment) {
        let wait =
            UPSTREAM_LOGIN_WAIT_MIN.saturating_mul(1 << self.failures.min(16)).min(UPSTREAM_LOGIN_WAIT_MAX);
        self.failed(now);
        self.down_until = now.after(wait);
    }

    /// An operator wants it tried now. The wait after a refused login stays: it protects the account.
    pub fn probe_now(&mut self, now: Moment) {
        if self.down_until <= now.after(WAIT_MAX) {
            self.down_until = now;
        }
    }

    /// Whether the last try succeeded, or none was made.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.failures == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_probe_at_a_time_with_growing_waits() {
        let mut health = Health::default();
        assert!(health.may_try(Moment(0)) && health.may_try(Moment(0)));
        health.failed(Moment(0));
        assert!(!health.may_try(Moment(99_999)));
        assert!(health.may_try(Moment(100_000)), "the probe");
        assert!(!health.may_try(Moment(100_000)), "only one");
        health.failed(Moment(100_000));
        assert!(!health.may_try(Moment(299_999)));
        assert!(health.may_try(Moment(300_000)));
        health.succeeded();
        assert!(health.is_up() && health.may_try(Moment(300_001)) && health.may_try(Moment(300_001)));
    }

    #[test]
    fn a_refused_login_is_not_tried_again_soon() {
        let mut health = Health::default();
        assert!(health.may_try(Moment(0)));
        health.login_refused(Moment(0));
        assert!(!health.may_try(Moment(0).after(WAIT_MAX)));
        assert!(health.may_try(Moment(0).after(UPSTREAM_LOGIN_WAIT_MIN)), "the probe");
        (0..100).for_each(|_| health.login_refused(Moment(0)));
        assert!(health.may_try(Moment(0).after(UPSTREAM_LOGIN_WAIT_MAX)));
    }

    #[test]
    fn an_operator_need_not_wait_but_for_a_refused_login() {
        let mut health = Health::default();
        (0..9).for_each(|_| health.failed(Moment(0)));
        assert!(!health.is_worth_trying(Moment(1)));
        health.probe_now(Moment(1));
        assert!(health.may_try(Moment(1)) && !health.may_try(Moment(1)), "one probe");
        health.login_refused(Moment(1));
        health.probe_now(Moment(2));
        assert!(!health.is_worth_trying(Moment(2)));
    }

    #[test]
    fn the_wait_has_a_bound() {
        let mut health = Health::default();
        (0..100).for_each(|_| health.failed(Moment(0)));
        assert!(health.may_try(Moment(0).after(WAIT_MAX)));
    }
}
