//! A distribution of measured values: counts by value in an HDR histogram, and the exact sum.
//!
//! Two significant digits (an error of at most 1 %) from 1 to 3.6 × 10⁹: for microseconds that is up to an hour.
//! Greater values count as the greatest. A distribution costs about 26 KiB of address space and touches only
//! the pages that its values fall into. Recording is a few shifts and two additions: no search, no allocation.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::Merge;

/// The values recorded so far.
#[derive(Debug, Clone)]
pub struct Distribution {
    histogram: Histogram<u64>,
    sum: u64,
}

impl Distribution {
    /// Records a plain number.
    pub fn record(&mut self, value: u64) {
        self.histogram.saturating_record(value);
        self.sum = self.sum.saturating_add(value);
    }

    /// Records a time, in microseconds.
    pub fn record_duration(&mut self, duration: Duration) {
        self.record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds the values of a histogram that was kept elsewhere; their sum is right within its precision.
    pub fn absorb(&mut self, other: &Histogram<u64>) {
        for step in other.iter_recorded() {
            let (value, count) = (step.value_iterated_to(), step.count_at_value());
            self.histogram.saturating_record_n(value, count);
            self.sum = self.sum.saturating_add(value.saturating_mul(count));
        }
    }

    /// How many values were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The sum of the values recorded.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The value that a share (0 to 1) of the values do not exceed, within 1 %; 0 where there are none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        self.histogram.value_at_quantile(share)
    }

    /// For each bound, ascending, how many values do not exceed it. A value counts for a bound when the least
    /// value that the histogram cannot tell from it does.
    pub fn cumulative<'a>(&'a self, bounds: &'a [u64]) -> impl Iterator<Item = u64> + 'a {
        let mut recorded = self.histogram.iter_recorded().peekable();
        let mut below = 0;
        bounds.iter().map(move |&bound| {
            while let Some(step) =
                recorded.next_if(|step| self.histogram.lowest_equivalent(step.value_iterated_to()) <= bound)
            {
                below += step.count_at_value();
            }
            below
        })
    }
}

impl Default for Distribution {
    fn default() -> Self {
        let histogram =
            Histogram::new_with_bounds(VALUE_MIN, VALUE_MAX, DIGITS).expect("the constant bounds are valid");
        Self { histogram, sum: 0 }
    }
}

impl Merge for Distribution {
    fn merge(&mut self, other: &Self) {
        let added = self.histogram.add(&other.histogram);
        debug_assert!(added.is_ok(), "all distributions have the same bounds");
        self.sum = self.sum.saturating_add(other.sum);
    }
}

const VALUE_MIN: u64 = 1;
const VALUE_MAX: u64 = 3_600_000_000;
const DIGITS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_a_value_for_the_bound_it_equals() {
        let mut distribution = Distribution::default();
        for micros in [0, 100, 250, 251, 5_000] {
            distribution.record(micros);
        }
        let counts: Vec<u64> = distribution.cumulative(&[100, 250, 1_000, 5_000]).collect();
        assert_eq!(counts, [2, 3, 4, 5]);
        assert_eq!(distribution.sum(), 5_601);
    }

    #[test]
    fn a_value_above_the_range_counts_as_the_greatest() {
        let mut distribution = Distribution::default();
        distribution.record_duration(Duration::MAX);
        assert_eq!(distribution.count(), 1);
        assert_eq!(distribution.cumulative(&[1_000_000]).collect::<Vec<_>>(), [0]);
    }

    proptest! {
        #[test]
        fn bounds_agree_with_counting_by_hand_within_one_percent(
            values in prop::collection::vec(0u64..10_000_000, 0..200),
            split in 0usize..200,
        ) {
            let bounds = [100u64, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
            let (mut first, mut second) = (Distribution::default(), Distribution::default());
            for (place, &value) in values.iter().enumerate() {
                if place < split { first.record(value) } else { second.record(value) }
            }
            first.merge(&second);
            let counts: Vec<u64> = first.cumulative(&bounds).collect();
            for (&bound, &count) in bounds.iter().zip(&counts) {
                let least = values.iter().filter(|&&value| value <= bound).count() as u64;
                let most = values.iter().filter(|&&value| value <= bound + bound / 50).count() as u64;
                prop_assert!((least..=most).contains(&count), "{bound}: {least} <= {count} <= {most}");
            }
            prop_assert_eq!(first.sum(), values.iter().sum::<u64>());
        }
    }
}
