//! What the gate's verbs print: values in, lines for a person out. It must not ask the kernel.

use std::fmt::Write as _;
use std::time::Duration;

use ringpost_ebpf::abi::{Class, Reason, Verdict};

use super::bans::Ban;
use super::drops::{Drop, DroppedSource};
use super::status::{Explained, NetworkCounter};
use crate::units::lasting;

/// `gate drops`: a line for each source and port, the latest first. `name` names an interface.
#[must_use]
pub fn drops(drops: &[DroppedSource], now_ns: u64, name: impl Fn(u32) -> String) -> String {
    let mut text = String::new();
    for dropped in drops {
        let ago = lasting(Duration::from_nanos(now_ns.saturating_sub(dropped.last_ns)));
        let _ = writeln!(
            text,
            "{:<39} port {:<5} {:<15} {} on {}, {} sampled, the last {ago} ago",
            dropped.source.to_string(),
            dropped.port,
            dropped.verdict.label(),
            because(dropped.reason),
            name(dropped.interface),
            dropped.samples,
        );
    }
    if text.is_empty() { "nobody was dropped lately\n".to_owned() } else { text }
}

/// A line of `gate trace`. `unix_ms` is the time now, `now_ns` the same by the monotonic clock.
#[must_use]
pub fn trace(drop: &Drop, now_ns: u64, unix_ms: u64, interface: &str) -> String {
    let at_ms = unix_ms.saturating_sub(now_ns.saturating_sub(drop.at_ns) / 1_000_000);
    let (seconds, millis) = (at_ms / 1000 % 86_400, at_ms % 1000);
    format!(
        "{:02}:{:02}:{:02}.{millis:03}Z {interface} {} > {} {} ({})",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        drop.source,
        drop.destination,
        drop.verdict.label(),
        because(drop.reason),
    )
}

/// `gate bans`: a line for each, the one that ends first foremost.
#[must_use]
pub fn bans(bans: &[Ban]) -> String {
    let line = |ban: &Ban| format!("{:<39} {}\n", ban.source.to_string(), remaining(ban.remaining));
    if bans.is_empty() { "nobody is banned\n".to_owned() } else { bans.iter().map(line).collect() }
}

/// The part of `gate status` that counts packets for each network.
#[must_use]
pub fn networks(networks: &[NetworkCounter]) -> String {
    let mut text = String::new();
    for NetworkCounter { network, classes, packets } in networks {
        let classes: Vec<&str> = classes.iter().copied().map(class).collect();
        let _ =
            writeln!(text, "network {:<40} {:<16} {packets} packets", network.to_string(), classes.join(" "));
    }
    text
}

/// What the gate does with new connections, for `explain`.
#[must_use]
pub fn explained(explained: Explained, port: u16) -> String {
    let Explained { verdict, reason } = explained;
    let why = match reason {
        Some(Reason::Network) => format!("outside the networks of port {port}"),
        Some(Reason::Ban) => "banned".to_owned(),
        Some(Reason::Rate) => "too many new connections".to_owned(),
        None => String::new(),
    };
    match verdict {
        Verdict::Accepted => "passes its packets: inside the networks of the port".to_owned(),
        Verdict::Other | Verdict::Unparsed => format!("passes its packets: nothing listens on port {port}"),
        Verdict::Counted => format!("passes and counts its packets (XDP_ACTION=count): {why}"),
        Verdict::Reset => format!("answers with a reset: {why}"),
        Verdict::DroppedNetwork | Verdict::DroppedBan | Verdict::DroppedRate => {
            format!("drops its packets: {why}")
        }
    }
}

/// How long a ban lasts, in words.
#[must_use]
pub fn remaining(remaining: Duration) -> String {
    if remaining > ENDLESS { "until it is lifted".to_owned() } else { format!("for {}", lasting(remaining)) }
}

fn because(reason: Reason) -> &'static str {
    match reason {
        Reason::Network => "outside the networks",
        Reason::Ban => "banned",
        Reason::Rate => "too fast",
    }
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Smtp => "smtp",
        Class::Submission => "submission",
    }
}

/// Bans longer than this were given no end.
const ENDLESS: Duration = Duration::from_secs(100 * 365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(source: &str, port: u16) -> DroppedSource {
        DroppedSource {
            source: source.parse().unwrap(),
            port,
            reason: Reason::Network,
            verdict: Verdict::DroppedNetwork,
            samples: 3,
            last_ns: 1_000_000_000,
            interface: 2,
        }
    }

    #[test]
    fn drops_tell_source_port_and_age() {
        let listed = [dropped("198.18.9.9", 25), dropped("2001:db8::9", 587)];
        let text = drops(&listed, 6_000_000_000, |_| "eth0".to_owned());
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][..4], ["198.18.9.9", "port", "25", "dropped_network"]);
        assert_eq!(lines[1][..3], ["2001:db8::9", "port", "587"]);
        assert!(text.lines().all(|line| line.ends_with("on eth0, 3 sampled, the last 5 s ago")), "{text}");
        assert_eq!(drops(&[], 0, |_| String::new()), "nobody was dropped lately\n");
    }

    #[test]
    fn a_traced_drop_tells_its_time_of_day() {
        let drop = Drop {
            number: 1,
            at_ns: 500_000_000,
            source: "198.18.9.9:40000".parse().unwrap(),
            destination: "[2001:db8::1]:25".parse().unwrap(),
            interface: 2,
            reason: Reason::Ban,
            verdict: Verdict::DroppedBan,
        };
        // Half a second after midnight by the clock; the packet came a quarter before.
        let line = trace(&drop, 750_000_000, 86_400_500, "eth0");
        assert_eq!(line, "00:00:00.250Z eth0 198.18.9.9:40000 > [2001:db8::1]:25 dropped_ban (banned)");
    }

    #[test]
    fn a_ban_without_an_end_says_so() {
        let source = "198.18.9.9".parse().unwrap();
        let text = bans(&[
            Ban { source, remaining: Duration::from_secs(61) },
            Ban { source, remaining: Duration::from_nanos(u64::MAX) },
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with(" for 1 min 1 s") && lines[1].ends_with(" until it is lifted"), "{text}");
        assert_eq!(bans(&[]), "nobody is banned\n");
    }

    #[test]
    fn a_verdict_is_told_with_its_reason() {
        let told = |verdict, reason| explained(Explained { verdict, reason }, 25);
        assert_eq!(
            told(Verdict::DroppedNetwork, Some(Reason::Network)),
            "drops its packets: outside the networks of port 25"
        );
        assert_eq!(told(Verdict::DroppedBan, Some(Reason::Ban)), "drops its packets: banned");
        assert!(told(Verdict::Counted, Some(Reason::Network)).starts_with("passes and counts"));
        assert!(told(Verdict::Accepted, None).starts_with("passes"));
    }
}
