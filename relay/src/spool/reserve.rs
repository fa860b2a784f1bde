//! The last segments of a spool, and who may open them.
//!
//! Mail is the only thing that a full spool can refuse. What settles mail, and what makes room by moving the little that
//! lives in a segment, must find room even then, or a spool that was full once stays full. So some segments are kept back:
//! made ahead, with zeros that are really written, and never opened for mail. The last of them are for moves
//! alone: these give back more than they take.
//!
//! Where the disk and `QUEUE_BYTES_MAX` leave plenty, what is kept back need not be made yet.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::batch::Refusal;
use super::segment::{Books, Catalogue, Segment};
use crate::io::files::Space;

/// What a record is written for, by how little it can do without room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// A client's message: it can be refused.
    Mail,
    /// States, tombstones, notices: what becomes of the mail that is there.
    Books,
    /// Copies of what lives in a segment that is to be emptied.
    Moves,
}

/// How many purposes there are.
pub(super) const PURPOSES: usize = Purpose::Moves as usize + 1;

/// The file system must have room for what is kept back so many times over before it is trusted to have it later.
const TRUST_FACTOR: u64 = 2;

impl Catalogue {
    /// Segments that are kept back: for each worker one for what it has to write down, and one for moves.
    pub(super) fn kept_back(&self) -> u64 {
        2 * u64::from(self.workers)
    }

    /// Octets of new mail that can still be taken before the space runs out.
    #[must_use]
    pub fn octets_free(&self) -> u64 {
        let books = self.books();
        let unit = self.geometry().segment_octets;
        let spares = books.spares.len() as u64;
        let within = self.budget().saturating_sub(books.octets.saturating_sub(spares * unit)) / unit;
        // A spare beyond the budget is not for mail.
        let there = (spares + self.makeable(&books).min(self.makeable_on_disk())).min(within);
        there.saturating_sub(self.kept_back()) * unit
    }

    /// A spare segment to write to, held by the caller, and what it is for: what needs less may be written there only as
    /// long as [`Self::may_share`] says so. `None`: one must be made first.
    pub(super) fn open_spare(&self, purpose: Purpose) -> Option<(Arc<Segment>, Purpose)> {
        let mut books = self.books();
        let allowed = |purpose| self.covers(&books, self.spares_beyond(purpose) + 1);
        let rank = [Purpose::Mail, Purpose::Books, Purpose::Moves].into_iter().find(|&rank| allowed(rank));
        let rank = rank.filter(|&rank| rank <= purpose)?;
        let (_, spare) = books.spares.pop_first()?;
        Some((books.enter(spare, 1), rank))
    }

    /// Whether what is kept back from this purpose is there beside the segments that are open.
    pub(super) fn may_share(&self, purpose: Purpose) -> bool {
        self.covers(&self.books(), self.spares_beyond(purpose))
    }

    /// Spares that must be left when a segment is opened for this.
    fn spares_beyond(&self, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Mail => self.kept_back(),
            Purpose::Books => u64::from(self.workers),
            Purpose::Moves => 0,
        }
    }

    /// Whether more spare segments should be made ahead.
    pub(super) fn wants_spares(&self) -> bool {
        let books = self.books();
        let spares = books.spares.len() as u64;
        let usual = (self.geometry().spares as u64) * u64::from(self.workers) + 1;
        spares < usual || !self.covers(&books, self.kept_back() + 1)
    }

    /// Whether there is no spare segment at all.
    pub(super) fn is_bare(&self) -> bool {
        self.books().spares.is_empty()
    }

    /// Whether the file system has nothing left, as far as is known.
    pub(super) fn is_refused(&self) -> bool {
        self.makeable_on_disk() == 0
    }

    /// What the file system has left: a segment takes octets and a file.
    pub(super) fn note_space(&self, space: Space) {
        let octets = space.available.min(space.files.saturating_mul(self.geometry().segment_octets));
        self.disk_available.store(octets, Relaxed);
    }

    /// The file system gives nothing, whatever it says to have.
    pub(super) fn note_refused(&self, refusal: Refusal) {
        self.disk_available.store(0, Relaxed);
        self.is_failing.store(refusal == Refusal::Failed, Relaxed);
    }

    /// Why there is no room.
    pub(super) fn shortage(&self) -> Refusal {
        if self.is_failing.load(Relaxed) { Refusal::Failed } else { Refusal::Full }
    }

    /// Whether so many spares are there, or will surely be.
    fn covers(&self, books: &Books, wanted: u64) -> bool {
        let lacking = wanted.saturating_sub(books.spares.len() as u64);
        let trusted = lacking + TRUST_FACTOR * self.kept_back();
        lacking == 0 || (lacking <= self.makeable(books) && trusted <= self.makeable_on_disk())
    }

    /// Segments that `QUEUE_BYTES_MAX` still allows.
    fn makeable(&self, books: &Books) -> u64 {
        self.budget().saturating_sub(books.octets) / self.geometry().segment_octets
    }

    /// Segments that the file system had room for when it was last asked.
    fn makeable_on_disk(&self) -> u64 {
        self.disk_available.load(Relaxed) / self.geometry().segment_octets
    }
}
