//! One coarse list of deadlines per worker, instead of a timer per session.
//!
//! Each stream has a slot; before it waits it writes its deadline there, a plain store. Every
//! [`TICK`](crate::limits::TICK) the worker walks the slots (20,000 of them take some twenty microseconds) and shuts down
//! the side of the socket that waited too long: the pending operation then ends by itself, no cancellation is needed,
//! and after a timed-out receive the socket can still carry a last reply.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;

use crate::units::Moment;

/// The deadlines of one worker.
#[derive(Debug, Clone, Default)]
pub struct Deadlines {
    list: Rc<RefCell<List>>,
}

#[derive(Debug, Default)]
struct List {
    slots: Vec<Option<Rc<Slot>>>,
    free: Vec<usize>,
}

/// The wait of one stream.
#[derive(Debug)]
pub struct Slot {
    fd: RawFd,
    deadline: Cell<Moment>,
    side: Cell<Side>,
    expired: Cell<bool>,
    interruptible: Cell<bool>,
}

/// Which side of a socket waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A receive.
    Receive,
    /// A send.
    Send,
}

/// A slot in the list, taken out of it when dropped. The socket must outlive it.
#[derive(Debug)]
pub struct Ticket {
    deadlines: Deadlines,
    index: usize,
    slot: Rc<Slot>,
}

impl Deadlines {
    /// A slot for a socket.
    #[must_use]
    pub fn enter(&self, fd: RawFd) -> Ticket {
        let slot = Rc::new(Slot {
            fd,
            deadline: Cell::new(Moment::NEVER),
            side: Cell::new(Side::Receive),
            expired: Cell::new(false),
            interruptible: Cell::new(false),
        });
        let mut list = self.list.borrow_mut();
        let index = list.free.pop().unwrap_or_else(|| {
            list.slots.push(None);
            list.slots.len() - 1
        });
        list.slots[index] = Some(Rc::clone(&slot));
        Ticket { deadlines: self.clone(), index, slot }
    }

    /// Ends the waits whose deadline has come; says how many.
    pub fn expire(&self, now: Moment, end: impl Fn(RawFd, Side)) -> usize {
        self.end_where(end, |slot| slot.deadline.get() <= now)
    }

    /// Ends the pauses that may be cut short; says how many.
    pub fn interrupt(&self, end: impl Fn(RawFd, Side)) -> usize {
        self.end_where(end, |slot| slot.interruptible.get() && slot.deadline.get() != Moment::NEVER)
    }

    fn end_where(&self, end: impl Fn(RawFd, Side), is_over: impl Fn(&Slot) -> bool) -> usize {
        let list = self.list.borrow();
        let over = list.slots.iter().flatten().filter(|slot| !slot.expired.get() && is_over(slot));
        over.map(|slot| {
            slot.expired.set(true);
            end(slot.fd, slot.side.get());
        })
        .count()
    }
}

impl Ticket {
    /// A wait begins.
    pub fn begin(&self, side: Side, by: Moment) {
        self.slot.side.set(side);
        self.slot.deadline.set(by);
    }

    /// The wait is over; says whether its deadline ended it.
    #[must_use]
    pub fn finish(&self) -> bool {
        self.slot.deadline.set(Moment::NEVER);
        self.slot.expired.get()
    }

    /// Whether a wait is under way.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.slot.deadline.get() != Moment::NEVER
    }

    /// Whether [`Deadlines::interrupt`] may end the next waits.
    pub fn set_interruptible(&self, interruptible: bool) {
        self.slot.interruptible.set(interruptible);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut list = self.deadlines.list.borrow_mut();
        list.slots[self.index] = None;
        list.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_over_is_ended_and_only_once() {
        let deadlines = Deadlines::default();
        let early = deadlines.enter(10);
        let late = deadlines.enter(11);
        early.begin(Side::Receive, Moment(100));
        late.begin(Side::Send, Moment(200));
        let ended = RefCell::new(Vec::new());
        let end = |fd, side| ended.borrow_mut().push((fd, side));
        assert_eq!(deadlines.expire(Moment(99), end), 0);
        assert_eq!(deadlines.expire(Moment(100), end), 1);
        assert_eq!(deadlines.expire(Moment(150), end), 0);
        assert!(early.finish());
        assert!(!late.finish());
        assert_eq!(*ended.borrow(), [(10, Side::Receive)]);
    }

    #[test]
    fn a_dropped_ticket_leaves_its_place_to_another() {
        let deadlines = Deadlines::default();
        drop(deadlines.enter(10));
        let ticket = deadlines.enter(12);
        assert_eq!(ticket.index, 0);
        ticket.begin(Side::Receive, Moment(1));
        ticket.set_interruptible(true);
        assert_eq!(deadlines.interrupt(|fd, _| assert_eq!(fd, 12)), 1);
    }
}
