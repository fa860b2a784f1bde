//! `cargo xtask ebpf`: the gate's program for the kernel, into `target/bpf/ringpost-gate.o`.
//!
//! Either toolchain will do: rustup's nightly with rust-src (it builds `core` itself), or a distribution's rustc
//! that ships `core` for BPF. Both need bpf-linker. `RINGPOST_GATE_OBJECT` names an object built elsewhere. It must not change
//! the flags of any host build: what the BPF target needs is set for the inner cargo alone.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use crate::packages::{self, Needed};
use crate::shell::{Done, found, output, root, step, target};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Do nothing, successfully, where no toolchain is there
    #[arg(long)]
    if_possible: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    match (object(), arguments.if_possible) {
        (Ok(path), _) => println!("built {}", path.display()),
        (Err(error), true) => println!("no gate: {error}"),
        (Err(error), false) => return Err(error),
    }
    Ok(())
}

/// Builds the object and tells where it is.
///
/// # Errors
/// Where no toolchain is there (with both recipes), or the program does not compile.
pub(crate) fn object() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let built = match env::var_os("RINGPOST_GATE_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => {
            let linker = linker().ok_or(NO_LINKER)?;
            step(&mut Toolchain::find().ok_or(NO_TOOLCHAIN)?.build(&linker))?;
            build_dir().join(TARGET).join(PROFILE).join("ringpost-gate")
        }
    };
    let octets = fs::read(&built).map_err(|error| format!("{}: {error}", built.display()))?;
    check(&octets)?;
    let object = target().join("bpf").join("ringpost-gate.o");
    put(&object, &octets)?;
    Ok(object)
}

/// What `setup` installs for this verb where it can: Debian's toolchain and the linker.
///
/// # Errors
/// When a program that should install something cannot be started.
pub(crate) fn setup(dry: bool) -> Done {
    if dry {
        for (missing, recipe) in
            [(Toolchain::find().is_none(), NO_TOOLCHAIN), (linker().is_none(), NO_LINKER)]
        {
            if missing {
                println!("missing: {recipe}");
            }
        }
        return Ok(());
    }
    if Toolchain::find().is_none() {
        packages::ensure(DEBIAN_TOOLCHAIN)?;
    }
    if linker().is_some() {
        return Ok(());
    }
    packages::ensure(DEBIAN_LLVM)?;
    let Some((prefix, feature)) = llvm() else {
        println!("missing: {NO_LINKER}");
        return Ok(());
    };
    let mut install = Command::new("cargo");
    install.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--no-default-features"]);
    install.args(["--features", &feature]);
    // The variable of llvm-sys names the version it binds: 221 for 22.1.
    let variable = format!("LLVM_SYS_{}1_PREFIX", feature.trim_start_matches("llvm-"));
    step(install.env("LLVM_PREFIX", &prefix).env(variable, &prefix))
}

const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "bpf";
const LINKER_VERSION: &str = "0.13.0";
const NO_LINKER: &str =
    "bpf-linker: `cargo xtask setup`, or `cargo install bpf-linker`, or BPF_LINKER=/path/to/it";
const NO_TOOLCHAIN: &str = "a toolchain for BPF: `rustup toolchain install nightly --component rust-src`, \
    or on Debian `apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf`, or BPF_RUSTC=/path/to/rustc";

const DEBIAN_TOOLCHAIN: &[Needed] = &[
    Needed { program: "rustc-web", package: "rustc-web", purpose: "the gate's compiler" },
    Needed { program: "cargo-web", package: "cargo-web", purpose: "the gate's compiler" },
    Needed { program: "core-for-bpf", package: "libstd-rust-web-dev-bpf", purpose: "the gate's compiler" },
];
const DEBIAN_LLVM: &[Needed] = &[
    Needed { program: "llvm-config-22", package: "llvm-22-dev", purpose: "the gate's linker" },
    Needed { program: "libclang-22", package: "libclang-22-dev", purpose: "the gate's linker" },
];

/// A way to compile for BPF.
enum Toolchain {
    /// rustup's nightly, which builds `core` from rust-src.
    Nightly,
    /// A rustc with a `core` for BPF beside it, and the cargo that belongs to it.
    Prebuilt { rustc: PathBuf, cargo: PathBuf },
}

impl Toolchain {
    fn find() -> Option<Self> {
        let nightly = sysroot(Command::new("rustup").args(["run", "nightly", "rustc"]));
        if nightly.is_some_and(|sysroot| sysroot.join("lib/rustlib/src/rust/library").is_dir()) {
            return Some(Self::Nightly);
        }
        let named = env::var_os("BPF_RUSTC").map(PathBuf::from);
        let candidates = named.into_iter().chain(["/usr/bin/rustc", "/usr/bin/rustc-web"].map(PathBuf::from));
        candidates.into_iter().find_map(|rustc| {
            let sysroot = sysroot(&mut Command::new(&rustc))?;
            let has_core = sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir();
            let cargo = rustc.with_file_name("cargo");
            (has_core && cargo.is_file()).then_some(Self::Prebuilt { rustc, cargo })
        })
    }

