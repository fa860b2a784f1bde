//! Writes the numbers as Prometheus text (exposition format 0.0.4).
//!
//! The table of metrics says what to write ([`super::catalogue`]); this file knows how: HELP and TYPE lines,
//! label escaping, cumulative buckets. Must not know any metric by name.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::catalogue::METRICS;
use super::labels::{PerGateVerdict, PerReloadOutcome};
use super::{Distribution, Meter};

/// Everything that `/metrics` shows, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// The numbers of all workers, merged.
    pub meter: &'a Meter,
    /// The numbers of the process as a whole.
    pub process: &'a Process<'a>,
}

/// Numbers that belong to no worker.
#[derive(Debug, Clone, Default)]
pub struct Process<'a> {
    /// The release.
    pub version: &'a str,
    /// The source that it was built from.
    pub commit: &'a str,
    /// Time since the process started.
    pub uptime: Duration,
    /// Resident memory in octets; 0 where the kernel does not tell.
    pub resident_octets: u64,
    /// Data-plane threads.
    pub workers: u64,
    /// Data-plane threads that did not answer in time.
    pub workers_stuck: u64,
    /// Reloads by outcome.
    pub reloads: PerReloadOutcome,
    /// Log lines that were dropped.
    pub log_lines_dropped: u64,
    /// When the certificate that clients see ends, in seconds since the Unix epoch.
    pub certificate_not_after: Option<u64>,
    /// The interfaces that the gate is or was attached to.
    pub gate: &'a [GateInterface],
    /// Sources banned now.
    pub gate_bans: u64,
}

/// The gate on one interface.
#[derive(Debug, Clone, Default)]
pub struct GateInterface {
    /// The name of the interface.
    pub interface: String,
    /// `native`, `generic` or `offload`; empty while it is not attached.
    pub mode: String,
    /// Packets by verdict.
    pub packets: PerGateVerdict,
}

/// The text of `/metrics`.
#[must_use]
pub fn expose(snapshot: &Snapshot<'_>) -> String {
    let mut text = String::with_capacity(TEXT_OCTETS_USUAL);
    for metric in METRICS {
        let _ = writeln!(text, "# HELP {} {}", metric.name, metric.help);
        let _ = writeln!(text, "# TYPE {} {}", metric.name, metric.kind.text());
        (metric.samples)(snapshot, &mut Samples { text: &mut text, name: metric.name });
    }
    text
}

