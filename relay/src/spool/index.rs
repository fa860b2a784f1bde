//! What a worker remembers of each message on disk: 64 octets, whatever the message is.
//!
//! Bodies, addresses and states are read from the disk when they are needed; a million messages take some 80 MB here.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::entry::State;
use super::record::{HEADER_OCTETS, record_octets};
use super::segment::UseId;
use crate::units::QueueId;

/// Where a record's header stands. Invariant: the segment's use is in the catalogue while a slot points there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// The use of a segment; 0: nowhere; [`ARCHIVED`]: in the message's own file.
    pub(super) segment: UseId,
    /// In units of [`HEADER_OCTETS`].
    pub(super) position: u32,
    /// Octets of payload.
    pub(super) payload_octets: u32,
}

/// Not a segment, but the message's own file.
pub(super) const ARCHIVED: UseId = u32::MAX;

impl Place {
    pub(super) fn new(segment: UseId, offset: u64, payload_octets: u32) -> Self {
        let position = u32::try_from(offset / HEADER_OCTETS as u64).unwrap_or(u32::MAX);
        Self { segment, position, payload_octets }
    }

    pub(super) fn offset(self) -> u64 {
        u64::from(self.position) * HEADER_OCTETS as u64
    }

    pub(super) fn record_octets(self) -> u64 {
        record_octets(self.payload_octets as usize) as u64
    }

    pub(super) fn is_in_segment(self) -> bool {
        self.segment != 0 && self.segment != ARCHIVED
    }
}

/// Whose the message is, in numbers that the caller of the spool gives out: where it goes and where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keys {
    /// The destination that its delivery queues for.
    pub destination: u32,
    /// The source that it is one of, for taking turns.
    pub source: u32,
}

/// What is known of a message without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The message.
    pub id: QueueId,
    /// Whose it is.
    pub keys: Keys,
    /// When it was accepted, in seconds since the Unix epoch.
    pub arrival_s: u32,
    /// When its next attempt is due, in seconds since the Unix epoch.
    pub due_s: u32,
    /// Attempts so far; at most `u16::MAX`.
    pub attempts: u16,
    /// Whether an operator has stopped its delivery.
    pub held: bool,
    /// Whether its sender was told of the delay.
    pub delay_told: bool,
    /// Octets of the body; at most `u32::MAX`.
    pub octets: u32,
}

/// A message on disk. An empty slot has the id [`EMPTY`] and the next empty one in `shadow`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    id: [u32; 3],
    /// The record that commits it.
    pub(super) place: Place,
    /// Its latest state, where that is not the one in the record.
    pub(super) state: Place,
    /// For an archived message: the use of the segment where an older record of it stands, or 0.
    pub(super) shadow: UseId,
    keys: Keys,
    pub(super) arrival_s: u32,
    pub(super) due_s: u32,
    pub(super) octets: u32,
    pub(super) attempts: u16,
    pub(super) held: bool,
    pub(super) delay_told: bool,
}

const _: () = assert!(size_of::<Slot>() <= 64);
const EMPTY: [u32; 3] = [u32::MAX; 3];

impl Slot {
    pub(super) fn new(id: QueueId, keys: Keys) -> Self {
        Self {
            id: pack(id),
            place: Place::default(),
            state: Place::default(),
            shadow: 0,
            keys,
            arrival_s: 0,
            due_s: 0,
            octets: 0,
            attempts: 0,
            held: false,
            delay_told: false,
        }
    }

    pub(super) fn id(&self) -> Option<QueueId> {
        unpack(self.id)
    }

    /// Whether record and state stand where they stood.
    pub(super) fn stands_as(&self, other: &Self) -> bool {
        self.place == other.place && self.state == other.state
    }

    /// Remembers what is asked of a state without reading it.
    pub(super) fn take_state(&mut self, state: &State) {
        self.due_s = u32::try_from(state.due_ms / 1000).unwrap_or(u32::MAX);
        self.attempts = u16::try_from(state.attempts).unwrap_or(u16::MAX);
        (self.held, self.delay_told) = (state.held, state.delay_told);
    }

    /// Its latest state is that of this slot, of the same message.
    pub(super) fn keep_state_of(&mut self, other: &Self) {
        (self.state, self.due_s, self.attempts) = (other.state, other.due_s, other.attempts);
        (self.held, self.delay_told) = (other.held, other.delay_told);
    }

    /// The use of the segment that its tombstone keeps from coming back, or 0.
    pub(super) fn holds_back(&self) -> UseId {
        if self.place.segment == ARCHIVED { self.shadow } else { self.place.segment }
    }

    /// Octets that a copy of the message takes at most, whatever its state says.
    pub(super) fn octets_max(&self) -> u64 {
        let (record, body) = (self.place.record_octets(), u64::from(self.octets));
        // A record that is shorter than the body does not hold all of it.
        let chunks = if record < body { body } else { 0 };
        chunks + record + self.state.record_octets()
    }

    pub(super) fn summary(&self) -> Option<Summary> {
        Some(Summary {
            id: self.id()?,
            keys: self.keys,
            arrival_s: self.arrival_s,
            due_s: self.due_s,
            attempts: self.attempts,
            held: self.held,
            delay_told: self.delay_told,
            octets: self.octets,
        })
    }
}

