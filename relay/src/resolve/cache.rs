//! What a worker knows of names: pure, bounded, time is an argument.
//!
//! A good answer is fresh for its own time; a failure for a short one. When a fresh answer is wanted and cannot be
//! had for the moment, the last good one serves on for up to `limits::DNS_STALE_MAX`: mail goes on through an outage of
//! the name servers. A lasting answer (no such name, null MX) replaces a good one at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Failure, Kind, Resolution};
use crate::limits;
use crate::units::Moment;

/// The names of one worker.
#[derive(Debug, Default)]
pub struct Cache {
    exchangers: HashMap<Arc<str>, Entry>,
    addresses: HashMap<Arc<str>, Entry>,
}

#[derive(Debug)]
struct Entry {
    answer: Result<Resolution, Failure>,
    fresh_until: Moment,
    /// When the answer came from a name server; a stale one keeps its old moment.
    learned: Moment,
}

impl Cache {
    /// What is known of a name, if it need not be asked again yet.
    #[must_use]
    pub fn fresh(&self, name: &str, kind: Kind, now: Moment) -> Option<Result<Resolution, Failure>> {
        let entry = self.names(kind).get(name)?;
        (now < entry.fresh_until).then(|| entry.answer.clone())
    }

    /// Keeps an answer, and gives what is to be used: the answer itself, or the last good one where the answer is a
    /// passing failure.
    pub fn keep(
        &mut self,
        name: &Arc<str>,
        kind: Kind,
        answer: Result<Resolution, Failure>,
        now: Moment,
    ) -> Result<Resolution, Failure> {
        let names = self.names_mut(kind);
        if let (Err(Failure::Transient(_)), Some(entry)) = (&answer, names.get_mut(name))
            && entry.answer.is_ok()
            && now.since(entry.learned) < limits::DNS_STALE_MAX
        {
            entry.fresh_until = now.after(limits::DNS_TRANSIENT_TTL);
            return entry.answer.clone();
        }
        make_room(names, now);
        let fresh_until = now.after(fresh_for(&answer));
        names.insert(Arc::clone(name), Entry { answer: answer.clone(), fresh_until, learned: now });
        answer
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.exchangers.clear();
        self.addresses.clear();
    }

    fn names(&self, kind: Kind) -> &HashMap<Arc<str>, Entry> {
        match kind {
            Kind::MxThenAddress => &self.exchangers,
            Kind::AddressOnly => &self.addresses,
        }
    }

    fn names_mut(&mut self, kind: Kind) -> &mut HashMap<Arc<str>, Entry> {
        match kind {
            Kind::MxThenAddress => &mut self.exchangers,
            Kind::AddressOnly => &mut self.addresses,
        }
    }
}

fn fresh_for(answer: &Result<Resolution, Failure>) -> Duration {
    match answer {
        Ok(resolution) => resolution.valid_for,
        Err(Failure::Transient(_)) => limits::DNS_TRANSIENT_TTL,
        Err(Failure::NoSuchName | Failure::NullMx) => limits::DNS_NEGATIVE_TTL,
    }
}

/// Makes room for one more name: first by what is not fresh, else the half that ends first. Rare, so a whole pass
/// over the names is cheaper than an order kept at each use.
fn make_room(names: &mut HashMap<Arc<str>, Entry>, now: Moment) {
    if names.len() < limits::DNS_CACHE_NAMES_MAX {
        return;
    }
    names.retain(|_, entry| now < entry.fresh_until);
    if names.len() >= limits::DNS_CACHE_NAMES_MAX {
        let mut ends: Vec<Moment> = names.values().map(|entry| entry.fresh_until).collect();
        let middle = ends.len() / 2;
        let (_, &mut median, _) = ends.select_nth_unstable(middle);
        names.retain(|_, entry| entry.fresh_until > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::Host;

    const KIND: Kind = Kind::MxThenAddress;

    fn good(address: &str, seconds: u64) -> Result<Resolution, Failure> {
        let host =
            Host { name: "mx.example".into(), preference: 10, addresses: vec![address.parse().unwrap()] };
        Ok(Resolution { hosts: vec![host], valid_for: Duration::from_secs(seconds) })
    }

    fn servfail() -> Result<Resolution, Failure> {
        Err(Failure::Transient("SERVFAIL".into()))
    }

    fn at(seconds: u64) -> Moment {
        Moment::default().after(Duration::from_secs(seconds))
    }

    #[test]
    fn an_answer_is_fresh_for_its_own_time() {
        let (mut cache, name) = (Cache::default(), "a.example".into());
        assert_eq!(cache.keep(&name, KIND, good("192.0.2.1", 60), at(0)), good("192.0.2.1", 60));
        assert_eq!(cache.fresh(&name, KIND, at(59)), Some(good("192.0.2.1", 60)));
        assert_eq!(cache.fresh(&name, KIND, at(60)), None);
        assert_eq!(cache.fresh(&name, Kind::AddressOnly, at(1)), None, "another question");
    }

    #[test]
    fn a_passing_failure_serves_the_last_good_answer_and_is_not_asked_again_at_once() {
        let (mut cache, name) = (Cache::default(), "a.example".into());
        let _ = cache.keep(&name, KIND, good("192.0.2.1", 60), at(0));
        assert_eq!(cache.keep(&name, KIND, servfail(), at(100)), good("192.0.2.1", 60));
        assert_eq!(cache.fresh(&name, KIND, at(101)), Some(good("192.0.2.1", 60)));
        let later = limits::DNS_STALE_MAX.as_secs() + 1;
        assert_eq!(cache.keep(&name, KIND, servfail(), at(later)), servfail(), "too old to be used");
    }

    #[test]
    fn a_lasting_answer_replaces_a_good_one() {
        let (mut cache, name) = (Cache::default(), "a.example".into());
        let _ = cache.keep(&name, KIND, good("192.0.2.1", 60), at(0));
        assert_eq!(cache.keep(&name, KIND, Err(Failure::NullMx), at(61)), Err(Failure::NullMx));
        assert_eq!(cache.keep(&name, KIND, servfail(), at(200)), servfail());
    }

    #[test]
    fn failures_are_kept_for_a_short_while() {
        let (mut cache, name) = (Cache::default(), "a.example".into());
        let _ = cache.keep(&name, KIND, Err(Failure::NoSuchName), at(0));
        assert_eq!(cache.fresh(&name, KIND, at(1)), Some(Err(Failure::NoSuchName)));
        assert_eq!(cache.fresh(&name, KIND, Moment::default().after(limits::DNS_NEGATIVE_TTL)), None);
    }

    #[test]
    fn memory_is_bounded_however_many_names_are_asked() {
        let mut cache = Cache::default();
        let max = limits::DNS_CACHE_NAMES_MAX as u64;
        for number in 0..3 * max {
            let _ =
                cache.keep(&format!("n{number}").into(), KIND, good("192.0.2.1", 3600), at(number / 1000));
        }
        assert!(cache.exchangers.len() <= limits::DNS_CACHE_NAMES_MAX);
        let newest = format!("n{}", 3 * max - 1);
        assert!(cache.fresh(&newest, KIND, at(0)).is_some());
    }
}
