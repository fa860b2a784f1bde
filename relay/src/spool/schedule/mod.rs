//! What is due: the order in which one worker's queue is delivered. Pure: no clock, no disk, no randomness of its own.
//!
//! A message waits until it is due, then it stands in line for its destination. Each destination has a line per source, and
//! sources take turns: one that floods the queue delays itself. Destinations take turns too. How many attempts a
//! destination may have under way is bounded by its limit, by a window that opens slowly, and by a breaker.
//!
//! **Expiry.** A message is given up only after an attempt: the one that [`Schedule::finished`] reports, or, while its
//! destination's breaker is open, one that it, or another for the same destination, has had since it came
//! ([`Schedule::aged`]). A message whose destination nobody has tried waits for its attempt however old it is.
//!
//! **Memory.** Some 50 octets a message. Lines are linked through the items themselves; a message that is taken out of the
//! middle of a line leaves its item there until its turn comes.

mod age;
mod breaker;
mod bucket;
mod operator;
mod retry;
mod select;
mod turns;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

pub use age::{Aged, Look};
pub use bucket::Bucket;
pub use retry::{Now, Retry};
pub use select::Selector;

use turns::Destination;

use super::index::{Keys, Summary, pack, unpack};
use crate::units::{Moment, QueueId};

/// The queue of one worker.
#[derive(Debug)]
pub struct Schedule {
    retry: Retry,
    /// Attempts that one destination may have under way.
    limit: u32,
    items: Vec<Item>,
    empty: Vec<u32>,
    by_id: HashTable<u32>,
    hasher: RandomState,
    /// Due time (in ticks) and item; entries whose item has another due time or stage are stale.
    timers: BinaryHeap<Reverse<(u32, u32)>>,
    destinations: HashMap<u32, Destination>,
    /// Destinations that have somebody in line and may have room for an attempt.
    turns: VecDeque<u32>,
    /// Destinations whose breaker is open, by when they may be probed.
    pauses: BinaryHeap<Reverse<(Moment, u32)>>,
    counts: Counts,
    /// Where the search for expired messages goes on.
    sweep: usize,
    /// When the bucket has a token again.
    dry_until: Moment,
}

/// Messages by what they do: `ringpost_queue_messages{state}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// They wait until they are due.
    pub waiting: usize,
    /// They are due and stand in line.
    pub ready: usize,
    /// They are being attempted.
    pub under_way: usize,
    /// An operator has stopped them.
    pub held: usize,
}

/// A message whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The message.
    pub id: QueueId,
    /// Where it goes.
    pub destination: u32,
}

/// What a message does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// It waits until it is due.
    Waiting,
    /// It is due and stands in line.
    Ready,
    /// It is being attempted.
    UnderWay,
    /// An operator has stopped it.
    Held,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left to be done for the message. The destination answered.
    Settled,
    /// It is settled without the destination: returned, deleted.
    Dropped,
    /// To be tried again: the destination answered, but not to everybody's satisfaction.
    Deferred,
    /// To be tried again: the destination cannot be reached, or breaks off.
    Unreachable,
    /// To be tried again: no connection came free to ask the destination, of which that says nothing.
    Unasked,
}

/// What is to be done with a message after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing: it has left the schedule.
    Gone,
    /// Its state is to be written: so many attempts, due again then (milliseconds since the Unix epoch).
    Again {
        /// Attempts so far.
        attempts: u32,
        /// When it is due.
        due_ms: u64,
    },
    /// Its lifetime is over: it is to be returned, and then reported as [`Outcome::Dropped`].
    Expired,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    id: [u32; 3],
    keys: Keys,
    due: u32,
    arrival_s: u32,
    next: u32,
    attempts: u16,
    stage: Stage,
    /// It stands in a line, whatever its stage says.
    linked: bool,
    /// Under way, and to be held if that does not settle it.
    hold_next: bool,
    /// Its sender was told of the delay, or is just being told.
    told: bool,
    /// What was to follow its last attempt could not be done.
    postponed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Ready,
    UnderWay,
    Held,
    Gone,
}

const _: () = assert!(size_of::<Item>() <= 40);
const NONE: u32 = u32::MAX;
/// Due times are kept in these units.
const TICK_MICROS: u64 = 100_000;
/// Messages that one call moves from waiting to ready.
const WOKEN_MAX: usize = 1000;

impl Schedule {
    /// An empty schedule. `limit`: attempts that one destination may have under way, at least 1.
    #[must_use]
    pub fn new(retry: Retry, limit: u32) -> Self {
        Self {
            retry,
            limit: limit.max(1),
            items: Vec::new(),
            empty: Vec::new(),
            by_id: HashTable::new(),
            hasher: RandomState::new(),
            timers: BinaryHeap::new(),
            destinations: HashMap::new(),
            turns: VecDeque::new(),
            pauses: BinaryHeap::new(),
            counts: Counts::default(),
            sweep: 0,
            dry_until: Moment(0),
        }
    }