    /// The inner cargo, with nothing of this one's environment that would change what it builds.
    fn build(&self, linker: &Path) -> Command {
        let mut flags = vec![
            format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
            "-Cdebuginfo=2".to_owned(),
            format!("-Clinker={}", linker.display()),
            "-Clink-arg=--btf".to_owned(),
        ];
        // Paths of the machine that builds have no place in what is shipped.
        let cargo_home =
            env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|home| format!("{home}/.cargo")));
        let homes = [(root().display().to_string(), "ringpost"), (cargo_home.unwrap_or_default(), "cargo")];
        flags.extend(
            homes
                .into_iter()
                .filter(|(from, _)| !from.is_empty())
                .map(|(from, to)| format!("--remap-path-prefix={from}={to}")),
        );
        let mut command = match self {
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo", "build", "-Zbuild-std=core"]);
                command
            }
            Self::Prebuilt { rustc, cargo } => {
                let mut command = Command::new(cargo);
                // Only aya-ebpf asks for an unstable feature: inline assembly for BPF.
                command.arg("build").env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "aya_ebpf");
                let path = env::var_os("PATH").unwrap_or_default();
                let own = rustc.parent().map(Path::to_path_buf);
                if let Ok(path) = env::join_paths(own.into_iter().chain(env::split_paths(&path))) {
                    command.env("PATH", path);
                }
                command
            }
        };
        command.args(["--locked", "--package", "ringpost-ebpf", "--bin", "ringpost-gate"]);
        command.args(["--target", TARGET, "--profile", PROFILE, "--target-dir"]).arg(build_dir());
        for variable in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN", "CARGO", "RUSTC_WORKSPACE_WRAPPER"]
        {
            command.env_remove(variable);
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")).current_dir(root());
        command
    }
}

fn build_dir() -> PathBuf {
    target().join("bpf-build")
}

fn sysroot(rustc: &mut Command) -> Option<PathBuf> {
    let printed = rustc.args(["--print", "sysroot"]).stderr(std::process::Stdio::null());
    let printed = printed.env_remove("RUSTUP_TOOLCHAIN").stdin(std::process::Stdio::null()).output().ok()?;
    let path = String::from_utf8(printed.stdout).ok()?;
    printed.status.success().then(|| PathBuf::from(path.trim()))
}

fn linker() -> Option<PathBuf> {
    let named = env::var_os("BPF_LINKER").map(PathBuf::from);
    let installed = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo/bin/bpf-linker"));
    named.or_else(|| found("bpf-linker")).or(installed).filter(|path| path.is_file())
}

/// The newest LLVM that bpf-linker can be built with: its prefix, and bpf-linker's feature for it.
fn llvm() -> Option<(String, String)> {
    (21..=22).rev().find_map(|version| {
        let config = found(&format!("llvm-config-{version}"))?;
        let prefix = output(Command::new(config).arg("--prefix")).ok()?;
        Some((prefix.trim().to_owned(), format!("llvm-{version}")))
    })
}

/// That it is an object for BPF, with both programs and the types of its maps.
fn check(octets: &[u8]) -> Done {
    const MACHINE_BPF: [u8; 2] = 247u16.to_le_bytes();
    if !octets.starts_with(b"\x7fELF") || octets.get(18..20) != Some(&MACHINE_BPF[..]) {
        return Err("the linker did not write an object for BPF".into());
    }
    for name in [".BTF\0", ".maps\0", "ringpost_gate\0", "ringpost_frags\0"] {
        if !octets.windows(name.len()).any(|window| window == name.as_bytes()) {
            return Err(format!("the object has no {}", name.trim_matches('\0')).into());
        }
    }
    Ok(())
}

/// Writes the object if it changed. Where there was none, the relay's build script is marked as changed: it
/// cannot watch for a file that does not exist without running at every build.
fn put(object: &Path, octets: &[u8]) -> io::Result<()> {
    if fs::read(object).is_ok_and(|there| there == octets) {
        return Ok(());
    }
    let is_new = !object.exists();
    fs::create_dir_all(object.parent().unwrap_or(object))?;
    fs::write(object, octets)?;
    if is_new {
        let script = fs::File::options().append(true).open(root().join("relay/build.rs"))?;
        script.set_modified(file_time(object)?)?;
    }
    Ok(())
}

fn file_time(path: &Path) -> io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}
