//! Tells the binary which commit it was built from, and gives it the gate's object that `cargo xtask ebpf` built;
//! without git or without an object it says so, and the build goes on.

use std::path::Path;
use std::process::Command;

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=RINGPOST_COMMIT={commit}");
    // Both change with the commit; a path that is not there would make every build run this anew.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    embed_gate()
}

/// `gate_object.rs`: the gate's object, if there is one. Where there is none, `cargo xtask ebpf` marks this script
/// as changed when it makes the first.
fn embed_gate() -> std::io::Result<()> {
    println!("cargo:rerun-if-env-changed=CARGO_TARGET_DIR");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), |dir| root.join(dir));
    let object = target.join("bpf/ringpost-gate.o").canonicalize();
    let value = match &object {
        Ok(object) => {
            println!("cargo:rerun-if-changed={}", object.display());
            format!("Some(aya::include_bytes_aligned!({:?}))", object)
        }
        Err(_) => "None".to_owned(),
    };
    let text = format!("/// The gate's object.\npub const OBJECT: Option<&[u8]> = {value};\n");
    let out = std::env::var_os("OUT_DIR").map(std::path::PathBuf::from).unwrap_or_default();
    std::fs::write(out.join("gate_object.rs"), text)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
