//! `ringpost-bench`: the conductor. Puts the same loads on the relay and on its peers in turn, round after round, and prints
//! what each cost. `cargo xtask bench` builds what it needs and starts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Parser;
use ringpost_benches::host::Host;
use ringpost_benches::load::Mode;
use ringpost_benches::measure::{Bench, Connections, Workload, measure, measure_idle};
use ringpost_benches::peer::{Holder, Peer};
use ringpost_benches::report::{IdleRow, Report, Row};
use ringpost_benches::size::Size;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Open files that thousands of sessions take, in a proxy twice.
const OPEN_FILES: &str = "131072";
/// The message of `--busy`.
const BUSY_OCTETS: usize = 1024;

/// Compare the relay with its peers under the same load, in the same run.
#[derive(Parser)]
#[command(name = "cargo xtask bench relay", version)]
struct Arguments {
    /// Concurrent sessions.
    #[arg(long, value_delimiter = ',', default_value = "20")]
    sessions: Vec<u32>,
    /// Octets of a message, such as 1K,100K,1M.
    #[arg(long, value_delimiter = ',', default_value = "1K,1M")]
    size: Vec<Size>,
    /// How commands are put into segments.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "lockstep")]
    mode: Vec<Mode>,
    /// How long a connection is used.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "reused,per-message")]
    connections: Vec<Connections>,
    /// Whom to compare: direct, ringpost[:PATIENCE], haproxy[:BUFFER], postfix.
    #[arg(long, value_delimiter = ',', default_value = "direct,ringpost,haproxy,haproxy:64K")]
    peers: Vec<Peer>,
    /// Rounds; each peer has its turn in each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// For how long messages are begun.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Send so many messages instead.
    #[arg(long)]
    messages: Option<u64>,
    /// Also: memory with so many idle sessions.
    #[arg(long)]
    idle: Option<usize>,
    /// Also: so many busy sessions of 1 KiB, for their memory.
    #[arg(long)]
    busy: Option<u32>,
    /// Threads or workers of each peer; by default one for each CPU that it may use.
    #[arg(long)]
    threads: Option<usize>,
    /// Generator and sink on CPU 0, the peer on all others.
    #[arg(long)]
    pin: bool,
    /// The sink holds each verdict back for so many milliseconds.
    #[arg(long)]
    sink_delay: Option<u64>,
    /// The sink does not offer CHUNKING.
    #[arg(long)]
    sink_no_chunking: bool,
    /// Where the peers' folders are made, to choose the file system.
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Write the result into benches/results.
    #[arg(long)]
    record: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let bench = bench(arguments)?;
    // What has been started is stopped by whoever holds it, so a signal only asks to measure no more.
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, Arc::clone(&bench.stop)).map_err(|error| error.to_string())?;
    }
    allow_open_files();
    let scratch = bench.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let report = Report {
        host: Host::look(&scratch),
        settings: settings(arguments, &bench),
        rows: loads(arguments, &bench),
        idle: idle(arguments, &bench),
    };
    if bench.stop.load(Ordering::Relaxed) {
        return Err("stopped by a signal: no report".to_owned());
    }
    let text = report.markdown();
    println!("{text}");
    if arguments.record { record(&report, &text) } else { Ok(()) }
}

fn bench(arguments: &Arguments) -> Result<Bench, String> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if arguments.pin && processors < 2 {
        return Err("--pin takes two CPUs".to_owned());
    }
    let ringpost = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("ringpost");
    let delay = arguments.sink_delay.map(|millis| ["--delay".to_owned(), millis.to_string()]);
    let mut sink_flags: Vec<String> = delay.into_iter().flatten().collect();
    sink_flags.extend(arguments.sink_no_chunking.then(|| "--no-chunking".to_owned()));
    Ok(Bench {
        seconds: arguments.seconds,
        messages: arguments.messages,
        threads: arguments.threads.unwrap_or(processors - usize::from(arguments.pin)),
        load_cpus: arguments.pin.then(|| "0".to_owned()),
        peer_cpus: arguments.pin.then(|| format!("1-{}", processors - 1)),
        sink_flags,
        scratch: arguments.scratch.clone(),
        ringpost,
        stop: Arc::default(),
    })
}

