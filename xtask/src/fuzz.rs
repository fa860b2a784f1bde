//! `cargo xtask fuzz [TARGET]`: fuzzes one target with cargo-fuzz, or replays every corpus with plain cargo.

use std::process::{Command, Stdio};

use crate::shell::{Done, cargo, root, step};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A file name of tests/fuzz/targets without `.rs`; none: the smoke test, which needs no nightly
    target: Option<String>,
    /// How long to fuzz
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    let Some(target) = &arguments.target else {
        return step(&mut cargo(&["test", "--package", "ringpost-tests", "--test", "corpora"]));
    };
    let has_fuzzer =
        Command::new("cargo").args(["+nightly", "fuzz", "--version"]).stdin(Stdio::null()).output();
    if !has_fuzzer.is_ok_and(|output| output.status.success()) {
        return Err(
            "fuzzing needs a nightly toolchain and cargo-fuzz: `rustup toolchain install nightly` and \
                    `cargo install cargo-fuzz`; without a target, `cargo xtask fuzz` replays the corpora"
                .into(),
        );
    }
    let mut command = Command::new("cargo");
    command.args(["+nightly", "fuzz", "run", "--fuzz-dir", ".", target, "--"]);
    command.arg(format!("-max_total_time={}", arguments.seconds));
    step(command.current_dir(root().join("tests/fuzz")).stdin(Stdio::null()))
}
