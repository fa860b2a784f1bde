//! Who is next: lines of one source each, sources that take turns at a destination, destinations that take turns.
//!
//! Only what may begin an attempt takes part in the turns: a destination without room or with an open breaker steps out, and
//! comes back when an attempt ends or its pause is over. So a turn costs the same however many dead destinations there are.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

use super::breaker::Breaker;
use super::{NONE, Now, Outcome, Schedule, Stage};
use crate::spool::index::Keys;
use crate::units::Moment;

/// A destination's lines, and how it does.
#[derive(Debug)]
pub(super) struct Destination {
    lines: HashMap<u32, Line>,
    sources: VecDeque<u32>,
    pub(super) under_way: u32,
    pub(super) breaker: Breaker,
    /// When it last failed, in seconds since the Unix epoch; 0: never that is known.
    pub(super) failed_s: u32,
    in_turn: bool,
    pub(super) paused: bool,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    first: u32,
    last: u32,
}

impl Schedule {
    pub(super) fn line_up(&mut self, at: u32) {
        self.stage(at, Stage::Ready);
        let item = &mut self.items[at as usize];
        let Keys { destination: key, source } = item.keys;
        let linked = std::mem::replace(&mut item.linked, true);
        let destination = self.destinations.entry(key).or_insert_with(Destination::new);
        if !linked {
            item.next = NONE;
            match destination.lines.get_mut(&source) {
                Some(line) => {
                    self.items[line.last as usize].next = at;
                    line.last = at;
                }
                None => {
                    destination.lines.insert(source, Line { first: at, last: at });
                    destination.sources.push_back(source);
                }
            }
        }
        self.take_turn(key);
    }

    /// A destination, new where nothing is known of it.
    pub(super) fn destination(&mut self, key: u32) -> &mut Destination {
        self.destinations.entry(key).or_insert_with(Destination::new)
    }

    /// The destination may have room for an attempt: it takes part in the turns.
    pub(super) fn take_turn(&mut self, key: u32) {
        if let Some(destination) = self.destinations.get_mut(&key)
            && !destination.in_turn
            && !destination.sources.is_empty()
        {
            destination.in_turn = true;
            self.turns.push_back(key);
        }
    }

    /// Whether a destination has somebody ready and room for an attempt; else it is out of the turns until that changes.
    pub(super) fn has_turn(&mut self, key: u32, now: Moment) -> bool {
        self.drop_gone(key);
        let limit = self.limit;
        let Some(destination) = self.destinations.get_mut(&key) else { return false };
        let ready = !destination.sources.is_empty();
        if ready && destination.breaker.allows(destination.under_way, limit, now) {
            return true;
        }
        destination.in_turn = false;
        let until = destination.breaker.until();
        if ready && until > now && !destination.paused {
            destination.paused = true;
            self.pauses.push(Reverse((until, key)));
        }
        if destination.is_idle() {
            self.destinations.remove(&key);
        }
        false
    }

    /// Drops those from the heads of a destination's lines that are not ready any more.
    fn drop_gone(&mut self, key: u32) {
        let Some(destination) = self.destinations.get_mut(&key) else { return };
        while let Some(&source) = destination.sources.front() {
            let Some(line) = destination.lines.get(&source) else { return };
            let at = line.first;
            let item = &self.items[at as usize];
            if item.stage == Stage::Ready {
                return;
            }
            let gone = item.stage == Stage::Gone;
            self.items[at as usize].linked = false;
            destination.unlink_first(source, self.items[at as usize].next);
            if gone {
                self.empty.push(at);
            }
        }
    }

    /// Takes the first of the source whose turn it is, and gives the next source its turn.
    pub(super) fn step_forward(&mut self, key: u32) -> Option<u32> {
        let destination = self.destinations.get_mut(&key)?;
        let source = *destination.sources.front()?;
        let at = destination.lines.get(&source)?.first;
        self.items[at as usize].linked = false;
        destination.unlink_first(source, self.items[at as usize].next);
        if destination.sources.front() == Some(&source) {
            destination.sources.rotate_left(1);
        }
        Some(at)
    }

    pub(super) fn answered(&mut self, key: u32, outcome: Outcome, now: Now, random: u64) {
        let limit = self.limit;
        if let Some(destination) = self.destinations.get_mut(&key) {
            match outcome {
                Outcome::Settled | Outcome::Deferred => destination.breaker.succeeded(limit),
                Outcome::Unreachable => {
                    destination.breaker.failed(now.moment, random);
                    destination.failed_s = u32::try_from(now.unix_ms / 1000).unwrap_or(u32::MAX);
                }
                Outcome::Dropped | Outcome::Unasked => {}
            }
        }
        if !matches!(outcome, Outcome::Settled | Outcome::Dropped) {
            self.leave(key);
        }
    }

    /// One attempt less is under way.
    pub(super) fn leave(&mut self, key: u32) {
        if let Some(destination) = self.destinations.get_mut(&key) {
            destination.under_way = destination.under_way.saturating_sub(1);
            if destination.is_idle() {
                self.destinations.remove(&key);
            }
        }
        self.take_turn(key);
    }
}

impl Destination {
    fn new() -> Self {
        Self {
            lines: HashMap::new(),
            sources: VecDeque::new(),
            under_way: 0,
            breaker: Breaker::new(),
            failed_s: 0,
            in_turn: false,
            paused: false,
        }
    }

    fn is_idle(&self) -> bool {
        self.under_way == 0 && self.sources.is_empty() && !self.in_turn && self.breaker.is_fresh()
    }

    /// The first of the first source's line goes; a line that is empty then is dropped with its source's turn.
    fn unlink_first(&mut self, source: u32, next: u32) {
        if next == NONE {
            self.lines.remove(&source);
            self.sources.pop_front();
        } else if let Some(line) = self.lines.get_mut(&source) {
            line.first = next;
        }
    }
}
