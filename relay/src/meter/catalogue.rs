//! Every metric once: name, kind, help, labels and the function that writes its samples.
//!
//! The names are promises (the interface's list); those that it does not name are ours and stand at the end.
//! Must not: leave a metric out because its feature is switched off. A gauge of an absent feature is 0, a
//! family of an absent object (an interface without a gate) has no samples.

use std::fmt::Write as _;

use super::Health;
use super::exposition::{MESSAGES_BOUNDS, MICROS_BOUNDS, Samples, Snapshot};
use super::labels::{Label, Per};

/// What kind of numbers a metric is, in Prometheus' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by bound, a sum and a count.
    Histogram,
}

impl Kind {
    /// The word of the TYPE line.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric of the table.
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// One line of help, no full stop.
    pub help: &'static str,
    /// Its labels and their values, as the reference tells them.
    pub labels: &'static [(&'static str, Values)],
    /// Writes its samples.
    pub(super) samples: fn(&Snapshot<'_>, &mut Samples<'_>),
}

/// The values of a label.
pub enum Values {
    /// These and no others.
    Closed(fn() -> Vec<&'static str>),
    /// What the configuration or the host names, told in words.
    Named(&'static str),
}

impl Values {
    /// The values in words.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Closed(values) => {
                values().iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" ")
            }
            Self::Named(words) => (*words).to_owned(),
        }
    }
}

/// `docs/METRICS.md`.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(REFERENCE_HEAD);
    for metric in METRICS {
        let _ = write!(text, "| `{}` | {} |", metric.name, metric.kind.text());
        let labels: Vec<String> =
            metric.labels.iter().map(|(name, values)| format!("`{name}`: {}", values.text())).collect();
        let _ = writeln!(text, " {} | {} |", labels.join("; "), metric.help);
    }
    text
}

/// The texts of a closed label.
fn all<L: Label>() -> Vec<&'static str> {
    L::ALL.iter().map(|value| value.text()).collect()
}

/// One sample for each value of one label.
fn each<L: Label, const N: usize>(samples: &mut Samples<'_>, label: &str, values: &Per<L, u64, N>) {
    for (value, &number) in values.iter() {
        samples.number(&[(label, value.text())], number);
    }
}

const UPSTREAM: Values = Values::Named("as configured; `mx` for recipients' exchangers, `other` past 64");
const INTERFACE: Values = Values::Named("a network interface");

const REFERENCE_HEAD: &str = "\
# Metrics

<!-- Written by `cargo xtask docs` from relay/src/meter/catalogue.rs. Change it there. -->

Served as Prometheus text at `/metrics` of `LISTEN_ADMIN`. Every metric is always there; a feature that is switched
off shows 0, and a family of objects that do not exist (no gate on any interface) has no samples. Counters start
from 0 with the process. Histograms come from HDR histograms of two significant digits: a bound is right within 1 %,
a sum is exact.

| metric | kind | labels | meaning |
| --- | --- | --- | --- |
";

