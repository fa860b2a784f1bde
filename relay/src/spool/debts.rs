//! Tombstones that the disk has not taken: what is owed for whom, and what need not be owed any more.
//!
//! A message that is settled is gone for everybody but the disk. What it has there is kept until its tombstone is written,
//! or until what it has there is void without one: the next use of a segment settles every message in it. Both may be under
//! way at once, and the debt stands until one of them is done: the keeper may not come to retire the segment for long,
//! since another worker has something in it, or it must outlive yet another.

use std::collections::HashMap;
use std::sync::Arc;

use super::batch::Effect;
use super::index::{Keys, Place, Slot};
use super::ledger::Ledger;
use super::segment::{Segment, UseId};
use crate::units::QueueId;

/// A record that reached the disk after its message was settled, with its chunks. A tombstone is on its way.
#[derive(Debug)]
pub(super) struct Latecomer {
    slot: Slot,
    parts: Vec<Place>,
}

impl Ledger {
    /// A tombstone could not be written.
    pub(super) fn owe(&mut self, id: QueueId, effect: Effect) {
        let effect = match self.late.remove(&id) {
            Some(late) => self.follow(&effect, late),
            None => effect,
        };
        self.note_debt(id, effect);
    }

    /// As many as these of the debts that are meant, to be paid now.
    pub(super) fn pay(
        &mut self,
        count_max: usize,
        is_meant: impl Fn(&Effect) -> bool,
    ) -> Vec<(QueueId, Effect)> {
        let meant = self.owed.extract_if(.., |(_, effect)| is_meant(effect));
        let paid: Vec<_> = meant.take(count_max).collect();
        paid.iter().for_each(|(_, effect)| self.forget_owed(effect));
        paid
    }

    fn note_debt(&mut self, id: QueueId, effect: Effect) {
        self.note_owed(&effect);
        self.owed.push((id, effect));
    }

    /// What is kept only for the sake of a tombstone that is owed does not live.
    fn note_owed(&self, effect: &Effect) {
        for place in effect.places() {
            self.segment(place.segment).inspect(|segment| segment.add_owed(place.record_octets()));
        }
    }

    /// The debt is paid, or void; to be said before anything of it is let go of.
    fn forget_owed(&self, effect: &Effect) {
        for place in effect.places() {
            self.segment(place.segment).inspect(|segment| segment.sub_owed(place.record_octets()));
        }
    }

    /// A record of a message that is settled has reached the disk: its tombstone must speak of this one too, and stand as
    /// long.
    pub(super) fn arrives_late(
        &mut self,
        id: QueueId,
        parts: Vec<Place>,
        segment: &Arc<Segment>,
        place: Place,
    ) {
        // The tombstone may be on its way to a later segment already.
        self.carry.insert(segment.id);
        self.pin_in(segment, place.record_octets());
        let mut slot = Slot::new(id, Keys::default());
        slot.place = place;
        let late = Latecomer { slot, parts };
        match self.owed.iter().position(|(owed, _)| *owed == id) {
            Some(at) => {
                let (id, effect) = self.owed.swap_remove(at);
                self.forget_owed(&effect);
                let effect = self.follow(&effect, late);
                self.note_debt(id, effect);
            }
            None => drop(self.late.insert(id, late)),
        }
    }

    /// The tombstone is there: what came late needs nothing more.
    pub(super) fn forget_late(&mut self, id: QueueId) {
        if let Some(Latecomer { slot, parts }) = self.late.remove(&id) {
            [slot.place].into_iter().chain(parts).for_each(|place| self.unpin(place));
        }
    }

    /// The tombstone is about the newest record from now on. What was kept before need only be void before that is.
    fn follow(&mut self, effect: &Effect, late: Latecomer) -> Effect {
        let Latecomer { slot, parts } = late;
        let (older, file) = match effect {
            Effect::Done { slot, file, .. } => (slot.holds_back(), *file),
            _ => (0, None),
        };
        if let Some(segment) = self.segment(slot.place.segment) {
            segment.wait_for(older);
        }
        effect.places().for_each(|place| self.unpin(place));
        Effect::Done { slot, parts, file, is_let_go: false }
    }

    /// Lets go of what messages that are owed a tombstone do not need: their chunks at once, and whole segments that hold
    /// nothing else. Such a message is settled by the retiring of its record's segment; its state, where that stands
    /// elsewhere, is kept until then.
    ///
    /// A crash may find such a message without its chunks. It was delivered: what is left of it is told, and void.
    pub(super) fn let_go_of_settled(&mut self, active: UseId) {
        let mut owed = std::mem::take(&mut self.owed);
        self.drop_void(&mut owed);
        let mut pins: HashMap<UseId, u32> = HashMap::new();
        for (_, effect) in &mut owed {
            self.forget_owed(effect);
            effect.take_parts().into_iter().for_each(|part| self.unpin(part));
            self.note_owed(effect);
            if let Some(home) = effect.home_held() {
                let here = effect.places().filter(|place| place.segment == home).count();
                *pins.entry(home).or_default() += u32::try_from(here).unwrap_or(u32::MAX);
            }
        }
        pins.remove(&active);
        pins.retain(|&segment, pins| self.pins_of(segment) == *pins);
        for (_, effect) in &mut owed {
            if effect.home_held().is_some_and(|home| pins.contains_key(&home)) {
                self.forget_owed(effect);
                effect.let_go().for_each(|place| self.unpin(place));
                self.note_owed(effect);
            }
        }
        self.owed = owed;
    }

