//! `cargo xtask crash`: campaigns of the crash suite: more kills, more seeds than the test suite has time for.

use crate::shell::{Done, cargo, step};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Kills in each play
    #[arg(long, default_value_t = 20)]
    kills: u64,
    /// How many seeds play
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    step(&mut cargo(&["build", "--package", "ringpost"]))?;
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        println!("seed {seed}");
        let mut command = cargo(&["test", "--package", "ringpost-tests", "--test", "crash"]);
        command.env("RINGPOST_CRASH_KILLS", arguments.kills.to_string());
        command.env("RINGPOST_CRASH_SEED", seed.to_string());
        step(command.args(["--", "--nocapture", "--test-threads", "1"]))?;
    }
    Ok(())
}
