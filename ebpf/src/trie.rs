//! Reading a compiled table: the longest network that holds an address, in a few dependent loads.
//!
//! The trie is level- and path-compressed (an LC-trie: Nilsson and Karlsson, "IP-Address Lookup Using
//! LC-Tries", 1999; the Linux FIB is one). A node first compares all bits that lead to it, then takes as many
//! further bits as its density deserves and jumps. What remains of a network after the jump is mostly short
//! enough to be compared in the entry itself. One network is no load at all: it is in the root. 10,000 random
//! /24 are one table of 2^14 entries: the root node and one entry. Both families share the code: an IPv4
//! address is the high half of an otherwise empty key.
//!
//! Roads not taken, by `cargo xtask bench gate`: the kernel's LPM trie costs 45 to 130 ns a look-up (a
//! helper call and one dependent load for each bit of difference); DIR-24-8 is as quick, but costs 32 MiB a
//! list and knows no IPv6; a verdict cache helps as long as the sources are few, which a flood's are not.
//! Networks in nodes of their own below the root, instead of in its entries, cost 18 ns more at 10,000.
//!
//! An *entry* is a word; its lowest two bits say what it is:
//!
//! | tag | is | the other bits |
//! | --- | --- | --- |
//! | 0 | a leaf | 2..18 leaf |
//! | 1 | a node | 2.. its unit |
//! | 2 | a checked leaf: the next bits of the key must be these | 2..7 how many, 7..31 which, 31..47 leaf, 47..63 leaf otherwise |
//!
//! A *leaf* is a number of 16 bits, 0 for nothing. A *node* is a unit `[high bits, low bits, shape, next]`:
//! see [`Shape`].

use crate::abi::{UNITS, Units};

/// The leaf of an address that no network holds.
pub const NOTHING: u16 = 0;
/// Nodes on the longest way through a trie.
pub const STEPS_MAX: usize = 13;
/// Bits that one node takes at most.
pub const STRIDE_MAX: u32 = 16;
/// Bits that a checked leaf compares at most.
pub const CHECKED_MAX: u32 = 24;

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

/// One step of a way through a trie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The end.
    Leaf(u16),
    /// The unit of a node.
    Node(u32),
    /// The end, if the next bits of the key are these.
    Checked {
        /// How many: 1 to [`CHECKED_MAX`].
        bits: u32,
        /// Which.
        value: u32,
        /// The leaf if they are.
        leaf: u16,
        /// The leaf if they are not.
        fallback: u16,
    },
}

const TAG: u64 = 3;
const LEAF: u64 = 0;
const NODE: u64 = 1;

impl Entry {
    /// The word of an entry.
    #[must_use]
    pub const fn pack(self) -> u64 {
        match self {
            Self::Leaf(leaf) => LEAF | (leaf as u64) << 2,
            Self::Node(unit) => NODE | (unit as u64) << 2,
            Self::Checked { bits, value, leaf, fallback } => {
                2 | (bits as u64) << 2 | (value as u64) << 7 | (leaf as u64) << 31 | (fallback as u64) << 47
            }
        }
    }
}

/// What a node compares and how it goes on, packed in one word with the leaf of keys that differ.
///
/// Bits that are *not* compared are shifted out in two steps, because a shift by 64 is not defined. `next` is the
/// number of the first entry (two of a stride of one bit, and so on), or without a stride the leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bits compared, 0 to 128: also where the stride begins.
    pub check: u32,
    /// Bits of the stride, 0 to [`STRIDE_MAX`].
    pub stride: u32,
    /// The leaf of keys that differ in the bits compared.
    pub fallback: u16,
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
            | u64::from(self.stride) << 40
            | u64::from(self.check >= 64) << 47
            | u64::from(self.fallback) << 48
    }
}

/// The leaf of the longest network under `root` that holds `key`; [`NOTHING`] where none does, and where the
/// trie is broken.
#[inline(always)]
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "fields of packed words are cut out by casts")]
pub fn find(units: &Units, root: u64, key: Key) -> u16 {
    let mut entry = root;
    // The bits of the key that no stride has taken yet, from the highest on.
    let mut rest = key.high;
    for _ in 0..STEPS_MAX {
        match entry & TAG {
            LEAF => return (entry >> 2) as u16,
            NODE => {}
            _ => {
                let differs = (rest >> ((64 - (entry >> 2 & 31)) & 63)) ^ (entry >> 7 & 0xff_ffff);
                return if differs == 0 { (entry >> 31) as u16 } else { (entry >> 47) as u16 };
            }
        }
        let [high, low, shape, next] = units[(entry >> 2) as usize & (UNITS - 1)];
        let differs = ((key.high ^ high) >> (shape & 63)) >> (shape >> 8 & 63)
            | ((key.low ^ low) >> (shape >> 16 & 63)) >> (shape >> 24 & 63);
        if differs != 0 {
            return (shape >> 48) as u16;
        }
        let stride = shape >> 40 & 31;
        if stride == 0 {
            return next as u16;
        }
        let half = if shape >> 47 & 1 == 0 { key.high } else { key.low } << (shape >> 32 & 63);
        let slot = half >> ((64 - stride) & 63);
        rest = half << stride;
        entry = units.as_flattened()[next.wrapping_add(slot) as usize & (4 * UNITS - 1)];
    }
    NOTHING
}
