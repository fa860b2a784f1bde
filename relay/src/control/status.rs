//! What `/status` and `ringpost status` tell: one value, made from the census, serialized as JSON.
//!
//! Field names are promises to scripts: they are added to, never renamed. Holds no address of a client, no
//! address of a mail, no secret.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::census::{Census, Rates};
use super::plane::{Phase, Plane, resident_octets};
use crate::meter::labels::Per;
use crate::meter::{Distribution, Health, IoDriver, Label, Listener, QueueState};
use crate::units::lasting;

/// The state of the relay at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `serving`, `draining` or `stopped`.
    pub state: String,
    /// The release.
    pub version: String,
    /// The source that it was built from.
    pub commit: String,
    /// The process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Resident octets.
    pub memory_octets: u64,
    /// What it listens on, with the ports really bound.
    pub listeners: Vec<ListenerStatus>,
    /// Admin addresses, with the ports really bound.
    pub admin: Vec<String>,
    /// Data-plane threads.
    pub workers: WorkersStatus,
    /// Inbound connections.
    pub sessions: SessionsStatus,
    /// Since the start.
    pub messages: MessagesStatus,
    /// Recipients by outcome, since the start.
    pub recipients: BTreeMap<String, u64>,
    /// On average over the last minute, per second.
    pub rates: Rates,
    /// Milliseconds from the end of data to the reply.
    pub accept_milliseconds: Latency,
    /// Milliseconds from the end of data to the upstream's 250.
    pub delivery_milliseconds: Latency,
    /// The queue.
    pub queue: QueueStatus,
    /// Where mail goes.
    pub upstreams: Vec<UpstreamStatus>,
    /// The XDP gate: where it stands and how, or `none: why`; null where it is off.
    pub gate: Option<String>,
}

/// A listener of the workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// `smtp`, `submission` or `submissions`.
    pub listener: String,
    /// Its address and port.
    pub address: String,
}

/// The data-plane threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkersStatus {
    /// How many.
    pub count: usize,
    /// How many did not answer in time.
    pub stuck: usize,
    /// How many run on which I/O driver.
    pub io_driver: BTreeMap<String, u64>,
}

/// Inbound connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsStatus {
    /// Open now.
    pub open: u64,
    /// Open now, by listener.
    pub open_by_listener: BTreeMap<String, u64>,
    /// Ended since the start, by how.
    pub ended: BTreeMap<String, u64>,
}

/// Messages since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessagesStatus {
    /// Whose end of data was reached.
    pub received: u64,
    /// Answered with 250, by who held them.
    pub relayed: BTreeMap<String, u64>,
    /// Octets of content, by direction.
    pub octets: BTreeMap<String, u64>,
}

/// The queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Messages in it.
    pub messages: u64,
    /// Messages by state.
    pub by_state: BTreeMap<String, u64>,
    /// Their octets.
    pub octets: u64,
    /// Age of the oldest.
    pub oldest_seconds: u64,
}

/// An upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// As the configuration calls it.
    pub upstream: String,
    /// Whether the last attempt reached it; null before the first.
    pub up: Option<bool>,
    /// Open connections that wait.
    pub idle: u64,
    /// Open connections that carry mail or connect.
    pub busy: u64,
}

/// Quantiles of a latency in milliseconds; all 0 before the first value.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the values do not exceed it.
    pub p50: f64,
    /// 99 of 100 do not exceed it.
    pub p99: f64,
    /// 999 of 1000 do not exceed it.
    pub p999: f64,
}

impl Plane {
    /// The state now.
    pub(super) async fn status(&self) -> Status {
        let census = self.census().await;
        let meter = &census.meter;
        let state = match *self.phase.borrow() {
            Phase::Serving => "serving",
            Phase::Draining => "draining",
            Phase::Drained(_) => "stopped",
        };
        Status {
            state: state.to_owned(),
            version: self.facts.version.to_owned(),
            commit: self.facts.commit.to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.uptime().as_secs(),
            memory_octets: resident_octets(),
            listeners: self.listeners(),
            admin: self.facts.config.listen_admin.iter().map(ToString::to_string).collect(),
            workers: workers(&census),
            sessions: sessions(&census),
            messages: MessagesStatus {
                received: meter.messages_received.total(),
                relayed: by_label(&meter.messages_relayed),
                octets: by_label(&meter.message_octets),
            },
            recipients: by_label(&meter.recipients),
            rates: census.rates,
            accept_milliseconds: Latency::of(&meter.accept),
            delivery_milliseconds: Latency::of(&meter.delivery),
            queue: QueueStatus {
                messages: meter.queue_messages.total(),
                by_state: by_label::<QueueState, 3>(&meter.queue_messages),
                octets: meter.queue_octets,
                oldest_seconds: meter.queue_oldest_seconds,
            },
            upstreams: upstreams(&census),
            gate: self.gate_words().await,
        }
    }

