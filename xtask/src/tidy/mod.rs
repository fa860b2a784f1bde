//! `cargo xtask tidy`: what no compiler checks. Each rule is a pure function from sources to findings.
//!
//! A size that was let through once stands in `xtask/tidy-allow.txt`; the list may only shrink: an entry that
//! is larger than what it allows must be lowered, one that is no longer needed must go. Rules must not read
//! files themselves: what they judge is handed to them, so that their tests need no tree.

mod code;
mod layers;
mod reach;
mod sizes;
mod text;

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;

use crate::shell::{Done, cargo, output, root};

#[derive(clap::Args, Default)]
pub(crate) struct Arguments {}

/// One file under version control.
pub(crate) struct Source {
    /// From the top of the tree, with slashes.
    path: String,
    /// The file, undecoded.
    octets: Vec<u8>,
}

impl Source {
    /// The text, or none when it is not UTF-8: a picture, a corpus file.
    fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.octets).ok()
    }

    fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }
}

/// One thing that is not as it should be. Lines count from 1; 0 is the file as a whole.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(source: &Source, line: usize, what: impl Into<String>) -> Self {
        Self { path: source.path.clone(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// Reads the tree, applies every rule, prints what is found.
///
/// # Errors
/// When something is found, or git or cargo cannot tell what the tree holds.
pub(crate) fn run(_: &Arguments) -> Done {
    let sources = sources()?;
    let allowed = fs::read_to_string(root().join(sizes::ALLOWED))?;
    let mut findings = judge(&sources, &roots()?, &allowed);
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {} files", sources.len());
        return Ok(());
    }
    Err(format!("tidy: {} findings", findings.len()).into())
}

fn judge(sources: &[Source], roots: &[String], allowed: &str) -> Vec<Finding> {
    let mut findings: Vec<Finding> = sources.iter().flat_map(text::judge).collect();
    findings.extend(layers::judge(sources));
    findings.extend(sizes::judge(sources, allowed));
    findings.extend(reach::judge(sources, roots));
    findings
}

/// What git tracks or would track, as it stands on disk.
fn sources() -> Result<Vec<Source>, Box<dyn Error>> {
    let mut git = std::process::Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listing = output(&mut git)?;
    let read = |path: &str| match fs::read(root().join(path)) {
        Ok(octets) => Some(Ok(Source { path: path.to_owned(), octets })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(format!("{path}: {error}").into())),
    };
    listing.lines().filter_map(read).collect()
}

/// The root file of every target that cargo builds, from the top of the tree.
fn roots() -> Result<Vec<String>, Box<dyn Error>> {
    let mut roots = Vec::new();
    for manifest in ["Cargo.toml", "tests/fuzz/Cargo.toml"] {
        if !root().join(manifest).exists() {
            continue;
        }
        let arguments = ["metadata", "--no-deps", "--format-version", "1", "--manifest-path", manifest];
        let metadata: serde_json::Value = serde_json::from_str(&output(&mut cargo(&arguments))?)?;
        let packages = metadata["packages"].as_array().into_iter().flatten();
        let targets = packages.filter_map(|package| package["targets"].as_array()).flatten();
        let paths = targets.filter_map(|target| target["src_path"].as_str());
        let top = root().canonicalize()?;
        roots.extend(paths.filter_map(|path| {
            let path = Path::new(path).canonicalize().ok()?;
            Some(path.strip_prefix(&top).ok()?.to_string_lossy().into_owned())
        }));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests;
