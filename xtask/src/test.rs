//! `cargo xtask test [SUITE…]`: installs what is missing, runs everything, says what it skipped and why.
//!
//! The last line is `N passed, N failed, N skipped`, summed over the suites. It must not read stdin.

use crate::apart;
use crate::build::{self, Profile, Provider};
use crate::ebpf;
use crate::packages;
use crate::shell::Done;
use crate::suites::{self, Tally};

#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Only these suites: unit, doc, or a test target of tests/Cargo.toml (dialogs, e2e, interop, …)
    suites: Vec<String>,
    /// Install nothing: what is missing is skipped
    #[arg(long)]
    no_install: bool,
    /// The relay with aws-lc-rs instead of ring, for the suites over the real daemon
    #[arg(long)]
    aws_lc_rs: bool,
    /// Given on to the test programs, for instance part of a test's name
    #[arg(last = true)]
    words: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    let known = suites::all()?;
    if let Some(unknown) = arguments.suites.iter().find(|name| !known.contains(name)) {
        return Err(format!("no suite {unknown}; there are {}", known.join(", ")).into());
    }
    if !arguments.no_install {
        packages::ensure(packages::SUITES)?;
        apart::ensure();
        // Where the gate cannot be built its tests are skipped, and say so.
        ebpf::setup(false).unwrap_or_else(|error| println!("no gate: {error}"));
    }
    // The suites over the real daemon start this binary; it is built once, before any of them.
    let provider = if arguments.aws_lc_rs { Provider::AwsLcRs } else { Provider::Ring };
    let relay = build::relay(Profile::Debug, provider)?;
    let mut total = Tally::default();
    for suite in known.iter().filter(|name| arguments.suites.is_empty() || arguments.suites.contains(name)) {
        total.add(Tally::of(suite, &mut suites::command(suite, &relay, &arguments.words))?);
    }
    println!("\n{}", total.report());
    if total.is_clean() { Ok(()) } else { Err("some tests failed".into()) }
}
