//! Sealed records gathered in pool buffers, as few and as small as hold them.
//!
//! It must not look into what it carries.

use crate::io::Flight;
use crate::io::buffer::{Buffer, Size};
use crate::limits::{RECORD_OVERHEAD_OCTETS_MAX, RECORD_PLAINTEXT_OCTETS_MAX};

/// Sealed records on their way into a flight.
pub(super) struct Sealed<'a> {
    current: Option<Buffer>,
    /// Plaintext that is still to come.
    left: usize,
    out: &'a mut Flight,
}

impl<'a> Sealed<'a> {
    /// Nothing yet; so much plaintext will come.
    pub(super) fn new(octets: usize, out: &'a mut Flight) -> Self {
        Self { current: None, left: octets, out }
    }

    /// A buffer with room for a record of so much plaintext.
    pub(super) fn room_for(&mut self, octets: usize) -> &mut Buffer {
        let needed = octets + RECORD_OVERHEAD_OCTETS_MAX;
        if self.current.as_ref().is_some_and(|buffer| buffer.spare() < needed) {
            self.out.push(self.current.take().map(Buffer::freeze).unwrap_or_default());
        }
        let all = self.left + (self.left / RECORD_PLAINTEXT_OCTETS_MAX + 2) * RECORD_OVERHEAD_OCTETS_MAX;
        self.left = self.left.saturating_sub(octets);
        self.current.get_or_insert_with(|| Buffer::take(Size::holding(all.max(needed))))
    }

    /// The rest goes into the flight.
    pub(super) fn finish(self) {
        self.out.push(self.current.map(Buffer::freeze).unwrap_or_default());
    }
}
