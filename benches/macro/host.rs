//! Where a result was measured: without that a figure says nothing. No host name and no path of the machine.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::clock;

/// The machine, the commit and the peers' versions.
#[derive(Debug, Clone, Serialize)]
pub struct Host {
    /// The processor's model.
    pub processor: String,
    /// CPUs that we may run on.
    pub processors: usize,
    /// Octets of memory.
    pub memory_octets: u64,
    /// Kernel release.
    pub kernel: String,
    /// The distribution.
    pub system: String,
    /// The file system under the peers' folders.
    pub file_system: String,
    /// The relay's commit, with `-dirty` where the tree differs from it.
    pub commit: String,
    /// The peers' versions.
    pub versions: Vec<String>,
    /// When, in seconds since 1970 UTC.
    pub unix_secs: u64,
}

impl Host {
    /// Looks at this machine; `scratch` is where the peers' folders are made. What cannot be found out is empty.
    #[must_use]
    pub fn look(scratch: &Path) -> Self {
        let first = |path: &str, name: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            value.trim_matches([' ', '\t', ':', '=', '"']).to_owned()
        };
        let memory = first("/proc/meminfo", "MemTotal:");
        let versions =
            [("haproxy", said("haproxy", &["-v"])), ("postfix", said("postconf", &["-d", "mail_version"]))];
        Host {
            processor: first("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_octets: memory.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            system: first("/etc/os-release", "PRETTY_NAME"),
            file_system: said("stat", &["-f", "-c", "%T", &scratch.to_string_lossy()]),
            commit: commit(),
            versions: versions.into_iter().filter(|(_, text)| !text.is_empty()).map(version).collect(),
            unix_secs: clock::unix_secs(),
        }
    }
}

/// The commit of the tree that we stand in.
fn commit() -> String {
    let hash = said("git", &["rev-parse", "--short=12", "HEAD"]);
    let changed = !said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    if changed { format!("{hash}-dirty") } else { hash }
}

/// `haproxy 2.6.12` out of what a program says of itself.
fn version((name, text): (&str, String)) -> String {
    let number = text.split(' ').find(|word| word.starts_with(|letter: char| letter.is_ascii_digit()));
    format!("{name} {}", number.unwrap_or(&text))
}

/// The first line that a program writes; empty where there is no such program.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_the_number_out_of_a_banner() {
        let text = "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/".to_owned();
        assert_eq!(version(("haproxy", text)), "haproxy 2.6.12-1+deb12u4");
        assert_eq!(version(("postfix", "mail_version = 3.7.11".to_owned())), "postfix 3.7.11");
    }

    #[test]
    fn a_missing_program_says_nothing() {
        assert_eq!(said("no-such-program-here", &[]), "");
    }
}
