//! A worker's books: its messages, and which segments it holds for their sake. No file, no clock.
//!
//! Invariant: a segment is held by this worker exactly while `known` has it, and `known` counts the records there that
//! the index points to, plus one while the worker writes it, plus one for each archive file whose removal a tombstone in
//! it still speaks about, plus the chunks of drafts. A message that is settled keeps what it has on the disk until its
//! tombstone is there: a crash before that brings it back with its latest state, not an older one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::batch::{Effect, Next};
use super::debts::Latecomer;
use super::entry::State;
use super::index::{ARCHIVED, Index, Place, Slot};
use super::segment::{Catalogue, Room, Segment, UseId};
use super::states::{States, Word};
use crate::io::files::BLOCK_OCTETS;
use crate::units::QueueId;

#[derive(Debug)]
struct Known {
    segment: Arc<Segment>,
    pins: u32,
}

/// An archive file that is to be removed, and the segment whose tombstone is needed until then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unlink {
    pub(super) id: QueueId,
    pub(super) octets: u64,
    pub(super) tombstone: UseId,
}

/// How a message stands: on the disk, and by what the disk has not taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steady {
    pub(super) slot: Slot,
    stamp: u64,
}

impl Steady {
    /// Whether nothing was written of it, and nothing has happened to it, in between.
    pub(super) fn stands_as(&self, other: &Self) -> bool {
        self.slot.stands_as(&other.slot) && self.stamp == other.stamp
    }
}

/// The books.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) index: Index,
    pub(super) catalogue: Arc<Catalogue>,
    known: BTreeMap<UseId, Known>,
    /// Messages that are not on the disk yet, and whether they are settled all the same.
    pending: HashMap<QueueId, bool>,
    /// Messages that became durable and are to be scheduled.
    pub(super) arrivals: VecDeque<QueueId>,
    /// Segments with records that tombstones elsewhere speak about: the next batch's segment must wait for them.
    pub(super) carry: BTreeSet<UseId>,
    /// Archive files to remove.
    pub(super) unlinks: Vec<Unlink>,
    /// Segments of this life where a write has failed: what stands there in spite of it may be of any message.
    pub(super) bad: BTreeSet<UseId>,
    /// Tombstones that could not be written, for when writing works again.
    pub(super) owed: Vec<(QueueId, Effect)>,
    /// Records of settled messages that reached the disk before their tombstones, and after they were settled.
    pub(super) late: HashMap<QueueId, Latecomer>,
    /// States that are not on the disk.
    pub(super) states: States,
    /// The message whose archive file is being made.
    pub(super) archiving: Option<QueueId>,
    /// Messages that may have a file of their own though the disk said that making it failed.
    pub(super) stray: HashSet<QueueId>,
    /// Octets of the bodies in the index.
    pub(super) body_octets: u64,
}

impl Ledger {
    /// The books of a worker that takes over these messages; the segments are those that they point to.
    pub(super) fn new(
        index: Index,
        catalogue: Arc<Catalogue>,
        segments: &BTreeMap<UseId, Arc<Segment>>,
        unlinks: &[Unlink],
    ) -> Self {
        let body_octets = index.summaries().map(|summary| u64::from(summary.octets)).sum();
        let mut ledger = Self {
            index: Index::default(),
            catalogue,
            known: BTreeMap::new(),
            pending: HashMap::new(),
            arrivals: VecDeque::new(),
            carry: BTreeSet::new(),
            unlinks: unlinks.to_vec(),
            bad: BTreeSet::new(),
            owed: Vec::new(),
            late: HashMap::new(),
            states: States::default(),
            archiving: None,
            stray: HashSet::new(),
            body_octets,
        };
        for (slot, parts) in index.iter() {
            for place in [slot.place, slot.state].iter().chain(parts) {
                if let Some(segment) = segments.get(&place.segment) {
                    ledger.pin_in(segment, place.record_octets());
                }
            }
        }
        for unlink in unlinks {
            if let Some(segment) = segments.get(&unlink.tombstone) {
                ledger.pin_in(segment, 0);
            }
        }
        ledger.index = index;
        ledger
    }

    /// What a second tombstone does for a message that is settled: it lets go of the record, and of the first tombstone.
    pub(super) fn settle_again(&mut self, slot: Slot, segments: &BTreeMap<UseId, Arc<Segment>>) -> Effect {
        for place in [slot.place, slot.state] {
            if let Some(segment) = segments.get(&place.segment) {
                self.pin_in(segment, place.record_octets());
            }
        }
        // As for one with a file, so that nothing but the tombstone settles it; there is none to remove.
        Effect::Done { slot, parts: Vec::new(), file: Some(0), is_let_go: false }
    }

