//! `cargo xtask sim [SEED]`: the simulation suite, thousands of seeds or the one that failed, with its transcript.

use crate::shell::{Done, cargo, step};
use crate::suites;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The seed a failure printed; it plays alone and prints its transcript
    seed: Option<u64>,
    /// How many seeds play, from 0
    #[arg(long, default_value_t = 3000)]
    seeds: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    if !suites::targets()?.iter().any(|name| name == "sim") {
        return Err("this tree has no sim suite".into());
    }
    let mut command = cargo(&["test", "--package", "ringpost-tests", "--test", "sim"]);
    match arguments.seed {
        Some(seed) => {
            command.env("RINGPOST_SIM_SEED", seed.to_string());
            command.args(["what_is_acknowledged", "--", "--nocapture"]);
        }
        None => {
            command.env("RINGPOST_SIM_SEEDS", arguments.seeds.to_string());
        }
    }
    step(&mut command)
}