/// Every load on every peer, round after round; who begins changes with the round.
fn loads(arguments: &Arguments, bench: &Bench) -> Vec<Row> {
    let mut rows: Vec<Row> = workloads(arguments)
        .into_iter()
        .flat_map(|workload| {
            arguments.peers.iter().map(move |peer| Row { peer: peer.clone(), workload, rounds: Vec::new() })
        })
        .collect();
    for round in 0..arguments.rounds {
        for group in rows.chunk_by_mut(|one, two| one.workload == two.workload) {
            for turn in 0..group.len() {
                let row = &mut group[(turn + round) % arguments.peers.len()];
                eprintln!("round {}: {}, {}", round + 1, row.peer, row.workload);
                row.rounds.push(measure(bench, &row.peer, row.workload));
            }
        }
    }
    rows
}

fn workloads(arguments: &Arguments) -> Vec<Workload> {
    let mut all = Vec::new();
    for &Size(octets) in &arguments.size {
        for &sessions in &arguments.sessions {
            for &mode in &arguments.mode {
                let with = |&connections| Workload { sessions, octets, mode, connections };
                all.extend(arguments.connections.iter().map(with));
            }
        }
    }
    let busy = |sessions| Workload {
        sessions,
        octets: BUSY_OCTETS,
        mode: Mode::Lockstep,
        connections: Connections::Reused,
    };
    all.extend(arguments.busy.map(busy).filter(|workload| !all.contains(workload)));
    all
}

/// Idle sessions on each peer that has a process; on none that has a process for each session.
fn idle(arguments: &Arguments, bench: &Bench) -> Vec<IdleRow> {
    let Some(sessions) = arguments.idle else { return Vec::new() };
    let peers = arguments.peers.iter().filter(|peer| !matches!(peer, Peer::Direct | Peer::Postfix));
    peers
        .map(|peer| {
            eprintln!("idle: {peer}, {sessions} sessions");
            IdleRow { peer: peer.clone(), figures: measure_idle(bench, peer, sessions) }
        })
        .collect()
}

fn settings(arguments: &Arguments, bench: &Bench) -> String {
    let bound = match bench.messages {
        Some(messages) => format!("{messages} messages"),
        None => format!("{} s", bench.seconds),
    };
    let placement =
        if arguments.pin { "generator and sink on CPU 0, peers on the others" } else { "no pinning" };
    let sink = if bench.sink_flags.is_empty() {
        String::new()
    } else {
        format!("; sink {}", bench.sink_flags.join(" "))
    };
    let queued = arguments.peers.iter().any(|peer| peer.holder() == Holder::Queue);
    let note =
        if queued { "; messages/s of a queue are delivered ones, until the last has arrived" } else { "" };
    format!(
        "{} rounds of {bound} in turn, medians; {} threads a peer; {placement}{sink}{note}",
        arguments.rounds, bench.threads
    )
}

/// Raises the bound on open files for us and all that we start: as far as asked, else as far as we may.
fn allow_open_files() {
    let pid = std::process::id().to_string();
    let raise = |most: &str| {
        let limit = format!("--nofile={most}:{most}");
        let done = Command::new("prlimit").args(["--pid", &pid, &limit]).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success())
    };
    if !raise(OPEN_FILES) && !raise(&hard_open_files()) {
        eprintln!("the bound on open files stays as it is: thousands of sessions may not fit");
    }
}

/// The bound that we may raise ours to.
fn hard_open_files() -> String {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|values| values.split_ascii_whitespace().nth(1)).unwrap_or_default().to_owned()
}

/// Writes the table and all figures, named after the commit.
fn record(report: &Report, text: &str) -> Result<(), String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let json = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    let name = format!("relay-{}", report.host.commit);
    fs::create_dir_all(&dir)
        .and_then(|()| fs::write(dir.join(format!("{name}.md")), text))
        .and_then(|()| fs::write(dir.join(format!("{name}.json")), json + "\n"))
        .map_err(|error| error.to_string())
}
