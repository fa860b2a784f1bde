//! The relay in a simulated world: real sessions, pools and streams on virtual time, with clients that pause and leave,
//! upstreams in every kind of trouble, and a network that cuts, delays and breaks. A ledger keeps both ends' word.
//!
//! Every course follows from its seed: `cargo xtask sim SEED` plays one again and tells what is wrong,
//! `cargo xtask sim` plays thousands.

mod client;
mod dialogs;
mod dice;
mod ledger;
mod mail;
mod mutants;
mod play;
mod talk;
mod upstream;

use std::panic::catch_unwind;

use ringpost::io::sim::Faults;

use crate::ledger::Tally;
use crate::mutants::{ALL, Mutant};
use crate::play::play;

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
            bad.push(format!("cargo xtask sim {seed}\n  {}", wrongs.join("\n  ")));
        }
    }
    assert!(bad.is_empty(), "{} bad seeds:\n{}", bad.len(), bad[..bad.len().min(5)].join("\n"));
    tally
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn what_is_acknowledged_is_delivered_and_nothing_else() {
    let tally = match (number("RINGPOST_SIM_SEED"), number("RINGPOST_SIM_SEEDS")) {
        (Some(seed), _) => hold(seed..=seed),
        (None, Some(count)) => hold(0..count),
        (None, None) => {
            let tally = hold(0..300);
            assert!(
                tally.acked > 500 && tally.refused > 300 && tally.unknown > 10,
                "a dull world: {tally:?}"
            );
            tally
        }
    };
    println!("{tally:?}");
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
