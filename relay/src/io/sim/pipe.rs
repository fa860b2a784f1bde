//! One direction of a simulated connection: segments on their way, how it ends, and who waits for it. No decision of its own.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Pipe {
    /// Segments and when they arrive; arrivals never overtake each other.
    pub(super) segments: RefCell<VecDeque<(u64, Bytes)>>,
    /// No more segments come after the moment given.
    pub(super) ended: Cell<Option<u64>>,
    pub(super) is_reset: Cell<bool>,
    /// The end is a reset, behind everything that was sent before.
    pub(super) ends_in_reset: Cell<bool>,
    /// Nobody will read what is sent.
    pub(super) is_abandoned: Cell<bool>,
    pub(super) octets: Cell<usize>,
    pub(super) reader: RefCell<Option<Waker>>,
    pub(super) writer: RefCell<Option<Waker>>,
}

impl Pipe {
    pub(super) fn wake_both(&self) {
        for waker in [&self.reader, &self.writer] {
            if let Some(waker) = waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    pub(super) fn reset(&self) {
        self.is_reset.set(true);
        self.wake_both();
    }

    pub(super) fn end_in_reset(&self) {
        self.ends_in_reset.set(true);
        self.wake_both();
    }

    /// When the next thing arrives: octets, or the end.
    pub(super) fn next(&self) -> Option<u64> {
        self.segments.borrow().front().map(|(at, _)| *at).or(self.ended.get())
    }
}