    /// Starts to write a segment that the catalogue already counts as held.
    pub(super) fn begin(&mut self, segment: &Arc<Segment>) {
        self.known.insert(segment.id, Known { segment: Arc::clone(segment), pins: 1 });
    }

    /// Does not write that segment any more.
    pub(super) fn close(&mut self, segment: UseId) {
        self.unpin_octets(segment, 0);
    }

    /// A write to this segment has failed: it is not written any more.
    pub(super) fn abandon(&mut self, segment: &Segment) {
        segment.mark_bad();
        self.bad.insert(segment.id);
        self.close(segment.id);
    }

    /// Whether a segment where a write has failed is still there.
    pub(super) fn has_bad_in_use(&mut self) -> bool {
        self.bad.retain(|&segment| self.catalogue.is_in_use(segment));
        !self.bad.is_empty()
    }

    /// Reasons that this worker has to keep a segment.
    pub(super) fn pins_of(&self, segment: UseId) -> u32 {
        self.known.get(&segment).map_or(0, |known| known.pins)
    }

    pub(super) fn segment(&self, id: UseId) -> Option<&Arc<Segment>> {
        self.known.get(&id).map(|known| &known.segment)
    }

    /// The closed segments of which little is live, the emptiest first. Where room is wanted only those that can be used
    /// again at once.
    pub(super) fn sparse(&self, active: UseId, room: Room) -> Vec<UseId> {
        let candidates =
            self.known.values().map(|known| &known.segment).filter(|segment| segment.id != active);
        let fit = candidates.filter(|segment| room == Room::There || !self.catalogue.holds_back(segment));
        let sparse = fit.filter(|segment| segment.is_sparse(room));
        let mut sparse: Vec<(u64, UseId)> =
            sparse.map(|segment| (segment.live_octets(), segment.id)).collect();
        sparse.sort_unstable();
        sparse.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn pin_in(&mut self, segment: &Arc<Segment>, octets: u64) {
        segment.add_live(octets);
        let known = self.known.entry(segment.id).or_insert_with(|| {
            segment.hold();
            Known { segment: Arc::clone(segment), pins: 0 }
        });
        known.pins += 1;
    }

    pub(super) fn unpin(&mut self, place: Place) {
        if place.is_in_segment() {
            self.unpin_octets(place.segment, place.record_octets());
        }
    }

    /// Lets go of one record, or of one reason to keep a segment.
    pub(super) fn unpin_octets(&mut self, segment: UseId, octets: u64) {
        let Some(known) = self.known.get_mut(&segment) else { return };
        known.segment.sub_live(octets);
        known.pins -= 1;
        if known.pins == 0 {
            let known = self.known.remove(&segment);
            if let Some(known) = known {
                self.catalogue.let_go(&known.segment);
            }
        }
    }

    /// A message is on its way to the disk.
    pub(super) fn expect(&mut self, id: QueueId) {
        self.pending.insert(id, false);
    }

    /// A state of a message is on its way to the disk, and counts from now on; false if there is no such message.
    pub(super) fn expect_state(&mut self, id: QueueId, stamp: u64, state: Rc<State>, word: Word) -> bool {
        let known = self.is_known(id);
        if known {
            self.states.give(id, stamp, state, word);
        }
        known
    }

    /// How a message stands, unless a state of it is on its way to the disk: then a copy could lack it.
    pub(super) fn steady(&self, id: QueueId) -> Option<Steady> {
        let slot = *self.index.get(id).filter(|_| !self.states.is_awaited(id))?;
        Some(Steady { slot, stamp: self.states.latest_stamp(id) })
    }

    /// Whether there is such a message, on the disk or on its way there.
    pub(super) fn is_known(&self, id: QueueId) -> bool {
        self.pending.contains_key(&id) || self.index.find(id).is_some()
    }

    /// Takes a message out of the books. What its tombstone does, and which use of a segment it holds back; `None`: there is
    /// no such message.
    pub(super) fn settle(&mut self, id: QueueId) -> Option<(Effect, UseId)> {
        self.states.forget(id);
        if let Some(settled) = self.pending.get_mut(&id) {
            *settled = true;
            return Some((Effect::Nothing, 0));
        }
        let (slot, parts) = self.index.remove(id)?;
        self.body_octets -= u64::from(slot.octets);
        let archived = slot.place.segment == ARCHIVED;
        let file = if archived {
            let end = slot.place.offset() + slot.place.record_octets();
            Some(end.next_multiple_of(BLOCK_OCTETS as u64))
        } else {
            (self.archiving == Some(id) || self.stray.contains(&id)).then_some(0)
        };
        let holds_back = slot.holds_back();
        Some((Effect::Done { slot, parts, file, is_let_go: false }, holds_back))
    }

    /// The record with this sequence stands on the disk: here is what that means.
    pub(super) fn apply(&mut self, effect: Effect, stamp: u64, segment: &Arc<Segment>, place: Place) {
        match effect {
            Effect::Message { mut slot, parts, next } => {
                let settled = slot.id().and_then(|id| self.pending.remove(&id)).unwrap_or(false);
                if let (true, Some(id)) = (settled, slot.id()) {
                    return self.arrives_late(id, parts, segment, place);
                }
                slot.place = place;
                self.pin_in(segment, place.record_octets());
                self.body_octets += u64::from(slot.octets);
                if next == Next::Schedule {
                    self.arrivals.extend(slot.id());
                }
                self.index.put(slot, parts);
            }
            Effect::Moved { id, parts } => {
                self.move_to(id, parts, segment, place);
                self.stated(id, stamp);
            }
            Effect::State { id } => {
                self.stated(id, stamp);
                let Some(slot) = self.index.get_mut(id) else { return };
                let old = std::mem::replace(&mut slot.state, place);
                self.pin_in(segment, place.record_octets());
                self.unpin(old);
            }
            Effect::Chunk(cell) => {
                // A draft that was dropped does not need its chunks any more.
                if Rc::strong_count(&cell) > 1 {
                    cell.set(Some(place));
                    self.pin_in(segment, place.record_octets());
                }
            }
            Effect::Done { slot, file, .. } => {
                if let (Some(octets), Some(id)) = (file, slot.id()) {
                    self.pin_in(segment, 0);
                    self.unlinks.push(Unlink { id, octets, tombstone: segment.id });
                    self.stray.remove(&id);
                    self.catalogue.wake();
                }
                effect.places().for_each(|place| self.unpin(place));
            }
            Effect::Nothing => {}
        }
    }

    /// The state that a message had when this sequence was given out is on the disk.
    fn stated(&mut self, id: QueueId, stamp: u64) {
        if let (Some(state), Some(slot)) = (self.states.written(id, stamp), self.index.get_mut(id)) {
            slot.take_state(&state);
        }
    }

    /// The record with this sequence is not on the disk and will not be.
    pub(super) fn give_up(&mut self, effect: Effect, stamp: u64) {
        match effect {
            Effect::Message { slot, parts, .. } => {
                if let Some(id) = slot.id() {
                    self.pending.remove(&id);
                    self.states.forget(id);
                }
                parts.into_iter().for_each(|part| self.unpin(part));
            }
            Effect::Moved { parts, .. } => parts.into_iter().for_each(|part| self.unpin(part)),
            Effect::State { id } => self.states.refused(id, stamp),
            Effect::Chunk(_) | Effect::Done { .. } | Effect::Nothing => {}
        }
    }

    fn move_to(&mut self, id: QueueId, parts: Vec<Place>, segment: &Arc<Segment>, place: Place) {
        let Some(slot) = self.index.get(id).copied() else {
            return self.arrives_late(id, parts, segment, place);
        };
        let old_parts = self.index.parts(id).to_vec();
        segment.mark_packed();
        segment.wait_for(slot.place.segment);
        let mut moved = slot;
        moved.place = place;
        moved.state = Place::default();
        self.pin_in(segment, place.record_octets());
        self.index.put(moved, parts);
        for &old in [slot.place, slot.state].iter().chain(&old_parts) {
            self.unpin(old);
        }
    }

    /// A message has its own file now, with its chunks in it, and the state that it had when this sequence was given out.
    /// `merged`: the disk has had no later one since.
    pub(super) fn archived(
        &mut self,
        id: QueueId,
        (place, stamp): (Place, u64),
        parts: Vec<Place>,
        merged: bool,
    ) {
        let Some(slot) = self.index.get(id).copied() else { return };
        let old_parts = self.index.parts(id).to_vec();
        let mut archived = slot;
        archived.place = place;
        archived.shadow = slot.place.segment;
        if merged {
            archived.state = Place::default();
            self.unpin(slot.state);
        }
        self.index.put(archived, parts);
        for &old in [slot.place].iter().chain(&old_parts) {
            self.unpin(old);
        }
        self.stated(id, stamp);
    }
}
