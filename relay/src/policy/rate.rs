//! Token buckets over times that the caller gives.
//!
//! Exact: a bucket counts in whole units of which one event costs as many as the period has nanoseconds, and
//! each nanosecond brings as many as there are events in a period. Nothing is ever rounded, so that a thousand
//! small steps of time bring what one long step brings.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::acl::client_of;
use crate::limits::CLIENT_RATES_MAX;

/// So many events in a period, with a burst: `14/s burst 50`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Events in one period; at least 1.
    pub events: u32,
    /// The period; above zero.
    pub period: Duration,
    /// Events that may come at once; at least 1.
    pub burst: u32,
}

impl Rate {
    fn full(self) -> u128 {
        u128::from(self.burst) * self.price()
    }

    /// Units that one event costs.
    fn price(self) -> u128 {
        self.period.as_nanos()
    }

    /// The time in which an empty bucket fills, rounded up.
    #[must_use]
    pub fn refill(self) -> Duration {
        self.time_for(self.full())
    }

    fn time_for(self, units: u128) -> Duration {
        let nanos = units.div_ceil(u128::from(self.events.max(1)));
        u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos)
    }
}

/// The events of one source under a [`Rate`], which is given at each call: a reload changes it at once.
///
/// Times are counted from any fixed moment; one that lies before the last seen brings nothing and takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    units: u128,
    seen: Duration,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn full(rate: Rate, now: Duration) -> Self {
        Self { units: rate.full(), seen: now }
    }

    /// Takes one event.
    ///
    /// # Errors
    ///
    /// The time until there is room for it; nothing is taken then.
    pub fn take(&mut self, rate: Rate, now: Duration) -> Result<(), Duration> {
        self.refill(rate, now);
        match self.units.checked_sub(rate.price()) {
            Some(rest) => {
                self.units = rest;
                Ok(())
            }
            None => Err(rate.time_for(rate.price() - self.units)),
        }
    }

    fn refill(&mut self, rate: Rate, now: Duration) {
        let passed = now.saturating_sub(self.seen).as_nanos();
        let brought = passed.saturating_mul(u128::from(rate.events));
        self.units = self.units.saturating_add(brought).min(rate.full());
        self.seen = self.seen.max(now);
    }
}

/// A bucket for each client address (IPv6: for each /64), bounded whatever the clients do.
///
/// Two generations: who comes is moved to the young one; when that is full, or old enough that every bucket
/// untouched since must be full again, the old one is dropped and the young one takes its place. A bucket is
/// forgotten early, and so given a full one, only while more than [`CLIENT_RATES_MAX`] clients come within one
/// refill.
#[derive(Debug, Default)]
pub struct ClientRates {
    young: HashMap<IpAddr, TokenBucket>,
    old: HashMap<IpAddr, TokenBucket>,
    since: Duration,
}

impl ClientRates {
    /// Takes one event of this client.
    ///
    /// # Errors
    ///
    /// The time until there is room for it.
    pub fn take(&mut self, client: IpAddr, rate: Rate, now: Duration) -> Result<(), Duration> {
        let client = client_of(client);
        if self.young.len() >= GENERATION_MAX || now.saturating_sub(self.since) >= rate.refill() {
            self.old = std::mem::take(&mut self.young);
            self.since = now;
        }
        let known = || self.old.remove(&client).unwrap_or_else(|| TokenBucket::full(rate, now));
        self.young.entry(client).or_insert_with(known).take(rate, now)
    }

    /// Whether there is no room for an event of this client now. Takes nothing.
    #[must_use]
    pub fn is_spent(&self, client: IpAddr, rate: Rate, now: Duration) -> bool {
        let client = client_of(client);
        let bucket = self.young.get(&client).or_else(|| self.old.get(&client));
        bucket.copied().is_some_and(|mut bucket| bucket.take(rate, now).is_err())
    }

    /// Clients that are remembered; at most [`CLIENT_RATES_MAX`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

const GENERATION_MAX: usize = CLIENT_RATES_MAX / 2;

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    const FOURTEEN: Rate = Rate { events: 14, period: Duration::from_secs(1), burst: 50 };

    fn taken(bucket: &mut TokenBucket, rate: Rate, now: Duration) -> u32 {
        let mut count = 0;
        while bucket.take(rate, now).is_ok() {
            count += 1;
        }
        count
    }

    #[test]
    fn a_burst_comes_at_once_and_then_the_rate() {
        let mut bucket = TokenBucket::full(FOURTEEN, Duration::ZERO);
        assert_eq!(taken(&mut bucket, FOURTEEN, Duration::ZERO), 50);
        assert_eq!(taken(&mut bucket, FOURTEEN, Duration::from_secs(1)), 14);
        assert_eq!(taken(&mut bucket, FOURTEEN, Duration::from_secs(2)), 14);
        assert_eq!(taken(&mut bucket, FOURTEEN, Duration::from_secs(3600)), 50);
    }

