//! `cargo xtask sim`: the simulation suite, thousands of seeds or the one that failed, with its transcript.

use crate::shell::{Done, cargo, step};
use crate::suites;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The seed a failure printed; it plays alone and prints its transcript
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds play
    #[arg(long, default_value_t = 3000, conflicts_with = "seed")]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    from: u64,
    /// What plays: both, if none is named
    #[arg(long)]
    scene: Option<Scene>,
}

/// What the simulation plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scene {
    /// The relay that keeps nothing: `DELIVERY_PATIENCE=forever`
    Stream,
    /// The relay that takes custody: patience, queue, crashes, failing disks
    Custody,
}

impl Scene {
    /// The test that plays it.
    fn test(self) -> &'static str {
        match self {
            Self::Stream => "what_is_acknowledged",
            Self::Custody => "what_is_in_custody",
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    if !suites::targets()?.iter().any(|name| name == "sim") {
        return Err("this tree has no sim suite".into());
    }
    let scenes = arguments.scene.map_or(vec![Scene::Stream, Scene::Custody], |scene| vec![scene]);
    for scene in scenes {
        let mut command = cargo(&["test", "--package", "ringpost-tests", "--test", "sim"]);
        command.args([scene.test(), "--", "--nocapture"]);
        match arguments.seed {
            Some(seed) => {
                command.env("RINGPOST_SIM_SEED", seed.to_string());
            }
            None => {
                command.env("RINGPOST_SIM_FROM", arguments.from.to_string());
                command.env("RINGPOST_SIM_SEEDS", arguments.seeds.to_string());
            }
        }
        step(&mut command)?;
    }
    Ok(())
}
