//! A worker's books: its messages, and which segments it holds for their sake. No file, no clock.
//!
//! Invariant: a segment is held by this worker exactly while `known` has it, and `known` counts the records there that
//! the index points to, plus one while the worker writes it, plus one for each archive file whose removal a tombstone in
//! it still speaks about, plus the chunks of drafts. A message that is settled keeps what it has on the disk until its
//! tombstone is there: a crash before that brings it back with its latest state, not an older one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::batch::{Effect, Next};
use super::index::{ARCHIVED, Index, Place, Slot};
use super::segment::{Catalogue, Room, Segment, UseId};
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
    /// States of settled messages that are kept until the segment with the message is retired.
    lingering: Vec<(UseId, Place)>,
    /// Messages with states that are not on the disk yet, and how many.
    stating: HashMap<QueueId, u32>,
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
            lingering: Vec::new(),
            stating: HashMap::new(),
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
        Effect::Done { slot, parts: Vec::new(), file: Some(0) }
    }

    /// Starts to write a segment that the catalogue already counts as held.
    pub(super) fn begin(&mut self, segment: &Arc<Segment>) {
        self.known.insert(segment.id, Known { segment: Arc::clone(segment), pins: 1 });
    }

    /// Does not write that segment any more.
    pub(super) fn close(&mut self, segment: UseId) {
        self.unpin_octets(segment, 0);
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

    /// A message is owed a tombstone.
    pub(super) fn note_owed(&self, effect: &Effect) {
        for place in effect.places() {
            self.segment(place.segment).inspect(|segment| segment.add_owed(place.record_octets()));
        }
    }

    /// Its tombstone is on its way, or not needed any more; to be said before anything of it is let go of.
    pub(super) fn forget_owed(&self, effect: &Effect) {
        for place in effect.places() {
            self.segment(place.segment).inspect(|segment| segment.sub_owed(place.record_octets()));
        }
    }

    /// Lets go of what messages that are owed a tombstone do not need: their chunks at once, and whole segments that hold
    /// nothing else. Such a message is settled by the retiring of its record's segment; its state, where that stands
    /// elsewhere, is kept until then.
    ///
    /// A crash may find such a message without its chunks. It was delivered: what is left of it is told, and void.
    pub(super) fn let_go_of_settled(&mut self, owed: &mut Vec<(QueueId, Effect)>, active: UseId) {
        let catalogue = Arc::clone(&self.catalogue);
        let gone: Vec<_> =
            self.lingering.extract_if(.., |(within, _)| !catalogue.is_in_use(*within)).collect();
        gone.into_iter().for_each(|(_, place)| self.unpin(place));
        let mut pins: HashMap<UseId, u32> = HashMap::new();
        for (_, effect) in owed.iter_mut() {
            self.forget_owed(effect);
            effect.take_parts().into_iter().for_each(|part| self.unpin(part));
            self.note_owed(effect);
            if let Some(home) = effect.home() {
                let here = effect.places().filter(|place| place.segment == home).count();
                *pins.entry(home).or_default() += u32::try_from(here).unwrap_or(u32::MAX);
            }
        }
        pins.remove(&active);
        pins.retain(|segment, pins| self.known.get(segment).is_some_and(|known| known.pins == *pins));
        let settled: Vec<_> = owed
            .extract_if(.., |(_, effect)| effect.home().is_some_and(|home| pins.contains_key(&home)))
            .collect();
        for (_, effect) in settled {
            self.forget_owed(&effect);
            let Some(home) = effect.home() else { continue };
            for place in effect.places() {
                if place.segment == home {
                    self.unpin(place);
                } else {
                    self.lingering.push((home, place));
                }
            }
        }
    }

    fn pin_in(&mut self, segment: &Arc<Segment>, octets: u64) {
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

    /// A state of a message is on its way to the disk; false if there is no such message.
    pub(super) fn expect_state(&mut self, id: QueueId) -> bool {
        let known = self.is_known(id);
        if known {
            *self.stating.entry(id).or_default() += 1;
        }
        known
    }

    /// A state has arrived, or will not.
    fn stated(&mut self, id: QueueId) {
        if let Some(count) = self.stating.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.stating.remove(&id);
            }
        }
    }

    /// A message's slot, unless its latest state is still on its way to the disk: then a copy would lack it.
    pub(super) fn steady(&self, id: QueueId) -> Option<Slot> {
        if self.stating.contains_key(&id) { None } else { self.index.get(id).copied() }
    }

    /// Whether there is such a message, on the disk or on its way there.
    pub(super) fn is_known(&self, id: QueueId) -> bool {
        self.pending.contains_key(&id) || self.index.find(id).is_some()
    }

    /// Takes a message out of the books. What its tombstone does, and which use of a segment it holds back; `None`: there is
    /// no such message.
    pub(super) fn settle(&mut self, id: QueueId) -> Option<(Effect, UseId)> {
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
        Some((Effect::Done { slot, parts, file }, holds_back))
    }

    /// A record stands on the disk: here is what that means.
    pub(super) fn apply(&mut self, effect: Effect, segment: &Arc<Segment>, place: Place) {
        match effect {
            Effect::Message { mut slot, parts, next } => {
                let settled = slot.id().and_then(|id| self.pending.remove(&id)).unwrap_or(false);
                if settled {
                    // The tombstone may stand in a later segment.
                    self.carry.insert(segment.id);
                    parts.into_iter().for_each(|part| self.unpin(part));
                    return;
                }
                slot.place = place;
                self.pin_in(segment, place.record_octets());
                self.body_octets += u64::from(slot.octets);
                if next == Next::Schedule {
                    self.arrivals.extend(slot.id());
                }
                self.index.put(slot, parts);
            }
            Effect::Moved { id, parts } => self.move_to(id, parts, segment, place),
            Effect::State { id, due_s, attempts, held, delay_told } => {
                self.stated(id);
                let Some(slot) = self.index.get_mut(id) else { return };
                let old = std::mem::replace(&mut slot.state, place);
                (slot.due_s, slot.attempts, slot.held) = (due_s, attempts, held);
                slot.delay_told = delay_told;
                self.pin_in(segment, place.record_octets());
                self.unpin(old);
            }
            Effect::Chunk(cell) => {
                // A draft that was dropped does not need its chunks any more.
                if std::rc::Rc::strong_count(&cell) > 1 {
                    cell.set(Some(place));
                    self.pin_in(segment, place.record_octets());
                }
            }
            Effect::Done { slot, parts, file } => {
                if let (Some(octets), Some(id)) = (file, slot.id()) {
                    self.pin_in(segment, 0);
                    self.unlinks.push(Unlink { id, octets, tombstone: segment.id });
                    self.stray.remove(&id);
                    self.catalogue.wake();
                }
                for &place in [slot.place, slot.state].iter().chain(&parts) {
                    self.unpin(place);
                }
            }
            Effect::Nothing => {}
        }
    }

    /// A record is not on the disk and will not be.
    pub(super) fn give_up(&mut self, effect: Effect) {
        match effect {
            Effect::Message { slot, parts, .. } => {
                slot.id().and_then(|id| self.pending.remove(&id));
                parts.into_iter().for_each(|part| self.unpin(part));
            }
            Effect::Moved { parts, .. } => parts.into_iter().for_each(|part| self.unpin(part)),
            Effect::State { id, .. } => self.stated(id),
            Effect::Chunk(_) | Effect::Done { .. } | Effect::Nothing => {}
        }
    }

    fn move_to(&mut self, id: QueueId, parts: Vec<Place>, segment: &Arc<Segment>, place: Place) {
        let Some(slot) = self.index.get(id).copied() else {
            // Settled meanwhile: its tombstone must outlive this copy too.
            self.carry.insert(segment.id);
            parts.into_iter().for_each(|part| self.unpin(part));
            return;
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

    /// A message has its own file now, with its chunks in it. `merged`: its state is in there too.
    pub(super) fn archived(&mut self, id: QueueId, place: Place, parts: Vec<Place>, merged: bool) {
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
    }
}
