//! When offences become a ban: failed logins and protocol abuse of one source, counted over a time.
//!
//! Pure: times are given. It must not know what an offence is, nor who carries a ban out. IPv6 sources are counted
//! and banned one address each, as they are named.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use super::config::Autoban;
use crate::limits::AUTOBAN_SOURCES_MAX;
use crate::policy::acl::canonical;

/// The offences of each source.
#[derive(Debug, Default)]
pub struct Offences {
    sources: HashMap<IpAddr, VecDeque<Duration>>,
}

impl Offences {
    /// Counts an offence at `now`, any monotonic time. `Some`: the source is now to be banned for so long, and
    /// its count begins anew.
    pub fn count(&mut self, rule: Autoban, source: IpAddr, now: Duration) -> Option<Duration> {
        let source = canonical(source);
        self.make_room(rule, now);
        let times = self.sources.entry(source).or_default();
        times.retain(|time| now.saturating_sub(*time) < rule.within);
        times.push_back(now);
        if times.len() < rule.offences.max(1) as usize {
            return None;
        }
        self.sources.remove(&source);
        Some(rule.ban_for)
    }

    /// A full table forgets first what no longer counts, then the source whose last offence is the oldest.
    fn make_room(&mut self, rule: Autoban, now: Duration) {
        if self.sources.len() < AUTOBAN_SOURCES_MAX {
            return;
        }
        let counts = |times: &VecDeque<Duration>| {
            times.back().is_some_and(|last| now.saturating_sub(*last) < rule.within)
        };
        self.sources.retain(|_, times| counts(times));
        if self.sources.len() >= AUTOBAN_SOURCES_MAX {
            let oldest = self.sources.iter().min_by_key(|(_, times)| times.back().copied());
            if let Some(source) = oldest.map(|(source, _)| *source) {
                self.sources.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Autoban =
        Autoban { offences: 3, within: Duration::from_secs(60), ban_for: Duration::from_secs(3600) };

    fn source(last: u8) -> IpAddr {
        IpAddr::from([198, 18, 0, last])
    }

    #[test]
    fn bans_at_the_last_offence_and_begins_anew() {
        let mut offences = Offences::default();
        let at = Duration::from_secs;
        assert_eq!(offences.count(RULE, source(1), at(0)), None);
        assert_eq!(offences.count(RULE, source(1), at(30)), None);
        assert_eq!(offences.count(RULE, source(1), at(59)), Some(RULE.ban_for));
        assert_eq!(offences.count(RULE, source(1), at(59)), None);
    }

    #[test]
    fn forgets_offences_older_than_the_rule_looks_back() {
        let mut offences = Offences::default();
        let at = Duration::from_secs;
        assert_eq!(offences.count(RULE, source(1), at(0)), None);
        assert_eq!(offences.count(RULE, source(1), at(30)), None);
        assert_eq!(offences.count(RULE, source(1), at(60)), None);
        assert_eq!(offences.count(RULE, source(1), at(61)), Some(RULE.ban_for));
    }

    #[test]
    fn counts_each_source_for_itself_and_mapped_ones_as_ipv4() {
        let mut offences = Offences::default();
        let now = Duration::ZERO;
        for last in 1..=9 {
            assert_eq!(offences.count(RULE, source(last), now), None);
        }
        let mapped: IpAddr = "::ffff:198.18.0.1".parse().unwrap();
        assert_eq!(offences.count(RULE, mapped, now), None);
        assert_eq!(offences.count(RULE, mapped, now), Some(RULE.ban_for));
    }

    #[test]
    fn never_holds_more_sources_than_its_bound() {
        let mut offences = Offences::default();
        for number in 0..u32::try_from(AUTOBAN_SOURCES_MAX).unwrap() + 100 {
            let source = IpAddr::from(number.to_be_bytes());
            offences.count(RULE, source, Duration::from_millis(number.into()));
        }
        assert!(offences.sources.len() <= AUTOBAN_SOURCES_MAX);
    }
}
