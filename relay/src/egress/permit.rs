//! How many connections an upstream may have, of the whole process: the one number that workers share.
//!
//! A worker without a permit says that it wants one; another worker that holds idle connections sees that at its next
//! look and closes one. Touched when a connection is opened or closed, never per message.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::policy::rate::Rate;
use crate::spool::schedule::Bucket;

/// The permits of every upstream of the process, by the upstream's name.
#[derive(Debug, Default)]
pub struct PermitBook {
    upstreams: Mutex<HashMap<String, Arc<Permits>>>,
    rate: Mutex<Option<(Rate, Arc<Bucket>)>>,
    /// Counts how often an upstream that was down has been reached, by whichever worker.
    recoveries: AtomicU32,
}

impl PermitBook {
    /// The permits of an upstream, `max` of them from now on.
    #[must_use]
    pub fn of(&self, upstream: &str, max: u32) -> Arc<Permits> {
        let mut upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        // Upstreams that no worker holds any more (MX delivery sees many) make room.
        if upstreams.len() >= UPSTREAMS_KEPT {
            upstreams.retain(|_, permits| Arc::strong_count(permits) > 1);
        }
        let permits = Arc::clone(upstreams.entry(upstream.to_owned()).or_default());
        permits.max.store(max, Ordering::Relaxed);
        permits
    }

    /// An upstream that was down has been reached.
    pub fn note_recovery(&self) {
        self.recoveries.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was noted, by whichever worker.
    #[must_use]
    pub fn recoveries(&self) -> u32 {
        self.recoveries.load(Ordering::Relaxed)
    }

    /// The bucket of `UPSTREAM_RATE`, the same for all workers as long as the rate is the same.
    #[must_use]
    pub fn bucket(&self, rate: Option<Rate>) -> Option<Arc<Bucket>> {
        let mut known = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = rate?;
        match &*known {
            Some((same, bucket)) if *same == rate => Some(Arc::clone(bucket)),
            _ => {
                let bucket = Arc::new(Bucket::new(rate));
                *known = Some((rate, Arc::clone(&bucket)));
                Some(bucket)
            }
        }
    }
}

/// Upstreams in the book at which those without a user are dropped.
const UPSTREAMS_KEPT: usize = 1024;

/// The permits of one upstream. Invariant: `open` is the number of living [`Permit`]s.
#[derive(Debug, Default)]
pub struct Permits {
    max: AtomicU32,
    open: AtomicU32,
    wanted: AtomicU32,
}

impl Permits {
    /// A permit, if one is left.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<Permit> {
        let max = self.max.load(Ordering::Relaxed);
        let more = |open| (open < max).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Permit(Arc::clone(self)))
    }

    /// Says that so many more, or so many fewer, transactions wait for a permit.
    pub fn want(&self, change: i32) {
        self.wanted.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
    }

    /// Whether somebody, on whichever worker, waits.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_permits_than_the_bound_even_when_it_shrinks() {
        let book = PermitBook::default();
        let permits = book.of("mx.example:25", 2);
        let first = permits.take().unwrap();
        let second = permits.take().unwrap();
        assert!(permits.take().is_none());
        drop(first);
        let _ = book.of("mx.example:25", 1);
        assert!(permits.take().is_none(), "one is open, one is the bound");
        drop(second);
        assert!(permits.take().is_some());
    }

    #[test]
    fn wants_are_counted() {
        let permits = Permits::default();
        permits.want(1);
        permits.want(1);
        permits.want(-1);
        assert!(permits.is_wanted());
        permits.want(-1);
        assert!(!permits.is_wanted());
    }
}