/// The messages of one worker.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Vec<Slot>,
    /// The first empty slot, plus one.
    empty: u32,
    by_id: HashTable<u32>,
    hasher: RandomState,
    /// The chunks of large messages, in order.
    parts: HashMap<u32, Vec<Place>>,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The number of a message's slot.
    pub(super) fn find(&self, id: QueueId) -> Option<u32> {
        let id = pack(id);
        self.by_id.find(self.hasher.hash_one(id), |&at| self.slots[at as usize].id == id).copied()
    }

    pub(super) fn get(&self, id: QueueId) -> Option<&Slot> {
        self.find(id).map(|at| &self.slots[at as usize])
    }

    pub(super) fn get_mut(&mut self, id: QueueId) -> Option<&mut Slot> {
        self.find(id).map(|at| &mut self.slots[at as usize])
    }

    /// The chunks of a message, in order.
    pub(super) fn parts(&self, id: QueueId) -> &[Place] {
        self.find(id).and_then(|at| self.parts.get(&at)).map_or(&[], Vec::as_slice)
    }

    /// Enters a message, or puts another slot in the place of the one it had; says which slot.
    pub(super) fn put(&mut self, slot: Slot, parts: Vec<Place>) -> u32 {
        let at = match slot.id().and_then(|id| self.find(id)) {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => self.enter(slot),
        };
        if parts.is_empty() {
            self.parts.remove(&at);
        } else {
            self.parts.insert(at, parts);
        }
        at
    }

    fn enter(&mut self, slot: Slot) -> u32 {
        let at = match self.empty.checked_sub(1) {
            Some(at) => {
                self.empty = self.slots[at as usize].shadow;
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let Self { by_id, hasher, slots, .. } = self;
        let hash = hasher.hash_one(slot.id);
        by_id.insert_unique(hash, at, |&at| hasher.hash_one(slots[at as usize].id));
        at
    }

    /// Takes a message out: its slot and its chunks.
    pub(super) fn remove(&mut self, id: QueueId) -> Option<(Slot, Vec<Place>)> {
        let packed = pack(id);
        let slots = &self.slots;
        let found =
            self.by_id.find_entry(self.hasher.hash_one(packed), |&at| slots[at as usize].id == packed);
        let (at, _) = found.ok()?.remove();
        let slot = self.slots[at as usize];
        self.slots[at as usize].id = EMPTY;
        self.slots[at as usize].shadow = self.empty;
        self.empty = at + 1;
        Some((slot, self.parts.remove(&at).unwrap_or_default()))
    }

    /// All messages, with their chunks.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Slot, &[Place])> {
        self.slots
            .iter()
            .zip(0u32..)
            .filter(|(slot, _)| slot.id != EMPTY)
            .map(|(slot, at)| (slot, self.parts.get(&at).map_or(&[][..], Vec::as_slice)))
    }

    /// All messages, without reading any.
    pub(super) fn summaries(&self) -> impl Iterator<Item = Summary> {
        self.iter().filter_map(|(slot, _)| slot.summary())
    }

    /// The messages that have something in a segment.
    pub(super) fn residents(&self, segment: UseId) -> Vec<QueueId> {
        let lives = |slot: &Slot, parts: &[Place]| {
            slot.place.segment == segment
                || slot.state.segment == segment
                || parts.iter().any(|part| part.segment == segment)
        };
        self.iter().filter(|(slot, parts)| lives(slot, parts)).filter_map(|(slot, _)| slot.id()).collect()
    }
}

/// An id in twelve octets instead of sixteen: it has 75 bits.
#[allow(clippy::cast_possible_truncation, reason = "each shift leaves the 32 bits that are meant")]
pub(super) fn pack(id: QueueId) -> [u32; 3] {
    let bits = id.to_bits();
    [bits as u32, (bits >> 32) as u32, (bits >> 64) as u32]
}

pub(super) fn unpack(id: [u32; 3]) -> Option<QueueId> {
    QueueId::from_bits(u128::from(id[0]) | u128::from(id[1]) << 32 | u128::from(id[2]) << 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id(number: u8) -> QueueId {
        QueueId::from_bits(u128::from(number) << 60).unwrap()
    }

    proptest! {
        #[test]
        fn it_remembers_what_a_map_remembers(steps in prop::collection::vec((any::<bool>(), 0u8..20, any::<u32>()), 0..200)) {
            let mut index = Index::default();
            let mut map = BTreeMap::new();
            for (put, number, octets) in steps {
                let parts = vec![Place::new(7, 64, octets); usize::from(number % 3)];
                if put {
                    let slot = Slot { octets, ..Slot::new(id(number), Keys::default()) };
                    index.put(slot, parts.clone());
                    map.insert(number, (octets, parts));
                } else {
                    let removed = index.remove(id(number)).map(|(slot, parts)| (slot.octets, parts));
                    prop_assert_eq!(removed, map.remove(&number));
                }
                prop_assert_eq!(index.len(), map.len());
            }
            for (&number, (octets, parts)) in &map {
                prop_assert_eq!(index.get(id(number)).unwrap().octets, *octets);
                prop_assert_eq!(index.parts(id(number)), &parts[..]);
            }
            let mut listed: Vec<u32> = index.summaries().map(|summary| summary.octets).collect();
            let mut expected: Vec<u32> = map.values().map(|(octets, _)| *octets).collect();
            listed.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(listed, expected);
        }
    }

    #[test]
    fn residents_are_those_with_anything_in_a_segment() {
        let mut index = Index::default();
        let at = |segment| Place::new(segment, 4096, 10);
        index.put(Slot { place: at(1), ..Slot::new(id(1), Keys::default()) }, Vec::new());
        index.put(Slot { place: at(2), state: at(1), ..Slot::new(id(2), Keys::default()) }, Vec::new());
        index.put(Slot { place: at(2), ..Slot::new(id(3), Keys::default()) }, vec![at(1), at(2)]);
        index.put(Slot { place: at(2), ..Slot::new(id(4), Keys::default()) }, Vec::new());
        let mut residents = index.residents(1);
        residents.sort();
        assert_eq!(residents, [1, 2, 3].map(id));
    }
}