/// Every metric, in the order of `/metrics`.
pub static METRICS: &[Metric] = &[
    Metric {
        name: "ringpost_sessions_open",
        kind: Kind::Gauge,
        help: "Sessions of clients open now",
        labels: &[("listener", Values::Closed(all::<super::Listener>))],
        samples: |s, out| each(out, "listener", &s.meter.sessions_open),
    },
    Metric {
        name: "ringpost_sessions_total",
        kind: Kind::Counter,
        help: "Sessions of clients that have ended, refused connections among them",
        labels: &[
            ("listener", Values::Closed(all::<super::Listener>)),
            ("outcome", Values::Closed(all::<super::SessionOutcome>)),
        ],
        samples: |s, out| {
            for (listener, outcomes) in s.meter.sessions.iter() {
                for (outcome, &count) in outcomes.iter() {
                    out.number(&[("listener", listener.text()), ("outcome", outcome.text())], count);
                }
            }
        },
    },
    Metric {
        name: "ringpost_messages_received_total",
        kind: Kind::Counter,
        help: "Messages whose end of data was reached, whatever became of them",
        labels: &[("listener", Values::Closed(all::<super::Listener>))],
        samples: |s, out| each(out, "listener", &s.meter.messages_received),
    },
    Metric {
        name: "ringpost_messages_relayed_total",
        kind: Kind::Counter,
        help: "Messages answered with 250, by who held them at that moment",
        labels: &[("custody", Values::Closed(all::<super::Custody>))],
        samples: |s, out| each(out, "custody", &s.meter.messages_relayed),
    },
    Metric {
        name: "ringpost_recipients_total",
        kind: Kind::Counter,
        help: "Recipients by what became of them; a deferral counts each time",
        labels: &[("outcome", Values::Closed(all::<super::RecipientOutcome>))],
        samples: |s, out| each(out, "outcome", &s.meter.recipients),
    },
    Metric {
        name: "ringpost_message_octets_total",
        kind: Kind::Counter,
        help: "Octets of message content, from clients (in) and to upstreams (out)",
        labels: &[("direction", Values::Closed(all::<super::Direction>))],
        samples: |s, out| each(out, "direction", &s.meter.message_octets),
    },
    Metric {
        name: "ringpost_queue_messages",
        kind: Kind::Gauge,
        help: "Messages in the queue",
        labels: &[("state", Values::Closed(all::<super::QueueState>))],
        samples: |s, out| each(out, "state", &s.meter.queue_messages),
    },
    Metric {
        name: "ringpost_queue_octets",
        kind: Kind::Gauge,
        help: "Octets of the messages in the queue",
        labels: &[],
        samples: |s, out| out.number(&[], s.meter.queue_octets),
    },
    Metric {
        name: "ringpost_queue_oldest_seconds",
        kind: Kind::Gauge,
        help: "Age of the oldest message in the queue, 0 for an empty one",
        labels: &[],
        samples: |s, out| out.number(&[], s.meter.queue_oldest_seconds),
    },
    Metric {
        name: "ringpost_spool_sync_seconds",
        kind: Kind::Histogram,
        help: "Time of one sync of the spool",
        labels: &[],
        samples: |s, out| out.seconds(&s.meter.spool_sync, MICROS_BOUNDS),
    },
    Metric {
        name: "ringpost_spool_sync_batch_messages",
        kind: Kind::Histogram,
        help: "Messages made durable by one sync of the spool",
        labels: &[],
        samples: |s, out| out.numbers(&s.meter.spool_sync_batch, MESSAGES_BOUNDS),
    },
    Metric {
        name: "ringpost_outcomes_unknown_total",
        kind: Kind::Counter,
        help: "Messages whose upstream broke between the final dot and its verdict; they may come twice",
        labels: &[],
        samples: |s, out| out.number(&[], s.meter.outcomes_unknown),
    },
    Metric {
        name: "ringpost_spools_broken",
        kind: Kind::Gauge,
        help: "Data-plane threads whose part of the spool cannot be written",
        labels: &[],
        samples: |s, out| out.number(&[], s.meter.spools_broken),
    },
    Metric {
        name: "ringpost_spools_full",
        kind: Kind::Gauge,
        help: "Data-plane threads that take no mail for later, for want of room",
        labels: &[],
        samples: |s, out| out.number(&[], s.meter.spools_full),
    },
    Metric {
        name: "ringpost_accept_seconds",
        kind: Kind::Histogram,
        help: "Time from the end of data to the reply",
        labels: &[],
        samples: |s, out| out.seconds(&s.meter.accept, MICROS_BOUNDS),
    },
    Metric {
        name: "ringpost_delivery_seconds",
        kind: Kind::Histogram,
        help: "Time from the end of data to the upstream's 250, at most an hour",
        labels: &[],
        samples: |s, out| out.seconds(&s.meter.delivery, MICROS_BOUNDS),
    },
    Metric {
        name: "ringpost_upstream_connections",
        kind: Kind::Gauge,
        help: "Open connections to an upstream: idle ones wait in the pool, busy ones carry mail or connect",
        labels: &[("upstream", UPSTREAM), ("state", Values::Closed(|| vec!["idle", "busy"]))],
        samples: |s, out| {
            for upstream in s.meter.upstreams.listed() {
                out.number(&[("upstream", upstream.name()), ("state", "idle")], upstream.idle);
                out.number(&[("upstream", upstream.name()), ("state", "busy")], upstream.busy);
            }
        },
    },
    Metric {
        name: "ringpost_upstream_up",
        kind: Kind::Gauge,
        help: "0 when the last attempt at the upstream failed, else 1, also before the first attempt",
        labels: &[("upstream", UPSTREAM)],
        samples: |s, out| {
            for upstream in s.meter.upstreams.listed() {
                out.number(&[("upstream", upstream.name())], u64::from(upstream.health() != Health::Down));
            }
        },
    },
    Metric {
        name: "ringpost_auth_total",
        kind: Kind::Counter,
        help: "Logins tried by clients",
        labels: &[("outcome", Values::Closed(all::<super::AuthOutcome>))],
        samples: |s, out| each(out, "outcome", &s.meter.auth),
    },
    Metric {
        name: "ringpost_certificate_not_after_seconds",
        kind: Kind::Gauge,
        help: "When the certificate shown to clients ends, as Unix time; absent where there is none",
        labels: &[],
        samples: |s, out| {
            if let Some(seconds) = s.process.certificate_not_after {
                out.number(&[], seconds);
            }
        },
    },
    Metric {
        name: "ringpost_tls_handshakes_total",
        kind: Kind::Counter,
        help: "TLS handshakes with clients (inbound) and upstreams (outbound)",
        labels: &[
            ("side", Values::Closed(all::<super::TlsSide>)),
            ("version", Values::Closed(all::<super::TlsVersion>)),
            ("outcome", Values::Closed(all::<super::HandshakeOutcome>)),
        ],
        samples: |s, out| {
            for (side, versions) in s.meter.tls_handshakes.iter() {
                for (version, outcomes) in versions.iter() {
                    for (outcome, &count) in outcomes.iter() {
                        let labels =
                            [("side", side.text()), ("version", version.text()), ("outcome", outcome.text())];
                        out.number(&labels, count);
                    }
                }
            }
        },
    },
    Metric {
        name: "ringpost_gate_attached",
        kind: Kind::Gauge,
        help: "1 for each interface that the gate is attached to, with the mode",
        labels: &[("interface", INTERFACE), ("mode", Values::Named("`native` `generic` `offload`"))],
        samples: |s, out| {
            for gate in s.process.gate.iter().filter(|gate| !gate.mode.is_empty()) {
                out.number(&[("interface", &gate.interface), ("mode", &gate.mode)], 1);
            }
        },
    },
    Metric {
        name: "ringpost_gate_packets_total",
        kind: Kind::Counter,
        help: "Packets judged by the gate",
        labels: &[("interface", INTERFACE), ("verdict", Values::Closed(all::<super::GateVerdict>))],
        samples: |s, out| {
            for gate in s.process.gate {
                for (verdict, &count) in gate.packets.iter() {
                    out.number(&[("interface", &gate.interface), ("verdict", verdict.text())], count);
                }
            }
        },
    },
    Metric {
        name: "ringpost_gate_bans",
        kind: Kind::Gauge,
        help: "Sources banned now",
        labels: &[],
        samples: |s, out| out.number(&[], s.process.gate_bans),
    },
    Metric {
        name: "ringpost_config_reloads_total",
        kind: Kind::Counter,
        help: "Reloads of the configuration",
        labels: &[("outcome", Values::Closed(all::<super::ReloadOutcome>))],
        samples: |s, out| each(out, "outcome", &s.process.reloads),
    },
    Metric {
        name: "ringpost_build_info",
        kind: Kind::Gauge,
        help: "Always 1; the labels tell which build this is",
        labels: &[
            ("version", Values::Named("the release")),
            ("commit", Values::Named("the source it was built from")),
        ],
        samples: |s, out| {
            out.number(&[("version", s.process.version), ("commit", s.process.commit)], 1);
        },
    },
    Metric {
        name: "ringpost_io_driver",
        kind: Kind::Gauge,
        help: "Workers by the I/O driver they run on",
        labels: &[("mode", Values::Closed(all::<super::IoDriver>))],
        samples: |s, out| each(out, "mode", &s.meter.io_driver),
    },
    Metric {
        name: "ringpost_workers",
        kind: Kind::Gauge,
        help: "Data-plane threads",
        labels: &[],
        samples: |s, out| out.number(&[], s.process.workers),
    },
    Metric {
        name: "ringpost_workers_stuck",
        kind: Kind::Gauge,
        help: "Data-plane threads that did not answer in time; their numbers are the last ones known",
        labels: &[],
        samples: |s, out| out.number(&[], s.process.workers_stuck),
    },
    Metric {
        name: "ringpost_log_lines_dropped_total",
        kind: Kind::Counter,
        help: "Log lines dropped because the log's target did not keep up",
        labels: &[],
        samples: |s, out| out.number(&[], s.process.log_lines_dropped),
    },
    Metric {
        name: "ringpost_uptime_seconds",
        kind: Kind::Gauge,
        help: "Seconds since the process started",
        labels: &[],
        samples: |s, out| out.float(&[], s.process.uptime.as_secs_f64()),
    },
    Metric {
        name: "process_resident_memory_bytes",
        kind: Kind::Gauge,
        help: "Resident memory of the process in bytes",
        labels: &[],
        samples: |s, out| out.number(&[], s.process.resident_octets),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_say_their_kind() {
        let mut names = HashSet::new();
        for metric in METRICS {
            assert!(names.insert(metric.name), "{} stands twice", metric.name);
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == Kind::Counter, "{}", metric.name);
            assert!(!metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
        }
    }

    #[test]
    fn the_reference_tells_every_metric() {
        let text = reference();
        for metric in METRICS {
            assert!(text.contains(&format!("| `{}` |", metric.name)), "{}", metric.name);
        }
    }
}