    fn listeners(&self) -> Vec<ListenerStatus> {
        let status = |bound: &super::Bound| ListenerStatus {
            listener: bound.listener.text().to_owned(),
            address: bound.address.to_string(),
        };
        self.facts.listeners.iter().map(status).collect()
    }
}

impl Latency {
    #[allow(clippy::cast_precision_loss, reason = "microseconds up to an hour")]
    fn of(values: &Distribution) -> Self {
        let millis = |share| values.quantile(share) as f64 / 1000.0;
        Self { p50: millis(0.5), p99: millis(0.99), p999: millis(0.999) }
    }
}

impl Status {
    /// The status for a person at a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let stuck =
            if self.workers.stuck > 0 { format!(", {} STUCK", self.workers.stuck) } else { String::new() };
        let drivers: Vec<&str> = self.workers.io_driver.keys().map(String::as_str).collect();
        let _ = writeln!(text, "ringpost {} ({}), pid {}", self.version, self.commit, self.pid);
        let _ = writeln!(
            text,
            "state      {}, up {}",
            self.state,
            lasting(Duration::from_secs(self.uptime_seconds))
        );
        let _ = writeln!(text, "workers    {}{stuck} on {}", self.workers.count, drivers.join(", "));
        for listener in &self.listeners {
            let _ = writeln!(text, "listening  {} {}", listener.address, listener.listener);
        }
        for address in &self.admin {
            let _ = writeln!(text, "listening  {address} admin");
        }
        let _ = writeln!(text, "sessions   {} open", self.sessions.open);
        let relayed: u64 = self.messages.relayed.values().sum();
        let _ = writeln!(text, "messages   {} received, {relayed} relayed", self.messages.received);
        let _ = writeln!(
            text,
            "rates      {:.1} messages/s in, {:.1} relayed, {:.0} octets/s in, {:.0} out",
            self.rates.messages_received,
            self.rates.messages_relayed,
            self.rates.octets_in,
            self.rates.octets_out
        );
        let _ = writeln!(
            text,
            "accept     p50 {:.2} ms, p99 {:.2} ms",
            self.accept_milliseconds.p50, self.accept_milliseconds.p99
        );
        let _ = writeln!(text, "queue      {} messages, {} octets", self.queue.messages, self.queue.octets);
        for upstream in &self.upstreams {
            let up = match upstream.up {
                Some(true) => "up",
                Some(false) => "DOWN",
                None => "not tried yet",
            };
            let (idle, busy) = (upstream.idle, upstream.busy);
            let _ = writeln!(text, "upstream   {}: {up}, {idle} idle, {busy} busy", upstream.upstream);
        }
        let _ = writeln!(text, "gate       {}", self.gate.as_deref().unwrap_or("none"));
        let _ = writeln!(text, "memory     {:.1} MiB", self.memory_octets as f64 / f64::from(1 << 20));
        text
    }
}

fn workers(census: &Census) -> WorkersStatus {
    let mut io_driver = by_label::<IoDriver, 4>(&census.meter.io_driver);
    io_driver.retain(|_, workers| *workers > 0);
    WorkersStatus { count: census.workers, stuck: census.workers_stuck, io_driver }
}

fn sessions(census: &Census) -> SessionsStatus {
    let mut ended = BTreeMap::new();
    for (_, outcomes) in census.meter.sessions.iter() {
        for (outcome, count) in outcomes.iter() {
            *ended.entry(outcome.text().to_owned()).or_insert(0) += count;
        }
    }
    SessionsStatus {
        open: census.meter.sessions_open.total(),
        open_by_listener: by_label::<Listener, 3>(&census.meter.sessions_open),
        ended,
    }
}

fn upstreams(census: &Census) -> Vec<UpstreamStatus> {
    let status = |upstream: &crate::meter::Upstream| UpstreamStatus {
        upstream: upstream.name().to_owned(),
        up: match upstream.health() {
            Health::Unknown => None,
            Health::Down => Some(false),
            Health::Up => Some(true),
        },
        idle: upstream.idle,
        busy: upstream.busy,
    };
    census.meter.upstreams.listed().map(status).collect()
}

fn by_label<L: Label, const N: usize>(values: &Per<L, u64, N>) -> BTreeMap<String, u64> {
    values.iter().map(|(label, &value)| (label.text().to_owned(), value)).collect()
}
