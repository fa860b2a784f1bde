//! One load on one peer, and what it cost. The sink and the peer are fresh for each measurement, warmed by a short load.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::children::{IdleProcess, SinkProcess, run_load};
use crate::clock;
use crate::load::{LoadReport, Mode};
use crate::peer::{GLANCE, Holder, Peer, Place, Started};
use crate::process::{Usage, tree_usage};
use crate::sink::SinkReport;
use crate::size::Size;

/// The load before the one that counts.
const WARM_SECS: &str = "0.5";
/// How often memory is looked at; a look costs CPU that the measured would have had.
const MEMORY_LOOKS: Duration = Duration::from_millis(200);
/// A queue that delivers nothing for so long does not drain.
const STANDSTILL: Duration = Duration::from_secs(30);
/// One message in so many is checked by the sink during a measurement: a prime, so that no session is favoured.
const CHECK_EVERY: &str = "101";

/// How long a connection is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connections {
    /// For the whole load.
    Reused,
    /// For one message.
    PerMessage,
}

/// One load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Concurrent sessions.
    pub sessions: u32,
    /// Octets of a message.
    pub octets: usize,
    /// How commands are put into segments.
    pub mode: Mode,
    /// How long a connection is used.
    pub connections: Connections,
}

impl fmt::Display for Workload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = match self.connections {
            Connections::Reused => "reused connections",
            Connections::PerMessage => "a connection per message",
        };
        let size = Size(self.octets);
        write!(out, "{size}, {} sessions, {}, {connections}", self.sessions, self.mode)
    }
}

/// What all measurements of a run share.
#[derive(Debug, Clone)]
pub struct Bench {
    /// For how long messages are begun.
    pub seconds: f64,
    /// Or how many are sent.
    pub messages: Option<u64>,
    /// Threads or workers of each peer.
    pub threads: usize,
    /// CPUs of generator and sink.
    pub load_cpus: Option<String>,
    /// CPUs of the peer.
    pub peer_cpus: Option<String>,
    /// Flags handed to the sink.
    pub sink_flags: Vec<String>,
    /// Where the runs' folders are made; none: the system's place for temporary files.
    pub scratch: Option<PathBuf>,
    /// The relay's binary.
    pub ringpost: PathBuf,
    /// Set by a signal: nothing more is started.
    pub stop: Arc<AtomicBool>,
}

impl Bench {
    fn may_go_on(&self) -> Result<(), String> {
        if self.stop.load(Ordering::Relaxed) { Err("stopped by a signal".to_owned()) } else { Ok(()) }
    }
}

/// The figures of one measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figures {
    /// What the generator saw.
    pub load: LoadReport,
    /// Acknowledged to the generator, a second.
    pub accepted_per_second: f64,
    /// Arrived at the sink, a second, until the last was there.
    pub delivered_per_second: f64,
    /// CPU of the peer's processes for a delivered message, in microseconds.
    pub peer_cpu_micros: f64,
    /// CPU of generator and sink for a message, in microseconds.
    pub load_cpu_micros: f64,
    /// The highest sum of the peer's resident sizes seen, in octets.
    pub resident_octets: u64,
    /// The highest sum of anonymous memory seen, in octets.
    pub anonymous_octets: u64,
    /// The sum of each process's own highest, in octets.
    pub peak_octets: u64,
    /// Acknowledged messages that the sink never saw.
    pub lost: u64,
    /// Messages that the sink found changed, of those that it checked.
    pub damaged: u64,
    /// How many it checked.
    pub checked: u64,
}

/// The memory that idle sessions cost.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct IdleFigures {
    /// Sessions held open.
    pub sessions: usize,
    /// The peer's resident octets with them.
    pub resident_octets: u64,
    /// Anonymous ones of these.
    pub anonymous_octets: u64,
    /// Resident octets that were not there before, for a session.
    pub octets_per_session: u64,
}

/// Puts `workload` on `peer`.
///
/// # Errors
/// In words, why there is no figure.
pub fn measure(bench: &Bench, peer: &Peer, workload: Workload) -> Result<Figures, String> {
    bench.may_go_on()?;
    let dir = scratch(bench.scratch.as_deref()).map_err(|error| error.to_string())?;
    let mut sink = start_sink(bench).map_err(|error| error.to_string())?;
    let sessions = usize::try_from(workload.sessions).unwrap_or(usize::MAX);
    let place = place(bench, &sink, dir.path(), sessions);
    let started = peer.start(&place).map_err(|error| error.to_string())?;
    loaded(bench, &started, peer.holder(), &mut sink, workload).map_err(|error| error.to_string())
}

/// Warms `started`, loads it, waits for what it holds back.
fn loaded(
    bench: &Bench,
    started: &Started,
    holder: Holder,
    sink: &mut SinkProcess,
    workload: Workload,
) -> io::Result<Figures> {
    let fire = |bound: &[String]| {
        run_load(&load_arguments(started.address, workload, bound), bench.load_cpus.as_deref())
    };
    let warm = fire(&["--seconds".to_owned(), WARM_SECS.to_owned()])?;
    let before = drain(sink, warm.messages)?;
    let (mut watched, load) = watch(started.root(), || fire(&bound(bench)))?;
    let sent = clock::now();
    let after = drain(sink, before.messages + load.messages)?;
    let mut seconds = load.seconds;
    if holder == Holder::Queue {
        // What a queue still had to do counts, in time and in CPU.
        seconds += (clock::now() - sent).as_secs_f64();
        watched.see(usage(started.root()));
    }
    let delivered = after.messages - before.messages;
    Ok(Figures {
        accepted_per_second: per(load.messages, load.seconds),
        delivered_per_second: per(delivered, seconds),
        peer_cpu_micros: each(watched.cpu_micros, delivered),
        load_cpu_micros: each(load.cpu_micros + after.cpu_micros - before.cpu_micros, load.messages),
        resident_octets: watched.resident_octets,
        anonymous_octets: watched.anonymous_octets,
        peak_octets: watched.peak_octets,
        lost: load.messages.saturating_sub(delivered),
        damaged: after.damaged,
        checked: after.checked,
        load,
    })
}

