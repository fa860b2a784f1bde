//! `cargo xtask sim [SEED]`: the simulation suite, with one seed or with its standing ones.

use crate::shell::{Done, cargo, step};
use crate::suites;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The seed a failure printed; without it the standing seeds run
    seed: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    if !suites::targets()?.iter().any(|name| name == "sim") {
        return Err("this tree has no sim suite".into());
    }
    let mut command = cargo(&["test", "--package", "ringpost-tests", "--test", "sim"]);
    if let Some(seed) = arguments.seed {
        command.env("RINGPOST_SIM_SEED", seed.to_string());
        command.args(["--", "--nocapture"]);
    }
    step(&mut command)
}
