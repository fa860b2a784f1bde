//! `cargo xtask bench`: builds what a benchmark needs, installs the peers, starts it. The measuring itself is in `benches`.
//! It must not measure: what runs beside a compiler is no figure.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::packages::{Needed, ensure};
use crate::shell::{Done, cargo, found, output, shown, step, target};

/// The peers and tools of `bench relay`.
const RELAY: &[Needed] = &[
    Needed { program: "haproxy", package: "haproxy", purpose: "peer that moves octets" },
    Needed { program: "prlimit", package: "util-linux", purpose: "thousands of open files" },
];
/// The gate's peer, and what shows which program it loaded.
const GATE: &[Needed] = &[
    Needed { program: "xdp-filter", package: "xdp-tools", purpose: "peer of the gate" },
    Needed { program: "bpftool", package: "bpftool", purpose: "finding its program" },
    Needed { program: "ip", package: "iproute2", purpose: "a network of its own" },
    Needed { program: "nft", package: "nftables", purpose: "peer of the gate" },
];
/// The peer of `bench tls`.
const TLS: &[Needed] =
    &[Needed { program: "haproxy", package: "haproxy", purpose: "peer that takes TLS off and on" }];
/// Only where it is asked for.
const DURABLE: &[Needed] =
    &[Needed { program: "postfix", package: "postfix", purpose: "the durable baseline" }];
const INSTRUCTIONS: &[Needed] =
    &[Needed { program: "valgrind", package: "valgrind", purpose: "instruction counts" }];

/// Runs of a case under callgrind, and as many more: the difference is free of what starting costs.
const CALLGRIND_RUNS: u64 = 10;

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// `relay` (the default) and its flags, told by `--help`; or `micro [NAME…] [--callgrind]`, `backlog`, `gate` or `tls`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    match arguments.words.split_first() {
        Some((kind, rest)) if kind == "micro" => micro(rest),
        Some((kind, rest)) if kind == "relay" => relay(rest),
        Some((kind, rest)) if kind == "backlog" => backlog(rest),
        Some((kind, _)) if kind == "gate" => gate(),
        Some((kind, _)) if kind == "tls" => tls(),
        Some((kind, _)) if !kind.starts_with('-') => {
            Err(format!("bench {kind}: there are relay, micro, backlog, gate and tls").into())
        }
        _ => relay(&arguments.words),
    }
}

/// The relay beside its peers.
fn relay(flags: &[String]) -> Done {
    let is_help = flags.iter().any(|flag| flag == "--help" || flag == "-h");
    if !is_help {
        ensure(RELAY)?;
        if flags.iter().any(|flag| flag.contains("postfix")) {
            ensure(DURABLE)?;
        }
    }
    let mut build = cargo(&["build", "--release", "--package", "ringpost-benches", "--package", "ringpost"]);
    for name in ["ringpost", "ringpost-bench", "ringpost-load", "ringpost-sink"] {
        build.args(["--bin", name]);
    }
    step(&mut build)?;
    step(Command::new(target().join("release/ringpost-bench")).args(flags).stdin(Stdio::null()))
}

/// A long queue behind a dead upstream that comes to life.
fn backlog(flags: &[String]) -> Done {
    let mut build = cargo(&["build", "--release", "--package", "ringpost-benches", "--package", "ringpost"]);
    for name in ["ringpost", "bench-backlog", "ringpost-load", "ringpost-sink"] {
        build.args(["--bin", name]);
    }
    step(&mut build)?;
    step(Command::new(target().join("release/bench-backlog")).args(flags).stdin(Stdio::null()))
}

/// The gate's program beside an empty one and xdp-filter.
fn gate() -> Done {
    ensure(GATE)?;
    let object = crate::ebpf::object()?;
    step(&mut cargo(&["build", "--release", "--package", "ringpost-benches", "--bin", "bench-gate"]))?;
    step(Command::new(target().join("release/bench-gate")).arg(object).stdin(Stdio::null()))
}

