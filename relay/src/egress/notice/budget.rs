//! How many notices go out: so many to one address, so many in all.
//!
//! A script that mails a thousand dead addresses must not bury its owner, and a broken upstream must not turn a full queue
//! into as many notices at once. A notice beyond the budget is not dropped: it waits, and the failed message stays in the
//! queue with it, until there is room. Must not read a clock.

use std::collections::HashMap;
use std::time::Duration;

use crate::limits::{
    NOTICE_ADDRESSES_MAX, NOTICE_PER_ADDRESS, NOTICES_BURST, NOTICES_PER_ADDRESS_BURST, NOTICES_PER_SECOND,
};
use crate::policy::rate::{Rate, TokenBucket};

/// The notices of one worker. Addresses are remembered in two generations, so that the memory is bounded whatever comes;
/// one that is forgotten begins anew, the rate of all together still holds.
#[derive(Debug)]
pub struct Budget {
    all: TokenBucket,
    young: HashMap<String, TokenBucket>,
    old: HashMap<String, TokenBucket>,
    since: Duration,
}

impl Budget {
    /// With all room there is. Times are counted from any fixed moment.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { all: TokenBucket::full(RATE, now), young: HashMap::new(), old: HashMap::new(), since: now }
    }

    /// Takes room for one notice to this address.
    ///
    /// # Errors
    ///
    /// The time until there is room for it.
    pub fn take(&mut self, address: &str, now: Duration) -> Result<(), Duration> {
        let rate = RATE_PER_ADDRESS;
        if self.young.len() >= NOTICE_ADDRESSES_MAX / 2 || now.saturating_sub(self.since) >= rate.refill() {
            self.old = std::mem::take(&mut self.young);
            self.since = now;
        }
        let key = address.to_ascii_lowercase();
        let known = self.young.get(&key).copied().or_else(|| self.old.remove(&key));
        let mut bucket = known.unwrap_or_else(|| TokenBucket::full(rate, now));
        let before = bucket;
        // Both or none: who is refused by all must not pay at his own.
        let taken = bucket.take(rate, now).and_then(|()| self.all.take(RATE, now));
        self.young.insert(key, if taken.is_ok() { bucket } else { before });
        taken
    }
}

const RATE: Rate = Rate { events: NOTICES_PER_SECOND, period: Duration::from_secs(1), burst: NOTICES_BURST };
const RATE_PER_ADDRESS: Rate =
    Rate { events: 1, period: NOTICE_PER_ADDRESS, burst: NOTICES_PER_ADDRESS_BURST };

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(5);

    #[test]
    fn one_address_is_not_buried_and_others_hear_theirs() {
        let mut budget = Budget::new(START);
        let told = (0..10_000).filter(|_| budget.take("a@example.org", START).is_ok()).count();
        assert_eq!(told, RATE_PER_ADDRESS.burst as usize);
        assert!(budget.take("A@EXAMPLE.org", START).is_err());
        assert_eq!(budget.take("b@example.org", START), Ok(()));
        let wait = budget.take("a@example.org", START).unwrap_err();
        assert_eq!(budget.take("a@example.org", START + wait), Ok(()));
    }

    #[test]
    fn all_together_are_bounded_and_so_is_what_is_remembered() {
        let mut budget = Budget::new(START);
        let addresses = (0..3 * NOTICE_ADDRESSES_MAX).map(|number| format!("u{number}@example.org"));
        let told = addresses.filter(|address| budget.take(address, START).is_ok()).count();
        assert_eq!(told, RATE.burst as usize);
        assert!(budget.young.len() + budget.old.len() <= NOTICE_ADDRESSES_MAX);
    }

    #[test]
    fn who_is_refused_by_all_keeps_his_own_room() {
        let mut budget = Budget::new(START);
        while budget.take(&format!("{:?}", budget.all), START).is_ok() {}
        let wait = budget.take("a@example.org", START).unwrap_err();
        let bucket = budget.young["a@example.org"];
        assert_eq!(bucket, TokenBucket::full(RATE_PER_ADDRESS, START));
        assert_eq!(budget.take("a@example.org", START + wait), Ok(()));
    }
}
