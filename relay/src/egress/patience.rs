//! Waiting with patience: for a future until a moment, without dropping the future.
//!
//! One list per worker, looked at every [`PATIENCE_TICK`] while anybody is in it: a timer of the runtime's own per message
//! would cost more than all else that a session does at the end of a message. What is not ready in time is handed back
//! alive: an operation on a ring must be driven to its end (rule of the seam).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::io::Io;
use crate::limits::PATIENCE_TICK;
use crate::units::Moment;

/// Everybody on one worker who waits with patience.
#[derive(Debug)]
pub struct Waits<I> {
    io: I,
    list: RefCell<List>,
    is_watched: Cell<bool>,
}

#[derive(Debug, Default)]
struct List {
    slots: Vec<Option<(Moment, Waker)>>,
    free: Vec<usize>,
}

impl<I: Io> Waits<I> {
    /// A list that nobody is in.
    #[must_use]
    pub fn new(io: I) -> Rc<Self> {
        Rc::new(Self { io, list: RefCell::default(), is_watched: Cell::new(false) })
    }

    /// Waits for a future until `by`, which may come up to [`PATIENCE_TICK`] late.
    ///
    /// # Errors
    /// The future itself, where it was not ready in time: still to be driven.
    pub async fn within<F: Future + Unpin>(
        self: &Rc<Self>,
        mut future: F,
        by: Moment,
    ) -> Result<F::Output, F> {
        let mut place = None;
        let output = poll_fn(|cx| match Pin::new(&mut future).poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.io.now() >= by => Poll::Ready(None),
            Poll::Pending => {
                self.wake_at(by, &mut place, cx);
                Poll::Pending
            }
        })
        .await;
        if let Some(place) = place {
            self.leave(place);
        }
        output.ok_or(future)
    }

    fn wake_at(self: &Rc<Self>, by: Moment, place: &mut Option<usize>, cx: &Context<'_>) {
        let mut list = self.list.borrow_mut();
        let entry = Some((by, cx.waker().clone()));
        match *place {
            Some(place) => list.slots[place] = entry,
            None => {
                let free = list.free.pop().unwrap_or_else(|| {
                    list.slots.push(None);
                    list.slots.len() - 1
                });
                list.slots[free] = entry;
                *place = Some(free);
            }
        }
        if !self.is_watched.replace(true) {
            let waits = Rc::clone(self);
            self.io.spawn(async move { waits.watch().await });
        }
    }

    fn leave(&self, place: usize) {
        let mut list = self.list.borrow_mut();
        list.slots[place] = None;
        list.free.push(place);
    }

    /// Wakes those whose patience ends, until nobody is left.
    async fn watch(&self) {
        loop {
            self.io.sleep(PATIENCE_TICK).await;
            let now = self.io.now();
            let list = self.list.borrow();
            if list.free.len() == list.slots.len() {
                self.is_watched.set(false);
                return;
            }
            list.slots
                .iter()
                .flatten()
                .filter(|(by, _)| *by <= now)
                .for_each(|(_, waker)| waker.wake_by_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::io::sim::{Faults, World};

    #[test]
    fn what_is_late_comes_back_alive_and_ends_later() {
        let world = World::new(1, Faults::NONE);
        let (io, waits) = (world.clone(), Waits::new(world.clone()));
        let acting = async move {
            let nap = |millis| {
                let io = io.clone();
                Box::pin(async move {
                    io.sleep(Duration::from_millis(millis)).await;
                    millis
                })
            };
            let start = io.now();
            let by = start.after(Duration::from_millis(50));
            assert_eq!(waits.within(nap(20), by).await.ok(), Some(20));
            let Err(late) = waits.within(nap(500), by).await else { panic!("in time?") };
            let waited = io.now().since(start);
            assert!(waited >= Duration::from_millis(50), "{waited:?}");
            assert!(waited <= Duration::from_millis(50) + 2 * PATIENCE_TICK, "{waited:?}");
            assert_eq!(late.await, 500);
            io.sleep(PATIENCE_TICK * 2).await;
            assert!(!waits.is_watched.get(), "nobody is left to look after");
        };
        world.run(Moment(0).after(Duration::from_secs(60)), acting).expect("it ends");
        world.end();
    }
}
