//! What the workers have counted, gathered: the sum of all meters, the rates of the last minute, who is stuck.
//!
//! A worker that does not answer keeps the numbers of its last answer, so that no counter ever falls.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::workers::Workers;
use crate::limits;
use crate::meter::{Direction, Meter};

/// The numbers of all workers at one moment.
#[derive(Debug, Clone)]
pub(super) struct Census {
    pub(super) meter: Meter,
    pub(super) workers: usize,
    pub(super) workers_stuck: usize,
    pub(super) rates: Rates,
}

/// What went through in a second, on average over the last minute (or since the start, where that is shorter).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Messages received.
    pub messages_received: f64,
    /// Messages answered with 250.
    pub messages_relayed: f64,
    /// Octets of content from clients.
    pub octets_in: f64,
    /// Octets of content to upstreams.
    pub octets_out: f64,
}

/// Keeps the last answers and the samples that rates come from.
#[derive(Debug)]
pub(super) struct Gatherer {
    workers: Workers,
    last: Vec<Meter>,
    samples: VecDeque<Sample>,
}

/// The counters that rates come from, at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    counts: [u64; 4],
}

impl Gatherer {
    /// Of these workers, from now on.
    pub(super) fn new(workers: Workers) -> Self {
        let last = (0..workers.count()).map(|_| Meter::default()).collect();
        let started = Sample { at: Instant::now(), counts: [0; 4] };
        Self { workers, last, samples: VecDeque::from([started]) }
    }

    /// Asks all workers; takes as long as the slowest, at most `limits::WORKER_ANSWER_TIMEOUT`.
    pub(super) async fn gather(&mut self) -> Census {
        let mut workers_stuck = 0;
        for (last, answer) in self.last.iter_mut().zip(self.workers.snapshots().await) {
            match answer {
                Some(meter) => *last = *meter,
                None => workers_stuck += 1,
            }
        }
        Census { workers_stuck, ..self.recall() }
    }

    /// The last answers once more: draining workers answer no questions, and are not stuck.
    pub(super) fn recall(&mut self) -> Census {
        let mut meter = Meter::default();
        self.last.iter().for_each(|one| meter.merge(one));
        let rates = self.rates(&meter, Instant::now());
        Census { meter, workers: self.workers.count(), workers_stuck: 0, rates }
    }

    fn rates(&mut self, meter: &Meter, now: Instant) -> Rates {
        let sample = Sample {
            at: now,
            counts: [
                meter.messages_received.total(),
                meter.messages_relayed.total(),
                meter.message_octets[Direction::In],
                meter.message_octets[Direction::Out],
            ],
        };
        // The oldest sample is the youngest that is as old as the window.
        while self.samples.get(1).is_some_and(|second| now.duration_since(second.at) >= limits::RATE_WINDOW) {
            self.samples.pop_front();
        }
        let rates = self.samples.front().map(|first| sample.since(first)).unwrap_or_default();
        if self.samples.back().is_none_or(|newest| now.duration_since(newest.at) >= SAMPLE_SPACING) {
            self.samples.push_back(sample);
        }
        rates
    }
}

impl Sample {
    #[allow(clippy::cast_precision_loss, reason = "a rate is told in a few digits")]
    fn since(&self, first: &Self) -> Rates {
        let seconds = self.at.duration_since(first.at).as_secs_f64().max(1.0);
        let rate = |which: usize| self.counts[which].saturating_sub(first.counts[which]) as f64 / seconds;
        Rates {
            messages_received: rate(0),
            messages_relayed: rate(1),
            octets_in: rate(2),
            octets_out: rate(3),
        }
    }
}

/// Samples are no nearer to each other than this, however often `/status` is asked for.
const SAMPLE_SPACING: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::Listener;

    fn meter(received: u64) -> Meter {
        let mut meter = Meter::default();
        meter.messages_received[Listener::Smtp] = received;
        meter
    }

    #[tokio::test(start_paused = true)]
    async fn rates_forget_what_is_older_than_the_window() {
        let mut gatherer = Gatherer::new(Workers::new(Vec::new()));
        let start = Instant::now();
        let mut at = |seconds: u64, received| {
            gatherer.rates(&meter(received), start + Duration::from_secs(seconds)).messages_received
        };
        assert!((at(10, 1000) - 100.0).abs() < 1e-9);
        assert!((at(20, 1000) - 50.0).abs() < 1e-9);
        assert!(at(100, 1000).abs() < 1e-9, "nothing came in the last minute");
        assert!(gatherer.samples.len() <= 4);
    }

    #[tokio::test(start_paused = true)]
    async fn asking_often_keeps_few_samples() {
        let mut gatherer = Gatherer::new(Workers::new(Vec::new()));
        let start = Instant::now();
        for step in 0..20_000 {
            gatherer.rates(&meter(step), start + Duration::from_millis(10 * step));
        }
        assert!(gatherer.samples.len() <= 63, "{}", gatherer.samples.len());
    }
}