/// TLS on both sides, beside HAProxy.
fn tls() -> Done {
    ensure(TLS)?;
    let mut build = cargo(&["build", "--release", "--package", "ringpost-benches", "--package", "ringpost"]);
    step(build.args(["--bin", "ringpost", "--bin", "bench-tls"]))?;
    let release = target().join("release");
    step(Command::new(release.join("bench-tls")).arg(release.join("ringpost")).stdin(Stdio::null()))
}

/// One hot path a file, each beside a naive way of doing it.
fn micro(words: &[String]) -> Done {
    let (flags, names): (Vec<&String>, Vec<&String>) = words.iter().partition(|word| word.starts_with('-'));
    let callgrind = match flags.as_slice() {
        [] => false,
        [flag] if *flag == "--callgrind" => true,
        [flag, ..] => return Err(format!("bench micro {flag}: there is --callgrind").into()),
    };
    let executables = micro_executables(&names)?;
    if callgrind {
        ensure(INSTRUCTIONS)?;
        found("valgrind").ok_or("instruction counts need valgrind")?;
    }
    for executable in &executables {
        let tables = output(Command::new(executable).arg("--bench"))?;
        println!("{tables}");
        if callgrind {
            count_instructions(executable, &tables)?;
        }
    }
    if executables.is_empty() { Err("no micro bench of that name".into()) } else { Ok(()) }
}

/// Builds the micro benches, all or those named, and tells where they are.
fn micro_executables(names: &[&String]) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut command = cargo(&["bench", "--package", "ringpost-benches", "--no-run"]);
    command.arg("--message-format=json-render-diagnostics");
    if names.is_empty() {
        command.arg("--benches");
    }
    for name in names {
        command.args(["--bench", name]);
    }
    println!("$ {}", shown(&command));
    let built = output(&mut command)?;
    let messages = built.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_benches = messages.filter(|message| message["target"]["kind"][0] == "bench");
    Ok(of_benches.filter_map(|message| Some(PathBuf::from(message["executable"].as_str()?))).collect())
}

/// Instructions that one run of each case takes.
fn count_instructions(executable: &Path, tables: &str) -> Done {
    println!("{:<60} {:>16}", "instructions", "a run");
    for case in cases(tables) {
        let few = instructions(executable, CALLGRIND_RUNS, &case)?;
        let more = instructions(executable, 2 * CALLGRIND_RUNS, &case)?;
        println!("  {case:<58} {:>16}", more.saturating_sub(few) / CALLGRIND_RUNS);
    }
    Ok(())
}

/// `TITLE/CASE` of each case in the tables that a micro bench prints: a title stands at the line's start, its cases below it
/// two columns in, each followed by four figures.
fn cases(tables: &str) -> Vec<String> {
    let mut title = "";
    let mut found = Vec::new();
    for line in tables.lines() {
        match line.strip_prefix("  ") {
            None => title = line.split("  ").next().unwrap_or_default().trim(),
            Some(row) => {
                let name = row.split("  ").next().unwrap_or_default().trim();
                found.push(format!("{title}/{name}"));
            }
        }
    }
    found
}

fn instructions(executable: &Path, runs: u64, case: &str) -> Result<u64, Box<dyn Error>> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(executable);
    command.args(["--callgrind", &runs.to_string(), case]).stdin(Stdio::null());
    let said = command.output()?;
    collected(&String::from_utf8_lossy(&said.stderr))
        .ok_or_else(|| format!("{}: no count", shown(&command)).into())
}

/// `==PID== Collected : N` of callgrind's farewell.
fn collected(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_titles_and_cases_of_a_table() {
        let tables = "\ntext 64 KiB                 min ns   median ns   GB/s\n  memmem CRLF dot     1.0  2.0  3.0  1.00\n  \
                      scan, stuffed       1.0  2.0  3.0  1.00\n";
        assert_eq!(cases(tables), ["text 64 KiB/memmem CRLF dot", "text 64 KiB/scan, stuffed"]);
    }

    #[test]
    fn reads_callgrinds_count() {
        assert_eq!(collected("==7== \n==7== Collected : 123456\n"), Some(123_456));
        assert_eq!(collected("==7== Collected : none"), None);
    }
}
