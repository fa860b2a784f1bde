//! `cargo xtask build`: the release binary, with the gate where it can be built. It must not need more than plain stable.

use crate::ebpf;
use crate::shell::{Done, cargo, step, target};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The unoptimised binary, which the tests use
    #[arg(long)]
    debug: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    relay(if arguments.debug { Profile::Debug } else { Profile::Release }).map(|binary| {
        println!("built {}", binary.display());
    })
}

/// How the relay is compiled.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    Debug,
    Release,
}

/// Builds the relay, with the gate where that can be built, and tells where it is.
///
/// # Errors
/// When it does not compile.
pub(crate) fn relay(profile: Profile) -> Result<std::path::PathBuf, Box<dyn std::error::Error>> {
    // Without a toolchain for BPF the relay is built all the same, and says that it has no gate.
    match ebpf::object() {
        Ok(object) => println!("embedding {}", object.display()),
        Err(error) => println!("no gate in this build: {error}"),
    }
    let mut command = cargo(&["build", "--package", "ringpost", "--bin", "ringpost"]);
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    step(&mut command)?;
    Ok(target().join(folder).join("ringpost"))
}
