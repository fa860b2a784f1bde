//! A network of its own for one test: the test program runs itself again inside a new network namespace.
//!
//! The namespace goes away with the process. It must not touch the network of the machine.

use std::fs;
use std::process::Command;

use crate::process;
use crate::skip::{self, found};

/// Set for the run inside.
const INSIDE: &str = "RINGPOST_TESTS_INSIDE";

/// Where a test stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// Inside the namespace: the test does its work.
    Inside,
    /// Outside, and the run inside has passed or said why it cannot: nothing is left to do.
    Done,
    /// No namespace can be had, and why.
    Unable(String),
}

/// Runs the calling test again in a network namespace whose loopback also holds these addresses.
///
/// # Panics
/// When the run inside fails.
#[track_caller]
pub fn enter(addresses: &[&str]) -> Place {
    enter_with(addresses, "")
}

/// Likewise, where the system's resolver is one at 127.0.0.1 that the test starts, and is trusted to validate.
///
/// # Panics
/// When the run inside fails.
#[track_caller]
pub fn enter_resolving() -> Place {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("resolv.conf");
    fs::write(&path, "nameserver 127.0.0.1\noptions trust-ad edns0\n").expect("a file can be written");
    enter_with(&[], &format!("mount --bind {} /etc/resolv.conf; ", path.display()))
}

#[track_caller]
fn enter_with(addresses: &[&str], mounts: &str) -> Place {
    if std::env::var_os(INSIDE).is_some() {
        return Place::Inside;
    }
    if let Some(missing) = ["unshare", "ip"].into_iter().find(|program| found(program).is_none()) {
        return Place::Unable(format!("{missing} is not installed"));
    }
    let kinds: &[&str] = if mounts.is_empty() { &["--net"] } else { &["--net", "--mount"] };
    let probe = process::run(Command::new("unshare").args(kinds).args(["sh", "-e", "-c", mounts]));
    if probe.code != Some(0) {
        return Place::Unable(format!("no namespace of its own: {}", probe.stderr.trim()));
    }
    let thread = std::thread::current();
    let name = thread.name().expect("libtest names its threads");
    let addresses: String =
        addresses.iter().map(|address| format!("ip addr add {address} dev lo; ")).collect();
    let script = format!("ip link set lo up; {mounts}{addresses}exec \"$0\" --exact \"$1\" --nocapture");
    let program = std::env::current_exe().expect("a test program has a path");
    let mut command = Command::new("unshare");
    command.args(kinds).args(["sh", "-e", "-c", &script]).arg(program).arg(name).env(INSIDE, "1");
    let inside = process::run(&mut command);
    assert_eq!(inside.code, Some(0), "inside the namespace:\n{}{}", inside.stdout, inside.stderr);
    skip::repeat(&inside.stderr);
    Place::Done
}
