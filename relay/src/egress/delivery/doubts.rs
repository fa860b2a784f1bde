//! How many messages are between their end and the upstream's verdict: a worker that ends waits for these, because a
//! message given up there may have been delivered. What it must not do: know which they are.

use std::cell::Cell;

/// Ends of messages under way.
#[derive(Debug, Default)]
pub(super) struct Doubts(Cell<u32>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Doubt<'a>(&'a Doubts);

impl Doubts {
    pub(super) fn begin(&self) -> Doubt<'_> {
        self.0.set(self.0.get() + 1);
        Doubt(self)
    }

    pub(super) fn any(&self) -> bool {
        self.0.get() > 0
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}
