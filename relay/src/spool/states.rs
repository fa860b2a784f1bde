//! States of messages that the disk has not taken, or not yet: each counts from the moment that it is given.
//!
//! Whom a message was delivered to is known whatever the disk says, and stays known until the disk says it too: such a state
//! is owed where it is refused. What somebody merely wants of a message is taken back where it is refused: who asked for it
//! is told that it was not done. Pure.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::entry::State;
use crate::units::QueueId;

/// What a state says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// What has happened.
    Outcome,
    /// What is wanted, or a copy of what stands on the disk: nothing is missed without it.
    Wish,
}

/// A state that was given, under the sequence of its record.
#[derive(Debug)]
struct Given {
    stamp: u64,
    state: Rc<State>,
    word: Word,
    is_on_the_way: bool,
}

/// Invariant: `owed` has the messages that have states here none of which is on its way.
#[derive(Debug, Default)]
pub(super) struct States {
    /// By message, in the order that they were given; none is empty.
    given: HashMap<QueueId, Vec<Given>>,
    owed: BTreeSet<QueueId>,
}

impl States {
    /// A state is on its way to the disk, and counts from now on.
    pub(super) fn give(&mut self, id: QueueId, stamp: u64, state: Rc<State>, word: Word) {
        let given = self.given.entry(id).or_default();
        if word == Word::Outcome {
            // It says all that was owed, and more.
            given.retain(|earlier| earlier.is_on_the_way);
        }
        given.push(Given { stamp, state, word, is_on_the_way: true });
        self.owed.remove(&id);
    }

    /// The state that counts, where that is not the one on the disk.
    pub(super) fn latest(&self, id: QueueId) -> Option<&Rc<State>> {
        self.given.get(&id).and_then(|given| given.last()).map(|latest| &latest.state)
    }

    /// Which one that is; 0: the one on the disk.
    pub(super) fn latest_stamp(&self, id: QueueId) -> u64 {
        self.given.get(&id).and_then(|given| given.last()).map_or(0, |latest| latest.stamp)
    }

    /// Whether the disk has still to answer for one.
    pub(super) fn is_awaited(&self, id: QueueId) -> bool {
        self.given.get(&id).is_some_and(|given| given.iter().any(|one| one.is_on_the_way))
    }

    /// The state that had counted when this stamp was given out is on the disk; which it is, where it was kept here.
    pub(super) fn written(&mut self, id: QueueId, stamp: u64) -> Option<Rc<State>> {
        let given = self.given.get_mut(&id)?;
        let older = given.partition_point(|one| one.stamp <= stamp);
        let written = given.drain(..older).next_back().map(|one| one.state);
        self.note(id);
        written
    }

    /// This one is not on the disk and will not be.
    pub(super) fn refused(&mut self, id: QueueId, stamp: u64) {
        let Some(given) = self.given.get_mut(&id) else { return };
        let Some(at) = given.iter().position(|one| one.stamp == stamp) else { return };
        let is_outdated = given[at + 1..].iter().any(|later| later.word == Word::Outcome);
        if given[at].word == Word::Wish || is_outdated {
            given.remove(at);
        } else {
            given[at].is_on_the_way = false;
        }
        self.note(id);
    }

    /// The message is settled, or never came to be.
    pub(super) fn forget(&mut self, id: QueueId) {
        if self.given.remove(&id).is_some() {
            self.owed.remove(&id);
        }
    }

    /// A message whose latest state is to be written again.
    pub(super) fn owed(&self) -> Option<QueueId> {
        self.owed.first().copied()
    }

