//! The numbers of each upstream, by slot: the name is looked up once, the hot path indexes.
//!
//! The name of an upstream is what the configuration calls it (`smtp.example.com:587`), or `mx` for the
//! recipients' own exchangers: never a name that came with a message. At most `limits::UPSTREAMS_METERED_MAX`
//! are told apart; those past it share the slot `other`.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use super::Merge;
use crate::limits;
use crate::units::Moment;

/// What is known of whether an upstream serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Health {
    /// Nothing was tried yet.
    #[default]
    Unknown,
    /// The last attempt failed before a message could be offered.
    Down,
    /// The last attempt reached a session ready for mail.
    Up,
}

/// The numbers of one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    name: Arc<str>,
    listed: bool,
    /// Open connections that wait in the pool.
    pub idle: u64,
    /// Open connections that carry a transaction, connecting ones included.
    pub busy: u64,
    health: Health,
    health_at: Moment,
}

impl Upstream {
    /// The name, as in the label `upstream`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known of whether it serves.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// Notes the end of an attempt. The newest note of all workers counts.
    pub fn note(&mut self, health: Health, now: Moment) {
        self.health = health;
        self.health_at = now;
    }
}

/// The place of an upstream in [`Upstreams`]; stays valid while the meter lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamSlot(usize);

/// The upstreams of one worker.
#[derive(Debug, Clone, Default)]
pub struct Upstreams(Vec<Upstream>);

impl Upstreams {
    /// The slot of the upstream of that name, made if it is new. For set-up and reload, not for each message.
    pub fn slot(&mut self, name: &str) -> UpstreamSlot {
        let full = self.0.len() + 1 >= limits::UPSTREAMS_METERED_MAX;
        let place = self.place(name).unwrap_or_else(|| {
            let name = if full { OTHER } else { name };
            self.place(name).unwrap_or_else(|| self.add(name))
        });
        self.0[place].listed = true;
        UpstreamSlot(place)
    }

    /// Takes an upstream out of the listing, once its last connection is closed: it is configured no more.
    pub fn retire(&mut self, slot: UpstreamSlot) {
        self.0[slot.0].listed = false;
    }

    /// The upstreams that are configured or still have connections.
    pub fn listed(&self) -> impl Iterator<Item = &Upstream> {
        self.0.iter().filter(|upstream| upstream.listed || upstream.idle + upstream.busy > 0)
    }

    /// Whether mail may find a way: not every configured upstream is known to be down.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let mut configured = self.0.iter().filter(|upstream| upstream.listed).peekable();
        configured.peek().is_none() || configured.any(|upstream| upstream.health != Health::Down)
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|upstream| &*upstream.name == name)
    }

    fn add(&mut self, name: &str) -> usize {
        self.0.push(Upstream {
            name: name.into(),
            listed: true,
            idle: 0,
            busy: 0,
            health: Health::Unknown,
            health_at: Moment::default(),
        });
        self.0.len() - 1
    }
}

impl Index<UpstreamSlot> for Upstreams {
    type Output = Upstream;

    fn index(&self, slot: UpstreamSlot) -> &Upstream {
        &self.0[slot.0]
    }
}

impl IndexMut<UpstreamSlot> for Upstreams {
    fn index_mut(&mut self, slot: UpstreamSlot) -> &mut Upstream {
        &mut self.0[slot.0]
    }
}

impl Merge for Upstreams {
    fn merge(&mut self, other: &Self) {
        for theirs in &other.0 {
            let place = self.place(&theirs.name).unwrap_or_else(|| {
                let place = self.add(&theirs.name);
                self.0[place].listed = false;
                place
            });
            let mine = &mut self.0[place];
            mine.listed |= theirs.listed;
            mine.idle += theirs.idle;
            mine.busy += theirs.busy;
            // The newest note wins; of two at the same moment the better one. Unknown is never noted.
            let (known, newer) = (theirs.health != Health::Unknown, theirs.health_at > mine.health_at);
            if known && (newer || mine.health < theirs.health && theirs.health_at == mine.health_at) {
                (mine.health, mine.health_at) = (theirs.health, theirs.health_at);
            }
        }
    }
}

const OTHER: &str = "other";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_has_the_same_slot() {
        let mut upstreams = Upstreams::default();
        let first = upstreams.slot("a:25");
        let second = upstreams.slot("b:25");
        assert_ne!(first, second);
        assert_eq!(upstreams.slot("a:25"), first);
    }

    #[test]
    fn names_past_the_bound_share_one_slot() {
        let mut upstreams = Upstreams::default();
        for number in 0..limits::UPSTREAMS_METERED_MAX + 50 {
            upstreams.slot(&format!("host{number}:25"));
        }
        assert_eq!(upstreams.listed().count(), limits::UPSTREAMS_METERED_MAX);
        let slot = upstreams.slot("yet-another:25");
        assert_eq!(upstreams[slot].name(), OTHER);
        let known = upstreams.slot("host0:25");
        assert_eq!(upstreams[known].name(), "host0:25");
    }

    #[test]
    fn the_newest_note_of_all_workers_counts_in_any_order() {
        let (mut early, mut late) = (Upstreams::default(), Upstreams::default());
        let slot = early.slot("a:25");
        early[slot].note(Health::Up, Moment(1));
        let slot = late.slot("a:25");
        late[slot].note(Health::Down, Moment(2));
        let silent = {
            let mut silent = Upstreams::default();
            silent.slot("a:25");
            silent
        };
        for order in [[&early, &late, &silent], [&late, &silent, &early], [&silent, &late, &early]] {
            let mut sum = Upstreams::default();
            order.iter().for_each(|one| sum.merge(one));
            assert!(!sum.is_usable());
        }
    }

    #[test]
    fn a_retired_upstream_is_listed_until_its_last_connection_closes() {
        let mut upstreams = Upstreams::default();
        let slot = upstreams.slot("a:25");
        upstreams[slot].busy += 1;
        upstreams.retire(slot);
        assert_eq!(upstreams.listed().count(), 1);
        upstreams[slot].busy -= 1;
        assert_eq!(upstreams.listed().count(), 0);
        assert_eq!(upstreams.slot("a:25"), slot);
        assert_eq!(upstreams.listed().count(), 1);
    }
}
