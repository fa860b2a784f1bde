//! Transactions that wait for a connection: served in order, each by a deadline.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::units::Moment;

/// What ended a wait.
#[derive(Debug)]
pub enum Grant<C> {
    /// A connection that another transaction gave back.
    Connection(C),
    /// A permit may be free: try again.
    TryAgain,
    /// The deadline came.
    TimedOut,
}

/// A queue of waiting transactions of one upstream on one worker.
#[derive(Debug)]
pub struct Queue<C> {
    waiting: RefCell<VecDeque<Rc<Waiter<C>>>>,
}

#[derive(Debug)]
struct Waiter<C> {
    by: Moment,
    grant: RefCell<Option<Grant<C>>>,
    waker: RefCell<Option<Waker>>,
}

impl<C> Default for Queue<C> {
    fn default() -> Self {
        Self { waiting: RefCell::default() }
    }
}

impl<C> Queue<C> {
    /// Waits for a turn.
    pub async fn wait(&self, by: Moment) -> Grant<C> {
        let waiter = Rc::new(Waiter { by, grant: RefCell::new(None), waker: RefCell::default() });
        self.waiting.borrow_mut().push_back(Rc::clone(&waiter));
        poll_fn(|context| match waiter.grant.borrow_mut().take() {
            Some(grant) => Poll::Ready(grant),
            None => {
                *waiter.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// Ends the longest wait; gives the grant back where nobody waits.
    pub fn grant(&self, grant: Grant<C>) -> Option<Grant<C>> {
        let Some(waiter) = self.waiting.borrow_mut().pop_front() else { return Some(grant) };
        waiter.end(grant);
        None
    }

    /// Ends the waits whose deadline has come.
    pub fn expire(&self, now: Moment) {
        while self.waiting.borrow().front().is_some_and(|waiter| waiter.by <= now) {
            self.grant(Grant::TimedOut);
        }
    }
}

impl<C> Waiter<C> {
    fn end(&self, grant: Grant<C>) {
        *self.grant.borrow_mut() = Some(grant);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, zip};

    #[test]
    fn turns_come_in_order() {
        let queue = Queue::default();
        let (first, second) = (queue.wait(Moment(10)), queue.wait(Moment(20)));
        let grants = async {
            assert!(queue.grant(Grant::Connection('a')).is_none());
            queue.expire(Moment(19));
            assert!(!queue.is_empty());
            queue.expire(Moment(20));
            assert!(queue.grant(Grant::TryAgain).is_some(), "nobody is left");
        };
        let ((first, second), ()) = block_on(zip(zip(first, second), grants));
        assert!(matches!(first, Grant::Connection('a')));
        assert!(matches!(second, Grant::TimedOut));
    }
}