    /// Of messages whose segment has been used again nothing is left, unless a copy stands where a write has failed.
    fn drop_void(&mut self, owed: &mut Vec<(QueueId, Effect)>) {
        if self.has_bad_in_use() {
            return;
        }
        let catalogue = Arc::clone(&self.catalogue);
        let void = owed.extract_if(.., |(_, effect)| {
            effect.home_let_go().is_some_and(|home| !catalogue.is_in_use(home))
        });
        for (_, effect) in void.collect::<Vec<_>>() {
            self.forget_owed(&effect);
            effect.places().for_each(|place| self.unpin(place));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::batch::Next;
    use super::super::index::Index;
    use super::super::segment::{Catalogue, Geometry, Spare};
    use super::*;
    use crate::units::{QueueIds, WorkerId};

    fn books() -> (Ledger, [Arc<Segment>; 2], QueueId) {
        let geometry = Geometry { segment_octets: 65536, batch_octets: 8192, chunk_octets: 2048, spares: 1 };
        let catalogue = Arc::new(Catalogue::new(Path::new("spool"), geometry, 1, 10 * 65536));
        let segments = [1, 2].map(|number| catalogue.adopt(Spare { number, epoch: 1, octets: 65536 }));
        let mut ledger = Ledger::new(Index::default(), catalogue, &BTreeMap::new(), &[]);
        segments.iter().for_each(|segment| ledger.begin(segment));
        (ledger, segments, QueueIds::new(7, WorkerId(0)).issue())
    }

    fn place(segment: &Segment) -> Place {
        Place::new(segment.id, 4096, 100)
    }

    fn arrive(ledger: &mut Ledger, id: QueueId, segment: &Arc<Segment>) {
        let slot = Slot::new(id, Keys::default());
        let message = Effect::Message { slot, parts: Vec::new(), next: Next::Streaming };
        ledger.apply(message, 1, segment, place(segment));
    }

    /// What the next restart would find is void: every segment where the message stands has been used again.
    fn retire(ledger: &mut Ledger) -> Vec<UseId> {
        let mut retired = Vec::new();
        while let Some(segment) = ledger.catalogue.take_retirable() {
            ledger.catalogue.retired(&segment, None);
            retired.push(segment.id);
        }
        ledger.let_go_of_settled(0);
        retired
    }

    #[test]
    fn a_debt_stands_until_what_the_message_had_is_void() {
        let (mut ledger, [old, _new], id) = books();
        ledger.expect(id);
        arrive(&mut ledger, id, &old);
        let (tombstone, _) = ledger.settle(id).unwrap();
        ledger.owe(id, tombstone);
        // Somebody else has something in there.
        old.hold();
        ledger.close(old.id);
        ledger.let_go_of_settled(0);
        assert_eq!((retire(&mut ledger), ledger.owed.len()), (vec![], 1), "nothing has settled it yet");
        ledger.catalogue.let_go(&old);
        assert_eq!((retire(&mut ledger), ledger.owed.len()), (vec![old.id], 0));
    }

    #[test]
    fn a_tombstone_that_is_paid_late_lets_go_of_nothing_twice() {
        let (mut ledger, [old, new], id) = books();
        ledger.expect(id);
        arrive(&mut ledger, id, &old);
        old.hold();
        ledger.close(old.id);
        let (tombstone, _) = ledger.settle(id).unwrap();
        ledger.owe(id, tombstone);
        ledger.let_go_of_settled(new.id);
        assert_eq!((ledger.pins_of(old.id), old.live_octets()), (0, 0));
        let (id, tombstone) = ledger.pay(1, |_| true).remove(0);
        ledger.owe(id, tombstone);
        let (_, tombstone) = ledger.pay(1, |_| true).remove(0);
        ledger.apply(tombstone, 3, &new, place(&new));
        assert_eq!((ledger.pins_of(old.id), ledger.pins_of(new.id), old.live_octets()), (0, 1, 0));
    }

    /// A copy is on its way to make room, its message is settled, and there is no room for the tombstone: the segment that
    /// is emptied may go, but the copy must not outlive the debt.
    #[test]
    fn a_copy_that_comes_after_the_end_is_owed_the_tombstone() {
        for is_refused_first in [true, false] {
            let (mut ledger, [old, new], id) = books();
            ledger.expect(id);
            arrive(&mut ledger, id, &old);
            let (tombstone, _) = ledger.settle(id).unwrap();
            let copy = Effect::Moved { id, parts: Vec::new() };
            if is_refused_first {
                ledger.owe(id, tombstone);
                ledger.apply(copy, 2, &new, place(&new));
            } else {
                ledger.apply(copy, 2, &new, place(&new));
                ledger.owe(id, tombstone);
            }
            ledger.close(old.id);
            ledger.let_go_of_settled(new.id);
            assert_eq!(retire(&mut ledger), [old.id]);
            assert_eq!((ledger.owed.len(), ledger.pins_of(new.id)), (1, 2), "{is_refused_first}");
            ledger.close(new.id);
            ledger.let_go_of_settled(0);
            assert_eq!((retire(&mut ledger), ledger.owed.len()), (vec![new.id], 0));
        }
    }

    #[test]
    fn a_message_that_comes_after_its_end_keeps_its_segment_until_the_tombstone() {
        let (mut ledger, [old, new], id) = books();
        ledger.expect(id);
        let (tombstone, _) = ledger.settle(id).unwrap();
        arrive(&mut ledger, id, &old);
        assert_eq!(ledger.pins_of(old.id), 2);
        ledger.owe(id, tombstone);
        let (id, tombstone) = ledger.pay(1, |_| true).remove(0);
        assert_eq!(tombstone.home_held(), Some(old.id));
        ledger.apply(tombstone, 3, &new, place(&new));
        ledger.forget_late(id);
        assert_eq!(ledger.pins_of(old.id), 1);
    }
}
