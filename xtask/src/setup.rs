//! `cargo xtask setup`: what the other verbs need, installed or named. It must not touch the tree.

use std::process::{Command, Stdio};

use crate::apart;
use crate::packages::{self, Needed};
use crate::shell::{Done, found};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only say what is missing
    #[arg(long)]
    dry: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    if arguments.dry {
        for Needed { program, package, purpose } in packages::missing(packages::SUITES) {
            println!("missing: {program} ({purpose}; package {package})");
        }
        for package in apart::missing() {
            println!("missing: {package} (peer of interop, unpacked beside what is built)");
        }
    } else {
        packages::ensure(packages::SUITES)?;
        apart::ensure();
    }
    for (component, purpose) in [("rustfmt", "ci fmt"), ("clippy", "ci clippy")] {
        let program = if component == "clippy" { "cargo-clippy" } else { component };
        if found(program).is_none() && !arguments.dry {
            rustup(&["component", "add", component])?;
        } else if found(program).is_none() {
            println!("missing: {component} ({purpose}; rustup component add {component})");
        }
    }
    crate::ebpf::setup(arguments.dry)?;
    println!("set up");
    Ok(())
}

fn rustup(arguments: &[&str]) -> Done {
    crate::shell::step(Command::new("rustup").args(arguments).stdin(Stdio::null()))
}
