//! Page-aligned octets for O_DIRECT: what a batch is gathered in and what a scan reads into.
//!
//! Always initialised to their whole capacity, so that nothing here hands out memory that was never written. They are
//! kept and used again by their owners; none is made per message.

#![allow(unsafe_code, reason = "memory with a page's alignment, lent to the kernel during a read or write")]

use std::alloc::{self, Layout};
use std::num::NonZero;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use monoio::buf::{IoBuf, IoBufMut};

/// What offsets, lengths and addresses of direct input and output are multiples of.
pub const BLOCK_OCTETS: usize = 4096;

/// Octets at a page-aligned address. Invariants: the address is a multiple of [`BLOCK_OCTETS`], `len <= capacity`, and
/// all `capacity` octets are initialised; where there are none nothing was allocated.
#[derive(Debug)]
pub struct Aligned {
    memory: NonNull<u8>,
    capacity: usize,
    len: usize,
}

// SAFETY: an Aligned owns its memory alone and nothing in it is bound to a thread.
unsafe impl Send for Aligned {}
// SAFETY: a shared Aligned gives out only `&[u8]`.
unsafe impl Sync for Aligned {}

impl Aligned {
    /// Empty, with room for at least this many octets (rounded up to blocks). For none nothing is allocated: such a one
    /// stands in where the octets are with the kernel.
    #[must_use]
    pub fn with_capacity(octets: usize) -> Self {
        let capacity = octets.next_multiple_of(BLOCK_OCTETS);
        Self { memory: allocate(capacity), capacity, len: 0 }
    }

    /// Octets that fit.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sets the length; what lies between the old and the new end is whatever was there before.
    ///
    /// Lengths above the capacity are cut to it.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.capacity);
    }

    /// Forgets the octets, keeps the room.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Makes room for this many more octets: moves to larger memory if there is too little.
    pub fn reserve(&mut self, octets: usize) {
        if self.capacity - self.len >= octets {
            return;
        }
        let mut larger = Self::with_capacity((self.len + octets).max(self.capacity * 2));
        larger.extend(&self[..]);
        *self = larger;
    }

    /// Appends octets.
    pub fn extend(&mut self, octets: &[u8]) {
        self.reserve(octets.len());
        let start = self.len;
        self.len += octets.len();
        self[start..].copy_from_slice(octets);
    }

    /// Appends zeros up to the next multiple of `unit`.
    pub fn pad(&mut self, unit: usize) {
        let start = self.len;
        let end = start.next_multiple_of(unit);
        self.reserve(end - start);
        self.len = end;
        self[start..].fill(0);
    }
}

impl From<&[u8]> for Aligned {
    fn from(octets: &[u8]) -> Self {
        let mut aligned = Self::with_capacity(octets.len());
        aligned.extend(octets);
        aligned
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len <= capacity` octets are initialised and owned by self (invariants).
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` is the only way to them.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        if self.capacity == 0 {
            return;
        }
        // SAFETY: the memory was allocated by `allocate` with this very layout and nobody else holds it.
        unsafe { alloc::dealloc(self.memory.as_ptr(), layout(self.capacity)) }
    }
}

/// A part of an [`Aligned`] that a write lends to the kernel: from `start` to its end.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) octets: Aligned,
    pub(super) start: usize,
}

// SAFETY: the pointer and the length are those of initialised memory that does not move when the value does.
unsafe impl IoBuf for Outgoing {
    fn read_ptr(&self) -> *const u8 {
        self.octets[self.start..].as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.octets.len() - self.start
    }
}

/// The whole length of an [`Aligned`] that a read lends to the kernel.
#[derive(Debug)]
pub(super) struct Incoming(pub(super) Aligned);

// SAFETY: the pointer and the length are those of owned memory that does not move when the value does. It is all
// initialised already, so set_init has nothing to do.
unsafe impl IoBufMut for Incoming {
    fn write_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.0.len()
    }

    unsafe fn set_init(&mut self, _octets: usize) {}
}

/// An aligned address of no octets.
const NONE: NonNull<u8> = NonNull::without_provenance(NonZero::new(BLOCK_OCTETS).unwrap());

fn layout(capacity: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and a capacity that was allocated is nowhere near isize::MAX.
    unsafe { Layout::from_size_align_unchecked(capacity, BLOCK_OCTETS) }
}

fn allocate(capacity: usize) -> NonNull<u8> {
    if capacity == 0 {
        return NONE;
    }
    let Ok(layout) = Layout::from_size_align(capacity, BLOCK_OCTETS) else {
        alloc::handle_alloc_error(Layout::new::<u8>());
    };
    // SAFETY: the capacity is not zero.
    let memory = unsafe { alloc::alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| alloc::handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_stay_aligned_while_they_grow() {
        let mut octets = Aligned::with_capacity(0);
        assert_eq!((octets.len(), octets.capacity()), (0, 0));
        for round in 0..50u8 {
            octets.extend(&[round; 997]);
            assert_eq!(octets.as_ptr() as usize % BLOCK_OCTETS, 0);
        }
        assert_eq!(octets.len(), 50 * 997);
        assert_eq!(octets[49 * 997..], [49; 997]);
    }

    #[test]
    fn padding_is_zero_even_over_old_octets() {
        let mut octets = Aligned::from(&[7u8; 4096][..]);
        octets.clear();
        octets.extend(b"abc");
        octets.pad(64);
        assert_eq!(octets.len(), 64);
        assert!(octets[3..].iter().all(|&octet| octet == 0));
    }
}
