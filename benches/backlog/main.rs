//! `cargo xtask bench backlog`: a long queue behind a dead upstream. How much memory it takes, how soon a relay that was
//! killed serves again, how fast the queue drains once the upstream is up, and how new mail fares meanwhile.
//!
//! Ends with a failure where a bound of the project is missed, or a message is. It must not touch what it did not start.

mod drain;
mod relay;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use ringpost_benches::children::{SinkProcess, run_load};
use ringpost_benches::load::LoadReport;
use ringpost_benches::size::Size;

use drain::{Drained, SOON, drain, wait_for};
use relay::Relay;

/// Memory of a relay that was started on the queue, for each message, and beside it.
const RESTART_OCTETS_PER_MESSAGE: u64 = 190;
const RESTART_OCTETS_BASE: u64 = 20 << 20;
/// A million messages are indexed within this.
const RESTART_SECONDS_PER_MILLION: f64 = 10.0;
/// For how long the rate without a queue is measured.
const PLAIN_SECONDS: &str = "5";

/// A long queue behind a dead upstream.
#[derive(Parser)]
#[command(name = "cargo xtask bench backlog", version)]
struct Arguments {
    /// Messages that pile up.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Octets of a message.
    #[arg(long, default_value = "1K")]
    size: Size,
    /// Sessions that hand them in.
    #[arg(long, default_value_t = 200)]
    sessions: u32,
    /// New messages a second while the queue drains.
    #[arg(long, default_value_t = 500)]
    fresh: u32,
    /// Workers; by default one for each CPU.
    #[arg(long)]
    workers: Option<usize>,
    /// Where the relay's folder is made, to choose the file system: some 2 KiB a message.
    #[arg(long)]
    scratch: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(missed) if missed.is_empty() => ExitCode::SUCCESS,
        Ok(missed) => {
            missed.iter().for_each(|bound| eprintln!("bench backlog: missed: {bound}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench backlog: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The bounds that were missed.
fn run(arguments: &Arguments) -> io::Result<Vec<String>> {
    let workers = arguments.workers.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let mut relay = Relay::new(arguments.scratch.as_deref(), workers)?;
    let plain = plain_rate(arguments, &mut relay)?;
    pile_up(arguments, &relay)?;
    let mut missed = restart(arguments, &mut relay)?;
    // By their age the queue's messages are told from new ones.
    thread::sleep(SOON + Duration::from_secs(1));
    let drained = relive(arguments, &relay)?;
    missed.extend(judge(&drained, plain));
    Ok(missed)
}

/// Messages delivered a second where nothing has piled up.
fn plain_rate(arguments: &Arguments, relay: &mut Relay) -> io::Result<f64> {
    let mut sink = upstream(relay)?;
    relay.start()?;
    let load = load(arguments, relay, &["--seconds", PLAIN_SECONDS])?;
    let seconds = load.seconds + wait_for(&mut sink, load.messages)?.as_secs_f64();
    let rate = load.messages as f64 / seconds;
    println!(
        "no queue: {} messages, {rate:.0} delivered/s, {} MiB resident",
        load.messages,
        relay.mebibytes()
    );
    Ok(rate)
}

/// Hands in what cannot be delivered.
fn pile_up(arguments: &Arguments, relay: &Relay) -> io::Result<()> {
    let before = relay.resident();
    let load = load(arguments, relay, &["--messages", &arguments.messages.to_string()])?;
    let usage = relay.usage();
    println!(
        "upstream dead: {} messages taken, {:.0}/s, p99 {:.1} ms; {} MiB resident (highest {}), {} octets a message; \
         {} MiB on disk",
        load.messages,
        load.messages as f64 / load.seconds,
        load.p99_micros as f64 / 1000.0,
        mebibytes(usage.resident_octets),
        mebibytes(usage.peak_octets),
        usage.resident_octets.saturating_sub(before) / load.messages.max(1),
        mebibytes(relay.disk_octets()),
    );
    Ok(())
}

/// Kills the relay and starts another on what it left.
fn restart(arguments: &Arguments, relay: &mut Relay) -> io::Result<Vec<String>> {
    relay.kill()?;
    let took = relay.start()?;
    let usage = relay.usage();
    println!(
        "killed and started: serves after {:.2} s, {} MiB resident (highest {})",
        took.as_secs_f64(),
        mebibytes(usage.resident_octets),
        mebibytes(usage.peak_octets)
    );
    let mut missed = Vec::new();
    let octets_max = RESTART_OCTETS_BASE + arguments.messages * RESTART_OCTETS_PER_MESSAGE;
    if usage.peak_octets > octets_max {
        missed.push(format!("{} MiB after the start", mebibytes(octets_max)));
    }
    let seconds_max = (RESTART_SECONDS_PER_MILLION * arguments.messages as f64 / 1e6).max(1.0);
    if took.as_secs_f64() > seconds_max {
        missed.push(format!("serving after {seconds_max:.1} s"));
    }
    Ok(missed)
}

/// The upstream comes up, and new mail comes with it.
fn relive(arguments: &Arguments, relay: &Relay) -> io::Result<Drained> {
    let mut sink = upstream(relay)?;
    let waited = wait_for(&mut sink, 1)?;
    // What comes before every worker knows of the upstream stands behind the queue.
    thread::sleep(Duration::from_secs(1));
    let drained = drain(relay, &mut sink, arguments.messages, arguments.fresh)?;
    println!(
        "upstream up: found after {:.1} s; {} messages in {:.1} s, {:.0} delivered/s (slowest second {:.0}), new mail \
         among them; {} MiB resident (highest {})",
        waited.as_secs_f64(),
        drained.delivered,
        drained.seconds,
        drained.delivered as f64 / drained.seconds,
        drained.slowest_second,
        relay.mebibytes(),
        mebibytes(relay.usage().peak_octets)
    );
    println!(
        "new mail meanwhile: {} messages, {}/s; taken: p50 {:.1} ms, p99 {:.1} ms; delivered within 10 s: {}; half \
         within {} ms, 99 % within {} ms; lost: {}",
        drained.fresh_sent,
        arguments.fresh,
        drained.fresh_p50_micros as f64 / 1000.0,
        drained.fresh_p99_micros as f64 / 1000.0,
        drained.fresh_soon,
        drained.fresh_half_within_ms,
        drained.fresh_most_within_ms,
        drained.lost
    );
    Ok(drained)
}

fn judge(drained: &Drained, plain: f64) -> Vec<String> {
    let mut missed = Vec::new();
    let rate = drained.delivered as f64 / drained.seconds;
    println!("drained at {:.0} % of the rate without a queue", 100.0 * rate / plain);
    if drained.lost > 0 {
        missed.push(format!("nothing lost: {} messages never came", drained.lost));
    }
    if drained.fresh_soon < drained.fresh_sent {
        missed.push("new mail delivered within 10 s".to_owned());
    }
    missed
}

fn upstream(relay: &Relay) -> io::Result<SinkProcess> {
    SinkProcess::start(&["--listen".to_owned(), relay.upstream.to_string()], None)
}

fn load(arguments: &Arguments, relay: &Relay, bound: &[&str]) -> io::Result<LoadReport> {
    let mut words = vec![relay.address.to_string(), "--size".to_owned(), arguments.size.0.to_string()];
    words.extend(["--sessions".to_owned(), arguments.sessions.to_string()]);
    words.extend(bound.iter().map(|&word| word.to_owned()));
    let load = run_load(&words, None)?;
    match load.failure {
        Some(failure) => Err(io::Error::other(failure)),
        None => Ok(load),
    }
}

fn mebibytes(octets: u64) -> u64 {
    octets.div_ceil(1 << 20)
}

/// Between two looks at something that tells no event.
const GLANCE: Duration = Duration::from_millis(20);
