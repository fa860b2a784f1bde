//! `cargo xtask ci [STAGE]`: what CI runs, so that a laptop can run the same. It must not fix anything.

use clap::ValueEnum;

use crate::shell::{Done, cargo, step};
use crate::{docs, test, tidy};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these; all of them, in this order, when none is named
    #[arg(value_enum)]
    stages: Vec<Stage>,
}

/// What CI does, cheapest first.
#[derive(Clone, Copy, ValueEnum)]
enum Stage {
    Fmt,
    Tidy,
    Clippy,
    Docs,
    Test,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    let stages =
        if arguments.stages.is_empty() { Stage::value_variants() } else { arguments.stages.as_slice() };
    let failures: Vec<String> = stages
        .iter()
        .filter_map(|stage| stage.run().err().map(|error| format!("{stage:?}: {error}").to_lowercase()))
        .collect();
    if failures.is_empty() {
        println!("ci: {} stages passed", stages.len());
        return Ok(());
    }
    for failure in &failures {
        println!("ci: {failure}");
    }
    Err(format!("{} of {} stages failed", failures.len(), stages.len()).into())
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        f.write_str(&name)
    }
}

impl Stage {
    fn run(self) -> Done {
        println!("== {self:?}");
        match self {
            Stage::Fmt => step(&mut cargo(&["fmt", "--all", "--check"])),
            Stage::Tidy => tidy::run(&tidy::Arguments::default()),
            Stage::Clippy => {
                step(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
            }
            Stage::Docs => docs::run(&docs::Arguments::check()),
            Stage::Test => test::run(&test::Arguments::default()),
        }
    }
}