/// Holds `sessions` idle sessions open at `peer`.
///
/// # Errors
/// In words, why there is no figure.
pub fn measure_idle(bench: &Bench, peer: &Peer, sessions: usize) -> Result<IdleFigures, String> {
    bench.may_go_on()?;
    let dir = scratch(bench.scratch.as_deref()).map_err(|error| error.to_string())?;
    let sink = start_sink(bench).map_err(|error| error.to_string())?;
    let started =
        peer.start(&place(bench, &sink, dir.path(), sessions)).map_err(|error| error.to_string())?;
    let root = started.root().ok_or("has no process of its own")?;
    let before = tree_usage(root);
    let held = IdleProcess::start(started.address, sessions, bench.load_cpus.as_deref())
        .map_err(|error| error.to_string())?;
    let with = tree_usage(root);
    drop(held);
    let more = with.resident_octets.saturating_sub(before.resident_octets);
    Ok(IdleFigures {
        sessions,
        resident_octets: with.resident_octets,
        anonymous_octets: with.anonymous_octets,
        octets_per_session: more / (sessions as u64).max(1),
    })
}

/// The cost between two moments, and the most memory seen.
#[derive(Debug, Clone, Copy)]
struct Watched {
    cpu_before: u64,
    cpu_micros: u64,
    resident_octets: u64,
    anonymous_octets: u64,
    peak_octets: u64,
}

impl Watched {
    fn see(&mut self, usage: Usage) {
        self.cpu_micros = usage.cpu_micros.saturating_sub(self.cpu_before);
        self.resident_octets = self.resident_octets.max(usage.resident_octets);
        self.anonymous_octets = self.anonymous_octets.max(usage.anonymous_octets);
        self.peak_octets = self.peak_octets.max(usage.peak_octets);
    }
}

/// The cost of a peer's processes so far; nothing where it has none.
fn usage(root: Option<u32>) -> Usage {
    root.map_or_else(Usage::default, tree_usage)
}

/// Does `work` while memory is looked at.
fn watch<T>(root: Option<u32>, work: impl FnOnce() -> io::Result<T>) -> io::Result<(Watched, T)> {
    let mut watched = Watched {
        cpu_before: usage(root).cpu_micros,
        cpu_micros: 0,
        resident_octets: 0,
        anonymous_octets: 0,
        peak_octets: 0,
    };
    let done = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                watched.see(usage(root));
                thread::park_timeout(MEMORY_LOOKS);
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
        result
    })?;
    watched.see(usage(root));
    Ok((watched, result))
}

/// Waits until the sink has `messages`, or nothing has come for too long.
fn drain(sink: &mut SinkProcess, messages: u64) -> io::Result<SinkReport> {
    let mut report = sink.report()?;
    let mut moved = clock::now();
    while report.messages < messages && clock::now() - moved < STANDSTILL {
        thread::sleep(GLANCE);
        let now = sink.report()?;
        if now.messages > report.messages {
            moved = clock::now();
        }
        report = now;
    }
    Ok(report)
}

fn start_sink(bench: &Bench) -> io::Result<SinkProcess> {
    let mut flags = vec!["--verify".to_owned(), CHECK_EVERY.to_owned()];
    flags.extend(bench.sink_flags.iter().cloned());
    SinkProcess::start(&flags, bench.load_cpus.as_deref())
}

fn place<'a>(bench: &'a Bench, sink: &SinkProcess, dir: &'a Path, sessions: usize) -> Place<'a> {
    Place {
        upstream: sink.address,
        dir,
        threads: bench.threads,
        sessions,
        ringpost: &bench.ringpost,
        cpus: bench.peer_cpus.as_deref(),
    }
}

fn load_arguments(target: std::net::SocketAddr, workload: Workload, bound: &[String]) -> Vec<String> {
    let per_connection = u32::from(workload.connections == Connections::PerMessage);
    let mut arguments = vec![target.to_string()];
    arguments.extend(["--sessions".to_owned(), workload.sessions.to_string()]);
    arguments.extend(["--size".to_owned(), workload.octets.to_string()]);
    arguments.extend(["--mode".to_owned(), workload.mode.to_string()]);
    arguments.extend(["--messages-per-connection".to_owned(), per_connection.to_string()]);
    arguments.extend_from_slice(bound);
    arguments
}

fn bound(bench: &Bench) -> [String; 2] {
    match bench.messages {
        Some(messages) => ["--messages".to_owned(), messages.to_string()],
        None => ["--seconds".to_owned(), bench.seconds.to_string()],
    }
}

/// A folder for one measurement, which peers that change their user may enter.
fn scratch(parent: Option<&Path>) -> io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("bench-");
    let dir = parent.map_or_else(|| builder.tempdir(), |parent| builder.tempdir_in(parent))?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

fn per(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn each(micros: u64, count: u64) -> f64 {
    if count > 0 { micros as f64 / count as f64 } else { 0.0 }
}