/// Writes the samples of one metric.
pub(super) struct Samples<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Samples<'_> {
    /// One sample with a whole number.
    pub(super) fn number(&mut self, labels: &[(&str, &str)], value: u64) {
        self.line("", labels, value);
    }

    /// One sample with a fraction.
    pub(super) fn float(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, value);
    }

    /// A histogram of microseconds, shown in seconds; the bounds are microseconds.
    pub(super) fn seconds(&mut self, values: &Distribution, bounds: &[u64]) {
        self.histogram(values, bounds, |micros| Duration::from_micros(micros).as_secs_f64());
    }

    /// A histogram of plain numbers.
    #[allow(clippy::cast_precision_loss, reason = "exact below 2^53")]
    pub(super) fn numbers(&mut self, values: &Distribution, bounds: &[u64]) {
        self.histogram(values, bounds, |value| value as f64);
    }

    fn histogram(&mut self, values: &Distribution, bounds: &[u64], shown: fn(u64) -> f64) {
        for (&bound, count) in bounds.iter().zip(values.cumulative(bounds)) {
            self.line("_bucket", &[("le", &shown(bound).to_string())], count);
        }
        self.line("_bucket", &[("le", "+Inf")], values.count());
        self.line("_sum", &[], shown(values.sum()));
        self.line("_count", &[], values.count());
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (place, (label, text)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(self.text, text);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// Appends a label value: backslash, double quote and line feed are escaped, as the format asks.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

/// Bounds of the histograms of time, in microseconds: 100 µs to an hour.
pub(super) const MICROS_BOUNDS: &[u64] = &[
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// Bounds of the histograms of messages a batch.
pub(super) const MESSAGES_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

const TEXT_OCTETS_USUAL: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::{Custody, GateVerdict, Health, IoDriver, Listener, ReloadOutcome, SessionOutcome};
    use crate::units::Moment;
    use std::collections::{BTreeMap, BTreeSet};

    /// A sample as a Prometheus server reads it: labels in order, escapes undone.
    type Series = (String, BTreeMap<String, String>);

    struct Scrape {
        types: BTreeMap<String, String>,
        samples: BTreeMap<Series, f64>,
    }

    /// Reads exposition text as strictly as Prometheus does, and panics at the first mistake.
    fn scrape(text: &str) -> Scrape {
        let mut scrape = Scrape { types: BTreeMap::new(), samples: BTreeMap::new() };
        let (mut helps, mut family) = (BTreeSet::new(), String::new());
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap().to_owned();
                assert!(helps.insert(family.clone()), "{family}: a second HELP");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, family, "TYPE follows its HELP");
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else {
                let (series, value) = sample(line);
                let kind = &scrape.types[&family];
                let base = if kind == "histogram" { strip_histogram(&series.0) } else { series.0.clone() };
                assert_eq!(base, family, "samples follow their TYPE");
                assert!(scrape.samples.insert(series, value).is_none(), "twice: {line}");
            }
        }
        scrape
    }

    fn strip_histogram(name: &str) -> String {
        let suffix = ["_bucket", "_sum", "_count"].into_iter().find(|suffix| name.ends_with(suffix)).unwrap();
        name.strip_suffix(suffix).unwrap().to_owned()
    }

    fn sample(line: &str) -> (Series, f64) {
        let name_octets = line.find(['{', ' ']).unwrap();
        let (name, mut rest) = line.split_at(name_octets);
        assert!(name.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'_'), "{name}");
        let mut labels = BTreeMap::new();
        while let Some(label) = rest.strip_prefix(['{', ',']) {
            let (label, value) = label.split_once("=\"").unwrap();
            let (value, after) = quoted(value);
            assert!(labels.insert(label.to_owned(), value).is_none());
            rest = after;
        }
        let value = rest.strip_prefix('}').unwrap_or(rest).strip_prefix(' ').unwrap();
        ((name.to_owned(), labels), value.parse().unwrap())
    }

    fn quoted(text: &str) -> (String, &str) {
        let (mut value, mut characters) = (String::new(), text.char_indices());
        while let Some((place, character)) = characters.next() {
            match character {
                '"' => return (value, &text[place + 1..]),
                '\\' => value.push(match characters.next().unwrap().1 {
                    'n' => '\n',
                    escaped @ ('\\' | '"') => escaped,
                    other => panic!("unknown escape {other}"),
                }),
                plain => value.push(plain),
            }
        }
        panic!("label value does not end: {text}")
    }

    fn series(name: &str, labels: &[(&str, &str)]) -> Series {
        (
            name.to_owned(),
            labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect(),
        )
    }

    fn idle() -> String {
        expose(&Snapshot { meter: &Meter::default(), process: &Process::default() })
    }

    #[test]
    fn every_promised_metric_is_there_while_idle() {
        let scrape = scrape(&idle());
        for (name, kind) in [
            ("ringpost_sessions_open", "gauge"),
            ("ringpost_sessions_total", "counter"),
            ("ringpost_messages_received_total", "counter"),
            ("ringpost_messages_relayed_total", "counter"),
            ("ringpost_recipients_total", "counter"),
            ("ringpost_message_octets_total", "counter"),
            ("ringpost_queue_messages", "gauge"),
            ("ringpost_queue_octets", "gauge"),
            ("ringpost_queue_oldest_seconds", "gauge"),
            ("ringpost_spool_sync_seconds", "histogram"),
            ("ringpost_spool_sync_batch_messages", "histogram"),
            ("ringpost_accept_seconds", "histogram"),
            ("ringpost_delivery_seconds", "histogram"),
            ("ringpost_upstream_connections", "gauge"),
            ("ringpost_upstream_up", "gauge"),
            ("ringpost_auth_total", "counter"),
            ("ringpost_tls_handshakes_total", "counter"),
            ("ringpost_gate_attached", "gauge"),
            ("ringpost_gate_packets_total", "counter"),
            ("ringpost_gate_bans", "gauge"),
            ("ringpost_config_reloads_total", "counter"),
            ("ringpost_build_info", "gauge"),
            ("ringpost_io_driver", "gauge"),
        ] {
            assert_eq!(scrape.types.get(name).map(String::as_str), Some(kind), "{name}");
        }
        for custody in ["upstream", "spool"] {
            assert_eq!(
                scrape.samples[&series("ringpost_messages_relayed_total", &[("custody", custody)])],
                0.0
            );
        }
        for state in ["active", "deferred", "hold"] {
            assert_eq!(scrape.samples[&series("ringpost_queue_messages", &[("state", state)])], 0.0);
        }
        assert!(!scrape.samples.keys().any(|(name, _)| name == "ringpost_gate_attached"));
    }

    #[test]
    fn numbers_stand_where_their_labels_say() {
        let mut meter = Meter::default();
        meter.sessions[Listener::Smtp][SessionOutcome::Abuse] += 4;
        meter.messages_relayed[Custody::Upstream] += 9;
        meter.io_driver[IoDriver::Epoll] += 2;
        let slot = meter.upstreams.slot("mail \"a\"\\\n:25");
        meter.upstreams[slot].busy += 1;
        meter.upstreams[slot].note(Health::Down, Moment(1));
        let mut gate =
            GateInterface { interface: "eth0".into(), mode: "native".into(), ..Default::default() };
        gate.packets[GateVerdict::DroppedBan] += 5;
        let gate = [gate];
        let mut process =
            Process { version: "1.2.3", commit: "abcdef", gate: &gate, gate_bans: 1, ..Default::default() };
        process.reloads[ReloadOutcome::Refused] += 1;
        let samples = scrape(&expose(&Snapshot { meter: &meter, process: &process })).samples;
        let upstream = ("upstream", "mail \"a\"\\\n:25");
        for (name, labels, value) in [
            ("ringpost_sessions_total", vec![("listener", "smtp"), ("outcome", "abuse")], 4.0),
            ("ringpost_messages_relayed_total", vec![("custody", "upstream")], 9.0),
            ("ringpost_io_driver", vec![("mode", "epoll")], 2.0),
            ("ringpost_upstream_connections", vec![upstream, ("state", "busy")], 1.0),
            ("ringpost_upstream_up", vec![upstream], 0.0),
            ("ringpost_gate_attached", vec![("interface", "eth0"), ("mode", "native")], 1.0),
            ("ringpost_gate_packets_total", vec![("interface", "eth0"), ("verdict", "dropped_ban")], 5.0),
            ("ringpost_gate_bans", vec![], 1.0),
            ("ringpost_config_reloads_total", vec![("outcome", "refused")], 1.0),
            ("ringpost_build_info", vec![("version", "1.2.3"), ("commit", "abcdef")], 1.0),
        ] {
            assert_eq!(samples[&series(name, &labels)], value, "{name}{labels:?}");
        }
    }

    #[test]
    fn histograms_are_cumulative_and_end_with_their_count() {
        let mut meter = Meter::default();
        for millis in [1, 3, 3, 40, 7_000_000] {
            meter.accept.record_duration(Duration::from_millis(millis));
        }
        let text = expose(&Snapshot { meter: &meter, process: &Process::default() });
        let buckets: Vec<(String, f64)> = text
            .lines()
            .filter(|line| line.starts_with("ringpost_accept_seconds_bucket"))
            .map(sample)
            .map(|((_, labels), count)| (labels["le"].clone(), count))
            .collect();
        assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1));
        let bounds: Vec<f64> = buckets.iter().map(|(bound, _)| bound.parse().unwrap()).collect();
        assert!(bounds.is_sorted_by(|a, b| a < b));
        assert_eq!(buckets.last(), Some(&("+Inf".to_owned(), 5.0)));
        let at = |bound: &str| buckets.iter().find(|(le, _)| le == bound).unwrap().1;
        assert_eq!((at("0.001"), at("0.005"), at("0.05"), at("3600")), (1.0, 3.0, 4.0, 4.0 + 1.0));
        assert!(text.contains("\nringpost_accept_seconds_sum 7000.047\n"));
        assert!(text.contains("\nringpost_accept_seconds_count 5\n"));
    }
}
