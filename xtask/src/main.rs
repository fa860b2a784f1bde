//! `cargo xtask VERB`: every developer verb, one file a verb. It must not hold logic that the relay needs.

mod apart;
mod bench;
mod build;
mod catch_all;
mod ci;
mod crash;
mod docs;
mod ebpf;
mod fuzz;
mod gate_kernels;
mod initramfs;
mod packages;
mod run;
mod setup;
mod shell;
mod sim;
mod suites;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The developer verbs of ringpost", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

/// One line a verb; the file of the same name does it.
#[derive(Subcommand)]
enum Verb {
    /// Compare the relay with its peers under load, or run the micro benches
    Bench(bench::Arguments),
    /// Build the release binary
    Build(build::Arguments),
    /// What CI runs: fmt, clippy, tidy, tests, docs; or one of them
    Ci(ci::Arguments),
    /// Write docs/CONFIG.md, METRICS.md and REPLIES.md from the code, or check that they are fresh
    Docs(docs::Arguments),
    /// Build the gate's program for the kernel
    Ebpf(ebpf::Arguments),
    /// Fuzz one target, or replay every corpus
    Fuzz(fuzz::Arguments),
    /// Run the gate's golden packets on Debian's kernels under qemu
    GateKernels(gate_kernels::Arguments),
    /// Start the relay with a catch-all upstream, send a first message through it, stay up
    Run(run::Arguments),
    /// Install what building, testing and fuzzing need, or say what is missing
    Setup(setup::Arguments),
    /// Play campaigns of the crash suite: kill -9 under load, disks that fail
    Crash(crash::Arguments),
    /// Run the simulation, once with the seed given or over its standing seeds
    Sim(sim::Arguments),
    /// Install what is missing, run every suite, say what was skipped and why
    Test(test::Arguments),
    /// Check what no compiler checks: layers, sizes, heads, citations, line ends
    Tidy(tidy::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Build(arguments) => build::run(&arguments),
        Verb::Ci(arguments) => ci::run(&arguments),
        Verb::Docs(arguments) => docs::run(&arguments),
        Verb::Ebpf(arguments) => ebpf::run(&arguments),
        Verb::Fuzz(arguments) => fuzz::run(&arguments),
        Verb::GateKernels(arguments) => gate_kernels::run(&arguments),
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Setup(arguments) => setup::run(&arguments),
        Verb::Crash(arguments) => crash::run(&arguments),
        Verb::Sim(arguments) => sim::run(&arguments),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Tidy(arguments) => tidy::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
