//! How many connections an upstream may have, of the whole process, and whose they are: what the workers' pools share.
//!
//! Where all are in use, a pool whose transactions wait and that has fewer than its fair share lines up; the pools that
//! have more give theirs up to it, in the order of the line. Where there are fewer connections than pools they go from one
//! to the next in turns. A pool that wants one and holds its share is helped only by another's idle connection.
//!
//! The line is touched when connections are opened, closed or lacking; where there are enough a message costs two loads.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::limits::{UPSTREAM_TURN_MAX, UPSTREAM_WAIT_MAX};
use crate::policy::rate::Rate;
use crate::spool::schedule::Bucket;
use crate::units::Moment;

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

/// The permits of one upstream. Invariants: `open` is the number of [`Permit`]s not given back, `pools` that of the [`Share`]s,
/// `in_line` the length of `line`.
#[derive(Debug, Default)]
pub struct Permits {
    max: AtomicU32,
    open: AtomicU32,
    wanted: AtomicU32,
    pools: AtomicU32,
    /// Pools that lack connections, by number, the first to be served first.
    line: Mutex<VecDeque<u32>>,
    in_line: AtomicU32,
    numbers: AtomicU32,
}

impl Permits {
    /// What each pool may have whatever the others want.
    fn fair(&self) -> u32 {
        let pools = self.pools.load(Ordering::Relaxed).max(1);
        (self.max.load(Ordering::Relaxed) / pools).max(1)
    }

    /// How long a pool may keep a fair share that not everybody can have. Everybody's turn comes before its transactions
    /// have waited too long.
    fn turn(&self) -> Duration {
        (UPSTREAM_WAIT_MAX / 2 / self.pools.load(Ordering::Relaxed).max(1)).min(UPSTREAM_TURN_MAX)
    }

    fn change_line(&self, change: impl FnOnce(&mut VecDeque<u32>)) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut line);
        self.in_line.store(u32::try_from(line.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

/// One pool's part in the permits of its upstream.
#[derive(Debug)]
pub struct Share {
    permits: Arc<Permits>,
    number: u32,
    open: Cell<u32>,
    is_in_line: Cell<bool>,
    /// When it came to have a connection, having had none.
    since: Cell<Moment>,
}

impl Share {
    /// The part of another pool.
    #[must_use]
    pub fn of(permits: Arc<Permits>) -> Rc<Self> {
        permits.pools.fetch_add(1, Ordering::Relaxed);
        let number = permits.numbers.fetch_add(1, Ordering::Relaxed);
        let (open, is_in_line, since) = (Cell::default(), Cell::default(), Cell::new(Moment::default()));
        Rc::new(Self { permits, number, open, is_in_line, since })
    }

    /// Connections of this pool, or being made for it.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.get()
    }

    /// A permit, if one is left that nobody is owed before us.
    #[must_use]
    pub fn take(self: &Rc<Self>, now: Moment) -> Option<Permit> {
        let max = self.permits.max.load(Ordering::Relaxed);
        let ahead = self.ahead();
        let more = |open: u32| (open.saturating_add(ahead) < max).then_some(open + 1);
        self.permits.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        self.leave_line();
        if self.open.get() == 0 {
            self.since.set(now);
        }
        self.open.set(self.open.get() + 1);
        Some(Permit { share: Rc::clone(self), is_released: Cell::new(false) })
    }

    /// Whether [`Share::take`] would find one now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let open = self.permits.open.load(Ordering::Relaxed);
        open.saturating_add(self.ahead()) < self.permits.max.load(Ordering::Relaxed)
    }

    /// How many others are to be served before us.
    fn ahead(&self) -> u32 {
        let all = self.permits.in_line.load(Ordering::Relaxed);
        if all == 0 || !self.is_in_line.get() {
            return all;
        }
        let line = self.permits.line.lock().unwrap_or_else(PoisonError::into_inner);
        let place = line.iter().position(|&number| number == self.number);
        place.map_or(all, |place| u32::try_from(place).unwrap_or(u32::MAX))
    }

    /// Says that so many more, or so many fewer, transactions wait for a permit.
    pub fn want(&self, change: i32) {
        self.permits.wanted.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
    }

    /// Whether a transaction, on whichever worker, waits.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.permits.wanted.load(Ordering::Relaxed) > 0
    }

    /// Lines up where transactions wait and the pool has less than its fair share; leaves the line otherwise.
    pub fn line_up(&self, has_waiting: bool) {
        if !has_waiting || self.open.get() >= self.permits.fair() {
            self.leave_line();
        } else if !self.is_in_line.replace(true) {
            self.permits.change_line(|line| line.push_back(self.number));
        }
    }

    fn leave_line(&self) {
        if self.is_in_line.replace(false) {
            self.permits.change_line(|line| line.retain(|&number| number != self.number));
        }
    }

    /// Whether a connection that comes free is due to a pool in line: this one has more than its share, or has had its
    /// turn.
    #[must_use]
    pub fn owes_one(&self, now: Moment) -> bool {
        let in_line = self.permits.in_line.load(Ordering::Relaxed);
        if in_line == 0 || self.is_in_line.get() {
            return false;
        }
        let max = self.permits.max.load(Ordering::Relaxed);
        if self.permits.open.load(Ordering::Relaxed).saturating_add(in_line) <= max {
            return false;
        }
        let is_scarce = self.permits.pools.load(Ordering::Relaxed) > max;
        let has_had_its_turn = is_scarce && now.since(self.since.get()) >= self.permits.turn();
        self.open.get() > self.permits.fair() || has_had_its_turn
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.leave_line();
        self.permits.pools.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    share: Rc<Share>,
    is_released: Cell<bool>,
}

