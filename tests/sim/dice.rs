//! Choices that follow from a seed, apart from the world's own randomness.

use std::cell::Cell;
use std::rc::Rc;

/// A row of choices; clones go on in the same row.
#[derive(Debug, Clone)]
pub(crate) struct Dice(Rc<Cell<u64>>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rc::new(Cell::new(seed ^ 0x005E_ED0F_D1CE)))
    }

    /// A number below the bound; 0 for the bound 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        // splitmix64.
        let state = self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    /// An index below the length.
    pub(crate) fn index(&self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// Whether something happens that happens so often in a thousand times.
    pub(crate) fn happens(&self, permille: u64) -> bool {
        self.below(1000) < permille
    }
}