    /// Other waits and limits, from now on.
    pub fn configure(&mut self, retry: Retry, limit: u32) {
        self.retry = retry;
        self.limit = limit.max(1);
    }

    /// How many messages do what.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Enters a message; one that is there already stays as it is.
    pub fn insert(&mut self, summary: &Summary, now: Now) {
        if self.find(summary.id).is_some() {
            return;
        }
        let due = self.retry.due(u64::from(summary.due_s) * 1000, now);
        let at = self.enter(Item {
            id: pack(summary.id),
            keys: summary.keys,
            due: if due <= now.moment { 0 } else { ticks(due) },
            arrival_s: summary.arrival_s,
            next: NONE,
            attempts: summary.attempts,
            stage: Stage::Held,
            linked: false,
            hold_next: false,
            told: summary.delay_told,
            postponed: false,
        });
        self.counts.held += 1;
        if !summary.held {
            self.wait_or_line_up(at, now.moment);
        }
    }

    /// Enters a message of which an attempt is under way already, until [`Self::finished`] says what came of it.
    pub fn begin(&mut self, summary: &Summary, now: Now) {
        self.insert(&Summary { held: true, ..*summary }, now);
        let Some(at) = self.find(summary.id) else { return };
        if self.items[at as usize].stage == Stage::Held {
            self.stage(at, Stage::UnderWay);
            self.destination(summary.keys.destination).under_way += 1;
        }
    }

    /// The message whose turn it is, if there is one; it is under way until [`Self::finished`] says what came of it.
    pub fn next(&mut self, now: Now, bucket: Option<&Bucket>) -> Option<Due> {
        self.wake(now.moment);
        for _ in 0..self.turns.len() {
            let key = *self.turns.front()?;
            if !self.has_turn(key, now.moment) {
                self.turns.pop_front();
                continue;
            }
            if let Err(at) = bucket.map_or(Ok(()), |bucket| bucket.take(now.moment)) {
                self.dry_until = at;
                return None;
            }
            self.turns.rotate_left(1);
            let at = self.step_forward(key)?;
            self.stage(at, Stage::UnderWay);
            let destination = self.destinations.get_mut(&key)?;
            destination.under_way += 1;
            return Some(Due { id: unpack(self.items[at as usize].id)?, destination: key });
        }
        None
    }

    /// When [`Self::next`] may have something, if nothing else happens before; [`Moment::NEVER`]: it will not.
    #[must_use]
    pub fn wake_at(&self, now: Moment) -> Moment {
        if !self.turns.is_empty() {
            return self.dry_until.max(now);
        }
        let timer = self.timers.peek().map_or(Moment::NEVER, |Reverse((due, _))| moment(*due));
        let pause = self.pauses.peek().map_or(Moment::NEVER, |Reverse((until, _))| *until);
        timer.min(pause)
    }

    /// What came of the attempt that [`Self::next`] began, and what is to be done now.
    pub fn finished(&mut self, id: QueueId, outcome: Outcome, now: Now, random: u64) -> After {
        let Some(at) = self.find(id) else { return After::Gone };
        if outcome == Outcome::Unasked {
            let attempts = u32::from(self.items[at as usize].attempts);
            let due = self.postpone(id, now, random);
            return due.map_or(After::Gone, |due_ms| After::Again { attempts, due_ms });
        }
        let item = self.items[at as usize];
        if item.stage == Stage::UnderWay {
            self.answered(item.keys.destination, outcome, now, random);
        }
        if matches!(outcome, Outcome::Settled | Outcome::Dropped) {
            self.remove(id);
            return After::Gone;
        }
        let item = &mut self.items[at as usize];
        item.attempts = item.attempts.saturating_add(1);
        let attempts = u32::from(item.attempts);
        if std::mem::take(&mut item.hold_next) {
            // The attempt counts, the wait does not: once released it is due.
            item.due = 0;
            self.stage(at, Stage::Held);
            return After::Again { attempts, due_ms: now.unix_ms };
        }
        if self.retry.is_expired(u64::from(item.arrival_s) * 1000, now.unix_ms) {
            return After::Expired;
        }
        let wait = self.retry.wait(attempts, random);
        item.due = ticks(now.moment.after(wait));
        self.wait_or_line_up(at, now.moment);
        After::Again { attempts, due_ms: now.unix_ms + u64::try_from(wait.as_millis()).unwrap_or(0) }
    }

    /// Puts a message that is under way off, whatever its age and whatever its destination is like; says when it is due, in
    /// milliseconds since the Unix epoch. `None`: no such message.
    pub fn postpone(&mut self, id: QueueId, now: Now, random: u64) -> Option<u64> {
        let at = self.find(id)?;
        let item = self.items[at as usize];
        if item.stage == Stage::UnderWay {
            self.leave(item.keys.destination);
        }
        let wait = self.retry.wait(u32::from(item.attempts).max(1), random);
        let item = &mut self.items[at as usize];
        item.due = ticks(now.moment.after(wait));
        item.postponed = true;
        if std::mem::take(&mut item.hold_next) {
            self.stage(at, Stage::Held);
        } else {
            self.wait_or_line_up(at, now.moment);
        }
        Some(now.unix_ms + u64::try_from(wait.as_millis()).unwrap_or(0))
    }

