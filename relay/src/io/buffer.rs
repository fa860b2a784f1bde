//! Page-aligned buffers from a free list per thread, shared as [`bytes::Bytes`] once they are filled.
//!
//! A buffer is owned by one receive at a time; [`Buffer::freeze`] turns what it holds into `Bytes`, whose slices go to
//! the upstream, the spool or the parser without a copy. When the last slice is dropped, the memory returns to the
//! free list of the thread that dropped it. Page alignment is not for O_DIRECT alone: a copy between buffers whose
//! addresses differ by a few octets modulo 4096 runs at a twentieth of the speed on some processors.
//!
//! Memory is bounded: sessions are bounded, each holds one buffer, bodies in flight are bounded by the stream, and a free
//! list keeps at most `KEPT_OCTETS` of each larger size.

#![allow(unsafe_code, reason = "raw page-aligned memory, lent to the kernel during a receive")]

use std::alloc::{self, Layout};
use std::cell::RefCell;
use std::ptr::NonNull;

use bytes::Bytes;
use secrecy::zeroize::Zeroize as _;

use crate::limits::{
    BODY_BUFFER_OCTETS_MAX, BODY_BUFFER_OCTETS_MIN, COMMAND_BUFFER_OCTETS, RECORD_BUFFER_OCTETS,
};

/// The sizes that there are, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// For commands, replies and small messages.
    Command,
    /// For the first larger part of a body.
    BodyFirst,
    /// For one TLS record of the greatest size.
    Record,
    /// For a body that goes on.
    Body,
}

impl Size {
    const ALL: [Self; 4] = [Self::Command, Self::BodyFirst, Self::Record, Self::Body];

    /// Octets of a buffer of this size.
    #[must_use]
    pub const fn octets(self) -> usize {
        match self {
            Self::Command => COMMAND_BUFFER_OCTETS,
            Self::BodyFirst => BODY_BUFFER_OCTETS_MIN,
            Self::Record => RECORD_BUFFER_OCTETS,
            Self::Body => BODY_BUFFER_OCTETS_MAX,
        }
    }

    /// The next larger size, or the largest.
    #[must_use]
    pub const fn larger(self) -> Self {
        match self {
            Self::Command => Self::BodyFirst,
            Self::BodyFirst | Self::Record | Self::Body => Self::Body,
        }
    }

    /// The size for a body inside TLS where this one serves outside: for one whole record at least.
    #[must_use]
    pub fn of_records(self) -> Self {
        self.max(Self::Record)
    }

    /// The smallest size that holds so many octets, or the largest.
    #[must_use]
    pub fn holding(octets: usize) -> Self {
        Self::ALL.into_iter().find(|size| size.octets() >= octets).unwrap_or(Self::Body)
    }
}

/// A size, and whether the memory is wiped after its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    size: Size,
    is_wiped: bool,
}

impl Kind {
    /// The same with room for so many octets at least.
    #[must_use]
    pub fn holding(self, octets: usize) -> Self {
        Self { size: self.size.max(Size::holding(octets)), ..self }
    }

    /// An empty buffer of this kind.
    #[must_use]
    pub fn take(self) -> Buffer {
        let mut buffer = Buffer::take(self.size);
        buffer.is_wiped = self.is_wiped;
        buffer
    }
}

/// Memory of one size, and how much of it is filled. Invariant: `filled <= touched <= size.octets()`, and the first
/// `touched` octets are initialised, by this holder or an earlier one.
#[derive(Debug)]
pub struct Buffer {
    memory: NonNull<u8>,
    size: Size,
    filled: usize,
    touched: usize,
    is_wiped: bool,
}

