//! The timing loop of the micro benches: cases over one input, measured in turns so that noise meets all alike.
//!
//! `cargo bench -p ringpost-benches --bench NAME` prints a table; each row has its ratio to the first row of its
//! table, measured in the same rounds. `-- --callgrind N CASE` runs one case N times and prints nothing, to be
//! counted under `valgrind --tool=callgrind`: instruction counts do not depend on a busy machine. It judges
//! nothing and keeps no results.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock; nothing of the relay runs on it")]

use std::hint::black_box;
use std::time::Instant;

/// One thing to measure.
pub(crate) struct Case<'a> {
    name: String,
    run: Box<dyn FnMut() -> u64 + 'a>,
}

impl<'a> Case<'a> {
    /// A case; what `run` returns is kept from being optimised away.
    pub(crate) fn new(name: &str, run: impl FnMut() -> u64 + 'a) -> Self {
        Self { name: name.to_owned(), run: Box::new(run) }
    }

    fn time(&mut self, runs: u64) -> f64 {
        let start = Instant::now();
        for _ in 0..runs {
            black_box((self.run)());
        }
        start.elapsed().as_secs_f64() / runs as f64
    }
}

/// What one run of a case works on, for the rate.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    /// How many, in one run.
    pub(crate) count: usize,
    /// The unit of the rate.
    pub(crate) unit: &'static str,
    /// How many a second are one of the unit.
    pub(crate) scale: f64,
}

/// Measures the cases and prints them as a table, the first being the baseline.
pub(crate) fn compare(title: &str, work: Work, mut cases: Vec<Case<'_>>) {
    if let Some((runs, name)) = callgrind() {
        for case in cases.iter_mut().filter(|case| format!("{title}/{}", case.name) == name) {
            (0..runs).for_each(|_| {
                black_box((case.run)());
            });
        }
        return;
    }
    let runs: Vec<u64> = cases.iter_mut().map(runs_per_round).collect();
    let mut rounds = vec![Vec::with_capacity(ROUNDS); cases.len()];
    for _ in 0..ROUNDS {
        for ((case, &runs), times) in cases.iter_mut().zip(&runs).zip(&mut rounds) {
            times.push(case.time(runs));
        }
    }
    rounds.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    println!("\n{title:<44} {:>12} {:>12} {:>9} {:>9}", "min ns", "median ns", work.unit, "time x");
    for (case, times) in cases.iter().zip(&rounds) {
        let (min, median) = (times[0], times[ROUNDS / 2]);
        let rate = work.count as f64 / min / work.scale;
        let ratio = min / rounds[0][0];
        println!("  {:<42} {:>12.1} {:>12.1} {rate:>9.2} {ratio:>9.2}", case.name, min * 1e9, median * 1e9);
    }
}

/// As many runs as take a round's time.
fn runs_per_round(case: &mut Case<'_>) -> u64 {
    let mut runs = 1;
    while case.time(runs) * (runs as f64) < ROUND_SECS && runs < 1 << 30 {
        runs *= 2;
    }
    runs
}

/// `--callgrind N TITLE/CASE` of the arguments.
fn callgrind() -> Option<(u64, String)> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--callgrind").skip(1);
    Some((arguments.next()?.parse().ok()?, arguments.next()?))
}

const ROUNDS: usize = 25;
const ROUND_SECS: f64 = 0.002;
