//! What is sent in one go: slices of buffers and octets of our own, gathered for one `writev`.

#![allow(unsafe_code, reason = "iovecs point into the octets that the flight owns")]

use bytes::Bytes;
use monoio::buf::IoVecBuf;

/// Slices in order. Invariant: `vectors[i]` points into `slices[i]`; an empty slice is never kept.
///
/// At most [`Self::SLICES_MAX`] slices go out in one system call; more are sent in rounds.
#[derive(Debug, Default)]
pub struct Flight {
    slices: Vec<Bytes>,
    vectors: Vec<libc::iovec>,
    /// Slices that are sent whole already.
    sent: usize,
}

// SAFETY: the raw pointers in `vectors` point into `slices`, which are Send and travel with them.
unsafe impl Send for Flight {}

impl Flight {
    /// Slices of one system call (the kernel's IOV_MAX).
    pub const SLICES_MAX: usize = 1024;

    /// Appends a slice; an empty one is left out.
    pub fn push(&mut self, slice: Bytes) {
        if slice.is_empty() {
            return;
        }
        self.vectors.push(vector(&slice));
        self.slices.push(slice);
    }

    /// Puts a slice in front of the others. Only before anything was sent.
    pub fn prepend(&mut self, slice: Bytes) {
        debug_assert_eq!(self.sent, 0);
        if slice.is_empty() {
            return;
        }
        self.vectors.insert(0, vector(&slice));
        self.slices.insert(0, slice);
    }

    /// Appends octets that live for ever.
    pub fn push_static(&mut self, octets: &'static [u8]) {
        self.push(Bytes::from_static(octets));
    }

    /// Octets not yet sent.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.vectors[self.sent..].iter().map(|vector| vector.iov_len).sum()
    }

    /// Whether nothing is left to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent == self.slices.len()
    }

    /// Forgets everything, keeps the room.
    pub fn clear(&mut self) {
        self.slices.clear();
        self.vectors.clear();
        self.sent = 0;
    }

    /// The slices that are not yet sent whole, without regard to how much of the first is.
    #[must_use]
    pub fn slices(&self) -> &[Bytes] {
        &self.slices[self.sent..]
    }

    /// The octets not yet sent, slice by slice.
    pub fn remaining(&self) -> impl Iterator<Item = &[u8]> {
        self.slices[self.sent..].iter().zip(&self.vectors[self.sent..]).map(|(slice, vector)| {
            // What is left of a slice is always its tail.
            &slice[slice.len() - vector.iov_len..]
        })
    }

    /// Takes note that this many octets were sent.
    pub fn advance(&mut self, mut octets: usize) {
        while octets > 0 {
            let Some(vector) = self.vectors.get_mut(self.sent) else { return };
            if octets < vector.iov_len {
                // SAFETY: the pointer stays within the slice: octets < iov_len.
                vector.iov_base = unsafe { vector.iov_base.cast::<u8>().add(octets) }.cast();
                vector.iov_len -= octets;
                return;
            }
            octets -= vector.iov_len;
            self.sent += 1;
        }
    }
}

fn vector(slice: &Bytes) -> libc::iovec {
    libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() }
}

impl FromIterator<Bytes> for Flight {
    fn from_iter<T: IntoIterator<Item = Bytes>>(slices: T) -> Self {
        let mut flight = Self::default();
        slices.into_iter().for_each(|slice| flight.push(slice));
        flight
    }
}

// SAFETY: the iovecs live in a Vec that is not touched while the runtime owns the flight, and each points into a
// `Bytes` that the flight owns; their number is the real one.
unsafe impl IoVecBuf for Flight {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.vectors[self.sent..].as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        (self.vectors.len() - self.sent).min(Self::SLICES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_forgotten_octet_by_octet() {
        let mut flight: Flight =
            [&b"MAIL"[..], b"", b"RCPT", b"."].map(Bytes::from_static).into_iter().collect();
        let mut seen = Vec::new();
        while !flight.is_empty() {
            seen.push(flight.remaining().next().unwrap()[0]);
            assert_eq!(flight.octets(), 9 - seen.len() + 1);
            flight.advance(1);
        }
        assert_eq!(seen, b"MAILRCPT.");
        assert_eq!(flight.octets(), 0);
    }

    #[test]
    fn an_advance_may_end_between_or_within_slices() {
        let mut flight: Flight = [&b"abc"[..], b"def"].map(Bytes::from_static).into_iter().collect();
        flight.advance(3);
        assert_eq!(flight.remaining().collect::<Vec<_>>(), [b"def"]);
        flight.advance(2);
        assert_eq!(flight.remaining().collect::<Vec<_>>(), [b"f"]);
        assert_eq!(flight.read_iovec_len(), 1);
    }
}
