//! The suites of the tree, running one of them, and counting what came of it.
//!
//! A test that cannot run on this machine writes `SKIPPED name: reason` past libtest's capture and returns;
//! libtest counts it as passed, this file counts it as skipped. It must never turn a failure into a skip.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use serde_json::Value;

use crate::shell::{cargo, output, shown};

/// The test targets of the package `ringpost-tests`, in the order of its manifest.
///
/// # Errors
/// When cargo cannot read the manifests.
pub(crate) fn targets() -> Result<Vec<String>, Box<dyn Error>> {
    let metadata = output(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let tests = packages.iter().filter(|package| package["name"] == "ringpost-tests");
    let targets = tests.filter_map(|package| package["targets"].as_array()).flatten();
    let is_test = |target: &&Value| target["kind"] == serde_json::json!(["test"]);
    Ok(targets.filter(is_test).filter_map(|target| target["name"].as_str().map(str::to_owned)).collect())
}

/// Every suite by name: units and documentation first, since they tell most for their time.
///
/// # Errors
/// As [`targets`].
pub(crate) fn all() -> Result<Vec<String>, Box<dyn Error>> {
    Ok(["unit", "doc"].map(str::to_owned).into_iter().chain(targets()?).collect())
}

/// The command that runs one suite, with the words after `--` for libtest.
pub(crate) fn command(suite: &str, relay: &Path, words: &[String]) -> Command {
    let mut command = match suite {
        "unit" => cargo(&["test", "--workspace", "--lib", "--bins", "--no-fail-fast"]),
        "doc" => cargo(&["test", "--package", "ringpost", "--doc"]),
        target => cargo(&["test", "--package", "ringpost-tests", "--test", target]),
    };
    command.env("RINGPOST_BIN", relay).arg("--").args(words);
    command
}

/// What came of one suite or of several.
#[derive(Default, Debug, PartialEq)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
    skipped: BTreeSet<String>,
    failures: Vec<String>,
}

impl Tally {
    /// Runs a command of libtest's, showing what it says and counting along.
    ///
    /// # Errors
    /// When the command cannot be started at all.
    pub(crate) fn of(suite: &str, command: &mut Command) -> Result<Self, Box<dyn Error>> {
        println!("\n== {suite}\n$ {}", shown(command));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (sender, lines) = channel();
        let stdout = child.stdout.take().map(|pipe| forward(pipe, sender.clone()));
        let stderr = child.stderr.take().map(|pipe| forward(pipe, sender));
        let mut tally = Self::default();
        for line in lines {
            println!("{line}");
            tally.count(suite, &line);
        }
        for reader in [stdout, stderr].into_iter().flatten() {
            reader.join().map_err(|_| "a reader of the suite's output panicked")?;
        }
        // A suite that did not compile or was killed has told of no failed test: it is one itself.
        if !child.wait()?.success() && tally.failed == 0 {
            tally.failed = 1;
            tally.failures.push(format!("{suite}: did not build, or ended before its end"));
        }
        Ok(tally)
    }

    fn count(&mut self, suite: &str, line: &str) {
        if let Some((_, skipped)) = line.split_once("SKIPPED ") {
            self.skipped.insert(format!("{suite}: {skipped}"));
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += number_before(counts, " passed");
            self.failed += number_before(counts, " failed");
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED"))
        {
            self.failures.push(format!("{suite}: {name}"));
        }
    }

    /// Adds what came of another suite.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
        self.failures.extend(other.failures);
    }

    /// Whether nothing failed.
    pub(crate) fn is_clean(&self) -> bool {
        self.failed == 0
    }

    /// What was skipped and why, what failed, and the closing line.
    pub(crate) fn report(&self) -> String {
        let skipped = self.skipped.iter().map(|entry| format!("skipped  {entry}\n"));
        let failed = self.failures.iter().map(|entry| format!("FAILED   {entry}\n"));
        let closing = format!(
            "{} passed, {} failed, {} skipped",
            self.passed.saturating_sub(self.skipped.len()),
            self.failed,
            self.skipped.len()
        );
        skipped.chain(failed).chain([closing]).collect()
    }
}

fn forward<R: Read + Send + 'static>(pipe: R, lines: Sender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|octets| octets > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if lines.send(text).is_err() {
                return;
            }
            line.clear();
        }
    })
}

fn number_before(text: &str, word: &str) -> usize {
    let before = text.split_once(word).map_or("", |(before, _)| before);
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &str) -> Tally {
        let mut tally = Tally::default();
        lines.lines().for_each(|line| tally.count("e2e", line));
        tally
    }

    #[test]
    fn sums_the_results_of_several_binaries() {
        let tally = tally(
            "test a ... ok\ntest result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
             test b ... FAILED\ntest result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        assert_eq!(tally.report(), "FAILED   e2e: b\n15 passed, 1 failed, 0 skipped");
        assert!(!tally.is_clean());
    }

    #[test]
    fn counts_a_skip_once_and_not_as_passed() {
        let tally = tally(
            "SKIPPED relays_to_postfix: no postfix\nSKIPPED relays_to_postfix: no postfix\n\
             test result: ok. 2 passed; 0 failed; 0 ignored",
        );
        assert_eq!(
            tally.report(),
            "skipped  e2e: relays_to_postfix: no postfix\n1 passed, 0 failed, 1 skipped"
        );
    }

    #[test]
    fn reports_a_command_that_ends_badly_as_a_failure() {
        let tally = Tally::of("e2e", Command::new("sh").args(["-c", "echo building; exit 101"]));
        assert!(!tally.expect("sh starts").is_clean());
    }
}
