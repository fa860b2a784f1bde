//! Saying visibly that a test cannot run on this machine. It must never hide that something failed.

use std::io::Write;
use std::path::PathBuf;

/// Writes `SKIPPED test: reason` past libtest's capture; `cargo xtask test` collects these lines.
pub fn announce(reason: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test");
    // Not `eprintln!`, which libtest keeps to itself when the test passes.
    writeln!(std::io::stderr().lock(), "SKIPPED {name}: {reason}").ok();
}

/// Says again what a run of the test in another process has announced, by what that process said.
pub fn repeat(said: &str) {
    for line in said.lines().filter(|line| line.starts_with("SKIPPED ")) {
        writeln!(std::io::stderr().lock(), "{line}").ok();
    }
}

/// Returns from the test that it stands in, having said why.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::skip::announce(&format!($($reason)*));
        return;
    }};
}

/// The place of a program, or a return from the test that it stands in.
#[macro_export]
macro_rules! need {
    ($program:expr) => {
        match $crate::skip::found($program) {
            Some(path) => path,
            None => $crate::skip!("{} is not installed", $program),
        }
    };
}

/// The place of a program, looked for on `PATH` and where Debian keeps daemons.
pub fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/lib/postfix/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}