// SAFETY: a Buffer owns its memory alone; nothing in it is bound to a thread (the free list it returns to is that of
// the thread that drops it).
unsafe impl Send for Buffer {}
// SAFETY: a shared Buffer gives out only `&[u8]` of its initialised part.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// An empty buffer, from this thread's free list or fresh.
    #[must_use]
    pub fn take(size: Size) -> Self {
        let kept = FREE.with_borrow_mut(|free| free[size as usize].pop());
        let (memory, touched) = kept.map_or_else(|| (allocate(size), 0), Kept::into_memory);
        Self { memory, size, filled: 0, touched, is_wiped: false }
    }

    /// The same, wiped before anybody else gets its memory: a secret may come.
    #[must_use]
    pub fn wiped(mut self) -> Self {
        self.is_wiped = true;
        self
    }

    /// What another one for more of the same is to be like.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind { size: self.size, is_wiped: self.is_wiped }
    }

    /// Its size.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// Octets that can still be received.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.size.octets() - self.filled
    }

    /// The octets it holds.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        // SAFETY: the first `filled` octets are initialised (invariant) and owned by self.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.filled) }
    }

    /// Appends octets; says how many fitted.
    pub fn append(&mut self, octets: &[u8]) -> usize {
        let count = octets.len().min(self.spare());
        // SAFETY: `count` octets fit behind `filled`; source and destination are distinct allocations, since nobody else
        // holds this memory.
        unsafe {
            std::ptr::copy_nonoverlapping(octets.as_ptr(), self.memory.as_ptr().add(self.filled), count);
        }
        self.filled += count;
        self.touched = self.touched.max(self.filled);
        count
    }

    /// The octets it holds, to be changed in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        // SAFETY: the first `filled` octets are initialised (invariant) and owned by self alone.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.filled) }
    }

    /// Lets `write` put octets into the spare room, which holds whatever was there before; `write` says how many it
    /// wrote. Memory that nobody has written to yet is zeroed first, once.
    pub fn write_with<E>(&mut self, write: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        let size = self.size.octets();
        // SAFETY: the octets from `touched` to `size` are within the allocation.
        unsafe { self.memory.as_ptr().add(self.touched).write_bytes(0, size - self.touched) };
        self.touched = size;
        // SAFETY: all octets up to `size` are initialised now, and self owns them alone.
        let spare = unsafe {
            std::slice::from_raw_parts_mut(self.memory.as_ptr().add(self.filled), size - self.filled)
        };
        let count = write(spare)?.min(size - self.filled);
        self.filled += count;
        Ok(count)
    }

    /// What it holds as shared octets; the memory returns to the free list after the last of them.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        if self.filled == 0 {
            return Bytes::new();
        }
        Bytes::from_owner(self)
    }

    /// Where the kernel may write next.
    pub(super) fn spare_ptr(&mut self) -> *mut u8 {
        // SAFETY: filled <= size, so the pointer stays within the allocation or one past its end.
        unsafe { self.memory.as_ptr().add(self.filled) }
    }

    /// Counts octets that were written at [`Self::spare_ptr`].
    ///
    /// # Safety
    /// The caller has initialised that many octets there, and they fit.
    pub(super) unsafe fn advance(&mut self, octets: usize) {
        debug_assert!(octets <= self.spare());
        self.filled += octets;
        self.touched = self.touched.max(self.filled);
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.is_wiped {
            self.filled_mut().zeroize();
        }
        let kept = Kept(self.memory, self.size, self.touched);
        // During thread exit the list is gone: then the memory is given back at once by Kept's own drop.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            let list = &mut free[self.size as usize];
            if self.size == Size::Command || list.len() < KEPT_OCTETS / self.size.octets() {
                list.push(kept);
            }
        });
    }
}

/// Memory in a free list, and how much of it is initialised.
struct Kept(NonNull<u8>, Size, usize);

impl Drop for Kept {
    fn drop(&mut self) {
        // A part of a slab; it stays with the process.
        if self.1 == Size::Command {
            return;
        }
        // SAFETY: the memory was allocated by `allocate` with this very layout, and whoever held it has let go.
        unsafe { alloc::dealloc(self.0.as_ptr(), layout(self.1)) }
    }
}

// A buffer that leaves a free list is not given back: take its pointer out without running Kept's drop.
impl Kept {
    fn into_memory(self) -> (NonNull<u8>, usize) {
        let kept = std::mem::ManuallyDrop::new(self);
        (kept.0, kept.2)
    }
}

thread_local! {
    static FREE: RefCell<[Vec<Kept>; Size::ALL.len()]> = const { RefCell::new([const { Vec::new() }; Size::ALL.len()]) };
}

