//! The relay in a simulated world: real sessions, pools and streams on virtual time, with clients that pause and leave,
//! upstreams in every kind of trouble, and a network that cuts, delays and breaks. A ledger keeps both ends' word.
//!
//! Every course follows from its seed: `cargo xtask sim --seed N` plays one again and tells what is wrong,
//! `cargo xtask sim` plays thousands.

mod client;
mod dialogs;
mod dice;
mod flaws;
mod ledger;
mod lives;
mod machine;
mod mail;
mod mutants;
mod plan;
mod play;
mod talk;
mod upstream;

use std::panic::catch_unwind;

use ringpost::io::sim::Faults;

use crate::ledger::{Harvest, Tally};
use crate::mutants::{ALL, Mutant};
use crate::play::play;

/// Seeds beyond the smoke test's that have shown something wrong: recipients of one message named in the transaction of
/// the next, stray replies taken for verdicts, a chunk's stray that nobody can tell.
const STANDING: &[u64] = &[384, 406, 578, 829, 2015, 2333, 2467, 2987, 3628, 3959];

/// Seeds of the relay that takes custody that play each time.
const SMOKE: u64 = 200;

/// Plays seeds; tells the wrongs of the first bad ones and how to see them again.
fn hold(seeds: impl Iterator<Item = u64>) -> Tally {
    let mut tally = Tally::default();
    let mut bad = Vec::new();
    for seed in seeds {
        // A panic of the relay is a wrong like others, and its seed is to be told.
        let wrongs = match catch_unwind(|| play(seed, |sink| sink)) {
            Ok(course) => {
                tally = tally.and(&course.tally);
                course.wrongs
            }
            Err(_panic) => vec!["the relay panicked".to_owned()],
        };
        if !wrongs.is_empty() {
            bad.push(format!("cargo xtask sim --scene stream --seed {seed}\n  {}", wrongs.join("\n  ")));
        }
    }
    assert!(bad.is_empty(), "{} bad seeds:\n{}", bad.len(), bad[..bad.len().min(5)].join("\n"));
    tally
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The first of the seeds that are counted.
fn first() -> u64 {
    number("RINGPOST_SIM_FROM").unwrap_or(0)
}

#[test]
fn what_is_acknowledged_is_delivered_and_nothing_else() {
    let tally = match (number("RINGPOST_SIM_SEED"), number("RINGPOST_SIM_SEEDS")) {
        (Some(seed), _) => hold(seed..=seed),
        (None, Some(count)) => hold(first()..first() + count),
        (None, None) => {
            let tally = hold((0..300).chain(STANDING.iter().copied()));
            assert!(tally.acked > 500 && tally.refused > 300 && tally.unknown > 3, "a dull world: {tally:?}");
            tally
        }
    };
    println!("{tally:?}");
}

/// Plays seeds of the relay that takes custody, likewise.
fn hold_lives(seeds: impl Iterator<Item = u64>) -> Harvest {
    let mut harvest = Harvest::default();
    let mut bad = Vec::new();
    for seed in seeds {
        let wrongs = match catch_unwind(|| lives::play(seed, None)) {
            Ok(lives) => {
                harvest = harvest.and(&lives.harvest);
                lives.wrongs
            }
            Err(_panic) => vec!["the relay panicked".to_owned()],
        };
        if !wrongs.is_empty() {
            bad.push(format!("cargo xtask sim --scene custody --seed {seed}\n  {}", wrongs.join("\n  ")));
        }
    }
    assert!(bad.is_empty(), "{} bad seeds:\n{}", bad.len(), bad[..bad.len().min(5)].join("\n"));
    harvest
}

#[test]
fn what_is_in_custody_comes_out_whatever_crashes() {
    let harvest = match (number("RINGPOST_SIM_SEED"), number("RINGPOST_SIM_SEEDS")) {
        (Some(seed), _) => hold_lives(seed..=seed),
        (None, Some(count)) => hold_lives(first()..first() + count),
        (None, None) => {
            let harvest = hold_lives(0..SMOKE);
            let is_lively = harvest.crashes > 100
                && harvest.recovered > 100
                && harvest.returned > 100
                && harvest.unknown > 0
                && harvest.duplicates > 10;
            assert!(is_lively, "a dull world: {harvest:?}");
            harvest
        }
    };
    println!("{harvest:?}");
}

#[test]
fn a_seed_is_one_life() {
    for seed in 0..10 {
        assert_eq!(lives::play(seed, None), lives::play(seed, None), "seed {seed}");
    }
}

#[test]
fn the_ledger_catches_every_flaw() {
    for &flaw in flaws::ALL {
        let is_caught = |seed: &u64| !lives::play(*seed, Some(flaw)).wrongs.is_empty();
        let caught = (0..SMOKE).find(is_caught);
        println!("{flaw:?} is caught by {caught:?}");
        assert!(caught.is_some(), "{flaw:?} is not caught");
    }
}

#[test]
fn a_seed_is_one_course() {
    for seed in 0..20 {
        assert_eq!(play(seed, |sink| sink), play(seed, |sink| sink), "seed {seed}");
    }
}

#[test]
fn the_ledger_catches_every_mutant() {
    for &mutation in ALL {
        let is_caught = |seed: &u64| !play(*seed, move |sink| Mutant::new(sink, mutation)).wrongs.is_empty();
        assert!((0..100).any(|seed| is_caught(&seed)), "{mutation:?} is not caught");
    }
}

#[test]
fn every_dialog_holds_in_the_world() {
    for (seed, faults) in [(1, Faults::NONE), (2, Faults::CUTS), (3, Faults::CUTS)] {
        let held = dialogs::hold_all(seed, faults).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(held >= 40, "only {held} dialogs");
    }
}
