//! Which segment is emptied where room is wanted: the same one for all workers.
//!
//! After a restart every segment has messages of every worker. Were each worker to empty another one, each would use up
//! what is kept back for it, and no segment would become empty. So they agree on one; it is used again before the next.

use std::collections::BTreeSet;

use super::segment::{Books, Catalogue, UseId};

/// What the workers have agreed on.
#[derive(Debug, Default)]
pub(super) struct Aim {
    segment: Option<UseId>,
    /// Segments that somebody could not empty, until something has changed.
    stubborn: BTreeSet<UseId>,
}

impl Aim {
    /// Something has changed.
    pub(super) fn forgive(&mut self) {
        *self = Self::default();
    }
}

impl Catalogue {
    /// Whether a worker may empty this segment now; where nothing is aimed at, it is from now on.
    pub(super) fn may_empty(&self, segment: UseId) -> bool {
        let mut books = self.books();
        let Books { aim, uses, .. } = &mut *books;
        if aim.stubborn.contains(&segment) {
            return false;
        }
        match aim.segment {
            Some(other) if other != segment && uses.contains_key(&other) => return false,
            Some(same) if same == segment => return true,
            _ => aim.segment = Some(segment),
        }
        drop(books);
        self.wake();
        true
    }

    /// A worker cannot empty this segment, for now.
    pub(super) fn give_up_emptying(&self, segment: UseId) {
        let mut books = self.books();
        books.aim.stubborn.insert(segment);
        if books.aim.segment == Some(segment) {
            books.aim.segment = None;
        }
    }

    /// Segments that could not be emptied may be tried again.
    pub(super) fn forgive(&self) {
        self.books().aim.forgive();
        self.wake();
    }
}