/// Small buffers of one slab.
const SLAB_BUFFERS: usize = 64;
/// Octets of each larger size that a thread's free list keeps.
const KEPT_OCTETS: usize = 4 * 1024 * 1024;
const PAGE_OCTETS: usize = 4096;

fn layout(size: Size) -> Layout {
    // SAFETY: the alignment is a power of two and no size is near isize::MAX.
    unsafe { Layout::from_size_align_unchecked(size.octets(), PAGE_OCTETS) }
}

fn allocate(size: Size) -> NonNull<u8> {
    if size == Size::Command {
        return allocate_command();
    }
    allocate_as(layout(size))
}

fn allocate_as(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layout has a size above zero.
    let memory = unsafe { alloc::alloc(layout) };
    NonNull::new(memory).unwrap_or_else(|| alloc::handle_alloc_error(layout))
}

/// Small buffers come by the slab: an aligned page of its own costs the allocator a second one. Slabs are never given
/// back; their number is that of the most sessions that were open at once.
fn allocate_command() -> NonNull<u8> {
    // SAFETY: the alignment is a power of two and the size far below isize::MAX.
    let slab =
        unsafe { Layout::from_size_align_unchecked(SLAB_BUFFERS * COMMAND_BUFFER_OCTETS, PAGE_OCTETS) };
    let memory = allocate_as(slab);
    FREE.with_borrow_mut(|free| {
        for number in 1..SLAB_BUFFERS {
            // SAFETY: the slab holds SLAB_BUFFERS buffers, one behind the other.
            let buffer = unsafe { memory.add(number * COMMAND_BUFFER_OCTETS) };
            free[Size::Command as usize].push(Kept(buffer, Size::Command, 0));
        }
    });
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_only_after_the_last_slice() {
        let mut buffer = Buffer::take(Size::Command);
        let address = buffer.memory;
        assert_eq!(buffer.append(b"250 ok\r\n"), 8);
        let bytes = buffer.freeze();
        let slice = bytes.slice(4..6);
        drop(bytes);
        let other = Buffer::take(Size::Command);
        assert_ne!(other.memory, address, "a slice still lives");
        assert_eq!(&slice[..], b"ok");
        drop(slice);
        assert_eq!(Buffer::take(Size::Command).memory, address);
    }

    #[test]
    fn an_append_stops_at_the_size() {
        let mut buffer = Buffer::take(Size::Command);
        assert_eq!(buffer.append(&[b'x'; 5000]), 4096);
        assert_eq!(buffer.spare(), 0);
        assert_eq!(buffer.filled().len(), 4096);
    }

    #[test]
    fn what_is_written_in_place_stands_behind_what_was_there() {
        let mut buffer = Buffer::take(Size::Record);
        buffer.append(b"abc");
        let written = buffer.write_with(|spare| {
            spare[..2].copy_from_slice(b"de");
            Ok::<_, ()>(2)
        });
        assert_eq!(written, Ok(2));
        assert_eq!(buffer.write_with(|_| Err(7)), Err(7));
        buffer.filled_mut()[0] = b'x';
        assert_eq!(buffer.filled(), b"xbcde");
        drop(buffer);
        let mut again = Buffer::take(Size::Record);
        let _ = again.write_with(|spare| {
            assert_eq!(spare.len(), Size::Record.octets());
            Ok::<_, ()>(0)
        });
        assert!(again.filled().is_empty());
    }

    #[test]
    fn a_buffer_for_secrets_leaves_none() {
        let mut buffer = Buffer::take(Size::Command).wiped();
        buffer.append(b"c2VjcmV0");
        let mut other = buffer.kind().holding(Size::BodyFirst.octets()).take();
        other.append(b"secret");
        let places = [buffer.memory, other.memory];
        drop((buffer.freeze(), other));
        for (size, place) in [Size::Command, Size::BodyFirst].into_iter().zip(places) {
            let mut again = Buffer::take(size);
            assert_eq!(again.memory, place);
            let _ = again.write_with(|spare| {
                assert_eq!(spare[..8], [0; 8]);
                Ok::<_, ()>(0)
            });
        }
    }

    #[test]
    fn buffers_are_page_aligned() {
        for size in Size::ALL {
            assert_eq!(Buffer::take(size).memory.as_ptr() as usize % PAGE_OCTETS, 0);
        }
    }
}
