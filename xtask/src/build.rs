//! `cargo xtask build`: the release binary, with the gate where it can be built. It must not need more than plain stable.

use crate::ebpf;
use crate::shell::{Done, cargo, step, target};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The unoptimised binary, which the tests use
    #[arg(long)]
    debug: bool,
    /// TLS by aws-lc-rs instead of ring; a C compiler and some minutes more
    #[arg(long)]
    aws_lc_rs: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    let profile = if arguments.debug { Profile::Debug } else { Profile::Release };
    let provider = if arguments.aws_lc_rs { Provider::AwsLcRs } else { Provider::Ring };
    relay(profile, provider).map(|binary| {
        println!("built {}", binary.display());
    })
}

/// How the relay is compiled.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    Debug,
    Release,
}

/// By what TLS is done.
#[derive(Clone, Copy)]
pub(crate) enum Provider {
    Ring,
    AwsLcRs,
}

/// Builds the relay, with the gate where that can be built, and tells where it is.
///
/// # Errors
/// When it does not compile.
pub(crate) fn relay(
    profile: Profile,
    provider: Provider,
) -> Result<std::path::PathBuf, Box<dyn std::error::Error>> {
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
    if let Provider::AwsLcRs = provider {
        command.args(["--features", "aws-lc-rs"]);
    }
    step(&mut command)?;
    Ok(target().join(folder).join("ringpost"))
}
