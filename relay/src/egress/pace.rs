//! How long an upstream takes: moving averages of its last transactions.
//!
//! A client is not held for an upstream that is going to be too slow anyway. Pure but for its cells: times are arguments.
//! What it must not do: stay pessimistic for ever. A verdict is measured on every stream, late ones too; an envelope is
//! tried again after [`FORGET`].

use std::cell::Cell;
use std::time::Duration;

use crate::units::Moment;

/// The pace of one upstream.
#[derive(Debug, Default)]
pub struct Pace {
    envelope: Average,
    verdict: Average,
}

#[derive(Debug, Default)]
struct Average {
    micros: Cell<u32>,
    at: Cell<Moment>,
}

/// One sample in so many.
const WEIGHT: u32 = 8;
/// A longer time counts as this: one hiccup must not outweigh a hundred prompt answers.
const SAMPLE_MAX: Duration = Duration::from_secs(2);
/// An average that is older than this says nothing any more.
const FORGET: Duration = Duration::from_secs(2);

impl Pace {
    /// The upstream took so long for an envelope, the wait for a connection included.
    pub fn note_envelope(&self, took: Duration, now: Moment) {
        self.envelope.note(took, now);
    }

    /// The upstream took so long from the end of a message to its verdict.
    pub fn note_verdict(&self, took: Duration, now: Moment) {
        self.verdict.note(took, now);
    }

    /// Whether an envelope is expected to take longer than this.
    #[must_use]
    pub fn has_slow_envelopes(&self, patience: Duration, now: Moment) -> bool {
        self.envelope.exceeds(patience, now)
    }

    /// Whether a verdict is expected to take longer than this.
    #[must_use]
    pub fn has_slow_verdicts(&self, patience: Duration, now: Moment) -> bool {
        self.verdict.exceeds(patience, now)
    }
}

impl Average {
    fn note(&self, took: Duration, now: Moment) {
        let micros = u32::try_from(took.min(SAMPLE_MAX).as_micros()).unwrap_or(u32::MAX / WEIGHT);
        let old = self.micros.get();
        self.micros.set(if old == 0 { micros } else { (old * (WEIGHT - 1) + micros) / WEIGHT });
        self.at.set(now);
    }

    fn exceeds(&self, patience: Duration, now: Moment) -> bool {
        Duration::from_micros(u64::from(self.micros.get())) > patience && now.since(self.at.get()) < FORGET
    }
}

// The sum of an average fits its number.
const _: () = assert!(SAMPLE_MAX.as_micros() * (WEIGHT as u128) < u32::MAX as u128);

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    #[test]
    fn a_slow_upstream_is_expected_to_be_slow_until_it_is_not() {
        let (pace, now) = (Pace::default(), Moment(1));
        assert!(!pace.has_slow_verdicts(PATIENCE, now), "nothing is known");
        pace.note_verdict(Duration::from_millis(400), now);
        assert!(pace.has_slow_verdicts(PATIENCE, now));
        assert!(!pace.has_slow_envelopes(PATIENCE, now));
        (0..40).for_each(|_| pace.note_verdict(Duration::from_millis(1), now));
        assert!(!pace.has_slow_verdicts(PATIENCE, now));
    }

    #[test]
    fn one_hiccup_is_forgiven_and_old_news_are_no_news() {
        let (pace, now) = (Pace::default(), Moment(1));
        pace.note_envelope(Duration::from_secs(3600), now);
        assert!(pace.has_slow_envelopes(PATIENCE, now));
        assert!(!pace.has_slow_envelopes(PATIENCE, now.after(FORGET)), "tried again");
        (0..40).for_each(|_| pace.note_envelope(Duration::from_millis(1), now));
        assert!(!pace.has_slow_envelopes(PATIENCE, now));
    }
}