impl Permit {
    /// Gives it back already, for a connection that is about to take its leave.
    pub fn release(&self) {
        if !self.is_released.replace(true) {
            self.share.open.set(self.share.open.get() - 1);
            self.share.permits.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(0);

    fn pools<const N: usize>(book: &PermitBook, max: u32) -> [Rc<Share>; N] {
        std::array::from_fn(|_| Share::of(book.of("mx.example:25", max)))
    }

    #[test]
    fn no_more_permits_than_the_bound_even_when_it_shrinks() {
        let book = PermitBook::default();
        let [pool] = pools(&book, 2);
        let first = pool.take(NOW).unwrap();
        let second = pool.take(NOW).unwrap();
        assert!(pool.take(NOW).is_none());
        drop(first);
        let _ = book.of("mx.example:25", 1);
        assert!(pool.take(NOW).is_none(), "one is open, one is the bound");
        drop(second);
        assert!(pool.take(NOW).is_some());
    }

    #[test]
    fn wants_are_counted() {
        let [one, other] = pools(&PermitBook::default(), 1);
        one.want(1);
        one.want(1);
        one.want(-1);
        assert!(other.is_wanted());
        one.want(-1);
        assert!(!other.is_wanted());
    }

    #[test]
    fn a_pool_with_more_than_its_share_owes_one_to_the_pool_in_line() {
        let [rich, poor] = pools(&PermitBook::default(), 4);
        let mut permits: Vec<Permit> = std::iter::from_fn(|| rich.take(NOW)).collect();
        assert_eq!(permits.len(), 4);
        assert!(!rich.owes_one(NOW), "nobody is in line");
        poor.line_up(true);
        assert!(rich.owes_one(NOW));
        permits.pop();
        assert!(!rich.owes_one(NOW), "one is free for the one in line");
        assert!(rich.take(NOW).is_none(), "and for nobody else");
        let first = poor.take(NOW).unwrap();
        poor.line_up(true);
        assert!(rich.owes_one(NOW));
        permits.pop();
        let _second = poor.take(NOW).unwrap();
        poor.line_up(true);
        assert!(!rich.owes_one(NOW), "each has its share");
        drop(first);
        assert!(rich.take(NOW).is_some(), "nobody is in line");
    }

    #[test]
    fn too_few_for_all_go_from_pool_to_pool_in_turns() {
        let [one, two, three] = pools(&PermitBook::default(), 1);
        let held = one.take(NOW).unwrap();
        two.line_up(true);
        three.line_up(true);
        assert!(!one.owes_one(NOW), "it has its turn first");
        let later = NOW.after(UPSTREAM_TURN_MAX);
        assert!(one.owes_one(later));
        drop(held);
        one.line_up(true);
        assert!(one.take(later).is_none() && three.take(later).is_none(), "two is first in line");
        let held = two.take(later).unwrap();
        assert!(!two.owes_one(later));
        drop(held);
        two.line_up(true);
        assert!(three.take(later).is_some());
    }

    #[test]
    fn who_wants_none_any_more_or_is_gone_holds_up_nobody() {
        let [one, two, three] = pools(&PermitBook::default(), 1);
        two.line_up(true);
        three.line_up(true);
        assert!(one.take(NOW).is_none());
        two.line_up(false);
        drop(three);
        assert!(one.take(NOW).is_some());
    }
}