    /// Takes a message out. False: no such message.
    pub fn remove(&mut self, id: QueueId) -> bool {
        let Some(at) = self.find(id) else { return false };
        let hash = self.hasher.hash_one(pack(id));
        if let Ok(entry) = self.by_id.find_entry(hash, |&other| other == at) {
            entry.remove();
        }
        let item = self.items[at as usize];
        if item.stage == Stage::UnderWay {
            self.leave(item.keys.destination);
        }
        self.stage(at, Stage::Gone);
        if !item.linked {
            self.empty.push(at);
        }
        true
    }

    /// What a message does; `None`: it is not scheduled.
    #[must_use]
    pub fn doing(&self, id: QueueId) -> Option<Doing> {
        match self.items[self.find(id)? as usize].stage {
            Stage::Waiting => Some(Doing::Waiting),
            Stage::Ready => Some(Doing::Ready),
            Stage::UnderWay => Some(Doing::UnderWay),
            Stage::Held => Some(Doing::Held),
            Stage::Gone => None,
        }
    }

    /// When the oldest message was accepted, in seconds since the Unix epoch. Looks at all of them.
    #[must_use]
    pub fn oldest_s(&self) -> Option<u32> {
        let items = self.items.iter().filter(|item| item.stage != Stage::Gone);
        items.map(|item| item.arrival_s).min()
    }

    fn find(&self, id: QueueId) -> Option<u32> {
        let id = pack(id);
        self.by_id.find(self.hasher.hash_one(id), |&at| self.items[at as usize].id == id).copied()
    }

    fn enter(&mut self, item: Item) -> u32 {
        let at = match self.empty.pop() {
            Some(at) => {
                self.items[at as usize] = item;
                at
            }
            None => {
                self.items.push(item);
                u32::try_from(self.items.len() - 1).unwrap_or(NONE)
            }
        };
        let Self { by_id, hasher, items, .. } = self;
        by_id.insert_unique(hasher.hash_one(item.id), at, |&at| hasher.hash_one(items[at as usize].id));
        at
    }

    /// Changes what a message does, and the counts with it.
    fn stage(&mut self, at: u32, stage: Stage) {
        let item = &mut self.items[at as usize];
        let old = std::mem::replace(&mut item.stage, stage);
        if let Some(count) = self.counts.of(old) {
            *count -= 1;
        }
        if let Some(count) = self.counts.of(stage) {
            *count += 1;
        }
    }

    fn wait_or_line_up(&mut self, at: u32, now: Moment) {
        let due = self.items[at as usize].due;
        if due > ticks_past(now) {
            self.stage(at, Stage::Waiting);
            // Stale entries are cleared before they outnumber the messages.
            if self.timers.len() > 2 * self.items.len() + WOKEN_MAX {
                let items = &self.items;
                self.timers.retain(|&Reverse((due, at))| items[at as usize].is_waiting_for(due));
            }
            self.timers.push(Reverse((due, at)));
        } else {
            self.line_up(at);
        }
    }

    /// Those whose time has come stand in line; dead destinations whose pause is over have a turn.
    fn wake(&mut self, now: Moment) {
        for _ in 0..WOKEN_MAX {
            let Some(&Reverse((due, at))) = self.timers.peek() else { break };
            if due > ticks_past(now) {
                break;
            }
            self.timers.pop();
            if self.items[at as usize].is_waiting_for(due) {
                self.line_up(at);
            }
        }
        while let Some(&Reverse((until, key))) = self.pauses.peek() {
            if until > now {
                break;
            }
            self.pauses.pop();
            if let Some(destination) = self.destinations.get_mut(&key) {
                destination.paused = false;
            }
            self.take_turn(key);
        }
    }
}

impl Counts {
    fn of(&mut self, stage: Stage) -> Option<&mut usize> {
        match stage {
            Stage::Waiting => Some(&mut self.waiting),
            Stage::Ready => Some(&mut self.ready),
            Stage::UnderWay => Some(&mut self.under_way),
            Stage::Held => Some(&mut self.held),
            Stage::Gone => None,
        }
    }
}

impl Item {
    fn is_waiting_for(&self, due: u32) -> bool {
        self.stage == Stage::Waiting && self.due == due
    }
}

/// The first tick that is not before a moment.
fn ticks(moment: Moment) -> u32 {
    u32::try_from(moment.0.div_ceil(TICK_MICROS)).unwrap_or(u32::MAX)
}

/// The last tick that is not after a moment.
fn ticks_past(moment: Moment) -> u32 {
    u32::try_from(moment.0 / TICK_MICROS).unwrap_or(u32::MAX)
}

fn moment(ticks: u32) -> Moment {
    Moment(u64::from(ticks) * TICK_MICROS)
}

#[cfg(test)]
mod tests;
