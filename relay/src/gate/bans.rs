//! Which sources are banned and until when: the daemon's book, of which the kernel has a copy.
//!
//! Pure: times are given, in nanoseconds of the monotonic clock, which is the kernel's. The book is the truth: the
//! kernel's map has twice its room, so that it never has to forget one by itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ringpost_ebpf::abi;

use crate::limits::BANS_MAX;
use crate::policy::acl::canonical;

const _: () = assert!(2 * BANS_MAX <= abi::BANS_MAX as usize);

/// A ban that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// Who.
    pub source: IpAddr,
    /// For how long from now.
    pub remaining: Duration,
}

/// All bans.
#[derive(Debug, Default)]
pub struct Bans {
    ends: HashMap<IpAddr, u64>,
}

impl Bans {
    /// Bans a source from `now_ns` on for so long; a ban that stands is replaced, be it longer or shorter. Gives the end, and
    /// the source that had to make room, if one had to.
    pub fn ban(&mut self, source: IpAddr, now_ns: u64, lasting: Duration) -> (u64, Option<IpAddr>) {
        let source = canonical(source);
        let full = self.ends.len() >= BANS_MAX && !self.ends.contains_key(&source);
        let soonest = self.ends.iter().min_by_key(|(_, ends)| **ends).map(|(source, _)| *source);
        let evicted = soonest.filter(|_| full);
        if let Some(evicted) = evicted {
            self.ends.remove(&evicted);
        }
        let lasting_ns = u64::try_from(lasting.as_nanos()).unwrap_or(u64::MAX);
        let ends_ns = now_ns.saturating_add(lasting_ns);
        self.ends.insert(source, ends_ns);
        (ends_ns, evicted)
    }

    /// Lifts a ban. Whether there was one.
    pub fn unban(&mut self, source: IpAddr) -> bool {
        self.ends.remove(&canonical(source)).is_some()
    }

    /// Takes out the bans that are over.
    pub fn expire(&mut self, now_ns: u64) -> Vec<IpAddr> {
        let over: Vec<IpAddr> =
            self.ends.iter().filter(|(_, ends)| **ends <= now_ns).map(|(source, _)| *source).collect();
        for source in &over {
            self.ends.remove(source);
        }
        over
    }

    /// When the ban of a source ends.
    #[must_use]
    pub fn ends_ns(&self, source: IpAddr) -> Option<u64> {
        self.ends.get(&canonical(source)).copied()
    }

    /// The bans that stand, the ones that end first foremost.
    #[must_use]
    pub fn standing(&self, now_ns: u64) -> Vec<Ban> {
        let standing = self.ends.iter().filter(|(_, ends)| **ends > now_ns);
        let mut bans: Vec<Ban> = standing
            .map(|(source, ends)| Ban { source: *source, remaining: Duration::from_nanos(ends - now_ns) })
            .collect();
        bans.sort_by_key(|ban| (ban.remaining, ban.source));
        bans
    }

    /// How many stand.
    #[must_use]
    pub fn count(&self, now_ns: u64) -> usize {
        self.ends.values().filter(|ends_ns| **ends_ns > now_ns).count()
    }

    /// How many there are, those that are over since the last [`Self::expire`] too.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u32) -> IpAddr {
        IpAddr::from((0xc612_0000 + n).to_be_bytes())
    }

    #[test]
    fn a_ban_stands_until_its_end_and_not_longer() {
        let mut bans = Bans::default();
        let (ends, _) = bans.ban(source(1), 1_000, Duration::from_nanos(500));
        assert_eq!(ends, 1_500);
        let standing = bans.standing(1_499);
        assert_eq!(standing, [Ban { source: source(1), remaining: Duration::from_nanos(1) }]);
        assert_eq!(bans.standing(1_500), []);
        assert_eq!(bans.expire(1_499), [] as [IpAddr; 0]);
        assert_eq!(bans.expire(1_500), [source(1)]);
        assert!(bans.is_empty());
    }

    #[test]
    fn a_mapped_source_is_the_ipv4_source() {
        let mut bans = Bans::default();
        bans.ban("::ffff:198.18.0.1".parse().unwrap(), 0, Duration::MAX);
        assert_eq!(bans.ends_ns(source(1)), Some(u64::MAX));
        assert!(bans.unban(source(1)));
        assert!(!bans.unban(source(1)));
    }

    #[test]
    fn a_full_book_lets_go_of_the_ban_that_ends_first() {
        let mut bans = Bans::default();
        for n in 0..u32::try_from(BANS_MAX).unwrap() {
            assert_eq!(bans.ban(source(n), 0, Duration::from_secs(100 + u64::from(n))).1, None);
        }
        let (_, evicted) = bans.ban(source(1_000_000), 0, Duration::from_secs(1));
        assert_eq!(evicted, Some(source(0)));
        assert_eq!(bans.len(), BANS_MAX);
        let (_, evicted) = bans.ban(source(1_000_000), 0, Duration::from_secs(2));
        assert_eq!(evicted, None, "one that is there needs no room");
    }
}