    /// Whether a message is owed its state and nothing of it is on its way.
    fn note(&mut self, id: QueueId) {
        match self.given.get(&id) {
            Some(given) if given.is_empty() => drop(self.given.remove(&id)),
            Some(given) if given.iter().all(|one| !one.is_on_the_way) => drop(self.owed.insert(id)),
            Some(_) => {}
            None => drop(self.owed.remove(&id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::{QueueIds, WorkerId};

    fn state(attempts: u32) -> Rc<State> {
        Rc::new(State { attempts, ..State::default() })
    }

    fn latest(states: &States, id: QueueId) -> Option<u32> {
        states.latest(id).map(|state| state.attempts)
    }

    fn message() -> QueueId {
        QueueIds::new(7, WorkerId(0)).issue()
    }

    #[test]
    fn an_outcome_that_the_disk_refuses_counts_and_is_owed() {
        let (mut states, id) = (States::default(), message());
        states.give(id, 1, state(1), Word::Outcome);
        assert_eq!((latest(&states, id), states.is_awaited(id), states.owed()), (Some(1), true, None));
        states.refused(id, 1);
        assert_eq!((latest(&states, id), states.is_awaited(id), states.owed()), (Some(1), false, Some(id)));
        states.give(id, 2, state(2), Word::Outcome);
        assert_eq!((latest(&states, id), states.owed()), (Some(2), None));
        assert_eq!(states.written(id, 2), Some(state(2)));
        assert_eq!((latest(&states, id), states.is_awaited(id), states.owed()), (None, false, None));
    }

    #[test]
    fn a_wish_that_the_disk_refuses_is_taken_back_and_no_outcome_with_it() {
        let (mut states, id) = (States::default(), message());
        states.give(id, 1, state(1), Word::Outcome);
        states.refused(id, 1);
        states.give(id, 2, state(9), Word::Wish);
        assert_eq!(latest(&states, id), Some(9));
        states.refused(id, 2);
        assert_eq!((latest(&states, id), states.owed()), (Some(1), Some(id)));
        states.give(id, 3, state(9), Word::Wish);
        states.give(id, 4, state(10), Word::Outcome);
        states.refused(id, 3);
        assert_eq!((latest(&states, id), states.is_awaited(id)), (Some(10), true));
    }

    #[test]
    fn a_copy_of_the_message_pays_what_was_owed_when_it_was_made() {
        let (mut states, id) = (States::default(), message());
        states.give(id, 1, state(1), Word::Outcome);
        states.refused(id, 1);
        // The copy's record has the sequence 2; something more happens before it is there.
        states.give(id, 3, state(3), Word::Outcome);
        states.refused(id, 3);
        assert_eq!((states.written(id, 2), latest(&states, id)), (None, Some(3)));
        states.give(id, 4, state(3), Word::Wish);
        assert_eq!((states.written(id, 4), latest(&states, id)), (Some(state(3)), None));
        states.refused(id, 4);
        assert_eq!(states.owed(), None);
    }

    #[test]
    fn nothing_is_owed_to_what_is_settled() {
        let (mut states, id) = (States::default(), message());
        states.give(id, 1, state(1), Word::Outcome);
        states.refused(id, 1);
        states.give(id, 2, state(2), Word::Outcome);
        states.forget(id);
        states.refused(id, 2);
        assert_eq!((latest(&states, id), states.written(id, 2), states.owed()), (None, None, None));
    }

    proptest! {
        /// The oracle: the last outcome, unless a wish that is not refused came after it; and once the disk has answered for
        /// everything, what it lacks is owed.
        #[test]
        fn what_has_happened_is_never_forgotten(
            words in prop::collection::vec((any::<bool>(), any::<bool>()), 1..12),
            in_between in prop::collection::vec(any::<bool>(), 12),
        ) {
            let (mut states, id) = (States::default(), message());
            let mut answered = 0;
            let mut on_disk = 0;
            for (at, (is_outcome, _)) in words.iter().enumerate() {
                let stamp = at as u64 + 1;
                let word = if *is_outcome { Word::Outcome } else { Word::Wish };
                states.give(id, stamp, state(u32::try_from(stamp).unwrap()), word);
                prop_assert_eq!(states.latest_stamp(id), stamp);
                while answered <= at && (in_between[at] || at + 1 == words.len()) {
                    let stamp = answered as u64 + 1;
                    if words[answered].1 {
                        states.written(id, stamp);
                        on_disk = stamp;
                    } else {
                        states.refused(id, stamp);
                    }
                    answered += 1;
                }
            }
            let holds = |(at, &(is_outcome, is_written)): (usize, &(bool, bool))| {
                (is_outcome || is_written).then_some(at as u64 + 1)
            };
            let counts = words.iter().enumerate().filter_map(holds).next_back().unwrap_or(0);
            let known = if states.latest_stamp(id) == 0 { on_disk } else { states.latest_stamp(id) };
            prop_assert_eq!(known, counts);
            prop_assert_eq!(states.owed().is_some(), on_disk < counts);
            prop_assert!(!states.is_awaited(id));
        }
    }
}
