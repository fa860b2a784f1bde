//! Who was refused lately: the kernel's samples, summed up by source for `gate drops` and in order for `gate trace`.
//!
//! Pure. Samples are not all refusals: the counters tell how many there were. It must not grow with the number of sources.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use ringpost_ebpf::abi::{DropEvent, Reason, Verdict};
use ringpost_ebpf::compile::address_of;

use crate::limits::{GATE_EVENTS_MAX, GATE_SOURCES_MAX};

/// One refusal that was sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drop {
    /// Its place in the order of all samples, from 1.
    pub number: u64,
    /// Nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// From where.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// Index of the interface.
    pub interface: u32,
    /// Why.
    pub reason: Reason,
    /// What became of it.
    pub verdict: Verdict,
}

/// A source that was refused lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedSource {
    /// Who.
    pub source: IpAddr,
    /// The port it wanted.
    pub port: u16,
    /// Why it was refused.
    pub reason: Reason,
    /// What became of the last packet.
    pub verdict: Verdict,
    /// Samples of it.
    pub samples: u64,
    /// The last one, nanoseconds of the monotonic clock.
    pub last_ns: u64,
    /// Index of the interface that the last one came in by.
    pub interface: u32,
}

/// The samples that are kept.
#[derive(Debug, Default)]
pub struct Drops {
    number: u64,
    events: VecDeque<Drop>,
    sources: HashMap<(IpAddr, u16, Reason), DroppedSource>,
}

impl Drops {
    /// Takes a sample in. One that this build cannot read is left out.
    pub fn take(&mut self, event: &DropEvent) {
        let Some(reason) = Reason::from_bits(event.reason) else { return };
        let Some(verdict) = Verdict::ALL.get(event.verdict as usize).copied() else { return };
        self.number += 1;
        let drop = Drop {
            number: self.number,
            at_ns: event.at_ns,
            source: SocketAddr::new(address_of(event.source), event.source_port),
            destination: SocketAddr::new(address_of(event.destination), event.port),
            interface: event.interface,
            reason,
            verdict,
        };
        if self.events.len() >= GATE_EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(drop);
        self.sum_up(&drop);
    }

    fn sum_up(&mut self, drop: &Drop) {
        let key = (drop.source.ip(), drop.destination.port(), drop.reason);
        if self.sources.len() >= GATE_SOURCES_MAX && !self.sources.contains_key(&key) {
            let oldest = self.sources.iter().min_by_key(|(_, source)| source.last_ns).map(|(key, _)| *key);
            oldest.and_then(|oldest| self.sources.remove(&oldest));
        }
        let source = self.sources.entry(key).or_insert(DroppedSource {
            source: key.0,
            port: key.1,
            reason: drop.reason,
            verdict: drop.verdict,
            samples: 0,
            last_ns: 0,
            interface: 0,
        });
        source.samples += 1;
        source.last_ns = drop.at_ns;
        source.interface = drop.interface;
        source.verdict = drop.verdict;
    }

    /// Each source that was refused lately with each port it wanted, the latest first.
    #[must_use]
    pub fn sources(&self) -> Vec<DroppedSource> {
        let mut sources: Vec<DroppedSource> = self.sources.values().copied().collect();
        sources.sort_by_key(|source| (std::cmp::Reverse(source.last_ns), source.source, source.port));
        sources
    }

    /// The samples after this number that are still kept, in order.
    #[must_use]
    pub fn since(&self, number: u64) -> Vec<Drop> {
        self.events.iter().filter(|drop| drop.number > number).copied().collect()
    }

    /// The number of the last sample.
    #[must_use]
    pub fn last_number(&self) -> u64 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use ringpost_ebpf::compile::bits_of_address;

    use super::*;

    fn event(source: IpAddr, port: u16, at_ns: u64) -> DropEvent {
        DropEvent {
            at_ns,
            source: bits_of_address(source),
            destination: bits_of_address("198.18.0.1".parse().unwrap()),
            interface: 2,
            reason: Reason::Network as u32,
            verdict: Verdict::DroppedNetwork as u32,
            source_port: 40_000,
            port,
        }
    }

    #[test]
    fn sums_up_by_source_and_port_the_latest_first() {
        let mut drops = Drops::default();
        let (v4, v6): (IpAddr, IpAddr) = ("198.18.9.9".parse().unwrap(), "2001:db8::9".parse().unwrap());
        drops.take(&event(v4, 25, 1));
        drops.take(&event(v6, 587, 2));
        drops.take(&event(v4, 25, 3));
        drops.take(&event(v4, 465, 4));
        let seen: Vec<_> =
            drops.sources().iter().map(|source| (source.source, source.port, source.samples)).collect();
        assert_eq!(seen, [(v4, 465, 1), (v4, 25, 2), (v6, 587, 1)]);
    }

    #[test]
    fn hands_out_what_came_after_a_number() {
        let mut drops = Drops::default();
        let source = "198.18.9.9".parse().unwrap();
        (1..=3).for_each(|at| drops.take(&event(source, 25, at)));
        assert_eq!(drops.since(1).iter().map(|drop| drop.at_ns).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(drops.since(drops.last_number()), []);
    }

    #[test]
    fn a_flood_of_sources_does_not_grow_it() {
        let mut drops = Drops::default();
        for n in 0..10_000u32 {
            drops.take(&event(IpAddr::from(n.to_be_bytes()), 25, u64::from(n)));
        }
        assert!(drops.sources.len() <= GATE_SOURCES_MAX && drops.events.len() <= GATE_EVENTS_MAX);
        assert_eq!(drops.sources()[0].source, IpAddr::from(9_999u32.to_be_bytes()));
    }
}