    #[test]
    fn tells_the_very_moment_of_the_next_event() {
        let mut bucket = TokenBucket::full(FOURTEEN, Duration::ZERO);
        taken(&mut bucket, FOURTEEN, Duration::ZERO);
        let wait = bucket.take(FOURTEEN, Duration::ZERO).unwrap_err();
        assert!(bucket.take(FOURTEEN, wait - Duration::from_nanos(1)).is_err());
        assert!(bucket.take(FOURTEEN, wait).is_ok());
    }

    #[test]
    fn a_clock_that_steps_back_brings_nothing() {
        let mut bucket = TokenBucket::full(FOURTEEN, Duration::from_secs(100));
        taken(&mut bucket, FOURTEEN, Duration::from_secs(100));
        assert!(bucket.take(FOURTEEN, Duration::ZERO).is_err());
        assert!(bucket.take(FOURTEEN, Duration::from_secs(100)).is_err());
        assert!(bucket.take(FOURTEEN, Duration::from_secs(101)).is_ok());
    }

    #[test]
    fn a_smaller_burst_holds_at_once() {
        let mut bucket = TokenBucket::full(FOURTEEN, Duration::ZERO);
        let small = Rate { burst: 3, ..FOURTEEN };
        assert_eq!(taken(&mut bucket, small, Duration::ZERO), 3);
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(
            events in 1u32..1000, burst in 1u32..100, period_ms in 1u64..100_000,
            steps in prop::collection::vec(0u64..5_000_000_000, 1..60),
        ) {
            let rate = Rate { events, period: Duration::from_millis(period_ms), burst };
            let mut bucket = TokenBucket::full(rate, Duration::ZERO);
            let (mut now, mut total) = (Duration::ZERO, 0u128);
            for step in steps {
                now += Duration::from_nanos(step);
                if bucket.take(rate, now).is_ok() {
                    total += 1;
                }
                let earned = now.as_nanos() * u128::from(events) / rate.period.as_nanos();
                prop_assert!(total <= u128::from(burst) + earned);
            }
        }

        #[test]
        fn small_steps_bring_what_one_long_step_brings(
            events in 1u32..1000, period_ms in 1u64..1000, steps in prop::collection::vec(1u64..1_000_000, 1..200),
        ) {
            let rate = Rate { events, period: Duration::from_millis(period_ms), burst: 1_000_000 };
            let empty = TokenBucket { units: 0, seen: Duration::ZERO };
            let (mut often, mut once) = (empty, empty);
            let mut now = Duration::ZERO;
            for step in steps {
                now += Duration::from_nanos(step);
                often.refill(rate, now);
            }
            once.refill(rate, now);
            prop_assert_eq!(often, once);
        }
    }

    #[test]
    fn clients_are_counted_apart_and_a_64_together() {
        let rate = Rate { events: 1, period: Duration::from_secs(60), burst: 1 };
        let mut clients = ClientRates::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(clients.take(address("192.0.2.1"), rate, Duration::ZERO).is_ok());
        assert!(clients.take(address("192.0.2.2"), rate, Duration::ZERO).is_ok());
        assert!(clients.take(address("::ffff:192.0.2.1"), rate, Duration::ZERO).is_err());
        assert!(clients.take(address("2001:db8::1"), rate, Duration::ZERO).is_ok());
        assert!(clients.take(address("2001:db8::2"), rate, Duration::ZERO).is_err());
        assert!(clients.take(address("2001:db8:0:1::1"), rate, Duration::ZERO).is_ok());
    }

    #[test]
    fn an_hour_of_strangers_takes_no_more_memory_than_the_bound() {
        let rate = Rate { events: 1, period: Duration::from_secs(3600), burst: 1 };
        let mut clients = ClientRates::default();
        for number in 0..3 * CLIENT_RATES_MAX as u64 {
            let stranger = IpAddr::V6(Ipv6Addr::from(u128::from(number) << 64));
            let _ = clients.take(stranger, rate, Duration::from_nanos(number));
            assert!(clients.len() <= CLIENT_RATES_MAX);
        }
    }

    #[test]
    fn whoever_is_forgotten_in_time_had_a_full_bucket() {
        let rate = Rate { events: 1, period: Duration::from_secs(10), burst: 2 };
        let mut clients = ClientRates::default();
        let busy: IpAddr = "192.0.2.1".parse().unwrap();
        let mut reference = TokenBucket::full(rate, Duration::ZERO);
        for tick in 0..2000u64 {
            // Irregular visits: now and then longer than a refill apart.
            let now = Duration::from_secs(tick * 7 + (tick % 13) * (tick % 17));
            assert_eq!(clients.take(busy, rate, now), reference.take(rate, now), "tick {tick}");
        }
    }
}
