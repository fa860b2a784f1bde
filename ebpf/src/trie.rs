//! Reading a compiled table: the longest network that holds an address, in a few dependent loads.
//!
//! The trie is level- and path-compressed (an LC-trie: Nilsson and Karlsson, "IP-Address Lookup Using
//! LC-Tries", 1999; the Linux FIB is one). A node first compares all bits that lead to it, then
//! takes as many further bits as its density deserves and jumps. A list of one network is one node; 10,000
//! random /24 are a root of 2^14 or so entries and mostly one node below. Both families share the code: an IPv4
//! address is the high half of an otherwise empty key.
//!
//! Roads not taken: the kernel's LPM trie costs 45 to 130 ns a look-up (a helper call and one dependent load for
//! each bit of difference); DIR-24-8 is one load shorter, but costs 32 MiB a list and knows no IPv6; a
//! verdict cache helps exactly as long as the sources are few, which a flood's are not.
//!
//! An *entry* is 32 bits: with [`NODE`] set the unit of a node, else a leaf: 0 for nothing, or a number
//! that the caller gave. A *node* is one unit: `[high bits, low bits, shape, next | fallback << 32]`.

use crate::abi::Unit;

/// Marks an entry as the unit number of a node.
pub const NODE: u32 = 1 << 31;
/// The leaf of an address that no network holds.
pub const NOTHING: u32 = 0;
/// Nodes on the longest way through a trie.
pub const STEPS_MAX: usize = 20;
/// Bits that one node takes at most.
pub const STRIDE_MAX: u32 = 16;

/// An address as a trie reads it: 128 bits, the first one the highest of `high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Bits 0 to 63.
    pub high: u64,
    /// Bits 64 to 127; 0 for IPv4.
    pub low: u64,
}

impl Key {
    /// The key of an IPv4 address in the host's byte order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(address: u32) -> Self {
        Self { high: (address as u64) << 32, low: 0 }
    }
}

/// What a node compares and how it goes on, packed in one word.
///
/// `high_shift` and `low_shift` are each split in two, because a shift by 64 is not defined: the bits that are
/// *not* compared are shifted out in two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bits compared, 0 to 128: also where the stride begins.
    pub check: u32,
    /// Bits of the stride, 0 to [`STRIDE_MAX`]: 0 means that `next` is itself the entry.
    pub stride: u32,
}

impl Shape {
    /// The word of a node.
    #[must_use]
    pub fn pack(self) -> u64 {
        let high = 64 - self.check.min(64);
        let low = 64 - self.check.saturating_sub(64);
        let (high_a, low_a) = (high.min(63), low.min(63));
        u64::from(high_a)
            | u64::from(high - high_a) << 8
            | u64::from(low_a) << 16
            | u64::from(low - low_a) << 24
            | u64::from(self.check % 64) << 32
            | u64::from((64 - self.stride) % 64) << 40
            | u64::from(self.stride != 0) << 48
            | u64::from(self.check >= 64) << 56
    }
}

/// The leaf of the longest network under `root` that holds `key`; [`NOTHING`] where none does, and where the
/// trie is broken.
#[inline(always)]
#[must_use]
pub fn find(units: &[Unit], root: u32, key: Key) -> u32 {
    let mut entry = root;
    for _ in 0..STEPS_MAX {
        if entry & NODE == 0 {
            return entry;
        }
        let Some(node) = units.get((entry & !NODE) as usize) else { return NOTHING };
        let [high, low, shape, links] = *node;
        let differs = ((key.high ^ high) >> (shape & 63)) >> (shape >> 8 & 63)
            | ((key.low ^ low) >> (shape >> 16 & 63)) >> (shape >> 24 & 63);
        if differs != 0 {
            entry = (links >> 32) as u32;
            continue;
        }
        if shape >> 48 & 1 == 0 {
            entry = links as u32;
            continue;
        }
        let half = if shape >> 56 & 1 == 0 { key.high } else { key.low };
        let slot = (half << (shape >> 32 & 63)) >> (shape >> 40 & 63);
        entry = entry_at(units, (links as u32 as u64).wrapping_add(slot));
    }
    NOTHING
}

/// The entry with this number: two in a word. The last unit never holds entries: the verifier rounds the end
/// of an index up to its mask, and this is the room it asks for.
#[inline(always)]
fn entry_at(units: &[Unit], number: u64) -> u32 {
    let words = units.as_flattened();
    if number >= 2 * (words.len() as u64).saturating_sub(4) {
        return NOTHING;
    }
    let Some(word) = words.get((number >> 1) as usize) else { return NOTHING };
    (word >> ((number & 1) * 32)) as u32
}
